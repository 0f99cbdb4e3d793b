//! What is wrong with an expression, in the words of Kubernetes' CEL implementation (cel-go).

use std::{fmt, sync::Arc};

/// A fault of an expression, at a place in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// In characters from the start.
    pub at: usize,
    pub message: String,
}

impl Issue {
    pub(super) fn new(at: usize, message: String) -> Issue {
        Issue { at, message }
    }
}

/// The faults for which an expression was refused, shown with the lines they stand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issues {
    pub(super) source: Arc<str>,
    pub list: Vec<Issue>,
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, issue) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let mut rest = issue.at;
            let (mut row, mut line) = (1, "");
            for (n, text) in self.source.split('\n').enumerate() {
                (row, line) = (n + 1, text);
                let length = text.chars().count();
                if rest <= length {
                    break;
                }
                rest -= length + 1;
            }
            let dots = ".".repeat(rest);
            write!(
                f,
                "ERROR: <input>:{row}:{}: {}\n | {line}\n | {dots}^",
                rest + 1,
                issue.message
            )?;
        }
        Ok(())
    }
}

/// Why an evaluation gave no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The expression cannot be evaluated on these values, as `no such key: x`.
    Error(String),
    /// The evaluation cost more than it may.
    TooCostly,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Fault {
        Fault::Error(message.into())
    }

    pub(super) fn no_overload() -> Fault {
        Fault::new("no such overload")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Error(message) => f.write_str(message),
            Fault::TooCostly => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

impl std::error::Error for Fault {}
impl std::error::Error for Issues {}
