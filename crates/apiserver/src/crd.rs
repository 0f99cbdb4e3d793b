//! CustomResourceDefinitions: what they serve, their conditions, and the end of their objects
//! when they are deleted.

use std::{sync::Arc, time::Duration};

use gantry_machinery::{resource::Resource, status::Failure};
use serde_json::{Value, json};

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
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

fn definitions(api: &Api) -> Vec<Value> {
    let snapshot = api.store.snapshot(BUCKET);
    let all = snapshot.iter().filter_map(|stored| {
        let parsed = serde_json::from_slice(&stored.value);
        if parsed.is_err() {
            tracing::error!(key = %stored.key, "a stored definition is not JSON");
        }
        parsed.ok()
    });
    all.collect()
}

/// Rebuilds the registry from the stored definitions. Called after every write to one, so that a
/// resource is served as soon as its definition is established.
pub fn reload(api: &Arc<Api>) {
    let mut custom: Vec<Resource> = vec![];
    for definition in definitions(api) {
        if condition(&definition, "Established") {
            custom.extend(rules::custom_resources(&definition));
        }
    }
    let mut registry = api.registry.write();
    let generation = registry.generation + 1;
    *registry = Arc::new(Registry::new(custom, generation));
}

fn condition(definition: &Value, kind: &str) -> bool {
    definition
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|c| object::text(c, "/type") == kind && object::text(c, "/status") == "True")
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
}

async fn settle_status(cx: &mut Cx) -> Result<(), Failure> {
    let name = cx.target.name.clone();
    let others: Vec<Value> = definitions(&cx.api)
        .into_iter()
        .filter(|d| object::name(d) != name)
        .collect();
    let now = object::time(cx.now);
    let change = |sub: &str| Change {
        subresource: sub.to_owned(),
        track: Track::Nobody,
        given: None,
        retries: 16,
    };
    let finalizers = cx
        .store()
        .get(&cx.key(&name))
        .map(|s| object::parse(&s.value));
    if let Some(Ok(there)) = finalizers
        && !object::finalizers(&there).iter().any(|f| f == CLEANUP)
    {
        update::modify(cx, change(""), |_, old| {
            let mut new = old.clone();
            let mut all = object::finalizers(old);
            if !all.iter().any(|f| f == CLEANUP) {
                all.push(CLEANUP.to_owned());
                object::set_meta(&mut new, "finalizers", all);
            }
            Ok(new)
        })
        .await?;
    }
    update::modify(cx, change("status"), |_, old| {
        let mut new = old.clone();
        new["status"] = status(old, &others, &now);
        Ok(new)
    })
    .await?;
    Ok(())
}

fn names(value: &Value) -> Vec<(&'static str, String)> {
    let mut all = vec![];
    for (field, reason) in [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
        ("kind", "KindConflict"),
        ("listKind", "ListKindConflict"),
    ] {
        all.push((reason, object::text(value, &format!("/{field}")).to_owned()));
    }
    for short in object::strings(value.get("shortNames")) {
        all.push(("ShortNamesConflict", short));
    }
    all.retain(|(_, name)| !name.is_empty());
    all
}

