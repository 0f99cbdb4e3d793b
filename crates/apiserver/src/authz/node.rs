//! The Node authorizer: a node may read what its pods need, and speak about itself.
//!
//! What belongs to a node is indexed from the store's own events, beside the requests; kubelets try
//! again when they are faster than that, as with kube-apiserver.

use std::{borrow::Cow, sync::Arc};

use gantry_store::{Event, EventKind, Key, Revision, Store, Stored};
use parking_lot::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Attributes, Rule, references};
use crate::object::{self, View};

/// A kind of object that pods refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Secret,
    ConfigMap,
    Claim,
    Account,
    ResourceClaim,
}

/// An object that a pod refers to, by `namespace/name`.
pub type Reference = (Kind, Arc<str>);

#[derive(Default)]
struct Volume {
    /// `namespace/name` of the claim that it is bound to.
    claim: Option<Arc<str>>,
    secrets: Vec<Arc<str>>,
}

/// A pod that is on a node.
struct Pod {
    node: Arc<str>,
    /// What its version of this revision refers to. Every pod changes a few times when it starts and
    /// few kubelets ask, so this is read when one does.
    known: Mutex<Option<(Revision, Vec<Reference>)>>,
}

/// Which node needs what.
#[derive(Default)]
struct Graph {
    pods: FxHashMap<Arc<str>, Pod>,
    /// Names of the pods of a node.
    on: FxHashMap<Arc<str>, FxHashSet<Arc<str>>>,
    volumes: FxHashMap<Arc<str>, Volume>,
    /// Volumes whose node needs a Secret.
    by_secret: FxHashMap<Arc<str>, FxHashSet<Arc<str>>>,
    attachments: FxHashMap<Arc<str>, Arc<str>>,
    slices: FxHashMap<Arc<str>, Arc<str>>,
}

impl Pod {
    /// Whether the pod refers to an object, as it is now.
    fn refers(&self, store: &Store, key: &Arc<str>, wanted: &Reference) -> bool {
        let Some(stored) = store.get(&Key::new(PODS, key.clone())) else {
            return false;
        };
        let mut known = self.known.lock();
        if let Some((revision, references)) = &*known
            && *revision == stored.revision
        {
            return references.contains(wanted);
        }
        let pod: Value = serde_json::from_slice(&stored.value).unwrap_or_default();
        // By now another pod may have its name.
        let here = object::text(&pod, "/spec/nodeName") == &*self.node;
        let references = if here {
            references::of_pod(&pod)
        } else {
            vec![]
        };
        let refers = references.contains(wanted);
        *known = Some((stored.revision, references));
        refers
    }
}

/// Where a pod's JSON says that it is; empty where it is on no node.
fn node_of(json: &[u8]) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Pod<'a> {
        #[serde(borrow, default)]
        spec: Spec<'a>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Spec<'a> {
        #[serde(borrow, default)]
        node_name: Cow<'a, str>,
    }
    serde_json::from_slice::<Pod<'_>>(json).map_or(Cow::Borrowed(""), |pod| pod.spec.node_name)
}

impl Graph {
    fn put_pod(&mut self, key: &Arc<str>, node: &str) {
        if self.pods.get(key).is_some_and(|pod| &*pod.node == node) {
            return;
        }
        self.remove_pod(key);
        if node.is_empty() {
            return;
        }
        let node: Arc<str> = match self.on.get_key_value(node) {
            Some((node, _)) => node.clone(),
            None => node.into(),
        };
        let here = self.on.entry(node.clone()).or_default();
        here.insert(key.clone());
        let known = Mutex::default();
        self.pods.insert(key.clone(), Pod { node, known });
    }

    fn remove_pod(&mut self, key: &str) {
        let Some(pod) = self.pods.remove(key) else {
            return;
        };
        if let Some(here) = self.on.get_mut(&pod.node) {
            here.remove(key);
            if here.is_empty() {
                self.on.remove(&pod.node);
            }
        }
    }

