//! Arguments of plugins (`pluginConfig`).

use super::ConfigError;
use super::plugins::{LOAD, NUMA};
use super::value::Node;
use crate::core::load::{LoadArgs, MEASURED, Source};
use crate::core::profile::{DefaultSpread, NumaScore, NumaStrategy, Profile, Strategy};
use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use std::time::Duration;

/// Reads the arguments of one plugin into its profile.
pub fn read(
    profile: &mut Profile,
    entry: &Node<'_>,
    notes: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let (name, args) = (entry.get("name"), entry.get("args"));
    let plugin = name.text()?.unwrap_or_default();
    let kind = args.get("kind");
    if kind.text()?.is_some_and(|k| k != format!("{plugin}Args")) {
        return Err(kind.wrong(format!("must be {plugin}Args")));
    }
    let only = |fields: &[&str]| {
        let all: Vec<&str> = ["apiVersion", "kind"]
            .iter()
            .chain(fields)
            .copied()
            .collect();
        args.only(&all)
    };
    match plugin {
        "NodeResourcesFit" => {
            only(&[
                "ignoredResources",
                "ignoredResourceGroups",
                "scoringStrategy",
            ])?;
            profile.ignored = args.get("ignoredResources").texts()?;
            profile.ignored_groups = args.get("ignoredResourceGroups").texts()?;
            strategy(profile, &args.get("scoringStrategy"))?;
        }
        "NodeResourcesBalancedAllocation" => {
            only(&["resources"])?;
            let resources = args.get("resources");
            if resources.is_there() {
                profile.balanced = weighed(&resources, 1)?
                    .into_iter()
                    .map(|(name, _)| name)
                    .collect();
            }
        }
        "InterPodAffinity" => {
            only(&[
                "hardPodAffinityWeight",
                "ignorePreferredTermsOfExistingPods",
            ])?;
            if let Some(weight) = args.get("hardPodAffinityWeight").number_in(0, 100)? {
                profile.hard_affinity_weight = weight;
            }
            let ignore = args.get("ignorePreferredTermsOfExistingPods").flag()?;
            profile.ignore_preferences_of_placed = ignore.unwrap_or_default();
        }
        "NodeAffinity" => {
            only(&["addedAffinity"])?;
            profile.added_affinity = args.get("addedAffinity").object::<NodeAffinity>()?;
        }
        "PodTopologySpread" => {
            only(&["defaultConstraints", "defaultingType"])?;
            spread(profile, &args)?;
        }
        "DefaultPreemption" => {
            only(&["minCandidateNodesPercentage", "minCandidateNodesAbsolute"])?;
            let percent = args.get("minCandidateNodesPercentage").number_in(0, 100)?;
            let least = args
                .get("minCandidateNodesAbsolute")
                .number_in(0, i64::from(i32::MAX))?;
            let count = |n: i64| usize::try_from(n).unwrap_or_default();
            profile.trials = (percent.map_or(10, count), least.map_or(100, count));
            if profile.trials == (0, 0) {
                let field = args.get("minCandidateNodesAbsolute");
                return Err(field.wrong("must not be 0 together with minCandidateNodesPercentage"));
            }
        }
        "VolumeBinding" => {
            only(&["bindTimeoutSeconds", "shape"])?;
            let shape = args.get("shape");
            if shape.is_there() {
                return Err(
                    shape.wrong("nodes are not scored by the room of their volumes; remove it")
                );
            }
            if let Some(seconds) = args.get("bindTimeoutSeconds").number_in(0, 86_400)? {
                profile.bind_timeout_seconds = seconds.unsigned_abs();
            }
        }
        LOAD => {
            only(&[
                "filterExpiredNodeMetrics",
                "enableScheduleWhenNodeMetricsExpired",
                "nodeMetricExpirationSeconds",
                "resourceWeights",
                "usageThresholds",
                "estimatedScalingFactors",
                "metricsSource",
            ])?;
            profile.load = Some(load(&args, notes)?);
        }
        NUMA => {
            only(&[
                "scoringStrategy",
                "cacheResyncPeriodSeconds",
                "discardReservedNodes",
                "cache",
            ])?;
            for field in ["cacheResyncPeriodSeconds", "discardReservedNodes", "cache"] {
                if args.get(field).is_there() {
                    let why = "pods count on every NUMA node until a report shows where they are";
                    notes.push(format!("{field} of {NUMA} has no effect: {why}"));
                }
            }
            profile.numa = numa(&args.get("scoringStrategy"))?;
        }
        "DynamicResources" => {
            only(&["filterTimeout", "bindingTimeout"])?;
            if args.get("filterTimeout").text()?.is_some() {
                let why = "the search for devices is bounded by its steps";
                notes.push(format!("filterTimeout of {plugin} has no effect: {why}"));
            }
            let timeout = args.get("bindingTimeout");
            let default = Duration::from_secs(profile.device_timeout_seconds);
            let seconds = timeout.duration(default)?.as_secs();
            if seconds == 0 {
                return Err(timeout.wrong("must be a second at least"));
            }
            profile.device_timeout_seconds = seconds;
        }
        _ if args.is_there() => {
            return Err(name.wrong(format!(
                "{plugin:?} is no plugin of kube-scheduler that takes arguments"
            )));
        }
        _ => notes.push(format!("pluginConfig of {plugin} is empty")),
    }
    Ok(())
}

