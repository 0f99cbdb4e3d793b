//! A pod as a kubelet needs to know it.
//!
//! [`PodSpec`] is what equal pods share: it is hashable, and the shell keeps one copy for all pods of
//! a template.

use super::{Amounts, or_default, parse_quantity, slim_meta};
use crate::program;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Resource, core::ObjectMeta};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// A `v1` Pod, slim.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodObject {
    /// Name, uid, labels, annotations, generation, deletion, owners.
    #[serde(deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    /// What is to run.
    #[serde(default)]
    pub spec: PodSpec,
    /// What was reported.
    #[serde(default)]
    pub status: PodStatusWire,
}

/// The spec of a pod, slim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Where it is bound. Taken out before the spec is shared.
    pub node_name: Option<String>,
    /// Whether it has the node's address.
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    /// What to do about containers that end.
    pub restart_policy: RestartPolicy,
    /// Seconds between the signal and the kill.
    pub termination_grace_period_seconds: Option<u32>,
    /// Seconds it may be active.
    pub active_deadline_seconds: Option<u32>,
    /// Conditions that must hold before it is Ready.
    #[serde(deserialize_with = "or_default")]
    pub readiness_gates: Vec<ReadinessGate>,
    /// Containers that run before the others, sidecars among them.
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<ContainerSpec>,
    /// Its containers.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<ContainerSpec>,
    /// Containers that were added to the running pod.
    #[serde(deserialize_with = "or_default")]
    pub ephemeral_containers: Vec<ContainerSpec>,
    /// Resources of the pod as a whole, if given.
    pub resources: Option<Resources>,
    /// What the runtime itself needs.
    #[serde(deserialize_with = "or_default")]
    pub overhead: BTreeMap<String, String>,
    /// Its volumes.
    #[serde(deserialize_with = "or_default")]
    pub volumes: Vec<Volume>,
    /// What its containers may do, where they do not say themselves.
    pub security_context: Option<SecurityContext>,
    /// Its priority, as its class had it.
    pub priority: Option<i32>,
    /// Whether some of its volumes are claims'. Follows from its volumes, which are not all kept.
    #[serde(skip)]
    pub claims: bool,
}

/// A volume of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Its name.
    pub name: Arc<str>,
    /// It is empty at first.
    pub empty_dir: Option<EmptyDir>,
    /// It is a directory of the node.
    pub host_path: Option<HostPath>,
    /// It is a claim's.
    pub persistent_volume_claim: Option<Present>,
    /// It is that of a claim of the pod's own.
    pub ephemeral: Option<Present>,
}

/// A directory that is empty at first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmptyDir {
    /// `Memory`, or the node's disk.
    pub medium: Option<Arc<str>>,
    /// What its files may measure together.
    pub size_limit: Option<Arc<str>>,
}

/// A directory of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub struct HostPath {
    /// Which.
    pub path: Arc<str>,
}

/// Where the files of a volume come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeSource<'a> {
    /// From the pod's containers.
    Empty,
    /// From a directory of the node.
    Host(&'a Arc<str>),
    /// From elsewhere.
    Other,
}

/// What to do about containers that end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub enum RestartPolicy {
    /// Start them again.
    #[default]
    Always,
    /// Start them again if they failed.
    OnFailure,
    /// Leave them.
    Never,
}

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

/// A readiness gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessGate {
    /// Type of the condition.
    pub condition_type: Arc<str>,
}

/// The policy of a resource whose change restarts the container.
const RESTART_CONTAINER: &str = "RestartContainer";

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

/// A hook; a request over HTTP is taken to be answered at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub struct Hook {
    /// It runs a command.
    pub exec: Option<Exec>,
    /// It sleeps.
    pub sleep: Option<Sleep>,
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

