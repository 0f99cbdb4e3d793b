//! Deletion of a namespace: all that is in it goes, pods first, then its finalizer.
//!
//! Behaviour is that of `pkg/controller/namespace` of Kubernetes 1.36, with the conditions by which
//! it says what it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ListParams, Patch};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::node::Namespace;
use crate::model::workload::Condition;
use crate::model::{Key, NAMESPACES};
use crate::runtime::api::Deletion;
use crate::runtime::discovery::Served;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

/// The finalizer in `spec.finalizers` that this controller answers for.
const FINALIZER: &str = "kubernetes";
/// How often a namespace whose content is still leaving is looked at.
const AGAIN: Duration = Duration::from_millis(250);

struct Namespaces {
    context: Context,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    {
        let queue = queue.clone();
        context.informers.namespaces.on_change(move |_, new| {
            if let Some(namespace) = new.filter(|n| n.metadata.deleted.is_some()) {
                queue.add(namespace.metadata.key());
            }
        });
    }
    let controller = Arc::new(Namespaces {
        context: context.clone(),
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
}

impl Left {
    fn done(&self) -> bool {
        self.objects.is_empty() && self.errors.is_empty()
    }
}

/// The conditions that tell what a namespace waits for.
pub fn conditions(old: &[Condition], left: &Left, now: Timestamp) -> Vec<Condition> {
    let list = |map: &BTreeMap<String, usize>, word: &str| {
        map.iter()
            .map(|(name, n)| format!("{name} {word} {n} resource instances"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let told: [(&str, bool, &str, String); 5] = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".into(),
        ),
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
                    left.errors.join(", ")
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
        let resources = api.discover().await?;
        let left = self.empty(&key.name, &resources).await;
        if !left.done() {
            self.tell(&namespace, &left).await?;
            return Ok(Outcome::After(AGAIN));
        }
        self.finalize(key).await?;
        Ok(Outcome::Done)
    }
}

impl Namespaces {
    /// Tells all content to go; what is left of it. Pods go first: what they use (secrets, network
    /// policies) stays as long as they run.
    async fn empty(&self, namespace: &str, resources: &[Served]) -> Left {
        let mut left = Left::default();
        let content = |r: &&Served| r.namespaced && r.allows("list") && r.allows("delete");
        let (pods, others): (Vec<&Served>, Vec<&Served>) = resources
            .iter()
            .filter(content)
            .partition(|r| r.group.is_empty() && &*r.plural == "pods");
        for resource in pods {
            self.empty_one(namespace, resource, &mut left).await;
        }
        if !left.done() {
            return left;
        }
        for resource in others {
            self.empty_one(namespace, resource, &mut left).await;
        }
        left
    }

    async fn empty_one(&self, namespace: &str, resource: &Served, left: &mut Left) {
        if let Err(error) = self.try_empty_one(namespace, resource, left).await
            && !error.not_found()
        {
            left.errors.push(format!(
                "unexpected items still remain in namespace: {namespace} for {}: {}",
                resource.plural,
                error.message()
            ));
        }
    }

    async fn try_empty_one(
        &self,
        namespace: &str,
        resource: &Served,
        left: &mut Left,
    ) -> Result<(), ApiError> {
        let api = &self.context.api;
        let path = resource.path(namespace);
        let all = ListParams::default();
        // Most resources have no objects: one list tells.
        if api
            .list::<MetaOnly>(&path, &all, true)
            .await?
            .items
            .is_empty()
        {
            return Ok(());
        }
        if resource.allows("deletecollection") {
            api.delete_collection(&path).await?;
        } else {
            for object in api.list::<MetaOnly>(&path, &all, true).await?.items {
                api.delete_at(&path, &object.metadata.name, Deletion::default())
                    .await?;
            }
        }
        let items = api.list::<MetaOnly>(&path, &all, true).await?.items;
        if items.is_empty() {
            return Ok(());
        }
        let name = format!("{}.{}", resource.plural, resource.group);
        left.objects.insert(name, items.len());
        for finalizer in items.iter().flat_map(|i| &i.metadata.finalizers) {
            *left.finalizers.entry(finalizer.to_string()).or_default() += 1;
        }
        Ok(())
    }

    async fn tell(&self, namespace: &Namespace, left: &Left) -> Result<(), ApiError> {
        let old = &namespace.status.conditions;
        let conditions = conditions(old, left, Timestamp::now());
        if conditions == *old {
            return Ok(());
        }
        let patch = Patch::Merge(json!({
            "metadata": {"uid": &*namespace.metadata.uid},
            "status": {"conditions": conditions},
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
    async fn finalize(&self, key: &Key) -> Result<(), ApiError> {
        let api = &self.context.api;
        let Some(mut raw) = api.get::<Value>(&NAMESPACES, key).await? else {
            return Ok(());
        };
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

    #[test]
    fn conditions_tell_what_is_waited_for() {
        let left = Left {
            objects: [("pods.".to_owned(), 2)].into(),
            finalizers: [("example.com/hold".to_owned(), 1)].into(),
            errors: Vec::new(),
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
}
