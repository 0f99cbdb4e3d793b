//! NamespaceLifecycle: objects live in namespaces that exist and are not going away.

use gantry_machinery::status::{Cause, Failure};
use gantry_store::Key;
use serde_json::Value;

use crate::{
    api::Cx,
    errors,
    object::{self, View},
};

const PROTECTED: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses new objects in a namespace that does not exist or is terminating.
pub fn check(cx: &Cx, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    if old.is_some() || !cx.resource().namespaced() {
        return Ok(());
    }
    let namespace = &cx.target.namespace;
    let registry = cx.api.registry.read().clone();
    let Some(entry) = registry.lookup("", "v1", "namespaces") else {
        return Ok(());
    };
    let key = Key {
        bucket: entry.bucket.clone(),
        name: namespace.as_str().into(),
    };
    let Some(stored) = cx.store().get(&key) else {
        return Err(errors::not_found(&entry.resource, namespace));
    };
    if !View::get(entry, &stored).deleting {
        return Ok(());
    }
    let mut failure = errors::forbidden(
        cx.resource(),
        object::name(object),
        &format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        ),
    );
    if let Some(details) = failure.details.as_mut() {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
    }
    Err(failure)
}

/// Refuses to delete the namespaces that a cluster cannot be without.
pub fn protect(cx: &Cx, object: &Value) -> Result<(), Failure> {
    let name = object::name(object);
    if cx.entry.is("", "namespaces") && PROTECTED.contains(&name) {
        return Err(errors::forbidden(
            cx.resource(),
            name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}
