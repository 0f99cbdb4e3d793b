//! Devices: nodes offer those of their class, and pods wait until their claims to devices can be prepared.

use super::{
    timer::{Id, Timer},
    world::{Answer, Due, Subject, World, Write, retry_after},
};
use crate::{
    clock::Millis,
    node,
    object::{ClaimObject, PodSpec, PodStatusWire},
    pod::{Input, Sandbox},
};
use kube::{ResourceExt as _, runtime::watcher::Event};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";

type Key = (Arc<str>, Arc<str>);

/// Claims to devices, as the API shows them, and the pods that use them.
#[derive(Default)]
pub(super) struct Claims {
    all: FxHashMap<Key, ClaimObject>,
    /// Pods of ours, by the claims that they name.
    users: FxHashMap<Key, FxHashSet<Id>>,
    /// All that there are have been seen.
    listed: bool,
    /// What a list has shown so far.
    list: FxHashMap<Key, ClaimObject>,
    /// There is a pod that has some.
    pub wanted: bool,
    /// The cluster knows no ResourceSlices.
    missed: bool,
    /// Claims of which something is to be said, by number.
    due: FxHashMap<u32, (Key, Id)>,
    next: u32,
    failures: u32,
}

/// The names of a pod's claims: of one that is still to be made, none. What is not needed is left out.
pub(super) fn names(spec: &PodSpec, status: &PodStatusWire) -> Vec<Option<Arc<str>>> {
    let mut names = Vec::new();
    for claim in &spec.resource_claims {
        if let Some(name) = &claim.resource_claim_name {
            names.push(Some(name.clone()));
            continue;
        }
        let mut made = status.resource_claim_statuses.iter();
        match made.find(|it| *it.name == *claim.name) {
            None => names.push(None),
            Some(made) => names.extend(made.resource_claim_name.clone().map(Some)),
        }
    }
    let special = status.extended_resource_claim_status.as_ref();
    names.extend(special.map(|it| Some(it.resource_claim_name.clone())));
    names
}

impl World {
    /// Whether claims are to be watched, of which nobody asked before.
    pub fn wants_claims(&self) -> bool {
        self.claims.wanted
    }

    /// Takes in what the watch of claims shows.
    pub fn claim_seen(&mut self, event: Event<ClaimObject>, now: Millis) {
        let key = |claim: &ClaimObject| -> Key {
            let namespace = claim.namespace().unwrap_or_default();
            (namespace.into(), claim.name_any().into())
        };
        match event {
            Event::Init => self.claims.list.clear(),
            Event::InitApply(claim) => {
                self.claims.list.insert(key(&claim), claim);
            }
            Event::InitDone => {
                self.claims.all = std::mem::take(&mut self.claims.list);
                self.claims.listed = true;
                for id in self.pods.ids() {
                    if self.pods.get(id).is_some_and(|it| !it.claims.is_empty()) {
                        self.judge_claims(id, now);
                    }
                }
            }
            Event::Apply(claim) => {
                let key = key(&claim);
                self.claims.all.insert(key.clone(), claim);
                self.judge_users(&key, now);
            }
            Event::Delete(claim) => {
                let key = key(&claim);
                self.claims.all.remove(&key);
                self.judge_users(&key, now);
            }
        }
    }

    fn judge_users(&mut self, key: &Key, now: Millis) {
        for id in self.claims.users.get(key).cloned().unwrap_or_default() {
            self.judge_claims(id, now);
        }
    }

    /// The pod has these claims.
    pub(super) fn follow_claims(&mut self, id: Id, names: Vec<Option<Arc<str>>>, now: Millis) {
        let Some(entry) = self.pods.get_mut(id) else {
            return;
        };
        if names.is_empty() && entry.claims.is_empty() {
            // What was to be made for it turned out not to be needed.
            if !entry.pod.prepared {
                self.step(id, Input::Prepare(Ok(())), now);
            }
            return;
        }
        self.claims.wanted = true;
        let namespace = entry.pod.id.namespace.clone();
        let before = std::mem::replace(&mut entry.claims, names);
        let now_used = entry.claims.clone();
        self.forget_users(id, &namespace, &before);
        for name in now_used.into_iter().flatten() {
            let users = self.claims.users.entry((namespace.clone(), name));
            users.or_default().insert(id);
        }
        self.judge_claims(id, now);
    }

