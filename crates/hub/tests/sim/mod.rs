//! The simulated fleet.

pub mod hub;
pub mod invariants;
pub mod member;
pub mod run;
