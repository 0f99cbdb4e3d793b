//! AdmissionReview v1: what a webhook is asked, and what its answer means. No I/O.

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_machinery::status::{Cause, Details, Failure};
use serde_json::{Value, json};

use crate::{
    admission::attributes::{Attributes, Gvk, Gvr},
    object,
};

/// The resource as which a webhook is asked: that of the request or an equivalent one.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub resource: Gvr,
    pub kind: Gvk,
}

/// What a request is, without its objects.
pub fn parts(attributes: &Attributes, asked: &Asked) -> Value {
    let mut request = json!({
        "kind": asked.kind.to_value(),
        "resource": asked.resource.to_value(),
        "requestKind": attributes.kind.to_value(),
        "requestResource": attributes.resource.to_value(),
        "operation": attributes.operation.name(),
        "userInfo": attributes.user.to_value(),
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    });
    for (field, value) in [
        ("subResource", &attributes.subresource),
        ("requestSubResource", &attributes.subresource),
        ("name", &attributes.name),
        ("namespace", &attributes.namespace),
    ] {
        if !value.is_empty() {
            request[field] = value.clone().into();
        }
    }
    request
}

/// The review that is sent.
pub fn request(
    spoken: &str,
    uid: &str,
    attributes: &Attributes,
    asked: &Asked,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Value {
    let mut request = parts(attributes, asked);
    request["uid"] = uid.into();
    request["object"] = json!(object);
    request["oldObject"] = json!(old);
    let version = format!("admission.k8s.io/{spoken}");
    json!({"kind": "AdmissionReview", "apiVersion": version, "request": request})
}

/// An answer that is well-formed.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub verdict: Verdict,
    /// Keys as the webhook gives them.
    pub annotations: Vec<(String, String)>,
    pub warnings: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Allowed,
    /// A JSON patch for the object.
    Patched(Vec<u8>),
    Denied(Box<Failure>),
}

fn of_kind(review: &Value) -> String {
    let (group, version) = object::text(review, "/apiVersion")
        .split_once('/')
        .unwrap_or(("", object::text(review, "/apiVersion")));
    format!("{group}/{version}, Kind={}", object::text(review, "/kind"))
}

