//! A Job's life, without an API server: the planner and the counting against pods whose fate the
//! test decides.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rstest::rstest;
use rustc_hash::FxHashSet;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::plan::{self, Action, Plan, World, index_of};
use super::pods;
use super::tracking::{self, Done, Told};
use crate::model::batch::Job;
use crate::model::pod::{INDEX_FAILURES, Phase, TRACKING};
use crate::model::{Labels, Pod};

/// Where the controller dies in a sync, and is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    Never,
    BeforeStatus,
    BeforeRelease,
    HalfReleased,
    BeforeSettle,
}

struct Bench {
    job: Job,
    pods: Vec<Arc<Pod>>,
    now: Timestamp,
    backoff: Backoff,
    made: usize,
    told: Vec<Told>,
}

impl Bench {
    fn new(spec: Value) -> Self {
        let mut whole = json!({"parallelism": 1, "completionMode": "NonIndexed", "backoffLimit": 6,
            "podReplacementPolicy": "TerminatingOrFailed",
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let job = json!({"metadata": {"name": "j", "namespace": "n", "uid": "j"}, "spec": whole});
        Bench {
            job: serde_json::from_value(job).unwrap(),
            pods: Vec::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            backoff: Backoff::default(),
            made: 0,
            told: Vec::new(),
        }
    }

    fn sync(&mut self) -> Plan {
        self.sync_until(Crash::Never)
    }

    fn sync_until(&mut self, crash: Crash) -> Plan {
        let released = FxHashSet::default();
        let (job, before) = (self.job.clone(), self.pods.clone());
        let world = World {
            job: &job,
            pods: &before,
            released: &released,
            settled: true,
            backoff: &self.backoff.clone(),
            first_wait: super::backoff::FIRST,
            now: self.now,
        };
        let plan = plan::plan(&world);
        let mut done = Done::default();
        match &plan.action {
            Action::None => {}
            Action::Create(new) => {
                let base = pods::base(&job);
                for one in new {
                    let mut pod = pods::one(&job, &base, one);
                    self.made += 1;
                    let name = format!("p{}", self.made);
                    pod["metadata"]["name"] = name.clone().into();
                    pod["metadata"]["uid"] = name.into();
                    pod["metadata"]["creationTimestamp"] = self.now.to_string().into();
                    pod["status"] = json!({"phase": "Pending"});
                    self.pods
                        .push(Arc::new(serde_json::from_value(pod).unwrap()));
                    done.created += 1;
                }
            }
            Action::End(gone) | Action::Remove(gone) => {
                for pod in gone {
                    done.deleted += 1;
                    done.deleted_ready += i32::from(pod.ready);
                    let now = self.now;
                    self.change(&pod.meta.name, |p| p.meta.deleted = Some(now));
                    if matches!(plan.action, Action::Remove(_)) {
                        self.release(&pod.meta.name);
                    }
                }
            }
        }
        if crash == Crash::BeforeStatus {
            self.backoff = Backoff::default();
            return plan;
        }
        let tracking = tracking::track(&world, &plan, done);
        self.job.status = tracking.status.clone();
        self.backoff = plan.backoff.clone();
        self.told.extend(tracking.told.clone());
        let count = match crash {
            Crash::BeforeRelease => 0,
            Crash::HalfReleased => tracking.release.len() / 2,
            _ => tracking.release.len(),
        };
        let mut uids = Vec::new();
        for pod in tracking.release.iter().take(count) {
            self.release(&pod.meta.name);
            uids.push(pod.meta.uid.clone());
        }
        if crash != Crash::Never {
            self.backoff = Backoff::default();
            return plan;
        }
        let (status, told) = tracking::settle(&job, &tracking, &uids, true, self.now);
        self.job.status = status;
        self.told.extend(told);
        plan
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        let pod = self
            .pods
            .iter_mut()
            .find(|p| *p.meta.name == *name)
            .unwrap();
        change(Arc::make_mut(pod));
    }

    fn release(&mut self, name: &str) {
        self.change(name, |pod| {
            pod.meta.finalizers.retain(|f| **f != *TRACKING);
            pod.tracked = None;
        });
    }

    fn end(&mut self, name: &str, code: i32) {
        let now = self.now;
        self.change(name, |pod| {
            pod.phase = if code == 0 {
                Phase::Succeeded
            } else {
                Phase::Failed
            };
            pod.ready = false;
            if let Some(tracked) = &mut pod.tracked {
                tracked.exits = [("c".into(), code)].into();
                tracked.finished = Some(now);
            }
        });
    }

    /// Terminating pods end: those without a finalizer are gone.
    fn kubelet(&mut self) {
        let names: Vec<_> = self
            .pods
            .iter()
            .filter(|p| p.terminating() && !p.finished())
            .map(|p| p.meta.name.clone())
            .collect();
        for name in names {
            self.end(&name, 143);
        }
        self.pods
            .retain(|p| !p.terminating() || p.meta.has_finalizer(TRACKING));
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn active(&self) -> Vec<String> {
        let active = self.pods.iter().filter(|p| p.active());
        active
            .map(|p| match index_of(p) {
                Some(index) => format!("{}={index}", p.meta.name),
                None => p.meta.name.to_string(),
            })
            .collect()
    }

    /// Conditions that hold, in order.
    fn conditions(&self) -> Vec<String> {
        let all = self.job.status.conditions.iter();
        all.filter(|c| c.status == "True")
            .map(|c| format!("{} {}", c.kind, c.reason))
            .collect()
    }

    fn counts(&self) -> (i32, i32, i32) {
        let status = &self.job.status;
        (status.active, status.succeeded, status.failed)
    }

    fn indexes(&self) -> (&str, Option<&str>) {
        let status = &self.job.status;
        (&status.completed_indexes, status.failed_indexes.as_deref())
    }
}

#[test]
fn as_many_run_as_are_missing_until_all_have_succeeded() {
    let mut bench = Bench::new(json!({"completions": 3, "parallelism": 2}));
    bench.sync();
    assert_eq!(bench.active(), ["p1", "p2"]);
    assert_eq!(bench.counts(), (2, 0, 0));
    assert_eq!(bench.job.status.start_time, Some(bench.now));
    bench.change("p1", |p| p.ready = true);
    bench.sync();
    assert_eq!(bench.job.status.ready, Some(1));
    bench.end("p1", 0);
    bench.sync();
    assert_eq!(bench.active(), ["p2", "p3"]);
    assert_eq!(bench.counts(), (2, 1, 0));
    assert!(
        bench.pods[0].meta.finalizers.is_empty(),
        "counted, so freed"
    );
    bench.end("p2", 0);
    bench.end("p3", 0);
    bench.pass(5);
    bench.sync();
    assert_eq!(bench.counts(), (0, 3, 0));
    let reached = [
        "SuccessCriteriaMet CompletionsReached",
        "Complete CompletionsReached",
    ];
    assert_eq!(bench.conditions(), reached);
    assert_eq!(bench.job.status.completion_time, Some(bench.now));
    let told: Vec<&str> = bench.told.iter().map(|t| &*t.message).collect();
    assert_eq!(told, ["Job completed"]);
}

#[test]
fn a_work_queue_ends_with_the_first_success_and_the_last_pod() {
    let mut bench = Bench::new(json!({"parallelism": 3}));
    bench.sync();
    bench.end("p2", 0);
    bench.sync();
    assert_eq!(bench.active(), ["p1", "p3"], "none is started again");
    assert_eq!(bench.conditions(), [""; 0]);
    bench.end("p1", 0);
    bench.end("p3", 1);
    bench.sync();
    assert_eq!(bench.counts(), (0, 2, 1));
    assert_eq!(
        bench.conditions().last().unwrap(),
        "Complete CompletionsReached"
    );
}

#[test]
fn failures_wait_longer_and_longer_and_end_the_job_at_the_limit() {
    let mut bench = Bench::new(json!({"completions": 2, "parallelism": 2, "backoffLimit": 1}));
    bench.sync();
    bench.end("p1", 1);
    let plan = bench.sync();
    assert_eq!(bench.active(), ["p2"]);
    assert_eq!(plan.after.unwrap().as_secs(), 10);
    bench.pass(10);
    bench.sync();
    assert_eq!(bench.active(), ["p2", "p3"]);
    bench.change("p2", |p| p.ready = true);
    bench.end("p3", 1);
    bench.sync();
    assert_eq!(bench.conditions(), ["FailureTarget BackoffLimitExceeded"]);
    let status = &bench.job.status;
    assert_eq!(
        (status.active, status.terminating, status.ready),
        (0, Some(1), Some(0))
    );
    bench.kubelet();
    bench.sync();
    assert_eq!(
        bench.counts(),
        (0, 0, 3),
        "the pod that was told to go counts as failed"
    );
    assert_eq!(
        bench.conditions().last().unwrap(),
        "Failed BackoffLimitExceeded"
    );
    assert_eq!(
        bench.told.last().unwrap().message,
        "Job has reached the specified backoff limit"
    );
    assert!(bench.job.status.completion_time.is_none());
}

#[test]
fn an_index_is_tried_again_until_it_succeeds() {
    let mut bench =
        Bench::new(json!({"completions": 4, "parallelism": 3, "completionMode": "Indexed"}));
    bench.sync();
    assert_eq!(bench.active(), ["p1=0", "p2=1", "p3=2"]);
    bench.end("p1", 0);
    bench.end("p2", 1);
    bench.end("p3", 0);
    bench.sync();
    assert_eq!(bench.indexes(), ("0,2", None));
    bench.pass(11);
    bench.sync();
    assert_eq!(bench.active(), ["p4=1", "p5=3"]);
    bench.end("p4", 0);
    bench.end("p5", 0);
    bench.sync();
    assert_eq!(bench.indexes(), ("0-3", None));
    assert_eq!(bench.counts(), (0, 4, 1));
    assert_eq!(
        bench.conditions().last().unwrap(),
        "Complete CompletionsReached"
    );
}

#[test]
fn each_index_has_its_own_limit() {
    let mut bench = Bench::new(
        json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed",
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1}),
    );
    bench.sync();
    bench.end("p1", 1);
    bench.end("p2", 0);
    bench.sync();
    assert_eq!(bench.indexes(), ("1", Some("")));
    assert!(
        bench.pods[0].meta.has_finalizer(TRACKING),
        "kept for its count of failures"
    );
    assert_eq!(bench.counts(), (0, 1, 0));
    bench.pass(10);
    bench.sync();
    assert_eq!(bench.active(), ["p3=0"]);
    assert_eq!(
        bench.pods[2].meta.annotations.get(INDEX_FAILURES),
        Some("1")
    );
    bench.sync();
    assert!(
        !bench.pods[0].meta.has_finalizer(TRACKING),
        "its replacement knows"
    );
    bench.end("p3", 1);
    bench.sync();
    assert_eq!(bench.indexes(), ("1", Some("0")));
    assert_eq!(bench.counts(), (0, 1, 2));
    assert_eq!(
        bench.conditions(),
        ["FailureTarget FailedIndexes", "Failed FailedIndexes"]
    );
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let mut bench = Bench::new(
        json!({"completions": 9, "parallelism": 4, "completionMode": "Indexed",
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1}),
    );
    bench.sync();
    bench.end("p1", 1);
    bench.sync();
    assert_eq!(bench.indexes(), ("", Some("0")));
    assert_eq!(
        bench.active(),
        ["p2=1", "p3=2", "p4=3", "p5=4"],
        "the next index takes its place"
    );
    bench.end("p3", 1);
    bench.sync();
    bench.kubelet();
    bench.sync();
    assert_eq!(bench.indexes(), ("", Some("0,2")));
    assert_eq!(
        bench.conditions().last().unwrap(),
        "Failed MaxFailedIndexesExceeded"
    );
}

#[test]
fn enough_success_ends_the_job_and_counts_no_failures() {
    let mut bench = Bench::new(
        json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "1"}]}}),
    );
    bench.sync();
    bench.end("p2", 0);
    bench.sync();
    assert_eq!(bench.conditions(), ["SuccessCriteriaMet SuccessPolicy"]);
    assert_eq!(bench.job.status.terminating, Some(2));
    bench.kubelet();
    bench.sync();
    assert_eq!(bench.counts(), (0, 1, 0));
    assert_eq!(bench.conditions().last().unwrap(), "Complete SuccessPolicy");
    assert_eq!(
        bench.job.status.conditions[1].message,
        "Matched rules at index 0"
    );
}

