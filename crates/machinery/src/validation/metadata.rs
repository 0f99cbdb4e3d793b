//! What all objects share: names, labels, annotations, owners, finalizers.

use serde_json::Value;

use super::{
    errors::{Errors, quote},
    names,
    value::{at, entries, flag, has, list, text},
};
use crate::{path::Path, resource::Resource};

/// Together, keys and values of all annotations.
const ANNOTATIONS_MOST: usize = 256 * 1024;

/// Metadata of an object about to be created.
pub fn create(resource: &Resource, object: &Value, e: &mut Errors) {
    let path = Path::new("metadata");
    let metadata = at(object, "metadata");
    let rule = names::rule(&resource.group, &resource.kind);
    let generate = text(metadata, "generateName");
    if !generate.is_empty() {
        // What is appended always fits: a trailing dash or dot is masked by it.
        let masked = match generate.strip_suffix(['-', '.']) {
            Some(head) => format!("{head}a"),
            None => generate.to_owned(),
        };
        e.invalid_each(&path.child("generateName"), generate, rule(&masked));
    }
    let name = text(metadata, "name");
    let name_path = path.child("name");
    if name.is_empty() {
        e.required(&name_path, "name or generateName is required");
    } else {
        e.invalid_each(&name_path, name, rule(name));
    }
    namespace(resource, metadata, &path, e);
    common(resource, metadata, &path, e);
}

/// Metadata of an object that stands inside another, which need not have a name.
pub fn embedded(metadata: &Value, path: &Path<'_>, e: &mut Errors) {
    let (name, namespace) = (text(metadata, "name"), text(metadata, "namespace"));
    if !name.is_empty() {
        e.invalid_each(&path.child("name"), name, names::path_segment(name));
    }
    if !namespace.is_empty() {
        let faults = names::dns1123_label(namespace);
        e.invalid_each(&path.child("namespace"), namespace, faults);
    }
    labels(metadata, "labels", &path.child("labels"), e);
    annotations(metadata, &path.child("annotations"), e);
    owners(metadata, &path.child("ownerReferences"), e);
}

fn namespace(resource: &Resource, metadata: &Value, path: &Path<'_>, e: &mut Errors) {
    let namespace = text(metadata, "namespace");
    let path = path.child("namespace");
    if resource.namespaced() {
        if namespace.is_empty() {
            e.required(&path, "");
        } else {
            e.invalid_each(&path, namespace, names::dns1123_label(namespace));
        }
    } else if !namespace.is_empty() {
        e.forbidden(&path, "not allowed on this type");
    }
}

/// What is checked at creation and at update alike.
fn common(resource: &Resource, metadata: &Value, path: &Path<'_>, e: &mut Errors) {
    if let Some(generation) = at(metadata, "generation").as_i64().filter(|g| *g < 0) {
        e.invalid_int(
            &path.child("generation"),
            generation,
            "must be greater than or equal to 0",
        );
    }
    labels(metadata, "labels", &path.child("labels"), e);
    annotations(metadata, &path.child("annotations"), e);
    owners(metadata, &path.child("ownerReferences"), e);
    finalizers(resource, metadata, &path.child("finalizers"), e);
    managed_fields(metadata, &path.child("managedFields"), e);
}

