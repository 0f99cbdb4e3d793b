//! Gantry's API types (CRDs of group gantry.dev) and the fleet's vocabulary
