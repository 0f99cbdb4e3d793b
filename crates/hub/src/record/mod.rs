//! Records: from what is seen of Gantry's objects to what was done, by whom and why.
//!
//! Pure. The shell hands in every object that has changed ([`Observed`]); the [`Ledger`] compares it with what
//! was last seen of it and says what to write ([`Entry`]): the records, and what is seen now, which the store
//! keeps in the same transaction. After a restart the store's last state is compared with the objects: what was
//! changed in between is recorded then, as one change an object and under the name of whoever changed it last.
//! Made again, a record has the id that it had, and counts once.
//!
//! Who did it is what the API server has stamped on the object (see `shell/policy.rs`), by which program is what
//! it has written into `managedFields`. A deletion bears nobody's stamp, unless it was announced
//! ([`labels::DELETE_NOTE`]); neither does a write to `scale`: these names are in the API server's audit log, from
//! which the [`Trail`] takes them where the hub can read it.

mod deeds;
mod ledger;
mod observed;
mod trail;

pub use ledger::Ledger;
pub use observed::{Observed, observe};
pub use trail::{AUDIT_POLICY, Trail};

#[cfg(doc)]
use {gantry_api::labels, gantry_records::Entry};

#[cfg(test)]
mod lines;
#[cfg(test)]
mod tests;
