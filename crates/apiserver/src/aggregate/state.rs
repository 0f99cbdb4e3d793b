//! What is known of the APIServices, as one immutable whole: a request sees all of it or none.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::{
    backend::{Backend, Maker},
    offer::Offer,
};
use crate::object;

/// Where a group version stands in discovery: the bigger, the earlier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    pub group: i64,
    pub version: i64,
}

/// One APIService.
#[derive(Clone)]
pub struct Known {
    pub name: String,
    pub group: String,
    pub version: String,
    pub priority: Priority,
    /// Its `spec`: what tells whether anything but its status has changed.
    pub spec: Value,
    /// What keeps it, where something does: the value of its label.
    pub automanaged: String,
    /// Its condition `Available` says so.
    pub available: bool,
    /// The reason of that condition.
    pub reason: String,
    /// Whose it is, if not this server's.
    pub remote: Option<Remote>,
}

/// A group version of somebody else.
#[derive(Clone)]
pub struct Remote {
    pub backend: Arc<Backend>,
    /// What it offers, as last heard.
    pub offer: Arc<Offer>,
}

impl PartialEq for Known {
    fn eq(&self, other: &Known) -> bool {
        self.spec == other.spec
            && self.available == other.available
            && self.reason == other.reason
            && self.automanaged == other.automanaged
    }
}

/// Label of APIServices that the server itself keeps.
pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

impl Known {
    /// Reads an APIService. Connections and what was heard before go on where nothing has changed
    /// about whom to ask.
    pub fn read(object: &Value, before: Option<&Arc<Known>>, maker: &Maker) -> Known {
        let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let spec = object.get("spec").cloned().unwrap_or_default();
        let condition = condition(object);
        let served = spec.get("service").is_some_and(Value::is_object);
        let same = before
            .filter(|b| Backend::same(&b.spec, &spec))
            .and_then(|b| b.remote.clone());
        let remote = served.then(|| {
            same.unwrap_or_else(|| Remote {
                backend: Arc::new(maker.backend(&spec)),
                offer: Arc::default(),
            })
        });
        Known {
            name: object::name(object).to_owned(),
            group: object::text(object, "/spec/group").to_owned(),
            version: object::text(object, "/spec/version").to_owned(),
            priority: Priority {
                group: number("/spec/groupPriorityMinimum"),
                version: number("/spec/versionPriority"),
            },
            automanaged: object::meta(object)
                .and_then(|m| m.get("labels")?.get(AUTOMANAGED)?.as_str())
                .unwrap_or_default()
                .to_owned(),
            available: condition.is_some_and(|c| object::text(c, "/status") == "True"),
            reason: condition
                .map(|c| object::text(c, "/reason"))
                .unwrap_or_default()
                .to_owned(),
            spec,
            remote,
        }
    }
}

impl Known {
    /// What of it discovery shows: where it stands, if not where it would by itself, and what it
    /// offers, if it is somebody else's.
    fn shown(&self) -> (Option<Priority>, Option<*const Offer>) {
        let own = super::register::priority(&self.group, &self.version);
        let moved = (self.priority != own).then_some(self.priority);
        let offer = self.remote.as_ref().map(|r| Arc::as_ptr(&r.offer));
        (moved, offer)
    }
}

/// The condition `Available` of an APIService.
pub fn condition(object: &Value) -> Option<&Value> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|c| object::text(c, "/type") == "Available")
}

/// All APIServices.
#[derive(Default)]
pub struct State {
    /// Tells states apart; part of what discovery is remembered by.
    pub generation: u64,
    by_name: FxHashMap<String, Arc<Known>>,
    /// Those of others, by `group/version`.
    elsewhere: FxHashMap<String, Arc<Known>>,
}

impl State {
    pub fn by_name(&self, name: &str) -> Option<&Arc<Known>> {
        self.by_name.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.by_name.values()
    }

    /// Those of others.
    pub fn remotes(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.elsewhere.values()
    }

    /// Whether any group version is somebody else's.
    pub fn has_remotes(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// Whose `group/version` is, when it is somebody else's.
    pub fn elsewhere(&self, group_version: &str) -> Option<&Arc<Known>> {
        self.elsewhere.get(group_version)
    }

    /// The state in which this APIService is as given, or is not.
    pub fn with(&self, name: &str, known: Option<Arc<Known>>) -> State {
        let mut by_name = self.by_name.clone();
        let mut elsewhere = self.elsewhere.clone();
        if let Some(before) = by_name.remove(name) {
            elsewhere.remove(&format!("{}/{}", before.group, before.version));
        }
        if let Some(known) = known {
            if known.remote.is_some() {
                let id = format!("{}/{}", known.group, known.version);
                elsewhere.insert(id, known.clone());
            }
            by_name.insert(name.to_owned(), known);
        }
        // Discovery does not change by what is only about availability, nor by an APIService of
        // what is served here that says what holds without it.
        let shown = |known: Option<&Arc<Known>>| known.map(|k| k.shown()).unwrap_or_default();
        let changed = shown(self.by_name.get(name)) != shown(by_name.get(name));
        State {
            generation: self.generation + u64::from(changed),
            by_name,
            elsewhere,
        }
    }
}
