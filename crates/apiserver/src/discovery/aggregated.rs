//! Aggregated discovery: everything in one answer, with an ETag, when a client asks for it.

use std::sync::Arc;

use gantry_machinery::{resource::Resource, status::Failure};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::view::{self, Owner};
use crate::{
    aggregate::state::State,
    api::Api,
    registry::Registry,
    respond::{self, Reply},
};

/// The versions of the form, and what their media types are.
const FORMS: [(&str, &str, &str); 2] = [
    (
        "v2",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    ),
    (
        "v2beta1",
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    ),
];

/// The answer, when this form is asked for; `core` is `/api`, otherwise `/apis`.
pub fn serve(
    api: &Arc<Api>,
    headers: &HeaderMap,
    registry: &Registry,
    core: bool,
) -> Option<Result<Reply, Failure>> {
    let (version, media, _) = FORMS[wanted(headers)?];
    let path = format!("{} {version}", if core { "/api" } else { "/apis" });
    let document = api
        .openapi
        .kept(api.generation(registry), &path, media, || {
            let state = api.aggregator.state();
            Some(list(registry, &state, version, core).to_string().into())
        })?;
    let tag = format!("\"{}\"", document.etag);
    let same = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        == Some(tag.as_str());
    let mut reply = if same {
        respond::bytes(304, media, "")
    } else {
        respond::bytes(200, media, document.body)
    };
    let headers = reply.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    Some(Ok(reply))
}

/// Which of the forms is asked for before any other that there is.
fn wanted(headers: &HeaderMap) -> Option<usize> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    let first = accept.split(',').find_map(|alternative| {
        let parts: Vec<&str> = alternative.split(';').map(str::trim).collect();
        let plain = parts.as_slice() == ["application/json"] || parts.as_slice() == ["*/*"];
        let asked = parts.contains(&"application/json")
            && parts.contains(&"as=APIGroupDiscoveryList")
            && parts.contains(&"g=apidiscovery.k8s.io");
        let form = FORMS
            .iter()
            .position(|(v, ..)| parts.contains(&format!("v={v}").as_str()));
        match (plain, asked, form) {
            (true, _, _) => Some(None),
            (_, true, Some(form)) => Some(Some(form)),
            _ => None,
        }
    });
    first?
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
