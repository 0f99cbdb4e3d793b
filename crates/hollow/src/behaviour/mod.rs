//! How simulated containers behave: delays and failures, looked up without state.
//!
//! A behaviour is decided, field by field, by the pod's annotations, then by the first rule of the
//! ConfigMap that fits and sets the field, then by the defaults. What is left to chance is drawn from
//! the seed and the container's identity (namespace, pod name, container, image, attempt), never from
//! the uid: the same scenario runs the same way every time.

mod draw;
mod parse;
mod rule;

pub use draw::{Draw, Shape, Span};
pub use parse::{ANNOTATION_PREFIX, Files, Refused, annotations, duration, rules, span};
pub(crate) use parse::{probability, rule};
pub use rule::{Crash, Effects, Glob, Lapse, Prints, Ready, Rule};

use crate::{
    clock::Millis,
    image::{Catalogue, Planned, Traffic},
    pod::Images,
    usage::Profile,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Labels of a pod.
pub type Labels = BTreeMap<String, String>;
/// Annotations of a pod.
pub type Annotations = BTreeMap<String, String>;

/// What holds where no rule says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Preparing a pod's sandbox and network.
    pub sandbox: Span,
    /// An image pull, by image.
    pub pull: Span,
    /// From pulled to running.
    pub start: Span,
    /// From running to answering.
    pub ready: Span,
    /// From the signal to the end.
    pub stop: Span,
    /// How long an init container runs.
    pub init_run: Span,
    /// How long the container of a Job's pod runs; other containers run until stopped.
    pub job_run: Span,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            sandbox: Span::millis(50, 250),
            pull: Span::millis(500, 2000),
            start: Span::millis(200, 1000),
            ready: Span::millis(500, 2000),
            stop: Span::millis(200, 1000),
            init_run: Span::millis(200, 1000),
            job_run: Span::millis(1000, 5000),
        }
    }
}

impl Defaults {
    /// Everything happens at once: for tests and for measuring the API server alone.
    pub const INSTANT: Self = Self {
        sandbox: Span::ZERO,
        pull: Span::ZERO,
        start: Span::ZERO,
        ready: Span::ZERO,
        stop: Span::ZERO,
        init_run: Span::ZERO,
        job_run: Span::ZERO,
    };
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An init container that must end before the next.
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    /// A container that runs until it is stopped.
    Service,
    /// A container of a Job's pod.
    Task,
}

/// The container whose behaviour is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub pod: &'a str,
    /// Labels of the pod.
    pub labels: &'a Labels,
    /// What the pod's annotations set.
    pub overrides: Option<&'a Effects>,
    /// Name of the node.
    pub node: &'a str,
    /// Name of the container.
    pub container: &'a str,
    /// Its image.
    pub image: &'a str,
    /// What it is in its pod.
    pub role: Role,
    /// How many times it ran before.
    pub attempt: u32,
}

/// How one pull goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// How long it takes.
    pub time: Duration,
    /// The registry's answer, if it fails.
    pub error: Option<Arc<str>>,
}

/// How a container ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// How long after its start.
    pub after: Duration,
    /// With which code.
    pub code: i32,
    /// `terminated.reason`, if not the usual one.
    pub reason: Option<Arc<str>>,
    /// `terminated.message`.
    pub message: Option<Arc<str>>,
}

/// Time out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// That long after the start.
    pub after: Duration,
    /// For so long.
    pub lasts: Duration,
    /// And again, counted from beginning to beginning.
    pub every: Option<Duration>,
}

