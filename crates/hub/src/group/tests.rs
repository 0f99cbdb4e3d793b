//! Cases of the group planner that the simulation does not single out.

use gantry_api::{AppSpec, GroupSpec, RevisionSpec, group::InstanceWish};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rstest::rstest;

use super::*;
use crate::world::SetView;
use crate::world::Wish;

mod nodes;

struct Case {
    app: App,
    group: Group,
    revisions: Revisions,
    cells: Vec<CellView>,
    release: ReleaseView,
}

fn instance(name: &str, gate: Gate) -> Instance {
    Instance {
        name: name.into(),
        uid: "u".into(),
        version: "1".into(),
        revision: Some(1),
        hash: "h".into(),
        terminating: false,
        observed: true,
        ready_since: Some(Timestamp::UNIX_EPOCH),
        gate,
        mark: None,
        containers: BTreeMap::new(),
        trouble: String::new(),
        unplaced_since: None,
        node: "n1".into(),
        pinned: None,
        created: Some(Timestamp::UNIX_EPOCH),
        wish: Wish::None,
    }
}

fn cell(name: &str, weight: i32, instances: i32) -> CellView {
    CellView {
        name: name.into(),
        cluster: "sh".into(),
        weight: Some(weight),
        reachable: true,
        set: Some(SetView {
            replicas: instances,
            revision: Some(1),
            observed: true,
            update_hash: "h".into(),
            ..SetView::default()
        }),
        instances: (0..instances)
            .map(|n| (n, instance(&format!("cart-{name}-{n}"), Gate::In)))
            .collect(),
        ..CellView::default()
    }
}

fn case(replicas: i32, cells: Vec<CellView>) -> Case {
    let app = App::new("cart", AppSpec::default());
    let mut group = Group::new(
        "cart",
        GroupSpec {
            app: "cart".into(),
            replicas,
            revision: RevisionSpec {
                image: "cart:1".into(),
                ..RevisionSpec::default()
            },
            ..GroupSpec::default()
        },
    );
    group.metadata.finalizers = Some(vec![labels::FINALIZER.into()]);
    let one = render::revision(Source::new(&app, &group), &group.spec.revision, 1);
    group.status = Some(GroupStatus {
        current: Some(RevisionRef {
            revision: 1,
            ..RevisionRef::default()
        }),
        ..GroupStatus::default()
    });
    Case {
        app,
        group,
        revisions: Revisions::from([(1, one)]),
        cells,
        release: ReleaseView::default(),
    }
}

impl Case {
    fn plan(&self) -> Step {
        let members = BTreeMap::from([(
            "sh".to_owned(),
            MemberView {
                reachable: true,
                ..MemberView::default()
            },
        )]);
        let world = World {
            group: &self.group,
            app: Some(&self.app),
            revisions: &self.revisions,
            cells: &self.cells,
            members: &members,
            release: self.release.clone(),
            trouble: None,
            held: None,
        };
        plan(&world, Timestamp::UNIX_EPOCH)
    }

    fn scales(&self) -> Vec<(String, i32, i32)> {
        let scale = |a: Action| match a {
            Action::Scale {
                cell,
                replicas,
                partition,
                ..
            } => Some((cell, replicas, partition)),
            _ => None,
        };
        self.plan().actions.into_iter().filter_map(scale).collect()
    }
}

#[test]
fn a_share_moves_only_as_others_come_into_service() {
    // From 8 and 2 to 5 and 5, one may be missing: the new ones are asked for at once, one old one goes.
    let moving = case(10, vec![cell("a", 1, 8), cell("b", 1, 2)]);
    assert_eq!(moving.scales(), [("a".into(), 7, 0), ("b".into(), 5, 0)]);
    // A wish for fewer goes through at once.
    assert_eq!(
        case(4, vec![cell("a", 1, 8), cell("b", 1, 2)]).scales(),
        [("a".into(), 2, 0)]
    );
}

