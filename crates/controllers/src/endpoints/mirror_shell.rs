//! The shell of the controller that mirrors Endpoints into EndpointSlices.

use std::sync::Arc;
use std::time::Duration;

use kube::api::Patch;
use tokio::task::JoinSet;

use super::mirror::{self, MANAGER};
use crate::model::network::{EndpointSlice, MANAGED_BY, SERVICE_NAME, service_index};
use crate::model::{ENDPOINT_SLICES, ENDPOINTS, Key};
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

/// Changes that come within this time are written together.
const BATCH: Duration = Duration::from_millis(50);

const NAME: &str = "endpointslice-mirroring-controller";

struct Mirroring {
    context: Context,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let informers = &context.informers;
    {
        let queue = queue.clone();
        informers.endpoints.on_change(move |old, new| {
            if let Some(endpoints) = new.or(old) {
                queue.add_after(endpoints.metadata.key(), BATCH);
            }
        });
    }
    {
        let queue = queue.clone();
        informers.services.on_change(move |old, new| {
            if let Some(service) = new.or(old) {
                queue.add_after(service.metadata.key(), BATCH);
            }
        });
    }
    {
        let queue = queue.clone();
        informers.slices.on_change(move |old, new| {
            for slice in [old, new].into_iter().flatten() {
                let labels = &slice.metadata.labels;
                if labels.get(MANAGED_BY) == Some(MANAGER)
                    && let Some(service) = labels.get(SERVICE_NAME)
                {
                    queue.add_after(Key::new(&slice.metadata.namespace, service), BATCH);
                }
            }
        });
    }
    let controller = Arc::new(Mirroring {
        context: context.clone(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Mirroring {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let api = &self.context.api;
        let cache = &informers.slices;
        // Only of a Service that has no selector: the endpoints of others are known otherwise.
        let service = informers
            .services
            .get(key)
            .filter(|s| s.spec.selector.as_ref().is_none_or(|s| s.is_empty()))
            .filter(|s| s.metadata.deleted.is_none());
        let endpoints = informers
            .endpoints
            .get(key)
            .filter(|e| service.is_some() && mirror::wanted(e));
        let slices: Vec<Arc<EndpointSlice>> = cache
            .indexed(&service_index(&key.namespace, &key.name))
            .into_iter()
            .filter(|s| s.metadata.labels.get(MANAGED_BY) == Some(MANAGER))
            .collect();
        let plan = mirror::plan(endpoints.as_deref(), &slices);
        if let Some(endpoints) = &endpoints {
            for (reason, message) in plan.told {
                let about = &endpoints.metadata;
                let recorder = &self.context.recorder;
                recorder.warning(NAME, &ENDPOINTS, about, reason, message);
            }
        }
        for object in plan.create {
            let created = api
                .create(&ENDPOINT_SLICES, &key.namespace, &object)
                .await?;
            cache.apply(created);
        }
        for (slice, fields) in plan.update {
            let slice = slice.metadata.key();
            let patch = Patch::Merge(fields);
            match api.patch(&ENDPOINT_SLICES, &slice, None, &patch).await {
                Ok(updated) => cache.apply(updated),
                Err(error) if error.not_found() => cache.remove(&slice),
                Err(error) => return Err(error),
            }
        }
        for slice in plan.delete {
            let key = slice.metadata.key();
            let deletion = Deletion::of(&slice.metadata.uid);
            api.delete(&ENDPOINT_SLICES, &key, deletion).await?;
            cache.remove(&key);
        }
        Ok(Outcome::Done)
    }
}
