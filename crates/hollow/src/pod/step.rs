//! One step of a pod: something happened, or time has passed.

use super::{
    Ask, Container, Failure, Gate, Held, Phase, Pod, Sandbox, State, Todo, Volumes,
    conditions::init_passed,
    course::{scaled, seconds},
};
use crate::{
    behaviour::{self, Behaviours, Effects, Labels, Role, Subject},
    clock::Millis,
    image::{Images, Traffic},
    object::{ContainerSpec, PodSpec, RestartPolicy},
};
use std::{sync::Arc, time::Duration};

/// What a step may know beside the pod.
pub struct Env<'a> {
    /// The time.
    pub now: Millis,
    /// How containers behave.
    pub behaviours: &'a Behaviours,
    /// Images on the pod's node.
    pub images: &'a mut Images,
    /// How the registry does.
    pub traffic: &'a mut Traffic,
    /// Files on the pod's node.
    pub host: &'a mut Volumes,
    /// How many simulated seconds pass in one of the clock's.
    pub scale: f64,
    /// When the scenario began: from then on usage is counted.
    pub start: Millis,
    /// Whether hooks that ask somebody do so; else they are taken to be answered at once.
    pub asks: bool,
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Nothing but time.
    Due,
    /// The API server showed the pod.
    Observed(Observed),
    /// The rules have changed; these held before.
    Rules(&'a Behaviours),
    /// The main process of a container has ended by itself, with this code.
    Ended(&'a str, i32),
    /// The page that a container's readiness probe asks for is served again, or no longer.
    Serves(&'a str, bool),
    /// A hook of a run of a container was answered, or nobody answered.
    Hooked {
        /// The container.
        container: &'a str,
        /// Which run of it.
        attempt: u32,
        /// Before it stops, not after it started.
        stops: bool,
        /// Somebody answered.
        well: bool,
    },
    /// Its machine was off, and is on again.
    Rebooted,
    /// Its node is short of something, and gives this reason.
    Evicted(&'a Arc<str>),
    /// It uses more of the node's disk than it may, for this reason.
    Overdrawn(&'a Arc<str>),
    /// The node grants the resources that the spec asks for, or says why not.
    Resize(Result<(), Held>),
    /// The claims to devices can be prepared, or this is why not.
    Prepare(Result<(), Arc<str>>),
}

/// The pod as the API server shows it, without what is the kubelet's own.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What is to run.
    pub spec: Arc<PodSpec>,
    /// Its generation.
    pub generation: i64,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// What its annotations set.
    pub overrides: Option<Arc<Effects>>,
    /// Its readiness gates, as in the spec.
    pub gates: Box<[Gate]>,
    /// The hash of the static pod whose mirror it is.
    pub source: Option<Arc<str>>,
    /// The grace period, once it is being deleted.
    pub deletion: Option<Duration>,
}

/// Something to be told in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Warning or Normal.
    pub warning: bool,
    /// In the kubelet's word.
    pub reason: &'static str,
    /// In the kubelet's words.
    pub message: String,
    /// The container it is about, as a field path.
    pub field_path: Option<String>,
}

/// What a step leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The status must be reported.
    pub changed: bool,
    /// The pod is to be deleted from the API, after its status has been reported.
    pub delete: bool,
    /// When to call again.
    pub wake: Option<Millis>,
    /// What is to be told.
    pub told: Vec<Occurrence>,
    /// Whom to ask for hooks.
    pub asks: Vec<Ask>,
}

/// How long the news that a deletion was seen waits for the end of a container.
const SOON: Duration = Duration::from_secs(1);

/// Which container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// An init container or sidecar.
    Init(usize),
    /// A container.
    Main(usize),
}

