//! Pods that nobody else removes: on nodes that are gone, finished beyond a number, terminating and
//! never bound, or terminating on a node that is declared out of service.
//!
//! Behaviour is that of `pkg/controller/podgc` of Kubernetes 1.36.

pub mod plan;
mod shell;

pub use shell::start;
