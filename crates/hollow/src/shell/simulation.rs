//! Whole simulations in virtual time: [`super::run`] as it is, on the runtime's paused clock, against a
//! cluster that is a map in memory. Nothing here waits for a disk, a socket or a thread, so time jumps
//! from one timer to the next and a day passes in a second or two.

use crate::{
    Network, Options, Scenario,
    clock::{Clock, Millis},
    kubelet::testing,
};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeMap, convert::Infallible, path::Path, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Midnight, UTC.
const MIDNIGHT: Millis = Millis(1_767_225_600_000);
const HOUR: Duration = Duration::from_secs(3600);

type Answer = UnsyncBoxBody<Bytes, Infallible>;
/// Resource, namespace, name.
type Key = (String, String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    revision: u64,
    /// What watches tell, by resource.
    log: Vec<(u64, String, Value)>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    writes: BTreeMap<String, u64>,
    /// The longest time between two renewals of a lease, in seconds.
    gaps: BTreeMap<String, f64>,
    /// Uids begin so.
    uids: String,
}

/// A cluster that is a map.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<State>>);

fn merge(target: &mut Value, patch: Value, strategic: bool) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                let by_type = strategic && key == "conditions";
                let entry = target.entry(key.clone()).or_insert(Value::Null);
                if let (true, Value::Array(old), Value::Array(new)) = (by_type, &mut *entry, &value)
                {
                    for condition in new {
                        match old.iter_mut().find(|it| it["type"] == condition["type"]) {
                            Some(old) => merge(old, condition.clone(), true),
                            None => old.push(condition.clone()),
                        }
                    }
                } else {
                    merge(entry, value, strategic);
                }
            }
            target.retain(|_, value| !value.is_null());
        }
        (target, patch) => *target = patch,
    }
}

impl State {
    fn put(&mut self, key: Key, mut object: Value, kind: &str) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.tell(&key.0, kind, &object);
        match kind {
            "DELETED" => self.objects.remove(&key),
            _ => self.objects.insert(key, object),
        };
    }

    fn tell(&mut self, resource: &str, kind: &str, object: &Value) {
        if !matches!(resource, "nodes" | "pods" | "configmaps") {
            return;
        }
        let event = json!({"type": kind, "object": object});
        let line = Bytes::from(format!("{event}\n"));
        self.watches
            .retain(|(it, send)| it != resource || send.send(line.clone()).is_ok());
        self.log.push((self.revision, resource.to_owned(), event));
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let all = self.objects.iter();
        let fitting = all
            .filter(|((it, ns, _), _)| it == resource && (namespace.is_empty() || ns == namespace));
        fitting.map(|(_, object)| object.clone()).collect()
    }
}

fn status(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason,
        "message": reason,
    });
    (code, body)
}

