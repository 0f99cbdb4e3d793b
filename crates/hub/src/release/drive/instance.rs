//! One instance of the walk: missing, arrived at the goal, or to be taken there.

use std::collections::BTreeMap;

use gantry_api::release::{Doing, WorkingInstance};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Moved, Order,
    images::ends,
    limit::{Budget, was_chosen},
};
use crate::{
    action::Action,
    world::{CellView, Gate, Hold, Instance, Mark, Wish},
};

fn since(order: &Order<'_>, name: &str, doing: Doing, now: Timestamp) -> Timestamp {
    let known = order.before.iter().find(|w| {
        w.name == name && (w.doing == doing || w.doing == Doing::Failed && doing == Doing::Updating)
    });
    let since = known.and_then(|w| w.since.as_ref()).map_or(now, |t| t.0);
    order.clock_floor.map_or(since, |floor| since.max(floor))
}

#[expect(clippy::too_many_arguments, reason = "the fields of one entry")]
fn note(
    order: &Order<'_>,
    moved: &mut Moved,
    cell: &CellView,
    name: &str,
    revision: Option<i64>,
    doing: Doing,
    since: Timestamp,
    message: String,
) {
    moved.working.push(WorkingInstance {
        name: name.to_owned(),
        cell: cell.name.clone(),
        batch: order.batch,
        doing,
        revision,
        since: Some(Time(since)),
        message,
    });
}

/// Notes what an instance is being taken through, since when it has been.
fn on_its_way(
    order: &Order<'_>,
    cell: &CellView,
    instance: &Instance,
    doing: Doing,
    now: Timestamp,
    moved: &mut Moved,
) {
    let since = since(order, &instance.name, doing, now);
    note(
        order,
        moved,
        cell,
        &instance.name,
        instance.revision,
        doing,
        since,
        String::new(),
    );
}

/// An instance that is not ready for this long after its update is on its way; after that it is worth a
/// word why.
const ORDINARY: SignedDuration = SignedDuration::from_secs(10);

/// An instance that is on its way to being ready: is it late?
fn clock(
    order: &Order<'_>,
    cell: &CellView,
    name: &str,
    revision: Option<i64>,
    trouble: &str,
    now: Timestamp,
    moved: &mut Moved,
) {
    let since = since(order, name, Doing::Updating, now);
    if order.failed.contains(name) {
        moved.failed += 1;
        note(
            order,
            moved,
            cell,
            name,
            revision,
            Doing::Failed,
            since,
            trouble.to_owned(),
        );
        return;
    }
    if !cell.reachable {
        // Nobody can tell: it may be ready by now. Its clock starts anew when the member is back.
        moved.working.push(WorkingInstance {
            name: name.to_owned(),
            cell: cell.name.clone(),
            batch: order.batch,
            doing: Doing::Updating,
            revision,
            since: None,
            message: "out of sight".to_owned(),
        });
        return;
    }
    // Time that it was unready before counts too: to flap is no progress.
    let spent = SignedDuration::from_secs(order.spent.get(name).copied().unwrap_or(0));
    let limit = since
        .saturating_add(order.deadline - spent)
        .unwrap_or(Timestamp::MAX);
    if now >= limit {
        moved
            .late
            .push((name.to_owned(), cell.name.clone(), trouble.to_owned()));
    } else {
        moved.due(limit);
    }
    let telling = since.saturating_add(ORDINARY).unwrap_or(Timestamp::MAX);
    let message = if now >= telling {
        trouble.to_owned()
    } else {
        moved.due(telling);
        String::new()
    };
    note(
        order,
        moved,
        cell,
        name,
        revision,
        Doing::Updating,
        since,
        message,
    );
}

/// An ordinal without a pod: the StatefulSet brings it back, on the revision its partition says.
pub(super) fn missing(
    order: &Order<'_>,
    cell: &CellView,
    ordinal: i32,
    now: Timestamp,
    moved: &mut Moved,
) {
    let name = cell.instance(order.group, ordinal);
    clock(
        order,
        cell,
        &name,
        None,
        "its pod has not been made yet",
        now,
        moved,
    );
}

/// An instance that carries the goal's labels.
pub(super) fn arrived(
    order: &Order<'_>,
    cell: &CellView,
    instance: &Instance,
    now: Timestamp,
    moved: &mut Moved,
) {
    let name = &instance.name;
    let fit = instance
        .fit_since()
        .map(|t| t.saturating_add(order.min_ready).unwrap_or(Timestamp::MAX));
    match fit {
        Some(good) if good <= now => {
            if order.bastion {
                moved.holds.insert(name.clone(), Hold::Bastion);
                moved.finished += 1;
                on_its_way(order, cell, instance, Doing::Held, now, moved);
            } else if instance.gate == Gate::In || instance.wish == Wish::Out {
                // (People keep it out: nothing more is to come of it.)
                moved.finished += 1;
            } else {
                on_its_way(order, cell, instance, Doing::Returning, now, moved);
            }
        }
        _ => {
            if instance.gate != Gate::In {
                moved.holds.insert(
                    name.clone(),
                    if order.bastion {
                        Hold::Bastion
                    } else {
                        Hold::Update
                    },
                );
            }
            if let Some(good) = fit {
                moved.due(good);
                on_its_way(order, cell, instance, Doing::Warming, now, moved);
                return;
            }
            clock(
                order,
                cell,
                name,
                instance.revision,
                &instance.trouble,
                now,
                moved,
            );
        }
    }
}

