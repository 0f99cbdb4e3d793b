//! Cells that are left out because their member cannot be reached.
//!
//! A cell is left out when it has been out of reach for as long as the strategy says, and only if the hub
//! has seen it: of a cell that has not been seen since the hub started nobody knows how many instances are
//! out of service, so that the release stands still until it is seen. The cells of a bastion that has not
//! been accepted are waited for, and so is the last cell that is left: a release proves itself somewhere.
//! What is out of service there, as it was last seen, still counts against the limit. A cell that comes back before the release has ended is
//! taken along with the last batch; afterwards its instances stay as they are until the next release
//! (`gantry release start GROUP --to NUMBER` brings them to the Group's revision).

use gantry_api::{
    release::SkippedCell,
    strategy::{StrategySpec, UnreachableThen},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{begin::unreachable, run::signed, tell};
use crate::world::CellView;

/// Which cells are left out at `now`, given which were, and when that changes without anyone's doing.
/// `needed` cells are waited for.
pub(super) fn look(
    strategy: &StrategySpec,
    cells: &[CellView],
    needed: &[&str],
    before: &[SkippedCell],
    now: Timestamp,
) -> (Vec<SkippedCell>, Option<Timestamp>) {
    let mut wake = None;
    if strategy.unreachable.then == UnreachableThen::Wait {
        return (Vec::new(), wake);
    }
    let mut skipped = Vec::new();
    let away = |c: &&CellView| !c.reachable && c.set.is_some();
    for cell in cells.iter().filter(away) {
        if needed.contains(&cell.name.as_str()) {
            continue;
        }
        if let Some(known) = before.iter().find(|s| s.cell == cell.name) {
            skipped.push(known.clone());
            continue;
        }
        let Some(since) = cell.unreachable_since else {
            continue;
        };
        let due = since
            .saturating_add(signed(strategy.unreachable.after))
            .unwrap_or(Timestamp::MAX);
        if due > now {
            wake = tell::earlier(wake, Some(due));
            continue;
        }
        skipped.push(SkippedCell {
            cell: cell.name.clone(),
            since: Time(now),
            instances: cell.replicas(),
            message: unreachable(cell),
        });
    }
    let left = |c: &&CellView| c.replicas() > 0 && skipped.iter().all(|s| s.cell != c.name);
    if !cells.iter().any(|c| left(&c)) {
        skipped.clear();
    }
    (skipped, wake)
}

/// What was left out, for the last word of a release; empty where nothing was.
pub(super) fn told(skipped: &[SkippedCell]) -> String {
    skipped
        .iter()
        .map(|s| {
            format!(
                "; {} was skipped with {} instances: {}",
                s.cell, s.instances, s.message
            )
        })
        .collect()
}
