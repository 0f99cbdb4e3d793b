//! Addresses, networks and URLs, as Kubernetes' CEL library has them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use super::{error::Fault, value::Value};

/// An address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip(pub IpAddr);

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network, with the address it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// # Errors
/// No address, one with a zone, or one of version 4 written as one of version 6.
pub(super) fn parse_ip(text: &str) -> Result<Ip, Fault> {
    let wrong = |why: String| {
        Fault::new(format!(
            "IP Address {text:?} parse error during conversion from string: {why}"
        ))
    };
    if text.contains('%') {
        return Err(Fault::new(format!(
            "IP address {text:?} with zone value is not allowed"
        )));
    }
    let address: IpAddr = text
        .parse()
        .map_err(|_| wrong(format!("ParseAddr({text:?}): unable to parse IP")))?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(Fault::new(format!(
            "IPv4-mapped IPv6 address {text:?} is not allowed"
        ))),
        address => Ok(Ip(address)),
    }
}

pub(super) fn parse_cidr(text: &str) -> Result<Cidr, Fault> {
    let wrong = || {
        Fault::new(format!(
            "network address parse error during conversion from string: {text:?}"
        ))
    };
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let Ip(address) = parse_ip(address)?;
    let canonical = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
    let bits: u8 = bits.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    if bits > most || !canonical {
        return Err(wrong());
    }
    Ok(Cidr { address, bits })
}

impl Ip {
    pub(super) fn call<'a>(self, function: &str) -> Result<Value<'a>, Fault> {
        let ip = self.0;
        let link_multicast = match ip {
            IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
        };
        let link_unicast = match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
        };
        Ok(match function {
            "family" => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
            "isUnspecified" => Value::Bool(ip.is_unspecified()),
            "isLoopback" => Value::Bool(ip.is_loopback()),
            "isLinkLocalMulticast" => Value::Bool(link_multicast),
            "isLinkLocalUnicast" => Value::Bool(link_unicast),
            "isGlobalUnicast" => Value::Bool(
                ip != IpAddr::V4(Ipv4Addr::BROADCAST)
                    && !ip.is_unspecified()
                    && !ip.is_loopback()
                    && !ip.is_multicast()
                    && !link_unicast,
            ),
            _ => return Err(Fault::no_overload()),
        })
    }
}

/// The first `bits` of an address.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

impl Cidr {
    fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && masked(self.address, self.bits) == masked(address, self.bits)
    }

    pub(super) fn call<'a>(self, function: &str, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
        Ok(match (function, args) {
            ("ip", []) => Value::Ip(Ip(self.address)),
            ("masked", []) => Value::Cidr(Cidr {
                address: masked(self.address, self.bits),
                bits: self.bits,
            }),
            ("prefixLength", []) => Value::Int(i64::from(self.bits)),
            ("containsIP", [Value::Ip(ip)]) => Value::Bool(self.contains(ip.0)),
            ("containsIP", [Value::String(text)]) => Value::Bool(self.contains(parse_ip(text)?.0)),
            ("containsCIDR", [other]) => {
                let other = match other {
                    Value::Cidr(other) => *other,
                    Value::String(text) => parse_cidr(text)?,
                    _ => return Err(Fault::no_overload()),
                };
                Value::Bool(other.bits >= self.bits && self.contains(other.address))
            }
            _ => return Err(Fault::no_overload()),
        })
    }
}

/// A URL in its parts; absolute, or a path alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

pub(super) fn parse_url(text: &str) -> Result<Url, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!(
            "URL parse error during conversion from string: parse {text:?}: {why}"
        ))
    };
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(wrong("net/url: invalid control character in URL"));
    }
    let rest = text.split('#').next().unwrap_or("");
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let scheme_end = before.find(':').filter(|i| {
        let scheme = &before[..*i];
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let (scheme, after) = match scheme_end {
        Some(i) => (&before[..i], &before[i + 1..]),
        None => ("", before),
    };
    if scheme.is_empty() && !after.starts_with('/') {
        return Err(wrong("invalid URI for request"));
    }
    let (host, path) = match after.strip_prefix("//") {
        Some(authority) if !scheme.is_empty() => {
            let end = authority.find('/').unwrap_or(authority.len());
            (&authority[..end], &authority[end..])
        }
        _ => ("", after),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let port = if host.starts_with('[') {
        host.rsplit_once(']')
            .map(|(_, after)| after.strip_prefix(':').unwrap_or(""))
    } else {
        host.rsplit_once(':').map(|(_, port)| port)
    };
    if let Some(port) = port
        && !port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(wrong(&format!(
            "invalid port {:?} after host",
            format!(":{port}")
        )));
    }
    if host.contains(' ') {
        return Err(wrong("invalid character \" \" in host name"));
    }
    Ok(Url {
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

/// `%41` and, in a query, `+`.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        let hex = bytes
            .get(i + 1..i + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (b, hex) {
            (b'%', Some(code)) => {
                out.push(code);
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What may stand in a path as it is; all else is written `%XX`.
fn escaped_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        let plain = b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&b);
        if plain {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

impl Url {
    pub(super) fn call<'a>(&self, function: &str) -> Result<Value<'a>, Fault> {
        let (name, port) = match self.host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or((rest, ""), |(name, port)| {
                (name, port.trim_start_matches(':'))
            }),
            None => self.host.rsplit_once(':').unwrap_or((&self.host, "")),
        };
        Ok(match function {
            "getScheme" => Value::text(&*self.scheme),
            "getHost" => Value::text(&*self.host),
            "getHostname" => Value::text(name),
            "getPort" => Value::text(port),
            "getEscapedPath" => Value::text(escaped_path(&self.path)),
            "getQuery" => {
                let mut map: std::collections::BTreeMap<_, Vec<Value<'a>>> = Default::default();
                for pair in self.query.split('&').filter(|p| !p.is_empty()) {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    map.entry(super::value::Key::String(unescaped(key)))
                        .or_default()
                        .push(Value::text(unescaped(value)));
                }
                let map = map.into_iter().map(|(k, v)| (k, Value::list(v))).collect();
                Value::Map(std::rc::Rc::new(map))
            }
            _ => return Err(Fault::no_overload()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = parse_url("https://user@example.com:8080/a b/c?k=v&k=w%20x&e=").expect("url");
        let get = |f: &str| url.call(f).expect(f).to_json().expect("json");
        assert_eq!(get("getScheme"), "https");
        assert_eq!(get("getHost"), "example.com:8080");
        assert_eq!(get("getHostname"), "example.com");
        assert_eq!(get("getPort"), "8080");
        assert_eq!(get("getEscapedPath"), "/a%20b/c");
        assert_eq!(
            get("getQuery"),
            serde_json::json!({"k": ["v", "w x"], "e": [""]})
        );
        assert!(parse_url("/a/path").is_ok());
        for bad in ["a/path", "https://h:port/", "https://a b/"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks() {
        let cidr = parse_cidr("192.168.1.7/24").expect("cidr");
        assert!(cidr.contains("192.168.1.200".parse().expect("ip")));
        assert!(!cidr.contains("192.168.2.1".parse().expect("ip")));
        assert_eq!(masked(cidr.address, 24).to_string(), "192.168.1.0");
        for bad in ["1.2.3.4", "1.2.3.4/33", "::ffff:1.2.3.4/64", "1.2.3.4/+8"] {
            assert!(parse_cidr(bad).is_err(), "{bad}");
        }
    }
}
