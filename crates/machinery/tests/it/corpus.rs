//! The recorded conversations with Kubernetes, as far as these rules decide them without a server:
//! each case's first creation goes through decoding, defaulting and validation.
//!
//! The recordings are found beside the project (`../shared/golden`) or under `GANTRY_SHARED`; where
//! they are absent the test says so and passes.

#![expect(clippy::expect_used, reason = "a test says no by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_machinery::{
    decode::{self, FieldValidation, Format},
    defaults,
    resource::{Resource, builtin_resources},
    table, validation,
};
use serde_json::{Map, Value};

fn golden() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places: Vec<PathBuf> = std::env::var_os("GANTRY_SHARED")
        .into_iter()
        .map(PathBuf::from)
        .collect();
    places.extend(["../../../shared", "../../../../shared"].map(|p| root.join(p)));
    places
        .into_iter()
        .map(|p| p.join("golden/cases"))
        .find(|p| p.is_dir())
}

fn cases(dir: &Path) -> Vec<(String, Value)> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("folder of cases")
        .map(|e| e.expect("entry").path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("case");
            let case: Value = serde_json::from_str(&text).expect("case is JSON");
            (case["name"].as_str().unwrap_or("").to_owned(), case)
        })
        .collect()
}

/// `${ns}` and `${v*1000}` as the replay program fills them in.
fn fill(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let end = rest[at..].find('}').map_or(rest.len(), |e| at + e);
        match &rest[at + 2..end] {
            "ns" => out.push_str("ns"),
            other => match other.split_once('*') {
                Some((what, times)) => out.push_str(&what.repeat(times.parse().expect("number"))),
                None => out.push('1'),
            },
        }
        rest = rest.get(end + 1..).unwrap_or("");
    }
    out + rest
}

fn resource_of(path: &str) -> Option<Arc<Resource>> {
    let path = path.split('?').next()?;
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let plural = match rest {
        ["namespaces", _, plural] | [plural] => *plural,
        _ => return None,
    };
    builtin_resources()
        .iter()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
        .cloned()
}

/// What a creation gives without a server: the object, or the Status.
fn run(resource: &Resource, step: &Value) -> Result<Value, Value> {
    let body = match &step["body"] {
        Value::String(text) => fill(text),
        other => fill(&other.to_string()),
    };
    let format = match step["content_type"].as_str() {
        Some("application/yaml") => Format::Yaml,
        _ => Format::Json,
    };
    let checking = match step["query"]["fieldValidation"].as_str() {
        Some("Strict") => FieldValidation::Strict,
        Some("Ignore") => FieldValidation::Ignore,
        _ => FieldValidation::Warn,
    };
    let decoded =
        decode::decode(resource, body.as_bytes(), format, checking).map_err(|f| f.to_value())?;
    let mut object = decoded.object;
    if resource.namespaced() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = "ns".into();
    }
    // The server makes names before it validates.
    let metadata = &mut object["metadata"];
    if metadata["name"].is_null() && metadata["generateName"].is_string() {
        let name = format!("{}x1y2z", metadata["generateName"].as_str().unwrap_or(""));
        metadata["name"] = name.into();
    }
    defaults::apply(resource, &mut object, None);
    let cx = validation::Context {
        resource,
        subresource: None,
        allow_privileged: false,
    };
    let causes = validation::create(&cx, &object);
    if causes.is_empty() {
        return Ok(object);
    }
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    Err(validation::invalid(resource, name, causes).to_value())
}

/// What a strategy or an admission plugin of the server adds, and what only it can know.
fn reduce(kind: &str, value: &Value, expected: &Value) -> Value {
    let mut out = value.clone();
    if let Value::Object(map) = &mut out {
        map.remove("metadata");
        map.remove("status");
    }
    let drop: &[&str] = match kind {
        "Pod" => &["tolerations", "priority", "preemptionPolicy"],
        "Service" => &[
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "healthCheckNodePort",
        ],
        "Node" => &["taints"],
        "Namespace" => &["finalizers"],
        "Job" => &["selector", "template"],
        _ => &[],
    };
    if let Some(spec) = out.get_mut("spec").and_then(Value::as_object_mut) {
        drop.iter().for_each(|name| {
            spec.remove(*name);
        });
    }
    placeholders(&mut out, expected);
    out
}

