//! Pods brought to Ready on simulated nodes, against the API server in the same process, in memory.
//!
//! `cargo bench -p gantry-hollow --bench scale -- [NODES] [PODS]`, 1000 and 10000 when left out. Prints
//! how long registration, start and deletion took, writes a second, processor time and memory.

use futures::{StreamExt as _, TryStreamExt as _};
use gantry_apiserver::{Config, Server};
use gantry_hollow::{NodeGroup, Options, behaviour::Defaults, run};
use gantry_store::Store;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use std::{
    error::Error,
    fmt::Debug,
    pin::pin,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    // `cargo bench` adds a flag of its own.
    let mut sizes = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let nodes: u32 = sizes.next().map_or(Ok(1000), |it| it.parse())?;
    let pods: u32 = sizes.next().map_or(Ok(10_000), |it| it.parse())?;
    println!(
        "{nodes} nodes, {pods} pods, {} cores",
        std::thread::available_parallelism()?
    );

    let config = Config {
        disabled_admission: vec!["ServiceAccount".into()],
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(gantry_store::Options::default())).await?;
    let client = server.client();
    let options = Options {
        groups: vec![NodeGroup::new("east", "sh-a", nodes)],
        defaults: Defaults::INSTANT,
        ..Options::default()
    };
    let stop = CancellationToken::new();

    let mut lap = Lap::start()?;
    let running = tokio::spawn(run(server.client(), options, stop.clone()));
    counted::<Node>(&client, nodes, |node| {
        let status = node.status.as_ref();
        let conditions = status.and_then(|it| it.conditions.as_ref());
        conditions.is_some_and(|all| {
            all.iter()
                .any(|it| it.type_ == "Ready" && it.status == "True")
        })
    })
    .await?;
    lap.end("nodes ready", nodes)?;

    futures::stream::iter(0..pods)
        .map(|index| create(client.clone(), index, nodes))
        .buffer_unordered(64)
        .try_collect::<Vec<()>>()
        .await?;
    lap.end("pods created", pods)?;
    counted::<Pod>(&client, pods, |pod| {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|it| it.conditions.as_ref());
        conditions.is_some_and(|all| {
            all.iter()
                .any(|it| it.type_ == "Ready" && it.status == "True")
        })
    })
    .await?;
    lap.end("all of them ready, after that", pods)?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    lap.end("10 s of leases", nodes)?;
    let all: Api<Pod> = Api::namespaced(client.clone(), "default");
    let gone = tokio::spawn(emptied(all.clone()));
    all.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    gone.await??;
    lap.end("pods deleted", pods)?;
    stop.cancel();
    running.await??;
    server.shutdown().await;
    Ok(())
}

async fn create(client: Client, index: u32, nodes: u32) -> Result<(), Box<dyn Error>> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": format!("p-{index}"), "labels": {"app": format!("a-{}", index % 100)}},
        "spec": {
            "nodeName": format!("sh-a-{:03}", index % nodes + 1),
            "containers": [{"name": "app", "image": "shop/cart:1", "resources": {"requests": {"cpu": "100m"}}}],
        },
    }))?;
    Api::<Pod>::namespaced(client, "default")
        .create(&PostParams::default(), &pod)
        .await?;
    Ok(())
}

/// Waits until so many objects have been seen of which this holds.
async fn counted<K>(client: &Client, count: u32, holds: impl Fn(&K) -> bool) -> Outcome<()>
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + Debug + Send + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    let mut stream = pin!(
        watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    let mut seen = std::collections::HashSet::new();
    while seen.len() < count as usize {
        if let Some(object) = stream.try_next().await?
            && holds(&object)
        {
            seen.insert(object.meta().name.clone());
        }
    }
    Ok(())
}

/// Waits until there is nothing left.
async fn emptied(api: Api<Pod>) -> Result<(), watcher::Error> {
    let mut stream = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut left = std::collections::HashSet::new();
    while let Some(event) = stream.try_next().await? {
        match event {
            watcher::Event::Init => left.clear(),
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                left.insert(pod.metadata.name);
            }
            watcher::Event::Delete(pod) => {
                left.remove(&pod.metadata.name);
                if left.is_empty() {
                    break;
                }
            }
            watcher::Event::InitDone if left.is_empty() => break,
            watcher::Event::InitDone => {}
        }
    }
    Ok(())
}

/// Time and processor time since the last one.
struct Lap {
    at: Instant,
    cpu: f64,
}

impl Lap {
    fn start() -> Outcome<Self> {
        Ok(Self {
            at: Instant::now(),
            cpu: cpu_seconds()?,
        })
    }

    fn end(&mut self, what: &str, count: u32) -> Outcome<()> {
        let (took, cpu) = (self.at.elapsed().as_secs_f64(), cpu_seconds()? - self.cpu);
        let rate = f64::from(count) / took;
        println!(
            "{what:32} {took:8.2} s {rate:10.0}/s {cpu:8.2} s of processors {:6} MB",
            resident_mb()?
        );
        *self = Self::start()?;
        Ok(())
    }
}

/// Processor time of the process, from `/proc`: user and system, in hundredths of a second.
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

fn resident_mb() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|it| it.starts_with("VmRSS:"))
        .unwrap_or_default();
    Ok(line
        .split_whitespace()
        .nth(1)
        .unwrap_or("0")
        .parse::<u64>()?
        / 1024)
}
