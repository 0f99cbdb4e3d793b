//! A container of a pod as a kubelet needs to know it.

use super::{RestartPolicy, or_default, parse_quantity};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use std::{collections::BTreeMap, sync::Arc};

/// When to pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub enum PullPolicy {
    /// Ask the registry each time.
    Always,
    /// Only if the image is not on the node.
    #[default]
    IfNotPresent,
    /// Not at all.
    Never,
}

/// The policy of a resource whose change restarts the container.
pub(super) const RESTART_CONTAINER: &str = "RestartContainer";

/// A container of the spec, slim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Its image.
    #[serde(default)]
    pub image: Arc<str>,
    /// When to pull it.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Its own restart policy; an init container with `Always` is a sidecar.
    pub restart_policy: Option<RestartPolicy>,
    /// What it asks for.
    #[serde(default, deserialize_with = "or_default")]
    pub resources: Resources,
    /// Whether a change of them restarts it.
    #[serde(default, deserialize_with = "or_default")]
    pub resize_policy: Vec<ResizePolicy>,
    /// Takes it out of service.
    pub readiness_probe: Option<Probe>,
    /// Restarts it.
    pub liveness_probe: Option<Probe>,
    /// Holds the other probes back.
    pub startup_probe: Option<Probe>,
    /// What is done once it has started, and before it is stopped.
    pub lifecycle: Option<Box<Lifecycle>>,
    /// Ports of the node that it takes.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<Port>,
    /// What it runs.
    #[serde(default, deserialize_with = "or_default")]
    pub command: Vec<String>,
    /// What it is told.
    #[serde(default, deserialize_with = "or_default")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default, deserialize_with = "or_default")]
    pub env: Vec<Variable>,
    /// Where volumes are mounted.
    #[serde(default, deserialize_with = "or_default")]
    pub volume_mounts: Vec<Mount>,
    /// Whether its standard input stays open.
    #[serde(default)]
    pub stdin: bool,
    /// The file in which it leaves what it has to say.
    pub termination_message_path: Option<Arc<str>>,
    /// Whether the end of its log may stand in for that.
    pub termination_message_policy: Option<Arc<str>>,
    /// What it may do.
    pub security_context: Option<SecurityContext>,
}

/// What the change of a resource takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResizePolicy {
    /// The resource.
    pub resource_name: Arc<str>,
    /// `NotRequired` or `RestartContainer`.
    pub restart_policy: Arc<str>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// The port of the node; none if it is zero.
    pub host_port: u16,
    /// The address of the node; all if it is empty.
    #[serde(rename = "hostIP")]
    pub host_ip: Option<Arc<str>>,
    /// TCP, if nothing else is said.
    pub protocol: Option<Arc<str>>,
}

/// A variable of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Variable {
    /// Its name.
    pub name: Arc<str>,
    /// Its value, if it is given.
    pub value: Option<Arc<str>>,
    /// Where it comes from otherwise.
    pub value_from: Option<VariableSource>,
}

/// Where a variable comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VariableSource {
    /// From the pod.
    pub field_ref: Option<FieldRef>,
}

/// A field of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldRef {
    /// Which.
    pub field_path: Arc<str>,
}

/// Where a volume is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// The volume's name.
    pub name: Arc<str>,
    /// The directory in the container.
    pub mount_path: Arc<str>,
    /// What of the volume is mounted there; all of it where this is empty.
    pub sub_path: Arc<str>,
}

impl Mount {
    /// The path in the container, without a slash at its end.
    pub fn path(&self) -> &str {
        self.mount_path.trim_end_matches('/')
    }

    /// What the paths of what is mounted begin with in the volume: nothing, or a slash and a name.
    pub fn inside(&self) -> String {
        match self.sub_path.trim_matches('/') {
            "" => String::new(),
            name => format!("/{name}"),
        }
    }
}

/// What a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    /// Whether its own files stay as they are.
    pub read_only_root_filesystem: Option<bool>,
    /// Who its process is.
    pub run_as_user: Option<u32>,
    /// And of which group.
    pub run_as_group: Option<u32>,
}

