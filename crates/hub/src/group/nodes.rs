//! Moves of single instances to a node of their own cell: when one is due, what is in its way, and which pods of the
//! Group belong on which node. A StatefulSet's template cannot choose a node for one of its pods: the member is told
//! by name ([`pins`]), and an admission policy there puts the node into the pod as it is made.
//!
//! An instance's name is noted before its pod goes, and struck off once the new one is ready there or nobody asks for
//! it any more. A note is added while the old pod is seen only: whoever comes upon one that has gone already cannot
//! tell for what, and lets the next pod be placed freely. Who replaces the old pod is all one: a release may be faster.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::group::{InstanceWish, ToNode};
use gantry_api::{Group, labels};
use serde_json::{Value, json};

use super::World;
use crate::{
    action::Action,
    amount::{Amounts, shown},
    release::room,
    world::{CellView, Instance, NodeView, Taint},
};

/// Name of the policy and of its binding on a member.
pub const POLICY: &str = "instance-moves.gantry.dev";

/// Name of the Group's ConfigMap with the notes.
pub fn notes_name(group: &str) -> String {
    format!("{group}.moves")
}

/// The move that is asked for `instance` and has not begun.
pub fn due<'a>(wish: &'a InstanceWish, instance: &Instance) -> Option<&'a ToNode> {
    let to = stands(wish)?;
    let old = instance.created.is_some_and(|made| made < to.before.0);
    let there = instance.node == to.name || instance.pinned.as_ref() == Some(&to.name);
    (old && !there).then_some(to)
}

/// The node that is asked for, where nothing else is asked that goes against it.
fn stands(wish: &InstanceWish) -> Option<&ToNode> {
    let other = wish.out_of_service || wish.remove || wish.to.is_some();
    wish.to_node.as_ref().filter(|_| !other)
}

/// Nodes of `cell` that have to be known, and whether their pods have to be counted.
pub fn to_be_known<'a>(group: &'a Group, cell: &CellView) -> BTreeMap<&'a str, bool> {
    let mut nodes = BTreeMap::new();
    for (wish, ordinal) in of_cell(group, cell) {
        let Some(to) = stands(wish) else { continue };
        let instance = cell.instances.get(&ordinal);
        let due = instance.is_some_and(|i| due(wish, i).is_some());
        *nodes.entry(to.name.as_str()).or_default() |= due;
    }
    nodes
}

/// Entries for instances that `cell` is to have, with their ordinals.
fn of_cell<'a>(
    group: &'a Group,
    cell: &CellView,
) -> impl Iterator<Item = (&'a InstanceWish, i32)> + use<'a> {
    let stem = cell
        .set_name
        .clone()
        .unwrap_or_else(|| group.set_in(&cell.name));
    let replicas = cell.replicas();
    group.spec.instances.iter().filter_map(move |w| {
        let ordinal = super::people::ordinal(&stem, &w.name)?;
        (0..replicas).contains(&ordinal).then_some((w, ordinal))
    })
}

/// What the pods that are about to come ask of each node.
#[derive(Debug, Default)]
pub(super) struct Promised(BTreeMap<(String, String), Amounts>);

impl Promised {
    pub(super) fn add(&mut self, cell: &CellView, to: &ToNode, asks: &Amounts) {
        let key = (cell.cluster.clone(), to.name.clone());
        let sum = self.0.entry(key).or_default();
        for (name, n) in asks {
            *sum.entry(name.clone()).or_default() += n;
        }
    }
}

/// What a new pod of `instance` asks of a node, on the revision that asks for most.
pub(super) fn asks(world: &World<'_>, instance: &Instance) -> Amounts {
    let mut all = Amounts::from([("pods".to_owned(), 1000)]);
    for template in templates(world, instance) {
        for (name, n) in room::asks(template) {
            if let Some(name) = name.strip_prefix("requests.") {
                let most = all.entry(name.to_owned()).or_default();
                *most = n.max(*most);
            }
        }
    }
    all
}

/// Templates that the next pod of `instance` may be made from: a release may be faster than the move.
fn templates<'a>(
    world: &World<'a>,
    instance: &Instance,
) -> impl Iterator<Item = &'a Value> + use<'a> {
    let status = world.group.status.as_ref();
    let current = status.and_then(|s| s.current.as_ref()).map(|c| c.revision);
    let target = world.release.target.as_ref().map(|t| t.revision);
    let numbers = [instance.revision.or(current), target];
    let revisions = world.revisions;
    let mut all = numbers.into_iter().flatten();
    std::iter::from_fn(move || all.next())
        .filter_map(|n| revisions.get(&n))
        .map(|r| &r.template)
}

/// What is in the way of a move: the field, what is wrong, what to do.
pub(super) fn refusal(
    world: &World<'_>,
    cell: &CellView,
    instance: &Instance,
    to: &ToNode,
    promised: &Promised,
) -> Option<String> {
    let node = &to.name;
    let field = format!("instances[{}].toNode.name", instance.name);
    let why = match cell.nodes.get(node) {
        None => format!(
            "cell {} has no node {node}: choose one that carries the cell's labels",
            cell.name
        ),
        Some(view) => closed(node, view, templates(world, instance))
            .or_else(|| full(world, cell, instance, to, view, promised))?,
    };
    Some(format!("{field}: {why}"))
}

