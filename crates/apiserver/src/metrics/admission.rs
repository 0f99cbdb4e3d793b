//! What admission costs and refuses, under Kubernetes' names.
//!
//! The built-in steps are a fixed set: their histograms are found by index. Webhooks and policies
//! come and go; their series are bounded by how many of them there are.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;

use super::{Histogram, micros};

/// A step of admission that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    DefaultIngressClass,
    DefaultStorageClass,
    DefaultTolerationSeconds,
    LimitRanger,
    MutatingAdmissionPolicy,
    MutatingAdmissionWebhook,
    NamespaceLifecycle,
    NodeRestriction,
    PersistentVolumeClaimResize,
    PodSecurity,
    PodTopologyLabels,
    Priority,
    ResourceQuota,
    RuntimeClass,
    ServiceAccount,
    StorageObjectInUseProtection,
    TaintNodesByCondition,
    ValidatingAdmissionPolicy,
    ValidatingAdmissionWebhook,
}

use Plugin::{
    DefaultIngressClass, DefaultStorageClass, DefaultTolerationSeconds, LimitRanger,
    MutatingAdmissionPolicy, MutatingAdmissionWebhook, NamespaceLifecycle, NodeRestriction,
    PersistentVolumeClaimResize, PodSecurity, PodTopologyLabels, Priority, ResourceQuota,
    RuntimeClass, ServiceAccount, StorageObjectInUseProtection, TaintNodesByCondition,
    ValidatingAdmissionPolicy, ValidatingAdmissionWebhook,
};

const PLUGINS: [(Plugin, &str); 19] = [
    (DefaultIngressClass, "DefaultIngressClass"),
    (DefaultStorageClass, "DefaultStorageClass"),
    (DefaultTolerationSeconds, "DefaultTolerationSeconds"),
    (LimitRanger, "LimitRanger"),
    (MutatingAdmissionPolicy, "MutatingAdmissionPolicy"),
    (MutatingAdmissionWebhook, "MutatingAdmissionWebhook"),
    (NamespaceLifecycle, "NamespaceLifecycle"),
    (NodeRestriction, "NodeRestriction"),
    (PersistentVolumeClaimResize, "PersistentVolumeClaimResize"),
    (PodSecurity, "PodSecurity"),
    (PodTopologyLabels, "PodTopologyLabels"),
    (Priority, "Priority"),
    (ResourceQuota, "ResourceQuota"),
    (RuntimeClass, "RuntimeClass"),
    (ServiceAccount, "ServiceAccount"),
    (StorageObjectInUseProtection, "StorageObjectInUseProtection"),
    (TaintNodesByCondition, "TaintNodesByCondition"),
    (ValidatingAdmissionPolicy, "ValidatingAdmissionPolicy"),
    (ValidatingAdmissionWebhook, "ValidatingAdmissionWebhook"),
];

impl Plugin {
    pub fn name(self) -> &'static str {
        PLUGINS[self as usize].1
    }
}

/// Which half of admission: that which may change the object, or the one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Admit,
    Validate,
}

const PHASES: [&str; 2] = ["admit", "validate"];
const OPERATIONS: [&str; 4] = ["CREATE", "UPDATE", "DELETE", "CONNECT"];
const REJECTED: [&str; 2] = ["false", "true"];

pub const STEP_SECONDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
pub const HOOK_SECONDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
pub const POLICY_SECONDS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];

/// What became of asking a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call<'a> {
    pub name: &'a str,
    pub operation: &'a str,
    pub phase: &'a str,
}

type Labels<const N: usize> = [String; N];

/// Everything that is counted of admission.
pub struct Admission {
    steps: Box<[Histogram<6>]>,
    /// By name, operation, phase, rejected.
    hooks: Mutex<BTreeMap<Labels<4>, Histogram<8>>>,
    /// By name, operation, phase, kind of error, code.
    rejections: Mutex<BTreeMap<Labels<5>, u64>>,
    /// By name and phase.
    open: Mutex<BTreeMap<Labels<2>, u64>>,
    /// Of validating policies, by policy, binding, kind of error, action.
    checks: Mutex<BTreeMap<Labels<4>, Histogram<5>>>,
}

impl Default for Admission {
    fn default() -> Admission {
        let many = PLUGINS.len() * OPERATIONS.len() * PHASES.len() * REJECTED.len();
        Admission {
            steps: (0..many)
                .map(|_| Histogram::new(&STEP_SECONDS, 1e6))
                .collect(),
            hooks: Mutex::default(),
            rejections: Mutex::default(),
            open: Mutex::default(),
            checks: Mutex::default(),
        }
    }
}

fn step_index(plugin: usize, operation: usize, phase: usize, rejected: usize) -> usize {
    ((plugin * OPERATIONS.len() + operation) * PHASES.len() + phase) * REJECTED.len() + rejected
}

impl Admission {
    /// A built-in step was taken.
    pub fn step(
        &self,
        plugin: Plugin,
        operation: &str,
        phase: Phase,
        rejected: bool,
        time: Duration,
    ) {
        let operation = OPERATIONS.iter().position(|o| *o == operation);
        let at = step_index(
            plugin as usize,
            operation.unwrap_or(0),
            phase as usize,
            usize::from(rejected),
        );
        if let Some(histogram) = self.steps.get(at) {
            histogram.observe(micros(time));
        }
    }

    /// A webhook was asked.
    pub fn hook(&self, call: Call<'_>, rejected: bool, time: Duration) {
        let rejected = REJECTED[usize::from(rejected)];
        let labels = [call.name, call.operation, call.phase, rejected].map(str::to_owned);
        let mut all = self.hooks.lock();
        let series = all
            .entry(labels)
            .or_insert_with(|| Histogram::new(&HOOK_SECONDS, 1e6));
        series.observe(micros(time));
    }

