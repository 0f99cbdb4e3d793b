//! Who may do what, over TLS and in-process: nodes, impersonation, roles that gather others, what is
//! reconciled at start; and the audit log of it all.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

use std::time::Duration;

use gantry_apiserver::{AuditConfig, AuditLogFile, AuditPolicy, Config, Server};
use gantry_store::{Options, Store};
use kube::Client;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

pub async fn start(config: Config, store: Store) -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..config
    };
    Server::start(config, store)
        .await
        .expect("the server starts")
}

pub fn memory() -> Store {
    Store::in_memory(Options::default())
}

/// One request; the answer's body, or the code and message of a failure.
pub async fn send(
    client: &Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<Value, (u16, String)> {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("user-agent", "test/1")
        .header(
            "content-type",
            if method == "PATCH" {
                "application/merge-patch+json"
            } else {
                "application/json"
            },
        );
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() {
        vec![]
    } else {
        body.to_string().into_bytes()
    };
    match client.request::<Value>(request.body(body).unwrap()).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
        Err(e) => panic!("{method} {path}: {e:?}"),
    }
}

pub async fn get(client: &Client, path: &str) -> Result<Value, (u16, String)> {
    send(client, "GET", path, &[], &Value::Null).await
}

pub async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, (u16, String)> {
    send(client, "POST", path, &[], body).await
}

pub fn refused(result: Result<Value, (u16, String)>, words: &str) {
    let (code, message) = result.expect_err("refused");
    assert_eq!(code, 403, "{message}");
    assert!(message.contains(words), "{message}\nlacks: {words}");
}

const NODES: &[&str] = &["system:nodes"];
const PODS: &str = "/api/v1/namespaces/default/pods";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Asks until it is allowed: nodes' rights follow the store.
pub async fn until_allowed(client: &Client, path: &str) -> Value {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        match get(client, path).await {
            Ok(value) => return value,
            Err(e) => assert!(tokio::time::Instant::now() < deadline, "{path}: {e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need_and_changes_itself() {
    let server = start(Config::default(), memory()).await;
    let admin = server.client();
    let one = server.client_as("system:node:one", NODES);
    let two = server.client_as("system:node:two", NODES);
    for secret in ["env", "volume", "other"] {
        let object = json!({"metadata": {"name": secret}});
        post(&admin, SECRETS, &object).await.expect("created");
    }
    let node = json!({"metadata": {"name": "one", "labels": {"kubernetes.io/hostname": "one"}}});
    refused(
        post(&two, "/api/v1/nodes", &node).await,
        "node \"two\" is not allowed to modify node \"one\"",
    );
    let bad =
        json!({"metadata": {"name": "one", "labels": {"node-restriction.kubernetes.io/a": "b"}}});
    refused(
        post(&one, "/api/v1/nodes", &bad).await,
        "is not allowed to set the following labels",
    );
    post(&one, "/api/v1/nodes", &node).await.expect("created");
    let path = "/api/v1/nodes/one";
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    refused(
        send(&one, "PATCH", path, &[], &taint).await,
        "node \"one\" is not allowed to modify taints",
    );
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    send(&one, "PATCH", &format!("{path}/status"), &[], &status)
        .await
        .expect("patched");
    get(&one, path).await.expect("its own");
    refused(get(&two, path).await, "only its own Node object");
    refused(
        get(&one, &format!("{SECRETS}/env")).await,
        "no relationship found between node 'one' and this object",
    );
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {
            "nodeName": "one",
            "containers": [{"name": "c", "image": "i", "env": [
                {"name": "E", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}},
            ]}],
            "volumes": [{"name": "v", "secret": {"secretName": "volume"}}],
        },
    });
    post(&admin, PODS, &pod).await.expect("created");
    until_allowed(&one, &format!("{SECRETS}/env")).await;
    until_allowed(&one, &format!("{SECRETS}/volume")).await;
    until_allowed(&one, &format!("{PODS}/p")).await;
    for refusal in [
        get(&one, &format!("{SECRETS}/other")).await,
        get(&two, &format!("{SECRETS}/env")).await,
        get(&two, &format!("{PODS}/p")).await,
    ] {
        refused(refusal, "no relationship found");
    }
    refused(get(&one, SECRETS).await, "No Object name found");
    refused(
        get(&one, "/api/v1/pods").await,
        "spec.nodeName field selector",
    );
    let own = get(&one, "/api/v1/pods?fieldSelector=spec.nodeName%3Done")
        .await
        .expect("its own");
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
    let status = json!({"status": {"phase": "Running"}});
    let of_pod = format!("{PODS}/p/status");
    refused(
        send(&two, "PATCH", &of_pod, &[], &status).await,
        "node \"two\" can only update pod status for pods with spec.nodeName set to itself",
    );
    send(&one, "PATCH", &of_pod, &[], &status)
        .await
        .expect("patched");
    refused(
        post(&one, PODS, &pod).await,
        "node \"one\" can only create mirror pods",
    );
    let lease = json!({"metadata": {"name": "one"}, "spec": {"holderIdentity": "one"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    refused(
        post(&two, leases, &lease).await,
        "same name as the requesting node",
    );
    post(&one, leases, &lease).await.expect("created");
    refused(
        get(&two, &format!("{leases}/one")).await,
        "same name as the requesting node",
    );
    // When the pod goes, so does what was seen for it.
    let gone = format!("{PODS}/p?gracePeriodSeconds=0");
    refused(
        send(&two, "DELETE", &gone, &[], &Value::Null).await,
        "can only delete pods",
    );
    send(&one, "DELETE", &gone, &[], &Value::Null)
        .await
        .expect("deleted");
    let deadline = tokio::time::Instant::now() + SOON;
    while get(&one, &format!("{SECRETS}/env")).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "still seen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.shutdown().await;
}

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

pub async fn grant(admin: &Client, name: &str, user: &str, rules: Value) {
    let role = json!({"metadata": {"name": name}, "rules": rules});
    post(admin, ROLES, &role).await.expect("created");
    bind(admin, name, name, user).await;
}

async fn bind(admin: &Client, name: &str, role: &str, user: &str) {
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    });
    post(admin, BINDINGS, &binding).await.expect("created");
}

