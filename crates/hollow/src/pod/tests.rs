//! Tables of cases and random runs of the pod's state machine.

use super::*;
use crate::{
    behaviour::{Behaviours, Defaults, rules},
    object::{Amounts, PodObject},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const T0: i64 = 1_700_000_000_000;

/// A pod on a node of its own, with a clock.
struct Bench {
    pod: Pod,
    images: Images,
    host: Volumes,
    traffic: crate::image::Traffic,
    behaviours: Behaviours,
    now: Millis,
    object: Value,
    told: Vec<(i64, String)>,
    wake: Option<Millis>,
    delete: bool,
    changed: bool,
}

fn behaviours(rule_list: &str) -> Behaviours {
    let (rules, refused) = rules(&BTreeMap::from([("r".to_owned(), rule_list.to_owned())]));
    assert_eq!(refused, []);
    Behaviours {
        seed: 0,
        defaults: Defaults::INSTANT,
        rules,
        ..Behaviours::default()
    }
}

fn observed(object: &Value) -> (PodObject, Observed) {
    let pod: PodObject = serde_json::from_value(object.clone()).unwrap();
    let spec = Arc::new(pod.spec.clone());
    let _: Amounts = spec.requests();
    let meta = &pod.metadata;
    let (overrides, _) =
        crate::behaviour::annotations(&meta.annotations.clone().unwrap_or_default());
    let seen = Observed {
        gates: gates(&spec, &pod.status.conditions),
        spec,
        generation: meta.generation.unwrap_or(0),
        labels: Arc::new(meta.labels.clone().unwrap_or_default()),
        overrides,
        deletion: meta
            .deletion_grace_period_seconds
            .map(|it| Duration::from_secs(u64::try_from(it).unwrap())),
    };
    (pod, seen)
}

impl Bench {
    fn new(rule_list: &str, spec: Value) -> Self {
        let object = json!({
            "metadata": {"name": "cart-0", "namespace": "shop", "uid": "u-1", "generation": 1},
            "spec": spec,
        });
        Self::of(
            behaviours(rule_list),
            object,
            Images::default(),
            Millis(T0),
            false,
        )
    }

    fn of(
        behaviours: Behaviours,
        object: Value,
        mut images: Images,
        now: Millis,
        task: bool,
    ) -> Self {
        let (pod, seen) = observed(&object);
        let mut host = Volumes::default();
        let mut traffic = crate::image::Traffic::default();
        let id = Identity {
            namespace: "shop".into(),
            name: "cart-0".into(),
            uid: "u-1".into(),
        };
        let mut env = Env {
            now,
            behaviours: &behaviours,
            images: &mut images,
            traffic: &mut traffic,
            host: &mut host,
            scale: 1.0,
        };
        let mut state = Pod::take_on(
            id,
            "n-001".into(),
            "172.16.0.1".into(),
            task,
            seen.clone(),
            &pod.status,
            &mut env,
        );
        state.ip.get_or_insert("10.64.0.2".parse().unwrap());
        let mut bench = Self {
            pod: state,
            images,
            host,
            traffic,
            behaviours,
            now,
            object,
            told: vec![],
            wake: None,
            delete: false,
            changed: false,
        };
        bench.step(Input::Observed(seen));
        bench
    }

    fn step(&mut self, input: Input<'_>) {
        let before = Snapshot::of(&self.pod);
        let mut env = Env {
            now: self.now,
            behaviours: &self.behaviours,
            images: &mut self.images,
            traffic: &mut self.traffic,
            host: &mut self.host,
            scale: 1.0,
        };
        let outcome = self.pod.step(input, &mut env);
        before.check(&self.pod, self.now);
        let status = status_patch(&self.pod)["status"].clone();
        if !outcome.changed && self.object.get("status").is_some() {
            let ours = merged(self.object["status"].clone(), &status);
            assert_eq!(
                ours, self.object["status"],
                "a change of the status that is not reported"
            );
        }
        self.object["status"] = merged(self.object["status"].take(), &status);
        let second = (self.now.0 - T0) / 1000;
        self.told.extend(
            outcome
                .told
                .into_iter()
                .map(|it| (second, format!("{} {}", it.reason, it.message))),
        );
        assert!(
            outcome.wake.is_none_or(|at| at > self.now),
            "wakes at {:?}, now {:?}",
            outcome.wake,
            self.now
        );
        (self.wake, self.delete) = (outcome.wake, outcome.delete);
        self.changed |= outcome.changed;
    }

    /// Lets time pass, with all that is due in it.
    fn pass(&mut self, seconds: f64) {
        let end = self.now.plus(Duration::from_secs_f64(seconds));
        while let Some(at) = self.wake.filter(|at| *at <= end) {
            self.now = at;
            self.step(Input::Due);
        }
        self.now = end;
    }

    /// Somebody changes the object.
    fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        edit(&mut self.object);
        let (_, seen) = observed(&self.object);
        self.step(Input::Observed(seen));
    }

    fn gate(&mut self, name: &str, status: &str) {
        let (name, status) = (name.to_owned(), status.to_owned());
        self.edit(|object| {
            let list = object["status"]["conditions"].as_array_mut().unwrap();
            list.retain(|it| it["type"] != *name);
            list.push(json!({"type": name, "status": status}));
        });
    }

    fn delete_with(&mut self, grace: u64) {
        self.edit(|object| {
            object["metadata"]["deletionTimestamp"] = json!("2023-11-14T22:13:20Z");
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    fn condition(&self, name: &str) -> (bool, String) {
        let list = self.object["status"]["conditions"].as_array().unwrap();
        let it = list.iter().find(|it| it["type"] == name).unwrap();
        (
            it["status"] == "True",
            it["reason"].as_str().unwrap_or_default().to_owned(),
        )
    }

    fn ready(&self) -> bool {
        self.condition("Ready").0
    }

    /// Phase, then of each container: what it does, and its restarts.
    fn summary(&self) -> String {
        let status = &self.object["status"];
        let lists = ["initContainerStatuses", "containerStatuses"];
        let all = lists
            .iter()
            .filter_map(|list| status[*list].as_array())
            .flatten();
        let each: Vec<String> = all
            .map(|it| {
                let state = &it["state"];
                let text = if let Some(waiting) = state.get("waiting") {
                    waiting["reason"].as_str().unwrap().to_owned()
                } else if let Some(end) = state.get("terminated") {
                    format!("{}({})", end["reason"].as_str().unwrap(), end["exitCode"])
                } else {
                    let ready = if it["ready"] == true {
                        "Ready"
                    } else {
                        "Running"
                    };
                    ready.to_owned()
                };
                format!("{text}/{}", it["restartCount"])
            })
            .collect();
        format!("{} {}", status["phase"].as_str().unwrap(), each.join(" "))
    }

    fn told(&self) -> Vec<String> {
        self.told
            .iter()
            .map(|(second, text)| format!("{second}s {text}"))
            .collect()
    }

    /// The process stops and another takes over, knowing only the object.
    fn restart(&mut self) {
        let task = self.pod.task;
        let mut object = self.object.clone();
        // The API keeps whole seconds only, which the patch has already made of them.
        object["status"]
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        let told = std::mem::take(&mut self.told);
        *self = Self::of(
            self.behaviours.clone(),
            object,
            Images::default(),
            self.now,
            task,
        );
        self.told.splice(0..0, told);
    }
}

/// The API server's merge of a status, as far as it matters here: conditions by type, the rest whole.
fn merged(status: Value, patch: &Value) -> Value {
    let mut status = if status.is_null() { json!({}) } else { status };
    for (key, value) in patch.as_object().unwrap() {
        if key != "conditions" {
            status[key] = value.clone();
            continue;
        }
        if status.get(key).is_none() {
            status[key] = json!([]);
        }
        let list = status[key].as_array_mut().unwrap();
        for new in value.as_array().unwrap() {
            let mut new = new.clone();
            new.as_object_mut()
                .unwrap()
                .retain(|_, value| !value.is_null());
            match list.iter_mut().find(|it| it["type"] == new["type"]) {
                Some(old) => *old = new,
                None => list.push(new),
            }
        }
    }
    status
}

/// What must hold of any step, whatever happens.
struct Snapshot {
    phase: Phase,
    restarts: Vec<u32>,
    start_time: Option<Millis>,
}

impl Snapshot {
    fn of(pod: &Pod) -> Self {
        Self {
            phase: pod.phase,
            restarts: pod
                .init
                .iter()
                .chain(&pod.main)
                .map(|it| it.restarts)
                .collect(),
            start_time: pod.start_time,
        }
    }

    fn check(&self, pod: &Pod, now: Millis) {
        assert!(
            pod.phase >= self.phase,
            "phase went from {:?} back to {:?}",
            self.phase,
            pod.phase
        );
        if self.phase >= Phase::Succeeded {
            assert_eq!(pod.phase, self.phase, "an end is an end");
        }
        assert!(
            self.start_time.is_none() || pod.start_time == self.start_time,
            "start time moved"
        );
        for (before, it) in self.restarts.iter().zip(pod.init.iter().chain(&pod.main)) {
            assert!(
                it.restarts >= *before && it.restarts <= before + 3,
                "restarts jumped"
            );
        }
        let holds = |it: &Option<Condition>| it.as_ref().is_some_and(|it| it.holds);
        if pod.rejected() {
            return;
        }
        let all_ready = pod.main.iter().all(|it| it.ready);
        let gates = pod.gates.iter().all(|gate| *gate == Gate::True);
        if holds(&pod.conditions.ready) {
            assert!(
                holds(&pod.conditions.containers_ready) && gates && all_ready,
                "Ready without reason"
            );
            assert!(holds(&pod.conditions.initialized) && holds(&pod.conditions.ready_to_start));
        } else {
            assert!(
                !holds(&pod.conditions.containers_ready) || !gates,
                "not Ready without reason"
            );
        }
        for it in pod.main.iter().chain(&pod.init) {
            if it.started {
                assert!(it.running(), "started and not running");
            }
            if let State::Running { since } = it.state {
                assert!(since <= now);
                assert!(pod.sandbox == Sandbox::Ready, "runs without an address");
            }
        }
        if pod.finished() {
            assert!(pod.stopped(), "ended and still running");
        }
        if pod.main.iter().any(|it| it.running()) {
            for (spec, it) in pod.spec.init_containers.iter().zip(&pod.init) {
                assert!(
                    spec.restart_policy.is_some() || !it.running(),
                    "init container runs beside the others"
                );
            }
        }
    }
}

fn one(extra: Value) -> Value {
    let mut container = json!({"name": "app", "image": "shop/cart:1"});
    container
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    json!({"containers": [container]})
}

const SLOW: &str = "[{pull: 2s, start: 1s, ready: 3s, stop: 1s}]";

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
fn a_resize_in_place_shows_and_restarts_nothing() {
    let ask = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "2"}}});
    let mut bench = Bench::new(SLOW, one(ask("1")));
    bench.pass(10.0);
    bench.changed = false;
    bench.edit(|object| {
        object["spec"] = one(ask("1500m"));
        object["metadata"]["generation"] = json!(2);
    });
    bench.pass(10.0);
    assert!(bench.changed);
    assert_eq!(bench.summary(), "Running Ready/0");
    let status = &bench.object["status"]["containerStatuses"][0];
    assert_eq!(status["allocatedResources"], json!({"cpu": "1500m"}));
    assert_eq!(
        status["resources"],
        json!({"requests": {"cpu": "1500m"}, "limits": {"cpu": "2"}})
    );
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

