//! Secrets of type `kubernetes.io/service-account-token`: filled with a token of their account, and
//! removed when the account goes.
//!
//! Behaviour is that of the `serviceaccount-token-controller` of Kubernetes.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::api::Patch;
use serde_json::json;
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::{Key, SECRETS, SERVICE_ACCOUNTS};
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

/// From namespace, name and uid of an account and the name of a Secret to a token.
type Sign = dyn Fn((&str, &str, &str), &str) -> Option<String> + Send + Sync;

/// Signs the tokens that Secrets keep.
#[derive(Clone)]
pub struct TokenSigner(Arc<Sign>);

impl TokenSigner {
    pub fn new(
        sign: impl Fn((&str, &str, &str), &str) -> Option<String> + Send + Sync + 'static,
    ) -> TokenSigner {
        TokenSigner(Arc::new(sign))
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSigner")
    }
}

struct Tokens {
    context: Context,
    signer: TokenSigner,
    root_ca: Option<String>,
}

pub fn start(
    context: &Context,
    workers: usize,
    signer: TokenSigner,
    root_ca: Option<String>,
) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let into = queue.clone();
    context.informers.token_secrets.on_change(move |_, new| {
        if let Some(secret) = new {
            into.add(secret.metadata.key());
        }
    });
    let (into, informers) = (queue.clone(), context.informers.clone());
    context.informers.accounts.on_change(move |old, new| {
        let Some(account) = old.or(new) else { return };
        let meta = &account.metadata;
        for secret in informers.token_secrets.in_namespace(&meta.namespace) {
            if secret.account().0 == &*meta.name {
                into.add(secret.metadata.key());
            }
        }
    });
    let controller = Arc::new(Tokens {
        context: context.clone(),
        signer,
        root_ca,
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Tokens {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let api = &self.context.api;
        let Some(secret) = self.context.informers.token_secrets.get(key) else {
            return Ok(Outcome::Done);
        };
        let (name, uid) = secret.account();
        if name.is_empty() || secret.metadata.deleted.is_some() {
            return Ok(Outcome::Done);
        }
        let account = Key::new(&key.namespace, name);
        // The cache may be behind: whether there is an account is asked.
        let account: Option<MetaOnly> = api.get(&SERVICE_ACCOUNTS, &account).await?;
        let account = account.filter(|a| uid.is_empty() || *a.metadata.uid == *uid);
        let Some(account) = account else {
            let of = secret.metadata.uid.clone();
            api.delete(&SECRETS, key, Deletion::of(&of)).await?;
            return Ok(Outcome::Done);
        };
        let has = |field: &str| secret.data.get(field).is_some_and(|v| !v.is_empty());
        let ca = self.root_ca.as_ref().map(|pem| STANDARD.encode(pem));
        let ca_missing = ca
            .as_ref()
            .is_some_and(|ca| secret.data.get("ca.crt") != Some(ca));
        if has("token") && has("namespace") && !ca_missing && !uid.is_empty() {
            return Ok(Outcome::Done);
        }
        let mut data = serde_json::Map::new();
        if let Some(ca) = ca {
            data.insert("ca.crt".to_owned(), ca.into());
        }
        if !has("namespace") {
            let namespace = STANDARD.encode(&*key.namespace);
            data.insert("namespace".to_owned(), namespace.into());
        }
        if !has("token") {
            let of = (&*key.namespace, name, &*account.metadata.uid);
            let Some(token) = (self.signer.0)(of, &key.name) else {
                tracing::error!(%key, "signing a token failed");
                return Ok(Outcome::After(std::time::Duration::from_secs(1)));
            };
            data.insert("token".to_owned(), STANDARD.encode(token).into());
        }
        let patch = Patch::Merge(json!({
            "metadata": {
                "uid": secret.metadata.uid,
                "annotations": {"kubernetes.io/service-account.uid": account.metadata.uid},
            },
            "data": data,
        }));
        api.patch::<MetaOnly>(&SECRETS, key, None, &patch).await?;
        Ok(Outcome::Done)
    }
}
