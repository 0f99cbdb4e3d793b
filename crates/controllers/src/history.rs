//! ControllerRevisions of StatefulSets and DaemonSets: which one the template is, which one is
//! current, and which ones history may forget. Names and data are those of Kubernetes
//! (`pkg/controller/history`).

use std::sync::Arc;

use kube::api::Patch;
use serde_json::{Value, json};

use crate::hash::{canonical_json, fnv1, safe_encode};
use crate::model::workload::Revision;
use crate::model::{Key, Kind, Meta, Owner, REVISIONS};
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context};

/// Label of a ControllerRevision with the hash of its data.
pub const HASH: &str = "controller.kubernetes.io/hash";

/// The data of a revision: a patch that replaces the template.
pub fn data_of(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template in a revision's data.
pub fn template_of(data: &Value) -> Value {
    let mut template = data
        .pointer("/spec/template")
        .cloned()
        .unwrap_or_else(|| json!({}));
    if let Some(map) = template.as_object_mut() {
        map.remove("$patch");
    }
    template
}

pub fn hash_of(data: &Value, collisions: i32) -> String {
    safe_encode(fnv1(&[
        canonical_json(data).as_bytes(),
        collisions.to_string().as_bytes(),
    ]))
}

/// `<owner>-<hash>`, the owner's name cut so that the whole is a valid name.
pub fn name_of(owner: &str, hash: &str) -> String {
    let mut end = owner.len().min(223);
    while !owner.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &owner[..end])
}

/// The object to create for a new revision, named by the hash of its data.
pub fn object(
    kind: &Kind,
    owner: &Meta,
    template: &Value,
    data: &Value,
    revision: i64,
    collisions: i32,
) -> Value {
    let hash = hash_of(data, collisions);
    object_named(kind, owner, template, data, revision, (HASH, &hash))
}

/// The object to create for a new revision, with the hash by which it is named and the label that
/// tells it.
pub fn object_named(
    kind: &Kind,
    owner: &Meta,
    template: &Value,
    data: &Value,
    revision: i64,
    (label, hash): (&str, &str),
) -> Value {
    let mut labels = template
        .pointer("/metadata/labels")
        .filter(|l| l.is_object())
        .cloned()
        .unwrap_or_else(|| json!({}));
    labels[label] = hash.into();
    let mut metadata = json!({
        "name": name_of(&owner.name, hash),
        "namespace": &*owner.namespace,
        "labels": labels,
        "ownerReferences": [Owner::controller_json(kind, owner)],
    });
    if !owner.annotations.is_empty() {
        metadata["annotations"] = owner.annotations.to_json();
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "data": data,
        "revision": revision,
    })
}

/// How the template becomes the update revision.
#[derive(Debug, PartialEq)]
pub enum Update {
    /// It is the newest revision already.
    Is(Arc<Revision>),
    /// It is an older revision, which becomes the newest by this number (a rollback).
    Raise(Arc<Revision>, i64),
    /// It is new, with this number.
    New(i64),
}

/// Finds the template among the revisions.
pub fn resolve(data: &Value, revisions: &[Arc<Revision>]) -> Update {
    let mut sorted: Vec<&Arc<Revision>> = revisions.iter().collect();
    sorted.sort_by(|a, b| {
        (a.revision, a.metadata.created, &a.metadata.name).cmp(&(
            b.revision,
            b.metadata.created,
            &b.metadata.name,
        ))
    });
    let newest = sorted.last();
    let next = newest.map_or(1, |r| r.revision + 1);
    match sorted.iter().rev().find(|r| *r.data == *data) {
        Some(same) if newest.is_some_and(|n| n.metadata.uid == same.metadata.uid) => {
            Update::Is((*same).clone())
        }
        Some(same) => Update::Raise((*same).clone(), next),
        None => Update::New(next),
    }
}

