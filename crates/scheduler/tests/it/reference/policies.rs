//! Placement policies, plainly: what they say of pods is added to the pods, and what they say of nodes is asked of each
//! node.

use super::random::{APPS, KEYS, chance, pick};
use super::rules::{labels, namespace, selects};
use super::{Labels, World};
use gantry_api::PlacementPolicy;
use gantry_api::app::Level;
use gantry_scheduler::core::Cluster;
use k8s_openapi::api::core::v1::{Node, Pod};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::rc::Rc;

/// A policy: its name, and its spec as it was written.
pub struct Policy {
    name: String,
    spec: Value,
}

/// A policy comes, changes or goes.
pub fn happen(random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster) {
    let name = pick(random, &["p", "q", "r"]);
    let spec = (!chance(random, 25)).then(|| random_spec(random));
    write(world, cluster, name, spec);
}

/// Pools for all pods, so that quotas of pools are met often.
pub fn set_pools(world: &mut World, cluster: &mut Cluster) {
    let pools = json!([{"name": "a", "nodeSelector": {"disk": "ssd"}}, {"name": "b", "nodeSelector": {"disk": "hdd"}}]);
    let spec = json!({"priority": 1, "pods": {}, "pools": pools});
    write(world, cluster, "pools", Some(spec));
}

fn write(world: &mut World, cluster: &mut Cluster, name: &str, spec: Option<Value>) {
    world.policies.retain(|p| p.name != name);
    world.ruled.borrow_mut().clear();
    match spec {
        None => cluster.remove_policy(name),
        Some(spec) => {
            let policy: PlacementPolicy = serde_json::from_value(json!({
                "apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": name}, "spec": spec}))
            .expect("a policy");
            cluster.set_policy(&policy);
            let name = name.to_owned();
            world.policies.push(Policy { name, spec });
        }
    }
    // The highest priority first, of equal ones the first by name.
    world.policies.sort_by(|a, b| {
        let priority = |p: &Policy| p.spec["priority"].as_i64().unwrap_or(0);
        priority(b).cmp(&priority(a)).then(a.name.cmp(&b.name))
    });
    cluster.events.clear();
    cluster.settle_rules();
}

fn random_spec(random: &mut ChaCha8Rng) -> Value {
    let mut pods = json!({});
    if chance(random, 30) {
        pods["namespaces"] = json!([pick(random, &["one", "two"])]);
    }
    if chance(random, 25) {
        pods["apps"] = json!([pick(random, &["shop", "bank"])]);
    }
    if chance(random, 20) {
        pods["levels"] = json!([pick(random, &["L0", "L1", "L2", "L3"])]);
    }
    if chance(random, 25) {
        pods["selector"] = json!({"matchLabels": {"app": pick(random, &APPS)}});
    }
    let mut spec = json!({"priority": random.random_range(0..2), "pods": pods});
    let disk = |random: &mut ChaCha8Rng| json!({"disk": pick(random, &["ssd", "hdd"])});
    match random.random_range(0..9) {
        0 => {
            let hard = pick(
                random,
                &["DoNotSchedule", "DoNotSchedule", "ScheduleAnyway"],
            );
            let key = pick(random, &KEYS);
            let skew = random.random_range(1..3);
            spec["spread"] =
                json!([{"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": hard}]);
        }
        1 | 2 => {
            let field = pick(random, &["seek", "avoid", "avoid"]);
            let mut neighbour = json!({"topologyKey": pick(random, &KEYS),
                "selector": {"matchLabels": {"app": pick(random, &APPS)}}});
            if chance(random, 40) {
                neighbour["namespaces"] = json!([pick(random, &["one", "two"])]);
            }
            spec[field] = json!([neighbour]);
        }
        3 | 7 => {
            let pools = [("a", disk(random)), ("b", json!({"gen": "2"}))];
            let pools: Vec<Value> = pools
                .into_iter()
                .map(|(name, labels)| json!({"name": name, "nodeSelector": labels}))
                .collect();
            spec["pools"] = json!(pools);
        }
        4 | 5 => {
            let scope = pick(random, &["Nodes", "Pods", "Both"]);
            spec["exclusive"] = json!({"nodeSelector": disk(random), "scope": scope});
        }
        6 => {
            let values = json!([pick(random, &["1", "2"]), pick(random, &["2", "3"])]);
            spec["hardware"] = json!({"required": {"gen": values}});
        }
        _ => spec["load"] = json!({"cpu": random.random_range(30..90)}),
    }
    spec
}

fn level(pod: &Pod) -> Option<String> {
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    match labels(pod).get("gantry.dev/level") {
        Some(level) => Some(level.clone()),
        None => Level::of_priority(priority).map(|level| level.name().to_owned()),
    }
}

impl Policy {
    fn choice(&self, field: &str) -> Vec<String> {
        let list = self.spec["pods"][field].as_array();
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(ToOwned::to_owned).collect()
    }

    fn selects(&self, pod: &Pod) -> bool {
        let among = |field: &str, value: Option<String>| {
            let choice = self.choice(field);
            choice.is_empty() || value.is_some_and(|value| choice.contains(&value))
        };
        let selector = serde_json::from_value(self.spec["pods"]["selector"].clone()).ok();
        among("namespaces", Some(namespace(pod)))
            && among("apps", labels(pod).get("gantry.dev/app").cloned())
            && among("levels", level(pod))
            && selector.is_none_or(|selector| selects(Some(&selector), &labels(pod)))
    }
}

