//! `gantry release plan`: what a release would do, worked out by the hub's own planner; nothing is
//! written.

use clap::Args;
use gantry_api::release::{Method, ReleaseSpec, Slice};
use gantry_api::strategy::{Accept, OnFailure, Pause, StrategySpec, WithinBatch};
use gantry_api::{App, Cluster, Group, Release, StopLine, Strategy};
use gantry_hub::release::{Preview, World, cells, gate::Answers, preview};
use gantry_hub::world::{CellView, Quota};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::place;
use super::start::{Change, StrategyArgs};
use crate::cli::{Global, Output, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Format, Tone, color, paint, print, print_value, table};

/// Show what a release would do, batch by batch, and change nothing.
///
/// The options are those of `gantry release start`. The exit code is 1 where the release would be
/// impossible.
#[derive(Debug, Args)]
pub struct Plan {
    /// The group
    pub group: String,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub strategy: StrategyArgs,
    #[command(flatten)]
    pub output: Output,
}

pub async fn run(args: Plan, global: &Global) -> Result<Option<Exit>> {
    let revision = args.change.revision()?;
    let (client, tenant) = place(&args.tenant, global).await?;
    let what = format!("cannot plan a release of {tenant}/{}", args.group);
    let group = super::group(&client, &tenant, &args.group).await?;
    let base = group.spec.strategy.as_ref().and_then(|s| s.inline.clone());
    let spec = ReleaseSpec {
        group: args.group.clone(),
        revision,
        strategy: args.strategy.choice(base),
        ..ReleaseSpec::default()
    };
    let mut release = Release::new("plan", spec);
    release.metadata.namespace = Some(tenant.clone());
    let apps: Api<App> = Api::namespaced(client.clone(), &tenant);
    let app = apps
        .get_opt(&group.spec.app)
        .await
        .map_err(|e| failed(&what, e))?;
    let revisions = super::super::revision::all(&client, &tenant, &args.group).await?;
    let strategy = strategy(&client, &tenant, &release, &group).await?;
    let lines: Api<StopLine> = Api::all(client.clone());
    let lines = lines
        .list(&ListParams::default())
        .await
        .map_err(|e| failed(&what, e))?
        .items;
    let clusters: Api<Cluster> = Api::all(client.clone());
    let clusters = clusters
        .list(&ListParams::default())
        .await
        .map_err(|e| failed(&what, e))?
        .items;
    let mut cells = cells(&group, &clusters);
    quotas(&client, &tenant, &clusters, &mut cells).await;
    let world = World {
        release: &release,
        group: Some(&group),
        app: app.as_ref(),
        strategy,
        revisions: &revisions,
        cells: &cells,
        lines: &lines,
        answers: &Answers::new(),
        origin: None,
        undoes: false,
    };
    let preview = preview(&world, Timestamp::now())
        .map_err(|why| Failure::new(Exit::Failure, format!("{what}: {why}")))?;
    if args.output.output == Format::Table {
        print(&show(&preview, &tenant, &args.group, color()))?;
    } else {
        let value = json!({
            "from": preview.from.number,
            "target": {"revision": preview.target.number, "spec": preview.target.spec},
            "plan": preview.plan,
            "problems": preview.problems,
            "waits": preview.waits,
        });
        print_value(&value, args.output.output)?;
    }
    Ok((!preview.problems.is_empty()).then_some(Exit::Failure))
}

/// Puts down what quotas the members have. A member that does not answer is told of, and left out.
async fn quotas(client: &Client, tenant: &str, clusters: &[Cluster], cells: &mut [CellView]) {
    for cluster in clusters {
        let name = cluster.name_any();
        let mut of_cluster = cells.iter_mut().filter(|c| c.cluster == name).peekable();
        if of_cluster.peek().is_none() {
            continue;
        }
        let found = async {
            let member = super::super::instances::member(client, cluster).await?;
            let api: Api<ResourceQuota> = Api::namespaced(member, tenant);
            Ok::<_, anyhow::Error>(api.list(&ListParams::default()).await?.items)
        };
        match found.await {
            Ok(found) => {
                let quotas: Vec<Quota> = found.iter().filter_map(Quota::of).collect();
                of_cluster.for_each(|c| c.quotas.clone_from(&quotas));
            }
            Err(error) => eprintln!(
                "{}",
                paint(
                    format!("quotas on {name} are not known: {error:#}"),
                    Tone::Warn,
                    color()
                )
            ),
        }
    }
}

