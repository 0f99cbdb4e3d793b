//! Of the API's machinery: quotas, garbage, chunks, tables, field validation, custom resources, policies.

use serde_json::{Value, json};

use crate::conformance::harness::{JSON, Kube, holds, number, on_cluster, owner, pod, uid, unique};

const CRD: &str = "apiextensions.k8s.io/v1";
const CRDS: &str = "customresourcedefinitions";

fn replication(name: &str, replicas: i64) -> Value {
    json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"rc": name}, "template": {
            "metadata": {"labels": {"rc": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "nginx"}]}}}})
}

#[test]
fn a_quota_counts_and_its_limits_are_those_of_its_spec() {
    on_cluster(async |kube| {
        let scopes = [
            ("terminating", "Terminating"),
            ("lasting", "NotTerminating"),
            ("best", "BestEffort"),
        ];
        for (name, scope) in scopes {
            let quota = json!({"metadata": {"name": name}, "spec": {"hard": {"pods": "5"}, "scopes": [scope]}});
            kube.create("v1", "resourcequotas", quota).await;
        }
        let quota = json!({"metadata": {"name": "all"}, "spec": {"hard": {"pods": "3", "services.nodeports": "1",
            "count/replicasets.apps": "2", "requests.example.com/dongle": "3"}}});
        kube.create("v1", "resourcequotas", quota).await;
        let used = async |name: &str, resource: &str, wanted: &str| {
            kube.until_object("v1", "resourcequotas", name, "usage", |it| {
                it["status"]["used"][resource] == wanted
            })
            .await;
        };
        used("all", "pods", "0").await;
        let dongles = json!({"resources": {"requests": {"example.com/dongle": "2"},
            "limits": {"example.com/dongle": "2"}}});
        kube.create(
            "v1",
            "pods",
            pod(
                "a",
                json!({}),
                json!({"activeDeadlineSeconds": 3600}),
                dongles.clone(),
            ),
        )
        .await;
        kube.create("v1", "pods", pod("b", json!({}), json!({}), json!({})))
            .await;
        used("all", "requests.example.com/dongle", "2").await;
        used("all", "pods", "2").await;
        used("terminating", "pods", "1").await;
        used("lasting", "pods", "1").await;
        // Without cpu and memory, a pod is best effort whatever else it asks for.
        used("best", "pods", "2").await;
        let (code, _) = kube
            .try_create("v1", "pods", &pod("c", json!({}), json!({}), dongles))
            .await;
        assert_eq!(code, 403);
        kube.delete_with("v1", "pods", "a", json!({"gracePeriodSeconds": 0}))
            .await;
        used("all", "requests.example.com/dongle", "0").await;

        let hard = |it: &Value| it["status"]["hard"]["pods"].clone();
        let patch = json!({"status": {"hard": {"pods": "9"}}, "spec": {"hard": {"pods": "9"}}});
        let seen = kube
            .merge("v1", "resourcequotas", "all/status", patch)
            .await;
        assert_eq!(
            (hard(&seen), &seen["spec"]["hard"]["pods"]),
            (json!("9"), &json!("3"))
        );
        kube.until_object("v1", "resourcequotas", "all", "limits of the spec", |it| {
            hard(it) == "3"
        })
        .await;
    });
}

