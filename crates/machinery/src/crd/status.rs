//! What the API server writes into a definition's status: which names it got and whether its
//! resources are served.

use serde_json::{Map, Value, json};

/// The status of a definition, given the other definitions of the cluster: accepted names, the
/// conditions `NamesAccepted` and `Established`, and the stored versions, to which a new storage
/// version is added. A condition keeps its time while its status stays.
///
/// Kubernetes calls a definition established a moment after its names are accepted, when every
/// API server has it; here both come at once.
pub fn status_conditions<'a>(
    crd: &Value,
    others: impl IntoIterator<Item = &'a Value>,
    now: jiff::Timestamp,
) -> Value {
    let group = crd.pointer("/spec/group");
    let own_name = crd.pointer("/metadata/name");
    let mut resources: Vec<&str> = Vec::new();
    let mut kinds: Vec<&str> = Vec::new();
    for other in others {
        if other.pointer("/spec/group") != group || other.pointer("/metadata/name") == own_name {
            continue;
        }
        let Some(names) = other.pointer("/status/acceptedNames") else {
            continue;
        };
        let one = |field: &str| names.get(field).and_then(Value::as_str);
        resources.extend(one("plural").into_iter().chain(one("singular")));
        let short = names.get("shortNames").and_then(Value::as_array);
        resources.extend(short.into_iter().flatten().filter_map(Value::as_str));
        kinds.extend(one("kind").into_iter().chain(one("listKind")));
    }
    let empty = json!({});
    let wanted = crd.pointer("/spec/names").unwrap_or(&empty);
    let had = crd.pointer("/status/acceptedNames").unwrap_or(&empty);
    let mut accepted = had.as_object().cloned().unwrap_or_default();
    let mut conflict: Option<(&str, String)> = None;
    for (field, reason, taken) in [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("shortNames", "ShortNamesConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ] {
        let value = wanted.get(field);
        let used: Vec<String> = texts(value)
            .filter(|name| !texts(had.get(field)).any(|h| h == *name) && taken.contains(name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        match used.as_slice() {
            [] => put(&mut accepted, field, value),
            [one] => conflict = Some((reason, one.clone())),
            many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
        }
    }
    put(&mut accepted, "categories", wanted.get("categories"));
    for field in ["plural", "kind"] {
        accepted
            .entry(field)
            .or_insert_with(|| Value::from(String::new()));
    }

    let accepts = conflict.is_none();
    let (reason, message) =
        conflict.unwrap_or_else(|| ("NoConflicts", "no conflicts found".to_owned()));
    let conditions = crd.pointer("/status/conditions").and_then(Value::as_array);
    let mut out: Vec<Value> = conditions.cloned().unwrap_or_default();
    set_condition(&mut out, "NamesAccepted", accepts, reason, &message, now);
    let established = out
        .iter()
        .any(|c| c["type"] == "Established" && c["status"] == "True");
    // Once established always established: objects may be stored.
    if !established {
        let (reason, message) = if accepts {
            (
                "InitialNamesAccepted",
                "the initial names have been accepted",
            )
        } else {
            ("NotAccepted", "not all names are accepted")
        };
        set_condition(&mut out, "Established", accepts, reason, message, now);
    }

    let mut stored: Vec<Value> = crd
        .pointer("/status/storedVersions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    for version in versions.into_iter().flatten() {
        if version["storage"] == true && !stored.contains(&version["name"]) {
            stored.push(version["name"].clone());
        }
    }
    json!({"conditions": out, "acceptedNames": accepted, "storedVersions": stored})
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let one = value.and_then(Value::as_str);
    let many = value.and_then(Value::as_array);
    one.into_iter()
        .chain(many.into_iter().flatten().filter_map(Value::as_str))
}

fn put(names: &mut Map<String, Value>, field: &str, value: Option<&Value>) {
    match value {
        Some(value) => {
            names.insert(field.to_owned(), value.clone());
        }
        None => {
            names.remove(field);
        }
    }
}

fn set_condition(
    conditions: &mut Vec<Value>,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: jiff::Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let mut new = json!({
        "type": kind,
        "status": status,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "reason": reason,
        "message": message,
    });
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(old) => {
            if old["status"] == status && !old["lastTransitionTime"].is_null() {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": short},
            "versions": [{"name": "v1", "served": true, "storage": true}]}})
    }

    #[test]
    fn names_go_to_the_first() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut first = crd("widgets", "Widget", &["wd"]);
        first["status"] = status_conditions(&first, [], now);
        assert_eq!(first["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        assert_eq!(first["status"]["conditions"][0]["reason"], "NoConflicts");
        assert_eq!(first["status"]["conditions"][1]["status"], "True");

        let second = crd("wodgets", "Wodget", &["wd"]);
        let status = status_conditions(&second, [&first], now);
        assert_eq!(
            status["acceptedNames"],
            json!({"plural": "wodgets", "singular": "wodget", "kind": "Wodget", "listKind": "WodgetList"})
        );
        assert_eq!(status["conditions"][0]["reason"], "ShortNamesConflict");
        assert_eq!(
            status["conditions"][0]["message"],
            "\"wd\" is already in use"
        );
        assert_eq!(status["conditions"][1]["reason"], "NotAccepted");

        // When the first is gone the second gets its names, and keeps nothing of the refusal.
        let mut second = second;
        second["status"] = status;
        let later = now + std::time::Duration::from_secs(60);
        let status = status_conditions(&second, [], later);
        assert_eq!(status["conditions"][1]["status"], "True");
        assert_eq!(
            status["conditions"][1]["lastTransitionTime"],
            "1970-01-01T00:01:00Z"
        );
        second["status"] = status.clone();
        assert_eq!(status_conditions(&second, [&second.clone()], later), status);
    }
}
