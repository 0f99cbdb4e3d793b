//! The definitions that the scheduler reads beyond Kubernetes' own, put into a cluster.

use gantry_api::app::Level;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

/// Field manager of what is installed.
const MANAGER: &str = "gantry-scheduler";

/// What could not be installed.
#[derive(thiserror::Error, Debug)]
#[error("install {what}")]
pub struct InstallError {
    pub what: String,
    pub source: kube::Error,
}

/// Applies Gantry's definitions for scheduling and the priority classes of the levels. Placement policies written before
/// a scheduler runs are followed by the first that does.
///
/// # Errors
/// Names what the API server refused.
pub async fn install(client: &Client) -> Result<(), InstallError> {
    let apply = PatchParams::apply(MANAGER).force();
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for definition in gantry_api::scheduling_crds() {
        let name = definition.name_any();
        let body = Patch::Apply(&definition);
        let applied = definitions.patch(&name, &apply, &body);
        applied.await.map_err(|source| InstallError {
            what: format!("the definition of {name}"),
            source,
        })?;
    }
    let classes = Api::<PriorityClass>::all(client.clone());
    for level in Level::ALL {
        let name = level.priority_class();
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": level.priority(), "description": format!("Pods of Apps of level {}", level.name()),
        });
        let body = Patch::Apply(&class);
        let applied = classes.patch(name, &apply, &body);
        applied.await.map_err(|source| InstallError {
            what: format!("priority class {name}"),
            source,
        })?;
    }
    Ok(())
}
