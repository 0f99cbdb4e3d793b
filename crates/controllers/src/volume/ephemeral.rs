//! Claims of generic ephemeral volumes: each lives as long as its pod (`pkg/controller/volume/ephemeral`
//! of 1.36). The pod owns its claim, so garbage collection takes it away.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::model::pod::claim_index;
use crate::model::volume::Claim;
use crate::model::{CLAIMS, Key, Owner, PODS, Pod};
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const NAME: &str = "ephemeral-volume-controller";

struct Ephemeral(Context);

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let informers = &context.informers;
    let added = queue.clone();
    informers.pods.on_change(move |old, new| {
        if let Some(pod) = new
            && old.is_none()
            && wants(pod)
        {
            added.add(pod.meta.key());
        }
    });
    let (added, pods) = (queue.clone(), informers.pods.clone());
    informers.claims.on_change(move |old, new| {
        // A claim that is gone while its pod stays is made again.
        if let (Some(gone), None) = (old, new) {
            let index = claim_index(&gone.metadata.namespace, &gone.metadata.name);
            for pod in pods.indexed(&index).iter().filter(|p| wants(p)) {
                added.add(pod.meta.key());
            }
        }
    });
    let controller = Arc::new(Ephemeral(context.clone()));
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

fn wants(pod: &Pod) -> bool {
    !pod.ephemeral.is_empty() && !pod.terminating()
}

/// The claim of one ephemeral volume of a pod.
fn claim(pod: &Pod, name: &str, template: &Value) -> Value {
    let meta = &template["metadata"];
    json!({
        "apiVersion": "v1",
        "kind": CLAIMS.kind,
        "metadata": {
            "name": name,
            "labels": meta["labels"],
            "annotations": meta["annotations"],
            "ownerReferences": [Owner::controller_json(&PODS, &pod.meta)],
        },
        "spec": template["spec"],
    })
}

impl Controller for Ephemeral {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let (api, informers) = (&self.0.api, &self.0.informers);
        let Some(pod) = informers.pods.get(key).filter(|pod| wants(pod)) else {
            return Ok(Outcome::Done);
        };
        for (volume, template) in &pod.ephemeral {
            let name = format!("{}-{volume}", pod.meta.name);
            let at = Key::new(&key.namespace, &name);
            let mut there = informers.claims.get(&at);
            if there.is_none() {
                let claim = claim(&pod, &name, template);
                match api.create::<Claim>(&CLAIMS, &key.namespace, &claim).await {
                    Ok(created) => informers.claims.apply(created),
                    Err(error) if error.already_exists() => {
                        there = api.get(&CLAIMS, &at).await?.map(Arc::new);
                    }
                    Err(error) => {
                        let message = format!("ephemeral volume {volume}: {}", error.message());
                        self.warn(&pod, message);
                        return Err(error);
                    }
                }
            }
            if let Some(claim) = there
                && claim
                    .metadata
                    .controller()
                    .is_none_or(|o| o.uid != pod.meta.uid)
            {
                self.warn(
                    &pod,
                    format!(
                        "ephemeral volume {volume}: PVC {at} was not created for pod {key} (pod is not owner)"
                    ),
                );
            }
        }
        Ok(Outcome::Done)
    }
}

impl Ephemeral {
    fn warn(&self, pod: &Pod, message: String) {
        let recorder = &self.0.recorder;
        recorder.warning(NAME, &PODS, &pod.meta, "FailedBinding", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_named_after_pod_and_volume_and_owned_by_the_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "x", "emptyDir": {}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                    "metadata": {"labels": {"l": "1"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}}}]},
        }))
        .unwrap();
        assert_eq!(pod.claims.len(), 1);
        assert_eq!(&*pod.claims[0].1, "a-scratch");
        let (volume, template) = &pod.ephemeral[0];
        assert_eq!(&**volume, "scratch");
        let claim = claim(&pod, "a-scratch", template);
        assert_eq!(claim["metadata"]["labels"], json!({"l": "1"}));
        assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(claim["metadata"]["ownerReferences"][0]["controller"], true);
        assert_eq!(claim["spec"], json!({"accessModes": ["ReadWriteOnce"]}));
    }
}
