//! PodSecurity: the levels `baseline` and `restricted` of the pod security standards, enforced or
//! warned about by labels of the namespace.

use gantry_machinery::status::Failure;
use serde_json::Value;

use super::stored;
use crate::{api::Cx, errors, object};

const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

fn level(text: &str) -> Level {
    match text {
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => Level::Privileged,
    }
}

/// Where a kind keeps its pod.
fn template(cx: &Cx) -> Option<&'static str> {
    Some(
        match (cx.resource().group.as_str(), cx.resource().plural.as_str()) {
            ("", "pods") => "",
            ("", "replicationcontrollers")
            | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
            | ("batch", "jobs") => "/spec/template",
            ("", "podtemplates") => "/template",
            ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
            _ => return None,
        },
    )
}

pub fn check(cx: &mut Cx, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let Some(at) = template(cx) else {
        return Ok(());
    };
    let Some(namespace) = stored(cx, "/namespaces", &cx.target.namespace) else {
        return Ok(());
    };
    let labels = object::meta(&namespace).and_then(|m| m.get("labels"));
    let of = |mode: &str| -> (Level, String) {
        let get = |name: String| {
            labels
                .and_then(|l| l.get(&name))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let name = get(format!("{PREFIX}{mode}"));
        let version = match get(format!("{PREFIX}{mode}-version")) {
            v if v.is_empty() => "latest".to_owned(),
            v => v,
        };
        (level(&name), format!("{name}:{version}"))
    };
    let (enforce, warn) = (of("enforce"), of("warn"));
    if enforce.0 == Level::Privileged && warn.0 == Level::Privileged {
        return Ok(());
    }
    if old
        .is_some_and(|o| o.pointer(&format!("{at}/spec")) == object.pointer(&format!("{at}/spec")))
    {
        return Ok(());
    }
    let Some(pod) = object.pointer(at) else {
        return Ok(());
    };
    if at.is_empty() {
        let wrong = violations(pod, enforce.0);
        if !wrong.is_empty() {
            return Err(errors::forbidden(
                cx.resource(),
                object::name(object),
                &format!("violates PodSecurity {:?}: {}", enforce.1, wrong.join(", ")),
            ));
        }
    }
    let wrong = violations(pod, warn.0);
    if !wrong.is_empty() {
        cx.warnings.push(format!(
            "would violate PodSecurity {:?}: {}",
            warn.1,
            wrong.join(", ")
        ));
    }
    Ok(())
}

fn containers(pod: &Value) -> Vec<&Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .filter_map(|l| pod.pointer(&format!("/spec/{l}")).and_then(Value::as_array))
        .flatten()
        .collect()
}

/// `container "a"` or `containers "a", "b"`.
fn named(list: &[&Value]) -> String {
    let names: Vec<String> = list
        .iter()
        .map(|c| format!("{:?}", object::text(c, "/name")))
        .collect();
    let s = if names.len() == 1 { "" } else { "s" };
    format!("container{s} {}", names.join(", "))
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

fn violations(pod: &Value, level: Level) -> Vec<String> {
    if level == Level::Privileged {
        return vec![];
    }
    let all = containers(pod);
    let bad = |f: &dyn Fn(&Value) -> bool| -> Vec<&Value> {
        all.iter().copied().filter(|c| f(c)).collect()
    };
    let mut out = vec![];
    let host: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|f| pod.pointer(&format!("/spec/{f}")) == Some(&Value::Bool(true)))
        .map(|f| format!("{f}=true"))
        .collect();
    if !host.is_empty() {
        out.push(format!("host namespaces ({})", host.join(", ")));
    }
    let privileged = bad(&|c| c.pointer("/securityContext/privileged") == Some(&Value::Bool(true)));
    if !privileged.is_empty() {
        out.push(format!(
            "privileged ({} must not set securityContext.privileged=true)",
            named(&privileged)
        ));
    }
    let ports = bad(&|c| {
        c.pointer("/ports")
            .and_then(Value::as_array)
            .is_some_and(|p| {
                p.iter()
                    .any(|p| p.get("hostPort").and_then(Value::as_i64).unwrap_or(0) != 0)
            })
    });
    if !ports.is_empty() && pod.pointer("/spec/hostNetwork") != Some(&Value::Bool(true)) {
        let mut numbers: Vec<String> = ports
            .iter()
            .filter_map(|c| c.get("ports").and_then(Value::as_array))
            .flatten()
            .filter_map(|p| p.get("hostPort").and_then(Value::as_i64))
            .filter(|p| *p != 0)
            .map(|p| p.to_string())
            .collect();
        numbers.sort();
        numbers.dedup();
        let s = if numbers.len() == 1 { "" } else { "s" };
        out.push(format!(
            "hostPort ({} uses hostPort{s} {})",
            named(&ports),
            numbers.join(", ")
        ));
    }
    let volumes: Vec<&Value> = pod
        .pointer("/spec/volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let paths: Vec<String> = volumes
        .iter()
        .filter(|v| v.get("hostPath").is_some())
        .map(|v| format!("{:?}", object::text(v, "/name")))
        .collect();
    if !paths.is_empty() {
        let s = if paths.len() == 1 { "" } else { "s" };
        out.push(format!("hostPath volumes (volume{s} {})", paths.join(", ")));
    }
    let adds = |c: &Value| object::strings(c.pointer("/securityContext/capabilities/add"));
    if level == Level::Baseline {
        let capable = bad(&|c| adds(c).iter().any(|a| !CAPABILITIES.contains(&a.as_str())));
        if !capable.is_empty() {
            out.push(format!(
                "non-default capabilities ({} must not include capabilities beyond the default set in securityContext.capabilities.add)",
                named(&capable)
            ));
        }
        return out;
    }
    let escalating = bad(&|c| {
        c.pointer("/securityContext/allowPrivilegeEscalation") != Some(&Value::Bool(false))
    });
    if !escalating.is_empty() {
        out.push(format!(
            "allowPrivilegeEscalation != false ({} must set securityContext.allowPrivilegeEscalation=false)",
            named(&escalating)
        ));
    }
    let capable = bad(&|c| {
        !object::strings(c.pointer("/securityContext/capabilities/drop"))
            .iter()
            .any(|d| d == "ALL")
            || adds(c).iter().any(|a| a != "NET_BIND_SERVICE")
    });
    if !capable.is_empty() {
        out.push(format!(
            "unrestricted capabilities ({} must set securityContext.capabilities.drop=[\"ALL\"])",
            named(&capable)
        ));
    }
    let pod_non_root = pod
        .pointer("/spec/securityContext/runAsNonRoot")
        .and_then(Value::as_bool);
    let rooted = bad(&|c| {
        c.pointer("/securityContext/runAsNonRoot")
            .and_then(Value::as_bool)
            .or(pod_non_root)
            != Some(true)
    });
    if !rooted.is_empty() {
        out.push(format!(
            "runAsNonRoot != true (pod or {} must set securityContext.runAsNonRoot=true)",
            named(&rooted)
        ));
    }
    let pod_profile = object::text(pod, "/spec/securityContext/seccompProfile/type");
    let open = bad(&|c| {
        let own = object::text(c, "/securityContext/seccompProfile/type");
        let profile = if own.is_empty() { pod_profile } else { own };
        !matches!(profile, "RuntimeDefault" | "Localhost")
    });
    if !open.is_empty() {
        out.push(format!(
            "seccompProfile (pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            named(&open)
        ));
    }
    out
}
