//! One webhook's server and what may go wrong in calling it.

use std::{error::Error as _, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use gantry_store::Store;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use super::{link::Linker, trust::Trust};
use crate::{
    object,
    proxy::links::{self, Identity, Network},
};

type Pool = Client<Linker, Full<Bytes>>;

/// Most bytes that are read of an answer.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(90);

/// Why a call brought no answer, as Go's client words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CallError(pub String);

/// Makes [`Caller`]s; those that trust the same authorities share their connections.
pub struct Callers {
    store: Store,
    network: Option<Arc<dyn Network>>,
    pools: Mutex<FxHashMap<String, Pool>>,
}

/// Most pools kept; beyond, all are forgotten (those in use live on with their callers).
const POOLS: usize = 256;

impl Callers {
    /// `network`: where simulated pods are, if there are any in this process.
    pub fn new(store: Store, network: Option<Arc<dyn Network>>) -> Callers {
        Callers {
            store,
            network,
            pools: Mutex::default(),
        }
    }

    /// The server that a `clientConfig` (of a webhook or of a conversion) names.
    ///
    /// # Errors
    /// Why it cannot be called at all.
    pub fn caller(&self, config: &Value) -> Result<Caller, CallError> {
        let url = match config.get("service") {
            Some(service) if !service.is_null() => {
                let port = service.get("port").and_then(Value::as_u64).unwrap_or(443);
                let path = object::text(service, "/path").trim_start_matches('/');
                format!(
                    "https://{}.{}.svc:{port}/{path}",
                    object::text(service, "/name"),
                    object::text(service, "/namespace"),
                )
            }
            _ => object::text(config, "/url").to_owned(),
        };
        let uri: Uri = url
            .parse()
            .map_err(|e| CallError(format!("parse {url:?}: {e}")))?;
        if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
            return Err(CallError(format!("{url:?} is no https URL")));
        }
        let pool = self.pool(object::text(config, "/caBundle"))?;
        Ok(Caller { pool, url })
    }

    fn pool(&self, bundle: &str) -> Result<Pool, CallError> {
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(bundle) {
            return Ok(pool.clone());
        }
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_idle_timeout(IDLE)
            .pool_timer(hyper_util::rt::TokioTimer::new());
        let pool: Pool = builder.build(Linker {
            store: self.store.clone(),
            config: Arc::new(with_both(trusting(bundle, None)?)),
            network: self.network.clone(),
        });
        if pools.len() >= POOLS {
            pools.clear();
        }
        pools.insert(bundle.to_owned(), pool.clone());
        Ok(pool)
    }
}

/// TLS with both versions of HTTP.
fn with_both(config: Arc<ClientConfig>) -> ClientConfig {
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// TLS that trusts a bundle of certificates (PEM in base64), or the system's without one, and shows
/// who asks.
pub fn trusting(bundle: &str, shown: Option<&Identity>) -> Result<Arc<ClientConfig>, CallError> {
    let mut roots = RootCertStore::empty();
    let mut given: Vec<CertificateDer<'static>> = vec![];
    if bundle.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let unusable = |why: &dyn std::fmt::Display| {
            CallError(format!("unable to load root certificates: {why}"))
        };
        let pem = STANDARD.decode(bundle).map_err(|e| unusable(&e))?;
        given = CertificateDer::pem_slice_iter(&pem)
            .filter_map(Result::ok)
            .collect();
        let (added, _) = roots.add_parsable_certificates(given.clone());
        if added == 0 {
            return Err(unusable(&"unable to parse bytes as PEM block"));
        }
    }
    let trust = Trust::new(roots, given).map_err(CallError)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| CallError(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust));
    let config = links::finish(builder, shown).map_err(|e| CallError(e.to_string()))?;
    Ok(Arc::new(config))
}

/// A webhook's server.
#[derive(Clone)]
pub struct Caller {
    pool: Pool,
    url: String,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// Posts JSON and reads the answer. The server is told of a `timeout` in seconds by its URL.
    ///
    /// # Errors
    /// No connection, no answer in time, an answer other than 2xx, or one that is too long.
    pub async fn post(
        &self,
        body: Bytes,
        timeout: Duration,
        told: bool,
    ) -> Result<Bytes, CallError> {
        let url = if told {
            let mark = if self.url.contains('?') { '&' } else { '?' };
            format!("{}{mark}timeout={}s", self.url, timeout.as_secs())
        } else {
            self.url.clone()
        };
        let failed = |why: &str| CallError(format!("Post {url:?}: {why}"));
        let request = Request::post(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(body))
            .map_err(|e| failed(&e.to_string()))?;
        let exchange = async {
            let answer = self
                .pool
                .request(request)
                .await
                .map_err(|e| failed(&cause(&e)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_LIMIT);
            match body.collect().await {
                Ok(body) => Ok((status, body.to_bytes())),
                Err(e) if e.is::<LengthLimitError>() => Err(failed(&format!(
                    "the answer is longer than {ANSWER_LIMIT} bytes"
                ))),
                Err(e) => Err(failed(&e.to_string())),
            }
        };
        let (status, body) = tokio::time::timeout(timeout, exchange)
            .await
            .map_err(|_| failed("context deadline exceeded"))??;
        if status.is_success() {
            return Ok(body);
        }
        Err(CallError(status_words(status, &body)))
    }
}

/// The innermost reason of a failed exchange.
pub fn cause(e: &hyper_util::client::legacy::Error) -> String {
    let mut at = e.source();
    let mut last = e.to_string();
    while let Some(source) = at {
        if let Some(e) = source.downcast_ref::<hyper::Error>()
            && (e.is_incomplete_message() || e.is_canceled())
        {
            return "EOF".to_owned();
        }
        last = source.to_string();
        at = source.source();
    }
    last
}

/// What client-go makes of a status that is no success.
pub fn status_words(status: StatusCode, body: &[u8]) -> String {
    match status.as_u16() {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        409 => "the server reported a conflict".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later"
            .to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned(),
        code if code >= 500 => {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(2048).collect();
            format!("an error on the server ({text:?}) has prevented the request from succeeding")
        }
        code => format!(
            "the server responded with the status code {code} but did not return more information"
        ),
    }
}
