//! What a claim's status says: what was allocated, who may use it, and how its devices are.

use serde_json::Value;

use super::{
    MOST, binding_conditions, claim, items, label, opaque, pool_name, raw, tolerations, unique,
};
use crate::{
    path::Path,
    validation::{
        conditions,
        errors::{Errors, show},
        names, selectors, storage,
        value::{at, down, has, list, same, text},
    },
};

const MOST_CONSUMERS: usize = 256;

/// The status of a claim about to replace that of `old`.
pub fn status(new: &Value, old: &Value, e: &mut Errors) {
    let (now, before) = (at(new, "status"), at(old, "status"));
    let path = Path::new("status");
    let here = path.child("reservedFor");
    let consumers = items(now, "reservedFor", MOST_CONSUMERS, &path, e);
    for (i, consumer) in consumers.iter().enumerate() {
        let here = here.index(i);
        for field in ["resource", "name", "uid"] {
            if text(consumer, field).is_empty() {
                e.required(&here.child(field), "");
            }
        }
    }
    unique(consumers.iter().map(|c| text(c, "uid")), &here, e);
    devices(now, &path, e);
    if !list(now, "reservedFor").is_empty() {
        let deleting = has(at(new, "metadata"), "deletionTimestamp");
        let there = list(before, "reservedFor");
        if !has(now, "allocation") {
            e.forbidden(&here, "may not be specified when `allocated` is not set");
        } else if deleting && !consumers.iter().all(|c| there.contains(c)) {
            e.forbidden(
                &here,
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            );
        }
    }
    let here = path.child("allocation");
    match (at(now, "allocation"), at(before, "allocation")) {
        (Value::Null, _) => {}
        (now, Value::Null) => allocation(now, down(new, &["spec", "devices"]), &here, e),
        // What was allocated stays, and is not looked at again.
        (now, before) if !same(now, before) => e.invalid(&here, now, "field is immutable"),
        _ => {}
    }
}

fn allocation(result: &Value, claim: &Value, path: &Path<'_>, e: &mut Errors) {
    let here = path.child("devices");
    let allocated = at(result, "devices");
    let results = here.child("results");
    for (i, one) in items(allocated, "results", MOST, &here, e)
        .iter()
        .enumerate()
    {
        let here = results.index(i);
        claim::reference(text(one, "request"), claim, &here.child("request"), e);
        storage::driver(one, &here, e);
        pool_name(one, "pool", &here, e);
        label(one, "device", &here, e);
        binding_conditions(one, &here, e);
        tolerations(one, &here, e);
        share(one, &here, e);
    }
    let configs = here.child("config");
    for (i, config) in items(allocated, "config", 2 * MOST, &here, e)
        .iter()
        .enumerate()
    {
        let here = configs.index(i);
        let source = here.child("source");
        match text(config, "source") {
            "" => e.required(&source, ""),
            "FromClaim" | "FromClass" => {}
            other => e.not_supported(&source, other, &["FromClaim", "FromClass"]),
        }
        claim::references(config, claim, &here, e);
        opaque(config, false, &here, e);
    }
    if has(result, "nodeSelector") {
        let here = path.child("nodeSelector");
        selectors::node_selector(at(result, "nodeSelector"), &here, e);
    }
}

fn share(of: &Value, path: &Path<'_>, e: &mut Errors) {
    let Some(id) = at(of, "shareID").as_str() else {
        return;
    };
    let here = path.child("shareID");
    let hex = |b: u8| b.is_ascii_hexdigit();
    let dashes = [8, 13, 18, 23];
    let formed = id.len() == 36
        && id.bytes().enumerate().all(|(i, b)| {
            if dashes.contains(&i) {
                b == b'-'
            } else {
                hex(b)
            }
        });
    if !formed {
        let why = if id.len() == 36 {
            "invalid UUID format".to_owned()
        } else {
            format!("invalid UUID length: {}", id.len())
        };
        e.invalid_text(&here, id, &format!("error validating uid: {why}"));
    } else if id.bytes().any(|b| b.is_ascii_uppercase()) {
        let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        e.invalid_text(&here, id, detail);
    }
}

/// `driver/pool/device`, and the share of it where there is one: which device is meant.
fn identity(device: &Value) -> (String, &str) {
    let [driver, pool, name] = ["driver", "pool", "device"].map(|f| text(device, f));
    (format!("{driver}/{pool}/{name}"), text(device, "shareID"))
}

fn shown(device: &Value) -> String {
    match identity(device) {
        (id, "") => id,
        (id, share) => format!("{id}/{share}"),
    }
}

/// How the allocated devices are.
fn devices(status: &Value, path: &Path<'_>, e: &mut Errors) {
    let allocated: Vec<_> = list(down(status, &["allocation", "devices"]), "results")
        .iter()
        .map(identity)
        .collect();
    let here = path.child("devices");
    let all = list(status, "devices");
    for (i, device) in all.iter().enumerate() {
        let here = here.index(i);
        storage::driver(device, &here, e);
        pool_name(device, "pool", &here, e);
        label(device, "device", &here, e);
        share(device, &here, e);
        if !allocated.contains(&identity(device)) {
            e.invalid_text(
                &here,
                &shown(device),
                "must be an allocated device in the claim",
            );
        }
        items(device, "conditions", 8, &here, e);
        conditions::conditions(device, &here.child("conditions"), e);
        if has(device, "data") {
            raw(device, "data", Some(super::MOST_PARAMETERS), &here, e);
        }
        network(at(device, "networkData"), &here.child("networkData"), e);
    }
    for (i, device) in all.iter().enumerate() {
        if all[..i].iter().any(|d| identity(d) == identity(device)) {
            e.duplicate_shown(&here.index(i), &show(&shown(device).into()));
        }
    }
}

fn network(data: &Value, path: &Path<'_>, e: &mut Errors) {
    for (field, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if text(data, field).len() > most {
            e.too_long(&path.child(field), most);
        }
    }
    let here = path.child("ips");
    let ips = items(data, "ips", 16, path, e);
    for (i, ip) in ips.iter().enumerate() {
        let ip = ip.as_str().unwrap_or("");
        e.invalid_each(&here.index(i), ip, names::interface_address(ip));
    }
    unique(ips.iter().map(|i| i.as_str().unwrap_or("")), &here, e);
}
