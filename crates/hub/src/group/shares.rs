//! Where a Group's instances are to be, given what its cells can take: shares by weight, fixed numbers,
//! cells that are full, and cells that are lost.
//!
//! - A cell is **full** when instances have found no node there for as long as `placement.overflow.after`
//!   says. What it has placed it keeps; the rest goes to the others. After `back` it is asked for its whole
//!   share again, and the others give instances up only as those there have come into service.
//! - A cell with a fixed number takes no more, unless another is lost.
//! - A cell is **lost** when its cluster has been out of reach for as long as `placement.lost.after` says.
//!   Its share goes to the others, each of which takes at most `maxExtra` beyond its own; it comes back when
//!   the cell is reached again.
//!
//! Both are facts that outlive what showed them (pods that were moved away no longer fail to be placed), so
//! they stand in the Group's status.

use gantry_api::group::{CellFull, GroupCellStatus, Placement};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::placement::{divide, fill};
use crate::{release::tell, world::CellView};

/// What is known of one cell's room.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Room {
    /// It is full.
    pub full: Option<CellFull>,
    /// It is lost, since then.
    pub lost: Option<Timestamp>,
}

/// How many instances each cell is to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// By cell, in the world's order.
    pub desired: Vec<i32>,
    /// What is known of each cell, for the status.
    pub rooms: Vec<Room>,
    /// What is in the way, in words.
    pub problems: Vec<String>,
    /// When something changes without anyone's doing.
    pub wake: Option<Timestamp>,
}

/// The shares of `cells` in a Group of `replicas`, given what its status says of them.
pub fn shares(
    replicas: i32,
    placement: &Placement,
    cells: &[CellView],
    before: &[GroupCellStatus],
    now: Timestamp,
) -> Shares {
    let mut shares = Shares::default();
    let known = |name: &str| before.iter().find(|c| c.name == name);
    for cell in cells {
        let room = room(placement, cell, known(&cell.name), now, &mut shares.wake);
        shares.rooms.push(room);
    }
    let entry = |name: &str| placement.cells.iter().find(|c| c.name == name);
    // Fixed numbers first, in their order; weights share the rest.
    let mut fixed = vec![None; cells.len()];
    // What has been moved somewhere is not shared.
    let here = cells.iter().filter(|c| c.weight.is_some());
    let mut moved = here.map(|c| c.extra).sum::<i32>().min(replicas.max(0));
    let mut left = replicas.max(0) - moved;
    for (index, cell) in cells.iter().enumerate() {
        let wanted = entry(&cell.name)
            .and_then(|e| e.replicas)
            .filter(|_| cell.weight.is_some());
        if let Some(wanted) = wanted {
            let given = wanted.min(left);
            fixed[index] = Some(given);
            left -= given;
        }
    }
    let weights: Vec<i32> = cells
        .iter()
        .zip(&fixed)
        .map(|(c, fixed)| {
            if fixed.is_some() {
                0
            } else {
                c.weight.unwrap_or(0)
            }
        })
        .collect();
    let fair: Vec<i32> = divide(left, &weights)
        .into_iter()
        .zip(&fixed)
        .map(|(share, fixed)| fixed.unwrap_or(share))
        .collect();
    let any_lost = shares.rooms.iter().any(|r| r.lost.is_some());
    let extra = placement.lost.as_ref().map(|l| l.max_extra);
    let caps: Vec<i32> = cells
        .iter()
        .zip(&shares.rooms)
        .zip(&fair)
        .map(|((cell, room), fair)| {
            if cell.weight.is_none() || room.lost.is_some() {
                return 0;
            }
            let mut cap = entry(&cell.name).and_then(|e| e.max).unwrap_or(i32::MAX);
            if let Some(keep) = cell.keep {
                cap = cap.min(keep);
            }
            if let Some(full) = &room.full {
                cap = cap.min(full.room);
            }
            if entry(&cell.name).is_some_and(|e| e.replicas.is_some()) && !any_lost {
                // A number is a number, except where a cell is lost.
                cap = cap.min(*fair);
            }
            if let (true, Some(extra)) = (any_lost, extra) {
                let more = extra.ceil((*fair).max(0) as u32) as i32;
                cap = cap.min(fair.saturating_add(more));
            }
            cap
        })
        .collect();
    // What cannot be where it belongs goes by weight, fixed numbers counting as theirs.
    let pull: Vec<i32> = weights
        .iter()
        .zip(&fixed)
        .map(|(weight, fixed)| fixed.unwrap_or(*weight).max(0))
        .collect();
    let base: Vec<i32> = fair.iter().zip(&caps).map(|(f, c)| (*f).min(*c)).collect();
    let missing = fair.iter().sum::<i32>() - base.iter().sum::<i32>();
    shares.desired = fill(&base, missing, &pull, &caps);
    for ((cell, desired), room) in cells.iter().zip(&mut shares.desired).zip(&shares.rooms) {
        let max = entry(&cell.name).and_then(|e| e.max).unwrap_or(i32::MAX);
        if cell.weight.is_some() && room.lost.is_none() {
            let more = cell
                .extra
                .min(moved)
                .min(max.saturating_sub(*desired))
                .max(0);
            moved -= more;
            *desired += more;
        }
    }
    let placed: i32 = shares.desired.iter().sum();
    tell(replicas, placed, cells, &mut shares);
    shares
}

