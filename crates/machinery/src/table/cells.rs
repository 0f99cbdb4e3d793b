//! Cells that many kinds share, and the rows of kinds that need little more.

use jiff::Timestamp;
use serde_json::Value;

use super::{Row, age, metadata};
use crate::{
    quantity::Quantity,
    validation::value::{at, down, entries, list, text},
};

pub fn name(object: &Value) -> Value {
    text(metadata(object), "name").into()
}

/// When the object was created, as it stands in it.
pub fn created(object: &Value) -> Value {
    at(metadata(object), "creationTimestamp").clone()
}

/// The age of the object.
pub fn old(object: &Value, now: Timestamp) -> Value {
    since(text(metadata(object), "creationTimestamp"), now).into()
}

/// The time since a recorded one.
pub fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(at) => age(at, now),
        Err(_) => "<unknown>".into(),
    }
}

pub fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// `a=1,b=2`, or `<none>`.
pub fn labels(object: &Value, name: &str) -> String {
    let all: Vec<String> = entries(object, name)
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    or(&all.join(","), "<none>").to_owned()
}

/// A label selector as one prints it; empty selects nothing in particular: `<none>`.
pub fn selector(selector: &Value) -> String {
    let mut parts: Vec<String> = entries(selector, "matchLabels")
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    for requirement in list(selector, "matchExpressions") {
        let key = text(requirement, "key");
        let mut values: Vec<&str> = list(requirement, "values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match text(requirement, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    or(&parts.join(","), "<none>").to_owned()
}

pub fn containers(pod_spec: &Value) -> (Value, Value) {
    let join = |field: &str| {
        let all: Vec<&str> = list(pod_spec, "containers")
            .iter()
            .map(|c| text(c, field))
            .collect();
        Value::from(all.join(","))
    };
    (join("name"), join("image"))
}

pub fn number(object: &Value, path: &[&str]) -> Value {
    down(object, path).as_i64().unwrap_or(0).into()
}

fn size(object: &Value, field: &str) -> i64 {
    at(object, field).as_object().map_or(0, |m| m.len() as i64)
}

pub fn config_map(o: &Value, now: Timestamp) -> Vec<Value> {
    let count = size(o, "data") + size(o, "binaryData");
    vec![name(o), count.into(), old(o, now)]
}

pub fn secret(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(o),
        text(o, "type").into(),
        size(o, "data").into(),
        old(o, now),
    ]
}

pub fn namespace(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), text(at(o, "status"), "phase").into(), old(o, now)]
}

pub fn service_account(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), old(o, now)]
}

pub fn event(o: &Value, now: Timestamp) -> Vec<Value> {
    // Events of events.k8s.io have the same facts under other names.
    let pick = |a: &str, b: &str| or(text(o, a), text(o, b)).to_owned();
    let (first, last) = (
        pick("firstTimestamp", "deprecatedFirstTimestamp"),
        pick("lastTimestamp", "deprecatedLastTimestamp"),
    );
    let event_time = text(o, "eventTime");
    let ago = |time: &str| {
        if time.is_empty() {
            "<unknown>".to_owned()
        } else {
            since(time, now)
        }
    };
    let first_seen = ago(or(&first, event_time));
    let series = at(o, "series");
    let count = match (
        at(series, "count").as_i64(),
        at(o, "count")
            .as_i64()
            .or(at(o, "deprecatedCount").as_i64()),
    ) {
        (Some(n), _) => n,
        (None, Some(n)) => n,
        (None, None) => i64::from(!event_time.is_empty()),
    };
    let last_seen = match text(series, "lastObservedTime") {
        "" if last.is_empty() => first_seen.clone(),
        "" => ago(&last),
        observed => ago(observed),
    };
    let about = match at(o, "involvedObject") {
        Value::Null => at(o, "regarding"),
        about => about,
    };
    let kind = text(about, "kind").to_lowercase();
    let target = match (kind.as_str(), text(about, "name")) {
        ("", name) => name.to_owned(),
        (kind, "") => kind.to_owned(),
        (kind, name) => format!("{kind}/{name}"),
    };
    let source = match at(o, "source") {
        Value::Null => at(o, "deprecatedSource"),
        source => source,
    };
    let component = or(
        text(source, "component"),
        or(
            text(o, "reportingComponent"),
            text(o, "reportingController"),
        ),
    );
    let host = or(text(source, "host"), text(o, "reportingInstance"));
    let from = if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    };
    vec![
        last_seen.into(),
        text(o, "type").into(),
        text(o, "reason").into(),
        target.into(),
        text(about, "fieldPath").into(),
        from.into(),
        or(text(o, "message"), text(o, "note")).trim().into(),
        first_seen.into(),
        count.into(),
        name(o),
    ]
}

