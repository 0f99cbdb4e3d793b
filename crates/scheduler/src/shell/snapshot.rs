//! A cluster as it is now, read once: for questions that need no running scheduler.

use super::objects::{ReplicaSet, StatefulSet};
use crate::core::load::Source;
use crate::core::object::{
    Attachment, Claim, CsiDriver, CsiNode, DisruptionBudget, ElasticQuota, Namespace, Node,
    NodeMetric, NodeTopology, PersistentVolume, Pod, PodGroup, Service, StorageCapacity,
    StorageClass,
};
use crate::core::{Cluster, Profile};
use gantry_api::{PlacementPolicy, Reservation};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use rustc_hash::FxHashSet;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A cluster as it was when it was read.
pub struct Snapshot {
    pub cluster: Cluster,
    /// Pods without a node.
    pub waiting: Vec<Pod>,
    /// Uids and `namespace/name` of those with one.
    pub placed: Vec<(Arc<str>, Arc<str>)>,
    /// Uids of those that nobody would make anew.
    pub unowned: FxHashSet<Arc<str>>,
}

/// A list that could not be had.
#[derive(thiserror::Error, Debug)]
#[error("cannot list {what}")]
pub struct SnapshotError {
    pub what: String,
    pub source: kube::Error,
}

/// Objects asked for at a time.
const PAGE: u32 = 2000;

async fn list<K>(client: &Client, mut each: impl FnMut(&K)) -> Result<(), SnapshotError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api = Api::<K>::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            // An older cluster without this kind has none of it.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(source) => {
                let what = K::plural(&()).into_owned();
                return Err(SnapshotError { what, source });
            }
        };
        page.items.iter().for_each(&mut each);
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

/// Reads a cluster.
///
/// # Errors
/// Names the kind that could not be listed.
pub async fn snapshot(client: &Client, profiles: Vec<Profile>) -> Result<Snapshot, SnapshotError> {
    let mut cluster = Cluster::with_profiles(profiles);
    list::<Node>(client, |node| {
        cluster.upsert_node(node);
    })
    .await?;
    list::<Namespace>(client, |namespace| {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        cluster.set_namespace(name, Some(&labels));
    })
    .await?;
    let names = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        (text(&meta.namespace), text(&meta.name))
    };
    list::<Service>(client, |service| {
        let (namespace, name) = names(&service.metadata);
        cluster.set_service(&namespace, &name, Some(&service.spec.selector));
    })
    .await?;
    list::<ReplicaSet>(client, |set| {
        let (namespace, name) = names(&set.0.metadata);
        cluster.set_owner(
            "ReplicaSet",
            &namespace,
            &name,
            set.0.spec.selector.as_ref(),
        );
    })
    .await?;
    list::<StatefulSet>(client, |set| {
        let (namespace, name) = names(&set.0.metadata);
        cluster.set_owner(
            "StatefulSet",
            &namespace,
            &name,
            set.0.spec.selector.as_ref(),
        );
    })
    .await?;
    list::<DisruptionBudget>(client, |budget| {
        let (namespace, name) = names(&budget.metadata);
        let allowed = budget.status.disruptions_allowed;
        cluster.set_budget(&namespace, &name, budget.spec.selector.as_ref(), allowed);
    })
    .await?;
    list::<PlacementPolicy>(client, |policy| cluster.set_policy(policy)).await?;
    list::<ElasticQuota>(client, |quota| cluster.set_quota(quota)).await?;
    cluster.settle_rules();
    storage(client, &mut cluster).await?;
    devices(client, &mut cluster).await?;
    let mut waiting = Vec::new();
    let mut placed = Vec::new();
    let mut unowned = FxHashSet::default();
    list::<Pod>(client, |pod| {
        if pod.finished() {
            return;
        }
        match pod.node() {
            Some(node) => {
                cluster.observe(pod, node);
                let uid: Arc<str> = pod.uid().into();
                let owners = pod.metadata.owner_references.iter().flatten();
                if !owners.into_iter().any(|o| o.controller == Some(true)) {
                    unowned.insert(uid.clone());
                }
                placed.push((uid, pod.key().into()));
            }
            None => waiting.push(pod.clone()),
        }
    })
    .await?;
    usage(client, &mut cluster).await;
    cluster.numa.now = super::usage::unix_now();
    list::<NodeTopology>(client, |topology| cluster.set_topology(topology)).await?;
    list::<PodGroup>(client, |group| cluster.set_pod_group(group)).await?;
    list::<Reservation>(client, |reservation| {
        super::reservations::take_in(&mut cluster, reservation);
    })
    .await?;
    cluster.settle_rules();
    // Room that was made for a pod is taken.
    for pod in &waiting {
        if let Some(node) = pod
            .status
            .nominated_node_name
            .as_deref()
            .filter(|n| !n.is_empty())
        {
            let class = cluster.classify(pod);
            let uid: Arc<str> = pod.uid().into();
            cluster.place(&uid, class, node);
        }
    }
    cluster.events.clear();
    Ok(Snapshot {
        cluster,
        waiting,
        placed,
        unowned,
    })
}

