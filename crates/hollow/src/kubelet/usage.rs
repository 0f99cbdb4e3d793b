//! Usage of pods as the API shows them: what [`Truth`] says of their running containers.

use crate::{
    behaviour::{self, Role, Subject},
    clock::Millis,
    object::parse_quantity,
    truth::{Truth, Uses},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use std::{collections::BTreeMap, ops::AddAssign};

/// Of a node beside its pods.
pub const NODE: Usage = Usage {
    nanos: 150_000_000,
    bytes: 600 << 20,
};

/// Of a node of that much memory beside its pods: a small one has a small kubelet.
#[must_use]
pub fn beside(memory: Option<i64>) -> Usage {
    let most = memory.map_or(NODE.bytes, |it| it / 20);
    Usage {
        bytes: NODE.bytes.min(most),
        ..NODE
    }
}

/// CPU and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Billionths of a CPU.
    pub nanos: i64,
    /// Bytes of memory.
    pub bytes: i64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Usage) {
        self.nanos = self.nanos.saturating_add(more.nanos);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// A running container and what it uses.
pub struct Used<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it started.
    pub since: Timestamp,
    /// What it uses.
    pub usage: Usage,
    /// Seconds of CPU that it has used since its start.
    pub seconds: f64,
    /// Bytes of the node's disk that it uses, where somebody has said so.
    pub disk: Option<i64>,
    /// Bytes a second that it makes of the network, likewise.
    pub network: Option<i64>,
}

/// What a node has used of its CPUs beside its pods, in seconds, since a time.
#[expect(
    clippy::cast_precision_loss,
    reason = "made-up amounts, far below 2^53"
)]
pub fn node_seconds(truth: &Truth, since: Timestamp, now: Timestamp) -> f64 {
    let passed = truth.seconds(now.into()) - truth.seconds(since.into());
    passed.max(0.0) * NODE.nanos as f64 / 1e9
}

/// The running containers of a pod.
pub fn of_pod<'a>(pod: &'a Pod, now: Timestamp, truth: &Truth) -> Vec<Used<'a>> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
        return vec![];
    };
    let inits = spec.init_containers.iter().flatten();
    let statuses = || {
        status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .flatten()
    };
    let nothing = BTreeMap::new();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&nothing);
    let (overrides, _) = behaviour::annotations(annotations);
    let mut all = vec![];
    for container in spec.containers.iter().chain(inits) {
        let its = statuses().find(|it| it.name == container.name);
        let running = its.and_then(|it| it.state.as_ref()?.running.as_ref()?.started_at.as_ref());
        let Some(since) = running.map(|it| it.0) else {
            continue;
        };
        let subject = subject(pod, container, overrides.as_deref());
        let uses = bounds(container, |requests, limits| {
            truth.uses(&subject, requests, limits)
        });
        let disk = disk_bounds(container, |request, limit| {
            truth.disk(&subject, request, limit)
        });
        let disk = disk.map(|(profile, whose)| profile.at(truth.seconds(now.into()), &whose));
        let network = truth.network(&subject);
        let network = network.map(|(profile, whose)| profile.at(truth.seconds(now.into()), &whose));
        all.push(Used {
            disk: disk.map(whole),
            network: network.map(whole),
            ..used(&container.name, &uses, since, now, truth)
        });
    }
    all
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "made-up amounts, far below 2^53"
)]
fn used<'a>(
    name: &'a str,
    uses: &Uses,
    since: Timestamp,
    now: Timestamp,
    truth: &Truth,
) -> Used<'a> {
    let seconds = |at: Timestamp| truth.seconds(Millis::from(at));
    let [cpu, memory] = uses.at(seconds(now));
    Used {
        name,
        since,
        usage: Usage {
            nanos: (cpu * 1e9) as i64,
            bytes: memory as i64,
        },
        seconds: uses.spent(seconds(since), seconds(now)),
        disk: None,
        network: None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "made-up amounts, far below 2^53"
)]
fn whole(bytes: f64) -> i64 {
    bytes as i64
}

#[expect(clippy::cast_precision_loss, reason = "amounts stay far below 2^53")]
fn disk_bounds<T>(container: &Container, with: impl FnOnce(Option<f64>, Option<f64>) -> T) -> T {
    const DISK: &str = "ephemeral-storage";
    let resources = container.resources.as_ref();
    let read = |of: Option<&BTreeMap<String, Quantity>>| {
        let Quantity(text) = of?.get(DISK)?;
        Some(parse_quantity(DISK, text)? as f64)
    };
    with(
        read(resources.and_then(|it| it.requests.as_ref())),
        read(resources.and_then(|it| it.limits.as_ref())),
    )
}

