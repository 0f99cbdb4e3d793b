//! Names, labels and the like: the formats of Kubernetes' validation package, with its messages.
//! Written as byte loops: they run for every label of every object.

use std::net::IpAddr;

pub const DNS1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const QUALIFIED_PREFIX: &str =
    " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

type Faults = Vec<String>;

pub fn too_long(most: usize) -> String {
    format!("must be no more than {most} characters")
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            lower_alnum(*first)
                && lower_alnum(*last)
                && bytes.iter().all(|b| lower_alnum(*b) || *b == b'-')
        }
        _ => false,
    }
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// RFC 1123 label, at most 63 long: names of containers, namespaces, volumes.
pub fn dns1123_label(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push(too_long(63));
    }
    if !is_label(text) {
        faults.push(DNS1123_LABEL.to_owned());
    }
    faults
}

/// RFC 1123 subdomain, at most 253 long: most objects' names.
pub fn dns1123_subdomain(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push(too_long(253));
    }
    if !is_subdomain(text) {
        faults.push(DNS1123_SUBDOMAIN.to_owned());
    }
    faults
}

/// RFC 1035 label: names of Services.
pub fn dns1035_label(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push(too_long(63));
    }
    let alphabetic = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if !alphabetic || !is_label(text) {
        faults.push(DNS1035_LABEL.to_owned());
    }
    faults
}

/// `*.example.com`
pub fn wildcard_subdomain(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push(too_long(253));
    }
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        faults.push(WILDCARD.to_owned());
    }
    faults
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// `example.com/name` or `name`: keys of labels and annotations, resources, conditions.
pub fn qualified_name(text: &str) -> Faults {
    let mut faults = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            faults.push(format!("a valid label key {QUALIFIED}{QUALIFIED_PREFIX}"));
            return faults;
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".into());
            } else {
                let prefix = dns1123_subdomain(prefix);
                faults.extend(prefix.into_iter().map(|f| format!("prefix part {f}")));
            }
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        faults.push(format!("name part {}", too_long(63)));
    }
    if !is_name_part(name) {
        faults.push(format!("name part {QUALIFIED}"));
    }
    faults
}

/// A label's value; may be empty.
pub fn label_value(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > 63 {
        faults.push(too_long(63));
    }
    if !text.is_empty() && !is_name_part(text) {
        faults.push(LABEL_VALUE.to_owned());
    }
    faults
}

