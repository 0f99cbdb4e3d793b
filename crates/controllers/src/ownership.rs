//! Which objects are a controller's own: adoption of orphans that its selector matches, release of
//! those it no longer matches (`PodControllerRefManager` of kube-controller-manager).

use std::sync::Arc;
use std::time::Duration;

use kube::api::Patch;
use serde_json::{Value, json};

use crate::model::meta::MetaOnly;
use crate::model::{Key, Kind, Meta, Owner, Pod, Watched, orphan_index};
use crate::runtime::{Api, ApiError, Expectations, Informer, Queue};
use crate::selector::Selector;

/// The objects of `informer` that belong to `owner`: owned and selected, or just adopted.
///
/// `member` narrows down which orphans may be adopted (a StatefulSet takes only pods with its names).
pub async fn claim<T: Watched>(
    api: &Api,
    informer: &Informer<T>,
    owner_kind: &Kind,
    owner: &Meta,
    selector: &Selector,
    member: impl Fn(&T) -> bool,
) -> Result<Vec<Arc<T>>, ApiError> {
    claim_with(api, informer, owner_kind, owner, selector, member, &[]).await
}

/// [`claim`], where what is adopted is given `finalizers`, and what is released loses them.
pub async fn claim_with<T: Watched>(
    api: &Api,
    informer: &Informer<T>,
    owner_kind: &Kind,
    owner: &Meta,
    selector: &Selector,
    member: impl Fn(&T) -> bool,
    finalizers: &[&str],
) -> Result<Vec<Arc<T>>, ApiError> {
    let mut claimed = Vec::new();
    for object in informer.indexed(&owner.uid) {
        let meta = object.meta();
        if meta.namespace != owner.namespace {
            continue;
        }
        if selector.matches(&meta.labels) {
            claimed.push(object);
        } else if owner.deleted.is_none() && meta.deleted.is_none() {
            release(api, &T::KIND, meta, &owner.uid, finalizers).await?;
        }
    }
    if owner.deleted.is_some() {
        return Ok(claimed);
    }
    let mut checked = false;
    for object in informer.indexed(&orphan_index(&owner.namespace)) {
        let meta = object.meta();
        if meta.deleted.is_some() || !selector.matches(&meta.labels) || !member(&object) {
            continue;
        }
        if !checked {
            // The cache may lag behind a deletion of the owner; adopting then would tie the orphan
            // to an object that is going away.
            let live: Option<MetaOnly> = api.get(owner_kind, &owner.key()).await?;
            if live.is_none_or(|l| l.metadata.uid != owner.uid || l.metadata.deleted.is_some()) {
                return Ok(claimed);
            }
            checked = true;
        }
        let mut change = json!({
            "uid": &*meta.uid,
            "ownerReferences": [Owner::controller_json(owner_kind, owner)],
        });
        if !finalizers.is_empty() {
            change["finalizers"] = json!(finalizers);
        }
        let patch = Patch::Strategic(json!({"metadata": change}));
        match api.patch::<T>(&T::KIND, &meta.key(), None, &patch).await {
            Ok(adopted) => claimed.push(Arc::new(adopted)),
            Err(error) if error.not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(claimed)
}

async fn release(
    api: &Api,
    kind: &Kind,
    meta: &Meta,
    owner: &str,
    finalizers: &[&str],
) -> Result<(), ApiError> {
    let mut change = json!({
        "uid": &*meta.uid,
        "ownerReferences": [{"$patch": "delete", "uid": owner}],
    });
    if !finalizers.is_empty() {
        change["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    let patch = Patch::Strategic(json!({"metadata": change}));
    match api.patch::<MetaOnly>(kind, &meta.key(), None, &patch).await {
        Err(error) if !error.not_found() => Err(error),
        _ => Ok(()),
    }
}

/// A pod made from a template, without a name, owned by the controller it is for.
pub fn pod_from_template(template: &Value, owner_kind: &Kind, owner: &Meta) -> Value {
    let mut metadata = serde_json::Map::new();
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}"))
            && !value.is_null()
        {
            metadata.insert(field.into(), value.clone());
        }
    }
    metadata.insert("namespace".into(), Value::from(&*owner.namespace));
    metadata.insert(
        "ownerReferences".into(),
        json!([Owner::controller_json(owner_kind, owner)]),
    );
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": template.get("spec").cloned().unwrap_or_else(|| json!({})),
    })
}

