//! The state of the simulation: nodes, pods, what is due and what is to be written.
//!
//! No I/O here either: [`World`] takes in what was seen and how writes went, and gives out writes.
//! Each object has at most one write in flight; what changes meanwhile goes into the next one, so a
//! slow API server gets fewer writes, not a longer queue.

use super::{
    events::Outbox,
    nodes::NodeEntry,
    timer::{Id, Slab, Timer, Timers},
};
use crate::{
    behaviour::{self, Behaviours},
    clock::Millis,
    node::Blocks,
    object::{Amounts, PodObject, PodSpec},
    options::Options,
    pod::{self, Env, Identity, Input, Observed, Occurrence, Pod, status_patch},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{ResourceExt as _, runtime::watcher::Event};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// A pod and the state of its writes.
pub(super) struct PodEntry {
    pub pod: Pod,
    node: Id,
    requests: Arc<Amounts>,
    /// Counted in the node's room, and holding its address.
    counted: bool,
    wake: Option<Millis>,
    dirty: bool,
    delete: bool,
    deleted: bool,
    /// In the queue, in flight, or waiting for another try.
    busy: bool,
    failures: u32,
    epoch: u32,
}

/// What a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A pod's status.
    PodStatus(Id),
    /// A pod's deletion.
    PodDelete(Id),
    /// A node to be created, by its place among the missing.
    Create(u32),
    /// A node's lease, to be created.
    LeaseCreate(Id),
    /// A node's lease, to be renewed.
    Lease(Id),
    /// A node's status.
    NodeStatus(Id),
    /// A node's address range.
    NodeRange(Id),
    /// A node's taints.
    NodeTaints(Id),
    /// The namespace of leases.
    LeaseNamespace,
}

/// A write to be carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// POST to a collection.
    Create(String, Value),
    /// Strategic merge PATCH of a collection's object: collection, name, subresource, patch.
    Strategic(String, String, Option<&'static str>, Value),
    /// Merge PATCH: collection, name, patch.
    Merge(String, String, Value),
    /// DELETE at once, of this uid only: collection, name, uid.
    Delete(String, String, String),
}

/// How a write went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// The object is not there.
    Missing,
    /// Another one is.
    Conflict,
    /// Anything else: worth another try.
    Failed(String),
}

/// Queued objects; the write itself is made when its turn comes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    Pod(Id),
    Node(Id),
    Lease(Id),
    Create(u32),
    LeaseNamespace,
}

/// The state of the simulation.
pub struct World {
    pub(super) options: Options,
    pub(super) behaviours: Behaviours,
    pub(super) timers: Timers,
    pub(super) nodes: Slab<NodeEntry>,
    pub(super) node_ids: FxHashMap<Arc<str>, Id>,
    pub(super) node_epoch: u32,
    pub(super) pods: Slab<PodEntry>,
    pod_ids: FxHashMap<(Arc<str>, Arc<str>), Id>,
    pod_epoch: u32,
    specs: FxHashMap<Arc<PodSpec>, Arc<Amounts>>,
    specs_swept: usize,
    /// Nodes, not known as ours, for which pods were seen.
    pub(super) strangers: FxHashSet<String>,
    /// Nodes that turned out to be ours after their pods were seen.
    pub(super) to_list: Vec<String>,
    pub(super) pod_ranges: Blocks,
    pub(super) node_addresses: Blocks,
    /// Nodes of the options that did not exist: group and name.
    pub(super) missing: Vec<super::nodes::Missing>,
    pub(super) lease_namespace_asked: bool,
    /// Heartbeats: before everything else, or nodes would be taken for dead under load.
    pub(super) urgent: VecDeque<Due>,
    pub(super) queue: VecDeque<Due>,
    /// Events on their way out.
    pub outbox: Outbox,
}

