//! Values: JSON is read where it stands, and only what an expression makes itself is built.

use std::{borrow::Cow, collections::BTreeMap, fmt, rc::Rc, sync::Arc};

use serde_json::{Map as JsonMap, Value as Json};

use super::{
    authorizer::Check,
    error::Fault,
    format::Format,
    net::{Cidr, Ip, Url},
    semver::Semver,
    time,
    types::{Decl, Field, ListKind, Text, Type},
};
use crate::quantity::Quantity;

/// A value; `'a` is the life of the JSON and of the declared types.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Cow<'a, str>),
    Bytes(Rc<[u8]>),
    /// In nanoseconds.
    Duration(i64),
    Timestamp(jiff::Timestamp),
    /// A JSON array with what is declared of it.
    Array(&'a [Json], &'a Decl),
    /// A JSON object with what is declared of it: fields or entries.
    Object(&'a JsonMap<String, Json>, &'a Decl),
    List(Rc<Vec<Value<'a>>>),
    Map(Rc<BTreeMap<Key, Value<'a>>>),
    /// A structure that an expression made (`Object{…}`).
    Struct(Rc<str>, Rc<BTreeMap<String, Value<'a>>>),
    Type(Rc<str>),
    Optional(Option<Rc<Value<'a>>>),
    Quantity(Quantity),
    Ip(Ip),
    Cidr(Cidr),
    Url(Rc<Url>),
    Semver(Rc<Semver>),
    Format(Format),
    /// A step on the way to a decision of the authorizer.
    Check(Rc<Check<'a>>),
    /// Variables that are evaluated when they are read.
    Lazy(&'a dyn Lazy<'a>),
}

/// A bundle of variables, each evaluated when it is first read (`variables.name`).
pub trait Lazy<'a>: fmt::Debug {
    /// # Errors
    /// Why the variable has no value; `None` when there is no such variable.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Fault>>;

    /// Whether `name in` it holds; what is given for any name can tell what is really there.
    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// A key of a map. Whole numbers are one kind, so that `1` and `1u` are one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Number(i128),
    String(String),
}

impl Key {
    pub fn of(value: &Value<'_>) -> Option<Key> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(n) => Key::Number(i128::from(*n)),
            Value::Uint(n) => Key::Number(i128::from(*n)),
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 1e18 => Key::Number(*d as i128),
            Value::String(s) => Key::String(s.to_string()),
            _ => return None,
        })
    }

    pub fn value<'a>(&self) -> Value<'a> {
        match self {
            Key::Bool(b) => Value::Bool(*b),
            Key::Number(n) => match i64::try_from(*n) {
                Ok(n) => Value::Int(n),
                Err(_) => Value::Uint(u64::try_from(*n).unwrap_or(u64::MAX)),
            },
            Key::String(s) => Value::String(Cow::Owned(s.clone())),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Bool(b) => write!(f, "{b}"),
            Key::Number(n) => write!(f, "{n}"),
            Key::String(s) => f.write_str(s),
        }
    }
}

impl<'a> Value<'a> {
    pub fn text(text: impl Into<String>) -> Value<'a> {
        Value::String(Cow::Owned(text.into()))
    }

    /// A version by semver 2.0, if the text is one.
    pub fn version(text: &str) -> Option<Value<'a>> {
        let version = super::semver::parse(text, false).ok()?;
        Some(Value::Semver(Rc::new(version)))
    }

    /// A map with text for keys.
    pub fn map(entries: impl IntoIterator<Item = (String, Value<'a>)>) -> Value<'a> {
        let keyed = entries
            .into_iter()
            .map(|(key, value)| (Key::String(key), value));
        Value::Map(Rc::new(keyed.collect()))
    }

    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(Rc::new(items))
    }

    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Rc::new(value)))
    }

    /// A JSON value as its declared type says.
    ///
    /// # Errors
    /// Text that is not of its declared format.
    pub fn of(json: &'a Json, decl: &'a Decl) -> Result<Value<'a>, Fault> {
        Ok(match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match (&decl.ty, n.as_i64()) {
                (Type::Double, _) => Value::Double(n.as_f64().unwrap_or_default()),
                (_, Some(n)) => Value::Int(n),
                (_, None) => {
                    let d = n.as_f64().unwrap_or_default();
                    // `1.0` is an integer where one is declared.
                    if decl.ty == Type::Int && d.fract() == 0.0 {
                        Value::Int(d as i64)
                    } else {
                        Value::Double(d)
                    }
                }
            },
            Json::String(s) => match decl.text {
                Text::Plain => Value::String(Cow::Borrowed(s)),
                Text::Bytes => {
                    use base64::Engine as _;
                    let bytes = base64::engine::general_purpose::STANDARD
                        .decode(s)
                        .map_err(|e| Fault::new(format!("invalid byte value '{s}': {e}")))?;
                    Value::Bytes(bytes.into())
                }
                Text::Duration => Value::Duration(
                    time::parse_duration(s)
                        .ok_or_else(|| Fault::new(format!("invalid duration value '{s}'")))?,
                ),
                Text::Date => {
                    Value::Timestamp(time::parse_timestamp(&format!("{s}T00:00:00Z")).ok_or_else(
                        || Fault::new(format!("invalid date formatted string '{s}'")),
                    )?)
                }
                Text::DateTime => Value::Timestamp(
                    time::parse_timestamp(s)
                        .ok_or_else(|| Fault::new(format!("invalid date-time value '{s}'")))?,
                ),
            },
            Json::Array(items) => Value::Array(items, decl),
            Json::Object(members) => Value::Object(members, decl),
        })
    }

    /// The items of a list as values.
    ///
    /// # Errors
    /// No list, or an item that is not of its declared format.
    pub fn items(&self) -> Result<Cow<'_, [Value<'a>]>, Fault> {
        match self {
            Value::List(items) => Ok(Cow::Borrowed(items)),
            Value::Array(items, decl) => {
                let of = item_decl(decl);
                let all: Result<Vec<_>, _> = items.iter().map(|i| Value::of(i, of)).collect();
                Ok(Cow::Owned(all?))
            }
            _ => Err(Fault::no_overload()),
        }
    }

    /// Items of a list, entries of a map, characters of text, bytes.
    pub fn size(&self) -> Option<usize> {
        Some(match self {
            Value::String(s) => s.chars().count(),
            Value::Bytes(b) => b.len(),
            Value::Array(items, _) => items.len(),
            Value::List(items) => items.len(),
            Value::Object(members, _) => members.len(),
            Value::Map(entries) => entries.len(),
            _ => return None,
        })
    }

    /// What a cost counts of a value: bytes of text, items, and one of all else.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Value::String(s) => s.len() as u64,
            other => other.size().unwrap_or(1) as u64,
        }
    }

    /// The keys of a map or the fields that an object has.
    pub fn keys(&self) -> Option<Vec<Value<'a>>> {
        Some(match self {
            Value::Map(entries) => entries.keys().map(Key::value).collect(),
            Value::Object(members, _) => members
                .keys()
                .map(|k| Value::String(Cow::Borrowed(k.as_str())))
                .collect(),
            _ => return None,
        })
    }

    /// A field or entry by name: `None` when it is not there.
    ///
    /// # Errors
    /// No fields at all, or a value that is not of its declared format.
    pub fn field(&self, name: &str) -> Result<Option<Value<'a>>, Fault> {
        match self {
            Value::Object(members, decl) => {
                let (json, decl) = match (&decl.ty, decl.field(name)) {
                    (_, Some(Field { json, decl })) => (&**json, &**decl),
                    (Type::Object(object), None) if !object.open => return Ok(None),
                    _ => (name, decl.items.as_deref().unwrap_or_else(|| Decl::any())),
                };
                let found = members.get(json);
                found.map(|value| Value::of(value, decl)).transpose()
            }
            Value::Map(entries) => Ok(entries.get(&Key::String(name.to_owned())).cloned()),
            Value::Struct(_, fields) => Ok(fields.get(name).cloned()),
            Value::Optional(None) => Ok(None),
            Value::Optional(Some(inner)) => inner.field(name),
            Value::Lazy(lazy) => lazy.get(name).transpose(),
            Value::Array(..) | Value::List(_) => Err(Fault::no_overload()),
            // As in cel-go, whatever is neither map nor list has no keys; null among them.
            _ => Ok(None),
        }
    }

    /// An entry of a map or an item of a list: `None` when it is not there.
    ///
    /// # Errors
    /// Neither map nor list, or a key that can be none.
    pub fn index(&self, key: &Value<'a>) -> Result<Option<Value<'a>>, Fault> {
        match self {
            Value::Map(entries) => {
                let key = Key::of(key).ok_or_else(Fault::no_overload)?;
                Ok(entries.get(&key).cloned())
            }
            Value::Object(..) | Value::Lazy(_) => match key {
                Value::String(name) => self.field(name),
                _ => Ok(None),
            },
            Value::Array(..) | Value::List(_) => {
                let at = match key {
                    Value::Int(n) => *n,
                    Value::Uint(n) => i64::try_from(*n).unwrap_or(i64::MAX),
                    Value::Double(d) if d.fract() == 0.0 => *d as i64,
                    _ => {
                        return Err(Fault::new(format!(
                            "unsupported index type '{}' in list",
                            key.type_name()
                        )));
                    }
                };
                let Ok(at) = usize::try_from(at) else {
                    return Ok(None);
                };
                match self {
                    Value::Array(items, decl) => items
                        .get(at)
                        .map(|json| Value::of(json, item_decl(decl)))
                        .transpose(),
                    Value::List(items) => Ok(items.get(at).cloned()),
                    _ => Ok(None),
                }
            }
            Value::Optional(None) => Ok(None),
            Value::Optional(Some(inner)) => inner.index(key),
            _ => Err(Fault::no_overload()),
        }
    }

    pub fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Array(..) | Value::List(_) => "list",
            Value::Object(_, decl) => match &decl.ty {
                Type::Object(object) => &object.name,
                _ => "map",
            },
            Value::Map(_) | Value::Lazy(_) => "map",
            Value::Struct(name, _) => name,
            Value::Type(_) => "type",
            Value::Optional(_) => "optional_type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Ip(_) => "net.IP",
            Value::Cidr(_) => "net.CIDR",
            Value::Url(_) => "kubernetes.URL",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Check(check) => check.type_name(),
        }
    }

    /// Whether it is what its type is when nothing is set.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Int(n) => *n == 0,
            Value::Uint(n) => *n == 0,
            Value::Double(d) => *d == 0.0,
            Value::Duration(d) => *d == 0,
            Value::Optional(inner) => inner.is_none(),
            other => other.size() == Some(0),
        }
    }

    /// As JSON, where the value has a form in it.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::from(*n),
            Value::Uint(n) => Json::from(*n),
            Value::Double(d) => Json::from(*d),
            Value::String(s) => Json::from(s.as_ref()),
            Value::Bytes(b) => {
                use base64::Engine as _;
                Json::from(base64::engine::general_purpose::STANDARD.encode(b))
            }
            Value::Duration(d) => Json::from(time::show_duration(*d)),
            Value::Timestamp(t) => Json::from(time::show_timestamp(*t)),
            Value::Array(items, _) => Json::Array(items.to_vec()),
            Value::Object(members, _) => Json::Object((*members).clone()),
            Value::List(items) => {
                let all: Option<Vec<Json>> = items.iter().map(Value::to_json).collect();
                Json::Array(all?)
            }
            Value::Map(entries) => {
                let all: Option<JsonMap<String, Json>> = entries
                    .iter()
                    .map(|(k, v)| Some((k.to_string(), v.to_json()?)))
                    .collect();
                Json::Object(all?)
            }
            Value::Struct(_, fields) => {
                let all: Option<JsonMap<String, Json>> = fields
                    .iter()
                    .map(|(k, v)| Some((k.clone(), v.to_json()?)))
                    .collect();
                Json::Object(all?)
            }
            Value::Quantity(q) => Json::from(q.to_string()),
            Value::Ip(ip) => Json::from(ip.to_string()),
            Value::Cidr(cidr) => Json::from(cidr.to_string()),
            Value::Optional(Some(inner)) => inner.to_json()?,
            _ => return None,
        })
    }
}

