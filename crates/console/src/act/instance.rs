//! Restarting an instance: it is evicted, so that the Group's budget is kept, and comes back under its
//! name.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::EvictParams};

use crate::{access::Right, app::Cx, error::Fail, page};

/// The member as the user.
///
/// # Errors
/// If it cannot be reached.
pub fn writer(cx: &Cx, cluster: &str) -> Result<Client, Fail> {
    let access = cx.app.model.access(cluster).ok_or(Fail::NotFound)?;
    cx.session.on_member(cluster, access)
}

/// Evicts it.
///
/// # Errors
/// If hub or member refuse it: a right that is missing, a budget that is used up.
pub async fn restart(cx: &Cx, cluster: &str, tenant: &str, name: &str) -> Result<(), Fail> {
    page::instance_seen(cx, cluster, tenant, name)?;
    if !cx
        .may(Right::core("create", "pods", tenant).sub("eviction"))
        .await
    {
        return Err(Fail::NotFound);
    }
    let api: Api<Pod> = Api::namespaced(writer(cx, cluster)?, tenant);
    let end = api
        .evict(name, &EvictParams::default())
        .await
        .map(|_| ())
        .map_err(Fail::from);
    cx.audit(
        "restart",
        &format!("instance {cluster}/{tenant}/{name}"),
        &end,
    );
    end
}
