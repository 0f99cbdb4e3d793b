//! Functions that evaluate all of their arguments first.

use std::{cmp::Ordering, rc::Rc};

use super::{
    error::Fault,
    format::Format,
    net, number, semver, strings, time,
    types::ListKind,
    value::{Value, equal, list_kind, same_keys},
};
use crate::quantity::Quantity;

/// A function without a target; operators too.
pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(match (function, args) {
        ("_==_", [a, b]) => Value::Bool(equal(a, b)),
        ("_!=_", [a, b]) => Value::Bool(!equal(a, b)),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
            let number = |v: &Value<'_>| matches!(v, Value::Double(d) if d.is_nan());
            let order = match number::compare(a, b) {
                Some(order) => order,
                None if number(a) || number(b) => return Ok(Value::Bool(false)),
                None => return Err(Fault::no_overload()),
            };
            Value::Bool(match function {
                "_<_" => order.is_lt(),
                "_<=_" => order.is_le(),
                "_>_" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        ("!_", [Value::Bool(b)]) => Value::Bool(!b),
        ("-_", [Value::Int(n)]) => Value::Int(
            n.checked_neg()
                .ok_or_else(|| Fault::new("integer overflow"))?,
        ),
        ("-_", [Value::Double(d)]) => Value::Double(-d),
        ("-_", [Value::Duration(d)]) => Value::Duration(
            d.checked_neg()
                .ok_or_else(|| Fault::new("duration overflow"))?,
        ),
        ("_+_", [a, b]) => return add(a, b),
        ("_-_", [Value::Timestamp(_) | Value::Duration(_), _]) => {
            return time::arithmetic(function, &args[0], &args[1]);
        }
        ("_-_" | "_*_" | "_/_" | "_%_", [a, b]) => return number::arithmetic(function, a, b),
        ("@in", [item, of]) => match of {
            Value::Map(_) | Value::Object(..) => Value::Bool(of.index(item)?.is_some()),
            Value::Lazy(lazy) => Value::Bool(matches!(item, Value::String(name) if lazy.has(name))),
            _ => Value::Bool(of.items()?.iter().any(|i| equal(i, item))),
        },
        ("_[_]", [Value::Optional(inner), key]) => match inner {
            None => Value::Optional(None),
            Some(inner) => Value::Optional(inner.index(key)?.map(Rc::new)),
        },
        ("_[_]", [of, key]) => match of.index(key)? {
            Some(value) => value,
            None => return Err(missing(of, key)),
        },
        ("_[?_]", [of, key]) => Value::Optional(of.index(key)?.map(Rc::new)),
        ("size", [of]) => Value::Int(of.size().ok_or_else(Fault::no_overload)? as i64),
        ("matches", [Value::String(text), _]) => return strings::call(text, function, &args[1..]),
        ("dyn", [value]) => value.clone(),
        ("type", [value]) => Value::Type(value.type_name().into()),
        ("bool", [value]) => match value {
            Value::Bool(b) => Value::Bool(*b),
            Value::String(s) => Value::Bool(match s.as_ref() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => {
                    return Err(Fault::new(format!(
                        "type conversion error from 'string' to 'bool': strconv.ParseBool: parsing {s:?}: invalid syntax"
                    )));
                }
            }),
            _ => return Err(Fault::no_overload()),
        },
        ("int", [value]) => return number::to_int(value),
        ("uint", [value]) => return number::to_uint(value),
        ("double", [value]) => return number::to_double(value),
        ("string", [value]) => return to_string(value),
        ("bytes", [value]) => match value {
            Value::Bytes(b) => Value::Bytes(b.clone()),
            Value::String(s) => Value::Bytes(s.as_bytes().into()),
            _ => return Err(Fault::no_overload()),
        },
        ("duration", [value]) => match value {
            Value::Duration(d) => Value::Duration(*d),
            Value::Int(n) => Value::Duration(
                n.checked_mul(1_000_000_000)
                    .ok_or_else(|| Fault::new("duration overflow"))?,
            ),
            Value::String(s) => Value::Duration(
                time::parse_duration(s)
                    .ok_or_else(|| Fault::new(format!("time: invalid duration {s:?}")))?,
            ),
            _ => return Err(Fault::no_overload()),
        },
        ("timestamp", [value]) => match value {
            Value::Timestamp(t) => Value::Timestamp(*t),
            Value::Int(n) => Value::Timestamp(
                jiff::Timestamp::from_second(*n).map_err(|_| Fault::new("timestamp overflow"))?,
            ),
            Value::String(s) => Value::Timestamp(time::parse_timestamp(s).ok_or_else(|| {
                Fault::new(format!("parsing time {s:?}: cannot parse as a timestamp"))
            })?),
            _ => return Err(Fault::no_overload()),
        },
        ("strings.quote", [Value::String(s)]) => Value::text(strings::quote(s)),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => {
            let (a, b) = (a.items()?, b.items()?);
            let within =
                |x: &[Value<'a>], y: &[Value<'a>]| x.iter().all(|x| y.iter().any(|y| equal(x, y)));
            Value::Bool(match function {
                "sets.contains" => within(&b, &a),
                "sets.equivalent" => within(&a, &b) && within(&b, &a),
                _ => a.iter().any(|x| b.iter().any(|y| equal(x, y))),
            })
        }
        ("optional.none", []) => Value::Optional(None),
        ("jsonpatch.escapeKey", [Value::String(key)]) => {
            Value::text(key.replace('~', "~0").replace('/', "~1"))
        }
        ("optional.of", [value]) => Value::some(value.clone()),
        ("optional.ofNonZeroValue", [value]) => {
            if value.is_zero() {
                Value::Optional(None)
            } else {
                Value::some(value.clone())
            }
        }
        ("url", [Value::String(s)]) => Value::Url(Rc::new(net::parse_url(s)?)),
        ("isURL", [Value::String(s)]) => Value::Bool(net::parse_url(s).is_ok()),
        ("ip", [Value::String(s)]) => Value::Ip(net::parse_ip(s)?),
        ("isIP", [Value::String(s)]) => Value::Bool(net::parse_ip(s).is_ok()),
        ("ip.isCanonical", [Value::String(s)]) => {
            Value::Bool(net::parse_ip(s)?.to_string() == s.as_ref())
        }
        ("cidr", [Value::String(s)]) => Value::Cidr(net::parse_cidr(s)?),
        ("isCIDR", [Value::String(s)]) => Value::Bool(net::parse_cidr(s).is_ok()),
        ("quantity", [Value::String(s)]) => {
            Value::Quantity(Quantity::parse(s).map_err(|e| Fault::new(e.to_string()))?)
        }
        ("isQuantity", [Value::String(s)]) => Value::Bool(Quantity::parse(s).is_ok()),
        ("semver", [Value::String(s)]) => Value::Semver(Rc::new(semver::parse(s, false)?)),
        ("semver", [Value::String(s), Value::Bool(n)]) => {
            Value::Semver(Rc::new(semver::parse(s, *n)?))
        }
        ("isSemver", [Value::String(s)]) => Value::Bool(semver::parse(s, false).is_ok()),
        ("isSemver", [Value::String(s), Value::Bool(n)]) => {
            Value::Bool(semver::parse(s, *n).is_ok())
        }
        ("format.named", [Value::String(s)]) => {
            Value::Optional(Format::named(s).map(|f| Rc::new(Value::Format(f))))
        }
        (name, []) => match name.strip_prefix("format.").and_then(Format::named) {
            Some(format) => Value::Format(format),
            None => return Err(Fault::no_overload()),
        },
        _ => return Err(Fault::no_overload()),
    })
}

