//! The class that claims get where they name none.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::SIMULATED;
use crate::model::STORAGE_CLASSES;
use crate::model::meta::MetaOnly;
use crate::runtime::Context;

/// How long after a refusal it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Creates the default class of simulated volumes, unless there is one of that name.
pub fn start_default_class(
    context: &Context,
    name: String,
) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let context = context.clone();
    move |tasks| {
        tasks.spawn(async move {
            let class = json!({
                "apiVersion": "storage.k8s.io/v1",
                "kind": STORAGE_CLASSES.kind,
                "metadata": {"name": name, "annotations": {
                    "storageclass.kubernetes.io/is-default-class": "true"}},
                "provisioner": SIMULATED,
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "Immediate",
                "allowVolumeExpansion": true,
            });
            loop {
                let made = context.api.create::<MetaOnly>(&STORAGE_CLASSES, "", &class);
                match made.await {
                    Err(error) if !error.already_exists() => {
                        let message = error.message();
                        tracing::warn!(message, "default storage class not created; trying again");
                    }
                    _ => return,
                }
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = context.stop.cancelled() => return,
                }
            }
        });
    }
}
