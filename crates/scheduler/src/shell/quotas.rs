//! What quotas use, told in their status, and what is wrong with how they stand to each other.

use super::calls::send;
use super::driver::Driver;
use super::note::Note;
use crate::core::quota::amount_text;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};
use std::time::Duration;

/// How often usage is told.
const EVERY: Duration = Duration::from_secs(5);
/// Statuses written at a time.
const AT_A_TIME: usize = 4;

/// What was told.
#[derive(Default)]
pub(super) struct Told {
    used: FxHashMap<String, Value>,
    problems: FxHashSet<(String, String)>,
    pub(super) next: Option<Duration>,
}

impl Driver {
    /// Writes what has changed of the quotas' usage, and warns of those that cannot hold what they promise.
    pub(super) fn tell_of_quotas(&mut self, now: Duration) {
        if self.cluster.quotas.is_empty() {
            self.quotas.next = None;
            return;
        }
        if self.quotas.next.is_some_and(|at| at > now) {
            return;
        }
        self.quotas.next = Some(now + EVERY);
        let problems = self.cluster.quotas.problems(&self.cluster.compiler.symbols);
        for (quota, why) in problems {
            if self.quotas.problems.insert((quota.clone(), why.clone())) {
                let (namespace, name) = quota.split_once('/').unwrap_or_default();
                tracing::warn!(%quota, "quota cannot hold: {why}");
                let version = "scheduling.sigs.k8s.io/v1alpha1";
                let note = Note::about(
                    version,
                    "ElasticQuota",
                    namespace,
                    name,
                    "Unsatisfiable",
                    why,
                );
                self.note(note);
            }
        }
        let mut writes = Vec::new();
        for (namespace, name, used) in self.cluster.quotas.usage(&self.cluster.compiler.symbols) {
            let used: serde_json::Map<String, Value> = used
                .into_iter()
                .filter(|(resource, _)| *resource != "pods")
                .map(|(resource, amount)| {
                    (resource.to_owned(), json!(amount_text(resource, amount)))
                })
                .collect();
            let key = format!("{namespace}/{name}");
            let used = Value::Object(used);
            if self.quotas.used.get(&key) == Some(&used) {
                continue;
            }
            if self.statuses.len() + writes.len() >= AT_A_TIME {
                self.quotas.next = Some(now + Duration::from_millis(100));
                break;
            }
            writes.push((namespace.to_owned(), name.to_owned(), used));
        }
        for (namespace, name, used) in writes {
            self.quotas
                .used
                .insert(format!("{namespace}/{name}"), used.clone());
            let client = self.client.clone();
            self.statuses.spawn(async move {
                let place = "/apis/scheduling.sigs.k8s.io/v1alpha1/namespaces";
                let path = format!("{place}/{namespace}/elasticquotas/{name}/status");
                let body = json!({"status": {"used": used}});
                let merge = "application/merge-patch+json";
                let method = http::Method::PATCH;
                let result = send(&client, "write quota status", method, path, merge, &body).await;
                super::policies::Written::other(result)
            });
        }
    }
}
