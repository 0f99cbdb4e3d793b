//! A pod as a kubelet needs to know it.
//!
//! [`PodSpec`] is what equal pods share: it is hashable, and the shell keeps one copy for all pods of
//! a template.

use super::{
    Amounts,
    container::{ContainerSpec, Port, Present, RESTART_CONTAINER, Resources, SecurityContext},
    or_default, parse_quantity, slim_meta,
    told::PodStatusWire,
};
use crate::program;
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, core::ObjectMeta};
use serde::Deserialize;
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
    /// Its claims to devices.
    #[serde(deserialize_with = "or_default")]
    pub resource_claims: Vec<DeviceClaim>,
    /// Whether some of its volumes are claims'. Follows from its volumes, which are not all kept.
    #[serde(skip)]
    pub claims: bool,
}

/// A claim to devices: one that is there, or one that is made for the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceClaim {
    /// What the pod calls it.
    pub name: Arc<str>,
    /// The claim, if it is there without the pod.
    pub resource_claim_name: Option<Arc<str>>,
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

/// A readiness gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessGate {
    /// Type of the condition.
    pub condition_type: Arc<str>,
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
