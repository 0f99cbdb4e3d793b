//! Profiles: what one scheduler name changes about the rules. A profile says how nodes are scored, how pods without
//! constraints of their own spread, and how preemption goes about it; the default is kube-scheduler's.

use super::load::LoadArgs;
use super::selector::NodeTerm;
use super::symbols::{Symbol, Symbols};
use k8s_openapi::api::core::v1 as k8s;

/// An index into [`super::Cluster::profiles`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ProfileId(pub u8);

/// A rule that scores nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Rule {
    Fit,
    Balance,
    Taints,
    NodeAffinity,
    Spread,
    PodAffinity,
    Images,
    Load,
    Policy,
    Services,
    Numa,
    Devices,
}

/// All rules, in the order in which scores are told.
pub const RULES: [Rule; 12] = [
    Rule::Fit,
    Rule::Balance,
    Rule::Taints,
    Rule::NodeAffinity,
    Rule::Spread,
    Rule::PodAffinity,
    Rule::Images,
    Rule::Load,
    Rule::Policy,
    Rule::Services,
    Rule::Numa,
    Rule::Devices,
];

impl Rule {
    /// The name of the plugin: kube-scheduler's, or the one that is best known for it.
    #[must_use]
    pub const fn plugin(self) -> &'static str {
        match self {
            Self::Fit => "NodeResourcesFit",
            Self::Balance => "NodeResourcesBalancedAllocation",
            Self::Taints => "TaintToleration",
            Self::NodeAffinity => "NodeAffinity",
            Self::Spread => "PodTopologySpread",
            Self::PodAffinity => "InterPodAffinity",
            Self::Images => "ImageLocality",
            Self::Load => "LoadAwareScheduling",
            Self::Policy => "PlacementPolicy",
            Self::Services => "ServiceProfile",
            Self::Numa => "NodeResourceTopologyMatch",
            Self::Devices => "DynamicResources",
        }
    }

    /// Its weight in the default profile.
    #[must_use]
    pub const fn default_weight(self) -> i64 {
        match self {
            Self::Taints => 3,
            Self::NodeAffinity
            | Self::Spread
            | Self::PodAffinity
            | Self::Policy
            | Self::Devices => 2,
            Self::Fit | Self::Balance | Self::Images => 1,
            Self::Load | Self::Services | Self::Numa => 0,
        }
    }
}

/// How much each rule weighs; 0 switches its score off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weights(pub [i64; RULES.len()]);

impl Default for Weights {
    fn default() -> Self {
        Self(RULES.map(Rule::default_weight))
    }
}

impl Weights {
    /// The weight of a rule.
    #[must_use]
    pub const fn of(&self, rule: Rule) -> i64 {
        self.0[rule as usize]
    }

    /// Sets the weight of a rule.
    pub const fn set(&mut self, rule: Rule, weight: i64) {
        self.0[rule as usize] = weight;
    }
}

/// How room is scored (`NodeResourcesFitArgs.scoringStrategy.type`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Strategy {
    /// Emptier nodes first.
    #[default]
    LeastAllocated,
    /// Fuller nodes first.
    MostAllocated,
    /// By points of (utilisation in per cent, score 0 to 100), joined by straight lines.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

impl Strategy {
    /// The score of one resource of which `used` of `capacity` would be taken.
    #[must_use]
    pub fn score(&self, used: i64, capacity: i64) -> i64 {
        match self {
            Self::LeastAllocated if used > capacity => 0,
            Self::LeastAllocated => percent(capacity - used, capacity),
            Self::MostAllocated => percent(used.min(capacity), capacity),
            Self::RequestedToCapacityRatio(points) => {
                let used = if used > capacity {
                    100
                } else {
                    percent(used, capacity)
                };
                broken_line(points, used)
            }
        }
    }
}

fn percent(part: i64, whole: i64) -> i64 {
    let percent = i128::from(part.max(0)) * 100 / i128::from(whole.max(1));
    i64::try_from(percent).unwrap_or(100)
}

fn broken_line(points: &[(i64, i64)], at: i64) -> i64 {
    let mut before: Option<(i64, i64)> = None;
    for (x, y) in points {
        if at <= *x {
            return match before {
                Some((x0, y0)) if *x > x0 => y0 + (y - y0) * (at - x0) / (x - x0),
                _ => *y,
            };
        }
        before = Some((*x, *y));
    }
    before.map_or(0, |(_, y)| y)
}

