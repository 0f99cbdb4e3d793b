//! Validating webhooks: which requests they see, and what their answers do.

use gantry_store::{Expect, Key, Op, Write};
use rstest::rstest;
use serde_json::{Value, json};

use crate::hooks::{
    client::{Cluster, MAPS, REGISTRATION, map},
    server::Webhook,
};

/// Denies what carries the datum `deny`, with the status that it holds.
fn deny(_: &str, request: &Value) -> Value {
    let object = [&request["object"], &request["oldObject"]];
    let datum = object.iter().find_map(|o| o["data"]["deny"].as_str());
    match datum {
        Some(status) => {
            json!({"allowed": false, "status": serde_json::from_str::<Value>(status).expect("JSON")})
        }
        None => json!({"allowed": true, "warnings": ["looked at it"]}),
    }
}

#[tokio::test]
async fn a_refusal_has_the_webhooks_words_and_code() {
    let hook = Webhook::start(deny).await;
    let cluster = Cluster::start().await;
    let config = json!({"clientConfig": hook.config("/check"), "timeoutSeconds": 7});
    cluster.configure("Validating", "v", &[config]).await;
    let status = json!({"message": "not here", "code": 403, "reason": "Forbidden"}).to_string();
    let refused = cluster.post(MAPS, &map("x", json!({"deny": status}))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "admission webhook \"h0.v.test\" denied the request: not here"
    );
    assert_eq!(refused.body["reason"], "Forbidden");
    let refused = cluster.post(MAPS, &map("x", json!({"deny": "{}"}))).await;
    assert_eq!(refused.code, 400);
    assert_eq!(
        refused.message(),
        "admission webhook \"h0.v.test\" denied the request without explanation"
    );
    let made = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(made.warnings, ["looked at it"]);
    made.ok();
    assert_eq!(hook.paths()[0], "/check?timeout=7s");
    let request = &hook.requests()[0];
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["name"], "x");
    assert_eq!(request["namespace"], "default");
    assert_eq!(request["dryRun"], false);
    assert_eq!(request["userInfo"]["username"], "system:admin");
    assert_eq!(
        request["kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    assert_eq!(
        request["requestResource"],
        json!({"group": "", "version": "v1", "resource": "configmaps"})
    );
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert_eq!(request["object"]["kind"], "ConfigMap");
    assert!(request["object"]["metadata"]["uid"].is_string());
    assert!(request["oldObject"].is_null());
    cluster.stop().await;
}

#[tokio::test]
async fn updates_patches_applies_and_deletions_are_asked_about() {
    let hook = Webhook::start(deny).await;
    let cluster = Cluster::start().await;
    let config = json!({"clientConfig": hook.config("/")});
    cluster.configure("Validating", "v", &[config]).await;
    let one = format!("{MAPS}/x");
    cluster.post(MAPS, &map("x", json!({}))).await.ok();
    cluster.put(&one, &map("x", json!({"a": "1"}))).await.ok();
    let bad = json!({"data": {"deny": "{}"}});
    assert_eq!(cluster.merge(&one, &bad).await.code, 400);
    let applied = map("x", json!({"a": "2"}));
    let apply = format!("{one}?fieldManager=m&force=true");
    cluster.apply(&apply, &applied).await.ok();
    let made = format!("{MAPS}/y?fieldManager=m");
    cluster.apply(&made, &map("y", json!({}))).await.ok();
    cluster.delete(&one).await.ok();
    cluster
        .delete(&format!("{MAPS}?labelSelector=!none"))
        .await
        .ok();
    let seen: Vec<(String, String, bool, bool)> = hook
        .requests()
        .iter()
        .map(|r| {
            (
                r["operation"].as_str().expect("one").to_owned(),
                r["name"].as_str().unwrap_or_default().to_owned(),
                r["object"].is_object(),
                r["oldObject"].is_object(),
            )
        })
        .collect();
    let expected = [
        ("CREATE", "x", true, false),
        ("UPDATE", "x", true, true),
        ("UPDATE", "x", true, true),
        ("UPDATE", "x", true, true),
        ("CREATE", "y", true, false),
        ("DELETE", "x", false, true),
        ("DELETE", "", false, true),
    ]
    .map(|(o, n, new, old)| (o.to_owned(), n.to_owned(), new, old));
    assert_eq!(seen, expected);
    cluster.stop().await;
}

#[rstest]
#[case::by_label(json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}), true)]
#[case::by_other_label(json!({"namespaceSelector": {"matchLabels": {"a": "b"}}}), false)]
#[case::object(json!({"objectSelector": {"matchLabels": {"a": "b"}}}), false)]
#[case::other_resource(json!({"rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["secrets"]}]}), false)]
#[case::all(json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]}), true)]
#[tokio::test]
async fn selectors_and_rules_choose_requests(#[case] given: Value, #[case] asked: bool) {
    let hook = Webhook::start(|_, _| json!({"allowed": false})).await;
    let cluster = Cluster::start().await;
    let mut given = given;
    given["clientConfig"] = hook.config("/");
    cluster.configure("Validating", "v", &[given]).await;
    let answer = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code == 400, asked, "{}", answer.body);
    cluster.stop().await;
}

