//! Addresses and networks that are understood, but written in a way others may not understand.

use std::net::IpAddr;

use crate::{path::Path, validation::names};

/// An address: leading zeros and IPv4 within IPv6 are not standard, IPv6 has one canonical form.
pub fn ip(text: &str, path: &Path<'_>, out: &mut Vec<String>) {
    let Some(address) = names::parse_ip(text) else {
        return;
    };
    let strict = text.parse::<IpAddr>().ok();
    let mapped = matches!(strict, Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some());
    if strict.is_none() || mapped {
        out.push(format!(
            "{path}: non-standard IP address {text:?} is invalid: use \"{address}\""
        ));
    } else if address.is_ipv6() && address.to_string() != text {
        out.push(format!(
            "{path}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{address}\")"
        ));
    }
}

/// A network: bits after the prefix make it unclear whether it or an address is meant.
pub fn cidr(text: &str, path: &Path<'_>, out: &mut Vec<String>) {
    let Some((address, bits)) = names::parse_cidr(text) else {
        return;
    };
    let network = names::network(address, bits);
    let before = out.len();
    if network != address {
        let all = if address.is_ipv4() { 32 } else { 128 };
        out.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be \"{network}/{bits}\" or \"{address}/{all}\"?)"
        ));
    }
    let written = text.split_once('/').map_or(text, |(address, _)| address);
    let strict = written.parse::<IpAddr>().ok();
    let mapped = matches!(strict, Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some());
    let padded = !text.ends_with(&format!("/{bits}"));
    if strict.is_none() || mapped || padded {
        out.push(format!(
            "{path}: non-standard CIDR value {text:?} is invalid: use \"{network}/{bits}\""
        ));
    }
    let canonical = format!("{address}/{bits}");
    if out.len() == before && address.is_ipv6() && canonical != text {
        out.push(format!(
            "{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({canonical:?})"
        ));
    }
}
