//! The running hub: watches of Gantry's objects, connections to members, workers.

mod tend;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry_api::{
    App, Cluster, Group, Notification, Release, ReleaseOrder, StopLine, Strategy, Tenant, labels,
    strategy::ResolveTags,
};
use gantry_records::Writer;
use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::ControllerRevision,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Recorder, Reporter},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    ask::{Asked, Asker},
    member::Member,
    notify::Notifier,
    policy,
    queue::Queue,
    reconcile::{Outcome, patience},
    record,
    table::{Key, Table},
    tenant::Applied,
    trail::Follower,
};
use crate::{
    action::Action,
    group,
    notify::guard::Allowed,
    release::{self, gate::Ask},
    world::Revision,
};

/// How the hub runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Groups looked at at the same time.
    pub workers: usize,
    /// Every Group is looked at at least so often, whatever the watches say.
    pub resync: Duration,
    /// Name under which Events are written.
    pub instance: String,
    /// Where records go. Without, nothing is recorded, and nobody is notified.
    pub records: Option<Writer>,
    /// Audit log of the hub's API server, where that writes one that is to be read
    /// ([`AUDIT_POLICY`](crate::record::AUDIT_POLICY)): it names those who delete and scale.
    pub audit_log: Option<PathBuf>,
    /// What tenants' notifications, and webhooks of gates, may reach beside public addresses.
    pub notify_allowed: Vec<Allowed>,
    /// Whether tags of images are resolved to digests where a strategy does not say.
    pub resolve_tags: ResolveTags,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 8,
            resync: Duration::from_secs(300),
            instance: "gantry-hub".to_owned(),
            resolve_tags: ResolveTags::default(),
            records: None,
            audit_log: None,
            notify_allowed: Vec::new(),
        }
    }
}

/// Why the hub cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition could not be applied.
    #[error("apply the definition of {name}: {source}")]
    Install {
        /// The definition.
        name: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// The hub cannot ask what gates ask.
    #[error("set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A definition was applied and is not served.
    #[error("the definition of {name} is not established after {seconds} s: {why}")]
    Established {
        /// The definition.
        name: String,
        /// How long it was waited for.
        seconds: u64,
        /// What the API server says.
        why: String,
    },
}

