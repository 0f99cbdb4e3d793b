//! The queue: pods of equal request stand in one line, highest priority first, then oldest first.
//!
//! Equal pods fit or fail together, so when the head of a line does not fit, the whole line is parked with the
//! reasons. An event that may help one of the reasons wakes it; a line that keeps failing waits 1 s, doubling to
//! 10 s, between tries, as kube-scheduler's back-off does. A pod whose binding failed stands apart until its own
//! back-off is over. Time is given by the caller, as the time since some start.

use super::cluster::{ClassId, Cluster, Event};
use super::diagnosis::{Diagnosis, Reason};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// First back-off, and the longest.
pub const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// A parked line is tried again after this time even without an event, should one have been missed.
pub const LONGEST_PARKED: Duration = Duration::from_secs(300);

/// The wait after this many failures in a row.
#[must_use]
pub fn backoff(failures: u32) -> Duration {
    BACKOFF
        .0
        .saturating_mul(1 << failures.saturating_sub(1).min(8))
        .min(BACKOFF.1)
}

enum State {
    Active,
    Parked {
        diagnosis: Arc<Diagnosis>,
        until: Duration,
        last: Duration,
        woken: bool,
    },
}

struct Line {
    priority: i32,
    pods: BTreeMap<u64, Arc<str>>,
    failures: u32,
    state: State,
}

impl Line {
    fn parked(&self) -> Option<&Arc<Diagnosis>> {
        match &self.state {
            State::Parked { diagnosis, .. } => Some(diagnosis),
            State::Active => None,
        }
    }
}

enum Place {
    InLine(ClassId, u64),
    Delayed(ClassId, i32, Duration, u64),
}

/// Pods waiting for a node.
#[derive(Default)]
pub struct Queue {
    lines: FxHashMap<ClassId, Line>,
    active: BTreeSet<(Reverse<i32>, u64, ClassId)>,
    timers: BTreeSet<(Duration, ClassId)>,
    delayed: BTreeMap<(Duration, u64), Arc<str>>,
    pods: FxHashMap<Arc<str>, Place>,
    attempts: FxHashMap<Arc<str>, u32>,
    next: u64,
}

impl Queue {
    /// Number of pods waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Whether the pod waits.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Puts a pod into its line, or moves it there if its class is new. If the line is parked, says why: the pod
    /// shares its fate.
    pub fn push(
        &mut self,
        uid: &Arc<str>,
        class: ClassId,
        priority: i32,
    ) -> Option<Arc<Diagnosis>> {
        match self.pods.get(uid) {
            Some(Place::InLine(old, _) | Place::Delayed(old, ..)) if *old == class => return None,
            Some(_) => self.take(uid),
            None => {}
        }
        self.next += 1;
        self.enter(uid.clone(), class, priority, self.next)
    }

    fn enter(
        &mut self,
        uid: Arc<str>,
        class: ClassId,
        priority: i32,
        seq: u64,
    ) -> Option<Arc<Diagnosis>> {
        let line = self.lines.entry(class).or_insert_with(|| Line {
            priority,
            pods: BTreeMap::new(),
            failures: 0,
            state: State::Active,
        });
        let head = line.pods.keys().next().copied();
        self.pods.insert(uid.clone(), Place::InLine(class, seq));
        line.pods.insert(seq, uid);
        if let Some(diagnosis) = line.parked() {
            return Some(diagnosis.clone());
        }
        if head.is_none_or(|h| seq < h) {
            if let Some(head) = head {
                self.active.remove(&(Reverse(line.priority), head, class));
            }
            self.active.insert((Reverse(line.priority), seq, class));
        }
        None
    }

    /// A pod that was taken could not be bound: it comes back after its own back-off.
    pub fn retry(&mut self, uid: &Arc<str>, class: ClassId, priority: i32, now: Duration) {
        let attempts = self.attempts.entry(uid.clone()).or_default();
        *attempts += 1;
        let at = now + backoff(*attempts);
        self.next += 1;
        self.pods
            .insert(uid.clone(), Place::Delayed(class, priority, at, self.next));
        self.delayed.insert((at, self.next), uid.clone());
    }

    /// The next pod to decide. It stays in line until [`Queue::placed`] or [`Queue::park`].
    #[must_use]
    pub fn peek(&self) -> Option<(Arc<str>, ClassId)> {
        let (_, seq, class) = self.active.first()?;
        let uid = self.lines.get(class)?.pods.get(seq)?;
        Some((uid.clone(), *class))
    }

    /// The head of a line found its node.
    pub fn placed(&mut self, uid: &str) {
        if let Some(Place::InLine(class, _)) = self.pods.get(uid)
            && let Some(line) = self.lines.get_mut(class)
        {
            line.failures = 0;
        }
        self.take(uid);
    }

    /// A pod is bound, or gone for good.
    pub fn forget(&mut self, uid: &str) {
        self.take(uid);
        self.attempts.remove(uid);
    }

