//! Where the server calls Kubernetes' rules: one thin layer over `gantry-machinery`.

use std::borrow::Cow;

use gantry_machinery::{
    apply::{self, Manager, Operation},
    crd, decode, defaults, patch, pod_security, protobuf,
    resource::Resource,
    schema::{self, Schema},
    selector::{self, FieldOperator, LabelLookup},
    status::{Cause, Details, Failure},
    table, validation,
};
use serde_json::Value;

use crate::{api::Cx, certificates, devices, unstructured};

pub use gantry_machinery::decode::{Decoded, FieldValidation, Format};

pub use gantry_machinery::table::Include;

/// A body as an object of the resource.
pub fn decode(
    resource: &Resource,
    body: &[u8],
    format: Format,
    validation: FieldValidation,
) -> Result<Decoded, Failure> {
    decode::decode(resource, body, format, validation)
}

fn complaints(unknown: &[String]) -> Vec<String> {
    unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect()
}

/// A body as it is, with the places of fields given twice.
pub fn parse_noting(body: &[u8], format: Format) -> Result<decode::Parsed, Failure> {
    decode::parse(body, format)
}

/// A body as it is.
pub fn parse(body: &[u8], format: Format) -> Result<Value, Failure> {
    decode::parse(body, format).map(|parsed| parsed.value)
}

/// What a patch made of `old`, as an object of the resource again; the warnings. A refusal shows
/// what the patch made, which `again` makes once more: most patches are not refused. That of a
/// strategic merge patch of a built-in kind shows the patch, in Go's form of a map. `amiss`: what is to be said
/// of the patch itself.
pub fn normalize_patched(
    resource: &Resource,
    old: &Value,
    object: &mut Value,
    validation: FieldValidation,
    strategic: Option<&Value>,
    amiss: &[String],
    again: impl Fn() -> Result<Value, Failure>,
) -> Result<Vec<String>, Failure> {
    let refuse = |why: &str| {
        if let Some(patch) = strategic {
            let shown = unstructured::go_map(patch);
            return invalid_patch(&shown, &unstructured::words(why));
        }
        let sent = match again() {
            Ok(sent) => sent,
            Err(failure) => return failure,
        };
        let shown = protobuf::patched(&resource.api_version(), &resource.kind, old, &sent);
        invalid_patch(&shown, why)
    };
    if let Some(why) = another_kind(resource, object) {
        return Err(refuse(&why));
    }
    let unknown = decode::normalize_reporting(resource, object)
        .map_err(|failure| refuse(decoders_own(&failure)))?;
    let complaints = [amiss, &complaints(&unknown)].concat();
    match validation {
        FieldValidation::Ignore => Ok(vec![]),
        FieldValidation::Warn => Ok(complaints),
        FieldValidation::Strict if complaints.is_empty() => Ok(vec![]),
        FieldValidation::Strict => Err(refuse(&format!(
            "strict decoding error: {}",
            complaints.join(", ")
        ))),
    }
}

/// What the server made of an object, as an object of the resource again.
pub fn normalize(resource: &Resource, object: &mut Value) -> Result<(), Failure> {
    if let Some(why) = another_kind(resource, object) {
        return Err(invalid_patch("", &why));
    }
    decode::normalize(resource, object).map_err(|failure| invalid_patch("", decoders_own(&failure)))
}

/// The words after "cannot be handled as a Kind: ".
fn decoders_own(failure: &Failure) -> &str {
    let why = failure.message.split_once(" cannot be handled as a ");
    let why = why.and_then(|(_, rest)| rest.split_once(": "));
    why.map_or("", |(_, why)| why)
}

/// What is wrong with a patched built-in object that says it is of another built-in kind: it is
/// read as that, and is then not what it was.
fn another_kind(resource: &Resource, object: &Value) -> Option<String> {
    let kind = object.get("kind")?.as_str()?;
    let version = object.get("apiVersion")?.as_str()?;
    if resource.custom.is_some() || kind == resource.kind && version == resource.api_version() {
        return None;
    }
    let mut known = gantry_machinery::resource::builtin_resources().iter();
    let other = known.find(|r| r.kind == kind && r.api_version() == version)?;
    if other.kind == resource.kind && other.group == resource.group {
        return None;
    }
    Some(match decode::normalize(other, &mut object.clone()) {
        Err(failure) => decoders_own(&failure).to_owned(),
        Ok(()) => format!(
            "unable to decode {}/{}, Kind={kind} into *core.{}",
            other.group, other.version, resource.kind
        ),
    })
}

