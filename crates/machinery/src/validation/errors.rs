//! Collected faults, worded as Kubernetes words them.

use serde_json::Value;

use crate::{path::Path, status::Cause};

/// The faults found so far.
#[derive(Debug, Default)]
pub struct Errors {
    causes: Vec<Cause>,
}

impl Errors {
    pub fn into_causes(self) -> Vec<Cause> {
        self.causes
    }

    /// Adds all of another's faults.
    pub fn append(&mut self, other: &Errors) {
        self.causes.extend_from_slice(&other.causes);
    }

    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.causes.len()
    }

    fn add(&mut self, reason: &str, path: &Path<'_>, message: String) {
        self.causes.push(Cause {
            reason: reason.to_owned(),
            message,
            field: path.to_string(),
        });
    }

    /// Something mandatory is missing; `detail` may be empty.
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        let message = match detail {
            "" => "Required value".to_owned(),
            detail => format!("Required value: {detail}"),
        };
        self.add("FieldValueRequired", path, message);
    }

    /// `value` is what the message shows: a JSON value, written as Go writes it.
    pub fn invalid(&mut self, path: &Path<'_>, value: &Value, detail: &str) {
        self.invalid_shown(path, &show(value), detail);
    }

    pub fn invalid_text(&mut self, path: &Path<'_>, value: &str, detail: &str) {
        self.invalid_shown(path, &quote(value), detail);
    }

    pub fn invalid_int(&mut self, path: &Path<'_>, value: i64, detail: &str) {
        self.invalid_shown(path, &value.to_string(), detail);
    }

    /// `shown` goes into the message as it is.
    pub fn invalid_shown(&mut self, path: &Path<'_>, shown: &str, detail: &str) {
        let message = match detail {
            "" => format!("Invalid value: {shown}"),
            detail => format!("Invalid value: {shown}: {detail}"),
        };
        self.add("FieldValueInvalid", path, message);
    }

    /// The supported values are given in the order in which they are shown.
    pub fn not_supported(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        self.not_supported_shown(path, &quote(value), supported);
    }

    pub fn not_supported_shown(&mut self, path: &Path<'_>, shown: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|s| quote(s)).collect();
        self.add(
            "FieldValueNotSupported",
            path,
            format!(
                "Unsupported value: {shown}: supported values: {}",
                supported.join(", ")
            ),
        );
    }

    pub fn duplicate(&mut self, path: &Path<'_>, value: &Value) {
        self.duplicate_shown(path, &show(value));
    }

    pub fn duplicate_text(&mut self, path: &Path<'_>, value: &str) {
        self.duplicate_shown(path, &quote(value));
    }

    pub fn duplicate_shown(&mut self, path: &Path<'_>, shown: &str) {
        self.add(
            "FieldValueDuplicate",
            path,
            format!("Duplicate value: {shown}"),
        );
    }

    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.add("FieldValueForbidden", path, format!("Forbidden: {detail}"));
    }

    pub fn not_found(&mut self, path: &Path<'_>, value: &str) {
        self.add(
            "FieldValueNotFound",
            path,
            format!("Not found: {}", quote(value)),
        );
    }

    pub fn not_found_detailed(&mut self, path: &Path<'_>, value: &str, detail: &str) {
        let message = format!("Not found: {}: {detail}", quote(value));
        self.add("FieldValueNotFound", path, message);
    }

    pub fn duplicate_detailed(&mut self, path: &Path<'_>, shown: &str, detail: &str) {
        let message = format!("Duplicate value: {shown}: {detail}");
        self.add("FieldValueDuplicate", path, message);
    }

    pub fn too_long(&mut self, path: &Path<'_>, most: usize) {
        self.add(
            "FieldValueTooLong",
            path,
            format!("Too long: may not be more than {most} bytes"),
        );
    }

    /// A fault of the object as a whole, shown as an empty list.
    pub fn too_long_object(&mut self, most: usize) {
        self.causes.push(Cause {
            reason: "FieldValueTooLong".into(),
            message: format!("Too long: may not be more than {most} bytes"),
            field: "[]".into(),
        });
    }

    pub fn too_many(&mut self, path: &Path<'_>, actual: usize, most: usize) {
        self.add(
            "FieldValueTooMany",
            path,
            format!("Too many: {actual}: must have at most {most} items"),
        );
    }

    pub fn type_invalid(&mut self, path: &Path<'_>, shown: &str, detail: &str) {
        self.add(
            "FieldValueTypeInvalid",
            path,
            format!("Invalid value: {shown}: {detail}"),
        );
    }

    /// A name that must be there and be fully qualified; all that is wrong with it is one fault.
    pub fn fully_qualified(&mut self, path: &Path<'_>, name: &str) {
        let faults = super::names::dns1123_subdomain(name);
        if name.is_empty() {
            self.required(path, "");
        } else if !faults.is_empty() {
            self.invalid_text(path, name, &faults.join(","));
        } else if name.split('.').count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            self.invalid_text(path, name, why);
        }
    }

    /// Adds each of the texts as an invalid value.
    pub fn invalid_each<I>(&mut self, path: &Path<'_>, value: &str, details: I)
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        for detail in details {
            self.invalid_text(path, value, detail.as_ref());
        }
    }
}

/// A value as error messages show it: strings quoted, the rest as JSON with Go's escapes.
pub fn show(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => escape_html(&other.to_string()),
    }
}

/// Go's JSON encoder writes these three escaped.
pub fn escape_html(json: &str) -> String {
    if !json.contains(['<', '>', '&']) {
        return json.to_owned();
    }
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// Go's `%q`.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
