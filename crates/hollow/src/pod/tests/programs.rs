//! Containers whose commands can be run.

use super::*;

#[test]
fn containers_do_as_their_commands_say() {
    let container = |name: &str, script: &str| {
        json!({"name": name, "image": "busybox:1", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]})
    };
    let mut bench = Bench::new(
        "[]",
        json!({
            "restartPolicy": "Never",
            "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [container("first", "echo hello > /v/from-init")],
            "containers": [container("main",
                "test -f /v/from-init && sleep 5 && cat /v/from-init > /dev/termination-log; exit 3")],
        }),
    );
    bench.pass(60.0);
    let status = &bench.object["status"];
    assert_eq!(status["phase"], "Failed", "{status}");
    let end = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&end["exitCode"], &end["message"]),
        (&json!(3), &json!("hello\n")),
        "{end}"
    );
}

#[test]
fn a_command_that_succeeds_at_its_second_try_is_restarted_once() {
    let script = "if [[ -r /data/foo ]] ; then exit 0 ; else touch /data/foo ; exit 1 ; fi";
    let mut bench = Bench::new(
        "[]",
        json!({
            "restartPolicy": "OnFailure",
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{"name": "c", "image": "x", "command": ["/bin/sh", "-c", script],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        }),
    );
    bench.pass(60.0);
    let status = &bench.object["status"];
    assert_eq!(status["phase"], "Succeeded", "{status}");
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
}

#[test]
fn a_liveness_probe_sees_the_file_go() {
    let script = "echo ok >/tmp/health; sleep 10; rm -rf /tmp/health; sleep 600";
    let mut bench = Bench::new(
        "[]",
        json!({"containers": [{"name": "c", "image": "busybox", "command": ["/bin/sh", "-c", script],
            "livenessProbe": {"exec": {"command": ["cat", "/tmp/health"]}, "periodSeconds": 5,
                "failureThreshold": 1}}]}),
    );
    bench.pass(60.0);
    let restarts = bench.object["status"]["containerStatuses"][0]["restartCount"].as_i64();
    assert!(
        restarts.is_some_and(|it| it >= 1),
        "{}",
        bench.object["status"]
    );
}

#[test]
fn a_pod_is_evicted_whose_volume_holds_more_than_it_may() {
    let script = "echo 12345 > /v/a; sleep 25; echo 67890 > /v/b; sleep 1000";
    let evicted = |volume: Value| {
        let mut bench = Bench::new(
            "[]",
            json!({
                "volumes": [{"name": "v", "emptyDir": volume}],
                "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", script],
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            }),
        );
        bench.pass(20.0);
        assert_eq!(bench.object["status"]["phase"], "Running");
        bench.pass(30.0);
        let status = bench.object["status"].clone();
        (status["phase"] == "Failed").then_some((status, bench.told))
    };
    let (status, told) = evicted(json!({"sizeLimit": "11"})).unwrap();
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"11\". ";
    assert_eq!(
        (&status["reason"], &status["message"]),
        (&json!("Evicted"), &json!(message))
    );
    let conditions = status["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|it| it["type"] != "DisruptionTarget"));
    assert!(
        told.iter().any(|(_, it)| it.contains("exceeds the limit")),
        "{told:?}"
    );
    assert!(evicted(json!({"sizeLimit": "12"})).is_none());
    assert!(evicted(json!({"sizeLimit": "1", "medium": "Memory"})).is_none());
}
