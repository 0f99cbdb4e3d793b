//! A rule: which containers it is about, and what it makes of them.

use super::{Labels, Span, Subject};
use crate::usage::Profile;
use std::{sync::Arc, time::Duration};

/// A pattern with `*` (any run of characters) and `?` (one character).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl std::fmt::Display for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Glob {
    /// Any text is a pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether the whole of `text` fits. Linear in practice, quadratic at worst: a mismatch goes
    /// back to the last `*` only.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(&byte) if byte == b'?' || byte == text[t] => {
                    p += 1;
                    t += 1;
                }
                _ => match star {
                    Some((at, from)) => {
                        star = Some((at, from + 1));
                        p = at + 1;
                        t = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }
}

/// When a container's application begins to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// That long after its start.
    After(Span),
    /// Never: its readiness (and startup) probes fail for ever.
    Never,
}

/// A container that ends by itself, badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// That long after its start.
    pub after: Span,
    /// With this code.
    pub exit_code: i32,
    /// That many starts out of a million end so.
    pub per_million: u32,
    /// `state.terminated.reason`; `Error` when left out.
    pub reason: Option<Arc<str>>,
    /// `state.terminated.message`.
    pub message: Option<Arc<str>>,
}

/// A container that is out of service for a while: its readiness probe fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// That long after its start.
    pub after: Span,
    /// For so long.
    pub lasts: Span,
    /// And again that long after the lapse before began; once, if not set.
    pub every: Option<Duration>,
}

/// Lines that a container prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prints {
    /// One after the other, then over again. `{n}` stands for the number of the line.
    pub lines: Box<[Box<str>]>,
    /// Between two of them.
    pub every: Duration,
}

/// What a rule, or a pod's annotations, set. What they leave out is decided by the next rule, and at
/// last by the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Time of an image pull.
    pub pull: Option<Span>,
    /// The pull fails, with this message.
    pub pull_error: Option<Arc<str>>,
    /// Time from pulled to running.
    pub start: Option<Span>,
    /// The start fails, with this message.
    pub start_error: Option<Arc<str>>,
    /// Time from running to answering.
    pub ready: Option<Ready>,
    /// What a failing probe says.
    pub message: Option<Arc<str>>,
    /// The container ends by itself after that long.
    pub run: Option<Span>,
    /// The code it then ends with.
    pub exit_code: Option<i32>,
    /// It crashes.
    pub crash: Option<Crash>,
    /// It is killed for want of memory.
    pub oom: Option<Crash>,
    /// It is out of service for a while.
    pub unready: Option<Lapse>,
    /// It stops answering that long after its start: readiness and liveness probes fail from then on.
    pub hang: Option<Span>,
    /// Time it needs to end when told to.
    pub stop: Option<Span>,
    /// What it prints.
    pub logs: Option<Arc<Prints>>,
    /// What it uses of processors, in cores.
    pub cpu: Option<Arc<Profile>>,
    /// What it uses of memory, in bytes. Above its limit it is killed.
    pub memory: Option<Arc<Profile>>,
    /// What it uses of the node's disk, in bytes.
    pub disk: Option<Arc<Profile>>,
    /// What it makes of the network, in and out together, in bytes a second.
    pub network: Option<Arc<Profile>>,
}

/// A rule: holds for the containers that fit all of its patterns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Pattern for the image.
    pub image: Option<Glob>,
    /// Pattern for the namespace.
    pub namespace: Option<Glob>,
    /// Pattern for the pod's name.
    pub pod: Option<Glob>,
    /// Pattern for the container's name.
    pub container: Option<Glob>,
    /// Pattern for the node's name.
    pub node: Option<Glob>,
    /// Pattern for one of the labels that name a pod's revision.
    pub revision: Option<Glob>,
    /// Patterns for the values of labels that must be there.
    pub labels: Vec<(String, Glob)>,
    /// What it sets.
    pub effects: Effects,
}

/// Labels of a pod that name its revision: Gantry's number, and the hashes of StatefulSets, DaemonSets
/// and Deployments.
const REVISIONS: [&str; 3] = [
    "gantry.dev/revision",
    "controller-revision-hash",
    "pod-template-hash",
];

impl Rule {
    /// Whether the rule is about this container.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let fits =
            |glob: &Option<Glob>, text: &str| glob.as_ref().is_none_or(|glob| glob.matches(text));
        fits(&self.image, subject.image)
            && fits(&self.namespace, subject.namespace)
            && fits(&self.pod, subject.pod)
            && fits(&self.container, subject.container)
            && fits(&self.node, subject.node)
            && self.revision.as_ref().is_none_or(|glob| {
                let named = REVISIONS
                    .iter()
                    .filter_map(|key| label(subject.labels, key));
                named.into_iter().any(|it| glob.matches(it))
            })
            && self.labels.iter().all(|(key, glob)| {
                label(subject.labels, key).is_some_and(|value| glob.matches(value))
            })
    }
}

fn label<'a>(labels: &'a Labels, key: &str) -> Option<&'a str> {
    labels.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("*:broken", "shop/cart:broken", true)]
    #[case("*:broken", "shop/cart:broken2", false)]
    #[case("shop/*", "shop/cart:1", true)]
    #[case("*a*b", "xxaxxbxb", true)]
    #[case("*a*b", "xxaxx", false)]
    #[case("v?.2", "v1.2", true)]
    #[case("v?.2", "v.2", false)]
    #[case("", "", true)]
    #[case("*", "", true)]
    #[case("", "x", false)]
    fn globs(#[case] pattern: &str, #[case] text: &str, #[case] fits: bool) {
        assert_eq!(Glob::new(pattern).matches(text), fits);
    }
}
