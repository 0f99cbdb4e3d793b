//! Computed defaults of dynamic resource allocation.

use serde_json::{Map, Value};

use super::{Compute, set, text};

pub const COMPUTED: &[(&str, Compute)] = &[
    ("resource.v1.ExactDeviceRequest", request),
    ("resource.v1.DeviceSubRequest", request),
    ("resource.v1.DeviceToleration", toleration),
];

/// One device, unless all are asked for.
fn request(request: &mut Map<String, Value>) {
    if text(request, "allocationMode").is_empty() {
        request.insert("allocationMode".to_owned(), "ExactCount".into());
    }
    if text(request, "allocationMode") == "ExactCount"
        && request.get("count").is_none_or(|c| c.as_i64() == Some(0))
    {
        request.remove("count");
        set(request, "count", 1);
    }
}

fn toleration(toleration: &mut Map<String, Value>) {
    if text(toleration, "operator").is_empty() {
        toleration.insert("operator".to_owned(), "Equal".into());
    }
}
