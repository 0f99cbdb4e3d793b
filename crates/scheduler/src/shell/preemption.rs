//! Room that is made: the pod is held on its node until those that leave it are gone, and is bound then.
//!
//! A pod that only waits for room gives way to one of higher priority, as in Kubernetes: it is decided anew, and is told
//! that no node is nominated for it any more. And it does not wait where another node has come to have room.

use super::calls::{CallError, PodEvent, PodRef, preempt, report_unschedulable};
use super::driver::{Driver, Pending};
use crate::core::preempt::Preemption;
use crate::core::{ClassId, Diagnosis};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often a pod that waits for others to leave is tried elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(1);

/// Room that is being made.
pub(super) struct Waits {
    pub(super) node: String,
    pub(super) victims: FxHashSet<Arc<str>>,
}

/// A preemption that was written, or was not.
pub(super) struct Preempted {
    pod: PodRef,
    result: Result<(), CallError>,
}

/// Who waits for which pods to be gone; several may wait for the same.
#[derive(Default)]
pub(super) struct Victims {
    waiters: FxHashMap<Arc<str>, Vec<Arc<str>>>,
    /// When those who wait are next tried elsewhere.
    pub(super) next: Option<Duration>,
}

impl Victims {
    fn add(&mut self, victim: &Arc<str>, waiter: &Arc<str>) {
        let waiters = self.waiters.entry(victim.clone()).or_default();
        if !waiters.contains(waiter) {
            waiters.push(waiter.clone());
        }
    }

    /// One does not wait for it any more.
    pub(super) fn remove(&mut self, victim: &str, waiter: &str) {
        if let Some(waiters) = self.waiters.get_mut(victim) {
            waiters.retain(|w| **w != *waiter);
            if waiters.is_empty() {
                self.waiters.remove(victim);
            }
        }
    }

    fn waiting(&self) -> FxHashSet<Arc<str>> {
        self.waiters.values().flatten().cloned().collect()
    }
}

/// Which pods must not be pushed aside: those that were decided and are not seen bound, unless they only wait for room.
/// Members of a gang wait for each other.
pub(super) fn spared(pending: &FxHashMap<Arc<str>, Pending>) -> impl Fn(&str) -> bool + '_ {
    |uid| {
        pending
            .get(uid)
            .is_some_and(|p| p.waits.is_none() || p.run.is_some())
    }
}

impl Driver {
    /// Goes on where an earlier scheduler made room for the pod. Returns whether that settles it.
    pub(super) fn take_up(&mut self, uid: &Arc<str>, class: ClassId) -> bool {
        let nominated = self.pending.get_mut(uid).and_then(|p| p.nominated.take());
        let Some(room) = nominated.and_then(|node| self.cluster.room_made(class, &node)) else {
            return false;
        };
        if room.victims.is_empty() {
            let node = self.cluster.node_name(room.node).to_owned();
            self.cluster.place_at(uid, class, room.node);
            self.queue.placed(uid);
            self.settle(uid, node);
        } else {
            self.hold(uid, class, &room);
        }
        true
    }

