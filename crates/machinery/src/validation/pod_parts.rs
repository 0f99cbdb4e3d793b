//! Containers: of each sort, with their ports and environment. Mounts, handlers and security
//! contexts have modules of their own.

use serde_json::Value;

use super::{
    Context,
    errors::Errors,
    handlers::{lifecycle, probes},
    mounts, names, pod_resources, resources, security,
    value::{at, blank, flag, has, int, list, text},
    volumes::Volumes,
};
use crate::path::Path;

const EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// What a pod's containers are checked with.
pub struct Pod<'a> {
    pub cx: &'a Context<'a>,
    pub spec: &'a Value,
    pub volumes: &'a Volumes<'a>,
    /// Pods are held to a few rules more than templates.
    pub whole: bool,
}

/// Containers, init containers and ephemeral containers of a pod spec.
pub fn all_containers(pod: &Pod<'_>, path: &Path<'_>, e: &mut Errors) {
    let spec = pod.spec;
    let grace = int(spec, "terminationGracePeriodSeconds");
    let here = path.child("containers");
    let containers = list(spec, "containers");
    if containers.is_empty() {
        e.required(&here, "");
    }
    let mut seen: Vec<&str> = Vec::with_capacity(containers.len());
    for (i, container) in containers.iter().enumerate() {
        let path = here.index(i);
        common(pod, container, &path, e);
        unique(container, &mut seen, &path, e);
        lifecycle(container, grace, &path, e);
        probes(container, &path, e);
        restart_rules(container, &path, e);
    }
    host_port_conflicts(containers, &here, e);
    let here = path.child("initContainers");
    for (i, container) in list(spec, "initContainers").iter().enumerate() {
        let path = here.index(i);
        common(pod, container, &path, e);
        restart_rules(container, &path, e);
        unique(container, &mut seen, &path, e);
        // They run one after the other: ports conflict only within one, which Kubernetes reports
        // as the first.
        host_port_conflicts(std::slice::from_ref(container), &here, e);
        if text(container, "restartPolicy") == "Always" {
            lifecycle(container, grace, &path, e);
            probes(container, &path, e);
            continue;
        }
        for field in [
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
        ] {
            if has(container, field) {
                e.forbidden(
                    &path.child(field),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
    }
    let here = path.child("ephemeralContainers");
    for (i, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let path = here.index(i);
        common(pod, container, &path, e);
        unique(container, &mut seen, &path, e);
        let target = text(container, "targetContainerName");
        let known = |c: &&Value| text(c, "name") == target;
        let found = containers.iter().find(known).is_some()
            || list(spec, "initContainers").iter().find(known).is_some();
        if !target.is_empty() && !found {
            e.not_found(&path.child("targetContainerName"), target);
        }
        for field in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "restartPolicy",
            "restartPolicyRules",
        ] {
            if has(container, field) {
                e.forbidden(&path.child(field), EPHEMERAL);
            }
        }
        // Go cannot tell an empty one from none.
        for field in ["resources", "resizePolicy"] {
            if !blank(at(container, field)) {
                e.forbidden(&path.child(field), EPHEMERAL);
            }
        }
        mounts::whole_volumes(container, &path, EPHEMERAL, e);
    }
    host_network_ports(pod, path, e);
}

/// When a container is started again: a policy of its own, and rules by exit codes.
fn restart_rules(container: &Value, path: &Path<'_>, e: &mut Errors) {
    let rules = list(container, "restartPolicyRules");
    let here = path.child("restartPolicy");
    match at(container, "restartPolicy").as_str() {
        None if !rules.is_empty() => {
            e.required(
                &here,
                "must specify restartPolicy when restart rules are used",
            );
        }
        None | Some("Always" | "OnFailure" | "Never") => {}
        Some(policy) => e.not_supported(&here, policy, &["Always", "Never", "OnFailure"]),
    }
    let here = path.child("restartPolicyRules");
    if rules.len() > 20 {
        e.too_long(&here, 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = here.index(i);
        let action = text(rule, "action");
        if action != "Restart" {
            e.not_supported(&path.child("action"), action, &["Restart"]);
        }
        let codes = at(rule, "exitCodes");
        let here = path.child("exitCodes");
        if codes.is_null() {
            e.required(&here, "must be specified");
            continue;
        }
        let operator = text(codes, "operator");
        if !matches!(operator, "In" | "NotIn") {
            e.not_supported(&here.child("operator"), operator, &["In", "NotIn"]);
        }
        if list(codes, "values").len() > 255 {
            e.too_long(&here.child("values"), 255);
        }
    }
}

/// What a container's resources do to it when they change.
fn resize_policy(spec: &Value, container: &Value, path: &Path<'_>, e: &mut Errors) {
    let policies = list(container, "resizePolicy");
    for (i, policy) in policies.iter().enumerate() {
        let (name, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if policies[..i]
            .iter()
            .any(|p| text(p, "resourceName") == name)
        {
            e.duplicate_text(&path.index(i), name);
        }
        for (value, known) in [
            (name, ["cpu", "memory"]),
            (restart, ["NotRequired", "RestartContainer"]),
        ] {
            if value.is_empty() {
                e.required(path, "");
            } else if !known.contains(&value) {
                e.not_supported(path, value, &known);
            }
        }
        if text(spec, "restartPolicy") == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            e.invalid_text(path, restart, detail);
        }
    }
}

fn unique<'a>(container: &'a Value, seen: &mut Vec<&'a str>, path: &Path<'_>, e: &mut Errors) {
    let name = text(container, "name");
    if seen.contains(&name) {
        e.duplicate_text(&path.child("name"), name);
    }
    seen.push(name);
}

/// What holds for containers of every sort.
fn common(pod: &Pod<'_>, container: &Value, path: &Path<'_>, e: &mut Errors) {
    let spec = pod.spec;
    let name = text(container, "name");
    if name.is_empty() {
        e.required(&path.child("name"), "");
    } else {
        e.invalid_each(&path.child("name"), name, names::dns1123_label(name));
    }
    let image = text(container, "image");
    if image.is_empty() {
        // A template may leave the image to a controller of its own; pods may not.
        e.required(&path.child("image"), "");
    } else if pod.whole && image.trim() != image {
        e.invalid_text(
            &path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        );
    }
    let policy = text(container, "terminationMessagePolicy");
    match policy {
        "File" | "FallbackToLogsOnError" => {}
        "" => e.required(&path.child("terminationMessagePolicy"), ""),
        _ => e.not_supported(
            &path.child("terminationMessagePolicy"),
            policy,
            &["FallbackToLogsOnError", "File"],
        ),
    }
    ports(container, &path.child("ports"), e);
    environment(container, &path.child("env"), e);
    env_from(container, &path.child("envFrom"), e);
    let volumes = pod.volumes;
    mounts::mounts(container, &path.child("volumeMounts"), volumes, e);
    mounts::devices(container, &path.child("volumeDevices"), volumes, e);
    pull_policy(
        text(container, "imagePullPolicy"),
        &path.child("imagePullPolicy"),
        e,
    );
    let claims = list(spec, "resourceClaims");
    pod_resources::requirements(
        at(container, "resources"),
        claims,
        &path.child("resources"),
        e,
    );
    resize_policy(spec, container, &path.child("resizePolicy"), e);
    let own_users = at(spec, "hostUsers") == &Value::Bool(false);
    security::container(
        pod.cx,
        container,
        own_users,
        &path.child("securityContext"),
        e,
    );
}

/// When an image is pulled.
pub fn pull_policy(policy: &str, path: &Path<'_>, e: &mut Errors) {
    match policy {
        "Always" | "IfNotPresent" | "Never" => {}
        "" => e.required(path, ""),
        _ => e.not_supported(path, policy, &["Always", "IfNotPresent", "Never"]),
    }
}

fn ports(container: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in list(container, "ports").iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let faults = names::port_name(name);
            if faults.is_empty() {
                if seen.contains(&name) {
                    e.duplicate_text(&path.child("name"), name);
                }
                seen.push(name);
            } else {
                e.invalid_each(&path.child("name"), name, faults);
            }
        }
        let number = int(port, "containerPort").unwrap_or(0);
        if number == 0 {
            e.required(&path.child("containerPort"), "");
        } else {
            for fault in names::port(number) {
                e.invalid_int(&path.child("containerPort"), number, &fault);
            }
        }
        let host = int(port, "hostPort").unwrap_or(0);
        if host != 0 {
            for fault in names::port(host) {
                e.invalid_int(&path.child("hostPort"), host, &fault);
            }
        }
        let protocol = text(port, "protocol");
        if protocol.is_empty() {
            e.required(&path.child("protocol"), "");
        } else if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            e.not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
    }
}

