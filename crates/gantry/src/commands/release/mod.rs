//! `gantry release`: start a release, watch it, press its buttons.

pub mod buttons;
pub mod change;
pub mod plan;
pub mod start;
pub mod watch;

use clap::{Args, Subcommand};
use gantry_api::{Group, Release as Object, Span};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::cli::{Global, Output, Tenant};
use crate::connect::{connect, failed};
use crate::failure::{Exit, Failure, Result};

#[derive(Debug, Subcommand)]
pub enum Release {
    Start(Box<start::Start>),
    Plan(Box<plan::Plan>),
    Status(Status),
    /// Stand still: what is under way is finished, nothing else is touched
    Pause(Named),
    /// Go on: after a pause, past the bastion, past a batch
    Continue(Named),
    /// Try failed instances and gates again
    Retry(Named),
    Skip(change::Skip),
    Pace(change::Pace),
    Approve(change::Approve),
    Emergency(change::Emergency),
    /// End here; every instance stays as it is
    Abort(Named),
    /// Take every touched instance back to where it came from
    Rollback(Named),
}

/// A release by its own name or by that of its group.
#[derive(Debug, Args)]
pub struct Named {
    /// Name of the release, or of the group for its running (else its last) release
    pub name: String,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub watching: Watching,
}

/// Show a release as a tree of its instances.
#[derive(Debug, Args)]
pub struct Status {
    /// Name of the release, or of the group for its running (else its last) release
    pub name: String,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub watching: Watching,
    #[command(flatten)]
    pub output: Output,
}

/// Whether to stay until the release has ended.
#[derive(Debug, Clone, Copy, Args)]
pub struct Watching {
    /// Stay until the release has ended; the exit code tells how (0: succeeded, 3: not, 4: it waits)
    #[arg(short, long)]
    pub watch: bool,
    /// Stop watching after this long (exit code 4); the release goes on
    #[arg(long, value_name = "SPAN", requires = "watch")]
    pub timeout: Option<Span>,
}

pub async fn run(args: Release, global: &Global) -> Result<Option<Exit>> {
    match args {
        Release::Start(args) => start::run(*args, global).await,
        Release::Plan(args) => plan::run(*args, global).await,
        Release::Skip(args) => change::skip(args, global).await,
        Release::Pace(args) => change::pace(args, global).await,
        Release::Approve(args) => change::approve(args, global).await,
        Release::Emergency(args) => change::emergency(args, global).await,
        Release::Status(args) => {
            let (client, tenant) = place(&args.tenant, global).await?;
            let release = find(&client, &tenant, &args.name).await?;
            watch::status(client, release, args.watching, args.output.output).await
        }
        Release::Pause(args) => press(args, global, buttons::Button::Pause).await,
        Release::Continue(args) => press(args, global, buttons::Button::Continue).await,
        Release::Retry(args) => press(args, global, buttons::Button::Retry).await,
        Release::Abort(args) => press(args, global, buttons::Button::Abort).await,
        Release::Rollback(args) => press(args, global, buttons::Button::Rollback).await,
    }
}

async fn press(args: Named, global: &Global, button: buttons::Button) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let release = find(&client, &tenant, &args.name).await?;
    let release = buttons::press(&client, release, button).await?;
    if args.watching.watch {
        watch::until_end(client, release, args.watching.timeout).await
    } else {
        Ok(None)
    }
}

/// The hub, and the tenant that is spoken of.
pub async fn place(tenant: &Tenant, global: &Global) -> Result<(Client, String)> {
    let connection = connect(global).await?;
    Ok((
        connection.client,
        tenant.tenant.clone().unwrap_or(connection.namespace),
    ))
}

/// A group that there must be.
pub async fn group(client: &Client, tenant: &str, name: &str) -> Result<Group> {
    let groups: Api<Group> = Api::namespaced(client.clone(), tenant);
    groups
        .get_opt(name)
        .await
        .map_err(|e| failed(&format!("cannot get the group {tenant}/{name}"), e))?
        .ok_or_else(|| {
            Failure::new(Exit::Failure, format!("there is no group {tenant}/{name}"))
                .hint("`gantry get groups -A` lists them; -n names the tenant")
        })
}

/// A release by its name; by a group's name its running release, else its newest.
pub async fn find(client: &Client, tenant: &str, name: &str) -> Result<Object> {
    let releases: Api<Object> = Api::namespaced(client.clone(), tenant);
    let what = format!("cannot get the release {tenant}/{name}");
    if let Some(release) = releases.get_opt(name).await.map_err(|e| failed(&what, e))? {
        return Ok(release);
    }
    let groups: Api<Group> = Api::namespaced(client.clone(), tenant);
    if let Some(group) = groups.get_opt(name).await.map_err(|e| failed(&what, e))? {
        let all = releases
            .list(&ListParams::default())
            .await
            .map_err(|e| failed(&what, e))?;
        let running = group.status.and_then(|s| s.target).and_then(|t| t.release);
        let of_group = all.items.into_iter().filter(|r| r.spec.group == name);
        let best = of_group.max_by_key(|r| {
            (
                Some(r.name_any()) == running,
                r.metadata.creation_timestamp.as_ref().map(|t| t.0),
                r.name_any(),
            )
        });
        return best.ok_or_else(|| {
            Failure::new(
                Exit::Failure,
                format!("the group {tenant}/{name} has had no release"),
            )
            .hint(format!("gantry release start {name} -n {tenant} --image …"))
        });
    }
    Err(Failure::new(
        Exit::Failure,
        format!("there is no release and no group {tenant}/{name}"),
    )
    .hint("`gantry get releases -A` lists them; -n names the tenant"))
}
