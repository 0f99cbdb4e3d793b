//! Pods from their making to their end, and Jobs that rest, change, or belong to somebody else.

use super::*;

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