/// What quotas and cells leave, for people.
fn rooms(plan: &gantry_api::release::Plan) -> String {
    let rows: Vec<Vec<String>> = plan
        .rooms
        .iter()
        .map(|r| {
            let fits = if r.fits { "yes" } else { "no" };
            let numbers = [&r.total.0, &r.used.0, &r.more.0];
            let mut row = vec![r.of.clone(), r.cluster.clone(), r.resource.clone()];
            row.extend(numbers.map(Clone::clone));
            row.push(fits.to_owned());
            row
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = [
        "ROOM", "CLUSTER", "RESOURCE", "TOTAL", "USED", "MORE", "FITS",
    ];
    table(&header, rows) + "\n"
}

/// The strategy that would hold.
async fn strategy(
    client: &Client,
    tenant: &str,
    release: &Release,
    group: &Group,
) -> Result<Result<StrategySpec, String>> {
    let choices = [release.spec.strategy.as_ref(), group.spec.strategy.as_ref()];
    let Some(choice) = choices.into_iter().flatten().next() else {
        return Ok(Ok(StrategySpec::default()));
    };
    if let Some(inline) = &choice.inline {
        return Ok(Ok(inline.clone()));
    }
    let Some(name) = &choice.name else {
        return Ok(Ok(StrategySpec::default()));
    };
    let api: Api<Strategy> = Api::namespaced(client.clone(), tenant);
    let found = api
        .get_opt(name)
        .await
        .map_err(|e| failed(&format!("cannot get the strategy {tenant}/{name}"), e))?;
    Ok(found
        .map(|s| s.spec)
        .ok_or_else(|| format!("strategy {name} does not exist")))
}

/// The plan for people.
fn show(preview: &Preview, tenant: &str, group: &str, color: bool) -> String {
    let plan = &preview.plan;
    let strategy = &plan.strategy;
    let mut text = format!(
        "{}  revision {} → {}  {} → {}\n",
        paint(format!("{tenant}/{group}"), Tone::Strong, color),
        preview.from.number,
        preview.target.number,
        preview.from.spec.image,
        preview.target.spec.image,
    );
    text += &format!("{}: {}\n\n", preview.summary, plan.method_reason);
    let rows = plan
        .batches
        .iter()
        .filter(|b| b.size > 0)
        .flat_map(|batch| {
            batch.slices.iter().enumerate().map(|(i, slice)| {
                let of_batch = |text: String| if i == 0 { text } else { String::new() };
                let name = match batch.index {
                    0 => "bastion".to_owned(),
                    n => n.to_string(),
                };
                vec![
                    of_batch(name),
                    of_batch(batch.size.to_string()),
                    of_batch(batch.out.to_string()),
                    slice.cell.clone(),
                    range(group, slice),
                    how(plan.method, slice),
                ]
            })
        })
        .collect();
    text += &table(
        &["BATCH", "INSTANCES", "OUT AT MOST", "CELL", "WHICH", "HOW"],
        rows,
    );
    text += "\n";
    text += &rooms(plan);
    for line in rules(strategy) {
        text += &format!("{line}\n");
    }
    for wait in &preview.waits {
        text += &format!(
            "{}\n",
            paint(format!("would wait now: {wait}"), Tone::Warn, color)
        );
    }
    if preview.problems.is_empty() {
        text += &paint(
            "checked against the strategy: it keeps it",
            Tone::Good,
            color,
        );
        text += "\n";
    }
    for problem in &preview.problems {
        text += &format!(
            "{}\n",
            paint(format!("impossible: {problem}"), Tone::Bad, color)
        );
    }
    text
}

fn range(group: &str, slice: &Slice) -> String {
    let name = |n| slice.instance(group, n);
    if slice.highest == slice.lowest {
        name(slice.highest)
    } else {
        format!("{} … {}", name(slice.highest), slice.lowest)
    }
}

fn how(method: Method, slice: &Slice) -> String {
    let word = match slice.method.unwrap_or(method) {
        Method::InPlace => "in place",
        Method::Recreate => "recreated",
    };
    if slice.reason.is_empty() {
        word.to_owned()
    } else {
        format!("{word}: {}", slice.reason)
    }
}

/// What holds while it runs, in words.
fn rules(strategy: &StrategySpec) -> Vec<String> {
    let mut lines = Vec::new();
    let accept = match strategy.bastion.accept {
        Accept::Manual => "the bastion waits for a person",
        Accept::Auto => "the bastion is accepted as soon as it is ready",
    };
    let pause = match strategy.pause {
        Pause::Never => "no stop between batches",
        Pause::AfterBastion => "a stop after the bastion",
        Pause::EachBatch => "a stop after every batch",
    };
    let within = match strategy.within_batch {
        WithinBatch::SlidingWindow => "instances follow each other in a sliding window",
        WithinBatch::LockStep => "instances go in waves",
    };
    lines.push(format!("{accept}; {pause}; {within}"));
    for gate in &strategy.gates {
        let kind = match (&gate.wait, &gate.metric, &gate.webhook, &gate.approval) {
            (Some(wait), ..) => format!("wait {wait}"),
            (_, Some(metric), ..) => format!("metric {}", metric.query),
            (_, _, Some(webhook), _) => format!("webhook {}", webhook.url),
            (.., Some(approval)) => format!("{} approvals", approval.count),
            _ => "nothing".to_owned(),
        };
        let at = if gate.at.is_empty() {
            "everywhere".to_owned()
        } else {
            let points: Vec<String> = gate.at.iter().map(|p| format!("{p:?}")).collect();
            points.join(", ")
        };
        lines.push(format!("gate {} ({kind}) at: {at}", gate.name));
    }
    let limit = |what: &str, span: Option<gantry_api::Span>| span.map(|s| format!("{what} {s}"));
    let deadlines: Vec<String> = [
        limit("instance", Some(strategy.deadlines.instance)),
        limit("batch", strategy.deadlines.batch),
        limit("total", strategy.deadlines.total),
    ]
    .into_iter()
    .flatten()
    .collect();
    let then = match strategy.on_failure {
        OnFailure::Pause => "stands still",
        OnFailure::Rollback => "goes back",
    };
    lines.push(format!(
        "deadlines: {}; more than {} failed: it {then}",
        deadlines.join(", "),
        strategy.failure_tolerance
    ));
    lines
}

#[cfg(test)]
mod tests {
    use gantry_api::{RevisionChange, group::GroupCellStatus};
    use gantry_hub::{
        render::{self, Source},
        world::Revisions,
    };

    use super::*;

    #[test]
    fn a_plan_for_people() {
        let app = App::new("cart", gantry_api::AppSpec::default());
        let mut group: Group = serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Group",
            "metadata": {"name": "cart-prod", "namespace": "shop"},
            "spec": {"app": "cart", "placement": {"cells": []}, "revision": {"image": "cart:1"}},
            "status": {"current": {"revision": 1, "image": "cart:1"}},
        }))
        .unwrap();
        let cell = |name: &str, desired| GroupCellStatus {
            name: name.into(),
            cluster: "sh".into(),
            desired,
            ..GroupCellStatus::default()
        };
        group.status.as_mut().unwrap().cells = vec![cell("sh-a", 4), cell("sh-b", 3)];
        let spec = group.spec.revision.clone();
        let one = render::revision(Source::new(&app, &group), &spec, 1);
        let release = Release::new(
            "plan",
            ReleaseSpec {
                group: "cart-prod".into(),
                revision: RevisionChange {
                    image: Some("cart:2".into()),
                    ..RevisionChange::default()
                },
                ..ReleaseSpec::default()
            },
        );
        let strategy: StrategySpec = serde_json::from_value(json!({
            "batches": {"sizes": [1, 2, "100%"]}, "maxUnavailable": 2, "withinBatch": "LockStep",
            "gates": [{"name": "errors", "at": ["Bastion", "Batch"], "metric": {"address": "http://prom", "query": "rate(e[1m])", "max": 1}}],
        }))
        .unwrap();
        let cells = cells(&group, &[]);
        let world = World {
            release: &release,
            group: Some(&group),
            app: Some(&app),
            strategy: Ok(strategy),
            revisions: &Revisions::from([(1, one)]),
            cells: &cells,
            lines: &[],
            answers: &Answers::new(),
            origin: None,
            undoes: false,
        };
        let preview = preview(&world, Timestamp::UNIX_EPOCH).unwrap();
        insta::assert_snapshot!(show(&preview, "shop", "cart-prod", false));
    }
}
