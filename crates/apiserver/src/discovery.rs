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
use serde::Serialize;
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
            Some(list) => respond::negotiated_text(headers, 200, list),
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
            Some(list) => respond::negotiated_text(headers, 200, list),
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

/// One resource or subresource as discovery tells it: the names in the order in which Kubernetes has
/// them, which scripts that read it as text rely on.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResource<'a> {
    name: String,
    singular_name: &'a str,
    namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    kind: &'a str,
    verbs: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_version_hash: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResourceList<'a> {
    kind: &'a str,
    /// The core group's list goes without, a quirk of history.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'a str>,
    group_version: String,
    resources: Vec<ApiResource<'a>>,
}

/// The list of what a group's version has, as JSON.
fn resources(registry: &Registry, group: &str, version: &str) -> Option<String> {
    let (_, entries) = registry
        .group(group)?
        .versions
        .iter()
        .find(|(v, _)| v == version)?;
    let mut list: Vec<ApiResource<'_>> = vec![];
    for entry in entries {
        let r = &entry.resource;
        list.push(ApiResource {
            name: r.plural.clone(),
            singular_name: &r.singular,
            namespaced: r.namespaced(),
            group: "",
            version: "",
            kind: &r.kind,
            verbs: &r.verbs,
            short_names: &r.short_names,
            categories: &r.categories,
            storage_version_hash: r.allows("list").then(|| storage_hash(entry)),
        });
        list.extend(r.subresources.iter().map(|sub| {
            let elsewhere = !sub.version.is_empty();
            ApiResource {
                name: format!("{}/{}", r.plural, sub.name),
                singular_name: "",
                namespaced: r.namespaced(),
                group: if elsewhere { &sub.group } else { "" },
                version: &sub.version,
                kind: &sub.kind,
                verbs: &sub.verbs,
                short_names: &[],
                categories: &[],
                storage_version_hash: None,
            }
        }));
    }
    // Those of custom resources come as the server of definitions lists them: the status first.
    let custom = entries.iter().any(|entry| entry.resource.custom.is_some());
    let key = |name: &str| match (custom, name.split_once('/')) {
        (true, Some((plural, _))) => plural.to_owned(),
        _ => name.to_owned(),
    };
    list.sort_by_cached_key(|resource| key(&resource.name));
    let list = ApiResourceList {
        kind: "APIResourceList",
        api_version: (!group.is_empty()).then_some("v1"),
        group_version: match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        },
        resources: list,
    };
    serde_json::to_string(&list).ok()
}