async fn who(client: &Client, headers: &[(&str, &str)]) -> Result<Value, (u16, String)> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = send(client, "POST", path, headers, &review).await?;
    Ok(answer["status"]["userInfo"].clone())
}

#[tokio::test]
async fn impersonation_by_the_broad_right_and_by_narrow_ones() {
    let server = start(Config::default(), memory()).await;
    let admin = server.client();
    let broad = json!([
        {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["jane"]},
        {"apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["dev"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "verbs": ["impersonate"], "resourceNames": ["view"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["uids"], "verbs": ["impersonate"], "resourceNames": ["7"]},
    ]);
    grant(&admin, "broad", "bob", broad).await;
    let bob = server.client_as("bob", &[]);
    let jane = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-scopes", "view"),
    ];
    let user = who(&bob, &jane).await.expect("allowed");
    assert_eq!(user["username"], "jane");
    assert_eq!(user["uid"], "7");
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!(user["extra"], json!({"scopes": ["view"]}));
    for (header, value) in [
        ("impersonate-user", "joe"),
        ("impersonate-group", "ops"),
        ("impersonate-uid", "8"),
        ("impersonate-extra-scopes", "edit"),
    ] {
        let mut asked: Vec<_> = jane.iter().copied().filter(|(h, _)| *h != header).collect();
        asked.push((header, value));
        refused(
            who(&bob, &asked).await,
            "User \"bob\" cannot impersonate-on:user-info:create resource \"selfsubjectreviews\"",
        );
    }
    // Only to read ConfigMaps, as a ServiceAccount of one namespace or as any node.
    let narrow = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": [
            "impersonate-on:serviceaccount:list", "impersonate-on:arbitrary-node:list",
            "impersonate-on:user-info:list",
        ]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["serviceaccounts"], "verbs": ["impersonate:serviceaccount"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["nodes"], "verbs": ["impersonate:arbitrary-node"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["users", "groups"], "verbs": ["impersonate:user-info"]},
    ]);
    grant(&admin, "narrow", "tom", narrow).await;
    let all = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]);
    grant(&admin, "reads", "system:serviceaccount:shop:robot", all).await;
    let tom = server.client_as("tom", &[]);
    let maps = "/api/v1/namespaces/default/configmaps";
    let as_robot = [("impersonate-user", "system:serviceaccount:shop:robot")];
    send(&tom, "GET", maps, &as_robot, &Value::Null)
        .await
        .expect("allowed");
    refused(
        send(&tom, "GET", SECRETS, &as_robot, &Value::Null).await,
        "User \"tom\" cannot impersonate-on:serviceaccount:list resource \"secrets\"",
    );
    let as_node = [("impersonate-user", "system:node:one")];
    refused(
        send(&tom, "GET", maps, &as_node, &Value::Null).await,
        "User \"system:node:one\" cannot list resource \"configmaps\"",
    );
    let as_master = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "system:masters"),
    ];
    refused(
        send(&tom, "GET", maps, &as_master, &Value::Null).await,
        "impersonating the system:masters group is not allowed",
    );
    server.shutdown().await;
}