    fn put_volume(&mut self, key: &Arc<str>, volume: &Value) {
        self.remove_volume(key);
        let reference = volume.pointer("/spec/claimRef").filter(|r| r.is_object());
        let claim = reference.map(|r| {
            let (namespace, name) = (object::text(r, "/namespace"), object::text(r, "/name"));
            Arc::from(format!("{namespace}/{name}"))
        });
        let secrets = references::of_volume(volume);
        for secret in &secrets {
            let volumes = self.by_secret.entry(secret.clone()).or_default();
            volumes.insert(key.clone());
        }
        self.volumes.insert(key.clone(), Volume { claim, secrets });
    }

    fn remove_volume(&mut self, key: &str) {
        let Some(volume) = self.volumes.remove(key) else {
            return;
        };
        for secret in volume.secrets {
            if let Some(volumes) = self.by_secret.get_mut(&secret) {
                volumes.remove(key);
                if volumes.is_empty() {
                    self.by_secret.remove(&secret);
                }
            }
        }
    }

    fn needs(&self, store: &Store, node: &str, kind: Kind, name: &str) -> bool {
        let wanted = (kind, name.into());
        let mut pods = self.on.get(node).into_iter().flatten();
        pods.any(|key| {
            let pod = self.pods.get(key);
            pod.is_some_and(|pod| pod.refers(store, key, &wanted))
        })
    }

    /// Whether a volume is bound to a claim of one of the node's pods.
    fn uses(&self, store: &Store, node: &str, volume: &str) -> bool {
        let claim = self.volumes.get(volume).and_then(|v| v.claim.as_ref());
        claim.is_some_and(|claim| self.needs(store, node, Kind::Claim, claim))
    }

    fn secret(&self, store: &Store, node: &str, name: &str) -> bool {
        self.needs(store, node, Kind::Secret, name)
            || self
                .by_secret
                .get(name)
                .into_iter()
                .flatten()
                .any(|volume| self.uses(store, node, volume))
    }
}

/// The kinds that the graph is made of, by their buckets in the store.
#[derive(Clone, Copy)]
enum Part {
    Pods,
    Volumes,
    Attachments,
    Slices,
}

const PODS: &str = "/pods";

const PARTS: [(Part, &str); 4] = [
    (Part::Pods, PODS),
    (Part::Volumes, "/persistentvolumes"),
    (Part::Attachments, "storage.k8s.io/volumeattachments"),
    (Part::Slices, "resource.k8s.io/resourceslices"),
];

impl Part {
    fn put(self, graph: &mut Graph, stored: &Stored) {
        let key = &stored.key.name;
        if matches!(self, Part::Pods) {
            // Who wrote the pod has noted it beside.
            let view = stored.ext.get().and_then(|ext| ext.downcast_ref::<View>());
            let node = match view {
                Some(view) => Cow::Borrowed(view.field("spec.nodeName").unwrap_or_default()),
                None => node_of(&stored.value),
            };
            return graph.put_pod(key, &node);
        }
        let Ok(object) = serde_json::from_slice::<Value>(&stored.value) else {
            return;
        };
        let keep = |map: &mut FxHashMap<Arc<str>, Arc<str>>, node: &str| {
            if node.is_empty() {
                map.remove(key);
            } else {
                map.insert(key.clone(), node.into());
            }
        };
        match self {
            Part::Pods => {}
            Part::Volumes => graph.put_volume(key, &object),
            Part::Attachments => {
                keep(
                    &mut graph.attachments,
                    object::text(&object, "/spec/nodeName"),
                );
            }
            Part::Slices => keep(&mut graph.slices, object::text(&object, "/spec/nodeName")),
        }
    }

    fn remove(self, graph: &mut Graph, key: &str) {
        match self {
            Part::Pods => graph.remove_pod(key),
            Part::Volumes => graph.remove_volume(key),
            Part::Attachments => {
                graph.attachments.remove(key);
            }
            Part::Slices => {
                graph.slices.remove(key);
            }
        }
    }

    fn clear(self, graph: &mut Graph) {
        match self {
            Part::Pods => {
                graph.pods.clear();
                graph.on.clear();
            }
            Part::Volumes => {
                graph.volumes.clear();
                graph.by_secret.clear();
            }
            Part::Attachments => graph.attachments.clear(),
            Part::Slices => graph.slices.clear(),
        }
    }
}

