//! What claims to devices use of quotas: devices of a class, by three names. `NAME.deviceclass.resource.k8s.io/devices`
//! counts what claims ask for; `requests.deviceclass.resource.kubernetes.io/NAME` and `requests.RESOURCE`, where the class
//! stands for an extended resource, count what pods ask for too, each device once.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Amounts, list, put, text, units};
use crate::path::At as _;
use crate::quantity::Quantity;

/// Suffix of what a quota says of one class.
const CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// The extended resource that each class stands for, as quotas name it.
const IMPLICIT: &str = "requests.deviceclass.resource.kubernetes.io/";
/// Annotation of claims that the scheduler makes for extended resources.
const MADE: &str = "resource.kubernetes.io/extended-resource-claim";
/// As many devices a claim can have: so many count where all are asked for.
const ALL: i64 = 32;

/// Whether claims count for the name.
pub(super) fn counts(name: &str) -> bool {
    name.ends_with(CLASS) || is_resource(name)
}

/// Whether the name is that of an extended resource, which both pods and claims ask for.
pub(super) fn is_resource(name: &str) -> bool {
    let resource = name.strip_prefix("requests.");
    resource.is_some_and(|r| r.contains('/') && !r.contains("kubernetes.io/"))
        || name.starts_with(IMPLICIT)
}

/// How many devices of which class a request asks for; of alternatives, the most of each class.
fn request(request: &Value) -> BTreeMap<&str, i64> {
    let mut most = BTreeMap::new();
    let alternatives = list(request, "/firstAvailable");
    for ask in alternatives.chain(request.get("exactly")) {
        let count = match text(ask, "/allocationMode") {
            "ExactCount" => ask.at("/count").and_then(Value::as_i64).unwrap_or_default(),
            "All" => ALL,
            _ => 0,
        };
        let of = most.entry(text(ask, "/deviceClassName")).or_insert(0);
        *of = count.max(*of);
    }
    most
}

pub(super) fn usage(claim: &Value, used: &mut Amounts) {
    for asked in list(claim, "/spec/devices/requests") {
        for (class, count) in request(asked) {
            let count = usize::try_from(count).unwrap_or_default();
            put(used, format!("{class}{CLASS}"), units(count));
        }
    }
}

/// Adds to what a claim uses the extended resources that its classes stand for: `resource` says which by a class's
/// name. `pod`: what the pod uses that the claim was made for, which counts already.
pub fn add_resources(
    used: &mut Amounts,
    resource: impl Fn(&str) -> Option<String>,
    pod: Option<&Amounts>,
) {
    let mut all = Amounts::new();
    for (name, count) in &*used {
        let Some(class) = name.strip_suffix(CLASS).filter(|c| !c.is_empty()) else {
            continue;
        };
        put(&mut all, format!("{IMPLICIT}{class}"), *count);
        if let Some(resource) = resource(class) {
            put(&mut all, format!("requests.{resource}"), *count);
        }
    }
    for (name, count) in all {
        let there = pod.and_then(|p| p.get(&name)).copied();
        let rest = count.saturating_sub(there.unwrap_or(Quantity::ZERO));
        if !rest.is_zero() && !rest.is_negative() {
            put(used, name, rest);
        }
    }
}

/// Name and UID of the pod that a claim says it was made for.
#[must_use]
pub fn made_for(claim: &Value) -> Option<(&str, &str)> {
    let annotations = claim.at("/metadata/annotations")?;
    if annotations.get(MADE).and_then(Value::as_str) != Some("true") {
        return None;
    }
    let owner = list(claim, "/metadata/ownerReferences")
        .find(|owner| owner.get("controller") == Some(&Value::Bool(true)))?;
    let is_pod = text(owner, "/kind") == "Pod" && text(owner, "/apiVersion") == "v1";
    is_pod.then(|| (text(owner, "/name"), text(owner, "/uid")))
}

