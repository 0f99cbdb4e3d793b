//! Nodes: rows, and the map of all of them.

use serde::Serialize;

use super::{Listing, Params, matches, order, words};
use crate::model::{Load, Member, Node, State, machines::Loads};

/// A node as a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// The member.
    pub cluster: String,
    /// The node.
    #[serde(flatten)]
    pub node: Node,
    /// What instances ask of it.
    pub load: Load,
}

/// A node's state, for colour, shape and word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Mark {
    /// Not Ready.
    NotReady,
    /// Ready, with a condition that warns.
    Problem,
    /// Closed to new pods.
    Cordoned,
    /// Ready; of its CPU or memory, whichever is scarcer, this share is asked for: in fifths, 0 is none.
    Load(u8),
}

/// What the map's colours tell, beside what is wrong with a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// What instances ask for.
    #[default]
    Requests,
    /// What is really used.
    Load,
    /// Only what is wrong.
    Problems,
}

impl By {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Load, Self::Problems];

    /// Its name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "",
            Self::Load => "load",
            Self::Problems => "problems",
        }
    }

    /// By its name; what is unknown is the default.
    pub fn named(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|b| b.name() == name);
        found.unwrap_or_default()
    }
}

/// The greater share of two, CPU's and memory's, in fifths rounded up.
fn fifths((cpu, memory): (i64, i64), node: &Node) -> u8 {
    let share = |part: i64, has: i64| {
        if has > 0 {
            part.max(0) as f64 / has as f64
        } else {
            0.0
        }
    };
    let share = share(cpu, node.cpu).max(share(memory, node.memory));
    (share * 5.0).ceil().clamp(1.0, 5.0) as u8
}

impl Mark {
    /// What is wrong with a node, if something is.
    fn wrong(node: &Node) -> Option<Self> {
        if !node.ready {
            Some(Self::NotReady)
        } else if !node.problems.is_empty() {
            Some(Self::Problem)
        } else {
            node.cordoned.then_some(Self::Cordoned)
        }
    }

    /// Of a node, by what is asked of it.
    pub fn of(node: &Node, load: Load) -> Self {
        Self::wrong(node).unwrap_or(Self::Load(if load.instances == 0 {
            0
        } else {
            fifths((load.cpu, load.memory), node)
        }))
    }

    /// Of a node, by what is used of it; of what was not measured nothing is.
    fn used(node: &Node, used: Option<(i64, i64)>) -> Self {
        let load = used.map_or(0, |used| fifths(used, node));
        Self::wrong(node).unwrap_or(Self::Load(load))
    }

    /// Its class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Self::NotReady => "k-bad",
            Self::Problem => "k-warn",
            Self::Cordoned => "k-shut",
            Self::Load(0) => "k-0",
            Self::Load(1) => "k-1",
            Self::Load(2) => "k-2",
            Self::Load(3) => "k-3",
            Self::Load(4) => "k-4",
            Self::Load(_) => "k-5",
        }
    }
}

/// The nodes of one cell, in the order of their names.
#[derive(Clone, Debug, PartialEq)]
pub struct CellMap {
    /// The member.
    pub cluster: String,
    /// The cell; empty for nodes of none.
    pub cell: String,
    /// One mark a node.
    pub marks: Vec<Mark>,
}

/// The map of all nodes, cell by cell. `loads` is what they use, for the map by load.
pub fn map(state: &State, by: By, loads: &Loads) -> Vec<CellMap> {
    let mut all = Vec::new();
    for (cluster, member) in &state.members {
        let used = loads.get(cluster);
        let mark = |node: &Node| match by {
            By::Requests => Mark::of(node, member.load(&node.name)),
            By::Load => Mark::used(node, used.and_then(|m| m.get(&node.name)).copied()),
            By::Problems => Mark::wrong(node).unwrap_or(Mark::Load(0)),
        };
        for (cell, names) in &member.by_cell {
            let marks = names.iter().filter_map(|n| member.nodes.get(n));
            all.push(CellMap {
                cluster: cluster.clone(),
                cell: cell.clone(),
                marks: marks.map(|n| mark(n)).collect(),
            });
        }
    }
    all
}

