//! ClusterRoles that gather the rules of others by their labels.
//!
//! Behaviour is that of the `clusterrole-aggregation-controller` of Kubernetes.

use std::sync::Arc;

use kube::api::Patch;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::{CLUSTER_ROLES, Key};
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

struct Aggregation {
    context: Context,
}

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let (into, roles) = (queue.clone(), context.informers.clone());
    context.informers.cluster_roles.on_change(move |_, _| {
        // Any role may be gathered by any that gathers; those are few.
        for role in roles.cluster_roles.all() {
            if role.aggregation.is_some() {
                into.add(role.metadata.key());
            }
        }
    });
    let controller = Arc::new(Aggregation {
        context: context.clone(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Aggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let cache = &self.context.informers.cluster_roles;
        let Some(role) = cache.get(key) else {
            return Ok(Outcome::Done);
        };
        let Some(aggregation) = &role.aggregation else {
            return Ok(Outcome::Done);
        };
        let mut all = cache.all();
        all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let mut rules: Vec<Value> = vec![];
        for selector in &aggregation.selectors {
            for other in &all {
                if other.metadata.name == role.metadata.name
                    || !selector.matches(&other.metadata.labels)
                {
                    continue;
                }
                for rule in &other.rules {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        if rules == role.rules {
            return Ok(Outcome::Done);
        }
        let patch = Patch::Merge(json!({"metadata": {"uid": role.metadata.uid}, "rules": rules}));
        self.context
            .api
            .patch::<MetaOnly>(&CLUSTER_ROLES, key, None, &patch)
            .await?;
        Ok(Outcome::Done)
    }
}
