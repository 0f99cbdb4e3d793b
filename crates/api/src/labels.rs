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
/// On Releases and Jobs that a ReleaseOrder has made: its name.
pub const ORDER: &str = "gantry.dev/order";
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
/// Label on ConfigMaps of a member that say which instance's next pod belongs on which node.
pub const MOVES: &str = "gantry.dev/moves";
/// Annotation on pods that were made for one node: its name.
pub const MOVED_TO: &str = "gantry.dev/moved-to";
/// Annotation on Releases: who started it, where `spec.requestedBy` is empty.
pub const REQUESTED_BY: &str = "gantry.dev/requested-by";
/// Annotation on objects of a member: the digest of what the hub last applied.
pub const APPLIED: &str = "gantry.dev/applied";
/// Annotation on pods and nodes that no real machine stands behind.
pub const SIMULATED: &str = "gantry.dev/simulated";

/// Annotation on Gantry's own objects: who last changed the spec, as the API server knows the user. Written by an
/// admission policy, so that nobody writes it in another's name.
pub const CHANGED_BY: &str = "gantry.dev/changed-by";
/// Annotation beside [`CHANGED_BY`]: the user's groups, separated by commas.
pub const CHANGED_BY_GROUPS: &str = "gantry.dev/changed-by-groups";
/// Annotation beside [`CHANGED_BY`]: the resource version that was changed, which tells one change by a user from
/// the next.
pub const CHANGED_FROM: &str = "gantry.dev/changed-from";
/// Annotation that a client may write in the same request as a change: why.
pub const CHANGE_NOTE: &str = "gantry.dev/change-note";
/// Annotation that a client may write before it deletes an object: why. It is stamped as a change is, so that the
/// record of the deletion says who.
pub const DELETE_NOTE: &str = "gantry.dev/delete-note";
/// On what belongs to a Tenant: its name.
pub const TENANT: &str = "gantry.dev/tenant";
/// Namespace of what is Gantry's own in the hub.
pub const SYSTEM_NAMESPACE: &str = "gantry-system";
/// Finalizer on Tenants: their roles and quotas are removed first.
pub const TENANT_FINALIZER: &str = "gantry.dev/tenant";

/// Label on ReplicaSets of a Deployment that is being adopted: the Group.
pub const ADOPTING: &str = "gantry.dev/adopting";
/// Kubernetes' own: on pods and ReplicaSets of a Deployment, which of its templates they are made from.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Finalizer on Groups: what they own on members is removed first.
pub const FINALIZER: &str = "gantry.dev/members";

/// Field manager (and event reporter) of the hub.
pub const FIELD_MANAGER: &str = "gantry-hub";

/// A resource: bytes a second of network, in and out together. Of a node's allocatable, what it can; of a pod's usage in
/// `metrics.k8s.io`, what it does, where somebody measures it.
pub const NETWORK: &str = "gantry.dev/network";
