//! Ranges of addresses for Services: ready as long as they are not deleted, and there as long as
//! somebody has an address of theirs that is in no other.
//!
//! Behaviour is that of the `service-cidr-controller` of Kubernetes 1.36, but that the addresses
//! that are in use are looked for in the Services themselves, not in the IPAddresses of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::Patch;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::model::meta::MetaOnly;
use crate::model::network::ServiceRange;
use crate::model::{Key, SERVICE_RANGES};
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How long a deleted range stays at the least: whoever gives out addresses may not have heard yet.
const GRACE_SECONDS: i64 = 10;

struct Ranges {
    context: Context,
}

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let all = {
        let (queue, ranges) = (queue.clone(), context.informers.service_ranges.clone());
        move |only_leaving: bool| {
            for range in ranges.all() {
                if !only_leaving || range.metadata.deleted.is_some() {
                    queue.add(range.metadata.key());
                }
            }
        }
    };
    let look = all.clone();
    // There are few: one may be what another waits for.
    context
        .informers
        .service_ranges
        .on_change(move |_, _| look(false));
    context.informers.services.on_change(move |old, new| {
        if old.is_some() && new.is_none() {
            all(true);
        }
    });
    let controller = Arc::new(Ranges {
        context: context.clone(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// An address and how many bits of it count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix {
    base: IpAddr,
    bits: u32,
}

impl Prefix {
    fn parse(text: &str) -> Option<Prefix> {
        let (base, bits) = text.split_once('/')?;
        let (base, bits) = (base.parse().ok()?, bits.parse().ok()?);
        let most = if matches!(base, IpAddr::V4(_)) {
            32
        } else {
            128
        };
        (bits <= most).then_some(Prefix { base, bits })
    }

    fn has(self, address: IpAddr) -> bool {
        let differ = match (self.base, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        differ >= self.bits
    }

    fn contains(self, other: Prefix) -> bool {
        self.bits <= other.bits && self.has(other.base)
    }
}

fn prefixes(range: &ServiceRange) -> impl Iterator<Item = Prefix> {
    range.spec.cidrs.iter().filter_map(|c| Prefix::parse(c))
}

/// Whether nobody would lose an address if a range went. Of the others only those count that stay.
fn may_go<'a>(
    range: &ServiceRange,
    others: &[Arc<ServiceRange>],
    mut used: impl Iterator<Item = &'a str>,
) -> bool {
    let staying: Vec<Prefix> = others
        .iter()
        .filter(|o| o.metadata.uid != range.metadata.uid && o.metadata.deleted.is_none())
        .flat_map(|o| prefixes(o))
        .collect();
    let within = |one: Prefix| staying.iter().any(|s| s.contains(one));
    if prefixes(range).all(within) {
        return true;
    }
    !used.any(|text| {
        text.parse().is_ok_and(|address| {
            prefixes(range).any(|p| p.has(address)) && !staying.iter().any(|s| s.has(address))
        })
    })
}

impl Controller for Ranges {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let Some(range) = informers.service_ranges.get(key) else {
            return Ok(Outcome::Done);
        };
        let held = range.metadata.has_finalizer(FINALIZER);
        let Some(deleted) = range.metadata.deleted else {
            if !held {
                self.write(&range, None, json!({"finalizers": [FINALIZER]}))
                    .await?;
            }
            let message = "Kubernetes Service CIDR is ready";
            return self.tell(&range, "True", "", message).await;
        };
        if !held {
            return Ok(Outcome::Done);
        }
        let services = informers.services.all();
        let used = services.iter().flat_map(|s| &s.spec.cluster_ips);
        if !may_go(
            &range,
            &informers.service_ranges.all(),
            used.map(String::as_str),
        ) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            return self.tell(&range, "False", "Terminating", message).await;
        }
        let left = deleted.as_second() + GRACE_SECONDS - Timestamp::now().as_second();
        if let Ok(left @ 1..) = u64::try_from(left) {
            return Ok(Outcome::After(Duration::from_secs(left)));
        }
        let change = json!({"$deleteFromPrimitiveList/finalizers": [FINALIZER]});
        self.write(&range, None, change).await?;
        Ok(Outcome::Done)
    }
}

impl Ranges {
    async fn tell(
        &self,
        range: &ServiceRange,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<Outcome, ApiError> {
        let ready = range.status.conditions.iter().find(|c| c.kind == "Ready");
        if ready.is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
            return Ok(Outcome::Done);
        }
        let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({"type": "Ready", "status": status, "reason": reason,
            "message": message, "lastTransitionTime": at});
        self.write(range, Some(condition), json!({})).await?;
        Ok(Outcome::Done)
    }

    async fn write(
        &self,
        range: &ServiceRange,
        condition: Option<Value>,
        mut metadata: Value,
    ) -> Result<(), ApiError> {
        let meta = &range.metadata;
        metadata["uid"] = (*meta.uid).into();
        let mut change = json!({"metadata": metadata});
        let sub = condition.as_ref().map(|_| "status");
        if let Some(condition) = condition {
            change["status"] = json!({"conditions": [condition]});
        }
        let patch = Patch::Strategic(change);
        let api = &self.context.api;
        match api
            .patch::<MetaOnly>(&SERVICE_RANGES, &meta.key(), sub, &patch)
            .await
        {
            Err(error) if !error.not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn range(name: &str, cidrs: &[&str], leaving: bool) -> Arc<ServiceRange> {
        let deleted = leaving.then_some("2026-01-01T00:00:00Z");
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "uid": name, "deletionTimestamp": deleted},
                "spec": {"cidrs": cidrs}}))
            .unwrap(),
        )
    }

    #[rstest]
    #[case::nobody_uses_it(&["10.0.0.0/24"], &["10.0.1.1", "2001:db8::1", "None", ""], &[], true)]
    #[case::somebody_does(&["10.0.0.0/24"], &["10.0.0.9"], &[], false)]
    #[case::its_other_family(&["10.0.0.0/24", "2001:db8::/112"], &["2001:db8::9"], &[], false)]
    #[case::in_a_larger_one(&["10.0.0.0/24"], &["10.0.0.9"], &["10.0.0.0/16"], true)]
    #[case::in_the_same(&["10.0.0.0/24"], &["10.0.0.9"], &["10.0.0.0/24"], true)]
    #[case::the_address_is_in_a_smaller_one(&["10.0.0.0/24"], &["10.0.0.9"], &["10.0.0.0/28"], true)]
    #[case::the_address_is_not(&["10.0.0.0/24"], &["10.0.0.99"], &["10.0.0.0/28"], false)]
    fn ranges_go_when_nobody_loses_by_it(
        #[case] own: &[&str],
        #[case] used: &[&str],
        #[case] other: &[&str],
        #[case] goes: bool,
    ) {
        let own = range("own", own, true);
        let of = |leaving| [own.clone(), range("other", other, leaving)];
        assert_eq!(may_go(&own, &of(false), used.iter().copied()), goes);
        if !other.is_empty() {
            assert!(!may_go(&own, &of(true), used.iter().copied()));
        }
    }
}
