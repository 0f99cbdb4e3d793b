//! Requests that nobody in their right mind sends: the server refuses them, it does not fail.
//!
//! `GANTRY_HOSTILE_RUNS` says how many generated requests are sent, `GANTRY_HOSTILE_SEED` which.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers, which clippy does not see as such"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gantry_apiserver::{Config, Server};
use gantry_machinery::{protobuf::Encoder, resource::builtin_resources};
use gantry_store::{Options, Store};
use http::{Request, header};
use http_body_util::BodyExt;
use kube::Client;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

async fn start() -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

#[derive(Debug, Clone)]
struct Hostile {
    method: &'static str,
    uri: String,
    media: String,
    accept: String,
    body: Vec<u8>,
}

impl Hostile {
    fn shown(&self) -> String {
        let mut body = String::from_utf8_lossy(&self.body).into_owned();
        if body.len() > 2000 {
            body = body.chars().take(2000).collect::<String>() + "…";
        }
        format!(
            "{} {}\nContent-Type: {}\nAccept: {}\n\n{body}",
            self.method, self.uri, self.media, self.accept
        )
    }
}

/// How a request was answered. Fails on a panic, on what the server calls its own fault, and on
/// what takes too long.
async fn send(client: &Client, hostile: &Hostile) -> Option<u16> {
    let request = Request::builder()
        .method(hostile.method)
        .uri(&hostile.uri)
        .header(header::CONTENT_TYPE, &hostile.media)
        .header(header::ACCEPT, &hostile.accept)
        .body(hostile.body.clone().into());
    // Not all that is generated is a URI or a header at all.
    let request = request.ok()?;
    let client = client.clone();
    let answered = tokio::spawn(async move {
        let response = client.send(request).await.expect("an answer");
        let code = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let watch = kind.is_some_and(|k| k.as_bytes().ends_with(b"stream=watch"));
        let mut body = response.into_body();
        let mut read = vec![];
        // A watch does not end: its first frames are enough.
        while let Ok(Some(Ok(frame))) =
            tokio::time::timeout(Duration::from_millis(200), body.frame()).await
        {
            read.extend_from_slice(&frame.into_data().unwrap_or_default());
            if watch {
                break;
            }
        }
        (code.as_u16(), read)
    });
    let answer = tokio::time::timeout(Duration::from_secs(60), answered).await;
    let Ok(answer) = answer else {
        panic!("no answer: {}", hostile.shown());
    };
    let Ok((code, body)) = answer else {
        panic!("a panic: {}", hostile.shown());
    };
    let body = String::from_utf8_lossy(&body);
    // Kubernetes answers some bad requests with a 500 of its own, which has no reason.
    let fault = code == 500 && (body.contains("InternalError") || body.contains("panicked"));
    assert!(!fault, "{body}\n{}", hostile.shown());
    Some(code)
}

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
struct Seeds {
    /// Path of the collection, kind, objects.
    kinds: Vec<(String, String, String, Vec<Value>)>,
    patches: Vec<Value>,
}

