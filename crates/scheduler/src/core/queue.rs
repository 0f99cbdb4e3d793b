//! The queue: pods of equal request stand in one line, highest priority first, then tenants in turn, then oldest first.
//!
//! Equal pods fit or fail together, so when the head of a line does not fit, the whole line is parked with the
//! reasons. An event that may help one of the reasons wakes it; a line that keeps failing waits 1 s, doubling to
//! 10 s, between tries, as kube-scheduler's back-off does. A pod whose binding failed stands apart until its own
//! back-off is over. Time is given by the caller, as the time since some start.

use super::class::ClassId;
use super::cluster::{Cluster, Event};
use super::diagnosis::{Diagnosis, Reason};
use super::turns::{Tenant, Turns};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

mod hints;

use hints::{HINTS, bits, hints, hints_of};

/// First back-off, and the longest.
pub const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// A parked line is tried again after this time even without an event, should one have been missed.
pub const LONGEST_PARKED: Duration = Duration::from_secs(300);

/// The wait after this many failures in a row: the first, doubled each time, up to the longest.
#[must_use]
pub fn backoff((first, longest): (Duration, Duration), failures: u32) -> Duration {
    first
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(longest)
}

enum State {
    Active,
    Parked {
        diagnosis: Arc<Diagnosis>,
        until: Duration,
        last: Duration,
        woken: bool,
        /// Bits of [`Hint`]s that may help.
        hints: u16,
    },
}

struct Line {
    priority: i32,
    tenant: Tenant,
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

/// What decides on the order of lines: priority, and whose pods they are.
type Rank = (i32, Tenant);

enum Place {
    InLine(ClassId, u64),
    Delayed(ClassId, Rank, Duration, u64),
}

/// A pod that was taken out of its line to be decided together with others.
pub struct Drawn {
    pub uid: Arc<str>,
    pub class: ClassId,
    seq: u64,
    rank: Rank,
    failures: u32,
}

/// Pods waiting for a node.
pub struct Queue {
    backoff: (Duration, Duration),
    lines: FxHashMap<ClassId, Line>,
    active: Turns,
    /// Parked lines by the hint that may help them, until one did.
    waiters: [FxHashSet<ClassId>; HINTS],
    timers: BTreeSet<(Duration, ClassId)>,
    delayed: BTreeMap<(Duration, u64), Arc<str>>,
    pods: FxHashMap<Arc<str>, Place>,
    attempts: FxHashMap<Arc<str>, u32>,
    next: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(BACKOFF)
    }
}

