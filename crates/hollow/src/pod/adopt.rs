//! Taking a pod on: a new one from its spec, one that has run before from its status.
//!
//! The status is the only record of a pod's past. Times come from it in whole seconds, so what was
//! half-way is at most a second off when it goes on.

use super::{
    Condition, Conditions, Container, Course, Failure, Gate, Phase, Pod, Sandbox, State,
    Terminated, Todo,
    container::crash_backoff,
    step::{Env, Observed, Slot},
};
use crate::{
    clock::Millis,
    object::{
        ConditionWire, ContainerSpec, ContainerStatusWire, PodSpec, PodStatusWire, TerminatedWire,
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::{net::Ipv4Addr, sync::Arc};

/// Who a pod is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Arc<str>,
}

fn millis(time: Option<&Time>) -> Option<Millis> {
    time.map(|time| time.0.into())
}

/// What the readiness gates of the spec say in these conditions.
#[must_use]
pub(crate) fn gates(spec: &PodSpec, conditions: &[ConditionWire]) -> Box<[Gate]> {
    let find = |name: &str| conditions.iter().find(|it| it.type_ == name);
    spec.readiness_gates
        .iter()
        .map(|gate| match find(&gate.condition_type) {
            None => Gate::Missing,
            Some(it) if it.status == "True" => Gate::True,
            Some(it) => Gate::Other(it.status.as_str().into()),
        })
        .collect()
}

impl Pod {
    /// A pod as the API server shows it for the first time.
    #[must_use]
    pub fn take_on(
        id: Identity,
        node: Arc<str>,
        host_ip: Arc<str>,
        task: bool,
        seen: Observed,
        status: &PodStatusWire,
        env: &mut Env<'_>,
    ) -> Self {
        let Observed {
            spec,
            generation,
            labels,
            overrides,
            gates,
            source,
            deletion: _,
        } = seen;
        let reason = if spec.init_containers.is_empty() {
            "ContainerCreating"
        } else {
            "PodInitializing"
        };
        let fresh = |image: &Arc<str>| Container::new(image.clone(), reason);
        let mut pod = Self {
            id,
            node,
            host_ip,
            labels,
            overrides,
            task,
            generation,
            gates,
            phase: Phase::Pending,
            failure: None,
            start_time: millis(status.start_time.as_ref()),
            sandbox: Sandbox::None,
            ip: None,
            init: spec
                .init_containers
                .iter()
                .map(|it| fresh(&it.image))
                .collect(),
            main: spec.containers.iter().map(|it| fresh(&it.image)).collect(),
            ephemeral: spec
                .ephemeral_containers
                .iter()
                .map_while(|it| ephemeral(it, status, env.now))
                .collect(),
            conditions: conditions(&status.conditions, env.now),
            // The deletion is seen, and acted upon, in the first step.
            deletion: None,
            killing: false,
            anew: false,
            volumes: None,
            resize: None,
            mentioned: [false; 2],
            source,
            prepared: spec.resource_claims.is_empty()
                && status.extended_resource_claim_status.is_none(),
            unprepared: None,
            spec,
        };
        pod.phase = match status.phase.as_deref() {
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Pending,
        };
        if let Some(reason) = &status.reason {
            let message = status.message.as_deref().unwrap_or_default().into();
            pod.failure = Some(Failure {
                reason: reason.as_str().into(),
                message,
            });
        }
        if !pod.spec.host_network
            && let Some(ip) = status
                .pod_ip
                .as_ref()
                .and_then(|ip| ip.parse::<Ipv4Addr>().ok())
        {
            pod.ip = Some(ip);
        }
        if status.pod_ip.is_some() && pod.start_time.is_some() {
            pod.sandbox = Sandbox::Ready;
        }
        pod.restore_resize(status, env.now);
        for slot in pod.slots().collect::<Vec<_>>() {
            let list = match slot {
                Slot::Init(_) => &status.init_container_statuses,
                Slot::Main(_) => &status.container_statuses,
            };
            if let Some(wire) = list.iter().find(|it| it.name == *pod.spec_at(slot).name) {
                pod.restore(slot, wire, env);
            }
            if pod.finished() {
                pod.at_mut(slot).todo = Todo::Done;
            }
        }
        pod
    }

    fn restore(&mut self, slot: Slot, wire: &ContainerStatusWire, env: &mut Env<'_>) {
        let mut it = Container::new(wire.image.clone(), "ContainerCreating");
        it.restarts = wire.restart_count;
        it.ready = wire.ready;
        it.started = wire.started.unwrap_or(false);
        it.crashes = wire.restart_count;
        let last_attempt = wire.restart_count.saturating_sub(1);
        it.last = wire
            .last_state
            .terminated
            .as_ref()
            .map(|end| Box::new(terminated(end, last_attempt, env.now)));
        it.created = it.last.is_some() || wire.restart_count > 0;
        if it.created {
            // The image is on the node: a container was made of it.
            env.images.put(wire.image.clone(), env.now);
        }
        if let Some(running) = &wire.state.running {
            let since = millis(running.started_at.as_ref()).unwrap_or(env.now);
            env.images.put(wire.image.clone(), env.now);
            it.created = true;
            it.state = State::Running { since };
            // What it has left in volumes since its start is not known any more.
            let ran = self.program(slot, it.restarts, env.host);
            it.program = ran.map(|(program, ..)| Box::new(program));
            let mut course = self.course(slot, &it, since, env);
            course.carry_on(it.started, it.ready, env.now);
            it.todo = Todo::Run(Box::new(course));
        } else if let Some(end) = &wire.state.terminated {
            it.created = true;
            it.crashes = it.crashes.saturating_add(1);
            it.state = State::Terminated(Box::new(terminated(end, it.restarts, env.now)));
            it.todo = if self.restarts_after(slot, end.exit_code) {
                Todo::Begin
            } else {
                Todo::Done
            };
        } else if let Some(waiting) = &wire.state.waiting {
            let reason = waiting_reason(waiting.reason.as_deref().unwrap_or_default());
            it.state = State::Waiting {
                reason,
                message: waiting.message.clone(),
            };
            if let (true, Some(last)) = (it.created, &it.last) {
                it.crashes = it.crashes.saturating_add(1);
                // The run that ended was the one the count of restarts speaks of.
                let finished = last.finished;
                if let Some(last) = &mut it.last {
                    last.attempt = it.restarts;
                }
                if reason == "CrashLoopBackOff" {
                    let until = finished.plus(crash_backoff(it.crashes, env.scale));
                    it.todo = Todo::CrashBackoff { until };
                }
            }
        }
        *self.at_mut(slot) = it;
    }
}

impl Course {
    /// What has been reached stays reached, and failing probes are told about from now on.
    fn carry_on(&mut self, started: bool, ready: bool, now: Millis) {
        if started
            && matches!(
                self.end,
                Some((_, super::End::Probe(super::ProbeKind::Startup)))
            )
        {
            self.end = None;
        }
        if ready {
            self.ready = None;
            self.recovered(now);
        }
        for complaint in &mut self.complaints {
            complaint.next = complaint.next.max(now);
        }
        self.complaints.retain(|it| {
            it.until.is_none_or(|until| it.next < until) && !(ready && it.next <= now)
        });
    }
}

fn terminated(wire: &TerminatedWire, attempt: u32, now: Millis) -> Terminated {
    let finished = millis(wire.finished_at.as_ref()).unwrap_or(now);
    Terminated {
        attempt,
        code: wire.exit_code,
        reason: wire.reason.clone().unwrap_or_else(|| "Error".into()),
        message: wire.message.clone(),
        started: millis(wire.started_at.as_ref()).unwrap_or(finished),
        finished,
    }
}

fn waiting_reason(text: &str) -> &'static str {
    [
        "CrashLoopBackOff",
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "PodInitializing",
    ]
    .into_iter()
    .find(|known| *known == text)
    .unwrap_or("ContainerCreating")
}

