//! NodeRestriction: a node changes itself and its own pods, and nothing that would let it draw
//! others' pods to itself.

use gantry_machinery::status::Failure;
use serde_json::{Map, Value};

use crate::{api::Cx, authn::UserInfo, authz::references, errors, object};

fn refuse<T>(cx: &Cx, name: &str, why: &str) -> Result<T, Failure> {
    Err(errors::forbidden(cx.resource(), name, why))
}

/// The node that asks. A user in the nodes' group whose name tells no node is refused.
fn node<'a>(cx: &Cx, user: &'a UserInfo, name: &str) -> Result<Option<&'a str>, Failure> {
    match user.node() {
        Some("") => refuse(
            cx,
            name,
            &format!("could not determine node from user {:?}", user.name),
        ),
        node => Ok(node),
    }
}

/// Looks at what a node writes; `old` is what was there.
pub fn check(cx: &Cx, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let user = cx.user.clone();
    let name = object::name(object);
    let Some(node) = node(cx, &user, name)? else {
        return Ok(());
    };
    let resource = cx.resource();
    match (
        resource.group.as_str(),
        resource.plural.as_str(),
        cx.target.subresource.as_str(),
    ) {
        ("", "pods", "") if old.is_none() => create_pod(cx, node, object),
        ("", "pods", "") => refuse(
            cx,
            name,
            &format!(
                "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
            ),
        ),
        ("", "pods", "status") => pod_status(cx, node, object, old),
        // Looked at by itself, as what it changes is not the pod.
        ("", "pods", "eviction") => Ok(()),
        ("", "pods", sub) => refuse(
            cx,
            name,
            &format!(
                "unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed"
            ),
        ),
        ("", "nodes", _) => own_node(cx, node, object, old),
        ("", "persistentvolumeclaims", "status") => claim_status(cx, node, object, old),
        ("", "persistentvolumeclaims", _) => refuse(cx, name, "may only update PVC status"),
        ("coordination.k8s.io", "leases", _) => {
            const NAMESPACE: &str = "kube-node-lease";
            if cx.target.namespace != NAMESPACE {
                let why = format!("can only access leases in the {NAMESPACE:?} system namespace");
                return refuse(cx, name, &why);
            }
            let why = "can only access node lease with the same name as the requesting node";
            own_name(cx, node, name, why)
        }
        ("storage.k8s.io", "csinodes", _) => own_name(
            cx,
            node,
            name,
            "can only access CSINode with the same name as the requesting node",
        ),
        ("resource.k8s.io", "resourceslices", _) => {
            let of = old.unwrap_or(object);
            if object::text(of, "/spec/nodeName") == node {
                return Ok(());
            }
            let why = "can only create ResourceSlice with the same NodeName as the requesting node";
            refuse(cx, name, why)
        }
        _ => Ok(()),
    }
}

fn own_name(cx: &Cx, node: &str, name: &str, why: &str) -> Result<(), Failure> {
    if name == node {
        return Ok(());
    }
    refuse(cx, name, why)
}

/// Looks at what a node deletes.
pub fn deletion(cx: &Cx, object: &Value) -> Result<(), Failure> {
    let user = cx.user.clone();
    let name = object::name(object);
    let Some(node) = node(cx, &user, name)? else {
        return Ok(());
    };
    let resource = cx.resource();
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") if object::text(object, "/spec/nodeName") != node => refuse(
            cx,
            name,
            &format!("node {node:?} can only delete pods with spec.nodeName set to itself"),
        ),
        ("", "nodes") if name != node => refuse(
            cx,
            name,
            &format!("node {node:?} is not allowed to modify node {name:?}"),
        ),
        ("", "persistentvolumeclaims") => refuse(cx, name, "may only update PVC status"),
        ("coordination.k8s.io", "leases") => own_name(
            cx,
            node,
            name,
            "can only access node lease with the same name as the requesting node",
        ),
        ("storage.k8s.io", "csinodes") => own_name(
            cx,
            node,
            name,
            "can only access CSINode with the same name as the requesting node",
        ),
        ("resource.k8s.io", "resourceslices") if object::text(object, "/spec/nodeName") != node => {
            let why = "can only delete ResourceSlice with the same NodeName as the requesting node";
            refuse(cx, name, why)
        }
        _ => Ok(()),
    }
}

