//! What one pod's claims need of its node, and which volumes would serve them there.

use super::{Assumed, Claim, Disk, Volume, Volumes, ZONES};
use crate::core::diagnosis::Reason;
use crate::core::nodes::Node;
use crate::core::symbols::{Symbol, Symbols, value_of};

/// What one pod's claims need of its node.
pub struct Needs<'a> {
    pub(super) of: &'a Volumes,
    /// Disks that the pod names without a claim.
    pub(super) disks: &'a [Disk],
    /// No node will do.
    pub blocked: Option<Reason>,
    pub(super) bound: Vec<&'a Volume>,
    /// Claims to be bound now, smallest first.
    pub(super) late: Vec<(Symbol, &'a Claim)>,
    /// Another pod uses a claim that is for one pod only.
    pub(super) taken: bool,
    pub(super) attaches: Vec<(Symbol, Symbol)>,
}

impl Needs<'_> {
    /// The first filter, in kube-scheduler's order, by which volumes rule the node out.
    #[must_use]
    pub fn reject(&self, at: u32, node: &Node, symbols: &Symbols) -> Option<Reason> {
        let here = self.of.disks.get(&at).into_iter().flatten();
        if here
            .into_iter()
            .any(|(disk, _)| self.disks.iter().any(|d| d.conflicts(disk)))
        {
            return Some(Reason::DiskInUse);
        }
        if self.taken {
            return Some(Reason::ExclusiveClaim);
        }
        if self.too_many(at, node.name, symbols) {
            return Some(Reason::VolumeLimit);
        }
        if !self.bound.iter().all(|v| v.reaches(node, symbols)) {
            return Some(Reason::VolumeAffinity);
        }
        if let Err(reason) = self.choose(node, symbols) {
            return Some(reason);
        }
        (!self.zones_match(node, symbols)).then_some(Reason::VolumeZone)
    }

    /// Whether there is nothing to look at.
    #[must_use]
    pub fn none(&self) -> bool {
        self.bound.is_empty()
            && self.late.is_empty()
            && !self.taken
            && self.attaches.is_empty()
            && self.disks.is_empty()
    }

    fn too_many(&self, at: u32, name: Symbol, symbols: &Symbols) -> bool {
        let named = self.disks.iter().filter_map(|d| d.attaches(symbols));
        let wanted: Vec<(Symbol, Symbol)> = self.attaches.iter().copied().chain(named).collect();
        let (Some(limits), false) = (self.of.limits.get(&name), wanted.is_empty()) else {
            return false;
        };
        limits.iter().any(|(driver, limit)| {
            let of_driver = |(d, handle): (Symbol, Symbol)| (d == *driver).then_some(handle);
            let mut new: Vec<Symbol> = wanted.iter().copied().filter_map(of_driver).collect();
            if new.is_empty() {
                return false;
            }
            let claims = self.of.on_node.get(&at).into_iter().flat_map(|c| c.keys());
            let claimed = claims.filter_map(|claim| self.of.attachment(*claim));
            let disks = self.of.disks.get(&at).into_iter().flatten();
            let disks = disks.filter_map(|(disk, _)| disk.attaches(symbols));
            // What is still attached takes its place, whether a pod uses it or not.
            let attached = self.of.attached.get(&name).into_iter();
            let attached = attached.flat_map(|all| all.values());
            let attached = attached.filter_map(|(by, volume)| {
                let (_, handle) = self.of.volumes.get(volume)?.attaches?;
                Some((*by, handle))
            });
            let there = claimed.chain(disks).chain(attached);
            let mut there: Vec<Symbol> = there.filter_map(of_driver).collect();
            there.sort_unstable();
            there.dedup();
            new.sort_unstable();
            new.dedup();
            new.retain(|handle| there.binary_search(handle).is_err());
            !new.is_empty() && there.len() + new.len() > *limit
        })
    }

    fn zones_match(&self, node: &Node, symbols: &Symbols) -> bool {
        let mut zones = self.bound.iter().flat_map(|v| &v.zones).peekable();
        if zones.peek().is_none() {
            return true;
        }
        // A node that says nothing of zones is in a cluster that has none.
        let told = ZONES
            .iter()
            .filter_map(|(key, _)| symbols.known(key))
            .any(|key| value_of(&node.labels, key).is_some());
        !told
            || zones.all(|(key, modern, values)| {
                value_of(&node.labels, *key)
                    .or_else(|| value_of(&node.labels, *modern))
                    .is_some_and(|zone| values.contains(&zone))
            })
    }

    /// Volumes for the late claims on a node, as kube-scheduler chooses: smallest claim first, each the smallest
    /// volume that will do; where there is none, one is to be made.
    pub(super) fn choose(&self, node: &Node, symbols: &Symbols) -> Result<Assumed, Reason> {
        let mut assumed = Assumed::default();
        for (key, claim) in &self.late {
            let selected = self.of.assumed_nodes.get(key).copied().or(claim.selected);
            if let Some(selected) = selected {
                if selected != node.name {
                    return Err(Reason::NoVolumeToBind);
                }
            } else if let Some(volume) = self.find(*key, claim, node, &assumed, symbols) {
                assumed.bind.push((volume, *key));
                continue;
            }
            let class = claim
                .class
                .and_then(|name| Some((name, self.of.classes.get(&name)?)));
            let Some((name, class)) = class.filter(|(_, class)| class.provisions) else {
                return Err(Reason::NoVolumeToBind);
            };
            let there = class.topologies.is_empty()
                || class.topologies.iter().any(|term| {
                    term.iter().all(|(label, values)| {
                        value_of(&node.labels, *label).is_some_and(|v| values.contains(&v))
                    })
                });
            if !there {
                return Err(Reason::NoVolumeToBind);
            }
            if !self
                .of
                .room(name, class.provisioner, claim.size, &node.labels, symbols)
            {
                return Err(Reason::NoStorage);
            }
            assumed.provision.push(*key);
        }
        Ok(assumed)
    }

    fn find(
        &self,
        key: Symbol,
        claim: &Claim,
        node: &Node,
        assumed: &Assumed,
        symbols: &Symbols,
    ) -> Option<Symbol> {
        let mut best: Option<(i64, Symbol)> = None;
        for name in self.of.by_class.get(&claim.class).into_iter().flatten() {
            let Some(volume) = self.of.volumes.get(name) else {
                continue;
            };
            let given = self
                .of
                .assumed_volumes
                .get(name)
                .is_some_and(|to| *to != key)
                || assumed.bind.iter().any(|(v, _)| v == name);
            if given
                || volume.claim.is_some() && !volume.is_for(key, &claim.uid)
                || volume.capacity < claim.size
                || volume.block != claim.block
                || volume.attributes != claim.attributes
                || volume.leaving
            {
                continue;
            }
            let reaches = volume.reaches(node, symbols);
            if volume.claim.is_some() {
                return reaches.then_some(*name);
            }
            let fits = reaches
                && volume.available
                && claim
                    .selector
                    .as_ref()
                    .is_none_or(|s| s.matches(&volume.labels, symbols))
                && claim.modes.iter().all(|m| volume.modes.contains(m));
            if fits && best.is_none_or(|(least, _)| volume.capacity < least) {
                best = Some((volume.capacity, *name));
            }
        }
        best.map(|(_, name)| name)
    }

    /// Label values of which every node that will do has one, where the pod's volumes name such: the way to few nodes.
    #[must_use]
    pub fn pins(&self) -> Vec<Vec<(Symbol, Symbol)>> {
        self.bound.iter().filter_map(|v| v.pins()).collect()
    }

    /// The one node that will do, where a claim's volume is being made for it already.
    #[must_use]
    pub fn selected(&self) -> Option<Symbol> {
        let assumed = &self.of.assumed_nodes;
        self.late
            .iter()
            .find_map(|(key, claim)| assumed.get(key).copied().or(claim.selected))
    }
}
