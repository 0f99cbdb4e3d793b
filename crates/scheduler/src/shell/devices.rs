//! Claims to devices: what was decided for a pod is written into its claims before the pod is bound.

use super::calls::{CallError, PodRef, send};
use super::driver::Driver;
use crate::core::devices::{ANNOTATION, FINALIZER, Grant, IdleClaim, Misfit, Readiness, how_ready};
use crate::core::{ClassId, Diagnosis, Reason};
use http::Method;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const MERGE: &str = "application/merge-patch+json";
/// How often it is looked whether devices are ready.
const LOOK: Duration = Duration::from_secs(1);
/// How often a claim that others write too is tried again.
const TRIES: usize = 5;

impl Driver {
    /// Where a claim that nobody uses keeps a pod from nodes, it loses its devices, to be given others. One at a time:
    /// the pod is decided anew when that is seen.
    pub(super) fn free_idle_claim(&mut self, class: ClassId, diagnosis: &Diagnosis) {
        if !diagnosis.any(|reason| *reason == Reason::Devices(Misfit::Elsewhere)) {
            return;
        }
        let Some(claim) = self.cluster.idle_device_claim(class) else {
            return;
        };
        let client = self.client.clone();
        self.notes.spawn(async move {
            if let Err(error) = deallocate(&client, &claim).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, claim = %claim.name, namespace = %claim.namespace, "claim not deallocated");
            }
        });
    }
}

impl Driver {
    /// A claim that an attempt before made for extended resources of a pod that waits: nobody uses it, so its devices are
    /// given back, and the pod is given others.
    pub(super) fn free_special_claim(&mut self, pod: &str) {
        let waits = self
            .pending
            .get(pod)
            .is_some_and(|pending| !pending.decided);
        let Some(claim) = self.cluster.devices.special_of(pod).filter(|_| waits) else {
            return;
        };
        let client = self.client.clone();
        self.notes.spawn(async move {
            unmake(&client, &claim.namespace, &claim.name, &claim.uid).await;
        });
    }
}

fn path(namespace: &str, name: &str, sub: &str) -> String {
    format!("/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}{sub}")
}

async fn deallocate(client: &Client, claim: &IdleClaim) -> Result<(), CallError> {
    let body = json!({
        // Whoever begins to use it wins.
        "metadata": {"uid": claim.uid, "resourceVersion": claim.version},
        "status": {"allocation": null, "reservedFor": null, "devices": null},
    });
    let path = path(&claim.namespace, &claim.name, "/status");
    send(
        client,
        "deallocate claim",
        Method::PATCH,
        path,
        MERGE,
        &body,
    )
    .await
}

/// Waits until drivers say that what claims were given is ready.
///
/// # Errors
/// A driver says that it cannot be, or says nothing for too long; or a claim has changed otherwise.
pub(super) async fn ready(
    client: &Client,
    grants: &[Grant],
    timeout: Duration,
) -> Result<(), CallError> {
    let until = Instant::now() + timeout;
    for grant in grants.iter().filter(|grant| grant.waits) {
        let name = || format!("{}/{}", grant.namespace, grant.name);
        loop {
            let found = read(client, grant).await?;
            if found["metadata"]["uid"].as_str() != Some(&grant.uid) {
                return Err(CallError::Changed(name()));
            }
            let status = serde_json::from_value(found["status"].clone()).unwrap_or_default();
            match how_ready(&status) {
                None => return Err(CallError::Changed(name())),
                Some(Readiness::Ready) => break,
                Some(Readiness::Failed) => return Err(CallError::NotReady(name())),
                Some(Readiness::Waiting) if Instant::now() >= until => {
                    return Err(CallError::TooLate(name()));
                }
                Some(Readiness::Waiting) => tokio::time::sleep(LOOK).await,
            }
        }
    }
    Ok(())
}

/// What could not be made ready is given back, unless somebody else uses it by now: another attempt gets other devices.
pub(super) async fn give_back(client: &Client, grant: &Grant) {
    let Ok(found) = read(client, grant).await else {
        return;
    };
    let reserved = found["status"]["reservedFor"].as_array();
    if reserved.is_some_and(|all| !all.is_empty()) {
        return;
    }
    let claim = IdleClaim {
        namespace: grant.namespace.clone(),
        name: grant.name.clone(),
        uid: grant.uid.clone(),
        version: found["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    };
    if let Err(error) = deallocate(client, &claim).await {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, claim = %grant.name, "claim not deallocated");
    }
}

async fn read(client: &Client, grant: &Grant) -> Result<Value, CallError> {
    const WHAT: &str = "read claim";
    let request = http::Request::get(path(&grant.namespace, &grant.name, ""))
        .body(Vec::new())
        .map_err(|source| CallError::Build {
            operation: WHAT,
            source,
        })?;
    let call = client.request(request).await;
    call.map_err(|source| CallError::Call {
        operation: WHAT,
        source,
    })
}

/// Makes the claim for the extended resources of a pod, which a grant then is about.
pub(super) async fn make(
    client: &Client,
    pod: &PodRef,
    grant: &mut Grant,
) -> Result<(), CallError> {
    const WHAT: &str = "make claim for extended resources";
    let Some(made) = &grant.made else {
        return Ok(());
    };
    let body = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {
            "generateName": format!("{}-extended-resources-", pod.name),
            "annotations": {ANNOTATION: "true"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": &*pod.name, "uid": &*pod.uid, "controller": true}],
        },
        "spec": {"devices": {"requests": made.requests}},
    });
    let request = http::Request::post(path(&pod.namespace, "", "").trim_end_matches('/'))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|source| CallError::Build {
            operation: WHAT,
            source,
        })?;
    let there: Value = client
        .request(request)
        .await
        .map_err(|source| CallError::Call {
            operation: WHAT,
            source,
        })?;
    let text = |key: &str| {
        there["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (grant.namespace, grant.name, grant.uid) =
        (pod.namespace.to_string(), text("name"), text("uid"));
    Ok(())
}

/// Tells the kubelet in the pod's status which claim its extended resources are served by.
pub(super) async fn tell(client: &Client, pod: &PodRef, grants: &[Grant]) -> Result<(), CallError> {
    for grant in grants {
        let Some(made) = &grant.made else { continue };
        let status = json!({"resourceClaimName": grant.name, "requestMappings": made.mappings});
        let body = json!({"metadata": {"uid": &*pod.uid}, "status": {"extendedResourceClaimStatus": status}});
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/status",
            pod.namespace, pod.name
        );
        send(
            client,
            "name claim of pod",
            Method::PATCH,
            path,
            MERGE,
            &body,
        )
        .await?;
    }
    Ok(())
}

