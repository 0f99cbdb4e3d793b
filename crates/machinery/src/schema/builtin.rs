//! Built-in types of Kubernetes 1.36, read once from the facts table `data/definitions.json`.

use std::{collections::HashMap, sync::OnceLock};

use serde_json::Value;

use super::{Kind, Link, ListType, Schema};

/// Number of a built-in type, valid for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeId(u32);

struct Table {
    names: Vec<String>,
    schemas: Vec<Schema>,
    by_gvk: HashMap<(String, String, String), TypeId>,
}

static EMPTY: OnceLock<Schema> = OnceLock::new();

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| load(include_str!("../../data/definitions.json")))
}

/// The schema of a built-in type.
pub fn builtin(id: TypeId) -> &'static Schema {
    table()
        .schemas
        .get(id.0 as usize)
        .unwrap_or_else(|| EMPTY.get_or_init(Schema::default))
}

/// The type of a group, version and kind, `None` when Kubernetes has no such kind.
pub fn builtin_by_gvk(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    table()
        .by_gvk
        .get(&(group.to_owned(), version.to_owned(), kind.to_owned()))
        .copied()
}

/// The type's name in Kubernetes' OpenAPI, such as `io.k8s.api.core.v1.Pod`.
pub fn type_name(id: TypeId) -> &'static str {
    table().names.get(id.0 as usize).map_or("", String::as_str)
}

/// All built-in types with their names, in the table's order.
pub fn builtin_types() -> impl Iterator<Item = (&'static str, &'static Schema)> {
    let table = table();
    table.names.iter().map(String::as_str).zip(&table.schemas)
}

/// Types that stand for any JSON although the table gives them a type or none.
const ANY: [&str; 5] = [
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
];

/// Members that tell list items apart and that the API server fills in when they are left out.
const KEY_DEFAULTS: [(&str, &str, &str); 2] = [
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP"),
];

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

fn load(text: &str) -> Table {
    // The table is part of the binary: a build with a broken one fails every test.
    let root: Value = serde_json::from_str(text).unwrap_or_default();
    let empty = serde_json::Map::new();
    let definitions = root
        .get("definitions")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let names: Vec<String> = definitions.keys().cloned().collect();
    let ids: HashMap<&str, TypeId> = names
        .iter()
        .enumerate()
        .map(|(i, n)| (n.as_str(), TypeId(i as u32)))
        .collect();
    let mut by_gvk = HashMap::new();
    let mut schemas = Vec::with_capacity(names.len());
    for (name, node) in definitions {
        let mut schema = parse(node, &ids, definitions);
        schema.any_scalar = name == QUANTITY;
        schema.type_id = ids.get(name.as_str()).copied();
        for (owner, field, default) in KEY_DEFAULTS {
            if let (true, Some(Link::Owned(field))) =
                (name == owner, schema.properties.get_mut(field))
            {
                field.default = Some(Value::from(default));
            }
        }
        if ANY.contains(&name.as_str()) {
            schema = Schema {
                kind: Kind::Any,
                preserve_unknown: true,
                ..Schema::default()
            };
        }
        let text = |v: &Value, k: &str| v.get(k).and_then(Value::as_str).unwrap_or("").to_owned();
        for gvk in node
            .get("x-kubernetes-group-version-kind")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            by_gvk.insert(
                (text(gvk, "group"), text(gvk, "version"), text(gvk, "kind")),
                ids[name.as_str()],
            );
        }
        schemas.push(schema);
    }
    Table {
        names,
        schemas,
        by_gvk,
    }
}

type Definitions = serde_json::Map<String, Value>;

