//! Plugins that work only where they are asked for, under Kubernetes' names.

mod affinity;
mod events;
mod images;
mod owners;
mod resources;
mod selector;
mod services;
mod tolerations;

use std::{pin::Pin, sync::Arc};

pub use events::{EventLimit, EventLimits, LimitOn};
use gantry_machinery::status::Failure;
use serde_json::{Value, json};
pub use tolerations::Tolerations;

use super::stored;
use crate::{
    api::{Api, Cx},
    bootstrap, errors, object,
};

/// Whether a plugin is asked for. The server's own requests are no business of these.
fn asked(cx: &Cx, plugin: &str) -> bool {
    !cx.own && cx.api.config.enabled_admission.iter().any(|e| e == plugin)
}

fn any(cx: &Cx) -> bool {
    !cx.own && !cx.api.config.enabled_admission.is_empty()
}

/// An annotation of the namespace of a request.
fn annotation(cx: &Cx, name: &str) -> Option<String> {
    let namespace = stored(cx, "/namespaces", &cx.target.namespace)?;
    let annotations = object::meta(&namespace)?.get("annotations")?;
    annotations.get(name)?.as_str().map(str::to_owned)
}

fn forbidden(cx: &Cx, object: &Value, why: &str) -> Failure {
    let name = match object::name(object) {
        "" => &cx.target.name,
        name => name,
    };
    errors::forbidden(cx.resource(), name, why)
}

/// NamespaceAutoProvision: the namespace of a new object comes with it.
pub async fn prepare(cx: &Cx) -> Result<(), Failure> {
    let namespace = &cx.target.namespace;
    if !asked(cx, "NamespaceAutoProvision")
        || namespace.is_empty()
        || cx.dry_run()
        || stored(cx, "/namespaces", namespace).is_some()
    {
        return Ok(());
    }
    provision(&cx.api, namespace).await
}

/// Boxed: creating an object comes to here.
fn provision<'a>(
    api: &'a Arc<Api>,
    namespace: &'a str,
) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>> {
    let object = json!({"metadata": {"name": namespace}});
    Box::pin(bootstrap::ensure(api, "", "namespaces", "", object))
}

/// AlwaysDeny: nothing may be created, changed or deleted. (What is no change, as `exec`, may be.)
pub fn deny(cx: &Cx, object: &Value) -> Result<(), Failure> {
    match asked(cx, "AlwaysDeny") {
        true => Err(forbidden(
            cx,
            object,
            "admission control is denying all modifications",
        )),
        false => Ok(()),
    }
}

/// Fills in, and refuses what cannot be filled in.
pub fn admit(cx: &Cx, object: &mut Value, old: Option<&Value>) -> Result<(), Failure> {
    if !any(cx) || !cx.entry.is("", "pods") {
        return Ok(());
    }
    if asked(cx, "AlwaysPullImages") && images::new(object, old) {
        images::pull(object);
    }
    if !cx.target.subresource.is_empty() {
        return Ok(());
    }
    if asked(cx, "PodNodeSelector") && old.is_none() {
        let settings = &cx.api.config.admission.node_selectors;
        let own = annotation(cx, selector::ANNOTATION);
        selector::merge(object, own.as_deref(), settings, &cx.target.namespace)
            .map_err(|why| forbidden(cx, object, why))?;
    }
    if asked(cx, "PodTolerationRestriction") {
        let settings = &cx.api.config.admission.tolerations;
        let annotation = |name: &str| annotation(cx, name);
        tolerations::restrict(object, old, annotation, settings).map_err(errors::plain_internal)?;
    }
    if asked(cx, "ExtendedResourceToleration") {
        resources::tolerate(object);
    }
    Ok(())
}

/// Refuses.
pub fn validate(cx: &Cx, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    if !any(cx) {
        return Ok(());
    }
    let own = cx.target.subresource.is_empty();
    let refuse = |why: &str| forbidden(cx, object, why);
    if own && cx.entry.is("", "services") && asked(cx, "DenyServiceExternalIPs") {
        services::external(object, old).map_err(refuse)?;
    }
    if own && cx.entry.is("", "pods") && asked(cx, "LimitPodHardAntiAffinityTopology") {
        affinity::topology(object).map_err(|why| refuse(&why))?;
    }
    let status_of_pod = cx.target.subresource == "status" && cx.entry.is("", "pods");
    if !status_of_pod && asked(cx, "OwnerReferencesPermissionEnforcement") {
        owners::check(cx, object, old).map_err(|why| refuse(&why))?;
    }
    let event = cx.entry.is("", "events") || cx.entry.is("events.k8s.io", "events");
    if own && event && !cx.dry_run() && asked(cx, "EventRateLimit") {
        let (namespace, user) = (&cx.target.namespace, &cx.user.name);
        cx.api.event_limits.take(namespace, user, object, cx.now)?;
    }
    Ok(())
}
