//! Tables of cases and random runs of the pod's state machine, and the bench that they stand on.

mod handover;
mod life;
mod memory;
mod programs;
mod random;
mod resize;
mod restarts;

use super::*;
use crate::{
    behaviour::{Behaviours, Defaults, rules},
    object::{Amounts, PodObject},
};
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
    /// Whom it has asked for hooks.
    asks: Vec<Ask>,
    wake: Option<Millis>,
    delete: bool,
    changed: bool,
    /// What the node answers to whoever asks for other resources.
    room: Result<(), Held>,
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

fn forget_generation(status: &mut Value) {
    status.as_object_mut().unwrap().remove("observedGeneration");
    for condition in status["conditions"].as_array_mut().unwrap() {
        condition
            .as_object_mut()
            .unwrap()
            .remove("observedGeneration");
    }
}

fn observed(object: &Value) -> (PodObject, Observed) {
    let pod: PodObject = serde_json::from_value(object.clone()).unwrap();
    let spec = Arc::new(pod.spec.clone());
    let _: Amounts = spec.requests();
    let meta = &pod.metadata;
    let annotations = meta.annotations.clone().unwrap_or_default();
    let (overrides, _) = crate::behaviour::annotations(&annotations);
    let seen = Observed {
        gates: gates(&spec, &pod.status.conditions),
        spec,
        generation: meta.generation.unwrap_or(0),
        labels: Arc::new(meta.labels.clone().unwrap_or_default()),
        overrides,
        source: None,
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
            start: Millis(T0),
            asks: true,
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
            asks: vec![],
            wake: None,
            delete: false,
            changed: false,
            room: Ok(()),
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
            start: Millis(T0),
            asks: true,
        };
        let outcome = self.pod.step(input, &mut env);
        before.check(&self.pod, self.now);
        let status = status_patch(&self.pod)["status"].clone();
        if !outcome.changed && self.object.get("status").is_some() {
            let (mut theirs, mut ours) = (self.object["status"].clone(), status.clone());
            if self.pod.deletion.is_some() {
                // That a deletion was seen may wait for the end.
                forget_generation(&mut theirs);
                forget_generation(&mut ours);
            }
            assert_eq!(
                merged(theirs.clone(), &ours),
                theirs,
                "a change of the status that is not reported"
            );
            return self.follow(outcome);
        }
        self.object["status"] = merged(self.object["status"].take(), &status);
        self.follow(outcome);
    }

    fn follow(&mut self, outcome: Outcome) {
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
        self.asks.extend(outcome.asks);
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
        let (_, mut seen) = observed(&self.object);
        if seen.spec == self.pod.spec {
            // The shell keeps equal specs once.
            seen.spec = self.pod.spec.clone();
        }
        self.step(Input::Observed(seen));
        self.answer();
    }

    /// The node answers, if the pod asks for other resources.
    fn answer(&mut self) {
        if self.pod.asks_resize() {
            self.step(Input::Resize(self.room.clone()));
        }
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
            let generation = object["metadata"]["generation"].as_i64().unwrap();
            object["metadata"]["generation"] = json!(generation + 1);
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
        let room = self.room.clone();
        *self = Self::of(
            self.behaviours.clone(),
            object,
            Images::default(),
            self.now,
            task,
        );
        self.told.splice(0..0, told);
        self.room = room;
        self.answer();
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
            if new["$patch"] == "delete" {
                list.retain(|it| it["type"] != new["type"]);
                continue;
            }
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
