//! Admission policies and match conditions: CEL in objects that decides about requests.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};

use crate::hooks::{
    client::{Answer, Cluster, MAPS, REGISTRATION, map},
    server::{Webhook, patch},
};

const GROUP: &str = "admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

pub fn matching(group: &str, resources: &[&str]) -> Value {
    json!({"matchConstraints": {"resourceRules": [{
        "operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": resources,
    }]}})
}

pub fn merged(mut into: Value, more: &Value) -> Value {
    for (field, value) in more.as_object().into_iter().flatten() {
        into[field] = value.clone();
    }
    into
}

impl Cluster {
    pub async fn policy(&self, kind: &str, spec: Value) -> Answer {
        let body = json!({
            "kind": format!("{kind}AdmissionPolicy"), "apiVersion": GROUP,
            "metadata": {"name": "p.example.com"}, "spec": spec,
        });
        let path = format!("{REGISTRATION}/{}admissionpolicies", kind.to_lowercase());
        self.post(&path, &body).await
    }

    /// A binding of the policy; `spec` adds to it.
    pub async fn bind(&self, kind: &str, spec: Value) {
        let mut whole = json!({"policyName": "p.example.com"});
        if kind == "Validating" {
            whole["validationActions"] = json!(["Deny"]);
        }
        let body = json!({
            "kind": format!("{kind}AdmissionPolicyBinding"), "apiVersion": GROUP,
            "metadata": {"name": "b.example.com"}, "spec": merged(whole, &spec),
        });
        let kind = kind.to_lowercase();
        let path = format!("{REGISTRATION}/{kind}admissionpolicybindings");
        self.post(&path, &body).await.ok();
    }
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }})
}

#[tokio::test]
async fn a_bound_policy_denies_with_its_message() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
        "validations": [
            {"expression": "variables.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(variables.replicas)"},
            {"expression": "namespaceObject.metadata.name == 'default'", "message": "another namespace", "reason": "Forbidden"},
            {"expression": "request.userInfo.username == 'system:admin'"},
        ],
    });
    let spec = merged(matching("apps", &["deployments"]), &spec);
    cluster.policy("Validating", spec).await.ok();
    cluster
        .post(DEPLOYMENTS, &deployment("unbound", 1))
        .await
        .ok();
    cluster.bind("Validating", json!({})).await;
    let refused = cluster.post(DEPLOYMENTS, &deployment("d", 1)).await;
    assert_eq!(refused.code, 422);
    let denial = "ValidatingAdmissionPolicy 'p.example.com' with binding 'b.example.com' denied request: wants replicas > 1, got 1";
    assert_eq!(
        refused.message(),
        format!("deployments.apps \"d\" is forbidden: {denial}")
    );
    assert_eq!(refused.body["reason"], "Invalid");
    assert_eq!(
        refused.body["details"],
        json!({"name": "d", "group": "apps", "kind": "deployments", "causes": [{"message": denial}]})
    );
    cluster.post(DEPLOYMENTS, &deployment("d", 2)).await.ok();
    let scaled = json!({"spec": {"replicas": 0}});
    let refused = cluster.merge(&format!("{DEPLOYMENTS}/d"), &scaled).await;
    assert_eq!(refused.code, 422);
    // The scale subresource is another resource, which the policy does not name.
    cluster
        .merge(&format!("{DEPLOYMENTS}/d/scale"), &scaled)
        .await
        .ok();
    cluster.post(MAPS, &map("other", json!({}))).await.ok();
    cluster
        .post(
            "/api/v1/namespaces",
            &json!({"metadata": {"name": "other"}}),
        )
        .await
        .ok();
    let elsewhere = DEPLOYMENTS.replace("default", "other");
    let refused = cluster.post(&elsewhere, &deployment("d", 2)).await;
    assert_eq!(
        (refused.code, &refused.body["reason"]),
        (403, &json!("Forbidden"))
    );
    assert!(
        refused
            .message()
            .ends_with("denied request: another namespace")
    );
    let binding = format!("{REGISTRATION}/validatingadmissionpolicybindings/b.example.com");
    cluster.delete(&binding).await.ok();
    cluster.post(DEPLOYMENTS, &deployment("free", 1)).await.ok();
    cluster.stop().await;
}

