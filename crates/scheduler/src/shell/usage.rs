//! What nodes really use: asked of the metrics API, or watched as Koordinator's NodeMetric.

use super::driver::Driver;
use super::note::Note;
use super::objects::Input;
use crate::core::load::Source;
use crate::core::object::NodeMetric;
use crate::core::quantity::{milli, units};
use crate::core::services;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the metrics API is asked. It measures every 15 s where nobody set it otherwise.
const EVERY: Duration = Duration::from_secs(15);

/// A node as it was measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Measurement {
    pub node: String,
    /// Millicores, bytes.
    pub usage: [i64; 2],
    /// Seconds since 1970.
    pub at: i64,
    /// Over how many seconds before.
    pub window: i64,
}

#[derive(Deserialize)]
struct NodeMetricsList {
    #[serde(default)]
    items: Vec<NodeMetrics>,
}

#[derive(Deserialize)]
struct NodeMetrics {
    metadata: ObjectMeta,
    timestamp: Option<Time>,
    #[serde(default)]
    window: String,
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

fn usage(of: &BTreeMap<String, Quantity>) -> Option<[i64; 2]> {
    let cpu = milli(&of.get("cpu")?.0)?;
    let memory = units(&of.get("memory")?.0)?;
    Some([cpu, memory])
}

impl NodeMetrics {
    fn read(self) -> Option<Measurement> {
        let window = self.window.parse::<SignedDuration>();
        Some(Measurement {
            usage: usage(&self.usage)?,
            node: self.metadata.name?,
            at: self.timestamp?.0.as_second(),
            window: window.map_or(0, |w| w.as_secs()),
        })
    }
}

/// What a NodeMetric says of its node, if it says anything yet.
pub fn measured(metric: &NodeMetric) -> Option<Measurement> {
    let status = &metric.status;
    let collected = metric.spec.metric_collect_policy.as_ref();
    Some(Measurement {
        node: metric.metadata.name.clone()?,
        usage: usage(&status.node_metric.as_ref()?.node_usage.resources)?,
        at: status.update_time.as_ref()?.0.as_second(),
        window: collected
            .and_then(|c| c.aggregate_duration_seconds)
            .unwrap_or(0),
    })
}

/// Asks the metrics API once for all nodes.
///
/// # Errors
/// If there is no such API, or it does not answer.
pub async fn ask(client: &Client) -> Result<Vec<Measurement>, kube::Error> {
    let request = http::Request::get("/apis/metrics.k8s.io/v1beta1/nodes")
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    let list: NodeMetricsList = client.request(request).await?;
    let read = list.items.into_iter().filter_map(NodeMetrics::read);
    Ok(read.collect())
}

/// Asks the metrics API for ever; ends when the receiver is gone.
pub async fn poll(client: Client, out: mpsc::Sender<Input>) {
    let mut failures = 0_u64;
    loop {
        match ask(&client).await {
            Ok(all) => {
                failures = 0;
                if out.send(Input::Usage(all)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                failures += 1;
                if failures.is_power_of_two() {
                    tracing::warn!(%error, failures, "the metrics API does not tell what nodes use; will ask again");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = out.closed() => return,
        }
    }
}

/// How often pods are asked for: their day is learned by the hour.
const EVERY_PODS: Duration = Duration::from_secs(300);

/// A pod as it was measured: namespace, App, hour of the day (UTC), and what it used. Of pods of no App nothing is
/// learned.
pub type PodUsage = (String, String, usize, services::Usage);

#[derive(Deserialize)]
struct PodMetricsList {
    #[serde(default)]
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: ObjectMeta,
    timestamp: Option<Time>,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

impl PodMetrics {
    fn read(self) -> Option<PodUsage> {
        let mut sum = services::Usage::default();
        for container in &self.containers {
            let [cpu, memory] = usage(&container.usage)?;
            sum.base[0] += cpu;
            sum.base[1] += memory;
            let network = container.usage.get(gantry_api::labels::NETWORK);
            if let Some(network) = network.and_then(|told| units(&told.0)) {
                sum.network = Some(sum.network.unwrap_or(0) + network);
            }
        }
        let at = self.timestamp?.0.as_second();
        let hour = usize::try_from(at.rem_euclid(86_400) / 3600).ok()?;
        let app = self.metadata.labels?.remove(gantry_api::labels::APP)?;
        Some((self.metadata.namespace?, app, hour, sum))
    }
}

/// Asks the metrics API for all pods for ever; ends when the receiver is gone.
pub async fn poll_pods(client: Client, out: mpsc::Sender<Input>) {
    loop {
        let request = http::Request::get("/apis/metrics.k8s.io/v1beta1/pods").body(Vec::new());
        let answer = match request {
            Ok(request) => client.request::<PodMetricsList>(request).await,
            Err(error) => Err(kube::Error::HttpError(error)),
        };
        match answer {
            Ok(list) => {
                let all = list.items.into_iter().filter_map(PodMetrics::read);
                if out.send(Input::PodUsage(all.collect())).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "the metrics API does not tell what pods use"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY_PODS) => {}
            () = out.closed() => return,
        }
    }
}

/// Seconds since 1970.
pub fn unix_now() -> i64 {
    Timestamp::now().as_second()
}

/// Whether it has been said that measurements are missing.
#[derive(Default)]
pub(super) struct Watch {
    /// Since when usage is looked at; seconds since 1970.
    since: Option<i64>,
    warned: bool,
}

impl Driver {
    pub(super) fn measure(&mut self, measurement: &Measurement) {
        let Measurement {
            node,
            usage,
            at,
            window,
        } = measurement;
        self.cluster.measure(node, *usage, *at, *window);
    }

    /// Lets measurements grow old, and says so once where they are ignored: as long as some are, it is one warning.
    pub(super) fn look_at_usage(&mut self) {
        if !self.cluster.nodes.loads.on {
            return;
        }
        let now = unix_now();
        let stale = self.cluster.pass_time(now);
        let (known, measured) = (self.cluster.nodes.known, self.cluster.measured_nodes());
        let metrics = &self.options.metrics;
        let ignored = known.saturating_sub(measured);
        metrics.stale_nodes.store(ignored as u64, Relaxed);
        metrics
            .stale_measurements
            .fetch_add(stale.len() as u64, Relaxed);
        let since = *self.usage.since.get_or_insert(now);
        let expiry = self.cluster.nodes.loads.expiry;
        if ignored == 0 {
            self.usage.warned = false;
            return;
        }
        let none_came = measured == 0 && now >= since.saturating_add(expiry) && known > 0;
        if self.usage.warned || (stale.is_empty() && !none_came) {
            return;
        }
        self.usage.warned = true;
        let message = if let Some(example) = stale.first() {
            let name = self.cluster.node_name(*example);
            format!(
                "usage of {ignored} of {known} nodes, such as {name}, was measured more than {expiry} s ago and is \
                 ignored: their pods count by requests"
            )
        } else {
            format!(
                "usage of none of {known} nodes is known: all pods count by requests; is there a source of {}?",
                match self.source() {
                    Source::MetricsApi => "metrics.k8s.io",
                    Source::NodeMetric => "slo.koordinator.sh NodeMetrics",
                }
            )
        };
        tracing::warn!("{message}");
        let example = stale
            .first()
            .map(|node| self.cluster.node_name(*node).to_owned());
        if let Some(node) = example.or_else(|| self.cluster.node_names().next().map(Into::into)) {
            self.note(Note::about("v1", "Node", "", &node, "StaleUsage", message));
        }
    }

    /// Where the first profile that looks at usage wants it from.
    fn source(&self) -> Source {
        let load = self.options.profiles.iter().find_map(|p| p.load.as_ref());
        load.map(|l| l.source).unwrap_or_default()
    }

    /// When [`Driver::look_at_usage`] next has something to do.
    pub(super) fn usage_deadline(&self) -> Option<Duration> {
        let loads = &self.cluster.nodes.loads;
        let since = self.usage.since.filter(|_| !self.usage.warned);
        let none_came = since.map(|at| at.saturating_add(loads.expiry));
        let next = self.cluster.next_stale().or(none_came)?;
        let left = u64::try_from(next.saturating_sub(unix_now())).unwrap_or(0);
        // A second is as fine as it gets: measurements are dated in seconds.
        Some(self.now() + Duration::from_secs(left.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_containers_are_summed_by_app_and_hour() {
        let list: PodMetricsList = serde_json::from_value(json!({"items": [
            {"metadata": {"name": "a", "namespace": "shop", "labels": {"gantry.dev/app": "cart"}},
                "timestamp": "1970-01-02T13:59:59Z", "containers": [
                {"name": "x", "usage": {"cpu": "100m", "memory": "1Mi", "gantry.dev/network": "2M"}}, {"name": "y", "usage": {"cpu": "50m", "memory": "1Mi"}}]},
            {"metadata": {"name": "b", "namespace": "shop"}, "timestamp": "1970-01-02T13:59:59Z"}]}))
        .unwrap();
        let read: Vec<_> = list
            .items
            .into_iter()
            .filter_map(PodMetrics::read)
            .collect();
        let usage = services::Usage {
            base: [150, 2 << 20],
            network: Some(2_000_000),
        };
        assert_eq!(read, [("shop".to_owned(), "cart".to_owned(), 13, usage)]);
    }

    #[test]
    fn both_sources_are_read() {
        let list: NodeMetricsList = serde_json::from_value(json!({"items": [
            {"metadata": {"name": "a"}, "timestamp": "1970-01-01T00:01:40Z", "window": "10.062s",
                "usage": {"cpu": "1500000001n", "memory": "1024Ki"}},
            {"metadata": {"name": "b"}, "usage": {}}]}))
        .unwrap();
        let read: Vec<_> = list
            .items
            .into_iter()
            .filter_map(NodeMetrics::read)
            .collect();
        let want = |node: &str, window| Measurement {
            node: node.to_owned(),
            usage: [1501, 1 << 20],
            at: 100,
            window,
        };
        assert_eq!(read, [want("a", 10)]);
        let metric = json!({"metadata": {"name": "c"},
            "spec": {"metricCollectPolicy": {"aggregateDurationSeconds": 300}},
            "status": {"updateTime": "1970-01-01T00:01:40Z",
                "nodeMetric": {"nodeUsage": {"resources": {"cpu": "1501m", "memory": "1Mi"}}}}});
        let metric: NodeMetric = serde_json::from_value(metric).unwrap();
        assert_eq!(measured(&metric), Some(want("c", 300)));
        let empty: NodeMetric = serde_json::from_value(json!({"metadata": {"name": "d"}})).unwrap();
        assert_eq!(measured(&empty), None);
    }
}
