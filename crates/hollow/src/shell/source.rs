//! The watches: each in a task of its own, so that decoding does not hold up the rest.

use super::world::retry_after;
use crate::{
    object::{ClaimObject, NodeObject, PodObject},
    options::SIMULATED,
};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::ListParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use std::fmt::Debug;
use tokio::{sync::mpsc, task::JoinSet};

/// Where the rules are.
pub const RULES_NAMESPACE: &str = "kube-system";
/// Where the rules are.
pub const RULES_NAME: &str = "hollow-behaviours";

/// What the watches bring.
#[derive(Debug)]
pub enum Seen {
    /// Nodes, only simulated ones.
    Node(Box<Event<NodeObject>>),
    /// Pods, only bound ones.
    Pod(Box<Event<PodObject>>),
    /// Claims to devices.
    Claim(Box<Event<ClaimObject>>),
    /// The rules.
    Rules(Box<Event<ConfigMap>>),
    /// The watch of the rules does not come up.
    NoRules,
}

/// Watches of one simulation; they end when this is dropped.
pub struct Sources {
    client: Client,
    tasks: JoinSet<()>,
    send: mpsc::Sender<Seen>,
}

impl Sources {
    /// The sources, and where what they see comes out.
    pub fn new(client: Client) -> (Self, mpsc::Receiver<Seen>) {
        let (send, receive) = mpsc::channel(1024);
        (
            Self {
                client,
                tasks: JoinSet::new(),
                send,
            },
            receive,
        )
    }

    fn watch<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        what: &'static str,
        wrap: fn(Event<K>) -> Seen,
        lost: Option<Seen>,
    ) where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + Debug + Send + 'static,
    {
        let send = self.send.clone();
        let mut lost = lost;
        self.tasks.spawn(async move {
            let mut stream = watcher(api, config).default_backoff().boxed();
            // A watcher never ends: after an error it waits, and watches or lists again.
            loop {
                let seen = match stream.try_next().await {
                    Ok(Some(event)) => wrap(event),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(%error, "watch of {what} interrupted, trying again");
                        match lost.take() {
                            Some(seen) => seen,
                            None => continue,
                        }
                    }
                };
                if send.send(seen).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Begins to watch simulated nodes and the rules.
    pub fn watch_nodes_and_rules(&mut self) {
        let selector = format!("{SIMULATED}=true");
        let nodes = Api::all(self.client.clone());
        self.watch(
            nodes,
            watcher::Config::default().labels(&selector),
            "nodes",
            |event| Seen::Node(Box::new(event)),
            None,
        );
        let rules = Api::namespaced(self.client.clone(), RULES_NAMESPACE);
        let only = watcher::Config::default().fields(&format!("metadata.name={RULES_NAME}"));
        self.watch(
            rules,
            only,
            "behaviour rules",
            |event| Seen::Rules(Box::new(event)),
            Some(Seen::NoRules),
        );
    }

    /// Begins to watch bound pods.
    pub fn watch_pods(&mut self) {
        let pods = Api::all(self.client.clone());
        self.watch(
            pods,
            watcher::Config::default().fields("spec.nodeName!="),
            "pods",
            |event| Seen::Pod(Box::new(event)),
            None,
        );
    }

    /// Begins to watch claims to devices.
    pub fn watch_claims(&mut self) {
        let claims = Api::all(self.client.clone());
        self.watch(
            claims,
            watcher::Config::default(),
            "claims to devices",
            |event| Seen::Claim(Box::new(event)),
            None,
        );
    }

    /// Looks once for the pods of a node that turned out to be ours after they had been seen.
    pub fn list_pods_of(&mut self, node: String) {
        while self.tasks.try_join_next().is_some() {}
        let (client, send) = (self.client.clone(), self.send.clone());
        self.tasks.spawn(async move {
            let api: Api<PodObject> = Api::all(client);
            let only = ListParams::default().fields(&format!("spec.nodeName={node}"));
            for attempt in 1.. {
                let error = match api.list(&only).await {
                    Ok(list) => {
                        for pod in list {
                            let seen = Seen::Pod(Box::new(Event::Apply(pod)));
                            if send.send(seen).await.is_err() {
                                return;
                            }
                        }
                        return;
                    }
                    Err(error) => error,
                };
                tracing::warn!(%error, node, "cannot list the pods of a new node, trying again");
                tokio::time::sleep(retry_after(&node, attempt)).await;
            }
        });
    }
}
