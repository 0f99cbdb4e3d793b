//! The shell: watches, calls the planners, writes statuses, carries out actions.

mod act;
mod cluster;
mod hub;
mod member;
mod queue;
mod reconcile;
mod slim;
mod table;

pub use hub::{Error, Options, install, run};
