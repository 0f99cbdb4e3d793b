//! Which objects of a member an adoption or a leaving is planned from: read through [`Reader`], so that the
//! simulation reads as the shell does.

use std::future::Future;

use gantry_api::{
    group::{Adopt, AdoptKind},
    labels,
};
use serde_json::Value;

use super::{Found, Kind, controller, leave, uid};

/// One namespace of a member.
pub trait Reader: Sync {
    /// Why it could not be read.
    type Error: Send;

    /// An object, if it is there.
    fn get(
        &self,
        kind: Kind,
        name: &str,
    ) -> impl Future<Output = Result<Option<Value>, Self::Error>> + Send;

    /// Objects with these labels: `a=b,c=d`.
    fn list(
        &self,
        kind: Kind,
        selector: &str,
    ) -> impl Future<Output = Result<Vec<Value>, Self::Error>> + Send;
}

/// `a=b,c=d` of the labels that a workload selects by; what else it says, its pods fulfil too.
fn selector(workload: &Value) -> String {
    let all = workload["spec"]["selector"]["matchLabels"].as_object();
    let pairs = all.into_iter().flatten();
    let words: Vec<String> = pairs
        .filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?)))
        .collect();
    words.join(",")
}

/// A pod that has ended is no instance.
fn ended(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Failed" | "Succeeded")
    )
}

/// What is there of the workload that the Group `group` adopts; the cells of nodes are left open.
///
/// # Errors
/// Where the member cannot be read.
pub async fn found<R: Reader>(reader: &R, adopt: &Adopt, group: &str) -> Result<Found, R::Error> {
    let kind = match adopt.kind {
        AdoptKind::Deployment => Kind::Deployment,
        AdoptKind::StatefulSet => Kind::StatefulSet,
    };
    let workload = reader.get(kind, &adopt.name).await?;
    let mut found = Found::default();
    let mut owners: Vec<String> = workload.iter().map(|w| uid(w).to_owned()).collect();
    if adopt.kind == AdoptKind::Deployment {
        let select = match &workload {
            Some(workload) => selector(workload),
            None => format!("{}={group}", labels::ADOPTING),
        };
        found.sets = reader.list(Kind::ReplicaSet, &select).await?;
        if workload.is_some() {
            let own = |s: &Value| controller(s).is_some_and(|c| owners.iter().any(|o| o == c));
            found.sets.retain(own);
        }
        owners = found.sets.iter().map(|s| uid(s).to_owned()).collect();
    }
    // Each ReplicaSet selects by its own hash too: without the Deployment there is no one selector for all.
    let selects = match &workload {
        Some(workload) => vec![selector(workload)],
        None => found.sets.iter().map(selector).collect(),
    };
    for select in selects {
        let pods = reader.list(Kind::Pod, &select).await?;
        let own = |p: &Value| controller(p).is_some_and(|c| owners.iter().any(|o| o == c));
        found
            .pods
            .extend(pods.into_iter().filter(|p| own(p) && !ended(p)));
    }
    found.workload = workload;
    Ok(found)
}

/// Fills in what is there of a cell that a Group leaves; `set` is the name of its StatefulSet.
///
/// # Errors
/// Where the member cannot be read.
pub async fn left<R: Reader>(
    reader: &R,
    mut world: leave::World,
    set: &str,
) -> Result<leave::World, R::Error> {
    let select = format!(
        "{}={},{}={}",
        labels::GROUP,
        world.group,
        labels::CELL,
        world.cell
    );
    world.set = reader.get(Kind::StatefulSet, set).await?;
    world.pods = reader.list(Kind::Pod, &select).await?;
    world
        .pods
        .retain(|p| p["metadata"]["deletionTimestamp"].is_null() && !ended(p));
    if let Some(name) = &world.deployment {
        world.made = reader.get(Kind::Deployment, name).await?;
        let name = leave::replica_set_name(&world, name);
        world.replica_set = reader.get(Kind::ReplicaSet, &name).await?;
    }
    Ok(world)
}
