//! OpenAPI of the served resources, from their schemas: what `kubectl explain` and the check of
//! `kubectl apply` need. Built-in types carry no descriptions.

use std::collections::{BTreeMap, BTreeSet};

use gantry_machinery::{
    resource::Resource,
    schema::{Kind, Link, ListType, Schema, TypeId, builtin, builtin_by_gvk, type_name},
};
use serde_json::{Value, json};

use crate::registry::Registry;

/// Collects the types that a document refers to.
struct Types {
    prefix: &'static str,
    wanted: Vec<TypeId>,
    seen: BTreeSet<&'static str>,
}

impl Types {
    fn new(prefix: &'static str) -> Types {
        Types {
            prefix,
            wanted: vec![],
            seen: BTreeSet::new(),
        }
    }

    fn reference(&mut self, id: TypeId) -> String {
        let name = type_name(id);
        if self.seen.insert(name) {
            self.wanted.push(id);
        }
        format!("{}{name}", self.prefix)
    }

    fn link(&mut self, link: &Link) -> Value {
        match link {
            Link::Builtin(id) => json!({"$ref": self.reference(*id)}),
            Link::Owned(schema) => self.schema(schema),
        }
    }

    fn schema(&mut self, schema: &Schema) -> Value {
        let mut out = json!({});
        match schema.kind {
            Kind::Object => out["type"] = "object".into(),
            Kind::Array => out["type"] = "array".into(),
            Kind::String => out["type"] = "string".into(),
            Kind::Integer => out["type"] = "integer".into(),
            Kind::Number => out["type"] = "number".into(),
            Kind::Boolean => out["type"] = "boolean".into(),
            Kind::IntOrString => {
                out["format"] = "int-or-string".into();
                out["oneOf"] = json!([{"type": "integer"}, {"type": "string"}]);
            }
            Kind::Any => {}
        }
        if let Some(format) = schema
            .format
            .as_ref()
            .filter(|_| schema.kind != Kind::IntOrString)
        {
            out["format"] = format.clone().into();
        }
        if let Some(description) = &schema.description {
            out["description"] = description.clone().into();
        }
        if let Some(default) = &schema.default {
            out["default"] = default.clone();
        }
        if !schema.properties.is_empty() {
            let all: serde_json::Map<String, Value> = schema
                .properties
                .iter()
                .map(|(name, link)| (name.clone(), self.link(link)))
                .collect();
            out["properties"] = all.into();
        }
        if let Some(items) = &schema.items {
            out["items"] = self.link(items);
        }
        if let Some(values) = &schema.additional {
            out["additionalProperties"] = self.link(values);
        }
        if !schema.required.is_empty() {
            out["required"] = schema.required.clone().into();
        }
        if !schema.enumeration.is_empty() {
            out["enum"] = schema.enumeration.clone().into();
        }
        match &schema.list_type {
            ListType::Map(keys) => {
                out["x-kubernetes-list-type"] = "map".into();
                out["x-kubernetes-list-map-keys"] = keys.clone().into();
            }
            ListType::Set => out["x-kubernetes-list-type"] = "set".into(),
            ListType::Atomic => {}
        }
        if schema.atomic_map {
            out["x-kubernetes-map-type"] = "atomic".into();
        }
        if !schema.patch_strategies.is_empty() {
            out["x-kubernetes-patch-strategy"] = schema.patch_strategies.join(",").into();
        }
        if let Some(key) = &schema.patch_merge_key {
            out["x-kubernetes-patch-merge-key"] = key.clone().into();
        }
        if schema.preserve_unknown {
            out["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        out
    }

    /// The types asked for so far and all that they refer to.
    fn definitions(
        &mut self,
        kinds: &BTreeMap<&'static str, Vec<Value>>,
    ) -> serde_json::Map<String, Value> {
        let mut out = serde_json::Map::new();
        while let Some(id) = self.wanted.pop() {
            let mut schema = self.schema(builtin(id));
            if let Some(kinds) = kinds.get(type_name(id)) {
                schema["x-kubernetes-group-version-kind"] = kinds.clone().into();
            }
            out.insert(type_name(id).to_owned(), schema);
        }
        out
    }
}

fn kind_of(resource: &Resource, kind: &str) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": kind})
}

/// The name of a custom resource's type: its group backwards, version, kind.
fn custom_name(resource: &Resource, kind: &str) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').rev().collect();
    parts.push(&resource.version);
    parts.push(kind);
    parts.join(".")
}

