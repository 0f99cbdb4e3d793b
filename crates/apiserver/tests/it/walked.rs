//! What Kubernetes' own integration tests ask of an API server, as far as walking through them found it missing.
//! Each test names the suite that it follows; `docs/conformance.md` says which were walked.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::asking::{ask, ask_as, start};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, finalizers: &[&str], node: Option<&str>) -> Value {
    json!({
        "metadata": {"name": name, "finalizers": finalizers},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    })
}

/// `Test202StatusCode` of test/integration/apiserver.
#[tokio::test]
async fn who_asks_for_cascading_deletion_the_old_way_is_told_when_it_is_not_over() {
    let server = start().await;
    let client = server.client();
    let path = "/api/v1/namespaces/default/configmaps";
    for (name, finalizer, orphan, code) in [
        ("plain", false, None, 200),
        ("kept", true, None, 200),
        ("cascading", false, Some(false), 200),
        ("kept-cascading", true, Some(false), 202),
        ("kept-orphaning", true, Some(true), 200),
    ] {
        let finalizers: &[&str] = if finalizer { &["kube.io/dummy"] } else { &[] };
        let map = json!({"metadata": {"name": name, "finalizers": finalizers}});
        assert_eq!(ask(&client, "POST", path, map).await.0, 201, "{name}");
        let options = match orphan {
            None => Value::Null,
            Some(yes) => {
                json!({"kind": "DeleteOptions", "apiVersion": "v1", "orphanDependents": yes})
            }
        };
        let (answered, said) = ask(&client, "DELETE", &format!("{path}/{name}"), options).await;
        assert_eq!(answered, code, "{name}: {said}");
    }
    server.shutdown().await;
}

/// `TestDeletionResponseMatrix` of test/integration/apiserver: a running grace period is shortened, or nothing changes.
#[tokio::test]
async fn a_running_grace_period_is_shortened_or_left_alone() {
    let server = start().await;
    let client = server.client();
    for (number, (finalizers, options, changes)) in [
        (vec![], json!({}), false),
        (vec![], json!({"gracePeriodSeconds": 15}), true),
        (vec![], json!({"gracePeriodSeconds": 45}), false),
        (vec!["a.b/c"], json!({}), false),
        (vec!["a.b/c"], json!({"propagationPolicy": "Orphan"}), false),
        (
            vec!["a.b/c"],
            json!({"propagationPolicy": "Foreground"}),
            false,
        ),
        (vec!["a.b/c"], json!({"gracePeriodSeconds": 15}), true),
        (vec!["a.b/c"], json!({"gracePeriodSeconds": 0}), true),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("{PODS}/p{number}");
        let created = pod(&format!("p{number}"), &finalizers, Some("n"));
        assert_eq!(ask(&client, "POST", PODS, created).await.0, 201);
        let first = ask(&client, "DELETE", &path, json!({"gracePeriodSeconds": 30})).await;
        assert_eq!(first.0, 200, "{}", first.1);
        let (code, second) = ask(&client, "DELETE", &path, options.clone()).await;
        assert_eq!((code, &second["kind"]), (200, &json!("Pod")), "{second}");
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        assert_eq!(
            version(&first.1) != version(&second),
            changes,
            "{finalizers:?} {options}"
        );
        if !changes {
            assert_eq!(first.1, second, "{options}");
        }
    }
    server.shutdown().await;
}

