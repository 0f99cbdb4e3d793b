//! Admission policies: CEL in objects of the API that refuses and changes requests.
//!
//! A policy says what and about which requests, its bindings say where and with which parameters.

mod configured;
mod mutating;
mod params;
mod rights;
pub mod status;
mod validating;

use std::sync::Arc;

use gantry_machinery::{
    cel::Question,
    policy::Input,
    status::{Cause, Failure},
};
use serde_json::{Value, json};

pub use configured::{Binding, Policy, mutators, validators};
pub use mutating::mutate;
pub use rights::check as check_rights;
pub use validating::validate;

use super::{
    asking::Asking,
    authorizer::Asker,
    hooks::call::{self, Seen},
    matching::Matching,
    review::{self, Asked},
    stored,
};
use crate::{api::Cx, errors, object, registry::Entry};

/// Why a policy says no.
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    /// `metav1.StatusReason`; empty stands for `Invalid`.
    reason: String,
}

/// The 403 that a denial becomes; `causes` are the messages of all.
fn forbidden(asking: &Asking, object: Option<&Value>, why: &str, causes: Vec<String>) -> Failure {
    let at = &asking.at;
    let given = |field| object.map_or("", |o| object::meta_text(o, field));
    let name = [at.name.as_str(), given("name"), given("generateName")];
    let name = name.into_iter().find(|n| !n.is_empty());
    let name = name.unwrap_or("Unknown!");
    let mut failure = errors::forbidden(&at.entry.resource, name, why);
    if let Some(details) = failure.details.as_mut() {
        let causes = causes.into_iter().map(|message| Cause {
            reason: String::new(),
            message,
            field: String::new(),
        });
        details.causes.extend(causes);
    }
    failure
}

/// As what a request is seen by a policy or binding: the resource, and the entry of its version
/// where that is not the request's.
type Match = (Asked, Option<Arc<Entry>>);

/// Whether a request is one that a policy or a binding is about.
fn matches(
    cx: &Cx,
    asking: &Asking,
    matching: &Matching,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Option<Match>, Failure> {
    if !matching.selects_object(object, old) {
        return Ok(None);
    }
    let Some(found) = call::covered(asking, matching) else {
        return Ok(None);
    };
    let selected = asking.selects_namespace(cx, matching, object)?;
    Ok(selected.then_some(found))
}

/// `namespaceObject`: what expressions may know of the namespace of a request.
fn namespace(cx: &Cx, asking: &Asking) -> Result<Value, Failure> {
    let at = &asking.at;
    if at.namespace.is_empty() || at.entry.is("", "namespaces") {
        return Ok(Value::Null);
    }
    let Some(namespace) = stored(cx, "/namespaces", &at.namespace) else {
        return Err(errors::not_found_named("namespaces", &at.namespace));
    };
    let mut meta = object::meta(&namespace).cloned().unwrap_or_default();
    meta.retain(|field, _| !matches!(field.as_str(), "managedFields" | "ownerReferences"));
    Ok(json!({
        "metadata": meta,
        "spec": namespace.get("spec"),
        "status": namespace.get("status"),
    }))
}

/// Evaluates on a request as a policy sees it.
fn with_input<R>(
    cx: &Cx,
    asking: &Asking,
    seen: &Seen,
    params: &Value,
    namespace: &Value,
    f: impl FnOnce(&Input<'_>) -> R,
) -> R {
    let at = &asking.at;
    let request = review::parts(at, &seen.asked);
    let authorizer = Asker {
        api: &cx.api,
        user: &at.user,
    };
    f(&Input {
        object: seen.object.as_ref().unwrap_or(&Value::Null),
        old: seen.old.as_ref().unwrap_or(&Value::Null),
        params,
        request: &request,
        namespace,
        authorizer: &authorizer,
        resource: question(asking),
    })
}

/// `authorizer.requestResource`.
pub fn question(asking: &Asking) -> Question {
    let at = &asking.at;
    Question {
        group: at.resource.group.clone(),
        resource: at.resource.resource.clone(),
        subresource: at.subresource.clone(),
        namespace: at.namespace.clone(),
        name: at.name.clone(),
        ..Question::default()
    }
}
