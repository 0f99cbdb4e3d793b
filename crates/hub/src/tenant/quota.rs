//! Quotas, shared out over members: what the shares come to is the quota, to the last unit.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{labels, tenant::PoolQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use crate::amount::{Amounts, shown, thousandths};

/// One pool's share in one member.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The pool.
    pub pool: String,
    /// The PriorityClasses that count; none: all pods.
    pub priority_classes: Vec<String>,
    /// What may be asked for there.
    pub hard: BTreeMap<String, Quantity>,
}

/// What has been shared out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// By member.
    pub members: BTreeMap<String, Vec<Share>>,
    /// What is wrong, for people.
    pub problems: Vec<String>,
}

/// Label of a ResourceQuota: its pool.
pub const POOL: &str = "gantry.dev/pool";

impl Share {
    /// The ResourceQuota.
    pub fn object(&self, tenant: &str, namespace: &str) -> Value {
        let mut spec = json!({"hard": self.hard});
        if !self.priority_classes.is_empty() {
            spec["scopeSelector"] = json!({"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": "In", "values": self.priority_classes},
            ]});
        }
        let labels =
            json!({labels::TENANT: tenant, labels::MANAGED_BY: labels::MANAGER, POOL: self.pool});
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": format!("gantry-{}", self.pool), "namespace": namespace, "labels": labels},
            "spec": spec,
        })
    }
}

/// Shares quotas out over the members of `cells` by the weights of their cells. A member in which the tenant has
/// Groups and a pool has no cell gets a share of nothing: there is nothing of the pool.
pub fn shares(
    quotas: &[PoolQuota],
    cells: &BTreeMap<String, String>,
    used: &BTreeSet<String>,
) -> Shares {
    let mut shares = Shares::default();
    for quota in quotas {
        let mut weights: BTreeMap<&String, i128> = used.iter().map(|m| (m, 0)).collect();
        if quota.cells.is_empty() {
            for member in cells.values() {
                *weights.entry(member).or_default() += 1;
            }
        }
        for share in &quota.cells {
            match cells.get(&share.name) {
                Some(member) => *weights.entry(member).or_default() += i128::from(share.weight),
                None => shares.problems.push(format!(
                    "pool {}: no member has the cell {}",
                    quota.pool, share.name
                )),
            }
        }
        let whole: i128 = weights.values().sum();
        let mut hard: BTreeMap<&String, Amounts> = BTreeMap::new();
        for (resource, quantity) in &quota.hard {
            let Some(amount) = thousandths(quantity) else {
                let problem = format!(
                    "pool {}: {resource}: {:?} is no quantity",
                    quota.pool, quantity.0
                );
                shares.problems.push(problem);
                continue;
            };
            let unit = unit(resource);
            let (mut sum, mut given) = (0, 0);
            for (member, weight) in &weights {
                sum += weight;
                // What is given to the members so far, rounded down as a whole: the last one makes it exact.
                let so_far = (amount / unit * sum).checked_div(whole).unwrap_or(0) * unit;
                let entry = hard.entry(member).or_default();
                entry.insert(resource.clone(), so_far - given);
                given = so_far;
            }
        }
        for (member, amounts) in hard {
            let share = Share {
                pool: quota.pool.clone(),
                priority_classes: quota.priority_classes.clone(),
                hard: shown(&amounts),
            };
            shares
                .members
                .entry(member.clone())
                .or_default()
                .push(share);
        }
    }
    shares
}

/// In what a resource is given out, in thousandths: CPU by the thousandth, all else whole.
fn unit(resource: &str) -> i128 {
    if matches!(resource, "cpu" | "requests.cpu" | "limits.cpu") {
        1
    } else {
        1000
    }
}