#[rstest]
#[case::untouched(2, 3, 5)]
#[case::reached(2, 1, 1)]
#[case::no_release(1, 3, 3)]
fn new_instances_stay_below_the_partition_where_a_release_has_not_come(
    #[case] template: i64,
    #[case] partition: i32,
    #[case] want: i32,
) {
    let mut it = case(5, vec![cell("a", 1, 3)]);
    if let Some(set) = &mut it.cells[0].set {
        (set.revision, set.partition) = (Some(template), partition);
    }
    it.release.target = Some(RevisionRef {
        revision: 2,
        ..RevisionRef::default()
    });
    assert_eq!(it.scales(), [("a".into(), 5, want)]);
}

#[test]
fn a_frozen_cell_does_not_grow_and_says_so() {
    let mut it = case(5, vec![cell("a", 1, 3)]);
    it.release.frozen.insert("a".into());
    assert!(it.scales().is_empty());
    assert_eq!(
        it.plan().status.message,
        "scaling up in a waits for the bastion there to be accepted"
    );
}

#[rstest]
#[case::fresh(Gate::Unset, None, Some(None))]
#[case::serving(Gate::In, None, None)]
#[case::to_go(Gate::In, Some(Hold::Update), Some(Some(Hold::Update)))]
#[case::gone(Gate::Out { reason: "Updating".into(), since: Timestamp::UNIX_EPOCH }, Some(Hold::Update), None)]
#[case::back(Gate::Out { reason: "Updating".into(), since: Timestamp::UNIX_EPOCH }, None, Some(None))]
#[case::bastion(Gate::Out { reason: "Updating".into(), since: Timestamp::UNIX_EPOCH }, Some(Hold::Bastion), Some(Some(Hold::Bastion)))]
fn gates(#[case] gate: Gate, #[case] hold: Option<Hold>, #[case] want: Option<Option<Hold>>) {
    let mut it = case(1, vec![cell("a", 1, 1)]);
    it.cells[0].instances = BTreeMap::from([(0, instance("cart-a-0", gate))]);
    it.release
        .holds
        .extend(hold.map(|h| ("cart-a-0".to_owned(), h)));
    let turned = it.plan().actions.into_iter().find_map(|a| match a {
        Action::SetGate { hold, .. } => Some(hold),
        _ => None,
    });
    assert_eq!(turned, want);
}

#[test]
fn a_bastion_that_nobody_accepted_outlives_its_release() {
    let mut it = case(1, vec![cell("a", 1, 1)]);
    let mut bastion = instance(
        "cart-a-0",
        Gate::Out {
            reason: Hold::Bastion.reason().into(),
            since: Timestamp::UNIX_EPOCH,
        },
    );
    bastion.revision = Some(2);
    it.cells[0].instances = BTreeMap::from([(0, bastion)]);
    let turned = |it: &Case| {
        it.plan()
            .actions
            .iter()
            .any(|a| matches!(a, Action::SetGate { .. }))
    };
    assert!(!turned(&it));
    it.release.accepted = Some(2);
    assert!(turned(&it));
}

#[test]
fn a_group_goes_when_its_members_are_clean() {
    let mut it = case(2, vec![cell("a", 1, 2)]);
    it.group.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(it.scales(), [("a".into(), 0, 0)]);
    it.cells[0] = cell("a", 1, 0);
    assert_eq!(it.plan().actions, [Action::DeleteSet { cell: "a".into() }]);
    it.cells[0].set = None;
    assert_eq!(
        it.plan().actions,
        [Action::DeleteSupport {
            cluster: "sh".into()
        }]
    );
    it.cells[0].reachable = false;
    assert!(it.plan().actions.is_empty());
    assert_eq!(
        it.plan().status.message,
        "waits to be removed from cluster sh, which cannot be reached"
    );
}

