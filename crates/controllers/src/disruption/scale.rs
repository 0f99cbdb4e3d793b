//! How many pods the owners of pods want.
//!
//! An owner is what its reference says in full: group, kind, name and uid. One that replaced it
//! under its name is another. Workloads of Kubernetes are found in the caches, all else (and what
//! the caches do not have yet) by the subresource `scale`.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Deserialize;

use crate::model::{Key, Meta, Owner, Pod};
use crate::runtime::discovery::{Catalogue, Served};
use crate::runtime::{Api, ApiError, Context, Informers};

/// Why it is not known how many pods an owner wants.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    #[error("found no controllers for pod \"{0}\"")]
    NoController(Arc<str>),
    #[error("no matches for kind \"{kind}\" in group \"{group}\"")]
    NoKind { group: String, kind: Arc<str> },
    #[error("{0} does not implement the scale subresource")]
    NotScalable(String),
    #[error("{}", .0.message())]
    Api(#[from] ApiError),
}

/// `autoscaling/v1` Scale.
#[derive(Deserialize)]
struct Scale {
    metadata: Meta,
    #[serde(default)]
    spec: ScaleSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ScaleSpec {
    replicas: i32,
}

#[derive(Default)]
pub struct Scales {
    served: Catalogue,
}

impl Scales {
    /// The sum of the scales of all owners of `pods`, each counted once. Pods without an owner
    /// count nothing.
    pub async fn wanted(&self, context: &Context, pods: &[Arc<Pod>]) -> Result<i32, ScaleError> {
        // By the uid in the reference: a Deployment's ReplicaSets all lead to the Deployment.
        let mut seen: FxHashMap<Arc<str>, ()> = FxHashMap::default();
        let mut scales: FxHashMap<Arc<str>, i32> = FxHashMap::default();
        for pod in pods {
            let Some(owner) = pod.meta.controller() else {
                continue;
            };
            if seen.insert(owner.uid.clone(), ()).is_some() {
                continue;
            }
            let namespace = &pod.meta.namespace;
            let found = match cached(&context.informers, owner, namespace) {
                Some(found) => Some(found),
                None => self.by_subresource(&context.api, owner, namespace).await?,
            };
            let Some((uid, scale)) = found else {
                return Err(ScaleError::NoController(pod.meta.name.clone()));
            };
            scales.insert(uid, scale);
        }
        Ok(scales.values().fold(0, |sum, n| sum.saturating_add(*n)))
    }

    async fn by_subresource(
        &self,
        api: &Api,
        owner: &Owner,
        namespace: &str,
    ) -> Result<Option<(Arc<str>, i32)>, ScaleError> {
        let resource = self.resource(api, owner).await?;
        let path = resource.path(namespace);
        let scale: Option<Scale> = api.get_sub_at(&path, &owner.name, "scale").await?;
        match scale {
            Some(scale) if scale.metadata.uid == owner.uid => {
                Ok(Some((scale.metadata.uid, scale.spec.replicas)))
            }
            Some(_) => Ok(None),
            None if resource.scalable => Ok(None),
            None => Err(ScaleError::NotScalable(format!(
                "{}/{}, Resource={}",
                resource.group, resource.version, resource.plural
            ))),
        }
    }

