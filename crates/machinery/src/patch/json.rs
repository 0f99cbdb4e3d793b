//! JSON patch as the API server carries it out.
//!
//! It follows `evanphx/json-patch` v4, which Kubernetes uses, where that departs from RFC 6902: a
//! `replace` of a missing member adds it, a negative index counts from the end, and `test` takes a
//! missing member for `null`. (The `json-patch` crate is strict in all three.)

use serde_json::Value;

use super::remove;
use crate::status::{Details, Failure};

/// Most operations in one patch (`maxJSONPatchOperations` of the API server).
const MAX_OPERATIONS: usize = 10_000;

/// Most bytes that `copy` operations of one patch may add together
/// (`maxJSONPatchCopyBytes`: the request body limit of the API server).
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Carries out all operations, or none.
///
/// # Errors
/// 400 for a patch that cannot be read, 413 for too many operations, 422 for an operation that
/// cannot be carried out (a failed `test`, a missing path, an unknown operation).
pub fn json(target: &Value, patch: &[u8]) -> Result<Value, Failure> {
    let operations = decode(patch)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(Failure::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                operations.len()
            ),
        ));
    }
    let mut document = target.clone();
    let mut copied = 0;
    for operation in operations {
        run(&mut document, operation, &mut copied).ok_or_else(rejected)?;
    }
    Ok(document)
}

/// The API server does not tell which operation failed.
fn rejected() -> Failure {
    Failure::new(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
    )
    .with_details(Details::default())
}

/// Why operations could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unpatched {
    /// A `test` says that the patch is not meant for this document.
    TestFailed,
    /// What is wrong.
    Wrong(String),
}

/// Carries out operations that are read already, all or none.
///
/// # Errors
/// The first that cannot be carried out.
pub fn operations(target: &Value, operations: &[Value]) -> Result<Value, Unpatched> {
    let whole = Value::Array(operations.to_vec()).to_string();
    let read = decode(whole.as_bytes()).map_err(|failure| Unpatched::Wrong(failure.message))?;
    let mut document = target.clone();
    let mut copied = 0;
    for operation in read {
        let (op, path) = (operation.op.clone(), operation.path.clone());
        if run(&mut document, operation, &mut copied).is_none() {
            return Err(match op.as_str() {
                "test" => Unpatched::TestFailed,
                "add" | "remove" | "replace" | "move" | "copy" => Unpatched::Wrong(format!(
                    "{op} operation does not apply: doc is missing path: {path:?}: missing value"
                )),
                _ => Unpatched::Wrong(format!("Unexpected kind: {op}")),
            });
        }
    }
    Ok(document)
}

struct Operation {
    op: String,
    path: String,
    from: String,
    value: Option<Value>,
}

fn decode(patch: &[u8]) -> Result<Vec<Operation>, Failure> {
    let bad = |why: String| Failure::new(400, "BadRequest", format!("error decoding patch: {why}"));
    let value: Value = serde_json::from_slice(patch).map_err(|e| bad(syntax_error(&e, patch)))?;
    let items = match value {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        other => {
            return Err(bad(format!(
                "json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
                json_type(&other)
            )));
        }
    };
    let mut operations = Vec::with_capacity(items.len());
    for item in items {
        let Value::Object(mut members) = item else {
            return Err(bad(format!(
                "json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp",
                json_type(&item)
            )));
        };
        let mut text = |name: &str| match remove(&mut members, name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(s)) => Ok(s),
            Some(other) => Err(bad(format!(
                "json: cannot unmarshal {} into Go struct field jsonPatchOp.{name} of type string",
                json_type(&other)
            ))),
        };
        operations.push(Operation {
            op: text("op")?,
            path: text("path")?,
            from: text("from")?,
            value: remove(&mut members, "value"),
        });
    }
    Ok(operations)
}

