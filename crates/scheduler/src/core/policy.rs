//! Placement policies: what operators say of where pods may and should go. A policy is not one more filter: it is
//! written into the requests of the pods that it selects, in the terms in which pods say the same of themselves
//! (spread, affinity, node selectors), so that whatever holds for those (indexes, counters, diagnosis) holds for it.
//!
//! Of several policies that select a pod, the one of higher priority comes first, of equal ones the first by name.
//! Restrictions add up: whom it avoids and seeks, what hardware it needs, which nodes are set apart. What can be said
//! only once is said by the first: the strategy, the pools, the load, a spread over one key.

use super::request::{Compiler, Request, Spread, Term};
use super::selector::{Namespaces, NodeTerm, Requirement, Selector};
use super::symbols::{Symbol, Symbols, value_of};
use gantry_api::app::Level;
use gantry_api::labels;
use gantry_api::placement_policy::{
    ExclusiveScope, NumaAlignment, PackingStrategy, PlacementPolicy, Unsatisfiable,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod cluster;

pub use cluster::Landing;

/// What policies say of single nodes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct NodeRules {
    /// By policy: terms of which one must match.
    pub required: Vec<(Symbol, Vec<NodeTerm>)>,
    /// By policy: nodes that it keeps for others.
    pub excluded: Vec<(Symbol, NodeTerm)>,
    /// Weights and what is liked.
    pub preferred: Vec<(i32, NodeTerm)>,
    /// Bounds of usage of CPU and memory, in per cent.
    pub thresholds: Option<[Option<i64>; 2]>,
}

/// Why a policy keeps a pod from a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It sends the pod elsewhere.
    Elsewhere(Symbol),
    /// It keeps the node for others.
    SetApart(Symbol),
}

impl NodeRules {
    /// The policy, if any, that keeps pods from the node.
    #[must_use]
    pub fn refuses(
        &self,
        name: Symbol,
        labels: &[(Symbol, Symbol)],
        symbols: &Symbols,
    ) -> Option<Refusal> {
        let matches = |term: &NodeTerm| term.matches(name, labels, symbols);
        let elsewhere = self
            .required
            .iter()
            .find(|(_, terms)| !terms.iter().any(matches))
            .map(|(policy, _)| Refusal::Elsewhere(*policy));
        let apart = || {
            let excluded = self.excluded.iter().find(|(_, term)| matches(term));
            excluded.map(|(policy, _)| Refusal::SetApart(*policy))
        };
        elsewhere.or_else(apart)
    }

    /// Summed weight of what is liked of the node.
    #[must_use]
    pub fn preference(&self, name: Symbol, labels: &[(Symbol, Symbol)], symbols: &Symbols) -> i64 {
        let liked = self
            .preferred
            .iter()
            .filter(|(_, term)| term.matches(name, labels, symbols));
        liked.map(|(weight, _)| i64::from(*weight)).sum()
    }

    /// The same without what changes no node's being allowed.
    #[must_use]
    pub fn restrictions(&self) -> Self {
        Self {
            required: self.required.clone(),
            excluded: self.excluded.clone(),
            ..Self::default()
        }
    }
}

struct Neighbour {
    avoid: bool,
    /// `None`: required.
    weight: Option<i64>,
    selector: Selector,
    namespaces: Vec<Symbol>,
    key: Symbol,
}

/// A policy, compiled.
pub struct Policy {
    pub name: Symbol,
    priority: i32,
    namespaces: Vec<Symbol>,
    apps: Vec<Symbol>,
    levels: Vec<Level>,
    selector: Selector,
    /// Key, skew, hard.
    spread: Vec<(Symbol, i64, bool)>,
    packing: Option<PackingStrategy>,
    neighbours: Vec<Neighbour>,
    pools: Vec<(Symbol, NodeTerm)>,
    exclusive: Option<(NodeTerm, ExclusiveScope)>,
    thresholds: Option<[Option<i64>; 2]>,
    hardware: Option<NodeTerm>,
    preferred: Vec<(i32, NodeTerm)>,
    numa: bool,
    /// What cannot be followed, in words.
    pub problems: Vec<String>,
}

