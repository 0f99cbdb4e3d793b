//! The shell of the binder: claims and volumes, each with a queue of its own.

use std::sync::Arc;

use kube::api::Patch;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::plan::{
    self, BIND_COMPLETED, BOUND_BY_CONTROLLER, Claimed, Fate, PROVISIONED_BY, SIMULATED, Step,
};
use crate::model::volume::{Claim, StorageClass, UNBOUND, Volume, volume_index};
use crate::model::{CLAIMS, Key, VOLUMES};
use crate::runtime::api::{Deletion, status_patch};
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const NAME: &str = "persistentvolume-controller";
/// Annotations by which other provisioners know what is asked of them.
const ASKED: [&str; 2] = [
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
];

struct Claims(Context);
struct Volumes(Context);

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let claims: Arc<Queue<Key>> = Arc::default();
    let volumes: Arc<Queue<Key>> = Arc::default();
    let informers = &context.informers;
    {
        let (claims, volumes) = (claims.clone(), volumes.clone());
        informers.claims.on_change(move |old, new| {
            if let Some(new) = new {
                claims.add(new.metadata.key());
            }
            if let Some(any) = new.or(old)
                && !any.spec.volume_name.is_empty()
            {
                volumes.add(Key::new("", &any.spec.volume_name));
            }
        });
    }
    {
        let (claims, volumes) = (claims.clone(), volumes.clone());
        let all = informers.claims.clone();
        informers.volumes.on_change(move |old, new| {
            if let Some(new) = new {
                volumes.add(new.metadata.key());
            }
            let Some(any) = new.or(old) else { return };
            match &any.spec.claim_ref {
                Some(of) => claims.add(Key::new(&of.namespace, &of.name)),
                // Anyone who waits may have it.
                None => {
                    for claim in all.indexed(UNBOUND) {
                        claims.add(claim.metadata.key());
                    }
                }
            }
            for claim in all.indexed(&volume_index(&any.metadata.name)) {
                claims.add(claim.metadata.key());
            }
        });
    }
    {
        let (claims, all) = (claims.clone(), informers.claims.clone());
        informers.storage_classes.on_change(move |_, new| {
            if new.is_some() {
                for claim in all.indexed(UNBOUND) {
                    claims.add(claim.metadata.key());
                }
            }
        });
    }
    let of_claims = Arc::new(Claims(context.clone()));
    let of_volumes = Arc::new(Volumes(context.clone()));
    let stop = context.stop.clone();
    move |tasks| {
        controller::spawn(of_claims, &claims, workers, tasks, &stop);
        controller::spawn(of_volumes, &volumes, workers, tasks, &stop);
    }
}

impl Controller for Claims {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.0.informers;
        let Some(claim) = informers.claims.get(key) else {
            return Ok(Outcome::Done);
        };
        let name = &claim.spec.volume_name;
        let named = (!name.is_empty())
            .then(|| informers.volumes.get(&Key::new("", name)))
            .flatten();
        let volumes = match name.is_empty() {
            true => informers.volumes.all(),
            false => vec![],
        };
        let class = &claim.spec.storage_class_name;
        let class = (!class.is_empty())
            .then(|| informers.storage_classes.get(&Key::new("", class)))
            .flatten();
        let step = plan::claim(&Claimed {
            claim: &claim,
            named,
            volumes: &volumes,
            class,
        });
        match step {
            Step::Nothing => Ok(()),
            Step::Bind(volume) => self.bind(&claim, &volume).await,
            Step::Provision(class) => self.provision(&claim, &class).await,
            Step::Ask(provisioner) => self.ask(&claim, &provisioner).await,
            Step::Wait(why) => {
                self.event(&claim, why.warning, why.reason, why.message);
                self.phase(&claim, "Pending").await
            }
            Step::Lost(reason, message) => {
                if claim.status.phase != "Lost" {
                    self.event(&claim, true, reason, message.to_owned());
                }
                self.phase(&claim, "Lost").await
            }
        }
        .map(|()| Outcome::Done)
    }
}

