//! Patches and field ownership against conversations recorded with Kubernetes 1.36.
//!
//! The recordings are not part of the project: where they are missing the test says so and passes.
//! Each request goes the server's way: patched, decoded, defaulted, tracked. What other parts do
//! (admission, allocation, controllers' own writes) is missing, so each area has a floor of agreeing
//! steps instead of all of them. `GANTRY_FIELDS_VERBOSE=1` prints
//! every difference.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says no by panicking"
)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use gantry_machinery::{
    apply::{self, Manager, Operation, ResetFields, reset_fields},
    decode, defaults, patch,
    resource::{Resource, builtin_resources},
    schema,
};
use serde_json::{Value, json};

fn cases() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let shared = std::env::var_os("GANTRY_SHARED").map(PathBuf::from);
    shared
        .into_iter()
        .chain([
            root.join("../../../shared"),
            root.join("../../../../shared"),
        ])
        .map(|p| p.join("golden/cases"))
        .find(|p| p.is_dir())
}

/// The resource, subresource and object of a path.
fn locate(path: &str) -> Option<(&'static Resource, Option<String>, String)> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..]
            if !rest.is_empty() && !matches!(rest[0], "status" | "finalize") =>
        {
            rest
        }
        rest => rest,
    };
    let plural = rest.first()?;
    let resource = builtin_resources()
        .iter()
        .find(|r| r.group == group && r.version == version && r.plural == *plural)?;
    let name = rest.get(1).copied().unwrap_or_default().to_owned();
    let subresource = rest.get(2).map(|s| (*s).to_owned());
    Some((resource, subresource, format!("{group}/{plural}/{name}")))
}

fn entries(object: &Value) -> Vec<Value> {
    let mut all: Vec<Value> = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for entry in &mut all {
        // The recordings hold a placeholder for every uid.
        let text = entry
            .to_string()
            .replace("11111111-2222-3333-4444-555555555555", "<uid>")
            .replace("\\\\u003c", "<")
            .replace("\\\\u003e", ">");
        *entry = serde_json::from_str(&text).unwrap();
        if let Some(time) = entry.get_mut("time") {
            *time = json!("<time>");
        }
    }
    all.sort_by_key(ToString::to_string);
    all
}

/// Whether all of `part` is in `whole`, list items in the same places.
fn within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(a), Value::Object(b)) => a.iter().all(|(k, v)| {
            matches!(
                k.as_str(),
                "resourceVersion" | "managedFields" | "generation"
            ) || match b.get(k) {
                Some(w) => within(v, w),
                None => v.as_object().is_some_and(serde_json::Map::is_empty),
            }
        }),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| within(a, b))
        }
        _ => part == whole,
    }
}

/// A request's object as the server has it when ownership is recorded: decoded and defaulted.
fn typed(resource: &Resource, mut object: Value, old: Option<&Value>) -> Option<Value> {
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
    decode::normalize(resource, &mut object).ok()?;
    defaults::apply(resource, &mut object, old);
    Some(object)
}

#[derive(Default)]
struct Tally {
    agreed: usize,
    differed: Vec<String>,
}

impl Tally {
    fn check(&mut self, agrees: bool, what: impl FnOnce() -> String) {
        if agrees {
            self.agreed += 1;
        } else {
            self.differed.push(what());
        }
    }
}

struct Replay {
    objects: BTreeMap<String, Value>,
}

