//! Warnings about pods and pod templates.

use serde_json::Value;

use super::{claim, fraction};
use crate::{
    path::Path,
    validation::value::{at, down, entries, has, int, list, text},
};

/// Labels of nodes that have gone out of use, with what to say of them.
const LABELS: [(&str, &str); 8] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

pub fn deprecated_label(label: &str) -> Option<&'static str> {
    LABELS
        .iter()
        .find(|(l, _)| *l == label)
        .map(|(_, why)| *why)
}

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

/// Volumes whose plug-ins have gone.
pub const OLD_VOLUMES: [(&str, &str); 9] = [
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Deprecated labels among a node selector term's expressions.
pub fn node_term(term: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let here = path.child("matchExpressions");
    for (i, expression) in list(term, "matchExpressions").iter().enumerate() {
        let key = text(expression, "key");
        if let Some(why) = deprecated_label(key) {
            out.push(format!("{}: {key} is {why}", here.index(i).child("key")));
        }
    }
}

/// A pod, or a template at `path`.
pub fn template(path: Option<&Path<'_>>, template: &Value, out: &mut Vec<String>) {
    let child = |name| path.map_or_else(|| Path::new(name), |p| p.child(name));
    let (spec, here) = (at(template, "spec"), child("spec"));
    let notes = down(template, &["metadata", "annotations"]);
    let metadata = child("metadata");
    let notes_path = metadata.child("annotations");
    nodes(spec, &here, out);
    for (key, why) in ANNOTATIONS {
        if has(notes, key) {
            out.push(format!("{}: {why}", notes_path.key(key)));
        }
    }
    volumes(spec, &here, out);
    repeated(spec, "hostAliases", "ip", &here, out);
    repeated(spec, "imagePullSecrets", "name", &here, out);
    let secrets = here.child("imagePullSecrets");
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            let here = secrets.index(i);
            out.push(format!("{}: invalid empty name \"\"", here.child("name")));
        }
    }
    for resource in ["memory", "ephemeral-storage"] {
        fraction(at(spec, "overhead"), resource, &here.child("overhead"), out);
    }
    let secure = at(spec, "securityContext");
    const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
    if !has(secure, "seccompProfile") && has(notes, SECCOMP) {
        out.push(format!(
            "{}: non-functional in v1.27+; use the \"seccompProfile\" field instead",
            notes_path.key(SECCOMP)
        ));
    }
    let kinds = ["initContainers", "containers", "ephemeralContainers"];
    for kind in kinds {
        let all = here.child(kind);
        for (i, one) in list(spec, kind).iter().enumerate() {
            container(one, notes, &notes_path, &all.index(i), out);
            let own = at(one, "securityContext");
            let armored = has(secure, "appArmorProfile") || has(own, "appArmorProfile");
            if path.is_none() || armored || !notes.is_object() {
                continue;
            }
            let key = format!(
                "container.apparmor.security.beta.kubernetes.io/{}",
                text(one, "name")
            );
            if has(notes, &key) {
                out.push(format!(
                    "{}: deprecated since v1.30; use the \"appArmorProfile\" field instead",
                    notes_path.key(&key)
                ));
            }
        }
    }
    ports(spec, &kinds, &here, out);
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        out.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            here.child("terminationGracePeriodSeconds")
        ));
    }
    affinity(spec, &here, out);
}

