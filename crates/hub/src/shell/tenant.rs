//! Tenants: applies what the planner wishes, in hub and members, and reports.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry_api::{StopLine, Tenant, TenantStatus, labels, tenant::QuotaStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    },
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{hub::Hub, reconcile::patience};
use crate::{
    group::status::set_condition,
    tenant::{self, Wish, World, quota, roles},
};

/// What the tenants' shell writes as: another manager than that of Groups, which apply the same namespaces.
const MANAGER: &str = "gantry-hub-tenants";
/// A tenant is looked at at least so often: usage and members change without it.
const EVERY: Duration = Duration::from_secs(30);

/// What has been applied, by tenant and place (`""` is the hub): a digest.
#[derive(Default)]
pub struct Applied(Mutex<HashMap<(String, String), String>>);

impl Applied {
    fn is(&self, tenant: &str, place: &str, digest: &str) -> bool {
        let applied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        applied
            .get(&(tenant.to_owned(), place.to_owned()))
            .map(String::as_str)
            == Some(digest)
    }

    fn set(&self, tenant: &str, place: &str, digest: String) {
        let mut applied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        applied.insert((tenant.to_owned(), place.to_owned()), digest);
    }

    fn forget(&self, tenant: &str) {
        let mut applied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        applied.retain(|(t, _), _| t != tenant);
    }
}

fn rbac(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(
        "rbac.authorization.k8s.io",
        "v1",
        kind,
    ))
}

fn core(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind))
}

fn resource_of(object: &Value) -> ApiResource {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    match text("apiVersion").split_once('/') {
        Some(_) => rbac(text("kind")),
        None => core(text("kind")),
    }
}

