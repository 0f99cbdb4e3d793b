//! Topology hints by CPU share, where a Service's annotation asks for them: each zone is to consume as many
//! endpoints as its share of all CPUs. The rules are those of `staging/src/k8s.io/endpointslice/topologycache`.
//!
//! Endpoints are hinted for their own zone first; zones with more than their share then lend some to zones
//! with less. Where a zone could get so few that each would carry a fifth more than the average, or nothing
//! is known of the zones, there are no hints at all. Hints that are there stay while they are good enough.

use std::collections::BTreeMap;

use crate::model::network::Service;
use crate::model::node::Node;

/// Annotations of a Service that ask for hints, with the values that do.
const MODE: &str = "service.kubernetes.io/topology-mode";
const MODE_BEFORE: &str = "service.kubernetes.io/topology-aware-hints";
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Nodes with these labels do not count.
const EXCLUDED: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];
/// So much more than the average may an endpoint have to carry.
const OVERLOAD: f64 = 0.2;

/// Whether a Service asks for hints by CPU share.
pub fn asked(service: &Service) -> bool {
    let notes = &service.metadata.annotations;
    let value = notes.get(MODE_BEFORE).or_else(|| notes.get(MODE));
    matches!(value, Some("Auto" | "auto"))
}

/// The share of each zone of all CPUs; why it is not known otherwise.
pub type Shares = Result<BTreeMap<String, f64>, &'static str>;

/// What of a node matters: its zone and its CPUs in thousandths, if it counts.
pub fn counts(node: &Node) -> Option<(Option<String>, i64)> {
    let labels = &node.metadata.labels;
    let ready = node
        .condition("Ready")
        .is_some_and(|it| it.status == "True");
    let excluded = EXCLUDED.iter().any(|it| labels.get(it).is_some());
    (ready && !excluded).then(|| {
        let zone = labels.get(ZONE).filter(|it| !it.is_empty());
        (
            zone.map(str::to_owned),
            node.status.allocatable.cpu.unwrap_or(0),
        )
    })
}

/// The shares of zones, by the nodes that count.
#[expect(
    clippy::cast_precision_loss,
    reason = "thousandths of CPUs, far below 2^53"
)]
pub fn shares(nodes: impl Iterator<Item = (Option<String>, i64)>) -> Shares {
    const UNKNOWN: &str =
        "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
    let mut zones: BTreeMap<String, i64> = BTreeMap::new();
    for (zone, cpu) in nodes {
        let (Some(zone), true) = (zone, cpu > 0) else {
            return Err(UNKNOWN);
        };
        *zones.entry(zone).or_default() += cpu;
    }
    if zones.len() < 2 {
        return Err(UNKNOWN);
    }
    let total: i64 = zones.values().sum();
    Ok(zones
        .into_iter()
        .map(|(zone, cpu)| (zone, cpu as f64 / total as f64))
        .collect())
}

/// A ready endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Ready<'a> {
    pub zone: Option<&'a str>,
    /// The zone that it is hinted for now.
    pub hinted: Option<&'a str>,
}

struct Allocation {
    least: usize,
    most: usize,
    desired: f64,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of endpoints, which are few"
)]
fn allocations(
    count: usize,
    shares: &BTreeMap<String, f64>,
) -> Result<BTreeMap<&str, Allocation>, String> {
    let zones = shares.len();
    if zones > count {
        return Err(format!(
            "Insufficient number of endpoints ({count} endpoints, {zones} zones)"
        ));
    }
    let mut all = BTreeMap::new();
    let mut sum = 0;
    for (zone, share) in shares {
        let desired = share * count as f64;
        let least = (desired / (1.0 + OVERLOAD)).ceil() as usize;
        sum += least;
        let desired = desired.max(least as f64);
        all.insert(
            zone.as_str(),
            Allocation {
                least,
                most: least,
                desired,
            },
        );
    }
    let Some(spare) = count.checked_sub(sum) else {
        return Err(format!(
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold ({count} endpoints, {zones} zones)"
        ));
    };
    for it in all.values_mut() {
        it.most += spare;
    }
    Ok(all)
}

