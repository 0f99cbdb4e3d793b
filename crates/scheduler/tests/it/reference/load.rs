//! Usage, plainly: what a node was measured to use, with an estimate of every pod that the measurement cannot show.

use super::World;
use super::random::chance;
use super::rules::number;
use gantry_scheduler::core::load::LoadArgs;
use gantry_scheduler::core::profile::Rule;
use gantry_scheduler::core::{Cluster, Profile};
use k8s_openapi::api::core::v1::Pod;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What was measured of a node: CPU in millicores, memory in bytes; when, and from when on.
pub type Measured = ([i64; 2], i64, i64);

/// Times of the test, in seconds.
const START: i64 = 10_000;

/// A profile that looks at usage, for some of the runs.
pub fn profile(random: &mut ChaCha8Rng) -> Profile {
    let mut profile = Profile::default();
    if chance(random, 40) {
        profile.load = Some(LoadArgs {
            thresholds: [
                Some(random.random_range(20..90)),
                Some(random.random_range(20..90)),
            ],
            expiry: 100,
            ..LoadArgs::default()
        });
        profile.weights.set(Rule::Load, 1);
    }
    profile
}

/// Time passes and a node may be measured.
pub fn happen(random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster, step: i64) {
    world.now = START + 10 * step;
    if world.load.is_none() {
        return;
    }
    cluster.pass_time(world.now);
    let names: Vec<String> = world.nodes.keys().cloned().collect();
    for name in names {
        if chance(random, 20) {
            let usage = [
                random.random_range(0..3000),
                random.random_range(0..6 << 30),
            ];
            let at = world.now - random.random_range(0..40);
            let window = random.random_range(0..30);
            cluster.measure(&name, usage, at, window);
            let known = world.usage.get(&name).map_or(i64::MIN, |(_, at, _)| *at);
            if at > known {
                world.usage.insert(name, (usage, at, at - window));
            }
        }
    }
}

impl World {
    fn started(pod: &Pod) -> i64 {
        let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
        started.map_or(i64::MAX, |t| t.0.as_second())
    }

    /// CPU in millicores and memory in bytes that the pod is estimated to use.
    fn estimate(&self, pods: &[&Pod], factors: [i64; 2]) -> [i64; 2] {
        let mut sum = [0, 0];
        for pod in pods {
            let all = &self.takes(pod).assumed;
            sum[0] += all.get("cpu").copied().unwrap_or(0);
            sum[1] += all.get("memory").copied().unwrap_or(0) / 1000;
        }
        [sum[0] * factors[0] / 100, sum[1] * factors[1] / 100]
    }

    /// What the node would use with the pod, and whether that rests on a measurement.
    fn used_with(&self, pod: &Pod, name: &str, args: &LoadArgs) -> ([i64; 2], bool) {
        let measured = self
            .usage
            .get(name)
            .filter(|(_, at, _)| at + args.expiry > self.now);
        let there: Vec<&Pod> = self.on(name).collect();
        let base = match measured {
            None => self.estimate(&there, args.factors),
            Some((usage, _, from)) => {
                let unseen: Vec<&Pod> = there
                    .into_iter()
                    .filter(|p| Self::started(p) > *from)
                    .collect();
                let more = self.estimate(&unseen, args.factors);
                [usage[0] + more[0], usage[1] + more[1]]
            }
        };
        let own = self.estimate(&[pod], args.factors);
        ([base[0] + own[0], base[1] + own[1]], measured.is_some())
    }

    fn capacity(&self, name: &str) -> [i64; 2] {
        let status = self.nodes[name].status.as_ref();
        let all = status
            .and_then(|s| s.allocatable.clone())
            .unwrap_or_default();
        let of = |resource: &str| all.get(resource).map_or(0, |q| number(&q.0));
        [of("cpu"), of("memory") / 1000]
    }

    /// What was measured of a node that is gone stays as long as pods hold its place.
    pub fn forget_usage(&mut self) {
        let held: Vec<String> = self.pods.values().map(|(_, on)| on.clone()).collect();
        self.usage
            .retain(|name, _| self.nodes.contains_key(name) || held.contains(name));
    }

    /// Whether the node is cool enough for the pod.
    pub fn cool(&self, pod: &Pod, name: &str) -> bool {
        let policy = self.policy_load(pod);
        if self.load.is_none() && policy.is_none() || names_its_nodes(pod) {
            return true;
        }
        let mut args = self.load.clone().unwrap_or_default();
        args.thresholds = policy.unwrap_or(args.thresholds);
        let args = &args;
        let (used, measured) = self.used_with(pod, name, args);
        let all = self.capacity(name);
        !measured
            || (0..2)
                .all(|i| args.thresholds[i].is_none_or(|percent| used[i] <= all[i] * percent / 100))
    }

    /// The score by usage.
    pub fn coolness(&self, pod: &Pod, name: &str) -> i64 {
        let Some(args) = &self.load else { return 0 };
        let (used, _) = self.used_with(pod, name, args);
        let all = self.capacity(name);
        let free = |i: usize| (all[i] - used[i]).max(0) * 100 / all[i];
        (free(0) + free(1)) / 2
    }
}

/// Whether the pod may run nowhere but on nodes that it names, as a DaemonSet's pods do.
pub fn names_its_nodes(pod: &Pod) -> bool {
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
    let required = affinity
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    required.is_some_and(|required| {
        required.node_selector_terms.iter().all(|term| {
            let fields = term.match_fields.iter().flatten();
            fields.into_iter().any(|field| field.operator == "In")
        })
    })
}
