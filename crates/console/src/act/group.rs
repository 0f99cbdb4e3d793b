//! Scaling a Group.

use gantry_api::Group;
use kube::{Api, api::Patch};
use serde_json::json;

use super::patching;
use crate::{app::Cx, error::Fail};

/// Sets the number of its instances.
///
/// # Errors
/// If the hub refuses it.
pub async fn scale(cx: &Cx, tenant: &str, name: &str, replicas: i32) -> Result<(), Fail> {
    let api: Api<Group> = Api::namespaced(cx.session.client.clone(), tenant);
    let patch = json!({"spec": {"replicas": replicas}});
    let end = api
        .patch_scale(name, &patching(), &Patch::Merge(patch))
        .await
        .map(|_| ())
        .map_err(Fail::from);
    cx.audit(
        &format!("scale to {replicas}"),
        &format!("group {tenant}/{name}"),
        &end,
    );
    end
}
