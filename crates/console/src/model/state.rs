//! What is known of the fleet, with its indexes. Every change touches what it is about and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use gantry_api::{
    App, Cluster, Group, Notification, Phase, PlacementPolicy, Release, StopLine, Strategy, Tenant,
};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use super::{
    limits::{Quota, QuotaKind},
    rows::{Instance, Key, Load, Node},
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

/// One member's objects.
#[derive(Default)]
pub struct Member {
    /// Its instances.
    pub instances: HashMap<Key, Arc<Instance>>,
    by_group: HashMap<Key, BTreeSet<String>>,
    by_node: HashMap<String, BTreeSet<Key>>,
    loads: HashMap<String, Load>,
    /// Its nodes.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// Nodes by cell.
    pub by_cell: BTreeMap<String, BTreeSet<String>>,
    /// Its placement policies.
    pub policies: BTreeMap<String, Arc<PlacementPolicy>>,
    /// Its quotas, by kind, namespace and name.
    pub quotas: BTreeMap<(QuotaKind, String, String), Arc<Quota>>,
    /// Why its objects are not known as they are now.
    pub trouble: Option<String>,
    cells: Vec<gantry_api::cluster::Cell>,
}

impl Member {
    /// What is asked of a node.
    pub fn load(&self, node: &str) -> Load {
        self.loads.get(node).copied().unwrap_or_default()
    }

    /// Instances on a node.
    pub fn on_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Arc<Instance>> {
        let keys = self.by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| self.instances.get(key))
    }

    /// Instances of a Group.
    pub fn of_group<'a>(&'a self, group: &'a Key) -> impl Iterator<Item = &'a Arc<Instance>> {
        let names = self.by_group.get(group).into_iter().flatten();
        names.filter_map(|name| self.instances.get(&(group.0.clone(), name.clone())))
    }

    /// Takes an instance in; the Groups concerned.
    pub fn put(&mut self, instance: Instance) -> Vec<Topic> {
        let key = (instance.tenant.clone(), instance.name.clone());
        let group = (instance.tenant.clone(), instance.group.clone());
        if self
            .instances
            .get(&key)
            .is_some_and(|old| **old == instance)
        {
            return Vec::new();
        }
        self.take(&key);
        self.by_group
            .entry(group.clone())
            .or_default()
            .insert(instance.name.clone());
        if !instance.node.is_empty() {
            self.by_node
                .entry(instance.node.clone())
                .or_default()
                .insert(key.clone());
            self.loads
                .entry(instance.node.clone())
                .or_default()
                .add(&instance, 1);
        }
        self.instances.insert(key, Arc::new(instance));
        vec![Topic::Group(group)]
    }

    /// Lets an instance go.
    pub fn remove(&mut self, key: &Key) -> Vec<Topic> {
        let old = self.take(key);
        old.map(|old| Topic::Group((old.tenant.clone(), old.group.clone())))
            .into_iter()
            .collect()
    }

    fn take(&mut self, key: &Key) -> Option<Arc<Instance>> {
        let old = self.instances.remove(key)?;
        let group = (old.tenant.clone(), old.group.clone());
        if let Some(names) = self.by_group.get_mut(&group) {
            names.remove(&old.name);
            if names.is_empty() {
                self.by_group.remove(&group);
            }
        }
        if let Some(keys) = self.by_node.get_mut(&old.node) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_node.remove(&old.node);
                self.loads.remove(&old.node);
            } else {
                self.loads
                    .entry(old.node.clone())
                    .or_default()
                    .add(&old, -1);
            }
        }
        Some(old)
    }

    /// All instances anew.
    pub fn replace(&mut self, instances: Vec<Instance>) -> Vec<Topic> {
        self.instances.clear();
        self.by_group.clear();
        self.by_node.clear();
        self.loads.clear();
        for instance in instances {
            self.put(instance);
        }
        vec![Topic::All]
    }

    /// Takes a node in; whether anything changed.
    pub fn put_node(&mut self, mut node: Node) -> bool {
        let cell = self.cells.iter().find(|c| {
            let selector = c.selector();
            selector.iter().all(|(k, v)| node.labels.get(k) == Some(v))
        });
        node.cell = cell.map(|c| c.name.clone()).unwrap_or_default();
        if self.nodes.get(&node.name).is_some_and(|old| **old == node) {
            return false;
        }
        self.remove_node(&node.name.clone());
        self.by_cell
            .entry(node.cell.clone())
            .or_default()
            .insert(node.name.clone());
        self.nodes.insert(node.name.clone(), Arc::new(node));
        true
    }

    /// Lets a node go.
    pub fn remove_node(&mut self, name: &str) {
        let Some(old) = self.nodes.remove(name) else {
            return;
        };
        if let Some(names) = self.by_cell.get_mut(&old.cell) {
            names.remove(name);
            if names.is_empty() {
                self.by_cell.remove(&old.cell);
            }
        }
    }

    /// All nodes anew.
    pub fn replace_nodes(&mut self, nodes: Vec<Node>) {
        self.nodes.clear();
        self.by_cell.clear();
        for node in nodes {
            self.put_node(node);
        }
    }

    /// Other cells: nodes are divided anew.
    pub fn divide(&mut self, cells: &[gantry_api::cluster::Cell]) {
        if self.cells == cells {
            return;
        }
        self.cells = cells.to_vec();
        let nodes = std::mem::take(&mut self.nodes);
        self.replace_nodes(nodes.into_values().map(|n| (*n).clone()).collect());
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

    fn instance(name: &str, node: &str, cpu: i64) -> Instance {
        Instance {
            tenant: "shop".into(),
            group: "cart".into(),
            name: name.into(),
            node: node.into(),
            cpu,
            ..Instance::default()
        }
    }

    #[test]
    fn indexes_follow_every_change() {
        let group = ("shop".to_owned(), "cart".to_owned());
        let mut member = Member::default();
        assert_eq!(
            member.put(instance("a", "", 100)),
            [Topic::Group(group.clone())]
        );
        assert_eq!(member.put(instance("a", "n1", 100)).len(), 1);
        assert!(
            member.put(instance("a", "n1", 100)).is_empty(),
            "nothing changed"
        );
        member.put(instance("b", "n1", 50));
        assert_eq!(
            member.load("n1"),
            Load {
                cpu: 150,
                memory: 0,
                instances: 2
            }
        );
        member.put(instance("a", "n2", 100));
        assert_eq!((member.load("n1").cpu, member.load("n2").cpu), (50, 100));
        assert_eq!(member.of_group(&group).count(), 2);
        member.remove(&("shop".into(), "a".into()));
        member.remove(&("shop".into(), "b".into()));
        assert!(member.by_group.is_empty() && member.by_node.is_empty() && member.loads.is_empty());
    }

    #[test]
    fn nodes_are_divided_by_cell() {
        let mut member = Member::default();
        let node = Node {
            name: "n1".into(),
            labels: BTreeMap::from([("topology.kubernetes.io/zone".into(), "sh-a".into())]),
            ..Node::default()
        };
        assert!(member.put_node(node.clone()));
        assert_eq!(member.nodes["n1"].cell, "");
        let cell = gantry_api::cluster::Cell {
            name: "sh-a".into(),
            ..Default::default()
        };
        member.divide(&[cell]);
        assert_eq!(member.nodes["n1"].cell, "sh-a");
        assert_eq!(member.by_cell.keys().collect::<Vec<_>>(), ["sh-a"]);
        assert!(!member.put_node(node));
        member.remove_node("n1");
        assert!(member.by_cell.is_empty());
    }

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
