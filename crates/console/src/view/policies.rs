//! Placement policies of members.

use gantry_api::{
    PlacementPolicy,
    placement_policy::{ExclusiveScope, Neighbour, PlacementPolicySpec},
};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use super::{Listing, Params, matches, order, words};
use crate::model::State;

/// A policy as a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    /// The member.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// Of several policies the highest decides.
    pub priority: i32,
    /// Which pods, in the API's words; empty: all.
    pub pods: Vec<String>,
    /// What it says, in the API's words.
    pub says: Vec<String>,
    /// How many pods it selects.
    pub selected: i64,
    /// Whether placements follow all of it; `None`: no scheduler has looked at it as it is now.
    pub effective: Option<bool>,
    /// What of it cannot be followed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// The row of a policy.
pub fn row(cluster: &str, policy: &PlacementPolicy) -> PolicyRow {
    let status = policy.status.clone().unwrap_or_default();
    let current = status.observed_generation.is_some()
        && status.observed_generation == policy.metadata.generation;
    let effective = status.conditions.iter().find(|c| c.type_ == "Effective");
    PolicyRow {
        cluster: cluster.to_owned(),
        name: policy.name_any(),
        priority: policy.spec.priority,
        pods: chosen(&policy.spec),
        says: says(&policy.spec),
        selected: status.pods,
        effective: effective.filter(|_| current).map(|c| c.status == "True"),
        problems: status.problems,
        created: policy.creation_timestamp().map(|t| t.0),
    }
}

fn selector(of: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> String {
    let equal = of.match_labels.iter().flatten();
    let mut parts: Vec<String> = equal.map(|(k, v)| format!("{k}={v}")).collect();
    for rule in of.match_expressions.iter().flatten() {
        let values = rule.values.clone().unwrap_or_default().join("|");
        parts.push(
            format!("{} {} {values}", rule.key, rule.operator)
                .trim_end()
                .to_owned(),
        );
    }
    parts.join(",")
}

/// Which pods a policy is about; nothing: all.
fn chosen(spec: &PlacementPolicySpec) -> Vec<String> {
    let pods = &spec.pods;
    let mut parts = Vec::new();
    let mut list = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            parts.push(format!("{name} {}", values.join(", ")));
        }
    };
    list("namespaces", pods.namespaces.clone());
    list("apps", pods.apps.clone());
    list(
        "levels",
        pods.levels.iter().map(|l| l.name().to_owned()).collect(),
    );
    list("labels", pods.selector.iter().map(selector).collect());
    parts
}

