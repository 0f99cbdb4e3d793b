//! Between versions: the few built-in kinds that are served in a version they are not stored in,
//! and custom resources, whose versions differ in their apiVersion alone (strategy `None`) or are
//! converted by a webhook.

use std::sync::Arc;

use gantry_machinery::{resource::Resource, status::Failure};
use serde_json::{Map, Value, json};

use crate::{api::Api, object, registry::Entry, rules, webhook::conversion};

/// From the version of a request to that of the store.
pub async fn to_storage(api: &Api, entry: &Entry, object: Value) -> Result<Value, Failure> {
    between(api, object, &entry.resource, &entry.storage).await
}

/// From the version of the store to that of a request.
pub async fn from_storage(
    api: &Api,
    entry: &Entry,
    objects: Vec<Value>,
) -> Result<Vec<Value>, Failure> {
    if entry.resource.custom.is_some() {
        let mut objects = objects;
        // Defaults are those of the version an object was stored in, as it may have gained some since.
        let registry = api.registry.read().clone();
        for object in &mut objects {
            let version = object::text(object, "/apiVersion");
            let mut all = registry.sharing(&entry.bucket).iter();
            let own = all.find(|e| e.resource.api_version() == version);
            let own = own.map_or(&entry.storage, |e| &e.resource).clone();
            rules::fill_in(&own, object);
        }
        let mut objects = hooked(api, &entry.resource, objects).await?;
        for object in &mut objects {
            rename_version(object, &entry.resource);
            rules::prune(&entry.resource, object);
        }
        return Ok(objects);
    }
    let all = objects.into_iter();
    Ok(all
        .map(|object| convert(object, &entry.storage, &entry.resource))
        .collect())
}

/// From one version of a resource to another.
pub async fn between(
    api: &Api,
    object: Value,
    from: &Arc<Resource>,
    to: &Arc<Resource>,
) -> Result<Value, Failure> {
    if Arc::ptr_eq(from, to) {
        return Ok(object);
    }
    if to.custom.is_none() {
        return Ok(convert(object, from, to));
    }
    let mut converted = customs(api, to, vec![object]).await?;
    converted
        .pop()
        .ok_or_else(|| crate::errors::internal("a conversion without an outcome"))
}

/// Whether a webhook converts between the versions of a resource.
pub fn by_webhook(resource: &Resource) -> bool {
    let custom = resource.custom.as_ref();
    custom.is_some_and(|c| c.conversion.is_some())
}

/// From one version of a resource to another, where no webhook does it.
pub fn plainly(mut object: Value, from: &Resource, to: &Resource) -> Value {
    if to.custom.is_none() {
        return convert(object, from, to);
    }
    adopt(&mut object, to);
    object
}

fn rename_version(object: &mut Value, to: &Resource) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), to.api_version().into());
    }
}

/// Makes a custom resource, converted or not, one of that version.
fn adopt(object: &mut Value, to: &Resource) {
    rename_version(object, to);
    rules::prune(to, object);
    rules::fill_in(to, object);
}

/// Custom resources in the version of one. An object is converted from the version that it says
/// it has: definitions may change the version they store, and old objects stay as they are.
async fn customs(api: &Api, to: &Resource, objects: Vec<Value>) -> Result<Vec<Value>, Failure> {
    let mut objects = hooked(api, to, objects).await?;
    for object in &mut objects {
        adopt(object, to);
    }
    Ok(objects)
}

/// What the webhook of a definition, if it has one, makes of its objects.
async fn hooked(api: &Api, to: &Resource, objects: Vec<Value>) -> Result<Vec<Value>, Failure> {
    let hook = to.custom.as_ref().and_then(|c| c.conversion.as_ref());
    match hook {
        Some(hook) => conversion::convert(&api.callers, hook, &to.api_version(), objects).await,
        None => Ok(objects),
    }
}

fn convert(mut object: Value, from: &Resource, to: &Resource) -> Value {
    match (
        from.group.as_str(),
        from.version.as_str(),
        to.version.as_str(),
        from.kind.as_str(),
    ) {
        ("", _, _, "Event") if to.group == "events.k8s.io" => rename(&mut object, false),
        ("events.k8s.io", _, _, "Event") if to.group.is_empty() => rename(&mut object, true),
        ("autoscaling", "v2", "v1", _) => autoscaler_down(&mut object),
        ("autoscaling", "v1", "v2", _) => autoscaler_up(&mut object),
        _ => {}
    }
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), to.api_version().into());
        map.insert("kind".to_owned(), to.kind.clone().into());
    }
    rules::prune(to, &mut object);
    object
}

