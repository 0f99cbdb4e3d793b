mod extended;

use super::ANNOTATION;
use crate::core::object;
use crate::core::{Cluster, Decision};
use rstest::rstest;
use serde_json::{Value, json};

fn decode<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("an object")
}

/// Nodes `a`, `b` and `c`, the largest first (and so preferred), of which the first two have two GPUs each; class `gpu` and `any`.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    for (name, cpu) in [("a", "64"), ("b", "8"), ("c", "1")] {
        cluster.upsert_node(&decode(&json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": if name == "c" { "far" } else { "near" }}},
            "status": {"allocatable": {"cpu": cpu, "memory": format!("{cpu}Gi"), "pods": "110"}},
        })));
    }
    for node in ["a", "b"] {
        let devices: Vec<Value> = (0..2)
            .map(|n| {
                json!({
                    "name": format!("gpu-{n}"),
                    "attributes": {"model": {"string": if node == "a" { "small" } else { "large" }}, "numa": {"int": n}},
                    "capacity": {"memory": {"value": if node == "a" { "40Gi" } else { "80Gi" }}},
                })
            })
            .collect();
        offer(
            &mut cluster,
            &slice(node, json!({"nodeName": node}), &devices),
        );
    }
    class(
        &mut cluster,
        "gpu",
        &json!([{"cel": {"expression": "device.driver == 'gpu.io'"}}]),
    );
    class(&mut cluster, "any", &json!([]));
    cluster
}

fn slice(pool: &str, at: Value, devices: &[Value]) -> Value {
    let mut slice = json!({
        "metadata": {"name": format!("slice-{pool}")},
        "spec": {"driver": "gpu.io", "pool": {"name": pool, "generation": 1, "resourceSliceCount": 1}, "devices": devices},
    });
    for (key, value) in at.as_object().expect("where") {
        slice["spec"][key] = value.clone();
    }
    slice
}

fn offer(cluster: &mut Cluster, slice: &Value) {
    cluster.change_devices(|devices, symbols| devices.set_slice(&decode(slice), symbols));
}

fn class(cluster: &mut Cluster, name: &str, selectors: &Value) {
    let class = json!({"metadata": {"name": name}, "spec": {"selectors": selectors}});
    cluster.change_devices(|devices, symbols| devices.set_class(&decode(&class), symbols));
}

fn claim(cluster: &mut Cluster, name: &str, over: &Value) -> Value {
    let mut claim = json!({
        "metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}")},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}},
    });
    for (key, value) in over.as_object().expect("parts") {
        if key == "metadata" {
            for (key, value) in value.as_object().expect("metadata") {
                claim["metadata"][key] = value.clone();
            }
        } else {
            claim[key] = value.clone();
        }
    }
    set(cluster, &claim);
    claim
}

fn set(cluster: &mut Cluster, claim: &Value) {
    cluster.change_devices(|devices, symbols| devices.set_claim(&decode(claim), symbols));
}

fn requests(requests: Value) -> Value {
    json!({"spec": {"devices": {"requests": requests}}})
}

fn pod(name: &str, claims: &[&str]) -> object::Pod {
    let claims: Vec<Value> = claims
        .iter()
        .map(|c| json!({"name": c, "resourceClaimName": c}))
        .collect();
    decode(&json!({
        "metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "c"}], "resourceClaims": claims},
    }))
}

/// Decides a pod and commits it.
fn decide(cluster: &mut Cluster, pod: &object::Pod) -> Result<String, String> {
    let class = cluster.classify(pod);
    match cluster.decide(class) {
        Decision::Place(node) => {
            cluster.commit(&pod.uid().into(), class, node);
            assert!(
                cluster.has_devices(class, pod.uid()),
                "what fits can be had"
            );
            Ok(cluster.node_name(node).to_owned())
        }
        Decision::Unschedulable(diagnosis) => Err(diagnosis
            .summary
            .split(": ")
            .skip(1)
            .collect::<Vec<_>>()
            .join(": ")),
    }
}

/// The devices that a decided pod's claims get, as `request=pool/device`.
fn given(cluster: &Cluster, pod: &str) -> Vec<String> {
    let grants = cluster.devices.grants(pod).unwrap_or_default();
    let results = grants
        .iter()
        .filter_map(|g| g.allocation.as_ref()?.devices.as_ref()?.results.as_ref());
    results
        .flatten()
        .map(|r| format!("{}={}/{}", r.request, r.pool, r.device))
        .collect()
}

