//! Quotas as they are kept and shown: ResourceQuotas and ElasticQuotas of members, pools of Tenants.

use std::collections::BTreeMap;

use gantry_api::{Tenant, labels};
use gantry_hub::thousandths;
use gantry_scheduler::core::quota::PARENT;
use k8s_openapi::{api::core::v1::ResourceQuota, apimachinery::pkg::api::resource::Quantity};
use kube::{CustomResource, ResourceExt};
use serde::{Deserialize, Serialize};

/// What a tenant is guaranteed and may use at most: scheduler-plugins' and Koordinator's kind.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize)]
#[kube(
    group = "scheduling.sigs.k8s.io",
    version = "v1alpha1",
    kind = "ElasticQuota",
    plural = "elasticquotas",
    namespaced,
    status = "ElasticQuotaStatus",
    schema = "disabled"
)]
pub struct ElasticQuotaSpec {
    /// Guaranteed.
    #[serde(default)]
    pub min: BTreeMap<String, Quantity>,
    /// At most.
    #[serde(default)]
    pub max: BTreeMap<String, Quantity>,
}

/// What is used of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ElasticQuotaStatus {
    /// By resource.
    #[serde(default)]
    pub used: BTreeMap<String, Quantity>,
}

/// Which kind of quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum QuotaKind {
    /// A pool of a Tenant, over all members.
    #[default]
    Tenant,
    /// What a namespace of a member may ask for.
    ResourceQuota,
    /// What a tenant is guaranteed by the scheduler of a member, and may borrow.
    ElasticQuota,
}

impl QuotaKind {
    /// As Kubernetes spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::ResourceQuota => "ResourceQuota",
            Self::ElasticQuota => "ElasticQuota",
        }
    }

    /// From a part of a URL.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Tenant, Self::ResourceQuota, Self::ElasticQuota]
            .into_iter()
            .find(|k| k.name() == name)
    }
}

/// One resource of a quota. CPU in thousandths of a core, all else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Amount {
    /// The resource, as the quota spells it.
    pub resource: String,
    /// Used.
    pub used: i64,
    /// What is guaranteed, where the quota knows of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guaranteed: Option<i64>,
    /// At most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

impl Amount {
    /// Used of what may be, in thousandths. Where nothing may be used and nothing is, nothing is tight.
    pub fn share(&self) -> Option<i64> {
        let limit = self.limit?;
        let whole = |n: i64| i128::from(n.max(0));
        if self.used <= 0 {
            return Some(0);
        }
        let share = (whole(self.used) * 1000).checked_div(whole(limit));
        Some(share.map_or(1000, |s| i64::try_from(s).unwrap_or(i64::MAX)))
    }

    /// Whether more is used than is guaranteed: it is borrowed.
    pub fn borrows(&self) -> bool {
        self.guaranteed.is_some_and(|g| self.used > g)
    }

    /// Whether it is CPU, and so in thousandths.
    pub fn is_cpu(resource: &str) -> bool {
        resource == "cpu" || resource.ends_with(".cpu")
    }

    /// Whether it is in bytes.
    pub fn is_bytes(resource: &str) -> bool {
        resource.ends_with("memory") || resource.contains("storage") && !resource.contains("count/")
    }
}

fn number(resource: &str, quantity: &Quantity) -> i64 {
    let n = thousandths(quantity).unwrap_or(0);
    let n = if Amount::is_cpu(resource) {
        n
    } else {
        n.div_euclid(1000) + i128::from(n.rem_euclid(1000) != 0)
    };
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A quota.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// Its kind.
    pub kind: QuotaKind,
    /// Its namespace; of a pool, the Tenant.
    pub namespace: String,
    /// Its name; of a pool, the pool.
    pub name: String,
    /// The one above it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// Whether the hub keeps it as a Tenant says, so that an edit would not last.
    pub kept: bool,
    /// Its resources.
    pub amounts: Vec<Amount>,
    /// As plans of releases count with it; of a ResourceQuota that counts a Group's instances.
    #[serde(skip)]
    pub counted: Option<gantry_hub::world::Quota>,
}

