//! Leaving: a Group's instances in a cell become those of a plain StatefulSet or Deployment, and none of them
//! is restarted.
//!
//! **StatefulSet**: the one that is there loses the readiness gate from its template (nobody would open it any
//! more), with a partition that covers every instance; pods get the new template's hash; then the partition
//! and Gantry's labels go. **Deployment**: pods get a template hash and lose their StatefulSet; a ReplicaSet
//! that selects them takes them, and a Deployment of the same template takes the ReplicaSet. Guests, which no
//! StatefulSet can have, always go that way.

use std::collections::BTreeMap;

use gantry_api::labels;
use serde_json::{Map, Value, json};

use super::{
    Deed, Kind, Stamped, Step, controller, labels_of,
    look::{has_labels, number},
    name, patch, stamp, uid, version,
};
use crate::render;

/// One cell of a Group that is left.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The Group.
    pub group: String,
    /// Its namespace.
    pub namespace: String,
    /// The cell.
    pub cell: String,
    /// Name of the Deployment to leave; `None`: a StatefulSet.
    pub deployment: Option<String>,
    /// Template of the revision that instances are on, as the cell has it.
    pub template: Value,
    /// The cell's StatefulSet.
    pub set: Option<Value>,
    /// The Deployment, if it is there already.
    pub made: Option<Value>,
    /// The ReplicaSet to come under it, if it is there already.
    pub replica_set: Option<Value>,
    /// Pods of the Group in the cell.
    pub pods: Vec<Value>,
}

/// What to do next in the cell.
pub fn plan(world: &World) -> Step {
    let serve: Vec<Deed> = world.pods.iter().filter_map(serving).collect();
    if !serve.is_empty() {
        let waits = format!("lets {} instances into traffic", serve.len());
        return Step::act(serve, waits);
    }
    match &world.deployment {
        None => stateful_set(world),
        Some(deployment) => self::deployment(world, deployment),
    }
}

/// An instance with a gate that nobody will open later.
fn serving(pod: &Value) -> Option<Deed> {
    let mut gates = pod["spec"]["readinessGates"]
        .as_array()
        .into_iter()
        .flatten();
    let gated = gates.any(|g| g["conditionType"] == labels::IN_SERVICE);
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let open = conditions.any(|c| c["type"] == labels::IN_SERVICE && c["status"] == "True");
    let going = !pod["metadata"]["deletionTimestamp"].is_null();
    (gated && !open && !going).then(|| Deed::Serve {
        name: name(pod).to_owned(),
        version: version(pod).to_owned(),
    })
}

/// A template without what only the hub serves.
pub fn plain(template: &Value) -> Value {
    let mut plain = template.clone();
    if let Some(all) = plain["metadata"]["labels"].as_object_mut() {
        all.remove(labels::REVISION);
    }
    let rest = foreign_gates(&plain);
    if let Some(spec) = plain["spec"].as_object_mut() {
        if rest.is_empty() {
            spec.remove("readinessGates");
        } else {
            spec.insert("readinessGates".to_owned(), Value::Array(rest));
        }
    }
    plain
}

fn foreign_gates(template: &Value) -> Vec<Value> {
    let gates = template["spec"]["readinessGates"].as_array();
    let others = gates.into_iter().flatten();
    others
        .filter(|g| g["conditionType"] != labels::IN_SERVICE)
        .cloned()
        .collect()
}

