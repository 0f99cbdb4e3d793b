//! The metrics APIs, read as Kubernetes' clients read them, with their words for what fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gantry_machinery::quota::quantity;
use gantry_machinery::selector::Labels;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::replicas::{Sample, Samples};
use crate::model::autoscaler::{Identifier, ObjectRef};
use crate::model::meta::{MetaOnly, nullable};
use crate::runtime::discovery::{Catalogue, Served};
use crate::runtime::{Api, ApiError};

/// The window of a metric that names none.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
const CUSTOM: &str = "custom.metrics.k8s.io";

#[derive(Deserialize)]
#[serde(bound = "T: serde::de::DeserializeOwned")]
struct List<T> {
    #[serde(default = "Vec::new", deserialize_with = "nullable")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PodMetrics {
    #[serde(flatten)]
    about: MetaOnly,
    timestamp: Option<Timestamp>,
    #[serde(default)]
    window: String,
    #[serde(default, deserialize_with = "nullable")]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    #[serde(default)]
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    #[serde(default)]
    described_object: ObjectRef,
    timestamp: Option<Timestamp>,
    window_seconds: Option<i64>,
    #[serde(default)]
    value: Value,
}

/// What may be asked of the metrics APIs of one cluster.
pub struct Metrics<'a> {
    pub api: &'a Api,
    pub catalogue: &'a Catalogue,
}

/// The server's words, or client-go's where the server had none of its own: a group that nobody
/// serves is answered without a Status.
fn words(error: &ApiError, resource: &str) -> String {
    let bare = error
        .status()
        .filter(|s| s.details.as_ref().is_none_or(|d| d.kind.is_empty()));
    match bare.map(|s| s.code) {
        Some(404) => {
            format!("the server could not find the requested resource (get {resource})")
        }
        Some(503) => {
            format!("the server is currently unable to handle the request (get {resource})")
        }
        _ => error.message(),
    }
}

/// A value as it stands in a query or a path.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn milli(value: &Value) -> Option<i64> {
    Some(quantity(value)?.milli())
}

fn query(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    }
}

/// The selector of a metric as a query; without one, all series of the metric are meant.
///
/// # Errors
/// In Kubernetes' words, for a selector that is none.
fn series(metric: &Identifier) -> Result<String, String> {
    match &metric.selector {
        Some(selector) if !selector.is_null() => Labels::from_label_selector(selector)
            .map(|labels| labels.to_string())
            .map_err(|failure| failure.message),
        _ => Ok(String::new()),
    }
}

impl Metrics<'_> {
    /// Usage of a resource by pod, or by the container of that name in each.
    pub async fn resource(
        &self,
        resource: &str,
        namespace: &str,
        selector: &str,
        container: &str,
    ) -> Result<Samples, String> {
        let uri = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods{}",
            encoded(namespace),
            query(&[("labelSelector", selector)])
        );
        let list: List<PodMetrics> = self.api.read(&uri).await.map_err(|error| {
            let why = words(&error, "pods.metrics.k8s.io");
            format!("unable to fetch metrics from resource metrics API: {why}")
        })?;
        if list.items.is_empty() {
            return Err("no metrics returned from resource metrics API".into());
        }
        samples(list.items, resource, container)
    }

    async fn custom_version(&self) -> Result<String, String> {
        let served = self.catalogue.find(self.api, |s| &*s.group == CUSTOM).await;
        served.map(|s| s.version.to_string()).ok_or_else(|| {
            format!("unable to fetch metrics from custom metrics API: no custom metrics API ({CUSTOM}) registered")
        })
    }

    /// A metric of each pod.
    pub async fn of_pods(
        &self,
        metric: &Identifier,
        namespace: &str,
        selector: &str,
    ) -> Result<Samples, String> {
        let series = series(metric)?;
        let version = self.custom_version().await?;
        let uri = format!(
            "/apis/{CUSTOM}/{version}/namespaces/{}/pods/*/{}{}",
            encoded(namespace),
            encoded(&metric.name),
            query(&[
                ("labelSelector", selector),
                ("metricLabelSelector", &series)
            ])
        );
        let list = self.values(&uri, &metric.name).await?;
        let mut samples = Samples::new();
        for item in list {
            let window = item
                .window_seconds
                .map_or(WINDOW, SignedDuration::from_secs);
            let sample = Sample {
                value: milli(&item.value).unwrap_or(0),
                at: item.timestamp.unwrap_or(Timestamp::UNIX_EPOCH),
                window,
            };
            samples.insert(item.described_object.name.into(), sample);
        }
        Ok(samples)
    }

    /// A metric of one object, in thousandths.
    pub async fn of_object(
        &self,
        metric: &Identifier,
        namespace: &str,
        object: &ObjectRef,
    ) -> Result<i64, String> {
        let series = series(metric)?;
        let version = self.custom_version().await?;
        let name = encoded(&object.name);
        let about = if object.kind == "Namespace" && object.group().is_empty() {
            format!("namespaces/{name}/metrics")
        } else {
            let is = |s: &Served| *s.group == *object.group() && *s.kind == *object.kind;
            let served = self.catalogue.find(self.api, is).await.ok_or_else(|| {
                format!(
                    "unable to fetch metrics from custom metrics API: no matches for kind \"{}\" in group \"{}\"",
                    object.kind,
                    object.group()
                )
            })?;
            let resource = if served.group.is_empty() {
                served.plural.to_string()
            } else {
                format!("{}.{}", served.plural, served.group)
            };
            if served.namespaced {
                format!("namespaces/{}/{resource}/{name}", encoded(namespace))
            } else {
                format!("{resource}/{name}")
            }
        };
        let uri = format!(
            "/apis/{CUSTOM}/{version}/{about}/{}{}",
            encoded(&metric.name),
            query(&[("metricLabelSelector", &series)])
        );
        let list = self.values(&uri, &metric.name).await?;
        Ok(list.first().and_then(|v| milli(&v.value)).unwrap_or(0))
    }

    async fn values(&self, uri: &str, metric: &str) -> Result<Vec<MetricValue>, String> {
        let list: List<MetricValue> = self.api.read(uri).await.map_err(|error| {
            let why = words(&error, &format!("{metric}.{CUSTOM}"));
            format!("unable to fetch metrics from custom metrics API: {why}")
        })?;
        if list.items.is_empty() {
            return Err("no metrics returned from custom metrics API".into());
        }
        Ok(list.items)
    }

    /// The sum of a metric from outside, in thousandths.
    pub async fn external(&self, metric: &Identifier, namespace: &str) -> Result<i64, String> {
        let series = series(metric)?;
        let uri = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{}{}",
            encoded(namespace),
            encoded(&metric.name),
            query(&[("labelSelector", &series)])
        );
        let list: List<MetricValue> = self.api.read(&uri).await.map_err(|error| {
            let why = words(&error, &format!("{}.external.metrics.k8s.io", metric.name));
            format!("unable to fetch metrics from external metrics API: {why}")
        })?;
        if list.items.is_empty() {
            return Err("no metrics returned from external metrics API".into());
        }
        Ok(list
            .items
            .iter()
            .filter_map(|v| milli(&v.value))
            .fold(0, i64::saturating_add))
    }
}

