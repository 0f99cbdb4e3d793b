//! `gantry tenant`: departments and products, their people and their quotas.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use gantry_api::tenant::{PoolQuota, Role, RoleMembers, TenantFreeze};
use gantry_api::{Tenant, TenantSpec};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::release::start::who;
use crate::cli::{Global, Output};
use crate::connect::{connect, failed};
use crate::failure::{Failure, Result};
use crate::output::{Format, print, print_value, println, table};

#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    Create(Create),
    Get(Get),
    Describe(Describe),
    Grant(Grant),
    Revoke(Revoke),
    Freeze(Freeze),
    Thaw(Thaw),
    Delete(Delete),
}

/// Make a tenant.
#[derive(Debug, Args)]
pub struct Create {
    /// Its name
    pub name: String,
    /// A namespace of it; may be given several times [default: one of its own name]
    #[arg(long = "namespace", value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,
    /// What it is
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub description: String,
    /// How much it may ask for in all, such as requests.cpu=100 or gpu:requests.nvidia.com/gpu=8 (of a pool, whose
    /// pods have the PriorityClass of its name); may be given several times
    #[arg(long = "quota", value_name = "[POOL:]RESOURCE=AMOUNT", value_parser = quota)]
    pub quotas: Vec<(String, String, String)>,
}

