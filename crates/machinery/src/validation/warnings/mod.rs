//! What is allowed but probably not meant: texts for `Warning` headers, by kind.

mod addresses;
mod pods;

use serde_json::Value;

use super::{
    names,
    value::{at, down, entries, has, int, list, text},
};
use crate::{path::Path, resource::Resource, validation::resources};

/// Warnings about an object that is valid and about to be created or, with `old`, to replace it.
pub fn warnings(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    if resource.custom.is_some() {
        finalizers(new, old, &mut out);
        return out;
    }
    let spec = at(new, "spec");
    let path = Path::new("spec");
    // Of an update of most workloads only a changed spec is looked at.
    let unchanged = old.is_some_and(|old| at(old, "spec") == spec);
    match (resource.group.as_str(), resource.kind.as_str()) {
        // Updates of pods are too many, and are not made by people.
        ("", "Pod") if old.is_none() => {
            host_name(new, "the Pod's hostname", &mut out);
            pods::template(None, new, &mut out);
        }
        ("", "PodTemplate") => {
            pods::template(Some(&Path::new("template")), at(new, "template"), &mut out);
        }
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("", "ReplicationController")
            if !unchanged =>
        {
            if old.is_none() && resource.kind != "DaemonSet" {
                host_name(new, "Pod names and hostnames", &mut out);
            }
            let template = path.child("template");
            pods::template(Some(&template), at(spec, "template"), &mut out);
            if resource.kind == "StatefulSet" {
                stateful_set(spec, &path, &mut out);
            }
        }
        ("batch", "Job") if !unchanged => {
            if old.is_none() {
                host_name(new, "Pod names and hostnames", &mut out);
            }
            job(spec, &path, &mut out);
        }
        ("batch", "CronJob") => {
            if old.is_none() {
                host_name(new, "Job and Pod names and hostnames", &mut out);
            }
            let template = path.child("jobTemplate");
            let inner = template.child("spec");
            job(down(spec, &["jobTemplate", "spec"]), &inner, &mut out);
            let schedule = text(spec, "schedule");
            if schedule.contains("TZ") {
                out.push(format!(
                    "{}: CRON_TZ or TZ used in {schedule} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                    path.child("schedule")
                ));
            }
        }
        ("", "Service") => service(new, spec, &path, &mut out),
        ("", "Endpoints") => {
            let subsets = Path::new("subsets");
            for (i, subset) in list(new, "subsets").iter().enumerate() {
                let here = subsets.index(i);
                for field in ["addresses", "notReadyAddresses"] {
                    let here = here.child(field);
                    for (i, address) in list(subset, field).iter().enumerate() {
                        let ip = text(address, "ip");
                        addresses::ip(ip, &here.index(i).child("ip"), &mut out);
                    }
                }
            }
        }
        ("", "ServiceAccount") => {
            const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
            let annotated = |object| has(down(object, &["metadata", "annotations"]), ENFORCE);
            if annotated(new) && !old.is_some_and(annotated) {
                out.push(format!(
                    "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
                ));
            }
        }
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice(new, &mut out),
        ("", "PersistentVolumeClaim") => {
            class_annotation(new, &mut out);
            claim(spec, &path, &mut out);
        }
        ("", "PersistentVolume") => persistent_volume(new, spec, &path, &mut out),
        ("", "Node") => {
            if has(spec, "configSource") {
                out.push(format!(
                    "{}: deprecated in v1.22, support removal is planned in v1.23",
                    path.child("configSource")
                ));
            }
            if !text(spec, "externalID").is_empty() {
                out.push(format!(
                    "{}: this field is deprecated, and is unused by Kubernetes",
                    path.child("externalID")
                ));
            }
            let here = path.child("podCIDRs");
            for (i, cidr) in list(spec, "podCIDRs").iter().enumerate() {
                addresses::cidr(cidr.as_str().unwrap_or(""), &here.index(i), &mut out);
            }
        }
        ("networking.k8s.io", "Ingress") => {
            const CLASS: &str = "kubernetes.io/ingress.class";
            if old.is_none() && has(down(new, &["metadata", "annotations"]), CLASS) {
                out.push(format!(
                    "annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"
                ));
            }
        }
        ("networking.k8s.io", "NetworkPolicy") => network_policy(spec, &path, &mut out),
        ("node.k8s.io", "RuntimeClass") => {
            for (label, _) in entries(at(new, "scheduling"), "nodeSelector") {
                if let Some(why) = pods::deprecated_label(label) {
                    out.push(format!("scheduling.nodeSelector: {why}"));
                }
            }
        }
        ("storage.k8s.io", "StorageClass") => {
            let topologies = Path::new("allowedTopologies");
            for (i, term) in list(new, "allowedTopologies").iter().enumerate() {
                let term_path = topologies.index(i);
                let here = term_path.child("matchLabelExpressions");
                for (i, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
                    let key = text(expression, "key");
                    if let Some(why) = pods::deprecated_label(key) {
                        out.push(format!("{}: {key} is {why}", here.index(i).child("key")));
                    }
                }
            }
        }
        ("storage.k8s.io", "CSIDriver")
            if !list(spec, "tokenRequests").is_empty()
                && !has(spec, "serviceAccountTokenInSecrets") =>
        {
            out.push("spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".into());
        }
        _ => {}
    }
    out
}