impl PodSpec {
    /// Where the files of a volume come from.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<VolumeSource<'_>> {
        let volume = self.volumes.iter().find(|it| *it.name == *name)?;
        Some(match (&volume.empty_dir, &volume.host_path) {
            (Some(_), _) => VolumeSource::Empty,
            (_, Some(host)) => VolumeSource::Host(&host.path),
            _ => VolumeSource::Other,
        })
    }

    /// Whether programs of it that are run mount volumes whose contents stand in other objects.
    pub fn reads_objects(&self) -> bool {
        let containers = self.containers.iter().chain(&self.init_containers);
        let mut mounts = containers.flat_map(|it| &it.volume_mounts);
        mounts.any(|it| matches!(self.volume(&it.name), Some(VolumeSource::Other)))
    }

    /// What the files of a volume on the node's disk may measure together, where that is bounded: in bytes, and
    /// as its spec has it. One in memory cannot grow beyond its bound.
    pub fn bound(&self, volume: &str) -> Option<(usize, &Arc<str>)> {
        let volume = self.volumes.iter().find(|it| *it.name == *volume)?;
        let empty = volume.empty_dir.as_ref()?;
        let limit = empty.size_limit.as_ref()?;
        let bytes = parse_quantity("memory", limit)?;
        (empty.medium.as_deref() != Some("Memory"))
            .then(|| Some((usize::try_from(bytes).ok()?, limit)))?
    }

    /// The ports of the node that it takes.
    pub fn host_ports(&self) -> impl Iterator<Item = &Port> {
        let containers = self.containers.iter().chain(&self.init_containers);
        containers
            .flat_map(|it| &it.ports)
            .filter(|it| it.host_port != 0)
    }

    /// Leaves out what is of use to programs alone, where there are none: most of all what differs from
    /// pod to pod, so that equal pods stay equal.
    pub fn settle(&mut self) {
        /// The volume of a pod's token, whose name differs from pod to pod.
        const TOKEN: &str = "kube-api-access-";
        let claimed = |it: &Volume| it.persistent_volume_claim.is_some() || it.ephemeral.is_some();
        self.claims |= self.volumes.iter().any(claimed);
        let mut any = false;
        for it in self.containers.iter_mut().chain(&mut self.init_containers) {
            if program::words(&it.image, &it.command, &it.args).is_none() {
                (it.command, it.args, it.env, it.volume_mounts) = Default::default();
                (it.termination_message_path, it.termination_message_policy) = (None, None);
            } else {
                it.volume_mounts.retain(|it| !it.name.starts_with(TOKEN));
                any = true;
            }
            it.ports.retain(|it| it.host_port != 0);
            it.resize_policy
                .retain(|it| &*it.restart_policy == RESTART_CONTAINER);
        }
        for it in &mut self.ephemeral_containers {
            (it.command, it.args, it.env, it.volume_mounts) = Default::default();
        }
        if any {
            self.volumes.retain(|it| !it.name.starts_with(TOKEN));
        } else {
            self.volumes = vec![];
        }
    }

    /// Whether both give the same resources to the same containers.
    #[must_use]
    pub fn same_resources(&self, other: &Self) -> bool {
        let same = |a: &[ContainerSpec], b: &[ContainerSpec]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.resources == b.resources)
        };
        same(&self.containers, &other.containers)
            && same(&self.init_containers, &other.init_containers)
            && self.resources == other.resources
    }

    /// Whether it asks for nothing and is bounded by nothing: the first class of service to suffer.
    #[must_use]
    pub fn best_effort(&self) -> bool {
        let free = |it: &Resources| it.requests.is_empty() && it.limits.is_empty();
        let all = self.containers.iter().chain(&self.init_containers);
        all.into_iter().all(|it| free(&it.resources)) && self.resources.as_ref().is_none_or(free)
    }

    /// What the pod asks for in all, as the scheduler and the kubelet count it: the sum of its
    /// containers and sidecars, or the largest init container with the sidecars before it; pod-level
    /// requests replace that; overhead comes on top.
    #[must_use]
    pub fn requests(&self) -> Amounts {
        let mut sidecars = Amounts::new();
        let mut peak = Amounts::new();
        for init in &self.init_containers {
            let mut now = amounts(&init.resources.requests);
            add(&mut now, &sidecars);
            if init.restart_policy == Some(RestartPolicy::Always) {
                sidecars = now.clone();
            }
            for (name, amount) in now {
                let most = peak.entry(name).or_default();
                *most = (*most).max(amount);
            }
        }
        let mut sum = sidecars;
        for container in &self.containers {
            add(&mut sum, &amounts(&container.resources.requests));
        }
        for (name, amount) in peak {
            let most = sum.entry(name).or_default();
            *most = (*most).max(amount);
        }
        if let Some(whole) = &self.resources {
            sum.extend(amounts(&whole.requests));
        }
        add(&mut sum, &amounts(&self.overhead));
        sum
    }
}

fn amounts(written: &BTreeMap<String, String>) -> Amounts {
    written
        .iter()
        .filter_map(|(name, text)| Some((name.clone(), parse_quantity(name, text)?)))
        .collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let total = sum.entry(name.clone()).or_default();
        *total = total.saturating_add(*amount);
    }
}

