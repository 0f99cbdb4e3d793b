//! Which nodes a DaemonSet's pods may stand on: node name, selector, affinity, taints.

use serde::Deserialize;
use serde_json::Value;

use crate::model::Labels;
use crate::model::meta::nullable;
use crate::model::node::{Node, Taint};
use crate::model::pod::Toleration;

/// What a pod template asks of a node.
#[derive(Debug, Default)]
pub struct Needs {
    node_name: String,
    selector: Labels,
    /// `None` where there is no required affinity; one term is enough.
    terms: Option<Vec<Term>>,
    tolerations: Vec<Toleration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(deserialize_with = "nullable")]
    node_name: String,
    #[serde(deserialize_with = "nullable")]
    node_selector: Labels,
    affinity: Option<Affinity>,
    #[serde(deserialize_with = "nullable")]
    tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "nullable")]
    host_network: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<Terms>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terms {
    #[serde(deserialize_with = "nullable")]
    node_selector_terms: Vec<Term>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    #[serde(deserialize_with = "nullable")]
    match_expressions: Vec<Requirement>,
    #[serde(deserialize_with = "nullable")]
    match_fields: Vec<Requirement>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    #[serde(deserialize_with = "nullable")]
    values: Vec<String>,
}

impl Requirement {
    fn holds(&self, found: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        let compare = |greater: bool| {
            let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
            let value = found.and_then(|v| v.parse::<i64>().ok());
            matches!((value, bound), (Some(v), Some(b)) if if greater { v > b } else { v < b })
        };
        match self.operator.as_str() {
            "In" => found.is_some_and(listed),
            "NotIn" => !found.is_some_and(listed),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            "Gt" => compare(true),
            "Lt" => compare(false),
            _ => false,
        }
    }
}

impl Term {
    /// A term without requirements fits no node.
    fn fits(&self, node: &Node) -> bool {
        let name = |r: &Requirement| {
            let field = (r.key == "metadata.name").then_some(&*node.metadata.name);
            r.holds(field)
        };
        !(self.match_expressions.is_empty() && self.match_fields.is_empty())
            && self
                .match_expressions
                .iter()
                .all(|r| r.holds(node.metadata.labels.get(&r.key)))
            && self.match_fields.iter().all(name)
    }
}

/// Taints that every daemon pod tolerates (key, effect), and the one only of the host's network.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The tolerations that a daemon pod has whatever its template says, as JSON.
pub fn own_tolerations(host_network: bool) -> impl Iterator<Item = Value> {
    let network = host_network.then_some(NETWORK);
    TOLERATED.into_iter().chain(network).map(
        |(key, effect)| serde_json::json!({"key": key, "operator": "Exists", "effect": effect}),
    )
}

/// Whether a node takes new pods of a DaemonSet, and whether it keeps one it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    pub takes: bool,
    pub keeps: bool,
}

impl Needs {
    pub fn of(template: &Value) -> Needs {
        let spec: Spec = template
            .get("spec")
            .and_then(|spec| Spec::deserialize(spec).ok())
            .unwrap_or_default();
        let own = own_tolerations(spec.host_network);
        let own = own.filter_map(|t| serde_json::from_value(t).ok());
        Needs {
            node_name: spec.node_name,
            selector: spec.node_selector,
            terms: spec
                .affinity
                .and_then(|a| a.node_affinity)
                .and_then(|n| n.required_during_scheduling_ignored_during_execution)
                .map(|terms| terms.node_selector_terms),
            tolerations: spec.tolerations.into_iter().chain(own).collect(),
        }
    }

    pub fn fit(&self, node: &Node) -> Fit {
        const NOT: Fit = Fit {
            takes: false,
            keeps: false,
        };
        if !self.node_name.is_empty() && *self.node_name != *node.metadata.name {
            return NOT;
        }
        let labels = &node.metadata.labels;
        let selected = self.selector.iter().all(|(k, v)| labels.get(k) == Some(v));
        let preferred = self
            .terms
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|t| t.fits(node)));
        if !selected || !preferred {
            return NOT;
        }
        let bothers = |effect: &str| {
            node.spec
                .taints
                .iter()
                .any(|t| t.effect == effect && !self.tolerates(t))
        };
        let driven_away = bothers("NoExecute");
        Fit {
            takes: !driven_away && !bothers("NoSchedule"),
            keeps: !driven_away,
        }
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations
            .iter()
            .any(|t| t.tolerates(&taint.key, &taint.value, &taint.effect))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({}), json!({}), true, true)]
    #[case(json!({"nodeName": "other"}), json!({}), false, false)]
    #[case(json!({"nodeSelector": {"disk": "ssd"}}), json!({}), true, true)]
    #[case(json!({"nodeSelector": {"disk": "hdd"}}), json!({}), false, false)]
    #[case(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}), json!({}), false, false)]
    #[case(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["8"]}]}]}}}}), json!({}), true, true)]
    #[case(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}}}), json!({}), false, false)]
    #[case(json!({}), json!({"taints": [{"key": "a", "effect": "NoSchedule"}]}), false, true)]
    #[case(json!({}), json!({"taints": [{"key": "a", "effect": "NoExecute"}]}), false, false)]
    #[case(json!({}), json!({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}), true, true)]
    #[case(json!({"tolerations": [{"operator": "Exists"}]}), json!({"taints": [{"key": "a", "effect": "NoExecute"}]}), true, true)]
    #[case(json!({}), json!({"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}), true, true)]
    #[case(json!({}), json!({"taints": [{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}]}), false, true)]
    #[case(json!({"hostNetwork": true}), json!({"taints": [{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}]}), true, true)]
    fn nodes_fit(
        #[case] spec: Value,
        #[case] node: Value,
        #[case] takes: bool,
        #[case] keeps: bool,
    ) {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"disk": "ssd", "cores": "16"}}, "spec": node}))
        .unwrap();
        let needs = Needs::of(&json!({"spec": spec}));
        assert_eq!(needs.fit(&node), Fit { takes, keeps });
    }
}