#[rstest]
#[case::warn(json!({"validationActions": ["Warn"]}), 201, 1)]
#[case::audit(json!({"validationActions": ["Audit"]}), 201, 0)]
#[case::deny(json!({"validationActions": ["Deny", "Audit"]}), 422, 0)]
#[case::elsewhere(json!({"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}), 201, 0)]
#[tokio::test]
async fn a_binding_says_what_becomes_of_a_failure(
    #[case] binding: Value,
    #[case] code: u16,
    #[case] warnings: usize,
) {
    let cluster = Cluster::start().await;
    let spec = json!({"validations": [{"expression": "false", "message": "never"}]});
    let spec = merged(matching("", &["configmaps"]), &spec);
    cluster.policy("Validating", spec).await.ok();
    cluster.bind("Validating", binding).await;
    let answer = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code, code, "{}", answer.body);
    let warning = "Validation failed for ValidatingAdmissionPolicy 'p.example.com' with binding 'b.example.com': never";
    assert_eq!(answer.warnings, vec![warning; warnings]);
    cluster.stop().await;
}

#[rstest]
#[case::none(
    "Deny",
    None,
    Some(
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    )
)]
#[case::none_needed("Allow", None, None)]
#[case::met("Deny", Some("3"), None)]
#[case::failed(
    "Deny",
    Some("1"),
    Some("failed expression: size(object.data) <= int(params.data.most)")
)]
#[tokio::test]
async fn parameters_are_looked_up(
    #[case] not_found: &str,
    #[case] most: Option<&str>,
    #[case] denial: Option<&str>,
) {
    let cluster = Cluster::start().await;
    if let Some(most) = most {
        cluster
            .post(MAPS, &map("limits", json!({"most": most})))
            .await
            .ok();
    }
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "size(object.data) <= int(params.data.most)"}],
    });
    let spec = merged(matching("", &["configmaps"]), &spec);
    cluster.policy("Validating", spec).await.ok();
    let reference =
        json!({"name": "limits", "namespace": "default", "parameterNotFoundAction": not_found});
    cluster
        .bind("Validating", json!({"paramRef": reference}))
        .await;
    let answer = cluster
        .post(MAPS, &map("x", json!({"a": "1", "b": "2"})))
        .await;
    match denial {
        None => {
            answer.ok();
        }
        Some(denial) => assert!(answer.message().ends_with(denial), "{}", answer.message()),
    }
    cluster.stop().await;
}