impl Cluster {
    fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|it| it.to_bytes())
            .unwrap_or_default();
        let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        let rest = if path[0] == "api" {
            &path[2..]
        } else {
            &path[3..]
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let query = parts.uri.query().unwrap_or_default();
        let (resource, name) = (rest[0], rest.get(1).copied().unwrap_or_default());
        if query.contains("watch=true") {
            return self.watch(resource, query);
        }
        let (code, value) = self.plain(&parts, resource, namespace, name, &body);
        let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
        *response.status_mut() = code;
        response
    }

    fn watch(&self, resource: &str, query: &str) -> Response<Answer> {
        let (send, receive) = mpsc::unbounded_channel::<Bytes>();
        let from = query
            .split('&')
            .find_map(|it| it.strip_prefix("resourceVersion="));
        let from: u64 = from.and_then(|it| it.parse().ok()).unwrap_or(0);
        let mut state = self.0.lock();
        for (revision, kind, event) in &state.log {
            if *revision > from && kind == resource {
                send.send(Bytes::from(format!("{event}\n"))).unwrap();
            }
        }
        state.watches.push((resource.to_owned(), send));
        let lines = futures::stream::unfold(receive, |mut receive| async move {
            let line = receive.recv().await?;
            Some((line, receive))
        });
        let frames = lines.map(|it| Ok::<_, Infallible>(Frame::data(it)));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    fn plain(
        &self,
        parts: &http::request::Parts,
        resource: &str,
        namespace: &str,
        name: &str,
        body: &[u8],
    ) -> (StatusCode, Value) {
        let mut state = self.0.lock();
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let found = state.objects.get(&key).cloned();
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let kind = parts
            .headers
            .get("content-type")
            .and_then(|it| it.to_str().ok())
            .unwrap_or_default();
        if parts.method != Method::GET {
            *state
                .writes
                .entry(format!("{} {resource}", parts.method))
                .or_default() += 1;
        }
        match parts.method {
            Method::GET if name.is_empty() => {
                let items = match resource {
                    // Only the rules are looked for, and there are none.
                    "configmaps" => vec![],
                    _ => state.list(resource, namespace),
                };
                let revision = state.revision.to_string();
                let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": revision}, "items": items});
                (StatusCode::OK, list)
            }
            Method::GET => found.map_or_else(
                || status(StatusCode::NOT_FOUND, "NotFound"),
                |it| (StatusCode::OK, it),
            ),
            Method::POST => {
                let name = sent["metadata"]["name"].as_str().unwrap().to_owned();
                let key = (key.0, key.1, name);
                if state.objects.contains_key(&key) {
                    return status(StatusCode::CONFLICT, "AlreadyExists");
                }
                let mut object = sent;
                object["metadata"]["uid"] = format!("{}-{}", state.uids, key.2).into();
                state.put(key, object.clone(), "ADDED");
                (StatusCode::CREATED, object)
            }
            Method::PATCH => {
                let apply = kind.contains("apply");
                let Some(mut object) = found.or_else(|| apply.then(|| json!({"metadata": {}})))
                else {
                    return status(StatusCode::NOT_FOUND, "NotFound");
                };
                let uid = &sent["metadata"]["uid"];
                if !uid.is_null() && object["metadata"]["uid"] != *uid {
                    return status(StatusCode::CONFLICT, "Conflict");
                }
                if resource == "leases" {
                    let time = |it: &Value| {
                        it["spec"]["renewTime"]
                            .as_str()
                            .and_then(|it| it.parse::<jiff::Timestamp>().ok())
                    };
                    if let (Some(before), Some(after)) = (time(&object), time(&sent)) {
                        let gap = state.gaps.entry(key.2.clone()).or_default();
                        *gap = gap.max(after.duration_since(before).as_secs_f64());
                    }
                }
                merge(&mut object, sent, kind.contains("strategic"));
                state.put(key, object.clone(), "MODIFIED");
                (StatusCode::OK, object)
            }
            Method::DELETE => match found {
                Some(object) => {
                    state.put(key, object.clone(), "DELETED");
                    (StatusCode::OK, object)
                }
                None => status(StatusCode::NOT_FOUND, "NotFound"),
            },
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    /// A pod of an application, bound to a node.
    fn pod(&self, name: &str, node: &str, edit: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "shop", "uid": format!("{}-{name}", self.0.lock().uids),
                "labels": {"app": name.split('-').next().unwrap_or_default()},
            },
            "spec": {
                "nodeName": node,
                "containers": [{
                    "name": "app", "image": "shop/app:1", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                    "readinessProbe": {"periodSeconds": 10},
                }],
            },
            "status": {"phase": "Pending"},
        });
        edit(&mut pod);
        let key = ("pods".into(), "shop".into(), name.to_owned());
        self.0.lock().put(key, pod, "ADDED");
    }

    fn get(&self, resource: &str, namespace: &str, name: &str) -> Value {
        let key = (resource.into(), namespace.into(), name.into());
        self.0.lock().objects.get(&key).cloned().unwrap_or_default()
    }

    /// What became of the pods, without what tells one run's objects from another's.
    fn outcome(&self) -> Vec<String> {
        let describe = |pod: &Value| {
            let of = &pod["status"]["containerStatuses"][0];
            let last = &of["lastState"]["terminated"];
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let ready = conditions
                .filter(|it| it["type"] == "Ready" && it["status"] == "True")
                .count();
            format!(
                "{} {} {} ready={ready} restarts={} last={} {} {}",
                pod["metadata"]["name"],
                pod["status"]["phase"],
                pod["status"]["reason"],
                of["restartCount"],
                last["reason"],
                last["exitCode"],
                last["finishedAt"],
            )
        };
        self.0
            .lock()
            .list("pods", "shop")
            .iter()
            .map(describe)
            .collect()
    }
}

/// A simulation that is under way.
struct Play {
    cluster: Cluster,
    network: Network,
    clock: Clock,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), crate::Error>>,
}

