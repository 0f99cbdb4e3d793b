//! What Kubernetes' own suite for kubectl (its `test/cmd` folder) expects of the server and no other
//! test looks at: where walking it found a difference, it is kept here.

use serde_json::{Value, json};

use crate::kubectl::harness::{Kubectl, pod, session};

/// An object as the server has it.
fn got(k: &Kubectl, line: &str) -> Value {
    let text = k.says(&format!("get {line} -o json"), "");
    serde_json::from_str(&text).unwrap()
}

fn definition(plural: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.company.example")},
        "spec": {
            "group": "company.example", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_the_suite_of_kubectl_reads() {
    session(|k| {
        // An autoscaler that says of no metric what it is to keep watches the processor.
        k.says(
            "create deployment web --image=web:1 --replicas=1",
            "created",
        );
        k.says("autoscale deployment web --min=2 --max=3", "autoscaled");
        let target = "{.spec.metrics[0].resource.target.averageUtilization}";
        let line = format!("get hpa.v2.autoscaling web -o jsonpath={target}");
        assert_eq!(k.says(&line, ""), "80");

        // Version 0 is any version.
        let node = |note: &str, version: Value| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {
                "name": "bare", "annotations": {"note": note}, "resourceVersion": version}})
        };
        k.takes(
            "create -f -",
            &node("a", Value::Null).to_string(),
            "created",
        );
        for (line, note) in [
            ("replace --dry-run=server -f -", "a"),
            ("replace -f -", "b"),
        ] {
            k.takes(line, &node("b", json!("0")).to_string(), "replaced");
            assert_eq!(got(k, "node bare")["metadata"]["annotations"]["note"], note);
        }
        k.says("delete node bare", "deleted");
        // Where a version has to be given, this gives none.
        k.takes(
            "create -f -",
            &definition("foos", "Foo").to_string(),
            "created",
        );
        k.says(
            "wait --for=condition=Established crd/foos.company.example",
            "met",
        );
        let foo = |version: Value| {
            json!({"apiVersion": "company.example/v1", "kind": "Foo",
                "metadata": {"name": "one", "resourceVersion": version}})
        };
        k.takes("create -f -", &foo(Value::Null).to_string(), "created");
        let said = k.fed(&["replace", "-f", "-"], &foo(json!("0")).to_string());
        assert!(
            said.code == 1 && said.text.contains("must be specified for an update"),
            "{}",
            said.text
        );

        // What a strategic merge patch made and is no pod.
        k.applied(&pod("one"));
        let patch = r#"{"metadata":{"labels":"invalid"}}"#;
        let said = k.fed(&["patch", "pod", "one", "-p", patch], "");
        let shown = "map[metadata:map[labels:invalid]]\": cannot restore map from string";
        assert!(said.code == 1 && said.text.contains(shown), "{}", said.text);

        // Who applies one address leaves the list to the server.
        let service = |address: &str| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fixed"},
                "spec": {"clusterIP": address, "ports": [{"port": 80}]}})
        };
        let range = got(k, "service kubernetes")["spec"]["clusterIP"].clone();
        let prefix = range
            .as_str()
            .unwrap()
            .rsplit_once('.')
            .unwrap()
            .0
            .to_owned();
        let (first, second) = (format!("{prefix}.211"), format!("{prefix}.212"));
        k.applied(&service(&first));
        let said = k.fed(&["apply", "-f", "-"], &service(&second).to_string());
        assert!(
            said.text.contains("may not change once set"),
            "{}",
            said.text
        );
        k.takes("apply --force -f -", &service(&second).to_string(), "");
        assert_eq!(
            got(k, "service fixed")["spec"]["clusterIPs"],
            json!([second])
        );
    })
    .await;
}

/// A list is checked by kubectl itself, which reads version 2 of OpenAPI for that.
#[tokio::test(flavor = "multi_thread")]
async fn lists_of_custom_resources_pass_kubectls_own_validation() {
    session(|k| {
        for (plural, kind) in [("foos", "Foo"), ("bars", "Bar")] {
            k.takes(
                "create -f -",
                &definition(plural, kind).to_string(),
                "created",
            );
            let line = format!("wait --for=condition=Established crd/{plural}.company.example");
            k.says(&line, "met");
        }
        let list = |extra: Value| {
            let items: Vec<Value> = ["Foo", "Bar"]
                .iter()
                .map(|kind| {
                    let mut item = json!({"apiVersion": "company.example/v1", "kind": kind,
                        "metadata": {"name": "listed"}, "someField": "field1"});
                    item["nested"] = extra.clone();
                    item
                })
                .collect();
            json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
        };
        k.comes_to("get foos,bars", "");
        k.takes("apply -f -", &list(json!({"a": 1})), "created");
        k.takes("apply -f -", &list(json!({"b": [2]})), "configured");
        for kind in ["foos", "bars"] {
            let object = got(k, &format!("{kind} listed"));
            assert_eq!(object["nested"], json!({"b": [2]}), "{kind}");
        }
        // Text that scripts look for.
        let core = k.says("get --raw /api/v1", "");
        let maps = concat!(
            r#"{"name":"configmaps","singularName":"configmap","namespaced":true,"#,
            r#""kind":"ConfigMap","verbs":["create","delete","deletecollection","get","list","#,
            r#""patch","update","watch"],"shortNames":["cm"],"storageVersionHash":"#
        );
        assert!(core.contains(maps), "{core}");
        let document = k.says("get --raw /openapi/v2", "List of services");
        for text in [
            "list of returned",
            "Watch for changes to the described resources",
        ] {
            assert!(document.contains(text), "{text}");
        }
    })
    .await;
}
