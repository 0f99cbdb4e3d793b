//! Scores that look at more than the node: how pods are spread, whom they like beside them, images, and the hours of
//! services; and the choice of the best.

use super::class::SpreadRule;
use super::cluster::Cluster;
use super::decide::{Check, Choice};
use super::nodes::NodeId;
use super::overlay::Tally;
use super::profile::Rule;
use super::topology::NONE;

impl Cluster {
    pub(super) fn best(&self, check: &Check<'_>, candidates: &[(u32, i64)]) -> Option<Choice> {
        let mut totals: Vec<i64> = candidates.iter().map(|(_, base)| *base).collect();
        if candidates.len() > 1 && check.scores() {
            let nodes: Vec<u32> = candidates.iter().map(|(node, _)| *node).collect();
            self.add_spread(check, &nodes, &mut totals);
            self.add_preferences(check, &nodes, &mut totals);
            self.add_images(check, &nodes, &mut totals);
            self.add_services(check, &nodes, &mut totals);
            self.add_numa(check, &nodes, &mut totals);
            self.add_devices(check, &nodes, &mut totals);
        }
        let mut best: [Option<(NodeId, i64)>; 3] = [None; 3];
        for ((node, _), total) in candidates.iter().zip(&totals) {
            let mut entry = Some((NodeId(*node), *total));
            for place in &mut best {
                // A node may be a candidate twice, for its score and for its neighbours.
                if place.map(|(node, _)| node) == entry.map(|(node, _)| node) {
                    break;
                }
                if place.is_none_or(|(_, score)| entry.is_some_and(|(_, new)| new >= score)) {
                    std::mem::swap(place, &mut entry);
                }
            }
        }
        best[0].map(|_| Choice {
            considered: u32::try_from(candidates.len()).unwrap_or(u32::MAX),
            best,
        })
    }

    pub(super) fn image_score(&self, check: &Check<'_>, node: u32) -> i64 {
        self.images
            .score(&check.class.request.images, node, self.nodes.known)
    }

    /// ImageLocality's score.
    pub(super) fn add_images(&self, check: &Check<'_>, nodes: &[u32], totals: &mut [i64]) {
        if check.images {
            for (total, node) in totals.iter_mut().zip(nodes) {
                *total += check.rules.weight(Rule::Images) * self.image_score(check, *node);
            }
        }
    }

    /// The score by the hours at which a node's services use it.
    pub(super) fn add_services(&self, check: &Check<'_>, nodes: &[u32], totals: &mut [i64]) {
        let Some(service) = check.class.service.filter(|_| check.by_service()) else {
            return;
        };
        for (total, node) in totals.iter_mut().zip(nodes) {
            let all = &self.nodes.rooms[*node as usize].allocatable;
            let network = self.hours.network_of(&self.nodes.all[*node as usize]);
            let all = [all.cpu, all.memory, network];
            let score = self.hours.score(service, *node, all);
            *total += check.rules.weight(Rule::Services) * score.unwrap_or(0);
        }
    }

    /// The score by NUMA nodes.
    pub(super) fn add_numa(&self, check: &Check<'_>, nodes: &[u32], totals: &mut [i64]) {
        let Some(asks) = check
            .class
            .request
            .asks
            .as_ref()
            .filter(|_| check.by_numa())
        else {
            return;
        };
        for (total, node) in totals.iter_mut().zip(nodes) {
            *total += self.numa_score(NodeId(*node), asks, check.rules);
        }
    }

    /// DynamicResources' score: the better the alternatives that a node can serve of the pod's claims, the higher.
    pub(super) fn add_devices(&self, check: &Check<'_>, nodes: &[u32], totals: &mut [i64]) {
        let Some(needs) = check.devices.as_ref().filter(|_| check.by_devices()) else {
            return;
        };
        let symbols = &self.compiler.symbols;
        let raw = nodes.iter().map(|node| {
            let node = &self.nodes.all[*node as usize];
            needs.rank(node, symbols)
        });
        let raw: Vec<i64> = raw.collect();
        let most = raw.iter().copied().max().unwrap_or_default().max(1);
        for (total, raw) in totals.iter_mut().zip(raw) {
            *total += check.rules.weight(Rule::Devices) * (100 * raw / most);
        }
    }

    /// PodTopologySpread's score: fewer matching pods are better, small domains weigh less.
    pub(super) fn add_spread(&self, check: &Check<'_>, nodes: &[u32], totals: &mut [i64]) {
        let soft = &check.class.soft;
        let weight = check.rules.weight(Rule::Spread);
        if soft.is_empty() || weight == 0 {
            return;
        }
        let rules: Vec<(&SpreadRule, Tally<'_>, f64)> = soft
            .iter()
            .map(|rule| {
                let counter = check.tally(rule.counter);
                (rule, counter, (counter.domains() as f64 + 2.0).ln())
            })
            .collect();
        let strict = !check.class.request.default_spread;
        let raw: Vec<Option<i64>> = nodes
            .iter()
            .map(|node| {
                let mut sum = 0.0;
                for (rule, counter, weight) in &rules {
                    let domain = self.topology.domain(rule.key, *node);
                    if domain == NONE {
                        if strict {
                            return None;
                        }
                        continue;
                    }
                    sum += f64::from(counter.count(domain)) * weight + (rule.max_skew - 1) as f64;
                }
                Some(sum.round() as i64)
            })
            .collect();
        let (Some(min), Some(max)) = (raw.iter().flatten().min(), raw.iter().flatten().max())
        else {
            return;
        };
        for (total, raw) in totals.iter_mut().zip(&raw) {
            *total += match raw {
                None => 0,
                Some(_) if *max == 0 => weight * 100,
                Some(raw) => weight * (100 * (max + min - raw) / max),
            };
        }
    }

    /// InterPodAffinity's score: own preferences and those of placed pods.
    pub(super) fn add_preferences(&self, check: &Check<'_>, nodes: &[u32], totals: &mut [i64]) {
        let weight = check.rules.weight(Rule::PodAffinity);
        if check.class.preferred.is_empty() && check.attracted.is_empty() || weight == 0 {
            return;
        }
        let hard = check.rules.profile.hard_affinity_weight;
        let raw: Vec<i64> = nodes
            .iter()
            .map(|node| {
                let own = check.class.preferred.iter().map(|(id, weight)| {
                    let counter = check.tally(*id);
                    let domain = self.topology.domain(counter.key(), *node);
                    if domain == NONE {
                        0
                    } else {
                        weight * i64::from(counter.count(domain))
                    }
                });
                let theirs = check.attracted.iter().map(|carrier| {
                    let domain = self.topology.domain(carrier.key(), *node);
                    if domain == NONE {
                        0
                    } else {
                        let toll = carrier.at(domain);
                        toll.weight + hard * toll.seeks
                    }
                });
                own.sum::<i64>() + theirs.sum::<i64>()
            })
            .collect();
        let (Some(min), Some(max)) = (raw.iter().min(), raw.iter().max()) else {
            return;
        };
        if max > min {
            for (total, raw) in totals.iter_mut().zip(&raw) {
                *total += weight * (100 * (raw - min) / (max - min));
            }
        }
    }
}