impl Play {
    fn begin(scenario: &str, seed: u64, uids: &str) -> Self {
        let scenario = Scenario::parse(scenario, &|name| Err(format!("no {name} here")));
        Self::of(scenario.unwrap_or_else(|it| panic!("{it:?}")), seed, uids)
    }

    fn of(scenario: Scenario, seed: u64, uids: &str) -> Self {
        let cluster = Cluster::default();
        cluster.0.lock().uids = uids.to_owned();
        let network = Network::default();
        let mut options = Options {
            groups: scenario.groups(&[("east".into(), "a".into()), ("east".into(), "b".into())]),
            // Seldom: each renewal is work, and this is a test of many hours.
            lease_interval: Duration::from_secs(600),
            status_interval: Duration::from_secs(1800),
            network: Some(network.clone()),
            clock: Clock::runtime(MIDNIGHT),
            seed,
            ..Options::default()
        };
        let scenario = Arc::new(scenario);
        scenario.apply(&mut options);
        options.seed = seed;
        let clock = options.clock;
        let stop = CancellationToken::new();
        let running = tokio::spawn(super::run(cluster.client(), options, stop.clone()));
        Self {
            cluster,
            network,
            clock,
            stop,
            running,
        }
    }

    /// Lets virtual time pass until so long after midnight.
    async fn until(&self, hours: f64) {
        let at = MIDNIGHT.plus(HOUR.mul_f64(hours));
        tokio::time::sleep(at.since(self.clock.now())).await;
    }

    async fn end(self) -> Cluster {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        self.cluster
    }
}

const DAY: &str = r#"
nodes:
  - {class: small, count: 6, cpu: "8", memory: 32Gi}
images:
  registry: {perNode: 10Mi}
  list:
    - {image: "shop/*", size: 600Mi}
behaviours:
  - labels: {app: web}
    cpu: {diurnal: {low: 10%, high: 90%, peak: "14:00"}}
    memory: {constant: 50%}
  - labels: {app: hog}
    memory: 3Gi
  - labels: {app: flaky}
    crash: {after: mean 3h, exitCode: 3}
  - {labels: {app: leaky}, oom: {after: 5h}}
  - {labels: {app: shy}, unready: {after: 2h, for: 10m}}
events:
  - {at: 6h, cut: {zone: b}, for: 30m}
  - {at: 12h, kill: {node: a-small-001}, for: 1h}
  - {at: 15h, pressure: {of: memory, node: a-small-002, evict: 2}, for: 5m}
  - {at: 16h, skew: {node: a-small-003, by: -45s}}
"#;

fn day(play: &Play) {
    for node in ["a-small-001", "a-small-002", "b-small-001"] {
        let last = &node[node.len() - 1..];
        play.cluster
            .pod(&format!("web-{}{last}", &node[..1]), node, |_| {});
    }
    for (name, node) in [
        ("flaky-1", "a-small-003"),
        ("flaky-2", "a-small-003"),
        ("leaky-1", "b-small-002"),
    ] {
        play.cluster.pod(name, node, |_| {});
    }
    play.cluster.pod("shy-1", "b-small-003", |_| {});
    play.cluster.pod("hog-1", "a-small-002", |_| {});
    play.cluster.pod("hog-2", "a-small-002", |pod| {
        pod["spec"]["priority"] = 100.into()
    });
    play.cluster.pod("sys-1", "a-small-002", |pod| {
        pod["spec"]["priority"] = 2_000_000_000.into();
        pod["spec"]["containers"][0]["resources"] = json!({});
    });
}

