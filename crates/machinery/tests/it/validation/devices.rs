//! Claims for devices, their templates, classes and slices.

use rstest::rstest;
use serde_json::{Value, json};

use super::{created, updated, with};

fn of(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "resource.k8s.io/v1", "kind": kind, "spec": spec})
}

/// A claim with these devices.
fn claim(devices: Value) -> Value {
    of("ResourceClaim", json!({ "devices": devices }))
}

/// A claim with one request for exactly this.
fn exactly(request: Value) -> Value {
    let exactly = with(json!({"deviceClassName": "gpu"}), request);
    claim(json!({"requests": [{"name": "r", "exactly": exactly}]}))
}

/// A claim for one device and more to say of it.
fn more(devices: Value) -> Value {
    let requests = json!([
        {"name": "r", "exactly": {"deviceClassName": "gpu"}},
        {"name": "s", "firstAvailable": [{"name": "a", "deviceClassName": "gpu"}]},
    ]);
    claim(with(json!({ "requests": requests }), devices))
}

fn class(spec: Value) -> Value {
    of("DeviceClass", spec)
}

fn slice(spec: Value) -> Value {
    let minimal = json!({
        "driver": "gpu.example.com", "nodeName": "n",
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
    });
    of("ResourceSlice", with(minimal, spec))
}

fn device(fields: Value) -> Value {
    slice(json!({"devices": [with(json!({"name": "d"}), fields)]}))
}

/// A slice with one device of a capacity of ten that is shared by this policy.
fn shared(policy: Value) -> Value {
    let capacity = json!({"memory": {"value": "10", "requestPolicy": policy}});
    device(json!({"allowMultipleAllocations": true, "capacity": capacity}))
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const REFERENCE: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

fn opaque(driver: &str, parameters: Value) -> Value {
    json!({"opaque": {"driver": driver, "parameters": parameters}})
}

fn faults(found: Vec<String>, expected: &[&str]) {
    let expected: Vec<String> = expected
        .iter()
        .map(|e| e.replace("LABEL", LABEL).replace("REFERENCE", REFERENCE))
        .collect();
    assert_eq!(found, expected);
}

#[rstest]
#[case(exactly(json!({})), &[])]
#[case(claim(json!({})), &[])]
#[case(claim(json!({"requests": [{"name": "R", "exactly": {"deviceClassName": "gpu"}}]})),
    &["spec.devices.requests[0].name: Invalid value: \"R\": LABEL"])]
#[case(claim(json!({"requests": [{"name": "r"}]})),
    &["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"])]
#[case(claim(json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "a"}, "firstAvailable": [{"name": "x", "deviceClassName": "a"}]}]})),
    &["spec.devices.requests[0]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"])]
#[case(claim(json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "a"}}, {"name": "r", "exactly": {"deviceClassName": "a"}}]})),
    &["spec.devices.requests[1]: Duplicate value: \"r\""])]
#[case(claim(json!({"requests": [{"name": "r", "firstAvailable": [{"name": "x", "deviceClassName": "a"}, {"name": "x", "deviceClassName": "a"}]}]})),
    &["spec.devices.requests[0].firstAvailable[1]: Duplicate value: \"x\""])]
#[case(claim(json!({"requests": (0..33).map(|i| json!({"name": format!("r{i}"), "exactly": {"deviceClassName": "a"}})).collect::<Vec<_>>()})),
    &["spec.devices.requests: Too many: 33: must have at most 32 items"])]
#[case(exactly(json!({"deviceClassName": ""})), &["spec.devices.requests[0].exactly.deviceClassName: Required value"])]
#[case(exactly(json!({"allocationMode": "All", "count": 2})),
    &["spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"])]
#[case(exactly(json!({"allocationMode": "All"})), &[])]
#[case(exactly(json!({"count": -1})), &["spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero"])]
#[case(exactly(json!({"allocationMode": "Some"})),
    &["spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\""])]
