//! The shell of the garbage collector: which resources to watch, and the work on the graph.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PropagationPolicy};
use parking_lot::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::graph::{self, FOREGROUND, Node, ORPHAN, Resource, State, Task, Verdict};
use super::monitor::{Feed, Monitor, share_all};
use crate::model::meta::MetaOnly;
use crate::model::{Key, Kind, Meta, Owner};
use crate::runtime::api::{Api, Deletion};
use crate::runtime::discovery::Served;
use crate::runtime::reflector::{self, Sink, Source};
use crate::runtime::{ApiError, Context};

/// How long an owner that the graph does not know may be late: watches of different resources do
/// not keep step.
pub const LATE: Duration = Duration::from_millis(500);
/// How often discovery is asked for new resources, beside the times when a definition changes.
const DISCOVERY: Duration = Duration::from_secs(30);
/// A new definition takes a moment until it is served.
const SETTLE: Duration = Duration::from_millis(250);
const DEFINITIONS: &str = "customresourcedefinitions";

/// Resources by group and kind.
type Kinds = FxHashMap<(Arc<str>, Arc<str>), Arc<Resource>>;

struct Collector {
    context: Context,
    feed: Arc<Feed>,
    shared: Vec<Kind>,
    /// To find an owner by its reference.
    kinds: RwLock<Kinds>,
    /// Owners that the API was asked for and does not have; an uid does not come back. The first of
    /// a thousand dependents asks for all.
    absent: Mutex<FxHashSet<Reference>>,
}

/// An owner: its collection's path, its name, its uid.
type Reference = (String, Arc<str>, Arc<str>);

/// The component of its events.
const NAME: &str = "garbage-collector-controller";
/// The most absent owners remembered.
const ABSENT: usize = 512;

/// Registers the collector's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let feed = Arc::new(Feed::default());
    let shared = share_all(&feed, &context.informers);
    let collector = Arc::new(Collector {
        context: context.clone(),
        feed,
        shared,
        kinds: RwLock::default(),
        absent: Mutex::default(),
    });
    let stop = context.stop.clone();
    move |tasks| {
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = collector.collect(workers, &stop) => {}
            }
        });
    }
}

struct Watching {
    stop: CancellationToken,
    monitor: Arc<Monitor>,
}

/// Wakes the search for resources when a definition changes.
struct Wake(Arc<tokio::sync::Notify>);

impl Sink<MetaOnly> for Wake {
    fn replace(&self, _: Vec<MetaOnly>, _: u64) {
        self.0.notify_one();
    }

    fn changed(&self, object: MetaOnly) -> u64 {
        self.0.notify_one();
        object.metadata.version
    }

    fn removed(&self, object: MetaOnly) -> u64 {
        self.0.notify_one();
        object.metadata.version
    }
}

