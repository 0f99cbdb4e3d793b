//! Events about other objects than pods: nodes whose usage is not known, policies that cannot be followed.

use super::calls::send;
use super::driver::Driver;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::json;

/// An event about an object; of a cluster-scoped one it stands in `default`.
pub struct Note {
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    name: String,
    reason: &'static str,
    message: String,
}

impl Note {
    /// A warning.
    pub fn about(
        api_version: &'static str,
        kind: &'static str,
        namespace: &str,
        name: &str,
        reason: &'static str,
        message: String,
    ) -> Self {
        Self {
            api_version,
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            reason,
            message,
        }
    }

    async fn write(self, client: Client, component: String) {
        let now = Timestamp::now();
        let at = format!("{now:.0}");
        let place = if self.namespace.is_empty() {
            "default"
        } else {
            &self.namespace
        };
        let mut object =
            json!({"apiVersion": self.api_version, "kind": self.kind, "name": self.name});
        if !self.namespace.is_empty() {
            object["namespace"] = json!(self.namespace);
        }
        let body = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": place, "name": format!("{}.{:x}", self.name, now.as_nanosecond())},
            "involvedObject": object,
            "reason": self.reason,
            "message": self.message,
            "type": "Warning",
            "source": {"component": component},
            "reportingComponent": component,
            "reportingInstance": "",
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        });
        let path = format!("/api/v1/namespaces/{place}/events");
        let json = "application/json";
        let sent = send(
            &client,
            "write event",
            http::Method::POST,
            path,
            json,
            &body,
        )
        .await;
        if let Err(error) = sent {
            tracing::debug!(error = &error as &dyn std::error::Error, "event lost");
        }
    }
}

/// Notes on their way at most: they are rare, and for people only.
const MOST: usize = 16;

impl Driver {
    /// Writes an event, unless many are on their way.
    pub(super) fn note(&mut self, note: Note) {
        while self.notes.try_join_next().is_some() {}
        if self.notes.len() < MOST {
            let name = self
                .options
                .profiles
                .first()
                .map(|p| p.scheduler_name.clone());
            let component = name.unwrap_or_default();
            self.notes.spawn(note.write(self.client.clone(), component));
        }
    }
}
