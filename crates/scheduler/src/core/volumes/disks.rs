//! Disks that pods name themselves, without a claim, as Kubernetes had them before there were drivers: who may use one
//! beside whom (VolumeRestrictions), and which driver attaches it to the node today (NodeVolumeLimits).

use crate::core::object::Volume;
use crate::core::symbols::{Symbol, Symbols};

/// A disk that a pod names in its volumes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Disk {
    /// By name; and whether it is only read.
    Gce(Symbol, bool),
    Ebs(Symbol),
    /// By the target's name.
    Iscsi(Symbol, bool),
    Rbd {
        monitors: Vec<Symbol>,
        pool: Symbol,
        image: Symbol,
        reads: bool,
    },
    /// One that others may use beside, but which the node must attach: driver and handle.
    Other(Symbol, Symbol),
}

impl Disk {
    /// The disk of a volume, if it is one.
    pub fn compile(volume: &Volume, symbols: &mut Symbols) -> Option<Self> {
        let reads = |read_only: Option<bool>| read_only == Some(true);
        if let Some(disk) = &volume.gce_persistent_disk {
            return Some(Self::Gce(
                symbols.intern(&disk.pd_name),
                reads(disk.read_only),
            ));
        }
        if let Some(disk) = &volume.aws_elastic_block_store {
            return Some(Self::Ebs(symbols.intern(&disk.volume_id)));
        }
        if let Some(disk) = &volume.iscsi {
            return Some(Self::Iscsi(
                symbols.intern(&disk.iqn),
                reads(disk.read_only),
            ));
        }
        if let Some(disk) = &volume.rbd {
            return Some(Self::Rbd {
                monitors: disk.monitors.iter().map(|m| symbols.intern(m)).collect(),
                pool: symbols.intern(disk.pool.as_deref().unwrap_or("rbd")),
                image: symbols.intern(&disk.image),
                reads: reads(disk.read_only),
            });
        }
        let other = volume.azure_disk.as_ref().map(|d| (AZURE, &d.disk_uri));
        let (driver, handle) =
            other.or_else(|| volume.cinder.as_ref().map(|d| (CINDER, &d.volume_id)))?;
        Some(Self::Other(symbols.intern(driver), symbols.intern(handle)))
    }

    /// Whether one node cannot have both: at most one may write, and of EBS there is one user at all.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Gce(a, reads), Self::Gce(b, both))
            | (Self::Iscsi(a, reads), Self::Iscsi(b, both)) => a == b && !(*reads && *both),
            (Self::Ebs(a), Self::Ebs(b)) => a == b,
            (
                Self::Rbd {
                    monitors,
                    pool,
                    image,
                    reads,
                },
                Self::Rbd {
                    monitors: others,
                    pool: same_pool,
                    image: same_image,
                    reads: both,
                },
            ) => {
                pool == same_pool
                    && image == same_image
                    && monitors.iter().any(|m| others.contains(m))
                    && !(*reads && *both)
            }
            _ => false,
        }
    }

    /// The driver that attaches it, and under which handle.
    #[must_use]
    pub fn attaches(&self, symbols: &Symbols) -> Option<(Symbol, Symbol)> {
        let of = |driver: &str, handle: &Symbol| Some((symbols.known(driver)?, *handle));
        match self {
            Self::Gce(name, _) => of(GCE, name),
            Self::Ebs(id) => of(EBS, id),
            Self::Other(driver, handle) => Some((*driver, *handle)),
            Self::Iscsi(..) | Self::Rbd { .. } => None,
        }
    }
}

pub(super) const GCE: &str = "pd.csi.storage.gke.io";
pub(super) const EBS: &str = "ebs.csi.aws.com";
const AZURE: &str = "disk.csi.azure.com";
const CINDER: &str = "cinder.csi.openstack.org";

/// What provisioners of old are called by the drivers that do their work.
const MOVED: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", EBS),
    ("kubernetes.io/gce-pd", GCE),
    ("kubernetes.io/azure-disk", AZURE),
    ("kubernetes.io/cinder", CINDER),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
];

/// The driver that does the work of a provisioner: mostly itself.
#[must_use]
pub(super) fn driver_of(provisioner: &str) -> &str {
    let moved = MOVED.iter().find(|(old, _)| *old == provisioner);
    moved.map_or(provisioner, |(_, driver)| driver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn gce(name: &str, reads: bool) -> Value {
        json!({"gcePersistentDisk": {"pdName": name, "readOnly": reads}})
    }

    fn iscsi(iqn: &str, reads: bool) -> Value {
        json!({"iscsi": {"iqn": iqn, "lun": 0, "targetPortal": "10.0.0.1", "readOnly": reads}})
    }

    fn rbd(monitors: &[&str], image: &str, reads: bool) -> Value {
        json!({"rbd": {"monitors": monitors, "image": image, "readOnly": reads}})
    }

    #[rstest]
    #[case::gce_written(gce("a", false), gce("a", true), true)]
    #[case::gce_read(gce("a", true), gce("a", true), false)]
    #[case::gce_other(gce("a", false), gce("b", false), false)]
    #[case::ebs(json!({"awsElasticBlockStore": {"volumeID": "v"}}),
        json!({"awsElasticBlockStore": {"volumeID": "v", "readOnly": true}}), true)]
    #[case::ebs_other(json!({"awsElasticBlockStore": {"volumeID": "v"}}),
        json!({"awsElasticBlockStore": {"volumeID": "w"}}), false)]
    #[case::iscsi_written(iscsi("i", true), iscsi("i", false), true)]
    #[case::iscsi_read(iscsi("i", true), iscsi("i", true), false)]
    #[case::rbd_written(rbd(&["a", "b"], "i", false), rbd(&["b", "c"], "i", false), true)]
    #[case::rbd_read(rbd(&["a"], "i", true), rbd(&["a"], "i", true), false)]
    #[case::rbd_other_cluster(rbd(&["a"], "i", false), rbd(&["b"], "i", false), false)]
    #[case::rbd_other_pool(rbd(&["a"], "i", false),
        json!({"rbd": {"monitors": ["a"], "image": "i", "pool": "other"}}), false)]
    #[case::unlike(gce("a", false), json!({"awsElasticBlockStore": {"volumeID": "a"}}), false)]
    #[case::azure(json!({"azureDisk": {"diskName": "d", "diskURI": "u"}}),
        json!({"azureDisk": {"diskName": "d", "diskURI": "u"}}), false)]
    fn disks_are_shared_as_kubernetes_lets_them(
        #[case] one: Value,
        #[case] other: Value,
        #[case] conflict: bool,
    ) {
        let mut symbols = Symbols::default();
        let [one, other] = [one, other].map(|volume| {
            let volume: Volume = serde_json::from_value(volume).unwrap();
            Disk::compile(&volume, &mut symbols).unwrap()
        });
        assert_eq!(one.conflicts(&other), conflict);
        assert_eq!(other.conflicts(&one), conflict);
    }
}
