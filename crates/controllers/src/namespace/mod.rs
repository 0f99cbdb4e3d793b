//! Deletion of a namespace: all that is in it goes, pods first, then its finalizer.
//!
//! Behaviour is that of `pkg/controller/namespace` of Kubernetes 1.36, with the conditions by which
//! it says what it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ListParams, Patch};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::node::Namespace;
use crate::model::workload::Condition;
use crate::model::{Key, Meta, NAMESPACES};
use crate::runtime::api::Deletion;
use crate::runtime::discovery::Served;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

/// The finalizer in `spec.finalizers` that this controller answers for.
const FINALIZER: &str = "kubernetes";
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// First and longest wait until a namespace whose content is still leaving is looked at again; each
/// look doubles the wait.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_LONGEST: Duration = Duration::from_secs(5);

struct Namespaces {
    context: Context,
    /// Looks at namespaces in deletion so far, by uid.
    looks: Mutex<FxHashMap<Arc<str>, u32>>,
}

/// How long to wait after so many looks.
pub fn wait(looks: u32) -> Duration {
    AGAIN.saturating_mul(1 << looks.min(10)).min(AGAIN_LONGEST)
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    {
        let queue = queue.clone();
        context.informers.namespaces.on_change(move |old, new| {
            // What this controller itself tells in the status must not call it again at once.
            let known = |new: &Namespace| {
                old.is_some_and(|old| {
                    old.metadata.uid == new.metadata.uid
                        && old.metadata.deleted.is_some()
                        && old.spec.finalizers == new.spec.finalizers
                })
            };
            if let Some(namespace) = new.filter(|n| n.metadata.deleted.is_some() && !known(n)) {
                queue.add(namespace.metadata.key());
            }
        });
    }
    let controller = Arc::new(Namespaces {
        context: context.clone(),
        looks: Mutex::default(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// What is left in a namespace after its content was told to go.
#[derive(Debug, Default, PartialEq)]
pub struct Left {
    /// Objects by resource (`pods.`, `deployments.apps`).
    pub objects: BTreeMap<String, usize>,
    /// Objects by finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// What could not be deleted or listed.
    pub errors: Vec<String>,
    /// What could not be discovered (`group/version`), and why.
    pub undiscovered: Vec<(String, String)>,
}

impl Left {
    fn done(&self) -> bool {
        self.objects.is_empty() && self.errors.is_empty() && self.undiscovered.is_empty()
    }

    /// Takes in what of a resource is there after its deletion. What has no finalizer should have
    /// gone at once, but for pods, which have their time to go. The namespace was deleted `age`
    /// seconds ago.
    pub fn add(&mut self, namespace: &str, age: i64, resource: &Served, items: &[Meta]) {
        if items.is_empty() {
            return;
        }
        let name = format!("{}.{}", resource.plural, resource.group);
        self.objects.insert(name, items.len());
        for finalizer in items.iter().flat_map(|meta| &meta.finalizers) {
            *self.finalizers.entry(finalizer.to_string()).or_default() += 1;
        }
        let held = items.iter().any(|meta| !meta.finalizers.is_empty());
        let takes_leave = |meta: &Meta| {
            meta.deleted.is_some()
                && (!is_pods(resource) || meta.grace_seconds.is_some_and(|grace| age < grace))
        };
        if !held && !items.iter().any(takes_leave) {
            self.errors.push(format!(
                "unexpected items still remain in namespace: {namespace} for gvr: {}/{}, Resource={}",
                resource.group, resource.version, resource.plural
            ));
        }
    }
}

fn is_pods(resource: &Served) -> bool {
    resource.group.is_empty() && &*resource.plural == "pods"
}

/// The conditions that tell what a namespace waits for. They are this controller's own; those that
/// others have set are none of its business.
pub fn conditions(old: &[Condition], left: &Left, now: Timestamp) -> Vec<Condition> {
    let list = |map: &BTreeMap<String, usize>, word: &str| {
        map.iter()
            .map(|(name, n)| format!("{name} {word} {n} resource instances"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let sorted = |texts: &mut dyn Iterator<Item = String>| {
        let mut texts: Vec<String> = texts.collect();
        texts.sort();
        texts.join(", ")
    };
    let told: [(&str, bool, &str, String); 5] = [
        if left.undiscovered.is_empty() {
            (
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".into(),
            )
        } else {
            let why = &mut left
                .undiscovered
                .iter()
                .map(|(what, why)| format!("{what}: {why}"));
            (
                "NamespaceDeletionDiscoveryFailure",
                true,
                "DiscoveryFailed",
                format!(
                    "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
                    left.undiscovered.len(),
                    sorted(why)
                ),
            )
        },
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into(),
        ),
        if left.errors.is_empty() {
            (
                "NamespaceDeletionContentFailure",
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".into(),
            )
        } else {
            (
                "NamespaceDeletionContentFailure",
                true,
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    left.errors.len(),
                    sorted(&mut left.errors.iter().cloned())
                ),
            )
        },
        if left.objects.is_empty() {
            (
                "NamespaceContentRemaining",
                false,
                "ContentRemoved",
                "All content successfully removed".into(),
            )
        } else {
            (
                "NamespaceContentRemaining",
                true,
                "SomeResourcesRemain",
                format!(
                    "Some resources are remaining: {}",
                    list(&left.objects, "has")
                ),
            )
        },
        if left.finalizers.is_empty() {
            (
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".into(),
            )
        } else {
            (
                "NamespaceFinalizersRemaining",
                true,
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    list(&left.finalizers, "in")
                ),
            )
        },
    ];
    told.into_iter()
        .map(|(kind, value, reason, message)| {
            let status = if value { "True" } else { "False" };
            let before = old.iter().find(|c| c.kind == kind && c.status == status);
            Condition {
                kind: kind.into(),
                status: status.into(),
                reason: reason.into(),
                message,
                last_transition_time: before
                    .and_then(|c| c.last_transition_time)
                    .or_else(|| Timestamp::from_second(now.as_second()).ok()),
                ..Condition::default()
            }
        })
        .collect()
}

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let api = &self.context.api;
        let Some(namespace) = api.get::<Namespace>(&NAMESPACES, key).await? else {
            return Ok(Outcome::Done);
        };
        if namespace.metadata.deleted.is_none()
            || !namespace.spec.finalizers.iter().any(|f| f == FINALIZER)
        {
            return Ok(Outcome::Done);
        }
        let uid = &namespace.metadata.uid;
        let left = self.empty(key, uid).await;
        // Also when all is gone: another finalizer may keep the namespace, and what it last told
        // would no longer be so.
        self.tell(&namespace, &left).await?;
        if !left.done() {
            let mut looks = self.looks.lock();
            let looks = looks.entry(uid.clone()).or_default();
            let again = wait(*looks);
            *looks = looks.saturating_add(1);
            return Ok(Outcome::After(again));
        }
        self.finalize(key, uid).await?;
        self.looks.lock().remove(uid);
        Ok(Outcome::Done)
    }
}

impl Namespaces {
    /// Tells all content to go; what is left of it. Pods go first: what they use (secrets, network
    /// policies) stays as long as they run.
    async fn empty(&self, key: &Key, uid: &str) -> Left {
        let discovery = self.context.api.discover_what_is_there().await;
        let mut left = Left {
            undiscovered: discovery.failures,
            ..Left::default()
        };
        let content = |r: &&Served| r.namespaced && r.allows("list") && r.allows("delete");
        let (pods, others): (Vec<&Served>, Vec<&Served>) = discovery
            .served
            .iter()
            .filter(content)
            .partition(|r| is_pods(r));
        for resource in pods {
            self.empty_one(key, uid, resource, &mut left).await;
        }
        if !left.objects.is_empty() || !left.errors.is_empty() {
            return left;
        }
        for resource in others {
            self.empty_one(key, uid, resource, &mut left).await;
        }
        left
    }

    async fn empty_one(&self, key: &Key, uid: &str, resource: &Served, left: &mut Left) {
        if let Err(error) = self.try_empty_one(key, uid, resource, left).await
            && !error.not_found()
        {
            left.errors.push(error.message());
        }
    }

    /// Another namespace of that name has come: its content is not to be touched.
    fn replaced(&self, key: &Key, uid: &str) -> bool {
        let there = self.context.informers.namespaces.get(key);
        there.is_some_and(|n| *n.metadata.uid != *uid)
    }

    async fn try_empty_one(
        &self,
        key: &Key,
        uid: &str,
        resource: &Served,
        left: &mut Left,
    ) -> Result<(), ApiError> {
        let api = &self.context.api;
        let path = resource.path(&key.name);
        let one = ListParams::default().limit(1);
        // Most resources have no objects: a list of one tells.
        if api
            .list::<IgnoredAny>(&path, &one, true)
            .await?
            .items
            .is_empty()
            || self.replaced(key, uid)
        {
            return Ok(());
        }
        if resource.allows("deletecollection") {
            api.delete_collection(&path).await?;
        } else {
            for meta in self.all(&path).await? {
                api.delete_at(&path, &meta.name, Deletion::of(&meta.uid))
                    .await?;
            }
        }
        let deleted = self.context.informers.namespaces.get(key);
        let deleted = deleted.and_then(|n| n.metadata.deleted);
        let age = deleted.map_or(0, |at| Timestamp::now().as_second() - at.as_second());
        left.add(&key.name, age, resource, &self.all(&path).await?);
        Ok(())
    }

    /// Metadata of all objects of a collection, page by page.
    async fn all(&self, path: &str) -> Result<Vec<Meta>, ApiError> {
        let mut params = ListParams::default().limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = self
                .context
                .api
                .list::<MetaOnly>(path, &params, true)
                .await?;
            all.extend(page.items.into_iter().map(|i| i.metadata));
            if page.metadata.continue_token.is_empty() {
                return Ok(all);
            }
            params.continue_token = Some(page.metadata.continue_token);
        }
    }

    async fn tell(&self, namespace: &Namespace, left: &Left) -> Result<(), ApiError> {
        let old = &namespace.status.conditions;
        let conditions = conditions(old, left, Timestamp::now());
        let terminating = namespace.status.phase == "Terminating";
        if terminating && conditions.iter().all(|c| old.contains(c)) {
            return Ok(());
        }
        // Merged by type, so that the conditions of others stay.
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": &*namespace.metadata.uid},
            "status": {"phase": "Terminating", "conditions": conditions},
        }));
        match self
            .context
            .api
            .patch::<MetaOnly>(
                &NAMESPACES,
                &namespace.metadata.key(),
                Some("status"),
                &patch,
            )
            .await
        {
            Err(error) if !error.not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the finalizer. The subresource takes whole objects only, so the object goes back as
    /// it came, raw, but for that.
    ///
    /// A namespace that has come under the name since is left alone, as its uid is another; one
    /// that comes while this is written is not hit, as its resource version is.
    async fn finalize(&self, key: &Key, uid: &str) -> Result<(), ApiError> {
        let api = &self.context.api;
        let Some(mut raw) = api.get::<Value>(&NAMESPACES, key).await? else {
            return Ok(());
        };
        if raw.pointer("/metadata/uid").and_then(Value::as_str) != Some(uid) {
            return Ok(());
        }
        if let Some(finalizers) = raw
            .pointer_mut("/spec/finalizers")
            .and_then(Value::as_array_mut)
        {
            finalizers.retain(|f| f != FINALIZER);
        }
        match api.replace_sub(&NAMESPACES, key, "finalize", &raw).await {
            Err(error) if !error.not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn conditions_tell_what_is_waited_for() {
        let left = Left {
            objects: [("pods.".to_owned(), 2)].into(),
            finalizers: [("example.com/hold".to_owned(), 1)].into(),
            ..Left::default()
        };
        let told = conditions(&[], &left, Timestamp::UNIX_EPOCH);
        let find = |kind: &str| told.iter().find(|c| c.kind == kind).unwrap();
        let content = find("NamespaceContentRemaining");
        assert_eq!(
            (content.status.as_str(), content.reason.as_str()),
            ("True", "SomeResourcesRemain")
        );
        assert_eq!(
            content.message,
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            find("NamespaceFinalizersRemaining").message,
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        assert_eq!(find("NamespaceDeletionContentFailure").status, "False");
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_transition() {
        let first = conditions(&[], &Left::default(), Timestamp::UNIX_EPOCH);
        let later = Timestamp::from_second(99).unwrap();
        assert_eq!(conditions(&first, &Left::default(), later), first);
    }

    #[test]
    fn what_failed_is_told_in_order() {
        let left = Left {
            errors: vec!["b".into(), "a".into()],
            undiscovered: vec![("x.io/v1".into(), "stale".into())],
            ..Left::default()
        };
        assert!(!left.done());
        let told = conditions(&[], &left, Timestamp::UNIX_EPOCH);
        let find = |kind: &str| told.iter().find(|c| c.kind == kind).unwrap();
        let discovery = find("NamespaceDeletionDiscoveryFailure");
        assert_eq!(
            (discovery.status.as_str(), discovery.reason.as_str()),
            ("True", "DiscoveryFailed")
        );
        assert_eq!(
            discovery.message,
            "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: x.io/v1: stale"
        );
        assert_eq!(
            find("NamespaceDeletionContentFailure").message,
            "Failed to delete all resource types, 2 remaining: a, b"
        );
    }

    #[rstest]
    #[case::nothing("widgets", json!([]), 0, false)]
    #[case::neither_held_nor_leaving("widgets", json!([{"name": "a"}]), 1, true)]
    #[case::held("widgets", json!([{"name": "a", "finalizers": ["f"]}, {"name": "b"}]), 2, false)]
    #[case::leaving("widgets", json!([{"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}]), 1, false)]
    #[case::pods("pods", json!([{"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}]), 1, false)]
    #[case::pods_in_spite_of_their_time("pods", json!([{"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 9}]), 1, true)]
    #[case::pods_held("pods", json!([{"name": "a", "finalizers": ["f"], "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}]), 1, false)]
    fn what_stays_without_a_reason_is_an_error(
        #[case] plural: &str,
        #[case] items: Value,
        #[case] objects: usize,
        #[case] unexpected: bool,
    ) {
        let resource = Served {
            group: "".into(),
            version: "v1".into(),
            plural: plural.into(),
            kind: "X".into(),
            namespaced: true,
            verbs: Vec::new(),
            scalable: false,
        };
        let mut left = Left::default();
        let items: Vec<Meta> = serde_json::from_value(items).unwrap();
        left.add("shop", 10, &resource, &items);
        assert_eq!(left.objects.values().sum::<usize>(), objects);
        let text = format!(
            "unexpected items still remain in namespace: shop for gvr: /v1, Resource={plural}"
        );
        assert_eq!(left.errors == [text], unexpected);
        assert_eq!(left.errors.is_empty(), !unexpected);
    }

    #[test]
    fn looks_become_rarer() {
        let waits: Vec<u128> = (0..7).map(|n| wait(n).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000]);
    }
}
