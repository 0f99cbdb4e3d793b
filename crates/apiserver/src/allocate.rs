//! Addresses and node ports of Services: what a Service gets. Which are there and which are taken is
//! in [`space`], the objects that tell of addresses in [`addresses`], what is mended in [`repair`].

mod addresses;
pub mod repair;
mod space;

use gantry_machinery::path::At as _;
use std::net::Ipv4Addr;

use gantry_machinery::status::{Cause, Failure};
use gantry_store::Store;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{Config, api::Cx, errors, object, rules};
pub use addresses::{BUCKET as ADDRESSES, beside};
use space::{Space, Subnet, Wrong};

const RANGES: &str = "networking.k8s.io/servicecidrs";

/// The ranges, and what of them is in use.
pub struct Services {
    /// The range that is configured: that of a server that has no ServiceCIDR yet.
    own: Subnet,
    ports: (u16, u16),
    space: Mutex<Space>,
}

/// Addresses and ports that one request has taken, given back when it fails.
#[derive(Default)]
pub struct Held {
    addresses: Vec<u32>,
    ports: Vec<u16>,
}

/// The first usable address of a range: that of the `kubernetes` Service.
pub fn first_address((base, bits): (Ipv4Addr, u8)) -> Ipv4Addr {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(bits.min(32)))
        .unwrap_or(0);
    Ipv4Addr::from((u32::from(base) & mask) + 1)
}

/// The IPv4 ranges of a ServiceCIDR, and whether addresses of them are given out. One of which nobody
/// has said yet whether it is ready counts as if it were, as in Kubernetes.
fn ranges_of(object: &Value) -> (Vec<Subnet>, bool) {
    let cidrs = object::strings(object.at("/spec/cidrs"));
    let conditions = object.at("/status/conditions").and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|c| object::text(c, "/type") == "Ready")
        .is_none_or(|c| object::text(c, "/status") == "True");
    let subnets = cidrs.iter().filter_map(|c| Subnet::parse(c)).collect();
    (subnets, ready && !object::deleting(object))
}

impl Services {
    /// Reads what existing Services use.
    pub fn load(config: &Config, store: &Store) -> Services {
        let (base, bits) = config.service_cidr;
        let services = Services {
            own: Subnet::new(base, bits.min(30)),
            ports: config.node_ports,
            space: Mutex::default(),
        };
        {
            let mut space = services.space.lock();
            for stored in store.snapshot("/services").iter() {
                let Ok(service) = serde_json::from_slice::<Value>(&stored.value) else {
                    continue;
                };
                for address in service_addresses(&service) {
                    space.add(address);
                }
                for port in node_ports(&service) {
                    space.add_port(port);
                }
            }
            for stored in store.snapshot(ADDRESSES).iter() {
                if let Ok(address) = stored.key.name.parse::<Ipv4Addr>() {
                    space.object(address.into(), true);
                }
            }
        }
        services.read_ranges(store);
        services
    }

    /// Reads the ranges anew: one of them has changed.
    pub fn read_ranges(&self, store: &Store) {
        let mut space = self.space.lock();
        // Under the lock, so that what was read last also counts last.
        let snapshot = store.snapshot(RANGES);
        let mut ranges = vec![];
        for stored in snapshot.iter() {
            let Ok(object) = serde_json::from_slice::<Value>(&stored.value) else {
                continue;
            };
            let (subnets, ready) = ranges_of(&object);
            ranges.extend(subnets.into_iter().map(|subnet| (subnet, ready)));
        }
        if snapshot.is_empty() {
            ranges.push((self.own, true));
        }
        space.set_ranges(ranges);
    }

    /// An IPAddress was written or removed.
    pub fn noticed(&self, store: &Store, name: &str) {
        let Ok(address) = name.parse::<Ipv4Addr>() else {
            return;
        };
        let mut space = self.space.lock();
        // The store says how it is by now: of two that tell of one address, the later is right.
        let key = gantry_store::Key::new(ADDRESSES, name);
        space.object(address.into(), store.get(&key).is_some());
    }

