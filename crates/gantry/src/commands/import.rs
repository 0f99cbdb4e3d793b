//! `gantry import`: plain manifests become Apps and Groups.

use std::io::Read;
use std::path::PathBuf;

use clap::{ArgAction, Args};
use gantry_api::{App, Cluster, Group};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cli::{Global, Tenant};
use crate::connect::{connect, failed};
use crate::failure::{Exit, Failure, Result};
use crate::import::{Imported, Options, read, translate};
use crate::output::{Format, Tone, color, paint, print_value, println};

/// Field manager of what is imported.
const MANAGER: &str = "gantry-import";

/// Turn plain Kubernetes manifests into Apps and Groups.
///
/// Each Deployment, with the Services that select it and its ServiceAccount, becomes an App and a
/// Group NAME-ENVIRONMENT spread over the cells. What cannot be carried over is listed.
#[derive(Debug, Args)]
pub struct Import {
    /// Manifests, YAML or JSON; - reads standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true, action = ArgAction::Append)]
    pub filename: Vec<PathBuf>,
    #[command(flatten)]
    pub tenant: Tenant,
    /// Environment of the Groups
    #[arg(long, default_value = "prod", value_name = "NAME")]
    pub environment: String,
    /// Cells to spread over [default: all cells of the fleet]
    #[arg(long, value_delimiter = ',', value_name = "CELL,…")]
    pub cells: Vec<String>,
    /// Instances of each Group [default: as the manifest says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub replicas: Option<i32>,
    /// Only print what would be made
    #[arg(long)]
    pub dry_run: bool,
    /// Print the Apps and Groups, and what was left, in this form
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

pub async fn run(args: Import, global: &Global) -> Result<()> {
    let connection = if args.dry_run && !args.cells.is_empty() {
        None
    } else {
        Some(connect(global).await?)
    };
    let tenant = args.tenant.tenant.clone();
    let tenant = tenant
        .or_else(|| connection.as_ref().map(|c| c.namespace.clone()))
        .unwrap_or_else(|| "default".into());
    let cells = match (&args.cells[..], &connection) {
        ([], Some(connection)) => all_cells(&connection.client).await?,
        (named, _) => named.to_vec(),
    };
    let options = Options {
        tenant,
        environment: args.environment,
        cells,
        replicas: args.replicas,
        stateful_sets: false,
    };
    let mut manifests = vec![];
    for file in &args.filename {
        manifests.extend(read(&text(file)?).map_err(|e| unreadable(file, &e))?);
    }
    let files: Vec<_> = args
        .filename
        .iter()
        .map(|f| f.display().to_string())
        .collect();
    let imported = translate(manifests, &options)
        .map_err(|e| Failure::new(Exit::Failure, format!("{}: {e}", files.join(", "))))?;
    if let (Some(connection), false) = (&connection, args.dry_run) {
        apply(&connection.client, &options.tenant, &imported).await?;
    }
    report(&imported, args.dry_run, args.output)
}

/// A file's text; `-` is standard input.
pub fn text(file: &PathBuf) -> Result<String> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|e| unreadable(file, &e.to_string()))
}

/// What to say of a file that cannot be read.
pub fn unreadable(file: &std::path::Path, e: &str) -> Failure {
    Failure::new(
        Exit::Failure,
        format!("cannot read {}: {e}", file.display()),
    )
}

/// The names of all cells of the fleet.
pub async fn all_cells(client: &Client) -> Result<Vec<String>> {
    let clusters: Api<Cluster> = Api::all(client.clone());
    let list = clusters
        .list(&ListParams::default())
        .await
        .map_err(|e| failed("cannot list the clusters", e))?;
    let cells: Vec<_> = list
        .items
        .iter()
        .flat_map(|c| &c.spec.cells)
        .map(|c| c.name.clone())
        .collect();
    if cells.is_empty() {
        return Err(Failure::new(Exit::Failure, "the fleet has no cells").hint(
            "make a Cluster object with cells for each member (`kubectl explain cluster.spec`)",
        ));
    }
    Ok(cells)
}

/// Writes Apps and Groups, the tenant's namespace first.
pub async fn apply(client: &Client, tenant: &str, imported: &Imported) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tenant}});
    namespaces
        .patch(
            tenant,
            &PatchParams::apply(MANAGER),
            &Patch::Apply(namespace),
        )
        .await
        .map_err(|e| failed(&format!("cannot make the namespace {tenant}"), e))?;
    for app in &imported.apps {
        apply_one::<App>(client, tenant, app, &app.metadata.name).await?;
    }
    for group in &imported.groups {
        apply_one::<Group>(client, tenant, group, &group.metadata.name).await?;
    }
    Ok(())
}

async fn apply_one<K>(
    client: &Client,
    tenant: &str,
    object: &K,
    name: &Option<String>,
) -> Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let name = name.as_deref().unwrap_or_default();
    Api::<K>::namespaced(client.clone(), tenant)
        .patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(object))
        .await
        .map(|_| ())
        .map_err(|e| {
            failed(
                &format!("cannot write the {} {tenant}/{name}", K::kind(&())),
                e,
            )
        })
}

fn report(imported: &Imported, dry_run: bool, format: Format) -> Result<()> {
    if format != Format::Table {
        let objects: Vec<serde_json::Value> = imported
            .apps
            .iter()
            .map(serde_json::to_value)
            .chain(imported.groups.iter().map(serde_json::to_value))
            .collect::<Result<_, _>>()
            .map_err(anyhow::Error::from)?;
        return print_value(
            &json!({"objects": objects, "notCarriedOver": imported.left}),
            format,
        );
    }
    let verb = if dry_run { "would be made" } else { "made" };
    for group in &imported.groups {
        println(format!(
            "{} app {} and group {}, {} instances over {} cells",
            paint("✓", Tone::Good, color()),
            group.spec.app,
            group.metadata.name.as_deref().unwrap_or_default(),
            group.spec.replicas,
            group.spec.placement.cells.len(),
        ))?;
    }
    println(format!(
        "{} apps and {} groups {verb}",
        imported.apps.len(),
        imported.groups.len()
    ))?;
    if !imported.left.is_empty() {
        println(paint(
            format!("Not carried over ({}):", imported.left.len()),
            Tone::Warn,
            color(),
        ))?;
        for left in &imported.left {
            println(format!("  {left}"))?;
        }
    }
    Ok(())
}
