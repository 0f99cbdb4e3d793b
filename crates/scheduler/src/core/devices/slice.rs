//! What drivers offer: slices of pools of devices.

use super::DeviceKey;
use super::capacity::Capacities;
use super::select::Seen;
use crate::core::nodes::Node;
use crate::core::selector::NodeTerm;
use crate::core::symbols::{Symbol, Symbols};
use gantry_machinery::quantity::Quantity;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1 as k8s;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A pool: driver and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PoolKey {
    pub driver: Arc<str>,
    pub name: Arc<str>,
}

impl PoolKey {
    pub fn of(slice: &k8s::ResourceSlice) -> Self {
        Self {
            driver: slice.spec.driver.as_str().into(),
            name: slice.spec.pool.name.as_str().into(),
        }
    }
}

/// Which nodes can reach a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reach {
    Node(Symbol),
    All,
    Selected(Vec<NodeTerm>),
    /// Each device says so itself.
    PerDevice,
    /// Nothing that is known here.
    None,
}

impl Reach {
    fn compile(
        node: Option<&String>,
        all: Option<bool>,
        selector: Option<&NodeSelector>,
        symbols: &mut Symbols,
    ) -> Self {
        match (node.filter(|n| !n.is_empty()), selector) {
            (Some(node), _) => Self::Node(symbols.intern(node)),
            (None, _) if all == Some(true) => Self::All,
            (None, Some(selector)) => Self::Selected(terms(selector, symbols)),
            (None, None) => Self::None,
        }
    }

    pub fn includes(&self, node: &Node, symbols: &Symbols) -> bool {
        match self {
            Self::Node(name) => *name == node.name,
            Self::All | Self::PerDevice => true,
            Self::Selected(terms) => any(terms, node, symbols),
            Self::None => false,
        }
    }
}

/// The terms of a node selector.
pub(super) fn terms(selector: &NodeSelector, symbols: &mut Symbols) -> Vec<NodeTerm> {
    let terms = selector.node_selector_terms.iter();
    terms.map(|t| NodeTerm::compile(t, symbols)).collect()
}

/// Whether one of the terms holds.
pub(super) fn any(terms: &[NodeTerm], node: &Node, symbols: &Symbols) -> bool {
    let mut terms = terms.iter();
    terms.any(|t| t.matches(node.name, &node.labels, symbols))
}

/// A device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Device {
    pub key: DeviceKey,
    pub name: String,
    pub seen: Seen,
    pub taints: Vec<k8s::DeviceTaint>,
    /// Of each set of counters, how much of which it takes.
    pub counters: Vec<(String, Vec<(String, Quantity)>)>,
    /// Where the slice leaves it to the device.
    pub reach: Reach,
    pub selector: Option<NodeSelector>,
    /// Several may have a part of it.
    pub shared: bool,
    pub capacities: Capacities,
    /// What its driver has to say before a pod that uses it may be bound; and what says that it cannot be.
    pub conditions: [Vec<String>; 2],
    /// What it is given to is of use on the node that was chosen only.
    pub binds: bool,
}

/// A slice.
#[derive(Debug)]
pub(super) struct Slice {
    pub number: u64,
    pub reach: Reach,
    pub selector: Option<NodeSelector>,
    pub devices: Vec<Device>,
    /// Some of its devices have to be made ready first.
    pub awaited: bool,
    generation: i64,
    pool_slices: i64,
    sets: BTreeMap<String, BTreeMap<String, Quantity>>,
}

