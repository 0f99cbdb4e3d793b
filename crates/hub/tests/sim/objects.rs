//! A member as whole objects, and its controllers' rules: Deployments, ReplicaSets, StatefulSets, the garbage
//! collector that leaves dependents, and kubelets. Each controller acts when it has its turn.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::labels;
use gantry_hub::{
    adopt::{Kind, controller, labels_of, name, uid, version},
    render,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

#[derive(Clone, Debug, Default)]
pub struct Objects {
    all: BTreeMap<(Kind, String), Value>,
    /// Templates by their hash: what a StatefulSet may still make.
    templates: BTreeMap<String, Value>,
    count: u64,
}

fn has(object: &Value, wanted: &Value) -> bool {
    let mut all = wanted.as_object().into_iter().flatten();
    all.all(|(key, value)| labels_of(object)[key] == *value)
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}

fn going(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn owned(object: &Value) -> Value {
    json!([{"uid": uid(object), "name": name(object), "kind": object["kind"], "controller": true}])
}

fn ordinal(pod: &Value) -> i64 {
    let number = name(pod).rsplit('-').next().and_then(|n| n.parse().ok());
    number.unwrap_or(-1)
}

/// A template without the hash that its Deployment gave it.
fn unhashed(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(all) = template["metadata"]["labels"].as_object_mut() {
        all.remove(labels::POD_TEMPLATE_HASH);
    }
    template
}

impl Objects {
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.all.get(&(kind, name.to_owned()))
    }

    pub fn of(&self, kind: Kind) -> Vec<Value> {
        self.some(kind).cloned().collect()
    }

    fn some(&self, kind: Kind) -> impl Iterator<Item = &Value> {
        let all = self.all.iter().filter(move |((k, _), _)| *k == kind);
        all.map(|(_, object)| object)
    }

    pub fn live(&self) -> impl Iterator<Item = &Value> {
        self.some(Kind::Pod).filter(|p| !going(p))
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Writes to an object as its API server does: a new version; a new generation where its spec changed.
    fn write(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut Value)) {
        let version = self.next();
        let Some(object) = self.all.get_mut(&(kind, name.to_owned())) else {
            return;
        };
        let before = object.clone();
        change(object);
        if *object == before {
            return;
        }
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if object["spec"] != before["spec"] {
            object["metadata"]["generation"] = json!(number(&before["metadata"]["generation"]) + 1);
        }
    }

    pub fn create(&mut self, kind: Kind, mut object: Value) -> bool {
        let key = (kind, name(&object).to_owned());
        if self.all.contains_key(&key) {
            return false;
        }
        let n = self.next();
        object["kind"] = json!(kind.gvk().2);
        merge(
            &mut object["metadata"],
            &json!({"uid": format!("u{n}"), "resourceVersion": n.to_string(), "generation": 1}),
        );
        object["status"] = json!({});
        if kind == Kind::Pod {
            object["status"] =
                json!({"podIP": format!("10.0.{}.{}", n / 250, n % 250), "restarts": 0});
        }
        self.all.insert(key, object);
        true
    }

    /// A merge patch with a precondition.
    pub fn patch(&mut self, kind: Kind, name: &str, patch: &Value) -> bool {
        let seen = &patch["metadata"]["resourceVersion"];
        if !self.get(kind, name).is_some_and(|o| *seen == *version(o)) {
            return false;
        }
        self.write(kind, name, |object| merge(object, patch));
        true
    }

    /// Deletes it and leaves what it owns: the garbage collector does that in its own time.
    pub fn orphan(&mut self, kind: Kind, name: &str, seen: &str) -> bool {
        match self.get(kind, name) {
            None => true,
            Some(object) if uid(object) != seen => false,
            Some(_) => {
                self.write(kind, name, |o| {
                    o["metadata"]["deletionTimestamp"] = json!("now")
                });
                true
            }
        }
    }

    pub fn gate(&mut self, pod: &str, open: bool) {
        let status = if open { "True" } else { "False" };
        self.write(Kind::Pod, pod, |p| {
            p["status"]["conditions"] = json!([{"type": labels::IN_SERVICE, "status": status}]);
        });
    }

    pub fn serve(&mut self, pod: &str, seen: &str) -> bool {
        let same = self.get(Kind::Pod, pod).is_some_and(|p| version(p) == seen);
        if same {
            self.gate(pod, true);
        }
        same
    }

    pub fn kill(&mut self, pod: &str) {
        self.all.remove(&(Kind::Pod, pod.to_owned()));
    }

    /// Pods that a set of fewer instances does without: people wished so.
    pub fn surplus(&self, set: &str, replicas: i64, taken: &mut BTreeSet<String>) {
        let Some(set) = self.get(Kind::StatefulSet, set) else {
            return;
        };
        let own = self
            .some(Kind::Pod)
            .filter(|p| controller(p) == Some(uid(set)));
        taken.extend(
            own.filter(|p| ordinal(p) >= replicas)
                .map(|p| uid(p).to_owned()),
        );
    }

    pub fn make_workload(&mut self, deployment: bool, name: &str, replicas: i64) {
        let own = json!({"app": name});
        let spec = json!({
            "replicas": replicas, "selector": {"matchLabels": own}, "podManagementPolicy": "Parallel",
            "template": {"metadata": {"labels": own}, "spec": {"containers": [{"name": "it", "image": "it:1"}]}},
        });
        let kind = if deployment {
            Kind::Deployment
        } else {
            Kind::StatefulSet
        };
        self.create(
            kind,
            json!({"metadata": {"name": name, "labels": own}, "spec": spec}),
        );
    }

    /// Which objects would make up for this pod.
    pub fn keepers(&self, pod: &Value) -> Vec<&str> {
        let sets = [Kind::ReplicaSet, Kind::StatefulSet];
        let all = sets.into_iter().flat_map(|kind| self.some(kind));
        let owner = controller(pod);
        all.filter(|set| !going(set) && owner == Some(uid(set)))
            .map(name)
            .collect()
    }

    /// Each controller may have its turn.
    pub fn controllers(&mut self, rng: &mut ChaCha8Rng) {
        for (kind, name) in self.all.keys().cloned().collect::<Vec<_>>() {
            if rng.random_bool(0.3) {
                continue;
            }
            let Some(object) = self.get(kind, &name).cloned() else {
                continue;
            };
            match kind {
                _ if going(&object) && kind != Kind::Pod => self.collect(kind, &object, rng),
                Kind::Deployment => self.deployment(&object),
                Kind::ReplicaSet => self.replica_set(&object),
                Kind::StatefulSet => self.stateful_set(&object, rng),
                Kind::Pod => {
                    if going(&object) {
                        self.all.remove(&(kind, name));
                    }
                }
            }
        }
    }

    /// The garbage collector takes an owner from its dependents, one by one, and then lets it go.
    fn collect(&mut self, kind: Kind, object: &Value, rng: &mut ChaCha8Rng) {
        let dependents: Vec<(Kind, String)> = self
            .all
            .iter()
            .filter(|(_, o)| controller(o) == Some(uid(object)))
            .map(|(key, _)| key.clone())
            .collect();
        for (kind, name) in &dependents {
            if rng.random_bool(0.5) {
                return;
            }
            self.write(*kind, name, |o| {
                o["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("ownerReferences");
            });
        }
        self.all.remove(&(kind, name(object).to_owned()));
    }

    fn deployment(&mut self, it: &Value) {
        let template = &it["spec"]["template"];
        let select = &it["spec"]["selector"]["matchLabels"];
        for set in self.of(Kind::ReplicaSet) {
            if controller(&set).is_none() && !going(&set) && has(&set, select) {
                self.write(Kind::ReplicaSet, name(&set), |s| {
                    s["metadata"]["ownerReferences"] = owned(it)
                });
            }
        }
        let mut own = self.of(Kind::ReplicaSet);
        own.retain(|s| controller(s) == Some(uid(it)));
        let current = own
            .iter()
            .find(|s| unhashed(&s["spec"]["template"]) == *template);
        let Some(current) = current else {
            let hash = &render::digest(template)[..8];
            let mut labelled = template.clone();
            labelled["metadata"]["labels"][labels::POD_TEMPLATE_HASH] = json!(hash);
            let mut all = select.clone();
            all[labels::POD_TEMPLATE_HASH] = json!(hash);
            let set = json!({
                "metadata": {"name": format!("{}-{hash}", name(it)), "labels": labelled["metadata"]["labels"], "ownerReferences": owned(it)},
                "spec": {"replicas": it["spec"]["replicas"], "selector": {"matchLabels": all}, "template": labelled},
            });
            self.create(Kind::ReplicaSet, set);
            return;
        };
        for set in &own {
            let wish = if uid(set) == uid(current) {
                it["spec"]["replicas"].clone()
            } else {
                json!(0)
            };
            self.write(Kind::ReplicaSet, name(set), |s| {
                s["spec"]["replicas"] = wish
            });
        }
        let of = |sets: &[&Value]| {
            let pods = self
                .live()
                .filter(|p| sets.iter().any(|s| controller(p) == Some(uid(s))));
            pods.count()
        };
        let status = json!({
            "observedGeneration": it["metadata"]["generation"],
            "replicas": of(&own.iter().collect::<Vec<_>>()), "updatedReplicas": of(&[current]),
        });
        self.write(Kind::Deployment, name(it), |d| d["status"] = status);
    }

    fn replica_set(&mut self, it: &Value) {
        let select = &it["spec"]["selector"]["matchLabels"];
        let loose = |p: &Value| controller(p).is_none() && !going(p) && has(p, select);
        for pod in self.of(Kind::Pod).iter().filter(|p| loose(p)) {
            self.write(Kind::Pod, name(pod), |p| {
                p["metadata"]["ownerReferences"] = owned(it)
            });
        }
        let own: Vec<Value> = self
            .live()
            .filter(|p| controller(p) == Some(uid(it)))
            .cloned()
            .collect();
        let wish = number(&it["spec"]["replicas"]);
        for _ in own.len() as i64..wish {
            let n = self.count;
            let template = &it["spec"]["template"];
            let pod = json!({
                "metadata": {"name": format!("{}-{n}", name(it)), "labels": template["metadata"]["labels"], "ownerReferences": owned(it)},
                "spec": template["spec"],
            });
            self.create(Kind::Pod, pod);
        }
        for pod in own.iter().skip(wish.max(0) as usize) {
            self.write(Kind::Pod, name(pod), |p| {
                p["metadata"]["deletionTimestamp"] = json!("now")
            });
        }
        let generation = it["metadata"]["generation"].clone();
        self.write(Kind::ReplicaSet, name(it), |s| {
            s["status"]["observedGeneration"] = generation
        });
    }

    fn stateful_set(&mut self, it: &Value, rng: &mut ChaCha8Rng) {
        let template = it["spec"]["template"].clone();
        let update = render::digest(&template);
        self.templates.insert(update.clone(), template);
        let current = it["status"]["currentRevision"]
            .as_str()
            .unwrap_or(&update)
            .to_owned();
        let select = &it["spec"]["selector"]["matchLabels"];
        let loose = |p: &Value| {
            controller(p).is_none()
                && !going(p)
                && has(p, select)
                && name(p) == format!("{}-{}", name(it), ordinal(p))
        };
        for pod in self.of(Kind::Pod).iter().filter(|p| loose(p)) {
            self.write(Kind::Pod, name(pod), |p| {
                p["metadata"]["ownerReferences"] = owned(it)
            });
        }
        let own: Vec<Value> = self
            .some(Kind::Pod)
            .filter(|p| controller(p) == Some(uid(it)))
            .cloned()
            .collect();
        let wish = number(&it["spec"]["replicas"]);
        let partition = number(&it["spec"]["updateStrategy"]["rollingUpdate"]["partition"]);
        for n in 0..wish {
            if own.iter().any(|p| ordinal(p) == n) {
                continue;
            }
            let hash = if n < partition { &current } else { &update };
            let template = self.templates[hash].clone();
            let mut all = template["metadata"]["labels"].clone();
            all[labels::CONTROLLER_REVISION_HASH] = json!(hash);
            let pod = json!({
                "metadata": {"name": format!("{}-{n}", name(it)), "labels": all, "ownerReferences": owned(it)},
                "spec": template["spec"],
            });
            self.create(Kind::Pod, pod);
        }
        let at = |p: &Value| labels_of(p)[labels::CONTROLLER_REVISION_HASH] == update;
        let old = own
            .iter()
            .filter(|p| !going(p) && ordinal(p) >= partition && !at(p));
        let gone = own
            .iter()
            .filter(|p| !going(p) && ordinal(p) >= wish)
            .chain(old.take(1));
        for pod in gone {
            self.write(Kind::Pod, name(pod), |p| {
                p["metadata"]["deletionTimestamp"] = json!("now")
            });
        }
        let live: Vec<&Value> = own.iter().filter(|p| !going(p)).collect();
        let updated = live.iter().filter(|p| at(p)).count() as i64;
        let all = updated == wish && live.len() as i64 == wish;
        let status = json!({
            "observedGeneration": it["metadata"]["generation"], "replicas": live.len(), "updatedReplicas": updated,
            "updateRevision": update, "currentRevision": if all { &update } else { &current },
        });
        if rng.random_bool(0.8) {
            self.write(Kind::StatefulSet, name(it), |s| s["status"] = status);
        }
    }
}