#[tokio::test]
async fn reviews_tell_what_holds_and_what_is_missing() {
    let server = start(Config::default(), memory()).await;
    let admin = server.client();
    bind(&admin, "dangling", "nowhere", "ann").await;
    let ann = server.client_as("ann", &[]);
    refused(
        get(&ann, PODS).await,
        ": RBAC: clusterrole.rbac.authorization.k8s.io \"nowhere\" not found",
    );
    let review = |kind: &str, spec: Value| json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
    let base = "/apis/authorization.k8s.io/v1";
    let rules = review("SelfSubjectRulesReview", json!({"namespace": "default"}));
    let path = format!("{base}/selfsubjectrulesreviews");
    let answer = post(&ann, &path, &rules).await.expect("answered");
    assert_eq!(answer["status"]["incomplete"], true);
    let of_node = |selector: Value| {
        let attributes = json!({
            "verb": "list", "resource": "pods", "version": "v1", "fieldSelector": selector,
        });
        review(
            "SubjectAccessReview",
            json!({
                "user": "system:node:one", "groups": ["system:nodes"],
                "resourceAttributes": attributes,
            }),
        )
    };
    let path = format!("{base}/subjectaccessreviews");
    for (selector, allowed) in [
        (json!({"rawSelector": "spec.nodeName=one"}), true),
        (json!({"rawSelector": "spec.nodeName=two"}), false),
        (
            json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["one"]}]}),
            true,
        ),
        (
            json!({"requirements": [{"key": "spec.nodeName", "operator": "NotIn", "values": ["one"]}]}),
            false,
        ),
    ] {
        let answer = post(&admin, &path, &of_node(selector.clone()))
            .await
            .expect("answered");
        assert_eq!(answer["status"]["allowed"], allowed, "{selector}");
    }
    let both = json!({
        "rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}],
    });
    let (code, message) = post(&admin, &path, &of_node(both))
        .await
        .expect_err("refused");
    assert_eq!(code, 422, "{message}");
    server.shutdown().await;
}

#[tokio::test]
async fn default_roles_are_completed_at_start_unless_told_otherwise() {
    let store = memory();
    let server = start(Config::default(), store.clone()).await;
    let admin = server.client();
    let kept = format!("{ROLES}/system:kube-dns");
    let left = format!("{ROLES}/system:node-bootstrapper");
    let emptied = json!({"rules": []});
    send(&admin, "PATCH", &kept, &[], &emptied)
        .await
        .expect("patched");
    let mine = json!({
        "rules": [],
        "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}},
    });
    send(&admin, "PATCH", &left, &[], &mine)
        .await
        .expect("patched");
    let gone = format!("{BINDINGS}/system:discovery");
    send(&admin, "DELETE", &gone, &[], &Value::Null)
        .await
        .expect("deleted");
    server.shutdown().await;
    let server = start(Config::default(), store).await;
    let admin = server.client();
    let role = get(&admin, &kept).await.expect("there");
    assert_eq!(role["rules"].as_array().unwrap().len(), 2);
    let role = get(&admin, &left).await.expect("there");
    assert_eq!(role["rules"].as_array().map_or(0, Vec::len), 0);
    get(&admin, &gone).await.expect("there again");
    // Nobody gathers what he does not have.
    let some = json!([{
        "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
        "verbs": ["create", "update"],
    }]);
    grant(&admin, "maker", "ann", some).await;
    let ann = server.client_as("ann", &[]);
    let gathers = json!({
        "metadata": {"name": "g"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]},
    });
    refused(
        post(&ann, ROLES, &gathers).await,
        "must have cluster-admin privileges to use an aggregationRule",
    );
    server.shutdown().await;
}

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: None, users: [system:apiserver]}
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- level: RequestResponse
  resources: [{group: '', resources: [configmaps]}]
  omitStages: [RequestReceived]
