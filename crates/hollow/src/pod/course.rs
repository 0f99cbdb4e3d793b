//! The course of one run of a container: when its probes pass and fail, and when it ends.
//!
//! A simulated application's health is a function of time, so nothing needs to probe it: the instant
//! at which a probe, ticking as the spec says, would change its mind is computed once. A pod costs
//! a timer per change, not one per probe.

use super::Program;
use crate::{
    behaviour::{self, Role},
    clock::Millis,
    object::{ContainerSpec, Probe},
};
use std::{sync::Arc, time::Duration};

/// What lies ahead of a running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// When its startup probe passes; its start if it has none; `None`: never.
    pub started: Option<Millis>,
    /// When it becomes ready; `None`: never.
    pub ready: Option<Millis>,
    /// When its readiness probe gives up on it.
    pub unready: Option<Millis>,
    /// Times out of service that it comes back from.
    pub lapses: Option<Lapses>,
    /// How it ends, if nobody stops it.
    pub end: Option<(Millis, End)>,
    /// Failing probes that are told about in events.
    pub complaints: Vec<Complaint>,
    /// When it is looked again whether it will want more memory than it may use.
    pub look: Option<Millis>,
    /// When its pod is evicted for what it wrote, and why.
    pub overdrawn: Option<(Millis, Arc<str>)>,
}

/// Times out of service, as its readiness probe sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapses {
    /// When the next begins.
    from: Millis,
    lasts: Duration,
    every: Option<Duration>,
    /// From the beginning until the probe gives up, and from the end until it believes in it again.
    late: (Duration, Duration),
}

/// How a container ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Exit {
        /// With this code.
        code: i32,
        /// `terminated.reason`, if not the usual one.
        reason: Option<Arc<str>>,
        /// `terminated.message`.
        message: Option<Arc<str>>,
    },
    /// Its startup or liveness probe has failed too often.
    Probe(ProbeKind),
}

impl End {
    /// The kernel ends it, since it wants more memory than it may use.
    #[must_use]
    pub fn out_of_memory() -> Self {
        Self::Exit {
            code: 137,
            reason: Some("OOMKilled".into()),
            message: None,
        }
    }
}

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Holds the others back until it passes.
    Startup,
    /// Takes the container out of service.
    Readiness,
    /// Restarts the container.
    Liveness,
}

impl ProbeKind {
    /// As the kubelet's messages begin.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// A probe that fails for a while, told about at its first failure and then after ever longer gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Which probe.
    pub probe: ProbeKind,
    /// What it says.
    pub message: Arc<str>,
    /// When it is told about next.
    pub next: Millis,
    /// The gap after that.
    pub gap: Duration,
    /// When it passes again.
    pub until: Option<Millis>,
}

/// Gaps between two events about the same failing probe grow to this and no further.
const LONGEST_GAP: Duration = Duration::from_secs(300);

/// Ticks of a probe.
struct Ticks {
    first: Millis,
    period: Duration,
}

impl Ticks {
    fn new(probe: &Probe, since: Millis, earliest: Millis, scale: f64) -> Self {
        let first = since
            .plus(seconds(probe.initial_delay_seconds, scale))
            .max(earliest);
        Self {
            first,
            period: seconds(probe.period_seconds.max(1), scale).max(Duration::from_millis(1)),
        }
    }

    fn at(&self, index: u32) -> Millis {
        self.first.plus(self.period.saturating_mul(index))
    }

    /// Index of the first tick at or after `at`.
    fn index(&self, at: Millis) -> u32 {
        let periods = at
            .since(self.first)
            .as_millis()
            .div_ceil(self.period.as_millis().max(1));
        u32::try_from(periods).unwrap_or(u32::MAX)
    }
}

/// A number of seconds in simulated time that runs `scale` times as fast as the clock.
#[must_use]
pub fn seconds(seconds: u32, scale: f64) -> Duration {
    scaled(Duration::from_secs(u64::from(seconds)), scale)
}