/// Of the recorded conversations where they are there; one bare object of every kind in any case.
fn seeds() -> Seeds {
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

fn strange(rng: &mut StdRng) -> Value {
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
fn mutate(rng: &mut StdRng, value: &mut Value) {
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

fn hostile(rng: &mut StdRng, seeds: &Seeds) -> Hostile {
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

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_requests_are_answered_or_refused() {
    let server = start().await;
    let client = server.client();
    let seeds = seeds();
    let runs = number("GANTRY_HOSTILE_RUNS", 3000);
    let mut rng = StdRng::seed_from_u64(number("GANTRY_HOSTILE_SEED", 1));
    let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
    for _ in 0..runs {
        if let Some(code) = send(&client, &hostile(&mut rng, &seeds)).await {
            *codes.entry(code).or_default() += 1;
        }
    }
    println!("{runs} requests, by code: {codes:?}");
    // Generated requests that are all refused would test nothing behind the door.
    assert!(codes.get(&201).is_some_and(|n| *n > 0), "{codes:?}");
    let pods = "/api/v1/namespaces/default/pods".to_owned();
    let alive = Hostile {
        method: "GET",
        uri: pods,
        media: String::new(),
        accept: "application/json".to_owned(),
        body: vec![],
    };
    assert_eq!(send(&client, &alive).await, Some(200));
    server.shutdown().await;
}

/// Connections that do not speak HTTP, or too much of it: others are served all the same.
#[tokio::test]
async fn junk_on_a_socket_harms_nobody_else() {
    let server = start().await;
    let mut roots = RootCertStore::empty();
    let pem = CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).expect("a certificate");
    roots.add(pem).expect("a root");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let address = server.address();
    let connect = async || {
        let socket = TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::from(address.ip());
        connector.connect(name, socket).await.expect("a handshake")
    };
    // What comes back before the server hangs up or is silent for a moment.
    let exchange = async |bytes: &[u8]| {
        let mut stream = connect().await;
        // The server may hang up while it is still written to.
        let _ = stream.write_all(bytes).await;
        let mut read = vec![0; 4096];
        let answer = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut read)).await;
        let length = answer.map_or(0, |read| read.unwrap_or(0));
        String::from_utf8_lossy(&read[..length]).into_owned()
    };
    let get =
        |head: &str| format!("GET /livez HTTP/1.1\r\nHost: x\r\n{head}Connection: close\r\n\r\n");
    // Not even TLS.
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0xff; 100]] {
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        let _ = socket.write_all(junk).await;
        let mut read = vec![];
        let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut read)).await;
    }
    let long = "a".repeat(1 << 20);
    let many: String = (0..1000).map(|i| format!("h{i}: v\r\n")).collect();
    for (what, bytes, codes) in [
        (
            "no HTTP",
            "\0\u{1}\u{2}hello\r\n\r\n".to_owned(),
            &["400"][..],
        ),
        (
            "a long line",
            format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            &["414", "431", "400"],
        ),
        (
            "a long header",
            get(&format!("X: {long}\r\n")),
            &["431", "400"],
        ),
        ("many headers", get(&many), &["431", "400"]),
        (
            "two lengths",
            get("Content-Length: 1\r\nContent-Length: 2\r\n"),
            &["400"],
        ),
        (
            "length and chunks",
            get("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            &["400", "200"],
        ),
        (
            "a length that is none",
            get("Content-Length: -1\r\n"),
            &["400"],
        ),
        (
            "another version",
            "GET / HTTP/9.9\r\n\r\n".to_owned(),
            &["400", "505"],
        ),
        (
            "a preface and junk",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\njunkjunkjunkjunk".to_owned(),
            &[],
        ),
        ("what is right", get(""), &["401", "403", "200"]),
    ] {
        let answer = exchange(bytes.as_bytes()).await;
        let code = answer.split(' ').nth(1).unwrap_or_default();
        assert!(
            codes.is_empty() || codes.contains(&code),
            "{what}: {answer}"
        );
    }
    // One that stays silent in the middle of its request keeps nobody waiting.
    let mut slow = connect().await;
    slow.write_all(b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Le")
        .await
        .expect("written");
    assert!(exchange(get("").as_bytes()).await.starts_with("HTTP/1.1 "));
    drop(slow);
    server.shutdown().await;
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    open.repeat(depth) + "1" + &close.repeat(depth)
}

/// What generation finds too seldom: size, depth, and inputs whose meaning explodes.
#[tokio::test]
async fn deep_and_huge_bodies_are_refused() {
    let server = start().await;
    let client = server.client();
    let maps = "/api/v1/namespaces/default/configmaps";
    let one = json!({"metadata": {"name": "x"}, "data": {"a": "b"}}).to_string();
    let post = |media: &str, body: String| Hostile {
        method: "POST",
        uri: maps.to_owned(),
        media: media.to_owned(),
        accept: "application/json".to_owned(),
        body: body.into_bytes(),
    };
    let change = |media: &str, body: String| Hostile {
        method: "PATCH",
        uri: format!("{maps}/x"),
        media: media.to_owned(),
        accept: "application/json".to_owned(),
        body: body.into_bytes(),
    };
    let (json_type, yaml_type) = ("application/json", "application/yaml");
    assert_eq!(send(&client, &post(json_type, one)).await, Some(201));
    let limit = 3 * 1024 * 1024;
    let big = |size: usize| {
        let body = json!({"metadata": {"name": "big"}, "data": {"a": ""}}).to_string();
        let fill = "x".repeat(size - body.len());
        body.replace("\"\"", &format!("\"{fill}\""))
    };
    for (what, hostile, code) in [
        ("the limit", post(json_type, big(limit)), None),
        ("beyond the limit", post(json_type, big(limit + 1)), Some(413)),
        ("deep arrays", post(json_type, nested("[", "]", 100_000)), Some(400)),
        ("deep objects", post(json_type, nested("{\"a\":", "}", 100_000)), Some(400)),
        ("deep unknown member", post(json_type, format!("{{\"x\":{}}}", nested("[", "]", 5_000))), Some(400)),
        ("deep YAML", post(yaml_type, nested("[", "]", 100_000)), Some(400)),
        ("deep YAML blocks", post(yaml_type, "- ".repeat(50_000)), Some(400)),
        ("many errors", post(json_type, json!({"metadata": {"name": "y"}, "data": (0..20_000).map(|i| (format!("/{i}"), "".into())).collect::<Map<_, _>>()}).to_string()), Some(422)),
        ("deep merge patch", change("application/merge-patch+json", nested("{\"a\":", "}", 100_000)), Some(400)),
        ("deep apply", change("application/apply-patch+yaml", nested("{a: ", "}", 100_000)), None),
        ("an empty patch", change("application/json-patch+json", "[]".to_owned()), Some(200)),
        ("a pointer to nowhere", change("application/json-patch+json", json!([{"op": "add", "path": "/a".repeat(100_000), "value": 1}]).to_string()), None),
    ] {
        let got = send(&client, &hostile).await;
        assert!(got.is_some_and(|c| c < 500), "{what}: {got:?}");
        if code.is_some() {
            assert_eq!(got, code, "{what}");
        }
    }
    // Each doubles the last: a thousand million values if they were all written out.
    let mut laughs = "a0: &a0 [x, x]\n".to_owned();
    for i in 1..30 {
        laughs += &format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1);
    }
    let got = send(&client, &post(yaml_type, laughs))
        .await
        .expect("answered");
    assert!((400..500).contains(&got), "{got}");
    let mut doubling = vec![json!({"op": "add", "path": "/data/a0", "value": "x".repeat(1000)})];
    doubling.push(json!({"op": "add", "path": "/z", "value": {"a": ["x".repeat(1000)]}}));
    for i in 0..40 {
        doubling.push(json!({"op": "copy", "from": "/z", "path": format!("/z/b{i}")}));
    }
    let hostile = change(
        "application/json-patch+json",
        Value::from(doubling).to_string(),
    );
    let got = send(&client, &hostile).await.expect("answered");
    assert!((400..500).contains(&got), "{got}");
    let many: Vec<Value> = (0..20_000)
        .map(|_| json!({"op": "test", "path": "/data/a", "value": "b"}))
        .collect();
    let hostile = change("application/json-patch+json", Value::from(many).to_string());
    let got = send(&client, &hostile).await.expect("answered");
    assert_eq!(got, 413);
    let mut selector = Hostile {
        method: "GET",
        uri: format!("{maps}?labelSelector={}", "a,".repeat(20_000)),
        media: String::new(),
        accept: json_type.to_owned(),
        body: vec![],
    };
    assert!(send(&client, &selector).await.is_some());
    selector.uri = format!("{maps}?labelSelector=a%20in%20({}b)", "(".repeat(20_000));
    assert_eq!(send(&client, &selector).await, Some(400));
    selector.uri = format!(
        "{maps}?fieldSelector={}",
        "metadata.name%3Dx,".repeat(3_000)
    );
    assert!(send(&client, &selector).await.is_some());
    server.shutdown().await;
}

