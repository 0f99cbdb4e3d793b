//! What a pod of the level `restricted` may not say beyond the level `baseline`: it is hardened by
//! the practice of the day.

use serde_json::Value;

use super::{
    Check, Pod, Version, Violation,
    baseline::{added, bad_profiles, proc_mount, profile, source},
    containers, plural, quoted, sorted,
};
use crate::validation::value::{at, down, int, list, text};

/// Each check and since which version it is made.
pub const CHECKS: &[(Check, u32)] = &[
    (escalation, 8),
    (capabilities, 22),
    (proc_mount, 35),
    (volumes, 0),
    (non_root, 0),
    (user, 23),
    (seccomp, 19),
];

/// Since v1.25 pods that say they are Windows' are spared what Windows does not know.
fn spared(pod: &Pod<'_>, version: Version) -> bool {
    version.has(25) && pod.windows()
}

fn escalation(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if spared(pod, version) {
        return None;
    }
    const FIELD: &str = "allowPrivilegeEscalation";
    let names = pod.named(|c| at(at(c, "securityContext"), FIELD) != &Value::Bool(false));
    (!names.is_empty()).then(|| {
        let names = containers(&names);
        Violation::new(
            format!("{FIELD} != false"),
            format!("{names} must set securityContext.{FIELD}=false"),
        )
    })
}

fn capabilities(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if spared(pod, version) {
        return None;
    }
    const ALLOWED: [&str; 1] = ["NET_BIND_SERVICE"];
    let drops = |c: &Value| {
        let all = down(c, &["securityContext", "capabilities"]);
        list(all, "drop").iter().any(|d| d == "ALL")
    };
    let keeping = pod.named(|c| !drops(c));
    let adding = pod.named(|c| added(c, &ALLOWED).next().is_some());
    let all = pod.containers.iter().flat_map(|c| added(c, &ALLOWED));
    let all = sorted(all.collect());
    let mut details = vec![];
    if !keeping.is_empty() {
        let names = containers(&keeping);
        details.push(format!(
            "{names} must set securityContext.capabilities.drop=[\"ALL\"]"
        ));
    }
    if !adding.is_empty() {
        let (names, all) = (containers(&adding), quoted(&all));
        details.push(format!(
            "{names} must not include {all} in securityContext.capabilities.add"
        ));
    }
    let detail = details.join("; ");
    (!detail.is_empty()).then(|| Violation::new("unrestricted capabilities", detail))
}

const SOURCES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let bad: Vec<(&str, &str)> = list(pod.spec, "volumes")
        .iter()
        .map(|v| (text(v, "name"), source(v).unwrap_or("emptyDir")))
        .filter(|(_, source)| !SOURCES.contains(source))
        .collect();
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let kinds = sorted(bad.iter().map(|(_, kind)| *kind).collect());
    (!bad.is_empty()).then(|| {
        let many = names.len();
        let (volume, uses) = (
            plural("volume", "volumes", many),
            plural("uses", "use", many),
        );
        let (one, more) = ("restricted volume type", "restricted volume types");
        let kind = plural(one, more, kinds.len());
        let (names, kinds) = (quoted(&names), quoted(&kinds));
        Violation::new(more, format!("{volume} {names} {uses} {kind} {kinds}"))
    })
}

/// Since v1.35 a pod with users of its own may run as its root.
fn own_root(pod: &Pod<'_>, version: Version) -> bool {
    version.has(35) && pod.own_users()
}

fn non_root(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if own_root(pod, version) {
        return None;
    }
    let set = |context: &Value| at(context, "runAsNonRoot").as_bool();
    let whole = set(pod.context());
    let own = |c: &Value| set(at(c, "securityContext"));
    let mut setters = vec![];
    if whole == Some(false) {
        setters.push("pod".to_owned());
    }
    let names = pod.named(|c| own(c) == Some(false));
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    let lacking = pod.named(|c| own(c).is_none() && whole != Some(true));
    let detail = if !setters.is_empty() {
        let setters = setters.join(" and ");
        format!("{setters} must not set securityContext.runAsNonRoot=false")
    } else if !lacking.is_empty() {
        let names = containers(&lacking);
        format!("pod or {names} must set securityContext.runAsNonRoot=true")
    } else {
        return None;
    };
    Some(Violation::new("runAsNonRoot != true", detail))
}

fn user(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if own_root(pod, version) {
        return None;
    }
    let root = |context: &Value| int(context, "runAsUser") == Some(0);
    let mut setters = vec![];
    if root(pod.context()) {
        setters.push("pod".to_owned());
    }
    let names = pod.named(|c| root(at(c, "securityContext")));
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    (!setters.is_empty()).then(|| {
        let setters = setters.join(" and ");
        Violation::new("runAsUser=0", format!("{setters} must not set runAsUser=0"))
    })
}

fn seccomp(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if spared(pod, version) {
        return None;
    }
    const REASON: &str = "seccompProfile";
    let (setters, values) = bad_profiles(pod);
    if !setters.is_empty() {
        let (setters, values) = (setters.join(" and "), quoted(&values));
        let detail =
            format!("{setters} must not set securityContext.seccompProfile.type to {values}");
        return Some(Violation::new(REASON, detail));
    }
    let whole = profile(pod.context()).is_some();
    let names = pod.named(|c| !whole && profile(at(c, "securityContext")).is_none());
    (!names.is_empty()).then(|| {
        let names = containers(&names);
        Violation::new(
            REASON,
            format!(
                "pod or {names} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
            ),
        )
    })
}