#[tokio::test]
async fn an_unknown_kind_of_parameters_is_an_error_of_the_policy() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "paramKind": {"apiVersion": "x.io/v1", "kind": "None"}, "validations": [{"expression": "true"}],
    });
    let spec = merged(matching("", &["configmaps"]), &spec);
    cluster.policy("Validating", spec).await.ok();
    let reference = json!({"selector": {}, "parameterNotFoundAction": "Deny"});
    cluster
        .bind("Validating", json!({"paramRef": reference}))
        .await;
    let refused = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(
        refused.message(),
        "configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'p.example.com' denied request: failed to configure policy: failed to find resource referenced by paramKind: 'x.io/v1, Kind=None'"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn types_are_checked_against_the_resources_of_a_policy() {
    let cluster = Cluster::start().await;
    let spec = json!({"validations": [
        {"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas"},
    ]});
    let spec = merged(matching("apps", &["deployments"]), &spec);
    cluster.policy("Validating", spec).await.ok();
    let path = format!("{REGISTRATION}/validatingadmissionpolicies/p.example.com");
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        let policy = cluster.get(&path).await.ok();
        if policy["status"]["typeChecking"].is_object() {
            break policy["status"].clone();
        }
        assert!(Instant::now() < deadline, "no status: {policy}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status["observedGeneration"], 1);
    let warnings = &status["typeChecking"]["expressionWarnings"];
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
    let text = warnings[0]["warning"].as_str().expect("text");
    assert!(
        text.contains("found no matching overload for '_>_' applied to '(int, string)'"),
        "{text}"
    );
    assert_eq!(
        warnings[1]["fieldRef"],
        "spec.validations[0].messageExpression"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_policy_that_does_not_compile_is_refused() {
    let cluster = Cluster::start().await;
    let spec = json!({"validations": [{"expression": "object.a +"}, {"expression": "1"}]});
    let spec = merged(matching("apps", &["deployments"]), &spec);
    let refused = cluster.policy("Validating", spec).await;
    assert_eq!(refused.code, 422);
    let fields: Vec<&Value> = refused.body["details"]["causes"]
        .as_array()
        .expect("causes")
        .iter()
        .map(|c| &c["field"])
        .collect();
    assert_eq!(
        fields,
        [
            "spec.validations[0].expression",
            "spec.validations[1].expression"
        ]
    );
    assert!(
        refused
            .message()
            .contains("must evaluate to bool but got int"),
        "{}",
        refused.message()
    );
    cluster.stop().await;
}

#[rstest]
#[case::apply(json!({"patchType": "ApplyConfiguration", "applyConfiguration": {
    "expression": "Object{metadata: Object.metadata{labels: {'team': namespaceObject.metadata.name}}, data: {'from': 'policy'}}"}}))]
#[case::patch(json!({"patchType": "JSONPatch", "jsonPatch": {
    "expression": "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'team': namespaceObject.metadata.name}}, JSONPatch{op: 'add', path: '/data/from', value: 'policy'}]"}}))]
#[tokio::test]
async fn mutating_policies_change_objects(#[case] mutation: Value) {
    let cluster = Cluster::start().await;
    let spec = json!({
        "reinvocationPolicy": "Never", "mutations": [mutation],
        "matchConditions": [{"name": "c", "expression": "object.metadata.name != 'spared'"}],
    });
    let spec = merged(matching("", &["configmaps"]), &spec);
    cluster.policy("Mutating", spec).await.ok();
    cluster.bind("Mutating", json!({})).await;
    let made = cluster.post(MAPS, &map("x", json!({"a": "1"}))).await.ok();
    assert_eq!(made["metadata"]["labels"], json!({"team": "default"}));
    assert_eq!(made["data"], json!({"a": "1", "from": "policy"}));
    let spared = cluster
        .post(MAPS, &map("spared", json!({"a": "1"})))
        .await
        .ok();
    assert_eq!(spared["data"], json!({"a": "1"}));
    cluster.stop().await;
}

#[tokio::test]
async fn policies_and_webhooks_hear_of_each_others_changes() {
    let hook = Webhook::start(|_, request| {
        if request["object"]["data"]["hook"].is_string() {
            return json!({"allowed": true});
        }
        patch(&json!([{"op": "add", "path": "/data/hook", "value": "1"}]))
    })
    .await;
    let cluster = Cluster::start().await;
    let count =
        "[JSONPatch{op: 'add', path: '/data/seen' + string(size(object.data)), value: 'x'}]";
    let spec = json!({
        "reinvocationPolicy": "IfNeeded",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": count}}],
    });
    let spec = merged(matching("", &["configmaps"]), &spec);
    cluster.policy("Mutating", spec).await.ok();
    cluster.bind("Mutating", json!({})).await;
    let config = json!({"clientConfig": hook.config("/"), "reinvocationPolicy": "IfNeeded"});
    cluster.configure("Mutating", "m", &[config]).await;
    let made = cluster.post(MAPS, &map("x", json!({"a": "1"}))).await.ok();
    // The policy, the webhook, the policy on what the webhook made, the webhook on that.
    assert_eq!(
        made["data"],
        json!({"a": "1", "seen1": "x", "hook": "1", "seen3": "x"})
    );
    assert_eq!(hook.requests().len(), 2);
    cluster.stop().await;
}

