//! Lines of an audit log with everything in them that kube-apiserver 1.36 writes, at the levels Metadata and
//! RequestResponse: what a record learns from each.

use gantry_records::{Record, Verb, Via};
use serde_json::{Value, json};

use super::trail::{self, Trail};

const UID: &str = "6f0f3b1e-5c0e-4d8c-9f43-0c1f5f2a7d11";

/// A line as `kubectl` causes one, with a person's certificate; `more` is laid over it.
fn line(verb: &str, uri: &str, subresource: Option<&str>, more: Value) -> Value {
    let mut line = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "auditID": "0f4c1c1e-9d7b-4f4d-8d0e-0e7f8a1b2c3d",
        "stage": "ResponseComplete",
        "requestURI": uri,
        "verb": verb,
        "user": {
            "username": "dan",
            "groups": ["staff", "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": ["X509SHA256=0a1b2c"]},
        },
        "sourceIPs": ["10.0.0.7"],
        "userAgent": "kubectl/v1.36.0 (linux/amd64) kubernetes/0b1c2d3",
        "objectRef": {
            "resource": "groups", "namespace": "shop", "name": "cart",
            "apiGroup": "gantry.dev", "apiVersion": "v1alpha1",
        },
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "2026-11-21T08:00:00.512345Z",
        "stageTimestamp": "2026-11-21T08:00:00.527801Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "RBAC: allowed by …"},
    });
    if let Some(subresource) = subresource {
        line["objectRef"]["subresource"] = json!(subresource);
    }
    for (key, value) in more.as_object().into_iter().flatten() {
        line[key] = value.clone();
    }
    line
}

fn account() -> Value {
    json!({
        "username": "system:serviceaccount:ci:deployer",
        "uid": "a1b2c3d4-0000-4000-8000-000000000001",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"],
        "extra": {
            "authentication.kubernetes.io/credential-id": ["JTI=c3d4"],
            "authentication.kubernetes.io/node-name": ["node-1"],
            "authentication.kubernetes.io/pod-name": ["runner-7"],
            "authentication.kubernetes.io/pod-uid": ["b2c3"],
        },
    })
}

/// The answer where an object is gone at once.
fn gone() -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": "cart", "group": "gantry.dev", "kind": "groups", "uid": UID},
    })
}

/// The same as `responseStatus` has it, at every level.
fn told() -> Value {
    json!({"metadata": {}, "status": "Success", "details": gone()["details"], "code": 200})
}

fn record(verb: Verb) -> Record {
    let after = (verb == Verb::Scale).then(|| json!({"replicas": 5}));
    trail::tests::record(verb, UID, "1970-01-01T00:00:00Z", after)
}

