//! One shared watch a kind, kept in an indexed cache.

use std::collections::{VecDeque, hash_map::Entry};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::{Api, ApiError, status_patch};
use super::reflector::{self, Sink, Source};
use crate::model::autoscaler::Autoscaler;
use crate::model::batch::{CronJob, Job};
use crate::model::device::{DeviceClaim, DeviceSlice};
use crate::model::network::{Budget, EndpointSlice, Endpoints, Service, ServiceRange};
use crate::model::node::{ConfigMap, Lease, Namespace, Node, ServiceAccount};
use crate::model::quota::Quota;
use crate::model::role::ClusterRole;
use crate::model::secret::TokenSecret;
use crate::model::signing::SigningRequest;
use crate::model::volume::{Attachment, AttributesClass, Claim, Driver, StorageClass, Volume};
use crate::model::workload::{
    DaemonSet, Deployment, ReplicaSet, ReplicationController, Revision, StatefulSet,
};
use crate::model::{Key, Meta, Pod, Watched};

/// Called in event order with what was there before and what is there now.
pub type Handler<T> = Box<dyn Fn(Option<&Arc<T>>, Option<&Arc<T>>) + Send + Sync>;

/// The cache of one kind.
pub struct Informer<T> {
    objects: RwLock<Objects<T>>,
    handlers: RwLock<Vec<Handler<T>>>,
    synced: watch::Sender<bool>,
    wanted: AtomicBool,
    field_selector: Option<&'static str>,
    /// Only this namespace, where one is named.
    namespace: &'static str,
}

struct Objects<T> {
    by_name: FxHashMap<Arc<str>, FxHashMap<Arc<str>, Arc<T>>>,
    /// By index value; with the objects themselves, which controllers ask for by the hundred.
    index: FxHashMap<Arc<str>, FxHashMap<Key, Arc<T>>>,
    len: usize,
    /// Versions at which objects went that went last, by uid, the oldest first.
    gone: FxHashMap<Arc<str>, u64>,
    gone_order: VecDeque<Arc<str>>,
}

/// The most objects whose end is remembered.
const REMEMBERED: usize = 2048;

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Objects {
            by_name: FxHashMap::default(),
            index: FxHashMap::default(),
            len: 0,
            gone: FxHashMap::default(),
            gone_order: VecDeque::new(),
        }
    }
}

impl<T: Watched> Default for Informer<T> {
    fn default() -> Self {
        Informer {
            objects: RwLock::default(),
            handlers: RwLock::default(),
            synced: watch::Sender::new(false),
            wanted: AtomicBool::new(false),
            field_selector: None,
            namespace: "",
        }
    }
}

impl<T: Watched> Objects<T> {
    fn get(&self, key: &Key) -> Option<&Arc<T>> {
        self.by_name.get(&key.namespace)?.get(&key.name)
    }

    fn put(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        let key = object.meta().key();
        let new = object.clone();
        let old = self
            .by_name
            .entry(key.namespace.clone())
            .or_default()
            .insert(key.name.clone(), object);
        if let Some(old) = &old {
            self.unindex(old, &key);
        } else {
            self.len += 1;
        }
        new.index(&mut |value| {
            let objects = self.index.entry(value).or_default();
            objects.insert(key.clone(), new.clone());
        });
        old
    }

    /// Whether an object of that version is one that has gone since.
    fn went(&self, object: &T) -> bool {
        let meta = object.meta();
        self.gone
            .get(&meta.uid)
            .is_some_and(|at| meta.version <= *at)
    }

