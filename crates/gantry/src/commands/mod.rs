//! The commands, a file each.

pub mod adopt;
pub mod apiserver;
pub mod bench;
pub mod console;
pub mod demo;
pub mod get;
pub mod history;
pub mod hollow;
pub mod import;
pub mod instance;
pub mod instances;
pub mod line;
pub mod moves;
pub mod order;
pub mod parts;
pub mod promote;
pub mod records;
pub mod release;
pub mod revision;
pub mod scale;
pub mod scheduling;
pub mod snapshot;
pub mod tenant;
pub mod up;

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::failure::{Exit, Result};
use crate::output::print;

/// Runs the command; its exit code where it did what was asked.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let global = &cli.global;
    match cli.command {
        Command::Up(args) => up::run(args).await?,
        Command::Apiserver(args) => apiserver::run(*args).await?,
        Command::Demo(args) => demo::run(args).await?,
        Command::Import(args) => import::run(args, global).await?,
        Command::Adopt(args) => return Ok(exit(adopt::run(args, global).await?)),
        Command::Unmanage(args) => return Ok(exit(adopt::unmanage(args, global).await?)),
        Command::Get(args) => get::run(args, global).await?,
        Command::Release(args) => return Ok(exit(release::run(*args, global).await?)),
        Command::Order(args) => return Ok(exit(order::run(args, global).await?)),
        Command::Promote(args) => return Ok(exit(promote::promote(*args, global).await?)),
        Command::Promotions(args) => promote::promotions(args, global).await?,
        Command::Revision(args) => revision::run(args, global).await?,
        Command::Line(args) => line::run(args, global).await?,
        Command::Instance(args) => return Ok(exit(instance::run(args, global).await?)),
        Command::Restart(args) => return Ok(exit(instance::restart(args, global).await?)),
        Command::Scale(args) => return Ok(exit(scale::run(args, global).await?)),
        Command::Tenant(args) => tenant::run(*args, global).await?,
        Command::History(args) => records::run(args, global).await?,
        Command::Console(args) => console::run(args, global).await?,
        Command::Hub(args) => parts::hub(args, global).await?,
        Command::Scheduler(args) => scheduling::scheduler(args, global).await?,
        Command::Schedule(args) => scheduling::schedule::run(args, global).await?,
        Command::Rebalance(args) => scheduling::rebalance::run(args, global).await?,
        Command::Policy(args) => scheduling::policy::run(args, global).await?,
        Command::Explain(args) => scheduling::explain::run(args, global).await?,
        Command::Hollow(args) => hollow::run(args, global).await?,
        Command::Scenario(args) => hollow::scenario(args)?,
        Command::Controllers(args) => parts::controllers(args, global).await?,
        Command::Snapshot(args) => snapshot::run(args, global).await?,
        Command::Bench(args) => bench::run(args).await?,
        Command::Crds => print(&crds()?)?,
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "gantry", &mut script);
            print(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Gantry's CustomResourceDefinitions as one YAML text.
fn crds() -> Result<String> {
    let mut text = String::new();
    for crd in gantry_api::crds()
        .into_iter()
        .chain(gantry_api::scheduling_crds())
    {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd).map_err(anyhow::Error::from)?);
    }
    Ok(text)
}

/// The code of an end that is no error of the command itself.
fn exit(end: Option<Exit>) -> ExitCode {
    end.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit as u8))
}
