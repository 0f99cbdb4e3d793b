//! The loop that owns the core: takes in what the watches say, decides, and keeps binds and reports in flight.

use super::Options;
use super::binding::Bound;
use super::calls::{PodEvent, PodRef, event_writer};
use super::objects::Input;
use super::preemption::{Preempted, Victims, Waits, spared};
use super::reports::Reported;
use super::storage::Stored;
use crate::core::cluster::Event;
use crate::core::queue::Queue;
use crate::core::turns::Tenant;
use crate::core::volumes::Assumed;
use crate::core::{ClassId, Cluster, Decision, Diagnosis, NodeId};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Preemptions being written at most; nothing is decided beyond, so that room is not made faster than it is told.
pub(super) const PARALLEL_PREEMPTIONS: usize = 16;
/// Inputs taken in before the loop looks at results again.
const BATCH: usize = 1024;

/// A pod that waits for a node, or is being bound.
pub(super) struct Pending {
    pub(super) pod: PodRef,
    pub(super) class: ClassId,
    pub(super) priority: i32,
    /// Whose it is: namespaces take turns.
    pub(super) tenant: Tenant,
    /// PodScheduled as last seen or written: status is False, message.
    pub(super) condition: Option<(bool, Arc<str>)>,
    /// Why it does not fit, when that is still to be written.
    pub(super) unreported: Option<Arc<Diagnosis>>,
    /// Decided: the binding is on its way, or done and not yet seen.
    pub(super) decided: bool,
    /// Decided, but pods of lower priority must leave first.
    pub(super) waits: Option<Waits>,
    /// Decided, but volumes must be bound first.
    pub(super) volumes: Option<VolumeWait>,
    /// The node where an earlier scheduler made room.
    pub(super) nominated: Option<String>,
    /// Its status names a node, of this scheduler or an earlier one.
    pub(super) nominated_told: bool,
    /// How its node was chosen.
    pub(super) decision: Option<Value>,
    /// Placed with its gang, and not bound before all of it can be.
    pub(super) run: Option<u64>,
}

/// Volumes that are being bound.
pub(super) struct VolumeWait {
    pub(super) node: String,
    pub(super) assumed: Assumed,
    pub(super) until: Duration,
    /// The writes that ask for it are done.
    pub(super) written: bool,
}

/// Kinds whose complete list is awaited, and of which names are kept to see what a new list lacks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Pod,
    Node,
    Namespace,
    Service,
    Claim,
    Volume,
    Class,
    CsiNode,
    CsiDriver,
    Capacity,
    Attachment,
    ReplicaSet,
    StatefulSet,
    Budget,
    Policy,
    Quota,
    PodGroup,
    Reservation,
    Topology,
    DeviceClaim,
    DeviceClass,
    DeviceSlice,
}

const KINDS: usize = 22;

/// The owner of the core.
pub struct Driver {
    pub(super) client: kube::Client,
    pub(super) options: Options,
    pub(super) relist_pods: Arc<Notify>,
    pub(super) start: Instant,
    pub(super) cluster: Cluster,
    pub(super) queue: Queue,
    pub(super) pending: FxHashMap<Arc<str>, Pending>,
    /// Pods to report on, oldest first.
    pub(super) reports_due: VecDeque<Arc<str>>,
    pub(super) binds: JoinSet<Bound>,
    /// Those that wait for drivers to make devices ready.
    pub(super) waiting_binds: JoinSet<Bound>,
    /// Decided, to be bound when fewer bindings are in flight.
    pub(super) binds_due: VecDeque<(Arc<str>, String)>,
    pub(super) reports: JoinSet<Reported>,
    pub(super) preemptions: JoinSet<Preempted>,
    pub(super) storage: JoinSet<Stored>,
    /// Pods whose volumes are being bound.
    pub(super) storing: FxHashSet<Arc<str>>,
    /// Who waits for which pods to be gone.
    pub(super) victims: Victims,
    pub(super) events: mpsc::Sender<PodEvent>,
    pub(super) events_lost: u64,
    pub(super) notes: JoinSet<()>,
    pub(super) usage: super::usage::Watch,
    pub(super) policies: super::policies::Told,
    pub(super) quotas: super::quotas::Told,
    pub(super) gangs: super::gangs::Runs,
    pub(super) reservations: super::reservations::Told,
    pub(super) services: super::services::Told,
    pub(super) pace: super::rounds::Pace,
    pub(super) statuses: JoinSet<super::policies::Written>,
    pub(super) listed: FxHashSet<Kind>,
    /// Names known of each kind that the core keeps by name, and those of the list that is coming in.
    pub(super) names: FxHashMap<Kind, FxHashSet<String>>,
    pub(super) listing: FxHashMap<Kind, FxHashSet<String>>,
}