fn link(node: &Value, ids: &HashMap<&str, TypeId>, all: &Definitions) -> Link {
    let Some(target) = node.get("$ref").and_then(Value::as_str) else {
        return Link::Owned(Box::new(parse(node, ids, all)));
    };
    let target = target.trim_start_matches("#/definitions/");
    match (ids.get(target), all.get(target)) {
        (Some(id), _) if node.as_object().is_some_and(|o| o.len() == 1) => Link::Builtin(*id),
        // Three fields refine the type they refer to: the target's facts under their own.
        (_, Some(Value::Object(refined))) => {
            let mut refined = refined.clone();
            refined.extend(node.as_object().cloned().unwrap_or_default());
            let mut schema = parse(&Value::Object(refined), ids, all);
            schema.refines = ids.get(target).copied();
            Link::Owned(Box::new(schema))
        }
        _ => Link::Owned(Box::default()),
    }
}

fn parse(node: &Value, ids: &HashMap<&str, TypeId>, all: &Definitions) -> Schema {
    let text = |k: &str| node.get(k).and_then(Value::as_str);
    let texts = |k: &str| -> Vec<String> {
        node.get(k)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let kind = match (text("type"), text("format")) {
        (_, Some("int-or-string")) => Kind::IntOrString,
        (Some("object"), _) => Kind::Object,
        (Some("array"), _) => Kind::Array,
        (Some("string"), _) => Kind::String,
        (Some("integer"), _) => Kind::Integer,
        (Some("number"), _) => Kind::Number,
        (Some("boolean"), _) => Kind::Boolean,
        _ => Kind::Any,
    };
    let properties = node
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), link(v, ids, all)))
        .collect();
    let strategy = text("x-kubernetes-patch-strategy").unwrap_or("");
    Schema {
        kind,
        properties,
        additional: node.get("additionalProperties").map(|n| link(n, ids, all)),
        items: node.get("items").map(|n| link(n, ids, all)),
        required: texts("required"),
        format: text("format").map(str::to_owned),
        enumeration: node
            .get("enum")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        list_type: match text("x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(texts("x-kubernetes-list-map-keys")),
            _ => ListType::Atomic,
        },
        atomic_map: text("x-kubernetes-map-type") == Some("atomic"),
        patch_strategies: strategy
            .split(',')
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect(),
        patch_merge_key: text("x-kubernetes-patch-merge-key").map(str::to_owned),
        ..Schema::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_containers_merge_by_name() {
        let pod = builtin(builtin_by_gvk("", "v1", "Pod").expect("Pod is built in"));
        let containers = pod
            .field("spec")
            .and_then(|s| s.field("containers"))
            .expect("containers");
        assert_eq!(containers.list_type, ListType::Map(vec!["name".into()]));
        assert_eq!(containers.patch_merge_key.as_deref(), Some("name"));
        assert!(containers.merges());
        let port = containers
            .item()
            .and_then(|c| c.field("ports"))
            .and_then(Schema::item)
            .expect("port");
        assert_eq!(port.field("protocol").map(|s| s.kind), Some(Kind::String));
    }

    #[test]
    fn a_field_may_refine_the_type_it_refers_to() {
        let volume = builtin(builtin_by_gvk("", "v1", "PersistentVolume").expect("built in"));
        let claim = volume
            .field("spec")
            .and_then(|s| s.field("claimRef"))
            .expect("claimRef");
        assert!(!claim.atomic_map, "granular here, atomic elsewhere");
        assert!(claim.field("uid").is_some());
    }

    #[test]
    fn every_reference_in_the_table_resolves() {
        let root: Value =
            serde_json::from_str(include_str!("../../data/definitions.json")).expect("json");
        let definitions = root["definitions"].as_object().expect("definitions");
        fn refs(v: &Value, out: &mut Vec<String>) {
            match v {
                Value::Object(o) => {
                    if let Some(r) = o.get("$ref").and_then(Value::as_str) {
                        out.push(r.trim_start_matches("#/definitions/").to_owned());
                    }
                    o.values().for_each(|v| refs(v, out));
                }
                Value::Array(a) => a.iter().for_each(|v| refs(v, out)),
                _ => {}
            }
        }
        let mut all = vec![];
        refs(&root, &mut all);
        for r in all {
            assert!(definitions.contains_key(&r), "{r}");
        }
    }
}