/// The zone for which each endpoint is to be hinted, in the order of the endpoints.
///
/// # Errors
/// Why there are to be no hints.
pub fn hints(ready: &[Ready<'_>], shares: &Shares) -> Result<Vec<String>, String> {
    let shares = shares.as_ref().map_err(|why| (*why).to_owned())?;
    let allocations = allocations(ready.len(), shares)?;
    if ready.iter().any(|it| it.zone.is_none_or(str::is_empty)) {
        return Err("One or more endpoints do not have a zone specified".into());
    }
    let count = |of: &[&str]| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for zone in of {
            *counts.entry((*zone).to_owned()).or_default() += 1;
        }
        counts
    };
    // What is there stays while every zone has enough, and none too much.
    if let Some(before) = ready
        .iter()
        .map(|it| it.hinted)
        .collect::<Option<Vec<&str>>>()
    {
        let counts = count(&before);
        let known = counts
            .keys()
            .all(|zone| allocations.contains_key(zone.as_str()));
        let good = allocations.iter().all(|(zone, it)| {
            let has = counts.get(*zone).copied().unwrap_or(0);
            (it.least..=it.most).contains(&has)
        });
        if known && good {
            return Ok(before.into_iter().map(str::to_owned).collect());
        }
    }
    let mut zones: Vec<&str> = ready.iter().map(|it| it.zone.unwrap_or_default()).collect();
    let (mut giving, mut receiving) = exchanges(&allocations, &count(&zones));
    for zone in &mut zones {
        let Some(left) = giving.get_mut(*zone).filter(|left| **left > 0) else {
            continue;
        };
        let Some((to, wanted)) = receiving.iter_mut().find(|(_, wanted)| **wanted > 0) else {
            break;
        };
        (*left, *wanted) = (*left - 1, *wanted - 1);
        *zone = to;
    }
    Ok(zones.into_iter().map(str::to_owned).collect())
}

type Counts<'a> = BTreeMap<&'a str, usize>;