/// Usage as it was measured last, where a profile looks at it. What is not told counts by requests, as it does while a
/// scheduler runs.
async fn usage(client: &Client, cluster: &mut Cluster) {
    if !cluster.nodes.loads.on {
        return;
    }
    cluster.pass_time(super::usage::unix_now());
    let mut all = Vec::new();
    let wanted = |source| {
        let loads = cluster
            .profiles
            .iter()
            .filter_map(|r| r.profile.load.as_ref());
        loads.into_iter().any(|l| l.source == source)
    };
    if wanted(Source::MetricsApi) {
        match super::usage::ask(client).await {
            Ok(told) => all.extend(told),
            Err(error) => tracing::warn!(%error, "the metrics API does not tell what nodes use"),
        }
    }
    if wanted(Source::NodeMetric) {
        let listed = list::<NodeMetric>(client, |metric| {
            all.extend(super::usage::measured(metric));
        });
        if let Err(error) = listed.await {
            tracing::warn!(%error, "NodeMetrics cannot be read");
        }
    }
    for m in all {
        cluster.measure(&m.node, m.usage, m.at, m.window);
    }
}

async fn storage(client: &Client, cluster: &mut Cluster) -> Result<(), SnapshotError> {
    list::<StorageClass>(client, |class| {
        cluster.change_volumes(|v, symbols| v.set_class(class, symbols));
    })
    .await?;
    list::<PersistentVolume>(client, |volume| cluster.upsert_volume(volume)).await?;
    list::<Claim>(client, |claim| cluster.upsert_claim(claim)).await?;
    list::<CsiNode>(client, |node| {
        cluster.change_volumes(|v, symbols| v.set_limits(node, symbols));
    })
    .await?;
    list::<CsiDriver>(client, |driver| {
        let name = driver.metadata.name.as_deref().unwrap_or_default();
        cluster.change_volumes(|v, symbols| v.set_driver(name, Some(driver), symbols));
    })
    .await?;
    list::<Attachment>(client, |attachment| {
        cluster.change_volumes(|v, symbols| v.set_attachment(attachment, symbols));
    })
    .await?;
    list::<StorageCapacity>(client, |capacity| {
        let meta = &capacity.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        cluster
            .change_volumes(|v, symbols| v.set_capacity(namespace, name, Some(capacity), symbols));
    })
    .await
}

/// Devices; before Kubernetes 1.34 there are none in this form.
async fn devices(client: &Client, cluster: &mut Cluster) -> Result<(), SnapshotError> {
    list::<DeviceClass>(client, |class| {
        cluster.change_devices(|devices, symbols| devices.set_class(class, symbols));
    })
    .await?;
    list::<ResourceSlice>(client, |slice| {
        cluster.change_devices(|devices, symbols| devices.set_slice(slice, symbols));
    })
    .await?;
    list::<ResourceClaim>(client, |claim| {
        cluster.change_devices(|devices, symbols| devices.set_claim(claim, symbols));
    })
    .await
}
