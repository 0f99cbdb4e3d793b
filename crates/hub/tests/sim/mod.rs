//! The simulated fleet.

pub mod adoption;
pub mod hub;
pub mod invariants;
pub mod member;
pub mod objects;
pub mod run;
