//! `gantry line`: the switch that halts releases, and freezes.

use clap::{Args, Subcommand};
use gantry_api::{StopLine, StopLineSpec, labels, stop_line::StopKind};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};

use super::release::start::who;
use crate::cli::Global;
use crate::connect::{connect, failed};
use crate::failure::{Failure, Result};
use crate::output::println;

#[derive(Debug, Subcommand)]
pub enum Line {
    Stop(Stop),
    Freeze(Freeze),
    Go(Go),
}

/// Which releases are meant.
#[derive(Debug, Args)]
pub struct Scope {
    /// Name of the switch, to take it back by
    pub name: String,
    /// Releases of this tenant; may be given several times
    #[arg(long = "of-tenant", value_name = "TENANT")]
    pub tenants: Vec<String>,
    /// Releases with instances in this cell; may be given several times
    #[arg(long = "cell", value_name = "CELL")]
    pub cells: Vec<String>,
    /// Releases with instances in this cluster; may be given several times
    #[arg(long = "cluster", value_name = "CLUSTER")]
    pub clusters: Vec<String>,
    /// Every release of the fleet
    #[arg(long, conflicts_with_all = ["tenants", "cells", "clusters"])]
    pub fleet: bool,
    /// Why, for everyone who is stopped
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Halt releases at once: of a tenant, in a cell or cluster, or of the whole fleet.
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    pub scope: Scope,
}

/// Halt releases between two times; an emergency may override it, and that is recorded.
#[derive(Debug, Args)]
pub struct Freeze {
    #[command(flatten)]
    pub scope: Scope,
    /// From when on, such as 2026-12-24T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<Timestamp>,
    /// Until when
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
}

/// Take a switch back; what it halted goes on.
#[derive(Debug, Args)]
pub struct Go {
    /// Name of the switch
    pub name: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
}

/// Says before a deletion who is about to delete and why: Kubernetes keeps nobody's name of a deletion itself.
/// Whoever may delete and not change goes without.
pub async fn announce<K>(api: &Api<K>, name: &str, note: &str)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = serde_json::json!({"metadata": {"annotations": {labels::DELETE_NOTE: note}}});
    let announced = api
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    if let Err(error) = announced {
        tracing::debug!(%error, name, "the deletion is not announced");
    }
}

pub async fn run(args: Line, global: &Global) -> Result<()> {
    let client = connect(global).await?.client;
    let api: Api<StopLine> = Api::all(client.clone());
    let (scope, kind, from, until) = match args {
        Line::Go(args) => {
            let what = format!("cannot take back the switch {}", args.name);
            announce(&api, &args.name, &args.note).await;
            api.delete(&args.name, &DeleteParams::default())
                .await
                .map_err(|e| failed(&what, e))?;
            return println(format!(
                "{} is taken back; what it halted goes on",
                args.name
            ));
        }
        Line::Stop(args) => (args.scope, StopKind::Stop, None, None),
        Line::Freeze(args) => (args.scope, StopKind::Freeze, args.from, args.until),
    };
    let named = !(scope.tenants.is_empty() && scope.cells.is_empty() && scope.clusters.is_empty());
    if !named && !scope.fleet {
        return Err(Failure::usage("it is not said which releases are meant")
            .hint("--of-tenant, --cell, --cluster, or --fleet for all"));
    }
    let spec = StopLineSpec {
        kind,
        tenants: scope.tenants,
        cells: scope.cells,
        clusters: scope.clusters,
        reason: scope.reason,
        by: Some(who(&client).await)
            .filter(|w| !w.is_empty())
            .unwrap_or_else(|| "unknown".to_owned()),
        from: from.map(Time),
        until: until.map(Time),
    };
    let what = format!("cannot throw the switch {}", scope.name);
    api.create(&PostParams::default(), &StopLine::new(&scope.name, spec))
        .await
        .map_err(|e| failed(&what, e))?;
    println(format!(
        "{} is thrown; take it back with: gantry line go {}",
        scope.name, scope.name
    ))
}
