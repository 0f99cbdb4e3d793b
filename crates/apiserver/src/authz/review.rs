//! What an authorization webhook is asked and answers: SubjectAccessReviews.

use gantry_machinery::selector::{FieldOperator, Fields, Labels, Operator};
use serde_json::{Map, Value, json};

use super::Attributes;
use crate::authn::UserInfo;

/// The version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spoken {
    #[default]
    V1,
    V1beta1,
}

/// The selectors of a request as a review names them, `None` without any. What cannot be read narrows
/// nothing.
pub fn selectors(fields: &str, labels: &str) -> Option<Value> {
    let mut all = Map::new();
    if let Ok(fields) = Fields::parse(fields)
        && !fields.is_everything()
    {
        let each = fields.requirements().iter().map(|r| {
            let operator = match r.operator {
                FieldOperator::Equals => "In",
                FieldOperator::NotEquals => "NotIn",
            };
            json!({"key": r.path, "operator": operator, "values": [r.value]})
        });
        let each: Value = each.collect();
        all.insert("fieldSelector".to_owned(), json!({"requirements": each}));
    }
    if let Ok(labels) = Labels::parse(labels) {
        let each: Vec<Value> = labels
            .requirements()
            .iter()
            .filter_map(|r| {
                let operator = match r.operator {
                    Operator::Equals | Operator::DoubleEquals | Operator::In => "In",
                    Operator::NotEquals | Operator::NotIn => "NotIn",
                    Operator::Exists => "Exists",
                    Operator::DoesNotExist => "DoesNotExist",
                    Operator::GreaterThan | Operator::LessThan => return None,
                };
                let mut out = json!({"key": r.key, "operator": operator});
                if !r.values.is_empty() {
                    out["values"] = r.values.clone().into();
                }
                Some(out)
            })
            .collect();
        if !each.is_empty() {
            all.insert("labelSelector".to_owned(), json!({"requirements": each}));
        }
    }
    (!all.is_empty()).then_some(Value::Object(all))
}

/// The spec of a review with every text, be it empty, as conditions see it.
pub fn spec(user: &UserInfo, a: &Attributes<'_>) -> Value {
    let mut spec = json!({
        "user": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
    });
    match a.path {
        Some(path) => spec["nonResourceAttributes"] = json!({"path": path, "verb": a.verb}),
        None => {
            let mut of = json!({
                "namespace": a.namespace, "verb": a.verb, "group": a.group, "version": a.version,
                "resource": a.resource, "subresource": a.subresource, "name": a.name,
            });
            for (key, value) in a.selectors.and_then(Value::as_object).into_iter().flatten() {
                of[key] = value.clone();
            }
            spec["resourceAttributes"] = of;
        }
    }
    spec
}

/// The same as it is sent: without what is empty.
pub fn sent(spec: Value, spoken: Spoken) -> Value {
    let Value::Object(mut spec) = spec else {
        return spec;
    };
    for part in ["resourceAttributes", "nonResourceAttributes"] {
        if let Some(Value::Object(part)) = spec.get_mut(part) {
            part.retain(|_, value| !is_empty(value));
        }
    }
    spec.retain(|key, value| key.ends_with("Attributes") || !is_empty(value));
    let version = match spoken {
        Spoken::V1 => "v1",
        Spoken::V1beta1 => {
            if let Some(groups) = spec.remove("groups") {
                spec.insert("group".to_owned(), groups);
            }
            "v1beta1"
        }
    };
    json!({
        "kind": "SubjectAccessReview",
        "apiVersion": format!("authorization.k8s.io/{version}"),
        "metadata": {},
        "spec": spec,
        "status": {"allowed": false},
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        other => other.is_null(),
    }
}

/// What a webhook says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub allowed: bool,
    pub denied: bool,
    pub reason: String,
}

/// The status of an answer.
///
/// # Errors
/// Why it is none.
pub fn answer(body: &[u8]) -> Result<Status, String> {
    let review: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let text = |name: &str| review.get(name).and_then(Value::as_str).unwrap_or_default();
    let known = text("apiVersion").starts_with("authorization.k8s.io/");
    if text("kind") != "SubjectAccessReview" || !known {
        return Err(format!(
            "the answer is {:?} of {:?}, not a SubjectAccessReview",
            text("kind"),
            text("apiVersion")
        ));
    }
    let status = |name: &str| review.get("status").and_then(|s| s.get(name));
    let said = |name: &str| match status(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(said)) => Ok(*said),
        Some(_) => Err(format!("status.{name} of the answer is not a boolean")),
    };
    Ok(Status {
        allowed: said("allowed")?,
        denied: said("denied")?,
        reason: status("reason")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_is_what_kubernetes_sends() {
        let user = UserInfo::new("ann", &["dev"]);
        let narrowed = selectors("spec.nodeName=n,status.phase!=Failed", "a in (x,y),!b");
        let a = Attributes {
            verb: "list",
            version: "v1",
            resource: "pods",
            namespace: "default",
            selectors: narrowed.as_ref(),
            ..Attributes::default()
        };
        let expected = json!({
            "user": "ann",
            "groups": ["dev"],
            "resourceAttributes": {
                "namespace": "default", "verb": "list", "version": "v1", "resource": "pods",
                "fieldSelector": {"requirements": [
                    {"key": "spec.nodeName", "operator": "In", "values": ["n"]},
                    {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]},
                ]},
                "labelSelector": {"requirements": [
                    {"key": "a", "operator": "In", "values": ["x", "y"]},
                    {"key": "b", "operator": "DoesNotExist"},
                ]},
            },
        });
        let review = sent(spec(&user, &a), Spoken::V1);
        assert_eq!(review["spec"], expected);
        assert_eq!(review["apiVersion"], "authorization.k8s.io/v1");
        let older = sent(spec(&user, &a), Spoken::V1beta1);
        assert_eq!(older["spec"]["group"], json!(["dev"]));
        let path = Attributes {
            verb: "get",
            path: Some("/metrics"),
            ..Attributes::default()
        };
        assert_eq!(
            sent(spec(&UserInfo::default(), &path), Spoken::V1)["spec"],
            json!({"nonResourceAttributes": {"path": "/metrics", "verb": "get"}})
        );
    }

    #[test]
    fn answers_are_read_strictly() {
        let body = |status: Value| {
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status})
                .to_string()
        };
        let status = answer(body(json!({"allowed": true, "reason": "r"})).as_bytes()).unwrap();
        assert!(status.allowed && !status.denied && status.reason == "r");
        assert!(!answer(body(json!({})).as_bytes()).unwrap().allowed);
        for bad in [
            "",
            "{}",
            &body(json!({"allowed": "true"})),
            r#"{"apiVersion": "v1", "kind": "Status"}"#,
        ] {
            assert!(answer(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
