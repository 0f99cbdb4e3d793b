//! `gantry explain pod`: why a pod is where it is, or why it waits and what would help.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gantry_scheduler::core::object::Pod;
use gantry_scheduler::report::{Advice, Report, Room, Selecting, of_pod, rule_name};
use gantry_scheduler::{DECISION, Snapshot, snapshot};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;
use serde_json::Value;

use super::profiles;
use crate::cli::Global;
use crate::connect::{connect, failed};
use crate::failure::{Exit, Failure, Result};
use crate::output::{Format, Tone, color, paint, print, print_value, println, table};

#[derive(Debug, Subcommand)]
pub enum Explain {
    Pod(ExplainPod),
}

/// Say why a pod is on its node, or why it waits and the least that would have to change.
///
/// The rules are read against the cluster as it is now: for a placed pod, as if it were placed again.
/// How it was decided then is in the pod's events, for as long as the cluster keeps them.
#[derive(Debug, Args)]
pub struct ExplainPod {
    /// The pod
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub pod: String,
    /// Profiles from a KubeSchedulerConfiguration [default: kube-scheduler's default profile]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Nodes to show
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub nodes: usize,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// All that is said of a pod.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    report: Report,
    history: Vec<Past>,
}

#[derive(Serialize)]
struct Past {
    time: String,
    reason: String,
    message: String,
    count: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Value>,
}

pub async fn run(explain: Explain, global: &Global) -> Result<()> {
    let Explain::Pod(args) = explain;
    let connection = connect(global).await?;
    let (namespace, name) = match args.pod.split_once('/') {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => (connection.namespace.clone(), args.pod.clone()),
    };
    let pods = Api::<Pod>::namespaced(connection.client.clone(), &namespace);
    let pod = pods
        .get(&name)
        .await
        .map_err(|e| failed(&format!("cannot get pod {namespace}/{name}"), e))?;
    let Snapshot {
        mut cluster,
        waiting,
        ..
    } = snapshot(&connection.client, profiles(args.config.as_deref())?)
        .await
        .map_err(|e| failed(&e.to_string(), e.source))?;
    let report = of_pod(&mut cluster, &pod, &waiting, args.nodes)
        .map_err(|why| Failure::new(Exit::Failure, format!("pod {} {why}", pod.key())))?;
    let told = Told {
        report,
        history: history(&connection.client, &pod).await?,
    };
    if args.output == Format::Table {
        show(&told)
    } else {
        print_value(&told, args.output)
    }
}

async fn history(client: &Client, pod: &Pod) -> Result<Vec<Past>> {
    let events = Api::<Event>::namespaced(client.clone(), pod.namespace());
    let of_pod = ListParams::default().fields(&format!("involvedObject.uid={}", pod.uid()));
    let events = events
        .list(&of_pod)
        .await
        .map_err(|e| failed("cannot list events", e))?;
    let mut history: Vec<Past> = events
        .items
        .into_iter()
        .filter_map(|event| {
            let reason = event.reason.unwrap_or_default();
            if !matches!(
                reason.as_str(),
                "Scheduled" | "FailedScheduling" | "Preempted"
            ) {
                return None;
            }
            let time = event.last_timestamp.map(|t| t.0);
            let time = time.or(event.event_time.map(|t| t.0))?;
            let annotations = event.metadata.annotations.unwrap_or_default();
            Some(Past {
                time: format!("{time:.0}"),
                reason,
                message: event.message.unwrap_or_default(),
                count: event.count.unwrap_or(1),
                decision: annotations
                    .get(DECISION)
                    .and_then(|d| serde_json::from_str(d).ok()),
            })
        })
        .collect();
    history.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(history)
}

