//! Claims to devices (`pkg/controller/resourceclaim` of 1.36): makes a pod's claims from their templates, lets go of
//! claims whose pods are done, and gives the devices of unused claims back. Claims that a scheduler has made for
//! extended resources are let go of like those made from templates.
//!
//! Left out: binding of devices by conditions.

mod plan;
mod shell;

pub use shell::start;
