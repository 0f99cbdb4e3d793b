//! CronJobs at times of the test's choice.

use std::sync::Arc;

use jiff::Timestamp;
use rstest::rstest;
use rustc_hash::FxHashSet;
use serde_json::{Value, json};

use super::plan::{Plan, World, plan};
use crate::model::batch::{CronJob, Job};

fn cron(spec: Value, status: Value) -> CronJob {
    let mut whole = json!({"schedule": "0 * * * *", "concurrencyPolicy": "Allow",
        "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "c", "uid": "c", "creationTimestamp": "2026-01-01T00:10:00Z"},
        "spec": whole, "status": status}))
    .unwrap()
}

fn job(name: &str, status: Value) -> Arc<Job> {
    let job = json!({"metadata": {"name": name, "uid": name}, "status": status});
    Arc::new(serde_json::from_value(job).unwrap())
}

fn ended(name: &str, kind: &str, start: &str) -> Arc<Job> {
    job(
        name,
        json!({"startTime": start, "completionTime": start,
            "conditions": [{"type": kind, "status": "True"}]}),
    )
}

fn run(cron: &CronJob, jobs: &[Arc<Job>], gone: &[&str], now: &str) -> Plan {
    let now: Timestamp = now.parse().unwrap();
    let gone: FxHashSet<String> = gone.iter().map(|u| (*u).to_owned()).collect();
    plan(&World {
        cron,
        jobs,
        gone: &gone,
        now,
    })
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.told.iter().map(|t| t.reason).collect()
}

/// The time in the name of a Job, for `c-…`.
fn at(time: &str) -> String {
    let time: Timestamp = time.parse().unwrap();
    format!("c-{}", time.as_second() / 60)
}

#[rstest]
#[case::not_yet(json!({}), json!({}), "2026-01-01T00:59:59Z", None, &[])]
#[case::due(json!({}), json!({}), "2026-01-01T01:00:00Z", Some("2026-01-01T01:00:00Z"), &[])]
#[case::late(json!({}), json!({}), "2026-01-01T01:59:00Z", Some("2026-01-01T01:00:00Z"), &[])]
#[case::started(json!({}), json!({"lastScheduleTime": "2026-01-01T01:00:00Z"}), "2026-01-01T01:30:00Z", None, &[])]
#[case::only_the_last_missed(json!({}), json!({"lastScheduleTime": "2026-01-01T01:00:00Z"}), "2026-01-01T09:30:00Z",
    Some("2026-01-01T09:00:00Z"), &[])]
#[case::many_missed(json!({}), json!({"lastScheduleTime": "2026-01-01T01:00:00Z"}), "2026-02-01T09:30:00Z",
    Some("2026-02-01T09:00:00Z"), &["TooManyMissedTimes"])]
#[case::many_but_not_since_the_deadline(json!({"startingDeadlineSeconds": 7200}), json!({"lastScheduleTime": "2026-01-01T01:00:00Z"}),
    "2026-02-01T09:30:00Z", Some("2026-02-01T09:00:00Z"), &[])]
#[case::before_the_deadline(json!({"startingDeadlineSeconds": 600}), json!({}), "2026-01-01T01:09:00Z",
    Some("2026-01-01T01:00:00Z"), &[])]
#[case::after_the_deadline(json!({"startingDeadlineSeconds": 600}), json!({}), "2026-01-01T01:11:00Z", None, &[])]
#[case::suspended(json!({"suspend": true}), json!({}), "2026-01-01T09:00:00Z", None, &[])]
#[case::unreadable(json!({"schedule": "often"}), json!({}), "2026-01-01T09:00:00Z", None, &["UnparseableSchedule"])]
#[case::no_such_zone(json!({"timeZone": "Mars/Base"}), json!({}), "2026-01-01T09:00:00Z", None, &["UnknownTimeZone"])]
#[case::never(json!({"schedule": "0 0 31 2 *"}), json!({}), "2026-01-01T09:00:00Z", None, &["InvalidSchedule"])]
#[case::irregular(json!({"schedule": "30 6-16/4 * * 1-5"}), json!({"lastScheduleTime": "2026-01-01T14:30:00Z"}),
    "2026-01-05T11:00:00Z", Some("2026-01-05T10:30:00Z"), &[])]
#[case::every(json!({"schedule": "@every 1h"}), json!({}), "2026-01-01T03:00:00Z", Some("2026-01-01T02:10:00Z"), &[])]
fn starts(
    #[case] spec: Value,
    #[case] status: Value,
    #[case] now: &str,
    #[case] due: Option<&str>,
    #[case] told: &[&str],
) {
    let plan = run(&cron(spec, status), &[], &[], now);
    assert_eq!(plan.start.as_ref().map(|s| s.name.clone()), due.map(at));
    assert_eq!(reasons(&plan), told);
}

