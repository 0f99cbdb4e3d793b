//! `gantry bench fleet`: a whole cluster at full size, in this process.
//!
//! Nodes register, Deployments make pods, the scheduler places them, simulated kubelets run them;
//! then nothing happens for a while, then all of it is deleted. Every step is timed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use gantry_cluster::{EmbeddedCluster, NodeGroup};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::json;

use super::process::{cpu_seconds, memory_mb};
use super::requests::{Requests, shown as requests_shown};
use super::watcher::Watcher;
use crate::cli::Output;
use crate::commands::up::ended;
use crate::failure::{Exit, Failure, Result};
use crate::fleet::layout::share;
use crate::output::{Format, Tone, color, paint, print_value, println};

/// Bring up a cluster of simulated nodes, fill it with pods and empty it again, and time each step
///
/// API server, durable store, workload controllers, scheduler and simulated nodes run in this
/// process, on all its processors. Pods are made by Deployments; from a pod's creation until it runs,
/// the simulated kubelet takes the time that pulling and starting takes.
#[derive(Debug, Args)]
pub struct Fleet {
    /// Simulated nodes, over three zones
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    nodes: u32,
    /// Pods
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pods: u32,
    /// Deployments that the pods are shared out over
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    deployments: u32,
    /// Keep all objects in memory, instead of in a folder that is deleted afterwards
    #[arg(long)]
    in_memory: bool,
    /// Where that folder is made, below the system's folder for temporary files if not said
    #[arg(long, value_name = "FOLDER", conflicts_with = "in_memory")]
    data_dir: Option<PathBuf>,
    /// How long to look at the running cluster, in seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    steady: u64,
    /// Let the node with the most pods die, and time until they run elsewhere
    #[arg(long)]
    fail_node: bool,
    /// Longest time for one step, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    output: Output,
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    processors: usize,
    nodes: u32,
    pods: u32,
    durable: bool,
    start: Step,
    nodes_ready: Step,
    pods_running: Step,
    created_to_running: Times,
    /// Writes that were answered from the pods' creation until they ran, for each of them: of pods, of
    /// their events, of what made them.
    writes_to_running: BTreeMap<String, f64>,
    /// And from their deletion until they were gone.
    writes_to_gone: BTreeMap<String, f64>,
    /// The cluster with nothing to do but keeping itself alive.
    steady: Step,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_failure: Option<NodeFailure>,
    pods_deleted: Step,
    memory_running_megabytes: u64,
    memory_peak_megabytes: u64,
}

/// One part of the run.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub seconds: f64,
    /// Of all threads of the process.
    cpu_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    a_second: Option<f64>,
}

/// Seconds from the creation of a pod until it runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeFailure {
    pods: usize,
    /// From the node's last sign of life until its pods run elsewhere. A cluster waits for 40 s
    /// before it gives a node up.
    seconds: f64,
    /// Beyond what the steady cluster takes in that time.
    extra_cpu_seconds: f64,
    pod_events: u64,
}

/// Since when a step is on, and the processor time there was then.
pub struct Clock {
    since: Instant,
    cpu: f64,
}

impl Clock {
    pub fn start() -> Result<Clock> {
        Ok(Clock {
            since: Instant::now(),
            cpu: cpu_seconds()?,
        })
    }

    pub fn end(&self, count: Option<u32>) -> Result<Step> {
        let seconds = self.since.elapsed().as_secs_f64();
        Ok(Step {
            seconds,
            cpu_seconds: cpu_seconds()? - self.cpu,
            a_second: count.map(|count| f64::from(count) / seconds),
        })
    }
}

const NAMESPACE: &str = "bench";
/// Deployments written at a time.
const IN_FLIGHT: usize = 16;
/// How soon pods leave a dead node, once it is known to be dead.
const TOLERATED_SECONDS: u64 = 1;

pub async fn run(args: Fleet) -> Result<()> {
    let end = ended();
    tokio::pin!(end);
    let folder = folder(&args)?;
    let outcome = tokio::select! {
        report = measure(&args, folder.as_ref()) => report,
        signal = &mut end => signal.and(Err(Failure::new(Exit::Interrupted, "interrupted"))),
    };
    if let Some(folder) = &folder
        && let Err(error) = std::fs::remove_dir_all(folder)
    {
        eprintln!("cannot delete {}: {error}", folder.display());
    }
    match (outcome?, args.output.output) {
        (report, Format::Table) => println(summary(&report)),
        (report, format) => print_value(&report, format),
    }
}

/// A folder of this run's own.
fn folder(args: &Fleet) -> Result<Option<PathBuf>> {
    if args.in_memory {
        return Ok(None);
    }
    let parent = args.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = parent.join(format!("gantry-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| {
        let message = format!("cannot make {}: {e}", folder.display());
        Failure::new(Exit::DataUnwritable, message).hint("name another folder with --data-dir")
    })?;
    Ok(Some(folder))
}

