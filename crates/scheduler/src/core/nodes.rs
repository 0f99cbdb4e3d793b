//! Node state by dense id: what every decision reads in one flat array, what few read beside it.

use super::load::Loads;
use super::object;
use super::request::{Amounts, Effect, Features, HostPort, Request, Shape, Taint, amount};
use super::seats::{Booked, Seats};
use super::symbols::{Labels, Symbol, Symbols};
use rustc_hash::{FxHashMap, FxHashSet};

/// A node's place in the arrays. Reused after the node is gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u32);

/// Capacity and use of a node: all that fit and resource scores read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub allocatable: Amounts,
    pub used: Amounts,
    /// CPU and memory use as scores count it.
    pub assumed: [i64; 2],
    pub max_pods: i64,
    pub pods: i64,
}

impl Room {
    /// Whether CPU, memory, storage and pod count have room for one more pod of this shape.
    #[must_use]
    pub fn fits(&self, shape: &Shape) -> bool {
        let Amounts {
            cpu,
            memory,
            storage,
        } = shape.base;
        self.pods < self.max_pods
            && (cpu == 0 || cpu <= self.allocatable.cpu - self.used.cpu)
            && (memory == 0 || memory <= self.allocatable.memory - self.used.memory)
            && (storage == 0 || storage <= self.allocatable.storage - self.used.storage)
    }

    /// Books a pod of this shape (`sign` 1), or takes it off (-1).
    pub(super) const fn book(&mut self, shape: &Shape, sign: i64) {
        self.pods += sign;
        self.used.cpu += sign * shape.base.cpu;
        self.used.memory += sign * shape.base.memory;
        self.used.storage += sign * shape.base.storage;
        self.assumed[0] += sign * shape.assumed[0];
        self.assumed[1] += sign * shape.assumed[1];
    }

    /// LeastAllocated and BalancedAllocation of kube-scheduler's default profile, summed: 0 to 200.
    #[must_use]
    pub fn score(&self, shape: &Shape) -> u16 {
        self.least(shape) + self.balance(shape)
    }

    /// LeastAllocated over CPU and memory: 0 to 100.
    #[must_use]
    pub fn least(&self, shape: &Shape) -> u16 {
        let least = |capacity: i64, used: i64| -> Option<i64> {
            (capacity > 0).then(|| {
                if used > capacity {
                    0
                } else {
                    (capacity - used) * 100 / capacity
                }
            })
        };
        let (mut sum, mut weights) = (0, 0);
        for score in [
            least(self.allocatable.cpu, self.assumed[0] + shape.assumed[0]),
            least(self.allocatable.memory, self.assumed[1] + shape.assumed[1]),
        ]
        .into_iter()
        .flatten()
        {
            sum += score;
            weights += 1;
        }
        let least = if weights == 0 { 0 } else { sum / weights };
        u16::try_from(least).unwrap_or_default()
    }

    /// BalancedAllocation over CPU and memory: 0 to 100. Since Kubernetes 1.36 it is what the pod makes of the node's
    /// balance that counts, not the balance alone.
    #[must_use]
    pub fn balance(&self, shape: &Shape) -> u16 {
        // A pod that asks for nothing upsets no balance; scored, all of them would go to one node.
        if shape.base.cpu == 0 && shape.base.memory == 0 {
            return 0;
        }
        let with = self.evenness(shape.base.cpu, shape.base.memory);
        balanced(with, self.evenness(0, 0))
    }

    /// How evenly CPU and memory are used with so much more of both: 50 to 100.
    fn evenness(&self, cpu: i64, memory: i64) -> u16 {
        if self.allocatable.cpu <= 0 || self.allocatable.memory <= 0 {
            return 100;
        }
        // Standard deviation of two values is half their distance. 2^24 steps of precision are plenty for a percentage.
        let fraction = |used: i64, capacity: i64| (used as f32 / capacity as f32).min(1.0);
        let distance = fraction(self.used.cpu + cpu, self.allocatable.cpu)
            - fraction(self.used.memory + memory, self.allocatable.memory);
        ((1.0 - distance.abs() / 2.0) * 100.0) as u16
    }
}

/// BalancedAllocation's score of how evenly a node would be used with a pod, and is without it: 75 if that is the same.
pub(super) fn balanced(with: u16, without: u16) -> u16 {
    50 + (50 + with).saturating_sub(without) / 2
}

/// Extended resources: name, allocatable, used.
pub type Others = Vec<(Symbol, i64, i64)>;

