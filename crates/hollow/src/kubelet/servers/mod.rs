//! What listens on the ports of simulated pods. Most pods answer with a page that says that they are
//! simulated; of the images of the conformance tests, some servers are simulated for what they do.

mod admission;
mod conversion;

use super::{Answer, plain, scene, typed};
use admission::Reply;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Client;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use std::{convert::Infallible, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// As much as is read of a request's body: more than an object may have, old and new.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What serves on a port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    /// A page that says that nothing runs here.
    Page,
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
            _ => Server::Page,
        }
    }
}

/// Serves a connection to a port that a container declares, until it ends.
pub async fn serve(client: Client, pod: Pod, container: Container, port: u16, pipe: DuplexStream) {
    let spec = serde_json::to_value(&container).unwrap_or_default();
    let words = scene::words(&spec);
    let server = Server::of(words.as_deref());
    let name = format!(
        "{}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default()
    );
    let served = match (&server, words) {
        (Server::Page, _) | (_, None) => requests(pipe, server, &name, port).await,
        (_, Some(words)) => {
            let (_, disk) = scene::now(None, &client, &pod, &container.name, None).await;
            let file = |flag: &str| argument(&words, flag).and_then(|path| disk.read(&path));
            match identity(file("tls-cert-file"), file("tls-private-key-file")) {
                Ok(config) => match TlsAcceptor::from(config).accept(pipe).await {
                    Ok(stream) => requests(stream, server, &name, port).await,
                    Err(error) => Err(error.to_string()),
                },
                Err(why) => Err(why),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, pod = name, port, "a connection to a simulated pod");
    }
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

async fn requests<I>(io: I, server: Server, pod: &str, port: u16) -> Result<(), String>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let server = server.clone();
        async move {
            Ok::<_, Infallible>(match server {
                Server::Page => page(pod, port, &request),
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
