//! Claims to devices (`pkg/controller/resourceclaim` of 1.36): makes a pod's claims from their templates, lets go of
//! claims whose pods are done, and gives the devices of unused claims back.
//!
//! Left out: claims for extended resources, binding of devices by conditions.

mod plan;
mod shell;

pub use shell::start;
