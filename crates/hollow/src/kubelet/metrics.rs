//! Usage as it is told: by the kubelet of a node, and as `metrics.k8s.io` by the simulated metrics
//! server, which is an extension API server at an address of the nodes' range.

use super::{
    Answer, METRICS_PORT, Network,
    query::{Query, unescaped},
    typed,
    usage::{self, Usage},
};
use crate::{object::parse_quantity, options::SIMULATED, truth::Truth};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use std::{fmt::Write as _, net::Ipv4Addr};

const JSON: &str = "application/json";
const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "metrics.k8s.io/v1beta1";
const NAME: &str = "metrics-server";
/// Bytes a second of network, as a resource.
const NETWORK: &str = "gantry.dev/network";
/// Over what usage is said to be measured.
const WINDOW: &str = "15s";
const NOTE: &str = "usage is simulated by Gantry: nothing runs, nothing is measured";

/// The objects that lead to the simulated metrics server: its address, by way of a service, and the
/// group version that it serves. Collections, and what goes into them.
#[must_use]
pub fn objects(address: Ipv4Addr) -> [(&'static str, Value); 3] {
    let meta = |name: &str| {
        json!({
            "name": name, "labels": {"k8s-app": NAME, SIMULATED: "true"}, "annotations": {SIMULATED: NOTE},
        })
    };
    let mut slice = meta(NAME);
    slice["labels"]["kubernetes.io/service-name"] = NAME.into();
    slice["labels"]["endpointslice.kubernetes.io/managed-by"] = "hollow.gantry.dev".into();
    [
        (
            "/api/v1/namespaces/kube-system/services",
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": meta(NAME),
                "spec": {"ports": [{"name": "https", "port": METRICS_PORT, "protocol": "TCP", "targetPort": METRICS_PORT}]},
            }),
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice,
                "addressType": "IPv4",
                "ports": [{"name": "https", "port": METRICS_PORT, "protocol": "TCP"}],
                "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
            }),
        ),
        (
            "/apis/apiregistration.k8s.io/v1/apiservices",
            json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": meta("v1beta1.metrics.k8s.io"),
                "spec": {
                    "group": GROUP, "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                    "insecureSkipTLSVerify": true,
                    "service": {"namespace": "kube-system", "name": NAME, "port": METRICS_PORT},
                },
            }),
        ),
    ]
}

fn quantities(usage: Usage) -> Value {
    json!({"cpu": format!("{}n", usage.nanos), "memory": format!("{}Ki", usage.bytes / 1024)})
}

fn meta(
    labels: Option<&std::collections::BTreeMap<String, String>>,
    name: &str,
    namespace: Option<&str>,
    now: Timestamp,
) -> Value {
    let mut meta =
        json!({"name": name, "creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    if let Some(namespace) = namespace {
        meta["namespace"] = namespace.into();
    }
    if let Some(labels) = labels.filter(|it| !it.is_empty()) {
        meta["labels"] = json!(labels);
    }
    meta["annotations"] = json!({SIMULATED: NOTE});
    meta
}

fn object(kind: &str, meta: Value, now: Timestamp) -> Value {
    json!({
        "kind": kind, "apiVersion": VERSION, "metadata": meta,
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "window": WINDOW,
    })
}

/// `None` while nothing of the pod runs: there is nothing to measure.
fn pod_metrics(pod: &Pod, now: Timestamp, truth: &Truth) -> Option<Value> {
    let used = usage::of_pod(pod, now, truth);
    if used.is_empty() {
        return None;
    }
    let namespace = pod.metadata.namespace.as_deref();
    let mut value = object(
        "PodMetrics",
        meta(
            pod.metadata.labels.as_ref(),
            &pod.name_any(),
            namespace,
            now,
        ),
        now,
    );
    let containers = used.iter().map(|it| {
        let mut usage = quantities(it.usage);
        // Beyond what metrics-server measures; told only where somebody has said how much it is.
        if let Some(network) = it.network {
            usage[NETWORK] = json!(network.to_string());
        }
        json!({"name": it.name, "usage": usage})
    });
    value["containers"] = containers.collect();
    Some(value)
}

fn node_metrics(node: &Node, usage: Usage, now: Timestamp) -> Value {
    let mut value = object(
        "NodeMetrics",
        meta(node.metadata.labels.as_ref(), &node.name_any(), None, now),
        now,
    );
    value["usage"] = quantities(usage);
    value
}

fn total(pod: &Pod, now: Timestamp, truth: &Truth) -> Usage {
    let mut sum = Usage::default();
    for used in usage::of_pod(pod, now, truth) {
        sum += used.usage;
    }
    sum
}

fn not_found(resource: &str, name: &str) -> Response<Answer> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
        "reason": "NotFound", "message": format!("{resource}.{GROUP} \"{name}\" not found"),
        "details": {"name": name, "group": GROUP, "kind": resource},
    });
    typed(StatusCode::NOT_FOUND, JSON, status.to_string())
}

