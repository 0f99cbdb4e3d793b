//! The declared types of what admission hands to expressions: the request and its namespace, and
//! objects by their schemas.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use crate::{
    cel::{Decl, Field, Object, Text, Type, escape},
    schema::{Kind, Schema, builtin_types},
};

fn field(json: &str, decl: Decl) -> Field {
    Field {
        json: json.into(),
        decl: Arc::new(decl),
    }
}

fn object(name: &str, fields: &[(&str, Decl)]) -> Decl {
    let copy = |decl: &Decl| Decl {
        ty: decl.ty.clone(),
        items: decl.items.clone(),
        text: decl.text,
        ..Decl::default()
    };
    let fields = fields
        .iter()
        .map(|(name, decl)| ((*name).to_owned(), field(name, copy(decl))));
    Decl::of(Type::Object(Arc::new(Object {
        name: name.to_owned(),
        fields: fields.collect(),
        open: false,
    })))
}

fn text() -> Decl {
    Decl::of(Type::String)
}

fn time() -> Decl {
    Decl {
        text: Text::DateTime,
        ..Decl::of(Type::Timestamp)
    }
}

fn list(items: Decl) -> Decl {
    Decl {
        items: Some(Arc::new(items)),
        ..Decl::default()
    }
    .typed(Type::list)
}

fn map(values: Decl) -> Decl {
    Decl {
        items: Some(Arc::new(values)),
        ..Decl::default()
    }
    .typed(|decl| Type::map(Type::String, decl))
}

trait Typed {
    fn typed(self, ty: impl FnOnce(Type) -> Type) -> Self;
}

impl Typed for Decl {
    /// With the type that its items make.
    fn typed(mut self, ty: impl FnOnce(Type) -> Type) -> Decl {
        let items = self.items.as_ref().map(|i| i.ty.clone());
        self.ty = ty(items.unwrap_or_default());
        self
    }
}

/// The variable `request`.
pub(super) fn request() -> &'static Decl {
    static DECL: LazyLock<Decl> = LazyLock::new(|| {
        let names = |last: &'static str| [("group", text()), ("version", text()), (last, text())];
        let kind = || object("kubernetes.GroupVersionKind", &names("kind"));
        let resource = || object("kubernetes.GroupVersionResource", &names("resource"));
        let user = object(
            "kubernetes.UserInfo",
            &[
                ("username", text()),
                ("uid", text()),
                ("groups", list(text())),
                ("extra", map(list(text()))),
            ],
        );
        object(
            "kubernetes.AdmissionRequest",
            &[
                ("kind", kind()),
                ("resource", resource()),
                ("subResource", text()),
                ("requestKind", kind()),
                ("requestResource", resource()),
                ("requestSubResource", text()),
                ("name", text()),
                ("namespace", text()),
                ("operation", text()),
                ("userInfo", user),
                ("dryRun", Decl::of(Type::Bool)),
                ("options", Decl::default()),
            ],
        )
    });
    &DECL
}

/// The variable `namespaceObject`.
pub(super) fn namespace() -> &'static Decl {
    static DECL: LazyLock<Decl> = LazyLock::new(|| {
        let metadata = object(
            "kubernetes.NamespaceMetadata",
            &[
                ("name", text()),
                ("generateName", text()),
                ("namespace", text()),
                ("labels", map(text())),
                ("annotations", map(text())),
                ("UID", text()),
                ("creationTimestamp", time()),
                ("deletionGracePeriodSeconds", Decl::of(Type::Int)),
                ("deletionTimestamp", time()),
                ("generation", Decl::of(Type::Int)),
                ("resourceVersion", text()),
                ("finalizers", list(text())),
            ],
        );
        let condition = object(
            "kubernetes.NamespaceCondition",
            &[
                ("status", text()),
                ("type", text()),
                ("lastTransitionTime", time()),
                ("message", text()),
                ("reason", text()),
            ],
        );
        let status = object(
            "kubernetes.NamespaceStatus",
            &[("conditions", list(condition)), ("phase", text())],
        );
        let spec = object("kubernetes.NamespaceSpec", &[("finalizers", list(text()))]);
        object(
            "kubernetes.Namespace",
            &[("metadata", metadata), ("spec", spec), ("status", status)],
        )
    });
    &DECL
}

/// How deep schemas are followed: some built-in types hold themselves.
const DEPTH: usize = 16;

/// The type of an object of a kind.
pub(super) fn of_kind(kind: &str, schema: &Schema) -> Type {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let meta = builtin_types().find(|(name, _)| *name == META);
    let meta = meta.map(|(_, schema)| schema);
    match of_schema(kind, schema, DEPTH) {
        Type::Object(declared) => {
            let mut fields = BTreeMap::new();
            for (name, known) in &declared.fields {
                fields.insert(name.clone(), known.clone());
            }
            for name in ["apiVersion", "kind"] {
                fields.insert(name.to_owned(), field(name, text()));
            }
            if let Some(meta) = meta {
                let ty = of_schema(&format!("{kind}.metadata"), meta, DEPTH);
                fields.insert("metadata".to_owned(), field("metadata", Decl::of(ty)));
            }
            Type::Object(Arc::new(Object {
                name: declared.name.clone(),
                fields,
                open: declared.open,
            }))
        }
        other => other,
    }
}

fn of_schema(name: &str, schema: &Schema, depth: usize) -> Type {
    if depth == 0 || schema.any_scalar {
        return Type::Dyn;
    }
    match schema.kind {
        Kind::Object if !schema.properties.is_empty() => {
            let mut fields = BTreeMap::new();
            for (property, link) in &schema.properties {
                let Some(escaped) = escape(property) else {
                    continue;
                };
                let ty = of_schema(&format!("{name}.{property}"), link.get(), depth - 1);
                fields.insert(escaped, field(property, Decl::of(ty)));
            }
            Type::Object(Arc::new(Object {
                name: name.to_owned(),
                fields,
                open: schema.preserve_unknown,
            }))
        }
        Kind::Object => match &schema.additional {
            Some(values) => {
                let values = of_schema(&format!("{name}.@elem"), values.get(), depth - 1);
                Type::map(Type::String, values)
            }
            None => Type::Dyn,
        },
        Kind::Array => {
            let items = schema.item();
            let items = items.map(|i| of_schema(&format!("{name}.@idx"), i, depth - 1));
            Type::list(items.unwrap_or_default())
        }
        Kind::String => match schema.format.as_deref() {
            Some("date-time" | "date") => Type::Timestamp,
            Some("byte") => Type::Bytes,
            Some("duration") => Type::Duration,
            Some("int-or-string") => Type::Dyn,
            _ => Type::String,
        },
        Kind::Integer => Type::Int,
        Kind::Number => Type::Double,
        Kind::Boolean => Type::Bool,
        Kind::IntOrString | Kind::Any => Type::Dyn,
    }
}