fn conditions(wire: &[ConditionWire], now: Millis) -> Conditions {
    let known = |text: &str| {
        [
            "ContainersNotReady",
            "ContainersNotInitialized",
            "ReadinessGatesNotReady",
            "PodCompleted",
            "PodFailed",
            "TerminationByKubelet",
        ]
        .into_iter()
        .find(|known| *known == text)
    };
    let get = |name: &str| {
        wire.iter().find(|it| it.type_ == name).map(|it| Condition {
            holds: it.status == "True",
            reason: it.reason.as_deref().and_then(known),
            message: it.message.clone().filter(|it| !it.is_empty()),
            since: millis(it.last_transition_time.as_ref()).unwrap_or(now),
            explained: it.reason.is_some(),
        })
    };
    let scheduled = wire
        .iter()
        .any(|it| it.type_ == "PodScheduled" && it.status == "True");
    Conditions {
        ready_to_start: get("PodReadyToStartContainers"),
        initialized: get("Initialized"),
        disrupted: get("DisruptionTarget").filter(|it| it.reason == Some("TerminationByKubelet")),
        ready: get("Ready"),
        containers_ready: get("ContainersReady"),
        // A pod that was created with a node's name has never met a scheduler.
        scheduled: (!scheduled).then_some(Condition {
            holds: true,
            reason: None,
            message: None,
            since: now,
            explained: false,
        }),
    }
}
/// An ephemeral container that has run before.
fn ephemeral(spec: &ContainerSpec, status: &PodStatusWire, now: Millis) -> Option<Container> {
    let mut wires = status.ephemeral_container_statuses.iter();
    let wire = wires.find(|it| it.name == *spec.name)?;
    let mut it = Container::new(spec.image.clone(), "ContainerCreating");
    it.created = true;
    it.state = match (&wire.state.running, &wire.state.terminated) {
        (Some(running), _) => State::Running {
            since: millis(running.started_at.as_ref()).unwrap_or(now),
        },
        (None, Some(end)) => State::Terminated(Box::new(terminated(end, 0, now))),
        (None, None) => return None,
    };
    Some(it)
}
