//! Jobs, as `test/integration/job/job_test.go` of Kubernetes expects them. Its cases are taken up under their
//! names or near to them; pods are what the test says they are, there is no kubelet.
//!
//! Where Kubernetes' test catches a state that lasts for as long as its controller waits between two
//! looks, the pods here bear a finalizer of the test's own, which holds that state.

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

/// TestJobPodFailurePolicy, TestJobPodFailurePolicyWithFailedPodDeletedDuringControllerRestart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_fail_as_the_policy_says() {
    let mut walk = Jobs::new().await;
    let policy = json!({"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "Count", "onExitCodes": {"operator": "In", "values": [10]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [5, 6, 7]}}]});
    let negative = json!({"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [-1_073_741_510, 137]}}]});
    for (name, rules, restart, status, active, counted, end) in [
        ("fail-job", &policy, false, exited(5), 0, 1, "Failed"),
        (
            "fail-job-over-a-restart",
            &policy,
            true,
            exited(5),
            0,
            1,
            "Failed",
        ),
        ("ignored", &policy, false, disrupted(), 1, 0, "Complete"),
        ("counted", &policy, false, exited(10), 1, 1, "Complete"),
        ("no-rule", &policy, false, exited(1), 1, 1, "Complete"),
        (
            "negative-code",
            &negative,
            false,
            exited(-1_073_741_510),
            0,
            1,
            "Failed",
        ),
    ] {
        walk.create(name, json!({"podFailurePolicy": rules}), false)
            .await;
        walk.until_counts(name, [1, 0, 0, 0, 0]).await;
        walk.set(name, 1, &status).await;
        if restart {
            walk.rig.restart().await;
        }
        walk.until_counts(name, [active, 0, 0, counted, 0]).await;
        if end == "Complete" {
            walk.set(name, 1, &succeeded()).await;
            walk.until_condition(name, "Complete", "CompletionsReached")
                .await;
        } else {
            walk.until_condition(name, "FailureTarget", "PodFailurePolicy")
                .await;
            walk.until_condition(name, "Failed", "PodFailurePolicy")
                .await;
        }
        walk.until_released(name).await;
    }
    // What the failed pod has brought is kept without it.
    let name = "deleted-over-a-restart";
    let spec = json!({"podFailurePolicy": policy, "parallelism": 3, "completions": 3});
    walk.create(name, spec, false).await;
    walk.until_counts(name, [3, 0, 0, 0, 0]).await;
    let pod = walk.alive(name).await.remove(0);
    walk.tell(&pod, &exited(5)).await;
    walk.until_condition(name, "FailureTarget", "PodFailurePolicy")
        .await;
    let gone = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    // It may have gone by itself.
    let _ = walk
        .pods
        .delete(pod.metadata.name.as_deref().unwrap(), &gone)
        .await;
    walk.rig.restart().await;
    walk.until_condition(name, "Failed", "PodFailurePolicy")
        .await;
    walk.until_released(name).await;
    walk.end().await;
}

fn indexed(completions: i32, more: Value) -> Value {
    let mut spec = json!({"completionMode": "Indexed", "completions": completions, "parallelism": completions});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

/// TestSuccessPolicy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_indexes_are_enough() {
    let walk = Jobs::new().await;
    let policy = |rule: Value| json!({"successPolicy": {"rules": [rule]}});
    // Index that succeeds first or fails, what is counted then, and how the Job ends.
    let one = |name, spec| (name, spec, vec![(0, succeeded(), [0, 0, 1, 0, 0])]);
    let two = |name, spec| (name, spec, vec![(1, succeeded(), [0, 0, 1, 0, 1])]);
    for ((name, spec, steps), end, reason) in [
        (
            one("all", indexed(1, policy(json!({"succeededIndexes": "0"})))),
            "Complete",
            "SuccessPolicy",
        ),
        (
            one("no-policy", indexed(1, json!({}))),
            "Complete",
            "CompletionsReached",
        ),
        (
            two(
                "indexes",
                indexed(2, policy(json!({"succeededIndexes": "1"}))),
            ),
            "Complete",
            "SuccessPolicy",
        ),
        (
            two("count", indexed(2, policy(json!({"succeededCount": 1})))),
            "Complete",
            "SuccessPolicy",
        ),
        (
            (
                "failed-first",
                {
                    let mut spec = indexed(2, policy(json!({"succeededCount": 1})));
                    spec["backoffLimitPerIndex"] = 0.into();
                    spec
                },
                vec![
                    (0, failed(), [1, 0, 0, 1, 0]),
                    (1, succeeded(), [0, 0, 1, 1, 0]),
                ],
            ),
            "Failed",
            "FailedIndexes",
        ),
    ] {
        let count = spec["completions"].as_i64().unwrap();
        walk.create(name, spec, true).await;
        walk.until_counts(name, [count, 0, 0, 0, 0]).await;
        for (index, status, counts) in steps {
            walk.set_index(name, index, &status).await;
            walk.until_counts(name, counts).await;
        }
        let interim = if end == "Complete" {
            "SuccessCriteriaMet"
        } else {
            "FailureTarget"
        };
        walk.until_condition(name, interim, reason).await;
        walk.let_go(name).await;
        walk.until_condition(name, end, reason).await;
        walk.until_released(name).await;
    }
    walk.end().await;
}

/// What happens to an index, and what there is then: counts, active indexes, failed indexes, and the
/// failures that the replacement knows of.
type Fate<'a> = (i64, Value, Counts, &'a [i64], &'a str, Option<&'a str>);

/// TestBackoffLimitPerIndex, TestBackoffLimitPerIndex_DelayedPodDeletion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_index_has_its_limit() {
    let walk = Jobs::new().await;
    let rules = json!({"rules": [
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [13]}},
        {"action": "FailIndex", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]});
    let cases: [(&str, Value, Vec<Fate<'_>>, &str, &str); 6] = [
        (
            "succeeds",
            indexed(2, json!({"backoffLimitPerIndex": 1})),
            vec![(0, failed(), [2, 0, 0, 1, 0], &[0, 1], "", Some("1"))],
            "Complete",
            "CompletionsReached",
        ),
        (
            "limit-of-an-index",
            indexed(2, json!({"backoffLimitPerIndex": 2})),
            vec![
                (0, failed(), [2, 0, 0, 1, 0], &[0, 1], "", Some("1")),
                (0, failed(), [2, 0, 0, 2, 0], &[0, 1], "", Some("2")),
                (0, failed(), [1, 0, 0, 3, 0], &[1], "0", None),
            ],
            "Failed",
            "FailedIndexes",
        ),
        (
            "limit-of-all",
            indexed(3, json!({"backoffLimitPerIndex": 1, "backoffLimit": 2})),
            vec![
                (0, failed(), [3, 0, 0, 1, 0], &[0, 1, 2], "", None),
                (1, failed(), [3, 0, 0, 2, 0], &[0, 1, 2], "", None),
                (2, failed(), [0, 0, 0, 5, 2], &[], "", None),
            ],
            "Failed",
            "BackoffLimitExceeded",
        ),
        (
            "goes-on",
            indexed(2, json!({"backoffLimitPerIndex": 0})),
            vec![
                (0, failed(), [1, 0, 0, 1, 0], &[1], "0", None),
                (1, succeeded(), [0, 0, 1, 1, 0], &[], "0", None),
            ],
            "Failed",
            "FailedIndexes",
        ),
        (
            "too-many-indexes",
            indexed(3, json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 1})),
            vec![
                (0, failed(), [2, 0, 0, 1, 0], &[1, 2], "0", None),
                (1, failed(), [0, 0, 0, 3, 1], &[], "0,1", None),
            ],
            "Failed",
            "MaxFailedIndexesExceeded",
        ),
        (
            "fail-index",
            indexed(
                2,
                json!({"backoffLimitPerIndex": 1, "podFailurePolicy": rules}),
            ),
            vec![
                (0, exited(13), [1, 0, 0, 1, 0], &[1], "0", None),
                (1, disrupted(), [0, 0, 0, 2, 0], &[], "0,1", None),
            ],
            "Failed",
            "FailedIndexes",
        ),
    ];
    for (name, spec, steps, end, reason) in cases {
        let count = spec["completions"].as_i64().unwrap();
        walk.create(name, spec, true).await;
        walk.until_counts(name, [count, 0, 0, 0, 0]).await;
        let mut left = 0;
        for (index, status, counts, active, failed, replaced) in steps {
            walk.set_index(name, index, &status).await;
            walk.until_counts(name, counts).await;
            let completed = if counts[2] > 0 { "1" } else { "" };
            walk.until_indexes(name, active, completed, Some(failed))
                .await;
            if let Some(failures) = replaced {
                let pod = walk.active_of(name, index).await;
                let annotations = pod.metadata.annotations.unwrap();
                let told = &annotations["batch.kubernetes.io/job-index-failure-count"];
                assert_eq!(told, failures, "{name}");
            }
            left = usize::try_from(counts[0]).unwrap();
        }
        walk.set(name, left, &succeeded()).await;
        walk.let_go(name).await;
        walk.until_condition(name, end, reason).await;
        walk.until_released(name).await;
    }
    // A failed pod that is deleted stays until its replacement knows how often its index has failed.
    let name = "delayed";
    walk.create(name, indexed(1, json!({"backoffLimitPerIndex": 1})), false)
        .await;
    walk.until_counts(name, [1, 0, 0, 0, 0]).await;
    let first = walk.active_of(name, 0).await;
    walk.tell(&first, &failed()).await;
    let first = first.metadata.name.unwrap();
    let _ = walk.pods.delete(&first, &DeleteParams::default()).await;
    walk.until_counts(name, [1, 0, 0, 1, 0]).await;
    let second = walk.active_of(name, 0).await;
    let annotations = second.metadata.annotations.as_ref().unwrap();
    assert_eq!(
        annotations["batch.kubernetes.io/job-index-failure-count"],
        "1"
    );
    walk.tell(&second, &succeeded()).await;
    walk.until_counts(name, [0, 0, 1, 1, 0]).await;
    walk.until_condition(name, "Complete", "").await;
    walk.end().await;
}