impl World {
    /// An empty world.
    ///
    /// # Errors
    /// When an address range of the options is none.
    pub fn new(options: Options, now: Millis) -> Result<Self, crate::node::AddressError> {
        Ok(Self {
            behaviours: Behaviours {
                seed: options.seed,
                defaults: options.defaults,
                rules: Vec::new(),
            },
            timers: Timers::default(),
            nodes: Slab::default(),
            node_ids: FxHashMap::default(),
            node_epoch: 0,
            pods: Slab::default(),
            pod_ids: FxHashMap::default(),
            pod_epoch: 0,
            specs: FxHashMap::default(),
            specs_swept: 0,
            strangers: FxHashSet::default(),
            to_list: Vec::new(),
            pod_ranges: Blocks::new(&options.pod_cidr)?,
            node_addresses: {
                let mut blocks = Blocks::new(&options.node_cidr)?;
                let (first, last) = crate::node::parse_cidr(&options.node_cidr)?;
                blocks.take(first, first);
                blocks.take(last, last);
                blocks
            },
            missing: Vec::new(),
            lease_namespace_asked: false,
            urgent: VecDeque::new(),
            queue: VecDeque::new(),
            outbox: Outbox::new(options.events_per_second, now),
            options,
        })
    }

    /// Nodes whose pods must be looked for, because they were seen before the node was.
    pub fn newcomers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.to_list)
    }

    /// When [`World::tick`] is next needed.
    pub fn next(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// Moves on everything that is due.
    pub fn tick(&mut self, now: Millis) {
        while let Some((at, timer)) = self.timers.pop(now) {
            match timer {
                Timer::Pod(id) => {
                    if self
                        .pods
                        .get(id)
                        .is_some_and(|entry| entry.wake == Some(at))
                    {
                        self.step(id, Input::Due, now);
                    }
                }
                Timer::PodWrite(id) => {
                    if self.pods.get(id).is_some() {
                        self.queue.push_back(Due::Pod(id));
                    }
                }
                Timer::Lease(id) => self.lease_due(id, now),
                Timer::Report(id) => self.report_due(id, now),
                Timer::NodeWrite(id) => self.urgent.push_back(Due::Node(id)),
                Timer::Create(index) => self.queue.push_back(Due::Create(index)),
            }
        }
    }

    /// Takes in what the watch of pods shows.
    pub fn pod_seen(&mut self, event: Event<PodObject>, now: Millis) {
        match event {
            Event::Init => self.pod_epoch = self.pod_epoch.wrapping_add(1),
            Event::Apply(pod) | Event::InitApply(pod) => self.pod_applied(pod, now),
            Event::Delete(pod) => {
                let key = (
                    pod.namespace().unwrap_or_default().into(),
                    pod.name_any().into(),
                );
                let uid = pod.metadata.uid.unwrap_or_default();
                if let Some(id) = self.pod_ids.get(&key).copied()
                    && self
                        .pods
                        .get(id)
                        .is_some_and(|entry| *entry.pod.id.uid == *uid)
                {
                    self.forget(id);
                }
            }
            Event::InitDone => {
                // What the list did not show has gone while nobody watched.
                for id in self.pods.ids() {
                    if self
                        .pods
                        .get(id)
                        .is_some_and(|entry| entry.epoch != self.pod_epoch)
                    {
                        self.forget(id);
                    }
                }
                tracing::debug!(
                    pods = self.pods.len(),
                    nodes = self.nodes.len(),
                    "pods listed"
                );
            }
        }
    }

    fn pod_applied(&mut self, object: PodObject, now: Millis) {
        let PodObject {
            metadata,
            mut spec,
            status,
        } = object;
        let Some(node_name) = spec.node_name.take().filter(|name| !name.is_empty()) else {
            return;
        };
        let namespace: Arc<str> = metadata.namespace.unwrap_or_default().into();
        let name: Arc<str> = metadata.name.unwrap_or_default().into();
        let uid: Arc<str> = metadata.uid.unwrap_or_default().into();
        let key = (namespace, name);
        let known = self.pod_ids.get(&key).copied();
        let known = known.filter(|id| {
            let same = self
                .pods
                .get(*id)
                .is_some_and(|entry| entry.pod.id.uid == uid);
            if !same {
                self.forget(*id);
            }
            same
        });
        let Some(node_id) = self.node_ids.get(node_name.as_str()).copied() else {
            self.strangers.insert(node_name);
            return;
        };
        let (spec, requests) = self.share(spec);
        let annotations = metadata.annotations.unwrap_or_default();
        let (overrides, refused) = behaviour::annotations(&annotations);
        let deletion = metadata.deletion_timestamp.as_ref().map(|_| {
            let seconds = metadata
                .deletion_grace_period_seconds
                .and_then(|it| u64::try_from(it).ok())
                .unwrap_or(30);
            pod::scaled(Duration::from_secs(seconds), self.options.time_scale)
        });
        let seen = Observed {
            gates: pod::gates(&spec, &status.conditions),
            spec,
            generation: metadata.generation.unwrap_or(0),
            labels: Arc::new(metadata.labels.unwrap_or_default()),
            overrides,
            deletion,
        };
        if let Some(id) = known {
            self.recount(id, &requests);
            if let Some(entry) = self.pods.get_mut(id) {
                entry.epoch = self.pod_epoch;
            }
            self.step(id, Input::Observed(seen), now);
            return;
        }

        let task = metadata
            .owner_references
            .unwrap_or_default()
            .iter()
            .any(|owner| owner.kind == "Job" && owner.controller == Some(true));
        let identity = Identity {
            namespace: key.0.clone(),
            name: key.1.clone(),
            uid,
        };
        let Some(node) = self.nodes.get_mut(node_id) else {
            return;
        };
        let mut env = Env {
            now,
            behaviours: &self.behaviours,
            images: &mut node.images,
            scale: self.options.time_scale,
        };
        let mut pod = Pod::take_on(
            identity,
            node.name.clone(),
            node.ip.clone(),
            task,
            seen.clone(),
            &status,
            &mut env,
        );
        let mut rejected = None;
        let mut counted = !pod.finished();
        if counted {
            if pod.start_time.is_some() {
                node.room.add(&requests);
            } else if let Err(failure) = node.room.admit(&requests) {
                rejected = Some(failure);
                counted = false;
            }
        }
        if counted && !pod.spec.host_network {
            match pod.ip {
                Some(ip) => {
                    node.pool.as_mut().map(|pool| pool.take(ip));
                }
                None => pod.ip = node.pool.as_mut().and_then(crate::node::Pool::allocate),
            }
        }
        let id = self.pods.insert(PodEntry {
            pod,
            node: node_id,
            requests,
            counted,
            wake: None,
            dirty: false,
            delete: false,
            deleted: false,
            busy: false,
            failures: 0,
            epoch: self.pod_epoch,
        });
        node.pods.insert(id);
        self.pod_ids.insert(key, id);
        for it in refused {
            let reason = "InvalidBehaviour";
            self.tell(
                id,
                vec![Occurrence {
                    warning: true,
                    reason,
                    message: it.to_string(),
                    field_path: None,
                }],
                now,
            );
        }
        if let Some(failure) = rejected {
            let told = Occurrence {
                warning: true,
                reason: "NodeOutOfResources",
                message: failure
                    .message
                    .trim_start_matches("Pod was rejected: ")
                    .to_owned(),
                field_path: None,
            };
            self.tell(id, vec![told], now);
            if let Some(entry) = self.pods.get_mut(id) {
                entry.pod.reject(failure);
                entry.dirty = true;
            }
        }
        self.step(id, Input::Observed(seen), now);
    }

    /// One copy of equal specs, and what they ask for.
    fn share(&mut self, spec: PodSpec) -> (Arc<PodSpec>, Arc<Amounts>) {
        if let Some((spec, requests)) = self.specs.get_key_value(&spec) {
            return (spec.clone(), requests.clone());
        }
        if self.specs.len() > 2 * self.specs_swept + 64 {
            self.specs.retain(|spec, _| Arc::strong_count(spec) > 1);
            self.specs_swept = self.specs.len();
        }
        let (requests, spec) = (Arc::new(spec.requests()), Arc::new(spec));
        self.specs.insert(spec.clone(), requests.clone());
        (spec, requests)
    }

    /// After an in-place resize the pod takes more room, or less.
    fn recount(&mut self, id: Id, requests: &Arc<Amounts>) {
        let Some(entry) = self
            .pods
            .get_mut(id)
            .filter(|entry| entry.requests != *requests)
        else {
            return;
        };
        let before = std::mem::replace(&mut entry.requests, requests.clone());
        if entry.counted
            && let Some(node) = self.nodes.get_mut(entry.node)
        {
            node.room.remove(&before);
            node.room.add(requests);
        }
    }

    /// Lets a pod take in what happened, and notes what follows.
    fn step(&mut self, id: Id, input: Input<'_>, now: Millis) {
        let Some(entry) = self.pods.get_mut(id) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(entry.node) else {
            return;
        };
        let mut env = Env {
            now,
            behaviours: &self.behaviours,
            images: &mut node.images,
            scale: self.options.time_scale,
        };
        let outcome = entry.pod.step(input, &mut env);
        entry.dirty |= outcome.changed;
        entry.delete |= outcome.delete;
        if entry.wake != outcome.wake {
            entry.wake = outcome.wake;
            if let Some(at) = outcome.wake {
                self.timers.at(at, Timer::Pod(id));
            }
        }
        if entry.counted && entry.pod.finished() {
            entry.counted = false;
            node.room.remove(&entry.requests);
            release_address(node, &entry.pod);
        }
        if (entry.dirty || (entry.delete && !entry.deleted)) && !entry.busy {
            entry.busy = true;
            self.queue.push_back(Due::Pod(id));
        }
        self.tell(id, outcome.told, now);
    }

    fn tell(&mut self, id: Id, told: Vec<Occurrence>, now: Millis) {
        let Some(entry) = self.pods.get(id) else {
            return;
        };
        let pod = &entry.pod;
        for it in told {
            let mut involved = json!({
                "apiVersion": "v1", "kind": "Pod", "namespace": &*pod.id.namespace,
                "name": &*pod.id.name, "uid": &*pod.id.uid,
            });
            if let Some(path) = it.field_path {
                involved["fieldPath"] = path.into();
            }
            self.outbox.tell(
                &pod.id.namespace,
                involved,
                it.warning,
                it.reason,
                it.message,
                &pod.node,
                now,
            );
        }
    }

    /// The pod is gone from the API.
    pub(super) fn forget(&mut self, id: Id) {
        let Some(entry) = self.pods.remove(id) else {
            return;
        };
        self.pod_ids
            .remove(&(entry.pod.id.namespace.clone(), entry.pod.id.name.clone()));
        if let Some(node) = self.nodes.get_mut(entry.node) {
            node.pods.remove(&id);
            if entry.counted {
                node.room.remove(&entry.requests);
                release_address(node, &entry.pod);
            }
        }
    }

    /// Takes in what the watch of the rules shows.
    pub fn rules_seen(&mut self, event: Event<ConfigMap>, now: Millis) {
        let (rules, refused, map) = match event {
            Event::Init | Event::InitDone => return,
            Event::Delete(_) => (Vec::new(), Vec::new(), None),
            Event::Apply(map) | Event::InitApply(map) => {
                let (rules, refused) =
                    behaviour::rules(map.data.as_ref().unwrap_or(&Default::default()));
                (rules, refused, Some(map))
            }
        };
        for it in refused {
            tracing::warn!(
                rule = it.place,
                reason = it.reason,
                "behaviour rule refused; the rest holds"
            );
            if let Some(map) = &map {
                let namespace = map.namespace().unwrap_or_default();
                let involved = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace,
                    "name": map.name_any(), "uid": map.uid(),
                });
                self.outbox.tell(
                    &namespace,
                    involved,
                    true,
                    "RuleRefused",
                    it.to_string(),
                    "",
                    now,
                );
            }
        }
        if rules == self.behaviours.rules {
            return;
        }
        tracing::info!(rules = rules.len(), "behaviour rules in force");
        let before = self.behaviours.clone();
        self.behaviours.rules = rules;
        for id in self.pods.ids() {
            self.step(id, Input::Rules(&before), now);
        }
    }

    /// The next write, heartbeats first.
    pub fn next_write(&mut self, now: Millis) -> Option<(Subject, Write)> {
        loop {
            let due = self.urgent.pop_front().or_else(|| self.queue.pop_front())?;
            let write = match due {
                Due::Pod(id) => self.pod_write(id),
                Due::Node(id) => self.node_write(id, now),
                Due::Lease(id) => self.lease_write(id, now),
                Due::Create(index) => self.create_write(index, now),
                Due::LeaseNamespace => Some((
                    Subject::LeaseNamespace,
                    Write::Create(
                        "/api/v1/namespaces".into(),
                        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-node-lease"}}),
                    ),
                )),
            };
            if write.is_some() {
                return write;
            }
        }
    }

    fn pod_write(&mut self, id: Id) -> Option<(Subject, Write)> {
        let entry = self.pods.get_mut(id)?;
        let collection = format!("/api/v1/namespaces/{}/pods", entry.pod.id.namespace);
        let name = entry.pod.id.name.to_string();
        if entry.dirty {
            entry.dirty = false;
            let patch = status_patch(&entry.pod);
            return Some((
                Subject::PodStatus(id),
                Write::Strategic(collection, name, Some("status"), patch),
            ));
        }
        if entry.delete && !entry.deleted {
            return Some((
                Subject::PodDelete(id),
                Write::Delete(collection, name, entry.pod.id.uid.to_string()),
            ));
        }
        entry.busy = false;
        None
    }

    /// Takes in how a write went.
    pub fn answered(&mut self, subject: Subject, answer: &Answer, now: Millis) {
        match subject {
            Subject::PodStatus(id) | Subject::PodDelete(id) => {
                self.pod_answered(id, subject, answer, now)
            }
            _ => self.node_answered(subject, answer, now),
        }
    }

    fn pod_answered(&mut self, id: Id, subject: Subject, answer: &Answer, now: Millis) {
        let Some(entry) = self.pods.get_mut(id) else {
            return;
        };
        match (answer, subject) {
            (Answer::Done, Subject::PodDelete(_)) => entry.deleted = true,
            (Answer::Done, _) => entry.failures = 0,
            // The watch will show that it is gone, or which pod has taken its name.
            (Answer::Missing, _) => (entry.dirty, entry.deleted) = (false, true),
            (Answer::Conflict | Answer::Failed(_), _) => {
                entry.dirty |= matches!(subject, Subject::PodStatus(_));
                entry.failures += 1;
                let wait = retry_after(&entry.pod.id.uid, entry.failures);
                self.timers.at(now.plus(wait), Timer::PodWrite(id));
                return;
            }
        }
        if entry.dirty || (entry.delete && !entry.deleted) {
            self.queue.push_back(Due::Pod(id));
        } else {
            entry.busy = false;
        }
    }
}

/// Wait before the `nth` try: 0.1 s, doubling up to 25 s, less up to half of it so that a crowd
/// that failed together does not come back together.
pub(super) fn retry_after(who: &str, nth: u32) -> Duration {
    let most = Duration::from_millis(100) * (1u32 << nth.saturating_sub(1).min(8));
    let share = behaviour::Draw::new(0)
        .word(who)
        .number(u64::from(nth))
        .unit();
    most.mul_f64(1.0 - share / 2.0)
}

fn release_address(node: &mut NodeEntry, pod: &Pod) {
    if let (Some(ip), Some(pool), false) = (pod.ip, node.pool.as_mut(), pod.spec.host_network) {
        pool.release(ip);
    }
}