/// How one run of a container goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// From pulled to running.
    pub start: Duration,
    /// The runtime's answer, if the start fails.
    pub start_error: Option<Arc<str>>,
    /// How long after its start the application answers; `None`: never.
    pub ready: Option<Duration>,
    /// Whether that is what an annotation or a rule says.
    pub ready_told: bool,
    /// What a failing probe says.
    pub message: Option<Arc<str>>,
    /// Its end, if it ends by itself.
    pub exit: Option<Exit>,
    /// Whether that is what an annotation or a rule says.
    pub told: bool,
    /// When it stops answering, after its start.
    pub hang: Option<Duration>,
    /// When it is out of service for a while, after its start.
    pub lapse: Option<Out>,
    /// From the signal to the end.
    pub stop: Duration,
}

/// What the registry says about an image whose name says that there is none.
fn missing(image: &str) -> Option<Arc<str>> {
    let registry = image.split('/').next().unwrap_or_default();
    let tag = image
        .rsplit('/')
        .next()?
        .split_once(':')
        .map(|(_, tag)| tag);
    let none = matches!(
        tag,
        Some("404" | "nonexistent" | "non-existent" | "does-not-exist")
    ) || registry.starts_with("invalid.")
        || registry.ends_with(".invalid");
    none.then(|| format!("failed to resolve reference \"{image}\": {image}: not found").into())
}

/// The rules in force, with seed and defaults. One value answers every question about behaviour.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behaviours {
    /// Makes draws differ between simulations.
    pub seed: u64,
    /// What holds where no rule says otherwise.
    pub defaults: Defaults,
    /// Rules, the first that fits first.
    pub rules: Vec<Rule>,
    /// What is known of images, where no rule says how long a pull takes.
    pub images: Arc<Catalogue>,
}

impl Behaviours {
    /// The first value set for this container: annotations, then rules in order.
    fn find<'s, T>(
        &'s self,
        subject: &Subject<'s>,
        field: impl Fn(&'s Effects) -> Option<T>,
    ) -> Option<T> {
        subject
            .overrides
            .and_then(&field)
            .or_else(|| self.first(subject, field))
    }

    /// The first value that a rule sets for this container.
    fn first<'s, T>(
        &'s self,
        subject: &Subject<'_>,
        field: impl Fn(&'s Effects) -> Option<T>,
    ) -> Option<T> {
        // A rule that says nothing about it need not be compared with the container.
        self.rules
            .iter()
            .find_map(|rule| field(&rule.effects).filter(|_| rule.matches(subject)))
    }

    fn draw(&self, what: &str, subject: &Subject<'_>) -> Draw {
        Draw::new(self.seed)
            .word(what)
            .word(subject.namespace)
            .word(subject.pod)
            .word(subject.container)
            .word(subject.image)
            .number(u64::from(subject.attempt))
    }

    /// How long the pod's sandbox takes.
    #[must_use]
    pub fn sandbox(&self, namespace: &str, pod: &str) -> Duration {
        Draw::new(self.seed)
            .word("sandbox")
            .word(namespace)
            .word(pod)
            .within(self.defaults.sandbox)
    }

    /// How the pull of the container's image goes. The time depends on the image alone: a big image
    /// is big for everyone.
    #[must_use]
    pub fn pull(&self, subject: &Subject<'_>) -> Pull {
        let span = self
            .find(subject, |it| it.pull)
            .unwrap_or(self.defaults.pull);
        Pull {
            time: Draw::new(self.seed)
                .word("pull")
                .word(subject.image)
                .within(span),
            error: self
                .find(subject, |it| it.pull_error.clone())
                .or_else(|| missing(subject.image)),
        }
    }

    /// How the pull of the container's image goes if nothing but the catalogue tells; `try_` counts the
    /// tries before it.
    pub fn fetch(
        &self,
        subject: &Subject<'_>,
        try_: u32,
        node: &mut Images,
        traffic: &mut Traffic,
        now: Millis,
        scale: f64,
    ) -> Option<Planned> {
        let told = |it: &Effects| (it.pull.is_some() || it.pull_error.is_some()).then_some(());
        if self.images.images.is_empty() || self.find(subject, told).is_some() {
            return None;
        }
        let draw = self.draw("fetch", subject);
        let image = subject.image.into();
        self.images
            .pull(&image, draw, try_, node, traffic, now, scale)
    }