#[tokio::test]
async fn a_mutation_that_fails_denies() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{data: {'a': object.data.none}}"}}],
    });
    let spec = merged(matching("", &["configmaps"]), &spec);
    cluster.policy("Mutating", spec).await.ok();
    cluster.bind("Mutating", json!({})).await;
    let refused = cluster.post(MAPS, &map("x", json!({"b": "1"}))).await;
    assert_eq!(
        (refused.code, &refused.body["reason"]),
        (403, &json!("Invalid"))
    );
    assert!(
        refused.message().starts_with(
            "policy 'p.example.com' with binding 'b.example.com' denied request: expression"
        ),
        "{}",
        refused.message()
    );
    assert!(refused.message().ends_with("no such key: none"));
    cluster.stop().await;
}

#[rstest]
#[case::met(
    "request.userInfo.username == 'system:admin' && object.metadata.name == 'x'",
    "Fail",
    400
)]
#[case::unmet("object.metadata.name != 'x'", "Fail", 201)]
#[case::wrong("object.nothing == 1", "Fail", 403)]
#[case::wrong_ignored("object.nothing == 1", "Ignore", 201)]
#[case::authorized(
    "authorizer.group('').resource('configmaps').namespace('default').check('create').allowed()",
    "Fail",
    400
)]
#[tokio::test]
async fn webhooks_are_asked_where_their_conditions_are_met(
    #[case] condition: &str,
    #[case] policy: &str,
    #[case] code: u16,
) {
    let hook = Webhook::start(|_, _| json!({"allowed": false})).await;
    let cluster = Cluster::start().await;
    let conditions = json!([{"name": "c", "expression": condition}]);
    let config = json!({"clientConfig": hook.config("/"), "matchConditions": conditions, "failurePolicy": policy});
    cluster.configure("Validating", "v", &[config]).await;
    let answer = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code, code, "{}", answer.body);
    if code == 403 {
        assert_eq!(
            answer.message(),
            "configmaps \"x\" is forbidden: expression 'object.nothing == 1' resulted in error: no such key: nothing"
        );
    }
    cluster.stop().await;
}

#[tokio::test]
async fn policies_hold_for_webhook_configurations_and_not_for_policies() {
    let cluster = Cluster::start().await;
    let spec = json!({"validations": [{"expression": "false", "message": "never"}]});
    let spec = merged(matching("admissionregistration.k8s.io", &["*"]), &spec);
    cluster.policy("Validating", spec.clone()).await.ok();
    cluster.bind("Validating", json!({})).await;
    let path = format!("{REGISTRATION}/validatingadmissionpolicies/p.example.com");
    cluster
        .merge(&path, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .ok();
    let body = json!({"metadata": {"name": "v"}, "webhooks": []});
    let path = format!("{REGISTRATION}/validatingwebhookconfigurations");
    let refused = cluster.post(&path, &body).await;
    assert!(
        refused.message().ends_with("denied request: never"),
        "{}",
        refused.message()
    );
    cluster.stop().await;
}

#[tokio::test]
async fn parameters_are_named_by_those_who_may_read_them() {
    let cluster = Cluster::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "policies"}, "rules": [
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]},
    ]});
    cluster
        .post(&format!("{roles}/clusterroles"), &role)
        .await
        .ok();
    let binding = json!({
        "metadata": {"name": "eve"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "policies"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}],
    });
    cluster
        .post(&format!("{roles}/clusterrolebindings"), &binding)
        .await
        .ok();
    let eve = cluster.user("eve");
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "Secret"}, "validations": [{"expression": "true"}],
    });
    let spec = merged(matching("", &["configmaps"]), &spec);
    let refused = eve.policy("Validating", spec.clone()).await;
    assert_eq!(
        refused.message(),
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"p.example.com\" is invalid: spec.paramKind: Forbidden: user &{eve  [system:authenticated] map[]} must have \"get\" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)"
    );
    cluster.policy("Validating", spec).await.ok();
    let path = format!("{REGISTRATION}/validatingadmissionpolicybindings");
    let reference =
        json!({"selector": {}, "namespace": "default", "parameterNotFoundAction": "Deny"});
    let body = json!({"metadata": {"name": "b"}, "spec": {
        "policyName": "p.example.com", "validationActions": ["Deny"], "paramRef": reference,
    }});
    let refused = eve.post(&path, &body).await;
    assert!(
        refused
            .message()
            .ends_with("does not have \"list\" permission on the object referenced by paramRef"),
        "{}",
        refused.message()
    );
    cluster.stop().await;
}

