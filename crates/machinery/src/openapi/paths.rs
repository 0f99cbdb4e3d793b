//! The operations of a document: which verbs a resource has, on which paths, with which kind.

use serde_json::{Map, Value, json};

use super::schemas::{Dialect, definition_name};
use crate::resource::Resource;

struct Operation {
    method: &'static str,
    /// `x-kubernetes-action`
    action: &'static str,
    /// First word of the operation's name.
    verb: &'static str,
    /// The verb as resources list it.
    needs: &'static str,
}

const fn operation(
    method: &'static str,
    action: &'static str,
    verb: &'static str,
    needs: &'static str,
) -> Operation {
    Operation {
        method,
        action,
        verb,
        needs,
    }
}

const LIST: Operation = operation("get", "list", "list", "list");
const CREATE: Operation = operation("post", "post", "create", "create");
const COLLECTION: [Operation; 3] = [
    LIST,
    CREATE,
    operation(
        "delete",
        "deletecollection",
        "deleteCollection",
        "deletecollection",
    ),
];
const ITEM: [Operation; 4] = [
    operation("get", "get", "read", "get"),
    operation("put", "put", "replace", "update"),
    operation("patch", "patch", "patch", "patch"),
    operation("delete", "delete", "delete", "delete"),
];
const SUBRESOURCE: [Operation; 4] = [
    operation("get", "get", "read", "get"),
    CREATE,
    operation("put", "put", "replace", "update"),
    operation("patch", "patch", "patch", "patch"),
];

