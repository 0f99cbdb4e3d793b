//! What the process of a container finds when it starts: its environment and its files, from the objects
//! of the API that its pod names. What it prints follows from that: see [`crate::program`].

use super::found::Run;
use crate::{
    behaviour::Draw,
    object::parse_quantity,
    program::{self, Chunk, Disk, Setting, Told},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use kube::{Api, Client, api::ListParams};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// The values of a ConfigMap or a Secret.
type Values = BTreeMap<String, Vec<u8>>;

/// A process that can be run.
pub struct Scene {
    words: Vec<String>,
    variables: BTreeMap<String, String>,
    disk: Disk,
    draw: Draw,
    typed: bool,
}

/// How long a run has gone on.
fn passed(run: &Run, until: Timestamp) -> Duration {
    let passed = until.duration_since(run.started).as_millis();
    Duration::from_millis(u64::try_from(passed).unwrap_or(0))
}

impl Scene {
    /// What a run of it does within a time.
    fn told(&self, run: &Run, horizon: Duration) -> Option<Told> {
        let setting = Setting {
            variables: self.variables.clone(),
            disk: self.disk.clone(),
            horizon,
            draw: self.draw.number(u64::try_from(run.attempt).unwrap_or(0)),
            typed: self.typed,
        };
        program::run(&self.words, setting)
    }

    /// What a run of it prints until an instant, line by line.
    pub fn lines(&self, run: &Run, until: Timestamp) -> Vec<(Timestamp, String)> {
        let told = self.told(run, passed(run, until));
        let mut lines: Vec<(Timestamp, String)> = vec![];
        let mut open = false;
        for Chunk { at, bytes, .. } in told.into_iter().flat_map(|it| it.printed) {
            let at = run.started + jiff::SignedDuration::try_from(at).unwrap_or_default();
            for piece in String::from_utf8_lossy(&bytes).split_inclusive('\n') {
                match lines.last_mut().filter(|_| open) {
                    Some((_, line)) => *line += piece.trim_end_matches('\n'),
                    None => lines.push((at, piece.trim_end_matches('\n').to_owned())),
                }
                open = !piece.ends_with('\n');
            }
        }
        lines
    }
}

/// A container of a pod.
fn container(pod: &Value, name: &str) -> Option<Value> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let mut all = lists.iter().flat_map(|it| list(&pod["spec"][*it]));
    all.find(|it| it["name"] == name).cloned()
}

/// What the process of a container runs, where that is known.
pub fn words(spec: &Value) -> Option<Vec<String>> {
    let (command, args) = (strings(&spec["command"]), strings(&spec["args"]));
    program::words(text(&spec["image"]), &command, &args)
}

/// What a container finds when it starts: its environment and its files.
async fn found(client: &Client, pod: &Value, spec: &Value) -> (BTreeMap<String, String>, Disk) {
    let place = Place {
        client,
        pod,
        namespace: text(&pod["metadata"]["namespace"]),
    };
    let variables = place.variables(spec).await;
    let disk = place.disk(spec, &variables).await;
    (variables, disk)
}

/// The process of a container, if it can be run.
pub async fn scene(client: &Client, pod: &Pod, name: &str) -> Option<Scene> {
    let pod = serde_json::to_value(pod).ok()?;
    let spec = container(&pod, name)?;
    let words = words(&spec)?;
    let (variables, disk) = found(client, &pod, &spec).await;
    let uid = text(&pod["metadata"]["uid"]);
    Some(Scene {
        words,
        disk,
        variables,
        draw: Draw::new(0).word(uid).word(name),
        typed: spec["stdin"] == true,
    })
}

