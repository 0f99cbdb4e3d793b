//! How priority levels lend each other seats (KEP-1040): from what each has wanted lately to how many
//! seats each has until the next look. No clock, no I/O.

/// How much of the past a smoothed demand keeps at each look.
const INERTIA: f64 = 0.977;

/// What a level may have, by its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Its share of the server's seats.
    pub nominal: usize,
    /// What is left when all has been lent that may be.
    pub least: usize,
    /// What it may come to by borrowing.
    pub most: usize,
}

/// What a level has wanted: seats taken and waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    /// The most at one time since the last look.
    pub high: usize,
    /// On average, and how far from it usually.
    pub average: f64,
    pub deviation: f64,
    /// What is expected from all looks so far.
    pub smoothed: f64,
}

impl Demand {
    /// Takes in what was seen since the last look: the most, and samples.
    pub fn seen(&mut self, high: usize, samples: &[usize]) {
        let count = samples.len().max(1) as f64;
        let sum: f64 = samples.iter().map(|s| *s as f64).sum();
        let squares: f64 = samples.iter().map(|s| (*s as f64).powi(2)).sum();
        self.high = high.max(samples.iter().copied().max().unwrap_or(0));
        self.average = sum / count;
        self.deviation = (squares / count - self.average.powi(2)).max(0.0).sqrt();
        let envelope = self.average + self.deviation;
        // Up at once, down slowly.
        self.smoothed = envelope.max(INERTIA * self.smoothed + (1.0 - INERTIA) * envelope);
    }
}

/// One level to be given seats: at least, at most, and what it would like.
struct Claim {
    least: f64,
    most: f64,
    target: f64,
}

impl Claim {
    fn at(&self, fraction: f64) -> f64 {
        (fraction * self.target).clamp(self.least, self.most)
    }
}

/// How many seats each level has, of all there are together. What a level used lately of its own
/// share stays its own; of the rest each gets the same fraction of what it would like, within its
/// bounds.
pub fn share_out(levels: &[(Bounds, Demand)]) -> Vec<usize> {
    let total: usize = levels.iter().map(|(b, _)| b.nominal).sum();
    let claims: Vec<Claim> = levels
        .iter()
        .map(|(bounds, demand)| {
            let least = bounds.least.max(bounds.nominal.min(demand.high)) as f64;
            Claim {
                least,
                most: (bounds.most as f64).max(least),
                target: demand.smoothed.max(least).max(f64::MIN_POSITIVE),
            }
        })
        .collect();
    let given = |fraction: f64| claims.iter().map(|c| c.at(fraction)).sum::<f64>();
    // The sum grows with the fraction: halve until the next double is the same.
    let (mut low, mut high) = (0.0, 1.0);
    while given(high) < total as f64 && high < 1e300 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if given(middle) <= total as f64 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let whole = claims.iter().map(|c| c.at(low).round().max(1.0));
    whole.map(|seats| seats as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(nominal: usize, least: usize, most: usize) -> Bounds {
        Bounds {
            nominal,
            least,
            most,
        }
    }

    fn wanting(seats: usize) -> Demand {
        let mut demand = Demand::default();
        demand.seen(seats, &[seats, seats]);
        demand
    }

    #[test]
    fn who_wants_more_borrows_what_others_leave() {
        // Idle levels lend half; the busy one may come to thrice its own.
        let levels = [
            (bounds(40, 20, 40), wanting(0)),
            (bounds(40, 20, 40), wanting(0)),
            (bounds(20, 20, 60), wanting(100)),
        ];
        assert_eq!(share_out(&levels), [20, 20, 60]);
        // What they use themselves they keep.
        let levels = [
            (bounds(40, 20, 40), wanting(35)),
            (bounds(40, 20, 40), wanting(0)),
            (bounds(20, 20, 60), wanting(100)),
        ];
        assert_eq!(share_out(&levels), [35, 20, 45]);
    }

    #[test]
    fn everybody_has_a_share_when_all_want_more_or_nothing() {
        let busy = [
            (bounds(60, 30, 100), wanting(500)),
            (bounds(40, 40, 100), wanting(50)),
        ];
        assert_eq!(share_out(&busy), [60, 40]);
        let idle = [
            (bounds(60, 30, 100), wanting(0)),
            (bounds(40, 40, 100), wanting(0)),
        ];
        let given = share_out(&idle);
        assert!(given[0] >= 30 && given[1] >= 40, "{given:?}");
        assert!(given.iter().sum::<usize>() <= 100, "{given:?}");
        assert_eq!(share_out(&[]), [0; 0]);
    }

    #[test]
    fn bounds_hold_whatever_is_wanted() {
        for a in [0, 1, 10, 1000] {
            for b in [0, 7, 300] {
                for c in [0, 50] {
                    let levels = [
                        (bounds(50, 10, 80), wanting(a)),
                        (bounds(30, 30, 30), wanting(b)),
                        (bounds(20, 0, 200), wanting(c)),
                    ];
                    let given = share_out(&levels);
                    for (given, (bounds, _)) in given.iter().zip(&levels) {
                        assert!(*given >= bounds.least.max(1), "{given}: {levels:?}");
                        assert!(*given <= bounds.most, "{given}: {levels:?}");
                    }
                    // Rounding may make one seat more.
                    assert!(given.iter().sum::<usize>() <= 101, "{given:?}");
                }
            }
        }
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let mut demand = Demand::default();
        demand.seen(10, &[10, 10]);
        assert!((demand.smoothed - 10.0).abs() < 1e-9);
        demand.seen(0, &[0, 0]);
        assert!((demand.smoothed - 9.77).abs() < 1e-9);
        demand.seen(0, &[0, 20]);
        assert!((demand.average - 10.0).abs() < 1e-9 && (demand.deviation - 10.0).abs() < 1e-9);
        assert_eq!(demand.high, 20);
    }
}
