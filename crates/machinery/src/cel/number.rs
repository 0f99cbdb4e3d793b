//! Numbers: checked arithmetic, and comparison of all kinds of numbers by value.

use std::cmp::Ordering;

use super::{error::Fault, value::Value};

/// Orders two values of a kind that has an order; `None` where there is none.
pub(super) fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), Value::Int(b)) => whole(*a, i128::from(*b)),
        (Value::Double(a), Value::Uint(b)) => whole(*a, i128::from(*b)),
        (Value::Int(a), Value::Double(b)) => whole(*b, i128::from(*a)).map(Ordering::reverse),
        (Value::Uint(a), Value::Double(b)) => whole(*b, i128::from(*a)).map(Ordering::reverse),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// A double with a whole number, exactly.
fn whole(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a.abs() >= 1e30 {
        return Some(if a > 0.0 {
            Ordering::Greater
        } else {
            Ordering::Less
        });
    }
    let floor = a.floor();
    Some(match (floor as i128).cmp(&b) {
        Ordering::Equal if a > floor => Ordering::Greater,
        other => other,
    })
}

/// `+`, `-`, `*`, `/` and `%` on two numbers of one kind.
pub(super) fn arithmetic<'a>(
    operator: &str,
    a: &Value<'a>,
    b: &Value<'a>,
) -> Result<Value<'a>, Fault> {
    let zero = |operator: &str| {
        Fault::new(if operator == "_/_" {
            "division by zero"
        } else {
            "modulus by zero"
        })
    };
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => {
            if matches!(operator, "_/_" | "_%_") && *b == 0 {
                return Err(zero(operator));
            }
            let out = match operator {
                "_+_" => a.checked_add(*b),
                "_-_" => a.checked_sub(*b),
                "_*_" => a.checked_mul(*b),
                "_/_" => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            out.map(Value::Int)
                .ok_or_else(|| Fault::new("integer overflow"))
        }
        (Value::Uint(a), Value::Uint(b)) => {
            if matches!(operator, "_/_" | "_%_") && *b == 0 {
                return Err(zero(operator));
            }
            let out = match operator {
                "_+_" => a.checked_add(*b),
                "_-_" => a.checked_sub(*b),
                "_*_" => a.checked_mul(*b),
                "_/_" => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            out.map(Value::Uint)
                .ok_or_else(|| Fault::new("unsigned integer overflow"))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(match operator {
            "_+_" => a + b,
            "_-_" => a - b,
            "_*_" => a * b,
            "_/_" => a / b,
            _ => return Err(Fault::no_overload()),
        })),
        _ => Err(Fault::no_overload()),
    }
}

pub(super) fn to_int<'a>(value: &Value<'a>) -> Result<Value<'a>, Fault> {
    let range = || Fault::new("integer overflow");
    Ok(Value::Int(match value {
        Value::Int(n) => *n,
        Value::Uint(n) => i64::try_from(*n).map_err(|_| range())?,
        Value::Double(d) if d.is_nan() || *d <= -9.223372036854775e18 || *d >= 9.223372036854775e18 => {
            return Err(range());
        }
        Value::Double(d) => *d as i64,
        Value::String(s) => s
            .parse()
            .map_err(|_| Fault::new(format!("type conversion error from 'string' to 'int': strconv.ParseInt: parsing {s:?}: invalid syntax")))?,
        Value::Timestamp(t) => t.as_second(),
        Value::Duration(d) => *d,
        _ => return Err(Fault::no_overload()),
    }))
}

pub(super) fn to_uint<'a>(value: &Value<'a>) -> Result<Value<'a>, Fault> {
    let range = || Fault::new("unsigned integer overflow");
    Ok(Value::Uint(match value {
        Value::Uint(n) => *n,
        Value::Int(n) => u64::try_from(*n).map_err(|_| range())?,
        Value::Double(d) if d.is_nan() || *d < 0.0 || *d >= 1.8446744073709552e19 => return Err(range()),
        Value::Double(d) => *d as u64,
        Value::String(s) => s
            .parse()
            .map_err(|_| Fault::new(format!("type conversion error from 'string' to 'uint': strconv.ParseUint: parsing {s:?}: invalid syntax")))?,
        _ => return Err(Fault::no_overload()),
    }))
}

pub(super) fn to_double<'a>(value: &Value<'a>) -> Result<Value<'a>, Fault> {
    Ok(Value::Double(match value {
        Value::Double(d) => *d,
        Value::Int(n) => *n as f64,
        Value::Uint(n) => *n as f64,
        Value::String(s) => s
            .parse()
            .map_err(|_| Fault::new(format!("type conversion error from 'string' to 'double': strconv.ParseFloat: parsing {s:?}: invalid syntax")))?,
        _ => return Err(Fault::no_overload()),
    }))
}

/// A double as Go writes it (`%g` with the shortest digits).
pub(super) fn show_double(d: f64) -> String {
    if d.is_nan() {
        return "NaN".to_owned();
    }
    if d.is_infinite() {
        return if d > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let exponent = if d == 0.0 {
        0
    } else {
        d.abs().log10().floor() as i32
    };
    if (-5..21).contains(&exponent) {
        return format!("{d}");
    }
    let text = format!("{d:e}");
    // Go writes a sign and at least two digits.
    match text.split_once('e') {
        Some((digits, power)) => {
            let (sign, power) = match power.strip_prefix('-') {
                Some(power) => ('-', power),
                None => ('+', power),
            };
            format!("{digits}e{sign}{power:0>2}")
        }
        None => text,
    }
}
