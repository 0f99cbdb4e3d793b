//! The parameters of a policy: objects of the kind it names, as a binding refers to them.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Policy,
    configured::{Binding, ParamRef},
};
use crate::{
    api::Cx,
    object::{self, View},
    registry::Entry,
    rest::get,
};

/// The resource of a policy's parameters, `None` where it has none.
///
/// # Errors
/// There is no such kind.
pub fn resource<E>(cx: &Cx, policy: &Policy<E>) -> Result<Option<Arc<Entry>>, String> {
    let Some((version, kind)) = &policy.param_kind else {
        return Ok(None);
    };
    let registry = cx.api.registry.read().clone();
    match registry.of_kind(version, kind) {
        Some(entry) => Ok(Some(entry.clone())),
        None => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            Err(format!(
                "failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'"
            ))
        }
    }
}

/// The parameters with which a policy is evaluated, once with each. Without any to be looked up it
/// is evaluated once, with `null`.
///
/// # Errors
/// What is wrong with the binding, or that there are none.
pub async fn collect(
    cx: &Cx,
    entry: Option<&Arc<Entry>>,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let (Some(entry), Some(reference)) = (entry, &binding.params) else {
        return Ok(vec![Value::Null]);
    };
    let namespaced = entry.resource.namespaced();
    if !namespaced && !reference.namespace.is_empty() {
        return Err(
            "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned(),
        );
    }
    let namespace = match reference.namespace.as_str() {
        "" => namespace,
        given => given,
    };
    if namespaced && namespace.is_empty() {
        return Err(
            "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                .to_owned(),
        );
    }
    let found = look_up(cx, entry, reference, namespace).await?;
    if found.is_empty() && reference.must_be {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned(),
        );
    }
    Ok(found)
}

async fn look_up(
    cx: &Cx,
    entry: &Arc<Entry>,
    reference: &ParamRef,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let stored = if reference.name.is_empty() {
        let prefix = if entry.resource.namespaced() {
            format!("{namespace}/")
        } else {
            String::new()
        };
        let snapshot = cx.store().snapshot(&entry.bucket);
        snapshot
            .range(&prefix, None)
            .filter(|stored| {
                let view = View::get(entry, stored);
                let selector = reference.selector.as_ref();
                selector.is_none_or(|s| s.matches(|k| view.label(k)))
            })
            .cloned()
            .collect()
    } else {
        let key = object::key(entry, namespace, &reference.name);
        Vec::from_iter(cx.store().get(&key))
    };
    let mut found = Vec::with_capacity(stored.len());
    for stored in stored {
        let whole = get::bytes(&cx.api, entry, &stored).await;
        let object = whole.and_then(|bytes| object::parse(&bytes));
        found.push(object.map_err(|failure| failure.message)?);
    }
    Ok(found)
}
