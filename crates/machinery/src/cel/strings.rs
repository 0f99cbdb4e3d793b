//! Functions on text.

use super::{
    error::Fault,
    number::show_double,
    time::{show_duration, show_timestamp},
    value::{Key, Value},
};

fn place(at: i64) -> Result<usize, Fault> {
    usize::try_from(at).map_err(|_| Fault::new(format!("index out of range: {at}")))
}

/// A function with text as its target.
pub(super) fn call<'a>(text: &str, function: &str, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let chars = || text.chars().collect::<Vec<char>>();
    let collect = |chars: &[char]| chars.iter().collect::<String>();
    Ok(match (function, args) {
        ("contains", [Value::String(s)]) => Value::Bool(text.contains(s.as_ref())),
        ("startsWith", [Value::String(s)]) => Value::Bool(text.starts_with(s.as_ref())),
        ("endsWith", [Value::String(s)]) => Value::Bool(text.ends_with(s.as_ref())),
        ("lowerAscii", []) => Value::text(text.to_ascii_lowercase()),
        ("upperAscii", []) => Value::text(text.to_ascii_uppercase()),
        ("trim", []) => Value::text(text.trim()),
        ("charAt", [Value::Int(at)]) => {
            let chars = chars();
            let at = place(*at)?;
            match chars.get(at) {
                Some(c) => Value::text(c.to_string()),
                None if at == chars.len() => Value::text(""),
                None => return Err(Fault::new(format!("index out of range: {at}"))),
            }
        }
        ("indexOf", [Value::String(s)]) => Value::Int(index_of(&chars(), s, 0)),
        ("indexOf", [Value::String(s), Value::Int(from)]) => {
            let chars = chars();
            let start = place(*from)?;
            if start > chars.len() {
                return Err(Fault::new(format!("index out of range: {from}")));
            }
            Value::Int(index_of(&chars, s, start))
        }
        ("lastIndexOf", [Value::String(s)]) => {
            let chars = chars();
            Value::Int(last_index_of(&chars, s, chars.len()))
        }
        ("lastIndexOf", [Value::String(s), Value::Int(from)]) => {
            let chars = chars();
            let start = place(*from)?;
            if start > chars.len() {
                return Err(Fault::new(format!("index out of range: {from}")));
            }
            Value::Int(last_index_of(&chars, s, start))
        }
        ("replace", [Value::String(old), Value::String(new)]) => {
            Value::text(text.replace(old.as_ref(), new))
        }
        ("replace", [Value::String(old), Value::String(new), Value::Int(n)]) => {
            Value::text(match usize::try_from(*n) {
                Ok(n) => text.replacen(old.as_ref(), new, n),
                Err(_) => text.replace(old.as_ref(), new),
            })
        }
        ("split", [Value::String(by)]) => split(text, by, -1),
        ("split", [Value::String(by), Value::Int(n)]) => split(text, by, *n),
        ("substring", [Value::Int(from)]) => {
            let chars = chars();
            let from = place(*from)?;
            let part = chars
                .get(from..)
                .ok_or_else(|| Fault::new(format!("index out of range: {from}")))?;
            Value::text(collect(part))
        }
        ("substring", [Value::Int(from), Value::Int(to)]) => {
            let chars = chars();
            if from > to {
                return Err(Fault::new(format!(
                    "invalid substring range. start: {from}, end: {to}"
                )));
            }
            let part = chars
                .get(place(*from)?..place(*to)?)
                .ok_or_else(|| Fault::new(format!("index out of range: {to}")))?;
            Value::text(collect(part))
        }
        ("format", [list]) => Value::text(format(text, &list.items()?)?),
        ("find", [Value::String(pattern)]) => {
            let found = compile(pattern)?.find(text).map(|m| m.as_str().to_owned());
            Value::text(found.unwrap_or_default())
        }
        ("findAll", [Value::String(pattern), rest @ ..]) => {
            let most = match rest {
                [] => usize::MAX,
                [Value::Int(n)] => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => return Err(Fault::no_overload()),
            };
            let pattern = compile(pattern)?;
            let found = pattern.find_iter(text).take(most);
            Value::list(found.map(|m| Value::text(m.as_str())).collect())
        }
        ("matches", [Value::String(pattern)]) => Value::Bool(compile(pattern)?.is_match(text)),
        _ => return Err(Fault::no_overload()),
    })
}

pub(super) fn compile(pattern: &str) -> Result<regex::Regex, Fault> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|_| Fault::new(format!("error parsing regexp: {pattern}")))
}

fn index_of(chars: &[char], wanted: &str, from: usize) -> i64 {
    let wanted: Vec<char> = wanted.chars().collect();
    let found = (from..=chars.len()).find(|i| chars[*i..].starts_with(&wanted));
    found.map_or(-1, |i| i as i64)
}

fn last_index_of(chars: &[char], wanted: &str, from: usize) -> i64 {
    let wanted: Vec<char> = wanted.chars().collect();
    let found = (0..=from.min(chars.len()))
        .rev()
        .find(|i| chars[*i..].starts_with(&wanted));
    found.map_or(-1, |i| i as i64)
}

