//! Why no node fits, in kube-scheduler's words. The only part of scheduling that looks at every node; it runs once
//! for all waiting pods of a class.

use super::class::ClassId;
use super::cluster::Cluster;
use super::decide::{Check, Neighbours};
use super::ranking::tolerates_unschedulable;
use super::symbols::Symbol;
use std::collections::BTreeMap;

/// Why a node does not take a pod. The order is that of kube-scheduler's filters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Reason {
    NodeUnschedulable,
    /// Not among the nodes that the pod names.
    NodeNotNamed,
    UntoleratedTaint,
    NodeAffinity,
    Ports,
    TooManyPods,
    InsufficientCpu,
    InsufficientMemory,
    InsufficientStorage,
    Insufficient(Symbol),
    SpreadLabel,
    Spread,
    Affinity,
    AntiAffinity,
    ExistingAntiAffinity,
    UnboundClaim,
    MissingClaim(Symbol),
}

/// All reasons, with the number of nodes that each rules out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    pub nodes: usize,
    pub reasons: BTreeMap<Reason, usize>,
    /// Nodes on which making room could not help.
    pub unresolvable: usize,
    /// As Kubernetes words it.
    pub message: String,
    /// The same without what preemption could not do either.
    pub summary: String,
}

impl Diagnosis {
    /// Whether a reason is among them.
    pub fn any(&self, test: impl Fn(&Reason) -> bool) -> bool {
        self.reasons.keys().any(test)
    }
}

impl Cluster {
    /// Says why no node takes the class.
    #[must_use]
    pub fn diagnose(&self, id: ClassId) -> Diagnosis {
        let class = &self.classes[id.0 as usize];
        let mut diagnosis = Diagnosis {
            nodes: self.nodes.known,
            ..Diagnosis::default()
        };
        for claim in &class.request.claims {
            match self.claim(*claim) {
                Some(true) => continue,
                Some(false) => diagnosis
                    .reasons
                    .insert(Reason::UnboundClaim, self.nodes.known),
                None => diagnosis
                    .reasons
                    .insert(Reason::MissingClaim(*claim), self.nodes.known),
            };
            diagnosis.unresolvable = self.nodes.known;
            self.word(&mut diagnosis);
            return diagnosis;
        }
        let check = Check::new(self, id);
        for node in 0..self.nodes.slots() {
            if self.nodes.all[node].known {
                let resolvable = self.reject(&check, id, node, &mut |reason| {
                    *diagnosis.reasons.entry(reason).or_default() += 1;
                });
                diagnosis.unresolvable += usize::from(!resolvable);
            }
        }
        self.word(&mut diagnosis);
        diagnosis
    }

    /// Reports why one node is ruled out: the reasons of the first filter that does. Returns whether removing other
    /// pods from the node could help.
    pub(super) fn reject(
        &self,
        check: &Check<'_>,
        id: ClassId,
        at: usize,
        report: &mut dyn FnMut(Reason),
    ) -> bool {
        let class = &self.classes[id.0 as usize];
        let request = &class.request;
        let placement = &self.placements[class.placement as usize];
        let (node, room) = (&self.nodes.all[at], &self.nodes.rooms[at]);
        let slot = u32::try_from(at).unwrap_or(u32::MAX);
        if placement
            .pins
            .as_ref()
            .is_some_and(|pins| !pins.contains(&node.name))
        {
            report(Reason::NodeNotNamed);
            return false;
        }
        if node.unschedulable && !tolerates_unschedulable(&placement.key, &self.compiler) {
            report(Reason::NodeUnschedulable);
            return false;
        }
        if !placement.key.tolerates(&node.taints) {
            report(Reason::UntoleratedTaint);
            return false;
        }
        if !placement
            .key
            .selects(node.name, &node.labels, &self.compiler.symbols)
        {
            report(Reason::NodeAffinity);
            return false;
        }
        if !self.nodes.ports_free(slot, &request.ports) {
            report(Reason::Ports);
            return true;
        }
        let mut fits = true;
        let mut possible = true;
        let mut insufficient = |lacking: bool, never: bool, reason: Reason| {
            if lacking {
                report(reason);
                fits = false;
                possible &= !never;
            }
        };
        let (want, all, used) = (&request.shape.base, &room.allocatable, &room.used);
        insufficient(room.pods >= room.max_pods, false, Reason::TooManyPods);
        for (want, all, used, reason) in [
            (want.cpu, all.cpu, used.cpu, Reason::InsufficientCpu),
            (
                want.memory,
                all.memory,
                used.memory,
                Reason::InsufficientMemory,
            ),
            (
                want.storage,
                all.storage,
                used.storage,
                Reason::InsufficientStorage,
            ),
        ] {
            insufficient(want > 0 && want > all - used, want > all, reason);
        }
        for (name, want) in &request.shape.other {
            let (_, all, used) = node
                .other
                .iter()
                .find(|(n, ..)| n == name)
                .copied()
                .unwrap_or((*name, 0, 0));
            insufficient(*want > all - used, *want > all, Reason::Insufficient(*name));
        }
        if !fits {
            return possible;
        }
        match check.neighbours_reject(slot) {
            Some(Neighbours::SpreadLabel) => report(Reason::SpreadLabel),
            Some(Neighbours::Spread) => report(Reason::Spread),
            Some(Neighbours::Affinity) => report(Reason::Affinity),
            Some(Neighbours::AntiAffinity) => report(Reason::AntiAffinity),
            Some(Neighbours::ExistingAntiAffinity) => report(Reason::ExistingAntiAffinity),
            None => return true,
        }
        !matches!(
            check.neighbours_reject(slot),
            Some(Neighbours::SpreadLabel | Neighbours::Affinity)
        )
    }

