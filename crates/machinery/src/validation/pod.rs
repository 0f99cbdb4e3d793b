//! Pods and pod templates: the spec as a whole. Containers are in `pod_parts`, volumes in
//! `volumes`.

use serde_json::Value;

use super::{
    Context,
    errors::Errors,
    metadata, mounts, names, pod_parts, pod_resources, security, selectors,
    value::{at, flag, has, int, list, text},
    volumes,
};
use crate::path::Path;

/// A whole pod; with `old`, as an update may leave it.
pub fn pod(cx: &Context<'_>, pod: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = at(pod, "spec");
    let path = Path::new("spec");
    let metadata = at(pod, "metadata");
    pod_annotations(metadata, spec, &Path::new("metadata"), e);
    pod_spec(cx, spec, Some(text(metadata, "name")), &path, e);
    mounts::projected_tokens(spec, &path, e);
    if old.is_some() {
        return;
    }
    if !list(spec, "ephemeralContainers").is_empty() {
        e.forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        );
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        e.forbidden(
            &path.child("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        );
    }
}

fn pod_annotations(metadata: &Value, spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let annotations = at(metadata, "annotations");
    if annotations.is_null() {
        return;
    }
    let path = path.child("annotations");
    if has(annotations, MIRROR) && text(spec, "nodeName").is_empty() {
        e.invalid_text(
            &path.key(MIRROR),
            text(annotations, MIRROR),
            "must set spec.nodeName if mirror pod annotation is set",
        );
    }
    let cost = text(annotations, DELETION_COST);
    let plain = cost.parse::<i32>().is_ok_and(|n| n.to_string() == cost);
    if !cost.is_empty() && !plain {
        e.invalid_text(&path.key(DELETION_COST), cost, "must be a 32bit integer");
    }
    security::annotations(metadata, spec, &path, e);
}

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The labels and annotations of a `PodTemplateSpec`.
pub fn template_metadata(template: &Value, path: &Path<'_>, e: &mut Errors) {
    let meta = at(template, "metadata");
    // Kubernetes leaves `metadata` out of these paths.
    metadata::labels(meta, "labels", &path.child("labels"), e);
    metadata::annotations(meta, &path.child("annotations"), e);
    pod_annotations(meta, at(template, "spec"), path, e);
}

/// A `PodTemplateSpec`.
pub fn template(cx: &Context<'_>, template: &Value, path: &Path<'_>, e: &mut Errors) {
    template_metadata(template, path, e);
    let spec = at(template, "spec");
    let path = path.child("spec");
    pod_spec(cx, spec, None, &path, e);
    if !list(spec, "ephemeralContainers").is_empty() {
        e.forbidden(
            &path.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

const INT32_RANGE: &str = "must be between 1 and 2147483647, inclusive";

/// A pod's spec; `name` is the pod's, where it is of a pod and not of a template.
fn pod_spec(cx: &Context<'_>, spec: &Value, name: Option<&str>, path: &Path<'_>, e: &mut Errors) {
    if !has(spec, "terminationGracePeriodSeconds") {
        e.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::volumes(spec, name, &path.child("volumes"), e);
    resource_claims(spec, path, e);
    let parts = pod_parts::Pod {
        cx,
        spec,
        volumes: &volumes,
        whole: name.is_some(),
    };
    pod_parts::all_containers(&parts, path, e);
    pod_resources::of_pod(spec, &path.child("resources"), e);
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
    security::pod(spec, path, e);
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
    security::host_and_system(cx, spec, path, e);
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
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        let here = aliases.index(i);
        let ip = text(alias, "ip");
        e.invalid_each(&here.child("ip"), ip, names::ip(ip));
        let here = here.child("hostnames");
        for (i, name) in list(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            e.invalid_each(&here.index(i), name, names::dns1123_subdomain(name));
        }
    }
    if let Some(name) = at(spec, "hostnameOverride").as_str() {
        host_name_override(spec, name, &path.child("hostnameOverride"), e);
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
    pod_resources::overhead(spec, &path.child("overhead"), e);
    security::system(spec, path, e);
}

/// A host name of any form takes the place of all others.
fn host_name_override(spec: &Value, name: &str, path: &Path<'_>, e: &mut Errors) {
    e.invalid_each(path, name, names::dns1123_subdomain(name));
    if name.len() > 64 {
        e.too_long(path, 64);
    }
    if flag(spec, "hostNetwork") {
        e.forbidden(path, "may not be specified when `hostNetwork` is true");
    }
    if flag(spec, "setHostnameAsFQDN") {
        e.forbidden(
            path,
            "may not be specified when `setHostnameAsFQDN` is true",
        );
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
            let shown = security::internal(
                claim,
                &[
                    ("Name", "name"),
                    ("ResourceClaimName", "resourceClaimName"),
                    ("ResourceClaimTemplateName", "resourceClaimTemplateName"),
                ],
            );
            e.invalid_shown(&path, &shown, detail);
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = at(claim, field).as_str() {
                e.invalid_each(&path.child(field), name, names::dns1123_subdomain(name));
            }
        }
    }
}

fn dns_config(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let config = at(spec, "dnsConfig");
    let path = path.child("dnsConfig");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            e.required(&path, detail);
            return;
        }
        if list(config, "nameservers").is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            e.required(&path.child("nameservers"), detail);
            return;
        }
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
    searches(config, &path.child("searches"), e);
    let options = path.child("options");
    for (i, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            e.required(&options.index(i), "must not be empty");
        }
    }
}

fn searches(config: &Value, path: &Path<'_>, e: &mut Errors) {
    let all: Vec<&str> = list(config, "searches")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let shown = at(config, "searches");
    if all.len() > 32 {
        e.invalid(path, shown, "must not have more than 32 search paths");
    }
    if all.iter().map(|s| s.len() + 1).sum::<usize>() > 2048 + 1 {
        let detail =
            "must not have more than 2048 characters (including spaces) in the search list";
        e.invalid(path, shown, detail);
    }
    for (i, search) in all.into_iter().enumerate() {
        if search != "." {
            let search = search.strip_suffix('.').unwrap_or(search);
            e.invalid_each(&path.index(i), search, names::search_domain(search));
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
    let all = list(spec, "topologySpreadConstraints");
    for (i, constraint) in all.iter().enumerate() {
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
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            e.not_supported(
                &path.child("whenUnsatisfiable"),
                action,
                &["DoNotSchedule", "ScheduleAnyway"],
            );
        }
        let kind =
            |c: &Value| (text(c, "topologyKey") == key) && text(c, "whenUnsatisfiable") == action;
        if all.iter().skip(i + 1).any(kind) {
            e.duplicate_shown(
                &path.child("{topologyKey, whenUnsatisfiable}"),
                &super::errors::quote(&format!("{{{key}, {action}}}")),
            );
        }
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
        selectors::spread_keys(constraint, &path.child("matchLabelKeys"), e);
        selectors::label_selector(
            at(constraint, "labelSelector"),
            &path.child("labelSelector"),
            e,
        );
    }
}
