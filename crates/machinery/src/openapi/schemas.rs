//! The types of a document: those of its resources and all that these refer to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    resource::Resource,
    schema::{self, Kind, Link, ListType, Schema, TypeId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// Where the types of a document are.
    pub fn prefix(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The name of a resource's type: `io.k8s.api.core.v1.Pod`, `com.example.v1.Widget`.
pub fn definition_name(resource: &Resource) -> String {
    if let Link::Builtin(id) = &resource.schema {
        return schema::type_name(*id).to_owned();
    }
    let domain: Vec<&str> = resource.group.split('.').rev().collect();
    format!(
        "{}.{}.{}",
        domain.join("."),
        resource.version,
        resource.kind
    )
}

struct Collector {
    dialect: Dialect,
    done: BTreeMap<String, Value>,
}

/// All types that the resources need, by name.
pub fn collect<'a>(
    resources: impl Iterator<Item = &'a Resource>,
    dialect: Dialect,
) -> Map<String, Value> {
    let mut all = Collector {
        dialect,
        done: BTreeMap::new(),
    };
    all.meta("DeleteOptions");
    all.meta("Status");
    for resource in resources {
        let name = definition_name(resource);
        match &resource.schema {
            Link::Builtin(id) => {
                all.builtin(*id);
            }
            Link::Owned(schema) => all.custom(&name, schema),
        }
        if let Some(Value::Object(node)) = all.done.get_mut(&name) {
            node.insert("x-kubernetes-group-version-kind".into(), gvk(resource, ""));
            let selectable = resource.custom.iter().flat_map(|c| &c.selectable_fields);
            let selectable: Vec<Value> = selectable
                .map(|path| json!({"fieldPath": path.strip_prefix('.').unwrap_or(path)}))
                .collect();
            if !selectable.is_empty() {
                node.insert("x-kubernetes-selectable-fields".into(), selectable.into());
            }
        }
        all.list(&name, resource);
    }
    all.done.into_iter().collect()
}

fn open(node: &Value) -> bool {
    node.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
}

/// Takes from a custom resource's schema what version 2 cannot say, and what kubectl, which reads
/// version 2 for its own validation, would read as more than is meant.
fn version_2(node: &mut Value) {
    let open = open(node);
    let Value::Object(map) = node else { return };
    for junctor in ["allOf", "oneOf", "anyOf", "not"] {
        map.remove(junctor);
    }
    let nullable = map.remove("nullable") == Some(Value::Bool(true));
    if nullable || open {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str);
    if nullable
        || (open && kind == Some("object"))
        || (kind == Some("array") && !map.contains_key("items"))
    {
        map.remove("type");
    }
    let is_nullable = |schema: &Value| schema.get("nullable") == Some(&Value::Bool(true));
    let mut optional = vec![];
    if let Some(fields) = map.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, field) in fields {
            if is_nullable(field) {
                optional.push(Value::from(name.clone()));
            }
            version_2(field);
        }
    }
    if map.get("additionalProperties").is_some_and(is_nullable) {
        map.remove("required");
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(below) {
            version_2(below);
        }
    }
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !optional.contains(name));
        if required.is_empty() {
            map.remove("required");
        }
    }
}

fn gvk(resource: &Resource, suffix: &str) -> Value {
    json!([{"group": resource.group, "version": resource.version,
            "kind": format!("{}{suffix}", resource.kind)}])
}

