//! The one schema model: built-in types (from the facts tables) and custom resources (from their
//! structural schemas) are walked through the same type, so that defaulting, pruning, strategic
//! merge, server-side apply and OpenAPI are written once.

mod builtin;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::crd::Rules;

pub use builtin::{TypeId, builtin, builtin_by_gvk, builtin_types, type_name};

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// An object with named [`Schema::properties`] or free-form [`Schema::additional`] values.
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// A string or an integer (`IntOrString`, `x-kubernetes-int-or-string`).
    IntOrString,
    /// Anything: `RawExtension`, `JSON`, fields under `x-kubernetes-preserve-unknown-fields` that
    /// give no type.
    #[default]
    Any,
}

/// How a list merges under server-side apply (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// Items are told apart by these keys.
    Map(Vec<String>),
}

/// Whether a field refers to a built-in type by number or owns its schema.
#[derive(Debug, Clone)]
pub enum Link {
    Builtin(TypeId),
    Owned(Box<Schema>),
}

impl Link {
    /// The schema at the end of the link. Built-in types may refer to themselves (`JSONSchemaProps`);
    /// a link is followed only when a value is there, so walks end with the value.
    pub fn get(&self) -> &Schema {
        match self {
            Link::Builtin(id) => builtin(*id),
            Link::Owned(schema) => schema,
        }
    }
}

/// One type or field: all that the API machinery needs to know about it.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    pub kind: Kind,
    pub properties: BTreeMap<String, Link>,
    /// Values of a free-form map (`additionalProperties`).
    pub additional: Option<Link>,
    /// Items of an array.
    pub items: Option<Link>,
    pub required: Vec<String>,
    /// `int32`, `int64`, `double`, `byte`, `date-time`, …
    pub format: Option<String>,
    pub enumeration: Vec<Value>,
    pub list_type: ListType,
    /// The object or map is owned as a whole under server-side apply (`x-kubernetes-map-type: atomic`).
    pub atomic_map: bool,
    /// Strategic merge patch: `merge`, `replace`, `retainKeys` (several may be given).
    pub patch_strategies: Vec<String>,
    pub patch_merge_key: Option<String>,
    /// `x-kubernetes-preserve-unknown-fields`: unknown fields are kept, not pruned.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`: apiVersion, kind and metadata are implied.
    pub embedded_resource: bool,
    /// The built-in type whose facts a field refines and so carries a copy of.
    pub refines: Option<TypeId>,
    pub nullable: bool,
    pub default: Option<Value>,
    pub description: Option<String>,
    /// The built-in type that this is the schema of.
    pub type_id: Option<TypeId>,
    /// Text that may also be given as a number (quantities).
    pub any_scalar: bool,
    /// `anyOf`, `oneOf`, `allOf` and `not` of a custom resource's schema.
    pub junctors: Option<Box<Junctors>>,
    /// `pattern` of a custom resource's text, compiled.
    pub pattern: Option<regex::Regex>,
    /// CEL rules of this node (`x-kubernetes-validations`), compiled.
    pub rules: Option<Arc<Rules>>,
    /// Whether this node or one below it has rules.
    pub has_rules: bool,
    /// The JSON schema as its author wrote it, for custom resources only: validation keywords
    /// (`pattern`, `minimum`, `x-kubernetes-validations`, …) are read from here.
    pub source: Option<Value>,
}

/// Further schemas that a value must satisfy, or must not.
#[derive(Debug, Clone, Default)]
pub struct Junctors {
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Schema>,
}

impl Schema {
    /// The schema of a named field: a declared property, else the map's value type.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties
            .get(name)
            .or(self.additional.as_ref())
            .map(Link::get)
    }

    /// The schema of the list's items.
    pub fn item(&self) -> Option<&Schema> {
        self.items.as_ref().map(Link::get)
    }

    /// Whether patches merge this list or map into the old value (strategic merge patch).
    pub fn merges(&self) -> bool {
        self.patch_strategies.iter().any(|s| s == "merge")
    }
}
