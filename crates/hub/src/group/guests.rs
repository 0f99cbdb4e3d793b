//! Guests: adopted instances whose names no StatefulSet can give. They serve and count like any other; the
//! cell's StatefulSet has the rest of the cell's instances, so that one that is lost is followed by an
//! instance with a name of the Group's own.
//!
//! To replace them, the set is asked for more than the rest, as many over all cells as the Group may have out
//! of service; a guest goes when more instances serve than the Group is to have.

use std::cmp::Reverse;

use super::World;
use crate::{
    action::Action,
    world::{CellView, Instance},
};

/// What is to be of the guests.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// How many instances each cell's set is to have.
    pub sets: Vec<i32>,
    /// Guests to delete.
    pub actions: Vec<Action>,
    /// In words; empty where there are none to be replaced.
    pub told: String,
}

/// Plans for cells that are to have `desired` instances, guests included.
pub(super) fn plan(world: &World<'_>, desired: &[i32]) -> Plan {
    let cells = world.cells;
    let present = |c: &CellView| c.guests.iter().filter(|g| !g.terminating).count() as i32;
    let all: i32 = cells.iter().map(present).sum();
    if all == 0 {
        return Plan {
            sets: desired.to_vec(),
            ..Plan::default()
        };
    }
    let spec = &world.group.spec;
    let total = spec.replicas.max(0);
    let replace = world.release.replace_guests || spec.adopt.as_ref().is_some_and(|a| a.replace);
    let mut surge = if replace {
        (spec.availability.max_unavailable.max_out(total as u32) as i32).max(1)
    } else {
        0
    };
    let serving: i32 = cells
        .iter()
        .map(|c| {
            c.instances.values().filter(|i| i.in_service()).count() as i32 + c.guests_serving()
        })
        .sum();
    let mut spare = serving - total;
    let mut plan = Plan::default();
    for (cell, wish) in cells.iter().zip(desired) {
        let guests = present(cell);
        let rest = (wish - guests).max(0);
        let more = if cell.reachable {
            surge.min(wish - rest).max(0)
        } else {
            0
        };
        surge -= more;
        plan.sets.push(rest + more);
        if !cell.reachable {
            continue;
        }
        // Those that do not serve go first, and cost nothing.
        let mut order: Vec<&Instance> = cell.guests.iter().filter(|g| !g.terminating).collect();
        order.sort_by_key(|g| (g.fit_since().is_some(), Reverse(g.created), &g.name));
        let mut surplus = cell.replicas() + guests - wish;
        for guest in order {
            let serves = guest.fit_since().is_some();
            if surplus <= 0 || serves && spare <= 0 {
                break;
            }
            surplus -= 1;
            spare -= i32::from(serves);
            plan.actions.push(Action::DeleteInstance {
                cell: cell.name.clone(),
                instance: guest.name.clone(),
                uid: guest.uid.clone(),
                version: guest.version.clone(),
            });
        }
    }
    if replace {
        plan.told = format!("{all} adopted instances are being replaced by named ones");
    }
    plan
}
