//! Another process takes a pod over, knowing only what the API shows.

use super::*;

#[test]
fn another_process_goes_on_where_the_first_stopped() {
    let lasting = json!({"readinessProbe": {"periodSeconds": 5}});
    for (rule_list, seconds) in [
        (SLOW, 1.0),
        (SLOW, 3.5),
        (SLOW, 20.0),
        ("[{crash: {after: 1s}}]", 1.5),
        ("[{crash: {after: 1s}}]", 14.0),
        ("[{pullError: gone}]", 4.0),
        ("[{ready: never}]", 30.0),
    ] {
        let mut bench = Bench::new(rule_list, one(lasting.clone()));
        bench.pass(seconds);
        let before = bench.object["status"].clone();
        let summary = bench.summary();
        bench.changed = false;
        bench.restart();
        if rule_list != "[{pullError: gone}]" {
            assert_eq!(bench.summary(), summary, "{rule_list} after {seconds}");
        }
        let (old, new) = (
            &before["containerStatuses"][0],
            &bench.object["status"]["containerStatuses"][0],
        );
        assert_eq!(old["containerID"], new["containerID"]);
        assert_eq!(old["restartCount"], new["restartCount"]);
        assert_eq!(before["startTime"], bench.object["status"]["startTime"]);
        bench.pass(300.0);
        if rule_list == SLOW {
            assert_eq!(bench.summary(), "Running Ready/0");
        } else if rule_list.contains("crash") {
            assert!(
                bench.summary().starts_with("Running CrashLoopBackOff/"),
                "{}",
                bench.summary()
            );
        }
    }
}

#[test]
fn a_ready_pod_taken_over_is_not_written_again() {
    let mut bench = Bench::new(SLOW, one(json!({"readinessProbe": {"periodSeconds": 5}})));
    bench.pass(20.0);
    assert!(bench.ready());
    bench.restart();
    bench.pass(20.0);
    assert!(!bench.changed, "nothing to report");
}

#[test]
fn an_image_changed_while_nobody_looked_is_seen() {
    let mut bench = Bench::new(SLOW, one(json!({})));
    bench.pass(20.0);
    bench.object["spec"]["containers"][0]["image"] = json!("shop/cart:2");
    bench.restart();
    assert!(!bench.ready());
    bench.pass(20.0);
    assert_eq!(bench.summary(), "Running Ready/1");
}
