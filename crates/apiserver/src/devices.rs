//! What the server itself does for dynamic resource allocation: administrators' access to devices
//! that others use is for namespaces that say so, and taints tell since when they are.

use gantry_machinery::path::At as _;
use gantry_machinery::status::Cause;
use serde_json::Value;

use crate::{admission, api::Cx, object};

mod status;
pub use status::faults as status_faults;

const GROUP: &str = "resource.k8s.io";
const LABEL: &str = "resource.kubernetes.io/admin-access";

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let all = value.at(pointer).and_then(Value::as_array);
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
        .filter(|(_, request)| request.at("/exactly/adminAccess") == Some(&Value::Bool(true)))
        .map(|(i, _)| i)
        .collect();
    if asking.is_empty() || admission::labelled(cx, LABEL, "true") {
        return vec![];
    }
    let cause = |i| admin_cause(format!("{root}.devices.requests[{i}].exactly.adminAccess"));
    asking.into_iter().map(cause).collect()
}

fn admin_cause(field: String) -> Cause {
    Cause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!(
            "Forbidden: admin access to devices requires the `{LABEL}: true` label on the containing namespace"
        ),
        field,
    }
}

/// What a device is told by.
fn identity(device: &Value) -> [Option<&str>; 4] {
    ["driver", "pool", "device", "shareID"].map(|field| device[field].as_str())
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

/// Of devices that a claim had and has no more, nothing is said any more.
fn forget_devices(claim: &mut Value, old: &Value) {
    let owned = |device: &Value| identity(device).map(|part| part.map(str::to_owned));
    let allocated = |claim: &Value| -> Vec<_> {
        list(claim, "/status/allocation/devices/results")
            .map(owned)
            .collect()
    };
    let (before, now) = (allocated(old), allocated(claim));
    let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(told) = status.get_mut("devices").and_then(Value::as_array_mut) else {
        return;
    };
    told.retain(|device| {
        let device = owned(device);
        now.contains(&device) || !before.contains(&device)
    });
    if told.is_empty() {
        status.remove("devices");
    }
}

/// Fills in what a new form of an object of this group lacks, and takes out what holds no more.
pub fn prepare(cx: &Cx, object: &mut Value, old: Option<&Value>) {
    if cx.entry.is(GROUP, "resourceslices") {
        taint_times(object, &object::time(cx.now));
    } else if cx.entry.is(GROUP, "resourceclaims")
        && let Some(old) = old
    {
        forget_devices(object, old);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_given_back_is_told_of_no_more() {
        let device = |name: &str, share: &str| json!({"driver": "d", "pool": "p", "device": name, "shareID": share});
        let claim = |allocated: &[Value], told: &[Value]| json!({"status": {"allocation": {"devices": {"results": allocated}}, "devices": told}});
        let [a, b, other] = [device("a", "x"), device("a", "y"), device("c", "x")];
        let both = [a.clone(), b.clone()];
        let old = claim(&both, &both);
        // What was never allocated is left for validation to refuse.
        let mut new = claim(std::slice::from_ref(&a), &[a.clone(), b, other.clone()]);
        forget_devices(&mut new, &old);
        assert_eq!(new["status"]["devices"], json!([a, other]));
        let mut new = json!({"status": {"devices": both}});
        forget_devices(&mut new, &old);
        assert_eq!(new, json!({"status": {}}));
    }

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
