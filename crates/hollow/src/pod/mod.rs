//! A pod on a simulated node: the state a kubelet keeps of it, and how it moves.
//!
//! Everything here is pure: [`Pod::step`] takes what happened and the time, changes the state, and
//! says whether the status must be reported, what is to be told in events, and when to call again.

mod adopt;
mod conditions;
mod container;
mod course;
mod fate;
mod hook;
mod outlook;
mod program;
mod resize;
mod status;
mod step;
#[cfg(test)]
mod tests;

pub use crate::image::Images;
pub use adopt::Identity;
pub(crate) use adopt::gates;
pub use conditions::{Condition, Conditions, Gate};
pub use course::{Complaint, Course, End, ProbeKind, scaled};
pub use hook::Ask;
pub use program::{Health, Program, Volumes};
pub use resize::{Held, Refusal, Resize};
pub use status::status_patch;
pub use step::{Env, Input, Observed, Occurrence, Outcome};

use crate::{
    behaviour::{Effects, Labels},
    clock::Millis,
    object::PodSpec,
};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

/// Where a pod is in its life. Only forward: Pending, Running, then one of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not all containers have run yet.
    Pending,
    /// They have.
    Running,
    /// All ended well, for good.
    Succeeded,
    /// All ended for good, not all well.
    Failed,
}

impl Phase {
    /// As the API writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// The pod's sandbox: its network and its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Not begun.
    None,
    /// Ready at that time.
    Until(Millis),
    /// There, until the pod has ended.
    Ready,
}

/// A pod on a node of ours.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Who it is.
    pub id: Identity,
    /// Name of its node.
    pub node: Arc<str>,
    /// Address of its node.
    pub host_ip: Arc<str>,
    /// Its labels: rules may ask for them.
    pub labels: Arc<Labels>,
    /// What its annotations set.
    pub overrides: Option<Arc<Effects>>,
    /// What is to run; shared by equal pods.
    pub spec: Arc<PodSpec>,
    /// Whether a Job owns it.
    pub task: bool,
    /// The generation acted upon; zero if the API server counts none.
    pub generation: i64,
    /// Status of the readiness gates, as in the spec.
    pub gates: Box<[Gate]>,
    /// Its phase.
    pub phase: Phase,
    /// Why it failed as a whole.
    pub failure: Option<Failure>,
    /// When it was taken on.
    pub start_time: Option<Millis>,
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// Its address; reported once the sandbox is there.
    pub ip: Option<Ipv4Addr>,
    /// Init containers, as in the spec.
    pub init: Vec<Container>,
    /// Containers, as in the spec.
    pub main: Vec<Container>,
    /// Ephemeral containers that have been started, as in the spec.
    pub ephemeral: Vec<Container>,
    /// Its conditions.
    pub conditions: Conditions,
    /// Set once it is being deleted: the time its containers get.
    pub deletion: Option<Duration>,
    /// All containers are being stopped for good.
    pub killing: bool,
    /// Init containers run again before the others do, because the sandbox is a new one.
    pub anew: bool,
    /// What its containers have left in its own volumes.
    pub volumes: Option<Box<Volumes>>,
    /// A change of its resources that is not through.
    pub resize: Option<Box<Resize>>,
    /// Whether conditions have told of a resize that was pending, and of one in progress: what is over must
    /// be taken back.
    pub mentioned: [bool; 2],
    /// The hash of the static pod whose mirror it is.
    pub source: Option<Arc<str>>,
    /// Its claims to devices are prepared, or it has none: before, no sandbox is made.
    pub prepared: bool,
    /// Why they are not, as last told.
    pub unprepared: Option<Arc<str>>,
}

/// Why a pod failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `status.reason`.
    pub reason: Arc<str>,
    /// `status.message`.
    pub message: Arc<str>,
}

