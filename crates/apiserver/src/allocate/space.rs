//! Which addresses and node ports Services may have, and which are taken: the state behind
//! [`super::Services`], without a store.
//!
//! Taking an address costs a few look-ups however many are taken: each range counts what is used of
//! it, and one that is full is passed over.

use std::{fmt, net::Ipv4Addr};

use rand::Rng;
use rustc_hash::{FxHashMap, FxHashSet};

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    bits: u8,
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

impl Subnet {
    pub fn new(address: Ipv4Addr, bits: u8) -> Subnet {
        let bits = bits.min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        Subnet {
            base: u32::from(address) & mask,
            bits,
        }
    }

    pub fn parse(text: &str) -> Option<Subnet> {
        let (address, bits) = text.split_once('/')?;
        let bits = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some(Subnet::new(address.parse().ok()?, bits))
    }

    fn size(self) -> u64 {
        1 << (32 - u64::from(self.bits))
    }

    pub fn has(self, address: u32) -> bool {
        Subnet::new(address.into(), self.bits).base == self.base
    }

    /// The offsets that are given out: neither that of the network nor the broadcast address.
    fn last(self) -> u64 {
        self.size().saturating_sub(2)
    }

    fn offset(self, address: u32) -> Option<u64> {
        let offset = u64::from(address.wrapping_sub(self.base));
        (self.has(address) && offset > 0 && offset <= self.last()).then_some(offset)
    }

    /// The offset where the part begins that is given to those who do not ask for an address. The
    /// part below it is left to those who do, as long as there are others.
    fn upper(self) -> u64 {
        match self.size() {
            ..=16 => 1,
            size => (size / 16).clamp(16, 256),
        }
    }
}

#[derive(Debug, Default)]
struct Range {
    subnet: Option<Subnet>,
    ready: bool,
    /// Used addresses below [`Subnet::upper`] and from there on.
    used: [u64; 2],
}

impl Range {
    fn count(&mut self, address: u32, up: bool) {
        let Some(subnet) = self.subnet else { return };
        if let Some(offset) = subnet.offset(address) {
            let used = &mut self.used[usize::from(offset >= subnet.upper())];
            *used = if up {
                *used + 1
            } else {
                used.saturating_sub(1)
            };
        }
    }
}

/// Who has an address.
#[derive(Debug, Default, Clone, Copy)]
struct Use {
    /// Services, those being created among them. More than one by mistake only.
    services: u32,
    /// There is an IPAddress of it.
    object: bool,
}

/// Why a Service cannot have the address that it asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is in no range that is ready.
    NoRange,
    /// It is one that the range does not give out.
    Outside(Subnet),
    Taken,
}

#[derive(Debug, Default)]
pub struct Space {
    ranges: Vec<Range>,
    used: FxHashMap<u32, Use>,
    ports: FxHashSet<u16>,
}

impl Space {
    /// The ranges there are now, and whether they are ready.
    pub fn set_ranges(&mut self, ranges: impl IntoIterator<Item = (Subnet, bool)>) {
        let made = ranges.into_iter().map(|(subnet, ready)| Range {
            subnet: Some(subnet),
            ready,
            used: [0; 2],
        });
        self.ranges = made.collect();
        for address in self.used.keys() {
            for range in &mut self.ranges {
                range.count(*address, true);
            }
        }
    }

    fn change(&mut self, address: u32, change: impl FnOnce(&mut Use)) {
        let mut entry = self.used.get(&address).copied().unwrap_or_default();
        let in_use = |entry: Use| entry.services > 0 || entry.object;
        let before = in_use(entry);
        change(&mut entry);
        let now = in_use(entry);
        match now {
            true => self.used.insert(address, entry),
            false => self.used.remove(&address),
        };
        if before != now {
            for range in &mut self.ranges {
                range.count(address, now);
            }
        }
    }

    /// A Service has this address.
    pub fn add(&mut self, address: u32) {
        self.change(address, |entry| entry.services += 1);
    }

    /// A Service has it no more.
    pub fn release(&mut self, address: u32) {
        self.change(address, |entry| {
            entry.services = entry.services.saturating_sub(1);
        });
    }

    /// Whether there is an IPAddress of it.
    pub fn object(&mut self, address: u32, there: bool) {
        self.change(address, |entry| entry.object = there);
    }

    /// Gives a Service the address that it asks for.
    pub fn take(&mut self, address: u32) -> Result<(), Wrong> {
        let mut within = self
            .ranges
            .iter()
            .filter(|r| r.ready)
            .filter_map(|r| r.subnet)
            .filter(|s| s.has(address));
        let subnet = within.next().ok_or(Wrong::NoRange)?;
        if subnet.offset(address).is_none() && within.all(|s| s.offset(address).is_none()) {
            return Err(Wrong::Outside(subnet));
        }
        if self.used.contains_key(&address) {
            return Err(Wrong::Taken);
        }
        self.add(address);
        Ok(())
    }

