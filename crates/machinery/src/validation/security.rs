//! Security contexts of pods and containers.

use serde_json::{Map, Value};

use super::{
    Context,
    errors::{Errors, show},
    names,
    value::{at, entries, flag, has, int, list, text},
    volumes::descending_path,
};
use crate::path::Path;

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";

/// Users and groups are 31-bit numbers.
fn id(object: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    if let Some(id) = int(object, field)
        && !(0..=i64::from(i32::MAX)).contains(&id)
    {
        e.invalid_int(&path.child(field), id, ID_RANGE);
    }
}

/// One of some values, where one is given.
fn choice(object: &Value, field: &str, known: &[&str], path: &Path<'_>, e: &mut Errors) {
    if let Some(value) = at(object, field).as_str()
        && !known.contains(&value)
    {
        e.not_supported(&path.child(field), value, known);
    }
}

/// `spec.securityContext`
pub fn pod(spec: &Value, path: &Path<'_>, e: &mut Errors) {
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
    sysctls(spec, context, &path.child("sysctls"), e);
    let known = ["Always", "OnRootMismatch"];
    choice(context, "fsGroupChangePolicy", &known, &path, e);
    seccomp(context, &path, e);
    windows(context, &path, e);
    app_armor(context, &path, e);
    let known = ["Merge", "Strict"];
    choice(context, "supplementalGroupsPolicy", &known, &path, e);
    let known = ["MountOption", "Recursive"];
    choice(context, "seLinuxChangePolicy", &known, &path, e);
}

fn sysctls(spec: &Value, context: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, sysctl) in list(context, "sysctls").iter().enumerate() {
        let here = path.index(i);
        let here = here.child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            e.required(&here, "");
        } else if !is_sysctl(name) {
            e.invalid_text(&here, name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if seen.contains(&name) {
            e.duplicate_text(&here, name);
        }
        let shared = match sysctl_namespace(name) {
            Some(Shared::Network) if flag(spec, "hostNetwork") => Some("hostNetwork"),
            Some(Shared::Ipc) if flag(spec, "hostIPC") => Some("hostIPC"),
            _ => None,
        };
        if let Some(shared) = shared {
            let detail = format!("may not be specified when '{shared}' is true");
            e.invalid_text(&here, name, &detail);
        }
        seen.push(name);
    }
}

enum Shared {
    Network,
    Ipc,
}

