//! ValidatingAdmissionPolicies: what they say to a request, and what becomes of it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use gantry_machinery::{
    policy::{Outcome, Validator},
    status::Failure,
};
use serde_json::{Value, json};

use super::{
    super::{
        asking::Asking,
        hooks::call::{self, Seen},
    },
    Binding, Denial, Policy, forbidden, matches, namespace, params, with_input,
};
use crate::api::Cx;

/// Bytes that the value of an audit annotation may have.
const LONGEST_ANNOTATION: usize = 10 * 1024;

/// Asks the validating policies.
pub async fn validate(
    cx: &mut Cx,
    asking: &Asking,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Failure> {
    let mut denials = vec![];
    for policy in &asking.configured.validators {
        one(cx, asking, policy, (object, old), &mut denials).await?;
    }
    let Some(denial) = denials.first() else {
        return Ok(());
    };
    let (policy, message) = (&denial.policy, &denial.message);
    let message = match &denial.binding {
        Some(binding) => format!(
            "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}"
        ),
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {message}"),
    };
    let causes = vec![message.clone()];
    let mut failure = forbidden(asking, object.or(old), &message, causes);
    let reason = match denial.reason.as_str() {
        "" => "Invalid",
        given => given,
    };
    failure.code = match reason {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    failure.reason = reason.to_owned().into();
    Err(failure)
}

fn deny(policy: &Policy<Validator>, binding: Option<&Binding>, message: String) -> Denial {
    Denial {
        policy: policy.name.clone(),
        binding: binding.map(|b| b.name.clone()),
        message,
        reason: String::new(),
    }
}

/// Asks one policy, as each of its bindings says.
async fn one(
    cx: &mut Cx,
    asking: &Asking,
    policy: &Policy<Validator>,
    (object, old): (Option<&Value>, Option<&Value>),
    denials: &mut Vec<Denial>,
) -> Result<(), Failure> {
    // What is wrong with the policy or a binding denies, unless failures are to be ignored.
    let wrong = |denials: &mut Vec<Denial>, binding: Option<&Binding>, why: &str| {
        if policy.fails {
            let what = if binding.is_some() {
                "binding"
            } else {
                "policy"
            };
            let message = format!("failed to configure {what}: {why}");
            denials.push(deny(policy, binding, message));
        }
    };
    let found = match matches(cx, asking, &policy.matching, object, old) {
        Ok(None) => return Ok(()),
        Ok(Some(found)) => found,
        Err(failure) => {
            wrong(denials, None, &failure.message);
            return Ok(());
        }
    };
    let entry = match params::resource(cx, policy) {
        Ok(entry) => entry,
        Err(why) => {
            wrong(denials, None, &why);
            return Ok(());
        }
    };
    let mut seen: Option<Seen> = None;
    let mut annotations = Collected::default();
    for binding in &policy.bindings {
        if let Some(matching) = &binding.matching {
            match matches(cx, asking, matching, object, old) {
                Ok(None) => continue,
                Ok(Some(_)) => {}
                Err(failure) => {
                    wrong(denials, Some(binding), &failure.message);
                    continue;
                }
            }
        }
        let at = &asking.at;
        let params = params::collect(cx, entry.as_ref(), binding, &at.namespace).await;
        let params = match params {
            Ok(params) => params,
            Err(why) => {
                wrong(denials, Some(binding), &why);
                continue;
            }
        };
        if seen.is_none() && !params.is_empty() {
            let (asked, other) = found.clone();
            match call::see(cx, at, asked, other, object, old).await {
                Ok(made) => seen = Some(made),
                Err(failure) => {
                    let why = format!("failed to convert object version: {}", failure.message);
                    wrong(denials, Some(binding), &why);
                    continue;
                }
            }
        }
        let Some(seen) = &seen else { continue };
        let namespace = namespace(cx, asking)?;
        for params in &params {
            let since = Instant::now();
            let outcome = with_input(cx, asking, seen, params, &namespace, |input| {
                policy.evaluator.validate(input)
            });
            let time = since.elapsed();
            act(
                cx,
                (policy, binding),
                outcome,
                time,
                denials,
                &mut annotations,
            );
        }
    }
    for (key, values) in annotations {
        let key = format!("{}/{key}", policy.name);
        cx.notes.add(key, values.join(", "));
    }
    Ok(())
}

/// What the audit annotations of a policy say for its bindings and their parameters: each value once.
type Collected = BTreeMap<String, Vec<String>>;

/// Does what a binding says is to be done about denials.
fn act(
    cx: &mut Cx,
    (policy, binding): (&Policy<Validator>, &Binding),
    outcome: Outcome,
    time: Duration,
    denials: &mut Vec<Denial>,
    annotations: &mut Collected,
) {
    let count = |cx: &Cx, error: &str, action: &str| {
        let labels = [&policy.name, &binding.name, error, action];
        cx.api.metrics.admission.check(labels, time);
    };
    for decision in outcome.decisions {
        let Some(message) = decision.denial else {
            if decision.error != "no_error" {
                count(cx, decision.error, "allow");
            }
            continue;
        };
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => {
                    denials.push(Denial {
                        reason: decision.reason.clone(),
                        ..deny(policy, Some(binding), message.clone())
                    });
                    count(cx, decision.error, "deny");
                }
                "Warn" => {
                    let warning = format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                        policy.name, binding.name
                    );
                    if !cx.warnings.contains(&warning) {
                        cx.warnings.push(warning);
                    }
                    count(cx, decision.error, "warn");
                }
                _ => {
                    let failure = json!([{
                        "message": message, "policy": policy.name, "binding": binding.name,
                        "expressionIndex": decision.index, "validationActions": binding.actions,
                    }]);
                    let key = "validation.policy.admission.k8s.io/validation_failure";
                    cx.notes.add(key, failure.to_string());
                    count(cx, decision.error, "audit");
                }
            }
        }
    }
    for annotation in outcome.annotations {
        match annotation.value {
            Ok(mut value) => {
                value.truncate(value.floor_char_boundary(LONGEST_ANNOTATION));
                let values = annotations.entry(annotation.key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            Err(why) => {
                denials.push(deny(policy, Some(binding), why));
                count(cx, "invalid_error", "deny");
            }
        }
    }
}
