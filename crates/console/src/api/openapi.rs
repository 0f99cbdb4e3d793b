//! The OpenAPI document, from one table of endpoints.

use serde_json::{Map, Value, json};

/// An endpoint: method, path, what it does, its query parameters, the fields of its body.
type Endpoint = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str, &'static str)],
);

const LISTED: &[(&str, &str)] = &[
    ("q", "Words that are looked for"),
    ("sort", "Column; with a leading - downwards"),
    ("page", "Page, from 1"),
    ("per", "Rows of a page, at most 1000"),
];

const GROUPS: &[(&str, &str)] = &[
    ("tenant", "Namespace"),
    ("app", "App"),
    ("env", "Environment"),
    (
        "health",
        "Down, Degraded, Halted, Waiting, Releasing, Scaling, Healthy, Idle, Unknown, or Troubled for the first three",
    ),
    ("q", "Words that are looked for"),
    (
        "sort",
        "name, health, desired, ready, revision, env, changed; with a leading - downwards",
    ),
    ("page", "Page, from 1"),
    ("per", "Rows of a page, at most 1000"),
];

const CHANGE: &[(&str, &str, &str)] = &[
    (
        "to",
        "integer",
        "Go to this revision; all else is then left out",
    ),
    ("image", "string", "New image"),
    ("env", "string", "Environment to set, NAME=VALUE a line"),
    ("unset", "string", "Environment to take away, names"),
    ("path", "string", "A file to put in"),
    ("file", "string", "Its text"),
    (
        "strategy",
        "string",
        "group, inline, or the name of a Strategy",
    ),
    ("sizes", "string", "inline: batches, such as 10%, 30%, 60%"),
    ("bastion", "integer", "inline: instances of the bastion"),
    ("accept", "string", "inline: Manual or Auto"),
    (
        "pause",
        "string",
        "inline: Never, AfterBastion or EachBatch",
    ),
    (
        "max",
        "string",
        "inline: how many may be out of service at once",
    ),
    ("note", "string", "Why, for the record"),
];

const ENDPOINTS: &[Endpoint] = &[
    (
        "get",
        "/api/v1/me",
        "Who one is, and the token for writes with a cookie",
        &[],
        &[],
    ),
    (
        "get",
        "/api/v1/fleet",
        "How many of what, and what is wrong now, worst first",
        &[],
        &[],
    ),
    (
        "get",
        "/api/v1/clusters",
        "Clusters with their cells",
        &[],
        &[],
    ),
    (
        "get",
        "/api/v1/pools",
        "Pools that placement policies name, by member: nodes, instances, what is asked of what there is",
        &[],
        &[],
    ),
    ("get", "/api/v1/tenants", "Tenants, counted", &[], &[]),
    ("get", "/api/v1/groups", "Groups", GROUPS, &[]),
    ("get", "/api/v1/groups/{tenant}/{name}", "A Group", &[], &[]),
    (
        "get",
        "/api/v1/groups/{tenant}/{name}/instances",
        "Its instances",
        LISTED,
        &[],
    ),
    (
        "post",
        "/api/v1/groups/{tenant}/{name}/instances",
        "Wish something for instances: granted as far as the group's budget goes",
        &[],
        &[
            ("verb", "string", "pull-out, put-back, restart or move"),
            ("to", "string", "move: the cell to go to"),
            ("instances", "array", "Which"),
            ("reason", "string", "Why, for the record"),
        ],
    ),
    (
        "get",
        "/api/v1/groups/{tenant}/{name}/usage",
        "CPU (thousandths of a core) and memory (bytes) that its instances use: read while somebody asks, so the first answer is empty",
        &[],
        &[],
    ),
    (
        "get",
        "/api/v1/groups/{tenant}/{name}/revisions",
        "Its revisions that are kept",
        &[],
        &[],
    ),
    (
        "post",
        "/api/v1/groups/{tenant}/{name}/scale",
        "Set the number of its instances",
        &[],
        &[("replicas", "integer", "How many")],
    ),
    (
        "post",
        "/api/v1/groups/{tenant}/{name}/plan",
        "What a release would do; nothing is written",
        &[],
        CHANGE,
    ),
    (
        "post",
        "/api/v1/groups/{tenant}/{name}/releases",
        "Start a release",
        &[],
        CHANGE,
    ),
    (
        "get",
        "/api/v1/releases",
        "Releases",
        &[
            ("tenant", "Namespace"),
            ("group", "Group"),
            ("phase", "Phase, or open"),
            ("q", "Words that are looked for"),
            (
                "sort",
                "name, phase, by, created; with a leading - downwards",
            ),
            ("page", "Page, from 1"),
            ("per", "Rows of a page, at most 1000"),
        ],
        &[],
    ),
    (
        "get",
        "/api/v1/releases/{tenant}/{name}",
        "A release: its batches with their instances, what happened, its buttons",
        &[],
        &[],
    ),
    (
        "post",
        "/api/v1/releases/{tenant}/{name}/{action}",
        "Press a button: continue, pause, retry, skip, approve, emergency, rollback, abort",
        &[],
        &[
            ("note", "string", "approve: why"),
            ("verdict", "string", "approve: yes or no"),
            ("reason", "string", "emergency: why"),
        ],
    ),
    (
        "get",
        "/api/v1/nodes",
        "Nodes",
        &[
            ("cluster", "Cluster"),
            ("cell", "Cell"),
            ("state", "notready, problem or cordoned"),
            ("q", "Words that are looked for"),
            (
                "sort",
                "name, state, cell, instances, cpu, memory, age; with a leading - downwards",
            ),
            ("page", "Page, from 1"),
            ("per", "Rows of a page, at most 1000"),
        ],
        &[],
    ),
    (
        "get",
        "/api/v1/nodes/at",
        "The node at a place of the map",
        &[
            ("cluster", "Cluster"),
            ("cell", "Cell"),
            ("index", "Place in the order of names, from 0"),
        ],
        &[],
    ),
    (
        "get",
        "/api/v1/nodes/{cluster}/{name}",
        "A node and its instances",
        &[],
        &[],
    ),
    (
        "post",
        "/api/v1/nodes/{cluster}/{name}/{action}",
        "cordon, uncordon or drain it",
        &[],
        &[],
    ),
    (
        "get",
        "/api/v1/instances/{cluster}/{tenant}/{name}",
        "An instance",
        &[],
        &[],
    ),
    (
        "get",
        "/api/v1/instances/{cluster}/{tenant}/{name}/placement",
        "Why it is where it is, or why it waits and what would let it fit",
        &[],
        &[],
    ),
    (
        "get",
        "/api/v1/policies",
        "Placement policies of members, in the order in which they decide",
        &[
            ("cluster", "Cluster"),
            ("state", "problem: those that cannot be followed wholly"),
            ("q", "Words that are looked for"),
            (
                "sort",
                "name, cluster, priority, pods; with a leading - downwards",
            ),
            ("page", "Page, from 1"),
            ("per", "Rows of a page, at most 1000"),
        ],
        &[],
    ),
    (
        "post",
        "/api/v1/policies/trial",
        "Whose pods would land elsewhere, were a policy in force; nothing is written",
        &[],
        &[
            ("cluster", "array", "Clusters"),
            ("yaml", "string", "The PlacementPolicy"),
        ],
    ),
    (
        "get",
        "/api/v1/quotas",
        "Quotas: what is used of each and what binds first, the tightest first",
        &[
            ("tenant", "Namespace or Tenant"),
            ("cluster", "Cluster"),
            ("kind", "Tenant, ResourceQuota or ElasticQuota"),
            ("state", "tight: four fifths used or more"),
            ("q", "Words that are looked for"),
            (
                "sort",
                "name, tenant, cluster, share; with a leading - downwards",
            ),
            ("page", "Page, from 1"),
            ("per", "Rows of a page, at most 1000"),
        ],
        &[],
    ),
    (
        "get",
        "/api/v1/records",
        "Records of what was done, newest first",
        &[
            ("tenant", "Namespace"),
            ("kind", "Kind of the object"),
            ("name", "Its name, or its Group's"),
            ("who", "User"),
            ("verb", "What was asked for"),
            ("outcome", "What came of it"),
            ("q", "Text that stands in it"),
            ("after", "`next` of the page before"),
            ("per", "Records of a page, at most 1000"),
        ],
        &[],
    ),
    (
        "get",
        "/api/v1/search",
        "A few letters to pages",
        &[("q", "Words that are looked for")],
        &[],
    ),
];