/// Names of pods become host names, which are labels.
fn host_name(object: &Value, used: &str, out: &mut Vec<String>) {
    let faults = names::dns1123_label(text(at(object, "metadata"), "name"));
    if !faults.is_empty() {
        out.push(format!(
            "metadata.name: this is used in {used}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            faults.join(" ")
        ));
    }
}

fn stateful_set(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let claims = path.child("volumeClaimTemplates");
    for (i, template) in list(spec, "volumeClaimTemplates").iter().enumerate() {
        let here = claims.index(i);
        claim(at(template, "spec"), &here.child("spec"), out);
    }
    if int(spec, "revisionHistoryLimit").is_some_and(|n| n < 0) {
        out.push(format!(
            "{}: a negative value retains all historical revisions; a value >= 0 is recommended",
            path.child("revisionHistoryLimit")
        ));
    }
}

fn job(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let count = |field| int(spec, field).unwrap_or(0);
    if text(spec, "completionMode") == "Indexed"
        && count("completions") > 100_000
        && count("parallelism") > 10_000
    {
        out.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    pods::template(Some(&path.child("template")), at(spec, "template"), out);
}

/// Names of finalizers that a custom resource did not have before.
fn finalizers(new: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    let of = |object| {
        let all = list(at(object, "metadata"), "finalizers").iter();
        all.filter_map(Value::as_str).collect::<Vec<_>>()
    };
    let before = old.map(of).unwrap_or_default();
    let mut added = of(new);
    added.retain(|name| !before.contains(name));
    added.sort_unstable();
    added.dedup();
    for name in added {
        let mut say = |what: &str| out.push(format!("metadata.finalizers: {name:?}: {what}"));
        for fault in names::qualified_name(name) {
            say(&fault);
        }
        if !name.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&name) {
            let path = if name.contains('.') {
                " including a path (/)"
            } else {
                ""
            };
            say(&format!(
                "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            ));
        }
    }
}

fn service(object: &Value, spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    if has(down(object, &["metadata", "annotations"]), HINTS) {
        out.push(format!(
            "annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
    }
    let kind = text(spec, "type");
    let headless = kind == "ClusterIP" && text(spec, "clusterIP") == "None";
    let external = list(spec, "externalIPs");
    if headless {
        if !text(spec, "loadBalancerIP").is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".into());
        }
        if !external.is_empty() {
            out.push("spec.externalIPs is ignored for headless services".into());
        }
        if text(spec, "sessionAffinity") != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".into());
        }
    } else {
        let here = path.child("clusterIPs");
        for (i, ip) in list(spec, "clusterIPs").iter().enumerate() {
            addresses::ip(ip.as_str().unwrap_or(""), &here.index(i), out);
        }
    }
    let here = path.child("externalIPs");
    for (i, ip) in external.iter().enumerate() {
        addresses::ip(ip.as_str().unwrap_or(""), &here.index(i), out);
    }
    if !external.is_empty() && !headless && kind != "ExternalName" {
        out.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
                .into(),
        );
    }
    let balancer = text(spec, "loadBalancerIP");
    if !balancer.is_empty() {
        addresses::ip(balancer, &path.child("loadBalancerIP"), out);
    }
    let here = path.child("loadBalancerSourceRanges");
    for (i, range) in list(spec, "loadBalancerSourceRanges").iter().enumerate() {
        addresses::cidr(range.as_str().unwrap_or(""), &here.index(i), out);
    }
    if kind == "ExternalName" && !external.is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if kind != "ExternalName" && !text(spec, "externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        out.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""
                .into(),
        );
    }
}

