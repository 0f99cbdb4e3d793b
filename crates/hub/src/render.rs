//! From App, Group and revision to the pod template and the StatefulSet of a cell. Pure JSON building.
//!
//! The template is rendered once, when a revision is made, and kept with it; later changes of the App,
//! the Group or of this code reach instances with the next revision only.

use std::collections::BTreeMap;

use gantry_api::{
    App, Group, RevisionSpec, app::AppSpec, group::GroupSpec, labels, revision::ConfigFile,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::world::Revision;

/// Name of the volume with a revision's config files.
const CONFIG_VOLUME: &str = "gantry-config";

/// What Gantry needs of an App and a Group to render them, with their names.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Name of the App.
    pub app_name: &'a str,
    /// The App.
    pub app: &'a AppSpec,
    /// Name of the Group.
    pub group_name: &'a str,
    /// The Group.
    pub group: &'a GroupSpec,
}

impl<'a> Source<'a> {
    /// Of the API objects.
    pub fn new(app: &'a App, group: &'a Group) -> Self {
        Self {
            app_name: app.metadata.name.as_deref().unwrap_or_default(),
            app: &app.spec,
            group_name: group.metadata.name.as_deref().unwrap_or_default(),
            group: &group.spec,
        }
    }

    /// Name of the App's container.
    pub fn container(&self) -> &'a str {
        self.app.container.name.as_deref().unwrap_or(self.app_name)
    }

    /// Name of the ServiceAccount that instances run as, if the App says one.
    pub fn service_account(&self) -> Option<&'a str> {
        self.app
            .service_account
            .as_ref()
            .map(|s| s.name.as_deref().unwrap_or(self.app_name))
    }
}

/// Labels that select a Group's instances.
pub fn selector(group: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(labels::GROUP.to_owned(), group.to_owned())])
}