/// Answers a request to the metrics server.
pub async fn serve(
    network: Network,
    client: Client,
    request: Request<Incoming>,
) -> Response<Answer> {
    match answer(&network, client, &request).await {
        Ok(response) => response,
        Err(error) => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
                "reason": "InternalError", "message": format!("Internal error occurred: {error}"),
            });
            typed(StatusCode::INTERNAL_SERVER_ERROR, JSON, status.to_string())
        }
    }
}

async fn answer(
    network: &Network,
    client: Client,
    request: &Request<Incoming>,
) -> Result<Response<Answer>, kube::Error> {
    let truth = network.truth();
    let now = truth.clock.now().timestamp();
    // What nobody can ask has not been measured.
    let reached = |pod: &Pod| {
        let node = pod.spec.as_ref().and_then(|it| it.node_name.as_deref());
        node.is_some_and(|it| network.reaches(it))
    };
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let parts: Vec<_> = path.split('/').skip(1).map(unescaped).collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    let query = Query::parse(request.uri().query());
    let only = ListParams {
        label_selector: query.first("labelSelector").map(str::to_owned),
        field_selector: query.first("fieldSelector").map(str::to_owned),
        ..ListParams::default()
    };
    let ok = |value: &Value| typed(StatusCode::OK, JSON, value.to_string());
    let list = |kind: &str, items: Vec<Value>| json!({"kind": kind, "apiVersion": VERSION, "metadata": {}, "items": items});
    let Some(rest) = parts.strip_prefix(&["apis", GROUP, "v1beta1"]) else {
        return Ok(typed(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "404 page not found\n",
        ));
    };
    let pods_in = |namespace: &str| match namespace {
        "" => Api::<Pod>::all(client.clone()),
        namespace => Api::namespaced(client.clone(), namespace),
    };
    Ok(match rest {
        [] => {
            let one = |name: &str, kind: &str, namespaced: bool| {
                json!({
                    "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"],
                })
            };
            ok(&json!({
                "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION,
                "resources": [one("nodes", "NodeMetrics", false), one("pods", "PodMetrics", true)],
            }))
        }
        ["nodes"] => {
            let nodes = Api::<Node>::all(client.clone()).list(&only).await?;
            let mut used: FxHashMap<String, Usage> = FxHashMap::default();
            for pod in pods_in("").list(&ListParams::default()).await? {
                if let Some(node) = pod.spec.as_ref().and_then(|it| it.node_name.clone()) {
                    *used.entry(node).or_default() += total(&pod, now, &truth);
                }
            }
            // Of others somebody else would know.
            let ours = nodes.items.iter().filter(|it| {
                it.labels().contains_key(SIMULATED) && network.reaches(&it.name_any())
            });
            let items = ours.map(|it| {
                let mut sum = usage::beside(capacity(it, "memory"));
                sum += used.get(&it.name_any()).copied().unwrap_or_default();
                node_metrics(it, sum, now)
            });
            ok(&list("NodeMetricsList", items.collect()))
        }
        ["nodes", name] => match Api::<Node>::all(client.clone()).get_opt(name).await? {
            Some(node) if node.labels().contains_key(SIMULATED) && network.reaches(name) => {
                let mut sum = usage::beside(capacity(&node, "memory"));
                for pod in pods_on(client, name).await? {
                    sum += total(&pod, now, &truth);
                }
                ok(&node_metrics(&node, sum, now))
            }
            _ => not_found("nodes", name),
        },
        ["pods"] | ["namespaces", _, "pods"] => {
            let namespace = if rest.len() == 1 { "" } else { rest[1] };
            let pods = pods_in(namespace).list(&only).await?;
            ok(&list(
                "PodMetricsList",
                pods.items
                    .iter()
                    .filter(|it| reached(it))
                    .filter_map(|it| pod_metrics(it, now, &truth))
                    .collect(),
            ))
        }
        ["namespaces", namespace, "pods", name] => {
            let pod = pods_in(namespace).get_opt(name).await?;
            match pod
                .filter(reached)
                .and_then(|it| pod_metrics(&it, now, &truth))
            {
                Some(value) => ok(&value),
                None => not_found("pods", &format!("{namespace}/{name}")),
            }
        }
        _ => typed(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "404 page not found\n",
        ),
    })
}