fn stateful_set(world: &World) -> Step {
    // Without the Group's label it is nobody's but its own.
    let Some(set) = (world.set.as_ref()).filter(|s| !labels_of(s)[labels::GROUP].is_null()) else {
        return Step::default();
    };
    let replicas = number(&set["spec"]["replicas"]).unwrap_or(1);
    let template = &set["spec"]["template"];
    if plain(template) != *template {
        let rest = foreign_gates(template);
        let rest = if rest.is_empty() {
            Value::Null
        } else {
            json!(rest)
        };
        let spec = json!({
            "template": {
                "metadata": {"labels": {labels::REVISION: null}},
                "spec": {"readinessGates": rest},
            },
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": replicas}},
        });
        return Step::act(
            vec![patch(Kind::StatefulSet, set, json!({"spec": spec}))],
            "takes the readiness gate out of the template, updating no instance",
        );
    }
    let own: Vec<Value> = world
        .pods
        .iter()
        .filter(|p| controller(p) == Some(uid(set)))
        .cloned()
        .collect();
    match stamp(set, &own, &json!({labels::GROUP: world.group}), replicas) {
        Stamped::Not(step) => step,
        Stamped::All => {
            let none = [labels::APP, labels::GROUP, labels::CELL, labels::MANAGED_BY];
            let none: Map<String, Value> = none
                .iter()
                .map(|l| ((*l).to_owned(), Value::Null))
                .collect();
            let spec = json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}});
            let last = json!({"metadata": {"labels": none}, "spec": spec});
            Step::act(
                vec![patch(Kind::StatefulSet, set, last)],
                "lets go of the StatefulSet",
            )
        }
    }
}

fn deployment(world: &World, wanted: &str) -> Step {
    if world.made.is_some() {
        return Step::default();
    }
    let template = plain(&world.template);
    let hash = &render::digest(&template)[..10];
    let selector = BTreeMap::from([
        (labels::GROUP, world.group.as_str()),
        (labels::CELL, world.cell.as_str()),
    ]);
    let hashed = json!({labels::POD_TEMPLATE_HASH: hash});
    if world.replica_set.is_none() {
        let deeds: Vec<Deed> = world
            .pods
            .iter()
            .filter(|p| !has_labels(p, &hashed))
            .map(|p| patch(Kind::Pod, p, json!({"metadata": {"labels": hashed}})))
            .collect();
        if !deeds.is_empty() {
            let waits = format!("labels {} instances", deeds.len());
            return Step::act(deeds, waits);
        }
        if let Some(set) = &world.set {
            if !set["metadata"]["deletionTimestamp"].is_null() {
                return Step::wait("waits for the garbage collector to leave the instances");
            }
            let own = world
                .pods
                .iter()
                .filter(|p| controller(p) == Some(uid(set)));
            let wished = number(&set["spec"]["replicas"]).unwrap_or(1);
            if (own.count() as i64) < wished {
                return Step::wait("waits for instances that are being made");
            }
            return Step::act(
                vec![Deed::Orphan {
                    kind: Kind::StatefulSet,
                    name: name(set).to_owned(),
                    uid: uid(set).to_owned(),
                }],
                "deletes the StatefulSet and leaves its instances",
            );
        }
        if world.pods.iter().any(|p| controller(p).is_some()) {
            return Step::wait("waits for the garbage collector to leave the instances");
        }
        let mut labelled = template;
        labelled["metadata"]["labels"][labels::POD_TEMPLATE_HASH] = json!(hash);
        let mut all = json!(selector);
        all[labels::POD_TEMPLATE_HASH] = json!(hash);
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": replica_set_name(world, wanted), "namespace": world.namespace, "labels": all},
            "spec": {"replicas": world.pods.len(), "selector": {"matchLabels": all}, "template": labelled},
        });
        return Step::act(
            vec![Deed::Create {
                kind: Kind::ReplicaSet,
                object: Box::new(object),
            }],
            "makes a ReplicaSet that takes the instances",
        );
    }
    let owner = world.replica_set.as_ref().map(uid);
    let replicas = world
        .replica_set
        .as_ref()
        .map(|s| s["spec"]["replicas"].clone());
    let loose = world.pods.iter().filter(|p| controller(p) != owner).count();
    if loose > 0 {
        return Step::wait(format!(
            "{loose} instances have not been taken by the ReplicaSet yet"
        ));
    }
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": wanted, "namespace": world.namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": selector}, "template": template},
    });
    Step::act(
        vec![Deed::Create {
            kind: Kind::Deployment,
            object: Box::new(object),
        }],
        "makes the Deployment that takes the ReplicaSet",
    )
}

/// Name of the ReplicaSet to come under the Deployment `wanted`.
pub fn replica_set_name(world: &World, wanted: &str) -> String {
    let hash = render::digest(&plain(&world.template));
    format!("{wanted}-{}", &hash[..10])
}