/// 422 about the result of a patch.
fn invalid_patch(shown: &str, why: &str) -> Failure {
    let message = format!("Invalid value: {shown:?}: {why}");
    Failure::new(
        422,
        "Invalid",
        format!(" \"\" is invalid: patch: {message}"),
    )
    .with_details(Details {
        causes: vec![Cause {
            reason: "FieldValueInvalid".to_owned(),
            message,
            field: "patch".to_owned(),
        }],
        ..Details::default()
    })
}

pub fn default(resource: &Resource, object: &mut Value, old: Option<&Value>) {
    defaults::apply(resource, object, old);
    if is_definition(resource) {
        crd::set_defaults(object);
    }
}

fn is_definition(resource: &Resource) -> bool {
    resource.group == "apiextensions.k8s.io" && resource.kind == "CustomResourceDefinition"
}

/// Gives a custom resource the defaults of its schema.
pub fn fill_in(resource: &Resource, object: &mut Value) {
    if resource.custom.is_some() {
        crd::default(resource.schema(), object);
    }
}

/// Refuses what an apply made of a custom resource where a field is null that may not be: what is written in
/// other ways is taken as not given. A schema with defaults fills them in.
pub fn refuse_nulls(resource: &Resource, name: &str, object: &Value) -> Result<(), Failure> {
    if resource.custom.is_none() || crd::has_defaults(resource.schema()) {
        return Ok(());
    }
    let mut causes = crd::validate(resource.schema(), object, None);
    causes.retain(|c| c.reason == "FieldValueTypeInvalid" && c.message.ends_with(": \"null\""));
    match causes.is_empty() {
        true => Ok(()),
        false => Err(invalid(resource, name, causes)),
    }
}

/// What a version of a custom resource does not know of an object stored in another.
pub fn prune(resource: &Resource, object: &mut Value) {
    if resource.custom.is_some() {
        crd::prune(resource.schema(), object);
    }
}

fn context<'a>(
    cx: &Cx,
    resource: &'a Resource,
    subresource: Option<&'a str>,
) -> validation::Context<'a> {
    validation::Context {
        resource,
        subresource,
        allow_privileged: cx.api.config.allow_privileged,
    }
}

pub fn validate_create(cx: &Cx, resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = validation::create(&context(cx, resource, None), object);
    causes.extend(certificates::create(cx, object));
    causes.extend(devices::admin_access(cx, object));
    causes.extend(security_labels(resource, object, None));
    if resource.custom.is_some() {
        causes.extend(crd::validate(resource.schema(), object, None));
        causes.extend(crd::scale_faults(resource, object, false));
    } else if is_definition(resource) {
        causes.extend(crd::validate_definition(object, None));
    }
    causes
}

pub fn validate_update(
    cx: &Cx,
    resource: &Resource,
    subresource: Option<&str>,
    new: &Value,
    old: &Value,
) -> Vec<Cause> {
    let mut causes = validation::update(&context(cx, resource, subresource), new, old);
    causes.extend(certificates::update(cx, subresource, new, old));
    causes.extend(security_labels(resource, new, Some(old)));
    if resource.custom.is_some() {
        causes.extend(crd::validate(resource.schema(), new, Some(old)));
        causes.extend(crd::scale_faults(
            resource,
            new,
            subresource == Some("status"),
        ));
    } else if is_definition(resource) && subresource.is_none() {
        causes.extend(crd::validate_definition(new, Some(old)));
    }
    causes
}

/// PodSecurity refuses namespaces whose labels say what cannot be read, unless they said so before.
fn security_labels(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    if !resource.group.is_empty() || resource.kind != "Namespace" {
        return vec![];
    }
    let shown = |causes: &[Cause]| -> Vec<String> {
        let all = causes.iter();
        all.map(|c| format!("{}: {}", c.field, c.message)).collect()
    };
    let faults = pod_security::label_faults(new);
    let before = old.map(pod_security::label_faults).unwrap_or_default();
    if shown(&faults) == shown(&before) {
        return vec![];
    }
    faults
}

pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Failure {
    validation::invalid(resource, name, causes)
}

/// What to tell the client about an object that is valid.
pub fn warnings(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<String> {
    validation::warnings(resource, new, old)
}

fn manager<'a>(
    cx: &Cx,
    name: &'a str,
    operation: Operation,
    api_version: &'a str,
    subresource: Option<&'a str>,
) -> Manager<'a> {
    Manager {
        name,
        operation,
        api_version,
        subresource: subresource.unwrap_or_default(),
        time: cx.now,
    }
}

