//! Static pods: a kubelet runs them because a file on its node says so, and shows each by a mirror in the
//! API. A mirror that somebody deletes comes again; the pod knows nothing of it.

use super::{
    pods::PodEntry,
    timer::{Id, Timer},
    world::{Answer, Due, Subject, World, Write, retry_after},
};
use crate::{
    behaviour::Annotations,
    clock::Millis,
    node::{self, HASH, MIRROR},
    options::StaticPod,
    pod::{Observed, Pod},
};
use std::sync::Arc;

/// A static pod of a node.
pub(super) struct Static {
    what: StaticPod,
    /// Of what the file says, and where.
    hash: Arc<str>,
    /// Name of the mirror.
    mirror: Arc<str>,
    /// The pod, and whether it is counted in the node's room, while it has no mirror.
    kept: Option<(Pod, bool)>,
    /// There is a mirror, or there soon will be.
    mirrored: bool,
    failures: u32,
}

/// The hash of the static pod that a mirror stands for, by the mirror's annotations.
pub(super) fn source(annotations: &Annotations) -> Option<Arc<str>> {
    annotations.get(MIRROR)?;
    Some(annotations.get(HASH)?.as_str().into())
}

type Key = (Arc<str>, Arc<str>);

impl World {
    /// Gives a node the static pods of its class.
    pub(super) fn staff(&mut self, id: Id) {
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        let class = self.class_of(&node.class, &node.zone);
        let statics: Vec<Static> = class
            .map_or(&[][..], |it| &it.static_pods)
            .iter()
            .map(|what| Static {
                hash: node::static_hash(what, &node.name).into(),
                mirror: format!("{}-{}", what.name, node.name).into(),
                what: what.clone(),
                kept: None,
                mirrored: false,
                failures: 0,
            })
            .collect();
        if let Some(node) = self.nodes.get_mut(id) {
            node.statics = statics;
        }
    }

    /// Queues mirrors of a node's static pods that are not there.
    pub(super) fn mirror_statics(&mut self, id: Id) {
        if !self.pods_listed {
            return;
        }
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        for (index, it) in (0..).zip(&mut node.statics) {
            if !it.mirrored {
                it.mirrored = true;
                self.queue.push_back(Due::Mirror(id, index));
            }
        }
    }

    fn find_static(&mut self, id: Id, (namespace, name): &Key) -> Option<&mut Static> {
        let mut statics = self.nodes.get_mut(id)?.statics.iter_mut();
        statics.find(|it| it.mirror == *name && *it.what.namespace == **namespace)
    }

    /// Whether a mirror stands for what the node runs now.
    pub(super) fn is_static(&mut self, id: Id, key: &Key, seen: &Observed) -> bool {
        self.find_static(id, key)
            .is_some_and(|it| Some(&it.hash) == seen.source.as_ref())
    }

    /// The pod of a mirror that has come again; from now on it is the mirror's.
    pub(super) fn kept_static(&mut self, id: Id, key: &Key) -> Option<(Pod, bool)> {
        let it = self.find_static(id, key)?;
        it.mirrored = true;
        it.kept.take()
    }

    /// A mirror is to go from the API, at once.
    pub(super) fn delete_mirror(&mut self, id: Id) {
        if let Some(entry) = self.pods.get_mut(id) {
            entry.delete = true;
        }
        self.queue_pod(id);
    }

    /// The mirror of a static pod is gone: the pod is kept, and gets another. Gives back any other pod.
    pub(super) fn keep_static(&mut self, entry: PodEntry) -> Option<PodEntry> {
        let key = (entry.pod.id.namespace.clone(), entry.pod.id.name.clone());
        let source = entry.pod.source.clone();
        let Some(it) = self
            .find_static(entry.node, &key)
            .filter(|_| source.is_some())
        else {
            return Some(entry);
        };
        it.mirrored = false;
        // A mirror of what the file said before had a pod of its own, and so has one that has ended.
        let same = source.as_ref() == Some(&it.hash) && !entry.pod.finished();
        let node = entry.node;
        let left = match same {
            true => {
                it.kept = Some((entry.pod, entry.counted));
                None
            }
            false => Some(entry),
        };
        self.mirror_statics(node);
        left
    }

    pub(super) fn mirror_write(
        &mut self,
        id: Id,
        index: u32,
        now: Millis,
    ) -> Option<(Subject, Write)> {
        let node = self.nodes.get_mut(id)?;
        let it = node.statics.get_mut(index as usize)?;
        if node.fate.away() {
            // It is looked for again when the node is back.
            it.mirrored = false;
            return None;
        }
        let collection = format!("/api/v1/namespaces/{}/pods", it.what.namespace);
        let body = node::mirror(&it.what, &it.hash, &node.name, &node.uid, now);
        Some((Subject::Mirror(id, index), Write::Create(collection, body)))
    }

    pub(super) fn mirror_answered(&mut self, id: Id, index: u32, answer: &Answer, now: Millis) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let Some(it) = node.statics.get_mut(index as usize) else {
            return;
        };
        match answer {
            // One that is there already is seen by the watch, too.
            Answer::Done | Answer::Conflict => it.failures = 0,
            Answer::Missing | Answer::Failed(_) => {
                it.failures += 1;
                let wait = retry_after(&it.mirror, it.failures);
                self.timers.at(now.plus(wait), Timer::Mirror(id, index));
            }
        }
    }
}
