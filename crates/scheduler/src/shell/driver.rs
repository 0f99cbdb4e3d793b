//! The loop that owns the core: takes in what the watches say, decides, and keeps binds and reports in flight.

use super::Options;
use super::calls::{
    CallError, PodEvent, PodRef, bind, event_writer, preempt, report_unschedulable,
};
use super::objects::Input;
use super::storage::Stored;
use crate::core::cluster::Event;
use crate::core::preempt::Preemption;
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

/// Condition writes in flight at most: they must not crowd out bindings.
const PARALLEL_REPORTS: usize = 8;
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

/// Room that is being made.
pub(super) struct Waits {
    pub(super) node: String,
    pub(super) victims: FxHashSet<Arc<str>>,
}

pub(super) struct Preempted {
    pod: PodRef,
    result: Result<(), CallError>,
}

struct Bound {
    pod: PodRef,
    node: String,
    decision: Option<Value>,
    result: Result<(), CallError>,
}

struct Reported {
    pod: PodRef,
    message: Arc<str>,
    result: Result<(), CallError>,
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
    ReplicaSet,
    StatefulSet,
    Budget,
    Policy,
    Quota,
    PodGroup,
    Reservation,
    Topology,
}

const KINDS: usize = 18;

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
    binds: JoinSet<Bound>,
    /// Decided, to be bound when fewer bindings are in flight.
    binds_due: VecDeque<(Arc<str>, String)>,
    reports: JoinSet<Reported>,
    pub(super) preemptions: JoinSet<Preempted>,
    pub(super) storage: JoinSet<Stored>,
    /// Pods whose volumes are being bound.
    pub(super) storing: FxHashSet<Arc<str>>,
    /// Which pod waits for a victim to be gone.
    pub(super) victims: FxHashMap<Arc<str>, Arc<str>>,
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
            binds_due: VecDeque::new(),
            reports: JoinSet::new(),
            preemptions: JoinSet::new(),
            storage: JoinSet::new(),
            storing: FxHashSet::default(),
            victims: FxHashMap::default(),
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
        let now = self.now();
        self.look_at_storage(now);
        self.look_at_usage();
        self.wake(now);
        if self.cluster.settle_rules() {
            self.wake(now);
        }
        self.look_at_gangs(now);
        self.look_at_reservations(now);
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
                let (pending, victims) = (&self.pending, &self.victims);
                let room = self.cluster.preempt(class, |uid| {
                    pending.contains_key(uid) || victims.contains_key(uid)
                });
                match room {
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

    fn place(&mut self, uid: &Arc<str>, class: ClassId, node: NodeId) {
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

    /// Goes on where an earlier scheduler made room for the pod. Returns whether that settles it.
    pub(super) fn take_up(&mut self, uid: &Arc<str>, class: ClassId) -> bool {
        let nominated = self.pending.get_mut(uid).and_then(|p| p.nominated.take());
        let Some(room) = nominated.and_then(|node| self.cluster.room_made(class, &node)) else {
            return false;
        };
        if room.victims.is_empty() {
            let node = self.cluster.node_name(room.node).to_owned();
            self.cluster.place_at(uid, class, room.node);
            self.queue.placed(uid);
            self.settle(uid, node);
        } else {
            self.hold(uid, class, &room);
        }
        true
    }

    /// The pod has its node: binds its volumes, where they are to be bound late, and then the pod.
    pub(super) fn settle(&mut self, uid: &Arc<str>, node: String) {
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        pending.decided = true;
        pending.unreported = None;
        let class = pending.class;
        match self.cluster.assume_volumes(class, &node) {
            Some(assumed) if assumed.is_empty() => self.start_bind(uid, node),
            Some(assumed) => self.start_storage(uid, node, assumed),
            None => self.take_back(uid),
        }
    }

    /// A decision does not hold: the pod gives its room back and is decided anew after its back-off.
    pub(super) fn take_back(&mut self, uid: &Arc<str>) {
        let now = self.now();
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        pending.decided = false;
        if let Some(volumes) = pending.volumes.take() {
            self.cluster.volumes.release(&volumes.assumed);
        }
        let (class, rank) = (pending.class, (pending.priority, pending.tenant));
        let run = pending.run.take();
        self.storing.remove(uid);
        self.cluster.uncommit(uid);
        self.queue.retry(uid, class, rank, now);
        if let Some(run) = run {
            self.break_gang(run, uid);
        }
    }

    pub(super) fn start_bind(&mut self, uid: &Arc<str>, node: String) {
        if self.waits_for_gang(uid, &node) {
            return;
        }
        if self.binds.len() >= self.options.parallel_binds {
            self.binds_due.push_back((uid.clone(), node));
            return;
        }
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        let decision = pending.decision.take();
        let (client, pod) = (self.client.clone(), pending.pod.clone());
        self.binds.spawn(async move {
            let result = bind(&client, &pod, &node).await;
            Bound {
                pod,
                node,
                decision,
                result,
            }
        });
    }

    /// Starts bindings that had to wait because too many were in flight.
    fn start_due_binds(&mut self) {
        while self.binds.len() < self.options.parallel_binds
            && let Some((uid, node)) = self.binds_due.pop_front()
        {
            // It may have been taken back meanwhile, and be on its way to another node by now.
            let is_decided = self.pending.get(&uid).is_some_and(|p| p.decided);
            let placed = self.cluster.placed(&uid).filter(|_| is_decided);
            if placed.is_some_and(|p| self.cluster.node_name(p.node) == node) {
                self.start_bind(&uid, node);
            }
        }
    }

    fn bound(&mut self, bound: Result<Bound, tokio::task::JoinError>) {
        let Bound {
            pod,
            node,
            decision,
            result,
        } = match bound {
            Ok(bound) => bound,
            Err(error) => {
                // A task that panicked; its pod stays assumed until the watch or a restart settles it.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a bind ended without a result"
                );
                return;
            }
        };
        let Err(error) = result else {
            let message = format!(
                "Successfully assigned {}/{} to {node}",
                pod.namespace, pod.name
            );
            self.emit(PodEvent {
                pod,
                warning: false,
                reason: "Scheduled",
                message,
                decision,
            });
            return;
        };
        // Seen bound meanwhile, or gone: nothing is left to do.
        if !self.pending.get(&pod.uid).is_some_and(|p| p.decided) {
            return;
        }
        if error.code() == Some(404) {
            // The pod (its deletion is on its way) or the API's knowledge of it is gone.
            tracing::debug!(pod = %pod.name, namespace = %pod.namespace, "pod to bind is gone");
        } else {
            let error = &error as &dyn std::error::Error;
            self.options.metrics.failed_binds.fetch_add(1, Relaxed);
            tracing::warn!(error, pod = %pod.name, namespace = %pod.namespace, node, "bind failed, will try again");
        }
        self.take_back(&pod.uid);
    }

    // Preemption.

    /// Books the pod on the node where room is being made, so that nobody else takes it, and makes the room.
    pub(super) fn start_preemption(
        &mut self,
        uid: &Arc<str>,
        class: ClassId,
        room: Preemption,
        diagnosis: &Diagnosis,
    ) {
        self.options.metrics.preemptions.fetch_add(1, Relaxed);
        let node = self.hold(uid, class, &room);
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        let event = PodEvent {
            pod: pending.pod.clone(),
            warning: true,
            reason: "FailedScheduling",
            message: diagnosis.summary.clone(),
            decision: None,
        };
        let (client, pod, events) = (
            self.client.clone(),
            pending.pod.clone(),
            self.events.clone(),
        );
        let message = diagnosis.summary.clone();
        let turned = !matches!(pending.condition, Some((true, _)));
        pending.condition = Some((true, message.as_str().into()));
        self.emit(event);
        self.preemptions.spawn(async move {
            let mut result = report_unschedulable(&client, &pod, &message, turned).await;
            if result.is_ok() {
                result = preempt(&client, &pod, &node, &room.victims, &events).await;
            }
            Preempted { pod, result }
        });
    }

    /// Books the pod on a node where others are to leave for it.
    fn hold(&mut self, uid: &Arc<str>, class: ClassId, room: &Preemption) -> String {
        let node = self.cluster.node_name(room.node).to_owned();
        self.cluster.place_at(uid, class, room.node);
        self.queue.placed(uid);
        if let Some(pending) = self.pending.get_mut(uid) {
            pending.decided = true;
            pending.unreported = None;
            let victims: FxHashSet<Arc<str>> = room.victims.iter().cloned().collect();
            pending.waits = Some(Waits {
                node: node.clone(),
                victims,
            });
        }
        let victims = room.victims.iter();
        self.victims
            .extend(victims.map(|victim| (victim.clone(), uid.clone())));
        node
    }

    fn preempted(&mut self, preempted: Result<Preempted, tokio::task::JoinError>) {
        match preempted {
            Ok(Preempted { result: Ok(()), .. }) => {}
            Ok(Preempted {
                pod,
                result: Err(error),
            }) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, pod = %pod.name, namespace = %pod.namespace, "preemption failed, will try again");
                self.give_up_waiting(&pod.uid);
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a preemption ended without a result"
                );
            }
        }
    }

    /// The room that a pod waits for will not come: it is decided anew.
    pub(super) fn give_up_waiting(&mut self, uid: &Arc<str>) {
        let Some(waits) = self.pending.get_mut(uid).and_then(|p| p.waits.take()) else {
            return;
        };
        for victim in waits.victims {
            self.victims.remove(&victim);
        }
        self.take_back(uid);
    }

    /// A victim is gone; after the last one the pod is bound.
    pub(super) fn victim_gone(&mut self, victim: &str) {
        let Some(uid) = self.victims.remove(victim) else {
            return;
        };
        let Some(pending) = self.pending.get_mut(&uid) else {
            return;
        };
        let Some(waits) = &mut pending.waits else {
            return;
        };
        waits.victims.remove(victim);
        if waits.victims.is_empty()
            && let Some(Waits { node, .. }) = pending.waits.take()
        {
            self.settle(&uid, node);
        }
    }

    pub(super) fn emit(&mut self, event: PodEvent) {
        if self.events.try_send(event).is_err() {
            self.events_lost += 1;
            if self.events_lost.is_power_of_two() {
                tracing::info!(
                    lost = self.events_lost,
                    "events dropped: the API takes them slower than they come"
                );
            }
        }
    }

    // Reports.

    pub(super) fn report_later(&mut self, uid: &Arc<str>, diagnosis: Arc<Diagnosis>) {
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        if matches!(&pending.condition, Some((true, message)) if **message == *diagnosis.message) {
            return;
        }
        if pending.unreported.replace(diagnosis).is_none() {
            self.reports_due.push_back(uid.clone());
        }
    }

    fn start_reports(&mut self) {
        while self.reports.len() < PARALLEL_REPORTS {
            let Some(uid) = self.reports_due.pop_front() else {
                return;
            };
            let Some(pending) = self.pending.get_mut(&uid) else {
                continue;
            };
            let Some(diagnosis) = pending.unreported.take().filter(|_| !pending.decided) else {
                continue;
            };
            let turned = !matches!(pending.condition, Some((true, _)));
            let message: Arc<str> = diagnosis.message.as_str().into();
            let (client, pod) = (self.client.clone(), pending.pod.clone());
            let event = PodEvent {
                pod: pod.clone(),
                warning: true,
                reason: "FailedScheduling",
                message: diagnosis.message.clone(),
                decision: None,
            };
            self.emit(event);
            self.reports.spawn(async move {
                let result = report_unschedulable(&client, &pod, &message, turned).await;
                Reported {
                    pod,
                    message,
                    result,
                }
            });
        }
    }

    fn reported(&mut self, reported: Result<Reported, tokio::task::JoinError>) {
        match reported {
            Ok(Reported {
                pod,
                message,
                result: Ok(()),
            }) => {
                if let Some(pending) = self.pending.get_mut(&pod.uid) {
                    pending.condition = Some((true, message));
                }
            }
            // Written again when the line next fails.
            Ok(Reported {
                pod,
                result: Err(error),
                ..
            }) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, pod = %pod.name, namespace = %pod.namespace, "condition not written");
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "a report ended without a result"
            ),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
