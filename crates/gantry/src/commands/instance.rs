//! `gantry instance` and `gantry restart`: wishes for single instances, written into the group's spec.

use std::time::Duration;

use clap::{Args, Subcommand};
use gantry_api::{Group, Span};
use gantry_hub::group::wishes::{Verb, wished};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::release::place;
use super::release::start::who;
use crate::cli::{Global, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Tone, color, paint, println};
use crate::view::live::Live;

#[derive(Debug, Subcommand)]
pub enum Instance {
    /// Keep instances out of traffic until they are put back; releases update them all the same
    PullOut(Named),
    /// Let instances back into traffic; a number that was removed or moved may be used again
    PutBack(Named),
    /// Replace the pods of instances by new ones of the same names, on the same revision
    Restart(Named),
    Move(super::moves::Move),
}

/// Instances of one group, by name.
#[derive(Debug, Args)]
pub struct Named {
    /// The instances
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    #[command(flatten)]
    pub tenant: Tenant,
}

/// Replace every pod of a group by a new one of the same name, as many at once as the group allows.
#[derive(Debug, Args)]
pub struct Restart {
    /// The group
    pub group: String,
    /// Wait until all are back in service, and show the way
    #[arg(short, long)]
    pub watch: bool,
    /// Give up watching after this long; the restart goes on
    #[arg(long, value_name = "SPAN", default_value = "10m", requires = "watch")]
    pub timeout: Span,
    #[command(flatten)]
    pub tenant: Tenant,
}

pub async fn run(args: Instance, global: &Global) -> Result<Option<Exit>> {
    let (args, what) = match args {
        Instance::PullOut(args) => (args, Verb::PullOut),
        Instance::PutBack(args) => (args, Verb::PutBack),
        Instance::Restart(args) => (args, Verb::Restart),
        Instance::Move(args) => return super::moves::run(args, global).await,
    };
    let (client, tenant) = place(&args.tenant, global).await?;
    let group = group_of(&client, &tenant, &args.names).await?;
    let api: Api<Group> = Api::namespaced(client.clone(), &tenant);
    let by = who(&client).await;
    let name = group.name_any();
    let failure = format!("cannot change the group {tenant}/{name}");
    let mut group = group;
    loop {
        let who = (&*by, &*args.reason);
        let wishes = wished(
            &group.spec.instances,
            &args.names,
            what,
            who,
            Timestamp::now(),
        );
        let patch = json!({
            "metadata": {"resourceVersion": group.resource_version()},
            "spec": {"instances": wishes},
        });
        match api
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => break,
            // Its status moves all the time; what was read last is looked at again.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                group = api.get(&name).await.map_err(|e| failed(&failure, e))?;
            }
            Err(error) => return Err(failed(&failure, error)),
        }
    }
    let words = match what {
        Verb::PullOut => "kept out of service, as far as the group's budget goes",
        Verb::PutBack => "back into service",
        Verb::Restart => {
            "replaced by new pods of the same names, as far as the group's budget goes"
        }
    };
    println(format!("{}: {words}", args.names.join(", ")))?;
    println(format!(
        "how it stands: gantry get groups {name} -n {tenant} -o yaml (status.instances)"
    ))?;
    Ok(None)
}

/// The one Group that has all these instances.
pub async fn group_of(client: &Client, tenant: &str, names: &[String]) -> Result<Group> {
    let api: Api<Group> = Api::namespaced(client.clone(), tenant);
    let all = api
        .list(&ListParams::default())
        .await
        .map_err(|e| failed(&format!("cannot get the groups of {tenant}"), e))?;
    let mut found: Option<Group> = None;
    for name in names {
        let home = all.items.iter().find(|g| has(g, name)).ok_or_else(|| {
            Failure::new(
                Exit::Failure,
                format!("no group of {tenant} has an instance {name}"),
            )
            .hint(format!("gantry get instances -n {tenant}"))
        })?;
        if found
            .as_ref()
            .is_some_and(|g| g.name_any() != home.name_any())
        {
            return Err(Failure::usage("the instances are of several groups"));
        }
        found = Some(home.clone());
    }
    found.ok_or_else(|| Failure::usage("no instance is named"))
}

/// Whether an instance of that name can be one of the group's.
fn has(group: &Group, name: &str) -> bool {
    let Some((set, ordinal)) = name.rsplit_once('-') else {
        return false;
    };
    let seen = group.status.iter().flat_map(|s| &s.cells).map(|c| &c.name);
    let placed = group.spec.placement.cells.iter().map(|c| &c.name);
    ordinal.parse::<u32>().is_ok() && seen.chain(placed).any(|cell| group.set_in(cell) == set)
}

pub async fn restart(args: Restart, global: &Global) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let api: Api<Group> = Api::namespaced(client, &tenant);
    let what = format!("cannot restart the group {tenant}/{}", args.group);
    let now = Timestamp::now();
    let patch = json!({"spec": {"restartBefore": Time(now)}});
    api.patch(&args.group, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(|e| failed(&what, e))?;
    println(format!(
        "every pod of {tenant}/{} from before {} is replaced",
        args.group,
        now.strftime("%H:%M:%S UTC")
    ))?;
    if !args.watch {
        return Ok(None);
    }
    let mut live = Live::new();
    let deadline = tokio::time::Instant::now() + args.timeout.duration();
    loop {
        let group = api.get(&args.group).await.map_err(|e| failed(&what, e))?;
        let seen =
            group.status.as_ref().and_then(|s| s.observed_generation) == group.metadata.generation;
        let status = group.status.unwrap_or_default();
        let named = |name: &str| group.spec.instances.iter().any(|w| w.name == name);
        let left = status.instances.iter().filter(|n| !named(&n.name)).count();
        let done = seen && left == 0 && status.in_service >= group.spec.replicas;
        let tone = if done { Tone::Good } else { Tone::Busy };
        let text = format!(
            "{}/{} in service, {left} to be replaced",
            status.in_service, group.spec.replicas
        );
        live.draw(&[paint(text, tone, color())]);
        if done {
            return Ok(None);
        }
        if tokio::time::Instant::now() > deadline {
            return Ok(Some(Exit::ReleaseWaits));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[cfg(test)]
mod tests {
    use gantry_api::GroupSpec;
    use gantry_api::group::CellShare;

    use super::*;

    #[test]
    fn an_instances_name_says_whose_it_is() {
        let mut group = Group::new("cart", GroupSpec::default());
        group.spec.placement.cells = vec![CellShare {
            name: "sh-a".into(),
            weight: 1,
            ..CellShare::default()
        }];
        for (name, of_it) in [
            ("cart-sh-a-3", true),
            ("cart-sh-b-3", false),
            ("cart-sh-a-x", false),
            ("cart", false),
        ] {
            assert_eq!(has(&group, name), of_it, "{name}");
        }
    }
}
