//! Elastic quotas, plainly: what is used is summed over all pods at every question.

use super::World;
use super::random::{chance, pick};
use super::rules::{Amounts, labels, namespace, number, requests};
use gantry_scheduler::core::Cluster;
use gantry_scheduler::core::object::ElasticQuota;
use k8s_openapi::api::core::v1::Pod;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// A quota.
pub struct Quota {
    name: String,
    namespace: String,
    parent: Option<String>,
    is_parent: bool,
    min: Amounts,
    max: Amounts,
}

/// A quota comes, changes or goes: one for each namespace, and one above both.
pub fn happen(random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster) {
    let (name, namespace) =
        [("one", "one"), ("two", "two"), ("all", "one")][random.random_range(0..3)];
    world.quotas.retain(|q| q.name != name);
    if chance(random, 25) {
        cluster.remove_quota(namespace, name);
    } else {
        let is_parent = name == "all";
        let mut labels = json!({});
        if is_parent {
            labels["quota.scheduling.koordinator.sh/is-parent"] = json!("true");
        } else if chance(random, 70) {
            labels["quota.scheduling.koordinator.sh/parent"] = json!("all");
        }
        let mut spec = json!({});
        for (resource, values) in [
            ("cpu", &["1", "2500m", "6"][..]),
            ("memory", &["1Gi", "8Gi"]),
            ("pods", &["2", "6"]),
        ] {
            if chance(random, 50) {
                spec["min"][resource] = json!(pick(random, values));
            }
            if chance(random, 30) {
                let factor = if is_parent {
                    ["12", "24Gi", "20"]
                } else {
                    ["6", "12Gi", "9"]
                };
                let at = ["cpu", "memory", "pods"]
                    .iter()
                    .position(|r| *r == resource);
                spec["max"][resource] = json!(factor[at.expect("one of them")]);
            }
        }
        let amounts = |field: &str| -> Amounts {
            let all = spec[field].as_object().into_iter().flatten();
            all.map(|(k, v)| (k.clone(), number(v.as_str().expect("text"))))
                .collect()
        };
        world.quotas.push(Quota {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            parent: labels["quota.scheduling.koordinator.sh/parent"]
                .as_str()
                .map(ToOwned::to_owned),
            is_parent,
            min: amounts("min"),
            max: amounts("max"),
        });
        let quota: Value = json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec});
        let quota: ElasticQuota = serde_json::from_value(quota).expect("a quota");
        cluster.set_quota(&quota);
    }
    cluster.events.clear();
    cluster.settle_rules();
}

fn takes(pod: &Pod) -> Amounts {
    let mut takes = requests(pod);
    takes.insert("pods".to_owned(), 1000);
    takes.retain(|_, amount| *amount > 0);
    takes
}

impl World {
    fn quota(&self, name: &str) -> Option<&Quota> {
        self.quotas.iter().find(|q| q.name == name)
    }

    fn quota_of(&self, pod: &Pod) -> Option<&Quota> {
        let named = labels(pod)
            .get("quota.scheduling.koordinator.sh/name")
            .cloned();
        let named = named.and_then(|name| self.quota(&name));
        named.or_else(|| {
            let own = |q: &&Quota| q.namespace == namespace(pod) && !q.is_parent;
            self.quotas.iter().find(own)
        })
    }

    /// The quota and those above it.
    fn above<'a>(&'a self, quota: &'a Quota) -> Vec<&'a Quota> {
        let mut path = vec![quota];
        if let Some(parent) = quota.parent.as_ref().and_then(|name| self.quota(name)) {
            path.push(parent);
        }
        path
    }

    fn used(&self, quota: &Quota, resource: &str) -> i64 {
        let inside = |pod: &&Pod| {
            let own = self.quota_of(pod);
            own.is_some_and(|own| self.above(own).iter().any(|q| q.name == quota.name))
        };
        let pods = self.pods.values().map(|(pod, _)| pod).filter(inside);
        pods.map(|pod| takes(pod).get(resource).copied().unwrap_or(0))
            .sum()
    }

    /// Whether the pod's quota has a place for it: no maximum on the way up is passed, and of every resource somebody on
    /// the way guarantees it, or the tree as a whole uses less than is guaranteed in it.
    pub fn quota_allows(&self, pod: &Pod) -> bool {
        let Some(own) = self.quota_of(pod) else {
            return true;
        };
        let path = self.above(own);
        takes(pod).iter().all(|(resource, want)| {
            let below = |bound: &Amounts, quota: &Quota| {
                bound
                    .get(resource)
                    .map(|bound| self.used(quota, resource) + want <= *bound)
            };
            let under_max = path.iter().all(|q| below(&q.max, q) != Some(false));
            let guaranteed = path.iter().any(|q| below(&q.min, q) == Some(true));
            let tops = self.quotas.iter().filter(|q| self.above(q).len() == 1);
            let tops: Vec<&Quota> = tops.collect();
            let used: i64 = tops.iter().map(|q| self.used(q, resource)).sum();
            let all: i64 = tops.iter().filter_map(|q| q.min.get(resource)).sum();
            under_max && (guaranteed || all == 0 || used + want <= all)
        })
    }
}
