//! EndpointSlices of Services with a selector: which addresses take traffic.
//!
//! Behaviour is that of `pkg/controller/endpointslice` of Kubernetes 1.36. An endpoint is ready
//! when its pod is, and a pod is ready only when all its readiness gates are: this is how Gantry
//! takes an instance out of service. The legacy Endpoints are in
//! [`crate::endpoints`]. Which zones and nodes should use which endpoint is hinted by
//! `trafficDistribution`, or by the zones' shares of all CPUs where an annotation asks for that ([`hints`]).

pub mod hints;
pub mod plan;
mod shell;

pub use shell::start;
