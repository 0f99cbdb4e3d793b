//! Events: of the core group as ever, of events.k8s.io strictly. Both are one kind to Kubernetes,
//! which names the fields in messages as the core group does.

use serde_json::Value;

use super::{
    errors::{Errors, show},
    names,
    value::{at, has, int, same, text},
};
use crate::path::Path;

const MOST: usize = 128;
const MOST_NOTE: usize = 1024;

/// An event, whose fields have other names in one group than in the other.
struct Event<'a> {
    object: &'a Value,
    core: bool,
}

impl<'a> Event<'a> {
    fn field(&self, core: &'static str) -> &'static str {
        if self.core {
            return match core {
                "reportingController" => "reportingComponent",
                other => other,
            };
        }
        match core {
            "involvedObject" => "regarding",
            "message" => "note",
            "source" => "deprecatedSource",
            "firstTimestamp" => "deprecatedFirstTimestamp",
            "lastTimestamp" => "deprecatedLastTimestamp",
            "count" => "deprecatedCount",
            other => other,
        }
    }

    fn at(&self, core: &'static str) -> &'a Value {
        at(self.object, self.field(core))
    }

    fn text(&self, core: &'static str) -> &'a str {
        self.at(core).as_str().unwrap_or("")
    }
}

/// `core` tells by which group an event came.
pub fn event(object: &Value, old: Option<&Value>, core: bool, e: &mut Errors) {
    let event = Event { object, core };
    lenient(&event, e);
    if core {
        return;
    }
    match old {
        None => strict(&event, e),
        Some(object) => update(&event, &Event { object, core }, e),
    }
}

/// What holds for all events: of old ones little, more of those that say when they happened.
fn lenient(event: &Event<'_>, e: &mut Errors) {
    let namespace = text(at(event.object, "metadata"), "namespace");
    let about = text(event.at("involvedObject"), "namespace");
    let involved = Path::new("involvedObject");
    let mut elsewhere = || {
        let path = involved.child("namespace");
        e.invalid_text(&path, about, "does not match event.namespace");
    };
    if event.text("eventTime").is_empty() {
        // What has no namespace is reported in the default one.
        let fits = match about {
            "" => matches!(namespace, "" | "default"),
            about => about == namespace,
        };
        if !fits {
            elsewhere();
        }
        return;
    }
    if about.is_empty() && !matches!(namespace, "default" | "kube-system") {
        elsewhere();
    }
    let controller = event.text("reportingController");
    let path = Path::new("reportingController");
    if controller.is_empty() {
        e.required(&path, "");
    }
    e.invalid_each(&path, controller, names::qualified_name(controller));
    for field in ["reportingInstance", "action", "reason"] {
        let path = Path::new(field);
        let value = event.text(field);
        if value.is_empty() {
            e.required(&path, "");
        }
        short(value, MOST, &path, e);
    }
    let note = event.text("message");
    short(note, MOST_NOTE, &Path::new("message"), e);
}

fn short(value: &str, most: usize, path: &Path<'_>, e: &mut Errors) {
    if value.len() > most {
        e.invalid_text(path, "", &format!("can have at most {most} characters"));
    }
}

/// A new event of events.k8s.io: what only old ones say is unset.
fn strict(event: &Event<'_>, e: &mut Errors) {
    series(event, e);
    if event.text("eventTime").is_empty() {
        e.required(&Path::new("eventTime"), "");
    }
    let kind = event.text("type");
    if !matches!(kind, "Normal" | "Warning") {
        let detail = format!("has invalid value: {kind}");
        e.invalid_text(&Path::new("type"), "", &detail);
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let value = event.at(field);
        let set = match field {
            "count" => value.as_i64().unwrap_or(0) != 0,
            "source" => ["component", "host"]
                .iter()
                .any(|f| !text(value, f).is_empty()),
            _ => has(event.object, event.field(field)),
        };
        if set {
            e.invalid_text(&Path::new(field), "", "needs to be unset");
        }
    }
}

fn series(event: &Event<'_>, e: &mut Errors) {
    let series = event.at("series");
    if series.is_null() {
        return;
    }
    let path = Path::new("series");
    if int(series, "count").unwrap_or(0) < 2 {
        e.invalid_text(&path.child("count"), "", "should be at least 2");
    }
    if text(series, "lastObservedTime").is_empty() {
        e.required(&path.child("lastObservedTime"), "");
    }
}

/// Of an event of events.k8s.io only the series goes on.
fn update(new: &Event<'_>, old: &Event<'_>, e: &mut Errors) {
    if !same(new.at("series"), old.at("series")) {
        series(new, e);
    }
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        // Kubernetes looks at this one twice.
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingController",
        "reportingInstance",
    ] {
        let (now, before) = (new.at(field), old.at(field));
        if !same(now, before) && !both_zero(now, before) {
            let path = Path::new(field);
            e.invalid_shown(&path, &show(now), "field is immutable");
        }
    }
}

/// Counters that are left out are zero, structures that are left out say nothing.
fn both_zero(a: &Value, b: &Value) -> bool {
    let zero = |v: &Value| match v {
        Value::Null => true,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::Object(o) => o.values().all(|v| v.as_str() == Some("")),
        _ => false,
    };
    zero(a) && zero(b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn left_out_is_zero() {
        assert!(both_zero(&json!(null), &json!(0)));
        assert!(both_zero(&json!({"component": ""}), &json!(null)));
        assert!(!both_zero(&json!(1), &json!(null)));
    }
}
