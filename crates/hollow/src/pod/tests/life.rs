//! From being bound to being gone: phases, conditions, probes, gates, ends.

use super::*;

#[test]
fn from_bound_to_ready_as_a_kubelet_reports_it() {
    let mut bench = Bench::new(SLOW, one(json!({})));
    assert_eq!(bench.summary(), "Pending ContainerCreating/0");
    insta::assert_json_snapshot!("first_status", status_patch(&bench.pod));
    bench.pass(2.5);
    assert_eq!(bench.summary(), "Pending ContainerCreating/0");
    bench.pass(1.0);
    assert_eq!(bench.summary(), "Running Running/0");
    assert_eq!(
        bench.condition("ContainersReady"),
        (false, "ContainersNotReady".into())
    );
    bench.pass(10.0);
    assert_eq!(bench.summary(), "Running Ready/0");
    insta::assert_json_snapshot!("ready_status", status_patch(&bench.pod));
    insta::assert_yaml_snapshot!("events", bench.told());
    assert_eq!(bench.wake, None, "a healthy pod costs nothing");
}

#[test]
fn readiness_gates_hold_ready_back() {
    let mut spec = one(json!({}));
    spec["readinessGates"] = json!([{"conditionType": "gantry.dev/in-service"}]);
    let mut bench = Bench::new("[]", spec);
    bench.pass(1.0);
    assert_eq!(
        bench.condition("Ready"),
        (false, "ReadinessGatesNotReady".into())
    );
    assert_eq!(bench.condition("ContainersReady"), (true, String::new()));
    bench.gate("gantry.dev/in-service", "True");
    assert!(bench.ready());
    bench.gate("gantry.dev/in-service", "False");
    let ready = bench.pod.conditions.ready.clone().unwrap();
    assert_eq!(
        ready.message.unwrap(),
        "the status of pod readiness gate \"gantry.dev/in-service\" is not \"True\", but False"
    );
    assert_eq!(
        bench.object["status"]["conditions"]
            .as_array()
            .unwrap()
            .len(),
        6,
        "the gate's own condition stays"
    );
}

#[test]
fn image_changed_in_place_restarts_the_container() {
    let mut bench = Bench::new(SLOW, one(json!({})));
    bench.pass(10.0);
    let before = bench.object["status"].clone();
    bench.told.clear();
    bench.edit(|object| {
        object["spec"]["containers"][0]["image"] = json!("shop/cart:2");
        object["metadata"]["generation"] = json!(2);
        object["metadata"]["labels"] = json!({"gantry.dev/revision": "2"});
    });
    assert!(!bench.ready(), "out of service at once");
    bench.pass(1.5);
    assert_eq!(bench.summary(), "Running Completed(0)/0");
    bench.pass(3.0);
    assert_eq!(bench.summary(), "Running Running/1");
    bench.pass(3.0);
    assert_eq!(bench.summary(), "Running Ready/1");
    assert!(bench.ready());
    let (old, new) = (
        &before["containerStatuses"][0],
        &bench.object["status"]["containerStatuses"][0],
    );
    assert_ne!(old["containerID"], new["containerID"]);
    assert_ne!(old["imageID"], new["imageID"]);
    assert_eq!(new["image"], "shop/cart:2");
    assert_eq!(
        new["lastState"]["terminated"]["containerID"],
        old["containerID"]
    );
    assert_eq!(before["podIP"], bench.object["status"]["podIP"]);
    assert_eq!(bench.object["status"]["observedGeneration"], 2);
    assert!(
        bench
            .told()
            .iter()
            .any(|it| it.contains("Killing Container app definition changed, will be restarted"))
    );
}

