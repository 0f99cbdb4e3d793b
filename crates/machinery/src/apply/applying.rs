//! Server-side apply.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    FieldSet, Manager, Operation, PathElement, ResetFields,
    compare::compare,
    managed::{self, Entry, Id},
    merge::merge,
    remove::without,
    types::{Type, equal, fields_of, validate, with_atomic_parents, with_named_parents},
    update::{NEVER_OWNED, put_entries, take_entries},
    versions::{Kind, Lens},
};
use crate::{
    schema::Schema,
    status::{Cause, Details, Failure},
};

/// Manager of all that was there before an object without entries is first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager for which a client-side apply counts as its own.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

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
/// for an object that does not fit the schema, as kube-apiserver has it, and what a converter
/// between versions says.
pub fn apply_in(
    kind: Kind<'_>,
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
    let lens = Lens {
        kind,
        own: manager.api_version,
    };
    if entries.is_empty() && live.is_some() {
        entries.extend(before_first_apply(lens, &current, &manager)?);
    }
    entries.retain(|entry| lens.knows(&entry.version));
    let ty = Type::of(kind.schema);
    validate(ty, &config).map_err(|e| {
        internal(format!(
            "failed to create typed patch object ({}): {e}",
            describe(&config)
        ))
    })?;
    let id = Id::of(&manager);
    let outcome = apply_to(lens, &current, &config, entries.clone(), &id, force);
    let outcome = match outcome {
        Err(Refusal::Conflicts(conflicts)) if manager.name == KUBECTL => {
            let allowed = client_side_applied(kind.schema, &current, &manager);
            let left: Vec<Conflict> = conflicts
                .iter()
                .filter(|c| !allowed.contains(&c.path))
                .cloned()
                .collect();
            if left.is_empty() {
                apply_to(lens, &current, &config, entries, &id, true)
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
        Refusal::Failed(failure) => failure,
    })?;
    let mut object = match merged {
        Some(merged) => {
            if let Some(own) = entries.iter_mut().find(|e| e.id == id) {
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

/// [`apply_in`] for a kind of one version.
///
/// # Errors
/// Those of [`apply_in`].
pub fn apply(
    schema: &Schema,
    reset: &ResetFields,
    live: Option<&Value>,
    config: Value,
    manager: Manager<'_>,
    force: bool,
) -> Result<Value, Failure> {
    apply_in(Kind::alone(schema, reset), live, config, manager, force)
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
    lens: Lens<'_>,
    live: &Value,
    manager: &Manager<'_>,
) -> Result<Option<Entry>, Failure> {
    let change = lens.compare(lens.own, None, live)?;
    let fields = change.written().difference(&NEVER_OWNED);
    Ok((!fields.is_empty()).then(|| Entry {
        id: Id {
            manager: BEFORE_FIRST_APPLY.to_owned(),
            operation: Operation::Update,
            api_version: manager.api_version.to_owned(),
            subresource: manager.subresource.to_owned(),
        },
        version: manager.api_version.to_owned(),
        fields,
        time: Some(managed::timestamp(manager.time)),
    }))
}

#[derive(Debug, Clone)]
struct Conflict {
    id: Id,
    path: Vec<PathElement>,
}

enum Refusal {
    Conflicts(Vec<Conflict>),
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Refusal::Failed(failure)
    }
}

/// The merged object (`None` when it is the live one) and all entries after the apply.
fn apply_to(
    lens: Lens<'_>,
    live: &Value,
    config: &Value,
    mut entries: Vec<Entry>,
    id: &Id,
    force: bool,
) -> Result<(Option<Value>, Vec<Entry>), Refusal> {
    let reset = lens.kind.reset;
    let ty = lens.ty(lens.own);
    for entry in &mut entries {
        entry.fields = with_atomic_parents(lens.ty(&entry.version), &entry.fields);
    }
    let merged =
        merge(ty, live, config).map_err(|e| internal(format!("failed to merge config: {e}")))?;
    let applied = reset.keep(fields_of(ty, config));
    let version = lens.own.to_owned();
    let (last, last_version) = match entries.iter_mut().find(|e| e.id == *id) {
        Some(own) => (
            std::mem::replace(&mut own.fields, applied),
            std::mem::replace(&mut own.version, version),
        ),
        None => {
            entries.push(Entry {
                id: id.clone(),
                version: version.clone(),
                fields: applied,
                time: None,
            });
            (FieldSet::new(), version)
        }
    };
    let merged = prune(lens, merged, &last, &last_version, &entries)?;
    let change = lens.compare(lens.own, Some(live), &merged)?;
    let others = entries.iter().filter(|e| e.id != *id);
    let versions = others.map(|e| e.version.as_str());
    let elsewhere = lens.compare_elsewhere(versions, Some(live), &merged)?;
    let seen = |version: &str| elsewhere.get(version).unwrap_or(&change);
    if !force {
        let mut conflicts = Vec::new();
        for entry in entries.iter().filter(|e| e.id != *id) {
            let written = seen(&entry.version).written();
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
    entries.retain_mut(|entry| {
        entry.fields = if entry.id == *id {
            entry.fields.difference(&NEVER_OWNED)
        } else {
            let change = seen(&entry.version);
            let gone = change.written().union(&change.removed);
            entry.fields.difference(&gone)
        };
        !entry.fields.is_empty()
    });
    let changed = !equal(live, &merged);
    Ok((changed.then_some(merged), entries))
}

/// The merged object without what the manager applied last time (in `last_version`), does not
/// apply now, and nobody else owns.
fn prune(
    lens: Lens<'_>,
    merged: Value,
    last: &FieldSet,
    last_version: &str,
    entries: &[Entry],
) -> Result<Value, Failure> {
    if last.is_empty() {
        return Ok(merged);
    }
    let merged = lens.convert(merged, lens.own, last_version)?;
    let ty = lens.ty(last_version);
    let last = with_named_parents(ty, last);
    // First without all that was applied last time …
    let mut pruned = without(ty, &merged, &last);
    // … then with what someone owns, the manager's new fields among it, in each version in which
    // someone owns something, the version of last time first: what it takes away by mistake might
    // be needed to convert …
    let mut owned: BTreeMap<(bool, &str), FieldSet> = BTreeMap::new();
    for entry in entries {
        // Without conversions all are of one version.
        let version = match lens.kind.others {
            Some(_) => entry.version.as_str(),
            None => last_version,
        };
        let set = owned.entry((version != last_version, version)).or_default();
        *set = set.union(&entry.fields);
    }
    let mut at = last_version;
    let mut whole = None;
    for ((_, version), owned) in &owned {
        if *version != at {
            let there = whole.unwrap_or_else(|| merged.clone());
            whole = Some(lens.convert(there, at, version)?);
            pruned = lens.convert(pruned, at, version)?;
            at = version;
        }
        let ty = lens.ty(version);
        let whole = whole.as_ref().unwrap_or(&merged);
        let owned = with_named_parents(ty, owned);
        let stays = named(ty, &pruned).union(&owned);
        pruned = without(ty, whole, &named(ty, whole).difference(&stays));
    }
    // … and with what goes only because it stood inside something that went.
    let pruned = lens.convert(pruned, at, last_version)?;
    let gone = named(ty, &merged).difference(&named(ty, &pruned));
    let pruned = without(ty, &merged, &gone.intersection(&last));
    lens.convert(pruned, last_version, lens.own)
}

fn named(ty: Type<'_>, value: &Value) -> FieldSet {
    with_named_parents(ty, &fields_of(ty, value))
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
fn client_side_applied(schema: &Schema, live: &Value, manager: &Manager<'_>) -> FieldSet {
    let ty = Type::of(schema);
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
