//! Two queues: of pods, for which claims are made, and of claims, which are let go of.

use std::sync::Arc;

use kube::api::Patch;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::plan::{CLAIM_OF_POD, FINALIZER, MOST_CONSUMERS, Step, generate_name};
use super::plan::{is_done, of_claim, of_pod};
use crate::model::device::{Consumer, DeviceClaim, PodClaim};
use crate::model::meta::MetaOnly;
use crate::model::pod::device_claim_index;
use crate::model::{DEVICE_CLAIM_TEMPLATES, DEVICE_CLAIMS, Key, Owner, PODS, Pod};
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const NAME: &str = "resourceclaim-controller";

struct Pods(Context);
struct Claims(Context);

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let pods: Arc<Queue<Key>> = Arc::default();
    let claims: Arc<Queue<Key>> = Arc::default();
    let informers = &context.informers;
    let (make, let_go, known) = (
        pods.clone(),
        claims.clone(),
        informers.device_claims.clone(),
    );
    informers.pods.on_change(move |old, new| {
        let Some(pod) = new.or(old).filter(|pod| !pod.device_claims.is_empty()) else {
            return;
        };
        if new.is_some() {
            make.add(pod.meta.key());
        }
        if new.is_none_or(|pod| is_done(pod)) {
            for claim in pod.device_claims.iter().filter_map(PodClaim::used) {
                let_go.add(Key::new(&pod.meta.namespace, claim));
            }
            for claim in known.indexed(&pod.meta.uid) {
                let_go.add(claim.metadata.key());
            }
        }
    });
    let (make, let_go, known) = (pods.clone(), claims.clone(), informers.pods.clone());
    informers.device_claims.on_change(move |old, new| {
        let Some(claim) = new.or(old) else { return };
        let meta = &claim.metadata;
        if new.is_some() {
            let_go.add(meta.key());
        }
        // One that is gone while its pod stays is made again, one that is allocated may be reserved.
        for pod in known.indexed(&device_claim_index(&meta.namespace, &meta.name)) {
            make.add(pod.meta.key());
        }
    });
    let makes = Arc::new(Pods(context.clone()));
    let lets_go = Arc::new(Claims(context.clone()));
    let stop = context.stop.clone();
    move |tasks| {
        controller::spawn(makes, &pods, workers, tasks, &stop);
        controller::spawn(lets_go, &claims, workers, tasks, &stop);
    }
}

