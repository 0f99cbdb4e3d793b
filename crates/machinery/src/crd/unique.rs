//! Uniqueness of items in lists that are sets or maps (`x-kubernetes-list-type`).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{causes::duplicate, validate::child};
use crate::{
    schema::{ListType, Schema},
    status::Cause,
};

/// Items that stand twice in lists that are sets or maps.
pub(super) fn unique(schema: &Schema, value: &Value, path: &str, faults: &mut Vec<Cause>) {
    if schema.source.is_none() {
        return;
    }
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let declared = schema.properties.contains_key(name);
                if let Some(field) = schema.field(name) {
                    let path = match declared {
                        true => child(path, name),
                        false => format!("{path}[{name}]"),
                    };
                    unique(field, value, &path, faults);
                }
            }
        }
        Value::Array(items) => {
            match &schema.list_type {
                ListType::Atomic => {}
                ListType::Set => {
                    for i in second_times(items) {
                        faults.push(duplicate(&format!("{path}[{i}]"), &items[i]));
                    }
                }
                ListType::Map(keys) => {
                    let default = |key: &String| {
                        let field = schema.item().and_then(|s| s.field(key));
                        field.and_then(|f| f.default.clone())
                    };
                    let key_of = |item: &Value| {
                        let mut out = Map::new();
                        for key in keys {
                            if let Some(v) = item.get(key).cloned().or_else(|| default(key)) {
                                out.insert(key.clone(), v);
                            }
                        }
                        Value::Object(out)
                    };
                    let ids: Vec<Value> = items.iter().map(key_of).collect();
                    for i in second_times(&ids) {
                        faults.push(duplicate(&format!("{path}[{i}]"), &ids[i]));
                    }
                }
            }
            let Some(item) = schema.item() else { return };
            for (i, value) in items.iter().enumerate() {
                unique(item, value, &format!("{path}[{i}]"), faults);
            }
        }
        _ => {}
    }
}

/// The places of second occurrences; third and later ones are not reported again.
fn second_times(items: &[Value]) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut second = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            second.push(i);
        }
    }
    second
}
