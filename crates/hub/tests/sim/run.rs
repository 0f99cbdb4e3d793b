//! One run: a group of random size and strategy, a release or two, faults, buttons, and the end.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    App, AppSpec, CountOrPercent, Group, GroupSpec, Release, ReleaseSpec, RevisionChange,
    RevisionSpec, Span, StopLine, StopLineSpec, StrategySpec,
    gate::{Approval, Compare, Gate, Metric, Point, Verdict, Webhook},
    group::{Availability, CellShare, InstanceWish, LostCell, Overflow, Placement},
    release::{Emergency, IfBusy, Pace, Phase},
    stop_line::StopKind,
    strategy::{
        Accept, Bastion, Batches, Deadlines, InPlace, OnFailure, Pause, ResolveTags, Rollback,
        RollbackPace, Unreachable, UnreachableThen, WithinBatch,
    },
    window::Window,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    hub::{Broke, Deed, Faults, Fleet, Hub, Log, Member, Memory, cell_names},
    invariants,
    member::{Cell, Health, at},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Calm,
    SickInstances,
    BrokenHub,
    Everything,
}

pub struct Run {
    profile: Profile,
    rng: ChaCha8Rng,
    fleet: Fleet,
    memory: Memory,
    faults: Faults,
    health: Health,
    log: Log,
    verbose: bool,
    /// The state of everything when the hub last looked.
    seen: u64,
}

impl Run {
    pub fn new(seed: u64, profile: Profile, verbose: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let broken = matches!(profile, Profile::BrokenHub | Profile::Everything);
        let sick = matches!(profile, Profile::SickInstances | Profile::Everything);
        let mut members = Vec::new();
        let mut weights = BTreeMap::new();
        for m in 0..rng.random_range(1..=2) {
            let mut cells = Vec::new();
            for c in 0..rng.random_range(1..=2) {
                let name = format!("m{m}-{c}");
                weights.insert(name.clone(), rng.random_range(1..=3));
                cells.push(Cell {
                    name,
                    ..Cell::default()
                });
            }
            members.push(Member {
                name: format!("m{m}"),
                cells,
                away_since: 0,
                away_until: 0,
            });
        }
        // One that the group may be placed on later.
        members[0].cells.push(Cell {
            name: LATE.to_owned(),
            ..Cell::default()
        });
        let replicas = rng.random_range(1..=12);
        let mut group = Group::new(
            "cart",
            GroupSpec {
                app: "cart".into(),
                replicas,
                placement: Placement {
                    cells: weights
                        .iter()
                        .map(|(name, weight)| CellShare {
                            name: name.clone(),
                            weight: *weight,
                            ..CellShare::default()
                        })
                        .collect(),
                    ..Placement::default()
                },
                revision: RevisionSpec {
                    image: "cart:1".into(),
                    ..RevisionSpec::default()
                },
                availability: Availability {
                    max_unavailable: CountOrPercent::Percent(rng.random_range(5..50)),
                },
                revision_history_limit: 2,
                ..GroupSpec::default()
            },
        );
        group.metadata.namespace = Some("shop".into());
        if profile == Profile::Everything {
            let placement = &mut group.spec.placement;
            placement.overflow = rng.random_bool(0.5).then(|| Overflow {
                after: Span::seconds(5),
                back: Span::seconds(25),
            });
            placement.lost = rng.random_bool(0.3).then(|| LostCell {
                after: Span::seconds(8),
                max_extra: CountOrPercent::Percent(rng.random_range(0..=100)),
            });
        }
        let mut app = App::new("cart", AppSpec::default());
        app.spec.container.lifecycle.drain_seconds = Some(rng.random_range(0..5));
        let mut strategy = strategy(&mut rng);
        if profile == Profile::Calm {
            // Nothing is wrong, so nothing but a slow releaser could run into these.
            strategy.deadlines.batch = None;
            strategy.deadlines.total = None;
            strategy.resolve_tags = strategy.resolve_tags.map(|_| ResolveTags::IfReachable);
            for gate in &mut strategy.gates {
                gate.timeout = None;
            }
        }
        let health = Health {
            broken: if profile != Profile::Calm && rng.random_bool(0.25) {
                vec![2]
            } else {
                Vec::new()
            },
            unlucky: if sick {
                *[0.0, 0.02, 0.1].choose(&mut rng).unwrap()
            } else {
                0.0
            },
            slow: rng.random_range(0..8),
            death: if sick {
                *[0.0, 0.001, 0.005].choose(&mut rng).unwrap()
            } else {
                0.0
            },
            crash: if sick {
                *[0.0, 0.001, 0.005].choose(&mut rng).unwrap()
            } else {
                0.0
            },
        };
        let faults = if broken {
            Faults {
                crash: 0.03,
                lost_response: 0.03,
                stale: *[0.0, 0.3, 0.7].choose(&mut rng).unwrap(),
                silence: 0.2,
                disagreement: 0.2,
            }
        } else {
            Faults {
                silence: 0.1,
                ..Faults::default()
            }
        };
        let fleet = Fleet {
            now: 0,
            members,
            group,
            app,
            releases: Vec::new(),
            revisions: BTreeMap::new(),
            counter: 0,
            pressed: 1,
            stopped: None,
            weights,
            strategy,
            lines: Vec::new(),
            origin: None,
            met: BTreeSet::new(),
            agreed: BTreeMap::new(),
        };
        Self {
            profile,
            rng,
            fleet,
            memory: Memory::default(),
            faults,
            health,
            log: Log {
                listening: verbose,
                lines: Vec::new(),
            },
            verbose,
            seen: 0,
        }
    }

