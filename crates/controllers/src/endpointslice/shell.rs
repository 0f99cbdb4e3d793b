//! The shell of the EndpointSlice controller.

use std::sync::Arc;
use std::time::Duration;

use kube::api::Patch;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::task::JoinSet;

use super::hints::{self, ZONE};
use super::plan::{self, MANAGER, Plan, Told, World};
use crate::endpoints::selected::Selected;
use crate::model::network::{EndpointSlice, MANAGED_BY, SERVICE_NAME, Service, service_index};
use crate::model::node::Node;
use crate::model::{ENDPOINT_SLICES, Key, SERVICES};
use crate::runtime::api::Deletion;
use crate::runtime::controller;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue};

/// Pod changes that come within this time are written together.
const BATCH: Duration = Duration::from_millis(20);
/// How soon a Service is looked at again some of whose pods are on nodes that are not there.
const AGAIN: Duration = Duration::from_secs(1);
/// Of the controller, and the component of its events.
const NAME: &str = "endpointslice-controller";

struct Slices {
    context: Context,
    selected: Arc<Selected>,
    /// Services that have been given hints by their annotation.
    hinted: Mutex<FxHashSet<Key>>,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let informers = &context.informers;
    {
        let queue = queue.clone();
        informers.services.on_change(move |old, new| {
            if let Some(service) = new.or(old) {
                queue.add(service.metadata.key());
            }
        });
    }
    let selected = Selected::follow(context, &queue, BATCH);
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
    {
        // A zone that is told late, or changes, is rare: all Services look again. Those that ask for hints by
        // CPU share look at every node that comes or goes.
        let (queue, services) = (queue.clone(), informers.services.clone());
        informers.nodes.on_change(move |old, new| {
            let zone = |node: Option<&Arc<Node>>| {
                node.and_then(|n| n.metadata.labels.get(ZONE))
                    .map(str::to_owned)
            };
            let moved = new.is_some() && old.is_some() && zone(old) != zone(new);
            let counted = |node: Option<&Arc<Node>>| node.and_then(|it| hints::counts(it));
            if !moved && counted(old) == counted(new) {
                return;
            }
            for service in services.all() {
                if moved || hints::asked(&service) {
                    queue.add_after(service.metadata.key(), Duration::from_secs(1));
                }
            }
        });
    }
    let controller = Arc::new(Slices {
        context: context.clone(),
        selected,
        hinted: Mutex::default(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Slices {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let service = informers.services.get(key);
        let pods = self.selected.pods(&self.context, key, service.as_deref());
        // The slices of a Service that is gone are the garbage collector's.
        let (Some(service), Some(pods)) = (service, pods) else {
            self.hinted.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let slices: Vec<Arc<EndpointSlice>> = informers
            .slices
            .indexed(&service_index(&key.namespace, &key.name))
            .into_iter()
            .filter(|s| s.metadata.labels.get(MANAGED_BY) == Some(MANAGER))
            .collect();
        let nodes = informers.nodes.clone();
        let zone_of = move |node: &str| {
            let node = nodes.get(&Key::new("", node))?;
            Some(node.metadata.labels.get(ZONE).map(str::to_owned))
        };
        let shares = hints::asked(&service).then(|| {
            let nodes = informers.nodes.all();
            hints::shares(nodes.iter().filter_map(|it| hints::counts(it)))
        });
        let mut plan = plan::plan(&World {
            service: &service,
            pods: &pods,
            slices: &slices,
            zone_of: &zone_of,
            shares: shares.as_ref(),
        });
        plan.told
            .extend(self.no_longer_hinted(key, &plan, &service));
        for told in &plan.told {
            let (recorder, about) = (&self.context.recorder, &service.metadata);
            let message = told.message.clone();
            match told.warning {
                true => recorder.warning(NAME, &SERVICES, about, told.reason, message),
                false => recorder.normal(NAME, &SERVICES, about, told.reason, message),
            }
        }
        let mut wrong = plan.lost.clone();
        let carried_out = self.carry_out(&key.namespace, plan).await;
        match &carried_out {
            Err(error) if error.conflict() || error.namespace_terminating() => wrong.clear(),
            Err(error) => wrong.push(error.message()),
            Ok(()) => {}
        }
        if !wrong.is_empty() {
            let message = format!(
                "Error updating Endpoint Slices for Service {key}: {}",
                together(&wrong)
            );
            let recorder = &self.context.recorder;
            let reason = "FailedToUpdateEndpointSlices";
            recorder.warning(NAME, &SERVICES, &service.metadata, reason, message);
        }
        carried_out?;
        Ok(match wrong.is_empty() {
            true => Outcome::Done,
            // Its nodes may just not have been seen yet.
            false => Outcome::After(AGAIN),
        })
    }
}

/// Errors as Go tells several of them, each once.
fn together(errors: &[String]) -> String {
    let mut seen = Vec::new();
    for error in errors {
        if !seen.contains(&error.as_str()) {
            seen.push(error.as_str());
        }
    }
    match &*seen {
        [one] => (*one).to_owned(),
        all => format!("[{}]", all.join(", ")),
    }
}

impl Slices {
    /// What is to be told of a Service that was given hints by its annotation and is so no longer.
    fn no_longer_hinted(&self, key: &Key, plan: &Plan, service: &Service) -> Option<Told> {
        let mut hinted = self.hinted.lock();
        if hints::asked(service) {
            if plan.told.iter().any(|told| told.warning) {
                hinted.remove(key);
            } else {
                hinted.insert(key.clone());
            }
            return None;
        }
        let family = plan::families(service).into_iter().next()?;
        hinted.remove(key).then(|| Told {
            warning: true,
            reason: "TopologyAwareHintsDisabled",
            message: format!("Topology Aware Hints has been disabled, addressType: {family}"),
        })
    }

    async fn carry_out(&self, namespace: &str, plan: Plan) -> Result<(), ApiError> {
        let api = &self.context.api;
        // What is written goes into the cache at once, so that the next sync builds on it.
        let cache = &self.context.informers.slices;
        for object in plan.create {
            let created = api.create(&ENDPOINT_SLICES, namespace, &object).await?;
            cache.apply(created);
        }
        for (slice, fields) in plan.update {
            let key = slice.metadata.key();
            match api
                .patch(&ENDPOINT_SLICES, &key, None, &Patch::Merge(fields))
                .await
            {
                Ok(updated) => cache.apply(updated),
                Err(error) if error.not_found() => cache.remove(&key),
                Err(error) => return Err(error),
            }
        }
        for slice in plan.delete {
            let key = slice.metadata.key();
            api.delete(&ENDPOINT_SLICES, &key, Deletion::of(&slice.metadata.uid))
                .await?;
            cache.remove(&key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_together() {
        let told =
            |errors: &[&str]| together(&errors.iter().map(|e| (*e).into()).collect::<Vec<_>>());
        assert_eq!(told(&["a"]), "a");
        assert_eq!(told(&["a", "b", "a"]), "[a, b]");
    }
}
