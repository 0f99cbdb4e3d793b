//! Putting questions to what stands outside: Prometheus, webhooks. Questions are put beside the work on
//! Groups, so that a slow server holds up no release but its own; answers wait here for the next look.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use gantry_api::gate::SecretKey;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use http_body_util::Full;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::sync::Semaphore;

use super::{outside::Outside, table::Key};
use crate::notify::guard::{Allowed, Guard};
use crate::release::gate::{Answer, Answers, Ask, Question, prometheus};

/// How long Prometheus may take.
const METRIC_TIME: Duration = Duration::from_secs(10);
/// The most of an answer that is read.
const ANSWER_LIMIT: usize = 1 << 20;
/// As much of a webhook's answer is told to people.
const TOLD: usize = 200;
/// Questions under way at the same time.
const AT_ONCE: usize = 64;

/// Makes requests of gates.
#[derive(Clone)]
pub struct Asker {
    /// For metrics and registries, which stand where the operator has put them.
    open: Outside,
    /// For webhooks: what a strategy names is not to be a way into the operator's network.
    guarded: Outside,
    hub: kube::Client,
    places: Arc<Semaphore>,
}

/// The questions and answers of every Group. Lost with the process: what is still open is asked again.
#[derive(Default)]
pub struct Asked(Mutex<HashMap<Key, State>>);

#[derive(Default)]
struct State {
    under_way: BTreeSet<String>,
    answers: Answers,
}

impl Asked {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<Key, State>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What has come for a Group.
    pub fn answers(&self, key: &Key) -> Answers {
        self.with(|all| all.get(key).map(|s| s.answers.clone()).unwrap_or_default())
    }

    /// Answers that have been written down are forgotten.
    pub fn taken(&self, key: &Key, answers: &Answers) {
        self.with(|all| {
            if let Some(state) = all.get_mut(key) {
                state.answers.retain(|id, _| !answers.contains_key(id));
                if state.answers.is_empty() && state.under_way.is_empty() {
                    all.remove(key);
                }
            }
        });
    }

    /// Whether `id` is to be asked now; from then on it is under way.
    pub fn begin(&self, key: &Key, id: &str) -> bool {
        self.with(|all| {
            let state = all.entry(key.clone()).or_default();
            !state.answers.contains_key(id) && state.under_way.insert(id.to_owned())
        })
    }

    /// An answer has come.
    pub fn end(&self, key: &Key, id: String, answer: Answer) {
        self.with(|all| {
            let state = all.entry(key.clone()).or_default();
            state.under_way.remove(&id);
            state.answers.insert(id, answer);
        });
    }
}

/// The innermost cause: of a failed connection it is what the operating system said.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// TLS with the authorities of this system.
pub(super) fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl Asker {
    /// An asker with the authorities of this system; webhooks reach public addresses and what is `allowed`.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(hub: kube::Client, allowed: &[Allowed]) -> Result<Self, rustls::Error> {
        Ok(Self {
            open: Outside::new(Guard {
                allowed: vec![],
                open: true,
            })?,
            guarded: Outside::new(Guard {
                allowed: allowed.to_vec(),
                open: false,
            })?,
            hub,
            places: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// Puts one question of a release in `namespace`.
    pub async fn ask(&self, namespace: &str, ask: &Ask) -> Answer {
        // The semaphore is never closed.
        let _place = self.places.acquire().await;
        let token = match &ask.token {
            Some(key) => match self.token(namespace, key).await {
                Ok(token) => Some(token),
                Err(why) => return silent(&ask.question, why),
            },
            None => None,
        };
        match &ask.question {
            Question::Metric {
                address,
                query,
                baseline,
            } => {
                let value = self.query(address, query, token.as_deref()).await;
                let baseline = match baseline {
                    Some(query) => Some(self.query(address, query, token.as_deref()).await),
                    None => None,
                };
                Answer::Metric { value, baseline }
            }
            Question::Webhook {
                url,
                payload,
                timeout,
            } => {
                let body = payload.to_string();
                let answer = self
                    .post(
                        url,
                        "application/json",
                        body,
                        token.as_deref(),
                        timeout.duration(),
                        true,
                    )
                    .await;
                Answer::Webhook(answer.map(|(code, body)| {
                    let text = String::from_utf8_lossy(&body);
                    (code, text.chars().take(TOLD).collect())
                }))
            }
            Question::Digest { image } => Answer::Digest(self.digest(image).await),
        }
    }

    async fn token(&self, namespace: &str, key: &SecretKey) -> Result<String, String> {
        let api: Api<Secret> = Api::namespaced(self.hub.clone(), namespace);
        let secret = api
            .get(&key.name)
            .await
            .map_err(|e| format!("read secret {}: {e}", key.name))?;
        let data = secret.data.and_then(|mut d| d.remove(&key.key));
        let data = data.ok_or_else(|| format!("secret {} has no key {}", key.name, key.key))?;
        let text = String::from_utf8(data.0)
            .map_err(|_| format!("key {} of secret {} is no text", key.key, key.name))?;
        Ok(text.trim().to_owned())
    }

    async fn query(&self, address: &str, query: &str, token: Option<&str>) -> Result<f64, String> {
        // As a form: the names of a thousand instances do not fit into a URL.
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .finish();
        let url = format!("{}/api/v1/query", address.trim_end_matches('/'));
        let kind = "application/x-www-form-urlencoded";
        let (code, body) = self
            .post(&url, kind, form, token, METRIC_TIME, false)
            .await?;
        prometheus::read(&body).map_err(|why| match code {
            200 => why,
            code => format!("{url} answers {code}: {why}"),
        })
    }

    async fn post(
        &self,
        url: &str,
        kind: &str,
        body: String,
        token: Option<&str>,
        time: Duration,
        guarded: bool,
    ) -> Result<(u16, Bytes), String> {
        let mut headers = vec![(header::CONTENT_TYPE, kind.to_owned())];
        if let Some(token) = token {
            headers.push((header::AUTHORIZATION, format!("Bearer {token}")));
        }
        let exchange = async {
            let request = request(Method::POST, url, &headers, Bytes::from(body))?;
            let outside = if guarded { &self.guarded } else { &self.open };
            outside.exchange(request, ANSWER_LIMIT).await
        };
        match tokio::time::timeout(time, exchange).await {
            Ok(answer) => answer
                .map(|(head, body)| (head.status.as_u16(), body))
                .map_err(|why| format!("{url}: {why}")),
            Err(_) => Err(format!(
                "{url} does not answer in {}",
                gantry_api::Span::from(time)
            )),
        }
    }
}

/// The head of an answer.
pub(super) struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

impl Asker {
    /// One request and its answer.
    pub(super) async fn exchange(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, String)],
        body: Bytes,
    ) -> Result<(Head, Bytes), String> {
        let request = request(method, url, headers, body)?;
        let (parts, body) = self.open.exchange(request, ANSWER_LIMIT).await?;
        let head = Head {
            status: parts.status,
            headers: parts.headers,
        };
        Ok((head, body))
    }
}

fn request(
    method: Method,
    url: &str,
    headers: &[(HeaderName, String)],
    body: Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .header(header::USER_AGENT, "gantry-hub");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Full::new(body)).map_err(|e| e.to_string())
}

fn silent(question: &Question, why: String) -> Answer {
    match question {
        Question::Metric { .. } => Answer::Metric {
            value: Err(why),
            baseline: None,
        },
        Question::Webhook { .. } => Answer::Webhook(Err(why)),
        Question::Digest { .. } => Answer::Digest(Err(why)),
    }
}

#[cfg(test)]
pub(super) mod tests;
