//! Whom extension API servers believe: the ConfigMap in which they read it.

use std::sync::Arc;

use gantry_machinery::status::Failure;
use serde_json::{Value, json};

use super::headers;
use crate::{
    api::Api,
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
    let one = |text: &str| json!([text]).to_string();
    let mut data = json!({
        "requestheader-allowed-names": one(FRONT_PROXY),
        "requestheader-client-ca-file": api.aggregator.authority,
        "requestheader-extra-headers-prefix": one(headers::EXTRA),
        "requestheader-group-headers": one(headers::GROUP),
        "requestheader-uid-headers": one(headers::UID),
        "requestheader-username-headers": one(headers::USER),
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
