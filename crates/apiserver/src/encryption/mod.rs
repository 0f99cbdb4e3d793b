//! Encryption at rest: what is kept on disk of which resources, as `--encryption-provider-config` says.
//!
//! The store holds values as they are; what lies in its folder and in backups is what the first provider
//! of a resource makes of them, in the form in which kube-apiserver writes to etcd:
//! `k8s:enc:SCHEME:v1:KEY:` and what the scheme makes. All providers are tried on what is read.

mod cipher;
mod config;
mod secretbox;

use std::{fmt, sync::Arc};

use gantry_store::{KeepError, Keeper, Opened, Revision, Store};
use parking_lot::RwLock;

use cipher::Cipher;

pub use config::parse;

/// What all that is encrypted begins with.
const MARK: &[u8] = b"k8s:enc:";

/// Which resources are encrypted, and how. That can be [replaced](Encryption::replace).
#[derive(Default)]
pub struct Encryption {
    in_force: RwLock<InForce>,
}

#[derive(Default)]
struct InForce {
    rules: Arc<Rules>,
    /// What was in force before, in order, with the last revision that may have been written by it.
    before: Vec<(Arc<Rules>, Revision)>,
}

/// The first that is for a resource counts.
#[derive(Default)]
struct Rules(Vec<Rule>);

impl fmt::Debug for Encryption {
    // Keys are shown nowhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption")
            .field("rules", &self.rules().0.len())
            .finish_non_exhaustive()
    }
}

struct Rule {
    resources: Vec<Resources>,
    /// The first writes, all read.
    providers: Vec<Provider>,
}

/// Resources by group and plural, of which `*` is any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resources {
    group: String,
    plural: String,
}

enum Provider {
    /// As it is.
    Identity,
    Keys(Vec<Key>),
}

struct Key {
    /// `k8s:enc:SCHEME:v1:NAME:`.
    head: Vec<u8>,
    cipher: Cipher,
}

impl Resources {
    fn cover(&self, group: &str, plural: &str) -> bool {
        (self.group == "*" || self.group == group) && (self.plural == "*" || self.plural == plural)
    }
}

impl Rules {
    fn providers(&self, bucket: &str) -> Option<&[Provider]> {
        let (group, plural) = bucket.split_once('/').unwrap_or(("", bucket));
        let rule = self
            .0
            .iter()
            .find(|rule| rule.resources.iter().any(|r| r.cover(group, plural)))?;
        Some(&rule.providers)
    }

    /// What the objects of a bucket are encrypted with, if they are.
    fn writer(&self, bucket: &str) -> Option<&Key> {
        match self.providers(bucket)?.first()? {
            Provider::Keys(keys) => keys.first(),
            Provider::Identity => None,
        }
    }
}

impl Encryption {
    fn of(rules: Vec<Rule>) -> Encryption {
        let rules = Arc::new(Rules(rules));
        Encryption {
            in_force: RwLock::new(InForce {
                rules,
                before: vec![],
            }),
        }
    }

    fn rules(&self) -> Arc<Rules> {
        self.in_force.read().rules.clone()
    }

    /// What is written from now on is written as another says. What lies there stays as it is until it
    /// is written again: a key that it was written with must stay among the providers until then.
    pub(crate) async fn replace(&self, other: Encryption, store: &Store) {
        {
            let mut now = self.in_force.write();
            let old = std::mem::replace(&mut now.rules, other.in_force.into_inner().rules);
            now.before.push((old, Revision::MAX));
        }
        // Writes that are under way may have been made by the former rules. (A store that is closed
        // writes nothing more.)
        let _ = store.settled().await;
        if let Some((_, last)) = self.in_force.write().before.last_mut() {
            *last = store.revision();
        }
    }

    /// Whether what was written at this revision would be kept in another way now, because of what was
    /// replaced since.
    pub(crate) fn outdated(&self, bucket: &str, revision: Revision) -> bool {
        let now = self.in_force.read();
        let written_by = now.before.iter().find(|(_, last)| revision <= *last);
        written_by.is_some_and(|(rules, _)| {
            let head = |rules: &Rules| rules.writer(bucket).map(|key| key.head.clone());
            head(rules) != head(&now.rules)
        })
    }
}

/// Where an object is kept, as etcd's key would say it: its value is good for nowhere else.
fn place(bucket: &str, name: &str) -> Vec<u8> {
    format!("/registry/{}/{name}", bucket.trim_start_matches('/')).into_bytes()
}

fn error(why: impl Into<String>) -> KeepError {
    KeepError(why.into())
}

impl Keeper for Encryption {
    fn seal(&self, bucket: &str, name: &str, value: &[u8]) -> Result<Option<Vec<u8>>, KeepError> {
        let rules = self.rules();
        let Some(key) = rules.writer(bucket) else {
            return Ok(None);
        };
        let mut out = Vec::with_capacity(key.head.len() + value.len() + 64);
        out.extend_from_slice(&key.head);
        key.cipher
            .seal(&place(bucket, name), value, &mut out)
            .ok_or_else(|| error("it could not be encrypted"))?;
        Ok(Some(out))
    }

