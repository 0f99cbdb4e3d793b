//! Testing a notification hook: the hub is asked to send one, so that a test goes the way that everything goes.

use gantry_api::Notification;
use gantry_hub::notify::TEST;
use jiff::Timestamp;
use kube::{Api, api::Patch};
use serde_json::json;

use super::patching;
use crate::{app::Cx, error::Fail};

/// Asks for a test; what comes of it stands in the hook's status.
///
/// # Errors
/// If the hub refuses it.
pub async fn test(cx: &Cx, namespace: &str, name: &str) -> Result<(), Fail> {
    let api: Api<Notification> = Api::namespaced(cx.session.client.clone(), namespace);
    let at = Timestamp::now().to_string();
    let patch = json!({"metadata": {"annotations": {(TEST): at}}});
    let end = api
        .patch(name, &patching(), &Patch::Merge(patch))
        .await
        .map(|_| ())
        .map_err(Fail::from);
    cx.audit("test", &format!("Notification {namespace}/{name}"), &end);
    end
}