/// Looks at the pod that a node evicts.
pub fn eviction(cx: &Cx, pod: &Value) -> Result<(), Failure> {
    let user = cx.user.clone();
    let name = object::name(pod);
    let Some(node) = node(cx, &user, name)? else {
        return Ok(());
    };
    if object::text(pod, "/spec/nodeName") == node {
        return Ok(());
    }
    let why = format!("node {node} can only evict pods with spec.nodeName set to itself");
    refuse(cx, name, &why)
}

/// Looks at the TokenRequest of a node: it must be for one of its pods, and for an audience that
/// the pod names.
pub fn token(cx: &Cx, request: &Value) -> Result<(), Failure> {
    let user = cx.user.clone();
    let name = cx.target.name.clone();
    let Some(node) = node(cx, &user, &name)? else {
        return Ok(());
    };
    let reference = |field: &str| {
        let reference = request.pointer("/spec/boundObjectRef");
        reference.map_or("", |r| object::text(r, &format!("/{field}")))
    };
    let pod = reference("name");
    if (reference("apiVersion"), reference("kind")) != ("v1", "Pod") || pod.is_empty() {
        return refuse(cx, &name, "node requested token not bound to a pod");
    }
    let uid = reference("uid");
    if uid.is_empty() {
        let why = "node requested token with a pod binding without a uid";
        return refuse(cx, &name, why);
    }
    let full = format!("{}/{pod}", cx.target.namespace);
    let Some(pod) = super::stored(cx, "/pods", &full) else {
        return Err(errors::not_found_named("pods", pod));
    };
    if object::meta_text(&pod, "uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return refuse(cx, &name, &why);
    }
    if object::text(&pod, "/spec/nodeName") != node {
        let why = "node requested token bound to a pod scheduled on a different node";
        return refuse(cx, &name, why);
    }
    audience(cx, request, &pod)
}

/// A node asks for tokens of the audiences that the pod's volumes name, or of this API.
fn audience(cx: &Cx, request: &Value, pod: &Value) -> Result<(), Failure> {
    let name = cx.target.name.clone();
    let audiences = object::strings(request.pointer("/spec/audiences"));
    let wanted = match audiences.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => return refuse(cx, &name, "node may only request 0 or 1 audiences"),
    };
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    for volume in volumes.into_iter().flatten() {
        let sources = volume
            .pointer("/projected/sources")
            .and_then(Value::as_array);
        for source in sources.into_iter().flatten() {
            let Some(token) = source.get("serviceAccountToken") else {
                continue;
            };
            let named = object::text(token, "/audience");
            if named == wanted || named.is_empty() && cx.api.authenticator.is_here(wanted) {
                return Ok(());
            }
        }
        let driver = match object::text(volume, "/csi/driver") {
            "" => driver_of_claim(cx, pod, volume),
            driver => Some(driver.to_owned()),
        };
        if driver.is_some_and(|driver| driver_wants(cx, &driver, wanted)) {
            return Ok(());
        }
    }
    let a = crate::authz::Attributes {
        verb: "request-serviceaccounts-token-audience",
        resource: wanted,
        namespace: &cx.target.namespace,
        name: &name,
        ..crate::authz::Attributes::default()
    };
    if cx.may(&a) {
        return Ok(());
    }
    let why = format!("audience {wanted:?} not found in pod spec volume");
    refuse(cx, &name, &why)
}

fn driver_of_claim(cx: &Cx, pod: &Value, volume: &Value) -> Option<String> {
    let mut alone = serde_json::json!({"metadata": {"name": object::name(pod)}, "spec": {}});
    alone["spec"]["volumes"] = vec![volume.clone()].into();
    let claim = references::claims(&alone).pop()?;
    let full = format!("{}/{claim}", cx.target.namespace);
    let claim = super::stored(cx, "/persistentvolumeclaims", &full)?;
    let volume = super::stored(
        cx,
        "/persistentvolumes",
        object::text(&claim, "/spec/volumeName"),
    )?;
    let driver = object::text(&volume, "/spec/csi/driver");
    (!driver.is_empty()).then(|| driver.to_owned())
}

