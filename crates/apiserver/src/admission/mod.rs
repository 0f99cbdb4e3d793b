//! Admission: what may come in, and what is filled in on the way. The steps carry the names of
//! Kubernetes' plugins; [`crate::Config::disabled_admission`] leaves some out.

pub mod asking;
pub mod attributes;
mod authorizer;
mod config;
mod defaults;
mod escalation;
mod hooks;
mod limits;
mod matching;
mod namespace;
mod optional;
mod plugins;
mod pods;
pub mod policies;
mod quota;
mod restriction;
mod review;
mod rounds;
mod security;
mod volumes;

use std::{ops::Deref, sync::Arc, time::Instant};

pub use config::{PluginSettings, parse as parse_config};
use gantry_machinery::status::Failure;
use gantry_store::{Key, Stored};
pub use hooks::{GROUP, Hooks};
pub use optional::{EventLimit, EventLimits, LimitOn, Tolerations};
pub use plugins::{Offer, plugin};
pub use quota::Charges;
use serde_json::Value;

use self::{asking::Asking, rounds::Rounds};
use crate::{
    api::Cx,
    certificates,
    metrics::admission::{Phase, Plugin},
    object::{self, View},
    registry::Entry,
    rest::{scale, write::Refused},
};

/// Whether a step is to be taken.
fn enabled(cx: &Cx, plugin: &str) -> bool {
    !cx.api
        .config
        .disabled_admission
        .iter()
        .any(|d| d.eq_ignore_ascii_case(plugin))
}

/// Whether the namespace of a request has a label of this value.
pub fn labelled(cx: &Cx, label: &str, value: &str) -> bool {
    let namespace = stored(cx, "/namespaces", &cx.target.namespace);
    let labels = namespace
        .as_ref()
        .and_then(|n| object::meta(n)?.get("labels"));
    labels.and_then(|l| l.get(label)?.as_str()) == Some(value)
}

/// Takes a step, unless it is left out, and counts what it took.
fn step(
    cx: &mut Cx,
    plugin: Plugin,
    phase: Phase,
    operation: &str,
    work: impl FnOnce(&mut Cx) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if !enabled(cx, plugin.name()) {
        return Ok(());
    }
    let since = Instant::now();
    let result = work(cx);
    let counted = &cx.api.metrics.admission;
    counted.step(plugin, operation, phase, result.is_err(), since.elapsed());
    result
}

/// What a request with or without an object of before does.
fn operation(old: Option<&Value>) -> &'static str {
    match old {
        Some(_) => "UPDATE",
        None => "CREATE",
    }
}

/// Waits for what other steps need and what is about to come.
pub async fn prepare(cx: &Cx, object: &Value) -> Result<(), Failure> {
    optional::prepare(cx).await?;
    if cx.entry.is("", "pods") && enabled(cx, "ServiceAccount") {
        pods::default_account(cx, object).await;
    }
    Ok(())
}

