//! Types of expressions, and the declared types of the JSON values that they read.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock},
};

/// The type of an expression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Type {
    /// Known only when evaluated.
    #[default]
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    /// An object with known fields; two are the same when they have the same name.
    Object(Arc<Object>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type,
    /// Kubernetes' own: `kubernetes.Quantity`, `net.IP`, `kubernetes.authorization.Authorizer`, …
    Named(&'static str),
    /// Stands for any type in a signature; the same letter is the same type.
    Param(u8),
}

/// The fields of an object type, by the names that expressions use for them.
#[derive(Debug, Default)]
pub struct Object {
    pub name: String,
    pub fields: BTreeMap<String, Field>,
    /// Whether there may be fields beyond these, of any type.
    pub open: bool,
}

#[derive(Debug, Clone)]
pub struct Field {
    /// The field's name in JSON.
    pub json: Arc<str>,
    pub decl: Arc<Decl>,
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for Object {}

/// How a list compares and adds (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// How text in JSON is read (`format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Text {
    #[default]
    Plain,
    Bytes,
    Duration,
    Date,
    DateTime,
}

/// The declared type of a JSON value, with the bounds that cost estimates rest on.
#[derive(Debug, Default)]
pub struct Decl {
    pub ty: Type,
    /// Items, entries or bytes there can be at most.
    pub most: u64,
    /// Bytes that the least such value takes as JSON.
    pub least_bytes: u64,
    /// Items of a list, values of a map.
    pub items: Option<Arc<Decl>>,
    pub list: ListKind,
    pub text: Text,
}

impl Decl {
    pub fn of(ty: Type) -> Decl {
        Decl {
            ty,
            ..Decl::default()
        }
    }

    /// A value of which nothing is declared: taken as JSON tells.
    pub fn any() -> &'static Decl {
        static ANY: LazyLock<Decl> = LazyLock::new(Decl::default);
        &ANY
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.ty {
            Type::Object(object) => object.fields.get(name),
            _ => None,
        }
    }
}

impl Type {
    pub fn list(items: Type) -> Type {
        Type::List(Arc::new(items))
    }

    pub fn map(keys: Type, values: Type) -> Type {
        Type::Map(Arc::new(keys), Arc::new(values))
    }

    pub fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(inner))
    }

    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Param(_))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Dyn => "dyn",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "duration",
            Type::Timestamp => "timestamp",
            Type::Type => "type",
            Type::Named(name) => name,
            Type::Object(object) => &object.name,
            Type::List(items) => return write!(f, "list({items})"),
            Type::Map(keys, values) => return write!(f, "map({keys}, {values})"),
            Type::Optional(inner) => return write!(f, "optional_type({inner})"),
            Type::Param(letter) => return write!(f, "{}", char::from(*letter)),
        })
    }
}

/// Words of the language, which are no names.
pub const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name by which expressions reach a property, `None` where there is none: what CEL cannot
/// write is escaped, reserved words are wrapped.
pub fn escape(property: &str) -> Option<String> {
    if RESERVED.contains(&property) {
        return Some(format!("__{property}__"));
    }
    let mut chars = property.chars();
    let first = chars.next()?;
    let letter = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.' | '-' | '/');
    if !letter(first) || !chars.all(|c| letter(c) || c.is_ascii_digit()) {
        return None;
    }
    let mut out = String::with_capacity(property.len());
    let mut rest = property;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_escaped() {
        for (property, escaped) in [
            ("plain", Some("plain")),
            ("namespace", Some("__namespace__")),
            ("x-kubernetes-y", Some("x__dash__kubernetes__dash__y")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("redact__d", Some("redact__underscores__d")),
            ("1st", None),
            ("a b", None),
        ] {
            assert_eq!(escape(property).as_deref(), escaped, "{property}");
        }
    }
}