/// The fault of reading what is not there.
pub(super) fn missing(of: &Value<'_>, key: &Value<'_>) -> Fault {
    let shown = match key {
        Value::String(s) => s.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Double(d) => number::show_double(*d),
        other => other.type_name().to_owned(),
    };
    match of {
        Value::Array(..) | Value::List(_) => Fault::new(format!("index out of bounds: {shown}")),
        _ => Fault::new(format!("no such key: {shown}")),
    }
}

fn to_string<'a>(value: &Value<'a>) -> Result<Value<'a>, Fault> {
    Ok(match value {
        Value::String(_) => value.clone(),
        Value::Bool(b) => Value::text(b.to_string()),
        Value::Int(n) => Value::text(n.to_string()),
        Value::Uint(n) => Value::text(n.to_string()),
        Value::Double(d) => Value::text(number::show_double(*d)),
        Value::Bytes(b) => Value::text(
            std::str::from_utf8(b)
                .map_err(|_| Fault::new("invalid UTF-8 in bytes, cannot convert to string"))?,
        ),
        Value::Timestamp(t) => Value::text(time::show_timestamp(*t)),
        Value::Duration(d) => Value::text(time::show_duration(*d)),
        Value::Ip(ip) => Value::text(ip.to_string()),
        Value::Cidr(cidr) => Value::text(cidr.to_string()),
        _ => return Err(Fault::no_overload()),
    })
}

