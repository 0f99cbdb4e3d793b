//! The buttons of a release.

use gantry_api::{Phase, Release};
use gantry_hub::release::buttons::{self, Button};
use serde::Serialize;

/// A button, and whether pressing it does something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Press {
    /// On.
    Continue,
    /// Stand still.
    Pause,
    /// Again.
    Retry,
    /// No longer wait for the batch.
    Skip,
    /// Say yes or no to the gate.
    Approve,
    /// Go on in spite of freezes and windows.
    Emergency,
    /// Back.
    Rollback,
    /// End here.
    Abort,
}

impl Press {
    /// All, in the order in which they stand.
    pub const ALL: [Self; 8] = [
        Self::Continue,
        Self::Pause,
        Self::Retry,
        Self::Skip,
        Self::Approve,
        Self::Emergency,
        Self::Rollback,
        Self::Abort,
    ];

    /// Its name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Pause => "pause",
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Approve => "approve",
            Self::Emergency => "emergency",
            Self::Rollback => "rollback",
            Self::Abort => "abort",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Whether it does something to the release as it is.
    pub fn useful(self, release: &Release) -> bool {
        let status = release.status.clone().unwrap_or_default();
        let open = !status.phase.is_final();
        let plain = |button| buttons::patch(release, button).is_ok();
        match self {
            Self::Continue => plain(Button::Continue),
            Self::Pause => plain(Button::Pause),
            Self::Retry => open && (status.halt.is_some() || !status.failures.is_empty()),
            Self::Skip => open && status.halt.is_some() && buttons::under_way(release).is_some(),
            Self::Approve => open && buttons::asked(release, None).is_ok(),
            Self::Emergency => {
                open && release.spec.emergency.is_none() && status.phase == Phase::Paused
            }
            Self::Rollback => plain(Button::Rollback) && status.rollback.is_none(),
            Self::Abort => plain(Button::Abort) && status.rollback.is_none(),
        }
    }

    /// Whether a person has to see first what it does.
    pub fn asks(self) -> bool {
        !matches!(self, Self::Continue | Self::Pause | Self::Retry)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::run::tests::release;

    #[test]
    fn buttons_are_there_when_they_do_something() {
        let useful = |status| -> Vec<&str> {
            let release = release(status);
            Press::ALL
                .into_iter()
                .filter(|p| p.useful(&release))
                .map(Press::name)
                .collect()
        };
        assert_eq!(
            useful(
                json!({"phase": "Gate", "waitingSince": "2026-11-21T08:00:00Z", "batches": [{"index": 0, "state": "Ready"}]})
            ),
            ["continue", "pause", "rollback", "abort"]
        );
        assert_eq!(
            useful(
                json!({"phase": "Paused", "halt": {"reason": "r", "message": "m", "at": "2026-11-21T08:00:00Z"},
                "batches": [{"index": 1, "state": "Failed"}]})
            ),
            ["pause", "retry", "skip", "emergency", "rollback", "abort"]
        );
        assert!(useful(json!({"phase": "Succeeded"})).is_empty());
    }
}
