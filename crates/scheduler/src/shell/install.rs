//! The definitions that the scheduler reads beyond Kubernetes' own, put into a cluster.

use gantry_api::app::Level;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
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
    // Definitions of others are made where they are missing, and left alone where they are.
    for definition in foreign() {
        let name = definition.name_any();
        match definitions
            .create(&PostParams::default(), &definition)
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(source) => {
                return Err(InstallError {
                    what: format!("the definition of {name}"),
                    source,
                });
            }
        }
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

/// Kinds that others define and the scheduler understands: elastic quotas of scheduler-plugins and Koordinator, pod groups
/// of coscheduling.
fn foreign() -> Vec<CustomResourceDefinition> {
    let quantities =
        json!({"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}});
    let quota = json!({
        "metadata": {"name": "elasticquotas.scheduling.sigs.k8s.io", "annotations": {
            // Required of groups below k8s.io.
            "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/scheduler-plugins/pull/52"}},
        "spec": {
            "group": "scheduling.sigs.k8s.io", "scope": "Namespaced",
            "names": {"kind": "ElasticQuota", "listKind": "ElasticQuotaList", "plural": "elasticquotas",
                "singular": "elasticquota", "shortNames": ["eq", "eqs"]},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object",
                    "description": "What a tenant is guaranteed, and may use at most by borrowing what others do not use.",
                    "properties": {
                        "spec": {"type": "object", "properties": {
                            "min": quantities, "max": quantities}},
                        "status": {"type": "object", "properties": {"used": quantities}}}}}}]},
    });
    let group = json!({
        "metadata": {"name": "podgroups.scheduling.x-k8s.io"},
        "spec": {
            "group": "scheduling.x-k8s.io", "scope": "Namespaced",
            "names": {"kind": "PodGroup", "listKind": "PodGroupList", "plural": "podgroups", "singular": "podgroup",
                "shortNames": ["pg", "pgs"]},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object",
                    "description": "Pods that are of use only together: as many as minMember are placed, or none.",
                    "properties": {
                        "spec": {"type": "object", "properties": {
                            "minMember": {"type": "integer", "format": "int32", "minimum": 1},
                            "minResources": quantities,
                            "scheduleTimeoutSeconds": {"type": "integer", "format": "int32", "minimum": 1}}},
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]},
    });
    [quota, group]
        .into_iter()
        .filter_map(|definition| serde_json::from_value(definition).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_of_others_is_one() {
        let names: Vec<String> = foreign().iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(
            names,
            [
                "elasticquotas.scheduling.sigs.k8s.io",
                "podgroups.scheduling.x-k8s.io"
            ]
        );
    }
}