impl Pod {
    /// Takes in what happened, moves everything that is due, and says what follows.
    pub fn step(&mut self, input: Input<'_>, env: &mut Env<'_>) -> Outcome {
        let mut out = Outcome::default();
        match input {
            Input::Due => {}
            Input::Observed(seen) => self.observe(seen, env, &mut out),
            Input::Rules(before) => {
                let runs = self.runs(before);
                self.rethink(&runs, env);
            }
            Input::Ended(name, code) => self.end(name, code, env, &mut out),
            Input::Serves(name, serves) => self.serve(name, serves, env),
            Input::Hooked {
                container,
                attempt,
                stops,
                well,
            } => self.hook_answered((container, attempt), stops, well, env, &mut out),
            Input::Rebooted => self.reboot(env, &mut out),
            Input::Evicted(message) => self.evict(message, true, env, &mut out),
            Input::Overdrawn(message) => self.evict(message, false, env, &mut out),
            Input::Resize(answer) => self.answered_resize(answer, env, &mut out),
            Input::Prepare(answer) => self.prepare(answer, &mut out),
        }
        self.start_ephemeral(env.now, &mut out);
        if !self.finished() {
            self.advance(env, &mut out);
            let phase = self.next_phase();
            if phase != self.phase {
                self.phase = phase;
                out.changed = true;
            }
        }
        if !self.rejected() {
            out.changed |= self.settle_conditions(env.now);
        }
        out.delete = self.deletion.is_some() && self.stopped();
        out.wake = self.next_due(env.scale);
        out
    }

    fn observe(&mut self, seen: Observed, env: &Env<'_>, out: &mut Outcome) {
        let dying = self.deletion.is_some();
        if self.labels != seen.labels || self.overrides != seen.overrides {
            let before = self.runs(env.behaviours);
            self.labels = seen.labels;
            self.overrides = seen.overrides;
            self.rethink(&before, env);
        }
        // Containers cannot be added to a pod or taken away, but for ephemeral ones.
        let same_shape = seen.spec.containers.len() == self.main.len()
            && seen.spec.init_containers.len() == self.init.len();
        if same_shape && !self.finished() && !Arc::ptr_eq(&self.spec, &seen.spec) {
            let before = std::mem::replace(&mut self.spec, seen.spec);
            self.respecified(before);
            out.changed = true;
        }
        let regenerated = seen.generation != self.generation;
        self.generation = seen.generation;
        self.gates = seen.gates;
        if let Some(grace) = seen.deletion
            && self.deletion.is_none_or(|before| grace < before)
        {
            self.deletion = Some(grace);
            self.kill(grace, env, out);
        }
        // A kubelet sends the latest of what has piled up. That it has seen a deletion is not worth a write of its
        // own (one in four of a pod's end) where its containers are about to tell that they have stopped.
        let ends_soon = || {
            let end = env.now.plus(scaled(SOON, env.scale));
            self.next_due(env.scale).is_some_and(|due| due <= end)
        };
        let with_its_end = !dying && self.deletion.is_some() && !self.stopped() && ends_soon();
        out.changed |= regenerated && !with_its_end;
    }

    /// The kubelet prepares claims before it makes a sandbox, and tells when it cannot.
    fn prepare(&mut self, answer: Result<(), Arc<str>>, out: &mut Outcome) {
        if self.prepared || self.killing {
            return;
        }
        let Err(why) = answer else {
            (self.prepared, self.unprepared) = (true, None);
            return;
        };
        if self.unprepared.as_ref() != Some(&why) {
            out.told.push(Occurrence {
                warning: true,
                reason: "FailedPrepareDynamicResources",
                message: format!(
                    "Failed to prepare dynamic resources: prepare dynamic resources: {why}"
                ),
                field_path: None,
            });
            self.unprepared = Some(why);
        }
    }

    /// A container ends by itself.
    fn end(&mut self, name: &str, code: i32, env: &Env<'_>, out: &mut Outcome) {
        let ephemeral = self
            .spec
            .ephemeral_containers
            .iter()
            .position(|it| *it.name == *name);
        if let Some(it) = ephemeral.and_then(|index| self.ephemeral.get_mut(index)) {
            it.end(code, env.now);
            out.changed = true;
            return;
        }
        let running = |slot: &Slot| {
            *self.spec_at(*slot).name == *name && matches!(self.at(*slot).todo, Todo::Run(_))
        };
        let found = self.slots().find(running);
        if let Some(slot) = found {
            self.ended(slot, code, None, None, None, env, out);
        }
    }

