//! CertificateSigningRequests: who asks is written into them, what they ask for must be readable,
//! and approving or signing needs a right for the signer.

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_machinery::path::At as _;
use gantry_machinery::status::{Cause, Failure};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use x509_parser::{
    certification_request::X509CertificationRequest, oid_registry::OID_X509_ORGANIZATION_NAME,
    prelude::FromDer,
};

use crate::{
    api::Cx,
    authn::{MASTERS, UserInfo},
    authz::Attributes,
    errors, object,
};

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

fn is(cx: &Cx) -> bool {
    cx.entry.is(GROUP, "certificatesigningrequests")
}

/// Writes into a new request who makes it.
pub fn prepare(cx: &Cx, request: &mut Value) {
    if !is(cx) {
        return;
    }
    let user: &UserInfo = &cx.user;
    let spec = request
        .as_object_mut()
        .map(|o| o.entry("spec").or_insert_with(|| json!({})));
    let Some(Value::Object(spec)) = spec else {
        return;
    };
    for (field, value) in [
        ("username", Value::from(user.name.clone())),
        ("uid", user.uid.clone().into()),
        ("groups", user.groups.clone().into()),
        ("extra", json!(user.extra)),
    ] {
        let empty = match &value {
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if empty {
            spec.remove(field);
        } else {
            spec.insert(field.to_owned(), value);
        }
    }
}

/// Fills in the times of conditions that have none.
pub fn stamp(cx: &Cx, request: &mut Value, old: &Value) {
    if !is(cx) || cx.target.subresource.is_empty() {
        return;
    }
    let now = object::time(cx.now);
    let before = conditions(old).to_vec();
    let all = request.pointer_mut("/status/conditions");
    for condition in all.and_then(Value::as_array_mut).into_iter().flatten() {
        let lacks =
            |condition: &Value, field: &str| condition.get(field).is_none_or(Value::is_null);
        if lacks(condition, "lastUpdateTime") {
            condition["lastUpdateTime"] = now.clone().into();
        }
        if lacks(condition, "lastTransitionTime") {
            let same = before.iter().find(|b| {
                b.get("type") == condition.get("type") && b.get("status") == condition.get("status")
            });
            let since = same.and_then(|b| b.get("lastTransitionTime"));
            let since = since.filter(|t| !t.is_null()).cloned();
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.clone().into());
        }
    }
}

fn conditions(request: &Value) -> &[Value] {
    let all = request.at("/status/conditions");
    all.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn cause(reason: &str, field: &str, message: String) -> Cause {
    Cause {
        reason: reason.to_owned(),
        message,
        field: field.to_owned(),
    }
}

fn invalid(field: &str, shown: &str, why: &str) -> Cause {
    let message = format!("Invalid value: {shown:?}: {why}");
    cause("FieldValueInvalid", field, message)
}

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What is wrong with a new request beyond what its fields alone tell.
pub fn create(cx: &Cx, request: &Value) -> Vec<Cause> {
    let mut causes = vec![];
    if !is(cx) {
        return causes;
    }
    let pem = object::text(request, "/spec/request");
    if !pem.is_empty()
        && let Err(why) = signed(pem)
    {
        causes.push(invalid("spec.request", pem, &why));
    }
    if object::text(request, "/spec/signerName") == LEGACY_SIGNER {
        causes.push(invalid(
            "spec.signerName",
            LEGACY_SIGNER,
            "the legacy signerName is not allowed via this API version",
        ));
    }
    let usages = object::strings(request.at("/spec/usages"));
    for (i, usage) in usages.iter().enumerate() {
        let field = format!("spec.usages[{i}]");
        if !USAGES.contains(&usage.as_str()) {
            let all: Vec<String> = USAGES.iter().map(|u| format!("{u:?}")).collect();
            causes.push(cause(
                "FieldValueNotSupported",
                &field,
                format!(
                    "Unsupported value: {usage:?}: supported values: {}",
                    all.join(", ")
                ),
            ));
        }
        if usages[..i].contains(usage) {
            let message = format!("Duplicate value: {usage:?}");
            causes.push(cause("FieldValueDuplicate", &field, message));
        }
    }
    causes
}

/// The DER of a signing request that is readable and signed by the key that it names.
fn signed(encoded: &str) -> Result<Vec<u8>, String> {
    let pem = STANDARD.decode(encoded).map_err(|e| e.to_string())?;
    let first = <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem).next();
    let Some(Ok((SectionKind::Csr, der))) = first else {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|e| format!("x509: {e}"))?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".to_owned());
    }
    request
        .verify_signature()
        .map_err(|e| format!("x509: {e}"))?;
    Ok(der)
}

/// What an update of a request's status or approval may not change.
pub fn update(cx: &Cx, subresource: Option<&str>, new: &Value, old: &Value) -> Vec<Cause> {
    const PATH: &str = "status.conditions";
    let mut causes = vec![];
    if !is(cx) {
        return causes;
    }
    let count = |request: &Value, kind: &str| {
        let of = |c: &&Value| object::text(c, "/type") == kind;
        conditions(request).iter().filter(of).count()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if count(new, kind) < count(old, kind) {
            causes.push(cause(
                "FieldValueForbidden",
                PATH,
                format!("Forbidden: updates may not remove a condition of type {kind:?}"),
            ));
        }
        if subresource != Some("approval")
            && kind != "Failed"
            && count(new, kind) > count(old, kind)
        {
            causes.push(cause(
                "FieldValueForbidden",
                PATH,
                format!("Forbidden: updates may not add a condition of type {kind:?}"),
            ));
        }
    }
    let certificate = |request: &Value| object::text(request, "/status/certificate").to_owned();
    let (was, will) = (certificate(old), certificate(new));
    if was != will {
        let why = match subresource {
            Some("status") if was.is_empty() => None,
            Some("status") => Some("updates may not modify existing certificate content"),
            _ => Some("updates may not set certificate content"),
        };
        if let Some(why) = why {
            let message = format!("Forbidden: {why}");
            causes.push(cause("FieldValueForbidden", "status.certificate", message));
        } else if let Some(why) = wrong_chain(&will) {
            causes.push(invalid("status.certificate", "<certificate data>", &why));
        }
    }
    if old.at("/status/conditions") != new.at("/status/conditions") {
        causes.extend(wrong_conditions(PATH, conditions(new)));
    }
    causes
}

