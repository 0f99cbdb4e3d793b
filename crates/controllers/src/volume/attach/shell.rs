//! The shell of the attacher: one key a node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::api::Patch;
use serde_json::json;
use tokio::task::JoinSet;

use super::plan::{self, Action, Wanted};
use crate::model::meta::MetaOnly;
use crate::model::pod::{claim_index, node_index};
use crate::model::volume::{Attachment, Claim, Volume, volume_index};
use crate::model::{ATTACHMENTS, Key, NODES, PODS, Pod};
use crate::runtime::api::{Deletion, status_patch};
use crate::runtime::informer::Informers;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const NAME: &str = "attachdetach-controller";
/// How soon a volume that is still at another node is asked for again, should no event tell.
const AGAIN: Duration = Duration::from_secs(10);

struct Attacher(Context);

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let informers = &context.informers;
    let node = |name: &str| Key::new("", name);
    let added = queue.clone();
    informers.pods.on_change(move |old, new| {
        // Of a pod it matters that it comes to a node and that it ends.
        let on = |p: &Arc<Pod>| {
            p.node
                .clone()
                .filter(|_| !p.claims.is_empty() && !p.finished())
        };
        let (old, new) = (old.and_then(on), new.and_then(on));
        if old != new {
            for name in [old, new].into_iter().flatten() {
                added.add(node(&name));
            }
        }
    });
    let (added, pods) = (queue.clone(), informers.pods.clone());
    informers.claims.on_change(move |old, new| {
        let bound = |c: &Arc<Claim>| c.status.phase == "Bound";
        let Some(claim) = new.filter(|c| bound(c) && !old.is_some_and(bound)) else {
            return;
        };
        let index = claim_index(&claim.metadata.namespace, &claim.metadata.name);
        for pod in pods.indexed(&index) {
            if let Some(name) = &pod.node {
                added.add(node(name));
            }
        }
    });
    let (added, all) = (queue.clone(), Arc::downgrade(informers));
    informers.attachments.on_change(move |old, new| {
        if let Some(attachment) = new.or(old) {
            added.add(node(&attachment.spec.node_name));
        }
        // It has left: whoever waits for it may have it.
        if let (Some(gone), None) = (old, new)
            && let Some(all) = all.upgrade()
            && let Some(volume) = all
                .volumes
                .get(&node(&gone.spec.source.persistent_volume_name))
            && let Some(of) = &volume.spec.claim_ref
        {
            for pod in all.pods.indexed(&claim_index(&of.namespace, &of.name)) {
                if let Some(name) = &pod.node {
                    added.add(node(name));
                }
            }
        }
    });
    let added = queue.clone();
    informers.nodes.on_change(move |old, new| {
        let told = |n: &Arc<crate::model::node::Node>| n.status.volumes_attached.clone();
        if let Some(any) = new.or(old)
            && old.map(told) != new.map(told)
        {
            added.add(any.metadata.key());
        }
    });
    informers.volumes.want();
    informers.drivers.want();
    let controller = Arc::new(Attacher(context.clone()));
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// The volumes of a driver that the pods of a node use, each once.
fn wanted(informers: &Informers, node: &str, pods: &[Arc<Pod>]) -> Vec<Wanted> {
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for (at, pod) in pods.iter().enumerate().filter(|(_, p)| !p.finished()) {
        for (_, name) in &pod.claims {
            let claim = informers.claims.get(&Key::new(&pod.meta.namespace, name));
            let Some(claim) = claim.filter(|c| c.status.phase == "Bound") else {
                continue;
            };
            let volume = Key::new("", &claim.spec.volume_name);
            let Some(volume) = informers.volumes.get(&volume) else {
                continue;
            };
            if !attachable(informers, &volume) || !seen.insert(volume.metadata.name.clone()) {
                continue;
            }
            let elsewhere = informers
                .attachments
                .indexed(&volume_index(&volume.metadata.name))
                .iter()
                .map(|a| Arc::from(a.spec.node_name.as_str()))
                .filter(|other: &Arc<str>| **other != *node)
                .collect();
            wanted.push(Wanted {
                volume,
                pod: at,
                elsewhere,
            });
        }
    }
    wanted
}

