//! Containers that want more memory than they may use.

use super::*;

fn limited(limit: &str) -> Value {
    one(json!({"resources": {"requests": {"memory": "100Mi"}, "limits": {"memory": limit}}}))
}

#[test]
fn who_wants_too_much_memory_is_killed() {
    let cases = [
        ("[{memory: 90Mi}]", "100Mi", false),
        ("[{memory: 150%}]", "200Mi", false),
        ("[{memory: 150%}]", "120Mi", true),
        (
            "[{memory: {constant: 90Mi, spikes: {every: 10m, for: 20s, height: 30Mi}}}]",
            "110Mi",
            true,
        ),
        ("[{memory: {constant: 90Mi, noise: 5%}}]", "100Mi", false),
        ("[]", "100Mi", false),
    ];
    for (rules, limit, killed) in cases {
        let mut bench = Bench::new(rules, limited(limit));
        bench.pass(1500.0);
        let status = &bench.object["status"]["containerStatuses"][0];
        let last = [&status["lastState"], &status["state"]].map(|it| it["terminated"].clone());
        let end = last.iter().find(|it| !it.is_null());
        assert_eq!(end.is_some(), killed, "{rules} {limit}: {status}");
        if let Some(end) = end {
            assert_eq!(
                (&end["reason"], &end["exitCode"]),
                (&json!("OOMKilled"), &json!(137))
            );
        }
    }
}

#[test]
fn it_is_looked_for_as_long_as_the_container_runs() {
    // The sixth hour of the recording is the one that is too much.
    let rules = "[{memory: {diurnal: {low: 50Mi, high: 120Mi, peak: '12:00'}}}]";
    let mut bench = Bench::new(rules, limited("110Mi"));
    bench.pass(86_400.0);
    let status = &bench.object["status"]["containerStatuses"][0];
    assert!(status["restartCount"].as_u64() > Some(0), "{status}");
    let first = bench
        .told
        .iter()
        .find(|(_, text)| text.starts_with("BackOff"));
    assert!(
        first.is_some_and(|(second, _)| *second > 3600),
        "{:?}",
        bench.told()
    );
}

#[test]
fn a_rule_that_comes_later_and_a_limit_that_is_raised_count() {
    let mut bench = Bench::new("[]", limited("100Mi"));
    bench.pass(60.0);
    assert_eq!(bench.summary(), "Running Ready/0");
    let before = std::mem::replace(
        &mut bench.behaviours,
        behaviours(
            "[{memory: {diurnal: {low: 1Mi, high: 100Mi}, spikes: {every: 1h, for: 30s, height: 60Mi}}}]",
        ),
    );
    bench.step(Input::Rules(&before));
    bench.edit(|object| object["spec"] = limited("200Mi"));
    bench.pass(4000.0);
    assert_eq!(bench.summary(), "Running Ready/0", "{:?}", bench.told());
}