pub(super) fn item_decl(decl: &Decl) -> &Decl {
    decl.items.as_deref().unwrap_or_else(|| Decl::any())
}

/// Equality as CEL has it: numbers by value whatever their type, maps without order, and lists
/// that are sets or maps without order.
pub(super) fn equal<'v>(a: &Value<'v>, b: &Value<'v>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::Quantity(a), Value::Quantity(b)) => a.cmp(b).is_eq(),
        (Value::Ip(a), Value::Ip(b)) => a == b,
        (Value::Cidr(a), Value::Cidr(b)) => a == b,
        (Value::Url(a), Value::Url(b)) => a == b,
        (Value::Semver(a), Value::Semver(b)) => a == b,
        (Value::Format(a), Value::Format(b)) => a == b,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => equal(a, b),
            _ => false,
        },
        (Value::Array(x, xd), Value::Array(y, _)) if std::ptr::eq(*x, *y) && !nan(xd) => true,
        (Value::Array(..) | Value::List(_), Value::Array(..) | Value::List(_)) => {
            let (Ok(x), Ok(y)) = (a.items(), b.items()) else {
                return false;
            };
            x.len() == y.len() && lists_equal(list_kind(a, b), &x, &y)
        }
        (Value::Struct(n, x), Value::Struct(m, y)) => {
            n == m
                && x.len() == y.len()
                && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w)))
        }
        (Value::Object(..) | Value::Map(_), Value::Object(..) | Value::Map(_)) => {
            if a.size() != b.size() {
                return false;
            }
            a.keys().is_some_and(|keys| {
                keys.iter().all(|key| {
                    let sides = (entry(a, key), entry(b, key));
                    matches!(sides, (Some(x), Some(y)) if equal(&x, &y))
                })
            })
        }
        _ => super::number::compare(a, b).is_some_and(std::cmp::Ordering::is_eq),
    }
}

