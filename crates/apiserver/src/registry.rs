//! What is served: built-in and custom resources with what the server has to know of each.

use std::{collections::BTreeMap, sync::Arc};

use gantry_machinery::crd;
use gantry_machinery::resource::{Resource, builtin_resources};
use rustc_hash::FxHashMap;

use crate::{object, runtime_config::RuntimeConfig, strategy::Traits};

/// One served resource and the place where its objects are kept.
#[derive(Debug)]
pub struct Entry {
    pub resource: Arc<Resource>,
    /// The resource in whose version objects are stored; often the same.
    pub storage: Arc<Resource>,
    pub bucket: Arc<str>,
    /// `{"kind":…,"apiVersion":…,` of the stored form.
    pub head: String,
    /// The same of the version that is served.
    pub served_head: String,
    pub traits: Traits,
    /// Objects written before this revision may lack defaults that the schema has since been given.
    pub defaulted_since: u64,
}

impl Entry {
    /// Whether stored bytes can be sent as they are.
    pub fn native(&self) -> bool {
        Arc::ptr_eq(&self.resource, &self.storage)
    }

    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }
}

/// A group of the API with its versions, preferred first, and their resources.
#[derive(Debug, Default)]
pub struct Group {
    pub name: String,
    pub versions: Vec<(String, Vec<Arc<Entry>>)>,
}

#[derive(Debug, Default)]
pub struct Registry {
    by_path: FxHashMap<String, Arc<Entry>>,
    /// Of each bucket, the entry in whose version its objects are stored.
    by_bucket: FxHashMap<Arc<str>, Arc<Entry>>,
    /// Of each bucket, all entries whose objects it keeps, also those that are not served.
    sharing: FxHashMap<Arc<str>, Vec<Arc<Entry>>>,
    /// In discovery's order: built-in groups, then custom ones by name.
    pub groups: Vec<Group>,
    /// Tells registries apart; part of the ETag of discovery and OpenAPI.
    pub generation: u64,
}

fn path(group: &str, version: &str, plural: &str) -> String {
    format!("{group}/{version}/{plural}")
}

/// Kinds that are stored under another resource: events of both groups are the same objects.
fn storage_of(resource: &Resource) -> (&str, &str) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("events.k8s.io", "events") => ("", "v1"),
        ("autoscaling", "horizontalpodautoscalers") => ("autoscaling", "v2"),
        _ => (&resource.group, &resource.version),
    }
}

impl Registry {
    /// All built-in resources and these custom ones, each with the revision of its definition.
    pub fn new(custom: Vec<(Resource, u64)>, generation: u64) -> Registry {
        Registry::serving(custom, generation, &RuntimeConfig::default())
    }

    /// The same without the built-in ones that are switched off. The places of their objects are
    /// still known.
    pub fn serving(
        custom: Vec<(Resource, u64)>,
        generation: u64,
        switched: &RuntimeConfig,
    ) -> Registry {
        let since: FxHashMap<String, u64> = custom
            .iter()
            .filter(|(r, _)| crd::has_defaults(r.schema()))
            .map(|(r, revision)| (path(&r.group, &r.version, &r.plural), *revision))
            .collect();
        let custom: Vec<Arc<Resource>> = custom.into_iter().map(|(r, _)| Arc::new(r)).collect();
        let all: Vec<Arc<Resource>> = builtin_resources().iter().cloned().chain(custom).collect();
        let by_version: FxHashMap<String, Arc<Resource>> = all
            .iter()
            .map(|r| (path(&r.group, &r.version, &r.plural), r.clone()))
            .collect();
        let mut registry = Registry {
            generation,
            ..Registry::default()
        };
        let mut custom_groups: BTreeMap<String, Group> = BTreeMap::new();
        for resource in all {
            let storage = match &resource.custom {
                Some(c) => {
                    by_version.get(&path(&resource.group, &c.storage_version, &resource.plural))
                }
                None => {
                    let (group, version) = storage_of(&resource);
                    by_version.get(&path(group, version, &resource.plural))
                }
            };
            let storage = storage.unwrap_or(&resource).clone();
            let entry = Arc::new(Entry {
                bucket: format!("{}/{}", storage.group, storage.plural).into(),
                head: object::head(&storage),
                served_head: object::head(&resource),
                traits: Traits::of(&resource),
                defaulted_since: since
                    .get(&path(&resource.group, &resource.version, &resource.plural))
                    .copied()
                    .unwrap_or(0),
                storage,
                resource: resource.clone(),
            });
            if entry.native() {
                let bucket = entry.bucket.clone();
                registry.by_bucket.insert(bucket, entry.clone());
            }
            let served = match &resource.custom {
                Some(custom) => custom.served,
                None => switched.serves(&resource),
            };
            let sharing = registry.sharing.entry(entry.bucket.clone()).or_default();
            sharing.push(entry.clone());
            if !served {
                continue;
            }
            registry.by_path.insert(
                path(&resource.group, &resource.version, &resource.plural),
                entry.clone(),
            );
            let known = registry
                .groups
                .iter_mut()
                .find(|g| g.name == resource.group);
            let group = match known {
                Some(group) => group,
                None if resource.custom.is_some() => custom_groups
                    .entry(resource.group.clone())
                    .or_insert_with(|| Group {
                        name: resource.group.clone(),
                        ..Group::default()
                    }),
                None => {
                    registry.groups.push(Group {
                        name: resource.group.clone(),
                        ..Group::default()
                    });
                    let last = registry.groups.len() - 1;
                    &mut registry.groups[last]
                }
            };
            match group
                .versions
                .iter_mut()
                .find(|(v, _)| *v == resource.version)
            {
                Some((_, entries)) => entries.push(entry),
                None => group.versions.push((resource.version.clone(), vec![entry])),
            }
        }
        for mut group in custom_groups.into_values() {
            group.versions.sort_by(|a, b| version_order(&b.0, &a.0));
            registry.groups.push(group);
        }
        registry
    }

    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Entry>> {
        self.by_path.get(&path(group, version, plural))
    }