async fn pods_on(client: Client, node: &str) -> Result<Vec<Pod>, kube::Error> {
    let only = ListParams::default().fields(&format!("spec.nodeName={node}"));
    Ok(Api::<Pod>::all(client).list(&only).await?.items)
}

/// What the kubelet of a node tells: `metrics` as Prometheus reads it, `stats`, or `pods`.
pub async fn of_node(
    truth: &Truth,
    client: Client,
    node: &str,
    what: &str,
) -> Result<Response<Answer>, kube::Error> {
    let now = truth.clock.now().timestamp();
    let nodes = Api::<Node>::all(client.clone());
    let pods = pods_on(client, node).await?;
    Ok(match what {
        "pods" => typed(
            StatusCode::OK,
            JSON,
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})
                .to_string(),
        ),
        _ => {
            let node = nodes.get(node).await?;
            match what {
                "metrics" => typed(
                    StatusCode::OK,
                    "text/plain; version=0.0.4; charset=utf-8",
                    prometheus(&node, &pods, now, truth),
                ),
                _ => typed(
                    StatusCode::OK,
                    JSON,
                    summary(&node, &pods, now, truth).to_string(),
                ),
            }
        }
    })
}

/// How much of a resource a node has.
fn capacity(node: &Node, resource: &str) -> Option<i64> {
    let all = node.status.as_ref()?.capacity.as_ref()?;
    parse_quantity(resource, &all.get(resource)?.0)
}

/// Since when a node is there.
fn booted(node: &Node, now: Timestamp) -> Timestamp {
    node.metadata
        .creation_timestamp
        .as_ref()
        .map_or(now, |it| it.0)
}

/// A family of metrics, as `pkg/kubelet/metrics/collectors/resource_metrics.go` names and explains it.
struct Family {
    name: &'static str,
    help: &'static str,
    counts: bool,
    lines: String,
}

impl Family {
    fn new(name: &'static str, counts: bool, help: &'static str) -> Self {
        Self {
            name,
            help,
            counts,
            lines: String::new(),
        }
    }

    fn add(&mut self, labels: &str, value: f64, at: Option<i64>) {
        let at = at.map_or(String::new(), |at| format!(" {at}"));
        // Writing to a string does not fail.
        let _ = writeln!(self.lines, "{}{labels} {value}{at}", self.name);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "made-up amounts, far below 2^53"
)]
fn prometheus(node: &Node, pods: &[Pod], now: Timestamp, truth: &Truth) -> String {
    let at = Some(now.as_millisecond());
    let mut families = [
        Family::new(
            "container_cpu_usage_seconds_total",
            true,
            "Cumulative cpu time consumed by the container in core-seconds",
        ),
        Family::new(
            "container_memory_working_set_bytes",
            false,
            "Current working set of the container in bytes",
        ),
        Family::new(
            "container_start_time_seconds",
            false,
            "Start time of the container since unix epoch in seconds",
        ),
        Family::new(
            "node_cpu_usage_seconds_total",
            true,
            "Cumulative cpu time consumed by the node in core-seconds",
        ),
        Family::new(
            "node_memory_working_set_bytes",
            false,
            "Current working set of the node in bytes",
        ),
        Family::new(
            "pod_cpu_usage_seconds_total",
            true,
            "Cumulative cpu time consumed by the pod in core-seconds",
        ),
        Family::new(
            "pod_memory_working_set_bytes",
            false,
            "Current working set of the pod in bytes",
        ),
        Family::new(
            "resource_scrape_error",
            false,
            "1 if there was an error while getting container metrics, 0 otherwise",
        ),
    ];
    let [
        cpu,
        memory,
        start,
        node_cpu,
        node_memory,
        pod_cpu,
        pod_memory,
        error,
    ] = &mut families;
    let mut whole = usage::beside(capacity(node, "memory"));
    let mut seconds = usage::node_seconds(truth, booted(node, now), now);
    for pod in pods {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let (mut sum, mut spent, mut runs) = (Usage::default(), 0.0, false);
        for used in usage::of_pod(pod, now, truth) {
            let labels = format!(
                "{{container=\"{}\",namespace=\"{namespace}\",pod=\"{name}\"}}",
                used.name
            );
            cpu.add(&labels, used.seconds, at);
            memory.add(&labels, used.usage.bytes as f64, at);
            start.add(&labels, used.since.as_millisecond() as f64 / 1e3, None);
            sum += used.usage;
            spent += used.seconds;
            runs = true;
        }
        if runs {
            let labels = format!("{{namespace=\"{namespace}\",pod=\"{name}\"}}");
            pod_cpu.add(&labels, spent, at);
            pod_memory.add(&labels, sum.bytes as f64, at);
        }
        whole += sum;
        seconds += spent;
    }
    node_cpu.add("", seconds, at);
    node_memory.add("", whole.bytes as f64, at);
    error.add("", 0.0, None);
    let mut text = format!("# {NOTE}\n");
    for it in families.iter().filter(|it| !it.lines.is_empty()) {
        let kind = if it.counts { "counter" } else { "gauge" };
        let _ = write!(
            text,
            "# HELP {0} [STABLE] {1}\n# TYPE {0} {kind}\n{2}",
            it.name, it.help, it.lines
        );
    }
    text
}