/// The revision that the template of an owner is: found, made the newest again, or created by `object`, which
/// is given its number and how often its hash has met another's.
pub async fn ensure(
    context: &Context,
    owner: &Meta,
    data: &Value,
    revisions: &[Arc<Revision>],
    collisions: &mut Option<i32>,
    object: impl Fn(i64, Option<i32>) -> Value,
) -> Result<Arc<Revision>, ApiError> {
    let (api, cache) = (&context.api, &context.informers.revisions);
    let seen = |revision: Revision| {
        cache.apply(revision.clone());
        Arc::new(revision)
    };
    let number = match resolve(data, revisions) {
        Update::Is(found) => return Ok(found),
        Update::Raise(found, number) => {
            let patch = Patch::Merge(json!({"revision": number}));
            let key = found.metadata.key();
            return api.patch(&REVISIONS, &key, None, &patch).await.map(seen);
        }
        Update::New(number) => number,
    };
    loop {
        let object = object(number, *collisions);
        let error = match api.create(&REVISIONS, &owner.namespace, &object).await {
            Ok(created) => return Ok(seen(created)),
            Err(error) if error.already_exists() => error,
            Err(error) => return Err(error),
        };
        let name = object.pointer("/metadata/name").and_then(Value::as_str);
        let key = Key::new(&owner.namespace, name.ok_or(error)?);
        match api.get::<Revision>(&REVISIONS, &key).await? {
            Some(there) if *there.data == *data && there.metadata.controlled_by(&owner.uid) => {
                return Ok(seen(there));
            }
            // Another's, or other data with the same hash: count on and try again.
            Some(_) => *collisions = Some(collisions.unwrap_or(0) + 1),
            // Deleted in between: the name is free again.
            None => {}
        }
    }
}

/// Revisions of the same data as `kept`, of one owner: they are one too many.
pub fn duplicates(kept: &Revision, revisions: &[Arc<Revision>]) -> Vec<Arc<Revision>> {
    let same = |r: &&Arc<Revision>| {
        r.metadata.uid != kept.metadata.uid && r.data == kept.data && r.metadata.deleted.is_none()
    };
    revisions.iter().filter(same).cloned().collect()
}

/// Deletes the revisions that history may forget.
pub async fn forget(
    context: &Context,
    limit: Option<i32>,
    revisions: &[Arc<Revision>],
    live: impl Fn(&Revision) -> bool,
) -> Result<(), ApiError> {
    for old in expired(limit, revisions, live) {
        let deletion = Deletion::of(&old.metadata.uid);
        let key = old.metadata.key();
        context.api.delete(&REVISIONS, &key, deletion).await?;
    }
    Ok(())
}

/// Revisions beyond the history limit (10 where none is set) that are not `live`, oldest first.
pub fn expired(
    limit: Option<i32>,
    revisions: &[Arc<Revision>],
    live: impl Fn(&Revision) -> bool,
) -> Vec<Arc<Revision>> {
    let mut history: Vec<&Arc<Revision>> = revisions
        .iter()
        .filter(|r| !live(r) && r.metadata.deleted.is_none())
        .collect();
    history.sort_by_key(|r| r.revision);
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let excess = history.len().saturating_sub(limit);
    history.into_iter().take(excess).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, number: i64, data: Value) -> Arc<Revision> {
        Arc::new(Revision {
            metadata: Meta {
                name: name.into(),
                uid: name.into(),
                ..Meta::default()
            },
            revision: number,
            data: Arc::new(data),
        })
    }

    #[test]
    fn a_template_is_found_raised_or_new() {
        let (a, b, c) = (json!({"a": 1}), json!({"b": 1}), json!({"c": 1}));
        let all = [
            revision("web-a", 1, a.clone()),
            revision("web-b", 2, b.clone()),
        ];
        assert_eq!(resolve(&b, &all), Update::Is(all[1].clone()));
        assert_eq!(resolve(&a, &all), Update::Raise(all[0].clone(), 3));
        assert_eq!(resolve(&c, &all), Update::New(3));
        assert_eq!(resolve(&c, &[]), Update::New(1));
    }

    #[test]
    fn revisions_of_the_same_data_are_one_too_many() {
        let revisions = [
            revision("a", 1, json!(1)),
            revision("b", 2, json!(1)),
            revision("c", 3, json!(2)),
        ];
        let Update::Raise(kept, 4) = resolve(&json!(1), &revisions) else {
            panic!()
        };
        assert_eq!(&*kept.metadata.name, "b");
        let names: Vec<_> = duplicates(&kept, &revisions)
            .iter()
            .map(|r| r.metadata.name.to_string())
            .collect();
        assert_eq!(names, ["a"]);
    }

    #[test]
    fn data_gives_the_template_back() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
        assert_eq!(template_of(&data_of(&template)), template);
    }

    #[test]
    fn history_forgets_the_oldest_that_nobody_is_on() {
        let all: Vec<_> = (1..=6)
            .map(|n| revision(&format!("web-{n}"), n, json!(n)))
            .collect();
        let live = ["web-1", "web-5", "web-6"];
        let gone = expired(Some(2), &all, |r| live.contains(&&*r.metadata.name));
        let names: Vec<_> = gone.iter().map(|r| &*r.metadata.name).collect();
        assert_eq!(names, ["web-2"]);
    }
}