#[test]
fn a_missed_deadline_is_told_when_the_time_is_still_in_sight() {
    // The deadline bounds how far back is looked, so only its last second can be too late.
    let cron = cron(json!({"startingDeadlineSeconds": 600}), json!({}));
    let plan = run(&cron, &[], &[], "2026-01-01T01:10:00.5Z");
    assert_eq!((plan.start, plan.told), (None, Vec::new()));
}

#[rstest]
#[case("2026-01-01T00:59:00Z", Some(60_100))]
#[case("2026-01-01T01:30:00Z", Some(1_800_100))]
fn looks_again_when_the_next_time_comes(#[case] now: &str, #[case] wait: Option<u128>) {
    let plan = run(&cron(json!({}), json!({})), &[], &[], now);
    assert_eq!(plan.after.map(|w| w.as_millis()), wait);
}

#[rstest]
#[case("Allow", true, &[], &["old"])]
#[case("Forbid", false, &[], &["old"])]
#[case("Replace", true, &["old"], &[])]
fn concurrency(
    #[case] policy: &str,
    #[case] starts: bool,
    #[case] replaced: &[&str],
    #[case] active: &[&str],
) {
    let status = json!({"active": [{"name": "old", "uid": "old"}]});
    let cron = cron(json!({"concurrencyPolicy": policy}), status);
    let plan = run(&cron, &[job("old", json!({}))], &[], "2026-01-01T01:00:00Z");
    let names = |all: &[crate::model::batch::Reference]| -> Vec<String> {
        all.iter().map(|r| r.name.clone()).collect()
    };
    assert_eq!(plan.start.is_some(), starts);
    assert_eq!(names(&plan.replace), replaced);
    assert_eq!(names(&plan.status.active), active);
    assert_eq!(reasons(&plan).contains(&"JobAlreadyActive"), !starts);
}

#[test]
fn jobs_that_end_leave_the_list_and_the_last_success_is_kept() {
    let status = json!({"active": [{"name": "good", "uid": "good"}, {"name": "lost", "uid": "lost"}, {"name": "runs", "uid": "runs"}],
        "lastSuccessfulTime": "2026-01-01T00:20:00Z", "lastScheduleTime": "2026-01-01T01:00:00Z"});
    let jobs = [
        ended("good", "Complete", "2026-01-01T00:30:00Z"),
        ended("older", "Complete", "2026-01-01T00:15:00Z"),
        ended("bad", "Failed", "2026-01-01T00:40:00Z"),
        job("runs", json!({})),
        job("stray", json!({})),
    ];
    let plan = run(
        &cron(json!({}), status),
        &jobs,
        &["lost"],
        "2026-01-01T01:20:00Z",
    );
    assert_eq!(plan.status.active.len(), 1);
    let good: Timestamp = "2026-01-01T00:30:00Z".parse().unwrap();
    assert_eq!(plan.status.last_successful_time, Some(good));
    assert_eq!(
        reasons(&plan),
        ["SawCompletedJob", "UnexpectedJob", "MissingJob"]
    );
    assert_eq!(
        plan.told[0].message,
        "Saw completed job: good, condition: Complete"
    );
}

#[test]
fn history_is_kept_up_to_its_limits() {
    let good = |n: u8| {
        ended(
            &format!("good-{n}"),
            "Complete",
            &format!("2026-01-01T00:0{n}:00Z"),
        )
    };
    let bad = |n: u8| {
        ended(
            &format!("bad-{n}"),
            "Failed",
            &format!("2026-01-01T00:0{n}:00Z"),
        )
    };
    let jobs = [
        good(5),
        good(1),
        good(4),
        good(2),
        bad(1),
        bad(2),
        job("runs", json!({})),
    ];
    let forgotten = |spec: Value| -> Vec<String> {
        run(&cron(spec, json!({})), &jobs, &[], "2026-01-01T00:30:00Z")
            .forget
            .iter()
            .map(|j| j.metadata.name.to_string())
            .collect()
    };
    assert_eq!(forgotten(json!({})), ["good-1", "bad-1"]);
    let none = json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0});
    assert_eq!(forgotten(none).len(), 6);
    let all = json!({"successfulJobsHistoryLimit": null, "failedJobsHistoryLimit": null});
    assert_eq!(forgotten(all), [""; 0]);
}