/// `/stats/summary`, in the parts that follow from usage; what would need a network is left out.
#[expect(
    clippy::cast_possible_truncation,
    reason = "made-up amounts, far below 2^53"
)]
fn summary(node: &Node, pods: &[Pod], now: Timestamp, truth: &Truth) -> Value {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let cpu = |usage: Usage, seconds: f64| {
        json!({
            "time": time, "usageNanoCores": usage.nanos,
            "usageCoreNanoSeconds": (seconds * 1e9) as i64,
        })
    };
    let size = capacity(node, "ephemeral-storage").unwrap_or(0);
    // All of it is on the node's one disk. Images are not counted: a kubelet reclaims theirs first.
    let filesystem = |used: i64| {
        json!({
            "time": time, "capacityBytes": size, "usedBytes": used, "availableBytes": (size - used).max(0),
        })
    };
    let memory = |usage: Usage, limit: Option<i64>| {
        let mut memory = json!({
            "time": time, "usageBytes": usage.bytes, "workingSetBytes": usage.bytes, "rssBytes": usage.bytes,
            "pageFaults": 0, "majorPageFaults": 0,
        });
        if let Some(limit) = limit {
            memory["availableBytes"] = (limit - usage.bytes).max(0).into();
        }
        memory
    };
    let limit = |pod: &Pod, name: &str| -> Option<i64> {
        let containers = &pod.spec.as_ref()?.containers;
        let its = containers.iter().find(|it| it.name == name)?;
        let limits = its.resources.as_ref()?.limits.as_ref()?;
        parse_quantity("memory", &limits.get("memory")?.0)
    };
    let booted = booted(node, now);
    let mut whole = usage::beside(capacity(node, "memory"));
    let mut seconds = usage::node_seconds(truth, booted, now);
    let (mut list, mut disk) = (vec![], 0);
    for pod in pods {
        let (mut sum, mut spent, mut written) = (Usage::default(), 0.0, None);
        let containers: Vec<Value> = usage::of_pod(pod, now, truth)
            .iter()
            .map(|used| {
                sum += used.usage;
                spent += used.seconds;
                let mut container = json!({
                    "name": used.name, "startTime": used.since.to_string(),
                    "cpu": cpu(used.usage, used.seconds),
                    "memory": memory(used.usage, limit(pod, used.name)),
                });
                if let Some(bytes) = used.disk {
                    container["rootfs"] = filesystem(bytes);
                    written = Some(written.unwrap_or(0) + bytes);
                }
                container
            })
            .collect();
        if containers.is_empty() {
            continue;
        }
        whole += sum;
        seconds += spent;
        let mut told = json!({
            "podRef": {"name": pod.name_any(), "namespace": pod.namespace(), "uid": pod.uid()},
            "startTime": pod.status.as_ref().and_then(|it| it.start_time.as_ref()),
            "containers": containers, "cpu": cpu(sum, spent), "memory": memory(sum, None),
        });
        if let Some(bytes) = written {
            told["ephemeral-storage"] = filesystem(bytes);
            disk += bytes;
        }
        list.push(told);
    }
    json!({
        "node": {
            "nodeName": node.name_any(), "startTime": booted.to_string(),
            "cpu": cpu(whole, seconds), "memory": memory(whole, capacity(node, "memory")),
            "fs": filesystem(disk),
        },
        "pods": list,
    })
}