/// Leaves out what the recording does not pin down (`<uid>`, `<port>`, …).
fn placeholders(value: &mut Value, expected: &Value) {
    let unknown = |v: &Value| {
        v.as_str()
            .is_some_and(|t| t.starts_with('<') && t.ends_with('>'))
    };
    match (value, expected) {
        (Value::Object(map), Value::Object(expected)) => {
            map.retain(|name, _| !expected.get(name).is_some_and(unknown));
            for (name, value) in map.iter_mut() {
                if let Some(expected) = expected.get(name) {
                    placeholders(value, expected);
                }
            }
        }
        (Value::Array(list), Value::Array(expected)) => {
            for (value, expected) in list.iter_mut().zip(expected) {
                placeholders(value, expected);
            }
        }
        _ => {}
    }
}

/// The part of a Status that these rules decide.
fn status_of(value: &Value) -> Value {
    let mut out = Map::new();
    for name in ["code", "reason", "message", "details"] {
        if !value[name].is_null() {
            out.insert(name.into(), value[name].clone());
        }
    }
    Value::Object(out)
}

/// Whether the case's first creation comes out as recorded; `None` where no server-less rule
/// decides it.
fn check(case: &Value) -> Option<Result<(), String>> {
    let step = case["steps"]
        .as_array()?
        .iter()
        .find(|s| s["method"] == "POST")?;
    let resource = resource_of(&fill(step["path"].as_str()?))?;
    let kind = resource.kind.as_str();
    if step["match"] == "status" {
        let good = step["expect"]["status"] == 201;
        return good.then(|| match run(&resource, step) {
            Ok(_) => Ok(()),
            Err(status) => Err(format!("refused: {}", status["message"])),
        });
    }
    let expected: Value = serde_json::from_str(&fill(&step["expect"]["body"].to_string())).ok()?;
    match step["expect"]["status"].as_u64()? {
        201 => Some(match run(&resource, step) {
            Ok(object) => {
                let want = reduce(kind, &expected, &expected);
                let got = reduce(kind, &object, &expected);
                if want == got {
                    Ok(())
                } else {
                    Err(format!("want {want}\n      got {got}"))
                }
            }
            Err(status) => Err(format!("refused: {}", status["message"])),
        }),
        400 | 422 => Some(match run(&resource, step) {
            Err(status) => {
                let (want, got) = (status_of(&expected), status_of(&status));
                if want == got || expected["message"] == "<ignored>" {
                    Ok(())
                } else {
                    Err(format!("want {want}\n      got {got}"))
                }
            }
            Ok(_) => Err(format!("taken; want {}", expected["message"])),
        }),
        _ => None,
    }
}

