//! Calling webhooks: the servers that users set up to admit, change and convert objects.
//!
//! [`Caller`] is one such server as a `clientConfig` names it, [`Callers`] makes them and shares
//! their connections. What is asked and what an answer means stands with those who ask:
//! `admission::hooks` and [`conversion`].

mod caller;
pub mod conversion;
mod link;
pub mod resolve;
mod trust;

pub use caller::{CallError, Caller, Callers, cause, status_words, trusting};
pub use link::words;
