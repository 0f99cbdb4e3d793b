//! Moving instances: given which may move and to which revision, what to do with each right now.
//!
//! The same for going forward and for going back. Keeps the limit of instances out of service, drains,
//! updates or deletes, follows with the partition, and tells which instances are late.

mod images;
mod instance;
mod limit;

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    release::{Doing, WorkingInstance},
    strategy::InPlace,
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    action::Action,
    world::{CellView, Hold, Revisions},
};
use images::in_place;
use instance::{arrived, depart, missing};
use limit::{Budget, chosen, let_in_elsewhere, remember, starvation, wanted_out, wave_under_way};

/// Which instances may move, and how.
pub(super) struct Order<'a> {
    /// All cells of the group.
    pub cells: &'a [CellView],
    /// Revisions of the group.
    pub revisions: &'a Revisions,
    /// The revision to go to.
    pub goal: i64,
    /// By cell: the lowest ordinal that may move. Cells not named may not.
    pub floors: BTreeMap<String, i32>,
    /// Whether instances not yet touched may be. Those under way are finished in any case.
    pub moving: bool,
    /// Whether finished instances stay out of service until they are accepted.
    pub bastion: bool,
    /// How instances may be updated.
    pub in_place: InPlace,
    /// Whether no other is chosen until those under way are back.
    pub lock_step: bool,
    /// How many may be out of service.
    pub max_out: i32,
    /// Between taking an instance out of service and touching it.
    pub drain: SignedDuration,
    /// How long an instance must have been ready.
    pub min_ready: SignedDuration,
    /// How long an instance may take from its update to its being ready.
    pub deadline: SignedDuration,
    /// The batch, for the record.
    pub batch: i32,
    /// What was under way when last asked; tells since when.
    pub before: &'a [WorkingInstance],
    /// Seconds that instances have been unready before their present spell.
    pub spent: BTreeMap<String, i64>,
    /// Instances given up on.
    pub failed: BTreeSet<String>,
    /// Clocks of instances start anew here, if this is later.
    pub clock_floor: Option<Timestamp>,
    /// Name of the group.
    pub group: &'a str,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// To do.
    pub actions: Vec<Action>,
    /// Who has to be out of service.
    pub holds: BTreeMap<String, Hold>,
    /// Who was marked to be replaced and cannot be yet.
    pub spared: BTreeSet<String>,
    /// Who is under way.
    pub working: Vec<WorkingInstance>,
    /// Who has just run out of time: instance, cell, what is wrong.
    pub late: Vec<(String, String, String)>,
    /// Instances that may move, and exist or should.
    pub size: i32,
    /// Of them, on the goal and (bastion) ready or (else) in service.
    pub finished: i32,
    /// Of them, given up on (and not finished after all).
    pub failed: i32,
    /// Of them, not yet on the goal.
    pub behind: i32,
    /// Of those, not even chosen yet.
    pub untouched: i32,
    /// Whether every partition has come down to its floor.
    pub followed: bool,
    /// When something is due.
    pub wake: Option<Timestamp>,
    /// What keeps it from moving, in words.
    pub blocked: Option<String>,
    /// Whether that is the limit, and nothing under way will ever free any of it.
    pub exhausted: bool,
}

impl Moved {
    fn due(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }
}

/// What to do with each instance of the order at `now`.
pub(super) fn drive(order: &Order<'_>, now: Timestamp) -> Moved {
    let mut moved = Moved {
        followed: true,
        ..Moved::default()
    };
    let left = order.max_out - order.cells.iter().map(CellView::out).sum::<i32>();
    // Instances chosen before that the view still shows serving may be out in truth: for others there is
    // only what they leave, or a stale view would let another go out beside them.
    // Those in a cell that cannot be reached will not be seen to go: they count against all others.
    let by_people = wanted_out(order);
    let mut budget = Budget {
        chosen: left - chosen(order, false),
        fresh: left - chosen(order, true) - by_people,
        wave: order.lock_step && wave_under_way(order),
    };
    let mut starved = false;
    // Templates are compared once for each revision met, not for each instance.
    let mut known: BTreeMap<Option<i64>, Option<BTreeMap<String, String>>> = BTreeMap::new();
    for cell in order.cells {
        let Some(&floor) = order.floors.get(&cell.name) else {
            continue;
        };
        let Some(set) = cell.set.as_ref() else {
            continue;
        };
        if !cell.reachable {
            moved.blocked = Some(super::begin::unreachable(cell));
        }
        if set.revision != Some(order.goal) {
            // The template comes first; until it is there nothing here may move.
            let left = (floor..set.replicas).count() as i32;
            moved.size += left;
            moved.behind += left;
            moved.untouched += left;
            moved.followed = false;
            continue;
        }
        let ready_to_act = cell.reachable && cell.template_at(order.goal);
        // From the top down: as far as this the partition may be lowered.
        let mut clear = set.replicas;
        let mut unbroken = true;
        let mut replaced = false;
        // Whether an instance further up stays where it is: the partition cannot come past it.
        let mut gap = false;
        for ordinal in (floor..set.replicas).rev() {
            moved.size += 1;
            let Some(instance) = cell.instances.get(&ordinal) else {
                moved.behind += 1;
                missing(order, cell, ordinal, now, &mut moved);
                if unbroken {
                    clear = ordinal;
                }
                continue;
            };
            if cell.at(instance, order.goal) {
                arrived(order, cell, instance, now, &mut moved);
                if unbroken {
                    clear = ordinal;
                }
                continue;
            }
            moved.behind += 1;
            let images = known
                .entry(instance.revision)
                .or_insert_with(|| in_place(order, instance.revision))
                .as_ref();
            let images = images.filter(|images| {
                images
                    .keys()
                    .all(|container| instance.containers.contains_key(container))
            });
            if gap && images.is_none() && ordinal < set.partition && !cell.all_come_new() {
                // Taken out now, it would only wait, and use up what the one above needs.
                if instance.doomed() || let_in_elsewhere(order, instance) {
                    moved.spared.insert(instance.name.clone());
                }
                moved.untouched += 1;
                unbroken = false;
                continue;
            }
            let drained = depart(
                order,
                cell,
                ordinal,
                instance,
                ready_to_act,
                images,
                &mut budget,
                &mut starved,
                now,
                &mut moved,
            );
            gap |= !moved.holds.contains_key(&instance.name) && !instance.terminating;
            if drained && images.is_none() {
                replaced = true;
                if unbroken {
                    clear = ordinal;
                }
            } else {
                unbroken = false;
            }
        }
        // An update in place moves the partition once a batch; replacing needs it as it goes.
        if clear < set.partition && (clear <= floor || replaced) && ready_to_act {
            moved.actions.push(Action::SetPartition {
                cell: cell.name.clone(),
                version: set.version.clone(),
                partition: clear,
            });
        }
        if set.partition.min(set.replicas) > floor {
            moved.followed = false;
        }
    }
    remember(order, &mut moved);
    let hopeless = |w: &WorkingInstance| match w.doing {
        Doing::Failed => true,
        Doing::Draining => !moved.holds.contains_key(&w.name),
        Doing::Updating => moved.late.iter().any(|(name, _, _)| *name == w.name),
        Doing::Warming | Doing::Held | Doing::Returning => false,
    };
    if starved && moved.blocked.is_none() && moved.working.iter().all(hopeless) {
        moved.blocked = Some(starvation(order));
        moved.exhausted = true;
    }
    moved
}
