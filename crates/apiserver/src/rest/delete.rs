//! Deleting: preconditions, grace periods, finalizers, propagation, collections.

use bytes::Bytes;
use gantry_machinery::status::{Details, Failure};
use gantry_store::Expect;
use serde_json::{Value, json};

use super::{
    get, input, list,
    write::{self, Refused},
};
use crate::{
    admission::{
        self,
        asking::{ask_deletion, asking},
        attributes::Operation,
    },
    api::Cx,
    crd, errors, object,
    respond::{self, Reply},
    sealed::{self, Reach},
    strategy::{FOREGROUND, ORPHAN},
};

/// `metav1.DeleteOptions`, from the body or the query.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub grace: Option<i64>,
    /// `Foreground`, `Background`, `Orphan`, or nothing.
    pub propagation: String,
    pub uid: String,
    pub version: String,
    /// Webhooks and policies have been asked about it, as something else.
    pub asked: bool,
    /// `orphanDependents` says that dependents are to go: whoever still asks this way is told when the
    /// object is not gone yet.
    pub cascades: bool,
}

impl Options {
    /// As webhooks and policies see them.
    fn to_value(&self, dry_run: bool) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(grace) = self.grace {
            value["gracePeriodSeconds"] = grace.into();
        }
        for (pair, field) in [(&self.uid, "uid"), (&self.version, "resourceVersion")] {
            if !pair.is_empty() {
                value["preconditions"][field] = pair.clone().into();
            }
        }
        if !self.propagation.is_empty() {
            value["propagationPolicy"] = self.propagation.clone().into();
        }
        if dry_run {
            value["dryRun"] = json!(["All"]);
        }
        value
    }
}

pub fn options(cx: &mut Cx, body: &Bytes) -> Result<Options, Failure> {
    let mut options = Options::default();
    let mut dry = false;
    if body.is_empty() {
        options.grace = cx.query.integer("gracePeriodSeconds")?;
        options.propagation = cx.query.text("propagationPolicy").to_owned();
        if options.propagation.is_empty() && cx.query.get("orphanDependents").is_some() {
            let orphaned = cx.query.flag("orphanDependents");
            options.propagation = orphans(orphaned);
            options.cascades = !orphaned;
        }
    } else {
        let value = input::plain(cx, body)?;
        if !value.is_object() {
            return Err(errors::bad_request(
                "couldn't get version/kind; json parse error: json: cannot unmarshal into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }",
            ));
        }
        options = from_value(&value);
        dry = object::strings(value.get("dryRun"))
            .iter()
            .any(|d| d == "All");
    }
    if dry && !cx.dry_run() {
        cx.query.add("dryRun", "All");
    }
    if !matches!(
        options.propagation.as_str(),
        "" | "Foreground" | "Background" | "Orphan"
    ) {
        return Err(errors::invalid_options(
            "DeleteOptions",
            "propagationPolicy",
            "FieldValueNotSupported",
            format!(
                "Unsupported value: {:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
                options.propagation
            ),
        ));
    }
    Ok(options)
}

fn orphans(yes: bool) -> String {
    if yes { "Orphan" } else { "Background" }.to_owned()
}

/// Reads DeleteOptions as JSON.
pub fn from_value(value: &Value) -> Options {
    let mut options = Options {
        grace: value.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation: object::text(value, "/propagationPolicy").to_owned(),
        uid: object::text(value, "/preconditions/uid").to_owned(),
        version: object::text(value, "/preconditions/resourceVersion").to_owned(),
        asked: false,
        cascades: false,
    };
    if options.propagation.is_empty()
        && let Some(yes) = value.get("orphanDependents").and_then(Value::as_bool)
    {
        options.propagation = orphans(yes);
        options.cascades = !yes;
    }
    options
}

