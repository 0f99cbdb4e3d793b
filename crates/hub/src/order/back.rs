//! The way back: what has been done is taken back, the last first.

use gantry_api::{
    Release, StrategySpec,
    order::{Made, NodeState, NodeStatus, OrderPhase},
    release::Phase,
    strategy::{Bastion, Batches, Pause, StrategyChoice},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Button, Desk, How, Stand, UNTOUCHED, made_name, release_name};

/// How a node that does not say goes back once it has succeeded.
pub(super) fn plain() -> StrategyChoice {
    StrategyChoice {
        name: None,
        inline: Some(StrategySpec {
            bastion: Bastion {
                instances: 0,
                ..Bastion::default()
            },
            batches: Batches {
                count: Some(1),
                ..Batches::default()
            },
            pause: Pause::Never,
            ..StrategySpec::default()
        }),
    }
}

/// What taking a node back comes to.
enum Back {
    /// It is as it was, or has to be left: in one line.
    Done(String),
    /// Under way, in one line.
    Wait(String),
    /// A release or Job of its own takes it back.
    Make,
}

impl Desk<'_> {
    pub(super) fn back(&mut self) {
        self.undo_again();
        for index in (0..self.status.nodes.len()).rev() {
            self.undo(index);
        }
        let why = self
            .status
            .rollback
            .as_ref()
            .map(|turn| turn.message.clone())
            .unwrap_or_default();
        let in_state = |state: NodeState| {
            self.status
                .nodes
                .iter()
                .filter(|n| n.state == state)
                .map(|n| format!("{}: {}", n.name, n.message))
                .collect::<Vec<_>>()
        };
        let (undoing, failed) = (
            in_state(NodeState::Undoing),
            in_state(NodeState::UndoFailed),
        );
        let clean = |n: &NodeStatus| matches!(n.state, NodeState::Undone | NodeState::Waiting);
        if self.status.nodes.iter().all(clean) {
            let left: Vec<String> = self
                .status
                .nodes
                .iter()
                .filter(|n| n.undo.is_none() && n.message.starts_with("left as it is"))
                .map(|n| format!("; {}: {}", n.name, n.message))
                .collect();
            let message = format!("taken back: {why}{}", left.concat());
            self.end(OrderPhase::RolledBack, "Done", message);
        } else if self.world.order.spec.paused {
            let message = format!("{why}; paused by the button");
            self.say(OrderPhase::RollingBack, "Paused", message);
        } else if undoing.is_empty() && !failed.is_empty() {
            let message = format!("{why}; {}: retry it", failed.join("; "));
            self.say(OrderPhase::RollingBack, "UndoFailed", message);
        } else {
            let state = undoing.into_iter().chain(failed).collect::<Vec<_>>();
            let message = format!("{why}; {}", state.join("; "));
            self.say(OrderPhase::RollingBack, "RollingBack", message);
        }
    }

    fn undo_again(&mut self) {
        let retry = self.world.order.spec.retry;
        if retry <= self.status.retried {
            return;
        }
        self.status.retried = retry;
        for node in &mut self.status.nodes {
            if node.state == NodeState::UndoFailed {
                node.state = NodeState::Undoing;
                node.undo = None;
            }
        }
    }

    /// Whether everything that comes after node `index` has been taken back, or was never begun.
    fn free(&self, index: usize) -> bool {
        let name = &self.status.nodes[index].name;
        self.world
            .order
            .spec
            .nodes
            .iter()
            .filter(|n| n.after.contains(name))
            .all(|later| {
                self.status.nodes.iter().any(|n| {
                    n.name == later.name
                        && matches!(n.state, NodeState::Undone | NodeState::Waiting)
                })
            })
    }

    fn undo(&mut self, index: usize) {
        let node = self.status.nodes[index].clone();
        match node.state {
            NodeState::Waiting | NodeState::Undone | NodeState::UndoFailed => return,
            NodeState::Running | NodeState::Succeeded | NodeState::Failed => {
                if node.state == NodeState::Running && !self.found(&node) {
                    self.make(&node.name, node.made.as_ref(), How::Fence);
                    return;
                }
                if !self.free(index) || self.world.order.spec.paused {
                    // What is under way stands still meanwhile: it is to go back in its turn.
                    self.still(&node);
                    return;
                }
                self.status.nodes[index].state = NodeState::Undoing;
                self.status.nodes[index].finished = None;
            }
            NodeState::Undoing => {}
        }
        if let Some(undo) = &node.undo {
            match self.stand(&node, Some(undo)) {
                Stand::Absent => self.make(&node.name, Some(undo), How::Undo),
                stand => self.take_note(index, &stand),
            }
            return;
        }
        match self.way(&node) {
            Back::Done(message) => {
                let entry = &mut self.status.nodes[index];
                entry.state = NodeState::Undone;
                entry.finished = Some(Time(self.now));
                entry.message = message;
            }
            Back::Wait(message) => self.status.nodes[index].message = message,
            Back::Make => {
                let name = made_name(self.name(), &node.name, self.status.retried, true);
                let undo = Made { name, seen: false };
                let entry = &mut self.status.nodes[index];
                entry.message = format!("makes {}", undo.name);
                entry.undo = Some(undo.clone());
                self.make(&node.name, Some(&undo), How::Undo);
            }
        }
    }

    /// Whether what a node was to make is there, or is known to be gone.
    fn found(&self, node: &NodeStatus) -> bool {
        self.stand(node, node.made.as_ref()) != Stand::Absent
    }

    fn still(&mut self, node: &NodeStatus) {
        let release = node
            .made
            .as_ref()
            .and_then(|m| self.world.releases.get(&m.name));
        if let Some(release) = release
            && node.state == NodeState::Running
            && !release.spec.paused
            && !ended(release)
        {
            self.press(&release_name(release), Button::Pause(true));
        }
    }

    /// How what a node has made is taken back.
    fn way(&mut self, node: &NodeStatus) -> Back {
        let Some(made) = &node.made else {
            return Back::Done(String::new());
        };
        if !made.seen && matches!(self.stand(node, Some(made)), Stand::Failed(_)) {
            return Back::Done(UNTOUCHED.to_owned());
        }
        if let Some(job) = self.node(&node.name).and_then(|n| n.job.clone()) {
            return match self.stand(node, Some(made)) {
                Stand::Running(_) if self.fenced(Some(made)) => Back::Done(UNTOUCHED.to_owned()),
                // What it does cannot be taken back while it does it.
                Stand::Running(told) | Stand::Unknown(told) => Back::Wait(told),
                _ if job.undo.is_some() => Back::Make,
                _ => Back::Done("left as it is: the job has no undo".to_owned()),
            };
        }
        let Some(release) = self.world.releases.get(&made.name).copied() else {
            return Back::Done(format!(
                "left as it is: release {} has been deleted",
                made.name
            ));
        };
        if !super::ours(release, self.name()) {
            return Back::Done(UNTOUCHED.to_owned());
        }
        let status = release.status.clone().unwrap_or_default();
        match status.phase {
            Phase::RolledBack => Back::Done(status.message),
            Phase::Succeeded | Phase::Failed if status.started.is_none() => {
                Back::Done(UNTOUCHED.to_owned())
            }
            Phase::Aborted if status.started.is_none() => Back::Done(UNTOUCHED.to_owned()),
            Phase::Succeeded | Phase::Failed => self.to_before(node, release),
            Phase::Aborted if release.spec.rollback && self.moved_on(release).is_some() => {
                self.to_before(node, release)
            }
            _ => {
                if !release.spec.rollback {
                    self.press(&made.name, Button::Rollback);
                } else if release.spec.paused {
                    // Held by the order before it turned round.
                    self.press(&made.name, Button::Pause(false));
                }
                Back::Wait(format!(
                    "{} {}: {}",
                    made.name,
                    status.phase.as_str(),
                    status.message
                ))
            }
        }
    }

    /// A release that has ended is followed by one to the revision before, unless the Group has gone on.
    fn to_before(&self, node: &NodeStatus, release: &Release) -> Back {
        if let Some(now) = self.moved_on(release) {
            return Back::Done(format!(
                "left as it is: group {} is on revision {now} by now",
                release.spec.group
            ));
        }
        match self.before(&node.name) {
            Some(_) => Back::Make,
            None => Back::Done(UNTOUCHED.to_owned()),
        }
    }

    /// The revision that a release's Group is on, where that is neither what it brought nor what was
    /// before.
    fn moved_on(&self, release: &Release) -> Option<i64> {
        let status = release.status.as_ref()?;
        let known = [&status.from, &status.target];
        let current = self
            .world
            .groups
            .get(&release.spec.group)
            .copied()
            .flatten()?;
        let ours = known.into_iter().flatten().any(|r| r.revision == current);
        (!ours).then_some(current)
    }

    /// The revision that a node's Group was on before.
    pub(super) fn before(&self, node: &str) -> Option<i64> {
        let made = self
            .status
            .nodes
            .iter()
            .find(|n| n.name == node)?
            .made
            .as_ref()?;
        let release = self.world.releases.get(&made.name)?;
        Some(release.status.as_ref()?.from.as_ref()?.revision)
    }
}

fn ended(release: &Release) -> bool {
    release.status.as_ref().is_some_and(|s| s.phase.is_final())
}
