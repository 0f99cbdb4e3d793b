//! Selectors: which objects a list, watch or deletecollection means, by label and by field.

mod fields;
mod labels;
mod syntax;

pub use fields::{FieldOperator, FieldRequirement, Fields, selectable};
pub use labels::{LabelLookup, Labels, Operator, Requirement};

use crate::status::Failure;

/// A selector that cannot be read, as the API server answers it in a query parameter.
fn bad_request(message: impl Into<String>) -> Failure {
    Failure::new(400, "BadRequest", message)
}