#[test]
fn creations_come_out_as_recorded() {
    let Some(root) = golden() else {
        println!("skipped: no recordings beside the project");
        return;
    };
    let (mut passed, mut failed) = (0, 0);
    for area in ["crud", "validation"] {
        for (name, case) in cases(&root.join(area)) {
            match check(&case) {
                Some(Ok(())) => passed += 1,
                Some(Err(why)) => {
                    failed += 1;
                    println!("FAIL {area}/{name}\n      {why}");
                }
                None => {}
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    // A floor, raised as the rules grow.
    assert!(passed >= FLOOR, "{passed} of {} pass", passed + failed);
}

const FLOOR: usize = 335;

/// Whether a replacement right after the creation is judged as recorded.
fn check_update(case: &Value) -> Option<Result<(), String>> {
    let steps = case["steps"].as_array()?;
    let [post, put] = steps.as_slice() else {
        return None;
    };
    if post["method"] != "POST" || put["method"] != "PUT" {
        return None;
    }
    let resource = resource_of(&fill(post["path"].as_str()?))?;
    let old = run(&resource, post).ok()?;
    let body = fill(&put["body"].to_string());
    let decoded = decode::decode(
        &resource,
        body.as_bytes(),
        Format::Json,
        FieldValidation::Warn,
    );
    let mut new = decoded.ok()?.object;
    for field in ["namespace", "uid", "creationTimestamp"] {
        if !old["metadata"][field].is_null() {
            new["metadata"][field] = old["metadata"][field].clone();
        }
    }
    defaults::apply(&resource, &mut new, Some(&old));
    let cx = validation::Context {
        resource: &resource,
        subresource: None,
        allow_privileged: false,
    };
    let causes = validation::update(&cx, &new, &old);
    let expected: Value = serde_json::from_str(&fill(&put["expect"]["body"].to_string())).ok()?;
    let name = new["metadata"]["name"].as_str().unwrap_or("").to_owned();
    match put["expect"]["status"].as_u64()? {
        200 if causes.is_empty() => Some(Ok(())),
        200 => Some(Err(format!("refused: {causes:?}"))),
        422 => {
            let got = status_of(&validation::invalid(&resource, &name, causes).to_value());
            let want = status_of(&expected);
            Some(if got == want {
                Ok(())
            } else {
                Err(format!("want {want}\n      got {got}"))
            })
        }
        _ => None,
    }
}

#[test]
fn replacements_are_judged_as_recorded() {
    let Some(root) = golden() else {
        println!("skipped: no recordings beside the project");
        return;
    };
    let (mut passed, mut failed) = (0, 0);
    for area in ["crud", "validation", "lifecycle", "subresources"] {
        for (name, case) in cases(&root.join(area)) {
            match check_update(&case) {
                Some(Ok(())) => passed += 1,
                Some(Err(why)) => {
                    failed += 1;
                    println!("FAIL {area}/{name}\n      {why}");
                }
                None => {}
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    assert!(passed >= UPDATE_FLOOR, "{passed} of {}", passed + failed);
}

const UPDATE_FLOOR: usize = 38;

/// Whether a table of one created object has the recorded cells.
fn check_table(case: &Value) -> Option<Result<(), String>> {
    let steps = case["steps"].as_array()?;
    let [post, get] = steps.as_slice() else {
        return None;
    };
    if post["method"] != "POST" || get["method"] != "GET" {
        return None;
    }
    let expected: Value = serde_json::from_str(&fill(&get["expect"]["body"].to_string())).ok()?;
    let mut want = expected["rows"][0]["cells"].clone();
    if want.is_null() {
        return None;
    }
    let resource = resource_of(&fill(post["path"].as_str()?))?;
    let object = run(&resource, post).ok()?;
    let (columns, rows) = table::table(&resource, &[&object], jiff::Timestamp::UNIX_EPOCH);
    let mut got = rows[0].clone();
    // Ages, addresses and what the server stamps on objects are not pinned down.
    if let (Some(want), Some(got)) = (want.as_array_mut(), got.as_array_mut()) {
        for (want, got) in want.iter_mut().zip(got) {
            if want.as_str().is_some_and(|t| {
                ["<age>", "<time>", "<address>", "<port>"]
                    .iter()
                    .any(|p| t.contains(p))
            }) {
                *got = want.clone();
            }
        }
    }
    let names = |columns: &Value| -> Vec<Value> {
        let all = columns.as_array().cloned().unwrap_or_default();
        all.iter().map(|c| c["name"].clone()).collect()
    };
    let heads = (names(&expected["columnDefinitions"]), names(&columns));
    Some(if want == got && heads.0 == heads.1 {
        Ok(())
    } else {
        Err(format!("want {want}\n      got {got}"))
    })
}

#[test]
fn tables_have_the_recorded_cells() {
    let Some(root) = golden() else {
        println!("skipped: no recordings beside the project");
        return;
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases(&root.join("list-watch")) {
        match check_table(&case) {
            Some(Ok(())) => passed += 1,
            Some(Err(why)) => {
                failed += 1;
                println!("FAIL {name}\n      {why}");
            }
            None => {}
        }
    }
    println!("{passed} passed, {failed} failed");
    assert!(passed >= TABLE_FLOOR, "{passed} of {}", passed + failed);
}

const TABLE_FLOOR: usize = 28;
