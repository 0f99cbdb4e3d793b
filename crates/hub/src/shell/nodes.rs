//! What moves to a node need to know of a member, and what they write there.

use std::{collections::BTreeMap, sync::Arc};

use gantry_api::Group;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch},
    core::{ApiResource, GroupVersionKind},
};
use tracing::debug;

use super::{
    act::{ActError, dynamic, failed, ignore_missing, params_apply},
    member::Member,
    slim::{Node, Notes},
    table::Key,
};
use crate::{amount::Amounts, group::nodes, release::room, world::CellView};

/// Adds to `cells` what the members have noted for the Group, and the nodes that its wishes name.
pub(super) async fn look(
    group: &Group,
    key: &Key,
    cells: &mut [CellView],
    members: &BTreeMap<String, Arc<Member>>,
) {
    let notes = (key.0.clone(), nodes::notes_name(&key.1));
    for cell in cells {
        let Some(member) = members.get(&cell.name) else {
            continue;
        };
        if member.notes.trouble().is_none() {
            let found = member.notes.get(&notes);
            cell.pins = Some(found.map(|n| n.data.clone()).unwrap_or_default());
        }
        for (name, counted) in nodes::to_be_known(group, cell) {
            let node = member.nodes.get(&(String::new(), name.to_owned()));
            let Some(node) = node.filter(|n| carries(n, &cell.node_selector)) else {
                continue;
            };
            let mut view = node.view();
            if counted && cell.reachable {
                match used(&member.client, name).await {
                    Ok(used) => view.used = Some(used),
                    Err(error) => debug!(%error, node = name, "cannot count a node's pods"),
                }
            }
            cell.nodes.insert(name.to_owned(), view);
        }
    }
}

fn carries(node: &Node, selector: &BTreeMap<String, String>) -> bool {
    let labels = node.metadata.labels.as_ref();
    let mut all = selector.iter();
    all.all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}

/// What the pods of a node ask for, whoever's they are.
async fn used(client: &Client, node: &str) -> Result<Amounts, kube::Error> {
    let pod = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let pods: Api<DynamicObject> = Api::all_with(client.clone(), &pod);
    let on_it = format!("spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed");
    let mut sum = Amounts::new();
    for pod in pods.list(&ListParams::default().fields(&on_it)).await? {
        *sum.entry("pods".to_owned()).or_default() += 1000;
        for (name, n) in room::asks(&pod.data) {
            if let Some(name) = name.strip_prefix("requests.") {
                *sum.entry(name.to_owned()).or_default() += n;
            }
        }
    }
    Ok(sum)
}

/// Notes these instances of a Group on a member, and no others.
pub(super) async fn write(
    member: &Member,
    key: &Key,
    pins: &BTreeMap<String, String>,
) -> Result<(), ActError> {
    let api: Api<Notes> = Api::namespaced(member.client.clone(), &key.0);
    if pins.is_empty() {
        let gone = api
            .delete(&nodes::notes_name(&key.1), &DeleteParams::default())
            .await;
        return ignore_missing(gone).map_err(failed("strike off moves to nodes"));
    }
    for object in nodes::policy() {
        let (api, name) = dynamic(&member.client, &object);
        let kind = object["kind"].as_str().unwrap_or_default();
        let applied = api
            .patch(&name, &params_apply(), &Patch::Apply(&object))
            .await;
        applied.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 => ActError::Missing(format!(
                "instances[].toNode: cluster {} does not serve {kind} of admissionregistration.k8s.io/v1, as Kubernetes does from 1.36 on: move to another cell, or cordon the node and restart the instance",
                member.name
            )),
            _ => failed("tell a member how instances are moved to nodes")(error),
        })?;
    }
    let notes = nodes::notes(&key.1, &key.0, pins);
    let applied = api
        .patch(
            &nodes::notes_name(&key.1),
            &params_apply(),
            &Patch::Apply(&notes),
        )
        .await;
    member
        .notes
        .put(applied.map_err(failed("note moves to nodes"))?);
    Ok(())
}
