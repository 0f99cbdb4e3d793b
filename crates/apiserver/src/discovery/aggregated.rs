//! Aggregated discovery: everything in one answer, with an ETag, when a client asks for it.

use std::sync::Arc;

use bytes::Bytes;
use gantry_machinery::{protobuf::Encoder, resource::Resource, status::Failure};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::view::{self, Owner};
use crate::{
    aggregate::state::State,
    api::Api,
    errors,
    registry::Registry,
    respond::{self, Media, Reply},
};

/// The media type of an encoding and a version of the form.
fn media_type(media: Media, version: &str) -> &'static str {
    match (media, version) {
        (Media::Json, "v2") => {
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        }
        (Media::Json, _) => {
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        }
        (Media::Yaml, "v2") => {
            "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        }
        (Media::Yaml, _) => {
            "application/yaml;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        }
        (Media::Protobuf, "v2") => {
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        }
        (Media::Protobuf, _) => {
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        }
    }
}

/// The answer, when this form is asked for; `core` is `/api`, otherwise `/apis`.
pub fn serve(
    api: &Arc<Api>,
    headers: &HeaderMap,
    registry: &Registry,
    core: bool,
) -> Option<Result<Reply, Failure>> {
    let (media, version) = respond::aggregated(headers.get(header::ACCEPT))?;
    let kind = media_type(media, version);
    let path = format!("{} {kind}", if core { "/api" } else { "/apis" });
    let mut failed = None;
    let document = api.openapi.kept(api.generation(registry), &path, kind, || {
        let state = api.aggregator.state();
        let list = list(registry, &state, version, core);
        match encode(media, &list) {
            Ok(bytes) => Some(bytes),
            Err(failure) => {
                failed = Some(failure);
                None
            }
        }
    });
    let document = match (document, failed) {
        (Some(document), _) => document,
        (None, Some(failure)) => return Some(Err(failure)),
        (None, None) => return None,
    };
    let tag = format!("\"{}\"", document.etag);
    let same = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        == Some(tag.as_str());
    let mut reply = if same {
        respond::bytes(304, kind, "")
    } else {
        respond::bytes(200, kind, document.body)
    };
    let headers = reply.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    Some(Ok(reply))
}

fn encode(media: Media, list: &Value) -> Result<Bytes, Failure> {
    let json = list.to_string();
    Ok(match media {
        Media::Json => json.into(),
        Media::Yaml => serde_saphyr::to_string(list)
            .map_err(errors::internal)?
            .into(),
        Media::Protobuf => respond::message(&mut Encoder::new(), json.as_bytes())?.into(),
    })
}

fn list(registry: &Registry, state: &State, version: &str, core: bool) -> Value {
    let items: Vec<Value> = view::groups(registry, state)
        .iter()
        .filter(|g| g.name.is_empty() == core)
        .map(|g| {
            let meta = match core {
                true => json!({}),
                false => json!({"name": g.name}),
            };
            let versions = g.versions.iter().map(|(v, owner)| {
                let (resources, fresh) = match owner {
                    Owner::Here(entries) => {
                        (entries.iter().map(|e| detail(&e.resource)).collect(), true)
                    }
                    Owner::Elsewhere(remote) => {
                        (remote.offer.resources.clone(), remote.offer.fresh)
                    }
                };
                let freshness = if fresh { "Current" } else { "Stale" };
                json!({"version": v, "freshness": freshness, "resources": Value::Array(resources)})
            });
            json!({"metadata": meta, "versions": versions.collect::<Vec<_>>()})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn detail(r: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut value = json!({
        "resource": r.plural,
        "responseKind": kind(&r.group, &r.version, &r.kind),
        "scope": if r.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": r.singular,
        "verbs": r.verbs,
    });
    if r.custom.is_none() {
        // As kube-apiserver writes it for built-in kinds: the group and version of the list hold.
        value["responseKind"] = kind("", "", &r.kind);
    }
    if !r.short_names.is_empty() {
        value["shortNames"] = r.short_names.clone().into();
    }
    if !r.categories.is_empty() {
        value["categories"] = r.categories.clone().into();
    }
    if !r.subresources.is_empty() {
        let subs: Vec<Value> = r
            .subresources
            .iter()
            .map(|s| {
                json!({
                    "subresource": s.name,
                    "responseKind": kind(&s.group, &s.version, &s.kind),
                    "verbs": s.verbs,
                })
            })
            .collect();
        value["subresources"] = subs.into();
    }
    value
}
