//! `agnhost crd-conversion-webhook`: between the two versions of the conformance tests' definition, of which
//! v1 has `hostPort: "h:p"` and v2 `host` and `port`.

use serde_json::{Map, Value, json};

const V1: &str = "stable.example.com/v1";
const V2: &str = "stable.example.com/v2";

/// Answers a ConversionReview.
pub fn answer(review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"].as_array().into_iter().flatten();
    let converted: Result<Vec<Value>, String> = objects.map(|it| convert(it, wanted)).collect();
    let mut response = json!({"uid": request["uid"]});
    match converted {
        Ok(objects) => {
            response["convertedObjects"] = objects.into();
            response["result"] = json!({"status": "Success"});
        }
        Err(why) => response["result"] = json!({"status": "Failure", "message": why}),
    }
    json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response})
}

fn convert(object: &Value, wanted: &str) -> Result<Value, String> {
    let from = object["apiVersion"].as_str().unwrap_or_default();
    if from == wanted {
        return Err(format!(
            "conversion from a version to itself should not call the webhook: {wanted}"
        ));
    }
    let mut object = object.as_object().cloned().unwrap_or_default();
    match (from, wanted) {
        (V1, V2) => split(&mut object)?,
        (V2, V1) => join(&mut object),
        (V1 | V2, other) | (other, _) => {
            return Err(format!("unexpected conversion version {other:?}"));
        }
    }
    object.insert("apiVersion".to_owned(), wanted.into());
    Ok(object.into())
}

fn split(object: &mut Map<String, Value>) -> Result<(), String> {
    let Some(both) = object.remove("hostPort") else {
        return Ok(());
    };
    let parts = both.as_str().and_then(|it| it.split_once(':'));
    let Some((host, port)) = parts.filter(|(_, port)| !port.contains(':')) else {
        return Err(format!(
            "invalid hostPort value `{}`",
            both.as_str().unwrap_or_default()
        ));
    };
    object.insert("host".to_owned(), host.into());
    object.insert("port".to_owned(), port.into());
    Ok(())
}

fn join(object: &mut Map<String, Value>) {
    let (host, port) = (object.remove("host"), object.remove("port"));
    if host.is_none() && port.is_none() {
        return;
    }
    let text = |it: Option<Value>| {
        it.and_then(|it| it.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let both = format!("{}:{}", text(host), text(port));
    object.insert("hostPort".to_owned(), both.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_go_both_ways() {
        let object = |version: &str, fields: Value| {
            let mut object = json!({"apiVersion": format!("stable.example.com/{version}")});
            for (name, value) in fields.as_object().unwrap() {
                object[name] = value.clone();
            }
            object
        };
        let cases = [
            (
                object("v1", json!({"hostPort": "h:1"})),
                V2,
                Ok(object("v2", json!({"host": "h", "port": "1"}))),
            ),
            (object("v1", json!({})), V2, Ok(object("v2", json!({})))),
            (
                object("v2", json!({"host": "h"})),
                V1,
                Ok(object("v1", json!({"hostPort": "h:"}))),
            ),
            (
                object("v1", json!({"hostPort": "h"})),
                V2,
                Err("invalid hostPort value `h`"),
            ),
            (
                object("v1", json!({})),
                V1,
                Err(
                    "conversion from a version to itself should not call the webhook: stable.example.com/v1",
                ),
            ),
            (
                object("v3", json!({})),
                V1,
                Err("unexpected conversion version \"stable.example.com/v3\""),
            ),
        ];
        for (from, wanted, expected) in cases {
            let review = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
                "request": {"uid": "u", "desiredAPIVersion": wanted, "objects": [from]}});
            let answer = answer(&review);
            let response = &answer["response"];
            let told = match response["result"]["status"].as_str() {
                Some("Success") => Ok(response["convertedObjects"][0].clone()),
                _ => Err(response["result"]["message"].as_str().unwrap()),
            };
            assert_eq!(told, expected, "{from} to {wanted}");
        }
    }
}
