//! The planner of a DaemonSet: where pods are missing, which go, and the status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::needs::{Fit, Needs};
use crate::model::Pod;
use crate::model::node::Node;
use crate::model::pod::Phase;
use crate::model::workload::{DaemonSet, DaemonSetStatus, scaled};

/// Label of a daemon pod with the hash of the template it was made from.
pub const HASH: &str = "controller-revision-hash";
/// Pods one sync creates or deletes at most.
const BURST: usize = 250;

/// What a sync looks at.
pub struct World<'a> {
    pub set: &'a DaemonSet,
    pub nodes: &'a [Arc<Node>],
    pub pods: &'a [Arc<Pod>],
    /// The hash of today's template.
    pub hash: &'a str,
    pub now: Timestamp,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<Arc<str>>,
    pub delete: Vec<Arc<Pod>>,
    /// Of those, the ones that have ended by themselves, for which there is an event.
    pub ended: Vec<Arc<Pod>>,
    pub status: DaemonSetStatus,
    /// When a pod will have been ready long enough.
    pub after: Option<Duration>,
}

/// The pods of each node they are on or meant for: those on it first, then the oldest.
fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<&str, Vec<&Arc<Pod>>> {
    let mut map: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = pod.node.as_ref().or(pod.target.as_ref()) {
            map.entry(node).or_default().push(pod);
        }
    }
    for pods in map.values_mut() {
        let key = |pod: &Pod| (pod.node.is_none(), pod.meta.created, pod.meta.name.clone());
        pods.sort_by_cached_key(|pod| key(pod));
    }
    map
}

/// What updates allow, in pods.
struct Pace {
    surge: usize,
    unavailable: usize,
}

fn pace(set: &DaemonSet, desired: usize) -> Pace {
    let rolling = set.spec.update_strategy.rolling_update.as_ref();
    let total = i32::try_from(desired).unwrap_or(i32::MAX);
    let count = |value| usize::try_from(scaled(value, total, true)).unwrap_or(0);
    let surge = count(rolling.and_then(|r| r.max_surge.as_ref()));
    let unavailable = match rolling.and_then(|r| r.max_unavailable.as_ref()) {
        Some(value) => count(Some(value)),
        None => 1,
    };
    Pace {
        surge,
        // Neither would mean that nothing ever moves.
        unavailable: if surge == 0 {
            unavailable.max(1)
        } else {
            unavailable
        },
    }
}

fn surges(set: &DaemonSet) -> bool {
    set.spec.update_strategy.kind != "OnDelete" && pace(set, 100).surge > 0
}

pub fn plan(world: &World<'_>) -> Plan {
    let set = world.set;
    let needs = Needs::of(&set.spec.template);
    let fits: BTreeMap<&str, Fit> = world
        .nodes
        .iter()
        .map(|node| (&*node.metadata.name, needs.fit(node)))
        .collect();
    let pods = by_node(world.pods);
    let mut plan = Plan {
        status: status(world, &fits, &pods),
        after: soonest_available(world),
        ..Plan::default()
    };
    if set.metadata.deleted.is_some() {
        return plan;
    }
    for (node, fit) in &fits {
        match pods.get(node) {
            None if fit.takes => plan.create.push(Arc::from(*node)),
            None => {}
            Some(pods) if fit.keeps => keep(world, pods, &mut plan),
            Some(pods) => {
                let there = pods.iter().filter(|p| !p.terminating());
                plan.delete.extend(there.map(|p| (*p).clone()));
            }
        }
    }
    // Pods for nodes that are no more will never be bound.
    let lost = world.pods.iter().filter(|pod| {
        let meant = pod.target.as_ref().filter(|_| pod.node.is_none());
        !pod.terminating() && meant.is_some_and(|node| !fits.contains_key(&**node))
    });
    plan.delete.extend(lost.cloned());
    if plan.create.is_empty()
        && plan.delete.is_empty()
        && set.spec.update_strategy.kind != "OnDelete"
    {
        roll(world, &fits, &pods, &mut plan);
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

fn of_hash(pod: &Pod, hash: &str) -> bool {
    pod.meta.labels.get(HASH) == Some(hash)
}

/// A node that keeps its pod: more than one are one too many, and those that ended make room.
fn keep(world: &World<'_>, pods: &[&Arc<Pod>], plan: &mut Plan) {
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for pod in pods.iter().filter(|p| !p.terminating()) {
        if pod.finished() {
            plan.ended.push((*pod).clone());
            plan.delete.push((*pod).clone());
        } else {
            running.push(pod);
        }
    }
    if !surges(world.set) {
        plan.delete
            .extend(running.iter().skip(1).map(|p| (*p).clone()));
    } else {
        let (new, old): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|p| of_hash(p, world.hash));
        let extra = new.iter().skip(1).chain(old.iter().skip(1));
        plan.delete.extend(extra.map(|p| (*p).clone()));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!old.ready || new.available(world.set.spec.min_ready_seconds, world.now))
        {
            plan.delete.push((*old).clone());
        }
    }
}

