//! Whom extension API servers believe: the ConfigMap in which they read it.

use std::sync::Arc;

use gantry_machinery::status::Failure;
use serde_json::{Value, json};

use super::headers;
use crate::{
    api::Api,
    authn::FrontProxyConfig,
    bootstrap, object,
    proxy::authority::FRONT_PROXY,
    rest::{
        create::{self, Ownership},
        update::{self, Change, Track},
    },
};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

fn data(api: &Api) -> Value {
    // Beside this server, those whom it believes itself.
    let other = api.authenticator.front_proxy();
    let list = |own: &str, others: fn(&FrontProxyConfig) -> &Vec<String>| {
        let mut all = vec![own.to_owned()];
        let others = other.map(|(config, _)| others(config));
        for name in others.into_iter().flatten() {
            if !all.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                all.push(name.clone());
            }
        }
        json!(all).to_string()
    };
    let any = other.is_some_and(|(config, _)| config.allowed_names.is_empty());
    let mut authorities = api.aggregator.authority.clone();
    if let Some((_, pem)) = other {
        authorities.push_str(pem);
    }
    let mut data = json!({
        "requestheader-allowed-names": match any {
            true => "[]".to_owned(),
            false => list(FRONT_PROXY, |c| &c.allowed_names),
        },
        "requestheader-client-ca-file": authorities,
        "requestheader-extra-headers-prefix": list(headers::EXTRA, |c| &c.extra_prefixes),
        "requestheader-group-headers": list(headers::GROUP, |c| &c.group_headers),
        "requestheader-uid-headers": list(headers::UID, |c| &c.uid_headers),
        "requestheader-username-headers": list(headers::USER, |c| &c.user_headers),
    });
    if let Some(pem) = &api.client_ca {
        data["client-ca-file"] = pem.clone().into();
    }
    data
}

/// Writes the ConfigMap where it is not there or says something else: the authority lives as long as
/// the process, and what one before has written is of no use.
pub async fn publish(api: &Arc<Api>) -> Result<(), Failure> {
    let Some(mut cx) = bootstrap::own(api, "", "v1", "configmaps", NAMESPACE) else {
        return Ok(());
    };
    let data = data(api);
    let Some(stored) = api.store.get(&cx.key(NAME)) else {
        let map = json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": data});
        return match create::object_of(&mut cx, map, Ownership::Update).await {
            // The namespace is going, or somebody else was faster: the next look is soon.
            Err(failure) if !matches!(failure.code, 403 | 409) => Err(failure),
            _ => Ok(()),
        };
    };
    let there = object::parse(&stored.value)?;
    let said = |field: &str| there.get("data").and_then(|d| d.get(field));
    let lacks = |(field, value): (&String, &Value)| said(field) != Some(value);
    if !data.as_object().into_iter().flatten().any(lacks) {
        return Ok(());
    }
    cx.target.name = NAME.to_owned();
    let change = Change {
        subresource: String::new(),
        track: Track::Update,
        given: None,
        retries: 16,
    };
    update::modify(&mut cx, change, |_, old| {
        let mut new = old.clone();
        if !new.get("data").is_some_and(Value::is_object) {
            new["data"] = json!({});
        }
        for (field, value) in data.as_object().into_iter().flatten() {
            new["data"][field] = value.clone();
        }
        Ok(new)
    })
    .await?;
    Ok(())
}
