//! `gantry promote` and `gantry promotions`: through an app's environments, and what is where.

use clap::{Args, ValueEnum};
use gantry_api::promotion::{EnvironmentStatus, Part, Promote as Promotion, PromoteOverride};
use gantry_api::release::{IfBusy, ReleaseSpec};
use gantry_api::{App, Group};
use gantry_hub::promotion::short;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::release::start::{StrategyArgs, create, who};
use super::release::{Watching, place, watch};
use crate::cli::{Global, Output, Tenant};
use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Format, print, print_value, println, table};

/// Take what one environment of an app runs to the next, with the same digests.
///
/// Refused while the environment before has not succeeded with it, and where an environment would be
/// left out; --override says why it is done all the same, and that is recorded. Each group of the
/// environment gets a release of its own.
#[derive(Debug, Args)]
pub struct Promote {
    /// The app
    pub app: String,
    /// The environment to promote to
    #[arg(long, value_name = "ENVIRONMENT")]
    pub to: String,
    /// The group whose revision is meant [default: that of the environment before]
    #[arg(long, value_name = "GROUP")]
    pub from: Option<String>,
    /// Only this group of the environment
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// What is brought beside the images; what is not, each environment has of its own
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,…")]
    pub with: Vec<WithPart>,
    /// Promote although the environment before has not succeeded, or out of order: why
    #[arg(long = "override", value_name = "REASON")]
    pub overriding: Option<String>,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub strategy: StrategyArgs,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Fail instead of waiting where another release of the group runs
    #[arg(long)]
    pub refuse_if_busy: bool,
    #[command(flatten)]
    pub watching: Watching,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WithPart {
    Env,
    Config,
    Resources,
    Probes,
    Command,
}

impl WithPart {
    fn part(self) -> Part {
        match self {
            Self::Env => Part::Env,
            Self::Config => Part::Config,
            Self::Resources => Part::Resources,
            Self::Probes => Part::Probes,
            Self::Command => Part::Command,
        }
    }
}

/// Show what is where: an app's environments in order, and what each runs.
#[derive(Debug, Args)]
pub struct Promotions {
    /// The app
    pub app: String,
    #[command(flatten)]
    pub tenant: Tenant,
    #[command(flatten)]
    pub output: Output,
}

pub async fn promote(args: Promote, global: &Global) -> Result<Option<Exit>> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let app = app(&client, &tenant, &args.app).await?;
    let groups = groups(&client, &tenant, &args.app).await?;
    let from = match &args.from {
        Some(name) => name.clone(),
        None => before(&app, &groups, &args.to)?,
    };
    let source = groups
        .iter()
        .find(|g| g.name_any() == from)
        .ok_or_else(|| {
            let what = format!("app {tenant}/{} has no group {from}", args.app);
            Failure::new(Exit::Failure, what)
        })?;
    let seen = source.status.as_ref().and_then(|s| s.current.as_ref());
    let Some(seen) = seen else {
        return Err(Failure::new(
            Exit::Failure,
            format!("group {tenant}/{from} is on no revision yet"),
        ));
    };
    let targets: Vec<&Group> = groups
        .iter()
        .filter(|g| g.spec.environment == args.to)
        .filter(|g| args.group.as_ref().is_none_or(|name| *name == g.name_any()))
        .collect();
    if targets.is_empty() {
        let which = args.group.as_deref().unwrap_or("group");
        let what = format!("app {tenant}/{} has no {which} in {}", args.app, args.to);
        return Err(Failure::new(Exit::Failure, what)
            .hint(format!("gantry promotions {} -n {tenant}", args.app)));
    }
    let by = who(&client).await;
    let overriding = args.overriding.clone().map(|reason| PromoteOverride {
        reason,
        by: by.clone(),
    });
    println(format!("promotes {} of {from}", seen.image))?;
    let mut last = None;
    for group in targets {
        let base = group.spec.strategy.as_ref().and_then(|s| s.inline.clone());
        let spec = ReleaseSpec {
            group: group.name_any(),
            promote: Some(Promotion {
                from: from.clone(),
                // What was seen is what is meant.
                revision: Some(seen.revision),
                with: args.with.iter().map(|w| w.part()).collect(),
                overriding: overriding.clone(),
            }),
            strategy: args.strategy.choice(base),
            requested_by: by.clone(),
            note: args.note.clone(),
            if_busy: if args.refuse_if_busy {
                IfBusy::Refuse
            } else {
                IfBusy::Queue
            },
            ..ReleaseSpec::default()
        };
        let release = create(&client, &tenant, None, group, spec).await?;
        println(format!("release {tenant}/{} started", release.name_any()))?;
        if args.watching.watch {
            let end = watch::until_end(client.clone(), release, args.watching.timeout).await?;
            // The next group waits for this one: what fails here is not tried there.
            if end.is_some() {
                return Ok(end);
            }
        } else {
            last = Some(release.name_any());
        }
    }
    if let Some(name) = last {
        println(format!(
            "watch it with: gantry release status {name} -n {tenant} --watch"
        ))?;
    }
    Ok(None)
}

