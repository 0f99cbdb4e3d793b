//! `gantry up`: an embedded fleet that stays until Ctrl-C.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;

use super::console::{self, Beside};
use super::history::History;
use super::records::RecordArgs;
use crate::connect::default_data_dir;
use crate::failure::{Failure, Result};
use crate::fleet::{self, Fleet, Wish};
use crate::output::{Tone, color, paint, println};

/// Start an embedded fleet and keep it running until Ctrl-C.
///
/// A hub and its members are whole clusters in this one process; each has its own API endpoint,
/// durable store, workload controllers, scheduler and simulated nodes. Started again on the same
/// data folder, everything is as it was.
#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// What happens on the simulated nodes: a YAML file (see `gantry scenario check`)
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    #[command(flatten)]
    pub console: Beside,
}

/// The shape and place of an embedded fleet.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The fleet")]
pub struct FleetArgs {
    /// Member clusters [default: 2, or what the data folder holds]
    #[arg(long, value_name = "N")]
    pub clusters: Option<u32>,
    /// Cells (availability zones) of each member [default: 2]
    #[arg(long, value_name = "N")]
    pub cells: Option<u32>,
    /// Simulated nodes in all [default: 240]
    #[arg(long, value_name = "N")]
    pub nodes: Option<u32>,
    /// Seed of all that is random about the simulated nodes [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where the fleet lives between runs [default: ~/.local/share/gantry; of a demo, …/gantry-demo]
    #[arg(
        long,
        value_name = "FOLDER",
        env = "GANTRY_DATA_DIR",
        hide_env_values = true
    )]
    pub data_dir: Option<PathBuf>,
    /// The hub's HTTPS port; members take the ports after it; 0 for free ones
    /// [default: the last run's, else free ones]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    #[command(flatten)]
    pub history: History,
    #[command(flatten)]
    pub records: RecordArgs,
}

impl FleetArgs {
    /// The options of the fleet, in the folder `default` below the user's data where none is named.
    pub fn options(&self, default: &str) -> fleet::Options {
        fleet::Options {
            data_dir: self
                .data_dir
                .clone()
                .unwrap_or_else(|| default_data_dir(default)),
            wish: Wish {
                clusters: self.clusters,
                cells: self.cells,
                nodes: self.nodes,
                seed: self.seed,
            },
            address: self.address,
            port: self.port,
            store: self.history.options(),
            scenario: None,
            records: self.records.clone(),
        }
    }
}

pub async fn run(up: Up) -> Result<()> {
    let mut options = up.fleet.options("gantry");
    options.scenario = up
        .scenario
        .as_deref()
        .map(|file| super::hollow::load(file, up.fleet.seed))
        .transpose()?;
    let records = up.fleet.records.url(&options.data_dir);
    let started = std::time::Instant::now();
    println(paint(
        format!("Starting a fleet in {}", options.data_dir.display()),
        Tone::Strong,
        color(),
    ))?;
    let told = |line: &str| {
        // A closed standard output does not end a fleet.
        let _ = println(format!("  {} {line}", paint("✓", Tone::Good, color())));
    };
    let end = ended();
    tokio::pin!(end);
    let fleet = tokio::select! {
        fleet = Fleet::start(options, &told) => fleet?,
        signal = &mut end => return signal,
    };
    println(format!(
        "{} in {:.1}s. Ctrl-C stops it; the data stays.\n\n{}",
        paint("Ready", Tone::Good, color()),
        started.elapsed().as_secs_f64(),
        next_steps(&fleet, color())
    ))?;
    let console =
        match console::beside(&fleet, up.fleet.address, &up.console, records.as_deref()).await {
            Ok(console) => console,
            Err(failure) => {
                fleet.shutdown().await;
                return Err(failure);
            }
        };
    if let Some(console) = &console {
        println(console::words(console, color()))?;
    }
    let signal = end.await;
    println("Stopping …")?;
    if let Some(console) = console {
        console.shutdown().await;
    }
    fleet.shutdown().await;
    signal
}

/// What to try on a running fleet.
pub fn next_steps(fleet: &Fleet, color: bool) -> String {
    let kubeconfig = fleet.kubeconfig();
    let dim = |text: &str| paint(text, Tone::Dim, color);
    let mut lines = vec![format!("  export KUBECONFIG={}", kubeconfig.display())];
    lines.push(format!(
        "  gantry get groups -A            {}",
        dim("# what runs, over all clusters")
    ));
    lines.push(format!(
        "  kubectl get releases -A         {}",
        dim("# the hub speaks Kubernetes")
    ));
    if let Some((member, _)) = fleet.members().next() {
        lines.push(format!(
            "  kubectl --context {} get nodes   {}",
            member.name,
            dim("# so does every member")
        ));
    }
    lines.join("\n") + "\n"
}

/// Ends when the process is asked to: Ctrl-C or SIGTERM, both a wish and no failure.
pub async fn ended() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let no_signals = |e: std::io::Error| {
        Failure::from(anyhow::Error::from(e).context("cannot listen for signals"))
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
