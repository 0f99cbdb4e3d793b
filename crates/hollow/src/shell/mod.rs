//! The thin shell: watches, clock, and writes around [`World`].

mod claims;
mod events;
mod node_writes;
mod nodes;
mod pod_steps;
mod pods;
mod pressure;
mod record;
#[cfg(test)]
mod simulation;
mod source;
mod stage;
mod statics;
#[cfg(test)]
mod tests;
mod timer;
mod world;

use crate::{
    clock::{Clock, Millis},
    kubelet::{self, Done},
    node::AddressError,
    options::Options,
};
use events::Outbox;
use futures::FutureExt as _;
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::Request,
    runtime::watcher::Event,
};
use source::{Seen, Sources};
use std::{convert::Infallible, net::Ipv4Addr, panic::AssertUnwindSafe, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use world::{Answer, Subject, World, Write};

/// Why a simulation cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address range of the options is none, or too small for the nodes.
    #[error("cannot share out addresses")]
    Addresses(#[from] AddressError),
    /// The time scale is not a positive number.
    #[error("time scale {0} is not a positive number")]
    TimeScale(f64),
}

/// Events in flight at most.
const EVENTS_IN_FLIGHT: usize = 8;
/// Things seen that are taken in at once, before writes get their turn.
const BATCH: usize = 256;
/// A write that is not answered for so long is tried again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Repeated failures are logged at most this often.
const LOG_GAP: Duration = Duration::from_secs(5);

/// Runs simulated nodes against a cluster until `stop` is cancelled.
///
/// Creates the nodes of the options that are missing, takes over those labelled as simulated, and
/// reports for them and for the pods bound to them as their kubelets would. All state is in the API:
/// a process that follows another goes on where it left off. While the API server is away it keeps
/// trying.
///
/// # Errors
/// Only for options that cannot be acted on; the API server's failures are retried and logged.
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), Error> {
    if !(options.time_scale.is_finite() && options.time_scale > 0.0) {
        return Err(Error::TimeScale(options.time_scale));
    }
    let metrics = options.metrics_address();
    let (deeds, done) = mpsc::unbounded_channel();
    // The network is up as long as this runs.
    let _up = options
        .network
        .as_ref()
        .map(|network| network.up(client.clone(), &options.pod_cidr, metrics, deeds));
    let mut shell = Shell::new(client.clone(), options)?;
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = shell.begin() => {}
    }
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        result = shell.run(done) => result,
        never = offer(client, metrics) => match never {},
    }
}

/// Leads clients to the simulated metrics server, then waits for ever.
async fn offer(client: Client, metrics: Option<Ipv4Addr>) -> Infallible {
    for (collection, object) in metrics.map(kubelet::objects).into_iter().flatten() {
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let params = PatchParams::apply(events::COMPONENT).force();
        for attempt in 1.. {
            let request = Request::new(collection).patch(&name, &params, &Patch::Apply(&object));
            let applied = match request {
                Ok(request) => client.request_text(request).await,
                Err(error) => Err(kube::Error::BuildRequest(error)),
            };
            let Err(error) = applied else { break };
            tracing::warn!(%error, name, "cannot offer the simulated metrics server, trying again");
            tokio::time::sleep(world::retry_after(&name, attempt)).await;
        }
    }
    std::future::pending().await
}

type Answered = (Option<Subject>, Answer);

struct Shell {
    client: Client,
    clock: Clock,
    world: World,
    writes: JoinSet<Answered>,
    in_flight: usize,
    events_in_flight: usize,
    concurrency: usize,
    last_log: Option<Instant>,
    unlogged: u32,
}

impl Shell {
    fn new(client: Client, options: Options) -> Result<Self, Error> {
        let concurrency = options.concurrency.max(1);
        let clock = options.clock;
        Ok(Self {
            client,
            clock,
            world: World::new(options, clock.now())?,
            writes: JoinSet::new(),
            in_flight: 0,
            events_in_flight: 0,
            concurrency,
            last_log: None,
            unlogged: 0,
        })
    }

    /// Puts the scenario on stage, from its beginning or where another process has left it.
    async fn begin(&mut self) {
        let now = self.clock.now();
        let start = match self.world.scenario() {
            Some((scenario, seed)) => record::began(&self.client, scenario, seed, now).await,
            None => now,
        };
        self.world.begin(start, self.clock.now());
    }

