//! Versions (semver 2.0), as Kubernetes' CEL library has them.

use std::cmp::Ordering;

use super::{error::Fault, value::Value};

/// A version; build metadata takes no part in comparison.
#[derive(Debug, Clone)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other).is_eq()
    }
}
impl Eq for Semver {}

/// `normalize` also takes a leading `v`, fewer than three numbers and leading zeros.
pub(super) fn parse(text: &str, normalize: bool) -> Result<Semver, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!(
            "Semver parse error during conversion from string: {why}"
        ))
    };
    let text = if normalize {
        text.trim().trim_start_matches('v')
    } else {
        text
    };
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (version, pre) = match text.split_once('-') {
        Some((version, pre)) => (version, Some(pre)),
        None => (text, None),
    };
    let parts: Vec<&str> = version.split('.').collect();
    if parts.len() > 3 || (parts.len() < 3 && !normalize) {
        return Err(wrong("No Major.Minor.Patch elements found"));
    }
    let mut numbers = [0; 3];
    for (slot, part) in numbers.iter_mut().zip(&parts) {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong(&format!(
                "Invalid character(s) found in version number {part:?}"
            )));
        }
        if part.len() > 1 && part.starts_with('0') && !normalize {
            return Err(wrong(&format!(
                "Version number must not contain leading zeroes {part:?}"
            )));
        }
        *slot = part
            .parse()
            .map_err(|_| wrong("version number out of range"))?;
    }
    let allowed = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let mut list = Vec::new();
    for part in pre.into_iter().flat_map(|p| p.split('.')) {
        if !allowed(part) {
            return Err(wrong(&format!(
                "Invalid character(s) found in prerelease {part:?}"
            )));
        }
        list.push(match part.parse() {
            Ok(n) if part.bytes().all(|b| b.is_ascii_digit()) => Part::Number(n),
            _ => Part::Text(part.to_owned()),
        });
    }
    if build.is_some_and(|b| !b.split('.').all(allowed)) {
        return Err(wrong("Invalid character(s) found in build meta data"));
    }
    Ok(Semver { numbers, pre: list })
}

impl Semver {
    pub(super) fn compare(&self, other: &Semver) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            // Without a pre-release a version is after all that have one.
            match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => self.pre.cmp(&other.pre),
            }
        })
    }

    pub(super) fn call<'a>(&self, function: &str, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
        let number = |i: usize| Value::Int(i64::try_from(self.numbers[i]).unwrap_or(i64::MAX));
        Ok(match (function, args) {
            ("major", []) => number(0),
            ("minor", []) => number(1),
            ("patch", []) => number(2),
            ("isGreaterThan", [Value::Semver(o)]) => Value::Bool(self.compare(o).is_gt()),
            ("isLessThan", [Value::Semver(o)]) => Value::Bool(self.compare(o).is_lt()),
            ("compareTo", [Value::Semver(o)]) => Value::Int(self.compare(o) as i64),
            _ => return Err(Fault::no_overload()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered() {
        let order = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0",
            "1.2.0",
            "2.0.0",
        ];
        for pair in order.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|t| parse(t, false).expect(t));
            assert_eq!(a.compare(&b), Ordering::Less, "{pair:?}");
        }
        assert!(parse("v1.2", false).is_err());
        assert!(parse("v1.2", true).is_ok());
        assert!(parse("01.2.3", false).is_err());
    }
}