/// Whether a claim really is the one that was made for a pod: the pod says so or, while it says nothing, it is the first
/// of `others`, all claims of the namespace.
pub fn is_the_one<'a>(
    claim: &Value,
    pod: &Value,
    others: impl IntoIterator<Item = &'a Value>,
) -> bool {
    let uid = text(pod, "/metadata/uid");
    if made_for(claim).is_none_or(|(_, of)| of != uid) {
        return false;
    }
    if let Some(told) = pod.at("/status/extendedResourceClaimStatus")
        && !told.is_null()
    {
        return text(told, "/resourceClaimName") == text(claim, "/metadata/name");
    }
    let age = |claim: &Value| {
        ["creationTimestamp", "name"].map(|f| text(claim, &format!("/metadata/{f}")).to_owned())
    };
    let mine = age(claim);
    !others
        .into_iter()
        .any(|other| made_for(other).is_some_and(|(_, of)| of == uid) && age(other) < mine)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn exactly(count: i64) -> Value {
        json!({"name": "r", "exactly":
            {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count}})
    }

    fn told(used: &Amounts) -> String {
        let short = |name: &str| match name {
            "count/resourceclaims.resource.k8s.io" => None,
            _ if name.ends_with(CLASS) => Some(name.trim_end_matches(CLASS).to_owned()),
            _ if name.starts_with(IMPLICIT) => Some(name.replace(IMPLICIT, "implicit ")),
            _ => Some(name.to_owned()),
        };
        let all = used
            .iter()
            .filter_map(|(name, count)| Some(format!("{}={count}", short(name)?)));
        all.collect::<Vec<_>>().join(", ")
    }

    #[rstest]
    #[case::one(json!([exactly(1)]), "gpu=1")]
    #[case::several(json!([exactly(1), exactly(1), exactly(3)]), "gpu=5")]
    #[case::all(json!([{"exactly": {"deviceClassName": "gpu", "allocationMode": "All"}}]), "gpu=32")]
    #[case::unknown(json!([{"exactly": {"deviceClassName": "gpu", "allocationMode": "Later"}}]), "gpu=0")]
    #[case::unknown_request(json!([{"later": {}}]), "")]
    #[case::the_most_of_each_class(json!([{"firstAvailable": [
        {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
        {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2},
        {"deviceClassName": "tpu", "allocationMode": "All"}]}]), "gpu=2, tpu=32")]
    fn claims_count_by_class(#[case] requests: Value, #[case] want: &str) {
        let claim = json!({"spec": {"devices": {"requests": requests}}});
        let used = super::super::usage(
            "resource.k8s.io",
            "resourceclaims",
            &claim,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            used["count/resourceclaims.resource.k8s.io"].to_string(),
            "1"
        );
        assert_eq!(told(&used), want);
    }

    /// What a pod asks for as `explicit`, of example.com/gpu, and `implicit`, of the class; none: the claim is nobody's.
    #[rstest]
    #[case::nobodys(2, None, "gpu=2, implicit gpu=2, requests.example.com/gpu=2")]
    #[case::explicit(1, Some((1, 0)), "gpu=1, implicit gpu=1")]
    #[case::implicit(1, Some((0, 1)), "gpu=1, requests.example.com/gpu=1")]
    #[case::both(2, Some((1, 1)), "gpu=2, implicit gpu=1, requests.example.com/gpu=1")]
    #[case::the_pod_asks_for_more(1, Some((2, 1)), "gpu=1")]
    fn what_the_pod_asked_for_counts_once(
        #[case] count: i64,
        #[case] pod: Option<(usize, usize)>,
        #[case] want: &str,
    ) {
        let mut used = Amounts::new();
        usage(
            &json!({"spec": {"devices": {"requests": [exactly(count)]}}}),
            &mut used,
        );
        let pod = pod.map(|(explicit, implicit)| {
            let names = [
                ("requests.example.com/gpu", explicit),
                ("implicit", implicit),
            ];
            names
                .into_iter()
                .map(|(name, n)| {
                    (
                        name.replace("implicit", &format!("{IMPLICIT}gpu")),
                        units(n),
                    )
                })
                .collect::<Amounts>()
        });
        let resource = |class: &str| (class == "gpu").then(|| "example.com/gpu".to_owned());
        add_resources(&mut used, resource, pod.as_ref());
        assert_eq!(told(&used), want);
    }

    fn claim(name: &str, made: &str, uid: &str) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": made,
            "annotations": {MADE: "true"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]}})
    }

    #[rstest]
    #[case::told(json!({"resourceClaimName": "b"}), &[], true)]
    #[case::another_told(json!({"resourceClaimName": "x"}), &[], false)]
    #[case::first(json!(null), &[("c", "1"), ("b", "1"), ("a", "2")], true)]
    #[case::another_before(json!(null), &[("c", "0")], false)]
    #[case::another_at_the_same_time(json!(null), &[("a", "1")], false)]
    fn one_claim_was_made_for_a_pod(
        #[case] status: Value,
        #[case] others: &[(&str, &str)],
        #[case] want: bool,
    ) {
        let pod =
            json!({"metadata": {"uid": "u"}, "status": {"extendedResourceClaimStatus": status}});
        let others: Vec<Value> = others.iter().map(|(n, t)| claim(n, t, "u")).collect();
        let mine = claim("b", "1", "u");
        assert_eq!(is_the_one(&mine, &pod, &others), want);
        assert!(!is_the_one(&claim("b", "1", "old"), &pod, &others));
        let mut plain = mine.clone();
        plain["metadata"]["annotations"][MADE] = "false".into();
        assert_eq!(made_for(&plain), None);
        assert_eq!(made_for(&mine), Some(("p", "u")));
    }
}