/// Follows one kind until the server or the store ends.
async fn follow(
    graph: Arc<RwLock<Graph>>,
    part: Part,
    bucket: &'static str,
    store: Store,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let snapshot = store.snapshot(bucket);
        let Ok(mut watch) = store.watch(bucket, snapshot.revision()) else {
            continue;
        };
        {
            let mut graph = graph.write();
            part.clear(&mut graph);
            for stored in snapshot.iter() {
                part.put(&mut graph, stored);
            }
        }
        drop(snapshot);
        loop {
            let batch = tokio::select! {
                batch = watch.next() => batch,
                () = stop.cancelled() => return,
            };
            match batch {
                Ok(batch) => {
                    let mut graph = graph.write();
                    for event in &batch.events {
                        apply(&mut graph, part, event);
                    }
                }
                Err(gantry_store::Lagged::Closed) => return,
                // Too far behind: from the state there is now.
                Err(gantry_store::Lagged::Compacted { .. }) => break,
            }
        }
    }
}

fn apply(graph: &mut Graph, part: Part, event: &Event) {
    match event.kind {
        EventKind::Put => part.put(graph, &event.object),
        EventKind::Delete => part.remove(graph, &event.object.key.name),
    }
}

/// The authorizer of nodes.
pub struct Nodes {
    graph: Arc<RwLock<Graph>>,
    /// What every node may do, but for the kinds that are looked at more closely.
    rules: Vec<Rule>,
}

type Verdict = Result<(), String>;

impl Nodes {
    /// `rules` are those of the role `system:node`.
    pub fn new(rules: Vec<Rule>) -> Nodes {
        Nodes {
            graph: Arc::default(),
            rules,
        }
    }

    /// Starts to follow the objects that tell which node needs what.
    pub fn start(&self, store: &Store, tasks: &TaskTracker, stop: &CancellationToken) {
        for (part, bucket) in PARTS {
            let graph = self.graph.clone();
            tasks.spawn(follow(graph, part, bucket, store.clone(), stop.clone()));
        }
    }

    /// Whether a node may, or why it may not.
    pub fn authorize(&self, store: &Store, node: &str, a: &Attributes<'_>) -> Verdict {
        if a.path.is_none() {
            match (a.group, a.resource) {
                ("", "secrets" | "configmaps") => return self.read(store, node, a),
                ("", "persistentvolumeclaims") if a.subresource == "status" => {
                    return match a.verb {
                        "update" | "patch" => self.related(store, node, a),
                        _ => Err("can only get/update/patch this type".to_owned()),
                    };
                }
                ("", "persistentvolumeclaims" | "persistentvolumes")
                | ("resource.k8s.io", "resourceclaims")
                | ("storage.k8s.io", "volumeattachments") => return self.get(store, node, a),
                ("", "serviceaccounts") => return self.account(store, node, a),
                ("coordination.k8s.io", "leases") => return lease(node, a),
                ("storage.k8s.io", "csinodes") => return csi_node(node, a),
                ("resource.k8s.io", "resourceslices") => return self.slice(store, node, a),
                ("", "nodes") => return own_node(node, a),
                ("", "pods") => return self.pod(store, node, a),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(a)) {
            return Ok(());
        }
        Err(String::new())
    }

    fn related(&self, store: &Store, node: &str, a: &Attributes<'_>) -> Verdict {
        if a.name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        let full = || format!("{}/{}", a.namespace, a.name);
        let graph = self.graph.read();
        let is =
            |map: &FxHashMap<Arc<str>, Arc<str>>| map.get(a.name).is_some_and(|n| **n == *node);
        let related = match a.resource {
            "secrets" => graph.secret(store, node, &full()),
            "configmaps" => graph.needs(store, node, Kind::ConfigMap, &full()),
            "persistentvolumeclaims" => graph.needs(store, node, Kind::Claim, &full()),
            "persistentvolumes" => graph.uses(store, node, a.name),
            "serviceaccounts" => graph.needs(store, node, Kind::Account, &full()),
            "resourceclaims" => graph.needs(store, node, Kind::ResourceClaim, &full()),
            "volumeattachments" => is(&graph.attachments),
            "resourceslices" => is(&graph.slices),
            "pods" => {
                let pod = graph.pods.get(full().as_str());
                pod.is_some_and(|pod| &*pod.node == node)
            }
            _ => false,
        };
        if related {
            return Ok(());
        }
        Err(format!(
            "no relationship found between node '{node}' and this object"
        ))
    }

    fn read(&self, store: &Store, node: &str, a: &Attributes<'_>) -> Verdict {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".to_owned());
        }
        if !a.subresource.is_empty() {
            return Err("cannot read subresource".to_owned());
        }
        if a.namespace.is_empty() {
            return Err("can only read namespaced object of this type".to_owned());
        }
        self.related(store, node, a)
    }