pub fn resource_quota(o: &Value, now: Timestamp) -> Vec<Value> {
    let used = down(o, &["status", "used"]);
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in entries(at(o, "status"), "hard") {
        let used = or(text(used, resource), "0").to_owned();
        let line = format!("{resource}: {used}/{}", hard.as_str().unwrap_or(""));
        if resource.starts_with("limits") {
            limits.push(line);
        } else {
            requests.push(line);
        }
    }
    vec![
        name(o),
        requests.join(", ").into(),
        limits.join(", ").into(),
        old(o, now),
    ]
}

pub fn component_status(o: &Value, _: Timestamp) -> Vec<Value> {
    let healthy = list(o, "conditions")
        .iter()
        .find(|c| text(c, "type") == "Healthy");
    let healthy = healthy.unwrap_or(&Value::Null);
    let status = match text(healthy, "status") {
        "True" => "Healthy",
        "False" => "Unhealthy",
        _ => "Unknown",
    };
    vec![
        name(o),
        status.into(),
        text(healthy, "message").into(),
        text(healthy, "error").into(),
    ]
}

pub fn role(o: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(o), created(o)]
}

pub fn binding(o: &Value, now: Timestamp) -> Vec<Value> {
    let reference = at(o, "roleRef");
    let subjects = |kind: &str| {
        let names: Vec<String> = list(o, "subjects")
            .iter()
            .filter(|s| text(s, "kind") == kind)
            .map(|s| match (kind, text(s, "namespace")) {
                ("ServiceAccount", namespace) => format!("{namespace}/{}", text(s, "name")),
                _ => text(s, "name").to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        name(o),
        format!("{}/{}", text(reference, "kind"), text(reference, "name")).into(),
        old(o, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub fn priority_class(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(o),
        number(o, &["value"]),
        at(o, "globalDefault").as_bool().unwrap_or(false).into(),
        old(o, now),
        text(o, "preemptionPolicy").into(),
    ]
}

pub fn runtime_class(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), text(o, "handler").into(), old(o, now)]
}

pub fn lease(o: &Value, now: Timestamp) -> Vec<Value> {
    let holder = text(at(o, "spec"), "holderIdentity");
    vec![name(o), holder.into(), old(o, now)]
}

/// The kinds of admissionregistration.k8s.io.
pub fn admission(plural: &str) -> Option<Row> {
    fn webhooks(o: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(o), list(o, "webhooks").len().into(), old(o, now)]
    }
    fn param_kind(o: &Value) -> Value {
        let kind = down(o, &["spec", "paramKind"]);
        match text(kind, "kind") {
            "" => "<unset>".into(),
            k => format!("{}/{k}", text(kind, "apiVersion")).into(),
        }
    }
    fn validations(o: &Value, now: Timestamp) -> Vec<Value> {
        let count = list(at(o, "spec"), "validations").len();
        vec![name(o), count.into(), param_kind(o), old(o, now)]
    }
    fn mutations(o: &Value, now: Timestamp) -> Vec<Value> {
        let count = list(at(o, "spec"), "mutations").len();
        vec![name(o), count.into(), param_kind(o), old(o, now)]
    }
    fn policy_binding(o: &Value, now: Timestamp) -> Vec<Value> {
        let spec = at(o, "spec");
        let reference = at(spec, "paramRef");
        let reference = match (text(reference, "namespace"), text(reference, "name")) {
            _ if reference.is_null() => "<unset>".to_owned(),
            ("", name) => or(name, "*").to_owned(),
            (namespace, name) => format!("{namespace}/{}", or(name, "*")),
        };
        vec![
            name(o),
            text(spec, "policyName").into(),
            reference.into(),
            old(o, now),
        ]
    }
    Some(match plural {
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => webhooks,
        "validatingadmissionpolicies" => validations,
        "mutatingadmissionpolicies" => mutations,
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => policy_binding,
        _ => return None,
    })
}

pub fn signing_request(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(o, "spec");
    let duration = at(spec, "expirationSeconds")
        .as_i64()
        .map_or("<none>".to_owned(), super::human_duration);
    let (mut state, mut failed) = (String::new(), false);
    for condition in list(at(o, "status"), "conditions") {
        match text(condition, "type") {
            decided @ ("Approved" | "Denied") => state = decided.to_owned(),
            "Failed" => failed = true,
            _ => {}
        }
    }
    let mut state = or(&state, "Pending").to_owned();
    if failed {
        state.push_str(",Failed");
    }
    if !text(at(o, "status"), "certificate").is_empty() {
        state.push_str(",Issued");
    }
    vec![
        name(o),
        old(o, now),
        or(text(spec, "signerName"), "<none>").into(),
        text(spec, "username").into(),
        duration.into(),
        state.into(),
    ]
}

pub fn flow_schema(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(o, "spec");
    let dangling = list(at(o, "status"), "conditions")
        .iter()
        .find(|c| text(c, "type") == "Dangling")
        .map_or("?", |c| text(c, "status"));
    vec![
        name(o),
        or(
            text(at(spec, "priorityLevelConfiguration"), "name"),
            "<none>",
        )
        .into(),
        number(spec, &["matchingPrecedence"]),
        or(text(at(spec, "distinguisherMethod"), "type"), "<none>").into(),
        old(o, now),
        dangling.into(),
    ]
}

pub fn priority_level(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(o, "spec");
    let limited = at(spec, "limited");
    let queuing = down(limited, &["limitResponse", "queuing"]);
    let shown = |v: &Value| match v.as_i64() {
        Some(n) => Value::from(n),
        None => "<none>".into(),
    };
    let shares = match at(limited, "nominalConcurrencyShares") {
        Value::Null => down(spec, &["exempt", "nominalConcurrencyShares"]),
        shares => shares,
    };
    vec![
        name(o),
        text(spec, "type").into(),
        shown(shares),
        shown(at(queuing, "queues")),
        shown(at(queuing, "handSize")),
        shown(at(queuing, "queueLengthLimit")),
        old(o, now),
    ]
}

pub fn definition(o: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(o), created(o)]
}

pub fn api_service(o: &Value, now: Timestamp) -> Vec<Value> {
    let service = down(o, &["spec", "service"]);
    let at_service = match service {
        Value::Null => "Local".to_owned(),
        s => format!("{}/{}", text(s, "namespace"), text(s, "name")),
    };
    let available = list(at(o, "status"), "conditions")
        .iter()
        .find(|c| text(c, "type") == "Available");
    let available = match available {
        None => "Unknown".to_owned(),
        Some(c) if text(c, "status") == "True" => "True".to_owned(),
        Some(c) => format!("{} ({})", text(c, "status"), text(c, "reason")),
    };
    vec![name(o), at_service.into(), available.into(), old(o, now)]
}

/// A quantity as it stands, `0` where there is none.
pub fn quantity(value: &Value) -> String {
    match value.as_str().map(Quantity::parse) {
        Some(Ok(q)) => q.to_string(),
        _ => "0".into(),
    }
}