#[rstest]
#[case::one(json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]), json!([]), Ok("r=a/gpu-0 "))]
#[case::two(json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2}}]), json!([]), Ok("r=a/gpu-0 r=a/gpu-1 "))]
#[case::three(json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 3}}]), json!([]), Err("3 cannot allocate all claims."))]
#[case::selected(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "selectors": [
        {"cel": {"expression": "device.attributes['gpu.io'].model == 'large'"}},
        {"cel": {"expression": "device.capacity['gpu.io'].memory.compareTo(quantity('64Gi')) > 0"}}]}}]),
    json!([]), Ok("r=b/gpu-0 "))]
#[case::second_choice(
    json!([{"name": "r", "firstAvailable": [
        {"name": "huge", "deviceClassName": "gpu", "count": 4},
        {"name": "large", "deviceClassName": "gpu", "selectors": [{"cel": {"expression": "device.attributes['gpu.io'].model == 'large'"}}]}]}]),
    json!([]), Ok("r/large=b/gpu-0 "))]
#[case::all(json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}}]), json!([]), Ok("r=a/gpu-0 r=a/gpu-1 "))]
#[case::alike(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2}}]),
    json!([{"matchAttribute": "gpu.io/numa"}]), Err("3 cannot allocate all claims."))]
#[case::alike_elsewhere(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2}}]),
    json!([{"matchAttribute": "gpu.io/model", "requests": ["r"]}]), Ok("r=a/gpu-0 r=a/gpu-1 "))]
#[case::different(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2}}]),
    json!([{"distinctAttribute": "gpu.io/model"}]), Err("3 cannot allocate all claims."))]
#[case::without_it(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]),
    json!([{"matchAttribute": "gpu.io/no"}]), Err("3 cannot allocate all claims."))]
#[case::no_class(
    json!([{"name": "r", "exactly": {"deviceClassName": "no"}}]),
    json!([]), Err("request r: device class no does not exist."))]
#[case::part(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "capacity": {"requests": {"memory": "1Gi"}}}}]),
    json!([]), Ok("r=a/gpu-0 "))]
#[case::large_enough(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "capacity": {"requests": {"memory": "41Gi"}}}}]),
    json!([]), Ok("r=b/gpu-0 "))]
#[case::none_is_large_enough(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "capacity": {"requests": {"memory": "81Gi"}}}}]),
    json!([]), Err("3 cannot allocate all claims."))]
#[case::all_that_are_large_enough(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "All", "capacity": {"requests": {"memory": "41Gi"}}}}]),
    json!([]), Ok("r=b/gpu-0 r=b/gpu-1 "))]
#[case::no_such_capacity(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "capacity": {"requests": {"cores": "1"}}}}]),
    json!([]), Err("3 cannot allocate all claims."))]
#[case::fault(
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "selectors": [{"cel": {"expression": "device.attributes['gpu.io'].no == 1"}}]}}]),
    json!([]), Err("1 cannot allocate all claims, 1 claim n/g: selector #0 on device gpu.io/a/gpu-0: CEL runtime error: no such key: no, 1 claim n/g: selector #0 on device gpu.io/b/gpu-0: CEL runtime error: no such key: no."))]
fn requests_are_served_as_kubernetes_does(
    #[case] asked: Value,
    #[case] constraints: Value,
    #[case] want: Result<&str, &str>,
) {
    let mut cluster = cluster();
    let spec = json!({"spec": {"devices": {"requests": asked, "constraints": constraints}}});
    claim(&mut cluster, "g", &spec);
    let placed = decide(&mut cluster, &pod("p", &["g"]));
    let got = placed.map(|_| {
        given(&cluster, "uid-p")
            .iter()
            .map(|d| format!("{d} "))
            .collect::<String>()
    });
    assert_eq!(got.as_deref().map_err(String::as_str), want);
}

#[test]
fn no_device_is_given_twice_and_what_is_given_back_can_be_had() {
    let mut cluster = cluster();
    for n in 0..5 {
        claim(&mut cluster, &format!("c{n}"), &json!({}));
    }
    let mut all = Vec::new();
    for n in 0..4 {
        decide(&mut cluster, &pod(&format!("p{n}"), &[&format!("c{n}")])).expect("a device");
        all.extend(given(&cluster, &format!("uid-p{n}")));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4, "{all:?}");
    let last = pod("p4", &["c4"]);
    let refused = Err("3 cannot allocate all claims.".to_owned());
    assert_eq!(decide(&mut cluster, &last), refused);
    cluster.uncommit("uid-p2");
    assert!(
        cluster
            .events
            .contains(&crate::core::cluster::Event::Device)
    );
    assert!(decide(&mut cluster, &last).is_ok());
}

