//! The shell of the Endpoints controller.

use std::sync::Arc;
use std::time::Duration;

use kube::api::Patch;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::task::JoinSet;

use super::plan::{self, Action, MANAGED_BY, MANAGER};
use super::selected::Selected;
use crate::model::{ENDPOINTS, Key, Meta};
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

/// Pod changes that come within this time are written together: every write is the whole object,
/// and who wants news soon reads EndpointSlices.
const BATCH: Duration = Duration::from_millis(200);

/// Of the events.
const COMPONENT: &str = "endpoint-controller";

struct Legacy {
    context: Context,
    selected: Arc<Selected>,
    /// Services that have gone: their Endpoints go with them, whoever wrote those.
    departed: Arc<Mutex<FxHashSet<Key>>>,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
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
    let selected = Selected::follow(context, &queue, BATCH);
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
        selected,
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
        let service = informers.services.get(key);
        let pods = self.selected.pods(&self.context, key, service.as_deref());
        let Some(service) = service else {
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
        let Some(pods) = pods else {
            return Ok(Outcome::Done);
        };
        let (written, meta, reason, what) = match plan::plan(&service, &pods, existing.as_deref()) {
            None => return Ok(Outcome::Done),
            Some(Action::Create(object)) => {
                let written = api.create(&ENDPOINTS, &key.namespace, &object).await;
                (
                    written,
                    new(key),
                    "FailedToCreateEndpoint",
                    "create endpoint for service",
                )
            }
            Some(Action::Update(fields)) => {
                let patch = Patch::Merge(fields);
                let written = api.patch(&ENDPOINTS, key, None, &patch).await;
                let meta = existing.map_or_else(|| new(key), |e| e.metadata.clone());
                (written, meta, "FailedToUpdateEndpoint", "update endpoint")
            }
        };
        match written {
            Ok(written) => cache.apply(written),
            Err(error) if error.not_found() => cache.remove(key),
            Err(error) => {
                // Nothing can be made in a namespace that goes; what another wrote first is read.
                if !error.namespace_terminating() && !error.conflict() {
                    let message = format!("Failed to {what} {key}: {}", error.message());
                    let recorder = &self.context.recorder;
                    recorder.warning(COMPONENT, &ENDPOINTS, &meta, reason, message);
                }
                return Err(error);
            }
        }
        Ok(Outcome::Done)
    }
}

/// Endpoints that are not there yet, as an event names them: in no namespace, as Kubernetes has it,
/// so that the event is in `default`.
fn new(key: &Key) -> Meta {
    Meta {
        name: key.name.clone(),
        ..Meta::default()
    }
}
