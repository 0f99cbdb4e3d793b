//! The state of the simulation: nodes, pods, what is due and what is to be written.
//!
//! No I/O here either: [`World`] takes in what was seen and how writes went, and gives out writes.
//! Each object has at most one write in flight; what changes meanwhile goes into the next one, so a
//! slow API server gets fewer writes, not a longer queue.

use super::{
    events::Outbox,
    nodes::NodeEntry,
    pods::PodEntry,
    stage::Stage,
    timer::{Id, Slab, Timer, Timers},
};
use crate::{
    behaviour::{self, Behaviours},
    clock::Millis,
    image::Traffic,
    node::Blocks,
    object::{Amounts, NodeObject, PodSpec},
    options::Options,
    pod::Input,
    truth::Truth,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{ResourceExt as _, runtime::watcher::Event};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};
use std::{collections::VecDeque, sync::Arc, time::Duration};

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
    /// The volumes that a node uses, and its conditions.
    NodeVolumes(Id),
    /// A node's address range.
    NodeRange(Id),
    /// A node's taints.
    NodeTaints(Id),
    /// The namespace of leases.
    LeaseNamespace,
    /// The NUMA nodes of a node, by its place among the missing.
    Topology(u32),
    /// The mirror of a static pod, by its place among the node's.
    Mirror(Id, u32),
    /// Devices of a node, by their driver's place.
    Slice(Id, u32),
    /// What is said of a claim's devices.
    Claim(u32),
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
    /// Merge PATCH of a status: collection, name, patch.
    Status(String, String, Value),
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
    Topology(u32),
    LeaseNamespace,
    Mirror(Id, u32),
    Slice(Id, u32),
    Claim(u32),
}

/// The state of the simulation.
pub struct World {
    pub(super) options: Options,
    /// How containers behave, and what time it is for them.
    pub(super) truth: Truth,
    pub(super) stage: Stage,
    pub(super) traffic: Traffic,
    pub(super) timers: Timers,
    pub(super) nodes: Slab<NodeEntry>,
    pub(super) node_ids: FxHashMap<Arc<str>, Id>,
    pub(super) node_epoch: u32,
    /// What a list of nodes has shown so far.
    pub(super) node_list: Vec<NodeObject>,
    pub(super) pods: Slab<PodEntry>,
    pub(super) pod_ids: FxHashMap<(Arc<str>, Arc<str>), Id>,
    pub(super) pod_epoch: u32,
    /// All pods that there are have been seen.
    pub(super) pods_listed: bool,
    /// Nodes on which room has come up for resizes that were deferred.
    pub(super) roomier: FxHashSet<Id>,
    pub(super) specs: FxHashMap<Arc<PodSpec>, Arc<Amounts>>,
    pub(super) specs_swept: usize,
    /// Nodes, not known as ours, for which pods were seen.
    pub(super) strangers: FxHashSet<String>,
    /// Nodes that turned out to be ours after their pods were seen.
    pub(super) to_list: Vec<String>,
    pub(super) pod_ranges: Blocks,
    pub(super) node_addresses: Blocks,
    /// Nodes of the options that did not exist: group and name.
    pub(super) missing: Vec<super::nodes::Missing>,
    pub(super) lease_namespace_asked: bool,
    /// The cluster knows no NodeResourceTopology.
    pub(super) topology_missed: bool,
    pub(super) claims: super::claims::Claims,
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
    pub fn new(mut options: Options, now: Millis) -> Result<Self, crate::node::AddressError> {
        for group in &mut options.groups {
            group.labels.extend(options.selector.clone());
        }
        Ok(Self {
            truth: Truth {
                behaviours: Arc::new(Behaviours {
                    seed: options.seed,
                    defaults: options.defaults,
                    rules: options
                        .scenario
                        .as_ref()
                        .map_or_else(Vec::new, |it| it.behaviours.clone()),
                    images: options
                        .scenario
                        .as_ref()
                        .map_or_else(Arc::default, |it| it.images.clone()),
                }),
                clock: options.clock,
                start: now,
                scale: options.time_scale,
            },
            stage: Stage::default(),
            traffic: Traffic::default(),
            timers: Timers::default(),
            nodes: Slab::default(),
            node_ids: FxHashMap::default(),
            node_epoch: 0,
            node_list: Vec::new(),
            pods: Slab::default(),
            pod_ids: FxHashMap::default(),
            pod_epoch: 0,
            pods_listed: false,
            roomier: FxHashSet::default(),
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
                if let Some(address) = options.metrics_address() {
                    blocks.take(address.into(), address.into());
                }
                blocks
            },
            missing: Vec::new(),
            lease_namespace_asked: false,
            topology_missed: false,
            claims: super::claims::Claims::default(),
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

    /// Pods that are acted for.
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// Nodes that are acted for.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
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
                Timer::PodRepair(id) => self.repair_due(id),
                Timer::Lease(id) => self.lease_due(id, at),
                Timer::Act(event, nth) => self.act_due(event, nth, now),
                Timer::Over(number) => self.over_due(number, now),
                Timer::Evict(id) => self.evict_due(id, now),
                Timer::Look(id) => self.look_due(id, now),
                Timer::Slice(id, index) => self.queue.push_back(Due::Slice(id, index)),
                Timer::Claim(number) => self.queue.push_back(Due::Claim(number)),
                Timer::Mirror(id, index) => self.queue.push_back(Due::Mirror(id, index)),
                Timer::Fail(id) => self.fail_due(id, now),
                Timer::Repaired(id) => self.repaired_due(id, now),
                Timer::Report(id) => self.report_due(id, now),
                Timer::NodeWrite(id) => self.urgent.push_back(Due::Node(id)),
                Timer::Create(index) => self.queue.push_back(Due::Create(index)),
            }
        }
        for node in std::mem::take(&mut self.roomier) {
            self.retry_resizes(node, now);
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
            if let Some(map) = map.as_ref().filter(|_| self.outbox.admit(true, now)) {
                let namespace = map.namespace().unwrap_or_default();
                let involved = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace,
                    "name": map.name_any(), "uid": map.uid(),
                });
                self.outbox.put(
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
        // What is changed while the scenario runs comes before what the scenario says.
        let mut rules = rules;
        rules.extend(
            self.options
                .scenario
                .iter()
                .flat_map(|it| it.behaviours.iter().cloned()),
        );
        if rules == self.truth.behaviours.rules {
            return;
        }
        tracing::info!(rules = rules.len(), "behaviour rules in force");
        let before = self.truth.behaviours.clone();
        self.truth.behaviours = Arc::new(Behaviours {
            rules,
            ..(*before).clone()
        });
        if let Some(network) = &self.options.network {
            network.tell(self.truth.clone());
        }
        for id in self.pods.ids() {
            self.step(id, Input::Rules(&before), now);
            self.reweigh(id, now);
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
                Due::Topology(index) => self.topology_write(index),
                Due::Mirror(id, index) => self.mirror_write(id, index, now),
                Due::Slice(id, index) => self.slice_write(id, index),
                Due::Claim(number) => self.claim_write(number, now),
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

    /// Takes in how a write went.
    pub fn answered(&mut self, subject: Subject, answer: &Answer, now: Millis) {
        match subject {
            Subject::PodStatus(id) | Subject::PodDelete(id) => {
                self.pod_answered(id, subject, answer, now)
            }
            Subject::Mirror(id, index) => self.mirror_answered(id, index, answer, now),
            Subject::Slice(..) | Subject::Claim(_) => self.devices_answered(subject, answer, now),
            _ => self.node_answered(subject, answer, now),
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
