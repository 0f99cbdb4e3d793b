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
/// And of disk: 1 Gi.
const USUAL_DISK: f64 = 1_073_741_824.0;
/// And of network: 10 Mbit/s, in bytes a second.
const USUAL_NETWORK: f64 = 1_250_000.0;
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
    /// Bytes of memory that it may use at most.
    bound: Option<f64>,
}

impl Uses {
    /// Cores and bytes that are used at a simulated time.
    #[must_use]
    pub fn at(&self, time: f64) -> [f64; 2] {
        let [cpu, memory] =
            [0, 1].map(|which: usize| self.profiles[which].at(time, &self.whose[which]));
        [cpu, self.bound.map_or(memory, |bound| memory.min(bound))]
    }

    /// Bytes of memory that it never uses more than.
    #[must_use]
    pub fn most_memory(&self) -> f64 {
        let most = self.profiles[1].most(&self.whose[1]);
        self.bound.map_or(most, |bound| most.min(bound))
    }

    /// When it wants more memory than it may use, looked for between two simulated times: then it is killed.
    /// `None` if it never will, however long one looks.
    #[must_use]
    pub fn overflows(&self, from: f64, until: f64) -> Option<Overflow> {
        let bound = self.bound?;
        if self.profiles[1].most(&self.whose[1]) <= bound {
            return None;
        }
        Some(
            match self.profiles[1].above(bound, from, until, &self.whose[1]) {
                Some(at) => Overflow::At(at),
                None => Overflow::NotUntil(until),
            },
        )
    }

    /// Core-seconds that are used between two simulated times.
    #[must_use]
    pub fn spent(&self, from: f64, to: f64) -> f64 {
        self.profiles[0].between(from, to, &self.whose[0])
    }
}

/// When a container wants too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Overflow {
    /// At that simulated time.
    At(f64),
    /// Not until then.
    NotUntil(f64),
}

/// A simulated time, in seconds since the Unix epoch, where the scenario began at `start` and is `scale`
/// times as fast as the clock.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970, below 2^53"
)]
pub fn simulated(start: Millis, scale: f64, at: Millis) -> f64 {
    let scale = if scale > 0.0 { scale } else { 1.0 };
    start.0 as f64 / 1e3 + (at.0 - start.0) as f64 / 1e3 * scale
}

impl Truth {
    /// A simulated time, in seconds since the Unix epoch: the clock's when the scenario began, and
    /// from then on as fast as the simulation is.
    #[must_use]
    pub fn seconds(&self, at: Millis) -> f64 {
        simulated(self.start, self.scale, at)
    }

    /// What a container uses. Requests and limits are in cores and bytes.
    #[must_use]
    pub fn uses(
        &self,
        subject: &Subject<'_>,
        requests: [Option<f64>; 2],
        limits: [Option<f64>; 2],
    ) -> Uses {
        uses(
            &self.behaviours,
            self.seconds(self.start),
            subject,
            requests,
            limits,
        )
    }

    /// Bytes of disk that a container uses, where somebody has said so: as a function of time.
    #[must_use]
    pub fn disk(
        &self,
        subject: &Subject<'_>,
        request: Option<f64>,
        limit: Option<f64>,
    ) -> Option<(Arc<Profile>, Whose)> {
        let profile = self.behaviours.disk(subject)?;
        let whose = Whose {
            draw: who(&self.behaviours, subject).number(2),
            request: request.or(limit).unwrap_or(USUAL_DISK),
            limit: None,
            start: self.seconds(self.start),
        };
        Some((profile, whose))
    }

    /// Bytes a second that a container makes of the network, where somebody has said so: as a function of time. Shares
    /// are of 10 Mbit/s: nobody requests network.
    #[must_use]
    pub fn network(&self, subject: &Subject<'_>) -> Option<(Arc<Profile>, Whose)> {
        let profile = self.behaviours.network(subject)?;
        let whose = Whose {
            draw: who(&self.behaviours, subject).number(3),
            request: USUAL_NETWORK,
            limit: None,
            start: self.seconds(self.start),
        };
        Some((profile, whose))
    }

    /// What a container prints, if somebody says so.
    #[must_use]
    pub fn prints(&self, subject: &Subject<'_>) -> Option<Arc<Prints>> {
        self.behaviours.prints(subject)
    }
}

fn who(behaviours: &Behaviours, subject: &Subject<'_>) -> Draw {
    Draw::new(behaviours.seed)
        .word("use")
        .word(subject.namespace)
        .word(subject.pod)
        .word(subject.container)
}

/// What a container uses, where the scenario began at `start` (seconds since the Unix epoch). Processors are
/// cut to the limit, as they are throttled; who wants more memory than it may use is killed.
#[must_use]
pub fn uses(
    behaviours: &Behaviours,
    start: f64,
    subject: &Subject<'_>,
    requests: [Option<f64>; 2],
    limits: [Option<f64>; 2],
) -> Uses {
    let who = who(behaviours, subject);
    let told = behaviours.uses(subject);
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
        limit: limits[which].filter(|_| which == 0),
        start,
    });
    Uses {
        profiles,
        whose,
        bound: limits[1],
    }
}
