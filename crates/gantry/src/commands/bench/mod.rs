//! `gantry bench`: what this machine does, measured on clusters that are gone afterwards.

mod fleet;
mod openb;
mod process;
mod requests;
mod watcher;

use clap::Subcommand;

use crate::failure::Result;

/// Measure an embedded cluster on this machine
#[derive(Debug, Subcommand)]
pub enum Bench {
    Fleet(fleet::Fleet),
    Openb(openb::Openb),
}

pub async fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Fleet(args) => fleet::run(args).await,
        Bench::Openb(args) => openb::run(args).await,
    }
}
