//! The JSON paths of printer columns: fields, list positions, wildcards and filters by
//! equality, as in `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

use crate::validation::value::at;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Filter {
        path: Vec<String>,
        equal: bool,
        value: Value,
    },
    Exists(Vec<String>),
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

impl JsonPath {
    /// `None` for a path that is not understood: its column stays empty.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let text = text.trim();
        let text = text
            .strip_prefix('{')
            .map_or(text, |t| t.trim_end_matches('}'));
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after)?;
                steps.push(bracket(after[..end].trim())?);
                rest = &after[end + 1..];
            } else {
                let after = rest.strip_prefix('.')?;
                let (name, remaining) = field(after);
                match name.as_str() {
                    "" if remaining.is_empty() => {}
                    "" => return None,
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Field(name)),
                }
                rest = remaining;
            }
        }
        Some(JsonPath { steps })
    }

    /// All values the path leads to, in order.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.steps {
            found = found.into_iter().flat_map(|v| step.apply(v)).collect();
        }
        found.retain(|v| !v.is_null());
        found
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let items = || value.as_array().map_or(&[][..], Vec::as_slice);
        match self {
            Step::Field(name) => value.get(name).into_iter().collect(),
            Step::Index(i) => {
                let len = items().len() as i64;
                let at = if *i < 0 { len + i } else { *i };
                usize::try_from(at)
                    .ok()
                    .and_then(|at| items().get(at))
                    .into_iter()
                    .collect()
            }
            Step::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Step::Filter { path, equal, value } => items()
                .iter()
                .filter(|item| (walk(item, path) == value) == *equal)
                .collect(),
            Step::Exists(path) => items()
                .iter()
                .filter(|item| !walk(item, path).is_null())
                .collect(),
        }
    }
}

fn walk<'a>(value: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(value, |v, name| at(v, name))
}

/// Where the bracket closes, quotes and inner brackets passed over.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A field name up to the next dot or bracket; `\.` is a dot inside a name.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[i..]),
            '\\' => {
                if let Some((_, next)) = chars.next() {
                    name.push(next);
                }
            }
            c => name.push(c),
        }
    }
    (name, "")
}

fn unquote(text: &str) -> Option<&str> {
    let inner = |q: char| text.strip_prefix(q)?.strip_suffix(q);
    inner('\'').or_else(|| inner('"'))
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquote(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Ok(index) = text.parse() {
        return Some(Step::Index(index));
    }
    let filter = text.strip_prefix("?(")?.strip_suffix(')')?.trim();
    let operator = ["==", "!="]
        .into_iter()
        .find_map(|op| filter.split_once(op).map(|(l, r)| (op, l, r)));
    let names = |path: &str| -> Option<Vec<String>> {
        let mut rest = path.trim().strip_prefix('@')?;
        let mut names = Vec::new();
        while let Some(after) = rest.strip_prefix('.') {
            let (name, remaining) = field(after);
            names.push(name);
            rest = remaining;
        }
        rest.is_empty().then_some(names)
    };
    let Some((operator, left, right)) = operator else {
        return names(filter).map(Step::Exists);
    };
    let right = right.trim();
    let value = match unquote(right) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Filter {
        path: names(left)?,
        equal: operator == "==",
        value,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({
            "spec": {"replicas": 3, "list": ["a", "b"], "k.x": 1},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Done", "status": "False"}]},
        });
        for (path, want) in [
            (".spec.replicas", json!([3])),
            ("{.spec.replicas}", json!([3])),
            (".spec.list[1]", json!(["b"])),
            (".spec.list[-1]", json!(["b"])),
            (".spec.list[*]", json!(["a", "b"])),
            (".spec['k.x']", json!([1])),
            (".spec.k\\.x", json!([1])),
            (".spec.nope.deeper", json!([])),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type!='Ready')].status",
                json!(["False"]),
            ),
        ] {
            let found = JsonPath::parse(path).expect(path);
            assert_eq!(json!(found.find(&object)), want, "{path}");
        }
        assert_eq!(JsonPath::parse("spec"), None);
    }
}