    /// The pod is gone.
    pub(super) fn forget_users(
        &mut self,
        id: Id,
        namespace: &Arc<str>,
        names: &[Option<Arc<str>>],
    ) {
        for name in names.iter().flatten() {
            let key = (namespace.clone(), name.clone());
            if let Some(users) = self.claims.users.get_mut(&key) {
                users.remove(&id);
                if users.is_empty() {
                    self.claims.users.remove(&key);
                }
            }
        }
    }

    /// Whether the claims of a pod that waits for them can be prepared; if so, its node's drivers say it.
    fn judge_claims(&mut self, id: Id, now: Millis) {
        if !self.claims.listed {
            return;
        }
        let Some(entry) = self.pods.get(id) else {
            return;
        };
        let pod = &entry.pod;
        if pod.finished() {
            return;
        }
        let (namespace, who) = (pod.id.namespace.clone(), (&*pod.id.name, &*pod.id.uid));
        let mut answer = Ok(());
        let mut ready: Vec<Key> = Vec::new();
        for name in &entry.claims {
            let verdict = match name {
                None => Err(format!(
                    "pod \"{namespace}/{}\": ResourceClaim not created yet",
                    who.0
                )),
                Some(name) => {
                    let key = (namespace.clone(), name.clone());
                    let verdict = node::prepares(self.claims.all.get(&key), name, who);
                    ready.push(key);
                    verdict
                }
            };
            answer = answer.and(verdict);
        }
        let waits = !pod.prepared && pod.sandbox == Sandbox::None;
        let node = entry.node;
        if answer.is_ok() {
            for key in ready {
                self.speak_of(key, node);
            }
        }
        if waits {
            self.step(id, Input::Prepare(answer.map_err(Into::into)), now);
        }
    }

    /// Drivers of a node say how the devices of a claim are, unless they have.
    fn speak_of(&mut self, key: Key, node: Id) {
        let Some(claim) = self.claims.all.get(&key) else {
            return;
        };
        if self.said(claim, node, Millis(0)).is_none() {
            return;
        }
        if self
            .claims
            .due
            .values()
            .any(|due| *due == (key.clone(), node))
        {
            return;
        }
        let number = self.claims.next;
        self.claims.next = number.wrapping_add(1);
        self.claims.due.insert(number, (key, node));
        self.queue.push_back(Due::Claim(number));
    }

    fn said(&self, claim: &ClaimObject, node: Id, now: Millis) -> Option<serde_json::Value> {
        let node = self.nodes.get(node)?;
        let class = self.class_of(&node.class, &node.zone)?;
        let drivers: Vec<&str> = class.devices.iter().map(|it| it.driver.as_str()).collect();
        node::told(claim, &node.name, &drivers, now)
    }

    pub(super) fn claim_write(&mut self, number: u32, now: Millis) -> Option<(Subject, Write)> {
        let (key, node) = self.claims.due.get(&number)?;
        let patch = self
            .claims
            .all
            .get(key)
            .and_then(|claim| self.said(claim, *node, now));
        let Some(patch) = patch else {
            self.claims.due.remove(&number);
            return None;
        };
        let collection = format!(
            "/apis/resource.k8s.io/v1/namespaces/{}/resourceclaims",
            key.0
        );
        let write = Write::Status(collection, key.1.to_string(), patch);
        Some((Subject::Claim(number), write))
    }

    /// Queues the slices of a node's devices.
    pub(super) fn offer_devices(&mut self, id: Id) {
        let node = self.nodes.get(id);
        let class = node.and_then(|it| self.class_of(&it.class, &it.zone));
        let drivers: FxHashSet<&str> = class
            .into_iter()
            .flat_map(|it| &it.devices)
            .map(|it| it.driver.as_str())
            .collect();
        let count = u32::try_from(drivers.len()).unwrap_or(0);
        for index in 0..count {
            self.queue.push_back(Due::Slice(id, index));
        }
    }