/// Core name, events.k8s.io name.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(object: &mut Value, to_core: bool) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for (core, events) in EVENT_FIELDS {
        let (from, to) = if to_core {
            (events, core)
        } else {
            (core, events)
        };
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    if !to_core {
        // Empty strings that only the core kind writes.
        for field in ["reportingController", "reportingInstance", "note"] {
            if map.get(field).and_then(Value::as_str) == Some("") {
                map.remove(field);
            }
        }
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu_utilization(metric: &Value) -> bool {
    object::text(metric, "/type") == "Resource"
        && object::text(metric, "/resource/name") == "cpu"
        && object::text(metric, "/resource/target/type") == "Utilization"
}

/// v1 knows CPU utilization alone; the rest goes to annotations, as Kubernetes does it.
fn autoscaler_down(object: &mut Value) {
    let mut notes = vec![];
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(Value::Array(metrics)) = spec.remove("metrics") {
            let (cpu, others): (Vec<Value>, Vec<Value>) =
                metrics.into_iter().partition(is_cpu_utilization);
            if let Some(percent) = cpu
                .first()
                .and_then(|m| m.pointer("/resource/target/averageUtilization"))
            {
                spec.insert("targetCPUUtilizationPercentage".to_owned(), percent.clone());
            }
            if !others.is_empty() {
                notes.push((
                    METRICS,
                    json!(others.iter().map(metric_down).collect::<Vec<_>>()),
                ));
            }
        }
        if let Some(behavior) = spec.remove("behavior") {
            notes.push((BEHAVIOR, behavior_down(&behavior)));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        if !status.contains_key("currentReplicas") {
            status.insert("currentReplicas".to_owned(), 0.into());
        }
        match status.remove("currentMetrics") {
            Some(Value::Array(current)) if !current.is_empty() => {
                notes.push((CURRENT, Value::Array(current)));
            }
            _ => {}
        }
        if let Some(conditions) = status.remove("conditions") {
            notes.push((CONDITIONS, conditions));
        }
    }
    if notes.is_empty() {
        return;
    }
    if let Some(meta) = object::meta_mut(object) {
        let all = meta.entry("annotations").or_insert_with(|| json!({}));
        if let Some(all) = all.as_object_mut() {
            for (name, value) in notes {
                all.insert(name.to_owned(), in_go_order(&value).into());
            }
        }
    }
}

/// Go writes a struct's fields in the order of their declaration, and clients see the text: this
/// order serves all the types that end up in the annotations.
const GO_ORDER: [&str; 34] = [
    "type",
    "status",
    "lastTransitionTime",
    "reason",
    "message",
    "object",
    "pods",
    "resource",
    "containerResource",
    "external",
    "target",
    "kind",
    "name",
    "apiVersion",
    "metricName",
    "metricSelector",
    "targetValue",
    "targetAverageUtilization",
    "targetAverageValue",
    "currentValue",
    "currentAverageUtilization",
    "currentAverageValue",
    "selector",
    "averageValue",
    "container",
    "ScaleUp",
    "ScaleDown",
    "StabilizationWindowSeconds",
    "SelectPolicy",
    "Policies",
    "Type",
    "Value",
    "PeriodSeconds",
    "Tolerance",
];

/// JSON with the fields of objects in [`GO_ORDER`], others after them by name.
fn in_go_order(value: &Value) -> String {
    let place = |name: &str| {
        GO_ORDER
            .iter()
            .position(|n| *n == name)
            .unwrap_or(GO_ORDER.len())
    };
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(name, _)| (place(name), *name));
            let fields: Vec<_> = fields
                .into_iter()
                .map(|(name, value)| {
                    format!("{}:{}", Value::from(name.as_str()), in_go_order(value))
                })
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(in_go_order).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}