/// The next step of a rolling update.
fn roll(
    world: &World<'_>,
    fits: &BTreeMap<&str, Fit>,
    pods: &BTreeMap<&str, Vec<&Arc<Pod>>>,
    plan: &mut Plan,
) {
    let desired = fits.values().filter(|f| f.takes).count();
    let pace = pace(world.set, desired);
    let available = |pod: &Pod| pod.available(world.set.spec.min_ready_seconds, world.now);
    let mut must: Vec<(&str, &Arc<Pod>)> = vec![];
    let mut may: Vec<(&str, &Arc<Pod>)> = vec![];
    // How much of the allowance is in use already.
    let mut used = 0;
    // With surge: nodes that are served, and pods that serve where none is wanted any more.
    let (mut served, mut surplus) = (0, vec![]);
    for (node, all) in pods {
        let Some(fit) = fits.get(node) else { continue };
        let live: Vec<&Arc<Pod>> = all.iter().copied().filter(|p| !p.terminating()).collect();
        let mut new = live.iter().filter(|p| of_hash(p, world.hash));
        let mut old = live.iter().filter(|p| !of_hash(p, world.hash));
        let (new, more_new) = (new.next(), new.next());
        let (old, more_old) = (old.next(), old.next());
        if more_new.is_some() || more_old.is_some() {
            used += 1;
            continue;
        }
        served += usize::from(old.or(new).is_some_and(|p| available(p)));
        match (new, old) {
            (None, Some(old)) if pace.surge > 0 && !fit.takes => {
                if available(old) {
                    surplus.push(*old);
                } else {
                    plan.delete.push((*old).clone());
                }
            }
            (Some(new), None) => used += usize::from(pace.surge == 0 && !available(new)),
            (None, Some(old)) if !available(old) => must.push((node, old)),
            (None, Some(old)) => may.push((node, old)),
            (Some(_), Some(_)) => used += 1,
            (None, None) => used += usize::from(pace.surge == 0),
        }
    }
    let allowance = if pace.surge > 0 {
        pace.surge
    } else {
        pace.unavailable
    };
    may.truncate(allowance.saturating_sub(used));
    // They stay until as many others serve: who asks for surge wants no gap.
    let spare = served.saturating_sub(desired);
    plan.delete.extend(surplus.into_iter().take(spare).cloned());
    for (node, pod) in must.into_iter().chain(may) {
        if pace.surge > 0 {
            plan.create.push(Arc::from(node));
        } else {
            plan.delete.push(pod.clone());
        }
    }
}

fn status(
    world: &World<'_>,
    fits: &BTreeMap<&str, Fit>,
    pods: &BTreeMap<&str, Vec<&Arc<Pod>>>,
) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        observed_generation: world.set.metadata.generation,
        collision_count: world.set.status.collision_count,
        ..DaemonSetStatus::default()
    };
    for (node, fit) in fits {
        let there = pods.get(node).map_or(&[][..], Vec::as_slice);
        if !fit.takes {
            status.number_misscheduled += i32::from(!there.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(first) = there.first() else { continue };
        status.current_number_scheduled += 1;
        // With two of them for a while, the node counts as served by the better one.
        let best = there
            .iter()
            .max_by_key(|p| {
                (
                    p.available(world.set.spec.min_ready_seconds, world.now),
                    p.ready,
                )
            })
            .unwrap_or(first);
        if best.ready {
            status.number_ready += 1;
            if best.available(world.set.spec.min_ready_seconds, world.now) {
                status.number_available += 1;
            }
        }
        // While an old pod is there the node is not updated, or a rollout with surge would be told
        // as done too early.
        if of_hash(first, world.hash) {
            status.updated_number_scheduled += 1;
        }
    }
    status.number_unavailable = status.desired_number_scheduled - status.number_available;
    status
}

fn soonest_available(world: &World<'_>) -> Option<Duration> {
    let min_ready = i64::from(world.set.spec.min_ready_seconds);
    if min_ready <= 0 {
        return None;
    }
    let ready = world
        .pods
        .iter()
        .filter(|p| p.ready && p.phase == Phase::Running);
    let left = ready.filter_map(|pod| {
        let left = pod.ready_since?.as_second() + min_ready - world.now.as_second();
        u64::try_from(left).ok().filter(|left| *left > 0)
    });
    left.min().map(Duration::from_secs)
}
