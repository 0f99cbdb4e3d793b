//! Jobs in a whole embedded cluster: pods that simulated nodes run to their end.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

use std::time::Duration;

use gantry_cluster::EmbeddedCluster;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// How long anything may take before the test fails. Generous: CI has two slow cores.
const DEADLINE: Duration = Duration::from_secs(120);

async fn wait<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn cluster() -> (EmbeddedCluster, Client) {
    let cluster = EmbeddedCluster::start().await.unwrap();
    let client = cluster.client();
    // Pods are refused until the namespace has its default service account.
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    wait("the default service account", async || {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
    (cluster, client)
}

/// A Job whose pods are simulated to run as the annotations say.
fn job(name: &str, spec: Value, annotations: Value) -> Job {
    let mut whole = json!({"template": {"metadata": {"annotations": annotations}, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "registry.example.com/task:1"}]}}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": whole})).unwrap()
}

async fn create(client: &Client, job: &Job) {
    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    jobs.create(&PostParams::default(), job).await.unwrap();
}

async fn until(client: &Client, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    wait(&format!("job {name}"), async || {
        let status = serde_json::to_value(jobs.get(name).await.unwrap().status).unwrap();
        wanted(&status).then_some(status)
    })
    .await
}

fn holds(status: &Value, condition: &str) -> bool {
    let conditions = status["conditions"].as_array();
    let all = conditions.into_iter().flatten();
    all.clone()
        .any(|c| c["type"] == condition && c["status"] == "True")
}

fn reasons(status: &Value) -> Vec<String> {
    let conditions = status["conditions"].as_array().unwrap();
    let one = |c: &Value| format!("{} {}", c["type"], c["reason"]).replace('"', "");
    conditions.iter().map(one).collect()
}

async fn pods(client: &Client, job: &str) -> Vec<Pod> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let selector = format!("batch.kubernetes.io/job-name={job}");
    let list = pods.list(&ListParams::default().labels(&selector)).await;
    list.unwrap().items
}

