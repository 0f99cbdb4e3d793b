//! The shell of the disruption controller.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::Patch;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::plan::{self, World};
use super::scale::Scales;
use crate::model::network::{Budget, BudgetStatus};
use crate::model::{DISRUPTION_BUDGETS, Key, PODS, Pod};
use crate::runtime::membership::Membership;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};
use crate::selector::{Selector, go_selector};

const NAME: &str = "disruption-controller";
/// Pod changes that come within this time are reckoned together.
const BATCH: Duration = Duration::from_millis(20);

struct Budgets {
    context: Context,
    membership: Arc<Membership>,
    scales: Scales,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let membership = Arc::new(Membership::default());
    let informers = &context.informers;
    informers.stateful_sets.want();
    informers.replica_sets.want();
    informers.deployments.want();
    informers.replication_controllers.want();
    {
        let queue = queue.clone();
        informers.budgets.on_change(move |old, new| {
            if let Some(budget) = new.or(old) {
                queue.add(budget.metadata.key());
            }
        });
    }
    {
        let (queue, membership) = (queue.clone(), membership.clone());
        let recorder = context.recorder.clone();
        informers.pods.on_change(move |old, new| {
            let same = matches!((old, new), (Some(o), Some(n)) if o.ready == n.ready
                && o.terminating() == n.terminating()
                && o.meta.labels == n.meta.labels
                && o.meta.owners == n.meta.owners);
            if !same {
                membership.pod_changed(old, new, |budget| queue.add_after(budget.clone(), BATCH));
                if let Some(pod) = new
                    && let Some(message) = many(pod, membership.owners(pod))
                {
                    let reason = "MultiplePodDisruptionBudgets";
                    recorder.warning(NAME, &PODS, &pod.meta, reason, message);
                }
            }
        });
    }
    let controller = Arc::new(Budgets {
        context: context.clone(),
        membership,
        scales: Scales::default(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// What is told of a pod that more than one budget selects: such pods cannot be evicted.
fn many(pod: &Pod, budgets: Vec<Key>) -> Option<String> {
    if budgets.len() < 2 {
        return None;
    }
    let chosen = budgets.into_iter().min()?;
    let (namespace, name) = (&pod.meta.namespace, &pod.meta.name);
    Some(format!(
        "Pod {namespace:?}/{name:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
        chosen.name
    ))
}

impl Controller for Budgets {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let Some(budget) = informers.budgets.get(key) else {
            self.membership.forget(key);
            return Ok(Outcome::Done);
        };
        let pods: Vec<Arc<Pod>> = match &budget.spec.selector {
            // No selector selects nothing; an empty one everything.
            None => {
                self.membership.forget(key);
                Vec::new()
            }
            Some(selector) => {
                self.membership.select(key, selector, || {
                    informers.pods.in_namespace(&key.namespace)
                });
                let members = self.membership.members(key);
                members
                    .iter()
                    .filter_map(|p| informers.pods.get(p))
                    .collect()
            }
        };
        let about = &budget.metadata;
        let recorder = &self.context.recorder;
        if pods.is_empty() {
            let message = "No matching pods found".to_owned();
            recorder.normal(NAME, &DISRUPTION_BUDGETS, about, "NoPods", message);
        }
        let wanted = if plan::needs_scale(&budget.spec) {
            self.scales
                .wanted(&self.context, &pods)
                .await
                .map_err(|error| error.to_string())
        } else {
            Ok(0)
        };
        let plan = plan::plan(&World {
            budget: &budget,
            pods: &pods,
            wanted,
            now: Timestamp::now(),
        });
        if let Some(why) = &plan.failure {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            let reason = "CalculateExpectedPodCountFailed";
            recorder.warning(NAME, &DISRUPTION_BUDGETS, about, reason, message);
        }
        if plan.unmanaged {
            let selector = budget.spec.selector.as_ref().map(Selector::to_json);
            let message = format!(
                "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                go_selector(selector.as_ref())
            );
            recorder.warning(NAME, &DISRUPTION_BUDGETS, about, "UnmanagedPods", message);
        }
        for pod in &plan.not_deleted {
            // That the namespace is named twice is Kubernetes' doing.
            let of = &budget.metadata.namespace;
            let message = format!("Pod was expected by PDB {of}/{of} to be deleted but it wasn't");
            recorder.warning(NAME, &PODS, &pod.meta, "NotDeleted", message);
        }
        self.write_status(&budget, plan.status).await?;
        Ok(plan.after.map_or(Outcome::Done, Outcome::After))
    }
}

impl Budgets {
    async fn write_status(&self, budget: &Budget, status: BudgetStatus) -> Result<(), ApiError> {
        if status == budget.status {
            return Ok(());
        }
        let mut disrupted: Map<String, Value> = status
            .disrupted_pods
            .iter()
            .map(|(name, at)| (name.clone(), json!(at)))
            .collect();
        for name in budget.status.disrupted_pods.keys() {
            disrupted.entry(name.clone()).or_insert(Value::Null);
        }
        let mut fields = json!({
            "observedGeneration": status.observed_generation,
            "disruptionsAllowed": status.disruptions_allowed,
            "currentHealthy": status.current_healthy,
            "desiredHealthy": status.desired_healthy,
            "expectedPods": status.expected_pods,
            "conditions": status.conditions,
        });
        if !disrupted.is_empty() {
            fields["disruptedPods"] = Value::Object(disrupted);
        }
        // The API server counts down on each eviction it grants: what was reckoned from an older
        // state must not undo that.
        let patch = Patch::Merge(json!({
            "metadata": {
                "uid": &*budget.metadata.uid,
                "resourceVersion": budget.metadata.version.to_string(),
            },
            "status": fields,
        }));
        match self
            .context
            .api
            .patch::<Budget>(
                &DISRUPTION_BUDGETS,
                &budget.metadata.key(),
                Some("status"),
                &patch,
            )
            .await
        {
            Ok(written) => {
                self.context.informers.budgets.apply(written);
                Ok(())
            }
            Err(error) if error.not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_of_two_budgets_is_told_of() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "n"}})).unwrap();
        let key = |name| Key::new("n", name);
        assert_eq!(many(&pod, vec![key("x")]), None);
        assert_eq!(
            many(&pod, vec![key("y"), key("x")]).unwrap(),
            "Pod \"n\"/\"a\" matches multiple PodDisruptionBudgets.  Chose \"x\" arbitrarily."
        );
    }
}