/// Labels that policies read, as symbols.
#[derive(Clone, Copy)]
struct Words {
    app: Symbol,
    level: Symbol,
}

/// All policies, those that come first first.
#[derive(Default)]
pub struct Policies {
    all: Vec<Policy>,
    words: Option<Words>,
    /// Which policy was overruled in what by which, for some pod.
    pub overruled: BTreeSet<(Symbol, &'static str, Symbol)>,
}

/// What policies make of a request.
pub struct Applied {
    pub request: Request,
    /// The policies that select it.
    pub by: Vec<Symbol>,
    pub packing: Option<PackingStrategy>,
}

fn node_term(labels: Selector) -> NodeTerm {
    NodeTerm {
        labels,
        names: Vec::new(),
        empty: false,
    }
}

fn one_of(
    labels: &BTreeMap<String, Vec<String>>,
    field: &str,
    problems: &mut Vec<String>,
    symbols: &mut Symbols,
) -> NodeTerm {
    let mut all = Vec::new();
    for (key, values) in labels {
        if values.is_empty() {
            problems.push(format!(
                "spec.{field}[{key}] names no value: no node will do"
            ));
        }
        let mut values: Vec<Symbol> = values.iter().map(|v| symbols.intern(v)).collect();
        values.sort_unstable();
        all.push(Requirement::In(symbols.intern(key), values));
    }
    node_term(Selector::default().and(all))
}

/// Notes what is no selector; an operator that is not understood matches nothing.
fn check(selector: &LabelSelector, field: &str, problems: &mut Vec<String>) {
    for (at, e) in selector.match_expressions.iter().flatten().enumerate() {
        let values = e.values.as_ref().map_or(0, Vec::len);
        let fine = match e.operator.as_str() {
            "In" | "NotIn" => values > 0,
            "Exists" | "DoesNotExist" => values == 0,
            _ => false,
        };
        if !fine {
            problems.push(format!(
                "spec.{field}.matchExpressions[{at}]: {} {} with {values} values matches nothing",
                e.key, e.operator
            ));
        }
    }
}

impl Policy {
    fn compile(policy: &PlacementPolicy, compiler: &mut Compiler) -> Self {
        let spec = &policy.spec;
        let mut problems = Vec::new();
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let name = compiler.symbols.intern(name);
        let mut neighbours = Vec::new();
        for (field, avoid, list) in [("seek", false, &spec.seek), ("avoid", true, &spec.avoid)] {
            for (at, neighbour) in list.iter().enumerate() {
                let field = format!("{field}[{at}].selector");
                check(&neighbour.selector, &field, &mut problems);
                let symbols = &mut compiler.symbols;
                let mut namespaces: Vec<Symbol> = neighbour
                    .namespaces
                    .iter()
                    .map(|n| symbols.intern(n))
                    .collect();
                namespaces.sort_unstable();
                neighbours.push(Neighbour {
                    avoid,
                    weight: neighbour.weight.map(i64::from),
                    key: symbols.intern(&neighbour.topology_key),
                    namespaces,
                    selector: compiler.pod_selector(Some(&neighbour.selector)),
                });
            }
        }
        let selector = match &spec.pods.selector {
            None => Selector::default(),
            Some(selector) => {
                check(selector, "pods.selector", &mut problems);
                compiler.pod_selector(Some(selector))
            }
        };
        let symbols = &mut compiler.symbols;
        let hardware = spec.hardware.as_ref().filter(|h| !h.required.is_empty());
        let hardware =
            hardware.map(|h| one_of(&h.required, "hardware.required", &mut problems, symbols));
        let wishes = spec.hardware.iter().flat_map(|h| &h.preferred);
        let preferred = wishes
            .enumerate()
            .map(|(at, wish)| {
                let field = format!("hardware.preferred[{at}].labels");
                let term = one_of(&wish.labels, &field, &mut problems, symbols);
                (wish.weight, term)
            })
            .collect();
        let mut intern = |list: &[String]| list.iter().map(|n| symbols.intern(n)).collect();
        Self {
            name,
            priority: spec.priority,
            namespaces: intern(&spec.pods.namespaces),
            apps: intern(&spec.pods.apps),
            levels: spec.pods.levels.clone(),
            selector,
            spread: spec
                .spread
                .iter()
                .map(|rule| {
                    let hard = rule.when_unsatisfiable == Unsatisfiable::DoNotSchedule;
                    let key = symbols.intern(&rule.topology_key);
                    (key, i64::from(rule.max_skew.max(1)), hard)
                })
                .collect(),
            packing: spec.strategy,
            neighbours,
            pools: spec
                .pools
                .iter()
                .map(|pool| {
                    let term = node_term(Selector::from_map(&pool.node_selector, symbols));
                    (symbols.intern(&pool.name), term)
                })
                .collect(),
            exclusive: spec.exclusive.as_ref().map(|exclusive| {
                let term = node_term(Selector::from_map(&exclusive.node_selector, symbols));
                (term, exclusive.scope)
            }),
            thresholds: spec
                .load
                .map(|load| [load.cpu.map(i64::from), load.memory.map(i64::from)]),
            hardware,
            preferred,
            numa: spec.numa == Some(NumaAlignment::SingleNumaNode),
            problems,
        }
    }

