//! Quantities of resources as whole numbers: thousandths of a CPU, units of everything else.

use std::collections::BTreeMap;

/// Amounts by resource name: `cpu` in thousandths, the rest in units.
pub type Amounts = BTreeMap<String, i64>;

/// A Kubernetes quantity (`250m`, `1.5`, `2Gi`, `1e3`) of the named resource as a whole number,
/// rounded up as the API does; `None` if it is no quantity.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast from f64 saturates; amounts stay far below 2^53"
)]
pub fn parse_quantity(resource: &str, text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text
        .char_indices()
        .find(|&(i, c)| {
            let exponent = matches!(c, 'e' | 'E')
                && text[i + 1..].starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
            let sign = matches!(c, '+' | '-') && (i == 0 || text[..i].ends_with(['e', 'E']));
            !(c.is_ascii_digit() || c == '.' || exponent || sign)
        })
        .map_or(text.len(), |(i, _)| i);
    let number: f64 = text[..digits].parse().ok()?;
    let factor = match &text[digits..] {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => return None,
    };
    let scale = if resource == "cpu" { 1000.0 } else { 1.0 };
    // A hair below, so that 0.1 × 1000, a little over 100 in binary, is not rounded up to 101.
    Some((number * factor * scale - 1e-6).ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("cpu", "250m", Some(250))]
    #[case("cpu", "0.1", Some(100))]
    #[case("cpu", "2", Some(2000))]
    #[case("cpu", "1u", Some(1))]
    #[case("memory", "1.5Gi", Some(1_610_612_736))]
    #[case("memory", "128974848", Some(128_974_848))]
    #[case("memory", "129e6", Some(129_000_000))]
    #[case("memory", "129M", Some(129_000_000))]
    #[case("memory", "2E", Some(2_000_000_000_000_000_000))]
    #[case("pods", "110", Some(110))]
    #[case("memory", "0", Some(0))]
    #[case("memory", "12XB", None)]
    #[case("memory", "", None)]
    fn quantities(#[case] resource: &str, #[case] text: &str, #[case] amount: Option<i64>) {
        assert_eq!(parse_quantity(resource, text), amount);
    }
}
