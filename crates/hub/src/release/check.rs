//! The checker: reads a plan and says what is wrong with it. Made to be independent of the planner.

use std::collections::BTreeMap;

use gantry_api::{
    release::{BatchPlan, Method, Plan},
    strategy::{InPlace, StrategySpec},
};

use super::plan::CellSize;

/// Something wrong with a plan, in one line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

/// What is wrong with `plan` under `strategy` for a group of these cells. Empty: nothing.
pub fn check(plan: &Plan, strategy: &StrategySpec, cells: &[CellSize]) -> Vec<Problem> {
    let mut problems = coverage(&plan.batches, cells);
    let bastion = plan.batches.first().map_or(0, |b| b.size);
    let total: i32 = cells.iter().map(|c| c.replicas).sum();
    if plan.max_out < 1 {
        problems.push(Problem(
            "no instance may be out of service, so none can be updated".to_owned(),
        ));
    }
    if bastion > plan.max_out {
        problems.push(Problem(format!(
            "the bastion of {bastion} is held out of service, where at most {} may be",
            plan.max_out
        )));
    }
    if bastion > strategy.bastion.instances {
        problems.push(Problem(format!(
            "the bastion has {bastion} instances, the strategy allows {}",
            strategy.bastion.instances
        )));
    }
    if strategy.in_place == InPlace::Required && plan.method == Method::Recreate && total > 0 {
        problems.push(Problem(format!(
            "the strategy requires updates in place, but {}",
            plan.method_reason
        )));
    }
    if strategy.in_place == InPlace::Never && plan.method == Method::InPlace && total > 0 {
        problems.push(Problem("the strategy forbids updates in place".to_owned()));
    }
    problems
}

/// Whether batches cover every instance of `cells` exactly once, each cell from its top downwards
/// without a gap.
pub fn coverage(batches: &[BatchPlan], cells: &[CellSize]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut tops: BTreeMap<&str, i32> = cells
        .iter()
        .map(|c| (c.cell.as_str(), c.replicas))
        .collect();
    for (position, batch) in batches.iter().enumerate() {
        if batch.index != position as i32 {
            problems.push(Problem(format!(
                "batch {position} says it is batch {}",
                batch.index
            )));
        }
        if position > 0 && batch.size < 1 {
            problems.push(Problem(format!("batch {position} is empty")));
        }
        if batch.size != batch.slices.iter().map(|s| s.size()).sum::<i32>() {
            problems.push(Problem(format!("batch {position} miscounts its instances")));
        }
        for slice in &batch.slices {
            match tops.get_mut(slice.cell.as_str()) {
                None => problems.push(Problem(format!(
                    "batch {position} names {}, which is no cell of the group",
                    slice.cell
                ))),
                Some(top)
                    if slice.highest != *top - 1
                        || slice.lowest > slice.highest
                        || slice.lowest < 0 =>
                {
                    problems.push(Problem(format!(
                        "batch {position} takes {}..{} of {} where {} is due",
                        slice.highest,
                        slice.lowest,
                        slice.cell,
                        *top - 1
                    )))
                }
                Some(top) => *top = slice.lowest,
            }
        }
    }
    for (cell, top) in tops {
        if top > 0 {
            problems.push(Problem(format!(
                "{top} instances of {cell} are in no batch"
            )));
        }
    }
    problems
}