    /// How it ended, or what was wrong; and what came up.
    pub fn into_end(mut self) -> (Result<String, String>, BTreeSet<String>) {
        let result = self.run();
        if self.verbose {
            let lines = &self.log.lines;
            // Quiet seconds say nothing.
            for (line, next) in lines
                .iter()
                .zip(lines.iter().skip(1).map(Some).chain([None]))
            {
                if !(line.starts_with("t=") && next.is_none_or(|n| n.starts_with("t="))) {
                    println!("{line}");
                }
            }
            for cell in self.fleet.cells() {
                println!("{} {:?}", cell.name, cell.set);
                for (ordinal, pod) in &cell.pods {
                    println!("  {ordinal} {pod:?}");
                }
            }
        }
        (result, self.fleet.met)
    }

    fn run(&mut self) -> Result<String, String> {
        self.log
            .push(|| format!("strategy {:?}", self.fleet.strategy));
        self.log.push(|| {
            format!(
                "{:?} {:?} {} replicas, weights {:?}",
                self.faults, self.health, self.fleet.group.spec.replicas, self.fleet.weights
            )
        });
        // The group comes up, quietly and in good health.
        let (faults, health) = (
            std::mem::take(&mut self.faults),
            std::mem::take(&mut self.health),
        );
        for _ in 0..30 {
            self.tick()?;
        }
        if !self.up() {
            return Err("the group never came up".to_owned());
        }
        (self.faults, self.health) = (faults, health);
        self.release();
        let pressing = self.profile == Profile::Everything;
        for _ in 0..self.rng.random_range(60..200) {
            if pressing {
                self.press();
            } else {
                self.accept();
            }
            if self.profile != Profile::Calm && self.profile != Profile::SickInstances {
                self.weather();
            }
            self.tick()?;
        }
        // The faults end, and someone brings the release to its end.
        self.faults = Faults::default();
        self.health = Health {
            broken: std::mem::take(&mut self.health.broken),
            slow: 2,
            ..Health::default()
        };
        self.fleet.stopped = None;
        self.fleet.lines.clear();
        // What is kept out may use up all that may be: someone puts it back.
        self.fleet.group.spec.instances.clear();
        for cell in self.fleet.members.iter_mut().flat_map(|m| &mut m.cells) {
            cell.room = None;
        }
        self.fleet.pressed += 1_000_000;
        self.heal();
        for patience in 0..600 {
            if self
                .fleet
                .releases
                .iter()
                .all(|r| r.status.as_ref().is_some_and(|s| s.phase.is_final()))
            {
                break;
            }
            for release in &mut self.fleet.releases {
                let before = release.spec.clone();
                release.spec.paused = false;
                release.spec.accepted_through = Some(100);
                if patience > 10 {
                    release.spec.emergency = Some(emergency(&["*"]));
                }
                let halted = release
                    .status
                    .as_ref()
                    .is_some_and(|s| s.phase == Phase::Paused);
                release.spec.rollback |= halted && patience > 20
                    || patience > 350
                        && release.status.as_ref().is_some_and(|s| s.started.is_some());
                if release.spec != before {
                    self.fleet.pressed += 1_000_000;
                }
            }
            self.tick()?;
        }
        if let Some(stuck) = self
            .fleet
            .releases
            .iter()
            .find(|r| !r.status.as_ref().is_some_and(|s| s.phase.is_final()))
        {
            return Err(format!(
                "{:?} never ends: {:?}",
                stuck.metadata.name,
                stuck.status.as_ref().map(|s| (s.phase, &s.message))
            ));
        }
        // What is to be restarted goes a few at a time.
        for rest in 0..600 {
            let due = self
                .fleet
                .group
                .spec
                .restart_before
                .as_ref()
                .is_some_and(|t| {
                    let mut pods = self.fleet.cells().flat_map(|c| c.pods.values());
                    pods.any(|p| at(p.created) < t.0)
                });
            if rest > 40 && !due {
                break;
            }
            self.tick()?;
        }
        let last = self
            .fleet
            .releases
            .iter()
            .filter(|r| r.status.as_ref().is_some_and(|s| s.started.is_some()))
            .max_by_key(|r| {
                r.status
                    .as_ref()
                    .and_then(|s| s.started.as_ref().map(|t| t.0))
            });
        let Some(last) = last else {
            return Ok("nothing started".to_owned());
        };
        invariants::at_rest(&self.fleet, last)?;
        Ok(last.status.as_ref().unwrap().phase.as_str().to_owned())
    }

