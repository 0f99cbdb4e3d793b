//! Requests made up from seeds: objects and recorded bodies, changed at random.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gantry_machinery::{protobuf::Encoder, resource::builtin_resources};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use super::Hostile;

fn golden() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("GANTRY_SHARED").map(PathBuf::from);
    let near = ["../../../shared", "../../../../shared"].map(|p| root.join(p));
    given
        .into_iter()
        .chain(near)
        .map(|p| p.join("golden/cases"))
        .find(|p| p.is_dir())
}

/// Where objects are sent, and such objects.
pub struct Seeds {
    /// Path of the collection, kind, objects.
    kinds: Vec<(String, String, String, Vec<Value>)>,
    patches: Vec<Value>,
}

/// Of the recorded conversations where they are there; one bare object of every kind in any case.
pub fn seeds() -> Seeds {
    let mut kinds: Vec<_> = builtin_resources()
        .iter()
        .map(|r| {
            let root = match r.group.as_str() {
                "" => format!("/api/{}", r.version),
                group => format!("/apis/{group}/{}", r.version),
            };
            let path = match r.namespaced() {
                true => format!("{root}/namespaces/default/{}", r.plural),
                false => format!("{root}/{}", r.plural),
            };
            let bare = json!({
                "apiVersion": r.api_version(), "kind": r.kind, "metadata": {"name": "x"},
                "spec": {}, "status": {},
            });
            (path, r.api_version(), r.kind.clone(), vec![bare])
        })
        .collect();
    let mut patches = vec![json!({"metadata": {"labels": {"a": "b"}}})];
    let files = golden().into_iter().flat_map(|dir| {
        let areas = fs::read_dir(dir).expect("areas");
        areas.flat_map(|a| fs::read_dir(a.expect("an area").path()).expect("cases"))
    });
    let mut files: Vec<PathBuf> = files.map(|f| f.expect("a case").path()).collect();
    files.sort();
    for file in files {
        let text = fs::read_to_string(file).expect("readable");
        let text = text
            .replace("${ns}", "default")
            .replace("\"golden\"", "\"x\"");
        let case: Value = serde_json::from_str(&text).expect("JSON");
        for step in case["steps"].as_array().into_iter().flatten() {
            let body = &step["body"];
            if step["method"] == "PATCH" {
                patches.push(body.clone());
            }
            let known = kinds
                .iter_mut()
                .find(|(_, v, k, _)| body["kind"] == **k && body["apiVersion"] == **v);
            if let Some((.., objects)) = known {
                objects.push(body.clone());
            }
        }
    }
    Seeds { kinds, patches }
}

const NAMES: [&str; 12] = [
    "x",
    "",
    ".",
    "..",
    "a%2Fb",
    "%00",
    "%FF",
    "%E2%82%AC",
    "kubernetes",
    "default",
    "A",
    "*",
];
const SUBS: [&str; 16] = [
    "status",
    "scale",
    "log",
    "exec",
    "binding",
    "eviction",
    "token",
    "finalize",
    "approval",
    "proxy",
    "ephemeralcontainers",
    "resize",
    "attach",
    "portforward",
    "nope",
    "",
];

pub fn strange(rng: &mut StdRng) -> Value {
    match rng.random_range(0..24) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(i64::MIN),
        5 => json!(u64::MAX),
        6 => json!(1e308),
        7 => json!(0.5),
        8 => json!(""),
        9 => json!("\u{0}"),
        10 => json!("x".repeat(rng.random_range(1..5000))),
        11 => json!("\u{10ffff}\u{202e}é"),
        12 => json!([]),
        13 => json!({}),
        14 => json!([null]),
        15 => json!({"": {}}),
        16 => json!("9".repeat(400)),
        17 => json!("1e999999999"),
        18 => json!("-0.000000000000000000000001Ki"),
        19 => json!("9999-12-31T23:59:60Z"),
        20 => json!("/../~0~1//"),
        21 => json!("(((((a+)+)+)+)+)$"),
        22 => json!({"a": {"a": {"a": {"a": [[[[{}]]]]}}}}),
        _ => json!(i32::MAX),
    }
}

/// Changes a value somewhere.
pub fn mutate(rng: &mut StdRng, value: &mut Value) {
    let deeper = rng.random_bool(0.85);
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let at = rng.random_range(0..map.len());
            let key = map.keys().nth(at).cloned().unwrap_or_default();
            match rng.random_range(0..20) {
                0 => {
                    map.remove(&key);
                }
                1 => {
                    map.insert(format!("{key}s"), strange(rng));
                }
                2 => {
                    let there = map.remove(&key).unwrap_or_default();
                    map.insert("\u{0}".to_owned(), there);
                }
                _ => {
                    if let Some(inner) = map.get_mut(&key) {
                        mutate(rng, inner);
                    }
                }
            }
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = rng.random_range(0..list.len());
            match rng.random_range(0..10) {
                0 => list.push(list[at].clone()),
                1 => {
                    list.remove(at);
                }
                2 => list.insert(0, strange(rng)),
                3 => {
                    let many = rng.random_range(1..200);
                    list.extend(vec![list[at].clone(); many]);
                }
                _ => mutate(rng, &mut list[at]),
            }
        }
        other => *other = strange(rng),
    }
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => (b as char).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

