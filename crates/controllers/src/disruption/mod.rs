//! Status of PodDisruptionBudgets, by which the API server grants evictions.
//!
//! Behaviour is that of `pkg/controller/disruption` of Kubernetes 1.36. Not there yet: the scale of
//! owners other than the built-in workloads (their pods count as wanted as they are), and clearing
//! of stale DisruptionTarget conditions.

pub mod plan;
mod shell;

pub use shell::start;
