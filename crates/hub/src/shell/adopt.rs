//! Adoptions and leavings: whole objects are read from the member while one is under way, and the planner's
//! deeds are done. Afterwards nothing here is asked again.

use std::collections::BTreeMap;

use gantry_api::{
    Group,
    group::{Adopt, AdoptKind, Adopted, OnDelete},
    labels,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client,
    api::{
        DeleteParams, DynamicObject, ListParams, Patch, PostParams, Preconditions,
        PropagationPolicy,
    },
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{
    act::{ActError, Hands, failed, ignore_missing},
    hub::Hub,
    member::Member,
    reconcile::params,
    table::Key,
};
use crate::{
    adopt::{self, Deed, Found, Kind, Step, leave, read},
    render::{self, Source},
    world::CellView,
};

/// How an adoption or a leaving stands.
pub(super) enum Held {
    /// There is none under way.
    No,
    /// It waits for this; look again then.
    Waits(String, Timestamp),
    /// It has come through.
    Came(Adopted),
}

/// Between two looks while something is being done, and while something is in the way.
const SOON: SignedDuration = SignedDuration::from_millis(200);
const LATER: SignedDuration = SignedDuration::from_secs(5);

fn api(client: &Client, namespace: &str, kind: Kind) -> Api<DynamicObject> {
    let (group, version, kind) = kind.gvk();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// One namespace of a member, read from its API server.
struct Remote<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl read::Reader for Remote<'_> {
    type Error = kube::Error;

    async fn get(&self, kind: Kind, name: &str) -> Result<Option<Value>, kube::Error> {
        let found = api(self.client, self.namespace, kind).get_opt(name).await?;
        found.map(value).transpose()
    }

    async fn list(&self, kind: Kind, selector: &str) -> Result<Vec<Value>, kube::Error> {
        let params = ListParams::default().labels(selector);
        let found = api(self.client, self.namespace, kind).list(&params).await?;
        found.items.into_iter().map(value).collect()
    }
}

fn value(object: DynamicObject) -> Result<Value, kube::Error> {
    serde_json::to_value(object).map_err(kube::Error::SerdeError)
}

/// What is on a member of the workload that the Group `group` adopts; the cells of nodes are left open.
///
/// # Errors
/// Where the member cannot be read.
pub async fn look(
    client: &Client,
    namespace: &str,
    adopt: &Adopt,
    group: &str,
) -> Result<Found, kube::Error> {
    read::found(&Remote { client, namespace }, adopt, group).await
}

/// Does what a planner of adoptions says, on one member.
pub(super) async fn carry_out(
    hands: &Hands<'_>,
    member: &Member,
    namespace: &str,
    deeds: &[Deed],
) -> Result<(), ActError> {
    let client = &member.client;
    for deed in deeds {
        match deed {
            Deed::Record(revision) => hands.create_revision(revision).await?,
            Deed::Patch { kind, name, patch } => {
                api(client, namespace, *kind)
                    .patch(name, &params(), &Patch::Merge(patch))
                    .await
                    .map_err(failed(&format!("patch {} {name}", kind.gvk().2)))?;
            }
            Deed::Orphan { kind, name, uid } => {
                let params = DeleteParams {
                    propagation_policy: Some(PropagationPolicy::Orphan),
                    preconditions: Some(Preconditions {
                        uid: Some(uid.clone()),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                ignore_missing(api(client, namespace, *kind).delete(name, &params).await)
                    .map_err(failed(&format!("delete {} {name}", kind.gvk().2)))?;
            }
            Deed::Serve { name, version } => {
                let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let patch = json!({
                    "metadata": {"resourceVersion": version},
                    "status": {"conditions": [{
                        "type": labels::IN_SERVICE, "status": "True", "reason": "InService",
                        "message": "", "lastTransitionTime": now,
                    }]},
                });
                Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client.clone(), namespace)
                    .patch_status(name, &params(), &Patch::Strategic(&patch))
                    .await
                    .map_err(failed("open an instance's gate"))?;
            }
            Deed::Create { kind, object } => {
                let object: DynamicObject = serde_json::from_value((**object).clone())
                    .map_err(|e| ActError::Missing(format!("build an object: {e}")))?;
                let post = PostParams {
                    field_manager: Some(labels::FIELD_MANAGER.to_owned()),
                    ..PostParams::default()
                };
                api(client, namespace, *kind)
                    .create(&post, &object)
                    .await
                    .map_err(failed(&format!("make a {}", kind.gvk().2)))?;
            }
        }
    }
    Ok(())
}

fn later(step: Step, now: Timestamp, begun: bool) -> Held {
    let span = if step.deeds.is_empty() && !begun {
        LATER
    } else {
        SOON
    };
    let at = now.saturating_add(span).unwrap_or(Timestamp::MAX);
    Held::Waits(step.waits, at)
}

impl Hub {
    /// Goes on with what the Group adopts, or with leaving its instances.
    pub(super) async fn hold(
        &self,
        hands: &Hands<'_>,
        key: &Key,
        cells: &[CellView],
        now: Timestamp,
    ) -> Result<Held, ActError> {
        let group = hands.group;
        let going = group.metadata.deletion_timestamp.is_some();
        let adopted = group.status.as_ref().is_some_and(|s| s.adopted.is_some());
        let begun = !hands.revisions.is_empty();
        if let Some(adopt) = &group.spec.adopt
            && !adopted
            && (begun || !going)
        {
            return self.adopt(hands, key, adopt, cells, now).await;
        }
        if going && !group.spec.on_delete.is_remove() {
            return self.leave(hands, key, cells, now).await;
        }
        Ok(Held::No)
    }

    async fn adopt(
        &self,
        hands: &Hands<'_>,
        key: &Key,
        adopt: &Adopt,
        cells: &[CellView],
        now: Timestamp,
    ) -> Result<Held, ActError> {
        let begun = !hands.revisions.is_empty();
        let wait = |why: String| {
            later(
                Step {
                    waits: why,
                    ..Step::default()
                },
                now,
                begun,
            )
        };
        let finalizers = hands.group.metadata.finalizers.iter().flatten();
        if !finalizers.into_iter().any(|f| f == labels::FINALIZER) {
            return Ok(Held::Waits("begins".to_owned(), now));
        }
        let Some(app) = hands.app else {
            return Ok(wait(format!("app {} does not exist", hands.group.spec.app)));
        };
        let home = cells.iter().find(|c| c.name == adopt.cell);
        let (Some(home), Some(member)) = (home, hands.members.get(&adopt.cell)) else {
            return Ok(wait(format!(
                "adopt.cell {} is none of placement.cells, or no connected cluster has it",
                adopt.cell
            )));
        };
        if !home.reachable {
            return Ok(wait(crate::release::unreachable(home)));
        }
        let mut found = look(&member.client, &key.0, adopt, &key.1)
            .await
            .map_err(failed("look at what is to be adopted"))?;
        found.cells = nodes(member, cells);
        found.guests = cells.iter().map(|c| c.guests.len() as i32).sum();
        let none = BTreeMap::new();
        let world = adopt::World {
            adopt,
            source: Source::new(app, hands.group),
            namespace: &key.0,
            revisions: hands.revisions,
            selector: hands.selectors.get(&adopt.cell).unwrap_or(&none),
            found: &found,
        };
        let step = adopt::plan(&world);
        carry_out(hands, member, &key.0, &step.deeds).await?;
        if !step.done() {
            return Ok(later(step, now, begun));
        }
        // What the watches show has to be there before anyone decides on it.
        let seen = match adopt.kind {
            AdoptKind::StatefulSet => found.workload.is_none() || home.set.is_some(),
            AdoptKind::Deployment => true,
        };
        if !seen {
            return Ok(wait("waits to see the StatefulSet".to_owned()));
        }
        Ok(Held::Came(Adopted {
            at: Time(now),
            instances: step.instances,
        }))
    }

    async fn leave(
        &self,
        hands: &Hands<'_>,
        key: &Key,
        cells: &[CellView],
        now: Timestamp,
    ) -> Result<Held, ActError> {
        let group = hands.group;
        let mut waits = Vec::new();
        let current = group.status.as_ref().and_then(|s| s.current.as_ref());
        let revision = current.and_then(|c| hands.revisions.get(&c.revision));
        for cell in cells {
            let Some(member) = hands.members.get(&cell.name) else {
                continue;
            };
            if !cell.reachable {
                waits.push(crate::release::unreachable(cell));
                continue;
            }
            let world = self.left(hands, key, cell, member, revision).await;
            let world = world.map_err(failed("look at what a group leaves"))?;
            let step = leave::plan(&world);
            carry_out(hands, member, &key.0, &step.deeds).await?;
            if !step.done() {
                waits.push(format!("{}: {}", cell.name, step.waits));
            }
        }
        if !waits.is_empty() {
            let step = Step {
                waits: waits.join("; "),
                ..Step::default()
            };
            return Ok(later(step, now, true));
        }
        let mut done = std::collections::BTreeSet::new();
        for (name, member) in hands.members {
            if cells.iter().any(|c| c.name == *name) && done.insert(member.name.clone()) {
                hands.leave_support(member).await?;
            }
        }
        Ok(Held::No)
    }

    async fn left(
        &self,
        hands: &Hands<'_>,
        key: &Key,
        cell: &CellView,
        member: &Member,
        revision: Option<&crate::world::Revision>,
    ) -> Result<leave::World, kube::Error> {
        let (client, namespace) = (&member.client, key.0.as_str());
        let group: &Group = hands.group;
        let set_name = group.set_in(&cell.name);
        let plain = group.spec.on_delete == OnDelete::LeaveDeployments || !cell.guests.is_empty();
        let was = group
            .spec
            .adopt
            .as_ref()
            .filter(|a| a.kind == AdoptKind::Deployment && a.cell == cell.name);
        let world = leave::World {
            group: key.1.clone(),
            namespace: namespace.to_owned(),
            cell: cell.name.clone(),
            deployment: plain.then(|| was.map_or_else(|| set_name.clone(), |a| a.name.clone())),
            template: revision.map_or(Value::Null, |r| {
                render::cell_template(r, &cell.name, &cell.node_selector)
            }),
            ..leave::World::default()
        };
        read::left(&Remote { client, namespace }, world, &set_name).await
    }
}

/// The Group's cells by node of a member.
fn nodes(member: &Member, cells: &[CellView]) -> BTreeMap<String, String> {
    let mut by_node = BTreeMap::new();
    for node in member.nodes.all() {
        let labels = node.metadata.labels.as_ref();
        let of = |c: &&CellView| {
            let mut all = c.node_selector.iter();
            c.cluster == member.name && all.all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
        };
        if let (Some(cell), Some(name)) = (cells.iter().find(of), &node.metadata.name) {
            by_node.insert(name.clone(), cell.name.clone());
        }
    }
    by_node
}