    /// A request was refused because of a webhook. Codes from 600 on are no codes of HTTP, and are
    /// counted as one.
    pub fn rejection(&self, call: Call<'_>, error: &str, code: u16) {
        let code = code.min(600).to_string();
        let labels = [call.name, call.operation, call.phase, error, &code].map(str::to_owned);
        *self.rejections.lock().entry(labels).or_default() += 1;
    }

    /// A webhook that could not be asked was passed over.
    pub fn failed_open(&self, call: Call<'_>) {
        let labels = [call.name, call.phase].map(str::to_owned);
        *self.open.lock().entry(labels).or_default() += 1;
    }

    /// A validating policy said no, or could say nothing: policy, binding, what went wrong, and what
    /// was done about it.
    pub fn check(&self, labels: [&str; 4], time: Duration) {
        let mut all = self.checks.lock();
        let series = all
            .entry(labels.map(str::to_owned))
            .or_insert_with(|| Histogram::new(&POLICY_SECONDS, 1e6));
        series.observe(micros(time));
    }
}

/// Writes the metrics.
pub fn write(text: &mut super::text::Text, metrics: &Admission) {
    let pairs = |names: &[&'static str], values: &[String]| -> String {
        let all: Vec<(&str, &str)> = names
            .iter()
            .copied()
            .zip(values.iter().map(String::as_str))
            .collect();
        super::text::labels(&all)
    };
    let name = "apiserver_admission_controller_admission_duration_seconds";
    text.about(
        name,
        "histogram",
        "[STABLE] Seconds that a step of admission took, by its name, operation and kind.",
    );
    for (i, (_, plugin)) in PLUGINS.iter().enumerate() {
        for (o, operation) in OPERATIONS.iter().enumerate() {
            for (p, phase) in PHASES.iter().enumerate() {
                for (r, rejected) in REJECTED.iter().enumerate() {
                    let Some(histogram) = metrics.steps.get(step_index(i, o, p, r)) else {
                        continue;
                    };
                    if histogram.is_empty() {
                        continue;
                    }
                    let with = [*plugin, operation, rejected, phase].map(str::to_owned);
                    let with = pairs(&["name", "operation", "rejected", "type"], &with);
                    text.histogram(name, &with, histogram);
                }
            }
        }
    }
    let name = "apiserver_admission_webhook_admission_duration_seconds";
    text.about(
        name,
        "histogram",
        "[STABLE] Seconds that asking a webhook took, by its name, operation and kind.",
    );
    for (labels, histogram) in metrics.hooks.lock().iter() {
        let with = pairs(&["name", "operation", "type", "rejected"], labels);
        text.histogram(name, &with, histogram);
    }
    let name = "apiserver_admission_webhook_rejection_count";
    text.about(
        name,
        "counter",
        "[ALPHA] Requests refused because of a webhook, by what went wrong.",
    );
    for (labels, n) in metrics.rejections.lock().iter() {
        let names = ["name", "operation", "type", "error_type", "rejection_code"];
        text.put(name, &pairs(&names, labels), n);
    }
    let name = "apiserver_admission_webhook_fail_open_count";
    text.about(
        name,
        "counter",
        "[ALPHA] Requests let through because a webhook could not be asked.",
    );
    for (labels, n) in metrics.open.lock().iter() {
        text.put(name, &pairs(&["name", "type"], labels), n);
    }
    let names = [
        "policy",
        "policy_binding",
        "error_type",
        "enforcement_action",
    ];
    let checks = metrics.checks.lock();
    let name = "apiserver_validating_admission_policy_check_total";
    text.about(name, "counter", "[BETA] What validating policies refused.");
    for (labels, histogram) in checks.iter() {
        text.put(name, &pairs(&names, labels), histogram.count());
    }
    let name = "apiserver_validating_admission_policy_check_duration_seconds";
    text.about(
        name,
        "histogram",
        "[BETA] Seconds that a validating policy took that refused.",
    );
    for (labels, histogram) in checks.iter() {
        text.histogram(name, &pairs(&names, labels), histogram);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_stand_at_their_index() {
        for (i, (plugin, name)) in PLUGINS.iter().enumerate() {
            assert_eq!(*plugin as usize, i);
            assert_eq!(format!("{plugin:?}"), *name);
        }
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Admission::default();
        let ms = Duration::from_millis(30);
        metrics.step(Priority, "CREATE", Phase::Admit, false, ms);
        let call = Call {
            name: "h.example.com",
            operation: "UPDATE",
            phase: "validating",
        };
        metrics.hook(call, true, ms);
        metrics.rejection(call, "no_error", 999);
        metrics.failed_open(call);
        metrics.check(["p", "b", "no_error", "deny"], ms);
        let mut text = super::super::text::Text::default();
        write(&mut text, &metrics);
        let text = text.into_string();
        for line in [
            r#"apiserver_admission_controller_admission_duration_seconds_bucket{name="Priority",operation="CREATE",rejected="false",type="admit",le="0.1"} 1"#,
            r#"apiserver_admission_webhook_admission_duration_seconds_count{name="h.example.com",operation="UPDATE",type="validating",rejected="true"} 1"#,
            r#"apiserver_admission_webhook_rejection_count{name="h.example.com",operation="UPDATE",type="validating",error_type="no_error",rejection_code="600"} 1"#,
            r#"apiserver_admission_webhook_fail_open_count{name="h.example.com",type="validating"} 1"#,
            r#"apiserver_validating_admission_policy_check_total{policy="p",policy_binding="b",error_type="no_error",enforcement_action="deny"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(!text.contains("ServiceAccount"));
    }
}