/// Books extended resources (`sign` 1), or takes them off (-1).
pub(super) fn book_other(other: &mut Others, shape: &Shape, sign: i64) {
    for (name, amount) in &shape.other {
        match other.iter_mut().find(|(n, ..)| n == name) {
            Some(slot) => slot.2 += sign * amount,
            None => other.push((*name, 0, sign * amount)),
        }
    }
}

/// The rest of a node.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: Symbol,
    /// Seen in the API. Pods may arrive before their node, or outlive it.
    pub known: bool,
    pub unschedulable: bool,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    /// What it has declared that it can do.
    pub features: Features,
    pub other: Others,
    /// Host ports in use, with the number of pods that take each.
    pub ports: Vec<(HostPort, u32)>,
}

/// All nodes.
#[derive(Default)]
pub struct Nodes {
    pub rooms: Vec<Room>,
    pub all: Vec<Node>,
    by_name: FxHashMap<Symbol, NodeId>,
    free: Vec<NodeId>,
    /// Number of nodes known.
    pub known: usize,
    /// Real usage, where it is looked at.
    pub loads: Loads,
    /// Nodes with a PreferNoSchedule taint: without any, taints give no scores.
    pub disliked: usize,
    /// What is booked beyond what is known: nothing.
    nothing: FxHashMap<u32, Booked>,
    /// Extended resources that device classes stand for where a node has none of its own.
    pub delegated: FxHashSet<Symbol>,
    /// Of those that a profile scores, by node: all devices that serve it there, and those that somebody has.
    pub served: FxHashMap<(u32, Symbol), (i64, i64)>,
}

/// What an update of a node changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    pub added: bool,
    pub removed: bool,
    /// Labels, or declared features.
    pub labels: bool,
    pub taints: bool,
    pub allocatable: bool,
}

impl NodeChange {
    /// Whether anything changed.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// A node as the API has it, compiled.
pub struct NodeState {
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub features: Features,
    pub allocatable: Amounts,
    pub max_pods: i64,
    pub other: Vec<(Symbol, i64)>,
}

impl NodeState {
    /// Compiles a node.
    pub fn compile(node: &object::Node, symbols: &mut Symbols) -> Self {
        let mut state = Self {
            labels: symbols.labels(node.metadata.labels.iter().flatten()),
            taints: Vec::new(),
            unschedulable: node.spec.unschedulable,
            features: Features::declared(&node.status.declared_features),
            allocatable: Amounts::default(),
            max_pods: 0,
            other: Vec::new(),
        };
        for taint in &node.spec.taints {
            if let Some(effect) = Effect::parse(&taint.effect) {
                let value = symbols.intern(taint.value.as_deref().unwrap_or_default());
                state.taints.push(Taint {
                    key: symbols.intern(&taint.key),
                    value,
                    effect,
                });
            }
        }
        for (name, quantity) in &node.status.allocatable {
            let value = amount(name, quantity);
            match name.as_str() {
                "cpu" => state.allocatable.cpu = value,
                "memory" => state.allocatable.memory = value,
                "ephemeral-storage" => state.allocatable.storage = value,
                "pods" => state.max_pods = value,
                // Kubelets tell of huge pages that there are none.
                _ if value == 0 => {}
                _ => state.other.push((symbols.intern(name), value)),
            }
        }
        state
    }
}

impl Nodes {
    /// The node of that name, if there is a slot for it.
    #[must_use]
    pub fn find(&self, name: Symbol) -> Option<NodeId> {
        self.by_name.get(&name).copied()
    }

    /// Number of slots, used or not.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.all.len()
    }