impl Variable {
    /// The field of the pod that it stands for.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        let source = self.value_from.as_ref()?;
        Some(&source.field_ref.as_ref()?.field_path)
    }
}

impl Port {
    /// Whether both cannot be taken on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let address = |it: &Self| {
            it.host_ip
                .clone()
                .filter(|it| !it.is_empty() && &**it != "0.0.0.0")
        };
        let protocol = |it: &Self| it.protocol.clone().unwrap_or_else(|| "TCP".into());
        self.host_port != 0
            && self.host_port == other.host_port
            && protocol(self) == protocol(other)
            && match (address(self), address(other)) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            }
    }
}

impl ContainerSpec {
    /// Whether it has to be started again to get these resources instead of its own.
    #[must_use]
    pub fn restarts_for(&self, before: &Resources, after: &Resources) -> bool {
        self.resize_policy.iter().any(|policy| {
            let name = &*policy.resource_name;
            let of =
                |it: &Resources| (it.requests.get(name).cloned(), it.limits.get(name).cloned());
            &*policy.restart_policy == RESTART_CONTAINER && of(before) != of(after)
        })
    }
}

/// Requests and limits, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(default)]
pub struct Resources {
    /// What it may use at most.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub limits: BTreeMap<String, String>,
    /// What is set aside for it.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub requests: BTreeMap<String, String>,
}

/// Hooks of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Runs once it has started; until then it is not said to run.
    pub post_start: Option<Hook>,
    /// Runs before the signal.
    pub pre_stop: Option<Hook>,
}

/// A hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// It runs a command.
    pub exec: Option<Exec>,
    /// It sleeps.
    pub sleep: Option<Sleep>,
    /// It asks somebody.
    pub http_get: Option<Box<HttpGet>>,
}

/// A request over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpGet {
    /// Whom; the pod itself where it is not said.
    pub host: Option<Arc<str>>,
    /// Path and query.
    pub path: Arc<str>,
    /// The port.
    pub port: PortRef,
    /// HTTP, if nothing else is said.
    pub scheme: Option<Arc<str>>,
    /// Its headers.
    #[serde(deserialize_with = "or_default")]
    pub http_headers: Vec<HttpHeader>,
}

/// A header of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct HttpHeader {
    /// Its name.
    pub name: Arc<str>,
    /// What it says.
    pub value: Arc<str>,
}

/// A port by its number or name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By name, or by a number in quotes.
    Name(Arc<str>),
}

impl Default for PortRef {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl PortRef {
    /// Its number, where that is said.
    #[must_use]
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) => name.parse().ok(),
        }
    }
}

/// A sleep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub struct Sleep {
    /// That long.
    pub seconds: u32,
}

/// A probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Seconds from the start to the first probe.
    #[serde(default)]
    pub initial_delay_seconds: u32,
    /// Seconds between probes.
    #[serde(default = "ten")]
    pub period_seconds: u32,
    /// Successes in a row that make it succeed.
    #[serde(default = "one")]
    pub success_threshold: u32,
    /// Failures in a row that make it fail.
    #[serde(default = "three")]
    pub failure_threshold: u32,
    /// Whether it is an HTTP probe: its failures read differently.
    #[serde(default)]
    pub http_get: Option<Present>,
    /// The command that it runs.
    #[serde(default)]
    pub exec: Option<Exec>,
    /// The gRPC service that it asks.
    #[serde(default)]
    pub grpc: Option<Grpc>,
}

/// A gRPC service that tells of health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Grpc {
    /// Its port.
    pub port: u16,
}

/// A command in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// Its words.
    pub command: Vec<String>,
}

/// That something is there, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Present;

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

fn one() -> u32 {
    1
}
fn three() -> u32 {
    3
}
fn ten() -> u32 {
    10
}

impl Resources {
    /// Cores and bytes that are asked for, and at most used, where that is said.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "amounts stay far below 2^53")]
    pub fn bounds(&self) -> [[Option<f64>; 2]; 2] {
        [&self.requests, &self.limits].map(|of| {
            [("cpu", 1000.0), ("memory", 1.0)].map(|(name, unit)| {
                let amount = parse_quantity(name, of.get(name)?)?;
                Some(amount as f64 / unit)
            })
        })
    }
}
