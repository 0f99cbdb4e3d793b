//! Kinds that tell how a cluster is set up: roles, networks, drivers of storage, other servers; and
//! events.

use rstest::rstest;
use serde_json::{Value, json};

use super::{created, updated, with};

fn of(api_version: &str, kind: &str, object: Value) -> Value {
    with(json!({"apiVersion": api_version, "kind": kind}), object)
}

fn event(fields: Value) -> Value {
    let minimal = json!({
        "regarding": {"kind": "Pod", "name": "p", "namespace": "n"}, "type": "Normal",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "Because", "action": "Did",
        "reportingController": "example.com/c", "reportingInstance": "c-1",
    });
    of("events.k8s.io/v1", "Event", with(minimal, fields))
}

fn core_event(fields: Value) -> Value {
    let minimal = json!({"involvedObject": {"kind": "Pod", "name": "p", "namespace": "n"}});
    of("v1", "Event", with(minimal, fields))
}

fn api_service(name: &str, spec: Value) -> Value {
    let minimal = json!({
        "group": "example.com", "version": "v1", "groupPriorityMinimum": 100,
        "versionPriority": 10, "service": {"name": "s", "namespace": "n"},
    });
    let object = json!({"metadata": {"name": name}, "spec": with(minimal, spec)});
    of("apiregistration.k8s.io/v1", "APIService", object)
}

fn ingress(spec: Value) -> Value {
    of("networking.k8s.io/v1", "Ingress", json!({ "spec": spec }))
}

fn backend(backend: Value) -> Value {
    ingress(json!({ "defaultBackend": backend }))
}

fn policy(peer: Value) -> Value {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [peer]}]});
    of(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        json!({ "spec": spec }),
    )
}

fn csi_node(drivers: Value) -> Value {
    of(
        "storage.k8s.io/v1",
        "CSINode",
        json!({"spec": {"drivers": drivers}}),
    )
}

fn attachment(spec: Value) -> Value {
    let minimal =
        json!({"attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
    of(
        "storage.k8s.io/v1",
        "VolumeAttachment",
        json!({"spec": with(minimal, spec)}),
    )
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn faults(found: Vec<String>, expected: &[&str]) {
    let expected: Vec<String> = expected
        .iter()
        .map(|e| e.replace("SUBDOMAIN", SUBDOMAIN))
        .collect();
    assert_eq!(found, expected);
}

#[rstest]
#[case(event(json!({})), &[])]
#[case(event(json!({"eventTime": null})), &["eventTime: Required value"])]
#[case(event(json!({"type": "Odd"})), &["type: Invalid value: \"\": has invalid value: Odd"])]
#[case(event(json!({"action": "", "reason": "x".repeat(129)})),
    &["action: Required value", "reason: Invalid value: \"\": can have at most 128 characters"])]
#[case(event(json!({"note": "x".repeat(1025)})), &["message: Invalid value: \"\": can have at most 1024 characters"])]
#[case(event(json!({"reportingController": "a b"})),
    &["reportingController: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"])]
#[case(event(json!({"deprecatedCount": 2, "deprecatedSource": {"component": "c"}, "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z"})),
    &["firstTimestamp: Invalid value: \"\": needs to be unset", "count: Invalid value: \"\": needs to be unset", "source: Invalid value: \"\": needs to be unset"])]
#[case(event(json!({"series": {"count": 1, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}})),
    &["series.count: Invalid value: \"\": should be at least 2"])]
#[case(core_event(json!({})), &[])]
#[case(core_event(json!({"count": 2, "source": {"component": "c"}})), &[])]
#[case(core_event(json!({"involvedObject": {"namespace": null}})),
    &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"])]
#[case(core_event(json!({"eventTime": "2026-01-01T00:00:00.000000Z", "reportingInstance": "i", "action": "a", "reason": "r"})),
    &["reportingController: Required value", "reportingController: Invalid value: \"\": name part must be non-empty", "reportingController: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"])]