impl Controller for Pods {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let (api, informers) = (&self.0.api, &self.0.informers);
        let Some(pod) = informers.pods.get(key) else {
            return Ok(Outcome::Done);
        };
        let owned = informers.device_claims.indexed(&pod.meta.uid);
        let mut told = Vec::new();
        for step in of_pod(&pod, &owned) {
            let (claim, name) = match step {
                Step::Tell(claim, name) => (claim, name),
                Step::Make(claim, template) => {
                    let made = self.make(&pod, claim, template).await;
                    let made = made.inspect_err(|error| {
                        let message = format!("PodResourceClaim {claim}: {}", error.message());
                        self.warn(&pod, message);
                    })?;
                    let Some(made) = made else {
                        let message = format!(
                            "PodResourceClaim {claim}: resource claim template \"{template}\" not found"
                        );
                        self.warn(&pod, message);
                        return Ok(Outcome::After(RETRY));
                    };
                    let name = made.metadata.name.clone();
                    informers.device_claims.apply(made);
                    (claim, name)
                }
            };
            told.push(json!({"name": claim, "resourceClaimName": &*name}));
        }
        if !told.is_empty() {
            let patch = json!({"metadata": {"uid": &*pod.meta.uid}, "status": {"resourceClaimStatuses": told}});
            api.patch::<MetaOnly>(&PODS, key, Some("status"), &Patch::Strategic(patch))
                .await?;
        }
        // Whoever names its node itself has no scheduler that would reserve its claims.
        if pod.node.is_some() && !is_done(&pod) && !pod.terminating() {
            for claim in pod.device_claims.iter().filter_map(PodClaim::used) {
                self.reserve(&pod, claim).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

/// How soon a template that is not there is looked for again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(5);

impl Pods {
    fn warn(&self, pod: &Pod, message: String) {
        let recorder = &self.0.recorder;
        recorder.warning(
            NAME,
            &PODS,
            &pod.meta,
            "FailedResourceClaimCreation",
            message,
        );
    }

    /// Makes a claim for a pod; `None` if there is no such template.
    async fn make(
        &self,
        pod: &Pod,
        claim: &str,
        template: &str,
    ) -> Result<Option<DeviceClaim>, ApiError> {
        let (api, namespace) = (&self.0.api, &pod.meta.namespace);
        let at = Key::new(namespace, template);
        let Some(template) = api.get::<Value>(&DEVICE_CLAIM_TEMPLATES, &at).await? else {
            return Ok(None);
        };
        let body = body(pod, claim, &template["spec"]);
        api.create(&DEVICE_CLAIMS, namespace, &body).await.map(Some)
    }

    async fn reserve(&self, pod: &Pod, claim: &str) -> Result<(), ApiError> {
        let at = Key::new(&pod.meta.namespace, claim);
        let Some(claim) = self.0.informers.device_claims.get(&at) else {
            return Ok(());
        };
        let reserved = &claim.status.reserved_for;
        let ours = claim.metadata.controlled_by(&pod.meta.uid)
            || pod
                .device_claims
                .iter()
                .any(|c| c.claim.as_deref() == Some(&*at.name));
        if !ours
            || claim.status.allocation.is_none()
            || claim.metadata.deleted.is_some()
            || reserved.len() >= MOST_CONSUMERS
            || reserved.iter().any(|c| c.uid == pod.meta.uid)
        {
            return Ok(());
        }
        let mut all = tell(reserved);
        all.push(json!({"resource": "pods", "name": &*pod.meta.name, "uid": &*pod.meta.uid}));
        write_status(&self.0, &claim, json!({"reservedFor": all})).await
    }
}

/// The claim of a pod, from the spec of its template.
fn body(pod: &Pod, claim: &str, template: &Value) -> Value {
    let mut annotations = template["metadata"]["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations[CLAIM_OF_POD] = claim.into();
    json!({
        "apiVersion": DEVICE_CLAIMS.api_version(),
        "kind": DEVICE_CLAIMS.kind,
        "metadata": {
            "generateName": generate_name(&pod.meta.name, claim),
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [Owner::controller_json(&PODS, &pod.meta)],
        },
        "spec": template["spec"],
    })
}

fn tell(consumers: &[Consumer]) -> Vec<Value> {
    let tell = |c: &Consumer| {
        let mut told = json!({"resource": c.resource, "name": c.name, "uid": &*c.uid});
        if !c.api_group.is_empty() {
            told["apiGroup"] = json!(c.api_group);
        }
        told
    };
    consumers.iter().map(tell).collect()
}

/// Writes into a claim's status, unless somebody else was faster.
async fn write_status(
    context: &Context,
    claim: &DeviceClaim,
    status: Value,
) -> Result<(), ApiError> {
    let meta = &claim.metadata;
    let patch = json!({"metadata": {"uid": &*meta.uid, "resourceVersion": meta.version.to_string()}, "status": status});
    let patch = Patch::Merge(patch);
    let (api, informer) = (&context.api, &context.informers.device_claims);
    let key = meta.key();
    informer.apply(
        api.patch(&DEVICE_CLAIMS, &key, Some("status"), &patch)
            .await?,
    );
    Ok(())
}

impl Controller for Claims {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let (api, informers) = (&self.0.api, &self.0.informers);
        let Some(claim) = informers.device_claims.get(key) else {
            return Ok(Outcome::Done);
        };
        let mut gone = Vec::new();
        for consumer in &claim.status.reserved_for {
            if consumer.is_pod() && !self.uses(key, &consumer.name, &consumer.uid).await? {
                gone.push(consumer.uid.clone());
            }
        }
        let owner = claim.metadata.controller().filter(|o| &*o.kind == "Pod");
        let owner_done = match owner {
            Some(owner) => !self.uses(key, &owner.name, &owner.uid).await?,
            None => false,
        };
        let plan = of_claim(&claim, |c| !gone.contains(&c.uid), owner_done);
        if plan.keep.is_some() || plan.deallocate {
            let mut status = json!({});
            if let Some(kept) = &plan.keep {
                let kept = Some(tell(kept)).filter(|kept| !kept.is_empty());
                status["reservedFor"] = json!(kept);
            }
            if plan.deallocate {
                status["allocation"] = Value::Null;
            }
            write_status(&self.0, &claim, status).await?;
        }
        if plan.unprotect {
            let patch = json!({"metadata": {"uid": &*claim.metadata.uid,
                "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
            let patch = Patch::Strategic(patch);
            let done = api
                .patch::<MetaOnly>(&DEVICE_CLAIMS, key, None, &patch)
                .await;
            match done {
                // It was told to go, and only this kept it.
                Err(error) if error.not_found() => return Ok(Outcome::Done),
                done => done.map(|_| ())?,
            }
        }
        if plan.delete {
            let of = Deletion::of(&claim.metadata.uid);
            match api.delete(&DEVICE_CLAIMS, key, of).await {
                Err(error) if !error.not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(Outcome::Done)
    }
}

impl Claims {
    /// Whether a pod is there and not done.
    async fn uses(&self, claim: &Key, name: &str, uid: &str) -> Result<bool, ApiError> {
        let at = Key::new(&claim.namespace, name);
        if let Some(pod) = self.0.informers.pods.get(&at)
            && &*pod.meta.uid == uid
        {
            return Ok(!is_done(&pod));
        }
        // The scheduler may have seen a pod before this did.
        let found = self.0.api.get::<Pod>(&PODS, &at).await?;
        Ok(found.is_some_and(|pod| &*pod.meta.uid == uid && !is_done(&pod)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_its_templates_and_its_pods() {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "web-0", "namespace": "n", "uid": "u"}, "spec": {"containers": []}}),
        )
        .unwrap();
        let spec = json!({"devices": {"requests": [{"name": "r"}]}});
        let template =
            json!({"metadata": {"labels": {"l": "1"}, "annotations": {"a": "2"}}, "spec": spec});
        let claim = body(&pod, "gpu", &template);
        let meta = &claim["metadata"];
        assert_eq!(meta["generateName"], "web-0-gpu-");
        assert_eq!(meta["annotations"], json!({"a": "2", CLAIM_OF_POD: "gpu"}));
        assert_eq!(meta["labels"], json!({"l": "1"}));
        assert_eq!(meta["ownerReferences"][0]["uid"], "u");
        assert_eq!(meta["ownerReferences"][0]["controller"], true);
        assert_eq!(claim["spec"], spec);
        assert_eq!(
            body(&pod, "x", &json!({"spec": spec}))["metadata"]["annotations"],
            json!({CLAIM_OF_POD: "x"})
        );
    }
}