#[test]
fn owners_take_dependents_along_or_leave_them() {
    on_cluster(async |kube| {
        let rcs = "replicationcontrollers";
        let pods = async |rc: &str| kube.list("v1", "pods", &format!("rc={rc}")).await;
        let mut uids = vec![];
        for name in ["background", "foreground", "orphan", "shared"] {
            uids.push(uid(&kube.create("v1", rcs, replication(name, 4)).await));
            kube.until_object("v1", rcs, name, "pods", |it| number(it, "replicas") == 4)
                .await;
        }
        // Half of the pods have another owner besides.
        let other = uid(&kube.create("v1", rcs, replication("other", 0)).await);
        for it in &pods("shared").await[..2] {
            let name = it["metadata"]["name"].as_str().unwrap();
            let mut owners = it["metadata"]["ownerReferences"].clone();
            let more = json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "other", "uid": other});
            owners.as_array_mut().unwrap().push(more);
            kube.merge(
                "v1",
                "pods",
                name,
                json!({"metadata": {"ownerReferences": owners}}),
            )
            .await;
        }
        let policies = ["Background", "Foreground", "Orphan", "Foreground"];
        for ((name, policy), uid) in ["background", "foreground", "orphan", "shared"]
            .iter()
            .zip(policies)
            .zip(&uids)
        {
            let options = json!({"propagationPolicy": policy, "preconditions": {"uid": uid}});
            kube.delete_with("v1", rcs, name, options).await;
        }
        kube.until_gone("v1", rcs, "foreground").await;
        assert_eq!(pods("foreground").await.len(), 0);
        kube.until(
            "pods gone",
            async || pods("background").await.len(),
            |left| *left == 0,
        )
        .await;
        kube.until_gone("v1", rcs, "orphan").await;
        let orphans = pods("orphan").await;
        assert!(
            orphans.len() == 4 && orphans.iter().all(|it| owner(it).is_none()),
            "{orphans:#?}"
        );
        kube.until_gone("v1", rcs, "shared").await;
        let kept = pods("shared").await;
        assert_eq!(kept.len(), 2);
        assert!(
            kept.iter()
                .all(|it| it["metadata"].get("deletionTimestamp").is_none())
        );
    });
}

#[test]
fn a_circle_of_owners_goes_as_a_whole() {
    on_cluster(async |kube| {
        let names = ["one", "two", "three"];
        let mut uids = vec![];
        for name in names {
            uids.push(uid(&kube
                .create("v1", "pods", pod(name, json!({}), json!({}), json!({})))
                .await));
        }
        for (i, name) in names.iter().enumerate() {
            let owner = (i + 2) % 3;
            let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": names[owner], "uid": uids[owner],
                "controller": true, "blockOwnerDeletion": true}]);
            kube.merge(
                "v1",
                "pods",
                name,
                json!({"metadata": {"ownerReferences": owners}}),
            )
            .await;
        }
        let options = json!({"propagationPolicy": "Foreground", "preconditions": {"uid": uids[0]}});
        kube.delete_with("v1", "pods", "one", options).await;
        let left = async || kube.list("v1", "pods", "").await.len();
        kube.until("pods gone", left, |left| *left == 0).await;
    });
}

