//! What may change in an object that is there: immutable fields, and what a status may say.

use serde_json::Value;

use super::{
    Context, aggregation, apps, batch, classes, conditions, core, csi, devices,
    errors::Errors,
    flowcontrol, ingress, networking, node,
    pod_parts::non_negative,
    pod_update, rbac, service, storage,
    value::{at, has, int, list, same, text},
};
use crate::path::Path;

const IMMUTABLE: &str = "field is immutable";

/// Rules about the change that come before those about the new object. `false` ends validation
/// here, as Kubernetes does where the rest would only confuse.
pub fn before(cx: &Context<'_>, new: &Value, old: &Value, e: &mut Errors) -> bool {
    match (cx.resource.group.as_str(), cx.resource.kind.as_str()) {
        ("", "ConfigMap") => core::config_map_update(new, old, e),
        ("", "Secret") => core::secret_update(new, old, e),
        ("apps", "StatefulSet") => apps::stateful_set_update(new, old, e),
        ("discovery.k8s.io", "EndpointSlice") => {
            // A change of type would fault each address; only the change is reported.
            let fixed = immutable(new, old, &["addressType"], &Path::ROOT, e);
            return fixed || list(new, "endpoints").is_empty();
        }
        _ => {}
    }
    true
}

/// Rules about the change that come after those about the new object.
pub fn after(cx: &Context<'_>, new: &Value, old: &Value, e: &mut Errors) {
    let spec = Path::new("spec");
    let (new_spec, old_spec) = (at(new, "spec"), at(old, "spec"));
    let root = &Path::ROOT;
    match (cx.resource.group.as_str(), cx.resource.kind.as_str()) {
        ("", "Pod") => pod_update::spec(new, old, e),
        ("", "Service") => service::service_update(new, old, e),
        ("", "Node") => node::node_update(new, old, e),
        ("", "PersistentVolume") => storage::volume_update(new, old, e),
        ("", "PersistentVolumeClaim") => storage::claim_update(new, old, e),
        ("", "ResourceQuota") => {
            immutable(new_spec, old_spec, &["scopes"], &spec, e);
        }
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => {
            immutable(new_spec, old_spec, &["selector"], &spec, e);
        }
        ("apps", "ControllerRevision") => {
            immutable(new, old, &["data"], root, e);
        }
        ("batch", "Job") => batch::job_update(new, old, e),
        ("networking.k8s.io", "IPAddress") => {
            immutable(new_spec, old_spec, &["parentRef"], &spec, e);
        }
        ("networking.k8s.io", "ServiceCIDR") => networking::service_cidr_update(new, old, e),
        ("networking.k8s.io", "IngressClass") => {
            immutable(new_spec, old_spec, &["controller"], &spec, e);
        }
        ("node.k8s.io", "RuntimeClass") => {
            immutable(new, old, &["handler"], root, e);
        }
        ("storage.k8s.io", "StorageClass") => {
            let fields = [
                "parameters",
                "provisioner",
                "reclaimPolicy",
                "volumeBindingMode",
            ];
            immutable(new, old, &fields, root, e);
        }
        ("storage.k8s.io", "CSIDriver") => csi::driver_update(new, old, e),
        ("storage.k8s.io", "VolumeAttributesClass") => classes::attributes_update(new, old, e),
        ("storage.k8s.io", "CSINode") => csi::node_update(new, old, e),
        ("storage.k8s.io", "CSIStorageCapacity") => {
            immutable(new, old, &["nodeTopology", "storageClassName"], root, e);
        }
        ("storage.k8s.io", "VolumeAttachment") if new_spec != old_spec => {
            e.invalid(&spec, new_spec, IMMUTABLE);
        }
        ("rbac.authorization.k8s.io", kind) => {
            // Kubernetes looks at the whole twice.
            rbac::rbac(kind, new, e);
            if matches!(kind, "RoleBinding" | "ClusterRoleBinding") {
                rbac::binding_update(new, old, e);
            }
        }
        ("resource.k8s.io", kind) => devices::update(kind, new, old, e),
        ("scheduling.k8s.io", "PriorityClass") => {
            if int(new, "value") != int(old, "value") {
                e.forbidden(&Path::new("value"), "may not be changed in an update.");
            }
            immutable(new, old, &["preemptionPolicy"], root, e);
        }
        _ => {}
    }
}

/// Reports each changed field; tells whether none changed.
fn immutable(new: &Value, old: &Value, fields: &[&str], path: &Path<'_>, e: &mut Errors) -> bool {
    let mut fixed = true;
    for field in fields {
        let (new, old) = (at(new, field), at(old, field));
        if !same(new, old) {
            e.invalid(&path.child(field), new, IMMUTABLE);
            fixed = false;
        }
    }
    fixed
}