/// Go's words for what serde says.
pub(super) fn syntax_error(error: &serde_json::Error, text: &[u8]) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let at = text
        .split(|b| *b == b'\n')
        .nth(error.line().saturating_sub(1))
        .and_then(|line| line.get(error.column().saturating_sub(1)));
    match at {
        Some(c) => format!(
            "invalid character '{}' looking for beginning of value",
            char::from(*c)
        ),
        None => error.to_string(),
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn run(document: &mut Value, operation: Operation, copied: &mut usize) -> Option<()> {
    let path = pointer(&operation.path)?;
    match operation.op.as_str() {
        "add" => add(document, &path, operation.value.unwrap_or_default()),
        "remove" => take(document, &path).map(drop),
        "replace" => replace(document, &path, operation.value.unwrap_or_default()),
        "move" => {
            let from = pointer(&operation.from)?;
            let value = take(document, &from)?;
            add(document, &path, value)
        }
        "copy" => {
            let from = pointer(&operation.from)?;
            let value = get(document, &from)?.clone();
            *copied += value.to_string().len();
            if *copied > MAX_COPIED_BYTES {
                return None;
            }
            add(document, &path, value)
        }
        "test" => {
            let expected = operation.value.unwrap_or_default();
            match get(document, &path) {
                Some(found) if super::strategic::equal(found, &expected) => Some(()),
                None if expected.is_null() => Some(()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The parts of a JSON pointer (RFC 6901), unescaped.
fn pointer(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    Some(
        text.strip_prefix('/')?
            .split('/')
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect(),
    )
}

fn index(part: &str, length: usize) -> Option<usize> {
    let number: i64 = part.parse().ok()?;
    let number = if number < 0 {
        number + length as i64
    } else {
        number
    };
    usize::try_from(number).ok().filter(|i| *i < length)
}

fn get<'a>(document: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(document, |value, part| match value {
        Value::Object(o) => o.get(part),
        Value::Array(a) => index(part, a.len()).and_then(|i| a.get(i)),
        _ => None,
    })
}

fn parent<'a>(document: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(document, |value, part| match value {
        Value::Object(o) => o.get_mut(part),
        Value::Array(a) => index(part, a.len()).and_then(|i| a.get_mut(i)),
        _ => None,
    })
}

fn add(document: &mut Value, path: &[String], value: Value) -> Option<()> {
    let Some((last, before)) = path.split_last() else {
        *document = value;
        return Some(());
    };
    match parent(document, before)? {
        Value::Object(o) => {
            o.insert(last.clone(), value);
            Some(())
        }
        Value::Array(a) if last == "-" => {
            a.push(value);
            Some(())
        }
        // An insertion may also come right after the last item.
        Value::Array(a) => {
            let at = index(last, a.len() + 1)?;
            a.insert(at, value);
            Some(())
        }
        _ => None,
    }
}

fn replace(document: &mut Value, path: &[String], value: Value) -> Option<()> {
    let Some((last, before)) = path.split_last() else {
        *document = value;
        return Some(());
    };
    match parent(document, before)? {
        Value::Object(o) => {
            o.insert(last.clone(), value);
            Some(())
        }
        Value::Array(a) => {
            let at = index(last, a.len())?;
            a[at] = value;
            Some(())
        }
        _ => None,
    }
}

fn take(document: &mut Value, path: &[String]) -> Option<Value> {
    let (last, before) = path.split_last()?;
    match parent(document, before)? {
        Value::Object(o) => remove(o, last),
        Value::Array(a) => index(last, a.len()).map(|i| a.remove(i)),
        _ => None,
    }
}

/// Reads the body of a merge patch or a strategic merge patch, which must be an object.
///
/// # Errors
/// 400 in the words of the API server.
pub fn document(patch: &[u8]) -> Result<Value, Failure> {
    let value: Value = serde_json::from_slice(patch).map_err(|e| {
        let why = syntax_error(&e, patch);
        Failure::new(400, "BadRequest", format!("error decoding patch: {why}"))
    })?;
    match value {
        Value::Object(_) => Ok(value),
        other => Err(not_an_object(&other)),
    }
}

