//! The file of `--encryption-provider-config`: EncryptionConfiguration of `apiserver.config.k8s.io`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{Cipher, Encryption, Key, Provider, Resources, Rule, cipher::Make};
use crate::wrong::Wrong;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderPart>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderPart {
    aescbc: Option<Keys>,
    aesgcm: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Nothing>,
    kms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<KeyPart>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyPart {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

/// What a file says.
///
/// # Errors
/// Everything that is wrong with it, by field. No secret is told.
pub fn parse(text: &str) -> Result<Encryption, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| {
        // The reader's snippet of the file may show a key.
        let place = e.location().map(|at| format!(" at line {}", at.line()));
        match text.contains("secret") {
            true => format!("it cannot be read{}", place.unwrap_or_default()),
            false => e.to_string(),
        }
    })?;
    if file.api_version != "apiserver.config.k8s.io/v1" || file.kind != "EncryptionConfiguration" {
        return Err(format!(
            "{} of {} is not an EncryptionConfiguration of apiserver.config.k8s.io/v1",
            file.kind, file.api_version
        ));
    }
    let mut wrong = Wrong::default();
    if file.resources.is_empty() {
        wrong.required("resources", "at least one resources is required");
    }
    let mut rules = vec![];
    for (i, part) in file.resources.into_iter().enumerate() {
        let at = format!("resources[{i}].resources");
        if part.resources.is_empty() {
            wrong.required(&at, "at least one resource is required");
        }
        let resources: Vec<Resources> = part.resources.iter().map(|r| named(r)).collect();
        overlap(&resources, &part.resources, &at, &mut wrong);
        for (j, name) in part.resources.iter().enumerate() {
            if let Some(fault) = fault(name) {
                wrong.invalid(&format!("{at}[{j}]"), name, fault);
            }
        }
        let at = format!("resources[{i}].providers");
        if part.providers.is_empty() {
            wrong.required(&at, "at least one provider is required");
        }
        let mut providers = vec![];
        for (j, part) in part.providers.into_iter().enumerate() {
            providers.extend(provider(part, &format!("{at}[{j}]"), &mut wrong));
        }
        rules.push(Rule {
            resources,
            providers,
        });
    }
    wrong.end()?;
    Ok(Encryption::of(rules))
}

/// `plural.group`, `plural`, `*.group`, `*.`, `*.*`.
fn named(text: &str) -> Resources {
    let (plural, group) = text.split_once('.').unwrap_or((text, ""));
    Resources {
        group: group.to_owned(),
        plural: plural.to_owned(),
    }
}

fn fault(name: &str) -> Option<&'static str> {
    let read = named(name);
    let internal = [
        "apiserveripinfo",
        "serviceipallocations",
        "servicenodeportallocations",
    ];
    if name.chars().any(char::is_uppercase) {
        return Some("resource name should not contain capital letters");
    }
    match (read.plural.as_str(), read.group.as_str()) {
        _ if name == "*" => Some(
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        ),
        _ if internal.contains(&name) => {
            Some("resources which do not have REST API/s cannot be encrypted")
        }
        (_, "events.k8s.io") => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        (_, "extensions") => {
            Some("'extensions' group has been removed and cannot be used for encryption")
        }
        (plural, "*") if plural != "*" => {
            Some("encrypting the same resource across groups is not supported")
        }
        _ => None,
    }
}

/// Refuses what stands in a list twice or hides something else in it.
fn overlap(all: &[Resources], given: &[String], at: &str, wrong: &mut Wrong) {
    let given = format!("[{}]", given.join(" "));
    let pairs = || {
        let each = all.iter().enumerate();
        each.flat_map(|(i, a)| all[..i].iter().map(move |b| (a, b)))
    };
    if pairs().any(|(a, b)| a == b) {
        wrong.invalid(
            at,
            &given,
            "the same resource cannot be specified multiple times",
        );
    }
    let any = |r: &Resources| r.group == "*" && r.plural == "*";
    let hides = |(a, b): (&Resources, &Resources)| {
        a != b && (any(a) || any(b) || a.group == b.group && (a.plural == "*" || b.plural == "*"))
    };
    if pairs().any(hides) {
        wrong.invalid(
            at,
            &given,
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
        );
    }
}

