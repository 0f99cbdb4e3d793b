//! Where a Service is: the addresses of its endpoints, as the store has them.

use gantry_store::{Key, Store};
use rand::seq::SliceRandom;
use serde_json::Value;

use crate::object;

/// A host name or address, and a port.
pub type Place = (String, u16);

/// The namespace and name of a Service in a host name `NAME.NAMESPACE.svc`.
pub fn service(host: &str) -> Option<(&str, &str)> {
    let (name, namespace) = host.strip_suffix(".svc")?.split_once('.')?;
    let plain = !name.is_empty() && !namespace.is_empty() && !namespace.contains('.');
    plain.then_some((namespace, name))
}

/// Where to connect for a port of a Service, in a random order: ready endpoints, else (for one
/// that nobody has put endpoints to) its own address.
///
/// # Errors
/// Why there is no such place, in the words of kube-apiserver's resolvers.
pub fn places(store: &Store, namespace: &str, name: &str, port: u16) -> Result<Vec<Place>, String> {
    let key = Key::new("/services", format!("{namespace}/{name}"));
    let stored = store
        .get(&key)
        .ok_or_else(|| format!("service {name:?} not found"))?;
    let service: Value = serde_json::from_slice(&stored.value).unwrap_or_default();
    if object::text(&service, "/spec/type") == "ExternalName" {
        return Ok(vec![(
            object::text(&service, "/spec/externalName").to_owned(),
            port,
        )]);
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let wanted = ports
        .into_iter()
        .flatten()
        .find(|p| p.get("port").and_then(Value::as_u64) == Some(port.into()))
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let wanted = object::text(wanted, "/name");
    let slices = slices(store, namespace, name);
    let mut places: Vec<Place> = slices.iter().flat_map(|s| of_slice(s, wanted)).collect();
    let mut known = !slices.is_empty();
    if places.is_empty() {
        let key = Key::new("/endpoints", format!("{namespace}/{name}"));
        if let Some(stored) = store.get(&key) {
            let endpoints: Value = serde_json::from_slice(&stored.value).unwrap_or_default();
            places = of_endpoints(&endpoints, wanted);
            known = true;
        }
    }
    if places.is_empty() {
        let own = object::text(&service, "/spec/clusterIP");
        if known || matches!(own, "" | "None") {
            return Err(format!("no endpoints available for service {name:?}"));
        }
        return Ok(vec![(own.to_owned(), port)]);
    }
    places.shuffle(&mut rand::rng());
    Ok(places)
}

/// The EndpointSlices of a Service.
pub fn slices(store: &Store, namespace: &str, name: &str) -> Vec<Value> {
    let prefix = format!("{namespace}/");
    store
        .snapshot("discovery.k8s.io/endpointslices")
        .range(&prefix, None)
        .filter_map(|stored| serde_json::from_slice::<Value>(&stored.value).ok())
        .filter(|slice| {
            let labels = object::meta(slice).and_then(|m| m.get("labels"));
            let owner = labels.and_then(|l| l.get("kubernetes.io/service-name"));
            owner.and_then(Value::as_str) == Some(name)
        })
        .collect()
}

fn port_of(ports: Option<&Value>, wanted: &str) -> Option<u16> {
    let ports = ports.and_then(Value::as_array)?;
    let port = ports.iter().find(|p| object::text(p, "/name") == wanted)?;
    port.get("port")?.as_u64()?.try_into().ok()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn of_slice(slice: &Value, wanted: &str) -> Vec<Place> {
    let Some(port) = port_of(slice.get("ports"), wanted) else {
        return vec![];
    };
    list(slice, "endpoints")
        .filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)))
        .filter_map(|e| e.pointer("/addresses/0").and_then(Value::as_str))
        .map(|address| (address.to_owned(), port))
        .collect()
}

fn of_endpoints(endpoints: &Value, wanted: &str) -> Vec<Place> {
    let mut places = vec![];
    for subset in list(endpoints, "subsets") {
        if let Some(port) = port_of(subset.get("ports"), wanted) {
            places.extend(
                list(subset, "addresses").map(|a| (object::text(a, "/ip").to_owned(), port)),
            );
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_services_are_told_from_others() {
        for (host, expected) in [
            ("hook.shop.svc", Some(("shop", "hook"))),
            ("hook.shop.svc.cluster.local", None),
            ("hook.svc", None),
            ("a.b.c.svc", None),
            ("example.com", None),
        ] {
            assert_eq!(service(host), expected, "{host}");
        }
    }

    #[test]
    fn ready_endpoints_of_the_named_port_count() {
        let slice = json!({
            "ports": [{"name": "web", "port": 8443}, {"name": "other", "port": 1}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"]},
            ],
        });
        let places = of_slice(&slice, "web");
        assert_eq!(
            places,
            [("10.0.0.1".to_owned(), 8443), ("10.0.0.3".to_owned(), 8443)]
        );
        assert_eq!(of_slice(&slice, "none"), []);
    }
}