#[test]
fn never_ready_stays_running_and_complains_ever_more_seldom() {
    let probe = json!({"readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 10}});
    let mut bench = Bench::new("[{image: '*:1', ready: never}]", one(probe));
    bench.pass(60.0);
    assert_eq!(bench.summary(), "Running Running/0");
    let told: Vec<_> = bench
        .told()
        .into_iter()
        .filter(|it| it.contains("Unhealthy"))
        .collect();
    let message = "Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 503";
    assert_eq!(
        told,
        [
            format!("0s {message}"),
            format!("10s {message}"),
            format!("30s {message}")
        ]
    );
    let before = std::mem::replace(&mut bench.behaviours, behaviours("[]"));
    bench.step(Input::Rules(&before));
    bench.pass(10.0);
    assert_eq!(
        bench.summary(),
        "Running Ready/0",
        "a rule taken back lets it become ready"
    );
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [
            {"name": "a", "image": "i"},
            {"name": "side", "image": "s", "restartPolicy": "Always"},
            {"name": "b", "image": "i"},
        ],
        "containers": [{"name": "app", "image": "m"}],
    });
    let mut bench = Bench::new(
        "[{image: i, run: 2s}, {image: m, run: 3s}, {image: s, stop: 1s}]",
        spec,
    );
    bench.pass(0.5);
    assert_eq!(
        bench.summary(),
        "Pending Running/0 PodInitializing/0 PodInitializing/0 PodInitializing/0"
    );
    assert_eq!(
        bench.condition("Initialized"),
        (false, "ContainersNotInitialized".into())
    );
    bench.pass(2.0);
    assert_eq!(
        bench.summary(),
        "Pending Completed(0)/0 Ready/0 Running/0 PodInitializing/0"
    );
    bench.pass(2.0);
    assert_eq!(
        bench.summary(),
        "Running Completed(0)/0 Ready/0 Completed(0)/0 Ready/0"
    );
    assert_eq!(bench.condition("Initialized"), (true, String::new()));
    bench.pass(5.0);
    assert_eq!(
        bench.summary(),
        "Succeeded Completed(0)/0 Completed(0)/0 Completed(0)/0 Completed(0)/0"
    );
}

#[test]
fn a_failed_init_container_fails_the_pod_that_never_restarts() {
    let spec = |policy: &str| {
        json!({"restartPolicy": policy, "initContainers": [{"name": "a", "image": "i"}],
               "containers": [{"name": "app", "image": "m"}]})
    };
    for (policy, summary) in [
        ("Never", "Failed Error(1)/0 PodInitializing/0"),
        ("Always", "Pending CrashLoopBackOff/1 PodInitializing/0"),
    ] {
        let mut bench = Bench::new("[{image: i, run: 1s, exitCode: 1}]", spec(policy));
        bench.pass(4.0);
        assert_eq!(bench.summary(), summary);
    }
}

#[test]
fn deletion_waits_for_the_containers_then_deletes() {
    let hook = json!({"lifecycle": {"preStop": {"sleep": {"seconds": 2}}}});
    // (grace, seconds until it is over, exit code)
    for (grace, over, code) in [(30, 3, 0), (2, 2, 137), (0, 0, 137)] {
        let mut bench = Bench::new(SLOW, one(hook.clone()));
        bench.pass(10.0);
        bench.delete_with(grace);
        if over > 0 {
            assert!(!bench.delete, "not before the containers have ended");
            bench.pass(f64::from(over) - 0.5);
            assert!(!bench.delete);
            bench.pass(1.0);
        } else {
            bench.pass(0.1);
        }
        assert!(bench.delete, "grace {grace}");
        let phase = if code == 0 {
            "Succeeded Completed(0)/0"
        } else {
            "Failed Error(137)/0"
        };
        assert_eq!(bench.summary(), phase);
        assert!(!bench.ready());
    }
    let mut pending = Bench::new(SLOW, one(json!({})));
    pending.delete_with(30);
    assert!(
        pending.delete,
        "nothing runs, so there is nothing to wait for"
    );
    let mut hastened = Bench::new("[{stop: 20s}]", one(json!({})));
    hastened.pass(1.0);
    hastened.delete_with(30);
    hastened.delete_with(1);
    hastened.pass(1.5);
    assert!(hastened.delete, "a second, shorter grace period counts");
}

