//! Replacing objects, and the one path by which every change to an existing object goes.

use gantry_machinery::path::At as _;
use std::time::Duration;

use bytes::Bytes;
use gantry_machinery::{
    status::{Cause, Details, Failure},
    validation::{dns1123_subdomain, label_value, qualified_name},
};
use gantry_store::Expect;
use rand::Rng;
use serde_json::{Map, Value, json};

use super::{
    create::{self, Ownership},
    delete, get, input,
    write::{self, Refused},
};
use crate::{
    admission::{
        self,
        asking::{Asking, asking},
        attributes::Operation,
    },
    api::Cx,
    authz::Attributes,
    errors, object, ownership,
    respond::{self, Reply},
    rules,
    sealed::{self, Reach},
    strategy,
};

pub async fn update(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    input::options(cx, "UpdateOptions")?;
    let resource = cx.resource().clone();
    let mut new = input::decode(cx, &resource, &body)?;
    let name = cx.target.name.clone();
    match object::name(&new) {
        "" => {
            return Err(errors::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        }
        given if given != name => {
            return Err(errors::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        _ => {}
    }
    input::place(cx, &mut new)?;
    let sub = cx.target.subresource.clone();
    if sub.is_empty()
        && cx.entry.traits.create_on_update
        && cx.store().get(&cx.key(&name)).is_none()
    {
        let a = Attributes {
            verb: "create",
            group: &resource.group,
            resource: &resource.plural,
            subresource: "",
            namespace: &cx.target.namespace,
            name: &name,
            ..Attributes::default()
        };
        cx.demand(&a)?;
        object::remove_meta(&mut new, "resourceVersion");
        let whole = create::object_of(cx, new, Ownership::Update).await?;
        return respond::object_reply(cx, 201, whole);
    }
    let given = object::meta_text(&new, "resourceVersion").to_owned();
    let uid = object::meta_text(&new, "uid").to_owned();
    let change = Change {
        subresource: sub.clone(),
        track: Track::Update,
        given: Some(given),
        retries: 32,
    };
    let make = |cx: &mut Cx, old: &Value| {
        let there = object::meta_text(old, "uid");
        if !uid.is_empty() && uid != there {
            let path = if cx.target.namespace.is_empty() {
                format!("/registry/{}/{name}", resource.plural)
            } else {
                format!(
                    "/registry/{}/{}/{name}",
                    resource.plural, cx.target.namespace
                )
            };
            return Err(errors::conflict(
                &resource,
                &name,
                &format!(
                    "StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {there}"
                ),
            ));
        }
        if sub == "finalize" {
            let mut object = old.clone();
            let finalizers = new.at("/spec/finalizers").cloned();
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                match finalizers {
                    Some(Value::Array(list)) if !list.is_empty() => {
                        spec.insert("finalizers".to_owned(), list.into());
                    }
                    _ => {
                        spec.remove("finalizers");
                    }
                }
            }
            return Ok(object);
        }
        Ok(new.clone())
    };
    let whole = modify(cx, change, make).await?;
    respond::object_reply(cx, 200, whole)
}

/// Who owns what a change changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Track {
    Update,
    /// managedFields are set already, by server-side apply.
    Applied,
    /// The server, in the name of `kube-apiserver`.
    Server,
    /// Nobody: the entries stay as they are.
    Nobody,
}

pub struct Change {
    pub subresource: String,
    pub track: Track,
    /// The resourceVersion the client gave, `None` when it could not give one (a patch).
    pub given: Option<String>,
    /// How often to try again when somebody else was faster.
    pub retries: u32,
}

/// Reads an object, lets `make` change it, and writes it under the rules of an update; again when
/// another write came between. The answer's bytes.
pub async fn modify(
    cx: &mut Cx,
    change: Change,
    make: impl FnMut(&mut Cx, &Value) -> Result<Value, Failure>,
) -> Result<Bytes, Failure> {
    modify_within(cx, change, Reach::Whole, make).await
}

/// The same where it is known how far `make` reaches: it sees the object with the rest sealed.
pub async fn modify_within(
    cx: &mut Cx,
    change: Change,
    reach: Reach,
    mut make: impl FnMut(&mut Cx, &Value) -> Result<Value, Failure>,
) -> Result<Bytes, Failure> {
    let warnings = cx.warnings.len();
    match try_within(cx, &change, reach, &mut make).await {
        // The words of a refusal may show any part of the object.
        Err(_) if !cx.pieces.is_empty() => {
            cx.warnings.truncate(warnings);
            try_within(cx, &change, Reach::Whole, &mut make).await
        }
        other => other,
    }
}

async fn try_within(
    cx: &mut Cx,
    change: &Change,
    reach: Reach,
    make: &mut impl FnMut(&mut Cx, &Value) -> Result<Value, Failure>,
) -> Result<Bytes, Failure> {
    let name = cx.target.name.clone();
    let key = cx.key(&name);
    let mut attempt = 0;
    loop {
        let stored = cx.store().get(&key).ok_or_else(|| cx.not_found())?;
        let version = stored.revision.to_string();
        // What the server itself records is nobody else's business.
        let asked = match change.track {
            Track::Update | Track::Applied => {
                asking(cx, Operation::Update, &change.subresource, &name)
            }
            Track::Server | Track::Nobody => None,
        };
        // Policies and webhooks see whole objects.
        let reach = match asked.is_none() && get::as_stored(&cx.entry, &stored) {
            true => reach,
            false => Reach::Whole,
        };
        let whole = get::bytes(&cx.api, &cx.entry, &stored).await?;
        let (old, pieces) = sealed::open(&cx.entry, reach, &whole)?;
        cx.pieces = pieces;
        let mut new = loop {
            match make(cx, &old) {
                Ok(new) => break new,
                // An apply that wants the object in a version in which somebody else wrote.
                Err(failure) => match ownership::convert_wanted(cx).await? {
                    true => {}
                    false => return Err(failure),
                },
            }
        };
        let mut sent = match &change.given {
            Some(given) => given.clone(),
            None => object::meta_text(&new, "resourceVersion").to_owned(),
        };
        // No object has version 0: who says it means whichever there is.
        let any = sent.parse() == Ok(0_u64);
        if any {
            sent.clear();
        }
        if !sent.is_empty() && sent != version {
            if sent.parse::<u64>().is_err() {
                return Err(errors::bad_request(format!(
                    "invalid resourceVersion {sent:?}"
                )));
            }
            return Err(errors::conflict(cx.resource(), &name, errors::MODIFIED));
        }
        if sent.is_empty() && (any || change.given.is_some()) && !unconditional(cx, change) {
            return Err(version_needed(cx, &name));
        }
        object::set_meta(&mut new, "resourceVersion", version);
        let place = (&key, stored.revision);
        match once(cx, change, asked.as_ref(), place, &old, new).await {
            Ok(bytes) => return Ok(bytes),
            Err(Refused::Failed(failure)) => return Err(failure),
            Err(Refused::Conflict(_)) => {
                // A client that named the version it saw has to look again itself.
                if (change.given.is_some() && !sent.is_empty()) || attempt >= change.retries {
                    return Err(errors::conflict(cx.resource(), &name, errors::MODIFIED));
                }
                attempt += 1;
                let most = 1 << attempt.min(6);
                let wait = Duration::from_micros(rand::rng().random_range(0..500 * most));
                tokio::time::sleep(wait).await;
            }
        }
    }
}

fn unconditional(cx: &Cx, change: &Change) -> bool {
    cx.entry.traits.unconditional_update || change.subresource == "scale"
}

fn version_needed(cx: &Cx, name: &str) -> Failure {
    let resource = cx.resource();
    let message = "Invalid value: 0: must be specified for an update".to_owned();
    Failure::new(
        422,
        "Invalid",
        format!(
            "{} \"{name}\" is invalid: metadata.resourceVersion: {message}",
            resource.qualified()
        ),
    )
    .with_details(Details {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.plural.clone(),
        causes: vec![Cause {
            reason: "FieldValueInvalid".to_owned(),
            message,
            field: "metadata.resourceVersion".to_owned(),
        }],
        ..Details::default()
    })
}

async fn once(
    cx: &mut Cx,
    change: &Change,
    asked: Option<&Asking>,
    (key, revision): (&gantry_store::Key, u64),
    old: &Value,
    mut new: Value,
) -> Result<Bytes, Refused> {
    let resource = cx.resource().clone();
    let name = cx.target.name.clone();
    let sub = (!change.subresource.is_empty()).then_some(change.subresource.as_str());
    // Here Kubernetes looks who set what before it drops what the subresource does not change.
    let late = matches!(sub, Some("resize" | "ephemeralcontainers"));
    if !late {
        keep(cx, &change.subresource, old, &mut new);
    }
    let placed = places(sub, old, &new);
    if !placed {
        // What is sealed was defaulted when it was stored.
        let spec = match cx.pieces.is_empty() {
            true => None,
            false => new.as_object_mut().and_then(|o| o.remove("spec")),
        };
        rules::default(&resource, &mut new, Some(old));
        if let (Some(spec), Some(object)) = (spec, new.as_object_mut()) {
            object.insert("spec".to_owned(), spec);
        }
        strategy::default_metadata(&resource, &mut new, Some(old));
    }
    match change.track {
        Track::Update => {
            let manager = cx.manager();
            ownership::track(cx, sub, Some(old), &mut new, &manager).await?;
        }
        Track::Server => {
            ownership::track(cx, sub, Some(old), &mut new, "kube-apiserver").await?;
        }
        Track::Applied => {}
        Track::Nobody => match object::meta(old).and_then(|m| m.get("managedFields")) {
            Some(fields) => object::set_meta(&mut new, "managedFields", fields.clone()),
            None => {
                object::remove_meta(&mut new, "managedFields");
            }
        },
    }
    if late {
        let owners = object::meta_mut(&mut new).and_then(|m| m.remove("managedFields"));
        keep(cx, &change.subresource, old, &mut new);
        if let Some(owners) = owners {
            object::set_meta(&mut new, "managedFields", owners);
        }
    }
    crate::certificates::stamp(cx, &mut new, old);
    crate::devices::prepare(cx, &mut new, Some(old));
    // A patch brings no object of its own: its outcome is looked at where a webhook's would be.
    let patched = change.given.is_none();
    input::unique_owners(cx, &mut new, patched);
    let sub_name = &change.subresource;
    if admission::mutate(cx, asked, sub_name, &mut new, Some(old)).await? {
        let owners = object::meta_mut(&mut new).and_then(|m| m.remove("managedFields"));
        keep(cx, sub_name, old, &mut new);
        if let Some(owners) = owners {
            object::set_meta(&mut new, "managedFields", owners);
        }
        input::unique_owners(cx, &mut new, true);
    }
    if cx.entry.traits.generation {
        let generation = object::meta(old)
            .and_then(|m| m.get("generation"))
            .and_then(Value::as_i64);
        let changed = !matches!(change.subresource.as_str(), "status" | "binding")
            && strategy::desired_state_changed(old, &new);
        match generation {
            Some(g) => object::set_meta(&mut new, "generation", g + i64::from(changed)),
            None if changed => object::set_meta(&mut new, "generation", 1),
            None => {}
        }
    }
    if !placed {
        crate::off::drop(cx, &mut new, Some(old));
    }
    let mut causes = match placed {
        true => vec![],
        false => rules::validate_update(cx, &resource, sub, &new, old),
    };
    if sub == Some("status") {
        let verb = if patched { "patch" } else { "update" };
        causes.extend(crate::devices::status_faults(cx, verb, &new, old));
    }
    if !causes.is_empty() {
        return Err(Refused::Failed(rules::invalid(&resource, &name, causes)));
    }
    if sub.is_none() {
        cx.warn(rules::warnings(&resource, &new, Some(old)));
    }
    let swap = crate::allocate::on_update(cx, &mut new, old)?;
    let result = store(cx, asked, (key, revision), old, &mut new).await;
    // An update that removes the object has freed with it all that the old form used.
    let stored = result.is_ok() && !cx.dry_run() && !delete::complete(cx, &new);
    cx.api.services.settle(swap, stored);
    result
}

/// Whether an update only puts a pod on a node. The rest is as it was stored, defaulted and valid
/// (Kubernetes takes a Binding without looking at its pod at all).
fn places(sub: Option<&str>, old: &Value, new: &Value) -> bool {
    let (before, after) = (object::meta(old), object::meta(new));
    let same = |field| before.and_then(|m| m.get(field)) == after.and_then(|m| m.get(field));
    let node = object::text(new, "/spec/nodeName");
    sub == Some("binding")
        && (same("labels") || labels_hold(after))
        && same("annotations")
        && dns1123_subdomain(node).is_empty()
}

/// Whether all labels are valid.
pub fn labels_hold(meta: Option<&Map<String, Value>>) -> bool {
    let labels = meta.and_then(|m| m.get("labels"));
    labels.is_none_or(|labels| {
        labels.as_object().is_some_and(|labels| {
            labels.iter().all(|(name, value)| {
                let value = value.as_str();
                qualified_name(name).is_empty()
                    && value.is_some_and(|value| label_value(value).is_empty())
            })
        })
    })
}

async fn store(
    cx: &mut Cx,
    asked: Option<&Asking>,
    (key, revision): (&gantry_store::Key, u64),
    old: &Value,
    new: &mut Value,
) -> Result<Bytes, Refused> {
    let charges = admission::validate(cx, asked, new, Some(old)).await?;
    rules::keep_times(old, new);
    if cx.dry_run() {
        return Ok(write::dry_answer(cx, new)?);
    }
    let expect = Expect::At(revision);
    let result = if delete::complete(cx, new) {
        // Watchers last see the object as it was stored; the answer shows what the update made.
        return match write::remove(cx, key.clone(), old, expect).await {
            Ok(stored) => {
                let mut last = new.clone();
                object::set_meta(&mut last, "resourceVersion", stored.revision.to_string());
                Ok(write::dry_answer(cx, &last)?)
            }
            Err(refused) => {
                charges.undo(cx).await;
                Err(refused)
            }
        };
    } else if *new == *old {
        match cx.store().get(key) {
            Some(stored) if stored.revision != revision => Err(Refused::Conflict(Some(stored))),
            None => Err(Refused::Conflict(None)),
            // It would be kept in another way now, by another key: so it is.
            Some(stored) if cx.api.kept_otherwise(&stored) => {
                write::put(cx, key.clone(), new, expect).await
            }
            // Nothing changes: nothing is written, and no watcher hears of it.
            Some(stored) => Ok(stored),
        }
    } else {
        write::put(cx, key.clone(), new, expect).await
    };
    match result {
        Ok(stored) => Ok(write::answer(cx, &stored).await?),
        Err(refused) => {
            charges.undo(cx).await;
            Err(refused)
        }
    }
}

/// What an update cannot change, by the part of the object that it addresses.
fn keep(cx: &Cx, sub: &str, old: &Value, new: &mut Value) {
    let resource = cx.resource();
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ] {
        match object::meta(old).and_then(|m| m.get(field)) {
            Some(value) => object::set_meta(new, field, value.clone()),
            None => {
                object::remove_meta(new, field);
            }
        }
    }
    let copy = |new: &mut Value, field: &str| {
        let Some(map) = new.as_object_mut() else {
            return;
        };
        // Mostly it is there already: comparing makes nothing, a copy makes a tree.
        match old.get(field) {
            Some(value) if map.get(field) == Some(value) => {}
            Some(value) => {
                map.insert(field.to_owned(), value.clone());
            }
            None => {
                map.remove(field);
            }
        }
    };
    match sub {
        "" => {
            if cx.entry.traits.separate_status
                || resource.group.is_empty() && resource.plural == "nodes"
            {
                copy(new, "status");
            }
            if cx
                .entry
                .is("certificates.k8s.io", "certificatesigningrequests")
            {
                copy(new, "spec");
            }
            if resource.group.is_empty() && resource.plural == "namespaces" {
                // Its finalizers change through the finalize subresource alone.
                let finalizers = old.at("/spec/finalizers").cloned();
                if let Some(map) = new.as_object_mut() {
                    let spec = map.entry("spec").or_insert_with(|| json!({}));
                    if let (Some(spec), Some(finalizers)) = (spec.as_object_mut(), finalizers) {
                        spec.insert("finalizers".to_owned(), finalizers);
                    }
                }
            }
        }
        "status" => {
            let others: Vec<String> = old
                .as_object()
                .into_iter()
                .chain(new.as_object())
                .flat_map(|o| o.keys().cloned())
                .filter(|k| !matches!(k.as_str(), "kind" | "apiVersion" | "metadata" | "status"))
                .collect();
            for field in others {
                copy(new, &field);
            }
            keep_metadata(cx, old, new);
            if resource.group.is_empty()
                && resource.plural == "namespaces"
                && let Some(status) = new.as_object_mut()
            {
                let status = status.entry("status").or_insert_with(|| json!({}));
                if status.get("phase").is_none() {
                    let phase = if object::deleting(old) {
                        "Terminating"
                    } else {
                        "Active"
                    };
                    status["phase"] = phase.into();
                }
            }
            if resource.group.is_empty()
                && resource.plural == "pods"
                && let (Some(map), Some(class)) = (new.as_object_mut(), old.at("/status/qosClass"))
            {
                let status = map.entry("status").or_insert_with(|| json!({}));
                if let Some(status) = status.as_object_mut() {
                    status.insert("qosClass".to_owned(), class.clone());
                }
            }
        }
        "approval" => {
            let conditions = new.at("/status/conditions").cloned();
            copy(new, "spec");
            copy(new, "status");
            if let Some(map) = new.as_object_mut() {
                let status = map.entry("status").or_insert_with(|| json!({}));
                match (status.as_object_mut(), conditions) {
                    (Some(status), Some(conditions)) => {
                        status.insert("conditions".to_owned(), conditions);
                    }
                    (Some(status), None) => {
                        status.remove("conditions");
                    }
                    (None, _) => {}
                }
            }
        }
        "ephemeralcontainers" | "resize" => super::pods::keep_for(sub, old, new),
        _ => {}
    }
}

/// The metadata that a status update leaves as it is: all of custom resources, and what the
/// strategies of two built-in kinds name.
fn keep_metadata(cx: &Cx, old: &Value, new: &mut Value) {
    let resource = cx.resource();
    let kept: &[&str] = if resource.custom.is_some() {
        &["labels", "annotations", "finalizers", "ownerReferences"]
    } else if cx.entry.is("", "pods") {
        &["ownerReferences"]
    } else if cx.entry.is("apps", "deployments") {
        &["labels"]
    } else {
        &[]
    };
    for field in kept {
        match object::meta(old).and_then(|m| m.get(*field)) {
            Some(value) => object::set_meta(new, field, value.clone()),
            None => {
                object::remove_meta(new, field);
            }
        }
    }
}
