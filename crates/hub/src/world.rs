//! What the planners see of the fleet: one Group's cells, sets and instances, as last observed.
//!
//! Plain data, made from slim watched objects by the shell and by hand in tests. A cell whose member
//! cannot be reached keeps its last known contents; planners read it and act only on reachable ones.

use std::collections::BTreeMap;

use gantry_api::RevisionSpec;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ResourceQuota, apimachinery::pkg::api::resource::Quantity};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::amount::Amounts;

/// An immutable, numbered snapshot: what was asked for and the pod template it was rendered to.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// From 1, in order of making.
    pub number: i64,
    /// What a person asked for.
    pub spec: RevisionSpec,
    /// The pod template, the same for every cell; carries the number as a label.
    pub template: Value,
    /// Digest of spec and template without the number: equal snapshots are one revision.
    pub digest: String,
}

/// All revisions of a Group that are kept, by number.
pub type Revisions = BTreeMap<i64, Revision>;

/// One cell as a Group sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CellView {
    /// Name of the cell.
    pub name: String,
    /// The member it belongs to; empty where no Cluster names the cell.
    pub cluster: String,
    /// Its share of the Group; `None` for a cell that the Group has left.
    pub weight: Option<i32>,
    /// Whether the member answers and its watches are current.
    pub reachable: bool,
    /// Since when it does not.
    pub unreachable_since: Option<Timestamp>,
    /// Why releases stand still here, if they do.
    pub stopped: Option<String>,
    /// Node labels that make the cell.
    pub node_selector: BTreeMap<String, String>,
    /// Name of the Group's StatefulSet in the cell, where it is an adopted one with a name of its own.
    pub set_name: Option<String>,
    /// The Group's StatefulSet in the cell.
    pub set: Option<SetView>,
    /// Its instances by ordinal.
    pub instances: BTreeMap<i32, Instance>,
    /// How many instances people let it have: those below the ones they have removed or moved away.
    pub keep: Option<i32>,
    /// How many it has beyond its share, because people have moved them here.
    pub extra: i32,
    /// Quotas of the Group's namespace on the member, as far as they are known.
    pub quotas: Vec<Quota>,
    /// Allocatable resources of the cell's nodes, and what instances of Groups ask of them.
    pub capacity: Capacity,
    /// Adopted instances that no StatefulSet can have: they have names of another's giving.
    pub guests: Vec<Instance>,
    /// Nodes of the cell that wishes name.
    pub nodes: BTreeMap<String, NodeView>,
    /// What the cell's member has noted for the Group: which instance's next pod belongs on which node. `None`: not
    /// known.
    pub pins: Option<BTreeMap<String, String>>,
}

/// A node that an instance may be moved to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// Whether its kubelet says so.
    pub ready: bool,
    /// Whether it takes no new pods.
    pub cordoned: bool,
    /// Its taints, but that of a cordon.
    pub taints: Vec<Taint>,
    /// Allocatable resources.
    pub total: Amounts,
    /// What its pods ask for; `None` where it is not known.
    pub used: Option<Amounts>,
}

/// A taint of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; often none.
    #[serde(default)]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[serde(default)]
    pub effect: String,
}

/// A ResourceQuota.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quota {
    /// Its name.
    pub name: String,
    /// The PriorityClasses whose pods count; `None`: all pods.
    pub classes: Option<Vec<String>>,
    /// What may be asked for.
    pub hard: BTreeMap<String, Quantity>,
    /// What is.
    pub used: BTreeMap<String, Quantity>,
}

/// What a cell's nodes have; empty where it is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capacity {
    /// Allocatable on Ready nodes.
    pub total: BTreeMap<String, Quantity>,
    /// Asked for by instances of Groups.
    pub requested: BTreeMap<String, Quantity>,
}

/// A Group's StatefulSet in one cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetView {
    /// Resource version seen.
    pub version: String,
    /// Wished-for instances.
    pub replicas: i32,
    /// Ordinals from here on go to the update revision.
    pub partition: i32,
    /// Revision number that the template carries.
    pub revision: Option<i64>,
    /// Whether `status` is about the template (observedGeneration has caught up).
    pub observed: bool,
    /// `status.updateRevision`: the hash that instances of the template's revision carry.
    pub update_hash: String,
    /// `status.currentRevision`: the hash that instances below the partition come back with.
    pub current_hash: String,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// One instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// Resource version seen.
    pub version: String,
    /// Revision number it carries.
    pub revision: Option<i64>,
    /// Its `controller-revision-hash`.
    pub hash: String,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether the kubelet's status is about the spec as it is (where it says so).
    pub observed: bool,
    /// Since when all containers are ready; `None` while they are not.
    pub ready_since: Option<Timestamp>,
    /// Whether it is let into traffic.
    pub gate: Gate,
    /// The last update in place.
    pub mark: Option<Mark>,
    /// Its containers: image wished for, and the run under way.
    pub containers: BTreeMap<String, ContainerView>,
    /// What keeps it from being ready, in one line; empty where nothing is known.
    pub trouble: String,
    /// Since when it has found no node.
    pub unplaced_since: Option<Timestamp>,
    /// The node it is on; empty while it has none.
    pub node: String,
    /// The node that its pod was made for, where it was.
    pub pinned: Option<String>,
    /// When the pod was made.
    pub created: Option<Timestamp>,
    /// What people wish for it, set by [`group::people::mark`](crate::group::people::mark).
    pub wish: Wish,
}

/// What people wish for one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nothing of its own.
    #[default]
    None,
    /// That it stays out of service.
    Out,
    /// A new pod of the same name.
    Renew,
}

