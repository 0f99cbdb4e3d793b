//! Dividing a Group into a bastion and batches. Pure; what comes out is frozen in a Release's status.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    count::CountOrPercent,
    release::{BatchPlan, Method, Slice},
    strategy::StrategySpec,
};

/// A cell and how many instances it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellSize {
    /// Name of the cell.
    pub cell: String,
    /// Its instances.
    pub replicas: i32,
}

/// Bastion (index 0) and batches of a release over `cells`, which are in the Group's order.
///
/// The bastion is the highest ordinals of the first cell; it never exceeds `max_out`, since it stays out
/// of service until it is accepted. Batches take what is left from each cell's top downwards, the only
/// order a StatefulSet's partition can follow, and spread over all cells (or `cellsAtOnce` of them) in
/// proportion to their sizes; a batch that would reach from some cells into the next ones is split.
pub fn batches(strategy: &StrategySpec, cells: &[CellSize], max_out: i32) -> Vec<BatchPlan> {
    let ordered = order(strategy, cells);
    let total: i32 = ordered.iter().map(|c| c.replicas.max(0)).sum();
    let mut left: Vec<CellSize> = ordered;
    let mut plans = Vec::new();

    let mut wanted = strategy
        .bastion
        .instances
        .clamp(0, max_out.max(0))
        .min(total);
    let mut bastion = Vec::new();
    for cell in &mut left {
        let take = wanted.min(cell.replicas);
        if take > 0 {
            bastion.push(Slice {
                cell: cell.cell.clone(),
                highest: cell.replicas - 1,
                lowest: cell.replicas - take,
                ..Slice::default()
            });
            cell.replicas -= take;
            wanted -= take;
        }
    }
    plans.push(batch(0, bastion, max_out));

    let at_once = strategy
        .cells_at_once
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0)
        .unwrap_or(usize::MAX);
    let (sequence, borders) = sequence(&left, at_once);
    let mut covered = 0;
    let sized = sizes(strategy, sequence.len()).into_iter().map(|size| {
        covered += size;
        covered
    });
    let ends: BTreeSet<usize> = sized.chain(borders).collect();
    let mut from = 0;
    for end in ends.into_iter().filter(|end| *end > 0) {
        let index = plans.len() as i32;
        plans.push(batch(index, slices(&sequence[from..end], &left), max_out));
        from = end;
    }
    plans
}

/// Splits the slices of `batches` where the way an instance is updated changes, and notes it on those for
/// which it is not `method`. `how` tells of one instance: its cell, its ordinal.
pub fn mark(
    batches: &mut [BatchPlan],
    method: Method,
    mut how: impl FnMut(&str, i32) -> (Method, String),
) {
    for batch in batches {
        let mut marked: Vec<Slice> = Vec::new();
        for slice in &batch.slices {
            let begins = marked.len();
            for ordinal in (slice.lowest..=slice.highest).rev() {
                let (is, reason) = how(&slice.cell, ordinal);
                let (other, reason) = if is == method {
                    (None, String::new())
                } else {
                    (Some(is), reason)
                };
                match marked[begins..].last_mut() {
                    Some(same) if same.method == other && same.reason == reason => {
                        same.lowest = ordinal;
                    }
                    _ => marked.push(Slice {
                        cell: slice.cell.clone(),
                        highest: ordinal,
                        lowest: ordinal,
                        set: slice.set.clone(),
                        method: other,
                        reason,
                    }),
                }
            }
        }
        batch.slices = marked;
    }
}

/// Cells in the order of release, in the chunks that are released together.
pub(super) fn chunks(strategy: &StrategySpec, cells: &[CellSize]) -> Vec<Vec<String>> {
    let ordered = order(strategy, cells);
    let at_once = strategy.cells_at_once.filter(|n| *n > 0);
    let at_once = at_once.map_or(ordered.len(), |n| n as usize).max(1);
    let names = |c: &[CellSize]| c.iter().map(|c| c.cell.clone()).collect();
    ordered.chunks(at_once).map(names).collect()
}

/// Cells in the strategy's order, those it does not name after them in the Group's order; empty ones
/// left out.
fn order(strategy: &StrategySpec, cells: &[CellSize]) -> Vec<CellSize> {
    let rank = |c: &CellSize| {
        strategy
            .cell_order
            .iter()
            .position(|n| *n == c.cell)
            .unwrap_or(usize::MAX)
    };
    let mut ordered: Vec<CellSize> = cells.iter().filter(|c| c.replicas > 0).cloned().collect();
    ordered.sort_by_key(rank);
    ordered
}

