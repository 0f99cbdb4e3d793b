//! What stands in objects of the API that a pod names: its environment, and the files of its volumes.

use super::sights::Held;
use crate::{object::parse_quantity, program};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use kube::{Api, Client, api::ListParams};
use serde_json::Value;
use std::collections::BTreeMap;

/// The values of a ConfigMap or a Secret.
type Values = BTreeMap<String, Vec<u8>>;

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn strings(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.map(|it| text(it).to_owned()).collect()
}

pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Where a pod finds what it names.
pub struct Place<'a> {
    pub client: &'a Client,
    pub pod: &'a Value,
    pub namespace: &'a str,
}

impl<'a> Place<'a> {
    pub fn of(client: &'a Client, pod: &'a Value) -> Self {
        Self {
            client,
            pod,
            namespace: text(&pod["metadata"]["namespace"]),
        }
    }
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

    pub async fn variables(&self, spec: &Value) -> BTreeMap<String, String> {
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
            // Quoted as in Go, and without an end of line after the last.
            let lines: Vec<String> = lines
                .map(|(key, value)| format!("{key}={:?}", text(value)))
                .collect();
            return lines.join("\n");
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

    /// The files of a volume with their modes, by their paths in it.
    pub async fn volume(&self, spec: &Value, volume: &Value) -> Held {
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

    async fn source(&self, spec: &Value, source: &Value, usual: u32, files: &mut Held) {
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
