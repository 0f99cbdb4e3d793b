//! What a pod's containers request and are limited to, each and together.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    errors::{Errors, quote},
    names,
    resources::{self, amount, is_hugepages, overcommits, parse},
    value::{at, entries, has, list, text},
};
use crate::{path::Path, quantity::Quantity};

/// `resources` of a container; `claims` are those of its pod.
pub fn requirements(requirements: &Value, claims: &[Value], path: &Path<'_>, e: &mut Errors) {
    amounts(requirements, resources::container_name, path, e);
    claim_names(requirements, claims, &path.child("claims"), e);
}

type NameRule = fn(&str, &Path<'_>, &mut Errors);

/// Requests and limits: known resources, requests not above limits.
fn amounts(requirements: &Value, name: NameRule, path: &Path<'_>, e: &mut Errors) {
    if requirements.is_null() {
        return;
    }
    let (mut basic, mut huge) = (false, false);
    let limits_path = path.child("limits");
    for (resource, value) in entries(requirements, "limits") {
        let path = limits_path.key(resource);
        name(resource, &path, e);
        amount(resource, value, &path, e);
        pages(resource, value, &path, e);
        huge |= is_hugepages(resource);
        basic |= matches!(resource, "cpu" | "memory");
    }
    let requests_path = path.child("requests");
    for (resource, value) in entries(requirements, "requests") {
        let path = requests_path.key(resource);
        name(resource, &path, e);
        amount(resource, value, &path, e);
        let request = parse(value);
        let limit = at(requirements, "limits").get(resource);
        let shown = quote(&request.to_string());
        if let Some(limit) = limit.map(parse) {
            if !overcommits(resource) && request != limit {
                e.invalid_shown(
                    &requests_path,
                    &shown,
                    &format!("must be equal to {resource} limit of {limit}"),
                );
            } else if request > limit {
                e.invalid_shown(
                    &requests_path,
                    &shown,
                    &format!("must be less than or equal to {resource} limit of {limit}"),
                );
            }
        } else if !overcommits(resource) {
            e.required(
                &limits_path,
                "Limit must be set for non overcommitable resources",
            );
        }
        pages(resource, value, &path, e);
        huge |= is_hugepages(resource);
        basic |= matches!(resource, "cpu" | "memory");
    }
    if huge && !basic {
        e.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Huge pages come whole.
fn pages(resource: &str, value: &Value, path: &Path<'_>, e: &mut Errors) {
    let Some(size) = resource.strip_prefix("hugepages-") else {
        return;
    };
    let Ok(size) = Quantity::parse(size) else {
        return;
    };
    let amount = parse(value);
    let whole = size.is_integer() && size.value() > 0;
    if !whole || amount.value() % size.value() != 0 {
        let detail = format!("{amount} is not positive integer multiple of {resource}");
        e.invalid_shown(path, &quote(&amount.to_string()), &detail);
    }
}

/// The claims a container uses: its pod's, each once.
fn claim_names(requirements: &Value, claims: &[Value], path: &Path<'_>, e: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for (i, claim) in list(requirements, "claims").iter().enumerate() {
        let here = path.index(i);
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            e.required(&here, "");
            continue;
        }
        let key = if request.is_empty() {
            name.to_owned()
        } else {
            format!("{name}/{request}")
        };
        if seen.iter().any(|s| s == name) {
            e.duplicate_text(&here, name);
        } else {
            if !request.is_empty() {
                let faults = names::dns1123_label(request);
                e.invalid_each(&here.child("request"), request, faults);
            }
            if seen.contains(&key) {
                e.duplicate_text(&here, &key);
            } else if request.is_empty() {
                let parts = seen.iter().filter(|s| s.split('/').next() == Some(name));
                for _ in parts {
                    e.duplicate_text(&here, name);
                }
            }
            seen.push(key);
        }
        if !claims.iter().any(|c| text(c, "name") == name) {
            let mut all: Vec<&str> = claims.iter().map(|c| text(c, "name")).collect();
            all.sort_unstable();
            let rest = if all.is_empty() {
                " which is empty".to_owned()
            } else {
                format!(": {}", all.join(", "))
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{rest}");
            e.not_found_detailed(&here, name, &detail);
        }
    }
}

/// What a pod needs beyond its containers.
pub fn overhead(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    if has(spec, "overhead") {
        let limits = json!({"limits": at(spec, "overhead")});
        amounts(&limits, resources::container_name, path, e);
    }
}

fn shared_name(resource: &str, path: &Path<'_>, e: &mut Errors) {
    let known = resources::name(resource, path, e);
    if known && !matches!(resource, "cpu" | "memory") && !is_hugepages(resource) {
        e.not_supported(path, resource, &["cpu", "hugepages-", "memory"]);
    }
}

/// `spec.resources`: what all of a pod's containers share.
pub fn of_pod(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let own = at(spec, "resources");
    if own.is_null() {
        return;
    }
    if has(own, "claims") {
        let detail = "claims cannot be set for Resources at pod-level";
        e.forbidden(&path.child("claims"), detail);
    }
    amounts(own, shared_name, path, e);
    let here = path.child("requests");
    for (resource, needed) in together(spec) {
        let given = at(own, "requests").get(resource);
        let given = given.map_or(Quantity::ZERO, parse);
        if needed > given {
            let detail = format!(
                "must be greater than or equal to aggregate container requests of {needed}"
            );
            e.invalid_shown(&here.key(resource), &quote(&given.to_string()), &detail);
        }
    }
    let all = path.child("containers");
    for (i, container) in list(spec, "containers").iter().enumerate() {
        for (resource, limit) in entries(at(container, "resources"), "limits") {
            let Some(most) = at(own, "limits").get(resource).map(parse) else {
                continue;
            };
            let limit = parse(limit);
            if limit > most {
                let here = all.index(i);
                let here = here.key(resource);
                let detail = format!("must be less than or equal to pod limits of {most}");
                let shown = quote(&limit.to_string());
                e.invalid_shown(&here.child("limits"), &shown, &detail);
            }
        }
    }
}

/// What a pod's containers request at any time together: those that run at once summed up, or
/// what an init container needs beside the sidecars started before it.
fn together(spec: &Value) -> BTreeMap<&str, Quantity> {
    let requests = |c| {
        entries(at(c, "resources"), "requests")
            .into_iter()
            .map(|(name, value)| (name, parse(value)))
    };
    let sidecar = |c: &&Value| text(c, "restartPolicy") == "Always";
    let inits = list(spec, "initContainers");
    let mut total: BTreeMap<&str, Quantity> = BTreeMap::new();
    let at_once = list(spec, "containers").iter();
    for container in at_once.chain(inits.iter().filter(sidecar)) {
        for (name, amount) in requests(container) {
            let sum = total.entry(name).or_insert(Quantity::ZERO);
            *sum = sum.saturating_add(amount);
        }
    }
    let mut running: BTreeMap<&str, Quantity> = BTreeMap::new();
    for init in inits {
        for (name, amount) in requests(init) {
            let before = running.get(name).copied().unwrap_or(Quantity::ZERO);
            let now = before.saturating_add(amount);
            if sidecar(&init) {
                running.insert(name, now);
            }
            let most = total.entry(name).or_insert(Quantity::ZERO);
            if now > *most {
                *most = now;
            }
        }
    }
    total
}
