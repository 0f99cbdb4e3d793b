//! The shell of the quota controller.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_machinery::quota::{self as reckoning, Amounts};
use jiff::Timestamp;
use kube::api::{ListParams, Patch};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::plan::{self, Asking, Counted};
use super::watches::Watches;
use crate::model::quota::Quota;
use crate::model::{Key, Pod, QUOTAS};
use crate::runtime::discovery::{Catalogue, Served};
use crate::runtime::{ApiError, Context, Controller, Informer, Outcome, Queue, controller};

const NAME: &str = "resourcequota-controller";
/// Changes that come within this time are counted together.
const BATCH: Duration = Duration::from_millis(50);
/// A namespace is counted again only after this many times what its last count took.
const REST: u32 = 10;
/// Everything is counted anew this often.
const RESYNC: Duration = Duration::from_secs(300);
/// How soon to look again after a count that found less than the status said.
const RECHECK: Duration = Duration::from_secs(3);
/// Objects that are read at a time.
const PAGE: u32 = 1000;

/// When to count: soon, and the later the more there was to count.
pub struct Pace {
    queue: Arc<Queue<Key>>,
    took: Mutex<FxHashMap<Key, Duration>>,
}

impl Pace {
    pub fn look(&self, quota: Key) {
        let took = self.took.lock().get(&quota).copied().unwrap_or_default();
        self.queue.add_after(quota, BATCH.max(took * REST));
    }
}

