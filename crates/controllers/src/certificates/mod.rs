//! CertificateSigningRequests: nodes' own are approved, approved ones are signed with the cluster's
//! authority, and old ones are removed.
//!
//! Behaviour is that of the controllers `certificatesigningrequest-approving-controller`,
//! `-signing-controller` and `-cleaner-controller`.

pub mod sign;
mod signers;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use kube::api::Patch;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::signing::SigningRequest;
use crate::model::{ACCESS_REVIEWS, Key, SIGNING_REQUESTS};
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};
pub use sign::{Authority, SignError};

/// How long requests are kept: that were decided on, and that nobody decided on.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

fn follow(context: &Context) -> Arc<Queue<Key>> {
    let queue = Arc::new(Queue::default());
    let into = queue.clone();
    context.informers.signing_requests.on_change(move |_, new| {
        if let Some(request) = new {
            into.add(request.metadata.key());
        }
    });
    queue
}

fn now_text() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The object with another condition, to be written whole: lists of conditions are not merged.
async fn with_condition(
    context: &Context,
    key: &Key,
    kind: &str,
    reason: &str,
    message: &str,
) -> Result<Option<Value>, ApiError> {
    let object = context.api.get::<Value>(&SIGNING_REQUESTS, key).await?;
    Ok(object.map(|mut object| {
        if !object["status"]["conditions"].is_array() {
            object["status"]["conditions"] = json!([]);
        }
        if let Some(all) = object["status"]["conditions"].as_array_mut() {
            all.push(json!({
                "type": kind, "status": "True", "reason": reason, "message": message,
                "lastUpdateTime": now_text(),
            }));
        }
        object
    }))
}

struct Approving {
    context: Context,
}

