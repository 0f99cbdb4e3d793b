//! ReleaseOrders: look, ask the planner, write the status, act.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

use gantry_api::{Release, ReleaseOrder, ReleaseOrderStatus, ReleaseSpec, labels, order::Made};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Map, Value, json};
use tracing::{debug, warn};

use super::{
    act::{ActError, failed},
    hub::Hub,
    member::Member,
    reconcile::{Outcome, bare_cell, params, patience},
    slim::Job,
    table::{Changed, Key},
};
use crate::{
    order::{self, Action, Button, JobView},
    world::CellView,
};

/// How long a Job stays once its end has been taken note of: its logs may be wanted.
const JOB_STAYS: u32 = 7 * 24 * 3600;

/// The order that a label names.
fn order_of(meta: &kube::core::ObjectMeta) -> Option<String> {
    meta.labels.as_ref()?.get(labels::ORDER).cloned()
}

/// The index of what orders have made.
pub fn by_order(job: &Job) -> Option<String> {
    order_of(&job.metadata)
}

impl Hub {
    /// An order has changed, or all were listed.
    pub(super) fn order_changed(&self, change: &Changed<'_, ReleaseOrder>) {
        match change {
            Changed::Object(order, _) => {
                self.order_queue
                    .add(super::table::key(*order), Duration::ZERO);
            }
            Changed::Listed(_) => self.orders_that_move(),
            Changed::Failing => {}
        }
    }

    /// A Release has changed: it may be of an order.
    pub(super) fn release_changed(&self, change: &Changed<'_, Release>) {
        if let Changed::Object(release, _) = change
            && let Some(order) = order_of(&release.metadata)
        {
            let tenant = release.namespace().unwrap_or_default();
            self.order_queue.add((tenant, order), Duration::ZERO);
        }
    }

    /// Orders that have not ended.
    pub(super) fn orders_that_move(&self) {
        for order in self.orders.all() {
            let ended = order.status.as_ref().is_some_and(|s| s.phase.is_final());
            if !ended {
                self.order_queue
                    .add(super::table::key(order.as_ref()), Duration::ZERO);
            }
        }
    }

    /// Keeps orders going.
    pub(super) async fn tend_orders(self: Arc<Self>, resync: Duration) {
        let mut failures: BTreeMap<Key, u32> = BTreeMap::new();
        loop {
            let key = tokio::select! {
                () = self.stop.cancelled() => return,
                key = self.order_queue.next() => key,
            };
            let outcome = tokio::select! {
                () = self.stop.cancelled() => return,
                outcome = self.reconcile_order(&key) => outcome,
            };
            self.order_queue.done(&key);
            let next = match outcome {
                Outcome::Done(None) => {
                    failures.remove(&key);
                    continue;
                }
                Outcome::Done(Some(at)) => {
                    failures.remove(&key);
                    Duration::try_from(at.duration_since(Timestamp::now()))
                        .unwrap_or(Duration::ZERO)
                        .min(resync)
                }
                Outcome::Conflict => Duration::from_millis(20),
                Outcome::Failed(why) => {
                    let n = failures.entry(key.clone()).or_default();
                    *n += 1;
                    warn!(namespace = %key.0, order = %key.1, %why, "order is tried again");
                    patience(*n)
                }
            };
            self.order_queue.add(key, next);
        }
    }

    async fn reconcile_order(&self, key: &Key) -> Outcome {
        let Some(order) = self.orders.get(key) else {
            self.order_refused(|refused| refused.retain(|(of, _), _| of != key));
            return Outcome::Done(None);
        };
        if order.metadata.deletion_timestamp.is_some() {
            return Outcome::Done(None);
        }
        let now = Timestamp::now();
        let releases = self.made_releases(key, &order);
        let (cells, members) = self.order_cells(&order);
        let lines = self.lines();
        let world = order::World {
            order: &order,
            groups: self.order_groups(key, &order),
            releases: releases.iter().map(|(n, r)| (n.clone(), &**r)).collect(),
            jobs: made_jobs(key, &order, &members),
            cells,
            lines: &lines,
            refused: self.order_refused(|refused| {
                let of_it = refused.iter().filter(|((of, _), _)| of == key);
                of_it
                    .map(|((_, n), why)| (n.clone(), why.clone()))
                    .collect()
            }),
        };
        let step = order::plan(&world, now);
        let ended = step.status.phase.is_final();
        if let Err(error) = self.write_order(&order, step.status).await {
            return outcome(error);
        }
        for action in step.actions {
            debug!(order = %key.1, ?action, "act");
            if let Err(error) = self.act_for_order(key, &members, action).await {
                return outcome(error);
            }
        }
        let resync = now.saturating_add(jiff::SignedDuration::from_mins(5));
        Outcome::Done(step.wake.or(resync.ok().filter(|_| !ended)))
    }