    pub(super) fn slice_write(&self, id: Id, index: u32) -> Option<(Subject, Write)> {
        let node = self.nodes.get(id).filter(|_| !self.claims.missed)?;
        let class = self.class_of(&node.class, &node.zone)?;
        let slices = node::slices(&class.devices, &node.name, &node.uid);
        let body = slices.into_iter().nth(index as usize)?;
        Some((
            Subject::Slice(id, index),
            Write::Create(SLICES.into(), body),
        ))
    }

    pub(super) fn devices_answered(&mut self, subject: Subject, answer: &Answer, now: Millis) {
        match (subject, answer) {
            // One that is there already is left as it is.
            (Subject::Slice(..), Answer::Done | Answer::Conflict) => self.claims.failures = 0,
            (Subject::Slice(..), Answer::Missing) if !self.claims.missed => {
                self.claims.missed = true;
                tracing::warn!("the cluster knows no ResourceSlices: devices go untold");
            }
            (Subject::Slice(id, index), Answer::Failed(_)) => {
                self.claims.failures = self.claims.failures.saturating_add(1);
                let wait = retry_after("slices", self.claims.failures);
                self.timers.at(now.plus(wait), Timer::Slice(id, index));
            }
            (Subject::Claim(number), Answer::Done | Answer::Missing) => {
                self.claims.due.remove(&number);
            }
            (Subject::Claim(number), Answer::Conflict | Answer::Failed(_)) => {
                // The watch brings the version to go by.
                let wait = retry_after("claim", 3);
                self.timers.at(now.plus(wait), Timer::Claim(number));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{T0, node, pod_value, settle};
    use super::*;
    use crate::{Scenario, options::Options};
    use serde_json::{Value, json};

    fn world() -> World {
        let text = "nodes: [{class: gpu, devices: [{driver: gpu.io, name: gpu, count: 2}, {driver: nic.io}]}]";
        let scenario = Scenario::parse(text, &|name| Err(name.to_owned())).unwrap();
        let mut options = Options {
            defaults: crate::behaviour::Defaults::INSTANT,
            ..Options::default()
        };
        Arc::new(scenario).apply(&mut options);
        options.groups.clear();
        let mut world = World::new(options, T0).unwrap();
        world.begin(T0, T0);
        let mut node = node("n", Some("10.64.0.0/24"));
        let labels = node.metadata.labels.get_or_insert_default();
        labels.insert(crate::scenario::CLASS.to_owned(), "gpu".to_owned());
        world.node_seen(Event::Apply(node), T0);
        world
    }

    fn claim(status: Value) -> ClaimObject {
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "default", "uid": "uc", "resourceVersion": "3"},
            "status": status}))
        .unwrap()
    }

    fn given() -> Value {
        json!({"allocation": {"devices": {"results": [{"request": "r", "driver": "gpu.io", "pool": "n", "device": "gpu-0"}]}},
            "reservedFor": [{"resource": "pods", "name": "p", "uid": "uid-p"}]})
    }

    /// The phase that was last written of the only pod.
    fn phase(writes: &[(Subject, Write)]) -> Option<String> {
        let mut phases = writes.iter().filter_map(|(_, write)| match write {
            Write::Strategic(_, _, Some("status"), patch) => {
                patch["status"]["phase"].as_str().map(str::to_owned)
            }
            _ => None,
        });
        phases.next_back()
    }

    #[test]
    fn nodes_offer_the_devices_of_their_class() {
        let mut world = world();
        let slices: Vec<Value> = settle(&mut world, T0)
            .into_iter()
            .filter_map(|(_, write)| match write {
                Write::Create(collection, body) if collection == SLICES => Some(body),
                _ => None,
            })
            .collect();
        let drivers: Vec<_> = slices
            .iter()
            .filter_map(|it| it["spec"]["driver"].as_str())
            .collect();
        assert_eq!(drivers, ["gpu.io", "nic.io"]);
        assert_eq!(slices[0]["spec"]["devices"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_pod_waits_until_its_claim_is_given_and_the_driver_tells_of_it() {
        let mut world = world();
        settle(&mut world, T0);
        let mut pod = pod_value("p", "n");
        pod["spec"]["resourceClaims"] = json!([{"name": "x", "resourceClaimTemplateName": "t"}]);
        let seen = |pod: &Value| Event::Apply(serde_json::from_value(pod.clone()).unwrap());
        world.pod_seen(seen(&pod), T0);
        assert!(world.wants_claims());
        world.claim_seen(Event::Init, T0);
        world.claim_seen(Event::InitDone, T0);
        assert_eq!(phase(&settle(&mut world, T0)).as_deref(), Some("Pending"));
        pod["status"]["resourceClaimStatuses"] = json!([{"name": "x", "resourceClaimName": "c"}]);
        world.pod_seen(seen(&pod), T0);
        world.claim_seen(Event::Apply(claim(json!({}))), T0);
        let mut told: Vec<String> = Vec::new();
        while let Some(record) = super::super::events::Outbox::pop(&mut world.outbox) {
            told.push(record.message);
        }
        let wanted = [
            "ResourceClaim not created yet",
            "not found",
            "is not allocated",
        ];
        for (told, wanted) in told.iter().zip(wanted) {
            assert!(
                told.starts_with("Failed to prepare dynamic resources:") && told.contains(wanted),
                "{told}"
            );
        }
        assert_eq!(told.len(), wanted.len(), "{told:?}");
        assert_eq!(phase(&settle(&mut world, T0)), None, "nothing has changed");
        world.claim_seen(Event::Apply(claim(given())), T0);
        let writes = settle(&mut world, T0);
        assert_eq!(phase(&writes).as_deref(), Some("Running"));
        let said: Vec<&Value> = writes
            .iter()
            .filter_map(|(_, write)| match write {
                Write::Status(_, name, patch) => {
                    assert_eq!(name, "c");
                    Some(patch)
                }
                _ => None,
            })
            .collect();
        assert_eq!(said.len(), 1);
        assert_eq!(said[0]["status"]["devices"][0]["device"], "gpu-0");
        // It is seen, and not said again.
        let mut status = given();
        status["devices"] = said[0]["status"]["devices"].clone();
        world.claim_seen(Event::Apply(claim(status)), T0);
        assert_eq!(settle(&mut world, T0), []);
        // The pod goes; nobody asks for the claim any more.
        world.pod_seen(Event::Delete(serde_json::from_value(pod).unwrap()), T0);
        assert!(world.claims.users.is_empty());
    }

    #[test]
    fn extended_resources_wait_for_the_claim_that_serves_them() {
        let mut world = world();
        settle(&mut world, T0);
        let mut pod = pod_value("p", "n");
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"example.com/gpu": "1"}});
        pod["status"]["extendedResourceClaimStatus"] =
            json!({"resourceClaimName": "c", "requestMappings": []});
        world.pod_seen(Event::Apply(serde_json::from_value(pod).unwrap()), T0);
        world.claim_seen(Event::Init, T0);
        world.claim_seen(Event::InitDone, T0);
        assert_eq!(phase(&settle(&mut world, T0)).as_deref(), Some("Pending"));
        world.claim_seen(Event::Apply(claim(given())), T0);
        assert_eq!(phase(&settle(&mut world, T0)).as_deref(), Some("Running"));
    }

    #[test]
    fn a_claim_that_turns_out_not_to_be_needed_is_not_waited_for() {
        let mut world = world();
        settle(&mut world, T0);
        let mut pod = pod_value("p", "n");
        pod["spec"]["resourceClaims"] = json!([{"name": "x", "resourceClaimTemplateName": "t"}]);
        pod["status"]["resourceClaimStatuses"] = json!([{"name": "x"}]);
        world.pod_seen(Event::Apply(serde_json::from_value(pod).unwrap()), T0);
        assert_eq!(phase(&settle(&mut world, T0)).as_deref(), Some("Running"));
    }
}
