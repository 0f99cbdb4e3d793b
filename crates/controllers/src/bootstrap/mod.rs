//! Bootstrap tokens: those that have expired are removed, and the ConfigMap `cluster-info`, by which a
//! new node knows its cluster, is signed with those that may sign.
//!
//! Behaviour is that of `token-cleaner-controller` and `bootstrap-signer-controller` of Kubernetes 1.36.
//! Like there, both are off unless they are asked for.

mod sign;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kube::api::Patch;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::secret::TokenSecret;
use crate::model::{CONFIG_MAPS, Key, SECRETS};
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const NAMESPACE: &str = "kube-system";
const SIGNED_NAMESPACE: &str = "kube-public";
const SIGNED: &str = "cluster-info";
const SIGNATURE: &str = "jws-kubeconfig-";

/// What a bootstrap token's Secret says.
struct Token {
    fields: BTreeMap<String, String>,
}

impl Token {
    fn of(secret: &TokenSecret) -> Token {
        let decoded = |(name, value): (&String, &String)| {
            let bytes = STANDARD.decode(value).ok()?;
            Some((name.clone(), String::from_utf8(bytes).ok()?))
        };
        Token {
            fields: secret.data.iter().filter_map(decoded).collect(),
        }
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// How long it is good for; `None`: for ever. One whose end cannot be read is over.
    fn left(&self, now: Timestamp) -> Option<Duration> {
        let until = self.field("expiration");
        if until.is_empty() {
            return None;
        }
        let Ok(until) = until.parse::<Timestamp>() else {
            return Some(Duration::ZERO);
        };
        let left = until.duration_since(now);
        Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
    }

    /// Its id and secret, if it may sign: it is named after its id, says both, is not over and is for that.
    fn signs<'a>(&'a self, name: &'a str, now: Timestamp) -> Option<(&'a str, &'a str)> {
        let id = name.strip_prefix("bootstrap-token-")?;
        let alnum = |text: &str, length: usize| {
            let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
            text.len() == length && text.bytes().all(good)
        };
        let secret = self.field("token-secret");
        let good = alnum(id, 6)
            && self.field("token-id") == id
            && !secret.is_empty()
            && self.left(now).is_none_or(|left| !left.is_zero())
            && self.field("usage-bootstrap-signing") == "true";
        good.then_some((id, secret))
    }
}

/// What of `cluster-info` changes: its signatures as they should be, `null` for those that go. `None`:
/// nothing does.
fn signatures<'a>(
    data: &BTreeMap<String, String>,
    tokens: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<Value> {
    let content = data.get("kubeconfig")?;
    let wanted: BTreeMap<String, String> = tokens
        .map(|(id, secret)| {
            let name = format!("{SIGNATURE}{id}");
            (
                name,
                sign::detached(content.as_bytes(), id, secret.as_bytes()),
            )
        })
        .collect();
    let mut change = json!({});
    for name in data.keys().filter(|name| name.starts_with(SIGNATURE)) {
        if !wanted.contains_key(name) {
            change[name] = Value::Null;
        }
    }
    for (name, signature) in &wanted {
        if data.get(name) != Some(signature) {
            change[name] = signature.as_str().into();
        }
    }
    change
        .as_object()
        .is_some_and(|c| !c.is_empty())
        .then_some(change)
}

struct Cleaner(Context);
struct Signer(Context);

pub fn start_cleaner(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let added = queue.clone();
    context.informers.bootstrap_tokens.on_change(move |_, new| {
        if let Some(secret) = new {
            added.add(secret.metadata.key());
        }
    });
    let controller = Arc::new(Cleaner(context.clone()));
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Cleaner {
    fn name(&self) -> &'static str {
        "token-cleaner-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let found = self.0.informers.bootstrap_tokens.get(key);
        let Some(secret) = found.filter(|_| &*key.namespace == NAMESPACE) else {
            return Ok(Outcome::Done);
        };
        match Token::of(&secret).left(Timestamp::now()) {
            None => Ok(Outcome::Done),
            Some(left) if !left.is_zero() => Ok(Outcome::After(left)),
            Some(_) => {
                let deletion = Deletion::of(&secret.metadata.uid);
                match self.0.api.delete(&SECRETS, key, deletion).await {
                    Err(error) if !error.conflict() => Err(error),
                    _ => Ok(Outcome::Done),
                }
            }
        }
    }
}