#[case(api_service("v1.example.com", json!({})), &[])]
#[case(api_service("v1.example.org", json!({})),
    &["metadata.name: Invalid value: \"v1.example.org\": must be `spec.version+\".\"+spec.group`: \"v1.example.com\""])]
#[case(api_service("v2.", json!({"group": "", "version": "v2"})),
    &["spec.group: Required value: only v1 may have an empty group and it better be legacy kube"])]
#[case(api_service("v1.example.com", json!({"groupPriorityMinimum": 20001, "versionPriority": 0})),
    &["spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000", "spec.versionPriority: Invalid value: 0: must be positive and less than 1000"])]
#[case(api_service("v1.example.com", json!({"service": null, "insecureSkipTLSVerify": true, "caBundle": "YWJj"})),
    &["spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle", "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify"])]
#[case(api_service("v1.example.com", json!({"insecureSkipTLSVerify": true, "caBundle": "YWJj", "service": {"name": ""}})),
    &["spec.service.name: Required value", "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"])]
#[case(backend(json!({"service": {"name": "s", "port": {"number": 80}}})), &[])]
#[case(backend(json!({"resource": {"apiGroup": "A", "kind": "a/b", "name": ""}})),
    &["spec.defaultBackend.resource.apiGroup: Invalid value: \"A\": SUBDOMAIN", "spec.defaultBackend.resource.kind: Invalid value: \"a/b\": may not contain '/'", "spec.defaultBackend.resource.name: Required value"])]
#[case(with(backend(json!({"resource": {"kind": "K", "name": "n"}})), json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {"ingressClassName": "b"}})),
    &["annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified"])]
#[case(ingress(json!({"rules": [{"host": "*.a.b", "http": {"paths": []}}], "tls": [{"secretName": "A"}]})),
    &["spec.rules[0].http.paths: Required value", "spec.tls[0].secretName: Invalid value: \"A\": SUBDOMAIN"])]
#[case(ingress(json!({"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {}}]}}]})),
    &["spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required"])]
#[case(of("networking.k8s.io/v1", "IngressClass", json!({"spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "Namespace", "namespace": "A"}}})),
    &["spec.parameters.namespace: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"])]
#[case(of("networking.k8s.io/v1", "IPAddress", json!({"metadata": {"name": "fd00::1"}, "spec": {"parentRef": {"resource": "services", "name": "s"}}})), &[])]
#[case(of("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/24", "10.1.0.0/24", "fd00::/64"]}})),
    &["spec.cidrs: Invalid value: {\"CIDRs\":[\"10.0.0.0/24\",\"10.1.0.0/24\",\"fd00::/64\"]}: may only hold up to 2 values"])]
#[case(of("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/24", "10.1.0.0/24"]}})),
    &["spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"])]
#[case(of("discovery.k8s.io/v1", "EndpointSlice", json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b.", "ab", ""]}]})),
    &["endpoints[0].addresses[1]: Invalid value: \"ab\": should be a domain with at least two segments separated by dots", "endpoints[0].addresses[2]: Required value"])]
#[case(csi_node(json!([{"name": "a.b", "nodeID": "n", "topologyKeys": ["x", "x"], "allocatable": {"count": -1}}, {"name": "a.b", "nodeID": ""}])),
    &["spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0", "spec.drivers[0]: Duplicate value: \"x\"", "spec.drivers[1].nodeID: Required value", "spec.drivers[1].name: Duplicate value: \"a.b\""])]
#[case(of("storage.k8s.io/v1", "CSIDriver", json!({"spec": {"fsGroupPolicy": "Odd"}})),
    &["spec.fsGroupPolicy: Unsupported value: \"Odd\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\""])]