#[rstest]
#[case::fail("Fail", 500)]
#[case::ignore("Ignore", 201)]
#[tokio::test]
async fn a_server_that_is_not_there(#[case] policy: &str, #[case] code: u16) {
    let hook = Webhook::start(deny).await;
    let mut address = hook.config("/");
    // A port that nobody listens at, and that no test beside this one is given.
    address["url"] = "https://127.0.0.1:1/".into();
    let cluster = Cluster::start().await;
    let config = json!({"clientConfig": address, "failurePolicy": policy});
    cluster.configure("Validating", "v", &[config]).await;
    let answer = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code, code, "{}", answer.body);
    if code == 500 {
        let message = answer.message();
        assert!(
            message.starts_with("Internal error occurred: failed calling webhook \"h0.v.test\": failed to call webhook: Post \"https://127.0.0.1:"),
            "{message}"
        );
        assert!(
            message.ends_with("connect: connection refused"),
            "{message}"
        );
        assert_eq!(answer.body["reason"], "InternalError");
    }
    cluster.stop().await;
}

#[rstest]
#[case::status(500, json!("broken"), "an error on the server")]
#[case::nonsense(200, json!({"a": 1}), "received invalid webhook response: webhook response was absent")]
#[tokio::test]
async fn answers_that_are_none(#[case] code: u16, #[case] body: Value, #[case] expected: &str) {
    let hook = Webhook::raw(move |_, _| (code, body.clone())).await;
    let cluster = Cluster::start().await;
    let config = json!({"clientConfig": hook.config("/")});
    cluster.configure("Validating", "v", &[config]).await;
    let answer = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code, 500);
    assert!(answer.message().contains(expected), "{}", answer.message());
    cluster.stop().await;
}

#[tokio::test]
async fn a_slow_server_is_given_up() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let hook = Webhook::start(move |_, _| {
        // Until the test is over; an answer that comes after that is nobody's.
        let _ = tokio::task::block_in_place(|| held.lock().expect("whole").recv());
        json!({"allowed": true})
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let hook = runtime.spawn(hook).await.expect("started");
    let cluster = Cluster::start().await;
    let config = json!({"clientConfig": hook.config("/"), "timeoutSeconds": 1});
    cluster.configure("Validating", "v", &[config]).await;
    let answer = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code, 500);
    let message = answer.message();
    assert!(
        message.ends_with("?timeout=1s\": context deadline exceeded"),
        "{message}"
    );
    drop(release);
    runtime.shutdown_background();
    cluster.stop().await;
}

#[tokio::test]
async fn an_unknown_authority_is_not_believed() {
    let (hook, other) = (Webhook::start(deny).await, Webhook::start(deny).await);
    let cluster = Cluster::start().await;
    let mut config = hook.config("/");
    config["caBundle"] = other.bundle.clone().into();
    let config = json!({"clientConfig": config});
    cluster.configure("Validating", "v", &[config]).await;
    let answer = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code, 500);
    let expected =
        "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert!(answer.message().ends_with(expected), "{}", answer.message());
    cluster.stop().await;
}

