//! A watched kind, held in memory and indexed by Group. One watch a kind, shared by everyone.
//!
//! What the hub has itself written is put in at once (read your own writes); an older version never
//! replaces a newer one.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Namespace and name.
pub type Key = (String, String);

/// Namespace and name of `object`.
pub fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

struct State<K> {
    objects: HashMap<Key, Arc<K>>,
    groups: HashMap<Key, BTreeSet<String>>,
    synced: bool,
    failing: Option<(Timestamp, String)>,
}

/// The objects of one kind.
pub struct Table<K> {
    state: Mutex<State<K>>,
    /// The Group an object belongs to, by name; it is in the object's own namespace.
    group_of: fn(&K) -> Option<String>,
    tap: OnceLock<Tap<K>>,
}

/// Someone who listens to what the watch of a table brings.
pub type Tap<K> = Box<dyn Fn(Heard<'_, K>) + Send + Sync>;

/// What the watch of a table has brought. What the hub has written itself comes this way too.
pub enum Heard<'a, K> {
    /// An object is so.
    Is(&'a K),
    /// An object is gone.
    Gone(&'a K),
    /// These are all.
    All(&'a [K]),
}

fn newer(a: &impl ResourceExt, b: &impl ResourceExt) -> bool {
    let number = |v: Option<String>| v.and_then(|v| v.parse::<u64>().ok());
    match (number(a.resource_version()), number(b.resource_version())) {
        // Resource versions of one kind compare as numbers (KEP-5504); where they are none, the last one wins.
        (Some(a), Some(b)) => a >= b,
        _ => true,
    }
}

impl<K> Table<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// An empty table.
    pub fn new(group_of: fn(&K) -> Option<String>) -> Arc<Self> {
        let state = State {
            objects: HashMap::new(),
            groups: HashMap::new(),
            synced: false,
            failing: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            group_of,
            tap: OnceLock::new(),
        })
    }

    /// Lets someone listen, once for all, before the watch begins.
    pub fn tap(&self, tap: impl Fn(Heard<'_, K>) + Send + Sync + 'static) {
        // A second one would be a mistake of ours, and has no effect.
        let _ = self.tap.set(Box::new(tap));
    }

    fn tell(&self, heard: Heard<'_, K>) {
        if let Some(tap) = self.tap.get() {
            tap(heard);
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State<K>) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn index(&self, object: &K) -> Option<Key> {
        (self.group_of)(object).map(|group| (object.namespace().unwrap_or_default(), group))
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.with(|s| s.objects.get(key).cloned())
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.with(|s| s.objects.values().cloned().collect())
    }

    /// Objects of a Group, by name.
    pub fn of_group(&self, group: &Key) -> Vec<Arc<K>> {
        self.with(|s| {
            let names = s.groups.get(group);
            names
                .into_iter()
                .flatten()
                .filter_map(|name| s.objects.get(&(group.0.clone(), name.clone())).cloned())
                .collect()
        })
    }

    /// Groups that have something here.
    pub fn groups(&self) -> Vec<Key> {
        self.with(|s| s.groups.keys().cloned().collect())
    }

    /// Whether a first list has come.
    pub fn synced(&self) -> bool {
        self.with(|s| s.synced)
    }

    /// Since when, and why, the watch fails.
    pub fn failing(&self) -> Option<(Timestamp, String)> {
        self.with(|s| s.failing.clone())
    }

    /// Why its objects are not known as they are now, and since when; `None` when they are.
    pub fn trouble(&self) -> Option<(Timestamp, String)> {
        self.failing().or_else(|| {
            let why = "its first list has not come yet".to_owned();
            (!self.synced()).then(|| (Timestamp::now(), why))
        })
    }

    /// Takes an object in, unless it is older than what is held.
    pub fn put(&self, object: K) -> Option<Key> {
        let group = self.index(&object);
        let key = key(&object);
        self.with(|s| {
            if s.objects
                .get(&key)
                .is_some_and(|old| !newer(&object, old.as_ref()))
            {
                return;
            }
            if let Some(group) = &group {
                s.groups
                    .entry(group.clone())
                    .or_default()
                    .insert(key.1.clone());
            }
            s.objects.insert(key, Arc::new(object));
        });
        group
    }

    fn remove(&self, object: &K) -> Option<Key> {
        let group = self.index(object);
        let key = key(object);
        self.with(|s| {
            s.objects.remove(&key);
            if let Some(group) = &group
                && let Some(names) = s.groups.get_mut(group)
            {
                names.remove(&key.1);
                if names.is_empty() {
                    s.groups.remove(group);
                }
            }
        });
        group
    }

    fn replace(&self, objects: Vec<K>) {
        let mut fresh = HashMap::with_capacity(objects.len());
        let mut groups: HashMap<Key, BTreeSet<String>> = HashMap::new();
        for object in objects {
            let key = key(&object);
            if let Some(group) = self.index(&object) {
                groups.entry(group).or_default().insert(key.1.clone());
            }
            fresh.insert(key, Arc::new(object));
        }
        self.with(|s| {
            s.objects = fresh;
            s.groups = groups;
            s.synced = true;
            s.failing = None;
        });
    }

    /// Keeps the table current until `stop`; tells `changed` of each object's Group, and of every Group
    /// after a list.
    pub async fn watch(
        self: Arc<Self>,
        api: Api<K>,
        config: watcher::Config,
        changed: impl Fn(Changed<'_, K>) + Send + Sync,
        stop: CancellationToken,
    ) {
        let kind = K::kind(&()).into_owned();
        let stream = watcher(api, config).default_backoff();
        pin_mut!(stream);
        let mut listing = Vec::new();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                None => return,
                Some(Err(error)) => {
                    debug!(%kind, %error, "watch failed");
                    let first = self.with(|s| {
                        let first = s.failing.is_none();
                        s.failing
                            .get_or_insert_with(|| (Timestamp::now(), error.to_string()));
                        first
                    });
                    if first {
                        warn!(%kind, %error, "watch fails; it is tried again until it holds");
                        changed(Changed::Failing);
                    }
                }
                Some(Ok(event)) => {
                    let was_failing = self.with(|s| s.failing.take()).is_some();
                    match event {
                        watcher::Event::Init => listing.clear(),
                        watcher::Event::InitApply(object) => listing.push(object),
                        watcher::Event::InitDone => {
                            self.tell(Heard::All(&listing));
                            let mut groups = self.groups();
                            self.replace(std::mem::take(&mut listing));
                            groups.extend(self.groups());
                            changed(Changed::Listed(&groups));
                        }
                        watcher::Event::Apply(object) => {
                            self.tell(Heard::Is(&object));
                            let copy = object.clone();
                            let group = self.put(object);
                            changed(Changed::Object(&copy, group));
                        }
                        watcher::Event::Delete(object) => {
                            self.tell(Heard::Gone(&object));
                            let group = self.remove(&object);
                            changed(Changed::Object(&object, group));
                        }
                    }
                    if was_failing {
                        changed(Changed::Failing);
                    }
                }
            }
        }
    }
}

/// What a watch tells.
pub enum Changed<'a, K> {
    /// One object, and its Group.
    Object(&'a K, Option<Key>),
    /// Everything was listed anew; these Groups have or had something.
    Listed(&'a [Key]),
    /// The watch began to fail, or holds again.
    Failing,
}
