//! `gantry bench`: a small cluster goes all the way, and nothing stays behind.

use serde_json::Value;

use crate::support::gantry;

#[test]
fn a_small_fleet_is_measured_and_cleaned_up() {
    let folder = tempfile::tempdir().unwrap();
    let out = gantry()
        .args([
            "bench",
            "fleet",
            "--nodes",
            "4",
            "--pods",
            "7",
            "--deployments",
            "2",
        ])
        .args(["--steady", "1", "--output", "json", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{error}");
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    for (pointer, expected) in [("/nodes", 4), ("/pods", 7)] {
        assert_eq!(report.pointer(pointer), Some(&expected.into()), "{report}");
    }
    for step in ["nodesReady", "podsRunning", "steady", "podsDeleted"] {
        let seconds = report[step]["seconds"].as_f64().unwrap();
        assert!(seconds > 0.0, "{step}: {report}");
    }
    let times = &report["createdToRunning"];
    let [p50, p99, max] = ["p50", "p99", "max"].map(|t| times[t].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{report}");
    assert_eq!(report["durable"], true);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0);
}
