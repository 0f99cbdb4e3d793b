//! The shell: watches feed the core, decisions become bindings. One task owns the core; decoding, binding and
//! reporting run beside it.

mod binding;
mod calls;
mod devices;
mod driver;
mod gangs;
mod inputs;
mod install;
mod metrics;
mod note;
mod objects;
mod order;
mod policies;
mod preemption;
mod quotas;
mod reports;
mod reservations;
mod rounds;
mod services;
mod snapshot;
mod storage;
mod usage;

use crate::core::Profile;
use crate::core::load::Source;
use crate::core::profile::Rule;
use crate::core::queue::BACKOFF;
pub use calls::DECISION;
pub use install::{InstallError, install};
pub use metrics::{Metrics, serve};
use objects::{Input, follow, follow_optional};
pub use snapshot::{Snapshot, SnapshotError, snapshot};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// More do not pay: what they decide is settled by one.
const MOST_WORKERS: usize = 8;

/// As many as there are cores to decide on.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_WORKERS))
}

/// How the scheduler runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pods with the `spec.schedulerName` of one of these are placed, by its rules; all others are left alone.
    pub profiles: Vec<Profile>,
    /// First back-off of pods that do not fit, and the longest.
    pub backoff: (Duration, Duration),
    /// Bindings in flight at most.
    pub parallel_binds: usize,
    /// Workers that decide at the same time where many pods wait; with one, pods are decided one after another. As many
    /// as there are cores by default, and at most 8: what they decide is settled by one.
    pub workers: usize,
    /// How long a decision takes on average before workers share the next ones: to hand out and settle what is decided in
    /// two microseconds costs more than it saves.
    pub together_from: Duration,
    /// Figures of the run, for whoever shows them.
    pub metrics: Arc<Metrics>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::default()],
            backoff: BACKOFF,
            parallel_binds: 64,
            workers: workers(),
            together_from: Duration::from_micros(20),
            metrics: Arc::default(),
        }
    }
}

impl Options {
    /// As many workers as somebody asks for, but no more than there are by default.
    #[must_use]
    pub fn with_workers(mut self, asked: Option<usize>) -> Self {
        self.workers = asked.map_or(self.workers, |asked| asked.min(self.workers));
        self
    }

    /// The default profile under another name.
    #[must_use]
    pub fn named(scheduler_name: impl Into<String>) -> Self {
        Self {
            profiles: vec![Profile::named(scheduler_name)],
            ..Self::default()
        }
    }
}

/// Why the scheduler ended.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// An option makes no sense.
    #[error("option {0} must be above zero")]
    Option(&'static str),
    /// There is nobody to schedule for.
    #[error("there must be a profile at least")]
    NoProfile,
    /// Two profiles for the same pods.
    #[error("two profiles have the scheduler name {0}")]
    SameName(String),
}

/// Objects decoded and not yet taken in, at most; beyond that the watches wait.
const WAITING_INPUT: usize = 4096;

/// Schedules pods until `stop` is cancelled. All state is rebuilt from watches; nothing is decided before all
/// initial lists are complete. While the API server is away the watches are tried again and again.
///
/// # Errors
/// If an option makes no sense.
pub async fn run(
    client: kube::Client,
    options: Options,
    stop: CancellationToken,
) -> Result<(), Error> {
    if options.parallel_binds == 0 {
        return Err(Error::Option("parallel_binds"));
    }
    if options.workers == 0 {
        return Err(Error::Option("workers"));
    }
    if options.profiles.is_empty() {
        return Err(Error::NoProfile);
    }
    for (at, profile) in options.profiles.iter().enumerate() {
        let name = &profile.scheduler_name;
        if options.profiles[..at]
            .iter()
            .any(|p| p.scheduler_name == *name)
        {
            return Err(Error::SameName(name.clone()));
        }
    }
    schedule(client, options, stop).await;
    Ok(())
}

async fn schedule(client: kube::Client, options: Options, stop: CancellationToken) {
    let (send, receive) = mpsc::channel(WAITING_INPUT);
    let relist_pods = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    macro_rules! watch {
        ($($input:ident),*) => {
            $(watches.spawn(follow(client.clone(), Input::$input, send.clone(), Arc::new(Notify::new())));)*
        };
    }
    watch!(
        Node,
        Namespace,
        Service,
        ReplicaSet,
        StatefulSet,
        Claim,
        Volume,
        Class,
        CsiNode,
        CsiDriver,
        Capacity,
        Attachment,
        Budget
    );
    watches.spawn(follow_optional(client.clone(), Input::Policy, send.clone()));
    watches.spawn(follow_optional(client.clone(), Input::Quota, send.clone()));
    watches.spawn(follow_optional(
        client.clone(),
        Input::PodGroup,
        send.clone(),
    ));
    watches.spawn(follow_optional(
        client.clone(),
        Input::Reservation,
        send.clone(),
    ));
    watches.spawn(follow_optional(
        client.clone(),
        Input::Topology,
        send.clone(),
    ));
    // Before Kubernetes 1.34 these were not there in this form.
    watches.spawn(follow_optional(
        client.clone(),
        Input::DeviceClaim,
        send.clone(),
    ));
    watches.spawn(follow_optional(
        client.clone(),
        Input::DeviceClass,
        send.clone(),
    ));
    watches.spawn(follow_optional(
        client.clone(),
        Input::DeviceSlice,
        send.clone(),
    ));
    let loads = options.profiles.iter().filter_map(|p| p.load.as_ref());
    let sources: Vec<Source> = loads.map(|l| l.source).collect();
    let weighs = |p: &Profile| p.weights.of(Rule::Services) > 0;
    if options.profiles.iter().any(weighs) {
        watches.spawn(usage::poll_pods(client.clone(), send.clone()));
        watches.spawn(follow_optional(
            client.clone(),
            Input::ServiceProfile,
            send.clone(),
        ));
    }
    if sources.contains(&Source::MetricsApi) {
        watches.spawn(usage::poll(client.clone(), send.clone()));
    }
    if sources.contains(&Source::NodeMetric) {
        watches.spawn(follow_optional(
            client.clone(),
            Input::NodeMetric,
            send.clone(),
        ));
    }
    watches.spawn(follow(
        client.clone(),
        Input::Pod,
        send,
        relist_pods.clone(),
    ));
    driver::Driver::new(client, options, relist_pods)
        .drive(receive, stop)
        .await;
    watches.shutdown().await;
}

#[cfg(test)]
mod tests;
