//! Which pods the Services and budgets select, kept up to date pod by pod: a pod event costs one
//! look-up a label, and the members of a selector are known without a scan.

use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{Key, Pod};
use crate::selector::Selector;

/// `namespace`, and one `label=value` that every member of the selector has.
type Handle = (Arc<str>, Option<(Box<str>, Box<str>)>);

/// Selectors by the key of their object, and their members.
#[derive(Default)]
pub struct Membership {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    selectors: FxHashMap<Key, (Selector, Handle)>,
    by_handle: FxHashMap<Handle, FxHashSet<Key>>,
    members: FxHashMap<Key, FxHashSet<Key>>,
}

impl Membership {
    /// Sets what `owner` selects; `pods` gives the pods of its namespace, and is only asked when
    /// the selector has changed. Whether it has.
    pub fn select(
        &self,
        owner: &Key,
        selector: &Selector,
        pods: impl FnOnce() -> Vec<Arc<Pod>>,
    ) -> bool {
        let mut state = self.state.write();
        if state
            .selectors
            .get(owner)
            .is_some_and(|(s, _)| s == selector)
        {
            return false;
        }
        state.drop_owner(owner);
        let pair = selector
            .match_labels
            .iter()
            .next()
            .map(|(k, v)| (Box::from(k), Box::from(v)));
        let handle: Handle = (owner.namespace.clone(), pair);
        state
            .by_handle
            .entry(handle.clone())
            .or_default()
            .insert(owner.clone());
        let members = pods()
            .iter()
            .filter(|p| selector.matches(&p.meta.labels))
            .map(|p| p.meta.key())
            .collect();
        state.members.insert(owner.clone(), members);
        state
            .selectors
            .insert(owner.clone(), (selector.clone(), handle));
        true
    }

    pub fn forget(&self, owner: &Key) {
        self.state.write().drop_owner(owner);
    }

    /// Takes in a change of a pod; `touched` hears of each owner that selects it, or did.
    pub fn pod_changed(
        &self,
        old: Option<&Arc<Pod>>,
        new: Option<&Arc<Pod>>,
        mut touched: impl FnMut(&Key),
    ) {
        let Some(pod) = new.or(old) else { return };
        let before = old.map(|p| self.state.read().owners(p)).unwrap_or_default();
        let same_labels =
            matches!((old, new), (Some(o), Some(n)) if o.meta.labels == n.meta.labels);
        let after = match new {
            Some(_) if same_labels => before.clone(),
            Some(p) => self.state.read().owners(p),
            None => Vec::new(),
        };
        if old.is_none() || !same_labels {
            let key = pod.meta.key();
            let mut state = self.state.write();
            for owner in before.iter().filter(|o| !after.contains(o)) {
                if let Some(members) = state.members.get_mut(owner) {
                    members.remove(&key);
                }
            }
            for owner in &after {
                if let Some(members) = state.members.get_mut(owner) {
                    members.insert(key.clone());
                }
            }
        }
        for owner in before
            .iter()
            .chain(after.iter().filter(|o| !before.contains(o)))
        {
            touched(owner);
        }
    }

    /// The pods that `owner` selects.
    pub fn members(&self, owner: &Key) -> Vec<Key> {
        let state = self.state.read();
        state
            .members
            .get(owner)
            .map(|members| members.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// The owners that select this pod.
    pub fn owners(&self, pod: &Pod) -> Vec<Key> {
        self.state.read().owners(pod)
    }
}

impl State {
    fn owners(&self, pod: &Pod) -> Vec<Key> {
        let mut found = Vec::new();
        let mut look = |handle: &Handle| {
            for owner in self.by_handle.get(handle).into_iter().flatten() {
                if self
                    .selectors
                    .get(owner)
                    .is_some_and(|(s, _)| s.matches(&pod.meta.labels))
                {
                    found.push(owner.clone());
                }
            }
        };
        for (k, v) in pod.meta.labels.iter() {
            look(&(pod.meta.namespace.clone(), Some((k.into(), v.into()))));
        }
        look(&(pod.meta.namespace.clone(), None));
        found
    }

    fn drop_owner(&mut self, owner: &Key) {
        if let Some((_, handle)) = self.selectors.remove(owner)
            && let Some(owners) = self.by_handle.get_mut(&handle)
        {
            owners.remove(owner);
            if owners.is_empty() {
                self.by_handle.remove(&handle);
            }
        }
        self.members.remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod(name: usize, labels: &[(String, String)]) -> Arc<Pod> {
        let labels: std::collections::BTreeMap<_, _> = labels.iter().cloned().collect();
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"namespace": "n", "name": name.to_string(), "labels": labels}}),
            )
            .unwrap(),
        )
    }

    fn labels() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::vec(("[ab]", "[12]"), 0..3)
    }

    proptest! {
        /// Whatever happens to pods and selectors, members are those a scan would find.
        #[test]
        fn members_are_what_a_scan_finds(
            steps in prop::collection::vec((0usize..4, prop::option::of(labels()), 0usize..3, prop::option::of(labels())), 1..40)
        ) {
            let membership = Membership::default();
            let mut pods = std::collections::BTreeMap::new();
            let mut selectors = std::collections::BTreeMap::new();
            for (p, pod_labels, s, selector) in steps {
                let new = pod_labels.map(|l| pod(p, &l));
                let old = match &new {
                    Some(new) => pods.insert(p, new.clone()),
                    None => pods.remove(&p),
                };
                membership.pod_changed(old.as_ref(), new.as_ref(), |_| {});
                let owner = Key::new("n", &format!("s{s}"));
                match selector {
                    Some(l) => {
                        let map: std::collections::BTreeMap<_, _> = l.into_iter().collect();
                        let selector = Selector::of_labels(map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect());
                        membership.select(&owner, &selector, || pods.values().cloned().collect());
                        selectors.insert(s, (owner, selector));
                    }
                    None => {
                        membership.forget(&owner);
                        selectors.remove(&s);
                    }
                }
                for (owner, selector) in selectors.values() {
                    let mut members = membership.members(owner);
                    members.sort();
                    let scan: Vec<Key> = pods.values().filter(|p| selector.matches(&p.meta.labels)).map(|p| p.meta.key()).collect();
                    prop_assert_eq!(members, scan);
                }
            }
        }
    }
}
