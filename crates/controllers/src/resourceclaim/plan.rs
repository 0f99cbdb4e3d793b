//! What is to be done for a pod's claims, and for a claim.

use std::sync::Arc;

use crate::model::Pod;
use crate::model::device::{Consumer, DeviceClaim};
use crate::model::pod::Phase;

/// Annotation of a claim made from a template: which of its pod's claims it is.
pub const CLAIM_OF_POD: &str = "resource.kubernetes.io/pod-claim-name";
/// Keeps a claim from being deleted while it is allocated.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Pods that one claim can be reserved for.
pub const MOST_CONSUMERS: usize = 256;
/// Of a generated name, without the hyphen and five characters that the API server adds.
const LONGEST_BASE: usize = 57;

/// What to do for one claim of a pod.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It is there, but the pod's status does not say so: the claim of the pod, the name of what is there.
    Tell(&'a str, Arc<str>),
    /// To be made from a template: the claim of the pod, the template.
    Make(&'a str, &'a str),
}

/// Whether a pod uses its claims no more.
pub fn is_done(pod: &Pod) -> bool {
    matches!(pod.phase, Phase::Succeeded | Phase::Failed) || pod.terminating() && pod.node.is_none()
}

/// Plans a pod's claims. `owned`: the claims that it controls.
pub fn of_pod<'a>(pod: &'a Pod, owned: &[Arc<DeviceClaim>]) -> Vec<Step<'a>> {
    if pod.terminating() || is_done(pod) {
        return Vec::new();
    }
    let mut steps = Vec::new();
    for claim in &pod.device_claims {
        let Some(template) = claim.template.as_deref() else {
            continue;
        };
        let is_there = |name: &str| owned.iter().any(|c| &*c.metadata.name == name);
        match &claim.made {
            Some(None) => continue,
            Some(Some(name)) if is_there(name) => continue,
            _ => {}
        }
        let of_it = |c: &&Arc<DeviceClaim>| {
            c.metadata.annotations.get(CLAIM_OF_POD) == Some(&claim.name)
                && c.metadata.deleted.is_none()
        };
        steps.push(match owned.iter().find(of_it) {
            Some(found) => Step::Tell(&claim.name, found.metadata.name.clone()),
            None => Step::Make(&claim.name, template),
        });
    }
    steps
}

/// The beginning of the name of a claim made for a pod.
pub fn generate_name(pod: &str, claim: &str) -> String {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    let claim = cut(claim, LONGEST_BASE / 2);
    let pod = cut(pod, LONGEST_BASE - 1 - claim.len());
    format!("{pod}-{claim}-")
}

/// What to do with a claim.
#[derive(Debug, Default, PartialEq)]
pub struct ClaimPlan {
    /// Those who still use it, if some do no more.
    pub keep: Option<Vec<Consumer>>,
    /// Its devices are given back.
    pub deallocate: bool,
    /// It need not be protected any more.
    pub unprotect: bool,
    /// It was made for a pod that is done.
    pub delete: bool,
}

