//! Admission policies that keep names honest: what an object says someone has said, that one has said; and who
//! last changed it, the API server itself writes down. Nothing of Gantry stands between.

use gantry_api::labels;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use tracing::warn;

/// Entries that were not there before carry the user's own name, and no group that is not the user's.
const APPROVALS: &str = "!has(object.spec.approvals) || object.spec.approvals.all(a, \
    (oldObject != null && has(oldObject.spec.approvals) && oldObject.spec.approvals.exists(b, a == b)) || \
    (a.by == request.userInfo.username && (!has(a.groups) || a.groups.all(g, g in request.userInfo.groups))))";
const EMERGENCY: &str = "!has(object.spec.emergency) || object.spec.emergency.by == request.userInfo.username || \
    (oldObject != null && has(oldObject.spec.emergency) && oldObject.spec.emergency == object.spec.emergency)";
const PROMOTE: &str = "!has(object.spec.promote) || !has(object.spec.promote.override) || oldObject != null || \
    object.spec.promote.override.by == request.userInfo.username";
const INSTANCES: &str = "!has(object.spec.instances) || object.spec.instances.all(i, \
    (oldObject != null && has(oldObject.spec.instances) && oldObject.spec.instances.exists(j, i == j)) || \
    (has(i.by) && i.by == request.userInfo.username))";
const STOP_LINE: &str = "object.spec.by == request.userInfo.username || \
    (oldObject != null && oldObject.spec.by == object.spec.by)";
const FREEZES: &str = "!has(object.spec.freezes) || object.spec.freezes.all(f, f.by == request.userInfo.username || \
    (oldObject != null && has(oldObject.spec.freezes) && oldObject.spec.freezes.exists(g, f == g)))";
/// An admin of a tenant changes roles and freezes. What the tenant gets of the fleet takes the verb `limit`, which
/// no role of a tenant has.
const LIMITS: &str = "oldObject == null || \
    (has(object.spec.namespaces) == has(oldObject.spec.namespaces) && has(object.spec.quotas) == has(oldObject.spec.quotas) && \
    (!has(object.spec.namespaces) || object.spec.namespaces == oldObject.spec.namespaces) && \
    (!has(object.spec.quotas) || object.spec.quotas == oldObject.spec.quotas)) || \
    authorizer.group('gantry.dev').resource('tenants').name(oldObject.metadata.name).check('limit').allowed()";
const NO_GROUPS: &str =
    "!has(oldObject.status) || !has(oldObject.status.groups) || oldObject.status.groups == 0";

/// Name, resource, operations, and rules with what to say where they do not hold.
type Policy = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

const WRITES: &[&str] = &["CREATE", "UPDATE"];

const POLICIES: [Policy; 5] = [
    (
        "gantry-groups",
        "groups",
        WRITES,
        &[(
            INSTANCES,
            "spec.instances: what is wished for an instance is wished in one's own name: by must be the user's name",
        )],
    ),
    (
        "gantry-releases",
        "releases",
        WRITES,
        &[
            (
                APPROVALS,
                "spec.approvals: an approval is given in one's own name: by must be the user's name, and groups among the user's groups",
            ),
            (
                EMERGENCY,
                "spec.emergency.by: an emergency is declared in one's own name",
            ),
            (
                PROMOTE,
                "spec.promote.override.by: the order of environments is overridden in one's own name",
            ),
        ],
    ),
    (
        "gantry-stoplines",
        "stoplines",
        WRITES,
        &[(STOP_LINE, "spec.by: a switch is thrown in one's own name")],
    ),
    (
        "gantry-tenants",
        "tenants",
        WRITES,
        &[
            (
                FREEZES,
                "spec.freezes: a freeze is declared in one's own name",
            ),
            (
                LIMITS,
                "spec: namespaces and quotas of a tenant are changed by those who may limit tenants",
            ),
        ],
    ),
    (
        "gantry-tenants-in-use",
        "tenants",
        &["DELETE"],
        &[(
            NO_GROUPS,
            "the tenant has Groups: delete them before the tenant",
        )],
    ),
];

fn policy((name, resource, operations, rules): &Policy) -> (Value, Value) {
    let validations: Vec<Value> = rules
        .iter()
        .map(|(expression, message)| {
            json!({"expression": expression, "message": message, "reason": "Forbidden"})
        })
        .collect();
    let rule = json!({
        "apiGroups": [gantry_api::GROUP], "apiVersions": ["*"], "operations": operations,
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

/// Name of the policy that stamps.
const STAMPS: &str = "gantry-stamps";

/// The policy that writes down who changed a spec. Where the spec stays as it was, the stamps stay as they were:
/// a write that changes nothing goes on changing nothing, and nobody stamps in another's name.
fn stamps() -> (Value, Value) {
    let old = |key: &str| {
        format!(
            "oldObject != null && has(oldObject.metadata.annotations) && '{key}' in oldObject.metadata.annotations"
        )
    };
    let (by, groups, from) = (
        labels::CHANGED_BY,
        labels::CHANGED_BY_GROUPS,
        labels::CHANGED_FROM,
    );
    // Always something, so that what someone has made up never stays.
    let operation = |key: &str, fresh: &str| {
        format!(
            "JSONPatch{{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('{key}'), \
             value: variables.changed ? ({fresh}) : ({has_old} ? oldObject.metadata.annotations['{key}'] : '')}}",
            has_old = old(key),
        )
    };
    let expression = format!(
        "[JSONPatch{{op: 'add', path: '/metadata/annotations', \
         value: has(object.metadata.annotations) ? object.metadata.annotations : {{}}}}, {}, {}, {}]",
        operation(by, "request.userInfo.username"),
        operation(
            groups,
            "has(request.userInfo.groups) ? request.userInfo.groups.join(',') : ''"
        ),
        operation(
            from,
            "oldObject == null ? '' : oldObject.metadata.resourceVersion"
        ),
    );
    let note = labels::DELETE_NOTE;
    let changed = format!(
        "oldObject == null || has(object.spec) != has(oldObject.spec) || \
         (has(object.spec) && object.spec != oldObject.spec) || \
         (has(object.metadata.annotations) && '{note}' in object.metadata.annotations && \
         !({has_old} && oldObject.metadata.annotations['{note}'] == object.metadata.annotations['{note}']))",
        has_old = old(note),
    );
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": STAMPS},
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [gantry_api::GROUP], "apiVersions": ["*"], "operations": WRITES, "resources": ["*"],
            }]},
            "variables": [{"name": "changed", "expression": changed}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": STAMPS},
        "spec": {"policyName": STAMPS},
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
    let (policy, binding) = stamps();
    for object in [policy, binding] {
        let kind = object["kind"].as_str().unwrap_or_default();
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
        match api.patch(STAMPS, &params, &Patch::Apply(object)).await {
            Ok(_) => {}
            // Before Kubernetes 1.36 there are none of this version.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                warn!(
                    "the hub's API server has no mutating admission policies: records do not say who changed what"
                );
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
