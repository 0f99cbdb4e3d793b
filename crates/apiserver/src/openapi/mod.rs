//! OpenAPI documents, made when first asked for and kept until the resources change; what extension
//! API servers say of theirs is merged in.

mod descriptions;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use gantry_machinery::{
    openapi::{self, gnostic},
    resource::Resource,
    status::Failure,
};
use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    aggregate::offer::merge_v2,
    api::Api,
    discovery::{self, Owner},
    errors,
    registry::Registry,
    request::Query,
    respond::{self, Reply},
};

/// Documents by path, of one generation of what is served.
#[derive(Default)]
pub struct Cache(Mutex<((u64, u64), HashMap<String, Document>)>);

#[derive(Clone)]
pub struct Document {
    media: &'static str,
    pub body: Bytes,
    pub etag: String,
}

impl Cache {
    fn get(
        &self,
        generation: (u64, u64),
        path: &str,
        make: impl FnOnce() -> Option<Value>,
    ) -> Option<Document> {
        let encoded = || make().map(|value| value.to_string().into());
        self.kept(generation, path, respond::JSON, encoded)
    }

    /// The document of this name, made where it is not kept. (Generations only grow; a document of
    /// one that has passed is made and not kept.)
    pub fn kept(
        &self,
        generation: (u64, u64),
        path: &str,
        media: &'static str,
        make: impl FnOnce() -> Option<Bytes>,
    ) -> Option<Document> {
        {
            let mut kept = self.0.lock();
            if kept.0 < generation {
                *kept = (generation, HashMap::new());
            }
            if kept.0 == generation
                && let Some(document) = kept.1.get(path)
            {
                return Some(document.clone());
            }
        }
        // Made outside the lock: two who ask at once make it twice.
        let body = make()?;
        let etag: String = Sha256::digest(&body)
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect();
        let document = Document { media, body, etag };
        let mut kept = self.0.lock();
        if kept.0 == generation {
            kept.1.insert(path.to_owned(), document.clone());
        }
        Some(document)
    }
}

/// Answers `/openapi/v2`, `/openapi/v3` and the documents below; `None` for other paths.
pub fn serve(
    api: &Arc<Api>,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Option<Result<Reply, Failure>> {
    let rest = path.strip_prefix("/openapi/")?.trim_end_matches('/');
    let registry = api.registry.read().clone();
    let generation = api.generation(&registry);
    let forms = match rest.strip_prefix("v3/") {
        Some(_) => &gnostic::v3::MEDIA_TYPES,
        None => &gnostic::v2::MEDIA_TYPES,
    };
    let protobuf = rest != "v3" && prefers_protobuf(headers, forms);
    if !protobuf && !accepts_json(headers) {
        return Some(Err(errors::not_acceptable("application/json")));
    }
    let document = match rest {
        "v2" if protobuf => api.openapi.kept(generation, "v2 protobuf", forms[1], || {
            Some(gnostic::v2::document(&v2(api, &registry)).into())
        }),
        "v2" => api
            .openapi
            .get(generation, rest, || Some(v2(api, &registry))),
        "v3" => api
            .openapi
            .get(generation, rest, || Some(index(api, &registry))),
        _ => {
            let name = rest.strip_prefix("v3/")?;
            match of(api, &registry, name) {
                Some(json) if protobuf => message_of(api, generation, name, &json),
                json => json,
            }
        }
    };
    let Some(document) = document else {
        return Some(Ok(respond::text(404, "404 page not found\n")));
    };
    // The index links to documents by their content: what is asked for so never changes.
    let hash = query.text("hash");
    if !hash.is_empty() && hash != document.etag {
        let mut reply = respond::bytes(301, respond::TEXT, "");
        let place = format!("{path}?hash={}", document.etag);
        if let Ok(value) = HeaderValue::from_str(&place) {
            reply.headers_mut().insert(header::LOCATION, value);
        }
        return Some(Ok(reply));
    }
    let tag = format!("\"{}\"", document.etag);
    let same = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        == Some(tag.as_str());
    let mut reply = if same {
        respond::bytes(304, document.media, "")
    } else {
        respond::bytes(200, document.media, document.body)
    };
    if let Ok(value) = HeaderValue::from_str(&tag) {
        reply.headers_mut().insert(header::ETAG, value);
    }
    // The same address gives JSON or protobuf.
    let vary = HeaderValue::from_static("Accept");
    reply.headers_mut().insert(header::VARY, vary);
    if !hash.is_empty() {
        let forever = HeaderValue::from_static("public, immutable");
        reply.headers_mut().insert(header::CACHE_CONTROL, forever);
        let year = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(365 * 24);
        let year = year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(value) = HeaderValue::from_str(&year) {
            reply.headers_mut().insert(header::EXPIRES, value);
        }
    }
    Some(Ok(reply))
}

/// A document of version 3 as protobuf, under the hash that it has as JSON: the index tells no other.
fn message_of(api: &Api, generation: (u64, u64), name: &str, json: &Document) -> Option<Document> {
    let (key, media) = (format!("{name} protobuf"), gnostic::v3::MEDIA_TYPES[1]);
    let message = api.openapi.kept(generation, &key, media, || {
        let value: Value = serde_json::from_slice(&json.body).ok()?;
        Some(gnostic::v3::document(&value).into())
    })?;
    Some(Document {
        etag: json.etag.clone(),
        ..message
    })
}

/// Whether protobuf is asked for, in one of these forms, and not JSON before it.
fn prefers_protobuf(headers: &HeaderMap, forms: &[&str; 2]) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let mut media = accept
        .unwrap_or_default()
        .split(',')
        .map(|a| a.split(';').next().unwrap_or_default().trim());
    let known = media
        .find(|m| matches!(*m, "*/*" | "application/*" | "application/json") || forms.contains(m));
    known.is_some_and(|m| forms.contains(&m))
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    accept.is_none_or(|accept| {
        accept.split(',').any(|a| {
            let media = a.split(';').next().unwrap_or_default().trim();
            matches!(media, "" | "*/*" | "application/*" | "application/json")
        })
    })
}