#[derive(Clone, Debug)]
enum Act {
    Pass(u32),
    Image(u8),
    Gate(bool),
    Delete(u8),
    Rules(u8),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1u32..40_000).prop_map(Act::Pass),
        2 => (0u8..4).prop_map(Act::Image),
        2 => any::<bool>().prop_map(Act::Gate),
        1 => (0u8..40).prop_map(Act::Delete),
        2 => (0u8..6).prop_map(Act::Rules),
        2 => Just(Act::Restart),
    ]
}

const RULES: [&str; 6] = [
    "[]",
    SLOW,
    "[{crash: {after: 3s, probability: 0.5}}]",
    "[{image: '*:2', pullError: gone}, {image: '*:3', startError: exec format error}]",
    "[{ready: never}, {image: '*:1', hang: 20s}]",
    "[{run: 4s, exitCode: 1}, {stop: 50s}]",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens in whatever order, the invariants of [`Snapshot`] hold at each step, and once
    /// the pod is deleted it goes in time.
    #[test]
    fn random_lives(
        acts in proptest::collection::vec(act(), 1..25),
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        first in 0usize..6,
        probes in any::<bool>(),
    ) {
        let mut spec = json!({
            "restartPolicy": policy,
            "readinessGates": [{"conditionType": "g"}],
            "initContainers": [{"name": "init", "image": "i:1"}, {"name": "side", "image": "s:1", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "a:0"}, {"name": "log", "image": "l:1"}],
        });
        if probes {
            spec["containers"][0]["livenessProbe"] = json!({"periodSeconds": 3});
            spec["containers"][0]["readinessProbe"] = json!({"periodSeconds": 2});
            spec["containers"][1]["startupProbe"] = json!({"periodSeconds": 2});
        }
        let mut bench = Bench::new(RULES[first], spec);
        for act in acts {
            match act {
                Act::Pass(millis) => bench.pass(f64::from(millis) / 1000.0),
                Act::Image(tag) => bench.edit(|object| object["spec"]["containers"][0]["image"] = json!(format!("a:{tag}"))),
                Act::Gate(open) => bench.gate("g", if open { "True" } else { "False" }),
                Act::Delete(grace) => bench.delete_with(grace.into()),
                Act::Rules(index) => {
                    let before = std::mem::replace(&mut bench.behaviours, behaviours(RULES[usize::from(index)]));
                    bench.step(Input::Rules(&before));
                }
                Act::Restart => bench.restart(),
            }
        }
        bench.delete_with(30);
        bench.pass(31.0);
        prop_assert!(bench.delete, "deleted, and still there: {}", bench.summary());
    }
}

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