/// How usage is looked at: Koordinator's LoadAwareSchedulingArgs as far as they are about a node's present usage, and
/// where the figures come from.
fn load(args: &Node<'_>, notes: &mut Vec<String>) -> Result<LoadArgs, ConfigError> {
    let mut load = LoadArgs::default();
    for (field, why) in [
        (
            "filterExpiredNodeMetrics",
            "measurements that are too old are ignored: requests count then",
        ),
        (
            "enableScheduleWhenNodeMetricsExpired",
            "nodes whose measurement is too old always take pods",
        ),
    ] {
        if args.get(field).is_there() {
            notes.push(format!("{field} of {LOAD} has no effect: {why}"));
        }
    }
    if let Some(seconds) = args
        .get("nodeMetricExpirationSeconds")
        .number_in(1, 86_400)?
    {
        load.expiry = seconds;
    }
    let by_resource = |field: &str, from: i64, to: i64| {
        let node = args.get(field);
        node.only(&MEASURED)?;
        let values = MEASURED.map(|name| node.get(name).number_in(from, to));
        let [cpu, memory] = values;
        Ok::<_, ConfigError>(node.is_there().then_some([cpu?, memory?]))
    };
    if let Some(weights) = by_resource("resourceWeights", 0, 100)? {
        load.weights = weights.map(Option::unwrap_or_default);
    }
    if let Some(thresholds) = by_resource("usageThresholds", 0, 100)? {
        // As Koordinator has it: 0 sets no bound.
        load.thresholds = thresholds.map(|t| t.filter(|t| *t > 0));
    }
    if let Some(factors) = by_resource("estimatedScalingFactors", 1, 100)? {
        for (slot, factor) in load.factors.iter_mut().zip(factors) {
            *slot = factor.unwrap_or(*slot);
        }
    }
    let source = args.get("metricsSource");
    load.source = match source.text()? {
        None | Some("metrics.k8s.io") => Source::MetricsApi,
        Some("slo.koordinator.sh") => Source::NodeMetric,
        Some(other) => {
            return Err(source.wrong(format!(
                "{other:?} is neither metrics.k8s.io nor slo.koordinator.sh"
            )));
        }
    };
    Ok(load)
}

/// Resources with their weights, which go up to `most`.
fn weighed(list: &Node<'_>, most: i64) -> Result<Vec<(String, i64)>, ConfigError> {
    let mut all: Vec<(String, i64)> = Vec::new();
    for node in list.list()? {
        node.only(&["name", "weight"])?;
        let name = node.get("name");
        let text = name.text()?.filter(|n| !n.is_empty());
        let text = text.ok_or_else(|| name.wrong("must name a resource"))?;
        if all.iter().any(|(known, _)| known == text) {
            return Err(name.wrong(format!("{text} is named twice")));
        }
        let weight = node.get("weight").number_in(1, most)?.unwrap_or(1);
        all.push((text.to_owned(), weight));
    }
    if all.is_empty() {
        return Err(list.wrong("must name a resource at least"));
    }
    Ok(all)
}

