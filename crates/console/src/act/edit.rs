//! Editing one object as YAML: what was changed is sent as a patch, so that what the text does not show is
//! left alone, and only onto the version that was looked at.

use gantry_api::{Notification, PlacementPolicy, Tenant};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Map, Value};

use super::{MANAGER, instance::writer};
use crate::{
    access::Right,
    app::Cx,
    error::Fail,
    model::limits::{ElasticQuota, QuotaKind},
    page,
};

/// Kinds that are edited here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a member, without a namespace.
    Policy,
    /// Of a member.
    ResourceQuota,
    /// Of a member.
    ElasticQuota,
    /// Of the hub, without a namespace.
    Tenant,
    /// Of the hub.
    Notification,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// The member; empty: the hub.
    pub cluster: String,
    /// Its namespace; empty where it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// A policy of a member.
    pub fn policy(cluster: &str, name: &str) -> Self {
        Self {
            kind: Kind::Policy,
            cluster: cluster.to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
        }
    }

    /// A quota of a member.
    pub fn quota(cluster: &str, namespace: &str, kind: &str, name: &str) -> Option<Self> {
        let kind = match QuotaKind::named(kind)? {
            QuotaKind::ResourceQuota => Kind::ResourceQuota,
            QuotaKind::ElasticQuota => Kind::ElasticQuota,
            QuotaKind::Tenant => return None,
        };
        Some(Self {
            kind,
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// A Tenant.
    pub fn tenant(name: &str) -> Self {
        Self {
            kind: Kind::Tenant,
            cluster: String::new(),
            namespace: String::new(),
            name: name.to_owned(),
        }
    }

    /// A Notification.
    pub fn notification(namespace: &str, name: &str) -> Self {
        Self {
            kind: Kind::Notification,
            cluster: String::new(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn resource(&self) -> ApiResource {
        match self.kind {
            Kind::Policy => ApiResource::erase::<PlacementPolicy>(&()),
            Kind::ResourceQuota => ApiResource::erase::<ResourceQuota>(&()),
            Kind::ElasticQuota => ApiResource::erase::<ElasticQuota>(&()),
            Kind::Tenant => ApiResource::erase::<Tenant>(&()),
            Kind::Notification => ApiResource::erase::<Notification>(&()),
        }
    }

    fn api(&self, client: Client) -> Api<DynamicObject> {
        let resource = self.resource();
        if self.namespace.is_empty() {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, &self.namespace, &resource)
        }
    }

    /// The right to do something to it, as the hub is asked.
    pub fn right(&self, verb: &'static str) -> Right {
        let (group, resource) = match self.kind {
            Kind::Policy => (gantry_api::GROUP, "placementpolicies"),
            Kind::ResourceQuota => ("", "resourcequotas"),
            Kind::ElasticQuota => ("scheduling.sigs.k8s.io", "elasticquotas"),
            Kind::Tenant => (gantry_api::GROUP, "tenants"),
            Kind::Notification => (gantry_api::GROUP, "notifications"),
        };
        Right {
            verb,
            group,
            resource,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            ..Right::default()
        }
    }

    /// Its page.
    pub fn place(&self) -> String {
        let Self {
            cluster,
            namespace,
            name,
            ..
        } = self;
        match self.kind {
            Kind::Policy => format!("/policies/{cluster}/{name}"),
            Kind::ResourceQuota => format!("/quotas/{cluster}/{namespace}/ResourceQuota/{name}"),
            Kind::ElasticQuota => format!("/quotas/{cluster}/{namespace}/ElasticQuota/{name}"),
            Kind::Tenant => format!("/tenants/{name}"),
            Kind::Notification => format!("/notifications/{namespace}/{name}"),
        }
    }

    /// How the audit calls it.
    fn label(&self) -> String {
        let parts = [self.cluster.as_str(), &self.namespace, &self.name];
        let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        format!("{} {}", self.resource().kind, parts.join("/"))
    }

    /// Reads it: of the hub as the user, of a member as the console, for whoever is known to see it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn read(&self, cx: &Cx) -> Result<Value, Fail> {
        let client = if self.cluster.is_empty() {
            cx.session.client.clone()
        } else {
            page::reader(cx, &self.cluster)?
        };
        let object = self.api(client).get(&self.name).await?;
        let mut value = serde_json::to_value(object).map_err(|e| Fail::Upstream(e.to_string()))?;
        if let Some(meta) = value["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
        Ok(value)
    }

    fn writer(&self, cx: &Cx) -> Result<Client, Fail> {
        if self.cluster.is_empty() {
            Ok(cx.session.client.clone())
        } else {
            writer(cx, &self.cluster)
        }
    }

    /// Takes an edited text over, or asks whether it would be taken; what it was and is. `seen` is the
    /// text before it was edited, where that is known.
    ///
    /// # Errors
    /// If it is no longer the object that was looked at, or hub or member refuse it.
    pub async fn change(
        &self,
        cx: &Cx,
        (text, seen): (&str, &str),
        dry_run: bool,
    ) -> Result<(Value, Value), Fail> {
        let mut wish = self.parse(text)?;
        let before = plain(self.read(cx).await?);
        let version = &before["metadata"]["resourceVersion"];
        let edited = &wish["metadata"]["resourceVersion"];
        if !edited.is_null() && edited != version {
            // Whoever wrote its status alone has changed nothing that is edited here.
            let seen = self.parse(seen).unwrap_or_default();
            if edited != &seen["metadata"]["resourceVersion"]
                || !same_but_for_version(&before, &seen)
            {
                return Err(Fail::Conflict(format!(
                    "{} has been changed since it was read; load the page again",
                    self.name
                )));
            }
            wish["metadata"]["resourceVersion"] = version.clone();
        }
        let mut patch = merge(&before, &wish);
        if patch.as_object().is_some_and(Map::is_empty) {
            return Ok((Value::Null, Value::Null));
        }
        if !cx.may(self.right("patch")).await {
            return Err(Fail::Forbidden(format!(
                "you may not patch {} on the hub",
                self.right("patch").resource
            )));
        }
        patch["metadata"]["resourceVersion"] = version.clone();
        let params = PatchParams {
            dry_run,
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.api(self.writer(cx)?);
        let end = api
            .patch(&self.name, &params, &Patch::Merge(patch))
            .await
            .map_err(Fail::from);
        if !dry_run {
            cx.audit("change", &self.label(), &end);
        }
        let after = serde_json::to_value(end?).map_err(|e| Fail::Upstream(e.to_string()))?;
        Ok((before, plain(after)))
    }

    /// Makes it as a text says, or asks whether it would be made.
    ///
    /// # Errors
    /// If hub or member refuse it.
    pub async fn create(&self, cx: &Cx, text: &str, dry_run: bool) -> Result<(), Fail> {
        let wish = self.parse(text)?;
        let right = Right {
            name: String::new(),
            ..self.right("create")
        };
        if !cx.may(right).await {
            return Err(Fail::Forbidden(format!(
                "you may not create {} on the hub",
                self.right("create").resource
            )));
        }
        let object: DynamicObject =
            serde_json::from_value(wish).map_err(|e| Fail::Bad(e.to_string()))?;
        let params = PostParams {
            dry_run,
            field_manager: Some(MANAGER.to_owned()),
        };
        let api = self.api(self.writer(cx)?);
        let end = match api.create(&params, &object).await.map_err(Fail::from) {
            Err(Fail::NotFound) => Err(Fail::Conflict(format!(
                "the kind {} or its namespace is not known there",
                self.resource().kind
            ))),
            other => other,
        };
        if !dry_run {
            cx.audit("create", &self.label(), &end);
        }
        end.map(|_| ())
    }

    /// Deletes it.
    ///
    /// # Errors
    /// If hub or member refuse it.
    pub async fn delete(&self, cx: &Cx) -> Result<(), Fail> {
        if !cx.may(self.right("delete")).await {
            return Err(Fail::NotFound);
        }
        let api = self.api(self.writer(cx)?);
        let end = api
            .delete(&self.name, &DeleteParams::default())
            .await
            .map(|_| ())
            .map_err(Fail::from);
        cx.audit("delete", &self.label(), &end);
        end
    }

    /// A text as this object.
    ///
    /// # Errors
    /// Where it is no YAML, or another object.
    pub fn parse(&self, text: &str) -> Result<Value, Fail> {
        let value: Value =
            serde_saphyr::from_str(text).map_err(|e| Fail::Bad(format!("YAML: {e}")))?;
        let resource = self.resource();
        let wanted = [
            ("apiVersion", &value["apiVersion"], &resource.api_version),
            ("kind", &value["kind"], &resource.kind),
            ("metadata.name", &value["metadata"]["name"], &self.name),
            (
                "metadata.namespace",
                &value["metadata"]["namespace"],
                &self.namespace,
            ),
        ];
        for (field, is, want) in wanted {
            if is.as_str().unwrap_or_default() != want {
                return Err(Fail::Bad(format!(
                    "{field}: {} where {want:?} is expected",
                    if is.is_null() {
                        "nothing".to_owned()
                    } else {
                        is.to_string()
                    }
                )));
            }
        }
        Ok(plain(value))
    }
}

/// The kind, name and namespace that a text for a new object gives.
pub fn named(text: &str) -> Result<(String, String), Fail> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| Fail::Bad(format!("YAML: {e}")))?;
    let part = |name: &str| {
        let text = value["metadata"][name].as_str();
        text.unwrap_or_default().to_owned()
    };
    if part("name").is_empty() {
        return Err(Fail::Bad("metadata.name: give it a name".to_owned()));
    }
    Ok((part("namespace"), part("name")))
}

/// What people edit of an object: not its status.
pub fn plain(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    value
}

/// The merge patch (RFC 7396) that makes one value of another.
pub fn merge(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return after.clone();
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(was) if was == value => {}
            Some(was) => {
                patch.insert(key.clone(), merge(was, value));
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// Whether two states of an object differ in its version only: nothing that is edited was changed.
fn same_but_for_version(a: &Value, b: &Value) -> bool {
    let rest = |object: &Value| {
        let mut rest = object.clone();
        rest["metadata"]["resourceVersion"].take();
        rest
    };
    rest(a) == rest(b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_that_was_written_meanwhile_is_no_other_object() {
        let seen = json!({"metadata": {"name": "a", "resourceVersion": "7", "labels": {"x": "1"}}, "spec": {"hard": {"pods": "1"}}});
        for (path, value, same) in [
            ("/metadata/resourceVersion", json!("9"), true),
            ("/metadata/labels/x", json!("2"), false),
            ("/spec/hard/pods", json!("2"), false),
        ] {
            let mut now = seen.clone();
            *now.pointer_mut(path).unwrap() = value;
            assert_eq!(same_but_for_version(&now, &seen), same, "{path}");
        }
    }

    #[test]
    fn a_patch_says_what_was_edited_and_no_more() {
        for (before, after, want) in [
            (json!({"a": 1}), json!({"a": 1}), json!({})),
            (
                json!({"a": 1, "b": {"c": 1, "d": 2}}),
                json!({"a": 1, "b": {"c": 3}}),
                json!({"b": {"c": 3, "d": null}}),
            ),
            (json!({"l": [1, 2]}), json!({"l": [2]}), json!({"l": [2]})),
            (
                json!({"a": 1}),
                json!({"a": {"b": 1}}),
                json!({"a": {"b": 1}}),
            ),
            (json!({}), json!({"n": {"x": 1}}), json!({"n": {"x": 1}})),
        ] {
            assert_eq!(merge(&before, &after), want, "{before} {after}");
        }
    }

    #[test]
    fn another_object_is_refused_by_the_field() {
        let target = Target::quota("sh", "shop", "ResourceQuota", "all").unwrap();
        let text = |ns: &str, name: &str| {
            format!(
                "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: {name}, namespace: {ns}}}\nstatus: {{}}\n"
            )
        };
        let read = target.parse(&text("shop", "all")).unwrap();
        assert!(read["status"].is_null());
        for (text, field) in [
            (text("bank", "all"), "metadata.namespace"),
            (text("shop", "other"), "metadata.name"),
            (
                text("shop", "all").replace("ResourceQuota", "Secret"),
                "kind",
            ),
            ("a: [".to_owned(), "YAML"),
        ] {
            let Err(Fail::Bad(why)) = target.parse(&text) else {
                panic!("{text} was taken");
            };
            assert!(why.starts_with(field), "{why}");
        }
        assert_eq!(Target::quota("sh", "shop", "Tenant", "x"), None);
    }
}
