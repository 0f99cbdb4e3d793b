//! What was decided is written: volumes first, where they are bound late, then claims to devices, then the binding; what
//! fails is taken back.

use super::calls::{CallError, PodEvent, PodRef, bind, expect_on};
use super::devices::{give, give_back, make, ready, tell, unmake, withdraw};
use super::driver::Driver;
use crate::core::devices::Grant;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A binding that ended.
pub(super) struct Bound {
    pod: PodRef,
    node: String,
    decision: Option<Value>,
    result: Result<(), CallError>,
    /// Claims that were not given what was decided.
    unwritten: Vec<Grant>,
}

impl Driver {
    /// The pod has its node: binds its volumes, where they are to be bound late, and then the pod.
    pub(super) fn settle(&mut self, uid: &Arc<str>, node: String) {
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        pending.decided = true;
        pending.unreported = None;
        let class = pending.class;
        if !self.cluster.has_devices(class, uid) {
            self.take_back(uid);
            return;
        }
        match self.cluster.assume_volumes(class, &node) {
            Some(assumed) if assumed.is_empty() => self.start_bind(uid, node),
            Some(assumed) => self.start_storage(uid, node, assumed),
            None => self.take_back(uid),
        }
    }

    /// A decision does not hold: the pod gives its room back and is decided anew after its back-off.
    pub(super) fn take_back(&mut self, uid: &Arc<str>) {
        let now = self.now();
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        pending.decided = false;
        if let Some(volumes) = pending.volumes.take() {
            self.cluster.volumes.release(&volumes.assumed);
        }
        let (class, rank) = (pending.class, (pending.priority, pending.tenant));
        let run = pending.run.take();
        self.storing.remove(uid);
        self.cluster.uncommit(uid);
        self.queue.retry(uid, class, rank, now);
        if let Some(run) = run {
            self.break_gang(run, uid);
        }
    }

    pub(super) fn start_bind(&mut self, uid: &Arc<str>, node: String) {
        if self.waits_for_gang(uid, &node) {
            return;
        }
        if self.binds.len() >= self.options.parallel_binds {
            self.binds_due.push_back((uid.clone(), node));
            return;
        }
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        let decision = pending.decision.take();
        let rules = self.cluster.rules(pending.class);
        let timeout = Duration::from_secs(rules.profile.device_timeout_seconds);
        let (client, pod) = (self.client.clone(), pending.pod.clone());
        let mut grants = self.cluster.devices.send(uid);
        let waits = grants.iter().any(|grant| grant.waits);
        if waits && let Some(pending) = self.pending.get_mut(uid) {
            pending.nominated_told = true;
        }
        // Drivers may take their time: who waits for them is in nobody's way.
        let binds = if waits {
            &mut self.waiting_binds
        } else {
            &mut self.binds
        };
        binds.spawn(async move {
            let (mut result, mut written) = (Ok(()), 0);
            for grant in &mut grants {
                result = make(&client, &pod, grant).await;
                if result.is_ok() {
                    result = give(&client, &pod, grant).await;
                }
                if result.is_err() {
                    break;
                }
                written += 1;
            }
            if result.is_ok() {
                result = tell(&client, &pod, &grants).await;
            }
            if result.is_ok() && waits {
                expect_on(&client, &pod, &node).await;
                result = ready(&client, &grants, timeout).await;
            }
            if result.is_ok() {
                result = bind(&client, &pod, &node).await;
            }
            let mut unwritten = grants.split_off(written);
            if result.is_err() {
                // What was made for this attempt alone is of no use to another.
                let all = grants.iter().chain(&unwritten);
                for grant in all.filter(|g| g.made.is_some() && !g.name.is_empty()) {
                    unmake(&client, &grant.namespace, &grant.name, &grant.uid).await;
                }
                unwritten.extend(grants.extract_if(.., |grant| grant.made.is_some()));
                // Nobody is kept from the claims by a pod that does not use them.
                for grant in &grants {
                    withdraw(&client, &pod, grant).await;
                }
                if matches!(result, Err(CallError::NotReady(_) | CallError::TooLate(_))) {
                    for grant in grants.iter().filter(|grant| grant.waits) {
                        give_back(&client, grant).await;
                    }
                }
            }
            Bound {
                pod,
                node,
                decision,
                result,
                unwritten,
            }
        });
    }

    /// Starts bindings that had to wait because too many were in flight.
    pub(super) fn start_due_binds(&mut self) {
        while self.binds.len() < self.options.parallel_binds
            && let Some((uid, node)) = self.binds_due.pop_front()
        {
            // It may have been taken back meanwhile, and be on its way to another node by now.
            let is_decided = self.pending.get(&uid).is_some_and(|p| p.decided);
            let placed = self.cluster.placed(&uid).filter(|_| is_decided);
            if placed.is_some_and(|p| self.cluster.node_name(p.node) == node) {
                self.start_bind(&uid, node);
            }
        }
    }

    pub(super) fn bound(&mut self, bound: Result<Bound, tokio::task::JoinError>) {
        let Bound {
            pod,
            node,
            decision,
            result,
            unwritten,
        } = match bound {
            Ok(bound) => bound,
            Err(error) => {
                // A task that panicked; its pod stays assumed until the watch or a restart settles it.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a bind ended without a result"
                );
                return;
            }
        };
        self.cluster
            .change_devices(|devices, symbols| devices.unwritten(&pod.uid, &unwritten, symbols));
        let Err(error) = result else {
            let message = format!(
                "Successfully assigned {}/{} to {node}",
                pod.namespace, pod.name
            );
            self.emit(PodEvent {
                pod,
                warning: false,
                reason: "Scheduled",
                message,
                decision,
            });
            return;
        };
        // Seen bound meanwhile, or gone: nothing is left to do.
        if !self.pending.get(&pod.uid).is_some_and(|p| p.decided) {
            return;
        }
        if error.code() == Some(404) {
            // The pod (its deletion is on its way) or the API's knowledge of it is gone.
            tracing::debug!(pod = %pod.name, namespace = %pod.namespace, "pod to bind is gone");
        } else {
            let error = &error as &dyn std::error::Error;
            self.options.metrics.failed_binds.fetch_add(1, Relaxed);
            tracing::warn!(error, pod = %pod.name, namespace = %pod.namespace, node, "bind failed, will try again");
        }
        self.take_back(&pod.uid);
    }
}