    async fn resource(&self, api: &Api, owner: &Owner) -> Result<Served, ScaleError> {
        let is = |s: &Served| *s.group == *group(owner) && s.kind == owner.kind && s.namespaced;
        if let Some(found) = self.served.find(api, is).await {
            return Ok(found);
        }
        Err(ScaleError::NoKind {
            group: group(owner).to_owned(),
            kind: owner.kind.clone(),
        })
    }
}

fn group(owner: &Owner) -> &str {
    owner.api_version.split_once('/').map_or("", |(g, _)| g)
}

/// The workload that a reference leads to, if the caches have it: its uid and its scale. That of a
/// ReplicaSet that a Deployment controls is the Deployment's.
fn cached(informers: &Informers, owner: &Owner, namespace: &Arc<str>) -> Option<(Arc<str>, i32)> {
    let key = |owner: &Owner| Key {
        namespace: namespace.clone(),
        name: owner.name.clone(),
    };
    let found = match (group(owner), &*owner.kind) {
        ("apps", "StatefulSet") => {
            let set = informers.stateful_sets.get(&key(owner))?;
            (set.metadata.uid.clone(), set.spec.replicas)
        }
        ("", "ReplicationController") => {
            let set = informers.replication_controllers.get(&key(owner))?;
            (set.metadata.uid.clone(), set.spec.replicas)
        }
        ("apps" | "extensions", "ReplicaSet") => {
            let set = informers.replica_sets.get(&key(owner))?;
            if set.metadata.uid != owner.uid {
                return None;
            }
            match set.metadata.controller() {
                Some(above) if &*above.kind == "Deployment" => {
                    if !matches!(group(above), "apps" | "extensions") {
                        return None;
                    }
                    let deployment = informers.deployments.get(&key(above))?;
                    return (deployment.metadata.uid == above.uid).then(|| {
                        let scale = deployment.spec.replicas.unwrap_or(1);
                        (above.uid.clone(), scale)
                    });
                }
                _ => (set.metadata.uid.clone(), set.spec.replicas),
            }
        }
        _ => return None,
    };
    (found.0 == owner.uid).then(|| (found.0, found.1.unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn informers() -> Informers {
        let informers = Informers::default();
        let object = |name: &str, uid: &str, replicas: i32, above: Option<&str>| {
            let owners = above.map(|uid| {
                json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": uid, "controller": true}])
            });
            json!({"metadata": {"namespace": "n", "name": name, "uid": uid, "ownerReferences": owners},
                "spec": {"replicas": replicas}})
        };
        let decode = |value| serde_json::from_value(value).unwrap();
        informers
            .stateful_sets
            .apply(decode(object("web", "s", 3, None)));
        let set = |value| serde_json::from_value(value).unwrap();
        informers
            .replica_sets
            .apply(set(object("alone", "r", 2, None)));
        informers
            .replica_sets
            .apply(set(object("old", "o", 1, Some("d"))));
        informers
            .replica_sets
            .apply(set(object("lost", "l", 1, Some("gone"))));
        let controller = serde_json::from_value(object("web", "c", 4, None)).unwrap();
        informers.replication_controllers.apply(controller);
        let deployment = serde_json::from_value(object("web", "d", 5, None)).unwrap();
        informers.deployments.apply(deployment);
        informers
    }

    #[rstest]
    #[case::its_set("apps/v1", "StatefulSet", "web", "s", Some(("s", 3)))]
    #[case::replaced_under_its_name("apps/v1", "StatefulSet", "web", "other", None)]
    #[case::of_another_group("example.com/v1", "StatefulSet", "web", "s", None)]
    #[case::no_such_name("apps/v1", "StatefulSet", "none", "s", None)]
    #[case::a_controller("v1", "ReplicationController", "web", "c", Some(("c", 4)))]
    #[case::a_set_alone("apps/v1", "ReplicaSet", "alone", "r", Some(("r", 2)))]
    #[case::another_set("apps/v1", "ReplicaSet", "alone", "x", None)]
    #[case::by_its_deployment("apps/v1", "ReplicaSet", "old", "o", Some(("d", 5)))]
    #[case::of_a_deployment_replaced("apps/v1", "ReplicaSet", "lost", "l", None)]
    #[case::unknown("example.com/v1", "Thing", "web", "s", None)]
    fn owners_are_what_their_references_say_in_full(
        #[case] api_version: &str,
        #[case] kind: &str,
        #[case] name: &str,
        #[case] uid: &str,
        #[case] wanted: Option<(&str, i32)>,
    ) {
        let owner = Owner {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
            ..Owner::default()
        };
        let found = cached(&informers(), &owner, &"n".into());
        assert_eq!(found.as_ref().map(|(uid, n)| (&**uid, *n)), wanted);
    }
}
