//! What people do, and what the weather does.

use super::super::{
    hub::cell_names,
    member::{Cell, at},
};
use super::{LATE, Run, drawn::emergency};
use gantry_api::{
    CountOrPercent, Release, ReleaseSpec, RevisionChange, Span, StopLine, StopLineSpec,
    gate::Verdict,
    group::InstanceWish,
    release::{IfBusy, Pace, Phase},
    stop_line::StopKind,
    strategy::RollbackPace,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rand::{Rng, seq::IndexedRandom};

impl Run {
    pub(super) fn release(&mut self) {
        let number = self.fleet.releases.len() as i64 + 2;
        let mut change = RevisionChange {
            image: Some(super::super::member::image(number)),
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
    pub(super) fn accept(&mut self) {
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

    pub(super) fn press(&mut self) {
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
    pub(super) fn crowd(&mut self) {
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
    pub(super) fn wish(&mut self) {
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
    pub(super) fn throw(&mut self) {
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

    pub(super) fn weather(&mut self) {
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
