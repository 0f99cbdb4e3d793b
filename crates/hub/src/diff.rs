//! How two revisions differ: field by field, texts of several lines line by line. Pure.

use gantry_api::RevisionSpec;
use serde_json::{Map, Value, json};

/// A field in which two revisions differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name: `env A`, `config /etc/x`, `resources.limits.cpu`.
    pub name: String,
    /// Lines taken away (`-`), added (`+`) and, next to those, kept.
    pub lines: Vec<(char, String)>,
}

/// The fields in which two revisions differ, by name.
pub fn compare(a: &RevisionSpec, b: &RevisionSpec) -> Vec<Field> {
    let names = changed(a, b);
    let (a, b) = (fields(a), fields(b));
    let split = |value: Option<&Value>| -> Vec<String> {
        let text = value.map(word);
        text.iter()
            .flat_map(|t| t.lines().map(str::to_owned))
            .collect()
    };
    names
        .into_iter()
        .map(|name| Field {
            lines: lines(&split(a.get(&name)), &split(b.get(&name))),
            name,
        })
        .collect()
}

/// Names of the fields in which two revisions differ.
pub fn changed(a: &RevisionSpec, b: &RevisionSpec) -> Vec<String> {
    let (a, b) = (fields(a), fields(b));
    let mut names: Vec<String> = a.keys().chain(b.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| a.get(name) != b.get(name));
    names
}

/// A revision as flat fields: `env A`, `config /etc/x`, `resources.limits.cpu`.
fn fields(spec: &RevisionSpec) -> Map<String, Value> {
    let mut flat = Map::new();
    flat.insert("image".into(), json!(spec.image));
    for (container, image) in &spec.images {
        flat.insert(format!("image of {container}"), json!(image));
    }
    for var in &spec.env {
        let value = match (&var.value, &var.value_from) {
            (_, Some(from)) => json!(from),
            (value, None) => json!(value.clone().unwrap_or_default()),
        };
        flat.insert(format!("env {}", var.name), value);
    }
    for file in &spec.config {
        flat.insert(format!("config {}", file.path), json!(file.text));
    }
    for (name, list) in [("command", &spec.command), ("args", &spec.args)] {
        if !list.is_empty() {
            flat.insert(name.into(), json!(list));
        }
    }
    nested("resources", &json!(spec.resources), &mut flat);
    nested("probes", &json!(spec.probes), &mut flat);
    flat
}

fn nested(path: &str, value: &Value, flat: &mut Map<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (key, value) in map {
                nested(&format!("{path}.{key}"), value, flat);
            }
        }
        other => {
            flat.insert(path.to_owned(), other.clone());
        }
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Lines taken away (`-`), added (`+`) and, next to those, kept: by the longest common subsequence.
fn lines(a: &[String], b: &[String]) -> Vec<(char, String)> {
    let mut common = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut all = Vec::new();
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            all.push((' ', a[i].clone()));
            i += 1;
            j += 1;
        } else if i < a.len() && (j == b.len() || common[i + 1][j] >= common[i][j + 1]) {
            all.push(('-', a[i].clone()));
            i += 1;
        } else {
            all.push(('+', b[j].clone()));
            j += 1;
        }
    }
    let near = |n: usize| {
        let from = n.saturating_sub(2);
        all[from..(n + 3).min(all.len())]
            .iter()
            .any(|(m, _)| *m != ' ')
    };
    let keep: Vec<bool> = (0..all.len()).map(near).collect();
    all.into_iter()
        .zip(keep)
        .filter(|(_, keep)| *keep)
        .map(|(line, _)| line)
        .collect()
}
