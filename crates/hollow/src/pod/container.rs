//! One container's way: pull, start, run, end, and again after a back-off.
//!
//! Words and periods are the kubelet's (`pkg/kubelet/kuberuntime`, `pkg/kubelet/images`): the first
//! restart is immediate, the next waits 10 s from the end of the run before, each after that twice as
//! long up to 5 min, and a run of 10 min forgives everything. Failed pulls wait alike.

use super::{
    End, Pod, Sandbox, State, Terminated, Todo,
    conditions::init_passed,
    course::{scaled, seconds},
    step::{Env, KILLED, Outcome, Slot},
};
use crate::{
    behaviour::{Draw, Role},
    clock::Millis,
    object::{PullPolicy, RestartPolicy},
};
use std::{sync::Arc, time::Duration};

const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// ErrImagePull shows for so long before it is called a back-off: about a sync of the kubelet.
const ERROR_SHOWS: Duration = Duration::from_secs(2);

/// The wait before the `nth` try in a row, the first being 1.
fn backoff(nth: u32, scale: f64) -> Duration {
    let wait = FIRST_BACKOFF
        .saturating_mul(1u32 << nth.saturating_sub(1).min(10))
        .min(LONGEST_BACKOFF);
    // Never nothing: however fast the simulated time, a loop takes some of the real one.
    scaled(wait, scale).max(Duration::from_millis(1))
}

/// The wait after the `crashes`th end in a row; none after the first.
pub(super) fn crash_backoff(crashes: u32, scale: f64) -> Duration {
    if crashes <= 1 {
        Duration::ZERO
    } else {
        backoff(crashes - 1, scale)
    }
}

impl Pod {
    /// Moves one container on, if something is due; whether it moved.
    pub(super) fn advance_container(
        &mut self,
        slot: Slot,
        env: &mut Env<'_>,
        out: &mut Outcome,
    ) -> bool {
        let now = env.now;
        match &mut self.at_mut(slot).todo {
            Todo::Done => false,
            Todo::Begin => self.begin(slot, env, out),
            Todo::CrashBackoff { until } if *until <= now => {
                self.pull(slot, env, out);
                true
            }
            Todo::Pull {
                until,
                since,
                error,
            } if *until <= now => {
                let (since, error) = (*since, error.take());
                self.pulled(slot, since, error, env, out);
                true
            }
            Todo::PullBackoff { until, .. } if *until <= now => {
                self.pull(slot, env, out);
                true
            }
            Todo::PullBackoff { tell, error, .. } if tell.is_some_and(|at| at <= now) => {
                *tell = None;
                let error = error.clone();
                self.tell_pull_backoff(slot, &error, out);
                true
            }
            Todo::Start { until, error } if *until <= now => {
                let error = error.take();
                self.started(slot, error, env, out);
                true
            }
            Todo::Hook { until, code } if *until <= now => {
                let code = *code;
                self.hooked(slot, code, env, out);
                true
            }
            Todo::Stop { until, code, again } if *until <= now => {
                let (code, again) = (*code, *again);
                self.ended(slot, code, None, None, again.then_some(true), env, out);
                true
            }
            Todo::Run(_) => self.run_on(slot, env, out),
            _ => false,
        }
    }

    fn turn(&self, slot: Slot) -> bool {
        if self.sandbox != Sandbox::Ready || self.killing {
            return false;
        }
        let before = match slot {
            Slot::Init(index) => index,
            Slot::Main(_) if !self.anew && self.main.iter().any(|it| it.created) => 0,
            Slot::Main(_) => self.init.len(),
        };
        self.spec
            .init_containers
            .iter()
            .zip(&self.init)
            .take(before)
            .all(|(spec, it)| init_passed(spec, it))
    }

    fn begin(&mut self, slot: Slot, env: &mut Env<'_>, out: &mut Outcome) -> bool {
        if !self.turn(slot) {
            return false;
        }
        if let State::Terminated(end) = &self.at(slot).state {
            let wait = crash_backoff(self.at(slot).crashes, env.scale);
            let until = end.finished.plus(wait);
            if until > env.now {
                self.crash_loop(slot, until, out);
                return true;
            }
        }
        self.pull(slot, env, out);
        true
    }

    fn crash_loop(&mut self, slot: Slot, until: Millis, out: &mut Outcome) {
        let shown = crash_backoff(self.at(slot).crashes, 1.0);
        let (name, id) = (self.spec_at(slot).name.clone(), &self.id);
        let pod = format!("{}_{}({})", id.name, id.namespace, id.uid);
        let message = format!(
            "back-off {} restarting failed container={name} pod={pod}",
            go_duration(shown)
        );
        let told = format!("Back-off restarting failed container {name} in pod {pod}");
        self.wait(slot, "CrashLoopBackOff", Some(message.into()));
        self.at_mut(slot).todo = Todo::CrashBackoff { until };
        self.tell(out, slot, true, "BackOff", told);
        out.changed = true;
    }

