//! AlwaysPullImages: who runs an image shows that he may pull it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::object;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn images(pod: &Value) -> BTreeSet<&str> {
    let spec = pod.get("spec");
    let containers = LISTS
        .iter()
        .filter_map(|list| spec?.get(*list)?.as_array())
        .flatten()
        .map(|container| object::text(container, "/image"));
    let volumes = spec.and_then(|s| s.get("volumes")?.as_array());
    let volumes = volumes.into_iter().flatten();
    containers
        .chain(volumes.map(|volume| object::text(volume, "/image/reference")))
        .filter(|image| !image.is_empty())
        .collect()
}

/// Whether a pod has images that it did not have before.
pub fn new(pod: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| !images(pod).is_subset(&images(old)))
}

pub fn pull(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    for list in LISTS {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            container["imagePullPolicy"] = "Always".into();
        }
    }
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
    let images = volumes
        .into_iter()
        .flatten()
        .filter_map(|v| v.get_mut("image"));
    for image in images.filter(|image| image.is_object()) {
        image["pullPolicy"] = "Always".into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_image_is_pulled() {
        let mut pod = json!({"spec": {
            "initContainers": [{"image": "a"}],
            "containers": [{"image": "b", "imagePullPolicy": "Never"}],
            "volumes": [{"name": "v", "image": {"reference": "c"}}, {"name": "w", "emptyDir": {}}],
        }});
        pull(&mut pod);
        for (place, field) in [
            ("initContainers/0", "imagePullPolicy"),
            ("containers/0", "imagePullPolicy"),
            ("volumes/0/image", "pullPolicy"),
        ] {
            let policy = object::text(&pod, &format!("/spec/{place}/{field}"));
            assert_eq!(policy, "Always", "{place}");
        }
        assert_eq!(
            pod["spec"]["volumes"][1],
            json!({"name": "w", "emptyDir": {}})
        );
    }

    #[test]
    fn a_pod_with_the_images_it_had_is_left_alone() {
        let pod = |images: &[&str]| {
            let all: Vec<Value> = images.iter().map(|i| json!({"image": i})).collect();
            json!({"spec": {"containers": all}})
        };
        for (now, before, expected) in [
            (pod(&["a"]), None, true),
            (pod(&["a"]), Some(pod(&["a", "b"])), false),
            (pod(&["a", "c"]), Some(pod(&["a", "b"])), true),
        ] {
            assert_eq!(new(&now, before.as_ref()), expected, "{now}");
        }
    }
}
