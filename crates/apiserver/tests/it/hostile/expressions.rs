//! Expressions that mean harm.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Hostile, send, start};

/// Expressions of CEL that are deep, long, or cost more than they look.
fn expressions() -> Vec<String> {
    let many = |one: &str, times: usize| one.repeat(times);
    let mut all: Vec<String> = [
        "self.a == 'b'",
        "self.a.matches('^(a+)+$')",
        "self.a.matches('(')",
        "self.b.all(x, self.b.all(y, self.b.all(z, x == y || y == z || x != z)))",
        "self.b.map(x, self.b.map(y, x + y)).size() > 0",
        "self.a + self.a + self.a + self.a == self.a",
        "self.a.replace('a', self.a).replace('a', self.a).size() >= 0",
        "self.a.split('').join(self.a).split('').size() > 0",
        "self.f / 0 == 1",
        "9223372036854775807 + self.f > 0",
        "-9223372036854775808 / -1 == 0",
        "-(-9223372036854775807 - 1) > 0",
        "self.b[-1] == ''",
        "self.b[9223372036854775807] == ''",
        "uint(-1) > 0u",
        "int(1e308) > 0",
        "double('NaN') == double('NaN')",
        "duration('9999999999h') > duration('1s')",
        "timestamp('9999-12-31T23:59:59Z') + duration('1000000h') > timestamp('0001-01-01T00:00:00Z')",
        "quantity('1e999999999').isGreaterThan(quantity('1'))",
        "'\\U0010FFFF\\000' == self.a",
        "b'\\xff' == bytes(self.a)",
        "self.nope.nope",
        "self",
        "",
        "has(self.e.x) ? self.e.x[0] == 1 : true",
        "self.e == self",
        "oldSelf.a == self.a",
        "cel.bind(x, cel.bind(x, self.a, x + x), x + x).size() > 0",
        "[1, 2, 3].exists_one(x, x == 1) && {'a': [1u, 2, 'x']}.size() == 1",
        "type(self.a) == string && dyn(self.f) == 1.0",
        "url('http://[::1').getHost() == ''",
        "ip('999.1.1.1').family() == 4",
        "self.a.format([1]) == '%s'",
        "'%.999999999f'.format([1.0]) == ''",
        "'%s%s%s'.format([self.a]) == ''",
        "self.a.substring(-1) == ''",
        "self.a.charAt(9999999999) == ''",
        "self.a.indexOf('', -9223372036854775808) == 0",
        "\u{0}",
        "\u{202e}self",
    ]
    .map(str::to_owned)
    .to_vec();
    for times in [50, 5_000, 100_000] {
        all.extend([
            many("(", times) + "true" + &many(")", times),
            many("!", times) + "true",
            many("-", times) + "1 > 0",
            many("[", times) + &many("]", times) + " == []",
            many("{'a': ", times) + "1" + &many("}", times) + " == {}",
            "self".to_owned() + &many(".e", times),
            "self.a".to_owned() + &many(" + self.a", times) + " == ''",
            "true".to_owned() + &many(" && true", times),
            many("true ? true : ", times) + "true",
            many("self.b.all(x, ", times) + "true" + &many(")", times),
            "self.b".to_owned() + &many("[0]", times) + " == ''",
            "'".to_owned() + &many("x", times) + "' == self.a",
            many("'", times),
            "size(".repeat(times) + "self.b" + &many(")", times) + " > 0",
        ]);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_expressions_are_refused_or_harmless() {
    let server = start().await;
    let client = server.client();
    let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
    let spec = json!({
        "a": "a".repeat(2000) + "!", "b": (0..200).map(|i| i.to_string()).collect::<Vec<_>>(),
        "e": {"x": [1]}, "f": 1,
    });
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    for (run, rule) in expressions().into_iter().enumerate() {
        let (group, plural) = ("example.com", format!("es{run}"));
        let mut post = async |uri: &str, object: &Value| {
            let hostile = Hostile {
                method: "POST",
                uri: uri.to_owned(),
                media: "application/json".to_owned(),
                accept: "application/json".to_owned(),
                body: object.to_string().into_bytes(),
            };
            let code = send(&client, &hostile).await.expect("answered");
            *codes.entry(code).or_default() += 1;
            code
        };
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Cluster",
                "names": {"plural": plural, "singular": format!("e{run}"), "kind": format!("E{run}"), "listKind": format!("E{run}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": {
                        "type": "object",
                        "x-kubernetes-validations": [{"rule": rule, "messageExpression": "'x' + self.a"}],
                        "properties": {
                            "a": {"type": "string", "maxLength": 5000},
                            "b": {"type": "array", "maxItems": 500, "items": {"type": "string", "maxLength": 10}},
                            "e": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                            "f": {"type": "integer"},
                        },
                    }},
                }}}],
            },
        });
        let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        if post(crds, &definition).await == 201 {
            let object = json!({
                "apiVersion": format!("{group}/v1"), "kind": format!("E{run}"),
                "metadata": {"name": "x"}, "spec": spec,
            });
            post(&format!("/apis/{group}/v1/{plural}"), &object).await;
        }
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": format!("p{run}")},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"],
                }]},
                "variables": [{"name": "v", "expression": rule.replace("self", "object")}],
                "validations": [{"expression": rule.replace("self", "object"), "messageExpression": rule}],
                "matchConditions": [{"name": "m", "expression": rule}],
            },
        });
        if post(policies, &policy).await == 201 {
            let binding = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": format!("p{run}")},
                "spec": {"policyName": format!("p{run}"), "validationActions": ["Deny"]},
            });
            let bindings =
                "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
            post(bindings, &binding).await;
            let secret = json!({"metadata": {"name": format!("s{run}")}, "stringData": {"a": "b"}});
            post("/api/v1/namespaces/default/secrets", &secret).await;
            let gone = Hostile {
                method: "DELETE",
                uri: format!("{bindings}/p{run}"),
                media: "application/json".to_owned(),
                accept: "application/json".to_owned(),
                body: vec![],
            };
            send(&client, &gone).await;
        }
    }
    println!("expressions, by code: {codes:?}");
    assert!(codes.get(&201).is_some_and(|n| *n > 0), "{codes:?}");
    server.shutdown().await;
}
