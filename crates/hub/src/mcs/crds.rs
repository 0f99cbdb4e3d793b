//! The definitions of the Multi-Cluster Services API, for members that have none. Their shape is that of
//! `multicluster.x-k8s.io/v1alpha1`; whoever brings others has an implementation of their own, and the hub
//! keeps out.

use gantry_api::labels;
use serde_json::{Value, json};

use super::GROUP;

/// Both definitions.
pub fn all() -> [Value; 2] {
    [export(), import()]
}

fn definition(plural: &str, kind: &str, short: &str, columns: Value, schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            "labels": {labels::MANAGED_BY: labels::MANAGER},
            // Names under k8s.io are approved by the project; this API is.
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster/1645-multi-cluster-services-api"},
        },
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural.trim_end_matches('s'), "kind": kind, "shortNames": [short]},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

fn conditions() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object", "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": text, "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": text, "message": text,
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "observedGeneration": {"type": "integer", "format": "int64"},
            },
        },
    })
}

fn export() -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let schema = json!({
        "type": "object",
        "description": "The Service of the same name and namespace can be reached from the other clusters.",
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {"exportedLabels": texts, "exportedAnnotations": texts}},
            "status": {"type": "object", "properties": {"conditions": conditions()}},
        },
    });
    let column = |name: &str| json!({"name": name, "type": "string", "jsonPath": format!(".status.conditions[?(@.type==\"{name}\")].status")});
    let columns = json!([column("Valid"), column("Conflict"), {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]);
    definition("serviceexports", "ServiceExport", "svcex", columns, schema)
}

fn import() -> Value {
    let text = json!({"type": "string"});
    let schema = json!({
        "type": "object",
        "description": "A Service that one or more clusters export.",
        "properties": {
            "apiVersion": text, "kind": text, "metadata": {"type": "object"},
            "spec": {
                "type": "object", "required": ["ports", "type"],
                "properties": {
                    "type": {"type": "string", "enum": ["ClusterSetIP", "Headless"]},
                    "ips": {"type": "array", "maxItems": 2, "items": text},
                    "ports": {
                        "type": "array", "x-kubernetes-list-type": "atomic",
                        "items": {
                            "type": "object", "required": ["port"],
                            "properties": {
                                "name": text, "protocol": text, "appProtocol": text,
                                "port": {"type": "integer", "format": "int32"},
                            },
                        },
                    },
                    "sessionAffinity": text,
                    "sessionAffinityConfig": {
                        "type": "object",
                        "properties": {"clientIP": {"type": "object", "properties": {"timeoutSeconds": {"type": "integer", "format": "int32"}}}},
                    },
                },
            },
            "status": {
                "type": "object",
                "properties": {
                    "clusters": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["cluster"],
                        "items": {"type": "object", "required": ["cluster"], "properties": {"cluster": text}},
                    },
                    "conditions": conditions(),
                },
            },
        },
    });
    let columns = json!([
        {"name": "Type", "type": "string", "jsonPath": ".spec.type"},
        {"name": "IP", "type": "string", "jsonPath": ".spec.ips"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    definition("serviceimports", "ServiceImport", "svcim", columns, schema)
}
