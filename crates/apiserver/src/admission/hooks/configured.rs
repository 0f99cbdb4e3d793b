//! The webhooks that there are, read from their configurations once after every change to one.

use std::{sync::Arc, time::Duration};

use gantry_machinery::policy::{Conditions, Mutator, Validator};
use serde_json::Value;

use super::super::{
    matching::Matching,
    policies::{self, Policy},
};
use crate::{
    api::Api,
    object,
    webhook::{CallError, Caller},
};

/// One webhook of a configuration.
#[derive(Debug)]
pub struct Hook {
    /// Of the webhook among all; names need not be unique.
    pub id: String,
    pub name: String,
    pub matching: Matching,
    pub conditions: Conditions,
    /// Its server, or why it cannot be called.
    pub caller: Result<Caller, CallError>,
    pub timeout: Duration,
    /// A failed call fails the request.
    pub fails: bool,
    /// It may be called for a dry run; `None` where the configuration does not say.
    pub dry_run: Option<bool>,
    /// It is asked again when others changed the object after it.
    pub again: bool,
    /// Version of AdmissionReview: the first it names of those known.
    pub spoken: Option<&'static str>,
}

impl Hook {
    /// The name of the object that it stands in.
    pub fn configuration(&self) -> &str {
        let split = self.id.rsplit_once('/');
        split.map_or("", |(configuration, _)| configuration)
    }
}

/// All webhooks and policies, in the order in which they are asked.
#[derive(Debug, Default)]
pub struct Configured {
    pub mutators: Vec<Policy<Mutator>>,
    pub validators: Vec<Policy<Validator>>,
    pub mutating: Vec<Arc<Hook>>,
    pub validating: Vec<Arc<Hook>>,
}

impl Configured {
    /// What is configured now, given what was before.
    pub fn read(api: &Api, before: Option<&Configured>) -> Configured {
        let (mutators, validators) = before.map_or((&[][..], &[][..]), |before| {
            (&before.mutators[..], &before.validators[..])
        });
        Configured {
            mutators: policies::mutators(api, mutators),
            validators: policies::validators(api, validators),
            mutating: all(api, "mutatingwebhookconfigurations"),
            validating: all(api, "validatingwebhookconfigurations"),
        }
    }

    pub fn has_policies(&self) -> bool {
        !self.mutators.is_empty() || !self.validators.is_empty()
    }

    pub fn has_hooks(&self) -> bool {
        !self.mutating.is_empty() || !self.validating.is_empty()
    }
}

/// Webhooks by the names of their configurations, then by place.
fn all(api: &Api, plural: &str) -> Vec<Arc<Hook>> {
    let bucket = format!("{}/{plural}", super::GROUP);
    let mut hooks = vec![];
    for stored in api.store.snapshot(&bucket).iter() {
        let configuration: Value = match serde_json::from_slice(&stored.value) {
            Ok(value) => value,
            Err(e) => {
                tracing::error!(key = %stored.key, error = %e, "a stored configuration is not JSON");
                continue;
            }
        };
        let list = configuration.get("webhooks").and_then(Value::as_array);
        for (i, hook) in list.into_iter().flatten().enumerate() {
            let id = format!("{}/{i}", stored.key.name);
            hooks.push(Arc::new(one(api, id, hook)));
        }
    }
    hooks
}

fn one(api: &Api, id: String, hook: &Value) -> Hook {
    let config = hook.get("clientConfig").unwrap_or(&Value::Null);
    let seconds = hook.get("timeoutSeconds").and_then(Value::as_u64);
    let versions = object::strings(hook.get("admissionReviewVersions"));
    Hook {
        id,
        name: object::text(hook, "/name").to_owned(),
        matching: Matching::of_webhook(hook),
        conditions: Conditions::compile(hook.get("matchConditions"), false),
        caller: api.callers.caller(config),
        timeout: Duration::from_secs(seconds.unwrap_or(10)),
        fails: object::text(hook, "/failurePolicy") != "Ignore",
        dry_run: match object::text(hook, "/sideEffects") {
            "" => None,
            effects => Some(matches!(effects, "None" | "NoneOnDryRun")),
        },
        again: object::text(hook, "/reinvocationPolicy") == "IfNeeded",
        spoken: versions.iter().find_map(|v| match v.as_str() {
            "v1" => Some("v1"),
            "v1beta1" => Some("v1beta1"),
            _ => None,
        }),
    }
}
