//! The table of functions (`signatures.txt`), read once.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use super::types::Type;

/// One overload of a function.
#[derive(Debug)]
pub(super) struct Signature {
    /// The type of the target, for functions that are called on one.
    pub target: Option<Type>,
    pub args: Vec<Type>,
    pub result: Type,
}

/// Kubernetes' types under their short names in the table.
const NAMED: [(&str, &str); 11] = [
    ("URL", "kubernetes.URL"),
    ("Quantity", "kubernetes.Quantity"),
    ("IP", "net.IP"),
    ("CIDR", "net.CIDR"),
    ("Semver", "kubernetes.Semver"),
    ("Format", "kubernetes.NamedFormat"),
    ("Authorizer", "kubernetes.authorization.Authorizer"),
    ("PathCheck", "kubernetes.authorization.PathCheck"),
    ("GroupCheck", "kubernetes.authorization.GroupCheck"),
    ("ResourceCheck", "kubernetes.authorization.ResourceCheck"),
    ("Decision", "kubernetes.authorization.Decision"),
];

pub(super) fn named(short: &str) -> Type {
    let found = NAMED.iter().find(|(s, _)| *s == short);
    found.map_or(Type::Dyn, |(_, name)| Type::Named(name))
}

/// All overloads of a function, `None` when there is no such function.
pub(super) fn overloads(name: &str) -> Option<&'static [Signature]> {
    static TABLE: LazyLock<HashMap<String, Vec<Signature>>> =
        LazyLock::new(|| read(include_str!("signatures.txt")));
    TABLE.get(name).map(Vec::as_slice)
}

/// The types that `<`, `<=`, `>` and `>=` compare; numbers compare with all numbers.
const ORDERED: [&str; 7] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "timestamp",
];

fn read(table: &str) -> HashMap<String, Vec<Signature>> {
    let mut all: HashMap<String, Vec<Signature>> = HashMap::new();
    for line in table
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let Some((name, signature)) = signature(line) else {
            debug_assert!(false, "a signature that cannot be read: {line}");
            continue;
        };
        all.entry(name).or_default().push(signature);
    }
    for function in ["_<_", "_<=_", "_>_", "_>=_"] {
        let two = |a: &str, b: &str| Signature {
            target: None,
            args: vec![ty(a), ty(b)],
            result: Type::Bool,
        };
        let list = all.entry(function.to_owned()).or_default();
        list.extend(ORDERED.iter().map(|name| two(name, name)));
        list.push(two("duration", "duration"));
        for a in ["int", "uint", "double"] {
            let others = ["int", "uint", "double"].into_iter().filter(|b| *b != a);
            list.extend(others.map(|b| two(a, b)));
        }
    }
    all
}

/// `[T.]name(A, B) R`; a name with a dot before it that is no type is part of the name.
fn signature(line: &str) -> Option<(String, Signature)> {
    let (open, close) = arguments(line)?;
    let head = &line[..open];
    let (target, name) = match head.rsplit_once('.') {
        Some((target, name)) if is_type(target) => (Some(ty(target)), name),
        _ => (None, head),
    };
    let args = split(&line[open + 1..close]).into_iter().map(ty).collect();
    let signature = Signature {
        target,
        args,
        result: ty(line[close + 1..].trim()),
    };
    Some((name.to_owned(), signature))
}

/// Where the brackets around the arguments stand: after one of the target's type comes a dot.
fn arguments(line: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    loop {
        let open = from + line[from..].find('(')?;
        let mut depth = 0;
        let close = line[open..].char_indices().find_map(|(i, c)| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            (depth == 0).then_some(open + i)
        })?;
        if line.as_bytes().get(close + 1) != Some(&b'.') {
            return Some((open, close));
        }
        from = close + 1;
    }
}

fn is_type(text: &str) -> bool {
    !matches!(text, "sets" | "strings" | "format" | "ip" | "jsonpatch")
        && (text != "optional" || text.contains('('))
}

/// Splits at the commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0_i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        out.push(text[start..].trim());
    }
    out
}

fn ty(text: &str) -> Type {
    if let Some((outer, inner)) = text.split_once('(') {
        let inner = split(inner.strip_suffix(')').unwrap_or(inner));
        let at = |i: usize| Arc::new(inner.get(i).map_or(Type::Dyn, |t| ty(t)));
        return match outer {
            "list" => Type::List(at(0)),
            "map" => Type::Map(at(0), at(1)),
            _ => Type::Optional(at(0)),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "type" => Type::Type,
        "A" | "B" => Type::Param(text.as_bytes()[0]),
        short => named(short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads() {
        let lines = include_str!("signatures.txt").lines();
        for line in lines.filter(|l| !l.is_empty() && !l.starts_with('#')) {
            assert!(signature(line).is_some(), "{line}");
        }
        let index = &overloads("_[_]").expect("index")[1];
        assert_eq!(index.args[0].to_string(), "map(A, B)");
        assert_eq!(index.result, Type::Param(b'B'));
        let or = &overloads("or").expect("or")[0];
        assert_eq!(
            or.target.as_ref().map(Type::to_string).as_deref(),
            Some("optional_type(A)")
        );
        assert!(overloads("sets.contains").is_some());
        assert!(overloads("ip.isCanonical").is_some());
        assert_eq!(overloads("size").map(<[_]>::len), Some(8));
        assert_eq!(
            overloads("findAll").expect("findAll")[0].result.to_string(),
            "list(string)"
        );
        assert_eq!(
            overloads("getQuery").expect("q")[0].result.to_string(),
            "map(string, list(string))"
        );
    }
}