#[test]
fn what_the_api_shows_takes_the_place_of_what_was_assumed() {
    let mut cluster = cluster();
    let mut first = claim(&mut cluster, "c", &json!({}));
    let holder = pod("p", &["c"]);
    assert_eq!(decide(&mut cluster, &holder), Ok("a".to_owned()));
    let waits = Err("resource claim n/c is in the process of being allocated.".to_owned());
    assert_eq!(decide(&mut cluster, &pod("q", &["c"])), waits);
    let allocation = cluster.devices.grants("uid-p").expect("grants")[0]
        .allocation
        .clone();
    first["status"] = json!({"allocation": allocation, "reservedFor": [{"resource": "pods", "name": "p", "uid": "uid-p"}]});
    set(&mut cluster, &first);
    assert_eq!(cluster.devices.send("uid-p").len(), 1);
    // A second pod shares the claim, where its device is.
    assert_eq!(decide(&mut cluster, &pod("q", &["c"])), Ok("a".to_owned()));
    let grant = &cluster.devices.grants("uid-q").expect("grants")[0];
    assert_eq!(grant.allocation, None, "only reserved");
    // Its device is nobody else's: of the two on `a`, one is left.
    claim(
        &mut cluster,
        "two",
        &requests(json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2}}])),
    );
    assert_eq!(
        decide(&mut cluster, &pod("r", &["two"])),
        Ok("b".to_owned())
    );
    // Deallocated, it can be had again.
    first["status"] = json!({});
    set(&mut cluster, &first);
    cluster.uncommit("uid-r");
    claim(
        &mut cluster,
        "four",
        &requests(
            json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}}]),
        ),
    );
    assert!(decide(&mut cluster, &pod("s", &["four"])).is_ok());
}

#[rstest]
#[case::missing(&["no"], "resourceclaim.resource.k8s.io \"no\" not found.")]
#[case::leaving(&["leaving"], "resourceclaim \"leaving\" is being deleted.")]
#[case::full(&["full"], "resourceclaim in use.")]
#[case::elsewhere(&["elsewhere"], "3 resourceclaim not available on the node.")]
fn claims_that_cannot_be_used_are_named(#[case] claims: &[&str], #[case] want: &str) {
    let mut cluster = cluster();
    claim(
        &mut cluster,
        "leaving",
        &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    let users: Vec<Value> = (0..256)
        .map(|n| json!({"resource": "pods", "name": "x", "uid": format!("x{n}")}))
        .collect();
    claim(
        &mut cluster,
        "full",
        &json!({"status": {"allocation": {}, "reservedFor": users}}),
    );
    let nowhere = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["gone"]}]}]});
    claim(
        &mut cluster,
        "elsewhere",
        &json!({"status": {"allocation": {"nodeSelector": nowhere}}}),
    );
    assert_eq!(
        decide(&mut cluster, &pod("p", claims)),
        Err(want.to_owned())
    );
}

#[test]
fn claims_from_templates_are_awaited_and_must_be_the_pods_own() {
    let mut cluster = cluster();
    let mut made = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "uid-p"},
        "spec": {"containers": [{"name": "c"}], "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]},
    });
    let awaited = Err("pod \"n/p\": ResourceClaim not created yet.".to_owned());
    assert_eq!(decide(&mut cluster, &decode(&made)), awaited);
    made["status"] =
        json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu-x"}]});
    claim(&mut cluster, "p-gpu-x", &json!({}));
    let foreign = "ResourceClaim n/p-gpu-x was not created for pod n/p (pod is not owner).";
    assert_eq!(
        decide(&mut cluster, &decode(&made)),
        Err(foreign.to_owned())
    );
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p", "controller": true}]);
    claim(
        &mut cluster,
        "p-gpu-x",
        &json!({"metadata": {"ownerReferences": owner}}),
    );
    assert_eq!(decide(&mut cluster, &decode(&made)), Ok("a".to_owned()));
    // One that the maker found not to be needed is not waited for.
    made["status"] = json!({"resourceClaimStatuses": [{"name": "gpu"}]});
    assert!(decide(&mut cluster, &decode(&made)).is_ok());
}

