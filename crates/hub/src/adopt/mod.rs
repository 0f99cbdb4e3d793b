//! Adoption: a running Deployment or StatefulSet becomes a Group's first instances, and none of them is
//! restarted. The way back is in [`leave`].
//!
//! **A StatefulSet stays the object it is**, with its name, selector, volumes and instances:
//!
//! 1. Its live template is written down as the Group's revision 1.
//! 2. The template gets the Group's labels (and the cell's node labels), with a partition that covers every
//!    instance: nothing is updated.
//! 3. Each pod gets the labels and the hash of the new template: it counts as made from it.
//! 4. Once the StatefulSet controller has counted them so, the partition goes and the set gets the Group's
//!    labels, by which the hub sees it.
//!
//! **A Deployment's pods have names that no StatefulSet can give.** They are labelled; then the Deployment and
//! its ReplicaSets are deleted without what they own. The pods go on as *guests* of the Group: they serve and
//! count, one that is lost is followed by an instance with a name of its own, and before the first release (or
//! when people say so) all are replaced, new ones first.
//!
//! 1. Revision 1 is rendered. ReplicaSets and pods are labelled.
//! 2. The Deployment is deleted, and what it owned stays.
//! 3. The template of each ReplicaSet that is left gets the labels, so that a pod it may still make has them.
//!    (Before, the Deployment would have taken that for another revision.) Pods without labels get them.
//! 4. The ReplicaSets are deleted, and the pods stay.
//!
//! Each step is planned anew from what is there, so that a crash between any two loses nothing: nothing is
//! remembered but `status.adopted`, at the end.

pub mod leave;
mod look;
pub mod obstacles;
pub mod read;

use std::collections::BTreeMap;

use gantry_api::{
    group::{Adopt, AdoptKind},
    labels,
};
use serde_json::{Value, json};

pub use look::{Found, Kind, controller, labels_of, name, uid, version};
use look::{has_labels, number, observed, text};

use crate::{
    render::{self, Source},
    world::{Revision, Revisions},
};

/// One write on the member.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Hub: write down a revision.
    Record(Box<Revision>),
    /// A merge patch; it carries the resource version that was looked at.
    Patch {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
        /// The patch.
        patch: Value,
    },
    /// Delete it and leave what it owns.
    Orphan {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Open a pod's in-service gate.
    Serve {
        /// The pod.
        name: String,
        /// Resource version seen.
        version: String,
    },
    /// Make it.
    Create {
        /// What it is.
        kind: Kind,
        /// The object.
        object: Box<Value>,
    },
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// In order; all may be done at once.
    pub deeds: Vec<Deed>,
    /// What is waited for, in words; empty when it has come through.
    pub waits: String,
    /// Instances taken over, once it has come through.
    pub instances: i32,
}

impl Step {
    fn wait(waits: impl Into<String>) -> Self {
        Self {
            waits: waits.into(),
            ..Self::default()
        }
    }

    fn act(deeds: Vec<Deed>, waits: impl Into<String>) -> Self {
        Self {
            deeds,
            waits: waits.into(),
            ..Self::default()
        }
    }

    /// Whether nothing is left to do.
    pub fn done(&self) -> bool {
        self.waits.is_empty()
    }
}

/// What an adoption is planned from.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The Group's wish.
    pub adopt: &'a Adopt,
    /// App and Group.
    pub source: Source<'a>,
    /// Namespace, here and there.
    pub namespace: &'a str,
    /// Revisions that are written down.
    pub revisions: &'a Revisions,
    /// Node labels of the cell.
    pub selector: &'a BTreeMap<String, String>,
    /// What is on the member.
    pub found: &'a Found,
}

/// What to do next for an adoption that has not come through.
pub fn plan(world: &World<'_>) -> Step {
    let Some(workload) = &world.found.workload else {
        return gone(world);
    };
    // Begun is begun: from then on a rollout is what the adoption itself makes of it.
    if world.revisions.is_empty() {
        let fatal: Vec<String> = obstacles::of(
            world.adopt.kind,
            workload,
            world.found,
            world.source.group_name,
        )
        .into_iter()
        .filter(|o| o.fatal)
        .map(|o| format!("{}: {}", o.why, o.remedy))
        .collect();
        if !fatal.is_empty() {
            return Step::wait(format!(
                "{}/{} is not adopted: {}",
                world.adopt.kind.as_str(),
                world.adopt.name,
                fatal.join("; ")
            ));
        }
    }
    match world.adopt.kind {
        AdoptKind::StatefulSet => stateful_set(world, workload),
        AdoptKind::Deployment => deployment(world, workload),
    }
}