    fn open(&self, bucket: &str, name: &str, kept: &[u8]) -> Result<Opened, KeepError> {
        let as_it_is = |stale| Opened { value: None, stale };
        let rules = self.rules();
        let providers = rules.providers(bucket);
        if !kept.starts_with(MARK) {
            let Some(providers) = providers else {
                return Ok(as_it_is(false));
            };
            let identity = |p: &Provider| matches!(p, Provider::Identity);
            return match providers.iter().position(identity) {
                Some(at) => Ok(as_it_is(at != 0)),
                None => Err(error(
                    "it is not encrypted, and identity is none of the providers of its resource",
                )),
            };
        }
        let mut known = false;
        for (i, provider) in providers.unwrap_or_default().iter().enumerate() {
            let Provider::Keys(keys) = provider else {
                continue;
            };
            for (j, key) in keys.iter().enumerate() {
                let Some(sealed) = kept.strip_prefix(key.head.as_slice()) else {
                    continue;
                };
                known = true;
                if let Some(value) = key.cipher.open(&place(bucket, name), sealed) {
                    return Ok(Opened {
                        value: Some(value),
                        stale: (i, j) != (0, 0),
                    });
                }
            }
        }
        let with = shown_head(kept);
        Err(error(match (known, providers) {
            (true, _) => format!("it is encrypted as {with}, and no key of that name opens it"),
            (false, Some(_)) => format!(
                "it is encrypted as {with}, and that is none of the providers of its resource"
            ),
            (false, None) => format!(
                "it is encrypted as {with}, and its resource has no providers: give them with \
                 gantry apiserver --encryption-provider-config"
            ),
        }))
    }
}

/// `k8s:enc:SCHEME:v1:NAME:` of what is encrypted.
fn shown_head(kept: &[u8]) -> String {
    let mut colons = 0;
    let head: Vec<u8> = kept
        .iter()
        .take(200)
        .take_while(|byte| {
            let within = colons < 5;
            colons += usize::from(**byte == b':');
            within
        })
        .copied()
        .collect();
    String::from_utf8_lossy(&head).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scheme: &str, name: &str, byte: u8) -> String {
        use base64::Engine as _;
        let secret = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        format!("{{{scheme}: {{keys: [{{name: {name}, secret: {secret:?}}}]}}}}")
    }

    fn of(rules: &[(&str, &[String])]) -> Encryption {
        let mut text =
            "{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: ["
                .to_owned();
        for (resources, providers) in rules {
            let all = providers.join(", ");
            text.push_str(&format!(
                "{{resources: [{resources}], providers: [{all}]}},"
            ));
        }
        parse(&(text + "]}")).expect("understood")
    }

    #[test]
    fn the_first_provider_writes_and_all_read() {
        let identity = "{identity: {}}".to_owned();
        let (one, two) = (key("aescbc", "key1", 1), key("secretbox", "key2", 2));
        let before = of(&[("secrets", &[one.clone(), identity.clone()])]);
        let after = of(&[("secrets", &[two.clone(), one.clone(), identity.clone()])]);
        let seal = |with: &Encryption| {
            let sealed = with.seal("/secrets", "a/b", b"value").expect("sealed");
            sealed.expect("encrypted")
        };
        let (old, new) = (seal(&before), seal(&after));
        assert!(old.starts_with(b"k8s:enc:aescbc:v1:key1:"));
        assert!(new.starts_with(b"k8s:enc:secretbox:v1:key2:"));
        let opened = |with: &Encryption, kept: &[u8]| {
            let opened = with.open("/secrets", "a/b", kept).expect("opened");
            (opened.value, opened.stale)
        };
        let value = Some(b"value".to_vec());
        assert_eq!(opened(&before, &old), (value.clone(), false));
        assert_eq!(opened(&after, &old), (value.clone(), true));
        assert_eq!(opened(&after, &new), (value, false));
        assert_eq!(opened(&after, b"{}"), (None, true));
        let why = |with: &Encryption, kept: &[u8]| {
            let error = with.open("/secrets", "a/b", kept).expect_err("shut");
            error.to_string()
        };
        for (with, kept, words) in [
            (
                &before,
                &new,
                "as k8s:enc:secretbox:v1:key2:, and that is none of",
            ),
            (
                &Encryption::default(),
                &old,
                "its resource has no providers",
            ),
            (
                &of(&[("secrets", &[key("aescbc", "key1", 9)])]),
                &old,
                "no key of that name opens it",
            ),
            (
                &of(&[("secrets", &[one])]),
                &b"{}".to_vec(),
                "identity is none of the providers",
            ),
        ] {
            let said = why(with, kept);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn the_first_rule_that_covers_a_resource_counts() {
        let identity = ["{identity: {}}".to_owned()];
        let gcm = [key("aesgcm", "k", 1)];
        let all = of(&[
            ("configmaps, events", &identity),
            ("things.example.com", &gcm),
            ("'*.apps'", &gcm),
            ("'*.'", &gcm),
        ]);
        let sealed = |bucket| all.seal(bucket, "n", b"v").expect("sealed").is_some();
        for (bucket, expected) in [
            ("/configmaps", false),
            ("/events", false),
            ("/secrets", true),
            ("apps/deployments", true),
            ("batch/jobs", false),
            ("example.com/things", true),
            ("example.com/others", false),
        ] {
            assert_eq!(sealed(bucket), expected, "{bucket}");
        }
        let everything = of(&[("'*.*'", &gcm)]);
        assert!(
            everything
                .seal("x.y/z", "n", b"v")
                .expect("sealed")
                .is_some()
        );
    }
}