/// Fills in and refuses, before validation; then policies and webhooks do, and when those changed
/// something, everybody once more. Returns whether they did.
pub async fn mutate(
    cx: &mut Cx,
    asking: Option<&Asking>,
    subresource: &str,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<bool, Failure> {
    optional::deny(cx, object)?;
    let own = subresource.is_empty();
    if own {
        fill(cx, object, old)?;
    }
    if own || subresource == "ephemeralcontainers" {
        optional::admit(cx, object, old)?;
    }
    let Some(asking) = asking else {
        return Ok(false);
    };
    if subresource == "scale" {
        return scaled(cx, asking, object, old).await;
    }
    let owners = object::meta(object).and_then(|m| m.get("managedFields").cloned());
    let mut rounds = Rounds::default();
    let mut changed = asking
        .round(cx, Some(&mut *object), old, &mut rounds)
        .await?;
    if rounds.repeat {
        if own {
            fill(cx, object, old)?;
            optional::admit(cx, object, old)?;
        }
        rounds.second = true;
        changed |= asking
            .round(cx, Some(&mut *object), old, &mut rounds)
            .await?;
    }
    if changed {
        hooks::mend_ownership(cx, object, owners);
    }
    Ok(changed)
}

/// Of a scale subresource, policies and webhooks see Scales.
async fn scaled(
    cx: &mut Cx,
    asking: &Asking,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<bool, Failure> {
    let mut scale = scale::of(cx, object);
    let old = old.map(|old| scale::of(cx, old));
    let changed = asking.mutate(cx, &mut scale, old.as_ref()).await?;
    if changed {
        scale::take(cx, &scale, object)?;
    }
    Ok(changed)
}

fn fill(cx: &mut Cx, object: &mut Value, old: Option<&Value>) -> Result<(), Failure> {
    let doing = operation(old);
    let admit =
        |cx: &mut Cx, plugin: Plugin, work: &mut dyn FnMut(&mut Cx) -> Result<(), Failure>| {
            step(cx, plugin, Phase::Admit, doing, work)
        };
    // Nobody can leave this one out.
    let lifecycle = Plugin::NamespaceLifecycle;
    let since = Instant::now();
    let checked = namespace::check(cx, object, old);
    let counted = &cx.api.metrics.admission;
    let refused = checked.is_err();
    counted.step(lifecycle, doing, Phase::Admit, refused, since.elapsed());
    checked?;
    match (cx.resource().group.as_str(), cx.resource().plural.as_str()) {
        ("", "pods") => {
            if let Some(old) = old {
                pods::keep(object, old);
            } else {
                admit(cx, Plugin::ServiceAccount, &mut |cx| {
                    pods::service_account(cx, object)
                })?;
                admit(cx, Plugin::Priority, &mut |cx| pods::priority(cx, object))?;
                admit(cx, Plugin::LimitRanger, &mut |cx| {
                    limits::fill(cx, object);
                    Ok(())
                })?;
                admit(cx, Plugin::RuntimeClass, &mut |cx| {
                    pods::runtime_class(cx, object)
                })?;
                admit(cx, Plugin::PodTopologyLabels, &mut |cx| {
                    let node = object::text(object, "/spec/nodeName").to_owned();
                    pods::topology(cx, &node, object);
                    Ok(())
                })?;
            }
            admit(cx, Plugin::DefaultTolerationSeconds, &mut |cx| {
                pods::tolerations(object, cx.api.config.admission.toleration_seconds);
                Ok(())
            })?;
        }
        ("", "nodes") if old.is_none() => admit(cx, Plugin::TaintNodesByCondition, &mut |_| {
            defaults::not_ready_taint(object);
            Ok(())
        })?,
        ("", "persistentvolumeclaims") if old.is_none() => {
            admit(cx, Plugin::StorageObjectInUseProtection, &mut |cx| {
                volumes::protect(cx, object);
                Ok(())
            })?;
            admit(cx, Plugin::DefaultStorageClass, &mut |cx| {
                defaults::storage_class(cx, object);
                Ok(())
            })?;
        }
        ("", "persistentvolumes") if old.is_none() => {
            admit(cx, Plugin::StorageObjectInUseProtection, &mut |cx| {
                volumes::protect(cx, object);
                Ok(())
            })?;
        }
        ("networking.k8s.io", "ingresses") if old.is_none() => {
            admit(cx, Plugin::DefaultIngressClass, &mut |cx| {
                defaults::ingress_class(cx, object);
                Ok(())
            })?;
        }
        ("rbac.authorization.k8s.io", _) => escalation::check(cx, object, old)?,
        (GROUP, _) => policies::check_rights(cx, object, old)?,
        _ => {}
    }
    Ok(())
}

/// Refuses after validation, asks policies and webhooks, and charges quotas for what comes in.
pub async fn validate(
    cx: &mut Cx,
    asking: Option<&Asking>,
    object: &Value,
    old: Option<&Value>,
) -> Result<Charges, Refused> {
    let own = cx.target.subresource.is_empty();
    let resizes = cx.target.subresource == "resize" && cx.entry.is("", "pods");
    let doing = operation(old);
    // Kubernetes' plugin is of those that may change something, though it does not.
    step(cx, Plugin::NodeRestriction, Phase::Admit, doing, |cx| {
        restriction::check(cx, object, old)
    })?;
    certificates::admit(cx, object, old, |plugin| enabled(cx, plugin))?;
    optional::validate(cx, object, old)?;
    if resizes {
        pods::node_of_resize(cx, object, old)?;
    }
    step(cx, Plugin::LimitRanger, Phase::Validate, doing, |cx| {
        limits::check(cx, object, old)
    })?;
    step(cx, Plugin::PodSecurity, Phase::Validate, doing, |cx| {
        security::check(cx, object, old)
    })?;
    if let Some(old) = old
        && own
        && cx.entry.is("", "persistentvolumeclaims")
    {
        let plugin = Plugin::PersistentVolumeClaimResize;
        step(cx, plugin, Phase::Validate, doing, |cx| {
            volumes::growth(cx, object, old)
        })?;
    }
    if let Some(asking) = asking {
        if asking.at.subresource == "scale" {
            let scale = scale::of(cx, object);
            let old = old.map(|old| scale::of(cx, old));
            asking.validate(cx, Some(&scale), old.as_ref()).await?;
        } else {
            asking.validate(cx, Some(object), old).await?;
        }
    }
    if (own || resizes) && enabled(cx, "ResourceQuota") {
        let since = Instant::now();
        let charged = quota::charge(cx, object, old).await;
        let (plugin, refused) = (Plugin::ResourceQuota, charged.is_err());
        let counted = &cx.api.metrics.admission;
        counted.step(plugin, doing, Phase::Validate, refused, since.elapsed());
        return Ok(charged?);
    }
    Ok(Charges::default())
}

/// Refuses deletions.
pub fn deletion(cx: &Cx, object: &Value) -> Result<(), Failure> {
    optional::deny(cx, object)?;
    if enabled(cx, "NodeRestriction") && cx.target.subresource != "eviction" {
        restriction::deletion(cx, object)?;
    }
    namespace::protect(cx, object)
}

/// Refuses what the subresource `eviction` of a pod is asked for.
pub fn eviction(cx: &Cx, pod: &Value) -> Result<(), Failure> {
    if enabled(cx, "NodeRestriction") {
        restriction::eviction(cx, pod)?;
    }
    Ok(())
}

/// Fills in what a Binding of a pod to a node lacks.
pub fn binding(cx: &Cx, binding: &mut Value) {
    if enabled(cx, "PodTopologyLabels") {
        let node = object::text(binding, "/target/name").to_owned();
        pods::topology(cx, &node, binding);
    }
}

/// Refuses TokenRequests.
pub fn token(cx: &Cx, request: &Value) -> Result<(), Failure> {
    if enabled(cx, "NodeRestriction") {
        restriction::token(cx, request)?;
    }
    Ok(())
}

/// A stored object that a step reads. It is parsed once for all requests.
struct Seen {
    entry: Arc<Entry>,
    stored: Arc<Stored>,
}

impl Deref for Seen {
    type Target = Value;

    fn deref(&self) -> &Value {
        View::whole(&self.entry, &self.stored)
    }
}

/// A stored object of another kind, by its store name; `None` when there is none.
fn stored(cx: &Cx, bucket: &str, name: &str) -> Option<Seen> {
    let entry = cx.api.registry.read().stored_in(bucket)?.clone();
    let key = Key {
        bucket: entry.bucket.clone(),
        name: name.into(),
    };
    let stored = cx.store().get(&key)?;
    Some(Seen { entry, stored })
}

/// All stored objects of a kind, of one namespace or cluster-wide.
fn all(cx: &Cx, bucket: &str, namespace: &str) -> Vec<Seen> {
    let snapshot = cx.store().snapshot(bucket);
    if snapshot.is_empty() {
        return vec![];
    }
    let Some(entry) = cx.api.registry.read().stored_in(bucket).cloned() else {
        return vec![];
    };
    let prefix = if namespace.is_empty() {
        String::new()
    } else {
        format!("{namespace}/")
    };
    snapshot
        .range(&prefix, None)
        .map(|stored| Seen {
            entry: entry.clone(),
            stored: stored.clone(),
        })
        .collect()
}
