//! Kubernetes' rules of volumes, plainly: claims, volumes, classes, attach limits.

use super::World;
use super::random::{chance, pick};
use super::rules::term_selects;
use gantry_scheduler::core::{ClassId, Cluster};
use k8s_openapi::api::core::v1::{Node, Pod};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// All storage objects as JSON, by name (claims by `namespace/name`).
#[derive(Default)]
pub struct Storage {
    claims: BTreeMap<String, Value>,
    volumes: BTreeMap<String, Value>,
    /// Attachable volumes of the one driver, by node.
    limits: BTreeMap<String, usize>,
}

const DRIVER: &str = "csi.example.com";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Name, provisioner, whether binding waits, zones.
const CLASSES: [(&str, &str, bool, &[&str]); 4] = [
    ("local", "kubernetes.io/no-provisioner", true, &[]),
    ("zonal", DRIVER, true, &["a", "b"]),
    ("anywhere", DRIVER, true, &[]),
    ("now", DRIVER, false, &[]),
];

fn class(name: &str) -> Option<(bool, bool, &'static [&'static str])> {
    CLASSES
        .iter()
        .find(|c| c.0 == name)
        .map(|(_, provisioner, waits, zones)| (*provisioner == DRIVER, *waits, *zones))
}

fn size(value: &Value) -> u64 {
    let text = value.as_str().expect("a size");
    text.trim_end_matches("Gi").parse().expect("a number")
}

fn size_of_claim(claim: &Value) -> u64 {
    size(&claim["spec"]["resources"]["requests"]["storage"])
}

/// Mounts up to two claims.
pub fn random_volumes(random: &mut ChaCha8Rng) -> Value {
    let all: Vec<_> = (0..random.random_range(1..3))
        .map(|i| {
            let claim = format!("c{}", random.random_range(0..12));
            json!({"name": format!("v{i}"), "persistentVolumeClaim": {"claimName": claim}})
        })
        .collect();
    json!(all)
}

fn is_bound(claim: &Value) -> bool {
    claim["spec"]["volumeName"].is_string()
        && claim["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"].is_string()
}

fn volume(name: &str, gib: u64, class: &str, more: Value) -> Value {
    let mut volume = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": format!("{gib}Gi")},
        "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"], "storageClassName": class}, "status": {"phase": "Available"}});
    super::merge(&mut volume, &more);
    volume
}

fn near(key: &str, values: &[String]) -> Value {
    json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": key, "operator": "In", "values": values}]}]}}}})
}