/// A behavior as Go writes the internal type, whose fields have no tags and are never left out.
fn behavior_down(behavior: &Value) -> Value {
    let mut all = go_names(behavior);
    for rules in ["ScaleUp", "ScaleDown"] {
        if let Some(rules) = all.get_mut(rules).and_then(Value::as_object_mut) {
            for field in [
                "StabilizationWindowSeconds",
                "SelectPolicy",
                "Policies",
                "Tolerance",
            ] {
                rules.entry(field).or_insert(Value::Null);
            }
        } else if let Some(all) = all.as_object_mut() {
            all.insert(rules.to_owned(), Value::Null);
        }
    }
    all
}

/// What [`behavior_down`] wrote, without what was not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k, without_nulls(v)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

/// The form of a metric in the annotation: that of `autoscaling/v2beta1`.
fn metric_down(metric: &Value) -> Value {
    let kind = object::text(metric, "/type").to_owned();
    let field = match kind.as_str() {
        "Resource" => "resource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => "containerResource",
    };
    let source = metric.get(field).cloned().unwrap_or_default();
    let mut out = Map::new();
    if let Some(name) = source.get("name") {
        out.insert("name".to_owned(), name.clone());
    }
    let selector = match kind.as_str() {
        "External" => "metricSelector",
        _ => "selector",
    };
    for (from, to) in [
        ("/metric/name", "metricName"),
        ("/metric/selector", selector),
        ("/describedObject", "target"),
        ("/container", "container"),
    ] {
        if let Some(value) = source.pointer(from) {
            out.insert(to.to_owned(), value.clone());
        }
    }
    let average = average_of(&kind);
    for (from, to) in [
        ("averageUtilization", "targetAverageUtilization"),
        ("averageValue", average),
        ("value", "targetValue"),
    ] {
        if let Some(value) = source.pointer(&format!("/target/{from}")) {
            out.insert(to.to_owned(), value.clone());
        }
    }
    json!({"type": kind, field: out})
}

/// What the average wished for is called in a source of this kind.
fn average_of(kind: &str) -> &'static str {
    match kind {
        "Object" => "averageValue",
        _ => "targetAverageValue",
    }
}

/// Field names as Go's encoder writes a struct without tags: upper case first.
fn go_names(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| {
                let mut letters = k.chars();
                let name: String = letters
                    .next()
                    .map(|c| c.to_ascii_uppercase())
                    .into_iter()
                    .chain(letters)
                    .collect();
                (name, go_names(v))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(go_names).collect(),
        other => other.clone(),
    }
}

fn json_names(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| {
                let mut letters = k.chars();
                let name: String = letters
                    .next()
                    .map(|c| c.to_ascii_lowercase())
                    .into_iter()
                    .chain(letters)
                    .collect();
                (name, json_names(v))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(json_names).collect(),
        other => other.clone(),
    }
}

fn metric_up(metric: &Value) -> Value {
    let kind_of_metric = object::text(metric, "/type").to_owned();
    let field = match kind_of_metric.as_str() {
        "Resource" => "resource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => "containerResource",
    };
    let source = metric.get(field).cloned().unwrap_or_default();
    let mut out = Map::new();
    if let Some(name) = source.get("name") {
        out.insert("name".to_owned(), name.clone());
    }
    if let Some(name) = source.get("metricName") {
        let mut metric = json!({"name": name});
        if let Some(selector) = source.get("selector").or(source.get("metricSelector")) {
            metric["selector"] = selector.clone();
        }
        out.insert("metric".to_owned(), metric);
    }
    for (from, to) in [("target", "describedObject"), ("container", "container")] {
        if let Some(value) = source.get(from) {
            out.insert(to.to_owned(), value.clone());
        }
    }
    let mut target = Map::new();
    for (from, to, kind) in [
        (
            "targetAverageUtilization",
            "averageUtilization",
            "Utilization",
        ),
        (average_of(&kind_of_metric), "averageValue", "AverageValue"),
        ("targetValue", "value", "Value"),
    ] {
        if let Some(value) = source.get(from) {
            target.insert("type".to_owned(), kind.into());
            target.insert(to.to_owned(), value.clone());
        }
    }
    out.insert("target".to_owned(), target.into());
    json!({"type": kind_of_metric, field: out})
}

