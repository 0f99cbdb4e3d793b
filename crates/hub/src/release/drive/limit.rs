//! The limit of instances out of service: what is left of it, who uses it up.

use std::collections::BTreeSet;

use gantry_api::release::{Doing, WorkingInstance};

use super::{Moved, Order};
use crate::world::{CellView, Gate, Hold, Instance, Wish};

/// How many more may be taken out of service.
pub(super) struct Budget {
    /// Of those chosen before.
    pub chosen: i32,
    /// Of others.
    pub fresh: i32,
    /// Whether others wait for the wave that is under way.
    pub wave: bool,
}

/// Whether instances that were chosen are not yet back in service. Those given up on are not waited for,
/// nor those in cells that are left out.
pub(super) fn wave_under_way(order: &Order<'_>) -> bool {
    order
        .before
        .iter()
        .any(|w| w.doing != Doing::Failed && order.floors.contains_key(&w.cell))
}

/// Whether `instance` is kept out as a bastion though others of its revision serve: what it is kept from
/// has happened, and as long as it is out those above it, which have to go first, may not be.
pub(super) fn let_in_elsewhere(order: &Order<'_>, instance: &Instance) -> bool {
    let held =
        matches!(&instance.gate, Gate::Out { reason, .. } if reason == Hold::Bastion.reason());
    held && order
        .cells
        .iter()
        .flat_map(|c| c.instances.values())
        .any(|i| i.revision == instance.revision && i.in_service())
}

/// Instances that people want out of service and that the view shows serving: they may be out already, or
/// are about to be, and go before what a release would take out.
pub(super) fn wanted_out(order: &Order<'_>) -> i32 {
    let wanted = |cell: &CellView, i: &Instance| {
        let wish = match i.wish {
            Wish::Out => true,
            // It waits for the release to end; where nobody can look it may have gone before.
            Wish::Renew => !cell.reachable,
            Wish::None => false,
        };
        wish && i.in_service() && !was_chosen(order, &i.name)
    };
    let of = |cell: &CellView| cell.instances.values().filter(|i| wanted(cell, i)).count() as i32;
    order.cells.iter().map(of).sum()
}

pub(super) fn was_chosen(order: &Order<'_>, name: &str) -> bool {
    order.before.iter().any(|w| w.name == name)
}

/// Instances chosen before that the view still shows serving: all of those in cells that cannot be
/// reached, whatever the goal was then and is now, and (with `reachable`) those elsewhere on their way.
pub(super) fn chosen(order: &Order<'_>, reachable: bool) -> i32 {
    let counts = |cell: &CellView, ordinal: i32, instance: &Instance| {
        let under_way = || {
            reachable
                && order.floors.get(&cell.name).is_some_and(|f| ordinal >= *f)
                && !cell.at(instance, order.goal)
        };
        instance.in_service()
            && ordinal < cell.replicas()
            && (!cell.reachable || under_way())
            && was_chosen(order, &instance.name)
    };
    order
        .cells
        .iter()
        .map(|cell| {
            cell.instances
                .iter()
                .filter(|(ordinal, i)| counts(cell, **ordinal, i))
                .count() as i32
        })
        .sum()
}

/// What was under way in a cell that cannot be reached stays written down, whatever the walk made of it:
/// what the last view shows serving may be out, and nobody can look.
pub(super) fn remember(order: &Order<'_>, moved: &mut Moved) {
    let away: BTreeSet<&str> = order
        .cells
        .iter()
        .filter(|c| !c.reachable)
        .map(|c| c.name.as_str())
        .collect();
    if away.is_empty() {
        return;
    }
    let told: BTreeSet<&str> = moved.working.iter().map(|w| w.name.as_str()).collect();
    let forgotten: Vec<WorkingInstance> = order
        .before
        .iter()
        .filter(|w| away.contains(w.cell.as_str()) && !told.contains(w.name.as_str()))
        .cloned()
        .collect();
    moved.working.extend(forgotten);
}

pub(super) fn starvation(order: &Order<'_>) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut count = 0;
    for cell in order.cells {
        for ordinal in (0..cell.replicas()).rev() {
            if cell
                .instances
                .get(&ordinal)
                .is_some_and(Instance::in_service)
            {
                continue;
            }
            count += 1;
            if names.len() < 3 {
                names.push(cell.instance(order.group, ordinal));
            }
        }
    }
    let more = if count > names.len() { ", …" } else { "" };
    let people = match wanted_out(order) {
        0 => String::new(),
        n => format!("; {n} more are pulled out by people first"),
    };
    format!(
        "{count} instances are out of service already and at most {} may be: {}{more}{people}",
        order.max_out,
        names.join(", ")
    )
}
