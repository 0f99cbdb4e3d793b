//! The scheduler's writes: bindings, the PodScheduled condition, events.

use crate::core::object::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Which pod a write is about.
#[derive(Clone, Debug)]
pub struct PodRef {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    /// Its `spec.schedulerName`: in whose name it is written about.
    pub scheduler: Arc<str>,
}

impl PodRef {
    fn path(&self, subresource: &str) -> String {
        format!(
            "/api/v1/namespaces/{}/pods/{}/{subresource}",
            self.namespace, self.name
        )
    }
}

/// A write that failed.
#[derive(thiserror::Error, Debug)]
pub enum CallError {
    #[error("request to {operation} could not be built")]
    Build {
        operation: &'static str,
        source: http::Error,
    },
    #[error("volume {0} is bound to another claim meanwhile")]
    Taken(String),
    #[error("resource claim {0} has changed meanwhile")]
    Changed(String),
    #[error("a device of resource claim {0} could not be made ready")]
    NotReady(String),
    #[error("devices of resource claim {0} were not made ready in time")]
    TooLate(String),
    #[error("{operation} failed")]
    Call {
        operation: &'static str,
        source: kube::Error,
    },
}

impl CallError {
    /// The API's status code, if the API answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Call {
                source: kube::Error::Api(status),
                ..
            } => Some(status.code),
            _ => None,
        }
    }
}

pub(super) async fn send(
    client: &Client,
    operation: &'static str,
    method: http::Method,
    path: String,
    content: &'static str,
    body: &Value,
) -> Result<(), CallError> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, content)
        .body(body.to_string().into_bytes())
        .map_err(|source| CallError::Build { operation, source })?;
    client
        .request_text(request)
        .await
        .map_err(|source| CallError::Call { operation, source })?;
    Ok(())
}

/// Binds a pod to a node.
pub async fn bind(client: &Client, pod: &PodRef, node: &str) -> Result<(), CallError> {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": &*pod.namespace, "name": &*pod.name, "uid": &*pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    send(
        client,
        "bind pod",
        http::Method::POST,
        pod.path("binding"),
        "application/json",
        &body,
    )
    .await
}

/// Writes PodScheduled=False. `turned`: the condition was not False before, so its transition time is now. `withdraw`: no
/// node is nominated for the pod any more.
pub async fn report_unschedulable(
    client: &Client,
    pod: &PodRef,
    message: &str,
    turned: bool,
    withdraw: bool,
) -> Result<(), CallError> {
    let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    if turned {
        condition["lastTransitionTime"] = json!(now());
    }
    let mut body = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}});
    if withdraw {
        body["status"]["nominatedNodeName"] = json!(null);
    }
    let content = "application/strategic-merge-patch+json";
    let path = format!("{}?fieldManager=gantry-scheduler", pod.path("status"));
    send(
        client,
        "write pod condition",
        http::Method::PATCH,
        path,
        content,
        &body,
    )
    .await
}

/// Names the node that a pod is expected on while more is made ready for it (NominatedNodeNameForExpectation): for those
/// who look on, so that its failure does no harm.
pub async fn expect_on(client: &Client, pod: &PodRef, node: &str) {
    let body = json!({"metadata": {"uid": &*pod.uid}, "status": {"nominatedNodeName": node}});
    let merge = "application/merge-patch+json";
    let path = pod.path("status");
    let told = send(client, "name node", http::Method::PATCH, path, merge, &body).await;
    if let Err(error) = told {
        tracing::debug!(error = &error as &dyn std::error::Error, pod = %pod.name, "node not named");
    }
}

/// Makes pods leave their nodes for one of higher priority: says so in their conditions, deletes them, and records the
/// node on the pod that is to come. Pods that are leaving already are let be.
pub async fn preempt(
    client: &Client,
    pod: &PodRef,
    node: &str,
    (nodes, victims): (&[String], &[Arc<str>]),
    events: &mpsc::Sender<PodEvent>,
) -> Result<(), CallError> {
    let nominate = json!({"metadata": {"uid": &*pod.uid}, "status": {"nominatedNodeName": node}});
    let merge = "application/merge-patch+json";
    send(
        client,
        "nominate node",
        http::Method::PATCH,
        pod.path("status"),
        merge,
        &nominate,
    )
    .await?;
    // The core holds no names of placed pods; preemption is rare enough to ask for those of a node.
    for from in nodes {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={from}"));
        let pods = Api::<Pod>::all(client.clone()).list(&on_node).await;
        let pods = pods.map_err(|source| CallError::Call {
            operation: "list pods of node",
            source,
        })?;
        for victim in pods.items {
            if victim.metadata.deletion_timestamp.is_some()
                || !victims.iter().any(|uid| **uid == *victim.uid())
            {
                continue;
            }
            let victim = PodRef {
                namespace: victim.namespace().into(),
                name: victim.name().into(),
                uid: victim.uid().into(),
                scheduler: pod.scheduler.clone(),
            };
            disrupt(client, &pod.scheduler, &victim).await?;
            let message = format!("Preempted by pod {} on node {node}", pod.uid);
            // For people only: one that is lost does no harm.
            let _ = events.try_send(PodEvent {
                pod: victim,
                warning: false,
                reason: "Preempted",
                message,
                decision: None,
            });
        }
    }
    Ok(())
}

