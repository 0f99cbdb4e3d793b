//! What pods are told: events, and why they wait.

use super::calls::{CallError, PodEvent, PodRef, report_unschedulable};
use super::driver::Driver;
use crate::core::Diagnosis;
use std::sync::Arc;

/// Condition writes in flight at most: they must not crowd out bindings.
const PARALLEL_REPORTS: usize = 8;

/// A report that was written, or was not.
pub(super) struct Reported {
    pod: PodRef,
    message: Arc<str>,
    /// It was to take back the node that the pod was nominated for.
    withdraw: bool,
    result: Result<(), CallError>,
}

impl Driver {
    pub(super) fn emit(&mut self, event: PodEvent) {
        if self.events.try_send(event).is_err() {
            self.events_lost += 1;
            if self.events_lost.is_power_of_two() {
                tracing::info!(
                    lost = self.events_lost,
                    "events dropped: the API takes them slower than they come"
                );
            }
        }
    }

    pub(super) fn report_later(&mut self, uid: &Arc<str>, diagnosis: Arc<Diagnosis>) {
        let Some(pending) = self.pending.get_mut(uid) else {
            return;
        };
        let known =
            matches!(&pending.condition, Some((true, message)) if **message == *diagnosis.message);
        if known && !pending.nominated_told {
            return;
        }
        if pending.unreported.replace(diagnosis).is_none() {
            self.reports_due.push_back(uid.clone());
        }
    }

    pub(super) fn start_reports(&mut self) {
        while self.reports.len() < PARALLEL_REPORTS {
            let Some(uid) = self.reports_due.pop_front() else {
                return;
            };
            let Some(pending) = self.pending.get_mut(&uid) else {
                continue;
            };
            let Some(diagnosis) = pending.unreported.take().filter(|_| !pending.decided) else {
                continue;
            };
            let turned = !matches!(pending.condition, Some((true, _)));
            // It waits for no node any more.
            let withdraw = std::mem::take(&mut pending.nominated_told);
            let message: Arc<str> = diagnosis.message.as_str().into();
            let (client, pod) = (self.client.clone(), pending.pod.clone());
            let event = PodEvent {
                pod: pod.clone(),
                warning: true,
                reason: "FailedScheduling",
                message: diagnosis.message.clone(),
                decision: None,
            };
            self.emit(event);
            self.reports.spawn(async move {
                let result = report_unschedulable(&client, &pod, &message, turned, withdraw).await;
                Reported {
                    pod,
                    message,
                    withdraw,
                    result,
                }
            });
        }
    }

    pub(super) fn reported(&mut self, reported: Result<Reported, tokio::task::JoinError>) {
        match reported {
            Ok(Reported {
                pod,
                message,
                result: Ok(()),
                ..
            }) => {
                if let Some(pending) = self.pending.get_mut(&pod.uid) {
                    pending.condition = Some((true, message));
                }
            }
            // Written again when the line next fails.
            Ok(Reported {
                pod,
                withdraw,
                result: Err(error),
                ..
            }) => {
                if let Some(pending) = self.pending.get_mut(&pod.uid) {
                    pending.nominated_told |= withdraw;
                }
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, pod = %pod.name, namespace = %pod.namespace, "condition not written");
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "a report ended without a result"
            ),
        }
    }
}
