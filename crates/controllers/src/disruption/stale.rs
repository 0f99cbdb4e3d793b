//! Pods that were to be disrupted and were not: after a while their condition says so no longer.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::Patch;
use serde_json::json;
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::{Key, PODS, Pod};
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

/// How long a disruption that was announced may take.
const TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

struct Stale(Context);

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let added = queue.clone();
    context.informers.pods.on_change(move |old, new| {
        let since = |pod: Option<&Arc<Pod>>| pod.and_then(|p| p.disrupted);
        if let Some(pod) = new
            && since(old) != pod.disrupted
            && let Some(left) = left(pod, Timestamp::now())
        {
            added.add_after(pod.meta.key(), left);
        }
    });
    let controller = Arc::new(Stale(context.clone()));
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// How long a pod may still be about to be disrupted; `None` where it is not, or goes.
fn left(pod: &Pod, now: Timestamp) -> Option<Duration> {
    if pod.terminating() || pod.finished() {
        return None;
    }
    let until = pod.disrupted?.saturating_add(TIMEOUT).ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
}

impl Controller for Stale {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(pod) = self.0.informers.pods.get(key) else {
            return Ok(Outcome::Done);
        };
        match left(&pod, Timestamp::now()) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) => {}
        }
        let meta = &pod.meta;
        let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": &*meta.uid, "resourceVersion": meta.version.to_string()},
            "status": {"conditions": [{"type": "DisruptionTarget", "status": "False", "lastTransitionTime": at,
                "observedGeneration": meta.generation, "reason": null, "message": null}]},
        }));
        let written = self
            .0
            .api
            .patch::<MetaOnly>(&PODS, key, Some("status"), &patch);
        match written.await {
            Err(error) if !error.not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::Value;

    #[rstest]
    #[case::announced(json!({}), json!({"status": "True", "reason": "EvictionByEvictionAPI"}), Some(110))]
    #[case::not_any_more(json!({}), json!({"status": "False"}), None)]
    #[case::by_the_kubelet(json!({}), json!({"status": "True", "reason": "TerminationByKubelet"}), None)]
    #[case::goes(json!({"deletionTimestamp": "2026-01-01T00:00:05Z"}), json!({"status": "True"}), None)]
    #[case::long_ago(json!({}), json!({"status": "True", "lastTransitionTime": "2025-12-31T00:00:00Z"}), Some(0))]
    fn waits(#[case] meta: Value, #[case] condition: Value, #[case] seconds: Option<u64>) {
        let mut told =
            json!({"type": "DisruptionTarget", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        for (field, value) in condition.as_object().unwrap() {
            told[field] = value.clone();
        }
        let pod = |phase: &str| -> Pod {
            serde_json::from_value(
                json!({"metadata": meta, "status": {"phase": phase, "conditions": [told]}}),
            )
            .unwrap()
        };
        let now = "2026-01-01T00:00:10Z".parse().unwrap();
        assert_eq!(left(&pod("Running"), now), seconds.map(Duration::from_secs));
        assert_eq!(left(&pod("Failed"), now), None);
    }
}
