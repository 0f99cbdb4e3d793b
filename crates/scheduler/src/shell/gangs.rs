//! Gangs in the shell: all members that found their nodes are bound together, or none.

use super::calls::PodEvent;
use super::driver::Driver;
use super::preemption::spared;
use crate::core::gang::{GangId, Member, TIMEOUT};
use crate::core::preempt::Preemption;
use crate::core::{ClassId, Diagnosis};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::time::Duration;

/// Members of one gang that were placed together and are not bound yet.
struct Run {
    gang: GangId,
    members: FxHashSet<Arc<str>>,
    /// Those that could be bound: nothing is awaited for them any more.
    ready: Vec<(Arc<str>, String)>,
    until: Duration,
    timeout: Duration,
}

/// All such runs.
#[derive(Default)]
pub(super) struct Runs {
    all: FxHashMap<u64, Run>,
    next: u64,
}

impl Runs {
    /// When the first of them has taken too long.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.all.values().map(|run| run.until).min()
    }
}

impl Driver {
    /// The next pod is of a gang: decides the whole of it.
    pub(super) fn take_up_gang(&mut self, class: ClassId, gang: GangId, now: Duration) {
        let classes = self.cluster.gang_classes(gang);
        let mut members: Vec<(u64, Arc<str>, ClassId)> = Vec::new();
        for class in &classes {
            let waiting = self.queue.pods_of(*class);
            members.extend(waiting.map(|(seq, uid)| (seq, uid.clone(), *class)));
        }
        members.sort_unstable();
        let members: Vec<(Arc<str>, ClassId)> = members
            .into_iter()
            .map(|(_, uid, class)| (uid, class))
            .collect();
        let incomplete = self.cluster.gang_incomplete(class, gang, members.len());
        let placed = match incomplete {
            Some(diagnosis) => Err(diagnosis),
            None => {
                let spared = spared(&self.pending);
                let placed = self.cluster.place_gang(gang, &members, spared);
                placed.map_err(|(_, diagnosis)| diagnosis)
            }
        };
        match placed {
            Ok(placed) => self.start_gang(gang, placed, now),
            Err(diagnosis) => {
                let diagnosis = Arc::new(diagnosis);
                for class in classes {
                    if self.queue.is_active(class) {
                        for uid in self.queue.park(class, diagnosis.clone(), now) {
                            self.report_later(&uid, diagnosis.clone());
                        }
                    }
                }
            }
        }
    }

    fn start_gang(&mut self, gang: GangId, placed: Vec<Member>, now: Duration) {
        let timeout = self.cluster.gang(gang).timeout.unwrap_or(TIMEOUT);
        let id = self.gangs.next;
        self.gangs.next += 1;
        let run = Run {
            gang,
            members: placed.iter().map(|m| m.uid.clone()).collect(),
            ready: Vec::new(),
            until: now + timeout,
            timeout,
        };
        self.gangs.all.insert(id, run);
        for member in &placed {
            self.queue.placed(&member.uid);
            self.count_placed();
            if let Some(pending) = self.pending.get_mut(&member.uid) {
                pending.decided = true;
                pending.unreported = None;
                pending.run = Some(id);
            }
        }
        for Member {
            uid,
            class,
            node,
            victims,
        } in placed
        {
            if victims.is_empty() {
                let name = self.cluster.node_name(node).to_owned();
                self.settle(&uid, name);
            } else {
                let summary = "pods of lower priority have to leave for the pod's group".to_owned();
                let diagnosis = Diagnosis {
                    summary,
                    ..Diagnosis::default()
                };
                self.start_preemption(&uid, class, Preemption { node, victims }, &diagnosis);
            }
        }
    }

    /// A pod could be bound. Returns whether it has to wait for the rest of its gang.
    pub(super) fn waits_for_gang(&mut self, uid: &Arc<str>, node: &str) -> bool {
        let Some(id) = self.pending.get(uid).and_then(|p| p.run) else {
            return false;
        };
        let Some(run) = self.gangs.all.get_mut(&id) else {
            return false;
        };
        run.ready.push((uid.clone(), node.to_owned()));
        if run.ready.len() < run.members.len() {
            return true;
        }
        let ready = self.gangs.all.remove(&id).map(|run| run.ready);
        for (uid, node) in ready.into_iter().flatten() {
            if let Some(pending) = self.pending.get_mut(&uid) {
                pending.run = None;
            }
            self.start_bind(&uid, node);
        }
        true
    }

    /// A member is gone or will not be bound: the others give their room back, too.
    pub(super) fn break_gang(&mut self, id: u64, but: &str) {
        let Some(run) = self.gangs.all.remove(&id) else {
            return;
        };
        for uid in run.members.iter().filter(|uid| ***uid != *but) {
            let Some(pending) = self.pending.get_mut(uid) else {
                continue;
            };
            pending.run = None;
            if pending.waits.is_some() {
                self.give_up_waiting(uid);
            } else {
                self.take_back(uid);
            }
        }
    }

    /// Gives up gangs that have taken too long.
    pub(super) fn look_at_gangs(&mut self, now: Duration) {
        let late: Vec<u64> = self
            .gangs
            .all
            .iter()
            .filter(|(_, run)| run.until <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let Some(run) = self.gangs.all.get(&id) else {
                continue;
            };
            let message = format!(
                "pod group {} gives its room back: {} of {} members could be bound within {} s",
                self.cluster.compiler.symbols.text(run.gang.name),
                run.ready.len(),
                run.members.len(),
                run.timeout.as_secs()
            );
            let told = run.members.iter().filter_map(|uid| self.pending.get(uid));
            let told: Vec<_> = told.map(|pending| pending.pod.clone()).collect();
            for pod in told {
                self.emit(PodEvent {
                    pod,
                    warning: true,
                    reason: "GangTimedOut",
                    message: message.clone(),
                    decision: None,
                });
            }
            self.break_gang(id, "");
        }
    }
}