    /// Books the pod on the node where room is being made, so that nobody else takes it, and makes the room.
    pub(super) fn start_preemption(
        &mut self,
        uid: &Arc<str>,
        class: ClassId,
        room: Preemption,
        diagnosis: &Diagnosis,
    ) {
        self.options.metrics.preemptions.fetch_add(1, Relaxed);
        // Those who leave a full quota may be on other nodes.
        let mut nodes: Vec<String> = Vec::new();
        for victim in &room.victims {
            if let Some(placed) = self.cluster.placed(victim) {
                nodes.push(self.cluster.node_name(placed.node).to_owned());
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        let node = self.hold(uid, class, &room);
        let Some(pending) = self.pending.get_mut(uid).filter(|p| p.waits.is_some()) else {
            return;
        };
        let event = PodEvent {
            pod: pending.pod.clone(),
            warning: true,
            reason: "FailedScheduling",
            message: diagnosis.summary.clone(),
            decision: None,
        };
        let (client, pod, events) = (
            self.client.clone(),
            pending.pod.clone(),
            self.events.clone(),
        );
        let message = diagnosis.summary.clone();
        let turned = !matches!(pending.condition, Some((true, _)));
        pending.condition = Some((true, message.as_str().into()));
        pending.nominated_told = true;
        self.emit(event);
        self.preemptions.spawn(async move {
            let mut result = report_unschedulable(&client, &pod, &message, turned, false).await;
            if result.is_ok() {
                result = preempt(&client, &pod, &node, (&nodes, &room.victims), &events).await;
            }
            Preempted { pod, result }
        });
    }

    /// Books the pod on a node where others are to leave for it. Those of them that only wait for room themselves are not
    /// sent away but decided anew; where there are no others, the pod waits for nobody.
    fn hold(&mut self, uid: &Arc<str>, class: ClassId, room: &Preemption) -> String {
        let node = self.cluster.node_name(room.node).to_owned();
        let mut victims: FxHashSet<Arc<str>> = FxHashSet::default();
        for victim in &room.victims {
            if self.pending.contains_key(victim) {
                self.give_up_waiting(victim);
            } else {
                victims.insert(victim.clone());
            }
        }
        self.cluster.place_at(uid, class, room.node);
        self.queue.placed(uid);
        for victim in &victims {
            self.victims.add(victim, uid);
        }
        let is_alone = victims.is_empty();
        if let Some(pending) = self.pending.get_mut(uid) {
            pending.decided = true;
            pending.unreported = None;
            pending.waits = Some(Waits {
                node: node.clone(),
                victims,
            });
            if is_alone {
                pending.waits = None;
            }
        }
        if is_alone {
            self.settle(uid, node.clone());
        } else {
            let next = self.now() + ELSEWHERE;
            self.victims.next.get_or_insert(next);
        }
        node
    }

    pub(super) fn preempted(&mut self, preempted: Result<Preempted, tokio::task::JoinError>) {
        match preempted {
            Ok(Preempted {
                pod,
                result: Ok(()),
            }) => {
                // It may have given way meanwhile, and have been told so before it was told this.
                if let Some(pending) = self.pending.get_mut(&pod.uid) {
                    pending.nominated_told = true;
                }
            }
            Ok(Preempted {
                pod,
                result: Err(error),
            }) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, pod = %pod.name, namespace = %pod.namespace, "preemption failed, will try again");
                self.give_up_waiting(&pod.uid);
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a preemption ended without a result"
                );
            }
        }
    }

    /// The room that a pod waits for will not come, or another takes it: it is decided anew.
    pub(super) fn give_up_waiting(&mut self, uid: &Arc<str>) {
        if self.stop_waiting(uid).is_some() {
            self.take_back(uid);
        }
    }

    fn stop_waiting(&mut self, uid: &Arc<str>) -> Option<Waits> {
        let waits = self.pending.get_mut(uid)?.waits.take()?;
        for victim in &waits.victims {
            self.victims.remove(victim, uid);
        }
        Some(waits)
    }

    /// A victim is gone; after the last one the pod is bound, if its node still takes it.
    pub(super) fn victim_gone(&mut self, victim: &str) {
        for uid in self.victims.waiters.remove(victim).unwrap_or_default() {
            let Some(pending) = self.pending.get_mut(&uid) else {
                continue;
            };
            let Some(waits) = &mut pending.waits else {
                continue;
            };
            waits.victims.remove(victim);
            if waits.victims.is_empty()
                && let Some(Waits { node, .. }) = pending.waits.take()
            {
                // The node may have been cordoned meanwhile, or have less than it had.
                match self.cluster.refusal(&uid) {
                    None => self.settle(&uid, node),
                    Some(why) => {
                        tracing::debug!(pod = %uid, node, why, "the room that was made is of no use any more");
                        self.take_back(&uid);
                    }
                }
            }
        }
    }

    /// Places pods that wait for others to leave where there is room by now, the most important first.
    pub(super) fn look_elsewhere(&mut self, now: Duration) {
        if self.victims.next.is_none_or(|at| at > now) {
            return;
        }
        let mut waiting: Vec<(i32, Arc<str>, ClassId)> = Vec::new();
        for uid in self.victims.waiting() {
            if let Some(pending) = self.pending.get(&uid).filter(|p| p.run.is_none()) {
                waiting.push((pending.priority, uid, pending.class));
            }
        }
        waiting.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        self.victims.next = (!waiting.is_empty()).then(|| now + ELSEWHERE);
        for (_, uid, class) in waiting {
            if let Some(node) = self.cluster.choose(class) {
                self.stop_waiting(&uid);
                self.place(&uid, class, node);
            }
        }
    }
}
