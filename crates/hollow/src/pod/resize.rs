//! In-place resize: resources that a running pod is asked to run with (KEP-1287).
//!
//! Three states of a pod's resources, as a kubelet keeps them apart: what the spec *desires*, what the node
//! has *allocated*, and what containers *actually* run with. The node decides whether it can allocate
//! (`World::answer_resize`); a moment later the containers are given it, some of them by a restart.
//! Conditions and events are the kubelet's (`pkg/kubelet/allocation`, `pkg/kubelet/events`).

use super::{
    Pod, Todo,
    course::{scaled, seconds},
    step::{Env, Occurrence, Outcome, Slot},
};
use crate::{
    behaviour::Role,
    clock::Millis,
    object::{ConditionWire, ContainerSpec, PodSpec, PodStatusWire, Resources},
};
use serde::Serialize;
use std::sync::Arc;

/// The condition of a resize that the node does not grant.
pub const PENDING: &str = "PodResizePending";
/// The condition of one that is being carried out.
pub const IN_PROGRESS: &str = "PodResizeInProgress";

/// Why a node does not grant a resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room for it now.
    Deferred,
    /// There never will be.
    Infeasible,
}

impl Refusal {
    /// As the condition's reason.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Deferred => "Deferred",
            Self::Infeasible => "Infeasible",
        }
    }
}

/// A resize that is not granted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whether it may be yet.
    pub refusal: Refusal,
    /// In the kubelet's words.
    pub message: Arc<str>,
}

/// A resize that is not through.
#[derive(Clone, Debug)]
pub struct Resize {
    /// The spec whose resources are set aside.
    pub allocated: Arc<PodSpec>,
    /// The spec whose resources containers run with, but for those of the progress that have changed.
    actual: Arc<PodSpec>,
    held: Option<Noted<Held>>,
    progress: Option<Noted<Progress>>,
}

/// Something that a condition tells of.
#[derive(Clone, Debug)]
struct Noted<T> {
    what: T,
    generation: i64,
    since: Millis,
}

#[derive(Clone, Debug)]
struct Progress {
    /// When containers are told; `None` once they are.
    until: Option<Millis>,
    /// Containers that run with what is allocated.
    settled: Vec<Slot>,
    /// Containers that are being started again.
    restarting: Vec<Slot>,
}

/// What the events of a resize say of a pod.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Share<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Share<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct Share<'a> {
    name: &'a str,
    resources: &'a Resources,
}

fn told(
    warning: bool,
    reason: &'static str,
    what: &str,
    spec: &PodSpec,
    generation: i64,
    error: &str,
) -> Occurrence {
    fn shares(list: &[ContainerSpec]) -> Vec<Share<'_>> {
        list.iter()
            .map(|it| Share {
                name: &it.name,
                resources: &it.resources,
            })
            .collect()
    }
    let summary = Summary {
        init_containers: shares(&spec.init_containers),
        containers: shares(&spec.containers),
        generation,
        error,
    };
    let text = serde_json::to_string(&summary).map_or(String::new(), |it| format!(": {it}"));
    Occurrence {
        warning,
        reason,
        message: format!("Pod resize {what}{text}"),
        field_path: None,
    }
}

impl Pod {
    /// The spec whose resources are set aside on the node.
    #[must_use]
    pub fn allocated(&self) -> &Arc<PodSpec> {
        self.resize.as_ref().map_or(&self.spec, |it| &it.allocated)
    }

    /// Whether it waits for the node to grant it other resources.
    #[must_use]
    pub fn asks_resize(&self) -> bool {
        let differs = |it: &Resize| !it.allocated.same_resources(&self.spec);
        !self.finished() && self.resize.as_deref().is_some_and(differs)
    }

    /// Whether the node may grant it later what it does not now.
    #[must_use]
    pub fn resize_deferred(&self) -> bool {
        let held = self.resize.as_ref().and_then(|it| it.held.as_ref());
        held.is_some_and(|it| it.what.refusal == Refusal::Deferred)
    }

