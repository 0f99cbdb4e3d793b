//! The status a kubelet reports, as a strategic merge patch of what is the kubelet's.
//!
//! Conditions merge by type, so those of others (readiness gates, above all) stay as they are; lists
//! of containers are replaced whole. The uid in the patch makes it fail on a pod of the same name
//! that came after.

use super::{Condition, Container, Pod, Sandbox, State, Terminated, step::Slot};
use crate::{
    behaviour::{Draw, Role},
    object::{ContainerSpec, Resources},
};
use serde_json::{Map, Value, json};

/// The patch of the pod's status.
#[must_use]
pub fn status_patch(pod: &Pod) -> Value {
    let mut status = Map::new();
    let mut put = |key: &str, value: Value| status.insert(key.to_owned(), value);
    put("phase", pod.phase.word().into());
    if pod.generation > 0 {
        put("observedGeneration", pod.generation.into());
    }
    if let Some(failure) = &pod.failure {
        put("reason", (&*failure.reason).into());
        put("message", (&*failure.message).into());
    }
    if let Some(at) = pod.start_time {
        put("startTime", at.to_string().into());
    }
    if !pod.rejected() {
        put("hostIP", (&*pod.host_ip).into());
        put("hostIPs", json!([{"ip": &*pod.host_ip}]));
        if let (Sandbox::Ready, Some(ip)) = (pod.sandbox, pod.address()) {
            put("podIP", ip.as_str().into());
            put("podIPs", json!([{"ip": ip}]));
        }
    }
    let conditions = [
        ("PodReadyToStartContainers", &pod.conditions.ready_to_start),
        ("Initialized", &pod.conditions.initialized),
        ("Ready", &pod.conditions.ready),
        ("ContainersReady", &pod.conditions.containers_ready),
        ("PodScheduled", &pod.conditions.scheduled),
        ("DisruptionTarget", &pod.conditions.disrupted),
    ];
    let mut conditions: Vec<Value> = conditions
        .into_iter()
        .filter_map(|(name, it)| it.as_ref().map(|it| condition(name, it, pod.generation)))
        .collect();
    conditions.extend(pod.resize_conditions().into_iter().map(|(name, said)| {
        let Some(said) = said else {
            return json!({"type": name, "$patch": "delete"});
        };
        let (reason, message) = said.why.unzip();
        json!({
            "type": name, "status": "True", "lastProbeTime": null,
            "lastTransitionTime": said.since.to_string(), "observedGeneration": said.generation,
            "reason": reason, "message": message,
        })
    }));
    if !conditions.is_empty() {
        put("conditions", conditions.into());
    }
    if let Some((allocated, actual)) = pod.resources_in_all().filter(|_| !pod.rejected()) {
        put("allocatedResources", json!(allocated.requests));
        put("resources", json!(actual));
    }
    if !pod.rejected() {
        let list = |specs: &[ContainerSpec],
                    containers: &[Container],
                    slot: fn(usize) -> Option<Slot>|
         -> Value {
            (0..)
                .zip(specs.iter().zip(containers))
                .map(|(index, (spec, it))| container_status(pod, spec, it, slot(index)))
                .collect()
        };
        if !pod.init.is_empty() {
            put(
                "initContainerStatuses",
                list(&pod.spec.init_containers, &pod.init, |it| {
                    Some(Slot::Init(it))
                }),
            );
        }
        if !pod.ephemeral.is_empty() {
            put(
                "ephemeralContainerStatuses",
                list(&pod.spec.ephemeral_containers, &pod.ephemeral, |_| None),
            );
        }
        put(
            "containerStatuses",
            list(&pod.spec.containers, &pod.main, |it| Some(Slot::Main(it))),
        );
    }
    json!({"metadata": {"uid": &*pod.id.uid}, "status": status})
}

fn condition(name: &str, it: &Condition, generation: i64) -> Value {
    let mut value = json!({
        "type": name,
        "status": if it.holds { "True" } else { "False" },
        "lastProbeTime": null,
        "lastTransitionTime": it.since.to_string(),
    });
    if generation > 0 {
        value["observedGeneration"] = generation.into();
    }
    // An explanation given once must be taken back; one never given need not be mentioned.
    if it.reason.is_some() || it.explained {
        value["reason"] = it.reason.into();
        value["message"] = it.message.clone().into();
    }
    value
}

