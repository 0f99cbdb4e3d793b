//! The declared types of what these expressions are told of.

use std::sync::{Arc, LazyLock};

use crate::cel::{Decl, Field, Object, Type};

fn text() -> Decl {
    Decl::of(Type::String)
}

fn list(items: Decl) -> Decl {
    let ty = Type::list(items.ty.clone());
    Decl {
        items: Some(Arc::new(items)),
        ..Decl::of(ty)
    }
}

fn map(values: Decl) -> Decl {
    let ty = Type::map(Type::String, values.ty.clone());
    Decl {
        items: Some(Arc::new(values)),
        ..Decl::of(ty)
    }
}

fn object<const N: usize>(name: &str, fields: [(&str, Decl); N]) -> Decl {
    let fields = fields.into_iter().map(|(name, decl)| {
        let field = Field {
            json: name.into(),
            decl: Arc::new(decl),
        };
        (name.to_owned(), field)
    });
    Decl::of(Type::Object(Arc::new(Object {
        name: name.to_owned(),
        fields: fields.collect(),
        open: false,
    })))
}

/// The variable `request` of authorization.
pub(super) fn review() -> &'static Decl {
    static DECL: LazyLock<Decl> = LazyLock::new(|| {
        let selector = |name: &str| {
            let requirement = object(
                "kubernetes.SelectorRequirement",
                [
                    ("key", text()),
                    ("operator", text()),
                    ("values", list(text())),
                ],
            );
            let fields = [("rawSelector", text()), ("requirements", list(requirement))];
            object(name, fields)
        };
        let resource = object(
            "kubernetes.ResourceAttributes",
            [
                ("namespace", text()),
                ("verb", text()),
                ("group", text()),
                ("version", text()),
                ("resource", text()),
                ("subresource", text()),
                ("name", text()),
                (
                    "fieldSelector",
                    selector("kubernetes.FieldSelectorAttributes"),
                ),
                (
                    "labelSelector",
                    selector("kubernetes.LabelSelectorAttributes"),
                ),
            ],
        );
        let path = object(
            "kubernetes.NonResourceAttributes",
            [("path", text()), ("verb", text())],
        );
        object(
            "kubernetes.SubjectAccessReviewSpec",
            [
                ("resourceAttributes", resource),
                ("nonResourceAttributes", path),
                ("user", text()),
                ("groups", list(text())),
                ("extra", map(list(text()))),
                ("uid", text()),
            ],
        )
    });
    &DECL
}

/// The variable `claims`.
pub(super) fn claims() -> &'static Decl {
    static DECL: LazyLock<Decl> = LazyLock::new(|| map(Decl::default()));
    &DECL
}

/// The variable `user`.
pub(super) fn user() -> &'static Decl {
    static DECL: LazyLock<Decl> = LazyLock::new(|| {
        object(
            "kubernetes.UserInfo",
            [
                ("username", text()),
                ("uid", text()),
                ("groups", list(text())),
                ("extra", map(list(text()))),
            ],
        )
    });
    &DECL
}
