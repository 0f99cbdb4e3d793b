//! How long a node's kubelet may use what it has read of Secrets and ConfigMaps: an annotation on
//! each node, the longer the more nodes there are.
//!
//! Behaviour is that of the `ttl-controller` of Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::{Key, NODES};
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// Nodes from, nodes up to, and the seconds. The steps overlap, so that a node more or less does not
/// change all of them back and forth.
const STEPS: [(usize, usize, u32); 6] = [
    (0, 100, 0),
    (90, 500, 15),
    (450, 1000, 30),
    (900, 2000, 60),
    (1800, 10_000, 300),
    (9000, usize::MAX, 600),
];
/// How long after a step all nodes are looked at: while many come, there are many steps.
const AFTER_A_STEP: Duration = Duration::from_secs(1);

/// How many nodes there are, and the step that belongs to it.
#[derive(Debug, Default)]
struct Level {
    nodes: usize,
    step: usize,
}

impl Level {
    fn seconds(&self) -> u32 {
        STEPS.get(self.step).map_or(0, |s| s.2)
    }

    /// Takes in a node more; true if that changes the seconds.
    fn came(&mut self) -> bool {
        self.nodes += 1;
        let over = STEPS.get(self.step).is_some_and(|s| self.nodes > s.1);
        self.step += usize::from(over);
        over
    }

    fn went(&mut self) -> bool {
        self.nodes = self.nodes.saturating_sub(1);
        let under = STEPS.get(self.step).is_some_and(|s| self.nodes < s.0);
        self.step -= usize::from(under);
        under
    }
}

struct Ttl {
    context: Context,
    level: Arc<Mutex<Level>>,
}

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let level: Arc<Mutex<Level>> = Arc::default();
    {
        let (queue, level) = (queue.clone(), level.clone());
        let nodes = context.informers.nodes.clone();
        context.informers.nodes.on_change(move |old, new| {
            let stepped = match (old, new) {
                (None, Some(_)) => level.lock().came(),
                (Some(_), None) => level.lock().went(),
                _ => false,
            };
            if let Some(node) = new {
                queue.add(node.metadata.key());
            }
            if stepped {
                for node in nodes.all() {
                    queue.add_after(node.metadata.key(), AFTER_A_STEP);
                }
            }
        });
    }
    let controller = Arc::new(Ttl {
        context: context.clone(),
        level,
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Ttl {
    fn name(&self) -> &'static str {
        "ttl-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(node) = self.context.informers.nodes.get(key) else {
            return Ok(Outcome::Done);
        };
        let seconds = self.level.lock().seconds();
        let told = node.metadata.annotations.get(ANNOTATION);
        if told.and_then(|t| t.parse().ok()) == Some(seconds) {
            return Ok(Outcome::Done);
        }
        let patch = Patch::Merge(json!({"metadata": {
            "uid": &*node.metadata.uid,
            "annotations": {ANNOTATION: seconds.to_string()},
        }}));
        let written = self
            .context
            .api
            .patch::<MetaOnly>(&NODES, key, None, &patch);
        match written.await {
            Err(error) if !error.not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_grows_with_the_nodes_and_does_not_waver() {
        let mut level = Level::default();
        let mut to = |nodes: usize| {
            while level.nodes < nodes {
                level.came();
            }
            while level.nodes > nodes {
                level.went();
            }
            level.seconds()
        };
        let path = [
            100, 101, 90, 89, 500, 501, 450, 449, 1001, 2001, 10_001, 9000, 8999,
        ];
        let seconds = path.map(&mut to);
        assert_eq!(
            seconds,
            [0, 15, 15, 0, 15, 30, 30, 15, 60, 300, 600, 600, 300]
        );
    }
}
