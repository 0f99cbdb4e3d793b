//! `gantry release start`: a new revision of a group.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gantry_api::release::{IfBusy, ReleaseSpec};
use gantry_api::revision::ConfigFile;
use gantry_api::strategy::{Accept, OnFailure, Pause, StrategyChoice, StrategySpec, WithinBatch};
use gantry_api::{CountOrPercent, Group, Release, RevisionChange, Span};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::EnvVar;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};

use super::{Watching, place, watch};
use crate::cli::{Global, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::println;

/// Release a new revision of a group: the bastion first, then batches over all its cells.
///
/// Only what is given changes; the rest stays as in the group's current revision. How carefully it
/// goes is the group's strategy, unless --strategy or the options below it say otherwise.
#[derive(Debug, Args)]
pub struct Start {
    /// The group
    pub group: String,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub strategy: StrategyArgs,
    /// Name of the release [default: GROUP-N]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Fail instead of waiting where another release of the group runs
    #[arg(long)]
    pub refuse_if_busy: bool,
    #[command(flatten)]
    pub watching: Watching,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What changes (at least one)")]
pub struct Change {
    /// Image of the app's container
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Image of another container, such as a side-car
    #[arg(long = "container-image", value_name = "CONTAINER=IMAGE", value_parser = pair)]
    pub images: Vec<(String, String)>,
    /// Environment variable to set
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// Environment variable to remove
    #[arg(long, value_name = "NAME")]
    pub unset_env: Vec<String>,
    /// Configuration file to set: its path in the container, and the file with its content
    #[arg(long = "config", value_name = "PATH=FILE", value_parser = pair)]
    pub config: Vec<(String, String)>,
    /// Configuration file to remove
    #[arg(long, value_name = "PATH")]
    pub unset_config: Vec<String>,
    /// The change as YAML, as under spec.revision of a Release: resources, probes and all; the options
    /// win over it
    #[arg(long, value_name = "FILE")]
    pub change_file: Option<PathBuf>,
    /// Go back (or forth) to a revision of the group, by number
    #[arg(long, value_name = "REVISION", conflicts_with_all = ["image", "images", "env", "unset_env", "config", "unset_config", "change_file"])]
    pub to: Option<i64>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How it goes")]
pub struct StrategyArgs {
    /// Name of a Strategy of the tenant; the options below need none and then stand alone
    #[arg(long, value_name = "NAME")]
    pub strategy: Option<String>,
    /// Instances to update first, kept out of traffic until accepted
    #[arg(long, value_name = "N", conflicts_with = "strategy")]
    pub bastion: Option<i32>,
    /// Who accepts the bastion
    #[arg(long, value_enum, conflicts_with = "strategy")]
    pub accept: Option<AcceptBy>,
    /// Sizes of the batches over the whole group; the last repeats: 1,2,25% or 20%
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "SIZE,…",
        conflicts_with = "strategy"
    )]
    pub batches: Vec<CountOrPercent>,
    /// Where to stop until someone continues
    #[arg(long, value_enum, conflicts_with = "strategy")]
    pub pause: Option<PauseAt>,
    /// Instances that may be out of service at once, as a count or percentage
    #[arg(long, value_name = "N|N%", conflicts_with = "strategy")]
    pub max_unavailable: Option<CountOrPercent>,
    /// Instances that may fail before the release stops
    #[arg(long, value_name = "N|N%", conflicts_with = "strategy")]
    pub failure_tolerance: Option<CountOrPercent>,
    /// In waves: the next instances go out when all of the wave are back
    #[arg(long, conflicts_with = "strategy")]
    pub lock_step: bool,
    /// Cells in the order to be released
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "CELL,…",
        conflicts_with = "strategy"
    )]
    pub cell_order: Vec<String>,
    /// How many cells are released at the same time
    #[arg(long, value_name = "N", conflicts_with = "strategy")]
    pub cells_at_once: Option<i32>,
    /// Time between batches
    #[arg(long, value_name = "SPAN", conflicts_with = "strategy")]
    pub interval: Option<Span>,
    /// How long an instance warms up, ready and out of traffic
    #[arg(long, value_name = "SPAN", conflicts_with = "strategy")]
    pub min_ready: Option<Span>,
    /// How long an instance may take to become ready
    #[arg(long, value_name = "SPAN", conflicts_with = "strategy")]
    pub instance_deadline: Option<Span>,
    /// How long a batch may take
    #[arg(long, value_name = "SPAN", conflicts_with = "strategy")]
    pub batch_deadline: Option<Span>,
    /// How long the release may take
    #[arg(long, value_name = "SPAN", conflicts_with = "strategy")]
    pub total_deadline: Option<Span>,
    /// What happens when too much fails
    #[arg(long, value_enum, conflicts_with = "strategy")]
    pub on_failure: Option<WhenFailed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AcceptBy {
    /// A person: `gantry release continue`
    Manual,
    /// The hub, as soon as it is ready
    Auto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PauseAt {
    Never,
    AfterBastion,
    EachBatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WhenFailed {
    Pause,
    Rollback,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give it as NAME=VALUE".to_owned()),
    }
}

pub fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| {
        Failure::new(
            Exit::Failure,
            format!("cannot read {}: {e}", file.display()),
        )
    })
}