const QUICK: &str = "10ms";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_to_their_end() {
    let (cluster, client) = cluster().await;
    let quick = json!({"hollow.gantry.dev/run": QUICK});
    let fails = json!({"hollow.gantry.dev/run": QUICK, "hollow.gantry.dev/exit-code": "42"});
    create(
        &client,
        &job(
            "plain",
            json!({"completions": 3, "parallelism": 2}),
            json!({}),
        ),
    )
    .await;
    let indexed = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    create(&client, &job("indexed", indexed, quick.clone())).await;
    create(
        &client,
        &job("fails", json!({"backoffLimit": 0}), fails.clone()),
    )
    .await;
    let policy = json!({"podFailurePolicy": {"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}});
    create(&client, &job("policy", policy, fails)).await;

    let status = until(&client, "plain", |s| holds(s, "Complete")).await;
    assert_eq!(status["succeeded"], 3);
    assert_eq!(status["uncountedTerminatedPods"], json!({}));
    assert!(status["completionTime"].is_string() && status["startTime"].is_string());
    let reached = [
        "SuccessCriteriaMet CompletionsReached",
        "Complete CompletionsReached",
    ];
    assert_eq!(reasons(&status), reached);

    let status = until(&client, "indexed", |s| holds(s, "Complete")).await;
    assert_eq!(status["completedIndexes"], "0-2");
    for pod in pods(&client, "indexed").await {
        let index =
            &pod.metadata.annotations.as_ref().unwrap()["batch.kubernetes.io/job-completion-index"];
        assert!(pod.metadata.finalizers.is_none());
        assert_eq!(
            pod.spec.unwrap().hostname.unwrap(),
            format!("indexed-{index}")
        );
        assert!(
            pod.metadata
                .name
                .unwrap()
                .starts_with(&format!("indexed-{index}-"))
        );
    }

    let status = until(&client, "fails", |s| holds(s, "Failed")).await;
    assert_eq!(
        (&status["failed"], &status["succeeded"]),
        (&json!(1), &Value::Null)
    );
    let over = [
        "FailureTarget BackoffLimitExceeded",
        "Failed BackoffLimitExceeded",
    ];
    assert_eq!(reasons(&status), over);

    let status = until(&client, "policy", |s| holds(s, "Failed")).await;
    let message = status["conditions"][1]["message"].as_str().unwrap();
    assert!(
        message.ends_with("failed with exit code 42 matching FailJob rule at index 0"),
        "{message}"
    );

    let events: Api<Event> = Api::default_namespaced(client.clone());
    wait("what the controller tells", async || {
        let list = events.list(&ListParams::default()).await.unwrap();
        let told = |job: &str, reason: &str| {
            list.iter().any(|e| {
                e.involved_object.name.as_deref() == Some(job)
                    && e.reason.as_deref() == Some(reason)
            })
        };
        (told("plain", "SuccessfulCreate")
            && told("plain", "Completed")
            && told("fails", "BackoffLimitExceeded")
            && told("policy", "PodFailurePolicy"))
        .then_some(())
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_suspended_resumed_and_deleted_with_their_pods() {
    let (cluster, client) = cluster().await;
    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    let long = json!({"hollow.gantry.dev/run": "1h"});
    let spec = json!({"completions": 2, "parallelism": 2, "suspend": true});
    create(&client, &job("long", spec, long)).await;
    let status = until(&client, "long", |s| holds(s, "Suspended")).await;
    assert!(status["startTime"].is_null());
    let suspend = async |on: bool| {
        let patch = Patch::Merge(json!({"spec": {"suspend": on}}));
        jobs.patch("long", &PatchParams::default(), &patch)
            .await
            .unwrap();
    };
    suspend(false).await;
    until(&client, "long", |s| s["ready"] == 2 && s["active"] == 2).await;
    suspend(true).await;
    let gone = |s: &Value| s["active"].is_null() && s["terminating"] == 0 && holds(s, "Suspended");
    let status = until(&client, "long", gone).await;
    assert!(status["failed"].is_null(), "suspended pods do not count");
    suspend(false).await;
    until(&client, "long", |s| s["ready"] == 2).await;

    jobs.delete("long", &DeleteParams::background())
        .await
        .unwrap();
    wait("the pods to go with their job", async || {
        pods(&client, "long").await.is_empty().then_some(())
    })
    .await;

    // Without its pods: they lose the finalizer that nobody will count them by.
    let spec = json!({"completions": 1});
    create(
        &client,
        &job("orphaned", spec, json!({"hollow.gantry.dev/run": "1h"})),
    )
    .await;
    until(&client, "orphaned", |s| s["ready"] == 1).await;
    jobs.delete(
        "orphaned",
        &DeleteParams {
            propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
            ..DeleteParams::default()
        },
    )
    .await
    .unwrap();
    wait("the pod to be freed", async || {
        let pods = pods(&client, "orphaned").await;
        let free = pods
            .iter()
            .all(|p| p.metadata.finalizers.is_none() && p.metadata.owner_references.is_none());
        (pods.len() == 1 && free).then_some(())
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_starts_jobs_and_finished_ones_go() {
    let (cluster, client) = cluster().await;
    let crons: Api<CronJob> = Api::default_namespaced(client.clone());
    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    // Every second, so that nobody waits for a minute.
    let cron = json!({"metadata": {"name": "tick"}, "spec": {
        "schedule": "@every 1s", "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 1,
        "jobTemplate": {"metadata": {"labels": {"from": "tick"}}, "spec": {"template": {
            "metadata": {"annotations": {"hollow.gantry.dev/run": QUICK}},
            "spec": {"restartPolicy": "Never", "containers": [
                {"name": "main", "image": "registry.example.com/task:1"}]}}}}}});
    let cron = serde_json::from_value(cron).unwrap();
    crons.create(&PostParams::default(), &cron).await.unwrap();
    let status = wait("the first success", async || {
        let status = crons.get("tick").await.unwrap().status?;
        status.last_successful_time.as_ref()?;
        Some(status)
    })
    .await;
    assert!(status.last_schedule_time.is_some());
    let list = jobs
        .list(&ListParams::default().labels("from=tick"))
        .await
        .unwrap();
    let started = &list.items[0].metadata;
    let name = started.name.as_deref().unwrap();
    let minutes: i64 = name.strip_prefix("tick-").unwrap().parse().unwrap();
    let stamp =
        &started.annotations.as_ref().unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    let stamp: jiff::Timestamp = stamp.parse().unwrap();
    assert_eq!(minutes, stamp.as_second() / 60);
    let owner = &started.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.controller),
        ("CronJob", Some(true))
    );
    crons
        .delete("tick", &DeleteParams::background())
        .await
        .unwrap();

    let short = json!({"ttlSecondsAfterFinished": 1, "completions": 1});
    create(
        &client,
        &job("short", short, json!({"hollow.gantry.dev/run": QUICK})),
    )
    .await;
    wait("the finished job to go", async || {
        jobs.get_opt("short").await.unwrap().is_none().then_some(())
    })
    .await;
    wait("its pods to go too", async || {
        pods(&client, "short").await.is_empty().then_some(())
    })
    .await;
    cluster.shutdown().await;
}
