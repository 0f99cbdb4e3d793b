//! Kubernetes' validation: what is wrong with an object, field by field, in the API's own words.
//!
//! Objects arrive decoded and defaulted. Each kind's rules stand in a module of their own; what
//! all objects share (names, labels, owners) is in `metadata`. Of custom resources only the metadata
//! is checked here: their schemas, and definitions themselves, are the `crd` module's.

pub(crate) mod admission;
mod aggregation;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod classes;
mod conditions;
mod core;
pub mod cron;
mod csi;
mod devices;
mod endpoints;
mod errors;
mod events;
mod flowcontrol;
mod handlers;
mod ingress;
mod metadata;
mod mounts;
pub mod names;
mod networking;
mod node;
mod pod;
mod pod_parts;
mod pod_resources;
mod pod_update;
mod policies;
mod policy;
mod rbac;
mod resize;
mod resources;
mod scheduling;
mod security;
mod selectors;
mod service;
mod storage;
mod update;
pub(crate) mod value;
mod volume_sources;
mod volumes;
mod warnings;

use serde_json::Value;

pub use errors::Errors;
pub use names::{
    dns1035_label, dns1123_label, dns1123_subdomain, label_value, qualified_name, qualified_path,
};
pub use warnings::warnings;

use crate::{
    path::Path,
    resource::Resource,
    status::{Cause, Details, Failure},
};

/// What is validated, and under which settings of the server.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub resource: &'a Resource,
    pub subresource: Option<&'a str>,
    /// Whether containers may be privileged (`--allow-privileged`).
    pub allow_privileged: bool,
}

/// The faults of an object about to be created.
pub fn create(cx: &Context<'_>, object: &Value) -> Vec<Cause> {
    let mut errors = Errors::default();
    metadata::create(cx.resource, object, &mut errors);
    if cx.resource.custom.is_none() {
        spec(cx, object, None, &mut errors);
    }
    errors.into_causes()
}

/// The faults of an object about to replace `old`; with a subresource named, of what that
/// subresource may change.
pub fn update(cx: &Context<'_>, new: &Value, old: &Value) -> Vec<Cause> {
    let mut errors = Errors::default();
    metadata::update(cx.resource, new, old, &mut errors);
    if cx.resource.custom.is_some() {
        return errors.into_causes();
    }
    match cx.subresource {
        None => {
            if update::before(cx, new, old, &mut errors) {
                spec(cx, new, Some(old), &mut errors);
                update::after(cx, new, old, &mut errors);
            }
        }
        Some("status") => update::status(cx, new, old, &mut errors),
        Some("resize") => match resize::never_resized(old) {
            // That is all that is said then.
            Some(why) => return only(why),
            None => {
                spec(cx, new, Some(old), &mut errors);
                resize::resize(new, old, &mut errors);
            }
        },
        Some("ephemeralcontainers") => match resize::never_debugged(old) {
            Some(why) => return only(why),
            None => {
                spec(cx, new, Some(old), &mut errors);
                resize::ephemeral(new, old, &mut errors);
            }
        },
        // Other subresources have rules of their own, or change what the whole object's rules hold.
        Some(_) => spec(cx, new, Some(old), &mut errors),
    }
    errors.into_causes()
}

/// The one fault of an object as a whole that it is asked for something it never does.
fn only(why: &str) -> Vec<Cause> {
    let mut errors = Errors::default();
    errors.forbidden(&Path::ROOT, why);
    errors.into_causes()
}

/// The faults of `labels` or `annotations` by themselves.
pub fn texts(field: &str, texts: &Value) -> Vec<Cause> {
    let mut errors = Errors::default();
    let metadata = serde_json::json!({ field: texts });
    let path = Path::new("metadata");
    if field == "labels" {
        metadata::labels(&metadata, field, &path.child(field), &mut errors);
    } else {
        metadata::annotations(&metadata, &path.child("annotation"), &mut errors);
    }
    errors.into_causes()
}

/// The faults of what says what an object inside another is.
pub fn embedded(members: &serde_json::Map<String, Value>, path: &str) -> Vec<Cause> {
    let mut errors = Errors::default();
    let root = Path::new(path);
    let at = |name: &'static str| match path {
        "" => Path::new(name),
        _ => root.child(name),
    };
    for name in ["apiVersion", "kind"] {
        match members.get(name) {
            None | Some(Value::Null) => errors.required(&at(name), ""),
            Some(Value::String(text)) if text.is_empty() => {
                errors.invalid_text(&at(name), text, "must not be empty");
            }
            Some(Value::String(text)) => {
                let faults = match name {
                    "kind" => dns1035_label(&text.to_lowercase()),
                    _ => vec![],
                };
                if !faults.is_empty() {
                    let why = format!(
                        "may have mixed case, but should otherwise match: {}",
                        faults.join(",")
                    );
                    errors.invalid_text(&at(name), text, &why);
                }
                if name == "apiVersion" && text.matches('/').count() > 1 {
                    let why = format!("unexpected GroupVersion string: {text}");
                    errors.invalid_text(&at(name), text, &why);
                }
            }
            Some(other) => errors.invalid(&at(name), other, "must be a string"),
        }
    }
    if let Some(metadata) = members.get("metadata") {
        metadata::embedded(metadata, &at("metadata"), &mut errors);
    }
    errors.into_causes()
}

