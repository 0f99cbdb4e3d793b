//! What ends a Job or one of its indexes: policies and limits.

use super::*;

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
