//! Why no node fits, in kube-scheduler's words. The only part of scheduling that looks at every node; it runs once
//! for all waiting pods of a class.

use super::class::ClassId;
use super::cluster::Cluster;
use super::decide::{Check, Neighbours};
use super::devices;
use super::load::MEASURED;
use super::numa::Misfit;
use super::policy::Refusal;
use super::quota::Verdict;
use super::ranking::tolerates_unschedulable;
use super::request::Features;
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
    /// Not what the profile adds to every pod's node affinity.
    AddedAffinity,
    /// A placement policy sends the pod elsewhere, or keeps the node for others.
    Policy(Symbol),
    SetApart(Symbol),
    /// The quota of the node's pool, by its index, has no place of a resource.
    PoolQuota(u32, Symbol),
    Ports,
    TooManyPods,
    InsufficientCpu,
    InsufficientMemory,
    InsufficientStorage,
    Insufficient(Symbol),
    /// Another pod there uses a disk that cannot be shared.
    DiskInUse,
    /// Another pod uses a claim that is for one pod only.
    ExclusiveClaim,
    VolumeLimit,
    VolumeAffinity,
    NoVolumeToBind,
    NoStorage,
    VolumeZone,
    /// The node would use too much of a resource, by its place in [`MEASURED`].
    Hot(usize),
    /// What its kubelet could not align to one NUMA node.
    Numa(Misfit),
    SpreadLabel,
    Spread,
    Affinity,
    AntiAffinity,
    ExistingAntiAffinity,
    /// Claims to devices that cannot be served there.
    Devices(devices::Misfit),
    /// The node has not declared that it can do what the pod needs.
    Undeclared(Features),
    // The rest holds for all nodes at once.
    UnboundClaim,
    MissingClaim(Symbol),
    /// The claim of a generic ephemeral volume is not there yet, or is not the pod's.
    EphemeralClaim(Symbol),
    ForeignClaim(Symbol),
    LostClaim(Symbol, Option<Symbol>),
    LeavingClaim(Symbol),
    MissingVolume(Symbol),
    /// What is wrong with the pod's claims to devices: a message by its number.
    DevicesBlocked(u32),
    /// A quota, by its index, would pass its maximum of a resource; or has nothing left to borrow.
    OverQuota(u32, Symbol),
    NothingToBorrow(u32, Symbol),
    /// The pod's group is not there; or so many of its members are there, of so many that it needs.
    NoPodGroup(Symbol),
    GangIncomplete(Symbol, u32, u32),
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Elsewhere(policy) => Self::Policy(policy),
            Refusal::SetApart(policy) => Self::SetApart(policy),
        }
    }
}

impl Reason {
    /// Whether it says something of the pod, and not of single nodes.
    #[must_use]
    pub const fn of_all(self) -> bool {
        matches!(
            self,
            Self::UnboundClaim
                | Self::MissingClaim(_)
                | Self::EphemeralClaim(_)
                | Self::ForeignClaim(_)
                | Self::LostClaim(..)
                | Self::LeavingClaim(_)
                | Self::MissingVolume(_)
                | Self::DevicesBlocked(_)
                | Self::OverQuota(..)
                | Self::NothingToBorrow(..)
                | Self::NoPodGroup(_)
                | Self::GangIncomplete(..)
        )
    }
}

/// All reasons, with the number of nodes that each rules out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    pub nodes: usize,
    pub reasons: BTreeMap<Reason, usize>,
    /// Nodes on which making room could not help.
    pub unresolvable: usize,
    /// No node takes the pod. Asked about a pod that does fit, a diagnosis is not wrong, but speaks of the others.
    pub nobody: bool,
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

    /// The same, with another word on preemption.
    #[must_use]
    pub fn with_verdict(mut self, verdict: &str) -> Self {
        self.message = format!("{} preemption: {verdict}", self.summary);
        self
    }
}

impl Cluster {
    /// Says that something is in the way that has nothing to do with nodes.
    pub(super) fn diagnosis_of_all(&self, id: ClassId, reason: Reason) -> Diagnosis {
        let mut diagnosis = Diagnosis {
            nodes: self.nodes.known,
            unresolvable: self.nodes.known,
            nobody: true,
            ..Diagnosis::default()
        };
        diagnosis.reasons.insert(reason, self.nodes.known);
        self.word(id, &mut diagnosis);
        diagnosis
    }

