//! Volumes that are bound late: for a pod that has its node, volumes are reserved or asked for, and awaited; then the
//! pod is bound. The binding itself is the volume controller's and the provisioners' work.

use super::calls::{CallError, PodRef, expect_on, send};
use super::driver::{Driver, VolumeWait};
use crate::core::volumes::{Assumed, Progress, SELECTED_NODE};
use kube::Client;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Annotation of a volume that was not reserved by a person.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// The writes for a pod's volumes ended.
pub(super) struct Stored {
    pod: PodRef,
    result: Result<(), CallError>,
}

/// A claim in words.
struct ClaimRef {
    namespace: String,
    name: String,
    uid: Arc<str>,
}

impl Driver {
    /// Asks for the volumes that were chosen for a pod.
    pub(super) fn start_storage(&mut self, uid: &Arc<str>, node: String, assumed: Assumed) {
        let symbols = &self.cluster.compiler.symbols;
        let claim = |key| {
            let (namespace, name) = symbols.text(key).split_once('/').unwrap_or_default();
            ClaimRef {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: self.cluster.volumes.claim_uid(key).unwrap_or_default(),
            }
        };
        let bind: Vec<(String, ClaimRef)> = assumed
            .bind
            .iter()
            .map(|(volume, key)| (symbols.text(*volume).to_owned(), claim(*key)))
            .collect();
        let provision: Vec<ClaimRef> = assumed.provision.iter().map(|key| claim(*key)).collect();
        let now = self.now();
        let Some(pending) = self.pending.get_mut(uid) else {
            self.cluster.volumes.release(&assumed);
            return;
        };
        let timeout = self
            .cluster
            .rules(pending.class)
            .profile
            .bind_timeout_seconds;
        pending.volumes = Some(VolumeWait {
            node: node.clone(),
            assumed,
            until: now + Duration::from_secs(timeout),
            written: false,
        });
        pending.nominated_told = true;
        self.storing.insert(uid.clone());
        let (client, pod) = (self.client.clone(), pending.pod.clone());
        self.storage.spawn(async move {
            expect_on(&client, &pod, &node).await;
            let mut result = Ok(());
            for (volume, claim) in &bind {
                if result.is_ok() {
                    result = reserve(&client, volume, claim).await;
                }
            }
            for claim in &provision {
                if result.is_ok() {
                    result = select(&client, claim, &node).await;
                }
            }
            Stored { pod, result }
        });
    }

    /// The writes ended; a pod whose volumes cannot be had is decided anew.
    pub(super) fn stored(&mut self, stored: Result<Stored, tokio::task::JoinError>) {
        let Stored { pod, result } = match stored {
            Ok(stored) => stored,
            Err(error) => {
                // Its pod is taken back when its time is over.
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "writes for volumes ended without a result");
                return;
            }
        };
        if let Err(error) = result {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, pod = %pod.name, namespace = %pod.namespace, "volumes not asked for, will try again");
            if self.storing.contains(&pod.uid) {
                self.take_back(&pod.uid);
            }
        } else if let Some(wait) = self
            .pending
            .get_mut(&pod.uid)
            .and_then(|p| p.volumes.as_mut())
        {
            wait.written = true;
        }
    }

    /// Binds the pods whose volumes are bound; takes back those whose will not be.
    pub(super) fn look_at_storage(&mut self, now: Duration) {
        let waiting: Vec<Arc<str>> = self.storing.iter().cloned().collect();
        for uid in waiting {
            let pending = self.pending.get_mut(&uid);
            let Some((class, wait)) = pending.and_then(|p| Some((p.class, p.volumes.as_ref()?)))
            else {
                self.storing.remove(&uid);
                continue;
            };
            if !wait.written {
                continue;
            }
            let progress = self
                .cluster
                .volume_progress(class, &wait.node, &wait.assumed);
            match progress {
                Progress::Bound => {
                    self.storing.remove(&uid);
                    let wait = self.pending.get_mut(&uid).and_then(|p| p.volumes.take());
                    if let Some(wait) = wait {
                        self.cluster.volumes.release(&wait.assumed);
                        self.start_bind(&uid, wait.node);
                    }
                }
                Progress::Waiting if now < wait.until => {}
                Progress::Waiting | Progress::Failed => {
                    tracing::warn!(uid = %uid, ?progress, "volumes of a pod were not bound, will try again");
                    self.take_back(&uid);
                }
            }
        }
    }

    /// When the first pod has waited long enough for its volumes.
    pub(super) fn storage_deadline(&self) -> Option<Duration> {
        let waits = self
            .storing
            .iter()
            .filter_map(|uid| self.pending.get(uid)?.volumes.as_ref());
        waits.map(|wait| wait.until).min()
    }
}

/// Reserves a volume for a claim, unless somebody else was faster.
async fn reserve(client: &Client, volume: &str, claim: &ClaimRef) -> Result<(), CallError> {
    const WHAT: &str = "reserve volume";
    let path = format!("/api/v1/persistentvolumes/{volume}");
    let request = http::Request::get(&path)
        .body(Vec::new())
        .map_err(|source| CallError::Build {
            operation: WHAT,
            source,
        })?;
    let found: Value = client
        .request(request)
        .await
        .map_err(|source| CallError::Call {
            operation: WHAT,
            source,
        })?;
    let old = &found["spec"]["claimRef"];
    if old["uid"].as_str() == Some(&claim.uid) {
        return Ok(());
    }
    let ours = |key: &str, value: &str| old[key].as_str().is_none_or(|v| v == value);
    let free = old.is_null()
        || ours("namespace", &claim.namespace) && ours("name", &claim.name) && old["uid"].is_null();
    if !free {
        return Err(CallError::Taken(volume.to_owned()));
    }
    let mut body = json!({
        // Whoever writes in between wins.
        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
        "spec": {"claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": claim.namespace, "name": claim.name, "uid": &*claim.uid}},
    });
    if old.is_null() {
        body["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
    }
    let merge = "application/merge-patch+json";
    send(client, WHAT, http::Method::PATCH, path, merge, &body).await
}

/// Asks for a volume near a node.
async fn select(client: &Client, claim: &ClaimRef, node: &str) -> Result<(), CallError> {
    let body = json!({"metadata": {"uid": &*claim.uid, "annotations": {SELECTED_NODE: node}}});
    let ClaimRef {
        namespace, name, ..
    } = claim;
    send(
        client,
        "select node for claim",
        http::Method::PATCH,
        format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"),
        "application/merge-patch+json",
        &body,
    )
    .await
}
