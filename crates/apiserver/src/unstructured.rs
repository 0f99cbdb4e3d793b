//! How Kubernetes speaks of what a strategic merge patch made where it does not fit the type: such a
//! patch is carried out on maps, which then become the type without JSON between.

use std::fmt::Write;

use serde_json::Value;

/// A value as Go prints one, with the keys of maps in order.
pub fn go_map(value: &Value) -> String {
    let mut out = String::new();
    print(value, &mut out);
    out
}

fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Bool(_) | Value::Number(_) => {
            let _ = write!(out, "{value}");
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                print(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push_str("map[");
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                print(&map[key], out);
            }
            out.push(']');
        }
    }
}

/// What the decoder of JSON says of a value of a wrong type, in the words of this conversion; other
/// words stay (those of a type that reads itself, as a quantity).
pub fn words(why: &str) -> String {
    let read = || {
        let rest = why.strip_prefix("json: cannot unmarshal ")?;
        let (found, rest) = rest.split_once(" into Go ")?;
        let (_, wanted) = rest.rsplit_once(" of type ")?;
        Some((found, wanted))
    };
    let Some((found, wanted)) = read() else {
        return why.to_owned();
    };
    let found = match found {
        "object" => "map",
        "array" => "slice",
        // Other numbers are taken for whole ones too.
        found if found.starts_with("number") => "int64",
        found => found,
    };
    if wanted.starts_with("map[") {
        return format!("cannot restore map from {found}");
    }
    if wanted.starts_with("[]") {
        return format!("cannot restore slice from {found}");
    }
    match (wanted, found) {
        ("string", "int64") => "cannot convert int64 to string".to_owned(),
        ("string" | "bool" | "int" | "int32" | "int64" | "float64", _) => {
            format!("unrecognized type: {wanted}")
        }
        // Text with a name of its own, as v1.RestartPolicy, is told from a struct by what is found:
        // a number could become text.
        (_, "int64") => format!("cannot convert int64 to {wanted}"),
        (_, found) => format!("cannot restore struct from: {found}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_printed_as_go_does() {
        let value = json!({"b": [1, null, "x y"], "a": {"d": true, "c": 1.5}, "e": {}});
        assert_eq!(
            go_map(&value),
            "map[a:map[c:1.5 d:true] b:[1 <nil> x y] e:map[]]"
        );
    }

    #[test]
    fn words_of_the_conversion() {
        let field = "json: cannot unmarshal";
        for (found, of, said) in [
            (
                "string",
                "map[string]string",
                "cannot restore map from string",
            ),
            ("object", "[]v1.Container", "cannot restore slice from map"),
            ("string", "v1.PodSpec", "cannot restore struct from: string"),
            ("number", "string", "cannot convert int64 to string"),
            ("bool", "string", "unrecognized type: string"),
            ("string", "int32", "unrecognized type: int32"),
        ] {
            let why = format!("{field} {found} into Go struct field Pod.a.b of type {of}");
            assert_eq!(words(&why), said, "{why}");
        }
        let own = "quantities must match the regular expression";
        assert_eq!(words(own), own);
    }
}
