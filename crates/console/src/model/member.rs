//! One member's objects, with their indexes. Every change touches what it is about and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use gantry_api::PlacementPolicy;

use super::{
    limits::{Quota, QuotaKind},
    rows::{Instance, Key, Load, Node},
    state::Topic,
};

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

#[cfg(test)]
mod tests {
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
}