/// What a status may say.
pub fn status(cx: &Context<'_>, new: &Value, old: &Value, e: &mut Errors) {
    let path = Path::new("status");
    let (now, before) = (at(new, "status"), at(old, "status"));
    match (cx.resource.group.as_str(), cx.resource.kind.as_str()) {
        ("apps", "Deployment") => {
            counts(
                now,
                &[
                    "replicas",
                    "updatedReplicas",
                    "readyReplicas",
                    "availableReplicas",
                    "unavailableReplicas",
                ],
                &["updatedReplicas", "readyReplicas", "availableReplicas"],
                &path,
                e,
            );
            let ready = int(now, "readyReplicas").unwrap_or(0);
            let available = int(now, "availableReplicas").unwrap_or(0);
            if available > ready {
                e.invalid_int(
                    &path.child("availableReplicas"),
                    available,
                    "cannot be greater than readyReplicas",
                );
            }
        }
        ("apps", "ReplicaSet") | ("", "ReplicationController") => counts(
            now,
            &[
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
            ],
            &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            &path,
            e,
        ),
        ("apps", "StatefulSet") => counts(
            now,
            &[
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
            ],
            &["readyReplicas", "currentReplicas", "updatedReplicas"],
            &path,
            e,
        ),
        ("apps", "DaemonSet") => counts(
            now,
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
            ],
            &[],
            &path,
            e,
        ),
        ("batch", "Job") => {
            for field in ["active", "succeeded", "failed"] {
                non_negative(now, field, &path, e);
            }
            // A Job whose numbered pods all run at once may be scaled down after the fact: fewer
            // then have succeeded.
            let spec = at(new, "spec");
            let elastic = text(spec, "completionMode") == "Indexed"
                && int(spec, "completions") == int(spec, "parallelism");
            for field in ["succeeded", "failed"] {
                let (n, was) = (
                    int(now, field).unwrap_or(0),
                    int(before, field).unwrap_or(0),
                );
                if n < was && !(elastic && field == "succeeded") {
                    e.invalid_int(
                        &path.child(field),
                        n,
                        &format!("cannot decrease the {field} counter"),
                    );
                }
            }
            let suspended = at(at(new, "spec"), "suspend") == &Value::Bool(true);
            let start = at(now, "startTime");
            if !suspended && has(before, "startTime") && start != at(before, "startTime") {
                e.invalid(
                    &path.child("startTime"),
                    start,
                    "field is immutable for unsuspended job once set",
                );
            }
        }
        ("", "Pod") => pod_update::status(new, old, e),
        ("", "Service") => {
            let here = path.child("loadBalancer");
            service::balancer_status(at(now, "loadBalancer"), &here, e);
        }
        ("", "PersistentVolumeClaim") => storage::claim_status(now, &path, e),
        ("", "Namespace") => core::namespace_status(new, e),
        ("", "ResourceQuota") => core::quota_status(new, e),
        ("", "Node") => {
            node::amounts(new, e);
            node::node_update(new, old, e);
        }
        ("networking.k8s.io", "Ingress") => ingress::ingress_status(new, e),
        ("policy", "PodDisruptionBudget") => {
            conditions::conditions(now, &path.child("conditions"), e);
            for field in [
                "disruptionsAllowed",
                "currentHealthy",
                "desiredHealthy",
                "expectedPods",
            ] {
                non_negative(now, field, &path, e);
            }
        }
        ("autoscaling", "HorizontalPodAutoscaler") => {
            for field in ["currentReplicas", "desiredReplicas"] {
                non_negative(now, field, &path, e);
            }
        }
        ("flowcontrol.apiserver.k8s.io", _) => flowcontrol::status(now, &path, e),
        ("apiregistration.k8s.io", "APIService") => aggregation::status(new, e),
        ("resource.k8s.io", "ResourceClaim") => devices::status(new, old, e),
        ("storage.k8s.io", "VolumeAttachment") => csi::attachment_status(new, e),
        _ => {}
    }
}

/// Counters are not negative, and those of a part not above the whole.
fn counts(status: &Value, all: &[&str], parts: &[&str], path: &Path<'_>, e: &mut Errors) {
    for field in all {
        non_negative(status, field, path, e);
    }
    let whole = int(status, "replicas").unwrap_or(0);
    for field in parts {
        let n = int(status, field).unwrap_or(0);
        if n > whole {
            e.invalid_int(
                &path.child(field),
                n,
                "cannot be greater than status.replicas",
            );
        }
    }
}