fn add<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>, Fault> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(Value::text(format!("{a}{b}"))),
        (Value::Bytes(a), Value::Bytes(b)) => {
            Ok(Value::Bytes(a.iter().chain(b.iter()).copied().collect()))
        }
        (Value::Timestamp(_) | Value::Duration(_), _) => time::arithmetic("_+_", a, b),
        (Value::Array(..) | Value::List(_), Value::Array(..) | Value::List(_)) => {
            let mut items = a.items()?.into_owned();
            let more = b.items()?.into_owned();
            // Sets and maps add as server-side apply merges them.
            match list_kind(a, b) {
                ListKind::Atomic => items.extend(more),
                ListKind::Set => {
                    for item in more {
                        if !items.iter().any(|i| equal(i, &item)) {
                            items.push(item);
                        }
                    }
                }
                ListKind::Map(keys) => {
                    for item in more {
                        match items.iter_mut().find(|i| same_keys(keys, i, &item)) {
                            Some(there) => *there = item,
                            None => items.push(item),
                        }
                    }
                }
            }
            Ok(Value::list(items))
        }
        _ => number::arithmetic("_+_", a, b),
    }
}

/// A function that is called on a target.
pub(super) fn method<'a>(
    target: &Value<'a>,
    function: &str,
    args: &[Value<'a>],
) -> Result<Value<'a>, Fault> {
    if function == "size" && args.is_empty() {
        return call("size", std::slice::from_ref(target));
    }
    match target {
        Value::String(text) => strings::call(text, function, args),
        Value::Timestamp(at) => {
            let zone = match args {
                [] => None,
                [Value::String(zone)] => Some(zone.as_ref()),
                _ => return Err(Fault::no_overload()),
            };
            time::part_of_timestamp(function, *at, zone).map(Value::Int)
        }
        Value::Duration(d) if args.is_empty() => {
            time::part_of_duration(function, *d).map(Value::Int)
        }
        Value::Array(..) | Value::List(_) => list(&target.items()?, function, args),
        Value::Optional(inner) => optional(inner.as_deref(), target, function, args),
        Value::Url(url) if args.is_empty() => url.call(function),
        Value::Ip(ip) if args.is_empty() => ip.call(function),
        Value::Cidr(cidr) => cidr.call(function, args),
        Value::Quantity(quantity) => on_quantity(*quantity, function, args),
        Value::Semver(version) => version.call(function, args),
        Value::Format(format) => match (function, args) {
            ("validate", [Value::String(text)]) => Ok(format.validate(text)),
            _ => Err(Fault::no_overload()),
        },
        Value::Check(check) => check.call(function, args),
        _ => Err(Fault::no_overload()),
    }
}

