//! A cluster of one API server, a scheduler, and what tests do with them.

use crate::support;
use gantry_apiserver::{Config, Server};
use gantry_scheduler::Options;
use gantry_store::Store;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Starts a scheduler.
pub fn scheduler(client: Client, options: Options) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let run = tokio::spawn(async move {
        gantry_scheduler::run(client, options, token)
            .await
            .expect("ends without an error");
    });
    (stop, run)
}

/// A cluster of one API server, and a scheduler that can be stopped and started.
pub struct World {
    server: Server,
    pub client: Client,
    pub scheduler: Option<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    pub async fn new() -> Self {
        let config = Config {
            disabled_admission: vec!["ServiceAccount".to_owned()],
            ..Config::default()
        };
        let server = Server::start(config, Store::in_memory(gantry_store::Options::default()))
            .await
            .expect("starts");
        let client = server.client();
        let namespace =
            serde_json::from_value(json!({"metadata": {"name": "shop"}})).expect("a namespace");
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .expect("created");
        let mut world = Self {
            server,
            client,
            scheduler: None,
        };
        world.start();
        world
    }

    pub fn start(&mut self) {
        self.start_with(self.client.clone());
    }

    pub fn start_with(&mut self, client: Client) {
        self.scheduler = Some(scheduler(client, Options::default()));
    }

    pub async fn stop(&mut self) {
        let (stop, run) = self.scheduler.take().expect("runs");
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), run)
            .await
            .expect("stops quickly")
            .expect("without panic");
    }

    pub async fn end(mut self) {
        self.stop().await;
        self.server.shutdown().await;
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "shop")
    }

    pub async fn node(&self, name: &str, over: &Value) {
        let nodes = Api::<Node>::all(self.client.clone());
        let node = support::node(name, "a", over);
        let status = json!({"status": node["status"]});
        // Admission taints every new node as not ready; the node lifecycle controller would take it back.
        let ready = json!({"spec": {"taints": node["spec"].get("taints")}});
        let node = serde_json::from_value(node).expect("a node");
        nodes
            .create(&PostParams::default(), &node)
            .await
            .expect("node created");
        let patch = Patch::Merge(&status);
        nodes
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .expect("node status written");
        let ready = Patch::Merge(&ready);
        nodes
            .patch(name, &PatchParams::default(), &ready)
            .await
            .expect("node made ready");
    }

    pub async fn pod(&self, name: &str, over: &Value) {
        let mut pod = support::pod(
            name,
            &json!({"spec": {"containers": [{"name": "c", "image": "i", "resources":
            {"requests": {"cpu": "1", "memory": "512Mi"}}}]}}),
        );
        support::merge(&mut pod, over);
        pod["metadata"]["namespace"] = json!("shop");
        pod["metadata"]
            .as_object_mut()
            .expect("an object")
            .remove("uid");
        let pod = serde_json::from_value(pod).expect("a pod");
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .expect("pod created");
    }

    /// Waits until a pod is as wanted.
    pub async fn until<T>(&self, name: &str, what: &str, wanted: impl Fn(&Pod) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let pod = self.pods().get(name).await.expect("the pod");
            if let Some(found) = wanted(&pod) {
                return found;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{name} is not {what}: {pod:#?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn bound(&self, name: &str) -> String {
        self.until(name, "bound", |pod| pod.spec.as_ref()?.node_name.clone())
            .await
    }

    pub async fn refused(&self, name: &str) -> String {
        self.until(name, "refused", |pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let condition = conditions
                .iter()
                .find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
            (condition.reason.as_deref() == Some("Unschedulable"))
                .then(|| condition.message.clone())?
        })
        .await
    }

    /// Waits for an event about a pod and returns its message.
    pub async fn event(&self, pod: &str, reason: &str) -> String {
        let events = Api::<Event>::namespaced(self.client.clone(), "shop");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let list = events.list(&ListParams::default()).await.expect("events");
            let found = list.items.into_iter().find(|e| {
                e.involved_object.name.as_deref() == Some(pod)
                    && e.reason.as_deref() == Some(reason)
            });
            if let Some(event) = found {
                return event.message.unwrap_or_default();
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "no event {reason} for {pod}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub async fn create<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object)
        .await
        .expect("created");
}

/// Waits until an object is as wanted.
pub async fn until_is<K>(api: &Api<K>, name: &str, wanted: impl Fn(&Value) -> bool) -> Value
where
    K: Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let found = api.get_opt(name).await.expect("an answer");
        let found = serde_json::to_value(found).expect("JSON");
        if wanted(&found) {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{name} is not as wanted: {found:#}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Kinds of others that the scheduler reads, as plain values.
pub async fn make(client: &Client, path: &str, body: Value) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .expect("a request");
        match client.request::<Value>(request).await {
            Ok(_) => return,
            // A definition may be established a moment after it was taken.
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{path}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
