//! The shell: watches, calls the planners, writes statuses, carries out actions.

pub mod access;
mod act;
mod ask;
mod cluster;
mod hub;
mod member;
mod policy;
mod queue;
mod reconcile;
mod registry;
pub mod slim;
mod table;

pub use act::read_revision;
pub use cluster::thousandths;
pub use hub::{Error, Options, install, run};