#[test]
fn what_is_being_written_is_held_even_if_the_pod_goes() {
    let mut cluster = cluster();
    let all = requests(
        json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2, "selectors": [
        {"cel": {"expression": "device.attributes['gpu.io'].model == 'small'"}}]}}]),
    );
    claim(&mut cluster, "c", &all);
    claim(&mut cluster, "d", &all);
    assert!(decide(&mut cluster, &pod("p", &["c"])).is_ok());
    let sent = cluster.devices.send("uid-p");
    cluster.uncommit("uid-p");
    assert!(
        decide(&mut cluster, &pod("q", &["d"])).is_err(),
        "it may be written by now"
    );
    cluster.change_devices(|devices, symbols| devices.unwritten("uid-p", &sent, symbols));
    assert!(decide(&mut cluster, &pod("q", &["d"])).is_ok());
}

/// A device of 40 Gi for several, in parts of 10 Gi, and one that its driver makes ready.
fn shared(cluster: &mut Cluster, policy: Value) {
    let device = json!({"name": "s", "attributes": {"shared": {"bool": true}}, "allowMultipleAllocations": true,
        "capacity": {"memory": {"value": "40Gi", "requestPolicy": policy}}});
    let late = json!({"name": "l", "attributes": {"late": {"bool": true}}, "bindsToNode": true,
        "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]});
    offer(
        cluster,
        &slice("fabric", json!({"allNodes": true}), &[device, late]),
    );
}

fn asking(what: &str, capacity: Value) -> Value {
    let expression = format!("has(device.attributes['gpu.io'].{what})");
    let mut exactly =
        json!({"deviceClassName": "any", "selectors": [{"cel": {"expression": expression}}]});
    if !capacity.is_null() {
        exactly["capacity"] = json!({"requests": capacity});
    }
    requests(json!([{"name": "r", "exactly": exactly}]))
}

#[test]
fn a_shared_device_is_given_in_parts_until_nothing_is_left() {
    let mut cluster = cluster();
    let steps = json!({"default": "10Gi", "validRange": {"min": "10Gi", "step": "10Gi"}});
    shared(&mut cluster, steps);
    // 11 are rounded up to 20, nothing to the default, and the last one asks for more than is left.
    for (name, asked) in [
        ("x", json!({"memory": "11Gi"})),
        ("y", Value::Null),
        ("z", json!({"memory": "11Gi"})),
    ] {
        claim(&mut cluster, name, &asking("shared", asked));
    }
    let mut ids = Vec::new();
    for (at, (name, want)) in [("x", "20Gi"), ("y", "10Gi")].into_iter().enumerate() {
        decide(&mut cluster, &pod(&format!("p{at}"), &[name])).expect("a part");
        let grant = &cluster
            .devices
            .grants(&format!("uid-p{at}"))
            .expect("grants")[0];
        let devices = grant.allocation.as_ref().and_then(|a| a.devices.clone());
        let result = &devices.and_then(|d| d.results).expect("results")[0];
        let consumed = result.consumed_capacity.as_ref().expect("a part");
        assert_eq!(consumed["memory"].0, want);
        ids.push(result.share_id.clone().expect("a share"));
    }
    assert_ne!(ids[0], ids[1]);
    let refused = Err("3 cannot allocate all claims.".to_owned());
    assert_eq!(decide(&mut cluster, &pod("q", &["z"])), refused);
    // As the API shows it, it counts the same.
    let allocation = cluster.devices.grants("uid-p0").expect("grants")[0]
        .allocation
        .clone();
    let mut seen = asking("shared", json!({"memory": "11Gi"}));
    seen["status"] = json!({"allocation": allocation});
    cluster.devices.send("uid-p0");
    claim(&mut cluster, "x", &seen);
    assert_eq!(decide(&mut cluster, &pod("q", &["z"])), refused);
    cluster.change_devices(|devices, symbols| devices.remove_claim("n", "x", symbols));
    assert!(decide(&mut cluster, &pod("q", &["z"])).is_ok());
}

#[test]
fn what_drivers_make_ready_is_waited_for_and_what_they_cannot_is_in_the_way() {
    let mut cluster = cluster();
    shared(&mut cluster, json!({"default": "10Gi"}));
    let asked = asking("late", Value::Null);
    claim(&mut cluster, "c", &asked);
    assert_eq!(decide(&mut cluster, &pod("p", &["c"])), Ok("a".to_owned()));
    let grant = cluster.devices.grants("uid-p").expect("grants")[0].clone();
    assert!(grant.waits);
    let allocation = json!(grant.allocation);
    let result = &allocation["devices"]["results"][0];
    assert_eq!(result["bindingConditions"], json!(["Attached"]));
    assert_eq!(result["bindingFailureConditions"], json!(["Broken"]));
    // Reachable from everywhere, it is bound to the node that was chosen.
    let fields = &allocation["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"];
    assert_eq!(fields[0]["values"], json!(["a"]));
    cluster.devices.send("uid-p");
    let shown = |cluster: &mut Cluster, kind: &str, status: &str| {
        let condition = json!({"type": kind, "status": status, "reason": "Told", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let mut object = asked.clone();
        object["status"] = json!({"allocation": allocation, "reservedFor": [{"resource": "pods", "name": "p", "uid": "uid-p"}],
            "devices": [{"driver": "gpu.io", "pool": "fabric", "device": "l", "conditions": [condition]}]});
        claim(cluster, "c", &object);
    };
    // A scheduler that is started anew finds the claim reserved, and waits on.
    for (kind, status, waits) in [
        ("Attached", "False", Some(true)),
        ("Other", "True", Some(true)),
        ("Attached", "True", None),
    ] {
        shown(&mut cluster, kind, status);
        cluster.uncommit("uid-p");
        assert_eq!(decide(&mut cluster, &pod("p", &["c"])), Ok("a".to_owned()));
        let grants = cluster.devices.grants("uid-p").expect("grants");
        assert_eq!(grants.first().map(|g| g.waits), waits, "{kind} {status}");
    }
    shown(&mut cluster, "Broken", "True");
    cluster.uncommit("uid-p");
    let stuck = pod("p", &["c"]);
    let refused = Err("3 resourceclaim not available on the node.".to_owned());
    assert_eq!(decide(&mut cluster, &stuck), refused);
    let class = cluster.classify(&stuck);
    assert_eq!(cluster.idle_device_claim(class).expect("it").name, "c");
}

#[test]
fn an_idle_claim_that_is_in_the_way_is_found() {
    let mut cluster = cluster();
    let only = |node: &str| json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]});
    claim(
        &mut cluster,
        "here",
        &json!({"status": {"allocation": {"nodeSelector": only("a")},
        "reservedFor": [{"resource": "pods", "name": "x", "uid": "x"}]}}),
    );
    claim(
        &mut cluster,
        "there",
        &json!({"metadata": {"resourceVersion": "7"}, "status": {"allocation": {"nodeSelector": only("b")}}}),
    );
    let stuck = pod("p", &["here", "there"]);
    let class = cluster.classify(&stuck);
    assert!(matches!(cluster.decide(class), Decision::Unschedulable(_)));
    let idle = cluster.idle_device_claim(class).expect("nobody uses it");
    assert_eq!((idle.name.as_str(), idle.version.as_str()), ("there", "7"));
}

#[test]
fn pools_are_taken_from_when_they_are_complete_and_in_their_newest_form() {
    let mut cluster = cluster();
    claim(
        &mut cluster,
        "c",
        &requests(
            json!([{"name": "r", "exactly": {"deviceClassName": "any", "selectors": [
        {"cel": {"expression": "has(device.attributes['gpu.io'].fast) && device.attributes['gpu.io'].fast"}}]}}]),
        ),
    );
    let fast = json!({"name": "fast", "attributes": {"fast": {"bool": true}}});
    let mut half = slice(
        "net",
        json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "zone", "operator": "In", "values": ["far"]}]}]}}),
        std::slice::from_ref(&fast),
    );
    half["spec"]["pool"]["resourceSliceCount"] = json!(2);
    offer(&mut cluster, &half);
    let wanting = pod("p", &["c"]);
    assert!(decide(&mut cluster, &wanting).is_err(), "half a pool");
    half["spec"]["pool"]["resourceSliceCount"] = json!(1);
    offer(&mut cluster, &half);
    assert_eq!(decide(&mut cluster, &wanting), Ok("c".to_owned()));
    let grants = cluster.devices.grants("uid-p").expect("grants");
    let nodes = grants[0]
        .allocation
        .as_ref()
        .and_then(|a| a.node_selector.clone());
    assert_eq!(
        json!(nodes)["nodeSelectorTerms"][0]["matchExpressions"][0]["key"],
        "zone"
    );
    cluster.uncommit("uid-p");
    let mut newer = slice("net", json!({"allNodes": true}), &[]);
    newer["metadata"]["name"] = json!("newer");
    newer["spec"]["pool"]["generation"] = json!(2);
    offer(&mut cluster, &newer);
    assert!(
        decide(&mut cluster, &wanting).is_err(),
        "the newest form has none"
    );
    cluster.change_devices(|devices, _| devices.remove_slice("newer"));
    assert_eq!(decide(&mut cluster, &wanting), Ok("c".to_owned()));
}

