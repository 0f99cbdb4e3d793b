//! Pods and pod templates.

use rstest::rstest;
use serde_json::{Value, json};

use super::{created, updated, with};

fn pod(spec: Value) -> Value {
    let minimal = json!({
        "apiVersion": "v1", "kind": "Pod",
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    with(minimal, json!({ "spec": spec }))
}

/// A pod of one container.
fn container(fields: Value) -> Value {
    let container = with(json!({"name": "c", "image": "i"}), fields);
    pod(json!({"containers": [container]}))
}

/// A pod with one volume.
fn volume(source: Value) -> Value {
    pod(json!({"volumes": [with(json!({"name": "v"}), source)]}))
}

#[test]
fn an_ordinary_pod_is_fine() {
    let everything = json!({
        "hostUsers": false,
        "dnsConfig": {"nameservers": ["10.0.0.1"], "searches": ["a.b.", "_x.y", "."]},
        "readinessGates": [{"conditionType": "example.com/ready"}],
        "schedulingGates": [{"name": "example.com/gate"}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.b"]}],
        "resourceClaims": [{"name": "gpu", "resourceClaimName": "r"}],
        "tolerations": [{"operator": "Exists"}],
        "volumes": [
            {"name": "e", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "i", "image": {"reference": "quay.io/x"}},
            {"name": "p", "persistentVolumeClaim": {"claimName": "d"}},
        ],
        "containers": [{
            "name": "c", "image": "i",
            "volumeMounts": [
                {"name": "e", "mountPath": "/e", "subPath": "a/b", "readOnly": true, "recursiveReadOnly": "Enabled"},
                {"name": "i", "mountPath": "/i"},
            ],
            "volumeDevices": [{"name": "p", "devicePath": "/dev/p"}],
            "resources": {"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}, "claims": [{"name": "gpu"}]},
            "livenessProbe": {"grpc": {"port": 80}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 0}}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
            "securityContext": {"procMount": "Unmasked", "appArmorProfile": {"type": "RuntimeDefault"}},
            "env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}],
        }],
    });
    assert!(created(&pod(everything)).is_empty());
}

#[rstest]
// Host namespaces, operating systems.
#[case(pod(json!({"hostUsers": false, "hostPID": true})),
    "spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false")]
#[case(pod(json!({"hostUsers": false, "hostNetwork": true})),
    "spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false")]
#[case(pod(json!({"os": {"name": "plan9"}})),
    "spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\"")]
#[case(pod(json!({"os": {"name": "windows"}, "securityContext": {"fsGroup": 1}})),
    "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod")]
#[case(with(container(json!({"securityContext": {"capabilities": {"drop": ["ALL"]}}})), json!({"spec": {"os": {"name": "windows"}}})),
    "spec.containers[0].securityContext.capabilities: Forbidden: cannot be set for a windows pod")]
#[case(pod(json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {"runAsUserName": "a"}}})),
    "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod")]
#[case(pod(json!({"securityContext": {"windowsOptions": {"runAsUserName": "a\\b\\c"}}})),
    "spec.securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash")]
#[case(pod(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}})),
    "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers")]
// Security.
#[case(pod(json!({"securityContext": {"supplementalGroupsPolicy": "All"}})),
    "spec.securityContext.supplementalGroupsPolicy: Unsupported value: \"All\": supported values: \"Merge\", \"Strict\"")]
#[case(pod(json!({"securityContext": {"seLinuxChangePolicy": "All"}})),
    "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"All\": supported values: \"MountOption\", \"Recursive\"")]
#[case(pod(json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]}})),
    "spec.securityContext.sysctls[0].name: Invalid value: \"net.ipv4.ip_forward\": may not be specified when 'hostNetwork' is true")]
#[case(pod(json!({"hostIPC": true, "securityContext": {"sysctls": [{"name": "kernel.shmmax", "value": "1"}]}})),
    "spec.securityContext.sysctls[0].name: Invalid value: \"kernel.shmmax\": may not be specified when 'hostIPC' is true")]
#[case(container(json!({"securityContext": {"procMount": "Unmasked"}})),
    "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`")]
#[case(container(json!({"securityContext": {"appArmorProfile": {"type": "Localhost"}}})),
    "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost")]
#[case(container(json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "../a"}}})),
    "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \"../a\": must not contain '..'")]
// Mounts and devices.
#[case(container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
    "spec.containers[0].volumeMounts[0].name: Not found: \"v\"")]
#[case(with(container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}]})), json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}})),
    "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers")]
#[case(with(container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "recursiveReadOnly": "Enabled"}]})), json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}})),
    "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true")]
#[case(with(container(json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/v"}]})), json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}})),
    "spec.containers[0].volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")]
