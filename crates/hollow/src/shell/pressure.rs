//! What nodes are short of: because the scenario says so, or because of what their pods use. They say it in
//! conditions, and evict one pod after the other.
//!
//! Nobody looks at nodes whose pods cannot use as much as there is, whatever the time: of each pod the most
//! that it ever uses is known, and a node adds it up as pods come and go.

use super::{
    stage::TRANSITION,
    timer::{Id, Timer},
    world::World,
};
use crate::{
    clock::Millis,
    kubelet::beside,
    node::eviction::{self, Left, Share, Standing},
    object::{ContainerSpec, parse_quantity},
    pod::{self, Input, Pod},
    scenario::Pressure,
};
use std::{sync::Arc, time::Duration};

/// Between two looks of a kubelet at what is left of its memory and disk.
const LOOK: Duration = Duration::from_secs(10);
/// Bytes of the disk, as resources are named.
const DISK: &str = "ephemeral-storage";

/// The most that something ever uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Most {
    /// Bytes of memory.
    pub memory: f64,
    /// Bytes of the disk.
    pub disk: f64,
    /// Pods that may use more of the disk than their limits allow.
    pub tight: i32,
}

impl Most {
    /// Of both.
    pub fn plus(self, more: Self, sign: i8) -> Self {
        let sign = f64::from(sign);
        Self {
            memory: self.memory + sign * more.memory,
            disk: self.disk + sign * more.disk,
            tight: if sign > 0.0 {
                self.tight + more.tight
            } else {
                self.tight - more.tight
            },
        }
    }
}

/// A quantity of bytes.
#[expect(clippy::cast_precision_loss, reason = "bytes, far below 2^53")]
fn bytes(resource: &str, text: Option<&String>) -> Option<f64> {
    Some(parse_quantity(resource, text?)? as f64)
}

fn limit_of_disk(spec: &ContainerSpec) -> Option<f64> {
    bytes(DISK, spec.resources.limits.get(DISK))
}

impl World {
    /// The most that a pod ever uses.
    pub(super) fn weigh(&self, pod: &Pod) -> Most {
        let mut most = Most::default();
        let (mut bound, mut bounded) = (0.0, true);
        for spec in &pod.allocated().containers {
            let [requests, limits] = spec.resources.bounds();
            most.memory += self
                .truth
                .uses(&pod.whose(spec), requests, limits)
                .most_memory();
            let limit = limit_of_disk(spec);
            if let Some((profile, whose)) = self.truth.disk(
                &pod.whose(spec),
                bytes(DISK, spec.resources.requests.get(DISK)),
                limit,
            ) {
                let its = profile.most(&whose);
                most.disk += its;
                most.tight |= i32::from(limit.is_some_and(|limit| its > limit));
            }
            bound += limit.unwrap_or(0.0);
            bounded &= limit.is_some();
        }
        most.tight |= i32::from(bounded && most.disk > bound);
        most
    }

    /// Bytes that a container uses of what a node is short of, and that it asks for.
    fn used(&self, pod: &Pod, spec: &ContainerSpec, what: Pressure, time: f64) -> (f64, f64) {
        let [requests, limits] = spec.resources.bounds();
        match what {
            Pressure::Memory => {
                let uses = self.truth.uses(&pod.whose(spec), requests, limits);
                (uses.at(time)[1], requests[1].unwrap_or(0.0))
            }
            Pressure::Disk => {
                let request = bytes(DISK, spec.resources.requests.get(DISK));
                let disk = self
                    .truth
                    .disk(&pod.whose(spec), request, limit_of_disk(spec));
                let used = disk.map_or(0.0, |(profile, whose)| profile.at(time, &whose));
                (used, request.unwrap_or(0.0))
            }
            Pressure::Pids => (0.0, 0.0),
        }
    }

    /// Bytes that the running containers of a pod use.
    fn used_in_all(&self, pod: &Pod, what: Pressure, time: f64) -> f64 {
        let running = pod
            .main
            .iter()
            .zip(&pod.allocated().containers)
            .filter(|(it, _)| it.running());
        running
            .map(|(_, spec)| self.used(pod, spec, what, time).0)
            .sum()
    }

