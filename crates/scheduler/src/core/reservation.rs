//! Reservations: room held for pods that are still to come, such as the surge of a release or the other end of a
//! migration. Each slot of a reservation takes the room of one pod on one node, and gives it to the first pod of its
//! owners that comes; to everybody else the room is taken.

use super::class::ClassId;
use super::cluster::{Cluster, Placed};
use super::nodes::NodeId;
use super::object::Pod;
use super::selector::Selector;
use super::symbols::Symbol;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the uids of slots begin with; no pod's does.
const PREFIX: &str = "reservation:";
/// Slots tried for one pod at most.
const TRIED: usize = 32;

/// Whether a uid is a slot's.
#[must_use]
pub fn is_slot(uid: &str) -> bool {
    uid.starts_with(PREFIX)
}

/// Where a slot is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Slot {
    /// It has found no node yet.
    Waiting,
    Held(NodeId),
    /// The pod that has it now.
    Taken(Arc<str>, NodeId),
}

/// Room for pods that are to come.
pub struct Reservation {
    namespace: Symbol,
    owners: Selector,
    /// A pod that asks for the room of one slot.
    template: Pod,
    pub slots: Vec<Slot>,
}

/// All reservations, by `namespace/name`.
#[derive(Default)]
pub struct Reservations {
    all: BTreeMap<Arc<str>, Reservation>,
    /// Which slot a pod has.
    taken: FxHashMap<Arc<str>, (Arc<str>, usize)>,
}

fn uid(key: &str, slot: usize) -> Arc<str> {
    format!("{PREFIX}{key}/{slot}").into()
}

impl Reservations {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A reservation.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Reservation> {
        self.all.get(key)
    }
}

impl Cluster {
    /// A reservation came or changed: so many slots of room for `template`, for pods of `owners` in its namespace.
    /// `held` says on which nodes slots are, as an earlier scheduler told; what is more than wanted is given up.
    pub fn set_reservation(
        &mut self,
        key: &str,
        template: Pod,
        owners: &LabelSelector,
        slots: usize,
        held: &[String],
    ) {
        let owners = self.compiler.pod_selector(Some(owners));
        let namespace = self.compiler.symbols.intern(template.namespace());
        let key: Arc<str> = key.into();
        let class = self.classify(&template);
        let old = self.reservations.all.remove(&key);
        let known = old.is_some();
        let mut all = old.map(|r| r.slots).unwrap_or_default();
        while all.len() > slots {
            all.pop();
            self.remove(&uid(&key, all.len()));
        }
        all.resize(slots, Slot::Waiting);
        for (at, slot) in all.iter_mut().enumerate() {
            if let Slot::Held(node) = slot {
                // It may ask for another amount than before.
                self.place_at(&uid(&key, at), class, *node);
            }
        }
        if !known {
            for (at, node) in held.iter().enumerate().take(slots) {
                let name = self.compiler.symbols.intern(node);
                if let Some(id) = self.nodes.find(name) {
                    self.place_at(&uid(&key, at), class, id);
                    all[at] = Slot::Held(id);
                }
            }
        }
        let reservation = Reservation {
            namespace,
            owners,
            template,
            slots: all,
        };
        self.reservations.all.insert(key, reservation);
    }

    /// A reservation went, or its time is over: what it still holds is free.
    pub fn remove_reservation(&mut self, key: &str) {
        let Some(reservation) = self.reservations.all.remove(key) else {
            return;
        };
        for at in 0..reservation.slots.len() {
            self.remove(&uid(key, at));
        }
        self.reservations.taken.retain(|_, (of, _)| **of != *key);
    }

    /// Whether a slot waits for a node.
    #[must_use]
    pub fn reservations_wait(&self) -> bool {
        let mut all = self.reservations.all.values().flat_map(|r| &r.slots);
        all.any(|slot| *slot == Slot::Waiting || self.homeless(slot))
    }

    /// Whether the node of a slot is gone.
    fn homeless(&self, slot: &Slot) -> bool {
        matches!(slot, Slot::Held(node) if !self.nodes.all[node.0 as usize].known)
    }