fn wrong_chain(encoded: &str) -> Option<String> {
    let Ok(pem) = STANDARD.decode(encoded) else {
        return Some("not base64".to_owned());
    };
    let mut any = false;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem) {
        match section {
            Ok((SectionKind::Certificate, der))
                if x509_parser::parse_x509_certificate(&der).is_ok() =>
            {
                any = true;
            }
            Ok((SectionKind::Certificate, _)) => {
                return Some("x509: malformed certificate".to_owned());
            }
            _ => return Some("only CERTIFICATE PEM blocks are allowed".to_owned()),
        }
    }
    (!any).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

fn wrong_conditions(path: &str, conditions: &[Value]) -> Vec<Cause> {
    let mut causes = vec![];
    let mut seen: Vec<&str> = vec![];
    for (i, condition) in conditions.iter().enumerate() {
        let (kind, status) = (
            object::text(condition, "/type"),
            object::text(condition, "/status"),
        );
        let field = |name: &str| format!("{path}[{i}].{name}");
        if kind.is_empty() {
            causes.push(cause(
                "FieldValueRequired",
                &field("type"),
                "Required value".to_owned(),
            ));
        } else if seen.contains(&kind) {
            let message = format!("Duplicate value: {kind:?}");
            causes.push(cause("FieldValueDuplicate", &field("type"), message));
        }
        let known = matches!(kind, "Approved" | "Denied" | "Failed");
        let supported: &[&str] = if known {
            &["True"]
        } else {
            &["False", "True", "Unknown"]
        };
        if status.is_empty() {
            causes.push(cause(
                "FieldValueRequired",
                &field("status"),
                "Required value".to_owned(),
            ));
        } else if !supported.contains(&status) {
            let all: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
            causes.push(cause(
                "FieldValueNotSupported",
                &field("status"),
                format!(
                    "Unsupported value: {status:?}: supported values: {}",
                    all.join(", ")
                ),
            ));
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !other.is_empty() && seen.contains(&other) {
            causes.push(invalid(
                &field("type"),
                kind,
                "Approved and Denied conditions are mutually exclusive",
            ));
        }
        seen.push(kind);
    }
    causes
}

/// Whether a user may do something as a signer: by its name, or by its whole domain.
fn may(cx: &Cx, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer, &format!("{domain}/*")].iter().any(|name| {
        cx.may(&Attributes {
            verb,
            group: GROUP,
            resource: "signers",
            name,
            ..Attributes::default()
        })
    })
}

/// ClusterTrustBundleAttest: who says which certificates a signer is trusted by is allowed to.
fn attest(cx: &Cx, bundle: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let signer = object::text(bundle, "/spec/signerName");
    let unchanged = old.is_some_and(|old| old.get("spec") == bundle.get("spec"));
    if signer.is_empty() || unchanged || may(cx, "attest", signer) {
        return Ok(());
    }
    Err(errors::forbidden(
        cx.resource(),
        object::name(bundle),
        &format!("user not permitted to attest for signerName {signer:?}"),
    ))
}

/// The admission plugins CertificateApproval, CertificateSigning and CertificateSubjectRestriction;
/// `enabled` tells which of them work.
pub fn admit(
    cx: &Cx,
    request: &Value,
    old: Option<&Value>,
    enabled: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    if cx.entry.is(GROUP, "clustertrustbundles") && enabled("ClusterTrustBundleAttest") {
        return attest(cx, request, old);
    }
    if !is(cx) {
        return Ok(());
    }
    let name = object::name(request);
    let refuse = |why: &str| Err(errors::forbidden(cx.resource(), name, why));
    let signer = object::text(old.unwrap_or(request), "/spec/signerName");
    match (cx.target.subresource.as_str(), old) {
        ("approval", Some(_)) if enabled("CertificateApproval") && !may(cx, "approve", signer) => {
            refuse(&format!(
                "user not permitted to approve requests with signerName {signer:?}"
            ))
        }
        ("status", Some(old)) if enabled("CertificateSigning") => {
            let same = ["/status/certificate", "/status/conditions"]
                .iter()
                .all(|part| old.at(part) == request.at(part));
            if same || may(cx, "sign", signer) {
                return Ok(());
            }
            refuse(&format!(
                "user not permitted to sign requests with signerName {signer:?}"
            ))
        }
        ("", None) if signer == CLIENT_SIGNER && enabled("CertificateSubjectRestriction") => {
            let Ok(der) = signed(object::text(request, "/spec/request")) else {
                return Ok(());
            };
            let Ok((_, parsed)) = X509CertificationRequest::from_der(&der) else {
                return Ok(());
            };
            let subject = parsed.certification_request_info.subject;
            let masters = subject
                .iter_by_oid(&OID_X509_ORGANIZATION_NAME)
                .any(|o| o.as_str() == Ok(MASTERS));
            if masters {
                return refuse(&format!(
                    "use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
                ));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