/// The status of a definition beside others: which of its names it is given, and whether it is
/// served (Kubernetes' naming and establishing controllers).
fn status(definition: &Value, others: &[Value], now: &str) -> Value {
    let wanted = definition
        .pointer("/spec/names")
        .cloned()
        .unwrap_or_default();
    let group = object::text(definition, "/spec/group");
    let mut resources = vec![];
    let mut kinds = vec![];
    for other in others
        .iter()
        .filter(|o| object::text(o, "/spec/group") == group)
    {
        let accepted = other
            .pointer("/status/acceptedNames")
            .cloned()
            .unwrap_or_default();
        for (reason, name) in names(&accepted) {
            if reason.contains("Kind") {
                kinds.push(name);
            } else {
                resources.push(name);
            }
        }
    }
    let conflict = names(&wanted).into_iter().find(|(reason, name)| {
        if reason.contains("Kind") {
            kinds.contains(name)
        } else {
            resources.contains(name)
        }
    });
    let mut accepted = wanted.clone();
    if let (Some((reason, _)), Some(accepted)) = (&conflict, accepted.as_object_mut()) {
        // What is taken by another stays away; the rest is given.
        let field = match *reason {
            "PluralConflict" => "plural",
            "SingularConflict" => "singular",
            "KindConflict" => "kind",
            "ListKindConflict" => "listKind",
            _ => "shortNames",
        };
        accepted.remove(field);
        for required in ["plural", "kind"] {
            accepted.entry(required).or_insert_with(|| "".into());
        }
    }
    let was = |kind: &str| condition(definition, kind);
    let named = conflict.is_none();
    let established = was("Established") || named;
    let mut conditions: Vec<Value> = vec![];
    let mut set = |kind: &str, on: bool, reason: &str, message: String| {
        let there = definition
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|c| object::text(c, "/type") == kind);
        let value = if on { "True" } else { "False" };
        let since = there
            .filter(|c| object::text(c, "/status") == value)
            .map_or(now, |c| object::text(c, "/lastTransitionTime"));
        conditions.push(json!({
            "type": kind, "status": value, "lastTransitionTime": since, "reason": reason,
            "message": message,
        }));
    };
    match &conflict {
        None => set(
            "NamesAccepted",
            true,
            "NoConflicts",
            "no conflicts found".to_owned(),
        ),
        Some((reason, name)) => set(
            "NamesAccepted",
            false,
            reason,
            format!("{name:?} is already in use"),
        ),
    }
    if established {
        set(
            "Established",
            true,
            "InitialNamesAccepted",
            "the initial names have been accepted".to_owned(),
        );
    } else {
        set(
            "Established",
            false,
            "NotAccepted",
            "not all names are accepted".to_owned(),
        );
    }
    // Conditions of others stay.
    for c in definition
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if !matches!(object::text(c, "/type"), "NamesAccepted" | "Established") {
            conditions.push(c.clone());
        }
    }
    let mut versions = object::strings(definition.pointer("/status/storedVersions"));
    for version in definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|v| v.get("storage") == Some(&Value::Bool(true)))
    {
        let name = object::text(version, "/name").to_owned();
        if !versions.contains(&name) {
            versions.push(name);
        }
    }
    json!({"conditions": conditions, "acceptedNames": accepted, "storedVersions": versions})
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
        _ => Ok(()),
    }
}

/// Goes on with what a stop interrupted: statuses not yet written, clean-ups not yet done.
pub async fn resume(api: &Arc<Api>) {
    for definition in definitions(api) {
        if object::deleting(&definition) || !condition(&definition, "Established") {
            settle(api, object::name(&definition)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &str) -> Value {
        json!({
            "spec": {
                "group": "example.com",
                "names": {"plural": plural, "kind": kind, "shortNames": [short]},
                "versions": [{"name": "v1", "storage": true}],
            },
        })
    }

    #[test]
    fn a_definition_is_established_unless_its_names_are_taken() {
        let mut first = definition("widgets", "Widget", "wd");
        first["status"] = status(&first, &[], "now");
        assert!(condition(&first, "NamesAccepted") && condition(&first, "Established"));
        assert_eq!(first["status"]["storedVersions"], json!(["v1"]));
        let mut second = definition("wodgets", "Wodget", "wd");
        second["status"] = status(&second, &[first.clone()], "now");
        assert!(!condition(&second, "Established"));
        let names = &second["status"]["conditions"][0];
        assert_eq!(names["reason"], "ShortNamesConflict");
        // When the first one is gone the second gets its names.
        second["status"] = status(&second, &[], "later");
        assert!(condition(&second, "Established"));
        // What is established stays so.
        first["status"] = status(&first, &[second], "later");
        assert!(condition(&first, "Established"));
    }
}