/// A duration in simulated time that runs `scale` times as fast as the clock.
#[must_use]
pub fn scaled(duration: Duration, scale: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() / scale).unwrap_or(Duration::MAX)
}

impl Course {
    /// The course of a container that starts at `since`.
    #[must_use]
    pub fn new(
        since: Millis,
        spec: &ContainerSpec,
        role: Role,
        run: &behaviour::Run,
        program: Option<&Program>,
        scale: f64,
    ) -> Self {
        let after = |duration: Duration| since.plus(scaled(duration, scale));
        let answers = run.ready.map(after);
        let hangs = run.hang.map(after);
        // A probe that looks at the program's files knows better.
        let found = |probe: ProbeKind| match program.and_then(|it| it.health(probe)) {
            Some(health) => (
                health.from.map(after),
                health
                    .until
                    .map(after)
                    .or(health.from.is_none().then_some(since)),
            ),
            None => (answers, hangs),
        };
        let mut complaints = Vec::new();
        let mut complain = |probe: ProbeKind,
                            wire: Option<&Probe>,
                            ticks: Option<&Ticks>,
                            next: Millis,
                            until: Option<Millis>| {
            if until.is_none_or(|until| next < until) {
                complaints.push(Complaint {
                    probe,
                    message: message(run.message.as_ref(), wire),
                    next,
                    gap: ticks.map_or(seconds(10, scale), |ticks| ticks.period),
                    until,
                });
            }
        };

        // An init container has no probes; it is started and ready by ending well.
        let probed = role != Role::Init;
        let mut end = run.exit.as_ref().map(|exit| {
            let how = End::Exit {
                code: exit.code,
                reason: exit.reason.clone(),
                message: exit.message.clone(),
            };
            (after(exit.after), how)
        });
        let mut killed = |at: Millis, probe: ProbeKind| {
            if end.as_ref().is_none_or(|(sooner, _)| at < *sooner) {
                end = Some((at, End::Probe(probe)));
            }
        };

        let started = match spec.startup_probe.as_ref().filter(|_| probed) {
            None => Some(since),
            Some(probe) => {
                let ticks = Ticks::new(probe, since, since, scale);
                let (answers, _) = found(ProbeKind::Startup);
                let passes = answers
                    .map(|answers| ticks.index(answers))
                    .filter(|&index| index < probe.failure_threshold);
                if passes.is_none() {
                    killed(
                        ticks.at(probe.failure_threshold.saturating_sub(1)),
                        ProbeKind::Startup,
                    );
                }
                let at = passes.map(|index| ticks.at(index));
                complain(
                    ProbeKind::Startup,
                    Some(probe),
                    Some(&ticks),
                    ticks.first,
                    at,
                );
                at
            }
        };

        let mut ready = None;
        let mut unready = None;
        if let (Some(started), true) = (started, probed) {
            match spec.readiness_probe.as_ref() {
                // Without a probe a container is ready as soon as it runs, and one report says both. Only
                // where somebody has said when the application answers does it wait for that, so that a
                // release can be held up by any image.
                None if !run.ready_told => ready = Some(started),
                None => {
                    ready = answers.map(|answers| answers.max(started));
                    if answers.is_none() {
                        complain(ProbeKind::Readiness, None, None, started, None);
                    }
                }
                Some(probe) => {
                    let ticks = Ticks::new(probe, since, started, scale);
                    let (answers, hangs) = found(ProbeKind::Readiness);
                    let hangs = hangs.filter(|_| answers.is_some());
                    ready = answers.map(|answers| {
                        ticks.at(ticks
                            .index(answers)
                            .saturating_add(probe.success_threshold.saturating_sub(1)))
                    });
                    complain(
                        ProbeKind::Readiness,
                        Some(probe),
                        Some(&ticks),
                        ticks.first,
                        answers,
                    );
                    if let Some(hangs) = hangs {
                        let first = ticks.index(hangs);
                        unready =
                            Some(ticks.at(
                                first.saturating_add(probe.failure_threshold.saturating_sub(1)),
                            ));
                        complain(
                            ProbeKind::Readiness,
                            Some(probe),
                            Some(&ticks),
                            ticks.at(first),
                            None,
                        );
                        if ready.is_some_and(|ready| ready >= ticks.at(first)) {
                            ready = None;
                        }
                    }
                }
            }
            let (_, hangs) = found(ProbeKind::Liveness);
            if let (Some(probe), Some(hangs)) = (spec.liveness_probe.as_ref(), hangs) {
                let ticks = Ticks::new(probe, since, started, scale);
                let first = ticks.index(hangs);
                complain(
                    ProbeKind::Liveness,
                    Some(probe),
                    Some(&ticks),
                    ticks.at(first),
                    None,
                );
                killed(
                    ticks.at(first.saturating_add(probe.failure_threshold.saturating_sub(1))),
                    ProbeKind::Liveness,
                );
            }
        }
        let mut course = Self {
            started: started.filter(|_| probed),
            ready,
            unready,
            lapses: None,
            end,
            complaints,
            look: None,
            overdrawn: program
                .and_then(|it| it.overdrawn.clone())
                .map(|(at, why)| (after(looked_at(at)), why)),
        };
        if let (Some(out), Some(ready)) = (&run.lapse, ready) {
            let probe = spec.readiness_probe.as_ref();
            let period = probe.map_or(Duration::ZERO, |it| {
                seconds(it.period_seconds.max(1), scale)
            });
            let wait = |times: u32| period.saturating_mul(times);
            course.lapses = Some(Lapses {
                from: after(out.after).max(ready),
                lasts: scaled(out.lasts, scale),
                every: out.every.map(|it| scaled(it, scale)),
                late: probe.map_or((Duration::ZERO, Duration::ZERO), |it| {
                    (wait(it.failure_threshold), wait(it.success_threshold))
                }),
            });
        }
        course
    }

