//! Jobs whose pods do what their commands say: they end well, badly, never, or at their second try.

use serde_json::{Value, json};

use crate::conformance::harness::{
    Kube, condition, holds, merge_into, name, number, on_cluster, owner, uid,
};

const BATCH: &str = "batch/v1";

/// A Job of four pods, two at a time, that run a script with a volume at `/data`.
fn job(name: &str, script: &str, volume: Value, spec: Value) -> Value {
    let mut source = json!({"name": "data"});
    merge_into(&mut source, volume);
    let mut job = json!({"apiVersion": BATCH, "kind": "Job", "metadata": {"name": name, "labels": {"e2e": name}},
        "spec": {"parallelism": 2, "completions": 4, "template": {"metadata": {"labels": {"job": name}},
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "volumes": [source],
                "containers": [{"name": "c", "image": "busybox", "command": ["/bin/sh", "-c", script],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}}});
    merge_into(&mut job["spec"], spec);
    job
}

const FOR_EVER: &str = "sleep 1000000";

fn empty() -> Value {
    json!({"emptyDir": {}})
}

async fn running(kube: &Kube, job: &str, count: usize) -> Vec<Value> {
    let labels = format!("job={job}");
    let pods = async || {
        let mut pods = kube.list("v1", "pods", &labels).await;
        pods.retain(|it| it["status"]["phase"] == "Running");
        pods
    };
    kube.until("running pods", pods, |pods| pods.len() == count)
        .await
}

async fn complete(kube: &Kube, job: &str, count: i64) -> Value {
    let done = kube
        .until_object(BATCH, "jobs", job, "over", |it| {
            holds(it, "Complete") || holds(it, "Failed")
        })
        .await;
    assert_eq!(
        condition(&done, "Complete")["reason"],
        "CompletionsReached",
        "{:#}",
        done["status"]
    );
    assert!(holds(&done, "SuccessCriteriaMet"));
    assert_eq!(number(&done, "succeeded"), count);
    done
}

async fn failed(kube: &Kube, job: &str, reason: &str) -> Value {
    let done = kube
        .until_object(BATCH, "jobs", job, "over", |it| {
            holds(it, "Complete") || holds(it, "Failed")
        })
        .await;
    assert_eq!(
        condition(&done, "Failed")["reason"],
        reason,
        "{:#}",
        done["status"]
    );
    done
}

#[test]
fn a_job_adopts_and_releases_and_goes_with_its_pods() {
    on_cluster(async |kube| {
        let created = kube
            .create(BATCH, "jobs", job("a", FOR_EVER, empty(), json!({})))
            .await;
        let pod = name(&running(&kube, "a", 2).await[0]);
        kube.merge(
            "v1",
            "pods",
            &pod,
            json!({"metadata": {"ownerReferences": null}}),
        )
        .await;
        kube.until_object("v1", "pods", &pod, "adopted again", |it| {
            owner(it) == Some(uid(&created))
        })
        .await;
        kube.merge("v1", "pods", &pod, json!({"metadata": {"labels": null}}))
            .await;
        kube.until_object("v1", "pods", &pod, "released", |it| owner(it).is_none())
            .await;

        let custom = json!({"type": "Custom", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
            "status": {"conditions": [custom]}});
        let seen = kube.merge(BATCH, "jobs", "a/status", patch).await;
        assert_eq!(
            condition(&seen, "Custom")["lastTransitionTime"],
            "2026-01-01T00:00:00Z"
        );
        assert_eq!(seen["metadata"]["annotations"]["patchedstatus"], "true");

        kube.delete_with(
            BATCH,
            "jobs",
            "a",
            json!({"propagationPolicy": "Background"}),
        )
        .await;
        let pods = async || kube.list("v1", "pods", "job=a").await.len();
        kube.until("pods gone", pods, |left| *left == 0).await;
    });
}

#[test]
fn suspended_jobs_wait_and_running_ones_can_be_suspended() {
    on_cluster(async |kube| {
        let spec = json!({"suspend": true});
        kube.create(BATCH, "jobs", job("s", "exit 0", empty(), spec))
            .await;
        kube.until_object(BATCH, "jobs", "s", "suspended", |it| holds(it, "Suspended"))
            .await;
        kube.update(BATCH, "jobs", "s", |it| {
            it["spec"]["suspend"] = false.into()
        })
        .await;
        complete(&kube, "s", 4).await;
        kube.delete_all(BATCH, "jobs", "e2e=s").await;
        kube.until_gone(BATCH, "jobs", "s").await;

        kube.create(BATCH, "jobs", job("r", FOR_EVER, empty(), json!({})))
            .await;
        running(&kube, "r", 2).await;
        kube.update(BATCH, "jobs", "r", |it| it["spec"]["suspend"] = true.into())
            .await;
        kube.until_object(BATCH, "jobs", "r", "suspended", |it| holds(it, "Suspended"))
            .await;
        let pods = async || kube.list("v1", "pods", "job=r").await.len();
        kube.until("pods gone", pods, |left| *left == 0).await;
    });
}

#[test]
fn tasks_that_fail_once_are_restarted_where_they_are() {
    on_cluster(async |kube| {
        let script = "if [[ -r /data/foo ]] ; then exit 0 ; else touch /data/foo ; exit 1 ; fi";
        let mut once = job("once", script, empty(), json!({}));
        once["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure".into();
        kube.create(BATCH, "jobs", once).await;
        complete(&kube, "once", 4).await;
        for pod in kube.list("v1", "pods", "job=once").await {
            assert_eq!(
                pod["status"]["containerStatuses"][0]["restartCount"], 1,
                "{pod:#}"
            );
        }
    });
}

#[test]
fn an_indexed_job_gives_each_pod_its_index() {
    on_cluster(async |kube| {
        let spec = json!({"completionMode": "Indexed"});
        kube.create(
            BATCH,
            "jobs",
            job(
                "i",
                "exit $(( JOB_COMPLETION_INDEX - $JOB_COMPLETION_INDEX ))",
                empty(),
                spec,
            ),
        )
        .await;
        let done = complete(&kube, "i", 4).await;
        assert_eq!(done["status"]["completedIndexes"], "0-3");
        for pod in kube.list("v1", "pods", "job=i").await {
            let index = &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
            let host = format!("i-{}", index.as_str().unwrap());
            assert_eq!(pod["spec"]["hostname"], host);
        }
    });
}

#[test]
fn failures_end_a_job_as_its_policies_say() {
    on_cluster(async |kube| {
        let one = |more: Value| {
            let mut spec = json!({"parallelism": 1, "completions": 1, "backoffLimit": 1});
            merge_into(&mut spec, more);
            spec
        };
        let early = json!({"podFailurePolicy": {"rules": [{"action": "FailJob",
            "onExitCodes": {"operator": "In", "values": [1]}}]}});
        kube.create(BATCH, "jobs", job("early", "exit 1", empty(), one(early)))
            .await;
        kube.create(
            BATCH,
            "jobs",
            job("late", "exit 1", empty(), one(json!({}))),
        )
        .await;
        let slow = json!({"activeDeadlineSeconds": 1});
        kube.create(BATCH, "jobs", job("slow", FOR_EVER, empty(), slow))
            .await;
        let each =
            json!({"completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0});
        kube.create(
            BATCH,
            "jobs",
            job("each", "test $JOB_COMPLETION_INDEX -eq 1", empty(), each),
        )
        .await;
        let first = json!({"completions": 2, "completionMode": "Indexed",
            "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
        kube.create(
            BATCH,
            "jobs",
            job(
                "first",
                "test $JOB_COMPLETION_INDEX -eq 0 || sleep 1000000",
                empty(),
                first,
            ),
        )
        .await;

        failed(&kube, "early", "PodFailurePolicy").await;
        assert_eq!(kube.list("v1", "pods", "job=early").await.len(), 1);
        failed(&kube, "late", "BackoffLimitExceeded").await;
        assert_eq!(kube.list("v1", "pods", "job=late").await.len(), 2);
        failed(&kube, "slow", "DeadlineExceeded").await;
        let done = failed(&kube, "each", "FailedIndexes").await;
        assert_eq!(done["status"]["failedIndexes"], "0");
        let done = kube
            .until_object(BATCH, "jobs", "first", "complete", |it| {
                holds(it, "Complete")
            })
            .await;
        assert_eq!(condition(&done, "Complete")["reason"], "SuccessPolicy");
    });
}

#[test]
fn evictions_do_not_count_where_the_policy_ignores_them() {
    on_cluster(async |kube| {
        let file = "/data/foo-$JOB_COMPLETION_INDEX";
        let script =
            format!("if [[ -r {file} ]] ; then exit 0 ; else touch {file} ; sleep 1000000 ; fi");
        let volume = json!({"hostPath": {"path": format!("/tmp/{}", kube.namespace)}});
        let spec = json!({"completions": 2, "completionMode": "Indexed", "backoffLimit": 0,
            "podFailurePolicy": {"rules": [{"action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}});
        let mut it = job("e", &script, volume, spec);
        // The files are a node's.
        let node = name(&kube.list("v1", "nodes", "gantry.dev/simulated=true").await[0]);
        it["spec"]["template"]["spec"]["nodeName"] = node.into();
        kube.create(BATCH, "jobs", it).await;
        for pod in running(&kube, "e", 2).await {
            let (code, answer) = kube.evict(&name(&pod)).await;
            assert_eq!(code, 201, "{answer:#}");
        }
        complete(&kube, "e", 2).await;
    });
}