    /// A Service is gone: what it used is free.
    pub fn release(&self, value: &[u8]) {
        let Ok(service) = serde_json::from_slice::<Value>(value) else {
            return;
        };
        self.undo(Held {
            addresses: service_addresses(&service),
            ports: node_ports(&service),
        });
    }

    /// Frees these; what a failed request had taken, for one.
    pub fn undo(&self, held: Held) {
        if held.addresses.is_empty() && held.ports.is_empty() {
            return;
        }
        let mut space = self.space.lock();
        for address in held.addresses {
            space.release(address);
        }
        for port in held.ports {
            space.release_port(port);
        }
    }

    fn address(&self, held: &mut Held) -> Option<Ipv4Addr> {
        let address = self.space.lock().next()?;
        held.addresses.push(address);
        Some(Ipv4Addr::from(address))
    }

    fn port(&self, held: &mut Held) -> Option<u16> {
        let port = self.space.lock().next_port(self.ports)?;
        held.ports.push(port);
        Some(port)
    }
}

fn service_addresses(service: &Value) -> Vec<u32> {
    let mut all = object::strings(service.at("/spec/clusterIPs"));
    let one = object::text(service, "/spec/clusterIP");
    if all.is_empty() && !one.is_empty() {
        all.push(one.to_owned());
    }
    all.iter()
        .filter_map(|a| a.parse::<Ipv4Addr>().ok())
        .map(u32::from)
        .collect()
}

