//! The scheduler's dry run of a placement policy, and its explanations: a member is read as it is now, and
//! asked. That is work in proportion to the member's size, so only so many are under way at once.

use gantry_api::PlacementPolicy;
use gantry_scheduler::{
    Snapshot,
    core::{Profile, object::Pod},
    report::{self, Report},
    snapshot,
    trial::{Trial, trial},
};
use kube::Api;

use crate::{app::Cx, error::Fail, page};

/// Pods of a dry run that are named.
const NAMED: usize = 500;
/// Nodes of an explanation that are shown.
const NODES: usize = 5;

async fn read(cx: &Cx, cluster: &str) -> Result<Snapshot, Fail> {
    let client = page::reader(cx, cluster)?;
    snapshot(&client, vec![Profile::default()])
        .await
        .map_err(|e| Fail::Upstream(format!("{cluster}: {e}: {}", crate::error::root(&e))))
}

/// Whose pods would land elsewhere, were a policy in force on a member. Pods that the user does not see are
/// counted and not named.
///
/// # Errors
/// For who sees no policies, or if the member cannot be read.
pub async fn policy(cx: &Cx, cluster: &str, policy: PlacementPolicy) -> Result<Trial, Fail> {
    if !cx.sight.policies {
        return Err(Fail::NotFound);
    }
    let _turn = cx.app.heavy.acquire().await;
    let snapshot = read(cx, cluster).await?;
    let mut found = tokio::task::spawn_blocking(move || trial(snapshot, &[policy], NAMED))
        .await
        .map_err(|_| Fail::Upstream("the dry run broke off".to_owned()))?;
    found.list.retain(|moved| {
        let tenant = moved.pod.split('/').next().unwrap_or_default();
        cx.sight.groups.see(tenant)
    });
    Ok(found)
}

/// Why an instance is where it is, or why it waits and what would help.
///
/// # Errors
/// If there is none, or the member cannot be read.
pub async fn explain(cx: &Cx, cluster: &str, tenant: &str, name: &str) -> Result<Report, Fail> {
    page::instance_seen(cx, cluster, tenant, name)?;
    let _turn = cx.app.heavy.acquire().await;
    let api: Api<Pod> = Api::namespaced(page::reader(cx, cluster)?, tenant);
    let pod = api.get(name).await?;
    let snapshot = read(cx, cluster).await?;
    tokio::task::spawn_blocking(move || {
        let mut cluster = snapshot.cluster;
        report::of_pod(&mut cluster, &pod, &snapshot.waiting, NODES)
    })
    .await
    .map_err(|_| Fail::Upstream("the explanation broke off".to_owned()))?
    .map_err(|why| Fail::Conflict(format!("{name} {why}")))
}
