//! Profiles of services: how much one pod of an App uses at which hour of the day, learned from what pods were measured
//! to use, so that services that want the same resource at the same time are spread apart. Off unless a profile gives the
//! rule `ServiceProfile` a weight.
//!
//! A node's day is the sum of the days of its pods: 24 amounts of CPU, of memory and of network. A node scores by what would be left
//! in its worst hour with one more pod of the service: two services that peak at noon fill noon and leave the night,
//! a service of the night fits beside either. Only services of which most of a day is known take part.

use super::cluster::Cluster;
use super::nodes::Node;
use super::request::GroupKey;
use super::symbols::{Symbol, value_of};
use gantry_api::labels;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Hours of a day.
pub const HOURS: usize = 24;
/// Hours that must be known of a service before it counts.
const ENOUGH: u32 = 12;
/// How much of an hour's figure each further measurement replaces: a sixteenth, once there are that many.
const MEMORY: u32 = 16;

/// Bytes a second that a node is taken to have of network if it does not say: 10 Gbit/s.
const USUAL_NETWORK: i64 = 1_250_000_000;
/// Network classes, by the bytes a second in the busiest hour that they are below: 10 and 100 Mbit/s.
const NETWORK_CLASSES: [(&str, i64); 3] = [
    ("Low", 1_250_000),
    ("Medium", 12_500_000),
    ("High", i64::MAX),
];

/// What a pod was measured to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Millicores, bytes.
    pub base: [i64; 2],
    /// Bytes a second, where that is measured.
    pub network: Option<i64>,
}

impl From<[i64; 2]> for Usage {
    fn from(base: [i64; 2]) -> Self {
        Self {
            base,
            network: None,
        }
    }
}

/// One pod's day: CPU in millicores, memory in bytes, network in bytes a second, by the hour (UTC).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Day([[i64; HOURS]; 3]);

impl Default for Day {
    fn default() -> Self {
        Self([[0; HOURS]; 3])
    }
}

impl Day {
    fn add(&mut self, other: &Self, sign: i64) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            for (slot, amount) in mine.iter_mut().zip(theirs) {
                *slot += sign * amount;
            }
        }
    }

    /// The most of any resource in one hour, with another day on top, in per cent of what there is.
    fn peak_with(&self, other: &Self, all: [i64; 3]) -> i64 {
        let hours = (0..3).flat_map(|i| (0..HOURS).map(move |hour| (i, hour)));
        let percent = |(i, hour): (usize, usize)| {
            let used = self.0[i][hour] + other.0[i][hour];
            used.saturating_mul(100) / all[i].max(1)
        };
        hours.map(percent).max().unwrap_or(0)
    }

    /// A resource (0: CPU, 1: memory, 2: network) by the hour.
    #[must_use]
    pub const fn of(&self, resource: usize) -> &[i64; HOURS] {
        &self.0[resource]
    }

    /// The hour in which most of a resource is used.
    #[must_use]
    pub fn peak_hour(&self, resource: usize) -> usize {
        let hours = self.0[resource].iter().enumerate();
        hours
            .max_by_key(|(at, amount)| (**amount, usize::MAX - at))
            .map_or(0, |(at, _)| at)
    }

    /// How much it makes of the network in its busiest hour. `None`: nothing is known of it.
    #[must_use]
    pub fn network_class(&self) -> Option<&'static str> {
        let most = self.0[2].iter().max().copied().unwrap_or_default();
        let class = NETWORK_CLASSES.iter().find(|(_, below)| most < *below);
        class.filter(|_| most > 0).map(|(name, _)| *name)
    }
}

/// What is known of a service.
#[derive(Clone, Debug, Default)]
struct Service {
    day: Day,
    /// Measurements behind each hour's figure.
    seen: [u32; HOURS],
    /// As it was when it was last counted in.
    counted: Option<Day>,
}

/// A service: namespace and App.
pub type ServiceId = (Symbol, Symbol);

/// All services.
#[derive(Default)]
pub struct Services {
    pub on: bool,
    all: FxHashMap<ServiceId, Service>,
    /// By node: the sum of its pods' days.
    nodes: Vec<Day>,
    app: Option<Symbol>,
    network: Option<Symbol>,
    /// Something was learned that the sums do not show.
    changed: bool,
    /// Services of which something was learned that was not [taken](Cluster::learned) yet.
    fresh: BTreeSet<ServiceId>,
}

/// What is known of a service, to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// What one pod uses, by the hour.
    pub day: Day,
    /// Measurements behind each hour's figures.
    pub seen: [u32; HOURS],
}