/// What a policy says, a line a rule.
fn says(spec: &PlacementPolicySpec) -> Vec<String> {
    let mut all = Vec::new();
    for rule in &spec.spread {
        all.push(format!(
            "spread {} ≤ {} {:?}",
            rule.topology_key, rule.max_skew, rule.when_unsatisfiable
        ));
    }
    all.extend(spec.strategy.map(|s| format!("strategy {s:?}")));
    let neighbour = |verb: &str, n: &Neighbour| {
        let wish = n
            .weight
            .map_or("required".to_owned(), |w| format!("weight {w}"));
        format!(
            "{verb} {} / {} {wish}",
            selector(&n.selector),
            n.topology_key
        )
    };
    all.extend(spec.seek.iter().map(|n| neighbour("seek", n)));
    all.extend(spec.avoid.iter().map(|n| neighbour("avoid", n)));
    if !spec.pools.is_empty() {
        let names: Vec<&str> = spec.pools.iter().map(|p| p.name.as_str()).collect();
        all.push(format!("pools {}", names.join(" → ")));
    }
    if let Some(exclusive) = &spec.exclusive {
        let labels = exclusive.node_selector.iter();
        let labels: Vec<String> = labels.map(|(k, v)| format!("{k}={v}")).collect();
        let scope = match exclusive.scope {
            ExclusiveScope::Nodes => "Nodes",
            ExclusiveScope::Pods => "Pods",
            ExclusiveScope::Both => "Both",
        };
        all.push(format!("exclusive {} {scope}", labels.join(",")));
    }
    if let Some(load) = spec.load {
        let part = |name: &str, n: Option<i32>| n.map(|n| format!("{name} ≤ {n} %"));
        let parts = [part("cpu", load.cpu), part("memory", load.memory)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        all.push(format!("load {}", parts.join(", ")));
    }
    if let Some(hardware) = &spec.hardware {
        for (label, values) in &hardware.required {
            all.push(format!("hardware {label}: {}", values.join("|")));
        }
        for wish in &hardware.preferred {
            let labels = wish.labels.iter();
            let labels: Vec<String> = labels
                .map(|(k, v)| format!("{k}: {}", v.join("|")))
                .collect();
            all.push(format!(
                "hardware {} weight {}",
                labels.join(", "),
                wish.weight
            ));
        }
    }
    all.extend(spec.numa.map(|n| format!("numa {n:?}")));
    all
}

/// Policies by `cluster`, `state` (`problem`) and `q`, sorted by `sort`.
pub fn policies(state: &State, params: &Params) -> Listing<PolicyRow> {
    let (cluster, only, q) = (
        params.get("cluster"),
        params.get("state"),
        words(params.get("q")),
    );
    let mut found: Vec<(&str, &PlacementPolicy)> = Vec::new();
    for (name, member) in &state.members {
        if !cluster.is_empty() && name != cluster {
            continue;
        }
        for policy in member.policies.values() {
            let problems = policy
                .status
                .as_ref()
                .is_some_and(|s| !s.problems.is_empty());
            let named = policy.metadata.name.as_deref().unwrap_or_default();
            if (only != "problem" || problems) && (q.is_empty() || matches(&q, &[named, name])) {
                found.push((name, policy));
            }
        }
    }
    let pods = |p: &PlacementPolicy| p.status.as_ref().map_or(0, |s| s.pods);
    let (by, down) = order(params);
    match by {
        "cluster" => found.sort_by(|a, b| a.0.cmp(b.0)),
        "pods" => found.sort_by_key(|(_, p)| pods(p)),
        "name" => found.sort_by_key(|(_, p)| p.name_any()),
        "priority" => found.sort_by_key(|(_, p)| p.spec.priority),
        // As they decide: the highest first, of equal ones by name.
        _ => found.sort_by_cached_key(|(c, p)| {
            (-i64::from(p.spec.priority), p.name_any(), (*c).to_owned())
        }),
    }
    if down {
        found.reverse();
    }
    Listing::cut(found, params, |(cluster, policy)| row(cluster, policy))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_policy_in_a_line_each() {
        let policy: PlacementPolicy = from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": "fast", "generation": 2},
            "spec": {"priority": 7, "pods": {"namespaces": ["shop"], "levels": ["L0"], "selector": {"matchLabels": {"tier": "web"}}},
                "spread": [{"topologyKey": "zone"}], "strategy": "Pack",
                "avoid": [{"selector": {"matchLabels": {"app": "noisy"}}, "topologyKey": "host", "weight": 5}],
                "pools": [{"name": "own", "nodeSelector": {"p": "a"}}, {"name": "cloud", "nodeSelector": {"p": "b"}}],
                "load": {"cpu": 80}, "hardware": {"required": {"disk": ["ssd", "nvme"]}}, "numa": "SingleNumaNode"},
            "status": {"observedGeneration": 1, "pods": 3, "conditions": [
                {"type": "Effective", "status": "True", "reason": "x", "message": "", "lastTransitionTime": "2026-11-21T08:00:00Z"}]}}))
        .unwrap();
        let row = row("sh", &policy);
        assert_eq!(
            row.pods,
            ["namespaces shop", "levels L0", "labels tier=web"]
        );
        assert_eq!(
            row.says,
            [
                "spread zone ≤ 1 DoNotSchedule",
                "strategy Pack",
                "avoid app=noisy / host weight 5",
                "pools own → cloud",
                "load cpu ≤ 80 %",
                "hardware disk: ssd|nvme",
                "numa SingleNumaNode"
            ]
        );
        assert_eq!(row.effective, None, "it has changed since");
    }
}
