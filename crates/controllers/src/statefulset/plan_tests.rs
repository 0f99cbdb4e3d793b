//! Tables of cases, and a simulation of pods that fail at random.

use super::*;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// `name:revision:state`, the state being `r`eady, `u`nready, `p`ending, `t`erminating, `f`ailed.
fn pod(text: &str) -> Arc<Pod> {
    let parts: Vec<&str> = text.split(':').collect();
    let (name, revision, state) = (parts[0], parts[1], parts[2]);
    let (phase, ready) = match state {
        "r" | "t" => ("Running", "True"),
        "u" => ("Running", "False"),
        "p" => ("Pending", "False"),
        "f" => ("Failed", "False"),
        other => panic!("{other}"),
    };
    let mut value = json!({
        "metadata": {"name": name, "uid": name, "labels": {
            POD_NAME: name, POD_INDEX: "0", REVISION: revision}},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready,
            "lastTransitionTime": "2020-01-01T00:00:00Z"}]},
    });
    if state == "t" {
        value["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    }
    Arc::new(serde_json::from_value(value).unwrap())
}

fn set(spec: serde_json::Value) -> StatefulSet {
    let mut value = json!({"metadata": {"name": "w", "generation": 3}, "spec": spec});
    if value["spec"]["updateStrategy"].is_null() {
        value["spec"]["updateStrategy"] =
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
    }
    serde_json::from_value(value).unwrap()
}

fn run(set: &StatefulSet, pods: &[Arc<Pod>]) -> Plan {
    plan(&World {
        set,
        pods,
        current: "a",
        update: "b",
        now: now(),
    })
}

/// `+0a` creates ordinal 0 on revision a, `-w-1` deletes pod w-1.
fn actions(plan: &Plan) -> String {
    let creates = plan.create.iter().map(|c| {
        let revision = if c.revision == On::Current { 'a' } else { 'b' };
        format!("+{}{revision}", c.ordinal)
    });
    let deletes = plan.delete.iter().map(|p| format!("-{}", p.meta.name));
    creates.chain(deletes).collect::<Vec<_>>().join(" ")
}

fn partition(n: i32) -> serde_json::Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"partition": n}})
}

#[rstest]
#[case::first(json!({"replicas": 3}), "", "+0b")]
#[case::first_parallel(json!({"replicas": 3, "podManagementPolicy": "Parallel"}), "", "+0b +1b +2b")]
#[case::waits_for_ready(json!({"replicas": 3}), "w-0:b:u", "")]
#[case::waits_for_pending(json!({"replicas": 3}), "w-0:b:p", "")]
#[case::next(json!({"replicas": 3}), "w-0:b:r", "+1b")]
#[case::start_ordinal(json!({"replicas": 2, "ordinals": {"start": 5}}), "w-5:b:r", "+6b")]
#[case::below_start_is_condemned(json!({"replicas": 1, "ordinals": {"start": 5}}), "w-5:b:r w-0:b:r", "-w-0")]
#[case::failed_is_replaced(json!({"replicas": 1}), "w-0:b:f", "-w-0")]
#[case::terminating_blocks(json!({"replicas": 2}), "w-0:b:t", "")]
#[case::terminating_does_not_block_parallel(json!({"replicas": 2, "podManagementPolicy": "Parallel"}), "w-0:b:t", "+1b")]
#[case::scale_down_highest_first(json!({"replicas": 1}), "w-0:b:r w-1:b:r w-2:b:r", "-w-2")]
#[case::scale_down_parallel(json!({"replicas": 1, "podManagementPolicy": "Parallel"}), "w-0:b:r w-1:b:r w-2:b:r", "-w-2 -w-1")]
#[case::failed_does_not_block_parallel(json!({"replicas": 1, "podManagementPolicy": "Parallel"}), "w-0:b:f w-1:b:r", "-w-0 -w-1")]
#[case::failed_is_deleted_once(json!({"replicas": 2, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}}), "w-0:a:r w-1:a:f", "-w-1 -w-0")]
#[case::scale_down_waits(json!({"replicas": 1}), "w-0:b:r w-1:b:r w-2:b:t", "")]
#[case::scale_down_takes_an_unhealthy_one(json!({"replicas": 1}), "w-0:b:r w-1:b:u", "-w-1")]
#[case::scale_down_waits_for_unhealthy_below(json!({"replicas": 0}), "w-0:b:u w-1:b:u", "")]
#[case::update_highest_first(json!({"replicas": 3}), "w-0:a:r w-1:a:r w-2:a:r", "-w-2")]
#[case::update_waits_for_updated(json!({"replicas": 3, "podManagementPolicy": "Parallel"}), "w-0:a:r w-1:a:r w-2:b:u", "")]
#[case::update_goes_on(json!({"replicas": 3}), "w-0:a:r w-1:a:r w-2:b:r", "-w-1")]
#[case::partition_stops(json!({"replicas": 3, "updateStrategy": partition(2)}), "w-0:a:r w-1:a:r w-2:b:r", "")]
#[case::partition_all(json!({"replicas": 3, "updateStrategy": partition(3)}), "w-0:a:r w-1:a:r w-2:a:r", "")]
#[case::below_partition_comes_back_old(json!({"replicas": 3, "updateStrategy": partition(2)}), "w-0:a:r w-2:b:r", "+1a")]
#[case::above_partition_comes_back_new(json!({"replicas": 3, "updateStrategy": partition(2)}), "w-0:a:r w-1:a:r", "+2b")]
#[case::in_place_update_counts(json!({"replicas": 3, "updateStrategy": partition(0)}), "w-0:b:r w-1:b:r w-2:b:r", "")]
#[case::in_place_below_partition_stays(json!({"replicas": 3, "updateStrategy": partition(3)}), "w-0:b:r w-1:a:r w-2:a:r", "")]
#[case::on_delete_waits(json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}}), "w-0:a:r w-1:a:r", "")]
#[case::on_delete_comes_back_new(json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}}), "w-0:a:r", "+1b")]
#[case::max_unavailable(json!({"replicas": 4, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1, "maxUnavailable": 2}}}), "w-0:a:r w-1:a:r w-2:a:r w-3:a:r", "-w-3 -w-2")]
#[case::max_unavailable_is_rounded_down(json!({"replicas": 5, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}}), "w-0:a:r w-1:a:r w-2:a:r w-3:a:r w-4:a:r", "-w-4 -w-3")]
#[case::max_unavailable_is_at_least_one(json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}}), "w-0:a:r w-1:a:r w-2:a:r", "-w-2")]
#[case::max_unavailable_counts_the_down(json!({"replicas": 4, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}}), "w-0:a:r w-1:a:r w-2:a:r w-3:b:u", "-w-2")]
#[case::broken_old_pods_are_free(json!({"replicas": 3, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}}), "w-0:a:u w-1:a:u w-2:a:r", "-w-1 -w-0")]
#[case::strangers_are_left_alone(json!({"replicas": 1}), "w-0:b:r w-x:a:r v-1:a:r", "")]
fn decides(#[case] spec: serde_json::Value, #[case] pods: &str, #[case] expected: &str) {
    let pods: Vec<_> = pods.split_whitespace().map(pod).collect();
    assert_eq!(actions(&run(&set(spec), &pods)), expected);
}

