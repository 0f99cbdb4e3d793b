//! What pods get on their way in: a ServiceAccount, a priority, a runtime class's needs,
//! tolerations.

use gantry_machinery::path::At as _;
use std::time::Duration;

use gantry_machinery::status::Failure;
use rand::Rng;
use serde_json::{Map, Value, json};

use super::{all, stored};
use crate::{
    api::Cx,
    errors,
    object::{self, View},
};

fn spec_mut(pod: &mut Value) -> Option<&mut Map<String, Value>> {
    pod.get_mut("spec").and_then(Value::as_object_mut)
}

fn refuse(cx: &Cx, pod: &Value, why: &str) -> Failure {
    errors::forbidden(cx.resource(), object::name(pod), why)
}

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long a pod's creation waits for the account that every namespace gets.
const ACCOUNT_TIME: Duration = Duration::from_secs(1);

/// Waits for the `default` ServiceAccount of a new namespace, which a controller makes a moment
/// after the namespace, as kube-apiserver does.
pub async fn default_account(cx: &Cx, pod: &Value) {
    const BUCKET: &str = "/serviceaccounts";
    let name = object::text(pod, "/spec/serviceAccountName");
    let namespace = &cx.target.namespace;
    let there = || stored(cx, BUCKET, &format!("{namespace}/default")).is_some();
    if !matches!(name, "" | "default") || there() || stored(cx, "/namespaces", namespace).is_none()
    {
        return;
    }
    let Ok(mut accounts) = cx.store().watch(BUCKET, cx.store().revision()) else {
        return;
    };
    let made = async { while !there() && accounts.next().await.is_ok() {} };
    // When it does not come in time, the step after this says so.
    let _ = tokio::time::timeout(ACCOUNT_TIME, made).await;
}

/// A resize is a question to the pod's node: it has to be there.
pub fn node_of_resize(cx: &Cx, pod: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let node = object::text(pod, "/spec/nodeName");
    let changed = old.is_some_and(|old| old.get("spec") != pod.get("spec"));
    if changed && !node.is_empty() && stored(cx, "/nodes", node).is_none() {
        return Err(refuse(cx, pod, &format!("node {node:?} not found")));
    }
    Ok(())
}

/// PodTopologyLabels: the zone and region of the node that a pod is bound to, as the pod's labels
/// (KEP-4742). A node that is not there says nothing.
pub fn topology(cx: &Cx, node: &str, labelled: &mut Value) {
    if node.is_empty() {
        return;
    }
    let Some(node) = stored(cx, "/nodes", node) else {
        return;
    };
    let view = View::get(&node.entry, &node.stored);
    copy_topology(|label| view.label(label), labelled);
}

fn copy_topology<'a>(of_node: impl Fn(&str) -> Option<&'a str>, labelled: &mut Value) {
    const LABELS: [&str; 2] = [
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    for label in LABELS {
        let Some(value) = of_node(label) else {
            continue;
        };
        if let Some(meta) = object::meta_mut(labelled) {
            let own = meta.entry("labels").or_insert_with(|| json!({}));
            if let Some(own) = own.as_object_mut() {
                own.insert(label.to_owned(), value.into());
            }
        }
    }
}

/// ServiceAccount: every pod runs as one, and finds its token in its containers.
pub fn service_account(cx: &Cx, pod: &mut Value) -> Result<(), Failure> {
    let mirror = object::meta(pod)
        .and_then(|m| m.get("annotations"))
        .is_some_and(|a| a.get("kubernetes.io/config.mirror").is_some());
    if mirror {
        return Ok(());
    }
    let name = match object::text(pod, "/spec/serviceAccountName") {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    let namespace = &cx.target.namespace;
    let Some(account) = stored(cx, "/serviceaccounts", &format!("{namespace}/{name}")) else {
        return Err(refuse(
            cx,
            pod,
            &format!(
                "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
            ),
        ));
    };
    let mounts = pod
        .at("/spec/automountServiceAccountToken")
        .or_else(|| account.get("automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let Some(spec) = spec_mut(pod) else {
        return Ok(());
    };
    spec.insert("serviceAccountName".to_owned(), name.clone().into());
    spec.insert("serviceAccount".to_owned(), name.into());
    let secrets = account.get("imagePullSecrets");
    if !spec.contains_key("imagePullSecrets")
        && let Some(secrets) = secrets
    {
        spec.insert("imagePullSecrets".to_owned(), secrets.clone());
    }
    if mounts {
        mount_token(spec);
    }
    Ok(())
}

fn mount_token(spec: &mut Map<String, Value>) {
    let volume = spec
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|v| object::text(v, "/name").to_owned())
        .find(|name| name.starts_with("kube-api-access-"));
    let name = volume.clone().unwrap_or_else(suffix);
    let mut used = false;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else {
                continue;
            };
            if mounts
                .iter()
                .any(|m| object::text(m, "/mountPath") == MOUNT)
            {
                continue;
            }
            used = true;
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT}));
        }
    }
    if !used || volume.is_some() {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(json!({
            "name": name,
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {
                        "name": "kube-root-ca.crt",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    }},
                    {"downwardAPI": {"items": [{
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }]}},
                ],
                "defaultMode": 420,
            },
        }));
    }
}

fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    let random: String = (0..5)
        .map(|_| LETTERS[rng.random_range(0..LETTERS.len())] as char)
        .collect();
    format!("kube-api-access-{random}")
}

/// What admission gave a pod stays when an update leaves it out.
pub fn keep(pod: &mut Value, old: &Value) {
    let Some(spec) = spec_mut(pod) else { return };
    for field in [
        "priority",
        "preemptionPolicy",
        "serviceAccountName",
        "serviceAccount",
    ] {
        if let (None, Some(value)) = (spec.get(field), old.at(&format!("/spec/{field}"))) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
}

const CLASSES: &str = "scheduling.k8s.io/priorityclasses";

/// Priority: the number and the preemption policy of the pod's class, or of the default class.
pub fn priority(cx: &Cx, pod: &mut Value) -> Result<(), Failure> {
    let mut name = object::text(pod, "/spec/priorityClassName").to_owned();
    let class = if name.is_empty() {
        let default = all(cx, CLASSES, "")
            .into_iter()
            .filter(|c| c.get("globalDefault") == Some(&Value::Bool(true)))
            .min_by_key(|c| c.get("value").and_then(Value::as_i64));
        if let Some(class) = &default {
            name = object::name(class).to_owned();
        }
        default
    } else {
        let class = stored(cx, CLASSES, &name);
        if class.is_none() {
            return Err(refuse(
                cx,
                pod,
                &format!("no PriorityClass with name {name} was found"),
            ));
        }
        class
    };
    let value = class
        .as_ref()
        .and_then(|c| c.get("value"))
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let policy = class
        .as_ref()
        .and_then(|c| c.get("preemptionPolicy"))
        .and_then(Value::as_str)
        .unwrap_or("PreemptLowerPriority")
        .to_owned();
    let given = pod.at("/spec/priority").and_then(Value::as_i64);
    if let Some(given) = given.filter(|g| *g != value) {
        return Err(refuse(
            cx,
            pod,
            &format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            ),
        ));
    }
    let asked = object::text(pod, "/spec/preemptionPolicy").to_owned();
    if !asked.is_empty() && asked != policy {
        return Err(refuse(
            cx,
            pod,
            &format!(
                "the string value of PreemptionPolicy ({asked}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            ),
        ));
    }
    let Some(spec) = spec_mut(pod) else {
        return Ok(());
    };
    if !name.is_empty() {
        spec.insert("priorityClassName".to_owned(), name.into());
    }
    spec.insert("priority".to_owned(), value.into());
    spec.insert("preemptionPolicy".to_owned(), policy.into());
    Ok(())
}

/// RuntimeClass: its overhead, node selector and tolerations become the pod's.
pub fn runtime_class(cx: &Cx, pod: &mut Value) -> Result<(), Failure> {
    let name = object::text(pod, "/spec/runtimeClassName").to_owned();
    if name.is_empty() {
        return Ok(());
    }
    let Some(class) = stored(cx, "node.k8s.io/runtimeclasses", &name) else {
        return Err(refuse(
            cx,
            pod,
            &format!("pod rejected: RuntimeClass \"{name}\" not found"),
        ));
    };
    let overhead = class.at("/overhead/podFixed").cloned();
    let given = pod.at("/spec/overhead").cloned();
    if given.is_some() && given != overhead {
        return Err(refuse(
            cx,
            pod,
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ));
    }
    let selector = class.at("/scheduling/nodeSelector").cloned();
    let added = class.at("/scheduling/tolerations").cloned();
    let mut conflict = false;
    if let Some(spec) = spec_mut(pod) {
        if let Some(overhead) = overhead {
            spec.insert("overhead".to_owned(), overhead);
        }
        if let Some(Value::Object(wanted)) = selector {
            let own = spec.entry("nodeSelector").or_insert_with(|| json!({}));
            for (key, value) in wanted {
                let there = own
                    .as_object_mut()
                    .and_then(|o| o.insert(key, value.clone()));
                conflict |= there.is_some_and(|t| t != value);
            }
        }
        if let Some(Value::Array(added)) = added {
            let own = spec.entry("tolerations").or_insert_with(|| json!([]));
            if let Some(own) = own.as_array_mut() {
                for toleration in added {
                    if !own.contains(&toleration) {
                        own.push(toleration);
                    }
                }
            }
        }
    }
    if conflict {
        return Err(refuse(
            cx,
            pod,
            "conflict: runtimeClass scheduling nodeSelector conflicts with the pod's",
        ));
    }
    Ok(())
}

/// DefaultTolerationSeconds: so many on a node that is not ready and on one that is not reachable, unless
/// the pod says otherwise; five minutes where nothing is said.
pub fn tolerations(pod: &mut Value, (not_ready, unreachable): (Option<i64>, Option<i64>)) {
    let Some(spec) = spec_mut(pod) else { return };
    let own = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(own) = own.as_array_mut() else {
        return;
    };
    for (key, seconds) in [
        ("node.kubernetes.io/not-ready", not_ready),
        ("node.kubernetes.io/unreachable", unreachable),
    ] {
        let tolerated = own.iter().any(|t| {
            let everything =
                object::text(t, "/key").is_empty() && object::text(t, "/operator") == "Exists";
            // Tolerations of other effects leave the eviction as it is.
            (everything || object::text(t, "/key") == key)
                && matches!(object::text(t, "/effect"), "" | "NoExecute")
        });
        if !tolerated {
            own.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": seconds.unwrap_or(300),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_labelled_with_where_their_nodes_are() {
        let labels = json!({"topology.kubernetes.io/zone": "z", "other": "x"});
        let mut binding = json!({"metadata": {"labels": {"a": "b"}}});
        copy_topology(|label| labels.get(label)?.as_str(), &mut binding);
        let expected = json!({"a": "b", "topology.kubernetes.io/zone": "z"});
        assert_eq!(binding["metadata"]["labels"], expected);
    }

    #[test]
    fn tolerations_are_added_unless_they_are_there() {
        let check = |given: Value, count: usize| {
            let mut pod = json!({"spec": {"tolerations": given}});
            tolerations(&mut pod, (Some(60), None));
            let got = pod["spec"]["tolerations"].as_array().map(Vec::len);
            assert_eq!(got, Some(count), "{given}");
            let seconds = |at: usize| pod["spec"]["tolerations"][at]["tolerationSeconds"].clone();
            if given == json!([]) {
                assert_eq!((seconds(0), seconds(1)), (json!(60), json!(300)));
            }
        };
        check(json!([]), 2);
        check(json!([{"operator": "Exists"}]), 1);
        check(json!([{"key": "a", "operator": "Exists"}]), 3);
        check(
            json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]),
            2,
        );
    }
}
