//! Pods move, and what follows is told and written.

use super::{
    pods::give_back,
    timer::{Id, Timer},
    world::{Answer, Due, Subject, World, Write, retry_after},
};
use crate::{
    clock::Millis,
    kubelet::{Deed, Done, Network},
    pod::{Env, Input, Occurrence, status_patch},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// How long the API may call a ready pod not ready before it is told again.
const REPAIR: Duration = Duration::from_secs(2);

impl World {
    /// A client has done something to a container.
    pub fn client_did(&mut self, done: &Done, now: Millis) {
        let key = (done.namespace.as_str().into(), done.name.as_str().into());
        let Some(id) = self.pod_ids.get(&key).copied() else {
            return;
        };
        if self
            .pods
            .get(id)
            .is_some_and(|it| *it.pod.id.uid == *done.uid)
        {
            let name = &done.container;
            let input = match done.deed {
                Deed::Ended(code) => Input::Ended(name, code),
                Deed::Serves(serves) => Input::Serves(name, serves),
                Deed::Hooked {
                    attempt,
                    stops,
                    well,
                } => Input::Hooked {
                    container: name,
                    attempt,
                    stops,
                    well,
                },
            };
            self.step(id, input, now);
        }
    }

    /// A kubelet reports again what others have overwritten. Not at once: most of what differs is the watch
    /// showing states from before our own last report.
    pub(super) fn belie(&mut self, id: Id, called_unready: bool, now: Millis) {
        let Some(entry) = self.pods.get_mut(id) else {
            return;
        };
        let ready = entry.pod.conditions.ready.as_ref();
        let belied = called_unready && ready.is_some_and(|it| it.holds);
        if belied && !entry.belied {
            self.timers.at(now.plus(REPAIR), Timer::PodRepair(id));
        }
        entry.belied = belied;
    }

    pub(super) fn repair_due(&mut self, id: Id) {
        let Some(entry) = self.pods.get_mut(id).filter(|entry| entry.belied) else {
            return;
        };
        entry.belied = false;
        if entry.busy
            || !entry
                .pod
                .conditions
                .ready
                .as_ref()
                .is_some_and(|it| it.holds)
        {
            // A report is on its way, or there is nothing to set right any more.
            return;
        }
        entry.dirty = true;
        entry.busy = true;
        self.queue.push_back(Due::Pod(id));
    }

    /// A pod that asks for other resources gets them if its node has room.
    pub(super) fn answer_resize(&mut self, id: Id, now: Millis) {
        let Some(entry) = self.pods.get_mut(id).filter(|it| it.pod.asks_resize()) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(entry.node) else {
            return;
        };
        let after = entry.pod.spec.requests();
        let answer = match entry.counted {
            true => node.room.resize(&entry.requests, &after),
            false => Ok(()),
        };
        if answer.is_ok() {
            entry.requests = Arc::new(after);
            self.roomier.insert(entry.node);
        }
        self.step(id, Input::Resize(answer), now);
        self.reweigh(id, now);
    }

    /// A node has more room than before: resizes that were deferred may be granted, those of important pods
    /// first, then of those that are guaranteed what they ask for.
    pub(super) fn retry_resizes(&mut self, id: Id, now: Millis) {
        let pods = self.nodes.get(id).into_iter().flat_map(|it| &it.pods);
        let deferred = pods.filter_map(|id| {
            let pod = &self.pods.get(*id)?.pod;
            let order = (
                -i64::from(pod.spec.priority.unwrap_or(0)),
                pod.spec.best_effort(),
            );
            pod.resize_deferred()
                .then(|| (order, pod.id.name.clone(), *id))
        });
        let mut deferred: Vec<_> = deferred.collect();
        deferred.sort();
        for (_, _, id) in deferred {
            self.answer_resize(id, now);
        }
        // What was granted has taken room, and given none.
        self.roomier.remove(&id);
    }

    /// Lets a pod take in what happened, and notes what follows.
    pub(super) fn step(&mut self, id: Id, input: Input<'_>, now: Millis) {
        let Some(entry) = self.pods.get_mut(id) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(entry.node) else {
            return;
        };
        if node.fate.off() {
            // Nothing happens on a machine that is off; when it is on again, all of it begins anew.
            return;
        }
        let mut env = Env {
            now,
            behaviours: &self.truth.behaviours,
            images: &mut node.images,
            traffic: &mut self.traffic,
            host: &mut node.host,
            scale: self.options.time_scale,
            start: self.truth.start,
            asks: self.options.network.as_ref().is_some_and(Network::is_up),
        };
        let outcome = entry.pod.step(input, &mut env);
        entry.dirty |= outcome.changed;
        entry.delete |= outcome.delete;
        if entry.wake != outcome.wake {
            entry.wake = outcome.wake;
            if let Some(at) = outcome.wake {
                self.timers.at(at, Timer::Pod(id));
            }
        }
        if entry.counted && entry.pod.finished() {
            entry.counted = false;
            give_back(node, entry);
            self.roomier.insert(entry.node);
        }
        if (entry.dirty || (entry.delete && !entry.deleted)) && !entry.busy {
            entry.busy = true;
            self.queue.push_back(Due::Pod(id));
        }
        if let Some(network) = &self.options.network {
            for ask in outcome.asks {
                network.ask_for_hook(ask);
            }
        }
        self.tell(id, outcome.told, now);
    }

    pub(super) fn tell(&mut self, id: Id, told: Vec<Occurrence>, now: Millis) {
        let Some(entry) = self.pods.get(id) else {
            return;
        };
        let pod = &entry.pod;
        for it in told {
            if !self.outbox.admit(it.warning, now) {
                continue;
            }
            let mut involved = json!({
                "apiVersion": "v1", "kind": "Pod", "namespace": &*pod.id.namespace,
                "name": &*pod.id.name, "uid": &*pod.id.uid,
            });
            if let Some(path) = it.field_path {
                involved["fieldPath"] = path.into();
            }
            self.outbox.put(
                &pod.id.namespace,
                involved,
                it.warning,
                it.reason,
                it.message,
                &pod.node,
                now,
            );
        }
    }

    /// Queues what a pod has to have written, if anything.
    pub(super) fn queue_pod(&mut self, id: Id) {
        if let Some(entry) = self.pods.get_mut(id)
            && (entry.dirty || (entry.delete && !entry.deleted))
            && !entry.busy
        {
            entry.busy = true;
            self.queue.push_back(Due::Pod(id));
        }
    }

    pub(super) fn pod_write(&mut self, id: Id) -> Option<(Subject, Write)> {
        let entry = self.pods.get_mut(id)?;
        if self.nodes.get(entry.node).is_some_and(|it| it.fate.away()) {
            // Its node takes it up when it is back.
            entry.busy = false;
            return None;
        }
        let collection = format!("/api/v1/namespaces/{}/pods", entry.pod.id.namespace);
        let name = entry.pod.id.name.to_string();
        if entry.dirty {
            entry.dirty = false;
            let patch = status_patch(&entry.pod);
            return Some((
                Subject::PodStatus(id),
                Write::Strategic(collection, name, Some("status"), patch),
            ));
        }
        if entry.delete && !entry.deleted {
            return Some((
                Subject::PodDelete(id),
                Write::Delete(collection, name, entry.pod.id.uid.to_string()),
            ));
        }
        entry.busy = false;
        None
    }

    pub(super) fn pod_answered(&mut self, id: Id, subject: Subject, answer: &Answer, now: Millis) {
        let Some(entry) = self.pods.get_mut(id) else {
            return;
        };
        match (answer, subject) {
            (Answer::Done, Subject::PodDelete(_)) => entry.deleted = true,
            (Answer::Done, _) => entry.failures = 0,
            // The watch will show that it is gone, or which pod has taken its name.
            (Answer::Missing, _) => (entry.dirty, entry.deleted) = (false, true),
            (Answer::Conflict | Answer::Failed(_), _) => {
                entry.dirty |= matches!(subject, Subject::PodStatus(_));
                entry.failures += 1;
                let wait = retry_after(&entry.pod.id.uid, entry.failures);
                self.timers.at(now.plus(wait), Timer::PodWrite(id));
                return;
            }
        }
        if entry.dirty || (entry.delete && !entry.deleted) {
            self.queue.push_back(Due::Pod(id));
        } else {
            entry.busy = false;
        }
    }
}
