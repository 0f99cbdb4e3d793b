//! Status of PodDisruptionBudgets, by which the API server grants evictions.
//!
//! Behaviour is that of `pkg/controller/disruption` of Kubernetes 1.36. It also takes back what the condition DisruptionTarget says of pods that were to be disrupted and were not.

pub mod plan;
mod scale;
mod shell;
mod stale;

use tokio::task::JoinSet;

use crate::runtime::Context;

/// Registers the handlers of both halves; their workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let budgets = shell::start(context, workers);
    let stale = stale::start(context, workers);
    move |tasks| {
        budgets(tasks);
        stale(tasks);
    }
}
