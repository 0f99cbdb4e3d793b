//! Instances that people choose to do without, or to have in another cell: what that comes to, for whoever takes such
//! wishes down. A StatefulSet's numbers have no gaps: where one in the middle is chosen, its pod goes, and its number
//! passes to a new pod in the place of the cell's last.

use std::collections::BTreeMap;

use gantry_api::{
    Group, GroupStatus,
    group::{CellShare, GroupCellStatus, InstanceWish, ToNode},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::wishes;

/// Who asks for what.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The instances.
    pub names: &'a [String],
    /// The cell (or the node) to move to; `None`: away.
    pub to: Option<&'a str>,
    /// Why, for the record.
    pub reason: &'a str,
    /// Who.
    pub by: &'a str,
    /// When.
    pub now: Timestamp,
}

/// What happens to one of a cell's last instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The instance that goes.
    pub goes: String,
    /// Its cell.
    pub cell: String,
    /// The chosen one where that is another: its pod goes too, and a new one is made under its name.
    pub renewed: Option<String>,
}

/// What is written, and what comes of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Instances of the Group then.
    pub replicas: i32,
    /// Wishes for instances.
    pub instances: Vec<InstanceWish>,
    /// Shares with fixed numbers adapted.
    pub cells: Vec<CellShare>,
    /// What happens to each.
    pub steps: Vec<Step>,
}

/// What doing without these instances comes to.
///
/// # Errors
/// Which of them cannot go, or that the Group has no such cell.
pub fn change(group: &Group, asked: Asked<'_>) -> Result<Change, String> {
    let status = group.status.clone().unwrap_or_default();
    let mut chosen: BTreeMap<&str, Vec<(i32, &str)>> = BTreeMap::new();
    for name in asked.names {
        let (cell, ordinal) = home(group, &status, name)?;
        if asked.to == Some(cell.name.as_str()) {
            return Err(format!("{name} is in {} already", cell.name));
        }
        let of_cell = chosen.entry(&cell.name).or_default();
        if !of_cell.iter().any(|(n, _)| *n == ordinal) {
            of_cell.push((ordinal, name));
        }
    }
    let placed = |cell: &str| group.spec.placement.cells.iter().any(|c| c.name == cell);
    if let Some(to) = asked.to.filter(|to| !placed(to)) {
        return Err(format!("{to} is no cell of the group's placement"));
    }
    let mut change = Change {
        replicas: group.spec.replicas,
        instances: group.spec.instances.clone(),
        cells: group.spec.placement.cells.clone(),
        steps: vec![],
    };
    for (cell, of_cell) in chosen {
        let count = of_cell.len() as i32;
        let desired = status
            .cells
            .iter()
            .find(|c| c.name == cell)
            .map_or(0, |c| c.desired);
        let going: Vec<i32> = (desired - count..desired).rev().collect();
        let mut passed = of_cell.iter().filter(|(n, _)| !going.contains(n));
        for ordinal in &going {
            let name = format!("{}-{ordinal}", group.set_in(cell));
            let direct = of_cell.iter().any(|(n, _)| n == ordinal);
            let renewed = (!direct).then(|| passed.next()).flatten();
            if let Some((_, other)) = renewed {
                put(&mut change.instances, other, asked, |w| {
                    w.restart_before = Some(Time(asked.now))
                });
            }
            change.steps.push(Step {
                goes: name.clone(),
                cell: cell.to_owned(),
                renewed: renewed.map(|(_, other)| (*other).to_owned()),
            });
            put(&mut change.instances, &name, asked, |w| match asked.to {
                Some(to) => w.to = Some(to.to_owned()),
                None => w.remove = true,
            });
        }
        if asked.to.is_none() {
            change.replicas -= count;
        }
        // A cell with a number of its own is to have so many fewer (the other one more).
        for share in &mut change.cells {
            if let (Some(replicas), true) = (&mut share.replicas, share.name == cell) {
                *replicas = (*replicas - count).max(0);
            }
        }
    }
    Ok(change)
}

