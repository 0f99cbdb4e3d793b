//! The shell of the Endpoints controller.

use std::sync::Arc;
use std::time::Duration;

use kube::api::Patch;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::task::JoinSet;

use super::plan::{self, Action, MANAGED_BY, MANAGER};
use crate::endpointslice::plan::matters;
use crate::model::network::Endpoints;
use crate::model::{ENDPOINTS, Key};
use crate::runtime::api::Deletion;
use crate::runtime::membership::Membership;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};
use crate::selector::Selector;

/// Pod changes that come within this time are written together: every write is the whole object,
/// and who wants news soon reads EndpointSlices.
const BATCH: Duration = Duration::from_millis(200);

struct Legacy {
    context: Context,
    membership: Arc<Membership>,
    /// Services that have gone: their Endpoints go with them, whoever wrote those.
    departed: Arc<Mutex<FxHashSet<Key>>>,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let membership = Arc::new(Membership::default());
    let departed = Arc::<Mutex<FxHashSet<Key>>>::default();
    let informers = &context.informers;
    {
        let (queue, departed) = (queue.clone(), departed.clone());
        informers.services.on_change(move |old, new| {
            let Some(service) = new.or(old) else { return };
            let key = service.metadata.key();
            match new {
                Some(_) => departed.lock().remove(&key),
                None => departed.lock().insert(key.clone()),
            };
            queue.add(key);
        });
    }
    {
        let (queue, membership) = (queue.clone(), membership.clone());
        informers.pods.on_change(move |old, new| {
            let same = matches!((old, new), (Some(o), Some(n)) if !matters(o, n));
            if !same {
                membership.pod_changed(old, new, |service| queue.add_after(service.clone(), BATCH));
            }
        });
    }
    {
        let queue = queue.clone();
        informers.endpoints.on_change(move |old, new| {
            if let Some(endpoints) = new.or(old) {
                queue.add_after(endpoints.metadata.key(), BATCH);
            }
        });
    }
    let controller = Arc::new(Legacy {
        context: context.clone(),
        membership,
        departed,
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Legacy {
    fn name(&self) -> &'static str {
        "endpoints-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let api = &self.context.api;
        let cache = &informers.endpoints;
        let existing = cache.get(key);
        let Some(service) = informers.services.get(key) else {
            self.membership.forget(key);
            // Endpoints have no owner: they go with their Service by this.
            if let Some(endpoints) = existing
                && (self.departed.lock().contains(key)
                    || endpoints.metadata.labels.get(MANAGED_BY) == Some(MANAGER))
            {
                let deletion = Deletion::of(&endpoints.metadata.uid);
                api.delete(&ENDPOINTS, key, deletion).await?;
                cache.remove(key);
            }
            self.departed.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let selector = service
            .spec
            .selector
            .clone()
            .filter(|s| !s.is_empty() && service.spec.kind != "ExternalName");
        let (Some(selector), None) = (selector, service.metadata.deleted) else {
            self.membership.forget(key);
            return Ok(Outcome::Done);
        };
        self.membership
            .select(key, &Selector::of_labels(selector), || {
                informers.pods.in_namespace(&key.namespace)
            });
        let pods: Vec<_> = self
            .membership
            .members(key)
            .iter()
            .filter_map(|pod| informers.pods.get(pod))
            .collect();
        match plan::plan(&service, &pods, existing.as_deref()) {
            None => {}
            Some(Action::Create(object)) => {
                let created: Endpoints = api.create(&ENDPOINTS, &key.namespace, &object).await?;
                cache.apply(created);
            }
            Some(Action::Update(fields)) => {
                let patch = Patch::Merge(fields);
                match api.patch(&ENDPOINTS, key, None, &patch).await {
                    Ok(updated) => cache.apply(updated),
                    Err(error) if error.not_found() => cache.remove(key),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Outcome::Done)
    }
}
