//! A plan before anything is made: what a release would do if it began now.

use gantry_api::{Cluster, Group, release::Plan};
use jiff::Timestamp;
use kube::ResourceExt;

use super::{World, begin, check, line, plan::CellSize, promote, room, window};
use crate::{
    render::{self, Source},
    world::{CellView, Revision, SetView},
};

/// What a release would do.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The revision the Group is on.
    pub from: Revision,
    /// The revision it would bring; not written down if its number is new.
    pub target: Revision,
    /// What would be done.
    pub plan: Plan,
    /// The plan in one line.
    pub summary: String,
    /// What is wrong with it under its strategy. Empty: nothing; the release would begin.
    pub problems: Vec<String>,
    /// What would hold it up if it were started now.
    pub waits: Vec<String>,
}

/// What `world.release` would do if it began at `now`.
///
/// # Errors
/// What is missing for there to be a plan at all, in one line.
pub fn preview(world: &World<'_>, now: Timestamp) -> Result<Preview, String> {
    let group = world
        .group
        .ok_or_else(|| format!("group {} does not exist", world.release.spec.group))?;
    let app = world
        .app
        .ok_or_else(|| format!("app {} does not exist", group.spec.app))?;
    let strategy = world.strategy.clone()?;
    let current = current(group)?;
    let from = world
        .revisions
        .get(&current)
        .ok_or_else(|| format!("revision {current} of the group is not kept"))?;
    let mut status = world.release.status.clone().unwrap_or_default();
    let change = &promote::change(world, app, group, &from.spec, &mut status, now)?;
    let target = match change.to {
        Some(number) => world.revisions.get(&number).cloned().ok_or_else(|| {
            let kept: Vec<String> = world.revisions.keys().map(ToString::to_string).collect();
            format!(
                "revision {number} is not kept; kept are {}",
                kept.join(", ")
            )
        })?,
        None => {
            let next = world.revisions.keys().next_back().copied().unwrap_or(0) + 1;
            let wanted = render::revision(Source::new(app, group), &change.apply(&from.spec), next);
            let known = world.revisions.values().find(|r| r.digest == wanted.digest);
            known.cloned().unwrap_or(wanted)
        }
    };
    let cells: Vec<CellSize> = world
        .cells
        .iter()
        .map(|c| CellSize {
            cell: c.name.clone(),
            replicas: c.replicas(),
        })
        .collect();
    let plan = begin::divide(world, group, &strategy, from, &target, &cells);
    let problems = check::check(&plan, &strategy, &cells);
    let refused = room::refusals(&plan.rooms);
    let mut waits: Vec<String> = line::look(world, now)
        .halt
        .map(|(_, why)| why)
        .into_iter()
        .collect();
    waits.extend(
        world
            .cells
            .iter()
            .filter(|c| !c.reachable)
            .map(begin::unreachable),
    );
    let seen = group.status.iter().flat_map(|s| &s.cells);
    let guests: i32 = seen.map(|c| c.guests).sum();
    if guests > 0 {
        waits.push(begin::waits_for(guests.unsigned_abs() as usize));
    }
    if let Err((why, _)) = window::open(&strategy.windows, now) {
        waits.push(why);
    }
    Ok(Preview {
        from: from.clone(),
        target,
        summary: begin::summary(&plan),
        plan,
        problems: problems.into_iter().map(|p| p.0).chain(refused).collect(),
        waits,
    })
}

fn current(group: &Group) -> Result<i64, String> {
    group
        .status
        .as_ref()
        .and_then(|s| s.current.as_ref())
        .map(|c| c.revision)
        .ok_or_else(|| "the group is on no revision yet".to_owned())
}

/// The Group's cells as its status tells of them, for who watches no member.
pub fn cells(group: &Group, clusters: &[Cluster]) -> Vec<CellView> {
    let status = group.status.clone().unwrap_or_default();
    let current = status.current.as_ref().map(|c| c.revision);
    let view = |cell: &gantry_api::group::GroupCellStatus| {
        let home = clusters.iter().find(|c| c.name_any() == cell.cluster);
        CellView {
            name: cell.name.clone(),
            cluster: cell.cluster.clone(),
            weight: Some(1),
            set_name: Some(group.set_in(&cell.name))
                .filter(|s| *s != Group::set_name(&group.name_any(), &cell.name)),
            reachable: cell.unreachable_since.is_none(),
            unreachable_since: cell.unreachable_since.as_ref().map(|t| t.0),
            stopped: home
                .and_then(|c| c.spec.stop_the_line.as_ref())
                .map(|s| s.reason.clone())
                .filter(|r| !r.is_empty()),
            capacity: home
                .map(|c| room::capacity(c, &cell.name))
                .unwrap_or_default(),
            set: Some(SetView {
                replicas: cell.desired,
                revision: current,
                observed: true,
                ..SetView::default()
            }),
            ..CellView::default()
        }
    };
    status.cells.iter().map(view).collect()
}
