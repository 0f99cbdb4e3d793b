//! Strategic merge patches, a table for each directive and each way of merging a list.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::schema::{builtin, builtin_by_gvk};

fn patched(
    (group, version, kind): (&str, &str, &str),
    old: Value,
    patch: Value,
) -> Result<Value, Failure> {
    let schema = builtin(builtin_by_gvk(group, version, kind).unwrap());
    strategic(schema, old, patch)
}

/// Of a pod, its spec.
fn pod(old: Value, patch: Value) -> Result<Value, Failure> {
    let (old, patch) = (json!({ "spec": old }), json!({ "spec": patch }));
    patched(("", "v1", "Pod"), old, patch).map(|mut v| v["spec"].take())
}

/// Of a ConfigMap, its metadata.
fn metadata(old: Value, patch: Value) -> Result<Value, Failure> {
    let (old, patch) = (json!({ "metadata": old }), json!({ "metadata": patch }));
    patched(("", "v1", "ConfigMap"), old, patch).map(|mut v| v["metadata"].take())
}

fn container(fields: Value) -> Value {
    let mut container = json!({"name": "a", "image": "1"});
    if let (Some(container), Some(fields)) = (container.as_object_mut(), fields.as_object()) {
        container.extend(fields.clone());
    }
    container
}

/// `a1 b2` of containers `a` with the image `1` and `b` with `2`.
fn images(spec: &Value) -> String {
    let all = spec["containers"].as_array().unwrap().iter();
    let text = |c: &Value, f: &str| c[f].as_str().unwrap_or("").to_owned();
    all.map(|c| text(c, "name") + &text(c, "image"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[rstest]
#[case::changed(json!([{"name": "b", "image": "3"}]), "a1 b3")]
#[case::added_first(json!([{"name": "c", "image": "3"}]), "c3 a1 b2")]
#[case::deleted(json!([{"name": "b", "$patch": "delete"}]), "a1")]
#[case::deleted_and_changed(json!([{"name": "b", "$patch": "delete"}, {"name": "a", "image": "9"}]), "a9")]
#[case::deleted_unknown(json!([{"name": "z", "$patch": "delete"}]), "a1 b2")]
#[case::replaced(json!([{"name": "c", "image": "3"}, {"$patch": "replace"}]), "c3")]
#[case::replaced_by_nothing(json!([{"$patch": "replace"}]), "")]
#[case::order_of_the_patch(json!([{"name": "b", "image": "9"}, {"name": "a", "image": "8"}]), "b9 a8")]
#[case::empty(json!([]), "a1 b2")]
#[case::null_in_an_item(json!([{"name": "a", "image": null}]), "a b2")]
#[case::replaced_item(json!([{"name": "a", "$patch": "replace"}]), "")]
fn lists_of_objects(#[case] patch: Value, #[case] expected: &str) {
    let old = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]});
    let new = pod(old, json!({ "containers": patch })).unwrap();
    assert_eq!(images(&new), expected);
}

/// Where lists merge and by which key: the item with the key `1` is changed, `2` stays.
#[rstest]
#[case::volumes("volumes", "name")]
#[case::aliases("hostAliases", "ip")]
#[case::pull_secrets("imagePullSecrets", "name")]
#[case::ephemeral("ephemeralContainers", "name")]
#[case::init("initContainers", "name")]
#[case::spread("topologySpreadConstraints", "topologyKey")]
#[case::claims("resourceClaims", "name")]
#[case::gates("schedulingGates", "name")]
fn merge_keys_of_pods(#[case] list: &str, #[case] key: &str) {
    let old = json!({list: [{key: "1", "x": 1, "kept": true}, {key: "2"}]});
    let new = pod(old, json!({list: [{key: "1", "x": 2}]})).unwrap();
    assert_eq!(
        new,
        json!({list: [{key: "1", "x": 2, "kept": true}, {key: "2"}]})
    );
}

#[rstest]
#[case::environment("env", "name")]
#[case::ports("ports", "containerPort")]
#[case::mounts("volumeMounts", "mountPath")]
#[case::devices("volumeDevices", "devicePath")]
fn merge_keys_of_containers(#[case] list: &str, #[case] key: &str) {
    let old =
        json!({"containers": [container(json!({list: [{key: 1, "x": 1}, {key: 2, "x": 1}]}))]});
    let patch = json!({"containers": [{"name": "a", list: [{key: 2, "x": 2}]}]});
    let new = pod(old, patch).unwrap();
    let expected = container(json!({list: [{key: 1, "x": 1}, {key: 2, "x": 2}]}));
    assert_eq!(new["containers"], json!([expected]));
}

