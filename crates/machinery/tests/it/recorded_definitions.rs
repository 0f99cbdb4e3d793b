//! Definitions and custom resources against conversations recorded with Kubernetes 1.36. Where the
//! recordings are missing the test says so and passes. Cases of CEL rules, which are not evaluated
//! yet, are left out.

#![expect(clippy::unwrap_used, reason = "a test says no by panicking")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use gantry_machinery::{
    apply::{self, Manager, Operation},
    crd,
    resource::Resource,
    status::Cause,
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
        .map(|p| p.join("golden/cases/crd"))
        .find(|p| p.is_dir())
}

fn causes(causes: &[Cause]) -> Value {
    serde_json::to_value(causes).unwrap()
}

/// Whether all of `part` is in `whole`.
fn within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(a), Value::Object(b)) => a
            .iter()
            .all(|(k, v)| b.get(k).is_some_and(|w| within(v, w))),
        _ => part == whole,
    }
}

fn entries(object: &Value) -> Vec<Value> {
    let mut all: Vec<Value> = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for entry in &mut all {
        if let Some(time) = entry.get_mut("time") {
            *time = json!("<time>");
        }
    }
    all.sort_by_key(ToString::to_string);
    all
}

#[derive(Default)]
struct Story {
    resources: Vec<Resource>,
    definition: Option<Value>,
    objects: BTreeMap<String, Value>,
    checked: usize,
    faults: Vec<String>,
}

impl Story {
    fn check(&mut self, what: &str, ours: &Value, theirs: &Value) {
        self.checked += 1;
        if ours != theirs {
            self.faults
                .push(format!("{what}\n  ours   {ours}\n  theirs {theirs}"));
        }
    }

    fn define(&mut self, what: &str, step: &Value) {
        let mut definition = step["body"].clone();
        crd::set_defaults(&mut definition);
        let faults = crd::validate_definition(&definition, None);
        let expected = &step["expect"];
        let refused = &expected["body"]["details"]["causes"];
        if expected["status"] == json!(422) {
            self.check(what, &causes(&faults), refused);
        } else if expected["status"] == json!(201) {
            self.check(what, &causes(&faults), &json!([]));
            if let Some(names) = expected["body"].pointer("/spec/names") {
                self.check(what, &definition["spec"]["names"], names);
            }
            self.resources = crd::resources(&definition).unwrap();
            definition["status"] =
                crd::status_conditions(&definition, [], jiff::Timestamp::UNIX_EPOCH);
            self.definition = Some(definition);
        }
    }

    fn redefine(&mut self, what: &str, step: &Value) {
        let Some(old) = &self.definition else { return };
        let patched = match step["content_type"].as_str() {
            Some("json") => {
                gantry_machinery::patch::json(old, step["body"].to_string().as_bytes()).unwrap()
            }
            Some("merge") => gantry_machinery::patch::merge(old.clone(), step["body"].clone()),
            _ => return,
        };
        let faults = causes(&crd::validate_definition(&patched, Some(old)));
        let expected = &step["expect"];
        if expected["status"] == json!(422) {
            self.check(what, &faults, &expected["body"]["details"]["causes"]);
        } else if expected["status"] == json!(200) {
            self.check(what, &faults, &json!([]));
            self.resources = crd::resources(&patched).unwrap();
            self.definition = Some(patched);
        }
    }

