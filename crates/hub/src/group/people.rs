//! What people wish for single instances: to be kept out of service, or to be replaced by a new pod of the
//! same name. Under the Group's disruption budget: as many at once as the Group may have out of service,
//! whoever put them out.
//!
//! A wish is a fact of the spec and needs no memory: an instance is kept out for as long as its entry says
//! so, and is due to be replaced for as long as its pod is older than the time that is given. Wishes are
//! granted in the order of their entries, so that on a stale view the same come first again.

use std::collections::BTreeMap;

use gantry_api::{
    Group,
    group::{InstanceNote, InstanceWish},
};
use jiff::{SignedDuration, Timestamp};

use super::{World, nodes};
use crate::{
    action::Action,
    release::tell,
    world::{CellView, Gate, Hold, Instance, Wish},
};

/// When a move that is refused is looked at again, though nothing is heard.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// Most that a status tells of.
const TOLD: usize = 100;

/// Writes down at each instance what people wish for it.
pub fn mark(group: &Group, cells: &mut [CellView]) {
    let spec = &group.spec;
    let entries: BTreeMap<&str, _> = spec
        .instances
        .iter()
        .map(|w| (w.name.as_str(), w))
        .collect();
    let mut targets: Vec<&str> = Vec::new();
    for cell in cells.iter_mut() {
        let going = going(group, cell);
        cell.keep = going.iter().map(|(n, _)| *n).min();
        targets.extend(going.iter().filter_map(|(_, w)| w.to.as_deref()));
    }
    for cell in cells.iter_mut() {
        cell.extra = targets.iter().filter(|t| **t == cell.name).count() as i32;
    }
    for instance in cells.iter_mut().flat_map(|c| c.instances.values_mut()) {
        let entry = entries.get(instance.name.as_str()).copied();
        let moves = entry.is_some_and(|w| nodes::due(w, instance).is_some());
        instance.wish = match entry {
            Some(wish) if wish.out_of_service => Wish::Out,
            _ if moves || old(group, entry, instance) => Wish::Renew,
            _ => Wish::None,
        };
    }
}

/// Whether its pod is from before a restart that is asked for.
fn old(group: &Group, entry: Option<&InstanceWish>, instance: &Instance) -> bool {
    let before = entry
        .and_then(|w| w.restart_before.as_ref())
        .max(group.spec.restart_before.as_ref());
    before.is_some_and(|t| instance.created.is_some_and(|made| made < t.0))
}

/// Wishes for instances of `cell` to go, of those that can: from the last down, without a gap.
fn going<'a>(group: &'a Group, cell: &CellView) -> Vec<(i32, &'a InstanceWish)> {
    let stem = cell
        .set_name
        .clone()
        .unwrap_or_else(|| group.set_in(&cell.name));
    let wishes = group.spec.instances.iter();
    let mut all: Vec<(i32, &InstanceWish)> = wishes
        .filter(|w| w.remove || w.to.is_some())
        .filter_map(|w| Some((ordinal(&stem, &w.name)?, w)))
        .collect();
    all.sort_by_key(|(n, _)| -n);
    let mut end = cell.replicas();
    all.retain(|(n, _)| {
        let last = *n >= end - 1;
        end = end.min(if last { *n } else { end });
        last
    });
    all
}

pub(super) fn ordinal(stem: &str, name: &str) -> Option<i32> {
    name.strip_prefix(stem)?.strip_prefix('-')?.parse().ok()
}

/// What is granted now.
#[derive(Debug, Default)]
pub(super) struct Granted {
    /// Who has to be out of service.
    pub holds: BTreeMap<String, Hold>,
    /// Instances that go to a node, and to which.
    pub pins: BTreeMap<String, String>,
    /// Pods to be replaced.
    pub actions: Vec<Action>,
    /// For the status.
    pub notes: Vec<InstanceNote>,
    /// When something is due.
    pub wake: Option<Timestamp>,
}

