//! Label selectors: the query syntax (`a=1,b in (x,y),!c`) and the object form
//! (`metav1.LabelSelector`).
//!
//! Grammar, order of checks and messages are those of `k8s.io/apimachinery/pkg/labels`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::BuildHasher,
};

use serde_json::{Map, Value};

use super::{bad_request, syntax};
use crate::status::Failure;

/// Where labels are looked up: an object's `metadata.labels` in whatever form a caller keeps them.
pub trait LabelLookup {
    /// The value of a label, `None` where the object has no such label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl<T: LabelLookup + ?Sized> LabelLookup for &T {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

impl<T: LabelLookup> LabelLookup for Option<T> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|l| l.label(key))
    }
}

impl LabelLookup for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

/// The labels themselves (`metadata.labels`), not the object that has them.
impl LabelLookup for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl LabelLookup for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<S: BuildHasher> LabelLookup for HashMap<String, String, S> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equals,
    /// `==`: means the same as `=` and prints differently.
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One term of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without duplicates.
    pub values: Vec<String>,
}

/// A label selector: all terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Sorted by key.
    requirements: Vec<Requirement>,
    /// A missing `LabelSelector` selects no object, an empty one every object.
    nothing: bool,
}

impl Labels {
    /// Selects every object.
    pub fn everything() -> Self {
        Labels::default()
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Labels {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Reads the query syntax.
    ///
    /// # Errors
    /// 400 with Kubernetes' words, such as ``unable to parse requirement: found '1' expected: '('``.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut parser = Parser {
            tokens: scan(text),
            at: 0,
        };
        let mut requirements = parser.requirements().map_err(bad_request)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Labels {
            requirements,
            nothing: false,
        })
    }

    /// Reads a `metav1.LabelSelector`. `null` selects nothing, `{}` everything.
    ///
    /// # Errors
    /// 400 for an unknown operator, a bad key or value, or values that do not fit the operator.
    pub fn from_label_selector(selector: &Value) -> Result<Self, Failure> {
        if selector.is_null() {
            return Ok(Labels::nothing());
        }
        let mut requirements = Vec::new();
        let members = selector.get("matchLabels").and_then(Value::as_object);
        for (key, value) in members.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(requirement(key.clone(), Operator::Equals, vec![value])?);
        }
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or("");
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(bad_request(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            let values = expression
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect();
            requirements.push(requirement(text("key").to_owned(), operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Labels {
            requirements,
            nothing: false,
        })
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether every object is selected: the check can be left out.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether labels satisfy all terms.
    pub fn matches(&self, labels: impl LabelLookup) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|r| r.matches(labels.label(&r.key)))
    }
}