/// `TestEvictionVersions` and `TestEvictionWithFinalizers` of test/integration/evictions.
#[tokio::test]
async fn evictions_come_in_known_versions_and_say_why_a_pod_goes() {
    let server = start().await;
    let client = server.client();
    assert_eq!(ask(&client, "POST", PODS, pod("p", &[], None)).await.0, 201);
    let path = format!("{PODS}/p/eviction");
    let eviction = |version: &str, options: Value| {
        let mut eviction = json!({"metadata": {"name": "p"}, "deleteOptions": options});
        if !version.is_empty() {
            eviction["apiVersion"] = version.into();
            eviction["kind"] = "Eviction".into();
        }
        eviction
    };
    for version in ["", "policy/v1", "policy/v1beta1"] {
        let dry = eviction(version, json!({"dryRun": ["All"]}));
        let (code, said) = ask(&client, "POST", &path, dry).await;
        assert_eq!((code, &said["kind"]), (201, &json!("Status")), "{said}");
    }
    let (code, said) = ask(&client, "POST", &path, eviction("policy/v2", json!({}))).await;
    assert_eq!(code, 400);
    assert!(
        said["message"]
            .as_str()
            .is_some_and(|m| m.contains("policy/v2")),
        "{said}"
    );
    assert_eq!(ask(&client, "GET", &path, Value::Null).await.0, 405);
    for (name, phase, dry, told) in [
        ("ended", "Succeeded", false, true),
        ("running", "Running", false, true),
        ("tried", "Running", true, false),
    ] {
        let created = pod(name, &["test.k8s.io/finalizer"], None);
        assert_eq!(ask(&client, "POST", PODS, created).await.0, 201);
        let own = format!("{PODS}/{name}");
        let status = json!({"status": {"phase": phase}});
        let reported = ask(&client, "PATCH", &format!("{own}/status"), status).await;
        assert_eq!(reported.0, 200, "{}", reported.1);
        let options = if dry {
            json!({"dryRun": ["All"]})
        } else {
            json!({})
        };
        let mut asked = eviction("policy/v1", options);
        asked["metadata"]["name"] = name.into();
        assert_eq!(
            ask(&client, "POST", &format!("{own}/eviction"), asked)
                .await
                .0,
            201
        );
        let (_, seen) = ask(&client, "GET", &own, Value::Null).await;
        let why = seen["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten();
        let why = why.filter(|c| c["type"] == "DisruptionTarget").count();
        assert_eq!(why, usize::from(told), "{name}: {seen}");
    }
    server.shutdown().await;
}

/// `TestGetSubresourcesAsTables` and `TestTransform` of test/integration/apiserver.
#[tokio::test]
async fn a_scale_has_every_form_and_half_a_form_is_none() {
    let server = start().await;
    let client = server.client();
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let controller = json!({"metadata": {"name": "rc"}, "spec": {
        "replicas": 2, "selector": {"a": "b"}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(ask(&client, "POST", path, controller).await.0, 201);
    let scale = format!("{path}/rc/scale");
    let get = |accept: &'static str, path: String| {
        let client = client.clone();
        async move {
            let (code, _, value) = ask_as(
                &client,
                "GET",
                &path,
                ("application/json", accept),
                Value::Null,
            )
            .await;
            (code, value)
        }
    };
    let table = get(
        "application/json;as=Table;g=meta.k8s.io;v=v1",
        scale.clone(),
    )
    .await;
    assert_eq!((table.0, &table.1["kind"]), (200, &json!("Table")));
    let rows = &table.1["rows"];
    assert_eq!(rows[0]["cells"][0], "rc");
    assert_eq!(rows[0]["object"]["kind"], "PartialObjectMetadata");
    let columns = table.1["columnDefinitions"].as_array().map(Vec::len);
    assert_eq!(columns, Some(2));
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let metadata = get(metadata, scale.clone()).await;
    assert_eq!(
        (metadata.0, &metadata.1["kind"]),
        (200, &json!("PartialObjectMetadata"))
    );
    assert!(metadata.1.get("spec").is_none());
    let half = get("application/json;g=meta.k8s.io;v=v1", format!("{path}/rc")).await;
    assert_eq!(half.0, 406, "{}", half.1);
    server.shutdown().await;
}

/// `TestDedupOwnerReferences` of test/integration/apiserver.
#[tokio::test]
async fn an_owner_named_twice_is_kept_once_and_told_of() {
    let server = start().await;
    let client = server.client();
    let path = "/api/v1/namespaces/default/configmaps";
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o",
        "uid": "11111111-1111-1111-1111-111111111111"});
    let map = json!({"metadata": {"name": "d", "ownerReferences": [owner, owner]}});
    let plain = "application/json";
    let (code, headers, mut made) = ask_as(&client, "POST", path, (plain, plain), map).await;
    let warnings = |headers: &HeaderMap| -> Vec<String> {
        let all = headers.get_all("warning").iter();
        all.filter_map(|w| w.to_str().ok().map(str::to_owned))
            .collect()
    };
    assert_eq!(code, 201);
    assert_eq!(made["metadata"]["ownerReferences"], json!([owner]));
    let told = warnings(&headers);
    assert!(
        told.len() == 1 && told[0].contains("contains duplicate entries; API"),
        "{told:?}"
    );
    made["metadata"]["ownerReferences"] = json!([owner, owner]);
    let own = format!("{path}/d");
    let (code, headers, _) = ask_as(&client, "PUT", &own, (plain, plain), made).await;
    assert_eq!((code, warnings(&headers).len()), (200, 1));
    let patch = json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner}]);
    let media = ("application/json-patch+json", plain);
    let (code, headers, patched) = ask_as(&client, "PATCH", &own, media, patch).await;
    assert_eq!(
        (code, &patched["metadata"]["ownerReferences"]),
        (200, &json!([owner]))
    );
    let told = warnings(&headers);
    let late = "duplicate entries after mutating admission happens; API";
    assert!(told.len() == 1 && told[0].contains(late), "{told:?}");
    server.shutdown().await;
}

