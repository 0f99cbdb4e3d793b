//! `gantry order`: releases of many groups, and jobs between them, in the order they depend on each other.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use gantry_api::order::{NodeState, OrderNode, OrderPhase};
use gantry_api::{Group, ReleaseOrder, ReleaseOrderSpec, ReleaseOrderStatus};
use gantry_hub::order::graph;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::release::place;
use super::release::start::{read, who};
use super::release::{Watching, watch};
use crate::cli::{Global, Output, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Format, Tone, color, paint, print, print_value, println, table};
use crate::view::live::Live;

#[derive(Debug, Subcommand)]
pub enum Order {
    Start(Start),
    Plan(Plan),
    Status(Status),
    /// Stand still: releases under way are paused, jobs run on, nothing else is begun
    Pause(Named),
    /// Go on after a pause
    Continue(Named),
    /// Try failed nodes again
    Retry(Named),
    /// End here: releases under way are aborted, everything stays as it is
    Abort(Named),
    /// Take back what has been done, the last first
    Rollback(Named),
}

/// Start an order: releases and jobs, each after those it depends on.
#[derive(Debug, Args)]
pub struct Start {
    /// The ReleaseOrder as YAML, or its spec alone; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Name of the order [default: that in the file]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub watching: Watching,
}

/// Show in which order the nodes would run, and change nothing.
#[derive(Debug, Args)]
pub struct Plan {
    /// The ReleaseOrder as YAML, or its spec alone; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub tenant: Tenant,
}

/// Show an order node by node.
#[derive(Debug, Args)]
pub struct Status {
    /// Name of the order
    pub name: String,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub watching: Watching,
    #[command(flatten)]
    pub output: Output,
}

/// An order by name.
#[derive(Debug, Args)]
pub struct Named {
    /// Name of the order
    pub name: String,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub watching: Watching,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Button {
    Pause,
    Continue,
    Retry,
    Abort,
    Rollback,
}

pub async fn run(args: Order, global: &Global) -> Result<Option<Exit>> {
    match args {
        Order::Start(args) => start(args, global).await,
        Order::Plan(args) => plan(args, global).await,
        Order::Status(args) => {
            let (api, tenant) = orders(&args.tenant, global).await?;
            let order = get(&api, &tenant, &args.name).await?;
            if args.watching.watch {
                return until_end(&api, order, args.watching).await;
            }
            if args.output.output != Format::Table {
                print_value(&order, args.output.output)?;
            } else {
                print(&(show(&order, color()).join("\n") + "\n"))?;
            }
            Ok(None)
        }
        Order::Pause(args) => press(args, global, Button::Pause).await,
        Order::Continue(args) => press(args, global, Button::Continue).await,
        Order::Retry(args) => press(args, global, Button::Retry).await,
        Order::Abort(args) => press(args, global, Button::Abort).await,
        Order::Rollback(args) => press(args, global, Button::Rollback).await,
    }
}

async fn orders(tenant: &Tenant, global: &Global) -> Result<(Api<ReleaseOrder>, String)> {
    let (client, tenant) = place(tenant, global).await?;
    Ok((Api::namespaced(client, &tenant), tenant))
}

async fn get(api: &Api<ReleaseOrder>, tenant: &str, name: &str) -> Result<ReleaseOrder> {
    api.get_opt(name)
        .await
        .map_err(|e| failed(&format!("cannot get the order {tenant}/{name}"), e))?
        .ok_or_else(|| {
            Failure::new(Exit::Failure, format!("there is no order {tenant}/{name}"))
                .hint("`gantry get orders -A` lists them; -n names the tenant")
        })
}

/// An order of a file: the whole object, or its spec alone.
fn parse(text: &str) -> Result<(Option<String>, ReleaseOrderSpec), String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    if let Some(kind) = value.get("kind").filter(|k| **k != "ReleaseOrder") {
        return Err(format!("it is a {kind}, not a ReleaseOrder"));
    }
    let name = value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let spec = value.get("spec").cloned().unwrap_or(value);
    let spec = serde_json::from_value(spec).map_err(|e| e.to_string())?;
    Ok((name, spec))
}