fn container_status(pod: &Pod, spec: &ContainerSpec, it: &Container, slot: Option<Slot>) -> Value {
    // The containers of a static pod outlive its mirrors.
    let whose = pod.source.as_ref().unwrap_or(&pod.id.uid);
    let id = |attempt: u32| container_id(whose, &spec.name, attempt);
    let mut status = json!({
        "name": &*spec.name,
        "image": &*it.image,
        "imageID": if it.created { image_id(&it.image) } else { String::new() },
        "ready": it.ready,
        "started": it.started,
        "restartCount": it.restarts,
        "state": match &it.state {
            State::Waiting { reason, message } => {
                let mut waiting = json!({"reason": reason});
                if let Some(message) = message {
                    waiting["message"] = (&**message).into();
                }
                json!({"waiting": waiting})
            }
            State::Running { since } => json!({"running": {"startedAt": since.to_string()}}),
            State::Terminated(end) => terminated(end, &id(end.attempt)),
        },
        "lastState": it.last.as_ref().map_or_else(|| json!({}), |end| terminated(end, &id(end.attempt))),
    });
    if it.created {
        status["containerID"] = id(it.restarts).into();
        let slot = slot.filter(|slot| pod.role_at(*slot) != Role::Init);
        if let Some((allocated, actual)) = slot.map(|slot| pod.resources(slot)) {
            resources(&mut status, allocated, actual);
        }
    }
    status
}

/// As in-place resize reports them: what is set aside, and what holds.
fn resources(status: &mut Value, allocated: &Resources, actual: &Resources) {
    if !allocated.requests.is_empty() {
        status["allocatedResources"] = json!(allocated.requests);
    }
    if !(actual.requests.is_empty() && actual.limits.is_empty()) {
        status["resources"] = json!(actual);
    }
}

fn terminated(end: &Terminated, id: &str) -> Value {
    let mut value = json!({
        "exitCode": end.code,
        "reason": &*end.reason,
        "startedAt": end.started.to_string(),
        "finishedAt": end.finished.to_string(),
        "containerID": id,
    });
    if let Some(message) = &end.message {
        value["message"] = (&**message).into();
    }
    json!({"terminated": value})
}

/// The id of one run of a container. It follows from the pod, the container and the number of
/// restarts, so a simulator that starts again finds the ids it gave before.
#[must_use]
pub(super) fn container_id(uid: &str, container: &str, attempt: u32) -> String {
    let draw = Draw::new(0)
        .word(uid)
        .word(container)
        .number(u64::from(attempt));
    let hex: String = (0..4u64)
        .map(|part| format!("{:016x}", draw.number(part).bits()))
        .collect();
    format!("containerd://simulated-{hex}")
}

/// The id of an image: its name with a digest made up from it.
fn image_id(image: &str) -> String {
    if image.contains("@sha256:") {
        return image.to_owned();
    }
    let slash = image.rfind('/').map_or(0, |at| at + 1);
    let name = image[slash..]
        .find(':')
        .map_or(image, |colon| &image[..slash + colon]);
    let draw = Draw::new(0).word(image);
    let hex: String = (0..4u64)
        .map(|part| format!("{:016x}", draw.number(part).bits()))
        .collect();
    format!("{name}@sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_honest_and_stable() {
        let id = container_id("u", "app", 0);
        assert!(id.starts_with("containerd://simulated-"), "{id}");
        assert_eq!(id, container_id("u", "app", 0));
        assert_ne!(id, container_id("u", "app", 1));
        assert!(image_id("reg:5000/shop/cart:1").starts_with("reg:5000/shop/cart@sha256:"));
        assert!(image_id("nginx").starts_with("nginx@sha256:"));
        assert_eq!(image_id("a@sha256:0"), "a@sha256:0");
        assert_ne!(image_id("a:1"), image_id("a:2"));
    }
}