/// How NUMA nodes are scored (`NodeResourceTopologyMatchArgs.scoringStrategy.type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NumaStrategy {
    #[default]
    LeastAllocated,
    MostAllocated,
    BalancedAllocation,
}

/// The same with the weights of resources; those that are not named weigh 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NumaScore<R> {
    pub strategy: NumaStrategy,
    pub resources: Vec<(R, i64)>,
}

impl<R> Default for NumaScore<R> {
    fn default() -> Self {
        Self {
            strategy: NumaStrategy::default(),
            resources: Vec::new(),
        }
    }
}

/// How pods spread that say nothing about it (`PodTopologySpreadArgs`).
#[derive(Clone, PartialEq, Debug, Default)]
pub enum DefaultSpread {
    /// Softly over hosts and zones.
    #[default]
    System,
    /// By these constraints; none switches it off.
    List(Vec<k8s::TopologySpreadConstraint>),
}

/// A profile as it is configured.
#[derive(Clone, PartialEq, Debug)]
pub struct Profile {
    /// Pods with this `spec.schedulerName` are placed by it.
    pub scheduler_name: String,
    pub weights: Weights,
    pub strategy: Strategy,
    /// Resources that the strategy scores, with their weights.
    pub resources: Vec<(String, i64)>,
    /// Resources whose use is to be balanced.
    pub balanced: Vec<String>,
    /// Extended resources that fit does not look at: by name, by group (`example.com`).
    pub ignored: Vec<String>,
    pub ignored_groups: Vec<String>,
    /// Whether spread constraints, pod affinity terms and preemption take part.
    pub spread: bool,
    pub pod_affinity: bool,
    /// Whether claims to devices are looked at (DynamicResources).
    pub devices: bool,
    pub preemption: bool,
    /// What required affinity of placed pods is worth to those whom they seek.
    pub hard_affinity_weight: i64,
    /// Pods without preferences of their own are not drawn by those of placed pods.
    pub ignore_preferences_of_placed: bool,
    pub default_spread: DefaultSpread,
    /// Node affinity that every pod of the profile has in addition.
    pub added_affinity: Option<k8s::NodeAffinity>,
    /// Nodes that are scored at least, of those that have room, in per cent of all (`percentageOfNodesToScore`); `None`: the
    /// best-ranked two dozen, which where the rank is the score are the best of all.
    pub scored: Option<usize>,
    /// Nodes on which preemption is worked out: per cent of those possible, and at least.
    pub trials: (usize, usize),
    /// How real usage is looked at; `None`: not at all.
    pub load: Option<LoadArgs>,
    /// How NUMA nodes are scored, where that weighs anything.
    pub numa: NumaScore<String>,
    /// How long volumes may take to be bound.
    pub bind_timeout_seconds: u64,
    /// How long drivers may take to make devices ready that pods are bound for.
    pub device_timeout_seconds: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Self::named("default-scheduler")
    }
}

impl Profile {
    /// The default profile under a name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        let both = || ["cpu", "memory"].map(ToOwned::to_owned);
        Self {
            scheduler_name: name.into(),
            weights: Weights::default(),
            strategy: Strategy::default(),
            resources: both().map(|name| (name, 1)).into(),
            balanced: both().into(),
            ignored: Vec::new(),
            ignored_groups: Vec::new(),
            spread: true,
            pod_affinity: true,
            devices: true,
            preemption: true,
            hard_affinity_weight: 1,
            ignore_preferences_of_placed: false,
            default_spread: DefaultSpread::System,
            added_affinity: None,
            // kube-scheduler looks at 10 % of the nodes; what is found on a hundred is hardly ever worse.
            scored: None,
            trials: (0, 100),
            load: None,
            numa: NumaScore::default(),
            bind_timeout_seconds: 600,
            device_timeout_seconds: 600,
        }
    }
}

/// A resource that is scored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    Cpu,
    Memory,
    Storage,
    Other(Symbol),
}

impl Resource {
    fn named(name: &str, symbols: &mut Symbols) -> Self {
        match name {
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            "ephemeral-storage" => Self::Storage,
            other => Self::Other(symbols.intern(other)),
        }
    }
}