pub async fn delete(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    let options = options(cx, &body)?;
    input::options(cx, "DeleteOptions")?;
    if cx.entry.traits.orphans_by_default
        && cx.resource().kind == "Job"
        && options.propagation.is_empty()
    {
        cx.warnings.push(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"
                .to_owned(),
        );
    }
    let name = cx.target.name.clone();
    let outcome = one(cx, &name, &options).await?;
    if outcome.gone && !cx.entry.traits.delete_returns_object {
        let resource = cx.resource();
        let mut details = json!({"name": name});
        if !resource.group.is_empty() {
            details["group"] = resource.group.clone().into();
        }
        details["kind"] = resource.plural.clone().into();
        details["uid"] = outcome.uid.into();
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": details,
        });
        return respond::status(cx, 200, &status);
    }
    let code = match !outcome.gone && options.cascades {
        true => 202,
        false => 200,
    };
    respond::object_reply(cx, code, outcome.whole)
}

pub struct Outcome {
    /// Removed for good, not just marked.
    pub gone: bool,
    pub uid: String,
    pub whole: Bytes,
}

/// Deletes one object by name.
pub async fn one(cx: &mut Cx, name: &str, options: &Options) -> Result<Outcome, Failure> {
    let key = cx.key(name);
    for _ in 0..64 {
        let Some(stored) = cx.store().get(&key) else {
            return Err(errors::not_found(cx.resource(), name));
        };
        let target = cx.target.name.clone();
        let asks = !options.asked && asking(cx, Operation::Delete, "", &target).is_some();
        // Policies and webhooks see whole objects.
        let reach = match !asks && get::as_stored(&cx.entry, &stored) {
            true => Reach::Lifecycle,
            false => Reach::Whole,
        };
        let whole = get::bytes(&cx.api, &cx.entry, &stored).await?;
        let (mut object, pieces) = sealed::open(&cx.entry, reach, &whole)?;
        cx.pieces = pieces;
        preconditions(cx, name, options, &object)?;
        admission::deletion(cx, &object)?;
        let uid = object::meta_text(&object, "uid").to_owned();
        let before = Before::of(cx, asks, &object);
        let step = plan(cx, &mut object, options);
        if let (true, Before::Whole(old), Step::Mark | Step::Remove) = (asks, &before, &step) {
            let options = options.to_value(cx.dry_run());
            ask_deletion(cx, old, options).await?;
        }
        let (gone, result) = match step {
            Step::Keep => {
                return Ok(Outcome {
                    gone: false,
                    uid,
                    whole: write::answer(cx, &stored).await?,
                });
            }
            Step::Mark | Step::Remove if cx.dry_run() => {
                let gone = complete(cx, &object) || !object::deleting(&object);
                return Ok(Outcome {
                    gone,
                    uid,
                    whole: write::dry_answer(cx, &object)?,
                });
            }
            Step::Mark => {
                let expect = Expect::At(stored.revision);
                (false, write::put(cx, key.clone(), &object, expect).await)
            }
            Step::Remove if cx.entry.traits.graceful => {
                // As Kubernetes: watchers see the end of the grace period, then the deletion.
                let revision = stored.revision;
                (
                    true,
                    write::mark_and_remove(cx, key.clone(), &object, revision).await,
                )
            }
            Step::Remove => {
                let expect = Expect::At(stored.revision);
                let old = before.restore(object);
                (true, write::remove(cx, key.clone(), &old, expect).await)
            }
        };
        match result {
            Ok(stored) => {
                return Ok(Outcome {
                    gone,
                    uid,
                    whole: write::answer(cx, &stored).await?,
                });
            }
            Err(Refused::Failed(failure)) => return Err(failure),
            Err(Refused::Conflict(_)) => {}
        }
    }
    Err(errors::conflict(cx.resource(), name, errors::MODIFIED))
}

fn preconditions(cx: &Cx, name: &str, options: &Options, old: &Value) -> Result<(), Failure> {
    let resource = cx.resource();
    let refuse = |why: String| {
        let failure = Failure::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} \"{name}\": {why}",
                resource.kind
            ),
        );
        Err(failure.with_details(Details {
            name: name.to_owned(),
            kind: resource.kind.clone(),
            group: resource.group.clone(),
            ..Details::default()
        }))
    };
    let (uid, version) = (
        object::meta_text(old, "uid"),
        object::meta_text(old, "resourceVersion"),
    );
    if !options.uid.is_empty() && options.uid != uid {
        return refuse(format!(
            "the UID in the precondition ({}) does not match the UID in record ({uid}). The object might have been deleted and then recreated",
            options.uid
        ));
    }
    if !options.version.is_empty() && options.version != version {
        return refuse(format!(
            "the ResourceVersion in the precondition ({}) does not match the ResourceVersion in record ({version}). The object might have been modified",
            options.version
        ));
    }
    Ok(())
}