impl Slice {
    pub fn compile(slice: &k8s::ResourceSlice, number: u64, symbols: &mut Symbols) -> Self {
        let spec = &slice.spec;
        let driver = symbols.intern(&spec.driver);
        let pool = symbols.intern(&spec.pool.name);
        let amount = |(name, counter): (&String, &k8s::Counter)| {
            let amount = Quantity::parse(&counter.value.0).ok()?;
            Some((name.clone(), amount))
        };
        let reach = if spec.per_device_node_selection == Some(true) {
            Reach::PerDevice
        } else {
            Reach::compile(
                spec.node_name.as_ref(),
                spec.all_nodes,
                spec.node_selector.as_ref(),
                symbols,
            )
        };
        let devices = spec.devices.iter().flatten().map(|device| {
            let counters = device.consumes_counters.iter().flatten().map(|c| {
                let counters = c.counters.iter().filter_map(amount).collect();
                (c.counter_set.clone(), counters)
            });
            Device {
                key: (driver, pool, symbols.intern(&device.name)),
                name: device.name.clone(),
                seen: Seen::of(&spec.driver, device),
                taints: device.taints.clone().unwrap_or_default(),
                counters: counters.collect(),
                reach: Reach::compile(
                    device.node_name.as_ref(),
                    device.all_nodes,
                    device.node_selector.as_ref(),
                    symbols,
                ),
                selector: device.node_selector.clone(),
                shared: device.allow_multiple_allocations == Some(true),
                capacities: Capacities::compile(device),
                conditions: [
                    device.binding_conditions.clone().unwrap_or_default(),
                    device
                        .binding_failure_conditions
                        .clone()
                        .unwrap_or_default(),
                ],
                binds: device.binds_to_node == Some(true),
            }
        });
        let sets = spec.shared_counters.iter().flatten().map(|set| {
            let counters = set.counters.iter().filter_map(amount).collect();
            (set.name.clone(), counters)
        });
        let devices: Vec<Device> = devices.collect();
        Self {
            number,
            awaited: devices
                .iter()
                .any(|device| !device.conditions[0].is_empty()),
            devices,
            reach,
            selector: spec.node_selector.clone(),
            generation: spec.pool.generation,
            pool_slices: spec.pool.resource_slice_count,
            sets: sets.collect(),
        }
    }

    /// Whether two forms of a slice offer the same.
    pub fn same(&self, other: &Self) -> bool {
        self.reach == other.reach
            && self.devices == other.devices
            && self.selector == other.selector
            && (self.generation, self.pool_slices) == (other.generation, other.pool_slices)
            && self.sets == other.sets
    }

    /// Where a device of the slice can be reached from.
    pub fn reach_of<'a>(&'a self, device: &'a Device) -> &'a Reach {
        match &self.reach {
            Reach::PerDevice => &device.reach,
            reach => reach,
        }
    }
}

/// All slices of a pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub slices: BTreeMap<String, Arc<Slice>>,
    /// Those of the newest generation.
    pub live: Vec<Arc<Slice>>,
    /// All of them are there.
    pub complete: bool,
    /// Two devices or sets of counters have one name, or a device uses counters that are not there.
    pub invalid: bool,
    /// Counters that its devices share.
    pub sets: BTreeMap<String, BTreeMap<String, Quantity>>,
    /// Nodes that have some of it for themselves.
    pub nodes: BTreeSet<Symbol>,
    /// Several nodes can reach some of it.
    pub wide: bool,
}

impl Pool {
    /// Brings what follows from the slices up to date.
    pub fn settle(&mut self) {
        let newest = self.slices.values().map(|s| s.generation).max();
        let live = self.slices.values();
        let live = live.filter(|s| Some(s.generation) == newest);
        self.live = live.cloned().collect();
        let there = i64::try_from(self.live.len()).unwrap_or(i64::MAX);
        self.complete = self.live.iter().all(|s| s.pool_slices == there);
        self.invalid = false;
        self.sets.clear();
        self.nodes.clear();
        self.wide = false;
        let mut names = BTreeSet::new();
        for slice in &self.live {
            for (name, counters) in &slice.sets {
                self.invalid |= self.sets.insert(name.clone(), counters.clone()).is_some();
            }
            for device in &slice.devices {
                self.invalid |= !names.insert(device.key);
                match slice.reach_of(device) {
                    Reach::Node(node) => {
                        self.nodes.insert(*node);
                    }
                    Reach::All | Reach::Selected(_) => self.wide = true,
                    Reach::PerDevice | Reach::None => {}
                }
            }
        }
        if self.complete {
            let devices = self.live.iter().flat_map(|slice| &slice.devices);
            let mut used = devices.flat_map(|device| &device.counters);
            self.invalid |= used.any(|(set, counters)| {
                let there = self.sets.get(set);
                there.is_none_or(|there| counters.iter().any(|(name, _)| !there.contains_key(name)))
            });
        }
    }
}
