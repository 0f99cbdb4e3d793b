//! `gantry hollow` and `gantry scenario`: simulated nodes against any cluster, and what happens to them.

mod kubelets;
pub mod openb;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use gantry_hollow::{NodeGroup, scenario::describe};

use self::openb::Trace;
use super::parts::alone;
use crate::cli::Global;
use crate::failure::{Exit, Failure, Result};
use crate::fleet::layout::share;
use crate::output::print;

/// Run simulated nodes alone, against any cluster.
///
/// Registers nodes labelled gantry.dev/simulated=true and behaves for them as kubelets do, without
/// containers. Nodes so labelled that are there already are taken over.
#[derive(Debug, Args)]
pub struct Hollow {
    /// Nodes to register, shared out over the cells, beside those of the scenario; 0 only keeps those
    /// that are there
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub nodes: u32,
    /// Zone of nodes, and the first part of their names; may be given several times
    #[arg(long, default_value = "sim-a", value_name = "NAME")]
    pub cell: Vec<String>,
    /// Region of the nodes
    #[arg(long, default_value = "sim", value_name = "NAME")]
    pub region: String,
    /// Seed of all that is random about them [default: the scenario's, else 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// What happens: a YAML file of nodes, images, behaviours and events
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Simulated seconds that pass in one of the clock's; leases and node reports keep to the clock
    /// [default: the scenario's, else 1]
    #[arg(long, value_name = "TIMES", value_parser = speed)]
    pub speed: Option<f64>,
    /// Let the nodes' kubelets answer on port 10250 of this machine, for logs, exec, usage: at this address,
    /// or at 0.0.0.0. Whose kubelet it is follows from the address that is connected to, so --node-addresses
    /// must lead here
    #[arg(long, value_name = "IP")]
    pub kubelet_address: Option<IpAddr>,
    /// Addresses of nodes: a range that is routed to this machine, or a part of 127.0.0.0/8 where the API
    /// server is on it, too
    #[arg(long, default_value = "172.16.0.0/12", value_name = "CIDR")]
    pub node_addresses: String,
}

/// Look at what a scenario of simulated nodes does
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Read a scenario and say in words what it will do, or what is wrong with it and where
    Check {
        /// The YAML file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the nodes of the openb trace as a scenario
    Openb {
        /// Folder of the trace's node list and pod list
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

fn speed(text: &str) -> std::result::Result<f64, String> {
    gantry_hollow::scenario::speed(text)
}

/// Reads a scenario, to be played with a seed of the command line's if there is one; all that is wrong
/// with it is the failure.
pub fn load(file: &Path, seed: Option<u64>) -> Result<Arc<gantry_hollow::Scenario>> {
    let mut scenario = gantry_hollow::Scenario::load(file).map_err(|refused| {
        Failure::new(Exit::Usage, refused.to_string())
            .hint("the fields of a scenario are in docs/simulated-nodes.md")
    })?;
    scenario.seed = seed.or(scenario.seed);
    Ok(Arc::new(scenario))
}

pub fn scenario(args: Scenario) -> Result<()> {
    match args {
        Scenario::Check { file } => print(&describe(load(&file, None)?.as_ref())),
        Scenario::Openb { folder } => print(&Trace::load(&folder)?.scenario()),
    }
}

pub async fn run(args: Hollow, global: &Global) -> Result<()> {
    let scenario = args
        .scenario
        .as_deref()
        .map(|file| load(file, args.seed))
        .transpose()?;
    let cells = args.cell.len() as u32;
    let mut groups: Vec<NodeGroup> = (0u32..)
        .zip(&args.cell)
        .map(|(i, cell)| NodeGroup::new(&args.region, cell, share(args.nodes, cells, i)))
        .filter(|group| group.count > 0)
        .collect();
    let mut options = gantry_hollow::Options {
        seed: args.seed.unwrap_or(1),
        node_cidr: args.node_addresses,
        network: args
            .kubelet_address
            .map(|_| gantry_hollow::Network::default()),
        // Clusters bring a metrics server of their own, which asks the kubelets.
        metrics: false,
        ..gantry_hollow::Options::default()
    };
    if let Some(scenario) = &scenario {
        scenario.apply(&mut options);
        let zones: Vec<_> = args
            .cell
            .iter()
            .map(|cell| (args.region.clone(), cell.clone()))
            .collect();
        groups.extend(scenario.groups(&zones));
    }
    options.groups = groups;
    options.time_scale = args.speed.unwrap_or(options.time_scale);
    let address = args.kubelet_address;
    alone("simulated nodes", global, None, async |client, stop| {
        let Some((address, network)) = address.zip(options.network.clone()) else {
            return Ok(gantry_hollow::run(client, options, stop).await?);
        };
        let listener = kubelets::Listener::bind(address, &client).await?;
        tokio::select! {
            end = gantry_hollow::run(client, options, stop) => Ok(end?),
            never = listener.serve(network) => match never {},
        }
    })
    .await
}
