//! Services of the fleet: watches exports in every member, and applies what the planner wishes in all of them.
//! Services and EndpointSlices are watched only in members that export something.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gantry_api::labels;
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PostParams},
    core::{ApiResource, GroupVersionKind, ObjectMeta},
    runtime::watcher,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use super::{
    act::{ActError, dynamic, failed, ignore_missing, params_apply},
    hub::Hub,
    member::Member,
    queue::Queue,
    reconcile::{params, patience},
    table::{Changed, Key, Table, key},
};
use crate::{
    mcs::{self, SERVICE_NAME, crds},
    render::digest,
};

/// An object of the API, as far as it is looked at.
macro_rules! resource {
    ($name:ident, $plural:literal $(, $field:ident)*) => {
        #[derive(Clone, Debug, Default, Deserialize)]
        pub struct $name {
            #[serde(default)]
            pub metadata: ObjectMeta,
            $(
                #[serde(default)]
                pub $field: Value,
            )*
        }

        impl Resource for $name {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($name).into()
            }

            fn group((): &()) -> Cow<'_, str> {
                mcs::GROUP.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                "v1alpha1".into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
resource!(ServiceExport, "serviceexports", spec, status);
resource!(ServiceImport, "serviceimports");

/// One member's part.
struct Side {
    member: Arc<Member>,
    exports: Arc<Table<ServiceExport>>,
    imports: Arc<Table<ServiceImport>>,
    services: Arc<Table<Service>>,
    slices: Arc<Table<EndpointSlice>>,
    /// Whether Services and EndpointSlices are watched.
    exporting: AtomicBool,
}

/// Services of the fleet.
pub struct Mcs {
    sides: Mutex<BTreeMap<String, Arc<Side>>>,
    queue: Queue<Key>,
    /// Digest of what was last applied, by member and Service.
    applied: Mutex<HashMap<(String, Key), String>>,
    tries: Mutex<HashMap<Key, u32>>,
}

impl Default for Mcs {
    fn default() -> Self {
        Self {
            sides: Mutex::default(),
            queue: Queue::new(),
            applied: Mutex::default(),
            tries: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Before what is not known yet is looked at again, and for changes to come together.
const SOON: Duration = Duration::from_millis(200);

/// Makes the definitions where there are none. False: somebody else's are there.
async fn install(client: &Client) -> Result<bool, kube::Error> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    for definition in crds::all() {
        let object: DynamicObject =
            serde_json::from_value(definition).map_err(kube::Error::SerdeError)?;
        match api.get_opt(&object.name_any()).await? {
            Some(there)
                if there.labels().get(labels::MANAGED_BY).map(String::as_str)
                    != Some(labels::MANAGER) =>
            {
                return Ok(false);
            }
            Some(_) => {}
            None => match api.create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                made => {
                    made?;
                }
            },
        }
    }
    Ok(true)
}

impl Hub {
    /// Takes part for a member that has just been connected.
    pub(super) fn exports_of(self: &Arc<Self>, member: Arc<Member>) {
        let hub = self.clone();
        tokio::spawn(async move {
            let stop = member.stop.clone();
            let mut tries = 0;
            loop {
                let installed = tokio::select! {
                    () = stop.cancelled() => return,
                    installed = install(&member.client) => installed,
                };
                match installed {
                    Ok(true) => break,
                    Ok(false) => {
                        info!(member = %member.name, "it has ServiceExports of another's: they are left alone");
                        return;
                    }
                    Err(kube::Error::Api(status)) if status.code == 403 => {
                        warn!(member = %member.name, error = %status.message, "no ServiceExports: their definitions may not be made");
                        return;
                    }
                    Err(error) => debug!(member = %member.name, %error, "make definitions"),
                }
                tries += 1;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(patience(tries)) => {}
                }
            }
            hub.watch_exports(member);
        });
    }

    fn watch_exports(self: &Arc<Self>, member: Arc<Member>) {
        let side = Arc::new(Side {
            exports: Table::new(|_| None),
            imports: Table::new(|_| None),
            services: Table::new(|_| None),
            slices: Table::new(|s: &EndpointSlice| {
                s.metadata.labels.as_ref()?.get(mcs::SLICE_OF).cloned()
            }),
            exporting: AtomicBool::new(false),
            member: member.clone(),
        });
        lock(&self.mcs.sides).insert(member.name.clone(), side.clone());
        let own = format!("{}={}", labels::MANAGED_BY, labels::MANAGER);
        let (hub, at) = (self.clone(), side.clone());
        let seen = move |change: Changed<'_, ServiceExport>| {
            let keys: Vec<Key> = match change {
                Changed::Object(export, _) => vec![key(export)],
                Changed::Listed(_) => at.exports.all().iter().map(|e| key(e.as_ref())).collect(),
                Changed::Failing => return,
            };
            if !keys.is_empty() {
                hub.watch_exported(&at);
            }
            keys.into_iter()
                .for_each(|k| hub.mcs.queue.add(k, Duration::ZERO));
        };
        let exports = side.exports.clone();
        tokio::spawn(exports.watch(
            Api::all(member.client.clone()),
            watcher::Config::default(),
            seen,
            member.stop.clone(),
        ));
        let (hub, at) = (self.clone(), side.clone());
        let seen = move |change: Changed<'_, ServiceImport>| {
            let keys: Vec<Key> = match change {
                Changed::Object(import, _) => vec![key(import)],
                Changed::Listed(_) => at.imports.all().iter().map(|i| key(i.as_ref())).collect(),
                Changed::Failing => return,
            };
            keys.into_iter().for_each(|k| hub.mcs.queue.add(k, SOON));
        };
        let imports = side.imports.clone();
        tokio::spawn(imports.watch(
            Api::all(member.client.clone()),
            watcher::Config::default().labels(&own),
            seen,
            member.stop.clone(),
        ));
    }

    /// Begins to watch what exports speak of.
    fn watch_exported(self: &Arc<Self>, side: &Arc<Side>) {
        if side.exporting.swap(true, Ordering::AcqRel) {
            return;
        }
        let member = &side.member;
        let (hub, at) = (self.clone(), side.clone());
        let seen = move |change: Changed<'_, Service>| hub.exported(&at, change, |s| s.name_any());
        tokio::spawn(side.services.clone().watch(
            Api::all(member.client.clone()),
            watcher::Config::default(),
            seen,
            member.stop.clone(),
        ));
        let (hub, at) = (self.clone(), side.clone());
        let service =
            |s: &EndpointSlice| s.labels().get(mcs::SLICE_OF).cloned().unwrap_or_default();
        let seen = move |change: Changed<'_, EndpointSlice>| hub.exported(&at, change, service);
        let own = format!("{}=endpointslice-controller.k8s.io", mcs::SLICE_BY);
        tokio::spawn(side.slices.clone().watch(
            Api::all(member.client.clone()),
            watcher::Config::default().labels(&own),
            seen,
            member.stop.clone(),
        ));
    }

    /// Something of a Service has changed: of interest only if that is exported.
    fn exported<K: Resource<DynamicType = ()>>(
        &self,
        side: &Side,
        change: Changed<'_, K>,
        service: impl Fn(&K) -> String,
    ) {
        match change {
            Changed::Object(object, _) => {
                let key = (object.namespace().unwrap_or_default(), service(object));
                if side.exports.get(&key).is_some() {
                    self.mcs.queue.add(key, SOON);
                }
            }
            Changed::Listed(_) => {
                for export in side.exports.all() {
                    self.mcs.queue.add(key(export.as_ref()), Duration::ZERO);
                }
            }
            Changed::Failing => {}
        }
    }

    /// Looks at Services of the fleet as they change.
    pub(super) async fn tend_exports(self: Arc<Self>) {
        loop {
            let service = tokio::select! {
                () = self.stop.cancelled() => return,
                service = self.mcs.queue.next() => service,
            };
            let outcome = tokio::select! {
                () = self.stop.cancelled() => return,
                outcome = self.spread(&service) => outcome,
            };
            self.mcs.queue.done(&service);
            match outcome {
                Ok(true) => {
                    lock(&self.mcs.tries).remove(&service);
                }
                Ok(false) | Err(ActError::Conflict(_)) => self.mcs.queue.add(service, SOON),
                Err(error) => {
                    let tries = {
                        let mut tries = lock(&self.mcs.tries);
                        let n = tries.entry(service.clone()).or_default();
                        *n += 1;
                        *n
                    };
                    warn!(namespace = %service.0, service = %service.1, %error, "a Service of the fleet is tried again");
                    self.mcs.queue.add(service, patience(tries));
                }
            }
        }
    }

    /// One look at a Service over all members. False: something is not known yet.
    async fn spread(&self, service: &Key) -> Result<bool, ActError> {
        let mut sides = lock(&self.mcs.sides).clone();
        let connected = self.members();
        // A member that was reached in another way has another side.
        sides.retain(|name, s| {
            connected
                .get(name)
                .is_some_and(|m| Arc::ptr_eq(m, &s.member))
        });
        let mut seen = Vec::new();
        for (cluster, side) in &sides {
            let exporting = side.exporting.load(Ordering::Acquire);
            if !side.exports.synced()
                || exporting && !(side.services.synced() && side.slices.synced())
            {
                // One that cannot be reached since the hub began is not waited for.
                if side.member.trouble().is_none() {
                    return Ok(false);
                }
            }
            seen.push(mcs::Side {
                cluster: cluster.clone(),
                export: side.exports.get(service).map(|e| export(&e)),
                service: side
                    .services
                    .get(service)
                    .and_then(|s| serde_json::to_value(s.as_ref()).ok()),
                slices: side
                    .slices
                    .of_group(service)
                    .iter()
                    .filter_map(|s| serde_json::to_value(s.as_ref()).ok())
                    .collect(),
            });
        }
        let plan = mcs::plan(&service.0, &service.1, &seen, Timestamp::now());
        for (cluster, side) in sides.iter().filter(|(_, s)| s.member.trouble().is_none()) {
            let place = (cluster.clone(), service.clone());
            match &plan.wish {
                Some(wish) => {
                    let wanted = digest(&json!([
                        wish.derived,
                        wish.import,
                        wish.clusters,
                        wish.slices
                    ]));
                    let there = side.imports.get(service).is_some();
                    let stale = lock(&self.mcs.applied).get(&place) != Some(&wanted);
                    if (stale || !there) && apply(&side.member.client, service, wish).await? {
                        lock(&self.mcs.applied).insert(place, wanted);
                    }
                }
                None => {
                    let known = lock(&self.mcs.applied).contains_key(&place);
                    if known || side.imports.get(service).is_some() {
                        remove(&side.member.client, service).await?;
                        lock(&self.mcs.applied).remove(&place);
                    }
                }
            }
            let export = side.exports.get(service);
            if let (Some(conditions), Some(export)) = (plan.conditions.get(cluster), export)
                && self::export(&export).conditions != *conditions
            {
                let api: Api<ServiceExport> =
                    Api::namespaced(side.member.client.clone(), &service.0);
                let patch = json!({"status": {"conditions": conditions}});
                let told = api
                    .patch_status(&service.1, &params(), &Patch::Merge(&patch))
                    .await;
                ignore_missing(told).map_err(failed("write an export's status"))?;
            }
        }
        Ok(true)
    }
}

