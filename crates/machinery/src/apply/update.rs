//! Who owns what after a write.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{
    FieldSet, Manager, Operation, PathElement, ResetFields,
    compare::{Comparison, compare},
    managed::{self, Entry, Id},
    merge::merge,
    remove::without,
    types::{Type, equal, fields_of, validate, with_atomic_parents, with_named_parents},
};
use crate::{
    schema::Schema,
    status::{Cause, Details, Failure},
};

/// Most entries of managers that update; beyond, the oldest are merged into one.
const MAX_UPDATE_MANAGERS: usize = 10;
/// Manager of merged entries.
const ANCIENT_CHANGES: &str = "ancient-changes";
/// Manager of all that was there before an object without entries is first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager for which a client-side apply counts as its own.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields that the system writes and nobody owns.
static NEVER_OWNED: LazyLock<FieldSet> = LazyLock::new(|| {
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
/// manager of the request owns what is new or different, others lose what is different or gone.
///
/// Sets `metadata.managedFields` of `new`. On the main resource the request may bring entries of
/// its own (`[{}]` forgets all); bad ones are ignored, as Kubernetes does, and the old ones stand.
///
/// # Errors
/// None today; a write is never refused for its bookkeeping.
pub fn track_update(
    schema: &Schema,
    reset: &ResetFields,
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
    let change = kept(compare(schema, old, new), reset);
    let id = Id::of(&manager);
    settle(&mut entries, &id, change, &manager);
    cap(&mut entries);
    if !entries.is_empty() {
        managed::sort(&mut entries);
        put_entries(new, Value::Array(entries));
    }
    Ok(())
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

fn take_entries(object: &mut Value) -> Option<Value> {
    object
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|m| m.remove("managedFields"))
}

fn put_entries(object: &mut Value, entries: Value) {
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

fn kept(change: Comparison, reset: &ResetFields) -> Comparison {
    Comparison {
        removed: reset.keep(change.removed),
        modified: reset.keep(change.modified),
        added: reset.keep(change.added),
    }
}

/// Takes changed fields from all entries and gives them to the manager's.
fn settle(entries: &mut Vec<Value>, id: &Id, change: Comparison, manager: &Manager<'_>) {
    let Comparison {
        removed,
        modified,
        added,
    } = change;
    let written = modified.joined(added);
    for gone in [&written, &removed] {
        if !gone.is_empty() {
            entries.retain_mut(|entry| match entry.get_mut("fieldsV1") {
                Some(fields) => managed::subtract(fields, gone),
                None => false,
            });
        }
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

/// Server-side apply of `config` to `live` (`None`: to nothing, a create).
///
/// The result is the merged object with its ownership; the API server decodes, defaults and
/// validates it like the body of a PUT. What the manager applied last time and leaves out now is
/// removed, unless another manager owns it too. An apply that changes nothing keeps its entry's
/// time.
///
/// # Errors
/// 400 for an object of another type or with `managedFields`, 409 with one `FieldManagerConflict`
/// cause for each field that another manager owns and that would change (never with `force`), 500
/// for an object that does not fit the schema, as kube-apiserver has it.
pub fn apply(
    schema: &Schema,
    reset: &ResetFields,
    live: Option<&Value>,
    config: Value,
    manager: Manager<'_>,
    force: bool,
) -> Result<Value, Failure> {
    check_type(live, &config, &manager)?;
    if config
        .pointer("/metadata/managedFields")
        .is_some_and(|m| !m.is_null())
    {
        return Err(Failure::new(
            400,
            "BadRequest",
            "metadata.managedFields must be nil",
        ));
    }
    let mut current = live
        .cloned()
        .unwrap_or_else(|| json!({"apiVersion": config["apiVersion"], "kind": config["kind"]}));
    let stored = take_entries(&mut current);
    let mut entries = managed::decode(stored.as_ref())
        .map_err(|e| internal(format!("failed to decode managed fields: {e}")))?;
    if entries.is_empty() && live.is_some() {
        entries.extend(before_first_apply(schema, reset, &current, &manager));
    }
    let ty = Type::of(schema);
    validate(ty, &config).map_err(|e| {
        internal(format!(
            "failed to create typed patch object ({}): {e}",
            describe(&config)
        ))
    })?;
    let id = Id::of(&manager);
    let outcome = apply_to(
        ty,
        schema,
        reset,
        &current,
        &config,
        entries.clone(),
        &id,
        force,
    );
    let outcome = match outcome {
        Err(Refusal::Conflicts(conflicts)) if manager.name == KUBECTL => {
            let allowed = client_side_applied(ty, schema, &current, &manager);
            let left: Vec<Conflict> = conflicts
                .iter()
                .filter(|c| !allowed.contains(&c.path))
                .cloned()
                .collect();
            if left.is_empty() {
                apply_to(ty, schema, reset, &current, &config, entries, &id, true)
            } else if allowed.is_empty() {
                Err(Refusal::Conflicts(conflicts))
            } else {
                Err(Refusal::Conflicts(left))
            }
        }
        other => other,
    };
    let (merged, mut entries) = outcome.map_err(|refusal| match refusal {
        Refusal::Conflicts(conflicts) => conflict(conflicts),
        Refusal::Other(message) => internal(message),
    })?;
    let mut object = match merged {
        Some(merged) => {
            if let Some(own) = entries.iter_mut().find(|e| e.id == id) {
                own.version = manager.api_version.to_owned();
                own.time = Some(managed::timestamp(manager.time));
            }
            merged
        }
        None => current,
    };
    if manager.name == KUBECTL {
        refresh_last_applied(&mut object, &config);
    }
    if let Some(entries) = managed::encode(entries) {
        put_entries(&mut object, entries);
    }
    Ok(object)
}

fn internal(message: String) -> Failure {
    Failure::new(500, "", message)
}

fn member<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or("")
}

/// `group/version, Kind=kind`, as Go prints a GroupVersionKind.
fn gvk(object: &Value) -> String {
    let version = member(object, "apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", member(object, "kind"))
}

fn describe(object: &Value) -> String {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    format!(
        "{}/{}; {}",
        member(metadata, "namespace"),
        member(metadata, "name"),
        gvk(object)
    )
}

fn check_type(live: Option<&Value>, config: &Value, manager: &Manager<'_>) -> Result<(), Failure> {
    let kind = member(config, "kind");
    let other_kind = live.is_some_and(|l| {
        let expected = member(l, "kind");
        !expected.is_empty() && expected != kind
    });
    if member(config, "apiVersion") != manager.api_version || kind.is_empty() || other_kind {
        return Err(Failure::new(
            400,
            "BadRequest",
            format!("invalid object type: {}", gvk(config)),
        ));
    }
    Ok(())
}

fn before_first_apply(
    schema: &Schema,
    reset: &ResetFields,
    live: &Value,
    manager: &Manager<'_>,
) -> Option<Entry> {
    let change = kept(compare(schema, None, live), reset);
    let fields = change.written().difference(&NEVER_OWNED);
    (!fields.is_empty()).then(|| Entry {
        id: Id {
            manager: BEFORE_FIRST_APPLY.to_owned(),
            operation: Operation::Update,
            api_version: manager.api_version.to_owned(),
            subresource: manager.subresource.to_owned(),
        },
        version: manager.api_version.to_owned(),
        fields,
        time: Some(managed::timestamp(manager.time)),
    })
}

#[derive(Debug, Clone)]
struct Conflict {
    id: Id,
    path: Vec<PathElement>,
}

enum Refusal {
    Conflicts(Vec<Conflict>),
    Other(String),
}

/// The merged object (`None` when it is the live one) and all entries after the apply.
#[expect(
    clippy::too_many_arguments,
    reason = "one step of one algorithm, called twice"
)]
fn apply_to(
    ty: Type<'_>,
    schema: &Schema,
    reset: &ResetFields,
    live: &Value,
    config: &Value,
    mut entries: Vec<Entry>,
    id: &Id,
    force: bool,
) -> Result<(Option<Value>, Vec<Entry>), Refusal> {
    for entry in &mut entries {
        entry.fields = with_atomic_parents(ty, &entry.fields);
    }
    let merged = merge(ty, live, config)
        .map_err(|e| Refusal::Other(format!("failed to merge config: {e}")))?;
    let applied = reset.keep(fields_of(ty, config));
    let last = match entries.iter_mut().find(|e| e.id == *id) {
        Some(own) => std::mem::replace(&mut own.fields, applied),
        None => {
            entries.push(Entry {
                id: id.clone(),
                version: member(config, "apiVersion").to_owned(),
                fields: applied,
                time: None,
            });
            FieldSet::new()
        }
    };
    let merged = prune(ty, merged, &last, &entries);
    let change = kept(compare(schema, Some(live), &merged), reset);
    let written = change.written();
    if !force {
        let mut conflicts = Vec::new();
        for entry in entries.iter().filter(|e| e.id != *id) {
            entry.fields.intersection(&written).each(&mut |path| {
                conflicts.push(Conflict {
                    id: entry.id.clone(),
                    path: path.to_vec(),
                });
            });
        }
        if !conflicts.is_empty() {
            return Err(Refusal::Conflicts(conflicts));
        }
    }
    let gone = written.union(&change.removed);
    entries.retain_mut(|entry| {
        entry.fields = if entry.id == *id {
            entry.fields.difference(&NEVER_OWNED)
        } else {
            entry.fields.difference(&gone)
        };
        !entry.fields.is_empty()
    });
    let changed = !equal(live, &merged);
    Ok((changed.then_some(merged), entries))
}

/// The merged object without what the manager applied last time, does not apply now, and nobody
/// else owns.
fn prune(ty: Type<'_>, merged: Value, last: &FieldSet, entries: &[Entry]) -> Value {
    if last.is_empty() {
        return merged;
    }
    let last = with_named_parents(ty, last);
    let all = with_named_parents(ty, &fields_of(ty, &merged));
    let named = |value: &Value| with_named_parents(ty, &fields_of(ty, value));
    // First without all that was applied last time …
    let pruned = without(ty, &merged, &last);
    // … then with what someone owns, the manager's new fields among it …
    let owned = entries
        .iter()
        .fold(FieldSet::new(), |all, e| all.union(&e.fields));
    let owned = with_named_parents(ty, &owned);
    let pruned = without(ty, &merged, &all.difference(&named(&pruned).union(&owned)));
    // … and with what goes only because it stood inside something that went.
    without(
        ty,
        &merged,
        &all.difference(&named(&pruned)).intersection(&last),
    )
}

fn conflict(mut conflicts: Vec<Conflict>) -> Failure {
    conflicts.sort_by(|a, b| a.id.cmp(&b.id));
    let path = |c: &Conflict| c.path.iter().map(ToString::to_string).collect::<String>();
    let message = match conflicts.as_slice() {
        [only] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.id.describe(),
            path(only)
        ),
        all => {
            let mut lines = Vec::new();
            for (i, conflict) in all.iter().enumerate() {
                if i == 0 || all[i - 1].id != conflict.id {
                    lines.push(format!("conflicts with {}:", conflict.id.describe()));
                }
                lines.push(format!("- {}", path(conflict)));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                all.len(),
                lines.join("\n")
            )
        }
    };
    let causes = conflicts
        .iter()
        .map(|c| Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", c.id.describe()),
            field: path(c),
        })
        .collect();
    Failure::new(409, "Conflict", message).with_details(Details {
        causes,
        ..Details::default()
    })
}

/// Fields that `kubectl apply` without server side set and that are still as it set them: its
/// server-side apply may take them over.
fn client_side_applied(
    ty: Type<'_>,
    schema: &Schema,
    live: &Value,
    manager: &Manager<'_>,
) -> FieldSet {
    let Some(text) = last_applied(live) else {
        return FieldSet::new();
    };
    let Ok(applied) = serde_json::from_str::<Value>(text) else {
        return FieldSet::new();
    };
    if member(&applied, "apiVersion") != manager.api_version || validate(ty, &applied).is_err() {
        return FieldSet::new();
    }
    let change = compare(schema, Some(&applied), live);
    fields_of(ty, &applied)
        .difference(&change.modified)
        .difference(&change.added)
        .difference(&change.removed)
}

fn last_applied(object: &Value) -> Option<&str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(LAST_APPLIED)?
        .as_str()
        .filter(|t| !t.is_empty())
}

/// Keeps kubectl's annotation in step, so that a later client-side apply starts from here.
fn refresh_last_applied(object: &mut Value, config: &Value) {
    if last_applied(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{config}\n");
    if let Some(annotations) = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.insert(LAST_APPLIED.to_owned(), Value::from(text));
    }
}