    /// Shows the container waiting; how it ended becomes its last state.
    pub(super) fn wait(&mut self, slot: Slot, reason: &'static str, message: Option<Arc<str>>) {
        let it = self.at_mut(slot);
        if let State::Terminated(end) =
            std::mem::replace(&mut it.state, State::Waiting { reason, message })
        {
            it.last = Some(end);
        }
    }

    fn pull(&mut self, slot: Slot, env: &mut Env<'_>, out: &mut Outcome) {
        let image = self.spec_at(slot).image.clone();
        let policy = self.spec_at(slot).image_pull_policy;
        let there = env.images.get(&image);
        if policy != PullPolicy::Always && there.is_some_and(|at| at <= env.now) {
            let told = format!(
                "Container image \"{image}\" already present on machine and can be accessed by the pod"
            );
            self.tell(out, slot, false, "Pulled", told);
            self.at_mut(slot).pull_failures = 0;
            self.start(slot, env);
            return;
        }
        if policy == PullPolicy::Never {
            let error =
                format!("Container image \"{image}\" is not present with pull policy of Never");
            self.tell(out, slot, true, "ErrImageNeverPull", error.clone());
            self.wait(slot, "ErrImageNeverPull", Some(error.as_str().into()));
            self.pull_back_off(slot, None, error.into(), env);
            out.changed = true;
            return;
        }
        let pull = env
            .behaviours
            .pull(&self.subject(slot, self.at(slot).restarts));
        let fetched = match (&pull.error, there) {
            (None, None) => env.behaviours.fetch(
                &self.subject(slot, self.at(slot).restarts),
                self.at(slot).pull_failures,
                env.images,
                env.traffic,
                env.now,
                env.scale,
            ),
            _ => None,
        };
        if let Some(planned) = fetched {
            self.begin_pull(slot, planned.until, planned.error, env.now, out);
            return;
        }
        // The registry's troubles are everybody's.
        let error = env.traffic.down.clone().or(pull.error);
        let takes = scaled(pull.time, env.scale).mul_f64(env.traffic.slower.max(0.0));
        let fresh = env.now.plus(takes);
        let until = match there {
            // Only the manifest is asked for.
            Some(at) if at <= env.now => env.now.plus(takes / 8),
            Some(coming) => coming,
            None => fresh,
        };
        if there.is_none() && error.is_none() {
            env.images.put(image, until);
        }
        self.begin_pull(slot, until, error, env.now, out);
    }

    fn begin_pull(
        &mut self,
        slot: Slot,
        until: Millis,
        error: Option<Arc<str>>,
        since: Millis,
        out: &mut Outcome,
    ) {
        let image = &self.spec_at(slot).image;
        let told = format!("Pulling image \"{image}\"");
        self.tell(out, slot, false, "Pulling", told);
        self.at_mut(slot).todo = Todo::Pull {
            until,
            since,
            error,
        };
    }

    fn pulled(
        &mut self,
        slot: Slot,
        since: Millis,
        error: Option<Arc<str>>,
        env: &mut Env<'_>,
        out: &mut Outcome,
    ) {
        let image = self.spec_at(slot).image.clone();
        let Some(error) = error else {
            let took = go_duration(env.now.since(since));
            let known = env.behaviours.images.find(&image).map(|it| it.size);
            let size = known.unwrap_or_else(|| {
                20_000_000 + Draw::new(0).word("size").word(&image).bits() % 180_000_000
            });
            let told = format!(
                "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {size} bytes."
            );
            self.tell(out, slot, false, "Pulled", told);
            self.at_mut(slot).pull_failures = 0;
            self.start(slot, env);
            return;
        };
        let error: Arc<str> =
            format!("failed to pull and unpack image \"{image}\": {error}").into();
        self.tell(
            out,
            slot,
            true,
            "Failed",
            format!("Failed to pull image \"{image}\": {error}"),
        );
        self.tell(out, slot, true, "Failed", "Error: ErrImagePull".into());
        self.wait(slot, "ErrImagePull", Some(error.clone()));
        self.pull_back_off(slot, Some(ERROR_SHOWS), error, env);
        out.changed = true;
    }

    fn pull_back_off(
        &mut self,
        slot: Slot,
        tell: Option<Duration>,
        error: Arc<str>,
        env: &Env<'_>,
    ) {
        let it = self.at_mut(slot);
        it.pull_failures += 1;
        let until = env.now.plus(backoff(it.pull_failures, env.scale));
        let tell = tell.map(|after| env.now.plus(scaled(after, env.scale)));
        it.todo = Todo::PullBackoff { until, tell, error };
    }