#[test]
fn ports_merge_by_number_whatever_their_protocol() {
    let port = |n: i64, protocol: &str| json!({"containerPort": n, "protocol": protocol});
    let old =
        json!({"containers": [container(json!({"ports": [port(53, "UDP"), port(53, "TCP")]}))]});
    let change = json!([{"containerPort": 53, "protocol": "UDP", "name": "dns"}]);
    let new = pod(old, json!({"containers": [{"name": "a", "ports": change}]})).unwrap();
    // The first of the number is meant.
    let named = json!({"containerPort": 53, "protocol": "UDP", "name": "dns"});
    assert_eq!(
        new["containers"][0]["ports"],
        json!([named, port(53, "TCP")])
    );
}

#[rstest]
#[case(("", "v1", "Service"), json!({"spec": {"ports": [{"port": 80, "name": "a"}]}}), json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 443}]}}),
    json!({"spec": {"ports": [{"port": 80, "name": "a", "targetPort": 8080}, {"port": 443}]}}))]
#[case(("", "v1", "Pod"), json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "X"}]}}), json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X"}]}}))]
#[case(("", "v1", "ServiceAccount"), json!({"secrets": [{"name": "a"}]}), json!({"secrets": [{"name": "b"}]}), json!({"secrets": [{"name": "b"}, {"name": "a"}]}))]
#[case(("", "v1", "Node"), json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}), json!({"spec": {"taints": [{"key": "b", "effect": "NoSchedule"}]}}),
    json!({"spec": {"taints": [{"key": "b", "effect": "NoSchedule"}]}}))]
#[case(("", "v1", "Pod"), json!({"spec": {"tolerations": [{"key": "a"}]}}), json!({"spec": {"tolerations": [{"key": "b"}]}}), json!({"spec": {"tolerations": [{"key": "b"}]}}))]
#[case(("apps", "v1", "Deployment"), json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}}), json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}}), json!({"spec": {"selector": {"matchLabels": {"a": "1", "b": "2"}}}}))]
fn other_kinds(
    #[case] kind: (&str, &str, &str),
    #[case] old: Value,
    #[case] patch: Value,
    #[case] expected: Value,
) {
    assert_eq!(patched(kind, old, patch).unwrap(), expected);
}

#[rstest]
#[case::replace(json!({"labels": {"$patch": "replace", "c": "3"}}), json!({"labels": {"c": "3"}, "finalizers": ["x/a", "x/b"]}))]
#[case::replace_by_nothing(json!({"labels": {"$patch": "replace"}}), json!({"labels": {}, "finalizers": ["x/a", "x/b"]}))]
#[case::delete(json!({"labels": {"$patch": "delete"}}), json!({"labels": {}, "finalizers": ["x/a", "x/b"]}))]
#[case::delete_says_no_more(json!({"labels": {"$patch": "delete", "z": "1"}}), json!({"labels": {}, "finalizers": ["x/a", "x/b"]}))]
#[case::of_what_is_not_there(json!({"annotations": {"$patch": "replace", "c": "3"}}), json!({"labels": {"a": "1", "b": "2"}, "finalizers": ["x/a", "x/b"]}))]
#[case::whole(json!({"$patch": "replace", "name": "x"}), json!({"name": "x"}))]
fn patch_of_maps(#[case] patch: Value, #[case] expected: Value) {
    let old = json!({"labels": {"a": "1", "b": "2"}, "finalizers": ["x/a", "x/b"]});
    assert_eq!(metadata(old, patch).unwrap(), expected);
}