fn pick(rng: &mut StdRng, all: &[&str]) -> String {
    (*all.choose(rng).expect("some")).to_owned()
}

fn query(rng: &mut StdRng) -> String {
    let mut out = vec![];
    for _ in 0..rng.random_range(0..4) {
        let number = |rng: &mut StdRng| {
            pick(
                rng,
                &[
                    "0",
                    "1",
                    "-1",
                    "9223372036854775807",
                    "18446744073709551615",
                    "1e3",
                    "x",
                    "",
                ],
            )
        };
        let flag = |rng: &mut StdRng| pick(rng, &["true", "false", "0", "x", ""]);
        let (name, value) = match rng.random_range(0..20) {
            0 => ("limit", number(rng)),
            // A list of a version far away waits for it: not every other request should.
            1 => (
                "resourceVersion",
                pick(rng, &["0", "1", "5", "-1", "x", "", "00"]),
            ),
            2 => (
                "resourceVersionMatch",
                pick(rng, &["Exact", "NotOlderThan", "x", ""]),
            ),
            3 => (
                "continue",
                pick(
                    rng,
                    &[
                        "x",
                        "e30",
                        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiIn0",
                        "eyJydiI6MSwic3RhcnQiOiJ6In0",
                        "AAAA",
                    ],
                ),
            ),
            4 => (
                "labelSelector",
                pick(
                    rng,
                    &[
                        "a",
                        "a=b",
                        "a in (b,,c)",
                        "a in ((",
                        "!",
                        "!a",
                        "a>9999999999999999999",
                        "=,=",
                        "a notin ()",
                        "\u{0}",
                        "a.b/c/d=e",
                        "(((((((",
                    ],
                ),
            ),
            5 => (
                "fieldSelector",
                pick(
                    rng,
                    &[
                        "metadata.name=x",
                        "metadata.name!=x",
                        "spec.nodeName=",
                        "a=b",
                        "=",
                        "\\",
                        "metadata.name=\\=",
                        "status.phase==Running,",
                        ",",
                        "metadata.namespace=x",
                    ],
                ),
            ),
            6 => ("watch", flag(rng)),
            7 => ("timeoutSeconds", pick(rng, &["1", "1", "x", "-5", "1"])),
            8 => ("allowWatchBookmarks", flag(rng)),
            9 => ("sendInitialEvents", flag(rng)),
            10 => ("dryRun", pick(rng, &["All", "x", ""])),
            11 => ("fieldManager", pick(rng, &["m", "\u{0}", &"m".repeat(200)])),
            12 => (
                "fieldValidation",
                pick(rng, &["Strict", "Warn", "Ignore", "x"]),
            ),
            13 => ("force", flag(rng)),
            14 => ("gracePeriodSeconds", number(rng)),
            15 => (
                "propagationPolicy",
                pick(rng, &["Orphan", "Foreground", "Background", "x"]),
            ),
            16 => (
                "includeObject",
                pick(rng, &["None", "Object", "Metadata", "x"]),
            ),
            17 => ("container", pick(rng, &["c", "", "\u{0}"])),
            18 => ("pretty", flag(rng)),
            _ => ("\u{0}%", "&&==%".to_owned()),
        };
        out.push(format!("{}={}", escaped(name), escaped(&value)));
    }
    if rng.random_bool(0.02) {
        out.push("%zz&&&==%&a%".to_owned());
    }
    out.join("&")
}

fn accept(rng: &mut StdRng) -> String {
    pick(
        rng,
        &[
            "application/json",
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
            "application/vnd.kubernetes.protobuf,application/json",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json",
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,*/*;q=x",
            ";;;,,,=;q=NaN",
            "*/*",
            "",
        ],
    )
}

/// A patch of any kind.
fn patch(rng: &mut StdRng, seeds: &Seeds, object: &Value) -> (String, Vec<u8>) {
    let media = pick(
        rng,
        &[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
            "application/nope",
        ],
    );
    let mut value = match rng.random_range(0..3) {
        0 => seeds.patches.choose(rng).cloned().unwrap_or_default(),
        1 => object.clone(),
        _ => json!([
            {"op": "test", "path": "/metadata/name", "value": "x"},
            {"op": "add", "path": "/spec/containers/-", "value": {}},
            {"op": "copy", "from": "/spec", "path": "/spec/x"},
            {"op": "move", "from": "/metadata/labels", "path": "/metadata/labels/a"},
            {"op": "remove", "path": "/spec/containers/99999999999999999999"},
            {"op": "replace", "path": "", "value": null},
        ]),
    };
    for _ in 0..rng.random_range(0..4) {
        mutate(rng, &mut value);
    }
    if rng.random_bool(0.1)
        && let Some(map) = value.as_object_mut()
    {
        let directive = pick(
            rng,
            &[
                "$patch",
                "$retainKeys",
                "$setElementOrder/containers",
                "$deleteFromPrimitiveList/finalizers",
            ],
        );
        map.insert(directive, strange(rng));
    }
    (media, value.to_string().into_bytes())
}

