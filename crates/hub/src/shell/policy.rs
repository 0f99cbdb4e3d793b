//! Admission policies that keep names honest: what a Release or StopLine says someone has said, that one
//! has said. The hub's API server holds to them; nothing of Gantry stands between.

use gantry_api::labels;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// Entries that were not there before carry the user's own name, and no group that is not the user's.
const APPROVALS: &str = "!has(object.spec.approvals) || object.spec.approvals.all(a, \
    (oldObject != null && has(oldObject.spec.approvals) && oldObject.spec.approvals.exists(b, a == b)) || \
    (a.by == request.userInfo.username && (!has(a.groups) || a.groups.all(g, g in request.userInfo.groups))))";
const EMERGENCY: &str = "!has(object.spec.emergency) || object.spec.emergency.by == request.userInfo.username || \
    (oldObject != null && has(oldObject.spec.emergency) && oldObject.spec.emergency == object.spec.emergency)";
const STOP_LINE: &str = "object.spec.by == request.userInfo.username || \
    (oldObject != null && oldObject.spec.by == object.spec.by)";

/// Name, resource, and rules with what to say where they do not hold.
type Policy = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const POLICIES: [Policy; 2] = [
    (
        "gantry-releases",
        "releases",
        &[
            (
                APPROVALS,
                "spec.approvals: an approval is given in one's own name: by must be the user's name, and groups among the user's groups",
            ),
            (
                EMERGENCY,
                "spec.emergency.by: an emergency is declared in one's own name",
            ),
        ],
    ),
    (
        "gantry-stoplines",
        "stoplines",
        &[(STOP_LINE, "spec.by: a switch is thrown in one's own name")],
    ),
];

fn policy((name, resource, rules): &Policy) -> (Value, Value) {
    let validations: Vec<Value> = rules
        .iter()
        .map(|(expression, message)| {
            json!({"expression": expression, "message": message, "reason": "Forbidden"})
        })
        .collect();
    let rule = json!({
        "apiGroups": [gantry_api::GROUP], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
        "resources": [resource],
    });
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]}, "validations": validations},
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    (policy, binding)
}

/// Applies the policies.
///
/// # Errors
/// Where the API server refuses one.
pub async fn apply(client: &Client) -> Result<(), kube::Error> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let params = PatchParams::apply(labels::FIELD_MANAGER).force();
    for wanted in &POLICIES {
        let (policy, binding) = policy(wanted);
        policies
            .patch(wanted.0, &params, &Patch::Apply(policy))
            .await?;
        bindings
            .patch(wanted.0, &params, &Patch::Apply(binding))
            .await?;
    }
    Ok(())
}
