//! The slim objects as Kubernetes resources, and one watch for each kind.

use crate::core::object::{
    Attachment, Claim, CsiDriver, CsiNode, DisruptionBudget, ElasticQuota, Namespace, Node,
    NodeMetric, NodeTopology, Owner, PersistentVolume, Pod, PodGroup, Service, StorageCapacity,
    StorageClass,
};
use futures::StreamExt;
use gantry_api::{PlacementPolicy, Reservation, ServiceProfile};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use rand::Rng;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Gives a slim object its place in the API.
macro_rules! resource {
    ($type:ty, $scope:ty, $group:literal, $kind:literal, $plural:literal) => {
        resource!($type, $scope, $group, "v1", $kind, $plural);
    };
    ($type:ty, $scope:ty, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        impl Resource for $type {
            type DynamicType = ();
            type Scope = $scope;
            fn kind(_: &()) -> Cow<'_, str> {
                $kind.into()
            }
            fn group(_: &()) -> Cow<'_, str> {
                $group.into()
            }
            fn version(_: &()) -> Cow<'_, str> {
                $version.into()
            }
            fn plural(_: &()) -> Cow<'_, str> {
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

/// A ReplicaSet.
#[derive(serde::Deserialize, Clone, Debug)]
#[serde(transparent)]
pub struct ReplicaSet(pub Owner);

/// A StatefulSet.
#[derive(serde::Deserialize, Clone, Debug)]
#[serde(transparent)]
pub struct StatefulSet(pub Owner);

macro_rules! owner {
    ($type:ty, $kind:literal, $plural:literal) => {
        impl Resource for $type {
            type DynamicType = ();
            type Scope = k8s_openapi::NamespaceResourceScope;
            fn kind(_: &()) -> Cow<'_, str> {
                $kind.into()
            }
            fn group(_: &()) -> Cow<'_, str> {
                "apps".into()
            }
            fn version(_: &()) -> Cow<'_, str> {
                "v1".into()
            }
            fn plural(_: &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.0.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.0.metadata
            }
        }
    };
}

resource!(Pod, k8s_openapi::NamespaceResourceScope, "", "Pod", "pods");
resource!(Node, k8s_openapi::ClusterResourceScope, "", "Node", "nodes");
resource!(
    Namespace,
    k8s_openapi::ClusterResourceScope,
    "",
    "Namespace",
    "namespaces"
);
resource!(
    Service,
    k8s_openapi::NamespaceResourceScope,
    "",
    "Service",
    "services"
);
resource!(
    Claim,
    k8s_openapi::NamespaceResourceScope,
    "",
    "PersistentVolumeClaim",
    "persistentvolumeclaims"
);
resource!(
    DisruptionBudget,
    k8s_openapi::NamespaceResourceScope,
    "policy",
    "PodDisruptionBudget",
    "poddisruptionbudgets"
);
resource!(
    PersistentVolume,
    k8s_openapi::ClusterResourceScope,
    "",
    "PersistentVolume",
    "persistentvolumes"
);
resource!(
    StorageClass,
    k8s_openapi::ClusterResourceScope,
    "storage.k8s.io",
    "StorageClass",
    "storageclasses"
);
resource!(
    CsiNode,
    k8s_openapi::ClusterResourceScope,
    "storage.k8s.io",
    "CSINode",
    "csinodes"
);
resource!(
    CsiDriver,
    k8s_openapi::ClusterResourceScope,
    "storage.k8s.io",
    "CSIDriver",
    "csidrivers"
);
resource!(
    Attachment,
    k8s_openapi::ClusterResourceScope,
    "storage.k8s.io",
    "VolumeAttachment",
    "volumeattachments"
);
resource!(
    StorageCapacity,
    k8s_openapi::NamespaceResourceScope,
    "storage.k8s.io",
    "CSIStorageCapacity",
    "csistoragecapacities"
);
resource!(
    NodeMetric,
    k8s_openapi::ClusterResourceScope,
    "slo.koordinator.sh",
    "v1alpha1",
    "NodeMetric",
    "nodemetrics"
);
resource!(
    ElasticQuota,
    k8s_openapi::NamespaceResourceScope,
    "scheduling.sigs.k8s.io",
    "v1alpha1",
    "ElasticQuota",
    "elasticquotas"
);
resource!(
    PodGroup,
    k8s_openapi::NamespaceResourceScope,
    "scheduling.x-k8s.io",
    "v1alpha1",
    "PodGroup",
    "podgroups"
);
resource!(
    NodeTopology,
    k8s_openapi::ClusterResourceScope,
    "topology.node.k8s.io",
    "v1alpha2",
    "NodeResourceTopology",
    "noderesourcetopologies"
);
owner!(ReplicaSet, "ReplicaSet", "replicasets");
owner!(StatefulSet, "StatefulSet", "statefulsets");

