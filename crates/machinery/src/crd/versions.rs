//! Rules for the versions of a definition: names, schemas, subresources, columns, selectable fields.

use serde_json::Value;

use super::{
    causes::{duplicate, invalid, invalid_text, required, too_many},
    definition::dns_1035_fault,
    structural::{check, text},
};
use crate::status::Cause;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
    "",
];

/// What all versions say alike, and so is said once.
fn common<'a>(versions: &[&'a Value], name: &str) -> Option<&'a Value> {
    let first = versions.first()?.get(name)?;
    versions
        .iter()
        .all(|v| v.get(name) == Some(first))
        .then_some(first)
}

pub(super) fn versions(spec: &Value, faults: &mut Vec<Cause>) {
    let all: Vec<&Value> = spec
        .get("versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    for (i, version) in all.iter().enumerate() {
        if version
            .pointer("/schema/openAPIV3Schema")
            .is_none_or(Value::is_null)
        {
            faults.push(required(
                &format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "",
            ));
        }
    }
    let shown = printed(&all);
    for (i, version) in all.iter().enumerate() {
        let at = format!("spec.versions[{i}]");
        let name = text(version, "name");
        if let Some(fault) = dns_1035_fault(name) {
            faults.push(invalid(&format!("{at}.name"), &Value::from(name), &fault));
        }
        let warning = version.get("deprecationWarning").and_then(Value::as_str);
        if let Some(warning) = warning {
            let why = if version["deprecated"] != true {
                "can only be set for deprecated versions"
            } else if warning.len() > 256 {
                "must be <= 256 characters long"
            } else if warning.is_empty() {
                "must not be an empty string"
            } else {
                ""
            };
            if !why.is_empty() {
                faults.push(invalid(
                    &format!("{at}.deprecationWarning"),
                    &Value::from(warning),
                    why,
                ));
            }
        }
        if common(&all, "schema").is_none() {
            version_schema(
                version.get("schema"),
                version,
                &format!("{at}.schema"),
                faults,
            );
        }
        if common(&all, "subresources").is_none() {
            subresources(
                version.get("subresources"),
                &format!("{at}.subresources"),
                faults,
            );
        }
        if common(&all, "additionalPrinterColumns").is_none() {
            let field = format!("{at}.additionalPrinterColumns");
            columns(version.get("additionalPrinterColumns"), &field, faults);
        }
    }
    let shared = common(&all, "selectableFields").is_some();
    for (i, version) in all.iter().enumerate() {
        if shared && i > 0 {
            break;
        }
        let field = if shared {
            "spec.selectableFields".to_owned()
        } else {
            format!("spec.versions[{i}].selectableFields")
        };
        let schema = version.pointer("/schema/openAPIV3Schema");
        selectable(version.get("selectableFields"), schema, &field, faults);
    }
    let mut seen: Vec<&str> = all.iter().map(|v| text(v, "name")).collect();
    let first = seen.first().copied();
    seen.sort_unstable();
    if seen.windows(2).any(|w| w[0] == w[1]) {
        faults.push(invalid_text(
            "spec.versions",
            &shown,
            "must contain unique version names",
        ));
    }
    if all.iter().filter(|v| v["storage"] == true).count() != 1 {
        faults.push(invalid_text(
            "spec.versions",
            &shown,
            "must have exactly one version marked as storage version",
        ));
    }
    if let Some(first) = first
        && let Some(fault) = dns_1035_fault(first)
    {
        faults.push(invalid("spec.version", &Value::from(first), &fault));
    }
    if let Some(schema) = common(&all, "schema") {
        let version = all.first().copied().unwrap_or(&Value::Null);
        version_schema(Some(schema), version, "spec.validation", faults);
    }
    if let Some(sub) = common(&all, "subresources") {
        subresources(Some(sub), "spec.subresources", faults);
    }
    if let Some(list) = common(&all, "additionalPrinterColumns") {
        columns(Some(list), "spec.additionalPrinterColumns", faults);
    }
}

/// Versions as Go prints its own type of them; schemas and the like stand elsewhere by then.
fn printed(versions: &[&Value]) -> String {
    let items: Vec<String> = versions
        .iter()
        .map(|v| {
            format!(
                "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}}",
                v["name"],
                v["served"] == true,
                v["storage"] == true,
                v["deprecated"] == true,
                v["deprecationWarning"],
            )
        })
        .collect();
    format!("[{}]", items.join(","))
}

