//! What a strict reader says of a document: unknown fields, and fields given twice. A reader of JSON names
//! the place in the object, one of YAML the line.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Spanned;

use super::parse::{self, Format};

/// What was found, as the lines of warnings. `head`: so many of them are lines of one YAML error.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Complaints {
    lines: Vec<String>,
    head: usize,
}

impl Complaints {
    /// What is to be said of a body: the places of fields given twice, and of those that the type does not
    /// have. `typed`: the reader went along with a Go type, and complained as it came along.
    pub fn of(
        bytes: &[u8],
        format: Format,
        duplicates: &[String],
        unknown: &[String],
        typed: bool,
    ) -> Complaints {
        let mut all = Complaints::default();
        if format == Format::Yaml {
            if !duplicates.is_empty() {
                all.lines = yaml_lines(bytes);
                all.head = all.lines.len();
            }
            all.lines.extend(unknown.iter().map(|p| unknown_field(p)));
            return all;
        }
        all.lines = match typed && duplicates.len() + unknown.len() > 1 {
            true => in_order(duplicates, unknown, &parse::keys(bytes, format)),
            false => {
                let duplicates = duplicates.iter().map(|p| duplicate_field(p));
                duplicates
                    .chain(unknown.iter().map(|p| unknown_field(p)))
                    .collect()
            }
        };
        all
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// As one error.
    pub fn refusal(&self) -> String {
        let (head, rest) = self.lines.split_at(self.head);
        let head = match head {
            [] => None,
            lines => Some(yaml_error(lines)),
        };
        let all: Vec<&str> = head.iter().chain(rest).map(String::as_str).collect();
        format!("strict decoding error: {}", all.join(", "))
    }

    pub fn warnings(self) -> Vec<String> {
        self.lines
    }
}

fn unknown_field(path: &str) -> String {
    format!("unknown field \"{path}\"")
}

fn duplicate_field(path: &str) -> String {
    format!("duplicate field \"{path}\"")
}

/// The words of Go's YAML reader for these lines.
pub fn yaml_error(lines: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))
}

/// What a strict reader says of a JSON patch: of its own fields, not of what it makes of an object.
pub fn of_json_patch(bytes: &[u8]) -> Vec<String> {
    let Ok(parsed) = parse::parse_bytes(bytes, Format::Json) else {
        return vec![];
    };
    let keys = parse::keys(bytes, Format::Json);
    let mut unknown: Vec<String> = vec![];
    for path in &keys {
        // What is within the value is anything.
        let field = path.split_once("].").map(|(_, field)| field);
        let own = field.filter(|field| !field.contains(['.', '[']));
        let foreign = own.is_some_and(|own| !["op", "path", "from", "value"].contains(&own));
        if foreign && !unknown.contains(path) {
            unknown.push(path.clone());
        }
    }
    in_order(&parsed.duplicates, &unknown, &keys)
        .into_iter()
        .map(|complaint| format!("json patch {complaint}"))
        .collect()
}

/// What is said of fields that a patch gives twice.
pub fn of_duplicates(duplicates: &[String]) -> Vec<String> {
    duplicates.iter().map(|p| duplicate_field(p)).collect()
}

/// Complaints in the order in which a reader of the document comes to them: to an unknown field with
/// its first occurrence, to a duplicate with its second. What is unknown is not looked into, and not
/// looked for again.
fn in_order(duplicates: &[String], unknown: &[String], keys: &[String]) -> Vec<String> {
    let mut places: HashMap<&str, (usize, Option<usize>)> = HashMap::new();
    for (place, key) in keys.iter().enumerate() {
        let known = places.entry(key).or_insert((place, None));
        if known.0 != place {
            known.1.get_or_insert(place);
        }
    }
    let place = |path: &str| places.get(path).copied().unwrap_or((usize::MAX, None));
    let strange: HashSet<&str> = unknown.iter().map(String::as_str).collect();
    let passed_over = |path: &str| {
        let ends = path.match_indices(['.', '[']).map(|(at, _)| at);
        let mut within = ends.chain([path.len()]).map(|end| &path[..end]);
        within.any(|part| strange.contains(part))
    };
    let duplicates = duplicates
        .iter()
        .filter(|path| !passed_over(path))
        .map(|p| (place(p).1.unwrap_or(usize::MAX), duplicate_field(p)));
    let unknown = unknown.iter().map(|p| (place(p).0, unknown_field(p)));
    let mut all: Vec<(usize, String)> = duplicates.chain(unknown).collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, text)| text).collect()
}

