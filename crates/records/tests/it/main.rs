//! Both stores, held to the same rules; and the writer, with a store that goes away.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

mod postgres;
mod stores;
mod support;
mod writer;
