//! The planner of Tenants: which namespaces are whose, and what has to stand in hub and members for it.
//!
//! Pure. [`wish`] says everything that there has to be; the shell applies what differs and removes what bears the
//! tenant's label and is not wished for any more.

pub mod quota;
pub mod roles;

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    StopLine, StopLineSpec, Tenant, labels,
    stop_line::StopKind,
    tenant::{Role, RoleMembers},
};
use k8s_openapi::api::rbac::v1::Subject;
use kube::ResourceExt;
use serde_json::{Value, json};

/// Whose each namespace is: of several tenants that name it, the oldest one's.
pub fn claims<'a>(tenants: impl IntoIterator<Item = &'a Tenant>) -> BTreeMap<String, String> {
    let mut tenants: Vec<&Tenant> = tenants.into_iter().collect();
    tenants.sort_by_key(|t| {
        (
            t.metadata.creation_timestamp.as_ref().map(|t| t.0),
            t.name_any(),
        )
    });
    let mut claims = BTreeMap::new();
    for tenant in tenants {
        let name = tenant.name_any();
        for namespace in tenant.spec.namespaces_of(&name) {
            claims.entry(namespace).or_insert_with(|| name.clone());
        }
    }
    claims
}

/// What is looked at for one tenant.
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// The tenant.
    pub tenant: &'a Tenant,
    /// See [`claims`].
    pub claims: &'a BTreeMap<String, String>,
    /// All cells, with the members that they belong to.
    pub cells: &'a BTreeMap<String, String>,
    /// Members in which the tenant's Groups have cells.
    pub used: &'a BTreeSet<String>,
}

/// What there has to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// The namespaces that are the tenant's.
    pub namespaces: Vec<String>,
    /// Objects of the hub, in the order in which they are to be applied.
    pub hub: Vec<Value>,
    /// Objects of members.
    pub members: BTreeMap<String, Vec<Value>>,
    /// What cannot be as the spec says, for people.
    pub problems: Vec<String>,
}

/// What there has to be for a tenant.
pub fn wish(world: &World<'_>) -> Wish {
    let name = world.tenant.name_any();
    let mut wish = Wish::default();
    for namespace in world.tenant.spec.namespaces_of(&name) {
        match world.claims.get(&namespace) {
            Some(owner) if *owner != name => {
                let problem = format!("namespace {namespace} belongs to tenant {owner}");
                wish.problems.push(problem);
            }
            _ => wish.namespaces.push(namespace),
        }
    }
    let people = people(&world.tenant.spec.roles);
    for namespace in &wish.namespaces {
        wish.hub.push(self::namespace(&name, namespace));
        wish.hub.extend(bindings(&name, namespace, &people));
    }
    wish.hub.extend(own(&name, &people));
    let quotas = quota::shares(&world.tenant.spec.quotas, world.cells, world.used);
    for problem in quotas.problems {
        wish.problems.push(problem);
    }
    let members: BTreeSet<&String> = world.used.iter().chain(quotas.members.keys()).collect();
    for member in members {
        let mut objects = Vec::new();
        for namespace in &wish.namespaces {
            objects.push(self::namespace(&name, namespace));
            objects.extend(bindings(&name, namespace, &people));
            for quota in quotas.members.get(member).into_iter().flatten() {
                objects.push(quota.object(&name, namespace));
            }
        }
        wish.members.insert(member.clone(), objects);
    }
    wish
}

/// The subjects of each role. A role may all that those before it may, so that one binding each is enough.
fn people(roles: &[RoleMembers]) -> BTreeMap<Role, Vec<Subject>> {
    let mut people: BTreeMap<Role, Vec<Subject>> = BTreeMap::new();
    for members in roles {
        people
            .entry(members.role)
            .or_default()
            .extend(members.subjects());
    }
    people.retain(|_, subjects| !subjects.is_empty());
    people
}

fn meta(tenant: &str, name: &str, namespace: Option<&str>) -> Value {
    let mut meta = json!({
        "name": name,
        "labels": {labels::TENANT: tenant, labels::MANAGED_BY: labels::MANAGER},
    });
    if let Some(namespace) = namespace {
        meta["namespace"] = json!(namespace);
    }
    meta
}

fn namespace(tenant: &str, name: &str) -> Value {
    // It may be there already, and others may manage it too.
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {labels::TENANT: tenant}},
    })
}

fn bindings<'a>(
    tenant: &'a str,
    namespace: &'a str,
    people: &'a BTreeMap<Role, Vec<Subject>>,
) -> impl Iterator<Item = Value> + 'a {
    people.iter().map(move |(role, subjects)| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": meta(tenant, &role.cluster_role(), Some(namespace)),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role.cluster_role()},
            "subjects": subjects,
        })
    })
}

/// What people may do with the Tenant itself, and see of the fleet.
fn own(tenant: &str, people: &BTreeMap<Role, Vec<Subject>>) -> Vec<Value> {
    let everyone: Vec<&Subject> = people.values().flatten().collect();
    let admins: Vec<&Subject> = people.get(&Role::Admin).into_iter().flatten().collect();
    let this = |verbs: Value| json!({"apiGroups": [gantry_api::GROUP], "resources": ["tenants"], "resourceNames": [tenant], "verbs": verbs});
    let mut objects = Vec::new();
    for (name, subjects, rules) in [
        (
            format!("gantry:tenant:{tenant}"),
            everyone,
            json!([
                this(json!(["get", "list", "watch"])),
                {"apiGroups": [gantry_api::GROUP], "resources": ["clusters"], "verbs": ["get", "list", "watch"]},
            ]),
        ),
        (
            format!("gantry:tenant-admin:{tenant}"),
            admins,
            json!([this(json!(["update", "patch"]))]),
        ),
    ] {
        if subjects.is_empty() {
            continue;
        }
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": meta(tenant, &name, None), "rules": rules,
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": meta(tenant, &name, None),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": subjects,
        }));
    }
    objects
}

/// The tenant's freezes as switches, for the release planner.
pub fn freezes(tenant: &Tenant) -> impl Iterator<Item = StopLine> + '_ {
    let name = tenant.name_any();
    let namespaces = tenant.spec.namespaces_of(&name);
    tenant.spec.freezes.iter().map(move |freeze| {
        let spec = StopLineSpec {
            kind: StopKind::Freeze,
            tenants: namespaces.clone(),
            reason: freeze.reason.clone(),
            by: freeze.by.clone(),
            from: freeze.from.clone(),
            until: freeze.until.clone(),
            ..StopLineSpec::default()
        };
        StopLine::new(&format!("{} of tenant {name}", freeze.name), spec)
    })
}

#[cfg(test)]
mod tests;
