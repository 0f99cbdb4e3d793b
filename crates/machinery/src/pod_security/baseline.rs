//! What no pod of the level `baseline` may say: known ways out of its container.

use serde_json::Value;

use super::{Check, Pod, Version, Violation, containers, plural, quoted, sorted};
use crate::validation::value::{at, down, flag, has, int, list, text};

/// Each check, since which version it is made, and since which the level `restricted` has a
/// stricter one in its place.
pub const CHECKS: &[(Check, u32, Option<u32>)] = &[
    (app_armor, 0, None),
    (capabilities, 0, Some(22)),
    (host_namespaces, 0, None),
    (host_paths, 0, Some(0)),
    (host_ports, 0, None),
    (handler_hosts, 34, None),
    (privileged, 0, None),
    (proc_mount_relaxed, 0, Some(35)),
    (se_linux, 0, None),
    // Before v1.19 profiles were named in annotations, which no kubelet reads any more.
    (seccomp, 19, Some(19)),
    (sysctls, 0, None),
    (host_process, 0, None),
];

fn app_armor(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let kind = |context: &Value| {
        let kind = at(at(context, "appArmorProfile"), "type").as_str()?;
        (!matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
    };
    let (mut setters, mut values) = (vec![], vec![]);
    if let Some(value) = kind(pod.context()) {
        setters.push("pod".to_owned());
        values.push(value);
    }
    let names = pod.named(|c| kind(at(c, "securityContext")).is_some());
    let own = |c: &&Value| kind(at(c, "securityContext"));
    values.extend(pod.containers.iter().filter_map(own));
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    let mut values = sorted(values);
    let allowed = |v: &str| matches!(v, "" | "runtime/default") || v.starts_with("localhost/");
    let annotations: Vec<String> = pod
        .annotations
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with(ANNOTATION))
        .map(|(name, value)| (name, value.as_str().unwrap_or("")))
        .filter(|(_, value)| !allowed(value))
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    if !annotations.is_empty() {
        setters.push(plural("annotation", "annotations", annotations.len()).to_owned());
        values.extend(sorted(annotations));
    }
    let reason = plural(
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
        values.len(),
    );
    (!setters.is_empty()).then(|| {
        let setters = setters.join(" and ");
        let values = quoted(&values);
        Violation::new(
            reason,
            format!("{setters} must not set AppArmor profile type to {values}"),
        )
    })
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The capabilities that a container adds beyond those allowed.
pub fn added<'a>(container: &'a Value, allowed: &'a [&str]) -> impl Iterator<Item = &'a str> {
    list(down(container, &["securityContext", "capabilities"]), "add")
        .iter()
        .filter_map(Value::as_str)
        .filter(|name| !allowed.contains(name))
}

fn capabilities(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let names = pod.named(|c| added(c, &CAPABILITIES).next().is_some());
    let all = pod.containers.iter().flat_map(|c| added(c, &CAPABILITIES));
    let all = sorted(all.collect());
    (!names.is_empty()).then(|| {
        let (names, all) = (containers(&names), quoted(&all));
        Violation::new(
            "non-default capabilities",
            format!("{names} must not include {all} in securityContext.capabilities.add"),
        )
    })
}

fn host_namespaces(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| flag(pod.spec, field))
        .map(|field| format!("{field}=true"))
        .collect();
    (!set.is_empty()).then(|| Violation::new("host namespaces", set.join(", ")))
}

fn host_paths(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let volumes = list(pod.spec, "volumes").iter();
    let names: Vec<&str> = volumes
        .filter(|v| has(v, "hostPath"))
        .map(|v| text(v, "name"))
        .collect();
    (!names.is_empty()).then(|| {
        let word = plural("volume", "volumes", names.len());
        Violation::new("hostPath volumes", format!("{word} {}", quoted(&names)))
    })
}

fn ports(container: &Value) -> impl Iterator<Item = String> {
    let all = list(container, "ports").iter();
    all.filter_map(|p| int(p, "hostPort"))
        .filter(|n| *n != 0)
        .map(|n| n.to_string())
}

fn host_ports(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let names = pod.named(|c| ports(c).next().is_some());
    let all = sorted(pod.containers.iter().flat_map(|c| ports(c)).collect());
    (!names.is_empty()).then(|| {
        let uses = plural("uses", "use", names.len());
        let word = plural("hostPort", "hostPorts", all.len());
        let (names, all) = (containers(&names), all.join(", "));
        Violation::new("hostPort", format!("{names} {uses} {word} {all}"))
    })
}

/// The hosts that a container's probes and hooks ask instead of its pod.
fn hosts(container: &Value) -> Vec<&str> {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| at(container, p));
    let hooks = ["postStart", "preStop"].map(|h| at(at(container, "lifecycle"), h));
    let handlers = probes.into_iter().chain(hooks);
    handlers
        .flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| text(at(handler, kind), "host")))
        .filter(|host| !host.is_empty())
        .collect()
}

fn handler_hosts(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    const REASON: &str = "probe or lifecycle host";
    let names = sorted(pod.named(|c| !hosts(c).is_empty()));
    let all = sorted(pod.containers.iter().flat_map(|c| hosts(c)).collect());
    (!names.is_empty()).then(|| {
        let uses = plural("uses", "use", names.len());
        let word = plural(REASON, "probe or lifecycle hosts", all.len());
        let (names, all) = (containers(&names), quoted(&all));
        Violation::new(REASON, format!("{names} {uses} {word} {all}"))
    })
}

