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
use std::collections::{BTreeMap, BTreeSet};

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
    /// How large it is, if it says so, and whether several may have parts of it.
    size: Option<i64>,
    shared: bool,
}

/// What a request asks for: of which model (`""` is any), how many (`None` is all), whether in spite of taints.
#[derive(Clone, Debug)]
struct Request {
    model: &'static str,
    count: Option<usize>,
    tolerant: bool,
    admin: bool,
    size: Option<i64>,
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
                size: random.random_bool(0.7).then(|| random.random_range(2..7)),
                shared: random.random_bool(0.3),
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
                if let Some(size) = d.size {
                    told["capacity"] = json!({"size": {"value": size.to_string()}});
                }
                if d.shared {
                    told["allowMultipleAllocations"] = json!(true);
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
        size: random.random_bool(0.4).then(|| random.random_range(1..4)),
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
        if let Some(size) = request.size {
            ask["capacity"] = json!({"requests": {"size": size.to_string()}});
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

type Key = (String, String);

/// What is in somebody's use: whole devices, and how much of shared ones.
#[derive(Default, Debug)]
struct Taken {
    whole: BTreeSet<Key>,
    parts: BTreeMap<Key, i64>,
}

fn key(device: &Device) -> Key {
    (device.pool.clone(), device.name.clone())
}

/// What a request takes of a device that several share.
fn part(request: &Request, device: &Device) -> i64 {
    request.size.or(device.size).unwrap_or(0)
}

/// Whether a device is large enough, beside so much that is given of it.
fn large_enough(request: &Request, device: &Device, given: i64) -> bool {
    match device.size {
        None => request.size.is_none(),
        Some(size) if device.shared => given + part(request, device) <= size,
        Some(size) => request.size.is_none_or(|wanted| wanted <= size),
    }
}

/// Whether the rest of the requests can be served with devices that are in nobody's use.
fn servable(
    requests: &[Vec<Request>],
    claim: &Claim,
    reach: &[&Device],
    taken: &Taken,
    chosen: &[(&Device, i64)],
) -> bool {
    let Some((first, rest)) = requests.split_first() else {
        return true;
    };
    first.iter().any(|request| {
        let given = |d: &Device| taken.parts.get(&key(d)).copied().unwrap_or(0);
        let selected: Vec<&Device> = reach
            .iter()
            .copied()
            .filter(|d| request.model.is_empty() || request.model == d.model)
            .filter(|d| large_enough(request, d, given(d)))
            .collect();
        let most = 1_u32 << selected.len();
        (0..most).any(|mask| {
            let group = selected.iter().enumerate();
            let group = group.filter(|(at, _)| mask & (1 << at) != 0);
            let group: Vec<(&Device, i64)> = group.map(|(_, d)| (*d, part(request, d))).collect();
            let enough = match request.count {
                Some(count) => group.len() == count,
                None => group.len() == selected.len() && !group.is_empty(),
            };
            let may = group.iter().all(|(d, _)| {
                let here = chosen.iter().filter(|(other, _)| key(other) == key(d));
                let free = if d.shared {
                    large_enough(
                        request,
                        d,
                        given(d) + here.map(|(_, part)| part).sum::<i64>(),
                    )
                } else {
                    here.count() == 0
                };
                free && (request.admin || !taken.whole.contains(&key(d)))
                    && (request.tolerant || !d.tainted)
            });
            let all: Vec<(&Device, i64)> = chosen.iter().chain(&group).copied().collect();
            let alike = !claim.same_numa
                || all
                    .iter()
                    .all(|(d, _)| d.numa.is_some() && d.numa == all[0].0.numa);
            enough && may && alike && servable(rest, claim, reach, taken, &all)
        })
    })
}

#[test]
fn the_search_finds_what_an_enumeration_finds() {
    let (mut placed, mut refused, mut shared) = (0, 0, 0);
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
        let mut taken = Taken::default();
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
                        let key = (result.pool.clone(), result.device.clone());
                        if result.share_id.is_some() {
                            let consumed = result.consumed_capacity.as_ref();
                            let part = consumed.and_then(|c| c.get("size"));
                            let part = part.map_or(0, |q| q.0.parse().expect("a number"));
                            *taken.parts.entry(key).or_default() += part;
                            shared += 1;
                            continue;
                        }
                        let fresh = taken.whole.insert(key);
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
        placed > 300 && refused > 300 && shared > 100,
        "{placed} placed, {refused} refused, {shared} shares"
    );
}