#[rstest]
#[case::fails_the_job("FailJob", &["FailureTarget PodFailurePolicy", "Failed PodFailurePolicy"], 1)]
#[case::does_not_count("Ignore", &[], 0)]
#[case::counts("Count", &["FailureTarget BackoffLimitExceeded", "Failed BackoffLimitExceeded"], 1)]
fn a_failure_policy_decides(
    #[case] action: &str,
    #[case] conditions: &[&str],
    #[case] failed: i32,
) {
    let mut bench = Bench::new(
        json!({"completions": 1, "backoffLimit": 0, "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]}}),
    );
    bench.sync();
    bench.end("p1", 42);
    bench.sync();
    assert_eq!(bench.conditions(), conditions);
    assert_eq!(bench.job.status.failed, failed);
    bench.pass(11);
    bench.sync();
    assert_eq!(bench.active().is_empty(), !conditions.is_empty());
}

#[test]
fn an_index_that_fails_by_policy_is_not_tried_again() {
    let mut bench = Bench::new(
        json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed",
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 5,
        "podFailurePolicy": {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]}}),
    );
    bench.sync();
    bench.end("p1", 42);
    bench.end("p2", 0);
    bench.sync();
    assert_eq!(bench.indexes(), ("1", Some("0")));
    assert_eq!(bench.conditions().last().unwrap(), "Failed FailedIndexes");
}

