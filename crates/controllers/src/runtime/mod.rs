//! What all controllers share: one informer a kind, keyed work queues with workers, expectations
//! about own writes that the watch has not shown yet, events, and the writes themselves.

pub mod api;
pub mod controller;
pub mod discovery;
pub mod events;
pub mod expectations;
pub mod informer;
pub mod membership;
pub mod queue;
pub mod reflector;

pub use api::{Api, ApiError};
pub use controller::{Context, Controller, Outcome};
pub use events::Recorder;
pub use expectations::Expectations;
pub use informer::{Informer, Informers};
pub use queue::Queue;
