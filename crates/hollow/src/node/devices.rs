//! What simulated drivers say of a node's devices (dynamic resource allocation).

use crate::{
    clock::Millis,
    object::{AllocatedDevice, ClaimObject},
    options::{Devices, SIMULATED},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An attribute in the type that its text has.
fn attribute(text: &str) -> Value {
    let numbers: Vec<&str> = text.split('.').collect();
    let version = numbers.len() == 3 && numbers.iter().all(|n| n.parse::<u32>().is_ok());
    match (text, text.parse::<i64>()) {
        ("true" | "false", _) => json!({"bool": text == "true"}),
        (_, Ok(number)) => json!({"int": number}),
        _ if version => json!({"version": text}),
        _ => json!({"string": text}),
    }
}

fn device(of: &Devices, number: u32) -> Value {
    let mut attributes: BTreeMap<&str, Value> = of
        .attributes
        .iter()
        .map(|(name, text)| (name.as_str(), attribute(text)))
        .collect();
    attributes.insert(SIMULATED, json!({"bool": true}));
    let capacity: BTreeMap<&str, Value> = of
        .capacity
        .iter()
        .map(|(name, text)| (name.as_str(), json!({"value": text})))
        .collect();
    let mut device = json!({"name": format!("{}-{number}", of.name), "attributes": attributes});
    if !capacity.is_empty() {
        device["capacity"] = json!(capacity);
    }
    if of.shared {
        device["allowMultipleAllocations"] = true.into();
    }
    device
}

/// The ResourceSlices of a node: one for each driver, marked as simulated, and gone with the node.
#[must_use]
pub fn slices(devices: &[Devices], node: &str, uid: &str) -> Vec<Value> {
    let mut by_driver: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for of in devices {
        let all = by_driver.entry(&of.driver).or_default();
        all.extend((0..of.count).map(|number| device(of, number)));
    }
    let slice = |(driver, devices): (&str, Vec<Value>)| {
        json!({
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {
                "name": format!("{node}-{driver}"),
                "labels": {SIMULATED: "true"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": true}],
            },
            "spec": {
                "driver": driver,
                "nodeName": node,
                "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
                "devices": devices,
            },
        })
    };
    by_driver.into_iter().map(slice).collect()
}

/// Why the kubelet cannot prepare a claim for a pod, in its words.
///
/// # Errors
/// With them.
pub fn prepares(claim: Option<&ClaimObject>, name: &str, pod: (&str, &str)) -> Result<(), String> {
    let Some(claim) = claim else {
        return Err(format!(
            "failed to fetch ResourceClaim {name} referenced by pod {}: resourceclaims.resource.k8s.io \"{name}\" not found",
            pod.0
        ));
    };
    let (pod, pod_uid) = pod;
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    if claim.status.allocation.is_none() {
        return Err(format!("ResourceClaim {name} ({uid}) is not allocated"));
    }
    let mut users = claim.status.reserved_for.iter();
    if users.any(|it| it.uid == pod_uid) {
        Ok(())
    } else {
        Err(format!(
            "pod {pod} ({pod_uid}) is not allowed to use ResourceClaim {name} ({uid})"
        ))
    }
}

/// What the node's drivers say of the devices that a claim was given there, beside what is said of them and others
/// already. `None` if they have said it.
#[must_use]
pub fn told(claim: &ClaimObject, node: &str, drivers: &[&str], now: Millis) -> Option<Value> {
    let told = |result: &AllocatedDevice| {
        let mut all = claim.status.devices.iter();
        all.any(|it| {
            let text = |field: &str| it[field].as_str();
            text("driver") == Some(&result.driver)
                && text("pool") == Some(&result.pool)
                && text("device") == Some(&result.device)
                && text("shareID") == result.share_id.as_deref()
        })
    };
    let own = |result: &&AllocatedDevice| {
        result.pool == node && drivers.contains(&result.driver.as_str())
    };
    let results = claim
        .status
        .allocation
        .iter()
        .flat_map(|a| &a.devices.results);
    let fresh: Vec<Value> = results
        .filter(own)
        .filter(|it| !told(it))
        .map(|it| {
            let mut status = json!({
                "driver": it.driver, "pool": it.pool, "device": it.device,
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Prepared", "message": "simulated",
                    "lastTransitionTime": now.to_string(),
                }],
            });
            if let Some(share) = &it.share_id {
                status["shareID"] = share.as_str().into();
            }
            status
        })
        .collect();
    if fresh.is_empty() {
        return None;
    }
    let all: Vec<&Value> = claim.status.devices.iter().chain(&fresh).collect();
    // Others may speak of devices of theirs: the list is written whole, on this version only.
    Some(json!({
        "metadata": {"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version},
        "status": {"devices": all},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_offered_by_driver_and_say_that_they_are_simulated() {
        let of = |driver: &str, name: &str, count| Devices {
            driver: driver.into(),
            name: name.into(),
            count,
            attributes: [
                ("model", "x"),
                ("cores", "80"),
                ("ecc", "true"),
                ("fw", "1.2.3"),
                ("d.io/at", "1.2"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            capacity: [("memory".to_owned(), "80Gi".to_owned())].into(),
            shared: name == "part",
        };
        let all = [
            of("gpu.io", "gpu", 2),
            of("nic.io", "nic", 1),
            of("gpu.io", "part", 1),
        ];
        let slices = slices(&all, "n1", "u1");
        let names: Vec<&str> = slices
            .iter()
            .filter_map(|it| it["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names, ["n1-gpu.io", "n1-nic.io"]);
        let devices = slices[0]["spec"]["devices"].as_array().unwrap();
        assert_eq!(devices.len(), 3);
        let attributes = json!({"model": {"string": "x"}, "cores": {"int": 80}, "ecc": {"bool": true},
            "fw": {"version": "1.2.3"}, "d.io/at": {"string": "1.2"}, "gantry.dev/simulated": {"bool": true}});
        assert_eq!(
            devices[1],
            json!({"name": "gpu-1", "attributes": attributes, "capacity": {"memory": {"value": "80Gi"}}})
        );
        assert_eq!(devices[2]["allowMultipleAllocations"], true);
        assert_eq!(slices[0]["metadata"]["ownerReferences"][0]["uid"], "u1");
        assert_eq!(
            slices[0]["metadata"]["labels"]["gantry.dev/simulated"],
            "true"
        );
    }

    fn claim(status: Value) -> ClaimObject {
        let claim = json!({"metadata": {"name": "c", "uid": "uc", "resourceVersion": "7"}, "status": status});
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn a_claim_is_prepared_once_it_is_allocated_and_reserved() {
        let user = json!([{"resource": "pods", "name": "p", "uid": "up"}]);
        let other = json!([{"resource": "pods", "name": "q", "uid": "uq"}]);
        for (status, want) in [
            (json!({}), Err("ResourceClaim c (uc) is not allocated")),
            (
                json!({"allocation": {}}),
                Err("pod p (up) is not allowed to use ResourceClaim c (uc)"),
            ),
            (
                json!({"allocation": {}, "reservedFor": other}),
                Err("pod p (up) is not allowed to use ResourceClaim c (uc)"),
            ),
            (json!({"allocation": {}, "reservedFor": user}), Ok(())),
        ] {
            let got = prepares(Some(&claim(status)), "c", ("p", "up"));
            assert_eq!(got, want.map_err(str::to_owned));
        }
        assert!(
            prepares(None, "c", ("p", "up"))
                .unwrap_err()
                .ends_with("\"c\" not found")
        );
    }

    #[test]
    fn drivers_speak_of_their_own_devices_and_say_it_once() {
        let result = |driver: &str, device: &str| json!({"request": "r", "driver": driver, "pool": "n1", "device": device});
        let results =
            json!({"devices": {"results": [result("gpu.io", "gpu-0"), result("else.io", "x")]}});
        let there = json!({"driver": "else.io", "pool": "n1", "device": "x"});
        let seen = claim(json!({"allocation": results, "devices": [there]}));
        assert_eq!(told(&seen, "n2", &["gpu.io"], Millis(0)), None);
        let patch = told(&seen, "n1", &["gpu.io"], Millis(0)).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let devices = patch["status"]["devices"].as_array().unwrap();
        assert_eq!((devices.len(), &devices[0]), (2, &there));
        assert_eq!(devices[1]["device"], "gpu-0");
        let again = claim(json!({"allocation": results, "devices": devices}));
        assert_eq!(told(&again, "n1", &["gpu.io"], Millis(0)), None);
    }
}