/// `TestDryRun` of test/integration/dryrun, of the one kind of all that was refused.
#[tokio::test]
async fn a_flow_schema_without_a_precedence_gets_one() {
    let server = start().await;
    let client = server.client();
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    for (name, given) in [("a", Value::Null), ("b", json!(0)), ("c", json!(7))] {
        let level = json!({"name": "workload-low"});
        let spec = json!({"priorityLevelConfiguration": level, "matchingPrecedence": given});
        let body = json!({"metadata": {"name": name}, "spec": spec});
        let (code, said) = ask(&client, "POST", path, body).await;
        let expected = if name == "c" { 7 } else { 1000 };
        let found = &said["spec"]["matchingPrecedence"];
        assert_eq!((code, found), (201, &json!(expected)), "{said}");
    }
    server.shutdown().await;
}

/// Bodies may have 3 MiB; what etcd would not take of them is refused in its words. Who owns which field is
/// given up first.
#[tokio::test]
async fn objects_have_the_size_that_etcd_has_room_for() {
    let server = start().await;
    let client = server.client();
    let pod = |name: &str, arg: String| {
        json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "i", "args": [arg]}]}})
    };
    let pods = "/api/v1/namespaces/default/pods";
    let large = pod("large", "x".repeat(1600 * 1024));
    let (code, said) = ask(&client, "POST", pods, large).await;
    assert_eq!(code, 500, "{said}");
    let message = said["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("etcdserver: request is too large"),
        "{message}"
    );
    // Escapes are of JSON, not of what Kubernetes stores.
    let (code, _) = ask(
        &client,
        "POST",
        pods,
        pod("lines", "\n".repeat(1400 * 1024)),
    )
    .await;
    assert_eq!(code, 201);
    let (code, _) = ask(&client, "GET", &format!("{pods}/large"), Value::Null).await;
    assert_eq!(code, 404);
    // An update that goes beyond it changes nothing.
    let (_, small) = ask(&client, "POST", pods, pod("small", "x".to_owned())).await;
    let grown = json!({"metadata": {"annotations": {"a": "b"}}, "status": {"message": "x".repeat(1600 * 1024)}});
    let path = format!("{pods}/small/status");
    let (code, _, _) = ask_as(
        &client,
        "PATCH",
        &path,
        ("application/merge-patch+json", "application/json"),
        grown,
    )
    .await;
    assert_eq!(code, 500);
    let (_, now) = ask(&client, "GET", &format!("{pods}/small"), Value::Null).await;
    assert_eq!(now, small);
    // A little less has room without the owners of its fields.
    let fields: Value = (0..400)
        .map(|i| (format!("key-{i:04}"), json!("x")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let tight = json!({"metadata": {"name": "tight", "annotations": fields}, "spec": {"containers": [
        {"name": "c", "image": "i", "args": ["x".repeat(1536 * 1024 - 7_500)]}]}});
    let (code, made) = ask(&client, "POST", pods, tight).await;
    assert_eq!(code, 201, "{}", made["message"]);
    assert!(made["metadata"].get("managedFields").is_none());
    server.shutdown().await;
}

/// `TestMutatingAdmissionPolicy`: a policy may be for all operations that have an object to change.
#[tokio::test]
async fn a_mutating_policy_is_for_all_operations_but_deletions() {
    let server = start().await;
    let client = server.client();
    let api = "/apis/admissionregistration.k8s.io/v1";
    let policy = |operation: &str| {
        let rule = json!({"operations": [operation], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
        let expression = "Object{metadata: Object.metadata{labels: {'a': request.operation}}}";
        let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
        json!({"metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [rule]}, "mutations": [mutation], "reinvocationPolicy": "Never",
        }})
    };
    let policies = format!("{api}/mutatingadmissionpolicies");
    for (operation, code) in [("DELETE", 422), ("*", 201)] {
        let (answered, said) = ask(&client, "POST", &policies, policy(operation)).await;
        assert_eq!(answered, code, "{operation}: {said}");
    }
    let bindings = format!("{api}/mutatingadmissionpolicybindings");
    let binding = json!({"metadata": {"name": "p"}, "spec": {"policyName": "p"}});
    assert_eq!(ask(&client, "POST", &bindings, binding).await.0, 201);
    let maps = "/api/v1/namespaces/default/configmaps";
    let (_, map) = ask(&client, "POST", maps, json!({"metadata": {"name": "m"}})).await;
    assert_eq!(map["metadata"]["labels"], json!({"a": "CREATE"}));
    let change = json!({"data": {"a": "b"}});
    let map = format!("{maps}/m");
    let (_, changed) = ask(&client, "PATCH", &map, change).await;
    assert_eq!(changed["metadata"]["labels"], json!({"a": "UPDATE"}));
    assert_eq!(ask(&client, "DELETE", &map, Value::Null).await.0, 200);
    server.shutdown().await;
}