#[tokio::test]
async fn connections_evictions_bindings_and_scales_are_asked_about() {
    let hook = Webhook::start(|_, _| json!({"allowed": false, "status": {"message": "no"}})).await;
    let cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    cluster.post(pods, &pod).await.ok();
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template,
    }});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    cluster.post(deployments, &deployment).await.ok();
    let rules = json!([
        {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/*"]},
        {"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]},
    ]);
    let config = json!({"clientConfig": hook.config("/"), "rules": rules});
    cluster.configure("Validating", "v", &[config]).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let eviction =
        json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}});
    for (path, body) in [
        (format!("{pods}/p/attach?container=c&stdin=true"), json!({})),
        (format!("{pods}/p/exec?command=ls&command=-l"), json!({})),
        (format!("{pods}/p/binding"), binding),
        (format!("{pods}/p/eviction"), eviction),
    ] {
        let refused = cluster.post(&path, &body).await;
        assert_eq!(refused.code, 400, "{path} {}", refused.body);
        assert!(refused.message().ends_with("denied the request: no"));
    }
    let scale = json!({"spec": {"replicas": 3}});
    let refused = cluster
        .merge(&format!("{deployments}/d/scale"), &scale)
        .await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    let requests = hook.requests();
    let part = |pointer: &str| -> Vec<Value> {
        let parts = requests.iter().map(|r| r.pointer(pointer).cloned());
        parts.map(Option::unwrap_or_default).collect()
    };
    assert_eq!(
        part("/operation"),
        ["CONNECT", "CONNECT", "CREATE", "CREATE", "UPDATE"]
    );
    assert_eq!(
        part("/object/kind"),
        [
            "PodAttachOptions",
            "PodExecOptions",
            "Binding",
            "Eviction",
            "Scale"
        ]
    );
    assert_eq!(part("/kind/group"), ["", "", "", "policy", "autoscaling"]);
    assert_eq!(requests[1]["object"]["command"], json!(["ls", "-l"]));
    assert_eq!(requests[4]["object"]["spec"]["replicas"], 3);
    assert_eq!(requests[4]["oldObject"]["spec"]["replicas"], 1);
    cluster.stop().await;
}

#[tokio::test]
async fn configurations_cannot_lock_themselves_in() {
    let hook = Webhook::start(|_, _| json!({"allowed": false})).await;
    let cluster = Cluster::start().await;
    let all = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    let config = json!({"clientConfig": hook.config("/"), "rules": all});
    cluster
        .configure("Validating", "v", std::slice::from_ref(&config))
        .await;
    cluster.configure("Mutating", "m", &[config]).await;
    for path in [
        "mutatingwebhookconfigurations/m",
        "validatingwebhookconfigurations/v",
    ] {
        cluster.delete(&format!("{REGISTRATION}/{path}")).await.ok();
    }
    assert_eq!(hook.requests().len(), 0);
    cluster.post(MAPS, &map("x", json!({}))).await.ok();
    cluster.stop().await;
}

#[tokio::test]
async fn a_service_leads_to_its_endpoints() {
    let hook = Webhook::start(deny).await;
    let cluster = Cluster::start().await;
    let service = json!({"metadata": {"name": "hook"}, "spec": {"clusterIP": "None", "ports": [{"port": 443, "targetPort": 9443}]}});
    cluster
        .post("/api/v1/namespaces/default/services", &service)
        .await
        .ok();
    let reference = json!({"service": {"name": "hook", "namespace": "default", "path": "/x"}, "caBundle": hook.bundle});
    let config = json!({"clientConfig": reference});
    cluster.configure("Validating", "v", &[config]).await;
    let slice = json!({
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
        "ports": [{"name": "", "port": hook.address.port(), "protocol": "TCP"}],
    });
    // The API refuses addresses of this machine as endpoints, and the test's server is on this
    // machine: the slice goes past the API.
    let write = Write {
        key: Key::new("discovery.k8s.io/endpointslices", "default/hook-1"),
        expect: Expect::Absent,
        op: Op::Put {
            value: slice.to_string().into(),
            stamp: None,
        },
    };
    let refused = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(
        refused.message(),
        "Internal error occurred: failed calling webhook \"h0.v.test\": failed to call webhook: Post \"https://hook.default.svc:443/x?timeout=10s\": no endpoints available for service \"hook\""
    );
    cluster.store.commit(write).await.expect("written");
    cluster.post(MAPS, &map("x", json!({}))).await.ok();
    assert_eq!(hook.paths(), ["/x?timeout=10s"]);
    cluster.stop().await;
}

#[rstest]
#[case::its_name("localhost", None)]
#[case::another_name("elsewhere", Some("certificate not valid for name"))]
#[tokio::test]
async fn a_self_signed_certificate_is_believed_where_it_is_the_bundle(
    #[case] name: &str,
    #[case] wrong: Option<&str>,
) {
    let allow = |_: &str, review: &Value| {
        let response = json!({"uid": review["request"]["uid"], "allowed": true});
        let answer = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response,
        });
        (200, answer)
    };
    let hook = Webhook::self_signed(allow, name).await;
    let cluster = Cluster::start().await;
    let url = format!("https://localhost:{}/", hook.address.port());
    let config = json!({"clientConfig": {"url": url, "caBundle": hook.bundle}});
    cluster.configure("Validating", "v", &[config]).await;
    let answer = cluster.post(MAPS, &map("x", json!({}))).await;
    match wrong {
        None => {
            answer.ok();
        }
        Some(wrong) => assert!(answer.message().contains(wrong), "{}", answer.message()),
    }
    cluster.stop().await;
}

#[tokio::test]
async fn reviews_and_statuses_are_asked_about_like_other_writes() {
    let hook = Webhook::start(|_, _| json!({"allowed": false, "status": {"message": "no"}})).await;
    let cluster = Cluster::start().await;
    let namespace = json!({"metadata": {"name": "team"}});
    cluster.post("/api/v1/namespaces", &namespace).await.ok();
    let rules = json!([
        {"operations": ["UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["*/status"]},
        {"operations": ["CREATE"], "apiGroups": ["authorization.k8s.io"], "apiVersions": ["v1"], "resources": ["*"]},
    ]);
    let config = json!({"clientConfig": hook.config("/"), "rules": rules});
    cluster.configure("Validating", "v", &[config]).await;
    let status = json!({"status": {"phase": "Active"}, "metadata": {"labels": {"a": "b"}}});
    let refused = cluster
        .merge("/api/v1/namespaces/team/status", &status)
        .await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    cluster.merge("/api/v1/namespaces/team", &labels).await.ok();
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let refused = cluster.post(path, &review).await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    let requests = hook.requests();
    assert_eq!(requests[0]["subResource"], "status");
    assert_eq!(requests[0]["namespace"], "team");
    assert_eq!(requests[1]["object"]["kind"], "SelfSubjectAccessReview");
    cluster.stop().await;
}