impl Claims {
    fn event(&self, claim: &Claim, warning: bool, reason: &'static str, message: String) {
        let (recorder, meta) = (&self.0.recorder, &claim.metadata);
        if warning {
            recorder.warning(NAME, &CLAIMS, meta, reason, message);
        } else {
            recorder.normal(NAME, &CLAIMS, meta, reason, message);
        }
    }

    async fn phase(&self, claim: &Claim, phase: &str) -> Result<(), ApiError> {
        if claim.status.phase == phase {
            return Ok(());
        }
        self.status(claim, json!({"phase": phase})).await
    }

    async fn status(&self, claim: &Claim, status: Value) -> Result<(), ApiError> {
        let patch = status_patch(&claim.metadata.uid, status);
        let key = claim.metadata.key();
        let written = self.0.api.patch(&CLAIMS, &key, Some("status"), &patch);
        match written.await {
            Ok(written) => {
                self.0.informers.claims.apply(written);
                Ok(())
            }
            Err(error) if error.not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Volume first, so that no two claims can have it: the write fails where another was faster.
    async fn bind(&self, claim: &Claim, volume: &Volume) -> Result<(), ApiError> {
        let (api, informers) = (&self.0.api, &self.0.informers);
        let meta = &claim.metadata;
        let bound = volume.spec.claim_ref.as_ref();
        if bound.is_none_or(|r| r.uid.is_empty()) {
            let mut patch = json!({
                "metadata": {"resourceVersion": volume.metadata.version.to_string()},
                "spec": {"claimRef": claim_ref(claim)},
            });
            if bound.is_none() {
                patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
            }
            let key = volume.metadata.key();
            let written: Volume = api
                .patch(&VOLUMES, &key, None, &Patch::Merge(patch))
                .await?;
            informers.volumes.apply(written);
        }
        let annotated = meta.annotations.get(BIND_COMPLETED).is_some();
        let mut claim = claim.clone();
        if claim.spec.volume_name.is_empty() || !annotated {
            let mut annotations = json!({BIND_COMPLETED: "yes"});
            if claim.spec.volume_name.is_empty() {
                annotations[BOUND_BY_CONTROLLER] = "yes".into();
            }
            let patch = json!({
                "metadata": {"uid": &*meta.uid, "annotations": annotations},
                "spec": {"volumeName": &*volume.metadata.name},
            });
            let written: Claim = api
                .patch(&CLAIMS, &meta.key(), None, &Patch::Merge(patch))
                .await?;
            informers.claims.apply(written.clone());
            claim = written;
        }
        // Simulated volumes grow when their claims do.
        let wanted = plan::storage(&claim.spec.resources.requests);
        let ours = volume.metadata.annotations.get(PROVISIONED_BY) == Some(SIMULATED);
        let mut capacity = volume.spec.capacity.clone();
        if ours && wanted > plan::storage(&capacity) {
            capacity.insert("storage".to_owned(), wanted.to_string());
            let patch = Patch::Merge(json!({"spec": {"capacity": capacity}}));
            let written: Volume = api
                .patch(&VOLUMES, &volume.metadata.key(), None, &patch)
                .await?;
            informers.volumes.apply(written);
        }
        let status = &claim.status;
        let same = status.phase == "Bound"
            && status.capacity == capacity
            && status.access_modes == volume.spec.access_modes;
        if same {
            return Ok(());
        }
        let status = json!({
            "phase": "Bound",
            "accessModes": volume.spec.access_modes,
            "capacity": capacity,
        });
        self.status(&claim, status).await
    }

    async fn provision(&self, claim: &Claim, class: &StorageClass) -> Result<(), ApiError> {
        self.ask_by_annotation(claim, SIMULATED).await?;
        let name = format!("pvc-{}", claim.metadata.uid);
        let policy = match class.reclaim_policy.as_str() {
            "" => "Delete",
            policy => policy,
        };
        let mode = match claim.spec.volume_mode.as_str() {
            "" => "Filesystem",
            mode => mode,
        };
        let mut volume = json!({
            "apiVersion": "v1",
            "kind": VOLUMES.kind,
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: SIMULATED}},
            "spec": {
                "capacity": claim.spec.resources.requests,
                "accessModes": claim.spec.access_modes,
                "persistentVolumeReclaimPolicy": policy,
                "storageClassName": &*class.metadata.name,
                "volumeMode": mode,
                "csi": {"driver": SIMULATED, "volumeHandle": name},
                "claimRef": claim_ref(claim),
            },
        });
        if !class.mount_options.is_empty() {
            volume["spec"]["mountOptions"] = class.mount_options.clone().into();
        }
        match self.0.api.create::<Volume>(&VOLUMES, "", &volume).await {
            Ok(created) => {
                let message = format!("Successfully provisioned volume {name}");
                self.event(claim, false, "ProvisioningSucceeded", message);
                self.0.informers.volumes.apply(created);
                Ok(())
            }
            Err(error) if error.already_exists() => Ok(()),
            Err(error) => {
                let message = format!("failed to provision volume: {}", error.message());
                self.event(claim, true, "ProvisioningFailed", message);
                Err(error)
            }
        }
    }

