//! Who owns the claims of a StatefulSet's pods, so that they go when
//! `persistentVolumeClaimRetentionPolicy` says so: with the set, or with a pod that is scaled away.

use serde_json::{Value, json};

use crate::model::workload::StatefulSet;
use crate::model::{Meta, Owner, PODS, Pod, STATEFUL_SETS};

/// A reference that neither makes a controller nor blocks anything.
pub fn reference(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid})
}

/// The reference to the set.
pub fn to_set(set: &Meta) -> Value {
    let kind = STATEFUL_SETS;
    reference(&kind.api_version(), kind.kind, &set.name, &set.uid)
}

/// The owners of a claim of this pod; `None` where they are right. `condemned` is a pod whose ordinal the
/// set has no more.
pub fn owners(set: &StatefulSet, pod: &Pod, condemned: bool, now: &[Owner]) -> Option<Vec<Value>> {
    let policy = &set.spec.persistent_volume_claim_retention_policy;
    let with_pod = policy.when_scaled == "Delete" && condemned;
    let with_set = policy.when_deleted == "Delete" && !with_pod;
    let has = |uid: &str| now.iter().any(|owner| *owner.uid == *uid);
    let (set, pod) = (&set.metadata, &pod.meta);
    if has(&set.uid) == with_set && has(&pod.uid) == with_pod {
        return None;
    }
    let others = now
        .iter()
        .filter(|owner| owner.uid != set.uid && owner.uid != pod.uid);
    let mut all: Vec<Value> = others
        .map(|owner| {
            let mut it = reference(&owner.api_version, &owner.kind, &owner.name, &owner.uid);
            for (field, set) in [
                ("controller", owner.controller),
                ("blockOwnerDeletion", owner.block_owner_deletion),
            ] {
                if set {
                    it[field] = true.into();
                }
            }
            it
        })
        .collect();
    if with_set {
        all.push(to_set(set));
    }
    if with_pod {
        let kind = PODS;
        all.push(reference(
            &kind.api_version(),
            kind.kind,
            &pod.name,
            &pod.uid,
        ));
    }
    Some(all)
}

/// Whether a pod that is to be made must wait for the end of this claim of its name: it is being deleted already, or it
/// goes with an earlier pod of the name (Kubernetes calls it stale). With it the new pod would lose its data later.
pub fn is_going(set: &StatefulSet, claim: &Meta, pod_name: &str) -> bool {
    let policy = &set.spec.persistent_volume_claim_retention_policy;
    let of_a_pod = |owner: &Owner| &*owner.kind == PODS.kind && &*owner.name == pod_name;
    claim.deleted.is_some() || (policy.when_scaled == "Delete" && claim.owners.iter().any(of_a_pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::kept("Retain", json!({}), false)]
    #[case::kept_whoever_owned_it("Retain", json!({"ownerReferences": [
        {"apiVersion": "v1", "kind": "Pod", "name": "set-0", "uid": "before"}]}), false)]
    #[case::of_the_set("Delete", json!({"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "set", "uid": "s"}]}), false)]
    #[case::of_an_earlier_pod("Delete", json!({"ownerReferences": [
        {"apiVersion": "v1", "kind": "Pod", "name": "set-0", "uid": "before"}]}), true)]
    #[case::of_another_pod("Delete", json!({"ownerReferences": [
        {"apiVersion": "v1", "kind": "Pod", "name": "debug", "uid": "d"}]}), false)]
    #[case::being_deleted("Retain", json!({"deletionTimestamp": "2026-11-27T08:00:00Z"}), true)]
    fn a_claim_that_goes_is_waited_for(
        #[case] scaled: &str,
        #[case] meta: Value,
        #[case] expected: bool,
    ) {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "set", "uid": "s"},
            "spec": {"selector": {}, "template": {}, "persistentVolumeClaimRetentionPolicy":
                {"whenDeleted": "Retain", "whenScaled": scaled}},
        }))
        .unwrap();
        let mut claim = json!({"name": "data-set-0", "uid": "c"});
        claim
            .as_object_mut()
            .unwrap()
            .extend(meta.as_object().unwrap().clone());
        let claim: Meta = serde_json::from_value(claim).unwrap();
        assert_eq!(is_going(&set, &claim, "set-0"), expected);
    }

    #[rstest]
    #[case("Retain", "Retain", false, &[], None)]
    #[case("Delete", "Retain", false, &["s"], None)]
    #[case("Delete", "Retain", true, &["s"], None)]
    #[case("Delete", "Delete", false, &["s"], None)]
    #[case("Delete", "Delete", true, &["s"], Some(vec!["p"]))]
    #[case("Delete", "Delete", false, &["p", "x"], Some(vec!["x", "s"]))]
    #[case("Retain", "Delete", true, &["x"], Some(vec!["x", "p"]))]
    #[case("Retain", "Delete", false, &["p"], Some(vec![]))]
    #[case("Retain", "Retain", false, &["s", "x"], Some(vec!["x"]))]
    fn claims_follow_the_policy(
        #[case] deleted: &str,
        #[case] scaled: &str,
        #[case] condemned: bool,
        #[case] now: &[&str],
        #[case] expected: Option<Vec<&str>>,
    ) {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "set", "uid": "s"},
            "spec": {"selector": {}, "template": {}, "persistentVolumeClaimRetentionPolicy":
                {"whenDeleted": deleted, "whenScaled": scaled}},
        }))
        .unwrap();
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "set-0", "uid": "p"}, "spec": {}}))
                .unwrap();
        let now: Vec<Owner> = now
            .iter()
            .map(|uid| Owner {
                uid: (*uid).into(),
                ..Owner::default()
            })
            .collect();
        let seen = owners(&set, &pod, condemned, &now);
        let uids = seen.as_ref().map(|all| {
            let uid = |owner: &Value| owner["uid"].as_str().unwrap().to_owned();
            all.iter().map(uid).collect::<Vec<_>>()
        });
        let expected = expected.map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(uids, expected);
    }
}