    /// Says why no node takes the class.
    #[must_use]
    pub fn diagnose(&self, id: ClassId) -> Diagnosis {
        let mut diagnosis = Diagnosis {
            nodes: self.nodes.known,
            nobody: true,
            ..Diagnosis::default()
        };
        let check = Check::new(self, id);
        let quota = || self.quota_refusal(id);
        if let Some(reason) = check.blocked().or_else(quota) {
            diagnosis.reasons.insert(reason, self.nodes.known);
            let full = matches!(reason, Reason::OverQuota(..) | Reason::NothingToBorrow(..));
            if !full || self.yielding_quotas(id).is_empty() {
                diagnosis.unresolvable = self.nodes.known;
            }
            self.word(id, &mut diagnosis);
            return diagnosis;
        }
        for node in 0..self.nodes.slots() {
            if self.nodes.all[node].known {
                let mut refused = false;
                let resolvable = self.reject(&check, id, node, &mut |reason| {
                    *diagnosis.reasons.entry(reason).or_default() += 1;
                    refused = true;
                });
                diagnosis.nobody &= refused;
                diagnosis.unresolvable += usize::from(!resolvable);
            }
        }
        self.word(id, &mut diagnosis);
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
        if !placement
            .key
            .added_selects(node.name, &node.labels, &self.compiler.symbols)
        {
            report(Reason::AddedAffinity);
            return false;
        }
        let refused = placement
            .key
            .refused(node.name, &node.labels, &self.compiler.symbols);
        if let Some(refusal) = refused {
            report(refusal.into());
            return false;
        }
        if let Some(reason) = self.quota_refusal_at(class, super::nodes::NodeId(slot)) {
            report(reason);
            return self.yields_at(id, super::nodes::NodeId(slot));
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
            if !self.nodes.delegates(*name, all) {
                insufficient(*want > all - used, *want > all, Reason::Insufficient(*name));
            }
        }
        if !fits {
            return possible;
        }
        if let Some(resource) = check.too_hot(slot) {
            // What a pod that leaves has used shows only later.
            report(Reason::Hot(resource));
            return false;
        }
        if let Some(reason) = check.volumes_reject(slot) {
            report(reason);
            return matches!(
                reason,
                Reason::DiskInUse | Reason::ExclusiveClaim | Reason::VolumeLimit
            );
        }
        if let Some(misfit) = check.misfit(slot) {
            report(Reason::Numa(misfit));
            return !matches!(misfit, Misfit::Unaligned | Misfit::Cores);
        }
        if let Some(neighbours) = check.neighbours_reject(slot) {
            report(neighbours.reason());
            return !matches!(neighbours, Neighbours::SpreadLabel | Neighbours::Affinity);
        }
        if let Some(reason) = check.devices_reject(slot) {
            // A pod that leaves keeps its devices until its claims say otherwise.
            report(reason);
            return false;
        }
        let undeclared = placement.key.features.without(node.features);
        if !undeclared.is_empty() {
            report(Reason::Undeclared(undeclared));
            return false;
        }
        true
    }

    /// Whether one node takes the class right now; for tests and explanations, one node at a time.
    #[must_use]
    pub fn feasible(&self, id: ClassId, node: super::nodes::NodeId) -> bool {
        let check = Check::new(self, id);
        let mut rejected = check.blocked().is_some()
            || self.quota_refusal(id).is_some()
            || !self.nodes.all[node.0 as usize].known;
        self.reject(&check, id, node.0 as usize, &mut |_| rejected = true);
        !rejected
    }