    /// The entry in whose version the objects of a bucket are stored.
    pub fn stored_in(&self, bucket: &str) -> Option<&Arc<Entry>> {
        self.by_bucket.get(bucket)
    }

    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }

    /// All entries whose objects are kept in a bucket: the same objects in other versions, those
    /// that are not served among them.
    pub fn sharing(&self, bucket: &str) -> &[Arc<Entry>] {
        self.sharing.get(bucket).map_or(&[], Vec::as_slice)
    }

    /// The resource of a kind, by its apiVersion.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Entry>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let (_, entries) = self
            .group(group)?
            .versions
            .iter()
            .find(|(v, _)| v == version)?;
        entries.iter().find(|e| e.resource.kind == kind)
    }

    /// The preferred version of a resource.
    pub fn resource(&self, group: &str, plural: &str) -> Option<&Arc<Entry>> {
        self.group(group)?
            .versions
            .iter()
            .flat_map(|(_, entries)| entries)
            .find(|e| e.resource.plural == plural)
    }
}

/// Kubernetes' order of versions: `v2` > `v1` > `v1beta2` > `v1alpha1` > anything else by name.
pub fn version_order(a: &str, b: &str) -> std::cmp::Ordering {
    fn rank(v: &str) -> Option<(u8, u32, u32)> {
        let rest = v.strip_prefix('v')?;
        let split = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let major = rest[..split].parse().ok()?;
        let tail = &rest[split..];
        if tail.is_empty() {
            return Some((2, major, 0));
        }
        if let Some(n) = tail.strip_prefix("beta") {
            return Some((1, major, n.parse().ok()?));
        }
        Some((0, major, tail.strip_prefix("alpha")?.parse().ok()?))
    }
    match (rank(a), rank(b)) {
        (Some(x), Some(y)) => x.cmp(&y),
        (Some(_), None) => std::cmp::Ordering::Greater,
        (None, Some(_)) => std::cmp::Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_resources_are_found_by_path() {
        let r = Registry::new(vec![], 0);
        let hpa = r
            .lookup("autoscaling", "v1", "horizontalpodautoscalers")
            .expect("served");
        assert!(!hpa.native());
        assert_eq!(&*hpa.bucket, "autoscaling/horizontalpodautoscalers");
        let events = r.lookup("events.k8s.io", "v1", "events").expect("served");
        assert_eq!(&*events.bucket, "/events");
        assert_eq!(r.groups[0].name, "");
    }

    #[test]
    fn versions_are_ordered_as_kubernetes_does() {
        let mut v = vec!["v1alpha1", "foo", "v10", "v2", "v1beta1", "v1", "v1beta2"];
        v.sort_by(|a, b| version_order(b, a));
        assert_eq!(
            v,
            ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]
        );
    }
}