impl Change {
    pub fn revision(&self) -> Result<RevisionChange> {
        let var = |(name, value): &(String, String)| EnvVar {
            name: name.clone(),
            value: Some(value.clone()),
            ..EnvVar::default()
        };
        let mut change = match &self.change_file {
            Some(file) => serde_saphyr::from_str(&read(file)?)
                .map_err(|e| Failure::usage(format!("{} is no change: {e}", file.display())))?,
            None => RevisionChange::default(),
        };
        change.to = self.to.or(change.to);
        change.image = self.image.clone().or(change.image);
        change.images.extend(self.images.iter().cloned());
        change.env.extend(self.env.iter().map(var));
        change.unset_env.extend(self.unset_env.clone());
        change.unset_config.extend(self.unset_config.clone());
        for (path, file) in &self.config {
            change.config.push(ConfigFile {
                path: path.clone(),
                text: read(Path::new(file))?,
            });
        }
        if change.to.is_none() && !change.has_changes() {
            return Err(Failure::usage("nothing to release").hint(
                "say what changes: --image, --env NAME=VALUE, --config PATH=FILE, --to REVISION …",
            ));
        }
        Ok(change)
    }
}

impl StrategyArgs {
    /// The strategy the options spell; `base` is what they leave as it is.
    pub fn choice(&self, base: Option<StrategySpec>) -> Option<StrategyChoice> {
        if let Some(name) = &self.strategy {
            return Some(StrategyChoice {
                name: Some(name.clone()),
                inline: None,
            });
        }
        let plain = base.unwrap_or_default();
        let mut spec = plain.clone();
        if let Some(n) = self.bastion {
            spec.bastion.instances = n;
        }
        if let Some(by) = self.accept {
            spec.bastion.accept = match by {
                AcceptBy::Manual => Accept::Manual,
                AcceptBy::Auto => Accept::Auto,
            };
        }
        if !self.batches.is_empty() {
            spec.batches.sizes = self.batches.clone();
        }
        if let Some(at) = self.pause {
            spec.pause = match at {
                PauseAt::Never => Pause::Never,
                PauseAt::AfterBastion => Pause::AfterBastion,
                PauseAt::EachBatch => Pause::EachBatch,
            };
        }
        if let Some(n) = self.max_unavailable {
            spec.max_unavailable = Some(n);
        }
        if let Some(n) = self.failure_tolerance {
            spec.failure_tolerance = n;
        }
        if self.lock_step {
            spec.within_batch = WithinBatch::LockStep;
        }
        if !self.cell_order.is_empty() {
            spec.cell_order.clone_from(&self.cell_order);
        }
        if self.cells_at_once.is_some() {
            spec.cells_at_once = self.cells_at_once;
        }
        if let Some(span) = self.min_ready {
            spec.min_ready = span;
        }
        if self.batch_deadline.is_some() {
            spec.deadlines.batch = self.batch_deadline;
        }
        if self.total_deadline.is_some() {
            spec.deadlines.total = self.total_deadline;
        }
        if let Some(span) = self.interval {
            spec.interval = span;
        }
        if let Some(span) = self.instance_deadline {
            spec.deadlines.instance = span;
        }
        if let Some(then) = self.on_failure {
            spec.on_failure = match then {
                WhenFailed::Pause => OnFailure::Pause,
                WhenFailed::Rollback => OnFailure::Rollback,
            };
        }
        (spec != plain).then_some(StrategyChoice {
            name: None,
            inline: Some(spec),
        })
    }
}