#[case(attachment(json!({})), &[])]
#[case(attachment(json!({"attacher": "A_b", "nodeName": "N", "source": {"persistentVolumeName": "V"}})),
    &["spec.nodeName: Invalid value: \"N\": SUBDOMAIN", "spec.attacher: Invalid value: \"A_b\": SUBDOMAIN", "spec.source.persistentVolumeName: Invalid value: \"V\": SUBDOMAIN"])]
#[case(attachment(json!({"source": {"persistentVolumeName": null, "inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/"}}}})),
    &["spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes", "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes"])]
#[case(of("scheduling.k8s.io/v1", "PriorityClass", json!({"metadata": {"name": "system-x"}, "value": 1})),
    &["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class"])]
#[case(of("scheduling.k8s.io/v1", "PriorityClass", json!({"metadata": {"name": "system-node-critical"}, "value": 1})),
    &["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000"])]
#[case(of("scheduling.k8s.io/v1", "PriorityClass", json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000})), &[])]
#[case(of("node.k8s.io/v1", "RuntimeClass", json!({"handler": "h", "overhead": {"podFixed": {"cpu": "-1"}}})),
    &["overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"])]
#[case(of("coordination.k8s.io/v1", "Lease", json!({"spec": {"holderIdentity": ""}})), &[])]
#[case(of("coordination.k8s.io/v1", "Lease", json!({"spec": {"strategy": "Newest"}})),
    &["spec.strategy.strategy: Unsupported value: \"Newest\": supported values: \"OldestEmulationVersion\""])]
#[case(of("rbac.authorization.k8s.io/v1", "ClusterRole", json!({"aggregationRule": {}})),
    &["aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"])]
#[case(of("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", json!({"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}, {"kind": "User", "name": "u", "apiGroup": "x"}]})),
    &["subjects[0].namespace: Required value", "subjects[1].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\""])]
#[case(of("autoscaling/v2", "HorizontalPodAutoscaler", json!({"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 2,
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}, "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 1}}}]}})),
    &["spec.metrics[0].resource: Forbidden: must populate the given metric source only"])]
fn refused(#[case] object: Value, #[case] expected: &[&str]) {
    faults(created(&object), expected);
}

#[rstest]
#[case(event(json!({})), event(json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}})), &[])]
#[case(event(json!({})), event(json!({"note": "new"})), &["message: Invalid value: \"new\": field is immutable"])]
#[case(core_event(json!({})), core_event(json!({"message": "new", "count": 3})), &[])]
#[case(csi_node(json!([{"name": "a.b", "nodeID": "n", "allocatable": {"count": 1}}])), csi_node(json!([{"name": "a.b", "nodeID": "n", "allocatable": {"count": 2}}])), &[])]
#[case(csi_node(json!([{"name": "a.b", "nodeID": "n"}])), csi_node(json!([{"name": "a.b", "nodeID": "m"}])),
    &["spec.drivers: Invalid value: {\"Name\":\"a.b\",\"NodeID\":\"m\",\"TopologyKeys\":null,\"Allocatable\":null}: field is immutable"])]
#[case(policy(json!({"ipBlock": {"cidr": "bad"}})), policy(json!({"ipBlock": {"cidr": "bad"}})), &[])]
#[case(policy(json!({"ipBlock": {"cidr": "10.0.0.0/8"}})), policy(json!({"ipBlock": {"cidr": "bad"}})),
    &["spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"bad\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"])]
#[case(ingress(json!({"defaultBackend": {"service": {"name": "s", "port": {"number": 1}}}, "tls": [{"secretName": "A"}]})),
    ingress(json!({"defaultBackend": {"service": {"name": "t", "port": {"number": 1}}}, "tls": [{"secretName": "A"}]})), &[])]
#[case(of("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/24"]}})),
    of("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/24", "fd00::/64"]}})), &[])]
#[case(of("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/24", "fd00::/64"]}})),
    of("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/24"]}})),
    &["spec.cidrs: Invalid value: [\"10.0.0.0/24\"]: field is immutable"])]
