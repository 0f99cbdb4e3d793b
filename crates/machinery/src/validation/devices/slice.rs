//! Slices of a pool of devices, as drivers publish them.

use serde_json::Value;

use super::{binding_conditions, items, label, pool_name, qualified, taints, unique};
use crate::{
    path::Path,
    quantity::Quantity,
    validation::{
        errors::{Errors, quote},
        names, resources, selectors, storage,
        value::{at, entries, flag, has, int, list, same, text},
    },
};

const MOST_DEVICES: usize = 128;
/// Where devices have taints, counters or lists of values.
const MOST_ADVANCED: usize = 64;
const MOST_FACTS: usize = 32;
const MOST_VALUES: usize = 48;
const MOST_COUNTER_SETS: usize = 8;
const MOST_COUNTERS: usize = 32;
const MOST_CONSUMED: usize = 2;
const MOST_VALUE: usize = 64;
const MOST_OPTIONS: usize = 10;
/// `metadata.name` shown of a key at most: a domain, a slash, an identifier.
const MOST_KEY: usize = 63 + 1 + 32;

const PLACES: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
const DEVICE_PLACES: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

pub fn slice(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    storage::driver(spec, &path, e);
    pool(at(spec, "pool"), &path.child("pool"), e);
    if let Some(old) = old {
        slice_update(spec, at(old, "spec"), &path, e);
    }
    places(spec, &path, e);
    if has(spec, "sharedCounters") && has(spec, "devices") {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        e.invalid_text(&path, "", detail);
    }
    let all = list(spec, "devices");
    let most = if all.iter().any(advanced) {
        MOST_ADVANCED
    } else {
        MOST_DEVICES
    };
    let here = path.child("devices");
    let all = items(spec, "devices", most, &path, e);
    for (i, one) in all.iter().enumerate() {
        let before = old.and_then(|old| {
            let there = list(at(old, "spec"), "devices");
            there.iter().find(|d| text(d, "name") == text(one, "name"))
        });
        let chosen = flag(spec, "perDeviceNodeSelection");
        device(one, before, chosen, &here.index(i), e);
    }
    unique(all.iter().map(|d| text(d, "name")), &here, e);
    let here = path.child("sharedCounters");
    let sets = items(spec, "sharedCounters", MOST_COUNTER_SETS, &path, e);
    for (i, set) in sets.iter().enumerate() {
        let here = here.index(i);
        counters(set, "name", &here, e);
    }
    unique(sets.iter().map(|s| text(s, "name")), &here, e);
}

/// A slice stays with its driver, its pool and its node.
fn slice_update(spec: &Value, old: &Value, path: &Path<'_>, e: &mut Errors) {
    let pool = path.child("pool");
    let pairs = [
        (at(spec, "pool"), at(old, "pool"), "name", &pool),
        (spec, old, "driver", path),
        (spec, old, "nodeName", path),
    ];
    for (new, old, field, path) in pairs {
        let (new, old) = (at(new, field), at(old, field));
        if !same(new, old) {
            e.invalid(&path.child(field), new, "field is immutable");
        }
    }
}

fn pool(pool: &Value, path: &Path<'_>, e: &mut Errors) {
    pool_name(pool, "name", path, e);
    let count = int(pool, "resourceSliceCount").unwrap_or(0);
    if count <= 0 {
        let here = path.child("resourceSliceCount");
        e.invalid_int(&here, count, "must be greater than zero");
    }
    let generation = int(pool, "generation").unwrap_or(0);
    if generation < 0 {
        let here = path.child("generation");
        e.invalid_int(&here, generation, "must be greater than or equal to zero");
    }
}

