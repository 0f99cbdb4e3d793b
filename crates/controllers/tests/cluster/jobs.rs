//! Jobs, as `test/integration/job/job_test.go` of Kubernetes expects them. Its cases are taken up under their
//! names or near to them; pods are what the test says they are, there is no kubelet.
//!
//! Where Kubernetes' test catches a state that lasts for as long as its controller waits between two
//! looks, the pods here bear a finalizer of the test's own, which holds that state.

mod lives;
mod policies;

use super::*;

const BLOCK: &str = "fake.example.com/blockDeletion";
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// What a status counts: active, ready, succeeded, failed, terminating.
type Counts = [i64; 5];

struct Jobs {
    rig: Rig,
    jobs: Api<DynamicObject>,
    pods: Api<DynamicObject>,
}

fn failed() -> Value {
    json!({"phase": "Failed"})
}

fn succeeded() -> Value {
    json!({"phase": "Succeeded"})
}

fn exited(code: i32) -> Value {
    json!({"phase": "Failed", "containerStatuses": [{"name": "main-container", "image": "foo", "imageID": "",
        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": "Error",
            "startedAt": null, "finishedAt": null}}}]})
}

fn disrupted() -> Value {
    json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}]})
}

impl Jobs {
    async fn new() -> Jobs {
        let rig = Rig::new().await;
        rig.kubelet.abort();
        let jobs = rig.api("batch", "v1", "Job", "jobs", "default");
        let pods = rig.pods();
        Jobs { rig, jobs, pods }
    }