#[case(exactly(json!({"selectors": [{}]})), &["spec.devices.requests[0].exactly.selectors[0].cel: Required value"])]
#[case(exactly(json!({"selectors": [{"cel": {"expression": "device.driver == 'a' && device.attributes['a.b'].x == 1 && device.capacity['a.b'].m.isGreaterThan(quantity('1Gi'))"}}]})), &[])]
#[case(exactly(json!({"selectors": [{"cel": {"expression": "device.driver"}}]})),
    &["spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: \"device.driver\": must evaluate to bool or the unknown type, not string"])]
#[case(exactly(json!({"tolerations": [{"key": "a", "value": "b", "operator": "Exists"}]})),
    &["spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"b\": must be empty for operator `Exists`"])]
#[case(exactly(json!({"tolerations": [{"key": "a", "value": "b", "effect": "Sometimes"}]})),
    &["spec.devices.requests[0].exactly.tolerations[0].effect: Unsupported value: \"Sometimes\": supported values: \"NoExecute\", \"NoSchedule\", \"None\""])]
#[case(more(json!({"constraints": [{"requests": ["r", "s/a"], "matchAttribute": "a.b/c"}]})), &[])]
#[case(more(json!({"constraints": [{"requests": ["t"], "matchAttribute": "a.b/c"}]})),
    &["spec.devices.constraints[0].requests[0]: Invalid value: \"t\": REFERENCE"])]
#[case(more(json!({"constraints": [{"requests": ["s/b", "r/a/b"], "matchAttribute": "a.b/c"}]})),
    &["spec.devices.constraints[0].requests[0]: Invalid value: \"s/b\": REFERENCE", "spec.devices.constraints[0].requests[1]: Invalid value: \"r/a/b\": REFERENCE"])]
#[case(more(json!({"constraints": [{"matchAttribute": "c"}]})),
    &["spec.devices.constraints[0].matchAttribute: Invalid value: \"c\": a fully qualified name must be a domain and a name separated by a slash"])]
#[case(more(json!({"constraints": [{"distinctAttribute": "/c"}]})),
    &["spec.devices.constraints[0].distinctAttribute: Invalid value: \"\": the domain must not be empty"])]
#[case(more(json!({"constraints": [{"requests": ["r", "r"], "matchAttribute": "a.b/c"}]})),
    &["spec.devices.constraints[0].requests[1]: Duplicate value: \"r\""])]
#[case(more(json!({"config": [opaque("a.b", json!({"x": 1}))]})), &[])]
#[case(more(json!({"config": [{}]})), &["spec.devices.config[0].opaque: Required value"])]
#[case(more(json!({"config": [opaque("a.b", json!([1]))]})),
    &["spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object"])]
#[case(of("ResourceClaimTemplate", json!({"metadata": {"labels": {"a": "-"}}, "spec": {"devices": {"requests": [{"name": "r"}]}}})),
    &["spec.metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
      "spec.spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"])]
#[case(class(json!({"selectors": [{"cel": {"expression": "true"}}], "extendedResourceName": "example.com/gpu"})), &[])]
#[case(class(json!({"extendedResourceName": "cpu"})),
    &["spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name"])]
#[case(slice(json!({"devices": [{"name": "d"}]})), &[])]
#[case(slice(json!({"nodeName": null})),
    &["spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"])]
#[case(slice(json!({"allNodes": true})),
    &["spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"])]
#[case(slice(json!({"nodeName": null, "allNodes": false})),
    &["spec.allNodes: Invalid value: false: must be either unset or set to true",
      "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"])]
#[case(slice(json!({"pool": {"name": "a//b", "generation": -1, "resourceSliceCount": 0}})),
    &["spec.pool.name: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
      "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
      "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero"])]
#[case(slice(json!({"devices": [{"name": "d"}], "sharedCounters": [{"name": "c", "counters": {"m": {"value": "1"}}}]})),
    &["spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed"])]
#[case(slice(json!({"sharedCounters": [{"name": "c", "counters": {}}]})),
    &["spec.sharedCounters[0].counters: Required value"])]
#[case(slice(json!({"devices": [{"name": "d"}, {"name": "d"}]})), &["spec.devices[1]: Duplicate value: \"d\""])]
#[case(slice(json!({"devices": (0..129).map(|i| json!({"name": format!("d{i}")})).collect::<Vec<_>>()})),
    &["spec.devices: Too many: 129: must have at most 128 items"])]
