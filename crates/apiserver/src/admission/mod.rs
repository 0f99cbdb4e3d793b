//! Admission: what may come in, and what is filled in on the way.

use gantry_machinery::status::Failure;
use serde_json::Value;

use crate::{api::Cx, rest::write::Refused};

mod namespace;

/// Fills in and refuses before validation.
pub fn mutate(cx: &mut Cx, object: &mut Value, old: Option<&Value>) -> Result<(), Failure> {
    namespace::check(cx, object, old)?;
    Ok(())
}

/// What a request has taken of quotas, given back when it fails.
#[derive(Default)]
pub struct Charges;

impl Charges {
    pub async fn undo(self, _cx: &mut Cx) {}
}

/// Refuses after validation.
pub async fn validate(
    _cx: &mut Cx,
    _object: &Value,
    _old: Option<&Value>,
) -> Result<Charges, Refused> {
    Ok(Charges)
}

/// Refuses deletions.
pub fn deletion(cx: &Cx, object: &Value) -> Result<(), Failure> {
    namespace::protect(cx, object)
}
