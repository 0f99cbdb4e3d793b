//! Connections to webhooks: from a URL's host to a TLS stream.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use gantry_store::Store;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::resolve;
use crate::proxy::links::{Network, Stream};

/// Why there is no connection, as Go's client words it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(String);

/// Opens connections that are trusted by one set of authorities.
#[derive(Clone)]
pub struct Linker {
    pub store: Store,
    pub config: Arc<ClientConfig>,
    /// Where simulated pods are.
    pub network: Option<Arc<dyn Network>>,
}

impl Linker {
    async fn open(self, uri: Uri) -> Result<Link, LinkError> {
        let fail = |why: String| LinkError(why);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(443);
        let places = match resolve::service(host) {
            Some((namespace, name)) => {
                resolve::places(&self.store, namespace, name, port).map_err(fail)?
            }
            None => vec![(host.to_owned(), port)],
        };
        let mut socket = Err(fail("no address".to_owned()));
        let mut simulated = false;
        for (place, port) in places {
            simulated = self.network.as_ref().is_some_and(|it| it.covers(&place));
            socket = match self.socket(&place, port).await {
                Ok(socket) => Ok(socket),
                Err(e) => Err(LinkError(dial_error(&place, port, &e))),
            };
            if socket.is_ok() {
                break;
            }
        }
        let socket = socket?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| fail(format!("invalid server name {host:?}")))?;
        let stream = TlsConnector::from(self.config)
            .connect(name, socket)
            .await
            .map_err(|e| fail(handshake_error(&e, simulated)))?;
        Ok(Link(TokioIo::new(stream)))
    }

    async fn socket(&self, host: &str, port: u16) -> io::Result<Stream> {
        if let Some(network) = self.network.as_ref().filter(|it| it.covers(host)) {
            return network.connect(host.to_owned(), port).await;
        }
        let socket = TcpStream::connect((host, port)).await?;
        let _ = socket.set_nodelay(true);
        Ok(Box::new(socket))
    }
}

/// What did not work about a connection to this place, as Go's client words it.
pub fn words(host: &str, port: u16, e: &io::Error) -> String {
    let tls = e.get_ref().is_some_and(|e| e.is::<rustls::Error>());
    if tls || e.kind() == io::ErrorKind::UnexpectedEof {
        return tls_error(e);
    }
    dial_error(host, port, e)
}

fn dial_error(host: &str, port: u16, e: &io::Error) -> String {
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    match e.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("dial tcp {address}: connect: connection refused")
        }
        io::ErrorKind::TimedOut => format!("dial tcp {address}: i/o timeout"),
        io::ErrorKind::HostUnreachable => {
            format!("dial tcp {address}: connect: no route to host")
        }
        _ if host.parse::<std::net::IpAddr>().is_err() && e.raw_os_error().is_none() => {
            format!("dial tcp: lookup {host}: no such host")
        }
        _ => format!("dial tcp {address}: {e}"),
    }
}

/// Of a simulated pod it is said what may be the matter.
fn handshake_error(e: &io::Error, simulated: bool) -> String {
    let said = tls_error(e);
    match simulated {
        true => {
            format!("{said} (the webhook's pod is simulated: of most images nothing runs in it)")
        }
        false => said,
    }
}

fn tls_error(e: &io::Error) -> String {
    let inner = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let unverified = |why: String| format!("tls: failed to verify certificate: x509: {why}");
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => unverified(match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "certificate signed by unknown authority".to_owned()
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                "certificate has expired or is not yet valid".to_owned()
            }
            other => other.to_string(),
        }),
        Some(other) => format!("tls: {other}"),
        None => match e.kind() {
            io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            _ => e.to_string(),
        },
    }
}

impl tower::Service<Uri> for Linker {
    type Response = Link;
    type Error = LinkError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, LinkError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().open(uri))
    }
}

/// An open connection.
pub struct Link(TokioIo<TlsStream<Stream>>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self.0.inner().get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