#[test]
fn partitions_share_what_their_device_has() {
    let mut cluster = cluster();
    let part = |name: &str, amount: &str| json!({"name": name, "consumesCounters": [{"counterSet": "card", "counters": {"memory": {"value": amount}}}]});
    let devices = [
        part("half-0", "20Gi"),
        part("half-1", "20Gi"),
        part("whole", "40Gi"),
    ];
    let mut parts = slice("card", json!({"nodeName": "c"}), &devices);
    parts["spec"]["pool"]["resourceSliceCount"] = json!(2);
    offer(&mut cluster, &parts);
    let mut sets = slice("card", json!({"nodeName": "c"}), &[]);
    sets["metadata"]["name"] = json!("sets");
    sets["spec"]["pool"]["resourceSliceCount"] = json!(2);
    sets["spec"]["sharedCounters"] =
        json!([{"name": "card", "counters": {"memory": {"value": "40Gi"}}}]);
    offer(&mut cluster, &sets);
    let named = |names: &str| {
        requests(
            json!([{"name": "r", "exactly": {"deviceClassName": "any", "selectors": [
        {"cel": {"expression": "!has(device.attributes['gpu.io'].model)"}}], "count": names.parse::<i64>().expect("a number")}}]),
        )
    };
    claim(&mut cluster, "one", &named("1"));
    claim(&mut cluster, "two", &named("2"));
    claim(&mut cluster, "more", &named("1"));
    assert_eq!(
        decide(&mut cluster, &pod("p", &["two"])),
        Ok("c".to_owned())
    );
    assert_eq!(given(&cluster, "uid-p"), ["r=card/half-0", "r=card/half-1"]);
    assert!(
        decide(&mut cluster, &pod("q", &["one"])).is_err(),
        "nothing is left of the card"
    );
    cluster.uncommit("uid-p");
    assert!(decide(&mut cluster, &pod("q", &["one"])).is_ok());
    assert!(decide(&mut cluster, &pod("r", &["more"])).is_ok());
}

