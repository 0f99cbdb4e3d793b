//! Who owns what after a write.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value};

use super::{
    FieldSet, Manager, Operation, PathElement, ResetFields,
    compare::Comparison,
    managed::{self, Id},
    versions::{Kind, Lens},
};
use crate::{schema::Schema, status::Failure};

/// Most entries of managers that update; beyond, the oldest are merged into one.
const MAX_UPDATE_MANAGERS: usize = 10;
/// Manager of merged entries.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// Fields that the system writes and nobody owns.
pub(super) static NEVER_OWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    let mut set = FieldSet::new();
    for path in [
        &["apiVersion"][..],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ] {
        let path: Vec<PathElement> = path.iter().map(|p| PathElement::field(p)).collect();
        set.insert(&path);
    }
    set
});

/// Records ownership after a create (`old` is `None`), a PUT or a patch other than an apply: the
/// manager of the request owns what is new or different, others lose what is different or gone,
/// each seen in the version in which its fields were recorded.
///
/// Sets `metadata.managedFields` of `new`. On the main resource the request may bring entries of
/// its own (`[{}]` forgets all); bad ones are ignored, as Kubernetes does, and the old ones stand.
///
/// # Errors
/// What a converter between versions says; the entries of `new` are then gone.
pub fn track_update_in(
    kind: Kind<'_>,
    old: Option<&Value>,
    new: &mut Value,
    manager: Manager<'_>,
) -> Result<(), Failure> {
    let given = take_entries(new);
    let live = old.and_then(|o| o.get("metadata")?.get("managedFields"));
    let Some(mut entries) = starting_entries(given, live, !manager.subresource.is_empty()) else {
        return Ok(());
    };
    // An object whose entries were cleared is tracked again from its next apply on.
    if entries.is_empty() && old.is_some() {
        return Ok(());
    }
    let lens = Lens {
        kind,
        own: manager.api_version,
    };
    let change = lens.compare(lens.own, old, new)?;
    let mut elsewhere = BTreeMap::new();
    if kind.others.is_some() {
        entries.retain(|entry| lens.knows(managed::version(entry)));
        if entries.iter().any(|e| managed::version(e) != lens.own) {
            // Converters are not shown who owns what.
            let mut bare = old.cloned();
            if let Some(bare) = &mut bare {
                take_entries(bare);
            }
            let versions = entries.iter().map(managed::version);
            elsewhere = lens.compare_elsewhere(versions, bare.as_ref(), new)?;
        }
    }
    let id = Id::of(&manager);
    settle(&mut entries, &id, change, &elsewhere, &manager);
    cap(&mut entries);
    if !entries.is_empty() {
        managed::sort(&mut entries);
        put_entries(new, Value::Array(entries));
    }
    Ok(())
}

/// Ownership of an object that is new and says nothing of owners: the manager's one entry, whose fields
/// are returned as text, `null` standing in their place. Few are looked into before somebody changes
/// the object. `None` where this is not such an object, and nothing has been done.
pub fn track_creation(
    schema: &Schema,
    reset: &ResetFields,
    new: &mut Value,
    manager: Manager<'_>,
) -> Option<String> {
    if new.get("metadata")?.get("managedFields").is_some() {
        return None;
    }
    let lens = Lens {
        kind: Kind::alone(schema, reset),
        own: manager.api_version,
    };
    let change = lens.compare(lens.own, None, new).ok()?;
    let written = change.modified.joined(change.added).without(&NEVER_OWNED);
    if written.is_empty() {
        return None;
    }
    let mut fields = String::with_capacity(1024);
    written.write_fields_v1(&mut fields);
    let (id, time) = (Id::of(&manager), managed::timestamp(manager.time));
    let entry = managed::entry(&id, manager.api_version, Value::Null, Some(&time));
    put_entries(new, Value::Array(vec![entry]));
    Some(fields)
}

/// [`track_update_in`] for a kind of one version.
///
/// # Errors
/// None: without conversions a write is never refused for its bookkeeping.
pub fn track_update(
    schema: &Schema,
    reset: &ResetFields,
    old: Option<&Value>,
    new: &mut Value,
    manager: Manager<'_>,
) -> Result<(), Failure> {
    track_update_in(Kind::alone(schema, reset), old, new, manager)
}