fn node_ports(service: &Value) -> Vec<u16> {
    let mut ports: Vec<u16> = service
        .at("/spec/ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|p| p.get("nodePort").and_then(Value::as_u64))
        .filter_map(|p| u16::try_from(p).ok())
        .filter(|p| *p > 0)
        .collect();
    let health = service
        .at("/spec/healthCheckNodePort")
        .and_then(Value::as_u64);
    ports.extend(
        health
            .and_then(|p| u16::try_from(p).ok())
            .filter(|p| *p > 0),
    );
    ports
}

fn is_service(cx: &Cx) -> bool {
    cx.entry.is("", "services")
}

fn wrong(cx: &Cx, name: &str, field: &str, message: String) -> Failure {
    rules::invalid(
        cx.resource(),
        name,
        vec![Cause {
            reason: "FieldValueInvalid".to_owned(),
            message,
            field: field.to_owned(),
        }],
    )
}

fn not_allocated(cx: &Cx, name: &str, address: &str, why: &str) -> Failure {
    let message = format!("Invalid value: [{address:?}]: failed to allocate IP {address}: {why}");
    wrong(cx, name, "spec.clusterIPs", message)
}

fn already_allocated(cx: &Cx, name: &str, address: &str) -> Failure {
    not_allocated(cx, name, address, "provided IP is already allocated")
}

pub fn on_create(cx: &Cx, service: &mut Value) -> Result<Held, Failure> {
    if !is_service(cx) {
        return Ok(Held::default());
    }
    fill(cx, service, None)
}

/// What an update has taken, and what is free once its outcome is known.
#[derive(Default)]
pub struct Swap {
    taken: Held,
    left: Held,
}

impl Services {
    /// Frees what the update left when it was stored, what it had taken when it was not.
    pub fn settle(&self, swap: Swap, stored: bool) {
        self.undo(if stored { swap.left } else { swap.taken });
    }
}

pub fn on_update(cx: &Cx, service: &mut Value, old: &Value) -> Result<Swap, Failure> {
    if !is_service(cx) {
        return Ok(Swap::default());
    }
    let taken = fill(cx, service, Some(old))?;
    let (mut left_addresses, mut left_ports) = (service_addresses(old), node_ports(old));
    let (now_addresses, now_ports) = (service_addresses(service), node_ports(service));
    left_addresses.retain(|a| !now_addresses.contains(a));
    left_ports.retain(|p| !now_ports.contains(p));
    Ok(Swap {
        taken,
        left: Held {
            addresses: left_addresses,
            ports: left_ports,
        },
    })
}

/// Gives a Service the addresses and ports that its type needs.
fn fill(cx: &Cx, service: &mut Value, old: Option<&Value>) -> Result<Held, Failure> {
    let mut held = Held::default();
    let result = fill_into(cx, service, old, &mut held);
    if let Err(failure) = result {
        cx.api.services.undo(held);
        return Err(failure);
    }
    Ok(held)
}

fn fill_into(
    cx: &Cx,
    service: &mut Value,
    old: Option<&Value>,
    held: &mut Held,
) -> Result<(), Failure> {
    let services = &cx.api.services;
    let name = object::name(service).to_owned();
    let kind = match object::text(service, "/spec/type") {
        "" => "ClusterIP".to_owned(),
        kind => kind.to_owned(),
    };
    let before = |pointer: &str| old.and_then(|o| o.at(pointer)).cloned();
    let old_type = before("/spec/type");
    let old_type = old_type.as_ref().and_then(Value::as_str).unwrap_or("");
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    if kind == "ExternalName" {
        // It is taken and not kept: nothing goes through the Service.
        spec.remove("internalTrafficPolicy");
        if old_type != "ExternalName" && old.is_some() {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.get(field) == before(&format!("/spec/{field}")).as_ref() {
                    spec.remove(field);
                }
            }
        }
        return Ok(());
    }
    // A replaced Service that leaves its address out keeps it.
    if old_type != "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if (!spec.contains_key(field) || spec.get(field) == Some(&Value::from("")))
                && let Some(value) = before(&format!("/spec/{field}"))
            {
                spec.insert(field.to_owned(), value);
            }
        }
    }
    let asked = spec
        .get("clusterIP")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let had = before("/spec/clusterIP");
    match asked.as_str() {
        "None" => {
            spec.entry("clusterIPs").or_insert_with(|| json!(["None"]));
        }
        "" => {
            let address = services
                .address(held)
                .ok_or_else(|| errors::internal("failed to allocate a serviceIP: range is full"))?;
            spec.insert("clusterIP".to_owned(), address.to_string().into());
            spec.insert("clusterIPs".to_owned(), json!([address.to_string()]));
        }
        given if had.as_ref().and_then(Value::as_str) == Some(given) => {}
        given if had.is_some() && old_type != "ExternalName" => {
            return Err(wrong(
                cx,
                &name,
                "spec.clusterIPs[0]",
                format!("Invalid value: [{given:?}]: may not change once set"),
            ));
        }
        given => {
            let address: Ipv4Addr = given.parse().map_err(|_| {
                wrong(
                    cx,
                    &name,
                    "spec.clusterIPs[0]",
                    format!("Invalid value: {:?}: must be a valid IP address", [given]),
                )
            })?;
            let value = u32::from(address);
            let taken = services.space.lock().take(value);
            taken.map_err(|why| match why {
                Wrong::Taken => already_allocated(cx, &name, given),
                Wrong::NoRange => not_allocated(
                    cx,
                    &name,
                    given,
                    "the provided network does not match the current range",
                ),
                Wrong::Outside(range) => {
                    let why = format!("the provided IP ({given}) is not in the valid range. The range of valid IPs is {range}");
                    not_allocated(cx, &name, given, &why)
                }
            })?;
            held.addresses.push(value);
            spec.entry("clusterIPs").or_insert_with(|| json!([given]));
        }
    }
    let headless_without_selector = asked == "None"
        && spec
            .get("selector")
            .and_then(Value::as_object)
            .is_none_or(serde_json::Map::is_empty);
    if !spec.contains_key("ipFamilyPolicy") {
        let policy = if headless_without_selector {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        spec.insert("ipFamilyPolicy".to_owned(), policy.into());
    }
    if !spec.contains_key("ipFamilies") {
        let families = if headless_without_selector {
            json!(["IPv4", "IPv6"])
        } else {
            json!(["IPv4"])
        };
        spec.insert("ipFamilies".to_owned(), families);
    }
    let wants_ports = kind == "NodePort"
        || kind == "LoadBalancer"
            && spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let old_ports = before("/spec/ports");
    let old_ports: Vec<Value> = match old_ports {
        Some(Value::Array(list)) => list,
        _ => vec![],
    };
    let in_use = old.map(node_ports).unwrap_or_default();
    let mut given = vec![];
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        let number = port.get("nodePort").and_then(Value::as_u64).unwrap_or(0);
        if !wants_ports && number == 0 || kind == "ClusterIP" {
            if kind == "ClusterIP" && old.is_some() && old_type != "ClusterIP" {
                port.remove("nodePort");
            }
            continue;
        }
        if number == 0 {
            // The same port keeps its node port over an update that leaves it out.
            let same = old_ports.iter().find(|p| {
                p.get("port") == port.get("port")
                    && p.get("protocol").unwrap_or(&Value::Null)
                        == port.get("protocol").unwrap_or(&Value::Null)
            });
            let kept = same.and_then(|p| p.get("nodePort")).cloned();
            let number = match kept {
                Some(number) => number,
                None => services
                    .port(held)
                    .ok_or_else(|| {
                        errors::internal("failed to allocate a nodePort: range is full")
                    })?
                    .into(),
            };
            port.insert("nodePort".to_owned(), number);
            continue;
        }
        let Ok(number) = u16::try_from(number) else {
            continue;
        };
        if in_use.contains(&number) || given.contains(&number) {
            continue;
        }
        let (low, high) = services.ports;
        if number < low || number > high {
            return Err(wrong(
                cx,
                &name,
                "spec.ports[0].nodePort",
                format!(
                    "Invalid value: {number}: provided port is not in the valid range. The range of valid ports is {low}-{high}"
                ),
            ));
        }
        if !services.space.lock().add_port(number) {
            return Err(wrong(
                cx,
                &name,
                "spec.ports[0].nodePort",
                format!("Invalid value: {number}: provided port is already allocated"),
            ));
        }
        held.ports.push(number);
        given.push(number);
    }
    let local = spec.get("externalTrafficPolicy") == Some(&Value::from("Local"));
    if kind == "LoadBalancer" && local {
        if spec
            .get("healthCheckNodePort")
            .and_then(Value::as_u64)
            .unwrap_or(0)
            == 0
        {
            let port = match before("/spec/healthCheckNodePort") {
                Some(port) => port,
                None => services
                    .port(held)
                    .ok_or_else(|| {
                        errors::internal("failed to allocate a nodePort: range is full")
                    })?
                    .into(),
            };
            spec.insert("healthCheckNodePort".to_owned(), port);
        }
    } else if old.is_some() {
        spec.remove("healthCheckNodePort");
    }
    if old.is_some() && kind == "ClusterIP" && old_type != "ClusterIP" {
        for field in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
            if spec.get(field) == before(&format!("/spec/{field}")).as_ref() {
                spec.remove(field);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_used_as_long_as_nobody_says_otherwise() {
        let status = |status: &str| json!({"conditions": [{"type": "Ready", "status": status}]});
        for (metadata, status, expected) in [
            (json!({}), json!({}), true),
            (json!({}), status("True"), true),
            (json!({}), status("False"), false),
            (
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                status("True"),
                false,
            ),
        ] {
            let spec = json!({"cidrs": ["10.0.0.0/24", "2001:db8::/64"]});
            let object = json!({"metadata": metadata, "spec": spec, "status": status});
            let (subnets, ready) = ranges_of(&object);
            assert_eq!(subnets, [Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 24)]);
            assert_eq!(ready, expected, "{object}");
        }
    }
}
