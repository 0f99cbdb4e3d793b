//! Where things are: the kubelet of a node, the endpoint of a service, `scheme:name:port`.

use gantry_machinery::status::Failure;
use serde_json::Value;

use super::{
    Asked,
    links::{Remote, Security},
};
use crate::{api::Api, errors, object};

/// Splits `[scheme:]name[:port]` as proxies are addressed; `None` when it is none.
pub fn split(id: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let scheme_ok = matches!(scheme, "" | "http" | "https");
    (scheme_ok && !name.is_empty()).then_some((scheme, name, port))
}

/// A stored object as JSON.
pub fn stored(
    api: &Api,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Failure> {
    let registry = api.registry.read().clone();
    let Some(entry) = registry.resource(group, plural) else {
        return Ok(None);
    };
    match api.store.get(&object::key(entry, namespace, name)) {
        Some(stored) => object::parse(&stored.value).map(Some),
        None => Ok(None),
    }
}

/// The kubelet of a node: its preferred address, and the port that it announces.
pub fn kubelet(api: &Api, node: &str) -> Result<Remote, Failure> {
    let Some(object) = stored(api, "", "nodes", "", node)? else {
        return Err(errors::not_found_named("nodes", node));
    };
    kubelet_of(api, node, &object)
}

pub fn kubelet_of(api: &Api, node: &str, object: &Value) -> Result<Remote, Failure> {
    let Some(host) = address(object, &api.config.kubelet.address_types) else {
        return Err(errors::plain_internal(format!(
            "no preferred addresses found; known addresses: {}",
            object
                .pointer("/status/addresses")
                .map(Value::to_string)
                .unwrap_or_else(|| "[]".to_owned())
        )));
    };
    let port = object
        .pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
        .and_then(Value::as_u64)
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p != 0);
    let Some(port) = port else {
        return Err(errors::plain_internal(format!(
            "node {node} announces no kubelet endpoint"
        )));
    };
    Ok(Remote {
        host,
        port,
        security: Security::Kubelet,
    })
}

fn address(node: &Value, types: &[String]) -> Option<String> {
    let all = node.pointer("/status/addresses")?.as_array()?;
    types.iter().find_map(|wanted| {
        let found = all.iter().find(|a| object::text(a, "/type") == wanted)?;
        Some(object::text(found, "/address").to_owned())
    })
}

/// Whether an address may be proxied to: not the server's own, nor the link's.
pub fn proxyable(address: &str) -> Result<(), Failure> {
    let refused = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(a)) => a.is_loopback() || a.is_link_local() || a.is_multicast(),
        Ok(std::net::IpAddr::V6(a)) => {
            a.is_loopback() || a.is_unicast_link_local() || a.is_multicast()
        }
        Err(_) => true,
    };
    match refused {
        true => Err(errors::bad_request("address not allowed")),
        false => Ok(()),
    }
}

fn no_endpoints(service: &str) -> Failure {
    Failure::new(
        503,
        "ServiceUnavailable",
        format!("no endpoints available for service \"{service}\""),
    )
}

/// A ready endpoint behind a port of an existing service, given by its name: address and port.
pub fn endpoint(
    api: &Api,
    namespace: &str,
    service: &str,
    port_name: &str,
) -> Result<(String, u16), Failure> {
    let snapshot = api.store.snapshot("discovery.k8s.io/endpointslices");
    let prefix = format!("{namespace}/");
    let mut found = vec![];
    let mut slices = 0;
    for stored in snapshot.range(&prefix, None) {
        let slice = object::parse(&stored.value)?;
        let owner = slice.pointer("/metadata/labels/kubernetes.io~1service-name");
        if owner.and_then(Value::as_str) != Some(service) {
            continue;
        }
        slices += 1;
        let list = |field: &str| {
            slice
                .get(field)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let port = list("ports").into_iter().find_map(|p| {
            let same = object::text(&p, "/name") == port_name;
            let number = p.get("port").and_then(Value::as_u64);
            number.filter(|_| same).and_then(|p| u16::try_from(p).ok())
        });
        let Some(port) = port else { continue };
        for endpoint in list("endpoints") {
            let ready = endpoint
                .pointer("/conditions/ready")
                .and_then(Value::as_bool)
                .unwrap_or(true);
            let first = endpoint.pointer("/addresses/0").and_then(Value::as_str);
            if let (true, Some(address)) = (ready, first) {
                found.push((address.to_owned(), port));
            }
        }
    }
    if slices == 0 {
        // Nobody has looked for endpoints yet: Kubernetes then says that of the service itself.
        return Err(errors::not_found_named("services", service));
    }
    if found.is_empty() {
        return Err(no_endpoints(service));
    }
    Ok(found.swap_remove(rand::random_range(0..found.len())))
}

impl Asked {
    /// The object that the request is about.
    pub fn object(&self, name: &str) -> Result<Value, Failure> {
        let key = object::key(&self.entry, &self.target.namespace, name);
        match self.api.store.get(&key) {
            Some(stored) => object::parse(&stored.value),
            None => Err(self.not_found(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_carry_scheme_and_port() {
        assert_eq!(split("web"), Some(("", "web", "")));
        assert_eq!(split("web:80"), Some(("", "web", "80")));
        assert_eq!(split("https:web:tls"), Some(("https", "web", "tls")));
        assert_eq!(split("https:web:"), Some(("https", "web", "")));
        for wrong in ["ftp:web:21", "a:b:c:d", ":80", ""] {
            assert_eq!(split(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_preferred_address_is_taken() {
        let node = json!({"status": {"addresses": [
            {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}]}});
        let types = |t: &[&str]| t.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            address(&node, &types(&["InternalDNS", "InternalIP", "Hostname"])).as_deref(),
            Some("10.0.0.1")
        );
        assert_eq!(address(&node, &types(&["ExternalIP"])), None);
    }

    #[test]
    fn nobody_is_led_to_the_server_itself() {
        assert!(proxyable("127.0.0.1").is_err());
        assert!(proxyable("169.254.169.254").is_err());
        assert!(proxyable("").is_err());
        assert!(proxyable("10.64.0.3").is_ok());
    }
}