/// A map of labels; `name` is the field of `object` that holds it.
pub fn labels(object: &Value, name: &str, path: &Path<'_>, e: &mut Errors) {
    if !has(object, name) {
        return;
    }
    for (key, value) in entries(object, name) {
        e.invalid_each(path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or("");
        e.invalid_each(path, value, names::label_value(value));
    }
}

pub fn annotations(metadata: &Value, path: &Path<'_>, e: &mut Errors) {
    if !has(metadata, "annotations") {
        return;
    }
    let mut size = 0;
    for (key, value) in entries(metadata, "annotations") {
        // Keys differ only by case from valid ones here and there: they are checked in lower case.
        e.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MOST {
        e.too_long(path, ANNOTATIONS_MOST);
    }
}

fn owners(metadata: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in list(metadata, "ownerReferences") {
        let api_version = text(owner, "apiVersion");
        let version = path.child("apiVersion");
        match api_version.split('/').collect::<Vec<_>>()[..] {
            [""] | ["", _] | [_, ""] | [_, _, _, ..] => {
                e.invalid_text(&version, api_version, "version must not be empty");
            }
            _ => {}
        }
        for (field, value) in [
            ("kind", text(owner, "kind")),
            ("name", text(owner, "name")),
            ("uid", text(owner, "uid")),
        ] {
            if value.is_empty() {
                e.invalid_text(&path.child(field), value, "must not be empty");
            }
        }
        if api_version == "v1" && text(owner, "kind") == "Event" {
            e.invalid_shown(
                path,
                &super::errors::show(owner),
                "/v1, Kind=Event is disallowed from being an owner",
            );
        }
        if flag(owner, "controller") {
            let name = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            match &controller {
                Some(first) => e.invalid_shown(
                    path,
                    &super::errors::show(at(metadata, "ownerReferences")),
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    ),
                ),
                None => controller = Some(name),
            }
        }
    }
}

fn finalizers(resource: &Resource, metadata: &Value, path: &Path<'_>, e: &mut Errors) {
    let all = list(metadata, "finalizers");
    for (i, finalizer) in all.iter().enumerate() {
        let name = finalizer.as_str().unwrap_or("");
        let path = path.index(i);
        e.invalid_each(&path, name, names::qualified_name(name));
        let standard = matches!(name, "orphan" | "foregroundDeletion" | "kubernetes");
        // Definitions and their objects are checked by the generic rules, which lack this one.
        let generic = resource.custom.is_some() || resource.group == "apiextensions.k8s.io";
        if !name.contains('/') && !standard && !generic {
            e.invalid_text(
                &path,
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    let holds = |name: &str| all.iter().any(|f| f == name);
    if holds("orphan") && holds("foregroundDeletion") {
        e.invalid_shown(
            path,
            &super::errors::show(at(metadata, "finalizers")),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

fn managed_fields(metadata: &Value, path: &Path<'_>, e: &mut Errors) {
    for (i, entry) in list(metadata, "managedFields").iter().enumerate() {
        let path = path.index(i);
        let operation = text(entry, "operation");
        if !matches!(operation, "Apply" | "Update") {
            e.invalid_text(
                &path.child("operation"),
                operation,
                "must be `Apply` or `Update`",
            );
        }
        let kind = text(entry, "fieldsType");
        if !kind.is_empty() && kind != "FieldsV1" {
            e.invalid_text(&path.child("fieldsType"), kind, "must be `FieldsV1`");
        }
        let manager = text(entry, "manager");
        if manager.len() > 128 {
            e.too_long(&path.child("manager"), 128);
        }
        for c in manager.chars().filter(|c| c.is_control()) {
            e.invalid_text(
                &path.child("manager"),
                manager,
                &format!(
                    "invalid character {:?}, should be printable",
                    quote(&c.to_string())
                ),
            );
        }
    }
}

/// Metadata of an object about to replace `old`. Kubernetes runs these rules several times over, in
/// its generic code and in each built-in kind's, and reports a fault as often.
pub fn update(resource: &Resource, new: &Value, old: &Value, e: &mut Errors) {
    let path = Path::new("metadata");
    let (new, old) = (at(new, "metadata"), at(old, "metadata"));
    let (mut shared, mut changes) = (Errors::default(), Errors::default());
    common(resource, new, &path, &mut shared);
    change(new, old, &path, &mut changes);
    if shared.is_empty() && changes.is_empty() {
        return;
    }
    let order: &[&Errors] = if resource.custom.is_some() {
        &[&shared, &changes, &shared]
    } else {
        &[&shared, &changes, &shared, &changes, &shared, &shared]
    };
    order.iter().for_each(|found| e.append(found));
}

/// What may not change.
fn change(new: &Value, old: &Value, path: &Path<'_>, e: &mut Errors) {
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        immutable(new, old, field, path, e);
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        // Only a deletion sets these; once set they stay.
        if at(new, field) != at(old, field) {
            let shown = super::errors::show(at(new, field));
            e.invalid_shown(&path.child(field), &shown, "field is immutable");
        }
    }
    let generation = |m: &Value| at(m, "generation").as_i64().unwrap_or(0);
    if generation(new) < generation(old) {
        e.invalid_int(
            &path.child("generation"),
            generation(new),
            "must not be decremented",
        );
    }
    if has(old, "deletionTimestamp") {
        let before = list(old, "finalizers");
        let added: Vec<&str> = list(new, "finalizers")
            .iter()
            .filter(|f| !before.contains(f))
            .filter_map(Value::as_str)
            .collect();
        if !added.is_empty() {
            let shown: Vec<String> = added.iter().map(|f| quote(f)).collect();
            e.forbidden(
                &path.child("finalizers"),
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    shown.join(", ")
                ),
            );
        }
    }
}

fn immutable(new: &Value, old: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    if at(new, field) != at(old, field) {
        let shown = super::errors::show(at(new, field));
        e.invalid_shown(&path.child(field), &shown, "field is immutable");
    }
}