fn show(told: &Told) -> Result<()> {
    let report = &told.report;
    let Report {
        namespace,
        name,
        nodes,
        feasible,
        ..
    } = report;
    let strong = |text: &str| paint(text, Tone::Strong, color());
    match (&report.node, &report.message) {
        (Some(node), None) => println(format!(
            "Pod {namespace}/{name} is on {}; {feasible} of {nodes} nodes would take it now.",
            strong(node)
        ))?,
        (Some(node), Some(message)) => println(format!(
            "Pod {namespace}/{name} is on {}; placed now, it would fit nowhere:\n  {message}",
            strong(node)
        ))?,
        (None, _) if report.held.is_some() => {
            println(format!("Pod {namespace}/{name} waits:"))?;
            if let Some(held) = &report.held {
                println(format!("  {}", held.reason))?;
                if let Some(change) = &held.change {
                    println(format!("  what would help: {change}"))?;
                }
            }
            match &report.message {
                Some(message) => println(format!("As nodes are now:\n  {message}"))?,
                None => println(format!(
                    "As nodes are now, {feasible} of {nodes} would take it."
                ))?,
            }
        }
        (None, None) => println(format!(
            "Pod {namespace}/{name} waits, but {feasible} of {nodes} nodes would take it now."
        ))?,
        (None, Some(message)) => {
            println(format!("Pod {namespace}/{name} fits nowhere:\n  {message}"))?
        }
    }
    if !report.best.is_empty() {
        println("")?;
        print(&scores(report))?;
    }
    if !report.policies.is_empty() {
        println(format!(
            "\n{}",
            strong("Placement policies, the deciding first")
        ))?;
        for Selecting { name, says } in &report.policies {
            println(format!("  {name}: {}", says.join(", ")))?;
        }
    }
    if !report.excluded.is_empty() {
        let rows = report
            .excluded
            .iter()
            .map(|e| vec![e.nodes.to_string(), e.reason.clone()]);
        println(format!("\n{}", strong("Excluded by")))?;
        print(&table(&["NODES", "REASON"], rows.collect()))?;
    }
    if !report.changes.is_empty() {
        println(format!(
            "\n{}",
            strong("What would let it fit, least first")
        ))?;
        for advice in &report.changes {
            let Advice {
                change,
                nodes,
                example,
            } = advice;
            let s = if *nodes == 1 { "" } else { "s" };
            println(format!("  {change}: {nodes} node{s}, such as {example}"))?;
        }
    }
    if let Some(room) = &report.preemption {
        let Room {
            node,
            victims,
            elsewhere,
        } = room;
        let elsewhere = match elsewhere {
            0 => String::new(),
            some => format!(", {some} of them other nodes"),
        };
        println(format!(
            "  or preemption: {victims} pods of lower priority would leave {node}{elsewhere}"
        ))?;
    }
    if !told.history.is_empty() {
        println(format!("\n{}", strong("Decided before")))?;
        for past in &told.history {
            let times = if past.count > 1 {
                format!(" ({} times)", past.count)
            } else {
                String::new()
            };
            println(format!(
                "  {} {}{times}: {}",
                past.time, past.reason, past.message
            ))?;
            if let Some(decision) = &past.decision {
                println(format!("    {}", decided(decision)))?;
            }
        }
    }
    Ok(())
}

/// The score table: rules that tell no two of the nodes apart are left out.
fn scores(report: &Report) -> String {
    let told = report.telling();
    let header = ["NODE", "", "TOTAL"].into_iter();
    let header: Vec<&str> = header.chain(told.iter().map(|at| rule_name(*at))).collect();
    let rows = report.best.iter().map(|row| {
        let mark = if Some(&row.node) == report.node.as_ref() {
            "*"
        } else {
            ""
        };
        let mut cells = vec![row.node.clone(), mark.to_owned(), row.total.to_string()];
        cells.extend(told.iter().map(|at| row.by_rule[*at].to_string()));
        cells
    });
    table(&header, rows.collect())
}

/// One line of how a node was chosen then.
fn decided(decision: &Value) -> String {
    let one = |entry: &Value| {
        let node = entry["node"].as_str().unwrap_or("?");
        format!("{node} with {}", entry["score"])
    };
    let others: Vec<String> = decision["runnersUp"]
        .as_array()
        .into_iter()
        .flatten()
        .map(one)
        .collect();
    let before = if others.is_empty() {
        String::new()
    } else {
        format!(", before {}", others.join(" and "))
    };
    format!(
        "{}{before}, of {} nodes scored",
        one(&decision["chosen"]),
        decision["considered"]
    )
}