/// TestDelayTerminalPhaseCondition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_has_ended_when_its_pods_have() {
    let walk = Jobs::new().await;
    let name = "limit";
    walk.create(
        name,
        json!({"parallelism": 2, "completions": 2, "backoffLimit": 0}),
        true,
    )
    .await;
    walk.until_counts(name, [2, 0, 0, 0, 0]).await;
    walk.set(name, 1, &failed()).await;
    walk.until_counts(name, [0, 0, 0, 2, 1]).await;
    let conditions = |job: DynamicObject| {
        let all = job.data["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let pairs = all.iter().map(|c| (c["type"].clone(), c["reason"].clone()));
        pairs.collect::<Vec<_>>()
    };
    let why = json!("BackoffLimitExceeded");
    assert_eq!(
        conditions(walk.job(name).await),
        [(json!("FailureTarget"), why.clone())]
    );
    walk.set(name, 1, &succeeded()).await;
    walk.until_condition(name, "Failed", "BackoffLimitExceeded")
        .await;
    walk.until_counts(name, [0, 0, 0, 2, 0]).await;

    let name = "scaled-down";
    walk.create(name, indexed(2, json!({})), true).await;
    walk.until_counts(name, [2, 0, 0, 0, 0]).await;
    walk.set_index(name, 0, &succeeded()).await;
    merge(
        &walk.jobs,
        name,
        json!({"spec": {"completions": 1, "parallelism": 1}}),
    )
    .await;
    walk.until_counts(name, [0, 0, 1, 0, 1]).await;
    walk.until_condition(name, "SuccessCriteriaMet", "CompletionsReached")
        .await;
    assert_eq!(conditions(walk.job(name).await).len(), 1);
    walk.set(name, 1, &succeeded()).await;
    walk.until_condition(name, "Complete", "CompletionsReached")
        .await;
    walk.until_counts(name, [0, 0, 1, 0, 0]).await;
    assert_eq!(walk.job(name).await.data["status"]["completedIndexes"], "0");
    walk.end().await;
}

