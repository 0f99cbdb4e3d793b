//! What is passed on to a kubelet, with a kubelet of this test on the other side.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use gantry_apiserver::{Config, Kubelets, Server};
use gantry_store::{Options, Store};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server with a node whose kubelet is here, and a pod on it.
struct Cluster {
    server: Server,
    client: Client,
    /// What the kubelet was asked: method, path and query.
    asked: Arc<Mutex<Vec<String>>>,
}

/// The kubelet: a log, a refusal, and an echo after an upgrade.
async fn answer(
    mut request: Request<hyper::body::Incoming>,
    asked: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().to_string();
    asked.lock().push(format!("{} {path}", request.method()));
    let mut response = Response::new(Full::default());
    if request.headers().contains_key("authorization") {
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        return Ok(response);
    }
    if let Some(protocol) = request.headers().get("upgrade").cloned() {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await?);
            let mut buffer = [0; 64];
            loop {
                let n = stream.read(&mut buffer).await.unwrap_or(0);
                if n == 0 || stream.write_all(&buffer[..n]).await.is_err() {
                    return Ok::<(), hyper::Error>(());
                }
            }
        });
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert("upgrade", protocol);
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        return Ok(response);
    }
    if path.contains("previous=true") {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        *response.body_mut() =
            "previous terminated container \"app\" in pod \"web\" not found".into();
        return Ok(response);
    }
    *response.body_mut() = "line\n".into();
    Ok(response)
}

#[expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test's helper, which clippy does not see as one"
)]
async fn start() -> Cluster {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        kubelet: Kubelets {
            address_types: vec!["InternalIP".to_owned()],
            ..Kubelets::default()
        },
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts");
    let link = server
        .node_link(&["127.0.0.1".to_owned()])
        .expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(link.client_ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        provider.clone(),
    )
    .build()
    .unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(link.serving.cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(link.serving.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(vec![]));
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(socket).await.unwrap();
                let service =
                    hyper::service::service_fn(move |request| answer(request, seen.clone()));
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await
            });
        }
    });
    let client = server.client();
    let cluster = Cluster {
        server,
        client,
        asked,
    };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    cluster.create("/api/v1/nodes", &node).await;
    for (name, node, containers) in [
        ("web", Some("n"), vec!["app"]),
        ("two", Some("n"), vec!["a", "b"]),
        ("new", None, vec!["app"]),
        ("lost", Some("gone"), vec!["app"]),
    ] {
        let containers: Vec<Value> = containers
            .iter()
            .map(|c| json!({"name": c, "image": "i"}))
            .collect();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": containers}});
        cluster
            .create("/api/v1/namespaces/default/pods", &pod)
            .await;
    }
    cluster
}

#[expect(
    clippy::expect_used,
    reason = "a test's helper, which clippy does not see as one"
)]
impl Cluster {
    async fn send(&self, request: Request<Vec<u8>>) -> (StatusCode, String) {
        let response = self
            .client
            .send(request.map(Body::from))
            .await
            .expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("the body");
        (
            status,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        )
    }

    async fn create(&self, path: &str, object: &Value) {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .expect("a request");
        let (status, said) = self.send(request).await;
        assert_eq!(status, 201, "{said}");
    }

    /// GET of something of a pod.
    async fn get(&self, rest: &str) -> (StatusCode, String) {
        let path = format!("/api/v1/namespaces/default/pods/{rest}");
        let (status, said) = self
            .send(Request::get(path).body(vec![]).expect("a request"))
            .await;
        let message = serde_json::from_str::<Value>(&said)
            .ok()
            .and_then(|s| s["message"].as_str().map(str::to_owned));
        (status, message.unwrap_or(said))
    }
}

#[tokio::test]
async fn logs_come_from_the_kubelet_and_so_do_its_refusals() {
    let cluster = start().await;
    let (status, text) = cluster
        .get("web/log?tailLines=3&timestamps=true&pretty=1")
        .await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "line\n"));
    assert_eq!(
        *cluster.asked.lock(),
        ["GET /containerLogs/default/web/app?timestamps=true&tailLines=3"]
    );
    let cases = [
        (
            "web/log?previous=true",
            400,
            "previous terminated container \"app\" in pod \"web\" not found",
        ),
        (
            "web/log?container=x",
            400,
            "container x is not valid for pod web",
        ),
        (
            "two/log",
            400,
            "a container name must be specified for pod two, choose one of: [a b]",
        ),
        ("none/log", 404, "pods \"none\" not found"),
        ("lost/log", 404, "nodes \"gone\" not found"),
        (
            "new/exec?command=ls",
            400,
            "pod new does not have a host assigned",
        ),
        ("web/exec?command=ls", 400, "Upgrade request required"),
        (
            "web/log?limitBytes=0",
            422,
            "PodLogOptions \"web\" is invalid: limitBytes: Invalid value: 0: must be greater than 0",
        ),
    ];
    for (path, code, message) in cases {
        let (status, said) = cluster.get(path).await;
        assert_eq!((status.as_u16(), said.as_str()), (code, message), "{path}");
    }
    let (status, said) = cluster.get("new/log").await;
    assert_eq!((status, said.as_str()), (StatusCode::NO_CONTENT, ""));
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel_to_the_kubelet() {
    let cluster = start().await;
    let request = Request::post(
        "/api/v1/namespaces/default/pods/web/exec?command=sh&command=-c&command=a%20%26&stdin=true&stdout=1",
    )
    .header("connection", "Upgrade")
    .header("upgrade", "SPDY/3.1")
    .body(Body::empty())
    .unwrap();
    let response = cluster.client.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(
        *cluster.asked.lock(),
        ["POST /exec/default/web/app?input=1&output=1&command=sh&command=-c&command=a%20%26"]
    );
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"across").await.unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"across");
    drop(stream);
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn nodes_are_proxied_to_their_kubelet_and_nobody_to_the_server_itself() {
    let cluster = start().await;
    let get = async |path: &str| {
        let request = Request::get(path).body(vec![]).unwrap();
        cluster.send(request).await
    };
    let (status, said) = get("/api/v1/nodes/n/proxy/metrics/resource?a=%2F").await;
    assert_eq!((status, said.as_str()), (StatusCode::OK, "line\n"));
    assert_eq!(*cluster.asked.lock(), ["GET /metrics/resource?a=%2F"]);
    let (status, said) = get("/api/v1/nodes/n:22/proxy/").await;
    assert_eq!(status, 400, "{said}");
    assert!(said.contains("address not allowed"), "{said}");
    let (status, _) = get("/api/v1/nodes/n/proxy").await;
    assert_eq!(status, StatusCode::MOVED_PERMANENTLY);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}]}});
    cluster
        .create("/api/v1/namespaces/default/services", &service)
        .await;
    let through = "/api/v1/namespaces/default/services/s:80/proxy/x";
    assert_eq!(
        get(through).await.0,
        404,
        "no endpoints have been looked for"
    );
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}],
        "endpoints": [{"addresses": ["10.64.0.1"], "conditions": {"ready": false}}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    cluster.create(slices, &slice).await;
    let (status, said) = get(through).await;
    assert_eq!(status, 503);
    let none = "no endpoints available for service \\\"s\\\"";
    assert!(said.contains(none), "{said}");
    cluster.server.shutdown().await;
}