    /// The slot for a name, created if need be.
    pub fn slot(&mut self, name: Symbol) -> NodeId {
        if let Some(id) = self.by_name.get(&name) {
            return *id;
        }
        let node = Node {
            name,
            known: false,
            unschedulable: false,
            labels: Vec::new(),
            taints: Vec::new(),
            features: Features::default(),
            other: Vec::new(),
            ports: Vec::new(),
        };
        let id = if let Some(id) = self.free.pop() {
            self.all[id.0 as usize] = node;
            self.rooms[id.0 as usize] = Room::default();
            self.forget_load(id);
            id
        } else {
            self.all.push(node);
            self.rooms.push(Room::default());
            NodeId(u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX))
        };
        self.by_name.insert(name, id);
        id
    }

    /// Gives the slot back if the node is gone and empty.
    pub fn release(&mut self, id: NodeId) {
        let node = &self.all[id.0 as usize];
        if !node.known
            && self.rooms[id.0 as usize].pods == 0
            && self.by_name.get(&node.name) == Some(&id)
        {
            self.by_name.remove(&node.name);
            self.free.push(id);
        }
    }

    /// What setting this state would change.
    #[must_use]
    pub fn difference(&self, id: NodeId, state: &NodeState) -> NodeChange {
        let (node, room) = (&self.all[id.0 as usize], &self.rooms[id.0 as usize]);
        let other = state.other.len()
            != node
                .other
                .iter()
                .filter(|(_, allocatable, _)| *allocatable > 0)
                .count()
            || state.other.iter().any(|(name, amount)| {
                !node
                    .other
                    .iter()
                    .any(|(n, allocatable, _)| n == name && allocatable == amount)
            });
        NodeChange {
            added: !node.known,
            removed: false,
            labels: node.labels != state.labels || node.features != state.features,
            taints: node.taints != state.taints || node.unschedulable != state.unschedulable,
            allocatable: other
                || room.allocatable != state.allocatable
                || room.max_pods != state.max_pods,
        }
    }

    /// Sets a node's state.
    pub fn set(&mut self, id: NodeId, state: NodeState) {
        self.forget_taints(id);
        let (node, room) = (&mut self.all[id.0 as usize], &mut self.rooms[id.0 as usize]);
        self.known += usize::from(!node.known);
        node.known = true;
        node.labels = state.labels;
        node.taints = state.taints;
        node.unschedulable = state.unschedulable;
        node.features = state.features;
        node.other.retain_mut(|(_, allocatable, used)| {
            *allocatable = 0;
            *used != 0
        });
        for (name, amount) in state.other {
            match node.other.iter_mut().find(|(n, ..)| *n == name) {
                Some(slot) => slot.1 = amount,
                None => node.other.push((name, amount, 0)),
            }
        }
        room.allocatable = state.allocatable;
        room.max_pods = state.max_pods;
        self.disliked += usize::from(disliked(&node.taints));
    }

    /// The node left the API; its pods stay until they are removed.
    pub fn unset(&mut self, id: NodeId) {
        self.forget_taints(id);
        let (node, room) = (&mut self.all[id.0 as usize], &mut self.rooms[id.0 as usize]);
        self.known -= usize::from(node.known);
        node.known = false;
        node.labels.clear();
        node.taints.clear();
        node.features = Features::default();
        node.other.retain_mut(|(_, allocatable, used)| {
            *allocatable = 0;
            *used != 0
        });
        room.allocatable = Amounts::default();
        room.max_pods = 0;
    }

    fn forget_taints(&mut self, id: NodeId) {
        self.disliked -= usize::from(disliked(&self.all[id.0 as usize].taints));
    }

    /// Books a pod on a node (`sign` 1) or off it (-1).
    pub fn book(&mut self, id: NodeId, request: &Request, sign: i64) {
        let shape = &request.shape;
        self.rooms[id.0 as usize].book(shape, sign);
        let node = &mut self.all[id.0 as usize];
        book_other(&mut node.other, shape, sign);
        for port in &request.ports {
            match node.ports.iter_mut().find(|(p, _)| p == port) {
                Some((_, pods)) if sign > 0 => *pods += 1,
                Some((_, pods)) => *pods -= 1,
                None => node.ports.push((port.clone(), 1)),
            }
        }
        if sign < 0 && !request.ports.is_empty() {
            node.ports.retain(|(_, pods)| *pods > 0);
        }
    }

    /// The nodes as they are.
    #[must_use]
    pub const fn seats(&self) -> Seats<'_> {
        Seats::new(self, &self.nothing)
    }

    /// Whether all resources have room.
    #[must_use]
    pub fn fits(&self, id: u32, shape: &Shape) -> bool {
        self.seats().fits(id, shape)
    }

    /// Whether a resource of which a node has so much itself is served there by devices.
    #[must_use]
    pub fn delegates(&self, resource: Symbol, allocatable: i64) -> bool {
        allocatable <= 0 && self.delegated.contains(&resource)
    }

    /// Whether the host ports are free.
    #[must_use]
    pub fn ports_free(&self, id: u32, ports: &[HostPort]) -> bool {
        let taken = &self.all[id as usize].ports;
        ports
            .iter()
            .all(|port| !taken.iter().any(|(t, _)| t.conflicts(port)))
    }
}

fn disliked(taints: &[Taint]) -> bool {
    taints.iter().any(|t| t.effect == Effect::PreferNoSchedule)
}
