//! Requests as they are: method, path, body; answers with their warnings.

use gantry_apiserver::{Config, Server};
use gantry_store::{Options, Store};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

pub struct Answer {
    pub code: u16,
    pub body: Value,
    pub warnings: Vec<String>,
}

impl Answer {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The body of a success.
    pub fn ok(self) -> Value {
        assert!(self.code < 300, "{} {}", self.code, self.body);
        self.body
    }
}

/// An API server and a user who may do everything.
pub struct Cluster {
    /// None of another user's.
    server: Option<Server>,
    client: Client,
    pub store: Store,
}

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::without(&[]).await
    }

    /// One that leaves out these steps of admission.
    pub async fn without(steps: &[&str]) -> Cluster {
        let steps = steps.iter().chain(&["ServiceAccount"]);
        Cluster::of(Config {
            disabled_admission: steps.map(|s| (*s).to_owned()).collect(),
            ..Config::default()
        })
        .await
    }

    pub async fn of(config: Config) -> Cluster {
        let store = Store::in_memory(Options::default());
        let server = Server::start(config, store.clone())
            .await
            .expect("it starts");
        let client = server.client();
        Cluster {
            server: Some(server),
            client,
            store,
        }
    }

    /// The same cluster as another user sees it.
    pub fn user(&self, name: &str) -> Cluster {
        Cluster {
            server: None,
            client: self
                .server
                .as_ref()
                .expect("the first")
                .client_as(name, &[]),
            store: self.store.clone(),
        }
    }

    pub async fn stop(self) {
        if let Some(server) = self.server {
            server.shutdown().await;
        }
    }

    pub async fn send(&self, method: Method, path: &str, kind: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .header("user-agent", "test")
            .body(Body::from(body.to_string().into_bytes()))
            .expect("a request");
        let answer = self.client.send(request).await.expect("answered");
        let warnings = answer
            .headers()
            .get_all("warning")
            .iter()
            .filter_map(|w| w.to_str().ok())
            .map(|w| w.trim_start_matches("299 - ").trim_matches('"').to_owned())
            .collect();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.expect("a body");
        Answer {
            code,
            body: serde_json::from_slice(&bytes.to_bytes()).unwrap_or_default(),
            warnings,
        }
    }

    /// The text at a path.
    pub async fn text(&self, path: &str) -> String {
        let request = Request::get(path)
            .body(Body::from(vec![]))
            .expect("a request");
        let answer = self.client.send(request).await.expect("answered");
        let bytes = answer.into_body().collect().await.expect("a body");
        String::from_utf8(bytes.to_bytes().to_vec()).expect("text")
    }

    /// The JSON lines of an answer, up to its end.
    pub async fn lines(&self, path: &str) -> Vec<Value> {
        let text = self.text(path).await;
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, "application/json", body)
            .await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, "application/json", body).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        let kind = "application/merge-patch+json";
        self.send(Method::PATCH, path, kind, body).await
    }

    pub async fn apply(&self, path: &str, body: &Value) -> Answer {
        let kind = "application/apply-patch+yaml";
        self.send(Method::PATCH, path, kind, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        let none = json!({});
        self.send(Method::DELETE, path, "application/json", &none)
            .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        let none = Value::Null;
        self.send(Method::GET, path, "application/json", &none)
            .await
    }

    /// A configuration of one webhook or more; what they leave out is filled in.
    pub async fn configure(&self, kind: &str, name: &str, webhooks: &[Value]) {
        let path = format!(
            "{REGISTRATION}/{}webhookconfigurations",
            kind.to_lowercase()
        );
        let webhooks: Vec<Value> = webhooks
            .iter()
            .enumerate()
            .map(|(i, given)| {
                let mut hook = json!({
                    "name": format!("h{i}.{name}.test"), "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                    "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
                });
                for (field, value) in given.as_object().into_iter().flatten() {
                    hook[field] = value.clone();
                }
                hook
            })
            .collect();
        let body = json!({
            "kind": format!("{kind}WebhookConfiguration"), "apiVersion": "admissionregistration.k8s.io/v1",
            "metadata": {"name": name}, "webhooks": webhooks,
        });
        self.post(&path, &body).await.ok();
    }
}

pub const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub fn map(name: &str, data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data})
}
