//! Gangs: pods that are of use only together (`scheduling.x-k8s.io/v1alpha1` PodGroup, as coscheduling's users know it).
//! Either as many as the group needs find their nodes, or none is placed.
//!
//! The decision for a whole gang is one step: its members are placed one after another in the core, where need be by
//! making others leave, and if that does not get as far as it must, all is taken back as if nothing had been.

use super::class::ClassId;
use super::cluster::Cluster;
use super::diagnosis::{Diagnosis, Reason};
use super::nodes::NodeId;
use super::object;
use super::preempt::Preemption;
use super::request::GroupKey;
use super::symbols::{Symbol, value_of};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::time::Duration;

/// Label of a pod: its group, in its namespace.
pub const POD_GROUP: &str = "scheduling.x-k8s.io/pod-group";
/// How long a gang that found its nodes may take until all of it can be bound, where its group does not say.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A gang: namespace and name of its group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct GangId {
    pub namespace: Symbol,
    pub name: Symbol,
}

/// What is known of a gang.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gang {
    /// Members that it needs at least; `None`: its group is not there.
    pub min: Option<usize>,
    pub timeout: Option<Duration>,
    /// Members that are placed.
    pub placed: usize,
}

/// All gangs.
#[derive(Default)]
pub struct Gangs {
    all: FxHashMap<GangId, Gang>,
    classes: FxHashMap<GangId, Vec<ClassId>>,
    label: Option<Symbol>,
}

impl Gangs {
    /// The gang of a pod.
    #[must_use]
    pub fn of(&self, group: &GroupKey) -> Option<GangId> {
        Some(GangId {
            namespace: group.namespace,
            name: value_of(&group.labels, self.label?)?,
        })
    }

    /// A member came to a node (`sign` 1) or left it (-1).
    pub fn book(&mut self, gang: GangId, sign: isize) {
        let gang = self.all.entry(gang).or_default();
        gang.placed = gang.placed.saturating_add_signed(sign);
    }

    /// A class is of the gang.
    pub fn enlist(&mut self, gang: GangId, class: ClassId) {
        self.classes.entry(gang).or_default().push(class);
    }

    /// Forgets who is placed, and which classes there are, to be counted anew.
    pub fn forget_placed(&mut self) {
        self.classes.clear();
        self.all.retain(|_, gang| gang.min.is_some());
        for gang in self.all.values_mut() {
            gang.placed = 0;
        }
    }
}

/// Where one member goes, and who has to leave for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub uid: Arc<str>,
    pub class: ClassId,
    pub node: NodeId,
    pub victims: Vec<Arc<str>>,
}

/// A gang's diagnosis, and the class that it is about.
pub type Refused = (ClassId, Diagnosis);

impl Cluster {
    /// A group came or changed.
    pub fn set_pod_group(&mut self, group: &object::PodGroup) {
        let meta = &group.metadata;
        let symbols = &mut self.compiler.symbols;
        if self.gangs.label.is_none() {
            self.gangs.label = Some(symbols.intern(POD_GROUP));
            // Pods that came before their group are of it from now on.
            self.rules_changed = true;
        }
        let id = GangId {
            namespace: symbols.intern(meta.namespace.as_deref().unwrap_or_default()),
            name: symbols.intern(meta.name.as_deref().unwrap_or_default()),
        };
        let gang = self.gangs.all.entry(id).or_default();
        let min = usize::try_from(group.spec.min_member.unwrap_or(1)).unwrap_or(1);
        gang.min = Some(min.max(1));
        let seconds = group.spec.schedule_timeout_seconds;
        gang.timeout = seconds
            .and_then(|s| u64::try_from(s).ok())
            .map(Duration::from_secs);
        self.events.push(super::cluster::Event::Gang);
    }

