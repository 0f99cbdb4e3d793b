//! In-place resize.

use super::*;

pub(super) fn no_room() -> Result<(), Held> {
    let message =
        "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000";
    Err(Held {
        refusal: Refusal::Deferred,
        message: message.into(),
    })
}

fn asking(cpu: &str, memory: &str) -> Value {
    one(json!({
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": "8"}},
        "resizePolicy": [
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"},
        ],
    }))
}

fn running(cpu: &str, memory: &str) -> Bench {
    let mut bench = Bench::new(SLOW, asking(cpu, memory));
    bench.behaviours.defaults.sandbox = crate::behaviour::Span::millis(500, 500);
    bench.pass(10.0);
    assert_eq!(bench.summary(), "Running Ready/0");
    bench.told.clear();
    bench
}

fn ask(bench: &mut Bench, cpu: &str, memory: &str) {
    bench.edit(|object| {
        object["spec"] = asking(cpu, memory);
        let generation = object["metadata"]["generation"].as_i64().unwrap() + 1;
        object["metadata"]["generation"] = json!(generation);
    });
}

/// The conditions of a resize, each with reason, message and generation.
fn conditions(bench: &Bench) -> Vec<String> {
    let all = bench.object["status"]["conditions"].as_array().unwrap();
    let ours = all
        .iter()
        .filter(|it| it["type"].as_str().unwrap().starts_with("PodResize"));
    ours.map(|it| {
        let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
        format!(
            "{} {} {} {}",
            text("type"),
            text("status"),
            text("reason"),
            it["observedGeneration"]
        )
    })
    .collect()
}

/// Requests of CPU and memory: allocated, actual.
fn requests(bench: &Bench) -> [String; 2] {
    let status = &bench.object["status"]["containerStatuses"][0];
    [
        &status["allocatedResources"],
        &status["resources"]["requests"],
    ]
    .map(|it| {
        format!(
            "{} {}",
            it["cpu"].as_str().unwrap(),
            it["memory"].as_str().unwrap()
        )
    })
}

#[test]
fn what_is_granted_is_carried_out_a_moment_later() {
    let mut bench = running("1", "1Gi");
    ask(&mut bench, "2", "1Gi");
    assert_eq!(conditions(&bench), ["PodResizeInProgress True  2"]);
    assert_eq!(requests(&bench), ["2 1Gi", "1 1Gi"]);
    bench.pass(1.0);
    assert!(conditions(&bench).is_empty());
    assert_eq!(requests(&bench), ["2 1Gi", "2 1Gi"]);
    assert_eq!(bench.summary(), "Running Ready/0", "nothing is restarted");
    let resources = r#"{"limits":{"cpu":"8"},"requests":{"cpu":"2","memory":"1Gi"}}"#;
    assert_eq!(
        bench.told(),
        [
            format!(
                r#"10s ResizeStarted Pod resize started: {{"containers":[{{"name":"app","resources":{resources}}}],"generation":2}}"#
            ),
            format!(
                r#"10s ResizeCompleted Pod resize completed: {{"containers":[{{"name":"app","resources":{resources}}}],"generation":2}}"#
            ),
        ]
    );
}

#[test]
fn a_resource_may_take_a_restart() {
    let mut bench = running("1", "1Gi");
    ask(&mut bench, "1", "2Gi");
    bench.pass(1.0);
    assert_eq!(conditions(&bench), ["PodResizeInProgress True  2"]);
    assert!(
        bench
            .told()
            .iter()
            .any(|it| it.ends_with("Killing Container app resize requires restart")),
        "{:?}",
        bench.told()
    );
    assert_eq!(requests(&bench), ["1 2Gi", "1 1Gi"]);
    bench.pass(10.0);
    assert_eq!(bench.summary(), "Running Ready/1");
    assert_eq!(requests(&bench), ["1 2Gi", "1 2Gi"]);
    assert!(conditions(&bench).is_empty());
}

