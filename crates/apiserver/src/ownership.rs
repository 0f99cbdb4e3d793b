//! Ownership over the versions of a kind: which there are, and how objects get from one to another
//! while it is worked out who owns what.
//!
//! The rules (`gantry_machinery::apply`) are plain functions and cannot wait for a webhook. Where one
//! converts, they are run until they ask for a conversion that is not known yet, the webhook is
//! asked, and they are run again.

use std::sync::Arc;

use gantry_machinery::{
    apply::{ResetFields, Versions, reset_fields},
    schema::Schema,
    status::Failure,
};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    api::Cx,
    convert, errors, object,
    registry::{Entry, Registry},
    rules,
};

/// The conversions of a request so far.
#[derive(Default)]
pub struct Conversions(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Object, version, the object in that version.
    made: Vec<(Value, String, Value)>,
    wanted: Option<(Value, Arc<Entry>)>,
}

impl Conversions {
    fn find(&self, object: &Value, version: &str) -> Option<Value> {
        let known = self.0.lock();
        let mut made = known.made.iter();
        let (_, _, converted) = made.find(|(from, to, _)| to == version && from == object)?;
        Some(converted.clone())
    }
}

/// Asks the webhook for the conversion that the rules stopped at. Whether they did.
///
/// # Errors
/// What the webhook says.
pub async fn convert_wanted(cx: &Cx) -> Result<bool, Failure> {
    let wanted = cx.conversions.0.lock().wanted.take();
    let Some((object, to)) = wanted else {
        return Ok(false);
    };
    let mut converted = convert::from_storage(&cx.api, &to, vec![object.clone()]).await?;
    let converted = converted
        .pop()
        .ok_or_else(|| errors::internal("a conversion without an outcome"))?;
    let made = (object, to.resource.api_version(), converted);
    cx.conversions.0.lock().made.push(made);
    Ok(true)
}

/// The versions of the kind of a request beside its own.
pub struct Elsewhere<'a> {
    cx: &'a Cx,
    registry: Arc<Registry>,
    /// In each version of somebody's entry.
    known: Vec<(String, Arc<Entry>, ResetFields)>,
}

impl<'a> Elsewhere<'a> {
    /// `None` when all entries of these objects are of the version of the request.
    pub fn of<'o>(
        cx: &'a Cx,
        subresource: Option<&str>,
        objects: impl IntoIterator<Item = &'o Value>,
    ) -> Option<Self> {
        let own = cx.resource().api_version();
        let mut versions: Vec<&str> = vec![];
        for object in objects {
            let entries = object::meta(object).and_then(|m| m.get("managedFields"));
            for entry in entries.and_then(Value::as_array).into_iter().flatten() {
                let version = object::text(entry, "/apiVersion");
                if version != own && !versions.contains(&version) {
                    versions.push(version);
                }
            }
        }
        if versions.is_empty() {
            return None;
        }
        let registry = cx.api.registry.read().clone();
        let mut known = vec![];
        for version in versions {
            let mut all = registry.sharing(&cx.entry.bucket).iter();
            let found = all.find(|e| e.resource.api_version() == version);
            // Of built-in kinds Kubernetes knows more versions than it serves. A path means the
            // same in all of them.
            let unserved = || cx.resource().custom.is_none().then_some(&cx.entry);
            if let Some(entry) = found.or_else(unserved) {
                let reset = reset_fields(&entry.resource, subresource);
                known.push((version.to_owned(), entry.clone(), reset));
            }
        }
        Some(Elsewhere {
            cx,
            registry,
            known,
        })
    }

    fn find(&self, version: &str) -> Option<&(String, Arc<Entry>, ResetFields)> {
        self.known.iter().find(|(known, ..)| known == version)
    }
}

impl Versions for Elsewhere<'_> {
    fn typed(&self, api_version: &str) -> Option<(&Schema, &ResetFields)> {
        let (_, entry, reset) = self.find(api_version)?;
        Some((entry.resource.schema(), reset))
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Failure> {
        let from = object::text(object, "/apiVersion");
        let to = match self.find(api_version) {
            Some((_, entry, _)) => entry,
            None => &self.cx.entry,
        };
        let version = to.resource.api_version();
        if from == version {
            return Ok(object.clone());
        }
        if convert::by_webhook(&to.resource) {
            if let Some(converted) = self.cx.conversions.find(object, &version) {
                return Ok(converted);
            }
            self.cx.conversions.0.lock().wanted = Some((object.clone(), to.clone()));
            return Err(errors::internal("a conversion is not known yet"));
        }
        let mut all = self.registry.sharing(&self.cx.entry.bucket).iter();
        let from = all
            .find(|e| e.resource.api_version() == from)
            .map_or(self.cx.resource(), |e| &e.resource);
        Ok(convert::plainly(object.clone(), from, &to.resource))
    }
}

/// Records a new object as the manager's. `seen`: policies or webhooks look at it before it is stored.
///
/// # Errors
/// As [`track`].
pub async fn track_new(
    cx: &mut Cx,
    object: &mut Value,
    name: &str,
    seen: bool,
) -> Result<(), Failure> {
    // In another version than it is stored in, an object is converted as a whole.
    if !seen
        && cx.entry.native()
        && let Some(fields) = rules::track_new(cx, object, name)
    {
        let mut pieces = std::mem::take(&mut cx.pieces);
        let sealed = pieces.seal_owner(object, fields);
        cx.pieces = pieces;
        if sealed {
            return Ok(());
        }
        object::remove_meta(object, "managedFields");
    }
    track(cx, None, None, object, name).await
}

/// Records what an update changed as the manager's.
///
/// # Errors
/// None for what concerns conversions: where one fails, the object keeps no entries, as in
/// Kubernetes.
pub async fn track(
    cx: &Cx,
    subresource: Option<&str>,
    old: Option<&Value>,
    new: &mut Value,
    name: &str,
) -> Result<(), Failure> {
    let resource = cx.resource();
    let objects = old.into_iter().chain([&*new]);
    let Some(others) = Elsewhere::of(cx, subresource, objects) else {
        return rules::track(cx, resource, subresource, None, old, new, name);
    };
    // What the rules leave of an object when they stop is no use.
    let given = convert::by_webhook(resource).then(|| new.clone());
    loop {
        let outcome = rules::track(cx, resource, subresource, Some(&others), old, new, name);
        let Err(failure) = outcome else {
            return Ok(());
        };
        match convert_wanted(cx).await {
            Ok(true) => {
                if let Some(given) = &given {
                    new.clone_from(given);
                }
            }
            Ok(false) => return Err(failure),
            Err(failure) => {
                tracing::warn!(%failure, "who owns what cannot be told in another version");
                object::remove_meta(new, "managedFields");
                return Ok(());
            }
        }
    }
}
