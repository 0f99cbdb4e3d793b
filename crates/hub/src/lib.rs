//! Fleet-wide controllers: delivery of revisions over the cells of many clusters.
//!
//! | module | holds |
//! |---|---|
//! | [`world`] | what planners see: cells, sets, instances |
//! | [`action`] | what planners ask for |
//! | [`group`] | planner of Groups: sets, sizes, in-service gates |
//! | [`release`] | planner of Releases: bastion, batches, the way back |
//! | [`diff`] | how two revisions differ |
//! | [`access`], [`slim`] | how members are reached, and what is read of their objects |
//! | [`run`], [`install`] | the shell: watches, statuses, actions |
//! | [`render`] | App + Group + revision → pod template, StatefulSet |
//!
//! The planners are pure: no I/O, no clock, no client. All state is in API objects; the process may end
//! between any two actions.

pub mod action;
pub mod diff;
pub mod group;
pub mod release;
pub mod render;
mod shell;
pub mod world;

pub use shell::{Error, Options, access, install, read_revision, run, slim, thousandths};