#[rstest]
#[case("TerminatingOrFailed", &["p2"], 1)]
#[case("Failed", &[], 0)]
fn pods_that_go_are_replaced_by_policy(
    #[case] policy: &str,
    #[case] active: &[&str],
    #[case] failed: i32,
) {
    let mut bench = Bench::new(json!({"completions": 1, "podReplacementPolicy": policy}));
    bench.sync();
    // Long ago: what back-off there is has passed.
    let then = bench.now;
    bench.change("p1", |pod| {
        pod.meta.deleted = Some(then);
        if let Some(tracked) = &mut pod.tracked {
            tracked.finished = Some(then);
        }
    });
    bench.pass(60);
    bench.sync();
    assert_eq!(bench.active(), active);
    assert_eq!(bench.job.status.terminating, Some(1));
    assert_eq!(bench.job.status.failed, failed);
    bench.kubelet();
    bench.sync();
    bench.pass(60);
    bench.sync();
    assert_eq!(bench.active(), ["p2"]);
    assert_eq!(bench.counts(), (1, 0, 1));
}

#[test]
fn suspended_no_pod_runs_and_none_counts() {
    let mut bench = Bench::new(
        json!({"completions": 2, "parallelism": 2, "suspend": true, "activeDeadlineSeconds": 30}),
    );
    bench.sync();
    assert_eq!(
        (bench.active().len(), bench.job.status.start_time),
        (0, None)
    );
    assert_eq!(bench.conditions(), ["Suspended JobSuspended"]);
    bench.pass(100);
    bench.job.spec.suspend = false;
    bench.sync();
    assert_eq!(bench.active(), ["p1", "p2"]);
    assert_eq!(bench.job.status.start_time, Some(bench.now));
    assert_eq!(bench.job.status.conditions[0].reason, "JobResumed");
    bench.pass(20);
    bench.job.spec.suspend = true;
    bench.sync();
    bench.kubelet();
    bench.sync();
    assert_eq!((bench.active().len(), bench.counts()), (0, (0, 0, 0)));
    bench.pass(20);
    bench.job.spec.suspend = false;
    let plan = bench.sync();
    assert_eq!(
        bench.job.status.start_time,
        Some(bench.now),
        "the deadline starts anew"
    );
    assert_eq!(plan.action, bench_creates(2));
    let told: Vec<&str> = bench.told.iter().map(|t| &*t.reason).collect();
    assert_eq!(told, ["Suspended", "Resumed", "Suspended", "Resumed"]);
}