/// The environment and the files of a container at an instant of a run: what it found, and what its process has
/// written since, where that is known.
pub async fn now(
    client: &Client,
    pod: &Pod,
    name: &str,
    run: Option<(&Run, Timestamp)>,
) -> (BTreeMap<String, String>, Disk) {
    if let Some(scene) = scene(client, pod, name).await {
        let mut disk = scene.disk.clone();
        if let Some((run, now)) = run {
            let horizon = passed(run, now);
            if let Some(told) = scene.told(run, horizon) {
                disk.replay(&told.disk.changes, horizon);
            }
        }
        return (scene.variables, disk);
    }
    let pod = serde_json::to_value(pod).unwrap_or_default();
    match container(&pod, name) {
        Some(spec) => found(client, &pod, &spec).await,
        None => Default::default(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.map(|it| text(it).to_owned()).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

struct Place<'a> {
    client: &'a Client,
    pod: &'a Value,
    namespace: &'a str,
}

impl Place<'_> {
    async fn map(&self, name: &str) -> Option<Values> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let it = api.get_opt(name).await.ok()??;
        let texts = it.data.unwrap_or_default().into_iter();
        let mut values: Values = texts
            .map(|(key, value)| (key, value.into_bytes()))
            .collect();
        values.extend(
            it.binary_data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| (key, value.0)),
        );
        Some(values)
    }

    async fn secret(&self, name: &str) -> Option<Values> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let it = api.get_opt(name).await.ok()??;
        let all = it.data.unwrap_or_default().into_iter();
        Some(all.map(|(key, value)| (key, value.0)).collect())
    }

    async fn variables(&self, spec: &Value) -> BTreeMap<String, String> {
        let host = match text(&self.pod["spec"]["hostname"]) {
            "" => text(&self.pod["metadata"]["name"]),
            host => host,
        };
        let mut all: BTreeMap<String, String> = [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("HOSTNAME", host),
            ("HOME", "/root"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        all.extend(self.services().await);
        for source in list(&spec["envFrom"]) {
            let prefix = text(&source["prefix"]);
            let values = match (source.get("configMapRef"), source.get("secretRef")) {
                (Some(of), _) => self.map(text(&of["name"])).await,
                (_, Some(of)) => self.secret(text(&of["name"])).await,
                _ => None,
            };
            for (key, value) in values.unwrap_or_default() {
                all.insert(
                    format!("{prefix}{key}"),
                    String::from_utf8_lossy(&value).into_owned(),
                );
            }
        }
        for variable in list(&spec["env"]) {
            let from = &variable["valueFrom"];
            let value = if let Some(of) = from.get("fieldRef") {
                Some(self.field(text(&of["fieldPath"])))
            } else if let Some(of) = from.get("resourceFieldRef") {
                Some(self.resource(spec, of).await)
            } else if let Some(of) = from.get("configMapKeyRef") {
                value_of(self.map(text(&of["name"])).await, of)
            } else if let Some(of) = from.get("secretKeyRef") {
                value_of(self.secret(text(&of["name"])).await, of)
            } else {
                Some(program::expanded(text(&variable["value"]), &all))
            };
            if let Some(value) = value {
                all.insert(text(&variable["name"]).to_owned(), value);
            }
        }
        all
    }

    /// Variables of the Services of the namespace, and of that of the API server.
    async fn services(&self) -> Vec<(String, String)> {
        let mut all = vec![];
        let only = ListParams::default().fields("metadata.name=kubernetes");
        let api: Api<Service> = Api::namespaced(self.client.clone(), "default");
        let mut services = api.list(&only).await.map(|it| it.items).unwrap_or_default();
        if self.pod["spec"]["enableServiceLinks"] != false {
            let api: Api<Service> = Api::namespaced(self.client.clone(), self.namespace);
            let own = api.list(&ListParams::default()).await;
            services.extend(own.map(|it| it.items).unwrap_or_default());
        }
        for service in services {
            let spec = service.spec.unwrap_or_default();
            let Some(address) = spec.cluster_ip.filter(|it| !it.is_empty() && it != "None") else {
                continue;
            };
            let upper = |it: &str| it.to_uppercase().replace('-', "_");
            let name = upper(&service.metadata.name.unwrap_or_default());
            let ports = spec.ports.unwrap_or_default();
            let Some(first) = ports.first() else { continue };
            all.push((format!("{name}_SERVICE_HOST"), address.clone()));
            all.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
            for port in &ports {
                if let Some(of) = &port.name {
                    all.push((
                        format!("{name}_SERVICE_PORT_{}", upper(of)),
                        port.port.to_string(),
                    ));
                }
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                let (number, lower) = (port.port, protocol.to_lowercase());
                let whole = format!("{lower}://{address}:{number}");
                let stem = format!("{name}_PORT_{number}_{protocol}");
                all.push((format!("{stem}_PROTO"), lower));
                all.push((format!("{stem}_PORT"), number.to_string()));
                all.push((format!("{stem}_ADDR"), address.clone()));
                all.push((stem, whole));
            }
            let protocol = first.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            all.push((
                format!("{name}_PORT"),
                format!("{protocol}://{address}:{}", first.port),
            ));
        }
        all
    }

    /// What a `fieldRef` stands for.
    fn field(&self, path: &str) -> String {
        if let Some((of, key)) = path.strip_suffix("']").and_then(|it| it.split_once("['")) {
            let values = &self.pod["metadata"][of.trim_start_matches("metadata.")];
            return text(&values[key]).to_owned();
        }
        if let "metadata.labels" | "metadata.annotations" = path {
            let values = self.pod["metadata"][&path["metadata.".len()..]].as_object();
            let lines = values.into_iter().flatten();
            return lines
                .map(|(key, value)| format!("{key}={value}\n"))
                .collect();
        }
        let pointer = format!("/{}", path.replace('.', "/"));
        let found = self.pod.pointer(&pointer);
        match found {
            Some(Value::Array(all)) => {
                text(&all.first().cloned().unwrap_or_default()["ip"]).to_owned()
            }
            found => found.map(text).unwrap_or_default().to_owned(),
        }
    }

    /// What a `resourceFieldRef` stands for: whole multiples of its divisor, rounded up. What has no
    /// limit may use all that the node has.
    async fn resource(&self, spec: &Value, of: &Value) -> String {
        let named = text(&of["containerName"]);
        let other = list(&self.pod["spec"]["containers"]).find(|it| it["name"] == named);
        let spec = other.unwrap_or(spec);
        let (list, name) = text(&of["resource"]).split_once('.').unwrap_or_default();
        let mut quantity = text(&spec["resources"][list][name]).to_owned();
        if quantity.is_empty() && list == "limits" {
            let nodes: Api<Node> = Api::all(self.client.clone());
            let node = nodes.get(text(&self.pod["spec"]["nodeName"])).await;
            let status = node.ok().and_then(|it| it.status).unwrap_or_default();
            let all = status.allocatable.unwrap_or_default();
            quantity = all.get(name).map(|it| it.0.clone()).unwrap_or_default();
        }
        let value = parse_quantity(name, &quantity).unwrap_or(0);
        let unit = match text(&of["divisor"]) {
            "" | "0" => "1",
            unit => unit,
        };
        let unit = parse_quantity(name, unit).unwrap_or(1).max(1);
        (value.saturating_add(unit - 1) / unit).to_string()
    }

    async fn disk(&self, spec: &Value, variables: &BTreeMap<String, String>) -> Disk {
        let mut disk = Disk::default();
        let host = variables.get("HOSTNAME").cloned().unwrap_or_default();
        let address = text(&self.pod["status"]["podIP"]);
        let mut hosts =
            format!("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n{address}\t{host}\n");
        for alias in list(&self.pod["spec"]["hostAliases"]) {
            let names = strings(&alias["hostnames"]).join("\t");
            hosts += &format!("{}\t{names}\n", text(&alias["ip"]));
        }
        disk.put("/etc/hosts", hosts.into_bytes());
        disk.put("/etc/hostname", format!("{host}\n").into_bytes());
        disk.read_only = spec["securityContext"]["readOnlyRootFilesystem"] == true;
        for mount in list(&spec["volumeMounts"]) {
            let volume = list(&self.pod["spec"]["volumes"]).find(|it| it["name"] == mount["name"]);
            let Some(volume) = volume else { continue };
            let path = text(&mount["mountPath"]).trim_end_matches('/').to_owned();
            let inside = match text(&mount["subPathExpr"]) {
                "" => text(&mount["subPath"]).to_owned(),
                expression => program::expanded(expression, variables),
            };
            if volume.get("emptyDir").is_some() || volume.get("hostPath").is_some() {
                disk.folder(&path);
                disk.mode(&path, 0o777);
                if volume["emptyDir"]["medium"] == "Memory" {
                    disk.memory.push(path.clone());
                }
                disk.writable.push(path);
                continue;
            }
            let files = self.volume(spec, volume).await;
            if inside.is_empty() {
                disk.folder(&path);
            }
            for (name, (content, mode)) in files {
                let to = match name.strip_prefix(&inside) {
                    Some("") => path.clone(),
                    Some(rest) if inside.is_empty() => format!("{path}/{rest}"),
                    Some(rest) if rest.starts_with('/') => format!("{path}{rest}"),
                    _ => continue,
                };
                disk.put(&to, content);
                disk.mode(&to, mode);
            }
        }
        disk
    }

    /// The files of a volume with their modes, by their paths in it.
    async fn volume(&self, spec: &Value, volume: &Value) -> BTreeMap<String, (Vec<u8>, u32)> {
        let mut files = BTreeMap::new();
        let whole = |it: &Value| u32::try_from(it.as_u64().unwrap_or(0o644)).unwrap_or(0o644);
        if let Some(of) = volume.get("projected") {
            let usual = whole(&of["defaultMode"]);
            for source in list(&of["sources"]) {
                self.source(spec, source, usual, &mut files).await;
            }
            return files;
        }
        for kind in ["configMap", "secret", "downwardAPI"] {
            if let Some(of) = volume.get(kind) {
                self.source(spec, volume, whole(&of["defaultMode"]), &mut files)
                    .await;
            }
        }
        files
    }

    async fn source(
        &self,
        spec: &Value,
        source: &Value,
        usual: u32,
        files: &mut BTreeMap<String, (Vec<u8>, u32)>,
    ) {
        let mode = |item: &Value| {
            item["mode"]
                .as_u64()
                .and_then(|it| u32::try_from(it).ok())
                .unwrap_or(usual)
        };
        if let Some(of) = source.get("downwardAPI") {
            for item in list(&of["items"]) {
                let content = match item.get("resourceFieldRef") {
                    Some(resource) => self.resource(spec, resource).await,
                    None => self.field(text(&item["fieldRef"]["fieldPath"])),
                };
                let path = text(&item["path"]).to_owned();
                files.insert(path, (content.into_bytes(), mode(item)));
            }
            return;
        }
        if let Some(of) = source.get("serviceAccountToken") {
            // The token itself is nobody's to see.
            let token = b"simulated by Gantry".to_vec();
            files.insert(text(&of["path"]).to_owned(), (token, usual));
            return;
        }
        let (of, values) = match (source.get("configMap"), source.get("secret")) {
            (Some(of), _) => (of, self.map(text(&of["name"])).await),
            (_, Some(of)) => {
                let name = match text(&of["secretName"]) {
                    "" => text(&of["name"]),
                    name => name,
                };
                (of, self.secret(name).await)
            }
            _ => return,
        };
        let values = values.unwrap_or_default();
        if of["items"].as_array().is_none_or(Vec::is_empty) {
            files.extend(values.into_iter().map(|(key, value)| (key, (value, usual))));
            return;
        }
        for item in list(&of["items"]) {
            if let Some(value) = values.get(text(&item["key"])) {
                let path = text(&item["path"]).to_owned();
                files.insert(path, (value.clone(), mode(item)));
            }
        }
    }
}

fn value_of(values: Option<Values>, of: &Value) -> Option<String> {
    let values = values?;
    let value = values.get(text(&of["key"]))?;
    Some(String::from_utf8_lossy(value).into_owned())
}