fn of_file(file: &std::path::Path) -> Result<(Option<String>, ReleaseOrderSpec)> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).map_err(anyhow::Error::from)?
    } else {
        read(file)?
    };
    parse(&text).map_err(|e| Failure::usage(format!("{} is no order: {e}", file.display())))
}

async fn start(args: Start, global: &Global) -> Result<Option<Exit>> {
    let (named, mut spec) = of_file(&args.file)?;
    let name = args.name.or(named).ok_or_else(|| {
        Failure::usage("the order has no name").hint("--name NAME, or metadata.name in the file")
    })?;
    // Refused here in the words that the hub would use.
    graph::sorted(&spec.nodes).map_err(Failure::usage)?;
    let (client, tenant) = place(&args.tenant, global).await?;
    if spec.requested_by.is_empty() {
        spec.requested_by = who(&client).await;
    }
    let api: Api<ReleaseOrder> = Api::namespaced(client, &tenant);
    let order = api
        .create(&PostParams::default(), &ReleaseOrder::new(&name, spec))
        .await
        .map_err(|e| failed(&format!("cannot start the order {tenant}/{name}"), e))?;
    println(format!("order {tenant}/{name} started"))?;
    if args.watching.watch {
        return until_end(&api, order, args.watching).await;
    }
    println(format!(
        "watch it with: gantry order status {name} -n {tenant} --watch"
    ))?;
    Ok(None)
}

async fn plan(args: Plan, global: &Global) -> Result<Option<Exit>> {
    let (_, spec) = of_file(&args.file)?;
    let waves = waves(&spec.nodes).map_err(Failure::usage)?;
    let (client, tenant) = place(&args.tenant, global).await?;
    let api: Api<Group> = Api::namespaced(client, &tenant);
    let groups = api
        .list(&ListParams::default())
        .await
        .map_err(|e| failed(&format!("cannot get the groups of {tenant}"), e))?;
    let known: Vec<String> = groups.items.iter().map(ResourceExt::name_any).collect();
    print(&table(&["WAVE", "NODE", "WHAT", "AFTER"], rows(&waves)))?;
    let unknown: Vec<String> = spec
        .nodes
        .iter()
        .filter_map(|n| Some((n, n.release.as_ref()?)))
        .filter(|(_, r)| !known.contains(&r.group))
        .map(|(n, r)| format!("node {}: group {tenant}/{} does not exist", n.name, r.group))
        .collect();
    for problem in &unknown {
        println(paint(format!("impossible: {problem}"), Tone::Bad, color()))?;
    }
    Ok((!unknown.is_empty()).then_some(Exit::Failure))
}

/// Nodes by the wave that they can begin with at the earliest, in order.
fn waves(nodes: &[OrderNode]) -> Result<Vec<(usize, &OrderNode)>, String> {
    let mut wave = vec![0; nodes.len()];
    let at = |name: &String| nodes.iter().position(|n| n.name == *name);
    for index in graph::sorted(nodes)? {
        let before = nodes[index].after.iter().filter_map(at);
        wave[index] = before.map(|i| wave[i] + 1).max().unwrap_or(0);
    }
    let mut all: Vec<(usize, &OrderNode)> = wave.into_iter().zip(nodes).collect();
    all.sort_by_key(|(wave, _)| *wave);
    Ok(all)
}

fn what(node: &OrderNode) -> String {
    match (&node.release, &node.job) {
        (Some(release), _) => {
            let brings = match (
                &release.promote,
                &release.revision.image,
                release.revision.to,
            ) {
                (Some(promote), ..) => format!(" from {}", promote.from),
                (_, Some(image), _) => format!(" {image}"),
                (.., Some(to)) => format!(" revision {to}"),
                _ => String::new(),
            };
            format!("release {}{brings}", release.group)
        }
        (_, Some(job)) => {
            let undo = if job.undo.is_some() { "" } else { ", no undo" };
            format!("job in {}{undo}", job.cell)
        }
        _ => "nothing".to_owned(),
    }
}