#[case(of("rbac.authorization.k8s.io/v1", "RoleBinding", json!({"roleRef": {"kind": "Role", "name": "r"}})),
    of("rbac.authorization.k8s.io/v1", "RoleBinding", json!({"roleRef": {"kind": "Role", "name": "s"}})),
    &["roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"s\"}: cannot change roleRef"])]
fn changed(#[case] old: Value, #[case] new: Value, #[case] expected: &[&str]) {
    faults(updated(&old, &new, None), expected);
}

#[rstest]
#[case("policy/v1", "PodDisruptionBudget", json!({"disruptionsAllowed": -1, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
    &["status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0"])]
#[case("networking.k8s.io/v1", "Ingress", json!({"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "10.0.0.1"}]}}),
    &["status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)", "status.loadBalancer.ingress[1].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"])]
#[case("autoscaling/v2", "HorizontalPodAutoscaler", json!({"currentReplicas": -1, "desiredReplicas": 0}),
    &["status.currentReplicas: Invalid value: -1: must be greater than or equal to 0"])]
#[case("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", json!({"conditions": [{"type": "A"}, {"type": "A"}, {"status": "True"}]}),
    &["status.conditions[1].type: Duplicate value: \"A\"", "status.conditions[2].type: Required value: must not be empty"])]
#[case("apiregistration.k8s.io/v1", "APIService", json!({"conditions": [{"type": "Available", "status": "Maybe"}]}),
    &["status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"True\", \"False\", \"Unknown\""])]
#[case("storage.k8s.io/v1", "VolumeAttachment", json!({"attached": false, "attachError": {"message": "x".repeat(1025)}}),
    &["status.attachError.message: Too long: may not be more than 262144 bytes"])]
#[case("v1", "PersistentVolumeClaim", json!({"capacity": {"storage": "-1"}, "allocatedResourceStatuses": {"storage": "Odd", "cpu": "NodeResizePending"}}),
    &["status.capacity[storage]: Invalid value: \"-1\": must be a valid resource quantity", "status.allocatedResourceStatus: Unsupported value: \"cpu\": supported values: \"storage\"",
      "status.allocatedResourceStatus: Unsupported value: \"storage\": supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\""])]
fn statuses(
    #[case] version: &str,
    #[case] kind: &str,
    #[case] status: Value,
    #[case] expected: &[&str],
) {
    let old = of(version, kind, json!({}));
    let new = of(version, kind, json!({ "status": status }));
    faults(updated(&old, &new, Some("status")), expected);
}

fn job(spec: Value, status: Value) -> Value {
    let template =
        json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let minimal = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "template": template});
    of(
        "batch/v1",
        "Job",
        json!({"spec": with(minimal, spec), "status": status}),
    )
}

#[rstest]
#[case(json!({"completions": 5, "parallelism": 5}), &[])]
#[case(json!({"completions": 2, "parallelism": 2}), &[])]
#[case(json!({"completions": 5}), &["spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"])]
fn numbered_jobs_are_elastic(#[case] spec: Value, #[case] expected: &[&str]) {
    let old = job(json!({}), json!({}));
    let found = updated(&old, &with(old.clone(), json!({ "spec": spec })), None);
    let found: Vec<_> = found
        .into_iter()
        .filter(|f| f.starts_with("spec.completions"))
        .collect();
    faults(found, expected);
}

#[rstest]
#[case(json!({}), &[])]
#[case(json!({"parallelism": 1}), &["status.succeeded: Invalid value: 1: cannot decrease the succeeded counter"])]
fn fewer_have_succeeded_of_a_job_that_shrank(#[case] spec: Value, #[case] expected: &[&str]) {
    let old = job(spec, json!({"succeeded": 2}));
    let new = with(old.clone(), json!({"status": {"succeeded": 1}}));
    faults(updated(&old, &new, Some("status")), expected);
}