#[test]
fn status_counts_as_kubernetes_does() {
    let set = set(json!({"replicas": 3, "updateStrategy": partition(2)}));
    let pods: Vec<_> = ["w-0:a:r", "w-1:a:u", "w-2:b:r"].map(pod).into();
    let status = run(&set, &pods).status;
    assert_eq!(
        status,
        StatefulSetStatus {
            observed_generation: 3,
            replicas: 3,
            ready_replicas: 2,
            current_replicas: 2,
            updated_replicas: 1,
            available_replicas: 2,
            current_revision: "a".into(),
            update_revision: "b".into(),
            collision_count: None,
        }
    );
}

#[test]
fn the_current_revision_advances_when_all_are_updated_and_ready() {
    let set = set(json!({"replicas": 2, "updateStrategy": partition(1)}));
    let all: Vec<_> = ["w-0:b:r", "w-1:b:r"].map(pod).into();
    let status = run(&set, &all).status;
    assert_eq!(
        (status.current_revision.as_str(), status.current_replicas),
        ("b", 2)
    );
    let unready: Vec<_> = ["w-0:b:r", "w-1:b:u"].map(pod).into();
    assert_eq!(run(&set, &unready).status.current_revision, "a");
}

#[test]
fn min_ready_seconds_holds_back_the_next_pod_and_asks_to_look_again() {
    let mut young = (*pod("w-0:b:r")).clone();
    young.ready_since = Timestamp::from_second(NOW - 4).ok();
    let plan = run(
        &set(json!({"replicas": 2, "minReadySeconds": 10})),
        &[Arc::new(young)],
    );
    assert_eq!(actions(&plan), "");
    assert_eq!(plan.after, Some(Duration::from_secs(6)));
    assert_eq!(
        (plan.status.ready_replicas, plan.status.available_replicas),
        (1, 0)
    );
}

#[rstest]
#[case("web", "web-3", Some(3))]
#[case("web", "web-", None)]
#[case("web", "web-3x", None)]
#[case("web", "web-a-3", None)]
#[case("web-a", "web-a-12", Some(12))]
#[case("web", "web-99999999999", None)]
fn ordinals(#[case] set: &str, #[case] pod: &str, #[case] expected: Option<i32>) {
    assert_eq!(ordinal(set, pod), expected);
}

/// What befalls a pod between two syncs.
#[derive(Debug, Clone)]
enum Fate {
    Progress,
    Fail(usize),
    Vanish(usize),
    Unready(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Progress),
        1 => (0usize..8).prop_map(Fate::Fail),
        1 => (0usize..8).prop_map(Fate::Vanish),
        1 => (0usize..8).prop_map(Fate::Unready),
    ]
}

