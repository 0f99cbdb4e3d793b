//! What people do with the real kubectl, where it is installed, on an embedded cluster.

#![expect(clippy::unwrap_used, reason = "a test fails where its helpers do")]

mod harness;
mod objects;
mod pods;
mod suite;
mod workloads;