/// Why no pod of one of these templates is placed on the node, whatever room there is.
fn closed<'a>(
    node: &str,
    view: &NodeView,
    mut templates: impl Iterator<Item = &'a Value>,
) -> Option<String> {
    if !view.ready {
        return Some(format!(
            "node {node} is not ready: wait until it is, or choose another"
        ));
    }
    if view.cordoned {
        return Some(format!(
            "node {node} is cordoned: kubectl uncordon {node}, or choose another"
        ));
    }
    let taint = templates.find_map(|template| {
        let all = template["spec"]["tolerations"].as_array();
        let all = all.map_or(&[][..], Vec::as_slice);
        let mut taints = view.taints.iter();
        taints.find(|t| t.effect != "PreferNoSchedule" && !all.iter().any(|a| tolerated(t, a)))
    })?;
    Some(format!(
        "node {node} has the taint {}={}:{}, which the revision does not tolerate: choose another",
        taint.key, taint.value, taint.effect
    ))
}

fn tolerated(taint: &Taint, toleration: &Value) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    let effect = matches!(text("effect"), "") || text("effect") == taint.effect;
    let key = text("key") == taint.key || text("key").is_empty() && text("operator") == "Exists";
    effect && key && (text("operator") == "Exists" || text("value") == taint.value)
}

/// Which resource the node has too little of.
fn full(
    world: &World<'_>,
    cell: &CellView,
    instance: &Instance,
    to: &ToNode,
    view: &NodeView,
    promised: &Promised,
) -> Option<String> {
    let node = &to.name;
    let Some(used) = &view.used else {
        return Some(format!(
            "the pods of node {node} cannot be read, and so not what room it has: look whether {} answers",
            cell.cluster
        ));
    };
    let taken = promised.0.get(&(cell.cluster.clone(), node.clone()));
    for (resource, asked) in asks(world, instance) {
        let get = |all: &Amounts| all.get(&resource).copied().unwrap_or(0);
        let total = get(&view.total);
        let left = (total - get(used) - taken.map_or(0, get)).max(0);
        if asked > 0 && asked > left {
            let say = |n: i128| {
                let one = shown(&Amounts::from([(resource.clone(), n)]));
                one.into_values().next().unwrap_or_default().0
            };
            return Some(format!(
                "node {node} has {} of {} {resource} left and the instance asks for {}: make room there, or choose another",
                say(left),
                say(total),
                say(asked)
            ));
        }
    }
    None
}

/// Whether the member knows of the move already.
pub(super) fn noted(cell: &CellView, instance: &str, to: &ToNode) -> bool {
    cell.pins.as_ref().and_then(|p| p.get(instance)) == Some(&to.name)
}

/// Brings each member's notes to what is asked. `granted`: instances that are to go now, and where to.
pub(super) fn pins(world: &World<'_>, granted: &BTreeMap<String, String>) -> Vec<Action> {
    let clusters: BTreeSet<&str> = world.cells.iter().map(|c| c.cluster.as_str()).collect();
    let mut actions = Vec::new();
    for cluster in clusters {
        let of_cluster = || world.cells.iter().filter(move |c| c.cluster == cluster);
        let seen = of_cluster().find_map(|c| c.pins.as_ref().filter(|_| c.reachable));
        let Some(seen) = seen else { continue };
        let mut wanted = BTreeMap::new();
        for cell in of_cluster() {
            for (wish, ordinal) in of_cell(world.group, cell) {
                let Some(to) = stands(wish) else { continue };
                let goes = granted.contains_key(&wish.name);
                if goes || noted(cell, &wish.name, to) && awaited(cell, wish, ordinal, to) {
                    wanted.insert(wish.name.clone(), to.name.clone());
                }
            }
        }
        if wanted != *seen {
            actions.push(Action::SetPins {
                cluster: cluster.to_owned(),
                pins: wanted,
            });
        }
        // A pod that waits for a node that nobody asks for any more would wait for ever.
        let stray = |cell: &&CellView, i: &&Instance| {
            let asked = world.group.spec.instances.iter().any(|w| {
                let same = |to: &ToNode| i.pinned.as_ref() == Some(&to.name);
                w.name == i.name && stands(w).is_some_and(same)
            });
            let noted = seen.contains_key(&i.name);
            let waits = i.node.is_empty() && i.unplaced_since.is_some() && !i.terminating;
            cell.reachable && i.pinned.is_some() && waits && !asked && !noted
        };
        for cell in of_cluster() {
            let all = cell.instances.values();
            for instance in all.filter(|i| stray(&cell, i)) {
                actions.push(Action::DeleteInstance {
                    cell: cell.name.clone(),
                    instance: instance.name.clone(),
                    uid: instance.uid.clone(),
                    version: instance.version.clone(),
                });
            }
        }
    }
    actions
}

