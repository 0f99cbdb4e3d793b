//! `agnhost webhook`: the admission webhooks of the conformance tests. What they allow, deny and change is
//! fixed in that program; here are its rules.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::time::Duration;

/// How the server answers.
#[derive(Debug, PartialEq)]
pub enum Reply {
    /// A review, after a while.
    After(Duration, Value),
    /// Not at all: the connection stays open.
    Never,
    /// There is no such path.
    NotFound,
    /// The request is no review.
    Bad(String),
}

/// What a webhook says of a request.
enum Verdict {
    Allow,
    /// Allows and changes: a JSON patch.
    Change(Value),
    /// Denies with a status.
    Deny(Value),
}
use Verdict::{Allow, Change, Deny};

fn message(text: &str) -> Verdict {
    Deny(json!({"message": text}))
}

fn reason(text: &str) -> Verdict {
    Deny(json!({"reason": text}))
}

/// The object of a request: the old one where it is deleted.
fn object(request: &Value) -> &Value {
    match request["operation"].as_str() {
        Some("DELETE") => &request["oldObject"],
        _ => &request["object"],
    }
}

/// Answers a review that was posted to a path. `sidecar` is the image that the server was started with.
pub fn answer(path: &str, sidecar: Option<&str>, review: &Value) -> Reply {
    let request = &review["request"];
    let mut delay = Duration::ZERO;
    let verdict = match path {
        "/always-allow-delay-5s" => {
            delay = Duration::from_secs(5);
            Allow
        }
        "/always-deny" => message("this webhook denies all requests"),
        "/add-label" => add_label(request),
        "/pods" => match pods(request) {
            Some(verdict) => verdict,
            None => return Reply::Never,
        },
        "/pods/attach" => attach(request),
        "/mutating-pods" => mutate_pods(request),
        "/mutating-pods-sidecar" => add_sidecar(request, sidecar),
        "/configmaps" => data(request, "the configmap contains", "the configmap cannot"),
        "/custom-resource" => {
            let (denied, kept) = ("the custom resource contains", "the custom resource cannot");
            data(request, denied, kept)
        }
        "/mutating-configmaps" | "/mutating-custom-resource" => stages(request),
        "/crd" => crd(request),
        _ => return Reply::NotFound,
    };
    if review["kind"] != "AdmissionReview" || !request.is_object() {
        let why = format!(
            "no kind \"AdmissionReview\" in the body, but {}",
            review["kind"]
        );
        return Reply::Bad(format!("Request could not be decoded: {why}"));
    }
    let mut response = json!({"uid": request["uid"], "allowed": !matches!(verdict, Deny(_))});
    match verdict {
        Allow => {}
        Change(patch) => {
            response["patch"] = STANDARD.encode(patch.to_string()).into();
            response["patchType"] = "JSONPatch".into();
        }
        Deny(status) => response["status"] = status,
    }
    let answer = json!({
        "kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response,
    });
    Reply::After(delay, answer)
}

/// The value of a label or datum that all these webhooks look at.
const KEY: &str = "webhook-e2e-test";
const DISALLOW: &str = "webhook-disallow";

fn add_label(request: &Value) -> Verdict {
    let labels = &request["object"]["metadata"]["labels"];
    match labels.get("added-label") {
        Some(there) if there == "yes" => Allow,
        Some(_) => Change(json!([
            {"op": "replace", "path": "/metadata/labels/added-label", "value": "yes"}
        ])),
        None if labels.as_object().is_none_or(serde_json::Map::is_empty) => Change(json!([
            {"op": "add", "path": "/metadata/labels", "value": {"added-label": "yes"}}
        ])),
        None => Change(json!([
            {"op": "add", "path": "/metadata/labels/added-label", "value": "yes"}
        ])),
    }
}