    /// The spec has changed; what it was before.
    pub(super) fn respecified(&mut self, before: Arc<PodSpec>) {
        match &mut self.resize {
            // Asked for what it has: nothing is pending any more.
            Some(resize) if resize.allocated.same_resources(&self.spec) => {
                resize.held = None;
                if resize.progress.is_none() {
                    self.resize = None;
                }
            }
            Some(_) => {}
            None if before.same_resources(&self.spec) => {}
            None => {
                self.resize = Some(Box::new(Resize {
                    allocated: before.clone(),
                    actual: before,
                    held: None,
                    progress: None,
                }));
            }
        }
    }

    /// The node grants the resources that the spec desires, or does not.
    pub(super) fn answered_resize(
        &mut self,
        answer: Result<(), Held>,
        env: &Env<'_>,
        out: &mut Outcome,
    ) {
        if !self.asks_resize() {
            return;
        }
        let (generation, now) = (self.generation, env.now);
        let runs = self
            .slots()
            .any(|slot| matches!(self.at(slot).todo, Todo::Run(_) | Todo::Stop { .. }));
        let takes = scaled(
            env.behaviours.sandbox(&self.id.namespace, &self.id.name),
            env.scale,
        );
        let spec = self.spec.clone();
        let Some(resize) = &mut self.resize else {
            return;
        };
        match answer {
            Err(held) => {
                let same = |it: &Noted<Held>| it.what == held && it.generation == generation;
                if resize.held.as_ref().is_some_and(same) {
                    return;
                }
                let (reason, word) = match held.refusal {
                    Refusal::Deferred => ("ResizeDeferred", "Deferred"),
                    Refusal::Infeasible => ("ResizeInfeasible", "Infeasible"),
                };
                out.told
                    .push(told(true, reason, word, &spec, generation, &held.message));
                let since = resize.held.as_ref().map_or(now, |it| it.since);
                resize.held = Some(Noted {
                    what: held,
                    generation,
                    since,
                });
                self.mentioned[0] = true;
            }
            // Nothing runs yet: what starts, starts with it.
            Ok(()) if !runs => self.resize = None,
            Ok(()) => {
                let since = resize.progress.as_ref().map_or(now, |it| it.since);
                let what = Progress {
                    until: Some(now.plus(takes)),
                    settled: vec![],
                    restarting: vec![],
                };
                // What was under way is taken up where it stands.
                if let Some(before) = resize.progress.take() {
                    let mut actual = (*resize.actual).clone();
                    for slot in before.what.settled {
                        *resources_mut(&mut actual, slot) = of(&resize.allocated, slot).clone();
                    }
                    resize.actual = Arc::new(actual);
                }
                (resize.held, resize.allocated) = (None, spec.clone());
                resize.progress = Some(Noted {
                    what,
                    generation,
                    since,
                });
                self.mentioned[1] = true;
                out.told.push(told(
                    false,
                    "ResizeStarted",
                    "started",
                    &spec,
                    generation,
                    "",
                ));
            }
        }
        out.changed = true;
    }

    /// When the resize goes on.
    pub(super) fn resize_due(&self) -> Option<Millis> {
        self.resize
            .as_ref()?
            .progress
            .as_ref()?
            .what
            .until
            .filter(|_| !self.killing)
    }

    /// Moves a resize on that has been granted.
    pub(super) fn advance_resize(&mut self, env: &Env<'_>, out: &mut Outcome) {
        if self.killing {
            return;
        }
        if self.resize_due().is_some_and(|at| at <= env.now) {
            self.carry_out_resize(env, out);
        }
        let Some(resize) = &mut self.resize else {
            return;
        };
        let through =
            |it: &Noted<Progress>| it.what.until.is_none() && it.what.restarting.is_empty();
        let Some(done) = resize.progress.take_if(|it| through(it)) else {
            return;
        };
        resize.actual = resize.allocated.clone();
        out.told.push(told(
            false,
            "ResizeCompleted",
            "completed",
            &resize.allocated,
            done.generation,
            "",
        ));
        out.changed = true;
        if resize.held.is_none() && resize.allocated.same_resources(&self.spec) {
            self.resize = None;
        }
    }