    /// What the container prints, if a rule says so.
    #[must_use]
    pub fn prints(&self, subject: &Subject<'_>) -> Option<Arc<Prints>> {
        self.find(subject, |it| it.logs.clone())
    }

    /// What the container uses, if an annotation or a rule says so: processors, memory.
    #[must_use]
    pub fn uses(&self, subject: &Subject<'_>) -> [Option<Arc<Profile>>; 2] {
        [
            self.find(subject, |it| it.cpu.clone()),
            self.find(subject, |it| it.memory.clone()),
        ]
    }

    /// What the container uses of the node's disk, if an annotation or a rule says so.
    #[must_use]
    pub fn disk(&self, subject: &Subject<'_>) -> Option<Arc<Profile>> {
        self.find(subject, |it| it.disk.clone())
    }

    /// What the container makes of the network, if an annotation or a rule says so.
    #[must_use]
    pub fn network(&self, subject: &Subject<'_>) -> Option<Arc<Profile>> {
        self.find(subject, |it| it.network.clone())
    }

    /// What the container uses of memory, if an annotation or a rule says so.
    #[must_use]
    pub fn memory(&self, subject: &Subject<'_>) -> Option<Arc<Profile>> {
        self.find(subject, |it| it.memory.clone())
    }

    fn crash<'s>(
        &'s self,
        subject: &Subject<'s>,
        what: &str,
        field: impl Fn(&'s Effects) -> Option<&'s Crash>,
    ) -> Option<Exit> {
        let crash = self.find(subject, field)?;
        let whether = self.draw(&format!("{what}?"), subject);
        whether.hits(crash.per_million).then(|| Exit {
            after: self.draw(what, subject).within(crash.after),
            code: crash.exit_code,
            reason: crash.reason.clone(),
            message: crash.message.clone(),
        })
    }

