//! A webhook's server: HTTPS with a certificate of its own authority, answering as a test says.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

/// What the server answers: a status and a body.
pub type Reply = (u16, Value);

pub struct Webhook {
    pub address: SocketAddr,
    /// Certificate of its authority, as `caBundle` wants it.
    pub bundle: String,
    /// Reviews that came in, with their path and query.
    reviews: Arc<Mutex<Vec<(String, Value)>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Webhook {
    /// `answer` is given the path and the `request` of a review, and says the `response` but for
    /// its uid.
    pub async fn start(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Webhook {
        Webhook::raw(move |path, review| {
            let mut response = answer(path, &review["request"]);
            response["uid"] = review["request"]["uid"].clone();
            let mut answer = review.clone();
            if let Some(map) = answer.as_object_mut() {
                map.remove("request");
            }
            answer["response"] = response;
            (200, answer)
        })
        .await
    }

    /// `answer` makes the whole answer.
    pub async fn raw(answer: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Webhook {
        Webhook::of(identity(), answer).await
    }

    /// One whose certificate is its own authority.
    pub async fn self_signed(
        answer: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
        name: &str,
    ) -> Webhook {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).expect("a certificate");
        let config = serving(&CertificateDer::from(cert.der().to_vec()), &key);
        Webhook::of((config, cert.pem()), answer).await
    }

    async fn of(
        (config, authority): (ServerConfig, String),
        answer: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
    ) -> Webhook {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let reviews: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let seen = reviews.clone();
        let answer = Arc::new(answer);
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, seen, answer) = (acceptor.clone(), seen.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (seen, answer) = (seen.clone(), answer.clone());
                        async move {
                            let path = request.uri().path_and_query().map(ToString::to_string);
                            let path = path.unwrap_or_default();
                            let body = request.into_body().collect().await;
                            let body = body.map(|b| b.to_bytes()).unwrap_or_default();
                            let review: Value = serde_json::from_slice(&body).unwrap_or_default();
                            let (code, reply) = answer(&path, &review);
                            seen.lock().expect("whole").push((path, review));
                            let reply = Response::builder()
                                .status(code)
                                .header("content-type", "application/json")
                                .body(Full::new(Bytes::from(reply.to_string())))
                                .expect("an answer");
                            Ok::<_, Infallible>(reply)
                        }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Webhook {
            address,
            bundle: STANDARD.encode(authority),
            reviews,
            accepting,
        }
    }

    pub fn config(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.bundle})
    }

    /// The `request` of each review so far.
    pub fn requests(&self) -> Vec<Value> {
        let reviews = self.reviews.lock().expect("whole");
        reviews.iter().map(|(_, r)| r["request"].clone()).collect()
    }

    /// Each review so far.
    pub fn reviews(&self) -> Vec<Value> {
        let reviews = self.reviews.lock().expect("whole");
        reviews.iter().map(|(_, r)| r.clone()).collect()
    }

    pub fn paths(&self) -> Vec<String> {
        let reviews = self.reviews.lock().expect("whole");
        reviews.iter().map(|(path, _)| path.clone()).collect()
    }
}

fn identity() -> (ServerConfig, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("an authority").pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().expect("a key");
    let names = vec!["hook.default.svc".to_owned(), "localhost".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params
        .subject_alt_names
        .push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    let cert = params.signed_by(&own, &issuer).expect("a certificate");
    let cert = CertificateDer::from(cert.der().to_vec());
    (serving(&cert, &own), authority)
}

fn serving(cert: &CertificateDer<'static>, own: &KeyPair) -> ServerConfig {
    let chain = vec![cert.clone()];
    let key = PrivateKeyDer::from_pem_slice(own.serialize_pem().as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("an identity");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// A JSON patch as a response carries it.
pub fn patch(operations: &Value) -> Value {
    json!({
        "allowed": true, "patchType": "JSONPatch",
        "patch": STANDARD.encode(operations.to_string()),
    })
}
