//! PodSecurity: the labels of a namespace say which pods are refused, noted in the audit log and
//! warned of. What pods may say is `gantry-machinery`'s to tell.

use gantry_machinery::path::At as _;
use std::collections::BTreeMap;

use gantry_machinery::{
    pod_security::{self, Configuration, Level, LevelVersion, Policy, violations},
    status::Failure,
};
use serde_json::Value;

use super::{all, stored};
use crate::{api::Cx, errors, object};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace that are looked at when its level changes.
const MOST_PODS: usize = 3000;

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

/// Refuses a pod, warns of it or of a template, and notes what was found.
pub fn check(cx: &mut Cx, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let sub = cx.target.subresource.as_str();
    if sub.is_empty() && cx.entry.is("", "namespaces") {
        let warnings = of_namespace(cx, object, old);
        cx.warn(warnings);
        return Ok(());
    }
    let Some(at) = template(cx) else {
        return Ok(());
    };
    let is_pod = at.is_empty();
    if !(sub.is_empty() || is_pod && matches!(sub, "ephemeralcontainers" | "resize")) {
        return Ok(());
    }
    let set = &cx.api.config.admission.pod_security;
    if set.namespaces.contains(&cx.target.namespace) {
        return exempt(cx, "namespace");
    }
    if set.usernames.contains(&cx.user.name) {
        return exempt(cx, "user");
    }
    let Some(namespace) = stored(cx, "/namespaces", &cx.target.namespace) else {
        return Ok(());
    };
    let policy = Policy::of(&namespace, &set.defaults);
    let faults = pod_security::label_faults(&namespace);
    if policy.open() && faults.is_empty() {
        cx.notes.add(
            "pod-security.kubernetes.io/enforce-policy",
            "privileged:latest",
        );
        return Ok(());
    }
    if is_pod && old.is_some_and(|old| !matters(object, old)) {
        return Ok(());
    }
    let Some(pod) = object.at(at).filter(|pod| pod.get("spec").is_some()) else {
        return Ok(());
    };
    let class = object::text(pod, "/spec/runtimeClassName");
    if !class.is_empty() && set.runtime_classes.iter().any(|c| c == class) {
        return exempt(cx, "runtimeClass");
    }
    if !faults.is_empty() {
        let all: Vec<String> = faults
            .iter()
            .map(|f| format!("{}: {}", f.field, f.message))
            .collect();
        let shown = match all.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let note = format!("Failed to parse policy: {shown}");
        cx.annotate(&format!("{PREFIX}error"), note);
    }
    judge(cx, pod, object::name(object), &policy, is_pod)
}

/// Lets a request on because of what it comes from or goes to, and notes why.
fn exempt(cx: &Cx, why: &str) -> Result<(), Failure> {
    cx.annotate(&format!("{PREFIX}exempt"), why.to_owned());
    Ok(())
}

/// Whether a pod's update changes something that counts: which containers there are, and of which
/// images.
fn matters(pod: &Value, old: &Value) -> bool {
    ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .any(|list| {
            let images = |pod: &Value| -> Vec<(String, String)> {
                pod.at(&format!("/spec/{list}"))
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .map(|c| {
                        let text = |at| object::text(c, at).to_owned();
                        (text("/name"), text("/image"))
                    })
                    .collect()
            };
            images(pod) != images(old)
        })
}

fn judge(
    cx: &mut Cx,
    pod: &Value,
    name: &str,
    policy: &Policy,
    is_pod: bool,
) -> Result<(), Failure> {
    let found = |of: LevelVersion| {
        let found = violations(pod, of);
        (!found.is_empty()).then(|| pod_security::details(&found))
    };
    let refused = if is_pod {
        let enforced = format!("{PREFIX}enforce-policy");
        cx.annotate(&enforced, policy.enforce.to_string());
        found(policy.enforce)
    } else {
        None
    };
    if let Some(details) = found(policy.audit) {
        let note = would(policy.audit, &details);
        cx.annotate(&format!("{PREFIX}audit-violations"), note);
    }
    if let Some(details) = refused {
        return Err(errors::forbidden(
            cx.resource(),
            name,
            &format!(
                "violates PodSecurity {:?}: {details}",
                policy.enforce.to_string()
            ),
        ));
    }
    if let Some(details) = found(policy.warn) {
        cx.warn(vec![would(policy.warn, &details)]);
    }
    Ok(())
}

fn would(of: LevelVersion, details: &str) -> String {
    format!("would violate PodSecurity {:?}: {details}", of.to_string())
}