fn version_schema(schema: Option<&Value>, version: &Value, field: &str, faults: &mut Vec<Cause>) {
    let Some(root) = schema
        .and_then(|s| s.get("openAPIV3Schema"))
        .filter(|s| !s.is_null())
    else {
        return;
    };
    let field = format!("{field}.openAPIV3Schema");
    let has_status = version
        .pointer("/subresources/status")
        .is_some_and(|s| !s.is_null());
    if has_status {
        const ALLOWED: [&str; 8] = [
            "$ref",
            "description",
            "type",
            "properties",
            "title",
            "required",
            "example",
            "nullable",
        ];
        let kind = text(root, "type");
        if !kind.is_empty() && kind != "object" {
            faults.push(invalid(
                &format!("{field}.type"),
                &Value::from(kind),
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
            ));
            return;
        }
        let junction = ["anyOf", "oneOf", "not"]
            .iter()
            .any(|k| root.get(k).is_some());
        if junction && !ALLOWED.is_empty() {
            faults.push(invalid(
                &field,
                root,
                &format!(
                    "only {ALLOWED:?} fields are allowed at the root of the schema if the status subresource is enabled"
                ),
            ));
            return;
        }
    }
    faults.extend(check(root, &field));
}

fn subresources(value: Option<&Value>, field: &str, faults: &mut Vec<Cause>) {
    let Some(scale) = value.and_then(|v| v.get("scale")).filter(|s| !s.is_null()) else {
        return;
    };
    for (name, under, detail, needed) in [
        (
            "specReplicasPath",
            &[".spec."][..],
            "should be a json path under .spec",
            true,
        ),
        (
            "statusReplicasPath",
            &[".status."],
            "should be a json path under .status",
            true,
        ),
        (
            "labelSelectorPath",
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
            false,
        ),
    ] {
        let path = text(scale, name);
        let field = format!("{field}.scale.{name}");
        if path.is_empty() {
            if needed {
                faults.push(required(&field, ""));
            }
            continue;
        }
        let before = faults.len();
        simple_path(path, &field, faults);
        if faults.len() == before && !under.iter().any(|u| path.starts_with(u)) {
            faults.push(invalid(&field, &Value::from(path), detail));
        }
    }
}

/// `.a.b['c']`: the JSON paths that definitions may use.
fn simple_path(path: &str, field: &str, faults: &mut Vec<Cause>) {
    let value = Value::from(path);
    if path.is_empty() {
        faults.push(invalid(field, &value, "must not be empty"));
    } else if !path.starts_with('.') {
        faults.push(invalid(
            field,
            &value,
            "must be a simple json path starting with .",
        ));
    }
}

fn columns(value: Option<&Value>, field: &str, faults: &mut Vec<Cause>) {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    for (i, column) in list.enumerate() {
        let at = format!("{field}[{i}]");
        if text(column, "name").is_empty() {
            faults.push(required(&format!("{at}.name"), ""));
        }
        let kind = text(column, "type");
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        if kind.is_empty() {
            faults.push(required(&format!("{at}.type"), &detail));
        } else if !COLUMN_TYPES.contains(&kind) {
            faults.push(invalid(&format!("{at}.type"), &Value::from(kind), &detail));
        }
        let format = text(column, "format");
        if !COLUMN_FORMATS.contains(&format) {
            let known: Vec<&str> = COLUMN_FORMATS
                .into_iter()
                .filter(|f| !f.is_empty())
                .collect();
            faults.push(invalid(
                &format!("{at}.format"),
                &Value::from(format),
                &format!("must be one of {}", known.join(",")),
            ));
        }
        let path = text(column, "jsonPath");
        if path.is_empty() {
            faults.push(required(&format!("{at}.JSONPath"), ""));
        } else {
            simple_path(path, &format!("{at}.JSONPath"), faults);
        }
    }
}

/// Fields that field selectors may name.
fn selectable(list: Option<&Value>, schema: Option<&Value>, field: &str, faults: &mut Vec<Cause>) {
    const MOST: u64 = 8;
    let paths: Vec<&str> = list
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|f| text(f, "jsonPath"))
        .collect();
    for (i, path) in paths.iter().enumerate() {
        let at = format!("{field}[{i}].jsonPath");
        let value = Value::from(*path);
        if path.is_empty() {
            faults.push(required(&at, ""));
            continue;
        }
        let Some(steps) = path.strip_prefix('.') else {
            faults.push(invalid(
                &at,
                &value,
                "is an invalid path: must start with .",
            ));
            continue;
        };
        if steps.split('.').next() == Some("metadata") {
            faults.push(invalid(&at, &value, "must not point to fields in metadata"));
        } else {
            let found = steps
                .split('.')
                .try_fold(schema.unwrap_or(&Value::Null), |s, step| {
                    s.get("properties").and_then(|p| p.get(step))
                });
            let selectable =
                found.is_some_and(|f| matches!(text(f, "type"), "string" | "boolean" | "integer"));
            if found.is_none() {
                faults.push(invalid(
                    &at,
                    &value,
                    "is an invalid path: does not refer to a valid field",
                ));
            } else if !selectable {
                faults.push(invalid(
                    &at,
                    &value,
                    "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
                ));
            }
        }
        if paths[..i].contains(path) {
            faults.push(duplicate(&at, &value));
        }
    }
    if paths.len() as u64 > MOST {
        faults.push(too_many(field, paths.len(), MOST));
    }
}
