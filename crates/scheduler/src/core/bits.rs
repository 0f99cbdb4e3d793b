//! A set of nodes as bits: one for every placement and every set of nodes that spread counts over.

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
pub struct NodeSet {
    words: Vec<u64>,
    count: usize,
}

impl NodeSet {
    /// Whether the number is in the set.
    #[must_use]
    pub fn contains(&self, at: usize) -> bool {
        self.words
            .get(at / 64)
            .is_some_and(|word| word & (1 << (at % 64)) != 0)
    }

    /// Puts a number in, or takes it out.
    pub fn set(&mut self, at: usize, is_in: bool) {
        if self.contains(at) == is_in {
            return;
        }
        if self.words.len() <= at / 64 {
            self.words.resize(at / 64 + 1, 0);
        }
        self.words[at / 64] ^= 1 << (at % 64);
        if is_in {
            self.count += 1;
        } else {
            self.count -= 1;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The numbers, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some(word * 64 + bit)
            })
        })
    }
}

impl FromIterator<bool> for NodeSet {
    fn from_iter<I: IntoIterator<Item = bool>>(values: I) -> Self {
        let mut set = Self::default();
        for (at, is_in) in values.into_iter().enumerate() {
            set.set(at, is_in);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_there_until_taken_out() {
        let mut set = NodeSet::default();
        for at in [0, 63, 64, 200, 200] {
            set.set(at, true);
        }
        set.set(63, false);
        set.set(1000, false);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 64, 200]);
        assert_eq!(
            (
                set.len(),
                set.contains(63),
                set.contains(64),
                set.contains(9999)
            ),
            (3, false, true, false)
        );
    }
}