fn privileged(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let names = pod.named(|c| flag(at(c, "securityContext"), "privileged"));
    (!names.is_empty()).then(|| {
        let names = containers(&names);
        Violation::new(
            "privileged",
            format!("{names} must not set securityContext.privileged=true"),
        )
    })
}

/// Since v1.35 a pod with users of its own may see all of `/proc`.
fn proc_mount_relaxed(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version.has(35) && pod.own_users() {
        return None;
    }
    proc_mount(pod, version)
}

pub fn proc_mount(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let mount = |c: &Value| {
        let kind = at(at(c, "securityContext"), "procMount").as_str()?;
        (kind != "Default").then(|| kind.to_owned())
    };
    let names = pod.named(|c| mount(c).is_some());
    let all = sorted(pod.containers.iter().filter_map(|c| mount(c)).collect());
    (!names.is_empty()).then(|| {
        let (names, all) = (containers(&names), quoted(&all));
        Violation::new(
            "procMount",
            format!("{names} must not set securityContext.procMount to {all}"),
        )
    })
}

fn se_linux(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let allowed = |kind: &str| match kind {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
        "container_engine_t" => version.has(31),
        _ => false,
    };
    let of = |context: &Value| {
        let options = at(context, "seLinuxOptions");
        let [kind, user, role] = ["type", "user", "role"].map(|f| text(options, f).to_owned());
        (kind, !user.is_empty(), !role.is_empty())
    };
    let bad = |context: &Value| {
        let (kind, user, role) = of(context);
        !allowed(&kind) || user || role
    };
    let mut setters = vec![];
    if bad(pod.context()) {
        setters.push("pod".to_owned());
    }
    let names = pod.named(|c| bad(at(c, "securityContext")));
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    if setters.is_empty() {
        return None;
    }
    let contexts = pod.containers.iter().map(|c| at(c, "securityContext"));
    let all: Vec<_> = std::iter::once(pod.context())
        .chain(contexts)
        .map(of)
        .collect();
    let kinds = all.iter().map(|(kind, ..)| kind.as_str());
    let kinds = sorted(kinds.filter(|kind| !allowed(kind)).collect());
    let mut data = vec![];
    if !kinds.is_empty() {
        let word = plural("type", "types", kinds.len());
        data.push(format!("{word} {}", quoted(&kinds)));
    }
    if all.iter().any(|(_, user, _)| *user) {
        data.push("user may not be set".to_owned());
    }
    if all.iter().any(|(.., role)| *role) {
        data.push("role may not be set".to_owned());
    }
    let (setters, data) = (setters.join(" and "), data.join("; "));
    Some(Violation::new(
        "seLinuxOptions",
        format!("{setters} set forbidden securityContext.seLinuxOptions: {data}"),
    ))
}

/// The profile that a security context names.
pub fn profile(context: &Value) -> Option<&str> {
    at(at(context, "seccompProfile"), "type").as_str()
}

/// Who names a profile that is none of the allowed, and which.
pub fn bad_profiles<'a>(pod: &Pod<'a>) -> (Vec<String>, Vec<&'a str>) {
    let bad = |context: &'a Value| {
        profile(context).filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
    };
    let (mut setters, mut values) = (vec![], vec![]);
    if let Some(kind) = bad(pod.context()) {
        setters.push("pod".to_owned());
        values.push(kind);
    }
    let mut names = vec![];
    for container in &pod.containers {
        if let Some(kind) = bad(at(container, "securityContext")) {
            names.push(text(container, "name"));
            values.push(kind);
        }
    }
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    (setters, sorted(values))
}

fn seccomp(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let (setters, values) = bad_profiles(pod);
    (!setters.is_empty()).then(|| {
        let (setters, values) = (setters.join(" and "), quoted(&values));
        Violation::new(
            "seccompProfile",
            format!("{setters} must not set securityContext.seccompProfile.type to {values}"),
        )
    })
}

/// Each and since which version it is allowed.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let allowed = |name: &&str| {
        let mut known = SYSCTLS.iter();
        known.any(|(known, since)| known == name && version.has(*since))
    };
    let all = list(pod.context(), "sysctls")
        .iter()
        .map(|s| text(s, "name"));
    let bad: Vec<&str> = all.filter(|name| !allowed(name)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn host_process(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let set = |context: &Value| flag(at(context, "windowsOptions"), "hostProcess");
    let mut setters = vec![];
    if set(pod.context()) {
        setters.push("pod".to_owned());
    }
    let names = pod.named(|c| set(at(c, "securityContext")));
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    (!setters.is_empty()).then(|| {
        let setters = setters.join(" and ");
        Violation::new(
            "hostProcess",
            format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
        )
    })
}

/// The name of the source of a volume.
pub fn source(volume: &Value) -> Option<&str> {
    let all = volume.as_object()?;
    all.iter()
        .find(|(name, value)| *name != "name" && !value.is_null())
        .map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sources_are_what_is_no_name() {
        assert_eq!(source(&json!({"name": "v", "nfs": {}})), Some("nfs"));
        assert_eq!(source(&json!({"name": "v"})), None);
    }
}
