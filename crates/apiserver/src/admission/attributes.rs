//! What a request looks like to webhooks and policies: operation, kinds, names, user, options.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{api::Cx, authn::UserInfo, registry::Entry};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }

    /// Kind of its options; of a CONNECT there are none.
    fn options(self) -> &'static str {
        match self {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => "",
        }
    }
}

/// `GroupVersionResource`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gvr {
    pub group: String,
    pub version: String,
    pub resource: String,
}

impl Gvr {
    pub fn of(entry: &Entry) -> Gvr {
        Gvr {
            group: entry.resource.group.clone(),
            version: entry.resource.version.clone(),
            resource: entry.resource.plural.clone(),
        }
    }

    pub fn to_value(&self) -> Value {
        json!({"group": self.group, "version": self.version, "resource": self.resource})
    }
}

/// `GroupVersionKind`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gvk {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl Gvk {
    /// What is sent to a resource or to one of its subresources.
    pub fn of(entry: &Entry, subresource: &str) -> Gvk {
        let resource = &entry.resource;
        let mut gvk = Gvk {
            group: resource.group.clone(),
            version: resource.version.clone(),
            kind: resource.kind.clone(),
        };
        if let Some(sub) = resource.subresource(subresource) {
            gvk.kind.clone_from(&sub.kind);
            if !sub.version.is_empty() {
                gvk.group.clone_from(&sub.group);
                gvk.version.clone_from(&sub.version);
            }
        }
        gvk
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn to_value(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }
}

impl std::fmt::Display for Gvk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

/// A request without its objects, which change on the way.
#[derive(Debug, Clone)]
pub struct Attributes {
    pub operation: Operation,
    pub entry: Arc<Entry>,
    pub resource: Gvr,
    pub kind: Gvk,
    pub subresource: String,
    /// Of the object; of a Namespace, its own name.
    pub namespace: String,
    /// Empty where the server makes up the name, and for collections.
    pub name: String,
    pub options: Value,
    pub dry_run: bool,
    pub user: Arc<UserInfo>,
}

impl Attributes {
    /// Of a request as it is under way, about an object of this name.
    pub fn of(cx: &Cx, operation: Operation, subresource: &str, name: &str) -> Attributes {
        let mut namespace = cx.target.namespace.clone();
        if cx.entry.is("", "namespaces") {
            name.clone_into(&mut namespace);
        }
        Attributes {
            operation,
            entry: cx.entry.clone(),
            resource: Gvr::of(&cx.entry),
            kind: Gvk::of(&cx.entry, subresource),
            subresource: subresource.to_owned(),
            namespace,
            name: name.to_owned(),
            options: options(cx, operation),
            dry_run: cx.dry_run(),
            user: cx.user.clone(),
        }
    }
}

impl Attributes {
    /// Whether the objects are those of the resource itself, not of a subresource's own kind.
    pub fn whole(&self) -> bool {
        self.kind == Gvk::of(&self.entry, "")
    }
}

/// The options of a write, as the query gives them. (Patches have those of the update or creation
/// that they are.)
fn options(cx: &Cx, operation: Operation) -> Value {
    if operation == Operation::Connect {
        return Value::Null;
    }
    let mut options = json!({"kind": operation.options(), "apiVersion": "meta.k8s.io/v1"});
    if cx.dry_run() {
        options["dryRun"] = json!(["All"]);
    }
    if operation != Operation::Delete {
        for name in ["fieldManager", "fieldValidation"] {
            let value = cx.query.text(name);
            if !value.is_empty() {
                options[name] = value.into();
            }
        }
    }
    options
}

/// An object as the kind that its subresource has, for matching and for calls.
pub fn with_kind(mut object: Value, kind: &Gvk) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), kind.api_version().into());
        map.insert("kind".to_owned(), kind.kind.clone().into());
    }
    object
}
