//! Usage as it is told: by the kubelet of a node, and as `metrics.k8s.io` by the simulated metrics
//! server, which is an extension API server at an address of the nodes' range.

use super::{
    Answer, METRICS_PORT,
    query::{Query, unescaped},
    typed,
    usage::{self, NODE, Usage},
};
use crate::options::SIMULATED;
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
fn pod_metrics(pod: &Pod, now: Timestamp) -> Option<Value> {
    let used = usage::of_pod(pod, now);
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
    let containers = used
        .iter()
        .map(|it| json!({"name": it.name, "usage": quantities(it.usage)}));
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

fn total(pod: &Pod, now: Timestamp) -> Usage {
    let mut sum = Usage::default();
    for used in usage::of_pod(pod, now) {
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
pub async fn serve(client: Client, request: Request<Incoming>) -> Response<Answer> {
    match answer(client, &request).await {
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
    client: Client,
    request: &Request<Incoming>,
) -> Result<Response<Answer>, kube::Error> {
    let now = Timestamp::now();
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
                    *used.entry(node).or_insert(NODE) += total(&pod, now);
                }
            }
            // Of others somebody else would know.
            let ours = nodes
                .items
                .iter()
                .filter(|it| it.labels().contains_key(SIMULATED));
            let items = ours
                .map(|it| node_metrics(it, used.get(&it.name_any()).copied().unwrap_or(NODE), now));
            ok(&list("NodeMetricsList", items.collect()))
        }
        ["nodes", name] => match Api::<Node>::all(client.clone()).get_opt(name).await? {
            Some(node) if node.labels().contains_key(SIMULATED) => {
                let mut sum = NODE;
                for pod in pods_on(client, name).await? {
                    sum += total(&pod, now);
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
                    .filter_map(|it| pod_metrics(it, now))
                    .collect(),
            ))
        }
        ["namespaces", namespace, "pods", name] => {
            let pod = pods_in(namespace).get_opt(name).await?;
            match pod.and_then(|it| pod_metrics(&it, now)) {
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
    client: Client,
    node: &str,
    what: &str,
) -> Result<Response<Answer>, kube::Error> {
    let now = Timestamp::now();
    let pods = pods_on(client, node).await?;
    Ok(match what {
        "metrics" => typed(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            prometheus(&pods, now),
        ),
        "stats" => typed(StatusCode::OK, JSON, summary(node, &pods, now).to_string()),
        _ => typed(
            StatusCode::OK,
            JSON,
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})
                .to_string(),
        ),
    })
}

/// Seconds of CPU used since an instant, were usage always what it is now.
#[expect(clippy::cast_precision_loss, reason = "made-up amounts")]
fn spent(usage: Usage, since: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(since).as_secs_f64().max(0.0) * usage.nanos as f64 / 1e9
}

fn prometheus(pods: &[Pod], now: Timestamp) -> String {
    let at = now.as_millisecond();
    let (mut cpu, mut memory) = (String::new(), String::new());
    let (mut node, mut node_spent) = (NODE, spent(NODE, Timestamp::UNIX_EPOCH, now));
    for pod in pods {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        for used in usage::of_pod(pod, now) {
            let labels = format!(
                "{{container=\"{}\",namespace=\"{namespace}\",pod=\"{name}\"}}",
                used.name
            );
            let seconds = spent(used.usage, used.since, now);
            node += used.usage;
            node_spent += seconds;
            // Writing to a string does not fail.
            let _ = writeln!(
                cpu,
                "container_cpu_usage_seconds_total{labels} {seconds} {at}"
            );
            let _ = writeln!(
                memory,
                "container_memory_working_set_bytes{labels} {} {at}",
                used.usage.bytes
            );
        }
    }
    format!(
        "# {NOTE}\n\
         # TYPE container_cpu_usage_seconds_total counter\n{cpu}\
         # TYPE container_memory_working_set_bytes gauge\n{memory}\
         # TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {node_spent} {at}\n\
         # TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes {} {at}\n\
         # TYPE resource_scrape_error gauge\nresource_scrape_error 0\n",
        node.bytes
    )
}

fn summary(node: &str, pods: &[Pod], now: Timestamp) -> Value {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let parts = |usage: Usage| {
        let cpu = json!({"time": time, "usageNanoCores": usage.nanos});
        let memory = json!({"time": time, "usageBytes": usage.bytes, "workingSetBytes": usage.bytes, "rssBytes": usage.bytes});
        (cpu, memory)
    };
    let mut whole = NODE;
    let mut list = vec![];
    for pod in pods {
        let sum = total(pod, now);
        whole += sum;
        let containers: Vec<Value> = usage::of_pod(pod, now)
            .iter()
            .map(|used| {
                let (cpu, memory) = parts(used.usage);
                json!({"name": used.name, "startTime": used.since.to_string(), "cpu": cpu, "memory": memory})
            })
            .collect();
        let (cpu, memory) = parts(sum);
        list.push(json!({
            "podRef": {"name": pod.name_any(), "namespace": pod.namespace(), "uid": pod.uid()},
            "startTime": pod.status.as_ref().and_then(|it| it.start_time.as_ref()),
            "containers": containers, "cpu": cpu, "memory": memory,
        }));
    }
    let (cpu, memory) = parts(whole);
    json!({"node": {"nodeName": node, "cpu": cpu, "memory": memory}, "pods": list})
}