impl Learned {
    /// What was kept as lists, of any length.
    #[must_use]
    pub fn of(cpu: &[i64], memory: &[i64], network: &[i64], seen: &[i64]) -> Self {
        let at = |list: &[i64], hour: usize| list.get(hour).copied().unwrap_or(0).max(0);
        let day = [cpu, memory, network].map(|list| std::array::from_fn(|hour| at(list, hour)));
        let seen = std::array::from_fn(|hour| u32::try_from(at(seen, hour)).unwrap_or(u32::MAX));
        Self {
            day: Day(day),
            seen,
        }
    }

    /// Hours of which something is known.
    #[must_use]
    pub fn hours(&self) -> usize {
        self.seen.iter().filter(|n| **n > 0).count()
    }

    fn weight(&self) -> u64 {
        self.seen.iter().map(|n| u64::from(*n)).sum()
    }
}

impl Services {
    /// The service of a pod.
    #[must_use]
    pub fn of(&self, group: &GroupKey) -> Option<ServiceId> {
        Some((group.namespace, value_of(&group.labels, self.app?)?))
    }

    fn counted(&self, id: ServiceId) -> Option<&Day> {
        self.all.get(&id)?.counted.as_ref()
    }

    /// A pod of the service came to the node (`sign` 1) or left it (-1).
    pub fn book(&mut self, id: ServiceId, node: u32, sign: i64) {
        let Some(day) = self.all.get(&id).and_then(|s| s.counted.clone()) else {
            return;
        };
        let at = node as usize;
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, Day::default());
        }
        self.nodes[at].add(&day, sign);
    }

    /// Bytes a second that a node has of network.
    #[must_use]
    pub fn network_of(&self, node: &Node) -> i64 {
        let told = node
            .other
            .iter()
            .find(|(name, ..)| Some(*name) == self.network);
        told.map_or(USUAL_NETWORK, |(_, all, _)| (*all).max(1))
    }

    /// What would be left of a node in its worst hour with one more pod of the service: 0 to 100. `None`: too little is
    /// known of the service.
    #[must_use]
    pub fn score(&self, id: ServiceId, node: u32, all: [i64; 3]) -> Option<i64> {
        let day = self.counted(id)?;
        let there = self.nodes.get(node as usize);
        let peak = match there {
            Some(there) => there.peak_with(day, all),
            None => Day::default().peak_with(day, all),
        };
        Some((100 - peak).clamp(0, 100))
    }
}

impl Cluster {
    /// Learns days of services from now on.
    pub fn watch_services(&mut self) {
        self.hours.on = true;
        self.hours.app = Some(self.compiler.symbols.intern(labels::APP));
        self.hours.network = Some(self.compiler.symbols.intern(labels::NETWORK));
        self.rules_changed = true;
    }

    /// A pod of a service was measured at this hour (UTC).
    pub fn learn(&mut self, namespace: &str, app: &str, hour: usize, usage: impl Into<Usage>) {
        let symbols = &mut self.compiler.symbols;
        let id = (symbols.intern(namespace), symbols.intern(app));
        let (hour, services) = (hour % HOURS, &mut self.hours);
        let service = services.all.entry(id).or_default();
        let seen = service.seen[hour].saturating_add(1);
        service.seen[hour] = seen;
        let weight = i64::from(seen.min(MEMORY));
        let Usage { base, network } = usage.into();
        let all = [Some(base[0]), Some(base[1]), network];
        for (day, amount) in service.day.0.iter_mut().zip(all) {
            if let Some(amount) = amount {
                day[hour] += (amount - day[hour]) / weight;
            }
        }
        services.changed = true;
        services.fresh.insert(id);
    }

    /// What an earlier scheduler learned of a service. Whoever knows more already keeps that.
    pub fn remember(&mut self, namespace: &str, app: &str, kept: &Learned) {
        let symbols = &mut self.compiler.symbols;
        let id = (symbols.intern(namespace), symbols.intern(app));
        let service = self.hours.all.entry(id).or_default();
        let known = Learned {
            day: service.day.clone(),
            seen: service.seen,
        };
        if kept.weight() > known.weight() {
            service.day = kept.day.clone();
            service.seen = kept.seen;
            self.hours.changed = true;
        }
    }

    /// Forgets a service: it is learned anew.
    pub fn unlearn(&mut self, namespace: &str, app: &str) {
        let symbols = &self.compiler.symbols;
        if let Some(id) = symbols.known(namespace).zip(symbols.known(app)) {
            self.hours.fresh.remove(&id);
            self.hours.changed |= self.hours.all.remove(&id).is_some();
        }
    }

    /// Services of which something was learned since it was last taken: namespace and App.
    pub fn fresh_services(&self) -> impl Iterator<Item = (ServiceId, &str, &str)> {
        let symbols = &self.compiler.symbols;
        let all = self.hours.fresh.iter();
        all.map(|id| (*id, symbols.text(id.0), symbols.text(id.1)))
    }