fn bench_creates(n: usize) -> Action {
    Action::Create(vec![plan::NewPod::default(); n])
}

#[test]
fn a_job_ends_at_its_deadline() {
    let mut bench = Bench::new(json!({"completions": 1, "activeDeadlineSeconds": 30}));
    assert_eq!(bench.sync().after.unwrap().as_secs(), 30);
    bench.pass(29);
    assert_eq!(bench.sync().after.unwrap().as_secs(), 1);
    bench.pass(1);
    bench.sync();
    bench.kubelet();
    bench.sync();
    assert_eq!(
        bench.conditions(),
        ["FailureTarget DeadlineExceeded", "Failed DeadlineExceeded"]
    );
}

#[rstest]
#[case(0, 0, false)]
#[case(0, 1, true)]
#[case(3, 2, false)]
#[case(3, 3, true)]
fn restarts_in_place_count_as_failures(
    #[case] limit: i32,
    #[case] restarts: i32,
    #[case] over: bool,
) {
    let mut bench = Bench::new(json!({"completions": 1, "backoffLimit": limit,
        "template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c"}]}}}));
    bench.sync();
    bench.change("p1", |pod| {
        if let Some(tracked) = &mut pod.tracked {
            tracked.restarts = restarts;
        }
    });
    bench.sync();
    assert_eq!(!bench.conditions().is_empty(), over);
}