/// TestManagedBy, TestManagedBy_RecreatedJob, TestManagedBy_UsingReservedJobFinalizers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_somebody_else_manages_are_theirs() {
    let walk = Jobs::new().await;
    let other = "example.com/custom-job-controller";
    walk.create(
        "other",
        json!({"managedBy": other, "suspend": false}),
        false,
    )
    .await;
    walk.create(
        "other-suspended",
        json!({"managedBy": other, "suspend": true}),
        false,
    )
    .await;
    walk.create("recreated", json!({}), false).await;
    walk.until_counts("recreated", [1, 0, 0, 0, 0]).await;
    walk.set("recreated", 1, &succeeded()).await;
    let background = DeleteParams::background();
    walk.jobs.delete("recreated", &background).await.unwrap();
    walk.create("recreated", json!({"managedBy": other}), false)
        .await;
    // A pod of it with the finalizer that is ours.
    let owner = walk.job("other").await;
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "foreign", "finalizers": [TRACKING],
        "labels": {"batch.kubernetes.io/job-name": "other"}, "ownerReferences": [{"apiVersion": "batch/v1",
            "kind": "Job", "name": "other", "uid": owner.metadata.uid, "controller": true}]},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let foreign = create(&walk.pods, pod.take()).await;
    walk.tell(&foreign, &succeeded()).await;
    let met = json!({"status": {"startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "SuccessCriteriaMet",
        "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let params = PatchParams::default();
    walk.jobs
        .patch_status("other", &params, &Patch::Merge(met))
        .await
        .unwrap();
    // Those that are ours have gone by what lies between.
    for (name, spec) in [
        ("plain", json!({})),
        (
            "named",
            json!({"managedBy": "kubernetes.io/job-controller"}),
        ),
    ] {
        walk.create(name, spec, false).await;
        walk.until_counts(name, [1, 0, 0, 0, 0]).await;
        walk.set(name, 1, &succeeded()).await;
        walk.until_condition(name, "Complete", "").await;
    }
    for name in ["other-suspended", "recreated"] {
        assert!(
            walk.job(name).await.data["status"]
                .as_object()
                .is_none_or(|s| s.is_empty()),
            "{name}"
        );
        walk.rig
            .until(name, async || walk.pods_of(name).await.len(), |n| *n == 0)
            .await;
    }
    let foreign = walk.pods.get("foreign").await.unwrap();
    assert_eq!(foreign.metadata.finalizers, Some(vec![TRACKING.to_owned()]));
    walk.end().await;
}

/// TestNonParallelJob, TestParallelJob, TestParallelJobChangingParallelism, TestParallelJobWithCompletions,
/// TestIndexedJob.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_made_until_enough_have_succeeded() {
    let mut walk = Jobs::new().await;
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let name = "one";
    walk.create(name, json!({}), false).await;
    walk.until_counts(name, [1, 0, 0, 0, 0]).await;
    walk.rig.restart().await;
    walk.set(name, 1, &failed()).await;
    walk.until_counts(name, [1, 0, 0, 1, 0]).await;
    walk.rig.restart().await;
    walk.set(name, 1, &succeeded()).await;
    walk.until_condition(name, "Complete", "CompletionsReached")
        .await;
    walk.until_counts(name, [0, 0, 1, 1, 0]).await;

    let name = "parallel";
    walk.create(name, json!({"parallelism": 5}), false).await;
    walk.until_counts(name, [5, 0, 0, 0, 0]).await;
    walk.set(name, 2, &ready).await;
    walk.until_counts(name, [5, 2, 0, 0, 0]).await;
    let not_ready =
        json!({"phase": "Failed", "conditions": [{"type": "Ready", "status": "False"}]});
    let is_ready = |pod: &DynamicObject| pod.data["status"]["phase"] == "Running";
    for pod in walk.alive(name).await.iter().filter(|pod| is_ready(pod)) {
        walk.tell(pod, &not_ready).await;
    }
    walk.until_counts(name, [5, 0, 0, 2, 0]).await;
    walk.set(name, 1, &succeeded()).await;
    walk.until_counts(name, [4, 0, 1, 2, 0]).await;
    walk.set(name, 2, &failed()).await;
    walk.until_counts(name, [2, 0, 1, 4, 0]).await;
    walk.set(name, 2, &succeeded()).await;
    walk.until_condition(name, "Complete", "CompletionsReached")
        .await;
    walk.until_counts(name, [0, 0, 3, 4, 0]).await;

    let name = "changing";
    walk.create(name, json!({"parallelism": 5, "backoffLimit": 2}), false)
        .await;
    walk.until_counts(name, [5, 0, 0, 0, 0]).await;
    merge(&walk.jobs, name, json!({"spec": {"parallelism": 2}})).await;
    walk.until_counts(name, [2, 0, 0, 0, 0]).await;
    merge(&walk.jobs, name, json!({"spec": {"parallelism": 4}})).await;
    walk.until_counts(name, [4, 0, 0, 0, 0]).await;
    walk.set(name, 4, &succeeded()).await;
    walk.until_condition(name, "Complete", "").await;
    walk.until_counts(name, [0, 0, 4, 0, 0]).await;

    let name = "completions";
    walk.create(name, json!({"parallelism": 54, "completions": 56}), false)
        .await;
    walk.until_counts(name, [54, 0, 0, 0, 0]).await;
    walk.set(name, 52, &ready).await;
    walk.until_counts(name, [54, 52, 0, 0, 0]).await;
    for pod in walk
        .alive(name)
        .await
        .iter()
        .filter(|pod| is_ready(pod))
        .take(2)
    {
        walk.tell(pod, &not_ready).await;
    }
    walk.until_counts(name, [54, 50, 0, 2, 0]).await;
    walk.set(name, 53, &succeeded()).await;
    walk.until_counts(name, [3, 0, 53, 2, 0]).await;
    walk.set(name, 3, &succeeded()).await;
    walk.until_condition(name, "Complete", "").await;
    walk.until_counts(name, [0, 0, 56, 2, 0]).await;

    let name = "indexed";
    walk.create(name, indexed(4, json!({"parallelism": 3})), false)
        .await;
    walk.until_indexes(name, &[0, 1, 2], "", None).await;
    walk.set_index(name, 1, &succeeded()).await;
    walk.until_counts(name, [3, 0, 1, 0, 0]).await;
    walk.until_indexes(name, &[0, 2, 3], "1", None).await;
    walk.set_index(name, 2, &failed()).await;
    walk.until_counts(name, [3, 0, 1, 1, 0]).await;
    walk.until_indexes(name, &[0, 2, 3], "1", None).await;
    walk.set(name, 3, &succeeded()).await;
    walk.until_counts(name, [0, 0, 4, 1, 0]).await;
    walk.until_indexes(name, &[], "0-3", None).await;
    walk.until_condition(name, "Complete", "").await;
    for name in ["one", "parallel", "changing", "completions", "indexed"] {
        walk.until_released(name).await;
    }
    walk.end().await;
}

/// TestJobPodReplacementPolicy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_go_are_replaced_at_once_or_when_they_have_failed() {
    let walk = Jobs::new().await;
    let rules =
        json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [5]}}]});
    for (name, mode, policy, rules, deleted, after) in [
        (
            "indexed",
            "Indexed",
            "TerminatingOrFailed",
            None,
            [2, 0, 0, 2, 2],
            [2, 0, 0, 2, 0],
        ),
        (
            "plain",
            "NonIndexed",
            "TerminatingOrFailed",
            None,
            [2, 0, 0, 2, 2],
            [2, 0, 0, 2, 0],
        ),
        (
            "indexed-failed",
            "Indexed",
            "Failed",
            None,
            [0, 0, 0, 0, 2],
            [2, 0, 0, 2, 0],
        ),
        (
            "plain-failed",
            "NonIndexed",
            "Failed",
            None,
            [0, 0, 0, 0, 2],
            [2, 0, 0, 2, 0],
        ),
        (
            "rules",
            "NonIndexed",
            "Failed",
            Some(&rules),
            [0, 0, 0, 0, 2],
            [2, 0, 0, 2, 0],
        ),
    ] {
        let spec = json!({"parallelism": 2, "completions": 2, "completionMode": mode,
            "podReplacementPolicy": policy, "podFailurePolicy": rules});
        walk.create(name, spec, true).await;
        walk.until_counts(name, [2, 0, 0, 0, 0]).await;
        let first = walk.alive(name).await;
        for pod in &first {
            let name = pod.metadata.name.as_deref().unwrap();
            walk.pods
                .delete(name, &DeleteParams::default())
                .await
                .unwrap();
        }
        walk.until_counts(name, deleted).await;
        for pod in &first {
            walk.tell(pod, &failed()).await;
        }
        walk.until_counts(name, after).await;
    }
    walk.end().await;
}

