//! Resource quantities (`500m`, `1.5Gi`, `3e3`) as whole numbers, rounded up as Kubernetes does.

/// The quantity in thousandths (CPU is counted in millicores). `None` if the text is no quantity.
#[must_use]
pub fn milli(text: &str) -> Option<i64> {
    scaled(text, 1000)
}

/// The quantity in whole units (bytes, devices). `None` if the text is no quantity.
#[must_use]
pub fn units(text: &str) -> Option<i64> {
    scaled(text, 1)
}

/// `text × scale`, rounded away from zero, saturating at the bounds of `i64`.
fn scaled(text: &str, scale: i128) -> Option<i64> {
    let text = text.trim();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // More digits than these change nothing that is counted here, and would overflow.
    let fraction = &fraction[..fraction.len().min(12)];
    let mut digits: i128 = 0;
    for c in whole.chars().chain(fraction.chars()) {
        digits = digits
            .checked_mul(10)?
            .checked_add(i128::from(c.to_digit(10)?))?;
    }
    let (factor, divisor): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let size = 10_i128.checked_pow(power.unsigned_abs().min(20))?;
            if power < 0 { (1, size) } else { (size, 1) }
        }
    };
    let divisor = divisor.checked_mul(10_i128.pow(u32::try_from(fraction.len()).ok()?))?;
    let product = digits.saturating_mul(factor).saturating_mul(scale);
    let value = product / divisor + i128::from(product % divisor != 0);
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_in_every_notation() {
        for (text, want_milli, want_units) in [
            ("0", Some(0), Some(0)),
            ("2", Some(2000), Some(2)),
            ("500m", Some(500), Some(1)),
            ("1500m", Some(1500), Some(2)),
            ("0.1", Some(100), Some(1)),
            (".5", Some(500), Some(1)),
            ("1.5Gi", Some(1_610_612_736_000), Some(1_610_612_736)),
            ("128974848", Some(128_974_848_000), Some(128_974_848)),
            ("129e6", Some(129_000_000_000), Some(129_000_000)),
            ("1E3", Some(1_000_000), Some(1000)),
            ("5E", Some(i64::MAX), Some(5_000_000_000_000_000_000)),
            ("100u", Some(1), Some(1)),
            ("1n", Some(1), Some(1)),
            ("-2", Some(-2000), Some(-2)),
            ("", None, None),
            ("Gi", None, None),
            ("1.2.3", None, None),
            ("1x", None, None),
        ] {
            assert_eq!(
                (milli(text), units(text)),
                (want_milli, want_units),
                "{text:?}"
            );
        }
    }
}
