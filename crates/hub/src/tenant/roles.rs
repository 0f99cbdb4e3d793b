//! What the roles of a tenant may do, as ClusterRoles: they are bound in the tenant's namespaces alone.

use gantry_api::{labels, tenant::Role};
use serde_json::{Value, json};

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 3] = ["create", "update", "patch"];

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// What a role may do in the hub beside what those before it may.
fn hub(role: Role) -> Vec<Value> {
    let own = gantry_api::GROUP;
    match role {
        Role::Viewer => vec![
            // Every kind of Gantry's that lives in a namespace, those to come too. No Secrets.
            rule(own, &["*"], &READ),
            rule("", &["events"], &READ),
            rule("events.k8s.io", &["events"], &READ),
            rule("apps", &["controllerrevisions"], &READ),
        ],
        Role::Developer => vec![rule(own, &["apps", "groups", "strategies"], &WRITE)],
        Role::Releaser => vec![
            rule(own, &["releases", "releaseorders"], &WRITE),
            rule(own, &["groups/scale"], &["get", "update", "patch"]),
        ],
        Role::Operator => vec![
            rule(own, &["notifications"], &WRITE),
            rule(
                own,
                &[
                    "apps",
                    "groups",
                    "strategies",
                    "releases",
                    "releaseorders",
                    "notifications",
                ],
                &["delete", "deletecollection"],
            ),
            rule(
                "",
                &["secrets"],
                &["get", "create", "update", "patch", "delete"],
            ),
        ],
        // The tenant itself: see `own`.
        Role::Admin => vec![rule("rbac.authorization.k8s.io", &["rolebindings"], &READ)],
    }
}

/// The same in a member.
fn member(role: Role) -> Vec<Value> {
    match role {
        Role::Viewer => vec![
            rule(
                "",
                &[
                    "pods",
                    "pods/log",
                    "services",
                    "configmaps",
                    "events",
                    "resourcequotas",
                    "serviceaccounts",
                    "endpoints",
                    "persistentvolumeclaims",
                ],
                &READ,
            ),
            rule("events.k8s.io", &["events"], &READ),
            rule("apps", &["statefulsets", "controllerrevisions"], &READ),
            rule("discovery.k8s.io", &["endpointslices"], &READ),
            rule("policy", &["poddisruptionbudgets"], &READ),
        ],
        Role::Developer | Role::Releaser => vec![],
        Role::Operator => vec![
            rule("", &["pods"], &["delete"]),
            rule(
                "",
                &[
                    "pods/exec",
                    "pods/attach",
                    "pods/portforward",
                    "pods/eviction",
                ],
                &["create", "get"],
            ),
        ],
        Role::Admin => vec![rule("rbac.authorization.k8s.io", &["rolebindings"], &READ)],
    }
}

/// The ClusterRoles of the hub.
pub fn of_hub() -> Vec<Value> {
    cumulative(hub)
}

/// The ClusterRoles of a member.
pub fn of_member() -> Vec<Value> {
    cumulative(member)
}

fn cumulative(adds: fn(Role) -> Vec<Value>) -> Vec<Value> {
    let mut rules = Vec::new();
    Role::ALL
        .iter()
        .map(|role| {
            rules.extend(adds(*role));
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": role.cluster_role(), "labels": {labels::MANAGED_BY: labels::MANAGER}},
                "rules": rules,
            })
        })
        .collect()
}
