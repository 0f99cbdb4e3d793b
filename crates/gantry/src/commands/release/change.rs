//! Buttons that take more than a press: skip, pace, approve, emergency.

use clap::Args;
use gantry_api::{CountOrPercent, Release, Span};
use gantry_hub::release::buttons::{asked, under_way, verdict};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::start::who;
use super::{find, place};
use crate::cli::{Global, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::println;

/// No longer wait for a batch; what of it has been updated stays so.
#[derive(Debug, Args)]
pub struct Skip {
    /// Name of the release, or of its group
    pub name: String,
    /// The batch; 0 is the bastion [default: the one that runs or has failed]
    pub batch: Option<i32>,
    #[command(flatten)]
    pub tenant: Tenant,
}

/// Go on at another pace.
#[derive(Debug, Args)]
pub struct Pace {
    /// Name of the release, or of its group
    pub name: String,
    /// Instances that may be out of service at once, as a count or percentage
    #[arg(long, value_name = "N|N%", required_unless_present = "interval")]
    pub max_unavailable: Option<CountOrPercent>,
    /// Time between batches
    #[arg(long, value_name = "SPAN")]
    pub interval: Option<Span>,
    #[command(flatten)]
    pub tenant: Tenant,
}

/// Say yes or no to a gate that asks for approval.
#[derive(Debug, Args)]
pub struct Approve {
    /// Name of the release, or of its group
    pub name: String,
    /// The gate [default: the one that waits for approval]
    #[arg(long, value_name = "NAME")]
    pub gate: Option<String>,
    /// Only after this batch; 0 is the bastion [default: the one it waits after]
    #[arg(long, value_name = "N")]
    pub batch: Option<i32>,
    /// Say no
    #[arg(long)]
    pub reject: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    #[command(flatten)]
    pub tenant: Tenant,
}

/// Go on in spite of freezes and closed change windows; it is recorded what that overrode.
#[derive(Debug, Args)]
pub struct Emergency {
    /// Name of the release, or of its group
    pub name: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// A gate to pass over as well; * for all; may be given several times
    #[arg(long = "gate", value_name = "NAME")]
    pub gates: Vec<String>,
    #[command(flatten)]
    pub tenant: Tenant,
}

pub async fn skip(args: Skip, global: &Global) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    change(&client, &tenant, &args.name, |release| {
        let batch = args
            .batch
            .or_else(|| under_way(release))
            .ok_or("no batch is under way; name one")?;
        let mut skip = release.spec.skip.clone();
        if skip.contains(&batch) {
            return Err(format!("batch {batch} is skipped already"));
        }
        skip.push(batch);
        Ok((
            json!({"skip": skip}),
            format!("batch {batch} is no longer waited for"),
        ))
    })
    .await
}

pub async fn pace(args: Pace, global: &Global) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    change(&client, &tenant, &args.name, |release| {
        let mut pace = release.spec.pace.clone().unwrap_or_default();
        pace.max_unavailable = args.max_unavailable.or(pace.max_unavailable);
        pace.interval = args.interval.or(pace.interval);
        let mut words = Vec::new();
        if let Some(n) = pace.max_unavailable {
            words.push(format!("at most {n} out of service"));
        }
        if let Some(span) = pace.interval {
            words.push(format!("{span} between batches"));
        }
        Ok((
            json!({"pace": pace}),
            format!("from now on {}", words.join(", ")),
        ))
    })
    .await
}

pub async fn approve(args: Approve, global: &Global) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let user = user(&client).await?;
    change(&client, &tenant, &args.name, |release| {
        let (gate, after) = asked(release, args.gate.as_deref())?;
        let verdict = verdict(&gate, args.batch.or(after), &user, args.reject, &args.note);
        let mut approvals = release.spec.approvals.clone();
        if approvals.contains(&verdict) {
            return Err(format!("{} has said so already", verdict.by));
        }
        let words = format!(
            "{} {} gate {}",
            verdict.by,
            if args.reject { "rejects" } else { "approves" },
            gate.name
        );
        approvals.push(verdict);
        Ok((json!({"approvals": approvals}), words))
    })
    .await
}

async fn user(client: &Client) -> Result<UserInfo> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .map_err(|e| failed("cannot ask who you are", e))?;
    Ok(review.status.and_then(|s| s.user_info).unwrap_or_default())
}

pub async fn emergency(args: Emergency, global: &Global) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let by = who(&client).await;
    change(&client, &tenant, &args.name, |_| {
        let by = if by.is_empty() { "unknown" } else { &by };
        let emergency = json!({"reason": args.reason, "by": by, "gates": args.gates});
        Ok((
            json!({"emergency": emergency}),
            "it goes on in spite of freezes and windows; that is recorded".to_owned(),
        ))
    })
    .await
}

/// Patches a release's spec with what `button` says of it now, and tells what that does.
async fn change(
    client: &Client,
    tenant: &str,
    name: &str,
    button: impl Fn(&Release) -> Result<(Value, String), String>,
) -> Result<Option<Exit>> {
    loop {
        let release = find(client, tenant, name).await?;
        let name = release.name_any();
        let ended = release.status.as_ref().is_some_and(|s| s.phase.is_final());
        let pressed = if ended {
            Err("it has ended: its buttons do nothing any more".to_owned())
        } else {
            button(&release)
        };
        let (spec, words) = pressed.map_err(|why| {
            Failure::new(Exit::Failure, format!("release {tenant}/{name}: {why}"))
        })?;
        let api: Api<Release> = Api::namespaced(client.clone(), tenant);
        let version = release.resource_version();
        let body = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        match api
            .patch(&name, &PatchParams::default(), &Patch::Merge(body))
            .await
        {
            // Its status moves all the time: read again what the button means.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(e) => {
                return Err(failed(
                    &format!("cannot change the release {tenant}/{name}"),
                    e,
                ));
            }
            Ok(_) => {
                println(format!("release {tenant}/{name}: {words}"))?;
                return Ok(None);
            }
        }
    }
}