    fn tell_pull_backoff(&mut self, slot: Slot, error: &str, out: &mut Outcome) {
        let image = self.spec_at(slot).image.clone();
        let told = format!("Back-off pulling image \"{image}\"");
        self.wait(
            slot,
            "ImagePullBackOff",
            Some(format!("{told}: ErrImagePull: {error}").into()),
        );
        self.tell(out, slot, false, "BackOff", told);
        self.tell(out, slot, true, "Failed", "Error: ImagePullBackOff".into());
        out.changed = true;
    }

    fn next_attempt(&self, slot: Slot) -> u32 {
        let it = self.at(slot);
        if it.created { it.restarts + 1 } else { 0 }
    }

    fn start(&mut self, slot: Slot, env: &Env<'_>) {
        let run = env
            .behaviours
            .run(&self.subject(slot, self.next_attempt(slot)));
        let until = env.now.plus(scaled(run.start, env.scale));
        self.at_mut(slot).todo = Todo::Start {
            until,
            error: run.start_error,
        };
    }

    fn started(
        &mut self,
        slot: Slot,
        error: Option<Arc<str>>,
        env: &mut Env<'_>,
        out: &mut Outcome,
    ) {
        let attempt = self.next_attempt(slot);
        self.wait(slot, "ContainerCreating", None);
        let image = self.spec_at(slot).image.clone();
        let it = self.at_mut(slot);
        (it.created, it.restarts, it.image) = (true, attempt, image);
        out.changed = true;
        self.tell(out, slot, false, "Created", "Container created".into());
        if let Some(error) = error {
            self.tell(out, slot, true, "Failed", format!("Error: {error}"));
            // As containerd reports a process that could not be started.
            self.ended(
                slot,
                128,
                Some("StartError".into()),
                Some(error),
                None,
                env,
                out,
            );
            return;
        }
        self.tell(out, slot, false, "Started", "Container started".into());
        self.anew &= matches!(slot, Slot::Init(_));
        self.run_program(slot, attempt, env.host);
        self.starts_resized(slot);
        let hooks = self.spec_at(slot).lifecycle.clone();
        let hook = hooks.as_ref().and_then(|it| it.post_start.as_ref());
        if hook.is_some_and(|it| self.ask_after_start(slot, it, env, out)) {
            return;
        }
        let (takes, code) = hook.map_or((Duration::ZERO, 0), |it| self.hook(slot, it, env.host));
        if takes.is_zero() {
            self.hooked(slot, code, env, out);
        } else {
            let until = env.now.plus(scaled(takes, env.scale));
            self.at_mut(slot).todo = Todo::Hook { until, code };
        }
    }

    /// Its `postStart` hook has ended, or it has none: it runs, or is killed if that failed.
    fn hooked(&mut self, slot: Slot, code: i32, env: &Env<'_>, out: &mut Outcome) {
        if code != 0 {
            let failed = "PostStartHook failed".to_owned();
            self.tell(out, slot, true, "FailedPostStartHook", failed);
            let killed = "FailedPostStartHook".to_owned();
            self.tell(out, slot, false, "Killing", killed);
            self.ended(slot, KILLED, None, None, None, env, out);
            return;
        }
        let course = self.course(slot, self.at(slot), env.now, env);
        let it = self.at_mut(slot);
        it.state = State::Running { since: env.now };
        it.todo = Todo::Run(Box::new(course));
        out.changed = true;
    }

    fn run_on(&mut self, slot: Slot, env: &Env<'_>, out: &mut Outcome) -> bool {
        let now = env.now;
        let name = self.spec_at(slot).name.clone();
        let changed_image = self.spec_at(slot).image != self.at(slot).image;
        let grace = seconds(
            self.spec.termination_grace_period_seconds.unwrap_or(30),
            env.scale,
        );
        let it = self.at_mut(slot);
        let Todo::Run(course) = &mut it.todo else {
            return false;
        };
        if changed_image {
            // Out of service at once: a container on its way out must not count as ready.
            (it.ready, it.started) = (false, false);
            out.changed = true;
            let why = format!("Container {name} definition changed, will be restarted");
            self.stop(slot, grace, true, why, env, out);
            return true;
        }
        let due = |at: Option<Millis>| at.is_some_and(|at| at <= now);
        if !it.started && due(course.started) {
            it.started = true;
            out.changed = true;
        }
        if due(course.unready) {
            out.changed |= it.ready;
            it.ready = false;
            course.lapsed();
        } else if !it.ready && due(course.ready) {
            it.ready = true;
            out.changed = true;
            course.recovered(now);
        }
        let overdrawn = course.overdrawn.take_if(|(at, _)| *at <= now);
        if let Some((_, why)) = overdrawn {
            self.evict(&why, false, env, out);
            return true;
        }
        let looks = due(course.look);
        let complaints = course.complain(now);
        let end = if due(course.end.as_ref().map(|(at, _)| *at)) {
            course.end.take()
        } else {
            None
        };
        for (probe, message) in complaints {
            self.tell(
                out,
                slot,
                true,
                "Unhealthy",
                format!("{} probe failed: {message}", probe.word()),
            );
        }
        if looks && let State::Running { since } = self.at(slot).state {
            let mut todo = std::mem::replace(&mut self.at_mut(slot).todo, Todo::Done);
            if let Todo::Run(course) = &mut todo {
                self.watch_memory(slot, self.at(slot), since, course, env);
            }
            self.at_mut(slot).todo = todo;
        }
        match end {
            None => false,
            Some((
                _,
                End::Exit {
                    code,
                    reason,
                    message,
                },
            )) => {
                self.ended(slot, code, reason, message, None, env, out);
                true
            }
            Some((_, End::Probe(probe))) => {
                let (kind, again) = (probe.word().to_lowercase(), self.restarts_after(slot, 1));
                let then = if again { ", will be restarted" } else { "" };
                self.tell(
                    out,
                    slot,
                    false,
                    "Killing",
                    format!("Container {name} failed {kind} probe{then}"),
                );
                let hung = self.hung(slot, grace, env);
                self.at_mut(slot).todo = hung;
                true
            }
        }
    }

