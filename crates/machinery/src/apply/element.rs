//! One step of a path into an object, and its text in `fieldsV1`.

use std::{cmp::Ordering, fmt};

use serde_json::Value;

/// A step from a value to one inside it.
#[derive(Debug, Clone)]
pub enum PathElement {
    /// A member of an object: `f:name`.
    Field(Box<str>),
    /// An item of a list whose items are told apart by keys, sorted by name: `k:{"name":"a"}`.
    Key(Vec<(Box<str>, Value)>),
    /// An item of a set: `v:"a"`.
    Value(Value),
    /// An item by its place: `i:0`. Read from old records, never written for a list that merges.
    Index(i64),
}

impl PathElement {
    pub fn field(name: &str) -> Self {
        PathElement::Field(name.into())
    }

    /// The element as a member name of `fieldsV1`.
    pub fn encode(&self) -> String {
        match self {
            PathElement::Field(name) => {
                let mut text = String::with_capacity(name.len() + 2);
                text.push_str("f:");
                text.push_str(name);
                text
            }
            PathElement::Key(keys) => {
                let mut text = String::from("k:{");
                for (i, (name, value)) in keys.iter().enumerate() {
                    if i > 0 {
                        text.push(',');
                    }
                    text.push('"');
                    text.push_str(name);
                    text.push_str("\":");
                    push_json(&mut text, value);
                }
                text.push('}');
                text
            }
            PathElement::Value(value) => {
                let mut text = String::from("v:");
                push_json(&mut text, value);
                text
            }
            PathElement::Index(index) => format!("i:{index}"),
        }
    }

    /// The inverse of [`PathElement::encode`].
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn decode(text: &str) -> Result<Self, String> {
        let Some((kind, rest)) = text.split_at_checked(2) else {
            return Err("key must be 2 characters long:".to_owned());
        };
        match kind {
            "f:" => Ok(PathElement::Field(rest.into())),
            "v:" => serde_json::from_str(rest)
                .map(PathElement::Value)
                .map_err(|e| e.to_string()),
            "k:" => match serde_json::from_str(rest) {
                Ok(Value::Object(members)) => {
                    let mut keys: Vec<(Box<str>, Value)> = members
                        .into_iter()
                        .map(|(k, v)| (k.into_boxed_str(), v))
                        .collect();
                    keys.sort_by(|a, b| a.0.cmp(&b.0));
                    Ok(PathElement::Key(keys))
                }
                Ok(_) => Err(format!("expected an object: {text}")),
                Err(e) => Err(e.to_string()),
            },
            "i:" => rest
                .parse()
                .map(PathElement::Index)
                .map_err(|e| format!("{e}: {text}")),
            _ if kind.ends_with(':') => Err("unknown path element type".to_owned()),
            _ => Err(format!("missing colon: {text}")),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            PathElement::Field(_) => 0,
            PathElement::Key(_) => 1,
            PathElement::Value(_) => 2,
            PathElement::Index(_) => 3,
        }
    }
}

/// Go's JSON encoder escapes the characters that HTML gives a meaning.
fn push_json(text: &mut String, value: &Value) {
    let json = value.to_string();
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        text.push_str(&json);
        return;
    }
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => text.push(c),
        }
    }
}

/// An order over scalars, in which `1` and `1.0` are one value.
fn compare(a: &Value, b: &Value) -> Ordering {
    fn rank(v: &Value) -> u8 {
        match v {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => {
                let number = |n: &serde_json::Number| n.as_f64().unwrap_or_default();
                number(x).total_cmp(&number(y))
            }
        },
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            a.to_string().cmp(&b.to_string())
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Fields, then keys, then values, then indices: the order of `structured-merge-diff`.
impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (PathElement::Field(a), PathElement::Field(b)) => a.cmp(b),
            (PathElement::Key(a), PathElement::Key(b)) => {
                for ((name_a, a), (name_b, b)) in a.iter().zip(b) {
                    let order = name_a.cmp(name_b).then_with(|| compare(a, b));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            (PathElement::Value(a), PathElement::Value(b)) => compare(a, b),
            (PathElement::Index(a), PathElement::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PathElement {}

/// As conflicts name it: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(keys) => {
                f.write_str("[")?;
                for (i, (name, value)) in keys.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            PathElement::Value(value) => write!(f, "[={value}]"),
            PathElement::Index(index) => write!(f, "[{index}]"),
        }
    }
}