/// Definitions are input too: their schemas are read, compiled and asked.
#[tokio::test]
async fn hostile_definitions_are_refused_or_harmless() {
    let server = start().await;
    let client = server.client();
    let deep = (0..60).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}}),
    );
    let seeds = [
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string", "pattern": "^(a+)+$"},
            "b": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "c": {"type": "object", "additionalProperties": {"type": "integer"}},
            "d": {"x-kubernetes-int-or-string": true},
            "e": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "f": {"type": "integer", "default": 1, "minimum": 0, "multipleOf": 2},
        }}}}),
        deep,
    ];
    let mut rng = StdRng::seed_from_u64(number("GANTRY_HOSTILE_SEED", 1));
    let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
    for run in 0..number("GANTRY_HOSTILE_RUNS", 600) / 3 {
        let mut schema = seeds.choose(&mut rng).cloned().unwrap_or_default();
        for _ in 0..rng.random_range(0..3) {
            mutate(&mut rng, &mut schema);
        }
        let plural = format!("as{run}");
        let group = "example.com";
        let mut definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Cluster",
                "names": {"plural": plural, "singular": format!("a{run}"), "kind": format!("A{run}"), "listKind": format!("A{run}List")},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "additionalPrinterColumns": [{"name": "B", "type": "string", "jsonPath": ".spec.b[?(@.a=='b')]"}],
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.f", "statusReplicasPath": ".status.r"}},
                    "schema": {"openAPIV3Schema": schema}}],
            },
        });
        if rng.random_bool(0.3) {
            mutate(&mut rng, &mut definition);
        }
        let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let mut sent = Hostile {
            method: "POST",
            uri: crds.to_owned(),
            media: "application/json".to_owned(),
            accept: "application/json".to_owned(),
            body: definition.to_string().into_bytes(),
        };
        let code = send(&client, &sent).await.expect("answered");
        *codes.entry(code).or_default() += 1;
        sent.uri = format!("/apis/{group}/v1/{plural}");
        for name in ["x", "y"] {
            let mut object = json!({
                "apiVersion": format!("{group}/v1"), "kind": format!("A{run}"),
                "metadata": {"name": name},
                "spec": {"a": "a".repeat(5000) + "!", "b": ["x", "y"], "c": {"k": 1}, "d": "1%", "e": {"x": [1]}, "f": 2},
            });
            if name == "y" {
                mutate(&mut rng, &mut object);
            }
            sent.body = object.to_string().into_bytes();
            let code = send(&client, &sent).await.expect("answered");
            *codes.entry(code).or_default() += 1;
        }
        let list = Hostile {
            method: "GET",
            accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json".to_owned(),
            body: vec![],
            ..sent.clone()
        };
        send(&client, &list).await.expect("answered");
        let gone = Hostile {
            method: "DELETE",
            uri: format!("{crds}/{plural}.{group}"),
            body: vec![],
            ..sent
        };
        send(&client, &gone).await.expect("answered");
    }
    println!("definitions and their objects, by code: {codes:?}");
    assert!(codes.get(&201).is_some_and(|n| *n > 0), "{codes:?}");
    server.shutdown().await;
}