#[test]
fn that_a_deletion_was_seen_is_told_with_an_end_that_is_near() {
    for (rules, at_once) in [
        ("[{stop: 1s}]", false),
        ("[{stop: 1500ms}]", true),
        // It cannot last longer than that.
        ("[{stop: 60s}]", true),
    ] {
        let mut bench = Bench::new(rules, one(json!({})));
        bench.pass(5.0);
        bench.changed = false;
        bench.delete_with(30);
        assert_eq!(bench.changed, at_once, "{rules}");
        let seen = if at_once { 2 } else { 1 };
        assert_eq!(bench.object["status"]["observedGeneration"], seen);
        bench.pass(31.0);
        assert!(bench.changed && bench.delete);
        assert_eq!(bench.object["status"]["observedGeneration"], 2);
    }
}

#[test]
fn a_deadline_fails_the_pod() {
    let mut spec = one(json!({}));
    spec["activeDeadlineSeconds"] = json!(5);
    let mut bench = Bench::new("[{stop: 1s}]", spec);
    bench.pass(5.5);
    assert_eq!(bench.summary(), "Running Ready/0");
    bench.pass(1.0);
    assert_eq!(bench.summary(), "Failed Completed(0)/0");
    assert_eq!(bench.object["status"]["reason"], "DeadlineExceeded");
}

#[test]
fn jobs_end_by_themselves() {
    let object = json!({
        "metadata": {"name": "cart-0", "namespace": "shop", "uid": "u-1"},
        "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]},
    });
    let behaviours = Behaviours::default();
    let mut bench = Bench::of(behaviours, object, Images::default(), Millis(T0), true);
    bench.pass(20.0);
    assert_eq!(bench.summary(), "Succeeded Completed(0)/0");
    assert_eq!(bench.wake, None);
}

#[test]
fn annotations_decide_first() {
    let object = json!({
        "metadata": {"name": "cart-0", "namespace": "shop", "uid": "u-1",
                     "annotations": {"hollow.gantry.dev/ready": "never", "hollow.gantry.dev/start": "5s"}},
        "spec": one(json!({})),
    });
    let mut bench = Bench::of(
        behaviours("[{ready: 1s, start: 1s}]"),
        object,
        Images::default(),
        Millis(T0),
        false,
    );
    bench.pass(4.0);
    assert_eq!(bench.summary(), "Pending ContainerCreating/0");
    bench.pass(60.0);
    assert_eq!(bench.summary(), "Running Running/0");
    bench.edit(|object| object["metadata"]["annotations"] = json!({}));
    bench.pass(1.0);
    assert_eq!(
        bench.summary(),
        "Running Ready/0",
        "taken back, the rule holds, at once"
    );
}

/// A hook of the container is answered, or nobody answers.
fn answer(bench: &mut Bench, stops: bool, well: bool) {
    let ask = bench.asks.pop().expect("somebody is asked");
    assert_eq!(ask.stops, stops);
    bench.step(Input::Hooked {
        container: "app",
        attempt: ask.attempt,
        stops,
        well,
    });
}

