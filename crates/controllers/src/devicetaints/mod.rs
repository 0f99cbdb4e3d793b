//! Pods leave devices that are tainted `NoExecute`, unless their claim tolerates it.
//!
//! Behaviour is that of the `device-taint-eviction-controller` of Kubernetes 1.36, without
//! DeviceTaintRules, which are off by default there: taints are those that drivers publish in
//! ResourceSlices.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::model::device::{AllocatedDevice, DeviceClaim, DeviceSlice, DeviceTaint, pool_index};
use crate::model::device::{Consumer, PodClaim};
use crate::model::{Key, PODS, Pod};
use crate::nodelifecycle::disrupt;
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const NAME: &str = "device-taint-eviction-controller";

struct Evictions(Context);

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let informers = &context.informers;
    let added = queue.clone();
    informers.pods.on_change(move |old, new| {
        let Some(pod) = new.filter(|p| p.node.is_some() && !p.device_claims.is_empty()) else {
            return;
        };
        let same = |old: &Arc<Pod>| old.node == pod.node && old.device_claims == pod.device_claims;
        if !old.is_some_and(same) {
            added.add(pod.meta.key());
        }
    });
    let add_pods = {
        let queue = queue.clone();
        move |claim: &DeviceClaim| {
            for consumer in claim.status.reserved_for.iter().filter(|c| c.is_pod()) {
                queue.add(Key::new(&claim.metadata.namespace, &consumer.name));
            }
        }
    };
    let add = add_pods.clone();
    informers.device_claims.on_change(move |_, new| {
        if let Some(claim) = new {
            add(claim);
        }
    });
    let claims = informers.device_claims.clone();
    informers.device_slices.on_change(move |old, new| {
        let tainted = |slice: Option<&Arc<DeviceSlice>>| slice.is_some_and(|s| s.is_tainted());
        if !tainted(old) && !tainted(new) {
            return;
        }
        if let Some(slice) = new.or(old) {
            for claim in claims.indexed(&slice.pool()) {
                add_pods(&claim);
            }
        }
    });
    let controller = Arc::new(Evictions(context.clone()));
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// The taints of a device that drive pods away, as the newest slices of its pool tell them.
fn taints_of<'a>(
    device: &str,
    pool: &'a [Arc<DeviceSlice>],
) -> impl Iterator<Item = &'a DeviceTaint> {
    let newest = pool.iter().map(|s| s.spec.pool.generation).max();
    let found = pool
        .iter()
        .filter(move |s| Some(s.spec.pool.generation) == newest)
        .flat_map(|s| &s.spec.devices)
        .find(|d| *d.name == *device);
    let taints = found.into_iter().flat_map(|d| &d.taints);
    taints.filter(|t| &*t.effect == "NoExecute")
}

/// When pods have to leave a device that they were given; `None`: they may stay.
fn leaves_device(device: &AllocatedDevice, pool: &[Arc<DeviceSlice>]) -> Option<Timestamp> {
    let due = |taint: &DeviceTaint| {
        let since = taint.time_added.unwrap_or(Timestamp::MIN);
        let tolerated: Vec<Option<i64>> = device
            .tolerations
            .iter()
            .filter(|t| {
                &*t.effect == "NoExecute" && t.tolerates(&taint.key, &taint.value, &taint.effect)
            })
            .map(|t| t.toleration_seconds)
            .collect();
        if tolerated.iter().any(Option::is_none) {
            return None;
        }
        let seconds = tolerated.into_iter().flatten().min().unwrap_or(0).max(0);
        let at = since.checked_add(SignedDuration::from_secs(seconds));
        Some(at.unwrap_or(Timestamp::MAX))
    };
    taints_of(&device.device, pool).filter_map(due).min()
}

/// When a pod has to leave a claim that it may use.
fn leaves_claim(
    pod: &Pod,
    claim: &DeviceClaim,
    pool: impl Fn(&str) -> Vec<Arc<DeviceSlice>>,
) -> Option<Timestamp> {
    let mine = |consumer: &Consumer| consumer.is_pod() && consumer.uid == pod.meta.uid;
    if !claim.status.reserved_for.iter().any(mine) {
        return None;
    }
    let devices = &claim.status.allocation.as_ref()?.devices.results;
    let due = |device: &AllocatedDevice| {
        leaves_device(device, &pool(&pool_index(&device.driver, &device.pool)))
    };
    devices.iter().filter_map(due).min()
}