/// Digest of any JSON, the same for equal values: 16 hexadecimal digits of SHA-256.
pub fn digest(value: &Value) -> String {
    // serde_json maps may keep insertion order: go through a sorted form.
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let ordered: BTreeMap<&String, Value> =
                    map.iter().map(|(k, v)| (k, sorted(v))).collect();
                Value::Object(ordered.into_iter().map(|(k, v)| (k.clone(), v)).collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    let hash = Sha256::digest(sorted(value).to_string().as_bytes());
    hash.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// Name of the ConfigMap with `files`; `None` where there are none. Equal files share one.
pub fn config_map_name(group: &str, files: &[ConfigFile]) -> Option<String> {
    if files.is_empty() {
        return None;
    }
    Some(format!("{group}-config-{}", &digest(&json!(files))[..10]))
}

/// Data of the ConfigMap with `files`.
pub fn config_map_data(files: &[ConfigFile]) -> BTreeMap<String, String> {
    files
        .iter()
        .enumerate()
        .map(|(i, f)| (format!("file-{i}"), f.text.clone()))
        .collect()
}

/// The revision `number` that `spec` makes of the App and Group as they are now.
pub fn revision(source: Source<'_>, spec: &RevisionSpec, number: i64) -> Revision {
    let mut template = template(source, spec);
    let digest = digest(&json!({"spec": spec, "template": template}));
    template["metadata"]["labels"][labels::REVISION] = json!(number.to_string());
    Revision {
        number,
        spec: spec.clone(),
        template,
        digest,
    }
}

/// The pod template without revision number and cell.
fn template(source: Source<'_>, spec: &RevisionSpec) -> Value {
    let overlay = source.app.template.clone().unwrap_or_default();
    let mut pod = overlay.spec;

    let mut metadata_labels = overlay.metadata.labels;
    metadata_labels.insert(labels::APP.to_owned(), source.app_name.to_owned());
    metadata_labels.insert(labels::GROUP.to_owned(), source.group_name.to_owned());
    if !source.group.environment.is_empty() {
        metadata_labels.insert(
            labels::ENVIRONMENT.to_owned(),
            source.group.environment.clone(),
        );
    }
    let mut metadata = json!({"labels": metadata_labels});
    if !overlay.metadata.annotations.is_empty() {
        metadata["annotations"] = json!(overlay.metadata.annotations);
    }

    let config = config_map_name(source.group_name, &spec.config);
    let name = source.container();
    let mut containers = match pod.remove("containers") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let position = containers
        .iter()
        .position(|c| c["name"] == name)
        .unwrap_or_else(|| {
            containers.insert(0, json!({"name": name}));
            0
        });
    if let Some(container) = containers[position].as_object_mut() {
        overlay_container(container, source.app, spec, config.is_some());
    }
    pod.insert("containers".to_owned(), Value::Array(containers));
    for list in ["containers", "initContainers"] {
        for container in pod
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(image) = container["name"].as_str().and_then(|n| spec.images.get(n)) {
                container["image"] = json!(image);
            }
        }
    }

    if let Some(config) = config {
        push(
            &mut pod,
            "volumes",
            json!({"name": CONFIG_VOLUME, "configMap": {"name": config}}),
        );
    }
    if let Some(account) = source.service_account() {
        pod.insert("serviceAccountName".to_owned(), json!(account));
    }
    if let Some(seconds) = source.app.container.lifecycle.termination_grace_seconds {
        pod.insert("terminationGracePeriodSeconds".to_owned(), json!(seconds));
    }
    push(
        &mut pod,
        "readinessGates",
        json!({"conditionType": labels::IN_SERVICE}),
    );
    let spread = &source.group.placement.spread;
    push(
        &mut pod,
        "topologySpreadConstraints",
        json!({
            "maxSkew": spread.max_skew,
            "topologyKey": labels::HOSTNAME,
            "whenUnsatisfiable": if spread.required { "DoNotSchedule" } else { "ScheduleAnyway" },
            "labelSelector": {"matchLabels": selector(source.group_name)},
        }),
    );
    json!({"metadata": metadata, "spec": pod})
}

fn overlay_container(
    container: &mut Map<String, Value>,
    app: &AppSpec,
    spec: &RevisionSpec,
    config: bool,
) {
    container.insert("image".to_owned(), json!(spec.image));
    let shape = &app.container;
    let own = spec.probes.clone().unwrap_or_default();
    let probe =
        |own: &Option<_>, apps: &Option<_>| own.as_ref().or(apps.as_ref()).map(|p| json!(p));
    for (field, value) in [
        ("readinessProbe", probe(&own.ready, &shape.probes.ready)),
        ("livenessProbe", probe(&own.live, &shape.probes.live)),
        ("startupProbe", probe(&own.startup, &shape.probes.startup)),
        ("resources", spec.resources.as_ref().map(|r| json!(r))),
        (
            "command",
            (!spec.command.is_empty()).then(|| json!(spec.command)),
        ),
        ("args", (!spec.args.is_empty()).then(|| json!(spec.args))),
    ] {
        if let Some(value) = value {
            container.insert(field.to_owned(), value);
        }
    }
    for (field, handler) in [
        ("postStart", &shape.lifecycle.post_start),
        ("preStop", &shape.lifecycle.pre_stop),
    ] {
        if let Some(handler) = handler {
            let lifecycle = container.entry("lifecycle").or_insert_with(|| json!({}));
            lifecycle[field] = json!(handler);
        }
    }
    for var in &spec.env {
        replace_or_push(container, "env", "name", json!(var));
    }
    for port in &app.ports {
        let number = port.container_port.unwrap_or(port.port);
        let known = container
            .get("ports")
            .and_then(Value::as_array)
            .is_some_and(|ports| {
                ports.iter().any(|p| {
                    p["containerPort"] == number
                        && p["protocol"].as_str().unwrap_or("TCP") == port.protocol.as_str()
                })
            });
        if !known {
            push(
                container,
                "ports",
                json!({"name": port.name, "containerPort": number, "protocol": port.protocol.as_str()}),
            );
        }
    }
    if config {
        for (i, file) in spec.config.iter().enumerate() {
            replace_or_push(
                container,
                "volumeMounts",
                "mountPath",
                json!({"name": CONFIG_VOLUME, "mountPath": file.path, "subPath": format!("file-{i}"), "readOnly": true}),
            );
        }
    }
}

fn push(object: &mut Map<String, Value>, field: &str, item: Value) {
    if let Value::Array(list) = object.entry(field).or_insert_with(|| json!([])) {
        list.push(item);
    }
}

fn replace_or_push(object: &mut Map<String, Value>, field: &str, key: &str, item: Value) {
    if let Value::Array(list) = object.entry(field).or_insert_with(|| json!([])) {
        match list.iter_mut().find(|old| old[key] == item[key]) {
            Some(old) => *old = item,
            None => list.push(item),
        }
    }
}

/// A revision's template as the StatefulSet of `cell` carries it.
pub fn cell_template(
    revision: &Revision,
    cell: &str,
    node_selector: &BTreeMap<String, String>,
) -> Value {
    let mut template = revision.template.clone();
    template["metadata"]["labels"][labels::CELL] = json!(cell);
    for (key, value) in node_selector {
        template["spec"]["nodeSelector"][key] = json!(value);
    }
    template
}

/// The StatefulSet of `cell`.
pub fn stateful_set(
    source: Source<'_>,
    revision: &Revision,
    namespace: &str,
    cell: &str,
    node_selector: &BTreeMap<String, String>,
    replicas: i32,
) -> Value {
    let own = BTreeMap::from([
        (labels::APP, source.app_name),
        (labels::GROUP, source.group_name),
        (labels::CELL, cell),
        (labels::MANAGED_BY, labels::MANAGER),
    ]);
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": source.group.set_in(source.group_name, cell), "namespace": namespace, "labels": own},
        "spec": {
            "replicas": replicas,
            "serviceName": headless_name(source.group_name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "selector": {"matchLabels": {labels::GROUP: source.group_name, labels::CELL: cell}},
            "template": cell_template(revision, cell, node_selector),
        }
    })
}

