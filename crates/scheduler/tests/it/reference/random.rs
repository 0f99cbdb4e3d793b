//! Random nodes and pods.

use super::{disks, policies, volumes};
use crate::support::merge;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

pub const APPS: [&str; 4] = ["web", "db", "cache", "batch"];
pub const KEYS: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "kubernetes.io/hostname",
    "rack",
    "topology.kubernetes.io/region",
];

pub fn pick<'a>(random: &mut ChaCha8Rng, from: &[&'a str]) -> &'a str {
    from.choose(random).expect("not empty")
}

pub fn chance(random: &mut ChaCha8Rng, percent: u32) -> bool {
    random.random_range(0..100) < percent
}

pub fn random_node(random: &mut ChaCha8Rng, name: &str) -> Value {
    let mut labels = json!({"kubernetes.io/hostname": name});
    for (key, values, percent) in [
        ("topology.kubernetes.io/zone", &["a", "b", "c"][..], 92),
        ("rack", &["r1", "r2", "r3", "r4", "r5", "r6"], 80),
        ("topology.kubernetes.io/region", &["x", "y"], 95),
        ("disk", &["ssd", "hdd"], 60),
        ("gen", &["1", "2", "3"], 50),
    ] {
        if chance(random, percent) {
            labels[key] = json!(pick(random, values));
        }
    }
    let mut spec = json!({"unschedulable": chance(random, 6)});
    let mut taints = Vec::new();
    for key in ["dedicated", "flaky"] {
        if chance(random, 12) {
            let effect = pick(random, &["NoSchedule", "NoExecute", "PreferNoSchedule"]);
            taints.push(json!({"key": key, "value": pick(random, &["", "x"]), "effect": effect}));
        }
    }
    spec["taints"] = json!(taints);
    let mut allocatable = json!({
        "cpu": pick(random, &["2", "4", "3500m"]), "memory": pick(random, &["4Gi", "8Gi"]),
        "pods": pick(random, &["5", "8", "20"]), "ephemeral-storage": "10Gi"});
    if chance(random, 30) {
        allocatable["example.com/gpu"] = json!("2");
    }
    let mut images = Vec::new();
    for (image, mib) in IMAGES {
        if chance(random, 50) {
            images.push(json!({"names": [image], "sizeBytes": mib << 20}));
        }
    }
    json!({"metadata": {"name": name, "labels": labels}, "spec": spec,
        "status": {"allocatable": allocatable, "images": images,
            "declaredFeatures": disks::random_features(random)}})
}

/// Images and their sizes in MiB.
pub const IMAGES: [(&str, i64); 3] = [("small:1", 20), ("middle:latest", 400), ("large:1", 1500)];

pub fn random_selector(random: &mut ChaCha8Rng) -> Value {
    match random.random_range(0..10) {
        0 => json!({}),
        1 => {
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": [pick(random, &APPS), pick(random, &APPS)]}]})
        }
        2 => {
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [pick(random, &APPS)]}]})
        }
        3 => {
            json!({"matchExpressions": [{"key": "rev", "operator": pick(random, &["Exists", "DoesNotExist"])}]})
        }
        _ => json!({"matchLabels": {"app": pick(random, &APPS)}}),
    }
}

pub fn random_term(random: &mut ChaCha8Rng) -> Value {
    let mut term =
        json!({"topologyKey": pick(random, &KEYS), "labelSelector": random_selector(random)});
    match random.random_range(0..8) {
        0 => term["namespaces"] = json!([pick(random, &["one", "two"])]),
        1 => {
            term["namespaceSelector"] = json!({"matchLabels": {"team": pick(random, &["x", "y"])}})
        }
        2 => term["namespaceSelector"] = json!({}),
        3 => term["matchLabelKeys"] = json!(["rev"]),
        4 => term["mismatchLabelKeys"] = json!(["rev"]),
        _ => {}
    }
    term
}

pub fn random_constraint(random: &mut ChaCha8Rng) -> Value {
    let hard = chance(random, 75);
    let mut constraint = json!({
        "maxSkew": random.random_range(1..3), "topologyKey": pick(random, &KEYS),
        "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" },
        "labelSelector": random_selector(random)});
    if hard && chance(random, 20) {
        constraint["minDomains"] = json!(random.random_range(1..5));
    }
    if chance(random, 25) {
        constraint["nodeAffinityPolicy"] = json!(pick(random, &["Honor", "Ignore"]));
    }
    if chance(random, 25) {
        constraint["nodeTaintsPolicy"] = json!(pick(random, &["Honor", "Ignore"]));
    }
    if chance(random, 15) {
        constraint["matchLabelKeys"] = json!(["rev"]);
    }
    constraint
}

