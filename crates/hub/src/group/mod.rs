//! The group controller's planner: sets, sizes, gates and status of one Group.
//!
//! It makes each cell's StatefulSet on the Group's current revision, keeps its size, and turns the
//! in-service gate of every instance. Template and partition of an existing set belong to releases; all
//! this planner does to them is to move the partition along with the size where a release has not yet
//! reached a cell, and to clear it when every instance is on the current revision.

mod guests;
pub mod moves;
pub mod nodes;
pub mod people;
pub mod placement;
pub mod shares;
pub mod status;
pub mod support;
pub mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use gantry_api::{App, Group, GroupStatus, labels, revision::RevisionRef};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    action::Action,
    render::{self, Source},
    world::{CellView, Gate, Hold, Instance, Revision, Revisions},
};

/// Everything the planner looks at.
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// The Group.
    pub group: &'a Group,
    /// Its App.
    pub app: Option<&'a App>,
    /// Its revisions.
    pub revisions: &'a Revisions,
    /// Its cells: those of its placement in that order, then those it has left but still has something in.
    pub cells: &'a [CellView],
    /// What the shell knows of members, by name.
    pub members: &'a BTreeMap<String, MemberView>,
    /// What the Group's releases ask for.
    pub release: ReleaseView,
    /// What kept the last actions from coming through.
    pub trouble: Option<String>,
    /// An adoption or a leaving is under way: what it waits for. Nothing else is done meanwhile.
    pub held: Option<String>,
}

/// What the shell knows of what it has done on a member for this Group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberView {
    /// Whether the member answers.
    pub reachable: bool,
    /// [`support_key`] of the support objects last applied; `None` if unknown.
    pub supported: Option<String>,
    /// Whether everything of the Group has been removed there.
    pub cleaned: bool,
}

/// What the Group's releases ask of this planner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReleaseView {
    /// The revision that a running release brings.
    pub target: Option<RevisionRef>,
    /// Instances that have to be out of service.
    pub holds: BTreeMap<String, Hold>,
    /// Instances that were taken out to be replaced, cannot be yet, and serve until then.
    pub spared: BTreeSet<String>,
    /// Revisions let into traffic beside the current one.
    pub accepted: Option<i64>,
    /// Cells in which no instance may be added for now.
    pub frozen: BTreeSet<String>,
    /// Whether the release that ran last was aborted: sets stay as it left them.
    pub aborted: bool,
    /// Instances that the running release has chosen: out of service, or about to be.
    pub chosen: BTreeSet<String>,
    /// How many instances the running release lets be out of service.
    pub max_out: Option<i32>,
    /// A release waits for the guests to be replaced.
    pub replace_guests: bool,
    /// Revisions that releases still refer to.
    pub referred: BTreeSet<i64>,
}

/// What to do next. Actions go first, in order; the status is what has been seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// In order.
    pub actions: Vec<Action>,
    /// The Group's new status.
    pub status: GroupStatus,
    /// Instances wished for in each of the world's cells.
    pub desired: Vec<i32>,
    /// When to ask again even if nothing changes.
    pub wake: Option<Timestamp>,
}

