//! What is known of the fleet, with its indexes. Every change touches what it is about and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use gantry_api::{App, Cluster, Group, Notification, Phase, Release, StopLine, Strategy, Tenant};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use super::{
    limits::Quota,
    member::Member,
    rows::{Instance, Key},
};

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A Cluster, or how its member answers.
    Cluster(String),
    /// An App or Strategy of the tenant.
    Tenant(String),
    /// A Group, or an instance of it.
    Group(Key),
    /// A Release.
    Release(Key),
    /// A node of a member.
    Nodes(String),
    /// A stopped line.
    Lines,
    /// A placement policy of a member.
    Policies,
    /// A quota, of a Tenant or of a member.
    Quotas,
    /// A Notification.
    Hooks,
    /// A kind was listed anew: anything.
    All,
}

/// How a Group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Hash)]
pub enum Health {
    /// Nothing in service though something should be.
    Down,
    /// Fewer in service than wished, and no release that explains it.
    Degraded,
    /// Its release stands still because of failures.
    Halted,
    /// Its release waits for a person or gate.
    Waiting,
    /// A release is under way.
    Releasing,
    /// On its way to its size.
    Scaling,
    /// As wished.
    Healthy,
    /// No instance is wished for.
    Idle,
    /// The hub has not looked at it yet.
    Unknown,
}

impl Health {
    /// Every one, worst first.
    pub const ALL: [Self; 9] = [
        Self::Down,
        Self::Degraded,
        Self::Halted,
        Self::Waiting,
        Self::Releasing,
        Self::Scaling,
        Self::Healthy,
        Self::Idle,
        Self::Unknown,
    ];

    /// Its name in URLs and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Down => "Down",
            Self::Degraded => "Degraded",
            Self::Halted => "Halted",
            Self::Waiting => "Waiting",
            Self::Releasing => "Releasing",
            Self::Scaling => "Scaling",
            Self::Healthy => "Healthy",
            Self::Idle => "Idle",
            Self::Unknown => "Unknown",
        }
    }

    /// Of a Group, and the release that moves it.
    pub fn of(group: &Group, release: Option<&Release>) -> Self {
        let Some(status) = &group.status else {
            return Self::Unknown;
        };
        let phase = release.and_then(|r| r.status.as_ref());
        if group.spec.replicas == 0 && status.replicas == 0 {
            return Self::Idle;
        }
        if status.in_service == 0 && status.current.is_some() {
            return Self::Down;
        }
        match phase {
            Some(s) if s.halt.is_some() => return Self::Halted,
            Some(s) if s.waiting_since.is_some() => return Self::Waiting,
            Some(s) if s.phase.is_active() => {
                return if matches!(s.phase, Phase::Paused) {
                    Self::Waiting
                } else {
                    Self::Releasing
                };
            }
            _ => {}
        }
        if status.current.is_none() || status.observed_generation.is_none() {
            return Self::Unknown;
        }
        if status.replicas != group.spec.replicas {
            return Self::Scaling;
        }
        if status.in_service < group.spec.replicas {
            return Self::Degraded;
        }
        Self::Healthy
    }

    /// Whether a person should look at it.
    pub fn troubled(self) -> bool {
        matches!(self, Self::Down | Self::Degraded | Self::Halted)
    }
}

/// A Tenant, with its pools as they are shown.
pub struct Department {
    /// The object.
    pub tenant: Tenant,
    /// Its pools.
    pub pools: Vec<Quota>,
}

impl Department {
    /// Of a Tenant.
    pub fn of(mut tenant: Tenant) -> Self {
        tenant.metadata.managed_fields = None;
        Self {
            pools: Quota::of_tenant(&tenant),
            tenant,
        }
    }

    /// Its namespaces.
    pub fn namespaces(&self) -> Vec<String> {
        let name = self.tenant.name_any();
        self.tenant.spec.namespaces_of(&name)
    }
}