/// Records what an update changed as the manager's. `others`: where entries may be of other
/// versions than the resource's.
pub fn track(
    cx: &Cx,
    resource: &Resource,
    subresource: Option<&str>,
    others: Option<&dyn apply::Versions>,
    old: Option<&Value>,
    new: &mut Value,
    name: &str,
) -> Result<(), Failure> {
    let version = resource.api_version();
    let kind = apply::Kind {
        schema: resource.schema(),
        reset: &apply::reset_fields(resource, subresource),
        others,
    };
    let manager = manager(cx, name, Operation::Update, &version, subresource);
    apply::track_update_in(kind, old, new, manager)
}

/// The same of a new object of which nobody says who owns it: the fields of its entry, as text.
pub fn track_new(cx: &Cx, new: &mut Value, name: &str) -> Option<String> {
    let resource = cx.resource();
    let version = resource.api_version();
    let manager = manager(cx, name, Operation::Update, &version, None);
    let reset = apply::reset_fields(resource, None);
    apply::track_creation(resource.schema(), &reset, new, manager)
}

/// Server-side apply: the merged object with its ownership.
#[expect(
    clippy::too_many_arguments,
    reason = "what a request says, and what it meets"
)]
pub fn apply(
    cx: &Cx,
    resource: &Resource,
    subresource: Option<&str>,
    others: Option<&dyn apply::Versions>,
    live: Option<&Value>,
    config: Value,
    name: &str,
    force: bool,
) -> Result<Value, Failure> {
    let version = resource.api_version();
    let kind = apply::Kind {
        schema: resource.schema(),
        reset: &apply::reset_fields(resource, subresource),
        others,
    };
    let manager = manager(cx, name, Operation::Apply, &version, subresource);
    apply::apply_in(kind, live, config, manager, force)
}

const SCALE_VERSION: &str = "autoscaling/v1";

fn scale_schema() -> Result<&'static Schema, Failure> {
    schema::builtin_by_gvk("autoscaling", "v1", "Scale")
        .map(schema::builtin)
        .ok_or_else(|| crate::errors::internal("the type of Scale is not known"))
}

/// Gives the Scale of an object the owners of the object's wished replicas.
pub fn scale_ownership(cx: &Cx, object: &Value, scale: &mut Value) {
    let Some(path) = apply::replicas_path(cx.resource()) else {
        return;
    };
    let entries = object.pointer("/metadata/managedFields");
    if let Some(entries) = apply::to_scale(&path, entries) {
        crate::object::set_meta(scale, "managedFields", entries);
    }
}

/// Records what an update changed of a Scale as the manager's.
pub fn track_scale(cx: &Cx, old: &Value, new: &mut Value, name: &str) -> Result<(), Failure> {
    let manager = manager(cx, name, Operation::Update, SCALE_VERSION, Some("scale"));
    let none = apply::ResetFields::none();
    apply::track_update(scale_schema()?, &none, Some(old), new, manager)
}

/// Server-side apply of a Scale.
pub fn apply_scale(
    cx: &Cx,
    old: &Value,
    config: Value,
    name: &str,
    force: bool,
) -> Result<Value, Failure> {
    let manager = manager(cx, name, Operation::Apply, SCALE_VERSION, Some("scale"));
    let none = apply::ResetFields::none();
    apply::apply(scale_schema()?, &none, Some(old), config, manager, force)
}

/// Records what a TokenRequest says as the manager's.
pub fn track_token(cx: &Cx, request: &mut Value, name: &str) -> Result<(), Failure> {
    const VERSION: &str = "authentication.k8s.io/v1";
    let schema = schema::builtin_by_gvk("authentication.k8s.io", "v1", "TokenRequest")
        .map(schema::builtin)
        .ok_or_else(|| crate::errors::internal("the type of TokenRequest is not known"))?;
    let manager = manager(cx, name, Operation::Update, VERSION, Some("token"));
    apply::track_update(schema, &apply::ResetFields::none(), None, request, manager)
}

/// Carries the ownership of a written Scale over to its object.
pub fn take_over_scale(cx: &Cx, scale: &Value, object: &mut Value) {
    let Some(path) = apply::replicas_path(cx.resource()) else {
        return;
    };
    let entries = apply::from_scale(
        &path,
        object.pointer("/metadata/managedFields"),
        scale.pointer("/metadata/managedFields"),
        &cx.resource().api_version(),
    );
    match entries {
        Some(entries) => crate::object::set_meta(object, "managedFields", entries),
        None => {
            crate::object::remove_meta(object, "managedFields");
        }
    }
}

/// Whether entries of ownership can be read.
pub fn check_ownership(entries: Option<&Value>) -> Result<(), String> {
    apply::check_entries(entries)
}

