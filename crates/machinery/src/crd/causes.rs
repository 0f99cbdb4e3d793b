//! Faults of fields in Kubernetes' words (`k8s.io/apimachinery/pkg/util/validation/field`).

use serde_json::Value;

use crate::status::Cause;

fn cause(reason: &str, field: &str, message: String) -> Cause {
    Cause {
        reason: reason.to_owned(),
        message,
        field: field.to_owned(),
    }
}

fn with_detail(message: &str, detail: &str) -> String {
    if detail.is_empty() {
        message.to_owned()
    } else {
        format!("{message}: {detail}")
    }
}

pub(super) fn required(field: &str, detail: &str) -> Cause {
    cause(
        "FieldValueRequired",
        field,
        with_detail("Required value", detail),
    )
}

pub(super) fn invalid(field: &str, value: &Value, detail: &str) -> Cause {
    let message = with_detail(&format!("Invalid value: {value}"), detail);
    cause("FieldValueInvalid", field, message)
}

/// As [`invalid`], for a value whose members Kubernetes prints in an order of its own.
pub(super) fn invalid_text(field: &str, value: &str, detail: &str) -> Cause {
    let message = with_detail(&format!("Invalid value: {value}"), detail);
    cause("FieldValueInvalid", field, message)
}

pub(super) fn type_invalid(field: &str, value: &Value, detail: &str) -> Cause {
    let message = with_detail(&format!("Invalid value: {value}"), detail);
    cause("FieldValueTypeInvalid", field, message)
}

pub(super) fn forbidden(field: &str, detail: &str) -> Cause {
    cause("FieldValueForbidden", field, format!("Forbidden: {detail}"))
}

pub(super) fn duplicate(field: &str, value: &Value) -> Cause {
    cause(
        "FieldValueDuplicate",
        field,
        format!("Duplicate value: {value}"),
    )
}

/// `supported` in the order in which it is listed; texts are quoted.
pub(super) fn not_supported(field: &str, value: &Value, supported: &[String]) -> Cause {
    let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
    cause(
        "FieldValueNotSupported",
        field,
        format!(
            "Unsupported value: {value}: supported values: {}",
            quoted.join(", ")
        ),
    )
}

pub(super) fn too_long(field: &str, most: u64) -> Cause {
    cause(
        "FieldValueTooLong",
        field,
        format!("Too long: may not be more than {most} bytes"),
    )
}

pub(super) fn too_many(field: &str, actual: usize, most: u64) -> Cause {
    let items = if most == 1 { "item" } else { "items" };
    cause(
        "FieldValueTooMany",
        field,
        format!("Too many: {actual}: must have at most {most} {items}"),
    )
}
