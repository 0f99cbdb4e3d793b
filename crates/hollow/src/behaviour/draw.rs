//! Deterministic draws: the same seed and the same words always give the same number.
//!
//! A hash, not a stream, so that the order in which pods are handled cannot change what any of
//! them does. FNV-1a for the words, the SplitMix64 finaliser to spread the bits.

use std::time::Duration;

/// A hash in the making.
#[derive(Clone, Copy, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Starts from the simulation's seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(0xcbf2_9ce4_8422_2325).number(seed)
    }

    /// Takes in a word. A separator keeps ("ab","c") apart from ("a","bc").
    #[must_use]
    pub fn word(mut self, word: &str) -> Self {
        for byte in word.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// Takes in a number.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        for byte in number.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// The 64 bits drawn.
    #[must_use]
    pub fn bits(self) -> u64 {
        let mut z = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in [0, 1).
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    pub fn unit(self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A duration of the span, evenly distributed.
    #[must_use]
    pub fn within(self, span: Span) -> Duration {
        span.min + span.max.saturating_sub(span.min).mul_f64(self.unit())
    }
}

/// A range of durations, both ends included; `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Span {
    /// From `min` to `max` milliseconds.
    #[must_use]
    pub const fn millis(min: u64, max: u64) -> Self {
        Self {
            min: Duration::from_millis(min),
            max: Duration::from_millis(max),
        }
    }

    /// No time at all.
    pub const ZERO: Self = Self::millis(0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_words_same_number_and_within_the_span() {
        let span = Span::millis(500, 2000);
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..1000 {
            let draw = Draw::new(7).word("pull").word(&format!("image-{i}"));
            assert_eq!(draw.within(span), draw.within(span));
            assert!(draw.within(span) >= span.min && draw.within(span) <= span.max);
            seen.insert(draw.within(span).as_millis() / 150);
        }
        assert!(seen.len() >= 10, "draws spread over the span: {seen:?}");
        assert_ne!(Draw::new(1).word("a").bits(), Draw::new(2).word("a").bits());
        assert_ne!(
            Draw::new(1).word("ab").word("c").bits(),
            Draw::new(1).word("a").word("bc").bits()
        );
    }
}
