//! An authorizer that asks another server, by a SubjectAccessReview.
//!
//! Answers are kept for as long as the configuration says, so most questions are answered without
//! asking. What cannot be asked, or is not answered, is what the failure policy says.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use gantry_machinery::access::{self, Expression};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use kube::{
    client::{Body, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tower::BoxError;

use super::{
    Attributes, Verdict,
    review::{self, Spoken, Status},
};
use crate::{
    authn::UserInfo,
    metrics::authorization::{Authorization as Metrics, Outcome},
    webhook::status_words,
};

/// How another server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookAuthorization {
    pub name: String,
    /// Where the server is, and how it and this one know each other.
    pub kubeconfig: PathBuf,
    pub spoken: Spoken,
    /// Time for one answer.
    pub timeout: Duration,
    /// How long it is remembered that something may be done; `None` never.
    pub allowed_for: Option<Duration>,
    /// How long it is remembered that something may not be done, or that nothing was said of it.
    pub refused_for: Option<Duration>,
    /// Whether what cannot be asked is forbidden; else others are asked.
    pub denies_on_failure: bool,
    /// What a request must all be for the server to be asked about it.
    pub conditions: Vec<Expression>,
}

impl WebhookAuthorization {
    /// What Kubernetes' flags say of nothing else.
    pub fn new(kubeconfig: PathBuf) -> WebhookAuthorization {
        WebhookAuthorization {
            name: "default".to_owned(),
            kubeconfig,
            spoken: Spoken::V1beta1,
            timeout: Duration::from_secs(30),
            allowed_for: Some(Duration::from_secs(300)),
            refused_for: Some(Duration::from_secs(30)),
            denies_on_failure: false,
            conditions: vec![],
        }
    }
}

/// Why a server cannot be asked as configured.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("reading the kubeconfig {path} of the authorization webhook {name:?}")]
    Kubeconfig {
        name: String,
        path: PathBuf,
        #[source]
        source: kube::config::KubeconfigError,
    },
    #[error("the kubeconfig {path} of the authorization webhook {name:?}: a proxy is not offered")]
    Proxy { name: String, path: PathBuf },
    #[error("using the kubeconfig {path} of the authorization webhook {name:?}")]
    Unusable {
        name: String,
        path: PathBuf,
        #[source]
        source: Box<kube::Error>,
    },
}

/// Most answers that are remembered, as in Kubernetes.
const REMEMBERED: usize = 8192;
/// What a client says of a request is not remembered where it is longer than this together: it
/// would fill the memory.
const LONGEST: usize = 10_000;
/// Most bytes that are read of an answer.
const ANSWER_LIMIT: usize = 1 << 20;
/// How often a server is asked that says to come again, and how soon at first.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(500);

pub struct Hook {
    pub config: WebhookAuthorization,
    url: String,
    client: kube::Client,
    answers: Mutex<FxHashMap<String, (Instant, Status)>>,
    metrics: Arc<Metrics>,
}

/// What is known before anybody is asked.
pub enum Begun {
    Known(Verdict),
    Ask(Question),
}

/// What the server is to be asked.
pub struct Question {
    /// The review as it is sent, without its version: what answers are remembered by.
    key: String,
    body: Bytes,
    remembered: bool,
}

impl Hook {
    /// # Errors
    /// The kubeconfig cannot be read or used.
    pub async fn new(
        config: WebhookAuthorization,
        metrics: Arc<Metrics>,
    ) -> Result<Hook, WebhookError> {
        let (name, path) = (config.name.clone(), config.kubeconfig.clone());
        let unread = |source| WebhookError::Kubeconfig {
            name: name.clone(),
            path: path.clone(),
            source,
        };
        let kubeconfig = Kubeconfig::read_from(&path).map_err(unread)?;
        let server =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(unread)?;
        if server.proxy_url.is_some() {
            return Err(WebhookError::Proxy { name, path });
        }
        let unusable = |source| WebhookError::Unusable {
            name: name.clone(),
            path: path.clone(),
            source: Box::new(source),
        };
        let connector = server.rustls_https_connector().map_err(unusable)?;
        let service = tower::ServiceBuilder::new()
            .option_layer(server.auth_layer().map_err(unusable)?)
            .map_err(BoxError::from)
            .service(Client::builder(TokioExecutor::new()).build(connector));
        Ok(Hook {
            config,
            url: server.cluster_url.to_string(),
            client: kube::Client::new(service, "default"),
            answers: Mutex::default(),
            metrics,
        })
    }

