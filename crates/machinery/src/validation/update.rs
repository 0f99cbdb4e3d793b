//! What may change in an object that is there: immutable fields, and what a status may say.

use serde_json::{Map, Value};

use super::{
    Context, apps, batch, core,
    errors::Errors,
    node,
    pod_parts::non_negative,
    rbac, service, storage,
    value::{at, blank, has, int, list, same, text},
};
use crate::path::Path;

const IMMUTABLE: &str = "field is immutable";

/// Rules about the change that come before those about the new object. `false` ends validation
/// here, as Kubernetes does where the rest would only confuse.
pub fn before(cx: &Context<'_>, new: &Value, old: &Value, e: &mut Errors) -> bool {
    match (cx.resource.group.as_str(), cx.resource.kind.as_str()) {
        ("", "ConfigMap") => core::config_map_update(new, old, e),
        ("", "Secret") => core::secret_update(new, old, e),
        ("", "Pod") => return pod(new, old, e),
        ("apps", "StatefulSet") => apps::stateful_set_update(new, old, e),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            rbac::binding_update(new, old, e);
        }
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
        ("storage.k8s.io", "CSIDriver") => {
            let fields = ["attachRequired", "volumeLifecycleModes"];
            immutable(new_spec, old_spec, &fields, &spec, e);
        }
        ("storage.k8s.io", "VolumeAttachment") if new_spec != old_spec => {
            e.invalid(&spec, new_spec, IMMUTABLE);
        }
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

const POD: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Of a pod only images, the deadline and more tolerations may change; scheduling gates may go,
/// and while there are any, the pod may be narrowed to fewer nodes. Containers are numbered: the
/// comparison walks both specs and copies nothing.
fn pod(new: &Value, old: &Value, e: &mut Errors) -> bool {
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let path = Path::new("spec");
    for field in ["containers", "initContainers"] {
        if list(new, field).len() != list(old, field).len() {
            e.forbidden(
                &path.child(field),
                "pod updates may not add or remove containers",
            );
            return false;
        }
    }
    let gates = path.child("schedulingGates");
    for (i, gate) in list(new, "schedulingGates").iter().enumerate() {
        if !list(old, "schedulingGates").contains(gate) {
            e.forbidden(
                &gates.index(i).child("name"),
                &format!(
                    "only deletion is allowed, but found new scheduling gate '{}'",
                    text(gate, "name")
                ),
            );
        }
    }
    let deadline = |spec: &Value| int(spec, "activeDeadlineSeconds");
    let here = path.child("activeDeadlineSeconds");
    match (deadline(new), deadline(old)) {
        (Some(new), Some(old)) if new > old => {
            e.invalid_int(&here, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => e.invalid_shown(
            &here,
            "null",
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
    let (news, olds) = (list(new, "tolerations"), list(old, "tolerations"));
    if !olds
        .iter()
        .all(|t| news.iter().any(|n| tolerates_alike(n, t)))
    {
        e.forbidden(
            &path.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
    let gated = !list(old, "schedulingGates").is_empty();
    let grace = |spec: &Value| int(spec, "terminationGracePeriodSeconds").unwrap_or(30);
    let rest = fields(new, old).all(|field| match field {
        "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => true,
        "containers" | "initContainers" => {
            let pairs = list(new, field).iter().zip(list(old, field));
            pairs.into_iter().all(|(a, b)| same_but(a, b, "image"))
        }
        "terminationGracePeriodSeconds" => {
            grace(new) == grace(old) || (grace(old) < 0 && grace(new) == 1)
        }
        "nodeSelector" if gated => {
            let before = at(old, field).as_object();
            before
                .into_iter()
                .flatten()
                .all(|(k, v)| at(new, field).get(k) == Some(v))
        }
        "affinity" if gated => true,
        _ => same(at(new, field), at(old, field)),
    });
    if !rest {
        e.forbidden(&path, POD);
    }
    true
}

fn tolerates_alike(a: &Value, b: &Value) -> bool {
    ["key", "operator", "value", "effect"]
        .iter()
        .all(|f| same(at(a, f), at(b, f)))
}

/// Names of the fields of either object.
fn fields<'a>(a: &'a Value, b: &'a Value) -> impl Iterator<Item = &'a str> {
    static NONE: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
    let keys = |v: &'a Value| v.as_object().unwrap_or_else(|| NONE.get_or_init(Map::new));
    let (a, b) = (keys(a), keys(b));
    a.keys()
        .chain(b.keys().filter(move |k| !a.contains_key(*k)))
        .map(String::as_str)
}

fn same_but(a: &Value, b: &Value, free: &str) -> bool {
    fields(a, b).all(|f| f == free || same(at(a, f), at(b, f)))
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
            for field in ["succeeded", "failed"] {
                let (n, was) = (
                    int(now, field).unwrap_or(0),
                    int(before, field).unwrap_or(0),
                );
                if n < was {
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
        ("", "Pod") => {
            let nominated = text(now, "nominatedNodeName");
            if !nominated.is_empty() {
                e.invalid_each(
                    &path.child("nominatedNodeName"),
                    nominated,
                    super::names::dns1123_subdomain(nominated),
                );
            }
            pod_containers(new, before, now, &path, e);
        }
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

/// A container that ended for good does not run again.
fn pod_containers(pod: &Value, before: &Value, now: &Value, path: &Path<'_>, e: &mut Errors) {
    let policy = text(at(pod, "spec"), "restartPolicy");
    if policy == "Always" || blank(before) {
        return;
    }
    for field in ["containerStatuses", "initContainerStatuses"] {
        let here = path.child(field);
        for (i, old) in list(before, field).iter().enumerate() {
            let ended = at(at(old, "state"), "terminated");
            if ended.is_null() {
                continue;
            }
            let restarts = policy == "OnFailure" && int(ended, "exitCode").unwrap_or(0) != 0;
            let found = list(now, field)
                .iter()
                .find(|c| text(c, "name") == text(old, "name"));
            let again = found.is_some_and(|c| !has(at(c, "state"), "terminated"));
            if again && !restarts {
                e.forbidden(
                    &here.index(i).child("state"),
                    "may not be transitioned to non-terminated state",
                );
            }
        }
    }
}
