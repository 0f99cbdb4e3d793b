//! The DaemonSet controller: one pod on every node that fits (`pkg/controller/daemon` of 1.36).
//!
//! Pods are bound by the scheduler; a node affinity to the node's name says where. Rolling updates
//! go within `maxUnavailable`, or ahead of it with `maxSurge`; `OnDelete` waits for people. Revisions
//! are kept as ControllerRevisions, so that `kubectl rollout undo` finds them.

mod needs;
mod plan;
#[cfg(test)]
mod plan_tests;
mod shell;

pub use shell::start;
