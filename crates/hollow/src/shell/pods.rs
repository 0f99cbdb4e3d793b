//! The pods of the simulation: taking them in, letting them step, writing what follows.

use super::{claims, nodes::NodeEntry, pressure::Most, statics, timer::Id, world::World};
use crate::{
    behaviour,
    clock::Millis,
    node::{self, Pool},
    object::{Amounts, PodObject, PodSpec},
    pod::{self, Env, Failure, Identity, Input, Observed, Occurrence, Pod},
};
use kube::{ResourceExt as _, runtime::watcher::Event};
use std::{sync::Arc, time::Duration};

/// A pod and the state of its writes.
pub(super) struct PodEntry {
    pub pod: Pod,
    pub node: Id,
    pub(super) requests: Arc<Amounts>,
    /// The most that it ever uses.
    pub most: Most,
    /// Its claims to devices by name; one that is still to be made has none.
    pub(super) claims: Vec<Option<Arc<str>>>,
    /// Counted in the node's room, and holding its address.
    pub counted: bool,
    pub(super) wake: Option<Millis>,
    pub(super) dirty: bool,
    /// The API's last word: not ready, though it is. Somebody else wrote it (the node controller does when
    /// a node's leases come late), or the watch is behind our own report.
    pub(super) belied: bool,
    pub(super) delete: bool,
    pub(super) deleted: bool,
    /// In the queue, in flight, or waiting for another try.
    pub(super) busy: bool,
    pub(super) failures: u32,
    pub(super) epoch: u32,
}

