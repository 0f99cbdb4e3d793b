//! Containers: ports, environment, mounts, probes, security.

use serde_json::{Map, Value};

use super::{
    Context,
    errors::{Errors, show},
    names,
    pod::id,
    resources,
    value::{at, blank, flag, has, int, list, text},
    volumes::{Volumes, relative_path},
};
use crate::path::Path;

const EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// Containers, init containers and ephemeral containers of a pod spec.
pub fn all_containers(
    cx: &Context<'_>,
    spec: &Value,
    path: &Path<'_>,
    volumes: &Volumes<'_>,
    e: &mut Errors,
) {
    let here = path.child("containers");
    let containers = list(spec, "containers");
    if containers.is_empty() {
        e.required(&here, "");
    }
    let mut seen: Vec<&str> = Vec::with_capacity(containers.len());
    for (i, container) in containers.iter().enumerate() {
        let path = here.index(i);
        common(cx, spec, container, &path, volumes, e);
        unique(container, &mut seen, &path, e);
        lifecycle(container, &path, e);
        probes(container, &path, e);
        let policy = text(container, "restartPolicy");
        if !matches!(policy, "" | "Always" | "OnFailure" | "Never") {
            e.not_supported(
                &path.child("restartPolicy"),
                policy,
                &["Always", "Never", "OnFailure"],
            );
        }
    }
    host_port_conflicts(containers, &here, e);
    let here = path.child("initContainers");
    for (i, container) in list(spec, "initContainers").iter().enumerate() {
        let path = here.index(i);
        common(cx, spec, container, &path, volumes, e);
        unique(container, &mut seen, &path, e);
        if text(container, "restartPolicy") == "Always" {
            lifecycle(container, &path, e);
            probes(container, &path, e);
            continue;
        }
        for (field, detail) in [
            (
                "lifecycle",
                "may not be set for init containers without restartPolicy=Always",
            ),
            (
                "livenessProbe",
                "may not be set for init containers without restartPolicy=Always",
            ),
            (
                "readinessProbe",
                "may not be set for init containers without restartPolicy=Always",
            ),
            (
                "startupProbe",
                "may not be set for init containers without restartPolicy=Always",
            ),
        ] {
            if has(container, field) {
                e.forbidden(&path.child(field), detail);
            }
        }
    }
    let here = path.child("ephemeralContainers");
    for (i, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let path = here.index(i);
        common(cx, spec, container, &path, volumes, e);
        unique(container, &mut seen, &path, e);
        for field in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
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
        let target = text(container, "targetContainerName");
        let known = |c: &&Value| text(c, "name") == target;
        let found = containers.iter().find(known).is_some()
            || list(spec, "initContainers").iter().find(known).is_some();
        if !target.is_empty() && !found {
            e.not_found(&path.child("targetContainerName"), target);
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
fn common(
    cx: &Context<'_>,
    spec: &Value,
    container: &Value,
    path: &Path<'_>,
    volumes: &Volumes<'_>,
    e: &mut Errors,
) {
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
    } else if image.trim() != image {
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
    ports(spec, container, &path.child("ports"), e);
    environment(container, &path.child("env"), e);
    env_from(container, &path.child("envFrom"), e);
    mounts(container, &path.child("volumeMounts"), volumes, e);
    let policy = text(container, "imagePullPolicy");
    match policy {
        "Always" | "IfNotPresent" | "Never" => {}
        "" => e.required(&path.child("imagePullPolicy"), ""),
        _ => e.not_supported(
            &path.child("imagePullPolicy"),
            policy,
            &["Always", "IfNotPresent", "Never"],
        ),
    }
    resources::requirements(at(container, "resources"), &path.child("resources"), e);
    security(cx, container, &path.child("securityContext"), e);
}

fn ports(spec: &Value, container: &Value, path: &Path<'_>, e: &mut Errors) {
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
        if flag(spec, "hostNetwork") && host != 0 && host != number {
            e.invalid_int(
                &path.child("hostPort"),
                host,
                "must match `containerPort` when `hostNetwork` is true",
            );
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
                if text(at(source, field), "name").is_empty() {
                    e.required(&path.child("name"), "");
                }
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
    let field = text(reference, "fieldPath");
    let path = path.child("fieldPath");
    if field.is_empty() {
        e.required(&path, "");
        return;
    }
    if let Some((map, key)) = subscript(field) {
        let faults = match map {
            "metadata.annotations" => names::qualified_name(&key.to_lowercase()),
            "metadata.labels" => names::qualified_name(key),
            _ => vec![format!("{map:?} does not support subscript")],
        };
        e.invalid_each(&path, field, faults);
        return;
    }
    if !FIELDS.contains(&field) {
        e.not_supported(&path, field, &FIELDS);
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
}

fn env_from(container: &Value, path: &Path<'_>, e: &mut Errors) {
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
                if text(at(source, field), "name").is_empty() {
                    let path = path.child(field);
                    e.required(&path.child("name"), "");
                }
            }
        }
        match sources {
            0 => e.invalid_text(
                &path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            1 => {}
            _ => e.invalid_text(
                &path,
                "",
                "may not have more than one field specified at a time",
            ),
        }
    }
}

fn mounts(container: &Value, path: &Path<'_>, volumes: &Volumes<'_>, e: &mut Errors) {
    let mut points: Vec<&str> = Vec::new();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let here = path.index(i);
        let name = text(mount, "name");
        if name.is_empty() {
            e.required(&here.child("name"), "");
        } else if !volumes.contains(name) {
            e.not_found(&here.child("name"), name);
        }
        let point = text(mount, "mountPath");
        if point.is_empty() {
            e.required(&here.child("mountPath"), "");
        }
        if points.contains(&point) {
            e.invalid_text(&here.child("mountPath"), point, "must be unique");
        }
        points.push(point);
        // Kubernetes leaves the position out of these two paths.
        let sub = text(mount, "subPath");
        if !sub.is_empty() {
            relative_path(sub, &path.child("subPath"), e);
        }
        let expression = text(mount, "subPathExpr");
        if !expression.is_empty() {
            if !sub.is_empty() {
                e.invalid_text(
                    &path.child("subPathExpr"),
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            relative_path(expression, &path.child("subPathExpr"), e);
        }
        let propagation = text(mount, "mountPropagation");
        if !matches!(
            propagation,
            "" | "Bidirectional" | "HostToContainer" | "None"
        ) {
            e.not_supported(
                &here.child("mountPropagation"),
                propagation,
                &["Bidirectional", "HostToContainer", "None"],
            );
        }
    }
}

fn lifecycle(container: &Value, path: &Path<'_>, e: &mut Errors) {
    let hooks = at(container, "lifecycle");
    let path = path.child("lifecycle");
    for hook in ["postStart", "preStop"] {
        if has(hooks, hook) {
            handler(at(hooks, hook), &path.child(hook), e);
        }
    }
}

/// One action: `exec`, `httpGet`, `tcpSocket`, `grpc` or `sleep`.
fn handler(handler: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut count = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        if !has(handler, kind) {
            continue;
        }
        let action = at(handler, kind);
        let path = path.child(kind);
        if count > 0 {
            e.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        count += 1;
        match kind {
            "exec" if list(action, "command").is_empty() => {
                e.required(&path.child("command"), "");
            }
            "httpGet" => http(action, &path, e),
            "tcpSocket" => port_or_name(at(action, "port"), &path.child("port"), e),
            "grpc" => port_or_name(at(action, "port"), &path.child("port"), e),
            _ => {}
        }
    }
    if count == 0 {
        e.required(path, "must specify a handler type");
    }
}

fn http(action: &Value, path: &Path<'_>, e: &mut Errors) {
    if text(action, "path").is_empty() {
        e.required(&path.child("path"), "");
    }
    port_or_name(at(action, "port"), &path.child("port"), e);
    let scheme = text(action, "scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        e.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
}

/// A port by number or by a container port's name.
pub fn port_or_name(port: &Value, path: &Path<'_>, e: &mut Errors) {
    match port {
        Value::String(name) => e.invalid_each(path, name, names::port_name(name)),
        number => {
            let number = number.as_i64().unwrap_or(0);
            for fault in names::port(number) {
                e.invalid_int(path, number, &fault);
            }
        }
    }
}

fn probes(container: &Value, path: &Path<'_>, e: &mut Errors) {
    for (field, once) in [
        ("livenessProbe", true),
        ("readinessProbe", false),
        ("startupProbe", true),
    ] {
        if !has(container, field) {
            continue;
        }
        let probe = at(container, field);
        let path = path.child(field);
        handler(probe, &path, e);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            non_negative(probe, field, &path, e);
        }
        if let Some(seconds) = int(probe, "terminationGracePeriodSeconds") {
            let path = path.child("terminationGracePeriodSeconds");
            if !once {
                e.invalid_int(&path, seconds, "must not be set for readinessProbes");
            } else if seconds <= 0 {
                e.invalid_int(&path, seconds, "must be greater than 0");
            }
        }
        let threshold = int(probe, "successThreshold").unwrap_or(1);
        if once && threshold != 1 {
            e.invalid_int(&path.child("successThreshold"), threshold, "must be 1");
        }
    }
}

/// A number that may be zero but not less.
pub fn non_negative(object: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    if let Some(n) = int(object, field).filter(|n| *n < 0) {
        e.invalid_int(&path.child(field), n, "must be greater than or equal to 0");
    }
}

/// The fields of the internal type, in its order, as an error shows them.
const SECURITY: [(&str, &str); 12] = [
    ("Capabilities", "capabilities"),
    ("Privileged", "privileged"),
    ("SELinuxOptions", "seLinuxOptions"),
    ("WindowsOptions", "windowsOptions"),
    ("RunAsUser", "runAsUser"),
    ("RunAsGroup", "runAsGroup"),
    ("RunAsNonRoot", "runAsNonRoot"),
    ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem"),
    ("AllowPrivilegeEscalation", "allowPrivilegeEscalation"),
    ("ProcMount", "procMount"),
    ("SeccompProfile", "seccompProfile"),
    ("AppArmorProfile", "appArmorProfile"),
];

fn security(cx: &Context<'_>, container: &Value, path: &Path<'_>, e: &mut Errors) {
    let context = at(container, "securityContext");
    if context.is_null() {
        return;
    }
    let privileged = flag(context, "privileged");
    if privileged && !cx.allow_privileged {
        e.forbidden(&path.child("privileged"), "disallowed by cluster policy");
    }
    id(context, "runAsUser", path, e);
    id(context, "runAsGroup", path, e);
    let mount = text(context, "procMount");
    if !matches!(mount, "" | "Default" | "Unmasked") {
        e.not_supported(&path.child("procMount"), mount, &["Default", "Unmasked"]);
    }
    seccomp(context, path, e);
    if at(context, "allowPrivilegeEscalation") == &Value::Bool(false) {
        if privileged {
            e.invalid_shown(
                path,
                &internal(context, &SECURITY),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        let added = list(at(context, "capabilities"), "add");
        if added.iter().any(|c| c == "CAP_SYS_ADMIN") {
            e.invalid_shown(
                path,
                &internal(context, &SECURITY),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
}

/// A value under the names of its internal type's fields; what is absent is null.
pub fn internal(value: &Value, fields: &[(&str, &str)]) -> String {
    let parts: Vec<String> = fields
        .iter()
        .map(|(go, json)| format!("\"{go}\":{}", deep(at(value, json))))
        .collect();
    format!("{{{}}}", parts.join(","))
}

fn deep(value: &Value) -> String {
    match value {
        Value::String(_) => value.to_string(),
        Value::Object(map) => {
            let map: Map<String, Value> =
                map.iter().map(|(k, v)| (capital(k), v.clone())).collect();
            show(&Value::Object(map))
        }
        other => show(other),
    }
}

fn capital(name: &str) -> String {
    let mut chars = name.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// The seccomp profile of a pod or container.
pub fn seccomp(context: &Value, path: &Path<'_>, e: &mut Errors) {
    if !has(context, "seccompProfile") {
        return;
    }
    let profile = at(context, "seccompProfile");
    let path = path.child("seccompProfile");
    let (kind, file) = (text(profile, "type"), at(profile, "localhostProfile"));
    match kind {
        "Localhost" if file.is_null() => e.required(
            &path.child("localhostProfile"),
            "must be set when seccomp type is Localhost",
        ),
        "Localhost" => {
            let file = file.as_str().unwrap_or("");
            super::volumes::descending_path(file, &path.child("localhostProfile"), e);
        }
        "Unconfined" | "RuntimeDefault" => {
            if let Some(file) = file.as_str() {
                e.invalid_text(
                    &path.child("localhostProfile"),
                    file,
                    "can only be set when seccomp type is Localhost",
                );
            }
        }
        "" => e.required(
            &path.child("type"),
            "type is required when seccompProfile is set",
        ),
        _ => e.not_supported(
            &path.child("type"),
            kind,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        ),
    }
}