fn endpoint_slice(slice: &Value, out: &mut Vec<String>) {
    let kind = text(slice, "addressType");
    if kind == "FQDN" {
        out.push("addressType: FQDN endpoints are deprecated".into());
    }
    if !matches!(kind, "IPv4" | "IPv6") {
        return;
    }
    let endpoints = Path::new("endpoints");
    for (i, endpoint) in list(slice, "endpoints").iter().enumerate() {
        let here = endpoints.index(i);
        let here = here.child("addresses");
        for (i, address) in list(endpoint, "addresses").iter().enumerate() {
            addresses::ip(address.as_str().unwrap_or(""), &here.index(i), out);
        }
    }
}

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

fn class_annotation(object: &Value, out: &mut Vec<String>) {
    if has(down(object, &["metadata", "annotations"]), CLASS_ANNOTATION) {
        out.push(format!(
            "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
}

/// Bytes come whole: a fraction of one is a mistyped `M`.
fn fraction(amounts: &Value, resource: &str, path: &Path<'_>, out: &mut Vec<String>) {
    let value = at(amounts, resource);
    if !value.is_null() && !resources::parse(value).is_integer() {
        out.push(format!(
            "{}: fractional byte value \"{}\" is invalid, must be an integer",
            path.key(resource),
            resources::parse(value)
        ));
    }
}

fn claim(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let path = path.child("resources");
    for kind in ["requests", "limits"] {
        let amounts = at(at(spec, "resources"), kind);
        fraction(amounts, "storage", &path.child(kind), out);
    }
}

fn persistent_volume(object: &Value, spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    class_annotation(object, out);
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        out.push(format!(
            "{}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            path.child("persistentVolumeReclaimPolicy")
        ));
    }
    let affinity = path.child("nodeAffinity");
    let required = affinity.child("required");
    let terms_path = required.child("nodeSelectorTerms");
    let terms = list(
        down(spec, &["nodeAffinity", "required"]),
        "nodeSelectorTerms",
    );
    for (i, term) in terms.iter().enumerate() {
        pods::node_term(term, &terms_path.index(i), out);
    }
    for (kind, since) in pods::OLD_VOLUMES {
        if has(spec, kind) && kind != "gitRepo" {
            out.push(format!("{}: {since}", path.child(kind)));
        }
    }
    fraction(
        at(spec, "capacity"),
        "storage",
        &path.child("capacity"),
        out,
    );
}

fn network_policy(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        let here = path.child(rules);
        for (i, rule) in list(spec, rules).iter().enumerate() {
            let rule_path = here.index(i);
            let here = rule_path.child(peers);
            for (i, peer) in list(rule, peers).iter().enumerate() {
                if !has(peer, "ipBlock") {
                    continue;
                }
                let peer_path = here.index(i);
                let block = peer_path.child("ipBlock");
                let cidr = text(at(peer, "ipBlock"), "cidr");
                addresses::cidr(cidr, &block.child("cidr"), out);
                let here = block.child("except");
                for (i, except) in list(at(peer, "ipBlock"), "except").iter().enumerate() {
                    addresses::cidr(except.as_str().unwrap_or(""), &here.index(i), out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
