//! Volumes: claims, persistent volumes, storage classes, and how many volumes each node can attach.
//!
//! A pod's claims are bound (then its volume says which nodes can reach it), are bound late (then the scheduler
//! chooses a volume or has one made near the node that it chose), or hold the pod back. What was chosen for a decided
//! pod is *assumed* here until the API shows it, so that no volume is given away twice.

use super::diagnosis::Reason;
use super::object;
use super::request::ClaimUse;
use super::selector::{NodeTerm, Selector};
use super::symbols::{Labels, Symbol, Symbols};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

mod compile;
mod disks;
mod needs;

use compile::bytes;
pub use disks::Disk;
pub use needs::Needs;

/// Annotation of a claim that has been bound for good.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of a claim with the node that its volume is to be made for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The class names that an annotation may still give.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// A class with it has volumes made by hand only.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const EXCLUSIVE: &str = "ReadWriteOncePod";
/// Labels by which volumes may say where they are, with what replaces them on nodes.
const ZONES: [(&str, &str); 4] = [
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    (
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
];

/// A claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub uid: Arc<str>,
    /// Named by the claim; whether the two are bound for good says `bound`.
    volume: Option<Symbol>,
    bound: bool,
    lost: bool,
    leaving: bool,
    class: Option<Symbol>,
    selected: Option<Symbol>,
    exclusive: bool,
    modes: Vec<String>,
    block: bool,
    size: i64,
    /// VolumeAttributesClass: a volume that is found must have the same.
    attributes: Option<Symbol>,
    selector: Option<Selector>,
    owner: Option<Arc<str>>,
}

/// A persistent volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// The claim it is bound to or reserved for, and the claim's uid if it is bound.
    claim: Option<(Symbol, Option<Arc<str>>)>,
    class: Option<Symbol>,
    modes: Vec<String>,
    block: bool,
    capacity: i64,
    attributes: Option<Symbol>,
    labels: Labels,
    affinity: Option<Vec<NodeTerm>>,
    zones: Vec<(Symbol, Symbol, Vec<Symbol>)>,
    attaches: Option<(Symbol, Symbol)>,
    available: bool,
    leaving: bool,
}

/// A storage class.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageClass {
    provisioner: Symbol,
    /// Who attaches volumes that are made: the provisioner, or the driver that does its work.
    driver: Symbol,
    /// Volumes can be made.
    provisions: bool,
    delayed: bool,
    /// Terms of (label, values) of which one must hold for the node; none means anywhere.
    topologies: Vec<Vec<(Symbol, Vec<Symbol>)>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Capacity {
    class: Symbol,
    nodes: Option<Selector>,
    limit: i64,
}

/// All that is known of volumes.
#[derive(Default)]
pub struct Volumes {
    claims: FxHashMap<Symbol, Claim>,
    volumes: FxHashMap<Symbol, Volume>,
    by_class: FxHashMap<Option<Symbol>, Vec<Symbol>>,
    classes: FxHashMap<Symbol, StorageClass>,
    /// By node name: driver, how many.
    limits: FxHashMap<Symbol, Vec<(Symbol, usize)>>,
    /// Drivers that tell their capacity.
    tell: FxHashMap<Symbol, ()>,
    capacities: BTreeMap<(String, String), Capacity>,
    /// Volumes given to claims of decided pods, and nodes chosen for claims, not yet seen in the API.
    assumed_volumes: FxHashMap<Symbol, Symbol>,
    assumed_nodes: FxHashMap<Symbol, Symbol>,
    /// Placed pods by claim, and claims by node.
    users: FxHashMap<Symbol, u32>,
    on_node: FxHashMap<u32, FxHashMap<Symbol, u32>>,
    /// Disks that pods name without a claim, by node, with the number of their users.
    disks: FxHashMap<u32, Vec<(Disk, u32)>>,
    /// By node name and the attachment's own: driver and volume.
    attached: FxHashMap<Symbol, FxHashMap<String, (Symbol, Symbol)>>,
    /// The node of each attachment.
    attachments: FxHashMap<String, Symbol>,
}

/// What has to be written before a pod whose claims are bound late can start on its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assumed {
    /// Volume, claim.
    pub bind: Vec<(Symbol, Symbol)>,
    /// Claims for which volumes are to be made.
    pub provision: Vec<Symbol>,
}

impl Assumed {
    /// Whether nothing has to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

/// How far the claims of a decided pod are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Bound,
    Waiting,
    /// The provisioner gave the claim back, or claim or volume went.
    Failed,
}

impl Volumes {
    // What the API says. Each returns whether anything changed.

