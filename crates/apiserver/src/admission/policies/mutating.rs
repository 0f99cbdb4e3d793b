//! MutatingAdmissionPolicies: one after the other changes the object of a request.

use std::sync::Arc;

use gantry_machinery::{
    policy::Mutator,
    schema::{self, Schema},
    status::Failure,
};
use serde_json::Value;

use super::{
    super::{asking::Asking, hooks::call, rounds::Rounds},
    Binding, Denial, Match, Policy, forbidden, matches, namespace, params, with_input,
};
use crate::{api::Cx, errors, object};

/// A policy that is to change the object, with one of its parameters.
struct Invocation<'a> {
    policy: &'a Policy<Mutator>,
    binding: &'a Arc<Binding>,
    found: Match,
    params: Value,
    /// The same in both rounds.
    key: String,
}

fn denial(
    policy: &Policy<Mutator>,
    binding: Option<&Binding>,
    message: String,
    reason: &str,
) -> Denial {
    Denial {
        policy: policy.name.clone(),
        binding: binding.map(|b| b.name.clone()),
        message,
        reason: reason.to_owned(),
    }
}

/// Lets the mutating policies change the object. Returns whether they did.
pub async fn mutate(
    cx: &mut Cx,
    asking: &Asking,
    mut object: Option<&mut Value>,
    old: Option<&Value>,
    rounds: &mut Rounds,
) -> Result<bool, Failure> {
    rounds.policies.begin(rounds.second, object.as_deref());
    let mut denials = vec![];
    let invocations = invocations(cx, asking, object.as_deref(), old, &mut denials).await;
    let mut changed = false;
    let namespace = if invocations.is_empty() {
        Value::Null
    } else {
        namespace(cx, asking)?
    };
    for invocation in &invocations {
        let outcome = run(
            cx,
            asking,
            invocation,
            &namespace,
            (object.as_deref(), old),
            rounds,
        );
        match outcome.await? {
            Outcome::Skipped => continue,
            Outcome::Ran(new, why) => {
                if let (Some(new), Some(object)) = (new, object.as_deref_mut()) {
                    *object = new;
                    changed = true;
                    rounds.policies.changed();
                    rounds.repeat = true;
                }
                denials.extend(why.map(|why| {
                    let policy = invocation.policy;
                    let denial = denial(policy, Some(invocation.binding), why, "Invalid");
                    (policy.fails, denial)
                }));
            }
        }
        if invocation.policy.again {
            rounds.policies.invoked(&invocation.key);
        }
    }
    rounds.policies.end(object.as_deref());
    let shown = denials.iter().filter(|(fails, _)| *fails).map(|(_, d)| {
        let (policy, message) = (&d.policy, &d.message);
        match &d.binding {
            Some(binding) => {
                format!("policy '{policy}' with binding '{binding}' denied request: {message}")
            }
            None => format!("policy {policy:?} denied request: {message}"),
        }
    });
    let shown: Vec<String> = shown.collect();
    let Some(first) = shown.first().cloned() else {
        return Ok(changed);
    };
    let reason = denials.iter().find(|(fails, _)| *fails);
    let reason = reason.map_or("", |(_, d)| d.reason.as_str()).to_owned();
    let mut failure = forbidden(asking, object.as_deref().or(old), "", shown);
    failure.message = first;
    if !reason.is_empty() {
        // The code stays that of a 403, as Kubernetes has it.
        failure.reason = reason.into();
    }
    Err(failure)
}