/// What is known of the fleet.
#[derive(Default)]
pub struct State {
    /// Clusters.
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// Members, by the name of their Cluster.
    pub members: BTreeMap<String, Member>,
    /// Apps.
    pub apps: BTreeMap<Key, Arc<App>>,
    /// Groups.
    pub groups: BTreeMap<Key, Arc<Group>>,
    /// Strategies.
    pub strategies: BTreeMap<Key, Arc<Strategy>>,
    /// Releases. Of those that have ended the plan and its steps are left out.
    pub releases: BTreeMap<Key, Arc<Release>>,
    /// Tenants.
    pub departments: BTreeMap<String, Department>,
    /// Notifications.
    pub hooks: BTreeMap<Key, Arc<Notification>>,
    /// Stopped lines.
    pub lines: BTreeMap<String, Arc<StopLine>>,
    releases_of: HashMap<Key, BTreeSet<(Option<Timestamp>, String)>>,
    /// Releases that have not ended.
    pub running: BTreeSet<Key>,
    /// Groups that are not as they should be.
    pub troubled: BTreeMap<Key, Health>,
    healths: HashMap<Key, Health>,
    /// Groups by App.
    pub groups_of_app: HashMap<Key, BTreeSet<String>>,
    /// Kinds whose first list is still waited for.
    pub awaited: BTreeSet<&'static str>,
}

impl State {
    /// Releases of a Group, newest first.
    pub fn releases_of(&self, group: &Key) -> impl Iterator<Item = &Arc<Release>> {
        let names = self.releases_of.get(group).into_iter().flatten().rev();
        let tenant = group.0.clone();
        names.filter_map(move |(_, name)| self.releases.get(&(tenant.clone(), name.clone())))
    }

    /// The release that moves a Group, else `None`.
    pub fn running_release(&self, group: &Key) -> Option<&Arc<Release>> {
        self.releases_of(group).find(|r| {
            let phase = r.status.as_ref().map(|s| s.phase);
            phase.is_some_and(Phase::is_active)
        })
    }

    /// How a Group is.
    pub fn health(&self, key: &Key) -> Health {
        self.healths.get(key).copied().unwrap_or(Health::Unknown)
    }

    /// Works out anew how a Group is: whenever it or a release of it has changed.
    fn weigh(&mut self, key: &Key) {
        let Some(group) = self.groups.get(key) else {
            self.healths.remove(key);
            self.troubled.remove(key);
            return;
        };
        let health = Health::of(group, self.running_release(key).map(Arc::as_ref));
        self.healths.insert(key.clone(), health);
        if health.troubled() {
            self.troubled.insert(key.clone(), health);
        } else {
            self.troubled.remove(key);
        }
    }

    /// Takes a Group in.
    pub fn put_group(&mut self, mut group: Group) -> Topic {
        let key = key_of(&group);
        group.metadata.managed_fields = None;
        let app = (key.0.clone(), group.spec.app.clone());
        if let Some(old) = self.groups.get(&key) {
            let before = (key.0.clone(), old.spec.app.clone());
            if before != app {
                self.leave_app(&before, &key.1);
            }
        }
        self.groups_of_app
            .entry(app)
            .or_default()
            .insert(key.1.clone());
        self.groups.insert(key.clone(), Arc::new(group));
        self.weigh(&key);
        Topic::Group(key)
    }

    /// Lets a Group go.
    pub fn remove_group(&mut self, key: &Key) -> Topic {
        if let Some(old) = self.groups.remove(key) {
            self.leave_app(&(key.0.clone(), old.spec.app.clone()), &key.1);
        }
        self.weigh(key);
        Topic::Group(key.clone())
    }

    fn leave_app(&mut self, app: &Key, group: &str) {
        if let Some(groups) = self.groups_of_app.get_mut(app) {
            groups.remove(group);
            if groups.is_empty() {
                self.groups_of_app.remove(app);
            }
        }
    }

    /// Takes a Release in.
    pub fn put_release(&mut self, mut release: Release) -> Topic {
        let key = key_of(&release);
        release.metadata.managed_fields = None;
        let ended = release.status.as_ref().is_some_and(|s| s.phase.is_final());
        if ended && let Some(status) = &mut release.status {
            // Whoever opens it reads it whole.
            if let Some(plan) = &mut status.plan {
                plan.batches.clear();
            }
            status.steps.clear();
            status.working.clear();
        }
        let group = (key.0.clone(), release.spec.group.clone());
        let made = release.metadata.creation_timestamp.as_ref().map(|t| t.0);
        self.releases_of
            .entry(group.clone())
            .or_default()
            .insert((made, key.1.clone()));
        if ended {
            self.running.remove(&key);
        } else {
            self.running.insert(key.clone());
        }
        self.releases.insert(key.clone(), Arc::new(release));
        self.weigh(&group);
        Topic::Release(key)
    }

