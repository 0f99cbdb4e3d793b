//! The carrying out of actions, on the truth.

use super::super::member::{self, Cell, image_number};
use super::{Broke, Deed, Hub};
use gantry_hub::{
    action::Action,
    world::{Gate, Revision},
};
use rand::Rng;
use std::collections::BTreeMap;

impl Hub<'_> {
    pub(super) fn apply(
        &mut self,
        action: Action,
        digests: &BTreeMap<String, String>,
    ) -> Result<(), Broke> {
        self.maybe_crash()?;
        self.log.push(|| format!("  {action:?}"));
        let applied = self.carry_out(action, digests);
        if !applied {
            self.log.push(|| "  … refused".to_owned());
            return Err(Broke::Error);
        }
        self.respond()
    }

    pub(super) fn cell(&mut self, name: &str) -> Option<&mut Cell> {
        let now = self.fleet.now;
        self.fleet
            .members
            .iter_mut()
            .filter(|m| m.away_until <= now)
            .flat_map(|m| &mut m.cells)
            .find(|c| c.name == name)
    }

    /// Whether what the hub sees of every reachable cell is the truth, and every cell is reachable.
    pub(super) fn fresh(&self) -> bool {
        let group = self.fleet.group.metadata.name.as_deref().unwrap();
        self.fleet.members.iter().all(|m| {
            m.away_until <= self.fleet.now
                && self.memory.views.get(&m.name).is_some_and(|cells| {
                    m.cells
                        .iter()
                        .filter(|c| self.fleet.weights.contains_key(&c.name))
                        .all(|cell| {
                            cells.iter().any(|seen| {
                                seen.name == cell.name && seen.instances == cell.instances(group)
                            })
                        })
                })
        })
    }

    pub(super) fn carry_out(&mut self, action: Action, digests: &BTreeMap<String, String>) -> bool {
        let version = self.fleet.bump();
        let now = self.fleet.time();
        match action {
            Action::CreateRevision(revision) => {
                let Revision { number, .. } = *revision;
                if self.fleet.revisions.contains_key(&number) {
                    return false;
                }
                self.fleet.revisions.insert(number, *revision);
                true
            }
            Action::PruneRevision { number } => self.fleet.revisions.remove(&number).is_some(),
            Action::SetGroupRevision { current, spec } => {
                self.fleet.group.spec.revision = *spec;
                self.fleet.group.status.get_or_insert_default().current = Some(current);
                true
            }
            Action::AddFinalizer => {
                self.fleet.group.metadata.finalizers =
                    Some(vec![gantry_api::labels::FINALIZER.to_owned()]);
                true
            }
            Action::RemoveFinalizer | Action::DeleteSet { .. } | Action::DeleteSupport { .. } => {
                panic!("no group is removed here")
            }
            Action::SetPins { .. } => panic!("nobody asks for a node here"),
            Action::EnsureSupport { cluster, .. } => {
                let away = self
                    .fleet
                    .members
                    .iter()
                    .any(|m| m.name == cluster && m.away_until > self.fleet.now);
                if !away {
                    self.memory
                        .supported
                        .insert(cluster.clone(), digests[&cluster].clone());
                }
                !away
            }
            Action::CreateSet {
                cell,
                revision,
                replicas,
            } => {
                let Some(cell) = self.cell(&cell) else {
                    return false;
                };
                if cell.set.is_some() {
                    return false;
                }
                cell.set = Some(member::Set {
                    version,
                    replicas,
                    partition: 0,
                    revision,
                    observed: false,
                    update: revision,
                    current: revision,
                });
                true
            }
            Action::Scale {
                cell,
                version: seen,
                replicas,
                partition,
            } => self.change_set(&cell, &seen, |set| {
                set.replicas = replicas;
                set.partition = partition;
            }),
            Action::SetTemplate {
                cell,
                version: seen,
                revision,
                partition,
            } => self.change_set(&cell, &seen, |set| {
                set.revision = revision;
                set.partition = partition;
                set.observed = false;
            }),
            Action::SetPartition {
                cell,
                version: seen,
                partition,
            } => self.change_set(&cell, &seen, |set| set.partition = partition),
            Action::SetGate {
                cell,
                instance,
                version: seen,
                hold,
                ..
            } => {
                let fresh = self.fresh();
                let Some(pod) = self
                    .pod(&cell, &instance)
                    .filter(|p| p.version.to_string() == seen)
                else {
                    return false;
                };
                pod.version = version;
                match hold {
                    None => {
                        pod.gate = Gate::In;
                        pod.out_by_gantry = false;
                    }
                    Some(hold) => {
                        let served = pod.serves();
                        pod.out_by_gantry |= served;
                        let since = match &pod.gate {
                            Gate::Out { since, .. } => *since,
                            _ => now,
                        };
                        pod.gate = Gate::Out {
                            reason: hold.reason().to_owned(),
                            since,
                        };
                        if served {
                            self.deeds.push(Deed::TookOut { fresh });
                        }
                    }
                }
                true
            }
            Action::UpdateInPlace {
                cell,
                instance,
                version: seen,
                revision,
                hash,
                images,
                mark,
            } => {
                let Some(pod) = self
                    .pod(&cell, &instance)
                    .filter(|p| p.version.to_string() == seen)
                else {
                    return false;
                };
                let served = pod.serves();
                pod.version = version;
                pod.revision = revision;
                pod.hash = hash;
                pod.mark = Some(mark);
                if let Some(image) = images.get("cart") {
                    pod.image = image_number(image);
                }
                self.deeds.push(Deed::Touched {
                    name: instance,
                    served,
                });
                true
            }
            Action::DeleteInstance {
                cell,
                instance,
                uid,
                version: seen,
            } => {
                let soon = self.fleet.now + self.rng.random_range(0..3);
                let Some(pod) = self
                    .pod(&cell, &instance)
                    .filter(|p| p.version.to_string() == seen && p.uid.to_string() == uid)
                else {
                    return false;
                };
                let served = pod.serves();
                pod.version = version;
                pod.gone_at.get_or_insert(soon);
                self.deeds.push(Deed::Touched {
                    name: instance,
                    served,
                });
                true
            }
        }
    }

    pub(super) fn change_set(
        &mut self,
        cell: &str,
        seen: &str,
        change: impl FnOnce(&mut member::Set),
    ) -> bool {
        let version = self.fleet.bump();
        let Some(set) = self
            .cell(cell)
            .and_then(|c| c.set.as_mut())
            .filter(|s| s.version.to_string() == seen)
        else {
            return false;
        };
        set.version = version;
        change(set);
        true
    }

    pub(super) fn pod(&mut self, cell: &str, instance: &str) -> Option<&mut member::Pod> {
        let ordinal: i32 = instance.rsplit('-').next()?.parse().ok()?;
        self.cell(cell)?.pods.get_mut(&ordinal)
    }
}
