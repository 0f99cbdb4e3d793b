//! Moving instances: given which may move and to which revision, what to do with each right now.
//!
//! The same for going forward and for going back. Keeps the limit of instances out of service, drains,
//! updates or deletes, follows with the partition, and tells which instances are late.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    release::{Doing, WorkingInstance},
    strategy::InPlace,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    action::Action,
    render,
    world::{CellView, Gate, Hold, Instance, Mark, Revisions, Run},
};

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
    let mut budget = Budget {
        chosen: left - chosen(order, false),
        fresh: left - chosen(order, true),
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
        Doing::Held | Doing::Returning => false,
    };
    if starved && moved.blocked.is_none() && moved.working.iter().all(hopeless) {
        moved.blocked = Some(starvation(order));
        moved.exhausted = true;
    }
    moved
}

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
    let limit = since
        .saturating_add(order.deadline)
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
fn missing(order: &Order<'_>, cell: &CellView, ordinal: i32, now: Timestamp, moved: &mut Moved) {
    let name = gantry_api::Group::instance_name(order.group, &cell.name, ordinal);
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
fn arrived(
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
                let since = since(order, name, Doing::Held, now);
                note(
                    order,
                    moved,
                    cell,
                    name,
                    instance.revision,
                    Doing::Held,
                    since,
                    String::new(),
                );
            } else if instance.gate == Gate::In {
                moved.finished += 1;
            } else {
                let since = since(order, name, Doing::Returning, now);
                note(
                    order,
                    moved,
                    cell,
                    name,
                    instance.revision,
                    Doing::Returning,
                    since,
                    String::new(),
                );
            }
        }
        _ => {
            if let Some(good) = fit {
                moved.due(good);
            }
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
fn depart(
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
            let since = since(order, name, Doing::Draining, now);
            note(
                order,
                moved,
                cell,
                name,
                instance.revision,
                Doing::Draining,
                since,
                String::new(),
            );
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
            if serving && *spare <= 0 {
                *starved = true;
                if before {
                    let since = since(order, name, Doing::Draining, now);
                    note(
                        order,
                        moved,
                        cell,
                        name,
                        instance.revision,
                        Doing::Draining,
                        since,
                        String::new(),
                    );
                } else {
                    moved.untouched += 1;
                }
                return false;
            }
            *spare -= i32::from(serving);
            moved.holds.insert(name.clone(), hold);
            let since = since(order, name, Doing::Draining, now);
            note(
                order,
                moved,
                cell,
                name,
                instance.revision,
                Doing::Draining,
                since,
                String::new(),
            );
            return false;
        }
    }
    if images.is_none() && !instance.doomed() && ready_to_act {
        // Marked first, on the instance as it is now: only then may the partition come past it.
        moved.holds.insert(name.clone(), Hold::Replace);
        let since = since(order, name, Doing::Draining, now);
        note(
            order,
            moved,
            cell,
            name,
            instance.revision,
            Doing::Draining,
            since,
            String::new(),
        );
        return false;
    }
    if images.is_none() {
        moved.holds.insert(name.clone(), Hold::Replace);
    }
    if !ready_to_act {
        let since = since(order, name, Doing::Draining, now);
        note(
            order,
            moved,
            cell,
            name,
            instance.revision,
            Doing::Draining,
            since,
            String::new(),
        );
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

/// How many more may be taken out of service.
struct Budget {
    /// Of those chosen before.
    chosen: i32,
    /// Of others.
    fresh: i32,
}

/// Whether `instance` is kept out as a bastion though others of its revision serve: what it is kept from
/// has happened, and as long as it is out those above it, which have to go first, may not be.
fn let_in_elsewhere(order: &Order<'_>, instance: &Instance) -> bool {
    let held =
        matches!(&instance.gate, Gate::Out { reason, .. } if reason == Hold::Bastion.reason());
    held && order
        .cells
        .iter()
        .flat_map(|c| c.instances.values())
        .any(|i| i.revision == instance.revision && i.in_service())
}

fn was_chosen(order: &Order<'_>, name: &str) -> bool {
    order.before.iter().any(|w| w.name == name)
}

/// Instances chosen before that the view still shows serving: all of those in cells that cannot be
/// reached, whatever the goal was then and is now, and (with `reachable`) those elsewhere on their way.
fn chosen(order: &Order<'_>, reachable: bool) -> i32 {
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
fn remember(order: &Order<'_>, moved: &mut Moved) {
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

/// The container runs that setting `changed` will end. A run that an earlier update was to end, and
/// has not, is still the one to end, unless the image goes back to what it runs: then nothing will.
fn ends(instance: &Instance, changed: &BTreeMap<String, String>) -> BTreeMap<String, Run> {
    let mut ends = BTreeMap::new();
    let before = instance.mark.as_ref().map(|m| &m.ends);
    for (name, container) in &instance.containers {
        let pending = before
            .and_then(|b| b.get(name))
            .filter(|run| run.id == container.id && run.restarts == container.restarts);
        let image = changed.get(name).unwrap_or(&container.image);
        let run = match pending {
            Some(run) => run.clone(),
            None if changed.contains_key(name) => Run {
                id: container.id.clone(),
                restarts: container.restarts,
                image: container.image.clone(),
            },
            None => continue,
        };
        if run.image != *image {
            ends.insert(name.clone(), run);
        }
    }
    ends
}

/// New images by container where an instance of revision `from` can be updated in place.
fn in_place(order: &Order<'_>, from: Option<i64>) -> Option<BTreeMap<String, String>> {
    if order.in_place == InPlace::Never {
        return None;
    }
    let to = order.revisions.get(&order.goal)?;
    let from = order.revisions.get(&from?)?;
    render::in_place(&from.template, &to.template).ok()
}

fn starvation(order: &Order<'_>) -> String {
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
                names.push(gantry_api::Group::instance_name(
                    order.group,
                    &cell.name,
                    ordinal,
                ));
            }
        }
    }
    let more = if count > names.len() { ", …" } else { "" };
    format!(
        "{count} instances are out of service already and at most {} may be: {}{more}",
        order.max_out,
        names.join(", ")
    )
}