/// Whether a change of a pod can change what its owner does. The scheduler's and the kubelet's
/// other writes (a node, an address) are none of an owner's business.
fn matters(old: &Pod, new: &Pod) -> bool {
    old.phase != new.phase
        || old.ready != new.ready
        || old.ready_since != new.ready_since
        || old.meta.deleted != new.meta.deleted
        || old.meta.labels != new.meta.labels
        || old.meta.owners != new.meta.owners
        || old.meta.finalizers != new.meta.finalizers
        || old.tracked != new.tracked
}

/// Tells the owner of a pod (or of two, when it changes hands) of a change, and the owner's
/// expectations of what was seen. `orphan` hears of a pod that nobody owns.
pub fn pod_changed(
    owner_kind: &Kind,
    pods: &Informer<Pod>,
    queue: &Queue<Key>,
    expectations: &Expectations,
    old: Option<&Arc<Pod>>,
    new: Option<&Arc<Pod>>,
    orphan: impl FnOnce(&Arc<Pod>),
) {
    if let (Some(old), Some(new)) = (old, new)
        && !matters(old, new)
    {
        return;
    }
    let before = old.and_then(|pod| owner_of(owner_kind, pod));
    let after = new.and_then(|pod| owner_of(owner_kind, pod));
    if let Some((key, uid)) = &before
        && before != after
    {
        if let Some(old) = old {
            expectations.deleted(key, &old.meta.uid);
        }
        queue.add_after(key.clone(), calm(pods.count_indexed(uid)));
    }
    if let (Some((key, uid)), Some(pod)) = (after, new) {
        if old.is_none() {
            expectations.created(&key);
        }
        if pod.terminating() {
            expectations.deleted(&key, &pod.meta.uid);
        }
        queue.add_after(key, calm(pods.count_indexed(&uid)));
    } else if let Some(pod) = new
        && pod.meta.controller().is_none()
        && !pod.terminating()
    {
        orphan(pod);
    }
}

/// Has a set looked at again when it changes, or pods that it owns or could adopt do.
pub fn follow<T: Watched>(
    sets: &Arc<Informer<T>>,
    pods: &Arc<Informer<Pod>>,
    queue: &Arc<Queue<Key>>,
    expectations: &Arc<Expectations>,
    adopts: impl Fn(&T, &Pod) -> bool + Send + Sync + 'static,
) {
    {
        let (queue, expectations, pods) = (queue.clone(), expectations.clone(), pods.clone());
        sets.on_change(move |old, new| match (old, new) {
            (Some(old), None) => {
                expectations.forget(&old.meta().key());
                queue.add(old.meta().key());
            }
            // Mostly its own status, written a moment ago.
            (Some(old), Some(new)) if same_wish(old.meta(), new.meta()) => {
                let owned = pods.count_indexed(&new.meta().uid);
                queue.add_after(new.meta().key(), calm(owned));
            }
            (_, Some(new)) => queue.add(new.meta().key()),
            (None, None) => {}
        });
    }
    let (queue, expectations) = (queue.clone(), expectations.clone());
    let (sets, all) = (sets.clone(), pods.clone());
    pods.on_change(move |old, new| {
        pod_changed(&T::KIND, &all, &queue, &expectations, old, new, |orphan| {
            for set in sets.in_namespace(&orphan.meta.namespace) {
                if adopts(&set, orphan) {
                    queue.add(set.meta().key());
                }
            }
        });
    });
}

/// A sync costs time in proportion to the pods owned. Waiting in the same proportion, many times as long, keeps a
/// burst of n pod events from costing n² steps, and the status of the set from being written for each of them:
/// 0.1 s for 500 pods, never more than a second.
fn calm(pods: usize) -> Duration {
    match pods {
        0..50 => Duration::ZERO,
        _ => Duration::from_micros(200)
            .saturating_mul(u32::try_from(pods).unwrap_or(u32::MAX))
            .min(Duration::from_secs(1)),
    }
}

/// Whether no more than the status differs between two states of a set.
fn same_wish(old: &Meta, new: &Meta) -> bool {
    old.uid == new.uid
        && old.generation == new.generation
        && old.labels == new.labels
        && old.deleted == new.deleted
        && old.owners == new.owners
        && old.finalizers == new.finalizers
}

fn owner_of(kind: &Kind, pod: &Pod) -> Option<(Key, Arc<str>)> {
    let owner = pod.meta.controller()?;
    let version = kind.api_version();
    if *owner.kind != *kind.kind || *owner.api_version != *version {
        return None;
    }
    let key = Key {
        namespace: pod.meta.namespace.clone(),
        name: owner.name.clone(),
    };
    Some((key, owner.uid.clone()))
}
