//! The status of ValidatingAdmissionPolicies: whether their expressions fit the kinds they are
//! about.

use std::sync::Arc;

use gantry_machinery::{policy, resource::Resource, status::Failure};
use serde_json::{Value, json};

use crate::{
    api::{Api, Cx},
    bootstrap, object,
    rest::update::{self, Change, Track},
};

pub const PLURAL: &str = "validatingadmissionpolicies";
use super::super::hooks::GROUP;

/// After a write to a policy: brings its status up to date, in its own time.
pub fn settle(api: &Arc<Api>, name: &str) {
    let (api, name) = (api.clone(), name.to_owned());
    tokio::spawn(async move {
        let Some(mut cx) = bootstrap::own(&api, GROUP, "v1", PLURAL, "") else {
            return;
        };
        cx.target.name.clone_from(&name);
        match write(&mut cx).await {
            Err(failure) if failure.code != 404 => {
                tracing::warn!(%failure, name, "writing the status of a policy");
            }
            _ => {}
        }
    });
}

/// Goes on with what a stop interrupted.
pub fn resume(api: &Arc<Api>) {
    let bucket = format!("{GROUP}/{PLURAL}");
    for stored in api.store.snapshot(&bucket).iter() {
        settle(api, &stored.key.name);
    }
}

async fn write(cx: &mut Cx) -> Result<(), Failure> {
    let change = Change {
        subresource: "status".to_owned(),
        track: Track::Server,
        given: None,
        retries: 16,
    };
    update::modify(cx, change, |cx, old| {
        let generation = old.pointer("/metadata/generation");
        let done = old.pointer("/status/observedGeneration") == generation
            && old.pointer("/status/typeChecking").is_some();
        let mut new = old.clone();
        if !done && !object::deleting(old) {
            new["status"]["observedGeneration"] = generation.cloned().unwrap_or_default();
            new["status"]["typeChecking"] = type_checking(cx, old);
        }
        Ok(new)
    })
    .await?;
    Ok(())
}

fn type_checking(cx: &Cx, policy: &Value) -> Value {
    let registry = cx.api.registry.read().clone();
    let kinds = policy::kinds_to_check(policy);
    let resources: Vec<&Resource> = kinds
        .iter()
        .filter_map(|(group, version, plural)| registry.lookup(group, version, plural))
        .map(|entry| &*entry.resource)
        .collect();
    let params = |version: &str, kind: &str| registry.of_kind(version, kind).map(|e| &*e.resource);
    match policy::check_types(policy, &resources, params) {
        warnings if warnings.is_empty() => json!({}),
        warnings => json!({"expressionWarnings": warnings}),
    }
}
