//! What planners ask of the shell. Each action is safe to repeat, and each that changes an object of a
//! member carries the resource version the decision was made on: on a stale view it fails with a
//! conflict and the planner is asked again.

use std::collections::BTreeMap;

use gantry_api::revision::{RevisionRef, RevisionSpec};

use crate::world::{Hold, Mark, Revision};

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Hub: write down a revision. Fails if the number is taken.
    CreateRevision(Box<Revision>),
    /// Hub: forget a revision that nothing refers to.
    PruneRevision {
        /// Its number.
        number: i64,
    },
    /// Hub: the Group is on another revision from now on (spec and status).
    SetGroupRevision {
        /// For the status.
        current: RevisionRef,
        /// For the spec.
        spec: Box<RevisionSpec>,
    },
    /// Hub: make sure that the Group is not gone before its members are clean.
    AddFinalizer,
    /// Hub: let the Group go.
    RemoveFinalizer,
    /// Member: namespace, service account, services, config and disruption budget.
    EnsureSupport {
        /// The member.
        cluster: String,
        /// Instances that the Group has on it.
        replicas: i32,
    },
    /// Member: remove what [`EnsureSupport`](Self::EnsureSupport) made for the Group, but the namespace.
    DeleteSupport {
        /// The member.
        cluster: String,
    },
    /// Member: note which instances' next pods belong on which node; these and no others.
    SetPins {
        /// The member.
        cluster: String,
        /// Node by instance.
        pins: BTreeMap<String, String>,
    },
    /// Member: make the cell's StatefulSet.
    CreateSet {
        /// The cell.
        cell: String,
        /// The revision it begins with.
        revision: i64,
        /// Instances.
        replicas: i32,
    },
    /// Member: remove the cell's StatefulSet and its pods.
    DeleteSet {
        /// The cell.
        cell: String,
    },
    /// Member: wish for another number of instances, and move the partition along in the same write.
    Scale {
        /// The cell.
        cell: String,
        /// Resource version seen.
        version: String,
        /// Instances.
        replicas: i32,
        /// Partition.
        partition: i32,
    },
    /// Member: give the set another revision's template, with a partition that touches no instance.
    SetTemplate {
        /// The cell.
        cell: String,
        /// Resource version seen.
        version: String,
        /// The revision.
        revision: i64,
        /// Partition.
        partition: i32,
    },
    /// Member: move the partition.
    SetPartition {
        /// The cell.
        cell: String,
        /// Resource version seen.
        version: String,
        /// Partition.
        partition: i32,
    },
    /// Member: let an instance into traffic (`hold` is `None`), or take it out.
    SetGate {
        /// The cell.
        cell: String,
        /// The instance.
        instance: String,
        /// Resource version seen.
        version: String,
        /// Why it stays out.
        hold: Option<Hold>,
        /// For people.
        message: String,
    },
    /// Member: take an instance to another revision without replacing it.
    UpdateInPlace {
        /// The cell.
        cell: String,
        /// The instance.
        instance: String,
        /// Resource version seen.
        version: String,
        /// The revision.
        revision: i64,
        /// `status.updateRevision` of the set.
        hash: String,
        /// New image by container.
        images: BTreeMap<String, String>,
        /// To be kept on the pod.
        mark: Mark,
    },
    /// Member: delete an instance; the StatefulSet brings it back on the revision its ordinal is due.
    DeleteInstance {
        /// The cell.
        cell: String,
        /// The instance.
        instance: String,
        /// UID seen.
        uid: String,
        /// Resource version seen.
        version: String,
    },
}
