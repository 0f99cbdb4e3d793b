//! `gantry policy dry-run`: whose pods would land elsewhere under a placement policy.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gantry_api::PlacementPolicy;
use gantry_scheduler::snapshot;
use gantry_scheduler::trial::{Told, Trial, trial};

use super::profiles;
use crate::cli::Global;
use crate::commands::import::{text, unreadable};
use crate::connect::{connect, failed};
use crate::failure::{Exit, Failure, Result};
use crate::import::values;
use crate::output::{Format, print, print_value, println, table};

#[derive(Debug, Subcommand)]
pub enum Policy {
    DryRun(DryRun),
}

/// Say whose pods would now land elsewhere, were the policies of a file in force.
///
/// Every pod that runs is thought away and placed again, without the policies and with them. Nothing
/// is changed: policies hold from the next placement on, and pods that run stay where they are.
#[derive(Debug, Args)]
pub struct DryRun {
    /// PlacementPolicies, YAML or JSON; - reads standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    pub filename: PathBuf,
    /// Profiles from a KubeSchedulerConfiguration [default: kube-scheduler's default profile]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Pods to list
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub list: usize,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

pub async fn run(policy: Policy, global: &Global) -> Result<()> {
    let Policy::DryRun(args) = policy;
    let policies = policies(&args.filename)?;
    let connection = connect(global).await?;
    let snapshot = snapshot(&connection.client, profiles(args.config.as_deref())?)
        .await
        .map_err(|e| failed(&e.to_string(), e.source))?;
    let report = trial(snapshot, &policies, args.list);
    if args.output != Format::Table {
        return print_value(&report, args.output);
    }
    show(&report)
}

fn policies(file: &PathBuf) -> Result<Vec<PlacementPolicy>> {
    let mut policies = Vec::new();
    for manifest in values(&text(file)?).map_err(|e| unreadable(file, &e))? {
        let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
        if kind != "PlacementPolicy" {
            let why = format!("there is a {kind:?} where a PlacementPolicy is expected");
            return Err(unreadable(file, &why));
        }
        let policy = serde_json::from_value(manifest);
        policies.push(policy.map_err(|e| unreadable(file, &e.to_string()))?);
    }
    if policies.is_empty() {
        let why = format!("{} holds no PlacementPolicy", file.display());
        return Err(Failure::new(Exit::Usage, why));
    }
    Ok(policies)
}

fn show(report: &Trial) -> Result<()> {
    for Told {
        name,
        pods,
        problems,
    } in &report.policies
    {
        println(format!(
            "PlacementPolicy {name} selects {pods} pods that run."
        ))?;
        for problem in problems {
            println(format!("  problem: {problem}"))?;
        }
    }
    println(format!(
        "Of {} pods that run, {} are where they could not be placed any more ({} of them nowhere at all); {} more would \
         be placed elsewhere now.",
        report.pods, report.must_move, report.nowhere, report.would_differ
    ))?;
    if report.list.is_empty() {
        return Ok(());
    }
    let rows = report.list.iter().map(|moved| {
        let to = moved.to.clone().unwrap_or_else(|| "-".to_owned());
        vec![moved.pod.clone(), moved.from.clone(), to, moved.why.clone()]
    });
    println("")?;
    print(&table(&["POD", "FROM", "TO", "WHY"], rows.collect()))?;
    let rest = report.must_move + report.would_differ - report.list.len();
    if rest > 0 {
        println(format!("… and {rest} more (--list shows more)"))?;
    }
    Ok(())
}
