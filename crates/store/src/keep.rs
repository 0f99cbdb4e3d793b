//! What values are on disk, where that is something else than what they are in memory.

use std::fmt;

/// Makes of values what is kept of them on disk and in backups, and values of that again. In memory
/// they are what they are: what is read costs nothing.
pub trait Keeper: fmt::Debug + Send + Sync {
    /// What is kept of a value; `None` keeps it as it is.
    ///
    /// # Errors
    /// Why nothing can be made of it. It is then not written.
    fn seal(&self, bucket: &str, name: &str, value: &[u8]) -> Result<Option<Vec<u8>>, KeepError>;

    /// The value of what is kept.
    ///
    /// # Errors
    /// Why there is none to be had.
    fn open(&self, bucket: &str, name: &str, kept: &[u8]) -> Result<Opened, KeepError>;
}

/// A value as it was before it was kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// `None`: what is kept is the value.
    pub value: Option<Vec<u8>>,
    /// It would be kept in another way now.
    pub stale: bool,
}

/// Why a value cannot be kept, or what is kept cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeepError(pub String);
