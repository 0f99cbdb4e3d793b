//! The planners by tables.

use std::sync::Arc;

use rstest::rstest;
use serde_json::{Value, json};

use super::plan::{Claimed, Fate, SIMULATED, Step, claim, volume};
use crate::model::volume::{Claim, StorageClass, Volume};

fn a_claim(change: Value) -> Claim {
    let mut json = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}});
    merge(&mut json, change);
    serde_json::from_value(json).unwrap()
}

fn a_volume(name: &str, change: Value) -> Arc<Volume> {
    let mut json = json!({"metadata": {"name": name, "labels": {"kind": "disk"}},
        "spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": "10Gi"}}, "status": {"phase": "Available"}});
    merge(&mut json, change);
    Arc::new(serde_json::from_value(json).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (k, v) in from {
                merge(into.entry(k).or_insert(Value::Null), v);
            }
        }
        (into, from) => *into = from,
    }
}

fn class(provisioner: &str, binding: &str) -> Arc<StorageClass> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": "fast"}, "provisioner": provisioner, "volumeBindingMode": binding}))
            .unwrap(),
    )
}

/// What a claim without a volume's name gets: the volume's name, or the kind of step.
fn shown(step: &Step) -> String {
    match step {
        Step::Bind(volume) => volume.metadata.name.to_string(),
        Step::Wait(why) => why.reason.to_owned(),
        Step::Provision(_) => "provision".to_owned(),
        Step::Ask(whom) => format!("ask {whom}"),
        Step::Lost(reason, _) => (*reason).to_owned(),
        Step::Nothing => "nothing".to_owned(),
    }
}

#[rstest]
// The least that is enough.
#[case(json!({}), vec![a_volume("large", json!({"spec": {"capacity": {"storage": "1Ti"}}})), a_volume("right", json!({})), a_volume("small", json!({"spec": {"capacity": {"storage": "1Gi"}}}))], "right")]
#[case(json!({"spec": {"accessModes": ["ReadWriteMany"]}}), vec![a_volume("v", json!({}))], "FailedBinding")]
#[case(json!({"spec": {"volumeMode": "Block"}}), vec![a_volume("v", json!({}))], "FailedBinding")]
#[case(json!({"spec": {"selector": {"matchLabels": {"kind": "tape"}}}}), vec![a_volume("v", json!({}))], "FailedBinding")]
#[case(json!({}), vec![a_volume("taken", json!({"spec": {"claimRef": {"namespace": "n", "name": "other", "uid": "x"}}}))], "FailedBinding")]
#[case(json!({}), vec![a_volume("leaving", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))], "FailedBinding")]
// Reserved for it, though it is larger.
#[case(json!({}), vec![a_volume("free", json!({})), a_volume("mine", json!({"spec": {"capacity": {"storage": "1Ti"}, "claimRef": {"namespace": "n", "name": "c"}}}))], "mine")]
fn volumes_are_chosen(
    #[case] change: Value,
    #[case] volumes: Vec<Arc<Volume>>,
    #[case] expected: &str,
) {
    let claimed = a_claim(change);
    let step = claim(&Claimed {
        claim: &claimed,
        named: None,
        volumes: &volumes,
        class: None,
    });
    assert_eq!(shown(&step), expected);
}

#[rstest]
#[case(Some(class(SIMULATED, "Immediate")), false, "provision")]
#[case(
    Some(class(SIMULATED, "WaitForFirstConsumer")),
    false,
    "WaitForFirstConsumer"
)]
#[case(Some(class(SIMULATED, "WaitForFirstConsumer")), true, "provision")]
#[case(
    Some(class("csi.example.com", "Immediate")),
    false,
    "ask csi.example.com"
)]
#[case(
    Some(class("kubernetes.io/no-provisioner", "Immediate")),
    false,
    "ProvisioningFailed"
)]
#[case(None, false, "ProvisioningFailed")]
fn classes_provision(
    #[case] class: Option<Arc<StorageClass>>,
    #[case] selected: bool,
    #[case] expected: &str,
) {
    let mut change = json!({"spec": {"storageClassName": "fast"}});
    if selected {
        change["metadata"] = json!({"annotations": {"volume.kubernetes.io/selected-node": "n"}});
    }
    let claimed = a_claim(change);
    let step = claim(&Claimed {
        claim: &claimed,
        named: None,
        volumes: &[],
        class,
    });
    assert_eq!(shown(&step), expected);
}

#[rstest]
#[case(false, Some(json!({})), "v")]
#[case(false, Some(json!({"spec": {"capacity": {"storage": "1Gi"}}})), "VolumeMismatch")]
#[case(false, None, "nothing")]
#[case(true, None, "ClaimLost")]
#[case(true, Some(json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}}})), "v")]
#[case(true, Some(json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "another"}}})), "ClaimMisbound")]
#[case(false, Some(json!({"spec": {"claimRef": {"namespace": "n", "name": "d", "uid": "d"}}})), "FailedBinding")]
fn claims_that_name_a_volume(
    #[case] bound: bool,
    #[case] named: Option<Value>,
    #[case] expected: &str,
) {
    let mut change = json!({"spec": {"volumeName": "v"}});
    if bound {
        change["metadata"] = json!({"annotations": {"pv.kubernetes.io/bind-completed": "yes"}});
    }
    let claimed = a_claim(change);
    let step = claim(&Claimed {
        claim: &claimed,
        named: named.map(|v| a_volume("v", v)),
        volumes: &[],
        class: None,
    });
    assert_eq!(shown(&step), expected);
}

#[rstest]
#[case(json!({"status": {"phase": "Pending"}}), None, Fate::Phase("Available"))]
#[case(json!({}), None, Fate::Nothing)]
#[case(json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}}}), Some(json!({"spec": {"volumeName": "v"}})), Fate::Phase("Bound"))]
#[case(json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}}}), Some(json!({})), Fate::Nothing)]
#[case(json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}}, "status": {"phase": "Bound"}}), None, Fate::Phase("Released"))]
#[case(json!({"spec": {"claimRef": {"uid": "u"}, "persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": "Released"},
    "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": SIMULATED}}}), None, Fate::Delete)]
#[case(json!({"spec": {"claimRef": {"uid": "u"}, "persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": "Released"}}), None, Fate::Nothing)]
#[case(json!({"spec": {"claimRef": {"uid": "u"}, "persistentVolumeReclaimPolicy": "Retain"}, "status": {"phase": "Released"}}), None, Fate::Nothing)]
#[case(json!({"spec": {"claimRef": {"uid": "u"}, "persistentVolumeReclaimPolicy": "Recycle"}, "status": {"phase": "Released"}}), None, Fate::Recycle)]
fn volumes_follow_their_claims(
    #[case] change: Value,
    #[case] of: Option<Value>,
    #[case] expected: Fate,
) {
    let claimed = of.map(a_claim);
    assert_eq!(volume(&a_volume("v", change), claimed.as_ref()), expected);
}
