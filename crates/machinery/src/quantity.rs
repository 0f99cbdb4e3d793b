//! Quantities of resources (`100m`, `1.5Gi`, `2e3`): exact parsing, canonical form, comparison.
//!
//! A quantity is a whole number of nano-units and the format it was written in, which decides how
//! it is written again. Finer fractions are rounded up, away from zero, as Kubernetes does.

use std::{cmp::Ordering, fmt};

/// How a quantity was written; the canonical form keeps it where it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `m`, `k`, `M`, …: powers of ten by suffix.
    DecimalSi,
    /// `Ki`, `Mi`, …: powers of 1024.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nano: i128,
    form: Form,
}

/// Why a text is no quantity, in Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
/// Kubernetes caps quantities at the largest 64-bit integer.
const MAX: i128 = i64::MAX as i128 * NANO;

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        nano: 0,
        form: Form::DecimalSi,
    };

    pub fn parse(text: &str) -> Result<Quantity, ParseError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(ParseError::Format);
        }
        let (negative, mut at) = match bytes[0] {
            b'-' => (true, 1),
            b'+' => (false, 1),
            _ => (false, 0),
        };
        let start = at;
        let mut point = None;
        while at < bytes.len() {
            match bytes[at] {
                b'0'..=b'9' => {}
                b'.' if point.is_none() => point = Some(at),
                b'.' => return Err(ParseError::Numeric),
                _ => break,
            }
            at += 1;
        }
        let number = &text[start..at];
        let suffix = &text[at..];
        let (scale, form) = suffix_of(suffix)?;
        let (whole, fraction) = match point {
            Some(p) => (&text[start..p], &text[p + 1..at]),
            None => (number, ""),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(if suffix.is_empty() {
                ParseError::Format
            } else {
                ParseError::Numeric
            });
        }
        let nano = magnitude(whole, fraction, scale);
        Ok(Quantity {
            nano: if negative { -nano } else { nano },
            form,
        })
    }

    pub fn from_milli(milli: i64) -> Quantity {
        Quantity {
            nano: i128::from(milli) * 1_000_000,
            form: Form::DecimalSi,
        }
    }

    pub fn from_integer(value: i64, form: Form) -> Quantity {
        Quantity {
            nano: i128::from(value) * NANO,
            form,
        }
    }

    /// Thousandths, rounded up; capped at the largest 64-bit integer.
    pub fn milli(&self) -> i64 {
        saturate(divide_up(self.nano, 1_000_000))
    }

    /// Units (bytes, for memory), rounded up.
    pub fn value(&self) -> i64 {
        saturate(divide_up(self.nano, NANO))
    }

    /// The nearest double, in units.
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / 1e9
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    pub fn is_integer(&self) -> bool {
        self.nano % NANO == 0
    }

    /// Whether there is no finer fraction than a thousandth.
    pub fn is_milli(&self) -> bool {
        self.nano % 1_000_000 == 0
    }

    pub fn saturating_add(self, other: Quantity) -> Quantity {
        Quantity {
            nano: self.nano.saturating_add(other.nano),
            form: if self.nano == 0 {
                other.form
            } else {
                self.form
            },
        }
    }

    pub fn saturating_sub(self, other: Quantity) -> Quantity {
        Quantity {
            nano: self.nano.saturating_sub(other.nano),
            form: if self.nano == 0 {
                other.form
            } else {
                self.form
            },
        }
    }

    fn decimal(&self, f: &mut fmt::Formatter<'_>, form: Form) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let mut mantissa = self.nano;
        let mut exponent = -9;
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        write!(f, "{mantissa}")?;
        match (form, exponent) {
            (_, 0) => Ok(()),
            (Form::DecimalExponent, e) => write!(f, "e{e}"),
            (_, e) => f.write_str(match e {
                -9 => "n",
                -6 => "u",
                -3 => "m",
                3 => "k",
                6 => "M",
                9 => "G",
                12 => "T",
                15 => "P",
                _ => "E",
            }),
        }
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nano.abs() < 1024 * NANO;
        if self.form != Form::BinarySi || small || !self.is_integer() {
            let form = match self.form {
                Form::DecimalExponent => Form::DecimalExponent,
                _ => Form::DecimalSi,
            };
            return self.decimal(f, form);
        }
        let mut mantissa = self.nano / NANO;
        let mut power = 0;
        while mantissa % 1024 == 0 && power < 6 {
            mantissa /= 1024;
            power += 1;
        }
        let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        write!(f, "{mantissa}{}", suffix[power])
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    /// 10 to this power.
    Ten(i32),
    /// 1024 to this power.
    Kibi(u32),
}

