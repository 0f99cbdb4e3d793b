//! The planner of ReleaseOrders: releases of many Groups, and Jobs between them, as a graph.
//!
//! [`plan`] keeps no memory of its own: what has been decided stands in the order's status, what has been
//! done in Releases and Jobs of names that follow from the order's. The shell writes the status first.
//! Each action is safe to repeat, so that a crash between any two loses nothing.
//!
//! - A node begins when all that it comes after have succeeded, and no more run than may.
//! - What depends on a failed node is never begun; what does not is run to its end.
//! - On the way back a node is taken back when all that come after it have been: releases under way turn
//!   round, those that succeeded are followed by one to the revision before, Jobs by their `undo`.
//! - What people do to the releases themselves counts: one that they abort has failed here.

mod back;
mod forward;
pub mod graph;

use std::collections::BTreeMap;

use gantry_api::{
    Release, ReleaseOrder, ReleaseOrderStatus, ReleaseSpec, StopLine,
    order::{Made, NodeState, NodeStatus, OrderNode, OrderPhase},
    release::{Phase, Turn},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

use crate::world::CellView;

/// Everything the planner looks at.
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// The order.
    pub order: &'a ReleaseOrder,
    /// Groups that nodes name, those that exist: the revision each is on.
    pub groups: BTreeMap<String, Option<i64>>,
    /// Releases by name: all that nodes may have made.
    pub releases: BTreeMap<String, &'a Release>,
    /// Jobs by name: all that nodes may have made, in cells that can be reached.
    pub jobs: BTreeMap<String, JobView>,
    /// Cells that nodes name, those that a cluster has.
    pub cells: BTreeMap<String, CellView>,
    /// The switches that stop the line, all of them.
    pub lines: &'a [StopLine],
    /// What the API refused to make, by name, and why.
    pub refused: BTreeMap<String, String>,
}

/// A Job as the planner sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobView {
    /// Whether it is of this order.
    pub ours: bool,
    /// Whether it has completed.
    pub complete: bool,
    /// Why it has failed, if it has.
    pub failed: Option<String>,
    /// Pods that run.
    pub active: i32,
    /// Whether it goes by itself, some time after its end.
    pub expires: bool,
    /// Whether it is not to run.
    pub suspended: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Hub: make a Release of this order. One of that name may be there already.
    CreateRelease {
        /// Its name.
        name: String,
        /// What it is.
        spec: Box<ReleaseSpec>,
    },
    /// Hub: press a button of a Release.
    Press {
        /// Its name.
        name: String,
        /// Which.
        button: Button,
    },
    /// Member: make a Job of this order. One of that name may be there already.
    CreateJob {
        /// The cell.
        cell: String,
        /// Its name.
        name: String,
        /// Its JobSpec.
        spec: Map<String, Value>,
    },
    /// Member: let a Job that has been taken note of go after a while.
    ExpireJob {
        /// The cell.
        cell: String,
        /// Its name.
        name: String,
    },
}

/// A button of a Release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    /// `paused`.
    Pause(bool),
    /// `abort`.
    Abort,
    /// `rollback`.
    Rollback,
}

/// What to do next. The status goes first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The order's new status.
    pub status: ReleaseOrderStatus,
    /// Then these, in order.
    pub actions: Vec<Action>,
    /// When to ask again even if nothing changes.
    pub wake: Option<Timestamp>,
}

/// How something that a node has made stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stand {
    /// Not there, and never seen.
    Absent,
    /// Under way, in one line.
    Running(String),
    /// Done, in one line.
    Done(String),
    /// Failed, in one line.
    Failed(String),
    /// Nobody can tell now, in one line why.
    Unknown(String),
}

/// To what end something is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// To do what the node says.
    Forward,
    /// To take that back.
    Undo,
    /// To do nothing. What was to be made and is not seen may have been made all the same, by a write
    /// that the view does not show yet; made again so as to do nothing, it is refused then, and seen.
    Fence,
}

/// Of what was never begun.
const UNTOUCHED: &str = "nothing was touched";

/// What is being worked out.
struct Desk<'a> {
    world: &'a World<'a>,
    now: Timestamp,
    status: ReleaseOrderStatus,
    actions: Vec<Action>,
    wake: Option<Timestamp>,
}

/// What to do next for an order.
pub fn plan(world: &World<'_>, now: Timestamp) -> Step {
    let mut desk = Desk {
        world,
        now,
        status: world.order.status.clone().unwrap_or_default(),
        actions: Vec::new(),
        wake: None,
    };
    desk.status.observed_generation = world.order.metadata.generation;
    desk.run();
    desk.expire();
    desk.count();
    Step {
        status: desk.status,
        actions: desk.actions,
        wake: desk.wake,
    }
}