    /// Looks for nodes for slots that have none. Returns whether any found one.
    pub fn place_reservations(&mut self) -> bool {
        let mut lost: Vec<(Arc<str>, usize)> = Vec::new();
        for (key, reservation) in &self.reservations.all {
            let slots = reservation.slots.iter().enumerate();
            let homeless = slots.filter(|(_, slot)| self.homeless(slot));
            lost.extend(homeless.map(|(at, _)| (key.clone(), at)));
        }
        for (key, at) in lost {
            self.remove(&uid(&key, at));
            if let Some(reservation) = self.reservations.all.get_mut(&key) {
                reservation.slots[at] = Slot::Waiting;
            }
        }
        let waiting: Vec<(Arc<str>, usize)> = self
            .reservations
            .all
            .iter()
            .flat_map(|(key, r)| {
                let waits = |(at, slot): (usize, &Slot)| (*slot == Slot::Waiting).then_some(at);
                let slots = r.slots.iter().enumerate().filter_map(waits);
                slots.map(|at| (key.clone(), at))
            })
            .collect();
        let mut found = false;
        for (key, at) in waiting {
            let Some(template) = self.reservations.all.get(&key).map(|r| r.template.clone()) else {
                continue;
            };
            let class = self.classify(&template);
            if let Some(node) = self.choose_unreserved(class) {
                self.place_at(&uid(&key, at), class, node);
                if let Some(reservation) = self.reservations.all.get_mut(&key) {
                    reservation.slots[at] = Slot::Held(node);
                }
                found = true;
            }
        }
        found
    }

    /// Reservations that hold room on a node, by `namespace/name`.
    pub fn holding(&self, node: NodeId) -> impl Iterator<Item = &str> {
        let all = self.reservations.all.iter();
        let here = all.filter(move |(_, r)| r.slots.contains(&Slot::Held(node)));
        here.map(|(key, _)| &**key)
    }

    /// Whether room may be held for the class.
    pub(super) fn may_have_slot(&self, class: ClassId) -> bool {
        let group = &self.classes[class.0 as usize].request.group;
        let symbols = &self.compiler.symbols;
        self.reservations
            .all
            .values()
            .any(|r| r.namespace == group.namespace && r.owners.matches(&group.labels, symbols))
    }

    /// A slot that is held for the class and whose node would take it.
    pub(super) fn reserved_for(&mut self, class: ClassId) -> Option<(Arc<str>, NodeId)> {
        let group = self.classes[class.0 as usize].request.group.clone();
        let symbols = &self.compiler.symbols;
        let own = self.reservations.all.iter().filter(|(_, r)| {
            r.namespace == group.namespace && r.owners.matches(&group.labels, symbols)
        });
        let slots: Vec<(Arc<str>, NodeId)> = own
            .flat_map(|(key, r)| {
                r.slots
                    .iter()
                    .enumerate()
                    .filter_map(|(at, slot)| match slot {
                        Slot::Held(node) => Some((uid(key, at), *node)),
                        _ => None,
                    })
            })
            .take(TRIED)
            .collect();
        let before = self.events.len();
        let mut found = None;
        for (slot, node) in slots {
            let Some(placed) = self.lift(&slot) else {
                continue;
            };
            let fits = self.feasible(class, node);
            self.put(&slot, placed);
            if fits {
                found = Some((slot, node));
                break;
            }
        }
        self.events.truncate(before);
        found
    }

    /// Places a pod where it was just decided to go. The slot that was held for it, if there was one, is its from now
    /// on.
    pub fn commit(&mut self, pod: &Arc<str>, class: ClassId, node: NodeId) {
        if let Some(slot) = self.slot.take() {
            self.remove(&slot);
            self.turn_slot(&slot, Some(pod));
        }
        self.place_at(pod, class, node);
        // Who finds that there are not enough any more takes the pod back.
        self.assume_devices(pod, class, node);
    }

    /// A pod that was placed is not to be bound after all: takes it off, and holds its slot again.
    pub fn uncommit(&mut self, pod: &str) -> Option<Placed> {
        let placed = self.remove(pod);
        self.release_devices(pod);
        if let Some((key, at)) = self.reservations.taken.remove(pod)
            && let Some(reservation) = self.reservations.all.get_mut(&key)
            && let Some(Slot::Taken(_, node)) = reservation.slots.get(at).cloned()
        {
            reservation.slots[at] = Slot::Held(node);
            let template = reservation.template.clone();
            let class = self.classify(&template);
            self.place_at(&uid(&key, at), class, node);
        }
        placed
    }

