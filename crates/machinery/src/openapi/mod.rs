//! OpenAPI documents of what is served: version 3 for each group and version, version 2 for all.
//!
//! They hold what clients read from them: types of fields, merge facts, which kind an operation
//! serves. Built-in types carry no descriptions here (the API server adds Kubernetes' texts); custom
//! resources carry their authors'.

pub mod gnostic;
mod paths;
mod schemas;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::resource::Resource;

pub use schemas::definition_name;
use schemas::{Dialect, collect};

/// The index at `/openapi/v3`: where each group's and version's document is. `groups` are pairs of
/// group and version; `hash` makes the address change with the content.
pub fn v3_index<'a, I>(groups: I, hash: impl Fn(&str, &str) -> String) -> Value
where
    I: IntoIterator<Item = (&'a str, &'a str)>,
{
    let mut paths = Map::new();
    let mut add = |path: String, hash: String| {
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths.insert(path, json!({ "serverRelativeURL": url }));
    };
    for path in ["api", "apis", "version"] {
        add(path.into(), hash("", ""));
    }
    for (group, version) in groups {
        if group.is_empty() {
            add(format!("api/{version}"), hash(group, version));
        } else {
            add(format!("apis/{group}"), hash(group, ""));
            add(format!("apis/{group}/{version}"), hash(group, version));
        }
    }
    json!({ "paths": paths })
}

/// The version 3 document of one group and version, with the types its resources need.
pub fn v3_document(resources: &[Arc<Resource>], group: &str, version: &str) -> Value {
    let served = || {
        resources
            .iter()
            .map(Arc::as_ref)
            .filter(|r| r.group == group && r.version == version)
    };
    let mut all = Map::new();
    served().for_each(|r| paths::add(r, Dialect::V3, &mut all));
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": all,
        "components": {"schemas": collect(served(), Dialect::V3)},
    })
}

/// The version 2 document of everything served.
pub fn v2(resources: &[Arc<Resource>]) -> Value {
    let served = || resources.iter().map(Arc::as_ref);
    let mut all = Map::new();
    served().for_each(|r| paths::add(r, Dialect::V2, &mut all));
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": all,
        "definitions": collect(served(), Dialect::V2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::builtin_resources;

    /// References in a document that lead nowhere.
    fn dangling(document: &Value) -> Vec<String> {
        fn walk(root: &Value, value: &Value, out: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                        let pointer = reference.trim_start_matches('#');
                        if root.pointer(pointer).is_none() {
                            out.push(reference.to_owned());
                        }
                    }
                    map.values().for_each(|v| walk(root, v, out));
                }
                Value::Array(items) => items.iter().for_each(|v| walk(root, v, out)),
                _ => {}
            }
        }
        let mut out = Vec::new();
        walk(document, document, &mut out);
        out
    }

    #[test]
    fn references_lead_somewhere() {
        let all = builtin_resources();
        assert_eq!(dangling(&v2(all)), Vec::<String>::new());
        for (group, version) in [("", "v1"), ("apps", "v1"), ("apiextensions.k8s.io", "v1")] {
            let document = v3_document(all, group, version);
            assert_eq!(dangling(&document), Vec::<String>::new(), "{group}");
        }
    }

    #[test]
    fn what_clients_look_for() {
        let document = v3_document(builtin_resources(), "apps", "v1");
        let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
        let read = &document["paths"][path]["get"];
        assert_eq!(read["operationId"], "readAppsV1NamespacedDeployment");
        assert_eq!(read["x-kubernetes-action"], "get");
        let schema = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(schema["type"], "object");
        assert_eq!(
            schema["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
        );
        let index = v3_index([("", "v1"), ("apps", "v1")], |_, _| "0".into());
        assert_eq!(
            index["paths"]["apis/apps/v1"]["serverRelativeURL"],
            "/openapi/v3/apis/apps/v1?hash=0"
        );
    }
}