/// Names that are one segment of a path.
pub fn path_segment(text: &str) -> Faults {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| text.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// Keys of ConfigMaps and Secrets.
pub fn config_key(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push(too_long(253));
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(valid) {
        faults.push(CONFIG_KEY.to_owned());
    }
    if text == "." {
        faults.push("must not be '.'".into());
    } else if text == ".." {
        faults.push("must not be '..'".into());
    } else if text.starts_with("..") {
        faults.push("must not start with '..'".into());
    }
    faults
}

/// Names of environment variables: any printable ASCII but `=`.
pub fn environment_name(text: &str) -> Faults {
    let valid = |b: u8| (0x20..=0x7e).contains(&b) && b != b'=';
    if !text.is_empty() && text.bytes().all(valid) {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
}

/// `25%`
pub fn percent(text: &str) -> Faults {
    let digits = text.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![PERCENT.to_owned()]
}

pub fn port(number: i64) -> Faults {
    if (1..=65_535).contains(&number) {
        return Vec::new();
    }
    vec!["must be between 1 and 65535, inclusive".into()]
}

/// Names of ports (IANA service names).
pub fn port_name(text: &str) -> Faults {
    let mut faults: Faults = Vec::new();
    if text.len() > 15 {
        faults.push(too_long(15));
    }
    let valid = |b: u8| lower_alnum(b) || b == b'-';
    if !text.bytes().all(valid) {
        faults
            .push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen".into());
    }
    faults
}

/// `acme.io/foo`: a path below a domain.
pub fn qualified_path(text: &str) -> Faults {
    const FORM: &str = "must be a domain-prefixed path (such as \"acme.io/foo\")";
    let Some((domain, rest)) = text
        .split_once('/')
        .filter(|(d, r)| !d.is_empty() && !r.is_empty())
    else {
        return vec![FORM.to_owned()];
    };
    let faults = dns1123_subdomain(domain);
    if !faults.is_empty() {
        return faults;
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !rest.bytes().all(plain) {
        return vec!["Invalid path (e.g. 'example.com/foo/bar', regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')".to_owned()];
    }
    Vec::new()
}

/// Names of HTTP header fields.
pub fn header_name(text: &str) -> Faults {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec!["a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')".into()]
}

/// As a subdomain, but with underscores: what resolvers search.
pub fn search_domain(text: &str) -> Faults {
    const FORM: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*')";
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push(too_long(253));
    }
    let end = |b: Option<&u8>| b.is_some_and(|b| lower_alnum(*b) || *b == b'_');
    let part = |p: &str| {
        let bytes = p.as_bytes();
        end(bytes.first())
            && end(bytes.last())
            && bytes
                .iter()
                .all(|b| lower_alnum(*b) || matches!(b, b'-' | b'_'))
    };
    if !text.split('.').all(part) {
        faults.push(FORM.to_owned());
    }
    faults
}

/// A ClusterTrustBundle's name: prefixed by its signer's, or a subdomain.
pub fn trust_bundle(name: &str, signer: Option<&str>) -> Faults {
    let signer = signer.map(str::to_owned).or_else(|| {
        let (signer, _) = name.rsplit_once(':')?;
        Some(signer.replacen(':', "/", 1))
    });
    let Some(signer) = signer.filter(|s| !s.is_empty()) else {
        return match name.contains(':') {
            true => vec![
                "ClusterTrustBundle without signer name must not have \":\" in its name".into(),
            ],
            false => dns1123_subdomain(name),
        };
    };
    let prefix = format!("{}:", signer.replacen('/', ":", 1));
    match name.strip_prefix(&prefix) {
        Some(rest) => dns1123_subdomain(rest),
        None => vec![format!(
            "ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        )],
    }
}

/// An address as the fields of old take it: octets may begin with zeros, IPv4 may come within
/// IPv6 and is then IPv4.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        });
    }
    let mut octets = [0; 4];
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() != octets.len() {
        return None;
    }
    for (octet, part) in octets.iter_mut().zip(parts) {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() {
            0
        } else {
            digits.parse().ok()?
        };
    }
    Some(IpAddr::from(octets))
}

pub fn ip(text: &str) -> Faults {
    if parse_ip(text).is_some() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()]
}

/// Whether addresses are one of each family; what is no address counts for nothing.
pub fn dual_stack(addresses: &[&str]) -> bool {
    let families: Vec<bool> = addresses
        .iter()
        .filter_map(|a| parse_ip(a.split('/').next().unwrap_or(a)))
        .map(|a| a.is_ipv4())
        .collect();
    addresses.len() == 2 && families.len() == 2 && families[0] != families[1]
}

/// An address as newer fields take it: in the one form in which it is written.
pub fn canonical_ip(text: &str) -> Faults {
    let faults = ip(text);
    let Some(address) = parse_ip(text) else {
        return faults;
    };
    match text.parse::<IpAddr>() {
        Err(_) => vec!["must not have leading 0s".into()],
        Ok(strict) if strict != address => {
            vec!["must not be an IPv4-mapped IPv6 address".into()]
        }
        Ok(_) if address.to_string() != text => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        Ok(_) => Vec::new(),
    }
}

/// The network of an address: the bits after the prefix are zero.
pub fn network(address: IpAddr, bits: u8) -> IpAddr {
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

/// A network in CIDR form: its address (which may be inside it) and prefix length.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = parse_ip(address)?;
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

pub fn cidr(text: &str) -> Faults {
    if parse_cidr(text).is_some() {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into()]
}

/// A network as newer fields take it.
pub fn canonical_cidr(text: &str) -> Faults {
    let faults = cidr(text);
    let Some((address, bits)) = parse_cidr(text) else {
        return faults;
    };
    let written = text.split_once('/').map_or(text, |(address, _)| address);
    let network = network(address, bits);
    match written.parse::<IpAddr>() {
        Err(_) => vec!["must not have leading 0s in IP or prefix length".into()],
        Ok(_) if !text.ends_with(&format!("/{bits}")) => {
            vec!["must not have leading 0s in IP or prefix length".into()]
        }
        Ok(strict) if strict != address => {
            vec!["must not have an IPv4-mapped IPv6 address".into()]
        }
        Ok(_) if network != address => {
            vec!["must not have bits set beyond the prefix length".into()]
        }
        Ok(_) if format!("{network}/{bits}") != text => {
            vec![format!("must be in canonical form (\"{network}/{bits}\")")]
        }
        Ok(_) => Vec::new(),
    }
}

/// An address of an interface, with the length of its network's prefix: `192.0.2.5/24`.
pub fn interface_address(text: &str) -> Faults {
    const FORM: &str = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
    let Some((address, bits)) = parse_cidr(text) else {
        return vec![FORM.to_owned()];
    };
    let written = text.split_once('/').map_or(text, |(address, _)| address);
    match written.parse::<IpAddr>() {
        Err(_) => vec!["must not have leading 0s in IP or prefix length".into()],
        Ok(_) if !text.ends_with(&format!("/{bits}")) => {
            vec!["must not have leading 0s in IP or prefix length".into()]
        }
        Ok(strict) if strict != address => {
            vec!["must not have an IPv4-mapped IPv6 address".into()]
        }
        Ok(_) if format!("{address}/{bits}") != text => {
            vec![format!("must be in canonical form (\"{address}/{bits}\")")]
        }
        Ok(_) => Vec::new(),
    }
}

/// Which rule an object's name follows, by group and kind.
pub fn rule(group: &str, kind: &str) -> fn(&str) -> Faults {
    match (group, kind) {
        // Of Services since 1.36 (KEP-5311); before, they began with a letter.
        ("", "Namespace" | "Service") => dns1123_label,
        ("rbac.authorization.k8s.io", _) | ("certificates.k8s.io", "CertificateSigningRequest") => {
            path_segment
        }
        // Its own rules say more: the name is made of the version and the group.
        ("apiregistration.k8s.io", "APIService") => path_segment,
        ("networking.k8s.io", "IPAddress") => canonical_ip,
        _ => dns1123_subdomain,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a", true)]
    #[case("a-b.c0", true)]
    #[case("", false)]
    #[case("A", false)]
    #[case("a..b", false)]
    #[case("-a", false)]
    #[case("a_b", false)]
    fn subdomains(#[case] text: &str, #[case] good: bool) {
        assert_eq!(dns1123_subdomain(text).is_empty(), good, "{text}");
    }

    #[rstest]
    #[case("a", true)]
    #[case("example.com/Name_1", true)]
    #[case("/a", false)]
    #[case("a/", false)]
    #[case("a/b/c", false)]
    #[case("UP.com/a", false)]
    fn qualified(#[case] text: &str, #[case] good: bool) {
        assert_eq!(qualified_name(text).is_empty(), good, "{text}");
    }

    #[rstest]
    #[case("Service", "1up", true)]
    #[case("Service", "a.b", false)]
    #[case("Namespace", "1up", true)]
    #[case("Pod", "a.b", true)]
    fn names_by_kind(#[case] kind: &str, #[case] text: &str, #[case] good: bool) {
        assert_eq!(rule("", kind)(text).is_empty(), good, "{kind} {text}");
    }

    #[rstest]
    #[case("http", true)]
    #[case("8080", false)]
    #[case("a--b", false)]
    #[case("-a", false)]
    #[case("averyveryverylongname", false)]
    fn ports(#[case] text: &str, #[case] good: bool) {
        assert_eq!(port_name(text).is_empty(), good, "{text}");
    }
}