    /// Gives a Service any address that is free, of the first ready range that has one.
    pub fn next(&mut self) -> Option<u32> {
        let found = self.ranges.iter().filter(|r| r.ready).find_map(|range| {
            let subnet = range.subnet?;
            let (upper, end) = (subnet.upper(), subnet.last() + 1);
            [
                (upper..end, range.used[1]),
                (1..upper.min(end), range.used[0]),
            ]
            .into_iter()
            .filter(|(part, used)| *used < part.end.saturating_sub(part.start))
            .find_map(|(part, _)| {
                let size = part.end - part.start;
                let start = rand::rng().random_range(0..size);
                (0..size)
                    .map(|i| part.start + (start + i) % size)
                    .filter_map(|offset| subnet.base.checked_add(u32::try_from(offset).ok()?))
                    .find(|address| !self.used.contains_key(address))
            })
        })?;
        self.add(found);
        Some(found)
    }

    pub fn add_port(&mut self, port: u16) -> bool {
        self.ports.insert(port)
    }

    pub fn release_port(&mut self, port: u16) {
        self.ports.remove(&port);
    }

    pub fn next_port(&mut self, (low, high): (u16, u16)) -> Option<u16> {
        let count = u32::from(high.checked_sub(low)?) + 1;
        let start = rand::rng().random_range(0..count);
        let found = (0..count)
            .filter_map(|i| low.checked_add(u16::try_from((start + i) % count).ok()?))
            .find(|port| !self.ports.contains(port))?;
        self.ports.insert(found);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> u32 {
        text.parse::<Ipv4Addr>().expect("an address").into()
    }

    fn space(ranges: &[(&str, bool)]) -> Space {
        let mut space = Space::default();
        let parsed = ranges
            .iter()
            .map(|(text, ready)| (Subnet::parse(text).expect("a range"), *ready));
        space.set_ranges(parsed);
        space
    }

    #[test]
    fn each_address_is_given_once_and_comes_back() {
        for (range, count) in [
            ("10.0.0.0/28", 14),
            ("10.0.0.0/29", 6),
            ("10.0.0.0/24", 254),
            ("10.0.0.0/30", 2),
            ("10.0.0.0/31", 0),
            ("10.0.0.0/32", 0),
        ] {
            let mut space = space(&[(range, true)]);
            let mut all: FxHashSet<u32> = FxHashSet::default();
            while let Some(address) = space.next() {
                assert!(all.insert(address), "{address} twice");
            }
            assert_eq!(all.len(), count, "{range}");
            for address in all {
                space.release(address);
                assert_eq!(space.next(), Some(address), "{range}");
            }
        }
    }

    #[test]
    fn who_asks_for_no_address_gets_none_of_the_lower_part_as_long_as_there_are_others() {
        let mut space = space(&[("10.0.0.0/24", true)]);
        for _ in 16..255 {
            assert!(space.next().expect("free") >= address("10.0.0.16"));
        }
        assert!(space.next().expect("free") < address("10.0.0.16"));
    }

    #[test]
    fn ranges_come_after_each_other_and_only_when_ready() {
        let mut space = space(&[
            ("10.0.0.0/30", true),
            ("10.1.0.0/30", false),
            ("10.2.0.0/30", true),
        ]);
        let mut given: Vec<u32> = std::iter::from_fn(|| space.next()).collect();
        given.sort_unstable();
        let expected = ["10.0.0.1", "10.0.0.2", "10.2.0.1", "10.2.0.2"];
        assert_eq!(given, expected.map(address));
        assert_eq!(space.take(address("10.1.0.1")), Err(Wrong::NoRange));
    }

    #[test]
    fn an_address_is_taken_as_long_as_a_service_or_an_object_has_it() {
        let mut space = space(&[("10.0.0.0/24", true), ("10.0.0.0/16", true)]);
        let one = address("10.0.0.9");
        assert_eq!(space.take(one), Ok(()));
        space.object(one, true);
        space.release(one);
        assert_eq!(space.take(one), Err(Wrong::Taken));
        space.object(one, false);
        assert_eq!(space.take(one), Ok(()));
        // What is used is known to a range that comes later.
        space.set_ranges([(Subnet::new(one.into(), 30), true)]);
        assert_eq!(space.next(), Some(address("10.0.0.10")));
        assert_eq!(space.next(), None);
    }

    #[test]
    fn what_a_range_does_not_give_out() {
        let net = Subnet::parse("10.0.0.0/24").expect("a range");
        let mut one = space(&[("10.0.0.0/24", true)]);
        assert_eq!(one.take(address("10.0.0.0")), Err(Wrong::Outside(net)));
        assert_eq!(one.take(address("10.0.0.255")), Err(Wrong::Outside(net)));
        assert_eq!(one.take(address("10.0.1.0")), Err(Wrong::NoRange));
        let mut both = space(&[("10.0.0.0/24", true), ("10.0.0.0/16", true)]);
        assert_eq!(both.take(address("10.0.0.255")), Ok(()));
    }

    #[test]
    fn ports_are_given_once() {
        let mut space = Space::default();
        let ports = std::iter::from_fn(|| space.next_port((30_000, 30_002)));
        assert_eq!(ports.count(), 3);
        space.release_port(30_001);
        assert_eq!(space.next_port((30_000, 30_002)), Some(30_001));
    }
}
