//! A profile's plugins: which of kube-scheduler's are on, and how much their scores weigh.

use super::ConfigError;
use super::args;
use super::value::Node;
use crate::core::profile::{Profile, RULES, Rule};

/// Usage is looked at under Koordinator's name for it, with its arguments.
pub(super) const LOAD: &str = "LoadAwareScheduling";

/// Hours of services are learned and looked at under this name; it has no arguments.
const SERVICES: &str = "ServiceProfile";

/// NUMA nodes are scored under scheduler-plugins' name for it, with its arguments; they are always looked at.
pub(super) const NUMA: &str = "NodeResourceTopologyMatch";

/// kube-scheduler's own plugins, [`LOAD`], [`SERVICES`] and [`NUMA`].
const KNOWN: [&str; 23] = [
    "SchedulingGates",
    "PrioritySort",
    "NodeUnschedulable",
    "NodeName",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeBinding",
    "VolumeZone",
    "PodTopologySpread",
    "InterPodAffinity",
    "DynamicResources",
    "NodeDeclaredFeatures",
    "DefaultPreemption",
    "NodeResourcesBalancedAllocation",
    "ImageLocality",
    "DefaultBinder",
    LOAD,
    SERVICES,
    NUMA,
];

/// The extension points.
const POINTS: [&str; 13] = [
    "preEnqueue",
    "queueSort",
    "preFilter",
    "filter",
    "postFilter",
    "preScore",
    "score",
    "reserve",
    "permit",
    "preBind",
    "bind",
    "postBind",
    "multiPoint",
];

fn rule(plugin: &str) -> Option<Rule> {
    RULES.into_iter().find(|rule| rule.plugin() == plugin)
}

/// `percentageOfNodesToScore` of the configuration or of a profile.
pub fn share(node: &Node<'_>) -> Result<Option<usize>, ConfigError> {
    let percent = node.get("percentageOfNodesToScore").number_in(0, 100)?;
    Ok(percent.and_then(|percent| usize::try_from(percent).ok()))
}

/// Reads one of `profiles`; `of_all` is what the configuration says for all about nodes that are scored.
pub fn profile(
    node: &Node<'_>,
    of_all: Option<usize>,
    notes: &mut Vec<String>,
) -> Result<Profile, ConfigError> {
    node.only(&[
        "schedulerName",
        "percentageOfNodesToScore",
        "plugins",
        "pluginConfig",
    ])?;
    let name = node.get("schedulerName").text()?.filter(|n| !n.is_empty());
    let mut profile = Profile::named(name.unwrap_or("default-scheduler"));
    // Null and 0 leave it to the whole configuration's, and that to the scheduler.
    let own = share(node)?.filter(|percent| *percent > 0);
    profile.scored = own.or(of_all).filter(|percent| *percent > 0);
    let plugins = node.get("plugins");
    let mut load = Load::default();
    plugins.only(&POINTS)?;
    // What holds for all points comes first, single points then differ from it.
    for point in ["multiPoint"]
        .iter()
        .chain(POINTS.iter().filter(|p| **p != "multiPoint"))
    {
        let set = plugins.get(point);
        set.only(&["enabled", "disabled"])?;
        for entry in set.get("disabled").list()? {
            entry.only(&["name", "weight"])?;
            if load.turn(point, &entry, false)? {
                continue;
            }
            disable(&mut profile, point, &entry.get("name"))?;
        }
        for entry in set.get("enabled").list()? {
            entry.only(&["name", "weight"])?;
            if load.turn(point, &entry, true)? {
                continue;
            }
            enable(&mut profile, point, &entry)?;
        }
    }
    for entry in node.get("pluginConfig").list()? {
        entry.only(&["name", "args"])?;
        args::read(&mut profile, &entry, notes)?;
    }
    load.settle(&mut profile, notes);
    Ok(profile)
}

/// Whether usage is looked at, and for what.
#[derive(Default)]
struct Load {
    filter: bool,
    weight: i64,
}

impl Load {
    /// Takes an entry about usage; all others are not its own.
    fn turn(&mut self, point: &str, entry: &Node<'_>, on: bool) -> Result<bool, ConfigError> {
        let name = entry.get("name").text()?.unwrap_or_default();
        if name != LOAD && (on || name != "*") {
            return Ok(false);
        }
        let weight = entry.get("weight").number_in(0, 100)?;
        let weight = weight.filter(|w| *w > 0).unwrap_or(1);
        if matches!(point, "filter" | "multiPoint") {
            self.filter = on;
        }
        if matches!(point, "score" | "multiPoint") {
            self.weight = if on { weight } else { 0 };
        }
        Ok(name == LOAD)
    }

