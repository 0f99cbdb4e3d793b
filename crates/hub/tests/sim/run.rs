//! One run: a group of random size and strategy, a release or two, faults, buttons, and the end.

mod drawn;
mod people;

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    App, AppSpec, CountOrPercent, Group, GroupSpec, RevisionSpec, Span,
    group::{Availability, CellShare, LostCell, Overflow, Placement},
    release::Phase,
    strategy::ResolveTags,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use drawn::{emergency, strategy};

use super::{
    hub::{Broke, Deed, Faults, Fleet, Hub, Log, Member, Memory},
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
}

/// The cell that a group is placed on only later.
const LATE: &str = "m0-late";