fn tell(replicas: i32, placed: i32, cells: &[CellView], shares: &mut Shares) {
    for (cell, room) in cells.iter().zip(&shares.rooms) {
        if let Some(full) = &room.full {
            shares.problems.push(format!(
                "{} is full with {} instances since {}: others have the rest",
                cell.name,
                full.room,
                tell::clock_time(full.since.0)
            ));
        }
        if let Some(since) = room.lost {
            shares.problems.push(format!(
                "{} is lost since {}: others have its share",
                cell.name,
                tell::clock_time(since)
            ));
        }
    }
    if placed < replicas.max(0) {
        shares.problems.push(format!(
            "{} of {replicas} instances have no place: no cell may take more",
            replicas - placed
        ));
    }
}

/// What is known of a cell's room by now.
fn room(
    placement: &Placement,
    cell: &CellView,
    before: Option<&GroupCellStatus>,
    now: Timestamp,
    wake: &mut Option<Timestamp>,
) -> Room {
    let mut room = Room::default();
    let after = |at: Timestamp, span: gantry_api::Span| {
        let span = SignedDuration::try_from(span.duration()).unwrap_or(SignedDuration::MAX);
        at.saturating_add(span).unwrap_or(Timestamp::MAX)
    };
    if let Some(lost) = &placement.lost
        && !cell.reachable
        && cell.weight.is_some()
    {
        let known = before.and_then(|b| b.lost_since.as_ref()).map(|t| t.0);
        room.lost = known;
        if let (None, Some(since)) = (known, cell.unreachable_since) {
            let due = after(since, lost.after);
            if due <= now {
                room.lost = Some(now);
            } else {
                *wake = tell::earlier(*wake, Some(due));
            }
        }
    }
    let Some(overflow) = &placement.overflow else {
        return room;
    };
    if let Some(full) = before.and_then(|b| b.full.as_ref()) {
        let due = after(full.since.0, overflow.back);
        if due > now {
            *wake = tell::earlier(*wake, Some(due));
            room.full = Some(full.clone());
        }
        // Otherwise it is asked for its whole share again.
        return room;
    }
    if !cell.reachable {
        return room;
    }
    let waiting = || {
        let pods = cell.instances.values().filter(|i| !i.terminating);
        pods.filter_map(|i| i.unplaced_since)
    };
    if let Some(first) = waiting().min() {
        let due = after(first, overflow.after);
        if due <= now {
            let unplaced = waiting().count() as i32;
            room.full = Some(CellFull {
                since: Time(now),
                room: (cell.replicas() + cell.guests.len() as i32 - unplaced).max(0),
            });
        } else {
            *wake = tell::earlier(*wake, Some(due));
        }
    }
    room
}