    fn settle(self, profile: &mut Profile, notes: &mut Vec<String>) {
        if self.weight == 0 && !self.filter {
            if profile.load.take().is_some() {
                notes.push(format!(
                    "pluginConfig of {LOAD} has no effect in {}: the plugin is not enabled",
                    profile.scheduler_name
                ));
            }
            return;
        }
        let load = profile.load.get_or_insert_default();
        if !self.filter {
            load.thresholds = [None; 2];
        }
        profile.weights.set(Rule::Load, self.weight);
    }
}

fn enable(profile: &mut Profile, point: &str, entry: &Node<'_>) -> Result<(), ConfigError> {
    let name = entry.get("name");
    let plugin = name.text()?.unwrap_or_default();
    if !KNOWN.contains(&plugin) {
        return Err(name.wrong(format!(
            "{plugin:?} is no plugin of kube-scheduler, nor {LOAD}, {SERVICES} or {NUMA}; others cannot be loaded"
        )));
    }
    let weight = entry.get("weight");
    let value = weight.number_in(0, 100)?;
    if matches!(point, "score" | "multiPoint") {
        if let Some(rule) = rule(plugin) {
            // As kube-scheduler has it: named without a weight, a plugin weighs one; in multiPoint it keeps its own.
            match value.filter(|w| *w > 0) {
                Some(value) => profile.weights.set(rule, value),
                None if plugin == SERVICES || plugin == NUMA => profile.weights.set(rule, 1),
                None if point == "score" => profile.weights.set(rule, 1),
                None => {}
            }
        } else if value.is_some_and(|w| w > 0) {
            return Err(weight.wrong(format!("{plugin} gives no scores here")));
        }
    }
    match (point, plugin) {
        ("postFilter" | "multiPoint", "DefaultPreemption") => profile.preemption = true,
        ("multiPoint", "PodTopologySpread") => profile.spread = true,
        ("multiPoint", "InterPodAffinity") => profile.pod_affinity = true,
        ("multiPoint", "DynamicResources") => profile.devices = true,
        _ => {}
    }
    Ok(())
}

fn disable(profile: &mut Profile, point: &str, name: &Node<'_>) -> Result<(), ConfigError> {
    let plugin = name.text()?.unwrap_or_default();
    if plugin != "*" && !KNOWN.contains(&plugin) {
        // A plugin that is not there is off, whoever's it is.
        return Ok(());
    }
    match (point, plugin) {
        ("score", "*") => {
            for rule in RULES {
                profile.weights.set(rule, 0);
            }
        }
        ("score", _) => {
            if let Some(rule) = rule(plugin) {
                profile.weights.set(rule, 0);
            }
        }
        // Scores are prepared only where they are given.
        ("preScore", "*") => {}
        ("preScore", _) if rule(plugin).is_none_or(|r| profile.weights.of(r) == 0) => {}
        ("postFilter", "*" | "DefaultPreemption") | ("multiPoint", "DefaultPreemption") => {
            profile.preemption = false;
        }
        ("multiPoint", "PodTopologySpread") => {
            profile.spread = false;
            profile.weights.set(Rule::Spread, 0);
        }
        ("multiPoint", "InterPodAffinity") => {
            profile.pod_affinity = false;
            profile.weights.set(Rule::PodAffinity, 0);
        }
        ("multiPoint", "ImageLocality") => profile.weights.set(Rule::Images, 0),
        ("multiPoint", "NodeResourcesBalancedAllocation") => profile.weights.set(Rule::Balance, 0),
        ("multiPoint", SERVICES) => profile.weights.set(Rule::Services, 0),
        ("multiPoint", "DynamicResources") => {
            profile.devices = false;
            profile.weights.set(Rule::Devices, 0);
        }
        (_, "PodTopologySpread" | "InterPodAffinity") => {
            return Err(name.wrong(format!(
                "{plugin} can be switched off as a whole (in multiPoint) or in its score, not in {point} alone"
            )));
        }
        (_, "*") => {
            return Err(name.wrong(format!(
                "the plugins of {point} cannot be switched off altogether"
            )));
        }
        _ => {
            return Err(name.wrong(format!(
                "{plugin} cannot be switched off: nodes would be given pods that they refuse"
            )));
        }
    }
    Ok(())
}
