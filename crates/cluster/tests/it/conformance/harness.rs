//! The cluster that the tests share, and how they speak to it: plain requests, so that they see what a
//! client of any language sees.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use futures::stream::BoxStream;
use gantry_cluster::{EmbeddedCluster, NodeGroup};
use http::Request;
use kube::Client;
use kube::api::{DynamicObject, WatchEvent};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// How long anything may take before the test fails. Generous: CI has two slow cores.
const DEADLINE: Duration = Duration::from_secs(120);
/// Nodes of the cluster.
pub const NODES: usize = 4;

/// The cluster lives as long as the process: its tasks run here, and so do the tests.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("threads to run on"));
static CLUSTER: LazyLock<EmbeddedCluster> = LazyLock::new(start);
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A name that no other test uses.
pub fn unique(base: &str) -> String {
    format!("{base}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A test's view of the cluster.
#[derive(Clone)]
pub struct Kube {
    pub client: Client,
    /// The test's own namespace.
    pub namespace: String,
}

fn start() -> EmbeddedCluster {
    let nodes = vec![NodeGroup {
        count: u32::try_from(NODES).unwrap(),
        ..NodeGroup::default()
    }];
    let starting = async { EmbeddedCluster::builder().nodes(nodes).start().await };
    RUNTIME.block_on(async { RUNTIME.spawn(starting).await.unwrap().unwrap() })
}

/// Runs a test on the shared cluster, in a namespace of its own.
pub fn on_cluster(test: impl AsyncFnOnce(Kube)) {
    run(&CLUSTER, test);
}

/// Runs a test that would disturb others on a cluster of its own.
pub fn on_own_cluster(test: impl AsyncFnOnce(Kube)) {
    let cluster = start();
    run(&cluster, test);
    RUNTIME.block_on(cluster.shutdown());
}

fn run(cluster: &EmbeddedCluster, test: impl AsyncFnOnce(Kube)) {
    // A client has a task of its own.
    let inside = RUNTIME.enter();
    let kube = Kube {
        client: cluster.client(),
        namespace: unique("e2e"),
    };
    drop(inside);
    RUNTIME.block_on(async {
        let name = kube.namespace.clone();
        kube.create("v1", "namespaces", json!({"metadata": {"name": name}}))
            .await;
        // As the conformance tests' framework waits.
        for (plural, name) in [
            ("serviceaccounts", "default"),
            ("configmaps", "kube-root-ca.crt"),
        ] {
            kube.until(
                name,
                async || kube.find("v1", plural, name).await,
                Option::is_some,
            )
            .await;
        }
        test(kube.clone()).await;
        kube.delete("v1", "namespaces", &name).await;
    });
}

/// Resources outside of namespaces.
const CLUSTER_WIDE: [&str; 22] = [
    "namespaces",
    "nodes",
    "persistentvolumes",
    "flowschemas",
    "prioritylevelconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "certificatesigningrequests",
    "ingressclasses",
    "ipaddresses",
    "servicecidrs",
    "runtimeclasses",
    "csidrivers",
    "csinodes",
    "storageclasses",
    "volumeattachments",
    "priorityclasses",
    "clusterroles",
    "customresourcedefinitions",
    "selfsubjectaccessreviews",
];

pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const JSON: &str = "application/json-patch+json";

impl Kube {
    pub fn path(&self, version: &str, plural: &str) -> String {
        let root = match version {
            "v1" => "/api/v1".to_owned(),
            version => format!("/apis/{version}"),
        };
        match CLUSTER_WIDE.contains(&plural) {
            true => format!("{root}/{plural}"),
            false => format!("{root}/namespaces/{}/{plural}", self.namespace),
        }
    }

    /// The answer to a request, whatever it is.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.as_bytes().to_vec().into()).unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let value = serde_json::from_str(&text).unwrap_or_else(|_| text.into_owned().into());
        (code, value)
    }

    async fn granted(&self, method: &str, path: &str, kind: &str, body: &Value) -> Value {
        let headers = [("content-type", kind)];
        let (code, value) = self.ask(method, path, &headers, &body.to_string()).await;
        assert!(
            (200..300).contains(&code),
            "{method} {path}: {code} {value:#}"
        );
        value
    }

    /// The code and the answer of an attempt to create an object.
    pub async fn try_create(&self, version: &str, plural: &str, object: &Value) -> (u16, Value) {
        let headers = [("content-type", "application/json")];
        let path = self.path(version, plural);
        self.ask("POST", &path, &headers, &object.to_string()).await
    }

    pub async fn create(&self, version: &str, plural: &str, object: Value) -> Value {
        let path = self.path(version, plural);
        self.granted("POST", &path, "application/json", &object)
            .await
    }

    /// An object, or a part of it after a slash (`web/status`).
    pub async fn get(&self, version: &str, plural: &str, name: &str) -> Value {
        let path = format!("{}/{name}", self.path(version, plural));
        let (code, value) = self.ask("GET", &path, &[], "").await;
        assert_eq!(code, 200, "GET {path}: {value:#}");
        value
    }

    pub async fn find(&self, version: &str, plural: &str, name: &str) -> Option<Value> {
        let path = format!("{}/{name}", self.path(version, plural));
        match self.ask("GET", &path, &[], "").await {
            (200, value) => Some(value),
            (404, _) => None,
            (code, value) => panic!("GET {path}: {code} {value:#}"),
        }
    }

    pub async fn list(&self, version: &str, plural: &str, labels: &str) -> Vec<Value> {
        let path = format!("{}?labelSelector={labels}", self.path(version, plural));
        let (code, value) = self.ask("GET", &path, &[], "").await;
        assert_eq!(code, 200, "GET {path}: {value:#}");
        value["items"].as_array().unwrap().clone()
    }

    pub async fn merge(&self, version: &str, plural: &str, name: &str, patch: Value) -> Value {
        self.patch(version, plural, name, MERGE, patch).await
    }

    pub async fn patch(
        &self,
        version: &str,
        plural: &str,
        name: &str,
        kind: &str,
        patch: Value,
    ) -> Value {
        let path = format!("{}/{name}", self.path(version, plural));
        self.granted("PATCH", &path, kind, &patch).await
    }

    /// Reads, changes and writes an object or its subresource, as often as it takes.
    pub async fn update(
        &self,
        version: &str,
        plural: &str,
        name: &str,
        change: impl Fn(&mut Value),
    ) -> Value {
        let object = name.split('/').next().unwrap();
        let path = format!("{}/{name}", self.path(version, plural));
        for _ in 0..50 {
            let mut value = self.get(version, plural, object).await;
            change(&mut value);
            let headers = [("content-type", "application/json")];
            match self.ask("PUT", &path, &headers, &value.to_string()).await {
                (200, value) => return value,
                (409, _) => {}
                (code, value) => panic!("PUT {path}: {code} {value:#}"),
            }
        }
        panic!("PUT {path}: always a conflict");
    }

    pub async fn delete(&self, version: &str, plural: &str, name: &str) {
        self.delete_with(version, plural, name, json!({})).await;
    }

    pub async fn delete_with(&self, version: &str, plural: &str, name: &str, options: Value) {
        let path = format!("{}/{name}", self.path(version, plural));
        self.granted("DELETE", &path, "application/json", &options)
            .await;
    }

    pub async fn delete_all(&self, version: &str, plural: &str, labels: &str) {
        let path = format!("{}?labelSelector={labels}", self.path(version, plural));
        self.granted("DELETE", &path, "application/json", &json!({}))
            .await;
    }

    /// The log of a container, as it is now; nothing while it waits to start.
    pub async fn log(&self, pod: &str, container: &str) -> String {
        let path = self.path("v1", "pods");
        let path = format!("{path}/{pod}/log?container={container}");
        let (code, log) = self.ask("GET", &path, &[], "").await;
        match log {
            Value::String(log) if code == 200 => log,
            log if log["message"]
                .as_str()
                .is_some_and(|it| it.contains("is waiting to start")) =>
            {
                String::new()
            }
            // Before the pod has a node there is nobody to ask.
            _ if code == 204 => String::new(),
            // A log that is a JSON value by chance.
            log if code == 200 => log.to_string(),
            log => panic!("GET {path}: {code} {log:#}"),
        }
    }

    /// What a command prints in a container, all of it, to standard output.
    pub async fn exec(&self, pod: &str, container: &str, command: &[&str]) -> String {
        let words: String = command
            .iter()
            .map(|it| format!("&command={}", encoded(it)))
            .collect();
        let path = self.path("v1", "pods");
        let request = Request::get(format!(
            "{path}/{pod}/exec?container={container}&stdout=1{words}"
        ))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "v4.channel.k8s.io")
        .body(kube::client::Body::empty());
        let answer = self.client.send(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 101, "{path}/{pod}/exec");
        let upgraded = hyper::upgrade::on(answer).await.unwrap();
        let mut frames = Vec::new();
        let mut connection = hyper_util::rt::TokioIo::new(upgraded);
        let read = tokio::io::AsyncReadExt::read_to_end(&mut connection, &mut frames);
        tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap();
        standard_output(&frames)
    }

    /// Asks for the eviction of a pod.
    pub async fn evict(&self, pod: &str) -> (u16, Value) {
        let path = format!("{}/{pod}/eviction", self.path("v1", "pods"));
        let eviction =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
        let headers = [("content-type", "application/json")];
        self.ask("POST", &path, &headers, &eviction.to_string())
            .await
    }

    /// Waits until what is looked at is as it should be.
    pub async fn until<T: std::fmt::Debug>(
        &self,
        what: &str,
        look: impl AsyncFn() -> T,
        wanted: impl Fn(&T) -> bool,
    ) -> T {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let seen = look().await;
            if wanted(&seen) {
                return seen;
            }
            if tokio::time::Instant::now() > deadline {
                panic!("{what}: still {seen:#?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a state of an object.
    pub async fn until_object(
        &self,
        version: &str,
        plural: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let what = format!("{plural}/{name}: {what}");
        self.until(
            &what,
            async || self.get(version, plural, name).await,
            wanted,
        )
        .await
    }

    pub async fn until_gone(&self, version: &str, plural: &str, name: &str) {
        let what = format!("{plural}/{name} gone");
        self.until(
            &what,
            async || self.find(version, plural, name).await,
            Option::is_none,
        )
        .await;
    }

    /// Pods with these labels that are not on their way out, once there are so many and all are ready.
    pub async fn ready_pods(&self, labels: &str, count: usize) -> Vec<Value> {
        let pods = async || {
            let mut pods = self.list("v1", "pods", labels).await;
            pods.retain(|it| it["metadata"].get("deletionTimestamp").is_none());
            pods
        };
        let what = format!("{count} ready pods of {labels}");
        self.until(&what, pods, |pods| {
            pods.len() == count && pods.iter().all(|it| holds(it, "Ready"))
        })
        .await
    }

    pub async fn running(&self, pod: &str) -> Value {
        self.until_object("v1", "pods", pod, "ready", |it| holds(it, "Ready"))
            .await
    }

    /// A watch from now on.
    pub async fn watch(&self, version: &str, plural: &str, labels: &str) -> Watch {
        let path = self.path(version, plural);
        let (_, list) = self.ask("GET", &format!("{path}?limit=1"), &[], "").await;
        let since = list["metadata"]["resourceVersion"].as_str().unwrap();
        let uri = format!("{path}?watch=true&labelSelector={labels}&resourceVersion={since}");
        let request = Request::get(uri).body(vec![]).unwrap();
        let events = self.client.request_events::<DynamicObject>(request).await;
        Watch(Box::pin(events.unwrap()))
    }
}

/// A value as it stands in a query.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// What frames of a WebSocket carry on the channel of standard output.
fn standard_output(mut frames: &[u8]) -> String {
    let mut out = Vec::new();
    while let [_, length, rest @ ..] = frames {
        let (length, rest) = match (length, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (127, _) => panic!("a longer frame than is expected"),
            (length, rest) => (usize::from(*length), rest),
        };
        let (payload, rest) = rest.split_at(length);
        if let [1, text @ ..] = payload {
            out.extend_from_slice(text);
        }
        frames = rest;
    }
    String::from_utf8(out).unwrap()
}

/// What a watch shows.
pub struct Watch(BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>);

impl Watch {
    /// The next event: its type, and the object.
    pub async fn next(&mut self) -> (&'static str, Value) {
        let next = tokio::time::timeout(DEADLINE, self.0.try_next()).await;
        let event = next.expect("an event in time").unwrap();
        match event.expect("the watch goes on") {
            WatchEvent::Added(it) => ("ADDED", serde_json::to_value(it).unwrap()),
            WatchEvent::Modified(it) => ("MODIFIED", serde_json::to_value(it).unwrap()),
            WatchEvent::Deleted(it) => ("DELETED", serde_json::to_value(it).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    /// Skips events up to one of this type that is as it should be.
    pub async fn until(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (seen, object) = self.next().await;
            if seen == kind && wanted(&object) {
                return object;
            }
        }
    }
}

pub fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array();
    let mut all = all.into_iter().flatten();
    all.find(|it| it["type"] == kind)
        .cloned()
        .unwrap_or_default()
}

pub fn holds(object: &Value, kind: &str) -> bool {
    condition(object, kind)["status"] == "True"
}

/// The uid of the controller that owns an object.
pub fn owner(object: &Value) -> Option<String> {
    let all = object["metadata"]["ownerReferences"].as_array()?;
    let owner = all.iter().find(|it| it["controller"] == true)?;
    Some(owner["uid"].as_str()?.to_owned())
}

pub fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

pub fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// A number of a status; those that are zero are left out.
pub fn number(object: &Value, field: &str) -> i64 {
    object["status"][field].as_i64().unwrap_or(0)
}

/// A pod of one container.
pub fn pod(name: &str, labels: Value, spec: Value, container: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]}});
    merge_into(&mut pod["spec"], spec);
    merge_into(&mut pod["spec"]["containers"][0], container);
    pod
}

/// Fields of one object put into another.
pub fn merge_into(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}