/// Applies Gantry's CustomResourceDefinitions and waits until they are served.
///
/// # Errors
/// Where the API server refuses one, or does not establish it within half a minute.
pub async fn install(client: &Client) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crds = gantry_api::crds();
    for crd in &crds {
        let name = crd.name_any();
        let applied = api
            .patch(
                &name,
                &PatchParams::apply(labels::FIELD_MANAGER).force(),
                &Patch::Apply(crd),
            )
            .await;
        applied.map_err(|source| Error::Install {
            name,
            source: Box::new(source),
        })?;
    }
    match policy::apply(client).await {
        Ok(()) => {}
        // Before Kubernetes 1.30 there are none.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            warn!(
                "the hub's API server has no admission policies: names in approvals are not checked"
            );
        }
        Err(source) => {
            return Err(Error::Install {
                name: "the admission policies".to_owned(),
                source: Box::new(source),
            });
        }
    }
    const SECONDS: u64 = 30;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(SECONDS);
    for crd in &crds {
        let name = crd.name_any();
        loop {
            let seen = api.get(&name).await.map_err(|source| Error::Install {
                name: name.clone(),
                source: Box::new(source),
            })?;
            let conditions = seen.status.and_then(|s| s.conditions).unwrap_or_default();
            if conditions
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
            {
                break;
            }
            if tokio::time::Instant::now() >= deadline {
                let why = conditions
                    .iter()
                    .filter_map(|c| c.message.clone())
                    .collect::<Vec<_>>()
                    .join("; ");
                return Err(Error::Established {
                    name,
                    seconds: SECONDS,
                    why,
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Services of the fleet that are looked at at the same time.
const EXPORT_WORKERS: usize = 4;

/// What the process remembers of a Group; all of it may be lost.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub supported: BTreeMap<String, String>,
    pub cleaned: BTreeSet<String>,
    pub trouble: Option<String>,
    failures: u32,
    /// When its status was last written.
    pub written: Option<Timestamp>,
    /// What its release's status would tell.
    pub told: release::told::Told,
}

/// The running hub.
pub struct Hub {
    pub client: Client,
    pub recorder: Recorder,
    pub clusters: Arc<Table<Cluster>>,
    pub apps: Arc<Table<App>>,
    pub groups: Arc<Table<Group>>,
    pub strategies: Arc<Table<Strategy>>,
    pub releases: Arc<Table<Release>>,
    pub stop_lines: Arc<Table<StopLine>>,
    pub tenants: Arc<Table<Tenant>>,
    pub notifications: Arc<Table<Notification>>,
    pub tenant_queue: Queue<String>,
    pub applied: Applied,
    pub orders: Arc<Table<ReleaseOrder>>,
    pub(super) order_queue: Queue<Key>,
    /// What orders were to make and the API refused, by order and name.
    pub(super) refused_by_order: Mutex<BTreeMap<(Key, String), String>>,
    pub asked: Arc<Asked>,
    asker: Asker,
    pub resolve_tags: ResolveTags,
    pub revisions: Arc<Table<ControllerRevision>>,
    members: Mutex<BTreeMap<String, Arc<Member>>>,
    refused: Mutex<BTreeMap<String, String>>,
    reachable: Mutex<BTreeSet<String>>,
    memory: Mutex<HashMap<Key, Memory>>,
    queue: Queue<Key>,
    cluster_queue: Queue<String>,
    pub(super) mcs: super::mcs::Mcs,
    pub(super) by_app: super::apps::ByApp,
    pub(super) app_queue: Queue<Key>,
    pub stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the fleet-wide controllers on the hub behind `client` until `stop` is cancelled. The definitions
/// are applied first. Only one process at a time may run for a hub: there is no leader election yet.
///
/// # Errors
/// Where the definitions cannot be applied.
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let installed = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            installed = install(&client) => installed,
        };
        match installed {
            Ok(()) => break,
            Err(Error::Install { name, source }) if !matches!(*source, kube::Error::Api(_)) => {
                warn!(%name, error = %source, "the hub's API server does not answer yet");
                tries += 1;
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(patience(tries)) => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
    // Dropped with this function: nothing outlives it.
    let stop = stop.child_token();
    let _ends_with_us = stop.clone().drop_guard();
    let reporter = Reporter {
        controller: labels::FIELD_MANAGER.to_owned(),
        instance: Some(options.instance.clone()),
    };
    let hub = Arc::new(Hub {
        recorder: Recorder::new(client.clone(), reporter),
        clusters: Table::new(|_| None),
        apps: Table::new(|a: &App| a.metadata.name.clone()),
        groups: Table::new(|g: &Group| g.metadata.name.clone()),
        strategies: Table::new(|_| None),
        releases: Table::new(|r: &Release| Some(r.spec.group.clone())),
        stop_lines: Table::new(|_| None),
        tenants: Table::new(|_| None),
        notifications: Table::new(|_| None),
        tenant_queue: Queue::new(),
        applied: Applied::default(),
        orders: Table::new(|_| None),
        order_queue: Queue::new(),
        refused_by_order: Mutex::default(),
        asked: Arc::default(),
        asker: Asker::new(client.clone(), &options.notify_allowed)?,
        resolve_tags: options.resolve_tags,
        revisions: Table::new(|r: &ControllerRevision| {
            r.metadata.labels.as_ref()?.get(labels::GROUP).cloned()
        }),
        members: Mutex::default(),
        refused: Mutex::default(),
        reachable: Mutex::default(),
        memory: Mutex::default(),
        queue: Queue::new(),
        cluster_queue: Queue::new(),
        mcs: super::mcs::Mcs::default(),
        by_app: super::apps::ByApp::default(),
        app_queue: Queue::new(),
        stop: stop.clone(),
        client,
    });
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(writer) = options.records {
        let (client, table) = (hub.client.clone(), hub.notifications.clone());
        let notifier = Notifier::new(client, table, &options.notify_allowed, stop.clone())?;
        tasks.spawn(notifier.clone().tests());
        let recorder = record::Recorder::new(&hub);
        let follower = options.audit_log.map(Follower::new);
        tasks.spawn(recorder.run(writer, notifier, follower, stop.clone()));
    }
    hub.watch(&mut tasks);
    // Decisions are made on whole views: every kind has to be there first.
    while !hub.synced() {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    for _ in 0..options.workers.max(1) {
        tasks.spawn(hub.clone().work(options.resync));
    }
    tasks.spawn(hub.clone().tend_clusters());
    tasks.spawn(hub.clone().tend_tenants());
    for _ in 0..EXPORT_WORKERS {
        tasks.spawn(hub.clone().tend_exports());
    }
    tasks.spawn(hub.clone().tend_apps());
    tasks.spawn(hub.clone().tend_orders(options.resync));
    stop.cancelled().await;
    while tasks.join_next().await.is_some() {}
    Ok(())
}

impl Hub {
    fn synced(&self) -> bool {
        self.clusters.synced()
            && self.apps.synced()
            && self.groups.synced()
            && self.strategies.synced()
            && self.stop_lines.synced()
            && self.tenants.synced()
            && self.releases.synced()
            && self.orders.synced()
            && self.revisions.synced()
    }

    /// Puts questions, each once; the Group is looked at again when an answer has come.
    pub fn ask(self: &Arc<Self>, key: &Key, asks: Vec<Ask>) {
        for ask in asks {
            if !self.asked.begin(key, &ask.id) {
                continue;
            }
            let (hub, key) = (self.clone(), key.clone());
            tokio::spawn(async move {
                let answer = tokio::select! {
                    () = hub.stop.cancelled() => return,
                    answer = hub.asker.ask(&key.0, &ask) => answer,
                };
                hub.asked.end(&key, ask.id, answer);
                hub.queue.add(key, Duration::ZERO);
            });
        }
    }

    /// Looks at a Group again.
    pub(super) fn group_again(&self, group: Key) {
        self.queue.add(group, Duration::ZERO);
    }

    fn groups_of(&self, namespace: Option<String>, test: impl Fn(&Group) -> bool) {
        for group in self.groups.all() {
            if group.namespace() == namespace && test(&group) {
                self.queue
                    .add(super::table::key(group.as_ref()), Duration::ZERO);
            }
        }
    }

    /// Connected members by name.
    pub fn members(&self) -> BTreeMap<String, Arc<Member>> {
        lock(&self.members).clone()
    }

    /// What is remembered of a Group.
    pub fn memory(&self, key: &Key) -> Memory {
        lock(&self.memory).get(key).cloned().unwrap_or_default()
    }

    /// A Group that is gone is forgotten.
    pub fn forget(&self, key: &Key) {
        lock(&self.memory).remove(key);
    }

    /// Remembers that `action` has been carried out.
    pub fn remember(
        &self,
        key: &Key,
        action: &Action,
        world: &group::World<'_>,
        in_use: &[&Revision],
        desired: &[i32],
    ) {
        match action {
            Action::EnsureSupport { cluster, .. } => {
                let (made, _) = group::support_key(world, in_use, cluster, desired);
                let mut memory = lock(&self.memory);
                let memory = memory.entry(key.clone()).or_default();
                memory.supported.insert(cluster.clone(), made);
                memory.cleaned.remove(cluster);
            }
            Action::DeleteSupport { cluster } => {
                lock(&self.memory)
                    .entry(key.clone())
                    .or_default()
                    .cleaned
                    .insert(cluster.clone());
                self.queue.add(key.clone(), Duration::ZERO);
            }
            _ => {}
        }
    }

    /// Remembers of a Group what `change` does.
    pub fn note(&self, key: &Key, change: impl FnOnce(&mut Memory)) {
        change(lock(&self.memory).entry(key.clone()).or_default());
    }

    /// What keeps actions of a Group from coming through.
    pub fn set_trouble(&self, key: &Key, trouble: Option<String>) {
        let mut memory = lock(&self.memory);
        if trouble.is_some() || memory.contains_key(key) {
            memory.entry(key.clone()).or_default().trouble = trouble;
        }
    }

    async fn work(self: Arc<Self>, resync: Duration) {
        loop {
            let key = tokio::select! {
                () = self.stop.cancelled() => return,
                key = self.queue.next() => key,
            };
            let outcome = tokio::select! {
                () = self.stop.cancelled() => return,
                outcome = self.reconcile(&key) => outcome,
            };
            self.queue.done(&key);
            let next = match outcome {
                Outcome::Done(wake) => {
                    self.failures(&key, false);
                    let due = wake.map(|at| {
                        Duration::try_from(at.duration_since(Timestamp::now()))
                            .unwrap_or(Duration::ZERO)
                    });
                    due.unwrap_or(resync).min(resync)
                }
                Outcome::Conflict => Duration::from_millis(20),
                Outcome::Failed(why) => {
                    let n = self.failures(&key, true);
                    warn!(namespace = %key.0, group = %key.1, %why, "group is tried again");
                    patience(n)
                }
            };
            if self.groups.get(&key).is_some() || !self.releases.of_group(&key).is_empty() {
                self.queue.add(key, next);
            }
        }
    }

    fn failures(&self, key: &Key, failed: bool) -> u32 {
        let mut memory = lock(&self.memory);
        if !failed && !memory.contains_key(key) {
            return 0;
        }
        let memory = memory.entry(key.clone()).or_default();
        memory.failures = if failed { memory.failures + 1 } else { 0 };
        memory.failures
    }
}

fn own_api<K: kube::Resource<DynamicType = ()>>(hub: &Hub) -> Api<K> {
    Api::all(hub.client.clone())
}
