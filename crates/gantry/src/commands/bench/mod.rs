//! `gantry bench`: what this machine does, measured on clusters that are gone afterwards.

mod fleet;
mod process;
mod watcher;

use clap::Subcommand;

use crate::failure::Result;

/// Measure an embedded cluster on this machine
#[derive(Debug, Subcommand)]
pub enum Bench {
    Fleet(fleet::Fleet),
}

pub async fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Fleet(args) => fleet::run(args).await,
    }
}