#[rstest]
#[case::member(json!({"labels": {"a": null}}), json!({"labels": {"b": "2"}, "finalizers": ["x/a"]}))]
#[case::whole(json!({"labels": null}), json!({"finalizers": ["x/a"]}))]
#[case::list(json!({"finalizers": null}), json!({"labels": {"a": "1", "b": "2"}}))]
#[case::not_there(json!({"annotations": null}), json!({"labels": {"a": "1", "b": "2"}, "finalizers": ["x/a"]}))]
#[case::in_something_new(json!({"annotations": {"n": null, "m": "1"}}), json!({"labels": {"a": "1", "b": "2"}, "finalizers": ["x/a"], "annotations": {"m": "1"}}))]
#[case::all_of_something_new(json!({"annotations": {"n": null}}), json!({"labels": {"a": "1", "b": "2"}, "finalizers": ["x/a"], "annotations": {}}))]
#[case::another_type(json!({"labels": "x"}), json!({"labels": "x", "finalizers": ["x/a"]}))]
fn null_deletes(#[case] patch: Value, #[case] expected: Value) {
    let old = json!({"labels": {"a": "1", "b": "2"}, "finalizers": ["x/a"]});
    assert_eq!(metadata(old, patch).unwrap(), expected);
}

#[rstest]
#[case::merged(json!({"finalizers": ["x/c", "x/a"]}), &["x/c", "x/a", "x/b"])]
#[case::there_already(json!({"finalizers": ["x/b"]}), &["x/a", "x/b"])]
#[case::twice_in_the_patch(json!({"finalizers": ["x/c", "x/c"]}), &["x/c", "x/a", "x/b"])]
#[case::deleted(json!({"$deleteFromPrimitiveList/finalizers": ["x/a"]}), &["x/b"])]
#[case::deleted_unknown(json!({"$deleteFromPrimitiveList/finalizers": ["x/z"]}), &["x/a", "x/b"])]
#[case::deleted_all(json!({"$deleteFromPrimitiveList/finalizers": ["x/b", "x/a"]}), &[])]
#[case::deleted_and_added(json!({"$deleteFromPrimitiveList/finalizers": ["x/a"], "finalizers": ["x/c"]}), &["x/c", "x/b"])]
#[case::ordered(json!({"$setElementOrder/finalizers": ["x/b", "x/a"]}), &["x/b", "x/a"])]
#[case::ordered_and_added(json!({"$setElementOrder/finalizers": ["x/c", "x/b", "x/a"], "finalizers": ["x/c"]}), &["x/c", "x/b", "x/a"])]
#[case::ordered_in_part(json!({"$setElementOrder/finalizers": ["x/b"]}), &["x/a", "x/b"])]
#[case::ordered_with_unknown(json!({"$setElementOrder/finalizers": ["x/b", "x/z", "x/a"]}), &["x/b", "x/a"])]
#[case::ordered_and_deleted(json!({"$setElementOrder/finalizers": ["x/b"], "$deleteFromPrimitiveList/finalizers": ["x/a"]}), &["x/b"])]
fn lists_of_texts(#[case] patch: Value, #[case] expected: &[&str]) {
    let new = metadata(json!({"finalizers": ["x/a", "x/b"]}), patch).unwrap();
    assert_eq!(new["finalizers"], json!(expected));
}

#[rstest]
#[case::of_new_lists(json!({"$deleteFromPrimitiveList/finalizers": ["x/a"]}), json!({"name": "x"}))]
#[case::order_of_nothing(json!({"$setElementOrder/finalizers": ["x/a"]}), json!({"name": "x"}))]
#[case::order_of_new(json!({"$setElementOrder/finalizers": ["x/b", "x/a"], "finalizers": ["x/b", "x/a"]}), json!({"name": "x", "finalizers": ["x/b", "x/a"]}))]
fn directives_about_what_is_not_there(#[case] patch: Value, #[case] expected: Value) {
    assert_eq!(metadata(json!({"name": "x"}), patch).unwrap(), expected);
}

fn order(names: &[&str]) -> Value {
    names.iter().map(|n| json!({ "name": n })).collect()
}

#[rstest]
#[case::of_all(&["c", "b", "a"], json!([]), "c3 b2 a1")]
#[case::with_a_change(&["b", "a", "c"], json!([{"name": "a", "image": "9"}]), "b2 a9 c3")]
#[case::with_one_added(&["d", "a", "b", "c"], json!([{"name": "d", "image": "4"}]), "d4 a1 b2 c3")]
#[case::with_one_deleted(&["c", "a"], json!([{"name": "b", "$patch": "delete"}]), "c3 a1")]
// Those that only the server knows keep their place among the others.
#[case::server_only_first(&["c", "b"], json!([]), "a1 c3 b2")]
#[case::server_only_last(&["b", "a"], json!([]), "b2 a1 c3")]
fn element_order(#[case] names: &[&str], #[case] patch: Value, #[case] expected: &str) {
    let old = json!({"containers": [
        {"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"},
    ]});
    let patch = json!({"$setElementOrder/containers": order(names), "containers": patch});
    assert_eq!(images(&pod(old, patch).unwrap()), expected);
}