fn driver_wants(cx: &Cx, driver: &str, audience: &str) -> bool {
    let Some(driver) = super::stored(cx, "storage.k8s.io/csidrivers", driver) else {
        return false;
    };
    let requests = driver
        .pointer("/spec/tokenRequests")
        .and_then(Value::as_array);
    requests.into_iter().flatten().any(|request| {
        let named = object::text(request, "/audience");
        named == audience || named.is_empty() && cx.api.authenticator.is_here(audience)
    })
}

const MIRROR: &str = "kubernetes.io/config.mirror";

fn create_pod(cx: &Cx, node: &str, pod: &Value) -> Result<(), Failure> {
    let name = object::name(pod);
    let no = |why: String| refuse(cx, name, &why);
    let notes = object::meta(pod).and_then(|m| m.get("annotations"));
    if notes.and_then(|n| n.get(MIRROR)).is_none() {
        return no(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if object::text(pod, "/spec/nodeName") != node {
        return no(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    let owners = pod
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let owner = match owners.map(Vec::as_slice) {
        None | Some([]) => {
            return no(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        Some([owner]) => owner,
        Some(_) => {
            return no(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    let of = |field: &str| object::text(owner, &format!("/{field}"));
    if (of("apiVersion"), of("kind"), of("name")) != ("v1", "Node", node) {
        return no(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    }
    if owner.get("controller") != Some(&Value::Bool(true)) {
        return no(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) {
        return no(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    let Some(there) = super::stored(cx, "/nodes", node) else {
        return Err(errors::not_found_named("nodes", node));
    };
    let uid = object::meta_text(&there, "uid");
    if of("uid") != uid {
        return no(format!(
            "node {node} UID mismatch: expected {} got {uid}",
            of("uid")
        ));
    }
    let references = |what: &str| {
        no(format!(
            "node {node:?} can not create pods that reference {what}"
        ))
    };
    if !object::text(pod, "/spec/serviceAccountName").is_empty() {
        return references("a service account");
    }
    if let Some((kind, _)) = references::settings(pod).into_iter().next() {
        return references(match kind {
            crate::authz::NodeReference::Secret => "secrets",
            _ => "configmaps",
        });
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    for volume in volumes.into_iter().flatten() {
        let sources = volume
            .pointer("/projected/sources")
            .and_then(Value::as_array);
        for source in sources.into_iter().flatten() {
            if source.get("clusterTrustBundle").is_some() {
                return references("clustertrustbundles");
            }
        }
        if volume.get("persistentVolumeClaim").is_some() {
            return references("persistentvolumeclaims");
        }
    }
    let claims = pod
        .pointer("/spec/resourceClaims")
        .and_then(Value::as_array);
    if claims.is_some_and(|claims| !claims.is_empty()) {
        return references("resourceclaims");
    }
    Ok(())
}

fn pod_status(cx: &Cx, node: &str, pod: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let name = object::name(pod);
    let Some(old) = old else { return Ok(()) };
    if object::text(old, "/spec/nodeName") != node {
        let why = format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        );
        return refuse(cx, name, &why);
    }
    if old.pointer("/metadata/labels") != pod.pointer("/metadata/labels") {
        let why = format!("node {node:?} cannot update labels through pod status");
        return refuse(cx, name, &why);
    }
    for (field, what) in [
        ("resourceClaimStatuses", "resource claim statues"),
        (
            "extendedResourceClaimStatus",
            "extended resource claim status",
        ),
    ] {
        let of = |pod: &Value| pod.pointer(&format!("/status/{field}")).cloned();
        if of(old) != of(pod) {
            return refuse(cx, name, &format!("node {node:?} cannot update {what}"));
        }
    }
    Ok(())
}

fn own_node(cx: &Cx, node: &str, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let name = object::name(object);
    if name != node {
        let why = format!("node {node:?} is not allowed to modify node {name:?}");
        return refuse(cx, name, &why);
    }
    let empty = Map::new();
    let labels = |node: &Value| -> Map<String, Value> {
        let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
        labels.unwrap_or(&empty).clone()
    };
    let source = |node: &Value| {
        node.pointer("/spec/configSource")
            .filter(|s| !s.is_null())
            .cloned()
    };
    let new = labels(object);
    let Some(old) = old else {
        if source(object).is_some() {
            let why =
                format!("node {node:?} is not allowed to create pods with a non-nil configSource");
            return refuse(cx, name, &why);
        }
        let bad = forbidden(new.keys());
        if !bad.is_empty() {
            let why = format!(
                "node {node:?} is not allowed to set the following labels: {}",
                bad.join(", ")
            );
            return refuse(cx, name, &why);
        }
        return Ok(());
    };
    if source(object).is_some() && source(object) != source(old) {
        let why = format!(
            "node {node:?} is not allowed to update configSource to a new non-nil configSource"
        );
        return refuse(cx, name, &why);
    }
    let list = |node: &Value, pointer: &str| {
        let list = node.pointer(pointer).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    for (pointer, what) in [
        ("/spec/taints", "taints"),
        ("/metadata/ownerReferences", "ownerReferences"),
    ] {
        if list(object, pointer) != list(old, pointer) {
            let why = format!("node {node:?} is not allowed to modify {what}");
            return refuse(cx, name, &why);
        }
    }
    let before = labels(old);
    let changed = new
        .keys()
        .chain(before.keys())
        .filter(|key| new.get(*key) != before.get(*key));
    let bad = forbidden(changed);
    if !bad.is_empty() {
        let why = format!("is not allowed to modify labels: {}", bad.join(", "));
        return refuse(cx, name, &why);
    }
    Ok(())
}

/// Labels of Kubernetes that kubelets set on their own nodes.
const KUBELET_LABELS: [&str; 12] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Of these labels those that no node may set of itself.
fn forbidden<'a>(labels: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let within = |space: &str, domain: &str| {
        space == domain
            || space
                .strip_suffix(domain)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    let mut bad: Vec<&str> = labels
        .map(String::as_str)
        .filter(|label| {
            let space = label.split_once('/').map_or("", |(space, _)| space);
            if within(space, "node-restriction.kubernetes.io") {
                return true;
            }
            let ours = within(space, "kubernetes.io") || within(space, "k8s.io");
            let kubelets = KUBELET_LABELS.contains(label)
                || *label == "node.kubernetes.io/instance-type"
                || within(space, "kubelet.kubernetes.io")
                || within(space, "node.kubernetes.io");
            ours && !kubelets
        })
        .collect();
    bad.sort_unstable();
    bad.dedup();
    bad
}

fn claim_status(cx: &Cx, node: &str, claim: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let Some(old) = old else { return Ok(()) };
    let rest = |claim: &Value| {
        let mut rest = claim.clone();
        for (parent, field) in [
            ("/metadata", "resourceVersion"),
            ("/metadata", "managedFields"),
            ("/status", "capacity"),
            ("/status", "conditions"),
            ("/status", "allocatedResources"),
            ("/status", "allocatedResourceStatuses"),
        ] {
            let parent = rest.pointer_mut(parent).and_then(Value::as_object_mut);
            parent.and_then(|p| p.remove(field));
        }
        rest
    };
    if rest(old) == rest(claim) {
        return Ok(());
    }
    let why = format!(
        "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
    );
    refuse(cx, object::name(claim), &why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_do_not_label_themselves_into_others_trust() {
        let labels = [
            "example.com/role",
            "kubelet.kubernetes.io/x",
            "kubernetes.io/hostname",
            "kubernetes.io/role",
            "node-restriction.kubernetes.io/secure",
            "node.kubernetes.io/instance-type",
            "a.node-restriction.kubernetes.io/x",
            "notkubernetes.io/x",
            "plain",
        ]
        .map(str::to_owned);
        assert_eq!(
            forbidden(labels.iter()),
            [
                "a.node-restriction.kubernetes.io/x",
                "kubernetes.io/role",
                "node-restriction.kubernetes.io/secure",
            ]
        );
    }
}
