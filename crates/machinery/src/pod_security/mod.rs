//! The pod security standards: what pods of the levels `baseline` and `restricted` may not say, by
//! version, and what the labels of a namespace ask for.
//!
//! The checks stand in [`baseline`] and [`restricted`]; [`violations`] runs those of a level.

mod baseline;
mod configuration;
mod policy;
mod restricted;

use std::fmt;

use serde_json::Value;

pub use configuration::Configuration;
pub use policy::{Policy, label_faults};

use crate::validation::value::{at, list, text};

/// How much a pod may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// Which version's checks are run: those of `v1.N`, or the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    /// Whether checks that came with `v1.N` are among those of this version.
    fn has(self, minor: u32) -> bool {
        match self {
            Version::Latest => true,
            Version::Minor(own) => own >= minor,
        }
    }
}

/// A level as of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Latest => write!(f, "{}:latest", self.level.name()),
            Version::Minor(minor) => write!(f, "{}:v1.{minor}", self.level.name()),
        }
    }
}

/// What a check found: why a pod is forbidden, and more of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

impl Violation {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Violation {
        Violation {
            reason: reason.into(),
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.as_str() {
            "" => f.write_str(&self.reason),
            detail => write!(f, "{} ({detail})", self.reason),
        }
    }
}

/// A check of a pod under the rules of a version.
type Check = fn(&Pod<'_>, Version) -> Option<Violation>;

/// What is wrong with a pod (or a template of one) by a level, in the order of Kubernetes: first
/// what `baseline` forbids.
pub fn violations(pod: &Value, of: LevelVersion) -> Vec<Violation> {
    let pod = Pod::new(pod);
    let restricted = of.level == Level::Restricted;
    let mut found = vec![];
    if of.level == Level::Privileged {
        return found;
    }
    for (check, since, overridden) in baseline::CHECKS {
        let stricter = overridden.is_some_and(|minor| restricted && of.version.has(minor));
        if of.version.has(*since) && !stricter {
            found.extend(check(&pod, of.version));
        }
    }
    if restricted {
        for (check, since) in restricted::CHECKS {
            if of.version.has(*since) {
                found.extend(check(&pod, of.version));
            }
        }
    }
    found
}

/// All details of what was found, in one line.
pub fn details(found: &[Violation]) -> String {
    let all: Vec<String> = found.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// All reasons of what was found, in one line.
pub fn reasons(found: &[Violation]) -> String {
    let all: Vec<&str> = found.iter().map(|v| v.reason.as_str()).collect();
    all.join(", ")
}

/// A pod as checks look at it.
struct Pod<'a> {
    annotations: &'a Value,
    spec: &'a Value,
    /// All containers, those that run first first.
    containers: Vec<&'a Value>,
}

impl<'a> Pod<'a> {
    fn new(pod: &'a Value) -> Pod<'a> {
        let spec = at(pod, "spec");
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        Pod {
            annotations: at(at(pod, "metadata"), "annotations"),
            spec,
            containers: lists.iter().flat_map(|l| list(spec, l)).collect(),
        }
    }

    /// Names of the containers of which something holds.
    fn named(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        let bad = self.containers.iter().filter(|c| holds(c));
        bad.map(|c| text(c, "name")).collect()
    }

    fn context(&self) -> &'a Value {
        at(self.spec, "securityContext")
    }

    fn windows(&self) -> bool {
        text(at(self.spec, "os"), "name") == "windows"
    }

    /// Whether the pod's users are others than the node's.
    fn own_users(&self) -> bool {
        at(self.spec, "hostUsers") == &Value::Bool(false)
    }
}

/// One of two words, by how many there are.
fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`.
fn quoted<S: AsRef<str>>(all: &[S]) -> String {
    let all: Vec<String> = all.iter().map(|s| format!("\"{}\"", s.as_ref())).collect();
    all.join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    let word = plural("container", "containers", names.len());
    format!("{word} {}", quoted(names))
}

/// Sorted, each once.
fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests;
