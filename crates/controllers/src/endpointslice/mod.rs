//! EndpointSlices of Services with a selector: which addresses take traffic.
//!
//! Behaviour is that of `pkg/controller/endpointslice` of Kubernetes 1.36. An endpoint is ready
//! when its pod is, and a pod is ready only when all its readiness gates are: this is how Gantry
//! takes an instance out of service. The legacy Endpoints are in
//! [`crate::endpoints`]. Not there yet: topology hints by CPU share (those by `trafficDistribution`
//! are).

pub mod plan;
mod shell;

pub use shell::start;
