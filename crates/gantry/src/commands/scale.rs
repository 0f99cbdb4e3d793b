//! `gantry scale`: the number of a group's instances.

use std::time::Duration;

use clap::Args;
use gantry_api::{Group, Span};
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
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub replicas: i32,
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
    let groups: Api<Group> = Api::namespaced(connection.client, &tenant);
    let what = format!("cannot scale the group {tenant}/{}", args.group);
    let old = groups
        .get_scale(&args.group)
        .await
        .map_err(|e| failed(&what, e))?;
    let old = old.spec.and_then(|s| s.replicas).unwrap_or(0);
    let patch = json!({"spec": {"replicas": args.replicas}});
    groups
        // Not by way of `scale`: a write there is not stamped with who made it.
        .patch(&args.group, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(|e| failed(&what, e))?;
    println(format!(
        "group {tenant}/{} scaled from {old} to {}",
        args.group, args.replicas
    ))?;
    if !args.watch {
        return Ok(None);
    }
    let mut live = Live::new();
    let deadline = tokio::time::Instant::now() + args.timeout.duration();
    loop {
        let group = groups
            .get(&args.group)
            .await
            .map_err(|e| failed(&what, e))?;
        let seen =
            group.status.as_ref().and_then(|s| s.observed_generation) == group.metadata.generation;
        let status = group.status.unwrap_or_default();
        let done = seen && status.replicas == args.replicas && status.in_service == args.replicas;
        let tone = if done { Tone::Good } else { Tone::Busy };
        let mut lines = vec![paint(
            format!("{}/{} in service", status.in_service, args.replicas),
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
