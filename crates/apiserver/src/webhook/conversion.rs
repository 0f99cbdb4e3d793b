//! Conversion webhooks: ConversionReview v1, and what of its answer is believed.

use std::time::Duration;

use gantry_machinery::{status::Failure, validation};
use serde_json::{Map, Value, json};

use super::Callers;
use crate::{errors, object};

/// How long a conversion may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn of_kind(object: &Value) -> String {
    let version = object::text(object, "/apiVersion");
    let version = match version.split_once('/') {
        Some(_) => version.to_owned(),
        None => format!("/{version}"),
    };
    format!("{version}, Kind={}", object::text(object, "/kind"))
}

/// Converts the objects that are not in this version yet, in one call. `hook` is
/// `spec.conversion.webhook` of their definition.
///
/// # Errors
/// 500 in Kubernetes' words when the webhook cannot be asked, refuses, or answers nonsense.
pub async fn convert(
    callers: &Callers,
    hook: &Value,
    version: &str,
    mut objects: Vec<Value>,
) -> Result<Vec<Value>, Failure> {
    let places: Vec<usize> = (0..objects.len())
        .filter(|i| object::text(&objects[*i], "/apiVersion") != version)
        .collect();
    let Some(first) = places.first().and_then(|i| objects.get(*i)) else {
        return Ok(objects);
    };
    let about = of_kind(first);
    let fail =
        |why: String| errors::plain_internal(format!("conversion webhook for {about} {why}"));
    let failed = |why: &dyn std::fmt::Display| fail(format!("failed: {why}"));
    let spoken = object::strings(hook.get("conversionReviewVersions"));
    let Some(spoken) = spoken
        .iter()
        .find(|v| matches!(v.as_str(), "v1" | "v1beta1"))
    else {
        return Err(errors::plain_internal(
            "no supported conversion review versions",
        ));
    };
    let uid = object::uid();
    let sent: Vec<&Value> = places.iter().map(|i| &objects[*i]).collect();
    let review = json!({
        "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{spoken}"),
        "request": {"uid": uid, "desiredAPIVersion": version, "objects": sent},
    });
    let config = hook.get("clientConfig").unwrap_or(&Value::Null);
    let caller = callers.caller(config).map_err(|e| failed(&e))?;
    let answer = caller
        .post(review.to_string().into(), PATIENCE, false)
        .await
        .map_err(|e| failed(&e))?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|e| failed(&e))?;
    let converted = read(spoken, &uid, answer).map_err(|why| failed(&why))?;
    if converted.len() != places.len() {
        return Err(fail(format!(
            "returned {} objects, expected {}",
            converted.len(),
            places.len()
        )));
    }
    for (n, (place, new)) in places.into_iter().zip(converted).enumerate() {
        let old = std::mem::take(&mut objects[place]);
        objects[place] = believe(&old, new, version)
            .map_err(|why| fail(format!("returned invalid {}", why.at(n))))?;
    }
    Ok(objects)
}

