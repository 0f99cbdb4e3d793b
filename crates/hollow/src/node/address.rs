//! Addresses: ranges for nodes out of the cluster's, addresses for pods out of the node's.

use std::{collections::BTreeMap, net::Ipv4Addr};

/// An address range that is none, or is full.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an IPv4 range.
    #[error("{0:?} is no IPv4 range such as 10.64.0.0/10")]
    Invalid(String),
    /// Nothing left.
    #[error("address range {0} has no room for another {1} addresses")]
    Exhausted(String, u32),
}

/// First and last address of a range such as `10.0.0.0/8`.
///
/// # Errors
/// When the text is no IPv4 range.
pub fn parse_cidr(text: &str) -> Result<(u32, u32), AddressError> {
    let invalid = || AddressError::Invalid(text.to_owned());
    let (address, length) = text.split_once('/').ok_or_else(invalid)?;
    let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
    let length: u32 = length
        .parse()
        .ok()
        .filter(|length| *length <= 32)
        .ok_or_else(invalid)?;
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    let first = u32::from(address) & mask;
    Ok((first, first | !mask))
}

/// Shares a range out in aligned blocks.
#[derive(Clone, Debug)]
pub struct Blocks {
    text: String,
    first: u32,
    last: u32,
    cursor: u32,
    /// First to last address of every block taken; none overlap.
    taken: BTreeMap<u32, u32>,
}

impl Blocks {
    /// All of `cidr` is free.
    ///
    /// # Errors
    /// When the text is no IPv4 range.
    pub fn new(cidr: &str) -> Result<Self, AddressError> {
        let (first, last) = parse_cidr(cidr)?;
        Ok(Self {
            text: cidr.to_owned(),
            first,
            last,
            cursor: first,
            taken: BTreeMap::new(),
        })
    }

    /// Marks a block as taken; it may lie outside the range.
    pub fn take(&mut self, first: u32, last: u32) {
        let end = self.taken.entry(first).or_insert(last);
        *end = (*end).max(last);
    }

    /// Gives back the block that begins at `first`.
    pub fn release(&mut self, first: u32) {
        self.taken.remove(&first);
    }

    /// Finds and takes a free block of `size` addresses, a power of two. Goes round the range, so
    /// that what was given back is not given out again at once.
    ///
    /// # Errors
    /// When no such block is free.
    pub fn allocate(&mut self, size: u32) -> Result<u32, AddressError> {
        let size = size.max(1).next_power_of_two();
        for from in [self.cursor, self.first] {
            let mut at = from.checked_next_multiple_of(size);
            while let Some(start) =
                at.filter(|start| *start <= self.last && self.last - *start >= size - 1)
            {
                let end = start + (size - 1);
                match self
                    .taken
                    .range(..=end)
                    .next_back()
                    .filter(|(_, last)| **last >= start)
                {
                    None => {
                        self.taken.insert(start, end);
                        self.cursor = end
                            .checked_add(1)
                            .filter(|next| *next <= self.last)
                            .unwrap_or(self.first);
                        return Ok(start);
                    }
                    Some((_, last)) => {
                        at = last
                            .checked_add(1)
                            .and_then(|next| next.checked_next_multiple_of(size))
                    }
                }
            }
        }
        Err(AddressError::Exhausted(self.text.clone(), size))
    }
}

/// The addresses of one node's pods. The first (network), second (gateway) and last (broadcast) are
/// not given out.
#[derive(Clone, Debug)]
pub struct Pool {
    first: u32,
    size: u32,
    next: u32,
    used: Vec<u64>,
}

impl Pool {
    /// All addresses of the range are free.
    ///
    /// # Errors
    /// When the text is no IPv4 range, or one too small or absurdly large for a node.
    pub fn new(cidr: &str) -> Result<Self, AddressError> {
        let (first, last) = parse_cidr(cidr)?;
        let size = (last - first).saturating_add(1);
        if !(4..=1 << 16).contains(&size) {
            return Err(AddressError::Invalid(cidr.to_owned()));
        }
        let mut pool = Self {
            first,
            size,
            next: 2,
            used: vec![0; size.div_ceil(64) as usize],
        };
        for reserved in [0, 1, size - 1] {
            pool.mark(reserved, true);
        }
        Ok(pool)
    }