    fn take(&mut self, uid: &str) {
        match self.pods.remove(uid) {
            Some(Place::InLine(class, seq)) => {
                let Some(line) = self.lines.get_mut(&class) else {
                    return;
                };
                let was_head = line.pods.keys().next() == Some(&seq);
                line.pods.remove(&seq);
                if was_head && line.parked().is_none() {
                    self.active.remove(&(Reverse(line.priority), seq, class));
                    if let Some(head) = line.pods.keys().next() {
                        self.active.insert((Reverse(line.priority), *head, class));
                    }
                }
                if line.pods.is_empty() {
                    if let State::Parked { until, last, .. } = line.state {
                        self.timers.remove(&(until, class));
                        self.timers.remove(&(last, class));
                    }
                    self.lines.remove(&class);
                }
            }
            Some(Place::Delayed(_, _, at, seq)) => {
                self.delayed.remove(&(at, seq));
            }
            None => {}
        }
    }

    /// The head of a line fits nowhere: parks the line. Returns its pods, which all have to be told.
    pub fn park(
        &mut self,
        class: ClassId,
        diagnosis: Arc<Diagnosis>,
        now: Duration,
    ) -> Vec<Arc<str>> {
        let Some(line) = self.lines.get_mut(&class) else {
            return Vec::new();
        };
        if let Some(head) = line.pods.keys().next() {
            self.active.remove(&(Reverse(line.priority), *head, class));
        }
        line.failures = line.failures.saturating_add(1);
        let until = now + backoff(line.failures);
        let last = now + LONGEST_PARKED;
        line.state = State::Parked {
            diagnosis,
            until,
            last,
            woken: false,
        };
        self.timers.extend([(until, class), (last, class)]);
        line.pods.values().cloned().collect()
    }

    /// Whether a line is parked, so that events matter.
    #[must_use]
    pub fn anyone_parked(&self) -> bool {
        !self.timers.is_empty()
    }

    /// Lets an event wake the lines that it may help.
    pub fn wake(&mut self, event: Event, cluster: &Cluster, now: Duration) {
        let mut ready = Vec::new();
        for (class, line) in &mut self.lines {
            let State::Parked {
                diagnosis,
                until,
                woken,
                ..
            } = &mut line.state
            else {
                continue;
            };
            if !*woken && helps(event, *class, diagnosis, cluster) {
                *woken = true;
                if *until <= now {
                    ready.push(*class);
                }
            }
        }
        for class in ready {
            self.activate(class);
        }
    }

    fn activate(&mut self, class: ClassId) {
        let Some(line) = self.lines.get_mut(&class) else {
            return;
        };
        if let State::Parked { until, last, .. } = line.state {
            self.timers.remove(&(until, class));
            self.timers.remove(&(last, class));
        }
        line.state = State::Active;
        if let Some(head) = line.pods.keys().next() {
            self.active.insert((Reverse(line.priority), *head, class));
        }
    }

    /// Lets time pass: back-offs end.
    pub fn tick(&mut self, now: Duration) {
        while let Some(entry) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&entry);
            let Some(State::Parked { woken, last, .. }) =
                self.lines.get(&entry.1).map(|l| &l.state)
            else {
                continue;
            };
            // Otherwise only the back-off is over: from now on an event activates the line at once.
            if *woken || *last <= now {
                self.activate(entry.1);
            }
        }
        while let Some(entry) = self.delayed.first_entry().filter(|e| e.key().0 <= now) {
            let ((_, seq), uid) = entry.remove_entry();
            if let Some(Place::Delayed(class, priority, ..)) = self.pods.remove(&uid) {
                self.enter(uid, class, priority, seq);
            }
        }
    }

    /// When [`Queue::tick`] next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let delayed = self.delayed.keys().next().map(|(at, _)| *at);
        timer.into_iter().chain(delayed).min()
    }
}

/// Whether an event may let a class fit that failed for these reasons: kube-scheduler's queueing hints.
fn helps(event: Event, class: ClassId, diagnosis: &Diagnosis, cluster: &Cluster) -> bool {
    let around = |r: &Reason| {
        matches!(
            r,
            Reason::SpreadLabel
                | Reason::Spread
                | Reason::Affinity
                | Reason::AntiAffinity
                | Reason::ExistingAntiAffinity
        )
    };
    let room = |r: &Reason| {
        matches!(
            r,
            Reason::Ports
                | Reason::TooManyPods
                | Reason::InsufficientCpu
                | Reason::InsufficientMemory
                | Reason::InsufficientStorage
                | Reason::Insufficient(_)
        )
    };
    let claim = |r: &Reason| matches!(r, Reason::UnboundClaim | Reason::MissingClaim(_));
    match event {
        Event::NodeAdded => !diagnosis.any(claim),
        Event::NodeRemoved => diagnosis.any(|r| matches!(r, Reason::Spread)),
        Event::NodeLabels => diagnosis.any(|r| around(r) || *r == Reason::NodeAffinity),
        Event::NodeTaints => diagnosis.any(|r| {
            around(r) || matches!(r, Reason::UntoleratedTaint | Reason::NodeUnschedulable)
        }),
        Event::NodeAllocatable => diagnosis.any(room),
        Event::PodPlaced(other) => {
            diagnosis.any(|r| matches!(r, Reason::Spread | Reason::Affinity))
                && cluster.concerns(class, other)
        }
        Event::PodRemoved(other) => {
            diagnosis.any(room) || diagnosis.any(around) && cluster.concerns(class, other)
        }
        Event::Namespace => diagnosis.any(around),
        Event::Claim => diagnosis.any(claim),
    }
}
