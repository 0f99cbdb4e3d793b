//! The row of a node.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    cells::{name, old, or},
    metadata,
};
use crate::validation::value::{at, entries, flag, list, text};

pub fn node(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(o, "spec"), at(o, "status"));
    let ready = list(status, "conditions")
        .iter()
        .find(|c| text(c, "type") == "Ready");
    let mut state = match ready.map(|c| text(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(spec, "unschedulable") {
        state.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = entries(metadata(o), "labels")
        .into_iter()
        .filter_map(|(key, value)| {
            key.strip_prefix("node-role.kubernetes.io/")
                .filter(|role| !role.is_empty())
                .or_else(|| {
                    (key == "kubernetes.io/role")
                        .then(|| value.as_str())
                        .flatten()
                })
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let roles = roles.join(",");
    let address = |kind: &str| {
        list(status, "addresses")
            .iter()
            .find(|a| text(a, "type") == kind)
            .map_or("<none>", |a| text(a, "address"))
    };
    let info = at(status, "nodeInfo");
    let known = |field: &str| Value::from(or(text(info, field), "<unknown>"));
    vec![
        name(o),
        state.into(),
        or(&roles, "<none>").into(),
        old(o, now),
        text(info, "kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        known("osImage"),
        known("kernelVersion"),
        known("containerRuntimeVersion"),
    ]
}