/// The workload is not there (any more).
fn gone(world: &World<'_>) -> Step {
    let Adopt { kind, name, .. } = world.adopt;
    if world.revisions.is_empty() {
        return Step::wait(format!(
            "there is no {} {name} in namespace {} of the cluster with cell {}: nothing to adopt",
            kind.as_str(),
            world.namespace,
            world.adopt.cell
        ));
    }
    if *kind == AdoptKind::Deployment {
        return replica_sets(world);
    }
    // Deleted by someone in the middle: the Group makes its own.
    Step::default()
}

/// The labels of the Group's instances, as far as they are the same for all.
pub(crate) fn instance_labels(source: Source<'_>, cell: &str, revision: i64) -> Value {
    let mut all = json!({
        labels::APP: source.app_name,
        labels::GROUP: source.group_name,
        labels::CELL: cell,
        labels::REVISION: revision.to_string(),
    });
    if !source.group.environment.is_empty() {
        all[labels::ENVIRONMENT] = json!(source.group.environment);
    }
    all
}

fn patch(kind: Kind, object: &Value, mut patch: Value) -> Deed {
    patch["metadata"]["resourceVersion"] = json!(version(object));
    Deed::Patch {
        kind,
        name: name(object).to_owned(),
        patch,
    }
}

fn stateful_set(world: &World<'_>, set: &Value) -> Step {
    let source = world.source;
    let Some((&number_of, _)) = world.revisions.iter().next() else {
        let mut template = json!({
            "metadata": set["spec"]["template"]["metadata"],
            "spec": set["spec"]["template"]["spec"],
        });
        if let Some(metadata) = template["metadata"].as_object_mut() {
            metadata.remove("creationTimestamp");
        } else {
            template["metadata"] = json!({});
        }
        let mut wanted = instance_labels(source, &world.adopt.cell, 1);
        if let Some(own) = wanted.as_object_mut() {
            own.remove(labels::CELL);
        }
        merge(&mut template["metadata"]["labels"], &wanted);
        let spec = source.group.revision.clone();
        let digest = render::digest(&json!({"spec": spec, "template": template}));
        let revision = Revision {
            number: 1,
            spec,
            template,
            digest,
        };
        return Step::act(
            vec![Deed::Record(Box::new(revision))],
            "writes down what runs as revision 1",
        );
    };
    let wanted = instance_labels(source, &world.adopt.cell, number_of);
    let replicas = number(&set["spec"]["replicas"]).unwrap_or(1);
    if !has_labels(&set["spec"]["template"], &wanted) {
        let mut spec = json!({
            "template": {"metadata": {"labels": wanted}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": replicas}},
        });
        if !world.selector.is_empty() {
            spec["template"]["spec"] = json!({"nodeSelector": world.selector});
        }
        return Step::act(
            vec![patch(Kind::StatefulSet, set, json!({"spec": spec}))],
            "labels the template of the StatefulSet, updating no instance",
        );
    }
    match stamp(set, &world.found.pods, &wanted, replicas) {
        Stamped::Not(step) => step,
        Stamped::All => {
            let own = json!({
                labels::APP: source.app_name,
                labels::GROUP: source.group_name,
                labels::CELL: world.adopt.cell,
                labels::MANAGED_BY: labels::MANAGER,
            });
            let spec = json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}});
            let last = json!({"metadata": {"labels": own}, "spec": spec});
            let done = has_labels(set, &own);
            Step {
                deeds: if done {
                    Vec::new()
                } else {
                    vec![patch(Kind::StatefulSet, set, last)]
                },
                waits: if done {
                    String::new()
                } else {
                    "hands the StatefulSet to the group".to_owned()
                },
                instances: world.found.pods.len() as i32,
            }
        }
    }
}

/// Whether a set's pods count as made from its template.
pub(crate) enum Stamped {
    /// Not yet: what to do.
    Not(Step),
    /// All do, and the StatefulSet controller knows.
    All,
}

