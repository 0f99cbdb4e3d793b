//! Carrying out actions. Every write is a patch, an apply or a create; on a stale view it conflicts.

use std::collections::BTreeMap;

use gantry_api::{App, Group, labels, revision::RevisionRef};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{
    member::Member,
    nodes,
    slim::{Pod, Set},
    table::Table,
};
use crate::{
    action::Action,
    group::support,
    render::{self, Source},
    world::{Gate, Revision, Revisions},
};

/// Why an action did not come through.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The view was stale, or someone was faster: the planner has to look again.
    #[error("{0}: the object has changed meanwhile")]
    Conflict(String),
    /// The API refused or could not be reached.
    #[error("{what}: {source}")]
    Api {
        /// The operation.
        what: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// What the action speaks of is not there.
    #[error("{0}")]
    Missing(String),
}

pub(super) fn failed(what: &str) -> impl FnOnce(kube::Error) -> ActError + '_ {
    move |source| match &source {
        kube::Error::Api(status) if status.code == 409 => ActError::Conflict(what.to_owned()),
        _ => ActError::Api {
            what: what.to_owned(),
            source: Box::new(source),
        },
    }
}

/// Where actions of one Group go.
pub struct Hands<'a> {
    pub hub: &'a Client,
    pub group: &'a Group,
    pub app: Option<&'a App>,
    pub revisions: &'a Revisions,
    pub table: &'a Table<ControllerRevision>,
    pub groups: &'a Table<Group>,
    /// Member by cell.
    pub members: &'a BTreeMap<String, std::sync::Arc<Member>>,
    /// Node labels by cell.
    pub selectors: &'a BTreeMap<String, BTreeMap<String, String>>,
    /// Revisions whose config members need.
    pub in_use: Vec<&'a Revision>,
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(labels::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

impl Hands<'_> {
    fn namespace(&self) -> &str {
        self.group.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.group.metadata.name.as_deref().unwrap_or_default()
    }

    fn member(&self, cell: &str) -> Result<&Member, ActError> {
        self.members.get(cell).map(AsRef::as_ref).ok_or_else(|| {
            ActError::Missing(format!("cell {cell} belongs to no connected cluster"))
        })
    }

    fn source(&self) -> Result<Source<'_>, ActError> {
        self.app
            .map(|app| Source::new(app, self.group))
            .ok_or_else(|| ActError::Missing(format!("app {} does not exist", self.group.spec.app)))
    }

    fn revision(&self, number: i64) -> Result<&Revision, ActError> {
        self.revisions
            .get(&number)
            .ok_or_else(|| ActError::Missing(format!("revision {number} is not kept")))
    }

    fn sets(&self, member: &Member) -> Api<Set> {
        Api::namespaced(member.client.clone(), self.namespace())
    }

    fn pods(&self, member: &Member) -> Api<Pod> {
        Api::namespaced(member.client.clone(), self.namespace())
    }

    /// Does what `action` says.
    pub async fn act(&self, action: &Action) -> Result<(), ActError> {
        match action {
            Action::CreateRevision(revision) => self.create_revision(revision).await,
            Action::PruneRevision { number } => {
                let api: Api<ControllerRevision> =
                    Api::namespaced(self.hub.clone(), self.namespace());
                ignore_missing(
                    api.delete(
                        &format!("{}-{number}", self.name()),
                        &DeleteParams::default(),
                    )
                    .await,
                )
                .map_err(failed("delete a revision"))
            }
            Action::SetGroupRevision { current, spec } => {
                self.set_group_revision(current, &json!(spec)).await
            }
            Action::AddFinalizer => self.finalizers(true).await,
            Action::RemoveFinalizer => self.finalizers(false).await,
            Action::EnsureSupport { cluster, replicas } => self.support(cluster, *replicas).await,
            Action::DeleteSupport { cluster } => self.delete_support(cluster).await,
            Action::SetPins { cluster, pins } => {
                let key = (self.namespace().to_owned(), self.name().to_owned());
                nodes::write(self.on_cluster(cluster)?, &key, pins).await
            }
            Action::CreateSet {
                cell,
                revision,
                replicas,
            } => {
                let member = self.member(cell)?;
                let selector = self.selectors.get(cell).cloned().unwrap_or_default();
                let set = render::stateful_set(
                    self.source()?,
                    self.revision(*revision)?,
                    self.namespace(),
                    cell,
                    &selector,
                    *replicas,
                );
                let made = self
                    .sets(member)
                    .patch(
                        &self.group.set_in(cell),
                        &params_apply(),
                        &Patch::Apply(&set),
                    )
                    .await;
                member
                    .sets
                    .put(made.map_err(failed("create a StatefulSet"))?);
                Ok(())
            }
            Action::DeleteSet { cell } => {
                let member = self.member(cell)?;
                let params = DeleteParams::background();
                ignore_missing(
                    self.sets(member)
                        .delete(&self.group.set_in(cell), &params)
                        .await,
                )
                .map_err(failed("delete a StatefulSet"))
            }
            Action::Scale {
                cell,
                version,
                replicas,
                partition,
            } => {
                let spec = json!({"replicas": replicas, "updateStrategy": {"rollingUpdate": {"partition": partition}}});
                self.merge_set(cell, version, spec, "scale a StatefulSet")
                    .await
            }
            Action::SetPartition {
                cell,
                version,
                partition,
            } => {
                let spec = json!({"updateStrategy": {"rollingUpdate": {"partition": partition}}});
                self.merge_set(cell, version, spec, "move a partition")
                    .await
            }
            Action::SetTemplate {
                cell,
                version,
                revision,
                partition,
            } => {
                let member = self.member(cell)?;
                let selector = self.selectors.get(cell).cloned().unwrap_or_default();
                let template = render::cell_template(self.revision(*revision)?, cell, &selector);
                // The whole template: a merge would leave behind what the new one does not have.
                let patch = json!([
                    {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
                    {"op": "replace", "path": "/spec/template", "value": template},
                    {"op": "replace", "path": "/spec/updateStrategy", "value": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}},
                ]);
                let set = self
                    .sets(member)
                    .patch(&self.group.set_in(cell), &params(), &json_patch(patch)?)
                    .await;
                member
                    .sets
                    .put(set.map_err(failed("give a StatefulSet a template"))?);
                Ok(())
            }
            Action::SetGate {
                cell,
                instance,
                version,
                hold,
                message,
            } => {
                let member = self.member(cell)?;
                let status = if hold.is_some() { "False" } else { "True" };
                let key = (self.namespace().to_owned(), instance.clone());
                let before = member.pods.get(&key).map(|p| p.view().gate);
                // The condition's time is that of its status, not of its reason.
                let since = match (before, hold) {
                    (Some(Gate::Out { since, .. }), Some(_)) => since,
                    _ => Timestamp::now(),
                };
                let patch = json!({
                    "metadata": {"resourceVersion": version},
                    "status": {"conditions": [{
                        "type": labels::IN_SERVICE,
                        "status": status,
                        "reason": hold.map_or("InService", crate::world::Hold::reason),
                        "message": message,
                        "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                    }]},
                });
                let pod = self
                    .pods(member)
                    .patch_status(instance, &params(), &Patch::Strategic(&patch))
                    .await;
                member
                    .pods
                    .put(pod.map_err(failed("turn an instance's gate"))?);
                Ok(())
            }
            Action::UpdateInPlace {
                cell,
                instance,
                version,
                revision,
                hash,
                images,
                mark,
            } => {
                let member = self.member(cell)?;
                let containers: Vec<Value> = images
                    .iter()
                    .map(|(name, image)| json!({"name": name, "image": image}))
                    .collect();
                let mut patch = json!({
                    "metadata": {
                        "resourceVersion": version,
                        "labels": {labels::REVISION: revision.to_string(), labels::CONTROLLER_REVISION_HASH: hash},
                        "annotations": {labels::IN_PLACE: json!(mark).to_string()},
                    },
                });
                if !containers.is_empty() {
                    patch["spec"] = json!({"containers": containers});
                }
                let pod = self
                    .pods(member)
                    .patch(instance, &params(), &Patch::Strategic(&patch))
                    .await;
                member
                    .pods
                    .put(pod.map_err(failed("update an instance in place"))?);
                Ok(())
            }
            Action::DeleteInstance {
                cell,
                instance,
                uid,
                version,
            } => {
                let member = self.member(cell)?;
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: Some(uid.clone()),
                        resource_version: Some(version.clone()),
                    }),
                    ..DeleteParams::default()
                };
                ignore_missing(self.pods(member).delete(instance, &params).await)
                    .map_err(failed("delete an instance"))
            }
        }
    }

    async fn merge_set(
        &self,
        cell: &str,
        version: &str,
        spec: Value,
        what: &str,
    ) -> Result<(), ActError> {
        let member = self.member(cell)?;
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        let set = self
            .sets(member)
            .patch(&self.group.set_in(cell), &params(), &Patch::Merge(&patch))
            .await;
        member.sets.put(set.map_err(failed(what))?);
        Ok(())
    }

    pub(super) async fn create_revision(&self, revision: &Revision) -> Result<(), ActError> {
        let api: Api<ControllerRevision> = Api::namespaced(self.hub.clone(), self.namespace());
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision",
            "metadata": {
                "name": format!("{}-{}", self.name(), revision.number),
                "namespace": self.namespace(),
                "labels": {labels::GROUP: self.name(), labels::MANAGED_BY: labels::MANAGER},
                "ownerReferences": [{
                    "apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "name": self.name(),
                    "uid": self.group.metadata.uid, "controller": true, "blockOwnerDeletion": false,
                }],
            },
            "revision": revision.number,
            "data": {"spec": revision.spec, "template": revision.template, "digest": revision.digest},
        });
        let object: ControllerRevision = serde_json::from_value(object)
            .map_err(|e| ActError::Missing(format!("write down a revision: {e}")))?;
        let made = api
            .create(
                &PostParams {
                    field_manager: Some(labels::FIELD_MANAGER.to_owned()),
                    ..PostParams::default()
                },
                &object,
            )
            .await;
        self.table
            .put(made.map_err(failed("write down a revision"))?);
        Ok(())
    }

    async fn set_group_revision(
        &self,
        current: &RevisionRef,
        spec: &Value,
    ) -> Result<(), ActError> {
        let api: Api<Group> = Api::namespaced(self.hub.clone(), self.namespace());
        let patch = json!([{"op": "replace", "path": "/spec/revision", "value": spec}]);
        api.patch(self.name(), &params(), &json_patch(patch)?)
            .await
            .map_err(failed("write the group's revision"))?;
        let status = json!({"status": {"current": {"revision": current.revision, "image": current.image, "release": current.release}}});
        let group = api
            .patch_status(self.name(), &params(), &Patch::Merge(&status))
            .await
            .map_err(failed("write the group's current revision"))?;
        self.groups.put(group);
        Ok(())
    }

    async fn finalizers(&self, add: bool) -> Result<(), ActError> {
        let api: Api<Group> = Api::namespaced(self.hub.clone(), self.namespace());
        let mut list = self.group.metadata.finalizers.clone().unwrap_or_default();
        list.retain(|f| f != labels::FINALIZER);
        if add {
            list.push(labels::FINALIZER.to_owned());
        }
        let patch = json!({"metadata": {"resourceVersion": self.group.metadata.resource_version, "finalizers": list}});
        let group = ignore_missing(
            api.patch(self.name(), &params(), &Patch::Merge(&patch))
                .await
                .map(Some),
        )
        .map_err(failed("write the group's finalizers"));
        group.map(|_| ())
    }

    fn on_cluster(&self, cluster: &str) -> Result<&Member, ActError> {
        self.members
            .values()
            .find(|m| m.name == cluster)
            .map(AsRef::as_ref)
            .ok_or_else(|| ActError::Missing(format!("cluster {cluster} is not connected")))
    }

    async fn support(&self, cluster: &str, replicas: i32) -> Result<(), ActError> {
        let member = self.on_cluster(cluster)?;
        let objects = support::objects(
            self.source()?,
            &self.in_use,
            self.namespace(),
            replicas,
            self.group.spec.replicas,
        );
        for object in objects {
            let (api, name) = dynamic(&member.client, &object);
            let what = format!(
                "apply {} {name} on {cluster}",
                object["kind"].as_str().unwrap_or_default()
            );
            api.patch(&name, &params_apply(), &Patch::Apply(&object))
                .await
                .map_err(failed(&what))?;
        }
        Ok(())
    }

    async fn delete_support(&self, cluster: &str) -> Result<(), ActError> {
        let member = self.on_cluster(cluster)?;
        for (api, name) in self.supports(member).await? {
            ignore_missing(api.delete(&name, &DeleteParams::default()).await)
                .map_err(failed("delete what a group has on a member"))?;
        }
        Ok(())
    }

    /// Lets go of what [`support`](Self::support) made on a member, and leaves it there.
    pub(super) async fn leave_support(&self, member: &Member) -> Result<(), ActError> {
        // Nothing of it may stay in the way of whoever has the instances then.
        let key = (self.namespace().to_owned(), self.name().to_owned());
        nodes::write(member, &key, &BTreeMap::new()).await?;
        let none = json!({"metadata": {"labels": {labels::MANAGED_BY: null}}});
        for (api, name) in self.supports(member).await? {
            ignore_missing(api.patch(&name, &params(), &Patch::Merge(&none)).await)
                .map_err(failed("let go of what a group has on a member"))?;
        }
        Ok(())
    }

    /// What the Group alone has on a member beside its instances.
    async fn supports(
        &self,
        member: &Member,
    ) -> Result<Vec<(Api<DynamicObject>, String)>, ActError> {
        let selector = format!(
            "{}={},{}={}",
            labels::GROUP,
            self.name(),
            labels::MANAGED_BY,
            labels::MANAGER
        );
        let mut all = Vec::new();
        for (group, version, kind) in [
            ("", "v1", "Service"),
            ("", "v1", "ConfigMap"),
            ("policy", "v1", "PodDisruptionBudget"),
        ] {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> =
                Api::namespaced_with(member.client.clone(), self.namespace(), &resource);
            let found = api
                .list_metadata(&ListParams::default().labels(&selector))
                .await
                .map_err(failed("list what a group has on a member"))?;
            all.extend(found.iter().map(|o| (api.clone(), o.name_any())));
        }
        Ok(all)
    }
}

fn json_patch(patch: Value) -> Result<Patch<()>, ActError> {
    let patch: json_patch::Patch = serde_json::from_value(patch)
        .map_err(|e| ActError::Missing(format!("build a patch: {e}")))?;
    Ok(Patch::Json(patch))
}

pub(super) fn params_apply() -> PatchParams {
    PatchParams::apply(labels::FIELD_MANAGER).force()
}

pub(super) fn dynamic(client: &Client, object: &Value) -> (Api<DynamicObject>, String) {
    let text = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (group, version) = text("/apiVersion")
        .split_once('/')
        .unwrap_or(("", text("/apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
    let api = match text("/metadata/namespace") {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    (api, text("/metadata/name").to_owned())
}

pub(super) fn ignore_missing<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// A revision as it was written down.
pub fn read_revision(object: &ControllerRevision) -> Option<Revision> {
    let data = &object.data.as_ref()?.0;
    Some(Revision {
        number: object.revision,
        spec: serde_json::from_value(data.get("spec")?.clone()).ok()?,
        template: data.get("template")?.clone(),
        digest: data.get("digest")?.as_str()?.to_owned(),
    })
}