/// The entries from which an update starts; `None` when the object keeps none.
fn starting_entries(
    given: Option<Value>,
    live: Option<&Value>,
    subresource: bool,
) -> Option<Vec<Value>> {
    let live_entries = || match live {
        Some(Value::Array(entries)) if managed::is_well_formed(entries) => entries.clone(),
        _ => Vec::new(),
    };
    match given {
        // The usual case: the object came back as it was, so nothing needs to be checked.
        Some(given) if Some(&given) == live => match given {
            Value::Array(entries) => Some(entries),
            _ => Some(Vec::new()),
        },
        _ if subresource => Some(live_entries()),
        Some(given) if managed::is_reset(&given) => Some(Vec::new()),
        Some(Value::Null) | None => Some(live_entries()),
        Some(given) => match managed::decode(Some(&given)) {
            Ok(entries) if !entries.is_empty() => match managed::encode(entries) {
                Some(Value::Array(entries)) => Some(entries),
                _ => Some(Vec::new()),
            },
            _ => Some(live_entries()),
        },
    }
}

pub(super) fn take_entries(object: &mut Value) -> Option<Value> {
    object
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|m| m.remove("managedFields"))
}

pub(super) fn put_entries(object: &mut Value, entries: Value) {
    let Value::Object(members) = object else {
        return;
    };
    let metadata = members
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(metadata) = metadata {
        metadata.insert("managedFields".to_owned(), entries);
    }
}

/// Takes changed fields from all entries and gives them to the manager's. `elsewhere` is the same
/// change as versions show it that do not see what the manager's own does.
fn settle(
    entries: &mut Vec<Value>,
    id: &Id,
    change: Comparison,
    elsewhere: &BTreeMap<String, Comparison>,
    manager: &Manager<'_>,
) {
    let Comparison {
        removed,
        modified,
        added,
    } = change;
    let written = modified.joined(added);
    let mut lose = |version: Option<&str>, gone: &FieldSet| {
        if gone.is_empty() {
            return;
        }
        entries.retain_mut(|entry| {
            let seen = managed::version(entry);
            let meant = match version {
                Some(version) => seen == version,
                None => !elsewhere.contains_key(seen),
            };
            if !meant {
                return true;
            }
            match entry.get_mut("fieldsV1") {
                Some(fields) => managed::subtract(fields, gone),
                None => false,
            }
        });
    };
    lose(None, &written);
    lose(None, &removed);
    for (version, change) in elsewhere {
        lose(Some(version), &change.written());
        lose(Some(version), &change.removed);
    }
    let written = written.without(&NEVER_OWNED);
    if written.is_empty() {
        return;
    }
    let time = managed::timestamp(manager.time);
    match entries.iter_mut().find(|e| id.is(e)) {
        Some(entry) => {
            if let Some(fields) = entry.get_mut("fieldsV1") {
                managed::add(fields, &written);
            }
            entry["time"] = Value::from(time);
        }
        None => entries.push(managed::entry(
            id,
            manager.api_version,
            written.to_fields_v1(),
            Some(&time),
        )),
    }
}

/// Merges the oldest entries of updates until there are few enough.
fn cap(entries: &mut Vec<Value>) {
    let updates = entries
        .iter()
        .filter(|e| e.get("operation").and_then(Value::as_str) == Some("Update"))
        .count();
    if updates <= MAX_UPDATE_MANAGERS {
        return;
    }
    let Ok(mut decoded) = managed::decode(Some(&Value::Array(std::mem::take(entries)))) else {
        return;
    };
    let mut oldest: Vec<(String, Id)> = decoded
        .iter()
        .filter(|e| e.id.operation == Operation::Update)
        .map(|e| (e.time.clone().unwrap_or_default(), e.id.clone()))
        .collect();
    oldest.sort();
    let mut first_of_version: Vec<Id> = Vec::new();
    let mut left = oldest.len();
    for (_, id) in oldest {
        if left <= MAX_UPDATE_MANAGERS {
            break;
        }
        let Some(first) = first_of_version
            .iter()
            .find(|f| f.api_version == id.api_version)
            .cloned()
        else {
            first_of_version.push(id);
            continue;
        };
        let bucket = Id {
            manager: ANCIENT_CHANGES.to_owned(),
            operation: Operation::Update,
            api_version: id.api_version.clone(),
            subresource: String::new(),
        };
        if !decoded.iter().any(|e| e.id == bucket)
            && let Some(entry) = decoded.iter_mut().find(|e| e.id == first)
        {
            entry.id = bucket.clone();
        }
        let Some(at) = decoded.iter().position(|e| e.id == id) else {
            continue;
        };
        let merged = decoded.swap_remove(at);
        if let Some(entry) = decoded.iter_mut().find(|e| e.id == bucket) {
            entry.fields = entry.fields.union(&merged.fields);
            entry.time = merged.time;
        }
        left -= 1;
    }
    if let Some(Value::Array(encoded)) = managed::encode(decoded) {
        *entries = encoded;
    }
}
