//! Pools: nodes that placement policies name, with what they have and what is asked of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::model::{Load, Member, Node, State};

/// A pool of one member.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// The member.
    pub cluster: String,
    /// Usable nodes, and all.
    pub nodes: (usize, usize),
    /// Instances.
    pub instances: i32,
    /// CPU that instances ask for and that there is, thousandths of a core.
    pub cpu: (i64, i64),
    /// The same of memory, bytes.
    pub memory: (i64, i64),
    /// Policies that name it.
    pub policies: BTreeSet<String>,
}

/// The pools that policies name, by name and member. Where two policies mean different nodes by one name, the pool is
/// all of them.
pub fn pools(state: &State) -> Vec<PoolRow> {
    let mut all: BTreeMap<(String, String), PoolRow> = BTreeMap::new();
    for (cluster, member) in &state.members {
        let mut selectors: BTreeMap<&str, Vec<&BTreeMap<String, String>>> = BTreeMap::new();
        for (policy, object) in &member.policies {
            for pool in &object.spec.pools {
                let of_name = selectors.entry(&pool.name).or_default();
                if !of_name.contains(&&pool.node_selector) {
                    of_name.push(&pool.node_selector);
                }
                let key = (pool.name.clone(), cluster.clone());
                let row = all.entry(key).or_default();
                row.policies.insert(policy.clone());
            }
        }
        for (name, any) in selectors {
            if let Some(row) = all.get_mut(&(name.to_owned(), cluster.clone())) {
                count(row, member, &any);
            }
        }
    }
    let rows = all.into_iter().map(|((name, cluster), row)| PoolRow {
        name,
        cluster,
        ..row
    });
    rows.collect()
}

fn count(row: &mut PoolRow, member: &Member, any: &[&BTreeMap<String, String>]) {
    let inside = |node: &Node| {
        any.iter()
            .any(|labels| labels.iter().all(|(k, v)| node.labels.get(k) == Some(v)))
    };
    for node in member.nodes.values().filter(|n| inside(n)) {
        let Load {
            cpu,
            memory,
            instances,
        } = member.load(&node.name);
        let usable = node.ready && !node.cordoned;
        row.nodes = (row.nodes.0 + usize::from(usable), row.nodes.1 + 1);
        row.instances += instances;
        row.cpu = (row.cpu.0 + cpu, row.cpu.1 + node.cpu);
        row.memory = (row.memory.0 + memory, row.memory.1 + node.memory);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_api::PlacementPolicy;
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn nodes_are_counted_once_a_pool() {
        let mut member = Member::default();
        for (name, disk, ready) in [
            ("n1", "ssd", true),
            ("n2", "ssd", false),
            ("n3", "hdd", true),
        ] {
            member.put_node(Node {
                name: name.to_owned(),
                labels: BTreeMap::from([("disk".to_owned(), disk.to_owned())]),
                ready,
                cpu: 4000,
                ..Node::default()
            });
        }
        for (name, selector) in [("a", "ssd"), ("b", "ssd"), ("c", "hdd")] {
            let policy: PlacementPolicy = from_value(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy",
                "metadata": {"name": name}, "spec": {"pools": [{"name": "fast", "nodeSelector": {"disk": selector}}]}}))
            .unwrap();
            member.policies.insert(name.to_owned(), Arc::new(policy));
        }
        let mut state = State::default();
        state.members.insert("sh".to_owned(), member);
        let rows = pools(&state);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].nodes, rows[0].cpu), ((2, 3), (0, 12_000)));
        assert_eq!(rows[0].policies.len(), 3);
    }
}
