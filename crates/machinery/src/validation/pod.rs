//! Pods and pod templates: the spec as a whole. Containers are in `pod_parts`, volumes in
//! `volumes`.

use serde_json::Value;

use super::{
    Context,
    errors::Errors,
    metadata, names, pod_parts, resources, selectors,
    value::{at, entries, flag, has, int, list, text},
    volumes,
};
use crate::path::Path;

/// A whole pod; with `old`, as an update may leave it.
pub fn pod(cx: &Context<'_>, pod: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = at(pod, "spec");
    let path = Path::new("spec");
    pod_annotations(at(pod, "metadata"), &Path::new("metadata"), e);
    pod_spec(cx, spec, &path, e);
    if old.is_none() && !list(spec, "ephemeralContainers").is_empty() {
        e.forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        );
    }
}

fn pod_annotations(metadata: &Value, path: &Path<'_>, e: &mut Errors) {
    let annotations = at(metadata, "annotations");
    let cost = text(annotations, DELETION_COST);
    let plain = cost.parse::<i32>().is_ok_and(|n| n.to_string() == cost);
    if !cost.is_empty() && !plain {
        let path = path.child("annotations");
        e.invalid_text(&path.child(DELETION_COST), cost, "must be a 32bit integer");
    }
}

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A `PodTemplateSpec`.
pub fn template(cx: &Context<'_>, template: &Value, path: &Path<'_>, e: &mut Errors) {
    let meta = at(template, "metadata");
    // Kubernetes leaves `metadata` out of these paths.
    metadata::labels(meta, "labels", &path.child("labels"), e);
    metadata::annotations(meta, &path.child("annotations"), e);
    let spec = at(template, "spec");
    let path = path.child("spec");
    pod_spec(cx, spec, &path, e);
    if !list(spec, "ephemeralContainers").is_empty() {
        e.forbidden(
            &path.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

const INT32_RANGE: &str = "must be between 1 and 2147483647, inclusive";

pub fn pod_spec(cx: &Context<'_>, spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let volumes = volumes::volumes(spec, &path.child("volumes"), e);
    resource_claims(spec, path, e);
    pod_parts::all_containers(cx, spec, path, &volumes, e);
    one_of(
        spec,
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
        path,
        e,
    );
    one_of(
        spec,
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        path,
        e,
    );
    metadata::labels(spec, "nodeSelector", &path.child("nodeSelector"), e);
    pod_security(spec, path, e);
    let secrets = path.child("imagePullSecrets");
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            e.required(&secrets.index(i).child("name"), "");
        }
    }
    selectors::affinity(at(spec, "affinity"), &path.child("affinity"), e);
    dns_config(spec, path, e);
    let gates = path.child("readinessGates");
    for (i, gate) in list(spec, "readinessGates").iter().enumerate() {
        let kind = text(gate, "conditionType");
        let path = gates.index(i).child("conditionType").to_string();
        e.invalid_each(&Path::new(&path), kind, names::qualified_name(kind));
    }
    scheduling_gates(spec, &path.child("schedulingGates"), e);
    spread(spec, &path.child("topologySpreadConstraints"), e);
    for (field, rule) in [
        (
            "serviceAccountName",
            names::dns1123_subdomain as fn(&str) -> _,
        ),
        ("nodeName", names::dns1123_subdomain),
    ] {
        let value = text(spec, field);
        if !value.is_empty() {
            e.invalid_each(&path.child(field), value, rule(value));
        }
    }
    if let Some(seconds) = int(spec, "activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        e.invalid_int(&path.child("activeDeadlineSeconds"), seconds, INT32_RANGE);
    }
    for field in ["hostname", "subdomain"] {
        let value = text(spec, field);
        if !value.is_empty() {
            e.invalid_each(&path.child(field), value, names::dns1123_label(value));
        }
    }
    selectors::tolerations(spec, &path.child("tolerations"), e);
    let aliases = path.child("hostAliases");
    for alias in list(spec, "hostAliases") {
        let ip = text(alias, "ip");
        e.invalid_each(&aliases.child("ip"), ip, names::ip(ip));
        for name in list(alias, "hostnames") {
            let name = name.as_str().unwrap_or("");
            e.invalid_each(
                &aliases.child("hostnames"),
                name,
                names::dns1123_subdomain(name),
            );
        }
    }
    for field in ["priorityClassName", "runtimeClassName"] {
        let value = text(spec, field);
        if !value.is_empty() {
            e.invalid_each(&path.child(field), value, names::dns1123_subdomain(value));
        }
    }
    let preemption = text(spec, "preemptionPolicy");
    if !preemption.is_empty() && !matches!(preemption, "PreemptLowerPriority" | "Never") {
        e.not_supported(
            &path.child("preemptionPolicy"),
            preemption,
            &["PreemptLowerPriority", "Never"],
        );
    }
    let overhead = path.child("overhead");
    for (name, value) in entries(spec, "overhead") {
        let path = overhead.key(name);
        resources::name(name, &path, e);
        resources::amount(name, value, &path, e);
    }
    let os = text(at(spec, "os"), "name");
    if has(spec, "os") && !matches!(os, "linux" | "windows") {
        let path = path.child("os").child("name").to_string();
        e.not_supported(&Path::new(&path), os, &["linux", "windows"]);
    }
}

fn one_of(spec: &Value, field: &str, supported: &[&str], path: &Path<'_>, e: &mut Errors) {
    let value = text(spec, field);
    if value.is_empty() {
        e.required(&path.child(field), "");
    } else if !supported.contains(&value) {
        e.not_supported(&path.child(field), value, supported);
    }
}

fn resource_claims(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let path = path.child("resourceClaims");
    let mut seen: Vec<&str> = Vec::new();
    for (i, claim) in list(spec, "resourceClaims").iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            e.required(&path.child("name"), "");
        } else if seen.contains(&name) {
            e.duplicate_text(&path.child("name"), name);
        } else {
            e.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        }
        seen.push(name);
        let sources = ["resourceClaimName", "resourceClaimTemplateName"]
            .iter()
            .filter(|f| has(claim, f))
            .count();
        if sources != 1 {
            let detail = if sources == 0 {
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            } else {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            };
            e.invalid_shown(&path, &super::errors::show(claim), detail);
        }
    }
}

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";