#[tokio::test]
async fn types_of_custom_resources_are_known() {
    let cluster = Cluster::start().await;
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": {"replicas": {"type": "integer"}},
    }}});
    let definition = json!({"metadata": {"name": "things.x.io"}, "spec": {
        "group": "x.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    cluster.post(definitions, &definition).await.ok();
    let spec = json!({"validations": [
        {"expression": "object.spec.replicas > 1 && object.metadata.name != ''"},
        {"expression": "object.spec.maxRetries < 10"},
    ]});
    let spec = merged(matching("x.io", &["things"]), &spec);
    cluster.policy("Validating", spec).await.ok();
    let path = format!("{REGISTRATION}/validatingadmissionpolicies/p.example.com");
    let deadline = Instant::now() + Duration::from_secs(10);
    let warnings = loop {
        let policy = cluster.get(&path).await.ok();
        if policy["status"]["typeChecking"].is_object() {
            break policy["status"]["typeChecking"]["expressionWarnings"].clone();
        }
        assert!(Instant::now() < deadline, "no status: {policy}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(warnings.as_array().map(Vec::len), Some(1), "{warnings}");
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[1].expression");
    let text = warnings[0]["warning"].as_str().expect("text");
    assert!(text.contains("undefined field 'maxRetries'"), "{text}");
    cluster.stop().await;
}

#[rstest]
#[case::policies("ValidatingAdmissionPolicy", 400)]
#[case::webhooks("ValidatingAdmissionWebhook", 422)]
#[tokio::test]
async fn a_step_that_is_left_out_asks_nobody(#[case] step: &str, #[case] code: u16) {
    let hook = Webhook::start(|_, _| json!({"allowed": false})).await;
    let cluster = Cluster::without(&[step]).await;
    let spec = json!({"validations": [{"expression": "false"}]});
    let spec = merged(matching("", &["configmaps"]), &spec);
    cluster.policy("Validating", spec).await.ok();
    cluster.bind("Validating", json!({})).await;
    let config = json!({"clientConfig": hook.config("/")});
    cluster.configure("Validating", "v", &[config]).await;
    let answer = cluster.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code, code, "{}", answer.body);
    cluster.stop().await;
}

#[tokio::test]
async fn a_changed_policy_is_compiled_anew() {
    let cluster = Cluster::start().await;
    let spec = json!({"validations": [{"expression": "object.data.a == '1'"}]});
    let spec = merged(matching("", &["configmaps"]), &spec);
    cluster.policy("Validating", spec).await.ok();
    cluster.bind("Validating", json!({})).await;
    cluster.post(MAPS, &map("x", json!({"a": "1"}))).await.ok();
    let path = format!("{REGISTRATION}/validatingadmissionpolicies/p.example.com");
    let change = json!({"spec": {"validations": [{"expression": "object.data.a == '2'"}]}});
    cluster.merge(&path, &change).await.ok();
    assert_eq!(
        cluster.post(MAPS, &map("y", json!({"a": "1"}))).await.code,
        422
    );
    cluster.post(MAPS, &map("y", json!({"a": "2"}))).await.ok();
    cluster.stop().await;
}