/// `n` parts at most; all where it is negative.
fn split<'a>(text: &str, by: &str, n: i64) -> Value<'a> {
    let parts: Vec<Value<'a>> = match (n, by.is_empty()) {
        (0, _) => vec![],
        (1, _) => vec![Value::text(text)],
        (n, false) if n > 0 => text
            .splitn(usize::try_from(n).unwrap_or(usize::MAX), by)
            .map(Value::text)
            .collect(),
        (_, false) => text.split(by).map(Value::text).collect(),
        (n, true) => {
            let chars: Vec<char> = text.chars().collect();
            let most = usize::try_from(n).unwrap_or(usize::MAX).min(chars.len());
            let mut parts: Vec<Value<'a>> = chars
                .iter()
                .take(most.saturating_sub(1))
                .map(|c| Value::text(c.to_string()))
                .collect();
            if most > 0 {
                let rest: String = chars.get(most - 1..).unwrap_or_default().iter().collect();
                parts.push(Value::text(rest));
            }
            parts
        }
    };
    Value::list(parts)
}

pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `"%s is %d".format([a, b])`.
fn format(pattern: &str, args: &[Value<'_>]) -> Result<String, Fault> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(d) = chars.peek().filter(|c| c.is_ascii_digit()) {
                digits.push(*d);
                chars.next();
            }
            precision =
                Some(digits.parse::<usize>().map_err(|_| {
                    Fault::new("could not parse formatting clause: invalid precision")
                })?);
        }
        if precision.is_some_and(|p| p > 100) {
            return Err(Fault::new(
                "could not parse formatting clause: precision too large",
            ));
        }
        let Some(clause) = chars.next() else {
            return Err(Fault::new("unexpected end of string"));
        };
        let arg = args
            .get(next)
            .ok_or_else(|| Fault::new(format!("index {next} out of range")))?;
        next += 1;
        let unfit = |allowed: &str| {
            Fault::new(format!(
                "error during formatting: only {allowed} can be formatted with %{clause}, was given {}",
                arg.type_name()
            ))
        };
        match clause {
            's' => out.push_str(&show(arg)?),
            'd' => match arg {
                Value::Int(n) => out.push_str(&n.to_string()),
                Value::Uint(n) => out.push_str(&n.to_string()),
                Value::Double(d) if d.is_nan() || d.is_infinite() => out.push_str(&show_double(*d)),
                _ => return Err(unfit("integers")),
            },
            'f' | 'e' => {
                let d = match arg {
                    Value::Double(d) => *d,
                    Value::Int(n) => *n as f64,
                    Value::Uint(n) => *n as f64,
                    _ => return Err(unfit("doubles")),
                };
                let precision = precision.unwrap_or(6);
                if d.is_nan() || d.is_infinite() {
                    out.push_str(&show_double(d));
                } else if clause == 'f' {
                    out.push_str(&format!("{d:.precision$}"));
                } else {
                    let text = format!("{d:.precision$e}");
                    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
                    let power: i32 = power.parse().unwrap_or(0);
                    out.push_str(&format!(
                        "{digits}e{}{:02}",
                        if power < 0 { '-' } else { '+' },
                        power.abs()
                    ));
                }
            }
            'b' => match arg {
                Value::Int(n) if *n < 0 => out.push_str(&format!("-{:b}", n.unsigned_abs())),
                Value::Int(n) => out.push_str(&format!("{n:b}")),
                Value::Uint(n) => out.push_str(&format!("{n:b}")),
                Value::Bool(b) => out.push(if *b { '1' } else { '0' }),
                _ => return Err(unfit("integers and bools")),
            },
            'x' | 'X' | 'o' => {
                let text = match (arg, clause) {
                    (Value::Int(n), 'o') if *n < 0 => format!("-{:o}", n.unsigned_abs()),
                    (Value::Int(n), 'o') => format!("{n:o}"),
                    (Value::Uint(n), 'o') => format!("{n:o}"),
                    (Value::Int(n), _) if *n < 0 => format!("-{:x}", n.unsigned_abs()),
                    (Value::Int(n), _) => format!("{n:x}"),
                    (Value::Uint(n), _) => format!("{n:x}"),
                    (Value::String(s), 'x' | 'X') => {
                        s.bytes().map(|b| format!("{b:02x}")).collect()
                    }
                    (Value::Bytes(b), 'x' | 'X') => b.iter().map(|b| format!("{b:02x}")).collect(),
                    _ => return Err(unfit("integers, byte buffers, and strings")),
                };
                out.push_str(&if clause == 'X' {
                    text.to_uppercase()
                } else {
                    text
                });
            }
            other => {
                return Err(Fault::new(format!(
                    "could not parse formatting clause: unrecognized formatting clause \"{other}\""
                )));
            }
        }
    }
    if next < args.len() {
        // What is not used is not asked for: as cel-go, no fault.
        return Ok(out);
    }
    Ok(out)
}

/// A value as `%s` shows it.
fn show(value: &Value<'_>) -> Result<String, Fault> {
    let joined = |items: &[Value<'_>]| -> Result<String, Fault> {
        let all: Result<Vec<String>, Fault> = items.iter().map(show).collect();
        Ok(all?.join(", "))
    };
    Ok(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(d) => show_double(*d),
        Value::String(s) => s.to_string(),
        Value::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Value::Duration(d) => show_duration(*d),
        Value::Timestamp(t) => show_timestamp(*t),
        Value::Type(name) => name.to_string(),
        Value::Array(..) | Value::List(_) => format!("[{}]", joined(&value.items()?)?),
        Value::Object(..) | Value::Map(_) => {
            let keys = value.keys().unwrap_or_default();
            let mut parts = Vec::with_capacity(keys.len());
            for key in &keys {
                let entry = value.index(key)?.unwrap_or(Value::Null);
                let key = Key::of(key).map(|k| k.to_string()).unwrap_or_default();
                parts.push(format!("{key}: {}", show(&entry)?));
            }
            parts.sort();
            format!("{{{}}}", parts.join(", "))
        }
        other => {
            return Err(Fault::new(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                other.type_name()
            )));
        }
    })
}