/// List tenants.
#[derive(Debug, Args)]
pub struct Get {
    /// One of them by name
    pub name: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

/// Say what there is to say of a tenant: people, quotas and what is used of them, freezes.
#[derive(Debug, Args)]
pub struct Describe {
    /// Its name
    pub name: String,
}

/// Who is meant.
#[derive(Debug, Args)]
pub struct People {
    /// The tenant
    pub name: String,
    /// The role
    #[arg(value_enum)]
    pub role: RoleName,
    /// A user, as the hub's API server knows them; may be given several times
    #[arg(long = "user", value_name = "USER", required_unless_present = "groups")]
    pub users: Vec<String>,
    /// A group of users; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Sees everything of the tenant but Secrets
    Viewer,
    /// Changes Apps, Groups and Strategies too
    Developer,
    /// Releases and scales too
    Releaser,
    /// Deletes, and looks after instances and notifications too
    Operator,
    /// Gives roles, and freezes too
    Admin,
}

impl RoleName {
    fn role(self) -> Role {
        match self {
            RoleName::Viewer => Role::Viewer,
            RoleName::Developer => Role::Developer,
            RoleName::Releaser => Role::Releaser,
            RoleName::Operator => Role::Operator,
            RoleName::Admin => Role::Admin,
        }
    }
}

/// Give people a role.
#[derive(Debug, Args)]
pub struct Grant {
    #[command(flatten)]
    pub people: People,
}

/// Take a role from people.
#[derive(Debug, Args)]
pub struct Revoke {
    #[command(flatten)]
    pub people: People,
}

/// Halt all releases of a tenant between two times; an emergency may override it, and that is recorded.
#[derive(Debug, Args)]
pub struct Freeze {
    /// The tenant
    pub name: String,
    /// Name of the freeze
    pub freeze: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// From when on, such as 2026-12-24T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<Timestamp>,
    /// Until when [default: until it is taken back]
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
}

/// Take a freeze of a tenant back.
#[derive(Debug, Args)]
pub struct Thaw {
    /// The tenant
    pub name: String,
    /// Name of the freeze
    pub freeze: String,
}

/// Delete a tenant that has no groups: its roles and quotas go, its namespaces stay.
#[derive(Debug, Args)]
pub struct Delete {
    /// Its name
    pub name: String,
}

fn quota(text: &str) -> std::result::Result<(String, String, String), String> {
    let (name, amount) = text
        .split_once('=')
        .ok_or("say it as [POOL:]RESOURCE=AMOUNT, such as requests.cpu=100")?;
    let (pool, resource) = name.split_once(':').unwrap_or(("default", name));
    Ok((pool.to_owned(), resource.to_owned(), amount.to_owned()))
}

fn quotas(given: &[(String, String, String)]) -> Vec<PoolQuota> {
    let mut pools: BTreeMap<&str, BTreeMap<String, Quantity>> = BTreeMap::new();
    for (pool, resource, amount) in given {
        let hard = pools.entry(pool).or_default();
        hard.insert(resource.clone(), Quantity(amount.clone()));
    }
    pools
        .into_iter()
        .map(|(pool, hard)| PoolQuota {
            pool: pool.to_owned(),
            priority_classes: if pool == "default" {
                vec![]
            } else {
                vec![pool.to_owned()]
            },
            hard,
            ..PoolQuota::default()
        })
        .collect()
}

pub async fn run(command: TenantCommand, global: &Global) -> Result<()> {
    let client = connect(global).await?.client;
    let api: Api<Tenant> = Api::all(client.clone());
    match command {
        TenantCommand::Create(args) => create(&api, args).await,
        TenantCommand::Get(args) => get(&api, args).await,
        TenantCommand::Describe(args) => describe(&api, &args.name).await,
        TenantCommand::Grant(args) => roles(&api, &args.people, true).await,
        TenantCommand::Revoke(args) => roles(&api, &args.people, false).await,
        TenantCommand::Freeze(args) => freeze(&client, &api, args).await,
        TenantCommand::Thaw(args) => {
            change(&api, &args.name, |spec| {
                let before = spec.freezes.len();
                spec.freezes.retain(|f| f.name != args.freeze);
                if spec.freezes.len() == before {
                    let why = format!("tenant {} has no freeze {}", args.name, args.freeze);
                    return Err(Failure::usage(why));
                }
                Ok(json!({"freezes": spec.freezes}))
            })
            .await?;
            println(format!(
                "{} of tenant {} is taken back",
                args.freeze, args.name
            ))
        }
        TenantCommand::Delete(args) => {
            let what = format!("cannot delete the tenant {}", args.name);
            super::line::announce(&api, &args.name, "").await;
            api.delete(&args.name, &DeleteParams::default())
                .await
                .map_err(|e| failed(&what, e))?;
            println(format!(
                "tenant {} is deleted; its namespaces stay",
                args.name
            ))
        }
    }
}

async fn create(api: &Api<Tenant>, args: Create) -> Result<()> {
    let spec = TenantSpec {
        description: args.description,
        namespaces: args.namespaces,
        quotas: quotas(&args.quotas),
        ..TenantSpec::default()
    };
    let what = format!("cannot make the tenant {}", args.name);
    api.create(&PostParams::default(), &Tenant::new(&args.name, spec))
        .await
        .map_err(|e| failed(&what, e))?;
    println(format!(
        "tenant {} is made; give roles with: gantry tenant grant {} releaser --user NAME",
        args.name, args.name
    ))
}

async fn get(api: &Api<Tenant>, args: Get) -> Result<()> {
    let what = "cannot get tenants";
    let tenants = match &args.name {
        Some(name) => vec![api.get(name).await.map_err(|e| failed(what, e))?],
        None => {
            let list = api.list(&ListParams::default()).await;
            list.map_err(|e| failed(what, e))?.items
        }
    };
    if args.output.output != Format::Table {
        return match args.name {
            Some(_) => print_value(&tenants.first(), args.output.output),
            None => print_value(&tenants, args.output.output),
        };
    }
    if tenants.is_empty() {
        return println("No tenants.");
    }
    let rows = tenants.iter().map(|tenant| {
        let status = tenant.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
        vec![
            tenant.name_any(),
            tenant.spec.namespaces_of(&tenant.name_any()).join(","),
            status.groups.to_string(),
            ready.map_or("Unknown".to_owned(), |c| c.status.clone()),
            status.message,
        ]
    });
    let header = ["NAME", "NAMESPACES", "GROUPS", "READY", "MESSAGE"];
    print(&table(&header, rows.collect()))
}

async fn describe(api: &Api<Tenant>, name: &str) -> Result<()> {
    let tenant = api
        .get(name)
        .await
        .map_err(|e| failed(&format!("cannot get the tenant {name}"), e))?;
    print(&described(&tenant))
}

fn described(tenant: &Tenant) -> String {
    let (name, spec) = (tenant.name_any(), &tenant.spec);
    let status = tenant.status.clone().unwrap_or_default();
    let mut text = format!("Tenant {name}\n");
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {key:<12}{value}\n"));
        }
    };
    line("what", spec.description.clone());
    line("namespaces", spec.namespaces_of(&name).join(", "));
    line("groups", status.groups.to_string());
    line("trouble", status.message.clone());
    for role in Role::ALL {
        for members in spec.roles.iter().filter(|r| r.role == role) {
            let groups = members.groups.iter().map(|g| format!("group {g}"));
            let people: Vec<String> = members.users.iter().cloned().chain(groups).collect();
            line(&role.as_str().to_lowercase(), people.join(", "));
        }
    }
    for freeze in &spec.freezes {
        let time =
            |t: &Option<Time>, or: &str| t.as_ref().map_or(or.to_owned(), |t| t.0.to_string());
        let between = format!(
            "{} – {}",
            time(&freeze.from, "now"),
            time(&freeze.until, "taken back")
        );
        line(
            "freeze",
            format!(
                "{} {between}: {} ({})",
                freeze.name, freeze.reason, freeze.by
            ),
        );
    }
    if !status.quotas.is_empty() {
        let mut rows = Vec::new();
        for quota in &status.quotas {
            for (resource, hard) in &quota.hard {
                let used = quota.used.get(resource).map_or("-", |q| q.0.as_str());
                rows.push(vec![
                    quota.pool.clone(),
                    quota.cluster.clone(),
                    quota.namespace.clone(),
                    resource.clone(),
                    used.to_owned(),
                    hard.0.clone(),
                ]);
            }
        }
        let header = ["POOL", "CLUSTER", "NAMESPACE", "RESOURCE", "USED", "HARD"];
        text.push('\n');
        text.push_str(&table(&header, rows));
    }
    text
}

