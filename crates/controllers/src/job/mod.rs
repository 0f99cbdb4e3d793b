//! Job: pods that run to their end, until enough of them have succeeded or too many have failed.
//!
//! Behaviour is that of `pkg/controller/job` of Kubernetes 1.36: both completion modes, limits and
//! failure policies of the Job and of an index, success policies, suspension, deadlines. A pod bears
//! a finalizer until it is counted, so that none is forgotten and none counts twice: its uid is
//! written to the status (`uncountedTerminatedPods`), its finalizer removed, and then it moves from
//! that list to the counter.
//!
//! Unlike Kubernetes, `status.active` does not go to 0 while a replacement waits for its back-off,
//! and `status.startTime` goes when a Job is suspended, not only when it is resumed.

pub mod backoff;
pub mod indexes;
pub mod plan;
#[cfg(test)]
mod plan_tests;
pub mod pods;
pub mod policy;
mod release;
mod shell;
pub mod tracking;

pub use shell::start;
