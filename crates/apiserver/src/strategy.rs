//! What Kubernetes does differently for some kinds (its `Strategy` objects): which keep a
//! generation, may be created by PUT, answer a deletion with the object, and so on.

use gantry_machinery::path::At as _;
use gantry_machinery::{qos::qos_class, resource::Resource};
use serde_json::{Value, json};

use crate::{aggregate::verdict::Verdict, object};

mod pods;

#[derive(Debug, Clone, Copy, Default)]
pub struct Traits {
    /// `metadata.generation` is kept and grows with the spec.
    pub generation: bool,
    /// PUT creates what does not exist.
    pub create_on_update: bool,
    /// PUT without a resourceVersion replaces whatever is there.
    pub unconditional_update: bool,
    /// DELETE answers the object instead of a Status.
    pub delete_returns_object: bool,
    /// Dependents stay by default when the object is deleted.
    pub orphans_by_default: bool,
    /// Status is a part of its own that the main resource does not write.
    pub separate_status: bool,
    /// Deleted with a grace period.
    pub graceful: bool,
}

impl Traits {
    pub fn of(resource: &Resource) -> Traits {
        if let Some(custom) = &resource.custom {
            return Traits {
                generation: true,
                separate_status: custom.has_status,
                ..Traits::default()
            };
        }
        let id = (resource.group.as_str(), resource.plural.as_str());
        Traits {
            generation: matches!(
                id,
                (
                    "apps",
                    "daemonsets" | "deployments" | "replicasets" | "statefulsets"
                ) | ("batch", "cronjobs" | "jobs")
                    | ("", "pods" | "podtemplates" | "replicationcontrollers")
                    | (
                        "networking.k8s.io",
                        "ingresses" | "ingressclasses" | "networkpolicies"
                    )
                    | ("policy", "poddisruptionbudgets")
                    | ("discovery.k8s.io", "endpointslices")
                    | ("scheduling.k8s.io", "priorityclasses")
                    | ("apiextensions.k8s.io", _)
                    | ("admissionregistration.k8s.io", _)
                    | ("flowcontrol.apiserver.k8s.io", _)
                    | ("resource.k8s.io", "deviceclasses" | "resourceslices")
                    | ("storage.k8s.io", "csistoragecapacities")
            ),
            create_on_update: matches!(
                id,
                ("", "services" | "endpoints" | "events" | "limitranges")
                    | ("events.k8s.io", "events")
                    | ("coordination.k8s.io", "leases" | "leasecandidates")
                    | ("node.k8s.io", "runtimeclasses")
                    | ("rbac.authorization.k8s.io", _)
            ),
            unconditional_update: !matches!(
                id,
                ("coordination.k8s.io", _)
                    | ("policy", _)
                    | ("apiextensions.k8s.io", _)
                    | ("apiregistration.k8s.io", _)
                    | ("admissionregistration.k8s.io", _)
                    | ("node.k8s.io", _)
                    | (
                        "storage.k8s.io",
                        "csinodes" | "csidrivers" | "csistoragecapacities" | "volumeattachments"
                    )
            ),
            delete_returns_object: matches!(
                id,
                (
                    "",
                    "pods"
                        | "services"
                        | "serviceaccounts"
                        | "persistentvolumes"
                        | "persistentvolumeclaims"
                        | "podtemplates"
                        | "resourcequotas"
                        | "namespaces"
                ) | ("storage.k8s.io", _)
            ),
            orphans_by_default: matches!(id, ("", "replicationcontrollers") | ("batch", "jobs")),
            separate_status: (resource.subresource("status").is_some()
                && !matches!(id, ("", "nodes")))
                || id == ("", "pods"),
            graceful: id == ("", "pods"),
        }
    }
}

/// The status of a new object, after what the client sent as status has been dropped.
pub fn initial_status(resource: &Resource, object: &mut Value, now: &str) {
    let status = match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => {
            let mut status = json!({"phase": "Pending", "qosClass": qos_class(object)});
            let gates = object.at("/spec/schedulingGates").and_then(Value::as_array);
            if gates.is_some_and(|g| !g.is_empty()) {
                status["conditions"] = json!([{
                    "type": "PodScheduled", "status": "False", "lastProbeTime": null,
                    "lastTransitionTime": now, "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                }]);
            }
            status
        }
        ("", "Namespace") => json!({"phase": "Active"}),
        ("", "PersistentVolumeClaim") => json!({"phase": "Pending"}),
        ("", "PersistentVolume") => {
            json!({"phase": "Pending", "lastPhaseTransitionTime": now})
        }
        ("", "Service") | ("networking.k8s.io", "Ingress") => json!({"loadBalancer": {}}),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => json!({"replicas": 0}),
        ("apps", "StatefulSet") => json!({"replicas": 0, "availableReplicas": 0}),
        ("apps", "DaemonSet") => json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0,
            "desiredNumberScheduled": 0, "numberReady": 0
        }),
        ("policy", "PodDisruptionBudget") => json!({
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0
        }),
        ("autoscaling", "HorizontalPodAutoscaler") if resource.version == "v2" => {
            json!({"desiredReplicas": 0, "currentMetrics": null})
        }
        ("autoscaling", "HorizontalPodAutoscaler") => {
            json!({"currentReplicas": 0, "desiredReplicas": 0})
        }
        ("storage.k8s.io", "VolumeAttachment") => json!({"attached": false}),
        ("apiregistration.k8s.io", "APIService") => {
            let remote = object.at("/spec/service").is_some_and(Value::is_object);
            match Verdict::local().condition(None, now) {
                Some(condition) if !remote => json!({"conditions": [condition]}),
                _ => json!({}),
            }
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            let stored: Vec<&Value> = object
                .at("/spec/versions")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter(|v| v.get("storage") == Some(&Value::Bool(true)))
                .filter_map(|v| v.get("name"))
                .collect();
            json!({
                "conditions": null,
                "acceptedNames": {"plural": "", "kind": ""},
                "storedVersions": stored,
            })
        }
        ("networking.k8s.io", "NetworkPolicy") => {
            if let Some(o) = object.as_object_mut() {
                o.remove("status");
            }
            return;
        }
        _ if resource.custom.is_some() => {
            if let Some(o) = object.as_object_mut() {
                o.remove("status");
            }
            return;
        }
        _ => json!({}),
    };
    if let Some(o) = object.as_object_mut() {
        o.insert("status".to_owned(), status);
    }
}