    /// Finds out what can be said without asking.
    pub fn begin(&self, user: &UserInfo, a: &Attributes<'_>) -> Begun {
        let spec = review::spec(user, a);
        match access::met(&self.config.conditions, &spec) {
            Ok(true) => {}
            Ok(false) => {
                self.metrics.spared(&self.config.name);
                return Begun::Known(Verdict::none());
            }
            Err(why) => {
                self.metrics.condition_failed(&self.config.name);
                return Begun::Known(self.failed(why));
            }
        }
        let review = review::sent(spec, self.config.spoken);
        let key = review["spec"].to_string();
        let now = Instant::now();
        if let Some((until, status)) = self.answers.lock().get(&key)
            && *until > now
        {
            return Begun::Known(verdict(status));
        }
        let told = [
            a.namespace,
            a.verb,
            a.group,
            a.version,
            a.resource,
            a.subresource,
            a.name,
            a.path.unwrap_or_default(),
        ];
        Begun::Ask(Question {
            key,
            body: review.to_string().into(),
            remembered: told.iter().map(|t| t.len()).sum::<usize>() < LONGEST,
        })
    }

    /// Asks.
    pub async fn ask(&self, question: Question) -> Verdict {
        let mut pause = AGAIN;
        for attempt in 1.. {
            let since = Instant::now();
            let asked = tokio::time::timeout(self.config.timeout, self.post(&question)).await;
            let (failed, outcome) = match asked {
                Ok(Ok(status)) => {
                    self.count(Outcome::Success, since);
                    self.remember(&question, &status);
                    return verdict(&status);
                }
                Ok(Err(failed)) => (failed, Outcome::Error),
                Err(_) => {
                    let why = format!("Post {:?}: context deadline exceeded", self.url);
                    (Failed { why, again: false }, Outcome::Timeout)
                }
            };
            self.count(outcome, since);
            if attempt >= TRIES || !failed.again {
                let name = &self.config.name;
                tracing::error!(%name, why = %failed.why, "asking an authorization webhook");
                if !self.config.denies_on_failure {
                    self.metrics.failed_open(name, outcome);
                }
                return self.failed(failed.why);
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5);
        }
        Verdict::none()
    }

    fn count(&self, outcome: Outcome, since: Instant) {
        self.metrics
            .asked(&self.config.name, outcome, since.elapsed());
    }

    async fn post(&self, question: &Question) -> Result<Status, Failed> {
        let url = &self.url;
        let failed = |why: String| Failed {
            again: why.contains("reset by peer"),
            why: format!("Post {url:?}: {why}"),
        };
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver")
            .body(Body::from(question.body.clone()))
            .map_err(|e| failed(e.to_string()))?;
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|e| failed(innermost(&e)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT)
            .collect()
            .await;
        let body = body.map_err(|e| failed(e.to_string()))?.to_bytes();
        if !status.is_success() {
            return Err(Failed {
                why: status_words(status, &body),
                again: matches!(
                    status,
                    StatusCode::INTERNAL_SERVER_ERROR
                        | StatusCode::GATEWAY_TIMEOUT
                        | StatusCode::TOO_MANY_REQUESTS
                ),
            });
        }
        review::answer(&body).map_err(|why| Failed { why, again: false })
    }

    fn remember(&self, question: &Question, status: &Status) {
        let kept = match status.allowed {
            true => self.config.allowed_for,
            false => self.config.refused_for,
        };
        let Some(kept) = kept.filter(|_| question.remembered) else {
            return;
        };
        let now = Instant::now();
        let mut answers = self.answers.lock();
        if answers.len() >= REMEMBERED {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
        answers.insert(question.key.clone(), (now + kept, status.clone()));
    }

    /// What the failure policy makes of a failure. Where others may still allow, so be it; where none
    /// does, the failure is told.
    pub fn failed(&self, why: String) -> Verdict {
        let decision = match self.config.denies_on_failure {
            true => super::Decision::Deny,
            false => super::Decision::NoOpinion,
        };
        Verdict {
            decision,
            reason: String::new(),
            error: Some(why),
        }
    }
}

struct Failed {
    why: String,
    /// Whether it may be otherwise in a moment.
    again: bool,
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

fn verdict(status: &Status) -> Verdict {
    let both = status.allowed && status.denied;
    Verdict {
        decision: match (status.denied, status.allowed) {
            (true, _) => super::Decision::Deny,
            (false, true) => super::Decision::Allow,
            (false, false) => super::Decision::NoOpinion,
        },
        reason: status.reason.clone(),
        error: both.then(|| {
            "webhook subject access review returned both allow and deny response".to_owned()
        }),
    }
}
