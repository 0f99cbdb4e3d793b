//! Cases of the order planner, and a small seeded simulation of whole orders.

use std::collections::BTreeSet;

use gantry_api::{
    ReleaseOrderSpec, ReleaseStatus,
    order::{NodeJob, NodeRelease, OrderFailure},
    revision::RevisionRef,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn release_node(name: &str, after: &[&str]) -> OrderNode {
    OrderNode {
        name: name.into(),
        after: after.iter().map(|a| (*a).to_owned()).collect(),
        release: Some(NodeRelease {
            group: format!("{name}-prod"),
            ..NodeRelease::default()
        }),
        job: None,
    }
}

fn job_node(name: &str, after: &[&str], undo: bool) -> OrderNode {
    OrderNode {
        release: None,
        job: Some(NodeJob {
            cell: "sh-a".into(),
            spec: Map::from_iter([("backoffLimit".to_owned(), json!(0))]),
            undo: undo.then(Map::new),
            deadline: Some(gantry_api::Span::seconds(60)),
        }),
        ..release_node(name, after)
    }
}

/// What there is, and what becomes of it.
struct Fleet {
    order: ReleaseOrder,
    releases: BTreeMap<String, Release>,
    jobs: BTreeMap<String, JobView>,
    groups: BTreeMap<String, Option<i64>>,
    cell: CellView,
    refused: BTreeMap<String, String>,
    /// In what order things were done, and taken back.
    journal: Vec<String>,
}

impl Fleet {
    fn new(nodes: Vec<OrderNode>) -> Self {
        let groups = nodes
            .iter()
            .filter_map(|n| Some((n.release.as_ref()?.group.clone(), Some(1))))
            .collect();
        let mut order = ReleaseOrder::new(
            "night",
            ReleaseOrderSpec {
                nodes,
                ..ReleaseOrderSpec::default()
            },
        );
        order.metadata.namespace = Some("shop".into());
        Self {
            order,
            releases: BTreeMap::new(),
            jobs: BTreeMap::new(),
            groups,
            cell: CellView {
                name: "sh-a".into(),
                cluster: "sh".into(),
                reachable: true,
                ..CellView::default()
            },
            refused: BTreeMap::new(),
            journal: Vec::new(),
        }
    }

    fn plan(&self) -> Step {
        let world = World {
            order: &self.order,
            groups: self.groups.clone(),
            releases: self.releases.iter().map(|(n, r)| (n.clone(), r)).collect(),
            jobs: self.jobs.clone(),
            cells: BTreeMap::from([("sh-a".to_owned(), self.cell.clone())]),
            lines: &[],
            refused: self.refused.clone(),
        };
        plan(&world, NOW)
    }

    /// One look, with everything carried out.
    fn step(&mut self) -> OrderPhase {
        let step = self.plan();
        self.order.status = Some(step.status);
        for action in step.actions {
            self.act(action);
        }
        self.status().phase
    }

    fn status(&self) -> &ReleaseOrderStatus {
        self.order.status.as_ref().unwrap()
    }

    fn state(&self, node: &str) -> NodeState {
        let found = self.status().nodes.iter().find(|n| n.name == node);
        found.unwrap().state
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::CreateRelease { name, spec } => {
                self.releases.entry(name.clone()).or_insert_with(|| {
                    let mut release = Release::new(&name, *spec);
                    release
                        .metadata
                        .labels
                        .get_or_insert_default()
                        .insert(gantry_api::labels::ORDER.to_owned(), "night".to_owned());
                    release
                });
            }
            Action::Press { name, button } => {
                let spec = &mut self.releases.get_mut(&name).unwrap().spec;
                match button {
                    Button::Pause(paused) => spec.paused = paused,
                    Button::Abort => spec.abort = true,
                    Button::Rollback => spec.rollback = true,
                }
            }
            Action::CreateJob { name, spec, .. } => {
                assert!(spec.get("ttlSecondsAfterFinished").is_none());
                self.jobs.entry(name).or_insert_with(|| JobView {
                    ours: true,
                    suspended: spec.get("suspend").is_some(),
                    ..JobView::default()
                });
            }
            Action::ExpireJob { name, .. } => self.jobs.get_mut(&name).unwrap().expires = true,
        }
    }

    /// What the hub makes of a release: it begins, ends well or badly, goes back.
    fn run_release(&mut self, name: &str, good: bool) {
        let release = self.releases.get_mut(name).unwrap();
        let group = release.spec.group.clone();
        let back = name.contains("-back");
        let spec = release.spec.clone();
        let status = release.status.get_or_insert_with(ReleaseStatus::default);
        let withdrawn = status.started.is_none() && (spec.abort || spec.rollback);
        if withdrawn {
            status.phase = Phase::Aborted;
            return;
        }
        let ended = status.phase.is_final();
        if ended && !(status.phase == Phase::Aborted && spec.rollback)
            || status.phase == Phase::RolledBack
        {
            return;
        }
        if spec.paused && !spec.rollback && !spec.abort {
            return;
        }
        if status.started.is_none() {
            status.started = Some(Time(NOW));
            status.phase = Phase::Batch;
            let current = self.groups[&group].unwrap();
            let number = spec.revision.to.unwrap_or(current + 1);
            let at = |revision| RevisionRef {
                revision,
                ..RevisionRef::default()
            };
            (status.from, status.target) = (Some(at(current)), Some(at(number)));
            self.journal.push(format!("begin {name}"));
            return;
        }
        if spec.rollback {
            status.phase = Phase::RolledBack;
            self.journal.push(format!("back {name}"));
        } else if spec.abort {
            status.phase = Phase::Aborted;
        } else if good {
            status.phase = Phase::Succeeded;
            self.groups
                .insert(group, Some(status.target.as_ref().unwrap().revision));
            self.journal
                .push(format!("{} {name}", if back { "back" } else { "end" }));
        } else {
            status.phase = Phase::RolledBack;
            self.journal.push(format!("back {name}"));
        }
    }

    fn run_job(&mut self, name: &str, good: bool) {
        let job = self.jobs.get_mut(name).unwrap();
        if job.complete || job.failed.is_some() || job.suspended {
            return;
        }
        if job.active == 0 {
            job.active = 1;
            self.journal.push(format!("begin {name}"));
            return;
        }
        job.active = 0;
        if good {
            job.complete = true;
            let word = if name.contains("-back") {
                "back"
            } else {
                "end"
            };
            self.journal.push(format!("{word} {name}"));
        } else {
            job.failed = Some("exit code 1".into());
        }
    }

    /// Everything that there is goes a step further, well.
    fn all_go(&mut self) {
        let names: Vec<String> = self.releases.keys().cloned().collect();
        names.iter().for_each(|n| self.run_release(n, true));
        let names: Vec<String> = self.jobs.keys().cloned().collect();
        names.iter().for_each(|n| self.run_job(n, true));
    }

    fn finish(&mut self) -> OrderPhase {
        for _ in 0..40 {
            if self.step().is_final() {
                break;
            }
            self.all_go();
        }
        self.status().phase
    }
}