impl Driver {
    /// A driver that knows nothing yet.
    pub fn new(client: kube::Client, options: Options, relist_pods: Arc<Notify>) -> Self {
        let events = event_writer(client.clone());
        Self {
            cluster: Cluster::with_profiles(options.profiles.clone()),
            queue: Queue::new(options.backoff),
            client,
            options,
            relist_pods,
            start: Instant::now(),
            pending: FxHashMap::default(),
            reports_due: VecDeque::new(),
            binds: JoinSet::new(),
            waiting_binds: JoinSet::new(),
            binds_due: VecDeque::new(),
            reports: JoinSet::new(),
            preemptions: JoinSet::new(),
            storage: JoinSet::new(),
            storing: FxHashSet::default(),
            victims: Victims::default(),
            events,
            events_lost: 0,
            notes: JoinSet::new(),
            usage: super::usage::Watch::default(),
            policies: super::policies::Told::default(),
            quotas: super::quotas::Told::default(),
            gangs: super::gangs::Runs::default(),
            reservations: super::reservations::Told::default(),
            services: super::services::Told::default(),
            pace: super::rounds::Pace::default(),
            statuses: JoinSet::new(),
            listed: FxHashSet::default(),
            names: FxHashMap::default(),
            listing: FxHashMap::default(),
        }
    }

