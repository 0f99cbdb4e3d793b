//! The hub's shell, simulated: API objects, views that may be stale, and the carrying out of actions.

mod act;

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    App, Group, Release, ReleaseStatus, StopLine, release::Doing, strategy::WithinBatch,
};
use gantry_hub::{
    group,
    release::{
        self,
        gate::{Answer, Answers, Ask, Question},
    },
    world::{CellView, Revisions},
};
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::member::{self, Cell, Counter, Seconds, image_number};

pub struct Member {
    pub name: String,
    pub cells: Vec<Cell>,
    /// Since when and until when it cannot be reached.
    pub away_since: Seconds,
    pub away_until: Seconds,
}

/// What lies in API servers: the truth.
pub struct Fleet {
    pub now: Seconds,
    pub members: Vec<Member>,
    pub group: Group,
    pub app: App,
    pub releases: Vec<Release>,
    pub revisions: Revisions,
    pub counter: Counter,
    /// Moves whenever someone presses a button.
    pub pressed: u64,
    pub stopped: Option<String>,
    pub weights: BTreeMap<String, i32>,
    pub strategy: gantry_api::StrategySpec,
    /// Switches that are thrown.
    pub lines: Vec<StopLine>,
    /// What has come up, in words: for a simulation that is to meet everything.
    pub met: BTreeSet<String>,
    /// The Group that promotions come from.
    pub origin: Option<release::promote::Origin>,
    /// What was answered to each question, and whether it agreed.
    pub agreed: BTreeMap<String, bool>,
}

impl Fleet {
    pub fn time(&self) -> Timestamp {
        member::at(self.now)
    }

    /// Cells that the group is placed on.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        let placed = |c: &&Cell| self.weights.contains_key(&c.name);
        self.members.iter().flat_map(|m| &m.cells).filter(placed)
    }

    pub fn images(&self) -> BTreeMap<i64, i64> {
        self.revisions
            .iter()
            .map(|(n, r)| (*n, image_number(&r.spec.image)))
            .collect()
    }

    pub fn bump(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

/// Longer than the hub's own: nothing here takes less than a second.
const PACE: SignedDuration = SignedDuration::from_secs(4);

/// What the hub's process holds in memory: lost when it ends.
#[derive(Default)]
pub struct Memory {
    /// By member: its cells as last seen.
    pub views: BTreeMap<String, Vec<CellView>>,
    pub supported: BTreeMap<String, String>,
    /// What the release's status would tell.
    pub told: release::told::Told,
    /// Answers that have come, and those that are on their way with the time of their coming.
    pub answers: Answers,
    pub asked: BTreeMap<String, (Seconds, Answer)>,
    /// When to look again though nothing has changed.
    pub wake: Option<Timestamp>,
}

/// Why the hub did not get to the end of a step.
#[derive(Debug, PartialEq)]
pub enum Broke {
    Crash,
    Error,
}

/// Which faults there are, as chances per write or look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub crash: f64,
    pub lost_response: f64,
    pub stale: f64,
    /// That what a gate asks does not answer.
    pub silence: f64,
    /// That it does not agree.
    pub disagreement: f64,
}

pub struct Hub<'a> {
    pub fleet: &'a mut Fleet,
    pub memory: &'a mut Memory,
    pub faults: Faults,
    pub rng: &'a mut ChaCha8Rng,
    pub log: &'a mut Log,
    /// What the hub did to instances: for the invariants.
    pub deeds: &'a mut Vec<Deed>,
}

/// What happened, told only when someone listens.
#[derive(Default)]
pub struct Log {
    pub listening: bool,
    pub lines: Vec<String>,
}

impl Log {
    pub fn push(&mut self, line: impl FnOnce() -> String) {
        if self.listening {
            self.lines.push(line());
        }
    }
}

/// Something done to an instance, with what was true at that time.
#[derive(Clone, Debug)]
pub enum Deed {
    TookOut { fresh: bool },
    Touched { name: String, served: bool },
    OutOfStep { name: String },
}

