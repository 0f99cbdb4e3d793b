//! From a definition to the resources it serves.

use std::hash::{Hash, Hasher};

use serde_json::Value;

use super::{
    causes::required,
    structural::{compile, text},
};
use crate::{
    resource::{Custom, PrinterColumn, Resource, ScalePaths, Scope, Subresource},
    schema::{Link, Schema},
    status::Cause,
};

/// The versions of a definition that [`super::validate_definition`] let pass, also those that are
/// not served: objects may be stored in them, and managers may have written in them.
///
/// # Errors
/// What the definition lacks to be served at all.
pub fn resources(crd: &Value) -> Result<Vec<Resource>, Vec<Cause>> {
    let spec = crd.get("spec").unwrap_or(&Value::Null);
    let names = spec.get("names").unwrap_or(&Value::Null);
    let group = text(spec, "group");
    let (plural, kind) = (text(names, "plural"), text(names, "kind"));
    let missing: Vec<Cause> = [
        (group, "spec.group"),
        (plural, "spec.names.plural"),
        (kind, "spec.names.kind"),
    ]
    .into_iter()
    .filter(|(value, _)| value.is_empty())
    .map(|(_, field)| required(field, ""))
    .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let texts = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array);
        items
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let or = |value: &str, other: String| match value {
        "" => other,
        given => given.to_owned(),
    };
    let versions: Vec<&Value> = spec
        .get("versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let storage = versions
        .iter()
        .find(|v| v["storage"] == true)
        .map_or("", |v| text(v, "name"));
    Ok(versions
        .iter()
        .map(|version| {
            let custom = custom(crd, version, storage);
            Resource {
                group: group.to_owned(),
                version: text(version, "name").to_owned(),
                plural: plural.to_owned(),
                singular: or(text(names, "singular"), kind.to_lowercase()),
                kind: kind.to_owned(),
                list_kind: or(text(names, "listKind"), format!("{kind}List")),
                scope: match text(spec, "scope") {
                    "Cluster" => Scope::Cluster,
                    _ => Scope::Namespaced,
                },
                verbs: [
                    "delete",
                    "deletecollection",
                    "get",
                    "list",
                    "patch",
                    "create",
                    "update",
                    "watch",
                ]
                .map(str::to_owned)
                .to_vec(),
                short_names: texts(names.get("shortNames")),
                categories: texts(names.get("categories")),
                subresources: subresources(&custom, kind),
                schema: Link::Owned(Box::new(schema(version))),
                custom: Some(custom),
            }
        })
        .collect())
}

fn schema(version: &Value) -> Schema {
    match version.pointer("/schema/openAPIV3Schema") {
        Some(json) => compile(json),
        // Definitions converted from old times may have no schema: nothing is known.
        None => compile(&serde_json::json!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
        })),
    }
}

fn custom(crd: &Value, version: &Value, storage: &str) -> Custom {
    let list = |name: &str| {
        let items = version.get(name).and_then(Value::as_array);
        items.into_iter().flatten()
    };
    let scale = version.pointer("/subresources/scale").map(|scale| {
        let selector = text(scale, "labelSelectorPath");
        ScalePaths {
            spec_replicas: text(scale, "specReplicasPath").to_owned(),
            status_replicas: text(scale, "statusReplicasPath").to_owned(),
            label_selector: (!selector.is_empty()).then(|| selector.to_owned()),
        }
    });
    Custom {
        definition: crd
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned(),
        storage_version: storage.to_owned(),
        served: version["served"] == true,
        terminating: crd.pointer("/metadata/deletionTimestamp").is_some(),
        columns: list("additionalPrinterColumns")
            .map(|column| PrinterColumn {
                name: text(column, "name").to_owned(),
                kind: text(column, "type").to_owned(),
                format: text(column, "format").to_owned(),
                description: text(column, "description").to_owned(),
                priority: column
                    .get("priority")
                    .and_then(Value::as_i64)
                    .and_then(|p| i32::try_from(p).ok())
                    .unwrap_or(0),
                json_path: text(column, "jsonPath").to_owned(),
            })
            .collect(),
        scale,
        has_status: version
            .pointer("/subresources/status")
            .is_some_and(|s| !s.is_null()),
        selectable_fields: list("selectableFields")
            .map(|field| text(field, "jsonPath").to_owned())
            .collect(),
        deprecated: version["deprecated"] == true,
        deprecation_warning: version
            .get("deprecationWarning")
            .and_then(Value::as_str)
            .map(str::to_owned),
        print: {
            let mut hasher = std::hash::DefaultHasher::new();
            crd["spec"].to_string().hash(&mut hasher);
            let names = crd.pointer("/status/acceptedNames");
            names.map(Value::to_string).hash(&mut hasher);
            hasher.finish()
        },
        conversion: (text(&crd["spec"]["conversion"], "strategy") == "Webhook")
            .then(|| std::sync::Arc::new(crd["spec"]["conversion"]["webhook"].clone())),
    }
}

fn subresources(custom: &Custom, kind: &str) -> Vec<Subresource> {
    let verbs = || ["get", "patch", "update"].map(str::to_owned).to_vec();
    let mut all = Vec::new();
    if custom.has_status {
        all.push(Subresource {
            name: "status".to_owned(),
            kind: kind.to_owned(),
            group: String::new(),
            version: String::new(),
            verbs: verbs(),
        });
    }
    if custom.scale.is_some() {
        all.push(Subresource {
            name: "scale".to_owned(),
            kind: "Scale".to_owned(),
            group: "autoscaling".to_owned(),
            version: "v1".to_owned(),
            verbs: verbs(),
        });
    }
    all
}
