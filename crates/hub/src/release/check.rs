//! The checker: reads a plan and says what is wrong with it. Made to be independent of the planner.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    count::CountOrPercent,
    release::{BatchPlan, Method, Plan},
    strategy::{InPlace, StrategySpec},
};

use super::plan::{CellSize, chunks};

/// Something wrong with a plan, in one line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

/// What is wrong with `plan` under `strategy` for a group of these cells. Empty: nothing.
pub fn check(plan: &Plan, strategy: &StrategySpec, cells: &[CellSize]) -> Vec<Problem> {
    let mut problems = coverage(&plan.batches, cells);
    problems.extend(sizes(plan, strategy, cells));
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
    for batch in &plan.batches {
        if batch.out > plan.max_out || batch.out > batch.size {
            problems.push(Problem(format!(
                "batch {} has {} of {} instances out of service, where at most {} may be",
                batch.index, batch.out, batch.size, plan.max_out
            )));
        }
    }
    if bastion > strategy.bastion.instances {
        problems.push(Problem(format!(
            "the bastion has {bastion} instances, the strategy allows {}",
            strategy.bastion.instances
        )));
    }
    let odd = plan.batches.iter().flat_map(|b| &b.slices).find(|s| {
        let forbidden = match strategy.in_place {
            InPlace::Required => Some(Method::Recreate),
            InPlace::Never => Some(Method::InPlace),
            InPlace::IfPossible => None,
        };
        s.method.is_some() && s.method == forbidden
    });
    if let Some(slice) = odd {
        problems.push(Problem(format!(
            "the strategy says {:?} of updates in place, but instances {}..{} of {} cannot follow: {}",
            strategy.in_place, slice.highest, slice.lowest, slice.cell, slice.reason
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

/// Where batches have to end by the strategy's sizes, counted over the `rest` instances beside the bastion.
fn ends(strategy: &StrategySpec, rest: i64) -> BTreeSet<i64> {
    let up = |part: i64, of: i64| (part + of - 1) / of;
    let sizes = &strategy.batches.sizes;
    if sizes.is_empty() {
        let count = i64::from(strategy.batches.count.unwrap_or(5).max(1));
        return (1..=count).map(|i| up(rest * i, count)).collect();
    }
    let mut ends = BTreeSet::new();
    let (mut count, mut percent, mut end) = (0i64, 0i64, 0i64);
    for step in 0.. {
        if end >= rest {
            break;
        }
        let size = sizes.get(step).or(sizes.last());
        match size {
            Some(CountOrPercent::Count(n)) => count += i64::from(*n),
            Some(CountOrPercent::Percent(p)) => percent += i64::from(*p),
            None => break,
        }
        // A size of nothing is one instance.
        let wanted = count.saturating_add(up(percent.saturating_mul(rest), 100).min(rest));
        end = wanted.max(end + 1).min(rest);
        ends.insert(end);
    }
    ends
}

/// Whether batches end where the strategy's sizes and its cells at once say, and nowhere else; and whether
/// cells come in its order.
fn sizes(plan: &Plan, strategy: &StrategySpec, cells: &[CellSize]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut left: BTreeMap<&str, i64> = cells
        .iter()
        .map(|c| (c.cell.as_str(), i64::from(c.replicas.max(0))))
        .collect();
    let order: Vec<String> = chunks(strategy, cells).concat();
    let bastion = plan.batches.first().map_or(&[][..], |b| &b.slices);
    for slice in bastion {
        if let Some(left) = left.get_mut(slice.cell.as_str()) {
            *left -= i64::from(slice.size());
        }
    }
    if let (Some(slice), Some(first)) = (bastion.first(), order.first())
        && slice.cell != *first
    {
        problems.push(Problem(format!(
            "the bastion is in {}, but {first} comes first",
            slice.cell
        )));
    }
    let rest: i64 = left.values().sum();
    let sized = ends(strategy, rest);
    let mut borders = BTreeMap::new();
    let mut sum = 0;
    for chunk in chunks(strategy, cells) {
        let begin = sum;
        sum += chunk
            .iter()
            .filter_map(|c| left.get(c.as_str()))
            .sum::<i64>();
        borders.insert(sum, (begin, chunk));
    }
    let mut at = 0i64;
    for batch in plan.batches.iter().skip(1) {
        let end = at + i64::from(batch.size);
        if let Some(inside) = sized.range(at + 1..end).next() {
            problems.push(Problem(format!(
                "batch {} goes on past {inside} instances, where the strategy ends a batch",
                batch.index
            )));
        }
        if !sized.contains(&end) && !borders.contains_key(&end) {
            problems.push(Problem(format!(
                "batch {} ends after {end} instances, where the strategy ends none",
                batch.index
            )));
        }
        let chunk = borders.range(end..).next().map(|(_, chunk)| chunk);
        for slice in &batch.slices {
            if chunk.is_none_or(|(begin, cells)| at < *begin || !cells.contains(&slice.cell)) {
                problems.push(Problem(format!(
                    "batch {} reaches into {}, whose turn has not come",
                    batch.index, slice.cell
                )));
            }
        }
        at = end;
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
