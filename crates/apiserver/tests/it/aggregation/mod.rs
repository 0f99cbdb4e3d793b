//! Extension API servers behind this one, as their users and authors see it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

mod extension;
mod local;
mod passing;
mod shown;

use std::time::Duration;

use extension::{Extension, GROUP, SERVICE};
use gantry_apiserver::{Config, Server};
use gantry_store::{Options, Store};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(60);
const NAME: &str = "v1.ext.example.com";

struct Cluster {
    server: Server,
    client: Client,
}

impl Cluster {
    async fn start() -> Cluster {
        Cluster::of(Config {
            disabled_admission: vec!["ServiceAccount".to_owned()],
            ..Config::default()
        })
        .await
    }

    async fn of(config: Config) -> Cluster {
        let store = Store::in_memory(Options::default());
        let server = Server::start(config, store).await.expect("it starts");
        let client = server.client();
        Cluster { server, client }
    }

    /// A cluster with an extension server that is available.
    async fn extended(modern: bool) -> (Cluster, Extension) {
        let cluster = Cluster::start().await;
        let extension = cluster.extension(modern).await;
        cluster.registered(&extension, &extension.bundle).await;
        cluster.comes_to("True", "Passed").await;
        (cluster, extension)
    }

    /// An extension server that knows whom this cluster's server says it is to know.
    async fn extension(&self, modern: bool) -> Extension {
        let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
        let map = self.get(map).await.1;
        let authority = map["data"]["requestheader-client-ca-file"].as_str();
        Extension::start(authority.expect("an authority"), modern).await
    }

    /// Makes the Service and the APIService of an extension server.
    async fn registered(&self, extension: &Extension, bundle: &str) {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE},
            "spec": {"type": "ExternalName", "externalName": "localhost"}});
        self.post("/api/v1/namespaces/default/services", &service)
            .await;
        let spec = json!({"caBundle": bundle, "service": {
            "namespace": "default", "name": SERVICE, "port": extension.address.port()}});
        self.api_service(spec).await;
    }

    async fn api_service(&self, mut spec: Value) {
        for (field, value) in [
            ("group", json!(GROUP)),
            ("version", json!("v1")),
            ("groupPriorityMinimum", json!(17_110)),
            ("versionPriority", json!(10)),
        ] {
            spec[field] = value;
        }
        let object = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": NAME}, "spec": spec});
        self.post("/apis/apiregistration.k8s.io/v1/apiservices", &object)
            .await;
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Response<Body> {
        let sent = self.client.send(request.map(Body::from)).await;
        sent.expect("an answer")
    }

    async fn text(&self, request: Request<Vec<u8>>) -> (StatusCode, String) {
        let response = self.send(request).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("the body");
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        (status, text)
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.accepting(path, "application/json").await
    }

    async fn accepting(&self, path: &str, accept: &str) -> (StatusCode, Value) {
        let request = Request::get(path).header("accept", accept);
        let (status, text) = self.text(request.body(vec![]).expect("a request")).await;
        (status, serde_json::from_str(&text).unwrap_or(text.into()))
    }

    async fn post(&self, path: &str, object: &Value) {
        let request = Request::post(path).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes());
        let (status, said) = self.text(request.expect("a request")).await;
        assert_eq!(status, 201, "{said}");
    }

    async fn patch(&self, path: &str, patch: &Value) {
        let request = Request::patch(path).header("content-type", "application/merge-patch+json");
        let request = request.body(patch.to_string().into_bytes());
        let (status, said) = self.text(request.expect("a request")).await;
        assert_eq!(status, 200, "{said}");
    }

    async fn delete(&self, path: &str) {
        let request = Request::delete(path).body(vec![]);
        let (status, said) = self.text(request.expect("a request")).await;
        assert!(status.is_success(), "{said}");
    }

    /// Waits until what is found at a path is what is wanted.
    async fn until(&self, path: &str, wanted: impl Fn(StatusCode, &Value) -> bool) -> Value {
        self.until_accepting(path, "application/json", wanted).await
    }

    async fn until_accepting(
        &self,
        path: &str,
        accept: &str,
        wanted: impl Fn(StatusCode, &Value) -> bool,
    ) -> Value {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let (status, value) = self.accepting(path, accept).await;
            if wanted(status, &value) {
                return value;
            }
            if tokio::time::Instant::now() > deadline {
                panic!("{path}: still {status} {value:#}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the extension's APIService is found so; the condition's message.
    async fn comes_to(&self, status: &str, reason: &str) -> String {
        let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{NAME}");
        let found = self
            .until(&path, |_, o| {
                let condition = &o["status"]["conditions"][0];
                condition["status"] == status && condition["reason"] == reason
            })
            .await;
        let message = found["status"]["conditions"][0]["message"].as_str();
        message.unwrap_or_default().to_owned()
    }
}
