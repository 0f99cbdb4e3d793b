//! `gantry demo`: the main job before one's eyes. A fleet comes up, a shop is brought in, a good
//! revision rolls over all cells, a broken one is stopped at its bastion and taken back.

mod folder;
mod story;

use std::path::{Path, PathBuf};

use clap::Args;

use super::up::{FleetArgs, ended, next_steps};
use crate::failure::{Exit, Failure, Result};
use crate::fleet::Fleet;
use crate::output::{Tone, color, paint, println};

/// Where the real shop's manifests are, for who has them beside the project.
const BOUTIQUE: &str = "../shared/data/online-boutique/kubernetes-manifests.yaml";
/// The project's own example, part of the binary.
const BOOKSHOP: &str = include_str!("../../../../../examples/bookshop.yaml");

/// Show the main job: a fleet comes up, a shop is brought in, two releases roll through it.
///
/// Everything is real but the nodes: two Kubernetes clusters and a hub in this process, a twelve
/// service shop imported from its manifests, one release that succeeds and one that is stopped at
/// its bastion and rolled back. Takes about two minutes.
#[derive(Debug, Args)]
pub struct Demo {
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Manifests of the shop [default: the online boutique where ../shared has it, else a bookshop]
    #[arg(long, value_name = "FILE")]
    pub shop: Option<PathBuf>,
    /// Instances of each service
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(i32).range(2..))]
    pub replicas: i32,
    /// Keep the fleet running at the end, until Ctrl-C
    #[arg(long)]
    pub stay: bool,
}

/// A shop's manifests: its name, where they come from, the text.
struct Shop {
    name: String,
    place: String,
    text: String,
}

pub async fn run(args: Demo) -> Result<()> {
    let shop = shop(args.shop.as_deref())?;
    let options = args.fleet.options("gantry-demo");
    folder::renew(&options.data_dir)?;
    let end = ended();
    tokio::pin!(end);

    story::title("A fleet comes up")?;
    let told = |line: &str| {
        // A closed standard output does not end the demo.
        let _ = println(format!("  {} {line}", paint("✓", Tone::Good, color())));
    };
    let fleet = tokio::select! {
        fleet = Fleet::start(options, &told) => fleet?,
        _ = &mut end => return Err(interrupted()),
    };
    let told = tokio::select! {
        told = story::tell(&fleet, &shop, args.replicas) => told,
        _ = &mut end => Err(interrupted()),
    };
    if let Err(failure) = told {
        fleet.shutdown().await;
        return Err(failure);
    }
    let folder = fleet.data_dir().display().to_string();
    story::title("What to try next")?;
    if args.stay {
        println(format!(
            "{}\nThe fleet stays until Ctrl-C.",
            next_steps(&fleet, color())
        ))?;
        end.await?;
        fleet.shutdown().await;
        return Ok(());
    }
    println(format!(
        "  gantry up --data-dir {folder}    {}\n{}",
        paint(
            "# this fleet again, as the demo left it, until Ctrl-C",
            Tone::Dim,
            color()
        ),
        next_steps(&fleet, color())
    ))?;
    fleet.shutdown().await;
    Ok(())
}

fn interrupted() -> Failure {
    Failure::new(
        Exit::Interrupted,
        "interrupted; the demo's folder is made anew by the next run",
    )
}

fn shop(named: Option<&Path>) -> Result<Shop> {
    let boutique = Path::new(BOUTIQUE);
    let file = named.or_else(|| boutique.exists().then_some(boutique));
    let Some(file) = file else {
        return Ok(Shop {
            name: "bookshop".into(),
            place: "examples/bookshop.yaml (built in)".into(),
            text: BOOKSHOP.into(),
        });
    };
    let text = std::fs::read_to_string(file).map_err(|e| {
        Failure::new(
            Exit::Failure,
            format!("cannot read {}: {e}", file.display()),
        )
    })?;
    let name = if file == boutique { "boutique" } else { "shop" };
    Ok(Shop {
        name: name.into(),
        place: file.display().to_string(),
        text,
    })
}