    /// Takes what is known of a service.
    pub fn learned(&mut self, id: ServiceId) -> Option<Learned> {
        self.hours.fresh.remove(&id);
        let service = self.hours.all.get(&id)?;
        Some(Learned {
            day: service.day.clone(),
            seen: service.seen,
        })
    }

    /// Counts what was learned. Returns whether anything was.
    pub fn settle_services(&mut self) -> bool {
        if !std::mem::take(&mut self.hours.changed) {
            return false;
        }
        for service in self.hours.all.values_mut() {
            let known = service.seen.iter().filter(|n| **n > 0).count();
            if known >= ENOUGH as usize {
                service.counted = Some(service.day.clone());
            }
        }
        self.hours.nodes.clear();
        let placed: Vec<_> = self.pods.values().map(|p| (p.class, p.node)).collect();
        for (class, node) in placed {
            if let Some(id) = self.classes[class.0 as usize].service {
                self.hours.book(id, node.0, 1);
            }
        }
        true
    }

    /// The day of a service's pods, as far as it counts.
    #[must_use]
    pub fn day_of(&self, namespace: &str, app: &str) -> Option<&Day> {
        let symbols = &self.compiler.symbols;
        let id = symbols.known(namespace).zip(symbols.known(app))?;
        self.hours.counted(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::object;
    use crate::core::object::Pod;
    use crate::core::{ClassId, Profile, profile::Rule};
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn cluster() -> Cluster {
        let mut profile = Profile::default();
        profile.weights.set(Rule::Services, 10);
        let mut cluster = Cluster::with_profiles(vec![profile]);
        for name in ["n0", "n1"] {
            let node: object::Node = serde_json::from_value(json!({"metadata": {"name": name},
                "status": {"allocatable": {"cpu": "10", "memory": "10Gi", "pods": "110"}}}))
            .unwrap();
            cluster.upsert_node(&node);
        }
        cluster.settle_rules();
        cluster
    }

    fn pod(name: &str, app: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"gantry.dev/app": app}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}]}}))
        .unwrap()
    }

    /// A pod that uses 4 cores around one hour, and little at others.
    fn live(cluster: &mut Cluster, app: &str, peak: usize) {
        for hour in 0..HOURS {
            let near = (hour + HOURS - peak + 2) % HOURS < 5;
            cluster.learn("d", app, hour, [if near { 4000 } else { 100 }, 1 << 20]);
        }
        cluster.settle_services();
    }

    fn choice(cluster: &mut Cluster, app: &str) -> String {
        let class: ClassId = cluster.classify(&pod("next", app));
        let node = cluster.choose(class).unwrap();
        cluster.node_name(node).to_owned()
    }

    #[test]
    fn services_of_the_same_peak_are_spread_apart() {
        let mut cluster = cluster();
        for (name, app, node) in [
            ("a", "noon", "n0"),
            ("b", "night", "n1"),
            ("c", "noon-too", "n0"),
        ] {
            cluster.observe(&pod(name, app), node);
        }
        live(&mut cluster, "noon", 12);
        live(&mut cluster, "night", 0);
        live(&mut cluster, "noon-too", 12);
        assert_eq!(cluster.day_of("d", "noon").unwrap().peak_hour(0), 10);
        cluster.remove("c");
        // One more of noon goes beside the night, one of the night beside noon.
        assert_eq!(choice(&mut cluster, "noon-too"), "n1");
        assert_eq!(choice(&mut cluster, "night"), "n0");
    }

    /// Memory counts as CPU does, and each resource for itself.
    #[test]
    fn who_wants_the_same_resource_at_the_same_time_is_spread_apart() {
        let mut cluster = cluster();
        for (name, app, node) in [("a", "cores", "n0"), ("b", "bytes", "n1")] {
            cluster.observe(&pod(name, app), node);
        }
        let busy = |cluster: &mut Cluster, app: &str, usage: [i64; 2]| {
            for hour in 0..HOURS {
                let quiet = [10, 1 << 20];
                let usage = if (9..12).contains(&hour) {
                    usage
                } else {
                    quiet
                };
                cluster.learn("d", app, hour, usage);
            }
            cluster.settle_services();
        };
        busy(&mut cluster, "cores", [4000, 1 << 20]);
        busy(&mut cluster, "bytes", [10, 4 << 30]);
        busy(&mut cluster, "more-bytes", [10, 4 << 30]);
        busy(&mut cluster, "more-cores", [4000, 1 << 20]);
        assert_eq!(cluster.day_of("d", "bytes").unwrap().peak_hour(1), 9);
        assert_eq!(cluster.day_of("d", "bytes").unwrap().network_class(), None);
        assert_eq!(choice(&mut cluster, "more-bytes"), "n0");
        assert_eq!(choice(&mut cluster, "more-cores"), "n1");
    }

    /// Bytes a second in the busiest hour of two services, in Mbit/s, their classes, and what the first node says that it
    /// has: where one more of the second goes, if one of the first is on the first node.
    #[rstest]
    #[case::little([8, 8], ["Low", "Low"], None, "n0")]
    #[case::much([4000, 4000], ["High", "High"], None, "n1")]
    #[case::of_a_small_node([80, 80], ["Medium", "Medium"], Some("25M"), "n1")]
    #[case::of_a_large_node([4000, 4000], ["High", "High"], Some("100G"), "n0")]
    fn who_makes_much_of_the_network_is_spread_apart(
        #[case] busiest: [i64; 2],
        #[case] classes: [&str; 2],
        #[case] has: Option<&str>,
        #[case] want: &str,
    ) {
        let mut cluster = cluster();
        if let Some(has) = has {
            let node = json!({"metadata": {"name": "n0"}, "status": {"allocatable":
                {"cpu": "10", "memory": "10Gi", "pods": "110", labels::NETWORK: has}}});
            cluster.upsert_node(&serde_json::from_value(node).unwrap());
        }
        // By all else the first node is the better one.
        for name in ["x", "y", "z"] {
            cluster.observe(&pod(name, "unknown"), "n1");
        }
        cluster.observe(&pod("a", "first"), "n0");
        for (app, busiest) in ["first", "second"].into_iter().zip(busiest) {
            for hour in 0..HOURS {
                let share = if hour == 12 { 1 } else { 100 };
                let usage = Usage {
                    base: [1, 1 << 20],
                    network: Some(busiest * 125_000 / share),
                };
                cluster.learn("d", app, hour, usage);
            }
        }
        cluster.settle_services();
        let told = ["first", "second"].map(|app| cluster.day_of("d", app).unwrap().network_class());
        assert_eq!(told, classes.map(Some));
        assert_eq!(choice(&mut cluster, "second"), want);
    }

    #[test]
    fn what_was_learned_outlasts_a_scheduler() {
        let mut first = cluster();
        live(&mut first, "web", 12);
        let fresh: Vec<_> = first.fresh_services().map(|(id, ..)| id).collect();
        let kept = first.learned(fresh[0]).unwrap();
        assert_eq!((kept.hours(), first.fresh_services().count()), (24, 0));
        let seen: Vec<i64> = kept.seen.iter().map(|n| i64::from(*n)).collect();
        let kept = Learned::of(kept.day.of(0), kept.day.of(1), kept.day.of(2), &seen);
        let mut second = cluster();
        second.learn("d", "web", 3, [1, 1]);
        second.remember("d", "web", &kept);
        assert!(second.settle_services());
        assert_eq!(second.day_of("d", "web"), first.day_of("d", "web"));
        // It is not written again because it was read; and whoever knows more does not take less.
        second.learn("d", "web", 3, [9, 9]);
        let id = second.fresh_services().next().unwrap().0;
        let own = second.learned(id).unwrap();
        second.remember("d", "web", &kept);
        assert_eq!(second.hours.all.values().next().unwrap().day, own.day);
        second.unlearn("d", "web");
        assert!(second.settle_services() && second.day_of("d", "web").is_none());
    }

    #[test]
    fn nothing_is_said_of_a_service_before_most_of_its_day_is_known() {
        let mut cluster = cluster();
        cluster.observe(&pod("a", "web"), "n0");
        for hour in 0..11 {
            cluster.learn("d", "web", hour, [100, 100]);
        }
        cluster.settle_services();
        assert!(cluster.day_of("d", "web").is_none());
        cluster.learn("d", "web", 11, [100, 100]);
        assert!(cluster.settle_services() && !cluster.settle_services());
        assert!(cluster.day_of("d", "web").is_some());
    }

    proptest! {
        /// Whatever comes and goes, a node's day is the sum of its pods' days.
        #[test]
        fn a_nodes_day_is_that_of_its_pods(steps in prop::collection::vec((0..4_u8, 0..6_usize, 0..2_u8, 0..24_usize), 1..60)) {
            let mut cluster = cluster();
            for (what, which, node, hour) in steps {
                let (name, app, node) = (format!("p{which}"), format!("s{}", which % 3), format!("n{node}"));
                match what {
                    0 => cluster.observe(&pod(&name, &app), &node),
                    1 => { cluster.remove(&name); }
                    2 => live(&mut cluster, &app, hour),
                    _ => { let all: Vec<ClassId> = cluster.class_ids.values().copied().collect(); cluster.compact(all); }
                }
                let kept = cluster.hours.nodes.clone();
                cluster.hours.changed = true;
                cluster.settle_services();
                // Sums that were never begun are empty.
                for at in 0..2 {
                    let empty = Day::default();
                    let (a, b) = (kept.get(at).unwrap_or(&empty), cluster.hours.nodes.get(at).unwrap_or(&empty));
                    prop_assert_eq!(a, b);
                }
            }
        }
    }
}
