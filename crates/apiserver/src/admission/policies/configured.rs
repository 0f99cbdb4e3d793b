//! The policies that there are with their bindings, compiled once after every change to one.

use std::sync::Arc;

use gantry_machinery::policy::{Mutator, Validator};
use rustc_hash::FxHashMap;
use serde_json::Value;

use super::super::{hooks::GROUP, matching::Matching};
use crate::{api::Api, object, rules::Labels};

/// A policy of one kind with its bindings.
#[derive(Debug)]
pub struct Policy<E> {
    pub name: String,
    /// Of the stored policy.
    revision: u64,
    pub matching: Matching,
    /// `(apiVersion, kind)` of its parameters.
    pub param_kind: Option<(String, String)>,
    pub evaluator: Arc<E>,
    /// Errors deny.
    pub fails: bool,
    /// It is asked again when others changed the object after it.
    pub again: bool,
    pub bindings: Vec<Arc<Binding>>,
}

/// A binding of a policy.
#[derive(Debug)]
pub struct Binding {
    pub name: String,
    /// Narrows down what the policy is about.
    pub matching: Option<Matching>,
    pub params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
}

/// Which objects are the parameters.
#[derive(Debug)]
pub struct ParamRef {
    pub name: String,
    pub namespace: String,
    pub selector: Option<Labels>,
    /// Without any, the request is denied.
    pub must_be: bool,
}

fn objects(api: &Api, plural: &str) -> Vec<(u64, Value)> {
    let snapshot = api.store.snapshot(&format!("{GROUP}/{plural}"));
    let all = snapshot.iter().filter_map(|stored| {
        let parsed = serde_json::from_slice(&stored.value);
        if parsed.is_err() {
            tracing::error!(key = %stored.key, "a stored policy is not JSON");
        }
        Some((stored.revision, parsed.ok()?))
    });
    all.collect()
}

fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|v| !v.is_null())
}

fn binding(object: &Value) -> Binding {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let params = present(spec.get("paramRef")).map(|reference| ParamRef {
        name: object::text(reference, "/name").to_owned(),
        namespace: object::text(reference, "/namespace").to_owned(),
        // What cannot be read was refused when it was written.
        selector: present(reference.get("selector"))
            .and_then(|s| Labels::from_label_selector(s).ok()),
        must_be: object::text(reference, "/parameterNotFoundAction") == "Deny",
    });
    Binding {
        name: object::name(object).to_owned(),
        matching: present(spec.get("matchResources")).map(Matching::of_resources),
        params,
        actions: object::strings(spec.get("validationActions")),
    }
}

fn all<E>(
    api: &Api,
    policies: &str,
    bindings: &str,
    before: &[Policy<E>],
    compile: impl Fn(&Value) -> E,
) -> Vec<Policy<E>> {
    let compiled: FxHashMap<(&str, u64), &Arc<E>> = before
        .iter()
        .map(|p| ((p.name.as_str(), p.revision), &p.evaluator))
        .collect();
    let mut bound: FxHashMap<String, Vec<Arc<Binding>>> = FxHashMap::default();
    for (_, object) in objects(api, bindings) {
        let policy = object::text(&object, "/spec/policyName").to_owned();
        let list = bound.entry(policy).or_default();
        list.push(Arc::new(binding(&object)));
    }
    let mut found = vec![];
    for (revision, object) in objects(api, policies) {
        // A policy that nothing binds says nothing.
        let Some(bindings) = bound.remove(object::name(&object)) else {
            continue;
        };
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let kind = present(spec.get("paramKind")).map(|kind| {
            let text = |field| object::text(kind, field).to_owned();
            (text("/apiVersion"), text("/kind"))
        });
        let constraints = spec.get("matchConstraints").unwrap_or(&Value::Null);
        found.push(Policy {
            name: object::name(&object).to_owned(),
            matching: Matching::of_resources(constraints),
            param_kind: kind,
            evaluator: match compiled.get(&(object::name(&object), revision)) {
                Some(evaluator) => (*evaluator).clone(),
                None => Arc::new(compile(spec)),
            },
            revision,
            fails: object::text(spec, "/failurePolicy") != "Ignore",
            again: object::text(spec, "/reinvocationPolicy") == "IfNeeded",
            bindings,
        });
    }
    found
}

/// The validating policies that are bound; those that have not changed since are not compiled
/// again.
pub fn validators(api: &Api, before: &[Policy<Validator>]) -> Vec<Policy<Validator>> {
    let (policies, bindings) = (
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    );
    all(api, policies, bindings, before, Validator::compile)
}

/// The same of mutating policies.
pub fn mutators(api: &Api, before: &[Policy<Mutator>]) -> Vec<Policy<Mutator>> {
    let (policies, bindings) = (
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    );
    all(api, policies, bindings, before, Mutator::compile)
}
