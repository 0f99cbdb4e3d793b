//! Authorizers that are not built in: another server that is asked, and policies of a file.
#![expect(
    clippy::expect_used,
    reason = "helpers of tests, which clippy does not see as tests"
)]

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use gantry_apiserver::{
    Authorization, Config, Server, WebhookAuthorization, parse_abac_policies,
    parse_authorization_config,
};
use gantry_store::{Options, Store};
use serde_json::{Value, json};

use super::{
    access::{get, post, refused, send},
    hooks::server::Webhook,
};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A kubeconfig that leads to a webhook.
pub fn kubeconfig(hook: &Webhook) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "webhook",
        "clusters": [{"name": "authorizer", "cluster": {
            "server": format!("https://{}/authorize", hook.address),
            "certificate-authority-data": hook.bundle,
        }}],
        "users": [{"name": "server", "user": {"token": "who-asks"}}],
        "contexts": [{"name": "webhook", "context": {"cluster": "authorizer", "user": "server"}}],
    });
    file.write_all(text.to_string().as_bytes())
        .expect("written");
    file
}

async fn start(authorization: Vec<Authorization>) -> Server {
    let config = Config {
        authorization,
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

pub fn reply(review: &Value, status: Value) -> (u16, Value) {
    let mut answer = review.clone();
    answer["status"] = status;
    (200, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_asked_and_its_answers_are_remembered() {
    let hook = Webhook::raw(|_, review| {
        let spec = &review["spec"];
        let status = match spec["resourceAttributes"]["verb"].as_str() {
            Some("list") => json!({"allowed": true, "reason": "lists are free"}),
            Some("delete") => json!({"denied": true, "reason": "never"}),
            Some("impersonate") => json!({"allowed": true}),
            _ => json!({"allowed": false, "reason": "not my business"}),
        };
        reply(review, status)
    })
    .await;
    let kubeconfig = kubeconfig(&hook);
    let text = format!(
        "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: outside
  webhook:
    timeout: 10s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {:?}}}
    matchConditions:
    - expression: has(request.resourceAttributes)
    - expression: '!(\"spared\" in request.groups)'
- {{type: RBAC, name: rbac}}
",
        kubeconfig.path()
    );
    let server = start(parse_authorization_config(&text, None).expect("understood")).await;
    let ann = server.client_as("ann", &["dev"]);
    let list = format!("{PODS}?labelSelector=a%3Db&fieldSelector=spec.nodeName%3Dn");
    for _ in 0..3 {
        get(&ann, &list).await.expect("allowed");
    }
    assert_eq!(hook.paths(), ["/authorize"], "asked once");
    let asked = hook.reviews();
    assert_eq!(asked[0]["apiVersion"], "authorization.k8s.io/v1");
    assert_eq!(
        asked[0]["spec"],
        json!({
            "user": "ann",
            "groups": ["dev", "system:authenticated"],
            "resourceAttributes": {
                "namespace": "default", "verb": "list", "version": "v1", "resource": "pods",
                "fieldSelector": {"requirements": [
                    {"key": "spec.nodeName", "operator": "In", "values": ["n"]}]},
                "labelSelector": {"requirements": [
                    {"key": "a", "operator": "In", "values": ["b"]}]},
            },
        })
    );
    // A webhook that has no opinion leaves it to RBAC; one that denies does not.
    refused(get(&ann, &format!("{PODS}/x")).await, "not my business");
    let role = json!({
        "metadata": {"name": "ann"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    post(&server.client(), bindings, &role)
        .await
        .expect("created");
    let (code, _) = get(&ann, &format!("{PODS}/x")).await.expect_err("no pod");
    assert_eq!(code, 404);
    let deleted = send(&ann, "DELETE", &format!("{PODS}/x"), &[], &Value::Null).await;
    refused(deleted, "never");
    // What the conditions spare is not asked about: no path, nobody of this group, no admin.
    let before = hook.paths().len();
    get(&ann, "/version").await.expect("RBAC lets everybody");
    let spared = server.client_as("sam", &["spared"]);
    refused(get(&spared, PODS).await, "cannot list");
    get(&server.client(), PODS)
        .await
        .expect("the admin is not asked about");
    assert_eq!(hook.paths().len(), before);
    // Questions beside a request are asked too, where nothing can wait for them.
    let other = server.client_as("bob", &[]);
    let as_ann = [("impersonate-user", "ann")];
    send(&other, "GET", PODS, &as_ann, &Value::Null)
        .await
        .expect("allowed to be ann");
    let verbs: Vec<Value> = hook.reviews()[before..]
        .iter()
        .map(|r| r["spec"]["resourceAttributes"]["verb"].clone())
        .collect();
    assert!(verbs.contains(&json!("impersonate")), "{verbs:?}");
    // A review asks the same question for somebody else.
    let review = json!({"spec": {"user": "cat", "resourceAttributes": {
        "verb": "list", "resource": "pods", "namespace": "n",
        "labelSelector": {"rawSelector": "x"},
    }}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = post(&server.client(), path, &review)
        .await
        .expect("answered");
    assert_eq!(
        answer["status"],
        json!({"allowed": true, "reason": "lists are free"})
    );
    let last = hook.reviews().pop().expect("asked");
    let selector = &last["spec"]["resourceAttributes"]["labelSelector"];
    assert_eq!(selector["requirements"][0]["operator"], "Exists");
    let mine = json!({"spec": {"namespace": "default"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = post(&ann, path, &mine).await.expect("answered");
    assert_eq!(
        rules["status"]["evaluationError"],
        "webhook authorizer does not support user rule resolution"
    );
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_is_what_the_policy_says() {
    let code = Arc::new(AtomicU16::new(403));
    let said = code.clone();
    let hook =
        Webhook::raw(move |_, _| (said.load(Ordering::Relaxed), json!({"no": "review"}))).await;
    let file = kubeconfig(&hook);
    let of = |denies_on_failure| {
        Authorization::Webhook(Box::new(WebhookAuthorization {
            timeout: Duration::from_secs(10),
            denies_on_failure,
            ..WebhookAuthorization::new(file.path().to_owned())
        }))
    };
    // Without an opinion others are asked; where none of them allows, the failure is told.
    let server = start(vec![of(false), Authorization::Rbac]).await;
    let ann = server.client_as("ann", &[]);
    get(&ann, "/version").await.expect("by RBAC");
    let (status, message) = get(&ann, PODS).await.expect_err("refused");
    assert_eq!(status, 500, "{message}");
    assert!(
        message.contains("Internal Server Error: \"/api/v1/namespaces/default/pods\""),
        "{message}"
    );
    assert_eq!(
        hook.reviews()[0]["apiVersion"],
        "authorization.k8s.io/v1beta1"
    );
    assert_eq!(
        hook.reviews()[0]["spec"]["group"],
        json!(["system:authenticated"])
    );
    // A 2xx that holds no review is none either.
    code.store(200, Ordering::Relaxed);
    let (status, message) = get(&ann, PODS).await.expect_err("refused");
    assert_eq!(status, 500, "{message}");
    assert!(message.contains("not a SubjectAccessReview"), "{message}");
    server.shutdown().await;
    // Denial ends the question, whatever comes after.
    let server = start(vec![of(true), Authorization::AlwaysAllow]).await;
    let ann = server.client_as("ann", &[]);
    let (status, _) = get(&ann, PODS).await.expect_err("refused");
    assert_eq!(status, 500);
    server.shutdown().await;
}

#[tokio::test]
async fn policies_of_a_file_decide() {
    let policies = parse_abac_policies(
        r#"{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "ann", "namespace": "default", "resource": "pods", "readonly": true}}"#,
    )
    .expect("policies");
    let server = start(vec![Authorization::Abac(policies.into())]).await;
    let ann = server.client_as("ann", &[]);
    get(&ann, PODS).await.expect("allowed");
    refused(
        get(&ann, "/api/v1/namespaces/kube-system/pods").await,
        "No policy matched.",
    );
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    refused(post(&ann, PODS, &pod).await, "No policy matched.");
    server.shutdown().await;
}

#[tokio::test]
async fn a_kubeconfig_that_leads_nowhere_is_named_at_the_start() {
    let hook = WebhookAuthorization::new("/no/such/kubeconfig".into());
    let config = Config {
        authorization: vec![Authorization::Webhook(Box::new(hook))],
        ..Config::default()
    };
    let store = Store::in_memory(Options::default());
    let Err(error) = Server::start(config, store).await else {
        unreachable!("there is no such file");
    };
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(
        cause.as_deref(),
        Some("reading the kubeconfig /no/such/kubeconfig of the authorization webhook \"default\"")
    );
}
