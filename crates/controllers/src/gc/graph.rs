//! The graph of owners and dependents, and what to do with an object (pure: no I/O).

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{Meta, Owner};

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// A resource as the graph needs it, shared by all its objects.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    pub group: Arc<str>,
    pub version: Arc<str>,
    pub plural: Arc<str>,
    pub kind: Arc<str>,
    pub namespaced: bool,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        match self.group.is_empty() {
            true => self.version.to_string(),
            false => format!("{}/{}", self.group, self.version),
        }
    }

    pub fn path(&self, namespace: &str) -> String {
        crate::model::collection_path(
            &self.group,
            &self.version,
            &self.plural,
            self.namespaced,
            namespace,
        )
    }
}

/// An object of the graph.
#[derive(Debug, Clone)]
pub struct Node {
    pub resource: Arc<Resource>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub owners: Box<[Owner]>,
    pub deleting: bool,
    /// It waits for its dependents to be deleted.
    pub foreground: bool,
    /// It waits for its dependents to be orphaned.
    pub orphaning: bool,
}

impl Node {
    /// Whether an object of that namespace can be owned by it: owners are looked for beside their dependents.
    pub fn can_own(&self, namespace: &str) -> bool {
        !self.resource.namespaced || *self.namespace == *namespace
    }
}

/// Work that a change gives rise to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Task {
    /// See whether this object is still owned.
    Check(Arc<str>),
    /// The same, but an owner is not in the graph, and may only be late.
    CheckLater(Arc<str>),
    /// Take this object out of its dependents' owners.
    Orphan(Arc<str>),
}