impl Hub<'_> {
    fn look(&mut self) -> (Vec<CellView>, bool) {
        let mut all_fresh = true;
        let fleet = &*self.fleet;
        let mut all = Vec::new();
        for m in &fleet.members {
            let away = m.away_until > fleet.now;
            let known = self.memory.views.contains_key(&m.name);
            if !away && (!known || !self.rng.random_bool(self.faults.stale)) {
                let group = fleet.group.metadata.name.as_deref().unwrap();
                let fresh = m
                    .cells
                    .iter()
                    .filter(|c| fleet.weights.contains_key(&c.name))
                    .map(|c| CellView {
                        name: c.name.clone(),
                        cluster: m.name.clone(),
                        set: c.set_view(),
                        instances: c.instances(group),
                        ..CellView::default()
                    })
                    .collect();
                self.memory.views.insert(m.name.clone(), fresh);
            } else {
                all_fresh &= away;
            }
            let mut cells = self.memory.views.get(&m.name).cloned().unwrap_or_default();
            // A cell that has joined since, or of which nothing has been seen.
            for c in m
                .cells
                .iter()
                .filter(|c| fleet.weights.contains_key(&c.name))
            {
                if cells.iter().all(|seen| seen.name != c.name) {
                    cells.push(CellView {
                        name: c.name.clone(),
                        cluster: m.name.clone(),
                        ..CellView::default()
                    });
                }
            }
            for cell in &mut cells {
                cell.reachable = !away;
                cell.unreachable_since = away.then(|| member::at(m.away_since));
                cell.weight = Some(fleet.weights[&cell.name]);
                cell.stopped.clone_from(&fleet.stopped);
            }
            all.extend(cells);
        }
        (all, all_fresh)
    }

    /// One reconcile of the group.
    pub fn step(&mut self) -> Result<(), Broke> {
        let (mut cells, all_fresh) = self.look();
        group::people::mark(&self.fleet.group, &mut cells);
        let now = self.fleet.time();
        // Until this step is through, there is reason to look again.
        self.memory.wake = Some(now);
        let mut wake = (!all_fresh).then_some(now);
        let releases: Vec<&Release> = self.fleet.releases.iter().collect();
        let governing = release::governing(&releases).and_then(|g| g.metadata.name.clone());
        let mut view = group::ReleaseView::default();
        let mut actions = Vec::new();
        let mut later = None;
        if let Some(name) = &governing {
            for index in 0..self.fleet.releases.len() {
                let other = &self.fleet.releases[index];
                let phase = other.status.as_ref().map(|s| s.phase).unwrap_or_default();
                if other.metadata.name.as_ref() != Some(name) && !phase.is_final() {
                    let status = release::queued(other, name, now);
                    self.write_status(index, status)?;
                }
            }
            let index = self
                .fleet
                .releases
                .iter()
                .position(|r| r.metadata.name.as_ref() == Some(name))
                .unwrap();
            let answers = self.memory.answers.clone();
            let truth = self.fleet.releases[index].clone();
            let seen = self.memory.told.release(&truth).into_owned();
            let world = release::World {
                release: &seen,
                group: Some(&self.fleet.group),
                app: Some(&self.fleet.app),
                strategy: Ok(self.fleet.strategy.clone()),
                revisions: &self.fleet.revisions,
                cells: &cells,
                lines: &self.fleet.lines,
                answers: &answers,
                origin: self.fleet.origin.clone(),
                undoes: false,
            };
            let step = release::settle(&world, now);
            let asks = step.asks;
            wake = wake.into_iter().chain(step.wake).min();
            actions = step.actions;
            view.holds = step.holds;
            view.spared = step.spared;
            view.accepted = step.accepted;
            view.frozen = step.frozen;
            view.aborted = step.status.phase == gantry_api::Phase::Aborted;
            view.referred = step
                .status
                .from
                .iter()
                .chain(&step.status.target)
                .map(|r| r.revision)
                .collect();
            if step.status.phase.is_active() {
                let working = step.status.working.iter().map(|w| w.name.clone());
                view.chosen = working.collect();
                view.max_out = step.status.plan.is_some().then_some(step.status.max_out);
                view.target = if step.status.rollback.is_some() {
                    step.status.from.clone()
                } else {
                    step.status.target.clone()
                };
                if let Some(target) = &mut view.target {
                    target.release.clone_from(&governing);
                }
            }
            match self.memory.told.waits(&truth, &step.status, PACE, now) {
                Some(due) => later = Some((index, truth, step.status, due)),
                None => {
                    let news = truth.status.as_ref() != Some(&step.status);
                    self.write_status(index, step.status)?;
                    self.memory.told.said(news.then_some(now));
                }
            }
            self.memory
                .answers
                .retain(|id, _| !answers.contains_key(id));
            for ask in asks {
                self.ask(ask);
            }
        }
        let members = self
            .fleet
            .members
            .iter()
            .map(|m| {
                (
                    m.name.clone(),
                    group::MemberView {
                        reachable: m.away_until <= self.fleet.now,
                        supported: self.memory.supported.get(&m.name).cloned(),
                        cleaned: false,
                    },
                )
            })
            .collect();
        let world = group::World {
            group: &self.fleet.group,
            app: Some(&self.fleet.app),
            revisions: &self.fleet.revisions,
            cells: &cells,
            members: &members,
            release: view,
            trouble: None,
            held: None,
        };
        let step = group::plan(&world, now);
        for note in &step.status.instances {
            let met = match note.state.as_str() {
                "OutOfService" => "pulled out",
                "Restarting" => "restarted",
                "Going" => "sent away",
                "Gone" => "gone by wish",
                _ => "wish waits",
            };
            self.fleet.met.insert(met.to_owned());
        }
        for cell in &step.status.cells {
            let known = [
                (cell.full.is_some(), "full cell"),
                (cell.lost_since.is_some(), "lost cell"),
            ];
            for (met, word) in known {
                if met {
                    self.fleet.met.insert(word.to_owned());
                }
            }
        }
        let current = step.status.current.as_ref().map(|c| c.revision);
        let in_use = group::revisions_in_use(world.revisions, current, &world.release);
        let desired = step.desired.clone();
        let digests: BTreeMap<String, String> = self
            .fleet
            .members
            .iter()
            .map(|m| {
                (
                    m.name.clone(),
                    group::support_key(&world, &in_use, &m.name, &desired).0,
                )
            })
            .collect();
        if let Some((index, truth, status, due)) = later {
            if step.actions.is_empty() && actions.is_empty() {
                self.fleet.met.insert("told later".to_owned());
                self.memory.told.keep(&truth, status);
                wake = wake.into_iter().chain([due]).min();
            } else {
                self.write_status(index, status)?;
                self.memory.told.said(Some(now));
            }
        }
        for action in step.actions.into_iter().chain(actions) {
            self.apply(action, &digests)?;
        }
        if self.fleet.group.status.as_ref() != Some(&step.status) {
            // Only what the planner has seen changes here: another's write to `current` stands.
            let current = self
                .fleet
                .group
                .status
                .as_ref()
                .and_then(|s| s.current.clone());
            let mut status = step.status;
            if current.is_some() {
                status.current = current;
            }
            self.fleet.group.status = Some(status);
            self.fleet.counter += 1;
        }
        self.memory.wake = wake.into_iter().chain(step.wake).min();
        Ok(())
    }

    /// Puts a question to the world outside: the answer comes after a while.
    fn ask(&mut self, ask: Ask) {
        if self.memory.answers.contains_key(&ask.id) || self.memory.asked.contains_key(&ask.id) {
            return;
        }
        let silent = self.rng.random_bool(self.faults.silence);
        let agrees = !self.rng.random_bool(self.faults.disagreement);
        let number = |n: f64| {
            if silent {
                Err("silence".to_owned())
            } else {
                Ok(n)
            }
        };
        let answer = match &ask.question {
            Question::Metric { baseline, .. } => Answer::Metric {
                value: number(if agrees { 1.0 } else { 9.0 }),
                baseline: baseline.as_ref().map(|_| Ok(1.0)),
            },
            Question::Digest { .. } if silent => Answer::Digest(Err("silence".to_owned())),
            Question::Digest { .. } => Answer::Digest(Ok("sha256:0".to_owned())),
            Question::Webhook { .. } if silent => Answer::Webhook(Err("silence".to_owned())),
            Question::Webhook { .. } => {
                Answer::Webhook(Ok((if agrees { 200 } else { 500 }, String::new())))
            }
        };
        self.log.push(|| format!("  asks {}: {answer:?}", ask.id));
        // A question that is put again after a crash may be answered otherwise: the last one counts.
        self.fleet.agreed.insert(ask.id.clone(), agrees && !silent);
        let comes = self.fleet.now + self.rng.random_range(0..4);
        self.memory.asked.insert(ask.id, (comes, answer));
    }

    fn write_status(&mut self, index: usize, status: ReleaseStatus) -> Result<(), Broke> {
        if self.fleet.releases[index].status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.waves(index, &status);
        self.meet(&status);
        let name = self.fleet.releases[index].metadata.name.clone().unwrap();
        self.log.push(|| {
            format!(
                "  status {}: {:?} {} {}: {}",
                name,
                status
                    .working
                    .iter()
                    .map(|w| format!("{} {:?}", w.name, w.doing))
                    .collect::<Vec<_>>(),
                status.phase.as_str(),
                status.reason,
                status.message
            )
        });
        self.maybe_crash()?;
        self.fleet.releases[index].status = Some(status);
        self.fleet.counter += 1;
        self.respond()
    }

    /// Takes note of what a status tells of.
    fn meet(&mut self, status: &ReleaseStatus) {
        let met = &mut self.fleet.met;
        met.insert(status.reason.clone());
        met.extend(status.gates.iter().map(|g| format!("{:?} gate", g.state)));
        let lock_step = status
            .plan
            .as_ref()
            .is_some_and(|p| p.strategy.within_batch == WithinBatch::LockStep);
        for (what, holds) in [
            ("override", !status.overrides.is_empty()),
            ("skipped cell", !status.skipped_cells.is_empty()),
            (
                "back batch by batch",
                status.rollback.as_ref().is_some_and(|r| r.batch > 0),
            ),
            (
                "resolved tag",
                status.images.iter().any(|i| i.resolved.is_some()),
            ),
            (
                "kept tag",
                status.images.iter().any(|i| i.resolved.is_none()),
            ),
            ("wave", lock_step && status.working.len() > 1),
        ] {
            if holds {
                met.insert(what.to_owned());
            }
        }
    }

    /// In lock-step nobody is chosen while others are under way: told by what is written down.
    fn waves(&mut self, index: usize, status: &ReleaseStatus) {
        let seen = self.memory.told.release(&self.fleet.releases[index]);
        let before = seen.status.clone().unwrap_or_default();
        let lock_step = status
            .plan
            .as_ref()
            .is_some_and(|p| p.strategy.within_batch == WithinBatch::LockStep);
        let skipped = |cell: &str| status.skipped_cells.iter().any(|s| s.cell == cell);
        let turned = before.rollback.is_none() && status.rollback.is_some();
        let same_batch = |s: &ReleaseStatus| s.working.iter().map(|w| w.batch).max();
        // The wave may have ended, and the next begun, with one write.
        let views = self.memory.views.values().flatten();
        let seen_back: BTreeSet<&str> = views
            .flat_map(|c| c.instances.values())
            .filter(|i| i.in_service())
            .map(|i| i.name.as_str())
            .filter(|name| status.working.iter().all(|w| w.name != *name))
            .collect();
        let under_way = before.working.iter().any(|w| {
            w.doing != Doing::Failed && !skipped(&w.cell) && !seen_back.contains(w.name.as_str())
        });
        if !lock_step || !under_way || turned || same_batch(&before) != same_batch(status) {
            return;
        }
        let group = self.fleet.group.metadata.name.clone().unwrap();
        let serving: BTreeSet<String> = self
            .fleet
            .cells()
            .flat_map(|c| c.instances(&group).into_values())
            .filter(gantry_hub::world::Instance::in_service)
            .map(|i| i.name)
            .collect();
        for w in &status.working {
            let known = before.working.iter().any(|b| b.name == w.name);
            if w.doing == Doing::Draining && !known && serving.contains(&w.name) {
                self.deeds.push(Deed::OutOfStep {
                    name: w.name.clone(),
                });
            }
        }
    }

    fn maybe_crash(&mut self) -> Result<(), Broke> {
        if self.rng.random_bool(self.faults.crash) {
            self.log.push(|| "  the hub ends here".to_owned());
            return Err(Broke::Crash);
        }
        Ok(())
    }

    fn respond(&mut self) -> Result<(), Broke> {
        if self.rng.random_bool(self.faults.lost_response) {
            self.log.push(|| "  the response is lost".to_owned());
            return Err(Broke::Error);
        }
        Ok(())
    }
}

/// Names of the cells of the fleet.
pub fn cell_names(fleet: &Fleet) -> BTreeSet<String> {
    fleet.cells().map(|c| c.name.clone()).collect()
}
