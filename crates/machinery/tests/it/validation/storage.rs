//! Volumes, claims and the kinds of storage.k8s.io.

use rstest::rstest;
use serde_json::{Value, json};

use super::{created, updated, with};

fn volume(spec: Value) -> Value {
    let minimal = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
    });
    with(minimal, json!({ "spec": spec }))
}

fn claim(spec: Value) -> Value {
    let minimal = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    with(minimal, json!({ "spec": spec }))
}

fn of(kind: &str, object: Value) -> Value {
    with(
        json!({"apiVersion": "storage.k8s.io/v1", "kind": kind}),
        object,
    )
}

#[rstest]
#[case(volume(json!({"csi": {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"name": "a"}}})), &[])]
#[case(volume(json!({"csi": {"driver": "d", "volumeHandle": "h", "nodeExpandSecretRef": {"name": "a"}}})),
    &["spec.csi.nodeExpandSecretRef.namespace: Required value"])]
#[case(volume(json!({"csi": {"driver": "", "volumeHandle": "h"}})),
    &["spec.csi.driver: Required value", "spec.csi.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"])]
#[case(volume(json!({"local": {"path": "/a/../b"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{}]}}})),
    &["spec.local.path: Invalid value: \"/a/../b\": must not contain '..'"])]
#[case(volume(json!({"hostPath": {"path": "//"}, "persistentVolumeReclaimPolicy": "Recycle"})),
    &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"])]
#[case(volume(json!({"glusterfs": {"endpoints": "e", "path": "p", "endpointsNamespace": ""}})),
    &["spec.glusterfs.endpointsNamespace: Invalid value: \"\": if the endpointnamespace is set, it must be a valid namespace name"])]
#[case(claim(json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"}, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "b"}})),
    &["spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"])]
#[case(claim(json!({"volumeAttributesClassName": "A"})),
    &["spec.volumeAttributesClassName: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"])]
#[case(of("StorageClass", json!({"provisioner": "p", "allowedTopologies": [{"matchLabelExpressions": [{"key": "k", "values": ["a", "a"]}]}]})),
    &["allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\""])]
#[case(of("VolumeAttributesClass", json!({"driverName": "d"})),
    &["parameters: Required value: must contain at least one key/value pair"])]
#[case(of("CSIDriver", json!({"spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 5}]}})),
    &["spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"])]
#[case(of("VolumeAttachment", json!({"spec": {"attacher": "a", "nodeName": "n", "source": {}}})),
    &["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"])]
#[case(of("CSIStorageCapacity", json!({"storageClassName": "s", "capacity": "-1"})),
    &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"])]
fn refused(#[case] object: Value, #[case] expected: &[&str]) {
    assert_eq!(created(&object), expected);
}

const SPEC: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

#[rstest]
#[case(json!({}), json!({"resources": {"requests": {"storage": "2Gi"}}}), "Pending", &[SPEC])]
#[case(json!({}), json!({"resources": {"requests": {"storage": "2Gi"}}}), "Bound", &[])]
#[case(json!({}), json!({"resources": {"requests": {"storage": "1Mi"}}}), "Bound",
    &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"])]
#[case(json!({}), json!({"volumeName": "v"}), "Pending", &[])]
#[case(json!({"volumeName": "v"}), json!({"volumeName": "w"}), "Pending", &[SPEC])]
#[case(json!({}), json!({"storageClassName": "s"}), "Pending", &[])]
#[case(json!({"volumeAttributesClassName": "a"}), json!({"volumeAttributesClassName": "b"}), "Bound", &[])]
#[case(json!({"volumeAttributesClassName": "a"}), json!({"volumeAttributesClassName": "b"}), "Pending", &[SPEC])]
fn claims_change_little(
    #[case] old: Value,
    #[case] new: Value,
    #[case] phase: &str,
    #[case] expected: &[&str],
) {
    let status = json!({"status": {"phase": phase, "capacity": {"storage": "1Gi"}}});
    let (old, new) = (with(claim(old), status.clone()), with(claim(new), status));
    assert_eq!(updated(&old, &new, None), expected);
}

#[test]
fn volumes_keep_their_source_and_place() {
    let csi = |more: Value| {
        volume(with(
            json!({"csi": {"driver": "d", "volumeHandle": "h"}}),
            more,
        ))
    };
    let secret = json!({"csi": {"controllerExpandSecretRef": {"name": "a", "namespace": "b"}}});
    assert!(updated(&csi(json!({})), &csi(secret), None).is_empty());
    assert_eq!(
        updated(
            &csi(json!({})),
            &csi(json!({"csi": {"volumeHandle": "i"}})),
            None
        ),
        [
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
        ]
    );
    let placed = |key: &str| {
        let requirement = json!({"key": key, "operator": "In", "values": ["a"]});
        let terms = json!([{"matchExpressions": [requirement]}]);
        csi(json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}))
    };
    let beta = placed("failure-domain.beta.kubernetes.io/zone");
    assert!(updated(&beta, &placed("topology.kubernetes.io/zone"), None).is_empty());
    let faults = updated(&beta, &placed("other"), None);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].ends_with("field is immutable, except for updating from beta label to GA"));
}

#[test]
fn classes_of_attributes_stay() {
    let class = |driver: &str, size: &str| {
        of(
            "VolumeAttributesClass",
            json!({"driverName": driver, "parameters": {"size": size}}),
        )
    };
    assert_eq!(
        updated(&class("a", "1"), &class("b", "2"), None),
        [
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden."
        ]
    );
}