    /// Runs until `stop`. Binds in flight are let go: the next run sees from the watch what became of them.
    pub async fn drive(mut self, mut inputs: mpsc::Receiver<Input>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let next = self
                .queue
                .next_deadline()
                .into_iter()
                .chain(self.storage_deadline())
                .chain(self.usage_deadline())
                .chain(self.policies_deadline())
                .chain(self.quotas.next)
                .chain(self.gangs.deadline())
                .chain(self.reservations_deadline())
                .chain(self.services_deadline())
                .chain(self.victims.next)
                .min();
            let deadline = next.map(|at| self.start + at);
            tokio::select! {
                () = stop.cancelled() => break,
                count = inputs.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    super::order::fresh_first(&mut batch);
                    for input in batch.drain(..) {
                        self.take_in(input);
                    }
                }
                Some(bound) = self.binds.join_next() => self.bound(bound),
                Some(bound) = self.waiting_binds.join_next() => self.bound(bound),
                Some(reported) = self.reports.join_next() => self.reported(reported),
                Some(preempted) = self.preemptions.join_next() => self.preempted(preempted),
                Some(stored) = self.storage.join_next() => self.stored(stored),
                () = sleep_until(deadline) => {}
            }
            while let Some(bound) = self.binds.try_join_next() {
                self.bound(bound);
            }
            self.advance();
        }
        self.binds.shutdown().await;
        self.waiting_binds.shutdown().await;
        self.reports.shutdown().await;
        self.preemptions.shutdown().await;
        self.storage.shutdown().await;
        self.notes.shutdown().await;
        self.statuses.shutdown().await;
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Wakes who may fit now, decides, and starts binds and reports as far as they may be in flight.
    fn advance(&mut self) {
        if self.listed.len() < KINDS {
            self.cluster.events.clear();
            return;
        }
        self.options.metrics.synced.store(true, Relaxed);
        let now = self.now();
        self.look_at_storage(now);
        self.look_at_usage();
        self.wake(now);
        if self.cluster.settle_rules() {
            self.wake(now);
        }
        self.look_at_gangs(now);
        self.look_at_reservations(now);
        self.look_elsewhere(now);
        self.wake(now);
        if self.queue.tick(now) {
            // It may have been the last that its gang waited for.
            self.cluster.events.push(Event::Gang);
            self.wake(now);
        }
        self.start_due_binds();
        while self.binds.len() < self.options.parallel_binds
            && self.preemptions.len() < PARALLEL_PREEMPTIONS
        {
            let Some((uid, class)) = self.queue.peek() else {
                break;
            };
            if let Some(gang) = self.cluster.gang_of(class) {
                self.take_up_gang(class, gang, now);
                self.wake(now);
                continue;
            }
            if self.options.workers > 1 && self.pace.0 >= self.options.together_from {
                if self.play_round(now) {
                    continue;
                }
                break;
            }
            if self.take_up(&uid, class) {
                continue;
            }
            let began = std::time::Instant::now();
            let decision = self.cluster.decide(class);
            self.pace.note(began.elapsed(), 1);
            if let Some(diagnosis) = self.carry_out(&uid, class, decision) {
                self.park(class, diagnosis, now);
            }
            self.wake(now);
        }
        self.options
            .metrics
            .pending
            .store(self.queue.len() as u64, Relaxed);
        self.start_reports();
        self.tell_of_policies(now);
        self.tell_of_quotas(now);
        self.keep_services(now);
        if self.cluster.wants_compaction() {
            self.cluster.compact(self.pending.values().map(|p| p.class));
        }
        if std::mem::take(&mut self.cluster.compiler.unique_asked) {
            tracing::info!(
                "a selector asks for a label that is unique to each pod; listing pods anew"
            );
            self.relist_pods.notify_one();
        }
    }

    /// Does what was decided: places the pod, or makes room for it. Otherwise says why neither can be.
    pub(super) fn carry_out(
        &mut self,
        uid: &Arc<str>,
        class: ClassId,
        decision: Decision,
    ) -> Option<Diagnosis> {
        match decision {
            Decision::Place(node) => self.place(uid, class, node),
            Decision::Unschedulable(diagnosis) => {
                self.free_idle_claim(class, &diagnosis);
                match self.cluster.preempt(class, spared(&self.pending)) {
                    Some(room) => self.start_preemption(uid, class, room, &diagnosis),
                    None => return Some(diagnosis),
                }
            }
        }
        None
    }

    /// The pods of a class fit nowhere: they wait, and are told why.
    pub(super) fn park(&mut self, class: ClassId, diagnosis: Diagnosis, now: Duration) {
        self.options.metrics.unschedulable.fetch_add(1, Relaxed);
        let diagnosis = Arc::new(diagnosis);
        for uid in self.queue.park(class, diagnosis.clone(), now) {
            self.report_later(&uid, diagnosis.clone());
        }
    }

    pub(super) fn wake(&mut self, now: Duration) {
        let mut events = std::mem::take(&mut self.cluster.events);
        if !self.queue.anyone_parked() {
            events.clear();
        }
        // A burst says the same thing many times over.
        let mut told = FxHashSet::default();
        for event in events.drain(..) {
            if told.insert(event) {
                self.queue.wake(event, &self.cluster, now);
            }
        }
        self.cluster.events = events;
    }

    pub(super) fn place(&mut self, uid: &Arc<str>, class: ClassId, node: NodeId) {
        let name = self.cluster.node_name(node).to_owned();
        let decision = self.decision();
        self.cluster.commit(uid, class, node);
        self.queue.placed(uid);
        self.count_placed();
        if let Some(pending) = self.pending.get_mut(uid) {
            pending.decision = Some(decision);
        }
        self.settle(uid, name);
    }

    pub(super) fn count_placed(&self) {
        self.options.metrics.placed.fetch_add(1, Relaxed);
    }

    /// Who came second, for the log of decisions.
    fn decision(&self) -> Value {
        let choice = &self.cluster.choice;
        let named = |(node, score): &(NodeId, i64)| json!({"node": self.cluster.node_name(*node), "score": score});
        let mut best = choice.best.iter().flatten().map(named);
        json!({"chosen": best.next(), "runnersUp": best.collect::<Vec<_>>(), "considered": choice.considered})
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