/// The status of a pod, slim: read when a pod is taken over, and for its readiness gates.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatusWire {
    /// Its phase.
    pub phase: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// When the kubelet took it.
    pub start_time: Option<Time>,
    /// Its conditions.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<ConditionWire>,
    /// Its containers.
    #[serde(deserialize_with = "or_default")]
    pub container_statuses: Vec<ContainerStatusWire>,
    /// Its init containers.
    #[serde(deserialize_with = "or_default")]
    pub init_container_statuses: Vec<ContainerStatusWire>,
    /// Its ephemeral containers.
    #[serde(deserialize_with = "or_default")]
    pub ephemeral_container_statuses: Vec<ContainerStatusWire>,
    /// What is set aside for it as a whole.
    #[serde(deserialize_with = "or_default")]
    pub allocated_resources: BTreeMap<String, String>,
    /// What it runs with as a whole.
    pub resources: Option<Resources>,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionWire {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// The generation of the pod that it speaks of.
    pub observed_generation: Option<i64>,
    /// Since when.
    pub last_transition_time: Option<Time>,
}

/// The status of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatusWire {
    /// Its name.
    pub name: String,
    /// The image it runs.
    pub image: Arc<str>,
    /// Restarts so far.
    pub restart_count: u32,
    /// Whether its startup probe has passed.
    pub started: Option<bool>,
    /// Whether its readiness probe passes.
    pub ready: bool,
    /// What is set aside for it.
    #[serde(deserialize_with = "or_default")]
    pub allocated_resources: BTreeMap<String, String>,
    /// What it runs with.
    pub resources: Option<Resources>,
    /// What it does.
    #[serde(deserialize_with = "or_default")]
    pub state: StateWire,
    /// How it last ended.
    #[serde(deserialize_with = "or_default")]
    pub last_state: StateWire,
}

impl ContainerStatusWire {
    /// Whether the container has ever run.
    #[must_use]
    pub fn created(&self) -> bool {
        let ran = |it: &StateWire| it.running.is_some() || it.terminated.is_some();
        self.restart_count > 0 || ran(&self.state) || ran(&self.last_state)
    }
}

/// The state of a container: one of three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StateWire {
    /// It waits.
    pub waiting: Option<WaitingWire>,
    /// It runs.
    pub running: Option<RunningWire>,
    /// It has ended.
    pub terminated: Option<TerminatedWire>,
}

/// A container that waits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WaitingWire {
    /// For what.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<Arc<str>>,
}

/// A container that runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunningWire {
    /// Since when.
    pub started_at: Option<Time>,
}

/// A container that has ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TerminatedWire {
    /// Its code.
    pub exit_code: i32,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// For people.
    pub message: Option<Arc<str>>,
    /// When it started.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
}

impl Resource for PodObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn requests_are_counted_as_the_scheduler_does() {
        let c =
            |cpu: &str| serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let side = serde_json::json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        let cases = [
            (serde_json::json!({"containers": [c("1"), c("500m")]}), 1500),
            (
                serde_json::json!({"initContainers": [c("4"), c("2")], "containers": [c("1")]}),
                4000,
            ),
            (
                serde_json::json!({"initContainers": [side, c("2")], "containers": [c("1")]}),
                3000,
            ),
            (
                serde_json::json!({"initContainers": [c("2"), side], "containers": [c("1")]}),
                2000,
            ),
            (
                serde_json::json!({"containers": [c("1")], "resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "100m"}}),
                3100,
            ),
        ];
        for (value, cpu) in cases {
            assert_eq!(
                spec(value.clone()).requests().get("cpu"),
                Some(&cpu),
                "{value}"
            );
        }
    }

    #[test]
    fn decodes_what_the_api_writes() {
        let pod: PodObject = serde_json::from_str(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","managedFields":[{"manager":"x"}],"generation":3},
            "spec":{"nodeName":"n","containers":[{"name":"c","image":"i","imagePullPolicy":"Always","resources":{},
              "readinessProbe":{"httpGet":{"path":"/","port":80},"periodSeconds":5}}],"initContainers":null},
            "status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#,
        )
        .unwrap();
        assert_eq!(pod.metadata.managed_fields, None);
        let probe = pod.spec.containers[0].readiness_probe.as_ref().unwrap();
        assert_eq!(
            (
                probe.period_seconds,
                probe.failure_threshold,
                probe.http_get
            ),
            (5, 3, Some(Present))
        );
        assert_eq!(pod.spec.restart_policy, RestartPolicy::Always);
        assert_eq!(pod.status.conditions[0].type_, "PodScheduled");
    }
}