/// A container of a pod, as rules choose among them.
pub fn subject<'a>(
    pod: &'a Pod,
    container: &'a Container,
    overrides: Option<&'a behaviour::Effects>,
) -> Subject<'a> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let meta = &pod.metadata;
    Subject {
        namespace: meta.namespace.as_deref().unwrap_or_default(),
        pod: meta.name.as_deref().unwrap_or_default(),
        labels: meta.labels.as_ref().unwrap_or(&NONE),
        overrides,
        node: pod
            .spec
            .as_ref()
            .and_then(|it| it.node_name.as_deref())
            .unwrap_or_default(),
        container: &container.name,
        image: container.image.as_deref().unwrap_or_default(),
        role: Role::Service,
        attempt: 0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "amounts stay far below 2^53")]
fn bounds<T>(
    container: &Container,
    with: impl FnOnce([Option<f64>; 2], [Option<f64>; 2]) -> T,
) -> T {
    let resources = container.resources.as_ref();
    let read = |of: Option<&BTreeMap<String, Quantity>>| {
        [("cpu", 1000.0), ("memory", 1.0)].map(|(name, unit)| {
            let Quantity(text) = of?.get(name)?;
            Some(parse_quantity(name, text)? as f64 / unit)
        })
    };
    with(
        read(resources.and_then(|it| it.requests.as_ref())),
        read(resources.and_then(|it| it.limits.as_ref())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(annotations: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "uid": "u", "annotations": annotations},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}, {"name": "off"}]},
            "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
                "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn usage_is_a_share_of_the_request_or_as_told() {
        let truth = Truth::default();
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let mut free = pod(&json!({}));
        let before = of_pod(&free, now, &truth)[0].usage;
        assert_eq!(
            of_pod(&free, now, &truth).len(),
            1,
            "only what runs uses anything"
        );
        assert!(
            (270_000_000..770_000_000).contains(&before.nanos),
            "{before:?}"
        );
        free.metadata.uid = Some("another".into());
        assert_eq!(
            of_pod(&free, now, &truth)[0].usage,
            before,
            "who it is, not which one"
        );
        let told =
            pod(&json!({"hollow.gantry.dev/cpu": "250m", "hollow.gantry.dev/memory": "1Gi"}));
        let used = &of_pod(&told, now, &truth)[0];
        assert_eq!(
            (used.disk, used.network),
            (None, None),
            "nobody has said so"
        );
        let wanted = Usage {
            nanos: 250_000_000,
            bytes: 1 << 30,
        };
        assert_eq!(used.usage, wanted);
        assert!(
            (used.seconds - 15.0).abs() < 1e-6,
            "a quarter of a minute: {}",
            used.seconds
        );
    }

    #[test]
    fn disk_and_network_are_told_where_a_rule_says_so() {
        let text = "[{container: c, network: 2M}, {network: {constant: 40%}, disk: 1Gi}]";
        let data = BTreeMap::from([("r".to_owned(), text.to_owned())]);
        let (rules, refused) = behaviour::rules(&data);
        assert_eq!(refused, []);
        let mut truth = Truth::default();
        let behaviours = behaviour::Behaviours {
            rules,
            ..Default::default()
        };
        truth.behaviours = behaviours.into();
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let mut pod = pod(&json!({}));
        let mut other = pod
            .status
            .as_ref()
            .unwrap()
            .container_statuses
            .as_ref()
            .unwrap()[0]
            .clone();
        other.name = "off".into();
        pod.status
            .as_mut()
            .unwrap()
            .container_statuses
            .as_mut()
            .unwrap()
            .push(other);
        let used = of_pod(&pod, now, &truth);
        let told: Vec<_> = used.iter().map(|it| (it.disk, it.network)).collect();
        // A share is of 10 Mbit/s.
        assert_eq!(
            told,
            [
                (Some(1 << 30), Some(2_000_000)),
                (Some(1 << 30), Some(500_000))
            ]
        );
    }

    #[test]
    fn simulated_time_uses_as_much_faster() {
        let truth = Truth {
            scale: 60.0,
            ..Truth::default()
        };
        let told = pod(&json!({"hollow.gantry.dev/cpu": "1"}));
        let now: Timestamp = "2026-01-01T00:00:02Z".parse().unwrap();
        let used = &of_pod(&told, now, &truth)[0];
        assert!((used.seconds - 120.0).abs() < 1e-3, "{}", used.seconds);
    }
}
