//! Cases of the release planner that the simulation does not single out.

use gantry_api::{
    App, AppSpec, Group, GroupSpec, Release, ReleaseSpec, RevisionChange, RevisionSpec,
    StrategySpec, group::GroupStatus, release::Phase, revision::RevisionRef, strategy::InPlace,
};
use jiff::Timestamp;

use super::*;
use crate::{
    render::{self, Source},
    world::{CellView, Revisions, SetView},
};

pub(super) struct Case {
    pub app: App,
    pub group: Group,
    pub release: Release,
    pub revisions: Revisions,
    pub cells: Vec<CellView>,
    pub strategy: StrategySpec,
    pub lines: Vec<StopLine>,
    pub answers: gate::Answers,
    pub origin: Option<promote::Origin>,
    pub undoes: bool,
}

pub(super) fn case(change: RevisionChange) -> Case {
    let app = App::new("cart", AppSpec::default());
    let spec = RevisionSpec {
        image: "cart:1".into(),
        ..RevisionSpec::default()
    };
    let mut group = Group::new(
        "cart",
        GroupSpec {
            app: "cart".into(),
            replicas: 2,
            revision: spec.clone(),
            ..GroupSpec::default()
        },
    );
    group.status = Some(GroupStatus {
        current: Some(RevisionRef {
            revision: 1,
            ..RevisionRef::default()
        }),
        ..GroupStatus::default()
    });
    let one = render::revision(Source::new(&app, &group), &spec, 1);
    let set = SetView {
        replicas: 2,
        revision: Some(1),
        observed: true,
        update_hash: "h1".into(),
        current_hash: "h1".into(),
        ..SetView::default()
    };
    let cell = CellView {
        name: "sh-a".into(),
        cluster: "sh".into(),
        weight: Some(1),
        reachable: true,
        set: Some(set),
        ..CellView::default()
    };
    let release = Release::new(
        "r",
        ReleaseSpec {
            group: "cart".into(),
            revision: change,
            ..ReleaseSpec::default()
        },
    );
    Case {
        app,
        group,
        release,
        revisions: Revisions::from([(1, one)]),
        cells: vec![cell],
        strategy: StrategySpec::default(),
        lines: Vec::new(),
        answers: gate::Answers::new(),
        origin: None,
        undoes: false,
    }
}

impl Case {
    pub(super) fn plan(&self) -> Step {
        self.plan_at(Timestamp::UNIX_EPOCH)
    }

    pub(super) fn settle(&self) -> Step {
        settle(&self.world(), Timestamp::UNIX_EPOCH)
    }

    pub(super) fn plan_at(&self, now: Timestamp) -> Step {
        plan(&self.world(), now)
    }

    fn world(&self) -> World<'_> {
        World {
            release: &self.release,
            group: Some(&self.group),
            app: Some(&self.app),
            strategy: Ok(self.strategy.clone()),
            revisions: &self.revisions,
            cells: &self.cells,
            lines: &self.lines,
            answers: &self.answers,
            origin: self.origin.clone(),
            undoes: self.undoes,
        }
    }

    fn told(&self) -> (Phase, String) {
        let status = self.plan().status;
        (status.phase, status.message)
    }
}

fn image(image: &str) -> RevisionChange {
    RevisionChange {
        image: Some(image.into()),
        ..RevisionChange::default()
    }
}

#[test]
fn what_keeps_a_release_from_beginning_is_said() {
    let mut gone = case(image("cart:2"));
    gone.cells[0].reachable = false;
    assert_eq!(
        gone.told(),
        (
            Phase::Pending,
            "cell sh-a (cluster sh) cannot be reached".into()
        )
    );

    let mut stopped = case(image("cart:2"));
    stopped.cells[0].stopped = Some("fire".into());
    assert_eq!(
        stopped.told(),
        (Phase::Pending, "the line is stopped in sh-a: fire".into())
    );

    assert_eq!(
        case(RevisionChange {
            to: Some(9),
            ..RevisionChange::default()
        })
        .told(),
        (Phase::Failed, "revision 9 is not kept; kept are 1".into())
    );
    assert_eq!(
        case(image("cart:1")).told(),
        (
            Phase::Succeeded,
            "every instance already runs revision 1".into()
        )
    );

    let mut aborted = case(image("cart:2"));
    aborted.release.spec.abort = true;
    assert_eq!(
        aborted.told(),
        (
            Phase::Aborted,
            "ended before it began; nothing was touched".into()
        )
    );
}

#[test]
fn a_revision_is_written_down_before_the_plan_is_frozen() {
    let mut case = case(image("cart:2"));
    let first = case.plan();
    let [Action::CreateRevision(revision)] = first.actions.as_slice() else {
        panic!("{:?}", first.actions)
    };
    assert!(first.status.plan.is_none());
    case.revisions.insert(revision.number, (**revision).clone());
    let second = case.plan();
    assert!(second.actions.is_empty() && second.status.plan.is_some());
    assert_eq!(
        second.status.message,
        "update in place of 2 instances in 1 batches, at most 1 out of service"
    );
}

#[test]
fn an_impossible_plan_fails_with_its_reason() {
    let mut case = case(RevisionChange {
        args: Some(vec!["x".into()]),
        ..image("cart:2")
    });
    case.strategy.in_place = InPlace::Required;
    let first = case.plan();
    let [Action::CreateRevision(revision)] = first.actions.as_slice() else {
        panic!("{:?}", first.actions)
    };
    case.revisions.insert(revision.number, (**revision).clone());
    assert_eq!(
        case.told(),
        (
            Phase::Failed,
            "the strategy requires updates in place, but args differ".into()
        )
    );
}

#[test]
fn the_first_of_a_groups_releases_governs() {
    let at = |name: &str, second: i64, phase: Phase, started: bool| {
        let mut release = Release::new(
            name,
            ReleaseSpec {
                group: "cart".into(),
                ..ReleaseSpec::default()
            },
        );
        let time = |s| Time(Timestamp::from_second(s).unwrap());
        release.metadata.creation_timestamp = Some(time(second));
        release.status = Some(ReleaseStatus {
            phase,
            started: started.then(|| time(second)),
            ..ReleaseStatus::default()
        });
        release
    };
    let name = |list: &[&Release]| governing(list).and_then(|r| r.metadata.name.clone());
    let (a, b, c) = (
        at("a", 1, Phase::Queued, false),
        at("b", 2, Phase::Batch, true),
        at("c", 3, Phase::Pending, false),
    );
    assert_eq!(name(&[&c, &a, &b]).as_deref(), Some("b"), "the running one");
    assert_eq!(
        name(&[&c, &a]).as_deref(),
        Some("a"),
        "the oldest that waits"
    );
    let mut stopped = at("d", 4, Phase::Aborted, true);
    assert_eq!(
        name(&[&stopped]).as_deref(),
        Some("d"),
        "an aborted one keeps its bastion out"
    );
    assert_eq!(
        name(&[&stopped, &c]).as_deref(),
        Some("c"),
        "until another comes"
    );
    stopped.spec.rollback = true;
    assert_eq!(
        name(&[&stopped, &c]).as_deref(),
        Some("d"),
        "or it is to be taken back"
    );
    assert_eq!(
        name(&[&at("e", 5, Phase::Succeeded, true), &stopped]),
        None,
        "which ends with the next that started"
    );
}