async fn measure(args: &Fleet, folder: Option<&PathBuf>) -> Result<Report> {
    let tell = |text: String| match args.output.output {
        Format::Table => println(format!("{} {text}", paint("✓", Tone::Good, color()))),
        _ => Ok(()),
    };
    let within = Duration::from_secs(args.timeout);
    let clock = Clock::start()?;
    let cluster = cluster(args, folder).await?;
    let start = clock.end(None)?;
    let client = cluster.client();

    nodes_ready(&client, args.nodes, within).await?;
    let nodes_ready = clock.end(Some(args.nodes))?;
    tell(format!(
        "{} nodes ready  {}",
        args.nodes,
        shown(nodes_ready)
    ))?;

    let mut watcher = Watcher::start(&client).await?;
    let requests = Requests::ask(&client).await?;
    let clock = Clock::start()?;
    create(&client, args).await?;
    let wanted = args.pods as usize;
    watcher
        .until("starting the pods", within, |c| c.running == wanted)
        .await?;
    let pods_running = clock.end(Some(args.pods))?;
    let times = Times::of(&watcher.times().await?);
    let (memory_running_megabytes, _) = memory_mb()?;
    tell(format!(
        "{} pods running  {}",
        args.pods,
        shown(pods_running)
    ))?;

    settled(&mut watcher).await;
    let started = Requests::ask(&client).await?;
    let writes_to_running = started.per_pod(&requests, args.pods);
    let clock = Clock::start()?;
    tokio::time::sleep(Duration::from_secs(args.steady)).await;
    let steady = clock.end(None)?;
    tell(format!("steady  {}", percent(steady)))?;

    let node_failure = match args.fail_node {
        false => None,
        true => {
            let failure = fail_node(&client, &mut watcher, steady, within).await?;
            tell(failure_shown(&failure))?;
            Some(failure)
        }
    };

    let before = Requests::ask(&client).await?;
    let clock = Clock::start()?;
    Api::<Deployment>::namespaced(client.clone(), NAMESPACE)
        .delete_collection(&DeleteParams::background(), &ListParams::default())
        .await
        .context("cannot delete the Deployments")?;
    // What was left on a dead node stays there, as it does in Kubernetes.
    let stuck = node_failure.map_or(0, |failure| failure.pods);
    watcher
        .until("deleting the pods", within, |c| c.there <= stuck)
        .await?;
    let pods_deleted = clock.end(Some(args.pods))?;
    tell(format!("pods deleted  {}", shown(pods_deleted)))?;

    let writes_to_gone = Requests::ask(&client).await?.per_pod(&before, args.pods);
    let (_, memory_peak_megabytes) = memory_mb()?;
    cluster.shutdown().await;
    Ok(Report {
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        nodes: args.nodes,
        pods: args.pods,
        durable: folder.is_some(),
        start,
        nodes_ready,
        pods_running,
        created_to_running: times,
        writes_to_running,
        writes_to_gone,
        steady,
        node_failure,
        pods_deleted,
        memory_running_megabytes,
        memory_peak_megabytes,
    })
}

async fn cluster(args: &Fleet, folder: Option<&PathBuf>) -> Result<EmbeddedCluster> {
    const ZONES: [&str; 3] = ["bench-a", "bench-b", "bench-c"];
    let groups = (0..)
        .zip(ZONES)
        .map(|(i, zone)| NodeGroup::new("bench", zone, share(args.nodes, 3, i)))
        .filter(|group| group.count > 0);
    let mut builder = EmbeddedCluster::builder()
        .name("bench")
        .nodes(groups.collect());
    if let Some(folder) = folder {
        builder = builder.data_dir(folder);
    }
    Ok(builder.start().await.map_err(anyhow::Error::from)?)
}

