//! Failures of the API in Kubernetes' words (`k8s.io/apimachinery/pkg/api/errors`).

use gantry_machinery::{
    resource::Resource,
    status::{Cause, Details, Failure},
};

fn details(resource: &Resource, name: &str) -> Details {
    Details {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.plural.clone(),
        ..Details::default()
    }
}

/// `pods "x"` or, without a name, `pods`.
fn subject(resource: &Resource, name: &str) -> String {
    if name.is_empty() {
        resource.qualified()
    } else {
        format!("{} \"{name}\"", resource.qualified())
    }
}

pub fn not_found(resource: &Resource, name: &str) -> Failure {
    Failure::new(
        404,
        "NotFound",
        format!("{} \"{name}\" not found", resource.qualified()),
    )
    .with_details(details(resource, name))
}

/// A plural name that need not be a served resource, such as a missing node.
pub fn not_found_named(plural: &str, name: &str) -> Failure {
    Failure::new(404, "NotFound", format!("{plural} \"{name}\" not found")).with_details(Details {
        name: name.to_owned(),
        kind: plural.to_owned(),
        ..Details::default()
    })
}

pub fn already_exists(resource: &Resource, name: &str) -> Failure {
    Failure::new(
        409,
        "AlreadyExists",
        format!("{} \"{name}\" already exists", resource.qualified()),
    )
    .with_details(details(resource, name))
}

pub fn conflict(resource: &Resource, name: &str, why: &str) -> Failure {
    Failure::new(
        409,
        "Conflict",
        format!(
            "Operation cannot be fulfilled on {}: {why}",
            subject(resource, name)
        ),
    )
    .with_details(details(resource, name))
}

pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Failure {
    Failure::new(
        403,
        "Forbidden",
        format!("{} is forbidden: {why}", subject(resource, name)),
    )
    .with_details(details(resource, name))
}

pub fn bad_request(message: impl Into<String>) -> Failure {
    Failure::new(400, "BadRequest", message)
}

pub fn internal(message: impl std::fmt::Display) -> Failure {
    Failure::new(
        500,
        "InternalError",
        format!("Internal error occurred: {message}"),
    )
}

/// 500 without a reason: an error that Kubernetes passes on as it is.
pub fn plain_internal(message: impl Into<String>) -> Failure {
    Failure::new(500, "", message)
}

pub fn method_not_allowed() -> Failure {
    Failure::new(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
    .with_details(Details::default())
}

pub fn no_such_path() -> Failure {
    Failure::new(
        404,
        "NotFound",
        "the server could not find the requested resource",
    )
    .with_details(Details::default())
}

pub fn unauthorized() -> Failure {
    Failure::new(401, "Unauthorized", "Unauthorized")
}

pub fn expired(message: impl Into<String>) -> Failure {
    Failure::new(410, "Expired", message)
}

pub fn not_acceptable(accepted: &str) -> Failure {
    Failure::new(
        406,
        "NotAcceptable",
        format!("only the following media types are accepted: {accepted}"),
    )
    .with_details(Details::default())
}

/// What is said before any handler has seen a request for a built-in resource.
pub fn unrouted_accept(available: &str) -> Failure {
    Failure::new(
        406,
        "NotAcceptable",
        format!("406: Not Acceptable\n\nAvailable representations: {available}"),
    )
    .with_details(Details::default())
}

/// As [`unrouted_accept`], of the body's type.
pub fn unrouted_content_type() -> Failure {
    Failure::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
        .with_details(Details::default())
}

pub fn unsupported_media(accepted: &str) -> Failure {
    Failure::new(
        415,
        "UnsupportedMediaType",
        format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        ),
    )
}

/// What did not come to an answer in the time that requests have.
pub fn timed_out() -> Failure {
    Failure::new(
        504,
        "Timeout",
        "Timeout: request did not complete within the allotted timeout",
    )
}

pub fn too_large(limit: usize) -> Failure {
    Failure::new(
        413,
        "RequestEntityTooLarge",
        format!("Request entity too large: limit is {limit}"),
    )
}

/// 500 in the words of etcd, which clients look for.
pub fn object_too_large(limit: usize) -> Failure {
    plain_internal(format!(
        "etcdserver: request is too large: an object may have {limit} bytes"
    ))
}

/// 504 for a resourceVersion that is not reached yet.
pub fn version_too_large(wanted: u64, current: u64) -> Failure {
    Failure::new(
        504,
        "Timeout",
        format!("Timeout: Too large resource version: {wanted}, current: {current}"),
    )
    .with_details(Details {
        causes: vec![Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }],
        retry_after_seconds: 1,
        ..Details::default()
    })
}

/// 422 about an options object such as ListOptions.
pub fn invalid_options(kind: &str, field: &str, reason: &str, message: String) -> Failure {
    Failure::new(
        422,
        "Invalid",
        format!("{kind}.meta.k8s.io \"\" is invalid: {field}: {message}"),
    )
    .with_details(Details {
        group: "meta.k8s.io".to_owned(),
        kind: kind.to_owned(),
        causes: vec![Cause {
            reason: reason.to_owned(),
            message,
            field: field.to_owned(),
        }],
        ..Details::default()
    })
}
