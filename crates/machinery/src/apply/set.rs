//! Sets of fields: a trie of path elements, kept sorted.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::PathElement;

/// A set of paths. A path may be a member without its parents, and a parent without its children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Sorted by element, each once. No node is without effect: it is a member or has children.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub element: PathElement,
    /// Whether the path that ends here is in the set.
    pub member: bool,
    pub children: FieldSet,
}

impl FieldSet {
    pub fn new() -> Self {
        FieldSet::default()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many paths are in the set.
    pub fn len(&self) -> usize {
        self.nodes
            .iter()
            .map(|n| usize::from(n.member) + n.children.len())
            .sum()
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn with_capacity(capacity: usize) -> Self {
        FieldSet {
            nodes: Vec::with_capacity(capacity),
        }
    }

    /// Adds a node at the end; [`FieldSet::sort`] must follow when elements did not come in order.
    pub(super) fn push(&mut self, element: PathElement, member: bool, children: FieldSet) {
        if member || !children.is_empty() {
            self.nodes.push(Node {
                element,
                member,
                children,
            });
        }
    }

    pub(super) fn sort(&mut self) {
        if !self.nodes.is_sorted_by(|a, b| a.element < b.element) {
            self.nodes.sort_by(|a, b| a.element.cmp(&b.element));
            self.nodes.dedup_by(|later, first| {
                let same = later.element == first.element;
                if same {
                    first.member |= later.member;
                    let more = std::mem::take(&mut later.children);
                    first.children = first.children.union(&more);
                }
                same
            });
        }
    }

    fn find(&self, element: &PathElement) -> Result<usize, usize> {
        self.nodes.binary_search_by(|n| n.element.cmp(element))
    }

    /// Whether the one-step path `element` is a member.
    pub(super) fn has(&self, element: &PathElement) -> bool {
        self.find(element).is_ok_and(|i| self.nodes[i].member)
    }

    /// The paths that begin with `element`, without it.
    pub(super) fn below(&self, element: &PathElement) -> Option<&FieldSet> {
        self.find(element)
            .ok()
            .map(|i| &self.nodes[i].children)
            .filter(|c| !c.is_empty())
    }

    /// Adds a path. The empty path (the object itself) is never owned.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let at = self.find(first).unwrap_or_else(|at| {
            self.nodes.insert(
                at,
                Node {
                    element: first.clone(),
                    member: false,
                    children: FieldSet::new(),
                },
            );
            at
        });
        if rest.is_empty() {
            self.nodes[at].member = true;
        } else {
            self.nodes[at].children.insert(rest);
        }
    }

    pub fn contains(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [only] => self.has(only),
            [first, rest @ ..] => self.below(first).is_some_and(|c| c.contains(rest)),
        }
    }

    /// Paths in either set.
    #[must_use]
    pub fn union(&self, other: &FieldSet) -> FieldSet {
        let mut out = FieldSet::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut left, mut right) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some(l), Some(r)) => l.element.cmp(&r.element),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return out,
            };
            match order {
                Ordering::Less => out.nodes.extend(left.next().cloned()),
                Ordering::Greater => out.nodes.extend(right.next().cloned()),
                Ordering::Equal => {
                    if let (Some(l), Some(r)) = (left.next(), right.next()) {
                        out.push(
                            l.element.clone(),
                            l.member || r.member,
                            l.children.union(&r.children),
                        );
                    }
                }
            }
        }
    }

    /// Paths in both sets.
    #[must_use]
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut out = FieldSet::new();
        for node in &self.nodes {
            if let Ok(at) = other.find(&node.element) {
                let with = &other.nodes[at];
                out.push(
                    node.element.clone(),
                    node.member && with.member,
                    node.children.intersection(&with.children),
                );
            }
        }
        out
    }

    /// Paths that the other set does not have. A path goes alone, not with those below it.
    #[must_use]
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        let mut out = FieldSet::with_capacity(self.nodes.len());
        for node in &self.nodes {
            match other.find(&node.element) {
                Ok(at) => {
                    let without = &other.nodes[at];
                    out.push(
                        node.element.clone(),
                        node.member && !without.member,
                        node.children.difference(&without.children),
                    );
                }
                Err(_) => out.nodes.push(node.clone()),
            }
        }
        out
    }

    /// [`FieldSet::union`] without copies where one side is empty.
    #[must_use]
    pub(super) fn joined(self, other: FieldSet) -> FieldSet {
        if self.is_empty() {
            other
        } else if other.is_empty() {
            self
        } else {
            self.union(&other)
        }
    }

    /// [`FieldSet::difference`] without copies.
    #[must_use]
    pub(super) fn without(mut self, other: &FieldSet) -> FieldSet {
        if other.is_empty() {
            return self;
        }
        self.nodes.retain_mut(|node| {
            if let Ok(at) = other.find(&node.element) {
                let less = &other.nodes[at];
                node.member &= !less.member;
                let children = std::mem::take(&mut node.children);
                node.children = children.without(&less.children);
            }
            node.member || !node.children.is_empty()
        });
        self
    }

    /// Paths that the other set does not have; a path goes with all that are below it.
    #[must_use]
    pub fn recursive_difference(self, other: &FieldSet) -> FieldSet {
        if other.is_empty() {
            return self;
        }
        let mut out = self;
        out.nodes
            .retain_mut(|node| match other.find(&node.element) {
                Ok(at) if other.nodes[at].member => false,
                Ok(at) => {
                    let children = std::mem::take(&mut node.children);
                    node.children = children.recursive_difference(&other.nodes[at].children);
                    node.member || !node.children.is_empty()
                }
                Err(_) => true,
            });
        out
    }

    /// Members that have no members below them.
    #[must_use]
    pub fn leaves(&self) -> FieldSet {
        let mut out = FieldSet::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let children = node.children.leaves();
            out.push(
                node.element.clone(),
                node.member && children.is_empty(),
                children,
            );
        }
        out
    }

    /// Calls `visit` with every path: those that end at a level first, then those that go deeper,
    /// which is the order in which conflicts are listed.
    pub fn each(&self, visit: &mut impl FnMut(&[PathElement])) {
        fn walk(
            set: &FieldSet,
            path: &mut Vec<PathElement>,
            visit: &mut impl FnMut(&[PathElement]),
        ) {
            for node in set.nodes.iter().filter(|n| n.member) {
                path.push(node.element.clone());
                visit(path);
                path.pop();
            }
            for node in set.nodes.iter().filter(|n| !n.children.is_empty()) {
                path.push(node.element.clone());
                walk(&node.children, path, visit);
                path.pop();
            }
        }
        walk(self, &mut Vec::new(), visit);
    }

    /// The set as `fieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        for node in &self.nodes {
            let mut below = match node.children.to_fields_v1() {
                Value::Object(below) => below,
                _ => Map::new(),
            };
            if node.member && !below.is_empty() {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(node.element.encode(), Value::Object(below));
        }
        Value::Object(map)
    }

    /// The same as text, where nobody will look into it: without a tree in between.
    pub(super) fn write_fields_v1(&self, out: &mut String) {
        out.push('{');
        for (i, node) in self.nodes.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            match &node.element {
                PathElement::Field(name) if is_plain(name) => {
                    out.push_str("\"f:");
                    out.push_str(name);
                    out.push('"');
                }
                other => out.push_str(&Value::from(other.encode()).to_string()),
            }
            out.push(':');
            let before = out.len();
            node.children.write_fields_v1(out);
            if node.member && !node.children.is_empty() {
                out.insert_str(before + 1, "\".\":{},");
            }
        }
        out.push('}');
    }

    /// Reads `fieldsV1`.
    ///
    /// # Errors
    /// What is wrong with the first bad member name.
    pub fn from_fields_v1(fields: &Value) -> Result<FieldSet, String> {
        let Value::Object(map) = fields else {
            return Err(format!("expected an object, got {fields}"));
        };
        let mut out = FieldSet::with_capacity(map.len());
        for (name, below) in map {
            if name == "." {
                continue;
            }
            let element = PathElement::decode(name)?;
            let children = FieldSet::from_fields_v1(below)?;
            // A path without others below it is itself the member.
            let member = children.is_empty() || below.get(".").is_some();
            out.push(element, member, children);
        }
        out.sort();
        Ok(out)
    }
}