/// TestElasticIndexedJob.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_change_with_parallelism() {
    let walk = Jobs::new().await;
    let scale = async |name: &str, n: i32| {
        let to = json!({"spec": {"completions": n, "parallelism": n}});
        merge(&walk.jobs, name, to).await;
    };
    for name in ["up", "down", "down-and-up", "to-nothing"] {
        walk.create(name, indexed(3, json!({})), false).await;
        walk.until_counts(name, [3, 0, 0, 0, 0]).await;
    }
    scale("up", 4).await;
    for index in 0..4 {
        walk.set_index("up", index, &succeeded()).await;
    }
    walk.until_counts("up", [0, 0, 4, 0, 0]).await;
    walk.until_indexes("up", &[], "0-3", None).await;

    walk.set_index("down", 1, &succeeded()).await;
    walk.set_index("down", 2, &failed()).await;
    walk.until_counts("down", [2, 0, 1, 1, 0]).await;
    walk.until_indexes("down", &[0, 2], "1", None).await;
    scale("down", 1).await;
    walk.set_index("down", 0, &succeeded()).await;
    walk.until_counts("down", [0, 0, 1, 1, 0]).await;
    walk.until_indexes("down", &[], "0", None).await;

    let name = "down-and-up";
    walk.set_index(name, 2, &succeeded()).await;
    walk.until_counts(name, [2, 0, 1, 0, 0]).await;
    scale(name, 2).await;
    walk.until_counts(name, [2, 0, 0, 0, 0]).await;
    walk.until_indexes(name, &[0, 1], "", None).await;
    scale(name, 3).await;
    for index in 0..3 {
        walk.set_index(name, index, &succeeded()).await;
    }
    walk.until_counts(name, [0, 0, 3, 0, 0]).await;
    walk.until_indexes(name, &[], "0-2", None).await;

    scale("to-nothing", 0).await;
    for name in ["up", "down", "down-and-up", "to-nothing"] {
        walk.until_condition(name, "Complete", "CompletionsReached")
            .await;
    }
    walk.end().await;
}

