//! Laws of field ownership that hold for any objects, and the turns of single stories.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{crd, schema::Schema, status::Failure};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    crd::structural(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "plain": {"type": "array", "items": {"type": "string"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items":
            {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}, "w": {"type": "integer"}}}},
    }}}}))
    .unwrap()
});

pub(super) fn schema() -> &'static Schema {
    &SCHEMA
}

pub(super) fn object(spec: Value) -> Value {
    json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "spec": spec})
}

pub(super) fn at(name: &str, operation: Operation, second: i64) -> Manager<'_> {
    Manager {
        name,
        operation,
        api_version: "g/v1",
        subresource: "",
        time: jiff::Timestamp::from_second(second).unwrap(),
    }
}

pub(super) fn applied(
    live: Option<&Value>,
    spec: Value,
    name: &str,
    force: bool,
) -> Result<Value, Failure> {
    let manager = at(name, Operation::Apply, 1);
    let mut config = object(spec);
    // Nothing to say is said by leaving the spec out; an empty one would be owned as such.
    if config["spec"] == json!({}) {
        config.as_object_mut().unwrap().remove("spec");
    }
    apply(schema(), &ResetFields::none(), live, config, manager, force)
}

pub(super) fn updated(old: Option<&Value>, mut new: Value, name: &str, second: i64) -> Value {
    let manager = at(name, Operation::Update, second);
    track_update(schema(), &ResetFields::none(), old, &mut new, manager).unwrap();
    new
}

/// The fields of a manager, as `operation name: fields` lines.
pub(super) fn owners(object: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    for entry in entries.into_iter().flatten() {
        let set = FieldSet::from_fields_v1(&entry["fieldsV1"]).unwrap();
        let mut paths = Vec::new();
        set.each(&mut |p| paths.push(p.iter().map(ToString::to_string).collect::<String>()));
        paths.sort();
        all.push(format!(
            "{} {}: {}",
            entry["operation"].as_str().unwrap(),
            entry["manager"].as_str().unwrap(),
            paths.join(" ")
        ));
    }
    all
}

/// No container is empty: that one is there and holds nothing is a fact of its own, told in the
/// stories below.
pub(super) fn spec(prefix: &'static str) -> impl Strategy<Value = Value> {
    let key = move || proptest::string::string_regex(&format!("[{prefix}]")).unwrap();
    let number = || 0..3i64;
    (
        prop::collection::btree_map("[abc]", number(), 0..3),
        prop::option::of(prop::collection::btree_map(key(), number(), 1..3)),
        prop::option::of(prop::collection::btree_map(key(), number(), 1..2)),
        prop::option::of(prop::collection::btree_set(key(), 1..3)),
        prop::option::of(prop::collection::vec(key(), 1..3)),
        prop::option::of(prop::collection::btree_map(
            key(),
            (prop::option::of(number()), prop::option::of(number())),
            1..3,
        )),
    )
        .prop_map(|(scalars, map, whole, set, plain, keyed)| {
            let mut out = Map::new();
            out.extend(scalars.into_iter().map(|(k, v)| (k, json!(v))));
            out.extend(map.map(|m| ("map".to_owned(), json!(m))));
            out.extend(whole.map(|m| ("whole".to_owned(), json!(m))));
            out.extend(set.map(|s| ("set".to_owned(), json!(s))));
            out.extend(plain.map(|s| ("plain".to_owned(), json!(s))));
            out.extend(keyed.map(|items| {
                let items: Vec<Value> = items
                    .into_iter()
                    .map(|(k, (v, w))| {
                        let mut item = Map::from_iter([("k".to_owned(), json!(k))]);
                        item.extend(v.map(|v| ("v".to_owned(), json!(v))));
                        item.extend(w.map(|w| ("w".to_owned(), json!(w))));
                        Value::Object(item)
                    })
                    .collect();
                ("keyed".to_owned(), json!(items))
            }));
            Value::Object(out)
        })
}

/// The value without members and items that hold nothing: what a removal leaves of a container is
/// not the same as one that was never there.
pub(super) fn bare(value: &Value) -> Value {
    match value {
        Value::Object(o) => Value::Object(
            o.iter()
                .map(|(k, v)| (k.clone(), bare(v)))
                .filter(|(_, v)| !is_bare(v))
                .collect(),
        ),
        Value::Array(a) => Value::Array(a.iter().map(bare).collect()),
        other => other.clone(),
    }
}

