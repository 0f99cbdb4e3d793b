//! `gantry instance move`, and scaling in by choice: the hub's planner, written as the user.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use gantry_api::group::{InstanceNote, InstanceWish};
use gantry_api::{Group, Span};
use gantry_hub::group::moves::{Asked, Change, Step, change, not_onto, onto};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::release::start::who;
use super::release::{group, place};
use crate::cli::{Global, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::println;

/// Move instances to another cell, or to another node of their cell.
///
/// To a cell (--to): the new one first, the old one out when that is in service.
///
/// To a node (--to-node): the pod is drained and replaced by one of the same name there, as far as the group's budget
/// goes and not while a release is under way. Refused, with nothing done, where the cell has no such node, or the node
/// is not ready, cordoned, or without room. A pod that is made later is placed freely again.
#[derive(Debug, Args)]
#[group(id = "where_to", required = true, multiple = false, args = ["to", "to_node"])]
pub struct Move {
    /// The instances
    #[arg(required = true)]
    pub names: Vec<String>,
    /// The cell to move to; one of the group's placement
    #[arg(long, value_name = "CELL")]
    pub to: Option<String>,
    /// The node to move to; one of the instances' own cell
    #[arg(long, value_name = "NODE")]
    pub to_node: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Only print what would be done; what the node has room for is not looked at
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until the instances are ready on the node
    #[arg(short, long, conflicts_with_all = ["to", "dry_run"])]
    pub watch: bool,
    /// Give up watching after this long; the move goes on
    #[arg(long, value_name = "SPAN", default_value = "10m", requires = "watch")]
    pub timeout: Span,
    #[command(flatten)]
    pub tenant: Tenant,
}

/// What happens to an instance, in words.
fn told(step: &Step, to: Option<&str>) -> String {
    let Step {
        goes,
        cell,
        renewed,
    } = step;
    let when = to.map_or_else(
        || "goes".to_owned(),
        |to| format!("goes once {to} has one more in service"),
    );
    match renewed {
        None => format!("{goes} {when}"),
        Some(other) => format!(
            "{other} is not the last of {cell}: its pod goes, {goes} {when}, and a new pod is made as {other}"
        ),
    }
}

/// Writes it, on the group as it was looked at.
async fn write(client: &Client, tenant: &str, group: &Group, change: &Change) -> Result<()> {
    let api: Api<Group> = Api::namespaced(client.clone(), tenant);
    let name = group.name_any();
    let patch = json!({
        // Of the spec as it was read: someone else's change meanwhile is looked at again.
        "metadata": {"resourceVersion": group.resource_version()},
        "spec": {"replicas": change.replicas, "instances": change.instances, "placement": {"cells": change.cells}},
    });
    api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(|_| ())
        .map_err(|e| failed(&format!("cannot change the group {tenant}/{name}"), e))
}

/// Plans and, unless it is a dry run, writes; tries again where the group has changed meanwhile.
pub async fn go(
    client: &Client,
    tenant: &str,
    name: &str,
    names: &[String],
    to: Option<&str>,
    reason: &str,
    dry_run: bool,
) -> Result<Change> {
    let by = who(client).await;
    let mut tries = 0;
    loop {
        let seen = group(client, tenant, name).await?;
        let asked = Asked {
            names,
            to,
            reason,
            by: &by,
            now: Timestamp::now(),
        };
        let change = change(&seen, asked).map_err(|e| {
            Failure::new(Exit::Failure, e).hint(format!("gantry get instances {name} -n {tenant}"))
        })?;
        let written = if dry_run {
            Ok(())
        } else {
            write(client, tenant, &seen, &change).await
        };
        tries += 1;
        match written {
            Err(failure) if tries < 10 && failure.message.contains("has been modified") => {}
            written => {
                written?;
                for step in &change.steps {
                    println(told(step, to))?;
                }
                if dry_run {
                    println("nothing has been changed")?;
                }
                return Ok(change);
            }
        }
    }
}

pub async fn run(args: Move, global: &Global) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let home = super::instance::group_of(&client, &tenant, &args.names).await?;
    let name = home.name_any();
    if let Some(node) = &args.to_node {
        return to_node(&client, &tenant, &name, node, &args).await;
    }
    go(
        &client,
        &tenant,
        &name,
        &args.names,
        args.to.as_deref(),
        &args.reason,
        args.dry_run,
    )
    .await?;
    println(format!(
        "how it stands: gantry get groups {name} -n {tenant} -o yaml (status.instances)"
    ))?;
    Ok(None)
}

/// How long the hub may take to answer before its answer is left to be looked up.
const ANSWER: Duration = Duration::from_secs(15);

