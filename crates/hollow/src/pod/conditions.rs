//! The conditions a kubelet reports of a pod.
//!
//! Rules and words are the kubelet's (`pkg/kubelet/status/generate.go`): Initialized follows the init
//! containers, ContainersReady the containers, Ready is ContainersReady and every readiness gate.

use super::{Container, Phase, Pod, Sandbox, State};
use crate::{
    clock::Millis,
    object::{ContainerSpec, PodSpec, RestartPolicy},
};

/// What a pod's gate says, as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// There is no such condition yet.
    #[default]
    Missing,
    /// It holds.
    True,
    /// It does not; its status as written.
    Other(Box<str>),
}

/// A condition as reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it holds.
    pub holds: bool,
    /// Why not.
    pub reason: Option<&'static str>,
    /// Why not, for people.
    pub message: Option<String>,
    /// Since when.
    pub since: Millis,
    /// Whether a reason has ever been reported, and must be taken back when there is none.
    pub explained: bool,
}

/// The four conditions that are the kubelet's own, and the one it sets if the scheduler has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The sandbox has an address.
    pub ready_to_start: Option<Condition>,
    /// Init containers are through.
    pub initialized: Option<Condition>,
    /// The pod takes traffic.
    pub ready: Option<Condition>,
    /// All containers are ready.
    pub containers_ready: Option<Condition>,
    /// Set if nobody else had set it.
    pub scheduled: Option<Condition>,
    /// Set when the kubelet evicts the pod.
    pub disrupted: Option<Condition>,
}

/// Sets a condition; whether that changed it. The transition time moves with the status alone.
fn set(
    slot: &mut Option<Condition>,
    holds: bool,
    why: Option<(&'static str, String)>,
    now: Millis,
) -> bool {
    let (reason, message) = match why {
        Some((reason, message)) => (Some(reason), Some(message).filter(|it| !it.is_empty())),
        None => (None, None),
    };
    match slot {
        Some(it) if it.holds == holds && it.reason == reason && it.message == message => false,
        _ => {
            let since = slot
                .as_ref()
                .filter(|it| it.holds == holds)
                .map_or(now, |it| it.since);
            let explained = reason.is_some() || slot.as_ref().is_some_and(|it| it.explained);
            *slot = Some(Condition {
                holds,
                reason,
                message,
                since,
                explained,
            });
            true
        }
    }
}

impl Pod {
    /// Brings the conditions in line with the containers; whether one changed.
    pub(super) fn settle_conditions(&mut self, now: Millis) -> bool {
        let sandbox = self.sandbox == Sandbox::Ready && !self.finished();
        let initialized = initialized(self);
        let containers = containers_ready(self);
        let ready = match &containers {
            Some(why) => Some(why.clone()),
            None => gates(&self.spec, &self.gates),
        };
        let it = &mut self.conditions;
        let mut changed = set(&mut it.ready_to_start, sandbox, None, now);
        changed |= set(&mut it.initialized, initialized.0, initialized.1, now);
        changed |= set(&mut it.ready, ready.is_none(), ready, now);
        changed |= set(
            &mut it.containers_ready,
            containers.is_none(),
            containers,
            now,
        );
        changed
    }
}

type Why = (&'static str, String);

fn names<'a>(specs: impl Iterator<Item = &'a ContainerSpec>) -> String {
    let names: Vec<&str> = specs.map(|spec| &*spec.name).collect();
    format!("[{}]", names.join(" "))
}

fn initialized(pod: &Pod) -> (bool, Option<Why>) {
    if pod.phase == Phase::Succeeded {
        return (true, Some(("PodCompleted", String::new())));
    }
    // Once a container has run, the init containers have been through, whatever became of them.
    if pod.main.iter().any(|container| container.created) {
        return (true, None);
    }
    let incomplete = names(
        pod.spec
            .init_containers
            .iter()
            .zip(&pod.init)
            .filter(|(spec, it)| !init_passed(spec, it))
            .map(|(spec, _)| spec),
    );
    if incomplete == "[]" {
        (true, None)
    } else {
        (
            false,
            Some((
                "ContainersNotInitialized",
                format!("containers with incomplete status: {incomplete}"),
            )),
        )
    }
}

/// Whether an init container lets the next one start.
pub(super) fn init_passed(spec: &ContainerSpec, container: &Container) -> bool {
    if spec.restart_policy == Some(RestartPolicy::Always) {
        container.started
    } else {
        matches!(&container.state, State::Terminated(end) if end.code == 0)
    }
}

/// `None`: all are ready.
fn containers_ready(pod: &Pod) -> Option<Why> {
    match pod.phase {
        Phase::Succeeded => return Some(("PodCompleted", String::new())),
        Phase::Failed => return Some(("PodFailed", String::new())),
        Phase::Pending | Phase::Running => {}
    }
    let sidecars = pod
        .spec
        .init_containers
        .iter()
        .zip(&pod.init)
        .filter(|(spec, _)| spec.restart_policy == Some(RestartPolicy::Always));
    let unready = names(
        sidecars
            .chain(pod.spec.containers.iter().zip(&pod.main))
            .filter(|(_, it)| !it.ready)
            .map(|(spec, _)| spec),
    );
    (unready != "[]").then(|| {
        (
            "ContainersNotReady",
            format!("containers with unready status: {unready}"),
        )
    })
}

/// `None`: all gates hold.
fn gates(spec: &PodSpec, gates: &[Gate]) -> Option<Why> {
    let open: Vec<String> = spec
        .readiness_gates
        .iter()
        .zip(gates)
        .filter_map(|(gate, status)| {
            let name = &gate.condition_type;
            match status {
                Gate::True => None,
                Gate::Missing => Some(format!(
                    "corresponding condition of pod readiness gate \"{name}\" does not exist."
                )),
                Gate::Other(status) => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {status}"
                )),
            }
        })
        .collect();
    (!open.is_empty()).then(|| ("ReadinessGatesNotReady", open.join(", ")))
}
