//! What the API server writes into a definition's status: which names it got and whether its
//! resources are served.

use base64::Engine;
use serde_json::{Map, Value, json};

/// The status of a definition, given the other definitions of the cluster: accepted names, the
/// conditions `NamesAccepted`, `Established` and, of Kubernetes' own groups,
/// `KubernetesAPIApprovalPolicyConformant`, and the stored versions, to which a new storage
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
        let trusted = !bad_bundle(crd);
        let (reason, message) = match (accepts, trusted) {
            (false, _) => ("NotAccepted", "not all names are accepted"),
            (true, false) => (
                "InvalidCABundle",
                "The conversion webhook CABundle is invalid",
            ),
            (true, true) => (
                "InitialNamesAccepted",
                "the initial names have been accepted",
            ),
        };
        let holds = accepts && trusted;
        set_condition(&mut out, "Established", holds, reason, message, now);
    }
    if let Some((approved, reason, message)) = approval(crd) {
        let kind = "KubernetesAPIApprovalPolicyConformant";
        set_condition(&mut out, kind, approved, reason, &message, now);
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

/// Whether a webhook is to be trusted by certificates that are none.
fn bad_bundle(crd: &Value) -> bool {
    let bundle = crd.pointer("/spec/conversion/webhook/clientConfig/caBundle");
    let Some(bundle) = bundle.and_then(Value::as_str).filter(|b| !b.is_empty()) else {
        return false;
    };
    let engine = base64::engine::general_purpose::STANDARD;
    let Ok(pem) = engine.decode(bundle) else {
        return true;
    };
    let pem = String::from_utf8_lossy(&pem);
    let mut blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    // A certificate is a sequence; what is in it shows when it is used.
    let certificate = |block: &str| {
        let (inside, _) = block.split_once("-----END CERTIFICATE-----")?;
        let inside: String = inside.split_whitespace().collect();
        let der = engine.decode(inside).ok()?;
        (der.first() == Some(&0x30)).then_some(())
    };
    let mut any = false;
    let sound = blocks.all(|block| {
        any = true;
        certificate(block).is_some()
    });
    !(any && sound)
}

/// What the annotation says of a definition in one of Kubernetes' own groups.
fn approval(crd: &Value) -> Option<(bool, &'static str, String)> {
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = crd.pointer("/spec/group")?.as_str()?;
    let within = |g: &str| {
        group
            .strip_suffix(g)
            .is_some_and(|r| r.is_empty() || r.ends_with('.'))
    };
    if !within("k8s.io") && !within("kubernetes.io") {
        return None;
    }
    let annotations = crd.pointer("/metadata/annotations");
    let said = annotations.and_then(|a| a.get(ANNOTATION)?.as_str());
    let said = said.unwrap_or_default();
    let url = said.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/')
    });
    Some(match said {
        "" => (
            false,
            "MissingAnnotation",
            format!("protected groups must have approval annotation {ANNOTATION:?}, {SEE}"),
        ),
        _ if said.starts_with("unapproved") => (
            false,
            "UnapprovedAnnotation",
            format!("not approved: {said:?}"),
        ),
        _ if url => (true, "ApprovedAnnotation", format!("approved in {said}")),
        _ => (
            false,
            "InvalidAnnotation",
            format!(
                "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", {SEE}"
            ),
        ),
    })
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
    fn kubernetes_own_groups_say_who_approved() {
        for (group, said, expected) in [
            ("example.com", "", None),
            ("notk8s.io", "", None),
            ("k8s.io", "", Some((false, "MissingAnnotation"))),
            (
                "x.k8s.io",
                "unapproved, a test",
                Some((false, "UnapprovedAnnotation")),
            ),
            (
                "x.kubernetes.io",
                "https://a.b/1",
                Some((true, "ApprovedAnnotation")),
            ),
            ("x.k8s.io", "me", Some((false, "InvalidAnnotation"))),
        ] {
            let annotations = json!({"api-approved.kubernetes.io": said});
            let crd = json!({"metadata": {"annotations": annotations}, "spec": {"group": group}});
            let found = approval(&crd).map(|(holds, reason, _)| (holds, reason));
            assert_eq!(found, expected, "{group} {said}");
        }
    }

    #[test]
    fn a_webhook_is_trusted_by_certificates_or_by_none_given() {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let pem = |inside: &str| {
            encode(&format!(
                "-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----\n"
            ))
        };
        for (bundle, bad) in [
            (String::new(), false),
            (pem("MAA="), false),
            (pem("AAAA"), true),
            (encode("\n"), true),
            ("???".to_owned(), true),
        ] {
            let config = json!({"clientConfig": {"caBundle": bundle}});
            let crd = json!({"spec": {"conversion": {"webhook": config}}});
            assert_eq!(bad_bundle(&crd), bad, "{bundle}");
        }
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
