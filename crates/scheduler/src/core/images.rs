//! Images that nodes have, for kube-scheduler's ImageLocality score: a node that has a pod's images is worth more,
//! the more so the larger they are and the more nodes have them.

use super::bits::NodeSet;
use super::object;
use super::symbols::{Symbol, Symbols};
use rustc_hash::FxHashMap;

const MIB: i64 = 1 << 20;
/// Below this sum a node's images are worth nothing; above the other, a container's are worth no more.
const LEAST: i64 = 23 * MIB;
const MOST: i64 = 1000 * MIB;

#[derive(Default)]
struct Image {
    size: i64,
    nodes: NodeSet,
}

/// Which node has which images.
#[derive(Default)]
pub struct Images {
    all: FxHashMap<Symbol, Image>,
    /// By node: names and sizes, sorted.
    by_node: Vec<Vec<(Symbol, i64)>>,
}

/// The name under which nodes report an image: with a tag.
#[must_use]
pub fn normal_name(name: &str) -> String {
    if name.rfind(':') <= name.rfind('/') {
        format!("{name}:latest")
    } else {
        name.to_owned()
    }
}

impl Images {
    /// Sets what a node has. Heartbeats mostly repeat it.
    pub fn set(&mut self, node: u32, images: &[object::Image], symbols: &mut Symbols) {
        let at = node as usize;
        if self.by_node.len() <= at {
            if images.is_empty() {
                return;
            }
            self.by_node.resize_with(at + 1, Vec::new);
        }
        let mut fresh: Vec<(Symbol, i64)> = images
            .iter()
            .flat_map(|image| image.names.iter().map(|name| (name, image.size_bytes)))
            .map(|(name, size)| (symbols.intern(name), size))
            .collect();
        fresh.sort_unstable();
        fresh.dedup_by_key(|(name, _)| *name);
        if fresh == self.by_node[at] {
            return;
        }
        let old = std::mem::replace(&mut self.by_node[at], fresh);
        for (name, _) in old {
            if let Some(image) = self.all.get_mut(&name) {
                image.nodes.set(at, false);
                if image.nodes.is_empty() {
                    self.all.remove(&name);
                }
            }
        }
        for (name, size) in &self.by_node[at] {
            let image = self.all.entry(*name).or_default();
            image.size = *size;
            image.nodes.set(at, true);
        }
    }

    /// Whether any node may score for having these images, of so many nodes.
    #[must_use]
    pub fn matter(&self, wanted: &[Symbol], nodes: usize) -> bool {
        !self.all.is_empty()
            && wanted
                .iter()
                .map(|name| self.worth(*name, nodes))
                .sum::<i64>()
                > LEAST
    }

    /// An image's size, by the share of nodes that have it.
    fn worth(&self, name: Symbol, nodes: usize) -> i64 {
        self.all.get(&name).map_or(0, |image| {
            let share = image.nodes.len() as f64 / nodes.max(1) as f64;
            (image.size as f64 * share) as i64
        })
    }

    /// The score of a node, 0 to 100. `wanted` has one entry a container.
    #[must_use]
    pub fn score(&self, wanted: &[Symbol], node: u32, nodes: usize) -> i64 {
        let there = |name: &&Symbol| {
            self.all
                .get(name)
                .is_some_and(|image| image.nodes.contains(node as usize))
        };
        let sum: i64 = wanted
            .iter()
            .filter(there)
            .map(|name| self.worth(*name, nodes))
            .sum();
        let most = MOST * i64::try_from(wanted.len()).unwrap_or(1).max(1);
        (sum.clamp(LEAST, most) - LEAST) * 100 / (most - LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_and_wider_spread_images_are_worth_more() {
        let (mut images, mut symbols) = (Images::default(), Symbols::default());
        let image = |name: &str, mib: i64| object::Image {
            names: vec![name.to_owned()],
            size_bytes: mib * MIB,
        };
        images.set(
            0,
            &[image("big:1", 1000), image("small:1", 10)],
            &mut symbols,
        );
        images.set(1, &[image("big:1", 1000)], &mut symbols);
        let [big, small] = ["big:1", "small:1"].map(|n| symbols.intern(n));
        assert_eq!(images.score(&[big], 0, 2), 100);
        assert_eq!(images.score(&[big], 0, 4), (500 - 23) * 100 / 977);
        assert_eq!(images.score(&[big], 2, 4), 0);
        assert_eq!(images.score(&[small], 0, 2), 0);
        assert_eq!(images.score(&[big, small], 0, 2), (1005 - 23) * 100 / 1977);
        assert!(images.matter(&[big], 4) && !images.matter(&[small], 4));
        images.set(1, &[], &mut symbols);
        assert_eq!(images.score(&[big], 0, 4), (250 - 23) * 100 / 977);
        assert_eq!(images.score(&[big], 1, 4), 0);
    }

    #[test]
    fn names_get_the_tag_that_nodes_report() {
        for (name, want) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.27", "nginx:1.27"),
            ("registry:5000/nginx", "registry:5000/nginx:latest"),
            ("r/nginx@sha256:abc", "r/nginx@sha256:abc"),
        ] {
            assert_eq!(normal_name(name), want);
        }
    }
}