fn body(rng: &mut StdRng, seeds: &Seeds, at: usize) -> (String, Vec<u8>) {
    let (_, version, kind, objects) = &seeds.kinds[at];
    let mut object = objects.choose(rng).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(0..4) {
        mutate(rng, &mut object);
    }
    if rng.random_bool(0.8)
        && let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        meta.insert("name".to_owned(), "x".into());
    }
    match rng.random_range(0..10) {
        0 => {
            let yaml = serde_saphyr::to_string(&object).unwrap_or_default();
            ("application/yaml".to_owned(), yaml.into_bytes())
        }
        1 => {
            let media = "application/vnd.kubernetes.protobuf".to_owned();
            let made = Encoder::new().body(version, kind, object.to_string().as_bytes());
            let mut bytes = made.unwrap_or_else(|_| b"k8s\0\x0a".to_vec());
            for _ in 0..rng.random_range(0..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            if rng.random_bool(0.2) {
                bytes.truncate(rng.random_range(0..=bytes.len()));
            }
            (media, bytes)
        }
        2 => {
            let mut bytes = object.to_string().into_bytes();
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes.truncate(at),
                1 => bytes[at] = rng.random(),
                _ => {
                    let tail = bytes.split_off(at);
                    bytes.extend_from_slice(b"{\"a\":");
                    bytes.extend(tail);
                }
            }
            ("application/json".to_owned(), bytes)
        }
        _ => (
            "application/json".to_owned(),
            object.to_string().into_bytes(),
        ),
    }
}

pub fn hostile(rng: &mut StdRng, seeds: &Seeds) -> Hostile {
    // The more objects of a kind are known, the more is sent.
    let mut at = rng.random_range(0..seeds.kinds.len());
    for _ in 0..2 {
        let other = rng.random_range(0..seeds.kinds.len());
        if seeds.kinds[other].3.len() > seeds.kinds[at].3.len() {
            at = other;
        }
    }
    let (collection, _, kind, _) = &seeds.kinds[at];
    let mut uri = collection.clone();
    // Questions and bindings can be created and nothing else.
    let asks = kind.ends_with("Review") || kind == "Binding";
    let method = *[
        "GET", "GET", "GET", "POST", "POST", "POST", "POST", "PUT", "PUT", "PATCH", "PATCH",
        "PATCH", "DELETE",
    ]
    .choose(rng)
    .expect("some");
    let method = if asks && rng.random_bool(0.9) {
        "POST"
    } else {
        method
    };
    if method != "POST" && rng.random_bool(0.9) {
        uri = format!("{uri}/{}", pick(rng, &NAMES));
        if rng.random_bool(0.9) {
            uri = format!("{collection}/x");
        }
    } else if method == "POST" && rng.random_bool(0.1) {
        uri = format!("{uri}/x");
    }
    if rng.random_bool(0.2) {
        uri = format!("{uri}/{}", pick(rng, &SUBS));
    }
    if rng.random_bool(0.03) {
        uri = pick(
            rng,
            &[
                "/",
                "//",
                "/api",
                "/apis/",
                "/apis/apps",
                "/apis/x/v1/y",
                "/api/v1/watch/pods",
                "/openapi/v2",
                "/openapi/v3/apis/x/y/z",
                "/version/",
                "/healthz/../x",
                "/%2e%2e/%00",
                "/api/v1/namespaces",
                "/api/v1/namespaces/%00/pods",
                "/metrics",
                "/livez?verbose",
                "/apis/apps/v1/namespaces/a/b/c/d/e/f/g",
                "/api/v1/namespaces//pods",
            ],
        );
    }
    let text = query(rng);
    if !text.is_empty() {
        uri = format!("{uri}?{text}");
    }
    let (media, body) = match method {
        "GET" => ("application/json".to_owned(), vec![]),
        "PATCH" => {
            let object = seeds.kinds[at].3.choose(rng).cloned().unwrap_or_default();
            patch(rng, seeds, &object)
        }
        "DELETE" => {
            let mut options = json!({
                "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
                "preconditions": {"uid": "x"}, "propagationPolicy": "Orphan", "dryRun": ["All"],
            });
            for _ in 0..rng.random_range(1..4) {
                mutate(rng, &mut options);
            }
            match rng.random_bool(0.5) {
                true => (
                    "application/json".to_owned(),
                    options.to_string().into_bytes(),
                ),
                false => ("application/json".to_owned(), vec![]),
            }
        }
        _ => body(rng, seeds, at),
    };
    Hostile {
        method,
        uri,
        media,
        accept: accept(rng),
        body,
    }
}
