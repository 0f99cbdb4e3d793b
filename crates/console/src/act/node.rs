//! Closing, opening and draining a node, on its member, as the user.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{EvictParams, ListParams, Patch},
};
use serde_json::json;
use tracing::info;

use super::{instance::writer, patching};
use crate::{access::Right, app::Cx, error::Fail, messages::M, page};

/// How long a drain tries to get past budgets.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const APART: Duration = Duration::from_secs(3);

/// `cordon`, `uncordon` or `drain`; what that does in words.
///
/// # Errors
/// If there is no such node, or hub or member refuse it.
pub async fn act(cx: &Cx, cluster: &str, name: &str, action: &str) -> Result<String, Fail> {
    page::node_seen(cx, cluster, name)?;
    if !cx.may(Right::core("patch", "nodes", "").named(name)).await {
        return Err(Fail::NotFound);
    }
    let shut = match action {
        "cordon" | "drain" => true,
        "uncordon" => false,
        _ => return Err(Fail::NotFound),
    };
    let client = writer(cx, cluster)?;
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({"spec": {"unschedulable": shut.then_some(true)}});
    let end = nodes
        .patch(name, &patching(), &Patch::Merge(patch))
        .await
        .map(|_| ())
        .map_err(Fail::from);
    cx.audit(action, &format!("node {cluster}/{name}"), &end);
    end?;
    if action != "drain" {
        return Ok(if shut {
            cx.f(M::CordonedNow, &[&name])
        } else {
            cx.f(M::UncordonedNow, &[&name])
        });
    }
    let pods: Api<Pod> = Api::all(client);
    let wanted = ListParams::default().fields(&format!("spec.nodeName={name}"));
    let mut left: Vec<Pod> = pods.list(&wanted).await?.items;
    left.retain(evictable);
    let told = cx.f(M::Draining, &[&name, &left.len()]);
    let (cx, cluster, node, client) = (
        cx.clone(),
        cluster.to_owned(),
        name.to_owned(),
        pods.into_client(),
    );
    let stop = cx.app.stop.clone();
    cx.app.tasks.clone().spawn(async move {
        let until = tokio::time::Instant::now() + PATIENCE;
        while !left.is_empty() && tokio::time::Instant::now() < until {
            let mut still = Vec::new();
            for pod in left {
                let (Some(tenant), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name)
                else {
                    continue;
                };
                let api: Api<Pod> = Api::namespaced(client.clone(), tenant);
                match api.evict(name, &EvictParams::default()).await {
                    // Its budget is used up for now.
                    Err(kube::Error::Api(s)) if s.code == 429 => still.push(pod),
                    Err(kube::Error::Api(s)) if s.code == 404 => {}
                    end => cx.audit(
                        "evict",
                        &format!("instance {cluster}/{tenant}/{name}"),
                        &end.map(|_| ()).map_err(Fail::from),
                    ),
                }
            }
            left = still;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(APART) => {}
            }
        }
        info!(%cluster, %node, left = left.len(), "drained");
    });
    Ok(told)
}

/// Whether a drain moves it: not what its node's kubelet or a DaemonSet would put back at once.
fn evictable(pod: &Pod) -> bool {
    let mirror = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"));
    let daemon = pod
        .metadata
        .owner_references
        .iter()
        .flatten()
        .any(|o| o.kind == "DaemonSet");
    !mirror && !daemon && pod.metadata.deletion_timestamp.is_none()
}
