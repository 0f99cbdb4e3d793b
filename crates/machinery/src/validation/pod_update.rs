//! What of a pod may change, and what its status may say.

use serde_json::{Map, Value};

use super::{
    errors::{Errors, show},
    names, selectors,
    value::{at, blank, down, entries, has, int, list, same, text},
};
use crate::path::Path;

const POD: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Of a pod only images, the deadline and more tolerations may change; scheduling gates may go,
/// and while there are any, the pod may be narrowed to fewer nodes. Containers are numbered: the
/// comparison walks both specs and copies nothing.
pub fn spec(new_pod: &Value, old_pod: &Value, e: &mut Errors) {
    mirror(new_pod, old_pod, e);
    let (new, old) = (at(new_pod, "spec"), at(old_pod, "spec"));
    let path = Path::new("spec");
    for field in ["containers", "initContainers"] {
        if list(new, field).len() != list(old, field).len() {
            e.forbidden(
                &path.child(field),
                "pod updates may not add or remove containers",
            );
            return;
        }
        images(new, field, &path.child(field), e);
    }
    let deadline = |spec: &Value| int(spec, "activeDeadlineSeconds");
    let here = path.child("activeDeadlineSeconds");
    match (deadline(new), deadline(old)) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            let detail = "must be between 0 and 2147483647, inclusive";
            e.invalid_int(&here, new, detail);
            return;
        }
        (Some(new), Some(old)) if new > old => {
            e.invalid_int(&here, new, "must be less than or equal to previous value");
            return;
        }
        (None, Some(_)) => e.invalid_shown(
            &here,
            "null",
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
    let here = path.child("tolerations");
    let (news, olds) = (list(new, "tolerations"), list(old, "tolerations"));
    if olds
        .iter()
        .all(|t| news.iter().any(|n| tolerates_alike(n, t)))
    {
        selectors::tolerations(new, &here, e);
    } else {
        e.forbidden(
            &here,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
    let here = path.child("schedulingGates");
    for (i, gate) in list(new, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        let before = list(old, "schedulingGates");
        if !before.iter().any(|g| text(g, "name") == name) {
            e.forbidden(
                &here.index(i).child("name"),
                &format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            );
        }
    }
    if new == old {
        return;
    }
    let gated = !list(old, "schedulingGates").is_empty();
    if gated {
        narrowed(new, old, &path, e);
    }
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
        "nodeSelector" if gated => true,
        "affinity" if gated => same_but(at(new, field), at(old, field), "nodeAffinity"),
        _ => same(at(new, field), at(old, field)),
    });
    if !rest {
        e.forbidden(&path, POD);
    }
}

fn images(spec: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    for (i, container) in list(spec, field).iter().enumerate() {
        let image = text(container, "image");
        let here = path.index(i);
        if image.is_empty() {
            e.required(&here.child("image"), "");
        }
        if image.trim() != image {
            let detail = "must not have leading or trailing whitespace";
            e.invalid_text(&here.child("image"), image, detail);
        }
    }
}

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Annotations by which kubelets mark what they run of themselves, and the profiles of old.
fn mirror(new: &Value, old: &Value, e: &mut Errors) {
    const PROFILE: &str = "container.apparmor.security.beta.kubernetes.io/";
    let metadata = Path::new("metadata");
    let path = metadata.child("annotations");
    let (new, old) = (at(new, "metadata"), at(old, "metadata"));
    let what = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(PROFILE) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, before) in entries(old, "annotations") {
        if let Some(what) = what(key)
            && at(new, "annotations").get(key) != Some(before)
        {
            e.forbidden(&path.key(key), &format!("may not remove or update {what}"));
        }
    }
    for (key, _) in entries(new, "annotations") {
        if let Some(what) = what(key)
            && at(old, "annotations").get(key).is_none()
        {
            e.forbidden(&path.key(key), &format!("may not add {what}"));
        }
    }
}