/// TestOrphanPodsFinalizersClearedWithGC, TestOrphanPodsFinalizersClearedOnRestart,
/// TestFinalizersClearedWhenBackoffLimitExceeded, TestJobFailedWithInterrupts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pod_keeps_the_finalizer_of_a_job_that_is_over() {
    let mut walk = Jobs::new().await;
    for (name, params) in [
        ("orphan", DeleteParams::orphan()),
        ("background", DeleteParams::background()),
        ("foreground", DeleteParams::foreground()),
    ] {
        walk.create(name, json!({"parallelism": 2}), false).await;
        walk.until_counts(name, [2, 0, 0, 0, 0]).await;
        walk.jobs.delete(name, &params).await.unwrap();
        walk.until_released(name).await;
    }
    let name = "while-stopped";
    walk.create(name, json!({}), false).await;
    walk.until_counts(name, [1, 0, 0, 0, 0]).await;
    walk.rig.stop().await;
    walk.jobs
        .delete(name, &DeleteParams::background())
        .await
        .unwrap();
    walk.rig.restart().await;
    walk.until_released(name).await;

    let name = "limit";
    walk.create(name, indexed(100, json!({"backoffLimit": 0})), false)
        .await;
    walk.rig
        .until(name, async || walk.alive(name).await.len(), |n| *n > 0)
        .await;
    walk.set(name, 1, &failed()).await;
    walk.until_condition(name, "Failed", "BackoffLimitExceeded")
        .await;
    walk.until_released(name).await;

    let name = "interrupted";
    let template = json!({"spec": {"restartPolicy": "Never", "nodeName": "foo",
        "containers": [{"name": "c", "image": "i"}]}});
    walk.create(
        name,
        json!({"parallelism": 10, "completions": 10, "backoffLimit": 0, "template": template}),
        false,
    )
    .await;
    walk.until_counts(name, [10, 0, 0, 0, 0]).await;
    let pods = walk.alive(name).await;
    walk.tell(&pods[0], &failed()).await;
    for pod in &pods[1..] {
        walk.tell(pod, &succeeded()).await;
    }
    walk.rig.restart().await;
    walk.until_condition(name, "Failed", "BackoffLimitExceeded")
        .await;
    walk.end().await;
}

