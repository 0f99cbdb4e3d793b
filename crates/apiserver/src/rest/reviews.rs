//! Questions posed as objects: may somebody do this, who is this token, who am I.

use bytes::Bytes;
use gantry_machinery::{
    resource::Resource,
    status::{Cause, Details, Failure},
};
use serde_json::{Value, json};

mod selectors;

use super::input;
use crate::{
    admission::{asking::ask, attributes::Operation},
    api::Cx,
    authn::UserInfo,
    authz::{Attributes, Rule},
    errors, object,
    respond::{self, Reply},
    rules,
};

pub async fn create(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    input::options(cx, "CreateOptions")?;
    let resource = cx.resource().clone();
    let mut review = input::decode(cx, &resource, &body)?;
    input::place(cx, &mut review)?;
    if resource.kind != "SelfSubjectReview" {
        let manager = cx.manager();
        rules::track(cx, &resource, None, None, None, &mut review, &manager)?;
    }
    ask(cx, Operation::Create, "", &mut review).await?;
    let status = match resource.kind.as_str() {
        "SelfSubjectReview" => {
            object::set_meta(&mut review, "creationTimestamp", object::time(cx.now));
            json!({"userInfo": cx.user.to_value()})
        }
        "TokenReview" => token(cx, &review).await,
        "SelfSubjectRulesReview" => rules_of(cx, &review)?,
        _ => access(cx, &resource, &review).await?,
    };
    if let Some(map) = review.as_object_mut() {
        map.insert("kind".to_owned(), resource.kind.clone().into());
        map.insert("apiVersion".to_owned(), resource.api_version().into());
        map.entry("metadata").or_insert_with(|| json!({}));
        if resource.kind != "SelfSubjectReview" {
            map.entry("spec").or_insert_with(|| json!({}));
        }
        map.insert("status".to_owned(), status);
    }
    respond::encoded(cx.output, 201, review.to_string().into())
}

async fn token(cx: &Cx, review: &Value) -> Value {
    let token = object::text(review, "/spec/token");
    let audiences = object::strings(review.pointer("/spec/audiences"));
    let authenticator = &cx.api.authenticator;
    match authenticator.token(cx.store(), token, &audiences).await {
        Ok(known) => json!({
            "authenticated": true, "user": known.user.to_value(), "audiences": known.audiences,
        }),
        Err(why) => json!({"user": {}, "error": why}),
    }
}

fn refuse(reason: &str, field: &str, message: String) -> Failure {
    // Kubernetes leaves the kind out: its strategy for reviews does not know it.
    let kind = "";
    Failure::new(
        422,
        "Invalid",
        format!("{kind}.authorization.k8s.io \"\" is invalid: {field}: {message}"),
    )
    .with_details(Details {
        group: "authorization.k8s.io".to_owned(),
        kind: kind.to_owned(),
        causes: vec![Cause {
            reason: reason.to_owned(),
            message,
            field: field.to_owned(),
        }],
        ..Details::default()
    })
}

async fn access(cx: &Cx, resource: &Resource, review: &Value) -> Result<Value, Failure> {
    let empty = json!({});
    let spec = review.get("spec").unwrap_or(&empty);
    let of = spec.get("resourceAttributes").filter(|v| !v.is_null());
    let non = spec.get("nonResourceAttributes").filter(|v| !v.is_null());
    let both = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
    match (of, non) {
        (Some(_), Some(_)) => {
            return Err(refuse(
                "FieldValueInvalid",
                "spec.nonResourceAttributes",
                "Invalid value: cannot be specified in combination with resourceAttributes"
                    .to_owned(),
            ));
        }
        (None, None) => {
            return Err(refuse(
                "FieldValueInvalid",
                "spec.resourceAttributes",
                format!("Invalid value: null: {both}"),
            ));
        }
        _ => {}
    }
    let user = if resource.kind == "SelfSubjectAccessReview" {
        (*cx.user).clone()
    } else {
        let user = UserInfo {
            name: object::text(spec, "/user").to_owned(),
            uid: object::text(spec, "/uid").to_owned(),
            groups: object::strings(spec.get("groups")),
            extra: spec
                .get("extra")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(key, values)| (key.to_lowercase(), object::strings(Some(values))))
                .collect(),
        };
        if user.name.is_empty() && user.groups.is_empty() {
            return Err(refuse(
                "FieldValueInvalid",
                "spec.user",
                "Invalid value: \"\": at least one of user or group must be specified".to_owned(),
            ));
        }
        user
    };
    if resource.kind == "LocalSubjectAccessReview" {
        let asked = of.map_or("", |a| object::text(a, "/namespace"));
        if asked != cx.target.namespace {
            return Err(refuse(
                "FieldValueInvalid",
                "spec.resourceAttributes.namespace",
                format!("Invalid value: {asked:?}: must match metadata.namespace"),
            ));
        }
    }
    let selected = match of {
        Some(of) => {
            selectors::labels(of, &refuse)?;
            selectors::fields(of, &refuse)?
        }
        None => vec![],
    };
    let narrowed = of.filter(|_| cx.api.authorizer.asks());
    let narrowed = narrowed.and_then(selectors::told);
    let a = match (of, non) {
        (Some(a), _) => Attributes {
            verb: object::text(a, "/verb"),
            group: object::text(a, "/group"),
            version: object::text(a, "/version"),
            resource: object::text(a, "/resource"),
            subresource: object::text(a, "/subresource"),
            namespace: object::text(a, "/namespace"),
            name: object::text(a, "/name"),
            fields: &selected,
            selectors: narrowed.as_ref(),
            ..Attributes::default()
        },
        (None, Some(a)) => Attributes {
            verb: object::text(a, "/verb"),
            path: Some(object::text(a, "/path")),
            ..Attributes::default()
        },
        (None, None) => return Err(errors::bad_request(both)),
    };
    let decided = cx.api.authorizer.decide(cx.store(), &user, &a).await;
    let mut status = json!({"allowed": decided.is_ok()});
    let (reason, error) = match decided {
        Ok(reason) => (reason, None),
        Err(no) => (no.reason, no.error),
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    if let Some(error) = error {
        status["evaluationError"] = error.into();
    }
    Ok(status)
}

fn rules_of(cx: &Cx, review: &Value) -> Result<Value, Failure> {
    let namespace = object::text(review, "/spec/namespace");
    if namespace.is_empty() {
        return Err(errors::bad_request("no namespace on request"));
    }
    let held = cx.api.authorizer.rules(cx.store(), &cx.user, namespace);
    let all = held.rules;
    let list = |v: &[String]| Value::from(v.to_vec());
    let with = |rule: &Rule, fields: &[(&str, &[String])]| {
        let mut out = json!({"verbs": list(&rule.verbs)});
        for (name, values) in fields {
            if !values.is_empty() {
                out[*name] = list(values);
            }
        }
        out
    };
    let resources: Vec<Value> = all
        .iter()
        .filter(|r| !r.resources.is_empty())
        .map(|r| {
            with(
                r,
                &[
                    ("apiGroups", &r.groups),
                    ("resources", &r.resources),
                    ("resourceNames", &r.names),
                ],
            )
        })
        .collect();
    let urls: Vec<Value> = all
        .iter()
        .filter(|r| !r.urls.is_empty())
        .map(|r| with(r, &[("nonResourceURLs", &r.urls)]))
        .collect();
    let mut status = json!({
        "resourceRules": resources, "nonResourceRules": urls,
        "incomplete": held.incomplete.is_some(),
    });
    if let Some(why) = held.incomplete {
        status["evaluationError"] = why.into();
    }
    Ok(status)
}