/// Reads the tenant, works out what changes, and writes that on what was read.
async fn change(
    api: &Api<Tenant>,
    name: &str,
    work: impl Fn(&mut TenantSpec) -> Result<serde_json::Value>,
) -> Result<()> {
    let what = format!("cannot change the tenant {name}");
    for last in [false, false, true] {
        let tenant = api.get(name).await.map_err(|e| failed(&what, e))?;
        let mut spec = tenant.spec.clone();
        let fields = work(&mut spec)?;
        let version = tenant.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": fields});
        let written = api
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        match written {
            Ok(_) => return Ok(()),
            // Someone else was faster: again, on what they have written.
            Err(kube::Error::Api(status)) if status.code == 409 && !last => {}
            Err(error) => return Err(failed(&what, error)),
        }
    }
    Ok(())
}

async fn roles(api: &Api<Tenant>, people: &People, give: bool) -> Result<()> {
    let role = people.role.role();
    change(api, &people.name, |spec| {
        regrant(&mut spec.roles, role, people, give).map_err(Failure::usage)?;
        Ok(json!({"roles": spec.roles}))
    })
    .await?;
    let groups = people.groups.iter().map(|g| format!("group {g}"));
    let all: Vec<String> = people.users.iter().cloned().chain(groups).collect();
    println(
        format!(
            "tenant {}: {} {} {} {}",
            people.name,
            role.as_str(),
            if give { "is given to" } else { "is taken from" },
            all.join(", "),
            if give {
                "(with what the roles before it may)"
            } else {
                ""
            },
        )
        .trim_end(),
    )
}

fn regrant(
    roles: &mut Vec<RoleMembers>,
    role: Role,
    people: &People,
    give: bool,
) -> std::result::Result<(), String> {
    if !roles.iter().any(|r| r.role == role) {
        roles.push(RoleMembers {
            role,
            ..RoleMembers::default()
        });
    }
    let Some(members) = roles.iter_mut().find(|r| r.role == role) else {
        return Ok(());
    };
    for (list, names, what) in [
        (&mut members.users, &people.users, "user"),
        (&mut members.groups, &people.groups, "group"),
    ] {
        for name in names {
            let has = list.contains(name);
            if give && !has {
                list.push(name.clone());
            } else if !give && !has {
                return Err(format!(
                    "{what} {name} is no {}",
                    role.as_str().to_lowercase()
                ));
            }
        }
        if !give {
            list.retain(|n| !names.contains(n));
        }
    }
    roles.retain(|r| !r.users.is_empty() || !r.groups.is_empty());
    Ok(())
}

async fn freeze(client: &Client, api: &Api<Tenant>, args: Freeze) -> Result<()> {
    let by = who(client).await;
    change(api, &args.name, |spec| {
        if spec.freezes.iter().any(|f| f.name == args.freeze) {
            let why = format!("tenant {} has a freeze {} already", args.name, args.freeze);
            return Err(Failure::usage(why).hint("take it back first: gantry tenant thaw"));
        }
        spec.freezes.push(TenantFreeze {
            name: args.freeze.clone(),
            from: args.from.map(Time),
            until: args.until.map(Time),
            reason: args.reason.clone(),
            by: by.clone(),
        });
        Ok(json!({"freezes": spec.freezes}))
    })
    .await?;
    println(format!(
        "releases of tenant {} are frozen; take it back with: gantry tenant thaw {} {}",
        args.name, args.name, args.freeze
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(users: &[&str], groups: &[&str]) -> People {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        People {
            name: "shop".into(),
            role: RoleName::Viewer,
            users: owned(users),
            groups: owned(groups),
        }
    }

    #[test]
    fn roles_are_given_and_taken() {
        let mut roles = vec![];
        let viewer = Role::Viewer;
        regrant(&mut roles, viewer, &people(&["a", "b"], &["g"]), true).unwrap();
        regrant(&mut roles, viewer, &people(&["a"], &[]), true).unwrap();
        assert_eq!(roles[0].users, ["a", "b"]);
        let wrong = regrant(&mut roles.clone(), viewer, &people(&["c"], &[]), false);
        assert_eq!(wrong, Err("user c is no viewer".to_owned()));
        regrant(&mut roles, viewer, &people(&["a", "b"], &[]), false).unwrap();
        assert_eq!(
            (roles[0].users.len(), &roles[0].groups[..]),
            (0, &["g".to_owned()][..])
        );
        regrant(&mut roles, viewer, &people(&[], &["g"]), false).unwrap();
        assert!(roles.is_empty());
    }

    #[test]
    fn quotas_by_pool() {
        let given = ["requests.cpu=10", "gpu:requests.nvidia.com/gpu=8", "pods=5"];
        let given: Vec<_> = given.iter().map(|q| quota(q).unwrap()).collect();
        let quotas = quotas(&given);
        assert_eq!(quotas.len(), 2);
        assert_eq!(
            (quotas[0].pool.as_str(), quotas[0].hard.len()),
            ("default", 2)
        );
        assert_eq!(quotas[1].priority_classes, ["gpu"]);
        assert!(quota("cpu").is_err());
    }
}