- {level: Request, verbs: [watch], omitStages: [RequestReceived]}
- {level: None}
";

#[tokio::test]
async fn the_audit_log_tells_what_its_policy_wants() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let config = Config {
        audit: Some(AuditConfig {
            policy: AuditPolicy::parse(POLICY).expect("a policy"),
            file: AuditLogFile {
                path: path.clone(),
                max_bytes: 1 << 20,
                max_backups: 0,
                max_age: None,
            },
        }),
        ..Config::default()
    };
    let server = start(config, memory()).await;
    let admin = server.client();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"key": "hunter2"}});
    post(&admin, SECRETS, &secret).await.expect("created");
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1"}});
    let named = [("audit-id", "named-by-client")];
    send(&admin, "POST", maps, &named, &map)
        .await
        .expect("created");
    let as_jane = [("impersonate-user", "jane")];
    let missing = send(&admin, "GET", &format!("{maps}/m"), &as_jane, &Value::Null).await;
    assert_eq!(missing.expect_err("refused").0, 403);
    get(&admin, "/api/v1/namespaces/default")
        .await
        .expect("not recorded");
    let watch = format!("{maps}?watch=true&timeoutSeconds=1&resourceVersion=0");
    let mut request = http::Request::get(&watch);
    request = request.header("user-agent", "test/1");
    let stream = admin
        .request_text(request.body(vec![]).unwrap())
        .await
        .expect("ends by itself");
    assert!(stream.contains("\"ADDED\""), "{stream}");
    server.shutdown().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let events: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let short: Vec<String> = events
        .iter()
        .map(|e| {
            let of = |field: &str| e[field].as_str().unwrap_or_default();
            let name = e["objectRef"]["name"].as_str().unwrap_or_default();
            let resource = e["objectRef"]["resource"].as_str().unwrap_or_default();
            let code = &e["responseStatus"]["code"];
            format!(
                "{} {} {resource}/{name} {} {code}",
                of("level"),
                of("verb"),
                of("stage")
            )
        })
        .collect();
    assert_eq!(
        short,
        [
            "Metadata create secrets/ RequestReceived null",
            "Metadata create secrets/s ResponseComplete 201",
            "RequestResponse create configmaps/m ResponseComplete 201",
            "RequestResponse get configmaps/m ResponseComplete 403",
            "RequestResponse watch configmaps/ ResponseStarted 200",
            "RequestResponse watch configmaps/ ResponseComplete 200",
        ]
    );
    assert_eq!(events[0]["auditID"], events[1]["auditID"]);
    assert_eq!(events[1]["user"]["username"], "system:admin");
    assert_eq!(events[1]["userAgent"], "test/1");
    assert_eq!(
        events[1]["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    let created = &events[2];
    assert_eq!(created["auditID"], "named-by-client");
    assert_eq!(created["requestObject"]["data"]["a"], "1");
    assert_eq!(created["responseObject"]["kind"], "ConfigMap");
    assert_eq!(
        created["responseObject"]["metadata"]["managedFields"],
        Value::Null
    );
    let denied = &events[3];
    assert_eq!(denied["impersonatedUser"]["username"], "jane");
    assert_eq!(denied["responseStatus"]["reason"], "Forbidden");
    assert_eq!(
        denied["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
}