    fn selects(&self, request: &Request, words: Words, symbols: &Symbols) -> bool {
        let group = &request.group;
        (self.namespaces.is_empty() || self.namespaces.contains(&group.namespace))
            && (self.apps.is_empty()
                || value_of(&group.labels, words.app).is_some_and(|app| self.apps.contains(&app)))
            && (self.levels.is_empty()
                || level(request, words, symbols).is_some_and(|l| self.levels.contains(&l)))
            && self.selector.matches(&group.labels, symbols)
    }

    /// Which pods spread together with one: those of its App, or all that the policy selects by labels.
    fn together(&self, request: &Request, words: Words) -> Selector {
        match value_of(&request.group.labels, words.app) {
            Some(app) => Selector::default().and([Requirement::In(words.app, vec![app])]),
            None => self.selector.clone(),
        }
    }

    /// The rules that it has, in the words of its fields.
    fn says(&self) -> Vec<&'static str> {
        let seeks = self.neighbours.iter().any(|n| !n.avoid);
        let avoids = self.neighbours.iter().any(|n| n.avoid);
        let all = [
            ("spread", !self.spread.is_empty()),
            ("strategy", self.packing.is_some()),
            ("seek", seeks),
            ("avoid", avoids),
            ("pools", !self.pools.is_empty()),
            ("exclusive", self.exclusive.is_some()),
            ("load", self.thresholds.is_some()),
            (
                "hardware",
                self.hardware.is_some() || !self.preferred.is_empty(),
            ),
            ("numa", self.numa),
        ];
        let said = all.into_iter().filter(|(_, said)| *said);
        said.map(|(field, _)| field).collect()
    }
}

/// The level of a pod: as it is labelled, else as its priority says.
fn level(request: &Request, words: Words, symbols: &Symbols) -> Option<Level> {
    match value_of(&request.group.labels, words.level) {
        Some(value) => {
            let text = symbols.text(value);
            Level::ALL.into_iter().find(|l| l.name() == text)
        }
        None => Level::of_priority(request.priority),
    }
}