#[test]
fn administrators_see_devices_that_others_use_and_taints_keep_devices_away() {
    let mut cluster = cluster();
    claim(
        &mut cluster,
        "all",
        &requests(
            json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}}]),
        ),
    );
    assert_eq!(
        decide(&mut cluster, &pod("p", &["all"])),
        Ok("a".to_owned())
    );
    claim(
        &mut cluster,
        "look",
        &requests(json!([{"name": "r", "exactly":
        {"deviceClassName": "gpu", "count": 2, "adminAccess": true, "selectors": [{"cel": {"expression": "device.attributes['gpu.io'].model == 'small'"}}]}}])),
    );
    assert_eq!(
        decide(&mut cluster, &pod("admin", &["look"])),
        Ok("a".to_owned())
    );
    let tainted = |effect: &str| json!({"name": "t", "attributes": {"t": {"bool": true}}, "taints": [{"key": "broken", "value": "yes", "effect": effect}]});
    let with = |tolerations: Value| {
        requests(
            json!([{"name": "r", "exactly": {"deviceClassName": "any", "tolerations": tolerations,
        "selectors": [{"cel": {"expression": "has(device.attributes['gpu.io'].t)"}}]}}]),
        )
    };
    claim(&mut cluster, "plain", &with(json!([])));
    claim(
        &mut cluster,
        "tolerant",
        &with(json!([{"key": "broken", "operator": "Exists", "effect": "NoExecute"}])),
    );
    for (effect, plain, tolerant) in [
        ("NoExecute", false, true),
        ("NoSchedule", false, false),
        ("None", true, true),
    ] {
        offer(
            &mut cluster,
            &slice("t", json!({"nodeName": "c"}), &[tainted(effect)]),
        );
        for (name, want) in [("plain", plain), ("tolerant", tolerant)] {
            let got = decide(&mut cluster, &pod("t", &[name])).is_ok();
            assert_eq!(got, want, "{effect} {name}");
            cluster.uncommit("uid-t");
        }
    }
}

