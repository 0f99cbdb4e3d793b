//! Discovery: which groups, versions and resources there are, in both of Kubernetes' forms.
//!
//! It shows what this server serves and what extension API servers do, in one order ([`view`]).
//! Big answers are made once, until something changes ([`crate::openapi::Cache`]).

mod aggregated;
mod view;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_machinery::status::Failure;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    api::Api,
    errors,
    registry::{Entry, Registry},
    respond::{self, Reply},
};
pub use view::{Group, Owner, groups as merged};

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
        [] => Ok(respond::json(200, &root(api, &registry))),
        ["api"] => match aggregated::serve(api, headers, &registry, true) {
            Some(reply) => reply,
            None => answer(&json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [
                    {"clientCIDR": "0.0.0.0/0", "serverAddress": api.config.address.to_string()}
                ],
            })),
        },
        ["apis"] => match aggregated::serve(api, headers, &registry, false) {
            Some(reply) => reply,
            None => answer(&groups(api, &registry)),
        },
        ["api", version] => match resources(&registry, "", version) {
            Some(list) => answer(&list),
            None => return Some(Err(errors::no_such_path())),
        },
        ["apis", name] => {
            let state = api.aggregator.state();
            let all = merged(&registry, &state);
            match all.iter().find(|g| g.name == *name && !name.is_empty()) {
                Some(group) => {
                    let mut value = group_value(group);
                    value["kind"] = "APIGroup".into();
                    value["apiVersion"] = "v1".into();
                    answer(&value)
                }
                None => unknown(),
            }
        }
        // Those of others have been passed on before.
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

fn root(api: &Api, registry: &Registry) -> Value {
    let mut paths = vec![
        "/.well-known/openid-configuration".to_owned(),
        "/api".to_owned(),
        "/api/v1".to_owned(),
        "/apis".to_owned(),
        "/apis/".to_owned(),
    ];
    let state = api.aggregator.state();
    for group in merged(registry, &state)
        .iter()
        .filter(|g| !g.name.is_empty())
    {
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

fn group_value(group: &Group<'_>) -> Value {
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

fn groups(api: &Api, registry: &Registry) -> Value {
    let state = api.aggregator.state();
    let groups: Vec<Value> = merged(registry, &state)
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
