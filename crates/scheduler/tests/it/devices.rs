//! Differential test of claims to devices: the core's search against an enumeration of all that could be given, over
//! random clusters. A failure names its seed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::allow_attributes,
    reason = "helpers of tests are not seen as tests"
)]

use crate::support::{add_node, decode_pod, node, pod};
use gantry_scheduler::core::{Cluster, Decision};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A device as the reference sees it.
#[derive(Clone, Debug)]
struct Device {
    pool: String,
    name: String,
    /// `None`: any node of zone `a` can reach it.
    node: Option<String>,
    model: &'static str,
    numa: Option<i64>,
    tainted: bool,
}

/// What a request asks for: of which model (`""` is any), how many (`None` is all), whether in spite of taints.
#[derive(Clone, Debug)]
struct Request {
    model: &'static str,
    count: Option<usize>,
    tolerant: bool,
    admin: bool,
}

#[derive(Clone, Debug)]
struct Claim {
    /// One list of alternatives for each request.
    requests: Vec<Vec<Request>>,
    same_numa: bool,
}

const ZONES: [(&str, &str); 4] = [("n0", "a"), ("n1", "a"), ("n2", "b"), ("n3", "b")];

fn devices_of(random: &mut ChaCha8Rng) -> Vec<Device> {
    let mut all = Vec::new();
    let pools = ["n0", "n1", "n2"].map(Some).into_iter().chain([None]);
    for pool in pools {
        for at in 0..random.random_range(0..4) {
            all.push(Device {
                pool: pool.unwrap_or("shared").to_owned(),
                name: format!("d{at}"),
                node: pool.map(str::to_owned),
                model: ["small", "large"].choose(random).expect("one"),
                numa: random.random_bool(0.8).then(|| random.random_range(0..2)),
                tainted: random.random_bool(0.15),
            });
        }
    }
    all
}

fn slices(devices: &[Device]) -> Vec<Value> {
    let pools: BTreeSet<&String> = devices.iter().map(|d| &d.pool).collect();
    let slice = |pool: &String| {
        let of = devices.iter().filter(|d| d.pool == *pool);
        let told: Vec<Value> = of
            .map(|d| {
                let mut told =
                    json!({"name": d.name, "attributes": {"model": {"string": d.model}}});
                if let Some(numa) = d.numa {
                    told["attributes"]["numa.io/node"] = json!({"int": numa});
                }
                if d.tainted {
                    told["taints"] = json!([{"key": "bad", "effect": "NoSchedule"}]);
                }
                told
            })
            .collect();
        let mut slice = json!({"metadata": {"name": format!("s-{pool}")}, "spec": {"driver": "gpu.io",
            "pool": {"name": pool, "generation": 1, "resourceSliceCount": 1}, "devices": told}});
        if pool == "shared" {
            slice["spec"]["nodeSelector"] = json!({"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}]});
        } else {
            slice["spec"]["nodeName"] = json!(pool);
        }
        slice
    };
    pools.into_iter().map(slice).collect()
}

fn random_request(random: &mut ChaCha8Rng) -> Request {
    Request {
        model: ["", "", "small", "large"].choose(random).expect("one"),
        count: random.random_bool(0.85).then(|| random.random_range(1..4)),
        tolerant: random.random_bool(0.3),
        admin: false,
    }
}

fn random_claim(random: &mut ChaCha8Rng) -> Claim {
    let requests = (0..random.random_range(1..3)).map(|_| {
        if random.random_bool(0.25) {
            return vec![random_request(random), random_request(random)];
        }
        let mut request = random_request(random);
        request.admin = random.random_bool(0.1);
        vec![request]
    });
    let requests = requests.collect();
    Claim {
        requests,
        same_numa: random.random_bool(0.3),
    }
}

fn told(claim: &Claim, name: &str) -> Value {
    let ask = |request: &Request| {
        let mut ask = json!({"deviceClassName": "gpu"});
        if !request.model.is_empty() {
            let expression = format!("device.attributes['gpu.io'].model == '{}'", request.model);
            ask["selectors"] = json!([{"cel": {"expression": expression}}]);
        }
        match request.count {
            Some(count) => ask["count"] = json!(count),
            None => ask["allocationMode"] = json!("All"),
        }
        if request.tolerant {
            ask["tolerations"] = json!([{"key": "bad", "operator": "Exists"}]);
        }
        if request.admin {
            ask["adminAccess"] = json!(true);
        }
        ask
    };
    let requests = claim.requests.iter().enumerate().map(|(at, alternatives)| {
        if let [only] = alternatives.as_slice() {
            return json!({"name": format!("r{at}"), "exactly": ask(only)});
        }
        let named = alternatives.iter().enumerate().map(|(at, request)| {
            let mut ask = ask(request);
            ask["name"] = json!(format!("s{at}"));
            ask
        });
        json!({"name": format!("r{at}"), "firstAvailable": named.collect::<Vec<_>>()})
    });
    let mut devices = json!({"requests": requests.collect::<Vec<_>>()});
    if claim.same_numa {
        devices["constraints"] = json!([{"matchAttribute": "numa.io/node"}]);
    }
    json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"devices": devices}})
}