    /// Ephemeral containers run as soon as they are seen in a pod that runs; nothing restarts them.
    fn start_ephemeral(&mut self, now: Millis, out: &mut Outcome) {
        if self.sandbox != Sandbox::Ready || self.finished() {
            return;
        }
        for spec in self
            .spec
            .ephemeral_containers
            .iter()
            .skip(self.ephemeral.len())
        {
            let mut it = Container::new(spec.image.clone(), "ContainerCreating");
            it.state = State::Running { since: now };
            it.created = true;
            self.ephemeral.push(it);
            out.changed = true;
        }
    }

    fn advance(&mut self, env: &mut Env<'_>, out: &mut Outcome) {
        if self.start_time.is_none() {
            self.start_time = Some(env.now);
            out.changed = true;
        }
        if self.deadline(env.scale).is_some_and(|at| at <= env.now) {
            self.failure = Some(Failure {
                reason: "DeadlineExceeded".into(),
                message: "Pod was active on the node longer than the specified deadline".into(),
            });
            out.changed = true;
            self.kill(
                seconds(
                    self.spec.termination_grace_period_seconds.unwrap_or(30),
                    env.scale,
                ),
                env,
                out,
            );
        }
        if self.sandbox == Sandbox::None && !self.killing && self.prepared {
            let takes = scaled(
                env.behaviours.sandbox(&self.id.namespace, &self.id.name),
                env.scale,
            );
            self.sandbox = Sandbox::Until(env.now.plus(takes));
        }
        if matches!(self.sandbox, Sandbox::Until(at) if at <= env.now) {
            self.sandbox = Sandbox::Ready;
        }
        self.advance_resize(env, out);
        loop {
            let mut moved = false;
            for slot in self.slots().collect::<Vec<_>>() {
                moved |= self.advance_container(slot, env, out);
            }
            moved |= self.stop_idle_sidecars(env, out);
            if !moved {
                break;
            }
        }
        // Containers that were started again have what they were started for.
        self.advance_resize(env, out);
    }

    /// Sidecars end when the containers they serve have.
    fn stop_idle_sidecars(&mut self, env: &Env<'_>, out: &mut Outcome) -> bool {
        let over = self.init_failed() || self.main.iter().all(|it| matches!(it.todo, Todo::Done));
        if !over || self.killing || self.main.is_empty() {
            return false;
        }
        let mut moved = false;
        for index in 0..self.init.len() {
            let slot = Slot::Init(index);
            match self.init[index].todo {
                Todo::Run(_) if self.role_at(slot) == Role::Sidecar => {
                    let grace = seconds(
                        self.spec.termination_grace_period_seconds.unwrap_or(30),
                        env.scale,
                    );
                    let why = format!("Stopping container {}", self.spec_at(slot).name);
                    self.stop(slot, grace, false, why, env, out);
                    moved = true;
                }
                Todo::Stop { .. } | Todo::Done | Todo::Run(_) => {}
                _ => {
                    self.init[index].todo = Todo::Done;
                    moved = true;
                }
            }
        }
        if self.init_failed() {
            for it in &mut self.main {
                moved |= !matches!(it.todo, Todo::Done);
                it.todo = Todo::Done;
            }
        }
        moved
    }

    /// Whether an init container has failed for good.
    fn init_failed(&self) -> bool {
        self.init.iter().any(|it| {
            matches!(it.todo, Todo::Done)
                && matches!(&it.state, State::Terminated(end) if end.code != 0)
        }) && !self.main.iter().any(|it| it.created)
    }

    /// Begins to stop everything for good, or hastens it.
    pub(super) fn kill(&mut self, grace: Duration, env: &Env<'_>, out: &mut Outcome) {
        self.killing = true;
        let latest = env.now.plus(grace);
        for slot in self.slots().collect::<Vec<_>>() {
            match &mut self.at_mut(slot).todo {
                Todo::Run(_) => {
                    let why = format!("Stopping container {}", self.spec_at(slot).name);
                    self.stop(slot, grace, false, why, env, out);
                }
                Todo::Stop { until, code, again } => {
                    *again = false;
                    if latest < *until {
                        (*until, *code) = (latest, KILLED);
                    }
                }
                todo => *todo = Todo::Done,
            }
        }
    }