/// A document without resources.
pub fn empty() -> Value {
    json!({
        "openapi": "3.0.0", "info": info(), "paths": {}, "components": {"schemas": {}},
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

/// The types and paths of one group and version; `None` when there is no such.
pub fn v3(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let (_, entries) = registry
        .group(group)?
        .versions
        .iter()
        .find(|(v, _)| v == version)?;
    let mut types = Types::new("#/components/schemas/");
    let mut kinds: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
    let mut own = serde_json::Map::new();
    let mut paths = serde_json::Map::new();
    let meta = builtin_by_gvk("", "v1", "Pod")
        .and_then(|pod| builtin(pod).properties.get("metadata").cloned());
    for entry in entries {
        let resource = &entry.resource;
        let reference = match &resource.schema {
            Link::Builtin(id) => {
                let gvk = kind_of(resource, &resource.kind);
                let known = kinds.entry(type_name(*id)).or_default();
                if !known.contains(&gvk) {
                    known.push(gvk);
                }
                types.reference(*id)
            }
            Link::Owned(schema) => {
                let name = custom_name(resource, &resource.kind);
                own.insert(
                    name.clone(),
                    custom(&mut types, resource, schema, meta.as_ref()),
                );
                format!("#/components/schemas/{name}")
            }
        };
        let list = custom_name(resource, &resource.list_kind);
        let list = if resource.custom.is_some() {
            list
        } else {
            // Lists of built-in kinds stand beside them: the type's name and `List`.
            reference
                .trim_start_matches("#/components/schemas/")
                .to_owned()
                + "List"
        };
        if resource.allows("list") {
            own.insert(
                list.clone(),
                json!({
                    "type": "object",
                    "required": ["items"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "items": {"type": "array", "items": {"$ref": reference}},
                    },
                    "x-kubernetes-group-version-kind": [kind_of(resource, &resource.list_kind)],
                }),
            );
        }
        add_paths(
            &mut paths,
            resource,
            &reference,
            &format!("#/components/schemas/{list}"),
        );
    }
    let mut schemas = types.definitions(&kinds);
    schemas.extend(own);
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// A custom resource's schema as its author wrote it, with the fields that every object has.
fn custom(types: &mut Types, resource: &Resource, schema: &Schema, meta: Option<&Link>) -> Value {
    let mut out = schema
        .source
        .clone()
        .filter(Value::is_object)
        .unwrap_or_else(|| types.schema(schema));
    if !out["properties"].is_object() {
        out["properties"] = json!({});
    }
    out["type"] = "object".into();
    out["properties"]["apiVersion"] = json!({"type": "string"});
    out["properties"]["kind"] = json!({"type": "string"});
    if let Some(meta) = meta {
        out["properties"]["metadata"] = types.link(meta);
    }
    out["x-kubernetes-group-version-kind"] = json!([kind_of(resource, &resource.kind)]);
    out
}

fn parameter(name: &str, kind: &str) -> Value {
    json!({
        "name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true},
    })
}

fn writing() -> Vec<Value> {
    ["dryRun", "fieldManager", "fieldValidation"]
        .iter()
        .map(|name| parameter(name, "string"))
        .collect()
}

fn upper(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|c| c.to_ascii_uppercase())
        .into_iter()
        .chain(letters)
        .collect()
}

/// `AppsV1`, `CoreV1`, `RbacAuthorizationV1`.
fn operation_group(resource: &Resource) -> String {
    let group = match resource.group.as_str() {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    let group: String = group.split('.').map(upper).collect();
    format!("{group}{}", upper(&resource.version))
}

fn add_paths(
    paths: &mut serde_json::Map<String, Value>,
    resource: &Resource,
    object: &str,
    list: &str,
) {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let place = if resource.namespaced() {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{root}{place}/{}", resource.plural);
    let item = format!("{collection}/{{name}}");
    let scope = if resource.namespaced() {
        "Namespaced"
    } else {
        ""
    };
    let name = format!("{}{scope}{}", operation_group(resource), resource.kind);
    let gvk = kind_of(resource, &resource.kind);
    let content = |schema: &str| json!({"application/json": {"schema": {"$ref": schema}}});
    let operation = |verb: &str, action: &str, parameters: Vec<Value>, answer: &str, body: bool| {
        let mut operation = json!({
            "operationId": format!("{verb}{name}"),
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": content(answer)}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        });
        if body {
            operation["requestBody"] = json!({"required": true, "content": content(object)});
        }
        operation
    };
    let selectors = || {
        vec![
            parameter("labelSelector", "string"),
            parameter("fieldSelector", "string"),
            parameter("limit", "integer"),
            parameter("continue", "string"),
            parameter("resourceVersion", "string"),
            parameter("watch", "boolean"),
        ]
    };
    let mut whole = json!({});
    if resource.allows("list") {
        whole["get"] = operation("list", "list", selectors(), list, false);
    }
    if resource.allows("create") {
        whole["post"] = operation("create", "post", writing(), object, true);
    }
    if resource.allows("deletecollection") {
        whole["delete"] = operation(
            "deleteCollection",
            "deletecollection",
            selectors(),
            object,
            false,
        );
    }
    let mut one = json!({});
    if resource.allows("get") {
        one["get"] = operation("read", "get", vec![], object, false);
    }
    if resource.allows("update") {
        one["put"] = operation("replace", "put", writing(), object, true);
    }
    if resource.allows("patch") {
        let mut parameters = writing();
        parameters.push(parameter("force", "boolean"));
        one["patch"] = operation("patch", "patch", parameters, object, false);
        one["patch"]["requestBody"] = json!({"required": true, "content": {
            "application/apply-patch+yaml": {"schema": {"type": "object"}},
            "application/json-patch+json": {"schema": {"type": "object"}},
            "application/merge-patch+json": {"schema": {"type": "object"}},
        }});
    }
    if resource.allows("delete") {
        one["delete"] = operation(
            "delete",
            "delete",
            vec![parameter("dryRun", "string")],
            object,
            false,
        );
    }
    let place = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let mut named = vec![place("name")];
    if resource.namespaced() {
        named.push(place("namespace"));
        whole["parameters"] = json!([place("namespace")]);
    }
    if whole
        .as_object()
        .is_some_and(|w| w.keys().any(|k| k != "parameters"))
    {
        paths.insert(collection, whole);
    }
    if one.as_object().is_some_and(|o| !o.is_empty()) {
        one["parameters"] = named.into();
        paths.insert(item, one);
    }
}

/// All types in one document of the older form. Clients that need its paths have v3.
pub fn v2(registry: &Registry) -> Value {
    let mut types = Types::new("#/definitions/");
    let mut kinds: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
    let mut own = serde_json::Map::new();
    for entry in registry
        .groups
        .iter()
        .flat_map(|g| &g.versions)
        .flat_map(|(_, e)| e)
    {
        let resource = &entry.resource;
        match &resource.schema {
            Link::Builtin(id) => {
                types.reference(*id);
                kinds
                    .entry(type_name(*id))
                    .or_default()
                    .push(kind_of(resource, &resource.kind));
            }
            Link::Owned(schema) => {
                let name = custom_name(resource, &resource.kind);
                own.insert(name, custom(&mut types, resource, schema, None));
            }
        }
    }
    let mut definitions = types.definitions(&kinds);
    definitions.extend(own);
    json!({
        "swagger": "2.0", "info": info(), "paths": {}, "definitions": definitions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_a_document_resolves() {
        let registry = Registry::new(vec![], 0);
        for group in &registry.groups {
            for (version, _) in &group.versions {
                let document = v3(&registry, &group.name, version).expect("served");
                let mut refs = vec![];
                collect(&document, &mut refs);
                for reference in refs {
                    let name = reference.trim_start_matches("#/components/schemas/");
                    assert!(
                        document["components"]["schemas"].get(name).is_some(),
                        "{}/{version}: {reference}",
                        group.name
                    );
                }
            }
        }
    }

    fn collect(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(text)) = map.get("$ref") {
                    out.push(text.clone());
                }
                map.values().for_each(|v| collect(v, out));
            }
            Value::Array(list) => list.iter().for_each(|v| collect(v, out)),
            _ => {}
        }
    }
}
