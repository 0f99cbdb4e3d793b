//! Values of a scenario's fields.

use crate::object::parse_quantity;

/// A name as objects of the API have.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let good = text.len() <= 60
        && text.chars().all(fits)
        && ends(text.chars().next())
        && ends(text.chars().last());
    match good {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is no name: want at most 60 lower case letters, digits, '-' and '.', letters or digits at both ends"
        )),
    }
}

/// How many times as fast as the clock.
pub fn speed(text: &str) -> Result<f64, String> {
    text.trim()
        .parse()
        .ok()
        .filter(|it| (0.01..=10_000.0).contains(it))
        .ok_or_else(|| {
            format!(
                "{text:?} is no speed: want simulated seconds in one of the clock's, 0.01 to 10000"
            )
        })
}

pub(super) fn number(text: &str) -> Result<u32, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("{text:?} is no whole number from 0 on"))
}

pub(super) fn count(text: &str) -> Result<u32, String> {
    number(text).and_then(|it| match it {
        1..=100_000 => Ok(it),
        _ => Err(format!("{it} is not between 1 and 100000")),
    })
}

pub(super) fn quantity(resource: &'static str) -> impl Fn(&str) -> Result<String, String> {
    move |text| match parse_quantity(resource, text) {
        Some(1..) => Ok(text.trim().to_owned()),
        _ => Err(format!(
            "{text:?} is no amount of {resource} above 0, such as 500m, 64 or 256Gi"
        )),
    }
}

pub(super) fn extended(text: &str) -> Result<String, String> {
    match parse_quantity("extended", text) {
        Some(0..) => Ok(text.trim().to_owned()),
        _ => Err(format!("{text:?} is no amount such as 8")),
    }
}

pub(super) fn bytes(text: &str) -> Result<u64, String> {
    parse_quantity("bytes", text)
        .and_then(|it| u64::try_from(it).ok())
        .ok_or_else(|| format!("{text:?} is no number of bytes such as 350Mi"))
}

#[expect(clippy::cast_precision_loss, reason = "bytes a second, far below 2^53")]
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match bytes(text)? {
        0 => Err("a registry that sends nothing: leave it out for one without a bound".into()),
        bytes => Ok(bytes as f64),
    }
}