#[case(slice(json!({"devices": (0..65).map(|i| json!({"name": format!("d{i}"), "taints": [{"key": "a", "effect": "None"}]})).collect::<Vec<_>>()})),
    &["spec.devices: Too many: 65: must have at most 64 items"])]
#[case(device(json!({"attributes": {"a": {"string": "x"}, "b.c/d": {"version": "1.2.3"}}})), &[])]
#[case(device(json!({"attributes": {"a": {"version": "1.2"}}})),
    &["spec.devices[0].attributes[a].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0"])]
#[case(device(json!({"attributes": {"a": {}}})),
    &["spec.devices[0].attributes[a]: Invalid value: \"\": exactly one value must be specified"])]
#[case(device(json!({"attributes": {"1a": {"bool": true}}})),
    &["spec.devices[0].attributes: Invalid value: \"1a\": a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')"])]
#[case(device(json!({"attributes": {"a": {"string": "x".repeat(65)}}})),
    &["spec.devices[0].attributes[a].string: Too long: may not be more than 64 bytes"])]
#[case(device(json!({"attributes": (0..33).map(|i| (format!("a{i}"), json!({"int": i}))).collect::<serde_json::Map<_, _>>()})),
    &["spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32"])]
#[case(device(json!({"taints": [{"key": "a", "effect": ""}]})), &["spec.devices[0].taints[0].effect: Required value"])]
#[case(device(json!({"nodeName": "n"})),
    &["spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"])]
#[case(slice(json!({"nodeName": null, "perDeviceNodeSelection": true, "devices": [{"name": "d"}]})),
    &["spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"])]
#[case(device(json!({"bindingConditions": ["a"]})),
    &["spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions"])]
#[case(device(json!({"bindingConditions": ["a"], "bindingFailureConditions": ["a"]})),
    &["spec.devices[0].bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with bindingConditions"])]
#[case(device(json!({"consumesCounters": [{"counterSet": "", "counters": {"m": {"value": "1"}}}]})),
    &["spec.devices[0].consumesCounters[0].counterSet: Required value"])]
#[case(device(json!({"capacity": {"memory": {"value": "1", "requestPolicy": {"default": "1"}}}})),
    &["spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true"])]
#[case(shared(json!({"default": "2", "validValues": ["1", "2"]})), &[])]
#[case(shared(json!({"validValues": ["1"]})),
    &["spec.devices[0].capacity[memory].requestPolicy.default: Required value: required when validValues is defined"])]
#[case(shared(json!({"default": "3", "validValues": ["2", "1", "11"]})),
    &["spec.devices[0].capacity[memory].requestPolicy.validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
      "spec.devices[0].capacity[memory].requestPolicy.validValues[2]: Invalid value: \"11\": option is larger than capacity value: 10",
      "spec.devices[0].capacity[memory].requestPolicy.validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy"])]
#[case(shared(json!({"default": "4", "validRange": {"min": "2", "max": "8", "step": "2"}})), &[])]
#[case(shared(json!({"default": "1", "validRange": {"min": "2", "max": "11", "step": "0"}})),
    &["spec.devices[0].capacity[memory].requestPolicy.validRange.default: Invalid value: \"1\": default is less than min: 2",
      "spec.devices[0].capacity[memory].requestPolicy.validRange.max: Invalid value: \"11\": max is larger than capacity value: 10",
      "spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: \"0\": must be greater than zero"])]
#[case(shared(json!({"default": "5", "validRange": {"min": "2", "step": "2"}})),
    &["spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: \"5\": value is not a multiple of a given step (2) from (2)"])]
fn refused(#[case] object: Value, #[case] expected: &[&str]) {
    faults(created(&object), expected);
}

#[test]
fn expressions_are_compiled() {
    let found = created(&exactly(
        json!({"selectors": [{"cel": {"expression": "device.nothing"}}]}),
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: \"device.nothing\": compilation failed: "), "{found:?}");
}