#[cfg(test)]
mod tests {
    use gantry_api::{
        CountOrPercent, Span,
        group::{CellShare, LostCell, Overflow},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{release::found::instance, world::SetView};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(seconds: i64) -> Timestamp {
        NOW + SignedDuration::from_secs(seconds)
    }

    fn placement(cells: &[(&str, i32)]) -> Placement {
        Placement {
            cells: cells
                .iter()
                .map(|(name, weight)| CellShare {
                    name: (*name).into(),
                    weight: *weight,
                    ..CellShare::default()
                })
                .collect(),
            overflow: Some(Overflow {
                after: Span::seconds(60),
                back: Span::seconds(600),
            }),
            lost: Some(LostCell {
                after: Span::seconds(60),
                max_extra: CountOrPercent::Percent(50),
            }),
            ..Placement::default()
        }
    }

    fn view(name: &str, weight: i32, instances: i32, unplaced: i32) -> CellView {
        CellView {
            name: name.into(),
            weight: Some(weight),
            reachable: true,
            set: Some(SetView {
                replicas: instances,
                ..SetView::default()
            }),
            instances: (0..instances)
                .map(|n| {
                    let mut instance = instance(name, n, 1);
                    instance.unplaced_since = (n >= instances - unplaced).then_some(NOW);
                    (n, instance)
                })
                .collect(),
            ..CellView::default()
        }
    }

    fn status(cells: &[CellView], shares: &Shares) -> Vec<GroupCellStatus> {
        cells
            .iter()
            .zip(&shares.rooms)
            .map(|(cell, room)| GroupCellStatus {
                name: cell.name.clone(),
                full: room.full.clone(),
                lost_since: room.lost.map(Time),
                ..GroupCellStatus::default()
            })
            .collect()
    }

    #[test]
    fn what_a_full_cell_cannot_take_goes_elsewhere_and_comes_back() {
        let placement = placement(&[("a", 1), ("b", 1)]);
        let cells = [view("a", 1, 5, 2), view("b", 1, 5, 0)];
        let early = shares(10, &placement, &cells, &[], at(30));
        assert_eq!((early.desired, early.wake), (vec![5, 5], Some(at(60))));
        let full = shares(10, &placement, &cells, &[], at(60));
        assert_eq!(full.desired, [3, 7]);
        assert!(
            full.problems[0].contains("a is full with 3 instances"),
            "{full:?}"
        );
        // The pods that found no node are gone: it stays full for a while, then it is tried again.
        let known = status(&cells, &full);
        let cells = [view("a", 1, 3, 0), view("b", 1, 7, 0)];
        let still = shares(10, &placement, &cells, &known, at(300));
        assert_eq!(
            (still.desired.clone(), still.wake),
            (vec![3, 7], Some(at(660)))
        );
        let again = shares(10, &placement, &cells, &status(&cells, &still), at(660));
        assert_eq!(again.desired, [5, 5]);
    }

    #[test]
    fn a_lost_cell_leaves_its_share_within_limits() {
        let placement = placement(&[("a", 2), ("b", 1), ("c", 1)]);
        let mut cells = [view("a", 2, 10, 0), view("b", 1, 5, 0), view("c", 1, 5, 0)];
        cells[0].reachable = false;
        cells[0].unreachable_since = Some(NOW);
        let early = shares(20, &placement, &cells, &[], at(59));
        assert_eq!(early.desired, [10, 5, 5]);
        let lost = shares(20, &placement, &cells, &[], at(60));
        // Ten are missing, and each of the others takes three more at most.
        assert_eq!(lost.desired, [0, 8, 8]);
        assert!(
            lost.problems
                .iter()
                .any(|p| p.contains("4 of 20 instances have no place")),
            "{lost:?}"
        );
        // A hub that has just started has not seen it go: it is lost all the same.
        let known = status(&cells, &lost);
        cells[0].unreachable_since = Some(at(100));
        assert_eq!(
            shares(20, &placement, &cells, &known, at(101)).desired,
            [0, 8, 8]
        );
        cells[0].reachable = true;
        assert_eq!(
            shares(20, &placement, &cells, &known, at(102)).desired,
            [10, 5, 5]
        );
    }

    #[test]
    fn what_people_moved_or_removed_stays_so() {
        let placement = placement(&[("a", 1), ("b", 1), ("c", 1)]);
        let mut cells = [view("a", 1, 4, 0), view("b", 1, 3, 0), view("c", 1, 3, 0)];
        let mut go = |replicas, keep: [Option<i32>; 3], extra: [i32; 3]| {
            for (n, cell) in cells.iter_mut().enumerate() {
                (cell.keep, cell.extra) = (keep[n], extra[n]);
            }
            shares(replicas, &placement, &cells, &[], NOW).desired
        };
        assert_eq!(go(10, [None; 3], [0; 3]), [4, 3, 3]);
        // One of b goes to c, one of a to b, two of c are done without.
        assert_eq!(go(10, [None, Some(2), None], [0, 0, 1]), [4, 2, 4]);
        assert_eq!(go(10, [Some(3), None, None], [0, 1, 0]), [3, 4, 3]);
        assert_eq!(go(8, [None, None, Some(1)], [0; 3]), [4, 3, 1]);
        // Scaled up, the others have what is more; scaled down, none has more than it may.
        assert_eq!(go(12, [None, None, Some(1)], [0; 3]), [6, 5, 1]);
        assert_eq!(go(1, [None, Some(2), None], [0, 0, 1]), [0, 0, 1]);
    }

    #[test]
    fn fixed_numbers_and_bounds() {
        let mut placement = placement(&[("a", 1), ("b", 1), ("c", 3)]);
        placement.cells[0].replicas = Some(4);
        placement.cells[2].max = Some(3);
        let cells = [view("a", 1, 0, 0), view("b", 1, 0, 0), view("c", 3, 0, 0)];
        for (replicas, want) in [
            (10, [4, 3, 3]),
            (3, [3, 0, 0]),
            (6, [4, 1, 1]),
            (20, [4, 13, 3]),
        ] {
            let got = shares(replicas, &placement, &cells, &[], NOW).desired;
            assert_eq!(got.iter().sum::<i32>(), replicas, "{got:?}");
            assert_eq!(got, want, "{replicas}");
        }
    }

    proptest! {
        /// All have a place where there is room for all; no cell is above its bound; and a Group that is not
        /// held up anywhere is divided as by weight alone.
        #[test]
        fn shares_add_up(
            replicas in 0i32..200,
            cells in prop::collection::vec((0i32..10, prop::option::of(0i32..50), any::<bool>()), 1..6),
        ) {
            let named: Vec<String> = (0..cells.len()).map(|n| format!("c{n}")).collect();
            let weights: Vec<(&str, i32)> = named.iter().map(String::as_str).zip(cells.iter().map(|c| c.0)).collect();
            let mut placement = placement(&weights);
            placement.lost.as_mut().unwrap().max_extra = CountOrPercent::Percent(100);
            let mut views: Vec<CellView> = weights.iter().map(|(n, w)| view(n, *w, 0, 0)).collect();
            for ((share, view), (_, max, lost)) in placement.cells.iter_mut().zip(&mut views).zip(&cells) {
                share.max = *max;
                if *lost {
                    view.reachable = false;
                    view.unreachable_since = Some(NOW);
                }
            }
            let got = shares(replicas, &placement, &views, &[], at(60));
            prop_assert!(got.desired.iter().sum::<i32>() <= replicas);
            for ((desired, (weight, max, lost)), _) in got.desired.iter().zip(&cells).zip(&views) {
                prop_assert!(*desired >= 0 && *desired <= max.unwrap_or(i32::MAX), "{:?}", got);
                prop_assert!(!*lost || *desired == 0, "{:?}", got);
                prop_assert!(*weight > 0 || *desired == 0, "{:?}", got);
            }
            let plain = cells.iter().all(|(_, max, lost)| max.is_none() && !lost);
            if plain {
                let weights: Vec<i32> = cells.iter().map(|c| c.0).collect();
                prop_assert_eq!(&got.desired, &divide(replicas, &weights));
            }
            let short = got.desired.iter().sum::<i32>() < replicas;
            prop_assert_eq!(short, got.problems.iter().any(|p| p.contains("have no place")));
        }
    }
}
