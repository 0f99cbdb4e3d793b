//! What admission has to say about a request in the audit log: annotations of its event.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::Level;

pub type Annotations = BTreeMap<Cow<'static, str>, String>;

/// Annotations of a request that is under way. Nothing is kept of one that is not recorded.
#[derive(Debug, Clone, Default)]
pub struct Notes(Option<Arc<(Level, Mutex<Annotations>)>>);

impl Notes {
    /// Of a request that is recorded so.
    pub fn at(level: Level) -> Notes {
        Notes(Some(Arc::new((level, Mutex::default()))))
    }

    /// Whether anything of this level is kept: what is costly to say need not be said otherwise.
    pub fn keep(&self, level: Level) -> bool {
        self.0.as_ref().is_some_and(|kept| kept.0 >= level)
    }

    /// Adds an annotation. The first of a key stays, as in Kubernetes.
    pub fn add(&self, key: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        if let Some(kept) = &self.0 {
            let mut all = kept.1.lock();
            all.entry(key.into()).or_insert_with(|| value.into());
        }
    }

    pub fn take(&self) -> Annotations {
        let kept = self.0.as_ref();
        kept.map(|kept| std::mem::take(&mut *kept.1.lock()))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_key_stays_and_unrecorded_ones_keep_nothing() {
        let notes = Notes::at(Level::Metadata);
        assert!(notes.keep(Level::Metadata) && !notes.keep(Level::Request));
        notes.add("a", "1");
        notes.clone().add("a", "2");
        notes.add(format!("{}/b", "x"), "3");
        let all: Vec<(String, String)> = notes
            .take()
            .into_iter()
            .map(|(k, v)| (k.into_owned(), v))
            .collect();
        assert_eq!(
            all,
            [("a", "1"), ("x/b", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        let none = Notes::default();
        none.add("a", "1");
        assert!(none.take().is_empty());
    }
}
