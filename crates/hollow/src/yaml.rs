//! YAML with places: a tree that knows line and column of everything in it, and readers of it that
//! collect all mistakes of a text instead of ending at the first.

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, Spanned};
use std::{cell::RefCell, fmt};

/// What is wrong in a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1 on.
    pub line: u64,
    /// From 1 on.
    pub column: u64,
    /// The field, such as `nodes[0].count`; empty where the text is no YAML at all.
    pub path: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// A value and its place.
pub type Yaml = Spanned<Value>;

/// A value. Scalars are kept as they read; whether they were quoted makes no difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A word or a number.
    Word(String),
    /// A list.
    List(Vec<Yaml>),
    /// A map, in order.
    Map(Vec<(Spanned<String>, Yaml)>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word, a number, a list or a map")
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(Value::Word(it.to_string()))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(Value::Word(it.to_string()))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(Value::Word(it.to_string()))
    }

    fn visit_f64<E>(self, it: f64) -> Result<Value, E> {
        Ok(Value::Word(it.to_string()))
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(Value::Word(it.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = vec![];
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields: Vec<(Spanned<String>, Yaml)> = vec![];
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Yaml>()? {
            if fields.iter().any(|(it, _)| it.value == key.value) {
                return Err(A::Error::custom(format!("{} is given twice", key.value)));
            }
            fields.push((key, value));
        }
        Ok(Value::Map(fields))
    }
}

/// Reads a text.
///
/// # Errors
/// When it is no YAML.
pub fn parse(text: &str) -> Result<Yaml, Mistake> {
    serde_saphyr::from_str(text).map_err(|error| {
        let at = error.location();
        let told = error.without_snippet().to_string();
        Mistake {
            line: at.map_or(1, |it| it.line()),
            column: at.map_or(1, |it| it.column()),
            path: String::new(),
            reason: told.lines().next().unwrap_or_default().to_owned(),
        }
    })
}

/// What goes wrong in the reading of one text.
#[derive(Debug, Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    /// All of them, in the order of the text.
    pub fn into_list(self) -> Vec<Mistake> {
        let mut all = self.0.into_inner();
        all.sort_by_key(|it| (it.line, it.column));
        all
    }

    fn add(&self, at: Location, path: &str, reason: String) {
        self.0.borrow_mut().push(Mistake {
            line: at.line(),
            column: at.column(),
            path: path.to_owned(),
            reason,
        });
    }
}

/// A value with its path, to be read.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    yaml: &'a Yaml,
    path: String,
    mistakes: &'a Mistakes,
}

impl<'a> Field<'a> {
    /// The whole text.
    pub fn root(yaml: &'a Yaml, mistakes: &'a Mistakes) -> Self {
        Self {
            yaml,
            path: String::new(),
            mistakes,
        }
    }

    /// The same field as the root of its own, whose mistakes go elsewhere.
    pub fn told_to<'b>(&self, mistakes: &'b Mistakes) -> Field<'b>
    where
        'a: 'b,
    {
        Field {
            yaml: self.yaml,
            path: String::new(),
            mistakes,
        }
    }

    /// Something is wrong with it.
    pub fn wrong(&self, reason: impl Into<String>) {
        self.mistakes
            .add(self.yaml.referenced, &self.path, reason.into());
    }

    /// Its word or number; what is none is a mistake.
    pub fn word(&self) -> Option<&'a str> {
        match &self.yaml.value {
            Value::Word(word) => Some(word),
            other => {
                self.wrong(format!("want a word or a number, found {}", kind(other)));
                None
            }
        }
    }

    /// Its word, read further; what that refuses is a mistake.
    pub fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match read(self.word()?) {
            Ok(it) => Some(it),
            Err(reason) => {
                self.wrong(reason);
                None
            }
        }
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.yaml.value, Value::List(_))
    }

    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        matches!(self.yaml.value, Value::Map(_))
    }

    /// The items of a list; what is none is a mistake.
    pub fn list(&self) -> Vec<Field<'a>> {
        match &self.yaml.value {
            Value::List(list) => (0..)
                .zip(list)
                .map(|(index, yaml)| Field {
                    yaml,
                    path: format!("{}[{index}]", self.path),
                    mistakes: self.mistakes,
                })
                .collect(),
            Value::Null => vec![],
            other => {
                self.wrong(format!("want a list, found {}", kind(other)));
                vec![]
            }
        }
    }

    /// The fields of a map, whatever their names; what is none is a mistake.
    pub fn entries(&self) -> Vec<(&'a str, Field<'a>)> {
        match &self.yaml.value {
            Value::Map(fields) => fields
                .iter()
                .map(|(key, yaml)| (key.value.as_str(), self.at(&key.value, yaml)))
                .collect(),
            Value::Null => vec![],
            other => {
                self.wrong(format!("want a map, found {}", kind(other)));
                vec![]
            }
        }
    }

    /// The fields of a map, of these names; any other is a mistake.
    pub fn map(&self, known: &[&str]) -> Map<'a> {
        if let Value::Map(fields) = &self.yaml.value {
            for (key, yaml) in fields
                .iter()
                .filter(|(key, _)| !known.contains(&&*key.value))
            {
                let place = match key.referenced.line() {
                    0 => yaml.referenced,
                    _ => key.referenced,
                };
                self.mistakes.add(
                    place,
                    &self.child(&key.value),
                    unknown("field", &key.value, known),
                );
            }
        }
        Map {
            fields: self.entries(),
            whole: self.clone(),
        }
    }

    /// The fields of a map, whatever their names, without a word about any.
    pub fn quiet(&self) -> Map<'a> {
        Map {
            fields: match self.is_map() {
                true => self.entries(),
                false => vec![],
            },
            whole: self.clone(),
        }
    }

    /// The names of the fields of a map.
    pub fn quiet_names(&self) -> Vec<&'a str> {
        match &self.yaml.value {
            Value::Map(fields) => fields.iter().map(|(key, _)| key.value.as_str()).collect(),
            _ => vec![],
        }
    }

    fn child(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    fn at(&self, name: &str, yaml: &'a Yaml) -> Field<'a> {
        Field {
            yaml,
            path: self.child(name),
            mistakes: self.mistakes,
        }
    }
}

/// A map, to be read.
#[derive(Clone, Debug)]
pub struct Map<'a> {
    fields: Vec<(&'a str, Field<'a>)>,
    whole: Field<'a>,
}