async fn app(client: &Client, tenant: &str, name: &str) -> Result<App> {
    let api: Api<App> = Api::namespaced(client.clone(), tenant);
    api.get_opt(name)
        .await
        .map_err(|e| failed(&format!("cannot get the app {tenant}/{name}"), e))?
        .ok_or_else(|| {
            Failure::new(Exit::Failure, format!("there is no app {tenant}/{name}"))
                .hint("`gantry get apps -A` lists them; -n names the tenant")
        })
}

/// The Groups of an App, by name.
async fn groups(client: &Client, tenant: &str, app: &str) -> Result<Vec<Group>> {
    let api: Api<Group> = Api::namespaced(client.clone(), tenant);
    let all = api
        .list(&ListParams::default())
        .await
        .map_err(|e| failed(&format!("cannot get the groups of {tenant}/{app}"), e))?;
    let mut groups: Vec<Group> = all
        .items
        .into_iter()
        .filter(|g| g.spec.app == app)
        .collect();
    groups.sort_by_key(ResourceExt::name_any);
    Ok(groups)
}

/// The one Group of the environment before `to`.
fn before(app: &App, groups: &[Group], to: &str) -> Result<String> {
    let names: Vec<&str> = app
        .spec
        .environments
        .iter()
        .map(|e| e.name.as_str())
        .collect();
    let at = names.iter().position(|n| *n == to).ok_or_else(|| {
        let listed = if names.is_empty() {
            "it lists none (spec.environments)".to_owned()
        } else {
            format!("it lists {}", names.join(" → "))
        };
        let what = format!("app {} has no environment {to}: {listed}", app.name_any());
        Failure::new(Exit::Failure, what)
    })?;
    let Some(previous) = at.checked_sub(1).map(|i| names[i]) else {
        return Err(Failure::new(
            Exit::Failure,
            format!("{to} is the first environment: nothing is promoted to it"),
        )
        .hint("gantry release start GROUP --image …"));
    };
    let candidates: Vec<String> = groups
        .iter()
        .filter(|g| g.spec.environment == previous)
        .map(ResourceExt::name_any)
        .collect();
    match &candidates[..] {
        [one] => Ok(one.clone()),
        [] => Err(Failure::new(
            Exit::Failure,
            format!("there is no group in {previous}, the environment before {to}"),
        )
        .hint("--from GROUP names one of another environment; that needs --override")),
        several => Err(Failure::new(
            Exit::Failure,
            format!("{previous} has several groups: {}", several.join(", ")),
        )
        .hint("--from GROUP says which is meant")),
    }
}

pub async fn promotions(args: Promotions, global: &Global) -> Result<()> {
    let (client, tenant) = place(&args.tenant, global).await?;
    let app = app(&client, &tenant, &args.app).await?;
    let status = app.status.unwrap_or_default();
    if args.output.output != Format::Table {
        return print_value(&status.environments, args.output.output);
    }
    if status.environments.is_empty() {
        return println(format!(
            "app {tenant}/{} has no environments and no groups",
            args.app
        ));
    }
    print(&show(&status.environments))
}

