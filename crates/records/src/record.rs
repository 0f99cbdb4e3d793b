//! A record: one operation, by one person or program, on one object.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One operation. What runs for a while (a release) is written when it begins, with the outcome
/// [`Running`](Outcome::Running), and once more when it has ended; any other is written once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// From [`id::of`](crate::id::of). Sorts by time.
    pub id: String,
    /// When it was asked for. Kubernetes tells it to the second, stores keep milliseconds.
    pub at: Timestamp,
    /// Who asked for it.
    pub who: Who,
    /// What was asked for.
    pub verb: Verb,
    /// Of which object.
    pub object: Object,
    /// Why, in the words of who asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What is different now: how it was. Only what has changed, kept small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// How it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// What came of it.
    pub outcome: Outcome,
    /// The same in one line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When work on it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
}

impl Record {
    /// How long it took, in milliseconds: from its start (from when it was asked for, where it had no start)
    /// to its end.
    pub fn duration_ms(&self) -> Option<i64> {
        let end = self.finished?;
        let start = self.started.unwrap_or(self.at);
        Some((end.as_millisecond() - start.as_millisecond()).max(0))
    }
}

/// Who did something, as the API server knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Who {
    /// The user's name. Empty: not known.
    pub user: String,
    /// The user's groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// By which program.
    pub via: Via,
}

/// The object of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Its kind.
    pub kind: String,
    /// Its namespace, which is the tenant's; empty for what belongs to the fleet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The Group that it is about, where that has another name than the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
}

/// An enum of words, read and written by their names.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident => $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$item_doc])* #[serde(rename = $word)] $item,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$item),+];

            /// The word that it is written as.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$item => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|w| w.as_str() == text).copied();
                found.ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|w| w.as_str()).collect();
                    format!("{text:?} is none of {}", all.join(", "))
                })
            }
        }
    };
}

words! {
    /// The program that someone used.
    Via {
        /// `gantry`.
        Cli => "cli",
        /// `kubectl`.
        Kubectl => "kubectl",
        /// The web console.
        Console => "console",
        /// The hub itself.
        Hub => "hub",
        /// Another client of the API, or it is not known which.
        Other => "other",
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the macro that makes the enum knows no default"
)]
impl Default for Via {
    fn default() -> Self {
        Self::Other
    }
}

words! {
    /// What was asked for.
    Verb {
        /// An object was made.
        Create => "create",
        /// Its spec was changed, in a way that has no word of its own.
        Change => "change",
        /// It was deleted.
        Delete => "delete",
        /// A revision was released.
        Release => "release",
        /// A Group was given another number of instances.
        Scale => "scale",
        /// A release was told to stand still.
        Pause => "pause",
        /// It was told to go on.
        Continue => "continue",
        /// A bastion or batch was let pass.
        Accept => "accept",
        /// A gate was approved.
        Approve => "approve",
        /// It was rejected.
        Reject => "reject",
        /// The pace of a release was changed.
        Pace => "pace",
        /// A batch was no longer waited for.
        Skip => "skip",
        /// Failed instances were tried again.
        Retry => "retry",
        /// A release was ended as it was.
        Abort => "abort",
        /// A release was taken back.
        Rollback => "rollback",
        /// An emergency was declared.
        Emergency => "emergency",
        /// An emergency overrode a freeze, a window or a gate.
        Override => "override",
        /// The line was stopped.
        Stop => "stop",
        /// Releases were frozen.
        Freeze => "freeze",
        /// A stopped line, or a freeze, was let go.
        Go => "go",
        /// Someone was given a role.
        Grant => "grant",
        /// A role was taken from someone.
        Revoke => "revoke",
        /// A terminal in an instance.
        Exec => "exec",
    }
}

words! {
    /// What came of an operation.
    Outcome {
        /// It has not ended.
        Running => "running",
        /// The API server took it; there is no more to it.
        Done => "done",
        /// It ended as wished.
        Succeeded => "succeeded",
        /// It ended, and everything is as it was before.
        RolledBack => "rolled-back",
        /// It was ended by a person.
        Aborted => "aborted",
        /// It could not be done.
        Failed => "failed",
        /// Its object went before its end was seen.
        Unknown => "unknown",
    }
}

/// What was last seen of an object: what its next change is compared with, after a restart too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Which object.
    pub object: Object,
    /// `metadata.generation`.
    pub generation: i64,
    /// Whatever the comparison needs.
    pub state: Value,
}

/// How [`Seen`] has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SeenChange {
    /// The object is so now.
    Is(Seen),
    /// The object of this UID is gone.
    Gone(String),
}

/// What is written at once: records, and what they were made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The records, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
    /// What has been seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenChange>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for verb in Verb::ALL {
            assert_eq!(verb.as_str().parse(), Ok(*verb));
            let json = serde_json::to_string(verb).unwrap();
            assert_eq!(json, format!("{:?}", verb.as_str()));
        }
        let wrong = "cancelled".parse::<Outcome>().unwrap_err();
        assert_eq!(
            wrong,
            "\"cancelled\" is none of running, done, succeeded, rolled-back, aborted, failed, unknown"
        );
    }
}
