//! What befalls a pod from outside of it: its machine goes off, its node evicts it.

use super::{
    Condition, Failure, Pod, Sandbox, State, Todo,
    step::{Env, Occurrence, Outcome, Slot},
};
use std::{sync::Arc, time::Duration};

/// Exit code of a container whose end nobody saw.
const UNKNOWN: i32 = 255;

impl Pod {
    /// Its machine has been off: nothing of it runs any more. What may start again does so in a new
    /// sandbox, init containers first.
    pub(super) fn reboot(&mut self, env: &Env<'_>, out: &mut Outcome) {
        if self.finished() || self.sandbox == Sandbox::None {
            return;
        }
        let slots: Vec<Slot> = self.slots().collect();
        for slot in slots {
            match &self.at(slot).todo {
                Todo::Run(_) | Todo::Stop { .. } => {
                    self.ended(slot, UNKNOWN, Some("Unknown".into()), None, None, env, out);
                    let it = self.at_mut(slot);
                    (it.ready, it.started) = (false, false);
                }
                // What was on its way has to begin again.
                Todo::Pull { .. } | Todo::Start { .. } | Todo::Hook { .. } => {
                    self.at_mut(slot).todo = Todo::Begin
                }
                _ => {}
            }
        }
        for it in &mut self.ephemeral {
            it.end(UNKNOWN, env.now);
        }
        self.volumes = None;
        let again = !self.killing && self.main.iter().any(|it| !matches!(it.todo, Todo::Done));
        if again {
            self.sandbox = Sandbox::None;
            self.anew = !self.init.is_empty();
            for index in 0..self.init.len() {
                if matches!(&self.init[index].state, State::Terminated(_)) {
                    self.wait(Slot::Init(index), "PodInitializing", None);
                    // A new sandbox is no crash.
                    (self.init[index].todo, self.init[index].crashes) = (Todo::Begin, 0);
                }
            }
            out.told.push(Occurrence {
                warning: false,
                reason: "SandboxChanged",
                message: "Pod sandbox changed, it will be killed and re-created.".into(),
                field_path: None,
            });
        }
        out.changed = true;
    }

    /// Its node evicts it: killed at once, failed for good. Where the node is short of something, and not the
    /// pod to blame, it is marked as disrupted.
    pub(super) fn evict(
        &mut self,
        message: &Arc<str>,
        disrupted: bool,
        env: &Env<'_>,
        out: &mut Outcome,
    ) {
        if self.finished() {
            return;
        }
        self.failure = Some(Failure {
            reason: "Evicted".into(),
            message: message.clone(),
        });
        self.conditions.disrupted = disrupted.then(|| Condition {
            holds: true,
            reason: Some("TerminationByKubelet"),
            message: Some(message.to_string()),
            since: env.now,
            explained: true,
        });
        self.kill(Duration::ZERO, env, out);
        out.told.push(Occurrence {
            warning: true,
            reason: "Evicted",
            message: message.to_string(),
            field_path: None,
        });
        out.changed = true;
    }
}