/// A gated pod may ask for more of its node, never for less.
fn narrowed(new: &Value, old: &Value, path: &Path<'_>, e: &mut Errors) {
    let (now, before) = (at(new, "nodeSelector"), at(old, "nodeSelector"));
    let kept = entries(old, "nodeSelector")
        .into_iter()
        .all(|(key, value)| now.get(key) == Some(value));
    if !same(now, before) && !kept {
        e.invalid(
            &path.child("nodeSelector"),
            now,
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        );
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let required = ["affinity", "nodeAffinity", REQUIRED];
    let now = list(down(new, &required), "nodeSelectorTerms");
    let before = list(down(old, &required), "nodeSelectorTerms");
    if before.is_empty() || now == before {
        return;
    }
    let affinity = path.child("affinity");
    let node = affinity.child("nodeAffinity");
    let required = node.child(REQUIRED);
    let here = required.child("nodeSelectorTerms");
    if now.len() != before.len() {
        let shown = if now.is_empty() {
            "null".to_owned()
        } else {
            show(&now.into())
        };
        e.invalid_shown(
            &here,
            &shown,
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
        return;
    }
    for (i, (now, before)) in now.iter().zip(before).enumerate() {
        let lists = ["matchExpressions", "matchFields"];
        let empty = |term: &Value| lists.iter().all(|l| list(term, l).is_empty());
        let more = lists
            .iter()
            .all(|l| list(now, l).starts_with(list(before, l)));
        if !more || (empty(before) && !empty(now)) {
            e.invalid(
                &here.index(i),
                now,
                "only additions are allowed (no mutations or deletions)",
            );
        }
    }
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

/// A pod's status.
pub fn status(pod: &Value, old: &Value, e: &mut Errors) {
    let (now, before) = (at(pod, "status"), at(old, "status"));
    let path = Path::new("status");
    conditions(now, e);
    let nominated = text(now, "nominatedNodeName");
    if !nominated.is_empty() && nominated != text(before, "nominatedNodeName") {
        e.invalid_each(
            &path.child("nominatedNodeName"),
            nominated,
            names::dns1123_subdomain(nominated),
        );
    }
    if !same(at(now, "qosClass"), at(before, "qosClass")) {
        let class = text(now, "qosClass");
        e.invalid_text(&path.child("qosClass"), class, "field is immutable");
    }
    let policy = text(at(pod, "spec"), "restartPolicy");
    if !blank(before) {
        let restarts: &[&str] = match policy {
            "Always" => &[],
            _ => &["containerStatuses", "initContainerStatuses"],
        };
        for field in restarts {
            ended(pod, old, field, policy, &path.child(field), e);
        }
        let field = "ephemeralContainerStatuses";
        ended(pod, old, field, "Never", &path.child(field), e);
    }
    claims(pod, now, &path.child("resourceClaimStatuses"), e);
    addresses(now, "podIPs", &path, e);
    if let Some(first) = list(now, "hostIPs").first()
        && text(first, "ip") != text(now, "hostIP")
    {
        let here = path.child("hostIPs");
        let here = here.index(0);
        let detail = "must be equal to `hostIP`";
        e.invalid_text(&here.child("ip"), text(first, "ip"), detail);
    }
    addresses(now, "hostIPs", &path, e);
}

fn conditions(status: &Value, e: &mut Errors) {
    // Kubernetes reports conditions under metadata.
    let metadata = Path::new("metadata");
    let path = metadata.child("conditions");
    for (i, condition) in list(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            let here = path.index(i);
            e.invalid_each(&here.child("Type"), kind, names::qualified_name(kind));
        }
    }
}

fn claims(pod: &Value, status: &Value, path: &Path<'_>, e: &mut Errors) {
    let known = list(at(pod, "spec"), "resourceClaims");
    let all = list(status, "resourceClaimStatuses");
    for (i, claim) in all.iter().enumerate() {
        let here = path.index(i);
        let here = here.child("name");
        let name = text(claim, "name");
        if !known.iter().any(|c| text(c, "name") == name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            e.invalid_text(&here, name, detail);
        }
        if all[..i].iter().any(|c| text(c, "name") == name) {
            e.duplicate_text(&here, name);
        }
        if let Some(name) = at(claim, "resourceClaimName").as_str() {
            e.invalid_each(&here, name, names::dns1123_subdomain(name));
        }
    }
}

/// Addresses of a pod or its host: one of each family.
fn addresses(status: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    let here = path.child(field);
    let all: Vec<&str> = list(status, field).iter().map(|a| text(a, "ip")).collect();
    for (i, ip) in all.iter().enumerate() {
        e.invalid_each(&here.index(i), ip, names::ip(ip));
    }
    if all.len() < 2 {
        return;
    }
    if !names::dual_stack(&all) {
        let detail = "may specify no more than one IP for each IP family";
        e.invalid(&here, at(status, field), detail);
    }
    for (i, ip) in all.iter().enumerate() {
        if all[..i].contains(ip) {
            e.duplicate_shown(&here.index(i), &format!("{{\"IP\":{ip:?}}}"));
        }
    }
}

/// A container that ended for good does not run again.
fn ended(new: &Value, old: &Value, field: &str, policy: &str, path: &Path<'_>, e: &mut Errors) {
    let (now, before) = (at(new, "status"), at(old, "status"));
    for (i, old) in list(before, field).iter().enumerate() {
        let ended = at(at(old, "state"), "terminated");
        if ended.is_null() {
            continue;
        }
        let name = text(old, "name");
        // A container with a policy or rules of its own follows those.
        let own = |c: &Value| {
            let starts = has(c, "restartPolicyRules")
                || matches!(text(c, "restartPolicy"), "Always" | "OnFailure");
            text(c, "name") == name && starts
        };
        let spec = at(new, "spec");
        let free = ["containers", "initContainers"]
            .iter()
            .any(|kind| list(spec, kind).iter().any(own));
        let restarts = policy == "OnFailure" && int(ended, "exitCode").unwrap_or(0) != 0;
        let found = list(now, field).iter().find(|c| text(c, "name") == name);
        let again = found.is_some_and(|c| !has(at(c, "state"), "terminated"));
        if again && !restarts && !free {
            e.forbidden(
                &path.index(i).child("state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}
