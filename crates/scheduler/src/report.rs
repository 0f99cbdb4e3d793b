//! What there is to say of one pod, in words and names: why it is where it is, or why it waits and what would help.

use crate::core::Cluster;
use crate::core::explain::{Change, Explanation, Scored};
use crate::core::object::Pod;
use crate::core::profile::RULES;
use serde::Serialize;
use std::collections::BTreeMap;

/// All that the rules say of a pod now.
#[derive(Serialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Where it is.
    pub node: Option<String>,
    /// Nodes that take it.
    pub feasible: usize,
    /// Nodes there are.
    pub nodes: usize,
    /// The best nodes, and its own.
    pub best: Vec<Row>,
    /// Why it fits nowhere, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What excludes how many nodes.
    pub excluded: Vec<Excluded>,
    /// Placement policies that select the pod, and what each says, the deciding first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Selecting>,
    /// What would let it fit, least first.
    pub changes: Vec<Advice>,
    /// Whose leaving would make room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemption: Option<Room>,
}

/// A node with its scores.
#[derive(Serialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The node.
    pub node: String,
    /// The sum.
    pub total: i64,
    /// By rule, weighted.
    pub scores: BTreeMap<&'static str, i64>,
    /// The same, in the order of the rules.
    #[serde(skip)]
    pub by_rule: Vec<i64>,
}

/// What excludes nodes.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// How many.
    pub nodes: usize,
    /// In kube-scheduler's words.
    pub reason: String,
}

/// A policy that selects a pod.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Selecting {
    /// Its name.
    pub name: String,
    /// What it says of the pod.
    pub says: Vec<&'static str>,
}

/// What would let a pod fit.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// In words.
    pub change: String,
    /// On how many nodes.
    pub nodes: usize,
    /// One of them.
    pub example: String,
}

/// Room that preemption would make.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The node.
    pub node: String,
    /// Pods that would leave it.
    pub victims: usize,
}

impl Report {
    /// Indexes of the rules that tell the shown nodes apart; of one node, all.
    #[must_use]
    pub fn telling(&self) -> Vec<usize> {
        let tells = |at: usize| {
            let mut scores = self.best.iter().map(|row| row.by_rule[at]);
            let first = scores.next();
            scores.any(|s| Some(s) != first)
        };
        (0..RULES.len())
            .filter(|at| self.best.len() == 1 || tells(*at))
            .collect()
    }
}

/// The name of a rule by its index.
#[must_use]
pub fn rule_name(at: usize) -> &'static str {
    RULES.get(at).map_or("", |rule| rule.plugin())
}

/// Says all that there is to say of a pod: for a placed one as if it were placed now. `most` nodes are shown.
///
/// # Errors
/// Why nothing can be said.
pub fn of_pod(cluster: &mut Cluster, pod: &Pod, most: usize) -> Result<Report, &'static str> {
    if pod.finished() {
        return Err("has ended: it is on no node and waits for none");
    }
    let explanation = if pod.node().is_some() {
        cluster
            .explain_placed(pod.uid())
            .ok_or("went away while the cluster was read")?
    } else {
        // Room may be held for the pod, after preemption.
        cluster.remove(pod.uid());
        let class = cluster.classify(pod);
        cluster.explain(class)
    };
    let mut report = report(cluster, pod, &explanation, most);
    let class = cluster.classify(pod);
    let policies = cluster.policies_of(class).into_iter();
    report.policies = policies
        .map(|(name, says)| Selecting {
            name: name.to_owned(),
            says,
        })
        .collect();
    Ok(report)
}

fn report(cluster: &Cluster, pod: &Pod, explanation: &Explanation, most: usize) -> Report {
    let node = pod.node().map(ToOwned::to_owned);
    let named = |row: &Scored| cluster.node_name(row.node).to_owned();
    let mut rows: Vec<&Scored> = explanation.feasible.iter().take(most).collect();
    let own = explanation
        .feasible
        .iter()
        .find(|row| Some(named(row)) == node);
    if let Some(own) = own.filter(|own| !rows.contains(own)) {
        rows.push(own);
    }
    let best = rows.into_iter().map(|row| Row {
        node: named(row),
        total: row.total,
        scores: RULES.iter().map(|r| r.plugin()).zip(row.by_rule).collect(),
        by_rule: row.by_rule.to_vec(),
    });
    let diagnosis = explanation.diagnosis.as_ref();
    let reasons = diagnosis.into_iter().flat_map(|d| &d.reasons);
    let mut excluded: Vec<Excluded> = reasons
        .map(|(reason, nodes)| Excluded {
            nodes: *nodes,
            reason: cluster.phrase(*reason),
        })
        .collect();
    excluded.sort_by(|a, b| b.nodes.cmp(&a.nodes).then_with(|| a.reason.cmp(&b.reason)));
    Report {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        node,
        feasible: explanation.feasible.len(),
        nodes: cluster.nodes.known,
        best: best.collect(),
        message: diagnosis.map(|d| d.message.clone()),
        excluded,
        policies: Vec::new(),
        changes: explanation
            .changes
            .iter()
            .map(|c| advice(cluster, c))
            .collect(),
        preemption: explanation.preemption.as_ref().map(|p| Room {
            node: cluster.node_name(p.node).to_owned(),
            victims: p.victims.len(),
        }),
    }
}

fn advice(cluster: &Cluster, change: &Change) -> Advice {
    let all: Vec<String> = change.obstacles.iter().map(|o| cluster.advice(o)).collect();
    Advice {
        change: all.join("; and "),
        nodes: change.nodes,
        example: cluster.node_name(change.node).to_owned(),
    }
}
