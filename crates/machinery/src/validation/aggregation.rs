//! APIServices: which server answers for a group and version.

use base64::Engine;
use serde_json::Value;

use super::{
    errors::Errors,
    names,
    value::{at, flag, has, int, list, text},
};
use crate::path::Path;

pub fn api_service(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let name = text(at(object, "metadata"), "name");
    let wanted = format!("{version}.{group}");
    if names::path_segment(name).is_empty() && !name.is_empty() && name != wanted {
        let metadata = Path::new("metadata");
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        e.invalid_text(&metadata.child("name"), name, &detail);
    }
    let path = Path::new("spec");
    if group.is_empty() && version != "v1" {
        e.required(
            &path.child("group"),
            "only v1 may have an empty group and it better be legacy kube",
        );
    }
    if !group.is_empty() {
        let faults = names::dns1123_subdomain(group);
        e.invalid_each(&path.child("group"), group, faults);
    }
    let faults = names::dns1035_label(version);
    e.invalid_each(&path.child("version"), version, faults);
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let given = int(spec, field).unwrap_or(0);
        if !(1..=most).contains(&given) {
            let detail = format!("must be positive and less than {most}");
            e.invalid_int(&path.child(field), given, &detail);
        }
    }
    let bundle = base64::engine::general_purpose::STANDARD
        .decode(text(spec, "caBundle"))
        .unwrap_or_default();
    let insecure = flag(spec, "insecureSkipTLSVerify");
    let here = path.child("insecureSkipTLSVerify");
    if !has(spec, "service") {
        if !bundle.is_empty() {
            let shown = format!("{} bytes", bundle.len());
            let detail = "local APIServices may not have a caBundle";
            e.invalid_text(&path.child("caBundle"), &shown, detail);
        }
        if insecure {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            e.invalid_shown(&here, "true", detail);
        }
        return;
    }
    let service = at(spec, "service");
    let service_path = path.child("service");
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            e.required(&service_path.child(field), "");
        }
    }
    if let Some(port) = int(service, "port").filter(|p| !(1..=65_535).contains(p)) {
        let here = service_path.child("port");
        e.invalid_int(
            &here,
            port,
            "port is not valid: must be between 1 and 65535, inclusive",
        );
    }
    if insecure && !bundle.is_empty() {
        e.invalid_shown(&here, "true", "may not be true if caBundle is present");
    }
}

/// Whether a server is available is true, false or unknown.
pub fn status(object: &Value, e: &mut Errors) {
    let status = Path::new("status");
    let path = status.child("conditions");
    let all = list(at(object, "status"), "conditions");
    for (i, condition) in all.iter().enumerate() {
        let value = text(condition, "status");
        if !matches!(value, "True" | "False" | "Unknown") {
            let here = path.index(i);
            e.not_supported(&here.child("status"), value, &["True", "False", "Unknown"]);
        }
    }
}
