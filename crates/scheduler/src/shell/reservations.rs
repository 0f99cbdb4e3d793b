//! Reservations as they are watched; how long they hold, and what is told of them in their status.

use super::calls::send;
use super::driver::Driver;
use super::policies::Written;
use super::usage::unix_now;
use crate::core::object::{Container, Pod, PodSpec, Resources};
use crate::core::reservation::Slot;
use gantry_api::reservation::{Reservation, ReservationPhase, ReservationStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often nodes are looked for, and how often status is told.
const EVERY: Duration = Duration::from_secs(1);

struct Seen {
    generation: Option<i64>,
    /// Seconds since 1970.
    expires: i64,
    expired: bool,
    /// Slots that an earlier scheduler gave: they are no slots here.
    gave: i32,
    status: ReservationStatus,
}

/// The reservations that there are.
#[derive(Default)]
pub(super) struct Told {
    seen: BTreeMap<String, Seen>,
    next: Option<Duration>,
}

/// A pod that asks for what one slot holds.
pub(super) fn template(reservation: &Reservation) -> Pod {
    let spec = &reservation.spec;
    let requests = spec.requests.clone();
    let container = Container {
        resources: Some(Resources {
            requests,
            ..Resources::default()
        }),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            namespace: reservation.metadata.namespace.clone(),
            name: reservation.metadata.name.clone(),
            ..ObjectMeta::default()
        },
        spec: PodSpec {
            node_selector: spec.node_selector.clone(),
            tolerations: spec.tolerations.clone(),
            containers: vec![container],
            ..PodSpec::default()
        },
        ..Pod::default()
    }
}

/// `namespace/name`.
fn key(reservation: &Reservation) -> String {
    let meta = &reservation.metadata;
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", text(&meta.namespace), text(&meta.name))
}

/// When its time is over, in seconds since 1970.
pub(super) fn expiry(reservation: &Reservation) -> i64 {
    let made = reservation.metadata.creation_timestamp.as_ref();
    let made = made.map_or_else(unix_now, |t| t.0.as_second());
    let ttl = i64::try_from(reservation.spec.ttl.duration().as_secs()).unwrap_or(i64::MAX);
    made.saturating_add(ttl)
}

/// Takes a reservation into a cluster, unless its time is over. Returns whether it holds.
pub(super) fn take_in(cluster: &mut crate::core::Cluster, reservation: &Reservation) -> bool {
    let key = key(reservation);
    if expiry(reservation) <= unix_now() {
        cluster.remove_reservation(&key);
        return false;
    }
    let status = reservation.status.clone().unwrap_or_default();
    let slots = usize::try_from(reservation.spec.replicas).unwrap_or(0);
    // Slots that have given their room are not held a second time.
    let used = usize::try_from(status.used).unwrap_or(0);
    let known = cluster.reservations.get(&key).is_some();
    let slots = if known {
        slots
    } else {
        slots.saturating_sub(used)
    };
    let owners = &reservation.spec.owners;
    cluster.set_reservation(&key, template(reservation), owners, slots, &status.nodes);
    true
}

impl Driver {
    pub(super) fn reservation(&mut self, reservation: &Reservation) {
        let key = key(reservation);
        let generation = reservation.metadata.generation;
        let seen = self.reservations.seen.get(&key);
        if seen.is_some_and(|s| s.generation == generation) {
            return;
        }
        let status = reservation.status.clone().unwrap_or_default();
        let gave = seen.map_or(status.used, |s| s.gave);
        let holds = take_in(&mut self.cluster, reservation);
        let seen = Seen {
            generation,
            expires: expiry(reservation),
            expired: !holds,
            gave,
            status,
        };
        self.reservations.seen.insert(key, seen);
        self.reservations.next = Some(self.now());
    }

    pub(super) fn reservation_gone(&mut self, key: &str) {
        self.reservations.seen.remove(key);
        self.cluster.remove_reservation(key);
    }

    /// When [`Driver::look_at_reservations`] next has something to do.
    pub(super) fn reservations_deadline(&self) -> Option<Duration> {
        self.reservations.next
    }

    /// Ends what is over, looks for nodes for slots, and writes what has changed.
    pub(super) fn look_at_reservations(&mut self, now: Duration) {
        if self.reservations.next.is_none_or(|at| at > now) {
            return;
        }
        self.reservations.next = (!self.reservations.seen.is_empty()).then_some(now + EVERY);
        let unix = unix_now();
        for (key, seen) in &mut self.reservations.seen {
            if !seen.expired && seen.expires <= unix {
                seen.expired = true;
                self.cluster.remove_reservation(key);
            }
        }
        if self.cluster.reservations_wait() {
            self.cluster.place_reservations();
        }
        let mut writes = Vec::new();
        for (key, seen) in &mut self.reservations.seen {
            let slots = self.cluster.reservations.get(key).map(|r| &r.slots);
            let slots = slots.map_or(&[][..], Vec::as_slice);
            let name = |slot: &Slot| match slot {
                Slot::Held(node) => Some(self.cluster.node_name(*node).to_owned()),
                _ => None,
            };
            let nodes: Vec<String> = slots.iter().filter_map(name).collect();
            let status = status(seen, slots, nodes);
            if status != seen.status {
                seen.status = status.clone();
                writes.push((key.clone(), status));
            }
        }
        for (key, status) in writes {
            let (namespace, name) = key.split_once('/').unwrap_or_default();
            let place = "/apis/gantry.dev/v1alpha1/namespaces";
            let path = format!("{place}/{namespace}/reservations/{name}/status");
            let client = self.client.clone();
            self.statuses.spawn(async move {
                let body = json!({"status": status});
                let merge = "application/merge-patch+json";
                let method = http::Method::PATCH;
                let what = "write reservation status";
                let result = send(&client, what, method, path, merge, &body).await;
                Written::other(result)
            });
        }
    }
}

fn status(seen: &Seen, slots: &[Slot], nodes: Vec<String>) -> ReservationStatus {
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let taken = slots.iter().filter(|s| matches!(s, Slot::Taken(..)));
    let used = if seen.expired {
        seen.status.used
    } else {
        seen.gave + count(taken.count())
    };
    let waiting = slots.contains(&Slot::Waiting);
    let phase = if seen.expired {
        ReservationPhase::Expired
    } else if waiting {
        ReservationPhase::Pending
    } else if nodes.is_empty() && used > 0 {
        ReservationPhase::Used
    } else {
        ReservationPhase::Held
    };
    ReservationStatus {
        observed_generation: seen.generation,
        phase,
        expires: Timestamp::from_second(seen.expires).ok().map(Time),
        held: count(nodes.len()),
        used,
        nodes,
    }
}
