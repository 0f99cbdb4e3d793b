//! Policies on requests: what they say, change and find wrong.

use serde_json::{Value as Json, json};

use super::*;
use crate::{
    cel::{Answer, Authorizer, Question},
    resource::{Resource, builtin_resources},
};

/// Allows what is asked about pods.
struct Pods;

impl Authorizer for Pods {
    fn ask(&self, question: &Question) -> Answer {
        Answer {
            allowed: question.resource == "pods" && question.verb == "get",
            reason: "because".to_owned(),
            error: None,
        }
    }
}

fn deployment() -> Json {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"a": "b"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]},
        }},
    })
}

fn with<R>(object: &Json, params: &Json, f: impl FnOnce(&Input<'_>) -> R) -> R {
    let request = json!({
        "operation": "CREATE", "name": "d", "namespace": "n",
        "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "userInfo": {"username": "ann", "groups": ["devs"]}, "dryRun": false,
        "options": {"kind": "CreateOptions"},
    });
    let namespace = json!({"metadata": {"name": "n", "labels": {"env": "prod"}}, "status": {"phase": "Active"}});
    f(&Input {
        object,
        old: &Json::Null,
        params,
        request: &request,
        namespace: &namespace,
        authorizer: &Pods,
        resource: Question {
            resource: "pods".to_owned(),
            ..Question::default()
        },
    })
}

fn says(spec: Json) -> Outcome {
    with(&deployment(), &Json::Null, |input| {
        Validator::compile(&spec).validate(input)
    })
}

/// The denial by a policy with this expression alone.
fn denial(expression: &str) -> Option<String> {
    let outcome = says(json!({"validations": [{"expression": expression}]}));
    outcome.decisions[0].denial.clone()
}

#[test]
fn expressions_read_the_request_the_namespace_and_the_authorizer() {
    for expression in [
        "object.spec.replicas == 3",
        "oldObject == null",
        "request.operation == 'CREATE' && request.namespace == 'n'",
        "request.kind.kind == 'Deployment'",
        "request.userInfo.username == 'ann' && 'devs' in request.userInfo.groups",
        "!request.dryRun && request.options.kind == 'CreateOptions'",
        "!has(request.subResource)",
        "namespaceObject.metadata.labels['env'] == 'prod'",
        "namespaceObject.metadata.labels.env == 'prod'",
        "authorizer.group('').resource('pods').check('get').allowed()",
        "!authorizer.group('').resource('nodes').check('get').allowed()",
        "authorizer.requestResource.check('get').reason() == 'because'",
        "object.spec.template.spec.containers.all(c, c.image.contains(':'))",
    ] {
        assert_eq!(denial(expression), None, "{expression}");
    }
}

#[test]
fn what_cannot_be_evaluated_denies_in_kubernetes_words() {
    for (expression, expected) in [
        (
            "object.spec.replicas > 5",
            "failed expression: object.spec.replicas > 5",
        ),
        (
            "object.spec.nothing > 5",
            "expression 'object.spec.nothing > 5' resulted in error: no such key: nothing",
        ),
        (
            "object.spec.replicas",
            "compilation error: must evaluate to bool but got dyn",
        ),
        (
            "params.a == 1",
            "compilation error: compilation failed: ERROR: <input>:1:1: undeclared reference to 'params'",
        ),
    ] {
        let denial = denial(expression).expect(expression);
        assert!(denial.starts_with(expected), "{denial}");
    }
    let ignored = says(json!({
        "failurePolicy": "Ignore", "validations": [{"expression": "object.spec.nothing > 5"}],
    }));
    assert_eq!(ignored.decisions[0].denial, None);
}

#[test]
fn messages_come_from_expressions_then_texts_then_the_expression() {
    for (message, expression, expected) in [
        (
            json!(null),
            json!("'has ' + string(object.spec.replicas)"),
            "has 3",
        ),
        (
            json!("too few"),
            json!("string(object.spec.none)"),
            "too few",
        ),
        (json!("too few"), json!("'two\\nlines'"), "too few"),
        (json!(null), json!(null), "failed expression: false"),
    ] {
        let outcome = says(json!({"validations": [{
            "expression": "false", "message": message, "messageExpression": expression, "reason": "Forbidden",
        }]}));
        let decision = &outcome.decisions[0];
        assert_eq!(decision.denial.as_deref(), Some(expected));
        assert_eq!(decision.reason, "Forbidden");
    }
}

#[test]
fn variables_are_evaluated_where_they_are_read() {
    let variables = json!([
        {"name": "replicas", "expression": "object.spec.replicas"},
        {"name": "odd", "expression": "variables.replicas % 2 == 1"},
        {"name": "broken", "expression": "object.spec.nothing"},
    ]);
    let outcome = says(json!({"variables": variables, "validations": [
        {"expression": "variables.odd"},
        {"expression": "variables.replicas < 2"},
        {"expression": "variables.broken == 1"},
    ]}));
    let denials: Vec<Option<&str>> = outcome
        .decisions
        .iter()
        .map(|d| d.denial.as_deref())
        .collect();
    assert_eq!(
        denials,
        [
            None,
            Some("failed expression: variables.replicas < 2"),
            Some(
                "expression 'variables.broken == 1' resulted in error: composited variable \"broken\" fails to evaluate: no such key: nothing"
            ),
        ]
    );
}

#[test]
fn conditions_decide_whether_there_is_anything_to_say() {
    let condition = |text: &str| json!([{"name": "c", "expression": text}]);
    let outcome = |condition: Json, policy: &str| {
        says(json!({
            "failurePolicy": policy, "matchConditions": condition, "validations": [{"expression": "false"}],
        }))
    };
    assert_eq!(
        outcome(condition("object.metadata.name == 'other'"), "Fail"),
        Outcome::default()
    );
    assert_eq!(outcome(condition("true"), "Fail").decisions.len(), 1);
    let wrong = outcome(condition("object.metadata.none == 'x'"), "Fail");
    let expected = "expression 'object.metadata.none == 'x'' resulted in error: no such key: none";
    assert_eq!(wrong.decisions[0].denial.as_deref(), Some(expected));
    let wrong = outcome(condition("object.metadata.none == 'x'"), "Ignore");
    assert_eq!(wrong.decisions[0].denial, None);
}

#[test]
fn parameters_and_annotations() {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.most)", "messageExpression": "'at most ' + params.data.most"}],
        "auditAnnotations": [
            {"key": "most", "valueExpression": "'at most ' + params.data.most"},
            {"key": "none", "valueExpression": "null"},
        ],
    });
    let params = json!({"data": {"most": "2"}});
    let outcome = with(&deployment(), &params, |input| {
        Validator::compile(&spec).validate(input)
    });
    assert_eq!(outcome.decisions[0].denial.as_deref(), Some("at most 2"));
    let annotation = Annotation {
        key: "most".to_owned(),
        value: Ok("at most 2".to_owned()),
    };
    assert_eq!(outcome.annotations, [annotation]);
}

