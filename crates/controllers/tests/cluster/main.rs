//! The controllers against an API server, through a client, with a kubelet of the test's own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, which clippy.toml does not count as tests"
)]

mod addresses;
mod devices;
mod garbage;
mod jobs;
mod keeping;
mod namespaces;
mod network;
mod nodes;
mod walked;
mod workloads;

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use gantry_apiserver::{Config, Server};
use gantry_controllers::nodelifecycle::Timing;
use gantry_controllers::{Error, Options, run};
use gantry_store::Store;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

struct Rig {
    client: Client,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
    kubelet: JoinHandle<()>,
    server: Server,
    options: Options,
}

fn api(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    namespace: &str,
) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: if group.is_empty() {
            version.into()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.into(),
        plural: plural.into(),
    };
    if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    }
}

/// Runs pods: each becomes ready, unless its image is `broken`, and goes when told to.
async fn kubelet(client: Client) {
    let all = api(&client, "", "v1", "Pod", "pods", "");
    let mut events = std::pin::pin!(
        watcher(all, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    while let Some(event) = events.next().await {
        let Ok(pod) = event else { continue };
        let (name, namespace) = (pod.metadata.name.unwrap(), pod.metadata.namespace.unwrap());
        let pods = api(&client, "", "v1", "Pod", "pods", &namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            // It may have gone by itself.
            let _ = pods.delete(&name, &now).await;
            continue;
        }
        let broken = pod.data["spec"]["containers"][0]["image"] == "broken";
        let ready = if broken { "False" } else { "True" };
        let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        if pod.data["status"]["conditions"][0]["status"] != ready
            || pod.data["status"]["phase"] != "Running"
        {
            let _ = pods
                .patch_status(&name, &PatchParams::default(), &Patch::Strategic(status))
                .await;
        }
    }
}

impl Rig {
    async fn new() -> Self {
        let store = Store::in_memory(gantry_store::Options::default());
        Rig::serving(Config::default(), store).await
    }

    async fn serving(config: Config, store: Store) -> Self {
        let server = Server::start(config, store).await.unwrap();
        let client = server.client();
        let stop = CancellationToken::new();
        let options = Options {
            root_ca: Some(server.ca_pem().to_owned()),
            node_timing: Timing {
                period: Duration::from_millis(200),
                grace: Duration::from_secs(2),
                startup_grace: Duration::from_secs(3),
            },
            job_backoff: Duration::from_millis(100),
            ..Options::default()
        };
        let running = tokio::spawn(run(server.client(), options.clone(), stop.clone()));
        let kubelet = tokio::spawn(kubelet(client.clone()));
        let rig = Rig {
            client,
            stop,
            running,
            kubelet,
            server,
            options,
        };
        // Pods are admitted once their service account is there.
        let accounts = rig.api("", "v1", "ServiceAccount", "serviceaccounts", "default");
        rig.until(
            "account",
            async || accounts.get_opt("default").await.unwrap(),
            Option::is_some,
        )
        .await;
        rig
    }

    /// Ends the controllers.
    async fn stop(&mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, &mut self.running).await;
        ended.expect("stops").unwrap().unwrap();
    }

    /// Ends the controllers, if they run, and starts them anew.
    async fn restart(&mut self) {
        if !self.stop.is_cancelled() {
            self.stop().await;
        }
        self.stop = CancellationToken::new();
        let work = run(
            self.server.client(),
            self.options.clone(),
            self.stop.clone(),
        );
        self.running = tokio::spawn(work);
    }

    async fn end(mut self) {
        self.stop().await;
        self.kubelet.abort();
        self.server.shutdown().await;
    }

    fn api(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        namespace: &str,
    ) -> Api<DynamicObject> {
        api(&self.client, group, version, kind, plural, namespace)
    }

    fn pods(&self) -> Api<DynamicObject> {
        self.api("", "v1", "Pod", "pods", "default")
    }

    fn apps(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        self.api("apps", "v1", kind, plural, "default")
    }

    /// Waits until what `look` sees is what `wanted` says.
    async fn until<T: Debug>(
        &self,
        what: &str,
        look: impl AsyncFn() -> T,
        wanted: impl Fn(&T) -> bool,
    ) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let seen = look().await;
            if wanted(&seen) {
                return seen;
            }
            assert!(!self.running.is_finished(), "the controllers have ended");
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: still {seen:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the objects, each told as a string, are these.
    async fn until_list(
        &self,
        api: &Api<DynamicObject>,
        selector: &str,
        tell: impl Fn(&DynamicObject) -> String,
        wanted: &[&str],
    ) {
        let params = ListParams::default().labels(selector);
        self.until(
            "list",
            async || {
                let list = api.list(&params).await.unwrap();
                let mut told: Vec<String> = list.items.iter().map(&tell).collect();
                told.sort();
                told
            },
            |told| told == wanted,
        )
        .await;
    }

    async fn until_status(&self, api: &Api<DynamicObject>, name: &str, wanted: Value) -> Value {
        self.until(
            "status",
            async || api.get(name).await.unwrap().data["status"].clone(),
            |status| {
                wanted
                    .as_object()
                    .unwrap()
                    .iter()
                    .all(|(k, v)| status[k] == *v)
            },
        )
        .await
    }
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

async fn create(api: &Api<DynamicObject>, value: Value) -> DynamicObject {
    api.create(&PostParams::default(), &object(value))
        .await
        .unwrap()
}

async fn merge(api: &Api<DynamicObject>, name: &str, value: Value) {
    api.patch(name, &PatchParams::default(), &Patch::Merge(value))
        .await
        .unwrap();
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]}})
}

fn name_and_image(pod: &DynamicObject) -> String {
    let image = pod.data["spec"]["containers"][0]["image"].as_str().unwrap();
    format!("{} {image}", pod.metadata.name.as_deref().unwrap())
}

fn stateful_set(replicas: i32, policy: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "serviceName": "web", "podManagementPolicy": policy,
        "selector": {"matchLabels": {"app": "web"}}, "template": template("one"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})
}
