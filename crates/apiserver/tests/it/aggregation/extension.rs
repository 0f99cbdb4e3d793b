//! An extension API server: HTTPS, known by the front proxy's authority, with one group version.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::channel::mpsc;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

pub const GROUP: &str = "ext.example.com";
/// The Service that it is behind: what its certificate is for.
pub const SERVICE: &str = "extension";

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Events = mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>;

/// What it is asked, and what it has to say.
#[derive(Default)]
pub struct Shared {
    /// The next watch is given these.
    pub events: Mutex<Option<Events>>,
    /// What it answers instead, while it is said to fail.
    pub failing: Mutex<Option<u16>>,
}

pub struct Extension {
    pub address: SocketAddr,
    /// Certificate of its authority, as `caBundle` wants it.
    pub bundle: String,
    pub shared: Arc<Shared>,
    connections: Arc<Mutex<JoinSet<()>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Extension {
    /// One that knows its callers by an authority (PEM); `modern`: it has aggregated discovery.
    pub async fn start(authority: &str, modern: bool) -> Extension {
        let (config, bundle) = identity(authority);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared: Arc<Shared> = Arc::default();
        let connections: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let (known, tasks) = (shared.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, known) = (acceptor.clone(), known.clone());
                tasks.lock().spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let (_, tls) = stream.get_ref();
                    let peer = tls.peer_certificates().and_then(|c| c.first());
                    let caller = peer.map(|c| subject(c)).unwrap_or_default();
                    let name = tls.server_name().unwrap_or_default().to_owned();
                    let service = service_fn(move |request| {
                        let about = json!({"caller": caller, "serverName": name});
                        let known = known.clone();
                        async move { Ok::<_, Infallible>(answer(request, about, &known, modern)) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Extension {
            address,
            bundle,
            shared,
            connections,
            accepting,
        }
    }

    /// Ends it and its connections.
    pub fn stop(&self) {
        self.accepting.abort();
        self.connections.lock().abort_all();
    }
}

fn subject(der: &CertificateDer<'_>) -> String {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).expect("a certificate");
    parsed.subject().to_string()
}

fn whole(code: u16, media: &str, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    let media = HeaderValue::from_str(media).expect("a media type");
    response.headers_mut().insert("content-type", media);
    response
}

fn document(prefix: &str) -> Value {
    json!({
        "get": {"responses": {"200": {"description": "OK", "schema": {"$ref": format!("{prefix}Thing")}}}},
    })
}

fn answer(
    mut request: Request<Incoming>,
    about: Value,
    shared: &Shared,
    modern: bool,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let headers = request.headers();
    let json = |value: Value| whole(200, "application/json", value.to_string());
    if let Some(code) = *shared.failing.lock() {
        return whole(code, "text/plain", "failing".to_owned());
    }
    if let Some(protocol) = headers.get("upgrade").cloned() {
        let user = headers.get("x-remote-user").cloned();
        tokio::spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await?);
            let _ = stream.write_all(user.expect("named").as_bytes()).await;
            let mut buffer = [0; 64];
            loop {
                let n = stream.read(&mut buffer).await.unwrap_or(0);
                if n == 0 || stream.write_all(&buffer[..n]).await.is_err() {
                    return Ok::<(), hyper::Error>(());
                }
            }
        });
        let mut response = whole(101, "text/plain", String::new());
        let headers = response.headers_mut();
        headers.insert("upgrade", protocol);
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        return response;
    }
    let things = format!("/apis/{GROUP}/v1/things");
    let resource = json!({"name": "things", "singularName": "thing", "namespaced": false,
        "kind": "Thing", "verbs": ["get", "list", "watch"]});
    match path.as_str() {
        "/apis" if modern => {
            let kind = json!({"group": GROUP, "version": "v1", "kind": "Thing"});
            let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": [
                {"metadata": {"name": GROUP}, "versions": [{"version": "v1", "resources": [
                    {"resource": "things", "singularResource": "thing", "scope": "Cluster", "responseKind": kind,
                        "verbs": ["get", "list", "watch"], "categories": ["modern"]}]}]}]});
            let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            whole(200, media, list.to_string())
        }
        "/apis" => whole(406, "text/plain", String::new()),
        "/openapi/v3" => {
            let url = format!("/openapi/v3/apis/{GROUP}/v1?hash=THEIRS");
            json(
                json!({"paths": {format!("apis/{GROUP}/v1"): {"serverRelativeURL": url}, "apis/other/v1": {}}}),
            )
        }
        "/openapi/v2" => json(json!({
            "paths": {&things: document("#/definitions/"), "/apis/other/v1/x": {}},
            "definitions": {"Thing": {"type": "object", "description": "theirs"}, "Other": {}},
        })),
        path if path == format!("/openapi/v3/apis/{GROUP}/v1") => {
            json(json!({"paths": {&things: document("#/components/schemas/")}}))
        }
        path if path == format!("/apis/{GROUP}/v1") => {
            json(json!({"kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": format!("{GROUP}/v1"), "resources": [resource]}))
        }
        path if path == things && query.contains("watch") => {
            let events = shared.events.lock().take().expect("events to be given");
            let mut response = Response::new(StreamBody::new(events).boxed_unsync());
            let media = HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", media);
            response
        }
        _ => {
            let mut echo = about;
            echo["method"] = request.method().as_str().into();
            echo["path"] = request.uri().path().into();
            echo["query"] = query.into();
            echo["version"] = format!("{:?}", request.version()).into();
            echo["headers"] = json!({});
            for (name, value) in request.headers() {
                let value = value.to_str().unwrap_or_default();
                let all = &mut echo["headers"][name.as_str()];
                *all = match all.as_str() {
                    Some(before) => format!("{before},{value}").into(),
                    None => value.into(),
                };
            }
            json(echo)
        }
    }
}

fn identity(clients: &str) -> (ServerConfig, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("an authority").pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![format!("{SERVICE}.default.svc")]).expect("a name");
    let cert = params.signed_by(&own, &issuer).expect("a certificate");
    let mut roots = RootCertStore::empty();
    let known = CertificateDer::from_pem_slice(clients.as_bytes()).expect("a certificate");
    roots.add(known).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .expect("a verifier");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from(cert.der().to_vec())],
            PrivateKeyDer::from_pem_slice(own.serialize_pem().as_bytes()).expect("a key"),
        )
        .expect("an identity");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (config, STANDARD.encode(authority))
}
