//! Nodes that no longer report: they are told unknown and tainted, their pods leave traffic and,
//! when their toleration is over, the node.
//!
//! Behaviour is that of `pkg/controller/nodelifecycle` and `pkg/controller/tainteviction` of
//! Kubernetes 1.36, with the rates that keep a failure of many nodes at a time from emptying them.
//! Two differences: the time that a pod tolerates a taint counts from when the taint was put (or
//! the pod was made), so that it outlives a restart of the controller; and pods of a node that
//! reports itself not ready are left to its kubelet, which tells their readiness.

pub mod plan;
mod shell;
pub mod taints;

pub use shell::start;
pub(crate) use shell::{disrupt, fail};

use std::time::Duration;

/// The times of this controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often nodes are looked at.
    pub period: Duration,
    /// How long a node may be silent (neither lease nor heartbeat) before it counts as unknown.
    pub grace: Duration,
    /// The same for a node that has told nothing yet: it may be starting.
    pub startup_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            period: Duration::from_secs(5),
            grace: Duration::from_secs(40),
            startup_grace: Duration::from_secs(60),
        }
    }
}