pub fn start_approving(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = follow(context);
    let controller = Arc::new(Approving {
        context: context.clone(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Approving {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-approving-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(request) = self.context.informers.signing_requests.get(key) else {
            return Ok(Outcome::Done);
        };
        let spec = &request.spec;
        if spec.signer_name != signers::KUBELET_CLIENT
            || !request.status.certificate.is_empty()
            || request.decided()
        {
            return Ok(Outcome::Done);
        }
        let Ok(pem) = STANDARD.decode(&spec.request) else {
            return Ok(Outcome::Done);
        };
        let Ok(parsed) = sign::Request::parse(&pem) else {
            return Ok(Outcome::Done);
        };
        if signers::kubelet_client(&parsed, &spec.usages).is_err() {
            return Ok(Outcome::Done);
        }
        let own = parsed.common_name == spec.username;
        for (applies, right, message) in [
            (
                own,
                "selfnodeclient",
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            ),
            (
                true,
                "nodeclient",
                "Auto approving kubelet client certificate after SubjectAccessReview.",
            ),
        ] {
            if !applies || !self.may(&request, right).await? {
                continue;
            }
            let approved =
                with_condition(&self.context, key, "Approved", "AutoApproved", message).await?;
            if let Some(object) = approved {
                let api = &self.context.api;
                api.replace_sub(&SIGNING_REQUESTS, key, "approval", &object)
                    .await?;
            }
            return Ok(Outcome::Done);
        }
        Ok(Outcome::Done)
    }
}

impl Approving {
    /// Whether whoever made a request may have it approved.
    async fn may(&self, request: &SigningRequest, right: &str) -> Result<bool, ApiError> {
        let spec = &request.spec;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": ACCESS_REVIEWS.kind,
            "spec": {
                "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
                "resourceAttributes": {
                    "group": SIGNING_REQUESTS.group, "resource": SIGNING_REQUESTS.plural,
                    "subresource": right, "verb": "create", "version": "*",
                },
            },
        });
        let answer: Value = self
            .context
            .api
            .create(&ACCESS_REVIEWS, "", &review)
            .await?;
        Ok(answer["status"]["allowed"] == true)
    }
}

struct Signing {
    context: Context,
    authority: Arc<Authority>,
}

pub fn start_signing(
    context: &Context,
    workers: usize,
    authority: Arc<Authority>,
) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = follow(context);
    let controller = Arc::new(Signing {
        context: context.clone(),
        authority,
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Signing {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(request) = self.context.informers.signing_requests.get(key) else {
            return Ok(Outcome::Done);
        };
        let spec = &request.spec;
        let ours = [
            signers::CLIENT,
            signers::KUBELET_CLIENT,
            signers::KUBELET_SERVING,
            signers::LEGACY,
        ];
        if !ours.contains(&&*spec.signer_name)
            || !request.status.certificate.is_empty()
            || !request.is("Approved")
            || request.is("Denied")
            || request.is("Failed")
        {
            return Ok(Outcome::Done);
        }
        let pem = STANDARD.decode(&spec.request).unwrap_or_default();
        let signed = sign::Request::parse(&pem)
            .map_err(|e| e.to_string())
            .and_then(|parsed| {
                signers::check(&spec.signer_name, &parsed, &spec.usages)?;
                let now = Timestamp::now();
                let signed = self
                    .authority
                    .sign(&parsed, &spec.usages, spec.seconds, now);
                signed.map_err(|e| e.to_string())
            });
        match signed {
            Ok(certificate) => {
                let patch = json!({
                    "metadata": {"uid": request.metadata.uid},
                    "status": {"certificate": STANDARD.encode(certificate)},
                });
                let api = &self.context.api;
                api.patch::<MetaOnly>(&SIGNING_REQUESTS, key, Some("status"), &Patch::Merge(patch))
                    .await?;
            }
            Err(why) => {
                let reason = "SignerValidationFailure";
                let failed = with_condition(&self.context, key, "Failed", reason, &why).await?;
                if let Some(object) = failed {
                    let api = &self.context.api;
                    api.replace_sub(&SIGNING_REQUESTS, key, "status", &object)
                        .await?;
                }
            }
        }
        Ok(Outcome::Done)
    }
}

struct Cleaning {
    context: Context,
}

pub fn start_cleaning(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = follow(context);
    let controller = Arc::new(Cleaning {
        context: context.clone(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// When a request is no longer kept. Its certificate, if it has one, ends at `expires`.
fn ends(request: &SigningRequest, expires: Option<Timestamp>) -> Option<Timestamp> {
    let status = &request.status;
    if status.conditions.is_empty() {
        return Some(request.metadata.created? + PENDING);
    }
    let issued = !status.certificate.is_empty();
    let after = |kind: &str| match kind {
        "Approved" if issued => Some(DECIDED),
        // Somebody may still sign it.
        "Approved" => Some(PENDING),
        "Denied" | "Failed" => Some(DECIDED),
        _ => None,
    };
    let told = status
        .conditions
        .iter()
        .filter_map(|c| Some(c.last_update_time? + after(&c.kind)?));
    let expired = expires.filter(|_| request.is("Approved"));
    told.chain(expired).min()
}

/// When the first certificate of a chain in base64 ends.
fn expires(certificate: &str) -> Option<Timestamp> {
    let pem = STANDARD.decode(certificate).ok()?;
    let der = rustls_pki_types::CertificateDer::from_pem_slice(&pem).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

impl Controller for Cleaning {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(request) = self.context.informers.signing_requests.get(key) else {
            return Ok(Outcome::Done);
        };
        let expires = expires(&request.status.certificate);
        let Some(ends) = ends(&request, expires) else {
            return Ok(Outcome::Done);
        };
        let left = ends.duration_since(Timestamp::now());
        if left.is_positive() {
            let wait = Duration::try_from(left).unwrap_or_default();
            return Ok(Outcome::After(wait));
        }
        let uid = request.metadata.uid.clone();
        let api = &self.context.api;
        api.delete(&SIGNING_REQUESTS, key, Deletion::of(&uid))
            .await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nobody_decided(json!([]), false, None, Some(24))]
    #[case::approved(json!([["Approved", 2]]), true, None, Some(3))]
    #[case::not_signed(json!([["Approved", 2]]), false, None, Some(26))]
    #[case::denied(json!([["Denied", 5]]), false, None, Some(6))]
    #[case::failed(json!([["Approved", 1], ["Failed", 2]]), false, None, Some(3))]
    #[case::expired(json!([["Approved", 2]]), true, Some(1), Some(1))]
    #[case::another(json!([["Odd", 2]]), false, None, None)]
    fn requests_are_kept_until(
        #[case] conditions: Value,
        #[case] signed: bool,
        #[case] expires: Option<i64>,
        #[case] hours: Option<i64>,
    ) {
        let at = |hours: i64| Timestamp::from_second(hours * 3600).unwrap();
        let conditions: Vec<Value> = conditions
            .as_array()
            .unwrap()
            .iter()
            .map(
                |c| json!({"type": c[0], "lastUpdateTime": at(c[1].as_i64().unwrap()).to_string()}),
            )
            .collect();
        let request = serde_json::from_value(json!({
            "metadata": {"name": "r", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "status": {"conditions": conditions, "certificate": if signed { "eA==" } else { "" }}}))
        .unwrap();
        assert_eq!(ends(&request, expires.map(at)), hours.map(at));
    }

    #[test]
    fn certificates_say_when_they_end() {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2026, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let ends = expires(&STANDARD.encode(pem)).unwrap();
        assert_eq!(ends.to_string(), "2026-03-04T00:00:00Z");
        assert_eq!(expires("eA=="), None);
        assert_eq!(expires(""), None);
    }
}
