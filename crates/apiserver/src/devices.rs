//! What the server itself does for dynamic resource allocation: administrators' access to devices
//! that others use is for namespaces that say so, and taints tell since when they are.

use gantry_machinery::status::Cause;
use serde_json::Value;

use crate::{admission, api::Cx, object};

const GROUP: &str = "resource.k8s.io";
const LABEL: &str = "resource.kubernetes.io/admin-access";

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let all = value.pointer(pointer).and_then(Value::as_array);
    all.into_iter().flatten()
}

/// The requests of a new claim (or template) that ask for administrators' access where there is
/// none.
pub fn admin_access(cx: &Cx, object: &Value) -> Vec<Cause> {
    let root = if cx.entry.is(GROUP, "resourceclaims") {
        "spec"
    } else if cx.entry.is(GROUP, "resourceclaimtemplates") {
        "spec.spec"
    } else {
        return vec![];
    };
    let requests = format!("/{}/devices/requests", root.replace('.', "/"));
    let asking: Vec<usize> = list(object, &requests)
        .enumerate()
        .filter(|(_, request)| request.pointer("/exactly/adminAccess") == Some(&Value::Bool(true)))
        .map(|(i, _)| i)
        .collect();
    if asking.is_empty() || admission::labelled(cx, LABEL, "true") {
        return vec![];
    }
    let cause = |i| Cause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!(
            "Forbidden: admin access to devices requires the `{LABEL}: true` label on the containing namespace"
        ),
        field: format!("{root}.devices.requests[{i}].exactly.adminAccess"),
    };
    asking.into_iter().map(cause).collect()
}

/// Taints of a slice's devices that do not tell since when they are, are from now on.
pub fn taint_times(slice: &mut Value, now: &str) {
    let devices = slice
        .pointer_mut("/spec/devices")
        .and_then(Value::as_array_mut);
    for device in devices.into_iter().flatten() {
        let taints = device.get_mut("taints").and_then(Value::as_array_mut);
        for taint in taints.into_iter().flatten() {
            if let Some(map) = taint.as_object_mut() {
                map.entry("timeAdded").or_insert_with(|| now.into());
            }
        }
    }
}

/// Fills in what a new form of an object of this group lacks.
pub fn prepare(cx: &Cx, object: &mut Value) {
    if cx.entry.is(GROUP, "resourceslices") {
        taint_times(object, &object::time(cx.now));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn taints_get_a_time_and_keep_it() {
        let taint = |time: Value| json!({"key": "a", "timeAdded": time});
        let mut slice =
            json!({"spec": {"devices": [{"taints": [{"key": "a"}, taint("then".into())]}, {}]}});
        taint_times(&mut slice, "now");
        let taints = json!([taint("now".into()), taint("then".into())]);
        assert_eq!(slice["spec"]["devices"][0]["taints"], taints);
    }
}