impl Collector {
    fn reference(&self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.dialect.prefix())})
    }

    fn meta(&mut self, name: &str) -> Value {
        let full = format!("{META}{name}");
        if !self.done.contains_key(&full) {
            // Entered first: types refer to themselves.
            self.done.insert(full.clone(), json!({"type": "object"}));
            let found = schema::builtin_types().find(|(n, _)| *n == full);
            if let Some((_, schema)) = found {
                let node = self.node(schema);
                self.done.insert(full.clone(), node);
            }
        }
        self.reference(&full)
    }

    fn builtin(&mut self, id: TypeId) -> Value {
        let name = schema::type_name(id);
        if !self.done.contains_key(name) {
            self.done.insert(name.to_owned(), Value::Null);
            let node = self.node(schema::builtin(id));
            self.done.insert(name.to_owned(), node);
        }
        self.reference(name)
    }

    fn link(&mut self, link: &Link) -> Value {
        match link {
            Link::Builtin(id) => {
                let reference = self.builtin(*id);
                match self.dialect {
                    Dialect::V2 => reference,
                    Dialect::V3 => json!({"allOf": [reference]}),
                }
            }
            Link::Owned(schema) => self.node(schema),
        }
    }

    /// A custom resource's schema as its author wrote it, with the fields every object has.
    fn custom(&mut self, name: &str, schema: &Schema) {
        let mut node = match &schema.source {
            Some(source) => source.clone(),
            None => json!({"type": "object"}),
        };
        if self.dialect == Dialect::V2 {
            if open(&node) {
                // kubectl takes whatever is not named for an error as soon as anything is named.
                self.done.insert(name.to_owned(), json!({"type": "object"}));
                return;
            }
            version_2(&mut node);
        }
        let metadata = self.meta("ObjectMeta");
        if let Value::Object(node) = &mut node {
            let properties = node.entry("properties").or_insert_with(|| json!({}));
            properties["apiVersion"] = json!({"type": "string"});
            properties["kind"] = json!({"type": "string"});
            properties["metadata"] = match self.dialect {
                Dialect::V2 => metadata,
                Dialect::V3 => json!({"allOf": [metadata]}),
            };
        }
        self.done.insert(name.to_owned(), node);
    }

    fn list(&mut self, name: &str, resource: &Resource) {
        if !resource.allows("list") {
            return;
        }
        let metadata = self.meta("ListMeta");
        let items = self.reference(name);
        self.done.insert(
            format!("{name}List"),
            json!({
                "type": "object",
                "required": ["items"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": metadata,
                    "items": {
                        "type": "array", "items": items,
                        "description": format!("List of {}", resource.plural),
                    },
                },
                "x-kubernetes-group-version-kind": gvk(resource, "List"),
            }),
        );
    }

    fn node(&mut self, schema: &Schema) -> Value {
        let mut out = Map::new();
        let kind = match schema.kind {
            // Told below: kubectl calls such a type by its name.
            _ if schema.any_scalar && self.dialect == Dialect::V3 => "",
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::IntOrString if self.dialect == Dialect::V2 => "string",
            Kind::IntOrString | Kind::Any => "",
        };
        let mut set = |name: &str, value: Value| {
            out.insert(name.to_owned(), value);
        };
        if !kind.is_empty() {
            set("type", kind.into());
        }
        if schema.any_scalar && self.dialect == Dialect::V3 {
            set("oneOf", json!([{"type": "string"}, {"type": "number"}]));
        } else if schema.kind == Kind::IntOrString {
            set("format", "int-or-string".into());
            if self.dialect == Dialect::V3 {
                set("oneOf", json!([{"type": "integer"}, {"type": "string"}]));
            }
        } else if let Some(format) = &schema.format {
            set("format", format.clone().into());
        }
        if let Some(text) = &schema.description {
            set("description", text.clone().into());
        }
        if !schema.enumeration.is_empty() {
            set("enum", Value::Array(schema.enumeration.clone()));
        }
        if !schema.required.is_empty() {
            set("required", json!(schema.required));
        }
        if !schema.properties.is_empty() {
            let properties: Map<String, Value> = schema
                .properties
                .iter()
                .map(|(name, link)| (name.clone(), self.link(link)))
                .collect();
            set("properties", Value::Object(properties));
        }
        if let Some(values) = &schema.additional {
            set("additionalProperties", self.link(values));
        }
        if let Some(items) = &schema.items {
            set("items", self.link(items));
        }
        match &schema.list_type {
            ListType::Set => set("x-kubernetes-list-type", "set".into()),
            ListType::Map(keys) => {
                set("x-kubernetes-list-type", "map".into());
                set("x-kubernetes-list-map-keys", json!(keys));
            }
            ListType::Atomic if schema.kind == Kind::Array => {
                set("x-kubernetes-list-type", "atomic".into());
            }
            ListType::Atomic => {}
        }
        if schema.atomic_map {
            set("x-kubernetes-map-type", "atomic".into());
        }
        if !schema.patch_strategies.is_empty() {
            let strategies = schema.patch_strategies.join(",");
            set("x-kubernetes-patch-strategy", strategies.into());
        }
        if let Some(key) = &schema.patch_merge_key {
            set("x-kubernetes-patch-merge-key", key.clone().into());
        }
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_says_less() {
        let object = |properties: Value| json!({"type": "object", "properties": properties});
        for (given, left) in [
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "nullable": true}},
                    "required": ["a"]}),
                object(json!({"a": {}})),
            ),
            (
                object(
                    json!({"a": {"type": "object", "properties": {"b": {"type": "string"}},
                    "x-kubernetes-preserve-unknown-fields": true}}),
                ),
                object(json!({"a": {"x-kubernetes-preserve-unknown-fields": true}})),
            ),
            (
                object(json!({"a": {"type": "integer", "oneOf": [{"minimum": 1}], "maximum": 4}})),
                object(json!({"a": {"type": "integer", "maximum": 4}})),
            ),
            (
                json!({"type": "object", "required": ["a"],
                    "additionalProperties": {"type": "string", "nullable": true}}),
                json!({"type": "object", "additionalProperties": {}}),
            ),
        ] {
            let mut made = given.clone();
            version_2(&mut made);
            assert_eq!(made, left, "{given}");
        }
    }
}
