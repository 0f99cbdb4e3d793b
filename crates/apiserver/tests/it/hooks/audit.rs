//! What admission leaves behind of a request: annotations in the audit log, and metrics.

use gantry_apiserver::{AuditConfig, AuditLogFile, AuditPolicy, Config};
use serde_json::{Value, json};

use crate::hooks::{
    client::{Cluster, MAPS, map},
    policies::{matching, merged},
    server::{Webhook, patch},
};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Request, resources: [{group: '', resources: [configmaps, pods]}]}
- {level: None}
";

/// A cluster with an audit log in a folder of its own.
async fn recorded() -> (Cluster, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::of(Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        audit: Some(AuditConfig {
            policy: AuditPolicy::parse(POLICY).expect("a policy"),
            file: AuditLogFile {
                path: folder.path().join("audit.log"),
                max_bytes: 1 << 20,
                max_backups: 0,
                max_age: None,
            },
        }),
        ..Config::default()
    })
    .await;
    (cluster, folder)
}

/// Stops the cluster; the annotations of the requests about each object, by its name.
async fn annotations(cluster: Cluster, folder: &tempfile::TempDir) -> Vec<(String, Value)> {
    cluster.stop().await;
    let text = std::fs::read_to_string(folder.path().join("audit.log")).expect("a log");
    let events = text.lines().map(serde_json::from_str::<Value>);
    let events = events.map(|e| e.expect("JSON"));
    events
        .map(|mut e| {
            let name = e["objectRef"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), e["annotations"].take())
        })
        .collect()
}

fn of<'a>(all: &'a [(String, Value)], name: &str) -> &'a Value {
    let found = all.iter().find(|(n, _)| n == name);
    &found.expect("recorded").1
}

/// A text that is JSON.
fn inner(annotations: &Value, key: &str) -> Value {
    let text = annotations[key].as_str().expect(key);
    serde_json::from_str(text).expect("JSON")
}

#[tokio::test]
async fn what_webhooks_did_is_recorded_and_counted() {
    let hook = Webhook::start(|path, request| {
        if path.starts_with("/deny") {
            let named = request["name"] == "denied";
            return json!({"allowed": !named, "status": {"code": 403, "message": "no"},
                "auditAnnotations": {"why": "looked at"}});
        }
        if path.starts_with("/still") {
            return json!({"allowed": true});
        }
        patch(&json!([{"op": "add", "path": "/data/added", "value": "1"}]))
    })
    .await;
    let (cluster, folder) = recorded().await;
    let of_path = |path: &str| json!({"clientConfig": hook.config(path)});
    let mutating = [of_path("/change"), of_path("/still")];
    cluster.configure("Mutating", "m", &mutating).await;
    let mut gone = json!({"clientConfig": hook.config("/"), "failurePolicy": "Ignore"});
    gone["clientConfig"]["url"] = "https://127.0.0.1:1/".into();
    cluster
        .configure("Validating", "v", &[gone, of_path("/deny")])
        .await;
    let data = || json!({"a": "1"});
    cluster.post(MAPS, &map("made", data())).await.ok();
    let denied = cluster.post(MAPS, &map("denied", data())).await;
    assert_eq!(denied.code, 403, "{}", denied.body);

    let metrics = cluster.text("/metrics").await;
    // What changed is looked at in a second round, which is a step of its own.
    for line in [
        r#"apiserver_admission_webhook_admission_duration_seconds_count{name="h0.m.test",operation="CREATE",type="admit",rejected="false"} 2"#,
        r#"apiserver_admission_webhook_admission_duration_seconds_count{name="h1.v.test",operation="CREATE",type="validating",rejected="true"} 1"#,
        r#"apiserver_admission_webhook_rejection_count{name="h1.v.test",operation="CREATE",type="validating",error_type="no_error",rejection_code="403"} 1"#,
        r#"apiserver_admission_webhook_fail_open_count{name="h0.v.test",type="validating"} 2"#,
        r#"apiserver_admission_controller_admission_duration_seconds_count{name="MutatingAdmissionWebhook",operation="CREATE",rejected="false",type="admit"} 4"#,
        r#"apiserver_admission_controller_admission_duration_seconds_count{name="ValidatingAdmissionWebhook",operation="CREATE",rejected="true",type="validate"} 1"#,
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}");
    }

    let all = annotations(cluster, &folder).await;
    let made = of(&all, "made");
    let about = |webhook: &str, mutated: bool| json!({"configuration": "m", "webhook": webhook, "mutated": mutated});
    let mutation = "mutation.webhook.admission.k8s.io/round_0_index_";
    assert_eq!(
        inner(made, &format!("{mutation}0")),
        about("h0.m.test", true)
    );
    assert_eq!(
        inner(made, &format!("{mutation}1")),
        about("h1.m.test", false)
    );
    assert_eq!(
        inner(made, "patch.webhook.admission.k8s.io/round_0_index_0"),
        json!({"configuration": "m", "webhook": "h0.m.test", "patchType": "JSONPatch",
            "patch": [{"op": "add", "path": "/data/added", "value": "1"}]})
    );
    let open = "failed-open.validating.webhook.admission.k8s.io/round_0_index_0";
    assert_eq!(made[open], "h0.v.test");
    // A refused request leaves them too.
    assert_eq!(of(&all, "denied")["h1.v.test/why"], "looked at");
}