/// What grows `metadata.generation` when it changes: everything but metadata and status; for
/// some kinds (ConfigMap-like ones with generation) that is more than the spec.
pub fn desired_state_changed(old: &Value, new: &Value) -> bool {
    let relevant = |v: &'static [&'static str], k: &str| !v.contains(&k);
    const NOT: &[&str] = &["metadata", "status", "kind", "apiVersion"];
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return true;
    };
    let count = |o: &serde_json::Map<String, Value>| o.keys().filter(|k| relevant(NOT, k)).count();
    count(old) != count(new)
        || old
            .iter()
            .filter(|(k, _)| relevant(NOT, k))
            .any(|(k, v)| new.get(k) != Some(v))
}

/// Finalizers that say how dependents are treated, in the order of Kubernetes' options.
pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// The metadata that is defaulted: a Namespace's own name as a label, and the generation of a
/// DaemonSet's template as an annotation.
pub fn default_metadata(resource: &Resource, object: &mut Value, old: Option<&Value>) {
    const TEMPLATE: &str = "deprecated.daemonset.template.generation";
    if resource.group == "apps" && resource.kind == "DaemonSet" {
        let note = |o: &Value| {
            object::meta(o)
                .and_then(|m| m.get("annotations"))
                .and_then(|a| a.get(TEMPLATE))
                .and_then(Value::as_str)
                .and_then(|n| n.parse::<i64>().ok())
        };
        let generation = match old {
            Some(old) => {
                let changed = old.at("/spec/template") != object.at("/spec/template");
                note(old).unwrap_or(1) + i64::from(changed)
            }
            None => 1,
        };
        if let Some(meta) = object::meta_mut(object) {
            let notes = meta.entry("annotations").or_insert_with(|| json!({}));
            if let Some(notes) = notes.as_object_mut() {
                notes.insert(TEMPLATE.to_owned(), generation.to_string().into());
            }
        }
        return;
    }
    if !resource.group.is_empty() || resource.kind != "Namespace" {
        return;
    }
    let name = object::name(object).to_owned();
    if name.is_empty() {
        return;
    }
    if let Some(meta) = object::meta_mut(object) {
        let labels = meta.entry("labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
        }
    }
}

/// Fills in what Kubernetes' `PrepareForCreate` does beyond status.
pub fn prepare_for_create(resource: &Resource, object: &mut Value) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => {
            let spec = object
                .as_object_mut()
                .map(|o| o.entry("spec").or_insert_with(|| json!({})));
            if let Some(Value::Object(spec)) = spec {
                let mut all = object::strings(spec.get("finalizers"));
                if !all.iter().any(|f| f == "kubernetes") {
                    all.push("kubernetes".to_owned());
                }
                spec.insert("finalizers".to_owned(), all.into());
            }
        }
        ("", "Pod") => pods::merge_label_keys(object),
        ("batch", "Job") => job_selector(object),
        _ => {}
    }
}

/// A Job without a manual selector finds its pods by its own uid.
fn job_selector(job: &mut Value) {
    if job.at("/spec/manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let (uid, name) = (
        object::meta_text(job, "uid").to_owned(),
        object::name(job).to_owned(),
    );
    let labels = [
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ];
    let template = job.pointer_mut("/spec/template");
    if let Some(meta) = template.and_then(object::meta_mut) {
        let own = meta.entry("labels").or_insert_with(|| json!({}));
        if let Some(own) = own.as_object_mut() {
            for (key, value) in labels {
                own.insert(key.to_owned(), value.clone().into());
            }
        }
    }
    let of_template = job.at("/spec/template/metadata/labels").cloned();
    if let (Some(meta), Some(labels)) = (object::meta_mut(job), of_template) {
        // Without labels of its own a Job shares those of its template.
        meta.entry("labels").or_insert(labels);
    }
    if let Some(spec) = job.get_mut("spec").and_then(Value::as_object_mut) {
        let selector = spec.entry("selector").or_insert_with(|| json!({}));
        if !selector["matchLabels"].is_object() {
            selector["matchLabels"] = json!({});
        }
        selector["matchLabels"]["batch.kubernetes.io/controller-uid"] = uid.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_metadata_do_not_count_for_the_generation() {
        let a = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"x": 1}, "status": {"y": 1}});
        let b = json!({"metadata": {}, "spec": {"x": 1}, "status": {"y": 2}});
        let c = json!({"metadata": {}, "spec": {"x": 2}});
        assert!(!desired_state_changed(&a, &b));
        assert!(desired_state_changed(&b, &c));
    }
}
