//! What requests cost: creations, changes in each of their forms, reads, a full list, delivery to
//! 1,000 watches, a start with 100,000 pods and their memory; in this process and over TLS, in memory and on disk. `cargo bench -p gantry-apiserver`; prints what it
//! measured. `cargo bench -p gantry-apiserver -- create` measures only what has `create` in its
//! name.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails ends")]
#![expect(clippy::print_stdout, reason = "its output is what it is run for")]

use std::time::{Duration, Instant};

use futures::{AsyncBufReadExt, StreamExt};
use gantry_apiserver::{Authentication, Config, Server, StaticToken};
use gantry_store::{Options, Store};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

/// As in the binary: glibc's takes a third of a write.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IN_FLIGHT: usize = 64;
const PODS: usize = 20_000;
const LISTED: usize = 5_000;
const WATCHES: usize = 1_000;
const TOKEN: &str = "benchmark";
const URL: &str = "/api/v1/namespaces/default/pods";

#[tokio::main]
async fn main() {
    if let Some(dir) = std::env::var_os(COLD) {
        return started_cold(&dir).await;
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores; pods of one container; {IN_FLIGHT} in flight");
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let run = |name: &str| wanted.as_ref().is_none_or(|w| name.contains(w.as_str()));
    if run("create in process, in memory") {
        let (server, _store) = start(Store::in_memory(Options::default())).await;
        create("create in process, in memory", &server.client(), PODS).await;
        server.shutdown().await;
    }
    for (name, tls) in [
        ("create in process, on disk", false),
        ("create over TLS, on disk", true),
    ] {
        if run(name) {
            let dir = folder();
            let (server, store) = start(Store::open(dir.path(), Options::default()).unwrap()).await;
            let client = if tls {
                remote(&server).await
            } else {
                server.client()
            };
            create(name, &client, PODS).await;
            drop(client);
            server.shutdown().await;
            store.close().await;
        }
    }
    if run("change") {
        let dir = folder();
        let (server, store) = start(Store::open(dir.path(), Options::default()).unwrap()).await;
        change(&remote(&server).await).await;
        server.shutdown().await;
        store.close().await;
    }
    if run("kubelet") {
        let (server, _store) = start(Store::in_memory(Options::default())).await;
        kubelet(&server.client()).await;
        server.shutdown().await;
    }
    if run("get") || run("list") {
        let (server, _store) = start(Store::in_memory(Options::default())).await;
        create("(preparation)", &server.client(), LISTED).await;
        let clients = [
            ("in process", server.client()),
            ("over TLS", remote(&server).await),
        ];
        for (name, client) in clients {
            if run("get") {
                get(name, &client).await;
            }
            if run("list") {
                list(name, &client).await;
            }
        }
        server.shutdown().await;
    }
    if run("cold start") {
        cold_start().await;
    }
    if run("watch") {
        watch("in process", &["", "fieldSelector=spec.nodeName%3Dn"]).await;
    }
}

/// The URL and body of a request by its number.
type Request = fn(usize) -> (String, Value);

/// Updates, patches and applies, each of 1,000 objects in turn.
async fn change(client: &Client) {
    const OBJECTS: usize = 1_000;
    const COUNT: usize = 10_000;
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    fn config_map(number: usize, value: usize) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("map-{number}"), "labels": {"app": "web"}},
            "data": {"value": value.to_string(), "text": "x".repeat(500)},
        })
    }
    load(OBJECTS, |number| {
        let client = client.clone();
        async move {
            send(&client, "POST", URL, Some(&pod(number))).await;
            send(&client, "POST", MAPS, Some(&config_map(number, 0))).await;
        }
    })
    .await;
    let forms: [(&str, &str, &str, Request); 4] = [
        (
            "update of ConfigMaps",
            "PUT",
            "application/json",
            |number| {
                let body = config_map(number % OBJECTS, number);
                (format!("{MAPS}/map-{}", number % OBJECTS), body)
            },
        ),
        (
            "merge patch of pods",
            "PATCH",
            "application/merge-patch+json",
            |number| {
                let app = format!("app-{}-{:06}", number % OBJECTS / 100, number % OBJECTS);
                let body = json!({"metadata": {"labels": {"step": number.to_string()}}});
                (format!("{URL}/{app}"), body)
            },
        ),
        (
            "strategic merge patch of pods' status",
            "PATCH",
            "application/strategic-merge-patch+json",
            |number| {
                let app = format!("app-{}-{:06}", number % OBJECTS / 100, number % OBJECTS);
                let body = json!({"status": {"phase": "Running", "podIP": "10.1.2.3", "conditions": [
                    {"type": "Ready", "status": "True", "reason": format!("step{number}")},
                ]}});
                (format!("{URL}/{app}/status"), body)
            },
        ),
        (
            "server-side apply of ConfigMaps",
            "PATCH",
            "application/apply-patch+yaml",
            |number| {
                let name = number % OBJECTS;
                let url = format!("{MAPS}/map-{name}?fieldManager=bench&force=true");
                (url, config_map(name, number))
            },
        ),
    ];
    for (name, method, kind, request) in forms {
        let (elapsed, times) = load(COUNT, |number| {
            let client = client.clone();
            async move {
                let (url, body) = request(number);
                send_as(&client, method, &url, kind, Some(&body)).await;
            }
        })
        .await;
        report(
            &format!("change over TLS, on disk: {name}"),
            COUNT,
            elapsed,
            &times,
        );
    }
}