/// What to do next for a Group.
pub fn plan(world: &World<'_>, now: Timestamp) -> Step {
    let mut step = Step {
        status: world.group.status.clone().unwrap_or_default(),
        ..Step::default()
    };
    let mut problems: Vec<String> = world.trouble.iter().cloned().collect();
    if world.group.metadata.deletion_timestamp.is_some() {
        if world.group.spec.on_delete.is_remove() {
            remove(world, &mut step, &mut problems);
        } else if let Some(waits) = &world.held {
            problems.push(format!("its instances are left: {waits}"));
        } else if finalizers(world).iter().any(|f| f == labels::FINALIZER) {
            step.actions.push(Action::RemoveFinalizer);
        }
        status::fill(world, &[], &problems, now, &mut step.status);
        return step;
    }
    if !finalizers(world).iter().any(|f| f == labels::FINALIZER) {
        step.actions.push(Action::AddFinalizer);
    }
    let shares = shares::shares(
        world.group.spec.replicas,
        &world.group.spec.placement,
        world.cells,
        &step.status.cells,
        now,
    );
    step.wake = crate::release::tell::earlier(step.wake, shares.wake);
    if let Some(waits) = &world.held {
        problems.push(format!("adopting: {waits}"));
        status::fill(world, &shares.desired, &problems, now, &mut step.status);
        step.desired = shares.desired;
        return step;
    }
    let desired = &shares.desired;
    let guests = guests::plan(world, desired);
    for cell in world.cells.iter().filter(|c| c.weight.is_some()) {
        if !cell.reachable {
            problems.push(crate::release::unreachable(cell));
        }
    }
    if let Some(app) = world.app {
        let source = Source::new(app, world.group);
        if let Some(current) = current(world, source, &mut step) {
            supports(world, current, desired, &mut step);
            for (cell, wish) in world.cells.iter().zip(&guests.sets) {
                size(world, cell, *wish, current.number, &mut step, &mut problems);
            }
            drift(world, current, &mut problems);
        }
    } else {
        problems.push(format!("app {} does not exist", world.group.spec.app));
    }
    gates(world, &mut step, now);
    step.actions.extend(guests.actions);
    prune(world, &mut step);
    problems.extend(shares.problems);
    problems.extend(Some(guests.told).filter(|t| !t.is_empty()));
    status::fill(world, desired, &problems, now, &mut step.status);
    for (cell, room) in step.status.cells.iter_mut().zip(&shares.rooms) {
        cell.full.clone_from(&room.full);
        cell.lost_since = room.lost.map(Time);
    }
    step.desired = shares.desired;
    step
}

fn finalizers<'a>(world: &World<'a>) -> &'a [String] {
    let metadata = &world.group.metadata;
    metadata.finalizers.as_deref().unwrap_or_default()
}

/// The revision that the Group is on, made if it is new.
fn current<'a>(world: &World<'a>, source: Source<'_>, step: &mut Step) -> Option<&'a Revision> {
    let known = step
        .status
        .current
        .as_ref()
        .and_then(|c| world.revisions.get(&c.revision));
    if known.is_some() {
        return known;
    }
    // The status is lost or not yet written: what runs tells, then the newest that was written down.
    let running = world
        .cells
        .iter()
        .filter_map(|c| c.set.as_ref()?.revision)
        .min()
        .and_then(|n| world.revisions.get(&n));
    match running.or_else(|| world.revisions.values().next_back()) {
        Some(revision) => {
            step.status.current = Some(RevisionRef {
                revision: revision.number,
                image: revision.spec.image.clone(),
                release: None,
            });
            Some(revision)
        }
        None => {
            step.actions
                .push(Action::CreateRevision(Box::new(render::revision(
                    source,
                    &world.group.spec.revision,
                    1,
                ))));
            None
        }
    }
}

/// What tells the support objects of the Group on `cluster` from others, within this process; and how
/// many instances the Group is to have there. Made from the objects themselves: most changes of a Group
/// or its revisions change none of them.
pub fn support_key(
    world: &World<'_>,
    revisions: &[&Revision],
    cluster: &str,
    desired: &[i32],
) -> (String, i32) {
    let replicas: i32 = world
        .cells
        .iter()
        .zip(desired)
        .filter(|(c, _)| c.cluster == cluster)
        .map(|(_, n)| n)
        .sum();
    let objects = world.app.map(|app| {
        support::objects(
            Source::new(app, world.group),
            revisions,
            world
                .group
                .metadata
                .namespace
                .as_deref()
                .unwrap_or_default(),
            replicas,
            world.group.spec.replicas,
        )
    });
    let mut hasher = DefaultHasher::new();
    objects.hash(&mut hasher);
    (format!("{:016x}", hasher.finish()), replicas)
}

/// Revisions whose config the members need now.
pub fn revisions_in_use<'a>(
    revisions: &'a Revisions,
    current: Option<i64>,
    release: &ReleaseView,
) -> Vec<&'a Revision> {
    let numbers: BTreeSet<i64> = current
        .into_iter()
        .chain(release.target.as_ref().map(|t| t.revision))
        .collect();
    numbers.iter().filter_map(|n| revisions.get(n)).collect()
}