/// What a deletion does to an object, beside what it changed in it.
#[derive(Clone, Copy)]
enum Step {
    /// It is being deleted already, and nothing about that changes.
    Keep,
    /// It stays, marked, until its finalizers are gone or its grace period is over.
    Mark,
    Remove,
}

/// An object as it was. Of most kinds a deletion changes nothing but the metadata.
enum Before {
    Whole(Value),
    Metadata(Option<Value>),
}

impl Before {
    fn of(cx: &Cx, asks: bool, object: &Value) -> Before {
        let more =
            cx.entry.is("", "namespaces") || cx.entry.is(crd::GROUP, "customresourcedefinitions");
        match asks || more {
            true => Before::Whole(object.clone()),
            false => Before::Metadata(object.get("metadata").cloned()),
        }
    }

    /// Undoes what the plan did.
    fn restore(self, mut object: Value) -> Value {
        match self {
            Before::Whole(old) => return old,
            Before::Metadata(Some(metadata)) => object["metadata"] = metadata,
            Before::Metadata(None) => {}
        }
        object
    }
}

fn grace_of(cx: &Cx, old: &Value, options: &Options) -> Option<i64> {
    if !cx.entry.traits.graceful {
        return None;
    }
    let spec = |f: &str| old.pointer(f);
    let asked = options
        .grace
        .or_else(|| spec("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64));
    let placed = !object::text(old, "/spec/nodeName").is_empty();
    let over = matches!(object::text(old, "/status/phase"), "Failed" | "Succeeded");
    Some(match asked.unwrap_or(30) {
        _ if !placed || over => 0,
        n if n < 0 => 1,
        n => n,
    })
}

/// Whether a grace period is running that the deletion does not shorten. It then changes nothing at all, not
/// even what becomes of dependents (`rest.BeforeDelete` of apiserver).
fn pending(cx: &Cx, object: &Value, options: &Options) -> bool {
    let running = object::meta(object).and_then(|m| m.get("deletionGracePeriodSeconds"));
    let Some(running) = running.and_then(Value::as_i64) else {
        return false;
    };
    let shorter = options
        .grace
        .is_some_and(|_| grace_of(cx, object, options).is_some_and(|seconds| seconds < running));
    // Nothing keeps it any more: it only has to be removed.
    let over = running == 0 && object::finalizers(object).is_empty();
    cx.entry.traits.graceful && object::deleting(object) && !shorter && !over
}

/// Does to an object, as it is, what a deletion does to it.
fn plan(cx: &Cx, object: &mut Value, options: &Options) -> Step {
    let deleting = object::deleting(object);
    if pending(cx, object, options) {
        return Step::Keep;
    }
    let is_namespace = cx.entry.is("", "namespaces");
    let before = object::finalizers(object);
    let mut finalizers = before.clone();
    match options.propagation.as_str() {
        "Orphan" => set(&mut finalizers, ORPHAN, FOREGROUND),
        "Foreground" => set(&mut finalizers, FOREGROUND, ORPHAN),
        "Background" => finalizers.retain(|f| f != ORPHAN && f != FOREGROUND),
        // An object that already says how its dependents are treated keeps that.
        _ if finalizers.iter().any(|f| f == ORPHAN || f == FOREGROUND) => {}
        _ if cx.entry.traits.orphans_by_default => set(&mut finalizers, ORPHAN, FOREGROUND),
        _ => {}
    }
    let mut changed = finalizers != before;
    if changed {
        if finalizers.is_empty() {
            object::remove_meta(object, "finalizers");
        } else {
            object::set_meta(object, "finalizers", finalizers.clone());
        }
    }
    if is_namespace {
        let empty = object::strings(object.pointer("/spec/finalizers")).is_empty();
        if deleting {
            return if empty && finalizers.is_empty() {
                Step::Remove
            } else {
                Step::Keep
            };
        }
        object::set_meta(object, "deletionTimestamp", object::time(cx.now));
        if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
            status.insert("phase".to_owned(), "Terminating".into());
        }
        return if empty && finalizers.is_empty() {
            Step::Remove
        } else {
            Step::Mark
        };
    }
    if cx.entry.is(crd::GROUP, "customresourcedefinitions") {
        if deleting {
            return match finalizers.is_empty() {
                true => Step::Remove,
                false => Step::Keep,
            };
        }
        if !finalizers.iter().any(|f| f == crd::CLEANUP) {
            finalizers.push(crd::CLEANUP.to_owned());
            object::set_meta(object, "finalizers", finalizers);
        }
        object::set_meta(object, "deletionTimestamp", object::time(cx.now));
        crd::terminating(
            object,
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            cx.now,
        );
        return Step::Mark;
    }
    let grace = grace_of(cx, object, options);
    let seconds = grace.unwrap_or(0);
    if deleting {
        let running = object::meta(object)
            .and_then(|m| m.get("deletionGracePeriodSeconds"))
            .and_then(Value::as_i64)
            .unwrap_or(0);
        let shorter = grace.is_some() && options.grace.is_some() && seconds < running;
        if shorter {
            let since: Option<jiff::Timestamp> =
                object::meta_text(object, "deletionTimestamp").parse().ok();
            let ends = since.unwrap_or(cx.now) - jiff::SignedDuration::from_secs(running - seconds);
            object::set_meta(object, "deletionTimestamp", object::time(ends));
            object::set_meta(object, "deletionGracePeriodSeconds", seconds);
            changed = true;
        }
        let left = if shorter { seconds } else { running };
        if finalizers.is_empty() && (left == 0 || (grace.is_none())) {
            return Step::Remove;
        }
        return match changed {
            true => Step::Mark,
            false => Step::Keep,
        };
    }
    let stays = seconds > 0 || !finalizers.is_empty();
    if grace.is_some() || stays {
        let ends = cx.now + jiff::SignedDuration::from_secs(seconds);
        object::set_meta(object, "deletionTimestamp", object::time(ends));
        object::set_meta(object, "deletionGracePeriodSeconds", seconds);
        let generation = object::meta(object)
            .and_then(|m| m.get("generation"))
            .and_then(Value::as_i64);
        if let Some(generation) = generation.filter(|g| *g > 0) {
            object::set_meta(object, "generation", generation + 1);
        }
    }
    if stays { Step::Mark } else { Step::Remove }
}

/// Puts one finalizer in the place of its opposite.
fn set(finalizers: &mut Vec<String>, wanted: &str, other: &str) {
    finalizers.retain(|f| f != other);
    if !finalizers.iter().any(|f| f == wanted) {
        finalizers.push(wanted.to_owned());
    }
}

/// Whether nothing keeps a marked object any more: an update that leaves it so removes it.
pub fn complete(cx: &Cx, object: &Value) -> bool {
    if !object::deleting(object) || !object::finalizers(object).is_empty() {
        return false;
    }
    if cx.entry.is("", "namespaces") {
        return object::strings(object.pointer("/spec/finalizers")).is_empty();
    }
    object::meta(object)
        .and_then(|m| m.get("deletionGracePeriodSeconds"))
        .and_then(Value::as_i64)
        .unwrap_or(0)
        == 0
}

/// Deletes all that a list with these selectors shows, and answers that list.
pub async fn collection(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    let options = options(cx, &body)?;
    input::options(cx, "DeleteOptions")?;
    let page = list::collect(cx).await?;
    for stored in &page.items {
        let full = &*stored.key.name;
        let (namespace, name) = match full.split_once('/') {
            Some((namespace, name)) if cx.resource().namespaced() => (namespace, name),
            _ => ("", full),
        };
        cx.target.namespace = namespace.to_owned();
        match one(cx, name, &options).await {
            Err(failure) if failure.code != 404 => return Err(failure),
            _ => {}
        }
    }
    list::render(cx, page).await
}