fn optional<'a>(
    inner: Option<&Value<'a>>,
    whole: &Value<'a>,
    function: &str,
    args: &[Value<'a>],
) -> Result<Value<'a>, Fault> {
    Ok(match (function, args, inner) {
        ("hasValue", [], inner) => Value::Bool(inner.is_some()),
        ("value", [], Some(value)) | ("orValue", [_], Some(value)) => value.clone(),
        ("value", [], None) => return Err(Fault::new("optional.none() dereference")),
        ("orValue", [other], None) | ("or", [other], None) => other.clone(),
        ("or", [_], Some(_)) => whole.clone(),
        _ => return Err(Fault::no_overload()),
    })
}

fn list<'a>(items: &[Value<'a>], function: &str, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let order = |a: &Value<'a>, b: &Value<'a>| number::compare(a, b).ok_or_else(Fault::no_overload);
    Ok(match (function, args) {
        ("isSorted", []) => {
            for pair in items.windows(2) {
                if order(&pair[0], &pair[1])? == Ordering::Greater {
                    return Ok(Value::Bool(false));
                }
            }
            Value::Bool(true)
        }
        ("sum", []) => {
            let mut total: Option<Value<'a>> = None;
            for item in items {
                total = Some(match total {
                    None => item.clone(),
                    Some(total) => add(&total, item)?,
                });
            }
            total.unwrap_or(Value::Int(0))
        }
        ("min" | "max", []) => {
            let mut best: Option<&Value<'a>> = None;
            for item in items {
                let better = match best {
                    None => true,
                    Some(best) if function == "min" => order(item, best)?.is_lt(),
                    Some(best) => order(item, best)?.is_gt(),
                };
                if better {
                    best = Some(item);
                }
            }
            best.ok_or_else(|| Fault::new(format!("{function} called on empty list")))?
                .clone()
        }
        ("indexOf", [wanted]) => {
            let at = items.iter().position(|i| equal(i, wanted));
            Value::Int(at.map_or(-1, |i| i as i64))
        }
        ("lastIndexOf", [wanted]) => {
            let at = items.iter().rposition(|i| equal(i, wanted));
            Value::Int(at.map_or(-1, |i| i as i64))
        }
        ("join", rest) => {
            let by = match rest {
                [] => "",
                [Value::String(by)] => by,
                _ => return Err(Fault::no_overload()),
            };
            let texts: Option<Vec<&str>> = items
                .iter()
                .map(|i| match i {
                    Value::String(s) => Some(s.as_ref()),
                    _ => None,
                })
                .collect();
            Value::text(texts.ok_or_else(Fault::no_overload)?.join(by))
        }
        _ => return Err(Fault::no_overload()),
    })
}

fn on_quantity<'a>(
    quantity: Quantity,
    function: &str,
    args: &[Value<'a>],
) -> Result<Value<'a>, Fault> {
    let whole = |n: i64| Quantity::parse(&n.to_string()).map_err(|e| Fault::new(e.to_string()));
    let other = match args {
        [] => Quantity::ZERO,
        [Value::Quantity(other)] => *other,
        [Value::Int(n)] if matches!(function, "add" | "sub") => whole(*n)?,
        _ => return Err(Fault::no_overload()),
    };
    Ok(match (function, args.len()) {
        ("sign", 0) => Value::Int(quantity.cmp(&Quantity::ZERO) as i64),
        ("isInteger", 0) => Value::Bool(quantity.is_integer()),
        ("asInteger", 0) if quantity.is_integer() => Value::Int(quantity.value()),
        ("asInteger", 0) => return Err(Fault::new("cannot convert value to integer")),
        ("asApproximateFloat", 0) => Value::Double(quantity.as_f64()),
        ("isGreaterThan", 1) => Value::Bool(quantity.cmp(&other).is_gt()),
        ("isLessThan", 1) => Value::Bool(quantity.cmp(&other).is_lt()),
        ("compareTo", 1) => Value::Int(quantity.cmp(&other) as i64),
        ("add", 1) => Value::Quantity(quantity.saturating_add(other)),
        ("sub", 1) => Value::Quantity(quantity.saturating_sub(other)),
        _ => return Err(Fault::no_overload()),
    })
}
