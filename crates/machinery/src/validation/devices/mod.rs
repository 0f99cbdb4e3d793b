//! Dynamic resource allocation: claims for devices, their templates, classes of devices, and the
//! slices in which drivers tell which devices there are.

mod claim;
mod slice;
mod status;

use serde_json::Value;

pub use self::{
    claim::{claim, class, template},
    slice::slice,
    status::status,
};
use super::{
    errors::Errors,
    names, storage,
    value::{at, has, list, same, text},
};
use crate::{
    cel::{Type, device},
    path::Path,
};

/// Requests, constraints, configurations, selectors, results: each list holds at most this many.
const MOST: usize = 32;
/// What opaque parameters may take as JSON.
const MOST_PARAMETERS: usize = 10 * 1024;
const MOST_EXPRESSION: usize = 10 * 1024;
const MOST_POOL_NAME: usize = 253;
const MOST_IDENTIFIER: usize = 32;

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// What may not change of the kinds of this group, after all else.
pub fn update(kind: &str, new: &Value, old: &Value, e: &mut Errors) {
    let (now, before) = (at(new, "spec"), at(old, "spec"));
    // What is fixed is not looked at again: nobody could mend it.
    let fixed = matches!(kind, "ResourceClaim" | "ResourceClaimTemplate");
    if fixed && !same(now, before) {
        e.invalid(&Path::new("spec"), now, "field is immutable");
    }
}

/// A list of at most `most` items; of a longer one nothing but its length is looked at.
fn items<'v>(
    value: &'v Value,
    field: &str,
    most: usize,
    path: &Path<'_>,
    e: &mut Errors,
) -> &'v [Value] {
    let all = list(value, field);
    if all.len() > most {
        e.too_many(&path.child(field), all.len(), most);
        return &[];
    }
    all
}

/// Reports the items whose key was there before.
fn unique<'v>(keys: impl Iterator<Item = &'v str>, path: &Path<'_>, e: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, key) in keys.enumerate() {
        if seen.contains(&key) {
            e.duplicate_text(&path.index(i), key);
        } else {
            seen.push(key);
        }
    }
}

/// A name that has to be there, as a DNS label.
fn label(value: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    let name = text(value, field);
    e.invalid_each(&path.child(field), name, names::dns1123_label(name));
}

/// A pool's name: subdomains separated by slashes.
fn pool_name(value: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    let name = text(value, field);
    let here = path.child(field);
    if name.is_empty() {
        e.required(&here, "");
        return;
    }
    if name.len() > MOST_POOL_NAME {
        e.too_long(&here, MOST_POOL_NAME);
    }
    for part in name.split('/') {
        e.invalid_each(&here, part, names::dns1123_subdomain(part));
    }
}

/// The key of an attribute or a capacity: an identifier, perhaps after a domain.
fn qualified(name: &str, path: &Path<'_>, e: &mut Errors) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(id, path, e),
        [domain, id] => {
            if domain.is_empty() {
                e.invalid_text(path, "", "the domain must not be empty");
            } else {
                storage::driver_name(domain, path, e);
            }
            if id.is_empty() {
                e.invalid_text(path, "", "the name must not be empty");
            } else {
                identifier(id, path, e);
            }
        }
        _ => {}
    }
}

fn fully_qualified(name: &str, path: &Path<'_>, e: &mut Errors) {
    qualified(name, path, e);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        e.invalid_text(path, name, detail);
    }
}

fn identifier(id: &str, path: &Path<'_>, e: &mut Errors) {
    if id.len() > MOST_IDENTIFIER {
        e.too_long(path, MOST_IDENTIFIER);
    }
    let starts = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        const FORM: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        e.invalid_text(path, id, FORM);
    }
}

/// `cel.expression` of each of a list of selectors.
fn selectors(value: &Value, stored: bool, path: &Path<'_>, e: &mut Errors) {
    let here = path.child("selectors");
    for (i, selector) in items(value, "selectors", MOST, path, e).iter().enumerate() {
        let here = here.index(i);
        let here = here.child("cel");
        if !has(selector, "cel") {
            e.required(&here, "");
        } else if !stored {
            // What is stored was good once and stays so.
            let source = text(at(selector, "cel"), "expression");
            expression(source, &here.child("expression"), e);
        }
    }
}

fn expression(source: &str, path: &Path<'_>, e: &mut Errors) {
    if source.len() > MOST_EXPRESSION {
        e.too_long(path, MOST_EXPRESSION);
        return;
    }
    match device::compile(source) {
        Err(issues) => e.invalid_text(path, source, &format!("compilation failed: {issues}")),
        Ok(program) if !matches!(program.result(), Type::Bool | Type::Dyn) => {
            let got = program.result();
            let detail = format!("must evaluate to bool or the unknown type, not {got}");
            e.invalid_text(path, source, &detail);
        }
        Ok(program) => {
            let cost = program.estimate(&[("device", &*device::DEVICE)]).most;
            if cost > device::MOST_COST {
                e.forbidden(path, "too complex, exceeds cost limit");
            }
        }
    }
}