    /// What never became ready for no fault of its revision gets another try.
    fn heal(&mut self) {
        let now = self.fleet.now;
        for pod in self
            .fleet
            .members
            .iter_mut()
            .flat_map(|m| &mut m.cells)
            .flat_map(|c| c.pods.values_mut())
        {
            if pod.up
                && pod.ready_since.is_none()
                && pod.next.is_none()
                && !self.health.broken.contains(&pod.running)
            {
                pod.next = Some(now + 1);
            }
        }
    }

    fn up(&self) -> bool {
        let serving: usize = self
            .fleet
            .cells()
            .map(|c| c.pods.values().filter(|p| p.serves()).count())
            .sum();
        serving as i32 == self.fleet.group.spec.replicas
    }

    /// One second of the world.
    fn tick(&mut self) -> Result<(), String> {
        self.fleet.now += 1;
        self.log.push(|| format!("t={}", self.fleet.now));
        let images = self.fleet.images();
        let mut killed = Vec::new();
        let now = self.fleet.now;
        for member in &mut self.fleet.members {
            for cell in &mut member.cells {
                if self.rng.random_bool(0.9) {
                    killed.extend(
                        cell.controller(now, &images, &mut self.fleet.counter, &mut self.rng)
                            .into_iter()
                            .map(|n| format!("{}-{n}", cell.name)),
                    );
                }
                cell.kubelet(now, &self.health, &mut self.fleet.counter, &mut self.rng);
            }
        }
        let mut deeds: Vec<Deed> = Vec::new();
        let come: Vec<String> = self
            .memory
            .asked
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in come {
            if let Some((_, answer)) = self.memory.asked.remove(&id) {
                self.memory.answers.insert(id, answer);
                self.fleet.pressed += 1_000_000;
            }
        }
        // As the shell does: look when something has changed, or when the planner asked to be woken.
        let due = self.memory.wake.is_none_or(|w| w <= at(now)) && self.memory.wake.is_some();
        let changed = self.fleet.counter + self.fleet.pressed != self.seen;
        if due || changed || self.fleet.members.iter().any(|m| m.away_until == now) {
            self.seen = self.fleet.counter + self.fleet.pressed;
            let result = Hub {
                fleet: &mut self.fleet,
                memory: &mut self.memory,
                faults: self.faults,
                rng: &mut self.rng,
                log: &mut self.log,
                deeds: &mut deeds,
            }
            .step();
            if result == Err(Broke::Crash) {
                self.memory = Memory {
                    wake: Some(at(now)),
                    ..Memory::default()
                };
            }
        }
        invariants::check(&self.fleet, &deeds, &killed, self.profile == Profile::Calm)
    }

