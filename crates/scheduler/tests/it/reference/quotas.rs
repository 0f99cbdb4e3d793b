//! Elastic quotas, plainly: what is used is summed over all pods at every question.

use super::World;
use super::random::{chance, pick};
use super::rules::{Amounts, labels, namespace, number};
use gantry_scheduler::core::Cluster;
use gantry_scheduler::core::object::ElasticQuota;
use k8s_openapi::api::core::v1::Pod;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const PARENT: &str = "quota.scheduling.koordinator.sh/parent";
const TREE: &str = "quota.scheduling.koordinator.sh/tree-id";

/// A quota.
pub struct Quota {
    name: String,
    namespace: String,
    parent: Option<String>,
    is_parent: bool,
    tree: Option<String>,
    min: Amounts,
    max: Amounts,
}

/// Name, namespace, tree, and whether it is above others: one for each namespace and one above both, and the same in the
/// trees of pools.
const QUOTAS: [(&str, &str, Option<&str>, bool); 7] = [
    ("one", "one", None, false),
    ("two", "two", None, false),
    ("all", "one", None, true),
    ("one-a", "one", Some("a"), false),
    ("one-b", "one", Some("b"), false),
    ("two-a", "two", Some("a"), false),
    ("all-a", "two", Some("a"), true),
];

/// A quota comes, changes or goes.
pub fn happen(random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster) {
    let (name, namespace, tree, is_parent) = QUOTAS[random.random_range(0..QUOTAS.len())];
    world.quotas.retain(|q| q.name != name);
    if chance(random, 20) {
        cluster.remove_quota(namespace, name);
    } else {
        let mut labels = json!({});
        if is_parent {
            labels["quota.scheduling.koordinator.sh/is-parent"] = json!("true");
        } else if chance(random, 70) {
            labels[PARENT] = json!(if tree == Some("a") { "all-a" } else { "all" });
        }
        if let Some(tree) = tree {
            labels[TREE] = json!(tree);
        }
        let mut spec = json!({});
        for (resource, values, most) in [
            ("cpu", &["1", "2500m", "6"][..], ["6", "12"]),
            ("memory", &["1Gi", "8Gi"], ["12Gi", "24Gi"]),
            ("pods", &["2", "6"], ["9", "20"]),
        ] {
            if chance(random, 50) {
                spec["min"][resource] = json!(pick(random, values));
            }
            if chance(random, 30) {
                spec["max"][resource] = json!(most[usize::from(is_parent)]);
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
            parent: labels[PARENT].as_str().map(ToOwned::to_owned),
            is_parent,
            tree: tree.map(ToOwned::to_owned),
            min: amounts("min"),
            max: amounts("max"),
        });
        world.quotas.sort_by(|a, b| a.name.cmp(&b.name));
        let quota: Value = json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec});
        let quota: ElasticQuota = serde_json::from_value(quota).expect("a quota");
        cluster.set_quota(&quota);
    }
    cluster.events.clear();
    cluster.settle_rules();
}

impl World {
    fn takes_of_quota(&self, pod: &Pod) -> Amounts {
        let mut takes = self.takes(pod).asked.clone();
        takes.insert("pods".to_owned(), 1000);
        takes.retain(|_, amount| *amount > 0);
        takes
    }

    fn quota(&self, name: &str) -> Option<&Quota> {
        self.quotas.iter().find(|q| q.name == name)
    }

    /// The quota of a pod on a node: the one that it names, else that of its namespace in the tree of the node's pool,
    /// else that of its namespace. Of several the first by name.
    fn quota_on(&self, pod: &Pod, node: &str) -> Option<&Quota> {
        let named = labels(pod)
            .get("quota.scheduling.koordinator.sh/name")
            .and_then(|name| self.quota(name));
        if named.is_some() {
            return named;
        }
        let namespace = namespace(pod);
        let own = || {
            let own = self.quotas.iter();
            own.filter(|q| q.namespace == namespace && !q.is_parent)
        };
        let mut found = None;
        if own().any(|q| q.tree.is_some()) {
            let pool = self.pool_of(pod, node);
            found = own().find(|q| q.tree.is_some() && q.tree == pool);
        }
        found.or_else(|| own().next())
    }

    /// The quota and those above it.
    fn above<'a>(&'a self, quota: &'a Quota) -> Vec<&'a Quota> {
        let mut path = vec![quota];
        if let Some(parent) = quota.parent.as_ref().and_then(|name| self.quota(name)) {
            path.push(parent);
        }
        path
    }

    /// Whether the pod's quota on a node has a place for it: no maximum on the way up is passed, and of every resource
    /// somebody on the way guarantees it, or the tree as a whole uses less than is guaranteed in it.
    pub fn quota_allows(&self, pod: &Pod, node: &str) -> bool {
        let Some(own) = self.quota_on(pod, node) else {
            return true;
        };
        let path = self.above(own);
        let counted: Vec<(&Quota, Amounts)> = self
            .pods
            .values()
            .filter_map(|(pod, on)| Some((self.quota_on(pod, on)?, self.takes_of_quota(pod))))
            .collect();
        let used = |quota: &Quota, resource: &str| -> i64 {
            let inside = counted.iter().filter(|(own, _)| {
                let mut above = self.above(own).into_iter();
                above.any(|q| q.name == quota.name)
            });
            inside
                .map(|(_, takes)| takes.get(resource).copied().unwrap_or(0))
                .sum()
        };
        let tops: Vec<&Quota> = self
            .quotas
            .iter()
            .filter(|q| self.above(q).len() == 1)
            .filter(|q| path.last().is_some_and(|top| top.tree == q.tree))
            .collect();
        self.takes_of_quota(pod).iter().all(|(resource, want)| {
            let below = |bound: &Amounts, quota: &Quota| {
                bound
                    .get(resource)
                    .map(|bound| used(quota, resource) + want <= *bound)
            };
            let under_max = path.iter().all(|q| below(&q.max, q) != Some(false));
            let guaranteed = path.iter().any(|q| below(&q.min, q) == Some(true));
            let all: i64 = tops.iter().filter_map(|q| q.min.get(resource)).sum();
            let taken: i64 = tops.iter().map(|q| used(q, resource)).sum();
            under_max && (guaranteed || all == 0 || taken + want <= all)
        })
    }
}
