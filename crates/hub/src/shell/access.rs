//! How a member is reached: by the kubeconfig in the Secret that its Cluster names.

use std::time::Duration;

use gantry_api::Cluster;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// The member's kubeconfig; `None` where the member is the hub's own cluster.
///
/// # Errors
/// Why it cannot be read, in one line.
pub async fn kubeconfig(hub: &Client, cluster: &Cluster) -> Result<Option<String>, String> {
    let Some(wanted) = &cluster.spec.access.kubeconfig_secret else {
        return Ok(None);
    };
    let api: Api<Secret> = Api::namespaced(hub.clone(), &wanted.namespace);
    let secret = api
        .get(&wanted.name)
        .await
        .map_err(|e| format!("read secret {}/{}: {e}", wanted.namespace, wanted.name))?;
    let data = secret
        .data
        .and_then(|d| d.get(&wanted.key).map(|b| b.0.clone()));
    let data = data.ok_or_else(|| {
        format!(
            "secret {}/{} has no key {}",
            wanted.namespace, wanted.name, wanted.key
        )
    })?;
    let text = String::from_utf8(data).map_err(|e| format!("the kubeconfig is no text: {e}"))?;
    Ok(Some(text))
}

/// What a client of the member is made from.
///
/// # Errors
/// What is wrong with the kubeconfig, in one line.
pub async fn config(kubeconfig: &str) -> Result<Config, String> {
    let parsed =
        Kubeconfig::from_yaml(kubeconfig).map_err(|e| format!("read the kubeconfig: {e}"))?;
    let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .map_err(|e| format!("read the kubeconfig: {e}"))?;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(config)
}
