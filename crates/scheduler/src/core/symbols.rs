//! Interned strings: label keys and values, namespaces, taints, resource names are compared as numbers.
//!
//! A symbol lives as long as the table. Strings that are unique to one pod (its name, its ordinal label) are not
//! interned; see [`super::request::UNIQUE_LABELS`].

use rustc_hash::FxHashMap;
use std::sync::Arc;

/// An interned string.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Symbol(pub u32);

/// Sorted by key: label sets compare, hash and search quickly in this form.
pub type Labels = Vec<(Symbol, Symbol)>;

/// The table of interned strings.
#[derive(Default)]
pub struct Symbols {
    by_text: FxHashMap<Arc<str>, Symbol>,
    texts: Vec<Arc<str>>,
}

impl Symbols {
    /// The symbol of a string, new or known.
    pub fn intern(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.by_text.get(text) {
            return *symbol;
        }
        let symbol = Symbol(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.by_text.insert(text, symbol);
        symbol
    }

    /// The symbol of a string that has been interned before.
    #[must_use]
    pub fn known(&self, text: &str) -> Option<Symbol> {
        self.by_text.get(text).copied()
    }

    /// The string of a symbol.
    #[must_use]
    pub fn text(&self, symbol: Symbol) -> &str {
        &self.texts[symbol.0 as usize]
    }

    /// A label map as sorted symbols.
    pub fn labels<'a>(
        &mut self,
        map: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Labels {
        let mut labels: Labels = map
            .into_iter()
            .map(|(k, v)| (self.intern(k), self.intern(v)))
            .collect();
        labels.sort_unstable();
        labels
    }
}

/// The value of a key in a sorted label set.
#[must_use]
pub fn value_of(labels: &[(Symbol, Symbol)], key: Symbol) -> Option<Symbol> {
    // Label sets are short: a linear pass beats a binary search.
    labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}
