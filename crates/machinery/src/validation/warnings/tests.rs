use rstest::rstest;
use serde_json::json;

use super::*;
use crate::resource::builtin_resources;

fn of(group: &str, kind: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    let resource = builtin_resources()
        .iter()
        .find(|r| r.group == group && r.kind == kind)
        .expect("a kind");
    warnings(resource, object, old)
}

fn pod(mut spec: Value) -> Value {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    json!({"metadata": {"name": "x"}, "spec": spec})
}

#[rstest]
#[case(
    json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
    "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead"
)]
#[case(
    json!({"topologySpreadConstraints": [{"topologyKey": "zone"}]}),
    "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"
)]
#[case(
    json!({"volumes": [{"name": "v", "gitRepo": {"repository": "r"}}]}),
    "spec.volumes[0].gitRepo: deprecated in v1.11"
)]
#[case(
    json!({"volumes": [{"name": "v", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": "m", "items": [{"key": "k", "path": "token"}]}},
    ]}}]}),
    "spec.volumes[0].projected.sources.configMap[0]: has duplicated path with ServiceAccountToken \"token\""
)]
#[case(
    json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
    "spec.imagePullSecrets[1].name: duplicate name \"a\""
)]
#[case(
    json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "100m"}}}]}),
    "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer"
)]
#[case(
    json!({"containers": [
        {"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
        {"name": "b", "ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": 80}]},
    ]}),
    "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]"
)]
#[case(
    json!({"terminationGracePeriodSeconds": -1}),
    "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
)]
#[case(
    json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {"topologyKey": "t"}}
    ]}}}),
    "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod"
)]
fn pods_are_warned_about(#[case] spec: Value, #[case] expected: &str) {
    assert_eq!(of("", "Pod", &pod(spec), None), [expected]);
}

#[test]
fn a_variable_made_of_its_predecessor_hides_nothing() {
    let env = |second: Value| {
        let variables = json!([{"name": "A", "value": "1"}, second]);
        of(
            "",
            "Pod",
            &pod(json!({"containers": [{"name": "c", "env": variables}]})),
            None,
        )
    };
    assert!(env(json!({"name": "A", "value": "$(A)2"})).is_empty());
    for hiding in [
        json!({"name": "A", "value": "2"}),
        json!({"name": "A", "value": "$(A)"}),
        json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
    ] {
        assert_eq!(
            env(hiding),
            [
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"
            ]
        );
    }
}

#[test]
fn templates_are_looked_at_when_the_spec_changes() {
    let with = |image: &str| {
        json!({"metadata": {"name": "a.b"}, "spec": {"template": {"spec": {
            "nodeSelector": {"node-role.kubernetes.io/master": ""},
            "containers": [{"name": "c", "image": image}]}}}})
    };
    let label = "spec.template.spec.nodeSelector[node-role.kubernetes.io/master]: use \"node-role.kubernetes.io/control-plane\" instead";
    let created = of("apps", "Deployment", &with("a"), None);
    assert_eq!(created.len(), 2, "{created:?}");
    assert!(created[0].starts_with("metadata.name: this is used in Pod names and hostnames"));
    assert_eq!(created[1], label);
    assert!(of("apps", "Deployment", &with("a"), Some(&with("a"))).is_empty());
    assert_eq!(
        of("apps", "Deployment", &with("b"), Some(&with("a"))),
        [label]
    );
    let pods = pod(json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}));
    assert!(of("", "Pod", &pods, Some(&pod(json!({})))).is_empty());
}

#[rstest]
#[case("", "Service", json!({"spec": {"type": "ClusterIP", "clusterIPs": ["010.0.0.1"]}}),
    "spec.clusterIPs[0]: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"")]
#[case("", "Service", json!({"spec": {"type": "ClusterIP", "clusterIPs": ["FD00::1"]}}),
    "spec.clusterIPs[0]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")")]
#[case("", "Service", json!({"spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1/8"]}}),
    "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)")]
#[case("", "Service", json!({"spec": {"type": "ClusterIP", "externalName": "a.b"}}),
    "spec.externalName is ignored when spec.type is not \"ExternalName\"")]
#[case("discovery.k8s.io", "EndpointSlice", json!({"addressType": "FQDN"}),
    "addressType: FQDN endpoints are deprecated")]
#[case("", "PersistentVolume", json!({"spec": {"persistentVolumeReclaimPolicy": "Recycle"}}),
    "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")]
#[case("networking.k8s.io", "Ingress", json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}}),
    "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead")]
#[case("networking.k8s.io", "NetworkPolicy",
    json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/24"}}]}]}}),
    "spec.ingress[0].from[0].ipBlock.cidr: CIDR value \"10.0.0.1/24\" is ambiguous in this context (should be \"10.0.0.0/24\" or \"10.0.0.1/32\"?)")]
fn other_kinds_are_warned_about(
    #[case] group: &str,
    #[case] kind: &str,
    #[case] object: Value,
    #[case] expected: &str,
) {
    assert_eq!(of(group, kind, &object, None), [expected]);
}
