//! Structural schemas: what a custom resource's OpenAPI schema may say, and its form for the rest
//! of this crate.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::{
    causes::{forbidden, invalid, not_supported, required},
    rules, validate, values,
};
use crate::{
    schema::{self, Kind, Link, ListType, Schema},
    status::Cause,
};

/// Members of a schema that hold other schemas: kept out of [`Schema::source`] of inner nodes, or
/// a deep schema would be stored once for each level.
const CHILDREN: [&str; 3] = ["properties", "items", "additionalProperties"];

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Checks that a schema is structural and reads it as the schema of a custom resource.
///
/// The root's [`Schema::source`] is the schema as it was written; an inner node's has its own
/// keywords and not those of the nodes below.
///
/// # Errors
/// All that is not structural, as fields below `openAPIV3Schema`.
pub fn structural(schema_json: &Value) -> Result<Schema, Vec<Cause>> {
    let faults = check(schema_json, "openAPIV3Schema");
    if faults.is_empty() {
        Ok(compile(schema_json))
    } else {
        Err(faults)
    }
}

/// Reads a schema that was checked when its definition was stored.
pub(super) fn compile(root: &Value) -> Schema {
    let mut schema = node(root);
    schema.source = Some(root.clone());
    add_header(&mut schema, root);
    // The rules of the whole object also reach what all objects have.
    schema.rules = rules::compile(root, true);
    schema
}

/// `apiVersion`, `kind` and `metadata`, which every object has whether its schema says so or not.
fn add_header(schema: &mut Schema, source: &Value) {
    for name in ["apiVersion", "kind"] {
        let text = Schema {
            kind: Kind::String,
            ..Schema::default()
        };
        schema
            .properties
            .entry(name.to_owned())
            .or_insert_with(|| Link::Owned(Box::new(text)));
    }
    let Some(id) = object_meta() else { return };
    // The author may restrict names; all else about metadata is fixed.
    let restricted: Vec<(&str, &Value)> = ["name", "generateName"]
        .into_iter()
        .filter_map(|name| {
            let rules = source.pointer(&format!("/properties/metadata/properties/{name}"))?;
            Some((name, rules))
        })
        .collect();
    let link = if restricted.is_empty() {
        Link::Builtin(id)
    } else {
        let mut metadata = schema::builtin(id).clone();
        for (name, rules) in restricted {
            metadata
                .properties
                .insert(name.to_owned(), Link::Owned(Box::new(node(rules))));
        }
        Link::Owned(Box::new(metadata))
    };
    schema.properties.insert("metadata".to_owned(), link);
}

/// The type of `metadata`, found through a kind that has one.
fn object_meta() -> Option<schema::TypeId> {
    static ID: OnceLock<Option<schema::TypeId>> = OnceLock::new();
    *ID.get_or_init(|| {
        let pod = schema::builtin(schema::builtin_by_gvk("", "v1", "Pod")?);
        match pod.properties.get("metadata")? {
            Link::Builtin(id) => Some(*id),
            Link::Owned(_) => None,
        }
    })
}

fn flag(json: &Value, name: &str) -> bool {
    json.get(name).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json.get(name).and_then(Value::as_str).unwrap_or("")
}