/// A profile with its names resolved.
#[derive(Clone, Debug)]
pub struct Rules {
    pub profile: Profile,
    pub resources: Vec<(Resource, i64)>,
    pub balanced: Vec<Resource>,
    /// Node affinity added to every pod's: required, preferred.
    pub added: Option<Vec<NodeTerm>>,
    pub added_preferred: Vec<(i32, NodeTerm)>,
    /// Room is scored as in the default profile, for which there is a short way.
    pub plain: bool,
    pub numa: NumaScore<Resource>,
    /// The highest score by room, taints, node affinity, usage and placement policies.
    pub top: i64,
}

impl Rules {
    /// Resolves a profile.
    pub fn resolve(profile: Profile, symbols: &mut Symbols) -> Self {
        let plain = {
            let plain = Profile::default();
            profile.strategy == plain.strategy
                && profile.resources == plain.resources
                && profile.balanced == plain.balanced
                && [Rule::Fit, Rule::Balance].map(|r| profile.weights.of(r)) == [1, 1]
        };
        let weights = &profile.weights;
        let top = [
            Rule::Fit,
            Rule::Balance,
            Rule::Taints,
            Rule::NodeAffinity,
            Rule::Load,
            Rule::Policy,
        ];
        let top = 100 * top.map(|r| weights.of(r)).iter().sum::<i64>();
        let added = profile.added_affinity.as_ref();
        let required = added.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let preferred = added.and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        Self {
            resources: profile
                .resources
                .iter()
                .map(|(name, weight)| (Resource::named(name, symbols), *weight))
                .collect(),
            balanced: profile
                .balanced
                .iter()
                .map(|name| Resource::named(name, symbols))
                .collect(),
            added: required.map(|r| {
                r.node_selector_terms
                    .iter()
                    .map(|t| NodeTerm::compile(t, symbols))
                    .collect()
            }),
            added_preferred: preferred
                .into_iter()
                .flatten()
                .map(|p| (p.weight, NodeTerm::compile(&p.preference, symbols)))
                .collect(),
            numa: NumaScore {
                strategy: profile.numa.strategy,
                resources: profile
                    .numa
                    .resources
                    .iter()
                    .map(|(name, weight)| (Resource::named(name, symbols), *weight))
                    .collect(),
            },
            plain,
            top,
            profile,
        }
    }

    /// The extended resources that scores look at.
    pub fn extended(&self) -> impl Iterator<Item = Symbol> + '_ {
        let resources = self.resources.iter().map(|(resource, _)| resource);
        let all = resources.chain(&self.balanced);
        all.filter_map(|resource| match resource {
            Resource::Other(name) => Some(*name),
            _ => None,
        })
    }

    /// The weight of a rule.
    #[must_use]
    pub const fn weight(&self, rule: Rule) -> i64 {
        self.profile.weights.of(rule)
    }

    /// Whether fit does not look at an extended resource.
    #[must_use]
    pub fn ignores(&self, resource: &str) -> bool {
        self.profile.ignored.iter().any(|name| name == resource)
            || resource
                .split_once('/')
                .is_some_and(|(group, _)| self.profile.ignored_groups.iter().any(|g| g == group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_score_what_would_be_used() {
        let line = Strategy::RequestedToCapacityRatio(vec![(0, 0), (50, 100), (100, 20)]);
        for (strategy, used, capacity, want) in [
            (Strategy::LeastAllocated, 25, 100, 75),
            (Strategy::LeastAllocated, 120, 100, 0),
            (Strategy::MostAllocated, 25, 100, 25),
            (Strategy::MostAllocated, 120, 100, 100),
            (line.clone(), 25, 100, 50),
            (line.clone(), 50, 100, 100),
            (line.clone(), 75, 100, 60),
            (line.clone(), 300, 100, 20),
            (Strategy::MostAllocated, i64::MAX / 2, i64::MAX, 49),
            (
                Strategy::RequestedToCapacityRatio(vec![(40, 70)]),
                10,
                100,
                70,
            ),
        ] {
            assert_eq!(
                strategy.score(used, capacity),
                want,
                "{strategy:?} {used}/{capacity}"
            );
        }
    }
}