#[rstest]
#[case::changes_the_arm(json!({"$retainKeys": ["type"], "type": "Recreate"}), json!({"type": "Recreate"}))]
#[case::keeps_and_merges(json!({"$retainKeys": ["type", "rollingUpdate"], "rollingUpdate": {"maxSurge": 2}}), json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}))]
#[case::null_besides(json!({"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": null}), json!({"type": "Recreate"}))]
#[case::nothing(json!({"$retainKeys": []}), json!({}))]
fn retained_keys(#[case] patch: Value, #[case] expected: Value) {
    let rolling =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    let kind = ("apps", "v1", "Deployment");
    let new = patched(
        kind,
        json!({"spec": {"strategy": rolling}}),
        json!({"spec": {"strategy": patch}}),
    );
    assert_eq!(new.unwrap()["spec"]["strategy"], expected);
}

#[test]
fn volumes_change_their_source_by_retained_keys() {
    let old = json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]});
    let change =
        json!({"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}});
    let new = pod(old, json!({"volumes": [change]})).unwrap();
    let expected = json!({"name": "v", "hostPath": {"path": "/x"}});
    assert_eq!(new["volumes"], json!([expected]));
}

#[rstest]
#[case::unknown(json!({"$patch": "explode"}), 500, "unknown patch type: explode in map: map[$patch:explode]")]
#[case::merge_of_a_map(json!({"securityContext": {"$patch": "merge"}}), 500, "unknown patch type: merge in map: map[$patch:merge]")]
#[case::merge_of_an_item(json!({"containers": [{"name": "a", "$patch": "merge"}]}), 500, "merging lists cannot yet be specified in the patch")]
#[case::unknown_of_an_item(json!({"containers": [{"name": "a", "$patch": "odd"}]}), 500, "unknown patch type: odd in map: map[$patch:odd name:a]")]
#[case::no_key(json!({"containers": [{"image": "x"}]}), 500, "map: map[image:x] does not contain declared merge key: name")]
#[case::no_key_to_delete_by(json!({"containers": [{"$patch": "delete"}]}), 500, "map: map[$patch:delete] does not contain declared merge key: name")]
#[case::another_order(json!({"$setElementOrder/containers": [{"name": "q"}], "containers": [{"name": "r"}]}), 500,
    "The order in patch list:\n[map[name:r]]\n doesn't match $setElementOrder list:\n[map[name:q]]\n")]
#[case::beyond_the_retained(json!({"$retainKeys": ["a"], "b": 1}), 400, "invalid patch format of retainKeys")]
#[case::retained_by_no_list(json!({"$retainKeys": "a"}), 400, "invalid patch format of retainKeys")]
#[case::no_list_to_delete_from(json!({"$deleteFromPrimitiveList": ["a"]}), 400, "invalid patch format of primitive list")]
#[case::no_list_to_order(json!({"$setElementOrder": ["a"]}), 400, "invalid patch format of setElementOrder list")]
#[case::order_by_no_list(json!({"$setElementOrder/containers": "a"}), 500, "expected a []interface {}, but received a string")]
#[case::mixed(json!({"containers": [{"name": "a"}, 1]}), 500, "list element types are not identical: [[map[name:a]] [map[name:a] 1]]")]
#[case::lists_of_lists(json!({"containers": [[1]]}), 500, "list element types are not identical: [[map[name:a]] [[1]]]")]
fn faults(#[case] patch: Value, #[case] code: u16, #[case] message: &str) {
    let failure = pod(
        json!({"containers": [{"name": "a"}], "securityContext": {}}),
        patch,
    );
    let failure = failure.unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (code, message));
}

#[test]
fn what_is_a_list_of_lists_is_refused_without_a_reason() {
    let failure = metadata(json!({"finalizers": [["a"]]}), json!({"finalizers": ["b"]}));
    let failure = failure.unwrap_err();
    assert_eq!(failure.code, 422);
    assert_eq!(
        failure.message,
        "the server rejected our request due to an error in our request"
    );
}
