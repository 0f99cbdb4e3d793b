//! The loop that owns the core: takes in what the watches say, decides, and keeps binds and reports in flight.

use super::Options;
use super::calls::{
    CallError, PodEvent, PodRef, bind, event_writer, preempt, report_unschedulable,
};
use super::objects::{Change, Input};
use crate::core::object::{Node, Owner, Pod};
use crate::core::preempt::Preemption;
use crate::core::queue::Queue;
use crate::core::{ClassId, Cluster, Decision, Diagnosis};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Condition writes in flight at most: they must not crowd out bindings.
const PARALLEL_REPORTS: usize = 8;
/// Preemptions being written at most; nothing is decided beyond, so that room is not made faster than it is told.
const PARALLEL_PREEMPTIONS: usize = 16;
/// Inputs taken in before the loop looks at results again.
const BATCH: usize = 1024;

/// A pod that waits for a node, or is being bound.
struct Pending {
    pod: PodRef,
    class: ClassId,
    priority: i32,
    /// PodScheduled as last seen or written: status is False, message.
    condition: Option<(bool, Arc<str>)>,
    /// Why it does not fit, when that is still to be written.
    unreported: Option<Arc<Diagnosis>>,
    /// Decided: the binding is on its way, or done and not yet seen.
    decided: bool,
    /// Decided, but pods of lower priority must leave first.
    waits: Option<Waits>,
}

/// Room that is being made.
struct Waits {
    node: String,
    victims: FxHashSet<Arc<str>>,
}

struct Preempted {
    pod: PodRef,
    result: Result<(), CallError>,
}

struct Bound {
    pod: PodRef,
    node: String,
    result: Result<(), CallError>,
}

struct Reported {
    pod: PodRef,
    message: Arc<str>,
    result: Result<(), CallError>,
}

/// Kinds whose complete list is awaited, and of which names are kept to see what a new list lacks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Pod,
    Node,
    Namespace,
    Service,
    Claim,
    ReplicaSet,
    StatefulSet,
    Budget,
}

const KINDS: usize = 8;

/// The owner of the core.
pub struct Driver {
    client: kube::Client,
    options: Options,
    relist_pods: Arc<Notify>,
    start: Instant,
    cluster: Cluster,
    queue: Queue,
    pending: FxHashMap<Arc<str>, Pending>,
    /// Pods to report on, oldest first.
    reports_due: VecDeque<Arc<str>>,
    binds: JoinSet<Bound>,
    reports: JoinSet<Reported>,
    preemptions: JoinSet<Preempted>,
    /// Which pod waits for a victim to be gone.
    victims: FxHashMap<Arc<str>, Arc<str>>,
    events: mpsc::Sender<PodEvent>,
    events_lost: u64,
    listed: FxHashSet<Kind>,
    /// Names known of each kind that the core keeps by name, and those of the list that is coming in.
    names: FxHashMap<Kind, FxHashSet<String>>,
    listing: FxHashMap<Kind, FxHashSet<String>>,
}

impl Driver {
    /// A driver that knows nothing yet.
    pub fn new(client: kube::Client, options: Options, relist_pods: Arc<Notify>) -> Self {
        let events = event_writer(client.clone(), options.scheduler_name.clone());
        Self {
            client,
            options,
            relist_pods,
            start: Instant::now(),
            cluster: Cluster::new(),
            queue: Queue::default(),
            pending: FxHashMap::default(),
            reports_due: VecDeque::new(),
            binds: JoinSet::new(),
            reports: JoinSet::new(),
            preemptions: JoinSet::new(),
            victims: FxHashMap::default(),
            events,
            events_lost: 0,
            listed: FxHashSet::default(),
            names: FxHashMap::default(),
            listing: FxHashMap::default(),
        }
    }

