//! What every namespace has: the service account `default`, and the certificate of the API server
//! in the ConfigMap `kube-root-ca.crt`, by which pods know it.
//!
//! Behaviour is that of the `serviceaccount` and `root-ca-cert-publisher` controllers of Kubernetes.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::Patch;
use serde_json::json;
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::node::{ConfigMap, ServiceAccount};
use crate::model::{CONFIG_MAPS, Key, SERVICE_ACCOUNTS};
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const ACCOUNT: &str = "default";
const CERTIFICATE: &str = "kube-root-ca.crt";
const CERTIFICATE_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// As Kubernetes says it.
const ABOUT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

struct Accounts {
    context: Context,
}

struct Certificates {
    context: Context,
    pem: String,
}

/// The namespaces of a queue, as keys whose name is the namespace's.
fn follow_namespaces(context: &Context, queue: &Arc<Queue<Key>>) {
    let queue = queue.clone();
    context.informers.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new {
            queue.add(namespace.metadata.key());
        }
    });
}

/// Whether there is a namespace to put something into.
fn open(context: &Context, key: &Key) -> bool {
    context
        .informers
        .namespaces
        .get(key)
        .is_some_and(|n| n.metadata.deleted.is_none() && n.status.phase != "Terminating")
}

/// Keeps the account `default` in each namespace.
pub fn start_accounts(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    follow_namespaces(context, &queue);
    {
        let queue = queue.clone();
        context
            .informers
            .service_accounts
            .on_change(move |old, new| {
                if let (Some(old), None) = (old, new) {
                    queue.add(Key::new("", &old.metadata.namespace));
                }
            });
    }
    let controller = Arc::new(Accounts {
        context: context.clone(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Accounts {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let cache = &self.context.informers.service_accounts;
        let account = Key::new(&key.name, ACCOUNT);
        if !open(&self.context, key) || cache.get(&account).is_some() {
            return Ok(Outcome::Done);
        }
        let object = json!({
            "apiVersion": "v1",
            "kind": SERVICE_ACCOUNTS.kind,
            "metadata": {"name": ACCOUNT, "namespace": &*key.name},
        });
        match self
            .context
            .api
            .create::<ServiceAccount>(&SERVICE_ACCOUNTS, &key.name, &object)
            .await
        {
            Ok(created) => cache.apply(created),
            Err(error) if error.already_exists() || error.namespace_terminating() => {}
            Err(error) => return Err(error),
        }
        Ok(Outcome::Done)
    }
}

/// Keeps the certificate `pem` in each namespace.
pub fn start_certificates(
    context: &Context,
    workers: usize,
    pem: String,
) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    follow_namespaces(context, &queue);
    {
        let queue = queue.clone();
        context
            .informers
            .root_certificates
            .on_change(move |old, new| {
                if let Some(map) = new.or(old) {
                    queue.add(Key::new("", &map.metadata.namespace));
                }
            });
    }
    let controller = Arc::new(Certificates {
        context: context.clone(),
        pem,
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for Certificates {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let cache = &self.context.informers.root_certificates;
        let map = Key::new(&key.name, CERTIFICATE);
        if !open(&self.context, key) {
            return Ok(Outcome::Done);
        }
        let data: BTreeMap<&str, &str> = [(CERTIFICATE_KEY, self.pem.as_str())].into();
        match cache.get(&map) {
            Some(there)
                if there.data.len() == 1 && there.data.get(CERTIFICATE_KEY) == Some(&self.pem) => {}
            Some(there) => {
                // What others have put beside it goes.
                let mut whole: BTreeMap<&str, Option<&str>> =
                    there.data.keys().map(|key| (key.as_str(), None)).collect();
                whole.extend(data.iter().map(|(key, value)| (*key, Some(*value))));
                let patch = Patch::Merge(json!({
                    "metadata": {"annotations": {DESCRIPTION: ABOUT}},
                    "data": whole,
                }));
                self.context
                    .api
                    .patch::<MetaOnly>(&CONFIG_MAPS, &map, None, &patch)
                    .await?;
            }
            None => {
                let object = json!({
                    "apiVersion": "v1",
                    "kind": CONFIG_MAPS.kind,
                    "metadata": {
                        "name": CERTIFICATE,
                        "namespace": &*key.name,
                        "annotations": {DESCRIPTION: ABOUT},
                    },
                    "data": data,
                });
                match self
                    .context
                    .api
                    .create::<ConfigMap>(&CONFIG_MAPS, &key.name, &object)
                    .await
                {
                    Ok(created) => cache.apply(created),
                    Err(error) if error.already_exists() || error.namespace_terminating() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Outcome::Done)
    }
}
