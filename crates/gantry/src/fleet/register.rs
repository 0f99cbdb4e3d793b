//! Tells the hub of an embedded fleet's members, as a person tells it of real ones: a Secret with a
//! kubeconfig, and a Cluster object.

use anyhow::Context as _;
use gantry_api::cluster::{Access, Cell, KubeconfigSecret};
use gantry_api::{Cluster, ClusterSpec};
use gantry_cluster::EmbeddedCluster;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::layout::Layout;
use crate::failure::Result;

/// Namespace of what is Gantry's own in the hub.
const NAMESPACE: &str = "gantry-system";

/// Writes Secret and Cluster of every member; again after a restart, since addresses may have changed.
pub async fn members(hub: &Client, layout: &Layout, members: &[EmbeddedCluster]) -> Result<()> {
    let apply = PatchParams::apply("gantry-up").force();
    let namespaces: Api<Namespace> = Api::all(hub.clone());
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    namespaces
        .patch(NAMESPACE, &apply, &Patch::Apply(namespace))
        .await
        .with_context(|| format!("cannot make the namespace {NAMESPACE} in the hub"))?;
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), NAMESPACE);
    let clusters: Api<Cluster> = Api::all(hub.clone());
    for (member, cluster) in layout.members.iter().zip(members) {
        let kubeconfig =
            serde_saphyr::to_string(&cluster.kubeconfig()).map_err(anyhow::Error::from)?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": member.name, "namespace": NAMESPACE},
            "stringData": {"kubeconfig": kubeconfig},
        });
        secrets
            .patch(&member.name, &apply, &Patch::Apply(secret))
            .await
            .with_context(|| {
                format!(
                    "cannot write the Secret {NAMESPACE}/{} in the hub",
                    member.name
                )
            })?;
        let object = Cluster::new(
            &member.name,
            ClusterSpec {
                region: member.region.clone(),
                access: Access {
                    kubeconfig_secret: Some(KubeconfigSecret {
                        namespace: NAMESPACE.to_owned(),
                        name: member.name.clone(),
                        key: "kubeconfig".to_owned(),
                    }),
                },
                cells: member
                    .cells
                    .iter()
                    .map(|cell| Cell {
                        name: cell.name.clone(),
                        ..Cell::default()
                    })
                    .collect(),
                stop_the_line: None,
            },
        );
        clusters
            .patch(&member.name, &apply, &Patch::Apply(&object))
            .await
            .with_context(|| format!("cannot write the Cluster {} in the hub", member.name))?;
    }
    Ok(())
}