    /// A claim came or changed.
    pub fn set_claim(&mut self, claim: &object::Claim, symbols: &mut Symbols) -> bool {
        let meta = &claim.metadata;
        let key = key(meta.namespace.as_deref(), meta.name.as_deref());
        let key = symbols.intern(&key);
        let fresh = Claim::compile(claim, symbols);
        if self
            .assumed_nodes
            .get(&key)
            .is_some_and(|n| fresh.selected == Some(*n))
            || fresh.bound
        {
            self.assumed_nodes.remove(&key);
        }
        let changed = self.claims.get(&key) != Some(&fresh);
        self.claims.insert(key, fresh);
        changed
    }

    /// Whether a claim is known.
    #[must_use]
    pub fn has_claim(&self, key: Symbol) -> bool {
        self.claims.contains_key(&key)
    }

    /// A claim went.
    pub fn remove_claim(&mut self, namespace: &str, name: &str, symbols: &mut Symbols) -> bool {
        let key = symbols.intern(&key(Some(namespace), Some(name)));
        self.assumed_nodes.remove(&key);
        self.claims.remove(&key).is_some()
    }

    /// A volume came or changed.
    pub fn set_volume(&mut self, volume: &object::PersistentVolume, symbols: &mut Symbols) -> bool {
        let name = symbols.intern(volume.metadata.name.as_deref().unwrap_or_default());
        let fresh = Volume::compile(volume, symbols);
        if fresh.claim.is_some() {
            self.assumed_volumes.remove(&name);
        }
        let old = self.volumes.get(&name);
        let changed = old != Some(&fresh);
        if old.is_none_or(|old| old.class != fresh.class) {
            if let Some(old) = old.map(|old| old.class) {
                self.unlist(name, old);
            }
            self.by_class.entry(fresh.class).or_default().push(name);
        }
        self.volumes.insert(name, fresh);
        changed
    }

    fn unlist(&mut self, name: Symbol, class: Option<Symbol>) {
        if let Some(list) = self.by_class.get_mut(&class) {
            list.retain(|other| *other != name);
        }
    }

    /// A volume went.
    pub fn remove_volume(&mut self, name: &str, symbols: &mut Symbols) -> bool {
        let name = symbols.intern(name);
        self.assumed_volumes.remove(&name);
        let old = self.volumes.remove(&name);
        if let Some(old) = &old {
            self.unlist(name, old.class);
        }
        old.is_some()
    }

    /// A storage class came or changed.
    pub fn set_class(&mut self, class: &object::StorageClass, symbols: &mut Symbols) -> bool {
        let name = symbols.intern(class.metadata.name.as_deref().unwrap_or_default());
        let topologies = class.allowed_topologies.iter().map(|term| {
            let labels = term.match_label_expressions.iter().flatten();
            labels
                .map(|l| {
                    let values = l.values.iter().map(|v| symbols.intern(v)).collect();
                    (symbols.intern(&l.key), values)
                })
                .collect()
        });
        let topologies = topologies.collect();
        let provisioner = class.provisioner.as_str();
        let fresh = StorageClass {
            provisions: !matches!(provisioner, "" | NO_PROVISIONER),
            provisioner: symbols.intern(provisioner),
            driver: symbols.intern(disks::driver_of(provisioner)),
            delayed: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            topologies,
        };
        let changed = self.classes.get(&name) != Some(&fresh);
        self.classes.insert(name, fresh);
        changed
    }

    /// A storage class went.
    pub fn remove_class(&mut self, name: &str, symbols: &mut Symbols) -> bool {
        self.classes.remove(&symbols.intern(name)).is_some()
    }

    /// How many volumes a node can attach came or changed.
    pub fn set_limits(&mut self, node: &object::CsiNode, symbols: &mut Symbols) -> bool {
        let name = symbols.intern(node.metadata.name.as_deref().unwrap_or_default());
        let limits: Vec<_> = node
            .spec
            .drivers
            .iter()
            .filter_map(|d| Some((&d.name, usize::try_from(d.allocatable.count?).ok()?)))
            .map(|(driver, count)| (symbols.intern(driver), count))
            .collect();
        let changed = self.limits.get(&name) != Some(&limits);
        self.limits.insert(name, limits);
        changed
    }

    /// What a node can attach is no longer told: nothing limits it.
    pub fn remove_limits(&mut self, node: &str, symbols: &mut Symbols) -> bool {
        self.limits.remove(&symbols.intern(node)).is_some()
    }

    /// A driver came or changed (`None`: went): does it tell how much room there is?
    pub fn set_driver(
        &mut self,
        name: &str,
        driver: Option<&object::CsiDriver>,
        symbols: &mut Symbols,
    ) -> bool {
        let name = symbols.intern(name);
        if driver.is_some_and(|d| d.spec.storage_capacity == Some(true)) {
            self.tell.insert(name, ()).is_none()
        } else {
            self.tell.remove(&name).is_some()
        }
    }

