//! Definitions of custom resources that mean harm.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;

use super::{Hostile, generate::mutate, number, send, start};

/// Definitions are input too: their schemas are read, compiled and asked.
#[tokio::test]
async fn hostile_definitions_are_refused_or_harmless() {
    let server = start().await;
    let client = server.client();
    let deep = (0..60).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}}),
    );
    let seeds = [
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string", "pattern": "^(a+)+$"},
            "b": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "c": {"type": "object", "additionalProperties": {"type": "integer"}},
            "d": {"x-kubernetes-int-or-string": true},
            "e": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "f": {"type": "integer", "default": 1, "minimum": 0, "multipleOf": 2},
        }}}}),
        deep,
    ];
    let mut rng = StdRng::seed_from_u64(number("GANTRY_HOSTILE_SEED", 1));
    let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
    for run in 0..number("GANTRY_HOSTILE_RUNS", 600) / 3 {
        let mut schema = seeds.choose(&mut rng).cloned().unwrap_or_default();
        for _ in 0..rng.random_range(0..3) {
            mutate(&mut rng, &mut schema);
        }
        let plural = format!("as{run}");
        let group = "example.com";
        let mut definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Cluster",
                "names": {"plural": plural, "singular": format!("a{run}"), "kind": format!("A{run}"), "listKind": format!("A{run}List")},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "additionalPrinterColumns": [{"name": "B", "type": "string", "jsonPath": ".spec.b[?(@.a=='b')]"}],
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.f", "statusReplicasPath": ".status.r"}},
                    "schema": {"openAPIV3Schema": schema}}],
            },
        });
        if rng.random_bool(0.3) {
            mutate(&mut rng, &mut definition);
        }
        let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let mut sent = Hostile {
            method: "POST",
            uri: crds.to_owned(),
            media: "application/json".to_owned(),
            accept: "application/json".to_owned(),
            body: definition.to_string().into_bytes(),
        };
        let code = send(&client, &sent).await.expect("answered");
        *codes.entry(code).or_default() += 1;
        sent.uri = format!("/apis/{group}/v1/{plural}");
        for name in ["x", "y"] {
            let mut object = json!({
                "apiVersion": format!("{group}/v1"), "kind": format!("A{run}"),
                "metadata": {"name": name},
                "spec": {"a": "a".repeat(5000) + "!", "b": ["x", "y"], "c": {"k": 1}, "d": "1%", "e": {"x": [1]}, "f": 2},
            });
            if name == "y" {
                mutate(&mut rng, &mut object);
            }
            sent.body = object.to_string().into_bytes();
            let code = send(&client, &sent).await.expect("answered");
            *codes.entry(code).or_default() += 1;
        }
        let list = Hostile {
            method: "GET",
            accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json".to_owned(),
            body: vec![],
            ..sent.clone()
        };
        send(&client, &list).await.expect("answered");
        let gone = Hostile {
            method: "DELETE",
            uri: format!("{crds}/{plural}.{group}"),
            body: vec![],
            ..sent
        };
        send(&client, &gone).await.expect("answered");
    }
    println!("definitions and their objects, by code: {codes:?}");
    assert!(codes.get(&201).is_some_and(|n| *n > 0), "{codes:?}");
    server.shutdown().await;
}