/// A container of a pod.
#[derive(Clone, Debug)]
pub struct Container {
    /// What is reported.
    pub state: State,
    /// How it last ended, if that is not its state.
    pub last: Option<Box<Terminated>>,
    /// Whether one was ever created: the next one is a restart.
    pub created: bool,
    /// Restarts so far; also tells one run's container id from the next.
    pub restarts: u32,
    /// Whether its startup probe has passed.
    pub started: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// The image it runs, or ran last.
    pub image: Arc<str>,
    /// Ends in a row, for the back-off.
    pub crashes: u32,
    /// Failed pulls in a row, for the back-off.
    pub pull_failures: u32,
    /// What it is about to do.
    pub todo: Todo,
    /// What its process does in this run, where that is known.
    pub program: Option<Box<Program>>,
}

/// What is reported of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits.
    Waiting {
        /// In the kubelet's word.
        reason: &'static str,
        /// For people.
        message: Option<Arc<str>>,
    },
    /// It runs.
    Running {
        /// Since then.
        since: Millis,
    },
    /// It has ended.
    Terminated(Box<Terminated>),
}

/// An ended run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminated {
    /// Which run: the number of restarts before it.
    pub attempt: u32,
    /// Its exit code.
    pub code: i32,
    /// In the kubelet's word.
    pub reason: Arc<str>,
    /// What it left to say.
    pub message: Option<Arc<str>>,
    /// When it started.
    pub started: Millis,
    /// When it ended.
    pub finished: Millis,
}

/// What a container is about to do.
#[derive(Clone, Debug)]
pub enum Todo {
    /// Start as soon as it is its turn.
    Begin,
    /// Its image comes.
    Pull {
        /// When it is there, or the pull has failed.
        until: Millis,
        /// When the pull began.
        since: Millis,
        /// The registry's answer, if it fails.
        error: Option<Arc<str>>,
    },
    /// A pull has failed.
    PullBackoff {
        /// When it is tried again.
        until: Millis,
        /// When ErrImagePull becomes ImagePullBackOff; `None` once it has.
        tell: Option<Millis>,
        /// What the registry said.
        error: Arc<str>,
    },
    /// It starts.
    Start {
        /// When it runs.
        until: Millis,
        /// The runtime's answer, if it fails.
        error: Option<Arc<str>>,
    },
    /// Its `postStart` hook runs.
    Hook {
        /// When it is through.
        until: Millis,
        /// With which code.
        code: i32,
    },
    /// It has ended too often.
    CrashBackoff {
        /// When it is started again.
        until: Millis,
    },
    /// It runs.
    Run(Box<Course>),
    /// It has been told to stop.
    Stop {
        /// When it has ended.
        until: Millis,
        /// With which code.
        code: i32,
        /// Whether it is started again then.
        again: bool,
    },
    /// Nothing more.
    Done,
}

impl Container {
    fn new(image: Arc<str>, reason: &'static str) -> Self {
        Self {
            state: State::Waiting {
                reason,
                message: None,
            },
            last: None,
            created: false,
            restarts: 0,
            started: false,
            ready: false,
            image,
            crashes: 0,
            pull_failures: 0,
            todo: Todo::Begin,
            program: None,
        }
    }

    /// It has ended by itself, and is left so.
    fn end(&mut self, code: i32, now: Millis) {
        if let State::Running { since } = self.state {
            let reason = if code == 0 { "Completed" } else { "Error" };
            self.state = State::Terminated(Box::new(Terminated {
                attempt: self.restarts,
                code,
                reason: reason.into(),
                message: None,
                started: since,
                finished: now,
            }));
            self.todo = Todo::Done;
        }
    }

    /// Whether it runs, be it on its way out.
    #[must_use]
    pub fn running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }
}

impl Pod {
    /// Whether it has ended for good.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.phase >= Phase::Succeeded
    }

    /// Whether nothing of it runs any more.
    #[must_use]
    pub fn stopped(&self) -> bool {
        !self.init.iter().chain(&self.main).any(Container::running)
    }
}
