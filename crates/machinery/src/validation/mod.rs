//! Kubernetes' validation: what is wrong with an object, field by field, in the API's own words.
//!
//! Objects arrive decoded and defaulted. Each kind's rules stand in a module of their own; what
//! all objects share (names, labels, owners) is in `metadata`.

mod errors;
mod metadata;
pub mod names;
pub(crate) mod value;

use serde_json::Value;

pub use errors::Errors;
pub use names::{dns1035_label, dns1123_label, dns1123_subdomain, label_value, qualified_name};

use crate::{
    resource::Resource,
    status::{Cause, Details, Failure},
};

/// What is validated, and under which settings of the server.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub resource: &'a Resource,
    pub subresource: Option<&'a str>,
    /// Whether containers may be privileged (`--allow-privileged`).
    pub allow_privileged: bool,
}

/// The faults of an object about to be created.
pub fn create(cx: &Context<'_>, object: &Value) -> Vec<Cause> {
    let mut errors = Errors::default();
    metadata::create(cx.resource, object, &mut errors);
    errors.into_causes()
}

/// The faults of an object about to replace `old`; with a subresource named, of what that
/// subresource may change.
pub fn update(cx: &Context<'_>, new: &Value, old: &Value) -> Vec<Cause> {
    let mut errors = Errors::default();
    metadata::update(cx.resource, new, old, &mut errors);
    errors.into_causes()
}

/// The 422 that carries causes.
pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Failure {
    let one = |c: &Cause| {
        if c.field.is_empty() {
            c.message.clone()
        } else {
            format!("{}: {}", c.field, c.message)
        }
    };
    let mut texts: Vec<String> = Vec::with_capacity(causes.len());
    for cause in &causes {
        // The aggregate says a thing once, the causes list it as often as it was found.
        let text = one(cause);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let text = match texts.as_slice() {
        [single] => single.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let kind = if resource.group.is_empty() {
        resource.kind.clone()
    } else {
        format!("{}.{}", resource.kind, resource.group)
    };
    Failure::new(
        422,
        "Invalid",
        format!("{kind} \"{name}\" is invalid: {text}"),
    )
    .with_details(Details {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.kind.clone(),
        causes,
        ..Details::default()
    })
}