/// What Go's strict YAML reader says of keys given twice: the lines of the later values, once it has read
/// them.
pub fn yaml_lines(bytes: &[u8]) -> Vec<String> {
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = serde_saphyr::options::DuplicateKeyPolicy::LastWins;
    options.with_snippet = false;
    let read = serde_saphyr::with_deserializer_from_slice_with_options(bytes, options, |source| {
        Tree::deserialize(source)
    });
    let mut lines = vec![];
    // It was read before: an error could only be that of the first time.
    if let Ok(tree) = read {
        tree.note(&mut lines);
    }
    lines
}

/// A document with its lines, as far as keys can be in it twice.
enum Tree {
    Leaf,
    List(Vec<Tree>),
    Map(Vec<(String, Spanned<Tree>)>),
}

impl Tree {
    fn note(&self, lines: &mut Vec<String>) {
        match self {
            Tree::Leaf => {}
            Tree::List(items) => items.iter().for_each(|item| item.note(lines)),
            Tree::Map(fields) => {
                let mut seen = HashSet::new();
                for (key, value) in fields {
                    value.value.note(lines);
                    if !seen.insert(key) {
                        let line = value.referenced.line();
                        lines.push(format!("line {line}: key {key:?} already set in map"));
                    }
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> de::Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<Tree, D::Error> {
        source.deserialize_any(self)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = vec![];
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut fields = vec![];
        while let Some(field) = entries.next_entry()? {
            fields.push(field);
        }
        Ok(Tree::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<const N: usize>(all: [&str; N]) -> Vec<String> {
        all.map(str::to_owned).to_vec()
    }

    #[test]
    fn complaints_come_in_the_order_of_the_document() {
        let duplicates = texts(["b", "d", "c.x", "c"]);
        let unknown = texts(["a", "c"]);
        let document = texts(["a", "b", "b", "c", "c.x", "c.x", "c", "d", "d"]);
        let expected = [
            "unknown field \"a\"",
            "duplicate field \"b\"",
            "unknown field \"c\"",
            "duplicate field \"d\"",
        ];
        assert_eq!(in_order(&duplicates, &unknown, &document), expected);
    }

    #[test]
    fn yaml_says_which_line_and_unknown_fields_after() {
        let text = b"a: 1\na: 2\nm:\n  x: 1\n  x: 2\nm:\n  x: 3\nl: [{y: 1,\n  y: 2}]\n";
        let lines = [
            "line 2: key \"a\" already set in map",
            "line 5: key \"x\" already set in map",
            "line 7: key \"m\" already set in map",
            "line 9: key \"y\" already set in map",
        ];
        assert_eq!(yaml_lines(text), lines);
        let duplicates = texts(["a", "m", "m.x", "l[0].y"]);
        let all = Complaints::of(text, Format::Yaml, &duplicates, &texts(["a"]), true);
        let refusal = format!(
            "strict decoding error: yaml: unmarshal errors:\n  {}, unknown field \"a\"",
            lines.join("\n  ")
        );
        assert_eq!(all.refusal(), refusal);
        assert_eq!(all.warnings().len(), 5);
    }

    #[test]
    fn a_json_patch_has_fields_of_its_own() {
        let text = br#"[
            {"op": "add", "path": "/a", "value": {"any": {"x": 1, "x": 2}}, "foo": "bar", "foo": 1},
            {"op": "add", "path": "/b", "path": "/c", "from": "/d"}
        ]"#;
        let expected = [
            "json patch duplicate field \"[0].value.any.x\"",
            "json patch unknown field \"[0].foo\"",
            "json patch duplicate field \"[1].path\"",
        ];
        assert_eq!(of_json_patch(text), expected);
        assert!(of_json_patch(b"[").is_empty());
    }
}
