//! Forward: what runs is watched, what may begin begins.

use gantry_api::{
    ReleaseSpec,
    order::{Made, NodeState, NodeStatus, OrderFailure, OrderNode, OrderPhase},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Button, Desk, How, Stand, made_name};
use crate::release::line;

impl Desk<'_> {
    pub(super) fn forward(&mut self) {
        self.again();
        self.look();
        let failed: Vec<String> = self
            .nodes_in(NodeState::Failed)
            .map(|n| format!("{}: {}", n.name, n.message))
            .collect();
        let spec = &self.world.order.spec;
        if !failed.is_empty() && spec.on_failure == OrderFailure::Rollback {
            self.turn("NodeFailed", failed.join("; "));
            self.back();
            return;
        }
        if !spec.paused {
            self.begin_nodes();
        }
        self.hold(spec.paused);
        if self
            .status
            .nodes
            .iter()
            .all(|n| n.state == NodeState::Succeeded)
        {
            let message = format!("all {} nodes have succeeded", self.status.nodes.len());
            self.end(OrderPhase::Succeeded, "Done", message);
            return;
        }
        self.tell(&failed);
    }

    fn nodes_in(&self, state: NodeState) -> impl Iterator<Item = &NodeStatus> {
        self.status.nodes.iter().filter(move |n| n.state == state)
    }

    /// What has failed is tried again where that is asked for.
    fn again(&mut self) {
        let retry = self.world.order.spec.retry;
        if retry <= self.status.retried {
            return;
        }
        self.status.retried = retry;
        for node in &mut self.status.nodes {
            if node.state == NodeState::Failed {
                node.state = NodeState::Waiting;
                node.message = String::new();
                node.made = None;
                node.held = false;
                node.finished = None;
            }
        }
    }

    /// Takes note of how what runs stands. What was decided to be made and is not there is made.
    fn look(&mut self) {
        for index in 0..self.status.nodes.len() {
            let node = self.status.nodes[index].clone();
            if node.state != NodeState::Running {
                continue;
            }
            match self.stand(&node, node.made.as_ref()) {
                Stand::Absent => self.make(&node.name, node.made.as_ref(), How::Forward),
                stand => self.take_note(index, &stand),
            }
        }
    }

    /// Begins what may begin.
    fn begin_nodes(&mut self) {
        let spec = &self.world.order.spec;
        let running = self.nodes_in(NodeState::Running).count();
        let limit = spec.at_once.and_then(|n| usize::try_from(n).ok());
        let mut room = limit.map_or(usize::MAX, |n| n.saturating_sub(running));
        for index in 0..self.status.nodes.len() {
            let node = self.status.nodes[index].clone();
            if node.state != NodeState::Waiting {
                continue;
            }
            let Some(wanted) = self.node(&node.name).cloned() else {
                continue;
            };
            if let Err(why) = self.may_begin(&wanted, room) {
                self.status.nodes[index].message = why;
                continue;
            }
            room -= 1;
            let made = Made {
                name: made_name(self.name(), &node.name, self.status.retried, false),
                seen: false,
            };
            let entry = &mut self.status.nodes[index];
            entry.state = NodeState::Running;
            entry.started = Some(Time(self.now));
            entry.message = format!("makes {}", made.name);
            entry.made = Some(made.clone());
            self.make(&node.name, Some(&made), How::Forward);
        }
    }

    /// Whether `node` may begin; `Err` says what it waits for.
    fn may_begin(&mut self, node: &OrderNode, room: usize) -> Result<(), String> {
        let state = |name: &str| {
            let found = self.status.nodes.iter().find(|n| n.name == name);
            found.map(|n| n.state).unwrap_or_default()
        };
        let missing: Vec<&str> = node
            .after
            .iter()
            .map(String::as_str)
            .filter(|a| state(a) != NodeState::Succeeded)
            .collect();
        if !missing.is_empty() {
            return Err(format!("waits for {}", missing.join(", ")));
        }
        if room == 0 {
            return Err("waits for others to end: as many run as may".to_owned());
        }
        if let Some(job) = &node.job {
            // A release looks at the line itself.
            let Some(cell) = self.world.cells.get(&job.cell) else {
                return Err(format!("no cluster has a cell {}", job.cell));
            };
            if !cell.reachable {
                return Err(crate::release::unreachable(cell));
            }
            let tenant = self.world.order.metadata.namespace.as_deref();
            let cells = std::slice::from_ref(cell);
            let (halt, wake) = line::halts(
                tenant.unwrap_or_default(),
                cells,
                self.world.lines,
                self.now,
            );
            self.wake = crate::release::tell::earlier(self.wake, wake);
            if let Some(why) = halt {
                return Err(why);
            }
        }
        Ok(())
    }

    /// While the order is paused its releases are; those that it has paused go on with it.
    fn hold(&mut self, paused: bool) {
        for index in 0..self.status.nodes.len() {
            let node = &self.status.nodes[index];
            let release = node
                .made
                .as_ref()
                .filter(|_| node.state == NodeState::Running)
                .and_then(|m| self.world.releases.get(&m.name));
            let Some(release) = release else {
                self.status.nodes[index].held = false;
                continue;
            };
            let name = super::release_name(release);
            let (held, stands) = (node.held, release.spec.paused);
            match (paused, stands, held) {
                (true, false, _) => {
                    self.status.nodes[index].held = true;
                    self.press(&name, Button::Pause(true));
                }
                (false, true, true) => self.press(&name, Button::Pause(false)),
                (false, false, true) => self.status.nodes[index].held = false,
                _ => {}
            }
        }
    }

    fn tell(&mut self, failed: &[String]) {
        let running: Vec<String> = self
            .nodes_in(NodeState::Running)
            .map(|n| n.name.clone())
            .collect();
        let told = self.told();
        if self.world.order.spec.paused {
            let rest = if running.is_empty() {
                String::new()
            } else {
                format!("; under way: {}", running.join(", "))
            };
            let message = format!("paused by the button{rest}");
            self.say(OrderPhase::Paused, "Paused", message);
        } else if !running.is_empty() {
            let (reason, first) = match failed.first() {
                Some(failure) => ("NodeFailed", format!("{failure}; ")),
                None => ("Running", String::new()),
            };
            let message = format!("{first}under way: {}", running.join(", "));
            self.say(OrderPhase::Running, reason, message);
        } else if !failed.is_empty() {
            let message = format!("{}; {told}: retry, rollback or abort it", failed.join("; "));
            self.say(OrderPhase::Paused, "NodeFailed", message);
        } else {
            let waiting = self.nodes_in(NodeState::Waiting);
            let words: Vec<String> = waiting
                .filter(|n| !n.message.starts_with("waits for "))
                .map(|n| format!("{}: {}", n.name, n.message))
                .collect();
            self.say(OrderPhase::Running, "Waiting", words.join("; "));
        }
    }

    /// The Release that a node makes: forward, or (`undo`) to the revision before.
    pub(super) fn release_spec(&self, node: &OrderNode, undo: bool) -> Option<ReleaseSpec> {
        let wanted = node.release.as_ref()?;
        let order = &self.world.order.spec;
        let (what, note) = if undo {
            let to = self.before(&node.name)?;
            let change = gantry_api::RevisionChange {
                to: Some(to),
                ..gantry_api::RevisionChange::default()
            };
            (change, format!("takes back order {}", self.name()))
        } else {
            (wanted.revision.clone(), order.note.clone())
        };
        Some(ReleaseSpec {
            group: wanted.group.clone(),
            revision: what,
            promote: wanted.promote.clone().filter(|_| !undo),
            strategy: if undo {
                Some(
                    wanted
                        .undo_strategy
                        .clone()
                        .unwrap_or_else(super::back::plain),
                )
            } else {
                wanted.strategy.clone()
            },
            requested_by: order.requested_by.clone(),
            note,
            ..ReleaseSpec::default()
        })
    }
}
