//! The scenario on stage: events at their times, machines that fail, nodes that cannot reach anybody.

use super::{
    timer::{Id, Timer},
    world::{Due, World},
};
use crate::{
    behaviour::Draw,
    clock::Millis,
    object::PodObject,
    options::{Failures, NodeGroup},
    pod::{self, Input},
    scenario::{self, Act, Scenario, Stroke},
};
use rustc_hash::FxHashMap;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// How long a kubelet calls it pressure after it is over, so as not to waver.
pub(super) const TRANSITION: Duration = Duration::from_secs(300);

/// What of the scenario goes on.
#[derive(Default)]
pub(super) struct Stage {
    scenario: Option<Arc<Scenario>>,
    start: Millis,
    /// Events that last, by a number of their own.
    ongoing: FxHashMap<u32, Ongoing>,
    numbers: u32,
}

struct Ongoing {
    event: usize,
    nodes: Vec<Id>,
}

/// What the scenario does to a node.
#[derive(Default)]
pub(super) struct Fate {
    /// Its machine is off, so many times over.
    dead: u32,
    /// It cannot reach the API server, so many times over.
    cut: u32,
    /// It is short of something, so many times over.
    pub pressed: [u32; 3],
    /// Whether what its pods use leaves it short.
    pub starved: [bool; 3],
    /// Until when it says so although it is over.
    pub wavers: [Option<Millis>; 3],
    /// Pods that it still has to evict.
    pub evict: [u32; 3],
    /// How far its clock is ahead, in milliseconds.
    pub skew: i64,
    /// How often it was switched on again.
    pub boots: u32,
    /// The latest of each pod that the API server has shown while the node could not see it.
    missed: FxHashMap<(Arc<str>, Arc<str>), Box<PodObject>>,
}

impl Fate {
    /// Whether nothing is heard of it, and it hears of nothing.
    pub fn away(&self) -> bool {
        self.dead > 0 || self.cut > 0
    }

    /// Whether its machine is off.
    pub fn off(&self) -> bool {
        self.dead > 0
    }

    /// What it says that it is short of.
    pub fn pressures(&self, now: Millis) -> [bool; 3] {
        [0, 1, 2].map(|which: usize| {
            self.pressed[which] > 0
                || self.starved[which]
                || self.wavers[which].is_some_and(|until| now < until)
        })
    }

    /// The API server has shown a pod that the node cannot see.
    pub fn miss(&mut self, key: (Arc<str>, Arc<str>), pod: PodObject) {
        self.missed.insert(key, Box::new(pod));
    }

    /// A pod that it has not seen is gone.
    pub fn missed_gone(&mut self, key: &(Arc<str>, Arc<str>)) {
        self.missed.remove(key);
    }
}

impl World {
    /// Puts the scenario of the options on stage, which began at `start`: what is over is left out.
    pub fn begin(&mut self, start: Millis, now: Millis) {
        self.truth.start = start;
        self.stage.start = start;
        self.stage.scenario.clone_from(&self.options.scenario);
        if let Some(network) = &self.options.network {
            network.tell(self.truth.clone());
        }
        let Some(scenario) = self.stage.scenario.clone() else {
            return;
        };
        let passed = now.since(start).mul_f64(self.options.time_scale);
        for stroke in scenario::strokes(&scenario.events, passed) {
            self.plan(stroke);
        }
    }

    /// The scenario of the options, and the seed that it is played with.
    pub fn scenario(&self) -> Option<(&Arc<Scenario>, u64)> {
        Some((self.options.scenario.as_ref()?, self.options.seed))
    }

    fn plan(&mut self, stroke: Stroke) {
        let at = self
            .stage
            .start
            .plus(pod::scaled(stroke.at, self.options.time_scale));
        let event = u32::try_from(stroke.event).unwrap_or(u32::MAX);
        self.timers.at(at, Timer::Act(event, stroke.nth));
    }

