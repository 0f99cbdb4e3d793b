//! `gantry scale`: the number of a group's instances.

use std::time::Duration;

use clap::Args;
use gantry_api::{Group, Span};
use gantry_hub::group::wishes::given_up;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cli::{Global, Tenant};
use crate::connect::{connect, failed};
use crate::failure::{Exit, Result};
use crate::output::{Tone, color, paint, println};
use crate::view::live::Live;

/// Set the number of a group's instances, over all its cells.
#[derive(Debug, Args)]
pub struct Scale {
    /// The group
    pub group: String,
    /// How many instances
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..), required_unless_present_any = ["cancel", "remove"])]
    pub replicas: Option<i32>,
    /// Give up a scaling that is under way: the number is set to what is there
    #[arg(long, conflicts_with = "replicas")]
    pub cancel: bool,
    /// Do without these instances. The last of a cell go at once; of another the pod goes, and its number
    /// passes to a new pod in the place of the last
    #[arg(long, value_name = "INSTANCE,…", value_delimiter = ',', conflicts_with_all = ["replicas", "cancel"])]
    pub remove: Vec<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "", requires = "remove")]
    pub reason: String,
    /// Only print what would be done
    #[arg(long, requires = "remove")]
    pub dry_run: bool,
    /// Wait until they are in service, and show the way
    #[arg(short, long)]
    pub watch: bool,
    /// Give up watching after this long; the scaling goes on
    #[arg(long, value_name = "SPAN", default_value = "10m", requires = "watch")]
    pub timeout: Span,
    #[command(flatten)]
    pub tenant: Tenant,
}

pub async fn run(args: Scale, global: &Global) -> Result<Option<Exit>> {
    let connection = connect(global).await?;
    let tenant = args.tenant.tenant.clone().unwrap_or(connection.namespace);
    let groups: Api<Group> = Api::namespaced(connection.client.clone(), &tenant);
    let what = format!("cannot scale the group {tenant}/{}", args.group);
    let old = groups
        .get_scale(&args.group)
        .await
        .map_err(|e| failed(&what, e))?;
    let old = old.spec.and_then(|s| s.replicas).unwrap_or(0);
    if !args.remove.is_empty() {
        let (names, client) = (&args.remove, &connection.client);
        let change = super::moves::go(
            client,
            &tenant,
            &args.group,
            names,
            None,
            &args.reason,
            args.dry_run,
        )
        .await?;
        if args.watch && !args.dry_run {
            return watch(&groups, &args, change.replicas, &what).await;
        }
        return Ok(None);
    }
    let replicas = match args.replicas {
        Some(replicas) => replicas,
        None => {
            let group = groups.get(&args.group).await;
            let status = group.map_err(|e| failed(&what, e))?.status;
            match given_up(old, &status.unwrap_or_default()) {
                Some(there) => there,
                None => {
                    return println(format!(
                        "group {tenant}/{} is scaled to {old}: nothing is under way",
                        args.group
                    ))
                    .map(|()| None);
                }
            }
        }
    };
    let patch = json!({"spec": {"replicas": replicas}});
    groups
        // Not by way of `scale`: a write there is not stamped with who made it.
        .patch(&args.group, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(|e| failed(&what, e))?;
    println(format!(
        "group {tenant}/{} scaled from {old} to {replicas}",
        args.group
    ))?;
    if !args.watch {
        return Ok(None);
    }
    watch(&groups, &args, replicas, &what).await
}

async fn watch(
    groups: &Api<Group>,
    args: &Scale,
    replicas: i32,
    what: &str,
) -> Result<Option<Exit>> {
    let mut live = Live::new();
    let deadline = tokio::time::Instant::now() + args.timeout.duration();
    loop {
        let group = groups.get(&args.group).await.map_err(|e| failed(what, e))?;
        let seen =
            group.status.as_ref().and_then(|s| s.observed_generation) == group.metadata.generation;
        let status = group.status.unwrap_or_default();
        let done = seen && status.replicas == replicas && status.in_service == replicas;
        let tone = if done { Tone::Good } else { Tone::Busy };
        let mut lines = vec![paint(
            format!("{}/{replicas} in service", status.in_service),
            tone,
            color(),
        )];
        if !status.message.is_empty() {
            lines.push(paint(&status.message, Tone::Dim, color()));
        }
        live.draw(&lines);
        if done {
            return Ok(None);
        }
        if tokio::time::Instant::now() > deadline {
            return Ok(Some(Exit::ReleaseWaits));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