/// What a watch says.
#[derive(Debug)]
pub enum Change<K> {
    /// A list begins: what it does not name is gone by its end.
    Listing,
    Applied(K),
    Deleted(K),
    /// The list is complete.
    Listed,
}

/// Anything from any watch.
pub enum Input {
    Pod(Change<Pod>),
    Node(Change<Node>),
    Namespace(Change<Namespace>),
    Service(Change<Service>),
    Claim(Change<Claim>),
    Volume(Change<PersistentVolume>),
    Class(Change<StorageClass>),
    CsiNode(Change<CsiNode>),
    CsiDriver(Change<CsiDriver>),
    Capacity(Change<StorageCapacity>),
    Attachment(Change<Attachment>),
    ReplicaSet(Change<ReplicaSet>),
    StatefulSet(Change<StatefulSet>),
    Budget(Change<DisruptionBudget>),
    NodeMetric(Change<NodeMetric>),
    Policy(Change<PlacementPolicy>),
    Quota(Change<ElasticQuota>),
    PodGroup(Change<PodGroup>),
    Reservation(Change<Reservation>),
    Topology(Change<NodeTopology>),
    DeviceClaim(Change<ResourceClaim>),
    DeviceClass(Change<DeviceClass>),
    DeviceSlice(Change<ResourceSlice>),
    ServiceProfile(Change<ServiceProfile>),
    /// The metrics API answered.
    Usage(Vec<super::usage::Measurement>),
    PodUsage(Vec<super::usage::PodUsage>),
}

/// How long after a kind was found not to be there it is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Longest wait before a failed watch is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Follows a kind that need not be there. While it is not, or may not be read, there is none of it.
pub async fn follow_optional<K>(
    client: Client,
    wrap: fn(Change<K>) -> Input,
    out: mpsc::Sender<Input>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let api = Api::<K>::all(client.clone());
    let mut told = false;
    loop {
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => break,
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                if !told {
                    told = true;
                    if status.code == 403 {
                        tracing::warn!(kind = %K::plural(&()), "may not be read: taken for not there");
                    }
                    for change in [Change::Listing, Change::Listed] {
                        if out.send(wrap(change)).await.is_err() {
                            return;
                        }
                    }
                }
            }
            Err(error) => tracing::debug!(%error, kind = %K::plural(&()), "cannot be looked for"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = out.closed() => return,
        }
    }
    follow(client, wrap, out, Arc::new(Notify::new())).await;
}

/// Follows one kind for ever; ends when the receiver is gone. `again`: list anew.
pub async fn follow<K>(
    client: Client,
    wrap: fn(Change<K>) -> Input,
    out: mpsc::Sender<Input>,
    again: Arc<Notify>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut failures: u32 = 0;
    loop {
        let mut stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).boxed();
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = again.notified() => break,
                () = out.closed() => return,
            };
            let change = match event {
                None => break,
                Some(Ok(Event::Init)) => Change::Listing,
                Some(Ok(Event::InitApply(object) | Event::Apply(object))) => {
                    Change::Applied(object)
                }
                Some(Ok(Event::Delete(object))) => Change::Deleted(object),
                Some(Ok(Event::InitDone)) => Change::Listed,
                Some(Err(error)) => {
                    failures = failures.saturating_add(1);
                    let wait = Duration::from_millis(100 << failures.min(6)).min(LONGEST_WAIT);
                    let wait = wait.mul_f64(rand::rng().random_range(0.5..1.0));
                    tracing::warn!(%error, kind = %K::plural(&()), ?wait, "watch failed, will go on");
                    tokio::select! {
                        () = tokio::time::sleep(wait) => continue,
                        () = out.closed() => return,
                    }
                }
            };
            failures = 0;
            if out.send(wrap(change)).await.is_err() {
                return;
            }
        }
    }
}