fn bind_claim(claim: &mut Value, volume: &str) {
    claim["spec"]["volumeName"] = json!(volume);
    claim["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
    claim["status"]["phase"] = json!("Bound");
}

fn claim_ref(claim: &Value) -> Value {
    let meta = &claim["metadata"];
    json!({"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]})
}

impl Storage {
    fn put_claim(&mut self, cluster: &mut Cluster, claim: Value) {
        let meta = &claim["metadata"];
        let key = format!(
            "{}/{}",
            meta["namespace"].as_str().expect("a namespace"),
            meta["name"].as_str().expect("a name")
        );
        cluster.upsert_claim(&serde_json::from_value(claim.clone()).expect("a claim"));
        self.claims.insert(key, claim);
    }

    fn put_volume(&mut self, cluster: &mut Cluster, volume: Value) {
        cluster.upsert_volume(&serde_json::from_value(volume.clone()).expect("a volume"));
        let name = volume["metadata"]["name"].as_str().expect("a name");
        self.volumes.insert(name.to_owned(), volume);
    }

    fn put_limit(&mut self, cluster: &mut Cluster, node: &str, count: usize) {
        let object = json!({"metadata": {"name": node}, "spec": {"drivers": [
            {"name": DRIVER, "allocatable": {"count": count}}]}});
        let object = serde_json::from_value(object).expect("a CSINode");
        cluster.change_volumes(|v, symbols| v.set_limits(&object, symbols));
        self.limits.insert(node.to_owned(), count);
    }
}

/// Makes classes, claims and volumes. Sizes all differ, so that there is one smallest volume.
pub fn fill(random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster, nodes: usize) {
    for (name, provisioner, waits, zones) in CLASSES {
        let mode = if waits {
            "WaitForFirstConsumer"
        } else {
            "Immediate"
        };
        let mut class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
        if !zones.is_empty() {
            class["allowedTopologies"] =
                json!([{"matchLabelExpressions": [{"key": ZONE, "values": zones}]}]);
        }
        let class = serde_json::from_value(class).expect("a class");
        cluster.change_volumes(|v, symbols| v.set_class(&class, symbols));
    }
    for i in 0..random.random_range(0..8_u64) {
        let node = format!("n{}", random.random_range(0..nodes));
        let local = volume(
            &format!("local{i}"),
            2 * i + 2,
            "local",
            near("kubernetes.io/hostname", &[node]),
        );
        world.storage.put_volume(cluster, local);
    }
    for i in 0..nodes {
        if chance(random, 40) {
            let limit = random.random_range(0..3);
            world.storage.put_limit(cluster, &format!("n{i}"), limit);
        }
    }
    for namespace in ["one", "two"] {
        // The last ones of the pool never exist.
        for i in 0..10_u64 {
            let name = format!("c{i}");
            let class = pick(random, &["local", "zonal", "anywhere", "now"]);
            let mode = if chance(random, 20) {
                "ReadWriteOncePod"
            } else {
                "ReadWriteOnce"
            };
            let mut claim = json!({"metadata": {"namespace": namespace, "name": name,
                "uid": format!("{namespace}-{name}"), "annotations": {}},
                "spec": {"storageClassName": class, "accessModes": [mode],
                    "resources": {"requests": {"storage": format!("{}Gi", 2 * i + 1)}}}, "status": {"phase": "Pending"}});
            if chance(random, 50) {
                let volume_name = format!("{namespace}-{name}");
                let more = match random.random_range(0..4) {
                    0 => near(ZONE, &["a".to_owned(), "b".to_owned()]),
                    1 => near(
                        "kubernetes.io/hostname",
                        &[format!("n{}", random.random_range(0..nodes))],
                    ),
                    2 => json!({"metadata": {"labels": {ZONE: pick(random, &["a", "b__c"])}}}),
                    _ => json!({}),
                };
                let mut bound = volume(&volume_name, 2 * i + 1, class, more);
                bound["spec"]["claimRef"] = claim_ref(&claim);
                if chance(random, 60) {
                    bound["spec"]["csi"] = json!({"driver": DRIVER, "volumeHandle": volume_name});
                }
                bind_claim(&mut claim, &volume_name);
                if chance(random, 95) {
                    world.storage.put_volume(cluster, bound);
                }
            }
            world.storage.put_claim(cluster, claim);
        }
    }
}

/// Something happens to storage.
pub fn happen(random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster) {
    let keys: Vec<String> = world.storage.claims.keys().cloned().collect();
    let Some(key) = keys.choose(random) else {
        return;
    };
    let (namespace, name) = key.split_once('/').expect("a key");
    match random.random_range(0..4) {
        0 => {
            world.storage.claims.remove(key);
            cluster.change_volumes(|v, symbols| v.remove_claim(namespace, name, symbols));
        }
        1 => {
            let mut claim = world.storage.claims[key].clone();
            claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            world.storage.put_claim(cluster, claim);
        }
        2 => {
            let volumes: Vec<String> = world.storage.volumes.keys().cloned().collect();
            if let Some(volume) = volumes.choose(random) {
                world.storage.volumes.remove(volume);
                cluster.change_volumes(|v, symbols| v.remove_volume(volume, symbols));
            }
        }
        _ => {
            let nodes: Vec<String> = world.nodes.keys().cloned().collect();
            if let Some(node) = nodes.choose(random) {
                world
                    .storage
                    .put_limit(cluster, node, random.random_range(0..4));
            }
        }
    }
}

fn claims_of(pod: &Pod) -> BTreeSet<String> {
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|s| s.volumes.clone())
        .unwrap_or_default();
    let namespace = super::rules::namespace(pod);
    let claims = volumes
        .into_iter()
        .filter_map(|v| v.persistent_volume_claim);
    claims
        .map(|c| format!("{namespace}/{}", c.claim_name))
        .collect()
}

/// What is chosen for a pod on a node: claims with their volumes, or with none where one is to be made.
type Chosen = BTreeMap<String, Option<String>>;

impl World {
    pub fn volumes_fit(&self, pod: &Pod, node: &str) -> bool {
        self.choose_volumes(pod, node).is_some()
    }

    fn reaches(volume: &Value, node: &Node) -> bool {
        let terms = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
        terms.as_array().is_none_or(|terms| {
            terms.iter().any(|t| {
                let term = serde_json::from_value(t.clone()).expect("a term");
                term_selects(&term, node)
            })
        })
    }

    fn zone_fits(volume: &Value, node: &Node) -> bool {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let told = [ZONE, "topology.kubernetes.io/region"];
        let Some(zones) = volume["metadata"]["labels"][ZONE].as_str() else {
            return true;
        };
        !told.iter().any(|key| labels.contains_key(*key))
            || labels
                .get(ZONE)
                .is_some_and(|zone| zones.split("__").any(|z| z == zone))
    }

    /// What of the driver's volumes a claim stands for on a node.
    fn attached(&self, key: &str) -> Option<String> {
        let claim = self.storage.claims.get(key)?;
        if let Some(name) = claim["spec"]["volumeName"].as_str() {
            let volume = self.storage.volumes.get(name)?;
            return volume["spec"]["csi"]["volumeHandle"]
                .as_str()
                .map(ToOwned::to_owned);
        }
        let (provisions, ..) = class(claim["spec"]["storageClassName"].as_str()?)?;
        provisions.then(|| format!("claim {key}"))
    }

    fn choose_volumes(&self, pod: &Pod, node: &str) -> Option<Chosen> {
        let keys = claims_of(pod);
        let state = &self.nodes[node];
        let mut late: Vec<(u64, &String, &Value)> = Vec::new();
        for key in &keys {
            let claim = self.storage.claims.get(key)?;
            if claim["metadata"]["deletionTimestamp"].is_string() {
                return None;
            }
            let exclusive = claim["spec"]["accessModes"][0] == "ReadWriteOncePod";
            if exclusive
                && self
                    .pods
                    .values()
                    .any(|(other, _)| claims_of(other).contains(key))
            {
                return None;
            }
            if is_bound(claim) {
                let volume = self
                    .storage
                    .volumes
                    .get(claim["spec"]["volumeName"].as_str()?)?;
                if !Self::reaches(volume, state) || !Self::zone_fits(volume, state) {
                    return None;
                }
            } else {
                let (_, waits, _) = class(claim["spec"]["storageClassName"].as_str()?)?;
                if !waits {
                    return None;
                }
                late.push((size_of_claim(claim), key, claim));
            }
        }
        if let Some(limit) = self.storage.limits.get(node) {
            let there: BTreeSet<String> = self
                .on(node)
                .flat_map(claims_of)
                .filter_map(|key| self.attached(&key))
                .collect();
            let new: BTreeSet<String> = keys.iter().filter_map(|key| self.attached(key)).collect();
            let new = new.difference(&there).count();
            if new > 0 && there.len() + new > *limit {
                return None;
            }
        }
        late.sort_by_key(|(size, key, _)| (*size, (*key).clone()));
        let mut chosen = Chosen::new();
        for (wanted, key, claim) in late {
            let name = claim["spec"]["storageClassName"].as_str()?;
            let free = self.storage.volumes.iter().filter(|(volume, object)| {
                let taken = chosen.values().flatten().any(|v| v == *volume);
                !taken
                    && object["spec"]["storageClassName"] == name
                    && object["spec"]["claimRef"].is_null()
                    && size(&object["spec"]["capacity"]["storage"]) >= wanted
                    && Self::reaches(object, state)
            });
            let best = free.min_by_key(|(_, object)| size(&object["spec"]["capacity"]["storage"]));
            if let Some((volume, _)) = best {
                chosen.insert(key.clone(), Some(volume.clone()));
                continue;
            }
            let (provisions, _, zones) = class(name)?;
            let labels = state.metadata.labels.clone().unwrap_or_default();
            let there = zones.is_empty()
                || labels
                    .get(ZONE)
                    .is_some_and(|z| zones.contains(&z.as_str()));
            if !provisions || !there {
                return None;
            }
            chosen.insert(key.clone(), None);
        }
        Some(chosen)
    }
}

/// The pod goes to the node: what the core holds for it must be what the reference chooses, and is bound then.
pub fn bind(
    world: &mut World,
    cluster: &mut Cluster,
    pod: &Pod,
    class: ClassId,
    node: &str,
    at: &str,
) {
    let chosen = world.choose_volumes(pod, node).expect("feasible");
    let assumed = cluster.assume_volumes(class, node).expect("feasible");
    let text = |symbol| cluster.compiler.symbols.text(symbol).to_owned();
    let mut got = Chosen::new();
    for (volume, claim) in &assumed.bind {
        got.insert(text(*claim), Some(text(*volume)));
    }
    for claim in &assumed.provision {
        got.insert(text(*claim), None);
    }
    assert_eq!(got, chosen, "{at}: volumes for {node}");
    // Held, they are nobody else's.
    for (key, volume) in chosen {
        let mut claim = world.storage.claims[&key].clone();
        let name = volume.unwrap_or_else(|| format!("made-{}", key.replace('/', "-")));
        let mut bound = world
            .storage
            .volumes
            .get(&name)
            .cloned()
            .unwrap_or_else(|| {
                let made = json!({"spec": {"csi": {"driver": DRIVER, "volumeHandle": name}}});
                self::volume(
                    &name,
                    size_of_claim(&claim),
                    claim["spec"]["storageClassName"].as_str().expect("a class"),
                    made,
                )
            });
        bound["spec"]["claimRef"] = claim_ref(&claim);
        bind_claim(&mut claim, &name);
        world.storage.put_volume(cluster, bound);
        world.storage.put_claim(cluster, claim);
    }
}
