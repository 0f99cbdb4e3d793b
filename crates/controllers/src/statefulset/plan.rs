//! The planner of a StatefulSet: which pods to create, delete or mend in one sync, and the status.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::Pod;
use crate::model::pod::Phase;
use crate::model::workload::{StatefulSet, StatefulSetStatus, scaled};

pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// Label of a pod that names the ControllerRevision it is on.
pub const REVISION: &str = "controller-revision-hash";

/// The world of one sync. `current` and `update` are names of ControllerRevisions.
pub struct World<'a> {
    pub set: &'a StatefulSet,
    pub pods: &'a [Arc<Pod>],
    pub current: &'a str,
    pub update: &'a str,
    pub now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Current,
    Update,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    pub ordinal: i32,
    pub revision: On,
}

/// What to do, in this order: mend, create, delete. A failure ends the sync.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Pods that have lost the labels of their identity.
    pub mend: Vec<Arc<Pod>>,
    /// Pending pods, whose claims may be missing.
    pub pending: Vec<i32>,
    pub create: Vec<Create>,
    pub delete: Vec<Arc<Pod>>,
    pub status: StatefulSetStatus,
    /// Look again then: a pod becomes available by the passing of time.
    pub after: Option<Duration>,
}

/// The ordinal of a pod of the set called `set`.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn revision(pod: &Pod) -> &str {
    pod.meta.labels.get(REVISION).unwrap_or("")
}

fn running_and_ready(pod: &Pod) -> bool {
    pod.phase == Phase::Running && pod.ready
}

/// A place among the replicas: a pod that is there, or one that this sync creates.
#[derive(Clone)]
enum Place {
    Pod(Arc<Pod>),
    New(On),
}

impl Place {
    fn healthy(&self) -> bool {
        matches!(self, Place::Pod(pod) if running_and_ready(pod) && !pod.terminating())
    }
}

pub fn plan(world: &World<'_>) -> Plan {
    let World {
        set,
        pods,
        current,
        update,
        now,
    } = *world;
    let spec = &set.spec;
    let replicas = spec.replicas.unwrap_or(1).max(0);
    let start = spec.ordinals.start;
    let end = start.saturating_add(replicas);
    let rolling = spec.update_strategy.kind != "OnDelete";
    let rolling_update = spec.update_strategy.rolling_update.as_ref();
    let monotonic = spec.pod_management_policy != "Parallel";
    let available =
        |pod: &Pod| pod.phase == Phase::Running && pod.available(spec.min_ready_seconds, now);

    let mut plan = Plan {
        status: status(world, &available),
        ..Plan::default()
    };
    plan.after = soonest_available(world);

    let on_current = |ordinal: i32| {
        rolling
            && match rolling_update {
                None => ordinal < start.saturating_add(set.status.current_replicas),
                Some(r) => ordinal < start.saturating_add(r.partition.unwrap_or(0)),
            }
    };
    let mut places: Vec<Option<Arc<Pod>>> = vec![None; usize::try_from(replicas).unwrap_or(0)];
    let mut condemned: Vec<(i32, Arc<Pod>)> = Vec::new();
    for pod in pods {
        match ordinal(&set.metadata.name, &pod.meta.name) {
            Some(n) if n >= start && n < end => {
                if let Some(place) = usize::try_from(n - start)
                    .ok()
                    .and_then(|i| places.get_mut(i))
                {
                    *place = Some(pod.clone());
                }
            }
            Some(n) => condemned.push((n, pod.clone())),
            None => {}
        }
    }
    condemned.sort_by_key(|(n, _)| Reverse(*n));
    let places: Vec<(i32, Place)> = (start..end)
        .zip(places)
        .map(|(n, pod)| {
            let place = match pod {
                Some(pod) => Place::Pod(pod),
                None if on_current(n) => Place::New(On::Current),
                None => Place::New(On::Update),
            };
            (n, place)
        })
        .collect();

    if set.metadata.deleted.is_some() {
        return plan;
    }

    // Replicas: replace what has finished, create what is missing, wait where order asks for it.
    for (n, place) in &places {
        match place {
            Place::New(on) => {
                plan.create.push(Create {
                    ordinal: *n,
                    revision: *on,
                });
                if monotonic {
                    return plan;
                }
            }
            Place::Pod(pod) => {
                if pod.finished() {
                    if !pod.terminating() {
                        plan.delete.push(pod.clone());
                    }
                    // Its successor is created once it is gone.
                    if monotonic {
                        return plan;
                    }
                    continue;
                }
                if pod.phase == Phase::Pending {
                    plan.pending.push(*n);
                }
                if monotonic && (pod.terminating() || !running_and_ready(pod) || !available(pod)) {
                    return plan;
                }
                let labels = &pod.meta.labels;
                if labels.get(POD_NAME) != Some(&*pod.meta.name) || labels.get(POD_INDEX).is_none()
                {
                    plan.mend.push(pod.clone());
                }
            }
        }
    }
    // Too many: the highest first.
    let first_unhealthy = places
        .iter()
        .find(|(_, place)| !place.healthy())
        .map(|_| None)
        .or_else(|| {
            condemned
                .iter()
                .rev()
                .map(|(_, pod)| pod)
                .find(|pod| !running_and_ready(pod) || pod.terminating())
                .map(|pod| Some(pod.meta.uid.clone()))
        })
        .flatten();
    for (_, pod) in &condemned {
        if pod.terminating() {
            if monotonic {
                return plan;
            }
            continue;
        }
        // A finished pod has nothing left to wait for; Kubernetes would wait for ever.
        if monotonic
            && !pod.finished()
            && (!running_and_ready(pod) || !available(pod))
            && first_unhealthy.as_ref() != Some(&pod.meta.uid)
        {
            return plan;
        }
        plan.delete.push(pod.clone());
        lower_counts(&mut plan.status, pod, current, update);
        if monotonic {
            return plan;
        }
    }

    if rolling {
        update_replicas(world, &places, &available, &mut plan);
    }
    plan
}