    /// Runs until `stop`. Binds in flight are let go: the next run sees from the watch what became of them.
    pub async fn drive(mut self, mut inputs: mpsc::Receiver<Input>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.queue.next_deadline().map(|at| self.start + at);
            tokio::select! {
                () = stop.cancelled() => break,
                count = inputs.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    for input in batch.drain(..) {
                        self.take_in(input);
                    }
                }
                Some(bound) = self.binds.join_next() => self.bound(bound),
                Some(reported) = self.reports.join_next() => self.reported(reported),
                Some(preempted) = self.preemptions.join_next() => self.preempted(preempted),
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
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Wakes who may fit now, decides, and starts binds and reports as far as they may be in flight.
    fn advance(&mut self) {
        if self.listed.len() < KINDS {
            self.cluster.events.clear();
            return;
        }
        let now = self.now();
        self.wake(now);
        self.queue.tick(now);
        while self.binds.len() < self.options.parallel_binds
            && self.preemptions.len() < PARALLEL_PREEMPTIONS
        {
            let Some((uid, class)) = self.queue.peek() else {
                break;
            };
            match self.cluster.decide(class) {
                Decision::Place(node) => {
                    let name = self.cluster.node_name(node).to_owned();
                    self.cluster.place_at(&uid, class, node);
                    self.queue.placed(&uid);
                    self.start_bind(&uid, name);
                }
                Decision::Unschedulable(diagnosis) => {
                    let (pending, victims) = (&self.pending, &self.victims);
                    if let Some(room) = self.cluster.preempt(class, |uid| {
                        pending.contains_key(uid) || victims.contains_key(uid)
                    }) {
                        self.start_preemption(&uid, class, room, &diagnosis);
                        continue;
                    }
                    let diagnosis = Arc::new(diagnosis);
                    for uid in self.queue.park(class, diagnosis.clone(), now) {
                        self.report_later(&uid, diagnosis.clone());
                    }
                }
            }
            self.wake(now);
        }
        self.start_reports();
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

    fn wake(&mut self, now: Duration) {
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

    fn start_bind(&mut self, uid: &Arc<str>, node: String) {
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        pending.decided = true;
        pending.unreported = None;
        let (client, pod) = (self.client.clone(), pending.pod.clone());
        self.binds.spawn(async move {
            let result = bind(&client, &pod, &node).await;
            Bound { pod, node, result }
        });
    }

    fn bound(&mut self, bound: Result<Bound, tokio::task::JoinError>) {
        let Bound { pod, node, result } = match bound {
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
            });
            return;
        };
        // Seen bound meanwhile, or gone: nothing is left to do.
        let Some(pending) = self.pending.get_mut(&pod.uid).filter(|p| p.decided) else {
            return;
        };
        pending.decided = false;
        let (class, priority) = (pending.class, pending.priority);
        self.cluster.remove(&pod.uid);
        if error.code() == Some(404) {
            // The pod (its deletion is on its way) or the API's knowledge of it is gone.
            tracing::debug!(pod = %pod.name, namespace = %pod.namespace, "pod to bind is gone");
        } else {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, pod = %pod.name, namespace = %pod.namespace, node, "bind failed, will try again");
        }
        let now = self.now();
        self.queue.retry(&pod.uid, class, priority, now);
    }

    // Preemption.

    /// Books the pod on the node where room is being made, so that nobody else takes it, and makes the room.
    fn start_preemption(
        &mut self,
        uid: &Arc<str>,
        class: ClassId,
        room: Preemption,
        diagnosis: &Diagnosis,
    ) {
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        let node = self.cluster.node_name(room.node).to_owned();
        self.cluster.place_at(uid, class, room.node);
        self.queue.placed(uid);
        pending.decided = true;
        pending.unreported = None;
        let victims: FxHashSet<Arc<str>> = room.victims.iter().cloned().collect();
        self.victims.extend(
            room.victims
                .iter()
                .map(|victim| (victim.clone(), uid.clone())),
        );
        pending.waits = Some(Waits {
            node: node.clone(),
            victims,
        });
        let event = PodEvent {
            pod: pending.pod.clone(),
            warning: true,
            reason: "FailedScheduling",
            message: diagnosis.summary.clone(),
        };
        let (client, pod, events) = (
            self.client.clone(),
            pending.pod.clone(),
            self.events.clone(),
        );
        let (scheduler, message) = (
            self.options.scheduler_name.clone(),
            diagnosis.summary.clone(),
        );
        let turned = !matches!(pending.condition, Some((true, _)));
        pending.condition = Some((true, message.as_str().into()));
        self.emit(event);
        self.preemptions.spawn(async move {
            let mut result = report_unschedulable(&client, &pod, &message, turned).await;
            if result.is_ok() {
                result = preempt(&client, &scheduler, &pod, &node, &room.victims, &events).await;
            }
            Preempted { pod, result }
        });
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
    fn give_up_waiting(&mut self, uid: &Arc<str>) {
        let now = self.now();
        let Some(pending) = self.pending.get_mut(uid).filter(|p| p.waits.is_some()) else {
            return;
        };
        if let Some(waits) = pending.waits.take() {
            for victim in waits.victims {
                self.victims.remove(&victim);
            }
        }
        pending.decided = false;
        let (class, priority) = (pending.class, pending.priority);
        self.cluster.remove(uid);
        self.queue.retry(uid, class, priority, now);
    }

    /// A victim is gone; after the last one the pod is bound.
    fn victim_gone(&mut self, victim: &str) {
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
            self.start_bind(&uid, node);
        }
    }