fn night() -> Fleet {
    Fleet::new(vec![
        release_node("web", &["api"]),
        job_node("db", &[], true),
        release_node("api", &["db"]),
        release_node("cdn", &[]),
    ])
}

#[test]
fn each_begins_when_those_before_have_succeeded() {
    let mut fleet = night();
    assert_eq!(fleet.finish(), OrderPhase::Succeeded);
    assert_eq!(fleet.status().message, "all 4 nodes have succeeded");
    assert_eq!(fleet.status().progress.done, "4/4");
    let at = |what: &str| fleet.journal.iter().position(|l| l == what).unwrap();
    assert!(at("end night-db") < at("begin night-api"));
    assert!(at("end night-api") < at("begin night-web"));
    assert!(at("begin night-cdn") < at("end night-db"));
    fleet.step();
    assert!(fleet.jobs["night-db"].expires, "{:?}", fleet.jobs);

    // Taken back after all: the last first.
    fleet.order.spec.rollback = true;
    assert_eq!(fleet.finish(), OrderPhase::RolledBack);
    let at = |what: &str| fleet.journal.iter().position(|l| l == what).unwrap();
    assert!(at("back night-web-back") < at("begin night-api-back"));
    assert!(at("back night-api-back") < at("begin night-db-back"));
    assert!(
        fleet.groups.values().all(|g| *g == Some(1)),
        "{:?}",
        fleet.groups
    );
    let back = &fleet.releases["night-web-back"].spec;
    assert_eq!(back.revision.to, Some(1));
    assert_eq!(back.strategy, Some(back::plain()));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let mut circle = Fleet::new(vec![release_node("a", &["b"]), release_node("b", &["a"])]);
    assert_eq!(circle.step(), OrderPhase::Failed);
    assert_eq!(
        circle.status().message,
        "nodes come after each other in a circle: a → b → a"
    );
    let mut nowhere = night();
    nowhere.groups.remove("api-prod");
    if let Some(job) = nowhere.order.spec.nodes[1].job.as_mut() {
        job.cell = "moon".into();
    }
    assert_eq!(nowhere.step(), OrderPhase::Failed);
    assert_eq!(
        nowhere.status().message,
        "node db: no cluster has a cell moon; node api: group api-prod does not exist"
    );
    assert!(nowhere.releases.is_empty() && nowhere.jobs.is_empty());
}