    /// Signals a running container and tells why; it has ended when its hook and its shutdown are through, or is
    /// killed when the grace period is.
    pub(super) fn stop(
        &mut self,
        slot: Slot,
        grace: Duration,
        again: bool,
        why: String,
        env: &Env<'_>,
        out: &mut Outcome,
    ) {
        self.tell(out, slot, false, "Killing", why);
        let run = env
            .behaviours
            .run(&self.subject(slot, self.at(slot).restarts));
        let hooks = self.spec_at(slot).lifecycle.clone();
        let hook = hooks.as_ref().and_then(|it| it.pre_stop.as_ref());
        if hook.is_some_and(|it| self.ask_before_stop(slot, it, (grace, again), env, out)) {
            return;
        }
        let (hook, failed) = hook.map_or((Duration::ZERO, 0), |it| self.hook(slot, it, env.host));
        // One that is cut short by the end of the grace period is not told of; without one it does not run.
        if failed != 0 && scaled(hook, env.scale) < grace {
            let message = "PreStopHook failed".to_owned();
            self.tell(out, slot, true, "FailedPreStopHook", message);
        }
        let takes = scaled(hook, env.scale) + scaled(run.stop, env.scale);
        let (takes, code) = if takes <= grace {
            (takes, 0)
        } else {
            (grace, KILLED)
        };
        self.at_mut(slot).todo = Todo::Stop {
            until: env.now.plus(takes),
            code,
            again,
        };
    }

    /// The phase that follows from the containers (`getPhase` of the kubelet).
    fn next_phase(&self) -> Phase {
        if self.killing && self.stopped() && self.failure.is_some() {
            return Phase::Failed;
        }
        if self.init_failed() && self.stopped() {
            return Phase::Failed;
        }
        let initialized = self.main.iter().any(|it| it.created)
            || self
                .spec
                .init_containers
                .iter()
                .zip(&self.init)
                .all(|(spec, it)| init_passed(spec, it));
        let waiting = self
            .main
            .iter()
            .any(|it| matches!(it.state, State::Waiting { .. }) && it.last.is_none());
        if !initialized || waiting || self.main.is_empty() {
            return self.phase;
        }
        if !self.stopped() {
            return Phase::Running;
        }
        let over = self.killing || self.main.iter().all(|it| matches!(it.todo, Todo::Done));
        let well = self
            .main
            .iter()
            .all(|it| matches!(&it.state, State::Terminated(end) if end.code == 0));
        match (over, well) {
            (false, _) => Phase::Running,
            (true, true) => Phase::Succeeded,
            (true, false) => Phase::Failed,
        }
    }

    fn deadline(&self, scale: f64) -> Option<Millis> {
        let limit = self
            .spec
            .active_deadline_seconds
            .filter(|_| !self.killing && !self.finished())?;
        Some(self.start_time?.plus(seconds(limit, scale)))
    }

    fn next_due(&self, scale: f64) -> Option<Millis> {
        if self.finished() {
            return None;
        }
        let sandbox = match self.sandbox {
            Sandbox::Until(at) if !self.killing => Some(at),
            _ => None,
        };
        let containers = self
            .init
            .iter()
            .chain(&self.main)
            .filter_map(Container::next_due);
        containers
            .chain(sandbox)
            .chain(self.deadline(scale))
            .chain(self.resize_due())
            .min()
    }

    /// A pod that was not let in: it has failed without having been taken on.
    #[must_use]
    pub fn rejected(&self) -> bool {
        self.phase == Phase::Failed && self.start_time.is_none()
    }

