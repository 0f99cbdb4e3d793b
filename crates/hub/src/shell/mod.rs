//! The shell: watches, calls the planners, writes statuses, carries out actions.

pub mod access;
mod act;
mod adopt;
mod apps;
mod ask;
mod cluster;
mod hub;
mod mcs;
mod member;
mod nodes;
mod notify;
mod orders;
mod outside;
mod policy;
mod queue;
mod reconcile;
mod record;
mod registry;
pub mod slim;
mod table;
mod tenant;
mod trail;

pub use act::read_revision;
pub use adopt::look;
pub use hub::{Error, Options, install, run};