/// The in-service gate of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// The hub has not decided yet: the instance is new.
    #[default]
    Unset,
    /// In traffic as soon as its containers are ready.
    In,
    /// Out of traffic.
    Out {
        /// Why: the name of a [`Hold`].
        reason: String,
        /// Since when.
        since: Timestamp,
    },
}

/// One container of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerView {
    /// Image in the pod's spec.
    pub image: String,
    /// `containerID` of the present run; empty before the first.
    pub id: String,
    /// Restarts so far.
    pub restarts: i32,
    /// Whether it runs now.
    pub running: bool,
}

/// Record of an update in place, kept on the pod: it tells when the kubelet has taken the update,
/// since the ready condition of the old containers stands until then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The revision that the instance was taken to.
    pub revision: i64,
    /// The container runs that the update ends: those whose image changed.
    pub ends: BTreeMap<String, Run>,
}

/// One run of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// `containerID`.
    pub id: String,
    /// Restarts before it.
    pub restarts: i32,
    /// The image it runs.
    pub image: String,
}

/// Why the hub keeps an instance out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is being taken to another revision.
    Update,
    /// It has drained and is about to be replaced. While a release runs, an instance so marked is not put
    /// back on its old revision: the partition may be lowered past it on any later view.
    Replace,
    /// People keep it out.
    PulledOut,
    /// People want a new pod in its place.
    Renew,
    /// It is a bastion that nobody has accepted yet. Stands beyond the release that set it, until the
    /// Group or a later release comes to the instance's revision.
    Bastion,
}

impl Hold {
    /// The reason in the pod's condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Update => "Updating",
            Self::Replace => "Replacing",
            Self::PulledOut => "PulledOut",
            Self::Renew => "Renewing",
            Self::Bastion => "BastionNotAccepted",
        }
    }
}

impl Instance {
    /// Whether the last update in place has been taken up by the kubelet.
    pub fn settled(&self) -> bool {
        self.mark.as_ref().is_none_or(|mark| {
            mark.ends.iter().all(|(name, run)| {
                self.containers
                    .get(name)
                    .is_some_and(|c| c.running && (c.id != run.id || c.restarts > run.restarts))
            })
        })
    }

    /// Whether it is marked to be replaced.
    pub fn doomed(&self) -> bool {
        matches!(&self.gate, Gate::Out { reason, .. } if reason == Hold::Replace.reason())
    }

    /// Since when its containers are ready on what its spec says.
    pub fn fit_since(&self) -> Option<Timestamp> {
        self.ready_since
            .filter(|_| !self.terminating && self.observed && self.settled())
    }

    /// Whether it takes traffic, or will as soon as the kubelet and the endpoints follow.
    pub fn in_service(&self) -> bool {
        self.gate == Gate::In && self.fit_since().is_some()
    }
}

impl Quota {
    /// Of the API object. `None` for one whose scopes leave a Group's instances out.
    pub fn of(quota: &ResourceQuota) -> Option<Self> {
        let spec = quota.spec.clone().unwrap_or_default();
        let status = quota.status.clone().unwrap_or_default();
        let scopes = spec.scopes.unwrap_or_default();
        // Instances run until they are ended, and are asked something of.
        if scopes
            .iter()
            .any(|s| s == "Terminating" || s == "BestEffort")
        {
            return None;
        }
        let mut classes = None;
        let selector = spec.scope_selector.and_then(|s| s.match_expressions);
        for wanted in selector.unwrap_or_default() {
            match (wanted.scope_name.as_str(), wanted.operator.as_str()) {
                ("PriorityClass", "In") => classes = wanted.values,
                ("NotTerminating" | "NotBestEffort", "Exists") => {}
                // Of others it is not known whom they count.
                _ => return None,
            }
        }
        Some(Self {
            name: quota.metadata.name.clone().unwrap_or_default(),
            classes,
            hard: status.hard.or(spec.hard).unwrap_or_default(),
            used: status.used.unwrap_or_default(),
        })
    }
}

impl CellView {
    /// Name of one of the set's instances.
    pub fn instance(&self, group: &str, ordinal: i32) -> String {
        match &self.set_name {
            Some(set) => format!("{set}-{ordinal}"),
            None => gantry_api::Group::instance_name(group, &self.name, ordinal),
        }
    }

    /// Guests that take traffic. They have no gate: whoever is ready serves.
    pub fn guests_serving(&self) -> i32 {
        let all = self.guests.iter();
        all.filter(|g| g.fit_since().is_some()).count() as i32
    }

    /// Wished-for instances: those of the set as it stands now.
    pub fn replicas(&self) -> i32 {
        self.set.as_ref().map_or(0, |s| s.replicas)
    }

    /// Whether the set's template is at `revision` and the set's status says so.
    pub fn template_at(&self, revision: i64) -> bool {
        self.set.as_ref().is_some_and(|s| {
            s.revision == Some(revision) && s.observed && !s.update_hash.is_empty()
        })
    }

    /// Whether an instance lost now, at any ordinal, comes back on the template's revision: the set's
    /// current revision is that already, or becomes it because nothing is on another.
    pub fn all_come_new(&self) -> bool {
        self.set
            .as_ref()
            .is_some_and(|s| s.replicas == 0 || s.observed && s.current_hash == s.update_hash)
    }

    /// Whether `instance` runs `revision`, by its labels, both ours and the StatefulSet's.
    pub fn at(&self, instance: &Instance, revision: i64) -> bool {
        let Some(set) = &self.set else { return false };
        instance.revision == Some(revision)
            && (set.revision != Some(revision) || instance.hash == set.update_hash)
    }

    /// Wished-for instances that are not in service, missing ones included.
    pub fn out(&self) -> i32 {
        (0..self.replicas())
            .filter(|n| !self.instances.get(n).is_some_and(Instance::in_service))
            .count() as i32
    }
}