#[test]
fn old_revisions_are_forgotten_when_nothing_refers_to_them() {
    let mut it = case(0, vec![cell("a", 1, 0)]);
    it.group.spec.revision_history_limit = 1;
    for n in 2..6 {
        let made = render::revision(
            Source::new(&it.app, &it.group),
            &RevisionSpec {
                image: format!("cart:{n}"),
                ..RevisionSpec::default()
            },
            n,
        );
        it.revisions.insert(n, made);
    }
    it.release.referred = BTreeSet::from([3]);
    let pruned: Vec<i64> = it
        .plan()
        .actions
        .into_iter()
        .filter_map(|a| {
            if let Action::PruneRevision { number } = a {
                Some(number)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(pruned, [2, 4], "1 is current, 3 is referred to, 5 is kept");
}

#[rstest]
#[case::all_are_there(true, true)]
#[case::a_cell_joins(false, false)]
fn nobody_goes_out_while_a_cell_joins(#[case] there: bool, #[case] goes_out: bool) {
    let mut second = cell("b", 1, 2);
    if !there {
        second.set = None;
        second.instances.clear();
    }
    let mut case = case(4, vec![cell("a", 1, 2), second]);
    case.release.holds.insert("cart-a-1".into(), Hold::Update);
    let actions = case.plan().actions;
    let created = |a: &Action| matches!(a, Action::CreateSet { cell, .. } if cell == "b");
    assert_eq!(actions.iter().any(created), !there);
    let out = |a: &Action| matches!(a, Action::SetGate { hold: Some(_), .. });
    assert_eq!(actions.iter().any(out), goes_out);
}

#[test]
fn who_was_to_be_replaced_is_let_in_only_on_a_fresh_view_of_the_set() {
    let mut only = cell("a", 1, 2);
    if let Some(set) = &mut only.set {
        set.revision = Some(2);
        set.partition = 2;
        set.version = "7".into();
    }
    for instance in only.instances.values_mut() {
        instance.gate = Gate::Out {
            reason: Hold::Replace.reason().into(),
            since: Timestamp::UNIX_EPOCH,
        };
    }
    let mut case = case(2, vec![only]);
    case.release.aborted = true;
    let actions = case.plan().actions;
    let of_cell: Vec<&Action> = actions
        .iter()
        .filter(|a| matches!(a, Action::SetPartition { .. } | Action::SetGate { .. }))
        .collect();
    assert!(
        matches!(
            of_cell[..],
            [
                Action::SetPartition { version, partition: 2, .. },
                Action::SetGate { hold: None, .. },
                Action::SetGate { hold: None, .. },
            ] if version == "7"
        ),
        "{of_cell:?}"
    );
}

/// Group of ten in one cell, of which two may be out.
fn of_ten() -> Case {
    let mut case = case(10, vec![cell("a", 1, 10)]);
    case.group.spec.availability.max_unavailable = gantry_api::CountOrPercent::Count(2);
    case
}

fn wish(ordinal: i32) -> InstanceWish {
    InstanceWish {
        name: format!("cart-a-{ordinal}"),
        out_of_service: true,
        ..Default::default()
    }
}

/// Instances that are taken out, those that are let in, and the states that are told.
fn asked(case: &mut Case) -> (Vec<String>, Vec<String>, Vec<String>) {
    people::mark(&case.group.clone(), &mut case.cells);
    let step = case.plan();
    let gates = |out: bool| {
        let turned = step.actions.iter().filter_map(move |a| match a {
            Action::SetGate { instance, hold, .. } if hold.is_some() == out => {
                Some(instance.clone())
            }
            _ => None,
        });
        turned.collect::<Vec<_>>()
    };
    let told = step.status.instances.iter();
    (
        gates(true),
        gates(false),
        told.map(|n| format!("{} {}", n.name, n.state)).collect(),
    )
}

#[test]
fn people_pull_out_as_many_as_the_group_allows() {
    let mut case = of_ten();
    case.group.spec.instances = vec![wish(7), wish(3), wish(1), wish(99)];
    let (out, _, told) = asked(&mut case);
    assert_eq!(out, ["cart-a-3", "cart-a-7"]);
    assert_eq!(
        told,
        [
            "cart-a-7 OutOfService",
            "cart-a-3 OutOfService",
            "cart-a-1 Waiting",
            "cart-a-99 Missing"
        ]
    );
    // One is out already, by itself: it costs nothing to keep it out, but it counts.
    case.cells[0].instances.get_mut(&1).unwrap().ready_since = None;
    let (out, _, _) = asked(&mut case);
    assert_eq!(out, ["cart-a-1", "cart-a-7"]);
    // A release takes one: it counts as well.
    case.cells[0].instances.get_mut(&1).unwrap().ready_since = Some(Timestamp::UNIX_EPOCH);
    case.release.holds.insert("cart-a-9".into(), Hold::Update);
    let (out, _, _) = asked(&mut case);
    assert_eq!(out, ["cart-a-7", "cart-a-9"]);
    case.release.holds.clear();
    // Put back.
    let pulled = case.cells[0].instances.get_mut(&7).unwrap();
    pulled.gate = Gate::Out {
        reason: Hold::PulledOut.reason().into(),
        since: Timestamp::UNIX_EPOCH,
    };
    let (out, put_back, _) = asked(&mut case);
    assert_eq!((out, put_back), (vec!["cart-a-3".to_owned()], vec![]));
    case.group.spec.instances.clear();
    let (out, put_back, told) = asked(&mut case);
    assert_eq!((out.len(), told.len()), (0, 0));
    assert_eq!(put_back, ["cart-a-7"]);
}

#[test]
fn nobody_is_pulled_out_while_a_cell_has_never_been_seen() {
    for (reachable, known, weight, goes) in [
        (false, false, Some(1), false),
        (false, true, Some(1), true),
        (false, false, Some(0), true),
        (false, false, None, true),
    ] {
        let mut case = of_ten();
        let mut other = cell("b", 0, 0);
        (other.reachable, other.weight) = (reachable, weight);
        if !known {
            other.set = None;
        }
        case.cells.push(other);
        case.group.spec.instances = vec![wish(3)];
        let (out, _, told) = asked(&mut case);
        assert_eq!(
            out.len() == 1,
            goes,
            "{reachable} {known} {weight:?}: {told:?}"
        );
        assert!(goes || told == ["cart-a-3 Waiting"], "{told:?}");
    }
}

#[test]
fn what_is_moved_goes_when_another_serves_in_its_place() {
    let mut case = case(4, vec![cell("a", 1, 2), cell("b", 1, 2)]);
    let moved = |name: &str| InstanceWish {
        name: name.into(),
        to: Some("b".into()),
        ..InstanceWish::default()
    };
    case.group.spec.instances = vec![moved("cart-a-1")];
    people::mark(&case.group.clone(), &mut case.cells);
    // First the new one, though the budget would let the old one go.
    assert_eq!(case.scales(), [("b".into(), 3, 0)]);
    let told = |case: &Case| case.plan().status.instances[0].state.clone();
    assert_eq!(told(&case), "Going");
    case.cells[1] = cell("b", 1, 3);
    people::mark(&case.group.clone(), &mut case.cells);
    assert_eq!(case.scales(), [("a".into(), 1, 0)]);
    case.cells[0] = cell("a", 1, 1);
    people::mark(&case.group.clone(), &mut case.cells);
    assert_eq!((case.scales(), told(&case)), (vec![], "Gone".to_owned()));
    // One in the middle cannot: numbers have no gaps.
    case.group.spec.instances = vec![moved("cart-b-0")];
    people::mark(&case.group.clone(), &mut case.cells);
    assert_eq!(
        (case.scales().len(), told(&case)),
        (2, "Waiting".to_owned())
    );
}

#[test]
fn guests_are_replaced_new_ones_first() {
    let mut case = case(4, vec![cell("a", 1, 0)]);
    case.group.spec.availability.max_unavailable = gantry_api::CountOrPercent::Count(2);
    case.group.spec.adopt = Some(gantry_api::group::Adopt::default());
    let guests = |n: usize| (0..n).map(|n| instance(&format!("web-x{n}"), Gate::Unset));
    case.cells[0].guests = guests(4).collect();
    let deleted = |case: &Case| {
        let all = case.plan().actions.into_iter();
        all.filter(|a| matches!(a, Action::DeleteInstance { .. }))
            .count()
    };
    // They stay, and count.
    assert_eq!((case.scales(), deleted(&case)), (vec![], 0));
    let status = case.plan().status;
    assert_eq!(
        (status.in_service, status.replicas, status.cells[0].guests),
        (4, 4, 4)
    );
    // One is lost: an instance with a name of its own follows.
    case.cells[0].guests.pop();
    assert_eq!(case.scales(), [("a".into(), 1, 0)]);
    // A release waits: as many more as may be out, and a guest goes for each that has come into service.
    case.release.replace_guests = true;
    case.cells[0].guests = guests(4).collect();
    assert_eq!(
        (case.scales(), deleted(&case)),
        (vec![("a".into(), 2, 0)], 0)
    );
    case.cells[0] = CellView {
        guests: guests(4).collect(),
        ..cell("a", 1, 2)
    };
    assert_eq!((case.scales(), deleted(&case)), (vec![], 2));
    case.cells[0] = CellView {
        guests: guests(1).collect(),
        ..cell("a", 1, 4)
    };
    assert_eq!((case.scales(), deleted(&case)), (vec![], 1));
    // Fewer are wished for: those go that no set has, with no more than may be gone.
    case.release.replace_guests = false;
    case.group.spec.replicas = 2;
    case.cells[0] = CellView {
        guests: guests(3).collect(),
        ..cell("a", 1, 0)
    };
    assert_eq!((case.scales(), deleted(&case)), (vec![], 1));
}

#[test]
fn a_restart_goes_from_the_top_and_ends() {
    let mut case = of_ten();
    case.app.spec.container.lifecycle.drain_seconds = Some(0);
    let later = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60);
    case.group.spec.restart_before = Some(Time(later));
    let (out, _, _) = asked(&mut case);
    assert_eq!(out, ["cart-a-8", "cart-a-9"]);
    for ordinal in [8, 9] {
        case.cells[0].instances.get_mut(&ordinal).unwrap().gate = Gate::Out {
            reason: Hold::Renew.reason().into(),
            since: Timestamp::UNIX_EPOCH,
        };
    }
    people::mark(&case.group.clone(), &mut case.cells);
    let deleted = |step: &Step| -> Vec<String> {
        let all = step.actions.iter().filter_map(|a| match a {
            Action::DeleteInstance { instance, .. } => Some(instance.clone()),
            _ => None,
        });
        all.collect()
    };
    let step = case.plan();
    assert_eq!(deleted(&step), ["cart-a-9", "cart-a-8"]);
    // The new pod is let in, and the next goes.
    let fresh = case.cells[0].instances.get_mut(&9).unwrap();
    (fresh.created, fresh.gate) = (Some(later), Gate::Unset);
    let (out, put_back, _) = asked(&mut case);
    assert_eq!((out.len(), put_back), (0, vec!["cart-a-9".to_owned()]));
    case.cells[0].instances.get_mut(&9).unwrap().gate = Gate::In;
    let (out, _, _) = asked(&mut case);
    assert_eq!(out, ["cart-a-7"]);
    // Not while a release is under way.
    case.release.target = Some(RevisionRef::default());
    let (out, put_back, _) = asked(&mut case);
    assert_eq!((out.len(), put_back), (0, vec!["cart-a-8".to_owned()]));
}
