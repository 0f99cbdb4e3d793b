//! What listens on the ports of simulated pods. Most pods answer with a page that says that they are
//! simulated; of the images of the conformance tests, some servers are simulated for what they do.

mod admission;
mod conversion;
mod netexec;

use super::{Answer, Network, plain, query::Query, reach::Reach, scene, typed};
use crate::program::{self, Call, Peer, Question};
use admission::Reply;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Client;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// As much as is read of a request's body: more than an object may have, old and new.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What serves on a port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    /// A page that says that nothing runs here.
    Page,
    /// `agnhost netexec` and `serve-hostname`.
    Names,
    /// `agnhost webhook`, over TLS.
    Admission { sidecar: Option<String> },
    /// `agnhost crd-conversion-webhook`, over TLS.
    Conversion,
}

/// The value of an argument `--NAME=VALUE`.
fn argument(words: &[String], name: &str) -> Option<String> {
    let prefix = format!("--{name}=");
    let found = words.iter().find_map(|it| it.strip_prefix(&prefix));
    found.map(str::to_owned)
}

impl Server {
    fn of(words: Option<&[String]>) -> Self {
        let Some([program, command, arguments @ ..]) = words else {
            return Server::Page;
        };
        match command.as_str() {
            _ if !program.ends_with("agnhost") => Server::Page,
            "webhook" => Server::Admission {
                sidecar: argument(arguments, "sidecar-image"),
            },
            "crd-conversion-webhook" => Server::Conversion,
            "netexec" | "serve-hostname" => Server::Names,
            _ => Server::Page,
        }
    }
}

/// A port of a pod, and who has connected to it.
pub struct At {
    pub network: Network,
    pub client: Client,
    pub pod: Pod,
    pub container: Container,
    pub port: u16,
    /// The address of another pod.
    pub from: Option<String>,
}

fn text(it: Option<&String>) -> &str {
    it.map_or("", String::as_str)
}

impl At {
    fn name(&self) -> String {
        let meta = &self.pod.metadata;
        format!(
            "{}/{}",
            text(meta.namespace.as_ref()),
            text(meta.name.as_ref())
        )
    }

    fn words(&self) -> Option<Vec<String>> {
        scene::words(&serde_json::to_value(&self.container).ok()?)
    }
}

/// Serves a connection to a port that a container declares, until it ends.
pub async fn serve(at: At, pipe: DuplexStream) {
    let words = at.words();
    let server = Server::of(words.as_deref());
    let name = at.name();
    let port = at.port;
    let served = match (&server, words) {
        (Server::Admission { .. } | Server::Conversion, Some(words)) => {
            let (_, disk) = scene::now(None, &at.client, &at.pod, &at.container.name, None).await;
            let file = |flag: &str| argument(&words, flag).and_then(|path| disk.read(&path));
            match identity(file("tls-cert-file"), file("tls-private-key-file")) {
                Ok(config) => match TlsAcceptor::from(config).accept(pipe).await {
                    Ok(stream) => requests(stream, server, Arc::new(at)).await,
                    Err(error) => Err(error.to_string()),
                },
                Err(why) => Err(why),
            }
        }
        _ => requests(pipe, server, Arc::new(at)).await,
    };
    if let Err(error) = served {
        tracing::debug!(error, pod = name, port, "a connection to a simulated pod");
    }
}

/// What comes back of bytes that are sent to a port over UDP, if anything does.
pub fn datagram(pod: &Pod, port: u16, sent: &[u8], from: &str) -> Option<Vec<u8>> {
    let declares = |it: &&Container| {
        let mut ports = it.ports.iter().flatten();
        ports.any(|it| it.container_port == i32::from(port))
    };
    let container = pod.spec.as_ref()?.containers.iter().find(declares)?;
    let words = scene::words(&serde_json::to_value(container).ok()?);
    if Server::of(words.as_deref()) != Server::Names {
        return None;
    }
    let scene = netexec::Scene {
        host: text(pod.metadata.name.as_ref()),
        from,
        now: jiff::Timestamp::now(),
    };
    netexec::udp(&scene, sent)
}

/// The certificate that a server shows.
fn identity(cert: Option<Vec<u8>>, key: Option<Vec<u8>>) -> Result<Arc<ServerConfig>, String> {
    let (Some(cert), Some(key)) = (cert, key) else {
        return Err("its certificate or key is not among its files".to_owned());
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&cert)
        .filter_map(Result::ok)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| e.to_string())?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| e.to_string())?;
    Ok(Arc::new(config))
}

