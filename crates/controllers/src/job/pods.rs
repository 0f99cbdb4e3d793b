//! The pods of a Job, as they are created.

use serde_json::{Value, json};

use super::plan::NewPod;
use crate::model::JOBS;
use crate::model::batch::Job;
use crate::model::pod::{COMPLETION_INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES, TRACKING};
use crate::ownership;

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Room for a name before the random suffix.
const LONGEST_PREFIX: usize = 58;

/// What all pods of a Job have in common.
pub fn base(job: &Job) -> Value {
    let mut pod = ownership::pod_from_template(&job.spec.template, &JOBS, &job.metadata);
    let metadata = &mut pod["metadata"];
    let mut finalizers = metadata["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if !finalizers.iter().any(|f| f == TRACKING) {
        finalizers.push(TRACKING.into());
    }
    metadata["finalizers"] = finalizers.into();
    let mut prefix = format!("{}-", job.metadata.name);
    // A name that leaves no room for a suffix loses its dash, as in `podtemplate` of 1.36.
    if prefix.len() > 248 {
        prefix.truncate(248);
    }
    metadata["generateName"] = prefix.into();
    if job.indexed() {
        for list in ["initContainers", "containers"] {
            let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
            containers.into_iter().flatten().for_each(tell_index);
        }
    }
    pod
}

/// Gives a container its index in the environment, unless it sets that variable itself.
fn tell_index(container: &mut Value) {
    let path = format!("metadata.labels['{COMPLETION_INDEX}']");
    let variable = json!({"name": INDEX_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    match container.get_mut("env").and_then(Value::as_array_mut) {
        Some(env) => {
            if env.iter().all(|v| v["name"] != INDEX_VARIABLE) {
                env.push(variable);
            }
        }
        None => container["env"] = json!([variable]),
    }
}

/// One pod, from what [`base`] made.
pub fn one(job: &Job, base: &Value, new: &NewPod) -> Value {
    let mut pod = base.clone();
    let Some(index) = new.index else {
        return pod;
    };
    for field in ["labels", "annotations"] {
        if !pod["metadata"][field].is_object() {
            pod["metadata"][field] = json!({});
        }
        pod["metadata"][field][COMPLETION_INDEX] = index.to_string().into();
    }
    if let Some((counted, ignored)) = new.failures {
        pod["metadata"]["annotations"][INDEX_FAILURES] = counted.to_string().into();
        if ignored > 0 {
            pod["metadata"]["annotations"][INDEX_IGNORED_FAILURES] = ignored.to_string().into();
        }
    }
    let name = &*job.metadata.name;
    pod["spec"]["hostname"] = format!("{name}-{index}").into();
    let tail = format!("-{index}-");
    let room = LONGEST_PREFIX.saturating_sub(tail.len());
    // Names are ASCII.
    pod["metadata"]["generateName"] = format!("{}{tail}", name.get(..room).unwrap_or(name)).into();
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, mode: &str) -> Job {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": "u"},
            "spec": {"completionMode": mode, "template": {
                "metadata": {"labels": {"a": "1"}, "finalizers": ["x/y"]},
                "spec": {"initContainers": [{"name": "i"}], "containers": [
                    {"name": "c", "env": [{"name": "OTHER", "value": "1"}]},
                    {"name": "own", "env": [{"name": INDEX_VARIABLE, "value": "7"}]}]}}}}))
        .unwrap()
    }

    #[test]
    fn a_pod_knows_its_index() {
        let job = job("train", "Indexed");
        let new = NewPod {
            index: Some(12),
            failures: Some((2, 0)),
        };
        let pod = one(&job, &base(&job), &new);
        let metadata = &pod["metadata"];
        assert_eq!(metadata["generateName"], "train-12-");
        assert_eq!(metadata["finalizers"], json!(["x/y", TRACKING]));
        assert_eq!(
            metadata["labels"],
            json!({"a": "1", COMPLETION_INDEX: "12"})
        );
        let annotations = json!({COMPLETION_INDEX: "12", INDEX_FAILURES: "2"});
        assert_eq!(metadata["annotations"], annotations);
        assert_eq!(pod["spec"]["hostname"], "train-12");
        let field = json!({"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}});
        let containers = &pod["spec"]["containers"];
        assert_eq!(
            pod["spec"]["initContainers"][0]["env"][0]["valueFrom"],
            field
        );
        assert_eq!(
            containers[0]["env"][1],
            json!({"name": INDEX_VARIABLE, "valueFrom": field})
        );
        assert_eq!(
            containers[1]["env"],
            json!([{"name": INDEX_VARIABLE, "value": "7"}])
        );
    }

    #[test]
    fn a_long_name_is_cut_before_the_index() {
        let job = job(&"x".repeat(63), "Indexed");
        let new = NewPod {
            index: Some(3),
            failures: None,
        };
        let pod = one(&job, &base(&job), &new);
        assert_eq!(
            pod["metadata"]["generateName"],
            format!("{}-3-", "x".repeat(55))
        );
    }

    #[test]
    fn without_indexes_pods_are_equal() {
        let job = job("train", "NonIndexed");
        let pod = one(&job, &base(&job), &NewPod::default());
        assert_eq!(pod["metadata"]["generateName"], "train-");
        assert_eq!(pod["spec"]["hostname"], Value::Null);
        assert_eq!(pod["spec"]["initContainers"][0]["env"], Value::Null);
    }
}