/// Where operations belong: `AppsV1`, and their tag `apps_v1`.
fn scope(resource: &Resource) -> (String, String) {
    let group = match resource.group.as_str() {
        "" => "core",
        group => group.split('.').next().unwrap_or(group),
    };
    (
        format!("{}{}", capital(group), capital(&resource.version)),
        format!("{group}_{}", resource.version),
    )
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Adds a resource's paths.
pub fn add(resource: &Resource, dialect: Dialect, paths: &mut Map<String, Value>) {
    let base = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let (scope, tag) = scope(resource);
    let (kind, plural) = (&resource.kind, &resource.plural);
    // `kubectl apply` chooses by these.
    let patches = match resource.custom {
        Some(_) => &PATCHES[..3],
        None => &PATCHES,
    };
    let namespaced = if resource.namespaced() {
        "Namespaced"
    } else {
        ""
    };
    let collection = if resource.namespaced() {
        format!("{base}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{base}/{plural}")
    };
    let target = definition_name(resource);
    let own = json!({"group": resource.group, "version": resource.version, "kind": kind});
    let mut put = |path: &str,
                   ops: &[Operation],
                   verbs: &[String],
                   end: &str,
                   gvk: &Value,
                   target: Option<&str>| {
        let mut item = Map::new();
        for op in ops.iter().filter(|op| verbs.iter().any(|v| v == op.needs)) {
            let id = format!("{}{scope}{end}", op.verb);
            item.insert(
                op.method.into(),
                describe(op, &id, &tag, gvk, target, patches, dialect),
            );
        }
        if item.is_empty() {
            return;
        }
        let parameters: Vec<Value> = ["name", "namespace"]
            .iter()
            .filter(|name| path.contains(&format!("{{{name}}}")))
            .map(|name| parameter(name, "path", "string", dialect))
            .collect();
        if !parameters.is_empty() {
            item.insert("parameters".into(), Value::Array(parameters));
        }
        paths.insert(path.to_owned(), Value::Object(item));
    };
    let verbs = &resource.verbs;
    let end = format!("{namespaced}{kind}");
    put(&collection, &COLLECTION, verbs, &end, &own, Some(&target));
    if resource.namespaced() {
        let path = format!("{base}/{plural}");
        let end = format!("{kind}ForAllNamespaces");
        put(&path, &[LIST], verbs, &end, &own, Some(&target));
    }
    let one = format!("{collection}/{{name}}");
    put(&one, &ITEM, verbs, &end, &own, Some(&target));
    for sub in &resource.subresources {
        // Without a version of its own a subresource's kind is of its parent's group and version.
        let gvk = if sub.version.is_empty() {
            json!({"group": resource.group, "version": resource.version, "kind": sub.kind})
        } else {
            json!({"group": sub.group, "version": sub.version, "kind": sub.kind})
        };
        let same = (sub.kind == *kind).then_some(target.as_str());
        let path = format!("{one}/{}", sub.name);
        let end = format!("{end}{}", capital(&sub.name));
        put(&path, &SUBRESOURCE, &sub.verbs, &end, &gvk, same);
    }
}

fn parameter(name: &str, place: &str, kind: &str, dialect: Dialect) -> Value {
    let mut out = json!({"name": name, "in": place, "uniqueItems": true});
    match dialect {
        Dialect::V2 => out["type"] = kind.into(),
        Dialect::V3 => out["schema"] = json!({"type": kind, "uniqueItems": true}),
    }
    if place == "path" {
        out["required"] = true.into();
    }
    out
}

/// What a collection can be asked for: name, type, meaning.
const LISTED: [(&str, &str, &str); 10] = [
    (
        "allowWatchBookmarks",
        "boolean",
        "Whether a watch may send bookmarks, which hold a resource version and nothing else.",
    ),
    (
        "continue",
        "string",
        "The token of an answer that was cut short by limit: the list goes on from there.",
    ),
    (
        "fieldSelector",
        "string",
        "A selector that restricts the list of returned objects by their fields.",
    ),
    (
        "labelSelector",
        "string",
        "A selector that restricts the list of returned objects by their labels.",
    ),
    (
        "limit",
        "integer",
        "The most objects of one answer; where there are more it has a token to continue with.",
    ),
    (
        "resourceVersion",
        "string",
        "The resource version that the answer is to be of, or a watch is to begin after.",
    ),
    (
        "resourceVersionMatch",
        "string",
        "Whether resourceVersion is to be met exactly, or is the oldest that will do.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "Whether a watch begins with the objects that there are, and a bookmark after them.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "How long the answer may take, whether or not anything happens.",
    ),
    (
        "watch",
        "boolean",
        "Watch for changes to the described resources: events of objects added, modified and deleted, instead of a list.",
    ),
];

/// How a patch may be written; the last is for built-in kinds.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

fn describe(
    op: &Operation,
    id: &str,
    tag: &str,
    gvk: &Value,
    target: Option<&str>,
    patches: &[&str],
    dialect: Dialect,
) -> Value {
    let reference = |suffix: &str| {
        target.map(|name| json!({"$ref": format!("{}{name}{suffix}", dialect.prefix())}))
    };
    let answer = match (
        reference(if op.action == "list" { "List" } else { "" }),
        dialect,
    ) {
        (None, _) => json!({"description": "OK"}),
        (Some(schema), Dialect::V2) => json!({"description": "OK", "schema": schema}),
        (Some(schema), Dialect::V3) => {
            json!({"description": "OK", "content": {"application/json": {"schema": schema}}})
        }
    };
    let mut out = json!({
        "operationId": id,
        "tags": [tag],
        "x-kubernetes-action": op.action,
        "x-kubernetes-group-version-kind": gvk,
        "responses": {"200": answer},
    });
    let mut parameters = Vec::new();
    if matches!(op.action, "list" | "deletecollection") {
        parameters.extend(LISTED.iter().map(|(name, kind, said)| {
            let mut one = parameter(name, "query", kind, dialect);
            one["description"] = (*said).into();
            one
        }));
    }
    let body = matches!(op.action, "post" | "put" | "patch");
    // kubectl looks here for whether a request can be tried and its fields be checked.
    if !matches!(op.action, "get" | "list") {
        parameters.push(parameter("dryRun", "query", "string", dialect));
    }
    if body {
        parameters.push(parameter("fieldManager", "query", "string", dialect));
        parameters.push(parameter("fieldValidation", "query", "string", dialect));
    }
    if op.action == "patch" {
        parameters.push(parameter("force", "query", "boolean", dialect));
    }
    if body {
        let patch = op.action == "patch";
        if patch && dialect == Dialect::V2 {
            out["consumes"] = json!(patches);
        }
        let schema = reference("")
            .filter(|_| !patch)
            .unwrap_or_else(|| json!({"type": "object"}));
        if dialect == Dialect::V2 {
            parameters
                .push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
        } else {
            let types: &[&str] = if patch { patches } else { &["*/*"] };
            let content: Map<String, Value> = types
                .iter()
                .map(|t| ((*t).to_owned(), json!({"schema": schema})))
                .collect();
            out["requestBody"] = json!({"content": content, "required": true});
        }
    }
    if !parameters.is_empty() {
        out["parameters"] = Value::Array(parameters);
    }
    out
}