fn export(export: &ServiceExport) -> mcs::Export {
    let conditions = export.status.get("conditions").cloned().unwrap_or_default();
    let text = |field: &str| export.spec.get(field).cloned().unwrap_or_default();
    mcs::Export {
        created: export.metadata.creation_timestamp.as_ref().map(|t| t.0),
        generation: export.metadata.generation,
        conditions: serde_json::from_value::<Vec<Condition>>(conditions).unwrap_or_default(),
        labels: text("exportedLabels"),
        annotations: text("exportedAnnotations"),
    }
}

async fn put(client: &Client, object: &Value) -> Result<DynamicObject, kube::Error> {
    let (api, name) = dynamic(client, object);
    api.patch(&name, &params_apply(), &Patch::Apply(object))
        .await
}

fn listed<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

/// Names of what is ours of an imported Service.
async fn ours<K>(api: &Api<K>, service: &str) -> Result<Vec<String>, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let select = format!(
        "{SERVICE_NAME}={service},{}={}",
        labels::MANAGED_BY,
        labels::MANAGER
    );
    let found = api
        .list_metadata(&ListParams::default().labels(&select))
        .await?;
    Ok(found.iter().map(ResourceExt::name_any).collect())
}

/// Makes a member's import as wished. False: the member has no such namespace.
async fn apply(client: &Client, service: &Key, wish: &mcs::Wish) -> Result<bool, ActError> {
    let derived = match put(client, &wish.derived).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
        derived => derived.map_err(failed("apply the Service of an import"))?,
    };
    let mut import = wish.import.clone();
    let address = derived.data["spec"]["clusterIP"].clone();
    if address
        .as_str()
        .is_some_and(|a| a != "None" && !a.is_empty())
    {
        import["spec"]["ips"] = json!([address]);
    }
    put(client, &import)
        .await
        .map_err(failed("apply a ServiceImport"))?;
    let clusters: Vec<Value> = wish
        .clusters
        .iter()
        .map(|c| json!({"cluster": c}))
        .collect();
    listed::<ServiceImport>(client, &service.0)
        .patch_status(
            &service.1,
            &params(),
            &Patch::Merge(json!({"status": {"clusters": clusters}})),
        )
        .await
        .map_err(failed("write a ServiceImport's status"))?;
    let slices: Api<EndpointSlice> = listed(client, &service.0);
    let before = ours(&slices, &service.1)
        .await
        .map_err(failed("list imported EndpointSlices"))?;
    for slice in &wish.slices {
        put(client, slice)
            .await
            .map_err(failed("apply an EndpointSlice"))?;
    }
    let wished = |name: &str| wish.slices.iter().any(|s| s["metadata"]["name"] == name);
    for stale in before.iter().filter(|n| !wished(n)) {
        ignore_missing(slices.delete(stale, &DeleteParams::default()).await)
            .map_err(failed("delete an EndpointSlice"))?;
    }
    Ok(true)
}

/// Removes a member's import; the ServiceImport last, so that what is left is found again.
async fn remove(client: &Client, service: &Key) -> Result<(), ActError> {
    let what = "remove an import";
    let none = DeleteParams::default();
    let slices: Api<EndpointSlice> = listed(client, &service.0);
    for name in ours(&slices, &service.1).await.map_err(failed(what))? {
        ignore_missing(slices.delete(&name, &none).await).map_err(failed(what))?;
    }
    let services: Api<Service> = listed(client, &service.0);
    for name in ours(&services, &service.1).await.map_err(failed(what))? {
        ignore_missing(services.delete(&name, &none).await).map_err(failed(what))?;
    }
    let imports: Api<ServiceImport> = listed(client, &service.0);
    for name in ours(&imports, &service.1).await.map_err(failed(what))? {
        ignore_missing(imports.delete(&name, &none).await).map_err(failed(what))?;
    }
    Ok(())
}