#[test]
fn configuration_of_class_and_claim_goes_along() {
    let mut cluster = cluster();
    let opaque = |n: i64| json!({"opaque": {"driver": "gpu.io", "parameters": {"n": n}}});
    let class =
        json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [], "config": [opaque(1)]}});
    cluster.change_devices(|devices, symbols| devices.set_class(&decode(&class), symbols));
    let with = |n: i64, requests: Value| {
        let mut config = opaque(n);
        config["requests"] = requests;
        config
    };
    claim(
        &mut cluster,
        "c",
        &json!({"spec": {"devices": {
        "requests": [{"name": "x", "exactly": {"deviceClassName": "gpu"}}, {"name": "y", "exactly": {"deviceClassName": "any"}}],
        "config": [with(2, json!(["x"])), with(3, json!([])), with(4, json!(["z"]))]}}}),
    );
    decide(&mut cluster, &pod("p", &["c"])).expect("two devices");
    let grants = cluster.devices.grants("uid-p").expect("grants");
    let config = json!(
        grants[0]
            .allocation
            .as_ref()
            .and_then(|a| a.devices.clone())
    );
    let told: Vec<(Value, Value, Value)> = config["config"]
        .as_array()
        .expect("configurations")
        .iter()
        .map(|c| {
            (
                c["source"].clone(),
                c["opaque"]["parameters"]["n"].clone(),
                c["requests"].clone(),
            )
        })
        .collect();
    let want = [
        (json!("FromClass"), json!(1), json!(["x"])),
        (json!("FromClaim"), json!(2), json!(["x"])),
        (json!("FromClaim"), json!(3), Value::Null),
    ];
    assert_eq!(told, want);
}

#[test]
fn members_of_one_pod_get_different_devices_on_one_node() {
    let mut cluster = cluster();
    for name in ["x", "y", "z"] {
        claim(&mut cluster, name, &json!({}));
    }
    let node = decide(&mut cluster, &pod("p", &["x", "y"])).expect("two on one node");
    let devices = given(&cluster, "uid-p");
    assert_eq!(
        devices,
        [format!("r={node}/gpu-0"), format!("r={node}/gpu-1")]
    );
    assert!(decide(&mut cluster, &pod("q", &["x", "y", "z"])).is_err());
}

#[test]
fn messages_are_told_by_their_numbers_until_many_came_after() {
    let mut words = super::Words::default();
    let first = words.number("first".to_owned());
    assert_eq!(words.number("first".to_owned()), first);
    let told = |words: &super::Words, number| words.text(number).map(|t| t.to_string());
    assert_eq!(told(&words, first).as_deref(), Some("first"));
    let last = (0..super::MOST_WORDS).map(|n| words.number(format!("{n}")));
    let last = last.last().unwrap();
    assert_eq!(told(&words, first), None);
    assert_eq!(
        told(&words, last),
        Some((super::MOST_WORDS - 1).to_string())
    );
    assert_eq!(words.texts.len(), super::MOST_WORDS);
    assert_ne!(words.number("first".to_owned()), first);
}

