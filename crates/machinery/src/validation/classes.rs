//! Classes of storage and of the attributes of volumes.

use serde_json::Value;

use super::{
    errors::Errors,
    names,
    value::{at, entries, list, same, text},
};
use crate::path::Path;

/// A class of storage.
pub fn storage_class(object: &Value, e: &mut Errors) {
    let provisioner = text(object, "provisioner");
    let path = Path::new("provisioner");
    if provisioner.is_empty() {
        e.required(&path, "");
    } else {
        e.invalid_each(
            &path,
            provisioner,
            names::qualified_name(&provisioner.to_lowercase()),
        );
    }
    parameters(object, false, e);
    let policy = text(object, "reclaimPolicy");
    if !matches!(policy, "" | "Delete" | "Retain") {
        e.not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    let path = Path::new("volumeBindingMode");
    match text(object, "volumeBindingMode") {
        "" => e.required(&path, ""),
        "Immediate" | "WaitForFirstConsumer" => {}
        mode => e.not_supported(&path, mode, &["Immediate", "WaitForFirstConsumer"]),
    }
    topologies(object, e);
}

/// Where volumes of a class may be: terms of labels with values, no two the same.
fn topologies(object: &Value, e: &mut Errors) {
    let path = Path::new("allowedTopologies");
    let terms = list(object, "allowedTopologies");
    let facts = |term: &Value| {
        let mut all: Vec<(String, Vec<String>)> = list(term, "matchLabelExpressions")
            .iter()
            .map(|x| {
                let mut values: Vec<String> =
                    list(x, "values").iter().map(Value::to_string).collect();
                values.sort_unstable();
                (text(x, "key").to_owned(), values)
            })
            .collect();
        all.sort_unstable();
        all
    };
    let mut seen = vec![];
    for (i, term) in terms.iter().enumerate() {
        let here = path.index(i);
        let expressions = here.child("matchLabelExpressions");
        let all = list(term, "matchLabelExpressions");
        for (j, expression) in all.iter().enumerate() {
            let path = expressions.index(j);
            let values = list(expression, "values");
            let values_path = path.child("values");
            if values.is_empty() {
                e.required(&values_path, "");
            }
            for (k, value) in values.iter().enumerate() {
                if values[..k].contains(value) {
                    e.duplicate(&values_path.index(k), value);
                }
            }
            let key = text(expression, "key");
            e.invalid_each(&path.child("key"), key, names::qualified_name(key));
            if all[..j].iter().any(|x| text(x, "key") == key) {
                e.duplicate_text(&path.child("key"), key);
            }
        }
        let own = facts(term);
        if seen.contains(&own) {
            e.duplicate_shown(&here.child("matchLabelExpressions"), "\"\"");
        }
        seen.push(own);
    }
}

/// Parameters of a class: limited in number and size, and named.
fn parameters(object: &Value, needed: bool, e: &mut Errors) {
    let path = Path::new("parameters");
    let all = entries(object, "parameters");
    if needed && all.is_empty() {
        e.required(&path, "must contain at least one key/value pair");
    }
    if all.len() > 512 {
        e.too_long(&path, 512);
        return;
    }
    let mut size = 0;
    for (key, value) in all {
        if key.is_empty() {
            e.invalid_text(&path, key, "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > 256 * 1024 {
        e.too_long(&path, 256 * 1024);
    }
}

/// A class of attributes.
pub fn attributes(object: &Value, e: &mut Errors) {
    let driver = text(object, "driverName");
    let path = Path::new("driverName");
    if driver.is_empty() {
        e.required(&path, "");
    } else {
        let lower = driver.to_lowercase();
        e.invalid_each(&path, driver, names::qualified_name(&lower));
    }
    parameters(object, true, e);
}

/// What a class of attributes is cannot change.
pub fn attributes_update(new: &Value, old: &Value, e: &mut Errors) {
    if text(new, "driverName") != text(old, "driverName") {
        let path = Path::new("driverName");
        e.forbidden(&path, "updates to driverName are forbidden.");
    }
    if !same(at(new, "parameters"), at(old, "parameters")) {
        let path = Path::new("parameters");
        e.forbidden(&path, "updates to parameters are forbidden.");
    }
}
