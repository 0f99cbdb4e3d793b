//! What the watches say, taken into the core.

use super::calls::PodRef;
use super::driver::{Driver, Kind, Pending};
use super::objects::{Change, Input};
use crate::core::cluster::Event;
use crate::core::object::{Node, Owner, Pod};
use crate::core::reservation::is_slot;
use crate::core::turns::Tenant;
use rustc_hash::FxHashSet;
use std::sync::Arc;

impl Driver {
    /// Takes one input in.
    pub(super) fn take_in(&mut self, input: Input) {
        match input {
            Input::Pod(Change::Applied(pod)) => {
                self.seen(Kind::Pod, || pod.uid().to_owned());
                self.pod(&pod);
            }
            Input::Pod(Change::Deleted(pod)) => self.pod_gone(pod.uid()),
            Input::Pod(Change::Listing) => self.list_begins(Kind::Pod),
            Input::Pod(Change::Listed) => {
                if let Some(seen) = self.listing.remove(&Kind::Pod) {
                    let placed = self.cluster.placed_uids().filter(|uid| !is_slot(uid));
                    let known = placed.chain(self.pending.keys());
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
                    self.cluster.upsert_claim(claim);
                }
                self.other(Kind::Claim, change, key);
            }
            Input::Volume(change) => {
                if let Change::Applied(volume) = &change {
                    self.cluster.upsert_volume(volume);
                }
                self.other(Kind::Volume, change, key);
            }
            Input::Class(change) => {
                if let Change::Applied(class) = &change {
                    self.cluster
                        .change_volumes(|volumes, symbols| volumes.set_class(class, symbols));
                }
                self.other(Kind::Class, change, key);
            }
            Input::CsiNode(change) => {
                if let Change::Applied(node) = &change {
                    self.cluster
                        .change_volumes(|volumes, symbols| volumes.set_limits(node, symbols));
                }
                self.other(Kind::CsiNode, change, key);
            }
            Input::CsiDriver(change) => {
                if let Change::Applied(driver) = &change {
                    let (_, name) = names(&driver.metadata);
                    self.cluster.change_volumes(|volumes, symbols| {
                        volumes.set_driver(name, Some(driver), symbols)
                    });
                }
                self.other(Kind::CsiDriver, change, key);
            }
            Input::Capacity(change) => {
                if let Change::Applied(capacity) = &change {
                    let (namespace, name) = names(&capacity.metadata);
                    self.cluster.change_volumes(|volumes, symbols| {
                        volumes.set_capacity(namespace, name, Some(capacity), symbols)
                    });
                }
                self.other(Kind::Capacity, change, key);
            }
            Input::Attachment(change) => {
                if let Change::Applied(attachment) = &change {
                    self.cluster
                        .change_volumes(|v, symbols| v.set_attachment(attachment, symbols));
                }
                self.other(Kind::Attachment, change, key);
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
            Input::NodeMetric(Change::Applied(metric)) => {
                if let Some(measurement) = super::usage::measured(&metric) {
                    self.measure(&measurement);
                }
            }
            Input::Policy(change) => {
                if let Change::Applied(policy) = &change {
                    self.policy(policy);
                }
                self.other(Kind::Policy, change, key);
            }
            Input::Quota(change) => {
                if let Change::Applied(quota) = &change {
                    self.cluster.set_quota(quota);
                }
                self.other(Kind::Quota, change, key);
            }
            Input::PodGroup(change) => {
                if let Change::Applied(group) = &change {
                    self.cluster.set_pod_group(group);
                }
                self.other(Kind::PodGroup, change, key);
            }
            Input::Reservation(change) => {
                if let Change::Applied(reservation) = &change {
                    self.reservation(reservation);
                }
                self.other(Kind::Reservation, change, key);
            }
            Input::Topology(change) => {
                if let Change::Applied(topology) = &change {
                    self.cluster.numa.now = super::usage::unix_now();
                    self.cluster.set_topology(topology);
                }
                self.other(Kind::Topology, change, key);
            }
            Input::DeviceClaim(change) => {
                if let Change::Applied(claim) = &change {
                    self.cluster
                        .change_devices(|devices, symbols| devices.set_claim(claim, symbols));
                    for owner in claim.metadata.owner_references.iter().flatten() {
                        self.free_special_claim(&owner.uid);
                    }
                }
                self.other(Kind::DeviceClaim, change, key);
            }
            Input::DeviceClass(change) => {
                if let Change::Applied(class) = &change {
                    self.cluster
                        .change_devices(|devices, symbols| devices.set_class(class, symbols));
                }
                self.other(Kind::DeviceClass, change, key);
            }
            Input::DeviceSlice(change) => {
                if let Change::Applied(slice) = &change {
                    self.cluster
                        .change_devices(|devices, symbols| devices.set_slice(slice, symbols));
                }
                self.other(Kind::DeviceSlice, change, key);
            }
            Input::ServiceProfile(Change::Applied(profile)) => self.service_profile(&profile),
            Input::ServiceProfile(Change::Deleted(profile)) => self.service_profile_gone(&profile),
            // What is not listed any more was deleted while nobody watched: it is learned on and written again.
            Input::ServiceProfile(_) => {
                self.cluster.settle_services();
            }
            // Of a node whose measurements end, the last one grows old.
            Input::NodeMetric(_) => {}
            Input::PodUsage(all) => {
                for (namespace, app, hour, usage) in &all {
                    self.cluster.learn(namespace, app, *hour, *usage);
                }
                self.cluster.settle_services();
            }
            Input::Usage(all) => {
                for measurement in &all {
                    self.measure(measurement);
                }
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
            Kind::Claim => self
                .cluster
                .change_volumes(|v, symbols| v.remove_claim(namespace, short, symbols)),
            Kind::Volume => self
                .cluster
                .change_volumes(|v, symbols| v.remove_volume(short, symbols)),
            Kind::Class => self
                .cluster
                .change_volumes(|v, symbols| v.remove_class(short, symbols)),
            Kind::CsiNode => self
                .cluster
                .change_volumes(|v, symbols| v.remove_limits(short, symbols)),
            Kind::CsiDriver => self
                .cluster
                .change_volumes(|v, symbols| v.set_driver(short, None, symbols)),
            Kind::Capacity => self
                .cluster
                .change_volumes(|v, symbols| v.set_capacity(namespace, short, None, symbols)),
            Kind::Attachment => self
                .cluster
                .change_volumes(|v, _| v.remove_attachment(short)),
            Kind::ReplicaSet => self.cluster.set_owner("ReplicaSet", namespace, short, None),
            Kind::StatefulSet => self
                .cluster
                .set_owner("StatefulSet", namespace, short, None),
            Kind::Policy => self.policy_gone(short),
            Kind::Quota => self.cluster.remove_quota(namespace, short),
            Kind::PodGroup => self.cluster.remove_pod_group(namespace, short),
            Kind::Reservation => self.reservation_gone(name),
            Kind::Topology => self.cluster.remove_topology(short),
            Kind::DeviceClaim => self
                .cluster
                .change_devices(|devices, symbols| devices.remove_claim(namespace, short, symbols)),
            Kind::DeviceClass => self
                .cluster
                .change_devices(|devices, symbols| devices.remove_class(short, symbols)),
            Kind::DeviceSlice => self
                .cluster
                .change_devices(|devices, _| devices.remove_slice(short)),
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
        self.cluster.release_devices(uid);
        self.queue.forget(uid);
        if let Some(pending) = self.pending.remove(uid) {
            for victim in pending.waits.into_iter().flat_map(|w| w.victims) {
                self.victims.remove(&victim, uid);
            }
            if let Some(volumes) = pending.volumes {
                self.cluster.volumes.release(&volumes.assumed);
            }
            if let Some(run) = pending.run {
                self.break_gang(run, uid);
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
            self.cluster.release_devices(uid);
            self.queue.forget(uid);
            self.pending.remove(uid);
            return;
        }
        let leaving = pod.metadata.deletion_timestamp.is_some();
        if self
            .pending
            .get(uid)
            .is_some_and(|p| p.decided && !(leaving && (p.waits.is_some() || p.volumes.is_some())))
        {
            // From before the binding.
            return;
        }
        let name = pod.scheduler_name();
        let ours = self
            .options
            .profiles
            .iter()
            .any(|p| p.scheduler_name == name);
        let deleting = pod.metadata.deletion_timestamp.is_some();
        if !ours || deleting || !pod.spec.scheduling_gates.is_empty() {
            self.pod_gone(uid);
            return;
        }
        let class = self.cluster.classify(pod);
        let priority = pod.spec.priority.unwrap_or_default();
        let tenant = Tenant(self.cluster.group_key(class).namespace.0);
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
                scheduler: name.into(),
            },
            nominated: pod
                .status
                .nominated_node_name
                .clone()
                .filter(|n| !n.is_empty()),
            nominated_told: pod
                .status
                .nominated_node_name
                .as_ref()
                .is_some_and(|n| !n.is_empty()),
            volumes: None,
            run: None,
            decision: None,
            class,
            priority,
            tenant,
            condition: seen,
            unreported: None,
            decided: false,
            waits: None,
        });
        pending.class = class;
        pending.priority = priority;
        if self.cluster.gang_of(class).is_some() && !self.queue.contains(&uid) {
            self.cluster.events.push(Event::Gang);
        }
        self.free_special_claim(&uid);
        if let Some(diagnosis) = self.queue.push(&uid, class, priority, tenant) {
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