    fn turn_slot(&mut self, slot: &str, pod: Option<&Arc<str>>) {
        let Some((key, at)) = slot
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.rsplit_once('/'))
        else {
            return;
        };
        let (Ok(at), Some(pod)) = (at.parse::<usize>(), pod) else {
            return;
        };
        let key: Arc<str> = key.into();
        if let Some(slot) = self
            .reservations
            .all
            .get_mut(&key)
            .and_then(|r| r.slots.get_mut(at))
            && let Slot::Held(node) = *slot
        {
            *slot = Slot::Taken(pod.clone(), node);
            self.reservations.taken.insert(pod.clone(), (key, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::object::Node;
    use serde_json::json;

    fn cluster() -> Cluster {
        let mut cluster = Cluster::new();
        for name in ["n0", "n1"] {
            let node: Node = serde_json::from_value(json!({"metadata": {"name": name},
                "status": {"allocatable": {"cpu": "4", "memory": "64Gi", "pods": "110"}}}))
            .unwrap();
            cluster.upsert_node(&node);
        }
        cluster
    }

    fn pod(name: &str, app: &str, cpu: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": app}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
        .unwrap()
    }

    fn place(cluster: &mut Cluster, pod: &Pod) -> Option<NodeId> {
        let class = cluster.classify(pod);
        let node = cluster.choose(class)?;
        cluster.commit(&pod.uid().into(), class, node);
        Some(node)
    }

    fn reserve(cluster: &mut Cluster, slots: usize, held: &[&str]) {
        let owners: LabelSelector =
            serde_json::from_value(json!({"matchLabels": {"app": "web"}})).unwrap();
        let held: Vec<String> = held.iter().map(ToString::to_string).collect();
        cluster.set_reservation("shop/surge", pod("t", "", "3"), &owners, slots, &held);
    }

    #[test]
    fn room_is_held_for_its_owners_alone() {
        let mut cluster = cluster();
        reserve(&mut cluster, 2, &[]);
        assert!(cluster.reservations_wait());
        assert!(cluster.place_reservations());
        assert!(!cluster.reservations_wait());
        // One CPU is left on either node.
        assert_eq!(place(&mut cluster, &pod("other", "db", "2")), None);
        let own = place(&mut cluster, &pod("web-0", "web", "2")).unwrap();
        let slots = &cluster.reservations.get("shop/surge").unwrap().slots;
        assert!(
            slots.contains(&Slot::Taken("web-0".into(), own)),
            "{slots:?}"
        );
        // A slot is for one pod: what the owner leaves of it is everybody's.
        assert_eq!(place(&mut cluster, &pod("other", "db", "2")), Some(own));
        // A pod that asks for more than is held goes by the usual way, and finds nothing.
        assert_eq!(place(&mut cluster, &pod("big", "web", "5")), None);
        cluster.remove_reservation("shop/surge");
        assert!(place(&mut cluster, &pod("more", "db", "4")).is_some());
    }

    #[test]
    fn a_pod_that_is_not_bound_gives_its_slot_back() {
        let mut cluster = cluster();
        reserve(&mut cluster, 1, &["n1"]);
        let n1 = place(&mut cluster, &pod("web-0", "web", "3")).unwrap();
        assert_eq!(cluster.node_name(n1), "n1");
        assert!(cluster.uncommit("web-0").is_some());
        let slots = &cluster.reservations.get("shop/surge").unwrap().slots;
        assert_eq!(*slots, [Slot::Held(n1)]);
        let used = cluster.nodes.rooms[n1.0 as usize].used.cpu;
        assert_eq!(used, 3000);
        // A node that goes takes no slot with it.
        cluster.remove_node("n1");
        assert!(cluster.reservations_wait() && cluster.place_reservations());
        let slots = &cluster.reservations.get("shop/surge").unwrap().slots;
        assert!(matches!(slots[..], [Slot::Held(node)] if node != n1));
        let n1 = NodeId(0);
        assert_eq!(cluster.nodes.rooms[0].used.cpu, 3000);
        // Fewer slots hold less.
        reserve(&mut cluster, 0, &[]);
        assert_eq!(cluster.nodes.rooms[n1.0 as usize].used.cpu, 0);
    }
}
