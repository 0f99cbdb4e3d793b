//! The whole store as one stream of bytes, for `gantry snapshot save`.

use std::sync::Arc;

use futures::{StreamExt, stream};
use gantry_machinery::status::Failure;
use http::Method;

use crate::{
    api::Api,
    errors,
    respond::{self, Reply},
};

/// Where it is asked for. Kubernetes has no such path: there, etcd is asked.
pub const PATH: &str = "/gantry/v1/snapshot";

/// Answers a member of `system:masters`: it holds every Secret there is.
pub async fn serve(api: &Arc<Api>, method: &Method) -> Result<Reply, Failure> {
    if method != Method::GET {
        return Err(errors::method_not_allowed());
    }
    let store = api.store.clone();
    let backup = tokio::task::spawn_blocking(move || store.backup())
        .await
        .map_err(errors::internal)?;
    // A long one must not keep the server from ending: what is cut off is found to be.
    let pieces = stream::iter(backup).take_until(api.stop.clone().cancelled_owned());
    Ok(respond::stream("application/octet-stream", pieces))
}