    /// From now on the readiness probe finds what it asks for, or does not.
    pub fn serve(&mut self, probe: &Probe, serves: bool, now: Millis, scale: f64) {
        let period = seconds(probe.period_seconds.max(1), scale).max(Duration::from_millis(1));
        let times = |count: u32| now.plus(period.saturating_mul(count.max(1)));
        self.complaints
            .retain(|it| it.probe != ProbeKind::Readiness);
        self.lapses = None;
        if serves {
            (self.ready, self.unready) = (Some(times(probe.success_threshold)), None);
        } else {
            (self.ready, self.unready) = (None, Some(times(probe.failure_threshold)));
            self.complaints.push(Complaint {
                probe: ProbeKind::Readiness,
                message: "HTTP probe failed with statuscode: 404".into(),
                next: times(1),
                gap: period,
                until: None,
            });
        }
    }

    /// It is out of service: for good, or until the lapse is over.
    pub fn lapsed(&mut self) {
        let back = self.unready.take().and_then(|at| {
            let it = self.lapses.as_mut()?;
            // A probe that gave up for another reason does not come back.
            let begun = it.from.plus(it.late.0);
            if begun != at {
                return None;
            }
            let back = it.from.plus(it.lasts).plus(it.late.1);
            match it.every {
                Some(every) => it.from = it.from.plus(every.max(Duration::from_millis(1))),
                None => self.lapses = None,
            }
            Some(back)
        });
        self.ready = back;
    }

    /// It is in service: until the next lapse that its probe notices.
    pub fn recovered(&mut self, now: Millis) {
        let Some(it) = &mut self.lapses else {
            return;
        };
        if it.lasts < it.late.0 {
            self.lapses = None;
            return;
        }
        if let (Some(every), true) = (it.every, it.from < now) {
            // After a while in which nobody looked, the ones that have been are left out.
            let step = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
            let behind = now.0.saturating_sub(it.from.0);
            it.from = Millis(it.from.0 + (behind + step - 1) / step * step);
        }
        let at = it.from.plus(it.late.0);
        if self.unready.is_none_or(|unready| at < unready) && at > now {
            self.unready = Some(at);
        }
    }

