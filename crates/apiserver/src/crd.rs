//! CustomResourceDefinitions: what they serve, their conditions, and the end of their objects
//! when they are deleted.

use std::{sync::Arc, time::Duration};

use gantry_machinery::{resource::Resource, status::Failure};
use serde_json::Value;

use crate::{
    api::{Api, Cx},
    bootstrap, object,
    registry::Registry,
    rest::{
        delete,
        update::{self, Change, Track},
    },
    rules,
};

pub const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
const BUCKET: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Keeps a definition that is being deleted until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// All definitions with their revisions.
fn definitions(api: &Api) -> Vec<(Value, u64)> {
    let snapshot = api.store.snapshot(BUCKET);
    let all = snapshot.iter().filter_map(|stored| {
        let parsed = serde_json::from_slice(&stored.value);
        if parsed.is_err() {
            tracing::error!(key = %stored.key, "a stored definition is not JSON");
        }
        Some((parsed.ok()?, stored.revision))
    });
    all.collect()
}

/// Rebuilds the registry from the stored definitions. Called after every write to one, so that a
/// resource is served as soon as its definition is established.
pub fn reload(api: &Arc<Api>) {
    let mut custom: Vec<(Resource, u64)> = vec![];
    for (definition, revision) in definitions(api) {
        if condition(&definition, "Established") {
            let served = rules::custom_resources(&definition);
            custom.extend(served.into_iter().map(|resource| (resource, revision)));
        }
    }
    let mut registry = api.registry.write();
    let generation = registry.generation + 1;
    *registry = Arc::new(Registry::serving(custom, generation, &api.config.runtime));
    drop(registry);
    api.redefined.send_replace(());
    api.aggregator.registered.notify_one();
}

fn condition(definition: &Value, kind: &str) -> bool {
    definition
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|c| object::text(c, "/type") == kind && object::text(c, "/status") == "True")
}

/// Sets the condition that tells how far the end of a definition is.
pub fn terminating(definition: &mut Value, reason: &str, message: &str, now: jiff::Timestamp) {
    let condition = serde_json::json!({
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": object::time(now),
        "reason": reason,
        "message": message,
    });
    let Some(list) = definition
        .get_mut("status")
        .and_then(|s| s.get_mut("conditions"))
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    match list.iter_mut().find(|c| c["type"] == "Terminating") {
        Some(there) => *there = condition,
        None => list.push(condition),
    }
}

/// After a write to a definition: brings its status up to date, and begins the clean-up of one
/// that is being deleted.
pub async fn settle(api: &Arc<Api>, name: &str) {
    // One after the other: names are compared with those that others have been given.
    let _guard = api.definitions.lock().await;
    let Some(mut cx) = bootstrap::own(api, GROUP, "v1", PLURAL, "") else {
        return;
    };
    cx.target.name = name.to_owned();
    let Some(stored) = api.store.get(&cx.key(name)) else {
        reload(api);
        settle_others(&mut cx).await;
        return;
    };
    let Ok(definition) = object::parse(&stored.value) else {
        return;
    };
    if object::deleting(&definition) {
        let (api, name) = (api.clone(), name.to_owned());
        tokio::spawn(async move {
            if let Err(failure) = clean_up(&api, &name).await {
                tracing::warn!(%failure, name, "removing the objects of a definition");
            }
        });
        return;
    }
    if let Err(failure) = settle_status(&mut cx).await {
        tracing::warn!(%failure, name, "writing the status of a definition");
    }
    settle_others(&mut cx).await;
}

/// Definitions that had to wait for a name may have it now.
async fn settle_others(cx: &mut Cx) {
    for (definition, _) in definitions(&cx.api) {
        if object::deleting(&definition) || condition(&definition, "NamesAccepted") {
            continue;
        }
        object::name(&definition).clone_into(&mut cx.target.name);
        if let Err(failure) = settle_status(cx).await {
            let name = &cx.target.name;
            tracing::warn!(%failure, name, "writing the status of a definition");
        }
    }
}

async fn settle_status(cx: &mut Cx) -> Result<(), Failure> {
    let name = cx.target.name.clone();
    let others: Vec<Value> = definitions(&cx.api)
        .into_iter()
        .map(|(definition, _)| definition)
        .filter(|d| object::name(d) != name)
        .collect();
    let now = cx.now;
    let change = Change {
        subresource: "status".to_owned(),
        track: Track::Server,
        given: None,
        retries: 16,
    };
    update::modify(cx, change, |_, old| {
        let mut new = old.clone();
        new["status"] = rules::definition_status(old, &others, now);
        Ok(new)
    })
    .await?;
    Ok(())
}

/// How often the objects of a definition are looked through while their finalizers hold them.
const LOOK: Duration = Duration::from_millis(200);

/// Deletes all objects of a definition that is being deleted, waits for them to be gone, and lets
/// the definition go.
async fn clean_up(api: &Arc<Api>, name: &str) -> Result<(), Failure> {
    let Some(mut cx) = bootstrap::own(api, GROUP, "v1", PLURAL, "") else {
        return Ok(());
    };
    cx.target.name = name.to_owned();
    let Some(stored) = api.store.get(&cx.key(name)) else {
        return Ok(());
    };
    let definition = object::parse(&stored.value)?;
    let group = object::text(&definition, "/spec/group").to_owned();
    let plural = object::text(&definition, "/spec/names/plural").to_owned();
    loop {
        if api.stop.is_cancelled() {
            return Ok(());
        }
        let entry = api.registry.read().resource(&group, &plural).cloned();
        let Some(entry) = entry else { break };
        let snapshot = api.store.snapshot(&entry.bucket);
        if snapshot.is_empty() {
            break;
        }
        let (version, plural) = (&entry.resource.version, &entry.resource.plural);
        for stored in snapshot.iter() {
            let (namespace, object_name) = match stored.key.name.split_once('/') {
                Some(parts) if entry.resource.namespaced() => parts,
                _ => ("", &*stored.key.name),
            };
            let Some(mut own) = bootstrap::own(api, &group, version, plural, namespace) else {
                return Ok(());
            };
            let done = delete::one(&mut own, object_name, &delete::Options::default()).await;
            if let Err(failure) = done
                && failure.code != 404
            {
                return Err(failure);
            }
        }
        if api.store.count(&entry.bucket) > 0 {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = api.stop.cancelled() => return Ok(()),
            }
        }
    }
    let change = Change {
        subresource: String::new(),
        track: Track::Nobody,
        given: None,
        retries: 16,
    };
    let done = update::modify(&mut cx, change, |_, old| {
        let mut new = old.clone();
        let left: Vec<String> = object::finalizers(old)
            .into_iter()
            .filter(|f| f != CLEANUP)
            .collect();
        if left.is_empty() {
            object::remove_meta(&mut new, "finalizers");
        } else {
            object::set_meta(&mut new, "finalizers", left);
        }
        Ok(new)
    })
    .await;
    match done {
        Err(failure) if failure.code != 404 => Err(failure),
        _ => {
            let _guard = api.definitions.lock().await;
            settle_others(&mut cx).await;
            Ok(())
        }
    }
}

/// Goes on with what a stop interrupted: statuses not yet written, clean-ups not yet done.
pub async fn resume(api: &Arc<Api>) {
    for (definition, _) in definitions(api) {
        if object::deleting(&definition) || !condition(&definition, "Established") {
            settle(api, object::name(&definition)).await;
        }
    }
}