fn provider(part: ProviderPart, at: &str, wrong: &mut Wrong) -> Option<Provider> {
    let given = [
        part.kms.is_some(),
        part.aesgcm.is_some(),
        part.aescbc.is_some(),
        part.secretbox.is_some(),
        part.identity.is_some(),
    ];
    match given.iter().filter(|g| **g).count() {
        0 => {
            wrong.required(
                at,
                "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
            );
            return None;
        }
        1 => {}
        _ => {
            wrong.required(
                at,
                "more than one provider specified in a single element, should split into different list elements",
            );
            return None;
        }
    }
    if part.kms.is_some() {
        wrong.say(format!(
            "{at}.kms: a key management service is not offered; aescbc, aesgcm, secretbox and identity are"
        ));
        return None;
    }
    let schemes: [(&str, Option<Keys>, Make, &str); 3] = [
        ("aesgcm", part.aesgcm, Cipher::gcm, "16 24 32"),
        ("aescbc", part.aescbc, Cipher::cbc, "16 24 32"),
        ("secretbox", part.secretbox, Cipher::secretbox, "32"),
    ];
    for (scheme, given, make, lengths) in schemes {
        let Some(given) = given else { continue };
        let at = format!("{at}.{scheme}.keys");
        if given.keys.is_empty() {
            wrong.required(&at, "at least one keys is required");
        }
        let mut keys = vec![];
        for (i, key) in given.keys.into_iter().enumerate() {
            let at = format!("{at}[{i}]");
            if key.name.is_empty() {
                wrong.required(&format!("{at}.name"), "name is a mandatory field for a key");
            }
            let secret = format!("{at}.secret");
            if key.secret.is_empty() {
                wrong.required(&secret, "secret is a mandatory field for a key");
                continue;
            }
            let Ok(bytes) = STANDARD.decode(&key.secret) else {
                wrong.invalid(&secret, "REDACTED", "secrets must be base64 encoded");
                continue;
            };
            match make(&bytes) {
                Some(cipher) => keys.push(Key {
                    head: format!("k8s:enc:{scheme}:v1:{}:", key.name).into_bytes(),
                    cipher,
                }),
                None => wrong.invalid(
                    &secret,
                    "REDACTED",
                    &format!(
                        "secret is not of the expected length, got {}, expected one of [{lengths}]",
                        bytes.len()
                    ),
                ),
            }
        }
        return Some(Provider::Keys(keys));
    }
    Some(Provider::Identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets, things.example.com]
  providers:
  - aescbc:
      keys:
      - {name: key1, secret: c2VjcmV0IGlzIHNlY3VyZQ==}
  - identity: {}
- resources: ['*.']
  providers:
  - secretbox:
      keys:
      - {name: key1, secret: YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=}
";

    #[test]
    fn what_is_wrong_is_said_by_field_and_no_secret_is() {
        assert_eq!(parse(GOOD).expect("understood").rules().0.len(), 2);
        for (from, to, words) in [
            ("/v1\n", "/v2\n", "is not an EncryptionConfiguration"),
            (
                "secrets, things",
                "Secrets, things",
                "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters",
            ),
            (
                "secrets, things",
                "secrets, secrets, things",
                "resources[0].resources: Invalid value: \"[secrets secrets things.example.com]\": the same resource",
            ),
            (
                "secrets, things",
                "secrets, '*.', things",
                "overlapping resources",
            ),
            ("'*.'", "'*'", "use '*.' to encrypt all"),
            ("'*.'", "'secrets.*'", "across groups"),
            ("'*.'", "events.events.k8s.io", "Use 'events' instead"),
            ("['*.']", "[]", "resources[1].resources: Required value"),
            (
                "- identity: {}",
                "- {}",
                "resources[0].providers[1]: Required value: provider does not contain any",
            ),
            (
                "- identity: {}",
                "- {identity: {}, aesgcm: {}}",
                "more than one provider",
            ),
            (
                "- identity: {}",
                "- kms: {name: k}",
                "resources[0].providers[1].kms: a key management service is not offered",
            ),
            (
                "- identity: {}",
                "- aesgcm: {keys: []}",
                "resources[0].providers[1].aesgcm.keys: Required value",
            ),
            (
                "name: key1, secret: c2",
                "name: '', secret: c2",
                "keys[0].name: Required value",
            ),
            (
                "c2VjcmV0IGlzIHNlY3VyZQ==",
                "c2VjcmV0IGlz",
                "aescbc.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 9, expected one of [16 24 32]",
            ),
            (
                "c2VjcmV0IGlzIHNlY3VyZQ==",
                "'c2Vjcm&V0'",
                "keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64",
            ),
            (
                "secret: c2VjcmV0IGlzIHNlY3VyZQ==",
                "key: c2VjcmV0IGlzIHNlY3VyZQ==",
                "it cannot be read at line",
            ),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD, "{from}");
            let said = parse(&bad).map(|_| ()).expect_err(to);
            assert!(said.contains(words), "{said}\nlacks {words}");
            assert!(!said.contains("c2Vj"), "{said}");
        }
    }
}
