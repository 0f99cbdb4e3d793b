//! `gantry bench openb`: a recorded cluster, replayed with time compressed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use gantry_cluster::EmbeddedCluster;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::fleet::{Clock, Step, Times, nodes_ready, percent};
use super::requests::{Requests, shown};
use super::watcher::Watcher;
use crate::cli::Output;
use crate::commands::hollow::openb::{self, Trace};
use crate::commands::up::ended;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Format, print_value, println};

/// Replay the openb trace on simulated nodes, with its 149 days compressed
///
/// The trace (Alibaba's cluster-trace-gpu-v2023) is 1,523 machines and 8,152 pods with their times. Pods
/// are created and deleted in its order and at its times; API server, scheduler and simulated nodes run in
/// this process, with all objects in memory.
#[derive(Debug, Args)]
pub struct Openb {
    /// Folder of the trace's node list and pod list
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Seconds that the whole trace takes
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    within: f64,
    /// Pods that are replayed, from the beginning of the trace; all, if not said
    #[arg(long, value_name = "N")]
    pods: Option<usize>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    processors: usize,
    nodes: u32,
    pods: usize,
    /// Seconds of the trace in one of the replay's.
    compression: f64,
    replay: Step,
    most_running: usize,
    /// Pods that were deleted, or were left at the end, without ever having run.
    never_ran: usize,
    created_to_running: Times,
    requests_per_pod: std::collections::BTreeMap<String, f64>,
}

const NAMESPACE: &str = "openb";
const IN_FLIGHT: usize = 64;
/// What is still on its way at the end of the trace gets so long.
const LAST: Duration = Duration::from_secs(5);

pub async fn run(args: Openb) -> Result<()> {
    if !(args.within.is_finite() && args.within > 0.0) {
        return Err(Failure::usage(
            "--within must be a number of seconds above 0",
        ));
    }
    let mut trace = Trace::load(&args.folder)?;
    trace.pods.truncate(args.pods.unwrap_or(usize::MAX));
    let end = ended();
    tokio::pin!(end);
    let report = tokio::select! {
        report = replay(&trace, args.within) => report?,
        signal = &mut end => return signal.and(Err(Failure::new(Exit::Interrupted, "interrupted"))),
    };
    match args.output.output {
        Format::Table => println(summary(&report)),
        format => print_value(&report, format),
    }
}

async fn replay(trace: &Trace, within: f64) -> Result<Report> {
    let nodes: u32 = trace.groups.iter().map(|it| it.count).sum();
    let cluster = EmbeddedCluster::builder()
        .name("openb")
        .nodes(trace.groups.clone())
        .start()
        .await
        .map_err(anyhow::Error::from)?;
    let client = cluster.client();
    nodes_ready(&client, nodes, Duration::from_secs(300)).await?;
    let namespace: Namespace =
        serde_json::from_value(serde_json::json!({"metadata": {"name": NAMESPACE}}))
            .context("cannot build an object")?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .context("cannot create a namespace")?;

    let mut watcher = Watcher::start(&client).await?;
    let before = Requests::ask(&client).await?;
    let compression = trace.span() as f64 / within;
    let clock = Clock::start()?;
    let most_running = play(&client, trace, compression, &watcher).await?;
    let replay = clock.end(u32::try_from(trace.pods.len()).ok())?;
    tokio::time::sleep(LAST).await;
    let times = watcher.times().await?;
    let requests = Requests::ask(&client).await?;
    cluster.shutdown().await;
    Ok(Report {
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        nodes,
        pods: trace.pods.len(),
        compression,
        replay,
        most_running,
        never_ran: trace.pods.len().saturating_sub(times.len()),
        created_to_running: Times::of(&times),
        requests_per_pod: requests
            .per_pod(&before, u32::try_from(trace.pods.len()).unwrap_or(u32::MAX)),
    })
}

/// Creates and deletes pods at their times; the most that were seen to run at once.
async fn play(
    client: &Client,
    trace: &Trace,
    compression: f64,
    watcher: &Watcher,
) -> Result<usize> {
    let mut moments: Vec<(i64, bool, &openb::Pod)> = vec![];
    for pod in &trace.pods {
        moments.push((pod.created, false, pod));
        moments.extend(pod.deleted.map(|at| (at, true, pod)));
    }
    // A pod that lived for less than a second is created before it is deleted.
    moments.sort_by_key(|(at, deletes, _)| (*at, *deletes));
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut creations: rustc_hash::FxHashMap<&str, JoinHandle<Result<()>>> = Default::default();
    let mut deletions: JoinSet<Result<()>> = JoinSet::new();
    let (start, mut most) = (Instant::now(), 0);
    for (at, deletes, pod) in moments {
        tokio::time::sleep_until(start + Duration::from_secs_f64(at as f64 / compression)).await;
        most = most.max(watcher.counts().running);
        let (pods, room) = (pods.clone(), room.clone());
        if deletes {
            let (created, name) = (creations.remove(pod.name.as_str()), pod.name.clone());
            deletions.spawn(async move {
                if let Some(created) = created {
                    created.await.context("a creation was lost")??;
                }
                let _permit = room.acquire_owned().await.context("closed")?;
                let deleted = pods.delete(&name, &DeleteParams::default()).await;
                deleted.context("cannot delete a pod")?;
                Ok(())
            });
            while let Some(done) = deletions.try_join_next() {
                done.context("a deletion was lost")??;
            }
        } else {
            let object: Pod =
                serde_json::from_value(pod.object(NAMESPACE)).context("cannot build a pod")?;
            let task = tokio::spawn(async move {
                let _permit = room.acquire_owned().await.context("closed")?;
                let created = pods.create(&PostParams::default(), &object).await;
                created.context("cannot create a pod")?;
                Ok(())
            });
            creations.insert(&pod.name, task);
        }
    }
    for created in creations.into_values() {
        created.await.context("a creation was lost")??;
    }
    while let Some(done) = deletions.join_next().await {
        done.context("a deletion was lost")??;
    }
    Ok(most)
}

fn summary(report: &Report) -> String {
    let Times { p50, p99, max } = report.created_to_running;
    format!(
        "{} pods on {} nodes in {:.1}s, {:.0} times as fast as recorded; {}\n\
         At most {} ran at once; {} never ran\n\
         From creation to running: p50 {p50:.2}s, p99 {p99:.2}s, longest {max:.2}s\n\
         Writes per pod: {}",
        report.pods,
        report.nodes,
        report.replay.seconds,
        report.compression,
        percent(report.replay),
        report.most_running,
        report.never_ran,
        shown(&report.requests_per_pod),
    )
}
