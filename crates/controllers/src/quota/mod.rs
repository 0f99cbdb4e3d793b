//! ResourceQuotas: what their namespaces use, counted anew.
//!
//! The API server charges requests to quotas as they come; this controller sets the first count,
//! gives back what went away, and puts right what was charged for requests that failed. Behaviour
//! is that of `pkg/controller/resourcequota` of Kubernetes 1.36. Not reckoned: devices of resource
//! claims by class.

pub mod plan;
mod shell;
mod watches;

pub use shell::start;
