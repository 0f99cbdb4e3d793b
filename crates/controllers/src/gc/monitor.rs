//! Feeds the graph: from the shared informers where there is one, else from a watch of metadata.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::watch;

use super::graph::{Graph, Resource, Task};
use super::shell::LATE;
use crate::model::meta::MetaOnly;
use crate::model::{Kind, Meta, Watched};
use crate::runtime::reflector::Sink;
use crate::runtime::{Informer, Informers, Queue};

/// The graph and the work that its changes give rise to.
#[derive(Default)]
pub struct Feed {
    pub graph: RwLock<Graph>,
    pub queue: Queue<Task>,
}

impl Feed {
    pub fn put(&self, resource: &Arc<Resource>, meta: &Meta) {
        let mut tasks = Vec::new();
        self.graph.write().put(resource, meta, &mut tasks);
        self.add(tasks);
    }

    pub fn remove(&self, uid: &str) {
        let mut tasks = Vec::new();
        self.graph.write().remove(uid, &mut tasks);
        self.add(tasks);
    }

    fn add(&self, tasks: Vec<Task>) {
        for task in tasks {
            match task {
                Task::CheckLater(uid) => self.queue.add_after(Task::Check(uid), LATE),
                task => self.queue.add(task),
            }
        }
    }
}

/// Whether two states of an object are the same to the graph.
fn same(old: &Meta, new: &Meta) -> bool {
    old.uid == new.uid
        && old.owners == new.owners
        && old.deleted.is_some() == new.deleted.is_some()
        && old.finalizers == new.finalizers
}

/// Feeds the graph from a shared informer; the resource that is thereby covered.
fn share<T: Watched>(feed: &Arc<Feed>, informer: &Informer<T>) -> Kind {
    let resource = Arc::new(Resource {
        group: T::KIND.group.into(),
        version: T::KIND.version.into(),
        plural: T::KIND.plural.into(),
        kind: T::KIND.kind.into(),
        namespaced: T::KIND.namespaced,
    });
    let feed = feed.clone();
    informer.on_change(move |old, new| match (old, new) {
        (Some(old), None) => feed.remove(&old.meta().uid),
        (Some(old), Some(new)) if same(old.meta(), new.meta()) => {}
        (_, Some(new)) => feed.put(&resource, new.meta()),
        (None, None) => {}
    });
    T::KIND
}

/// Feeds the graph from all informers that hold every object of their kind.
pub fn share_all(feed: &Arc<Feed>, informers: &Informers) -> Vec<Kind> {
    vec![
        share(feed, &informers.pods),
        share(feed, &informers.nodes),
        share(feed, &informers.namespaces),
        share(feed, &informers.claims),
        share(feed, &informers.services),
        share(feed, &informers.slices),
        share(feed, &informers.budgets),
        share(feed, &informers.stateful_sets),
        share(feed, &informers.revisions),
        share(feed, &informers.replica_sets),
        share(feed, &informers.replication_controllers),
        share(feed, &informers.deployments),
        share(feed, &informers.daemon_sets),
        share(feed, &informers.jobs),
        share(feed, &informers.cron_jobs),
    ]
}

/// Feeds the graph from a watch of metadata of one resource.
pub struct Monitor {
    pub feed: Arc<Feed>,
    pub resource: Arc<Resource>,
    /// Of each object, a digest of what the graph knows, so that most events end here.
    known: Mutex<FxHashMap<Arc<str>, u64>>,
    pub synced: watch::Sender<bool>,
}

impl Monitor {
    pub fn new(feed: Arc<Feed>, resource: Arc<Resource>) -> Self {
        Monitor {
            feed,
            resource,
            known: Mutex::default(),
            synced: watch::Sender::new(false),
        }
    }

    fn take(&self, meta: &Meta) {
        use std::hash::{Hash, Hasher};
        let mut hasher = rustc_hash::FxHasher::default();
        (&meta.owners, meta.deleted.is_some(), &meta.finalizers).hash(&mut hasher);
        let digest = hasher.finish();
        if self.known.lock().insert(meta.uid.clone(), digest) != Some(digest) {
            self.feed.put(&self.resource, meta);
        }
    }

    fn drop_one(&self, uid: &str) {
        self.known.lock().remove(uid);
        self.feed.remove(uid);
    }

    /// The resource is no longer served: nor are its objects.
    pub fn clear(&self) {
        let known = std::mem::take(&mut *self.known.lock());
        for uid in known.keys() {
            self.feed.remove(uid);
        }
    }
}

impl Sink<MetaOnly> for Monitor {
    fn replace(&self, objects: Vec<MetaOnly>, _version: u64) {
        let there: FxHashSet<Arc<str>> = objects.iter().map(|o| o.metadata.uid.clone()).collect();
        for object in &objects {
            self.take(&object.metadata);
        }
        let gone: Vec<Arc<str>> = {
            let known = self.known.lock();
            known
                .keys()
                .filter(|uid| !there.contains(*uid))
                .cloned()
                .collect()
        };
        for uid in gone {
            self.drop_one(&uid);
        }
        self.synced.send_replace(true);
    }

    fn changed(&self, object: MetaOnly) -> u64 {
        self.take(&object.metadata);
        object.metadata.version
    }

    fn removed(&self, object: MetaOnly) -> u64 {
        self.drop_one(&object.metadata.uid);
        object.metadata.version
    }
}