/// Users and groups are 31-bit numbers.
pub fn id(object: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    if let Some(id) = int(object, field)
        && !(0..=i64::from(i32::MAX)).contains(&id)
    {
        e.invalid_int(&path.child(field), id, ID_RANGE);
    }
}

fn pod_security(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let context = at(spec, "securityContext");
    let path = path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context, field, &path, e);
    }
    let groups = path.child("supplementalGroups");
    for (i, group) in list(context, "supplementalGroups").iter().enumerate() {
        let id = group.as_i64().unwrap_or(0);
        if !(0..=i64::from(i32::MAX)).contains(&id) {
            e.invalid_int(&groups.index(i), id, ID_RANGE);
        }
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        e.invalid_shown(
            &path.child("shareProcessNamespace"),
            "true",
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    let sysctls = path.child("sysctls");
    let mut seen: Vec<&str> = Vec::new();
    for (i, sysctl) in list(context, "sysctls").iter().enumerate() {
        let path = sysctls.index(i).to_string();
        let path = Path::new(&path);
        let name = text(sysctl, "name");
        if name.is_empty() {
            e.required(&path.child("name"), "");
        } else if !is_sysctl(name) {
            e.invalid_text(&path.child("name"), name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if seen.contains(&name) {
            e.duplicate_text(&path.child("name"), name);
        }
        seen.push(name);
    }
    let policy = text(context, "fsGroupChangePolicy");
    if !policy.is_empty() && !matches!(policy, "OnRootMismatch" | "Always") {
        e.not_supported(
            &path.child("fsGroupChangePolicy"),
            policy,
            &["Always", "OnRootMismatch"],
        );
    }
    pod_parts::seccomp(context, &path, e);
}

fn is_sysctl(name: &str) -> bool {
    let segment = |s: &str| {
        let bytes = s.as_bytes();
        let end = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !bytes.is_empty()
            && bytes.first().is_some_and(end)
            && bytes.last().is_some_and(end)
            && bytes.iter().all(|b| end(b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn dns_config(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let config = at(spec, "dnsConfig");
    let path = path.child("dnsConfig");
    if text(spec, "dnsPolicy") == "None" && list(config, "nameservers").is_empty() {
        e.required(
            &path.child("nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    let servers = list(config, "nameservers");
    let servers_path = path.child("nameservers");
    if servers.len() > 3 {
        e.invalid_shown(
            &servers_path,
            &super::errors::show(at(config, "nameservers")),
            "must not have more than 3 nameservers",
        );
    }
    for (i, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or("");
        e.invalid_each(&servers_path.index(i), server, names::ip(server));
    }
    let options = path.child("options");
    for (i, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            e.required(&options.index(i), "must not be empty");
        }
    }
}

fn scheduling_gates(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let path = path.index(i);
        let name = text(gate, "name");
        e.invalid_each(&path, name, names::qualified_name(name));
        if seen.contains(&name) {
            e.duplicate_text(&path, name);
        }
        seen.push(name);
    }
}

fn spread(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.index(i);
        let (key, action) = (
            text(constraint, "topologyKey"),
            text(constraint, "whenUnsatisfiable"),
        );
        let skew = int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            e.invalid_int(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        if key.is_empty() {
            e.required(&path.child("topologyKey"), "can not be empty");
        } else {
            e.invalid_each(&path.child("topologyKey"), key, names::qualified_name(key));
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            e.not_supported(
                &path.child("whenUnsatisfiable"),
                action,
                &["DoNotSchedule", "ScheduleAnyway"],
            );
        }
        if seen.contains(&(key, action)) {
            e.duplicate_shown(
                &path.child("{topologyKey, whenUnsatisfiable}"),
                &super::errors::quote(&format!("{{{key}, {action}}}")),
            );
        }
        seen.push((key, action));
        if let Some(domains) = int(constraint, "minDomains") {
            if domains <= 0 {
                e.invalid_int(
                    &path.child("minDomains"),
                    domains,
                    "must be greater than zero",
                );
            }
            if action != "DoNotSchedule" {
                e.invalid_int(
                    &path.child("minDomains"),
                    domains,
                    &format!(
                        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                    ),
                );
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = text(constraint, field);
            if !policy.is_empty() && !matches!(policy, "Honor" | "Ignore") {
                e.not_supported(&path.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        selectors::label_selector(
            at(constraint, "labelSelector"),
            &path.child("labelSelector"),
            e,
        );
    }
}
