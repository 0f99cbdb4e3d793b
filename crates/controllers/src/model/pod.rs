//! A pod as controllers see it.

use std::net::IpAddr;
use std::sync::Arc;

use gantry_machinery::quota::quantity;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::device::{ExtendedClaim, MadeClaim, PodClaim, with_names};
use super::meta::nullable;
use super::{Kind, Meta, PODS, Watched};

/// Weighs a pod against its siblings when a ReplicaSet shrinks.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The finalizer of a pod that its Job has not counted yet.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Which index of an indexed Job the pod works on.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How many pods failed before it for the same index, where the Job has a limit per index: those
/// that count towards the limit, and those that do not.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The annotations that are kept of a pod, which may have large ones.
const READ_ANNOTATIONS: [&str; 4] = [
    DELETION_COST,
    COMPLETION_INDEX,
    INDEX_FAILURES,
    INDEX_IGNORED_FAILURES,
];

/// `status.phase`; `None` is a pod whose status nobody has written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Deserialize)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
    #[default]
    #[serde(other)]
    None,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct Pod {
    pub meta: Meta,
    pub phase: Phase,
    /// The Ready condition is True.
    pub ready: bool,
    /// When the Ready condition last changed.
    pub ready_since: Option<Timestamp>,
    /// The Ready condition is there at all.
    pub has_ready: bool,
    pub node: Option<Arc<str>>,
    /// The one node that its affinity lets it stand on by name, as a DaemonSet's pods have it.
    pub target: Option<Arc<str>>,
    pub ips: Vec<IpAddr>,
    pub hostname: Box<str>,
    pub subdomain: Box<str>,
    pub host_network: bool,
    /// The most restarts that one of its containers has had.
    pub restarts: i32,
    /// The same of its restartable init containers.
    pub restarts_sidecars: i32,
    /// Container ports that have a name, by which a Service may target them.
    pub named_ports: Box<[NamedPort]>,
    /// Claims it mounts, those of its ephemeral volumes too: volume name and claim name.
    pub claims: Box<[(Box<str>, Box<str>)]>,
    /// Its generic ephemeral volumes: volume name and the template of the claim.
    pub ephemeral: Box<[(Box<str>, Value)]>,
    /// Its claims to devices, and last the one that serves its extended resources.
    pub device_claims: Box<[PodClaim]>,
    pub tolerations: Box<[Toleration]>,
    /// `status.reason`, such as `Evicted` or `NodeLost`.
    pub reason: Box<str>,
    /// Since when the pod is about to be terminated by a disruption, by its condition DisruptionTarget;
    /// not where the kubelet says so, which does it itself.
    pub disrupted: Option<Timestamp>,
    /// There as long as the pod bears the finalizer [`TRACKING`].
    pub tracked: Option<Box<Tracked>>,
    /// When the node took it on.
    pub started: Option<Timestamp>,
    /// The Ready condition is False (and not Unknown).
    pub unready: bool,
    /// What its containers that stay ask for, by name.
    pub requests: Box<[(Box<str>, Request)]>,
    /// What it asks for as a whole, where its `spec.resources` says so.
    pub whole: Option<Box<Request>>,
}

/// What its Job wants to know of a pod that it has not counted yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tracked {
    /// Containers that have ended, and the codes they ended with; init containers come last.
    pub exits: Box<[(Box<str>, i32)]>,
    /// Type and status of its conditions, once it has failed or is told to go.
    pub conditions: Box<[(Box<str>, Box<str>)]>,
    /// When it ended, or was told to.
    pub finished: Option<Timestamp>,
    /// Restarts of all containers, those of init containers too.
    pub restarts: i32,
}

/// Thousandths of what a container asks for; `None` where it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    pub cpu: Option<i64>,
    pub memory: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedPort {
    #[serde(default)]
    pub name: Box<str>,
    pub container_port: i32,
    #[serde(default = "tcp")]
    pub protocol: Box<str>,
}

fn tcp() -> Box<str> {
    "TCP".into()
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    #[serde(deserialize_with = "nullable")]
    pub key: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub operator: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub value: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub effect: Box<str>,
    pub toleration_seconds: Option<i64>,
}

impl Toleration {
    /// Whether it lets a pod stand on a node with this taint (the rule of the core API's
    /// `Toleration.ToleratesTaint`).
    pub fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        (self.effect.is_empty() || &*self.effect == effect)
            && (self.key.is_empty() || &*self.key == key)
            && match &*self.operator {
                "Exists" => true,
                "" | "Equal" => &*self.value == value && !self.key.is_empty(),
                _ => false,
            }
    }
}

impl Pod {
    pub fn terminating(&self) -> bool {
        self.meta.deleted.is_some()
    }

    pub fn finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Neither finished nor being deleted.
    pub fn active(&self) -> bool {
        !self.finished() && !self.terminating()
    }

