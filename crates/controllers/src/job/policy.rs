//! What follows from a failed pod (`podFailurePolicy`) and what is enough to succeed
//! (`successPolicy`).

use super::indexes::Indexes;
use crate::model::Pod;
use crate::model::batch::{ExitCodes, FailurePolicy, Job, SuccessPolicy};
use crate::model::pod::Tracked;

/// What a Job's failure policy says of a failed pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No rule is about it: it counts.
    Unnamed,
    Count,
    Ignore,
    FailIndex,
    /// The whole Job fails, for this reason.
    FailJob(String),
}

impl Verdict {
    /// Whether the failure counts towards the limits.
    pub fn counts(&self) -> bool {
        *self != Verdict::Ignore
    }
}

pub fn judge(policy: Option<&FailurePolicy>, pod: &Pod) -> Verdict {
    let Some((policy, tracked)) = policy.zip(pod.tracked.as_deref()) else {
        return Verdict::Unnamed;
    };
    let of = || format!("{}/{}", pod.meta.namespace, pod.meta.name);
    for (index, rule) in policy.rules.iter().enumerate() {
        let why = if let Some(codes) = &rule.on_exit_codes {
            ended_with(tracked, codes).map(|(container, code)| {
                format!(
                    "Container {container} for pod {} failed with exit code {code}",
                    of()
                )
            })
        } else {
            let found = tracked.conditions.iter().find(|(kind, status)| {
                rule.on_pod_conditions
                    .iter()
                    .any(|p| p.kind == *kind && p.status == *status)
            });
            found.map(|(kind, _)| format!("Pod {} has condition {kind}", of()))
        };
        let Some(why) = why else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "Count" => return Verdict::Count,
            "FailIndex" => return Verdict::FailIndex,
            "FailJob" => {
                return Verdict::FailJob(format!("{why} matching FailJob rule at index {index}"));
            }
            // The API accepts no other; one that came with a later version says nothing here.
            _ => {}
        }
    }
    Verdict::Unnamed
}

/// The first container that ended with one of these codes. 0 is never a failure.
fn ended_with<'p>(pod: &'p Tracked, codes: &ExitCodes) -> Option<(&'p str, i32)> {
    pod.exits
        .iter()
        .map(|(name, code)| (&**name, *code))
        .find(|(name, code)| {
            *code != 0
                && codes.container_name.as_deref().is_none_or(|n| n == *name)
                && match &*codes.operator {
                    "In" => codes.values.contains(code),
                    "NotIn" => !codes.values.contains(code),
                    _ => false,
                }
        })
}

/// Whether a pod has failed for its Job. One that is deleted before it ends will never be seen to
/// fail, unless the Job waits for that.
pub fn failed(job: &Job, pod: &Pod) -> bool {
    use crate::model::pod::Phase;
    pod.phase == Phase::Failed
        || (!only_replace_failed(job) && pod.terminating() && pod.phase != Phase::Succeeded)
}

/// Pods are replaced once they have failed, not already when they are terminating.
pub fn only_replace_failed(job: &Job) -> bool {
    job.spec.pod_replacement_policy == "Failed" || job.spec.pod_failure_policy.is_some()
}

/// Which rule of the success policy is met, as a message.
pub fn enough(policy: &SuccessPolicy, succeeded: &Indexes, completions: u32) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let reached = |have: usize, wanted: Option<i32>| {
        wanted.is_some_and(|n| usize::try_from(n).is_ok_and(|n| have >= n))
    };
    let met = policy
        .rules
        .iter()
        .position(|rule| match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                let have = wanted.common(succeeded);
                !wanted.is_empty()
                    && (have == wanted.total() || reached(have, rule.succeeded_count))
            }
            None => reached(succeeded.total(), rule.succeeded_count),
        })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "p", "finalizers": ["batch.kubernetes.io/job-tracking"]},
            "status": status}))
        .unwrap()
    }

    fn ended(name: &str, code: i32) -> Value {
        json!({"name": name, "state": {"terminated": {"exitCode": code}}})
    }

    fn rule(action: &str, operator: &str, values: &[i32], container: Option<&str>) -> Value {
        json!({"action": action, "onExitCodes": {"containerName": container, "operator": operator, "values": values}})
    }

    fn disrupted(action: &str) -> Value {
        json!({"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]})
    }

    #[rstest]
    #[case::no_rule(vec![], 1, Verdict::Unnamed)]
    #[case::listed(vec![rule("Ignore", "In", &[1, 2], None)], 2, Verdict::Ignore)]
    #[case::not_listed(vec![rule("Ignore", "In", &[1, 2], None)], 3, Verdict::Unnamed)]
    #[case::not_in(vec![rule("Count", "NotIn", &[1], None)], 3, Verdict::Count)]
    #[case::zero_is_no_failure(vec![rule("Count", "NotIn", &[1, 77], None)], 0, Verdict::Unnamed)]
    #[case::other_container(vec![rule("FailIndex", "In", &[3], Some("other"))], 3, Verdict::Unnamed)]
    #[case::this_container(vec![rule("FailIndex", "In", &[3], Some("main"))], 3, Verdict::FailIndex)]
    #[case::first_wins(vec![disrupted("Ignore"), rule("FailJob", "In", &[3], None)], 3, Verdict::Ignore)]
    #[case::message(vec![rule("Count", "In", &[9], None), rule("FailJob", "In", &[3], None)], 3,
        Verdict::FailJob("Container main for pod n/p failed with exit code 3 matching FailJob rule at index 1".into()))]
    #[case::condition(vec![disrupted("FailJob")], 3,
        Verdict::FailJob("Pod n/p has condition DisruptionTarget matching FailJob rule at index 0".into()))]
    fn judges(#[case] rules: Vec<Value>, #[case] code: i32, #[case] expected: Verdict) {
        let policy: FailurePolicy = serde_json::from_value(json!({"rules": rules})).unwrap();
        let pod = pod(json!({"phase": "Failed",
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
            "initContainerStatuses": [ended("init", 77)], "containerStatuses": [ended("main", code)]}));
        assert_eq!(judge(Some(&policy), &pod), expected);
    }

    #[rstest]
    #[case(json!({"succeededIndexes": "0,2-4"}), "0-4", true)]
    #[case(json!({"succeededIndexes": "0,2-4"}), "0-3", false)]
    #[case(json!({"succeededIndexes": "0,2-4", "succeededCount": 2}), "3,4", true)]
    #[case(json!({"succeededIndexes": "0,2-4", "succeededCount": 2}), "1,4", false)]
    #[case(json!({"succeededCount": 2}), "1,9", true)]
    #[case(json!({"succeededCount": 3}), "1,9", false)]
    #[case(json!({"succeededIndexes": "x"}), "1", false)]
    fn is_enough(#[case] rule: Value, #[case] succeeded: &str, #[case] met: bool) {
        let policy: SuccessPolicy = serde_json::from_value(json!({"rules": [rule]})).unwrap();
        let message = enough(&policy, &Indexes::parse(succeeded, 10), 10);
        assert_eq!(message, met.then(|| "Matched rules at index 0".to_owned()));
    }
}