    fn release(&mut self) {
        let number = self.fleet.releases.len() as i64 + 2;
        let mut change = RevisionChange {
            image: Some(super::member::image(number)),
            ..RevisionChange::default()
        };
        if self.rng.random_bool(0.2) {
            change.args = Some(vec![format!("--number={number}")]);
        }
        let mut release = Release::new(
            &format!("r{number}"),
            ReleaseSpec {
                group: "cart".into(),
                revision: change,
                if_busy: if self.rng.random_bool(0.2) {
                    IfBusy::Refuse
                } else {
                    IfBusy::Queue
                },
                requested_by: "alice".into(),
                ..ReleaseSpec::default()
            },
        );
        release.metadata.namespace = Some("shop".into());
        release.metadata.creation_timestamp = Some(Time(at(self.fleet.now)));
        self.fleet.releases.push(release);
        self.fleet.pressed += 1_000_000;
    }

    /// A patient releaser: accepts what is ready.
    fn accept(&mut self) {
        let accept = self.rng.random_bool(0.2);
        let approve = self.rng.random_bool(0.2);
        let who = *["alice", "bob", "carol", "mallory"]
            .choose(&mut self.rng)
            .unwrap();
        for release in &mut self.fleet.releases {
            let asked = release
                .status
                .as_ref()
                .is_some_and(|s| s.phase == Phase::Gate && s.message.contains("approvals"));
            if asked && approve && release.spec.approvals.len() < 60 {
                release.spec.approvals.push(Verdict {
                    gate: "people".into(),
                    by: who.into(),
                    groups: if who == "carol" {
                        vec!["sre".into()]
                    } else {
                        Vec::new()
                    },
                    ..Verdict::default()
                });
                self.fleet.pressed += 1_000_000;
            }
            let gate = release
                .status
                .as_ref()
                .is_some_and(|s| s.phase == Phase::Gate);
            if gate && accept {
                release.spec.accepted_through =
                    Some(release.spec.accepted_through.map_or(0, |n| n + 1));
                self.fleet.pressed += 1_000_000;
            }
        }
    }

    fn press(&mut self) {
        self.fleet.pressed += 1_000_000;
        self.accept();
        if self.rng.random_bool(0.01) && self.fleet.releases.len() < 3 {
            self.release();
        }
        if self.rng.random_bool(0.02) {
            self.fleet.group.spec.replicas = self.rng.random_range(0..=12);
            self.log
                .push(|| format!("scaled to {}", self.fleet.group.spec.replicas));
        }
        if self.rng.random_bool(0.01) {
            self.fleet.stopped = self.rng.random_bool(0.5).then(|| "incident".to_owned());
        }
        if self.rng.random_bool(0.01) {
            self.throw();
        }
        if self.rng.random_bool(0.003) && !self.fleet.weights.contains_key(LATE) {
            self.fleet.weights.insert(LATE.to_owned(), 1);
            self.log.push(|| format!("{LATE} joins"));
        }
        if self.rng.random_bool(0.03) {
            self.wish();
        }
        if self.rng.random_bool(0.01) {
            self.crowd();
        }
        let index = self.rng.random_range(0..self.fleet.releases.len());
        let dice: u32 = self.rng.random_range(0..1000);
        let spec = &mut self.fleet.releases[index].spec;
        match dice {
            0..20 => spec.paused = !spec.paused,
            20..25 => spec.accepted_through = Some(spec.accepted_through.map_or(0, |n| n + 1)),
            25..30 => spec.skip.push((dice % 4) as i32),
            30..40 => spec.retry += 1,
            40..43 => spec.abort = true,
            43..48 => spec.rollback = true,
            48..58 => {
                spec.pace = Some(Pace {
                    max_unavailable: Some(CountOrPercent::Count(dice % 4 + 1)),
                    interval: Some(Span::seconds(u64::from(dice % 3))),
                });
            }
            58..61 => spec.emergency = Some(emergency(&["*"])),
            61..64 => spec.emergency = Some(emergency(&[])),
            64..67 => {
                spec.rollback_pace = Some(*if dice.is_multiple_of(2) {
                    &RollbackPace::Batches
                } else {
                    &RollbackPace::AllAtOnce
                });
            }
            67..69 => spec.approvals.push(Verdict {
                gate: "people".into(),
                by: "bob".into(),
                reject: true,
                ..Verdict::default()
            }),
            _ => return,
        }
        self.log.push(|| {
            format!(
                "pressed on r{}: {:?}",
                index + 2,
                self.fleet.releases[index].spec
            )
        });
    }

