//! `gantry adopt` and `gantry unmanage`: what runs already becomes Apps and Groups, and back.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use gantry_api::group::{Adopt as Wanted, AdoptKind, OnDelete};
use gantry_api::{App, Cluster, Group, Span};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::import::{apply, text, unreadable};
use super::release::place;
use crate::adopt::{Beside, Home, Proposal, Wish, propose, said, summary, taken, uncontrolled};
use crate::cli::{Global, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::import::{Imported, values};
use crate::output::{Format, Tone, color, paint, print, print_value, println};
use crate::view::live::Live;

/// Turn running Deployments and StatefulSets of a member into Apps and Groups, restarting nothing.
///
/// A StatefulSet stays, with its instances, names and volumes. A Deployment's instances stay until the
/// first release (or `gantry adopt finish`), which gives each a successor with a name of its own. What
/// is in the way is listed, with what to do. If it is interrupted, run it again.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Adopt {
    #[command(subcommand)]
    pub finish: Option<Step>,
    /// The workloads: deployment/NAME, statefulset/NAME
    #[arg(value_name = "KIND/NAME")]
    pub workloads: Vec<String>,
    /// All Deployments and StatefulSets of the namespace with these labels
    #[arg(short = 'l', long, value_name = "LABEL=VALUE,…")]
    pub selector: Option<String>,
    /// All Deployments and StatefulSets of these manifests that run (`helm template …`); - reads standard input
    #[arg(short, long = "filename", value_name = "FILE", action = ArgAction::Append)]
    pub filename: Vec<PathBuf>,
    /// The member that they run on [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The cell of instances whose node is in none of the cluster's cells
    #[arg(long, value_name = "NAME")]
    pub cell: Option<String>,
    /// Environment of the Groups
    #[arg(long, default_value = "prod", value_name = "NAME")]
    pub environment: String,
    #[command(flatten)]
    pub tenant: Tenant,
    /// Only print what would change, object by object
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until the hub has taken over every instance
    #[arg(short, long)]
    pub watch: bool,
    /// Give up watching after this long; the adoption goes on
    #[arg(long, value_name = "SPAN", default_value = "10m")]
    pub timeout: Span,
    /// Print it in this form
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum Step {
    Finish(Finish),
}

/// Replace a group's adopted instances by ones with names of their own, new ones first.
#[derive(Debug, Args)]
pub struct Finish {
    /// The group
    pub group: String,
    #[command(flatten)]
    pub tenant: Tenant,
    /// Wait until it has come through
    #[arg(short, long)]
    pub watch: bool,
    /// Give up watching after this long; it goes on
    #[arg(long, value_name = "SPAN", default_value = "10m", requires = "watch")]
    pub timeout: Span,
}

/// Hand a group's instances back as plain Kubernetes objects, restarting nothing; the group goes.
///
/// Each cell keeps a StatefulSet (or, with --kind deployment, gets a Deployment) that owns the running
/// instances; Services, config and the disruption budget stay. What is lost: the group's revisions and
/// its way of releasing, its share over cells, the gate that takes instances out of traffic, and names
/// where a Deployment replaces instances later.
#[derive(Debug, Args)]
pub struct Unmanage {
    /// The group
    pub group: String,
    /// What owns the instances afterwards; adopted ones without names always get a Deployment
    #[arg(long, value_enum, default_value_t = Kind::Statefulset, value_name = "KIND")]
    pub kind: Kind,
    #[command(flatten)]
    pub tenant: Tenant,
    /// Only print what would be left
    #[arg(long)]
    pub dry_run: bool,
    /// Give up waiting after this long; it goes on
    #[arg(long, value_name = "SPAN", default_value = "10m")]
    pub timeout: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Statefulset,
    Deployment,
}

pub async fn run(args: Adopt, global: &Global) -> Result<Option<Exit>> {
    if let Some(Step::Finish(finish)) = args.finish {
        return self::finish(finish, global).await;
    }
    let (client, tenant) = place(&args.tenant, global).await?;
    let cluster = cluster(&client, args.cluster.as_deref()).await?;
    let member = super::instances::member(&client, &cluster).await?;
    let mut missing = vec![];
    let wanted = wanted(&args, &member, &tenant).await?;
    let beside = Beside {
        services: list(&member, &tenant, ("", "v1", "Service"), "").await?,
        pods: list(&member, &tenant, ("", "v1", "Pod"), "").await?,
        autoscalers: list(
            &member,
            &tenant,
            ("autoscaling", "v2", "HorizontalPodAutoscaler"),
            "",
        )
        .await?,
        budgets: list(
            &member,
            &tenant,
            ("policy", "v1", "PodDisruptionBudget"),
            "",
        )
        .await?,
    };
    let nodes: Api<Node> = Api::all(member.clone());
    let nodes = nodes.list(&ListParams::default()).await;
    let nodes = nodes.map_err(|e| failed("cannot list the member's nodes", e))?;
    let wish = Wish {
        tenant: tenant.clone(),
        cells: cluster.spec.cells.iter().map(|c| c.name.clone()).collect(),
        cell: args.cell.clone(),
    };
    let (mut proposals, mut begun): (Vec<Proposal>, _) = (vec![], vec![]);
    let groups: Api<Group> = Api::namespaced(client.clone(), &tenant);
    for (kind, name) in wanted {
        let adopt = Wanted {
            kind,
            name: name.clone(),
            ..Wanted::default()
        };
        let object = format!("{}/{name}", kind.as_str());
        let workload = get(&member, &tenant, kind, &name).await?;
        let home = Home::of(workload.as_ref(), &name, &args.environment);
        let group = home.group.clone();
        let there = groups.get_opt(&group).await;
        let there =
            there.map_err(|e| failed(&format!("cannot get the group {tenant}/{group}"), e))?;
        let adopts = there.as_ref().and_then(|g| g.spec.adopt.as_ref());
        if adopts.is_some_and(|a| a.kind == kind && a.name == name) {
            begun.push((object, group));
            continue;
        }
        let mut found = gantry_hub::look(&member, &tenant, &adopt, &group)
            .await
            .map_err(|e| failed(&format!("cannot look at {object}"), e))?;
        if found.workload.is_none() {
            missing.push(object);
            continue;
        }
        for node in &nodes {
            if let Some(cell) = cluster.spec.cells.iter().find(|c| c.holds(node)) {
                found.cells.insert(node.name_any(), cell.name.clone());
            }
        }
        let proposal = propose(kind, &found, &beside, &wish, &home);
        let mut proposal = proposal.map_err(|e| Failure::new(Exit::Failure, e))?;
        let taken = taken(&home, there.as_ref(), &proposals);
        proposal.obstacles.splice(0..0, taken);
        proposals.push(proposal);
    }
    tell(&proposals, &begun, &missing, &cluster, &tenant, &args)?;
    if args.dry_run {
        return Ok(None);
    }
    let mut groups: Vec<String> = begun.into_iter().map(|(_, group)| group).collect();
    let apps: Api<App> = Api::namespaced(client.clone(), &tenant);
    for proposal in proposals.iter().filter(|p| p.possible()) {
        let mut apps_wanted = vec![proposal.app.clone()];
        if proposal.again {
            // The Group's App has been changed since, perhaps, or serves other Groups.
            let name = proposal.app.name_any();
            let what = format!("cannot get the app {tenant}/{name}");
            let there = apps.get_opt(&name).await.map_err(|e| failed(&what, e))?;
            apps_wanted.retain(|_| there.is_none());
        }
        let imported = Imported {
            apps: apps_wanted,
            groups: vec![proposal.group.clone()],
            left: vec![],
        };
        apply(&client, &tenant, &imported).await?;
        groups.push(proposal.group.name_any());
    }
    let all = proposals.iter().all(Proposal::possible) && missing.is_empty();
    if args.watch {
        let came = |g: &Group| g.status.as_ref().is_some_and(|s| s.adopted.is_some());
        if !wait(&client, &tenant, &groups, args.timeout, came).await? {
            return Ok(Some(Exit::ReleaseWaits));
        }
    } else if !groups.is_empty() && args.output == Format::Table {
        println(format!("how it stands: gantry get groups -n {tenant}"))?;
    }
    Ok((!all).then_some(Exit::Failure))
}

fn tell(
    proposals: &[Proposal],
    begun: &[(String, String)],
    missing: &[String],
    cluster: &Cluster,
    tenant: &str,
    args: &Adopt,
) -> Result<()> {
    if args.output != Format::Table {
        return print_value(
            &json!({"workloads": proposals, "begun": begun, "notRunning": missing}),
            args.output,
        );
    }
    for proposal in proposals {
        print(&said(proposal, color()))?;
    }
    for (object, group) in begun {
        println(format!(
            "{} {object} is group {group} already, or is about to be",
            paint("✓", Tone::Good, color())
        ))?;
    }
    for object in missing {
        println(format!(
            "{} {object} does not run on {} in namespace {tenant}: `gantry import` makes it new",
            paint("✗", Tone::Warn, color()),
            cluster.name_any()
        ))?;
    }
    println(summary(proposals, args.dry_run))
}

/// The workloads that are meant.
async fn wanted(args: &Adopt, member: &Client, tenant: &str) -> Result<Vec<(AdoptKind, String)>> {
    let mut all = vec![];
    for word in &args.workloads {
        let (kind, name) = word.split_once('/').unwrap_or(("", word));
        let kind = match kind.to_ascii_lowercase().as_str() {
            "deployment" | "deployments" | "deploy" => AdoptKind::Deployment,
            "statefulset" | "statefulsets" | "sts" => AdoptKind::StatefulSet,
            _ => {
                return Err(Failure::usage(format!(
                    "{word:?} is no workload: say deployment/NAME or statefulset/NAME"
                )));
            }
        };
        all.push((kind, name.to_owned()));
    }
    if let Some(selector) = &args.selector {
        for kind in [AdoptKind::Deployment, AdoptKind::StatefulSet] {
            let found = list(member, tenant, ("apps", "v1", kind.as_str()), selector).await?;
            let names = uncontrolled(found);
            all.extend(names.iter().map(|o| (kind, name(o))));
        }
    }
    for file in &args.filename {
        for object in values(&text(file)?).map_err(|e| unreadable(file, &e))? {
            match object["kind"].as_str() {
                Some("Deployment") => all.push((AdoptKind::Deployment, name(&object))),
                Some("StatefulSet") => all.push((AdoptKind::StatefulSet, name(&object))),
                _ => {}
            }
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|(kind, name)| seen.insert((kind.as_str(), name.clone())));
    if all.is_empty() {
        return Err(Failure::usage(
            "no workload is named: give deployment/NAME, -l LABEL=VALUE or -f FILE",
        ));
    }
    Ok(all)
}

fn name(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A workload, if it runs.
async fn get(
    client: &Client,
    namespace: &str,
    kind: AdoptKind,
    name: &str,
) -> Result<Option<Value>> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind.as_str()));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let found = api.get_opt(name).await;
    let found = found.map_err(|e| failed(&format!("cannot get {}/{name}", kind.as_str()), e))?;
    let value = found.map(serde_json::to_value).transpose();
    Ok(value.map_err(anyhow::Error::from)?)
}