#[test]
fn what_the_node_has_no_room_for_waits() {
    let mut bench = running("1", "1Gi");
    bench.room = no_room();
    ask(&mut bench, "3", "1Gi");
    assert_eq!(conditions(&bench), ["PodResizePending True Deferred 2"]);
    assert_eq!(requests(&bench), ["1 1Gi", "1 1Gi"]);
    assert!(bench.pod.resize_deferred());
    assert!(
        bench.told()[0].contains("ResizeDeferred Pod resize Deferred: {"),
        "{:?}",
        bench.told()
    );
    // Told once, however often it is refused.
    let told = bench.told.len();
    bench.answer();
    assert_eq!(bench.told.len(), told);

    // Another process finds it waiting, and still knows what was granted.
    bench.restart();
    assert_eq!(conditions(&bench), ["PodResizePending True Deferred 2"]);
    assert_eq!(requests(&bench), ["1 1Gi", "1 1Gi"]);

    bench.room = Ok(());
    bench.answer();
    assert_eq!(conditions(&bench), ["PodResizeInProgress True  2"]);
    bench.pass(1.0);
    assert_eq!(requests(&bench), ["3 1Gi", "3 1Gi"]);
    assert!(conditions(&bench).is_empty());
}

#[test]
fn what_can_never_be_is_said_and_may_be_taken_back() {
    let mut bench = running("1", "1Gi");
    let message = "Node didn't have enough capacity: cpu, requested: 100000, capacity: 4000";
    bench.room = Err(Held {
        refusal: Refusal::Infeasible,
        message: message.into(),
    });
    ask(&mut bench, "100", "1Gi");
    assert_eq!(conditions(&bench), ["PodResizePending True Infeasible 2"]);
    let all = bench.object["status"]["conditions"].as_array().unwrap();
    assert!(all.iter().any(|it| it["message"] == message));
    assert!(!bench.pod.resize_deferred());
    ask(&mut bench, "1", "1Gi");
    assert!(conditions(&bench).is_empty());
    assert_eq!(requests(&bench), ["1 1Gi", "1 1Gi"]);
}

#[test]
fn before_anything_runs_it_is_no_more_than_a_spec() {
    let mut bench = Bench::new(SLOW, asking("1", "1Gi"));
    ask(&mut bench, "2", "2Gi");
    assert!(conditions(&bench).is_empty());
    bench.pass(10.0);
    assert_eq!(bench.summary(), "Running Ready/0");
    assert_eq!(requests(&bench), ["2 2Gi", "2 2Gi"]);
}

#[test]
fn what_a_pod_has_in_all_is_told() {
    let spec = |cpu: &str| {
        let mut spec = one(json!({}));
        spec["resources"] = json!({"requests": {"cpu": cpu}, "limits": {"cpu": "4"}});
        spec
    };
    let mut bench = Bench::new(SLOW, spec("1"));
    bench.behaviours.defaults.sandbox = crate::behaviour::Span::millis(500, 500);
    bench.pass(10.0);
    let told = |bench: &Bench| {
        let status = &bench.object["status"];
        let cpu = |it: &Value| it["cpu"].as_str().unwrap_or_default().to_owned();
        assert_eq!(status["resources"]["limits"]["cpu"], "4", "{status:#}");
        (
            cpu(&status["allocatedResources"]),
            cpu(&status["resources"]["requests"]),
        )
    };
    let both = |one: &str, other: &str| (one.to_owned(), other.to_owned());
    assert_eq!(told(&bench), both("1", "1"));
    bench.edit(|object| object["spec"] = spec("2"));
    assert_eq!(told(&bench), both("2", "1"), "set aside, and not yet given");
    bench.pass(5.0);
    assert_eq!(told(&bench), both("2", "2"));
    // Another process knows what was granted.
    bench.room = no_room();
    bench.edit(|object| object["spec"] = spec("3"));
    assert_eq!(told(&bench), both("2", "2"));
    bench.restart();
    bench.pass(1.0);
    assert_eq!(told(&bench), both("2", "2"));
}