    pub(super) fn act_due(&mut self, event: u32, nth: u32, now: Millis) {
        let Some(scenario) = self.stage.scenario.clone() else {
            return;
        };
        let index = event as usize;
        let Some(it) = scenario.events.get(index) else {
            return;
        };
        let scale = self.options.time_scale;
        if let Some(every) = it.every {
            self.plan(Stroke {
                at: it.at + every.saturating_mul(nth + 1),
                event: index,
                nth: nth + 1,
            });
        }
        let nodes = self.targets(&it.act, index, nth);
        tracing::info!(event, nth, nodes = nodes.len(), "an event of the scenario");
        for node in &nodes {
            self.strike(*node, &it.act, true, now);
        }
        let number = self.stage.numbers;
        self.stage.numbers = number.wrapping_add(1);
        self.stage.ongoing.insert(
            number,
            Ongoing {
                event: index,
                nodes,
            },
        );
        if let Some(lasts) = it.lasts {
            let over = self.stage.start.plus(pod::scaled(
                it.at + it.every.unwrap_or_default().saturating_mul(nth) + lasts,
                scale,
            ));
            self.timers.at(over, Timer::Over(number));
        }
        self.settle_traffic();
    }

    pub(super) fn over_due(&mut self, number: u32, now: Millis) {
        let (Some(ongoing), Some(scenario)) = (
            self.stage.ongoing.remove(&number),
            self.stage.scenario.clone(),
        ) else {
            return;
        };
        if let Some(it) = scenario.events.get(ongoing.event) {
            for node in ongoing.nodes {
                self.strike(node, &it.act, false, now);
            }
        }
        self.settle_traffic();
    }

    /// The registry does as the events that last have it: the slowest, and the latest error.
    fn settle_traffic(&mut self) {
        let Some(scenario) = &self.stage.scenario else {
            return;
        };
        let (mut slower, mut down) = (1.0, None);
        let mut numbers: Vec<_> = self.stage.ongoing.iter().collect();
        numbers.sort_by_key(|(number, _)| **number);
        for (_, it) in numbers {
            if let Some(Act::Registry {
                slower: factor,
                error,
            }) = scenario.events.get(it.event).map(|it| &it.act)
            {
                slower *= factor;
                down = error.clone().or(down);
            }
        }
        (self.traffic.slower, self.traffic.down) = (slower, down);
    }

    fn targets(&self, act: &Act, event: usize, nth: u32) -> Vec<Id> {
        let target = match act {
            Act::Kill(on) | Act::Cut(on) | Act::Press { on, .. } | Act::Skew { on, .. } => on,
            Act::Registry { .. } => return vec![],
        };
        let fitting = self.nodes.ids().into_iter().filter_map(|id| {
            let node = self.nodes.get(id)?;
            target
                .fits(&node.candidate())
                .then(|| (node.name.to_string(), id))
        });
        let draw = Draw::new(self.options.seed)
            .word("event")
            .number(event as u64)
            .number(u64::from(nth));
        target.draw(fitting.collect(), draw)
    }

    /// A node that has come while something goes on that befalls all of its kind.
    pub(super) fn join(&mut self, id: Id, now: Millis) {
        let Some(scenario) = self.stage.scenario.clone() else {
            return;
        };
        for ongoing in self.stage.ongoing.values_mut() {
            let Some(it) = scenario.events.get(ongoing.event) else {
                continue;
            };
            let (Act::Kill(on) | Act::Cut(on) | Act::Press { on, .. } | Act::Skew { on, .. }) =
                &it.act
            else {
                continue;
            };
            let fits = self
                .nodes
                .get(id)
                .is_some_and(|node| on.fits(&node.candidate()));
            if on.count.is_none() && fits {
                ongoing.nodes.push(id);
            }
        }
        let acts: Vec<Act> = self
            .stage
            .ongoing
            .values()
            .filter(|it| it.nodes.last() == Some(&id))
            .filter_map(|it| scenario.events.get(it.event).map(|it| it.act.clone()))
            .collect();
        for act in acts {
            self.strike(id, &act, true, now);
        }
        self.plan_failure(id, now);
    }

    /// Begins or ends what an event does to a node.
    fn strike(&mut self, id: Id, act: &Act, begins: bool, now: Millis) {
        let by = if begins { 1 } else { -1 };
        let count = |it: &mut u32| *it = it.saturating_add_signed(by);
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        match act {
            Act::Kill(_) => {
                let was = (node.fate.off(), node.fate.away());
                count(&mut node.fate.dead);
                self.moved(id, was, now);
            }
            Act::Cut(_) => {
                let was = (node.fate.off(), node.fate.away());
                count(&mut node.fate.cut);
                self.moved(id, was, now);
            }
            Act::Press { what, evict, .. } => {
                let which = *what as usize;
                count(&mut node.fate.pressed[which]);
                let scale = self.options.time_scale;
                if begins {
                    node.fate.evict[which] += evict;
                    self.timers.at(now, Timer::Evict(id));
                } else {
                    let until = now.plus(pod::scaled(TRANSITION, scale));
                    (node.fate.evict[which], node.fate.wavers[which]) = (0, Some(until));
                    self.timers.at(until, Timer::Evict(id));
                }
                self.report_now(id);
            }
            Act::Skew { by, .. } => node.fate.skew += if begins { *by } else { -by },
            Act::Registry { .. } => {}
        }
    }