/// What becomes of a pod until it runs: it is bound, and its kubelet reports twice.
async fn kubelet(client: &Client) {
    let name = |number: usize| format!("{URL}/app-{}-{number:06}", number / 100);
    create("kubelet: (preparation)", client, PODS).await;
    let forms: [(&str, &str, &str, Request); 3] = [
        ("binding", "POST", "application/json", |number| {
            let body = json!({
                "apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "node-1"},
            });
            let url = format!("{URL}/app-{}-{number:06}/binding", number / 100);
            (url, body)
        }),
        (
            "first report",
            "PATCH",
            "application/strategic-merge-patch+json",
            |number| {
                let url = format!("{URL}/app-{}-{number:06}/status", number / 100);
                (format!("{url}?fieldManager=kubelet"), status(number, false))
            },
        ),
        (
            "second report",
            "PATCH",
            "application/strategic-merge-patch+json",
            |number| {
                let url = format!("{URL}/app-{}-{number:06}/status", number / 100);
                (format!("{url}?fieldManager=kubelet"), status(number, true))
            },
        ),
    ];
    for (what, method, kind, request) in forms {
        let before = processor_time();
        let (elapsed, times) = load(PODS, |number| {
            let client = client.clone();
            async move {
                let (url, body) = request(number);
                send_as(&client, method, &url, kind, Some(&body)).await;
            }
        })
        .await;
        let used = (processor_time() - before) / PODS as u32;
        let what = format!("kubelet: {what}, {used:?} of processor each");
        report(&what, PODS, elapsed, &times);
    }
    let last = send(client, "GET", &name(7), None).await;
    assert!(last.contains("\"phase\":\"Running\""), "{last}");
}

/// A status as kubelets send it.
fn status(number: usize, running: bool) -> Value {
    let at = "2026-01-01T00:00:00Z";
    let conditions: Vec<Value> = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
    ]
    .iter()
    .map(|kind| match running || *kind == "Initialized" {
        true => {
            json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": at})
        }
        false => json!({
            "type": kind, "status": "False", "lastProbeTime": null, "lastTransitionTime": at,
            "reason": "ContainersNotReady", "message": "containers with unready status: [main]",
        }),
    })
    .collect();
    let mut status = json!({
        "conditions": conditions, "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}], "startTime": at,
        "phase": if running { "Running" } else { "Pending" },
        "containerStatuses": [{
            "name": "main", "image": "registry.local/app:1", "imageID": "", "lastState": {}, "restartCount": 0,
            "ready": running, "started": running,
            "state": if running { json!({"running": {"startedAt": at}}) } else { json!({"waiting": {"reason": "ContainerCreating"}}) },
        }],
    });
    if running {
        let ip = format!("10.1.{}.{}", number / 250 % 250, number % 250);
        status["podIPs"] = json!([{"ip": ip}]);
        status["podIP"] = ip.into();
    }
    json!({"status": status})
}

/// Processor time of this process so far, to a hundredth of a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}

/// A start of a server on a store of 100,000 pods, and what they take.
async fn cold_start() {
    const PODS: usize = 100_000;
    let dir = folder();
    let (server, store) = start(Store::open(dir.path(), Options::default()).unwrap()).await;
    create("(preparation)", &server.client(), PODS).await;
    server.shutdown().await;
    store.close().await;
    // In another process, whose memory is not that of what was done before.
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .arg("cold start of this folder")
        .env(COLD, dir.path())
        .status()
        .unwrap();
    assert!(status.success());
}

const COLD: &str = "GANTRY_BENCH_COLD_START";

async fn started_cold(dir: &std::ffi::OsStr) {
    let before = resident_bytes();
    let begin = Instant::now();
    let store = Store::open(dir.as_ref(), Options::default()).unwrap();
    let opened = begin.elapsed();
    let server = Server::start(Config::default(), store.clone())
        .await
        .unwrap();
    let ready = begin.elapsed();
    let pods = store.count("/pods");
    println!(
        "cold start, {pods} pods: store open in {opened:?}, server ready in {ready:?}; {} bytes of memory a pod",
        resident_bytes().saturating_sub(before) / pods as u64
    );
    server.shutdown().await;
    store.close().await;
}

/// What the system says; 0 where it does not.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn start(store: Store) -> (Server, Store) {
    let config = Config {
        authentication: Authentication {
            tokens: vec![StaticToken {
                token: TOKEN.to_owned(),
                user: "bench".to_owned(),
                uid: String::new(),
                groups: vec!["system:masters".to_owned()],
            }],
            ..Authentication::default()
        },
        ..Config::default()
    };
    let server = Server::start(config, store.clone()).await.unwrap();
    // What a controller does for every namespace: pods need it.
    let account = json!({"metadata": {"name": "default"}});
    let url = "/api/v1/namespaces/default/serviceaccounts";
    send(&server.client(), "POST", url, Some(&account)).await;
    (server, store)
}