    /// Remembers that an object went, at that version.
    fn bury(&mut self, uid: &Arc<str>, version: u64) {
        if self.gone.insert(uid.clone(), version).is_none() {
            self.gone_order.push_back(uid.clone());
        }
        if self.gone_order.len() > REMEMBERED
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<T>> {
        let Entry::Occupied(mut names) = self.by_name.entry(key.namespace.clone()) else {
            return None;
        };
        let old = names.get_mut().remove(&key.name)?;
        if names.get().is_empty() {
            names.remove();
        }
        self.len -= 1;
        self.unindex(&old, key);
        Some(old)
    }

    fn unindex(&mut self, old: &T, key: &Key) {
        old.index(&mut |value| {
            if let Entry::Occupied(mut keys) = self.index.entry(value) {
                keys.get_mut().remove(key);
                if keys.get().is_empty() {
                    keys.remove();
                }
            }
        });
    }
}

impl<T: Watched> Informer<T> {
    /// An informer of the objects that a field selector lets through.
    pub fn selected(field_selector: &'static str) -> Self {
        Informer {
            field_selector: Some(field_selector),
            ..Informer::default()
        }
    }

    /// An informer of one namespace.
    pub fn namespaced(namespace: &'static str) -> Self {
        Informer {
            namespace,
            ..Informer::default()
        }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.objects.read().get(key).cloned()
    }

    /// The objects with this index value.
    pub fn indexed(&self, value: &str) -> Vec<Arc<T>> {
        let objects = self.objects.read();
        let found = objects.index.get(value);
        found.map_or_else(Vec::new, |found| found.values().cloned().collect())
    }

    /// How many objects have this index value.
    pub fn count_indexed(&self, value: &str) -> usize {
        self.objects
            .read()
            .index
            .get(value)
            .map_or(0, FxHashMap::len)
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let objects = self.objects.read();
        objects
            .by_name
            .get(namespace)
            .into_iter()
            .flat_map(|names| names.values().cloned())
            .collect()
    }

    pub fn all(&self) -> Vec<Arc<T>> {
        let objects = self.objects.read();
        objects
            .by_name
            .values()
            .flat_map(|names| names.values().cloned())
            .collect()
    }