impl Queue {
    /// An empty queue with this first and longest back-off.
    #[must_use]
    pub fn new(backoff: (Duration, Duration)) -> Self {
        Self {
            backoff,
            lines: FxHashMap::default(),
            active: Turns::default(),
            waiters: Default::default(),
            timers: BTreeSet::new(),
            delayed: BTreeMap::new(),
            pods: FxHashMap::default(),
            attempts: FxHashMap::default(),
            next: 0,
        }
    }

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
        tenant: Tenant,
    ) -> Option<Arc<Diagnosis>> {
        match self.pods.get(uid) {
            Some(Place::InLine(old, _) | Place::Delayed(old, ..)) if *old == class => return None,
            Some(_) => self.take(uid),
            None => {}
        }
        self.next += 1;
        self.enter(uid.clone(), class, (priority, tenant), self.next)
    }

    fn enter(
        &mut self,
        uid: Arc<str>,
        class: ClassId,
        (priority, tenant): Rank,
        seq: u64,
    ) -> Option<Arc<Diagnosis>> {
        let line = self.lines.entry(class).or_insert_with(|| Line {
            priority,
            tenant,
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
                self.active.remove(line.priority, line.tenant, head, class);
            }
            self.active.insert(line.priority, line.tenant, seq, class);
        }
        None
    }

    /// A pod that was taken could not be bound: it comes back after its own back-off.
    pub fn retry(
        &mut self,
        uid: &Arc<str>,
        class: ClassId,
        (priority, tenant): (i32, Tenant),
        now: Duration,
    ) {
        let attempts = self.attempts.entry(uid.clone()).or_default();
        *attempts += 1;
        let at = now + backoff(self.backoff, *attempts);
        self.next += 1;
        let place = Place::Delayed(class, (priority, tenant), at, self.next);
        self.pods.insert(uid.clone(), place);
        self.delayed.insert((at, self.next), uid.clone());
    }

    /// Takes the next pod out of its line, as if it had its node already: its tenant has had its turn. Unless it gets
    /// one, it is to be [put back](Queue::put_back).
    pub fn draw(&mut self) -> Option<Drawn> {
        let (uid, class) = self.peek()?;
        let seq = match self.pods.get(&uid)? {
            Place::InLine(_, seq) => *seq,
            Place::Delayed(..) => return None,
        };
        let line = self.lines.get(&class)?;
        let (rank, failures) = ((line.priority, line.tenant), line.failures);
        self.active.serve(line.priority, line.tenant);
        self.take(&uid);
        Some(Drawn {
            uid,
            class,
            seq,
            rank,
            failures,
        })
    }

    /// A pod that was drawn was not decided after all: it is where it was. If the line is parked by now, says why.
    pub fn put_back(&mut self, drawn: Drawn) -> Option<Arc<Diagnosis>> {
        let Drawn {
            uid,
            class,
            seq,
            rank,
            failures,
        } = drawn;
        let is_new = !self.lines.contains_key(&class);
        let fate = self.enter(uid, class, rank, seq);
        if is_new && let Some(line) = self.lines.get_mut(&class) {
            line.failures = failures;
        }
        self.active.unserve(rank.0, rank.1);
        fate
    }

    /// A pod that was drawn has its node.
    pub fn succeeded(&mut self, class: ClassId) {
        if let Some(line) = self.lines.get_mut(&class) {
            line.failures = 0;
        }
    }

    /// The next pod to decide. It stays in line until [`Queue::placed`] or [`Queue::park`].
    #[must_use]
    pub fn peek(&self) -> Option<(Arc<str>, ClassId)> {
        let (seq, class) = self.active.first()?;
        let uid = self.lines.get(&class)?.pods.get(&seq)?;
        Some((uid.clone(), class))
    }

    /// The head of a line found its node.
    pub fn placed(&mut self, uid: &str) {
        if let Some(Place::InLine(class, _)) = self.pods.get(uid)
            && let Some(line) = self.lines.get_mut(class)
        {
            line.failures = 0;
            self.active.serve(line.priority, line.tenant);
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
                    // The new head first: a tenant that still has pods keeps its place among the others.
                    if let Some(head) = line.pods.keys().next() {
                        self.active.insert(line.priority, line.tenant, *head, class);
                    }
                    self.active.remove(line.priority, line.tenant, seq, class);
                }
                if line.pods.is_empty() {
                    let parked = match line.state {
                        State::Parked {
                            until, last, hints, ..
                        } => Some((until, last, hints)),
                        State::Active => None,
                    };
                    self.lines.remove(&class);
                    if let Some((until, last, hints)) = parked {
                        self.timers.remove(&(until, class));
                        self.timers.remove(&(last, class));
                        self.unlist(class, hints);
                    }
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
            self.active.serve(line.priority, line.tenant);
            self.active.remove(line.priority, line.tenant, *head, class);
        }
        // Whoever waits for others of its kind has not failed, and is not made to wait longer.
        let waits = diagnosis.any(|r| matches!(r, Reason::GangIncomplete(..)));
        let until = if waits {
            now
        } else {
            line.failures = line.failures.saturating_add(1);
            now + backoff(self.backoff, line.failures)
        };
        let hints = hints(&diagnosis);
        for hint in bits(hints) {
            self.waiters[hint].insert(class);
        }
        let last = now + LONGEST_PARKED;
        line.state = State::Parked {
            diagnosis,
            until,
            last,
            woken: false,
            hints,
        };
        self.timers.extend([(until, class), (last, class)]);
        line.pods.values().cloned().collect()
    }

    /// The pods of a line with their places in it, first first.
    pub fn pods_of(&self, class: ClassId) -> impl Iterator<Item = (u64, &Arc<str>)> {
        let line = self.lines.get(&class).into_iter();
        line.flat_map(|line| line.pods.iter().map(|(seq, uid)| (*seq, uid)))
    }

    /// The lines, with how many pods wait in each.
    pub fn lines(&self) -> impl Iterator<Item = (ClassId, usize)> + '_ {
        self.lines
            .iter()
            .map(|(class, line)| (*class, line.pods.len()))
    }

    /// Whether a line is there and not parked.
    #[must_use]
    pub fn is_active(&self, class: ClassId) -> bool {
        self.lines.get(&class).is_some_and(|l| l.parked().is_none())
    }

    /// Whether a line is there and parked.
    #[must_use]
    pub fn is_parked(&self, class: ClassId) -> bool {
        self.lines.get(&class).is_some_and(|l| l.parked().is_some())
    }

    /// Whether a line is parked, so that events matter.
    #[must_use]
    pub fn anyone_parked(&self) -> bool {
        !self.timers.is_empty()
    }

    /// Lets an event wake the lines that it may help.
    pub fn wake(&mut self, event: Event, cluster: &Cluster, now: Duration) {
        for (hint, other) in hints_of(event).into_iter().flatten() {
            let helped: Vec<ClassId> = self.waiters[hint as usize]
                .iter()
                .filter(|class| other.is_none_or(|other| cluster.concerns(**class, other)))
                .copied()
                .collect();
            for class in helped {
                let Some(State::Parked {
                    until,
                    woken,
                    hints,
                    ..
                }) = self.lines.get_mut(&class).map(|l| &mut l.state)
                else {
                    continue;
                };
                *woken = true;
                let (ready, hints) = (*until <= now, *hints);
                self.unlist(class, hints);
                if ready {
                    self.activate(class);
                }
            }
        }
    }

    fn unlist(&mut self, class: ClassId, hints: u16) {
        for hint in bits(hints) {
            self.waiters[hint].remove(&class);
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
            self.active.insert(line.priority, line.tenant, *head, class);
        }
    }

    /// Lets time pass: back-offs end. Returns whether pods came back to their lines.
    pub fn tick(&mut self, now: Duration) -> bool {
        let mut came = false;
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
            if let Some(Place::Delayed(class, rank, ..)) = self.pods.remove(&uid) {
                self.enter(uid, class, rank, seq);
                came = true;
            }
        }
        came
    }

    /// When [`Queue::tick`] next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let delayed = self.delayed.keys().next().map(|(at, _)| *at);
        timer.into_iter().chain(delayed).min()
    }
}
