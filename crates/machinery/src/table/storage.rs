//! Rows of volumes, claims and what provides them.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    cells::{created, name, old, or, quantity},
    metadata,
};
use crate::validation::value::{at, down, flag, has, list, text};

/// `RWO,ROX`
fn access_modes(modes: &[Value]) -> String {
    let has = |mode: &str| modes.iter().any(|m| m == mode);
    [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(mode, _)| has(mode))
    .map(|(_, short)| short)
    .collect::<Vec<_>>()
    .join(",")
}

/// The class by its old annotation or its field.
fn class_name(o: &Value) -> &str {
    let annotations = at(metadata(o), "annotations");
    or(
        text(annotations, "volume.beta.kubernetes.io/storage-class"),
        text(at(o, "spec"), "storageClassName"),
    )
}

pub fn volume(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(o, "spec"), at(o, "status"));
    let claim = at(spec, "claimRef");
    let claim = if has(spec, "claimRef") {
        format!("{}/{}", text(claim, "namespace"), text(claim, "name"))
    } else {
        String::new()
    };
    let mut phase = text(status, "phase");
    if has(metadata(o), "deletionTimestamp") {
        phase = "Terminating";
    }
    vec![
        name(o),
        quantity(down(spec, &["capacity", "storage"])).into(),
        access_modes(list(spec, "accessModes")).into(),
        text(spec, "persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        class_name(o).into(),
        or(text(spec, "volumeAttributesClassName"), "<unset>").into(),
        text(status, "reason").into(),
        old(o, now),
        or(text(spec, "volumeMode"), "<unset>").into(),
    ]
}

pub fn claim(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(o, "spec"), at(o, "status"));
    let mut phase = text(status, "phase");
    if has(metadata(o), "deletionTimestamp") {
        phase = "Terminating";
    }
    // Until it is bound a claim has neither size nor modes to show.
    let bound = !text(spec, "volumeName").is_empty();
    let (capacity, modes) = if bound {
        (
            quantity(down(status, &["capacity", "storage"])),
            access_modes(list(status, "accessModes")),
        )
    } else {
        (String::new(), String::new())
    };
    vec![
        name(o),
        phase.into(),
        text(spec, "volumeName").into(),
        capacity.into(),
        modes.into(),
        class_name(o).into(),
        or(text(spec, "volumeAttributesClassName"), "<unset>").into(),
        old(o, now),
        or(text(spec, "volumeMode"), "<unset>").into(),
    ]
}

pub fn class(o: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = at(metadata(o), "annotations");
    let default = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ]
    .iter()
    .any(|key| text(annotations, key) == "true");
    let mut shown = text(metadata(o), "name").to_owned();
    if default {
        shown.push_str(" (default)");
    }
    vec![
        shown.into(),
        text(o, "provisioner").into(),
        or(text(o, "reclaimPolicy"), "Delete").into(),
        or(text(o, "volumeBindingMode"), "Immediate").into(),
        flag(o, "allowVolumeExpansion").into(),
        old(o, now),
    ]
}

pub fn driver(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(o, "spec");
    let joined = |all: Vec<&str>| all.join(",");
    let modes = joined(
        list(spec, "volumeLifecycleModes")
            .iter()
            .filter_map(Value::as_str)
            .collect(),
    );
    let tokens = joined(
        list(spec, "tokenRequests")
            .iter()
            .map(|t| text(t, "audience"))
            .collect(),
    );
    let tokens = if list(spec, "tokenRequests").is_empty() {
        "<unset>".to_owned()
    } else {
        tokens
    };
    vec![
        name(o),
        at(spec, "attachRequired").as_bool().unwrap_or(true).into(),
        flag(spec, "podInfoOnMount").into(),
        flag(spec, "storageCapacity").into(),
        tokens.into(),
        flag(spec, "requiresRepublish").into(),
        or(&modes, "<none>").into(),
        old(o, now),
    ]
}

pub fn csi_node(o: &Value, now: Timestamp) -> Vec<Value> {
    let drivers = list(at(o, "spec"), "drivers").len();
    vec![name(o), drivers.into(), old(o, now)]
}

pub fn capacity(o: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(o), created(o)]
}

pub fn attachment(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(o, "spec");
    vec![
        name(o),
        text(spec, "attacher").into(),
        text(at(spec, "source"), "persistentVolumeName").into(),
        text(spec, "nodeName").into(),
        flag(at(o, "status"), "attached").into(),
        old(o, now),
    ]
}

pub fn attributes_class(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), text(o, "driverName").into(), old(o, now)]
}