/// Whether the rest of the requests can be served with devices that are in nobody's use.
fn servable(
    requests: &[Vec<Request>],
    claim: &Claim,
    reach: &[&Device],
    taken: &BTreeSet<(String, String)>,
    chosen: &[&Device],
) -> bool {
    let Some((first, rest)) = requests.split_first() else {
        return true;
    };
    let key = |d: &Device| (d.pool.clone(), d.name.clone());
    first.iter().any(|request| {
        let selected: Vec<&Device> = reach
            .iter()
            .copied()
            .filter(|d| request.model.is_empty() || request.model == d.model)
            .collect();
        let most = 1_u32 << selected.len();
        (0..most).any(|mask| {
            let group = selected.iter().enumerate();
            let group = group.filter(|(at, _)| mask & (1 << at) != 0);
            let group: Vec<&Device> = group.map(|(_, d)| *d).collect();
            let enough = match request.count {
                Some(count) => group.len() == count,
                None => group.len() == selected.len() && !group.is_empty(),
            };
            let may = group.iter().all(|d| {
                (request.admin || !taken.contains(&key(d)))
                    && (request.tolerant || !d.tainted)
                    && chosen.iter().all(|other| key(other) != key(d))
            });
            let all: Vec<&Device> = chosen.iter().chain(&group).copied().collect();
            let alike = !claim.same_numa
                || all
                    .iter()
                    .all(|d| d.numa.is_some() && d.numa == all[0].numa);
            enough && may && alike && servable(rest, claim, reach, taken, &all)
        })
    })
}

#[test]
fn the_search_finds_what_an_enumeration_finds() {
    let (mut placed, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut cluster = Cluster::new();
        for (name, zone) in ZONES {
            add_node(&mut cluster, &node(name, zone, &json!({})));
        }
        let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.io'"}}]}});
        let class = serde_json::from_value(class).expect("a class");
        cluster.change_devices(|devices, symbols| devices.set_class(&class, symbols));
        let devices = devices_of(&mut random);
        for slice in slices(&devices) {
            let slice = serde_json::from_value(slice).expect("a slice");
            cluster.change_devices(|devices, symbols| devices.set_slice(&slice, symbols));
        }
        let mut taken: BTreeSet<(String, String)> = BTreeSet::new();
        for number in 0..6 {
            let name = format!("c{number}");
            let claim = random_claim(&mut random);
            let object = serde_json::from_value(told(&claim, &name)).expect("a claim");
            cluster.change_devices(|devices, symbols| devices.set_claim(&object, symbols));
            let wanting = decode_pod(&pod(
                &format!("p{number}"),
                &json!({"spec": {"resourceClaims": [{"name": "x", "resourceClaimName": name}]}}),
            ));
            let id = cluster.classify(&wanting);
            let mut somewhere = false;
            for (name, zone) in ZONES {
                let reaches = |d: &&Device| d.node.as_deref().map_or(zone == "a", |n| n == name);
                let reach: Vec<&Device> = devices.iter().filter(reaches).collect();
                let want = servable(&claim.requests, &claim, &reach, &taken, &[]);
                let symbol = cluster.compiler.symbols.known(name).expect("a node");
                let at = cluster.nodes.find(symbol).expect("a node");
                let got = cluster.feasible(id, at);
                assert_eq!(
                    got, want,
                    "seed {seed}, {claim:?} on {name} of {devices:?}, taken {taken:?}"
                );
                somewhere |= want;
            }
            match cluster.decide(id) {
                Decision::Place(at) => {
                    assert!(somewhere, "seed {seed}");
                    cluster.commit(&wanting.uid().into(), id, at);
                    let grants = cluster.devices.grants(wanting.uid()).expect("devices");
                    let given = grants.iter().filter_map(|g| g.allocation.as_ref());
                    let given = given.filter_map(|a| a.devices.as_ref()?.results.as_ref());
                    for result in given.flatten().filter(|r| r.admin_access != Some(true)) {
                        let fresh = taken.insert((result.pool.clone(), result.device.clone()));
                        assert!(fresh, "seed {seed}: {result:?} is given twice");
                    }
                    placed += 1;
                }
                Decision::Unschedulable(diagnosis) => {
                    assert!(!somewhere, "seed {seed}: {}", diagnosis.message);
                    refused += 1;
                }
            }
        }
    }
    assert!(
        placed > 300 && refused > 300,
        "{placed} placed, {refused} refused"
    );
}