    /// Nodes come or go: a cell takes so many pods and no more.
    fn crowd(&mut self) {
        let room = self
            .rng
            .random_bool(0.6)
            .then(|| self.rng.random_range(0..5));
        let mut cells: Vec<&mut Cell> = self
            .fleet
            .members
            .iter_mut()
            .flat_map(|m| &mut m.cells)
            .collect();
        let index = self.rng.random_range(0..cells.len());
        cells[index].room = room;
        let name = &cells[index].name;
        self.log.push(|| format!("{name} has room for {room:?}"));
        self.fleet.pressed += 1_000_000;
    }

    /// Someone wishes something for an instance, or takes a wish back.
    fn wish(&mut self) {
        let now = Time(at(self.fleet.now));
        let names: Vec<String> = self
            .fleet
            .cells()
            .flat_map(|c| c.instances("cart").into_values())
            .map(|i| i.name)
            .collect();
        let Some(name) = names.choose(&mut self.rng).cloned() else {
            return;
        };
        let cells: Vec<String> = cell_names(&self.fleet).into_iter().collect();
        let spec = &mut self.fleet.group.spec;
        match self.rng.random_range(0..8) {
            0 => spec.instances.clear(),
            1 => spec.restart_before = Some(now),
            // As `gantry scale --remove` and `gantry instance move` write it down; what cannot go, being
            // followed by others in its cell, is to stay.
            going @ 6.. => {
                spec.instances.retain(|w| w.name != name);
                let removed = going == 6 && spec.replicas > 1;
                spec.replicas -= i32::from(removed);
                spec.instances.push(InstanceWish {
                    name,
                    remove: removed,
                    to: cells.choose(&mut self.rng).filter(|_| !removed).cloned(),
                    ..InstanceWish::default()
                });
            }
            dice => {
                spec.instances.retain(|w| w.name != name);
                spec.instances.push(InstanceWish {
                    name,
                    out_of_service: dice < 4,
                    restart_before: (dice > 2).then_some(now),
                    ..InstanceWish::default()
                });
            }
        }
        self.log.push(|| {
            format!(
                "wished: {:?}, restart before {:?}",
                self.fleet.group.spec.instances, self.fleet.group.spec.restart_before
            )
        });
    }

    /// Someone throws a switch, or takes one back.
    fn throw(&mut self) {
        let now = self.fleet.now;
        if self.rng.random_bool(0.5) {
            self.fleet.lines.clear();
            self.log.push(|| "the line goes on".to_owned());
            return;
        }
        let cells: Vec<String> = self.fleet.weights.keys().cloned().collect();
        let mut spec = StopLineSpec {
            reason: "incident".into(),
            by: "dave".into(),
            ..StopLineSpec::default()
        };
        match self.rng.random_range(0..5) {
            0 => {}
            1 => spec.tenants = vec!["shop".into()],
            2 => spec.tenants = vec!["other".into()],
            3 => spec.clusters = vec!["m0".into()],
            _ => spec.cells = cells.choose(&mut self.rng).cloned().into_iter().collect(),
        }
        if self.rng.random_bool(0.5) {
            spec.kind = StopKind::Freeze;
            spec.from = Some(Time(at(now + self.rng.random_range(0..10))));
            spec.until = Some(Time(at(now + self.rng.random_range(10..40))));
        }
        self.log.push(|| format!("thrown: {spec:?}"));
        self.fleet.lines.push(StopLine::new("incident", spec));
    }

    fn weather(&mut self) {
        let names = cell_names(&self.fleet);
        debug_assert!(!names.is_empty());
        let now = self.fleet.now;
        for member in &mut self.fleet.members {
            if self.rng.random_bool(0.01) {
                if member.away_until <= now {
                    member.away_since = now;
                }
                member.away_until = now + self.rng.random_range(5..30);
                self.fleet.pressed += 1_000_000;
                self.log
                    .push(|| format!("{} is away until {}", member.name, member.away_until));
            }
        }
    }
}

/// The cell that a group is placed on only later.
const LATE: &str = "m0-late";

fn emergency(gates: &[&str]) -> Emergency {
    Emergency {
        reason: "fire".into(),
        by: "erin".into(),
        gates: gates.iter().map(|g| (*g).to_owned()).collect(),
    }
}

