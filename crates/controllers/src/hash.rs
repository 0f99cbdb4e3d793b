//! Names made from the content of a template: 32-bit FNV, spelt in letters and digits that form no
//! words (`rand.SafeEncodeString` of apimachinery).
//!
//! ControllerRevisions hash the bytes of their data, so our names equal those of Kubernetes wherever
//! the API server returns the same template. ReplicaSets hash a dump of Go structs there; ours hash
//! canonical JSON, which has the same properties and other digits.

use serde_json::Value;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The JSON text that Go's `encoding/json` writes for a map: keys sorted, no spaces, and `<`, `>`,
/// `&` escaped.
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::String(text) => write_string(text, out),
        other => out.push_str(&other.to_string()),
    }
}

fn write_string(text: &str, out: &mut String) {
    let quoted = Value::from(text).to_string();
    for c in quoted.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
}

/// FNV-1 with 32 bits, as Go's `fnv.New32`.
pub fn fnv1(parts: &[&[u8]]) -> u32 {
    parts
        .iter()
        .flat_map(|p| p.iter())
        .fold(0x811c_9dc5, |hash, byte| {
            hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte)
        })
}

/// FNV-1a with 32 bits, as Go's `fnv.New32a`.
pub fn fnv1a(parts: &[&[u8]]) -> u32 {
    parts
        .iter()
        .flat_map(|p| p.iter())
        .fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
}

/// The decimal digits of `hash` in the alphabet that forms no words.
pub fn safe_encode(hash: u32) -> String {
    hash.to_string()
        .bytes()
        .map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()]))
        .collect()
}

/// The `pod-template-hash` of a Deployment's template.
pub fn template_hash(template: &Value, collisions: Option<i32>) -> String {
    let text = canonical_json(template);
    let count = collisions.unwrap_or(0).to_le_bytes();
    match collisions {
        Some(_) => safe_encode(fnv1a(&[text.as_bytes(), &count])),
        None => safe_encode(fnv1a(&[text.as_bytes()])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_written_as_go_writes_it() {
        assert_eq!(
            canonical_json(&json!({"b": [1, true, null], "a": "x<&>\n"})),
            r#"{"a":"x\u003c\u0026\u003e\n","b":[1,true,null]}"#
        );
    }

    #[test]
    fn hashes_are_fnv() {
        // Test vectors of the FNV authors for "foobar".
        assert_eq!(fnv1(&[b"foo", b"bar"]), 0x31f0_b262);
        assert_eq!(fnv1a(&[b"foobar"]), 0xbf9c_f968);
        assert_eq!(safe_encode(0), "4");
        assert_ne!(
            template_hash(&json!({}), None),
            template_hash(&json!({}), Some(1))
        );
    }
}
