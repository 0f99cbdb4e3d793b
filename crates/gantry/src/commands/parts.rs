//! One part of Gantry alone, against any cluster: what runs inside of `gantry up`, as a process of
//! its own for real fleets.

use std::future::Future;

use clap::{Args, ValueEnum};
use gantry_api::strategy::ResolveTags;
use gantry_hollow::NodeGroup;
use tokio_util::sync::CancellationToken;

use super::up::ended;
use crate::cli::Global;
use crate::connect::{Connection, connect};
use crate::election::Election;
use crate::failure::Result;
use crate::fleet::layout::share;
use crate::output::println;

/// Run the fleet-wide controllers alone, against any hub cluster.
///
/// Installs Gantry's CRDs, then carries out Apps, Groups and Releases on the members that the
/// hub's Cluster objects name. Give the hub by --kubeconfig and --context.
#[derive(Debug, Args)]
pub struct Hub {
    /// Whether tags of new images are resolved to digests, where a strategy does not say
    #[arg(long, value_enum, default_value_t = Resolve::IfReachable, value_name = "WHEN")]
    resolve_tags: Resolve,
    #[command(flatten)]
    election: Election,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Resolve {
    Never,
    /// Where the registry cannot say, the tag stays, and the release says so
    IfReachable,
    /// Where the registry cannot say, the release fails
    Required,
}

/// Run simulated nodes alone, against any cluster.
///
/// Registers nodes labelled gantry.dev/simulated=true and behaves for them as kubelets do, without
/// containers. Nodes so labelled that are there already are taken over.
#[derive(Debug, Args)]
pub struct Hollow {
    /// Nodes to register, shared out over the cells; 0 only keeps those that are there
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub nodes: u32,
    /// Zone of nodes, and the first part of their names; may be given several times
    #[arg(long, default_value = "sim-a", value_name = "NAME")]
    pub cell: Vec<String>,
    /// Region of the nodes
    #[arg(long, default_value = "sim", value_name = "NAME")]
    pub region: String,
    /// Seed of all that is random about them
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// Run the workload controllers alone, against any cluster that has none.
///
/// For an API server without a controller manager: it waits for the lease of a running
/// kube-controller-manager, so that no two of them work on one object.
#[derive(Debug, Args)]
pub struct Controllers {
    #[command(flatten)]
    election: Election,
}

pub async fn hub(args: Hub, global: &Global) -> Result<()> {
    let options = gantry_hub::Options {
        resolve_tags: match args.resolve_tags {
            Resolve::Never => ResolveTags::Never,
            Resolve::IfReachable => ResolveTags::IfReachable,
            Resolve::Required => ResolveTags::Required,
        },
        ..gantry_hub::Options::default()
    };
    let elected = Some(("gantry-hub", args.election));
    alone(
        "the fleet controllers",
        global,
        elected,
        async |client, stop| Ok(gantry_hub::run(client, options, stop).await?),
    )
    .await
}

pub async fn hollow(args: Hollow, global: &Global) -> Result<()> {
    let cells = args.cell.len() as u32;
    let groups = (0u32..)
        .zip(args.cell)
        .map(|(i, cell)| NodeGroup::new(&args.region, cell, share(args.nodes, cells, i)))
        .filter(|group| group.count > 0)
        .collect();
    let options = gantry_hollow::Options {
        groups,
        seed: args.seed,
        ..gantry_hollow::Options::default()
    };
    alone("simulated nodes", global, None, async |client, stop| {
        Ok(gantry_hollow::run(client, options, stop).await?)
    })
    .await
}

pub async fn controllers(args: Controllers, global: &Global) -> Result<()> {
    let options = gantry_controllers::Options::default();
    let elected = Some(("kube-controller-manager", args.election));
    alone(
        "the workload controllers",
        global,
        elected,
        async |client, stop| Ok(gantry_controllers::run(client, options, stop).await?),
    )
    .await
}

/// Runs a part until it fails or the process is asked to end; where it is `elected`, by a lease of
/// that name, while it leads.
pub async fn alone<F>(
    what: &str,
    global: &Global,
    elected: Option<(&str, Election)>,
    part: impl FnOnce(kube::Client, CancellationToken) -> F,
) -> Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    if let Some((_, election)) = &elected {
        election.timing()?;
    }
    let Connection { client, .. } = connect(global).await?;
    let version = client
        .apiserver_version()
        .await
        .map_err(|e| crate::connect::failed("cannot ask the cluster for its version", e))?;
    println(format!(
        "Running {what} against Kubernetes {}. Ctrl-C stops.",
        version.git_version
    ))?;
    let stop = CancellationToken::new();
    let running = async {
        match elected {
            None => Ok(part(client, stop.clone()).await?),
            Some((lease, election)) => {
                let work = async |leading| Ok(part(client.clone(), leading).await?);
                let say = |text: String| println(text);
                election
                    .lead(lease, client.clone(), stop.clone(), say, work)
                    .await
            }
        }
    };
    tokio::pin!(running);
    tokio::select! {
        end = &mut running => return end,
        signal = ended() => signal?,
    }
    stop.cancel();
    running.await
}