async fn list(
    client: &Client,
    namespace: &str,
    (group, version, kind): (&str, &str, &str),
    selector: &str,
) -> Result<Vec<Value>> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let list = api
        .list(&ListParams::default().labels(selector))
        .await
        .map_err(|e| failed(&format!("cannot list the {kind}s of {namespace}"), e))?;
    let values = list.items.into_iter().map(|object| {
        let mut value = serde_json::to_value(object)?;
        // Of a list's items the server does not say what they are.
        value["kind"] = json!(kind);
        Ok::<_, serde_json::Error>(value)
    });
    Ok(values
        .collect::<Result<_, _>>()
        .map_err(anyhow::Error::from)?)
}

async fn cluster(client: &Client, named: Option<&str>) -> Result<Cluster> {
    let api: Api<Cluster> = Api::all(client.clone());
    let all = api.list(&ListParams::default()).await;
    let mut all = all
        .map_err(|e| failed("cannot list the clusters", e))?
        .items;
    let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
    let chosen = match named {
        Some(name) => all.iter().position(|c| c.name_any() == name),
        None if all.len() == 1 => Some(0),
        None => {
            return Err(Failure::usage(format!(
                "which cluster? say --cluster with one of {}",
                names.join(", ")
            )));
        }
    };
    let chosen = chosen.ok_or_else(|| {
        Failure::new(
            Exit::Failure,
            format!(
                "the fleet has no cluster {}; it has {}",
                named.unwrap_or_default(),
                names.join(", ")
            ),
        )
    })?;
    Ok(all.swap_remove(chosen))
}