impl<'a> Map<'a> {
    /// A field, if it is there and not null.
    pub fn get(&self, name: &str) -> Option<&Field<'a>> {
        let (_, field) = self.fields.iter().find(|(key, _)| *key == name)?;
        (field.yaml.value != Value::Null).then_some(field)
    }

    /// A field; its absence is a mistake.
    pub fn need(&self, name: &str, why: &str) -> Option<&Field<'a>> {
        let found = self.get(name);
        if found.is_none() {
            self.whole.wrong(format!("{name} is missing: {why}"));
        }
        found
    }

    /// A word that is read further.
    pub fn read<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.get(name)?.read(read)
    }

    /// Something is wrong with the map as a whole.
    pub fn wrong(&self, reason: impl Into<String>) {
        self.whole.wrong(reason);
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Word(_) => "a word",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

/// The sentence about a name that is none of the known ones.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|it| (distance(&it.to_lowercase(), &name.to_lowercase()), it))
        .filter(|(distance, _)| *distance <= 1 + name.len() / 4)
        .min();
    match near {
        Some((_, near)) => format!("there is no such {what}; did you mean {near}?"),
        None => format!("there is no such {what}; known: {}", known.join(", ")),
    }
}

/// Letters to be put in, left out, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, read: impl FnOnce(&Field<'_>)) -> Vec<String> {
        let (yaml, mistakes) = (parse(text).unwrap(), Mistakes::default());
        read(&Field::root(&yaml, &mistakes));
        mistakes
            .into_list()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn mistakes_have_line_column_path_and_a_guess() {
        let text = "nodes:\n  - conut: 3\n    zone: [a]\n  - 5\nspeed: fast\n";
        let all = told(text, |root| {
            let top = root.map(&["nodes", "speed"]);
            for node in top.get("nodes").unwrap().list() {
                let node = node.map(&["count", "zone"]);
                node.read("zone", |it| Ok(it.to_owned()));
            }
            top.read("speed", |_| Err::<(), _>("no number".to_owned()));
        });
        assert_eq!(
            all,
            [
                "2:5: nodes[0].conut: there is no such field; did you mean count?",
                "3:11: nodes[0].zone: want a word or a number, found a list",
                "4:5: nodes[1]: want a map, found a word",
                "5:8: speed: no number",
            ]
        );
    }

    #[test]
    fn what_is_no_yaml_has_a_place_too() {
        let mistake = parse("a: 1\nb: [\n").unwrap_err();
        assert!(mistake.line >= 2, "{mistake}");
        let twice = parse("a: 1\na: 2\n").unwrap_err();
        assert_eq!(twice.line, 2, "{twice}");
    }

    #[test]
    fn guesses_are_near() {
        let known = ["kubeletVersion", "count", "cpu"];
        for (name, guess) in [
            ("kubeletversion", "kubeletVersion"),
            ("kublet_version", "kubeletVersion"),
            ("cuont", "count"),
            ("cput", "cpu"),
        ] {
            let told = unknown("field", name, &known);
            assert!(told.ends_with(&format!("did you mean {guess}?")), "{told}");
        }
        assert!(unknown("field", "whatever", &known).contains("known: kubeletVersion"));
    }
}