    /// An application that has stopped answering does not hear the signal either: it is killed at the
    /// end of the grace period. One that never answered ends as others do, but badly.
    fn hung(&mut self, slot: Slot, grace: Duration, env: &Env<'_>) -> Todo {
        let run = env
            .behaviours
            .run(&self.subject(slot, self.at(slot).restarts));
        let takes = if run.hang.is_some() {
            grace
        } else {
            scaled(run.stop, env.scale).min(grace)
        };
        Todo::Stop {
            until: env.now.plus(takes),
            code: 137,
            again: false,
        }
    }

    /// Whether a container that ended with this code is started again.
    pub(super) fn restarts_after(&self, slot: Slot, code: i32) -> bool {
        let policy = match self.role_at(slot) {
            Role::Sidecar => RestartPolicy::Always,
            Role::Init if self.spec.restart_policy == RestartPolicy::Always => {
                RestartPolicy::OnFailure
            }
            Role::Init => self.spec.restart_policy,
            Role::Service | Role::Task => self
                .spec_at(slot)
                .restart_policy
                .unwrap_or(self.spec.restart_policy),
        };
        match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// The container has ended. `again` is set when its definition changed: then it is started again
    /// whatever its policy, without a back-off.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the fields of the record that it makes"
    )]
    pub(super) fn ended(
        &mut self,
        slot: Slot,
        code: i32,
        reason: Option<Arc<str>>,
        message: Option<Arc<str>>,
        again: Option<bool>,
        env: &Env<'_>,
        out: &mut Outcome,
    ) {
        let todo = if self.killing || !again.unwrap_or_else(|| self.restarts_after(slot, code)) {
            Todo::Done
        } else {
            Todo::Begin
        };
        let init = self.role_at(slot) == Role::Init;
        let forgiven = scaled(LONGEST_BACKOFF * 2, env.scale);
        let it = self.at_mut(slot);
        let started = match it.state {
            State::Running { since } => since,
            _ => env.now,
        };
        it.crashes = match again {
            Some(true) => 0,
            _ if env.now.since(started) >= forgiven => 1,
            _ => it.crashes.saturating_add(1),
        };
        it.state = State::Terminated(Box::new(Terminated {
            attempt: it.restarts,
            code,
            reason: reason.unwrap_or_else(|| if code == 0 { "Completed" } else { "Error" }.into()),
            message,
            started,
            finished: env.now,
        }));
        it.started = false;
        it.ready = init && code == 0;
        it.todo = todo;
        out.changed = true;
    }
}

/// As Go prints durations in messages: `1.234s`, `40s`, `2m40s`, `500ms`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let minutes = if minutes > 0 {
        format!("{minutes}m")
    } else {
        String::new()
    };
    format!("{minutes}{}{dot}{fraction}s", rest / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_offs_double_up_to_five_minutes() {
        let waits: Vec<u64> = (1..9)
            .map(|crashes| crash_backoff(crashes, 1.0).as_secs())
            .collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(crash_backoff(4, 100.0), Duration::from_millis(400));
        assert!(crash_backoff(2, 1e12) > Duration::ZERO);
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        let texts: Vec<String> = [500, 1000, 1234, 40_000, 160_000, 300_000]
            .map(|ms| go_duration(Duration::from_millis(ms)))
            .into();
        assert_eq!(texts, ["500ms", "1s", "1.234s", "40s", "2m40s", "5m0s"]);
    }
}
