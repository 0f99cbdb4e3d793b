//! What to do about what is in the way of a pod, in words.

use super::{Obstacle, Resource};
use crate::core::cluster::Cluster;
use crate::core::devices::Misfit;
use crate::core::diagnosis::Reason;
use crate::core::load::MEASURED;
use crate::core::symbols::Symbol;

impl Cluster {
    /// What obstacles have in common that the same change would remove.
    pub(super) fn kind(&self, obstacle: &Obstacle) -> String {
        match obstacle {
            Obstacle::Short { resource, .. } => format!("{resource:?}"),
            Obstacle::Quota { verdict, .. } => format!("{verdict:?}"),
            Obstacle::Other(reason) => self.phrase(*reason),
            other => self.advice(other),
        }
    }

    /// What to do about an obstacle.
    #[must_use]
    pub fn advice(&self, obstacle: &Obstacle) -> String {
        let text = |symbol: Symbol| self.compiler.symbols.text(symbol);
        match obstacle {
            Obstacle::Cordoned => "uncordon the node".to_owned(),
            Obstacle::Taint(taint) => {
                let value = text(taint.value);
                let equals = if value.is_empty() { "" } else { "=" };
                format!(
                    "tolerate the taint {}{equals}{value}:{:?}",
                    text(taint.key),
                    taint.effect
                )
            }
            Obstacle::Selector(key, value) => {
                format!("drop nodeSelector {}={}", text(*key), text(*value))
            }
            Obstacle::NodeAffinity => "widen the required node affinity".to_owned(),
            Obstacle::Short {
                resource: Resource::Pods,
                ..
            } => "free one pod's place on the node".to_owned(),
            Obstacle::Short {
                resource,
                missing,
                wanted,
            } => format!(
                "request {} less {} ({} instead of {}), or free as much",
                resource.amount(*missing),
                self.resource_name(*resource),
                resource.amount(wanted - missing),
                resource.amount(*wanted),
            ),
            Obstacle::Quota {
                verdict,
                missing,
                wanted,
            } => self
                .quotas
                .advice(*verdict, *missing, *wanted, &self.compiler.symbols),
            Obstacle::Claims(remedy) => self.devices.text(*remedy),
            Obstacle::Other(reason) => self.remedy(*reason),
        }
    }

    fn remedy(&self, reason: Reason) -> String {
        let text = |symbol: Symbol| self.compiler.symbols.text(symbol);
        match reason {
            Reason::Ports => "free the host ports".to_owned(),
            Reason::Undeclared(features) => format!(
                "have the node declare {} (its kubelet does if it can), or do without",
                features.names()
            ),
            Reason::Policy(policy) | Reason::SetApart(policy) => format!(
                "change placement policy {}, or which pods it selects",
                text(policy)
            ),
            Reason::AddedAffinity => {
                "change addedAffinity of the scheduler's profile, or name another scheduler"
                    .to_owned()
            }
            Reason::Numa(_) => {
                "ask for fewer whole cores or devices in one container, or free those of one NUMA node"
                    .to_owned()
            }
            Reason::Hot(resource) => format!(
                "wait until the node uses less {}, or raise the threshold",
                MEASURED[resource]
            ),
            Reason::Spread => {
                "loosen the topology spread constraints, or even out the pods".to_owned()
            }
            Reason::SpreadLabel => {
                "label the node with the topology keys of the spread constraints".to_owned()
            }
            Reason::Affinity => "drop the pod affinity, or place a pod that it seeks".to_owned(),
            Reason::AntiAffinity => {
                "drop the pod anti-affinity, or move the pods that it shuns".to_owned()
            }
            Reason::ExistingAntiAffinity => {
                "move the pods whose anti-affinity shuns this one".to_owned()
            }
            Reason::DiskInUse => "move the pod that uses the disk".to_owned(),
            Reason::ExclusiveClaim => {
                "end the pod that uses the ReadWriteOncePod claim".to_owned()
            }
            Reason::VolumeLimit => {
                "move a pod with volumes of the same driver off the node".to_owned()
            }
            Reason::VolumeAffinity => {
                "use a volume that can be reached from the node".to_owned()
            }
            Reason::VolumeZone => "use a volume of the node's zone".to_owned(),
            Reason::NoVolumeToBind => {
                "make a volume for the claim there, or have a storage class that makes one there"
                    .to_owned()
            }
            Reason::NoStorage => {
                "free storage of the claim's class there, or claim less".to_owned()
            }
            Reason::UnboundClaim => {
                "have its claims bound (a volume, or a provisioner that makes one), or use a storage class that waits \
                 for the first consumer"
                    .to_owned()
            }
            Reason::MissingClaim(claim) => {
                format!("create PersistentVolumeClaim {}", text(claim))
            }
            Reason::EphemeralClaim(claim) => format!(
                "see that the controller makes PersistentVolumeClaim {} of the ephemeral volume",
                text(claim)
            ),
            Reason::ForeignClaim(claim) => format!(
                "delete PersistentVolumeClaim {}: the pod's own is made then",
                text(claim)
            ),
            Reason::LostClaim(claim, Some(volume)) => format!(
                "bring back PersistentVolume {}, or make PersistentVolumeClaim {} anew",
                text(volume),
                text(claim)
            ),
            Reason::LostClaim(claim, None) => {
                format!("make PersistentVolumeClaim {} anew", text(claim))
            }
            Reason::LeavingClaim(claim) => format!(
                "create PersistentVolumeClaim {} anew once it is gone",
                text(claim)
            ),
            Reason::MissingVolume(volume) => {
                format!("bring back PersistentVolume {}", text(volume))
            }
            Reason::Devices(Misfit::Elsewhere) => {
                "end the pods that use the claim: its devices are of use on other nodes only"
                    .to_owned()
            }
            Reason::Devices(Misfit::None) => {
                "free devices there that the claim asks for, or ask for others".to_owned()
            }
            Reason::Devices(Misfit::Error(word)) => {
                format!("mend what the claim asks: {}", self.devices.text(word))
            }
            Reason::NoPodGroup(name) => format!(
                "create PodGroup {}, or drop the pod's label {}",
                text(name),
                crate::core::gang::POD_GROUP
            ),
            Reason::GangIncomplete(name, there, min) => format!(
                "create {} more pods of group {}, or lower its minMember to {there}",
                min.saturating_sub(there),
                text(name)
            ),
            other => format!("see to it: {}", self.phrase(other)),
        }
    }
}