impl Hub {
    /// Works on tenants until the hub stops.
    pub(super) async fn tend_tenants(self: Arc<Self>) {
        let mut failures: HashMap<String, u32> = HashMap::new();
        for role in roles::of_hub() {
            let mut n = 0;
            while let Err(why) = apply(&self.client, &role).await {
                warn!(%why, "the roles of tenants cannot be applied; it is tried again");
                n += 1;
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(patience(n)) => {}
                }
            }
        }
        loop {
            let name = tokio::select! {
                () = self.stop.cancelled() => return,
                name = self.tenant_queue.next() => name,
            };
            let looked = tokio::select! {
                () = self.stop.cancelled() => return,
                looked = self.tend_tenant(&name) => looked,
            };
            self.tenant_queue.done(&name);
            let next = match looked {
                Ok(again) => {
                    failures.remove(&name);
                    again
                }
                Err(why) => {
                    let n = failures.entry(name.clone()).or_default();
                    *n += 1;
                    warn!(tenant = %name, %why, "tenant is tried again");
                    Some(patience(*n))
                }
            };
            if let Some(next) = next {
                self.tenant_queue.add(name, next);
            }
        }
    }

    /// A Group has come or gone: its tenant is looked at.
    pub(super) fn tenants_of(&self, namespace: &str) {
        for tenant in self.tenants.all() {
            let name = tenant.name_any();
            let own = tenant.spec.namespaces_of(&name);
            if own.iter().any(|n| n == namespace) {
                self.tenant_queue.add(name, Duration::ZERO);
            }
        }
    }

    /// Freezes of tenants, as switches.
    pub(super) fn tenant_freezes(&self) -> Vec<StopLine> {
        let tenants = self.tenants.all();
        tenants.iter().flat_map(|t| tenant::freezes(t)).collect()
    }

    /// One look at a tenant: when to look again, if at all.
    async fn tend_tenant(&self, name: &str) -> Result<Option<Duration>, String> {
        let Some(tenant) = self.tenants.get(&(String::new(), name.to_owned())) else {
            self.applied.forget(name);
            return Ok(None);
        };
        let all = self.tenants.all();
        let claims = tenant::claims(all.iter().map(AsRef::as_ref));
        let clusters = self.clusters.all();
        let cells: BTreeMap<String, String> = clusters
            .iter()
            .flat_map(|c| {
                c.spec
                    .cells
                    .iter()
                    .map(|cell| (cell.name.clone(), c.name_any()))
            })
            .collect();
        let owned: BTreeSet<String> = tenant
            .spec
            .namespaces_of(name)
            .into_iter()
            .filter(|n| claims.get(n).is_none_or(|owner| owner == name))
            .collect();
        let (mut groups, mut used) = (0, BTreeSet::new());
        for group in self.groups.all() {
            if group.namespace().is_some_and(|n| owned.contains(&n)) {
                groups += 1;
                let shares = group.spec.placement.cells.iter();
                used.extend(shares.filter_map(|s| cells.get(&s.name).cloned()));
            }
        }
        let mut status = tenant.status.clone().unwrap_or_default();
        status.groups = groups;
        status.observed_generation = tenant.metadata.generation;
        if tenant.metadata.deletion_timestamp.is_some() {
            return self.let_go(&tenant, status).await;
        }
        let finalizers = tenant.metadata.finalizers.as_deref().unwrap_or_default();
        if !finalizers.iter().any(|f| f == labels::TENANT_FINALIZER) {
            let mut all = finalizers.to_vec();
            all.push(labels::TENANT_FINALIZER.to_owned());
            self.set_finalizers(&tenant, &all).await?;
        }
        let world = World {
            tenant: &tenant,
            claims: &claims,
            cells: &cells,
            used: &used,
        };
        let wish = tenant::wish(&world);
        let mut problems = wish.problems.clone();
        self.carry_out(name, &wish, &mut problems).await;
        status.namespaces.clone_from(&wish.namespaces);
        status.quotas = self.quotas(name, &wish, &mut problems).await;
        let again = if problems.is_empty() {
            EVERY
        } else {
            Duration::from_secs(5)
        };
        self.report(&tenant, status, problems).await?;
        Ok(Some(again))
    }

    /// Applies what is not as wished, in the hub and every member that answers.
    async fn carry_out(&self, name: &str, wish: &Wish, problems: &mut Vec<String>) {
        let members = self.members();
        for member in wish.members.keys() {
            match members.get(member).map(|m| m.trouble()) {
                None => problems.push(format!("member {member} is not connected")),
                Some(Some((_, why))) => {
                    problems.push(format!("member {member} cannot be reached: {why}"));
                }
                Some(None) => {}
            }
        }
        let nothing = Vec::new();
        let reachable = members.values().filter(|m| m.trouble().is_none());
        let members = reachable.map(|m| {
            let wished = wish.members.get(&m.name).unwrap_or(&nothing);
            (m.name.clone(), m.client.clone(), wished)
        });
        let hub = (String::new(), self.client.clone(), &wish.hub);
        for (place, client, objects) in std::iter::once(hub).chain(members) {
            let text = json!(objects).to_string();
            let digest = format!("{:x}", Sha256::digest(text.as_bytes()));
            if self.applied.is(name, &place, &digest) {
                continue;
            }
            match make_so(&client, name, place.is_empty(), objects).await {
                Ok(()) => self.applied.set(name, &place, digest),
                Err(why) if place.is_empty() => problems.push(why),
                Err(why) => problems.push(format!("member {place}: {why}")),
            }
        }
    }

    /// Quotas of the tenant, with what is used of them.
    async fn quotas(
        &self,
        name: &str,
        wish: &Wish,
        problems: &mut Vec<String>,
    ) -> Vec<QuotaStatus> {
        let mut all = Vec::new();
        let members = self.members();
        for (cluster, objects) in &wish.members {
            let reachable = members.get(cluster).filter(|m| m.trouble().is_none());
            let wished = objects.iter().any(|o| o["kind"] == "ResourceQuota");
            let (Some(member), true) = (reachable, wished) else {
                continue;
            };
            let api: Api<ResourceQuota> = Api::all(member.client.clone());
            let params = ListParams::default().labels(&format!("{}={name}", labels::TENANT));
            match api.list(&params).await {
                Ok(list) => all.extend(list.items.into_iter().map(|quota| QuotaStatus {
                    pool: quota.labels().get(quota::POOL).cloned().unwrap_or_default(),
                    cluster: cluster.clone(),
                    namespace: quota.namespace().unwrap_or_default(),
                    hard: quota.spec.and_then(|s| s.hard).unwrap_or_default(),
                    used: quota.status.and_then(|s| s.used).unwrap_or_default(),
                })),
                Err(error) => problems.push(format!("member {cluster}: read its quotas: {error}")),
            }
        }
        all.sort_by(|a, b| {
            let key = |q: &QuotaStatus| (q.pool.clone(), q.cluster.clone(), q.namespace.clone());
            key(a).cmp(&key(b))
        });
        all
    }

    /// A tenant that is being deleted: its roles and quotas go once it has no Groups.
    async fn let_go(
        &self,
        tenant: &Tenant,
        status: TenantStatus,
    ) -> Result<Option<Duration>, String> {
        let name = tenant.name_any();
        let mut problems = Vec::new();
        if status.groups > 0 {
            problems.push(format!(
                "it is being deleted, and has {} Groups yet",
                status.groups
            ));
        } else {
            let wish = Wish {
                members: self.members().keys().map(|m| (m.clone(), vec![])).collect(),
                ..Wish::default()
            };
            self.carry_out(&name, &wish, &mut problems).await;
        }
        if problems.is_empty() {
            let finalizers = tenant.metadata.finalizers.iter().flatten();
            let left: Vec<String> = finalizers
                .filter(|f| *f != labels::TENANT_FINALIZER)
                .cloned()
                .collect();
            self.set_finalizers(tenant, &left).await?;
            return Ok(None);
        }
        self.report(tenant, status, problems).await?;
        Ok(Some(Duration::from_secs(2)))
    }

    async fn set_finalizers(&self, tenant: &Tenant, all: &[String]) -> Result<(), String> {
        let api: Api<Tenant> = Api::all(self.client.clone());
        let version = tenant.metadata.resource_version.clone();
        let patch = json!({"metadata": {"finalizers": all, "resourceVersion": version}});
        let written = api
            .patch(&tenant.name_any(), &params(), &Patch::Merge(&patch))
            .await;
        match written {
            Ok(tenant) => {
                self.tenants.put(tenant);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(format!("write the finalizers: {error}")),
        }
    }

    async fn report(
        &self,
        tenant: &Tenant,
        mut status: TenantStatus,
        problems: Vec<String>,
    ) -> Result<(), String> {
        status.message = problems.join("; ");
        let (ready, reason) = if tenant.metadata.deletion_timestamp.is_some() {
            (false, "Deleting")
        } else if problems.is_empty() {
            (true, "AsWished")
        } else {
            (false, "NotAsWished")
        };
        set_condition(
            &mut status.conditions,
            "Ready",
            ready,
            reason,
            status.message.clone(),
            tenant.metadata.generation,
            Timestamp::now(),
        );
        if tenant.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let op = if tenant.status.is_some() {
            "replace"
        } else {
            "add"
        };
        let patch = json!([{"op": op, "path": "/status", "value": status}]);
        let patch: json_patch::Patch =
            serde_json::from_value(patch).map_err(|e| format!("write the status: {e}"))?;
        let api: Api<Tenant> = Api::all(self.client.clone());
        let written = api
            .patch_status(&tenant.name_any(), &params(), &Patch::Json::<()>(patch))
            .await;
        match written {
            Ok(tenant) => {
                self.tenants.put(tenant);
                Ok(())
            }
            Err(error) => Err(format!("write the status: {error}")),
        }
    }
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(labels::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Applies objects, and removes what bears the tenant's label beside them.
async fn make_so(
    client: &Client,
    tenant: &str,
    is_hub: bool,
    objects: &[Value],
) -> Result<(), String> {
    if !is_hub && !objects.is_empty() {
        for role in roles::of_member() {
            apply(client, &role).await?;
        }
    }
    for object in objects {
        apply(client, object).await?;
    }
    let wished: BTreeSet<(String, String, String)> = objects.iter().map(place).collect();
    let kinds: &[ApiResource] = if is_hub {
        &[
            rbac("RoleBinding"),
            rbac("ClusterRoleBinding"),
            rbac("ClusterRole"),
        ]
    } else {
        &[rbac("RoleBinding"), core("ResourceQuota")]
    };
    let of_tenant = ListParams::default().labels(&format!("{}={tenant}", labels::TENANT));
    for kind in kinds {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), kind);
        let list = api.list(&of_tenant).await;
        let list = list.map_err(|e| format!("list {}: {e}", kind.plural))?;
        for object in list {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            if wished.contains(&(kind.kind.clone(), namespace.clone(), name.clone())) {
                continue;
            }
            let api: Api<DynamicObject> = if namespace.is_empty() {
                Api::all_with(client.clone(), kind)
            } else {
                Api::namespaced_with(client.clone(), &namespace, kind)
            };
            match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(format!("delete {} {name}: {error}", kind.kind)),
            }
        }
    }
    // Namespaces that are no longer the tenant's stay, without its name on them.
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &core("Namespace"));
    let list = api.list(&of_tenant).await;
    for namespace in list.map_err(|e| format!("list namespaces: {e}"))? {
        let name = namespace.name_any();
        if !wished.contains(&("Namespace".to_owned(), String::new(), name.clone())) {
            let bare = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            apply(client, &bare).await?;
        }
    }
    Ok(())
}

fn place(object: &Value) -> (String, String, String) {
    let meta = &object["metadata"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (
        text(&object["kind"]),
        text(&meta["namespace"]),
        text(&meta["name"]),
    )
}

/// Applies one object.
pub async fn apply(client: &Client, object: &Value) -> Result<(), String> {
    let (kind, namespace, name) = place(object);
    let resource = resource_of(object);
    let api: Api<DynamicObject> = if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), &namespace, &resource)
    };
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .map(|_| ())
        .map_err(|e| format!("apply {kind} {name}: {e}"))
}