    /// The next instant at which something happens, after what has been taken care of.
    #[must_use]
    pub fn next(&self, is_started: bool, is_ready: bool) -> Option<Millis> {
        let times = [
            self.started.filter(|_| !is_started),
            self.ready.filter(|_| !is_ready),
            self.unready,
            self.end.as_ref().map(|(at, _)| *at),
            self.look,
            self.overdrawn.as_ref().map(|(at, _)| *at),
        ];
        times
            .into_iter()
            .flatten()
            .chain(self.complaints.iter().map(|it| it.next))
            .min()
    }

    /// Probes that are to be told about at `now`; moves each on to its next time.
    pub fn complain(&mut self, now: Millis) -> Vec<(ProbeKind, Arc<str>)> {
        let mut due = Vec::new();
        self.complaints.retain_mut(|it| {
            if it.next <= now {
                due.push((it.probe, it.message.clone()));
                it.next = now.plus(it.gap);
                it.gap = it.gap.saturating_mul(2).min(LONGEST_GAP);
            }
            it.until.is_none_or(|until| it.next < until)
        });
        due
    }
}

/// When the kubelet sees what has come to pass: it looks every ten seconds.
fn looked_at(time: Duration) -> Duration {
    const BETWEEN: u64 = 10;
    Duration::from_secs((time.as_secs() / BETWEEN + 1) * BETWEEN)
}