/// Every path, with its method: what tests try one by one.
pub const PATHS: &[(&str, &str)] = &{
    let mut all = [("", ""); ENDPOINTS.len()];
    let mut n = 0;
    while n < ENDPOINTS.len() {
        all[n] = (ENDPOINTS[n].0, ENDPOINTS[n].1);
        n += 1;
    }
    all
};

/// The document.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, summary, query, fields) in ENDPOINTS {
        let mut parameters: Vec<Value> = path
            .split('/')
            .filter_map(|p| p.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        parameters.extend(query.iter().map(|(name, what)| json!({"name": name, "in": "query", "description": what, "schema": {"type": "string"}})));
        let problem = json!({"description": "What went wrong", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}});
        let mut operation = json!({
            "summary": summary,
            "operationId": format!("{method}{}", path.trim_start_matches("/api/v1").replace(['/', '{', '}'], "_")),
            "parameters": parameters,
            "responses": {
                "200": {"description": "It is done, or found", "content": {"application/json": {"schema": {"type": "object"}}}},
                "401": problem, "404": problem, "default": problem,
            },
        });
        if *method == "post" {
            let properties: Map<String, Value> = fields
                .iter()
                .map(|(name, kind, what)| {
                    (
                        (*name).to_owned(),
                        if *kind == "array" {
                            json!({"type": kind, "items": {"type": "string"}, "description": what})
                        } else {
                            json!({"type": kind, "description": what})
                        },
                    )
                })
                .collect();
            operation["requestBody"] = json!({"content": {"application/json": {"schema": {"type": "object", "properties": properties}}}});
        }
        let entry = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        entry[*method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gantry console", "version": env!("CARGO_PKG_VERSION"),
            "description": "What the console shows and does, for scripts. What you may not see does not exist (404); what you do is done as you.",
        },
        "paths": paths,
        "security": [{"bearer": []}, {"session": [], "csrf": []}],
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token of the hub, as `kubectl create token` gives it"},
                "session": {"type": "apiKey", "in": "cookie", "name": crate::session::COOKIE},
                "csrf": {"type": "apiKey", "in": "header", "name": "X-Gantry-CSRF", "description": "For writes with a cookie: `csrf` of /api/v1/me"},
            },
            "schemas": {"Problem": {"type": "object", "description": "RFC 9457", "properties": {
                "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"}}}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_endpoint_once() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let operations: usize = paths.values().map(|p| p.as_object().unwrap().len()).sum();
        assert_eq!(operations, ENDPOINTS.len());
        let mut ids: Vec<&str> = paths
            .values()
            .flat_map(|p| p.as_object().unwrap().values())
            .filter_map(|o| o["operationId"].as_str())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ENDPOINTS.len());
    }
}