    async fn run(&mut self, mut done: mpsc::UnboundedReceiver<Done>) -> Result<(), Error> {
        let (mut sources, mut seen) = Sources::new(self.client.clone());
        sources.watch_nodes_and_rules();
        // Pods are watched once nodes and rules are known: what a pod does depends on both.
        let (mut nodes_known, mut rules_known, mut pods_watched) = (false, false, false);
        // Claims to devices, once a pod has some.
        let mut claims_watched = false;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let next = self.world.next();
            let sleep = next.map_or(Duration::from_secs(3600), |at| at.since(self.clock.now()));
            tokio::select! {
                _ = seen.recv_many(&mut batch, BATCH) => {}
                Some(done) = done.recv() => self.world.client_did(&done, self.clock.now()),
                Some(joined) = self.writes.join_next() => self.joined(joined),
                () = tokio::time::sleep(sleep) => {}
            }
            let now = self.clock.now();
            for seen in batch.drain(..) {
                match seen {
                    Seen::Node(event) => {
                        let listed = matches!(*event, Event::InitDone);
                        self.world.node_seen(*event, now);
                        if listed && !nodes_known {
                            nodes_known = true;
                            self.world.create_missing()?;
                        }
                    }
                    Seen::Rules(event) => {
                        rules_known |= matches!(*event, Event::InitDone);
                        self.world.rules_seen(*event, now);
                    }
                    Seen::NoRules => rules_known = true,
                    Seen::Pod(event) => self.world.pod_seen(*event, now),
                    Seen::Claim(event) => self.world.claim_seen(*event, now),
                }
            }
            if nodes_known && rules_known && !pods_watched {
                pods_watched = true;
                sources.watch_pods();
            }
            if self.world.wants_claims() && !claims_watched {
                claims_watched = true;
                sources.watch_claims();
            }
            for node in self.world.newcomers() {
                sources.list_pods_of(node);
            }
            while let Some(joined) = self.writes.try_join_next() {
                self.joined(joined);
            }
            self.world.tick(now);
            self.launch(now);
        }
    }

    fn launch(&mut self, now: Millis) {
        while self.in_flight < self.concurrency {
            let Some((subject, write)) = self.world.next_write(now) else {
                break;
            };
            self.in_flight += 1;
            let client = self.client.clone();
            self.writes
                .spawn(async move { (Some(subject), settled(carry_out(client, write)).await) });
        }
        while self.events_in_flight < EVENTS_IN_FLIGHT {
            let Some(record) = Outbox::pop(&mut self.world.outbox) else {
                break;
            };
            self.events_in_flight += 1;
            let client = self.client.clone();
            self.writes
                .spawn(async move { (None, settled(events::send(client, record)).await) });
        }
    }

    fn joined(&mut self, joined: Result<Answered, tokio::task::JoinError>) {
        let (subject, answer) = match joined {
            Ok(answered) => answered,
            Err(error) => {
                // Nothing cancels a write, and a panic is an answer: see `settled`.
                tracing::error!(%error, "a write was lost");
                return;
            }
        };
        if let Answer::Failed(error) = &answer {
            self.log(error);
        }
        match subject {
            Some(subject) => {
                self.in_flight -= 1;
                self.world.answered(subject, &answer, self.clock.now());
            }
            None => self.events_in_flight -= 1,
        }
    }

    /// One line for many: when the API server is away, thousands of writes fail alike.
    fn log(&mut self, error: &str) {
        if self.last_log.is_some_and(|at| at.elapsed() < LOG_GAP) {
            self.unlogged += 1;
            return;
        }
        tracing::warn!(error, more = self.unlogged, "write failed, trying again");
        (self.last_log, self.unlogged) = (Some(Instant::now()), 0);
    }
}

/// What became of a write: also when it panicked or was never answered, so that its place is freed.
async fn settled(write: impl Future<Output = Result<(), kube::Error>>) -> Answer {
    match tokio::time::timeout(WRITE_TIMEOUT, AssertUnwindSafe(write).catch_unwind()).await {
        Ok(Ok(result)) => answer(result),
        Ok(Err(_)) => Answer::Failed("the write panicked".into()),
        Err(_) => Answer::Failed(format!("no answer in {WRITE_TIMEOUT:?}")),
    }
}

async fn carry_out(client: Client, write: Write) -> Result<(), kube::Error> {
    let manager = || Some(events::COMPONENT.to_owned());
    let params = || PatchParams {
        field_manager: manager(),
        ..PatchParams::default()
    };
    let request = match write {
        Write::Create(collection, body) => Request::new(collection).create(
            &PostParams {
                field_manager: manager(),
                ..PostParams::default()
            },
            body.to_string().into_bytes(),
        ),
        Write::Strategic(collection, name, Some(subresource), patch) => Request::new(collection)
            .patch_subresource(subresource, &name, &params(), &Patch::Strategic(patch)),
        Write::Strategic(collection, name, None, patch) => {
            Request::new(collection).patch(&name, &params(), &Patch::Strategic(patch))
        }
        Write::Merge(collection, name, patch) => {
            Request::new(collection).patch(&name, &params(), &Patch::Merge(patch))
        }
        Write::Status(collection, name, patch) => Request::new(collection).patch_subresource(
            "status",
            &name,
            &params(),
            &Patch::Merge(patch),
        ),
        Write::Delete(collection, name, uid) => Request::new(collection).delete(
            &name,
            &DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions {
                    uid: Some(uid),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            },
        ),
    };
    // The watch shows what became of it; decoding the answer would be work for nothing.
    client
        .request_text(request.map_err(kube::Error::BuildRequest)?)
        .await
        .map(|_| ())
}

fn answer(result: Result<(), kube::Error>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(kube::Error::Api(status)) => match status.code {
            404 => Answer::Missing,
            409 => Answer::Conflict,
            _ => Answer::Failed(format!("{} ({})", status.message, status.code)),
        },
        Err(error) => Answer::Failed(error.to_string()),
    }
}