impl Replay {
    fn step(&mut self, name: &str, step: &Value, tallies: &mut BTreeMap<&'static str, Tally>) {
        let method = step["method"].as_str().unwrap_or("");
        let Some((resource, subresource, mut key)) = locate(step["path"].as_str().unwrap_or(""))
        else {
            return;
        };
        let expected = &step["expect"]["body"];
        let status = step["expect"]["status"].as_u64().unwrap_or(0);
        let query = |k: &str| step["query"][k].as_str().unwrap_or("");
        if !query("dryRun").is_empty() || resource.kind == "CustomResourceDefinition" {
            return;
        }
        let whole = expected.pointer("/metadata/uid").is_some();
        let manager = Manager {
            name: if query("fieldManager").is_empty() {
                "golden"
            } else {
                query("fieldManager")
            },
            operation: Operation::Update,
            api_version: &resource.api_version(),
            subresource: subresource.as_deref().unwrap_or(""),
            time: jiff::Timestamp::UNIX_EPOCH,
        };
        let reset = reset_fields(resource, subresource.as_deref());
        if subresource.as_deref() == Some("scale") {
            self.scale(name, resource, &key, step, manager);
            return;
        }
        let schema = resource.schema();
        if key.ends_with('/') {
            let object = if whole { expected } else { &step["body"] };
            key.push_str(
                object
                    .pointer("/metadata/name")
                    .and_then(Value::as_str)
                    .unwrap_or(""),
            );
        }
        let label = |area: &str| format!("{area} {name} {method} {}", step["path"]);
        let old = self.objects.get(&key).cloned();
        let content_type = step["content_type"].as_str().unwrap_or("");
        match (method, content_type) {
            ("POST" | "PUT", _)
                if status < 300
                    && subresource.as_deref() != Some("binding")
                    && subresource.as_deref() != Some("eviction")
                    && subresource.as_deref() != Some("token") =>
            {
                let body = match &step["body"] {
                    Value::String(text) => serde_saphyr::from_str(text).unwrap_or(Value::Null),
                    body => body.clone(),
                };
                let Some(mut new) = typed(resource, body, old.as_ref()) else {
                    return;
                };
                // A create wipes what only the server sets.
                for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
                    new["metadata"].as_object_mut().map(|m| m.remove(field));
                }
                // What the request sends, so that entries come from the old object.
                new["metadata"]
                    .as_object_mut()
                    .map(|m| m.remove("managedFields"));
                apply::track_update(schema, &reset, old.as_ref(), &mut new, manager).unwrap();
                if whole {
                    let area = if old.is_none() { "create" } else { "update" };
                    let (mine, theirs) = (entries(&new), entries(expected));
                    tallies.entry(area).or_default().check(mine == theirs, || {
                        format!(
                            "{}\n  ours   {}\n  theirs {}",
                            label(area),
                            json!(mine),
                            json!(theirs)
                        )
                    });
                    new = expected.clone();
                }
                self.objects.insert(key, new);
            }
            ("PATCH", "apply") => {
                let config = match &step["body"] {
                    Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
                    other => other.clone(),
                };
                if !config.is_object() || query("fieldManager").is_empty() {
                    return;
                }
                let manager = Manager {
                    operation: Operation::Apply,
                    ..manager
                };
                let force = matches!(query("force"), "true" | "1");
                let outcome = apply::apply(schema, &reset, old.as_ref(), config, manager, force);
                let tally = tallies.entry("apply").or_default();
                match (&outcome, status) {
                    (Ok(new), 200 | 201) => {
                        if whole {
                            let (mine, theirs) = (entries(new), entries(expected));
                            tally.check(mine == theirs, || {
                                format!(
                                    "{}\n  ours   {}\n  theirs {}",
                                    label("apply"),
                                    json!(mine),
                                    json!(theirs)
                                )
                            });
                        }
                        let new = if whole { expected.clone() } else { new.clone() };
                        self.objects.insert(key, new);
                    }
                    (Err(failure), 400..) => {
                        let same = failure.code as u64 == status
                            && failure.message == expected["message"].as_str().unwrap_or("");
                        tally.check(same, || {
                            format!(
                                "{}\n  ours   {} {}\n  theirs {status} {}",
                                label("apply"),
                                failure.code,
                                failure.message,
                                expected["message"]
                            )
                        });
                    }
                    // What validation, admission or the store refuses later.
                    (Ok(_), 409 | 422 | 404) => {}
                    (outcome, _) => tally.check(false, || {
                        format!(
                            "{}\n  ours   {outcome:?}\n  theirs {status} {}",
                            label("apply"),
                            expected["message"]
                        )
                    }),
                }
            }
            ("PATCH", _) => {
                let Some(old) = old else { return };
                let body = &step["body"];
                let text = match body {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let outcome = match content_type {
                    "json" => patch::json(&old, text.as_bytes()),
                    "merge" if body.is_object() => Ok(patch::merge(old.clone(), body.clone())),
                    "strategic" => patch::strategic(schema, old.clone(), body.clone()),
                    _ => return,
                };
                let tally = tallies.entry("patch").or_default();
                match (outcome, status) {
                    (Ok(patched), 200) if whole => {
                        let mut sent = patched.clone();
                        if subresource.as_deref() == Some("status") {
                            sent = json!({"status": patched["status"]});
                        }
                        sent.as_object_mut().map(|o| o.remove("stringData"));
                        tally.check(within(&sent, expected), || {
                            format!(
                                "{}\n  ours   {patched}\n  theirs {expected}",
                                label("patch")
                            )
                        });
                        let Some(mut new) = typed(resource, patched.clone(), Some(&old)) else {
                            return;
                        };
                        match patched.pointer("/metadata/managedFields") {
                            Some(entries) => new["metadata"]["managedFields"] = entries.clone(),
                            None => {
                                new["metadata"]
                                    .as_object_mut()
                                    .map(|m| m.remove("managedFields"));
                            }
                        }
                        apply::track_update(schema, &reset, Some(&old), &mut new, manager).unwrap();
                        let (mine, theirs) = (entries(&new), entries(expected));
                        tallies
                            .entry("update")
                            .or_default()
                            .check(mine == theirs, || {
                                format!(
                                    "{}\n  ours   {}\n  theirs {}",
                                    label("update"),
                                    json!(mine),
                                    json!(theirs)
                                )
                            });
                        self.objects.insert(key, expected.clone());
                    }
                    (Ok(patched), 200) => {
                        let Some(mut patched) = typed(resource, patched, Some(&old)) else {
                            return;
                        };
                        apply::track_update(schema, &reset, Some(&old), &mut patched, manager)
                            .unwrap();
                        self.objects.insert(key, patched);
                    }
                    (Err(failure), 400..) => {
                        let message = expected["message"].as_str().unwrap_or("");
                        tally.check(
                            failure.code as u64 == status && failure.message == message,
                            || {
                                format!(
                                    "{}\n  ours   {} {}\n  theirs {status} {message}",
                                    label("patch"),
                                    failure.code,
                                    failure.message
                                )
                            },
                        );
                    }
                    (Err(failure), _) => tally.check(false, || {
                        format!(
                            "{}\n  ours   {} {}\n  theirs {status}",
                            label("patch"),
                            failure.code,
                            failure.message
                        )
                    }),
                    (Ok(_), _) => {}
                }
            }
            ("GET", _) if whole && status == 200 && expected["kind"] == json!(resource.kind) => {
                if let Some(ours) = &old {
                    let (mine, theirs) = (entries(ours), entries(expected));
                    tallies
                        .entry("read")
                        .or_default()
                        .check(mine == theirs, || {
                            format!(
                                "{}\n  ours   {}\n  theirs {}",
                                label("read"),
                                json!(mine),
                                json!(theirs)
                            )
                        });
                }
                self.objects.insert(key, expected.clone());
            }
            _ => {}
        }
    }

