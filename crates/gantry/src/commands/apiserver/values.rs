//! Values of flags in the forms that Go's flag libraries read.

use std::net::Ipv4Addr;
use std::time::Duration;

use gantry_apiserver::TlsVersion;

/// The range of Service addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRange {
    pub ipv4: (Ipv4Addr, u8),
    /// The second range of a dual-stack pair.
    pub unused: Option<String>,
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// A version of TLS under the name of Go's constant.
pub fn tls_version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "VersionTLS12" => Ok(TlsVersion::Tls12),
        "VersionTLS13" => Ok(TlsVersion::Tls13),
        "VersionTLS10" | "VersionTLS11" => {
            Err("what is older than VersionTLS12 is not offered".to_owned())
        }
        _ => Err("neither VersionTLS12 nor VersionTLS13".to_owned()),
    }
}

/// A duration such as `1h0m0s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|d| Duration::try_from(d).ok())
        .ok_or_else(|| "not a duration such as 1h30m".to_owned())
}

/// A number of bytes, with Ki, Mi or Gi where that is shorter.
pub fn bytes(text: &str) -> Result<usize, String> {
    let (number, shift) = match text {
        _ if text.ends_with("Ki") => (&text[..text.len() - 2], 10),
        _ if text.ends_with("Mi") => (&text[..text.len() - 2], 20),
        _ if text.ends_with("Gi") => (&text[..text.len() - 2], 30),
        _ => (text, 0),
    };
    number
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "not a number of bytes such as 134217728 or 128Mi".to_owned())
}

/// `30000-32767`, `30000+100` or one port.
pub fn port_range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || "not a range of ports such as 30000-32767".to_owned();
    let number = |part: &str| part.trim().parse::<u16>().map_err(|_| wrong());
    let (low, high) = if let Some((low, high)) = text.split_once('-') {
        (number(low)?, number(high)?)
    } else if let Some((low, more)) = text.split_once('+') {
        let low = number(low)?;
        (low, low.checked_add(number(more)?).ok_or_else(wrong)?)
    } else {
        (number(text)?, number(text)?)
    };
    if low > high || low == 0 {
        return Err(wrong());
    }
    Ok((low, high))
}

/// One IPv4 range, or a pair of which the first is IPv4.
pub fn service_range(text: &str) -> Result<ServiceRange, String> {
    let (first, second) = match text.split_once(',') {
        Some((first, second)) => (first, Some(second.to_owned())),
        None => (text, None),
    };
    let (address, bits) = first
        .split_once('/')
        .ok_or_else(|| "not a range such as 10.0.0.0/24".to_owned())?;
    let address: Ipv4Addr = address
        .parse()
        .map_err(|_| "not an IPv4 range; only IPv4 Services are offered".to_owned())?;
    let bits: u8 = bits
        .parse()
        .ok()
        .filter(|b| (12..=30).contains(b))
        .ok_or_else(|| "the prefix length must lie between 12 and 30".to_owned())?;
    let base = u32::from(address) & (u32::MAX << (32 - u32::from(bits)));
    Ok(ServiceRange {
        ipv4: (base.into(), bits),
        unused: second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_go_does() {
        assert_eq!(boolean("T"), Ok(true));
        assert!(boolean("yes").is_err());
        assert_eq!(tls_version("VersionTLS13"), Ok(TlsVersion::Tls13));
        assert!(tls_version("VersionTLS10").is_err());
        assert_eq!(duration("1h0m0s"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("10").is_err());
        assert_eq!(bytes("512"), Ok(512));
        assert_eq!(bytes("3Ki"), Ok(3072));
        assert_eq!(bytes("2Gi"), Ok(2 << 30));
        for wrong in ["", "Mi", "-1", "1M", "99999999999999Gi"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(port_range("30000-30010"), Ok((30_000, 30_010)));
        assert_eq!(port_range("30000+5"), Ok((30_000, 30_005)));
        assert!(port_range("2-1").is_err());
        assert_eq!(
            service_range("10.1.2.3/16,fd00::/108"),
            Ok(ServiceRange {
                ipv4: (Ipv4Addr::new(10, 1, 0, 0), 16),
                unused: Some("fd00::/108".to_owned()),
            })
        );
        assert!(service_range("fd00::/108").is_err());
        assert!(service_range("10.0.0.0/8").is_err());
    }
}