/// A write that changes nothing but the times of ownership is no write.
pub fn keep_times(old: &Value, new: &mut Value) {
    apply::keep_times(old, new);
}

pub fn patch_json(target: &Value, patch: &[u8]) -> Result<Value, Failure> {
    patch::json(target, patch)
}

pub fn patch_merge(target: Value, patch: Value) -> Value {
    patch::merge(target, patch)
}

pub fn patch_strategic(resource: &Resource, target: Value, patch: Value) -> Result<Value, Failure> {
    patch::strategic(resource.schema(), target, patch)
}

/// The columns and, for each object, the cells of a Table.
pub fn table(resource: &Resource, items: &[&Value], now: jiff::Timestamp) -> (Value, Vec<Value>) {
    table::table(resource, items, now)
}

/// The columns and cells of an object that has none of its own kind, such as a Scale.
pub fn plain_table(item: &Value) -> (Value, Vec<Value>) {
    table::without_columns(&[item])
}

/// The selectable fields of a stored object, for its cached view.
pub fn selectable<'a>(
    storage: &'a Resource,
    object: &'a Value,
) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
    selector::selectable(storage, object)
}

/// A label selector.
#[derive(Debug)]
pub struct Labels(selector::Labels);

/// Labels that a closure looks up.
struct By<'a, F>(F, std::marker::PhantomData<&'a str>);

impl<'a, F: Fn(&str) -> Option<&'a str>> LabelLookup for By<'a, F> {
    fn label(&self, key: &str) -> Option<&str> {
        (self.0)(key)
    }
}

impl Labels {
    pub fn parse(text: &str) -> Result<Labels, Failure> {
        selector::Labels::parse(text).map(Labels)
    }

    pub fn from_label_selector(value: &Value) -> Result<Labels, Failure> {
        selector::Labels::from_label_selector(value).map(Labels)
    }

    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.matches(By(label, std::marker::PhantomData))
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A field selector, answered from cached values.
pub struct Fields(selector::Fields);

impl Fields {
    pub fn parse(text: &str) -> Result<Fields, Failure> {
        selector::Fields::parse(text).map(Fields)
    }

    pub fn check(&self, resource: &Resource) -> Result<(), Failure> {
        self.0.check(resource)
    }

    /// The one value that a field must have.
    pub fn exact(&self, path: &str) -> Option<&str> {
        let mut all = self.0.requirements().iter();
        all.find(|r| r.path == path && r.operator == FieldOperator::Equals)
            .map(|r| r.value.as_str())
    }

    /// All fields that must have one value, with these.
    pub fn equalities(&self) -> Vec<(String, String)> {
        let all = self.0.requirements().iter();
        all.filter(|r| r.operator == FieldOperator::Equals)
            .map(|r| (r.path.clone(), r.value.clone()))
            .collect()
    }

    /// Whether an object in the resource's version satisfies all terms.
    pub fn select(&self, resource: &Resource, object: &Value) -> bool {
        self.0.matches(resource, object)
    }

    /// Whether any field but name and namespace is asked for.
    pub fn look_inside(&self) -> bool {
        let outside = |path: &str| matches!(path, "metadata.name" | "metadata.namespace");
        self.0.requirements().iter().any(|r| !outside(&r.path))
    }

    /// `field` tells a stored object's value at a path; none is the empty text.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.requirements().iter().all(|r| {
            let value = match field(&r.path) {
                Some(value) => value,
                None => stored_path(&r.path)
                    .and_then(|p| field(&p))
                    .unwrap_or_default(),
            };
            (value == r.value) == (r.operator == FieldOperator::Equals)
        })
    }
}

/// Events of `events.k8s.io` are stored as core events, whose fields have other names.
fn stored_path(path: &str) -> Option<String> {
    if path == "reportingController" {
        return Some("reportingComponent".to_owned());
    }
    path.strip_prefix("regarding.")
        .map(|field| format!("involvedObject.{field}"))
}

/// The versions of a definition. One that cannot be read serves nothing: it was refused when it was
/// written, unless an older version of this server took it.
pub fn custom_resources(definition: &Value) -> Vec<Resource> {
    crd::resources(definition).unwrap_or_else(|causes| {
        let name = definition.pointer("/metadata/name");
        tracing::error!(?name, ?causes, "a stored definition cannot be served");
        vec![]
    })
}

/// The status of a definition beside others.
pub fn definition_status(definition: &Value, others: &[Value], now: jiff::Timestamp) -> Value {
    crd::status_conditions(definition, others, now)
}