    /// Whether one node takes the class right now; for tests and explanations, one node at a time.
    #[must_use]
    pub fn feasible(&self, id: ClassId, node: super::nodes::NodeId) -> bool {
        let check = Check::new(self, id);
        let claims = self.classes[id.0 as usize]
            .request
            .claims
            .iter()
            .all(|c| self.claim(*c) == Some(true));
        let mut rejected = !claims || !self.nodes.all[node.0 as usize].known;
        self.reject(&check, id, node.0 as usize, &mut |_| rejected = true);
        !rejected
    }

    fn word(&self, diagnosis: &mut Diagnosis) {
        let total = diagnosis.nodes;
        if total == 0 {
            diagnosis.summary = "no nodes available to schedule pods".to_owned();
            diagnosis.message.clone_from(&diagnosis.summary);
            return;
        }
        let claim = diagnosis
            .reasons
            .keys()
            .find(|r| matches!(r, Reason::UnboundClaim | Reason::MissingClaim(_)));
        let why = if let Some(claim) = claim {
            self.phrase(*claim)
        } else {
            // Kubernetes sorts the phrases with their counts, as text.
            let mut phrases: Vec<String> = diagnosis
                .reasons
                .iter()
                .map(|(reason, count)| format!("{count} {}", self.phrase(*reason)))
                .collect();
            phrases.sort_unstable();
            phrases.join(", ")
        };
        diagnosis.summary = format!("0/{total} nodes are available: {why}.");
        let helpful = total - diagnosis.unresolvable.min(total);
        let mut verdicts = Vec::new();
        if helpful > 0 {
            verdicts.push(format!(
                "{helpful} No preemption victims found for incoming pod"
            ));
        }
        if diagnosis.unresolvable > 0 {
            verdicts.push(format!(
                "{} Preemption is not helpful for scheduling",
                diagnosis.unresolvable
            ));
        }
        verdicts.sort_unstable();
        diagnosis.message = format!(
            "{} preemption: 0/{total} nodes are available: {}.",
            diagnosis.summary,
            verdicts.join(", ")
        );
    }

    fn phrase(&self, reason: Reason) -> String {
        match reason {
            Reason::NodeUnschedulable => "node(s) were unschedulable".into(),
            Reason::NodeNotNamed => "node(s) didn't satisfy plugin(s) [NodeAffinity]".into(),
            Reason::UntoleratedTaint => "node(s) had untolerated taint(s)".into(),
            Reason::NodeAffinity => "node(s) didn't match Pod's node affinity/selector".into(),
            Reason::Ports => "node(s) didn't have free ports for the requested pod ports".into(),
            Reason::TooManyPods => "Too many pods".into(),
            Reason::InsufficientCpu => "Insufficient cpu".into(),
            Reason::InsufficientMemory => "Insufficient memory".into(),
            Reason::InsufficientStorage => "Insufficient ephemeral-storage".into(),
            Reason::Insufficient(name) => {
                format!("Insufficient {}", self.compiler.symbols.text(name))
            }
            Reason::SpreadLabel => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
                    .into()
            }
            Reason::Spread => "node(s) didn't match pod topology spread constraints".into(),
            Reason::Affinity => "node(s) didn't match pod affinity rules".into(),
            Reason::AntiAffinity => "node(s) didn't match pod anti-affinity rules".into(),
            Reason::ExistingAntiAffinity => {
                "node(s) didn't satisfy existing pods anti-affinity rules".into()
            }
            Reason::UnboundClaim => "pod has unbound immediate PersistentVolumeClaims".into(),
            Reason::MissingClaim(claim) => {
                let name = self
                    .compiler
                    .symbols
                    .text(claim)
                    .rsplit('/')
                    .next()
                    .unwrap_or_default();
                format!("persistentvolumeclaim \"{name}\" not found")
            }
        }
    }
}