#[test]
fn a_failed_job_stops_what_depends_on_it_and_nothing_else() {
    let mut fleet = night();
    for _ in 0..4 {
        fleet.step();
        fleet.run_release("night-cdn", true);
        fleet.run_job("night-db", false);
    }
    assert_eq!(fleet.step(), OrderPhase::Paused);
    assert_eq!(
        fleet.status().message,
        "db: job night-db has failed: exit code 1; 1 succeeded, 1 failed, 2 not begun: retry, rollback or abort it"
    );
    assert_eq!(fleet.state("api"), NodeState::Waiting);
    // Tried again, under another name.
    fleet.order.spec.retry = 1;
    assert_eq!(fleet.finish(), OrderPhase::Succeeded);
    assert!(
        fleet.jobs.contains_key("night-db-1"),
        "{:?}",
        fleet.jobs.keys()
    );

    let mut back = night();
    back.order.spec.on_failure = OrderFailure::Rollback;
    for _ in 0..4 {
        back.step();
        back.run_release("night-cdn", true);
        back.run_job("night-db", false);
    }
    assert_eq!(back.finish(), OrderPhase::RolledBack);
    assert!(
        back.status()
            .message
            .starts_with("taken back: db: job night-db has failed")
    );
}

#[test]
fn a_pause_holds_its_releases_and_no_others() {
    let mut fleet = night();
    fleet.step();
    fleet.all_go();
    fleet.order.spec.paused = true;
    assert_eq!(fleet.step(), OrderPhase::Paused);
    assert!(fleet.releases["night-cdn"].spec.paused);
    for _ in 0..3 {
        fleet.all_go();
        fleet.step();
    }
    assert_eq!(fleet.state("db"), NodeState::Succeeded, "a job runs on");
    assert!(
        !fleet.releases.contains_key("night-api"),
        "nothing is begun"
    );
    fleet.order.spec.paused = false;
    fleet.step();
    assert!(!fleet.releases["night-cdn"].spec.paused);
    fleet.step();
    // One that a person has paused stays so.
    fleet.releases.get_mut("night-cdn").unwrap().spec.paused = true;
    fleet.step();
    assert!(fleet.releases["night-cdn"].spec.paused);
    fleet.releases.get_mut("night-cdn").unwrap().spec.paused = false;
    assert_eq!(fleet.finish(), OrderPhase::Succeeded);
}

