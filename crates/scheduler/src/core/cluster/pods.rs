//! Placed pods: booked where they are, and taken off.

use super::{Cluster, Event, Placed};
use crate::core::class::ClassId;
use crate::core::nodes::NodeId;
use crate::core::object;
use std::sync::Arc;

impl Cluster {
    /// A pod was seen bound to a node. What can change of it there (labels, resources, its going away) is compared
    /// first: most updates of running pods change nothing here.
    pub fn observe(&mut self, pod: &object::Pod, node_name: &str) {
        let started = pod.status.start_time.as_ref().map(|t| t.0.as_second());
        if let Some(started) = started {
            self.set_started(pod.uid(), started);
        }
        if let Some(placed) = self.placed(pod.uid()) {
            let request = self.classes[placed.class.0 as usize].request.clone();
            let rules = &self.profiles[request.profile.0 as usize];
            let same = self.node_name(placed.node) == node_name
                && request.group.terminating == pod.metadata.deletion_timestamp.is_some()
                && request.group.labels == self.compiler.pod_labels(pod.metadata.labels.as_ref())
                && request.shape == self.compiler.shape(pod, rules);
            if same {
                return;
            }
        }
        // Spread constraints bind only the pod that is being placed, so defaults no longer matter.
        let profile = self.profile_of(pod);
        let rules = &self.profiles[profile.0 as usize];
        let request = self.compiler.compile(pod, None, profile, rules);
        let class = self.class(request);
        let uid: Arc<str> = pod.uid().into();
        self.place(&uid, class, node_name);
        if let Some(started) = started {
            self.set_started(&uid, started);
        }
    }

    /// A pod is on a node: seen bound, or assumed. A pod already placed so is left alone.
    pub fn place(&mut self, uid: &Arc<str>, class: ClassId, node_name: &str) {
        let name = self.compiler.symbols.intern(node_name);
        let node = self.nodes.slot(name);
        self.place_at(uid, class, node);
    }

    /// As [`Cluster::place`], on a node known by id.
    pub fn place_at(&mut self, uid: &Arc<str>, class: ClassId, node: NodeId) {
        let mut placed = Placed {
            class,
            node,
            started: i64::MAX,
            quota: None,
        };
        let old = match self.pods.get(uid) {
            Some(old) if (old.class, old.node) == (class, node) => return,
            Some(_) => self.lift(uid),
            None => None,
        };
        if let Some(old) = old {
            placed.started = old.started;
        }
        self.put(uid, placed);
        // Only now: the pod may have been the last of a node that is gone, on which it stays.
        if let Some(old) = old {
            self.nodes.release(old.node);
        }
    }

    /// Books a pod that is on no node.
    pub(in crate::core) fn put(&mut self, uid: &Arc<str>, mut placed: Placed) {
        let Placed { class, node, .. } = placed;
        placed.quota = self.quota_at(&self.classes[class.0 as usize], node);
        self.pods.insert(uid.clone(), placed);
        if self.on_node.len() <= node.0 as usize {
            self.on_node.resize_with(node.0 as usize + 1, Vec::new);
        }
        self.on_node[node.0 as usize].push(uid.clone());
        let class = &mut self.classes[class.0 as usize];
        class.placed += 1;
        let class = &*class;
        *self.priorities.entry(class.request.priority).or_default() += 1;
        self.nodes.book(node, &class.request, 1);
        self.nodes
            .count_load(node, class.request.shape.assumed, placed.started, 1);
        self.volumes.book(node.0, &class.request.claims, 1);
        self.volumes.book_disks(node.0, &class.request.disks, 1);
        if let (Some(quota), Some((_, takes))) = (placed.quota, &class.quota) {
            self.quotas.book(quota, class.request.priority, takes, 1);
        }
        if let Some(gang) = class.gang {
            self.gangs.book(gang, 1);
        }
        if let Some(service) = class.service {
            self.hours.book(service, node.0, 1);
        }
        self.counters.place(class.group, node.0, &self.topology);
        for (carrier, toll) in &class.carries {
            self.counters
                .carry(*carrier, node.0, *toll, 1, &self.topology);
        }
        self.events.push(Event::PodPlaced(placed.class));
        self.touch(node.0);
    }

    /// A placed pod is gone, finished, or was not bound after all. Returns where it was.
    pub fn remove(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.lift(uid)?;
        self.nodes.release(placed.node);
        Some(placed)
    }

    /// As [`Cluster::remove`], keeping the node's slot even if it is gone and empty now.
    pub(in crate::core) fn lift(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.pods.remove(uid)?;
        self.lifts += 1;
        let neighbours = &mut self.on_node[placed.node.0 as usize];
        if let Some(at) = neighbours.iter().position(|other| **other == *uid) {
            neighbours.swap_remove(at);
        }
        let class = &mut self.classes[placed.class.0 as usize];
        class.placed = class.placed.saturating_sub(1);
        let class = &*class;
        if let Some(count) = self.priorities.get_mut(&class.request.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&class.request.priority);
            }
        }
        self.nodes.book(placed.node, &class.request, -1);
        let assumed = class.request.shape.assumed;
        self.nodes
            .count_load(placed.node, assumed, placed.started, -1);
        self.volumes.book(placed.node.0, &class.request.claims, -1);
        self.volumes
            .book_disks(placed.node.0, &class.request.disks, -1);
        if let (Some(quota), Some((_, takes))) = (placed.quota, &class.quota) {
            self.quotas.book(quota, class.request.priority, takes, -1);
        }
        if let Some(gang) = class.gang {
            self.gangs.book(gang, -1);
        }
        if let Some(service) = class.service {
            self.hours.book(service, placed.node.0, -1);
        }
        self.counters
            .unplace(class.group, placed.node.0, &self.topology);
        for (carrier, toll) in &class.carries {
            self.counters
                .carry(*carrier, placed.node.0, *toll, -1, &self.topology);
        }
        self.events.push(Event::PodRemoved(placed.class));
        self.touch(placed.node.0);
        Some(placed)
    }
}
