//! `gantry policy dry-run`: whose pods would land elsewhere under a placement policy.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gantry_api::PlacementPolicy;
use gantry_scheduler::core::{Cluster, NodeId};
use gantry_scheduler::{Snapshot, snapshot};
use serde::Serialize;

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

/// What the policies would change.
#[derive(Serialize, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Report {
    policies: Vec<Told>,
    /// Pods that run.
    pods: usize,
    /// Those whose node would not take them any more, and of these how many no node would take.
    must_move: usize,
    nowhere: usize,
    /// Those whose node would still do, but which would be placed elsewhere.
    would_differ: usize,
    list: Vec<Moved>,
}

#[derive(Serialize, Debug, PartialEq, Eq)]
struct Told {
    name: String,
    pods: i64,
    problems: Vec<String>,
}

#[derive(Serialize, Debug, PartialEq, Eq)]
struct Moved {
    pod: String,
    from: String,
    /// Absent: no node would take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    why: String,
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

fn trial(snapshot: Snapshot, policies: &[PlacementPolicy], most: usize) -> Report {
    let Snapshot {
        mut cluster,
        placed,
        ..
    } = snapshot;
    let before: Vec<_> = placed
        .iter()
        .map(|(uid, _)| (cluster.landing(uid), cluster.request_of(uid)))
        .collect();
    for policy in policies {
        cluster.set_policy(policy);
    }
    cluster.settle_rules();
    let mut report = Report::default();
    for ((uid, key), before) in placed.iter().zip(before) {
        report.pods += 1;
        // Of whom the policies say nothing new goes nowhere else, though it may be a draw between nodes.
        let (before, request) = before;
        if request == cluster.request_of(uid) {
            continue;
        }
        let (Some(before), Some(after)) = (before, cluster.landing(uid)) else {
            continue;
        };
        // A node that would not take the pod any more, whatever the policies say, is none of their doing.
        let leaves = before.stays && !after.stays;
        let differs = after.node != before.node;
        if !leaves && !differs {
            continue;
        }
        report.must_move += usize::from(leaves);
        report.nowhere += usize::from(leaves && after.node.is_none());
        report.would_differ += usize::from(!leaves);
        if report.list.len() < most {
            let moved = moved(&mut cluster, uid, key, after.node, leaves);
            report.list.push(moved);
        }
    }
    let pods = cluster.policy_pods();
    report.policies = policies
        .iter()
        .map(|policy| {
            let name = policy.metadata.name.clone().unwrap_or_default();
            Told {
                pods: pods.get(name.as_str()).copied().unwrap_or_default(),
                problems: cluster.policy_problems(&name),
                name,
            }
        })
        .collect();
    report
}

fn moved(cluster: &mut Cluster, uid: &str, key: &str, to: Option<NodeId>, leaves: bool) -> Moved {
    let placed = cluster.placed(uid);
    let from = placed.map(|p| cluster.node_name(p.node).to_owned());
    let refusal = if leaves { cluster.refusal(uid) } else { None };
    let why = refusal.unwrap_or_else(|| "another node would be better".to_owned());
    Moved {
        pod: key.to_owned(),
        from: from.unwrap_or_default(),
        to: to.map(|node| cluster.node_name(node).to_owned()),
        why,
    }
}

fn show(report: &Report) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_scheduler::core::object::{Node, Pod};
    use serde_json::json;

    #[test]
    fn pods_that_a_policy_would_send_elsewhere_are_counted_and_named() {
        let mut cluster = Cluster::new();
        for (name, disk) in [("n1", "hdd"), ("n2", "ssd"), ("n3", "ssd")] {
            let node = json!({"metadata": {"name": name, "labels": {"disk": disk}},
                "status": {"allocatable": {"cpu": "2", "memory": "8Gi", "pods": "110"}}});
            let node: Node = serde_json::from_value(node).unwrap();
            cluster.upsert_node(&node);
        }
        let mut placed = Vec::new();
        for (name, node) in [("a", "n1"), ("b", "n1"), ("c", "n2"), ("d", "n3")] {
            let pod = json!({"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            cluster.observe(&pod, node);
            placed.push((name.into(), pod.key().into()));
        }
        let snapshot = Snapshot {
            cluster,
            waiting: Vec::new(),
            unowned: Default::default(),
            placed,
        };
        let policy: PlacementPolicy = serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": "fast"},
            "spec": {"pods": {"namespaces": ["shop"]}, "hardware": {"required": {"disk": ["ssd"]}}}}))
        .unwrap();
        let report = trial(snapshot, &[policy], 1);
        assert_eq!((report.pods, report.must_move, report.nowhere), (4, 2, 0));
        assert_eq!(report.policies[0].pods, 4);
        assert_eq!(report.list.len(), 1);
        let first = &report.list[0];
        assert_eq!((first.pod.as_str(), first.from.as_str()), ("shop/a", "n1"));
        assert_eq!(first.why, "node(s) didn't match placement policy fast");
    }
}
