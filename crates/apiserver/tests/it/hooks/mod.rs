//! Webhooks and admission policies: a real HTTPS server beside the API server answers its reviews.

#![expect(
    clippy::expect_used,
    reason = "helpers of tests, which clippy does not see as tests"
)]

mod audit;
mod client;
mod conversion;
mod mutating;
mod policies;
pub mod server;
mod validating;