/// The cluster around the planner: kubelets that start and stop pods.
struct Cluster {
    pods: Vec<Arc<Pod>>,
    current: String,
    born: u64,
}

impl Cluster {
    fn sync(&mut self, set: &StatefulSet) -> Plan {
        let plan = plan(&World {
            set,
            pods: &self.pods,
            current: &self.current,
            update: "b",
            now: now(),
        });
        for create in &plan.create {
            let name = format!("w-{}", create.ordinal);
            assert!(
                !self.pods.iter().any(|p| *p.meta.name == *name),
                "{name} twice"
            );
            let revision = match create.revision {
                On::Current => self.current.clone(),
                On::Update => "b".into(),
            };
            let mut new = (*pod(&format!("{name}:{revision}:p"))).clone();
            self.born += 1;
            new.meta.uid = format!("{}", self.born).into();
            self.pods.push(Arc::new(new));
        }
        for doomed in &plan.delete {
            self.change(&doomed.meta.uid, |p| p.meta.deleted = Some(now()));
        }
        self.current.clone_from(&plan.status.current_revision);
        plan
    }

    fn change(&mut self, uid: &str, change: impl FnOnce(&mut Pod)) {
        if let Some(pod) = self.pods.iter_mut().find(|p| *p.meta.uid == *uid) {
            change(Arc::make_mut(pod));
        }
    }

    fn suffer(&mut self, fate: &Fate) {
        let count = self.pods.len().max(1);
        let at = |n: &usize| self.pods.get(n % count).map(|p| p.meta.uid.clone());
        match fate {
            Fate::Progress => {
                self.pods.retain(|p| !p.terminating());
                for pod in &mut self.pods {
                    let pod = Arc::make_mut(pod);
                    if pod.phase == Phase::Pending {
                        pod.phase = Phase::Running;
                    } else if pod.phase == Phase::Running {
                        pod.ready = true;
                    }
                }
            }
            Fate::Fail(n) => {
                if let Some(uid) = at(n) {
                    self.change(&uid, |p| {
                        p.phase = Phase::Failed;
                        p.ready = false;
                    });
                }
            }
            Fate::Vanish(n) => {
                if let Some(uid) = at(n) {
                    self.pods.retain(|p| p.meta.uid != uid);
                }
            }
            Fate::Unready(n) => {
                if let Some(uid) = at(n) {
                    self.change(&uid, |p| p.ready = false);
                }
            }
        }
    }
}

proptest! {
    /// Whatever happens to pods, healthy pods below the partition are never deleted, what comes
    /// back below it comes back old, OrderedReady acts on one pod at a time, and once the failures
    /// end the set converges.
    #[test]
    fn a_set_converges_under_failures(
        replicas in 0i32..6,
        before in 0i32..8,
        partition_at in 0i32..7,
        parallel: bool,
        max_unavailable in prop::option::of(1i32..4),
        fates in prop::collection::vec(fate(), 0..30),
    ) {
        let mut rolling = json!({"partition": partition_at});
        if let Some(n) = max_unavailable {
            rolling["maxUnavailable"] = n.into();
        }
        let set = set(json!({
            "replicas": replicas,
            "podManagementPolicy": if parallel { "Parallel" } else { "OrderedReady" },
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        }));
        let mut cluster = Cluster {
            pods: (0..before).map(|n| pod(&format!("w-{n}:a:r"))).collect(),
            current: "a".into(),
            born: 0,
        };
        let mut quiet = 0;
        for fate in fates.iter().chain(std::iter::repeat_n(&Fate::Progress, 100)) {
            let seen = cluster.pods.clone();
            let current = cluster.current.clone();
            let plan = cluster.sync(&set);
            if !parallel && max_unavailable.is_none() {
                prop_assert!(plan.create.len() + plan.delete.len() <= 1, "{plan:?}");
            }
            for doomed in &plan.delete {
                let n = ordinal("w", &doomed.meta.name).unwrap();
                let before = seen.iter().find(|p| p.meta.uid == doomed.meta.uid).unwrap();
                prop_assert!(n >= partition_at.min(replicas) || before.finished(), "{n} below the partition");
            }
            for create in &plan.create {
                prop_assert_eq!(create.revision == On::Current, create.ordinal < partition_at, "current is {}", current);
            }
            let idle = plan.create.is_empty() && plan.delete.is_empty();
            quiet = if idle && seen.iter().all(|p| running_and_ready(p) && !p.terminating()) { quiet + 1 } else { 0 };
            cluster.suffer(fate);
        }
        prop_assert!(quiet > 2, "not at rest: {:?}", cluster.pods);
        let mut found: Vec<_> = cluster.pods.iter().map(|p| ordinal("w", &p.meta.name).unwrap()).collect();
        found.sort_unstable();
        prop_assert_eq!(found, (0..replicas).collect::<Vec<_>>());
        for pod in &cluster.pods {
            let n = ordinal("w", &pod.meta.name).unwrap();
            if n >= partition_at {
                prop_assert_eq!(revision(pod), "b");
            }
        }
    }
}