/// Whether items may differ from themselves, as numbers that are none do.
fn nan(decl: &Decl) -> bool {
    matches!(item_decl(decl).ty, Type::Double | Type::Dyn)
}

/// An entry by its own key: the JSON name, where fields are declared under escaped ones.
fn entry<'a>(of: &Value<'a>, key: &Value<'a>) -> Option<Value<'a>> {
    if let (Value::Object(members, decl), Value::String(name)) = (of, key)
        && let Type::Object(object) = &decl.ty
    {
        let json = members.get(name.as_ref())?;
        let field = object.fields.values().find(|f| *f.json == **name);
        let decl: &Decl = match field {
            Some(field) => &field.decl,
            None => Decl::any(),
        };
        return Value::of(json, decl).ok();
    }
    of.index(key).ok().flatten()
}

pub(super) fn list_kind<'v>(a: &Value<'v>, b: &Value<'v>) -> &'v ListKind {
    match (a, b) {
        (Value::Array(_, decl), _) | (_, Value::Array(_, decl)) => &decl.list,
        _ => &ListKind::Atomic,
    }
}

fn lists_equal<'v>(kind: &ListKind, x: &[Value<'v>], y: &[Value<'v>]) -> bool {
    match kind {
        ListKind::Atomic => x.iter().zip(y).all(|(x, y)| equal(x, y)),
        ListKind::Set => x.iter().all(|x| y.iter().any(|y| equal(x, y))),
        ListKind::Map(keys) => x.iter().all(|x| {
            y.iter()
                .find(|y| same_keys(keys, x, y))
                .is_some_and(|y| equal(x, y))
        }),
    }
}

/// Whether two items of a list of type `map` have the same keys.
pub(super) fn same_keys(keys: &[String], x: &Value<'_>, y: &Value<'_>) -> bool {
    let key = |of: &Value<'_>, name: &str| -> Option<Json> {
        match of {
            Value::Object(members, _) => members.get(name).cloned(),
            other => other.field(name).ok().flatten()?.to_json(),
        }
    };
    keys.iter().all(|name| key(x, name) == key(y, name))
}

/// Text of a literal that lives as long as the program.
pub(super) fn borrowed<'a>(text: &'a Arc<str>) -> Value<'a> {
    Value::String(Cow::Borrowed(text))
}