/// Expressions of CEL that are deep, long, or cost more than they look.
fn expressions() -> Vec<String> {
    let many = |one: &str, times: usize| one.repeat(times);
    let mut all: Vec<String> = [
        "self.a == 'b'",
        "self.a.matches('^(a+)+$')",
        "self.a.matches('(')",
        "self.b.all(x, self.b.all(y, self.b.all(z, x == y || y == z || x != z)))",
        "self.b.map(x, self.b.map(y, x + y)).size() > 0",
        "self.a + self.a + self.a + self.a == self.a",
        "self.a.replace('a', self.a).replace('a', self.a).size() >= 0",
        "self.a.split('').join(self.a).split('').size() > 0",
        "self.f / 0 == 1",
        "9223372036854775807 + self.f > 0",
        "-9223372036854775808 / -1 == 0",
        "-(-9223372036854775807 - 1) > 0",
        "self.b[-1] == ''",
        "self.b[9223372036854775807] == ''",
        "uint(-1) > 0u",
        "int(1e308) > 0",
        "double('NaN') == double('NaN')",
        "duration('9999999999h') > duration('1s')",
        "timestamp('9999-12-31T23:59:59Z') + duration('1000000h') > timestamp('0001-01-01T00:00:00Z')",
        "quantity('1e999999999').isGreaterThan(quantity('1'))",
        "'\\U0010FFFF\\000' == self.a",
        "b'\\xff' == bytes(self.a)",
        "self.nope.nope",
        "self",
        "",
        "has(self.e.x) ? self.e.x[0] == 1 : true",
        "self.e == self",
        "oldSelf.a == self.a",
        "cel.bind(x, cel.bind(x, self.a, x + x), x + x).size() > 0",
        "[1, 2, 3].exists_one(x, x == 1) && {'a': [1u, 2, 'x']}.size() == 1",
        "type(self.a) == string && dyn(self.f) == 1.0",
        "url('http://[::1').getHost() == ''",
        "ip('999.1.1.1').family() == 4",
        "self.a.format([1]) == '%s'",
        "'%.999999999f'.format([1.0]) == ''",
        "'%s%s%s'.format([self.a]) == ''",
        "self.a.substring(-1) == ''",
        "self.a.charAt(9999999999) == ''",
        "self.a.indexOf('', -9223372036854775808) == 0",
        "\u{0}",
        "\u{202e}self",
    ]
    .map(str::to_owned)
    .to_vec();
    for times in [50, 5_000, 100_000] {
        all.extend([
            many("(", times) + "true" + &many(")", times),
            many("!", times) + "true",
            many("-", times) + "1 > 0",
            many("[", times) + &many("]", times) + " == []",
            many("{'a': ", times) + "1" + &many("}", times) + " == {}",
            "self".to_owned() + &many(".e", times),
            "self.a".to_owned() + &many(" + self.a", times) + " == ''",
            "true".to_owned() + &many(" && true", times),
            many("true ? true : ", times) + "true",
            many("self.b.all(x, ", times) + "true" + &many(")", times),
            "self.b".to_owned() + &many("[0]", times) + " == ''",
            "'".to_owned() + &many("x", times) + "' == self.a",
            many("'", times),
            "size(".repeat(times) + "self.b" + &many(")", times) + " > 0",
        ]);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_expressions_are_refused_or_harmless() {
    let server = start().await;
    let client = server.client();
    let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
    let spec = json!({
        "a": "a".repeat(2000) + "!", "b": (0..200).map(|i| i.to_string()).collect::<Vec<_>>(),
        "e": {"x": [1]}, "f": 1,
    });
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    for (run, rule) in expressions().into_iter().enumerate() {
        let (group, plural) = ("example.com", format!("es{run}"));
        let mut post = async |uri: &str, object: &Value| {
            let hostile = Hostile {
                method: "POST",
                uri: uri.to_owned(),
                media: "application/json".to_owned(),
                accept: "application/json".to_owned(),
                body: object.to_string().into_bytes(),
            };
            let code = send(&client, &hostile).await.expect("answered");
            *codes.entry(code).or_default() += 1;
            code
        };
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Cluster",
                "names": {"plural": plural, "singular": format!("e{run}"), "kind": format!("E{run}"), "listKind": format!("E{run}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": {
                        "type": "object",
                        "x-kubernetes-validations": [{"rule": rule, "messageExpression": "'x' + self.a"}],
                        "properties": {
                            "a": {"type": "string", "maxLength": 5000},
                            "b": {"type": "array", "maxItems": 500, "items": {"type": "string", "maxLength": 10}},
                            "e": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                            "f": {"type": "integer"},
                        },
                    }},
                }}}],
            },
        });
        let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        if post(crds, &definition).await == 201 {
            let object = json!({
                "apiVersion": format!("{group}/v1"), "kind": format!("E{run}"),
                "metadata": {"name": "x"}, "spec": spec,
            });
            post(&format!("/apis/{group}/v1/{plural}"), &object).await;
        }
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": format!("p{run}")},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"],
                }]},
                "variables": [{"name": "v", "expression": rule.replace("self", "object")}],
                "validations": [{"expression": rule.replace("self", "object"), "messageExpression": rule}],
                "matchConditions": [{"name": "m", "expression": rule}],
            },
        });
        if post(policies, &policy).await == 201 {
            let binding = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": format!("p{run}")},
                "spec": {"policyName": format!("p{run}"), "validationActions": ["Deny"]},
            });
            let bindings =
                "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
            post(bindings, &binding).await;
            let secret = json!({"metadata": {"name": format!("s{run}")}, "stringData": {"a": "b"}});
            post("/api/v1/namespaces/default/secrets", &secret).await;
            let gone = Hostile {
                method: "DELETE",
                uri: format!("{bindings}/p{run}"),
                media: "application/json".to_owned(),
                accept: "application/json".to_owned(),
                body: vec![],
            };
            send(&client, &gone).await;
        }
    }
    println!("expressions, by code: {codes:?}");
    assert!(codes.get(&201).is_some_and(|n| *n > 0), "{codes:?}");
    server.shutdown().await;
}