#[test]
fn a_policy_that_costs_too_much_is_stopped() {
    // Each validation alone is affordable, all of them are not.
    let one = json!({"expression": "[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(b, [0,1,2,3,4,5,6,7,8,9].all(c, [0,1,2,3,4,5,6,7,8,9].all(d, [0,1,2,3,4,5,6,7,8,9].all(e, a + b + c + d + e >= 0)))))"});
    let all: Vec<Json> = vec![one; 30];
    let outcome = says(json!({"validations": all}));
    let denial = outcome.decisions[0].denial.clone().expect("denied");
    assert!(denial.contains("running out of cost budget"), "{denial}");
}

fn resource(kind: &str) -> &'static Resource {
    let all = builtin_resources().iter();
    all.map(|r| &**r)
        .find(|r| r.kind == kind)
        .expect("built in")
}

fn mutated(mutation: Json) -> Result<Json, String> {
    let spec = json!({"mutations": [mutation]});
    let object = deployment();
    let change = with(&object, &Json::Null, |input| {
        Mutator::compile(&spec).change(0, input)
    })?;
    change.apply(resource("Deployment").schema(), &object)
}

#[test]
fn configurations_are_merged_into_objects() {
    let configuration = |text: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": text}});
    let text = r#"Object{
        metadata: Object.metadata{labels: {"x": "y"}},
        spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
            containers: [Object.spec.template.spec.containers{name: "side", image: object.spec.template.spec.containers[0].image}]
        }}}
    }"#;
    let new = mutated(configuration(text)).expect("changed");
    assert_eq!(new["metadata"]["labels"], json!({"a": "b", "x": "y"}));
    let names: Vec<&Json> = new["spec"]["template"]["spec"]["containers"]
        .as_array()
        .expect("containers")
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&&json!("side")) && names.contains(&&json!("c")));
    for (text, expected) in [
        (
            "Object{spec: Object.wrong{}}",
            "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\"",
        ),
        ("1", "must evaluate to Object but got int"),
        (
            "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {\"x\": \"y\"}}}}",
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
        ),
    ] {
        let why = mutated(configuration(text)).expect_err(expected);
        assert!(why.starts_with(expected), "{why}");
    }
}

