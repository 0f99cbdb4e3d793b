//! What lies ahead of running containers, and how it changes with rules, annotations and limits.

use super::{
    Container, Course, End, Pod, State, Todo,
    course::scaled,
    step::{Env, Slot},
};
use crate::{
    behaviour::{self, Behaviours},
    clock::Millis,
    truth::{Overflow, simulated, uses},
    usage::Profile,
};
use std::{sync::Arc, time::Duration};

/// Seconds that are looked ahead for a container that wants too much memory.
const AHEAD: f64 = 3600.0;

/// How a run of a container goes, and what is said of its memory.
pub(super) type Conduct = (behaviour::Run, Option<Arc<Profile>>);

impl Pod {
    /// A client has taken a page away that a readiness probe asks for, or has put it back.
    pub(super) fn serve(&mut self, name: &str, serves: bool, env: &Env<'_>) {
        let Some(slot) = self.slots().find(|slot| *self.spec_at(*slot).name == *name) else {
            return;
        };
        let Some(probe) = self.spec_at(slot).readiness_probe.clone() else {
            return;
        };
        if let Todo::Run(course) = &mut self.at_mut(slot).todo {
            course.serve(&probe, serves, env.now, env.scale);
        }
    }

    /// How the running containers behave under these rules, and what they use of memory.
    pub(super) fn runs(&self, behaviours: &Behaviours) -> Vec<(Slot, Conduct)> {
        self.slots()
            .filter(|&slot| matches!(self.at(slot).todo, Todo::Run(_)))
            .map(|slot| (slot, self.conduct(slot, behaviours)))
            .collect()
    }

    fn conduct(&self, slot: Slot, behaviours: &Behaviours) -> Conduct {
        let it = self.at(slot);
        (
            self.behaves(slot, it, it.restarts, behaviours),
            behaviours.memory(&self.subject(slot, it.restarts)),
        )
    }

    /// Gives running containers whose behaviour has changed a new course. One that is ready stays so
    /// until its new course says otherwise.
    pub(super) fn rethink(&mut self, before: &[(Slot, Conduct)], env: &Env<'_>) {
        for (slot, old) in before {
            if self.conduct(*slot, env.behaviours) != *old {
                self.reconsider(*slot, env);
            }
        }
    }

    /// Gives a running container a new course, from what holds now.
    pub(super) fn reconsider(&mut self, slot: Slot, env: &Env<'_>) {
        let State::Running { since } = self.at(slot).state else {
            return;
        };
        if !matches!(self.at(slot).todo, Todo::Run(_)) {
            return;
        }
        let mut course = self.course(slot, self.at(slot), since, env);
        for complaint in &mut course.complaints {
            complaint.next = complaint.next.max(env.now);
        }
        if self.at(slot).ready {
            course.recovered(env.now);
        }
        self.at_mut(slot).todo = Todo::Run(Box::new(course));
    }

    /// The course of a container that has started at `since`: as its behaviour has it, unless it wants more
    /// memory than it may use before that.
    pub(super) fn course(
        &self,
        slot: Slot,
        it: &Container,
        since: Millis,
        env: &Env<'_>,
    ) -> Course {
        let run = self.behaves(slot, it, it.restarts, env.behaviours);
        let mut course = Course::new(
            since,
            self.spec_at(slot),
            self.role_at(slot),
            &run,
            it.program.as_deref(),
            env.scale,
        );
        self.watch_memory(slot, it, since, &mut course, env);
        course
    }

    /// Looks for the time at which a container wants more memory than it may use, for an hour ahead.
    pub(super) fn watch_memory(
        &self,
        slot: Slot,
        it: &Container,
        since: Millis,
        course: &mut Course,
        env: &Env<'_>,
    ) {
        course.look = None;
        let (_, resources) = self.resources(slot);
        let [requests, limits] = resources.bounds();
        let subject = self.subject(slot, it.restarts);
        // What nobody has said anything about stays below what it asks for.
        if limits[1].is_none() || env.behaviours.memory(&subject).is_none() {
            return;
        }
        let time = |at| simulated(env.start, env.scale, at);
        let uses = uses(env.behaviours, time(env.start), &subject, requests, limits);
        // A process takes a moment to grow.
        let from = time(env.now).max(time(since) + 1.0);
        let clock = |at: f64| {
            env.now.plus(scaled(
                Duration::from_secs_f64((at - time(env.now)).max(0.0)),
                env.scale,
            ))
        };
        match uses.overflows(from, from + AHEAD) {
            None => {}
            Some(Overflow::NotUntil(at)) => course.look = Some(clock(at)),
            Some(Overflow::At(at)) => {
                let at = clock(at).max(env.now.plus(Duration::from_millis(1)));
                if course.end.as_ref().is_none_or(|(sooner, _)| at < *sooner) {
                    course.end = Some((at, End::out_of_memory()));
                }
            }
        }
    }
}
