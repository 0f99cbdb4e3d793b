//! What is learned of services, kept in the status of ServiceProfiles, so that a scheduler that takes over knows it.

use super::calls::{CallError, send};
use super::driver::Driver;
use super::policies::Written;
use crate::core::services::{HOURS, Learned, ServiceId};
use gantry_api::service_profile::{ServiceProfile, ServiceProfileStatus};
use kube::Client;
use rustc_hash::FxHashMap;
use serde_json::json;
use std::time::Duration;

/// How often it is looked at what is to be written.
const EVERY: Duration = Duration::from_secs(10);
/// A profile is written at most this often.
const PAUSE: Duration = Duration::from_secs(3600);
/// Profiles written at a time.
const AT_A_TIME: usize = 4;

/// What was written.
#[derive(Default)]
pub(super) struct Told {
    written: FxHashMap<ServiceId, Duration>,
    next: Option<Duration>,
}

/// Whether an App's name can be that of an object.
fn is_name(app: &str) -> bool {
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    let ends = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    app.bytes().all(fine) && ends(app.as_bytes().first()) && ends(app.as_bytes().last())
}

fn status(learned: &Learned) -> ServiceProfileStatus {
    let small = |n: usize| i32::try_from(n).unwrap_or_default();
    let class = learned.day.network_class();
    let network = learned.day.of(2).iter().copied();
    ServiceProfileStatus {
        cpu_milli: learned.day.of(0).to_vec(),
        memory_bytes: learned.day.of(1).to_vec(),
        network_bytes: network.filter(|_| class.is_some()).collect(),
        network_class: class.map(ToOwned::to_owned),
        measurements: learned.seen.iter().map(|n| i64::from(*n)).collect(),
        hours_known: small(learned.hours()),
        peak_hour: small(learned.day.peak_hour(0)).min(small(HOURS - 1)),
    }
}

async fn keep(
    client: Client,
    namespace: String,
    app: String,
    status: ServiceProfileStatus,
) -> Result<(), CallError> {
    let path = format!("/apis/gantry.dev/v1alpha1/namespaces/{namespace}/serviceprofiles/{app}");
    let object = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "ServiceProfile",
        "metadata": {"name": app, "namespace": namespace}, "spec": {}});
    let (apply, method) = ("application/apply-patch+yaml", http::Method::PATCH);
    let place = format!("{path}?fieldManager=gantry-scheduler&force=true");
    send(
        &client,
        "make service profile",
        method,
        place,
        apply,
        &object,
    )
    .await?;
    let (merge, method) = ("application/merge-patch+json", http::Method::PATCH);
    let place = format!("{path}/status");
    let body = json!({"status": status});
    send(
        &client,
        "write service profile",
        method,
        place,
        merge,
        &body,
    )
    .await
}

impl Driver {
    /// An earlier scheduler, or this one, has learned this. It counts once all are listed, or more is learned.
    pub(super) fn service_profile(&mut self, profile: &ServiceProfile) {
        let meta = &profile.metadata;
        if let (Some(namespace), Some(app), Some(status)) =
            (&meta.namespace, &meta.name, &profile.status)
        {
            let (cpu, memory) = (&status.cpu_milli, &status.memory_bytes);
            let kept = Learned::of(cpu, memory, &status.network_bytes, &status.measurements);
            self.cluster.remember(namespace, app, &kept);
        }
    }

    /// Somebody wants it learned anew.
    pub(super) fn service_profile_gone(&mut self, profile: &ServiceProfile) {
        let meta = &profile.metadata;
        if let (Some(namespace), Some(app)) = (&meta.namespace, &meta.name) {
            self.cluster.unlearn(namespace, app);
            self.cluster.settle_services();
        }
    }

    /// When [`Driver::keep_services`] next has something to do.
    pub(super) fn services_deadline(&self) -> Option<Duration> {
        self.services.next.filter(|_| self.cluster.hours.on)
    }

    /// Writes what was learned and was not written for an hour.
    pub(super) fn keep_services(&mut self, now: Duration) {
        if !self.cluster.hours.on || self.services.next.is_some_and(|at| at > now) {
            return;
        }
        self.services.next = Some(now + EVERY);
        let free = AT_A_TIME.saturating_sub(self.statuses.len());
        let written = &self.services.written;
        let due = |id: &ServiceId| written.get(id).is_none_or(|at| *at + PAUSE <= now);
        let all = self.cluster.fresh_services();
        let all = all
            .filter(|(id, _, app)| due(id) && is_name(app))
            .take(free);
        let all: Vec<(ServiceId, String, String)> = all
            .map(|(id, namespace, app)| (id, namespace.to_owned(), app.to_owned()))
            .collect();
        if all.len() == free && free > 0 {
            // There may be more.
            self.services.next = Some(now + Duration::from_secs(1));
        }
        for (id, namespace, app) in all {
            self.services.written.insert(id, now);
            if let Some(learned) = self.cluster.learned(id) {
                let write = keep(self.client.clone(), namespace, app, status(&learned));
                self.statuses.spawn(async { Written::other(write.await) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn only_names_of_objects_are_kept() {
        for (app, fine) in [
            ("cart", true),
            ("a.b-1", true),
            ("Cart", false),
            ("a_b", false),
            ("-a", false),
            ("", false),
        ] {
            assert_eq!(is_name(app), fine, "{app}");
        }
    }
}
