//! Claims of pods that are only tried: what controllers would make for them before they can be placed.

use std::collections::BTreeMap;

use gantry_scheduler::core::Cluster;
use gantry_scheduler::core::object;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::connect::failed;
use crate::failure::Result;

/// A storage class with this annotation is that of claims that name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What claims are made of.
#[derive(Default)]
pub struct Templates {
    /// Specs of claims to devices, by `namespace/name` of the template.
    devices: BTreeMap<String, Value>,
    storage_class: Option<String>,
}

/// Claims that are there for the trial alone.
#[derive(Default)]
pub struct Claims {
    volumes: Vec<object::Claim>,
    devices: Vec<ResourceClaim>,
}

fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn decode<T: serde::de::DeserializeOwned>(object: Value) -> Result<T, String> {
    let what = format!("{}/{}", object["kind"], object["metadata"]["name"]).replace('"', "");
    serde_json::from_value(object).map_err(|e| format!("{what}: {e}"))
}

impl Templates {
    /// Reads those of a cluster.
    pub async fn read(client: &Client) -> Result<Self> {
        let mut templates = Self::default();
        let all = Api::<ResourceClaimTemplate>::all(client.clone());
        let all = match all.list(&ListParams::default()).await {
            Ok(list) => list.items,
            // An older cluster has none.
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(error) => return Err(failed("cannot list resource claim templates", error)),
        };
        for template in all {
            let spec = serde_json::to_value(&template.spec.spec).unwrap_or_default();
            let part = |part: Option<String>| part.unwrap_or_default();
            let namespace = part(template.metadata.namespace);
            let name = part(template.metadata.name);
            templates
                .devices
                .insert(format!("{namespace}/{name}"), spec);
        }
        let classes = Api::<StorageClass>::all(client.clone());
        let classes = classes.list(&ListParams::default()).await;
        let classes = classes.map_err(|e| failed("cannot list storage classes", e))?;
        let default = classes.items.into_iter().find(|class| {
            let annotations = class.metadata.annotations.as_ref();
            annotations
                .and_then(|a| a.get(DEFAULT_CLASS))
                .is_some_and(|v| v == "true")
        });
        templates.storage_class = default.and_then(|class| class.metadata.name);
        Ok(templates)
    }

    /// Takes up a manifest that is a template or a claim. Returns whether it is.
    pub fn take(
        &mut self,
        manifest: &Value,
        namespace: &str,
        claims: &mut Claims,
    ) -> Result<bool, String> {
        let mut object = manifest.clone();
        if object["metadata"]["namespace"].as_str().is_none() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let key = format!("{}/{}", meta(&object, "namespace"), meta(&object, "name"));
        object["metadata"]["uid"] = json!(format!("dry-run/{key}"));
        match object["kind"].as_str() {
            Some("ResourceClaimTemplate") => {
                self.devices.insert(key, object["spec"]["spec"].take());
            }
            Some("ResourceClaim") => claims.devices.push(decode(object)?),
            Some("PersistentVolumeClaim") => claims.volumes.push(self.volume(object)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn volume(&self, mut claim: Value) -> Result<object::Claim, String> {
        let class = &mut claim["spec"]["storageClassName"];
        if class.is_null()
            && let Some(default) = &self.storage_class
        {
            *class = json!(default);
        }
        decode(claim)
    }

    /// Makes the claims of one pod: of a StatefulSet's `volumeClaimTemplates`, of its ephemeral volumes, and of templates
    /// of claims to devices.
    ///
    /// # Errors
    /// Names a template that is not there.
    pub fn make(&self, pod: &mut Value, sets: &[Value], claims: &mut Claims) -> Result<(), String> {
        let (namespace, name) = (
            meta(pod, "namespace").to_owned(),
            meta(pod, "name").to_owned(),
        );
        let uid = meta(pod, "uid").to_owned();
        let object = |kind: &str, named: &str, spec: &Value| {
            let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid, "controller": true});
            json!({"kind": kind, "spec": spec, "metadata": {"name": named, "namespace": namespace,
                "uid": format!("{uid}/{named}"), "ownerReferences": [owner]}})
        };
        let claim = "PersistentVolumeClaim";
        let mut volumes: Vec<Value> = pod["spec"]["volumes"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for template in sets {
            let volume = meta(template, "name");
            let named = format!("{volume}-{name}");
            claims
                .volumes
                .push(self.volume(object(claim, &named, &template["spec"]))?);
            volumes.retain(|other| other["name"] != volume);
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": named}}));
        }
        for volume in &volumes {
            let template = &volume["ephemeral"]["volumeClaimTemplate"];
            if !template.is_null() {
                let named = format!("{name}-{}", volume["name"].as_str().unwrap_or_default());
                claims
                    .volumes
                    .push(self.volume(object(claim, &named, &template["spec"]))?);
            }
        }
        let mut made = Vec::new();
        for wanted in pod["spec"]["resourceClaims"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let Some(template) = wanted["resourceClaimTemplateName"].as_str() else {
                continue;
            };
            let key = format!("{namespace}/{template}");
            let Some(spec) = self.devices.get(&key) else {
                return Err(format!("there is no ResourceClaimTemplate {key}"));
            };
            let named = format!("{name}-{}", wanted["name"].as_str().unwrap_or_default());
            claims
                .devices
                .push(decode(object("ResourceClaim", &named, spec))?);
            made.push(json!({"name": wanted["name"], "resourceClaimName": named}));
        }
        if !volumes.is_empty() {
            pod["spec"]["volumes"] = json!(volumes);
        }
        if !made.is_empty() {
            pod["status"]["resourceClaimStatuses"] = json!(made);
        }
        Ok(())
    }
}

impl Claims {
    /// Lets a cluster know of the claims; a volume's that it knows already stays as it is.
    pub fn tell(&self, cluster: &mut Cluster) {
        for claim in &self.volumes {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            let meta = &claim.metadata;
            if !cluster.knows_claim(&part(&meta.namespace), &part(&meta.name)) {
                cluster.upsert_claim(claim);
            }
        }
        for claim in &self.devices {
            cluster.change_devices(|devices, symbols| devices.set_claim(claim, symbols));
        }
    }
}