/// Nodes `n0` to `n3`, each with devices of a class of its own; claims of alternatives by class, in their order.
#[rstest]
#[case::the_first(vec![vec!["n2", "n0", "n1", "n3"]], "n2")]
#[case::the_second_and_the_first(vec![vec!["n1", "n2", "n3"], vec!["n2", "n3", "n1"]], "n2")]
#[case::what_is_there(vec![vec!["none", "n3", "n1"]], "n3")]
fn better_alternatives_make_better_nodes(#[case] claims: Vec<Vec<&str>>, #[case] want: &str) {
    let mut cluster = Cluster::new();
    for at in 0..4 {
        // The later, the larger: preferred but for what they can serve.
        let (name, cpu) = (format!("n{at}"), 8 << at);
        cluster.upsert_node(&decode(&json!({"metadata": {"name": name},
            "status": {"allocatable": {"cpu": format!("{cpu}"), "memory": format!("{cpu}Gi"), "pods": "110"}}})));
        let devices = [json!({"name": "d-0"}), json!({"name": "d-1"})];
        let mut slice = slice(&name, json!({"nodeName": name}), &devices);
        slice["spec"]["driver"] = json!(format!("{name}.io"));
        offer(&mut cluster, &slice);
        let expression = format!("device.driver == '{name}.io'");
        class(
            &mut cluster,
            &name,
            &json!([{"cel": {"expression": expression}}]),
        );
    }
    class(
        &mut cluster,
        "none",
        &json!([{"cel": {"expression": "device.driver == 'none.io'"}}]),
    );
    let mut names = Vec::new();
    for (at, alternatives) in claims.iter().enumerate() {
        let alternatives: Vec<Value> = alternatives
            .iter()
            .map(|class| json!({"name": format!("of-{class}"), "deviceClassName": class, "allocationMode": "ExactCount", "count": 1}))
            .collect();
        let name = format!("c{at}");
        let asked = requests(json!([{"name": "r", "firstAvailable": alternatives}]));
        claim(&mut cluster, &name, &asked);
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(decide(&mut cluster, &pod("p", &names)).as_deref(), Ok(want));
    for device in given(&cluster, "uid-p") {
        assert!(device.starts_with(&format!("r/of-{want}=")), "{device}");
    }
}

#[test]
fn devices_that_have_to_be_made_ready_are_taken_last() {
    let mut cluster = Cluster::new();
    cluster.upsert_node(&decode(&json!({"metadata": {"name": "a"},
        "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}}})));
    let bound = json!({"name": "bound", "bindingConditions": ["attached"], "bindingFailureConditions": ["failed"]});
    offer(
        &mut cluster,
        &slice("a-with-binding", json!({"nodeName": "a"}), &[bound]),
    );
    let free = json!({"name": "free"});
    offer(
        &mut cluster,
        &slice("a-without-binding", json!({"nodeName": "a"}), &[free]),
    );
    class(&mut cluster, "gpu", &json!([]));
    for (name, want) in [
        ("p0", "r=a-without-binding/free"),
        ("p1", "r=a-with-binding/bound"),
    ] {
        claim(&mut cluster, name, &json!({}));
        decide(&mut cluster, &pod(name, &[name])).expect("a device");
        assert_eq!(given(&cluster, &format!("uid-{name}")), [want]);
    }
}

/// As `validatePool` of Kubernetes' allocator.
#[rstest]
#[case::well(&[("card", "memory")], ("card", "memory"), true)]
#[case::two_sets_of_one_name(&[("card", "memory"), ("card", "memory")], ("card", "memory"), false)]
#[case::no_such_set(&[("card", "memory")], ("other", "memory"), false)]
#[case::no_such_counter(&[("card", "memory")], ("card", "slots"), false)]
fn a_pool_whose_counters_are_wrong_gives_nothing(
    #[case] sets: &[(&str, &str)],
    #[case] used: (&str, &str),
    #[case] well: bool,
) {
    let mut cluster = Cluster::new();
    cluster.upsert_node(&decode(&json!({"metadata": {"name": "a"},
        "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}}})));
    class(&mut cluster, "gpu", &json!([]));
    let counters = |(set, counter): (&str, &str)| json!({"counterSet": set, "counters": {counter: {"value": "1"}}});
    // One device is well, and goes with the rest.
    let devices = [
        json!({"name": "plain"}),
        json!({"name": "part", "consumesCounters": [counters(used)]}),
    ];
    let mut offered = vec![slice("p", json!({"nodeName": "a"}), &devices)];
    for (set, counter) in sets {
        let mut of_sets = slice("p", json!({"nodeName": "a"}), &[]);
        of_sets["spec"]["sharedCounters"] =
            json!([{"name": set, "counters": {*counter: {"value": "8"}}}]);
        offered.push(of_sets);
    }
    for (at, slice) in offered.iter().enumerate() {
        let mut slice = slice.clone();
        slice["metadata"]["name"] = json!(format!("slice-{at}"));
        slice["spec"]["pool"]["resourceSliceCount"] = json!(offered.len());
        offer(&mut cluster, &slice);
    }
    claim(&mut cluster, "c", &json!({}));
    let got = decide(&mut cluster, &pod("p", &["c"]));
    assert_eq!(got.is_ok(), well, "{got:?}");
}
