//! `meta.k8s.io/v1 Status`: how the API says no.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json};

/// One field's fault, as `details.causes[]` of a Status carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueDuplicate`,
    /// `FieldValueForbidden`, `FieldValueNotFound`, `FieldValueTooLong`, `FieldValueTooMany`,
    /// `FieldValueTypeInvalid`, `FieldManagerConflict`, `UnexpectedServerResponse`, ….
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub message: String,
    /// `spec.containers[0].image`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// A failed request: what is sent as the Status body, with its HTTP code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: u16,
    /// `NotFound`, `Conflict`, `Invalid`, … (`metav1.StatusReason`); a webhook may give any.
    pub reason: Cow<'static, str>,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// `metadata.continue`: where a list can go on that cannot go on as it began.
    pub resume: Option<Box<str>>,
}

/// `Status.details`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// For a resource-level failure Kubernetes puts the plural name here, for `Invalid` the kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Failure {
    pub fn new(
        code: u16,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Failure {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
            resume: None,
        }
    }

    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The Status object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = serde_json::to_value(details).unwrap_or_default();
        }
        if let Some(token) = &self.resume {
            status["metadata"]["continue"] = (**token).into();
        }
        if self.reason.is_empty() {
            status.as_object_mut().map(|o| o.remove("reason"));
        }
        status
    }
}
