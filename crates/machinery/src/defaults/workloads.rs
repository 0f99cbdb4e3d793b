//! Computed defaults of workloads, autoscaling, networking, access control and storage.

use serde_json::{Map, Value, json};

use super::{Compute, set, text};

pub const COMPUTED: &[(&str, Compute)] = &[
    ("apps.v1.DeploymentStrategy", rolling),
    ("apps.v1.StatefulSetUpdateStrategy", rolling),
    ("apps.v1.DaemonSetUpdateStrategy", rolling),
    ("apps.v1.StatefulSet", stateful_set),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", autoscaler),
    ("autoscaling.v2.HorizontalPodAutoscalerBehavior", behavior),
    ("networking.v1.NetworkPolicySpec", network_policy),
    ("rbac.v1.Subject", subject),
    (
        "certificates.v1.CertificateSigningRequestSpec",
        signing_request,
    ),
];

type Object = Map<String, Value>;

fn rolling(strategy: &mut Object) {
    if matches!(text(strategy, "type"), "" | "RollingUpdate") {
        set(strategy, "rollingUpdate", json!({}));
    }
}

/// Claim templates are whole objects in Go; they carry their version and kind.
fn stateful_set(stateful: &mut Object) {
    let templates = stateful
        .get_mut("spec")
        .and_then(|s| s.get_mut("volumeClaimTemplates"))
        .and_then(Value::as_array_mut);
    for template in templates.into_iter().flatten() {
        if let Value::Object(template) = template {
            set(template, "apiVersion", "v1");
            set(template, "kind", "PersistentVolumeClaim");
        }
    }
}

fn autoscaler(spec: &mut Object) {
    let none = |v: Option<&Value>| v.is_none_or(|v| v.as_array().is_some_and(Vec::is_empty));
    if none(spec.get("metrics")) {
        spec.insert(
            "metrics".into(),
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {
                "type": "Utilization", "averageUtilization": 80}}}]),
        );
    }
}

/// Rules for one direction bring in those of the other.
fn behavior(behavior: &mut Object) {
    fill(
        behavior,
        "scaleUp",
        &[
            ("stabilizationWindowSeconds", json!(0)),
            ("selectPolicy", json!("Max")),
        ],
        json!([{"type": "Pods", "value": 4, "periodSeconds": 15},
               {"type": "Percent", "value": 100, "periodSeconds": 15}]),
    );
    fill(
        behavior,
        "scaleDown",
        &[("selectPolicy", json!("Max"))],
        json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
    );
}

fn fill(behavior: &mut Object, name: &str, constants: &[(&str, Value)], policies: Value) {
    let rules = behavior.entry(name).or_insert_with(|| json!({}));
    let Value::Object(rules) = rules else { return };
    for (name, value) in constants {
        set(rules, name, value.clone());
    }
    set(rules, "policies", policies);
}

/// Ingress always counts; egress when the policy says something about it.
fn network_policy(spec: &mut Object) {
    if spec.get("policyTypes").is_none() {
        let mut types = vec![Value::from("Ingress")];
        if spec.contains_key("egress") {
            types.push(Value::from("Egress"));
        }
        spec.insert("policyTypes".into(), Value::Array(types));
    }
}

fn subject(subject: &mut Object) {
    if matches!(text(subject, "kind"), "User" | "Group") {
        set(subject, "apiGroup", "rbac.authorization.k8s.io");
    }
}

fn signing_request(spec: &mut Object) {
    if !spec.contains_key("usages") {
        spec.insert(
            "usages".into(),
            json!(["digital signature", "key encipherment"]),
        );
    }
}