fn supports(world: &World<'_>, current: &Revision, desired: &[i32], step: &mut Step) {
    let in_use = revisions_in_use(world.revisions, Some(current.number), &world.release);
    let clusters: BTreeSet<&str> = world
        .cells
        .iter()
        .filter(|c| c.weight.is_some() && c.reachable)
        .map(|c| c.cluster.as_str())
        .collect();
    for cluster in clusters {
        let (wanted, replicas) = support_key(world, &in_use, cluster, desired);
        let applied = world
            .members
            .get(cluster)
            .and_then(|m| m.supported.as_ref());
        if applied != Some(&wanted) {
            step.actions.push(Action::EnsureSupport {
                cluster: cluster.to_owned(),
                replicas,
            });
        }
    }
}

fn size(
    world: &World<'_>,
    cell: &CellView,
    wish: i32,
    current: i64,
    step: &mut Step,
    problems: &mut Vec<String>,
) {
    if !cell.reachable {
        return;
    }
    let Some(set) = &cell.set else {
        if cell.weight.is_some() {
            step.actions.push(Action::CreateSet {
                cell: cell.name.clone(),
                revision: current,
                replicas: wish,
            });
        }
        return;
    };
    if set.terminating {
        return;
    }
    if wish == 0 && cell.weight.is_none() && set.replicas == 0 && cell.instances.is_empty() {
        step.actions.push(Action::DeleteSet {
            cell: cell.name.clone(),
        });
        return;
    }
    let on_current = set.revision == Some(current);
    if wish > set.replicas {
        if world.release.frozen.contains(&cell.name) {
            problems.push(format!(
                "scaling up in {} waits for the bastion there to be accepted",
                cell.name
            ));
            return;
        }
        // Where a release has not touched the cell, the new instances stay below its partition.
        let partition = if on_current || set.partition < set.replicas {
            set.partition
        } else {
            set.partition.max(wish)
        };
        step.actions.push(Action::Scale {
            cell: cell.name.clone(),
            version: set.version.clone(),
            replicas: wish,
            partition,
        });
        return;
    }
    if wish < set.replicas {
        let replicas = shrink(world, cell, wish);
        if replicas < set.replicas {
            step.actions.push(Action::Scale {
                cell: cell.name.clone(),
                version: set.version.clone(),
                replicas,
                partition: set.partition,
            });
        } else {
            problems.push(format!(
                "{} keeps {} instances for {wish} until others are in service",
                cell.name, set.replicas
            ));
        }
        return;
    }
    let settled = cell.instances.values().all(|i| i.revision == Some(current));
    if !on_current && settled && world.release.target.is_none() && !world.release.aborted {
        // A write of an ended release that came through late. Nothing runs on it.
        step.actions.push(Action::SetTemplate {
            cell: cell.name.clone(),
            version: set.version.clone(),
            revision: current,
            partition: set.replicas,
        });
        return;
    }
    if on_current && set.partition > 0 && world.release.target.is_none() && settled {
        step.actions.push(Action::SetPartition {
            cell: cell.name.clone(),
            version: set.version.clone(),
            partition: 0,
        });
    }
}

/// How far `cell` may shrink towards `wish` now: when the Group as a whole is not to shrink, instances
/// that serve go only as others have come into service elsewhere.
fn shrink(world: &World<'_>, cell: &CellView, wish: i32) -> i32 {
    let total = world.group.spec.replicas.max(0);
    let serving: i32 = world
        .cells
        .iter()
        .flat_map(|c| c.instances.values())
        .map(|i| i32::from(i.in_service()))
        .sum();
    let availability = &world.group.spec.availability;
    // What is moved goes when another is in service in its place.
    let least = match cell.keep {
        Some(_) => total,
        None => total - availability.max_unavailable.max_out(total as u32) as i32,
    };
    let mut spare = serving - least.max(0);
    let mut replicas = cell.replicas();
    while replicas > wish {
        let serves = cell
            .instances
            .get(&(replicas - 1))
            .is_some_and(Instance::in_service);
        if serves {
            if spare <= 0 {
                break;
            }
            spare -= 1;
        }
        replicas -= 1;
    }
    replicas
}

