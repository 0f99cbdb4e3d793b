//! CronJob: Jobs at the times of a schedule.
//!
//! Behaviour is that of `pkg/controller/cronjob` of Kubernetes 1.36. A schedule without a time zone
//! is taken as UTC; Kubernetes takes the time zone of the machine its controller runs on, which is
//! nearly always UTC too.

pub mod plan;
#[cfg(test)]
mod plan_tests;
pub mod schedule;
mod shell;

pub use shell::start;