/// Whether the instance of a noted move is still to come up on its node.
fn awaited(cell: &CellView, wish: &InstanceWish, ordinal: i32, to: &ToNode) -> bool {
    // Rather somewhere else than nowhere.
    let open = || {
        let view = cell.nodes.get(&to.name);
        view.is_some_and(|v| v.ready && !v.cordoned)
    };
    match cell.instances.get(&ordinal) {
        None => open(),
        Some(instance) if instance.terminating => open(),
        Some(instance) if due(wish, instance).is_some() => false,
        Some(instance) => {
            (instance.node.is_empty() || instance.node == to.name) && instance.fit_since().is_none()
        }
    }
}

/// How a move stands that is not due (any more): for the status.
pub(super) fn told(cell: Option<&CellView>, wish: &InstanceWish) -> Option<(&'static str, String)> {
    let (to, cell) = (stands(wish)?, cell?);
    let instance = cell.instances.values().find(|i| i.name == wish.name);
    let Some(instance) = instance.filter(|i| !i.terminating) else {
        let note = noted(cell, &wish.name, to);
        return note.then(|| {
            (
                "Moving",
                format!("to {}: its new pod is being made", to.name),
            )
        });
    };
    if due(wish, instance).is_some() {
        return None;
    }
    Some(
        if instance.node == to.name && instance.fit_since().is_some() {
            ("Moved", String::new())
        } else if instance.node == to.name || instance.pinned.as_ref() == Some(&to.name) {
            let why = Some(instance.trouble.as_str()).filter(|t| !t.is_empty());
            (
                "Moving",
                format!(
                    "to {}: {}",
                    to.name,
                    why.unwrap_or("its new pod is starting")
                ),
            )
        } else {
            let place = match instance.node.as_str() {
                "" => "waits for a node".to_owned(),
                node => format!("is on node {node}"),
            };
            (
                "Elsewhere",
                format!(
                    "a pod that is newer than this wish {place}: ask again to have it on {}",
                    to.name
                ),
            )
        },
    )
}

/// The policy of a member that puts the node into a pod as it is made, and its binding.
pub fn policy() -> [Value; 2] {
    const REQUIRED: &str =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let term = "Object.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let field = format!(
        "{term}.matchFields{{key: 'metadata.name', operator: 'In', values: [params.data[object.metadata.name]]}}"
    );
    let whole = "Object.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    // Terms are alternatives: each of those that are there is narrowed down.
    let terms = "object.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let steps = [
        "has(object.spec.affinity) ? [] : [JSONPatch{op: 'add', path: '/spec/affinity', value: Object.spec.affinity{}}]".to_owned(),
        "has(object.spec.affinity) && has(object.spec.affinity.nodeAffinity) ? [] : [JSONPatch{op: 'add', path: '/spec/affinity/nodeAffinity', value: Object.spec.affinity.nodeAffinity{}}]".to_owned(),
        format!(
            "has(object.spec.affinity) && has(object.spec.affinity.nodeAffinity) && has(object.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution) \
             ? [JSONPatch{{op: 'add', path: '{REQUIRED}/nodeSelectorTerms', value: {terms}.map(t, {term}{{?matchExpressions: t.?matchExpressions, matchFields: t.?matchFields.orValue([]) + [{field}]}})}}] \
             : [JSONPatch{{op: 'add', path: '{REQUIRED}', value: {whole}{{nodeSelectorTerms: [{term}{{matchFields: [{field}]}}]}}}}]"
        ),
        "has(object.metadata.annotations) ? [] : [JSONPatch{op: 'add', path: '/metadata/annotations', value: Object.metadata.annotations{}}]".to_owned(),
        format!(
            "[JSONPatch{{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('{}'), value: params.data[object.metadata.name]}}]",
            labels::MOVED_TO
        ),
    ];
    let steps: Vec<String> = steps.iter().map(|s| format!("({s})")).collect();
    let own = json!({labels::MANAGED_BY: labels::MANAGER});
    let api = "admissionregistration.k8s.io/v1";
    [
        json!({
            "apiVersion": api, "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": POLICY, "labels": own},
            "spec": {
                "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
                "matchConstraints": {
                    "objectSelector": {"matchExpressions": [{"key": labels::GROUP, "operator": "Exists"}]},
                    "resourceRules": [{
                        "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                    }],
                },
                "matchConditions": [{
                    "name": "noted",
                    "expression": "has(params.data) && has(object.metadata.name) && object.metadata.name in params.data",
                }],
                // An instance that comes up in the wrong place is better than one that does not.
                "failurePolicy": "Ignore",
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": steps.join(" + ")}}],
            },
        }),
        json!({
            "apiVersion": api, "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": POLICY, "labels": own},
            "spec": {
                "policyName": POLICY,
                "paramRef": {
                    "selector": {"matchLabels": {labels::MOVES: "true"}},
                    "parameterNotFoundAction": "Allow",
                },
            },
        }),
    ]
}

/// The Group's notes on a member.
pub fn notes(group: &str, namespace: &str, pins: &BTreeMap<String, String>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": notes_name(group), "namespace": namespace,
            "labels": {labels::GROUP: group, labels::MANAGED_BY: labels::MANAGER, labels::MOVES: "true"},
        },
        "data": pins,
    })
}
