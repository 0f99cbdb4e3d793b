//! What a revision is made of, and a change to one.
//!
//! A revision is an immutable, numbered snapshot of a Group's pod template. The hub keeps each as an
//! `apps/v1` ControllerRevision `GROUP-NUMBER` in the Group's namespace: the [`RevisionSpec`] a person
//! asked for beside the pod template that it was rendered to, so that going back to revision 41 brings
//! back what really ran as 41, whatever has become of the App since.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::Probes;

/// Image, configuration, environment and resources: what is released, and what is gone back to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSpec {
    /// Image of the App's container.
    #[schemars(length(min = 1))]
    pub image: String,
    /// Images of other containers of the App's template (side-cars, init containers), by container name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Compute resources of the App's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Health checks of the App's container; each that is given wins over the App's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// Environment variables of the App's container, added to those of the App's template; same name wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Files to put into the App's container. They reach the member as one immutable ConfigMap a revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<ConfigFile>,
    /// Entry point, instead of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments to the entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// One configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFile {
    /// Absolute path in the container.
    #[schemars(regex(pattern = "^/.+"))]
    pub path: String,
    /// Content.
    pub text: String,
}

/// What a Release changes: only the fields given; everything else stays as in the Group's current revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionChange {
    /// Go to this revision of the Group, by number. All other fields must be empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub to: Option<i64>,
    /// New image of the App's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// New images of other containers, by container name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// New resources; they replace the old as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// New health checks; they replace those of the revision as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// Environment variables to set, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Names of environment variables to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset_env: Vec<String>,
    /// Configuration files to set, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<ConfigFile>,
    /// Paths of configuration files to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset_config: Vec<String>,
    /// New entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// New arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
}

impl RevisionChange {
    /// Whether anything is asked for beside [`to`](Self::to).
    pub fn has_changes(&self) -> bool {
        *self
            != Self {
                to: self.to,
                ..Self::default()
            }
    }

    /// `base` with the change made. [`to`](Self::to) is not looked at: which revision is the base is
    /// the caller's business.
    pub fn apply(&self, base: &RevisionSpec) -> RevisionSpec {
        let mut next = base.clone();
        if let Some(image) = &self.image {
            next.image.clone_from(image);
        }
        next.images.extend(self.images.clone());
        if let Some(resources) = &self.resources {
            next.resources = Some(resources.clone());
        }
        if let Some(probes) = &self.probes {
            next.probes = Some(probes.clone());
        }
        next.env.retain(|e| !self.unset_env.contains(&e.name));
        for var in &self.env {
            match next.env.iter_mut().find(|e| e.name == var.name) {
                Some(old) => *old = var.clone(),
                None => next.env.push(var.clone()),
            }
        }
        next.config.retain(|f| !self.unset_config.contains(&f.path));
        for file in &self.config {
            match next.config.iter_mut().find(|f| f.path == file.path) {
                Some(old) => *old = file.clone(),
                None => next.config.push(file.clone()),
            }
        }
        if let Some(command) = &self.command {
            next.command.clone_from(command);
        }
        if let Some(args) = &self.args {
            next.args.clone_from(args);
        }
        next
    }
}

/// A revision as a status names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRef {
    /// Number of the revision, from 1.
    pub revision: i64,
    /// Image of the App's container in it.
    #[serde(default)]
    pub image: String,
    /// The Release that brings (or brought) it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(name: &str, value: &str) -> EnvVar {
        EnvVar {
            name: name.into(),
            value: Some(value.into()),
            ..EnvVar::default()
        }
    }

    #[test]
    fn only_what_is_given_changes() {
        let base = RevisionSpec {
            image: "shop/cart:1".into(),
            env: vec![var("A", "1"), var("B", "2")],
            config: vec![ConfigFile {
                path: "/etc/a".into(),
                text: "a".into(),
            }],
            args: vec!["serve".into()],
            ..RevisionSpec::default()
        };
        let same = RevisionChange::default();
        assert!(!same.has_changes());
        assert_eq!(same.apply(&base), base);

        let change = RevisionChange {
            image: Some("shop/cart:2".into()),
            env: vec![var("B", "3"), var("C", "4")],
            unset_env: vec!["A".into()],
            unset_config: vec!["/etc/a".into()],
            args: Some(Vec::new()),
            ..RevisionChange::default()
        };
        assert!(change.has_changes());
        let next = change.apply(&base);
        assert_eq!(next.image, "shop/cart:2");
        assert_eq!(next.env, [var("B", "3"), var("C", "4")]);
        assert!(next.config.is_empty() && next.args.is_empty());
    }
}