    fn emit(&mut self, event: PodEvent) {
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

    fn report_later(&mut self, uid: &Arc<str>, diagnosis: Arc<Diagnosis>) {
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

    // Inputs.

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Pod(Change::Applied(pod)) => {
                self.seen(Kind::Pod, || pod.uid().to_owned());
                self.pod(&pod);
            }
            Input::Pod(Change::Deleted(pod)) => self.pod_gone(pod.uid()),
            Input::Pod(Change::Listing) => self.list_begins(Kind::Pod),
            Input::Pod(Change::Listed) => {
                if let Some(seen) = self.listing.remove(&Kind::Pod) {
                    let known = self.cluster.placed_uids().chain(self.pending.keys());
                    let gone: Vec<_> = known
                        .filter(|uid| !seen.contains(&***uid))
                        .cloned()
                        .collect();
                    for uid in gone {
                        self.pod_gone(&uid);
                    }
                }
                self.listed.insert(Kind::Pod);
            }
            Input::Node(Change::Applied(node)) => self.node(&node),
            Input::Node(other) => {
                self.other(Kind::Node, other, |m, _| m.name.clone().unwrap_or_default())
            }
            Input::Namespace(change) => {
                if let Change::Applied(namespace) = &change {
                    let name = namespace.metadata.name.as_deref().unwrap_or_default();
                    let none = std::collections::BTreeMap::new();
                    self.cluster.set_namespace(
                        name,
                        Some(namespace.metadata.labels.as_ref().unwrap_or(&none)),
                    );
                }
                self.other(Kind::Namespace, change, key);
            }
            Input::Service(change) => {
                if let Change::Applied(service) = &change {
                    let (namespace, name) = names(&service.metadata);
                    self.cluster
                        .set_service(namespace, name, Some(&service.spec.selector));
                }
                self.other(Kind::Service, change, key);
            }
            Input::Claim(change) => {
                if let Change::Applied(claim) = &change {
                    let (namespace, name) = names(&claim.metadata);
                    let bound = claim.status.phase.as_deref() == Some("Bound")
                        && claim.spec.volume_name.is_some();
                    self.cluster.set_claim(namespace, name, Some(bound));
                }
                self.other(Kind::Claim, change, key);
            }
            Input::Budget(change) => {
                if let Change::Applied(budget) = &change {
                    let (namespace, name) = names(&budget.metadata);
                    let allowed = budget.status.disruptions_allowed;
                    self.cluster.set_budget(
                        namespace,
                        name,
                        budget.spec.selector.as_ref(),
                        allowed,
                    );
                }
                self.other(Kind::Budget, change, key);
            }
            Input::ReplicaSet(change) => {
                if let Change::Applied(set) = &change {
                    self.owner("ReplicaSet", &set.0);
                }
                self.other(Kind::ReplicaSet, change, key);
            }
            Input::StatefulSet(change) => {
                if let Change::Applied(set) = &change {
                    self.owner("StatefulSet", &set.0);
                }
                self.other(Kind::StatefulSet, change, key);
            }
        }
    }

    fn owner(&mut self, kind: &str, owner: &Owner) {
        let (namespace, name) = names(&owner.metadata);
        self.cluster
            .set_owner(kind, namespace, name, owner.spec.selector.as_ref());
    }