    pub fn len(&self) -> usize {
        self.objects.read().len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has `handler` called for every change from now on, and the watch started.
    pub fn on_change(
        &self,
        handler: impl Fn(Option<&Arc<T>>, Option<&Arc<T>>) + Send + Sync + 'static,
    ) {
        self.want();
        self.handlers.write().push(Box::new(handler));
    }

    /// Has the watch started, for a controller that only reads.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Writes the status of an object, and takes in what comes of it. What is gone has none.
    pub async fn write_status(
        &self,
        api: &Api,
        meta: &Meta,
        status: Value,
    ) -> Result<(), ApiError> {
        let patch = status_patch(&meta.uid, status);
        let key = meta.key();
        match api.patch::<T>(&T::KIND, &key, Some("status"), &patch).await {
            Ok(written) => {
                self.apply(written);
                Ok(())
            }
            Err(error) if error.not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes an object that was read or written elsewhere, unless the cache has a newer one, or has seen it go:
    /// the answer to a write may come after the news that the object is gone.
    pub fn apply(&self, object: T) {
        let object = Arc::new(object);
        let old = {
            let mut objects = self.objects.write();
            let version = object.meta().version;
            if objects
                .get(&object.meta().key())
                .is_some_and(|old| version != 0 && old.meta().version >= version)
            {
                return;
            }
            if objects.went(&object) {
                return;
            }
            objects.put(object.clone())
        };
        match old {
            // Another object under the same name: its predecessor is gone, though no event said so.
            Some(old) if old.meta().uid != object.meta().uid => {
                self.notify(Some(&old), None);
                self.notify(None, Some(&object));
            }
            old => self.notify(old.as_ref(), Some(&object)),
        }
    }

    pub fn remove(&self, key: &Key) {
        self.remove_at(key, 0);
    }

    /// Removes an object that went at that version, or at that of the cache if it is later.
    fn remove_at(&self, key: &Key, version: u64) {
        let old = {
            let mut objects = self.objects.write();
            let old = objects.remove(key);
            if let Some(old) = &old {
                let meta = old.meta();
                objects.bury(&meta.uid, meta.version.max(version));
            }
            old
        };
        if let Some(old) = old {
            self.notify(Some(&old), None);
        }
    }

    fn notify(&self, old: Option<&Arc<T>>, new: Option<&Arc<T>>) {
        for handler in self.handlers.read().iter() {
            handler(old, new);
        }
    }

    pub async fn wait_synced(&self, stop: &CancellationToken) -> bool {
        let mut synced = self.synced.subscribe();
        tokio::select! {
            () = stop.cancelled() => false,
            result = synced.wait_for(|s| *s) => result.is_ok(),
        }
    }

    /// Lists and watches until stopped. An API server that is away is asked again and again.
    pub async fn run(&self, api: Api, stop: CancellationToken) {
        let source = Source {
            path: T::KIND.path(self.namespace),
            field_selector: self.field_selector,
            metadata_only: false,
        };
        reflector::run(&api, &source, self, &stop).await;
    }
}

impl<T: Watched> Sink<T> for Informer<T> {
    fn replace(&self, objects: Vec<T>, version: u64) {
        let mut seen = FxHashSet::default();
        for object in objects {
            seen.insert(object.meta().key());
            self.apply(object);
        }
        // What was written later than the list and taken in by `apply` is not gone.
        let gone: Vec<Key> = {
            let objects = self.objects.read();
            objects
                .by_name
                .values()
                .flat_map(|names| names.values())
                .filter(|o| o.meta().version <= version)
                .map(|o| o.meta().key())
                .filter(|key| !seen.contains(key))
                .collect()
        };
        for key in gone {
            self.remove(&key);
        }
        self.synced.send_replace(true);
    }

    fn changed(&self, object: T) -> u64 {
        let version = object.meta().version;
        self.apply(object);
        version
    }

    /// Takes the deletion of an object, unless the cache has a newer one of that name.
    fn removed(&self, last: T) -> u64 {
        let key = last.meta().key();
        let version = last.meta().version;
        if self
            .get(&key)
            .is_some_and(|held| held.meta().version <= version)
        {
            self.remove_at(&key, version);
        }
        version
    }
}

macro_rules! informers {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $init:expr;)*) => {
        /// The informers of all kinds. Only those that a controller wants are run.
        pub struct Informers {
            $($(#[$doc])* pub $name: Arc<Informer<$type>>,)*
        }

        impl Default for Informers {
            fn default() -> Self {
                Informers { $($name: Arc::new($init),)* }
            }
        }

        impl Informers {
            /// Starts the wanted informers.
            pub fn spawn(
                &self,
                api: &Api,
                tasks: &mut tokio::task::JoinSet<()>,
                stop: &CancellationToken,
            ) {
                $(if self.$name.wanted.load(Ordering::Relaxed) {
                    let (informer, api, stop) = (self.$name.clone(), api.clone(), stop.clone());
                    tasks.spawn(async move { informer.run(api, stop).await });
                })*
            }

            /// Waits until each wanted informer has its first list; false when stopped before.
            pub async fn wait_synced(&self, stop: &CancellationToken) -> bool {
                $(if self.$name.wanted.load(Ordering::Relaxed)
                    && !self.$name.wait_synced(stop).await
                {
                    return false;
                })*
                true
            }
        }
    };
}

informers! {
    pods: Pod = Informer::default();
    nodes: Node = Informer::default();
    /// Those of `kube-node-lease` only.
    leases: Lease = Informer::namespaced("kube-node-lease");
    namespaces: Namespace = Informer::default();
    /// Those named `default` only.
    service_accounts: ServiceAccount = Informer::selected("metadata.name=default");
    quotas: Quota = Informer::default();
    autoscalers: Autoscaler = Informer::default();
    /// Those named `kube-root-ca.crt` only.
    root_certificates: ConfigMap = Informer::selected("metadata.name=kube-root-ca.crt");
    claims: Claim = Informer::default();
    device_claims: DeviceClaim = Informer::default();
    device_slices: DeviceSlice = Informer::default();
    volumes: Volume = Informer::default();
    attributes_classes: AttributesClass = Informer::default();
    storage_classes: StorageClass = Informer::default();
    attachments: Attachment = Informer::default();
    drivers: Driver = Informer::default();
    services: Service = Informer::default();
    service_ranges: ServiceRange = Informer::default();
    endpoints: Endpoints = Informer::default();
    slices: EndpointSlice = Informer::default();
    budgets: Budget = Informer::default();
    stateful_sets: StatefulSet = Informer::default();
    revisions: Revision = Informer::default();
    replica_sets: ReplicaSet = Informer::default();
    replication_controllers: ReplicationController = Informer::default();
    deployments: Deployment = Informer::default();
    daemon_sets: DaemonSet = Informer::default();
    jobs: Job = Informer::default();
    cron_jobs: CronJob = Informer::default();
    signing_requests: SigningRequest = Informer::default();
    cluster_roles: ClusterRole = Informer::default();
    /// All accounts, for those who keep tokens of them.
    accounts: ServiceAccount = Informer::default();
    token_secrets: TokenSecret = Informer::selected("type=kubernetes.io/service-account-token");
    bootstrap_tokens: TokenSecret = Informer::selected("type=bootstrap.kubernetes.io/token");
    /// Those named `cluster-info` only.
    cluster_infos: ConfigMap = Informer::selected("metadata.name=cluster-info");
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use serde_json::json;

    fn pod(name: &str, uid: &str, version: u64, owner: Option<&str>) -> Pod {
        let owners = owner.map(|uid| json!([{"uid": uid, "controller": true}]));
        serde_json::from_value(json!({"metadata": {
            "namespace": "n", "name": name, "uid": uid, "resourceVersion": version.to_string(),
            "ownerReferences": owners}}))
        .unwrap()
    }

    #[test]
    fn an_answer_that_comes_after_the_end_brings_nothing_back() {
        let informer = Informer::<Pod>::default();
        informer.apply(pod("a", "1", 5, None));
        informer.removed(pod("a", "1", 9, None));
        informer.apply(pod("a", "1", 7, None));
        assert!(
            informer.get(&Key::new("n", "a")).is_none(),
            "a write that was answered late"
        );
        informer.apply(pod("a", "1", 10, None));
        assert!(
            informer.get(&Key::new("n", "a")).is_some(),
            "it is among those watched again"
        );
        informer.removed(pod("a", "1", 11, None));
        informer.apply(pod("a", "2", 8, None));
        assert!(
            informer.get(&Key::new("n", "a")).is_some(),
            "another of the same name"
        );
    }

    #[test]
    fn the_index_follows_changes_and_old_versions_are_ignored() {
        let informer = Informer::<Pod>::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        informer.on_change(move |old, new| {
            seen.lock().push((
                old.map(|o| o.meta.uid.to_string()),
                new.map(|n| n.meta.uid.to_string()),
            ));
        });
        informer.apply(pod("a", "1", 5, Some("web")));
        informer.apply(pod("b", "2", 6, None));
        assert_eq!(informer.indexed("web").len(), 1);
        assert_eq!(informer.indexed("/n").len(), 1);
        informer.apply(pod("a", "1", 4, None));
        assert_eq!(
            informer.indexed("web").len(),
            1,
            "an older version changes nothing"
        );
        informer.apply(pod("b", "3", 7, Some("web")));
        assert_eq!(informer.indexed("web").len(), 2);
        assert_eq!(informer.count_indexed("/n"), 0);
        informer.remove(&Key::new("n", "a"));
        assert_eq!((informer.len(), informer.indexed("web").len()), (1, 1));
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(
            *log.lock(),
            [
                (None, some("1")),
                (None, some("2")),
                (some("2"), None),
                (None, some("3")),
                (some("1"), None)
            ]
        );
    }
}
