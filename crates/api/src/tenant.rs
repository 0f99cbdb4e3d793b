//! `Tenant`: a department or product, with its namespaces, its people, its quotas and its freezes.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::rbac::v1::Subject,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, Time},
    },
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who belongs to a tenant, where it lives, how much it may have, and when it releases nothing.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    status = "TenantStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "A Tenant is a department or product: namespaces, the roles of its people in them, quotas by pool, and freezes. It cannot be deleted while it has Groups.",
    printcolumn(
        name = "Namespaces",
        type_ = "string",
        json_path = ".status.namespaces"
    ),
    printcolumn(name = "Groups", type_ = "integer", json_path = ".status.groups"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct TenantSpec {
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// Its namespaces. None given: one of its own name. They are made where they are missing, in the hub and
    /// in the members that it uses, and are left alone when it is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 63),
            regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
        )
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// Who may do what in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["role"]))]
    pub roles: Vec<RoleMembers>,
    /// How much its instances may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pool"]))]
    pub quotas: Vec<PoolQuota>,
    /// Times in which none of its releases moves, unless an emergency overrides it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub freezes: Vec<TenantFreeze>,
}

/// What someone may do in a tenant. Each role may do all that those before it may.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Role {
    /// Sees everything of the tenant but Secrets.
    #[default]
    Viewer,
    /// Changes Apps, Groups and Strategies.
    Developer,
    /// Releases, presses the buttons of releases, scales.
    Releaser,
    /// Deletes; looks after instances, notifications and their Secrets.
    Operator,
    /// Gives roles to others, and freezes. Not: namespaces and quotas.
    Admin,
}

impl Role {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Viewer,
        Self::Developer,
        Self::Releaser,
        Self::Operator,
        Self::Admin,
    ];

    /// The name as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "Viewer",
            Self::Developer => "Developer",
            Self::Releaser => "Releaser",
            Self::Operator => "Operator",
            Self::Admin => "Admin",
        }
    }

    /// Name of the ClusterRole in hub and members.
    pub fn cluster_role(self) -> String {
        format!("gantry:{}", self.as_str().to_lowercase())
    }
}

/// Who has a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleMembers {
    /// The role.
    pub role: Role,
    /// Users, as the API server knows them. `system:serviceaccount:NAMESPACE:NAME` is a ServiceAccount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 256)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub users: Vec<String>,
    /// Groups of users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 256)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub groups: Vec<String>,
}

impl RoleMembers {
    /// The same as RBAC writes it.
    pub fn subjects(&self) -> Vec<Subject> {
        let subject = |kind: &str, name: &String| Subject {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: kind.to_owned(),
            name: name.clone(),
            namespace: None,
        };
        let users = self.users.iter().map(|u| subject("User", u));
        let groups = self.groups.iter().map(|g| subject("Group", g));
        users.chain(groups).collect()
    }
}

/// How much of a pool a tenant may have, over all cells: a ResourceQuota in each of its namespaces' members,
/// with the member's share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolQuota {
    /// Name of the pool.
    #[serde(default = "default_pool")]
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub pool: String,
    /// The PriorityClasses whose pods count for the pool. None given: all pods count. Only one pool of a tenant
    /// may be so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub priority_classes: Vec<String>,
    /// The cells of the pool, and their shares of the quota. None given: all cells, in equal shares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub cells: Vec<QuotaShare>,
    /// What may be asked for in all, as in a ResourceQuota: requests.cpu, requests.memory, pods,
    /// requests.nvidia.com/gpu …
    pub hard: BTreeMap<String, Quantity>,
}

fn default_pool() -> String {
    "default".to_owned()
}

/// One cell's share of a quota.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaShare {
    /// Name of the cell.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its weight against the other cells'.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000))]
    pub weight: i32,
}

fn one() -> i32 {
    1
}

/// A time in which none of the tenant's releases moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantFreeze {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// From when on. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Until when. Default: until it is taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Who says so. The API server takes it only in one's own name.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
}

/// What the hub knows of the tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The namespaces that are the tenant's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// How many Groups it has. It cannot be deleted while there are any.
    #[serde(default)]
    pub groups: i32,
    /// Its quotas, by pool and member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaStatus>,
    /// `Ready`: namespaces, roles and quotas are as the spec says, in the hub and in every member that the tenant
    /// uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What keeps it from its wish, in one line; empty when nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A pool's quota in one namespace of one member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaStatus {
    /// The pool.
    pub pool: String,
    /// The member.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// What may be asked for there.
    #[serde(default)]
    pub hard: BTreeMap<String, Quantity>,
    /// What is asked for, as the member says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, Quantity>,
}

impl TenantSpec {
    /// Its namespaces: those it names, else one of its own name.
    pub fn namespaces_of(&self, tenant: &str) -> Vec<String> {
        if self.namespaces.is_empty() {
            vec![tenant.to_owned()]
        } else {
            self.namespaces.clone()
        }
    }
}
