//! Label selectors over pods and node selectors over nodes, compiled to symbols.

use super::symbols::{Symbol, Symbols, value_of};
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use std::collections::BTreeMap;

/// One requirement on a label set.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Requirement {
    In(Symbol, Vec<Symbol>),
    NotIn(Symbol, Vec<Symbol>),
    Exists(Symbol),
    DoesNotExist(Symbol),
    /// The label is a whole number above this (node selectors only).
    Gt(Symbol, i64),
    /// The label is a whole number below this (node selectors only).
    Lt(Symbol, i64),
    /// Cannot be met: an operator or value that is not understood never widens a placement.
    Never,
}

impl Requirement {
    /// Whether a label set meets the requirement. An absent key meets `NotIn`, as in Kubernetes.
    #[must_use]
    pub fn matches(&self, labels: &[(Symbol, Symbol)], symbols: &Symbols) -> bool {
        let number = |key| value_of(labels, key).and_then(|v| symbols.text(v).parse::<i64>().ok());
        match self {
            Self::In(key, values) => value_of(labels, *key).is_some_and(|v| values.contains(&v)),
            Self::NotIn(key, values) => value_of(labels, *key).is_none_or(|v| !values.contains(&v)),
            Self::Exists(key) => value_of(labels, *key).is_some(),
            Self::DoesNotExist(key) => value_of(labels, *key).is_none(),
            Self::Gt(key, bound) => number(*key).is_some_and(|n| n > *bound),
            Self::Lt(key, bound) => number(*key).is_some_and(|n| n < *bound),
            Self::Never => false,
        }
    }

    /// The label key it reads.
    #[must_use]
    pub fn key(&self) -> Option<Symbol> {
        match self {
            Self::In(key, _)
            | Self::NotIn(key, _)
            | Self::Exists(key)
            | Self::DoesNotExist(key)
            | Self::Gt(key, _)
            | Self::Lt(key, _) => Some(*key),
            Self::Never => None,
        }
    }
}

/// A conjunction of requirements; empty matches everything.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// Compiles a label selector. An absent selector matches nothing, an empty one everything.
    pub fn compile(selector: Option<&meta::LabelSelector>, symbols: &mut Symbols) -> Self {
        let Some(selector) = selector else {
            return Self(vec![Requirement::Never]);
        };
        let mut all = Self::from_map(selector.match_labels.iter().flatten(), symbols).0;
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.as_deref().unwrap_or_default();
            all.push(requirement(
                &expression.key,
                &expression.operator,
                values,
                symbols,
            ));
        }
        Self(all).sorted()
    }

    /// A selector of exact label values.
    pub fn from_map<'a>(
        map: impl IntoIterator<Item = (&'a String, &'a String)>,
        symbols: &mut Symbols,
    ) -> Self {
        let all = map
            .into_iter()
            .map(|(k, v)| Requirement::In(symbols.intern(k), vec![symbols.intern(v)]))
            .collect();
        Self(all).sorted()
    }

    /// Adds requirements.
    #[must_use]
    pub fn and(mut self, more: impl IntoIterator<Item = Requirement>) -> Self {
        self.0.extend(more);
        self.sorted()
    }

    /// Equal selectors must compare equal, however they were written.
    fn sorted(mut self) -> Self {
        self.0.sort_unstable();
        self.0.dedup();
        self
    }

    /// Whether a label set meets all requirements.
    #[must_use]
    pub fn matches(&self, labels: &[(Symbol, Symbol)], symbols: &Symbols) -> bool {
        self.0.iter().all(|r| r.matches(labels, symbols))
    }

    /// A label that every match carries, to index by.
    #[must_use]
    pub fn certain_label(&self) -> Option<(Symbol, Symbol)> {
        self.0.iter().find_map(|r| match r {
            Requirement::In(key, values) if values.len() == 1 => Some((*key, values[0])),
            _ => None,
        })
    }
}