/// An instance that is not on the goal: chosen, drained, touched. True once it has drained.
#[expect(
    clippy::too_many_arguments,
    reason = "one step of the walk in `drive`, split off to be read on its own"
)]
pub(super) fn depart(
    order: &Order<'_>,
    cell: &CellView,
    ordinal: i32,
    instance: &Instance,
    ready_to_act: bool,
    images: Option<&BTreeMap<String, String>>,
    budget: &mut Budget,
    starved: &mut bool,
    now: Timestamp,
    moved: &mut Moved,
) -> bool {
    let name = &instance.name;
    let hold = if order.bastion {
        Hold::Bastion
    } else {
        Hold::Update
    };
    let Some(set) = &cell.set else { return false };
    if instance.terminating {
        // It comes back by itself, on the revision that the partition says; then it is looked at again.
        clock(
            order,
            cell,
            name,
            instance.revision,
            "it is being deleted",
            now,
            moved,
        );
        return true;
    }
    // Past the partition the StatefulSet controller replaces it, whatever is pressed now.
    // And where even a lost instance comes back on the goal, there is no partition to wait for.
    let committed = images.is_none() && ordinal >= set.partition;
    let replaceable = committed || cell.all_come_new();
    let committed = committed || instance.doomed();
    let serving = instance.in_service();
    // What has been chosen is finished, whatever is pressed: it may be out in truth already.
    let before = was_chosen(order, name);
    if !committed && (!(order.moving || before) || !ready_to_act) {
        if before {
            on_its_way(order, cell, instance, Doing::Draining, now, moved);
        }
        moved.untouched += 1;
        return false;
    }
    match &instance.gate {
        Gate::Out {
            since: out_since, ..
        } => {
            moved.holds.insert(name.clone(), hold);
            let drained_at = out_since
                .saturating_add(order.drain)
                .unwrap_or(Timestamp::MAX);
            let was_fit = instance.fit_since().is_some();
            if was_fit && now < drained_at {
                moved.due(drained_at);
                note(
                    order,
                    moved,
                    cell,
                    name,
                    instance.revision,
                    Doing::Draining,
                    *out_since,
                    String::new(),
                );
                return false;
            }
        }
        // A new pod has never been in traffic.
        Gate::Unset if !order.bastion => {
            moved.holds.insert(name.clone(), hold);
        }
        Gate::In | Gate::Unset => {
            // One that is out for reasons of its own costs nothing to take along.
            let spare = if before {
                &mut budget.chosen
            } else {
                &mut budget.fresh
            };
            if serving && !before && budget.wave {
                moved.untouched += 1;
                return false;
            }
            if serving && *spare <= 0 {
                *starved = true;
                if before {
                    on_its_way(order, cell, instance, Doing::Draining, now, moved);
                } else {
                    moved.untouched += 1;
                }
                return false;
            }
            *spare -= i32::from(serving);
            moved.holds.insert(name.clone(), hold);
            on_its_way(order, cell, instance, Doing::Draining, now, moved);
            return false;
        }
    }
    if images.is_none() && !instance.doomed() && ready_to_act {
        // Marked first, on the instance as it is now: only then may the partition come past it.
        moved.holds.insert(name.clone(), Hold::Replace);
        on_its_way(order, cell, instance, Doing::Draining, now, moved);
        return false;
    }
    if images.is_none() {
        moved.holds.insert(name.clone(), Hold::Replace);
    }
    if !ready_to_act {
        on_its_way(order, cell, instance, Doing::Draining, now, moved);
        return false;
    }
    clock(
        order,
        cell,
        name,
        instance.revision,
        &instance.trouble,
        now,
        moved,
    );
    match images {
        Some(images) => {
            let changed: BTreeMap<String, String> = images
                .iter()
                .filter(|(container, image)| {
                    instance
                        .containers
                        .get(*container)
                        .is_some_and(|c| c.image != **image)
                })
                .map(|(c, i)| (c.clone(), i.clone()))
                .collect();
            let ends = ends(instance, &changed);
            moved.actions.push(Action::UpdateInPlace {
                cell: cell.name.clone(),
                instance: name.clone(),
                version: instance.version.clone(),
                revision: order.goal,
                hash: set.update_hash.clone(),
                images: changed,
                mark: Mark {
                    revision: order.goal,
                    ends,
                },
            });
        }
        None if replaceable => moved.actions.push(Action::DeleteInstance {
            cell: cell.name.clone(),
            instance: name.clone(),
            uid: instance.uid.clone(),
            version: instance.version.clone(),
        }),
        // The partition is lowered past it first.
        None => {}
    }
    true
}