    /// Creates a Job; `held`: its pods stay when they are deleted, until the test lets them go.
    async fn create(&self, name: &str, spec: Value, held: bool) {
        let mut spec = spec;
        let finalizers = if held { vec![BLOCK] } else { vec![] };
        let template = json!({"metadata": {"finalizers": finalizers}, "spec": {"restartPolicy": "Never",
            "terminationGracePeriodSeconds": 30, "containers": [{"name": "main-container", "image": "foo"}]}});
        if spec["template"].is_null() {
            spec["template"] = template;
        }
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec});
        create(&self.jobs, job).await;
    }

    async fn job(&self, name: &str) -> DynamicObject {
        self.jobs.get(name).await.unwrap()
    }

    async fn pods_of(&self, name: &str) -> Vec<DynamicObject> {
        let of = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
        self.pods.list(&of).await.unwrap().items
    }

    /// Pods that have not ended, those that are going among them.
    async fn alive(&self, name: &str) -> Vec<DynamicObject> {
        let mut pods = self.pods_of(name).await;
        pods.retain(|pod| {
            let phase = pod.data["status"]["phase"].as_str().unwrap_or_default();
            !matches!(phase, "Failed" | "Succeeded")
        });
        pods
    }

    async fn until_counts(&self, name: &str, wanted: Counts) {
        let look = async || {
            let status = self.job(name).await.data["status"].clone();
            let fields = ["active", "ready", "succeeded", "failed", "terminating"];
            fields.map(|field| status[field].as_i64().unwrap_or(0))
        };
        self.rig.until(name, look, |seen| *seen == wanted).await;
        // What is counted may be told of the time before: there are as many pods, too.
        let active = async || {
            let pods = self.alive(name).await;
            let stay = |pod: &&DynamicObject| pod.metadata.deletion_timestamp.is_none();
            i64::try_from(pods.iter().filter(stay).count()).unwrap()
        };
        self.rig.until(name, active, |n| *n == wanted[0]).await;
    }

    /// Waits for the indexes of pods that are active, and those that the status tells.
    async fn until_indexes(
        &self,
        name: &str,
        active: &[i64],
        completed: &str,
        failed: Option<&str>,
    ) {
        let look = async || {
            let status = self.job(name).await.data["status"].clone();
            let mut indexes: Vec<i64> = vec![];
            for pod in self.alive(name).await {
                if pod.metadata.deletion_timestamp.is_some() {
                    continue;
                }
                let key = "batch.kubernetes.io/job-completion-index";
                let index = &pod.metadata.annotations.as_ref().unwrap()[key];
                assert_eq!(index, &pod.metadata.labels.as_ref().unwrap()[key]);
                assert_eq!(pod.data["spec"]["hostname"], format!("{name}-{index}"));
                indexes.push(index.parse().unwrap());
            }
            indexes.sort_unstable();
            let text = |field: &str| status[field].as_str().map(str::to_owned);
            (indexes, text("completedIndexes"), text("failedIndexes"))
        };
        let completed = Some(completed.to_owned()).filter(|c| !c.is_empty());
        let wanted = (active.to_vec(), completed, failed.map(str::to_owned));
        self.rig.until(name, look, |seen| *seen == wanted).await;
    }

    async fn until_condition(&self, name: &str, kind: &str, reason: &str) {
        let look = async || {
            let conditions = self.job(name).await.data["status"]["conditions"].clone();
            let all = conditions.as_array().cloned().unwrap_or_default();
            all.into_iter().find(|c| c["type"] == kind)
        };
        let wanted = |condition: &Option<Value>| {
            condition.as_ref().is_some_and(|c| {
                c["status"] == "True" && (reason.is_empty() || c["reason"] == reason)
            })
        };
        self.rig
            .until(&format!("{name} {kind}"), look, wanted)
            .await;
    }

    /// No pod bears the finalizer of Jobs.
    async fn until_released(&self, name: &str) {
        let look = async || {
            let pods = self.pods_of(name).await;
            let held = |pod: &&DynamicObject| {
                let finalizers = pod.metadata.finalizers.iter().flatten();
                finalizers.clone().any(|f| f == TRACKING)
            };
            pods.iter().filter(held).count()
        };
        self.rig.until(name, look, |count| *count == 0).await;
    }

    async fn tell(&self, pod: &DynamicObject, status: &Value) {
        let patch = Patch::Merge(json!({"status": status}));
        let name = pod.metadata.name.as_deref().unwrap();
        let params = PatchParams::default();
        self.pods.patch_status(name, &params, &patch).await.unwrap();
    }

    /// Gives so many pods that have not ended a status.
    async fn set(&self, name: &str, count: usize, status: &Value) {
        let alive = self.alive(name).await;
        assert!(alive.len() >= count, "{name}: {} pods", alive.len());
        for pod in alive.iter().take(count) {
            self.tell(pod, status).await;
        }
    }

    async fn active_of(&self, name: &str, index: i64) -> DynamicObject {
        let look = async || {
            let alive = self.alive(name).await;
            alive.into_iter().find(|pod| {
                let annotations = pod.metadata.annotations.as_ref().unwrap();
                annotations["batch.kubernetes.io/job-completion-index"] == index.to_string()
            })
        };
        self.rig.until(name, look, Option::is_some).await.unwrap()
    }

    async fn set_index(&self, name: &str, index: i64, status: &Value) {
        let pod = self.active_of(name, index).await;
        self.tell(&pod, status).await;
    }

    /// Lets the pods go that the test holds.
    async fn let_go(&self, name: &str) {
        for pod in self.pods_of(name).await {
            let patch = json!([{"op": "test", "path": "/metadata/uid", "value": pod.metadata.uid},
                {"op": "replace", "path": "/metadata/finalizers", "value":
                    pod.metadata.finalizers.iter().flatten().filter(|f| *f != BLOCK).collect::<Vec<_>>()}]);
            let patch: Patch<Value> = Patch::Json(serde_json::from_value(patch).unwrap());
            let name = pod.metadata.name.as_deref().unwrap();
            let _ = self.pods.patch(name, &PatchParams::default(), &patch).await;
        }
    }

    async fn end(self) {
        self.rig.end().await;
    }
}

fn indexed(completions: i32, more: Value) -> Value {
    let mut spec = json!({"completionMode": "Indexed", "completions": completions, "parallelism": completions});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}