impl Requirement {
    /// Whether a label's value (`None`: the label is missing) satisfies the term.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let among = |v: &str| self.values.iter().any(|x| x == v);
        let compare = |better: fn(i64, i64) -> bool| {
            let bound = self.values.first().and_then(|v| v.parse().ok());
            match (value.and_then(|v| v.parse().ok()), bound) {
                (Some(value), Some(bound)) => better(value, bound),
                _ => false,
            }
        };
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(among),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(|a, b| a > b),
            Operator::LessThan => compare(|a, b| a < b),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = self.values.join(",");
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// The query syntax: what [`Labels::parse`] reads. A selector of nothing prints as empty text.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

/// A term whose key, operator and values fit together.
fn requirement(
    key: String,
    operator: Operator,
    mut values: Vec<String>,
) -> Result<Requirement, Failure> {
    values.sort();
    values.dedup();
    check(&key, operator, &values).map_err(bad_request)?;
    Ok(Requirement {
        key,
        operator,
        values,
    })
}

fn check(key: &str, operator: Operator, values: &[String]) -> Result<(), String> {
    let mut faults = Vec::new();
    let list = |values: &[String]| serde_json::to_string(values).unwrap_or_default();
    if let Some(fault) = key_fault("key", key) {
        faults.push(fault);
    }
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => faults.push(format!(
            "values: Invalid value: {}: for 'in', 'notin' operators, values set can't be empty",
            list(values)
        )),
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            faults.push(format!(
                "values: Invalid value: {}: exact-match compatibility requires one single value",
                list(values)
            ));
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => faults.push(format!(
            "values: Invalid value: {}: values set must be empty for exists and does not exist",
            list(values)
        )),
        Operator::GreaterThan | Operator::LessThan if values.len() != 1 => faults.push(format!(
            "values: Invalid value: {}: for 'Gt', 'Lt' operators, exactly one value is required",
            list(values)
        )),
        Operator::GreaterThan | Operator::LessThan => {
            for (i, value) in values.iter().enumerate() {
                if value.parse::<i64>().is_err() {
                    faults.push(format!(
                        "values[{i}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                    ));
                }
            }
        }
        _ => {}
    }
    for (i, value) in values.iter().enumerate() {
        let wrong = syntax::value_faults(value);
        if !wrong.is_empty() {
            faults.push(format!(
                "values[{i}][{key}]: Invalid value: {value:?}: {}",
                wrong.join("; ")
            ));
        }
    }
    match faults.len() {
        0 => Ok(()),
        1 => Err(faults.swap_remove(0)),
        _ => Err(format!("[{}]", faults.join(", "))),
    }
}

fn key_fault(path: &str, key: &str) -> Option<String> {
    let wrong = syntax::key_faults(key);
    (!wrong.is_empty()).then(|| format!("{path}: Invalid value: {key:?}: {}", wrong.join("; ")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Error,
    End,
    OpenPar,
    ClosedPar,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Less,
    In,
    NotEquals,
    NotIn,
    Identifier,
}

fn special(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::ClosedPar,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "(" => Token::OpenPar,
        _ => return None,
    })
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn scan(text: &str) -> Vec<(Token, String)> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let length = if is_special(first) {
            // The longest of the known symbols that starts here; `=` before any other.
            match rest.get(..2).filter(|two| special(two).is_some()) {
                Some(_) => 2,
                None => 1,
            }
        } else {
            rest.find(|c| is_special(c) || is_space(c))
                .unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(length);
        let token = match word {
            "in" => Token::In,
            "notin" => Token::NotIn,
            _ if is_special(first) => special(word).unwrap_or(Token::Error),
            _ => Token::Identifier,
        };
        tokens.push((token, word.to_owned()));
        rest = after.trim_start_matches(is_space);
    }
    tokens.push((Token::End, String::new()));
    tokens
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    fn peek_raw(&self) -> (Token, &str) {
        self.tokens
            .get(self.at)
            .map_or((Token::End, ""), |(t, s)| (*t, s))
    }

    /// Where a key or a value may stand, `in` and `notin` are ordinary words.
    fn peek(&self) -> (Token, &str) {
        match self.peek_raw() {
            (Token::In | Token::NotIn, word) => (Token::Identifier, word),
            other => other,
        }
    }

    fn take(&mut self) -> (Token, String) {
        let (token, word) = self.peek();
        let taken = (token, word.to_owned());
        self.at += 1;
        taken
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let term = self
                        .requirement()
                        .map_err(|e| format!("unable to parse requirement: {e}"))?;
                    all.push(term);
                    match self.take() {
                        (Token::End, _) => return Ok(all),
                        (Token::Comma, _) => {
                            let (next, word) = self.peek();
                            if !matches!(next, Token::Identifier | Token::Not) {
                                return Err(format!(
                                    "found '{word}', expected: identifier after ','"
                                ));
                            }
                        }
                        (_, word) => {
                            return Err(format!(
                                "found '{word}', expected: ',' or 'end of string'"
                            ));
                        }
                    }
                }
                (Token::End, _) => return Ok(all),
                (_, word) => {
                    return Err(format!(
                        "found '{word}', expected: !, identifier, or 'end of string'"
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut negated = false;
        let (mut token, mut key) = self.take();
        if token == Token::Not {
            negated = true;
            (token, key) = self.take();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        // The key stands at no path yet, which Kubernetes prints as `<nil>`.
        if let Some(fault) = key_fault("<nil>", &key) {
            return Err(fault);
        }
        let operator = match self.peek() {
            _ if negated => Operator::DoesNotExist,
            (Token::End | Token::Comma, _) => Operator::Exists,
            _ => self.operator()?,
        };
        let mut values = match operator {
            Operator::Exists | Operator::DoesNotExist => Vec::new(),
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        values.sort();
        values.dedup();
        check(&key, operator, &values)?;
        Ok(Requirement {
            key,
            operator,
            values,
        })
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let (token, word) = self.peek_raw();
        let operator = match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => {
                return Err(format!(
                    "found '{word}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        self.at += 1;
        Ok(operator)
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let (token, word) = self.take();
        if token != Token::OpenPar {
            return Err(format!("found '{word}' expected: '('"));
        }
        match self.peek() {
            (Token::Identifier | Token::Comma, _) => {
                let values = self.identifiers()?;
                let (token, word) = self.take();
                if token != Token::ClosedPar {
                    return Err(format!("found '{word}', expected: ')'"));
                }
                Ok(values)
            }
            (Token::ClosedPar, _) => {
                self.at += 1;
                Ok(Vec::new())
            }
            (_, word) => Err(format!("found '{word}', expected: ',', ')' or identifier")),
        }
    }

    /// `a,b`; a missing word between commas or at an end is the empty value.
    fn identifiers(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        loop {
            match self.take() {
                (Token::Identifier, word) => {
                    values.push(word);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::ClosedPar, _) => return Ok(values),
                        (_, word) => return Err(format!("found '{word}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.peek().0 {
                        Token::ClosedPar => {
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.at += 1;
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                (_, word) => return Err(format!("found '{word}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take() {
            (Token::Identifier, word) => Ok(word),
            (_, word) => Err(format!("found '{word}', expected: identifier")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn parses_and_prints() {
        for (text, printed) in [
            ("", ""),
            ("a=1", "a=1"),
            (" a in ( 1 , 9 ) , b ", "a in (1,9),b"),
            ("b,a", "a,b"),
            ("!a", "!a"),
            ("! a , b!=x", "!a,b!=x"),
            ("a==2", "a==2"),
            ("a=", "a="),
            ("a=,b", "a=,b"),
            ("n>5,m<3", "m<3,n>5"),
            ("x notin (b,a,b)", "x notin (a,b)"),
            ("x in (,a)", "x in (,a)"),
            ("in in (in)", "in in (in)"),
            ("a.b/c=d", "a.b/c=d"),
        ] {
            assert_eq!(Labels::parse(text).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn faults_have_kubernetes_words() {
        let name = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        for (text, message) in [
            ("bad key!=1", "unable to parse requirement: found 'key', expected: in, notin, =, ==, !=, gt, lt".to_owned()),
            ("n>x", "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer".to_owned()),
            ("a~1", format!("unable to parse requirement: <nil>: Invalid value: \"a~1\": {name}")),
            ("a in 1", "unable to parse requirement: found '1' expected: '('".to_owned()),
            ("a=b c", "found 'c', expected: ',' or 'end of string'".to_owned()),
            ("a in (1", "unable to parse requirement: found '', expected: ',' or ')'".to_owned()),
            ("a in ()", "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned()),
            (",a", "found ',', expected: !, identifier, or 'end of string'".to_owned()),
            ("a,", "found '', expected: identifier after ','".to_owned()),
            ("!", "unable to parse requirement: found '', expected: identifier".to_owned()),
        ] {
            let failure = Labels::parse(text).unwrap_err();
            assert_eq!((failure.code, failure.message), (400, message), "{text}");
        }
    }

    #[test]
    fn selects() {
        let labels = json!({"a": "1", "n": "7", "e": ""});
        for (text, expected) in [
            ("", true),
            ("a=1", true),
            ("a=2", false),
            ("a!=2", true),
            ("z!=2", true),
            ("z", false),
            ("!z", true),
            ("a in (1,2)", true),
            ("z notin (1)", true),
            ("n>6", true),
            ("n>7", false),
            ("n<8", true),
            ("a>x1", false),
            ("e=", true),
            ("z=", false),
            ("a=1,!e", false),
        ] {
            let Ok(selector) = Labels::parse(text) else {
                assert_eq!(text, "a>x1");
                continue;
            };
            assert_eq!(selector.matches(&labels), expected, "{text}");
        }
        assert!(!Labels::nothing().matches(&labels));
        assert!(Labels::parse("a=1").unwrap().matches(labels.as_object()));
        assert!(!Labels::parse("a=1").unwrap().matches(None::<&Value>));
    }

    #[test]
    fn object_form() {
        let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "b", "operator": "NotIn", "values": ["x"]}, {"key": "c", "operator": "Exists"}]});
        let selector = Labels::from_label_selector(&selector).unwrap();
        assert_eq!(selector.to_string(), "a=1,b notin (x),c");
        assert!(selector.matches(json!({"a": "1", "c": ""})));
        assert!(
            Labels::from_label_selector(&json!({}))
                .unwrap()
                .is_everything()
        );
        assert_eq!(
            Labels::from_label_selector(&Value::Null).unwrap(),
            Labels::nothing()
        );
        let failure = Labels::from_label_selector(
            &json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}),
        );
        assert_eq!(
            failure.unwrap_err().message,
            "\"Like\" is not a valid label selector operator"
        );
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(text in "[a-c=!<>(), ]{0,12}( in \\([ab,]{1,3}\\))?") {
            if let Ok(selector) = Labels::parse(&text) {
                let printed = selector.to_string();
                // A set of the empty value alone prints as `()`, which Kubernetes cannot read back.
                prop_assume!(!printed.contains("()"));
                prop_assert_eq!(Labels::parse(&printed).unwrap(), selector, "{}", printed);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = Labels::parse(&text);
        }
    }
}
