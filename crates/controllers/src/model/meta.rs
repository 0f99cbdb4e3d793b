//! Object metadata as controllers read it, and the small types made of it.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::Kind;

/// Namespace and name of an object; the namespace of cluster-scoped ones is empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A string map sorted by key, in one allocation of entries: labels, annotations, node selectors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok()?;
        self.0.get(at).map(|(_, v)| v.as_ref())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The same labels with `key` set to `value`.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        self.iter()
            .filter(|(k, _)| *k != key)
            .chain([(key, value)])
            .collect()
    }

    /// The same labels without `key`.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        self.iter().filter(|(k, _)| *k != key).collect()
    }

    pub fn to_json(&self) -> Value {
        Value::Object(self.iter().map(|(k, v)| (k.to_owned(), v.into())).collect())
    }

    /// Labels out of a JSON object; entries that are no strings are left out.
    pub fn from_json(value: Option<&Value>) -> Self {
        value
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
            .collect()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(iter: I) -> Self {
        let mut entries: Vec<(Box<str>, Box<str>)> = iter
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|a, b| a.0 == b.0);
        Labels(entries.into())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelsVisitor;
        impl<'de> Visitor<'de> for LabelsVisitor {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some((k, v)) = map.next_entry::<Box<str>, Option<Box<str>>>()? {
                    entries.push((k, v.unwrap_or_default()));
                }
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries.dedup_by(|a, b| a.0 == b.0);
                Ok(Labels(entries.into()))
            }
        }
        deserializer.deserialize_any(LabelsVisitor)
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    pub api_version: Arc<str>,
    pub kind: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

impl Default for Owner {
    fn default() -> Self {
        Owner {
            api_version: "".into(),
            kind: "".into(),
            name: "".into(),
            uid: "".into(),
            controller: false,
            block_owner_deletion: false,
        }
    }
}

impl Owner {
    /// The reference as a controller writes it into what it creates.
    pub fn controller_json(kind: &Kind, meta: &Meta) -> Value {
        json!({
            "apiVersion": kind.api_version(),
            "kind": kind.kind,
            "name": &*meta.name,
            "uid": &*meta.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}

/// What controllers read of `metadata`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub uid: Arc<str>,
    /// `resourceVersion` as a number (comparable within one kind since Kubernetes 1.35), 0 where
    /// it is none.
    #[serde(rename = "resourceVersion", deserialize_with = "version")]
    pub version: u64,
    pub generation: i64,
    #[serde(rename = "creationTimestamp")]
    pub created: Option<Timestamp>,
    /// Set while the object waits for its finalizers or its grace period.
    #[serde(rename = "deletionTimestamp")]
    pub deleted: Option<Timestamp>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    pub grace_seconds: Option<i64>,
    pub labels: Labels,
    pub annotations: Labels,
    #[serde(rename = "ownerReferences", deserialize_with = "nullable")]
    pub owners: Vec<Owner>,
    #[serde(deserialize_with = "nullable")]
    pub finalizers: Vec<Box<str>>,
}

impl Default for Meta {
    fn default() -> Self {
        Meta {
            name: "".into(),
            namespace: "".into(),
            uid: "".into(),
            version: 0,
            generation: 0,
            created: None,
            deleted: None,
            grace_seconds: None,
            labels: Labels::default(),
            annotations: Labels::default(),
            owners: Vec::new(),
            finalizers: Vec::new(),
        }
    }
}

impl Meta {
    pub fn key(&self) -> Key {
        Key {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// The owner that manages this object, if one does.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|o| o.controller)
    }

    pub fn controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|o| &*o.uid == uid)
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|f| &**f == name)
    }
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct VersionVisitor;
    impl<'de> Visitor<'de> for VersionVisitor {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a resource version")
        }

        fn visit_str<E>(self, v: &str) -> Result<u64, E> {
            Ok(v.parse().unwrap_or(0))
        }

        fn visit_unit<E>(self) -> Result<u64, E> {
            Ok(0)
        }
    }
    deserializer.deserialize_any(VersionVisitor)
}

/// A value that Kubernetes may send as `null`, meaning the default.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An object of which only metadata is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct MetaOnly {
    #[serde(default)]
    pub metadata: Meta,
}

/// Counts the entries of a list without decoding them.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let items = Option::<Vec<IgnoredAny>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(u32::try_from(items.len()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_decodes_what_controllers_read_and_nothing_else() {
        let meta: Meta = serde_json::from_value(json!({
            "name": "web-0", "namespace": "shop", "uid": "u", "resourceVersion": "17",
            "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{"manager": "x"}],
            "labels": {"b": "2", "a": "1"}, "annotations": null,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "s", "controller": true}],
        }))
        .unwrap();
        assert_eq!(meta.key().to_string(), "shop/web-0");
        assert_eq!(meta.version, 17);
        assert_eq!(meta.labels.get("b"), Some("2"));
        assert_eq!(meta.labels.get("c"), None);
        assert!(meta.annotations.is_empty());
        assert!(meta.controlled_by("s"));
        assert_eq!(meta.labels.with("b", "3").get("b"), Some("3"));
        assert_eq!(meta.labels.without("b").len(), 1);
    }
}