/// The objects of an answer.
fn read(spoken: &str, uid: &str, mut answer: Value) -> Result<Vec<Value>, String> {
    let strict = spoken == "v1";
    let kind = of_kind(&answer);
    let wanted = "apiextensions.k8s.io/v1, Kind=ConversionReview";
    if strict && kind != wanted {
        return Err(format!("expected webhook response of {wanted}, got {kind}"));
    }
    let Some(response) = answer.get_mut("response").filter(|r| r.is_object()) else {
        return Err("no response provided".to_owned());
    };
    let given = object::text(response, "/uid");
    if strict && given != uid {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let status = object::text(response, "/result/status");
    if status != "Success" {
        return Err(match object::text(response, "/result/message") {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    match response.get_mut("convertedObjects").map(Value::take) {
        Some(Value::Array(objects)) => Ok(objects),
        _ => Ok(vec![]),
    }
}

/// What is wrong with a converted object.
#[derive(Debug, PartialEq)]
enum Wrong {
    Object(String),
    Metadata(String),
}

impl Wrong {
    fn at(&self, index: usize) -> String {
        match self {
            Wrong::Object(why) => format!("object at index {index}: {why}"),
            Wrong::Metadata(why) => format!("metadata in object at index {index}: {why}"),
        }
    }
}

/// The converted object with the metadata of the original: labels and annotations alone are the
/// webhook's to change.
fn believe(old: &Value, mut new: Value, version: &str) -> Result<Value, Wrong> {
    let wrong = |what: &str, expected: &str, got: &str| {
        Wrong::Object(format!(
            "invalid {what} (expected {expected}, received {got})"
        ))
    };
    let got = object::text(&new, "/apiVersion");
    if got != version {
        return Err(wrong("groupVersion", version, got));
    }
    let (expected, got) = (object::text(old, "/kind"), object::text(&new, "/kind"));
    if expected != got {
        return Err(wrong("kind", expected, got));
    }
    for (field, shown) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (expected, got) = (
            object::meta_text(old, field),
            object::meta_text(&new, field),
        );
        if expected != got {
            return Err(Wrong::Object(format!(
                "must have the same {shown}: {expected} != {got}"
            )));
        }
    }
    let given = match new.get_mut("metadata").map(Value::take) {
        Some(Value::Object(given)) => given,
        Some(_) => {
            let why = "invalid metadata in converted object";
            return Err(Wrong::Metadata(why.to_owned()));
        }
        None => {
            let why = "missing metadata in converted object";
            return Err(Wrong::Metadata(why.to_owned()));
        }
    };
    let mut meta = object::meta(old).cloned().unwrap_or_default();
    texts(&mut meta, given).map_err(Wrong::Metadata)?;
    new["metadata"] = meta.into();
    Ok(new)
}

/// Takes over labels and annotations.
fn texts(meta: &mut Map<String, Value>, mut given: Map<String, Value>) -> Result<(), String> {
    for field in ["labels", "annotations"] {
        let map = match given.remove(field) {
            None | Some(Value::Null) => {
                meta.remove(field);
                continue;
            }
            Some(Value::Object(map)) => map,
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        };
        if let Some((key, _)) = map.iter().find(|(_, v)| !v.is_string()) {
            return Err(format!(
                "metadata.{field}[{key}] must be a string in converted object"
            ));
        }
        let map = Value::Object(map);
        let faults: Vec<String> = validation::texts(field, &map)
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        match faults.as_slice() {
            [] => {}
            [one] => return Err(one.clone()),
            many => return Err(format!("[{}]", many.join(", "))),
        }
        meta.insert(field.to_owned(), map);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Value {
        json!({"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {
            "name": "a", "namespace": "n", "uid": "u", "labels": {"old": "1"}, "generation": 3,
        }})
    }

    #[test]
    fn labels_and_annotations_alone_are_the_webhooks() {
        let mut new = original();
        new["apiVersion"] = "x.io/v2".into();
        new["metadata"] = json!({
            "name": "a", "namespace": "n", "uid": "u", "annotations": {"k": "v"}, "generation": 9,
        });
        let believed = believe(&original(), new, "x.io/v2").expect("fine");
        assert_eq!(
            believed["metadata"],
            json!({"name": "a", "namespace": "n", "uid": "u", "annotations": {"k": "v"}, "generation": 3})
        );
    }

    #[test]
    fn an_object_must_stay_itself() {
        for (pointer, value, expected) in [
            (
                "/apiVersion",
                json!("x.io/v3"),
                "invalid groupVersion (expected x.io/v2, received x.io/v3)",
            ),
            (
                "/kind",
                json!("Other"),
                "invalid kind (expected Thing, received Other)",
            ),
            (
                "/metadata/name",
                json!("b"),
                "must have the same name: a != b",
            ),
            (
                "/metadata/namespace",
                json!("b"),
                "must have the same namespace: n != b",
            ),
            (
                "/metadata/uid",
                json!("b"),
                "must have the same UID: u != b",
            ),
            (
                "/metadata/labels",
                json!({"a": 1}),
                "metadata.labels[a] must be a string",
            ),
            ("/metadata/labels", json!({"a": "!"}), "metadata.labels"),
        ] {
            let mut new = original();
            new["apiVersion"] = "x.io/v2".into();
            *new.pointer_mut(pointer).expect("a field") = value;
            let wrong = believe(&original(), new, "x.io/v2").expect_err(expected);
            assert!(wrong.at(0).contains(expected), "{}", wrong.at(0));
        }
    }

    #[test]
    fn an_answer_that_is_no_success_says_why() {
        let review = |response: Value| json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response});
        for (answer, expected) in [
            (json!({}), "expected webhook response of"),
            (review(Value::Null), "no response provided"),
            (
                review(json!({"uid": "x"})),
                "expected response.uid=\"u\", got \"x\"",
            ),
            (
                review(json!({"uid": "u", "result": {"status": "Failed", "message": "no"}})),
                "no",
            ),
            (
                review(json!({"uid": "u", "result": {"status": "Failed"}})),
                "response.result.status was 'Failed', not 'Success'",
            ),
        ] {
            let why = read("v1", "u", answer).expect_err(expected);
            assert!(why.contains(expected), "{why}");
        }
    }
}
