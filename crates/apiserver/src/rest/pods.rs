//! What only pods have: binding, ephemeral containers, resize.

use bytes::Bytes;
use gantry_machinery::path::At as _;
use gantry_machinery::{
    status::{Details, Failure},
    validation::dns1123_subdomain,
};
use serde_json::{Map, Value, json};

use super::{
    input,
    update::{self, Change, Track},
};
use crate::{
    admission::{asking::ask, attributes::Operation},
    api::Cx,
    errors, object,
    respond::{self, Reply},
    sealed::Reach,
};

fn conflict(name: &str, why: &str) -> Failure {
    Failure::new(
        409,
        "Conflict",
        format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}"),
    )
    .with_details(Details {
        name: name.to_owned(),
        kind: "pods/binding".to_owned(),
        ..Details::default()
    })
}

/// POST of a Binding, to the pod's subresource or to the old `bindings` resource.
pub async fn bind(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    input::options(cx, "CreateOptions")?;
    let mut binding = input::plain(cx, &body)?;
    input::of_kind(&binding, "Binding", &["v1"])?;
    let given = object::name(&binding).to_owned();
    if cx.entry.is("", "bindings") {
        cx.target.name.clone_from(&given);
        ask(cx, Operation::Create, "", &mut binding).await?;
        let registry = cx.api.registry.read().clone();
        if let Some(pods) = registry.lookup("", "v1", "pods") {
            cx.entry = pods.clone();
        }
    } else if !given.is_empty() && given != cx.target.name {
        return Err(errors::bad_request(
            "name in URL does not match name in Binding object",
        ));
    } else {
        ask(cx, Operation::Create, "binding", &mut binding).await?;
    }
    let kind = object::text(&binding, "/target/kind");
    if !matches!(kind, "" | "Node") {
        return Err(errors::plain_internal(format!(
            "target.kind: Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""
        )));
    }
    crate::admission::binding(cx, &mut binding);
    let node = object::text(&binding, "/target/name").to_owned();
    if node.is_empty() {
        return Err(errors::plain_internal("target.name: Required value"));
    }
    let uid = object::meta_text(&binding, "uid").to_owned();
    let now = object::time(cx.now);
    let change = Change {
        subresource: "binding".to_owned(),
        track: Track::Nobody,
        given: None,
        retries: 16,
    };
    let reach = match update::labels_hold(object::meta(&binding))
        && dns1123_subdomain(&node).is_empty()
        && object::meta(&binding).is_none_or(|meta| !meta.contains_key("annotations"))
    {
        true => Reach::Lifecycle,
        // What the pod becomes is validated like any other.
        false => Reach::Whole,
    };
    update::modify_within(cx, change, reach, |cx, old| {
        let name = &cx.target.name;
        if !uid.is_empty() && object::meta_text(old, "uid") != uid {
            return Err(conflict(
                name,
                "the UID of the Binding does not match that of the pod",
            ));
        }
        if object::deleting(old) {
            return Err(conflict(
                name,
                &format!("pod {name} is being deleted, cannot be assigned to a host"),
            ));
        }
        let bound = object::text(old, "/spec/nodeName");
        if !bound.is_empty() {
            return Err(conflict(
                name,
                &format!("pod {name} is already assigned to node \"{bound}\""),
            ));
        }
        let gates = old.at("/spec/schedulingGates").and_then(Value::as_array);
        if gates.is_some_and(|g| !g.is_empty()) {
            return Err(conflict(
                name,
                &format!("pod {name} has non-empty .spec.schedulingGates"),
            ));
        }
        let mut new = old.clone();
        for part in ["annotations", "labels"] {
            let added = object::meta(&binding)
                .and_then(|m| m.get(part))
                .and_then(Value::as_object);
            if let (Some(added), Some(meta)) = (added, object::meta_mut(&mut new)) {
                let all = meta.entry(part).or_insert_with(|| json!({}));
                if let Some(all) = all.as_object_mut() {
                    all.extend(added.clone());
                }
            }
        }
        if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("nodeName".to_owned(), node.clone().into());
        }
        scheduled(&mut new, &now);
        // Where it might have gone is of no interest once it is bound.
        if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut) {
            status.remove("nominatedNodeName");
        }
        Ok(new)
    })
    .await?;
    success(cx)
}

/// `Status: Success` with code 201.
pub fn success(cx: &Cx) -> Result<Reply, Failure> {
    respond::status(
        cx,
        201,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201
        }),
    )
}

/// Sets the condition PodScheduled to True.
fn scheduled(pod: &mut Value, now: &str) {
    let Some(pod) = pod.as_object_mut() else {
        return;
    };
    let status = pod.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else {
        return;
    };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": now,
    });
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    match conditions
        .iter_mut()
        .find(|c| object::text(c, "/type") == "PodScheduled")
    {
        Some(there) => *there = condition,
        None => conditions.push(condition),
    }
}

