//! A small HTTPS client: one request a connection, the console's certificate as the only authority.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::stage::PATIENCE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

/// An answer that goes on.
pub struct Open {
    body: Incoming,
    /// What has come so far.
    pub text: String,
}

impl Open {
    /// Waits until something has come, or the end; whether it goes on.
    pub async fn until(&mut self, what: &str) -> bool {
        let read = async {
            while !self.text.contains(what) {
                let Some(Ok(frame)) = self.body.frame().await else {
                    return false;
                };
                if let Ok(data) = frame.into_data() {
                    self.text.push_str(&String::from_utf8_lossy(&data));
                }
            }
            true
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap()
    }
}

/// Someone at the console.
#[derive(Clone)]
pub struct Visitor {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    cookies: HashMap<String, String>,
    pub bearer: Option<String>,
    pub csrf: String,
}

impl Visitor {
    pub fn new(address: SocketAddr, cert: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let tls = builder.with_root_certificates(roots).with_no_client_auth();
        Self {
            address,
            tls: Arc::new(tls),
            cookies: HashMap::new(),
            bearer: None,
            csrf: String::new(),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: String,
        more: &[(&str, &str)],
    ) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string());
        if !self.cookies.is_empty() {
            let all: Vec<String> = self
                .cookies
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            request = request.header(header::COOKIE, all.join("; "));
        }
        if let Some(token) = &self.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        sender
            .send_request(request.body(Full::new(Bytes::from(body))).unwrap())
            .await
            .unwrap()
    }

    /// What comes of an answer that goes on, until it ends.
    pub async fn open(&self, path: &str) -> Open {
        let answer = self.ask(Method::GET, path, "", String::new(), &[]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        Open {
            body: answer.into_body(),
            text: String::new(),
        }
    }

    /// One request; cookies that are set are kept.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: String,
        more: &[(&str, &str)],
    ) -> Answer {
        let answer = self.ask(method, path, kind, body, more).await;
        let (parts, body) = answer.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let text = if parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|t| t == "text/event-stream")
        {
            // Only what comes at once.
            let mut body = body;
            let frame =
                tokio::time::timeout(std::time::Duration::from_secs(10), body.frame()).await;
            let bytes = frame
                .ok()
                .flatten()
                .and_then(Result::ok)
                .and_then(|f| f.into_data().ok());
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        } else {
            String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned()
        };
        Answer {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, "", String::new(), &[]).await
    }

    /// Sends a form with the session's token.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let csrf = self.csrf.clone();
        let form = form.append_pair("csrf", &csrf).finish();
        self.send(
            Method::POST,
            path,
            "application/x-www-form-urlencoded",
            form,
            &[],
        )
        .await
    }

    /// Logs in, and keeps the token of the session's forms.
    pub async fn login(&mut self, credential: &str) -> Answer {
        let answer = self.post("/login", &[("credential", credential)]).await;
        if answer.status == StatusCode::SEE_OTHER {
            let page = self.get("/settings").await;
            self.csrf = page
                .text
                .split("data-csrf=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .to_owned();
        }
        answer
    }
}