impl Selector {
    /// Label values of which every match carries one, if a requirement names such.
    #[must_use]
    pub fn certain_values(&self) -> Option<Vec<(Symbol, Symbol)>> {
        self.0.iter().find_map(|r| match r {
            Requirement::In(key, values) => Some(values.iter().map(|v| (*key, *v)).collect()),
            _ => None,
        })
    }
}

fn requirement(key: &str, operator: &str, values: &[String], symbols: &mut Symbols) -> Requirement {
    let key = symbols.intern(key);
    let number = || values.first().and_then(|v| v.parse().ok());
    let mut set = || {
        let mut set: Vec<_> = values.iter().map(|v| symbols.intern(v)).collect();
        set.sort_unstable();
        set
    };
    match operator {
        "In" => Requirement::In(key, set()),
        "NotIn" => Requirement::NotIn(key, set()),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::DoesNotExist(key),
        "Gt" => number().map_or(Requirement::Never, |n| Requirement::Gt(key, n)),
        "Lt" => number().map_or(Requirement::Never, |n| Requirement::Lt(key, n)),
        _ => Requirement::Never,
    }
}

/// One term of a node selector: requirements on labels and on the node's name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeTerm {
    pub labels: Selector,
    /// Requirements on `metadata.name`, the only field there is.
    pub names: Vec<Requirement>,
    /// A term without any requirement matches no node.
    pub empty: bool,
}

impl NodeTerm {
    /// Compiles a node selector term.
    pub fn compile(term: &k8s::NodeSelectorTerm, symbols: &mut Symbols) -> Self {
        let mut compile = |list: &Option<Vec<k8s::NodeSelectorRequirement>>| -> Vec<Requirement> {
            list.iter()
                .flatten()
                .map(|r| {
                    requirement(
                        &r.key,
                        &r.operator,
                        r.values.as_deref().unwrap_or_default(),
                        symbols,
                    )
                })
                .collect()
        };
        let labels = compile(&term.match_expressions);
        let mut names = compile(&term.match_fields);
        let name = symbols.intern(NAME_FIELD);
        for requirement in &mut names {
            let understood = matches!(requirement, Requirement::In(..) | Requirement::NotIn(..));
            if requirement.key() != Some(name) || !understood {
                *requirement = Requirement::Never;
            }
        }
        let empty = labels.is_empty() && names.is_empty();
        Self {
            labels: Selector(labels).sorted(),
            names,
            empty,
        }
    }

    /// Whether a node meets the term.
    #[must_use]
    pub fn matches(&self, name: Symbol, labels: &[(Symbol, Symbol)], symbols: &Symbols) -> bool {
        !self.empty
            && self.names.iter().all(|r| match r {
                Requirement::In(_, names) => names.contains(&name),
                Requirement::NotIn(_, names) => !names.contains(&name),
                _ => false,
            })
            && self.labels.matches(labels, symbols)
    }

    /// The only nodes that can meet the term, where it names them.
    #[must_use]
    pub fn pins(&self) -> Option<Vec<Symbol>> {
        self.names.iter().find_map(|r| match r {
            Requirement::In(_, names) => Some(names.clone()),
            _ => None,
        })
    }
}

/// The one field that `matchFields` knows.
pub const NAME_FIELD: &str = "metadata.name";

/// Which namespaces a pod affinity term reaches.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Namespaces {
    /// Sorted.
    pub names: Vec<Symbol>,
    /// Namespaces chosen by their labels, in addition.
    pub selected: Option<Selector>,
}

impl Namespaces {
    /// Whether the namespace is among them.
    #[must_use]
    pub fn contain(
        &self,
        namespace: Symbol,
        labels: &[(Symbol, Symbol)],
        symbols: &Symbols,
    ) -> bool {
        self.names.contains(&namespace)
            || self
                .selected
                .as_ref()
                .is_some_and(|s| s.matches(labels, symbols))
    }
}

/// A selector of exact values as text, for building in tests and defaults.
#[must_use]
pub fn label_selector(map: BTreeMap<String, String>) -> meta::LabelSelector {
    meta::LabelSelector {
        match_labels: Some(map),
        match_expressions: None,
    }
}