/// The cell and the ordinal of one of the Group's instances.
fn home<'a>(
    group: &Group,
    status: &'a GroupStatus,
    name: &str,
) -> Result<(&'a GroupCellStatus, i32), String> {
    let found = status.cells.iter().find_map(|c| {
        let rest = name
            .strip_prefix(&group.set_in(&c.name))?
            .strip_prefix('-')?;
        Some((c, rest.parse::<i32>().ok()?))
    });
    let (cell, ordinal) =
        found.ok_or_else(|| format!("{name} is no named instance of the group"))?;
    if ordinal >= cell.desired {
        return Err(format!(
            "{name}: {} has {} instances only",
            cell.name, cell.desired
        ));
    }
    Ok((cell, ordinal))
}

/// The wishes of a Group with its instances wished onto the node `asked.to` of their own cells. `from` says where
/// they are, as far as that is known.
///
/// # Errors
/// Which of them cannot be moved, whatever the node.
pub fn onto(
    group: &Group,
    from: &BTreeMap<String, String>,
    asked: Asked<'_>,
) -> Result<Vec<InstanceWish>, String> {
    let status = group.status.clone().unwrap_or_default();
    let mut all = group.spec.instances.clone();
    // A pod's age is in whole seconds: one of this very second is old, too.
    let before = asked.now.checked_add(SignedDuration::from_secs(1));
    let before = Time(before.unwrap_or(asked.now));
    for name in asked.names {
        home(group, &status, name)?;
        let other = all.iter().find(|w| w.name == *name);
        if other.is_some_and(|w| w.out_of_service) {
            return Err(format!("{name} is kept out of service: put it back first"));
        }
        if other.is_some_and(|w| w.remove || w.to.is_some()) {
            return Err(format!("{name} is about to go: put it back first"));
        }
        put(&mut all, name, asked, |w| {
            w.to_node = asked.to.map(|node| ToNode {
                name: node.to_owned(),
                before: before.clone(),
                from: from.get(name).cloned().unwrap_or_default(),
            });
        });
    }
    Ok(all)
}

/// The wishes without those moves to a node that were asked for these instances at that time.
pub fn not_onto(now: &[InstanceWish], names: &[String], before: &Time) -> Vec<InstanceWish> {
    let mut all = now.to_vec();
    for wish in all.iter_mut().filter(|w| names.contains(&w.name)) {
        wish.to_node.take_if(|to| to.before == *before);
    }
    all.retain(wishes::wishes_something);
    all
}

fn put(
    all: &mut Vec<InstanceWish>,
    name: &str,
    asked: Asked<'_>,
    set: impl FnOnce(&mut InstanceWish),
) {
    let old = all
        .iter()
        .position(|w| w.name == name)
        .map(|i| all.remove(i));
    let mut wish = InstanceWish {
        name: name.to_owned(),
        by: asked.by.to_owned(),
        reason: asked.reason.to_owned(),
        ..old.unwrap_or_default()
    };
    set(&mut wish);
    all.push(wish);
}

#[cfg(test)]
mod tests {
    use gantry_api::group::GroupCellStatus;
    use gantry_api::{GroupSpec, GroupStatus};

    use super::*;

    fn group() -> Group {
        let mut group = Group::new(
            "cart",
            GroupSpec {
                replicas: 7,
                ..GroupSpec::default()
            },
        );
        let cell = |name: &str, desired| GroupCellStatus {
            name: name.into(),
            desired,
            ..GroupCellStatus::default()
        };
        let share = |name: &str, replicas| CellShare {
            name: name.into(),
            weight: 1,
            replicas,
            ..CellShare::default()
        };
        group.spec.placement.cells = vec![share("a", None), share("b", Some(3))];
        group.status = Some(GroupStatus {
            cells: vec![cell("a", 4), cell("b", 3)],
            ..GroupStatus::default()
        });
        group
    }

