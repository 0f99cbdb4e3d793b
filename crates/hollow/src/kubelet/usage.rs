//! What simulated containers use: a share of what they ask for that follows from who they are and
//! changes a little by the minute, or what the pod's annotations say.

use crate::{
    behaviour::{ANNOTATION_PREFIX, Draw},
    object::parse_quantity,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use std::ops::AddAssign;

/// Of a container that asks for nothing: a tenth of a CPU, and 64 Mi.
const USUAL: (i64, i64) = (100, 64 << 20);
/// Of a node beside its pods.
pub const NODE: Usage = Usage {
    nanos: 150_000_000,
    bytes: 600 << 20,
};

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
}

/// The running containers of a pod.
pub fn of_pod(pod: &Pod, now: Timestamp) -> Vec<Used<'_>> {
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
    spec.containers
        .iter()
        .chain(inits)
        .filter_map(|container| {
            let its = statuses().find(|it| it.name == container.name)?;
            let since = its.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0;
            Some(Used {
                name: &container.name,
                since,
                usage: of_container(pod, container, now),
            })
        })
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "made-up amounts, far below 2^53"
)]
fn of_container(pod: &Pod, container: &Container, now: Timestamp) -> Usage {
    let annotations = pod.metadata.annotations.as_ref();
    let told = |what: &str| {
        annotations?
            .get(&format!("{ANNOTATION_PREFIX}{what}"))
            .and_then(|text| parse_quantity(what, text))
    };
    let requests = container
        .resources
        .as_ref()
        .and_then(|it| it.requests.as_ref());
    let asked = |what: &str| {
        requests?
            .get(what)
            .and_then(|Quantity(text)| parse_quantity(what, text))
    };
    let who = Draw::new(0)
        .word(pod.metadata.uid.as_deref().unwrap_or_default())
        .word(&container.name);
    let minute = u64::try_from(now.as_second() / 60).unwrap_or(0);
    let share = |what: &str| {
        let wave = who.word(what).number(minute).unit();
        (0.3 + 0.4 * who.word(what).unit()) * (0.9 + 0.2 * wave)
    };
    let amount = |what: &str, usual: i64| match told(what) {
        Some(told) => told,
        None => (asked(what).unwrap_or(usual) as f64 * share(what)) as i64,
    };
    Usage {
        nanos: amount("cpu", USUAL.0).saturating_mul(1_000_000),
        bytes: amount("memory", USUAL.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_is_a_share_of_the_request_or_as_told() {
        let pod = |annotations| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "a", "uid": "u", "annotations": annotations},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}, {"name": "off"}]},
                "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
                    "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]},
            }))
            .unwrap()
        };
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let free = pod(json!({}));
        let used = of_pod(&free, now);
        assert_eq!(used.len(), 1, "only what runs uses anything");
        assert!(
            (270_000_000..770_000_000).contains(&used[0].usage.nanos),
            "{:?}",
            used[0].usage
        );
        assert_eq!(of_pod(&free, now)[0].usage, used[0].usage);
        let told = pod(json!({"hollow.gantry.dev/cpu": "250m", "hollow.gantry.dev/memory": "1Gi"}));
        assert_eq!(
            of_pod(&told, now)[0].usage,
            Usage {
                nanos: 250_000_000,
                bytes: 1 << 30
            }
        );
    }
}