#[test]
fn claims_and_templates_stay_as_they_are() {
    let old = exactly(json!({}));
    assert!(updated(&old, &old, None).is_empty());
    let found = updated(&old, &exactly(json!({"count": -1})), None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("spec: Invalid value: {")
            && found[0].ends_with(": field is immutable")
    );
}

#[test]
fn what_a_class_selects_by_is_compiled_when_it_changes() {
    let expression = |text: &str| json!({"selectors": [{"cel": {"expression": text}}]});
    let bad = class(expression("nothing"));
    assert!(updated(&bad, &bad, None).is_empty());
    assert_eq!(updated(&class(expression("true")), &bad, None).len(), 1);
}

#[test]
fn slices_stay_with_their_driver_pool_and_node() {
    let old = slice(json!({}));
    let new =
        slice(json!({"driver": "other", "nodeName": "m", "pool": {"name": "q", "generation": 2}}));
    faults(
        updated(&old, &new, None),
        &[
            "spec.pool.name: Invalid value: \"q\": field is immutable",
            "spec.driver: Invalid value: \"other\": field is immutable",
            "spec.nodeName: Invalid value: \"m\": field is immutable",
        ],
    );
}

fn status(status: Value) -> Value {
    let mut claim = more(json!({}));
    claim["status"] = status;
    claim
}

/// One device allocated, and more of the status.
fn allocated(more: Value) -> Value {
    let result = json!({"request": "r", "driver": "a.b", "pool": "p", "device": "d"});
    let all = json!({"allocation": {"devices": {"results": [result]}}});
    status(with(all, more))
}

#[rstest]
#[case(allocated(json!({})), &[])]
#[case(allocated(json!({"reservedFor": [{"resource": "pods", "name": "x", "uid": "1"}]})), &[])]
#[case(status(json!({"reservedFor": [{"resource": "pods", "name": "x", "uid": "1"}]})),
    &["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"])]
#[case(allocated(json!({"reservedFor": [{"resource": "", "name": "x", "uid": "1"}, {"resource": "pods", "name": "y", "uid": "1"}]})),
    &["status.reservedFor[0].resource: Required value", "status.reservedFor[1]: Duplicate value: \"1\""])]
#[case(status(json!({"allocation": {"devices": {"results": [{"request": "x", "driver": "a.b", "pool": "p", "device": "D"}]}}})),
    &["status.allocation.devices.results[0].request: Invalid value: \"x\": REFERENCE",
      "status.allocation.devices.results[0].device: Invalid value: \"D\": LABEL"])]
#[case(status(json!({"allocation": {"devices": {"config": [{"source": "", "opaque": {"driver": "a.b", "parameters": {}}}]}}})),
    &["status.allocation.devices.config[0].source: Required value"])]
#[case(allocated(json!({"devices": [{"driver": "a.b", "pool": "p", "device": "d"}]})), &[])]
#[case(allocated(json!({"devices": [{"driver": "a.b", "pool": "p", "device": "e"}]})),
    &["status.devices[0]: Invalid value: \"a.b/p/e\": must be an allocated device in the claim"])]
#[case(allocated(json!({"devices": [{"driver": "a.b", "pool": "p", "device": "d", "conditions": [{"type": "A", "status": "Maybe", "reason": "1", "message": ""}]}]})),
    &["status.devices[0].conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
      "status.devices[0].conditions[0].lastTransitionTime: Required value: must be set",
      "status.devices[0].conditions[0].reason: Invalid value: \"1\": a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')"])]
#[case(allocated(json!({"devices": [{"driver": "a.b", "pool": "p", "device": "d", "networkData": {"ips": ["10.0.0.1/24", "10.0.0.1"]}}]})),
    &["status.devices[0].networkData.ips[1]: Invalid value: \"10.0.0.1\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"])]
fn statuses(#[case] new: Value, #[case] expected: &[&str]) {
    faults(updated(&more(json!({})), &new, Some("status")), expected);
}

#[test]
fn an_allocation_stays() {
    let found = updated(
        &allocated(json!({})),
        &allocated(json!({"allocation": {"devices": {"results": []}}})),
        Some("status"),
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("field is immutable"), "{found:?}");
    assert!(updated(&allocated(json!({})), &status(json!({})), Some("status")).is_empty());
}
