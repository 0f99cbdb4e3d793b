//! What is true of a simulation, for all who tell of it: kubelets, the metrics server, evictions.
//!
//! Usage is decided here alone, so that `kubectl top`, autoscalers, Prometheus and the order in which a
//! node evicts pods all go by the same.

use crate::{
    behaviour::{Behaviours, Draw, Prints, Subject},
    clock::{Clock, Millis},
    usage::{Level, Profile, Whose},
};
use std::sync::Arc;

/// What is taken for the request of a container that asks for nothing: a tenth of a core, 64 Mi.
const USUAL: [f64; 2] = [0.1, 67_108_864.0];
/// How much the usage of a container strays that nobody has said anything about.
const NOISE: f64 = 0.1;

/// What is true of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// How containers behave.
    pub behaviours: Arc<Behaviours>,
    /// What time it is.
    pub clock: Clock,
    /// When the scenario began.
    pub start: Millis,
    /// How many simulated seconds pass in one of the clock's; 0 stands for 1.
    pub scale: f64,
}

/// Usage of a container, as functions of time.
#[derive(Clone, Debug)]
pub struct Uses {
    profiles: [Arc<Profile>; 2],
    whose: [Whose; 2],
}

impl Uses {
    /// Cores and bytes that are used at a simulated time.
    #[must_use]
    pub fn at(&self, time: f64) -> [f64; 2] {
        [0, 1].map(|which: usize| self.profiles[which].at(time, &self.whose[which]))
    }

    /// Core-seconds that are used between two simulated times.
    #[must_use]
    pub fn spent(&self, from: f64, to: f64) -> f64 {
        self.profiles[0].between(from, to, &self.whose[0])
    }
}

impl Truth {
    /// A simulated time, in seconds since the Unix epoch: the clock's when the scenario began, and
    /// from then on as fast as the simulation is.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds since 1970, below 2^53"
    )]
    pub fn seconds(&self, at: Millis) -> f64 {
        let scale = if self.scale > 0.0 { self.scale } else { 1.0 };
        self.start.0 as f64 / 1e3 + (at.0 - self.start.0) as f64 / 1e3 * scale
    }

    /// What a container uses. Requests and limits are in cores and bytes.
    #[must_use]
    pub fn uses(
        &self,
        subject: &Subject<'_>,
        requests: [Option<f64>; 2],
        limits: [Option<f64>; 2],
    ) -> Uses {
        let who = Draw::new(self.behaviours.seed)
            .word("use")
            .word(subject.namespace)
            .word(subject.pod)
            .word(subject.container);
        let told = self.behaviours.uses(subject);
        let mut names = ["cpu", "memory"].into_iter();
        let profiles = told.map(|told| {
            let draw = who.word(names.next().unwrap_or_default());
            told.unwrap_or_else(|| {
                Arc::new(Profile {
                    noise: NOISE,
                    ..Profile::constant(Level::Share(0.3 + 0.4 * draw.unit()))
                })
            })
        });
        let whose = [0, 1].map(|which: usize| Whose {
            draw: who.number(which as u64),
            request: requests[which].or(limits[which]).unwrap_or(USUAL[which]),
            limit: limits[which],
            start: self.seconds(self.start),
        });
        Uses { profiles, whose }
    }

    /// What a container prints, if somebody says so.
    #[must_use]
    pub fn prints(&self, subject: &Subject<'_>) -> Option<Arc<Prints>> {
        self.behaviours.prints(subject)
    }
}