impl Quota {
    /// The resource that binds first, and how much of it is used, in thousandths.
    pub fn tightest(&self) -> Option<(&Amount, i64)> {
        let shares = self.amounts.iter().filter_map(|a| Some((a, a.share()?)));
        // Of equal ones the first by name.
        shares.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// From a ResourceQuota.
    pub fn of_resource_quota(quota: &ResourceQuota) -> Self {
        let status = quota.status.clone().unwrap_or_default();
        let spec = quota.spec.clone().unwrap_or_default();
        let used = status.used.unwrap_or_default();
        let hard = status
            .hard
            .filter(|h| !h.is_empty())
            .or(spec.hard)
            .unwrap_or_default();
        let managed = quota.labels().get(labels::MANAGED_BY);
        Self {
            kind: QuotaKind::ResourceQuota,
            namespace: quota.namespace().unwrap_or_default(),
            name: quota.name_any(),
            parent: String::new(),
            kept: managed.is_some_and(|m| m == labels::MANAGER),
            amounts: amounts(&used, &BTreeMap::new(), &hard),
            counted: gantry_hub::world::Quota::of(quota),
        }
    }

    /// From an ElasticQuota.
    pub fn of_elastic_quota(quota: &ElasticQuota) -> Self {
        let used = quota.status.clone().unwrap_or_default().used;
        Self {
            kind: QuotaKind::ElasticQuota,
            namespace: quota.namespace().unwrap_or_default(),
            name: quota.name_any(),
            parent: quota.labels().get(PARENT).cloned().unwrap_or_default(),
            kept: false,
            amounts: amounts(&used, &quota.spec.min, &quota.spec.max),
            counted: None,
        }
    }

    /// The pools of a Tenant; what is used of each is summed over its members.
    pub fn of_tenant(tenant: &Tenant) -> Vec<Self> {
        let status = tenant.status.clone().unwrap_or_default();
        let pools = tenant.spec.quotas.iter().map(|quota| {
            let mut sums: BTreeMap<String, i128> = BTreeMap::new();
            for part in status.quotas.iter().filter(|p| p.pool == quota.pool) {
                for (resource, used) in &part.used {
                    *sums.entry(resource.clone()).or_default() += thousandths(used).unwrap_or(0);
                }
            }
            let used = sums
                .into_iter()
                .map(|(resource, n)| (resource, Quantity(format!("{n}m"))))
                .collect();
            Self {
                kind: QuotaKind::Tenant,
                namespace: tenant.name_any(),
                name: quota.pool.clone(),
                parent: String::new(),
                kept: false,
                amounts: amounts(&used, &BTreeMap::new(), &quota.hard),
                counted: None,
            }
        });
        pools.collect()
    }
}

type Quantities = BTreeMap<String, Quantity>;

fn amounts(used: &Quantities, min: &Quantities, max: &Quantities) -> Vec<Amount> {
    let mut names: Vec<&String> = max.keys().chain(min.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let of = |map: &Quantities, name: &String| map.get(name).map(|q| number(name, q));
    names
        .into_iter()
        .map(|name| Amount {
            resource: name.clone(),
            used: of(used, name).unwrap_or(0),
            guaranteed: of(min, name),
            limit: of(max, name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_binds_first_is_what_is_used_most_of() {
        let quota: ResourceQuota = from_value(json!({
            "metadata": {"name": "all", "namespace": "shop", "labels": {"app.kubernetes.io/managed-by": "gantry"}},
            "spec": {"hard": {"requests.cpu": "10", "requests.memory": "20Gi", "pods": "40", "services.loadbalancers": "0"}},
            "status": {"hard": {"requests.cpu": "10", "requests.memory": "20Gi", "pods": "40", "services.loadbalancers": "0"},
                "used": {"requests.cpu": "7500m", "requests.memory": "19Gi", "pods": "12", "services.loadbalancers": "0"}}}))
        .unwrap();
        let quota = Quota::of_resource_quota(&quota);
        let (amount, share) = quota.tightest().unwrap();
        assert_eq!((amount.resource.as_str(), share), ("requests.memory", 950));
        let cpu = quota.amounts.iter().find(|a| a.resource == "requests.cpu");
        assert_eq!(cpu.map(|a| (a.used, a.limit)), Some((7500, Some(10_000))));
        let none = Amount {
            limit: Some(0),
            used: 1,
            ..Amount::default()
        };
        assert_eq!(none.share(), Some(1000));
    }

    #[test]
    fn an_elastic_quota_tells_what_it_borrows() {
        let quota: ElasticQuota = from_value(json!({
            "apiVersion": "scheduling.sigs.k8s.io/v1alpha1", "kind": "ElasticQuota",
            "metadata": {"name": "web", "namespace": "shop", "labels": {PARENT: "company"}},
            "spec": {"min": {"cpu": "4"}, "max": {"cpu": "8", "memory": "1Gi"}}, "status": {"used": {"cpu": "6"}}}))
        .unwrap();
        let quota = Quota::of_elastic_quota(&quota);
        assert_eq!(quota.parent, "company");
        assert!(quota.amounts[0].borrows() && !quota.amounts[1].borrows());
        assert_eq!(quota.tightest().map(|(_, s)| s), Some(750));
    }

    #[test]
    fn a_tenants_pools_are_summed_over_its_members() {
        let tenant: Tenant = from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "shop"},
            "spec": {"quotas": [{"pool": "default", "hard": {"requests.cpu": "10", "pods": "9"}}]},
            "status": {"quotas": [
                {"pool": "default", "cluster": "sh", "namespace": "shop", "hard": {}, "used": {"requests.cpu": "2500m", "pods": "2"}},
                {"pool": "default", "cluster": "bj", "namespace": "shop", "hard": {}, "used": {"requests.cpu": "1", "pods": "1"}},
                {"pool": "gpu", "cluster": "bj", "namespace": "shop", "hard": {}, "used": {"requests.cpu": "7"}}]}}))
        .unwrap();
        let pools = Quota::of_tenant(&tenant);
        assert_eq!(pools.len(), 1);
        let used: Vec<_> = pools[0].amounts.iter().map(|a| a.used).collect();
        assert_eq!(used, [3, 3500]);
    }
}