/// The API server's 400 for a merge patch that is no object.
pub(super) fn not_an_object(value: &Value) -> Failure {
    Failure::new(
        400,
        "BadRequest",
        format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            json_type(value)
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations() {
        let target = json!({"data": {"a": "1", "b/c": "2"}, "list": [1, 2, 3], "n": null});
        let cases = [
            (
                json!([{"op":"add","path":"/data/x","value":"y"}]),
                Some(("/data/x", json!("y"))),
            ),
            (
                json!([{"op":"add","path":"/list/-","value":4}]),
                Some(("/list", json!([1, 2, 3, 4]))),
            ),
            (
                json!([{"op":"add","path":"/list/0","value":0}]),
                Some(("/list", json!([0, 1, 2, 3]))),
            ),
            (
                json!([{"op":"add","path":"/list/3","value":4}]),
                Some(("/list", json!([1, 2, 3, 4]))),
            ),
            (json!([{"op":"add","path":"/list/4","value":4}]), None),
            (
                json!([{"op":"remove","path":"/list/-1"}]),
                Some(("/list", json!([1, 2]))),
            ),
            (
                json!([{"op":"replace","path":"/data/new","value":1}]),
                Some(("/data/new", json!(1))),
            ),
            (json!([{"op":"replace","path":"/list/7","value":1}]), None),
            (json!([{"op":"remove","path":"/data/nope"}]), None),
            (
                json!([{"op":"remove","path":"/data/b~1c"}]),
                Some(("/data", json!({"a":"1"}))),
            ),
            (
                json!([{"op":"move","from":"/data/a","path":"/data/z"}]),
                Some(("/data/z", json!("1"))),
            ),
            (
                json!([{"op":"copy","from":"/data/a","path":"/c"}]),
                Some(("/c", json!("1"))),
            ),
            (
                json!([{"op":"test","path":"/list","value":[1,2,3]}]),
                Some(("/n", json!(null))),
            ),
            (
                json!([{"op":"test","path":"/missing","value":null}]),
                Some(("/n", json!(null))),
            ),
            (json!([{"op":"test","path":"/data/a","value":"2"}]), None),
            (json!([{"op":"add","path":"/no/such","value":1}]), None),
            (json!([{"op":"explode","path":"/data"}]), None),
            (json!([{"op":"add","path":"data","value":1}]), None),
            (
                json!([{"op":"remove","path":"/data/a"},{"op":"test","path":"/data/a","value":"1"}]),
                None,
            ),
        ];
        for (patch, expected) in cases {
            let result = json(&target, patch.to_string().as_bytes());
            match expected {
                Some((path, value)) => {
                    let result = result.unwrap_or_else(|e| panic!("{patch}: {e}"));
                    assert_eq!(result.pointer(path), Some(&value), "{patch}");
                }
                None => assert_eq!(result.map_err(|e| e.code), Err(422), "{patch}"),
            }
        }
    }

    #[test]
    fn unreadable_patches() {
        for (patch, message) in [
            ("[{", "error decoding patch: unexpected end of JSON input"),
            (
                r#"{"op":"add"}"#,
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
            (
                "[1]",
                "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
            ),
            (
                "[x]",
                "error decoding patch: invalid character 'x' looking for beginning of value",
            ),
        ] {
            let failure = json(&json!({}), patch.as_bytes()).unwrap_err();
            assert_eq!((failure.code, failure.message.as_str()), (400, message));
        }
        for (patch, message) in [
            (
                "[]",
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            ("{", "error decoding patch: unexpected end of JSON input"),
        ] {
            assert_eq!(document(patch.as_bytes()).unwrap_err().message, message);
        }
        let many = Value::Array(vec![json!({"op":"test","path":"","value":{}}); 10_001]);
        let failure = json(&json!({}), many.to_string().as_bytes()).unwrap_err();
        assert_eq!(failure.code, 413);
    }
}