pub fn start_signer(context: &Context, _workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let signed = || Key::new(SIGNED_NAMESPACE, SIGNED);
    let added = queue.clone();
    context
        .informers
        .bootstrap_tokens
        .on_change(move |_, _| added.add(signed()));
    let added = queue.clone();
    context
        .informers
        .cluster_infos
        .on_change(move |_, _| added.add(signed()));
    let controller = Arc::new(Signer(context.clone()));
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, 1, tasks, &stop)
}

impl Controller for Signer {
    fn name(&self) -> &'static str {
        "bootstrap-signer-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.0.informers;
        let Some(map) = informers.cluster_infos.get(key) else {
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        let secrets = informers.bootstrap_tokens.in_namespace(NAMESPACE);
        let tokens: Vec<_> = secrets
            .iter()
            .map(|secret| (&secret.metadata.name, Token::of(secret)))
            .collect();
        let signing = tokens
            .iter()
            .filter_map(|(name, token)| token.signs(name, now));
        if let Some(data) = signatures(&map.data, signing) {
            let patch = json!({"metadata": {"uid": &*map.metadata.uid}, "data": data});
            let patch = Patch::Merge(patch);
            let written = self
                .0
                .api
                .patch::<MetaOnly>(&CONFIG_MAPS, key, None, &patch);
            match written.await {
                Err(error) if !error.not_found() && !error.conflict() => return Err(error),
                _ => {}
            }
        }
        // One that is over signs no more.
        let ends = tokens.iter().filter_map(|(_, token)| token.left(now));
        let next = ends.filter(|left| !left.is_zero()).min();
        Ok(next.map_or(Outcome::Done, Outcome::After))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NAME: &str = "bootstrap-token-abcdef";

    fn token(change: &[(&str, &str)]) -> Token {
        let mut fields: BTreeMap<String, String> = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-signing", "true"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        for (name, value) in change {
            fields.insert((*name).to_owned(), (*value).to_owned());
        }
        Token { fields }
    }

    #[rstest]
    #[case::good(NAME, &[], true)]
    #[case::not_over(NAME, &[("expiration", "2026-01-01T00:00:20Z")], true)]
    #[case::over(NAME, &[("expiration", "2026-01-01T00:00:10Z")], false)]
    #[case::unreadable_end(NAME, &[("expiration", "soon")], false)]
    #[case::another_name("bootstrap-token-fedcba", &[], false)]
    #[case::no_such_name("token", &[], false)]
    #[case::no_secret(NAME, &[("token-secret", "")], false)]
    #[case::for_something_else(NAME, &[("usage-bootstrap-signing", "false")], false)]
    fn signing_tokens(#[case] name: &str, #[case] change: &[(&str, &str)], #[case] signs: bool) {
        let now = "2026-01-01T00:00:10Z".parse().unwrap();
        assert_eq!(token(change).signs(name, now).is_some(), signs);
    }

    #[test]
    fn signatures_come_stay_and_go() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        let all = || [("abcdef", "0123456789abcdef")].into_iter();
        assert_eq!(signatures(&map(&[("other", "x")]), all()), None);
        let bare = map(&[("kubeconfig", "k")]);
        let change = signatures(&bare, all()).unwrap();
        let signature = change["jws-kubeconfig-abcdef"].as_str().unwrap();
        let signed = map(&[("kubeconfig", "k"), ("jws-kubeconfig-abcdef", signature)]);
        assert_eq!(signatures(&signed, all()), None);
        let gone = json!({"jws-kubeconfig-abcdef": null});
        assert_eq!(signatures(&signed, [].into_iter()), Some(gone));
        let other = map(&[
            ("kubeconfig", "other"),
            ("jws-kubeconfig-abcdef", signature),
        ]);
        assert!(signatures(&other, all()).is_some());
    }
}