/// TestSuspendJob, TestSuspendJobControllerRestart, TestNodeSelectorUpdate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_rest_and_go_on() {
    let walk = Jobs::new().await;
    let events = walk.rig.api("", "v1", "Event", "events", "default");
    for (name, first, active) in [("to-rest", false, [2, 0]), ("to-work", true, [0, 2])] {
        let spec = json!({"parallelism": 2, "completions": 4, "suspend": first});
        walk.create(name, spec, false).await;
        walk.until_counts(name, [active[0], 0, 0, 0, 0]).await;
        if first {
            walk.until_condition(name, "Suspended", "JobSuspended")
                .await;
        }
        merge(&walk.jobs, name, json!({"spec": {"suspend": !first}})).await;
        walk.until_counts(name, [active[1], 0, 0, 0, 0]).await;
        let (status, reason) = if first {
            ("False", "Resumed")
        } else {
            ("True", "Suspended")
        };
        let look = async || walk.job(name).await.data["status"]["conditions"][0].clone();
        let wanted = |c: &Value| c["type"] == "Suspended" && c["status"] == status;
        walk.rig.until(name, look, wanted).await;
        let uid = walk.job(name).await.metadata.uid.unwrap();
        let told = async || {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.iter().any(|event| {
                event.data["reason"] == reason && event.data["involvedObject"]["uid"] == uid
            })
        };
        walk.rig.until("event", told, |told| *told).await;
    }
    let name = "selector";
    walk.create(name, json!({"suspend": true}), false).await;
    walk.until_condition(name, "Suspended", "JobSuspended")
        .await;
    let selects = |value: &str| json!({"template": {"spec": {"nodeSelector": {"foo": value}}}});
    let mut both = selects("bar");
    both["suspend"] = false.into();
    merge(&walk.jobs, name, json!({"spec": both})).await;
    walk.until_counts(name, [1, 0, 0, 0, 0]).await;
    let pod = walk.alive(name).await.remove(0);
    assert_eq!(pod.data["spec"]["nodeSelector"], json!({"foo": "bar"}));
    let again = Patch::Merge(json!({"spec": selects("baz")}));
    let refused = walk.jobs.patch(name, &PatchParams::default(), &again).await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("spec.template: Invalid value"), "{why}");
    walk.end().await;
}
