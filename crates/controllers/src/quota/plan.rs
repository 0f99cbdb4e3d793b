//! The planner of quotas: which resources to count, and the status that follows from the count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_machinery::quantity::Quantity;
use gantry_machinery::quota::{self, Amounts, amounts};
use serde_json::{Map, Value, json};

/// A resource to count: group and plural.
pub type Counted = (Arc<str>, Arc<str>);

/// What must be counted for a quota.
pub fn counted(spec: &Value) -> BTreeSet<Counted> {
    amounts(spec.get("hard"))
        .keys()
        .flat_map(|name| quota::counted_all(name))
        .map(|(group, plural)| (group.into(), plural.into()))
        .collect()
}

/// The fields of `status` to merge; `None` where it says already what it should.
///
/// `used` is what was found, `found` the resources that could be looked at: of the others the
/// status keeps what it says.
pub fn status(
    spec: &Value,
    status: &Value,
    used: &Amounts,
    found: &BTreeSet<Counted>,
) -> Option<Value> {
    let hard = amounts(spec.get("hard"));
    let old_hard = amounts(status.get("hard"));
    let old_used = amounts(status.get("used"));
    let mut new_used = Amounts::new();
    for name in hard.keys() {
        let looked_at = quota::counted_all(name)
            .any(|(group, plural)| found.contains(&(group.into(), plural.into())));
        let value = if looked_at {
            Some(used.get(name).copied().unwrap_or(Quantity::ZERO))
        } else {
            old_used.get(name).copied()
        };
        if let Some(value) = value {
            new_used.insert(name.clone(), value);
        }
    }
    let there = status.get("hard").is_some() && status.get("used").is_some();
    if there && hard == old_hard && new_used == old_used {
        return None;
    }
    Some(json!({
        "hard": merged(&hard, &old_hard),
        "used": merged(&new_used, &old_used),
    }))
}

/// What a count has seen of pods, for the claims that were made for them: by name, the pod and what it uses.
#[derive(Default)]
pub struct Asking(BTreeMap<String, (Value, Amounts)>);

impl Asking {
    /// Notes a pod that asks for an extended resource.
    pub fn note(&mut self, pod: &Value, usage: &Amounts) {
        let name = pod["metadata"]["name"].as_str();
        let asks = usage
            .keys()
            .any(|n| n.starts_with("requests.") && n.contains('/'));
        if let Some(name) = name.filter(|_| asks) {
            let told = pod["status"]["extendedResourceClaimStatus"].clone();
            let seen = json!({
                "metadata": {"uid": pod["metadata"]["uid"]},
                "status": {"extendedResourceClaimStatus": told},
            });
            self.0.insert(name.to_owned(), (seen, usage.clone()));
        }
    }

    /// What the pod uses that a claim was made for, of all claims of the namespace.
    pub fn of(&self, claim: &Value, claims: &[Value]) -> Option<&Amounts> {
        let (name, _) = quota::made_for(claim)?;
        let (pod, usage) = self.0.get(name)?;
        quota::is_the_one(claim, pod, claims).then_some(usage)
    }
}

/// Whether less is used than the status said: a request may have been charged and its object not
/// yet been there to count.
pub fn gives_back(status: &Value, fields: &Value) -> bool {
    let old = amounts(status.get("used"));
    let new = amounts(fields.get("used"));
    old.iter()
        .any(|(name, was)| new.get(name).is_some_and(|is| is < was))
}

fn merged(new: &Amounts, old: &Amounts) -> Value {
    let gone = old
        .keys()
        .filter(|name| !new.contains_key(*name))
        .map(|name| (name.clone(), Value::Null));
    new.iter()
        .map(|(name, value)| (name.clone(), value.to_string().into()))
        .chain(gone)
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(of: Value) -> Amounts {
        amounts(Some(&of))
    }

    #[test]
    fn a_new_quota_says_what_is_used_of_all_it_limits() {
        let spec =
            json!({"hard": {"pods": "4", "requests.cpu": "2", "count/widgets.example.com": "3"}});
        assert_eq!(counted(&spec).len(), 2);
        let found = [("".into(), "pods".into())].into();
        let fields = status(
            &spec,
            &Value::Null,
            &used(json!({"pods": "2", "memory": "1Gi"})),
            &found,
        );
        assert_eq!(
            fields.unwrap(),
            json!({"hard": {"pods": "4", "requests.cpu": "2", "count/widgets.example.com": "3"},
                "used": {"pods": "2", "requests.cpu": "0"}})
        );
    }

    #[test]
    fn nothing_is_written_where_nothing_changed_and_what_is_no_longer_limited_goes() {
        let spec = json!({"hard": {"pods": "4"}});
        let found = [("".into(), "pods".into())].into();
        let same = json!({"hard": {"pods": "4000m"}, "used": {"pods": "2"}});
        assert_eq!(
            status(&spec, &same, &used(json!({"pods": "2"})), &found),
            None
        );
        let more =
            json!({"hard": {"pods": "4", "secrets": "1"}, "used": {"pods": "3", "secrets": "1"}});
        let fields = status(&spec, &more, &used(json!({"pods": "2"})), &found).unwrap();
        assert_eq!(
            fields,
            json!({"hard": {"pods": "4", "secrets": null}, "used": {"pods": "2", "secrets": null}})
        );
        assert!(gives_back(&more, &fields));
        assert!(!gives_back(&same, &json!({"used": {"pods": "3"}})));
    }

    #[test]
    fn extended_resources_are_counted_of_pods_and_of_claims() {
        let spec = json!({"hard": {"requests.example.com/gpu": "4"}});
        let counted = counted(&spec);
        let of: Vec<&str> = counted.iter().map(|(_, plural)| &**plural).collect();
        assert_eq!(
            of,
            ["pods", "resourceclaims"],
            "pods first: claims are made for them"
        );
        // Where devices are not served, pods count alone.
        let found = [("".into(), "pods".into())].into();
        let fields = status(&spec, &Value::Null, &used(json!({})), &found);
        assert_eq!(fields.unwrap()["used"]["requests.example.com/gpu"], "0");
    }

    #[test]
    fn what_could_not_be_looked_at_keeps_its_count() {
        let spec = json!({"hard": {"pods": "4", "count/widgets.example.com": "3"}});
        let old = json!({"hard": {"pods": "4", "count/widgets.example.com": "3"},
            "used": {"pods": "1", "count/widgets.example.com": "2"}});
        let found = [("".into(), "pods".into())].into();
        let fields = status(&spec, &old, &used(json!({"pods": "2"})), &found).unwrap();
        assert_eq!(
            fields["used"],
            json!({"pods": "2", "count/widgets.example.com": "2"})
        );
    }
}