/// Parameters that a driver understands, and nobody else.
fn opaque(config: &Value, stored: bool, path: &Path<'_>, e: &mut Errors) {
    let here = path.child("opaque");
    if !has(config, "opaque") {
        e.required(&here, "");
        return;
    }
    let opaque = at(config, "opaque");
    storage::driver(opaque, &here, e);
    let most = (!stored).then_some(MOST_PARAMETERS);
    raw(opaque, "parameters", most, &here, e);
}

/// JSON that has to be an object, of at most so many bytes.
fn raw(of: &Value, field: &str, most: Option<usize>, path: &Path<'_>, e: &mut Errors) {
    let here = path.child(field);
    let value = at(of, field);
    if value.is_null() {
        e.required(&here, "");
    } else if let Some(most) = most.filter(|most| value.to_string().len() > *most) {
        e.too_long(&here, most);
    } else if !value.is_object() {
        e.invalid_text(&here, "<value omitted>", "must be a valid JSON object");
    }
}

fn taints(device: &Value, path: &Path<'_>, e: &mut Errors) {
    const MOST_TAINTS: usize = 16;
    let here = path.child("taints");
    let all = items(device, "taints", MOST_TAINTS, path, e);
    for (i, taint) in all.iter().enumerate() {
        let here = here.index(i);
        let (key, value) = (text(taint, "key"), text(taint, "value"));
        e.invalid_each(&here.child("key"), key, names::qualified_name(key));
        if !value.is_empty() {
            e.invalid_each(&here.child("value"), value, names::label_value(value));
        }
        match text(taint, "effect") {
            "" => e.required(&here.child("effect"), ""),
            effect => known_effect(effect, &here, e),
        }
    }
}

fn known_effect(effect: &str, path: &Path<'_>, e: &mut Errors) {
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        e.not_supported(&path.child("effect"), effect, &EFFECTS);
    }
}

fn tolerations(request: &Value, path: &Path<'_>, e: &mut Errors) {
    let here = path.child("tolerations");
    let all = items(request, "tolerations", 16, path, e);
    for (i, toleration) in all.iter().enumerate() {
        let here = here.index(i);
        let (key, value) = (text(toleration, "key"), text(toleration, "value"));
        if !key.is_empty() {
            e.invalid_each(&here.child("key"), key, names::qualified_name(key));
        }
        match text(toleration, "operator") {
            "Exists" if !value.is_empty() => {
                let detail = "must be empty for operator `Exists`";
                e.invalid_text(&here.child("value"), value, detail);
            }
            "Exists" => {}
            "Equal" => e.invalid_each(&here.child("value"), value, names::label_value(value)),
            "" => e.required(&here.child("operator"), ""),
            other => e.not_supported(&here.child("operator"), other, &["Equal", "Exists"]),
        }
        known_effect(text(toleration, "effect"), &here, e);
    }
}

/// The conditions that a driver sets before a pod is bound, and those that call the binding off.
fn binding_conditions(of: &Value, path: &Path<'_>, e: &mut Errors) {
    const FIELDS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    const MOST_CONDITIONS: usize = 4;
    for field in FIELDS {
        let here = path.child(field);
        for (i, name) in items(of, field, MOST_CONDITIONS, path, e)
            .iter()
            .enumerate()
        {
            let name = name.as_str().unwrap_or("");
            e.invalid_each(&here.index(i), name, names::qualified_name(name));
        }
    }
    let [wanted, failing] = FIELDS.map(|field| {
        let all = list(of, field).iter();
        all.filter_map(Value::as_str).collect::<Vec<_>>()
    });
    unique(wanted.iter().copied(), &path.child(FIELDS[0]), e);
    let here = path.child(FIELDS[1]);
    for (i, name) in failing.iter().enumerate() {
        if failing[..i].contains(name) {
            e.duplicate_text(&here.index(i), name);
        }
        if wanted.contains(name) {
            let detail = "bindingFailureConditions must not overlap with bindingConditions";
            e.invalid_text(&here.index(i), name, detail);
        }
    }
    let lacking = match (wanted.is_empty(), failing.is_empty()) {
        (true, false) => Some((
            0,
            "bindingConditions are required to use bindingFailureConditions",
        )),
        (false, true) => Some((
            1,
            "bindingFailureConditions are required to use bindingConditions",
        )),
        _ => None,
    };
    if let Some((field, detail)) = lacking {
        e.invalid(&path.child(FIELDS[field]), at(of, FIELDS[field]), detail);
    }
}
