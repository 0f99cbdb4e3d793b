//! Who is to be asked about a request beside the server itself: webhooks and policies.

use std::{sync::Arc, time::Instant};

use gantry_machinery::status::Failure;
use serde_json::Value;

use super::{
    attributes::{Attributes, Gvr, Operation},
    enabled,
    hooks::{self, Configured},
    matching::Matching,
    policies,
    rounds::Rounds,
    stored,
};
use crate::{
    api::Cx,
    errors,
    metrics::admission::{Phase, Plugin},
    object::{self, View},
    registry::Entry,
};

/// A request that somebody may have to be asked about.
pub struct Asking {
    pub at: Attributes,
    pub configured: Arc<Configured>,
    /// Whether policies and webhooks are asked.
    policies: bool,
    hooks: bool,
    /// The resource in all versions that it is served in, and the entries of those.
    pub equivalents: Vec<Gvr>,
    pub others: Vec<Arc<Entry>>,
}

/// Policies decide about others, never about themselves: else one could lock everybody out for
/// good. Nor are they asked about questions to authentication and authorization.
fn spared_by_policies(entry: &Entry) -> bool {
    let resource = &entry.resource;
    match resource.group.as_str() {
        hooks::GROUP => resource.plural.contains("admissionpolic"),
        "authentication.k8s.io" | "authorization.k8s.io" => true,
        _ => false,
    }
}

/// Webhooks are not asked about what decides on admission, for the same reason.
fn spared_by_hooks(entry: &Entry) -> bool {
    entry.resource.group == hooks::GROUP
}

/// What a request looks like to webhooks and policies; `None` when nobody is to be asked. The name
/// is the object's, empty where the server is to make it up and for collections.
pub fn asking(cx: &Cx, operation: Operation, subresource: &str, name: &str) -> Option<Asking> {
    if cx.own {
        return None;
    }
    let configured = cx.api.hooks.current(&cx.api);
    let policies = configured.has_policies() && !spared_by_policies(&cx.entry);
    let hooks = configured.has_hooks() && !spared_by_hooks(&cx.entry);
    if !policies && !hooks {
        return None;
    }
    let registry = cx.api.registry.read().clone();
    let others: Vec<Arc<Entry>> = registry
        .sharing(&cx.entry.bucket)
        .iter()
        .filter(|e| e.resource.custom.as_ref().is_none_or(|c| c.served))
        .filter(|e| subresource.is_empty() || e.resource.subresource(subresource).is_some())
        .cloned()
        .collect();
    Some(Asking {
        at: Attributes::of(cx, operation, subresource, name),
        policies,
        hooks,
        configured,
        equivalents: others.iter().map(|e| Gvr::of(e)).collect(),
        others,
    })
}

impl Asking {
    /// Whether the namespace of the request is selected.
    ///
    /// # Errors
    /// 404 where the namespace does not exist.
    pub fn selects_namespace(
        &self,
        cx: &Cx,
        matching: &Matching,
        object: Option<&Value>,
    ) -> Result<bool, Failure> {
        let at = &self.at;
        let is_namespace = at.entry.is("", "namespaces");
        let Some(selector) = &matching.namespaces else {
            return Ok(true);
        };
        if at.namespace.is_empty() && !is_namespace {
            return Ok(true);
        }
        let writes = matches!(at.operation, Operation::Create | Operation::Update);
        if is_namespace && at.subresource.is_empty() && writes {
            let labels = object
                .and_then(object::meta)
                .and_then(|m| m.get("labels"))
                .and_then(Value::as_object);
            return Ok(selector.matches(|k| labels.and_then(|l| l.get(k))?.as_str()));
        }
        let Some(namespace) = stored(cx, "/namespaces", &at.namespace) else {
            return Err(errors::not_found_named("namespaces", &at.namespace));
        };
        let view = View::get(&namespace.entry, &namespace.stored);
        Ok(selector.matches(|k| view.label(k)))
    }

    /// Lets policies and webhooks change an object of which the server itself changes nothing.
    pub async fn mutate(
        &self,
        cx: &mut Cx,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<bool, Failure> {
        let mut rounds = Rounds::default();
        let mut changed = self.round(cx, Some(&mut *object), old, &mut rounds).await?;
        if rounds.repeat {
            rounds.second = true;
            changed |= self.round(cx, Some(object), old, &mut rounds).await?;
        }
        Ok(changed)
    }

    /// One round of mutation: policies, then webhooks.
    pub async fn round(
        &self,
        cx: &mut Cx,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
        rounds: &mut Rounds,
    ) -> Result<bool, Failure> {
        let mut changed = false;
        if self.policies && enabled(cx, Plugin::MutatingAdmissionPolicy.name()) {
            let since = Instant::now();
            let made = policies::mutate(cx, self, object.as_deref_mut(), old, rounds).await;
            let plugin = Plugin::MutatingAdmissionPolicy;
            self.counted(cx, plugin, Phase::Admit, made.is_err(), since);
            changed |= made?;
        }
        if self.hooks && enabled(cx, Plugin::MutatingAdmissionWebhook.name()) {
            let since = Instant::now();
            let made = hooks::mutate(cx, self, object, old, rounds).await;
            let plugin = Plugin::MutatingAdmissionWebhook;
            self.counted(cx, plugin, Phase::Admit, made.is_err(), since);
            changed |= made?;
        }
        Ok(changed)
    }

    /// Asks policies and webhooks whether a request may be.
    pub async fn validate(
        &self,
        cx: &mut Cx,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if self.policies && enabled(cx, Plugin::ValidatingAdmissionPolicy.name()) {
            let since = Instant::now();
            let said = policies::validate(cx, self, object, old).await;
            let plugin = Plugin::ValidatingAdmissionPolicy;
            self.counted(cx, plugin, Phase::Validate, said.is_err(), since);
            said?;
        }
        if self.hooks && enabled(cx, Plugin::ValidatingAdmissionWebhook.name()) {
            let since = Instant::now();
            let said = hooks::validate(cx, self, object, old).await;
            let plugin = Plugin::ValidatingAdmissionWebhook;
            self.counted(cx, plugin, Phase::Validate, said.is_err(), since);
            said?;
        }
        Ok(())
    }

    fn counted(&self, cx: &Cx, plugin: Plugin, phase: Phase, refused: bool, since: Instant) {
        let metrics = &cx.api.metrics.admission;
        let operation = self.at.operation.name();
        metrics.step(plugin, operation, phase, refused, since.elapsed());
    }
}

/// Asks about what is sent to a subresource that is no part of the object: a Binding, an Eviction,
/// a TokenRequest, the options of a connection.
pub async fn ask(
    cx: &mut Cx,
    operation: Operation,
    subresource: &str,
    object: &mut Value,
) -> Result<(), Failure> {
    let name = cx.target.name.clone();
    let Some(asking) = asking(cx, operation, subresource, &name) else {
        return Ok(());
    };
    asking.mutate(cx, object, None).await?;
    asking.validate(cx, Some(object), None).await
}

/// Asks about the deletion of an object. `options` are those of the request.
pub async fn ask_deletion(cx: &mut Cx, old: &Value, options: Value) -> Result<(), Failure> {
    // Of a collection, the objects' names are not part of the request.
    let name = cx.target.name.clone();
    let Some(mut asking) = asking(cx, Operation::Delete, "", &name) else {
        return Ok(());
    };
    asking.at.options = options;
    let mut rounds = Rounds::default();
    asking.round(cx, None, Some(old), &mut rounds).await?;
    asking.validate(cx, None, Some(old)).await
}