fn nodes(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let here = path.child("nodeSelector");
    for (label, _) in entries(spec, "nodeSelector") {
        if let Some(why) = deprecated_label(label) {
            out.push(format!("{}: {why}", here.key(label)));
        }
    }
    let node = down(spec, &["affinity", "nodeAffinity"]);
    let affinity = path.child("affinity");
    let node_path = affinity.child("nodeAffinity");
    let required_path = node_path.child(REQUIRED);
    let here = required_path.child("nodeSelectorTerms");
    let terms = list(at(node, REQUIRED), "nodeSelectorTerms");
    for (i, term) in terms.iter().enumerate() {
        node_term(term, &here.index(i), out);
    }
    let here = node_path.child(PREFERRED);
    for (i, term) in list(node, PREFERRED).iter().enumerate() {
        let term_path = here.index(i);
        node_term(at(term, "preference"), &term_path.child("preference"), out);
    }
    let here = path.child("topologySpreadConstraints");
    let constraints = list(spec, "topologySpreadConstraints");
    for (i, constraint) in constraints.iter().enumerate() {
        let here = here.index(i);
        let key = text(constraint, "topologyKey");
        if let Some(why) = deprecated_label(key) {
            out.push(format!("{}: {key} is {why}", here.child("topologyKey")));
        }
        null_selector(constraint, &here, out);
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn null_selector(term: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    if !has(term, "labelSelector") {
        out.push(format!(
            "{}: a null labelSelector results in matching no pod",
            path.child("labelSelector")
        ));
    }
}

fn affinity(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let path = path.child("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = down(spec, &["affinity", kind]);
        let path = path.child(kind);
        let here = path.child(REQUIRED);
        for (i, term) in list(pods, REQUIRED).iter().enumerate() {
            null_selector(term, &here.index(i), out);
        }
        let here = path.child(PREFERRED);
        for (i, term) in list(pods, PREFERRED).iter().enumerate() {
            let here = here.index(i);
            let here = here.child("podAffinityTerm");
            null_selector(at(term, "podAffinityTerm"), &here, out);
        }
    }
}

fn volumes(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let here = path.child("volumes");
    let all = list(spec, "volumes");
    for (i, volume) in all.iter().enumerate() {
        let path = here.index(i);
        for (kind, since) in OLD_VOLUMES {
            if has(volume, kind) {
                // One of them is named otherwise in Kubernetes' warning.
                let kind = if kind == "storageos" {
                    "storageOS"
                } else {
                    kind
                };
                out.push(format!("{}: {since}", path.child(kind)));
            }
        }
        let template = down(volume, &["ephemeral", "volumeClaimTemplate"]);
        if template.is_object() {
            let ephemeral = path.child("ephemeral");
            let template_path = ephemeral.child("volumeClaimTemplate");
            claim(at(template, "spec"), &template_path.child("spec"), out);
        }
    }
    tokens(all, &here, out);
}

/// Files that a service account's token would overwrite.
fn tokens(volumes: &[Value], path: &Path<'_>, out: &mut Vec<String>) {
    let sources = |v| list(at(v, "projected"), "sources").iter();
    let tokens: Vec<&str> = volumes
        .iter()
        .flat_map(sources)
        .filter(|s| has(s, "serviceAccountToken"))
        .map(|s| text(at(s, "serviceAccountToken"), "path"))
        .collect();
    if tokens.is_empty() {
        return;
    }
    for (i, volume) in volumes.iter().enumerate() {
        let volume_path = path.index(i);
        let projected = volume_path.child("projected");
        let here = projected.child("sources");
        for source in sources(volume) {
            for (kind, shown) in [
                ("configMap", "configMap"),
                ("secret", "secrets"),
                ("downwardAPI", "downwardAPI"),
            ] {
                let here = here.child(shown);
                for (i, item) in list(at(source, kind), "items").iter().enumerate() {
                    let file = text(item, "path");
                    if tokens.contains(&file) {
                        out.push(format!(
                            "{}: has duplicated path with ServiceAccountToken {file:?}",
                            here.index(i)
                        ));
                    }
                }
            }
            let bundle = at(source, "clusterTrustBundle");
            let file = text(bundle, "path");
            if bundle.is_object() && tokens.contains(&file) {
                out.push(format!(
                    "{}: has duplicated path with ServiceAccountToken {file:?}",
                    here.child("ClusterTrustBundle")
                ));
            }
        }
    }
}

fn repeated(spec: &Value, all: &str, field: &str, path: &Path<'_>, out: &mut Vec<String>) {
    let here = path.child(all);
    let mut seen: Vec<&str> = Vec::new();
    for (i, one) in list(spec, all).iter().enumerate() {
        let value = text(one, field);
        if seen.contains(&value) {
            let here = here.index(i);
            out.push(format!(
                "{}: duplicate {field} {value:?}",
                here.child(field)
            ));
        }
        seen.push(value);
    }
}

fn container(
    one: &Value,
    notes: &Value,
    notes_path: &Path<'_>,
    path: &Path<'_>,
    out: &mut Vec<String>,
) {
    if notes.is_object() && !has(at(one, "securityContext"), "seccompProfile") {
        let key = format!(
            "container.seccomp.security.alpha.kubernetes.io/{}",
            text(one, "name")
        );
        if has(notes, &key) {
            out.push(format!(
                "{}: non-functional in v1.27+; use the \"seccompProfile\" field instead",
                notes_path.key(&key)
            ));
        }
    }
    let resources = path.child("resources");
    for resource in ["memory", "ephemeral-storage"] {
        for kind in ["limits", "requests"] {
            let amounts = at(at(one, "resources"), kind);
            fraction(amounts, resource, &resources.child(kind), out);
        }
    }
    let here = path.child("env");
    let mut seen: Vec<&str> = Vec::new();
    for (i, variable) in list(one, "env").iter().enumerate() {
        let name = text(variable, "name");
        if !seen.contains(&name) {
            seen.push(name);
            continue;
        }
        // A value made of the earlier one does not hide it.
        let (value, reference) = (text(variable, "value"), format!("$({name})"));
        let extends = value.contains(&reference) && value != reference;
        if has(variable, "valueFrom") || !extends {
            out.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                here.index(i)
            ));
        }
    }
}

/// Ports of all containers that are the same or may get in each other's way.
fn ports(spec: &Value, kinds: &[&str], path: &Path<'_>, out: &mut Vec<String>) {
    let all = || {
        kinds.iter().flat_map(move |kind| {
            list(spec, kind).iter().enumerate().flat_map(move |(i, c)| {
                let ports = list(c, "ports").iter().enumerate();
                ports.map(move |(j, port)| (Place(kind, i, j), port))
            })
        })
    };
    let number = |p: &Value, f| int(p, f).unwrap_or(0);
    for (n, (place, port)) in all().enumerate() {
        let (host, address) = (number(port, "hostPort"), text(port, "hostIP"));
        if !address.is_empty() && host == 0 {
            out.push(format!(
                "{}: hostIP set without hostPort: {{Name:{} HostPort:{host} ContainerPort:{} Protocol:{} HostIP:{address}}}",
                place.show(path),
                text(port, "name"),
                number(port, "containerPort"),
                text(port, "protocol"),
            ));
        }
        for (other, p) in all().take(n) {
            let same = number(p, "containerPort") == number(port, "containerPort")
                && text(p, "protocol") == text(port, "protocol");
            if !same {
                continue;
            }
            let (other_host, other_address) = (number(p, "hostPort"), text(p, "hostIP"));
            let what = if host == other_host && address == other_address {
                "duplicate"
            } else if host == 0 || other_host == 0 {
                "overlapping"
            } else if host == other_host && address.is_empty() != other_address.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!(
                "{}: {what} port definition with {}",
                place.show(path),
                other.show(path)
            ));
        }
    }
}

/// Where a port stands: in which list of containers, in which of them, and which it is there.
struct Place<'a>(&'a str, usize, usize);

impl Place<'_> {
    fn show(&self, path: &Path<'_>) -> String {
        format!("{path}.{}[{}].ports[{}]", self.0, self.1, self.2)
    }
}