    fn scale(
        &mut self,
        name: &str,
        resource: &Resource,
        key: &str,
        step: &Value,
        manager: Manager<'_>,
    ) {
        let (Some(parent), Some(path)) =
            (self.objects.get_mut(key), apply::replicas_path(resource))
        else {
            return;
        };
        if step["expect"]["status"] != json!(200) || step["method"] == json!("GET") {
            return;
        }
        let id = schema::builtin_by_gvk("autoscaling", "v1", "Scale").unwrap();
        let schema = schema::builtin(id);
        let version = resource.api_version();
        let head =
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x"}});
        let mut old = head.clone();
        old["spec"] = json!({"replicas": parent["spec"]["replicas"].as_i64().unwrap_or(1)});
        if let Some(entries) = apply::to_scale(&path, parent.pointer("/metadata/managedFields")) {
            old["metadata"]["managedFields"] = entries;
        }
        let manager = Manager {
            api_version: "autoscaling/v1",
            ..manager
        };
        let body = step["body"].clone();
        let new = if step["content_type"] == json!("apply") {
            let manager = Manager {
                operation: Operation::Apply,
                ..manager
            };
            let force = step["query"]["force"] == json!("true");
            apply::apply(
                schema,
                &ResetFields::none(),
                Some(&old),
                body,
                manager,
                force,
            )
            .unwrap_or_else(|e| panic!("{name}: {e}"))
        } else {
            let mut new = patch::merge(old.clone(), body);
            apply::track_update(schema, &ResetFields::none(), Some(&old), &mut new, manager)
                .unwrap();
            new
        };
        let entries = apply::from_scale(
            &path,
            parent.pointer("/metadata/managedFields"),
            new.pointer("/metadata/managedFields"),
            &version,
        );
        parent["spec"]["replicas"] = new["spec"]["replicas"].clone();
        parent["metadata"]["managedFields"] = entries.unwrap_or_else(|| json!([]));
    }
}

#[test]
fn agrees_with_kubernetes() {
    let Some(root) = cases() else {
        eprintln!("skipped: no recorded conversations beside the project");
        return;
    };
    let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
    let mut files: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap()
        .flat_map(|area| fs::read_dir(area.unwrap().path()).unwrap())
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let name = format!(
            "{}/{}",
            file.parent()
                .and_then(|p| p.file_name())
                .unwrap()
                .to_string_lossy(),
            file.file_stem().unwrap().to_string_lossy()
        );
        let case: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let mut replay = Replay {
            objects: BTreeMap::new(),
        };
        for step in case["steps"].as_array().unwrap() {
            replay.step(&name, step, &mut tallies);
        }
    }
    let verbose = std::env::var_os("GANTRY_FIELDS_VERBOSE").is_some();
    for (area, tally) in &tallies {
        println!(
            "{area}: {} agree, {} differ",
            tally.agreed,
            tally.differed.len()
        );
        if verbose {
            tally.differed.iter().for_each(|d| println!("{d}"));
        }
    }
    for (area, floor) in [
        ("apply", 37),
        ("create", 117),
        ("patch", 77),
        ("read", 75),
        ("update", 126),
    ] {
        let agreed = tallies.get(area).map_or(0, |t| t.agreed);
        assert!(
            agreed >= floor,
            "{area}: {agreed} steps agree, {floor} did before"
        );
    }
}