pub(super) fn is_bare(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(o) => o.is_empty(),
        Value::Array(a) => a.is_empty(),
        _ => false,
    }
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(first in spec("xy"), second in spec("xy")) {
        let live = applied(None, first, "one", true).unwrap();
        let once = applied(Some(&live), second.clone(), "two", true).unwrap();
        let twice = applied(Some(&once), second, "two", true).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn what_is_applied_is_there(first in spec("xy"), second in spec("xy")) {
        let live = applied(None, first, "one", true).unwrap();
        let new = applied(Some(&live), second.clone(), "two", true).unwrap();
        let wanted = types::fields_of(types::Type::of(schema()), &object(second.clone()));
        let there = types::fields_of(types::Type::of(schema()), &new);
        prop_assert!(is_bare(&second) || wanted.leaves().difference(&there).is_empty());
    }

    #[test]
    fn applying_nothing_takes_all_back(mine in spec("xy"), theirs in spec("xy")) {
        let live = applied(None, theirs.clone(), "other", true).unwrap();
        if let Ok(with) = applied(Some(&live), mine, "me", false) {
            let without = applied(Some(&with), json!({}), "me", false).unwrap();
            // Order in merged lists may differ: what is left is compared as sets of fields.
                let fields = |o: &Value| types::fields_of(types::Type::of(schema()), &bare(o)).leaves();
            let mut live = live.clone();
            let mut without = without.clone();
            prop_assert_eq!(owners(&live), owners(&without));
            for o in [&mut live, &mut without] {
                o["metadata"].as_object_mut().unwrap().remove("managedFields");
            }
            prop_assert_eq!(fields(&live), fields(&without));
        }
    }

    #[test]
    fn disjoint_appliers_commute(one in spec("xy"), two in spec("pq")) {
        // Scalars and atomics are shared by both generators: only one side has them.
        let mut two = two;
        for name in ["a", "b", "c", "whole", "plain"] {
            two.as_object_mut().unwrap().remove(name);
        }
        let order = |first: (&str, &Value), second: (&str, &Value)| {
            let live = applied(None, first.1.clone(), first.0, false).unwrap();
            applied(Some(&live), second.1.clone(), second.0, false).unwrap()
        };
        let (a, b) = (order(("one", &one), ("two", &two)), order(("two", &two), ("one", &one)));
        let mut names = (owners(&a), owners(&b));
        names.0.sort();
        names.1.sort();
        prop_assert_eq!(names.0, names.1);
        let fields = |o: &Value| types::fields_of(types::Type::of(schema()), o).leaves();
        prop_assert_eq!(fields(&a), fields(&b));
    }

    #[test]
    fn an_update_owns_what_it_changed_and_nobody_owns_what_is_gone(first in spec("xy"), second in spec("xy")) {
        let old = updated(None, object(first), "one", 1);
        let mut new = object(second);
        if let Some(entries) = old["metadata"].get("managedFields") {
            new["metadata"]["managedFields"] = entries.clone();
        }
        let new = updated(Some(&old), new, "two", 2);
        let ty = types::Type::of(schema());
        let there = types::fields_of(ty, &new);
        let mut owned = FieldSet::new();
        for entry in new["metadata"]["managedFields"].as_array().into_iter().flatten() {
            owned = owned.union(&FieldSet::from_fields_v1(&entry["fieldsV1"]).unwrap());
        }
        let mut header = FieldSet::new();
        for path in [&["apiVersion"][..], &["kind"], &["metadata", "name"], &["metadata", "managedFields"]] {
            header.insert(&path.iter().map(|p| PathElement::field(p)).collect::<Vec<_>>());
        }
        // Every leaf of the object has an owner …
        prop_assert!(there.leaves().difference(&header).difference(&owned).is_empty());
        // … and every owned leaf is in the object, empty lists (which applies never own) aside.
        let missing = owned.leaves().difference(&there);
        let mut only_lists = true;
        missing.each(&mut |path| {
            let shown = path.iter().map(ToString::to_string).collect::<String>();
            only_lists &= matches!(shown.as_str(), ".spec.set" | ".spec.keyed");
        });
        prop_assert!(only_lists, "{:?}", missing);
        // Nothing changed: nothing moves.
        let again = updated(Some(&new), new.clone(), "three", 3);
        prop_assert_eq!(again, new);
    }
}

#[test]
fn conflicts_name_managers_and_fields() {
    let live = applied(
        None,
        json!({"a": 1, "keyed": [{"k": "x", "v": 1}]}),
        "one",
        false,
    )
    .unwrap();
    let live = updated(
        Some(&live),
        {
            let mut o = live.clone();
            o["spec"]["b"] = json!(5);
            o
        },
        "editor",
        2,
    );
    let failure = applied(
        Some(&live),
        json!({"a": 2, "b": 6, "keyed": [{"k": "x", "v": 2}]}),
        "two",
        false,
    )
    .unwrap_err();
    assert_eq!((failure.code, &*failure.reason), (409, "Conflict"));
    assert_eq!(
        failure.message,
        "Apply failed with 3 conflicts: conflicts with \"editor\" using g/v1:\n- .spec.b\nconflicts with \"one\":\n- .spec.a\n- .spec.keyed[k=\"x\"].v"
    );
    assert_eq!(failure.details.unwrap().causes.len(), 3);
    let forced = applied(
        Some(&live),
        json!({"a": 2, "b": 6, "keyed": [{"k": "x", "v": 2}]}),
        "two",
        true,
    )
    .unwrap();
    assert_eq!(
        owners(&forced),
        [
            "Apply one: .spec.keyed[k=\"x\"] .spec.keyed[k=\"x\"].k",
            "Apply two: .spec.a .spec.b .spec.keyed[k=\"x\"] .spec.keyed[k=\"x\"].k .spec.keyed[k=\"x\"].v",
        ]
    );
}

