//! What listens on the ports of simulated pods. Most pods answer with a page that says that they are
//! simulated; of the images of the conformance tests, some servers are simulated for what they do.

mod admission;
mod conversion;
mod netexec;

use super::{
    Answer, Network, plain,
    query::{Query, unescaped},
    reach::Reach,
    scene, typed, written,
};
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
use std::{
    convert::Infallible,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader, DuplexStream};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// With what TLS begins.
const HANDSHAKE: u8 = 0x16;
/// As much as is read of a request's body: more than an object may have, old and new.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What serves on a port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    /// A page that says that nothing runs here.
    Page,
    /// `agnhost netexec` and `serve-hostname`.
    Names,
    /// `agnhost test-webserver`: its files.
    Files,
    /// `agnhost porter`: what its environment says.
    Porter {
        /// With the method of the request.
        json: bool,
    },
    /// `agnhost webhook`, over TLS.
    Admission { sidecar: Option<String> },
    /// `agnhost crd-conversion-webhook`, over TLS.
    Conversion,
}

/// The value of an argument, `--NAME=VALUE` or `--NAME VALUE`.
fn argument(words: &[String], name: &str) -> Option<String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(rest) = word.strip_prefix("--").and_then(|it| it.strip_prefix(name)) else {
            continue;
        };
        match rest.strip_prefix('=') {
            Some(value) => return Some(value.to_owned()),
            None if rest.is_empty() => return words.next().cloned(),
            None => {}
        }
    }
    None
}

fn words(container: &Container) -> Option<Vec<String>> {
    scene::words(&serde_json::to_value(container).ok()?)
}

/// What `agnhost porter` says on a port, and whether over TLS.
fn said(container: &Container, port: u16) -> Option<(String, bool)> {
    let value = |prefix: &str| {
        let name = format!("{prefix}{port}");
        let mut all = container.env.iter().flatten();
        all.find(|it| it.name == name)?.value.clone()
    };
    let plain = value("SERVE_PORT_").or_else(|| value("SERVE_TCP_PORT_"));
    plain
        .map(|it| (it, false))
        .or_else(|| Some((value("SERVE_TLS_PORT_")?, true)))
}

/// Whether a container listens on a port: it is declared, or its server is known to.
pub fn listens(container: &Container, port: u16, udp: bool) -> bool {
    let mut declared = container.ports.iter().flatten();
    if declared.any(|it| {
        it.container_port == i32::from(port) && (it.protocol.as_deref() == Some("UDP")) == udp
    }) {
        return true;
    }
    let Some(words) = words(container) else {
        return false;
    };
    let given = |name: &str, usual: u16| match argument(&words, name) {
        Some(given) => given.parse().ok() == Some(port),
        None => port == usual,
    };
    let command = words.get(1).map(String::as_str);
    match (Server::of(Some(&words)), command) {
        (Server::Names, Some("netexec")) if udp => given("udp-port", 8081),
        (Server::Names, Some("netexec")) => given("http-port", 8080),
        (Server::Names, _) => !udp && given("port", 9376),
        (Server::Files, _) => !udp && given("port", 80),
        (Server::Porter { .. }, _) => !udp && said(container, port).is_some(),
        (Server::Admission { .. } | Server::Conversion, _) => !udp && given("port", 443),
        (Server::Page, _) => false,
    }
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
            "test-webserver" => Server::Files,
            "porter" => Server::Porter {
                json: arguments.iter().any(|it| it == "--json-response"),
            },
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
}

/// Serves a connection to a port on which a container listens, until it ends.
pub async fn serve(at: At, pipe: DuplexStream) {
    let (name, port) = (at.name(), at.port);
    if let Err(error) = answered(at, pipe).await {
        tracing::debug!(error, pod = name, port, "a connection to a simulated pod");
    }
}