#[derive(Default)]
pub struct Graph {
    nodes: FxHashMap<Arc<str>, Node>,
    /// Dependents by the uid of an owner, which need not be in the graph.
    dependents: FxHashMap<Arc<str>, FxHashSet<Arc<str>>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn dependents(&self, uid: &str) -> Vec<Arc<str>> {
        self.dependents
            .get(uid)
            .map(|d| d.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether dependents in the graph hold up the foreground deletion of their owner.
    pub fn blocking(&self, uid: &str) -> Vec<Arc<str>> {
        let blocks = |dependent: &&Arc<str>| {
            self.nodes.get(*dependent).is_some_and(|node| {
                node.owners
                    .iter()
                    .any(|o| &*o.uid == uid && o.block_owner_deletion)
            })
        };
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter(blocks)
            .cloned()
            .collect()
    }

    /// Whether a dependent waits for dependents of its own. If its owner is then to wait for it,
    /// the two may wait for each other for ever.
    pub fn circular(&self, uid: &str) -> bool {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .any(|dependent| self.nodes.get(dependent).is_some_and(|n| n.foreground))
    }

    /// Takes in an object.
    pub fn put(&mut self, resource: &Arc<Resource>, meta: &Meta, tasks: &mut Vec<Task>) {
        let uid = &meta.uid;
        let node = Node {
            resource: resource.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: uid.clone(),
            owners: meta.owners.clone().into(),
            deleting: meta.deleted.is_some(),
            foreground: meta.deleted.is_some() && meta.has_finalizer(FOREGROUND),
            orphaning: meta.deleted.is_some() && meta.has_finalizer(ORPHAN),
        };
        let old = self.nodes.insert(uid.clone(), node);
        let before: &[Owner] = old.as_ref().map_or(&[], |n| &n.owners);
        for owner in before {
            if !meta.owners.iter().any(|o| o.uid == owner.uid) {
                self.unlink(&owner.uid, uid);
                // An owner that waits for its dependents has one less.
                if self.nodes.get(&owner.uid).is_some_and(|n| n.foreground) {
                    tasks.push(Task::Check(owner.uid.clone()));
                }
            }
        }
        let mut check = None;
        for owner in &meta.owners {
            let known = before.iter().any(|o| o.uid == owner.uid);
            if !known {
                self.dependents
                    .entry(owner.uid.clone())
                    .or_default()
                    .insert(uid.clone());
                match self.nodes.get(&owner.uid) {
                    Some(owner) if owner.foreground => check = Some(Task::Check(uid.clone())),
                    Some(owner) if !owner.can_own(&meta.namespace) => {
                        check.get_or_insert(Task::CheckLater(uid.clone()));
                    }
                    Some(_) => {}
                    None => {
                        check.get_or_insert(Task::CheckLater(uid.clone()));
                    }
                }
            } else if before
                .iter()
                .any(|o| o.uid == owner.uid && o.block_owner_deletion)
                && !owner.block_owner_deletion
            {
                tasks.push(Task::Check(owner.uid.clone()));
            }
        }
        tasks.extend(check);
        let was = |get: fn(&Node) -> bool| old.as_ref().is_some_and(get);
        let now = self.nodes.get(uid);
        if now.is_some_and(|n| n.orphaning) && !was(|n| n.orphaning) {
            tasks.push(Task::Orphan(uid.clone()));
        }
        if now.is_some_and(|n| n.foreground) && !was(|n| n.foreground) {
            tasks.extend(self.dependents(uid).into_iter().map(Task::Check));
            tasks.push(Task::Check(uid.clone()));
        }
    }

    /// An object is gone.
    pub fn remove(&mut self, uid: &str, tasks: &mut Vec<Task>) {
        let Some(node) = self.nodes.remove(uid) else {
            return;
        };
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(|n| n.foreground) {
                tasks.push(Task::Check(owner.uid.clone()));
            }
        }
        tasks.extend(self.dependents(uid).into_iter().map(Task::Check));
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is there, and stays or goes without waiting for dependents.
    Solid,
    /// It waits for its dependents to be deleted.
    Waiting,
    /// There is no such object.
    Dangling,
}

/// What to do with an object, given the states of its owners.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Keep it, and take these owners (by uid) out of its references.
    Forget(Vec<Arc<str>>),
    /// Delete it in the foreground: an owner waits, and it has dependents itself.
    DeleteForeground,
    Delete,
}

pub fn judge(owners: &[(Owner, State)], has_dependents: bool) -> Verdict {
    if owners.is_empty() {
        return Verdict::Keep;
    }
    let rest: Vec<Arc<str>> = owners
        .iter()
        .filter(|(_, state)| *state != State::Solid)
        .map(|(owner, _)| owner.uid.clone())
        .collect();
    if rest.is_empty() {
        return Verdict::Keep;
    }
    if rest.len() < owners.len() {
        return Verdict::Forget(rest);
    }
    if has_dependents && owners.iter().any(|(_, state)| *state == State::Waiting) {
        return Verdict::DeleteForeground;
    }
    Verdict::Delete
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn resource() -> Arc<Resource> {
        Arc::new(Resource {
            group: "".into(),
            version: "v1".into(),
            plural: "things".into(),
            kind: "Thing".into(),
            namespaced: true,
        })
    }

    fn meta(uid: &str, owners: &[&str], finalizer: Option<&str>) -> Meta {
        let owners: Vec<_> = owners
            .iter()
            .map(|uid| json!({"uid": uid, "blockOwnerDeletion": true}))
            .collect();
        let mut meta = json!({"uid": uid, "name": uid, "ownerReferences": owners});
        if let Some(finalizer) = finalizer {
            meta["finalizers"] = json!([finalizer]);
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(meta).unwrap()
    }

    fn put(graph: &mut Graph, meta: &Meta) -> Vec<Task> {
        let mut tasks = Vec::new();
        graph.put(&resource(), meta, &mut tasks);
        tasks
    }

    #[test]
    fn an_owner_that_goes_has_its_dependents_checked() {
        let mut graph = Graph::default();
        assert_eq!(put(&mut graph, &meta("a", &[], None)), []);
        assert_eq!(put(&mut graph, &meta("b", &["a"], None)), []);
        let mut tasks = Vec::new();
        graph.remove("a", &mut tasks);
        assert_eq!(tasks, [Task::Check("b".into())]);
    }

    #[test]
    fn an_unknown_owner_is_looked_for_later() {
        let mut graph = Graph::default();
        assert_eq!(
            put(&mut graph, &meta("b", &["a"], None)),
            [Task::CheckLater("b".into())]
        );
        assert_eq!(put(&mut graph, &meta("b", &["a"], None)), []);
    }

    #[test]
    fn an_owner_of_another_namespace_is_none() {
        let mut graph = Graph::default();
        let of = |uid: &str, namespace: &str, owners: &[&str]| Meta {
            namespace: namespace.into(),
            ..meta(uid, owners, None)
        };
        put(&mut graph, &of("a", "one", &[]));
        assert_eq!(put(&mut graph, &of("b", "one", &["a"])), []);
        assert_eq!(
            put(&mut graph, &of("c", "other", &["a"])),
            [Task::CheckLater("c".into())]
        );
        assert!(
            graph
                .get("a")
                .is_some_and(|it| it.can_own("one") && !it.can_own("other"))
        );
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        put(&mut graph, &meta("a", &[], None));
        put(&mut graph, &meta("b", &["a"], None));
        assert_eq!(
            put(&mut graph, &meta("a", &[], Some(FOREGROUND))),
            [Task::Check("b".into()), Task::Check("a".into())]
        );
        assert_eq!(graph.blocking("a"), ["b".into()]);
        let mut tasks = Vec::new();
        graph.remove("b", &mut tasks);
        assert_eq!(tasks, [Task::Check("a".into())]);
        assert!(graph.blocking("a").is_empty());
    }

    #[test]
    fn a_circle_is_seen_where_it_closes() {
        let mut graph = Graph::default();
        put(&mut graph, &meta("a", &["c"], Some(FOREGROUND)));
        put(&mut graph, &meta("b", &["a"], None));
        put(&mut graph, &meta("c", &["b"], None));
        assert!(graph.circular("c") && !graph.circular("a") && !graph.circular("b"));
    }

    #[test]
    fn orphaning_is_asked_for_once() {
        let mut graph = Graph::default();
        let orphaning = meta("a", &[], Some(ORPHAN));
        assert_eq!(put(&mut graph, &orphaning), [Task::Orphan("a".into())]);
        assert_eq!(put(&mut graph, &orphaning), []);
    }

    #[rstest]
    #[case(&[], false, Verdict::Keep)]
    #[case(&[State::Solid], false, Verdict::Keep)]
    #[case(&[State::Solid, State::Dangling], false, Verdict::Forget(vec!["1".into()]))]
    #[case(&[State::Solid, State::Waiting], true, Verdict::Forget(vec!["1".into()]))]
    #[case(&[State::Dangling], true, Verdict::Delete)]
    #[case(&[State::Waiting], false, Verdict::Delete)]
    #[case(&[State::Waiting, State::Dangling], true, Verdict::DeleteForeground)]
    fn judges(#[case] states: &[State], #[case] dependents: bool, #[case] expected: Verdict) {
        let owners: Vec<(Owner, State)> = states
            .iter()
            .enumerate()
            .map(|(i, state)| {
                let owner = Owner {
                    uid: i.to_string().into(),
                    ..Owner::default()
                };
                (owner, *state)
            })
            .collect();
        assert_eq!(judge(&owners, dependents), expected);
    }
}
