//! Creating Apps and Groups.

use std::fmt::Debug;

use gantry_api::{App, Group};
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::MANAGER;
use crate::{app::Cx, error::Fail, page, view::Params};

/// What creating came to.
pub enum End {
    /// It is made (or would be).
    Made,
    /// It was there already, and is left as it is.
    There,
}

/// Creates one object, or asks whether it would be taken.
///
/// # Errors
/// If the hub refuses it.
pub async fn one<K>(cx: &Cx, object: &Value, dry_run: bool) -> Result<End, Fail>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let tenant = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if name.is_empty() || tenant.is_empty() {
        return Err(Fail::Bad(
            "metadata: name and namespace (the tenant) are needed".to_owned(),
        ));
    }
    let typed: K = serde_json::from_value(object.clone()).map_err(|e| Fail::Bad(e.to_string()))?;
    let api: Api<K> = Api::namespaced(cx.session.client.clone(), &tenant);
    let params = PostParams {
        dry_run,
        field_manager: Some(MANAGER.to_owned()),
    };
    let end = match api.create(&params, &typed).await {
        Ok(_) => Ok(End::Made),
        Err(kube::Error::Api(s)) if s.reason == "AlreadyExists" => Ok(End::There),
        Err(error) => Err(Fail::from(error)),
    };
    if !dry_run {
        cx.audit("create", &format!("{} {tenant}/{name}", K::kind(&())), &end);
    }
    match end {
        // A namespace that is not there.
        Err(Fail::NotFound) => Err(Fail::Bad(format!(
            "there is no tenant {tenant}: `kubectl create namespace {tenant}`"
        ))),
        other => other,
    }
}

/// Creates what form or YAML say; the place to go to.
///
/// # Errors
/// If something is wrong with it, or the hub refuses it.
pub async fn all(cx: &Cx, form: &Params) -> Result<String, Fail> {
    let objects = if form.get("edited") == "yaml" {
        page::create_parse(&form.text("yaml"))?
    } else {
        page::create_objects(form)?
    };
    let mut place = "/services".to_owned();
    for object in &objects {
        let end = match object["kind"].as_str() {
            Some("App") => one::<App>(cx, object, false).await?,
            _ => one::<Group>(cx, object, false).await?,
        };
        if object["kind"] == "Group" {
            let (tenant, name) = (
                &object["metadata"]["namespace"],
                &object["metadata"]["name"],
            );
            let (tenant, name) = (
                tenant.as_str().unwrap_or_default(),
                name.as_str().unwrap_or_default(),
            );
            if matches!(end, End::There) {
                return Err(Fail::Conflict(format!(
                    "there is a group {tenant}/{name} already"
                )));
            }
            place = format!("/groups/{tenant}/{name}");
            wait(cx, tenant, name).await;
        }
    }
    Ok(place)
}

/// Until the model has seen it: the page that follows is to be there.
async fn wait(cx: &Cx, tenant: &str, name: &str) {
    let key = (tenant.to_owned(), name.to_owned());
    let mut changes = cx.app.model.changes();
    let seen = async {
        while !cx.app.model.read().groups.contains_key(&key) {
            if changes.recv().await.is_err() {
                changes = cx.app.model.changes();
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(3), seen).await;
}