impl Policies {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All, those that come first first.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.all.iter()
    }

    /// Whether one bounds usage.
    fn looks_at_load(&self) -> bool {
        self.all.iter().any(|p| p.thresholds.is_some())
    }

    fn set(&mut self, policy: &PlacementPolicy, compiler: &mut Compiler) {
        self.words.get_or_insert_with(|| Words {
            app: compiler.symbols.intern(labels::APP),
            level: compiler.symbols.intern(labels::LEVEL),
        });
        let policy = Policy::compile(policy, compiler);
        self.all.retain(|p| p.name != policy.name);
        self.all.push(policy);
        let symbols = &compiler.symbols;
        self.all.sort_by(|a, b| {
            let by_priority = b.priority.cmp(&a.priority);
            by_priority.then_with(|| symbols.text(a.name).cmp(symbols.text(b.name)))
        });
    }

    /// Writes the policies into a request.
    pub(super) fn apply(&mut self, base: &Request, symbols: &Symbols) -> Applied {
        let mut request = base.clone();
        let (mut by, mut packing) = (Vec::new(), None);
        let Some(words) = self.words else {
            return Applied {
                request,
                by,
                packing,
            };
        };
        let mut rules = NodeRules::default();
        let mut said: BTreeMap<&'static str, Symbol> = BTreeMap::new();
        let mut keys: BTreeMap<Symbol, Symbol> = BTreeMap::new();
        let pinned = base.placement.pins().is_some();
        for policy in &self.all {
            if !policy.selects(base, words, symbols) {
                match &policy.exclusive {
                    // Whoever names its nodes has to run there, as a DaemonSet's pods do.
                    Some((term, ExclusiveScope::Nodes | ExclusiveScope::Both)) if !pinned => {
                        rules.excluded.push((policy.name, term.clone()));
                    }
                    _ => {}
                }
                continue;
            }
            by.push(policy.name);
            let overruled = &mut self.overruled;
            // Whether the policy is the first to say this.
            let mut first = |rule: &'static str| {
                let winner = *said.entry(rule).or_insert(policy.name);
                if winner != policy.name {
                    overruled.insert((policy.name, rule, winner));
                }
                winner == policy.name
            };
            if policy.packing.is_some() && first("strategy") {
                packing = policy.packing;
            }
            if !policy.pools.is_empty() && first("pools") {
                let terms = policy.pools.iter().map(|(_, term)| term.clone());
                rules.required.push((policy.name, terms.collect()));
                request.pools.clone_from(&policy.pools);
            }
            if policy.thresholds.is_some() && first("load") {
                rules.thresholds = policy.thresholds;
            }
            if let Some((term, ExclusiveScope::Pods | ExclusiveScope::Both)) = &policy.exclusive {
                rules.required.push((policy.name, vec![term.clone()]));
            }
            if let Some(term) = &policy.hardware {
                rules.required.push((policy.name, vec![term.clone()]));
            }
            rules.preferred.extend(policy.preferred.iter().cloned());
            request.numa |= policy.numa;
            for (key, max_skew, hard) in &policy.spread {
                let winner = *keys.entry(*key).or_insert(policy.name);
                if winner != policy.name {
                    self.overruled.insert((policy.name, "spread", winner));
                    continue;
                }
                // The system's defaults are for pods of which nobody says anything.
                if std::mem::take(&mut request.default_spread) {
                    request.spread.clear();
                }
                // A wish of the pod's own is more to the point than one of the policy.
                if !hard && request.spread.iter().any(|own| own.key == *key) {
                    continue;
                }
                request.spread.push(Spread {
                    key: *key,
                    selector: policy.together(base, words),
                    max_skew: *max_skew,
                    min_domains: 1,
                    hard: *hard,
                    honor_affinity: true,
                    honor_taints: true,
                });
            }
            for neighbour in &policy.neighbours {
                let names = if neighbour.namespaces.is_empty() {
                    vec![base.group.namespace]
                } else {
                    neighbour.namespaces.clone()
                };
                let term = Term {
                    selector: neighbour.selector.clone(),
                    namespaces: Namespaces {
                        names,
                        selected: None,
                    },
                    key: neighbour.key,
                };
                match (neighbour.weight, neighbour.avoid) {
                    (None, true) => request.anti_affinity.push(term),
                    (None, false) => request.affinity.push(term),
                    (Some(weight), true) => request.preferred.push((-weight, term)),
                    (Some(weight), false) => request.preferred.push((weight, term)),
                }
            }
        }
        if rules != NodeRules::default() {
            request.placement.rules = Some(Arc::new(rules));
        }
        Applied {
            request,
            by,
            packing,
        }
    }
}

#[cfg(test)]
mod tests;