    /// What a node has of memory and disk, in bytes, and what it uses of its memory beside its pods.
    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes of a machine, far below 2^53"
    )]
    fn sizes(&self, id: Id) -> Option<[f64; 3]> {
        let capacity = &self.nodes.get(id)?.capacity;
        let size = |name: &str| parse_quantity(name, capacity.get(name)?);
        let memory = size("memory")?;
        let beside = beside(Some(memory)).bytes;
        Some([memory as f64, size(DISK).unwrap_or(0) as f64, beside as f64])
    }

    /// Whether pods of a node could use so much that it has to look at it.
    fn must_look(&self, id: Id) -> bool {
        let (Some(node), Some([memory, disk, beside])) = (self.nodes.get(id), self.sizes(id))
        else {
            return false;
        };
        node.most.tight > 0
            || Left::of_memory(memory, beside + node.most.memory).short()
            || (node.most.disk > 0.0 && Left::of_disk(disk, node.most.disk).short())
    }

    /// Has a node look at what its pods use, if it does not and has reason to.
    pub(super) fn mind(&mut self, id: Id, now: Millis) {
        if self.nodes.get(id).is_some_and(|it| !it.looking) && self.must_look(id) {
            if let Some(node) = self.nodes.get_mut(id) {
                node.looking = true;
            }
            self.timers.at(
                now.plus(pod::scaled(LOOK, self.options.time_scale)),
                Timer::Look(id),
            );
        }
    }

    /// A pod may use more, or less, than it did.
    pub(super) fn reweigh(&mut self, id: Id, now: Millis) {
        let Some(most) = self.pods.get(id).map(|it| self.weigh(&it.pod)) else {
            return;
        };
        let Some(entry) = self.pods.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.most, most);
        let (node, counted) = (entry.node, entry.counted);
        if let (true, Some(node)) = (counted, self.nodes.get_mut(node)) {
            node.most = node.most.plus(before, -1).plus(most, 1);
        }
        self.mind(node, now);
    }

    /// A node looks at what its pods use.
    pub(super) fn look_due(&mut self, id: Id, now: Millis) {
        let reason = self.must_look(id);
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let starved = node.fate.starved;
        node.looking = reason || starved != [false; 3];
        if !node.looking {
            return;
        }
        let off = node.fate.off();
        let again = now.plus(pod::scaled(LOOK, self.options.time_scale));
        self.timers.at(again, Timer::Look(id));
        if off {
            return;
        }
        self.overdraw(id, now);
        for what in [Pressure::Memory, Pressure::Disk] {
            let Some(left) = self.left(id, what, now) else {
                continue;
            };
            let (short, before) = (left.short(), starved[what as usize]);
            if let Some(node) = self.nodes.get_mut(id) {
                node.fate.starved[what as usize] = short;
                if before && !short {
                    let until = now.plus(pod::scaled(TRANSITION, self.options.time_scale));
                    node.fate.wavers[what as usize] = Some(until);
                    self.timers.at(until, Timer::Evict(id));
                }
            }
            if short {
                self.reclaim(id, what, Some(left), now);
            }
            if short != before {
                self.report_now(id);
            }
        }
    }

    /// What is left of something on a node.
    fn left(&self, id: Id, what: Pressure, now: Millis) -> Option<Left> {
        let [memory, disk, beside] = self.sizes(id)?;
        let time = self.truth.seconds(now);
        let pods = self
            .nodes
            .get(id)?
            .pods
            .iter()
            .filter_map(|id| self.pods.get(*id));
        let used: f64 = pods.map(|it| self.used_in_all(&it.pod, what, time)).sum();
        match what {
            Pressure::Memory => Some(Left::of_memory(memory, beside + used)),
            Pressure::Disk if disk > 0.0 => Some(Left::of_disk(disk, used)),
            Pressure::Disk | Pressure::Pids => None,
        }
    }

    /// Evicts pods that use more of the disk than they may.
    fn overdraw(&mut self, id: Id, now: Millis) {
        if self.nodes.get(id).is_none_or(|it| it.most.tight == 0) {
            return;
        }
        let time = self.truth.seconds(now);
        let pods: Vec<Id> = self
            .nodes
            .get(id)
            .into_iter()
            .flat_map(|it| it.pods.iter().copied())
            .collect();
        for id in pods {
            let Some(pod) = self
                .pods
                .get(id)
                .map(|it| &it.pod)
                .filter(|it| !it.finished() && !it.killing)
            else {
                continue;
            };
            let mut why = None;
            let (mut sum, mut bound, mut bounded) = (0.0, 0.0, true);
            for (it, spec) in pod.main.iter().zip(&pod.allocated().containers) {
                let used = if it.running() {
                    self.used(pod, spec, Pressure::Disk, time).0
                } else {
                    0.0
                };
                let limit = limit_of_disk(spec);
                if let (Some(limit), Some(text)) = (limit, spec.resources.limits.get(DISK))
                    && used > limit
                {
                    why.get_or_insert_with(|| eviction::overdrawn(&spec.name, text));
                }
                sum += used;
                bound += limit.unwrap_or(0.0);
                bounded &= limit.is_some();
            }
            // The pod as a whole is looked at first.
            if bounded && sum > bound {
                why = Some(eviction::overdrawn_in_all(bound));
            }
            if let Some(why) = why.filter(|_| {
                pod.spec.priority.unwrap_or(0) < eviction::CRITICAL && pod.source.is_none()
            }) {
                let why: Arc<str> = why.into();
                self.step(id, Input::Overdrawn(&why), now);
            }
        }
    }

    /// Lets the node report what it is short of, and evict a pod if the scenario says so.
    pub(super) fn evict_due(&mut self, id: Id, now: Millis) {
        let scale = self.options.time_scale;
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        for wavers in &mut node.fate.wavers {
            if wavers.is_some_and(|until| until <= now) {
                *wavers = None;
            }
        }
        if node.fate.off() {
            return self.report_now(id);
        }
        let pressed = Pressure::ALL
            .into_iter()
            .find(|it| node.fate.pressed[*it as usize] > 0 && node.fate.evict[*it as usize] > 0);
        if let Some(what) = pressed {
            node.fate.evict[what as usize] -= 1;
            self.reclaim(id, what, None, now);
            self.timers
                .at(now.plus(pod::scaled(LOOK, scale)), Timer::Evict(id));
        }
        self.report_now(id);
    }

    /// Evicts the pod that has to go first.
    fn reclaim(&mut self, id: Id, what: Pressure, left: Option<Left>, now: Millis) {
        let told = format!("Attempting to reclaim {}", eviction::resource(what));
        self.tell_node(id, true, "EvictionThresholdMet", &told, now);
        let time = self.truth.seconds(now);
        let pods = self.nodes.get(id).into_iter().flat_map(|it| &it.pods);
        let standings = pods.filter_map(|id| {
            let pod = &self.pods.get(*id)?.pod;
            if pod.finished() || pod.killing {
                return None;
            }
            let amounts = pod
                .allocated()
                .containers
                .iter()
                .map(|it| self.used(pod, it, what, time));
            let (usage, request) = amounts.fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
            // Static pods are critical, whatever their priority.
            let priority = if pod.source.is_some() {
                eviction::CRITICAL
            } else {
                pod.spec.priority.unwrap_or(0)
            };
            Some(Standing {
                pod: *id,
                name: format!("{}/{}", pod.id.namespace, pod.id.name),
                priority,
                usage,
                request,
            })
        });
        let Some(first) = eviction::first(standings.collect(), what) else {
            return;
        };
        let Some(pod) = self.pods.get(first.pod).map(|it| &it.pod) else {
            return;
        };
        let named = if what == Pressure::Memory {
            "memory"
        } else {
            DISK
        };
        let containers: Vec<Share<'_>> = pod
            .allocated()
            .containers
            .iter()
            .map(|it| {
                let (usage, request) = self.used(pod, it, what, time);
                let written = it.resources.requests.get(named).map(String::as_str);
                Share {
                    name: &it.name,
                    usage,
                    request,
                    written,
                }
            })
            .collect();
        let message: Arc<str> = eviction::message(what, left, &containers).into();
        self.step(first.pod, Input::Evicted(&message), now);
    }
}