/// Reads the answer of a webhook.
///
/// # Errors
/// What is wrong with it, in Kubernetes' words.
pub fn answer(
    hook: &str,
    spoken: &str,
    uid: &str,
    mutating: bool,
    body: &[u8],
) -> Result<Answer, String> {
    // v1beta1 does not ask for the uid, the kind and the type of the patch.
    let strict = spoken == "v1";
    let review: Value = serde_json::from_slice(body).map_err(|e| {
        let what = if e.is_eof() {
            "unexpected end of JSON input".to_owned()
        } else {
            e.to_string()
        };
        format!("couldn't get version/kind; json parse error: {what}")
    })?;
    let response = match review.get("response") {
        Some(response) if response.is_object() => response,
        _ => return Err("webhook response was absent".to_owned()),
    };
    let given = object::text(response, "/uid");
    if strict && given != uid {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let kind = of_kind(&review);
    const WANTED: &str = "admission.k8s.io/v1, Kind=AdmissionReview";
    if strict && kind != WANTED {
        return Err(format!("expected webhook response of {WANTED}, got {kind}"));
    }
    let patch = object::text(response, "/patch");
    let patch_type = response.get("patchType").filter(|t| !t.is_null());
    if !strict {
        // Neither of them has to be right.
    } else if !mutating {
        if !patch.is_empty() {
            return Err("validating webhook may not return response.patch".to_owned());
        }
        if patch_type.is_some() {
            return Err("validating webhook may not return response.patchType".to_owned());
        }
    } else if !patch.is_empty() && patch_type.is_none() {
        return Err("webhook returned response.patch but not response.patchType".to_owned());
    } else if patch.is_empty() && patch_type.is_some() {
        return Err("webhook returned response.patchType but not response.patch".to_owned());
    }
    let annotations = response.get("auditAnnotations").and_then(Value::as_object);
    let annotations = annotations
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect();
    let warnings = object::strings(response.get("warnings"));
    let verdict = if response.get("allowed") != Some(&Value::Bool(true)) {
        Verdict::Denied(Box::new(denial(hook, response.get("status"))))
    } else if patch.is_empty() || !mutating {
        Verdict::Allowed
    } else {
        let given = patch_type.and_then(Value::as_str);
        match given.or((!strict).then_some("JSONPatch")) {
            Some("JSONPatch") => Verdict::Patched(
                STANDARD
                    .decode(patch)
                    .map_err(|e| format!("illegal base64 data in response.patch: {e}"))?,
            ),
            other => return Err(format!("unsupported patch type {:?}", other.unwrap_or(""))),
        }
    };
    Ok(Answer {
        verdict,
        annotations,
        warnings,
    })
}

/// A webhook's refusal, as the client sees it.
fn denial(hook: &str, status: Option<&Value>) -> Failure {
    let result = status.unwrap_or(&Value::Null);
    let code = result.get("code").and_then(Value::as_u64).unwrap_or(0);
    let reason = object::text(result, "/reason").to_owned();
    let by = format!("admission webhook {hook:?} denied the request");
    let message = match object::text(result, "/message") {
        "" if reason.is_empty() => format!("{by} without explanation"),
        "" => format!("{by}: {reason}"),
        message => format!("{by}: {message}"),
    };
    let code = u16::try_from(code).unwrap_or(0);
    let code = if (400..=599).contains(&code) {
        code
    } else {
        400
    };
    let failure = Failure::new(code, reason, message);
    match result.get("details") {
        Some(details) if details.is_object() => failure.with_details(read_details(details)),
        _ => failure,
    }
}

fn read_details(details: &Value) -> Details {
    let text = |v: &Value, field: &str| {
        v.get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let causes = details.get("causes").and_then(Value::as_array);
    Details {
        name: text(details, "name"),
        group: text(details, "group"),
        kind: text(details, "kind"),
        uid: text(details, "uid"),
        causes: causes
            .into_iter()
            .flatten()
            .map(|c| Cause {
                reason: text(c, "reason"),
                message: text(c, "message"),
                field: text(c, "field"),
            })
            .collect(),
        retry_after_seconds: details
            .get("retryAfterSeconds")
            .and_then(Value::as_u64)
            .and_then(|s| s.try_into().ok())
            .unwrap_or(0),
    }
}

/// 500 for a webhook that could not be asked.
pub fn call_failure(hook: &str, why: &str) -> Failure {
    let why = format!("failed calling webhook {hook:?}: {why}");
    internal(&why)
}

/// 500 with its cause, as Kubernetes' `NewInternalError` makes it.
pub fn internal(why: &str) -> Failure {
    crate::errors::internal(why).with_details(Details {
        causes: vec![Cause {
            reason: String::new(),
            message: why.to_owned(),
            field: String::new(),
        }],
        ..Details::default()
    })
}

/// 400 for a dry run that would have an effect.
pub fn no_dry_run(hook: &str) -> Failure {
    crate::errors::bad_request(format!(
        "admission webhook {hook:?} does not support dry run"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(response: Value) -> Vec<u8> {
        let mut response = response;
        if response.get("uid").is_none() {
            response["uid"] = "u".into();
        }
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn malformed_answers_are_told_apart() {
        let cases: [(bool, Vec<u8>, &str); 9] = [
            (true, b"nonsense".to_vec(), "json parse error"),
            (
                true,
                json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"})
                    .to_string()
                    .into(),
                "webhook response was absent",
            ),
            (
                true,
                review(json!({"uid": "other"})),
                "expected response.uid=\"u\", got \"other\"",
            ),
            (
                true,
                json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "response": {"uid": "u"}})
                    .to_string()
                    .into(),
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview",
            ),
            (
                true,
                review(json!({"allowed": true, "patch": "W10="})),
                "response.patch but not response.patchType",
            ),
            (
                true,
                review(json!({"allowed": true, "patchType": "JSONPatch"})),
                "response.patchType but not response.patch",
            ),
            (
                true,
                review(json!({"allowed": true, "patch": "W10=", "patchType": "Merge"})),
                "unsupported patch type \"Merge\"",
            ),
            (
                false,
                review(json!({"allowed": true, "patch": "W10="})),
                "validating webhook may not return response.patch",
            ),
            (
                false,
                review(json!({"allowed": true, "patchType": "JSONPatch"})),
                "validating webhook may not return response.patchType",
            ),
        ];
        for (mutating, body, expected) in cases {
            let error = answer("h", "v1", "u", mutating, &body).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn denials_carry_the_webhooks_words() {
        let base = "admission webhook \"h.example.com\" denied the request";
        for (status, code, reason, message) in [
            (json!(null), 400, "", format!("{base} without explanation")),
            (
                json!({"reason": "because"}),
                400,
                "because",
                format!("{base}: because"),
            ),
            (
                json!({"message": "no", "reason": "Forbidden", "code": 403}),
                403,
                "Forbidden",
                format!("{base}: no"),
            ),
            (
                json!({"message": "no", "code": 200}),
                400,
                "",
                format!("{base}: no"),
            ),
        ] {
            let body = review(json!({"allowed": false, "status": status}));
            let answer = answer("h.example.com", "v1", "u", false, &body).expect("well-formed");
            let Verdict::Denied(failure) = answer.verdict else {
                panic!("it is a denial");
            };
            assert_eq!(failure.code, code);
            assert_eq!(failure.reason, reason);
            assert_eq!(failure.message, message);
        }
    }

    #[test]
    fn an_answer_carries_patch_warnings_and_annotations() {
        let body = review(json!({
            "allowed": true, "patch": "W10=", "patchType": "JSONPatch",
            "warnings": ["careful"], "auditAnnotations": {"k": "v"},
        }));
        let answer = answer("h", "v1", "u", true, &body).expect("well-formed");
        assert_eq!(answer.verdict, Verdict::Patched(b"[]".to_vec()));
        assert_eq!(answer.warnings, ["careful"]);
        assert_eq!(answer.annotations, [("k".to_owned(), "v".to_owned())]);
    }
}
