//! ResourceQuota: what a namespace may use in all. A quota counts once its status says what is
//! used; a request that fits is charged to it before the object is written.

use gantry_machinery::path::At as _;
use std::collections::{BTreeMap, BTreeSet};

use gantry_machinery::{
    quantity::Quantity,
    quota::{self, Amounts, amounts},
    status::Failure,
};
use serde_json::{Value, json};

use super::{all, stored};
use crate::{
    api::Cx,
    errors, object,
    rest::update::{self, Change, Track},
};

/// What a request has taken of quotas, given back when it fails.
#[derive(Default)]
pub struct Charges(Vec<(String, Amounts)>);

impl Charges {
    pub async fn undo(self, cx: &mut Cx) {
        for (quota, delta) in self.0 {
            // Best effort: the quota controller counts anew.
            if let Err(failure) = add(cx, &quota, &delta, true).await {
                tracing::warn!(%failure, quota, "giving back what a failed request had charged");
            }
        }
    }
}

fn join<'a>(names: impl Iterator<Item = &'a String>, of: &Amounts) -> String {
    names
        .map(|n| {
            format!(
                "{n}={}",
                of.get(n).copied().unwrap_or(Quantity::from_milli(0))
            )
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// Charges the quotas of the namespace, or refuses.
pub async fn charge(cx: &mut Cx, object: &Value, old: Option<&Value>) -> Result<Charges, Failure> {
    if !cx.resource().namespaced()
        || cx.entry.is("", "events")
        || cx.entry.is("events.k8s.io", "events")
        || cx.store().count("/resourcequotas") == 0
    {
        return Ok(Charges::default());
    }
    // Of built-in kinds only these change what they use when they change.
    let counted = ["services", "persistentvolumeclaims"];
    let resizes = cx.target.subresource == "resize";
    if old.is_some()
        && !resizes
        && !(cx.resource().group.is_empty() && counted.contains(&cx.resource().plural.as_str()))
    {
        return Ok(Charges::default());
    }
    let namespace = cx.target.namespace.clone();
    let quotas = all(cx, "/resourcequotas", &namespace);
    let (group, plural) = (cx.resource().group.clone(), cx.resource().plural.clone());
    let mut now = quota::usage(&group, &plural, object, cx.now);
    if (group.as_str(), plural.as_str()) == quota::CLAIMS {
        add_resources(cx, object, &mut now);
    }
    let before = old
        .map(|o| quota::usage(&group, &plural, o, cx.now))
        .unwrap_or_default();
    let mut delta = Amounts::new();
    for (name, value) in &now {
        let grown = match before.get(name) {
            Some(b) if b >= value => continue,
            Some(b) => value.saturating_sub(*b),
            None => *value,
        };
        delta.insert(name.clone(), grown);
    }
    let mut charges = Charges::default();
    for one in &quotas {
        let name = object::name(one).to_owned();
        let hard = amounts(one.at("/status/hard"));
        if !quota::in_scope(one, &group, &plural, object) {
            continue;
        }
        if old.is_none() && cx.entry.is("", "pods") {
            must_specify(cx, &name, &hard, object)?;
        }
        let mine: Amounts = delta
            .iter()
            .filter(|(n, v)| hard.contains_key(*n) && !v.is_zero())
            .map(|(n, v)| (n.clone(), *v))
            .collect();
        if mine.is_empty() {
            continue;
        }
        if cx.dry_run() {
            exceeded(cx, &name, one, &mine, object::name(object))?;
            continue;
        }
        match add(cx, &name, &mine, false).await {
            Ok(()) => charges.0.push((name, mine)),
            Err(failure) => {
                charges.undo(cx).await;
                let mut failure = failure;
                fix_name(cx, &mut failure, object::name(object));
                return Err(failure);
            }
        }
    }
    Ok(charges)
}

/// Adds the extended resources that a claim's classes stand for, but for what the claim's pod is charged for.
fn add_resources(cx: &Cx, claim: &Value, used: &mut Amounts) {
    let resource = |class: &str| {
        let class = stored(cx, "resource.k8s.io/deviceclasses", class)?;
        let name = object::text(&class, "/spec/extendedResourceName").to_owned();
        Some(name).filter(|name| !name.is_empty())
    };
    let namespace = &cx.target.namespace;
    let pod = quota::made_for(claim).and_then(|(name, _)| {
        let pod = stored(cx, "/pods", &format!("{namespace}/{name}"))?;
        let claims = all(cx, "resource.k8s.io/resourceclaims", namespace);
        quota::is_the_one(claim, &pod, claims.iter().map(|c| &**c))
            .then(|| quota::usage("", "pods", &pod, cx.now))
    });
    quota::add_resources(used, resource, pod.as_ref());
}

/// The refusal was made where the object's name is not known.
fn fix_name(cx: &Cx, failure: &mut Failure, name: &str) {
    if failure.reason == "Forbidden" {
        let why = failure.message.clone();
        *failure = errors::forbidden(cx.resource(), name, &why);
    }
}

/// With a quota on them, every container has to say how much CPU and memory it wants, unless the
/// pod says it of itself.
fn must_specify(cx: &Cx, quota: &str, hard: &Amounts, pod: &Value) -> Result<(), Failure> {
    let whole = pod.at("/spec/resources").and_then(Value::as_object);
    let some = |v: &Value| v.as_object().is_some_and(|o| !o.is_empty());
    if whole.is_some_and(|own| own.values().any(some)) {
        return Ok(());
    }
    let mut missing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in hard.keys() {
        let (field, resource) = match name.as_str() {
            "cpu" | "memory" => ("requests", name.as_str()),
            _ => match name.split_once('.') {
                Some((field @ ("requests" | "limits"), r @ ("cpu" | "memory"))) => (field, r),
                _ => continue,
            },
        };
        for list in ["containers", "initContainers"] {
            for container in pod
                .at(&format!("/spec/{list}"))
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let pointer = format!("/resources/{field}/{resource}");
                if container.at(&pointer).is_none() {
                    missing
                        .entry(name.clone())
                        .or_default()
                        .insert(object::text(container, "/name").to_owned());
                }
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let parts: Vec<String> = missing
        .iter()
        .map(|(name, containers)| {
            let all: Vec<&str> = containers.iter().map(String::as_str).collect();
            format!("{name} for: {}", all.join(","))
        })
        .collect();
    Err(errors::forbidden(
        cx.resource(),
        object::name(pod),
        &format!("failed quota: {quota}: must specify {}", parts.join("; ")),
    ))
}

/// Refuses when a quota has no room; the message is the bare reason.
fn room(quota: &Value, name: &str, delta: &Amounts) -> Result<(), String> {
    let hard = amounts(quota.at("/status/hard"));
    let used = amounts(quota.at("/status/used"));
    let over: Vec<&String> = delta
        .iter()
        .filter(|(n, v)| {
            let sum = used.get(*n).map_or(**v, |u| u.saturating_add(**v));
            hard.get(*n).is_some_and(|h| sum > *h)
        })
        .map(|(n, _)| n)
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    Err(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        join(over.iter().copied(), delta),
        join(over.iter().copied(), &used),
        join(over.iter().copied(), &hard)
    ))
}

fn exceeded(cx: &Cx, name: &str, quota: &Value, delta: &Amounts, of: &str) -> Result<(), Failure> {
    room(quota, name, delta).map_err(|why| errors::forbidden(cx.resource(), of, &why))
}

/// Adds to what a quota's status says is used, or takes off.
async fn add(cx: &mut Cx, name: &str, delta: &Amounts, back: bool) -> Result<(), Failure> {
    let Some(entry) = cx
        .api
        .registry
        .read()
        .lookup("", "v1", "resourcequotas")
        .cloned()
    else {
        return Ok(());
    };
    let mut inner = cx.about(entry, name);
    let change = Change {
        subresource: "status".to_owned(),
        track: Track::Server,
        given: None,
        retries: 64,
    };
    let done = Box::pin(update::modify(&mut inner, change, |_, old| {
        if !back {
            room(old, name, delta).map_err(|why| Failure::new(403, "Forbidden", why))?;
        }
        let mut new = old.clone();
        let mut used = amounts(old.at("/status/used"));
        for (resource, value) in delta {
            let there = used.remove(resource).unwrap_or(Quantity::from_milli(0));
            let value = if back {
                there.saturating_sub(*value)
            } else {
                // What there is nothing of yet takes the form of what is added.
                if there.is_zero() {
                    *value
                } else {
                    there.saturating_add(*value)
                }
            };
            used.insert(resource.clone(), value);
        }
        let used: serde_json::Map<String, Value> = used
            .into_iter()
            .map(|(k, v)| (k, v.to_string().into()))
            .collect();
        if !new["status"].is_object() {
            new["status"] = json!({});
        }
        new["status"]["used"] = used.into();
        Ok(new)
    }))
    .await;
    match done {
        Ok(_) => Ok(()),
        // The quota is gone: nothing to charge.
        Err(failure) if failure.code == 404 => Ok(()),
        Err(failure) => Err(failure),
    }
}
