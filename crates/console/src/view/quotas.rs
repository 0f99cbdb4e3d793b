//! Quotas: of Tenants over all members, of namespaces and of the scheduler in each.

use serde::Serialize;

use super::{Listing, Params, matches, order, words};
use crate::{
    access::Tenants,
    model::{
        State,
        limits::{Quota, QuotaKind},
    },
};

/// A quota as a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaRow {
    /// The member; empty of a Tenant's, which is over all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The quota.
    #[serde(flatten)]
    pub quota: Quota,
    /// The resource that binds first.
    pub binds: String,
    /// How much of that is used, in thousandths.
    pub share: i64,
}

impl QuotaRow {
    fn of(cluster: &str, quota: &Quota) -> Self {
        let (binds, share) = quota
            .tightest()
            .map(|(a, share)| (a.resource.clone(), share))
            .unwrap_or_default();
        Self {
            cluster: cluster.to_owned(),
            quota: quota.clone(),
            binds,
            share,
        }
    }

    /// Its page.
    pub fn href(&self) -> String {
        let Quota {
            kind,
            namespace,
            name,
            ..
        } = &self.quota;
        match kind {
            QuotaKind::Tenant => format!("/tenants/{namespace}"),
            _ => format!(
                "/quotas/{}/{namespace}/{}/{name}",
                self.cluster,
                kind.name()
            ),
        }
    }
}

/// Of which namespaces and which Tenants someone sees the quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sees {
    /// Namespaces.
    pub namespaces: Tenants,
    /// Tenants, by the name of their object.
    pub tenants: Tenants,
}

/// Quotas by `tenant`, `cluster`, `kind`, `state` (`tight`: four fifths used or more) and `q`, sorted by
/// `sort`; the tightest first where nobody says otherwise.
pub fn quotas(state: &State, sees: &Sees, params: &Params) -> Listing<QuotaRow> {
    let (tenant, cluster) = (params.get("tenant"), params.get("cluster"));
    let (kind, only, q) = (
        QuotaKind::named(params.get("kind")),
        params.get("state"),
        words(params.get("q")),
    );
    let mut found: Vec<(&str, &Quota, i64)> = Vec::new();
    let tenants = state.departments.iter();
    let pools = tenants
        .filter(|(name, _)| sees.tenants.see(name))
        .flat_map(|(_, d)| d.pools.iter().map(|quota| ("", quota)));
    let members = state.members.iter().flat_map(|(name, member)| {
        let all = member.quotas.values();
        all.filter(|quota| sees.namespaces.see(&quota.namespace))
            .map(move |quota| (name.as_str(), quota.as_ref()))
    });
    for (place, quota) in pools.chain(members) {
        let share = quota.tightest().map_or(-1, |(_, share)| share);
        let fits = (tenant.is_empty() || quota.namespace == tenant)
            && (cluster.is_empty() || place == cluster)
            && kind.is_none_or(|k| k == quota.kind)
            && (only != "tight" || share >= 800)
            && (q.is_empty() || matches(&q, &[&quota.namespace, &quota.name, place]));
        if fits {
            found.push((place, quota, share));
        }
    }
    let (by, down) = order(params);
    let place = |a: &(&str, &Quota, i64), b: &(&str, &Quota, i64)| {
        (&a.1.namespace, a.1.kind, a.0, &a.1.name).cmp(&(&b.1.namespace, b.1.kind, b.0, &b.1.name))
    };
    match by {
        "name" => found.sort_by(|a, b| a.1.name.cmp(&b.1.name).then_with(|| place(a, b))),
        "tenant" => found.sort_by(place),
        "cluster" => found.sort_by(|a, b| a.0.cmp(b.0).then_with(|| place(a, b))),
        "share" => found.sort_by(|a, b| a.2.cmp(&b.2).then_with(|| place(a, b))),
        _ => found.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| place(a, b))),
    }
    if down {
        found.reverse();
    }
    Listing::cut(found, params, |(cluster, quota, _)| {
        QuotaRow::of(cluster, quota)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Member, limits::Amount};

    fn quota(namespace: &str, name: &str, used: i64) -> Quota {
        Quota {
            kind: QuotaKind::ResourceQuota,
            namespace: namespace.into(),
            name: name.into(),
            amounts: vec![Amount {
                resource: "pods".into(),
                used,
                guaranteed: None,
                limit: Some(10),
            }],
            ..Quota::default()
        }
    }

    #[test]
    fn the_tightest_come_first_and_others_are_not_there() {
        let mut state = State::default();
        let mut member = Member::default();
        for quota in [
            quota("shop", "a", 3),
            quota("shop", "b", 9),
            quota("bank", "c", 10),
        ] {
            let key = (quota.kind, quota.namespace.clone(), quota.name.clone());
            member.quotas.insert(key, Arc::new(quota));
        }
        state.members.insert("sh".into(), member);
        let shop = Tenants::Some(["shop".to_owned()].into());
        let sees = Sees {
            namespaces: shop.clone(),
            tenants: shop,
        };
        let names = |query: &str| {
            let found = quotas(&state, &sees, &Params::parse(query));
            let names = found.items.iter().map(|r| r.quota.name.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["b", "a"]);
        assert_eq!(names("state=tight"), ["b"]);
        assert_eq!(names("sort=name"), ["a", "b"]);
        assert_eq!(names("tenant=bank"), Vec::<String>::new());
        let row = &quotas(&state, &sees, &Params::default()).items[0];
        assert_eq!((row.binds.as_str(), row.share), ("pods", 900));
        assert_eq!(row.href(), "/quotas/sh/shop/ResourceQuota/b");
    }
}
