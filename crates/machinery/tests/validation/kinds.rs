//! All other kinds.