#[test]
fn an_object_without_entries_belongs_to_before_first_apply() {
    let old = object(json!({"a": 1, "b": 2}));
    let new = applied(Some(&old), json!({"a": 1}), "one", false).unwrap();
    assert_eq!(
        owners(&new),
        [
            "Apply one: .spec.a",
            "Update before-first-apply: .spec .spec.a .spec.b"
        ]
    );
    // An update of such an object starts no record.
    let changed = updated(Some(&old), object(json!({"a": 2})), "two", 1);
    assert!(changed["metadata"].get("managedFields").is_none());
}

#[test]
fn the_oldest_updates_are_merged() {
    let mut live = updated(None, object(json!({"map": {"first": 0}})), "m00", 0);
    for i in 1..14 {
        let mut new = live.clone();
        new["spec"]["map"][format!("k{i:02}")] = json!(i);
        live = updated(Some(&live), new, &format!("m{i:02}"), i);
    }
    let owners = owners(&live);
    assert_eq!(owners.len(), 10);
    assert_eq!(
        owners[0],
        "Update ancient-changes: .spec .spec.map .spec.map.first .spec.map.k01 .spec.map.k02 .spec.map.k03 .spec.map.k04"
    );
    assert_eq!(owners[1], "Update m05: .spec.map.k05");
    assert_eq!(
        live["metadata"]["managedFields"][0]["time"],
        "1970-01-01T00:00:04Z"
    );
}

#[test]
fn a_request_may_clear_or_set_entries() {
    let old = updated(None, object(json!({"a": 1})), "one", 1);
    let mut new = old.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    assert!(
        updated(Some(&old), new.clone(), "two", 2)["metadata"]
            .get("managedFields")
            .is_none()
    );
    new["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Guess", "apiVersion": "g/v1", "fieldsType": "FieldsV1"}]);
    assert_eq!(
        owners(&updated(Some(&old), new.clone(), "two", 2)),
        owners(&old)
    );
    new["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Apply", "apiVersion": "g/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:a": {}}}}]);
    assert_eq!(
        owners(&updated(Some(&old), new, "two", 2)),
        ["Apply x: .spec.a"]
    );
}

#[test]
fn kubectl_takes_over_what_it_applied_without_the_server() {
    let config = object(json!({"a": 1}));
    let mut old = object(json!({"a": 1, "b": 2}));
    old["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": config.to_string()});
    let old = updated(None, old, "kubectl-client-side-apply", 1);
    assert_eq!(
        applied(Some(&old), json!({"a": 3}), "one", false)
            .unwrap_err()
            .code,
        409
    );
    let new = applied(Some(&old), json!({"a": 3}), "kubectl", false).unwrap();
    assert_eq!(new["spec"]["a"], 3);
    let kept = new["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
        .as_str()
        .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(kept).unwrap()["spec"],
        json!({"a": 3})
    );
    assert_eq!(
        applied(Some(&old), json!({"b": 3}), "kubectl", false)
            .unwrap_err()
            .code,
        409
    );
}

#[test]
fn a_list_that_became_atomic_is_owned_whole() {
    let before = applied(None, json!({"plain": ["a"]}), "one", false).unwrap();
    let mut old = before;
    old["metadata"]["managedFields"][0]["fieldsV1"] =
        json!({"f:spec": {"f:plain": {"v:\"a\"": {}}}});
    let failure = applied(Some(&old), json!({"plain": ["b"]}), "two", false).unwrap_err();
    assert!(
        failure
            .message
            .ends_with("conflict with \"one\": .spec.plain"),
        "{}",
        failure.message
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    for (config, code, message) in [
        (
            json!({"apiVersion": "g/v2", "kind": "K"}),
            400,
            "invalid object type: g/v2, Kind=K",
        ),
        (json!({}), 400, "invalid object type: /, Kind="),
        (
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x", "managedFields": []}}),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "spec": {"a": "1"}}),
            500,
            "failed to create typed patch object (/x; g/v1, Kind=K): .spec.a: expected numeric (int or float), got string",
        ),
        (
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "spec": {"set": ["a", "a"]}}),
            500,
            "failed to create typed patch object (/x; g/v1, Kind=K): .spec.set: duplicate entries for key [=\"a\"]",
        ),
        (
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "spec": {"nope": 1}}),
            500,
            "failed to create typed patch object (/x; g/v1, Kind=K): .spec.nope: field not declared in schema",
        ),
    ] {
        let manager = at("one", Operation::Apply, 1);
        let failure =
            apply(schema(), &ResetFields::none(), None, config, manager, false).unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (code, message));
    }
}