fn show(environments: &[EnvironmentStatus]) -> String {
    let mut rows = Vec::new();
    for environment in environments {
        let behind = if environment.behind { "behind" } else { "" };
        if environment.groups.is_empty() {
            let mut row = vec![environment.name.clone()];
            row.resize(6, String::new());
            row.push(environment.message.clone());
            rows.push(row);
        }
        for (index, group) in environment.groups.iter().enumerate() {
            let of_all = |text: &str| {
                if index == 0 {
                    text.to_owned()
                } else {
                    String::new()
                }
            };
            let digest = group.image.split_once("@sha256:").map(|(_, d)| d);
            rows.push(vec![
                of_all(&environment.name),
                group.group.clone(),
                group.revision.map(|n| n.to_string()).unwrap_or_default(),
                if group.image.is_empty() {
                    String::new()
                } else {
                    short(&group.image)
                },
                digest
                    .map(|d| d.chars().take(12).collect())
                    .unwrap_or_default(),
                group.state.as_str().to_owned(),
                [of_all(behind), of_all(&environment.message)]
                    .iter()
                    .filter(|w| !w.is_empty())
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(": "),
            ]);
        }
    }
    table(
        &[
            "ENV", "GROUP", "REVISION", "IMAGE", "DIGEST", "STATE", "NOTE",
        ],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use gantry_api::AppSpec;
    use gantry_api::promotion::{Environment, PlaceState, PlaceStatus};

    use super::*;

    fn environments(names: &[&str]) -> App {
        let mut app = App::new("cart", AppSpec::default());
        app.spec.environments = names
            .iter()
            .map(|name| Environment {
                name: (*name).to_owned(),
                only_promoted: false,
            })
            .collect();
        app
    }

    fn group(name: &str, environment: &str) -> Group {
        let mut group = Group::new(name, gantry_api::GroupSpec::default());
        group.spec.environment = environment.to_owned();
        group
    }

    #[test]
    fn the_group_before_is_found_or_asked_for() {
        let app = environments(&["dev", "test", "prod"]);
        let groups = [
            group("a", "dev"),
            group("b", "test"),
            group("c", "test"),
            group("d", "prod"),
        ];
        type Case<'a> = (&'a App, &'a [Group], &'a str, Result<&'a str, &'a str>);
        let cases: [Case<'_>; 5] = [
            (&app, &groups, "test", Ok("a")),
            (&app, &groups, "prod", Err("test has several groups: b, c")),
            (&app, &groups, "dev", Err("dev is the first environment")),
            (&app, &groups, "lab", Err("it lists dev → test → prod")),
            (&app, &groups[3..], "prod", Err("there is no group in test")),
        ];
        for (app, groups, to, expected) in cases {
            let got = before(app, groups, to).map_err(|f| f.to_string());
            match expected {
                Ok(name) => assert_eq!(got.as_deref(), Ok(name), "{to}"),
                Err(why) => assert!(
                    got.as_ref().is_err_and(|e| e.contains(why)),
                    "{to}: {got:?}"
                ),
            }
        }
    }

    #[test]
    fn a_table_of_environments() {
        let place = |group: &str, image: &str| PlaceStatus {
            group: group.into(),
            revision: Some(3),
            image: image.into(),
            state: PlaceState::Settled,
            ..PlaceStatus::default()
        };
        let environment =
            |name: &str, groups: Vec<PlaceStatus>, behind: bool, message: &str| EnvironmentStatus {
                name: name.into(),
                groups,
                behind,
                message: message.into(),
            };
        let digest = "0123456789abcdef";
        insta::assert_snapshot!(show(&[
            environment(
                "test",
                vec![place("cart-test", &format!("r/cart:2@sha256:{digest}"))],
                false,
                ""
            ),
            environment(
                "prod",
                vec![place("cart-eu", "r/cart:1"), place("cart-us", "r/cart:2")],
                true,
                "2 of test can be promoted"
            ),
            environment("dr", Vec::new(), false, "no group"),
        ]));
    }
}