/// How many endpoints zones give away, and how many others get: whole ones of what they have too much or too
/// little, as long as it is worth it.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of endpoints, which are few"
)]
fn exchanges<'a>(
    allocations: &BTreeMap<&'a str, Allocation>,
    counts: &BTreeMap<String, usize>,
) -> (Counts<'a>, Counts<'a>) {
    let (mut surplus, mut lack) = (BTreeMap::new(), BTreeMap::new());
    for (zone, it) in allocations {
        let has = counts.get(*zone).copied().unwrap_or(0) as f64;
        if has > it.desired {
            surplus.insert(*zone, has - it.desired);
        } else if has < it.desired {
            lack.insert(*zone, it.desired - has);
        }
    }
    let most = |of: &BTreeMap<&'a str, f64>| {
        let mut best: Option<(&'a str, f64)> = None;
        for (zone, amount) in of {
            if best.is_none_or(|(_, most)| *amount > most) {
                best = Some((zone, *amount));
            }
        }
        best
    };
    let (mut giving, mut receiving) = (Counts::new(), Counts::new());
    while let (Some((from, gives)), Some((to, gets))) = (most(&surplus), most(&lack)) {
        if (gives < 1.0 && gets < 1.0) || gives < 0.5 || gets < 0.5 {
            break;
        }
        *giving.entry(from).or_default() += 1;
        *receiving.entry(to).or_default() += 1;
        surplus.insert(from, gives - 1.0);
        lack.insert(to, gets - 1.0);
    }
    (giving, receiving)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn shares_of(of: &[(&str, f64)]) -> Shares {
        Ok(of
            .iter()
            .map(|(zone, share)| ((*zone).to_owned(), *share))
            .collect())
    }

    fn run(zones: &str, shares: &Shares) -> Result<String, String> {
        let zones: Vec<String> = zones.chars().map(String::from).collect();
        let ready: Vec<Ready<'_>> = zones
            .iter()
            .map(|zone| Ready {
                zone: Some(zone),
                hinted: None,
            })
            .collect();
        hints(&ready, shares).map(|all| all.concat())
    }

    #[rstest]
    #[case("aabb", &[("a", 0.5), ("b", 0.5)], Ok("aabb"))]
    #[case("aaab", &[("a", 0.5), ("b", 0.5)], Ok("baab"))]
    #[case("aaaaaa", &[("a", 0.5), ("b", 0.5)], Ok("bbbaaa"))]
    #[case("aabbbccc", &[("a", 0.5), ("b", 0.25), ("c", 0.25)], Ok("aaabbacc"))]
    #[case("ab", &[("a", 0.5), ("b", 0.25), ("c", 0.25)], Err("Insufficient number of endpoints (2 endpoints, 3 zones)"))]
    #[case("abc", &[("a", 0.6), ("b", 0.2), ("c", 0.2)], Err("Unable to allocate minimum required endpoints to each zone without exceeding overload threshold (3 endpoints, 3 zones)"))]
    fn zones_get_their_share(
        #[case] zones: &str,
        #[case] shares: &[(&str, f64)],
        #[case] wanted: Result<&str, &str>,
    ) {
        let wanted = wanted.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(run(zones, &shares_of(shares)), wanted);
    }

    #[test]
    fn what_is_good_enough_stays() {
        let shares = shares_of(&[("a", 0.5), ("b", 0.5)]);
        let of = |zone, hinted| Ready {
            zone: Some(zone),
            hinted: Some(hinted),
        };
        let before = [
            of("a", "b"),
            of("a", "a"),
            of("a", "a"),
            of("b", "b"),
            of("b", "b"),
            of("b", "a"),
        ];
        assert_eq!(hints(&before, &shares).unwrap().concat(), "baabba");
        let gone = [of("a", "c"), of("b", "b")];
        assert_eq!(hints(&gone, &shares).unwrap().concat(), "ab");
    }

    #[test]
    fn nodes_tell_the_shares() {
        let node = |zone: &str, cpu| ((!zone.is_empty()).then(|| zone.to_owned()), cpu);
        assert_eq!(
            shares([node("a", 3000), node("b", 500), node("b", 500)].into_iter()),
            shares_of(&[("a", 0.75), ("b", 0.25)])
        );
        assert!(shares([node("a", 3000), node("", 500)].into_iter()).is_err());
        assert!(shares([node("a", 3000), node("b", 0)].into_iter()).is_err());
        assert!(shares([node("a", 3000)].into_iter()).is_err());
    }

    proptest! {
        /// No endpoint is hinted for a zone without CPUs, and no zone is left without endpoints.
        #[test]
        fn every_zone_has_some(zones in proptest::collection::vec(0usize..3, 3..60), cpus in proptest::collection::vec(1i64..64, 3)) {
            let name = |zone: usize| ["a", "b", "c"][zone].to_owned();
            let shares = shares((0..3).map(|zone| (Some(name(zone)), cpus[zone])));
            let zones: Vec<String> = zones.into_iter().map(name).collect();
            let ready: Vec<Ready<'_>> = zones.iter().map(|zone| Ready { zone: Some(zone), hinted: None }).collect();
            if let Ok(hinted) = hints(&ready, &shares) {
                for zone in 0..3 {
                    let has = hinted.iter().filter(|it| **it == name(zone)).count();
                    let least = (cpus[zone] as f64 / cpus.iter().sum::<i64>() as f64 * ready.len() as f64 / 2.4).floor();
                    prop_assert!(has as f64 >= least, "{has} of {} for {zone}: {cpus:?}", ready.len());
                }
                let again: Vec<Ready<'_>> = ready.iter().zip(&hinted).map(|(it, hinted)| Ready { hinted: Some(hinted), ..it.clone() }).collect();
                prop_assert_eq!(hints(&again, &shares).map(|it| it.len()), Ok(hinted.len()));
            }
        }
    }
}
