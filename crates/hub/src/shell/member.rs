//! One member: its client and its shared watches. A member that cannot be reached is a state.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry_api::labels;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{Api, Client, runtime::watcher};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    slim::{Job, Node, Notes, Pod, Set},
    table::{Changed, Key, Table},
};

/// How the member answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers; its version.
    Up(String),
    /// It does not: since when, why.
    Down(Timestamp, String),
}

/// A member and what is known of it.
pub struct Member {
    pub name: String,
    pub client: Client,
    pub pods: Arc<Table<Pod>>,
    pub sets: Arc<Table<Set>>,
    pub nodes: Arc<Table<Node>>,
    /// Quotas of all namespaces. Where they may not be read, plans say nothing of them.
    pub quotas: Arc<Table<ResourceQuota>>,
    /// Which instances' next pods belong on which node.
    pub notes: Arc<Table<Notes>>,
    /// Jobs of ReleaseOrders.
    pub jobs: Arc<Table<Job>>,
    health: Mutex<Health>,
    /// Ends the watches when the member goes or is reached in another way.
    pub stop: CancellationToken,
    /// What the connection was made from, to tell when it has to be made anew.
    pub access: String,
}

fn group_label(meta: &kube::core::ObjectMeta) -> Option<String> {
    meta.labels.as_ref()?.get(labels::GROUP).cloned()
}

impl Member {
    /// Starts the watches. `changed` is told of Groups (`None`: the member as a whole), `order` of
    /// ReleaseOrders.
    pub fn start(
        name: &str,
        client: Client,
        access: String,
        stop: &CancellationToken,
        changed: impl Fn(Option<Key>) + Clone + Send + Sync + 'static,
        order: impl Fn(Key) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let member = Arc::new(Self {
            name: name.to_owned(),
            pods: Table::new(|p: &Pod| group_label(&p.metadata)),
            sets: Table::new(|s: &Set| group_label(&s.metadata)),
            nodes: Table::new(|_| None),
            quotas: Table::new(|_| None),
            notes: Table::new(|n: &Notes| group_label(&n.metadata)),
            jobs: Table::new(super::orders::by_order),
            health: Mutex::new(Health::Down(Timestamp::now(), "not reached yet".to_owned())),
            stop: stop.child_token(),
            access,
            client,
        });
        let selector = watcher::Config::default().labels(labels::GROUP);
        tokio::spawn(member.pods.clone().watch(
            Api::all(member.client.clone()),
            selector.clone(),
            notify(changed.clone()),
            member.stop.clone(),
        ));
        tokio::spawn(member.sets.clone().watch(
            Api::all(member.client.clone()),
            selector,
            notify(changed.clone()),
            member.stop.clone(),
        ));
        tokio::spawn(member.nodes.clone().watch(
            Api::all(member.client.clone()),
            watcher::Config::default(),
            notify(changed.clone()),
            member.stop.clone(),
        ));
        tokio::spawn(member.notes.clone().watch(
            Api::all(member.client.clone()),
            watcher::Config::default().labels(&format!("{},{}", labels::MOVES, labels::GROUP)),
            notify(changed.clone()),
            member.stop.clone(),
        ));
        tokio::spawn(member.quotas.clone().watch(
            Api::all(member.client.clone()),
            watcher::Config::default(),
            |_| {},
            member.stop.clone(),
        ));
        tokio::spawn(member.jobs.clone().watch(
            Api::all(member.client.clone()),
            watcher::Config::default().labels(labels::ORDER),
            move |change| match change {
                Changed::Object(_, Some(key)) => order(key),
                Changed::Listed(orders) => orders.iter().cloned().for_each(&order),
                Changed::Object(_, None) | Changed::Failing => {}
            },
            member.stop.clone(),
        ));
        tokio::spawn(member.clone().ping(changed));
        member
    }

    /// Asks for the version every few seconds: a watch alone does not tell a quiet member from a dead one.
    async fn ping(self: Arc<Self>, changed: impl Fn(Option<Key>)) {
        loop {
            let answer = tokio::select! {
                () = self.stop.cancelled() => return,
                answer = tokio::time::timeout(Duration::from_secs(5), self.client.apiserver_version()) => answer,
            };
            let next = match answer {
                Ok(Ok(version)) => Health::Up(version.git_version),
                Ok(Err(error)) => Health::Down(Timestamp::now(), error.to_string()),
                Err(_) => Health::Down(Timestamp::now(), "it does not answer".to_owned()),
            };
            let flipped = {
                let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
                match (&*health, &next) {
                    (Health::Down(since, _), Health::Down(_, why)) => {
                        *health = Health::Down(*since, why.clone());
                        false
                    }
                    (Health::Up(_), Health::Up(_)) => {
                        *health = next.clone();
                        false
                    }
                    _ => {
                        *health = next.clone();
                        true
                    }
                }
            };
            if flipped {
                match &next {
                    Health::Up(version) => {
                        info!(member = %self.name, %version, "member is reached")
                    }
                    Health::Down(_, why) => {
                        warn!(member = %self.name, %why, "member cannot be reached")
                    }
                }
                for group in self.sets.groups() {
                    changed(Some(group));
                }
                changed(None);
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(3)) => {}
            }
        }
    }

    /// Whether it answers.
    pub fn health(&self) -> Health {
        self.health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Why its objects are not known as they are now, and since when; `None` when they are.
    pub fn trouble(&self) -> Option<(Timestamp, String)> {
        if let Health::Down(since, why) = self.health() {
            return Some((since, why));
        }
        for failing in [self.pods.failing(), self.sets.failing()] {
            if failing.is_some() {
                return failing;
            }
        }
        (!(self.pods.synced() && self.sets.synced())).then(|| {
            (
                Timestamp::now(),
                "its first list has not come yet".to_owned(),
            )
        })
    }
}

fn notify<K>(changed: impl Fn(Option<Key>) + Send + Sync) -> impl Fn(Changed<'_, K>) + Send + Sync {
    move |change| match change {
        Changed::Object(_, Some(group)) => changed(Some(group)),
        Changed::Object(_, None) => changed(None),
        Changed::Listed(groups) => {
            for group in groups {
                changed(Some(group.clone()));
            }
            changed(None);
        }
        Changed::Failing => changed(None),
    }
}