    fn write(&mut self, what: &str, step: &Value) {
        let path = step["path"].as_str().unwrap();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let Some(at) = parts.iter().position(|p| *p == "namespaces") else {
            return;
        };
        let resource = self.resources.iter().find(|r| {
            Some(&r.version.as_str()) == parts.get(at - 1)
                && parts.get(at + 2) == Some(&r.plural.as_str())
        });
        let Some(resource) = resource.cloned() else {
            return;
        };
        let subresource = parts.get(at + 4).copied();
        let expected = &step["expect"];
        let body = &step["body"];
        let status = expected["status"].as_u64().unwrap();
        if !body.is_object()
            || !matches!(status, 200 | 201 | 409 | 422)
            || subresource == Some("scale")
        {
            return;
        }
        if resource.kind != body["kind"].as_str().unwrap_or(&resource.kind)
            || step["query"].get("fieldValidation").is_some()
        {
            return;
        }
        let name = parts.get(at + 3).map_or_else(
            || body["metadata"]["name"].as_str().unwrap_or("").to_owned(),
            |n| (*n).to_owned(),
        );
        let old = self.objects.get(&name).cloned();
        let schema = resource.schema();
        let reset = apply::reset_fields(&resource, subresource);
        let version = resource.api_version();
        let manager = Manager {
            name: step["query"]["fieldManager"].as_str().unwrap_or("golden"),
            operation: Operation::Update,
            api_version: &version,
            subresource: subresource.unwrap_or(""),
            time: jiff::Timestamp::UNIX_EPOCH,
        };
        let outcome = match (
            step["method"].as_str().unwrap(),
            step["content_type"].as_str(),
        ) {
            ("PATCH", Some("apply")) => {
                let manager = Manager {
                    operation: Operation::Apply,
                    ..manager
                };
                let force = step["query"]["force"] == json!("true");
                apply::apply(schema, &reset, old.as_ref(), body.clone(), manager, force)
            }
            ("PATCH", Some("merge")) => {
                let Some(old) = &old else { return };
                Ok(gantry_machinery::patch::merge(old.clone(), body.clone()))
            }
            ("POST", _) if old.is_none() => Ok(body.clone()),
            ("PUT", _) => Ok(body.clone()),
            _ => return,
        };
        let mut new = match outcome {
            Ok(new) => new,
            Err(failure) => {
                let theirs = json!([status, expected["body"]["message"]]);
                self.check(what, &json!([failure.code, failure.message]), &theirs);
                return;
            }
        };
        crd::prune(schema, &mut new);
        crd::default(schema, &mut new);
        let faults = crd::validate(schema, &new, old.as_ref());
        if status == 422 {
            let theirs = &expected["body"]["details"]["causes"];
            // Some faults are of metadata or of the request, which other rules find.
            let field = theirs[0]["field"].as_str().unwrap_or("spec");
            if field.starts_with("spec") || field.starts_with("status") {
                self.check(what, &causes(&faults), theirs);
            }
            return;
        }
        if status == 409 {
            return;
        }
        self.check(what, &causes(&faults), &json!([]));
        if step["content_type"] != json!("apply") {
            apply::track_update(schema, &reset, old.as_ref(), &mut new, manager).unwrap();
        }
        // The strategies of the two endpoints: each keeps what the other writes.
        if resource.custom.as_ref().is_some_and(|c| c.has_status) {
            let (mut base, other) = match (subresource, &old) {
                (Some("status"), Some(old)) => (old.clone(), new.get("status")),
                (_, old) => (new.clone(), old.as_ref().and_then(|o| o.get("status"))),
            };
            match other {
                Some(status) => base["status"] = status.clone(),
                None => {
                    base.as_object_mut().map(|o| o.remove("status"));
                }
            }
            if let Some(entries) = new.pointer("/metadata/managedFields") {
                base["metadata"]["managedFields"] = entries.clone();
            }
            new = base;
        }
        let theirs = &expected["body"];
        if let Some(spec) = theirs.get("spec") {
            self.checked += 1;
            if !within(spec, &new["spec"]) {
                self.faults
                    .push(format!("{what}\n  ours   {}\n  theirs {spec}", new["spec"]));
            }
        }
        if theirs.pointer("/metadata/managedFields").is_some() {
            self.check(what, &json!(entries(&new)), &json!(entries(theirs)));
        }
        self.objects.insert(name, new);
    }
}

#[test]
fn agrees_with_kubernetes() {
    let Some(root) = cases() else {
        eprintln!("skipped: no recorded conversations beside the project");
        return;
    };
    let mut files: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    let (mut checked, mut faults) = (0, Vec::new());
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        // `schema-several` is recorded without its causes, which come in any order.
        if name.starts_with("cel-") || name == "schema-several" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap().replace("${ns}", "ns");
        let case: Value = serde_json::from_str(&text).unwrap();
        let mut story = Story::default();
        for step in case["steps"].as_array().unwrap() {
            let path = step["path"].as_str().unwrap();
            let what = format!("{name} {} {path}", step["method"]);
            if path.ends_with("/customresourcedefinitions") && step["method"] == json!("POST") {
                story.define(&what, step);
            } else if path.contains("/customresourcedefinitions/")
                && step["method"] == json!("PATCH")
            {
                story.redefine(&what, step);
            } else if !path.contains("customresourcedefinitions") {
                story.write(&what, step);
            }
        }
        checked += story.checked;
        faults.extend(story.faults);
    }
    println!("{checked} checks, {} differ", faults.len());
    faults.iter().for_each(|f| println!("{f}"));
    assert!(checked >= 185, "only {checked} checks were made");
    assert!(faults.is_empty(), "{} checks differ", faults.len());
}
