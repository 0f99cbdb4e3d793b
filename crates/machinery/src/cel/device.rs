//! Selectors of devices (dynamic resource allocation): what they are checked against when they are written, and
//! evaluated in when devices are chosen.

use std::sync::{Arc, LazyLock};

use super::{Decl, Environment, Field, Issues, Object, Program, Type};

/// What one evaluation may cost.
pub const MOST_COST: u64 = 1_000_000;
/// Domains of a device, and names in a domain, at most.
const MOST: u64 = 32;

/// Reads a selector. Whether it says yes or no is not looked at.
///
/// # Errors
/// What is wrong with it.
pub fn compile(expression: &str) -> Result<Program, Issues> {
    let environment = Environment {
        variables: &[("device", DEVICE.ty.clone())],
        structures: None,
    };
    Program::compile(&environment, expression)
}

/// The variable that they read.
pub static DEVICE: LazyLock<Decl> = LazyLock::new(|| {
    let sized = |ty: Type, most: usize| Decl {
        most: most as u64,
        ..Decl::of(ty)
    };
    // Two levels: the domain, then the name.
    let facts = |leaf: Decl| {
        let inner = Decl {
            most: MOST,
            items: Some(Arc::new(leaf)),
            ..Decl::default()
        };
        let leaf_type = inner.items.as_ref().map(|d| d.ty.clone());
        let inner = Decl {
            ty: Type::map(Type::String, leaf_type.unwrap_or_default()),
            ..inner
        };
        Decl {
            ty: Type::map(Type::String, inner.ty.clone()),
            most: MOST,
            items: Some(Arc::new(inner)),
            ..Decl::default()
        }
    };
    let field = |name: &str, decl: Decl| {
        let field = Field {
            json: name.into(),
            decl: Arc::new(decl),
        };
        (name.to_owned(), field)
    };
    let fields = [
        field("driver", sized(Type::String, 63)),
        field("attributes", facts(sized(Type::Dyn, 64))),
        field(
            "capacity",
            facts(Decl::of(Type::Named("kubernetes.Quantity"))),
        ),
        field("allowMultipleAllocations", Decl::of(Type::Bool)),
    ];
    Decl::of(Type::Object(Arc::new(Object {
        name: "kubernetes.DRADevice".to_owned(),
        fields: fields.into_iter().collect(),
        open: false,
    })))
});
