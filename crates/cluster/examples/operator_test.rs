//! An API server of one's own in a test: start a cluster, use it through an ordinary client, let it go.
//!
//! `cargo run -p gantry-cluster --example operator_test`

use gantry_cluster::EmbeddedCluster;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::PostParams;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, ResourceExt};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = EmbeddedCluster::start().await?;
    println!("a cluster at https://{}", cluster.address());

    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    let web: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "registry.example.com/web:1"}]}
            }
        }
    }))?;
    // The namespace's default service account is made by a controller, a moment after the start.
    let web = loop {
        match deployments.create(&PostParams::default(), &web).await {
            Err(kube::Error::Api(e)) if e.code == 403 => tokio::task::yield_now().await,
            other => break other?,
        }
    };
    await_condition(deployments, &web.name_any(), all_ready(3)).await?;
    println!("three simulated instances are ready");
    cluster.shutdown().await;
    Ok(())
}

fn all_ready(n: i32) -> impl Condition<Deployment> {
    move |d: Option<&Deployment>| {
        d.and_then(|d| d.status.as_ref())
            .and_then(|s| s.ready_replicas)
            == Some(n)
    }
}