async fn to_node(
    client: &Client,
    tenant: &str,
    name: &str,
    node: &str,
    args: &Move,
) -> Result<Option<Exit>> {
    // Where they are is for the record and for the reader; whoever may not read pods moves them all the same.
    let seen = super::instances::list(client, Some(tenant), Some(name)).await;
    let seen = seen.map(|(all, _)| all).unwrap_or_default();
    let from: BTreeMap<String, String> = seen.into_iter().map(|i| (i.name, i.node)).collect();
    let mut names = args.names.clone();
    names.sort();
    names.dedup();
    for there in names
        .iter()
        .filter(|n| from.get(*n).is_some_and(|f| f == node))
    {
        println(format!("{there} is on {node} already"))?;
    }
    names.retain(|n| from.get(n).is_none_or(|f| f != node));
    if names.is_empty() {
        return Ok(None);
    }
    let by = who(client).await;
    let now = Timestamp::now();
    let asked = Asked {
        names: &names,
        to: Some(node),
        reason: &args.reason,
        by: &by,
        now,
    };
    let cannot = |e: String| {
        Failure::new(Exit::Failure, e).hint(format!("gantry get instances {name} -n {tenant}"))
    };
    let asks = |group: &Group| onto(group, &from, asked).map_err(cannot);
    if args.dry_run {
        asks(&group(client, tenant, name).await?)?;
        for instance in &names {
            let from = from.get(instance).map_or("?", String::as_str);
            println(format!("{instance} goes from {from} to {node}"))?;
        }
        println("nothing has been changed")?;
        return Ok(None);
    }
    let mut written = wish(client, tenant, name, asks).await?;
    let entry = written
        .spec
        .instances
        .iter()
        .find(|w| names.contains(&w.name));
    let before = entry
        .and_then(|w| w.to_node.as_ref())
        .map(|t| t.before.clone());
    let before = before.unwrap_or(Time(now));
    let generation = written.metadata.generation;
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let patience = if args.watch {
        args.timeout.duration()
    } else {
        ANSWER
    };
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let status = written.status.clone().unwrap_or_default();
        let notes: Vec<&InstanceNote> = if status.observed_generation >= generation {
            let all = status.instances.iter();
            all.filter(|n| names.contains(&n.name)).collect()
        } else {
            vec![]
        };
        let refused: Vec<&InstanceNote> = notes
            .iter()
            .copied()
            .filter(|n| n.state == "Refused" && !told.contains_key(&n.name))
            .collect();
        let unserved = status.message.starts_with("instances[].toNode:");
        if !refused.is_empty() || unserved {
            let which = refused.iter().map(|n| n.name.clone());
            let which: Vec<String> = if unserved {
                names.clone()
            } else {
                which.collect()
            };
            let back = |group: &Group| Ok(not_onto(&group.spec.instances, &which, &before));
            wish(client, tenant, name, back).await?;
            let why = refused.iter().map(|n| n.message.as_str());
            let why: Vec<&str> = why.chain(unserved.then_some(&*status.message)).collect();
            return Err(cannot(why.join("; ")));
        }
        for note in &notes {
            let words = match note.state.as_str() {
                "Moved" => format!("{}: is ready on {node}", note.name),
                state if note.message.is_empty() => format!("{}: {state}", note.name),
                state => format!("{}: {state}, {}", note.name, note.message),
            };
            if told.get(&note.name) != Some(&words) {
                println(&words)?;
                told.insert(note.name.clone(), words);
            }
        }
        let all =
            |state: &str| notes.len() == names.len() && notes.iter().all(|n| n.state == state);
        if all("Moved") {
            return Ok(None);
        }
        if notes.iter().any(|n| n.state == "Elsewhere") {
            return Err(cannot(
                "a new pod was made, and not on that node".to_owned(),
            ));
        }
        if !args.watch && notes.len() == names.len() || tokio::time::Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        written = group(client, tenant, name).await?;
    }
    println(format!(
        "how it stands: gantry get groups {name} -n {tenant} -o yaml (status.instances)"
    ))?;
    Ok(args.watch.then_some(Exit::ReleaseWaits))
}

/// Writes other wishes for instances; looks again where the group has changed meanwhile.
async fn wish(
    client: &Client,
    tenant: &str,
    name: &str,
    wishes: impl Fn(&Group) -> Result<Vec<InstanceWish>>,
) -> Result<Group> {
    let api: Api<Group> = Api::namespaced(client.clone(), tenant);
    loop {
        let seen = group(client, tenant, name).await?;
        let patch = json!({
            "metadata": {"resourceVersion": seen.resource_version()},
            "spec": {"instances": wishes(&seen)?},
        });
        let params = PatchParams::default();
        match api.patch(name, &params, &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            written => {
                return written
                    .map_err(|e| failed(&format!("cannot change the group {tenant}/{name}"), e));
            }
        }
    }
}
