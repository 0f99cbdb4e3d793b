//! The objects that are there from the start, and the clean-up of old events.

mod policy;

use std::{sync::Arc, time::Duration};

use gantry_machinery::status::Failure;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use crate::{
    allocate,
    api::{Api, Cx},
    audit,
    authn::{MASTERS, UserInfo},
    object,
    request::{Query, Target},
    respond::Output,
    rest::{
        create::{self, Ownership},
        delete,
    },
};

pub use policy::roles;

/// A request of the server's own.
pub fn own(
    api: &Arc<Api>,
    group: &str,
    version: &str,
    plural: &str,
    namespace: &str,
) -> Option<Cx> {
    let entry = api.registry.read().lookup(group, version, plural)?.clone();
    let mut headers = HeaderMap::new();
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static("kube-apiserver"),
    );
    Some(Cx {
        api: api.clone(),
        entry,
        target: Target {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            ..Target::default()
        },
        query: Query::default(),
        user: Arc::new(UserInfo::new("system:apiserver", &[MASTERS]).authenticated()),
        headers,
        output: Output::JSON,
        now: jiff::Timestamp::now(),
        warnings: vec![],
        notes: audit::Notes::default(),
        own: true,
        pieces: Default::default(),
        conversions: Default::default(),
    })
}

/// Creates an object unless there is one of its name.
pub async fn ensure(
    api: &Arc<Api>,
    group: &str,
    plural: &str,
    namespace: &str,
    object: Value,
) -> Result<(), Failure> {
    let Some(mut cx) = own(api, group, "v1", plural, namespace) else {
        return Ok(());
    };
    let key = cx.key(object::name(&object));
    if api.store.get(&key).is_some() {
        return Ok(());
    }
    match create::object_of(&mut cx, object, Ownership::Update).await {
        Err(failure) if failure.reason != "AlreadyExists" => Err(failure),
        _ => Ok(()),
    }
}

/// Creates what a cluster cannot be without.
pub async fn run(api: &Arc<Api>) -> Result<(), Failure> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(
            api,
            "",
            "namespaces",
            "",
            json!({"metadata": {"name": name}}),
        )
        .await?;
    }
    for (name, value, what) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({
            "metadata": {"name": name}, "value": value, "description": what,
        });
        ensure(api, "scheduling.k8s.io", "priorityclasses", "", class).await?;
    }
    policy::reconcile(api).await?;
    range(api).await?;
    if let Err(failure) = service(api).await {
        // Its address may be in a range that is not there any more: it is tried again (`repair`).
        tracing::warn!(%failure, "the kubernetes Service");
    }
    crate::endpoints::publish(api).await?;
    crate::flow::ensure(api).await?;
    crate::aggregate::register::settle(api, true).await?;
    crate::aggregate::trust::publish(api).await
}

/// The name of the range that the server is configured with.
pub const RANGE: &str = "kubernetes";

/// Creates the range of addresses that the server is configured with.
pub async fn range(api: &Arc<Api>) -> Result<(), Failure> {
    let (base, bits) = api.config.service_cidr;
    let cidr = json!({
        "metadata": {"name": RANGE}, "spec": {"cidrs": [format!("{base}/{bits}")]},
    });
    ensure(api, "networking.k8s.io", "servicecidrs", "", cidr).await
}

/// Creates the Service by which the server is known.
pub async fn service(api: &Arc<Api>) -> Result<(), Failure> {
    let service = json!({
        "metadata": {
            "name": "kubernetes",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": allocate::first_address(api.config.service_cidr).to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": api.external.port()}],
            "sessionAffinity": "None", "type": "ClusterIP",
        },
    });
    ensure(api, "", "services", "default", service).await
}

/// How often events are looked through.
const SWEEP: Duration = Duration::from_secs(60);

/// Deletes events that have been kept as long as configured.
pub async fn expire_events(api: Arc<Api>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = api.stop.cancelled() => return,
        }
        let Ok(age) = jiff::SignedDuration::try_from(api.config.event_ttl) else {
            return;
        };
        let before = jiff::Timestamp::now() - age;
        let snapshot = api.store.snapshot("/events");
        for stored in snapshot.iter() {
            if api.stop.is_cancelled() {
                return;
            }
            let Ok(event) = serde_json::from_slice::<Value>(&stored.value) else {
                continue;
            };
            let touched = [
                object::text(&event, "/series/lastObservedTime"),
                object::text(&event, "/lastTimestamp"),
                object::text(&event, "/eventTime"),
                object::meta_text(&event, "creationTimestamp"),
            ]
            .into_iter()
            .filter_map(|t| t.parse::<jiff::Timestamp>().ok())
            .max();
            if touched.is_none_or(|t| t > before) {
                continue;
            }
            let namespace = object::meta_text(&event, "namespace");
            let Some(mut cx) = own(&api, "", "v1", "events", namespace) else {
                return;
            };
            let options = delete::Options {
                uid: object::meta_text(&event, "uid").to_owned(),
                ..delete::Options::default()
            };
            if let Err(failure) = delete::one(&mut cx, object::name(&event), &options).await
                && failure.code != 404
                && failure.code != 409
            {
                tracing::warn!(%failure, "deleting an old event");
            }
        }
    }
}