    fn carry_out_resize(&mut self, env: &Env<'_>, out: &mut Outcome) {
        let grace = seconds(
            self.spec.termination_grace_period_seconds.unwrap_or(30),
            env.scale,
        );
        let Some((allocated, actual)) = self
            .resize
            .as_ref()
            .map(|it| (it.allocated.clone(), it.actual.clone()))
        else {
            return;
        };
        let (mut settled, mut restarting) = (vec![], vec![]);
        for slot in self
            .slots()
            .filter(|it| self.resizable(*it))
            .collect::<Vec<_>>()
        {
            let (before, after) = (of(&actual, slot), of(&allocated, slot));
            if before == after {
                continue;
            }
            let runs = matches!(self.at(slot).todo, Todo::Run(_));
            if runs && self.spec_at(slot).restarts_for(before, after) {
                let name = &self.spec_at(slot).name;
                let why = format!("Container {name} resize requires restart");
                self.stop(slot, grace, true, why, env, out);
                restarting.push(slot);
            } else {
                settled.push(slot);
            }
        }
        if let Some(progress) = self.resize.as_mut().and_then(|it| it.progress.as_mut()) {
            progress.what = Progress {
                until: None,
                settled: settled.clone(),
                restarting,
            };
        }
        for slot in settled {
            self.reconsider(slot, env);
        }
        out.changed = true;
    }

    /// A container starts, with what is allocated.
    pub(super) fn starts_resized(&mut self, slot: Slot) {
        if let Some(progress) = self.resize.as_mut().and_then(|it| it.progress.as_mut())
            && progress.what.restarting.contains(&slot)
        {
            progress.what.restarting.retain(|it| *it != slot);
            progress.what.settled.push(slot);
        }
    }

    /// What is set aside for a container, and what it runs with.
    pub(super) fn resources(&self, slot: Slot) -> (&Resources, &Resources) {
        let Some(resize) = &self.resize else {
            let its = of(&self.spec, slot);
            return (its, its);
        };
        let settled = resize
            .progress
            .as_ref()
            .is_some_and(|it| it.what.settled.contains(&slot));
        let allocated = of(&resize.allocated, slot);
        (
            allocated,
            if settled {
                allocated
            } else {
                of(&resize.actual, slot)
            },
        )
    }

    /// What is set aside for the pod as a whole, and what it runs with, where its spec says so.
    pub(super) fn resources_in_all(&self) -> Option<(&Resources, &Resources)> {
        let Some(resize) = &self.resize else {
            let its = self.spec.resources.as_ref()?;
            return Some((its, its));
        };
        let allocated = resize.allocated.resources.as_ref()?;
        let settled = resize
            .progress
            .as_ref()
            .is_some_and(|it| it.what.until.is_none());
        let before = resize.actual.resources.as_ref();
        let actual = before.filter(|_| !settled).unwrap_or(allocated);
        Some((allocated, actual))
    }

    /// The conditions of its resize: type, reason, message, generation, since when; `None` for one that has
    /// been told of and holds no more.
    pub(super) fn resize_conditions(&self) -> Vec<(&'static str, Option<Said<'_>>)> {
        let resize = self.resize.as_ref().filter(|_| !self.finished());
        let held = resize.and_then(|it| it.held.as_ref()).map(|it| Said {
            why: Some((it.what.refusal.word(), &it.what.message)),
            generation: it.generation,
            since: it.since,
        });
        let progress = resize.and_then(|it| it.progress.as_ref()).map(|it| Said {
            why: None,
            generation: it.generation,
            since: it.since,
        });
        [(PENDING, held), (IN_PROGRESS, progress)]
            .into_iter()
            .zip(self.mentioned)
            .filter_map(|(it, mentioned)| mentioned.then_some(it))
            .collect()
    }

