//! What Kubernetes' conformance tests ask of a cluster, walked step by step on one embedded cluster that all
//! tests of this file share. `docs/conformance.md` says which of them are walked, and where.
//!
//! Each test has a namespace of its own; what is not in a namespace has names of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

mod apps;
mod dns;
mod harness;
mod hooks;
mod jobs;
mod lifecycle;
mod machinery;
mod network;
mod pods;
mod processes;
mod scheduling;
mod storage;
mod storage_changes;
mod webhooks;