/// The rules of one kind that hold at creation and, with `old`, at update.
fn spec(cx: &Context<'_>, object: &Value, old: Option<&Value>, e: &mut Errors) {
    let root = &Path::ROOT;
    match (cx.resource.group.as_str(), cx.resource.kind.as_str()) {
        ("", "Pod") => pod::pod(cx, object, old, e),
        ("", "PodTemplate") => {
            let template = root.child("template");
            pod::template(cx, value::at(object, "template"), &template, e);
        }
        ("", "ReplicationController") => apps::replication_controller(cx, object, e),
        ("", "Service") => service::service(object, e),
        ("", "Endpoints") => endpoints::endpoints(object, e),
        ("", "ConfigMap") => core::config_map(object, e),
        ("", "Secret") => core::secret(object, e),
        ("", "Event") => events::event(object, old, true, e),
        ("events.k8s.io", "Event") => events::event(object, old, false, e),
        ("", "Namespace") => core::namespace(object, e),
        ("", "Node") => node::node(object, e),
        ("", "LimitRange") => core::limit_range(object, e),
        ("", "ResourceQuota") => core::resource_quota(object, e),
        ("", "PersistentVolume") => storage::persistent_volume(object, e),
        ("", "PersistentVolumeClaim") => {
            let path = root.child("spec");
            let before = old.map(|o| value::at(o, "spec"));
            storage::claim_spec(value::at(object, "spec"), before, &path, e);
        }
        ("apps", "Deployment") => apps::deployment(cx, object, e),
        ("apps", "ReplicaSet") => apps::replica_set(cx, object, e),
        ("apps", "StatefulSet") => apps::stateful_set(object, old, e),
        ("apps", "DaemonSet") => apps::daemon_set(cx, object, e),
        ("apps", "ControllerRevision") => apps::controller_revision(object, e),
        ("batch", "Job") => batch::job(cx, object, old, e),
        ("batch", "CronJob") => batch::cron_job(cx, object, old, e),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(object, e),
        ("networking.k8s.io", "Ingress") => ingress::ingress(object, old, e),
        ("networking.k8s.io", "IngressClass") => ingress::ingress_class(object, e),
        ("networking.k8s.io", "NetworkPolicy") => networking::network_policy(object, old, e),
        ("networking.k8s.io", "IPAddress") if old.is_none() => networking::ip_address(object, e),
        ("networking.k8s.io", "ServiceCIDR") if old.is_none() => {
            networking::service_cidr(object, e);
        }
        ("discovery.k8s.io", "EndpointSlice") => endpoints::endpoint_slice(object, e),
        ("policy", "PodDisruptionBudget") => policy::disruption_budget(object, e),
        ("rbac.authorization.k8s.io", kind) => rbac::rbac(kind, object, e),
        ("scheduling.k8s.io", "PriorityClass") => scheduling::priority_class(object, e),
        ("node.k8s.io", "RuntimeClass") => scheduling::runtime_class(object, e),
        ("coordination.k8s.io", "Lease") => scheduling::lease(object, e),
        ("storage.k8s.io", kind) => match kind {
            "StorageClass" => classes::storage_class(object, e),
            "VolumeAttributesClass" => classes::attributes(object, e),
            "CSIDriver" => csi::driver(object, e),
            "CSINode" => csi::node(object, e),
            "VolumeAttachment" => csi::attachment(object, e),
            _ => csi::capacity(object, e),
        },
        ("admissionregistration.k8s.io", kind) => match kind {
            "ValidatingAdmissionPolicy" => policies::validating(object, old, e),
            "MutatingAdmissionPolicy" => policies::mutating(object, old, e),
            "ValidatingAdmissionPolicyBinding" => policies::binding(object, false, e),
            "MutatingAdmissionPolicyBinding" => policies::binding(object, true, e),
            _ => admission::webhooks(object, old, e),
        },
        ("flowcontrol.apiserver.k8s.io", kind) => flowcontrol::flow_control(kind, object, e),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificates::signing_request(object, e);
        }
        ("apiregistration.k8s.io", "APIService") => aggregation::api_service(object, e),
        // Their specs never change: an update is about that alone.
        ("resource.k8s.io", "ResourceClaim") if old.is_none() => devices::claim(object, e),
        ("resource.k8s.io", "ResourceClaimTemplate") if old.is_none() => {
            devices::template(object, e);
        }
        ("resource.k8s.io", "DeviceClass") => devices::class(object, old, e),
        ("resource.k8s.io", "ResourceSlice") => devices::slice(object, old, e),
        _ => {}
    }
}

/// The 422 that carries causes.
pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Failure {
    let one = |c: &Cause| {
        if c.field.is_empty() {
            c.message.clone()
        } else {
            format!("{}: {}", c.field, c.message)
        }
    };
    let mut texts: Vec<String> = Vec::with_capacity(causes.len());
    for cause in &causes {
        // The aggregate says a thing once, the causes list it as often as it was found.
        let text = one(cause);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let text = match texts.as_slice() {
        [single] => single.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let kind = if resource.group.is_empty() {
        resource.kind.clone()
    } else {
        format!("{}.{}", resource.kind, resource.group)
    };
    Failure::new(
        422,
        "Invalid",
        format!("{kind} \"{name}\" is invalid: {text}"),
    )
    .with_details(Details {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.kind.clone(),
        causes,
        ..Details::default()
    })
}