fn autoscaler_up(object: &mut Value) {
    let mut take = |name: &str| -> Option<Value> {
        let meta = object::meta_mut(object)?;
        let notes = meta.get_mut("annotations")?.as_object_mut()?;
        let text = notes.remove(name)?;
        if notes.is_empty() {
            meta.remove("annotations");
        }
        serde_json::from_str(text.as_str()?).ok()
    };
    let (others, behavior) = (take(METRICS), take(BEHAVIOR));
    let (current, conditions) = (take(CURRENT), take(CONDITIONS));
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics: Vec<Value> = match others {
            Some(Value::Array(list)) => list.iter().map(metric_up).collect(),
            _ => vec![],
        };
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            metrics.push(json!({"type": "Resource", "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent},
            }}));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), metrics.into());
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), without_nulls(json_names(&behavior)));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("currentMetrics".to_owned(), current.unwrap_or(Value::Null));
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
}

/// An object of a kind with nothing in it, as Go writes one: required parts are there, empty.
pub fn zero(resource: &Resource) -> Value {
    let mut object = json!({});
    if resource.custom.is_some() {
        return object;
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("batch", "Job") => {
            object["spec"] = json!({"template": {"metadata": {}, "spec": {"containers": null}}});
        }
        ("", "Pod") => object["spec"] = json!({"containers": null}),
        _ => {
            if resource.schema().field("spec").is_some() {
                object["spec"] = json!({});
            }
        }
    }
    if resource.subresource("status").is_some() {
        object["status"] = json!({});
    }
    object
}

#[cfg(test)]
mod tests {
    use gantry_machinery::resource::builtin_resources;

    use super::*;

    fn resource(group: &str, version: &str, kind: &str) -> &'static Resource {
        builtin_resources()
            .iter()
            .find(|r| r.group == group && r.version == version && r.kind == kind)
            .expect("built in")
    }

    #[test]
    fn an_autoscaler_survives_the_way_down_and_up() {
        let (v1, v2) = (
            resource("autoscaling", "v1", "HorizontalPodAutoscaler"),
            resource("autoscaling", "v2", "HorizontalPodAutoscaler"),
        );
        let object = json!({
            "kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": {},
            "spec": {"maxReplicas": 3, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu",
                 "target": {"type": "Utilization", "averageUtilization": 80}}}]},
        });
        let down = convert(object.clone(), v2, v1);
        assert_eq!(down["spec"]["targetCPUUtilizationPercentage"], 80);
        assert_eq!(down["apiVersion"], "autoscaling/v1");
        assert_eq!(convert(down, v1, v2)["spec"], object["spec"]);

        let selector = json!({"matchLabels": {"a": "b"}});
        let average = json!({"type": "AverageValue", "averageValue": "5"});
        let object = json!({
            "kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": {},
            "spec": {"maxReplicas": 3,
                "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 9}]}},
                "metrics": [
                    {"type": "Object", "object": {"metric": {"name": "m", "selector": selector},
                     "describedObject": {"kind": "Service", "name": "s"}, "target": average}},
                    {"type": "External", "external": {"metric": {"name": "m", "selector": selector},
                     "target": {"type": "Value", "value": "1"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                     "target": {"type": "Utilization", "averageUtilization": 50}}}]},
        });
        let down = convert(object.clone(), v2, v1);
        assert_eq!(
            down["metadata"]["annotations"][BEHAVIOR],
            "{\"ScaleUp\":{\"StabilizationWindowSeconds\":null,\"SelectPolicy\":null,\"Policies\":[{\"Type\":\"Pods\",\"Value\":1,\"PeriodSeconds\":9}],\"Tolerance\":null},\"ScaleDown\":null}"
        );
        assert_eq!(convert(down, v1, v2)["spec"], object["spec"]);
    }

    #[test]
    fn events_change_their_names() {
        let (core, events) = (
            resource("", "v1", "Event"),
            resource("events.k8s.io", "v1", "Event"),
        );
        let object = json!({"kind": "Event", "apiVersion": "v1", "metadata": {},
            "involvedObject": {"name": "p"}, "message": "m", "count": 2});
        let there = convert(object.clone(), core, events);
        assert_eq!(there["regarding"]["name"], "p");
        assert_eq!(there["deprecatedCount"], 2);
        assert_eq!(convert(there, events, core), object);
    }
}
