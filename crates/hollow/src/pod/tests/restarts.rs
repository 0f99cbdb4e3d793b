//! What ends and is started again: back-off, policies, probes, failing starts and pulls.

use super::*;

#[test]
fn crashes_back_off_as_the_kubelet_does() {
    let mut bench = Bench::new(
        "[{crash: {after: 1s, exitCode: 3, message: boom}}]",
        one(json!({})),
    );
    bench.pass(100.0);
    let loops: Vec<_> = bench
        .told()
        .into_iter()
        .filter(|it| it.contains("Started") || it.contains("BackOff"))
        .collect();
    let seconds: Vec<&str> = loops
        .iter()
        .map(|it| it.split(' ').next().unwrap())
        .collect();
    // Runs of 1 s each; the first restart is immediate, then 10, 20, 40 s after each end.
    assert_eq!(
        seconds,
        ["0s", "1s", "2s", "12s", "13s", "33s", "34s", "74s", "75s"],
        "{loops:#?}"
    );
    assert_eq!(bench.summary(), "Running CrashLoopBackOff/4");
    let status = &bench.object["status"]["containerStatuses"][0];
    assert_eq!(
        status["state"]["waiting"]["message"],
        "back-off 1m20s restarting failed container=app pod=cart-0_shop(u-1)"
    );
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(status["lastState"]["terminated"]["message"], "boom");
    assert_eq!(
        status["lastState"]["terminated"]["containerID"],
        status["containerID"]
    );
}

#[test]
fn a_pull_that_fails_backs_off_and_recovers() {
    let mut bench = Bench::new(
        "[{image: '*:1', pullError: manifest unknown}]",
        one(json!({})),
    );
    assert_eq!(bench.summary(), "Pending ErrImagePull/0");
    bench.pass(1.0);
    bench.pass(2.0);
    assert_eq!(bench.summary(), "Pending ImagePullBackOff/0");
    insta::assert_yaml_snapshot!("pull_events", bench.told());
    bench.edit(|object| object["spec"]["containers"][0]["image"] = json!("shop/cart:2"));
    bench.pass(20.0);
    assert_eq!(bench.summary(), "Running Ready/0");
}

#[test]
fn restart_policies() {
    // (policy, exit code, whether a Job's, summary after 5 s)
    let cases = [
        ("Never", 0, "Succeeded Completed(0)/0"),
        ("Never", 2, "Failed Error(2)/0"),
        ("OnFailure", 0, "Succeeded Completed(0)/0"),
        ("OnFailure", 2, "Running CrashLoopBackOff/1"),
        ("Always", 0, "Running CrashLoopBackOff/1"),
    ];
    for (policy, code, summary) in cases {
        let mut spec = one(json!({}));
        spec["restartPolicy"] = json!(policy);
        let mut bench = Bench::new(&format!("[{{run: 1s, exitCode: {code}}}]"), spec);
        bench.pass(5.0);
        assert_eq!(bench.summary(), summary, "{policy} {code}");
        let reason = bench.condition("Ready").1;
        let expected = match &summary[..4] {
            "Succ" => "PodCompleted",
            "Fail" => "PodFailed",
            _ => "ContainersNotReady",
        };
        assert_eq!(reason, expected, "{policy} {code}");
    }
}

#[test]
fn hanging_restarts_through_the_liveness_probe() {
    let probe = json!({"livenessProbe": {"periodSeconds": 5, "failureThreshold": 2}, "readinessProbe": {"periodSeconds": 1}});
    let mut spec = one(probe);
    spec["terminationGracePeriodSeconds"] = json!(4);
    let mut bench = Bench::new("[{hang: 11s}]", spec);
    bench.pass(14.5);
    assert_eq!(
        bench.summary(),
        "Running Running/0",
        "out of service after three failures"
    );
    bench.pass(6.0);
    assert!(bench.told().contains(
        &"20s Killing Container app failed liveness probe, will be restarted".to_owned()
    ));
    bench.pass(4.0);
    assert_eq!(
        bench.summary(),
        "Running Ready/1",
        "killed at the end of its grace period and started again"
    );
    assert_eq!(
        bench.object["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        137
    );
}

#[test]
fn a_startup_probe_that_never_passes_restarts() {
    let probe = json!({"startupProbe": {"periodSeconds": 2, "failureThreshold": 3}});
    let mut bench = Bench::new("[{ready: never}]", one(probe));
    bench.pass(5.0);
    assert_eq!(bench.summary(), "Running Running/1");
    assert!(
        bench.told().contains(
            &"4s Killing Container app failed startup probe, will be restarted".to_owned()
        )
    );
}

#[test]
fn a_start_that_fails() {
    let mut bench = Bench::new("[{startError: exec format error}]", one(json!({})));
    bench.pass(5.0);
    assert_eq!(bench.summary(), "Running CrashLoopBackOff/1");
    let end = &bench.object["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (&end["reason"], &end["exitCode"]),
        (&json!("StartError"), &json!(128))
    );
}

#[test]
fn a_page_taken_away_takes_the_container_out_of_service() {
    let probe = json!({"readinessProbe": {"httpGet": {"path": "/index.html", "port": 80}, "periodSeconds": 1, "failureThreshold": 1}});
    let mut bench = Bench::new("[]", one(probe));
    bench.pass(5.0);
    assert!(bench.ready());
    bench.step(Input::Serves("app", false));
    bench.pass(3.0);
    assert!(!bench.ready());
    let told = bench.told();
    assert!(
        told.iter().any(
            |it| it.ends_with("Readiness probe failed: HTTP probe failed with statuscode: 404")
        ),
        "{told:?}"
    );
    bench.step(Input::Serves("app", true));
    bench.pass(3.0);
    assert_eq!(bench.summary(), "Running Ready/0");
}