    fn word(&self, id: ClassId, diagnosis: &mut Diagnosis) {
        let total = diagnosis.nodes;
        if total == 0 {
            diagnosis.summary = "no nodes available to schedule pods".to_owned();
            diagnosis.message.clone_from(&diagnosis.summary);
            return;
        }
        let of_all = diagnosis.reasons.keys().find(|r| r.of_all());
        let why = if let Some(reason) = of_all {
            self.phrase(*reason)
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
        if !self.rules(id).profile.preemption {
            diagnosis.message.clone_from(&diagnosis.summary);
            return;
        }
        if !self.classes[id.0 as usize].request.preempts {
            let verdict = "preemption: not eligible due to preemptionPolicy=Never.";
            diagnosis.message = format!("{} {verdict}", diagnosis.summary);
            return;
        }
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

    /// A reason in kube-scheduler's words.
    #[must_use]
    pub fn phrase(&self, reason: Reason) -> String {
        // A claim's key is `namespace/name`; messages give the name alone.
        let name = |key: Symbol| {
            let text = self.compiler.symbols.text(key);
            text.rsplit('/').next().unwrap_or_default()
        };
        match reason {
            Reason::NodeUnschedulable => "node(s) were unschedulable".into(),
            Reason::NodeNotNamed => "node(s) didn't satisfy plugin(s) [NodeAffinity]".into(),
            Reason::UntoleratedTaint => "node(s) had untolerated taint(s)".into(),
            Reason::NodeAffinity => "node(s) didn't match Pod's node affinity/selector".into(),
            Reason::AddedAffinity => "node(s) didn't match scheduler-enforced node affinity".into(),
            Reason::Policy(policy) => format!(
                "node(s) didn't match placement policy {}",
                self.compiler.symbols.text(policy)
            ),
            Reason::SetApart(policy) => format!(
                "node(s) were set apart by placement policy {}",
                self.compiler.symbols.text(policy)
            ),
            Reason::DiskInUse => "node(s) had no available disk".into(),
            Reason::Undeclared(features) => format!(
                "node declared features check failed - unsatisfied requirements: {}",
                features.names()
            ),
            Reason::ExclusiveClaim => {
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
                 access mode"
                    .into()
            }
            Reason::VolumeLimit => "node(s) exceed max volume count".into(),
            Reason::VolumeAffinity => {
                "node(s) didn't match PersistentVolume's node affinity".into()
            }
            Reason::NoVolumeToBind => {
                "node(s) didn't find available persistent volumes to bind".into()
            }
            Reason::NoStorage => "node(s) did not have enough free storage".into(),
            Reason::VolumeZone => "node(s) had no available volume zone".into(),
            Reason::Ports => "node(s) didn't have free ports for the requested pod ports".into(),
            Reason::TooManyPods => "Too many pods".into(),
            Reason::InsufficientCpu => "Insufficient cpu".into(),
            Reason::InsufficientMemory => "Insufficient memory".into(),
            Reason::InsufficientStorage => "Insufficient ephemeral-storage".into(),
            Reason::Insufficient(name) => {
                format!("Insufficient {}", self.compiler.symbols.text(name))
            }
            // Koordinator's words.
            Reason::Numa(Misfit::Unaligned) => {
                "node(s) didn't align pods to a single NUMA node".into()
            }
            Reason::Numa(Misfit::Container) => {
                "node(s) cannot align container to a single NUMA node".into()
            }
            Reason::Numa(Misfit::Pod) => "node(s) cannot align pod to a single NUMA node".into(),
            Reason::Numa(Misfit::RestrictedContainer) => {
                "node(s) cannot align container to the fewest NUMA nodes".into()
            }
            Reason::Numa(Misfit::RestrictedPod) => {
                "node(s) cannot align pod to the fewest NUMA nodes".into()
            }
            Reason::Numa(Misfit::Cores) => {
                "node(s) requested cpus not multiple cpus per core".into()
            }
            Reason::Hot(resource) => {
                format!("node(s) {} usage exceed threshold", MEASURED[resource])
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
                format!("persistentvolumeclaim \"{}\" not found", name(claim))
            }
            Reason::EphemeralClaim(claim) => format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{}\"",
                name(claim)
            ),
            Reason::ForeignClaim(claim) => format!(
                "PVC {} was not created for pod (pod is not owner)",
                self.compiler.symbols.text(claim)
            ),
            Reason::LostClaim(claim, volume) => format!(
                "persistentvolumeclaim \"{}\" bound to non-existent persistentvolume \"{}\"",
                name(claim),
                volume.map_or("", |v| self.compiler.symbols.text(v))
            ),
            Reason::LeavingClaim(claim) => {
                format!("persistentvolumeclaim \"{}\" is being deleted", name(claim))
            }
            Reason::MissingVolume(volume) => format!(
                "persistentvolume \"{}\" not found",
                self.compiler.symbols.text(volume)
            ),
            Reason::OverQuota(quota, resource) => {
                let verdict = Verdict::Over(quota, resource);
                self.quotas.word(verdict, &self.compiler.symbols)
            }
            Reason::NothingToBorrow(quota, resource) => {
                let verdict = Verdict::NothingToBorrow(quota, resource);
                self.quotas.word(verdict, &self.compiler.symbols)
            }
            Reason::PoolQuota(quota, resource) => format!(
                "node(s) in a pool where quota {} has no more {}",
                self.compiler.symbols.text(self.quotas.name(quota)),
                self.compiler.symbols.text(resource)
            ),
            Reason::NoPodGroup(name) => {
                format!("pod group {} not found", self.compiler.symbols.text(name))
            }
            Reason::GangIncomplete(name, there, min) => format!(
                "pod group {} waits for members: {there} of at least {min} are there",
                self.compiler.symbols.text(name)
            ),
            Reason::Devices(devices::Misfit::Elsewhere) => {
                "resourceclaim not available on the node".into()
            }
            Reason::Devices(devices::Misfit::None) => "cannot allocate all claims".into(),
            Reason::Devices(devices::Misfit::Error(word)) | Reason::DevicesBlocked(word) => {
                self.devices.text(word)
            }
        }
    }
}