    fn node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.seen(Kind::Node, || name.clone());
        self.names.entry(Kind::Node).or_default().insert(name);
        self.cluster.upsert_node(node);
    }

    /// Book-keeping of names for a kind whose objects are applied by the caller.
    fn other<K: kube::Resource>(
        &mut self,
        kind: Kind,
        change: Change<K>,
        name: fn(&k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, ()) -> String,
    ) {
        match change {
            Change::Applied(object) => {
                let name = name(object.meta(), ());
                self.seen(kind, || name.clone());
                self.names.entry(kind).or_default().insert(name);
            }
            Change::Deleted(object) => {
                let name = name(object.meta(), ());
                self.names.entry(kind).or_default().remove(&name);
                self.gone(kind, &name);
            }
            Change::Listing => self.list_begins(kind),
            Change::Listed => {
                if let Some(seen) = self.listing.remove(&kind) {
                    let old = self.names.insert(kind, seen.clone()).unwrap_or_default();
                    for name in old.difference(&seen) {
                        self.gone(kind, name);
                    }
                }
                self.listed.insert(kind);
            }
        }
    }

    fn gone(&mut self, kind: Kind, name: &str) {
        let (namespace, short) = name.split_once('/').unwrap_or_default();
        match kind {
            Kind::Node => {
                self.cluster.remove_node(name);
                let waiting = self
                    .pending
                    .iter()
                    .filter(|(_, p)| p.waits.as_ref().is_some_and(|w| w.node == name));
                let waiting: Vec<_> = waiting.map(|(uid, _)| uid.clone()).collect();
                for uid in waiting {
                    self.give_up_waiting(&uid);
                }
            }
            Kind::Budget => self.cluster.set_budget(namespace, short, None, 0),
            Kind::Namespace => self.cluster.set_namespace(short, None),
            Kind::Service => self.cluster.set_service(namespace, short, None),
            Kind::Claim => self.cluster.set_claim(namespace, short, None),
            Kind::ReplicaSet => self.cluster.set_owner("ReplicaSet", namespace, short, None),
            Kind::StatefulSet => self
                .cluster
                .set_owner("StatefulSet", namespace, short, None),
            Kind::Pod => self.pod_gone(name),
        }
    }

    fn list_begins(&mut self, kind: Kind) {
        self.listing.insert(kind, FxHashSet::default());
    }

    fn seen(&mut self, kind: Kind, name: impl FnOnce() -> String) {
        if let Some(seen) = self.listing.get_mut(&kind) {
            seen.insert(name());
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.cluster.remove(uid);
        self.queue.forget(uid);
        if let Some(Pending {
            waits: Some(waits), ..
        }) = self.pending.remove(uid)
        {
            for victim in waits.victims {
                self.victims.remove(&victim);
            }
        }
        self.victim_gone(uid);
    }

    fn pod(&mut self, pod: &Pod) {
        let uid = pod.uid();
        if pod.finished() {
            self.pod_gone(uid);
            return;
        }
        if let Some(node) = pod.node() {
            self.cluster.observe(pod, node);
            self.queue.forget(uid);
            self.pending.remove(uid);
            return;
        }
        let leaving = pod.metadata.deletion_timestamp.is_some();
        if self
            .pending
            .get(uid)
            .is_some_and(|p| p.decided && !(leaving && p.waits.is_some()))
        {
            // From before the binding.
            return;
        }
        let ours = pod
            .spec
            .scheduler_name
            .as_deref()
            .unwrap_or("default-scheduler")
            == self.options.scheduler_name;
        let deleting = pod.metadata.deletion_timestamp.is_some();
        if !ours || deleting || !pod.spec.scheduling_gates.is_empty() {
            self.pod_gone(uid);
            return;
        }
        let class = self.cluster.classify(pod);
        let priority = pod.spec.priority.unwrap_or_default();
        let uid: Arc<str> = uid.into();
        let seen = pod
            .status
            .conditions
            .iter()
            .find(|c| c.kind == "PodScheduled");
        let seen = seen.map(|c| {
            (
                c.status == "False",
                c.message.as_deref().unwrap_or_default().into(),
            )
        });
        let pending = self.pending.entry(uid.clone()).or_insert_with(|| Pending {
            pod: PodRef {
                namespace: pod.namespace().into(),
                name: pod.name().into(),
                uid: uid.clone(),
            },
            class,
            priority,
            condition: seen,
            unreported: None,
            decided: false,
            waits: None,
        });
        pending.class = class;
        pending.priority = priority;
        if let Some(diagnosis) = self.queue.push(&uid, class, priority) {
            self.report_later(&uid, diagnosis);
        }
    }
}

fn names(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (&str, &str) {
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

/// `namespace/name`; the namespace is empty for kinds without.
fn key(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, (): ()) -> String {
    let (namespace, name) = names(meta);
    format!("{namespace}/{name}")
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
