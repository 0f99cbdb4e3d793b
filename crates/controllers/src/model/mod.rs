//! The watched kinds as the controllers need them: slim structs that decode only what a rule reads.
//!
//! Up to 100,000 pods are held at a time, so nothing here keeps `managedFields`, container specs or
//! any other part that no controller looks at. Templates stay raw JSON: a typed template would lose
//! the fields that this build does not know and write them away on the next pod.

pub mod autoscaler;
pub mod batch;
pub mod device;
pub mod meta;
pub mod network;
pub mod node;
pub mod pod;
pub mod quota;
pub mod role;
pub mod secret;
pub mod signing;
pub mod volume;
pub mod workload;

pub use meta::{Key, Labels, Meta, Owner};
pub use pod::Pod;

/// One resource of the API: where its objects live and what they are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Path of the collection: in one namespace, or over all of them when `namespace` is empty.
    pub fn path(&self, namespace: &str) -> String {
        collection_path(
            self.group,
            self.version,
            self.plural,
            self.namespaced,
            namespace,
        )
    }
}

/// Path of a collection of the API, such as `/apis/apps/v1/namespaces/shop/statefulsets`.
pub fn collection_path(
    group: &str,
    version: &str,
    plural: &str,
    namespaced: bool,
    namespace: &str,
) -> String {
    let mut path = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    if namespaced && !namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    path.push('/');
    path.push_str(plural);
    path
}

/// An object that a shared informer holds.
pub trait Watched: serde::de::DeserializeOwned + Clone + Send + Sync + 'static {
    const KIND: Kind;
    fn meta(&self) -> &Meta;

    /// The values under which the informer finds this object: by default the uid of its
    /// controlling owner, or [`orphan_index`] of its namespace where it has none.
    fn index(&self, put: &mut dyn FnMut(std::sync::Arc<str>)) {
        match self.meta().controller() {
            Some(owner) => put(owner.uid.clone()),
            None => put(orphan_index(&self.meta().namespace)),
        }
    }
}

/// Index value of the objects of a namespace that no controller owns. A uid never starts with `/`.
pub fn orphan_index(namespace: &str) -> std::sync::Arc<str> {
    format!("/{namespace}").into()
}

macro_rules! kind {
    ($name:ident, $group:literal, $version:literal, $plural:literal, $kind:literal, $namespaced:literal) => {
        pub const $name: Kind = Kind {
            group: $group,
            version: $version,
            plural: $plural,
            kind: $kind,
            namespaced: $namespaced,
        };
    };
}

kind!(PODS, "", "v1", "pods", "Pod", true);
kind!(NODES, "", "v1", "nodes", "Node", false);
kind!(NAMESPACES, "", "v1", "namespaces", "Namespace", false);
kind!(SERVICES, "", "v1", "services", "Service", true);
kind!(ENDPOINTS, "", "v1", "endpoints", "Endpoints", true);
kind!(EVENTS, "", "v1", "events", "Event", true);
kind!(
    SERVICE_ACCOUNTS,
    "",
    "v1",
    "serviceaccounts",
    "ServiceAccount",
    true
);
kind!(CONFIG_MAPS, "", "v1", "configmaps", "ConfigMap", true);
kind!(
    CLAIMS,
    "",
    "v1",
    "persistentvolumeclaims",
    "PersistentVolumeClaim",
    true
);
kind!(
    REPLICATION_CONTROLLERS,
    "",
    "v1",
    "replicationcontrollers",
    "ReplicationController",
    true
);
kind!(
    STATEFUL_SETS,
    "apps",
    "v1",
    "statefulsets",
    "StatefulSet",
    true
);
kind!(
    REPLICA_SETS,
    "apps",
    "v1",
    "replicasets",
    "ReplicaSet",
    true
);
kind!(DEPLOYMENTS, "apps", "v1", "deployments", "Deployment", true);
kind!(DAEMON_SETS, "apps", "v1", "daemonsets", "DaemonSet", true);
kind!(
    REVISIONS,
    "apps",
    "v1",
    "controllerrevisions",
    "ControllerRevision",
    true
);
kind!(
    SERVICE_RANGES,
    "networking.k8s.io",
    "v1",
    "servicecidrs",
    "ServiceCIDR",
    false
);
kind!(SECRETS, "", "v1", "secrets", "Secret", true);
kind!(
    SIGNING_REQUESTS,
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
    false
);
kind!(
    ACCESS_REVIEWS,
    "authorization.k8s.io",
    "v1",
    "subjectaccessreviews",
    "SubjectAccessReview",
    false
);
kind!(
    CLUSTER_ROLES,
    "rbac.authorization.k8s.io",
    "v1",
    "clusterroles",
    "ClusterRole",
    false
);
kind!(JOBS, "batch", "v1", "jobs", "Job", true);
kind!(CRON_JOBS, "batch", "v1", "cronjobs", "CronJob", true);
kind!(
    ENDPOINT_SLICES,
    "discovery.k8s.io",
    "v1",
    "endpointslices",
    "EndpointSlice",
    true
);
kind!(
    DISRUPTION_BUDGETS,
    "policy",
    "v1",
    "poddisruptionbudgets",
    "PodDisruptionBudget",
    true
);
kind!(
    VOLUMES,
    "",
    "v1",
    "persistentvolumes",
    "PersistentVolume",
    false
);
kind!(
    STORAGE_CLASSES,
    "storage.k8s.io",
    "v1",
    "storageclasses",
    "StorageClass",
    false
);
kind!(
    ATTACHMENTS,
    "storage.k8s.io",
    "v1",
    "volumeattachments",
    "VolumeAttachment",
    false
);
kind!(
    DRIVERS,
    "storage.k8s.io",
    "v1",
    "csidrivers",
    "CSIDriver",
    false
);
kind!(
    ATTRIBUTES_CLASSES,
    "storage.k8s.io",
    "v1",
    "volumeattributesclasses",
    "VolumeAttributesClass",
    false
);
kind!(
    DEVICE_SLICES,
    "resource.k8s.io",
    "v1",
    "resourceslices",
    "ResourceSlice",
    false
);
kind!(QUOTAS, "", "v1", "resourcequotas", "ResourceQuota", true);
kind!(
    AUTOSCALERS,
    "autoscaling",
    "v2",
    "horizontalpodautoscalers",
    "HorizontalPodAutoscaler",
    true
);
kind!(
    DEVICE_CLAIMS,
    "resource.k8s.io",
    "v1",
    "resourceclaims",
    "ResourceClaim",
    true
);
kind!(
    DEVICE_CLAIM_TEMPLATES,
    "resource.k8s.io",
    "v1",
    "resourceclaimtemplates",
    "ResourceClaimTemplate",
    true
);
kind!(LEASES, "coordination.k8s.io", "v1", "leases", "Lease", true);