/// Grants wishes as far as the Group's budget goes. `growing`: instances are about to be added, which are
/// out of service at first.
pub(super) fn grant(world: &World<'_>, growing: bool, now: Timestamp) -> Granted {
    let mut granted = Granted::default();
    let wished = in_order(world);
    if wished.is_empty() && world.group.spec.instances.is_empty() {
        return granted;
    }
    let total: i32 = world.cells.iter().map(CellView::replicas).sum();
    // A Group that shrinks may have fewer out as soon as that has come through.
    let total = total.min(world.group.spec.replicas);
    let availability = &world.group.spec.availability;
    let limit = availability.max_unavailable.max_out(total.max(0) as u32) as i32;
    // A release may allow less.
    let limit = world.release.max_out.map_or(limit, |most| limit.min(most));
    let held = |i: &Instance| world.release.holds.contains_key(&i.name);
    // What a release has chosen may be out by now, whatever the view shows.
    let soon = world
        .cells
        .iter()
        .flat_map(|c| c.instances.values())
        .filter(|i| i.in_service() && (held(i) || world.release.chosen.contains(&i.name)))
        .count() as i32;
    // Restarts wait for a release; those that went before it began may be out as well, unseen.
    let unseen = if world.release.target.is_some() {
        let renewed = wished
            .iter()
            .filter(|(_, i)| i.wish == Wish::Renew && i.in_service());
        (renewed.count() as i32).min(limit)
    } else {
        0
    };
    let mut out = world.cells.iter().map(CellView::out).sum::<i32>() + soon + unseen;
    let drain = world
        .app
        .and_then(|a| a.spec.container.lifecycle.drain_seconds)
        .unwrap_or(0);
    let drain = SignedDuration::from_secs(i64::from(drain));
    let mut told = |name: &str, state: &str, message: String| {
        if granted.notes.len() < TOLD {
            granted.notes.push(InstanceNote {
                name: name.to_owned(),
                state: state.to_owned(),
                message,
            });
        }
    };
    let mut promised = nodes::Promised::default();
    // A hub that has been started anew has not seen a cell that cannot be reached: any number may be out there.
    let blind = |c: &&CellView| !c.reachable && c.set.is_none() && c.weight.is_some_and(|w| w > 0);
    let blind = world.cells.iter().find(blind);
    for (cell, instance) in wished {
        let name = &instance.name;
        if !cell.reachable {
            told(name, "Waiting", crate::release::unreachable(cell));
            continue;
        }
        let entry = world.group.spec.instances.iter().find(|w| w.name == *name);
        let mut to = entry.and_then(|w| nodes::due(w, instance));
        let note = to.is_some_and(|to| nodes::noted(cell, name, to));
        if let Some(node) = to {
            match nodes::refusal(world, cell, instance, node, &promised) {
                None => {
                    // Whoever replaces it: the next pod belongs there.
                    granted.pins.insert(name.clone(), node.name.clone());
                    promised.add(cell, node, &nodes::asks(world, instance));
                }
                // It is restarted all the same, wherever there is room.
                Some(_) if old(world.group, entry, instance) => to = None,
                Some(why) => {
                    told(name, "Refused", why);
                    granted.wake = tell::earlier(granted.wake, now.checked_add(AGAIN).ok());
                    continue;
                }
            }
        }
        if let (Some(to), true) = (to, instance.terminating) {
            let why = format!("from {} to {}", instance.node, to.name);
            told(name, "Moving", why);
            continue;
        }
        if held(instance) || instance.terminating {
            told(
                name,
                "Waiting",
                "a release is at it, or it is going".to_owned(),
            );
            continue;
        }
        let renew = instance.wish == Wish::Renew;
        if renew && let Some(target) = &world.release.target {
            let release = target.release.as_deref().unwrap_or("?");
            told(
                name,
                "Waiting",
                format!("waits for release {release} to end"),
            );
            continue;
        }
        if instance.gate == Gate::In && instance.ready_since.is_some() && !instance.in_service() {
            // Its old containers may serve still.
            told(name, "Waiting", "it is being updated".to_owned());
            continue;
        }
        if instance.in_service() {
            if let Some(cell) = blind {
                let why = crate::release::unreachable(cell);
                told(
                    name,
                    "Waiting",
                    format!("{why}, and how it stands there is not known"),
                );
                continue;
            }
            // What a release has chosen is counted; others may have failed since it was chosen.
            let more = i32::from(!world.release.chosen.contains(name));
            if growing || out + more > limit {
                let why = format!(
                    "{out} of {total} instances are out of service, and at most {limit} may be"
                );
                told(name, "Waiting", why);
                continue;
            }
            out += more;
        }
        if let (Some(to), false) = (to, note) {
            let (from, to) = (&instance.node, &to.name);
            let why = format!("from {from} to {to}, once {} knows", cell.cluster);
            told(name, "Moving", why);
            continue;
        }
        let hold = if renew { Hold::Renew } else { Hold::PulledOut };
        granted.holds.insert(name.clone(), hold);
        if !renew {
            told(name, "OutOfService", String::new());
            continue;
        }
        match to {
            Some(to) => told(
                name,
                "Moving",
                format!("from {} to {}", instance.node, to.name),
            ),
            None => told(name, "Restarting", String::new()),
        }
        if let Gate::Out { since, .. } = &instance.gate {
            let drained = since.saturating_add(drain).unwrap_or(Timestamp::MAX);
            if instance.fit_since().is_some() && now < drained {
                granted.wake = tell::earlier(granted.wake, Some(drained));
                continue;
            }
            granted.actions.push(Action::DeleteInstance {
                cell: cell.name.clone(),
                instance: name.clone(),
                uid: instance.uid.clone(),
                version: instance.version.clone(),
            });
        }
    }
    for wish in &world.group.spec.instances {
        let there = world
            .cells
            .iter()
            .flat_map(|c| c.instances.values())
            .find(|i| i.name == wish.name);
        let wished = there.is_some_and(|i| i.wish != Wish::None);
        let there = there.is_some();
        if wish.remove || wish.to.is_some() {
            let home = |c: &&CellView| {
                let stem = c
                    .set_name
                    .clone()
                    .unwrap_or_else(|| world.group.set_in(&c.name));
                ordinal(&stem, &wish.name).is_some()
            };
            let home = world.cells.iter().find(home);
            let going = home.is_some_and(|c| {
                going(world.group, c)
                    .iter()
                    .any(|(_, w)| w.name == wish.name)
            });
            let (state, why) = match (there, going) {
                (false, _) => ("Gone", String::new()),
                (true, true) => ("Going", String::new()),
                (true, false) => (
                    "Waiting",
                    "only the last of a cell can go: numbers have no gaps (gantry scale --remove says what instead)".to_owned(),
                ),
            };
            told(&wish.name, state, why);
            continue;
        }
        if wish.to_node.is_some() && !wished {
            let home = world.cells.iter().find(|c| {
                let set = c.set_name.clone();
                let stem = set.unwrap_or_else(|| world.group.set_in(&c.name));
                ordinal(&stem, &wish.name).is_some()
            });
            if let Some((state, why)) = nodes::told(home, wish) {
                told(&wish.name, state, why);
                continue;
            }
        }
        if !there {
            told(
                &wish.name,
                "Missing",
                "there is no such instance".to_owned(),
            );
        }
    }
    granted
}

/// Instances that something is wished for: those named in the order of their entries, then the rest cell by
/// cell from the top down. What is out already comes first, at no cost.
fn in_order<'a>(world: &World<'a>) -> Vec<(&'a CellView, &'a Instance)> {
    let place: BTreeMap<&str, usize> = world
        .group
        .spec
        .instances
        .iter()
        .enumerate()
        .map(|(n, w)| (w.name.as_str(), n))
        .collect();
    let mut wished: Vec<(&CellView, &Instance)> = world
        .cells
        .iter()
        .flat_map(|c| c.instances.values().rev().map(move |i| (c, i)))
        .filter(|(_, i)| i.wish != Wish::None)
        .collect();
    wished.sort_by_key(|(_, i)| {
        let named = place.get(i.name.as_str()).copied().unwrap_or(usize::MAX);
        (i.in_service(), named)
    });
    wished
}
