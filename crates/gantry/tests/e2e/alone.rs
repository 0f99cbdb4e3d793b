//! The flow with each part as a process of its own, as on real clusters: `gantry hub` and
//! `gantry hollow` against a cluster that is hub and member at once.
//!
//! `GANTRY_E2E_KUBECONFIG` names a kubeconfig whose current context is a real cluster (one that
//! tests may use up: CRDs stay behind, as on every hub). Without it, a cluster of this process
//! stands in, reached over its socket like any other.

use std::path::{Path, PathBuf};

use gantry_api::cluster::Cluster;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::fleet::{TENANT, client, short_flow};
use crate::support::{Fleet, Process, gantry, wait};

const NAMESPACE: &str = "gantry-system";
const MEMBER: &str = "e2e";
/// Zones that no real node is in: instances land on simulated nodes only.
const CELLS: [&str; 2] = ["gantry-e2e-a", "gantry-e2e-b"];

/// The parts, and where they run.
struct Parts {
    kubeconfig: PathBuf,
    context: String,
    hub: Process,
    hollow: Process,
}

impl Parts {
    fn start(kubeconfig: &Path, context: &str) -> Parts {
        let part = |args: &[&str], ready| {
            let mut command = gantry();
            command.arg("--kubeconfig").arg(kubeconfig).args(args);
            Process::start(command, ready)
        };
        let cells = CELLS.map(|cell| ["--cell", cell]).concat();
        Parts {
            kubeconfig: kubeconfig.to_owned(),
            context: context.to_owned(),
            hollow: part(
                &[&["hollow", "--nodes", "4"], &cells[..]].concat(),
                "Running simulated nodes",
            ),
            hub: part(&["hub"], "Running the fleet controllers"),
        }
    }
}

impl Fleet for Parts {
    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn members(&self) -> Vec<String> {
        vec![self.context.clone()]
    }

    fn crash(self) -> Parts {
        let Parts {
            kubeconfig,
            context,
            hub,
            hollow,
        } = self;
        drop((hub, hollow));
        Parts::start(&kubeconfig, &context)
    }
}

/// Tells the hub of the cluster as a member, as the README does.
async fn register(client: &kube::Client, kubeconfig: &str) {
    let apply = PatchParams::apply("e2e").force();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    namespaces
        .patch(NAMESPACE, &apply, &Patch::Apply(namespace))
        .await
        .unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": MEMBER, "namespace": NAMESPACE}, "stringData": {"kubeconfig": kubeconfig}});
    Api::<Secret>::namespaced(client.clone(), NAMESPACE)
        .patch(MEMBER, &apply, &Patch::Apply(secret))
        .await
        .unwrap();
    let cells = CELLS.map(|name| json!({"name": name}));
    let cluster = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": MEMBER},
        "spec": {"region": "e2e", "cells": cells,
            "access": {"kubeconfigSecret": {"namespace": NAMESPACE, "name": MEMBER}}}});
    Api::<Cluster>::all(client.clone())
        .patch(MEMBER, &apply, &Patch::Apply(cluster))
        .await
        .unwrap();
}

/// Removes what the flow made; the types and `gantry-system` stay, they may be somebody's.
async fn clean(client: &kube::Client) {
    let now = DeleteParams::default();
    let _ = Api::<Namespace>::all(client.clone())
        .delete(TENANT[1], &now)
        .await;
    let _ = Api::<Cluster>::all(client.clone())
        .delete(MEMBER, &now)
        .await;
    let _ = Api::<Secret>::namespaced(client.clone(), NAMESPACE)
        .delete(MEMBER, &now)
        .await;
    let _ = Api::<ConfigMap>::namespaced(client.clone(), "kube-system")
        .delete("hollow-behaviours", &now)
        .await;
}

#[test]
fn the_parts_alone_against_any_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (kubeconfig, _stand_in) = match std::env::var_os("GANTRY_E2E_KUBECONFIG") {
        Some(path) => (PathBuf::from(path), None),
        None => {
            let cluster = runtime
                .block_on(
                    gantry_cluster::EmbeddedCluster::builder()
                        .nodes(vec![])
                        .start(),
                )
                .unwrap();
            let path = folder.path().join("kubeconfig");
            let text = serde_saphyr::to_string(&cluster.kubeconfig()).unwrap();
            gantry_cluster::write_private(&path, text.as_bytes()).unwrap();
            (path, Some(cluster))
        }
    };
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let context = kube::config::Kubeconfig::from_yaml(&text)
        .unwrap()
        .current_context
        .unwrap();
    let parts = Parts::start(&kubeconfig, &context);
    let client = runtime.block_on(client(&kubeconfig, None));
    wait("the hub to install its types", || {
        let served = |kind| parts.run(&["get", kind]).status.success();
        ["clusters", "apps", "groups", "releases"]
            .into_iter()
            .all(served)
            .then_some(())
    });
    runtime.block_on(register(&client, &text));

    let parts = short_flow(parts, CELLS.len());

    runtime.block_on(clean(&client));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    wait("the tenant's namespace to go", || {
        runtime
            .block_on(namespaces.get_opt(TENANT[1]))
            .unwrap()
            .is_none()
            .then_some(())
    });
    drop(parts);
    // Nodes last: while they were there, they let their pods end.
    let nodes: Api<Node> = Api::all(client.clone());
    let ours = ListParams::default().labels(&format!(
        "{}=true,topology.kubernetes.io/zone in ({})",
        gantry_hollow::SIMULATED,
        CELLS.join(",")
    ));
    runtime
        .block_on(nodes.delete_collection(&DeleteParams::default(), &ours))
        .unwrap();
}
