//! Names of labels, annotations, conditions, finalizers and field managers that Gantry writes.
//!
//! They are an interface: dashboards, network policies and other tools select by them.

/// On everything of an App: the App's name.
pub const APP: &str = "gantry.dev/app";
/// On everything of a Group: the Group's name.
pub const GROUP: &str = "gantry.dev/group";
/// On StatefulSets and pods: the cell they run in.
pub const CELL: &str = "gantry.dev/cell";
/// On pods and in pod templates: the number of the revision they run. A number in decimal.
pub const REVISION: &str = "gantry.dev/revision";
/// On pods: the environment of the Group.
pub const ENVIRONMENT: &str = "gantry.dev/environment";
/// On pods: the level of the App (`L0` to `L3`).
pub const LEVEL: &str = "gantry.dev/level";
/// On objects that Gantry made and will remove when their Group goes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "gantry";

/// Pod readiness gate and condition type: True while Gantry lets the instance receive traffic.
/// Only the hub writes it. The kubelet derives the pod's Ready condition from it.
pub const IN_SERVICE: &str = "gantry.dev/in-service";

/// Kubernetes' own: the StatefulSet controller compares it with `status.updateRevision`.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";
/// Kubernetes' own: the zone of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Kubernetes' own: the name of a node's host.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Annotation on pods: JSON record of the last update in place (see `gantry_hub::inplace`): which
/// revision, when, and which container runs have to end before the update counts as taken.
pub const IN_PLACE: &str = "gantry.dev/in-place";
/// Annotation on Releases: who started it, where `spec.requestedBy` is empty.
pub const REQUESTED_BY: &str = "gantry.dev/requested-by";
/// Annotation on objects of a member: the digest of what the hub last applied.
pub const APPLIED: &str = "gantry.dev/applied";
/// Annotation on pods and nodes that no real machine stands behind.
pub const SIMULATED: &str = "gantry.dev/simulated";

/// Finalizer on Groups: what they own on members is removed first.
pub const FINALIZER: &str = "gantry.dev/members";

/// Field manager (and event reporter) of the hub.
pub const FIELD_MANAGER: &str = "gantry-hub";
