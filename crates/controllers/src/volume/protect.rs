//! Protection: a claim stays while a pod uses it, a volume while it is bound.

use std::sync::Arc;

use kube::api::Patch;
use serde_json::json;
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::pod::claim_index;
use crate::model::volume::{Claim, Volume};
use crate::model::{Key, Kind, Meta, Watched};
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

struct Claims(Context);
struct Volumes(Context);

pub fn start_claim_protection(
    context: &Context,
    workers: usize,
) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let added = queue.clone();
    context.informers.claims.on_change(move |_, new| {
        if let Some(claim) = new {
            added.add(claim.metadata.key());
        }
    });
    let added = queue.clone();
    context.informers.pods.on_change(move |old, new| {
        // Only a pod that ends or goes lets a claim go.
        let ends = match (old, new) {
            (Some(_), None) => true,
            (old, Some(new)) => new.finished() && !old.is_some_and(|o| o.finished()),
            (None, None) => false,
        };
        if let Some(pod) = old.or(new).filter(|_| ends) {
            for (_, claim) in &pod.claims {
                added.add(Key::new(&pod.meta.namespace, claim));
            }
        }
    });
    let controller = Arc::new(Claims(context.clone()));
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

pub fn start_volume_protection(
    context: &Context,
    workers: usize,
) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let added = queue.clone();
    context.informers.volumes.on_change(move |_, new| {
        if let Some(volume) = new {
            added.add(volume.metadata.key());
        }
    });
    let controller = Arc::new(Volumes(context.clone()));
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// Adds a finalizer to an object, or takes it away.
pub(super) async fn set_finalizer(
    context: &Context,
    kind: &Kind,
    meta: &Meta,
    name: &str,
    wanted: bool,
) -> Result<(), ApiError> {
    let patch = if wanted {
        json!({"metadata": {"uid": &*meta.uid, "finalizers": [name]}})
    } else {
        json!({"metadata": {"uid": &*meta.uid, "$deleteFromPrimitiveList/finalizers": [name]}})
    };
    let patch = Patch::Strategic(patch);
    match context
        .api
        .patch::<MetaOnly>(kind, &meta.key(), None, &patch)
        .await
    {
        Err(error) if !error.not_found() && !error.conflict() => Err(error),
        _ => Ok(()),
    }
}

impl Controller for Claims {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(claim) = self.0.informers.claims.get(key) else {
            return Ok(Outcome::Done);
        };
        let meta = &claim.metadata;
        let guarded = meta.has_finalizer(CLAIM);
        if meta.deleted.is_none() {
            if !guarded {
                set_finalizer(&self.0, &Claim::KIND, meta, CLAIM, true).await?;
            }
            return Ok(Outcome::Done);
        }
        let index = claim_index(&key.namespace, &key.name);
        let users = self.0.informers.pods.indexed(&index);
        let used = users.iter().any(|p| p.node.is_some() && !p.finished());
        if guarded && !used {
            set_finalizer(&self.0, &Claim::KIND, meta, CLAIM, false).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Controller for Volumes {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(volume) = self.0.informers.volumes.get(key) else {
            return Ok(Outcome::Done);
        };
        let meta = &volume.metadata;
        let guarded = meta.has_finalizer(VOLUME);
        match meta.deleted {
            None if !guarded => {
                set_finalizer(&self.0, &Volume::KIND, meta, VOLUME, true).await?;
            }
            Some(_) if guarded && volume.status.phase != "Bound" => {
                set_finalizer(&self.0, &Volume::KIND, meta, VOLUME, false).await?;
            }
            _ => {}
        }
        Ok(Outcome::Done)
    }
}
