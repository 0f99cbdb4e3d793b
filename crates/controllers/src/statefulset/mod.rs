//! StatefulSet: pods with stable names, each on the revision that the update strategy allows it.
//!
//! Behaviour is that of `pkg/controller/statefulset` of Kubernetes 1.36.

pub mod claims;
pub mod plan;
mod pods;
mod shell;

pub use shell::start;