/// Whether JSON writes a text as it is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\')
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub fn element() -> impl Strategy<Value = PathElement> {
        prop_oneof![
            4 => "[abc<\"]{1,2}".prop_map(|s| PathElement::Field(s.into())),
            1 => ("[ab]", 0..3i64).prop_map(|(s, n)| PathElement::Key(vec![
                ("name".into(), Value::from(s)),
                ("port".into(), Value::from(n)),
            ])),
            1 => "[xy&]".prop_map(|s| PathElement::Value(Value::from(s))),
            1 => (0..3i64).prop_map(PathElement::Index),
        ]
    }

    fn set() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec(element(), 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::new();
            for path in paths {
                set.insert(&path);
            }
            set
        })
    }

    fn paths(set: &FieldSet) -> Vec<Vec<PathElement>> {
        let mut all = Vec::new();
        set.each(&mut |p| all.push(p.to_vec()));
        all.sort();
        all
    }

    proptest! {
        #[test]
        fn fields_v1_round_trip(a in set()) {
            let json = a.to_fields_v1();
            let mut text = String::new();
            a.write_fields_v1(&mut text);
            prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &json);
            prop_assert_eq!(FieldSet::from_fields_v1(&json).unwrap(), a);
        }

        #[test]
        fn algebra(a in set(), b in set()) {
            let union = a.union(&b);
            let both = a.intersection(&b);
            let only = a.difference(&b);
            prop_assert_eq!(&union, &b.union(&a));
            prop_assert_eq!(&union, &a.clone().joined(b.clone()));
            prop_assert_eq!(&only, &a.clone().without(&b));
            prop_assert_eq!(&both, &b.intersection(&a));
            prop_assert_eq!(only.union(&both), a.clone());
            prop_assert!(only.intersection(&b).is_empty());
            prop_assert_eq!(union.len() + both.len(), a.len() + b.len());
            for path in paths(&union) {
                prop_assert!(a.contains(&path) || b.contains(&path));
                prop_assert_eq!(both.contains(&path), a.contains(&path) && b.contains(&path));
                prop_assert_eq!(only.contains(&path), a.contains(&path) && !b.contains(&path));
            }
        }

        #[test]
        fn recursive_difference_takes_what_is_below(a in set(), b in set()) {
            let left = a.clone().recursive_difference(&b);
            for path in paths(&a) {
                let covered = (1..=path.len()).any(|n| b.contains(&path[..n]));
                prop_assert_eq!(left.contains(&path), !covered);
            }
        }

        #[test]
        fn leaves_have_nothing_below(a in set()) {
            let leaves = a.leaves();
            let all = paths(&a);
            for path in &all {
                let parent = all.iter().any(|p| p.len() > path.len() && p.starts_with(path));
                prop_assert_eq!(leaves.contains(path), !parent);
            }
        }
    }

    #[test]
    fn writes_what_kubernetes_writes() {
        let json = json!({"f:spec": {"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
            "f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}}});
        let set = FieldSet::from_fields_v1(&json).unwrap();
        assert_eq!(set.to_fields_v1(), json);
        assert_eq!(set.len(), 4);
        let mut shown = Vec::new();
        set.each(&mut |p| shown.push(p.iter().map(ToString::to_string).collect::<String>()));
        assert_eq!(
            shown,
            [
                ".metadata.finalizers[=\"a/b\"]",
                ".spec.ports",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
            ]
        );
        assert_eq!(PathElement::Value(json!("a<b")).encode(), "v:\"a\\u003cb\"");
    }

    #[test]
    fn bad_names() {
        for name in ["x", "q:a", "f", "k:[]", "v:", "i:x", "fa"] {
            assert!(
                FieldSet::from_fields_v1(&json!({ name: {} })).is_err(),
                "{name}"
            );
        }
    }
}
