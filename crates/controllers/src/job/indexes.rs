//! Sets of completion indexes as Jobs write them: `0-2,5,7,8`.

use std::fmt;

/// A set of indexes as intervals, both ends included, in order and with gaps between them. An
/// indexed Job may have a hundred thousand completions; its sets are few intervals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(u32, u32)>);

impl Indexes {
    /// Reads a set; indexes that are not below `completions`, and parts that are no interval, are
    /// left out.
    pub fn parse(text: &str, completions: u32) -> Self {
        let last_allowed = completions.checked_sub(1);
        text.split(',')
            .filter_map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (first.parse().ok()?, last.parse::<u32>().ok()?);
                Some((first, last.min(last_allowed?)))
            })
            .collect()
    }

    pub fn contains(&self, index: u32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|(_, last)| index <= *last)
    }

    pub fn total(&self) -> usize {
        self.0.iter().map(size).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// This set and `more`.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = u32>) -> Self {
        let singles = more.into_iter().map(|index| (index, index));
        self.0.iter().copied().chain(singles).collect()
    }

    #[must_use]
    pub fn union(&self, other: &Indexes) -> Self {
        self.0.iter().chain(&other.0).copied().collect()
    }

    /// How many indexes are in both sets.
    pub fn common(&self, other: &Indexes) -> usize {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = 0;
        while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
            let shared = (left.0.max(right.0), left.1.min(right.1));
            if shared.0 <= shared.1 {
                common += size(&shared);
            }
            if left.1 <= right.1 {
                a.next();
            } else {
                b.next();
            }
        }
        common
    }

    /// The first `count` indexes below `completions` that are not in the set.
    pub fn first_absent(&self, count: usize, completions: u32) -> Vec<u32> {
        let mut absent = Vec::new();
        let mut candidate = 0;
        let ends = (completions, completions);
        for (first, last) in self.0.iter().chain([&ends]) {
            let gap = candidate..(*first).min(completions);
            absent.extend(gap.take(count - absent.len()));
            candidate = candidate.max(last.saturating_add(1));
        }
        absent
    }
}

fn size((first, last): &(u32, u32)) -> usize {
    usize::try_from(last - first).map_or(usize::MAX, |n| n.saturating_add(1))
}

impl FromIterator<(u32, u32)> for Indexes {
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(intervals: I) -> Self {
        let mut all: Vec<(u32, u32)> = intervals
            .into_iter()
            .filter(|(first, last)| first <= last)
            .collect();
        all.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in all {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Indexes(merged)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::collections::BTreeSet;

    #[rstest]
    #[case("", 9, "", 0)]
    #[case("0-2,5,7,8", 9, "0-2,5,7,8", 6)]
    #[case("0-2,5,7,8", 6, "0-2,5", 4)]
    #[case("0-9", 4, "0-3", 4)]
    #[case("1,2,3,x,5-,6", 9, "1-3,6", 4)]
    #[case("3", 0, "", 0)]
    fn reads_and_writes(
        #[case] text: &str,
        #[case] completions: u32,
        #[case] written: &str,
        #[case] total: usize,
    ) {
        let set = Indexes::parse(text, completions);
        assert_eq!((set.to_string().as_str(), set.total()), (written, total));
    }

    proptest! {
        #[test]
        fn is_a_set(
            a in prop::collection::btree_set(0u32..40, 0..30),
            b in prop::collection::btree_set(0u32..40, 0..30),
            count in 0usize..20,
        ) {
            let (left, right) = (Indexes::default().with(a.clone()), Indexes::default().with(b.clone()));
            prop_assert_eq!(left.total(), a.len());
            prop_assert_eq!(left.common(&right), a.intersection(&b).count());
            let both: BTreeSet<u32> = a.union(&b).copied().collect();
            prop_assert_eq!(left.union(&right), Indexes::default().with(both));
            prop_assert!((0..41).all(|n| left.contains(n) == a.contains(&n)));
            prop_assert_eq!(&Indexes::parse(&left.to_string(), 40), &left);
            let absent: Vec<u32> = (0..30).filter(|n| !a.contains(n)).take(count).collect();
            prop_assert_eq!(left.first_absent(count, 30), absent);
        }
    }
}
