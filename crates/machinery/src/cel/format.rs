//! Named formats (`format.dns1123Label()`), as Kubernetes' CEL library has them.

use std::{rc::Rc, sync::LazyLock};

use regex::Regex;

use super::value::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format(usize);

struct Rule {
    name: &'static str,
    check: fn(&str) -> Vec<String>,
}

const RULES: [Rule; 13] = [
    Rule {
        name: "dns1123Label",
        check: |t| label_1123(t),
    },
    Rule {
        name: "dns1123Subdomain",
        check: |t| subdomain_1123(t),
    },
    Rule {
        name: "dns1035Label",
        check: |t| label_1035(t),
    },
    Rule {
        name: "qualifiedName",
        check: |t| qualified(t),
    },
    Rule {
        name: "dns1123LabelPrefix",
        check: |t| label_1123(&unprefixed(t)),
    },
    Rule {
        name: "dns1123SubdomainPrefix",
        check: |t| subdomain_1123(&unprefixed(t)),
    },
    Rule {
        name: "dns1035LabelPrefix",
        check: |t| label_1035(&unprefixed(t)),
    },
    Rule {
        name: "labelValue",
        check: |t| label_value(t),
    },
    Rule {
        name: "uri",
        check: |t| match super::net::parse_url(t) {
            Ok(_) => vec![],
            Err(fault) => vec![fault.to_string()],
        },
    },
    Rule {
        name: "uuid",
        check: |t| {
            matches(
                t,
                r"^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$",
                "does not match the UUID format",
            )
        },
    },
    Rule {
        name: "byte",
        check: |t| {
            use base64::Engine as _;
            match base64::engine::general_purpose::STANDARD.decode(t) {
                Ok(_) => vec![],
                Err(_) => vec!["invalid base64".to_owned()],
            }
        },
    },
    Rule {
        name: "date",
        check: |t| {
            if t.len() == 10 && t.parse::<jiff::civil::Date>().is_ok() {
                vec![]
            } else {
                vec!["invalid date".to_owned()]
            }
        },
    },
    Rule {
        name: "datetime",
        check: |t| {
            if super::time::parse_timestamp(t).is_some() {
                vec![]
            } else {
                vec!["invalid datetime".to_owned()]
            }
        },
    },
];

/// A name that will be prefixed may end in a dash.
fn unprefixed(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if text.len() > 1 => format!("{rest}a"),
        _ => text.to_owned(),
    }
}

fn matches(text: &str, pattern: &str, fault: &str) -> Vec<String> {
    // The patterns are constants of this file, tested below.
    let fits = Regex::new(pattern).is_ok_and(|p| p.is_match(text));
    if fits { vec![] } else { vec![fault.to_owned()] }
}

fn checked(
    text: &str,
    pattern: &'static LazyLock<Option<Regex>>,
    most: usize,
    fault: &str,
) -> Vec<String> {
    let mut faults = vec![];
    if text.len() > most {
        faults.push(format!("must be no more than {most} bytes"));
    }
    if !pattern.as_ref().is_some_and(|p| p.is_match(text)) {
        faults.push(fault.to_owned());
    }
    faults
}

fn label_1123(text: &str) -> Vec<String> {
    static PATTERN: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$").ok());
    checked(
        text,
        &PATTERN,
        63,
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    )
}

fn subdomain_1123(text: &str) -> Vec<String> {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$").ok()
    });
    checked(
        text,
        &PATTERN,
        253,
        r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
}

fn label_1035(text: &str) -> Vec<String> {
    static PATTERN: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new("^[a-z]([-a-z0-9]*[a-z0-9])?$").ok());
    checked(
        text,
        &PATTERN,
        63,
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    )
}

fn label_value(text: &str) -> Vec<String> {
    static PATTERN: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$").ok());
    checked(
        text,
        &PATTERN,
        63,
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    )
}

fn qualified(text: &str) -> Vec<String> {
    static PATTERN: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new("^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$").ok());
    const FAULT: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    match text.split_once('/') {
        None => checked(text, &PATTERN, 63, FAULT),
        Some((prefix, name)) => {
            let mut faults: Vec<String> = subdomain_1123(prefix)
                .into_iter()
                .map(|f| format!("prefix part {f}"))
                .collect();
            faults.extend(checked(name, &PATTERN, 63, FAULT));
            faults
        }
    }
}

impl Format {
    pub(super) fn named(name: &str) -> Option<Format> {
        RULES.iter().position(|r| r.name == name).map(Format)
    }

    /// Nothing where the text has the format, else what is wrong with it.
    pub(super) fn validate<'a>(self, text: &str) -> Value<'a> {
        let faults = RULES.get(self.0).map_or_else(Vec::new, |r| (r.check)(text));
        if faults.is_empty() {
            return Value::Optional(None);
        }
        let list = faults.into_iter().map(Value::text).collect();
        Value::Optional(Some(Rc::new(Value::list(list))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (name, good, bad) in [
            ("dns1123Label", "a-1", "A"),
            ("dns1123Subdomain", "a.b", "a..b"),
            ("dns1035Label", "a1", "1a"),
            ("qualifiedName", "x.y/Z_1", "x/y/z"),
            ("dns1123LabelPrefix", "a-", "-a"),
            ("labelValue", "", "-"),
            ("uri", "https://a.b/c", "a"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "x"),
            ("byte", "aGk=", "%"),
            ("date", "2026-01-31", "2026-02-30"),
            ("datetime", "2026-01-31T00:00:00Z", "2026-01-31"),
        ] {
            let format = Format::named(name).expect(name);
            assert!(
                matches!(format.validate(good), Value::Optional(None)),
                "{name} {good}"
            );
            assert!(
                matches!(format.validate(bad), Value::Optional(Some(_))),
                "{name} {bad}"
            );
        }
        assert!(Format::named("nope").is_none());
    }
}