    /// Refuses the pod, as a kubelet whose node lacks the room.
    pub fn reject(&mut self, failure: Failure) {
        self.phase = Phase::Failed;
        self.failure = Some(failure);
        for it in self.init.iter_mut().chain(&mut self.main) {
            it.todo = Todo::Done;
        }
    }

    /// The address it reports.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        if self.spec.host_network {
            Some(self.host_ip.to_string())
        } else {
            self.ip.map(|ip| ip.to_string())
        }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.init.len())
            .map(Slot::Init)
            .chain((0..self.main.len()).map(Slot::Main))
    }

    pub(super) fn at(&self, slot: Slot) -> &Container {
        match slot {
            Slot::Init(index) => &self.init[index],
            Slot::Main(index) => &self.main[index],
        }
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> &mut Container {
        match slot {
            Slot::Init(index) => &mut self.init[index],
            Slot::Main(index) => &mut self.main[index],
        }
    }

    pub(super) fn spec_at(&self, slot: Slot) -> &ContainerSpec {
        match slot {
            Slot::Init(index) => &self.spec.init_containers[index],
            Slot::Main(index) => &self.spec.containers[index],
        }
    }

    pub(super) fn role_at(&self, slot: Slot) -> Role {
        self.role(self.spec_at(slot), matches!(slot, Slot::Init(_)))
    }

    pub(super) fn role(&self, spec: &ContainerSpec, init: bool) -> Role {
        match (init, spec.restart_policy) {
            (true, Some(RestartPolicy::Always)) => Role::Sidecar,
            (true, _) => Role::Init,
            (false, _) if self.task && self.spec.restart_policy != RestartPolicy::Always => {
                Role::Task
            }
            (false, _) => Role::Service,
        }
    }

    pub(super) fn subject(&self, slot: Slot, attempt: u32) -> Subject<'_> {
        let spec = self.spec_at(slot);
        Subject {
            namespace: &self.id.namespace,
            pod: &self.id.name,
            labels: &self.labels,
            overrides: self.overrides.as_deref(),
            node: &self.node,
            container: &spec.name,
            image: &spec.image,
            role: self.role_at(slot),
            attempt,
        }
    }

    /// A container, as rules about usage choose among them.
    pub(crate) fn whose<'a>(&'a self, spec: &'a ContainerSpec) -> Subject<'a> {
        Subject {
            namespace: &self.id.namespace,
            pod: &self.id.name,
            labels: &self.labels,
            overrides: self.overrides.as_deref(),
            node: &self.node,
            container: &spec.name,
            image: &spec.image,
            role: Role::Service,
            attempt: 0,
        }
    }

    /// How a run of a container goes: as annotations and rules say, else as its program does.
    pub(super) fn behaves(
        &self,
        slot: Slot,
        it: &Container,
        attempt: u32,
        behaviours: &Behaviours,
    ) -> behaviour::Run {
        let mut run = behaviours.run(&self.subject(slot, attempt));
        if let (false, Some(program)) = (run.told, &it.program) {
            run.exit.clone_from(&program.exit);
        }
        run
    }

    pub(super) fn tell(
        &self,
        out: &mut Outcome,
        slot: Slot,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let list = match slot {
            Slot::Init(_) => "initContainers",
            Slot::Main(_) => "containers",
        };
        let field_path = Some(format!("spec.{list}{{{}}}", self.spec_at(slot).name));
        out.told.push(Occurrence {
            warning,
            reason,
            message,
            field_path,
        });
    }
}

/// Exit code of a container that did not end in time: 128 + SIGKILL.
pub(super) const KILLED: i32 = 137;

impl Container {
    fn next_due(&self) -> Option<Millis> {
        match &self.todo {
            Todo::Begin | Todo::Done => None,
            Todo::Pull { until, .. }
            | Todo::Start { until, .. }
            | Todo::Hook { until, .. }
            | Todo::CrashBackoff { until }
            | Todo::Stop { until, .. } => Some(*until),
            Todo::PullBackoff { until, tell, .. } => {
                Some(tell.map_or(*until, |tell| tell.min(*until)))
            }
            Todo::Run(course) => course.next(self.started, self.ready),
        }
    }
}
