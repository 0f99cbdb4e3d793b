//! Quantities of resources as whole numbers, to be reckoned with.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts in thousandths.
pub type Amounts = BTreeMap<String, i128>;

/// A quantity in thousandths; what is finer is rounded up. `None` if it is no quantity.
pub fn thousandths(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.as_str();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Ten or two to which power.
    let (ten, two) = match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => (suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?, 0),
    };
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let amount = digits.checked_mul(1 << two)?;
    let exponent = ten
        .checked_add(3)?
        .checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let power = 10i128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 {
        amount.checked_mul(power?)
    } else {
        // Finer than there are digits for: as good as nothing, and rounded up.
        let power = power.unwrap_or(i128::MAX);
        Some(amount.div_euclid(power) + i128::from(amount.rem_euclid(power) != 0))
    }
}

/// Adds quantities to amounts.
pub fn add(amounts: &mut Amounts, more: &BTreeMap<String, Quantity>) {
    for (name, quantity) in more {
        if let Some(n) = thousandths(quantity) {
            *amounts.entry(name.clone()).or_default() += n;
        }
    }
}

/// Amounts as quantities: thousandths for CPU, binary for memory.
pub fn shown(amounts: &Amounts) -> BTreeMap<String, Quantity> {
    let text = |name: &str, n: i128| {
        if n % 1000 != 0 {
            return format!("{n}m");
        }
        let n = n / 1000;
        let binary = name.contains("memory") || name.contains("storage");
        match () {
            () if binary && n > 0 && n % (1 << 30) == 0 => format!("{}Gi", n >> 30),
            () if binary && n > 0 && n % (1 << 20) == 0 => format!("{}Mi", n >> 20),
            () if binary && n > 0 && n % (1 << 10) == 0 => format!("{}Ki", n >> 10),
            () => n.to_string(),
        }
    };
    amounts
        .iter()
        .map(|(name, n)| (name.clone(), Quantity(text(name, *n))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_add_up() {
        for (text, want) in [
            ("100m", Some(100)),
            ("2", Some(2_000)),
            ("1.5", Some(1_500)),
            ("1Ki", Some(1_024_000)),
            ("3M", Some(3_000_000_000)),
            ("1e3", Some(1_000_000)),
            ("40160m", Some(40_160)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("1u", Some(1)),
            ("-2", Some(-2_000)),
            ("0.1", Some(100)),
            ("x", None),
        ] {
            assert_eq!(thousandths(&Quantity(text.into())), want, "{text}");
        }
        let mut sum = Amounts::new();
        let one = BTreeMap::from([
            ("cpu".to_owned(), Quantity("250m".into())),
            ("memory".to_owned(), Quantity("512Mi".into())),
        ]);
        for _ in 0..4 {
            add(&mut sum, &one);
        }
        assert_eq!(
            shown(&sum),
            BTreeMap::from([
                ("cpu".to_owned(), Quantity("1".into())),
                ("memory".to_owned(), Quantity("2Gi".into()))
            ])
        );
    }
}