/// The namespace of the kernel that a setting belongs to.
fn sysctl_namespace(name: &str) -> Option<Shared> {
    // Dots and slashes change roles by whichever comes first.
    let name = match name.find(['.', '/']) {
        Some(at) if name.as_bytes().get(at) == Some(&b'/') => name.replace('/', "."),
        _ => name.to_owned(),
    };
    if name.starts_with("net.") {
        return Some(Shared::Network);
    }
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    (name == "kernel.sem" || ipc.iter().any(|p| name.starts_with(p))).then_some(Shared::Ipc)
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

/// A container's `securityContext`; `own_users` where the pod has a user namespace of its own.
pub fn container(
    cx: &Context<'_>,
    container: &Value,
    own_users: bool,
    path: &Path<'_>,
    e: &mut Errors,
) {
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
    choice(context, "procMount", &["Default", "Unmasked"], path, e);
    if text(context, "procMount") == "Unmasked" && !own_users {
        e.invalid_text(
            &path.child("procMount"),
            "Unmasked",
            "`hostUsers` must be false to use `Unmasked`",
        );
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
    windows(context, path, e);
    app_armor(context, path, e);
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
fn seccomp(context: &Value, path: &Path<'_>, e: &mut Errors) {
    if !has(context, "seccompProfile") {
        return;
    }
    let profile = at(context, "seccompProfile");
    let path = path.child("seccompProfile");
    let (kind, file) = (text(profile, "type"), at(profile, "localhostProfile"));
    match kind {
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
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
    let here = path.child("localhostProfile");
    if kind == "Localhost" {
        match file.as_str() {
            None => e.required(&here, "must be set when seccomp type is Localhost"),
            Some(file) => descending_path(file, &here, e),
        }
    } else if let Some(file) = file.as_str() {
        let shown = format!(
            "{{\"Type\":{},\"LocalhostProfile\":{}}}",
            Value::from(kind),
            Value::from(file)
        );
        let detail = "can only be set when seccomp type is Localhost";
        e.invalid_shown(&here, &shown, detail);
    }
}

fn app_armor(context: &Value, path: &Path<'_>, e: &mut Errors) {
    if !has(context, "appArmorProfile") {
        return;
    }
    let profile = at(context, "appArmorProfile");
    let path = path.child("appArmorProfile");
    let here = path.child("localhostProfile");
    let name = at(profile, "localhostProfile").as_str();
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    match (text(profile, "type"), name) {
        ("Localhost", None) => e.required(&here, NEEDED),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                e.invalid_text(&here, name, "must not be padded with whitespace");
            } else if name.is_empty() {
                e.required(&here, NEEDED);
            }
            if name.len() > 4095 {
                e.too_long(&here, 4095);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => e.invalid_text(
            &here,
            name,
            "can only be set when AppArmor type is Localhost",
        ),
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => e.required(
            &path.child("type"),
            "type is required when appArmorProfile is set",
        ),
        (kind, _) => e.not_supported(
            &path.child("type"),
            kind,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        ),
    }
}

const SPEC_MOST: usize = 64 * 1024;

/// `windowsOptions`
fn windows(context: &Value, path: &Path<'_>, e: &mut Errors) {
    let options = at(context, "windowsOptions");
    let path = path.child("windowsOptions");
    if let Some(name) = at(options, "gmsaCredentialSpecName").as_str() {
        let here = path.child("gmsaCredentialSpecName");
        e.invalid_each(&here, name, names::dns1123_subdomain(name));
    }
    if let Some(spec) = at(options, "gmsaCredentialSpec").as_str() {
        let here = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            e.invalid_text(&here, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > SPEC_MOST {
            e.invalid_text(&here, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = at(options, "runAsUserName").as_str() {
        let here = path.child("runAsUserName");
        e.invalid_each(&here, name, windows_user(name));
    }
}

/// `DOMAIN\user`, the domain optional.
fn windows_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec!["runAsUserName cannot contain more than one backslash"],
    };
    let mut faults = vec![];
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            faults.push("runAsUserName's Domain length must be under 256 characters");
        }
        let netbios = (1..=15).contains(&domain.len())
            && !domain.starts_with('.')
            && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        let lower = domain.to_ascii_lowercase();
        let dns = lower.split('.').all(|l| names::dns1123_label(l).is_empty());
        if !netbios && !dns {
            faults.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        faults.push("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        faults.push("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        faults.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        faults.push(
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
        );
    }
    faults
}

/// What goes with a user namespace of the pod's own, and with its operating system.
pub fn host_and_system(cx: &Context<'_>, spec: &Value, path: &Path<'_>, e: &mut Errors) {
    host_process(cx, spec, path, e);
    if at(spec, "hostUsers") == &Value::Bool(false) {
        // Kubernetes capitalises two of these paths.
        for (field, shown) in [
            ("hostNetwork", "hostNetwork"),
            ("hostPID", "HostPID"),
            ("hostIPC", "HostIPC"),
        ] {
            if flag(spec, field) {
                e.forbidden(&path.child(shown), "when `pod.Spec.HostUsers` is false");
            }
        }
    }
}

const KINDS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Windows' privileged containers: all of a pod's or none, on the host's network.
fn host_process(cx: &Context<'_>, spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let wish = |context: &Value| at(at(context, "windowsOptions"), "hostProcess").as_bool();
    let of_pod = wish(at(spec, "securityContext"));
    let (mut count, mut host) = (0, 0);
    for kind in KINDS {
        let all = path.child(kind);
        for (i, container) in list(spec, kind).iter().enumerate() {
            count += 1;
            let own = wish(at(container, "securityContext"));
            if let (Some(pod), Some(own)) = (of_pod, own)
                && pod != own
            {
                let here = all.index(i);
                let here = here.child("securityContext");
                let here = here.child("windowsOptions");
                e.invalid_shown(
                    &here.child("hostProcess"),
                    &own.to_string(),
                    &format!(
                        "pod hostProcess value must be identical if both are specified, was {pod}"
                    ),
                );
            }
            host += usize::from(own.or(of_pod).unwrap_or(false));
        }
    }
    if host == 0 {
        return;
    }
    if host != count {
        e.invalid_text(
            path,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess containers",
        );
    }
    if !flag(spec, "hostNetwork") {
        e.invalid_shown(
            &path.child("hostNetwork"),
            "false",
            "hostNetwork must be true if pod contains any hostProcess containers",
        );
    }
    if !cx.allow_privileged {
        e.forbidden(
            path,
            "hostProcess containers are disallowed by cluster policy",
        );
    }
}

/// `spec.os`, and what does not exist on it.
pub fn system(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    if !has(spec, "os") {
        return;
    }
    let here = path.child("os");
    match text(at(spec, "os"), "name") {
        "" => e.required(&here.child("name"), "cannot be empty"),
        "linux" => each_context(spec, path, |context, _, path| {
            if has(context, "windowsOptions") {
                e.forbidden(
                    &path.child("windowsOptions"),
                    "windows options cannot be set for a linux pod",
                );
            }
        }),
        "windows" => not_on_windows(spec, path, e),
        other => e.not_supported(&here, other, &["linux", "windows"]),
    }
}

fn not_on_windows(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    const DETAIL: &str = "cannot be set for a windows pod";
    for field in ["hostUsers", "shareProcessNamespace"] {
        if has(spec, field) {
            e.forbidden(&path.child(field), DETAIL);
        }
    }
    for field in ["hostPID", "hostIPC"] {
        if flag(spec, field) {
            e.forbidden(&path.child(field), DETAIL);
        }
    }
    let shared = ["appArmorProfile", "seLinuxOptions", "seccompProfile"];
    let pods = [
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    let containers = [
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    each_context(spec, path, |context, of_pod, path| {
        let own: &[&str] = if of_pod { &pods } else { &containers };
        for field in shared.iter().chain(own) {
            if has(context, field) {
                e.forbidden(&path.child(field), DETAIL);
            }
        }
    });
}

/// Calls with the pod's security context and each container's; whether it is the pod's; its path.
fn each_context(spec: &Value, path: &Path<'_>, mut call: impl FnMut(&Value, bool, &Path<'_>)) {
    call(
        at(spec, "securityContext"),
        true,
        &path.child("securityContext"),
    );
    for kind in KINDS {
        let all = path.child(kind);
        for (i, container) in list(spec, kind).iter().enumerate() {
            let here = all.index(i);
            let here = here.child("securityContext");
            call(at(container, "securityContext"), false, &here);
        }
    }
}

/// Annotations that name profiles of containers there are none of.
pub fn annotations(metadata: &Value, spec: &Value, path: &Path<'_>, e: &mut Errors) {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    for (key, value) in entries(metadata, "annotations") {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        let here = path.key(key);
        let known = |kind: &&str| list(spec, kind).iter().any(|c| text(c, "name") == name);
        if !KINDS.iter().any(known) {
            e.invalid_text(&here, name, "container not found");
        }
        let profile = value.as_str().unwrap_or("");
        let good = matches!(profile, "" | "runtime/default" | "unconfined")
            || profile.starts_with("localhost/");
        if !good {
            let detail = format!("invalid AppArmor profile name: {profile:?}");
            e.invalid_text(&here, profile, &detail);
        }
    }
}