pub async fn run(args: Start, global: &Global) -> Result<Option<Exit>> {
    let revision = args.change.revision()?;
    let (client, tenant) = place(&args.tenant, global).await?;
    let group = super::group(&client, &tenant, &args.group).await?;
    let base = group.spec.strategy.as_ref().and_then(|s| s.inline.clone());
    let spec = ReleaseSpec {
        group: args.group.clone(),
        revision,
        strategy: args.strategy.choice(base),
        requested_by: who(&client).await,
        note: args.note,
        if_busy: if args.refuse_if_busy {
            IfBusy::Refuse
        } else {
            IfBusy::Queue
        },
        ..ReleaseSpec::default()
    };
    let release = create(&client, &tenant, args.name, &group, spec).await?;
    println(format!("release {tenant}/{} started", release.name_any()))?;
    if args.watching.watch {
        return watch::until_end(client, release, args.watching.timeout).await;
    }
    println(format!(
        "watch it with: gantry release status {} -n {tenant} --watch",
        release.name_any()
    ))?;
    Ok(None)
}

/// Writes the Release under the name that was asked for, or the first free `GROUP-N`.
pub async fn create(
    client: &Client,
    tenant: &str,
    name: Option<String>,
    group: &Group,
    spec: ReleaseSpec,
) -> Result<Release> {
    let api: Api<Release> = Api::namespaced(client.clone(), tenant);
    let what = format!("cannot start a release of {tenant}/{}", group.name_any());
    if let Some(name) = name {
        return api
            .create(&PostParams::default(), &Release::new(&name, spec))
            .await
            .map_err(|e| failed(&what, e));
    }
    let all = api
        .list(&ListParams::default())
        .await
        .map_err(|e| failed(&what, e))?;
    let current = group
        .status
        .as_ref()
        .and_then(|s| s.current.as_ref())
        .map_or(0, |r| r.revision);
    let mut number = next_number(
        &group.name_any(),
        current,
        all.items.iter().map(|r| r.name_any()),
    );
    loop {
        let release = Release::new(&format!("{}-{number}", group.name_any()), spec.clone());
        match api.create(&PostParams::default(), &release).await {
            // Someone else started one at the same time; theirs keeps the name.
            Err(kube::Error::Api(e)) if e.reason == "AlreadyExists" => number += 1,
            other => return other.map_err(|e| failed(&what, e)),
        }
    }
}

/// One above the group's revision and above the number of every release it has had.
fn next_number(group: &str, current: i64, names: impl Iterator<Item = String>) -> i64 {
    let numbers = names.filter_map(|n| {
        n.strip_prefix(group)?
            .strip_prefix('-')?
            .parse::<i64>()
            .ok()
    });
    numbers.max().unwrap_or(0).max(current) + 1
}

/// The user as the hub knows them; empty where it does not say.
pub async fn who(client: &Client) -> String {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await;
    review
        .ok()
        .and_then(|r| r.status?.user_info?.username)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up() {
        let names = ["cart-prod-3", "cart-prod-9", "cart-prod-x", "other-40"];
        assert_eq!(
            next_number("cart-prod", 4, names.iter().map(|n| n.to_string())),
            10
        );
        assert_eq!(
            next_number("cart-prod", 12, names.iter().map(|n| n.to_string())),
            13
        );
        assert_eq!(next_number("new", 0, std::iter::empty()), 1);
    }

    #[test]
    fn options_make_a_strategy_only_where_they_say_something() {
        assert_eq!(StrategyArgs::default().choice(None), None);
        let args = StrategyArgs {
            batches: vec![CountOrPercent::Percent(25)],
            ..StrategyArgs::default()
        };
        let spec = args.choice(None).unwrap().inline.unwrap();
        assert_eq!(spec.batches.sizes, [CountOrPercent::Percent(25)]);
        assert_eq!(spec.bastion, StrategySpec::default().bastion);
    }

    #[test]
    fn nothing_to_release_is_refused() {
        assert_eq!(Change::default().revision().unwrap_err().exit, Exit::Usage);
    }
}