    /// Ready for at least `min_ready_seconds`.
    pub fn available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.ready
            && (min_ready_seconds <= 0
                || self.ready_since.is_some_and(|since| {
                    now.as_second() - since.as_second() >= i64::from(min_ready_seconds)
                }))
    }
}

impl Watched for Pod {
    const KIND: Kind = PODS;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn index(&self, put: &mut dyn FnMut(Arc<str>)) {
        match self.meta.controller() {
            Some(owner) => put(owner.uid.clone()),
            None => put(super::orphan_index(&self.meta.namespace)),
        }
        if let Some(node) = &self.node {
            put(node_index(node));
        }
        for claim in self.device_claims.iter().filter_map(PodClaim::used) {
            put(device_claim_index(&self.meta.namespace, claim));
        }
        for (_, claim) in &self.claims {
            put(claim_index(&self.meta.namespace, claim));
        }
    }
}

/// Index value of the pods that mount a claim.
pub fn claim_index(namespace: &str, claim: &str) -> Arc<str> {
    format!("//claims/{namespace}/{claim}").into()
}

/// Index value of the pods that use a claim to devices.
pub fn device_claim_index(namespace: &str, claim: &str) -> Arc<str> {
    format!("//device-claims/{namespace}/{claim}").into()
}

/// Index value of the pods bound to a node.
pub fn node_index(node: &str) -> Arc<str> {
    format!("//{node}").into()
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default)]
    spec: WireSpec,
    #[serde(default)]
    status: WireStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    node_name: Option<Arc<str>>,
    #[serde(deserialize_with = "nullable")]
    hostname: Box<str>,
    #[serde(deserialize_with = "nullable")]
    subdomain: Box<str>,
    #[serde(deserialize_with = "nullable")]
    host_network: bool,
    #[serde(deserialize_with = "nullable")]
    containers: Vec<WireContainer>,
    #[serde(deserialize_with = "nullable")]
    init_containers: Vec<WireContainer>,
    #[serde(deserialize_with = "nullable")]
    volumes: Vec<WireVolume>,
    #[serde(deserialize_with = "nullable")]
    tolerations: Vec<Toleration>,
    affinity: Option<WireAffinity>,
    #[serde(deserialize_with = "nullable")]
    resource_claims: Vec<PodClaim>,
    #[serde(deserialize_with = "nullable")]
    resources: WireResources,
    #[serde(deserialize_with = "nullable")]
    overhead: WireRequests,
}

impl WireSpec {
    /// What the pod asks for as a whole: what it says itself, the rest as its containers need it.
    fn whole(&self) -> Option<Box<Request>> {
        let own = self.resources.requests.request();
        if own.cpu.is_none() && own.memory.is_none() {
            return None;
        }
        let overhead = self.overhead.request();
        let one = |of: fn(&Request) -> Option<i64>| {
            let amount = of(&own).or_else(|| self.needed(of))?;
            Some(amount.saturating_add(of(&overhead).unwrap_or(0)))
        };
        Some(Box::new(Request {
            cpu: one(|r| r.cpu),
            memory: one(|r| r.memory),
        }))
    }

