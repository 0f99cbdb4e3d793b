//! LimitRanger: default requests and limits, and the bounds of a namespace's LimitRanges.

use gantry_machinery::path::At as _;
use gantry_machinery::{
    quantity::Quantity,
    quota::{Amounts, amounts, of_containers},
    status::Failure,
};
use serde_json::{Map, Value, json};

use super::all;
use crate::{api::Cx, errors, object};

const BUCKET: &str = "/limitranges";
const LISTS: [(&str, &str); 2] = [
    ("containers", "container"),
    ("initContainers", "init container"),
];

fn items(range: &Value) -> impl Iterator<Item = &Value> {
    range
        .at("/spec/limits")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn table<'a>(item: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    item.get(name).and_then(Value::as_object)
}

/// Default requests and limits of containers that name none, noted in an annotation.
pub fn fill(cx: &Cx, pod: &mut Value) {
    for range in all(cx, BUCKET, &cx.target.namespace) {
        fill_from(&range, pod);
    }
}

fn fill_from(range: &Value, pod: &mut Value) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for item in items(range) {
        if object::text(item, "/type") == "Container" {
            requests.extend(table(item, "defaultRequest").cloned().unwrap_or_default());
            limits.extend(table(item, "default").cloned().unwrap_or_default());
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut notes = vec![];
    for (list, what) in LISTS {
        for container in pod
            .pointer_mut(&format!("/spec/{list}"))
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let name = object::text(container, "/name").to_owned();
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            let resources = container.entry("resources").or_insert_with(|| json!({}));
            for (field, word, defaults) in [
                ("requests", "request", &requests),
                ("limits", "limit", &limits),
            ] {
                let Some(resources) = resources.as_object_mut() else {
                    continue;
                };
                let own = resources.entry(field).or_insert_with(|| json!({}));
                let Some(own) = own.as_object_mut() else {
                    continue;
                };
                let mut set = vec![];
                for (resource, value) in defaults {
                    if !own.contains_key(resource) {
                        own.insert(resource.clone(), value.clone());
                        set.push(resource.clone());
                    }
                }
                if own.is_empty() {
                    resources.remove(field);
                }
                if !set.is_empty() {
                    set.sort();
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty()
        && let Some(meta) = object::meta_mut(pod)
    {
        let annotations = meta.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(
                "kubernetes.io/limit-ranger".to_owned(),
                format!("LimitRanger plugin set: {}", notes.join("; ")).into(),
            );
        }
    }
}

/// Refuses what is outside the bounds: what comes in, and of what is there what changes.
pub fn check(cx: &Cx, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let sub = cx.target.subresource.as_str();
    let of = match (cx.resource().group.as_str(), cx.resource().plural.as_str()) {
        ("", "pods") if sub == "resize" || sub.is_empty() && old.is_none() => "pods",
        ("", "persistentvolumeclaims") if sub.is_empty() => "claims",
        _ => return Ok(()),
    };
    if old.is_some_and(object::deleting) {
        return Ok(());
    }
    for range in all(cx, BUCKET, &cx.target.namespace) {
        let wrong = faults(&range, of, object, old);
        let text = match wrong.as_slice() {
            [] => continue,
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        return Err(errors::forbidden(
            cx.resource(),
            object::name(object),
            &text,
        ));
    }
    Ok(())
}

/// What of an object is outside the bounds of one LimitRange.
fn faults(range: &Value, of: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut wrong = vec![];
    for item in items(range) {
        let kind = object::text(item, "/type");
        match (of, kind) {
            ("pods", "Container") => {
                for (list, _) in LISTS {
                    for container in containers(object, list) {
                        let name = object::text(container, "/name");
                        let before = old.and_then(|old| {
                            containers(old, list).find(|c| object::text(c, "/name") == name)
                        });
                        let used = |c: &Value| Used {
                            requests: amounts(c.at("/resources/requests")),
                            limits: amounts(c.at("/resources/limits")),
                        };
                        let before = before.map(used);
                        bounds(item, kind, &used(container), before.as_ref(), &mut wrong);
                    }
                }
            }
            ("pods", "Pod") => {
                let used = |pod: &Value| Used {
                    requests: of_containers(pod, "requests"),
                    limits: of_containers(pod, "limits"),
                };
                bounds(
                    item,
                    kind,
                    &used(object),
                    old.map(used).as_ref(),
                    &mut wrong,
                );
            }
            ("claims", "PersistentVolumeClaim") => {
                let used = |claim: &Value| Used {
                    requests: amounts(claim.at("/spec/resources/requests")),
                    limits: Amounts::new(),
                };
                bounds(
                    item,
                    kind,
                    &used(object),
                    old.map(used).as_ref(),
                    &mut wrong,
                );
            }
            _ => {}
        }
    }
    wrong
}

fn containers<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    pod.at(&format!("/spec/{list}"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// What a container, a pod or a claim asks for.
struct Used {
    requests: Amounts,
    limits: Amounts,
}

fn bounds(item: &Value, kind: &str, used: &Used, before: Option<&Used>, wrong: &mut Vec<String>) {
    let claim = kind == "PersistentVolumeClaim";
    // What is there and stays was good once.
    let kept = |resource: &str| {
        before.is_some_and(|b| {
            b.requests.get(resource) == used.requests.get(resource)
                && b.limits.get(resource) == used.limits.get(resource)
        })
    };
    let of = |field: &str| {
        let all = amounts(item.get(field)).into_iter();
        all.filter(|(resource, _)| !kept(resource))
            .map(|(resource, bound)| {
                let request = used.requests.get(&resource).copied();
                let limit = used.limits.get(&resource).copied();
                (resource, bound, request, limit)
            })
            .collect::<Vec<_>>()
    };
    for (resource, min, request, limit) in of("min") {
        let bound = format!("minimum {resource} usage per {kind} is {min}");
        match (request, limit) {
            (None, _) => wrong.push(format!("{bound}.  No request is specified")),
            (Some(r), _) if r < min => wrong.push(format!("{bound}, but request is {r}")),
            (_, Some(l)) if l < min => wrong.push(format!("{bound}, but limit is {l}")),
            _ => {}
        }
    }
    for (resource, max, request, limit) in of("max") {
        let bound = format!("maximum {resource} usage per {kind} is {max}");
        match (request, limit) {
            // Claims have no limits: what they request is bounded.
            (None, _) if claim => wrong.push(format!("{bound}.  No request is specified")),
            (_, None) if !claim => wrong.push(format!("{bound}.  No limit is specified")),
            (_, Some(l)) if l > max => wrong.push(format!("{bound}, but limit is {l}")),
            (Some(r), _) if r > max => wrong.push(format!("{bound}, but request is {r}")),
            _ => {}
        }
    }
    if claim {
        return;
    }
    for (resource, ratio, request, limit) in of("maxLimitRequestRatio") {
        let bound = format!("{resource} max limit to request ratio per {kind} is {ratio}");
        let there = |q: Option<Quantity>| q.filter(|q| !q.is_zero());
        match (there(request), there(limit)) {
            (None, _) => wrong.push(format!(
                "{bound}, but no request is specified or request is 0"
            )),
            (_, None) => wrong.push(format!("{bound}, but no limit is specified or limit is 0")),
            (Some(r), Some(l)) => {
                let real = l.as_f64() / r.as_f64();
                if real > ratio.as_f64() {
                    wrong.push(format!("{bound}, but provided ratio is {real:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn range(item: Value) -> Value {
        json!({"spec": {"limits": [item]}})
    }

    fn container(name: &str, cpu: &str) -> Value {
        let amount = json!({ "cpu": cpu });
        json!({"name": name, "resources": {"requests": amount, "limits": amount}})
    }

    fn pod(spec: Value) -> Value {
        json!({ "spec": spec })
    }

    fn max(kind: &str) -> Value {
        range(json!({"type": kind, "max": {"cpu": "3"}}))
    }

    #[rstest]
    #[case(max("Pod"), pod(json!({"containers": [container("a", "2"), container("b", "1")]})), &[])]
    #[case(max("Pod"), pod(json!({"containers": [container("a", "2"), container("b", "2")]})), &["maximum cpu usage per Pod is 3, but limit is 4"])]
    #[case::init(max("Pod"), pod(json!({"containers": [container("a", "1")], "initContainers": [container("i", "4")]})), &["maximum cpu usage per Pod is 3, but limit is 4"])]
    #[case::sidecar(max("Pod"), pod(json!({"containers": [container("a", "2")], "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"limits": {"cpu": "2"}}}]})), &["maximum cpu usage per Pod is 3, but limit is 4"])]
    #[case::whole(max("Pod"), pod(json!({"containers": [container("a", "4")], "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}})), &[])]
    #[case(max("Pod"), pod(json!({"containers": [{"name": "a"}]})), &["maximum cpu usage per Pod is 3.  No limit is specified"])]
    #[case(max("Container"), pod(json!({"containers": [container("a", "2")], "initContainers": [container("i", "4")]})), &["maximum cpu usage per Container is 3, but limit is 4"])]
    #[case(range(json!({"type": "Container", "min": {"cpu": "2"}})), pod(json!({"containers": [container("a", "1"), {"name": "b"}]})),
        &["minimum cpu usage per Container is 2, but request is 1", "minimum cpu usage per Container is 2.  No request is specified"])]
    #[case(range(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}})), pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}]})),
        &["cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000", "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0"])]
    fn pods_keep_within_bounds(
        #[case] range: Value,
        #[case] pod: Value,
        #[case] expected: &[&str],
    ) {
        assert_eq!(faults(&range, "pods", &pod, None), expected);
    }

    #[test]
    fn what_stays_is_not_looked_at_again() {
        let before = pod(json!({"containers": [container("a", "4"), container("b", "1")]}));
        let after = pod(json!({"containers": [container("a", "4"), container("b", "5")]}));
        assert_eq!(
            faults(&max("Container"), "pods", &after, Some(&before)),
            ["maximum cpu usage per Container is 3, but limit is 5"]
        );
    }

    #[test]
    fn claims_are_bounded_by_what_they_request() {
        let range = range(json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}));
        let claim = |requests: Value| json!({"spec": {"resources": {"requests": requests}}});
        assert_eq!(
            faults(&range, "claims", &claim(json!({"storage": "2Gi"})), None),
            ["maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"]
        );
        assert!(faults(&range, "claims", &claim(json!({"storage": "1Gi"})), None).is_empty());
    }

    #[test]
    fn defaults_are_filled_in_and_noted() {
        let range = range(
            json!({"type": "Container", "default": {"cpu": "2"}, "defaultRequest": {"cpu": "1", "memory": "1Gi"}}),
        );
        let mut pod = pod(
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "3"}}}], "initContainers": [{"name": "i"}]}),
        );
        pod["metadata"] = json!({});
        fill_from(&range, &mut pod);
        assert_eq!(
            pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
            "LimitRanger plugin set: memory request for container a; cpu limit for container a; cpu, memory request for init container i; cpu limit for init container i"
        );
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["requests"]["cpu"],
            "3"
        );
    }
}