/// Some gates of some kinds at some points.
fn gates(rng: &mut ChaCha8Rng) -> Vec<Gate> {
    let mut gates = Vec::new();
    for name in ["time", "errors", "smoke", "people"] {
        if !rng.random_bool(0.15) {
            continue;
        }
        let mut gate = Gate {
            name: name.into(),
            at: [Point::Bastion, Point::Batch, Point::End]
                .into_iter()
                .filter(|_| rng.random_bool(0.4))
                .collect(),
            timeout: rng.random_bool(0.3).then(|| Span::seconds(60)),
            ..Gate::default()
        };
        match name {
            "time" => gate.wait = Some(Span::seconds(rng.random_range(0..6))),
            "errors" => {
                gate.metric = Some(Metric {
                    address: "http://prometheus".into(),
                    query: "errors{pod=~'{{pods}}'}".into(),
                    max: Some(2.0),
                    compare: rng.random_bool(0.5).then(|| Compare {
                        max_ratio: Some(2.0),
                        ..Compare::default()
                    }),
                    interval: Span::seconds(rng.random_range(1..4)),
                    count: rng.random_range(1..4),
                    failure_limit: rng.random_range(0..2),
                    ..Metric::default()
                });
            }
            "smoke" => {
                gate.webhook = Some(Webhook {
                    url: "http://smoke".into(),
                    interval: Span::seconds(2),
                    failure_limit: rng.random_range(0..2),
                    ..Webhook::default()
                });
            }
            _ => {
                gate.approval = Some(Approval {
                    count: rng.random_range(1..=2),
                    users: vec!["alice".into(), "bob".into()],
                    groups: vec!["sre".into()],
                    own: false,
                });
            }
        }
        gates.push(gate);
    }
    gates
}

/// Every other minute from the simulation's start on.
fn windows() -> Vec<Window> {
    (0..16)
        .map(|n| Window {
            from: format!("08:{:02}", n * 2),
            until: format!("08:{:02}", n * 2 + 1),
            ..Window::default()
        })
        .collect()
}

fn strategy(rng: &mut ChaCha8Rng) -> StrategySpec {
    let sizes = match rng.random_range(0..3) {
        0 => Vec::new(),
        1 => vec![CountOrPercent::Count(1), CountOrPercent::Count(2)],
        _ => vec![CountOrPercent::Percent(20), CountOrPercent::Percent(80)],
    };
    StrategySpec {
        bastion: Bastion {
            instances: rng.random_range(0..=2),
            accept: if rng.random_bool(0.3) {
                Accept::Auto
            } else {
                Accept::Manual
            },
        },
        batches: Batches {
            count: Some(rng.random_range(1..4)),
            sizes,
        },
        cells_at_once: rng.random_bool(0.3).then_some(1),
        pause: *[Pause::Never, Pause::AfterBastion, Pause::EachBatch]
            .choose(rng)
            .unwrap(),
        in_place: *[InPlace::IfPossible, InPlace::IfPossible, InPlace::Never]
            .choose(rng)
            .unwrap(),
        max_unavailable: rng
            .random_bool(0.5)
            .then(|| CountOrPercent::Count(rng.random_range(1..4))),
        failure_tolerance: CountOrPercent::Count(*[0, 0, 1].choose(rng).unwrap()),
        interval: Span::seconds(rng.random_range(0..5)),
        min_ready: Span::seconds(*[0, 0, 3].choose(rng).unwrap()),
        deadlines: Deadlines {
            instance: Span::seconds(rng.random_range(20..60)),
            batch: rng.random_bool(0.2).then(|| Span::seconds(120)),
            total: rng.random_bool(0.1).then(|| Span::seconds(400)),
        },
        on_failure: if rng.random_bool(0.4) {
            OnFailure::Rollback
        } else {
            OnFailure::Pause
        },
        within_batch: if rng.random_bool(0.3) {
            WithinBatch::LockStep
        } else {
            WithinBatch::SlidingWindow
        },
        rollback: Rollback {
            pace: if rng.random_bool(0.3) {
                RollbackPace::Batches
            } else {
                RollbackPace::AllAtOnce
            },
            max_unavailable: rng
                .random_bool(0.2)
                .then(|| CountOrPercent::Count(rng.random_range(1..5))),
        },
        unreachable: Unreachable {
            then: if rng.random_bool(0.5) {
                UnreachableThen::Skip
            } else {
                UnreachableThen::Wait
            },
            after: Span::seconds(rng.random_range(1..20)),
        },
        gates: gates(rng),
        resolve_tags: *[
            None,
            None,
            Some(ResolveTags::IfReachable),
            Some(ResolveTags::Required),
        ]
        .choose(rng)
        .unwrap(),
        windows: if rng.random_bool(0.2) {
            windows()
        } else {
            Vec::new()
        },
        ..StrategySpec::default()
    }
}
