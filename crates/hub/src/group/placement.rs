//! Dividing a Group's replicas over its cells.

/// Instances for each weight, adding up to `replicas` (or to 0 where no weight is positive).
///
/// Highest averages with odd divisors (Webster, Sainte-Laguë): proportional, and unlike the largest
/// remainder it never takes an instance from one cell because another is added: scaling up only adds,
/// scaling down only removes, so that a cell's highest ordinals come and go and no other instance moves.
/// Ties go to the earlier cell.
pub fn divide(replicas: i32, weights: &[i32]) -> Vec<i32> {
    let mut shares = vec![0i32; weights.len()];
    if !weights.iter().any(|w| *w > 0) {
        return shares;
    }
    // A first share below everyone's fair part, so that the loop is short for big groups.
    let total: i64 = weights.iter().map(|w| i64::from((*w).max(0))).sum();
    for (share, weight) in shares.iter_mut().zip(weights) {
        let fair = i64::from(replicas.max(0)) * i64::from((*weight).max(0)) / total;
        *share = i32::try_from((fair - weights.len() as i64).max(0)).unwrap_or(i32::MAX);
    }
    let mut left = replicas.max(0) - shares.iter().sum::<i32>();
    while left > 0 {
        let mut best = None;
        for (index, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0) {
            let divisor = 2 * i64::from(shares[index]) + 1;
            // weight/divisor > best, without fractions.
            let better = best
                .is_none_or(|(_, w, d): (usize, i64, i64)| i64::from(*weight) * d > w * divisor);
            if better {
                best = Some((index, i64::from(*weight), divisor));
            }
        }
        let Some((index, _, _)) = best else { break };
        shares[index] += 1;
        left -= 1;
    }
    shares
}

/// `base` with `more` instances added by `weights`, none beyond its cap; what finds no room is left out.
///
/// The same rule as [`divide`], continued: each goes to the cell with the highest average.
pub fn fill(base: &[i32], more: i32, weights: &[i32], caps: &[i32]) -> Vec<i32> {
    let mut shares = base.to_vec();
    for _ in 0..more.max(0) {
        let open = (0..shares.len()).filter(|i| weights[*i] > 0 && shares[*i] < caps[*i]);
        // weight / (2 share + 1), compared without fractions; ties go to the earlier.
        let best = open.reduce(|a, b| {
            let worth =
                |i: usize, other: usize| i64::from(weights[i]) * (2 * i64::from(shares[other]) + 1);
            if worth(b, a) > worth(a, b) { b } else { a }
        });
        let Some(best) = best else { break };
        shares[best] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn examples() {
        for (replicas, weights, want) in [
            (30, vec![2, 1], vec![20, 10]),
            (1, vec![1, 1], vec![1, 0]),
            (5, vec![1, 1, 1], vec![2, 2, 1]),
            (7, vec![0, 3], vec![0, 7]),
            (7, vec![0, 0], vec![0, 0]),
            (0, vec![1], vec![0]),
            (3, vec![], vec![]),
            (10_000, vec![1, 1], vec![5_000, 5_000]),
        ] {
            assert_eq!(
                divide(replicas, &weights),
                want,
                "{replicas} over {weights:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn adds_up_and_never_takes_away(replicas in 0i32..2_000, weights in prop::collection::vec(0i32..100, 1..7)) {
            let (now, next) = (divide(replicas, &weights), divide(replicas + 1, &weights));
            if weights.iter().any(|w| *w > 0) {
                prop_assert_eq!(now.iter().sum::<i32>(), replicas);
                prop_assert_eq!(next.iter().sum::<i32>(), replicas + 1);
            }
            for (a, b) in now.iter().zip(&next) {
                prop_assert!(b >= a, "{:?} then {:?}", now, next);
            }
            let total: i64 = weights.iter().map(|w| i64::from(*w)).sum();
            for (share, weight) in now.iter().zip(&weights) {
                if total > 0 {
                    let fair = f64::from(replicas) * f64::from(*weight) / total as f64;
                    prop_assert!((f64::from(*share) - fair).abs() <= weights.len() as f64, "{} for {}", share, fair);
                }
            }
        }
    }
}
