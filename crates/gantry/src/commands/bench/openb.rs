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
/// are created in its order and at its times, and deleted at theirs, but not before they have lived as long as
/// --live-at-least says: half of them lived for less than nine minutes, which compressed is no time to start in. API
/// server, scheduler and simulated nodes run in this process, with all objects in memory.
#[derive(Debug, Args)]
pub struct Openb {
    /// Folder of the trace's node list and pod list
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Seconds that the whole trace takes
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    within: f64,
    /// Seconds of the replay that a pod lives at least
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    live_at_least: f64,
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
    /// Pods that lived longer than recorded, so that they could run.
    prolonged: usize,
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
    if !(args.live_at_least.is_finite() && args.live_at_least >= 0.0) {
        return Err(Failure::usage(
            "--live-at-least must be a number of seconds, 0 or more",
        ));
    }
    let mut trace = Trace::load(&args.folder)?;
    trace.pods.truncate(args.pods.unwrap_or(usize::MAX));
    let end = ended();
    tokio::pin!(end);
    let report = tokio::select! {
        report = replay(&trace, args.within, args.live_at_least) => report?,
        signal = &mut end => return signal.and(Err(Failure::new(Exit::Interrupted, "interrupted"))),
    };
    match args.output.output {
        Format::Table => println(summary(&report)),
        format => print_value(&report, format),
    }
}

async fn replay(trace: &Trace, within: f64, least: f64) -> Result<Report> {
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
    let (moments, prolonged) = moments(&trace.pods, compression, least);
    let most_running = play(&client, moments, &watcher).await?;
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
        prolonged,
        replay,
        most_running,
        never_ran: trace.pods.len().saturating_sub(times.len()),
        created_to_running: Times::of(&times),
        requests_per_pod: requests
            .per_pod(&before, u32::try_from(trace.pods.len()).unwrap_or(u32::MAX)),
    })
}

/// Something that happens to a pod, and when.
struct Moment<'a> {
    /// Seconds of the replay.
    at: f64,
    deletes: bool,
    pod: &'a openb::Pod,
}

/// What happens, in order; and how many pods live longer than recorded, which is for `least` seconds of the replay.
fn moments(pods: &[openb::Pod], compression: f64, least: f64) -> (Vec<Moment<'_>>, usize) {
    let (mut moments, mut prolonged) = (vec![], 0);
    for pod in pods {
        let created = pod.created as f64 / compression;
        moments.push(Moment {
            at: created,
            deletes: false,
            pod,
        });
        if let Some(deleted) = pod.deleted {
            let recorded = deleted as f64 / compression;
            prolonged += usize::from(recorded < created + least);
            moments.push(Moment {
                at: recorded.max(created + least),
                deletes: true,
                pod,
            });
        }
    }
    // A pod that lived for no time is created before it is deleted.
    moments.sort_by(|a, b| a.at.total_cmp(&b.at).then(a.deletes.cmp(&b.deletes)));
    (moments, prolonged)
}

/// Creates and deletes pods at their times; the most that were seen to run at once.
async fn play(client: &Client, moments: Vec<Moment<'_>>, watcher: &Watcher) -> Result<usize> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut creations: rustc_hash::FxHashMap<&str, JoinHandle<Result<()>>> = Default::default();
    let mut deletions: JoinSet<Result<()>> = JoinSet::new();
    let (start, mut most) = (Instant::now(), 0);
    for Moment { at, deletes, pod } in moments {
        tokio::time::sleep_until(start + Duration::from_secs_f64(at)).await;
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
         {} lived longer than recorded, to have time to run; at most {} ran at once; {} never ran\n\
         From creation to running: p50 {p50:.2}s, p99 {p99:.2}s, longest {max:.2}s\n\
         Writes per pod: {}",
        report.pods,
        report.nodes,
        report.replay.seconds,
        report.compression,
        percent(report.replay),
        report.prolonged,
        report.most_running,
        report.never_ran,
        shown(&report.requests_per_pod),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_live_long_enough_to_run_and_no_longer_than_recorded_otherwise() {
        let pod = |name: &str, created, deleted| openb::Pod::lived(name, created, deleted);
        let pods = [
            pod("short", 0, Some(100)),
            pod("long", 100, Some(5000)),
            pod("stays", 200, None),
        ];
        let (moments, prolonged) = moments(&pods, 100.0, 3.0);
        let seen: Vec<_> = moments
            .iter()
            .map(|m| (m.at, m.deletes, m.pod.name.as_str()))
            .collect();
        let expected = [
            (0.0, false, "short"),
            (1.0, false, "long"),
            (2.0, false, "stays"),
            (3.0, true, "short"),
            (50.0, true, "long"),
        ];
        assert_eq!((seen, prolonged), (expected.to_vec(), 1));
    }
}
