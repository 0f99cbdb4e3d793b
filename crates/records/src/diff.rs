//! What has changed between two values, kept small: records are read by people.

use serde_json::{Map, Value, json};

/// The longest text that is kept whole.
const TEXT: usize = 400;
/// The most that one side of a difference may take, as JSON.
const WHOLE: usize = 4096;

/// What differs, as it was and as it is: members of objects that are equal are left out, lists are kept whole.
/// `None` where nothing differs.
pub fn between(before: &Value, after: &Value) -> Option<(Value, Value)> {
    let (was, is) = differing(before, after)?;
    Some((small(was), small(is)))
}

fn differing(before: &Value, after: &Value) -> Option<(Value, Value)> {
    if before == after {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return Some((before.clone(), after.clone()));
    };
    let (mut was, mut is) = (Map::new(), Map::new());
    for (key, value) in old {
        match new.get(key) {
            None => {
                was.insert(key.clone(), value.clone());
            }
            Some(now) => {
                if let Some((a, b)) = differing(value, now) {
                    was.insert(key.clone(), a);
                    is.insert(key.clone(), b);
                }
            }
        }
    }
    for (key, value) in new {
        if !old.contains_key(key) {
            is.insert(key.clone(), value.clone());
        }
    }
    Some((was.into(), is.into()))
}

/// The value with long texts cut; where it is still too much, only how much it was.
pub fn small(mut value: Value) -> Value {
    cut(&mut value);
    let size = value.to_string().len();
    if size <= WHOLE {
        return value;
    }
    let Value::Object(members) = value else {
        return json!(format!("… {size} bytes"));
    };
    // What is large of it goes, and says so.
    let members = members.into_iter().map(|(key, value)| {
        let size = value.to_string().len();
        let kept = if size > WHOLE / 8 {
            json!(format!("… {size} bytes"))
        } else {
            value
        };
        (key, kept)
    });
    let members: Map<String, Value> = members.take(64).collect();
    if Value::Object(members.clone()).to_string().len() > 2 * WHOLE {
        return json!(format!("… {size} bytes"));
    }
    members.into()
}

fn cut(value: &mut Value) {
    match value {
        Value::String(text) => {
            // Databases take no NUL in a text.
            if text.contains('\0') {
                *text = text.replace('\0', "\u{fffd}");
            }
            if text.chars().count() > TEXT {
                let length = text.len();
                *text = text.chars().take(TEXT).collect();
                text.push_str(&format!("… {length} bytes"));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(cut),
        Value::Object(members) => members.values_mut().for_each(cut),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs() {
        for (before, after, want) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (
                json!({"replicas": 3, "x": {"y": 1, "z": [1]}}),
                json!({"replicas": 5, "x": {"y": 1, "z": [1, 2]}, "new": true}),
                Some((
                    json!({"replicas": 3, "x": {"z": [1]}}),
                    json!({"replicas": 5, "x": {"z": [1, 2]}, "new": true}),
                )),
            ),
            (
                json!({"gone": 1, "same": 2}),
                json!({"same": 2}),
                Some((json!({"gone": 1}), json!({}))),
            ),
            (
                json!({"a": {"b": 1}}),
                json!({"a": null}),
                Some((json!({"a": {"b": 1}}), json!({"a": null}))),
            ),
        ] {
            assert_eq!(between(&before, &after), want, "{before} {after}");
        }
    }

    #[test]
    fn large_values_become_small() {
        let config = "é".repeat(100_000);
        let (was, is) = between(&json!({"config": config}), &json!({"config": "x"})).unwrap();
        assert!(was["config"].as_str().unwrap().ends_with("… 200000 bytes"));
        assert_eq!(is, json!({"config": "x"}));
        let many = json!({"list": vec!["text"; 10_000], "replicas": 3});
        let small = small(many);
        assert_eq!(small["replicas"], 3);
        assert!(small.to_string().len() < 2 * WHOLE);
        assert_eq!(super::small(json!("a\0b")), json!("a\u{fffd}b"));
    }

    proptest::proptest! {
        #[test]
        fn never_large(texts in proptest::collection::vec(".{0,900}", 0..200)) {
            let value: Map<String, Value> = texts.iter().enumerate().map(|(i, t)| (format!("{i}{t}"), json!(t))).collect();
            proptest::prop_assert!(small(value.into()).to_string().len() <= 2 * WHOLE);
        }
    }
}
