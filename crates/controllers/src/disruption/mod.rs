//! Status of PodDisruptionBudgets, by which the API server grants evictions.
//!
//! Behaviour is that of `pkg/controller/disruption` of Kubernetes 1.36. Not there yet: clearing of
//! stale DisruptionTarget conditions, and the event about a pod that was to be evicted and was not.

pub mod plan;
mod scale;
mod shell;

pub use shell::start;