pub fn random_node_term(random: &mut ChaCha8Rng, nodes: usize) -> Value {
    let expression = match random.random_range(0..6) {
        0 => json!({"key": "disk", "operator": "In", "values": ["ssd"]}),
        1 => json!({"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["a"]}),
        2 => json!({"key": "disk", "operator": "Exists"}),
        3 => json!({"key": "disk", "operator": "DoesNotExist"}),
        4 => json!({"key": "gen", "operator": "Gt", "values": ["1"]}),
        _ => json!({"key": "gen", "operator": "Lt", "values": ["3"]}),
    };
    if chance(random, 15) {
        let names = [
            format!("n{}", random.random_range(0..nodes)),
            format!("n{}", random.random_range(0..nodes)),
        ];
        return json!({"matchFields": [{"key": "metadata.name", "operator": pick(random, &["In", "NotIn"]), "values": names}]});
    }
    json!({"matchExpressions": [expression]})
}

pub fn container_without_requests(spec: &mut Value) {
    spec["containers"][0]["resources"] = json!({});
}

pub fn affinity_to_nodes(random: &mut ChaCha8Rng, spec: &mut Value) {
    let terms: Vec<_> = (0..random.random_range(1..3))
        .map(|_| {
            let (weight, disk) = (random.random_range(1..100), pick(random, &["ssd", "hdd"]));
            json!({"weight": weight, "preference": {"matchExpressions": [
                {"key": "disk", "operator": "In", "values": [disk]}]}})
        })
        .collect();
    spec["affinity"] =
        json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}});
}

/// All but name and uid: pods are made from a few of these, so that classes and ranks are shared.
pub fn random_template(random: &mut ChaCha8Rng, nodes: usize) -> Value {
    let mut requests = json!({"cpu": pick(random, &["100m", "250m", "1"]), "memory": pick(random, &["128Mi", "1Gi"])});
    if chance(random, 10) {
        requests["example.com/gpu"] = json!("1");
    }
    let guaranteed = chance(random, 30);
    if guaranteed {
        requests["cpu"] = json!(pick(random, &["1", "2", "3", "500m"]));
    }
    let image = pick(random, &["small:1", "middle", "large:1", "unknown:1"]);
    let mut container = json!({"name": "c", "image": image, "resources": {"requests": requests}});
    if guaranteed {
        container["resources"]["limits"] = requests;
    }
    if chance(random, 15) {
        container["ports"] = json!([{"containerPort": 80, "hostPort": random.random_range(80..82),
            "hostIP": pick(random, &["", "0.0.0.0", "10.0.0.1"]), "protocol": pick(random, &["TCP", "UDP"])}]);
    }
    let mut spec = json!({"containers": [container], "priority": random.random_range(0..3)});
    if chance(random, 15) {
        let policy = if chance(random, 50) {
            json!("Always")
        } else {
            Value::Null
        };
        spec["initContainers"] = json!([
            {"name": "i", "restartPolicy": policy, "resources": {"requests": {"cpu": "1500m"}}},
            {"name": "j", "resources": {"requests": {"cpu": "1"}}}]);
    }
    if chance(random, 10) {
        spec["overhead"] = json!({"cpu": "250m"});
    }
    if chance(random, 10) {
        spec["resources"] = json!({"requests": {"cpu": "750m"}});
    } else if chance(random, 3) {
        container_without_requests(&mut spec);
    }
    if chance(random, 30) {
        spec["volumes"] = volumes::random_volumes(random);
    } else if chance(random, 15) {
        spec["volumes"] = json!([disks::random_disk(random)]);
    }
    if chance(random, 8) {
        disks::set_apart(&mut spec);
    }
    if chance(random, 20) {
        affinity_to_nodes(random, &mut spec);
    }
    if chance(random, 10) {
        spec["nodeSelector"] = json!({"disk": "ssd"});
    }
    if chance(random, 30) {
        spec["tolerations"] = json!([match random.random_range(0..4) {
            0 => json!({"operator": "Exists"}),
            1 => json!({"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}),
            2 => json!({"key": "flaky", "operator": "Equal", "value": "x"}),
            _ => json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}),
        }]);
    }
    let mut affinity = spec.get("affinity").cloned().unwrap_or_else(|| json!({}));
    if chance(random, 20) {
        let terms: Vec<_> = (0..random.random_range(1..3))
            .map(|_| random_node_term(random, nodes))
            .collect();
        affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": terms});
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if chance(random, 25) {
            let terms: Vec<_> = (0..random.random_range(1..3))
                .map(|_| random_term(random))
                .collect();
            affinity[kind] = json!({"requiredDuringSchedulingIgnoredDuringExecution": terms});
        }
        if chance(random, 15) {
            let term = json!([{"weight": random.random_range(1..100), "podAffinityTerm": random_term(random)}]);
            merge(
                &mut affinity[kind],
                &json!({"preferredDuringSchedulingIgnoredDuringExecution": term}),
            );
        }
    }
    spec["affinity"] = affinity;
    if chance(random, 35) {
        let all: Vec<_> = (0..random.random_range(1..3))
            .map(|_| random_constraint(random))
            .collect();
        spec["topologySpreadConstraints"] = json!(all);
    }
    let mut labels = json!({"app": pick(random, &APPS)});
    if chance(random, 50) {
        labels["rev"] = json!(pick(random, &["1", "2"]));
    }
    policies::label(random, &mut labels);
    if chance(random, 15) {
        labels["quota.scheduling.koordinator.sh/name"] =
            json!(pick(random, &["one", "two", "none"]));
    }
    json!({"metadata": {"namespace": pick(random, &["one", "two"]), "labels": labels}, "spec": spec})
}