#[tokio::test(start_paused = true)]
async fn a_day_passes_with_its_failures() {
    let play = Play::begin(DAY, 1, "x");
    play.until(0.01).await;
    day(&play);
    let pod = |name: &str| play.cluster.get("pods", "shop", name);
    let ready = |name: &str| {
        let pod = pod(name);
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .iter()
            .any(|it| it["type"] == "Ready" && it["status"] == "True")
    };
    // 600 MiB at 10 MiB a second.
    play.until(0.01 + 50.0 / 3600.0).await;
    assert_eq!(
        pod("web-a1")["status"]["phase"],
        "Pending",
        "its image is on its way"
    );
    play.until(0.1).await;
    assert_eq!(pod("web-a1")["status"]["phase"], "Running");

    let cores = |name: &str| testing::cores(&play.network, &pod(name), play.clock.now());
    play.until(2.0).await;
    assert!(
        (cores("web-a1") - 0.1).abs() < 0.01,
        "by night: {}",
        cores("web-a1")
    );
    assert!(ready("shy-1"));
    play.until(2.12).await;
    assert!(!ready("shy-1"), "out of service two hours after its start");
    play.until(2.3).await;
    assert!(ready("shy-1"), "and back after ten minutes");

    play.until(5.9).await;
    assert_eq!(
        pod("leaky-1")["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"],
        "OOMKilled"
    );

    play.until(12.5).await;
    assert_eq!(
        pod("web-a1")["status"]["phase"],
        "Running",
        "as it was last seen"
    );
    assert!(!testing::reached(&play.network, "a-small-001"));
    let address = pod("web-a1")["status"]["podIP"].clone();
    play.until(13.1).await;
    assert!(testing::reached(&play.network, "a-small-001"));
    let of = pod("web-a1")["status"].clone();
    let last = &of["containerStatuses"][0];
    assert_eq!(
        (
            &last["restartCount"],
            &last["lastState"]["terminated"]["exitCode"]
        ),
        (&json!(1), &json!(255))
    );
    assert_ne!(of["podIP"], address, "a new sandbox has a new address");
    let boot =
        |node: &str| play.cluster.get("nodes", "", node)["status"]["nodeInfo"]["bootID"].clone();
    assert_ne!(boot("a-small-001"), boot("a-small-002"));

    play.until(14.0).await;
    assert!(
        (cores("web-b1") - 0.9).abs() < 0.02,
        "at the peak: {}",
        cores("web-b1")
    );
    let before = testing::counter(&play.network, &pod("web-b1"), play.clock.now());
    play.until(14.5).await;
    let rate =
        (testing::counter(&play.network, &pod("web-b1"), play.clock.now()) - before) / 1800.0;
    assert!((rate - 0.9).abs() < 0.02, "the counter agrees: {rate}");

    play.until(15.05).await;
    let node = play.cluster.get("nodes", "", "a-small-002");
    let pressed = |node: &Value| {
        let all = node["status"]["conditions"].as_array().unwrap();
        all.iter()
            .any(|it| it["type"] == "MemoryPressure" && it["status"] == "True")
    };
    assert!(pressed(&node));
    play.until(15.5).await;
    assert!(
        !pressed(&play.cluster.get("nodes", "", "a-small-002")),
        "over, and five minutes more"
    );

    play.until(24.0).await;
    let cluster = play.end().await;
    let reason = |name: &str| cluster.get("pods", "shop", name)["status"]["reason"].clone();
    assert_eq!(
        (reason("hog-1"), reason("hog-2")),
        (json!("Evicted"), json!("Evicted"))
    );
    assert_eq!(
        (reason("web-a2"), reason("sys-1")),
        (Value::Null, Value::Null),
        "within its request; the system's own"
    );
    let evicted = cluster.get("pods", "shop", "hog-1")["status"].clone();
    let message = evicted["message"].as_str().unwrap();
    assert!(
        message.contains(
            "Container app was using 3Gi, request is 1Gi, has larger consumption of memory."
        ),
        "{message}"
    );
    let conditions = evicted["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|it| it["type"] == "DisruptionTarget" && it["reason"] == "TerminationByKubelet")
    );
    let restarts = |name: &str| {
        cluster.get("pods", "shop", name)["status"]["containerStatuses"][0]["restartCount"].as_u64()
    };
    assert!(restarts("flaky-1").unwrap() + restarts("flaky-2").unwrap() > 4);
    let state = cluster.0.lock();
    let gap = |node: &str| state.gaps[node];
    assert!(
        (1799.0..2450.0).contains(&gap("b-small-001")),
        "cut for half an hour: {}",
        gap("b-small-001")
    );
    assert!(
        (3599.0..4250.0).contains(&gap("a-small-001")),
        "off for an hour: {}",
        gap("a-small-001")
    );
    assert!(gap("a-small-002") < 650.0, "{}", gap("a-small-002"));
    drop(state);
}

const HUNGRY: &str = r#"
nodes:
  - {class: small, count: 1, zone: a, cpu: "8", memory: 4Gi, disk: 100Gi}
