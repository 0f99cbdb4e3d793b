//! The shell of pod garbage collection.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashSet;
use tokio::task::JoinSet;

use super::plan::{self, FINISHED_KEPT, Quarantine, Why, World};
use crate::model::meta::MetaOnly;
use crate::model::{Key, NODES, Pod, Watched};
use crate::nodelifecycle::disrupt;
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, controller};

const PERIOD: Duration = Duration::from_secs(20);

/// Has the caches filled; the collector starts with the returned function.
pub fn start(context: &Context, _workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    context.informers.pods.want();
    context.informers.nodes.want();
    let context = context.clone();
    move |tasks| {
        tasks.spawn(async move {
            let mut quarantine = Quarantine::default();
            loop {
                let pass = async {
                    collect(&context, &mut quarantine).await;
                    tokio::time::sleep(PERIOD).await;
                };
                tokio::select! {
                    () = context.stop.cancelled() => return,
                    () = pass => {}
                }
            }
        });
    }
}

async fn collect(context: &Context, quarantine: &mut Quarantine) {
    let nodes = &context.informers.nodes;
    let pods = context.informers.pods.all();
    let named: FxHashSet<Arc<str>> = pods.iter().filter_map(|p| p.node.clone()).collect();
    let key = |name: &Arc<str>| Key {
        namespace: "".into(),
        name: name.clone(),
    };
    let mut out_of_service = FxHashSet::default();
    let mut missing = FxHashSet::default();
    for name in named {
        match nodes.get(&key(&name)) {
            None => {
                missing.insert(name);
            }
            Some(node) if node.out_of_service() => {
                out_of_service.insert(name);
            }
            Some(_) => {}
        }
    }
    let mut gone = FxHashSet::default();
    for name in quarantine.look(&missing, Timestamp::now()) {
        // The cache may lag: only what the API server says counts.
        match context.api.get::<MetaOnly>(&NODES, &key(&name)).await {
            Ok(None) => {
                gone.insert(name);
            }
            Ok(Some(_)) => {}
            Err(error) => tracing::warn!(
                node = &*name,
                error = &error as &dyn std::error::Error,
                "node not looked up; its pods stay for now"
            ),
        }
    }
    let removed = plan::plan(&World {
        pods: &pods,
        gone: &gone,
        out_of_service: &out_of_service,
        finished_kept: FINISHED_KEPT,
    });
    let remove_one = |n: usize| {
        let one = removed.get(n);
        async move {
            match one {
                Some((pod, why)) => remove(context, pod, *why).await,
                None => Ok(()),
            }
        }
    };
    let (done, error) = controller::together(0..removed.len(), remove_one).await;
    if let Some(error) = error {
        tracing::warn!(
            done,
            of = removed.len(),
            error = &error as &dyn std::error::Error,
            "pods not removed; trying again"
        );
    }
}

async fn remove(context: &Context, pod: &Pod, why: Why) -> Result<(), ApiError> {
    // A pod that has not finished never will: its owner must see it failed, not just gone.
    let fails = (!pod.finished()).then_some("Failed");
    match why {
        Why::Orphaned if fails.is_some() => {
            let message = "PodGC: node no longer exists";
            disrupt(&context.api, pod, "DeletionByPodGC", message, fails).await?;
        }
        Why::OutOfService | Why::Unscheduled if fails.is_some() => {
            crate::nodelifecycle::fail(&context.api, pod).await?;
        }
        _ => {}
    }
    let deletion = Deletion {
        grace: Some(0),
        ..Deletion::of(&pod.meta.uid)
    };
    match context
        .api
        .delete(&Pod::KIND, &pod.meta.key(), deletion)
        .await
    {
        // Another pod has the name by now.
        Err(error) if !error.conflict() => Err(error),
        _ => Ok(()),
    }
}
