//! When a configuration file is tried, as it is now: a plan without files and clocks.

use std::time::Duration;

use tokio::time::Instant;

/// How soon what may have been a passing trouble is tried again, as kube-apiserver has it.
const AGAIN: Duration = Duration::from_secs(60);

/// Why a file was not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It is wrong, and will be as long as it is as it is.
    Wrong(String),
    /// It may do later: something it names was not there.
    Passing(String),
}

/// What is remembered of a file between two looks at it.
pub struct Plan {
    /// Digest of what was last tried, at the start that which is in force. `None` where it could not be
    /// read.
    tried: Option<String>,
    /// When that is tried again.
    again: Option<Instant>,
}

impl Plan {
    /// `in_force` is the digest of what the server started with.
    pub fn new(in_force: String) -> Plan {
        Plan {
            tried: Some(in_force),
            again: None,
        }
    }

    /// Whether there is something to try. `seen` is the digest of the file as it is, `None` where it
    /// cannot be read.
    pub fn due(&mut self, seen: Option<&str>, now: Instant) -> bool {
        let other = self.tried.as_deref() != seen;
        let again = self.again.is_some_and(|at| now >= at);
        if other || again {
            self.tried = seen.map(str::to_owned);
            self.again = None;
        }
        other || again
    }

    /// How the try ended, or that the file could not be read.
    pub fn tried(&mut self, outcome: &Result<(), Trouble>, now: Instant) {
        if let Err(Trouble::Passing(_)) = outcome {
            self.again = Some(now + AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_tried_when_it_changes_and_passing_trouble_once_a_minute() {
        let start = Instant::now();
        let wrong = || Err(Trouble::Wrong(String::new()));
        let passing = || Err(Trouble::Passing(String::new()));
        /// Seconds since the start, what is seen, and how the try ends if there is to be one.
        type Look = (u64, Option<&'static str>, Option<Result<(), Trouble>>);
        let table: [Look; 14] = [
            (0, Some("a"), None),
            (1, Some("b"), Some(Ok(()))),
            (2, Some("b"), None),
            (90, Some("b"), None),
            (91, Some("c"), Some(wrong())),
            (200, Some("c"), None),
            (201, None, Some(passing())),
            (202, None, None),
            (260, None, None),
            (261, None, Some(passing())),
            (262, Some("d"), Some(passing())),
            (300, Some("d"), None),
            (322, Some("d"), Some(Ok(()))),
            (500, Some("d"), None),
        ];
        let mut plan = Plan::new("a".to_owned());
        for (at, seen, outcome) in table {
            let now = start + Duration::from_secs(at);
            assert_eq!(plan.due(seen, now), outcome.is_some(), "after {at} s");
            if let Some(outcome) = outcome {
                plan.tried(&outcome, now);
            }
        }
    }

    #[test]
    fn what_was_in_force_is_tried_when_it_comes_back() {
        let now = Instant::now();
        let mut plan = Plan::new("a".to_owned());
        for seen in ["b", "a"] {
            assert!(plan.due(Some(seen), now), "{seen}");
            plan.tried(&Err(Trouble::Wrong(String::new())), now);
        }
    }
}
