//! What the API serves: one [`Resource`] for each group, version and plural name, built-in (from
//! the facts table `data/resources.json`) or custom (from a CustomResourceDefinition).

use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use crate::schema::{self, Link, Schema};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// A subresource such as `status`, `scale` or `binding`.
#[derive(Debug, Clone, Deserialize)]
pub struct Subresource {
    #[serde(rename = "subresource")]
    pub name: String,
    pub kind: String,
    /// Group and version of `kind` where they differ from the resource's own, else empty.
    #[serde(default)]
    pub group: String,
    #[serde(default)]
    pub version: String,
    pub verbs: Vec<String>,
}

/// JSON paths of a custom resource's scale subresource, such as `.spec.replicas`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

/// An additional printer column of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrinterColumn {
    pub name: String,
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i32,
    pub json_path: String,
}

/// What only custom resources have.
#[derive(Debug, Clone, Default)]
pub struct Custom {
    /// Name of the CustomResourceDefinition.
    pub definition: String,
    /// The version in which objects are stored.
    pub storage_version: String,
    /// Whether clients may ask for this version.
    pub served: bool,
    /// Whether the definition is being deleted: no object is created any more.
    pub terminating: bool,
    pub columns: Vec<PrinterColumn>,
    pub scale: Option<ScalePaths>,
    pub has_status: bool,
    /// JSON paths usable in field selectors, such as `.spec.host`.
    pub selectable_fields: Vec<String>,
    pub deprecated: bool,
    pub deprecation_warning: Option<String>,
    /// Tells apart what the definition says and the names it was given, now and later.
    pub print: u64,
    /// `spec.conversion.webhook` of the definition, where a webhook converts between versions.
    pub conversion: Option<Arc<serde_json::Value>>,
}

/// One served resource.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// Plural, lower case: the name in paths.
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub scope: Scope,
    pub verbs: Vec<String>,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub subresources: Vec<Subresource>,
    pub schema: Link,
    pub custom: Option<Custom>,
}

impl Resource {
    /// `v1` or `apps/v1`, as in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`, as error messages name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn schema(&self) -> &Schema {
        self.schema.get()
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    group: String,
    version: String,
    resource: String,
    kind: String,
    scope: Scope,
    singular: String,
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    subresources: Vec<Subresource>,
}

/// All built-in resources of Kubernetes 1.36, in the order of the facts table (which is the order
/// in which discovery lists groups).
pub fn builtin_resources() -> &'static [Arc<Resource>] {
    static ALL: OnceLock<Vec<Arc<Resource>>> = OnceLock::new();
    ALL.get_or_init(|| {
        // The table is part of the binary: a build with a broken one fails every test.
        let rows: Vec<Row> =
            serde_json::from_str(include_str!("../data/resources.json")).unwrap_or_default();
        rows.into_iter()
            .map(|row| Arc::new(resource(row)))
            .collect()
    })
}

fn resource(row: Row) -> Resource {
    let schema = schema::builtin_by_gvk(&row.group, &row.version, &row.kind)
        .map_or_else(|| Link::Owned(Box::default()), Link::Builtin);
    Resource {
        list_kind: format!("{}List", row.kind),
        group: row.group,
        version: row.version,
        plural: row.resource,
        singular: row.singular,
        kind: row.kind,
        scope: row.scope,
        verbs: row.verbs,
        short_names: row.short_names,
        categories: row.categories,
        subresources: row.subresources,
        schema,
        custom: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_resource_has_its_type() {
        assert_eq!(builtin_resources().len(), 68);
        for r in builtin_resources() {
            assert!(
                matches!(r.schema, Link::Builtin(_)),
                "{} {}",
                r.api_version(),
                r.kind
            );
        }
    }
}