/// Waits until so many nodes are ready, by looking: what a watch would take of the processors is
/// left to the cluster.
pub async fn nodes_ready(client: &Client, count: u32, within: Duration) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let deadline = Instant::now() + within;
    // The taint goes with the first report that the node is ready.
    let untainted = |node: &Node| {
        let spec = node.spec.as_ref();
        spec.is_none_or(|spec| spec.taints.as_deref().unwrap_or_default().is_empty())
    };
    loop {
        // Page by page, and no further than the first that waits: asking must not be what takes time and memory.
        let mut ready = 0;
        let mut page = ListParams::default().limit(100);
        loop {
            let list = nodes.list(&page).await.context("cannot list nodes")?;
            let there = list.items.iter().filter(|node| untainted(node)).count();
            ready += there;
            let next = list.metadata.continue_.filter(|it| !it.is_empty());
            match next {
                Some(next) if there == list.items.len() => page = page.continue_token(&next),
                _ => break,
            }
        }
        if ready == count as usize {
            return Ok(());
        }
        if Instant::now() > deadline {
            let message = format!("only {ready} of the first nodes were ready in time, of {count}");
            return Err(Failure::new(Exit::Failure, message).hint("give it longer with --timeout"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn create(client: &Client, args: &Fleet) -> Result<()> {
    let namespace: Namespace = from(json!({"metadata": {"name": NAMESPACE}}))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .context("cannot create a namespace")?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let count = args.deployments.min(args.pods);
    futures::stream::iter(0..count)
        .map(|i| {
            let deployments = deployments.clone();
            let replicas = share(args.pods, count, i);
            async move {
                let deployment = deployment(i, replicas)?;
                let created = deployments
                    .create(&PostParams::default(), &deployment)
                    .await;
                created.context("cannot create a Deployment")?;
                Ok::<(), Failure>(())
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

fn deployment(number: u32, replicas: u32) -> Result<Deployment> {
    let name = format!("app-{number:04}");
    let toleration = |key: &str| {
        json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": TOLERATED_SECONDS})
    };
    from(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, "tier": "web"}},
                "spec": {
                    "tolerations": [toleration("not-ready"), toleration("unreachable")],
                    "containers": [{
                        "name": "main", "image": "registry.local/app:1",
                        "ports": [{"containerPort": 8080}], "env": [{"name": "A", "value": "b"}],
                        "resources": {
                            "requests": {"cpu": "200m", "memory": "512Mi"},
                            "limits": {"cpu": "1", "memory": "1Gi"},
                        },
                    }],
                },
            },
        },
    }))
}

fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T> {
    Ok(serde_json::from_value(value).context("cannot build an object")?)
}

/// Waits until pods no longer change: their last reports follow when they run.
async fn settled(watcher: &mut Watcher) {
    const QUIET: Duration = Duration::from_secs(3);
    loop {
        let seen = watcher.counts();
        tokio::time::sleep(QUIET).await;
        if watcher.counts() == seen {
            return;
        }
    }
}

async fn fail_node(
    client: &Client,
    watcher: &mut Watcher,
    steady: Step,
    within: Duration,
) -> Result<NodeFailure> {
    let (node, pods) = watcher
        .busiest()
        .await?
        .ok_or_else(|| Failure::new(Exit::Failure, "no pod is on a node"))?;
    let before = watcher.counts();
    let clock = Clock::start()?;
    let down = json!({"metadata": {"annotations": {"hollow.gantry.dev/down": "true"}}});
    Api::<Node>::all(client.clone())
        .patch(&node, &PatchParams::default(), &Patch::Merge(down))
        .await
        .context("cannot let a node die")?;
    watcher
        .until("noticing that a node died", within, |c| {
            c.running < before.running
        })
        .await?;
    let after = watcher
        .until("starting the pods elsewhere", within, |c| {
            c.running == before.running && c.there == before.there + pods
        })
        .await?;
    let step = clock.end(None)?;
    let usual = steady.cpu_seconds / steady.seconds.max(0.001) * step.seconds;
    Ok(NodeFailure {
        pods,
        seconds: step.seconds,
        extra_cpu_seconds: step.cpu_seconds - usual,
        pod_events: after.events - before.events,
    })
}

impl Times {
    pub fn of(sorted: &[Duration]) -> Times {
        let at = |part: f64| {
            let index = (sorted.len().saturating_sub(1) as f64 * part) as usize;
            sorted.get(index).map_or(0.0, Duration::as_secs_f64)
        };
        Times {
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

fn shown(step: Step) -> String {
    let rate = step
        .a_second
        .map_or(String::new(), |n| format!("  {n:.0}/s"));
    format!(
        "{:.1}s{rate}  {:.1}s of processor",
        step.seconds, step.cpu_seconds
    )
}

pub fn percent(step: Step) -> String {
    let share = 100.0 * step.cpu_seconds / step.seconds.max(0.001);
    format!("{share:.1}% of one processor")
}

fn failure_shown(failure: &NodeFailure) -> String {
    format!(
        "a node died, its {} pods run elsewhere  {:.1}s  {} events of pods, {:.2}s of processor beyond the usual",
        failure.pods, failure.seconds, failure.pod_events, failure.extra_cpu_seconds
    )
}

fn summary(report: &Report) -> String {
    let Times { p50, p99, max } = report.created_to_running;
    format!(
        "\nFrom creation to running: p50 {p50:.2}s, p99 {p99:.2}s, longest {max:.2}s\n\
         Writes per pod until it runs: {}\n\
         Writes per pod until it is gone: {}\n\
         Memory: {} MB with all pods running, {} MB at most\n\
         {} processors; store {}",
        requests_shown(&report.writes_to_running),
        requests_shown(&report.writes_to_gone),
        report.memory_running_megabytes,
        report.memory_peak_megabytes,
        report.processors,
        if report.durable {
            "on disk"
        } else {
            "in memory"
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_off_the_sorted_list() {
        let all: Vec<Duration> = (1..=200).map(Duration::from_secs).collect();
        let expected = Times {
            p50: 100.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(Times::of(&all), expected);
        assert_eq!(
            Times::of(&[]),
            Times {
                p50: 0.0,
                p99: 0.0,
                max: 0.0
            }
        );
    }

    #[test]
    fn all_pods_are_shared_out() {
        let replicas = |i| {
            deployment(i, share(10, 3, i))
                .unwrap()
                .spec
                .unwrap()
                .replicas
        };
        let total: i32 = (0..3).filter_map(replicas).sum();
        assert_eq!(total, 10);
    }
}
