//! What authorizers decide, and how webhooks among them answer, under Kubernetes' names.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    Histogram, micros,
    text::{Text, labels},
};

/// How often one authorizer had the say.
#[derive(Default)]
pub struct Tally {
    allowed: AtomicU64,
    denied: AtomicU64,
}

impl Tally {
    pub fn allowed(&self) {
        self.allowed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }
}

/// How asking a webhook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Success,
    Error,
    Timeout,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Error => "error",
            Outcome::Timeout => "timeout",
        }
    }
}

const SECONDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Everything that is counted of authorization. Authorizers come and go with their configuration; what
/// was counted of them stays.
#[derive(Default)]
pub struct Authorization {
    /// By type and name.
    tallies: Mutex<BTreeMap<(&'static str, String), Arc<Tally>>>,
    /// Webhooks, by name.
    hooks: Mutex<BTreeMap<(String, Outcome), Histogram<11>>>,
    open: Mutex<BTreeMap<(String, Outcome), u64>>,
    spared: Mutex<BTreeMap<String, u64>>,
    unmatched: Mutex<BTreeMap<String, u64>>,
}

impl Authorization {
    /// Where the decisions of an authorizer are counted.
    pub fn tally(&self, kind: &'static str, name: &str) -> Arc<Tally> {
        let mut all = self.tallies.lock();
        all.entry((kind, name.to_owned())).or_default().clone()
    }

    /// A webhook was asked once.
    pub fn asked(&self, name: &str, outcome: Outcome, time: Duration) {
        let mut all = self.hooks.lock();
        let series = all
            .entry((name.to_owned(), outcome))
            .or_insert_with(|| Histogram::new(&SECONDS, 1e6));
        series.observe(micros(time));
    }

    /// A webhook that could not be asked was passed over.
    pub fn failed_open(&self, name: &str, outcome: Outcome) {
        let mut all = self.open.lock();
        *all.entry((name.to_owned(), outcome)).or_default() += 1;
    }

    /// A webhook was not asked because its conditions do not hold.
    pub fn spared(&self, name: &str) {
        *self.spared.lock().entry(name.to_owned()).or_default() += 1;
    }

    /// Whether a webhook's conditions hold could not be found out.
    pub fn condition_failed(&self, name: &str) {
        *self.unmatched.lock().entry(name.to_owned()).or_default() += 1;
    }
}

/// Writes the metrics.
pub fn write(text: &mut Text, metrics: &Authorization) {
    let name = "apiserver_authorization_decisions_total";
    text.about(
        name,
        "counter",
        "[BETA] Requests that an authorizer allowed or denied, by its type and name.",
    );
    for ((kind, of), tally) in metrics.tallies.lock().iter() {
        for (decision, n) in [("allowed", &tally.allowed), ("denied", &tally.denied)] {
            let n = n.load(Ordering::Relaxed);
            if n > 0 {
                let pairs = [("decision", decision), ("name", of), ("type", kind)];
                text.put(name, &labels(&pairs), n);
            }
        }
    }
    let of_hook =
        |(of, outcome): &(String, Outcome)| labels(&[("name", of), ("result", outcome.name())]);
    {
        let hooks = metrics.hooks.lock();
        let name = "apiserver_authorization_webhook_evaluations_total";
        text.about(
            name,
            "counter",
            "[BETA] Questions to authorization webhooks.",
        );
        for (key, histogram) in hooks.iter() {
            text.put(name, &of_hook(key), histogram.count());
        }
        let name = "apiserver_authorization_webhook_duration_seconds";
        text.about(
            name,
            "histogram",
            "[BETA] Seconds that asking an authorization webhook took.",
        );
        for (key, histogram) in hooks.iter() {
            text.histogram(name, &of_hook(key), histogram);
        }
    }
    let name = "apiserver_authorization_webhook_evaluations_fail_open_total";
    text.about(
        name,
        "counter",
        "[BETA] Requests that went on to others because a webhook could not be asked.",
    );
    for (key, n) in metrics.open.lock().iter() {
        text.put(name, &of_hook(key), n);
    }
    for (name, help, counts) in [
        (
            "apiserver_authorization_match_condition_exclusions_total",
            "[ALPHA] Requests that a webhook was not asked about because of its conditions.",
            &metrics.spared,
        ),
        (
            "apiserver_authorization_match_condition_evaluation_errors_total",
            "[ALPHA] Requests of which a webhook's conditions could not be worked out.",
            &metrics.unmatched,
        ),
    ] {
        text.about(name, "counter", help);
        for (of, n) in counts.lock().iter() {
            text.put(name, &labels(&[("name", of), ("type", "Webhook")]), n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Authorization::default();
        metrics.tally("RBAC", "rbac").allowed();
        metrics.tally("RBAC", "rbac").allowed();
        metrics.tally("Node", "node");
        metrics.tally("Webhook", "w").denied();
        metrics.asked("w", Outcome::Success, Duration::from_millis(30));
        metrics.asked("w", Outcome::Timeout, Duration::from_secs(3));
        metrics.failed_open("w", Outcome::Timeout);
        metrics.spared("w");
        metrics.condition_failed("w");
        let mut text = Text::default();
        write(&mut text, &metrics);
        let text = text.into_string();
        for line in [
            r#"apiserver_authorization_decisions_total{decision="allowed",name="rbac",type="RBAC"} 2"#,
            r#"apiserver_authorization_decisions_total{decision="denied",name="w",type="Webhook"} 1"#,
            r#"apiserver_authorization_webhook_evaluations_total{name="w",result="timeout"} 1"#,
            r#"apiserver_authorization_webhook_duration_seconds_bucket{name="w",result="success",le="0.05"} 1"#,
            r#"apiserver_authorization_webhook_evaluations_fail_open_total{name="w",result="timeout"} 1"#,
            r#"apiserver_authorization_match_condition_exclusions_total{name="w",type="Webhook"} 1"#,
            r#"apiserver_authorization_match_condition_evaluation_errors_total{name="w",type="Webhook"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(!text.contains("node"), "nothing was decided: {text}");
    }
}
