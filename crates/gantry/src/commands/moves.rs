//! `gantry instance move`, and scaling in by choice: the hub's planner, written as the user.

use clap::Args;
use gantry_api::Group;
use gantry_hub::group::moves::{Asked, Change, Step, change};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::release::start::who;
use super::release::{group, place};
use crate::cli::{Global, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::println;

/// Move instances to another cell: the new one first, the old one out when that is in service.
#[derive(Debug, Args)]
pub struct Move {
    /// The instances
    #[arg(required = true)]
    pub names: Vec<String>,
    /// The cell to move to; one of the group's placement
    #[arg(long, value_name = "CELL")]
    pub to: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Only print what would be done
    #[arg(long)]
    pub dry_run: bool,
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

pub async fn run(args: Move, global: &Global) -> Result<()> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let home = super::instance::group_of(&client, &tenant, &args.names).await?;
    let name = home.name_any();
    go(
        &client,
        &tenant,
        &name,
        &args.names,
        Some(&args.to),
        &args.reason,
        args.dry_run,
    )
    .await?;
    println(format!(
        "how it stands: gantry get groups {name} -n {tenant} -o yaml (status.instances)"
    ))
}