impl Collector {
    async fn collect(self: Arc<Self>, workers: usize, stop: &CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut watching: FxHashMap<String, Watching> = FxHashMap::default();
        let wake = Arc::new(tokio::sync::Notify::new());
        {
            let (api, wake, stop) = (self.context.api.clone(), Wake(wake.clone()), stop.clone());
            let source = Source {
                path: format!("/apis/apiextensions.k8s.io/v1/{DEFINITIONS}"),
                field_selector: None,
                metadata_only: true,
            };
            tasks.spawn(async move { reflector::run(&api, &source, &wake, &stop).await });
        }
        let mut started = false;
        loop {
            match self.context.api.discover().await {
                Ok(served) => {
                    self.follow(&served, &mut watching, &mut tasks, stop);
                    if !started {
                        // Dependents must not be judged by a graph whose owners are still coming.
                        for watching in watching.values() {
                            let mut synced = watching.monitor.synced.subscribe();
                            if tokio::time::timeout(DISCOVERY, synced.wait_for(|s| *s))
                                .await
                                .is_err()
                            {
                                tracing::warn!(resource = %watching.monitor.resource.plural, "no first list yet; the garbage collector starts without");
                            }
                        }
                        started = true;
                        for _ in 0..workers {
                            let (collector, stop) = (self.clone(), stop.clone());
                            tasks.spawn(async move { collector.work(&stop).await });
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "discovery failed; trying again"
                    );
                    tokio::time::sleep(SETTLE).await;
                    continue;
                }
            }
            tokio::select! {
                () = wake.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(DISCOVERY) => {}
            }
        }
    }

    /// Watches what is served and not yet watched; ends the watches of what no longer is.
    fn follow(
        &self,
        served: &[Served],
        watching: &mut FxHashMap<String, Watching>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        let mut kinds = FxHashMap::default();
        let mut paths = Vec::new();
        for one in served.iter().filter(|s| s.deletable() && !s.is_event()) {
            let resource = Arc::new(Resource {
                group: one.group.clone(),
                version: one.version.clone(),
                plural: one.plural.clone(),
                kind: one.kind.clone(),
                namespaced: one.namespaced,
            });
            kinds.insert((one.group.clone(), one.kind.clone()), resource.clone());
            if self
                .shared
                .iter()
                .any(|k| *k.group == *one.group && *k.plural == *one.plural)
            {
                continue;
            }
            let path = one.path("");
            paths.push(path.clone());
            if watching.contains_key(&path) {
                continue;
            }
            let monitor = Arc::new(Monitor::new(self.feed.clone(), resource));
            let (api, sink, stop) = (
                self.context.api.clone(),
                monitor.clone(),
                stop.child_token(),
            );
            watching.insert(
                path.clone(),
                Watching {
                    stop: stop.clone(),
                    monitor,
                },
            );
            let source = Source {
                path,
                field_selector: None,
                metadata_only: true,
            };
            tasks.spawn(async move { reflector::run(&api, &source, &*sink, &stop).await });
        }
        *self.kinds.write() = kinds;
        watching.retain(|path, watching| {
            let keep = paths.contains(path);
            if !keep {
                watching.stop.cancel();
                watching.monitor.clear();
            }
            keep
        });
    }

    async fn work(&self, stop: &CancellationToken) {
        while let Some(task) = self.feed.queue.next(stop).await {
            let result = match &task {
                Task::Check(uid) | Task::CheckLater(uid) => self.check(uid).await,
                Task::Orphan(uid) => self.orphan(uid).await,
            };
            match result {
                Ok(()) => self.feed.queue.done(&task),
                Err(error) => {
                    tracing::debug!(
                        ?task,
                        error = &error as &dyn std::error::Error,
                        "garbage collection failed; trying again"
                    );
                    self.feed.queue.failed(&task);
                }
            }
        }
    }

    fn node(&self, uid: &str) -> Option<Node> {
        self.feed.graph.read().get(uid).cloned()
    }

    async fn check(&self, uid: &str) -> Result<(), ApiError> {
        let Some(node) = self.node(uid) else {
            return Ok(());
        };
        if node.deleting && !node.foreground {
            return Ok(());
        }
        // Most checks end here: all owners are in the graph and stay.
        if !node.foreground && node.owners.iter().all(|o| self.solid(o, &node.namespace)) {
            return Ok(());
        }
        let api = &self.context.api;
        let path = node.resource.path(&node.namespace);
        if self.delete_as_seen(&node, &path).await? {
            return Ok(());
        }
        let live: Option<Value> = api.get_at(&path, &node.name, true).await?;
        let meta = live.as_ref().and_then(meta_of).unwrap_or_default();
        if *meta.uid != *uid {
            // Gone, or another of the same name: the watch will say so, or has.
            self.feed.remove(uid);
            return Ok(());
        }
        if node.foreground {
            return self.finish_foreground(&node, &meta, &path).await;
        }
        self.tell_of_strangers(&node, &meta);
        let mut owners = Vec::with_capacity(meta.owners.len());
        for owner in &meta.owners {
            owners.push((owner.clone(), self.state(owner, &node.namespace).await?));
        }
        let dependents = self.feed.graph.read().dependents(uid);
        match graph::judge(&owners, !dependents.is_empty()) {
            Verdict::Keep => Ok(()),
            Verdict::Forget(gone) => {
                let raw = live.unwrap_or_default();
                forget_owners(api, &path, &raw, |owner| gone.iter().any(|g| **g == *owner)).await
            }
            Verdict::DeleteForeground => {
                if self.feed.graph.read().circular(uid) {
                    unblock_owners(api, &path, &live.unwrap_or_default()).await?;
                }
                self.delete(&node, &path, PropagationPolicy::Foreground)
                    .await
            }
            Verdict::Delete => self.delete(&node, &path, propagation(&meta)).await,
        }
    }

    /// Deletes a pod none of whose owners is there any more, if it still is as the informer has it: the server is
    /// asked once instead of twice. Whether it was so, and the pod needs no further look.
    async fn delete_as_seen(&self, node: &Node, path: &str) -> Result<bool, ApiError> {
        let is_pod = node.resource.group.is_empty() && &*node.resource.plural == "pods";
        if !is_pod || node.foreground {
            return Ok(false);
        }
        let key = Key::new(&node.namespace, &node.name);
        let Some(pod) = self.context.informers.pods.get(&key) else {
            return Ok(false);
        };
        let meta = &pod.meta;
        if meta.uid != node.uid || meta.deleted.is_some() || meta.owners.is_empty() {
            return Ok(false);
        }
        for owner in &meta.owners {
            let known = self.node(&owner.uid).is_some();
            if known || self.state(owner, &node.namespace).await? != State::Dangling {
                return Ok(false);
            }
        }
        let deletion = Deletion {
            propagation: Some(propagation(meta)),
            resource_version: Some(meta.version.to_string()),
            ..Deletion::of(&node.uid)
        };
        match self.context.api.delete_at(path, &node.name, deletion).await {
            Ok(_) => Ok(true),
            // It changed, or another object has the name by now.
            Err(error) if error.conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// In the graph, with the reference's coordinates, and not waiting for dependents.
    fn solid(&self, owner: &Owner, namespace: &str) -> bool {
        self.feed.graph.read().get(&owner.uid).is_some_and(|n| {
            !n.foreground
                && *n.name == *owner.name
                && *n.resource.kind == *owner.kind
                && n.can_own(namespace)
        })
    }

    /// Says of an object that names owners in another namespace that it does: it is about to go for that.
    fn tell_of_strangers(&self, node: &Node, meta: &Meta) {
        for owner in &meta.owners {
            let stranger = self
                .node(&owner.uid)
                .is_some_and(|it| !it.can_own(&node.namespace));
            if !stranger {
                continue;
            }
            let namespace = &*node.namespace;
            self.context.recorder.warning_of(
                NAME,
                (node.resource.api_version(), node.resource.kind.to_string()),
                meta,
                "OwnerRefInvalidNamespace",
                format!(
                    "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace {namespace:?}",
                    owner.api_version, owner.kind, owner.name, owner.uid
                ),
            );
        }
    }

    async fn state(&self, owner: &Owner, namespace: &str) -> Result<State, ApiError> {
        if let Some(node) = self.node(&owner.uid)
            && *node.name == *owner.name
            && node.can_own(namespace)
        {
            return Ok(if node.foreground {
                State::Waiting
            } else {
                State::Solid
            });
        }
        let group = match owner.api_version.split_once('/') {
            Some((group, _)) => group,
            None => "",
        };
        let resource = self
            .kinds
            .read()
            .get(&(group.into(), owner.kind.clone()))
            .cloned();
        let Some(resource) = resource else {
            // Of a kind that is not served (any more, or yet) nothing can be said.
            return Ok(State::Solid);
        };
        if resource.namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned from within a namespace; Kubernetes treats
            // such a reference as unresolvable and leaves the object alone.
            return Ok(State::Solid);
        }
        let path = resource.path(namespace);
        let reference = (path.clone(), owner.name.clone(), owner.uid.clone());
        if self.absent.lock().contains(&reference) {
            return Ok(State::Dangling);
        }
        let live: Option<MetaOnly> = self.context.api.get_at(&path, &owner.name, true).await?;
        Ok(match live.map(|l| l.metadata) {
            Some(meta) if meta.uid == owner.uid => {
                if meta.deleted.is_some() && meta.has_finalizer(FOREGROUND) {
                    State::Waiting
                } else {
                    State::Solid
                }
            }
            _ => {
                let mut absent = self.absent.lock();
                if absent.len() >= ABSENT {
                    absent.clear();
                }
                absent.insert(reference);
                State::Dangling
            }
        })
    }

    async fn delete(
        &self,
        node: &Node,
        path: &str,
        policy: PropagationPolicy,
    ) -> Result<(), ApiError> {
        let deletion = Deletion {
            propagation: Some(policy),
            ..Deletion::of(&node.uid)
        };
        match self.context.api.delete_at(path, &node.name, deletion).await {
            // Another object has the name by now.
            Err(error) if !error.conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets an object go whose dependents are gone; else sees that they go.
    async fn finish_foreground(
        &self,
        node: &Node,
        meta: &Meta,
        path: &str,
    ) -> Result<(), ApiError> {
        let blocking = self.feed.graph.read().blocking(&node.uid);
        if blocking.is_empty() {
            return remove_finalizer(&self.context.api, path, &node.name, meta, FOREGROUND).await;
        }
        for dependent in blocking {
            let deleting = self.node(&dependent).is_some_and(|n| n.deleting);
            if !deleting {
                self.feed.queue.add(Task::Check(dependent));
            }
        }
        Ok(())
    }

    async fn orphan(&self, uid: &str) -> Result<(), ApiError> {
        let Some(node) = self.node(uid) else {
            return Ok(());
        };
        let api = &self.context.api;
        let dependents = self.feed.graph.read().dependents(uid);
        for dependent in dependents {
            let Some(dependent) = self.node(&dependent) else {
                continue;
            };
            let path = dependent.resource.path(&dependent.namespace);
            let live: Option<Value> = api.get_at(&path, &dependent.name, true).await?;
            if let Some(raw) = live
                && meta_of(&raw).is_some_and(|m| m.uid == dependent.uid)
            {
                forget_owners(api, &path, &raw, |owner| owner == uid).await?;
            }
        }
        let path = node.resource.path(&node.namespace);
        let live: Option<MetaOnly> = api.get_at(&path, &node.name, true).await?;
        match live.map(|l| l.metadata).filter(|m| *m.uid == *uid) {
            Some(meta) => remove_finalizer(api, &path, &node.name, &meta, ORPHAN).await,
            None => Ok(()),
        }
    }
}

/// What becomes of the dependents of an object that nothing owns any more: its finalizers say.
fn propagation(meta: &Meta) -> PropagationPolicy {
    if meta.has_finalizer(ORPHAN) {
        PropagationPolicy::Orphan
    } else if meta.has_finalizer(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    }
}

fn meta_of(raw: &Value) -> Option<Meta> {
    serde_json::from_value(raw.get("metadata")?.clone()).ok()
}

/// Takes owners out of an object's references; the others stay as they came.
async fn forget_owners(
    api: &Api,
    path: &str,
    raw: &Value,
    gone: impl Fn(&str) -> bool,
) -> Result<(), ApiError> {
    let Some(meta) = raw.get("metadata") else {
        return Ok(());
    };
    let owners: Vec<Value> = meta
        .get("ownerReferences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|o| !o["uid"].as_str().is_some_and(&gone))
        .cloned()
        .collect();
    let owners = if owners.is_empty() {
        Value::Null
    } else {
        owners.into()
    };
    let patch = Patch::Merge(json!({"metadata": {
        "uid": meta["uid"],
        "resourceVersion": meta["resourceVersion"],
        "ownerReferences": owners,
    }}));
    let name = meta["name"].as_str().unwrap_or_default();
    unless_gone(api.patch_at::<MetaOnly>(path, name, None, &patch).await)
}

/// Lets an object's owners go before it: where owners and dependents are a circle, one of them
/// must not be waited for.
async fn unblock_owners(api: &Api, path: &str, raw: &Value) -> Result<(), ApiError> {
    let mut owners = raw["metadata"]["ownerReferences"].clone();
    for owner in owners.as_array_mut().into_iter().flatten() {
        owner["blockOwnerDeletion"] = false.into();
    }
    let meta = &raw["metadata"];
    let patch = Patch::Merge(json!({"metadata": {
        "uid": meta["uid"],
        "resourceVersion": meta["resourceVersion"],
        "ownerReferences": owners,
    }}));
    let name = meta["name"].as_str().unwrap_or_default();
    unless_gone(api.patch_at::<MetaOnly>(path, name, None, &patch).await)
}

async fn remove_finalizer(
    api: &Api,
    path: &str,
    name: &str,
    meta: &Meta,
    finalizer: &str,
) -> Result<(), ApiError> {
    if !meta.has_finalizer(finalizer) {
        return Ok(());
    }
    let left: Vec<&str> = meta
        .finalizers
        .iter()
        .map(AsRef::as_ref)
        .filter(|f| *f != finalizer)
        .collect();
    let patch = Patch::Merge(json!({"metadata": {
        "uid": &*meta.uid,
        "resourceVersion": meta.version.to_string(),
        "finalizers": if left.is_empty() { Value::Null } else { json!(left) },
    }}));
    unless_gone(api.patch_at::<MetaOnly>(path, name, None, &patch).await)
}

fn unless_gone(result: Result<MetaOnly, ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if !error.not_found() => Err(error),
        _ => Ok(()),
    }
}