/// Whether a node has these labels.
fn has(node: &Node, wanted: &Value) -> bool {
    let labels: Labels = node.metadata.labels.clone().unwrap_or_default();
    let wanted = wanted.as_object().expect("labels");
    wanted.iter().all(|(key, value)| match value {
        Value::Array(values) => labels.get(key).is_some_and(|v| values.contains(&json!(v))),
        value => labels.get(key).is_some_and(|v| *value == json!(v)),
    })
}

impl World {
    fn policies_of(&self, pod: &Pod) -> Vec<&Policy> {
        self.policies.iter().filter(|p| p.selects(pod)).collect()
    }

    /// Bounds of usage that the first policy to say so sets.
    pub fn policy_load(&self, pod: &Pod) -> Option<[Option<i64>; 2]> {
        let mut all = self.policies_of(pod).into_iter();
        let first = all.find(|p| p.spec["load"].is_object())?;
        Some(["cpu", "memory"].map(|name| first.spec["load"][name].as_i64()))
    }

    /// The pool of the pod that a node is in: the first that has it, of the first policy to speak of pools.
    pub fn pool_of(&self, pod: &Pod, node: &str) -> Option<String> {
        let node = self.nodes.get(node)?;
        let own = self.policies_of(pod);
        let pools = own.iter().find_map(|p| p.spec["pools"].as_array())?;
        let pool = pools.iter().find(|pool| has(node, &pool["nodeSelector"]))?;
        pool["name"].as_str().map(ToOwned::to_owned)
    }

    /// What policies say of single nodes.
    pub fn policies_allow(&self, pod: &Pod, node: &str) -> bool {
        let node = &self.nodes[node];
        let own = self.policies_of(pod);
        let pools = own.iter().find_map(|p| p.spec["pools"].as_array());
        let mine = own.iter().all(|policy| {
            let exclusive = &policy.spec["exclusive"];
            let kept_in = exclusive.is_object() && exclusive["scope"] != "Nodes";
            let hardware = &policy.spec["hardware"]["required"];
            (!kept_in || has(node, &exclusive["nodeSelector"]))
                && (hardware.is_null() || has(node, hardware))
        });
        let others = self.policies.iter().filter(|p| !p.selects(pod));
        let others = others.into_iter().all(|policy| {
            let exclusive = &policy.spec["exclusive"];
            let kept_out = exclusive.is_object() && exclusive["scope"] != "Pods";
            !kept_out || super::load::names_its_nodes(pod) || !has(node, &exclusive["nodeSelector"])
        });
        let in_pool =
            pools.is_none_or(|pools| pools.iter().any(|pool| has(node, &pool["nodeSelector"])));
        mine && others && in_pool
    }

    /// The pod, with what policies say of pods around it.
    pub fn ruled(&self, pod: &Pod) -> Rc<Pod> {
        let uid = pod.metadata.uid.clone().expect("a uid");
        let known = self.ruled.borrow().get(&uid).cloned();
        known.unwrap_or_else(|| {
            let ruled = Rc::new(self.rule(pod));
            self.ruled.borrow_mut().insert(uid, ruled.clone());
            ruled
        })
    }

    fn rule(&self, pod: &Pod) -> Pod {
        let own = self.policies_of(pod);
        if own.is_empty() {
            return pod.clone();
        }
        let mut ruled = serde_json::to_value(pod).expect("JSON");
        let mut add = |path: &[&str], value: Value| {
            let mut at = &mut ruled["spec"];
            for key in path {
                at = &mut at[*key];
            }
            match at {
                Value::Array(list) => list.push(value),
                other => *other = json!([value]),
            }
        };
        let mut keys = Vec::new();
        for policy in own {
            for rule in policy.spec["spread"].as_array().into_iter().flatten() {
                // One spread over a key: the first says it.
                if keys.contains(&rule["topologyKey"]) {
                    continue;
                }
                keys.push(rule["topologyKey"].clone());
                let selector = match labels(pod).get("gantry.dev/app") {
                    Some(app) => json!({"matchLabels": {"gantry.dev/app": app}}),
                    None => match &policy.spec["pods"]["selector"] {
                        Value::Null => json!({}),
                        selector => selector.clone(),
                    },
                };
                if rule["whenUnsatisfiable"] == "DoNotSchedule" {
                    let mut rule = rule.clone();
                    rule["labelSelector"] = selector;
                    rule["nodeTaintsPolicy"] = json!("Honor");
                    add(&["topologySpreadConstraints"], rule);
                }
            }
            for (field, kind) in [("seek", "podAffinity"), ("avoid", "podAntiAffinity")] {
                for neighbour in policy.spec[field].as_array().into_iter().flatten() {
                    let mut term = json!({"topologyKey": neighbour["topologyKey"],
                        "labelSelector": neighbour["selector"]});
                    if neighbour["namespaces"].is_array() {
                        term["namespaces"] = neighbour["namespaces"].clone();
                    }
                    let path = [
                        "affinity",
                        kind,
                        "requiredDuringSchedulingIgnoredDuringExecution",
                    ];
                    add(&path, term);
                }
            }
        }
        serde_json::from_value(ruled).expect("a pod")
    }
}

/// Labels that policies read, on some of the pods.
pub fn label(random: &mut ChaCha8Rng, labels: &mut Value) {
    if chance(random, 30) {
        let apps = ["shop", "bank"];
        labels["gantry.dev/app"] = json!(apps.choose(random).expect("two"));
    }
    if chance(random, 30) {
        labels["gantry.dev/level"] = json!(pick(random, &["L0", "L1", "L2", "L3"]));
    }
}