impl Desk<'_> {
    fn run(&mut self) {
        let spec = &self.world.order.spec;
        let phase = self.status.phase;
        let over = matches!(
            phase,
            OrderPhase::Succeeded | OrderPhase::RolledBack | OrderPhase::Failed
        );
        let taken_back = phase == OrderPhase::Succeeded && spec.rollback;
        let withdrawn = phase == OrderPhase::Aborted && self.status.started.is_none();
        if over && !taken_back || withdrawn {
            return;
        }
        if self.status.started.is_none() && !self.begin() {
            return;
        }
        if spec.rollback && self.status.rollback.is_none() {
            self.turn("Requested", "rollback was asked for".to_owned());
        }
        if self.status.rollback.is_some() {
            self.back();
            return;
        }
        if spec.abort {
            self.aborted();
            return;
        }
        self.forward();
    }

    /// Whether it can be done at all. If so, it has begun.
    fn begin(&mut self) -> bool {
        let spec = &self.world.order.spec;
        if spec.abort || spec.rollback {
            let message = "ended before it began; nothing was touched".to_owned();
            self.end(OrderPhase::Aborted, "Withdrawn", message);
            return false;
        }
        let sorted = match graph::sorted(&spec.nodes) {
            Ok(sorted) => sorted,
            Err(why) => {
                self.end(OrderPhase::Failed, "Invalid", why);
                return false;
            }
        };
        let problems = self.problems();
        if !problems.is_empty() {
            self.end(OrderPhase::Failed, "Invalid", problems.join("; "));
            return false;
        }
        if spec.paused {
            self.say(
                OrderPhase::Paused,
                "Paused",
                "paused before it began".to_owned(),
            );
            return false;
        }
        self.status.nodes = sorted
            .into_iter()
            .map(|index| NodeStatus {
                name: spec.nodes[index].name.clone(),
                ..NodeStatus::default()
            })
            .collect();
        self.status.started = Some(Time(self.now));
        true
    }

    /// Groups and cells that are not there, and names that would be too long.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let order = self.name();
        for node in &self.world.order.spec.nodes {
            if let Some(release) = &node.release
                && !self.world.groups.contains_key(&release.group)
            {
                problems.push(format!(
                    "node {}: group {} does not exist",
                    node.name, release.group
                ));
            }
            if let Some(job) = &node.job
                && !self.world.cells.contains_key(&job.cell)
            {
                problems.push(format!(
                    "node {}: no cluster has a cell {}",
                    node.name, job.cell
                ));
            }
            let name = made_name(order, &node.name, 0, true);
            // Room for the number of a try.
            if name.len() > 63 - 4 {
                problems.push(format!(
                    "node {}: {name} is too long for the name of what it makes: at most {} characters",
                    node.name,
                    63 - 4
                ));
            }
        }
        problems
    }

    fn name(&self) -> &str {
        self.world
            .order
            .metadata
            .name
            .as_deref()
            .unwrap_or_default()
    }

    /// The order's own node of that name.
    fn node(&self, name: &str) -> Option<&OrderNode> {
        self.world.order.spec.nodes.iter().find(|n| n.name == name)
    }

    fn say(&mut self, phase: OrderPhase, reason: &str, message: String) {
        self.status.phase = phase;
        reason.clone_into(&mut self.status.reason);
        self.status.message = message;
    }

    fn end(&mut self, phase: OrderPhase, reason: &str, message: String) {
        self.say(phase, reason, message);
        self.status.finished = Some(Time(self.now));
    }

    /// From now on everything is taken back.
    fn turn(&mut self, reason: &str, message: String) {
        self.status.rollback = Some(Turn {
            reason: reason.to_owned(),
            message,
            at: Time(self.now),
            batch: 0,
        });
        self.status.finished = None;
    }

    /// Ended by the button: releases under way are aborted, the rest stays as it is.
    fn aborted(&mut self) {
        let mut under_way = Vec::new();
        for index in 0..self.status.nodes.len() {
            let node = self.status.nodes[index].clone();
            if node.state != NodeState::Running {
                continue;
            }
            let release = node
                .made
                .as_ref()
                .and_then(|m| self.world.releases.get(&m.name));
            match self.stand(&node, node.made.as_ref()) {
                Stand::Absent => {
                    self.make(&node.name, node.made.as_ref(), How::Fence);
                    under_way.push(node.name.clone());
                }
                Stand::Running(_) | Stand::Unknown(_) => {
                    if let Some(release) = release {
                        if !release.spec.abort {
                            self.press(&release_name(release), Button::Abort);
                        }
                        under_way.push(node.name.clone());
                    } else if self.fenced(node.made.as_ref()) {
                        self.take_note(index, &Stand::Failed(UNTOUCHED.to_owned()));
                    }
                }
                stand => self.take_note(index, &stand),
            }
        }
        if under_way.is_empty() {
            if self.status.phase != OrderPhase::Aborted {
                let message = format!("aborted: {}", self.told());
                self.end(OrderPhase::Aborted, "Requested", message);
            }
        } else {
            let message = format!("aborts {}", under_way.join(", "));
            self.say(OrderPhase::Running, "Aborting", message);
        }
    }

    fn press(&mut self, name: &str, button: Button) {
        self.actions.push(Action::Press {
            name: name.to_owned(),
            button,
        });
    }

    /// Whether a Job was made only to keep its name: it is not to run any more.
    fn fenced(&self, made: Option<&Made>) -> bool {
        made.and_then(|m| self.world.jobs.get(&m.name))
            .is_some_and(|job| job.suspended && job.active == 0)
    }

    /// How what `node` has made stands.
    fn stand(&self, node: &NodeStatus, made: Option<&Made>) -> Stand {
        let (Some(made), Some(wanted)) = (made, self.node(&node.name)) else {
            return Stand::Absent;
        };
        let refused = self.world.refused.get(&made.name).filter(|_| !made.seen);
        if let Some(why) = refused {
            return Stand::Failed(why.clone());
        }
        if let Some(job) = &wanted.job {
            return self.job(&job.cell, made);
        }
        let Some(release) = self.world.releases.get(&made.name) else {
            return if made.seen {
                Stand::Failed(format!("release {} has been deleted", made.name))
            } else {
                Stand::Absent
            };
        };
        if !ours(release, self.name()) {
            return Stand::Failed(format!(
                "there is a release {} that is not of this order",
                made.name
            ));
        }
        let status = release.status.clone().unwrap_or_default();
        let told = format!(
            "{} {}: {}",
            made.name,
            status.phase.as_str(),
            status.message
        );
        match status.phase {
            Phase::Succeeded => Stand::Done(told),
            // Pressed to go back: it has not ended yet.
            Phase::Aborted if release.spec.rollback && status.started.is_some() => {
                Stand::Running(told)
            }
            Phase::RolledBack | Phase::Aborted | Phase::Failed => Stand::Failed(told),
            _ => Stand::Running(told),
        }
    }

    fn job(&self, cell: &str, made: &Made) -> Stand {
        match self.world.cells.get(cell) {
            None => return Stand::Unknown(format!("no cluster has a cell {cell}")),
            Some(view) if !view.reachable => {
                return Stand::Unknown(crate::release::unreachable(view));
            }
            Some(_) => {}
        }
        let name = &made.name;
        match self.world.jobs.get(name) {
            None if made.seen => Stand::Failed(format!("job {name} has been deleted")),
            None => Stand::Absent,
            Some(job) if !job.ours => {
                Stand::Failed(format!("there is a job {name} that is not of this order"))
            }
            Some(job) if job.complete => Stand::Done(format!("job {name} has completed")),
            Some(job) => match &job.failed {
                Some(why) => Stand::Failed(format!("job {name} has failed: {why}")),
                None => Stand::Running(format!("job {name} runs in {cell}")),
            },
        }
    }

    /// Writes down how what a node has made stands.
    fn take_note(&mut self, index: usize, stand: &Stand) {
        let now = Time(self.now);
        let node = &mut self.status.nodes[index];
        let undoing = node.state == NodeState::Undoing;
        let made = if undoing {
            &mut node.undo
        } else {
            &mut node.made
        };
        if let Some(made) = made {
            let (releases, jobs) = (&self.world.releases, &self.world.jobs);
            made.seen |= releases.contains_key(&made.name) || jobs.contains_key(&made.name);
        }
        let (state, message) = match (stand, undoing) {
            (Stand::Absent, _) => return,
            (Stand::Running(told) | Stand::Unknown(told), _) => (node.state, told),
            (Stand::Done(told), false) => (NodeState::Succeeded, told),
            (Stand::Done(told), true) => (NodeState::Undone, told),
            (Stand::Failed(told), false) => (NodeState::Failed, told),
            (Stand::Failed(told), true) => (NodeState::UndoFailed, told),
        };
        if matches!(stand, Stand::Done(_) | Stand::Failed(_)) {
            node.finished = Some(now);
        }
        node.state = state;
        node.message.clone_from(message);
    }

    /// Makes the Release or Job of a node.
    fn make(&mut self, node: &str, made: Option<&Made>, how: How) {
        let (Some(made), Some(wanted)) = (made, self.node(node)) else {
            return;
        };
        let undo = how == How::Undo;
        let action = match (&wanted.release, &wanted.job) {
            (Some(_), _) => self.release_spec(wanted, undo).map(|mut spec| {
                spec.abort = how == How::Fence;
                Action::CreateRelease {
                    name: made.name.clone(),
                    spec: Box::new(spec),
                }
            }),
            (_, Some(job)) => {
                let spec = if undo {
                    job.undo.clone()
                } else {
                    Some(job.spec.clone())
                };
                spec.map(|mut spec| {
                    if let Some(deadline) = job.deadline {
                        let seconds = deadline.duration().as_secs().max(1);
                        spec.entry("activeDeadlineSeconds")
                            .or_insert(seconds.into());
                    }
                    // It stays until the order has taken note of its end.
                    spec.remove("ttlSecondsAfterFinished");
                    if how == How::Fence {
                        spec.insert("suspend".to_owned(), true.into());
                    }
                    Action::CreateJob {
                        cell: job.cell.clone(),
                        name: made.name.clone(),
                        spec,
                    }
                })
            }
            _ => None,
        };
        self.actions.extend(action);
    }

    /// Jobs whose end has been taken note of may go.
    fn expire(&mut self) {
        for index in 0..self.status.nodes.len() {
            let node = &self.status.nodes[index];
            let Some(job) = self.node(&node.name).and_then(|n| n.job.as_ref()) else {
                continue;
            };
            let forward = matches!(node.state, NodeState::Waiting | NodeState::Running);
            let back = node.state == NodeState::Undoing;
            let made = [(&node.made, forward), (&node.undo, back)];
            let noted =
                made.into_iter()
                    .filter(|(_, under_way)| !under_way)
                    .filter_map(|(made, _)| made.as_ref())
                    .filter(|made| {
                        self.world.jobs.get(&made.name).is_some_and(|j| {
                            j.ours && !j.expires && (j.complete || j.failed.is_some())
                        })
                    })
                    .map(|made| Action::ExpireJob {
                        cell: job.cell.clone(),
                        name: made.name.clone(),
                    })
                    .collect::<Vec<_>>();
            self.actions.extend(noted);
        }
    }

    /// How many nodes stand how, in words.
    fn told(&self) -> String {
        let count = |state: NodeState| {
            self.status
                .nodes
                .iter()
                .filter(|n| n.state == state)
                .count()
        };
        let words: Vec<String> = [
            (NodeState::Succeeded, "succeeded"),
            (NodeState::Failed, "failed"),
            (NodeState::Waiting, "not begun"),
            (NodeState::Undone, "taken back"),
            (NodeState::UndoFailed, "not taken back"),
        ]
        .into_iter()
        .map(|(state, word)| (count(state), word))
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect();
        words.join(", ")
    }

    fn count(&mut self) {
        let nodes = &self.status.nodes;
        let of = |states: &[NodeState]| -> Vec<&str> {
            nodes
                .iter()
                .filter(|n| states.contains(&n.state))
                .map(|n| n.name.as_str())
                .collect()
        };
        let back = self.status.rollback.is_some();
        let done = if back {
            NodeState::Undone
        } else {
            NodeState::Succeeded
        };
        self.status.progress.done = if nodes.is_empty() {
            String::new()
        } else {
            format!("{}/{}", of(&[done]).len(), nodes.len())
        };
        self.status.progress.running = of(&[NodeState::Running, NodeState::Undoing]).join(",");
        self.status.progress.failed = of(&[NodeState::Failed, NodeState::UndoFailed]).join(",");
    }
}

/// Name of what a node makes at its `attempt`th try, or of what takes it back.
pub fn made_name(order: &str, node: &str, attempt: i32, undo: bool) -> String {
    let back = if undo { "-back" } else { "" };
    let attempt = match attempt {
        0 => String::new(),
        n => format!("-{n}"),
    };
    format!("{order}-{node}{back}{attempt}")
}

/// Whether `release` was made by the order `name`.
fn ours(release: &Release, name: &str) -> bool {
    let labels = release.metadata.labels.as_ref();
    labels
        .and_then(|l| l.get(gantry_api::labels::ORDER))
        .is_some_and(|o| o == name)
}

/// Whether `order` makes the release `name` to take something back. Only the hub writes its status.
pub fn undoes(order: &ReleaseOrder, name: &str) -> bool {
    let status = order.status.as_ref();
    let back = status.filter(|s| s.rollback.is_some());
    let mut made = back.into_iter().flat_map(|s| &s.nodes);
    made.any(|n| n.undo.as_ref().is_some_and(|u| u.name == name))
}

fn release_name(release: &Release) -> String {
    release.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests;