    fn asked<'a>(names: &'a [String], to: Option<&'a str>) -> Asked<'a> {
        Asked {
            names,
            to,
            reason: "hot",
            by: "alice",
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn the_last_go_and_the_others_pass_their_numbers_on() {
        // (chosen, to, replicas, entries, fixed number of b)
        type Case = (
            &'static [&'static str],
            Option<&'static str>,
            i32,
            &'static [&'static str],
            i32,
        );
        let cases: [Case; 5] = [
            (&["cart-a-3"], None, 6, &["cart-a-3 remove"], 3),
            (
                &["cart-a-3", "cart-a-2", "cart-a-3"],
                None,
                5,
                &["cart-a-3 remove", "cart-a-2 remove"],
                3,
            ),
            (
                &["cart-a-1"],
                None,
                6,
                &["cart-a-1 restart", "cart-a-3 remove"],
                3,
            ),
            (
                &["cart-a-0", "cart-b-2"],
                None,
                5,
                &["cart-a-0 restart", "cart-a-3 remove", "cart-b-2 remove"],
                2,
            ),
            (&["cart-a-3"], Some("b"), 7, &["cart-a-3 to b"], 3),
        ];
        for (chosen, to, replicas, want, fixed) in cases {
            let chosen = names(chosen);
            let change = change(&group(), asked(&chosen, to)).unwrap();
            let told: Vec<String> = change
                .instances
                .iter()
                .map(|w| {
                    let what = match (w.remove, &w.to, &w.restart_before) {
                        (true, ..) => "remove".to_owned(),
                        (_, Some(to), _) => format!("to {to}"),
                        (_, _, Some(_)) => "restart".to_owned(),
                        _ => "nothing".to_owned(),
                    };
                    assert_eq!((w.by.as_str(), w.reason.as_str()), ("alice", "hot"));
                    format!("{} {what}", w.name)
                })
                .collect();
            assert_eq!(told, want, "{chosen:?}");
            assert_eq!(change.replicas, replicas, "{chosen:?}");
            assert_eq!(change.cells[1].replicas, Some(fixed), "{chosen:?}");
        }
    }

    #[test]
    fn onto_a_node_and_not() {
        let mut group = group();
        let out = InstanceWish {
            name: "cart-a-0".into(),
            out_of_service: true,
            ..InstanceWish::default()
        };
        let gone = InstanceWish {
            name: "cart-a-3".into(),
            remove: true,
            ..InstanceWish::default()
        };
        let again = InstanceWish {
            name: "cart-a-2".into(),
            restart_before: Some(Time(Timestamp::UNIX_EPOCH)),
            ..InstanceWish::default()
        };
        group.spec.instances = vec![out, gone, again];
        for (chosen, why) in [
            ("cart-a-4", "a has 4 instances only"),
            ("cart-x-0", "no named instance"),
            ("cart-a-0", "is kept out of service: put it back first"),
            ("cart-a-3", "is about to go: put it back first"),
        ] {
            let chosen = names(&[chosen]);
            let said = onto(&group, &BTreeMap::new(), asked(&chosen, Some("n2"))).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let chosen = names(&["cart-b-1", "cart-a-2"]);
        let from = BTreeMap::from([("cart-b-1".to_owned(), "n1".to_owned())]);
        let all = onto(&group, &from, asked(&chosen, Some("n2"))).unwrap();
        let told: Vec<_> = all
            .iter()
            .filter_map(|w| {
                let to = w.to_node.as_ref()?;
                Some(format!("{} {}>{} {}", w.name, to.from, to.name, w.by))
            })
            .collect();
        assert_eq!(told, ["cart-b-1 n1>n2 alice", "cart-a-2 >n2 alice"]);
        let before = all[3].to_node.clone().unwrap().before;
        assert!(before.0 > Timestamp::UNIX_EPOCH);
        let other = not_onto(&all, &chosen, &Time(Timestamp::UNIX_EPOCH));
        assert_eq!(other, all);
        // What is wished beside it stays.
        let left = not_onto(&all, &chosen, &before);
        assert_eq!(left.len(), 3);
        assert!(left.iter().all(|w| w.to_node.is_none()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (chosen, to, why) in [
            ("cart-a-4", None, "a has 4 instances only"),
            ("cart-a-x", None, "no named instance"),
            ("web-7f-x2", None, "no named instance"),
            ("cart-a-3", Some("a"), "is in a already"),
            (
                "cart-a-3",
                Some("z"),
                "z is no cell of the group's placement",
            ),
        ] {
            let chosen = names(&[chosen]);
            let said = change(&group(), asked(&chosen, to)).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
