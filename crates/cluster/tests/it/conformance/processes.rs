//! Processes: as whom they run, and pods that are bounded as a whole.

use serde_json::{Value, json};

use crate::conformance::{
    harness::on_cluster,
    storage::{BUSYBOX, looks, succeed},
};

/// Users and groups that processes run as: `test/e2e/node/security_context.go`, and the like of `common/node`.
#[test]
fn processes_run_as_who_they_are_told() {
    on_cluster(async |kube| {
        let of = |name: &str, script: &str, whole: Value, own: Value, wanted: &[&str]| {
            let mut pod = looks(
                name,
                json!({"emptyDir": {}}),
                json!({"mountPath": "/v"}),
                &[],
            );
            pod["spec"]["securityContext"] = whole;
            pod["spec"]["containers"] = json!([{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", script],
                "securityContext": own}]);
            (
                pod,
                wanted.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(),
            )
        };
        let both = json!({"runAsUser": 1001, "runAsGroup": 2002});
        let id = ["uid=1001", "gid=2002"];
        succeed(
            &kube,
            vec![
                of("pod", "id", both.clone(), json!({}), &id),
                of("container", "id", json!({}), both, &id),
                of(
                    "over",
                    "id -u",
                    json!({"runAsUser": 1001}),
                    json!({"runAsUser": 65534}),
                    &["65534"],
                ),
                of(
                    "root",
                    "id -u; whoami",
                    json!({}),
                    json!({}),
                    &["0\nroot\n"],
                ),
                of(
                    "tests",
                    "test $(id -u) -eq 65534",
                    json!({}),
                    json!({"runAsUser": 65534}),
                    &[],
                ),
            ],
        )
        .await;
    });
}

/// A directory that holds more than it may, and a pod that asks for resources as a whole.
#[test]
fn a_pod_is_bounded_as_a_whole() {
    on_cluster(async |kube| {
        let script = "echo 1234567890 > /v/f; sleep 1000";
        let mut pod = looks(
            "greedy",
            json!({"emptyDir": {"sizeLimit": "10"}}),
            json!({}),
            &[],
        );
        pod["spec"]["containers"] = json!([{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]);
        kube.create("v1", "pods", pod).await;
        let whole = json!({"metadata": {"name": "whole"}, "spec": {
            "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
            "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]}});
        kube.create("v1", "pods", whole).await;
        let seen = kube.running("whole").await;
        let status = &seen["status"];
        assert_eq!(
            status["allocatedResources"],
            json!({"cpu": "100m", "memory": "64Mi"}),
            "{status:#}"
        );
        assert_eq!(status["resources"], seen["spec"]["resources"], "{status:#}");
        let seen = kube
            .until_object("v1", "pods", "greedy", "evicted", |it| {
                it["status"]["phase"] == "Failed"
            })
            .await;
        let status = &seen["status"];
        assert_eq!(status["reason"], "Evicted");
        assert_eq!(
            status["message"],
            "Usage of EmptyDir volume \"v\" exceeds the limit \"10\". "
        );
    });
}