    /// Takes up a resize of which the status tells: what containers run with is what is set aside.
    pub(super) fn restore_resize(&mut self, status: &PodStatusWire, now: Millis) {
        let find = |name: &str| status.conditions.iter().find(|it| it.type_ == name);
        self.mentioned = [find(PENDING).is_some(), find(IN_PROGRESS).is_some()];
        // What has ended stays as it was reported.
        if self.mentioned == [false; 2] && !self.finished() {
            return;
        }
        let (mut actual, mut allocated) = ((*self.spec).clone(), (*self.spec).clone());
        for slot in self.slots().filter(|slot| self.resizable(*slot)) {
            let wires = match slot {
                Slot::Init(_) => &status.init_container_statuses,
                Slot::Main(_) => &status.container_statuses,
            };
            let name = &*self.spec_at(slot).name;
            // One that was never created tells nothing of what it would have got.
            let Some(wire) = wires.iter().find(|it| *it.name == *name && it.created()) else {
                continue;
            };
            let (runs_with, set_aside) = (
                wire.resources.clone().unwrap_or_default(),
                &wire.allocated_resources,
            );
            let allocated = resources_mut(&mut allocated, slot);
            if *set_aside != allocated.requests {
                allocated.limits.clone_from(&runs_with.limits);
                allocated.requests.clone_from(set_aside);
            }
            *resources_mut(&mut actual, slot) = runs_with;
        }
        if let (Some(whole), Some(runs_with)) = (&mut allocated.resources, &status.resources) {
            if status.allocated_resources != whole.requests {
                whole.limits.clone_from(&runs_with.limits);
                whole.requests.clone_from(&status.allocated_resources);
            }
            actual.resources = Some(runs_with.clone());
        }
        let (actual, allocated) = (Arc::new(actual), Arc::new(allocated));
        let held = find(PENDING).and_then(|it| held(it, now));
        // What was under way begins again; what has been granted meanwhile is through at once.
        let due =
            held.is_none() || find(IN_PROGRESS).is_some() || !actual.same_resources(&allocated);
        let progress = find(IN_PROGRESS)
            .or(find(PENDING))
            .filter(|_| due && !self.finished());
        let progress = progress.map(|it| Noted {
            what: Progress {
                until: Some(now),
                settled: vec![],
                restarting: vec![],
            },
            generation: it.observed_generation.unwrap_or(self.generation),
            since: it
                .last_transition_time
                .as_ref()
                .map_or(now, |it| it.0.into()),
        });
        let as_specified =
            actual.same_resources(&self.spec) && allocated.same_resources(&self.spec);
        if as_specified && held.is_none() && progress.is_none() {
            return;
        }
        self.mentioned[1] |= progress.is_some();
        self.resize = Some(Box::new(Resize {
            allocated,
            actual,
            held,
            progress,
        }));
    }

    /// Whether a container's resources can change while it runs.
    fn resizable(&self, slot: Slot) -> bool {
        matches!(slot, Slot::Main(_)) || self.role_at(slot) == Role::Sidecar
    }
}

/// What a condition says.
pub(super) struct Said<'a> {
    /// Reason and message.
    pub why: Option<(&'static str, &'a str)>,
    /// The generation that it speaks of.
    pub generation: i64,
    /// Since when.
    pub since: Millis,
}

fn held(wire: &ConditionWire, now: Millis) -> Option<Noted<Held>> {
    let refusals = [Refusal::Deferred, Refusal::Infeasible];
    let refusal = refusals
        .into_iter()
        .find(|it| Some(it.word()) == wire.reason.as_deref())?;
    let message = wire.message.as_deref().unwrap_or_default().into();
    Some(Noted {
        what: Held { refusal, message },
        generation: wire.observed_generation.unwrap_or(0),
        since: wire
            .last_transition_time
            .as_ref()
            .map_or(now, |it| it.0.into()),
    })
}

fn of(spec: &PodSpec, slot: Slot) -> &Resources {
    match slot {
        Slot::Init(index) => &spec.init_containers[index].resources,
        Slot::Main(index) => &spec.containers[index].resources,
    }
}

fn resources_mut(spec: &mut PodSpec, slot: Slot) -> &mut Resources {
    match slot {
        Slot::Init(index) => &mut spec.init_containers[index].resources,
        Slot::Main(index) => &mut spec.containers[index].resources,
    }
}
