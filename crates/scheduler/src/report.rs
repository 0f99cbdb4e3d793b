//! What there is to say of one pod, in words and names: why it is where it is, or why it waits and what would help.

use crate::core::Cluster;
use crate::core::explain::{Change, Explanation, Obstacle, Scored};
use crate::core::gang::GangId;
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
    /// Why it is not even tried, or waits though a node was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
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

/// What holds a pod whatever nodes there are.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// In words.
    pub reason: String,
    /// What would have to change, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
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
    /// Pods that would leave.
    pub victims: usize,
    /// How many of them other nodes, because of a full quota.
    pub elsewhere: usize,
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

/// Says all that there is to say of a pod: for a placed one as if it were placed now. `waiting` are the pods without a
/// node, among which those of its group are looked for. `most` nodes are shown.
///
/// # Errors
/// Why nothing can be said.
pub fn of_pod(
    cluster: &mut Cluster,
    pod: &Pod,
    waiting: &[Pod],
    most: usize,
) -> Result<Report, &'static str> {
    if pod.finished() {
        return Err("has ended: it is on no node and waits for none");
    }
    let mut held = None;
    let explanation = if pod.node().is_some() {
        cluster
            .explain_placed(pod.uid())
            .ok_or("went away while the cluster was read")?
    } else {
        // Room may be held for the pod, after preemption.
        cluster.remove(pod.uid());
        let class = cluster.classify(pod);
        held = of_itself(cluster, pod);
        let mut refused = None;
        if held.is_none()
            && let Some(gang) = cluster.gang_of(class)
        {
            (held, refused) = of_gang(cluster, pod, gang, waiting);
        }
        match refused {
            Some(explanation) => explanation,
            None => cluster.explain(class),
        }
    };
    let mut report = report(cluster, pod, &explanation, most);
    report.held = held.or_else(|| named(pod));
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

/// What of the pod itself keeps schedulers from trying it.
fn of_itself(cluster: &Cluster, pod: &Pod) -> Option<Held> {
    if pod.metadata.deletion_timestamp.is_some() {
        let reason = "it is being deleted".to_owned();
        let change = None;
        return Some(Held { reason, change });
    }
    let gates = pod.spec.scheduling_gates.iter();
    let gates: Vec<&str> = gates.map(|gate| gate.name.as_str()).collect();
    if !gates.is_empty() {
        let gates = gates.join(", ");
        return Some(Held {
            reason: format!("no scheduler may try it while it has scheduling gates: {gates}"),
            change: Some(format!("have the gates removed by who set them: {gates}")),
        });
    }
    let name = pod.scheduler_name();
    let mut profiles = cluster.profiles.iter();
    let known = profiles.any(|rules| rules.profile.scheduler_name == name);
    (!known).then(|| Held {
        reason: format!("scheduler {name} has to place it, and no profile read here is its"),
        change: Some(format!(
            "run a scheduler that goes by {name}, or leave out the pod's schedulerName"
        )),
    })
}

/// A node was found already. It is not told which: names of nodes are not for everybody who may read this.
fn named(pod: &Pod) -> Option<Held> {
    let node = pod
        .status
        .nominated_node_name
        .as_deref()
        .unwrap_or_default();
    (!node.is_empty() && pod.node().is_none()).then(|| Held {
        reason: "a node is named for it (status.nominatedNodeName): pods have to leave, or volumes and devices to be \
                 made ready, before it is bound"
            .to_owned(),
        change: None,
    })
}

/// What of its group keeps the pod from being placed; and why the first member that fits nowhere does not.
fn of_gang(
    cluster: &mut Cluster,
    pod: &Pod,
    id: GangId,
    waiting: &[Pod],
) -> (Option<Held>, Option<Explanation>) {
    let mut members = Vec::new();
    for other in waiting {
        let tried = other.spec.scheduling_gates.is_empty()
            && other.metadata.deletion_timestamp.is_none()
            && other.namespace() == pod.namespace();
        if !tried {
            continue;
        }
        let class = cluster.classify(other);
        if cluster.gang_of(class) == Some(id) {
            cluster.remove(other.uid());
            members.push((other.uid().into(), class));
        }
    }
    let class = cluster.classify(pod);
    if let Some(diagnosis) = cluster.gang_incomplete(class, id, members.len()) {
        let reason = diagnosis.reasons.keys().next().copied();
        let held = reason.map(|reason| Held {
            reason: cluster.phrase(reason),
            change: Some(cluster.advice(&Obstacle::Other(reason))),
        });
        return (held, None);
    }
    let gang = cluster.explain_gang(id, &members);
    if gang.fit >= gang.need {
        return (None, None);
    }
    let held = Held {
        reason: format!(
            "its pod group needs {} members placed together, and {} fit: what follows is of the next",
            gang.need, gang.fit
        ),
        change: None,
    };
    (Some(held), gang.refused)
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
        held: None,
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
            elsewhere: {
                let placed = p.victims.iter().filter_map(|uid| cluster.placed(uid));
                placed.filter(|placed| placed.node != p.node).count()
            },
        }),
    }
}

fn advice(cluster: &Cluster, change: &Change) -> Advice {
    let all: Vec<String> = change.obstacles.iter().map(|o| cluster.advice(o)).collect();
    let mut text = all.join("; and ");
    let is_short = |o: &Obstacle| matches!(o, Obstacle::Short { .. });
    let reserved: Vec<&str> = cluster.holding(change.node).collect();
    if change.obstacles.iter().any(is_short) && !reserved.is_empty() {
        let holding = format!(" (reservation {} holds room there)", reserved.join(", "));
        text.push_str(&holding);
    }
    Advice {
        change: text,
        nodes: change.nodes,
        example: cluster.node_name(change.node).to_owned(),
    }
}

#[cfg(test)]
mod tests;