fn samples(items: Vec<PodMetrics>, resource: &str, container: &str) -> Result<Samples, String> {
    let mut samples = Samples::new();
    for pod in items {
        let meta = &pod.about.metadata;
        let value = if container.is_empty() {
            // A pod of which one container is not told is not told at all.
            let all: Option<Vec<i64>> = pod
                .containers
                .iter()
                .map(|c| c.usage.get(resource).and_then(milli))
                .collect();
            all.filter(|all| !all.is_empty())
                .map(|all| all.into_iter().fold(0, i64::saturating_add))
        } else {
            let found = pod.containers.iter().find(|c| c.name == container);
            let Some(found) = found else {
                return Err(format!(
                    "container {container} not present in metrics for pod {}/{}",
                    meta.namespace, meta.name
                ));
            };
            found.usage.get(resource).and_then(milli)
        };
        let Some(value) = value else { continue };
        let window = pod.window.parse::<SignedDuration>().unwrap_or(WINDOW);
        let sample = Sample {
            value,
            at: pod.timestamp.unwrap_or(Timestamp::UNIX_EPOCH),
            window,
        };
        samples.insert(meta.name.clone(), sample);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_of_pods_and_of_containers() {
        let list: List<PodMetrics> = serde_json::from_value(json!({"items": [
            {"metadata": {"name": "a", "namespace": "n"}, "timestamp": "2026-01-01T00:00:00Z", "window": "30s",
                "containers": [{"name": "c", "usage": {"cpu": "1500000n", "memory": "1Ki"}}, {"name": "d", "usage": {"cpu": "2m"}}]},
            {"metadata": {"name": "b", "namespace": "n"}, "timestamp": "2026-01-01T00:00:00Z", "window": "1m0s",
                "containers": [{"name": "c", "usage": {"cpu": "1"}}]}]}))
        .unwrap();
        let of = |resource: &str, container: &str, items| samples(items, resource, container);
        let read = || -> Vec<PodMetrics> {
            list.items
                .iter()
                .map(|p| PodMetrics {
                    about: p.about.clone(),
                    timestamp: p.timestamp,
                    window: p.window.clone(),
                    containers: p
                        .containers
                        .iter()
                        .map(|c| ContainerMetrics {
                            name: c.name.clone(),
                            usage: c.usage.clone(),
                        })
                        .collect(),
                })
                .collect()
        };
        let cpu = of("cpu", "", read()).unwrap();
        assert_eq!(cpu["a"].value, 4, "1.5 thousandths count as 2");
        assert_eq!(cpu["a"].window, SignedDuration::from_secs(30));
        assert_eq!(cpu["b"].window, SignedDuration::from_secs(60));
        let memory = of("memory", "", read()).unwrap();
        assert_eq!(memory.len(), 0, "one container of a, and b, are not told");
        assert_eq!(of("memory", "c", read()).unwrap()["a"].value, 1_024_000);
        assert_eq!(
            of("cpu", "d", read()).unwrap_err(),
            "container d not present in metrics for pod n/b"
        );
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(
            query(&[("labelSelector", "a in (b,c)"), ("x", "")]),
            "?labelSelector=a%20in%20%28b%2Cc%29"
        );
    }
}
