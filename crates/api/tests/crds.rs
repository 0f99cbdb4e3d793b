//! The committed CRDs are those of the types, and are structural as Kubernetes demands.
//!
//! `UPDATE_CRDS=1 cargo test -p gantry-api` rewrites `crds/*.yaml`.

use std::path::PathBuf;

use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("crds")
        .join(format!("{name}.yaml"))
}

fn all()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    let mut all = gantry_api::crds();
    all.extend(gantry_api::scheduling_crds());
    all
}

#[test]
fn committed_crds_are_current() {
    for crd in all() {
        let file = path(&crd.spec.names.plural);
        let fresh = serde_json::to_value(&crd).unwrap();
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::write(&file, serde_saphyr::to_string(&crd).unwrap()).unwrap();
        }
        // Values, not texts: the order of a map's keys depends on what else is built beside this crate.
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        let committed: Value = serde_saphyr::from_str(&committed).unwrap();
        assert!(
            committed == fresh,
            "{} is stale: run UPDATE_CRDS=1 cargo test -p gantry-api",
            file.display()
        );
    }
}

/// The rules of structural schemas (KEP-1693): every node has a type, unless it is an
/// int-or-string or of unknown shape; value validations carry no types of their own; `properties` and
/// `additionalProperties` exclude each other; no `$ref`.
#[expect(
    clippy::unwrap_used,
    reason = "a helper of tests: clippy takes only #[test] functions for tests"
)]
fn check(schema: &Value, at: &str) {
    let schema = schema.as_object().unwrap();
    let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    for key in [
        "$ref",
        "oneOf",
        "anyOf",
        "allOf",
        "not",
        "definitions",
        "const",
        "patternProperties",
    ] {
        assert!(!schema.contains_key(key), "{at}: {key}");
    }
    if flag("x-kubernetes-int-or-string") {
        assert!(
            !schema.contains_key("type"),
            "{at}: an int-or-string has no type"
        );
    } else if !flag("x-kubernetes-preserve-unknown-fields") {
        assert!(schema.contains_key("type"), "{at}: no type");
    }
    assert!(
        !(schema.contains_key("properties") && schema.contains_key("additionalProperties")),
        "{at}: both kinds of properties"
    );
    if let Some(format) = schema.get("format") {
        assert!(
            ["int32", "int64", "date-time", "double", "byte"].contains(&format.as_str().unwrap()),
            "{at}: format {format}"
        );
    }
    for (name, child) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        check(child, &format!("{at}.{name}"));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(key) {
            check(child, &format!("{at}.{key}"));
        }
    }
}

#[test]
fn schemas_are_structural_and_documented() {
    for crd in all() {
        let kind = crd.spec.names.kind.clone();
        let crd = serde_json::to_value(&crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        check(schema, &kind);
        for part in ["spec", "status"] {
            for (name, field) in schema["properties"][part]["properties"]
                .as_object()
                .into_iter()
                .flatten()
            {
                assert!(
                    field["description"].as_str().is_some_and(|d| !d.is_empty()),
                    "{kind}.{part}.{name} has no text for kubectl explain"
                );
            }
        }
        assert!(
            crd["spec"]["names"]["categories"]
                .as_array()
                .unwrap()
                .contains(&"gantry".into()),
            "{kind}"
        );
    }
}

#[test]
fn definitions_fit_kubectl_apply() {
    // `kubectl apply` keeps the object in an annotation; annotations end at 256 KiB.
    for crd in all() {
        let size = serde_json::to_string(&crd).unwrap().len();
        assert!(
            size < 200 * 1024,
            "{} is {size} bytes",
            crd.spec.names.plural
        );
    }
}

#[test]
fn releases_print_the_columns_a_releaser_wants() {
    let release = gantry_api::crds()
        .into_iter()
        .find(|c| c.spec.names.kind == "Release")
        .unwrap();
    let columns: Vec<String> = release.spec.versions[0]
        .additional_printer_columns
        .clone()
        .unwrap()
        .into_iter()
        .map(|c| c.name.to_uppercase())
        .collect();
    assert_eq!(
        columns,
        [
            "GROUP", "PHASE", "BATCH", "UPDATED", "OUT", "IMAGE", "BY", "AGE", "MESSAGE"
        ]
    );
    assert_eq!(release.spec.names.short_names.unwrap(), ["rel"]);
}

#[test]
fn the_design_sketch_parses() {
    let group: gantry_api::Group = serde_saphyr::from_str(
        r#"
apiVersion: gantry.dev/v1alpha1
kind: Group
metadata: {name: cart-prod, namespace: shop}
spec:
  app: cart
  environment: prod
  replicas: 30
  placement: {cells: [{name: sh-a, weight: 2}, {name: bj-a}], spread: {maxSkew: 1}}
  revision:
    image: registry.example.com/shop/cart:1.4.2
    resources: {requests: {cpu: 1, memory: 2Gi}}
    env: [{name: A, value: b}]
    config: [{path: /etc/cart/cart.yaml, text: "x: 1"}]
  strategy: {ref: careful}
  availability: {maxUnavailable: 10%}
"#,
    )
    .unwrap();
    assert_eq!(group.spec.placement.cells[1].weight, 1);
    let strategy: gantry_api::Strategy = serde_saphyr::from_str(
        r#"
apiVersion: gantry.dev/v1alpha1
kind: Strategy
metadata: {name: careful, namespace: shop}
spec:
  bastion: {instances: 1, accept: Manual}
  batches: {sizes: ["10%", "30%", "60%"]}
  cellOrder: [bj-a, sh-a]
  cellsAtOnce: 1
  pause: EachBatch
  inPlace: IfPossible
  maxUnavailable: 10%
  failureTolerance: 0
  interval: 60s
  deadlines: {instance: 5m, batch: 20m, total: 4h}
  onFailure: Pause
"#,
    )
    .unwrap();
    assert_eq!(strategy.spec.interval, gantry_api::Span::seconds(60));
    let release: gantry_api::Release = serde_saphyr::from_str(
        "{apiVersion: gantry.dev/v1alpha1, kind: Release, metadata: {name: cart-prod-42}, spec: {group: cart-prod, revision: {image: 'cart:1.5.0'}}}",
    )
    .unwrap();
    assert!(release.spec.accepted_through.is_none() && !release.spec.abort);
}
