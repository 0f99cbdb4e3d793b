//! Which addresses may be reached: a tenant's webhook must not become a way into the operator's network.
//!
//! A host is judged by the addresses that its name has at the time of the connection, and the connection is made
//! to an address that was judged. Redirects are not followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the operator lets tenants reach beside public addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// A host by name.
    Host(String),
    /// All hosts below a domain.
    Below(String),
    /// A range of addresses: the first of them, and the length of the prefix.
    Range(IpAddr, u8),
}

impl std::str::FromStr for Allowed {
    type Err = String;

    /// Reads `hooks.corp.example`, `*.corp.example`, `10.1.2.3` or `10.0.0.0/8`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no host, no *.DOMAIN, no address and no range of addresses such as 10.0.0.0/8"
            )
        };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Range(
                address,
                if address.is_ipv4() { 32 } else { 128 },
            ));
        }
        if let Some((address, length)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let length = length
                .parse()
                .ok()
                .filter(|n| *n <= most)
                .ok_or_else(wrong)?;
            return Ok(Self::Range(address, length));
        }
        let (host, below) = match text.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (text, false),
        };
        let plain = !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
        let host = host.to_ascii_lowercase();
        match (plain, below) {
            (false, _) => Err(wrong()),
            (true, false) => Ok(Self::Host(host)),
            (true, true) => Ok(Self::Below(format!(".{host}"))),
        }
    }
}

/// Judges hosts and addresses.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// What is let through beside public addresses.
    pub allowed: Vec<Allowed>,
    /// Everything is let through: for the operator's own.
    pub open: bool,
}

impl Guard {
    /// Whether a host may be reached at whatever address it has.
    pub fn host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.open
            || self.allowed.iter().any(|a| match a {
                Allowed::Host(name) => *name == host,
                Allowed::Below(domain) => host.ends_with(domain),
                Allowed::Range(..) => false,
            })
    }

    /// Whether an address may be reached.
    pub fn address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.open
            || public(address)
            || self.allowed.iter().any(|a| match a {
                Allowed::Range(first, length) => within(address, *first, *length),
                _ => false,
            })
    }
}

fn within(address: IpAddr, first: IpAddr, length: u8) -> bool {
    match (address, first) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(length);
            shift == 32 || a.to_bits() >> shift == b.to_bits() >> shift
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(length);
            shift == 128 || a.to_bits() >> shift == b.to_bits() >> shift
        }
        _ => false,
    }
}

fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => public_v4(a),
        IpAddr::V6(a) => public_v6(a),
    }
}

/// Not in a range that IANA's registry of special purpose addresses keeps from the public network.
fn public_v4(a: Ipv4Addr) -> bool {
    const NOT: &[(Ipv4Addr, u8)] = &[
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 0, 0, 0), 24),
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
        (Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    !NOT.iter()
        .any(|(first, length)| within(a.into(), (*first).into(), *length))
}

fn public_v6(a: Ipv6Addr) -> bool {
    let [s0, s1, s2, ..] = a.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    let [.., s6, s7] = a.segments();
    match (s0, s1) {
        // Addresses of version 4 in the coat of version 6: NAT64, 6to4.
        (0x64, 0xff9b) => s2 == 0 && public_v4(embedded(s6, s7)),
        (0x2002, _) => public_v4(embedded(s1, s2)),
        // Teredo and other protocols' own, and documentation.
        (0x2001, 0..=0x1ff | 0xdb8) => false,
        // Global unicast.
        _ => s0 & 0xe000 == 0x2000,
    }
}