async fn answered(at: At, pipe: DuplexStream) -> Result<(), String> {
    let words = words(&at.container);
    let server = Server::of(words.as_deref());
    let mut pipe = BufReader::new(pipe);
    let config = match &server {
        Server::Admission { .. } | Server::Conversion => {
            let (_, disk) = scene::now(None, &at.client, &at.pod, &at.container.name, None).await;
            let words = words.unwrap_or_default();
            let file = |flag: &str| argument(&words, flag).and_then(|path| disk.read(&path));
            identity(file("tls-cert-file"), file("tls-private-key-file"))?
        }
        _ => {
            // Who speaks TLS is answered so.
            let begins = pipe.fill_buf().await.map_err(|e| e.to_string())?;
            if begins.first() != Some(&HANDSHAKE) {
                return requests(pipe, server, Arc::new(at)).await;
            }
            OWN_IDENTITY.clone()?
        }
    };
    let stream = TlsAcceptor::from(config).accept(pipe).await;
    requests(stream.map_err(|e| e.to_string())?, server, Arc::new(at)).await
}

/// What comes back of bytes that are sent to a port over UDP, if anything does.
pub fn datagram(pod: &Pod, port: u16, sent: &[u8], from: &str) -> Option<Vec<u8>> {
    let mut containers = pod.spec.as_ref()?.containers.iter();
    let container = containers.find(|it| listens(it, port, true))?;
    if Server::of(words(container).as_deref()) != Server::Names {
        return None;
    }
    let scene = netexec::Scene {
        host: text(pod.metadata.name.as_ref()),
        from,
        now: jiff::Timestamp::now(),
    };
    netexec::udp(&scene, sent)
}

/// A certificate that nobody has given, as the image has one.
static OWN_IDENTITY: LazyLock<Result<Arc<ServerConfig>, String>> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().map_err(|e| e.to_string())?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let cert = rcgen::CertificateParams::new(names).and_then(|it| it.self_signed(&key));
    let cert = cert.map_err(|e| e.to_string())?.pem();
    identity(
        Some(cert.into_bytes()),
        Some(key.serialize_pem().into_bytes()),
    )
});

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
                Server::Files => file(&at, request.uri().path()).await,
                Server::Porter { json } => porter(&at, &request, json),
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

fn porter(at: &At, request: &Request<Incoming>, json: bool) -> Response<Answer> {
    let (text, _) = said(&at.container, at.port).unwrap_or_default();
    let method = request.method();
    match json {
        true => {
            let said = serde_json::json!({"Method": method.as_str(), "Body": text});
            typed(StatusCode::OK, "application/json", said.to_string())
        }
        // As Go's server tells a page from a text.
        false if text.trim_start().starts_with('<') => {
            typed(StatusCode::OK, "text/html; charset=utf-8", text)
        }
        false => plain(StatusCode::OK, text),
    }
}

/// What a file holds, or which files a folder has, as Go's file server shows them.
async fn file(at: &At, path: &str) -> Response<Answer> {
    let name = &at.container.name;
    let (_, mut disk) = written::files(&at.network, &at.client, &at.pod, name, None).await;
    written::asked(&at.network, &at.client, &at.pod, name, &mut disk).await;
    let path = super::absolute("/", &unescaped(path));
    if let Some(content) = disk.read(&path) {
        return plain(StatusCode::OK, content);
    }
    if !disk.is_folder(&path) {
        return plain(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    let links = disk.list(&path);
    let links = links
        .iter()
        .map(|it| format!("<a href=\"{it}\">{it}</a>\n"));
    let page = format!("<pre>\n{}</pre>\n", links.collect::<String>());
    typed(StatusCode::OK, "text/html; charset=utf-8", page)
}

async fn names(at: &At, request: &Request<Incoming>) -> Response<Answer> {
    let scene = netexec::Scene {
        host: text(at.pod.metadata.name.as_ref()),
        from: at.from.as_deref().unwrap_or("127.0.0.1"),
        now: at.network.truth().clock.now().timestamp(),
    };
    let uri = request.uri();
    // `serve-hostname` says its name whatever is asked for.
    let path = match words(&at.container)
        .as_ref()
        .and_then(|it| it.get(1))
        .map(String::as_str)
    {
        Some("serve-hostname") => "/hostname",
        _ => uri.path(),
    };
    let query = Query::parse(uri.query());
    if let Some(line) = netexec::logged(path, &query) {
        let uid = text(at.pod.metadata.uid.as_ref());
        at.network.prints(uid, &at.container.name, &line);
    }
    match netexec::http(&scene, path, &query) {
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
            program::Answer::Records(_) => {}
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
