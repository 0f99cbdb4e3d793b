//! `gantry rebalance --dry-run`: which pods would better be elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gantry_scheduler::core::rebalance::{Plan, Standing};
use gantry_scheduler::{Snapshot, snapshot};
use serde::Serialize;

use super::profiles;
use crate::cli::Global;
use crate::connect::{connect, failed};
use crate::failure::Result;
use crate::output::{Format, print, print_value, println, table};

/// Propose moves of pods: off hot nodes, to even out broken spreads, and to empty little-used nodes.
///
/// Each move is shown with what it brings and what it costs. Nothing is moved. Pods without a controller, with
/// volumes, of a group, on a node of their own or guarded by an exhausted disruption budget are left where they are.
#[derive(Debug, Args)]
pub struct Rebalance {
    /// Only say; there is no other way yet
    #[arg(long, required = true)]
    pub dry_run: bool,
    /// Moves to propose at most
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub moves: usize,
    /// Profiles from a KubeSchedulerConfiguration; with LoadAwareScheduling it says what is hot
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Serialize)]
struct Report {
    before: Figures,
    after: Figures,
    moves: Vec<Row>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    hot_nodes: usize,
    broken_spreads: usize,
    empty_nodes: usize,
}

#[derive(Serialize)]
struct Row {
    pod: Arc<str>,
    from: String,
    to: String,
    why: String,
    benefit: f64,
    cost: f64,
}

impl From<Standing> for Figures {
    fn from(standing: Standing) -> Self {
        Self {
            hot_nodes: standing.hot,
            broken_spreads: standing.broken,
            empty_nodes: standing.empty,
        }
    }
}

pub async fn run(args: Rebalance, global: &Global) -> Result<()> {
    let connection = connect(global).await?;
    let snapshot = snapshot(&connection.client, profiles(args.config.as_deref())?)
        .await
        .map_err(|e| failed(&e.to_string(), e.source))?;
    let report = propose(snapshot, args.moves);
    if args.output != Format::Table {
        return print_value(&report, args.output);
    }
    show(&report)
}

fn propose(snapshot: Snapshot, most: usize) -> Report {
    let Snapshot {
        mut cluster,
        placed,
        unowned,
        ..
    } = snapshot;
    let Plan {
        moves,
        before,
        after,
    } = cluster.rebalance(most, |uid| !unowned.contains(uid));
    let keys: BTreeMap<Arc<str>, Arc<str>> = placed.into_iter().collect();
    let rows = moves.into_iter().map(|step| Row {
        pod: keys.get(&step.uid).cloned().unwrap_or(step.uid),
        from: cluster.node_name(step.from).to_owned(),
        to: cluster.node_name(step.to).to_owned(),
        why: step.why.words(),
        benefit: step.benefit,
        cost: step.cost,
    });
    Report {
        moves: rows.collect(),
        before: before.into(),
        after: after.into(),
    }
}

fn show(report: &Report) -> Result<()> {
    let figures = |f: &Figures| {
        format!(
            "{} hot nodes, {} broken spreads, {} nodes without pods to move",
            f.hot_nodes, f.broken_spreads, f.empty_nodes
        )
    };
    println(format!("Now:   {}", figures(&report.before)))?;
    if report.moves.is_empty() {
        return println("No move would make it better.");
    }
    println(format!("After: {}\n", figures(&report.after)))?;
    let rows = report.moves.iter().map(|row| {
        let (benefit, cost) = (format!("{:.1}", row.benefit), format!("{:.1}", row.cost));
        let (pod, from) = (row.pod.to_string(), row.from.clone());
        vec![pod, from, row.to.clone(), benefit, cost, row.why.clone()]
    });
    let header = ["POD", "FROM", "TO", "BENEFIT", "COST", "WHY"];
    print(&table(&header, rows.collect()))
}
