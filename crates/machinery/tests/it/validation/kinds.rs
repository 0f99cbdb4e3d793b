//! All other kinds.

use rstest::rstest;
use serde_json::{Value, json};

use super::{created, updated, with};

fn service(spec: Value) -> Value {
    let minimal = json!({
        "apiVersion": "v1", "kind": "Service",
        "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}]},
    });
    with(minimal, json!({ "spec": spec }))
}

fn job(spec: Value) -> Value {
    let minimal = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "spec": {
            "manualSelector": true,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    with(minimal, json!({ "spec": spec }))
}

fn indexed(spec: Value) -> Value {
    job(with(
        json!({"completionMode": "Indexed", "completions": 5}),
        spec,
    ))
}

fn of(api_version: &str, kind: &str, object: Value) -> Value {
    with(json!({"apiVersion": api_version, "kind": kind}), object)
}

fn autoscaler(metric: Value) -> Value {
    of(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        json!({"spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 2, "metrics": [metric],
        }}),
    )
}

#[rstest]
#[case(service(json!({})), &[])]
#[case(service(json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": null, "clusterIPs": null, "ipFamilies": ["IPv4"]})),
    &["spec.ipFamilies: Forbidden: may not be set for ExternalName services"])]
#[case(service(json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]})),
    &["spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family"])]
#[case(service(json!({"ipFamilies": ["IPv6"]})),
    &["spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`"])]
#[case(service(json!({"externalIPs": ["127.0.0.1"], "externalTrafficPolicy": "Cluster"})),
    &["spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"])]
#[case(service(json!({"ports": [{"port": 80, "nodePort": 30080}]})),
    &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"])]
#[case(service(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}})),
    &["spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400"])]
#[case(job(json!({"managedBy": "me"})),
    &["spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")"])]
#[case(job(json!({"backoffLimitPerIndex": 1})),
    &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"])]
#[case(indexed(json!({"backoffLimitPerIndex": 1, "maxFailedIndexes": 6})),
    &["spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions"])]
#[case(indexed(json!({"completions": 100_001, "backoffLimitPerIndex": 1})),
    &["spec.maxFailedIndexes: Required value: must be specified when completions is above 100000"])]
#[case(indexed(json!({"podFailurePolicy": {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}]}})),
    &["spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"])]
#[case(job(json!({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"containerName": "d", "operator": "In", "values": [1]}}]}})),
    &["spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"d\": must be one of the container or initContainer names in the pod template"])]
#[case(job(json!({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 1]}}]}})),
    &["spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1]: must be ordered"])]
#[case(job(json!({"successPolicy": {"rules": [{"succeededCount": 1}]}})),
    &["spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode"])]
#[case(indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 3}]}})), &[])]
#[case(indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 4}]}})),
    &["spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)"])]
#[case(indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "3-2"}]}})),
    &["spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"3-2\": error parsing succeededIndexes: non-increasing order, previous: 3, current: 2"])]
#[case(of("v1", "Node", json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"], "podCIDR": "10.0.0.0/24"}})),
    &["spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family"])]
#[case(of("v1", "Node", json!({"spec": {"taints": [{"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoExecute"}]}})),
    &["metadata.taints[1]: Duplicate value: {\"Key\":\"a\",\"Value\":null,\"Effect\":\"NoExecute\",\"TimeAdded\":null}: taints must be unique by key and effect pair"])]
#[case(of("v1", "LimitRange", json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}]}})),
    &["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000"])]
#[case(of("v1", "LimitRange", json!({"spec": {"limits": [{"type": "Pod", "max": {"storage": "2"}}]}})),
    &["spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers"])]
#[case(of("v1", "ResourceQuota", json!({"spec": {"hard": {"services": "1"}, "scopes": ["BestEffort"]}})),
    &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"])]
#[case(of("v1", "ResourceQuota", json!({"spec": {"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [{"scopeName": "Terminating", "operator": "DoesNotExist"}]}}})),
    &["spec.scopeSelector.matchExpressions.operator: Invalid value: \"DoesNotExist\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"])]
#[case(of("discovery.k8s.io/v1", "EndpointSlice", json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}}]})),
    &["endpoints[0].hints.forZones[1].name: Duplicate value: \"a\""])]
#[case(of("networking.k8s.io/v1", "IPAddress", json!({"metadata": {"name": "010.0.0.1"}, "spec": {"parentRef": {"resource": "services", "name": "s"}}})),
    &["metadata.name: Invalid value: \"010.0.0.1\": must not have leading 0s"])]
#[case(of("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.1/24"]}})),
    &["spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length"])]
#[case(of("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/24", "fd00::/64"]}})), &[])]
#[case(of("coordination.k8s.io/v1", "Lease", json!({"spec": {"preferredHolder": "a"}})),
    &["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"])]
#[case(of("node.k8s.io/v1", "RuntimeClass", json!({"handler": "h", "scheduling": {"tolerations": [{"key": "a", "value": "b", "operator": "Exists"}]}})),
    &["scheduling.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"])]
#[case(autoscaler(json!({"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value"}}})),
    &["spec.metrics[0].external.target.averageValue: Required value: must set either a target value for metric or a per-pod target"])]
#[case(autoscaler(json!({"type": "Object", "object": {"describedObject": {"kind": "K", "name": ""}, "metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}})),
    &["spec.metrics[0].object.describedObject.name: Required value"])]
fn refused(#[case] object: Value, #[case] expected: &[&str]) {
    assert_eq!(created(&object), expected);
}

#[rstest]
#[case(json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}),
    &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"])]
#[case(json!({"clusterIP": null, "clusterIPs": null}),
    &["spec.clusterIPs[0]: Invalid value: null: primary clusterIP can not be unset"])]
#[case(json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]}), &[])]
#[case(json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": null, "clusterIPs": null, "ipFamilies": null}), &[])]
fn addresses_of_services_stay(#[case] new: Value, #[case] expected: &[&str]) {
    let old = service(json!({"ipFamilies": ["IPv4"]}));
    let new = with(old.clone(), json!({ "spec": new }));
    assert_eq!(updated(&old, &new, None), expected);
}

#[test]
fn second_addresses_go_by_policy() {
    let two = json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]});
    let one = |policy: &str| service(json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": policy}));
    assert!(updated(&service(two.clone()), &one("SingleStack"), None).is_empty());
    assert_eq!(
        updated(&service(two), &one("PreferDualStack"), None),
        [
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary clusterIP",
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary ipFamily"
        ]
    );
}

#[test]
fn statuses_are_checked() {
    let balanced = |point: Value| {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"});
        with(
            service(spec),
            json!({"status": {"loadBalancer": {"ingress": [point]}}}),
        )
    };
    let before = balanced(json!({"ip": "10.0.0.1", "ipMode": "VIP"}));
    assert!(updated(&before, &before, Some("status")).is_empty());
    assert_eq!(
        updated(
            &before,
            &balanced(json!({"hostname": "10.0.0.1"})),
            Some("status")
        ),
        [
            "status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"
        ]
    );
    let namespace = |phase: &str| of("v1", "Namespace", json!({"status": {"phase": phase}}));
    assert_eq!(
        updated(
            &namespace("Active"),
            &namespace("Terminating"),
            Some("status")
        ),
        [
            "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
        ]
    );
}