behaviours:
  - labels: {app: swell}
    memory: {diurnal: {low: 100Mi, high: 3Gi, peak: "12:00"}}
  - labels: {app: writer}
    disk: {constant: 95Gi}
  - labels: {app: spill}
    disk: 2Gi
"#;

/// Nothing is told to happen here: nodes look at what their pods use.
#[tokio::test(start_paused = true)]
async fn nodes_evict_by_what_is_used() {
    let play = Play::begin(HUNGRY, 1, "x");
    play.until(0.01).await;
    let node = "a-small-001";
    for name in ["swell-1", "swell-2"] {
        play.cluster.pod(name, node, |_| {});
    }
    play.cluster.pod("calm-1", node, |_| {});
    let status = |name: &str| play.cluster.get("pods", "shop", name)["status"].clone();
    let pressed = |what: &str| {
        let node = play.cluster.get("nodes", "", node);
        let all = node["status"]["conditions"].as_array().unwrap();
        all.iter()
            .any(|it| it["type"] == what && it["status"] == "True")
    };
    play.until(2.0).await;
    assert!(!pressed("MemoryPressure"));
    assert_eq!(status("swell-1")["phase"], "Running");
    play.until(12.0).await;
    let ended: Vec<&str> = ["swell-1", "swell-2", "calm-1"]
        .into_iter()
        .filter(|it| status(it)["reason"] == "Evicted")
        .collect();
    assert_eq!(
        ended.len(),
        1,
        "one of the two that grow is enough: {ended:?}"
    );
    assert!(ended[0].starts_with("swell"), "{ended:?}");
    let message = status(ended[0])["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with(
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: "
        ),
        "{message}"
    );
    assert!(
        message.contains("Container app was using ")
            && message.contains("request is 1Gi, has larger consumption of memory."),
        "{message}"
    );
    assert!(!pressed("MemoryPressure"), "long over");

    // The disk: more than a node can bear, and more than a container may.
    play.cluster.pod("writer-1", node, |_| {});
    play.cluster.pod("spill-1", node, |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "1Gi"}});
    });
    play.cluster.pod("spill-2", node, |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "3Gi"}});
    });
    play.until(12.05).await;
    assert!(pressed("DiskPressure"));
    assert_eq!(status("writer-1")["reason"], "Evicted");
    let message = status("spill-1")["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_eq!(
        message,
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "
    );
    let conditions = status("spill-1")["conditions"].as_array().unwrap().clone();
    assert!(
        conditions.iter().all(|it| it["type"] != "DisruptionTarget"),
        "its own fault"
    );
    assert_eq!(status("spill-2")["phase"], "Running");
    play.until(12.3).await;
    assert!(!pressed("DiskPressure"), "over, and five minutes more");
    play.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_day() {
    let outcome = async |seed, uids| {
        let play = Play::begin(DAY, seed, uids);
        play.until(0.01).await;
        day(&play);
        play.until(9.0).await;
        play.end().await.outcome()
    };
    let first = outcome(1, "x").await;
    assert_eq!(first.len(), 10, "{first:#?}");
    // Virtual time goes on, so a second day begins later: times are left out of the comparison.
    let undated = |all: &[String]| -> Vec<String> {
        all.iter()
            .map(|it| it.rsplit_once(' ').unwrap().0.to_owned())
            .collect()
    };
    assert_eq!(undated(&outcome(1, "other-uids").await), undated(&first));
    assert_ne!(undated(&outcome(2, "x").await), undated(&first));
}

/// What ships as an example is a scenario, is told in words, and can be played.
#[tokio::test(start_paused = true)]
async fn examples_play() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scenarios");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|it| it.unwrap().path())
        .filter(|it| it.extension().is_some_and(|it| it == "yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= 4, "{names:?}");
    for file in names {
        let scenario = Scenario::load(&file).unwrap_or_else(|refused| panic!("{refused}"));
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        insta::assert_snapshot!(
            format!("scenario {stem}"),
            crate::scenario::describe(&scenario)
        );
        let nodes: u32 = scenario.nodes.iter().map(|it| it.count).sum();
        let play = Play::of(scenario, 1, "x");
        tokio::time::sleep(HOUR).await;
        let cluster = play.end().await;
        assert_eq!(
            cluster.0.lock().list("nodes", "").len(),
            nodes as usize,
            "{stem}"
        );
    }
}
