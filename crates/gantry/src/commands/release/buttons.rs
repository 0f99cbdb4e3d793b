//! The buttons of a release: each is a field of its spec, set by a patch.

use gantry_api::Release;
pub use gantry_hub::release::buttons::Button;
use gantry_hub::release::buttons::patch;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::println;

/// Presses a button and says what that does.
pub async fn press(client: &Client, release: Release, button: Button) -> Result<Release> {
    let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
    let (spec, words) = patch(&release, button).map_err(|reason| {
        Failure::new(
            Exit::Failure,
            format!("release {namespace}/{name}: {reason}"),
        )
    })?;
    let api: Api<Release> = Api::namespaced(client.clone(), &namespace);
    // With the version read: a button pressed on an old picture is refused, not carried out.
    let body = json!({"metadata": {"resourceVersion": release.resource_version()}, "spec": spec});
    let pressed = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(body))
        .await;
    let pressed = match pressed {
        // Its status moves all the time; what counts is that the button still means the same.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let now = api
                .get(&name)
                .await
                .map_err(|e| failed(&format!("cannot get the release {namespace}/{name}"), e))?;
            return Box::pin(press(client, now, button)).await;
        }
        other => other
            .map_err(|e| failed(&format!("cannot change the release {namespace}/{name}"), e))?,
    };
    println(format!("release {namespace}/{name}: {words}"))?;
    Ok(pressed)
}