#[case(with(container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a"}]})), json!({"spec": {"volumes": [{"name": "v", "image": {"reference": "i"}}]}})),
    "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"a\": not allowed in image volume sources")]
// Probes and hooks.
#[case(container(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}})),
    "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)")]
#[case(container(json!({"livenessProbe": {"httpGet": {"path": "/", "port": 80, "httpHeaders": [{"name": "a b", "value": "c"}]}}})),
    "spec.containers[0].livenessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')")]
#[case(container(json!({"readinessProbe": {"exec": {"command": ["a"]}, "terminationGracePeriodSeconds": 5}})),
    "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes")]
// Containers.
#[case(container(json!({"resizePolicy": [{"resourceName": "gpu", "restartPolicy": "NotRequired"}]})),
    "spec.containers[0].resizePolicy: Unsupported value: \"gpu\": supported values: \"cpu\", \"memory\"")]
#[case(container(json!({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]})),
    "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used")]
#[case(container(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]})),
    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting fieldPath: field label not supported: spec.nope")]
#[case(container(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]})),
    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"")]
#[case(container(json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "5m"}}}]})),
    "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource")]
// Resources.
#[case(container(json!({"resources": {"claims": [{"name": "gpu"}]}})),
    "spec.containers[0].resources.claims[0]: Not found: \"gpu\": must be one of the names in pod.spec.resourceClaims which is empty")]
#[case(with(container(json!({"resources": {"requests": {"cpu": "2"}}})), json!({"spec": {"resources": {"requests": {"cpu": "1"}}}})),
    "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2")]
// Names, addresses, searches.
#[case(pod(json!({"dnsPolicy": "None"})),
    "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None")]
#[case(pod(json!({"dnsConfig": {"searches": ["A"]}})),
    "spec.dnsConfig.searches[0]: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*')")]
#[case(pod(json!({"hostAliases": [{"ip": "a"}]})),
    "spec.hostAliases[0].ip: Invalid value: \"a\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
#[case(pod(json!({"nodeName": "n", "schedulingGates": [{"name": "example.com/g"}]})),
    "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared")]
#[case(pod(json!({"resourceClaims": [{"name": "r"}]})),
    "spec.resourceClaims[0]: Invalid value: {\"Name\":\"r\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")]
// Placement.
#[case(pod(json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a"]}]})),
    "spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set")]
#[case(pod(json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "z", "labelSelector": {}, "matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"]}]}}})),
    "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys")]
// Volumes.
#[case(volume(json!({"hostPath": {"path": "/a", "type": "Pipe"}})),
    "spec.volumes[0].hostPath.type: Unsupported value: \"Pipe\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"")]
#[case(volume(json!({"nfs": {"server": "s", "path": "a"}})),
    "spec.volumes[0].nfs.path: Invalid value: \"a\": must be an absolute path")]
#[case(volume(json!({"iscsi": {"targetPortal": "p", "iqn": "x", "lun": 0}})),
    "spec.volumes[0].iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa")]
#[case(volume(json!({"fc": {"targetWWNs": ["w"]}})),
    "spec.volumes[0].fc.lun: Required value: lun is required if targetWWNs is specified")]
#[case(volume(json!({"gcePersistentDisk": {"pdName": "p", "partition": 256}})),
    "spec.volumes[0].persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive")]
#[case(volume(json!({"azureDisk": {"diskName": "d", "diskURI": "https://a", "kind": "Managed"}})),
    "spec.volumes[0].azureDisk.diskURI: Unsupported value: \"https://a\": supported values: \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\"")]
#[case(volume(json!({"flexVolume": {"driver": "d", "options": {"a.k8s.io/b": "c"}}})),
    "spec.volumes[0].flexVolume.options[a.k8s.io/b]: Invalid value: \"a.k8s.io/b\": kubernetes.io and k8s.io namespaces are reserved")]
#[case(volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {}}})),
    "spec.volumes[0].csi.nodePublishSecretRef.name: Required value")]
#[case(volume(json!({"projected": {"sources": [{"secret": {"name": "a"}, "configMap": {"name": "b"}}]}})),
    "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source")]
#[case(volume(json!({"projected": {"sources": [
        {"secret": {"name": "a", "items": [{"key": "k", "path": "p"}]}},
        {"configMap": {"name": "b", "items": [{"key": "k", "path": "p"}]}},
    ]}})),
    "spec.volumes[0].projected: Invalid value: \"b\": conflicting duplicate paths")]
#[case(volume(json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "p"}}]}})),
    "spec.volumes[0].projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified")]
#[case(volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
    "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set")]
#[case(volume(json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "n"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}}})),
    "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set")]