#[test]
fn what_each_line_names() {
    let delete = "/apis/gantry.dev/v1alpha1/namespaces/shop/groups/cart";
    let scale =
        "/apis/gantry.dev/v1alpha1/namespaces/shop/groups/cart/scale?fieldManager=kubectl-scale";
    let options = json!({"kind": "DeleteOptions", "apiVersion": "gantry.dev/v1alpha1", "propagationPolicy": "Background"});
    let scaled = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "cart", "namespace": "shop", "uid": UID, "resourceVersion": "41",
            "creationTimestamp": "2026-11-20T08:00:00Z"},
        "spec": {"replicas": 5},
        "status": {"replicas": 3, "selector": "gantry.dev/group=cart"},
    });
    let going = json!({
        "kind": "Group", "apiVersion": "gantry.dev/v1alpha1",
        "metadata": {"name": "cart", "namespace": "shop", "uid": UID, "finalizers": ["gantry.dev/group"],
            "deletionTimestamp": "2026-11-21T08:00:00Z", "deletionGracePeriodSeconds": 0},
        "spec": {"app": "cart", "replicas": 3},
    });
    let root = json!({"username": "root", "groups": ["system:masters", "system:authenticated"]});
    let agent = "argocd-application-controller/v0.0.0 (linux/amd64) kubernetes/$Format";
    let dan = Some(("dan", Via::Kubectl));
    let ci = Some(("system:serviceaccount:ci:deployer", Via::Other));
    let eve = Some(("eve", Via::Kubectl));
    let meta = "Metadata";
    for (what, line, verb, want) in [
        (
            "kubectl delete: gone at once",
            line(
                "delete",
                delete,
                None,
                json!({"requestObject": options, "responseObject": gone(), "responseStatus": told()}),
            ),
            Verb::Delete,
            dan,
        ),
        (
            "kubectl delete: it has a finalizer",
            line(
                "delete",
                delete,
                None,
                json!({"requestObject": options, "responseObject": going}),
            ),
            Verb::Delete,
            dan,
        ),
        (
            "at Metadata the answer's details tell the UID",
            line(
                "delete",
                delete,
                None,
                json!({"level": meta, "responseStatus": told()}),
            ),
            Verb::Delete,
            dan,
        ),
        (
            "at Metadata nothing tells the UID of what goes later",
            line("delete", delete, None, json!({"level": meta})),
            Verb::Delete,
            None,
        ),
        (
            "a service account deletes",
            line(
                "delete",
                delete,
                None,
                json!({"user": account(), "userAgent": agent, "requestObject": options, "responseObject": going}),
            ),
            Verb::Delete,
            ci,
        ),
        (
            "kubectl delete --as",
            line(
                "delete",
                delete,
                None,
                json!({"user": root, "impersonatedUser": {"username": "eve", "groups": ["staff", "system:authenticated"]},
                    "responseObject": gone(), "responseStatus": told()}),
            ),
            Verb::Delete,
            eve,
        ),
        (
            "a service account acts as another",
            line(
                "delete",
                delete,
                None,
                json!({"level": meta, "user": account(), "responseStatus": told(),
                    "impersonatedUser": {"username": "eve", "groups": ["system:authenticated"], "uid": "e"}}),
            ),
            Verb::Delete,
            eve,
        ),
        (
            "kubectl delete --all",
            line(
                "deletecollection",
                "/apis/gantry.dev/v1alpha1/namespaces/shop/groups",
                None,
                json!({"objectRef": {"resource": "groups", "namespace": "shop", "apiGroup": "gantry.dev", "apiVersion": "v1alpha1"},
                    "responseObject": {"kind": "GroupList", "apiVersion": "gantry.dev/v1alpha1", "metadata": {"resourceVersion": "40"}, "items": [going]}}),
            ),
            Verb::Delete,
            dan,
        ),
        (
            "kubectl scale",
            line(
                "patch",
                scale,
                Some("scale"),
                json!({"requestObject": {"spec": {"replicas": 5}}, "responseObject": scaled}),
            ),
            Verb::Scale,
            dan,
        ),
        (
            "an autoscaler",
            line(
                "update",
                scale,
                Some("scale"),
                json!({"user": account(), "userAgent": agent, "requestObject": scaled, "responseObject": scaled}),
            ),
            Verb::Scale,
            ci,
        ),
        (
            "kubectl scale --as",
            line(
                "patch",
                scale,
                Some("scale"),
                json!({"user": root, "impersonatedUser": {"username": "eve", "groups": ["staff"]}, "responseObject": scaled}),
            ),
            Verb::Scale,
            eve,
        ),
        (
            "at Metadata nothing tells the number",
            line("patch", scale, Some("scale"), json!({"level": meta})),
            Verb::Scale,
            None,
        ),
        (
            "kubectl scale --dry-run=server",
            line(
                "patch",
                &format!("{scale}&dryRun=All"),
                Some("scale"),
                json!({"responseObject": scaled}),
            ),
            Verb::Scale,
            None,
        ),
        (
            "refused",
            line(
                "delete",
                delete,
                None,
                json!({"responseStatus": {"metadata": {}, "status": "Failure", "reason": "Forbidden", "code": 403,
                    "message": "groups.gantry.dev \"cart\" is forbidden", "details": {"name": "cart", "uid": UID}},
                    "annotations": {"authorization.k8s.io/decision": "forbid"}}),
            ),
            Verb::Delete,
            None,
        ),
        (
            "of another API group",
            line(
                "delete",
                "/apis/apps/v1/namespaces/shop/deployments/cart",
                None,
                json!({"objectRef": {"resource": "deployments", "namespace": "shop", "name": "cart", "apiGroup": "apps", "apiVersion": "v1"},
                    "responseObject": gone()}),
            ),
            Verb::Delete,
            None,
        ),
        (
            "received",
            line(
                "delete",
                delete,
                None,
                json!({"stage": "RequestReceived", "responseStatus": null}),
            ),
            Verb::Delete,
            None,
        ),
    ] {
        let mut trail = Trail::default();
        trail.hear(line.to_string().as_bytes());
        let mut record = record(verb);
        let named = trail.name(&mut record, 41);
        let got = named.then_some((record.who.user.as_str(), record.who.via));
        assert_eq!(got, want, "{what}");
        if named && line["impersonatedUser"].is_null() {
            assert_eq!(json!(record.who.groups), line["user"]["groups"], "{what}");
        }
    }
}
