//! What a pod asks of its node, in a form that compares and hashes: pods with equal requests share one class.

mod compile;
mod features;
mod resources;

use super::devices::{Extended, PodClaims};
use super::numa::Asks;
use super::policy::{NodeRules, Refusal};
use super::profile::ProfileId;
use super::selector::{Namespaces, NodeTerm, Selector};
use super::symbols::{Labels, Symbol, Symbols, value_of};
use super::volumes::Disk;
pub use compile::{Compiler, UNIQUE_LABELS};
pub use features::Features;
pub use resources::amount;
use std::sync::Arc;

/// Pods that no selector tells apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GroupKey {
    pub namespace: Symbol,
    pub labels: Labels,
    /// Spread does not count pods that are going away; affinity does.
    pub terminating: bool,
}

/// Millicores, bytes, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Amounts {
    pub cpu: i64,
    pub memory: i64,
    pub storage: i64,
}

/// Requested resources.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Shape {
    pub base: Amounts,
    /// CPU and memory as scores count them, with assumed values where a container requests none.
    pub assumed: [i64; 2],
    /// Extended resources and huge pages, in units, sorted.
    pub other: Vec<(Symbol, i64)>,
}

/// A toleration.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Toleration {
    pub key: Option<Symbol>,
    /// `None` is `Exists`.
    pub value: Option<Symbol>,
    pub effect: Option<Effect>,
}

/// What a taint does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl Effect {
    /// An effect by its API name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }
}

/// A taint of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Taint {
    pub key: Symbol,
    pub value: Symbol,
    pub effect: Effect,
}

impl Toleration {
    /// Whether the taint is tolerated.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && self.key.is_none_or(|k| k == taint.key)
            && self.value.is_none_or(|v| v == taint.value)
    }
}

/// What depends on nothing but the node itself: selector, affinity, taints.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Placement {
    pub selector: Labels,
    /// Terms of required node affinity, of which one must match.
    pub required: Option<Vec<NodeTerm>>,
    pub preferred: Vec<(i32, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    /// Whose weights and added node affinity count.
    pub profile: ProfileId,
    /// Node affinity that the profile adds.
    pub added: Option<Vec<NodeTerm>>,
    /// What placement policies say of nodes.
    pub rules: Option<Arc<NodeRules>>,
    /// What the node must have declared that it can do.
    pub features: Features,
}

impl Placement {
    /// The only nodes that can match, if every required term names nodes (as a DaemonSet's pods do).
    #[must_use]
    pub fn pins(&self) -> Option<Vec<Symbol>> {
        let terms = self.required.as_ref().filter(|terms| !terms.is_empty())?;
        let mut names = Vec::new();
        for term in terms {
            names.extend(term.pins()?);
        }
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    /// Node selector and required node affinity.
    #[must_use]
    pub fn selects(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> bool {
        self.selector
            .iter()
            .all(|(k, v)| value_of(labels, *k) == Some(*v))
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels, symbols)))
    }

    /// Node affinity that the profile adds.
    #[must_use]
    pub fn added_selects(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> bool {
        self.added
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels, symbols)))
    }

    /// The placement policy, if any, that keeps pods from the node.
    #[must_use]
    pub fn refused(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> Option<Refusal> {
        self.rules.as_ref()?.refuses(name, labels, symbols)
    }

    /// Whether every taint that keeps pods away is tolerated.
    #[must_use]
    pub fn tolerates(&self, taints: &[Taint]) -> bool {
        taints
            .iter()
            .filter(|t| t.effect != Effect::PreferNoSchedule)
            .all(|t| {
                self.tolerations
                    .iter()
                    .any(|toleration| toleration.tolerates(t))
            })
    }

    /// Taints that ask pods to stay away and are not tolerated.
    #[must_use]
    pub fn disliked(&self, taints: &[Taint]) -> i64 {
        let count = taints
            .iter()
            .filter(|t| t.effect == Effect::PreferNoSchedule)
            .filter(|t| {
                !self
                    .tolerations
                    .iter()
                    .any(|toleration| toleration.tolerates(t))
            })
            .count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// Whether it prefers some nodes to others.
    #[must_use]
    pub fn prefers(&self) -> bool {
        !self.preferred.is_empty() || self.rules.as_ref().is_some_and(|r| !r.preferred.is_empty())
    }

    /// Summed weight of what placement policies like of the node.
    #[must_use]
    pub fn policy_preference(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> i64 {
        let rules = self.rules.as_ref();
        rules.map_or(0, |r| r.preference(name, labels, symbols))
    }

    /// Summed weight of the preferred node affinity terms that match.
    #[must_use]
    pub fn preference(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> i64 {
        // An empty preferred term matches every node, unlike a required one; it then changes no order.
        self.preferred
            .iter()
            .filter(|(_, t)| t.matches(name, labels, symbols))
            .map(|(w, _)| i64::from(*w))
            .sum()
    }
}

/// A port taken on the node.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// `None` is every address.
    pub address: Option<Symbol>,
    pub protocol: Symbol,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be taken on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}

/// A pod (anti-)affinity term.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Term {
    pub selector: Selector,
    pub namespaces: Namespaces,
    pub key: Symbol,
}

/// A topology spread constraint.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Spread {
    pub key: Symbol,
    pub selector: Selector,
    pub max_skew: i64,
    pub min_domains: i64,
    /// `DoNotSchedule`.
    pub hard: bool,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

/// A claim that a pod mounts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClaimUse {
    /// `namespace/name`.
    pub key: Symbol,
    /// Made for this pod alone (a generic ephemeral volume): the pod's uid.
    pub pod: Option<Arc<str>>,
}

/// All that decides where a pod may and should go. Pods with equal requests are interchangeable to the scheduler.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    pub group: GroupKey,
    pub priority: i32,
    /// May make pods of lower priority leave.
    pub preempts: bool,
    pub profile: ProfileId,
    pub placement: Placement,
    pub shape: Shape,
    pub ports: Vec<HostPort>,
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    /// Preferred terms; a negative weight is anti-affinity.
    pub preferred: Vec<(i64, Term)>,
    pub spread: Vec<Spread>,
    /// The constraints are the system's defaults: nodes without a topology label still take part.
    pub default_spread: bool,
    pub claims: Vec<ClaimUse>,
    /// Disks named without a claim.
    pub disks: Vec<Disk>,
    /// Images, one for each container.
    pub images: Vec<Symbol>,
    /// Claims to devices. They tell every pod that has some apart from all others.
    pub devices: Option<Arc<PodClaims>>,
    /// Extended resources that device classes may stand for.
    pub extended: Option<Arc<Extended>>,
    /// Pools to try one after another: names and nodes. None: all nodes at once.
    pub pools: Vec<(Symbol, NodeTerm)>,
    /// What has to be on one NUMA node, where it is aligned.
    pub asks: Option<Arc<Asks>>,
    /// One NUMA node is to hold all of it.
    pub numa: bool,
}