    /// What room there is came, changed or (`None`) went.
    pub fn set_capacity(
        &mut self,
        namespace: &str,
        name: &str,
        capacity: Option<&object::StorageCapacity>,
        symbols: &mut Symbols,
    ) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(capacity) = capacity else {
            return self.capacities.remove(&key).is_some();
        };
        let limit = capacity
            .maximum_volume_size
            .as_ref()
            .or(capacity.capacity.as_ref());
        let fresh = Capacity {
            class: symbols.intern(&capacity.storage_class_name),
            nodes: capacity
                .node_topology
                .as_ref()
                .map(|s| Selector::compile(Some(s), symbols)),
            limit: limit.map_or(-1, |q| bytes(Some(q))),
        };
        self.capacities.insert(key, fresh.clone()) != Some(fresh)
    }

    /// An attachment of a volume to a node came or changed.
    pub fn set_attachment(
        &mut self,
        attachment: &object::Attachment,
        symbols: &mut Symbols,
    ) -> bool {
        let name = attachment.metadata.name.clone().unwrap_or_default();
        let spec = &attachment.spec;
        let node = symbols.intern(&spec.node_name);
        let Some(volume) = spec.source.persistent_volume_name.as_ref() else {
            return self.remove_attachment(&name);
        };
        let what = (symbols.intern(&spec.attacher), symbols.intern(volume));
        let known = self.attached.get(&node).and_then(|all| all.get(&name));
        if known == Some(&what) {
            return false;
        }
        let changed = self.remove_attachment(&name);
        self.attachments.insert(name.clone(), node);
        let there = self.attached.entry(node).or_default();
        there.insert(name, what);
        // It takes a place: that helps nobody.
        changed
    }

    /// An attachment went.
    pub fn remove_attachment(&mut self, name: &str) -> bool {
        let Some(node) = self.attachments.remove(name) else {
            return false;
        };
        if let Some(there) = self.attached.get_mut(&node) {
            there.remove(name);
            if there.is_empty() {
                self.attached.remove(&node);
            }
        }
        true
    }

    // Placed pods.

    /// A pod with these disks came to a node (`sign` 1) or left it (-1).
    pub fn book_disks(&mut self, node: u32, disks: &[Disk], sign: i32) {
        if disks.is_empty() {
            return;
        }
        let here = self.disks.entry(node).or_default();
        for disk in disks {
            match here.iter_mut().find(|(d, _)| d == disk) {
                Some((_, users)) if sign < 0 => *users = users.saturating_sub(1),
                Some((_, users)) => *users += 1,
                None if sign > 0 => here.push((disk.clone(), 1)),
                None => {}
            }
        }
        here.retain(|(_, users)| *users > 0);
        if here.is_empty() {
            self.disks.remove(&node);
        }
    }

    /// A pod with these claims came to a node (`sign` 1) or left it (-1).
    pub fn book(&mut self, node: u32, claims: &[ClaimUse], sign: i32) {
        for claim in claims {
            change(&mut self.users, claim.key, sign);
            let here = self.on_node.entry(node).or_default();
            change(here, claim.key, sign);
            if here.is_empty() {
                self.on_node.remove(&node);
            }
        }
    }

    // Decisions.

    /// What keeps a pod with these claims from any node at all, if anything does.
    fn blocked(&self, claims: &[ClaimUse]) -> Option<Reason> {
        let (mut unbound, mut missing) = (None, None);
        for wanted in claims {
            let Some(claim) = self.claims.get(&wanted.key) else {
                return Some(match wanted.pod {
                    Some(_) => Reason::EphemeralClaim(wanted.key),
                    None => Reason::MissingClaim(wanted.key),
                });
            };
            if claim.lost {
                return Some(Reason::LostClaim(wanted.key, claim.volume));
            }
            if claim.leaving {
                return Some(Reason::LeavingClaim(wanted.key));
            }
            if wanted.pod.is_some() && wanted.pod != claim.owner {
                return Some(Reason::ForeignClaim(wanted.key));
            }
            let late = self.delayed(claim) && claim.volume.is_none();
            if !claim.bound && !late {
                unbound = Some(Reason::UnboundClaim);
            }
            if let Some(volume) = claim
                .volume
                .filter(|v| claim.bound && !self.volumes.contains_key(v))
            {
                missing = missing.or(Some(Reason::MissingVolume(volume)));
            }
        }
        unbound.or(missing)
    }

    /// What is wrong with each of these claims, if something is.
    #[must_use]
    pub fn troubles(&self, claims: &[ClaimUse]) -> Vec<Reason> {
        let mut all = Vec::new();
        for claim in claims {
            let trouble = self.blocked(std::slice::from_ref(claim));
            all.extend(trouble.filter(|trouble| !all.contains(trouble)));
        }
        all
    }

    fn delayed(&self, claim: &Claim) -> bool {
        claim
            .class
            .and_then(|c| self.classes.get(&c))
            .is_some_and(|c| c.delayed)
    }

    /// Gathers what a pod with these claims needs of its node.
    #[must_use]
    pub fn needs<'a>(&'a self, claims: &'a [ClaimUse]) -> Needs<'a> {
        self.needs_with(claims, &[])
    }

    /// The same, with disks that the pod names beside.
    #[must_use]
    pub fn needs_with<'a>(&'a self, claims: &'a [ClaimUse], disks: &'a [Disk]) -> Needs<'a> {
        let mut needs = Needs {
            of: self,
            disks,
            blocked: self.blocked(claims),
            bound: Vec::new(),
            late: Vec::new(),
            taken: false,
            attaches: Vec::new(),
        };
        for wanted in claims {
            let Some(claim) = self.claims.get(&wanted.key) else {
                continue;
            };
            needs.taken |= claim.exclusive && self.users.contains_key(&wanted.key);
            if claim.bound {
                needs
                    .bound
                    .extend(claim.volume.and_then(|v| self.volumes.get(&v)));
            } else {
                needs.late.push((wanted.key, claim));
            }
            needs.attaches.extend(self.attachment(wanted.key));
        }
        needs.late.sort_by_key(|(_, claim)| claim.size);
        needs
    }

    /// The driver and handle of a claim's volume; for one still to be made, the claim stands for it.
    fn attachment(&self, key: Symbol) -> Option<(Symbol, Symbol)> {
        let claim = self.claims.get(&key)?;
        match claim.volume {
            Some(volume) => self.volumes.get(&volume)?.attaches,
            None => {
                let class = self.classes.get(&claim.class?)?;
                class.provisions.then_some((class.driver, key))
            }
        }
    }

    fn room(
        &self,
        class: Symbol,
        provisioner: Symbol,
        size: i64,
        labels: &Labels,
        symbols: &Symbols,
    ) -> bool {
        size == 0
            || !self.tell.contains_key(&provisioner)
            || self.capacities.values().any(|c| {
                c.class == class
                    && c.limit >= size
                    && c.nodes.as_ref().is_some_and(|s| s.matches(labels, symbols))
            })
    }

    // Assumptions.

    /// Holds volumes, and the node, for the late claims of a pod that was decided. `None` if they cannot be served there
    /// (any more).
    pub fn assume(
        &mut self,
        claims: &[ClaimUse],
        node: &super::nodes::Node,
        symbols: &Symbols,
    ) -> Option<Assumed> {
        let assumed = self.needs(claims).choose(node, symbols).ok()?;
        for (volume, claim) in &assumed.bind {
            self.assumed_volumes.insert(*volume, *claim);
        }
        for claim in &assumed.provision {
            self.assumed_nodes.insert(*claim, node.name);
        }
        Some(assumed)
    }

    /// Lets go what was held for a pod.
    pub fn release(&mut self, assumed: &Assumed) {
        for (volume, _) in &assumed.bind {
            self.assumed_volumes.remove(volume);
        }
        for claim in &assumed.provision {
            self.assumed_nodes.remove(claim);
        }
    }

    /// How far claims are whose pod was decided for a node.
    #[must_use]
    pub fn progress(&self, claims: &[ClaimUse], node: Symbol, assumed: &Assumed) -> Progress {
        let mut progress = Progress::Bound;
        for wanted in claims {
            let Some(claim) = self
                .claims
                .get(&wanted.key)
                .filter(|c| !c.lost && !c.leaving)
            else {
                return Progress::Failed;
            };
            if claim.bound {
                continue;
            }
            progress = Progress::Waiting;
            let held = self.assumed_nodes.contains_key(&wanted.key);
            if assumed.provision.contains(&wanted.key) && !held && claim.selected != Some(node) {
                return Progress::Failed;
            }
        }
        progress
    }

    /// The uid of a claim, for preconditions.
    #[must_use]
    pub fn claim_uid(&self, key: Symbol) -> Option<Arc<str>> {
        self.claims.get(&key).map(|c| c.uid.clone())
    }
}

fn key(namespace: Option<&str>, name: Option<&str>) -> String {
    format!(
        "{}/{}",
        namespace.unwrap_or_default(),
        name.unwrap_or_default()
    )
}

fn change(counts: &mut FxHashMap<Symbol, u32>, at: Symbol, sign: i32) {
    let count = counts.entry(at).or_default();
    *count = count.saturating_add_signed(sign);
    if *count == 0 {
        counts.remove(&at);
    }
}
