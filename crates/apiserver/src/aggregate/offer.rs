//! What an extension API server offers: its resources and its OpenAPI documents.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use serde_json::{Value, json};

use super::{
    backend::Backend,
    headers,
    state::{Known, Remote},
};
use crate::{
    authn::{MASTERS, UserInfo},
    object,
    proxy::forward::BoxBody,
    respond::JSON,
    webhook::cause,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is read of one at most.
const LIMIT: usize = 16 * 1024 * 1024;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// What one group version of a backend consists of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Offer {
    /// As `APIVersionDiscovery` has them.
    pub resources: Vec<Value>,
    /// They could be asked for: what is there is what there is.
    pub fresh: bool,
    /// The hash of its OpenAPI v3 document, where it has one.
    pub v3: Option<String>,
    /// Paths and definitions of its OpenAPI v2 document, and its ETag.
    pub v2: Option<Arc<Value>>,
    pub v2_tag: String,
}

/// Who asks in the server's own name.
pub fn asker() -> UserInfo {
    UserInfo::new("system:kube-aggregator", &[MASTERS])
}

struct Answer {
    status: StatusCode,
    media: String,
    tag: String,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

async fn get(
    backend: &Backend,
    path: &str,
    accept: &'static str,
    tag: &str,
) -> Result<Answer, String> {
    let transport = backend.transport.as_ref().map_err(Clone::clone)?;
    let service = &backend.service;
    let mut request = Request::get(format!("https://{}:{}{path}", service.host(), service.port))
        .body(BoxBody::new(Empty::new().map_err(|never| match never {})))
        .map_err(|e| e.to_string())?;
    let given = request.headers_mut();
    given.extend(headers::naming(&asker()).map_err(|e| e.to_string())?);
    given.insert(header::ACCEPT, HeaderValue::from_static(accept));
    if let Ok(tag) = HeaderValue::from_str(tag)
        && !tag.is_empty()
    {
        given.insert(header::IF_NONE_MATCH, tag);
    }
    let exchange = async {
        let answer = transport.pool.request(request).await;
        let (head, body) = answer.map_err(|e| cause(&e))?.into_parts();
        let text = |name| {
            let value = head.headers.get(name).and_then(|v| v.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (media, tag) = (text(header::CONTENT_TYPE), text(header::ETAG));
        let body = Limited::new(body, LIMIT).collect().await;
        Ok(Answer {
            status: head.status,
            media,
            tag,
            body: body.map_err(|e| e.to_string())?.to_bytes(),
        })
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

/// Asks a backend for what it offers. What cannot be asked for stays as it was before.
pub async fn fetch(known: &Known, remote: &Remote) -> Offer {
    let mut offer = Offer::clone(&remote.offer);
    match resources(known, &remote.backend).await {
        Ok(resources) => {
            offer.resources = resources;
            offer.fresh = true;
        }
        Err(why) => {
            tracing::debug!(
                name = known.name,
                why,
                "discovery of an extension API server"
            );
            offer.fresh = false;
            return offer;
        }
    }
    if let Ok(v3) = v3(known, &remote.backend).await {
        offer.v3 = v3;
    }
    match get(&remote.backend, "/openapi/v2", JSON, &offer.v2_tag).await {
        Ok(answer) if answer.status == StatusCode::OK => {
            let prefix = format!("/apis/{}/{}/", known.group, known.version);
            offer.v2 = answer.json().map(|all| Arc::new(part(&all, &prefix)));
            offer.v2_tag = answer.tag;
        }
        Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
            offer.v2 = None;
            offer.v2_tag = String::new();
        }
        _ => {}
    }
    offer
}

async fn resources(known: &Known, backend: &Backend) -> Result<Vec<Value>, String> {
    let answer = get(backend, "/apis", AGGREGATED, "").await?;
    if answer.status == StatusCode::OK && answer.media.contains("as=APIGroupDiscoveryList") {
        let all = answer.json().ok_or("no JSON")?;
        return Ok(of_group_list(&all, &known.group, &known.version));
    }
    let refused = [StatusCode::NOT_FOUND, StatusCode::NOT_ACCEPTABLE];
    if answer.status != StatusCode::OK && !refused.contains(&answer.status) {
        return Err(format!(
            "non-success response code: {}",
            answer.status.as_u16()
        ));
    }
    // It knows only the older form.
    let path = format!("/apis/{}/{}", known.group, known.version);
    let answer = get(backend, &path, JSON, "").await?;
    if answer.status != StatusCode::OK {
        return Err(format!(
            "non-success response code: {}",
            answer.status.as_u16()
        ));
    }
    let list = answer.json().ok_or("no JSON")?;
    Ok(of_resource_list(&list, &known.group, &known.version))
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    let list = value.get(field).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// The resources of a group version in an `APIGroupDiscoveryList`.
fn of_group_list(all: &Value, group: &str, version: &str) -> Vec<Value> {
    list(all, "items")
        .filter(|g| object::name(g) == group)
        .flat_map(|g| list(g, "versions"))
        .filter(|v| object::text(v, "/version") == version)
        .flat_map(|v| list(v, "resources"))
        .cloned()
        .collect()
}

/// The same of an `APIResourceList`, whose subresources stand beside their resources.
fn of_resource_list(all: &Value, group: &str, version: &str) -> Vec<Value> {
    let kind = |resource: &Value| {
        let or = |path: &str, own: &str| match object::text(resource, path) {
            "" => own.to_owned(),
            given => given.to_owned(),
        };
        json!({
            "group": or("/group", group), "version": or("/version", version),
            "kind": object::text(resource, "/kind"),
        })
    };
    let mut found: Vec<Value> = vec![];
    for resource in list(all, "resources").filter(|r| !object::text(r, "/name").contains('/')) {
        let name = object::text(resource, "/name");
        let scope = match resource.get("namespaced") {
            Some(Value::Bool(true)) => "Namespaced",
            _ => "Cluster",
        };
        let mut one = json!({
            "resource": name, "responseKind": kind(resource), "scope": scope,
            "singularResource": object::text(resource, "/singularName"),
            "verbs": object::strings(resource.get("verbs")),
        });
        for field in ["shortNames", "categories"] {
            if let Some(given) = resource.get(field) {
                one[field] = given.clone();
            }
        }
        let subs: Vec<Value> = list(all, "resources")
            .filter_map(|s| {
                let sub = object::text(s, "/name")
                    .strip_prefix(name)?
                    .strip_prefix('/')?;
                Some(json!({
                    "subresource": sub, "responseKind": kind(s),
                    "verbs": object::strings(s.get("verbs")),
                }))
            })
            .collect();
        if !subs.is_empty() {
            one["subresources"] = subs.into();
        }
        found.push(one);
    }
    found
}

/// The hash of the OpenAPI v3 document of a group version; `None` where there is none.
async fn v3(known: &Known, backend: &Backend) -> Result<Option<String>, String> {
    let answer = get(backend, "/openapi/v3", JSON, "").await?;
    if answer.status != StatusCode::OK {
        return match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(other.to_string()),
        };
    }
    let index = answer.json().ok_or("no JSON")?;
    let path = format!("apis/{}/{}", known.group, known.version);
    let place = index.get("paths").and_then(|p| p.get(&path));
    let url = place.map(|p| object::text(p, "/serverRelativeURL"));
    Ok(url.map(|url| {
        let hash = url.split_once("hash=").map_or("", |(_, rest)| rest);
        hash.split('&').next().unwrap_or_default().to_owned()
    }))
}

/// What of an OpenAPI v2 document lies below a prefix, with the definitions that it needs.
fn part(all: &Value, prefix: &str) -> Value {
    let mut paths = serde_json::Map::new();
    for (path, item) in all
        .get("paths")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if path.starts_with(prefix) || path.as_str() == prefix.trim_end_matches('/') {
            paths.insert(path.clone(), item.clone());
        }
    }
    let mut definitions = serde_json::Map::new();
    let known = all.get("definitions").and_then(Value::as_object);
    let mut open: Vec<String> = vec![];
    paths.values().for_each(|v| references(v, &mut open));
    // Kinds are found by what they are called, not only by paths.
    while let Some(name) = open.pop() {
        if definitions.contains_key(&name) {
            continue;
        }
        if let Some(definition) = known.and_then(|k| k.get(&name)) {
            references(definition, &mut open);
            definitions.insert(name, definition.clone());
        }
    }
    json!({"paths": paths, "definitions": definitions})
}

const DEFINITIONS: &str = "#/definitions/";

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().and_then(|v| v.strip_prefix(DEFINITIONS)) {
                    Some(name) if key == "$ref" => found.push(name.to_owned()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

/// Adds a backend's part to an OpenAPI v2 document. Definitions of the same name that say something
/// else get another name, as kube-aggregator does.
pub fn merge_v2(into: &mut Value, part: &Value) {
    let empty = serde_json::Map::new();
    let definitions = part.get("definitions").and_then(Value::as_object);
    let definitions = definitions.unwrap_or(&empty);
    let there = into.get("definitions").and_then(Value::as_object);
    let there = there.unwrap_or(&empty);
    let mut renamed: Vec<(String, String)> = vec![];
    for (name, definition) in definitions {
        if there.get(name).is_none_or(|t| t == definition) {
            continue;
        }
        let free = (2..)
            .map(|n| format!("{name}_v{n}"))
            .find(|n| !there.contains_key(n) && !definitions.contains_key(n));
        renamed.extend(free.map(|new| (name.clone(), new)));
    }
    let new_name = |name: &str| {
        let found = renamed.iter().find(|(old, _)| old == name);
        found.map_or_else(|| name.to_owned(), |(_, new)| new.clone())
    };
    let mut paths: Vec<(String, Value)> = vec![];
    for (path, item) in part
        .get("paths")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let mut item = item.clone();
        rename(&mut item, &new_name);
        paths.push((path.clone(), item));
    }
    let mut added: Vec<(String, Value)> = vec![];
    for (name, definition) in definitions {
        let mut definition = definition.clone();
        rename(&mut definition, &new_name);
        added.push((new_name(name), definition));
    }
    for (field, all) in [("paths", paths), ("definitions", added)] {
        if let Some(map) = into.get_mut(field).and_then(Value::as_object_mut) {
            map.extend(all);
        }
    }
}

fn rename(value: &mut Value, new_name: &impl Fn(&str) -> String) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let named = value.as_str().and_then(|v| v.strip_prefix(DEFINITIONS));
                match named.filter(|_| key == "$ref").map(new_name) {
                    Some(name) => *value = format!("{DEFINITIONS}{name}").into(),
                    None => rename(value, new_name),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|v| rename(v, new_name)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_the_older_form_are_shown_with_their_subresources() {
        let list = json!({"resources": [
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "PodMetrics", "verbs": ["get"], "shortNames": ["p"]},
            {"name": "pods/x", "namespaced": true, "kind": "X", "group": "other", "version": "v9", "verbs": ["create"]},
            {"name": "nodes", "namespaced": false, "kind": "NodeMetrics", "verbs": ["list"]},
        ]});
        let shown = of_resource_list(&list, "g", "v1");
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[0]["scope"], "Namespaced");
        assert_eq!(shown[0]["shortNames"], json!(["p"]));
        assert_eq!(
            shown[0]["responseKind"],
            json!({"group": "g", "version": "v1", "kind": "PodMetrics"})
        );
        assert_eq!(
            shown[0]["subresources"],
            json!([{"subresource": "x", "verbs": ["create"],
                "responseKind": {"group": "other", "version": "v9", "kind": "X"}}])
        );
        assert_eq!(shown[1]["scope"], "Cluster");
    }

    #[test]
    fn a_part_of_a_document_takes_along_what_it_needs() {
        let all = json!({
            "paths": {
                "/apis/g/v1/things": {"get": {"schema": {"$ref": "#/definitions/Thing"}}},
                "/apis/g/v1beta1/things": {"get": {"schema": {"$ref": "#/definitions/Old"}}},
            },
            "definitions": {
                "Thing": {"properties": {"metadata": {"$ref": "#/definitions/Meta"}}},
                "Meta": {"description": "theirs"}, "Old": {},
            },
        });
        let part = part(&all, "/apis/g/v1/");
        assert_eq!(part["paths"].as_object().map(|p| p.len()), Some(1));
        let names: Vec<&String> = part["definitions"]
            .as_object()
            .expect("a map")
            .keys()
            .collect();
        assert_eq!(names, ["Meta", "Thing"]);

        let mut whole =
            json!({"paths": {"/api/v1": {}}, "definitions": {"Meta": {"description": "ours"}}});
        merge_v2(&mut whole, &part);
        assert_eq!(whole["definitions"]["Meta"]["description"], "ours");
        assert_eq!(whole["definitions"]["Meta_v2"]["description"], "theirs");
        assert_eq!(
            whole["definitions"]["Thing"]["properties"]["metadata"]["$ref"],
            "#/definitions/Meta_v2"
        );
        assert_eq!(whole["paths"].as_object().map(|p| p.len()), Some(2));
    }
}