/// What of a pod the subresources `ephemeralcontainers` and `resize` may change.
pub fn keep_for(sub: &str, old: &Value, new: &mut Value) {
    let mut kept = old.clone();
    let get = |v: &Value, f: &str| v.at(f).cloned();
    if sub == "ephemeralcontainers" {
        let added = get(new, "/spec/ephemeralContainers");
        if let Some(spec) = kept.get_mut("spec").and_then(Value::as_object_mut) {
            match added {
                Some(list) => {
                    spec.insert("ephemeralContainers".to_owned(), list);
                }
                None => {
                    spec.remove("ephemeralContainers");
                }
            }
        }
    } else if resized(old, new, &mut kept) {
        // Containers came or went: it is for validation to say so.
        return;
    }
    // Metadata but managedFields stays as it was.
    *new = kept;
}

/// Takes over what a resize may change; tells whether it cannot, because there are other
/// containers.
fn resized(old: &Value, new: &Value, kept: &mut Value) -> bool {
    let list = |pod: &Value, field: &str| {
        let all = pod.at(&format!("/spec/{field}"));
        all.and_then(Value::as_array).cloned().unwrap_or_default()
    };
    const LISTS: [&str; 2] = ["containers", "initContainers"];
    if LISTS
        .iter()
        .any(|field| list(old, field).len() != list(new, field).len())
    {
        return true;
    }
    let Some(spec) = kept.get_mut("spec").and_then(Value::as_object_mut) else {
        return true;
    };
    let copy = |from: &Value, field: &str, to: &mut Map<String, Value>| match from.get(field) {
        Some(value) => {
            to.insert(field.to_owned(), value.clone());
        }
        None => {
            to.remove(field);
        }
    };
    if let Some(whole) = new.get("spec") {
        copy(whole, "resources", spec);
    }
    for field in LISTS {
        let wanted = list(new, field);
        let Some(there) = spec.get_mut(field).and_then(Value::as_array_mut) else {
            continue;
        };
        let name = |c: &Value| object::text(c, "/name").to_owned();
        if there.iter().map(name).ne(wanted.iter().map(name)) {
            // Another order, other names: that too is said by validation.
            *there = wanted;
            continue;
        }
        for (container, wanted) in there.iter_mut().zip(&wanted) {
            if let Some(container) = container.as_object_mut() {
                copy(wanted, "resources", container);
                copy(wanted, "resizePolicy", container);
            }
        }
    }
    false
}

/// The options of a connection, from the query.
fn connection(cx: &Cx, sub: &str) -> Value {
    let kind = cx.resource().subresource(sub).map_or("", |s| &s.kind);
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    match sub {
        "proxy" => {
            if !cx.target.rest.is_empty() {
                options["path"] = cx.target.rest.clone().into();
            }
        }
        "portforward" => {
            let ports = cx.query.all("ports").flat_map(|p| p.split(','));
            let ports: Vec<u16> = ports.filter_map(|p| p.parse().ok()).collect();
            if !ports.is_empty() {
                options["ports"] = json!(ports);
            }
        }
        _ => {
            for flag in ["stdin", "stdout", "stderr", "tty"] {
                if cx.query.flag(flag) {
                    options[flag] = true.into();
                }
            }
            let container = cx.query.text("container");
            if !container.is_empty() {
                options["container"] = container.into();
            }
            let command: Vec<&str> = cx.query.all("command").collect();
            if sub == "exec" {
                options["command"] = json!(command);
            }
        }
    }
    options
}

/// Asks webhooks whether a connection may be made.
pub async fn admit_connection(cx: &mut Cx) -> Result<(), Failure> {
    let sub = cx.target.subresource.clone();
    if sub == "log" {
        return Ok(());
    }
    let mut options = connection(cx, &sub);
    ask(cx, Operation::Connect, &sub, &mut options).await
}

/// The metadata of an object, for what is derived from it (a Scale, a TokenRequest).
pub fn identity(object: &Value, fields: &[&str]) -> Map<String, Value> {
    object::meta(object)
        .into_iter()
        .flatten()
        .filter(|(k, _)| fields.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resize_takes_over_resources_and_nothing_else() {
        let pod = |containers: Value, more: Value| {
            let mut pod = json!({"metadata": {"name": "x"}, "spec": {"containers": containers}});
            if let (Some(spec), Some(more)) = (pod["spec"].as_object_mut(), more.as_object()) {
                spec.extend(more.clone());
            }
            pod
        };
        let (small, large) = (
            json!({"requests": {"cpu": "1"}}),
            json!({"requests": {"cpu": "2"}}),
        );
        let old = pod(
            json!([{"name": "a", "image": "i", "resources": small}]),
            json!({}),
        );
        for (mut new, expected) in [
            (
                pod(
                    json!([{"name": "a", "image": "j", "resources": large}]),
                    json!({"nodeName": "n"}),
                ),
                pod(
                    json!([{"name": "a", "image": "i", "resources": large}]),
                    json!({}),
                ),
            ),
            (
                pod(
                    json!([{"name": "a", "image": "i"}]),
                    json!({"resources": large}),
                ),
                pod(
                    json!([{"name": "a", "image": "i"}]),
                    json!({"resources": large}),
                ),
            ),
            (
                pod(
                    json!([{"name": "b", "image": "j"}]),
                    json!({"nodeName": "n"}),
                ),
                pod(json!([{"name": "b", "image": "j"}]), json!({})),
            ),
            (
                pod(json!([]), json!({"nodeName": "n"})),
                pod(json!([]), json!({"nodeName": "n"})),
            ),
        ] {
            keep_for("resize", &old, &mut new);
            assert_eq!(new, expected);
        }
    }
}