    fn get(&self, store: &Store, node: &str, a: &Attributes<'_>) -> Verdict {
        if a.verb != "get" {
            return Err("can only get individual resources of this type".to_owned());
        }
        if !a.subresource.is_empty() {
            return Err("cannot get subresource".to_owned());
        }
        self.related(store, node, a)
    }

    fn account(&self, store: &Store, node: &str, a: &Attributes<'_>) -> Verdict {
        match (a.verb, a.subresource) {
            ("get", "") => self.related(store, node, a),
            ("create", "token") if !a.name.is_empty() => self.related(store, node, a),
            ("create", "token") => {
                Err("can only create tokens for individual service accounts".to_owned())
            }
            _ => Err("can only create token subresource of serviceaccount".to_owned()),
        }
    }

    fn slice(&self, store: &Store, node: &str, a: &Attributes<'_>) -> Verdict {
        if !a.subresource.is_empty() {
            return Err("cannot authorize ResourceSlice subresources".to_owned());
        }
        match a.verb {
            // Whose slice it is to be, the plugin NodeRestriction sees.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(store, node, a),
            "list" | "watch" | "deletecollection" if a.selects("spec.nodeName", node) => Ok(()),
            "list" | "watch" | "deletecollection" => Err(
                "can only list/watch/deletecollection resourceslices with nodeName field selector"
                    .to_owned(),
            ),
            _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection".to_owned()),
        }
    }

    fn pod(&self, store: &Store, node: &str, a: &Attributes<'_>) -> Verdict {
        match (a.subresource, a.verb) {
            ("", "get") => self.related(store, node, a),
            ("", "list" | "watch") if a.selects("spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") => {
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            // Which pods, the plugin NodeRestriction sees.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            _ => Err(String::new()),
        }
    }
}

fn own_node(node: &str, a: &Attributes<'_>) -> Verdict {
    match (a.subresource, a.verb) {
        // Which node, the plugin NodeRestriction sees.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if a.name == node => Ok(()),
        ("", "get" | "list" | "watch") if a.name.is_empty() => Err(format!(
            "node '{node}' cannot read all nodes, only its own Node object"
        )),
        ("", "get" | "list" | "watch") => Err(format!(
            "node '{node}' cannot read '{}', only its own Node object",
            a.name
        )),
        _ => Err(String::new()),
    }
}

fn lease(node: &str, a: &Attributes<'_>) -> Verdict {
    const NAMESPACE: &str = "kube-node-lease";
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if a.namespace != NAMESPACE {
        return Err(format!(
            "can only access leases in the {NAMESPACE:?} system namespace"
        ));
    }
    if a.verb != "create" && a.name != node {
        return Err(
            "can only access node lease with the same name as the requesting node".to_owned(),
        );
    }
    Ok(())
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Verdict {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".to_owned());
    }
    if !a.subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".to_owned());
    }
    if a.verb != "create" && a.name != node {
        return Err("can only access CSINode with the same name as the requesting node".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_node_is_read_off_its_json() {
        for (json, node) in [
            (
                r#"{"spec":{"nodeName":"a","x":[{"nodeName":"b"}]},"status":{}}"#,
                "a",
            ),
            (r#"{"spec":{"nodeName":"a\u0062"}}"#, "ab"),
            (r#"{"spec":{}}"#, ""),
            (r#"{"metadata":{}}"#, ""),
            ("{", ""),
        ] {
            assert_eq!(node_of(json.as_bytes()), node, "{json}");
        }
    }
}