    /// A node may have gone off, come up, lost the API server or found it again.
    fn moved(&mut self, id: Id, (was_off, was_away): (bool, bool), now: Millis) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let (off, away) = (node.fate.off(), node.fate.away());
        if let Some(network) = self.options.network.as_ref().filter(|_| was_away != away) {
            match away {
                true => network.remove_node(&node.name, &node.ip),
                false => network.add_node(&node.name, &node.ip),
            }
        }
        let pods: Vec<Id> = node.pods.iter().copied().collect();
        if was_off && !off {
            node.fate.boots += 1;
            node.renamed = true;
            for pod in &pods {
                self.readdress(*pod);
                self.step(*pod, Input::Rebooted, now);
            }
            self.tell_node(id, true, "Rebooted", "has been rebooted", now);
        }
        if was_away && !away {
            let missed = self
                .nodes
                .get_mut(id)
                .map(|it| std::mem::take(&mut it.fate.missed));
            for (_, pod) in missed.into_iter().flatten() {
                self.pod_applied(*pod, now);
            }
            for pod in pods {
                self.queue_pod(pod);
            }
            self.lease_again(id);
            self.report_now(id);
        }
    }

    /// When the machine next fails by itself.
    fn plan_failure(&mut self, id: Id, now: Millis) {
        let Some((failures, draw)) = self.failures(id) else {
            return;
        };
        let after = pod::scaled(
            draw.word("fails").within(failures.after),
            self.options.time_scale,
        );
        self.timers.at(now.plus(after), Timer::Fail(id));
    }

    /// What the scenario says of nodes of a class: in that zone, if there it says something else.
    pub(super) fn class_of(&self, class: &str, zone: &str) -> Option<&NodeGroup> {
        let classes = self.stage.scenario.as_ref()?.nodes.iter();
        let named = |it: &&NodeGroup| it.class.as_deref() == Some(class);
        let here = classes.clone().filter(named).find(|it| *it.cell == *zone);
        here.or_else(|| classes.clone().find(named))
    }

    fn failures(&self, id: Id) -> Option<(Failures, Draw)> {
        let node = self.nodes.get(id)?;
        let failures = self.class_of(&node.class, &node.zone)?.failures?;
        let draw = Draw::new(self.options.seed)
            .word(&node.name)
            .number(u64::from(node.fate.boots));
        Some((failures, draw))
    }

    pub(super) fn fail_due(&mut self, id: Id, now: Millis) {
        let Some((failures, draw)) = self.failures(id) else {
            return;
        };
        let repair = pod::scaled(
            draw.word("repair").within(failures.repair),
            self.options.time_scale,
        );
        self.timers.at(now.plus(repair), Timer::Repaired(id));
        self.strike(id, &Act::Kill(scenario::Target::default()), true, now);
    }

    pub(super) fn repaired_due(&mut self, id: Id, now: Millis) {
        self.strike(id, &Act::Kill(scenario::Target::default()), false, now);
        self.plan_failure(id, now);
    }

    pub(super) fn report_now(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.report = true;
        }
        self.queue_node(id);
    }

    pub(super) fn tell_node(
        &mut self,
        id: Id,
        warning: bool,
        reason: &str,
        what: &str,
        now: Millis,
    ) {
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        if !self.outbox.admit(warning, now) {
            return;
        }
        let name = node.name.clone();
        // Kubelets give a node's name for its uid.
        let involved = json!({"apiVersion": "v1", "kind": "Node", "name": &*name, "uid": &*name});
        let message = match reason {
            "Rebooted" => format!("Node {name} {what} (simulated)"),
            _ => what.to_owned(),
        };
        self.outbox
            .put("default", involved, warning, reason, message, &name, now);
    }

    /// Queues the renewal of a node's lease, unless one is under way.
    fn lease_again(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(id)
            && !node.leasing
        {
            node.leasing = true;
            node.lease_wake = None;
            self.urgent.push_back(Due::Lease(id));
        }
    }
}
