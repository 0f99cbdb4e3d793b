//! The binary as its users run it: whole flows on an embedded fleet, and what they can get wrong.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

mod adopt;
mod alone;
mod apiserver;
mod bench;
mod election;
mod faults;
mod fleet;
mod guides;
mod kubelets;
mod moves;
mod people;
mod scenario;
mod scheduling;
mod snapshot;
mod support;
