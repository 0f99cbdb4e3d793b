//! Fleet-wide controllers: delivery of revisions over the cells of many clusters.
//!
//! | module | holds |
//! |---|---|
//! | [`world`] | what planners see: cells, sets, instances |
//! | [`action`] | what planners ask for |
//! | [`group`] | planner of Groups: sets, sizes, in-service gates |
//! | [`release`] | planner of Releases: bastion, batches, the way back |
//! | [`adopt`] | planner of adoptions: what runs already becomes a Group's, and back |
//! | [`diff`] | how two revisions differ |
//! | [`access`], [`slim`] | how members are reached, and what is read of their objects |
//! | [`mcs`] | Services over members: ServiceExports and ServiceImports |
//! | [`order`] | planner of ReleaseOrders: many releases and Jobs, as a graph |
//! | [`promotion`] | what is where: the status of Apps |
//! | [`run`], [`install`] | the shell: watches, statuses, actions |
//! | [`tenant`] | planner of Tenants: namespaces, roles, quotas |
//! | [`record`] | what follows from changes of objects: the records |
//! | [`notify`] | who is told of a record, and how |
//! | [`render`] | App + Group + revision → pod template, StatefulSet |
//!
//! The planners are pure: no I/O, no clock, no client. All state is in API objects; the process may end
//! between any two actions.

pub mod action;
pub mod adopt;
mod amount;
pub mod diff;
pub mod group;
pub mod mcs;
pub mod notify;
pub mod order;
pub mod promotion;
pub mod record;
pub mod release;
pub mod render;
mod shell;
pub mod tenant;
pub mod world;

pub use amount::thousandths;
pub use shell::{Error, Options, access, install, look, read_revision, run, slim};