/// Takes a claim for extended resources away again.
pub(super) async fn unmake(client: &Client, namespace: &str, name: &str, uid: &str) {
    let body =
        json!({"metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
    let strategic = "application/strategic-merge-patch+json";
    let at = path(namespace, name, "");
    let freed = send(
        client,
        "free claim",
        Method::PATCH,
        at.clone(),
        strategic,
        &body,
    )
    .await;
    let options =
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    let gone = match freed {
        Ok(()) => {
            let json = "application/json";
            send(client, "delete claim", Method::DELETE, at, json, &options).await
        }
        failed => failed,
    };
    match gone {
        Err(error) if !matches!(error.code(), Some(404 | 409)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                claim = name,
                namespace,
                "claim for extended resources not deleted"
            );
        }
        _ => {}
    }
}

/// Gives a claim its devices, if it has none yet, and reserves it for the pod.
pub(super) async fn give(client: &Client, pod: &PodRef, grant: &Grant) -> Result<(), CallError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_to_give(client, pod, grant).await {
            Err(error) if error.code() == Some(409) && tries < TRIES => {}
            result => return result,
        }
    }
}

async fn try_to_give(client: &Client, pod: &PodRef, grant: &Grant) -> Result<(), CallError> {
    let found = read(client, grant).await?;
    let changed = || CallError::Changed(format!("{}/{}", grant.namespace, grant.name));
    let meta = &found["metadata"];
    let allocated = !found["status"]["allocation"].is_null();
    if meta["uid"].as_str() != Some(&grant.uid)
        || !meta["deletionTimestamp"].is_null()
        || allocated != grant.allocation.is_none()
    {
        return Err(changed());
    }
    let mut version = meta["resourceVersion"].clone();
    let finalizers = meta["finalizers"].as_array().cloned().unwrap_or_default();
    if grant.allocation.is_some() && !finalizers.iter().any(|f| f == FINALIZER) {
        let mut finalizers = finalizers;
        finalizers.push(FINALIZER.into());
        let body = json!({"metadata": {"uid": grant.uid, "resourceVersion": version, "finalizers": finalizers}});
        let claim = path(&grant.namespace, &grant.name, "");
        send(client, "protect claim", Method::PATCH, claim, MERGE, &body).await?;
        let found = read(client, grant).await?;
        if !found["status"]["allocation"].is_null() {
            return Err(changed());
        }
        version = found["metadata"]["resourceVersion"].clone();
    }
    let reserved = found["status"]["reservedFor"].as_array();
    let mut reserved = reserved.cloned().unwrap_or_default();
    if !reserved.iter().any(|r| r["uid"].as_str() == Some(&pod.uid)) {
        reserved.push(json!({"resource": "pods", "name": &*pod.name, "uid": &*pod.uid}));
    }
    let mut status = json!({"reservedFor": reserved});
    if let Some(allocation) = &grant.allocation {
        status["allocation"] = json!(allocation);
        let now = Timestamp::now();
        status["allocation"]["allocationTimestamp"] =
            json!(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    }
    let body =
        json!({"metadata": {"uid": grant.uid, "resourceVersion": version}, "status": status});
    let claim = path(&grant.namespace, &grant.name, "/status");
    send(client, "allocate claim", Method::PATCH, claim, MERGE, &body).await
}

/// The pod will not use the claim after all. What it was given stays until somebody else asks for it.
pub(super) async fn withdraw(client: &Client, pod: &PodRef, grant: &Grant) {
    let body = json!({
        "metadata": {"uid": grant.uid},
        "status": {"reservedFor": [{"$patch": "delete", "uid": &*pod.uid}]},
    });
    let claim = path(&grant.namespace, &grant.name, "/status");
    let strategic = "application/strategic-merge-patch+json";
    let sent = send(
        client,
        "release claim",
        Method::PATCH,
        claim,
        strategic,
        &body,
    )
    .await;
    if let Err(error) = sent {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, claim = %grant.name, "claim not released; it is when the pod ends");
    }
}