impl Controller for Evictions {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let (api, informers) = (&self.0.api, &self.0.informers);
        let found = informers.pods.get(key);
        let Some(pod) = found.filter(|p| p.node.is_some() && !p.terminating()) else {
            return Ok(Outcome::Done);
        };
        let names = pod.device_claims.iter().filter_map(PodClaim::used);
        let due = names
            .filter_map(|name| informers.device_claims.get(&Key::new(&key.namespace, name)))
            .filter_map(|claim| {
                leaves_claim(&pod, &claim, |pool| informers.device_slices.indexed(pool))
            })
            .min();
        let Some(due) = due else {
            return Ok(Outcome::Done);
        };
        let left = Duration::try_from(due.duration_since(Timestamp::now()));
        if let Some(left) = left.ok().filter(|left| !left.is_zero()) {
            return Ok(Outcome::After(left));
        }
        let (reason, message) = (
            "DeviceTaintManagerEviction",
            "Marking for deletion".to_owned(),
        );
        let recorder = &self.0.recorder;
        recorder.normal(NAME, &PODS, &pod.meta, reason, message);
        let message = "Device Taint manager: deleting due to NoExecute taint";
        disrupt(api, &pod, "DeletionByDeviceTaintManager", message, None).await?;
        match api.delete(&PODS, key, Deletion::of(&pod.meta.uid)).await {
            // Another pod has the name by now.
            Err(error) if !error.conflict() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn slice(generation: i64, taints: Value) -> Arc<DeviceSlice> {
        let devices = json!([{"name": "other", "taints": [{"key": "x", "effect": "NoExecute",
            "timeAdded": "2026-01-01T00:00:00Z"}]}, {"name": "gpu-0", "taints": taints}]);
        let spec = json!({"driver": "d", "pool": {"name": "p", "generation": generation}, "devices": devices});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap())
    }

    fn taint(effect: &str) -> Value {
        json!([{"key": "broken", "value": "yes", "effect": effect, "timeAdded": "2026-01-01T00:00:10Z"}])
    }

    fn tolerates(operator: &str, value: &str, effect: &str, seconds: Option<i64>) -> Value {
        json!({"key": "broken", "operator": operator, "value": value, "effect": effect, "tolerationSeconds": seconds})
    }

    #[rstest]
    #[case::no_taint(json!([]), vec![], None)]
    #[case::tainted(taint("NoExecute"), vec![], Some(10))]
    #[case::only_kept_away(taint("NoSchedule"), vec![], None)]
    #[case::tolerated(taint("NoExecute"), vec![tolerates("Equal", "yes", "NoExecute", None)], None)]
    #[case::whatever_the_value(taint("NoExecute"), vec![tolerates("Exists", "", "NoExecute", None)], None)]
    #[case::another_value(taint("NoExecute"), vec![tolerates("Equal", "no", "NoExecute", None)], Some(10))]
    #[case::another_effect(taint("NoExecute"), vec![tolerates("Exists", "", "NoSchedule", None)], Some(10))]
    #[case::for_a_time(taint("NoExecute"), vec![tolerates("Exists", "", "NoExecute", Some(30))], Some(40))]
    #[case::for_the_shorter_time(taint("NoExecute"),
        vec![tolerates("Exists", "", "NoExecute", Some(30)), tolerates("Equal", "yes", "NoExecute", Some(5))], Some(15))]
    #[case::for_no_time(taint("NoExecute"), vec![tolerates("Exists", "", "NoExecute", Some(-5))], Some(10))]
    fn devices_are_left(
        #[case] taints: Value,
        #[case] tolerations: Vec<Value>,
        #[case] second: Option<i64>,
    ) {
        let pool = [slice(1, json!([])), slice(2, taints)];
        let claim: DeviceClaim = serde_json::from_value(json!({"metadata": {}, "status": {
            "reservedFor": [{"resource": "pods", "name": "p", "uid": "1"}],
            "allocation": {"devices": {"results": [
                {"request": "r", "driver": "d", "pool": "p", "device": "gpu-0", "tolerations": tolerations}]}}}}))
        .unwrap();
        let pod = |uid: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": uid}})).unwrap()
        };
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let find = |name: &str| {
            assert_eq!(name, &*pool_index("d", "p"));
            pool.to_vec()
        };
        let due = leaves_claim(&pod("1"), &claim, find);
        assert_eq!(due.map(|at| at.as_second() - start.as_second()), second);
        assert_eq!(leaves_claim(&pod("2"), &claim, find), None);
    }
}