/// One node of a schema, without what is implied at the root.
pub(super) fn node(json: &Value) -> Schema {
    let preserve = flag(json, "x-kubernetes-preserve-unknown-fields");
    let kind = match text(json, "type") {
        _ if flag(json, "x-kubernetes-int-or-string") => Kind::IntOrString,
        "object" => Kind::Object,
        "array" => Kind::Array,
        "string" => Kind::String,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "boolean" => Kind::Boolean,
        _ if json.get("properties").is_some() => Kind::Object,
        _ => Kind::Any,
    };
    let child = |json: &Value| Link::Owned(Box::new(node(json)));
    let additional = match json.get("additionalProperties") {
        Some(rules @ Value::Object(_)) => Some(child(rules)),
        Some(Value::Bool(true)) => Some(Link::Owned(Box::new(Schema {
            preserve_unknown: true,
            source: Some(Value::Object(Map::new())),
            ..Schema::default()
        }))),
        _ => None,
    };
    let strings = |name: &str| -> Vec<String> {
        let items = json.get(name).and_then(Value::as_array);
        items
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let embedded = flag(json, "x-kubernetes-embedded-resource");
    let mut own = json.as_object().cloned().unwrap_or_default();
    own.retain(|k, _| !CHILDREN.contains(&k.as_str()));
    let mut schema = Schema {
        kind,
        properties: json
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, rules)| (name.clone(), child(rules)))
            .collect(),
        additional,
        items: json.get("items").map(child),
        required: strings("required"),
        format: json
            .get("format")
            .and_then(Value::as_str)
            .map(str::to_owned),
        enumeration: json
            .get("enum")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        list_type: match text(json, "x-kubernetes-list-type") {
            "set" => ListType::Set,
            "map" => ListType::Map(strings("x-kubernetes-list-map-keys")),
            _ => ListType::Atomic,
        },
        atomic_map: text(json, "x-kubernetes-map-type") == "atomic",
        preserve_unknown: preserve,
        embedded_resource: embedded,
        nullable: flag(json, "nullable"),
        default: json.get("default").cloned(),
        description: json
            .get("description")
            .and_then(Value::as_str)
            .map(str::to_owned),
        junctors: validate::junctors(json),
        pattern: json
            .get("pattern")
            .and_then(Value::as_str)
            .and_then(|p| Regex::new(p).ok()),
        source: Some(Value::Object(own)),
        ..Schema::default()
    };
    if embedded {
        add_header(&mut schema, json);
    }
    if let Some(mut default) = schema.default.take() {
        values::prune(&schema, &mut default);
        schema.default = Some(default);
    }
    schema.rules = rules::compile(json, embedded);
    schema.has_rules = has_rules(&schema);
    schema
}

