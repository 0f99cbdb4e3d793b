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

    /// A duration of the span, distributed as it says.
    #[must_use]
    pub fn within(self, span: Span) -> Duration {
        let seconds = match span.shape {
            Shape::Even => {
                return span.min + span.max.saturating_sub(span.min).mul_f64(self.unit());
            }
            // Off the ends of the distribution, where the logarithm has none.
            Shape::Skewed => {
                let (median, p99) = (span.min.as_secs_f64(), span.max.as_secs_f64());
                let sigma = (p99 / median).ln() / normal(0.99);
                median * (sigma * normal(self.unit().clamp(1e-6, 1.0 - 1e-6))).exp()
            }
            Shape::Memoryless => -span.max.as_secs_f64() * (1.0 - self.unit()).max(1e-9).ln(),
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Whether something happens that happens so many times in a million.
    #[must_use]
    pub fn hits(self, per_million: u32) -> bool {
        self.bits() % 1_000_000 < u64::from(per_million)
    }
}

/// A distribution of durations; `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The shortest; the median of a skewed one.
    pub min: Duration,
    /// The longest; the 99th percentile of a skewed one, the mean of a memoryless one.
    pub max: Duration,
    /// What lies between.
    pub shape: Shape,
}

/// How durations of a span are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Evenly.
    Even,
    /// Log-normally, as start times and transfers are: most are short, a few very long.
    Skewed,
    /// Exponentially, as failures are that have nothing to do with one another.
    Memoryless,
}

impl Span {
    /// From `min` to `max`, evenly.
    #[must_use]
    pub const fn even(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            shape: Shape::Even,
        }
    }

    /// From `min` to `max` milliseconds.
    #[must_use]
    pub const fn millis(min: u64, max: u64) -> Self {
        Self::even(Duration::from_millis(min), Duration::from_millis(max))
    }

    /// No time at all.
    pub const ZERO: Self = Self::millis(0, 0);
}

/// The quantile of the standard normal distribution, by Acklam's rational approximation without its
/// last refinement: good to a thousandth, more than a made-up delay needs.
fn normal(p: f64) -> f64 {
    const A: [f64; 6] = [
        -39.696_830_286_653_76,
        220.946_098_424_520_5,
        -275.928_510_446_968_7,
        138.357_751_867_269,
        -30.664_798_066_147_16,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -54.476_098_798_224_06,
        161.585_836_858_040_9,
        -155.698_979_859_886_6,
        66.801_311_887_719_72,
        -13.280_681_552_885_72,
    ];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_293,
        -0.322_396_458_041_136_5,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [
        0.007_784_695_709_041_462,
        0.322_467_129_070_039_8,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
    ];
    let polynomial = |terms: &[f64], x: f64| terms.iter().fold(0.0, |sum, term| sum * x + term);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&C, q) / (polynomial(&D, q) * q + 1.0)
    };
    if p < 0.024_25 {
        tail(p)
    } else if p > 1.0 - 0.024_25 {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        let r = q * q;
        polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
    }
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

    #[test]
    fn skewed_and_memoryless_spans_keep_their_word() {
        let seconds = |shape, min: u64, max: u64| {
            let span = Span {
                shape,
                ..Span::millis(min * 1000, max * 1000)
            };
            let mut all: Vec<f64> = (0..20_000)
                .map(|i| Draw::new(3).number(i).within(span).as_secs_f64())
                .collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let near = |found: f64, wanted: f64| (found / wanted - 1.0).abs() < 0.1;
        let skewed = seconds(Shape::Skewed, 2, 20);
        assert!(near(skewed[10_000], 2.0), "median {}", skewed[10_000]);
        assert!(
            near(skewed[19_800], 20.0),
            "99th percentile {}",
            skewed[19_800]
        );
        let memoryless = seconds(Shape::Memoryless, 0, 60);
        let mean = memoryless.iter().sum::<f64>() / 20_000.0;
        assert!(near(mean, 60.0), "mean {mean}");
    }
}