/// The node at a place of the map.
pub fn at(state: &State, cluster: &str, cell: &str, index: usize) -> Option<NodeRow> {
    let member = state.members.get(cluster)?;
    let name = member.by_cell.get(cell)?.iter().nth(index)?;
    one(state, cluster, name)
}

/// One node.
pub fn one(state: &State, cluster: &str, name: &str) -> Option<NodeRow> {
    let member = state.members.get(cluster)?;
    Some(row(cluster, member, member.nodes.get(name)?))
}

fn row(cluster: &str, member: &Member, node: &Node) -> NodeRow {
    NodeRow {
        cluster: cluster.to_owned(),
        load: member.load(&node.name),
        node: node.clone(),
    }
}

/// Nodes by `cluster`, `cell`, `state` (`notready`, `cordoned`, `problem`) and `q`, sorted by `sort`.
pub fn nodes(state: &State, params: &Params) -> Listing<NodeRow> {
    let (cluster, cell) = (params.get("cluster"), params.get("cell"));
    let (only, q) = (params.get("state"), words(params.get("q")));
    let mut found: Vec<(&str, &Member, &Node)> = Vec::new();
    for (name, member) in state
        .members
        .iter()
        .filter(|(n, _)| cluster.is_empty() || *n == cluster)
    {
        for node in member.nodes.values().map(AsRef::as_ref) {
            let fits = match only {
                "notready" => !node.ready,
                "cordoned" => node.cordoned,
                "problem" => !node.problems.is_empty(),
                _ => true,
            };
            if fits
                && (cell.is_empty() || node.cell == cell)
                && (q.is_empty() || matches(&q, &[&node.name, &node.cell, name]))
            {
                found.push((name, member, node));
            }
        }
    }
    let share = |asked: i64, has: i64| (asked * 10_000).checked_div(has).unwrap_or(0);
    let (by, down) = order(params);
    match by {
        "cpu" => found.sort_by_cached_key(|(_, m, n)| share(m.load(&n.name).cpu, n.cpu)),
        "memory" => found.sort_by_cached_key(|(_, m, n)| share(m.load(&n.name).memory, n.memory)),
        "instances" => found.sort_by_cached_key(|(_, m, n)| m.load(&n.name).instances),
        "state" => found.sort_by_cached_key(|(_, m, n)| Mark::of(n, m.load(&n.name))),
        "age" => found.sort_by_key(|(_, _, n)| std::cmp::Reverse(n.created)),
        "cell" => found.sort_by(|a, b| a.2.cell.cmp(&b.2.cell)),
        _ => {}
    }
    if down {
        found.reverse();
    }
    Listing::cut(found, params, |(cluster, member, node)| {
        row(cluster, member, node)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let node = Node {
            ready: true,
            cpu: 1000,
            memory: 1000,
            ..Node::default()
        };
        let load = |cpu, memory, instances| Load {
            cpu,
            memory,
            instances,
        };
        for (node, load, want) in [
            (node.clone(), load(0, 0, 0), Mark::Load(0)),
            (node.clone(), load(1, 0, 1), Mark::Load(1)),
            (node.clone(), load(100, 500, 1), Mark::Load(3)),
            (node.clone(), load(5000, 0, 1), Mark::Load(5)),
            (
                Node {
                    cordoned: true,
                    ..node.clone()
                },
                load(1, 0, 1),
                Mark::Cordoned,
            ),
            (
                Node {
                    ready: false,
                    cordoned: true,
                    ..node.clone()
                },
                load(1, 0, 1),
                Mark::NotReady,
            ),
        ] {
            assert_eq!(Mark::of(&node, load), want);
        }
        assert_eq!(Mark::used(&node, Some((100, 900))), Mark::Load(5));
        assert_eq!(Mark::used(&node, None), Mark::Load(0));
        assert_eq!(By::ALL.map(|b| By::named(b.name())), By::ALL);
    }
}