/// On the host's network a container's port is the host's. Templates may leave it out: it is
/// filled in when the pod is made.
fn host_network_ports(pod: &Pod<'_>, path: &Path<'_>, e: &mut Errors) {
    if !flag(pod.spec, "hostNetwork") {
        return;
    }
    let all = path.child("containers");
    for (i, container) in list(pod.spec, "containers").iter().enumerate() {
        let here = all.index(i);
        let here = here.child("ports");
        for (i, port) in list(container, "ports").iter().enumerate() {
            let number = |field| int(port, field).unwrap_or(0);
            let (host, own) = (number("hostPort"), number("containerPort"));
            if (pod.whole || host != 0) && host != own {
                e.invalid_int(
                    &here.index(i).child("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

fn host_port_conflicts(containers: &[Value], path: &Path<'_>, e: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in list(container, "ports").iter().enumerate() {
            let number = int(port, "hostPort").unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = format!(
                "{}/{}/{number}",
                text(port, "protocol"),
                text(port, "hostIP")
            );
            if seen.contains(&key) {
                let container = path.index(i);
                let ports = container.child("ports");
                e.duplicate_text(&ports.index(j).child("hostPort"), &key);
            }
            seen.push(key);
        }
    }
}

const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn environment(container: &Value, path: &Path<'_>, e: &mut Errors) {
    for (i, variable) in list(container, "env").iter().enumerate() {
        let path = path.index(i);
        let name = text(variable, "name");
        if name.is_empty() {
            e.required(&path.child("name"), "");
        } else {
            e.invalid_each(&path.child("name"), name, names::environment_name(name));
        }
        if !has(variable, "valueFrom") {
            continue;
        }
        let source = at(variable, "valueFrom");
        let path = path.child("valueFrom");
        let mut sources = 0;
        if has(source, "fieldRef") {
            sources += 1;
            field_ref(at(source, "fieldRef"), &path.child("fieldRef"), e);
        }
        if has(source, "resourceFieldRef") {
            sources += 1;
            resource_field(
                at(source, "resourceFieldRef"),
                false,
                &path.child("resourceFieldRef"),
                e,
            );
        }
        for field in ["configMapKeyRef", "secretKeyRef"] {
            if has(source, field) {
                sources += 1;
                let (key, path) = (text(at(source, field), "key"), path.child(field));
                let name = text(at(source, field), "name");
                e.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
                if key.is_empty() {
                    e.required(&path.child("key"), "");
                } else {
                    e.invalid_each(&path.child("key"), key, names::config_key(key));
                }
            }
        }
        sources += usize::from(has(source, "fileKeyRef"));
        let detail = "must specify one of: `configMapKeyRef`, `fieldRef`, `fileKeyRef`, `resourceFieldRef` or `secretKeyRef`";
        if sources == 0 {
            e.invalid_text(&path, "", detail);
        } else if !text(variable, "value").is_empty() {
            e.invalid_text(&path, "", "may not be specified when `value` is not empty");
        } else if sources > 1 {
            e.invalid_text(
                &path,
                "",
                "may not have more than one field specified at a time",
            );
        }
    }
}

fn field_ref(reference: &Value, path: &Path<'_>, e: &mut Errors) {
    field_path(text(reference, "fieldPath"), &FIELDS, path, e);
}

/// The path of a field that may be told to a container; `known` are those without subscript.
pub fn field_path(field: &str, known: &[&str], path: &Path<'_>, e: &mut Errors) {
    if field.is_empty() {
        e.required(&path.child("fieldPath"), "");
        return;
    }
    if let Some((map, key)) = subscript(field) {
        match map {
            "metadata.annotations" => {
                let key = key.to_lowercase();
                e.invalid_each(path, &key, names::qualified_name(&key));
            }
            "metadata.labels" => e.invalid_each(path, key, names::qualified_name(key)),
            _ => e.invalid_text(path, map, "does not support subscript"),
        }
        return;
    }
    let path = path.child("fieldPath");
    // What pods have, but not to be told in this way.
    let field_of_pod = known.contains(&field)
        || FIELDS.contains(&field)
        || matches!(
            field,
            "metadata.annotations"
                | "metadata.labels"
                | "spec.restartPolicy"
                | "spec.schedulerName"
                | "status.phase"
        );
    if !field_of_pod {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        e.invalid_text(&path, field, &detail);
    } else if !known.contains(&field) {
        e.not_supported(&path, field, known);
    }
}

/// `metadata.labels['key']`
fn subscript(field: &str) -> Option<(&str, &str)> {
    let (map, rest) = field.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A reference to a container's resources; in volumes the container must be named.
pub fn resource_field(reference: &Value, volume: bool, path: &Path<'_>, e: &mut Errors) {
    if volume && text(reference, "containerName").is_empty() {
        e.required(&path.child("containerName"), "");
        return;
    }
    let resource = text(reference, "resource");
    let known = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    if resource.is_empty() {
        e.required(&path.child("resource"), "");
    } else if !known.contains(&resource)
        && !["limits.hugepages-", "requests.hugepages-"]
            .iter()
            .any(|p| resource.starts_with(p))
    {
        e.not_supported(&path.child("resource"), resource, &known);
    }
    divisor(
        resource,
        at(reference, "divisor"),
        &path.child("divisor"),
        e,
    );
}

/// The unit in which an amount is told.
fn divisor(resource: &str, divisor: &Value, path: &Path<'_>, e: &mut Errors) {
    let unit = resources::parse(divisor);
    if unit.is_zero() {
        return;
    }
    let (what, units): (&str, &[&str]) = match resource.split_once('.') {
        Some((_, "cpu")) => ("cpu", &["1m", "1"]),
        Some((_, "memory")) => ("memory", &BYTES),
        Some((_, "ephemeral-storage")) => ("local ephemeral storage", &BYTES),
        Some((_, other)) if other.starts_with("hugepages-") => ("hugepages", &BYTES),
        _ => return,
    };
    if units.contains(&unit.to_string().as_str()) {
        return;
    }
    let all = if what == "cpu" {
        "1m and 1".to_owned()
    } else {
        units.join(", ")
    };
    let detail = format!("only divisor's values {all} are supported with the {what} resource");
    e.invalid_text(path, resource, &detail);
}

const BYTES: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

fn env_from(container: &Value, path: &Path<'_>, e: &mut Errors) {
    let whole = path;
    for (i, source) in list(container, "envFrom").iter().enumerate() {
        let path = path.index(i);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            e.invalid_each(
                &path.child("prefix"),
                prefix,
                names::environment_name(prefix),
            );
        }
        let mut sources = 0;
        for field in ["configMapRef", "secretRef"] {
            if has(source, field) {
                sources += 1;
                let name = text(at(source, field), "name");
                let path = path.child(field);
                if name.is_empty() {
                    e.required(&path.child("name"), "");
                } else {
                    e.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
                }
            }
        }
        match sources {
            0 => e.invalid_text(
                whole,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            1 => {}
            _ => e.invalid_text(
                whole,
                "",
                "may not have more than one field specified at a time",
            ),
        }
    }
}

/// A number that may be zero but not less.
pub fn non_negative(object: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    if let Some(n) = int(object, field).filter(|n| *n < 0) {
        e.invalid_int(&path.child(field), n, "must be greater than or equal to 0");
    }
}