/// Name of the headless Service under which each instance has a name of its own.
pub fn headless_name(group: &str) -> String {
    format!("{group}-instances")
}

/// What an update in place from one template to another has to set: image by container. `Err` says why
/// it takes a new pod.
///
/// The API server lets nothing but images (and labels) of a running pod change, and the kubelet
/// restarts the containers concerned; init containers do not run again, so a new image of one needs a new pod.
pub fn in_place(from: &Value, to: &Value) -> Result<BTreeMap<String, String>, String> {
    let mut images = BTreeMap::new();
    let (mut a, mut b) = (from.clone(), to.clone());
    for (template, is_target) in [(&mut a, false), (&mut b, true)] {
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove(labels::REVISION);
        }
        for container in template["spec"]["containers"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            let image = container.as_object_mut().and_then(|c| c.remove("image"));
            if is_target
                && let (Some(name), Some(Value::String(image))) =
                    (container["name"].as_str(), image)
            {
                images.insert(name.to_owned(), image);
            }
        }
    }
    if a == b {
        return Ok(images);
    }
    Err(difference(&a, &b))
}

/// The first fields in which two templates differ, named for people.
fn difference(a: &Value, b: &Value) -> String {
    let mut fields = Vec::new();
    if a["metadata"] != b["metadata"] {
        fields.push("labels or annotations".to_owned());
    }
    let empty = Map::new();
    let (left, right) = (
        a["spec"].as_object().unwrap_or(&empty),
        b["spec"].as_object().unwrap_or(&empty),
    );
    let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (old, new) = (left.get(key), right.get(key));
        if old == new {
            continue;
        }
        let lists = (old.and_then(Value::as_array), new.and_then(Value::as_array));
        match lists {
            (Some(old), Some(new)) if key == "containers" && old.len() == new.len() => {
                for (o, n) in old.iter().zip(new) {
                    let names = o
                        .as_object()
                        .into_iter()
                        .flatten()
                        .chain(n.as_object().into_iter().flatten())
                        .map(|(k, _)| k);
                    for name in names {
                        if o[name] != n[name] && !fields.contains(name) {
                            fields.push(name.clone());
                        }
                    }
                }
            }
            _ => fields.push(key.clone()),
        }
    }
    format!("{} differ", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use gantry_api::app::{AppPort, OverlayMetadata, PodOverlay};
    use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::EnvVar};

    use super::*;

    fn app() -> AppSpec {
        AppSpec {
            ports: vec![AppPort { name: "http".into(), port: 80, container_port: Some(8080), ..AppPort::default() }],
            template: Some(PodOverlay {
                metadata: OverlayMetadata { labels: BTreeMap::from([("team".into(), "cart".into())]), annotations: BTreeMap::new() },
                spec: json!({
                    "securityContext": {"runAsUser": 1000},
                    "containers": [
                        {"name": "log", "image": "log:1"},
                        {"name": "server", "image": "ignored", "env": [{"name": "A", "value": "app"}], "ports": [{"containerPort": 8080}], "notYetKnown": 1},
                    ],
                })
                .as_object()
                .cloned()
                .unwrap_or_default(),
            }),
            container: gantry_api::app::ContainerShape { name: Some("server".into()), ..Default::default() },
            ..AppSpec::default()
        }
    }

    fn spec(image: &str) -> RevisionSpec {
        RevisionSpec {
            image: image.into(),
            env: vec![EnvVar {
                name: "A".into(),
                value: Some("revision".into()),
                ..EnvVar::default()
            }],
            config: vec![ConfigFile {
                path: "/etc/x.yaml".into(),
                text: "x".into(),
            }],
            ..RevisionSpec::default()
        }
    }

    #[test]
    fn a_template_keeps_what_lies_beneath() {
        let (app, group) = (
            app(),
            GroupSpec {
                environment: "prod".into(),
                ..GroupSpec::default()
            },
        );
        let source = Source {
            app_name: "cart",
            app: &app,
            group_name: "cart-prod",
            group: &group,
        };
        let made = revision(source, &spec("cart:1"), 7);
        insta::assert_yaml_snapshot!(made.template);
        let set = stateful_set(
            source,
            &made,
            "shop",
            "sh-a",
            &BTreeMap::from([("zone".into(), "a".into())]),
            3,
        );
        // What Gantry sends is a StatefulSet by the letter of the API.
        let typed: StatefulSet = serde_json::from_value(set).unwrap();
        assert_eq!(typed.metadata.name.as_deref(), Some("cart-prod-sh-a"));
        let pod = typed.spec.unwrap().template;
        assert_eq!(pod.metadata.unwrap().labels.unwrap()[labels::CELL], "sh-a");
        assert_eq!(pod.spec.unwrap().node_selector.unwrap()["zone"], "a");
    }

    #[test]
    fn equal_content_is_one_revision_whatever_its_number() {
        let (app, group) = (app(), GroupSpec::default());
        let source = Source {
            app_name: "cart",
            app: &app,
            group_name: "cart",
            group: &group,
        };
        assert_eq!(
            revision(source, &spec("cart:1"), 1).digest,
            revision(source, &spec("cart:1"), 2).digest
        );
        assert_ne!(
            revision(source, &spec("cart:1"), 1).digest,
            revision(source, &spec("cart:2"), 1).digest
        );
    }

    #[test]
    fn only_images_change_in_place() {
        let (app, group) = (app(), GroupSpec::default());
        let source = Source {
            app_name: "cart",
            app: &app,
            group_name: "cart",
            group: &group,
        };
        let one = revision(source, &spec("cart:1"), 1).template;
        let two = revision(source, &spec("cart:2"), 2).template;
        let images = in_place(&one, &two).unwrap();
        assert_eq!(
            images,
            BTreeMap::from([
                ("server".into(), "cart:2".into()),
                ("log".into(), "log:1".into())
            ])
        );

        let mut other = spec("cart:2");
        other.env[0].value = Some("other".into());
        other.args = vec!["x".into()];
        let three = revision(source, &other, 3).template;
        assert_eq!(in_place(&one, &three).unwrap_err(), "env, args differ");
        let mut init = two.clone();
        init["spec"]["initContainers"] = json!([{"name": "i", "image": "i:1"}]);
        assert_eq!(in_place(&two, &init).unwrap_err(), "initContainers differ");
    }
}