fn attachable(informers: &Informers, volume: &Volume) -> bool {
    volume.spec.csi.as_ref().is_some_and(|csi| {
        let driver = informers.drivers.get(&Key::new("", &csi.driver));
        driver.is_none_or(|d| d.spec.attach_required != Some(false))
    })
}

impl Controller for Attacher {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.0.informers;
        let node = informers.nodes.get(key);
        let attachments = informers.attachments.indexed(&key.name);
        let pods = informers.pods.indexed(&node_index(&key.name));
        let wanted = wanted(informers, &key.name, &pods);
        let actions = plan::plan(
            &key.name,
            &wanted,
            &attachments,
            |name| informers.volumes.get(&Key::new("", name)),
            node.as_ref().map(|n| &*n.status.volumes_attached),
        );
        let mut outcome = Outcome::Done;
        let before = node.as_ref().map(|n| n.status.volumes_attached.clone());
        let come = plan::come(&wanted, &actions, before.as_deref().unwrap_or_default());
        for (pod, volume) in come {
            if let Some(pod) = pods.get(pod) {
                // The space at its end is Kubernetes', too.
                let message = format!("AttachVolume.Attach succeeded for volume \"{volume}\" ");
                let recorder = &self.0.recorder;
                recorder.normal(NAME, &PODS, &pod.meta, "SuccessfulAttachVolume", message);
            }
        }
        for action in actions {
            if let Action::Refuse { pod, volume } = action {
                outcome = Outcome::After(AGAIN);
                if let Some(pod) = pods.get(pod) {
                    self.refuse(pod, &volume);
                }
            } else {
                self.act(key, node.as_ref().map(|n| &*n.metadata.uid), action)
                    .await?;
            }
        }
        Ok(outcome)
    }
}

impl Attacher {
    fn refuse(&self, pod: &Pod, volume: &str) {
        let message = format!(
            "Multi-Attach error for volume \"{volume}\" Volume is already exclusively attached to one node and can't be attached to another"
        );
        self.0
            .recorder
            .warning(NAME, &PODS, &pod.meta, "FailedAttachVolume", message);
    }

    async fn act(&self, node: &Key, uid: Option<&str>, action: Action) -> Result<(), ApiError> {
        let (api, cache) = (&self.0.api, &self.0.informers.attachments);
        let result = match action {
            Action::Create {
                name,
                attacher,
                volume,
            } => {
                let attachment = json!({
                    "apiVersion": ATTACHMENTS.api_version(),
                    "kind": ATTACHMENTS.kind,
                    "metadata": {"name": name},
                    "spec": {
                        "attacher": attacher,
                        "nodeName": &*node.name,
                        "source": {"persistentVolumeName": &*volume},
                    },
                });
                let created = api.create::<Attachment>(&ATTACHMENTS, "", &attachment);
                created.await.map(|created| cache.apply(created))
            }
            Action::Delete { name, uid } => {
                let key = Key::new("", &name);
                let deletion = Deletion::of(&uid);
                api.delete(&ATTACHMENTS, &key, deletion).await.map(drop)
            }
            Action::Attached { name, uid } => {
                let patch = status_patch(&uid, json!({"attached": true}));
                let key = Key::new("", &name);
                let written = api.patch::<Attachment>(&ATTACHMENTS, &key, Some("status"), &patch);
                written.await.map(|written| cache.apply(written))
            }
            Action::Report(volumes) => {
                let patch = Patch::Merge(json!({
                    "metadata": {"uid": uid},
                    "status": {"volumesAttached": volumes},
                }));
                let written = api.patch::<MetaOnly>(&NODES, node, Some("status"), &patch);
                written.await.map(drop)
            }
            Action::Refuse { .. } => Ok(()),
        };
        match result {
            Err(error) if !error.not_found() && !error.already_exists() => Err(error),
            _ => Ok(()),
        }
    }
}