/// Turns the gate of every instance that needs it.
fn gates(world: &World<'_>, step: &mut Step, now: Timestamp) {
    let current = step.status.current.as_ref().map(|c| c.revision);
    // Instances about to be added count as out of service until they are up: nobody goes out on a count
    // made before.
    let of = |cell: &str| {
        world
            .cells
            .iter()
            .find(|c| c.name == cell)
            .map_or(0, CellView::replicas)
    };
    let growing = step.actions.iter().any(|a| match a {
        Action::Scale { cell, replicas, .. } => *replicas > of(cell),
        // A cell that joins.
        Action::CreateSet { replicas, .. } => *replicas > 0,
        _ => false,
    });
    let granted = people::grant(world, growing, now);
    step.wake = crate::release::tell::earlier(step.wake, granted.wake);
    step.status.instances.clone_from(&granted.notes);
    for cell in world.cells.iter().filter(|c| c.reachable) {
        let mut fenced = false;
        for (ordinal, instance) in cell.instances.iter().filter(|(_, i)| !i.terminating) {
            let people = granted.holds.get(&instance.name).copied();
            if let Some(hold) = wished(world, cell, *ordinal, instance, current, people) {
                if hold.is_some() && growing && instance.in_service() {
                    continue;
                }
                // Marked to be replaced, and now let in after all: the partition may be past it already,
                // where this view is too old to show that. A write on the set as seen tells: it is
                // refused then, and what follows it in the cell is not done.
                if hold.is_none()
                    && !fenced
                    && instance.doomed()
                    && let Some(set) = &cell.set
                {
                    fenced = true;
                    step.actions.push(Action::SetPartition {
                        cell: cell.name.clone(),
                        version: set.version.clone(),
                        partition: set.partition,
                    });
                }
                step.actions.push(Action::SetGate {
                    cell: cell.name.clone(),
                    instance: instance.name.clone(),
                    version: instance.version.clone(),
                    hold,
                    message: message(world, hold),
                });
            }
        }
    }
    step.actions.extend(granted.actions);
    step.actions.extend(nodes::pins(world, &granted.pins));
}

/// What the gate of `instance` has to be turned to; `None` if it is right.
fn wished(
    world: &World<'_>,
    cell: &CellView,
    ordinal: i32,
    instance: &Instance,
    current: Option<i64>,
    people: Option<Hold>,
) -> Option<Option<Hold>> {
    if let Some(hold) = world.release.holds.get(&instance.name) {
        let hold = *hold;
        return match &instance.gate {
            Gate::Out { reason, .. } if reason == hold.reason() => None,
            // An unaccepted bastion's gate says so; any other reason is as good as the next.
            Gate::Out { .. } if hold == Hold::Update => None,
            Gate::Out { .. } if hold == Hold::Bastion && instance.doomed() => None,
            // A new pod is out of service until it is let in.
            Gate::Unset if hold == Hold::Update => None,
            _ => Some(Some(hold)),
        };
    }
    if let Some(hold) = people {
        // Whatever else keeps it out, it is out.
        return (!matches!(instance.gate, Gate::Out { .. })).then_some(Some(hold));
    }
    if instance.gate == Gate::In || instance.fit_since().is_none() {
        return None;
    }
    let old = cell
        .set
        .as_ref()
        .and_then(|s| s.revision)
        .is_some_and(|template| !cell.at(instance, template));
    if instance.doomed()
        && old
        && !world.release.spared.contains(&instance.name)
        && (world.release.target.is_some()
            || cell.set.as_ref().is_some_and(|s| ordinal >= s.partition))
    {
        return None;
    }
    if let Gate::Out { reason, .. } = &instance.gate {
        let let_in = instance.revision.is_some()
            && (instance.revision == current || instance.revision == world.release.accepted);
        let spared = world.release.spared.contains(&instance.name);
        if reason == Hold::Bastion.reason() && !let_in && !spared {
            return None;
        }
    }
    Some(None)
}