/// What a failing probe says, in the kubelet's words unless the behaviour has its own.
fn message(own: Option<&Arc<str>>, probe: Option<&Probe>) -> Arc<str> {
    match (own, probe) {
        (Some(own), _) => own.clone(),
        (
            None,
            Some(Probe {
                http_get: Some(_), ..
            }),
        ) => "HTTP probe failed with statuscode: 503".into(),
        (None, _) => "the simulated application does not answer".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn probe(initial: u32, period: u32, success: u32, failure: u32) -> Option<Probe> {
        Some(Probe {
            initial_delay_seconds: initial,
            period_seconds: period,
            success_threshold: success,
            failure_threshold: failure,
            http_get: None,
            exec: None,
            grpc: None,
        })
    }

    fn run(ready: Option<u64>, hang: Option<u64>, exit: Option<u64>) -> behaviour::Run {
        behaviour::Run {
            start: Duration::ZERO,
            start_error: None,
            ready: ready.map(Duration::from_secs),
            ready_told: true,
            message: None,
            exit: exit.map(|after| behaviour::Exit {
                after: Duration::from_secs(after),
                code: 1,
                reason: None,
                message: None,
            }),
            told: exit.is_some(),
            hang: hang.map(Duration::from_secs),
            lapse: None,
            stop: Duration::ZERO,
        }
    }

    /// Seconds at which (started, ready, unready, end) come.
    type Times = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);

    #[rstest]
    #[case::no_probes(None, None, None, run(Some(2), None, None), (Some(0), Some(2), None, None))]
    #[case::never_ready(None, None, None, run(None, None, None), (Some(0), None, None, None))]
    #[case::readiness_waits_for_its_tick(None, probe(3, 5, 1, 3), None, run(Some(4), None, None), (Some(0), Some(8), None, None))]
    #[case::readiness_at_its_first_tick(None, probe(3, 5, 1, 3), None, run(Some(1), None, None), (Some(0), Some(3), None, None))]
    #[case::two_successes(None, probe(0, 5, 2, 3), None, run(Some(0), None, None), (Some(0), Some(5), None, None))]
    #[case::startup_holds_readiness_back(probe(0, 10, 1, 3), probe(0, 5, 1, 3), None, run(Some(12), None, None), (Some(20), Some(20), None, None))]
    #[case::startup_gives_up(probe(5, 10, 1, 3), None, None, run(Some(60), None, None), (None, None, None, Some(25)))]
    #[case::startup_passes_at_the_last_tick(probe(5, 10, 1, 3), None, None, run(Some(25), None, None), (Some(25), Some(25), None, None))]
    #[case::hang_takes_out_of_service(None, probe(0, 5, 1, 2), None, run(Some(0), Some(11), None), (Some(0), Some(0), Some(20), None))]
    #[case::hang_restarts(None, None, probe(0, 10, 1, 3), run(Some(0), Some(15), None), (Some(0), Some(0), None, Some(40)))]
    #[case::exit_before_liveness(None, None, probe(0, 10, 1, 3), run(Some(0), Some(15), Some(30)), (Some(0), Some(0), None, Some(30)))]
    fn courses(
        #[case] startup: Option<Probe>,
        #[case] readiness: Option<Probe>,
        #[case] liveness: Option<Probe>,
        #[case] run: behaviour::Run,
        #[case] times: Times,
    ) {
        let spec = ContainerSpec {
            startup_probe: startup,
            readiness_probe: readiness,
            liveness_probe: liveness,
            ..ContainerSpec::default()
        };
        let course = Course::new(Millis(0), &spec, Role::Service, &run, None, 1.0);
        let secs = |at: Option<Millis>| at.map(|at| at.0 / 1000);
        let end = course.end.as_ref().map(|(at, _)| *at);
        assert_eq!(
            (
                secs(course.started),
                secs(course.ready),
                secs(course.unready),
                secs(end)
            ),
            times
        );
        let fast = Course::new(Millis(0), &spec, Role::Service, &run, None, 10.0);
        assert_eq!(
            fast.ready.map(|at| at.0 * 10),
            course.ready.map(|at| at.0),
            "time runs ten times as fast"
        );
    }

    #[test]
    fn a_lapse_takes_out_of_service_and_back() {
        let spec = ContainerSpec {
            readiness_probe: probe(0, 5, 1, 2),
            ..ContainerSpec::default()
        };
        let lapse = |lasts, every| behaviour::Run {
            lapse: Some(behaviour::Out {
                after: Duration::from_secs(60),
                lasts: Duration::from_secs(lasts),
                every,
            }),
            ..run(Some(0), None, None)
        };
        let changes = |run: &behaviour::Run| {
            let mut course = Course::new(Millis(0), &spec, Role::Service, run, None, 1.0);
            let (mut ready, mut seen) = (false, vec![]);
            while let Some(at) = course.next(true, ready).filter(|at| at.0 < 300_000) {
                course.complain(at);
                if course.unready.is_some_and(|it| it <= at) {
                    ready = false;
                    course.lapsed();
                    seen.push((at.0 / 1000, ready));
                } else if !ready && course.ready.is_some_and(|it| it <= at) {
                    ready = true;
                    course.recovered(at);
                    seen.push((at.0 / 1000, ready));
                }
            }
            seen
        };
        assert_eq!(
            changes(&lapse(30, None)),
            [(0, true), (70, false), (95, true)]
        );
        assert_eq!(
            changes(&lapse(5, None)),
            [(0, true)],
            "over before two probes have failed"
        );
        let often = changes(&lapse(20, Some(Duration::from_secs(100))));
        let wanted = [
            (0, true),
            (70, false),
            (85, true),
            (170, false),
            (185, true),
            (270, false),
            (285, true),
        ];
        assert_eq!(often, wanted);
    }

    #[test]
    fn a_failing_probe_is_told_about_ever_more_seldom() {
        let spec = ContainerSpec {
            readiness_probe: probe(0, 10, 1, 3),
            ..ContainerSpec::default()
        };
        let mut course = Course::new(
            Millis(0),
            &spec,
            Role::Service,
            &run(None, None, None),
            None,
            1.0,
        );
        let mut told = Vec::new();
        while let Some(at) = course.next(true, false).filter(|at| at.0 < 2_000_000) {
            told.extend(course.complain(at).into_iter().map(|_| at.0 / 1000));
        }
        assert_eq!(told, [0, 10, 30, 70, 150, 310, 610, 910, 1210, 1510, 1810]);
    }
}