    fn order_refused<T>(&self, f: impl FnOnce(&mut BTreeMap<(Key, String), String>) -> T) -> T {
        f(&mut self
            .refused_by_order
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    fn order_groups(&self, key: &Key, order: &ReleaseOrder) -> BTreeMap<String, Option<i64>> {
        let names = order.spec.nodes.iter().filter_map(|n| n.release.as_ref());
        names
            .filter_map(|release| {
                let group = self.groups.get(&(key.0.clone(), release.group.clone()))?;
                let current = group.status.as_ref().and_then(|s| s.current.as_ref());
                Some((release.group.clone(), current.map(|c| c.revision)))
            })
            .collect()
    }

    fn made_releases(&self, key: &Key, order: &ReleaseOrder) -> BTreeMap<String, Arc<Release>> {
        made(order)
            .filter_map(|made| {
                let release = self.releases.get(&(key.0.clone(), made.name.clone()))?;
                Some((made.name.clone(), release))
            })
            .collect()
    }

    /// Cells that an order's Jobs run in, and their members.
    fn order_cells(
        &self,
        order: &ReleaseOrder,
    ) -> (BTreeMap<String, CellView>, BTreeMap<String, Arc<Member>>) {
        let wanted: BTreeSet<&str> = order
            .spec
            .nodes
            .iter()
            .filter_map(|n| Some(n.job.as_ref()?.cell.as_str()))
            .collect();
        let (mut cells, mut by_cell) = (BTreeMap::new(), BTreeMap::new());
        if wanted.is_empty() {
            return (cells, by_cell);
        }
        let (clusters, members) = (self.clusters.all(), self.members());
        for name in wanted {
            let mut cell = bare_cell(&clusters, name);
            if cell.cluster.is_empty() {
                continue;
            }
            cell.weight = Some(1);
            if let Some(member) = members.get(&cell.cluster) {
                let trouble = member.trouble().or_else(|| member.jobs.trouble());
                cell.reachable = trouble.is_none();
                cell.unreachable_since = trouble.map(|t| t.0);
                by_cell.insert(name.to_owned(), member.clone());
            }
            cells.insert(name.to_owned(), cell);
        }
        (cells, by_cell)
    }

    async fn write_order(
        &self,
        order: &ReleaseOrder,
        status: ReleaseOrderStatus,
    ) -> Result<(), ActError> {
        if order.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let op = if order.status.is_some() {
            "replace"
        } else {
            "add"
        };
        // At the version that was looked at: a button pressed meanwhile is a conflict.
        let patch = json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": order.metadata.resource_version},
            {"op": op, "path": "/status", "value": status},
        ]);
        let patch: json_patch::Patch = serde_json::from_value(patch)
            .map_err(|e| ActError::Missing(format!("build a patch: {e}")))?;
        let namespace = order.namespace().unwrap_or_default();
        let api: Api<ReleaseOrder> = Api::namespaced(self.client.clone(), &namespace);
        let written = api
            .patch_status(&order.name_any(), &params(), &Patch::Json::<()>(patch))
            .await
            .map_err(failed("write the order's status"))?;
        self.orders.put(written);
        Ok(())
    }

    async fn act_for_order(
        &self,
        key: &Key,
        members: &BTreeMap<String, Arc<Member>>,
        action: Action,
    ) -> Result<(), ActError> {
        let member = |cell: &str| {
            members.get(cell).ok_or_else(|| {
                ActError::Missing(format!("cell {cell} belongs to no connected cluster"))
            })
        };
        match action {
            Action::CreateRelease { name, spec } => self.create_release(key, &name, *spec).await,
            Action::Press { name, button } => {
                let spec = match button {
                    Button::Pause(paused) => json!({"paused": paused}),
                    Button::Abort => json!({"abort": true}),
                    Button::Rollback => json!({"rollback": true}),
                };
                let api: Api<Release> = Api::namespaced(self.client.clone(), &key.0);
                let pressed = api
                    .patch(&name, &params(), &Patch::Merge(&json!({"spec": spec})))
                    .await
                    .map_err(failed("press a button of a release"))?;
                self.releases.put(pressed);
                Ok(())
            }
            Action::CreateJob { cell, name, spec } => {
                self.create_job(key, member(&cell)?, &cell, &name, spec)
                    .await
            }
            Action::ExpireJob { cell, name } => {
                let member = member(&cell)?;
                let api: Api<Job> = Api::namespaced(member.client.clone(), &key.0);
                let patch = json!({"spec": {"ttlSecondsAfterFinished": JOB_STAYS}});
                match api.patch(&name, &params(), &Patch::Merge(&patch)).await {
                    Ok(job) => {
                        member.jobs.put(job);
                        Ok(())
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    Err(error) => Err(failed("let a job expire")(error)),
                }
            }
        }
    }

    /// What the API will not have under any circumstances is told to the planner.
    fn made_or_refused<K>(
        &self,
        key: &Key,
        name: &str,
        what: &str,
        made: Result<K, kube::Error>,
    ) -> Result<Option<K>, ActError> {
        match made {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 404 | 422) => {
                let why = format!("{what} {name} is refused: {}", status.message);
                self.order_refused(|r| r.insert((key.clone(), name.to_owned()), why));
                self.order_queue.add(key.clone(), Duration::ZERO);
                Ok(None)
            }
            Err(error) => Err(failed(&format!("make {what} {name}"))(error)),
        }
    }

