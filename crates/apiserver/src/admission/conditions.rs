//! `matchConditions` of webhooks and policies: CEL expressions that a request must all meet.

use serde_json::Value;

/// The conditions of one webhook or policy.
#[derive(Debug, Default)]
pub struct Conditions {
    names: Vec<String>,
}

impl Conditions {
    /// Of a list of `{name, expression}`.
    pub fn parse(list: Option<&Value>) -> Conditions {
        let all = list.and_then(Value::as_array);
        let names = all.into_iter().flatten();
        Conditions {
            names: names
                .map(|c| crate::object::text(c, "/name").to_owned())
                .collect(),
        }
    }

    /// Whether there is nothing to meet.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a request meets them all.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn meet(&self) -> Result<bool, String> {
        match self.names.first() {
            None => Ok(true),
            Some(name) => Err(format!(
                "matchCondition {name:?}: this server does not evaluate CEL yet"
            )),
        }
    }
}
