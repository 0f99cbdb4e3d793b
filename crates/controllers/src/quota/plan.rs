//! The planner of quotas: which resources to count, and the status that follows from the count.

use std::collections::BTreeSet;
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
        .filter_map(|name| quota::counted(name))
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
        let looked_at = quota::counted(name)
            .is_some_and(|(group, plural)| found.contains(&(group.into(), plural.into())));
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