#[test]
fn aborting_leaves_all_as_it_is() {
    let mut fleet = night();
    fleet.step();
    fleet.all_go();
    fleet.order.spec.abort = true;
    assert_eq!(fleet.step(), OrderPhase::Running);
    fleet.all_go();
    assert_eq!(fleet.step(), OrderPhase::Aborted);
    assert!(!fleet.releases.contains_key("night-api"));
    // And may be taken back.
    fleet.order.spec.rollback = true;
    assert_eq!(fleet.finish(), OrderPhase::RolledBack);

    let mut never = night();
    never.order.spec.abort = true;
    assert_eq!(never.step(), OrderPhase::Aborted);
    let once = never.status().clone();
    never.step();
    assert_eq!(*never.status(), once);
}

#[test]
fn what_was_never_made_is_not_run_to_be_taken_back() {
    let mut fleet = night();
    // The status is written, then the hub ends.
    fleet.order.status = Some(fleet.plan().status);
    fleet.order.spec.rollback = true;
    assert_eq!(fleet.finish(), OrderPhase::RolledBack);
    assert!(fleet.journal.is_empty(), "{:?}", fleet.journal);
}

#[test]
fn foreign_and_deleted_releases_are_told_of() {
    let mut fleet = night();
    fleet.releases.insert(
        "night-cdn".into(),
        Release::new(
            "night-cdn",
            ReleaseSpec {
                group: "cdn-prod".into(),
                ..ReleaseSpec::default()
            },
        ),
    );
    fleet.step();
    fleet.step();
    assert_eq!(fleet.state("cdn"), NodeState::Failed);
    fleet.all_go();
    fleet.step();
    fleet.jobs.clear();
    fleet.step();
    let db = fleet
        .status()
        .nodes
        .iter()
        .find(|n| n.name == "db")
        .unwrap();
    assert_eq!(db.message, "job night-db has been deleted");
}

#[test]
fn what_the_api_refuses_has_failed_and_has_done_nothing() {
    let mut fleet = night();
    fleet.step();
    fleet.jobs.clear();
    let why = "job night-db is refused: spec.template: Required value";
    fleet.refused.insert("night-db".into(), why.into());
    fleet.step();
    assert_eq!(fleet.state("db"), NodeState::Failed);
    fleet.order.spec.rollback = true;
    assert_eq!(fleet.finish(), OrderPhase::RolledBack);
    assert!(
        !fleet.jobs.contains_key("night-db-back"),
        "{:?}",
        fleet.jobs
    );
}