/// Waits until something holds of all groups; whether it has come to that in time.
async fn wait(
    client: &Client,
    tenant: &str,
    groups: &[String],
    timeout: Span,
    holds: impl Fn(&Group) -> bool,
) -> Result<bool> {
    let api: Api<Group> = Api::namespaced(client.clone(), tenant);
    let mut live = Live::new();
    let deadline = tokio::time::Instant::now() + timeout.duration();
    loop {
        let (mut lines, mut all) = (vec![], true);
        for name in groups {
            let group = api.get(name).await;
            let group =
                group.map_err(|e| failed(&format!("cannot get the group {tenant}/{name}"), e))?;
            let done = holds(&group);
            all &= done;
            let message = group.status.map(|s| s.message).unwrap_or_default();
            let (tone, text) = match done {
                true => (Tone::Good, "done".to_owned()),
                false => (Tone::Busy, message),
            };
            lines.push(paint(format!("{name}: {text}"), tone, color()));
        }
        live.draw(&lines);
        if all {
            return Ok(true);
        }
        if tokio::time::Instant::now() > deadline {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn finish(args: Finish, global: &Global) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let group = super::release::group(&client, &tenant, &args.group).await?;
    if group
        .spec
        .adopt
        .as_ref()
        .is_none_or(|a| a.kind != AdoptKind::Deployment)
    {
        println(format!(
            "group {tenant}/{} has no adopted instances without names",
            args.group
        ))?;
        return Ok(None);
    }
    let api: Api<Group> = Api::namespaced(client.clone(), &tenant);
    let patch = json!({"spec": {"adopt": {"replace": true}}});
    api.patch(&args.group, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(|e| {
            failed(
                &format!("cannot change the group {tenant}/{}", args.group),
                e,
            )
        })?;
    println(format!(
        "adopted instances of {tenant}/{} are replaced by named ones, new ones first",
        args.group
    ))?;
    let named = |g: &Group| {
        let status = g.status.clone().unwrap_or_default();
        let cells = status.cells.iter();
        status.adopted.is_some()
            && cells.map(|c| c.guests).sum::<i32>() == 0
            && status.in_service >= g.spec.replicas
    };
    if args.watch
        && !wait(
            &client,
            &tenant,
            std::slice::from_ref(&args.group),
            args.timeout,
            named,
        )
        .await?
    {
        return Ok(Some(Exit::ReleaseWaits));
    }
    Ok(None)
}

pub async fn unmanage(args: Unmanage, global: &Global) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let group = super::release::group(&client, &tenant, &args.group).await?;
    let status = group.status.clone().unwrap_or_default();
    if let Some(release) = status.target.as_ref().and_then(|t| t.release.as_deref()) {
        return Err(Failure::new(
            Exit::Failure,
            format!("release {release} of {tenant}/{} has not ended", args.group),
        )
        .hint(format!("gantry release abort {release} -n {tenant}")));
    }
    let mut back = vec![];
    for cell in status.cells.iter().filter(|c| c.replicas > 0) {
        let plain = args.kind == Kind::Deployment || cell.guests > 0;
        let was = group
            .spec
            .adopt
            .as_ref()
            .filter(|a| a.kind == AdoptKind::Deployment && a.cell == cell.name);
        let name = was.map_or_else(|| group.set_in(&cell.name), |a| a.name.clone());
        let kind = if plain { "deployment" } else { "statefulset" };
        back.push(format!(
            "gantry adopt {kind}/{name} --cluster {} -n {tenant}",
            cell.cluster
        ));
        println(format!(
            "{}: {}/{name} with {} instances on {}, 0 restarted",
            cell.name,
            if plain { "Deployment" } else { "StatefulSet" },
            cell.replicas,
            cell.cluster
        ))?;
    }
    println(
        "lost: revisions to go back to, releases in batches, one number over all cells, taking instances out of traffic",
    )?;
    if args.dry_run {
        return Ok(None);
    }
    let api: Api<Group> = Api::namespaced(client, &tenant);
    let what = format!("cannot let go of the group {tenant}/{}", args.group);
    let leave = match args.kind {
        Kind::Statefulset => OnDelete::LeaveStatefulSets,
        Kind::Deployment => OnDelete::LeaveDeployments,
    };
    let patch = json!({"spec": {"onDelete": leave}});
    api.patch(&args.group, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(|e| failed(&what, e))?;
    api.delete(&args.group, &DeleteParams::default())
        .await
        .map_err(|e| failed(&what, e))?;
    let mut live = Live::new();
    let deadline = tokio::time::Instant::now() + args.timeout.duration();
    while let Some(group) = api
        .get_opt(&args.group)
        .await
        .map_err(|e| failed(&what, e))?
    {
        let message = group.status.map(|s| s.message).unwrap_or_default();
        live.draw(&[paint(message, Tone::Busy, color())]);
        if tokio::time::Instant::now() > deadline {
            return Ok(Some(Exit::ReleaseWaits));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    println(format!(
        "group {tenant}/{} is gone; what it ran runs on",
        args.group
    ))?;
    for command in back {
        println(format!("back to it: {command}"))?;
    }
    Ok(None)
}