/// A client over a socket.
async fn remote(server: &Server) -> Client {
    let config: Kubeconfig = serde_json::from_value(json!({
        "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {
            "server": format!("https://{}", server.address()),
            "certificate-authority-data": base64(server.ca_pem()),
        }}],
        "users": [{"name": "bench", "user": {"token": TOKEN}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    }))
    .unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

async fn send(client: &Client, method: &str, url: &str, body: Option<&Value>) -> String {
    send_as(client, method, url, "application/json", body).await
}

async fn send_as(
    client: &Client,
    method: &str,
    url: &str,
    kind: &str,
    body: Option<&Value>,
) -> String {
    let body = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
    let request = http::Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", kind)
        .body(body)
        .unwrap();
    client.request_text(request).await.unwrap()
}

fn pod(number: usize) -> Value {
    let app = format!("app-{}", number / 100);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{app}-{number:06}"), "labels": {"app": app, "tier": "web"}},
        "spec": {"containers": [{
            "name": "main", "image": "registry.local/app:1",
            "ports": [{"containerPort": 8080}], "env": [{"name": "A", "value": "b"}],
            "resources": {
                "requests": {"cpu": "200m", "memory": "512Mi"},
                "limits": {"cpu": "1", "memory": "1Gi"},
            },
        }]},
    })
}

/// Carries out `count` requests, always so many in flight, each in a task; how long each took.
async fn load<F>(count: usize, request: impl Fn(usize) -> F) -> (Duration, Vec<Duration>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    let mut times: Vec<Duration> = futures::stream::iter(0..count)
        .map(|number| {
            let request = request(number);
            tokio::spawn(async move {
                let start = Instant::now();
                request.await;
                start.elapsed()
            })
        })
        .buffer_unordered(IN_FLIGHT)
        .map(Result::unwrap)
        .collect()
        .await;
    let elapsed = start.elapsed();
    times.sort_unstable();
    (elapsed, times)
}

fn report(what: &str, count: usize, elapsed: Duration, times: &[Duration]) {
    println!(
        "{what}: {:.0}/s, p50 {:?}, p99 {:?}",
        count as f64 / elapsed.as_secs_f64(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
    );
}

async fn create(what: &str, client: &Client, count: usize) {
    let (elapsed, times) = load(count, |number| {
        let client = client.clone();
        async move {
            send(&client, "POST", URL, Some(&pod(number))).await;
        }
    })
    .await;
    report(what, count, elapsed, &times);
}

async fn get(what: &str, client: &Client) {
    let url = format!("{URL}/app-0-000000");
    let mut times = vec![];
    let start = Instant::now();
    for _ in 0..2_000 {
        let start = Instant::now();
        send(client, "GET", &url, None).await;
        times.push(start.elapsed());
    }
    let elapsed = start.elapsed();
    times.sort_unstable();
    report(
        &format!("get {what}, one after the other"),
        times.len(),
        elapsed,
        &times,
    );
    let count = 50_000;
    let (elapsed, times) = load(count, |_| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            send(&client, "GET", &url, None).await;
        }
    })
    .await;
    report(&format!("get {what}"), count, elapsed, &times);
}

async fn list(what: &str, client: &Client) {
    let mut times = vec![];
    let mut size = 0;
    for _ in 0..20 {
        let start = Instant::now();
        size = send(client, "GET", URL, None).await.len();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!(
        "list of {LISTED} pods {what}: p50 {:?}, {:.1} MB",
        times[times.len() / 2],
        size as f64 / 1e6
    );
}

/// 1,000 watches, every second selecting by node, and one write at a time.
async fn watch(what: &str, selectors: &[&str]) {
    for selector in selectors {
        let (server, _store) = start(Store::in_memory(Options::default())).await;
        let client = server.client();
        let (seen, mut deliveries) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = vec![];
        for _ in 0..WATCHES {
            let (client, seen) = (client.clone(), seen.clone());
            let url = format!("{URL}?watch=1&resourceVersion=0&{selector}");
            tasks.push(tokio::spawn(async move {
                let request = http::Request::get(url).body(vec![]).unwrap();
                let mut lines = client.request_stream(request).await.unwrap().lines();
                // One who is not selected for is counted when the watch stands.
                let _ = seen.send(());
                while let Some(Ok(_)) = lines.next().await {
                    let _ = seen.send(());
                }
            }));
        }
        for _ in 0..WATCHES {
            deliveries.recv().await.unwrap();
        }
        let count = 200;
        let start = Instant::now();
        for number in 0..count {
            send(&client, "POST", URL, Some(&pod(number))).await;
            if selector.is_empty() {
                for _ in 0..WATCHES {
                    deliveries.recv().await.unwrap();
                }
            }
        }
        let elapsed = start.elapsed();
        let kind = if selector.is_empty() {
            "that see"
        } else {
            "that filter"
        };
        println!(
            "watch {what}: a creation and {WATCHES} watches {kind} it: {:?}",
            elapsed / count as u32
        );
        for task in tasks {
            task.abort();
        }
        server.shutdown().await;
    }
}
