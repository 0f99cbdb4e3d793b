//! Requests to what tenants name: a connection is made only to an address that the guard lets through.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use gantry_api::labels;
use http::{Request, response::Parts};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};

use super::ask::{cause, tls};
use crate::notify::guard::Guard;

/// A client that keeps to a guard.
#[derive(Clone)]
pub(super) struct Outside {
    guard: Guard,
    http: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
}

impl Outside {
    /// A client with the authorities of this system.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(guard: Guard) -> Result<Self, rustls::Error> {
        let mut http = HttpConnector::new_with_resolver(Resolver(guard.clone()));
        http.enforce_http(false);
        http.set_connect_timeout(Some(Duration::from_secs(10)));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Self {
            guard,
            http: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Sends a request; of the answer at most `limit` bytes are read.
    ///
    /// # Errors
    /// Why there is no answer, in one line that does not show the URL.
    pub async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<(Parts, Bytes), String> {
        // An address that is written out is never resolved.
        let host = request.uri().host().unwrap_or_default();
        let literal = host.trim_matches(['[', ']']).parse();
        if let Ok(address) = literal
            && !self.guard.address(address)
        {
            return Err(private(host));
        }
        let response = self.http.request(request).await.map_err(|e| cause(&e))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, limit).collect().await;
        Ok((parts, body.map_err(|e| e.to_string())?.to_bytes()))
    }
}

fn private(host: &str) -> String {
    format!(
        "{host} has no public address: who runs the fleet can allow it with --notify-allow, or send from {}",
        labels::SYSTEM_NAMESPACE
    )
}

/// Resolves names, and leaves out addresses that may not be reached.
#[derive(Clone)]
struct Resolver(Guard);

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.0.clone();
        Box::pin(async move {
            let all = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let trusted = guard.host(name.as_str());
            let may: Vec<SocketAddr> = all.filter(|a| trusted || guard.address(a.ip())).collect();
            if may.is_empty() {
                return Err(std::io::Error::other(private(name.as_str())));
            }
            Ok(may.into_iter())
        })
    }
}