fn suffix_of(suffix: &str) -> Result<(Scale, Form), ParseError> {
    let si = |e| Ok((Scale::Ten(e), Form::DecimalSi));
    let binary = |p| Ok((Scale::Kibi(p), Form::BinarySi));
    match suffix {
        "" => si(0),
        "n" => si(-9),
        "u" => si(-6),
        "m" => si(-3),
        "k" => si(3),
        "M" => si(6),
        "G" => si(9),
        "T" => si(12),
        "P" => si(15),
        "E" => si(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let letters = suffix
                .bytes()
                .take_while(|b| b"eEinumkKMGTP".contains(b))
                .count();
            let rest = &suffix[letters..];
            let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
            if !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(ParseError::Format);
            }
            if !matches!(&suffix[..letters], "e" | "E") || digits.is_empty() {
                return Err(ParseError::Suffix);
            }
            let exponent = rest.parse::<i32>().map_err(|_| ParseError::Suffix)?;
            Ok((Scale::Ten(exponent), Form::DecimalExponent))
        }
    }
}

/// The number in nano-units, rounded up and capped.
fn magnitude(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let fraction = fraction.trim_end_matches('0');
    let digits = whole
        .bytes()
        .chain(fraction.bytes())
        .skip_while(|b| *b == b'0');
    let mut mantissa: i128 = 0;
    let mut dropped = 0i32;
    let mut rest = false;
    for b in digits {
        // 24 digits hold the cap in any scale; more only decide whether to round up.
        if mantissa < 10i128.pow(24) && dropped == 0 {
            mantissa = mantissa * 10 + i128::from(b - b'0');
        } else {
            dropped += 1;
            rest |= b != b'0';
        }
    }
    let mut exponent = dropped - fraction.len() as i32 + 9;
    if let Scale::Kibi(power) = scale {
        let Some(scaled) = mantissa.checked_mul(1024i128.pow(power)) else {
            return MAX;
        };
        mantissa = scaled;
    } else if let Scale::Ten(e) = scale {
        exponent = exponent.saturating_add(e);
    }
    while exponent > 0 && mantissa != 0 {
        mantissa = mantissa.saturating_mul(10);
        if mantissa > MAX {
            return MAX;
        }
        exponent -= 1;
    }
    while exponent < 0 {
        rest |= mantissa % 10 != 0;
        mantissa /= 10;
        exponent += 1;
        if mantissa == 0 {
            break;
        }
    }
    (mantissa + i128::from(rest)).min(MAX)
}

fn divide_up(n: i128, by: i128) -> i128 {
    let quotient = n / by;
    match n % by {
        0 => quotient,
        r if r > 0 => quotient + 1,
        _ => quotient - 1,
    }
}

fn saturate(n: i128) -> i64 {
    n.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", "0")]
    #[case("1000m", "1")]
    #[case("1500m", "1500m")]
    #[case("0.5", "500m")]
    #[case(".5", "500m")]
    #[case("+1.", "1")]
    #[case("1.5Gi", "1536Mi")]
    #[case("1024", "1024")]
    #[case("1024Ki", "1Mi")]
    #[case("0.5Ki", "512")]
    #[case("0.1Ki", "102400m")]
    #[case("1.3Ki", "1331200m")]
    #[case("12000", "12k")]
    #[case("100000", "100k")]
    #[case("1e3", "1e3")]
    #[case("1E3", "1e3")]
    #[case("1.5e3", "1500")]
    #[case("-1", "-1")]
    #[case("-1500Mi", "-1500Mi")]
    #[case("0.0000000001", "1n")]
    #[case("5E", "5E")]
    #[case("100E", "9223372036854775807")]
    #[case("123456789.123456789", "123456789123456789n")]
    #[case("0Ki", "0")]
    fn canonical(#[case] text: &str, #[case] form: &str) {
        assert_eq!(
            Quantity::parse(text).map(|q| q.to_string()),
            Ok(form.into())
        );
    }

    #[rstest]
    #[case("", ParseError::Format)]
    #[case("lots", ParseError::Format)]
    #[case("1Q", ParseError::Format)]
    #[case("1KiB", ParseError::Format)]
    #[case("1KK", ParseError::Suffix)]
    #[case("1e", ParseError::Suffix)]
    #[case("1.2.3", ParseError::Numeric)]
    #[case("1 ", ParseError::Format)]
    fn refused(#[case] text: &str, #[case] error: ParseError) {
        assert_eq!(Quantity::parse(text), Err(error));
    }

    #[test]
    fn compare_and_round() {
        let q = |t| Quantity::parse(t).expect("quantity");
        assert_eq!(q("1Gi"), q("1024Mi"));
        assert!(q("999m") < q("1"));
        assert_eq!(q("1.5").value(), 2);
        assert_eq!(q("100n").milli(), 1);
        assert_eq!(q("2Gi").value(), 2 << 30);
        assert_eq!(q("8E").milli(), i64::MAX);
        assert_eq!(q("1").saturating_add(q("500m")).to_string(), "1500m");
    }

    proptest::proptest! {
        #[test]
        fn canonical_form_is_a_fixed_point(n in -1_000_000_000_000i64..1_000_000_000_000, s in 0usize..12) {
            let suffix = ["n","u","m","","k","M","G","Ki","Mi","Gi","e3","e-3"][s];
            let q = Quantity::parse(&format!("{n}{suffix}")).expect("quantity");
            let again = Quantity::parse(&q.to_string()).expect("canonical");
            proptest::prop_assert_eq!(q, again);
            proptest::prop_assert_eq!(q.to_string(), again.to_string());
        }
    }
}