async fn disrupt(client: &Client, scheduler: &str, victim: &PodRef) -> Result<(), CallError> {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "lastTransitionTime": now(),
    });
    let body = json!({"metadata": {"uid": &*victim.uid}, "status": {"conditions": [condition]}});
    let strategic = "application/strategic-merge-patch+json";
    let told = send(
        client,
        "mark pod",
        http::Method::PATCH,
        victim.path("status"),
        strategic,
        &body,
    )
    .await;
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": &*victim.uid}});
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}",
        victim.namespace, victim.name
    );
    let deleted = match told {
        Ok(()) => {
            send(
                client,
                "delete pod",
                http::Method::DELETE,
                path,
                "application/json",
                &options,
            )
            .await
        }
        Err(error) => Err(error),
    };
    match deleted {
        // Gone, or another of the same name: either way the victim is no more.
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
        other => other,
    }
}

fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

/// An event about a pod.
pub struct PodEvent {
    pub pod: PodRef,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    /// What was decided and why, for [`DECISION`].
    pub decision: Option<Value>,
}

/// Annotation of events with how a node was chosen: events are the bounded log of decisions, kept by the API server
/// for as long as it keeps events.
pub const DECISION: &str = "gantry.dev/decision";

/// Events waiting to be written, at most; beyond that they are dropped, as in Kubernetes: they are for people, and
/// must not take the write path from bindings.
const WAITING_EVENTS: usize = 4096;
/// Events written at a time.
const EVENT_WRITERS: usize = 4;

/// Starts the event writer. It ends when the sender is dropped.
pub fn event_writer(client: Client) -> mpsc::Sender<PodEvent> {
    let (sender, receiver) = mpsc::channel::<PodEvent>(WAITING_EVENTS);
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    for _ in 0..EVENT_WRITERS {
        let (client, receiver) = (client.clone(), receiver.clone());
        tokio::spawn(async move {
            loop {
                let Some(event) = receiver.lock().await.recv().await else {
                    return;
                };
                write_event(&client, event).await;
            }
        });
    }
    sender
}

async fn write_event(client: &Client, event: PodEvent) {
    let PodEvent {
        pod,
        warning,
        reason,
        message,
        decision,
    } = event;
    let at = now();
    let unique = Timestamp::now().as_nanosecond();
    let mut body = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": &*pod.namespace, "name": format!("{}.{unique:x}", pod.name)},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": &*pod.namespace, "name": &*pod.name, "uid": &*pod.uid,
        },
        "reason": reason,
        "message": message,
        "type": if warning { "Warning" } else { "Normal" },
        "source": {"component": &*pod.scheduler},
        "reportingComponent": &*pod.scheduler,
        "reportingInstance": "",
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    });
    if let Some(decision) = decision {
        body["metadata"]["annotations"] = json!({DECISION: decision.to_string()});
    }
    let path = format!("/api/v1/namespaces/{}/events", pod.namespace);
    let sent = send(
        client,
        "write event",
        http::Method::POST,
        path,
        "application/json",
        &body,
    )
    .await;
    if let Err(error) = sent {
        tracing::debug!(error = &error as &dyn std::error::Error, pod = %pod.name, "event lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::client::Body;
    use std::convert::Infallible;

    /// An API that does not answer holds so many events, and whoever has more goes on without: none waits.
    #[tokio::test]
    async fn the_log_of_decisions_is_bounded() {
        let service = tower::service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, Infallible>>()
        });
        let events = event_writer(Client::new(service, "default"));
        let event = || PodEvent {
            pod: PodRef {
                namespace: "d".into(),
                name: "p".into(),
                uid: "u".into(),
                scheduler: "s".into(),
            },
            warning: false,
            reason: "Scheduled",
            message: String::new(),
            decision: Some(json!({})),
        };
        let fill = || {
            let all = 0..2 * WAITING_EVENTS;
            all.filter(|_| events.try_send(event()).is_ok()).count()
        };
        assert_eq!(fill(), WAITING_EVENTS);
        // Each writer takes one, and is stuck with it.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fill(), EVENT_WRITERS);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fill(), 0);
    }
}