    async fn ask(&self, claim: &Claim, provisioner: &str) -> Result<(), ApiError> {
        self.ask_by_annotation(claim, provisioner).await?;
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.event(claim, false, "ExternalProvisioning", message);
        self.phase(claim, "Pending").await
    }

    async fn ask_by_annotation(&self, claim: &Claim, provisioner: &str) -> Result<(), ApiError> {
        let meta = &claim.metadata;
        if ASKED
            .iter()
            .all(|a| meta.annotations.get(a) == Some(provisioner))
        {
            return Ok(());
        }
        let annotations: serde_json::Map<String, Value> = ASKED
            .iter()
            .map(|a| ((*a).to_owned(), provisioner.into()))
            .collect();
        let patch =
            Patch::Merge(json!({"metadata": {"uid": &*meta.uid, "annotations": annotations}}));
        let written: Claim = self.0.api.patch(&CLAIMS, &meta.key(), None, &patch).await?;
        self.0.informers.claims.apply(written);
        Ok(())
    }
}

fn claim_ref(claim: &Claim) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": CLAIMS.kind,
        "namespace": &*claim.metadata.namespace,
        "name": &*claim.metadata.name,
        "uid": &*claim.metadata.uid,
        "resourceVersion": claim.metadata.version.to_string(),
    })
}

impl Controller for Volumes {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let (api, informers) = (&self.0.api, &self.0.informers);
        let Some(volume) = informers.volumes.get(key) else {
            return Ok(Outcome::Done);
        };
        let mut claim = None;
        if let Some(of) = &volume.spec.claim_ref {
            let key = Key::new(&of.namespace, &of.name);
            claim = informers.claims.get(&key);
            // The cache may lag behind: a volume must not be given up for a claim just made.
            if claim.is_none() && !of.uid.is_empty() {
                claim = api.get::<Claim>(&CLAIMS, &key).await?.map(Arc::new);
            }
        }
        match plan::volume(&volume, claim.as_deref()) {
            Fate::Nothing => {}
            Fate::Phase(phase) => {
                let patch = status_patch(&volume.metadata.uid, json!({"phase": phase}));
                let written: Result<Volume, ApiError> =
                    api.patch(&VOLUMES, key, Some("status"), &patch).await;
                match written {
                    Ok(written) => informers.volumes.apply(written),
                    Err(error) if error.not_found() => {}
                    Err(error) => return Err(error),
                }
            }
            Fate::Delete => {
                let deletion = Deletion::of(&volume.metadata.uid);
                api.delete(&VOLUMES, key, deletion).await?;
            }
            Fate::Recycle => {
                let patch = json!({
                    "metadata": {"uid": &*volume.metadata.uid, "annotations": {BOUND_BY_CONTROLLER: null}},
                    "spec": {"claimRef": null},
                });
                let written: Volume = api.patch(&VOLUMES, key, None, &Patch::Merge(patch)).await?;
                informers.volumes.apply(written);
            }
        }
        Ok(Outcome::Done)
    }
}