#[test]
fn hooks_that_ask_somebody_wait_for_the_answer() {
    let http = json!({"httpGet": {
        "host": "10.64.0.9", "port": 8080, "path": "/echo?msg=hi", "scheme": "HTTPS",
        "httpHeaders": [{"name": "A", "value": "b"}],
    }});
    let started = |hook: &Value| Bench::new("[]", one(json!({"lifecycle": {"postStart": hook}})));
    let mut bench = started(&http);
    bench.pass(5.0);
    assert_eq!(bench.summary(), "Pending ContainerCreating/0");
    let ask = &bench.asks[0];
    assert_eq!((&*ask.host, ask.port, ask.tls), ("10.64.0.9", 8080, true));
    assert_eq!(ask.path, "/echo?msg=hi");
    assert_eq!(ask.headers, [("A".to_owned(), "b".to_owned())]);
    // An answer for another run is none.
    bench.step(Input::Hooked {
        container: "app",
        attempt: 7,
        stops: false,
        well: true,
    });
    assert!(!bench.ready());
    answer(&mut bench, false, true);
    assert!(bench.ready());
    // Without a host it is the pod itself; what nobody answers has failed, at once or in the end.
    let own = json!({"httpGet": {"port": "80", "path": "x"}});
    let mut failing = started(&own);
    assert_eq!(
        (&*failing.asks[0].host, failing.asks[0].port),
        ("10.64.0.2", 80)
    );
    answer(&mut failing, false, false);
    let mut forgotten = started(&own);
    forgotten.pass(61.0);
    for bench in [&mut failing, &mut forgotten] {
        let told = bench.told();
        assert!(
            told.iter().any(|it| it.contains("FailedPostStartHook")),
            "{told:?}"
        );
    }
    // A port by name is not looked up.
    assert!(started(&json!({"httpGet": {"port": "web"}})).ready());

    for (well, failed) in [(true, false), (false, true)] {
        let mut bench = Bench::new("[]", one(json!({"lifecycle": {"preStop": &http}})));
        bench.pass(1.0);
        bench.delete_with(30);
        bench.pass(5.0);
        assert!(!bench.delete);
        answer(&mut bench, true, well);
        bench.pass(1.0);
        assert!(bench.delete);
        let mut told = bench.told().into_iter();
        assert_eq!(told.any(|it| it.contains("FailedPreStopHook")), failed);
    }
    // Nobody is waited for beyond the grace period.
    let mut bench = Bench::new("[]", one(json!({"lifecycle": {"preStop": &http}})));
    bench.pass(1.0);
    bench.delete_with(3);
    bench.pass(4.0);
    assert!(bench.delete);
}

#[test]
fn hooks_take_as_long_as_their_commands() {
    let exec = |script: &str| json!({"exec": {"command": ["sh", "-c", script]}});
    let started = |script: &str| {
        let hooks = json!({"lifecycle": {"postStart": exec(script)}});
        Bench::new("[]", one(hooks))
    };
    let mut slow = started("sleep 8");
    slow.pass(7.0);
    assert_eq!(slow.summary(), "Pending ContainerCreating/0");
    slow.pass(2.0);
    assert!(slow.ready());
    let mut failing = started("exit 3");
    failing.pass(0.5);
    assert!(!failing.ready());
    let told = failing.told();
    for reason in ["FailedPostStartHook", "Killing"] {
        assert!(told.iter().any(|it| it.contains(reason)), "{told:?}");
    }
    // What is not simulated is taken to succeed.
    let mut unknown = started("curl -f http://localhost/ready");
    unknown.pass(0.5);
    assert!(unknown.ready());

    for (script, grace, over, told) in [
        ("sleep 7", 30, 7.0, false),
        ("sleep 7", 3, 3.0, false),
        ("true", 30, 0.0, false),
        ("sleep 2; exit 1", 30, 2.0, true),
        ("sleep 7; exit 1", 3, 3.0, false),
        ("exit 1", 0, 0.0, false),
    ] {
        let hooks = json!({"lifecycle": {"preStop": exec(script)}});
        let mut bench = Bench::new("[]", one(hooks));
        bench.pass(1.0);
        bench.delete_with(grace);
        if over > 0.0 {
            bench.pass(over - 0.5);
            assert!(!bench.delete, "{script} {grace}");
        }
        bench.pass(1.0);
        assert!(bench.delete, "{script} {grace}");
        let mut events = bench.told().into_iter();
        assert_eq!(
            events.any(|it| it.contains("FailedPreStopHook")),
            told,
            "{script} {grace}"
        );
    }
}
