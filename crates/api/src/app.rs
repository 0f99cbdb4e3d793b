//! `App`: a service, and what every Group of it shares.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LifecycleHandler, Probe};
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::promotion::{Environment, EnvironmentStatus};

/// What every Group of the App shares. A change here reaches instances with the next Release of
/// each Group, never by itself.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "App",
    plural = "apps",
    namespaced,
    status = "AppStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "An App is a service: who owns it, how important it is, and what its instances have in common in every environment.",
    printcolumn(name = "Level", type_ = "string", json_path = ".spec.level"),
    printcolumn(name = "Owners", type_ = "string", json_path = ".spec.owners"),
    printcolumn(
        name = "Environments",
        type_ = "string",
        json_path = ".status.summary",
        description = "What is where"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AppSpec {
    /// How much the company depends on it: priority, order of healing, care.
    #[serde(default)]
    pub level: Level,
    /// People or teams to turn to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
    /// Its environments, in the order in which revisions go through them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub environments: Vec<Environment>,
    /// Ports that the App serves. A Group without `spec.services` gets one ClusterIP Service of its
    /// own name with these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<AppPort>,
    /// The App's container: what is not part of a revision.
    #[serde(default)]
    pub container: ContainerShape,
    /// The ServiceAccount its instances run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountSpec>,
    /// A pod template to lay beneath: side-cars, init containers, volumes, security contexts, labels.
    /// Whatever `container` and a Group's revision say wins over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodOverlay>,
}

/// What the hub knows of the App.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is where: the environments in their order, then others that Groups are in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<EnvironmentStatus>,
    /// The same in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

/// How important an App is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Level {
    /// Core: the company stands still without it.
    L0,
    /// Important: customers notice at once.
    L1,
    /// Ordinary.
    #[default]
    L2,
    /// Can wait: internal tools, batch work.
    L3,
}

impl Level {
    /// All levels, the most important first.
    pub const ALL: [Self; 4] = [Self::L0, Self::L1, Self::L2, Self::L3];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
        }
    }

    /// The name of the PriorityClass of its pods.
    pub const fn priority_class(self) -> &'static str {
        match self {
            Self::L0 => "gantry-l0",
            Self::L1 => "gantry-l1",
            Self::L2 => "gantry-l2",
            Self::L3 => "gantry-l3",
        }
    }

    /// The value of that class. Between two levels there is room for classes of one's own, which count as the level
    /// below.
    pub const fn priority(self) -> i32 {
        match self {
            Self::L0 => 400_000,
            Self::L1 => 300_000,
            Self::L2 => 200_000,
            Self::L3 => 100_000,
        }
    }

    /// The level that a pod's priority stands for; none for those of no class of Gantry's, and of the system.
    pub fn of_priority(priority: i32) -> Option<Self> {
        if priority > 1_000_000_000 {
            return None;
        }
        Self::ALL
            .into_iter()
            .find(|level| priority >= level.priority())
    }
}

/// A port that the App serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppPort {
    /// Name, unique in the App.
    #[schemars(length(min = 1, max = 15))]
    pub name: String,
    /// The port clients connect to, and the container listens on unless `containerPort` says otherwise.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The port the container listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: Option<i32>,
    /// TCP, UDP or SCTP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The name as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// The part of the App's container that is not released but belongs to the App.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerShape {
    /// Name of the container. Default: the App's name. The container of that name in `template`, if
    /// there is one, lies beneath.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Health checks.
    #[serde(default)]
    pub probes: Probes,
    /// Start and stop.
    #[serde(default)]
    pub lifecycle: LifecycleShape,
}

/// Health checks of the App's container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probes {
    /// Readiness: may it receive traffic?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Probe>,
    /// Liveness: must it be restarted?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Probe>,
    /// Startup: has it come up? The others wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
}

/// How the App's container starts and stops.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleShape {
    /// Seconds between taking an instance out of service and touching it, for connections to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: Option<i32>,
    /// Seconds a container has to end after SIGTERM before it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub termination_grace_seconds: Option<i64>,
    /// Run right after the container starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_start: Option<LifecycleHandler>,
    /// Run before the container is told to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<LifecycleHandler>,
}

/// The ServiceAccount that the hub keeps on each member for the App.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountSpec {
    /// Its name. Default: the App's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the hub makes it. False where something else does.
    #[serde(default = "yes")]
    pub create: bool,
    /// Annotations to set, such as a cloud identity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

/// A pod template to lay beneath. Held as it was written, so that no field is lost to a type that
/// does not know it; the member's API server has the last word on what is valid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOverlay {
    /// Labels and annotations of the instances. Labels that Gantry sets cannot be changed.
    #[serde(default)]
    pub metadata: OverlayMetadata,
    /// A PodSpec (`kubectl explain pod.spec`).
    #[serde(default)]
    #[schemars(schema_with = "any_object")]
    pub spec: Map<String, Value>,
}

/// Metadata of instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverlayMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An object of any shape.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