async fn requests<I>(io: I, server: Server, at: Arc<At>) -> Result<(), String>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let (server, at) = (server.clone(), at.clone());
        async move {
            Ok::<_, Infallible>(match server {
                Server::Page => page(&at.name(), at.port, &request),
                Server::Names => names(&at, &request).await,
                Server::Admission { sidecar } => admit(request, sidecar.as_deref()).await,
                Server::Conversion => convert(request).await,
            })
        }
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .await
        .map_err(|e| e.to_string())
}

async fn names(at: &At, request: &Request<Incoming>) -> Response<Answer> {
    let scene = netexec::Scene {
        host: text(at.pod.metadata.name.as_ref()),
        from: at.from.as_deref().unwrap_or("127.0.0.1"),
        now: at.network.truth().clock.now().timestamp(),
    };
    let uri = request.uri();
    // `serve-hostname` says its name whatever is asked for.
    let path = match at
        .words()
        .as_ref()
        .and_then(|it| it.get(1))
        .map(String::as_str)
    {
        Some("serve-hostname") => "/hostname",
        _ => uri.path(),
    };
    match netexec::http(&scene, path, &Query::parse(uri.query())) {
        netexec::Reply::Text(code, text) => plain(code, text),
        netexec::Reply::Dial(dial) => {
            let told = dialled(at, &dial).await;
            typed(StatusCode::OK, "application/json", told.to_string())
        }
    }
}

/// How long another server is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

async fn dialled(at: &At, dial: &netexec::Dial) -> Value {
    let reach = Reach::of(&at.network, at.client.clone(), &at.pod);
    let to = Peer {
        host: dial.host.clone(),
        port: dial.port,
        patience: PATIENCE,
    };
    let question = match dial.udp {
        true => Question::Bytes {
            to,
            udp: true,
            sent: dial.request.clone().into_bytes(),
        },
        false => Question::Http(Call {
            to,
            method: "GET".to_owned(),
            path: format!("/{}", dial.request),
            headers: vec![],
            body: vec![],
        }),
    };
    let (mut responses, mut errors) = (vec![], vec![]);
    for _ in 0..dial.tries {
        match reach.answer(&question).await {
            program::Answer::Http { body, .. } | program::Answer::Bytes(body) => {
                responses.push(String::from_utf8_lossy(&body).trim().to_owned());
            }
            program::Answer::Failed(why) => errors.push(format!("{why:?}")),
        }
    }
    let mut told = serde_json::json!({});
    if !responses.is_empty() {
        told["responses"] = responses.into();
    }
    if !errors.is_empty() {
        told["errors"] = errors.into();
    }
    told
}

async fn body(request: Request<Incoming>) -> Result<Value, String> {
    let body = Limited::new(request.into_body(), BODY_LIMIT);
    let bytes = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}

async fn admit(request: Request<Incoming>, sidecar: Option<&str>) -> Response<Answer> {
    let path = request.uri().path().to_owned();
    if path == "/readyz" {
        return plain(StatusCode::OK, "ok");
    }
    let review = match body(request).await {
        Ok(review) => review,
        Err(why) => {
            let why = format!("Request could not be decoded: {why}\n");
            return plain(StatusCode::BAD_REQUEST, why);
        }
    };
    match admission::answer(&path, sidecar, &review) {
        Reply::After(delay, answer) => {
            tokio::time::sleep(delay).await;
            typed(StatusCode::OK, "application/json", answer.to_string())
        }
        Reply::Never => std::future::pending().await,
        Reply::NotFound => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        Reply::Bad(why) => plain(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

async fn convert(request: Request<Incoming>) -> Response<Answer> {
    if request.uri().path() == "/readyz" {
        return plain(StatusCode::OK, "ok");
    }
    if request.uri().path() != "/crdconvert" {
        return plain(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    match body(request).await {
        Ok(review) => {
            let answer = conversion::answer(&review);
            typed(StatusCode::OK, "application/json", answer.to_string())
        }
        Err(why) => plain(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

fn page(pod: &str, port: u16, request: &Request<Incoming>) -> Response<Answer> {
    let text = format!(
        "simulated by Gantry: pod {pod}, port {port}: nothing runs here\n{} {}\n",
        request.method(),
        request.uri()
    );
    let mut response = match *request.method() {
        Method::HEAD => plain(StatusCode::OK, ""),
        _ => plain(StatusCode::OK, text),
    };
    response
        .headers_mut()
        .insert("x-gantry-simulated", HeaderValue::from_static("true"));
    response
}