/// Takes the pods of a set whose partition covers them to its template as they are: with `labels` and the
/// template's hash.
pub(crate) fn stamp(set: &Value, pods: &[Value], wanted: &Value, replicas: i64) -> Stamped {
    let hash = text(&set["status"]["updateRevision"]);
    if !observed(set) || hash.is_empty() {
        return Stamped::Not(Step::wait(
            "waits for the StatefulSet controller to see the template",
        ));
    }
    let mut all = wanted.clone();
    all[labels::CONTROLLER_REVISION_HASH] = json!(hash);
    let mut deeds = Vec::new();
    for pod in pods {
        if !has_labels(pod, &all) {
            deeds.push(patch(Kind::Pod, pod, json!({"metadata": {"labels": all}})));
        }
    }
    if !deeds.is_empty() {
        let waits = format!("labels {} of {} instances", deeds.len(), pods.len());
        return Stamped::Not(Step::act(deeds, waits));
    }
    let updated = number(&set["status"]["updatedReplicas"]).unwrap_or(0);
    if (pods.len() as i64) < replicas || updated < replicas {
        return Stamped::Not(Step::wait(format!(
            "the StatefulSet controller counts {updated} of {replicas} instances as they are labelled"
        )));
    }
    Stamped::All
}

fn deployment(world: &World<'_>, deployment: &Value) -> Step {
    let source = world.source;
    let Some((&revision, _)) = world.revisions.iter().next() else {
        let first = render::revision(source, &source.group.revision, 1);
        return Step::act(
            vec![Deed::Record(Box::new(first))],
            "writes down what runs as revision 1",
        );
    };
    let mark = json!({labels::ADOPTING: source.group_name});
    let mut deeds: Vec<Deed> = world
        .found
        .sets
        .iter()
        .filter(|set| !has_labels(set, &mark))
        .map(|set| patch(Kind::ReplicaSet, set, json!({"metadata": {"labels": mark}})))
        .collect();
    deeds.extend(unlabelled(world, revision));
    if !deeds.is_empty() {
        let waits = format!(
            "labels {} of {} instances and ReplicaSets",
            deeds.len(),
            world.found.pods.len() + world.found.sets.len()
        );
        return Step::act(deeds, waits);
    }
    Step::act(
        vec![Deed::Orphan {
            kind: Kind::Deployment,
            name: name(deployment).to_owned(),
            uid: uid(deployment).to_owned(),
        }],
        "deletes the Deployment and leaves its instances",
    )
}

/// Patches for pods that have not got the Group's labels.
fn unlabelled(world: &World<'_>, revision: i64) -> Vec<Deed> {
    let patches = world.found.pods.iter().filter_map(|pod| {
        let cell = world.found.cell_of(pod, &world.adopt.cell);
        let wanted = instance_labels(world.source, cell, revision);
        (!has_labels(pod, &wanted))
            .then(|| patch(Kind::Pod, pod, json!({"metadata": {"labels": wanted}})))
    });
    patches.collect()
}

/// The Deployment is gone: its ReplicaSets follow.
fn replica_sets(world: &World<'_>) -> Step {
    let revision = world.revisions.keys().next().copied().unwrap_or(1);
    let wanted = instance_labels(world.source, &world.adopt.cell, revision);
    let mut deeds: Vec<Deed> = world
        .found
        .sets
        .iter()
        .filter(|set| !has_labels(&set["spec"]["template"], &wanted))
        .map(|set| {
            let template = json!({"metadata": {"labels": wanted}});
            patch(
                Kind::ReplicaSet,
                set,
                json!({"spec": {"template": template}}),
            )
        })
        .collect();
    deeds.extend(unlabelled(world, revision));
    if !deeds.is_empty() {
        return Step::act(
            deeds,
            "labels what the Deployment's ReplicaSets may still make",
        );
    }
    let sets = &world.found.sets;
    if sets.is_empty() {
        return Step {
            instances: world.found.guests,
            ..Step::default()
        };
    }
    // One that still has the Deployment for an owner would be taken along by the garbage collector.
    if sets.iter().any(|set| controller(set).is_some()) || !sets.iter().all(observed) {
        return Step::wait("waits for the garbage collector to leave the ReplicaSets");
    }
    let orphans = sets.iter().map(|set| Deed::Orphan {
        kind: Kind::ReplicaSet,
        name: name(set).to_owned(),
        uid: uid(set).to_owned(),
    });
    Step::act(
        orphans.collect(),
        "deletes the ReplicaSets and leaves their instances",
    )
}

/// Puts the entries of one object into another.
fn merge(into: &mut Value, from: &Value) {
    if !into.is_object() {
        *into = json!({});
    }
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        for (key, value) in from {
            into.insert(key.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests;