    fn mark(&mut self, index: u32, used: bool) {
        let (word, bit) = ((index / 64) as usize, 1u64 << (index % 64));
        if used {
            self.used[word] |= bit;
        } else {
            self.used[word] &= !bit;
        }
    }

    fn is_used(&self, index: u32) -> bool {
        self.used[(index / 64) as usize] & (1 << (index % 64)) != 0
    }

    fn index(&self, ip: Ipv4Addr) -> Option<u32> {
        u32::from(ip)
            .checked_sub(self.first)
            .filter(|index| (2..self.size - 1).contains(index))
    }

    /// Takes this address; false if it is taken, or none of the node's.
    pub fn take(&mut self, ip: Ipv4Addr) -> bool {
        match self.index(ip) {
            Some(index) if !self.is_used(index) => {
                self.mark(index, true);
                true
            }
            _ => false,
        }
    }

    /// Takes the next free address, going round; `None` when all are taken.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let index = (self.next..self.size)
            .chain(2..self.next)
            .find(|index| !self.is_used(*index))?;
        self.mark(index, true);
        self.next = if index + 1 < self.size { index + 1 } else { 2 };
        Some((self.first + index).into())
    }

    /// Gives an address back.
    pub fn release(&mut self, ip: Ipv4Addr) {
        if let Some(index) = self.index(ip) {
            self.mark(index, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pool_gives_each_address_once_and_late_again() {
        let mut pool = Pool::new("10.0.0.0/29").unwrap();
        assert!(pool.take("10.0.0.3".parse().unwrap()));
        assert!(!pool.take("10.0.0.3".parse().unwrap()));
        assert!(!pool.take("10.0.1.3".parse().unwrap()));
        let mut given: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        let expected: Vec<Ipv4Addr> = ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
            .map(|it| it.parse().unwrap())
            .into();
        assert_eq!(given, expected);
        pool.release(given.remove(1));
        assert_eq!(pool.allocate(), Some("10.0.0.4".parse().unwrap()));
        assert!(Pool::new("10.0.0.0/31").is_err());
        assert!(Pool::new("fd00::/64").is_err());
    }

    proptest! {
        #[test]
        fn blocks_never_overlap(
            taken in proptest::collection::vec((0u32..4096, 0u32..7), 0..20),
            sizes in proptest::collection::vec(0u32..7, 1..200),
            give_back in proptest::collection::vec(any::<bool>(), 200),
        ) {
            let mut blocks = Blocks::new("10.0.0.0/20").unwrap();
            let base = parse_cidr("10.0.0.0/20").unwrap().0;
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (at, bits) in taken {
                let size = 1 << bits;
                let first = base + at / size * size;
                let block = (first, first + size - 1);
                if held.iter().all(|other| other.1 < block.0 || block.1 < other.0) {
                    blocks.take(block.0, block.1);
                    held.push(block);
                }
            }
            for (bits, back) in sizes.into_iter().zip(give_back) {
                let size = 1u32 << bits;
                match blocks.allocate(size) {
                    Ok(first) => {
                        let block = (first, first + size - 1);
                        prop_assert_eq!(first % size, 0);
                        prop_assert!(first >= base && block.1 <= base + 4095);
                        for other in &held {
                            prop_assert!(other.1 < block.0 || block.1 < other.0, "{:?} overlaps {:?}", block, other);
                        }
                        if back { blocks.release(first) } else { held.push(block) }
                    }
                    Err(_) => {
                        // Truly full: no aligned block of that size is free.
                        for first in (base..base + 4096).step_by(size as usize) {
                            let block = (first, first + size - 1);
                            prop_assert!(held.iter().any(|other| !(other.1 < block.0 || block.1 < other.0)));
                        }
                    }
                }
            }
        }
    }
}