/// Plans a claim. `uses`: whether a consumer is there and not done. `owner_done`: it was made for a pod that is done.
pub fn of_claim(
    claim: &DeviceClaim,
    uses: impl Fn(&Consumer) -> bool,
    owner_done: bool,
) -> ClaimPlan {
    let reserved = &claim.status.reserved_for;
    let kept: Vec<Consumer> = reserved.iter().filter(|c| uses(c)).cloned().collect();
    let leaving = claim.metadata.deleted.is_some();
    let allocated = claim.status.allocation.is_some();
    let unused = kept.is_empty();
    let protected = claim.metadata.has_finalizer(FINALIZER);
    let shrinks = kept.len() < reserved.len();
    ClaimPlan {
        deallocate: allocated && unused && (shrinks || leaving),
        unprotect: protected && unused && (shrinks || leaving || !allocated),
        delete: unused && owner_done && !leaving,
        keep: shrinks.then_some(kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn pod(over: &Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "resourceClaims": [
                {"name": "own", "resourceClaimTemplateName": "t"}, {"name": "shared", "resourceClaimName": "s"}]},
        });
        for (key, value) in over.as_object().unwrap() {
            match key.as_str() {
                "deleted" => pod["metadata"]["deletionTimestamp"] = value.clone(),
                "node" => pod["spec"]["nodeName"] = value.clone(),
                _ => pod["status"][key] = value.clone(),
            }
        }
        serde_json::from_value(pod).unwrap()
    }

    fn claim(name: &str, over: &Value) -> DeviceClaim {
        let mut claim = json!({"metadata": {"name": name, "namespace": "n", "uid": name,
            "annotations": {CLAIM_OF_POD: "own"}}});
        for (key, value) in over.as_object().unwrap() {
            match key.as_str() {
                "deletionTimestamp" | "finalizers" | "annotations" => {
                    claim["metadata"][key] = value.clone();
                }
                _ => claim["status"][key] = value.clone(),
            }
        }
        serde_json::from_value(claim).unwrap()
    }

    const THEN: &str = "2026-01-01T00:00:00Z";

    #[rstest]
    #[case::fresh(json!({}), None, vec![Step::Make("own", "t")])]
    #[case::made_and_untold(json!({}), Some(json!({})), vec![Step::Tell("own", "c".into())])]
    #[case::made_for_another(json!({}), Some(json!({"annotations": {CLAIM_OF_POD: "other"}})), vec![Step::Make("own", "t")])]
    #[case::told(json!({"resourceClaimStatuses": [{"name": "own", "resourceClaimName": "c"}]}), Some(json!({})), vec![])]
    #[case::told_and_gone(json!({"resourceClaimStatuses": [{"name": "own", "resourceClaimName": "c"}]}), None, vec![Step::Make("own", "t")])]
    #[case::not_needed(json!({"resourceClaimStatuses": [{"name": "own"}]}), None, vec![])]
    #[case::finished(json!({"phase": "Succeeded"}), None, vec![])]
    #[case::leaving(json!({"deleted": THEN, "node": "x"}), None, vec![])]
    fn claims_are_made_once(
        #[case] over: Value,
        #[case] there: Option<Value>,
        #[case] want: Vec<Step<'static>>,
    ) {
        let pod = pod(&over);
        let there: Vec<_> = there.iter().map(|c| Arc::new(claim("c", c))).collect();
        assert_eq!(of_pod(&pod, &there), want);
    }

    fn plan(keep: Option<&[&str]>, rest: [bool; 3]) -> ClaimPlan {
        let consumer = |uid: &&str| Consumer {
            resource: "pods".into(),
            name: (*uid).into(),
            uid: (*uid).into(),
            ..Consumer::default()
        };
        let [deallocate, unprotect, delete] = rest;
        ClaimPlan {
            keep: keep.map(|uids| uids.iter().map(consumer).collect()),
            deallocate,
            unprotect,
            delete,
        }
    }

    #[rstest]
    #[case::unallocated(json!({}), false, plan(None, [false, false, false]))]
    #[case::in_use(json!({"allocation": {}, "users": ["a"], "finalizers": [FINALIZER]}), false, plan(None, [false, false, false]))]
    #[case::one_done(json!({"allocation": {}, "users": ["a", "done"], "finalizers": [FINALIZER]}), false, plan(Some(&["a"]), [false, false, false]))]
    #[case::all_done(json!({"allocation": {}, "users": ["done"], "finalizers": [FINALIZER]}), false, plan(Some(&[]), [true, true, false]))]
    #[case::owner_done(json!({"allocation": {}, "users": ["done"], "finalizers": [FINALIZER]}), true, plan(Some(&[]), [true, true, true]))]
    #[case::idle(json!({"allocation": {}, "finalizers": [FINALIZER]}), false, plan(None, [false, false, false]))]
    #[case::idle_and_deleted(json!({"allocation": {}, "finalizers": [FINALIZER], "deletionTimestamp": THEN}), false, plan(None, [true, true, false]))]
    #[case::used_and_deleted(json!({"allocation": {}, "users": ["a"], "finalizers": [FINALIZER], "deletionTimestamp": THEN}), true, plan(None, [false, false, false]))]
    #[case::finalizer_left(json!({"finalizers": [FINALIZER]}), false, plan(None, [false, true, false]))]
    #[case::never_allocated(json!({}), true, plan(None, [false, false, true]))]
    fn claims_are_let_go(#[case] over: Value, #[case] owner_done: bool, #[case] want: ClaimPlan) {
        let mut over = over;
        let users = over.as_object_mut().unwrap().remove("users");
        if let Some(users) = users {
            let users = users.as_array().unwrap().iter();
            over["reservedFor"] = users
                .map(|u| json!({"resource": "pods", "name": u, "uid": u}))
                .collect();
        }
        let claim = claim("c", &over);
        assert_eq!(of_claim(&claim, |c| &*c.uid != "done", owner_done), want);
    }

    #[test]
    fn names_leave_room_for_what_is_added() {
        assert_eq!(generate_name("web-0", "gpu"), "web-0-gpu-");
        let long = generate_name(&"p".repeat(80), &"c".repeat(60));
        assert_eq!(long.len(), LONGEST_BASE + 1);
        assert!(long.contains("p-c") && long.ends_with("c-"), "{long}");
    }

    #[test]
    fn a_pod_is_done_when_nothing_of_it_runs_or_will() {
        for (over, want) in [
            (json!({}), false),
            (json!({"phase": "Running", "node": "x"}), false),
            (json!({"phase": "Failed", "node": "x"}), true),
            (json!({"deleted": THEN, "node": "x"}), false),
            (json!({"deleted": THEN}), true),
        ] {
            assert_eq!(is_done(&pod(&over)), want, "{over}");
        }
    }
}