/// On which nodes the devices of a slice are: said in one way.
fn places(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut set = vec![];
    if let Some(name) = at(spec, "nodeName").as_str() {
        let here = path.child("nodeName");
        if name.is_empty() {
            e.invalid_text(
                &here,
                "",
                "must be either unset or set to a non-empty string",
            );
        } else {
            set.push("`nodeName`");
            e.invalid_each(&here, name, names::dns1123_subdomain(name));
        }
    }
    if has(spec, "nodeSelector") {
        set.push("`nodeSelector`");
        let (selector, here) = (at(spec, "nodeSelector"), path.child("nodeSelector"));
        selectors::node_selector(selector, &here, e);
        if list(selector, "nodeSelectorTerms").len() != 1 {
            let detail = "must have exactly one node selector term";
            let terms = at(selector, "nodeSelectorTerms");
            e.invalid(&here.child("nodeSelectorTerms"), terms, detail);
        }
    }
    for (field, shown) in [
        ("allNodes", "`allNodes`"),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`"),
    ] {
        truth(spec, field, shown, &mut set, path, e);
    }
    chosen(
        &set,
        PLACES,
        &format!("{PLACES}, but multiple fields are set"),
        path,
        e,
    );
}

/// A flag that is set to true or not at all.
fn truth<'s>(
    of: &Value,
    field: &str,
    shown: &'s str,
    set: &mut Vec<&'s str>,
    path: &Path<'_>,
    e: &mut Errors,
) {
    match at(of, field).as_bool() {
        Some(true) => set.push(shown),
        Some(false) => {
            let detail = "must be either unset or set to true";
            e.invalid_shown(&path.child(field), "false", detail);
        }
        None => {}
    }
}

/// One of several fields has to be set, and no more.
fn chosen(set: &[&str], none: &str, many: &str, path: &Path<'_>, e: &mut Errors) {
    match set.len() {
        0 => e.required(path, none),
        1 => {}
        _ => e.invalid_text(path, &format!("{{{}}}", set.join(", ")), many),
    }
}

const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

fn advanced(device: &Value) -> bool {
    let listed = |(_, fact): (&str, &Value)| LISTS.iter().any(|l| has(fact, l));
    !list(device, "taints").is_empty()
        || !list(device, "consumesCounters").is_empty()
        || entries(device, "attributes").into_iter().any(listed)
}

fn device(device: &Value, old: Option<&Value>, per_device: bool, path: &Path<'_>, e: &mut Errors) {
    label(device, "name", path, e);
    let (attributes, capacity) = (entries(device, "attributes"), entries(device, "capacity"));
    let facts = attributes.len() + capacity.len();
    let over = |what: &str, count: usize, most: usize, e: &mut Errors| {
        if count > most {
            let detail = format!("the total number of {what} must not exceed {most}");
            e.invalid_shown(path, &count.to_string(), &detail);
        }
    };
    over("attributes and capacities", facts, MOST_FACTS, e);
    let values = |(_, fact): &(&str, &Value)| {
        let listed: usize = LISTS.iter().map(|l| list(fact, l).len()).sum();
        listed.max(1)
    };
    let count = attributes.iter().map(values).sum();
    over("attribute values", count, MOST_VALUES, e);
    let here = path.child("attributes");
    for (name, value) in attributes {
        qualified(name, &here, e);
        attribute(value, &here.key(&shortened(name)), e);
    }
    let kept = |field: &str| old.is_some_and(|o| same(at(o, field), at(device, field)));
    if !kept("capacity") {
        let here = path.child("capacity");
        let shared = flag(device, "allowMultipleAllocations");
        for (name, value) in capacity {
            qualified(name, &here, e);
            let key = shortened(name);
            let here = here.key(&key);
            let here = here.child("requestPolicy");
            if !has(value, "requestPolicy") {
                continue;
            }
            if shared {
                policy(at(value, "requestPolicy"), at(value, "value"), &here, e);
            } else {
                e.forbidden(&here, "allowMultipleAllocations must be true");
            }
        }
    }
    if !kept("taints") {
        taints(device, path, e);
    }
    let here = path.child("consumesCounters");
    let consumed = items(device, "consumesCounters", MOST_CONSUMED, path, e);
    for (i, one) in consumed.iter().enumerate() {
        counters(one, "counterSet", &here.index(i), e);
    }
    unique(consumed.iter().map(|c| text(c, "counterSet")), &here, e);
    device_places(device, per_device, path, e);
    binding_conditions(device, path, e);
}

fn device_places(device: &Value, per_device: bool, path: &Path<'_>, e: &mut Errors) {
    if !per_device {
        let fields = ["nodeName", "nodeSelector", "allNodes"];
        if fields.iter().any(|f| has(device, f)) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            e.invalid_shown(path, "null", detail);
        }
        return;
    }
    let mut set = vec![];
    if let Some(name) = at(device, "nodeName").as_str() {
        let here = path.child("nodeName");
        if name.is_empty() {
            e.invalid_text(&here, "", "must not be empty");
        } else {
            set.push("`nodeName`");
            e.invalid_each(&here, name, names::dns1123_subdomain(name));
        }
    }
    if has(device, "nodeSelector") {
        set.push("`nodeSelector`");
        let here = path.child("nodeSelector");
        selectors::node_selector(at(device, "nodeSelector"), &here, e);
    }
    truth(device, "allNodes", "`allNodes`", &mut set, path, e);
    chosen(&set, DEVICE_PLACES, DEVICE_PLACES, path, e);
}

/// A key as messages show it: the middle of a long one is left out.
fn shortened(key: &str) -> String {
    if key.len() <= MOST_KEY || !key.is_ascii() {
        return key.to_owned();
    }
    let rest = MOST_KEY - 3;
    let (head, tail) = (&key[..rest.div_ceil(2)], &key[key.len() - rest / 2..]);
    format!("{head}...{tail}")
}

/// Amounts that devices of a pool share, or what a device takes of them.
fn counters(of: &Value, name: &str, path: &Path<'_>, e: &mut Errors) {
    if text(of, name).is_empty() {
        e.required(&path.child(name), "");
    } else {
        label(of, name, path, e);
    }
    let here = path.child("counters");
    let all = entries(of, "counters");
    if all.is_empty() {
        e.required(&here, "");
    } else if all.len() > MOST_COUNTERS {
        e.too_many(&here, all.len(), MOST_COUNTERS);
    } else {
        for (name, _) in all {
            e.invalid_each(&here, name, names::dns1123_label(name));
        }
    }
}

fn attribute(value: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut set = 0;
    for field in ["bool", "int", "string", "version"] {
        if has(value, field) {
            set += 1;
            scalar(field, at(value, field), &path.child(field), e);
        }
    }
    for (field, one) in LISTS.iter().zip(["bool", "int", "string", "version"]) {
        let Some(all) = at(value, field).as_array() else {
            continue;
        };
        set += 1;
        let here = path.child(field);
        if all.is_empty() {
            e.invalid(&here, at(value, field), "must not be empty if specified");
        }
        for (i, item) in all.iter().enumerate() {
            scalar(one, item, &here.index(i), e);
        }
    }
    match set {
        0 => e.invalid_text(path, "", "exactly one value must be specified"),
        1 => {}
        _ => e.invalid(path, value, "exactly one value must be specified"),
    }
}

fn scalar(kind: &str, value: &Value, path: &Path<'_>, e: &mut Errors) {
    let Some(text) = value.as_str() else { return };
    if kind == "version" && !crate::cel::is_semver(text) {
        let detail = "must be a string compatible with semver.org spec 2.0.0";
        e.invalid_text(path, text, detail);
    }
    if text.len() > MOST_VALUE {
        e.too_long(path, MOST_VALUE);
    }
}

/// Which shares of a capacity may be asked for.
fn policy(policy: &Value, capacity: &Value, path: &Path<'_>, e: &mut Errors) {
    let capacity = resources::parse(capacity);
    let values = list(policy, "validValues");
    let range = at(policy, "validRange");
    if !values.is_empty() && !range.is_null() {
        let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        e.forbidden(path, detail);
        return;
    }
    let kind = match (values.is_empty(), range.is_null()) {
        (false, _) => "validValues",
        (true, false) => "validRange",
        (true, true) => return,
    };
    if !has(policy, "default") {
        let detail = format!("required when {kind} is defined");
        e.required(&path.child("default"), &detail);
        return;
    }
    let default = resources::parse(at(policy, "default"));
    let here = path.child(kind);
    if kind == "validValues" {
        let values: Vec<Quantity> = values.iter().map(resources::parse).collect();
        valid_values(default, capacity, &values, &here, e);
    } else {
        valid_range(default, capacity, range, &here, e);
    }
}

fn shown(quantity: Quantity) -> String {
    quote(&quantity.to_string())
}

fn valid_values(
    default: Quantity,
    capacity: Quantity,
    values: &[Quantity],
    path: &Path<'_>,
    e: &mut Errors,
) {
    for (i, pair) in values.windows(2).enumerate() {
        if pair[0] > pair[1] {
            let detail = "values must be sorted in ascending order";
            e.invalid_shown(&path.index(i + 1), &shown(pair[1]), detail);
        }
    }
    if values.len() > MOST_OPTIONS {
        e.too_many(path, values.len(), MOST_OPTIONS);
    } else {
        for (i, value) in values.iter().enumerate() {
            if *value > capacity {
                let detail = format!("option is larger than capacity value: {capacity}");
                e.invalid_shown(&path.index(i), &shown(*value), &detail);
            }
        }
        for (i, value) in values.iter().enumerate() {
            if values[..i].iter().any(|v| v.value() == value.value()) {
                e.duplicate_text(&path.index(i), &value.value().to_string());
            }
        }
    }
    if !values.contains(&default) {
        let detail = "default value is not valid according to the requestPolicy";
        e.invalid_shown(path, &shown(default), detail);
    }
}

fn valid_range(
    default: Quantity,
    capacity: Quantity,
    range: &Value,
    path: &Path<'_>,
    e: &mut Errors,
) {
    let bound = |field: &str| has(range, field).then(|| resources::parse(at(range, field)));
    let Some(min) = bound("min") else {
        e.required(&path.child("min"), "required when validRange is defined");
        return;
    };
    let mut wrong = |holds: bool, field: &str, value: Quantity, detail: String| {
        if holds {
            e.invalid_shown(&path.child(field), &shown(value), &detail);
        }
    };
    let larger = |what: &str| format!("{what} is larger than capacity value: {capacity}");
    wrong(min > capacity, "min", min, larger("min"));
    let detail = format!("default is less than min: {min}");
    wrong(default < min, "default", default, detail);
    if let Some(max) = bound("max") {
        wrong(
            min > max,
            "max",
            min,
            format!("min is larger than max: {max}"),
        );
        wrong(max > capacity, "max", max, larger("max"));
        let detail = format!("default is more than max: {max}");
        wrong(default > max, "default", default, detail);
    }
    let Some(step) = bound("step") else { return };
    if step.is_zero() || step.is_negative() {
        wrong(true, "step", step, "must be greater than zero".to_owned());
        return;
    }
    let added = min.saturating_add(step);
    wrong(
        added > capacity,
        "step",
        step,
        larger(&format!("one step {added}")),
    );
    for value in [Some(default), bound("max")].into_iter().flatten() {
        let off = value.saturating_sub(min).value() % step.value().max(1) != 0;
        let detail = format!("value is not a multiple of a given step ({step}) from ({min})");
        wrong(off, "step", value, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_shortened_in_the_middle() {
        assert_eq!(shortened("a/b"), "a/b");
        let long = "x".repeat(60) + &"y".repeat(60);
        let short = shortened(&long);
        assert_eq!(short.len(), MOST_KEY);
        assert!(short.starts_with("xxx") && short.contains("x...y") && short.ends_with("yyy"));
    }
}
