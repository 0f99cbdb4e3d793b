//! Scaling a Group.

use gantry_api::Group;
use kube::{Api, api::Patch};
use serde_json::json;

use super::patching;
use crate::{access::Right, app::Cx, error::Fail};

/// Sets the number of its instances.
///
/// # Errors
/// If the hub refuses it.
pub async fn scale(cx: &Cx, tenant: &str, name: &str, replicas: i32) -> Result<(), Fail> {
    let api: Api<Group> = Api::namespaced(cx.session.client.clone(), tenant);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    // A write by way of `scale` is not stamped with who made it; some may make no other.
    let whole = Right::gantry("patch", "groups", tenant).named(name);
    let end = if cx.may(whole).await {
        api.patch(name, &patching(), &patch).await.map(|_| ())
    } else {
        api.patch_scale(name, &patching(), &patch).await.map(|_| ())
    };
    let end = end.map_err(Fail::from);
    cx.audit(
        &format!("scale to {replicas}"),
        &format!("group {tenant}/{name}"),
        &end,
    );
    end
}
