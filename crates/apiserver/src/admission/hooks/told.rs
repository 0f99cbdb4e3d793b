//! What of a webhook's part in a request is counted and told to the audit log.

use std::time::Duration;

use serde_json::{Value, json};

use super::{call::Trouble, configured::Hook};
use crate::{api::Cx, audit::Level, metrics::admission::Call};

/// A webhook that is asked about a request.
pub struct Told<'a> {
    pub hook: &'a Hook,
    pub operation: &'static str,
    /// Its place among the webhooks of the request: the end of the annotations' keys.
    pub place: String,
}

impl Told<'_> {
    fn call<'a>(&'a self, phase: &'a str) -> Call<'a> {
        Call {
            name: &self.hook.name,
            operation: self.operation,
            phase,
        }
    }

    /// Counts how it went.
    pub fn counted(&self, cx: &Cx, phase: &str, trouble: Option<&Trouble>, time: Duration) {
        let metrics = &cx.api.metrics.admission;
        let call = self.call(phase);
        let refused = match trouble {
            None => None,
            Some(Trouble::Call(_)) if !self.hook.fails => None,
            // As Kubernetes counts what was no answer.
            Some(Trouble::Call(_)) => Some(("calling_webhook_error", 503)),
            Some(Trouble::Denied(failure)) => Some(("no_error", failure.code)),
            Some(Trouble::Failed(_)) => Some(("apiserver_internal_error", 0)),
        };
        metrics.hook(call, refused.is_some(), time);
        if let Some((error, code)) = refused {
            metrics.rejection(call, error, code);
        }
    }

    /// It could not be asked, and the request goes on without.
    pub fn failed_open(&self, cx: &Cx, phase: &str, prefix: &str) {
        cx.api.metrics.admission.failed_open(self.call(phase));
        let key = format!("{prefix}/{}", self.place);
        cx.notes.add(key, self.hook.name.as_str());
    }

    /// What it has to say itself.
    pub fn annotated(&self, cx: &Cx, annotations: &[(String, String)]) {
        for (key, value) in annotations {
            cx.notes
                .add(format!("{}/{key}", self.hook.name), value.as_str());
        }
    }

    fn about(&self) -> Value {
        json!({"configuration": self.hook.configuration(), "webhook": self.hook.name})
    }

    /// Whether it changed the object.
    pub fn mutated(&self, cx: &Cx, changed: bool) {
        if !cx.notes.keep(Level::Metadata) {
            return;
        }
        let mut about = self.about();
        about["mutated"] = changed.into();
        let key = format!("mutation.webhook.admission.k8s.io/{}", self.place);
        cx.notes.add(key, about.to_string());
    }

    /// By which patch: told where bodies are recorded too.
    pub fn patched(&self, cx: &Cx, patch: &[u8]) {
        if !cx.notes.keep(Level::Request) {
            return;
        }
        let patch: Value = serde_json::from_slice(patch).unwrap_or_default();
        if patch.as_array().is_none_or(Vec::is_empty) {
            return;
        }
        let mut about = self.about();
        about["patch"] = patch;
        about["patchType"] = "JSONPatch".into();
        let key = format!("patch.webhook.admission.k8s.io/{}", self.place);
        cx.notes.add(key, about.to_string());
    }
}
