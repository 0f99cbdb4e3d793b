//! The three ways in which a PATCH that is not an apply changes an object: JSON patch (RFC 6902),
//! JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch.

mod golang;
mod json;
mod strategic;

use serde_json::{Map, Value};

pub use json::{Unpatched, document, json, operations};
pub use strategic::strategic;

/// JSON merge patch (RFC 7386): `null` deletes, objects merge, everything else replaces.
///
/// As in the API server, a `null` inside a value that replaces or adds is dropped too, so that a
/// patch can never bring a `null` into an object.
pub fn merge(target: Value, patch: Value) -> Value {
    match (target, patch) {
        (Value::Object(mut target), Value::Object(patch)) => {
            for (key, change) in patch {
                if change.is_null() {
                    remove(&mut target, &key);
                } else if let Some(slot) = target.get_mut(&key) {
                    *slot = merge(slot.take(), change);
                } else {
                    target.insert(key, without_nulls(change));
                }
            }
            Value::Object(target)
        }
        (_, patch) => without_nulls(patch),
    }
}

/// The value without `null` members of objects, at any depth. List items stay where they are.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(o) => Value::Object(
            o.into_iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k, without_nulls(v)))
                .collect(),
        ),
        Value::Array(a) => Value::Array(a.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Removes a member. Where the build keeps the order of members, the others keep theirs.
fn remove(map: &mut Map<String, Value>, key: &str) -> Option<Value> {
    map.remove(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_follows_rfc_7386() {
        // The examples of RFC 7386, appendix A, that do not hold a null in an array.
        for (target, patch, expected) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            assert_eq!(
                merge(target.clone(), patch.clone()),
                expected,
                "{target} {patch}"
            );
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..5i64).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(target in value(), patch in value()) {
            let once = merge(target, patch.clone());
            prop_assert_eq!(merge(once.clone(), patch), once);
        }

        #[test]
        fn an_empty_patch_changes_no_object(target in value()) {
            prop_assume!(target.is_object());
            prop_assert_eq!(merge(target.clone(), json!({})), target);
        }
    }
}
