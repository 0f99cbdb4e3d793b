//! What the labels of a namespace ask for.

use std::fmt;

use serde_json::Value;

use super::{Level, LevelVersion, Version};
use crate::{status::Cause, validation::value::at};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// The levels by which a namespace refuses pods, notes them in the audit log, and warns of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

pub(super) const OPEN: LevelVersion = LevelVersion {
    level: Level::Privileged,
    version: Version::Latest,
};

pub(super) fn level(label: &str) -> Option<Level> {
    [Level::Privileged, Level::Baseline, Level::Restricted]
        .into_iter()
        .find(|level| level.name() == label)
}

pub(super) fn version(label: &str) -> Option<Version> {
    if label == "latest" {
        return Some(Version::Latest);
    }
    let minor = label.strip_prefix("v1.")?;
    let plain = minor == "0" || !minor.starts_with('0');
    let digits = !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit());
    (plain && digits).then(|| Version::Minor(minor.parse().unwrap_or(u32::MAX)))
}

/// Of a label: its name and what it says.
fn read<'a>(namespace: &'a Value, mode: &str, suffix: &str) -> Option<(String, &'a str)> {
    let labels = at(at(namespace, "metadata"), "labels");
    let name = format!("{PREFIX}{mode}{suffix}");
    let value = labels.get(&name)?.as_str()?;
    Some((name, value))
}

/// Where nothing is asked for.
impl Default for Policy {
    fn default() -> Policy {
        Policy {
            enforce: OPEN,
            audit: OPEN,
            warn: OPEN,
        }
    }
}

impl Policy {
    /// What a namespace asks for; `defaults` hold where its labels say nothing. Of what cannot be
    /// read, pods are held to the strictest, but nothing is noted and nobody warned.
    pub fn of(namespace: &Value, defaults: &Policy) -> Policy {
        let mode = |mode: &str, default: LevelVersion, wrong: Level| {
            let mut of = default;
            let given = read(namespace, mode, "").map(|(_, label)| level(label));
            if let Some(given) = given {
                of.level = given.unwrap_or(wrong);
            }
            if let Some((_, label)) = read(namespace, mode, "-version") {
                of.version = version(label).unwrap_or(Version::Latest);
            }
            (of, given)
        };
        let (enforce, enforced) = mode("enforce", defaults.enforce, Level::Restricted);
        let (audit, _) = mode("audit", defaults.audit, Level::Privileged);
        let (mut warn, warned) = mode("warn", defaults.warn, Level::Privileged);
        // Who enforces a level warns of it: of workloads, whose pods come later.
        if warned.is_none() && enforced.flatten().is_some() && enforce.level > warn.level {
            warn.level = enforce.level;
            if read(namespace, "warn", "-version").is_none() {
                warn.version = enforce.version;
            }
        }
        Policy {
            enforce,
            audit,
            warn,
        }
    }

    /// Whether nothing is asked for.
    pub fn open(&self) -> bool {
        let all = [self.enforce, self.audit, self.warn];
        all.iter().all(|of| of.level == Level::Privileged)
    }
}

/// What is asked for, as warnings tell it: `enforce=baseline:latest, warn=restricted:latest`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modes = [
            ("enforce", self.enforce),
            ("audit", self.audit),
            ("warn", self.warn),
        ];
        let asked = modes.iter().filter(|(_, of)| of.level != Level::Privileged);
        for (at, (mode, of)) in asked.enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{mode}={of}")?;
        }
        Ok(())
    }
}

/// What is wrong with the labels of a namespace.
pub fn label_faults(namespace: &Value) -> Vec<Cause> {
    let mut faults = vec![];
    for mode in ["enforce", "audit", "warn"] {
        let wrong_level = read(namespace, mode, "").filter(|(_, l)| level(l).is_none());
        let wrong_version = read(namespace, mode, "-version").filter(|(_, l)| version(l).is_none());
        for (wrong, detail) in [
            (
                wrong_level,
                "must be one of privileged, baseline, restricted",
            ),
            (wrong_version, "must be \"latest\" or \"v1.x\""),
        ] {
            if let Some((name, label)) = wrong {
                faults.push(Cause {
                    reason: "FieldValueInvalid".to_owned(),
                    message: format!("Invalid value: {label:?}: {detail}"),
                    field: format!("metadata.labels[{name}]"),
                });
            }
        }
    }
    faults
}