    /// What the containers need at the most at a time; none where none of them says.
    fn needed(&self, of: fn(&Request) -> Option<i64>) -> Option<i64> {
        let (mut sidecars, mut starting, mut told) = (0_i64, 0_i64, false);
        for container in &self.init_containers {
            let Some(amount) = of(&container.resources.requests.request()) else {
                continue;
            };
            told = true;
            starting = starting.max(sidecars.saturating_add(amount));
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars = sidecars.saturating_add(amount);
            }
        }
        let mut lasting = sidecars;
        for container in &self.containers {
            if let Some(amount) = of(&container.resources.requests.request()) {
                told = true;
                lasting = lasting.saturating_add(amount);
            }
        }
        told.then_some(lasting.max(starting))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireAffinity {
    node_affinity: Option<WireNodeAffinity>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireNodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<WireTerms>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireTerms {
    #[serde(deserialize_with = "nullable")]
    node_selector_terms: Vec<WireTerm>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireTerm {
    #[serde(deserialize_with = "nullable")]
    match_fields: Vec<WireField>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireField {
    key: Box<str>,
    operator: Box<str>,
    #[serde(deserialize_with = "nullable")]
    values: Vec<Arc<str>>,
}

impl WireAffinity {
    /// The node that the first term names, and no other.
    fn target(self) -> Option<Arc<str>> {
        let terms = self
            .node_affinity?
            .required_during_scheduling_ignored_during_execution?;
        let fields = terms.node_selector_terms.into_iter().next()?.match_fields;
        let named = |f: &WireField| &*f.key == "metadata.name" && &*f.operator == "In";
        let field = fields.into_iter().find(named)?;
        field.values.into_iter().next()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireContainer {
    name: Box<str>,
    #[serde(deserialize_with = "nullable")]
    resources: WireResources,
    #[serde(deserialize_with = "nullable")]
    ports: Vec<NamedPort>,
    restart_policy: Option<Box<str>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireResources {
    #[serde(deserialize_with = "nullable")]
    requests: WireRequests,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireRequests {
    cpu: Option<Value>,
    memory: Option<Value>,
}

impl WireRequests {
    fn request(&self) -> Request {
        let milli = |v: &Option<Value>| Some(quantity(v.as_ref()?)?.milli());
        Request {
            cpu: milli(&self.cpu),
            memory: milli(&self.memory),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireVolume {
    name: Box<str>,
    persistent_volume_claim: Option<WireClaim>,
    ephemeral: Option<WireEphemeral>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireEphemeral {
    volume_claim_template: Option<Value>,
}

impl WireVolume {
    /// The claim that it mounts. That of a generic ephemeral volume is named after pod and volume.
    fn claim(&self, pod: &str) -> Option<Box<str>> {
        match (&self.persistent_volume_claim, &self.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{pod}-{}", self.name).into()),
            (None, None) => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireClaim {
    claim_name: Box<str>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    start_time: Option<Timestamp>,
    #[serde(deserialize_with = "nullable")]
    phase: Phase,
    #[serde(deserialize_with = "nullable")]
    conditions: Vec<WireCondition>,
    #[serde(rename = "podIP")]
    pod_ip: Option<Box<str>>,
    #[serde(rename = "podIPs", deserialize_with = "nullable")]
    pod_ips: Vec<WireIp>,
    #[serde(deserialize_with = "nullable")]
    container_statuses: Vec<WireContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    init_container_statuses: Vec<WireContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    reason: Box<str>,
    #[serde(deserialize_with = "nullable")]
    resource_claim_statuses: Vec<MadeClaim>,
    extended_resource_claim_status: Option<ExtendedClaim>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireIp {
    ip: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCondition {
    #[serde(rename = "type", default)]
    kind: Box<str>,
    #[serde(default)]
    status: Box<str>,
    #[serde(default, deserialize_with = "nullable")]
    reason: Box<str>,
    last_transition_time: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireContainerStatus {
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    restart_count: i32,
    #[serde(default, deserialize_with = "nullable")]
    state: WireState,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireState {
    terminated: Option<WireTerminated>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTerminated {
    #[serde(default)]
    exit_code: i32,
    finished_at: Option<Timestamp>,
}

impl Tracked {
    fn of(meta: &Meta, spec: &WireSpec, status: &WireStatus) -> Self {
        let (main, init) = (&status.container_statuses, &status.init_container_statuses);
        let sidecar = |name: &str| {
            spec.init_containers
                .iter()
                .any(|c| &*c.name == name && c.restart_policy.as_deref() == Some("Always"))
        };
        // Sidecars end after the main containers. One that has not ended leaves the time open.
        let lasting = init.iter().filter(|c| sidecar(&c.name)).chain(main);
        let ends: Option<Vec<Timestamp>> = lasting
            .map(|c| c.state.terminated.as_ref()?.finished_at)
            .collect();
        let unready = || {
            let ready = status.conditions.iter().find(|c| &*c.kind == "Ready")?;
            ready
                .last_transition_time
                .filter(|_| &*ready.status == "False")
        };
        let told_to_go = || {
            let grace = meta.grace_seconds.unwrap_or(0);
            Timestamp::from_second(meta.deleted?.as_second().saturating_sub(grace)).ok()
        };
        let ended = |c: &WireContainerStatus| {
            let code = c.state.terminated.as_ref()?.exit_code;
            Some((c.name.clone(), code))
        };
        Tracked {
            exits: main.iter().chain(init).filter_map(ended).collect(),
            conditions: status
                .conditions
                .iter()
                .filter(|_| status.phase == Phase::Failed || meta.deleted.is_some())
                .map(|c| (c.kind.clone(), c.status.clone()))
                .collect(),
            finished: ends
                .and_then(|ends| ends.into_iter().max())
                .or_else(unready)
                .or_else(told_to_go),
            restarts: main.iter().chain(init).map(|c| c.restart_count).sum(),
        }
    }
}

impl From<Wire> for Pod {
    fn from(wire: Wire) -> Self {
        let Wire {
            metadata: mut meta,
            spec,
            status,
        } = wire;
        meta.annotations = READ_ANNOTATIONS
            .iter()
            .filter_map(|name| Some((*name, meta.annotations.get(name)?)))
            .collect();
        let tracked = meta
            .has_finalizer(TRACKING)
            .then(|| Box::new(Tracked::of(&meta, &spec, &status)));
        let condition = |kind: &str| status.conditions.iter().find(|c| &*c.kind == kind);
        let ready = condition("Ready");
        let mut ips: Vec<IpAddr> = status
            .pod_ips
            .iter()
            .filter_map(|ip| ip.ip.parse().ok())
            .collect();
        if ips.is_empty() {
            ips.extend(
                status
                    .pod_ip
                    .as_deref()
                    .and_then(|ip| ip.parse::<IpAddr>().ok()),
            );
        }
        let whole = spec.whole();
        let sidecars: Vec<WireContainer> = spec
            .init_containers
            .into_iter()
            .filter(|c| c.restart_policy.as_deref() == Some("Always"))
            .collect();
        let is_sidecar =
            |c: &&WireContainerStatus| sidecars.iter().any(|sidecar| sidecar.name == c.name);
        let most = |restarts: &mut dyn Iterator<Item = i32>| restarts.max().unwrap_or(0);
        let restarts = most(&mut status.container_statuses.iter().map(|c| c.restart_count));
        let restarts_sidecars = most(
            &mut status
                .init_container_statuses
                .iter()
                .filter(is_sidecar)
                .map(|c| c.restart_count),
        );
        let staying: Vec<WireContainer> = spec.containers.into_iter().chain(sidecars).collect();
        Pod {
            phase: status.phase,
            ready: ready.is_some_and(|c| &*c.status == "True"),
            ready_since: ready.and_then(|c| c.last_transition_time),
            has_ready: ready.is_some(),
            node: spec.node_name.filter(|n| !n.is_empty()),
            target: spec.affinity.and_then(WireAffinity::target),
            ips,
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            host_network: spec.host_network,
            restarts,
            restarts_sidecars,
            requests: staying
                .iter()
                .map(|c| (c.name.clone(), c.resources.requests.request()))
                .collect(),
            whole,
            started: status.start_time,
            unready: ready.is_some_and(|c| &*c.status == "False"),
            named_ports: staying
                .into_iter()
                .flat_map(|c| c.ports)
                .filter(|p| !p.name.is_empty())
                .collect(),
            claims: spec
                .volumes
                .iter()
                .filter_map(|v| Some((v.name.clone(), v.claim(&meta.name)?)))
                .collect(),
            ephemeral: spec
                .volumes
                .into_iter()
                .filter_map(|v| Some((v.name, v.ephemeral?.volume_claim_template?)))
                .collect(),
            device_claims: with_names(
                spec.resource_claims,
                status.resource_claim_statuses,
                status.extended_resource_claim_status,
            ),
            tolerations: spec.tolerations.into(),
            disrupted: condition("DisruptionTarget")
                .filter(|c| &*c.status == "True" && &*c.reason != "TerminationByKubelet")
                .map(|c| c.last_transition_time.unwrap_or(Timestamp::MIN)),
            reason: status.reason,
            tracked,
            meta,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_decodes_to_what_rules_read() {
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "annotations": {"big": "x", DELETION_COST: "7"}},
            "spec": {"nodeName": "node-1", "initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}],
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}, {"name": "http", "containerPort": 8080}]}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-a"}}, {"name": "x", "emptyDir": {}}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "initContainerStatuses": [{"name": "side", "restartCount": 4}, {"name": "init", "restartCount": 9}],
                "containerStatuses": [{"restartCount": 2}, {"restartCount": 3}]},
        }))
        .unwrap();
        assert!(pod.ready && pod.has_ready && pod.active());
        assert_eq!((pod.restarts, pod.restarts_sidecars), (3, 4));
        assert_eq!(pod.named_ports.len(), 1);
        assert_eq!(pod.meta.annotations.len(), 1);
        assert_eq!(&*pod.claims[0].1, "data-a");
        let now: Timestamp = "2026-01-01T00:00:09Z".parse().unwrap();
        assert!(pod.available(9, now) && !pod.available(10, now));
    }

    #[test]
    fn what_a_pod_asks_for_as_a_whole() {
        let whole = |resources: Value| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
                "resources": resources, "overhead": {"cpu": "10m"},
                "initContainers": [
                    {"name": "i", "resources": {"requests": {"memory": "6"}}},
                    {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"memory": "1"}}}],
                "containers": [{"name": "c", "resources": {"requests": {"memory": "3"}}}]}}))
            .unwrap();
            pod.whole.map(|w| (w.cpu, w.memory))
        };
        assert_eq!(whole(json!(null)), None);
        assert_eq!(
            whole(json!({"requests": {"cpu": "1"}})),
            Some((Some(1010), Some(6000)))
        );
        assert_eq!(
            whole(json!({"requests": {"memory": "9"}})),
            Some((None, Some(9000)))
        );
    }

    #[test]
    fn an_unknown_phase_is_no_phase() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {}, "status": {"phase": "Dreaming"}}))
                .unwrap();
        assert_eq!(pod.phase, Phase::None);
    }
}