#[test]
fn fewer_run_when_fewer_may() {
    let mut bench = Bench::new(json!({"completions": 9, "parallelism": 3}));
    bench.sync();
    bench.change("p2", |p| p.node = Some("somewhere".into()));
    bench.job.spec.parallelism = Some(1);
    bench.sync();
    bench.kubelet();
    bench.sync();
    assert_eq!(
        bench.active(),
        ["p2"],
        "the one that has got furthest stays"
    );
    assert_eq!(bench.counts(), (1, 0, 0), "the others do not count");
}

#[test]
fn of_indexes_too_the_one_that_has_got_furthest_stays() {
    let mut bench =
        Bench::new(json!({"completions": 9, "parallelism": 3, "completionMode": "Indexed"}));
    bench.sync();
    bench.change("p1", |p| p.node = Some("somewhere".into()));
    bench.job.spec.parallelism = Some(1);
    bench.sync();
    assert_eq!(bench.active(), ["p1=0"]);
}

#[test]
fn one_pod_an_index_and_none_beyond() {
    let mut bench =
        Bench::new(json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}));
    bench.sync();
    bench.change("p2", |p| {
        p.meta.annotations = [(crate::model::pod::COMPLETION_INDEX, "0")]
            .into_iter()
            .collect();
        p.node = Some("somewhere".into());
    });
    bench.change("p3", |p| p.meta.annotations = Labels::default());
    bench.sync();
    assert_eq!(bench.active(), ["p2=0"]);
    bench.kubelet();
    bench.sync();
    assert_eq!(bench.active(), ["p2=0", "p4=1", "p5=2"]);
}

#[test]
fn a_job_that_is_being_deleted_frees_its_pods() {
    let mut bench = Bench::new(json!({"completions": 2, "parallelism": 2}));
    bench.sync();
    bench.job.metadata.deleted = Some(bench.now);
    bench.end("p1", 0);
    let plan = bench.sync();
    assert_eq!(plan.action, Action::None);
    assert!(bench.pods.iter().all(|p| !p.meta.has_finalizer(TRACKING)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens to pods and wherever the controller dies, each pod counts once.
    #[test]
    fn each_pod_counts_once(
        indexed in any::<bool>(),
        completions in 1i32..5,
        parallelism in 1i32..4,
        steps in prop::collection::vec((0usize..4, -1i32..3, 0usize..8), 1..25),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut bench = Bench::new(json!({"completions": completions, "parallelism": parallelism,
            "completionMode": mode, "backoffLimit": 1000}));
        let mut failures = 0;
        for (victim, code, crash) in steps {
            let names: Vec<_> = bench.pods.iter().filter(|p| p.active()).map(|p| p.meta.name.clone()).collect();
            if let Some(name) = names.get(victim) && code >= 0 {
                bench.end(name, code);
                failures += i32::from(code > 0);
            }
            bench.pass(700);
            bench.sync_until(match crash {
                0 => Crash::BeforeStatus,
                1 => Crash::BeforeRelease,
                2 => Crash::HalfReleased,
                3 => Crash::BeforeSettle,
                _ => Crash::Never,
            });
        }
        for _ in 0..50 {
            if bench.job.finished().is_some() {
                break;
            }
            let names: Vec<_> = bench.pods.iter().filter(|p| p.active()).map(|p| p.meta.name.clone()).collect();
            for name in names {
                bench.end(&name, 0);
            }
            bench.pass(700);
            bench.sync();
        }
        prop_assert_eq!(bench.counts(), (0, completions, failures));
        prop_assert!(bench.job.finished().is_some_and(|c| c.kind == "Complete"));
        prop_assert!(bench.pods.iter().all(|p| !p.meta.has_finalizer(TRACKING)));
    }
}