#[tokio::test]
async fn what_policies_found_is_recorded_and_counted() {
    let (cluster, folder) = recorded().await;
    let spec = json!({
        "validations": [{"expression": "size(object.data) > 1", "message": "too little"}],
        "auditAnnotations": [{"key": "size", "valueExpression": "string(size(object.data))"}],
    });
    let spec = merged(matching("", &["configmaps"]), &spec);
    cluster.policy("Validating", spec).await.ok();
    let audit = json!({"validationActions": ["Audit"]});
    cluster.bind("Validating", audit).await;
    cluster
        .post(MAPS, &map("small", json!({"a": "1"})))
        .await
        .ok();
    let metrics = cluster.text("/metrics").await;
    let line = r#"apiserver_validating_admission_policy_check_total{policy="p.example.com",policy_binding="b.example.com",error_type="no_error",enforcement_action="audit"} 1"#;
    assert!(metrics.lines().any(|l| l == line), "{metrics}");
    let all = annotations(cluster, &folder).await;
    let small = of(&all, "small");
    assert_eq!(small["p.example.com/size"], "1");
    assert_eq!(
        inner(
            small,
            "validation.policy.admission.k8s.io/validation_failure"
        ),
        json!([{"message": "too little", "policy": "p.example.com", "binding": "b.example.com",
            "expressionIndex": 0, "validationActions": ["Audit"]}])
    );
}

#[tokio::test]
async fn pod_security_tells_what_it_enforces_and_what_it_audits() {
    let (cluster, folder) = recorded().await;
    let labels = json!({"pod-security.kubernetes.io/audit": "restricted", "pod-security.kubernetes.io/enforce": "baseline"});
    let namespace = json!({"metadata": {"name": "strict", "labels": labels}});
    cluster.post("/api/v1/namespaces", &namespace).await.ok();
    let pod = |name: &str, host: bool| {
        json!({"metadata": {"name": name}, "spec": {"hostNetwork": host,
        "containers": [{"name": "c", "image": "i"}]}})
    };
    let pods = "/api/v1/namespaces/strict/pods";
    cluster.post(pods, &pod("tame", false)).await.ok();
    assert_eq!(cluster.post(pods, &pod("wild", true)).await.code, 403);
    let free = "/api/v1/namespaces/default/pods";
    cluster.post(free, &pod("free", true)).await.ok();
    let all = annotations(cluster, &folder).await;
    let enforced = "pod-security.kubernetes.io/enforce-policy";
    let audited = "pod-security.kubernetes.io/audit-violations";
    let tame = of(&all, "tame");
    assert_eq!(tame[enforced], "baseline:latest");
    let said = tame[audited].as_str().expect("violations");
    let expected =
        "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false";
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(of(&all, "wild")[enforced], "baseline:latest");
    let free = of(&all, "free");
    assert_eq!(free[enforced], "privileged:latest");
    assert_eq!(free[audited], Value::Null);
}
