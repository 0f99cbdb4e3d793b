//! Ownership through the scale subresource: `spec.replicas` of a Scale is the field of the object
//! behind it that holds the wished number of replicas.
//!
//! The flow of a write to `…/scale`: put [`to_scale`] of the object's entries into the old Scale,
//! run [`super::track_update`] or [`super::apply`] on Scales, and put [`from_scale`] of the new
//! Scale's entries into the object.

use serde_json::Value;

use super::{
    FieldSet, PathElement,
    managed::{Entry, decode, encode},
};
use crate::resource::Resource;

const SCALE_VERSION: &str = "autoscaling/v1";

/// Where a resource keeps the wished number of replicas; `None` without a scale subresource.
pub fn replicas_path(resource: &Resource) -> Option<Vec<PathElement>> {
    if let Some(custom) = &resource.custom {
        let path = &custom.scale.as_ref()?.spec_replicas;
        return Some(
            path.split('.')
                .filter(|p| !p.is_empty())
                .map(PathElement::field)
                .collect(),
        );
    }
    resource.subresource("scale")?;
    Some(vec![
        PathElement::field("spec"),
        PathElement::field("replicas"),
    ])
}

fn in_scale() -> FieldSet {
    let mut set = FieldSet::new();
    set.insert(&[PathElement::field("spec"), PathElement::field("replicas")]);
    set
}

/// The entries of the Scale of an object: whoever owns the replicas there owns them here.
pub fn to_scale(path: &[PathElement], object_entries: Option<&Value>) -> Option<Value> {
    let entries = decode(object_entries).unwrap_or_default();
    encode(
        entries
            .into_iter()
            .filter(|e| e.fields.contains(path))
            .map(|e| Entry {
                version: SCALE_VERSION.to_owned(),
                fields: in_scale(),
                ..e
            })
            .collect(),
    )
}

/// The entries of an object after its Scale was written; `api_version` is the object's. `None`
/// when nobody owns a field.
pub fn from_scale(
    path: &[PathElement],
    object_entries: Option<&Value>,
    scale_entries: Option<&Value>,
    api_version: &str,
) -> Option<Value> {
    let mut entries = decode(object_entries).unwrap_or_default();
    let mut scale = decode(scale_entries).unwrap_or_default();
    let replicas = {
        let mut set = FieldSet::new();
        set.insert(path);
        set
    };
    // Versions differ by nature (the Scale's own): a manager is told by all else.
    let same = |a: &Entry, b: &Entry| {
        a.id.manager == b.id.manager
            && a.id.operation == b.id.operation
            && a.id.subresource == b.id.subresource
    };
    entries.retain_mut(|entry| {
        if !entry.fields.contains(path) {
            return true;
        }
        match scale.iter().position(|s| same(s, entry)) {
            Some(at) => {
                scale.swap_remove(at);
            }
            // Another manager took the replicas over.
            None => entry.fields = entry.fields.difference(&replicas),
        }
        !entry.fields.is_empty()
    });
    for new in scale {
        if !new
            .fields
            .contains(&[PathElement::field("spec"), PathElement::field("replicas")])
        {
            continue;
        }
        match entries.iter_mut().find(|e| same(e, &new)) {
            Some(known) => known.fields = known.fields.union(&replicas),
            None => entries.push(Entry {
                version: api_version.to_owned(),
                fields: replicas.clone(),
                // The API server keeps the times of the object's own entries only.
                time: None,
                ..new
            }),
        }
    }
    encode(entries)
}