/// The document of `api/v1` or `apis/GROUP/VERSION`, and of the few paths without resources.
fn of(api: &Arc<Api>, registry: &Registry, name: &str) -> Option<Document> {
    api.openapi.get(api.generation(registry), name, || {
        let parts: Vec<&str> = name.split('/').collect();
        match parts.as_slice() {
            ["api" | "apis" | "version"] => Some(openapi::v3_document(&[], "", "")),
            ["apis", group] if served(api, registry, group) => {
                Some(openapi::v3_document(&[], "", ""))
            }
            ["api", version] => group_version(registry, "", version),
            ["apis", group, version] => group_version(registry, group, version),
            _ => None,
        }
    })
}

fn served(api: &Api, registry: &Registry, group: &str) -> bool {
    let state = api.aggregator.state();
    registry.group(group).is_some() || state.remotes().any(|k| k.group == group)
}

/// The version 2 document of everything served, by whomever.
fn v2(api: &Api, registry: &Registry) -> Value {
    let state = api.aggregator.state();
    let all = discovery::merged(registry, &state);
    let owners = || all.iter().flat_map(|g| &g.versions).map(|(_, owner)| owner);
    let mut resources: Vec<Arc<Resource>> = vec![];
    for owner in owners() {
        if let Owner::Here(entries) = owner {
            resources.extend(entries.iter().map(|e| e.resource.clone()));
        }
    }
    let mut document = openapi::v2(&resources);
    described(&mut document, "/definitions");
    for owner in owners() {
        if let Owner::Elsewhere(remote) = owner
            && let Some(part) = &remote.offer.v2
        {
            merge_v2(&mut document, part);
        }
    }
    document
}

fn group_version(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let versions = &registry.group(group)?.versions;
    let (_, entries) = versions.iter().find(|(v, _)| v == version)?;
    let resources: Vec<Arc<Resource>> = entries.iter().map(|e| e.resource.clone()).collect();
    let mut document = openapi::v3_document(&resources, group, version);
    described(&mut document, "/components/schemas");
    Some(document)
}

fn described(document: &mut Value, types: &str) {
    if let Some(types) = document.pointer_mut(types).and_then(Value::as_object_mut) {
        descriptions::add(types);
    }
}

fn index(api: &Arc<Api>, registry: &Registry) -> Value {
    let state = api.aggregator.state();
    let all = discovery::merged(registry, &state);
    let shown = |owner: &Owner<'_>| match owner {
        Owner::Here(_) => true,
        Owner::Elsewhere(remote) => remote.offer.v3.is_some(),
    };
    let versions = all.iter().flat_map(|g| {
        let versions = g.versions.iter().filter(|(_, owner)| shown(owner));
        versions.map(|(v, _)| (g.name, *v))
    });
    openapi::v3_index(versions, |group, version| {
        // The other server's documents keep the hashes that it gives them.
        if let Some(known) = state.elsewhere(&format!("{group}/{version}")) {
            let offer = known.remote.as_ref().and_then(|r| r.offer.v3.clone());
            return offer.unwrap_or_default();
        }
        let name = match (group, version) {
            ("", version) => format!("api/{version}"),
            (group, version) => format!("apis/{group}/{version}"),
        };
        of(api, registry, name.trim_end_matches('/')).map_or_else(String::new, |d| d.etag)
    })
}
