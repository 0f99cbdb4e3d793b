//! Webhooks in admission: which there are, in which order they are asked, and which again.
//!
//! Mutating ones are asked one after the other, each about what those before it made of the
//! object. When one changed it, all that were asked before and want to know are asked once more.
//! Validating ones are asked at the same time.

pub mod call;
mod configured;
mod told;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures::future::join_all;
use gantry_machinery::status::Failure;
use parking_lot::Mutex;
use serde_json::Value;

use self::{
    call::{Seen, Trouble},
    configured::Hook,
    told::Told,
};
use super::{asking::Asking, review, rounds::Rounds};
use crate::{
    api::{Api, Cx},
    object, rules,
};

pub use configured::Configured;

/// The group of webhook configurations and admission policies.
pub const GROUP: &str = "admissionregistration.k8s.io";

/// The configured webhooks as of the last write to a configuration.
#[derive(Default)]
pub struct Hooks {
    /// Counts writes to configurations.
    generation: AtomicU64,
    read: Mutex<Option<(u64, Arc<Configured>)>>,
}

impl Hooks {
    /// A configuration was written.
    pub fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub fn current(&self, api: &Api) -> Arc<Configured> {
        let generation = self.generation.load(Ordering::Acquire);
        let mut read = self.read.lock();
        match &*read {
            Some((at, configured)) if *at == generation => configured.clone(),
            before => {
                let before = before.as_ref().map(|(_, configured)| &**configured);
                let configured = Arc::new(Configured::read(api, before));
                *read = Some((generation, configured.clone()));
                configured
            }
        }
    }
}

fn warn(cx: &mut Cx, warnings: Vec<String>) {
    for warning in warnings {
        if !cx.warnings.contains(&warning) {
            cx.warnings.push(warning);
        }
    }
}

/// What becomes of a request when a webhook could not be asked.
fn failed_call(hook: &Hook, why: &str) -> Result<(), Failure> {
    if hook.fails {
        return Err(review::call_failure(&hook.name, why));
    }
    tracing::warn!(
        webhook = hook.name,
        why,
        "failed calling webhook, failing open"
    );
    Ok(())
}

/// Asks the mutating webhooks. Returns whether they changed the object.
pub async fn mutate(
    cx: &mut Cx,
    asking: &Asking,
    mut object: Option<&mut Value>,
    old: Option<&Value>,
    rounds: &mut Rounds,
) -> Result<bool, Failure> {
    let mut changed = false;
    rounds.hooks.begin(rounds.second, object.as_deref());
    for (i, hook) in asking.configured.mutating.iter().enumerate() {
        if rounds.second && !rounds.hooks.is_due(&hook.id) {
            continue;
        }
        let seen = call::relevant(cx, asking, hook, object.as_deref(), old).await?;
        let Some(seen) = seen else { continue };
        let told = Told {
            hook,
            operation: asking.at.operation.name(),
            place: format!("round_{}_index_{i}", u8::from(rounds.second)),
        };
        let since = Instant::now();
        let outcome = one(cx, asking, &told, &seen).await;
        let changes = matches!(outcome, Ok(Some(_)));
        told.mutated(cx, changes);
        told.counted(cx, "admit", outcome.as_ref().err(), since.elapsed());
        if let (Ok(Some(new)), Some(object)) = (&outcome, object.as_deref_mut()) {
            changed = true;
            *object = new.clone();
            rounds.hooks.changed();
            rounds.repeat = true;
        }
        if hook.again {
            rounds.hooks.invoked(&hook.id);
        }
        match outcome {
            Ok(_) => {}
            Err(Trouble::Call(why)) => {
                failed_call(hook, &why)?;
                told.failed_open(cx, "admit", "failed-open.mutation.webhook.admission.k8s.io");
            }
            Err(Trouble::Denied(failure) | Trouble::Failed(failure)) => return Err(failure),
        }
    }
    rounds.hooks.end(object.as_deref());
    Ok(changed)
}

/// Asks one mutating webhook; the object as it changed it.
async fn one(
    cx: &mut Cx,
    asking: &Asking,
    told: &Told<'_>,
    seen: &Seen,
) -> Result<Option<Value>, Trouble> {
    let hook = told.hook;
    let mut answer = call::ask(hook, &asking.at, seen, true).await?;
    warn(cx, std::mem::take(&mut answer.warnings));
    told.annotated(cx, &answer.annotations);
    let Some(patch) = answer.outcome()? else {
        return Ok(None);
    };
    let patched = call::patched(cx, &asking.at, hook, seen, &patch).await;
    let patched = patched.map_err(Trouble::Failed)?;
    told.patched(cx, &patch);
    Ok(patched)
}

/// Asks the validating webhooks.
pub async fn validate(
    cx: &mut Cx,
    asking: &Asking,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Failure> {
    let mut asked = vec![];
    for hook in &asking.configured.validating {
        if let Some(seen) = call::relevant(cx, asking, hook, object, old).await? {
            asked.push((hook, seen));
        }
    }
    let calls = asked.iter().map(async |(hook, seen)| {
        let since = Instant::now();
        let answer = call::ask(hook, &asking.at, seen, false).await;
        (answer, since.elapsed())
    });
    let answers = join_all(calls).await;
    let mut refusal = None;
    for (i, ((hook, _), (answer, time))) in asked.iter().zip(answers).enumerate() {
        let told = Told {
            hook,
            operation: asking.at.operation.name(),
            place: format!("round_0_index_{i}"),
        };
        let outcome = match answer {
            Ok(mut answer) => {
                warn(cx, std::mem::take(&mut answer.warnings));
                told.annotated(cx, &answer.annotations);
                answer.outcome().map(|_| ())
            }
            Err(trouble) => Err(trouble),
        };
        told.counted(cx, "validating", outcome.as_ref().err(), time);
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(Trouble::Call(why)) => failed_call(hook, &why).inspect(|()| {
                let key = "failed-open.validating.webhook.admission.k8s.io";
                told.failed_open(cx, "validating", key);
            }),
            Err(Trouble::Denied(failure) | Trouble::Failed(failure)) => Err(failure),
        };
        if let Err(failure) = outcome {
            refusal.get_or_insert(failure);
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// Ownership that a webhook has spoilt is put back as it was.
pub fn mend_ownership(cx: &mut Cx, object: &mut Value, before: Option<Value>) {
    let entries = object::meta(object).and_then(|m| m.get("managedFields"));
    let Err(why) = rules::check_ownership(entries) else {
        return;
    };
    match before {
        Some(before) => object::set_meta(object, "managedFields", before),
        None => {
            object::remove_meta(object, "managedFields");
        }
    }
    warn(
        cx,
        vec![format!(
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: {why}"
        )],
    );
}