#[case(volume(json!({"image": {}})), "spec.volumes[0].image.reference: Required value")]
fn pods_are_refused(#[case] pod: Value, #[case] expected: &str) {
    assert_eq!(created(&pod), [expected]);
}

#[test]
fn huge_pages_come_whole() {
    let faults = created(&container(
        json!({"resources": {"limits": {"cpu": "1", "hugepages-2Mi": "3Mi"}}}),
    ));
    // The request is filled in from the limit.
    let expected = ["limits", "requests"].map(|kind| {
        format!("spec.containers[0].resources.{kind}[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi")
    });
    assert_eq!(faults, expected);
}

#[test]
fn templates_are_held_to_less() {
    let deployment = |spec: Value| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec},
            },
        })
    };
    let padded = json!({"hostNetwork": true, "containers": [
        {"name": "c", "image": " i ", "ports": [{"containerPort": 80}]}]});
    assert!(created(&deployment(padded)).is_empty());
    let token = json!({"containers": [{"name": "c", "image": "i"}], "volumes": [
        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]});
    assert!(created(&deployment(token)).is_empty());
}

const ONLY: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn terms(values: &[&str]) -> Value {
    let all: Vec<Value> = values
        .iter()
        .map(|v| json!({"matchExpressions": [{"key": "k", "operator": "In", "values": [v]}]}))
        .collect();
    json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": all}}}})
}

#[rstest]
#[case(json!({}), json!({"containers": [{"name": "c", "image": "j"}]}), &[])]
#[case(json!({}), json!({"tolerations": [{"operator": "Exists"}]}), &[])]
#[case(json!({}), json!({"hostname": "h"}), &[ONLY])]
#[case(json!({}), json!({"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]}),
    &["spec.containers: Forbidden: pod updates may not add or remove containers"])]
#[case(json!({"activeDeadlineSeconds": 5}), json!({"activeDeadlineSeconds": 4}), &[])]
#[case(json!({"activeDeadlineSeconds": 5}), json!({"activeDeadlineSeconds": 6}),
    &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"])]
#[case(json!({"tolerations": [{"key": "a", "operator": "Exists"}]}), json!({}),
    &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"])]
#[case(json!({}), json!({"schedulingGates": [{"name": "example.com/g"}]}),
    &["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'example.com/g'"])]
#[case(json!({"schedulingGates": [{"name": "example.com/g"}]}), json!({"nodeSelector": {"a": "b"}}), &[])]
#[case(json!({"schedulingGates": [{"name": "example.com/g"}], "nodeSelector": {"a": "b"}}), json!({}),
    &["spec.nodeSelector: Invalid value: null: only additions to spec.nodeSelector are allowed (no mutations or deletions)"])]
#[case(with(json!({"schedulingGates": [{"name": "example.com/g"}]}), terms(&["a"])), terms(&["a", "b"]),
    &["spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Invalid value: [{\"matchExpressions\":[{\"key\":\"k\",\"operator\":\"In\",\"values\":[\"a\"]}]},{\"matchExpressions\":[{\"key\":\"k\",\"operator\":\"In\",\"values\":[\"b\"]}]}]: no additions/deletions to non-empty NodeSelectorTerms list are allowed"])]
#[case(terms(&["a"]), terms(&["b"]), &[ONLY])]
fn little_of_a_pod_changes(#[case] old: Value, #[case] new: Value, #[case] expected: &[&str]) {
    assert_eq!(updated(&pod(old), &pod(new), None), expected);
}

#[test]
fn statuses_of_pods_are_checked() {
    let of = |status: Value| {
        with(
            pod(json!({"restartPolicy": "Never"})),
            json!({"status": status}),
        )
    };
    let ended = json!([{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]);
    let runs = json!([{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}}]);
    let before = of(json!({"qosClass": "BestEffort", "containerStatuses": ended}));
    for (status, expected) in [
        (
            json!({"qosClass": "BestEffort", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
            None,
        ),
        (
            json!({"qosClass": "BestEffort", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
            Some(
                "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family",
            ),
        ),
        (
            json!({"qosClass": "Guaranteed"}),
            Some("status.qosClass: Invalid value: \"Guaranteed\": field is immutable"),
        ),
        (
            json!({"qosClass": "BestEffort", "containerStatuses": runs}),
            Some(
                "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            ),
        ),
        (
            json!({"qosClass": "BestEffort", "resourceClaimStatuses": [{"name": "r"}]}),
            Some(
                "status.resourceClaimStatuses[0].name: Invalid value: \"r\": must match the name of an entry in `spec.resourceClaims`",
            ),
        ),
    ] {
        let faults = updated(&before, &of(status), Some("status"));
        assert_eq!(faults, expected.into_iter().collect::<Vec<_>>());
    }
}
