//! One part of Gantry alone, against any cluster: what runs inside of `gantry up`, as a process of
//! its own for real fleets.

use std::future::Future;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gantry_api::strategy::ResolveTags;
use tokio_util::sync::CancellationToken;

use super::records::RecordArgs;
use super::up::ended;
use crate::cli::Global;
use crate::connect::{Connection, connect, default_data_dir};
use crate::election::Election;
use crate::failure::{Failure, Result};
use crate::output::println;

/// Run the fleet-wide controllers alone, against any hub cluster.
///
/// Installs Gantry's CRDs, then carries out Apps, Groups and Releases on the members that the
/// hub's Cluster objects name. Give the hub by --kubeconfig and --context.
#[derive(Debug, Args)]
pub struct Hub {
    /// Whether tags of new images are resolved to digests, where a strategy does not say
    #[arg(long, value_enum, default_value_t = Resolve::IfReachable, value_name = "WHEN")]
    resolve_tags: Resolve,
    #[command(flatten)]
    records: RecordArgs,
    /// Audit log of the hub's API server, to be read for who deletes and who scales: as `--audit-log-path` of
    /// kube-apiserver writes it
    #[arg(long, value_name = "FILE", help_heading = "Records")]
    audit_log: Option<PathBuf>,
    #[command(flatten)]
    election: Election,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Resolve {
    Never,
    /// Where the registry cannot say, the tag stays, and the release says so
    IfReachable,
    /// Where the registry cannot say, the release fails
    Required,
}

/// Run the workload controllers alone, against any cluster that has none.
///
/// For an API server without a controller manager: it waits for the lease of a running
/// kube-controller-manager, so that no two of them work on one object.
#[derive(Debug, Args)]
pub struct Controllers {
    /// Which controllers run, by the names that kube-controller-manager has for them: `*` for all that are on
    /// by default, NAME for one more, -NAME for one less
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "*",
        allow_hyphen_values = true
    )]
    controllers: Vec<String>,
    #[command(flatten)]
    election: Election,
}

pub async fn hub(args: Hub, global: &Global) -> Result<()> {
    let resolve_tags = match args.resolve_tags {
        Resolve::Never => ResolveTags::Never,
        Resolve::IfReachable => ResolveTags::IfReachable,
        Resolve::Required => ResolveTags::Required,
    };
    let elected = Some(("gantry-hub", args.election));
    let (records, audit_log) = (args.records, args.audit_log);
    alone(
        "the fleet controllers",
        global,
        elected,
        async |client, stop| {
            // Only who leads records.
            let recording = records.start(&default_data_dir("gantry-hub"))?;
            let options = gantry_hub::Options {
                resolve_tags,
                records: recording.as_ref().map(|r| r.writer.clone()),
                audit_log: audit_log.clone(),
                notify_allowed: records.notify_allow.clone(),
                ..gantry_hub::Options::default()
            };
            let end = gantry_hub::run(client, options, stop).await;
            if let Some(recording) = recording {
                recording.end().await;
            }
            Ok(end?)
        },
    )
    .await
}

pub async fn controllers(args: Controllers, global: &Global) -> Result<()> {
    let chosen = gantry_controllers::Name::chosen(&args.controllers).map_err(|unknown| {
        let names = gantry_controllers::Name::ALL
            .iter()
            .map(|name| name.as_str());
        let all = names.collect::<Vec<_>>().join(", ");
        Failure::usage(format!("--controllers: there is no controller {unknown:?}"))
            .hint(format!("Name some of these, or `*`: {all}"))
    })?;
    let options = gantry_controllers::Options {
        controllers: chosen,
        ..gantry_controllers::Options::default()
    };
    let elected = Some(("kube-controller-manager", args.election));
    alone(
        "the workload controllers",
        global,
        elected,
        async |client, stop| Ok(gantry_controllers::run(client, options, stop).await?),
    )
    .await
}

/// Runs a part until it fails or the process is asked to end; where it is `elected`, by a lease of
/// that name, while it leads.
pub async fn alone<F>(
    what: &str,
    global: &Global,
    elected: Option<(&str, Election)>,
    part: impl FnOnce(kube::Client, CancellationToken) -> F,
) -> Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    if let Some((_, election)) = &elected {
        election.timing()?;
    }
    let Connection { client, .. } = connect(global).await?;
    let version = client
        .apiserver_version()
        .await
        .map_err(|e| crate::connect::failed("cannot ask the cluster for its version", e))?;
    println(format!(
        "Running {what} against Kubernetes {}. Ctrl-C stops.",
        version.git_version
    ))?;
    let stop = CancellationToken::new();
    let running = async {
        match elected {
            None => Ok(part(client, stop.clone()).await?),
            Some((lease, election)) => {
                let work = async |leading| Ok(part(client.clone(), leading).await?);
                let say = |text: String| println(text);
                election
                    .lead(lease, client.clone(), stop.clone(), say, work)
                    .await
            }
        }
    };
    tokio::pin!(running);
    tokio::select! {
        end = &mut running => return end,
        signal = ended() => signal?,
    }
    stop.cancel();
    running.await
}