struct Quotas {
    context: Context,
    catalogue: Catalogue,
    watches: Watches,
    pace: Arc<Pace>,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::new(Queue::default());
    let pace = Arc::new(Pace {
        queue: queue.clone(),
        took: Mutex::default(),
    });
    let informers = &context.informers;
    {
        let queue = queue.clone();
        informers.quotas.on_change(move |old, new| {
            // Limits in the status that are not those of the spec were written by somebody else.
            let same = matches!((old, new), (Some(o), Some(n))
                if o.spec == n.spec && n.status.get("hard") == o.status.get("hard"));
            if let Some(quota) = new.or(old)
                && !same
            {
                queue.add(quota.metadata.key());
            }
        });
    }
    let touch = |quotas: Arc<Informer<Quota>>, pace: Arc<Pace>| {
        move |namespace: &str| {
            for quota in quotas.in_namespace(namespace) {
                pace.look(quota.metadata.key());
            }
        }
    };
    {
        let touch = touch(informers.quotas.clone(), pace.clone());
        informers.pods.on_change(move |old, new| {
            if let Some(old) = old
                && new.is_none_or(|new| uses_less(old, new))
            {
                touch(&old.meta.namespace);
            }
        });
    }
    {
        let touch = touch(informers.quotas.clone(), pace.clone());
        informers.services.on_change(move |old, new| {
            if let Some(old) = old
                && new.is_none_or(|new| new.spec != old.spec)
            {
                touch(&old.metadata.namespace);
            }
        });
    }
    {
        let touch = touch(informers.quotas.clone(), pace.clone());
        // A claim seldom changes, and how it grows is not in the cache.
        informers.claims.on_change(move |old, _| {
            if let Some(old) = old {
                touch(&old.metadata.namespace);
            }
        });
    }
    let controller = Arc::new(Quotas {
        watches: Watches::new(
            context.api.clone(),
            informers.quotas.clone(),
            pace.clone(),
            context.stop.clone(),
        ),
        context: context.clone(),
        catalogue: Catalogue::default(),
        pace,
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

fn uses_less(old: &Pod, new: &Pod) -> bool {
    old.meta.uid != new.meta.uid
        || old.finished() != new.finished()
        || old.requests != new.requests
        || old.whole != new.whole
}

impl Controller for Quotas {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let Some(quota) = informers.quotas.get(key) else {
            self.pace.took.lock().remove(key);
            self.watches.retain_needed();
            return Ok(Outcome::Done);
        };
        let began = Instant::now();
        let mut used = Amounts::new();
        let mut found = BTreeSet::new();
        let mut asking = Asking::default();
        for counted in plan::counted(&quota.spec) {
            let (group, plural) = &counted;
            let is = |s: &Served| s.group == *group && s.plural == *plural && s.namespaced;
            // A resource that is not served (yet) is looked for again with the next resync.
            let Some(served) = self.catalogue.find(&self.context.api, is).await else {
                continue;
            };
            self.watches.watch(&served);
            let path = served.path(&key.namespace);
            self.count(&quota, &counted, &path, &mut used, &mut asking)
                .await?;
            found.insert(counted);
        }
        self.watches.retain_needed();
        self.pace.took.lock().insert(key.clone(), began.elapsed());
        let Some(fields) = plan::status(&quota.spec, &quota.status, &used, &found) else {
            return Ok(Outcome::After(RESYNC));
        };
        // The API server adds to the status with each request that it grants: what was counted from
        // an older state must not undo that.
        let patch = Patch::Merge(json!({
            "metadata": {
                "uid": &*quota.metadata.uid,
                "resourceVersion": quota.metadata.version.to_string(),
            },
            "status": fields,
        }));
        let status = Some("status");
        match self
            .context
            .api
            .patch::<Quota>(&QUOTAS, key, status, &patch)
            .await
        {
            Ok(written) => informers.quotas.apply(written),
            Err(error) if error.not_found() => return Ok(Outcome::Done),
            Err(error) => return Err(error),
        }
        Ok(Outcome::After(
            if plan::gives_back(&quota.status, &fields) {
                RECHECK
            } else {
                RESYNC
            },
        ))
    }
}

impl Quotas {
    /// Adds what the objects of one resource use.
    async fn count(
        &self,
        quota: &Quota,
        (group, plural): &Counted,
        path: &str,
        used: &mut Amounts,
        asking: &mut Asking,
    ) -> Result<(), ApiError> {
        let api = &self.context.api;
        let about = json!({"spec": &*quota.spec});
        let mut add = |amounts: Amounts| {
            for (name, value) in amounts {
                reckoning::put(used, name, value);
            }
        };
        if !reckoning::needs_objects(group, plural) {
            // Scopes take in nothing that has no place in them.
            if !reckoning::scoped(&about) {
                add(reckoning::number(group, plural, api.count(path).await?));
            }
            return Ok(());
        }
        let mut params = ListParams::default().limit(PAGE);
        let now = Timestamp::now();
        let resource = (&**group, &**plural);
        let mut claims = Vec::new();
        loop {
            let page = api.list::<Value>(path, &params, false).await?;
            for object in page.items {
                let counts = reckoning::in_scope(&about, group, plural, &object);
                if resource == reckoning::PODS {
                    let usage = reckoning::usage(group, plural, &object, now);
                    asking.note(&object, &usage);
                    if counts {
                        add(usage);
                    }
                } else if counts && resource == reckoning::CLAIMS {
                    claims.push(object);
                } else if counts {
                    add(reckoning::usage(group, plural, &object, now));
                }
            }
            if page.metadata.continue_token.is_empty() {
                break;
            }
            params.continue_token = Some(page.metadata.continue_token);
        }
        if claims.is_empty() {
            return Ok(());
        }
        let classes = self.resources_of_classes().await?;
        for claim in &claims {
            let mut usage = reckoning::usage(group, plural, claim, now);
            let resource = |class: &str| classes.get(class).cloned();
            reckoning::add_resources(&mut usage, resource, asking.of(claim, &claims));
            add(usage);
        }
        Ok(())
    }

    /// The extended resources that device classes stand for.
    async fn resources_of_classes(&self) -> Result<FxHashMap<String, String>, ApiError> {
        let api = &self.context.api;
        let is = |s: &Served| &*s.group == "resource.k8s.io" && &*s.plural == "deviceclasses";
        let Some(served) = self.catalogue.find(api, is).await else {
            return Ok(FxHashMap::default());
        };
        let mut classes = FxHashMap::default();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list::<Value>(&served.path(""), &params, false).await?;
            for class in &page.items {
                let name = class["metadata"]["name"].as_str();
                let resource = class["spec"]["extendedResourceName"].as_str();
                if let (Some(name), Some(resource)) = (name, resource) {
                    classes.insert(name.to_owned(), resource.to_owned());
                }
            }
            if page.metadata.continue_token.is_empty() {
                return Ok(classes);
            }
            params.continue_token = Some(page.metadata.continue_token);
        }
    }
}
