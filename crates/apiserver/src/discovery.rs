//! Discovery: which groups, versions and resources there are, in both of Kubernetes' forms.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_machinery::{resource::Resource, status::Failure};
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    api::Api,
    errors,
    registry::{Entry, Group, Registry},
    respond::{self, Reply},
};

/// Answers `/`, `/api…` and `/apis…`; `None` for other paths.
pub fn serve(
    api: &Arc<Api>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Option<Result<Reply, Failure>> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let registry = api.registry.read().clone();
    let answer = |value: &Value| respond::negotiated(headers, 200, value);
    let unknown = || Ok(respond::text(404, "404 page not found\n"));
    let found = match parts.as_slice() {
        [] => Ok(respond::json(200, &root(&registry))),
        ["api"] => match aggregated(headers, &registry, true) {
            Some(reply) => Ok(reply),
            None => answer(&json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [
                    {"clientCIDR": "0.0.0.0/0", "serverAddress": api.config.address.to_string()}
                ],
            })),
        },
        ["apis"] => match aggregated(headers, &registry, false) {
            Some(reply) => Ok(reply),
            None => answer(&groups(&registry)),
        },
        ["api", version] => match resources(&registry, "", version) {
            Some(list) => answer(&list),
            None => return Some(Err(errors::no_such_path())),
        },
        ["apis", name] => match registry.group(name).filter(|g| !g.name.is_empty()) {
            Some(group) => {
                let mut value = group_value(group);
                value["kind"] = "APIGroup".into();
                value["apiVersion"] = "v1".into();
                answer(&value)
            }
            None => unknown(),
        },
        ["apis", group, version] => match resources(&registry, group, version) {
            Some(list) => answer(&list),
            None if registry.group(group).is_some() => {
                return Some(Err(errors::no_such_path()));
            }
            None => unknown(),
        },
        _ => return None,
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Some(Err(errors::method_not_allowed()));
    }
    Some(found)
}

fn root(registry: &Registry) -> Value {
    let mut paths = vec![
        "/.well-known/openid-configuration".to_owned(),
        "/api".to_owned(),
        "/api/v1".to_owned(),
        "/apis".to_owned(),
        "/apis/".to_owned(),
    ];
    for group in registry.groups.iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        for (version, _) in &group.versions {
            paths.push(format!("/apis/{}/{version}", group.name));
        }
    }
    for path in [
        "/healthz",
        "/healthz/etcd",
        "/healthz/log",
        "/healthz/ping",
        "/livez",
        "/livez/etcd",
        "/livez/log",
        "/livez/ping",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/readyz/etcd",
        "/readyz/log",
        "/readyz/ping",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    paths.sort();
    json!({"paths": paths})
}

fn group_value(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|(v, _)| json!({"groupVersion": format!("{}/{v}", group.name), "version": v}))
        .collect();
    json!({
        "name": group.name,
        "preferredVersion": versions.first(),
        "versions": versions,
    })
}

fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = registry
        .groups
        .iter()
        .filter(|g| !g.name.is_empty())
        .map(group_value)
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// A stable short hash, as discovery shows of what is stored where.
fn storage_hash(entry: &Entry) -> String {
    let storage = &entry.storage;
    let id = format!("{}/{}/{}", storage.group, storage.version, storage.kind);
    STANDARD.encode(&Sha256::digest(id.as_bytes())[..8])
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let (_, entries) = registry
        .group(group)?
        .versions
        .iter()
        .find(|(v, _)| v == version)?;
    let mut list: Vec<Value> = vec![];
    for entry in entries {
        let r = &entry.resource;
        let mut value = json!({
            "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced(),
            "kind": r.kind, "verbs": r.verbs,
        });
        if !r.short_names.is_empty() {
            value["shortNames"] = r.short_names.clone().into();
        }
        if !r.categories.is_empty() {
            value["categories"] = r.categories.clone().into();
        }
        if r.allows("list") {
            value["storageVersionHash"] = storage_hash(entry).into();
        }
        list.push(value);
        for sub in &r.subresources {
            let mut value = json!({
                "name": format!("{}/{}", r.plural, sub.name), "singularName": "",
                "namespaced": r.namespaced(), "kind": sub.kind, "verbs": sub.verbs,
            });
            if !sub.version.is_empty() {
                value["group"] = sub.group.clone().into();
                value["version"] = sub.version.clone().into();
            }
            list.push(value);
        }
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let api_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut all = json!({
        "kind": "APIResourceList", "groupVersion": api_version, "resources": list,
    });
    if !group.is_empty() {
        // The core group's list goes without, a quirk of history.
        all["apiVersion"] = "v1".into();
    }
    Some(all)
}

/// The aggregated form, when the client asks for it: everything in one answer, with an ETag.
fn aggregated(headers: &HeaderMap, registry: &Registry, core: bool) -> Option<Reply> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    let first = accept.split(',').find_map(|alternative| {
        let parts: Vec<&str> = alternative.split(';').map(str::trim).collect();
        let plain = parts.as_slice() == ["application/json"] || parts.as_slice() == ["*/*"];
        let wanted = parts.contains(&"application/json")
            && parts.contains(&"as=APIGroupDiscoveryList")
            && parts.contains(&"g=apidiscovery.k8s.io");
        let version = ["v2", "v2beta1"]
            .into_iter()
            .find(|v| parts.contains(&format!("v={v}").as_str()));
        match (plain, wanted, version) {
            (true, _, _) => Some(None),
            (_, true, Some(version)) => Some(Some(version)),
            _ => None,
        }
    })?;
    let version = first?;
    let items: Vec<Value> = registry
        .groups
        .iter()
        .filter(|g| g.name.is_empty() == core)
        .map(|g| {
            let meta = if core {
                json!({})
            } else {
                json!({"name": g.name})
            };
            let versions: Vec<Value> = g
                .versions
                .iter()
                .map(|(v, entries)| {
                    json!({
                        "version": v, "freshness": "Current",
                        "resources": entries.iter().map(|e| detail(&e.resource)).collect::<Vec<_>>(),
                    })
                })
                .collect();
            json!({"metadata": meta, "versions": versions})
        })
        .collect();
    let body = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
    .to_string();
    let etag: String = Sha256::digest(body.as_bytes())
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect();
    let etag = format!("\"{etag}\"");
    let same = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        == Some(etag.as_str());
    let kind = if version == "v2" {
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    } else {
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    };
    let mut reply = if same {
        respond::bytes(304, kind, "")
    } else {
        respond::bytes(200, kind, body)
    };
    let headers = reply.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    Some(reply)
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
