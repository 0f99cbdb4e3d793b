//! Legacy Endpoints: those of Services with a selector are written ([`plan`]), and those that people
//! write for Services without one are mirrored into EndpointSlices ([`mirror`]).
//!
//! Behaviour is that of `pkg/controller/endpoint` and `pkg/controller/endpointslicemirroring` of
//! Kubernetes 1.36. The time of the change that is told is found from the object itself, not from a
//! memory of the pods, so that a restart does not forget it.

pub mod mirror;
mod mirror_shell;
pub mod plan;
pub mod selected;
mod shell;

pub use mirror_shell::start as start_mirroring;
pub use shell::start;