/// The policies that are about a request as it came in.
async fn invocations<'a>(
    cx: &Cx,
    asking: &'a Asking,
    object: Option<&Value>,
    old: Option<&Value>,
    denials: &mut Vec<(bool, Denial)>,
) -> Vec<Invocation<'a>> {
    let mut all = vec![];
    for policy in &asking.configured.mutators {
        let mut wrong = |binding: Option<&Binding>, why: String| {
            let what = if binding.is_some() {
                "binding"
            } else {
                "policy"
            };
            let message = format!("failed to configure {what}: {why}");
            denials.push((policy.fails, denial(policy, binding, message, "")));
        };
        let found = match matches(cx, asking, &policy.matching, object, old) {
            Ok(None) => continue,
            Ok(Some(found)) => found,
            Err(failure) => {
                wrong(None, failure.message);
                continue;
            }
        };
        let entry = match params::resource(cx, policy) {
            Ok(entry) => entry,
            Err(why) => {
                wrong(None, why);
                continue;
            }
        };
        for binding in &policy.bindings {
            if let Some(matching) = &binding.matching {
                match matches(cx, asking, matching, object, old) {
                    Ok(None) => continue,
                    Ok(Some(_)) => {}
                    Err(failure) => {
                        wrong(Some(binding), failure.message);
                        continue;
                    }
                }
            }
            let namespace = &asking.at.namespace;
            let params = params::collect(cx, entry.as_ref(), binding, namespace).await;
            let params = match params {
                Ok(params) => params,
                Err(why) => {
                    wrong(Some(binding), why);
                    continue;
                }
            };
            all.extend(params.into_iter().map(|params| {
                let of = (
                    object::meta_text(&params, "namespace"),
                    object::name(&params),
                );
                Invocation {
                    policy,
                    binding,
                    found: found.clone(),
                    key: format!("{}/{}/{}/{}", policy.name, binding.name, of.0, of.1),
                    params,
                }
            }));
        }
    }
    all
}

enum Outcome {
    /// The policy is not about the object as it is, or has had its turn.
    Skipped,
    /// The changed object, and what went wrong.
    Ran(Option<Value>, Option<String>),
}

async fn run(
    cx: &Cx,
    asking: &Asking,
    invocation: &Invocation<'_>,
    namespace: &Value,
    (object, old): (Option<&Value>, Option<&Value>),
    rounds: &Rounds,
) -> Result<Outcome, Failure> {
    let (policy, at) = (invocation.policy, &asking.at);
    let (asked, other) = invocation.found.clone();
    let mut seen = call::see(cx, at, asked, other, object, old).await?;
    let params = &invocation.params;
    // Conditions are not told of the namespace.
    let concerned = with_input(cx, asking, &seen, params, &Value::Null, |input| {
        policy.evaluator.concerns(input)
    });
    match concerned {
        Ok(true) => {}
        Ok(false) => return Ok(Outcome::Skipped),
        Err(why) => return Ok(Outcome::Ran(None, Some(why))),
    }
    if rounds.second && !rounds.policies.is_due(&invocation.key) {
        return Ok(Outcome::Skipped);
    }
    let Some(before) = seen.object.clone() else {
        return Ok(Outcome::Ran(None, None));
    };
    let kind = &seen.asked.kind;
    let schema: &Schema = match &seen.other {
        Some(entry) => entry.resource.schema(),
        None if at.whole() => at.entry.resource.schema(),
        None => schema::builtin_by_gvk(&kind.group, &kind.version, &kind.kind)
            .map(schema::builtin)
            .ok_or_else(|| {
                Failure::new(
                    503,
                    "ServiceUnavailable",
                    format!("Resource kind {kind} not found. There can be a delay between when CustomResourceDefinitions are created and when they are available."),
                )
            })?,
    };
    let mut wrong = None;
    for i in 0..policy.evaluator.len() {
        let change = with_input(cx, asking, &seen, params, namespace, |input| {
            policy.evaluator.change(i, input)
        });
        let object = seen.object.as_ref().unwrap_or(&before);
        match change.and_then(|change| change.apply(schema, object)) {
            Ok(new) => seen.object = Some(new),
            Err(why) => {
                wrong.get_or_insert(why);
            }
        }
    }
    let after = seen.object.take().unwrap_or_default();
    let new = call::settled(cx, at, &seen, &before, after)
        .await
        .map_err(|failure| errors::internal(failure.message))?;
    Ok(Outcome::Ran(new, wrong))
}
