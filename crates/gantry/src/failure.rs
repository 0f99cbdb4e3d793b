//! Errors at the user's edge: what went wrong, what to do about it, and the exit code.

use std::fmt;

/// Exit codes, as `gantry help` lists them. 0 is success, 2 a command line that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Anything that has no code of its own.
    Failure = 1,
    /// The command line asks for something that cannot be.
    Usage = 2,
    /// A watched release ended without the new revision: rolled back, aborted or failed.
    ReleaseNotSucceeded = 3,
    /// A watched release did not end: it is paused or waits for a person.
    ReleaseWaits = 4,
    /// An address or port is taken.
    PortBusy = 10,
    /// The data folder cannot be made or written.
    DataUnwritable = 11,
    /// Another process uses the data folder.
    DataInUse = 12,
    /// The data folder was written by a newer Gantry.
    DataNewer = 13,
    /// The data folder is damaged.
    DataDamaged = 14,
    /// Ended by Ctrl-C before the work was done.
    Interrupted = 130,
}

/// A failure to show to a person: one line of what, optionally one of what to do.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub hint: Option<String>,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  → {hint}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Failure>() {
            Ok(failure) => failure,
            // `{:#}` is the whole chain of causes on one line.
            Err(error) => Failure::new(Exit::Failure, format!("{error:#}")),
        }
    }
}

impl std::error::Error for Failure {}
