//! Extension API servers: what kube-aggregator does.
//!
//! An APIService says whose a group version is: this server's own, or that of a server behind a
//! Service. [`state`] is what is known of them all, kept in step with the store by every write to
//! one; [`route`] passes requests on over the connections of a [`backend`], with the user's name in
//! [`headers`] that the other side believes of whoever shows the front proxy's certificate
//! ([`trust`] publishes whom that is). [`watchman`] looks whether backends answer, writes the
//! `Available` condition ([`verdict`] words it) and fetches what they offer ([`offer`]);
//! [`register`] keeps APIServices for what this server serves itself.

pub mod backend;
pub mod headers;
pub mod offer;
pub mod register;
pub mod route;
pub mod state;
pub mod trust;
pub mod verdict;
pub mod watchman;

use std::{collections::BTreeMap, sync::Arc};

use gantry_store::Store;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::{
    object,
    proxy::links::{Identity, Links},
};
use backend::Maker;
use state::{Known, State};

pub const GROUP: &str = "apiregistration.k8s.io";
pub const PLURAL: &str = "apiservices";
pub const BUCKET: &str = "apiregistration.k8s.io/apiservices";

/// Whose the group versions are.
pub struct Aggregator {
    state: RwLock<Arc<State>>,
    maker: Maker,
    /// The authority that signed what this server shows, PEM.
    pub authority: String,
    /// Something is to be looked at anew.
    pub stirred: Notify,
    /// What this server serves itself may have changed.
    pub registered: Notify,
    /// How often each backend was found to be unavailable, by APIService and reason.
    failures: Mutex<BTreeMap<(String, &'static str), u64>>,
}

impl Aggregator {
    /// `identity` is what this server shows to backends, signed by `authority`.
    pub fn new(
        store: Store,
        links: Arc<Links>,
        identity: Identity,
        authority: String,
    ) -> Aggregator {
        Aggregator {
            state: RwLock::default(),
            maker: Maker {
                store,
                links,
                identity,
            },
            authority,
            stirred: Notify::new(),
            registered: Notify::new(),
            failures: Mutex::default(),
        }
    }

    /// A backend was found to be unavailable.
    pub fn failed(&self, name: &str, reason: &'static str) {
        let mut all = self.failures.lock();
        *all.entry((name.to_owned(), reason)).or_default() += 1;
    }

    /// How often each backend was found to be unavailable, by reason.
    pub fn failures(&self) -> Vec<(String, &'static str, u64)> {
        let all = self.failures.lock();
        let all = all.iter();
        all.map(|((name, reason), n)| (name.clone(), *reason, *n))
            .collect()
    }

    /// What is known now.
    pub fn state(&self) -> Arc<State> {
        self.state.read().clone()
    }

    /// Reads all APIServices, at the start.
    pub fn load(&self, store: &Store) {
        for stored in store.snapshot(BUCKET).iter() {
            self.took(store, &stored.key.name);
        }
    }

    /// An APIService was written or deleted.
    pub fn took(&self, store: &Store, name: &str) {
        let mut state = self.state.write();
        // Read under the lock: of two writes at once the later one counts.
        let stored = store.get(&gantry_store::Key::new(BUCKET, name));
        let object = stored.and_then(|s| object::parse(&s.value).ok());
        let before = state.by_name(name);
        let now = object.map(|o| Arc::new(Known::read(&o, before, &self.maker)));
        if before.zip(now.as_ref()).is_some_and(|(b, n)| **b == **n) {
            return;
        }
        let same_spec = before
            .zip(now.as_ref())
            .is_some_and(|(b, n)| b.spec == n.spec);
        *state = Arc::new(state.with(name, now));
        drop(state);
        if !same_spec {
            self.stirred.notify_one();
            self.registered.notify_one();
        }
    }

    /// A Service or what stands behind one was written, in this namespace.
    pub fn touched(&self, namespace: &str) {
        let state = self.state();
        let concerned = |known: &Arc<Known>| {
            let remote = known.remote.as_ref();
            remote.is_some_and(|r| r.backend.service.namespace == namespace)
        };
        if state.remotes().any(concerned) {
            self.stirred.notify_one();
        }
    }

    /// What a backend offers has been asked for anew.
    pub fn learned(&self, name: &str, offer: Arc<offer::Offer>) {
        let mut state = self.state.write();
        let Some(known) = state.by_name(name) else {
            return;
        };
        let Some(remote) = known.remote.as_ref().filter(|r| r.offer != offer) else {
            return;
        };
        let mut remote = remote.clone();
        remote.offer = offer;
        let mut new = Known::clone(known);
        new.remote = Some(remote);
        *state = Arc::new(state.with(name, Some(Arc::new(new))));
    }
}
