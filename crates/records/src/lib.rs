//! What was done in the fleet: every operation with who, when, what, why and its outcome, in SQL.
//!
//! | module | holds |
//! |---|---|
//! | [`record`] | [`Record`] and the words it is made of |
//! | [`query`] | [`Filter`], [`Page`], [`Found`]: what is asked of a store |
//! | [`store`] | [`Records`], the trait of a store, and [`open`], which makes one from a URL |
//! | [`writer`] | [`Writer`]: the way into a store that may be away for a while |
//! | [`export`] | records as JSON lines and CSV |
//! | [`diff`] | what has changed between two values, kept small |
//!
//! To show records: [`open`] the store, then [`Records::query`] with a [`Filter`] and a [`Page`], and the
//! page after it with [`Found::next`]. To write them: [`Writer::start`].
//!
//! A record's id is made from what it is about ([`id::of`]), so that one which is made again after a crash
//! is the same one, and counts once.

pub mod diff;
pub mod export;
pub mod id;
mod postgres;
pub mod query;
pub mod record;
mod spool;
mod sql;
mod sqlite;
pub mod store;
pub mod writer;

pub use query::{Filter, Found, Page};
pub use record::{Entry, Object, Outcome, Record, Seen, SeenChange, Verb, Via, Who};
pub use store::{Error, Records, open};
pub use writer::Writer;