    /// A group went.
    pub fn remove_pod_group(&mut self, namespace: &str, name: &str) {
        let symbols = &self.compiler.symbols;
        let id = symbols.known(namespace).zip(symbols.known(name));
        if let Some((namespace, name)) = id
            && let Some(gang) = self.gangs.all.get_mut(&GangId { namespace, name })
        {
            gang.min = None;
        }
    }

    /// The gang of a class.
    #[must_use]
    pub fn gang_of(&self, class: ClassId) -> Option<GangId> {
        self.classes[class.0 as usize].gang
    }

    /// The classes of a gang's pods.
    #[must_use]
    pub fn gang_classes(&self, id: GangId) -> Vec<ClassId> {
        self.gangs.classes.get(&id).cloned().unwrap_or_default()
    }

    /// What is known of a gang.
    #[must_use]
    pub fn gang(&self, id: GangId) -> Gang {
        self.gangs.all.get(&id).copied().unwrap_or_default()
    }

    /// Why a gang cannot even be tried with so many members waiting.
    #[must_use]
    pub fn gang_incomplete(&self, class: ClassId, id: GangId, waiting: usize) -> Option<Diagnosis> {
        let gang = self.gang(id);
        let there = waiting + gang.placed;
        let reason = match gang.min {
            None => Reason::NoPodGroup(id.name),
            Some(min) if there < min => Reason::GangIncomplete(
                id.name,
                u32::try_from(there).unwrap_or(u32::MAX),
                u32::try_from(min).unwrap_or(u32::MAX),
            ),
            Some(_) => return None,
        };
        Some(self.diagnosis_of_all(class, reason))
    }

    /// Places members of a gang, one after another in this order: as many as fit, if these are enough together with
    /// those that are placed already; else none. `spared` pods never have to leave.
    ///
    /// # Errors
    /// The first member that found no node, and why.
    pub fn place_gang(
        &mut self,
        id: GangId,
        members: &[(Arc<str>, ClassId)],
        spared: impl Fn(&str) -> bool,
    ) -> Result<Vec<Member>, Refused> {
        let need = self
            .gang(id)
            .min
            .unwrap_or(1)
            .saturating_sub(self.gang(id).placed);
        let before = self.events.len();
        let mut placed: Vec<Member> = Vec::new();
        let mut leaving: FxHashSet<Arc<str>> = FxHashSet::default();
        let mut refused: Option<Refused> = None;
        let mut hopeless: FxHashSet<ClassId> = FxHashSet::default();
        for (at, (uid, class)) in members.iter().enumerate() {
            // Equal pods fail together.
            let found = if hopeless.contains(class) {
                None
            } else {
                self.node_or_room(*class, |uid| spared(uid) || leaving.contains(uid))
            };
            match found {
                Some(Preemption { node, victims }) => {
                    self.commit(uid, *class, node);
                    leaving.extend(victims.iter().cloned());
                    placed.push(Member {
                        uid: uid.clone(),
                        class: *class,
                        node,
                        victims,
                    });
                }
                None => {
                    hopeless.insert(*class);
                    if refused.is_none() {
                        refused = Some((*class, self.diagnose(*class)));
                    }
                    if placed.len() + (members.len() - at - 1) < need {
                        break;
                    }
                }
            }
        }
        if placed.len() >= need && !placed.is_empty() {
            return Ok(placed);
        }
        for member in placed.iter().rev() {
            self.uncommit(&member.uid);
        }
        // Nothing has happened.
        self.events.truncate(before);
        Err(refused.unwrap_or_else(|| {
            let class = members.first().map_or(ClassId(0), |(_, class)| *class);
            (class, Diagnosis::default())
        }))
    }

    fn node_or_room(
        &mut self,
        class: ClassId,
        spared: impl Fn(&str) -> bool,
    ) -> Option<Preemption> {
        match self.choose(class) {
            Some(node) => Some(Preemption {
                node,
                victims: Vec::new(),
            }),
            None => self.preempt(class, spared),
        }
    }
}

#[cfg(test)]
mod tests;
