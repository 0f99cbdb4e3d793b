//! Images as a scenario tells of them: their sizes, the layers that they share, and the registry.
//!
//! A node keeps the layers that it has pulled, and pulls one image at a time, as kubelets do unless told
//! otherwise (`serializeImagePulls`). What the registry sends in all is shared by asking for it in turn.

use crate::{
    behaviour::{Draw, Glob, Span},
    clock::Millis,
};
use rustc_hash::FxHashMap;
use std::{sync::Arc, time::Duration};

/// What is known of images and of the registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// The registry.
    pub registry: Registry,
    /// Images; the first that fits holds.
    pub images: Vec<Image>,
}

/// The registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    /// Before the first byte comes.
    pub latency: Option<Span>,
    /// Bytes a second to one node; without, as fast as you like.
    pub per_node: Option<f64>,
    /// Bytes a second in all.
    pub in_all: Option<f64>,
    /// Pulls that fail.
    pub failure: Option<PullFailure>,
}

/// Pulls that fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullFailure {
    /// So many of a million.
    pub per_million: u32,
    /// With these words.
    pub message: Arc<str>,
}

/// Images of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Which.
    pub name: Glob,
    /// Bytes.
    pub size: u64,
    /// Layers that it shares with others, by name, and their bytes. The rest is its own.
    pub layers: Vec<(Arc<str>, u64)>,
    /// Its own failures, instead of the registry's.
    pub failure: Option<PullFailure>,
}

/// How the registry does at the moment, as events of a scenario have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// So many times slower than usual.
    pub slower: f64,
    /// Every pull fails, with this answer.
    pub down: Option<Arc<str>>,
    /// Until when what it can send in all is promised to others.
    pub promised: Millis,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            slower: 1.0,
            down: None,
            promised: Millis(i64::MIN),
        }
    }
}

/// Images and layers on a node, and those on their way, with the time from which they are there.
#[derive(Clone, Debug, Default)]
pub struct Images {
    whole: FxHashMap<Arc<str>, Millis>,
    layers: FxHashMap<u64, Millis>,
    /// Until when it pulls.
    busy: Option<Millis>,
}

/// A pull that has been planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it is through.
    pub until: Millis,
    /// The registry's answer, if it fails.
    pub error: Option<Arc<str>>,
}

impl Images {
    /// Since when an image is there, or from when on.
    #[must_use]
    pub fn get(&self, image: &str) -> Option<Millis> {
        self.whole.get(image).copied()
    }

    /// An image is there from then on.
    pub fn put(&mut self, image: Arc<str>, at: Millis) {
        self.whole.entry(image).or_insert(at);
    }
}

impl Catalogue {
    /// The facts about an image.
    #[must_use]
    pub fn find(&self, image: &str) -> Option<&Image> {
        self.images.iter().find(|it| it.name.matches(image))
    }