#[test]
fn patches_are_made_of_structures() {
    let patch = |text: &str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": text}});
    let new = mutated(patch(
        r#"[
            JSONPatch{op: "test", path: "/spec/replicas", value: 3},
            JSONPatch{op: "replace", path: "/spec/replicas", value: object.spec.replicas + 1},
            JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("x/y~"), value: "z"}
        ]"#,
    ))
    .expect("changed");
    assert_eq!(new["spec"]["replicas"], 4);
    assert_eq!(new["metadata"]["labels"]["x/y~"], "z");
    let same = mutated(patch(
        r#"[JSONPatch{op: "test", path: "/spec/replicas", value: 9}, JSONPatch{op: "remove", path: "/spec"}]"#,
    ));
    assert_eq!(same, Ok(deployment()));
    let why =
        mutated(patch(r#"[JSONPatch{op: "remove", path: "/nothing"}]"#)).expect_err("missing");
    assert!(
        why.starts_with("JSON Patch: remove operation does not apply"),
        "{why}"
    );
    let why = mutated(patch(r#"[{"op": "remove"}]"#)).expect_err("no structure");
    assert!(
        why.starts_with("must evaluate to list(JSONPatch) but got"),
        "{why}"
    );
}

#[test]
fn expressions_are_checked_against_the_kinds_they_are_about() {
    let policy = json!({"spec": {
        "matchConstraints": {"resourceRules": [
            {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "*/scale"]},
            {"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]},
        ]},
        "variables": [{"name": "n", "expression": "object.spec.replicas"}],
        "validations": [
            {"expression": "object.spec.replicas > 1 && object.metadata.name != ''"},
            {"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas"},
            {"expression": "object.spec.nothing == 1"},
            {"expression": "variables.n == 'x'"},
        ],
    }});
    let expected = ("apps".to_owned(), "v1".to_owned(), "deployments".to_owned());
    assert_eq!(kinds_to_check(&policy), [expected]);
    let warnings = check_types(&policy, &[resource("Deployment")], |_, _| None);
    let fields: Vec<&Json> = warnings.iter().map(|w| &w["fieldRef"]).collect();
    assert_eq!(
        fields,
        [
            "spec.validations[1].expression",
            "spec.validations[1].messageExpression",
            "spec.validations[2].expression",
            "spec.validations[3].expression",
        ]
    );
    for (i, expected) in [
        "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'",
        "found no matching overload for '_+_' applied to '(string, int)'",
        "undefined field 'nothing'",
        "found no matching overload for '_==_' applied to '(int, string)'",
    ]
    .iter()
    .enumerate()
    {
        let warning = warnings[i]["warning"].as_str().expect("text");
        assert!(warning.contains(expected), "{warning}");
    }
}