/// Deletes pods that are not on the update revision, from the highest down to the partition.
fn update_replicas(
    world: &World<'_>,
    places: &[(i32, Place)],
    available: &dyn Fn(&Pod) -> bool,
    plan: &mut Plan,
) {
    let set = world.set;
    let rolling_update = set.spec.update_strategy.rolling_update.as_ref();
    let partition = rolling_update.and_then(|r| r.partition).unwrap_or(0).max(0);
    let first = set.spec.ordinals.start.saturating_add(partition);
    let outdated = |place: &Place| match place {
        // What has finished goes anyway.
        Place::Pod(pod)
            if !pod.terminating() && !pod.finished() && revision(pod) != world.update =>
        {
            Some(pod.clone())
        }
        _ => None,
    };
    let max_unavailable = rolling_update.and_then(|r| r.max_unavailable.as_ref());
    let total = i32::try_from(places.len()).unwrap_or(i32::MAX);
    let allowed = match max_unavailable {
        Some(value) => scaled(Some(value), total, false).max(1),
        None => 1,
    };
    if allowed == 1 {
        for (_, place) in places.iter().rev().take_while(|(n, _)| *n >= first) {
            if let Some(pod) = outdated(place) {
                lower_counts(&mut plan.status, &pod, world.current, world.update);
                plan.delete.push(pod);
                return;
            }
            if !matches!(place, Place::Pod(pod) if place.healthy() && available(pod)) {
                return;
            }
        }
        return;
    }
    let up = |place: &Place| matches!(place, Place::Pod(pod) if place.healthy() && available(pod));
    let down = places.iter().filter(|(_, place)| !up(place)).count();
    let mut budget = usize::try_from(allowed).unwrap_or(0).saturating_sub(down);
    for (_, place) in places.iter().rev().take_while(|(n, _)| *n >= first) {
        let Some(pod) = outdated(place) else { continue };
        // A pod that is down already costs nothing; were it to wait for itself to become ready, an
        // update that mends a broken revision would never begin.
        if up(place) {
            if budget == 0 {
                continue;
            }
            budget -= 1;
        }
        lower_counts(&mut plan.status, &pod, world.current, world.update);
        plan.delete.push(pod);
    }
}

fn lower_counts(status: &mut StatefulSetStatus, pod: &Pod, current: &str, update: &str) {
    let lower = |n: &mut i32| *n = (*n - 1).max(0);
    if revision(pod) == current {
        lower(&mut status.current_replicas);
    }
    if revision(pod) == update {
        lower(&mut status.updated_replicas);
    }
}

fn status(world: &World<'_>, available: &dyn Fn(&Pod) -> bool) -> StatefulSetStatus {
    let set = world.set;
    let mut status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        current_revision: world.current.to_owned(),
        update_revision: world.update.to_owned(),
        collision_count: set.status.collision_count,
        ..StatefulSetStatus::default()
    };
    for pod in world.pods {
        if pod.phase == Phase::None {
            continue;
        }
        status.replicas += 1;
        if running_and_ready(pod) {
            status.ready_replicas += 1;
            if available(pod) {
                status.available_replicas += 1;
            }
        }
        if !pod.terminating() {
            if revision(pod) == world.current {
                status.current_replicas += 1;
            }
            if revision(pod) == world.update {
                status.updated_replicas += 1;
            }
        }
    }
    let wanted = set.spec.replicas.unwrap_or(1);
    if set.spec.update_strategy.kind != "OnDelete"
        && status.updated_replicas == wanted
        && status.ready_replicas == wanted
        && status.replicas == wanted
    {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
    status
}

fn soonest_available(world: &World<'_>) -> Option<Duration> {
    let min_ready = i64::from(world.set.spec.min_ready_seconds);
    if min_ready <= 0 {
        return None;
    }
    world
        .pods
        .iter()
        .filter(|pod| pod.ready && !pod.terminating())
        .filter_map(|pod| {
            let left = pod.ready_since?.as_second() + min_ready - world.now.as_second();
            u64::try_from(left).ok().filter(|left| *left > 0)
        })
        .min()
        .map(Duration::from_secs)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