    /// Lets a Release go.
    pub fn remove_release(&mut self, key: &Key) -> Topic {
        self.running.remove(key);
        if let Some(old) = self.releases.remove(key) {
            let group = (key.0.clone(), old.spec.group.clone());
            if let Some(all) = self.releases_of.get_mut(&group) {
                let made = old.metadata.creation_timestamp.as_ref().map(|t| t.0);
                all.remove(&(made, key.1.clone()));
                if all.is_empty() {
                    self.releases_of.remove(&group);
                }
            }
            self.weigh(&group);
        }
        Topic::Release(key.clone())
    }

    /// Namespaces that hold an App or Group.
    pub fn tenants(&self) -> BTreeSet<&str> {
        let mut all = namespaces(&self.groups);
        all.extend(namespaces(&self.apps));
        all
    }

    /// The quotas of a tenant on a member that count instances of Groups.
    pub fn counted(&self, member: &str, tenant: &str) -> Vec<gantry_hub::world::Quota> {
        let all = self.members.get(member).into_iter().flat_map(|m| &m.quotas);
        let own = all.filter(|((_, namespace, _), _)| namespace == tenant);
        own.filter_map(|(_, quota)| quota.counted.clone()).collect()
    }

    /// Instances of a Group over all members, with the member of each.
    pub fn instances<'a>(
        &'a self,
        group: &'a Key,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Instance>)> {
        let members = self.members.iter();
        members.flat_map(move |(name, m)| m.of_group(group).map(move |i| (name.as_str(), i)))
    }
}

/// The namespaces of a map, found by leaping from one to the next.
fn namespaces<V>(map: &BTreeMap<Key, V>) -> BTreeSet<&str> {
    let mut all = BTreeSet::new();
    let mut next = map.keys().next();
    while let Some((namespace, _)) = next {
        all.insert(namespace.as_str());
        // The least text that comes after this one.
        let beyond = (format!("{namespace}\0"), String::new());
        next = map.range(beyond..).next().map(|(key, _)| key);
    }
    all
}

/// Namespace and name.
pub fn key_of(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn namespaces_are_found_by_leaping() {
        let keys = [("a", "1"), ("a", "2"), ("a-b", "1"), ("b", "1")];
        let map: BTreeMap<Key, ()> = keys
            .iter()
            .map(|(a, b)| (((*a).to_owned(), (*b).to_owned()), ()))
            .collect();
        assert_eq!(
            namespaces(&map).into_iter().collect::<Vec<_>>(),
            ["a", "a-b", "b"]
        );
        assert!(namespaces(&BTreeMap::<Key, ()>::new()).is_empty());
    }

    fn group(status: serde_json::Value) -> Group {
        serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"app": "cart", "replicas": 4, "placement": {"cells": []}, "revision": {"image": "a"}},
            "status": status,
        }))
        .unwrap()
    }

    fn release(name: &str, status: serde_json::Value) -> Release {
        serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Release", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"group": "cart"}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn health_and_who_is_troubled() {
        let current = json!({"revision": 1, "image": "a"});
        let with = |replicas: i32, serving: i32| {
            group(
                json!({"observedGeneration": 1, "current": current, "replicas": replicas, "inService": serving}),
            )
        };
        let mut state = State::default();
        let key = ("shop".to_owned(), "cart".to_owned());
        for (made, want) in [
            (with(4, 4), Health::Healthy),
            (with(4, 3), Health::Degraded),
            (with(4, 0), Health::Down),
            (with(3, 3), Health::Scaling),
            (group(json!({})), Health::Unknown),
        ] {
            state.put_group(made);
            assert_eq!(state.health(&key), want);
            assert_eq!(state.troubled.contains_key(&key), want.troubled());
        }
        state.put_group(with(4, 3));
        state.put_release(release("cart-1", json!({"phase": "Batch"})));
        assert_eq!(state.health(&key), Health::Releasing);
        assert!(state.troubled.is_empty(), "a release explains it");
        let halt = json!({"phase": "Paused", "halt": {"reason": "Failed", "message": "x", "at": "2026-11-21T08:00:00Z"}});
        state.put_release(release("cart-1", halt));
        assert_eq!(state.troubled[&key], Health::Halted);
        state.put_release(release("cart-1", json!({"phase": "RolledBack"})));
        assert_eq!(state.health(&key), Health::Degraded);
        assert!(state.running.is_empty());
        state.remove_release(&("shop".into(), "cart-1".into()));
        state.remove_group(&key);
        assert!(
            state.troubled.is_empty()
                && state.groups_of_app.is_empty()
                && state.releases_of.is_empty()
        );
    }
}