fn rows(waves: &[(usize, &OrderNode)]) -> Vec<Vec<String>> {
    waves
        .iter()
        .map(|(wave, node)| {
            vec![
                (wave + 1).to_string(),
                node.name.clone(),
                what(node),
                node.after.join(","),
            ]
        })
        .collect()
}

fn word(state: NodeState) -> (&'static str, Tone) {
    match state {
        NodeState::Waiting => ("waiting", Tone::Dim),
        NodeState::Running => ("running", Tone::Busy),
        NodeState::Succeeded => ("succeeded", Tone::Good),
        NodeState::Failed => ("failed", Tone::Bad),
        NodeState::Undoing => ("undoing", Tone::Busy),
        NodeState::Undone => ("undone", Tone::Warn),
        NodeState::UndoFailed => ("undo failed", Tone::Bad),
    }
}

/// The order for people.
fn show(order: &ReleaseOrder, color: bool) -> Vec<String> {
    let status = order.status.clone().unwrap_or_default();
    let tone = match status.phase {
        OrderPhase::Succeeded => Tone::Good,
        OrderPhase::Failed => Tone::Bad,
        OrderPhase::Paused | OrderPhase::Aborted | OrderPhase::RolledBack => Tone::Warn,
        _ => Tone::Busy,
    };
    let mut lines = vec![format!(
        "{}  {}  {}",
        paint(order.name_any(), Tone::Strong, color),
        paint(status.phase.as_str(), tone, color),
        status.progress.done
    )];
    if !status.message.is_empty() {
        lines.push(format!("  {}", status.message));
    }
    let width = status.nodes.iter().map(|n| n.name.len()).max().unwrap_or(0);
    for node in &status.nodes {
        let (word, tone) = word(node.state);
        let line = format!(
            "  {:width$}  {}  {}",
            node.name,
            paint(format!("{word:11}"), tone, color),
            node.message
        );
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// The patch of the spec that a button makes, and what it does in words; an error where it would do
/// nothing now.
fn patch(order: &ReleaseOrder, button: Button) -> Result<(Value, &'static str), String> {
    let phase = order
        .status
        .as_ref()
        .map_or(OrderPhase::Pending, |s| s.phase);
    let spec = &order.spec;
    match button {
        Button::Rollback if matches!(phase, OrderPhase::RolledBack | OrderPhase::Failed) => Err(
            format!("it has ended ({}): there is nothing to take back", phase.as_str()),
        ),
        Button::Rollback => Ok((
            json!({"rollback": true}),
            "what has been done is taken back, the last first",
        )),
        _ if phase.is_final() => Err(format!(
            "it has ended ({}): its buttons do nothing any more",
            phase.as_str()
        )),
        Button::Pause if spec.paused => Err("it is paused already".to_owned()),
        Button::Pause => Ok((
            json!({"paused": true}),
            "its releases are paused, nothing else is begun",
        )),
        Button::Continue if spec.paused => Ok((json!({"paused": false}), "it goes on")),
        Button::Continue => Err(
            "it is not paused; a release that waits for a person is let on by itself: gantry release continue"
                .to_owned(),
        ),
        Button::Retry => Ok((
            json!({"retry": spec.retry + 1}),
            "failed nodes are tried again",
        )),
        Button::Abort => Ok((json!({"abort": true}), "it ends here")),
    }
}

async fn press(args: Named, global: &Global, button: Button) -> Result<Option<Exit>> {
    let (api, tenant) = orders(&args.tenant, global).await?;
    let order = get(&api, &tenant, &args.name).await?;
    let (spec, words) = patch(&order, button).map_err(|reason| {
        let what = format!("order {tenant}/{}: {reason}", args.name);
        Failure::new(Exit::Failure, what)
    })?;
    let order = api
        .patch(
            &args.name,
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": spec})),
        )
        .await
        .map_err(|e| {
            failed(
                &format!("cannot change the order {tenant}/{}", args.name),
                e,
            )
        })?;
    println(format!("order {tenant}/{}: {words}", args.name))?;
    if args.watching.watch {
        return until_end(&api, order, args.watching).await;
    }
    Ok(None)
}

/// Draws the order until it has ended, or until the time is over.
async fn until_end(
    api: &Api<ReleaseOrder>,
    order: ReleaseOrder,
    watching: Watching,
) -> Result<Option<Exit>> {
    let name = order.name_any();
    let mut live = Live::new();
    let deadline = watching
        .timeout
        .map(|t| tokio::time::Instant::now() + t.duration());
    let mut now = order;
    loop {
        live.draw(&show(&now, color()));
        let status: ReleaseOrderStatus = now.status.clone().unwrap_or_default();
        // One that is being taken back had ended before.
        let seen = status.observed_generation == now.metadata.generation;
        if seen && status.phase.is_final() {
            return Ok((status.phase != OrderPhase::Succeeded).then_some(Exit::ReleaseNotSucceeded));
        }
        if deadline.is_some_and(|d| tokio::time::Instant::now() > d) {
            return Ok(watch::exit(gantry_api::Phase::Pending));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        now = api
            .get(&name)
            .await
            .map_err(|e| failed(&format!("cannot get the order {name}"), e))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: gantry.dev/v1alpha1
kind: ReleaseOrder
metadata: {name: night}
spec:
  nodes:
  - {name: web, after: [api], release: {group: web-prod, revision: {image: 'web:2'}}}
  - {name: migrate, job: {cell: sh-a, spec: {template: {spec: {restartPolicy: Never, containers: [{name: m, image: 'm:1'}]}}}}}
  - {name: api, after: [migrate], release: {group: api-prod, promote: {from: api-test}}}
  - {name: cdn, release: {group: cdn-prod, revision: {to: 4}}}
";

    #[test]
    fn a_file_makes_waves() {
        let (name, spec) = parse(FILE).unwrap();
        assert_eq!(name.as_deref(), Some("night"));
        let waves = waves(&spec.nodes).unwrap();
        insta::assert_snapshot!(table(&["WAVE", "NODE", "WHAT", "AFTER"], rows(&waves)), @r"
        WAVE   NODE      WHAT                             AFTER
        1      migrate   job in sh-a, no undo
        1      cdn       release cdn-prod revision 4
        2      api       release api-prod from api-test   migrate
        3      web       release web-prod web:2           api
        ");
        assert!(parse("{kind: Release}").is_err());
        let (name, spec) = parse("nodes: [{name: a}]").unwrap();
        assert_eq!((name, spec.nodes.len()), (None, 1));
    }

    #[test]
    fn buttons_by_where_it_stands() {
        let order = |phase: OrderPhase, paused: bool| {
            let mut order = ReleaseOrder::new("night", ReleaseOrderSpec::default());
            order.spec.paused = paused;
            order.status.get_or_insert_default().phase = phase;
            order
        };
        use OrderPhase::{Aborted, RolledBack, Running, Succeeded};
        for (order, button, works) in [
            (order(Running, false), Button::Pause, true),
            (order(Running, true), Button::Pause, false),
            (order(Running, true), Button::Continue, true),
            (order(Running, false), Button::Continue, false),
            (order(Succeeded, false), Button::Rollback, true),
            (order(Aborted, false), Button::Rollback, true),
            (order(RolledBack, false), Button::Rollback, false),
            (order(Succeeded, false), Button::Retry, false),
        ] {
            assert_eq!(
                patch(&order, button).is_ok(),
                works,
                "{button:?} {:?}",
                order.status
            );
        }
    }
}