    /// Plans the pull of an image that is not on the node; `None` if nothing is known of it.
    /// `draw` is of the pull, `try_` of this try of it.
    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes of an image, far below 2^53"
    )]
    #[expect(
        clippy::too_many_arguments,
        reason = "node, registry and time are the caller's"
    )]
    pub fn pull(
        &self,
        image: &Arc<str>,
        draw: Draw,
        try_: u32,
        node: &mut Images,
        traffic: &mut Traffic,
        now: Millis,
        scale: f64,
    ) -> Option<Planned> {
        let facts = self.find(image)?;
        let after = |seconds: f64| {
            let scaled = seconds * traffic.slower / scale;
            Duration::try_from_secs_f64(scaled).unwrap_or(Duration::MAX)
        };
        let latency = self
            .registry
            .latency
            .map_or(Duration::ZERO, |span| draw.word("latency").within(span));
        let asked = now.plus(after(latency.as_secs_f64()));
        let failure = facts.failure.as_ref().or(self.registry.failure.as_ref());
        let fails = failure.filter(|it| {
            draw.word("pull?")
                .number(u64::from(try_))
                .hits(it.per_million)
        });
        if let Some(error) = traffic
            .down
            .clone()
            .or_else(|| fails.map(|it| it.message.clone()))
        {
            return Some(Planned {
                until: asked,
                error: Some(error),
            });
        }
        let name = |word: &str| Draw::new(0).word(word).bits();
        let shared: u64 = facts.layers.iter().map(|(_, size)| size).sum();
        let own = (name(image), facts.size.saturating_sub(shared));
        let all = facts
            .layers
            .iter()
            .map(|(layer, size)| (name(layer), *size))
            .chain([own]);
        let missing: Vec<(u64, u64)> = all
            .filter(|(layer, _)| !node.layers.contains_key(layer))
            .collect();
        let bytes = missing.iter().map(|(_, size)| *size as f64).sum::<f64>();
        let rate = |rate: Option<f64>| rate.map_or(0.0, |rate| bytes / rate);
        let begins = node.busy.map_or(asked, |busy| asked.max(busy));
        let mut until = begins.plus(after(rate(self.registry.per_node)));
        if self.registry.in_all.is_some() {
            let sent = traffic
                .promised
                .max(now)
                .plus(after(rate(self.registry.in_all)));
            traffic.promised = sent;
            until = until.max(sent);
        }
        node.layers
            .extend(missing.iter().map(|(layer, _)| (*layer, until)));
        node.busy = Some(until);
        node.put(image.clone(), until);
        Some(Planned { until, error: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        let image = |name: &str, size, layers: &[(&str, u64)]| Image {
            name: Glob::new(name),
            size,
            layers: layers
                .iter()
                .map(|(name, size)| ((*name).into(), *size))
                .collect(),
            failure: None,
        };
        Catalogue {
            registry: Registry {
                per_node: Some(10.0),
                ..Registry::default()
            },
            images: vec![
                image("shop/*", 400, &[("debian", 300)]),
                image("bad/*", 10, &[]),
            ],
        }
    }

    fn pull(
        it: &Catalogue,
        image: &str,
        node: &mut Images,
        traffic: &mut Traffic,
        at: i64,
    ) -> Option<Planned> {
        it.pull(
            &image.into(),
            Draw::new(1).word(image),
            0,
            node,
            traffic,
            Millis(at),
            1.0,
        )
    }

    #[test]
    fn shared_layers_come_once_and_pulls_take_turns() {
        let (all, mut node, mut traffic) = (catalogue(), Images::default(), Traffic::default());
        let mut until =
            |image: &str, at| pull(&all, image, &mut node, &mut traffic, at).map(|it| it.until.0);
        assert_eq!(until("shop/cart:1", 0), Some(40_000), "all of 400 bytes");
        assert_eq!(
            until("shop/pay:1", 0),
            Some(50_000),
            "its own 100, after the first"
        );
        assert_eq!(until("shop/cart:2", 90_000), Some(100_000));
        assert_eq!(until("elsewhere", 0), None);
        assert_eq!(node.get("shop/pay:1"), Some(Millis(50_000)));
    }

    #[test]
    fn the_registry_is_shared_slow_or_down() {
        let mut all = catalogue();
        all.registry.in_all = Some(5.0);
        let mut traffic = Traffic::default();
        let until = |traffic: &mut Traffic| {
            pull(&all, "shop/cart:1", &mut Images::default(), traffic, 0)
                .map(|it| (it.until.0, it.error))
        };
        assert_eq!(until(&mut traffic), Some((80_000, None)));
        assert_eq!(
            until(&mut traffic),
            Some((160_000, None)),
            "another node waits for its share"
        );
        let mut slow = Traffic {
            slower: 3.0,
            ..Traffic::default()
        };
        assert_eq!(until(&mut slow), Some((240_000, None)));
        slow.down = Some("503".into());
        assert_eq!(until(&mut slow), Some((0, Some("503".into()))));
    }

    #[test]
    fn some_pulls_fail_and_the_next_try_may_not() {
        let mut all = catalogue();
        all.images[1].failure = Some(PullFailure {
            per_million: 500_000,
            message: "reset by peer".into(),
        });
        let outcome = |try_| {
            let (mut node, mut traffic) = (Images::default(), Traffic::default());
            let image = "bad/a".into();
            let planned = all.pull(
                &image,
                Draw::new(1),
                try_,
                &mut node,
                &mut traffic,
                Millis(0),
                1.0,
            );
            planned.unwrap().error.is_some()
        };
        let failed = (0..1000).filter(|it| outcome(*it)).count();
        assert!((430..570).contains(&failed), "half of them: {failed}");
        assert_eq!(
            (0..50).map(outcome).collect::<Vec<_>>(),
            (0..50).map(outcome).collect::<Vec<_>>()
        );
    }
}