fn strategy(profile: &mut Profile, node: &Node<'_>) -> Result<(), ConfigError> {
    if !node.is_there() {
        return Ok(());
    }
    node.only(&["type", "resources", "requestedToCapacityRatio"])?;
    let resources = node.get("resources");
    if resources.is_there() {
        profile.resources = weighed(&resources, 100)?;
    }
    let (kind, ratio) = (node.get("type"), node.get("requestedToCapacityRatio"));
    profile.strategy = match kind.text()?.unwrap_or("LeastAllocated") {
        "LeastAllocated" => Strategy::LeastAllocated,
        "MostAllocated" => Strategy::MostAllocated,
        "RequestedToCapacityRatio" => Strategy::RequestedToCapacityRatio(shape(&ratio)?),
        other => {
            return Err(kind.wrong(format!(
                "{other:?} is not LeastAllocated, MostAllocated or RequestedToCapacityRatio"
            )));
        }
    };
    if ratio.is_there() && !matches!(profile.strategy, Strategy::RequestedToCapacityRatio(_)) {
        return Err(ratio.wrong("goes only with type RequestedToCapacityRatio"));
    }
    Ok(())
}

fn numa(node: &Node<'_>) -> Result<NumaScore<String>, ConfigError> {
    let mut numa = NumaScore::default();
    if !node.is_there() {
        return Ok(numa);
    }
    node.only(&["type", "resources"])?;
    let resources = node.get("resources");
    if resources.is_there() {
        numa.resources = weighed(&resources, 100)?;
    }
    let kind = node.get("type");
    numa.strategy = match kind.text()?.unwrap_or("LeastAllocated") {
        "LeastAllocated" => NumaStrategy::LeastAllocated,
        "MostAllocated" => NumaStrategy::MostAllocated,
        "BalancedAllocation" => NumaStrategy::BalancedAllocation,
        other => {
            return Err(kind.wrong(format!(
                "{other:?} is not LeastAllocated, MostAllocated or BalancedAllocation"
            )));
        }
    };
    Ok(numa)
}

fn shape(node: &Node<'_>) -> Result<Vec<(i64, i64)>, ConfigError> {
    node.only(&["shape"])?;
    let shape = node.get("shape");
    let mut points: Vec<(i64, i64)> = Vec::new();
    for point in shape.list()? {
        point.only(&["utilization", "score"])?;
        let field = point.get("utilization");
        let utilization = field.number_in(0, 100)?.unwrap_or_default();
        if points.last().is_some_and(|(last, _)| *last >= utilization) {
            return Err(field.wrong("must rise from point to point"));
        }
        // Given from 0 to 10.
        let score = point.get("score").number_in(0, 10)?.unwrap_or_default();
        points.push((utilization, score * 10));
    }
    if points.is_empty() {
        return Err(shape.wrong("must have a point at least"));
    }
    Ok(points)
}

fn spread(profile: &mut Profile, args: &Node<'_>) -> Result<(), ConfigError> {
    let (kind, list) = (args.get("defaultingType"), args.get("defaultConstraints"));
    let mut constraints = Vec::new();
    for node in list.list()? {
        let constraint: Option<TopologySpreadConstraint> = node.object()?;
        let Some(constraint) = constraint else {
            continue;
        };
        if constraint.label_selector.is_some() {
            let field = node.get("labelSelector");
            return Err(
                field.wrong("must be absent: it is taken from the pod's services and owner")
            );
        }
        if constraint.max_skew < 1 {
            return Err(node.get("maxSkew").wrong("must be above 0"));
        }
        if constraint.topology_key.is_empty() {
            return Err(node.get("topologyKey").wrong("must name a node label"));
        }
        if !matches!(
            constraint.when_unsatisfiable.as_str(),
            "DoNotSchedule" | "ScheduleAnyway"
        ) {
            let field = node.get("whenUnsatisfiable");
            return Err(field.wrong("must be DoNotSchedule or ScheduleAnyway"));
        }
        constraints.push(constraint);
    }
    profile.default_spread = match kind.text()?.unwrap_or("System") {
        "System" if constraints.is_empty() => DefaultSpread::System,
        "System" => {
            return Err(list.wrong("goes only with defaultingType List"));
        }
        "List" => DefaultSpread::List(constraints),
        other => return Err(kind.wrong(format!("{other:?} is neither List nor System"))),
    };
    Ok(())
}
