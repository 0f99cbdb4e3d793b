//! Scheduling: the scheduler alone, and what it has to say.

mod claims;
pub mod explain;
pub mod policy;
pub mod rebalance;
pub mod schedule;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_scheduler::Options;
use gantry_scheduler::config::{Configuration, read};
use gantry_scheduler::core::Profile;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::import::{text, unreadable};
use super::parts::alone;
use crate::cli::Global;
use crate::election::{Election, Timing};
use crate::failure::{Exit, Failure, Result};
use crate::output::println;

/// Run the scheduler alone, against any cluster.
///
/// Under a name of its own beside kube-scheduler, or as default-scheduler in its place: then it waits
/// for kube-scheduler's lease.
#[derive(Debug, Args)]
pub struct Scheduler {
    /// Place the pods that ask for this scheduler by spec.schedulerName
    #[arg(
        long,
        default_value = "gantry-scheduler",
        value_name = "NAME",
        conflicts_with = "config"
    )]
    pub scheduler_name: String,
    /// Profiles, back-off and leader election from a KubeSchedulerConfiguration, YAML or JSON
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Serve /metrics, /healthz, /livez and /readyz there, as 127.0.0.1:10251 [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_address: Option<SocketAddr>,
    /// Workers that decide at the same time [default: one for each core, 8 at most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: Option<u16>,
    #[command(flatten)]
    election: Election,
}

pub async fn scheduler(args: Scheduler, global: &Global) -> Result<()> {
    let mut global = global.clone();
    // Schedulers of different names work side by side; one in the default scheduler's place waits
    // for the lease of kube-scheduler.
    let name = match args.scheduler_name.as_str() {
        "default-scheduler" => "kube-scheduler".to_owned(),
        name => name.to_owned(),
    };
    let (options, election) = match &args.config {
        None => (Options::named(&args.scheduler_name), args.election),
        Some(file) => {
            let configuration = configuration(file)?;
            if global.kubeconfig.is_none() {
                global.kubeconfig = configuration.kubeconfig.as_ref().map(PathBuf::from);
            }
            for note in &configuration.notes {
                println(format!("{}: {note}", file.display()))?;
            }
            let e = configuration.election;
            let timing = Timing {
                lease: e.lease,
                renew_deadline: e.renew,
                retry: e.retry,
            };
            let options = Options {
                profiles: configuration.profiles,
                backoff: configuration.backoff,
                ..Options::default()
            };
            (
                options.with_workers(configuration.workers),
                Election::configured(e.elect, e.namespace, e.name, timing),
            )
        }
    };
    let options = options.with_workers(args.workers.map(usize::from));
    let elected = Some((name.as_str(), election));
    let metrics = options.metrics.clone();
    let address = args.metrics_address;
    let scheduling = alone("the scheduler", &global, elected, async |client, stop| {
        gantry_scheduler::install(&client).await?;
        Ok(gantry_scheduler::run(client, options, stop).await?)
    });
    let Some(address) = address else {
        return scheduling.await;
    };
    // Served by whoever waits for the lease, too: its figures stand at zero.
    let serving = gantry_scheduler::serve(metrics, address, CancellationToken::new());
    tokio::select! {
        end = scheduling => end,
        end = serving => end.map_err(|e| {
            Failure::new(Exit::Failure, format!("cannot serve metrics on {address}: {e}"))
        }),
    }
}

/// Reads a KubeSchedulerConfiguration.
fn configuration(file: &PathBuf) -> Result<Configuration> {
    let value: Value =
        serde_saphyr::from_str(&text(file)?).map_err(|e| unreadable(file, &e.to_string()))?;
    read(&value).map_err(|e| Failure::new(Exit::Failure, format!("{}: {e}", file.display())))
}

/// Profiles to ask questions by: those of a file, or the default one under the names that are in use.
fn profiles(config: Option<&Path>) -> Result<Vec<Profile>> {
    Ok(match config {
        Some(file) => configuration(&file.to_owned())?.profiles,
        None => vec![Profile::default()],
    })
}
