//! One extension API server: where it is and the connections to it.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use gantry_store::Store;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::ClientConfig;
use serde_json::Value;

use crate::{
    object,
    proxy::{
        forward::BoxBody,
        links::{self, Identity, Links, Remote, Security, Stream},
    },
    webhook::{resolve, trusting, words},
};

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(90);

/// The Service behind which a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRef {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

impl ServiceRef {
    fn of(spec: &Value) -> ServiceRef {
        let port = spec.pointer("/service/port").and_then(Value::as_u64);
        ServiceRef {
            namespace: object::text(spec, "/service/namespace").to_owned(),
            name: object::text(spec, "/service/name").to_owned(),
            port: port.and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
        }
    }

    /// The name that the server's certificate has to be for.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// What makes backends.
pub struct Maker {
    pub store: Store,
    pub links: Arc<Links>,
    /// What this server shows to them.
    pub identity: Identity,
}

impl Maker {
    /// The backend of an APIService's `spec`.
    pub fn backend(&self, spec: &Value) -> Backend {
        let service = ServiceRef::of(spec);
        let linker = |tls: Arc<ClientConfig>| Linker {
            links: self.links.clone(),
            store: self.store.clone(),
            service: service.clone(),
            tls,
        };
        let anyone = || links::client_config(None, Some(&self.identity));
        let trusted = match spec.get("insecureSkipTLSVerify") {
            Some(Value::Bool(true)) => anyone().map_err(|e| e.to_string()),
            _ => trusting(object::text(spec, "/caBundle"), Some(&self.identity))
                .map_err(|e| e.to_string()),
        };
        let transport = trusted.map(|tls| {
            let mut both = ClientConfig::clone(&tls);
            both.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let mut one = ClientConfig::clone(&tls);
            one.alpn_protocols = vec![b"http/1.1".to_vec()];
            let mut builder = Client::builder(TokioExecutor::new());
            builder
                .pool_idle_timeout(IDLE)
                .pool_timer(TokioTimer::new());
            Transport {
                pool: builder.build(linker(Arc::new(both))),
                single: linker(Arc::new(one)),
            }
        });
        Backend {
            // Whoever answers is taken: the look only tells whether somebody does.
            probe: anyone().map(linker).map_err(|e| e.to_string()),
            service: service.clone(),
            transport,
        }
    }
}

/// How requests get to a backend.
pub struct Transport {
    /// Connections that are kept, HTTP/2 where the other side speaks it.
    pub pool: Client<Linker, BoxBody>,
    /// One that is to be upgraded.
    pub single: Linker,
}

pub struct Backend {
    pub service: ServiceRef,
    /// How requests get there, or what is wrong with the authorities that the APIService names.
    pub transport: Result<Transport, String>,
    /// How it is looked whether it answers.
    pub probe: Result<Linker, String>,
}

impl Backend {
    /// Whether two specs name the same backend and trust.
    pub fn same(a: &Value, b: &Value) -> bool {
        ["service", "caBundle", "insecureSkipTLSVerify"]
            .iter()
            .all(|field| a.get(field) == b.get(field))
    }
}

/// Opens connections to a backend.
#[derive(Clone)]
pub struct Linker {
    links: Arc<Links>,
    store: Store,
    service: ServiceRef,
    tls: Arc<ClientConfig>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody is there to be connected to.
    #[error("{0}")]
    Nowhere(String),
    #[error("{0}")]
    Connect(String),
}

impl Linker {
    /// Where the Service's endpoints are, in a random order.
    ///
    /// # Errors
    /// Why there are none.
    pub fn places(&self) -> Result<Vec<resolve::Place>, String> {
        let s = &self.service;
        resolve::places(&self.store, &s.namespace, &s.name, s.port)
    }

    /// Connects to one of the endpoints.
    ///
    /// # Errors
    /// There is none, or none that can be connected to: what is wrong with the last.
    pub async fn open(&self) -> Result<Link, LinkError> {
        let mut last = LinkError::Nowhere("no address".to_owned());
        for place in self.places().map_err(LinkError::Nowhere)? {
            match self.open_at(&place).await {
                Ok(link) => return Ok(link),
                Err(e) => last = LinkError::Connect(words(&place.0, place.1, &e)),
            }
        }
        Err(last)
    }

    /// Connects to this endpoint.
    pub async fn open_at(&self, (host, port): &resolve::Place) -> io::Result<Link> {
        let to = Remote {
            host: host.clone(),
            port: *port,
            security: Security::As(self.tls.clone(), self.service.host()),
        };
        let opened = self.links.connect(&to).await?;
        Ok(Link {
            io: TokioIo::new(opened.stream),
            h2: opened.h2,
        })
    }
}

impl tower::Service<Uri> for Linker {
    type Response = Link;
    type Error = LinkError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, LinkError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let linker = self.clone();
        Box::pin(async move { linker.open().await })
    }
}

/// An open connection.
pub struct Link {
    io: TokioIo<Stream>,
    h2: bool,
}

impl Link {
    pub fn into_stream(self) -> Stream {
        self.io.into_inner()
    }
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        match self.h2 {
            true => Connected::new().negotiated_h2(),
            false => Connected::new(),
        }
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