#[test]
fn lists_come_in_chunks_of_one_state() {
    on_cluster(async |kube| {
        for i in 0..40 {
            kube.create(
                "v1",
                "configmaps",
                json!({"metadata": {"name": format!("c{i:02}"), "labels": {"e2e": "c"}}}),
            )
            .await;
        }
        let path = kube.path("v1", "configmaps");
        let (mut seen, mut token, mut version) = (0, String::new(), Value::Null);
        loop {
            let uri = format!("{path}?labelSelector=e2e%3Dc&limit=17&continue={token}");
            let (code, list) = kube.ask("GET", &uri, &[], "").await;
            assert_eq!(code, 200, "{list:#}");
            seen += list["items"].as_array().unwrap().len();
            let meta = &list["metadata"];
            if version.is_null() {
                version = meta["resourceVersion"].clone();
                kube.create(
                    "v1",
                    "configmaps",
                    json!({"metadata": {"name": "c99", "labels": {"e2e": "c"}}}),
                )
                .await;
            }
            assert_eq!(meta["resourceVersion"], version);
            token = meta["continue"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, 40);
    });
}

#[test]
fn tables_are_for_resources_that_have_columns() {
    on_cluster(async |kube| {
        let table = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
        let (code, seen) = kube
            .ask("GET", &kube.path("v1", "nodes"), &[table], "")
            .await;
        assert_eq!((code, &seen["kind"]), (200, &json!("Table")));
        assert_eq!(seen["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        let path = kube.path("authorization.k8s.io/v1", "selfsubjectaccessreviews");
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
        let json = ("content-type", "application/json");
        let (code, seen) = kube
            .ask("POST", &path, &[table, json], &review.to_string())
            .await;
        assert_eq!((code, &seen["reason"]), (406, &json!("NotAcceptable")));
        let either = (
            "accept",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        );
        let (code, _) = kube
            .ask("POST", &path, &[either, json], &review.to_string())
            .await;
        assert_eq!(code, 201);
    });
}

#[test]
fn fields_are_complained_about_in_the_order_of_the_document() {
    on_cluster(async |kube| {
        let path = format!(
            "{}?fieldValidation=Strict",
            kube.path("apps/v1", "deployments")
        );
        let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},
            "spec":{"unknownField":"foo","replicas":2,"replicas":3,"selector":{"matchLabels":{"a":"b"}}}}"#;
        let (code, seen) = kube
            .ask("POST", &path, &[("content-type", "application/json")], body)
            .await;
        let message = seen["message"].as_str().unwrap();
        let expected = r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
        assert!(
            code == 400 && message.contains(expected),
            "{code} {message}"
        );
    });
}

/// A definition of one version; its group and plural.
async fn define(kube: &Kube, schema: Value) -> (String, String) {
    let group = format!("{}.example.com", unique("e2e"));
    let definition = json!({"metadata": {"name": format!("things.{group}")}, "spec": {"group": group,
        "scope": "Namespaced", "names": {"plural": "things", "singular": "thing", "kind": "Thing",
            "listKind": "ThingList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    kube.create(CRD, CRDS, definition).await;
    let name = format!("things.{group}");
    kube.until_object(CRD, CRDS, &name, "established", |it| {
        holds(it, "Established")
    })
    .await;
    (format!("{group}/v1"), name)
}

#[test]
fn defaults_of_a_definition_reach_objects_that_are_stored() {
    on_cluster(async |kube| {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
        let (version, definition) = define(&kube, schema).await;
        let thing = |name: &str| json!({"apiVersion": version, "kind": "Thing", "metadata": {"name": name}});
        let first = kube.create(&version, "things", thing("one")).await;
        assert_eq!(first.get("a"), None);
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties";
        let set = json!([{"op": "add", "path": format!("{path}/a/default"), "value": "A"}]);
        kube.patch(CRD, CRDS, &definition, JSON, set).await;
        kube.until_object(&version, "things", "one", "the default", |it| {
            it["a"] == "A"
        })
        .await;
        assert_eq!(
            kube.create(&version, "things", thing("two")).await["a"],
            "A"
        );
        let change = json!([{"op": "remove", "path": format!("{path}/a/default")},
            {"op": "add", "path": format!("{path}/b/default"), "value": "B"}]);
        kube.patch(CRD, CRDS, &definition, JSON, change).await;
        let seen = kube
            .until_object(&version, "things", "two", "the default", |it| {
                it["b"] == "B"
            })
            .await;
        assert_eq!(seen["a"], "A");
        // What was never written was only read so.
        assert_eq!(kube.get(&version, "things", "one").await.get("a"), None);
        let listed = kube.list(&version, "things", "").await;
        assert!(listed.iter().all(|it| it["b"] == "B"), "{listed:#?}");
        kube.delete(CRD, CRDS, &definition).await;
        kube.until_gone(CRD, CRDS, &definition).await;
    });
}

#[test]
fn a_policy_denies_by_its_expressions_and_variables() {
    on_cluster(async |kube| {
        let version = "admissionregistration.k8s.io/v1";
        let name = unique("policy");
        kube.create(version, "validatingadmissionpolicies", json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                    "operations": ["CREATE"], "resources": ["configmaps"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": kube.namespace}}},
            "variables": [{"name": "size", "expression": "size(object.data)"}],
            "validations": [{"expression": "variables.size > 1"}]}}))
            .await;
        kube.until_object(
            version,
            "validatingadmissionpolicies",
            &name,
            "checked",
            |it| it["status"]["typeChecking"].is_object(),
        )
        .await;
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
        kube.create(version, "validatingadmissionpolicybindings", binding)
            .await;
        let map = |size: usize| {
            let data: serde_json::Map<String, Value> =
                (0..size).map(|i| (format!("k{i}"), "v".into())).collect();
            json!({"metadata": {"name": unique("m")}, "data": data})
        };
        let denied = async || kube.try_create("v1", "configmaps", &map(1)).await;
        let (_, seen) = kube.until("denied", denied, |(code, _)| *code == 422).await;
        let message = seen["message"].as_str().unwrap();
        assert!(
            message.contains("failed expression: variables.size > 1"),
            "{message}"
        );
        kube.create("v1", "configmaps", map(2)).await;
        kube.delete(version, "validatingadmissionpolicybindings", &name)
            .await;
        kube.delete(version, "validatingadmissionpolicies", &name)
            .await;
    });
}