fn message(world: &World<'_>, hold: Option<Hold>) -> String {
    let release = world
        .release
        .target
        .as_ref()
        .and_then(|t| t.release.as_deref())
        .unwrap_or("?");
    match hold {
        None => String::new(),
        Some(Hold::Update | Hold::Replace) => {
            format!("release {release} is taking it to another revision")
        }
        Some(Hold::PulledOut) => "people keep it out of service".to_owned(),
        Some(Hold::Renew) => "it is replaced by a new pod of its name".to_owned(),
        Some(Hold::Bastion) => {
            format!("bastion of release {release}; in service once it is accepted")
        }
    }
}

/// Forgets revisions beyond the limit that nothing refers to.
fn prune(world: &World<'_>, step: &mut Step) {
    let mut used: BTreeSet<i64> = world.release.referred.clone();
    used.extend(step.status.current.as_ref().map(|c| c.revision));
    used.extend(world.cells.iter().filter_map(|c| c.set.as_ref()?.revision));
    used.extend(
        world
            .cells
            .iter()
            .flat_map(|c| c.instances.values())
            .filter_map(|i| i.revision),
    );
    let unused: Vec<i64> = world
        .revisions
        .keys()
        .copied()
        .filter(|n| !used.contains(n))
        .collect();
    let limit = usize::try_from(world.group.spec.revision_history_limit).unwrap_or(1);
    let excess = unused.len().saturating_sub(limit);
    step.actions.extend(
        unused
            .into_iter()
            .take(excess)
            .map(|number| Action::PruneRevision { number }),
    );
}

fn drift(world: &World<'_>, current: &Revision, problems: &mut Vec<String>) {
    if world.release.target.is_none() && world.group.spec.revision != current.spec {
        problems.push(format!(
            "spec.revision was edited and differs from revision {}: a release brings it",
            current.number
        ));
    }
}

/// Removes everything from every member, then lets the Group go.
fn remove(world: &World<'_>, step: &mut Step, problems: &mut Vec<String>) {
    if !finalizers(world).iter().any(|f| f == labels::FINALIZER) {
        return;
    }
    let mut clean = true;
    let clusters: BTreeSet<&str> = world
        .cells
        .iter()
        .map(|c| c.cluster.as_str())
        .filter(|c| !c.is_empty())
        .collect();
    for cluster in clusters {
        let cells: Vec<&CellView> = world
            .cells
            .iter()
            .filter(|c| c.cluster == cluster)
            .collect();
        if !cells.iter().all(|c| c.reachable) {
            clean = false;
            problems.push(format!(
                "waits to be removed from cluster {cluster}, which cannot be reached"
            ));
            continue;
        }
        let mut empty = true;
        for cell in cells {
            empty &= cell.set.is_none() && cell.instances.is_empty() && cell.guests.is_empty();
            for guest in cell.guests.iter().filter(|g| !g.terminating) {
                step.actions.push(Action::DeleteInstance {
                    cell: cell.name.clone(),
                    instance: guest.name.clone(),
                    uid: guest.uid.clone(),
                    version: guest.version.clone(),
                });
            }
            // Down to nothing first, then gone: instances end as they do in any scaling down, and none
            // is left to the garbage collector.
            match &cell.set {
                Some(set) if set.terminating => {}
                Some(set) if set.replicas > 0 => step.actions.push(Action::Scale {
                    cell: cell.name.clone(),
                    version: set.version.clone(),
                    replicas: 0,
                    partition: set.partition,
                }),
                Some(_) if cell.instances.is_empty() => step.actions.push(Action::DeleteSet {
                    cell: cell.name.clone(),
                }),
                _ => {}
            }
        }
        if !world.members.get(cluster).is_some_and(|m| m.cleaned) {
            clean = false;
            if empty {
                step.actions.push(Action::DeleteSupport {
                    cluster: cluster.to_owned(),
                });
            }
        }
        clean &= empty;
    }
    if clean {
        step.actions.push(Action::RemoveFinalizer);
    }
}

#[cfg(test)]
mod tests;