/// `None`: the answer is never sent.
fn pods(request: &Value) -> Option<Verdict> {
    let pod = &request["object"];
    let mut complaints = vec![];
    match pod["metadata"]["labels"][KEY].as_str() {
        Some(DISALLOW) => complaints.push("the pod contains unwanted label;"),
        Some("wait-forever") => return None,
        _ => {}
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    for container in containers {
        if container["name"]
            .as_str()
            .is_some_and(|it| it.contains(DISALLOW))
        {
            complaints.push("the pod contains unwanted container name;");
        }
    }
    Some(match complaints.is_empty() {
        true => Allow,
        false => message(&complaints.join(" ")),
    })
}

fn attach(request: &Value) -> Verdict {
    let options = &request["object"];
    let meant = request["name"] == "to-be-attached-pod"
        && options["stdin"] == true
        && options["container"] == "container1";
    match meant {
        true => message("attaching to pod 'to-be-attached-pod' is not allowed"),
        false => Allow,
    }
}

fn has_container(list: &Value, name: &str) -> bool {
    let mut all = list.as_array().into_iter().flatten();
    all.any(|it| it["name"] == name)
}

fn mutate_pods(request: &Value) -> Verdict {
    const NAME: &str = "webhook-added-init-container";
    let pod = &request["object"];
    if pod["metadata"]["name"] != "webhook-to-be-mutated"
        || has_container(&pod["spec"]["initContainers"], NAME)
    {
        return Allow;
    }
    let added = json!([{"image": "webhook-added-image", "name": NAME, "resources": {}}]);
    Change(json!([{"op": "add", "path": "/spec/initContainers", "value": added}]))
}

fn add_sidecar(request: &Value, image: Option<&str>) -> Verdict {
    const NAME: &str = "webhook-added-sidecar";
    let Some(image) = image else {
        let said = "No image specified by the sidecar-image parameter";
        return Deny(json!({"status": "Failure", "message": said, "code": 500}));
    };
    if has_container(&request["object"]["spec"]["containers"], NAME) {
        return Allow;
    }
    let added = json!({"image": image, "name": NAME, "resources": {}});
    Change(json!([{"op": "add", "path": "/spec/containers/-", "value": added}]))
}

/// Looks at the data of an object.
fn data(request: &Value, unwanted: &str, kept: &str) -> Verdict {
    let changes = matches!(request["operation"].as_str(), Some("CREATE" | "UPDATE"));
    let deletes = request["operation"] == "DELETE";
    let what = match unwanted.contains("configmap") {
        true => "unwanted key and value",
        false => "unwanted data",
    };
    match object(request)["data"][KEY].as_str() {
        Some(DISALLOW) if changes => reason(&format!("{unwanted} {what}")),
        Some("webhook-nondeletable") if deletes => reason(&format!(
            "{kept} be deleted because it contains unwanted key and value"
        )),
        _ => Allow,
    }
}

fn stages(request: &Value) -> Verdict {
    let data = &request["object"]["data"];
    let stage = match (&data["mutation-start"], &data["mutation-stage-1"]) {
        (_, one) if one == "yes" => "2",
        (start, _) if start == "yes" => "1",
        _ => return Allow,
    };
    let path = format!("/data/mutation-stage-{stage}");
    Change(json!([{"op": "add", "path": path, "value": "yes"}]))
}

fn crd(request: &Value) -> Verdict {
    match object(request)["metadata"]["labels"][KEY].as_str() {
        Some(DISALLOW) => message("the crd contains unwanted label"),
        _ => Allow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of an object, in short.
    fn told(path: &str, operation: &str, object: &Value) -> String {
        let review = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {"uid": "u", "operation": operation, "object": object, "oldObject": object,
                "name": object["metadata"]["name"]},
        });
        match answer(path, Some("side:1"), &review) {
            Reply::After(_, answer) => {
                let response = &answer["response"];
                assert_eq!(response["uid"], "u");
                let patch = response["patch"]
                    .as_str()
                    .map(|it| String::from_utf8(STANDARD.decode(it).unwrap()).unwrap());
                match (response["allowed"] == true, patch) {
                    (true, Some(patch)) => patch,
                    (true, None) => "allowed".to_owned(),
                    (false, _) => response["status"].to_string(),
                }
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn each_webhook_keeps_its_rule() {
        let map = |key: &str, value: &str| json!({"data": {key: value}});
        let labelled = |key: &str, value: &str| json!({"metadata": {"labels": {key: value}}});
        let cases = [
            (
                "/always-deny",
                "CREATE",
                json!({}),
                r#"{"message":"this webhook denies all requests"}"#,
            ),
            ("/always-allow-delay-5s", "CREATE", json!({}), "allowed"),
            (
                "/configmaps",
                "CREATE",
                map(KEY, DISALLOW),
                r#"{"reason":"the configmap contains unwanted key and value"}"#,
            ),
            ("/configmaps", "DELETE", map(KEY, DISALLOW), "allowed"),
            (
                "/configmaps",
                "DELETE",
                map(KEY, "webhook-nondeletable"),
                r#"{"reason":"the configmap cannot be deleted because it contains unwanted key and value"}"#,
            ),
            (
                "/custom-resource",
                "UPDATE",
                map(KEY, DISALLOW),
                r#"{"reason":"the custom resource contains unwanted data"}"#,
            ),
            (
                "/custom-resource",
                "DELETE",
                map(KEY, "webhook-nondeletable"),
                r#"{"reason":"the custom resource cannot be deleted because it contains unwanted key and value"}"#,
            ),
            (
                "/mutating-configmaps",
                "CREATE",
                map("mutation-start", "yes"),
                r#"[{"op":"add","path":"/data/mutation-stage-1","value":"yes"}]"#,
            ),
            (
                "/mutating-custom-resource",
                "CREATE",
                json!({"data": {"mutation-start": "yes", "mutation-stage-1": "yes"}}),
                r#"[{"op":"add","path":"/data/mutation-stage-2","value":"yes"}]"#,
            ),
            (
                "/crd",
                "CREATE",
                labelled(KEY, DISALLOW),
                r#"{"message":"the crd contains unwanted label"}"#,
            ),
            (
                "/add-label",
                "CREATE",
                json!({"metadata": {}}),
                r#"[{"op":"add","path":"/metadata/labels","value":{"added-label":"yes"}}]"#,
            ),
            (
                "/add-label",
                "CREATE",
                labelled("a", "b"),
                r#"[{"op":"add","path":"/metadata/labels/added-label","value":"yes"}]"#,
            ),
            (
                "/add-label",
                "CREATE",
                labelled("added-label", "yes"),
                "allowed",
            ),
            ("/pods", "CREATE", labelled(KEY, "wait-forever"), "Never"),
            (
                "/pods",
                "CREATE",
                json!({"metadata": {"labels": {KEY: DISALLOW}}, "spec": {"containers": [{"name": "webhook-disallow"}]}}),
                r#"{"message":"the pod contains unwanted label; the pod contains unwanted container name;"}"#,
            ),
            (
                "/pods/attach",
                "CONNECT",
                json!({"metadata": {"name": "to-be-attached-pod"}, "stdin": true, "container": "container1"}),
                r#"{"message":"attaching to pod 'to-be-attached-pod' is not allowed"}"#,
            ),
            (
                "/mutating-pods",
                "CREATE",
                json!({"metadata": {"name": "webhook-to-be-mutated"}}),
                r#"[{"op":"add","path":"/spec/initContainers","value":[{"image":"webhook-added-image","name":"webhook-added-init-container","resources":{}}]}]"#,
            ),
            (
                "/mutating-pods",
                "CREATE",
                json!({"metadata": {"name": "another"}}),
                "allowed",
            ),
            (
                "/mutating-pods-sidecar",
                "CREATE",
                json!({}),
                r#"[{"op":"add","path":"/spec/containers/-","value":{"image":"side:1","name":"webhook-added-sidecar","resources":{}}}]"#,
            ),
            ("/elsewhere", "CREATE", json!({}), "NotFound"),
        ];
        for (path, operation, object, expected) in cases {
            assert_eq!(told(path, operation, &object), expected, "{path} {object}");
        }
    }
}