/// Orders of random shape with crashes, failures and buttons: nothing begins before its time, the way back
/// goes the other way round, and all of them end.
#[test]
fn seeded() {
    let mut ends = BTreeSet::new();
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = rng.random_range(1..7);
        let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
        let mut nodes: Vec<OrderNode> = (0..count)
            .map(|n| {
                let after: Vec<&str> = (0..n)
                    .filter(|_| rng.random_bool(0.4))
                    .map(|m| names[m].as_str())
                    .collect();
                if rng.random_bool(0.3) {
                    job_node(&names[n], &after, rng.random_bool(0.5))
                } else {
                    release_node(&names[n], &after)
                }
            })
            .collect();
        nodes.reverse();
        let mut fleet = Fleet::new(nodes);
        fleet.order.spec.at_once = rng.random_bool(0.3).then_some(1);
        if rng.random_bool(0.3) {
            fleet.order.spec.on_failure = OrderFailure::Rollback;
        }
        let failing = *[0.0, 0.1, 0.3].choose(&mut rng).unwrap();
        for round in 0..400 {
            let quiet = round > 60;
            let step = fleet.plan();
            if quiet || rng.random_bool(0.9) {
                fleet.order.status = Some(step.status);
                for action in step.actions {
                    if !quiet && rng.random_bool(0.15) {
                        break;
                    }
                    fleet.act(action);
                }
            }
            let names: Vec<String> = fleet.releases.keys().cloned().collect();
            for name in names {
                if rng.random_bool(0.5) {
                    let good = quiet || !rng.random_bool(failing);
                    fleet.run_release(&name, good);
                }
            }
            let names: Vec<String> = fleet.jobs.keys().cloned().collect();
            for name in names {
                if rng.random_bool(0.5) {
                    let good = quiet || !rng.random_bool(failing);
                    fleet.run_job(&name, good);
                }
            }
            fleet.cell.reachable = quiet || rng.random_bool(0.8);
            let spec = &mut fleet.order.spec;
            if quiet {
                spec.paused = false;
                if round % 20 == 0 {
                    spec.retry += 1;
                }
            } else {
                match rng.random_range(0..200) {
                    0..8 => spec.paused = !spec.paused,
                    8..12 => spec.retry += 1,
                    12..14 => spec.abort = true,
                    14..17 => spec.rollback = true,
                    _ => {}
                }
            }
            let over = fleet
                .order
                .status
                .as_ref()
                .is_some_and(|s| s.phase.is_final());
            if quiet && over || round % 16 == 0 {
                check(&fleet, seed);
            }
            if quiet && over {
                break;
            }
        }
        let status = fleet.status();
        assert!(
            status.phase.is_final(),
            "seed {seed} never ends: {:?} {}",
            status.phase,
            status.message
        );
        ends.insert(status.phase.as_str());
    }
    assert_eq!(
        ends.into_iter().collect::<Vec<_>>(),
        ["Aborted", "RolledBack", "Succeeded"]
    );
}

/// By what was done, in the order that it was done in.
fn check(fleet: &Fleet, seed: u64) {
    let node_of = |line: &str, word: &str| -> Option<(String, bool)> {
        let name = line.strip_prefix(word)?.strip_prefix(" night-")?;
        Some((name.split('-').next()?.to_owned(), name.contains("-back")))
    };
    let mut ended: BTreeSet<String> = BTreeSet::new();
    let mut begun: BTreeSet<String> = BTreeSet::new();
    for line in &fleet.journal {
        if let Some((node, false)) = node_of(line, "end") {
            ended.insert(node);
            continue;
        }
        if let Some((node, back)) = node_of(line, "begin") {
            let nodes = &fleet.order.spec.nodes;
            let of = nodes.iter().find(|n| n.name == node).unwrap();
            if back {
                let later = nodes.iter().filter(|n| n.after.contains(&node));
                for later in later {
                    assert!(
                        !ended.contains(&later.name) || later.job.is_some(),
                        "seed {seed}: {node} is taken back before {}: {:?}",
                        later.name,
                        fleet.journal
                    );
                }
            } else {
                for before in &of.after {
                    assert!(
                        ended.contains(before),
                        "seed {seed}: {node} begins before {before} has ended: {:?}",
                        fleet.journal
                    );
                }
                begun.insert(node);
            }
            continue;
        }
        if let Some((node, _)) = node_of(line, "back") {
            ended.remove(&node);
        }
    }
}

#[test]
fn what_an_order_makes_on_its_way_back_alone_undoes() {
    let order = |back: bool| -> ReleaseOrder {
        let turn =
            serde_json::json!({"reason": "Requested", "message": "", "at": "2026-11-21T08:00:00Z"});
        let mut status = serde_json::json!({"nodes": [
            {"name": "api", "made": {"name": "n-api"}, "undo": {"name": "n-api-back"}}, {"name": "web"}]});
        if back {
            status["rollback"] = turn;
        }
        let mut order = ReleaseOrder::new(
            "n",
            serde_json::from_value(serde_json::json!({"nodes": []})).unwrap(),
        );
        order.status = Some(serde_json::from_value(status).unwrap());
        order
    };
    for (back, name, want) in [
        (true, "n-api-back", true),
        (true, "n-api", false),
        (true, "n-web-back", false),
        (false, "n-api-back", false),
    ] {
        assert_eq!(undoes(&order(back), name), want, "{name}, {back}");
    }
}