/// Every instance as (cell index, ordinal) in the order of release: each chunk of cells is merged so
/// that all its cells run dry together. And where each chunk ends.
fn sequence(cells: &[CellSize], at_once: usize) -> (Vec<(usize, i32)>, Vec<usize>) {
    let mut all = Vec::new();
    let mut borders = Vec::new();
    let indexed: Vec<(usize, &CellSize)> = cells.iter().enumerate().collect();
    for chunk in indexed.chunks(at_once.min(indexed.len().max(1))) {
        let mut part: Vec<(u64, usize, i32)> = Vec::new();
        for &(index, cell) in chunk {
            let size = cell.replicas.max(0) as u64;
            for step in 0..size {
                // The middle of the step's share of the cell, in parts of a billion: integers sort exactly.
                let position = (2 * step + 1) * 1_000_000_000 / (2 * size);
                part.push((position, index, cell.replicas - 1 - step as i32));
            }
        }
        part.sort();
        all.extend(part.into_iter().map(|(_, index, ordinal)| (index, ordinal)));
        borders.push(all.len());
    }
    (all, borders)
}

/// Sizes of the batches after the bastion; they add up to `rest`.
fn sizes(strategy: &StrategySpec, rest: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut covered = 0;
    if strategy.batches.sizes.is_empty() {
        let count = usize::try_from(strategy.batches.count.unwrap_or(5))
            .unwrap_or(1)
            .max(1);
        for i in 1..=count {
            let until = (rest * i).div_ceil(count);
            if until > covered {
                sizes.push(until - covered);
                covered = until;
            }
        }
        return sizes;
    }
    // Percentages are added up before they are rounded, or rounding would add up instead.
    let mut percent = 0u64;
    let mut counted = 0usize;
    let mut next = strategy.batches.sizes.iter().copied();
    let mut last = CountOrPercent::Count(1);
    while covered < rest {
        last = next.next().unwrap_or(last);
        match last {
            CountOrPercent::Count(n) => counted += n as usize,
            CountOrPercent::Percent(p) => percent += u64::from(p),
        }
        let until =
            counted + (percent.saturating_mul(rest as u64).div_ceil(100) as usize).min(rest);
        // A size of nothing would never end; it is read as one instance.
        let until = until.max(covered + 1).min(rest);
        sizes.push(until - covered);
        covered = until;
    }
    sizes
}

fn slices(instances: &[(usize, i32)], cells: &[CellSize]) -> Vec<Slice> {
    let mut ranges: BTreeMap<usize, (i32, i32)> = BTreeMap::new();
    for &(cell, ordinal) in instances {
        let range = ranges.entry(cell).or_insert((ordinal, ordinal));
        range.0 = range.0.max(ordinal);
        range.1 = range.1.min(ordinal);
    }
    ranges
        .into_iter()
        .map(|(cell, (highest, lowest))| Slice {
            cell: cells[cell].cell.clone(),
            highest,
            lowest,
            ..Slice::default()
        })
        .collect()
}

fn batch(index: i32, slices: Vec<Slice>, max_out: i32) -> BatchPlan {
    let size: i32 = slices.iter().map(Slice::size).sum();
    BatchPlan {
        index,
        size,
        out: size.min(max_out.max(0)),
        slices,
    }
}