    /// How this run of the container goes.
    #[must_use]
    pub fn run(&self, subject: &Subject<'_>) -> Run {
        let defaults = &self.defaults;
        let start = self.find(subject, |it| it.start).unwrap_or(defaults.start);
        let ready = self.find(subject, |it| it.ready);
        let ready_told = ready.is_some();
        let ready = ready.unwrap_or(Ready::After(defaults.ready));
        let run = self.find(subject, |it| it.run);
        let told = run.is_some() || self.find(subject, |it| it.exit_code).is_some();
        let run = run.or(match subject.role {
            Role::Init => Some(defaults.init_run),
            Role::Task => Some(defaults.job_run),
            Role::Sidecar | Role::Service => None,
        });
        let code = self.find(subject, |it| it.exit_code).unwrap_or(0);
        let end = run.map(|span| Exit {
            after: self.draw("run", subject).within(span),
            code,
            reason: None,
            message: None,
        });
        let crash = self.crash(subject, "crash", |it| it.crash.as_ref());
        let oom = self.crash(subject, "oom", |it| it.oom.as_ref());
        let crash = [crash, oom].into_iter().flatten().min_by_key(|it| it.after);
        let crashes = crash.is_some();
        Run {
            start: self.draw("start", subject).within(start),
            start_error: self.find(subject, |it| it.start_error.clone()),
            ready: match ready {
                Ready::After(span) => Some(self.draw("ready", subject).within(span)),
                Ready::Never => None,
            },
            ready_told,
            message: self.find(subject, |it| it.message.clone()),
            exit: match (end, crash) {
                (Some(end), Some(crash)) => {
                    Some(if crash.after <= end.after { crash } else { end })
                }
                (end, crash) => end.or(crash),
            },
            told: told || crashes,
            hang: self
                .find(subject, |it| it.hang)
                .map(|span| self.draw("hang", subject).within(span)),
            lapse: self.find(subject, |it| it.unready).map(|it| Out {
                after: self.draw("unready", subject).within(it.after),
                lasts: self.draw("unready for", subject).within(it.lasts),
                every: it.every,
            }),
            stop: self
                .draw("stop", subject)
                .within(self.find(subject, |it| it.stop).unwrap_or(defaults.stop)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject<'a>(image: &'a str, labels: &'a Labels) -> Subject<'a> {
        Subject {
            namespace: "shop",
            pod: "cart-0",
            labels,
            overrides: None,
            node: "sh-a-001",
            container: "app",
            image,
            role: Role::Service,
            attempt: 0,
        }
    }

    fn behaviours(rules_text: &str) -> Behaviours {
        let (rules, refused) = rules(&BTreeMap::from([("r".to_owned(), rules_text.to_owned())]));
        assert_eq!(refused, []);
        Behaviours {
            seed: 1,
            rules,
            ..Behaviours::default()
        }
    }

    #[test]
    fn field_by_field_the_first_that_sets_it_wins() {
        let all = behaviours(
            "[{image: '*:broken', ready: never}, {labels: {tier: 'f*'}, start: 3s}, {start: 7s, pull: 9s, ready: 1s}]",
        );
        let (plain, front) = (
            Labels::new(),
            Labels::from([("tier".to_owned(), "front".to_owned())]),
        );
        assert_eq!(all.run(&subject("a:broken", &plain)).ready, None);
        assert_eq!(
            all.run(&subject("a:ok", &plain)).ready,
            Some(Duration::from_secs(1))
        );
        assert_eq!(
            all.run(&subject("a:broken", &front)).start,
            Duration::from_secs(3)
        );
        assert_eq!(
            all.run(&subject("a:broken", &plain)).start,
            Duration::from_secs(7)
        );
        let overrides = Effects {
            start: Some(Span::ZERO),
            ..Effects::default()
        };
        let own = Subject {
            overrides: Some(&overrides),
            ..subject("a:broken", &front)
        };
        assert_eq!(all.run(&own).start, Duration::ZERO);
        assert_eq!(
            all.pull(&own),
            Pull {
                time: Duration::from_secs(9),
                error: None
            }
        );
    }

    #[test]
    fn chance_is_a_matter_of_seed_and_identity() {
        let labels = Labels::new();
        let all = behaviours("[{crash: {after: 1s..9s, probability: 0.25}}]");
        let mut crashes = 0u32;
        for attempt in 0..2000 {
            let one = Subject {
                attempt,
                ..subject("a", &labels)
            };
            let run = all.run(&one);
            assert_eq!(run, all.run(&one));
            crashes += u32::from(run.exit.is_some());
        }
        assert!(
            (400..600).contains(&crashes),
            "a quarter of 2000 starts crash, not {crashes}"
        );
        let other = Behaviours {
            seed: 2,
            ..all.clone()
        };
        assert_ne!(
            all.run(&subject("a", &labels)).start,
            other.run(&subject("a", &labels)).start
        );
    }

    #[test]
    fn images_that_say_so_are_missing() {
        for (image, gone) in [
            ("webserver:404", true),
            ("foo:non-existent", true),
            ("invalid.registry.k8s.io/alpine:3.1", true),
            ("registry.k8s.io/pause:3.10", false),
            ("reg:404/app", false),
            ("app", false),
        ] {
            assert_eq!(missing(image).is_some(), gone, "{image}");
        }
    }

    #[test]
    fn only_init_containers_and_tasks_end_by_themselves() {
        let (all, labels) = (Behaviours::default(), Labels::new());
        for (role, ends) in [
            (Role::Init, true),
            (Role::Task, true),
            (Role::Sidecar, false),
            (Role::Service, false),
        ] {
            let run = all.run(&Subject {
                role,
                ..subject("a", &labels)
            });
            assert_eq!(
                run.exit.map(|exit| exit.code),
                ends.then_some(0),
                "{role:?}"
            );
        }
    }
}
