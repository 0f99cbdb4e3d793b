//! Creating objects.

use bytes::Bytes;
use gantry_machinery::status::Failure;
use gantry_store::Expect;
use rand::Rng;
use serde_json::Value;

use super::{
    input,
    write::{self, Refused},
};
use crate::{
    admission::{
        self,
        asking::{Asking, asking},
        attributes::Operation,
    },
    api::Cx,
    errors, object, ownership,
    respond::{self, Reply},
    rules, strategy,
};

pub async fn create(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    input::options(cx, "CreateOptions")?;
    let resource = cx.resource().clone();
    let object = input::decode(cx, &resource, &body)?;
    let name = object::name(&object).to_owned();
    let whole = object_of(cx, object, Ownership::Update).await?;
    if cx.target.name.is_empty() {
        // For what follows a creation; a generated name is of no interest there.
        cx.target.name = name;
    }
    respond::object_reply(cx, 201, whole)
}

/// Who owns the fields of a new object.
pub enum Ownership {
    /// The manager of the request, by what the object says.
    Update,
    /// managedFields are there already (server-side apply).
    Applied,
}

/// How often another name is tried when a generated one is taken.
const NAMES: usize = 8;

/// Creates an object that is decoded; the answer's bytes.
pub async fn object_of(
    cx: &mut Cx,
    mut object: Value,
    ownership: Ownership,
) -> Result<Bytes, Failure> {
    input::place(cx, &mut object)?;
    if !object::meta_text(&object, "resourceVersion").is_empty() {
        return Err(errors::plain_internal(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let resource = cx.resource().clone();
    // What clients may not set.
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        object::remove_meta(&mut object, field);
    }
    rules::default(&resource, &mut object, None);
    strategy::default_metadata(&resource, &mut object, None);
    let asked = asking(cx, Operation::Create, "", object::name(&object));
    input::unique_owners(cx, &mut object, false);
    if matches!(ownership, Ownership::Update) {
        let manager = cx.manager();
        ownership::track_new(cx, &mut object, &manager, asked.is_some()).await?;
    }
    if resource.custom.as_ref().is_some_and(|c| c.terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(errors::forbidden(&resource, object::name(&object), why));
    }
    admission::prepare(cx, &object).await?;
    if admission::mutate(cx, asked.as_ref(), "", &mut object, None).await? {
        input::place(cx, &mut object)?;
        input::unique_owners(cx, &mut object, true);
    }
    let generates =
        object::name(&object).is_empty() && !object::meta_text(&object, "generateName").is_empty();
    let prefix = object::meta_text(&object, "generateName").to_owned();
    // What an attempt fills in, the next one may find there; only what is allocated must go.
    let allocates = cx.entry.is("", "services");
    let spare = (generates && allocates).then(|| object.clone());
    for attempt in 1.. {
        if generates {
            object::set_meta(&mut object, "name", generate(&prefix));
            // A namespace is labelled with its name, also one that it was given here.
            strategy::default_metadata(&resource, &mut object, None);
        }
        match once(cx, asked.as_ref(), &mut object).await {
            Err(Refused::Conflict(_)) if generates && attempt < NAMES => {
                if let Some(spare) = &spare {
                    object.clone_from(spare);
                }
            }
            Err(Refused::Conflict(current)) => return Err(taken(cx, current.as_deref())),
            Err(Refused::Failed(failure)) => return Err(failure),
            Ok(bytes) => return Ok(bytes),
        }
    }
    Err(errors::internal("no name was free"))
}

/// The name of the object that could not be created is not in `cx` for POST: it comes from the
/// object that is there.
fn taken(cx: &Cx, current: Option<&gantry_store::Stored>) -> Failure {
    let full = current.map_or("", |c| &*c.key.name);
    let name = full.rsplit('/').next().unwrap_or(full);
    let deleting = current.is_some_and(|c| object::View::get(&cx.entry, c).deleting);
    let mut failure = errors::already_exists(cx.resource(), name);
    if deleting {
        failure.message = format!("object is being deleted: {}", failure.message);
    }
    failure
}

/// `prefix` and five random letters, as Kubernetes' name generator: no vowels, no `0`, `1`, `3`.
fn generate(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    let mut name: String = prefix.chars().take(58).collect();
    for _ in 0..5 {
        name.push(LETTERS[rng.random_range(0..LETTERS.len())] as char);
    }
    name
}

async fn once(cx: &mut Cx, asked: Option<&Asking>, object: &mut Value) -> Result<Bytes, Refused> {
    let resource = cx.resource().clone();
    let now = object::time(cx.now);
    object::set_meta(object, "uid", object::uid());
    object::set_meta(object, "creationTimestamp", now.clone());
    if cx.entry.traits.generation {
        object::set_meta(object, "generation", 1);
    }
    strategy::prepare_for_create(&resource, object);
    crate::certificates::prepare(cx, object);
    crate::devices::prepare(cx, object, None);
    crate::off::drop(cx, object, None);
    if cx.entry.traits.separate_status {
        strategy::initial_status(&resource, object, &now);
    }
    let name = object::name(object).to_owned();
    let causes = rules::validate_create(cx, &resource, object);
    if !causes.is_empty() {
        return Err(Refused::Failed(rules::invalid(&resource, &name, causes)));
    }
    cx.warn(rules::warnings(&resource, object, None));
    let held = crate::allocate::on_create(cx, object)?;
    let result = store(cx, asked, &name, object).await;
    if result.is_err() || cx.dry_run() {
        cx.api.services.undo(held);
    }
    result
}

async fn store(
    cx: &mut Cx,
    asked: Option<&Asking>,
    name: &str,
    object: &Value,
) -> Result<Bytes, Refused> {
    let key = cx.key(name);
    let charges = admission::validate(cx, asked, object, None).await?;
    if cx.dry_run() {
        return match cx.store().get(&key) {
            Some(current) => Err(Refused::Conflict(Some(current))),
            None => Ok(write::dry_answer(cx, object)?),
        };
    }
    match write::put(cx, key, object, Expect::Absent).await {
        Ok(stored) => Ok(write::answer(cx, &stored).await?),
        Err(refused) => {
            charges.undo(cx).await;
            Err(refused)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_and_use_safe_letters() {
        let name = generate("web-");
        assert_eq!(name.len(), 9);
        assert!(name[4..].chars().all(|c| !"aeiou013".contains(c)));
        assert_eq!(generate(&"x".repeat(100)).len(), 63);
    }
}