impl World {
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
                let node = pod
                    .spec
                    .node_name
                    .as_deref()
                    .and_then(|it| self.node_ids.get(it));
                if let Some(node) = node.and_then(|id| self.nodes.get_mut(*id)) {
                    node.fate.missed_gone(&key);
                }
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
                    pods = self.pod_count(),
                    nodes = self.node_count(),
                    "pods listed"
                );
                self.pods_listed = true;
                for id in self.nodes.ids() {
                    self.mirror_statics(id);
                }
            }
        }
    }

    pub(super) fn pod_applied(&mut self, object: PodObject, now: Millis) {
        let node = object
            .spec
            .node_name
            .as_deref()
            .and_then(|it| self.node_ids.get(it));
        if let Some(node) = node.and_then(|id| self.nodes.get_mut(*id))
            && node.fate.away()
        {
            let key: (Arc<str>, Arc<str>) = (
                object.namespace().unwrap_or_default().into(),
                object.name_any().into(),
            );
            let known = self.pod_ids.get(&key).and_then(|id| self.pods.get_mut(*id));
            if let Some(entry) = known {
                entry.epoch = self.pod_epoch;
            }
            node.fate.miss(key, object);
            return;
        }
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
        spec.settle();
        let (spec, requests) = self.share(spec);
        let annotations = metadata.annotations.unwrap_or_default();
        let (overrides, refused) = behaviour::annotations(&annotations);
        let source = statics::source(&annotations);
        // The deletion of a mirror is none of the static pod's.
        let dying = metadata.deletion_timestamp.as_ref();
        let deletion = dying.filter(|_| source.is_none()).map(|_| {
            let seconds = metadata
                .deletion_grace_period_seconds
                .and_then(|it| u64::try_from(it).ok())
                .unwrap_or(30);
            pod::scaled(Duration::from_secs(seconds), self.options.time_scale)
        });
        let claims = claims::names(&spec, &status);
        let called_unready = status
            .conditions
            .iter()
            .any(|it| it.type_ == "Ready" && it.status != "True");
        let seen = Observed {
            gates: pod::gates(&spec, &status.conditions),
            spec,
            generation: metadata.generation.unwrap_or(0),
            labels: Arc::new(metadata.labels.unwrap_or_default()),
            overrides,
            source,
            deletion,
        };
        let unmirror =
            seen.source.is_some() && (dying.is_some() || !self.is_static(node_id, &key, &seen));
        if let Some(id) = known {
            if let Some(entry) = self.pods.get_mut(id) {
                entry.epoch = self.pod_epoch;
            }
            self.step(id, Input::Observed(seen), now);
            self.follow_claims(id, claims, now);
            self.answer_resize(id, now);
            self.belie(id, called_unready, now);
            if unmirror {
                self.delete_mirror(id);
            }
            return;
        }
        let kept = self.kept_static(node_id, &key);

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
        let taken = self.port_taken(node_id, &seen.spec);
        let Some(node) = self.nodes.get_mut(node_id) else {
            return;
        };
        let mut env = Env {
            now,
            behaviours: &self.truth.behaviours,
            images: &mut node.images,
            traffic: &mut self.traffic,
            host: &mut node.host,
            scale: self.options.time_scale,
            start: self.truth.start,
            asks: false,
        };
        let goes_on = kept.is_some();
        let (mut pod, mut counted) = match kept {
            // The static pod has gone on while it had no mirror.
            Some((pod, counted)) => (
                Pod {
                    id: identity,
                    ..pod
                },
                counted,
            ),
            None => {
                let pod = Pod::take_on(
                    identity,
                    node.name.clone(),
                    node.ip.clone(),
                    task,
                    seen.clone(),
                    &status,
                    &mut env,
                );
                let counted = !pod.finished();
                (pod, counted)
            }
        };
        // What was granted holds, not what is asked for meanwhile.
        let requests = match pod.asks_resize() {
            true => Arc::new(pod.allocated().requests()),
            false => requests,
        };
        let mut rejected = None;
        if counted && !goes_on {
            let priority = pod.spec.priority.unwrap_or(0);
            let pressures = node.fate.pressures(now);
            let pressed = node::eviction::admits(pressures, pod.spec.best_effort(), priority).err();
            if pod.start_time.is_some() {
                node.room.add(&requests);
            } else if let Some(message) = pressed {
                rejected = Some(Failure {
                    reason: "Evicted".into(),
                    message: message.into(),
                });
                counted = false;
            } else if taken {
                rejected = Some(no_port());
                counted = false;
            } else if let Err(failure) = node.room.admit(&requests) {
                rejected = Some(failure);
                counted = false;
            }
        }
        if counted && !goes_on && !pod.spec.host_network {
            match pod.ip {
                Some(ip) => {
                    node.pool.as_mut().map(|pool| pool.take(ip));
                }
                None => pod.ip = node.pool.as_mut().and_then(Pool::allocate),
            }
        }
        let most = self.weigh(&pod);
        if let (true, Some(node)) = (counted && !goes_on, self.nodes.get_mut(node_id)) {
            node.most = node.most.plus(most, 1);
        }
        let id = self.pods.insert(PodEntry {
            pod,
            node: node_id,
            requests,
            most,
            claims: Vec::new(),
            counted,
            wake: None,
            dirty: goes_on,
            belied: false,
            delete: false,
            deleted: false,
            busy: false,
            failures: 0,
            epoch: self.pod_epoch,
        });
        if let Some(node) = self.nodes.get_mut(node_id) {
            node.pods.insert(id);
        }
        self.follow_volumes(id);
        self.pod_ids.insert(key, id);
        if self.pods.get(id).is_some_and(|it| it.pod.spec.claims) {
            self.settle_volumes(node_id);
        }
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
                reason: rejection_word(&failure.reason),
                message: failure
                    .message
                    .trim_start_matches(node::REJECTED)
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
        self.follow_claims(id, claims, now);
        self.answer_resize(id, now);
        self.belie(id, called_unready, now);
        self.mind(node_id, now);
        if unmirror {
            self.delete_mirror(id);
        }
    }

    /// What a pod's volumes hold is followed where its programs may read it.
    fn follow_volumes(&self, id: Id) {
        if let (Some(network), Some(entry)) = (&self.options.network, self.pods.get(id))
            && !entry.pod.finished()
            && entry.pod.spec.reads_objects()
        {
            let it = &entry.pod.id;
            network.follow_volumes(&it.namespace, &it.name, &it.uid);
        }
    }

    /// Whether a port of the node that a pod wants is taken by another.
    fn port_taken(&self, node: Id, spec: &PodSpec) -> bool {
        if spec.host_ports().next().is_none() {
            return false;
        }
        let others = self.nodes.get(node).into_iter().flat_map(|it| &it.pods);
        let mut others = others
            .filter_map(|id| self.pods.get(*id))
            .filter(|it| it.counted);
        others.any(|other| {
            let theirs = || other.pod.spec.host_ports();
            spec.host_ports()
                .any(|port| theirs().any(|it| it.conflicts(port)))
        })
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

    /// The pod is gone from the API.
    pub(super) fn forget(&mut self, id: Id) {
        let Some(entry) = self.pods.remove(id) else {
            return;
        };
        self.pod_ids
            .remove(&(entry.pod.id.namespace.clone(), entry.pod.id.name.clone()));
        if let Some(network) = &self.options.network {
            network.forget(&entry.pod.id.uid);
        }
        self.forget_users(id, &entry.pod.id.namespace, &entry.claims);
        if let Some(node) = self.nodes.get_mut(entry.node) {
            node.pods.remove(&id);
        }
        let (node, claims) = (entry.node, entry.pod.spec.claims);
        if let Some(entry) = self.keep_static(entry)
            && entry.counted
            && let Some(node) = self.nodes.get_mut(entry.node)
        {
            give_back(node, &entry);
            self.roomier.insert(entry.node);
        }
        if claims {
            self.settle_volumes(node);
        }
    }

    /// Gives a pod another address: its sandbox is a new one.
    pub(super) fn readdress(&mut self, id: Id) {
        let Some(entry) = self.pods.get_mut(id) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(entry.node) else {
            return;
        };
        if entry.counted && !entry.pod.spec.host_network {
            release_address(node, &entry.pod);
            entry.pod.ip = node.pool.as_mut().and_then(Pool::allocate);
        }
    }
}

/// What a pod had of a node is free.
pub(super) fn give_back(node: &mut NodeEntry, entry: &PodEntry) {
    node.room.remove(&entry.requests);
    node.most = node.most.plus(entry.most, -1);
    release_address(node, &entry.pod);
}

fn release_address(node: &mut NodeEntry, pod: &Pod) {
    if let (Some(ip), Some(pool), false) = (pod.ip, node.pool.as_mut(), pod.spec.host_network) {
        pool.release(ip);
    }
}

fn no_port() -> Failure {
    Failure {
        reason: "NodePorts".into(),
        message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".into(),
    }
}

/// The kubelet names the event after the reason; extended resources share one name here.
fn rejection_word(reason: &str) -> &'static str {
    [
        "OutOfcpu",
        "OutOfmemory",
        "OutOfpods",
        "OutOfephemeral-storage",
        "NodePorts",
        "Evicted",
    ]
    .into_iter()
    .find(|known| *known == reason)
    .unwrap_or("OutOfResources")
}
