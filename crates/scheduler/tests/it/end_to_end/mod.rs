//! The whole scheduler against the embedded API server, through the Kubernetes API alone.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::allow_attributes,
    reason = "helpers of tests are not seen as tests"
)]

mod binding;
mod devices;
mod policies;
mod preemption;
mod profiles;
mod tenants;
mod usage;
mod volumes;
mod world;
