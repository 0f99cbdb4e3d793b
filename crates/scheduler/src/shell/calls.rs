//! The scheduler's writes: bindings, the PodScheduled condition, events.

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Which pod a write is about.
#[derive(Clone, Debug)]
pub struct PodRef {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
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

async fn send(
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
        .request::<IgnoredAny>(request)
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

/// Writes PodScheduled=False. `turned`: the condition was not False before, so its transition time is now.
pub async fn report_unschedulable(
    client: &Client,
    pod: &PodRef,
    message: &str,
    turned: bool,
) -> Result<(), CallError> {
    let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    if turned {
        condition["lastTransitionTime"] = json!(now());
    }
    let body = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}});
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

fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

/// An event about a pod.
pub struct PodEvent {
    pub pod: PodRef,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// Events waiting to be written, at most; beyond that they are dropped, as in Kubernetes: they are for people, and
/// must not take the write path from bindings.
const WAITING_EVENTS: usize = 4096;
/// Events written at a time.
const EVENT_WRITERS: usize = 4;

/// Starts the event writer. It ends when the sender is dropped.
pub fn event_writer(client: Client, scheduler: String) -> mpsc::Sender<PodEvent> {
    let (sender, receiver) = mpsc::channel::<PodEvent>(WAITING_EVENTS);
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    for _ in 0..EVENT_WRITERS {
        let (client, scheduler, receiver) = (client.clone(), scheduler.clone(), receiver.clone());
        tokio::spawn(async move {
            loop {
                let Some(event) = receiver.lock().await.recv().await else {
                    return;
                };
                write_event(&client, &scheduler, event).await;
            }
        });
    }
    sender
}

async fn write_event(client: &Client, scheduler: &str, event: PodEvent) {
    let PodEvent {
        pod,
        warning,
        reason,
        message,
    } = event;
    let at = now();
    let unique = Timestamp::now().as_nanosecond();
    let body = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": &*pod.namespace, "name": format!("{}.{unique:x}", pod.name)},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": &*pod.namespace, "name": &*pod.name, "uid": &*pod.uid,
        },
        "reason": reason,
        "message": message,
        "type": if warning { "Warning" } else { "Normal" },
        "source": {"component": scheduler},
        "reportingComponent": scheduler,
        "reportingInstance": "",
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    });
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