    async fn create_release(
        &self,
        key: &Key,
        name: &str,
        spec: ReleaseSpec,
    ) -> Result<(), ActError> {
        let api: Api<Release> = Api::namespaced(self.client.clone(), &key.0);
        let mut release = Release::new(name, spec);
        let labels = release.metadata.labels.get_or_insert_default();
        labels.insert(labels::ORDER.to_owned(), key.1.clone());
        let made = match api.create(&post(), &release).await {
            // By an earlier try whose answer was lost, or by someone else: the planner tells which.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                api.get(name).await
            }
            made => made,
        };
        if let Some(made) = self.made_or_refused(key, name, "release", made)? {
            self.releases.put(made);
            self.order_queue.add(key.clone(), Duration::ZERO);
        }
        Ok(())
    }

    async fn create_job(
        &self,
        key: &Key,
        member: &Member,
        cell: &str,
        name: &str,
        spec: Map<String, Value>,
    ) -> Result<(), ActError> {
        let selector = bare_cell(&self.clusters.all(), cell).node_selector;
        let job = job_object(key, cell, name, spec, &selector);
        let namespaces: Api<Namespace> = Api::all(member.client.clone());
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key.0}});
        let apply = PatchParams::apply(labels::FIELD_MANAGER).force();
        namespaces
            .patch(&key.0, &apply, &Patch::Apply(&namespace))
            .await
            .map_err(failed("apply the namespace of a job"))?;
        let api: Api<kube::api::DynamicObject> =
            Api::namespaced_with(member.client.clone(), &key.0, &job_resource());
        let object = serde_json::from_value(job)
            .map_err(|e| ActError::Missing(format!("build a job: {e}")))?;
        let made = match api.create(&post(), &object).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                api.get(name).await
            }
            made => made,
        };
        if let Some(made) = self.made_or_refused(key, name, "job", made)? {
            let slim = serde_json::to_value(&made).and_then(serde_json::from_value::<Job>);
            if let Ok(job) = slim {
                member.jobs.put(job);
            }
            self.order_queue.add(key.clone(), Duration::ZERO);
        }
        Ok(())
    }
}

fn post() -> PostParams {
    PostParams {
        field_manager: Some(labels::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn job_resource() -> kube::core::ApiResource {
    kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("batch", "v1", "Job"))
}

/// The Job as the member gets it: in its cell.
fn job_object(
    key: &Key,
    cell: &str,
    name: &str,
    mut spec: Map<String, Value>,
    selector: &BTreeMap<String, String>,
) -> Value {
    let template = spec.entry("template").or_insert_with(|| json!({}));
    let pod = &mut template["spec"];
    if pod.is_null() {
        *pod = json!({});
    }
    for (label, value) in selector {
        pod["nodeSelector"][label] = json!(value);
    }
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name, "namespace": key.0,
            "labels": {labels::ORDER: key.1, labels::CELL: cell, labels::MANAGED_BY: labels::MANAGER},
        },
        "spec": spec,
    })
}

/// What an order's nodes have made, as its status names it.
fn made(order: &ReleaseOrder) -> impl Iterator<Item = &Made> {
    let nodes = order.status.iter().flat_map(|s| &s.nodes);
    nodes.flat_map(|n| n.made.iter().chain(&n.undo))
}

fn made_jobs(
    key: &Key,
    order: &ReleaseOrder,
    members: &BTreeMap<String, Arc<Member>>,
) -> BTreeMap<String, JobView> {
    let mut jobs = BTreeMap::new();
    for node in order.status.iter().flat_map(|s| &s.nodes) {
        let wanted = order.spec.nodes.iter().find(|n| n.name == node.name);
        let Some(member) = wanted
            .and_then(|n| n.job.as_ref())
            .and_then(|job| members.get(&job.cell))
        else {
            continue;
        };
        for made in node.made.iter().chain(&node.undo) {
            if let Some(job) = member.jobs.get(&(key.0.clone(), made.name.clone())) {
                jobs.insert(made.name.clone(), job.view(&key.1));
            }
        }
    }
    jobs
}

fn outcome(error: ActError) -> Outcome {
    match error {
        ActError::Conflict(_) => Outcome::Conflict,
        error => Outcome::Failed(error.to_string()),
    }
}