/// Whether there are rules at a node or below it.
fn has_rules(schema: &Schema) -> bool {
    let links = schema.properties.values();
    let links = links.chain(&schema.additional).chain(&schema.items);
    schema.rules.is_some()
        || links
            .filter(|link| matches!(link, Link::Owned(_)))
            .any(|link| link.get().has_rules)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What is not structural about a schema that stands at `path`.
pub(super) fn check(schema: &Value, path: &str) -> Vec<Cause> {
    let mut faults = Vec::new();
    keywords(schema, path, &mut faults);
    if flag(schema, "nullable") {
        faults.push(forbidden(
            &format!("{path}.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    if !faults.is_empty() {
        // Kubernetes reads the structure of a schema only when its keywords are in order.
        return faults;
    }
    let mut shape = Vec::new();
    invariants(schema, Level::Root, path, &mut shape);
    completeness(schema, path, &mut shape);
    shape.sort_by(|a, b| (&a.field, &a.message).cmp(&(&b.field, &b.message)));
    faults.extend(shape);
    if faults.is_empty() {
        defaults(schema, path, &mut faults);
    }
    if faults.is_empty() {
        faults.extend(rules::check(schema, path));
    }
    faults
}

/// Calls `visit` with the schemas right below one, and their paths.
pub(super) fn each_child_of<'a>(
    schema: &'a Value,
    path: &str,
    mut visit: impl FnMut(&'a Value, String),
) {
    each_child(schema, path, |child, path, _| visit(child, path));
}

fn each_child<'a>(schema: &'a Value, path: &str, mut visit: impl FnMut(&'a Value, String, Level)) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, rules) in properties {
            visit(rules, format!("{path}.properties[{name}]"), Level::Field);
        }
    }
    if let Some(rules @ Value::Object(_)) = schema.get("items") {
        visit(rules, format!("{path}.items"), Level::Item);
    }
    if let Some(rules @ Value::Object(_)) = schema.get("additionalProperties") {
        visit(rules, format!("{path}.additionalProperties"), Level::Field);
    }
}

fn each_junctor<'a>(schema: &'a Value, path: &str, mut visit: impl FnMut(&'a Value, String)) {
    for name in ["anyOf", "allOf", "oneOf"] {
        let branches = schema.get(name).and_then(Value::as_array);
        for (i, branch) in branches.into_iter().flatten().enumerate() {
            visit(branch, format!("{path}.{name}[{i}]"));
        }
    }
    if let Some(branch @ Value::Object(_)) = schema.get("not") {
        visit(branch, format!("{path}.not"));
    }
}

/// Keywords that no schema may have, and values that keywords may not have.
fn keywords(schema: &Value, path: &str, faults: &mut Vec<Cause>) {
    if flag(schema, "uniqueItems") {
        faults.push(forbidden(
            &format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => faults.push(forbidden(
            &format!("{path}.additionalProperties"),
            "additionalProperties cannot be set to false",
        )),
        Some(_)
            if schema
                .get("properties")
                .and_then(Value::as_object)
                .is_some_and(|p| !p.is_empty()) =>
        {
            faults.push(forbidden(
                &format!("{path}.additionalProperties"),
                "additionalProperties and properties are mutual exclusive",
            ));
        }
        _ => {}
    }
    let kind = text(schema, "type");
    if kind == "null" {
        faults.push(forbidden(
            &format!("{path}.type"),
            "type cannot be set to null, use nullable as an alternative",
        ));
    } else if !kind.is_empty() && !TYPES.contains(&kind) {
        let types: Vec<String> = TYPES.iter().map(|t| (*t).to_owned()).collect();
        faults.push(not_supported(
            &format!("{path}.type"),
            &Value::from(kind),
            &types,
        ));
    }
    for name in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        if schema.get(name).is_some_and(|v| !v.is_null()) {
            faults.push(forbidden(
                &format!("{path}.{name}"),
                &format!("{name} is not supported"),
            ));
        }
    }
    if schema.get("items").is_some_and(Value::is_array) {
        faults.push(forbidden(
            &format!("{path}.items"),
            "items must be a schema object and not an array",
        ));
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        faults.push(invalid(
            &format!("{path}.x-kubernetes-preserve-unknown-fields"),
            &Value::Bool(false),
            "must be true or undefined",
        ));
    }
    merge_keywords(schema, path, faults);
    each_child(schema, path, |child, path, _| {
        keywords(child, &path, faults)
    });
    each_junctor(schema, path, |child, path| keywords(child, &path, faults));
}

/// `x-kubernetes-map-type`, `x-kubernetes-list-type` and `x-kubernetes-list-map-keys`.
fn merge_keywords(schema: &Value, path: &str, faults: &mut Vec<Cause>) {
    let kind = text(schema, "type");
    let typed = |faults: &mut Vec<Cause>, wanted: &str, keyword: &str| {
        let field = format!("{path}.type");
        let detail = format!("must be {wanted} if {keyword} is specified");
        if kind.is_empty() {
            faults.push(required(&field, &detail));
        } else if kind != wanted {
            faults.push(invalid(&field, &Value::from(kind), &detail));
        }
    };
    let map_type = text(schema, "x-kubernetes-map-type");
    if !map_type.is_empty() {
        typed(faults, "object", "x-kubernetes-map-type");
        if !["atomic", "granular"].contains(&map_type) {
            faults.push(not_supported(
                &format!("{path}.x-kubernetes-map-type"),
                &Value::from(map_type),
                &["atomic".to_owned(), "granular".to_owned()],
            ));
        }
    }
    let list_type = text(schema, "x-kubernetes-list-type");
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !list_type.is_empty() {
        typed(faults, "array", "x-kubernetes-list-type");
        if !["atomic", "set", "map"].contains(&list_type) {
            faults.push(not_supported(
                &format!("{path}.x-kubernetes-list-type"),
                &Value::from(list_type),
                &["atomic".to_owned(), "set".to_owned(), "map".to_owned()],
            ));
        }
    }
    if !keys.is_empty() && list_type != "map" {
        let field = format!("{path}.x-kubernetes-list-type");
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        faults.push(match list_type {
            "" => required(&field, detail),
            other => invalid(&field, &Value::from(other), detail),
        });
    }
    if list_type != "map" {
        return;
    }
    let keys_field = format!("{path}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        faults.push(required(
            &keys_field,
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    let Some(items) = schema.get("items") else {
        faults.push(required(
            &format!("{path}.items"),
            "must have a schema if x-kubernetes-list-type is map",
        ));
        return;
    };
    if text(items, "type") != "object" {
        faults.push(invalid(
            &format!("{path}.items.type"),
            &Value::from(text(items, "type")),
            "must be object if parent array's x-kubernetes-list-type is map",
        ));
    }
    let all = schema
        .get("x-kubernetes-list-map-keys")
        .unwrap_or(&Value::Null);
    for (i, key) in keys.iter().enumerate() {
        let property = items.get("properties").and_then(|p| p.get(key));
        match property {
            None => faults.push(invalid(
                &keys_field,
                all,
                "entries must all be names of item properties",
            )),
            Some(rules) => {
                if matches!(text(rules, "type"), "array" | "object") {
                    faults.push(invalid(
                        &format!("{path}.items.properties[{key}].type"),
                        &Value::from(text(items, "type")),
                        "must be a scalar type if parent array's x-kubernetes-list-type is map",
                    ));
                }
                let needed = items
                    .get("required")
                    .and_then(Value::as_array)
                    .is_some_and(|r| r.iter().any(|r| r.as_str() == Some(key)));
                if !needed && rules.get("default").is_none() {
                    faults.push(required(
                        &format!("{path}.items.properties[{key}].default"),
                        "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                    ));
                }
            }
        }
        if keys[..i].contains(key) {
            faults.push(invalid(
                &keys_field,
                all,
                "must not contain duplicate entries",
            ));
        }
    }
}

fn is_int_or_string_any_of(schema: &Value) -> bool {
    schema
        .get("anyOf")
        .and_then(Value::as_array)
        .is_some_and(|branches| {
            branches.len() == 2
                && branches
                    .iter()
                    .zip(["integer", "string"])
                    .all(|(b, kind)| b == &serde_json::json!({"type": kind}))
        })
}

/// What every node must be: typed, and free of what contradicts its extensions.
fn invariants(schema: &Value, level: Level, path: &str, faults: &mut Vec<Cause>) {
    let kind = text(schema, "type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    if kind == "array" && schema.get("items").is_none() {
        faults.push(required(&format!("{path}.items"), "must be specified"));
    }
    each_child(schema, path, |child, path, level| {
        invariants(child, level, &path, faults);
    });
    let additional = schema.get("additionalProperties").is_some();
    if additional && level == Level::Root {
        faults.push(forbidden(
            &format!("{path}.additionalProperties"),
            "must not be used at the root",
        ));
    }
    if int_or_string {
        for (set, name) in [
            (preserve, "x-kubernetes-preserve-unknown-fields"),
            (embedded, "x-kubernetes-embedded-resource"),
        ] {
            if set {
                faults.push(invalid(
                    &format!("{path}.{name}"),
                    &Value::Bool(true),
                    "must be false if x-kubernetes-int-or-string is true",
                ));
            }
        }
    }
    let exempt = int_or_string.then_some(schema);
    junctors(schema, exempt, path, faults);
    let type_field = format!("{path}.type");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        faults.push(match kind {
            "" => required(&type_field, detail),
            other => invalid(&type_field, &Value::from(other), detail),
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        faults.push(required(
            &type_field,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        ));
    }
    if embedded && additional {
        faults.push(forbidden(
            &format!("{path}.additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        ));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        faults.push(invalid(
            &type_field,
            &Value::from(kind),
            "must be object at the root",
        ));
    }
    let property = |name: &str| schema.get("properties").and_then(|p| p.get(name));
    if level == Level::Root || embedded {
        for name in ["kind", "apiVersion"] {
            if let Some(rules) = property(name).filter(|r| text(r, "type") != "string") {
                faults.push(invalid(
                    &format!("{path}.properties[{name}].type"),
                    &Value::from(text(rules, "type")),
                    "must be string",
                ));
            }
        }
        if let Some(rules) = property("metadata") {
            let field = format!("{path}.properties[metadata]");
            if text(rules, "type") != "object" {
                faults.push(invalid(
                    &format!("{field}.type"),
                    &Value::from(text(rules, "type")),
                    "must be object",
                ));
            }
            let others = |r: &Map<String, Value>| {
                r.iter().any(|(k, v)| match k.as_str() {
                    "type" | "default" => false,
                    "properties" => v
                        .as_object()
                        .is_some_and(|p| p.keys().any(|k| k != "name" && k != "generateName")),
                    _ => true,
                })
            };
            if level == Level::Root && rules.as_object().is_some_and(others) {
                faults.push(forbidden(
                    &field,
                    "must not specify anything other than name and generateName, but metadata is implicitly specified",
                ));
            }
        }
    }
    let no_properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .is_none_or(Map::is_empty);
    if embedded && !preserve && no_properties {
        faults.push(required(
            &format!("{path}.properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

/// `anyOf`, `allOf`, `oneOf` and `not` may only restrict values. `exempt` is the node that may have
/// types in them because it is an integer or a string.
fn junctors(schema: &Value, exempt: Option<&Value>, path: &str, faults: &mut Vec<Cause>) {
    let pattern = text(schema, "pattern");
    if let Err(e) = Regex::new(pattern) {
        faults.push(invalid(
            &format!("{path}.pattern"),
            &Value::from(pattern),
            &format!("must be a valid regular expression, but isn't: {e}"),
        ));
    }
    let any_of = exempt.is_some_and(is_int_or_string_any_of);
    let in_all_of = exempt
        .and_then(|s| s.pointer("/allOf/0"))
        .is_some_and(is_int_or_string_any_of);
    each_junctor(schema, path, |branch, branch_path| {
        if any_of && branch_path.contains(&format!("{path}.anyOf[")) {
            return;
        }
        if in_all_of && branch_path == format!("{path}.allOf[0]") {
            return;
        }
        nested(branch, &branch_path, faults);
    });
}

fn nested(schema: &Value, path: &str, faults: &mut Vec<Cause>) {
    junctors(schema, None, path, faults);
    each_child(schema, path, |child, path, _| nested(child, &path, faults));
    let empty = "must be empty to be structural";
    let undefined = "must be undefined to be structural";
    for (name, detail) in [
        ("type", empty),
        ("additionalProperties", undefined),
        ("default", undefined),
        ("title", empty),
        ("description", empty),
        ("nullable", "must be false to be structural"),
        (
            "x-kubernetes-preserve-unknown-fields",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-embedded-resource",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-int-or-string",
            "must be false to be structural",
        ),
        ("x-kubernetes-list-map-keys", empty),
        ("x-kubernetes-list-type", undefined),
        ("x-kubernetes-map-type", undefined),
        ("x-kubernetes-validations", empty),
    ] {
        if schema
            .get(name)
            .is_some_and(|v| !v.is_null() && *v != Value::Bool(false))
        {
            faults.push(forbidden(&format!("{path}.{name}"), detail));
        }
    }
    if schema.pointer("/properties/metadata").is_some() {
        faults.push(forbidden(
            &format!("{path}.properties[metadata]"),
            "must not be specified in a nested context",
        ));
    }
}

/// What a junctor restricts must also be specified outside of it.
fn completeness(schema: &Value, path: &str, faults: &mut Vec<Cause>) {
    each_junctor(schema, path, |branch, branch_path| {
        specified(schema, path, branch, &branch_path, faults);
    });
    each_child(schema, path, |child, path, _| {
        completeness(child, &path, faults)
    });
}

fn specified(
    schema: &Value,
    path: &str,
    branch: &Value,
    branch_path: &str,
    faults: &mut Vec<Cause>,
) {
    let header = schema.get("x-kubernetes-embedded-resource").is_some();
    for (name, rules) in branch
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let outside = schema.get("properties").and_then(|p| p.get(name));
        match outside {
            Some(outside) => specified(
                outside,
                &format!("{path}.properties[{name}]"),
                rules,
                &format!("{branch_path}.properties[{name}]"),
                faults,
            ),
            None if header && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") => {}
            None => faults.push(required(
                &format!("{path}.properties[{name}]"),
                &format!("because it is defined in {branch_path}.properties[{name}]"),
            )),
        }
    }
    if let Some(rules @ Value::Object(_)) = branch.get("items") {
        match schema.get("items") {
            Some(outside) => specified(
                outside,
                &format!("{path}.items"),
                rules,
                &format!("{branch_path}.items"),
                faults,
            ),
            None => faults.push(required(
                &format!("{path}.items"),
                &format!("because it is defined in {branch_path}.items"),
            )),
        }
    }
    each_junctor(branch, branch_path, |inner, inner_path| {
        specified(schema, path, inner, &inner_path, faults);
    });
}

/// Defaults must be valid where they stand, and hold nothing that would be pruned.
fn defaults(schema: &Value, path: &str, faults: &mut Vec<Cause>) {
    if let Some(default) = schema.get("default") {
        let field = format!("{path}.default");
        let compiled = node(schema);
        if values::has_unknown(&compiled, default) {
            faults.push(invalid(&field, default, "must not have unknown fields"));
        }
        let mut filled = default.clone();
        values::default(&compiled, &mut filled);
        if !(filled.is_null() && compiled.nullable) {
            for mut fault in validate::validate_at(&compiled, &filled, "") {
                // The value stands at no path of its own: paths inside it follow the field's.
                fault.field = match fault.field.as_str() {
                    "" | "<nil>" => field.clone(),
                    inner => format!("{field}.{inner}"),
                };
                faults.push(fault);
            }
        }
    }
    each_child(schema, path, |child, path, _| {
        defaults(child, &path, faults)
    });
}