#[cfg(test)]
mod tests {
    use gantry_api::{
        release::Plan,
        strategy::{Bastion, Batches},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::release::check;

    fn cells(sizes: &[(&str, i32)]) -> Vec<CellSize> {
        sizes
            .iter()
            .map(|(cell, replicas)| CellSize {
                cell: (*cell).into(),
                replicas: *replicas,
            })
            .collect()
    }

    fn shown(strategy: &StrategySpec, sizes: &[(&str, i32)], max_out: i32) -> String {
        batches(strategy, &cells(sizes), max_out)
            .iter()
            .map(|b| {
                b.slices
                    .iter()
                    .map(|s| format!("{}:{}-{}", s.cell, s.highest, s.lowest))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect::<Vec<_>>()
            .join(" | ")
    }

    #[test]
    fn examples() {
        use CountOrPercent::{Count, Percent};
        let sizes = |sizes: &[CountOrPercent]| Batches {
            sizes: sizes.to_vec(),
            count: None,
        };
        let with = |batches: Batches| StrategySpec {
            batches,
            ..StrategySpec::default()
        };
        // A list of counts is over the whole group, not per cell; the last repeats.
        assert_eq!(
            shown(
                &with(sizes(&[Count(1), Count(2), Count(2), Count(2), Count(3)])),
                &[("a", 6), ("b", 6)],
                2
            ),
            "a:5-5 | b:5-5 | a:4-4 b:4-4 | a:3-3 b:3-3 | a:2-2 b:2-2 | a:1-0 b:1-1 | b:0-0"
        );
        // Two cells in proportion two to one.
        assert_eq!(
            shown(
                &with(sizes(&[Percent(10), Percent(30), Percent(60)])),
                &[("a", 21), ("b", 10)],
                3
            ),
            "a:20-20 | a:19-18 b:9-9 | a:17-12 b:8-6 | a:11-0 b:5-0"
        );
        // One cell after the other.
        let one = StrategySpec {
            cells_at_once: Some(1),
            cell_order: vec!["b".into()],
            ..with(Batches {
                sizes: vec![],
                count: Some(2),
            })
        };
        assert_eq!(
            shown(&one, &[("a", 3), ("b", 4)], 3),
            "b:3-3 | b:2-0 | a:2-0"
        );
        // A batch ends where the cells do that are released together.
        let split = StrategySpec {
            cells_at_once: Some(1),
            ..with(sizes(&[Count(4)]))
        };
        assert_eq!(
            shown(&split, &[("a", 3), ("b", 6)], 3),
            "a:2-2 | a:1-0 | b:5-4 | b:3-0"
        );
        // Fewer instances than batches; no bastion; nothing at all.
        let none = StrategySpec {
            bastion: Bastion {
                instances: 0,
                ..Bastion::default()
            },
            ..with(Batches::default())
        };
        assert_eq!(shown(&none, &[("a", 2)], 1), " | a:1-1 | a:0-0");
        assert_eq!(shown(&with(Batches::default()), &[("a", 0)], 1), "");
        // The bastion never takes more than may be out.
        let big = StrategySpec {
            bastion: Bastion {
                instances: 5,
                ..Bastion::default()
            },
            ..with(Batches {
                sizes: vec![],
                count: Some(1),
            })
        };
        assert_eq!(shown(&big, &[("a", 4), ("b", 4)], 2), "a:3-2 | a:1-0 b:3-0");
    }

    fn size() -> impl Strategy<Value = CountOrPercent> {
        prop_oneof![
            (0u32..20).prop_map(CountOrPercent::Count),
            (0u32..120).prop_map(CountOrPercent::Percent)
        ]
    }

    proptest! {
        #[test]
        fn every_plan_passes_its_checker(
            replicas in prop::collection::vec(0i32..40, 1..6),
            list in prop::collection::vec(size(), 0..5),
            count in prop::option::of(1i32..9),
            bastion in 0i32..4,
            at_once in prop::option::of(0i32..4),
            max_out in 1i32..10,
            first in prop::option::of(0usize..6),
            odd in 0i32..5,
        ) {
            let cells: Vec<CellSize> = replicas.iter().enumerate().map(|(i, n)| CellSize { cell: format!("c{i}"), replicas: *n }).collect();
            let strategy = StrategySpec {
                bastion: Bastion { instances: bastion, ..Bastion::default() },
                batches: Batches { count, sizes: list },
                cells_at_once: at_once,
                cell_order: first.map(|n| format!("c{n}")).into_iter().collect(),
                ..StrategySpec::default()
            };
            let mut plans = batches(&strategy, &cells, max_out);
            prop_assert_eq!(check::coverage(&plans, &cells), Vec::new());
            mark(&mut plans, Method::InPlace, |_, n| match n % 5 == odd {
                true => (Method::Recreate, "odd".into()),
                false => (Method::InPlace, String::new()),
            });
            let total: i32 = replicas.iter().sum();
            let plan = Plan {
                batches: plans,
                replicas: total,
                max_out,
                strategy: strategy.clone(),
                ..Plan::default()
            };
            prop_assert_eq!(check::check(&plan, &strategy, &cells), Vec::new());
            // A plan of another strategy does not pass.
            if let Some(last) = plan.batches.iter().rposition(|b| b.index > 0 && b.size > 1) {
                let mut wrong = plan.clone();
                let slice = wrong.batches[last].slices.last_mut().unwrap();
                slice.lowest += 1;
                wrong.batches[last].size -= 1;
                prop_assert!(!check::check(&wrong, &strategy, &cells).is_empty());
            }
        }
    }
}