/// What to say of a namespace's labels: of those that are of no use, and of the pods that are there
/// already when it is held to a stricter level.
fn of_namespace(cx: &Cx, namespace: &Value, old: Option<&Value>) -> Vec<String> {
    let set = &cx.api.config.admission.pod_security;
    let name = object::name(namespace);
    let new = Policy::of(namespace, &set.defaults);
    let Some(old) = old else {
        return useless(name, &new, set).into_iter().collect();
    };
    let before = Policy::of(old, &set.defaults).enforce;
    let enforce = new.enforce;
    let relaxed = enforce.version == before.version && enforce.level <= before.level;
    if enforce == before || enforce.level == Level::Privileged || relaxed {
        return vec![];
    }
    if set.namespaces.iter().any(|n| n == name) {
        return useless(name, &new, set).into_iter().collect();
    }
    let pods = all(cx, "/pods", name);
    let pods: Vec<&Value> = pods.iter().map(|pod| &**pod).collect();
    tell(name, enforce, &pods, MOST_PODS)
}

/// The labels of a namespace that is exempt are of no use, where they ask for something.
fn useless(name: &str, policy: &Policy, set: &Configuration) -> Option<String> {
    let exempt = set.namespaces.iter().any(|n| n == name);
    (exempt && !policy.open()).then(|| {
        format!(
            "namespace {name:?} is exempt from Pod Security, and the policy ({policy}) will be ignored"
        )
    })
}

/// Pods that say the same wrong things are told of once, by the first of their names.
fn tell(namespace: &str, of: LevelVersion, pods: &[&Value], most: usize) -> Vec<String> {
    let mut seen: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in first_of_each(pods).into_iter().take(most) {
        let found = violations(pod, of);
        if found.is_empty() {
            continue;
        }
        let name = object::name(pod);
        let entry = seen
            .entry(pod_security::reasons(&found))
            .or_insert((name, 0));
        entry.0 = entry.0.min(name);
        entry.1 += 1;
    }
    let mut warnings = vec![];
    if pods.len() > most {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {most} of {} existing pods",
            pods.len()
        ));
    }
    if !seen.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {:?}",
            of.to_string()
        ));
    }
    let mut told: Vec<String> = seen
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    told.sort();
    warnings.extend(told);
    warnings
}

/// The pods, one of each controller first: its others are alike.
fn first_of_each<'a>(pods: &[&'a Value]) -> Vec<&'a Value> {
    let controller = |pod: &'a Value| {
        let owners = object::meta(pod)?.get("ownerReferences")?.as_array()?;
        let of = |o: &&Value| o.get("controller") == Some(&Value::Bool(true));
        owners.iter().find(of)?.get("uid")?.as_str()
    };
    let mut seen: Vec<&str> = vec![];
    let (mut first, mut rest) = (vec![], vec![]);
    for pod in pods {
        match controller(pod) {
            Some(uid) if seen.contains(&uid) => rest.push(*pod),
            Some(uid) => {
                seen.push(uid);
                first.push(*pod);
            }
            None => first.push(*pod),
        }
    }
    first.extend(rest);
    first
}

#[cfg(test)]
mod tests {
    use gantry_machinery::pod_security::Version;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, owner: &str, spec: Value) -> Value {
        let owners = json!([{"uid": owner, "controller": true}]);
        json!({"metadata": {"name": name, "ownerReferences": owners}, "spec": spec})
    }

    #[test]
    fn pods_that_are_there_are_told_of_once_a_fault() {
        let host = json!({"hostPID": true, "containers": []});
        let pods = [
            pod("c", "1", host.clone()),
            pod("b", "1", host.clone()),
            pod("a", "2", host),
            pod("d", "3", json!({"containers": []})),
        ];
        let pods: Vec<&Value> = pods.iter().collect();
        let of = LevelVersion {
            level: Level::Baseline,
            version: Version::Latest,
        };
        assert_eq!(
            tell("n", of, &pods, 9),
            [
                "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
                "a (and 2 other pods): host namespaces",
            ]
        );
        let names: Vec<&str> = first_of_each(&pods).into_iter().map(object::name).collect();
        assert_eq!(names, ["c", "a", "d", "b"]);
        assert_eq!(
            tell("n", of, &pods, 1)[0],
            "new PodSecurity enforce level only checked against the first 1 of 4 existing pods"
        );
    }

    #[test]
    fn an_update_matters_by_containers_and_images() {
        let pod =
            |list: &str, image: &str| json!({"spec": {list: [{"name": "a", "image": image}]}});
        assert!(matters(&pod("containers", "x"), &pod("containers", "y")));
        assert!(matters(&pod("ephemeralContainers", "x"), &json!({})));
        let mut labelled = pod("containers", "x");
        labelled["metadata"] = json!({"labels": {"a": "b"}});
        assert!(!matters(&labelled, &pod("containers", "x")));
    }
}
