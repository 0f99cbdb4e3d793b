//! Persistent volumes: claims are bound to volumes, volumes are made for claims and taken back, and
//! neither goes away while it is in use (`pkg/controller/volume` of 1.36).
//!
//! Volumes of classes whose provisioner is [`SIMULATED`] are made here: objects only, with nothing
//! behind them, which is all that simulated nodes need; they grow when their claims do. Other
//! provisioners are asked for, by the annotation that they look for, and waited for. Claims that are bound
//! late (`WaitForFirstConsumer`) are left to the scheduler: it reserves a volume, or names the node near
//! which one is to be made. Snapshots are
//! left out.

mod attach;
mod attributes;
mod class;
mod ephemeral;
mod plan;
#[cfg(test)]
mod plan_tests;
mod protect;
mod shell;

pub use attach::start as start_attach_detach;
pub use attributes::start_attributes_protection;
pub use class::start_default_class;
pub use ephemeral::start as start_ephemeral;
pub use plan::SIMULATED;
pub use protect::{start_claim_protection, start_volume_protection};
pub use shell::start;
