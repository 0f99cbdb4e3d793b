//! A whole fleet in one process: a hub and two members with everything a cluster needs, releases
//! through the API alone, and the hub ended and started again in the middle of one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a helper fails the test that calls it"
)]

#[path = "fleet/flow.rs"]
mod flow;
#[path = "fleet/gates.rs"]
mod gates;
#[path = "fleet/moves.rs"]
mod moves;
#[path = "fleet/people.rs"]
mod people;
#[path = "fleet/promoted.rs"]
mod promoted;
#[path = "fleet/refused.rs"]
mod refused;

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use gantry_api::{Phase, Release, labels};
use gantry_apiserver::{Authentication, Config, Server};
use gantry_hollow::NodeGroup;
use gantry_store::Store;
use k8s_openapi::{ByteString, api::core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// An API server with the controllers, scheduler and simulated nodes of a cluster.
struct Running {
    server: Server,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

async fn start(cells: &[&str]) -> Running {
    let token = |token: &str, user: &str| gantry_apiserver::StaticToken {
        token: token.into(),
        user: user.into(),
        uid: String::new(),
        groups: vec!["system:masters".into()],
    };
    let config = Config {
        authentication: Authentication {
            tokens: vec![token("sesame", "hub"), token("bobs", "bob")],
            ..Authentication::default()
        },
        disabled_admission: vec!["ServiceAccount".into()],
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(gantry_store::Options::default()))
        .await
        .unwrap();
    let mut running = Running::of(server);
    let (server, tasks, stop) = (&running.server, &mut running.tasks, &running.stop);
    let hollow = gantry_hollow::Options {
        groups: cells
            .iter()
            .map(|cell| NodeGroup::new("east", *cell, 3))
            .collect(),
        time_scale: 10.0,
        ..gantry_hollow::Options::default()
    };
    if !cells.is_empty() {
        let (client, ends) = (server.client(), stop.clone());
        tasks.spawn(async move {
            gantry_scheduler::run(client, gantry_scheduler::Options::default(), ends)
                .await
                .unwrap()
        });
        let (client, ends) = (server.client(), stop.clone());
        tasks.spawn(async move { gantry_hollow::run(client, hollow, ends).await.unwrap() });
    }
    running
}

impl Running {
    /// A server with the controllers that make it a cluster.
    fn of(server: Server) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (client, ends) = (server.client(), stop.clone());
        tasks.spawn(async move {
            gantry_controllers::run(client, gantry_controllers::Options::default(), ends)
                .await
                .unwrap()
        });
        Self {
            server,
            tasks,
            stop,
        }
    }

    fn kubeconfig(&self) -> String {
        self.kubeconfig_of("sesame")
    }

    fn kubeconfig_of(&self, token: &str) -> String {
        let ca =
            serde_json::to_value(ByteString(self.server.ca_pem().as_bytes().to_vec())).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": format!("https://{}", self.server.address()), "certificate-authority-data": ca}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        })
        .to_string()
    }

    /// A client of the user whose token it is.
    async fn client_of(&self, token: &str) -> Client {
        let config = kube::config::Kubeconfig::from_yaml(&self.kubeconfig_of(token)).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options)
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        self.server.shutdown().await;
    }
}

struct HubTask {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), gantry_hub::Error>>,
}

fn start_hub(client: Client) -> HubTask {
    start_hub_with(client, gantry_hub::Options::default())
}

fn start_hub_with(client: Client, options: gantry_hub::Options) -> HubTask {
    let stop = CancellationToken::new();
    let task = tokio::spawn(gantry_hub::run(client, options, stop.clone()));
    HubTask { stop, task }
}

impl HubTask {
    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Polls one object until something holds of it.
async fn until<K>(api: &Api<K>, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> K
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let seen = api.get_opt(name).await.unwrap();
        if let Some(seen) = &seen
            && holds(seen)
        {
            return seen.clone();
        }
        if tokio::time::Instant::now() >= deadline {
            let value = serde_json::to_value(&seen).unwrap();
            panic!(
                "{name} never: {what}\n{}",
                serde_json::to_string_pretty(&value["status"]).unwrap()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn pods(members: &[&Running]) -> BTreeMap<String, Pod> {
    let mut all = BTreeMap::new();
    for member in members {
        let api: Api<Pod> = Api::namespaced(member.server.client(), "shop");
        for pod in api
            .list(&ListParams::default().labels(labels::GROUP))
            .await
            .unwrap()
        {
            all.insert(pod.name_any(), pod);
        }
    }
    all
}

fn phase(release: &Release) -> Phase {
    release.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

fn release(name: &str, image: &str, strategy: Value) -> Release {
    object(json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": "Release", "metadata": {"name": name},
        "spec": {"group": "cart", "revision": {"image": image}, "requestedBy": "alice", "strategy": {"inline": strategy}},
    }))
}

async fn whoami(client: &Client) -> String {
    use k8s_openapi::api::authentication::v1::SelfSubjectReview;
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .unwrap();
    review.status.unwrap().user_info.unwrap().username.unwrap()
}
