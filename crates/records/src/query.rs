//! What is asked of a store: a filter, a page, and what was found.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::{Outcome, Record, Verb, Via};

/// Which records are wanted. What is not given restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    /// Only of these namespaces. `Some` of an empty list finds nothing: for people who may see none. What
    /// belongs to the fleet has the namespace `""`.
    pub tenants: Option<Vec<String>>,
    /// Only of this kind of object.
    pub kind: Option<String>,
    /// Only of objects of this name, or about the Group of this name.
    pub name: Option<String>,
    /// Only by this user.
    pub who: Option<String>,
    /// Only by these programs.
    pub via: Vec<Via>,
    /// Only these verbs.
    pub verbs: Vec<Verb>,
    /// Only with these outcomes.
    pub outcomes: Vec<Outcome>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// Only those in which this text stands: in the object's name, the user's, why, or the message. Capitals
    /// do not count.
    pub text: Option<String>,
}

/// Which part of what is found, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// At most so many. At least 1, at most [`Page::MOST`].
    pub limit: u32,
    /// Those after the page that gave this as its [`Found::next`].
    pub after: Option<String>,
}

impl Page {
    /// The most records that one page may have.
    pub const MOST: u32 = 1000;

    /// The first page of so many.
    pub fn first(limit: u32) -> Self {
        Self { limit, after: None }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::first(100)
    }
}

/// One page of records, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The records.
    pub records: Vec<Record>,
    /// For [`Page::after`], where there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A place between two records: time and number of arrival of the record before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub at_ms: i64,
    pub seq: i64,
}

impl Cursor {
    pub fn parse(text: &str) -> Option<Self> {
        let (at_ms, seq) = text.split_once('.')?;
        Some(Self {
            at_ms: at_ms.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    }

    pub fn text(self) -> String {
        format!("{}.{}", self.at_ms, self.seq)
    }
}

/// The text that [`Filter::text`] is looked for in.
pub(crate) fn searched(record: &Record) -> String {
    let object = &record.object;
    [
        &object.namespace,
        &object.kind,
        &object.name,
        &object.group,
        &record.who.user,
        &record.why,
        &record.message,
    ]
    .map(String::as_str)
    .join("\n")
    .to_lowercase()
}

/// A pattern of `LIKE` (with `\` as its escape) that finds `text`.
pub(crate) fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "%"
}
